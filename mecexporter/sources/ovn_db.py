"""One server of OVN_Northbound or OVN_Southbound: what it is, and whether it takes writes.

Cheap questions only: ``_Server``, the one global row, and where it runs on this host its control socket. Whether a
standby's content is its active's is another source's question (``ovn_db_sync``).
"""

from __future__ import annotations

import re
import time
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.base import Source
from mecexporter.sources.wire.endpoint import Endpoint, TlsFiles
from mecexporter.sources.wire.ovsdb import OvsdbClient
from mecexporter.sources.wire.raft import parse_cluster_status
from mecexporter.sources.wire.unixctl import UnixctlClient
from mecexporter.state.central import servers, source_name
from mecexporter.state.observed import Fresh
from mecexporter.state.ovn_db import Database, DatabaseServer, Globals, Model, Replication
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mecexporter.state.ovn_db import Raft
    from mecexporter.state.world import World

T = TypeVar("T")

_GLOBALS = {Database.NORTHBOUND: "NB_Global", Database.SOUTHBOUND: "SB_Global"}
_CFG = ("nb_cfg", "nb_cfg_timestamp", "sb_cfg", "sb_cfg_timestamp", "hv_cfg", "hv_cfg_timestamp")
_LOCAL_DEADLINE = 5.0
_REMOTE_DEADLINE = 30.0
_REOPENED = 60.0  # seconds over which a standby's connections are counted: its back-off ends at 8
_STEADY = 20.0  # seconds without a new one after which it has one that lasts


class Found(Enum):
    """How a server came to be asked."""

    CONFIGURED = "the configuration names it"
    USUAL = "it is where a database usually is, if there is one"
    NAMED = "a standby names it as its active"


class OvnDatabaseSource(Source[DatabaseServer]):
    """Asks one server.

    Args:
        db: which database.
        server: its label.
        endpoint: where it is asked.
        control: its control socket, where it runs on this host.
        tls: for ``ssl:`` endpoints.
        interval: seconds between reads.
        found: how it came to be asked, which decides for how long it applies.
    """

    roles = frozenset({Role.CENTRAL})

    def __init__(
        self,
        db: Database,
        server: str,
        endpoint: Endpoint,
        *,
        control: Path | None,
        tls: TlsFiles | None,
        interval: float,
        found: Found = Found.CONFIGURED,
    ) -> None:
        self.name = source_name(db, server)
        self.interval = interval
        self.deadline = _LOCAL_DEADLINE if endpoint.kind == "unix" else _REMOTE_DEADLINE
        self.db = db
        self.endpoint = endpoint
        self._server = server
        self._found = found
        self._client = OvsdbClient(endpoint, tls=tls, deadline=self.deadline)
        self._control_path = str(control) if control else None
        self._control = UnixctlClient(lambda: control, max_bytes=1 << 20) if control else None
        self._opened: tuple[str, int] | None = None  # by which process, how many
        self._reopened: deque[float] = deque()  # when a read saw that connections had been opened

    def configured(self, world: World) -> bool:
        """Whether it is configured; shows, or once did; or is named now."""
        if self._found is Found.CONFIGURED:
            return True
        if self._found is Found.USUAL:
            shows = isinstance(world.host, Fresh) and str(self.db) in world.host.value.signs
            return shows or self.name in world.memory.models
        told = [s.replication.active for s in servers(world, self.db) if s.replication is not None]
        # While no server tells, those that were named last are believed.
        return str(self.endpoint) in told if told else True

    async def read(self, world: World) -> DatabaseServer:  # noqa: ARG002  # asks the same whatever the World
        """Raises SourceError; ANSWERED_ERROR where the server has no such database."""
        served = await self._served()
        identity = self._of(str, "sid", served.get("sid") or served["_uuid"])
        model = _model(served.get("model"), str(self.endpoint))
        seen = await self._globals()
        replication, raft, memory, version, why = None, None, {}, None, None
        if self._control is not None:
            try:
                version = _version(await self._control.run("version"))
                memory = _memory(await self._control.run("memory/show"))
                if model is Model.CLUSTERED:
                    raft = await self._raft(self._control)
                elif model is Model.STANDALONE:
                    replication = await self._replication(self._control, identity)
            except SourceError as error:  # the server answers all the same, and there is another way to ask
                why = error.why
        return DatabaseServer(
            db=self.db,
            server=self._server,
            identity=identity,
            model=model,
            connected=bool(served.get("connected", True)),
            leader=bool(served.get("leader")) if model is Model.CLUSTERED else None,
            writable=await self._writable(model, served, replication),
            globals=seen,
            replication=replication,
            raft=raft,
            memory=memory,
            version=version,
            control=self._control_path,
            control_why=why,
            certificate_expires=self._client.certificate_expires,
        )

    async def close(self) -> None:
        """Close the connections."""
        self._client.close()
        if self._control is not None:
            self._control.close()

    async def _served(self) -> dict[str, Any]:
        columns = ("name", "model", "connected", "leader", "sid", "cid")
        rows = await self._client.select("_Server", "Database", columns, [("name", "==", str(self.db))])
        if not rows:
            raise SourceError(Reason.ANSWERED_ERROR, f"{self.endpoint}: serves no {self.db}")
        return rows[0]

    async def _globals(self) -> Globals | None:
        rows = await self._client.select(str(self.db), _GLOBALS[self.db], _CFG)
        if not rows:
            return None
        row = {name: self._of(int, name, value) for name, value in rows[0].items() if name in _CFG}
        times = {
            f"{side}_at": (row.get(f"{side}_timestamp") or 0) / 1000 or None for side in ("nb_cfg", "sb_cfg", "hv_cfg")
        }
        return Globals(nb_cfg=row.get("nb_cfg"), sb_cfg=row.get("sb_cfg"), hv_cfg=row.get("hv_cfg"), **times)

    def _of(self, kind: type[T], name: str, value: object) -> T:
        """A column's value, if it is of the type that every release's schema gives it."""
        if type(value) is not kind:  # a bool is an int
            raise SourceError(Reason.GARBAGE, f"{self.endpoint}: {self.db}: {name} is {value!r:.40}")
        return value

    async def _writable(self, model: Model, served: Mapping[str, Any], replication: Replication | None) -> bool | None:
        match model:
            case Model.CLUSTERED:
                return bool(served.get("connected", True))
            case Model.RELAY:
                return None
        if replication is not None:
            return not replication.standby
        if await self._client.takes_writes(str(self.db)):
            return True
        # A remote may be for readers only (Connection.read_only), and then answers as a standby does.
        rows = await self._client.select(str(self.db), "Connection", ("target", "read_only"))
        return None if any(row.get("read_only") for row in rows or ()) else False

    async def _raft(self, control: UnixctlClient) -> Raft:
        return parse_cluster_status(await control.run("cluster/status", str(self.db)))

    async def _replication(self, control: UnixctlClient, identity: str) -> Replication:
        said = await control.run("ovsdb-server/sync-status")
        status = dict(re.findall(r"^(\w+):[ \t]*(.*)$", said, re.MULTILINE))
        if status.get("state") not in ("active", "backup"):
            raise SourceError(Reason.GARBAGE, f"{self.endpoint}: sync-status says {said!r:.80}")
        standby = status["state"] == "backup"
        active = (await control.run("ovsdb-server/get-active-ovsdb-server")).strip()
        excluded = await control.run("ovsdb-server/get-sync-exclude-tables") if standby else ""
        opened = await control.run("coverage/read-counter", "stream_open") if standby else ""
        return Replication(
            standby=standby,
            active=_normal(active) if active else None,
            connecting=standby and "replicating" not in status,
            exclude_tables=_tables(excluded, self.db),
            reopening=self._reopening(identity, int(opened)) if re.fullmatch(r"\d{1,18}\s*", opened) else False,
        )

    def _reopening(self, identity: str, opened: int) -> bool:
        """Whether it opens connections again and again: ``replicating`` it also says when it lost the one it had."""
        now = time.monotonic()
        before, self._opened = self._opened, (identity, opened)
        if before is not None and before[0] != identity:  # another process: what that one before it opened is over
            self._reopened.clear()
        elif before is not None and opened > before[1]:
            self._reopened.append(now)
        while self._reopened and now - self._reopened[0] > _REOPENED:
            self._reopened.popleft()
        return len(self._reopened) > 1 and now - self._reopened[-1] < _STEADY


def _normal(text: str) -> str:
    """An address in the form in which ours are kept; as it is where it is none of the known forms."""
    try:
        return str(Endpoint.parse(text))
    except ValueError:
        return text


def _model(text: object, where: str) -> Model:
    try:
        return Model(str(text))
    except ValueError:
        raise SourceError(Reason.GARBAGE, f"{where}: is of model {text!r:.40}, which is not known") from None


def _tables(text: str, db: Database) -> tuple[str, ...]:
    """``OVN_Northbound:Meter,OVN_Northbound:DNS``."""
    names = (part.strip().rpartition(":") for part in text.split(",") if part.strip())
    return tuple(sorted(table for of, _, table in names if of in ("", str(db))))


def _memory(text: str) -> dict[str, int]:
    """``atoms:24 cells:34 monitors:1``, in any order."""
    return {name: int(number) for name, number in re.findall(r"(\S+):(\d+)", text)}


def _version(text: str) -> str | None:
    """The number in ``ovsdb-server (Open vSwitch) 3.1.0``."""
    found = re.match(r"ovsdb-server \(Open vSwitch\) (\S+)", text)
    return found[1] if found else None
