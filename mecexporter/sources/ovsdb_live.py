"""A live copy of a few columns of a small OVSDB database, kept by ovsdbapp.

ovsdbapp runs a thread, reconnects by itself, logs what goes wrong and raises nothing: the owner asks the server a cheap
question first, by the raw client, and stops the replica when that fails.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mecexporter.errors import Reason, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

T = TypeVar("T")

Tables = dict[str, Any]
"""Table name -> ovs' table object; its rows live and must not leave the freezing function."""


class Replica(Generic[T]):
    """Columns of one database, frozen into values on request. Its methods block: call them in a thread.

    Args:
        endpoint: an OVSDB connection string.
        schema: the server's whole schema (RFC 7047 section 3.2), as get_schema gave it.
        columns: table -> the columns wanted; what the schema lacks is left out.
        freeze: makes a value of the tables; called under the replica's lock.
        timeout: seconds for the first copy.
    """

    def __init__(
        self,
        endpoint: str,
        schema: Mapping[str, Any],
        columns: Mapping[str, tuple[str, ...]],
        freeze: Callable[[Tables], T],
        *,
        timeout: float,
    ) -> None:
        self._endpoint = endpoint
        self._schema = schema
        self._columns = columns
        self._freeze = freeze
        self._timeout = timeout
        self._connection: Any = None
        self._frozen: tuple[int, T] | None = None

    def start(self) -> None:
        """Connect and wait for the first copy.

        Raises:
            SourceError: TIMEOUT.
        """
        # Imported here, as nodes without Open vSwitch need not pay for it.
        from ovs.db.idl import SchemaHelper  # noqa: PLC0415
        from ovsdbapp.backend.ovs_idl.connection import Connection, OvsdbIdl  # noqa: PLC0415
        from ovsdbapp.exceptions import TimeoutException  # noqa: PLC0415

        helper = SchemaHelper(schema_json=dict(self._schema))
        for table, columns in self._columns.items():
            known = self._schema["tables"].get(table, {}).get("columns", {})
            helper.register_columns(table, [c for c in columns if c in known])
        # leader_only is for clusters; the probe would add to what the owner asks anyway.
        self._connection = Connection(OvsdbIdl(self._endpoint, helper, leader_only=False), self._timeout)
        try:
            self._connection.start()
        except TimeoutException:
            raise SourceError(Reason.TIMEOUT, f"{self._endpoint}: no copy within {self._timeout:g} s") from None
        except Exception as error:  # ovs raises what it will
            raise SourceError(Reason.GARBAGE, f"{self._endpoint}: {error!r:.200}") from error

    def value(self) -> T:
        """What the copy holds now.

        Raises:
            SourceError: CLOSED while the copy is not connected.
        """
        if self._connection is None:
            raise SourceError(Reason.CLOSED, f"{self._endpoint}: the copy was stopped")
        with self._connection.lock:
            idl = self._connection.idl
            if idl.state != idl.IDL_S_MONITORING:
                raise SourceError(Reason.CLOSED, f"{self._endpoint}: the copy is connecting")
            if self._frozen is None or self._frozen[0] != idl.change_seqno:
                self._frozen = (idl.change_seqno, self._freeze(idl.tables))
            return self._frozen[1]

    def stop(self) -> None:
        """End the thread, also one that is busy with what a broken server sends."""
        if self._connection is None:
            return
        connection, self._connection = self._connection, None
        with contextlib.suppress(AttributeError, OSError):  # not connected
            connection.idl._session.rpc.stream.socket.shutdown(socket.SHUT_RDWR)  # noqa: SLF001  # there is no other way
        if connection.thread is None:
            connection.idl.close()
        elif not connection.stop(self._timeout):
            log.warning("the thread of an OVSDB copy has not ended", extra={"endpoint": self._endpoint})
