"""The servers of OVN's databases, as each tells of itself; what two of them tell of each other; and northd."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from mecexporter.state.ovn_daemon import Work

if TYPE_CHECKING:
    from collections.abc import Mapping

LOCAL = "local"
"""The label of this host's own server (contract)."""


class Database(StrEnum):
    """The two databases of OVN, by their names in OVSDB."""

    NORTHBOUND = "OVN_Northbound"
    SOUTHBOUND = "OVN_Southbound"


class Model(StrEnum):
    """How a server serves a database (ovsdb(7), ``_Server.Database.model``)."""

    STANDALONE = "standalone"
    CLUSTERED = "clustered"
    RELAY = "relay"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replication:
    """What the control socket says of active-backup (ovsdb-server(1)).

    Attributes:
        standby: whether the server calls itself a backup; one that is none takes writes.
        active: the server that it is configured to replicate, also after its promotion; None if none.
        connecting: whether it says that it has no session yet; that it has one it also says when it lost it.
        exclude_tables: what it is told to leave out.
        reopening: whether it opens connections again and again: one that replicates opens none.
    """

    standby: bool
    active: str | None
    connecting: bool
    exclude_tables: tuple[str, ...]
    reopening: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Another member of a RAFT cluster, as seen from ours.

    Attributes:
        reachable: None where it can't be told from this side.
    """

    server_id: str
    address: str
    reachable: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Raft:
    """``cluster/status`` of one member (ovsdb-server(1), CLUSTER COMMANDS)."""

    role: str
    leader: str | None
    term: int
    cluster_id: str
    uncommitted: int
    others: tuple[Member, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Globals:
    """The row of NB_Global or SB_Global; the timestamps are Unix seconds, None where there is none yet (0)."""

    nb_cfg: int | None = None
    nb_cfg_at: float | None = None
    sb_cfg: int | None = None
    sb_cfg_at: float | None = None
    hv_cfg: int | None = None
    hv_cfg_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseServer:
    """One answer of one server about one database.

    Attributes:
        server: its label.
        identity: tells servers apart, by whatever address they are asked: RAFT's server id, else the ``_uuid`` of
            ``_Server.Database``.
        connected: ``_Server``'s: whether a member is in its cluster, a relay at its source; True for others.
        leader: of a clustered one; None for others.
        writable: None where it can't be told.
        globals: None where the database has no such row yet.
        replication: None where there is no control socket to ask.
        raft: the same.
        memory: ``memory/show``: name -> number.
        version: of ovsdb-server.
        control: the control socket's path, of a server of this host.
        control_why: why the control socket, which is configured, did not tell; None if it did.
        certificate_expires: of the certificate that it showed us, as Unix time; None without TLS.
    """

    db: Database
    server: str
    identity: str
    model: Model
    connected: bool
    leader: bool | None
    writable: bool | None
    globals: Globals | None = None
    replication: Replication | None = None
    raft: Raft | None = None
    memory: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    version: str | None = None
    schema_version: str | None = None
    control: str | None = None
    control_why: str | None = None
    certificate_expires: float | None = None

    @property
    def is_standby(self) -> bool:
        """Whether it is a standalone server that takes no writes: one that replicates another."""
        return self.model is Model.STANDALONE and self.writable is False

    def appctl(self, command: str) -> str:
        """A command for a terminal on its host; with a gap to fill where its control socket is not known here."""
        return f"ovs-appctl -t {shlex.quote(self.control) if self.control else '<its control socket>'} {command}"

    @property
    def leads(self) -> bool:
        """Whether its word counts: the writer of a standalone database, or the leader of a cluster."""
        return bool(self.leader) if self.model is Model.CLUSTERED else self.writable is True


class Kind(StrEnum):
    """How a row of a standby differs from its active's."""

    MISSING = "missing"
    EXTRA = "extra"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True, order=True)
class Difference:
    """A row that was found to differ; an uuid of '*' stands for the number of a table's rows."""

    table: str
    uuid: str
    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSync:
    """A standby held against its active.

    Attributes:
        standby: the label of the one.
        active: the label of the other.
        in_sync: whether all that is replicated was equal at the last audit and nothing was seen to differ since; None
            where it can't be told, and ``why`` says why.
        last_in_sync: when the two last showed no difference at all.
        rows: (table, kind) -> number of rows that differ; (table, kind) -> 0 where a table was held against the other.
        examples: some of the rows.
        audited: when the last audit of all tables ended, None before the first.
        audit_seconds: how long it took.
        left_out: tables that are not replicated here.
    """

    db: Database
    standby: str
    active: str
    in_sync: bool | None
    why: str | None = None
    last_in_sync: float | None = None
    rows: Mapping[tuple[str, Kind], int] = field(default_factory=lambda: MappingProxyType({}))
    examples: tuple[Difference, ...] = ()
    audited: float | None = None
    audit_seconds: float | None = None
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Northd:
    """What ovn-northd tells of itself (ovn-northd(8), RUNTIME MANAGEMENT COMMANDS)."""

    version: str | None
    active: bool
    paused: bool
    connected: Mapping[Database, bool]
    work: Work = field(default_factory=Work)
