"""A live copy of a few columns of a small OVSDB database, kept by ovsdbapp.

ovsdbapp runs a thread, reconnects by itself, logs what goes wrong and raises nothing: the owner asks the server a cheap
question first, by the raw client, and stops the replica when that fails.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mecexporter.errors import Reason, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

T = TypeVar("T")

# One thread makes all connections: ovs asks libuuid for a UUID, which keeps a file open for each thread that ever did.
_builder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="copies")
_JOIN = 2.0  # seconds in which a thread that was told to end does, or is left behind

Tables = dict[str, Any]
"""Table name -> ovs' table object; its rows live and must not leave the freezing function."""


class Replica(Generic[T]):
    """Columns of one database, frozen into values on request.

    The first copy may take many seconds (ovs parses JSON in Python), so it is made in a thread: :meth:`start` returns
    at once, and :meth:`value` tells. :meth:`stop` may be called at any time. Both may block: call them in a thread.

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
        self._lock = threading.Lock()  # of the next three
        self._connection: Any = None
        self._stopped = False
        self._failure: SourceError | None = SourceError(Reason.PENDING, f"{endpoint}: the first copy is being made")
        self._frozen: tuple[int, T] | None = None

    def start(self) -> None:
        """Begin the first copy."""
        threading.Thread(target=self._start, name=f"copy {self._endpoint}", daemon=True).start()

    def value(self) -> T:
        """What the copy holds now.

        Raises:
            SourceError: PENDING while the first copy is being made; TIMEOUT or GARBAGE if it could not be; CLOSED while
                the copy is not connected, or was stopped.
        """
        with self._lock:
            connection, failure = self._connection, self._failure
        if failure is not None:
            raise failure
        with connection.lock:
            idl = connection.idl
            if idl.state != idl.IDL_S_MONITORING:
                raise SourceError(Reason.CLOSED, f"{self._endpoint}: the copy is connecting")
            if self._frozen is None or self._frozen[0] != idl.change_seqno:
                self._frozen = (idl.change_seqno, self._freeze(idl.tables))
            return self._frozen[1]

    def stop(self) -> None:
        """End the threads, also one that is busy with what a broken server sends."""
        with self._lock:
            self._stopped, self._failure = True, SourceError(Reason.CLOSED, f"{self._endpoint}: the copy was stopped")
            connection = self._connection
        if connection is None:
            return  # _start() will see it
        with contextlib.suppress(AttributeError, OSError):  # not connected
            connection.idl._session.rpc.stream.socket.shutdown(socket.SHUT_RDWR)  # noqa: SLF001  # there is no other way
        if connection.thread is not None and not connection.stop(_JOIN):
            log.warning("the thread of an OVSDB copy has not ended", extra={"endpoint": self._endpoint})

    def _start(self) -> None:
        connection, failure = None, None
        try:
            connection = _builder.submit(self._connect).result()
            with self._lock:
                self._connection = connection
                stopped = self._stopped
            if not stopped:
                connection.start()
        except Exception as error:  # noqa: BLE001  # ovs and ovsdbapp raise what they will, their own time-out too
            reason = Reason.GARBAGE if connection is None else Reason.TIMEOUT
            failure = SourceError(reason, f"{self._endpoint}: no copy was had: {error!r:.200}")
        with self._lock:
            stopped = self._stopped
            if not stopped:
                self._failure = failure
        if connection is not None and (stopped or failure is not None):  # nobody else ends what has been begun
            if connection.thread is not None:
                connection.stop(_JOIN)
            else:
                connection.idl.close()

    def _connect(self) -> Any:
        # Imported here, as nodes without Open vSwitch need not pay for it.
        from ovs.db.idl import SchemaHelper  # noqa: PLC0415  # as said
        from ovsdbapp.backend.ovs_idl.connection import Connection, OvsdbIdl  # noqa: PLC0415  # as said

        helper = SchemaHelper(schema_json=dict(self._schema))
        for table, columns in self._columns.items():
            known = self._schema["tables"].get(table, {}).get("columns", {})
            helper.register_columns(table, [c for c in columns if c in known])
        # leader_only is for clusters, and this is a host's own database.
        return Connection(OvsdbIdl(self._endpoint, helper, leader_only=False), self._timeout)
