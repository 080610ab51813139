"""The servers of OVN's databases, and how a standby compares with its active."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.metrics.registry import collector
from mecexporter.metrics.spec import Kind, Metric, Stability
from mecexporter.state.central import servers
from mecexporter.state.observed import Fresh
from mecexporter.state.ovn_db import LOCAL, Database, Model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.metrics.registry import View
    from mecexporter.metrics.spec import Sample
    from mecexporter.state.ovn_db import DatabaseServer

INFO = Metric(
    name="mec_ovn_db_info",
    help="A server of a database: standalone (also a standby), clustered (RAFT) or relay.",
    kind=Kind.INFO,
    labels=("db", "server", "model"),
    stability=Stability.STABLE,
)
WRITABLE = Metric(
    name="mec_ovn_db_writable",
    help="Whether the server takes writes (1) or not (0); absent where it can't be told, and for relays.",
    labels=("db", "server"),
    stability=Stability.STABLE,
)
IN_SYNC = Metric(
    name="mec_ovn_db_in_sync",
    help="Whether a standby's content equals its active's (1) or not (0); absent where it can't be told.",
    labels=("db", "server"),
    stability=Stability.STABLE,
)
LAST_IN_SYNC = Metric(
    name="mec_ovn_db_last_in_sync_timestamp_seconds",
    help="When a standby last showed no difference to its active, as Unix time.",
    labels=("db", "server"),
    stability=Stability.STABLE,
)
DIFFERING = Metric(
    name="mec_ovn_db_rows_differing",
    help="Rows of a standby that are missing, extra or changed; a table that is only counted shows one row.",
    labels=("db", "server", "table", "kind"),
    stability=Stability.STABLE,
)
AUDITED = Metric(
    name="mec_ovn_db_audit_timestamp_seconds",
    help="When all replicated tables of a standby were last held against its active's, as Unix time.",
    labels=("db", "server"),
)
AUDIT_SECONDS = Metric(
    name="mec_ovn_db_audit_duration_seconds",
    help="How long that took.",
    labels=("db", "server"),
)
SESSIONS = Metric(
    name="mec_ovn_db_sessions",
    help="Clients of this host's server: JSON-RPC sessions as memory/show counts them.",
    labels=("db", "server"),
)
MONITORS = Metric(
    name="mec_ovn_db_monitors",
    help="Monitors that clients of this host's server have.",
    labels=("db", "server"),
)
CELLS = Metric(
    name="mec_ovn_db_cells",
    help="Cells (columns of rows) that this host's server holds: the size of its content.",
    labels=("db", "server"),
)
BACKLOG = Metric(
    name="mec_ovn_db_backlog_bytes",
    help="Bytes that this host's server has yet to send to its clients.",
    labels=("db", "server"),
)
NB_CFG = Metric(
    name="mec_ovn_nb_cfg",
    help="NB_Global.nb_cfg: what Northbound was last asked to carry through; from the writer or leader only.",
    stability=Stability.STABLE,
)
SB_CFG = Metric(
    name="mec_ovn_sb_cfg",
    help="NB_Global.sb_cfg: what northd has brought to Southbound.",
    stability=Stability.STABLE,
)
HV_CFG = Metric(
    name="mec_ovn_hv_cfg",
    help="NB_Global.hv_cfg: what every chassis has carried through.",
    stability=Stability.STABLE,
)
NB_CFG_AT = Metric(
    name="mec_ovn_nb_cfg_timestamp_seconds",
    help="When nb_cfg last rose, as Unix time.",
    stability=Stability.STABLE,
)
SB_CFG_AT = Metric(
    name="mec_ovn_sb_cfg_timestamp_seconds",
    help="When sb_cfg last rose, as Unix time.",
    stability=Stability.STABLE,
)
HV_CFG_AT = Metric(
    name="mec_ovn_hv_cfg_timestamp_seconds",
    help="When hv_cfg last rose, as Unix time.",
    stability=Stability.STABLE,
)
RAFT_LEADER = Metric(
    name="mec_ovn_raft_leader",
    help="Whether this host's member leads its cluster (1) or not (0).",
    labels=("db",),
    stability=Stability.STABLE,
)
RAFT_TERM = Metric(
    name="mec_ovn_raft_term",
    help="The election term of this host's member.",
    labels=("db",),
    stability=Stability.STABLE,
)
RAFT_MEMBERS = Metric(
    name="mec_ovn_raft_members",
    help="Members of the cluster that this host's member knows, itself included.",
    labels=("db",),
    stability=Stability.STABLE,
)
RAFT_REACHABLE = Metric(
    name="mec_ovn_raft_members_reachable",
    help="Those of them that it can reach, itself included; absent where it can't be told.",
    labels=("db",),
    stability=Stability.STABLE,
)
RAFT_UNCOMMITTED = Metric(
    name="mec_ovn_raft_log_uncommitted_entries",
    help="Entries of the log that are not committed yet.",
    labels=("db",),
    stability=Stability.STABLE,
)


@collector(INFO, WRITABLE, SESSIONS, MONITORS, CELLS, BACKLOG, reads=lambda v: (v.world.databases, v.world.applicable))
def ovn_databases(view: View) -> Iterator[Sample]:
    """Each server once, by whatever addresses it is asked."""
    for db in Database:
        for s in servers(view.world, db):
            yield INFO(1, db=s.db, server=s.server, model=s.model)
            if s.writable is not None:
                yield WRITABLE(s.writable, db=s.db, server=s.server)
            if s.memory:
                yield SESSIONS(s.memory.get("sessions", 0), db=s.db, server=s.server)
                yield MONITORS(s.memory.get("monitors", 0), db=s.db, server=s.server)
                yield CELLS(s.memory.get("cells", 0), db=s.db, server=s.server)
                yield BACKLOG(s.memory.get("backlog", 0), db=s.db, server=s.server)


@collector(
    IN_SYNC,
    LAST_IN_SYNC,
    DIFFERING,
    AUDITED,
    AUDIT_SECONDS,
    reads=lambda v: (v.world.ovn_northbound_sync, v.world.ovn_southbound_sync, v.world.applicable),
)
def ovn_databases_sync(view: View) -> Iterator[Sample]:
    """Each standby against its active."""
    for source in ("ovn_northbound_sync", "ovn_southbound_sync"):
        seen = view.world.part(source)
        if source not in view.world.applicable or not isinstance(seen, Fresh):
            continue
        for pair in seen.value:
            labels = {"db": pair.db, "server": pair.standby}
            if pair.last_in_sync is not None:
                yield LAST_IN_SYNC(pair.last_in_sync, **labels)
            if pair.in_sync is None:
                continue
            yield IN_SYNC(pair.in_sync, **labels)
            for (table, kind), number in pair.rows.items():
                yield DIFFERING(number, table=table, kind=kind, **labels)
            if pair.audited is not None:
                yield AUDITED(pair.audited, **labels)
            if pair.audit_seconds is not None:
                yield AUDIT_SECONDS(pair.audit_seconds, **labels)


@collector(
    NB_CFG,
    SB_CFG,
    HV_CFG,
    NB_CFG_AT,
    SB_CFG_AT,
    HV_CFG_AT,
    reads=lambda v: (v.world.databases, v.world.applicable),
)
def ovn_propagation(view: View) -> Iterator[Sample]:
    """By the host whose own Northbound server is the writer or leader, so that a site has each once."""
    own = _own(view, Database.NORTHBOUND)
    if own is None or not own.leads or own.globals is None:
        return
    g = own.globals
    for metric, value in (
        (NB_CFG, g.nb_cfg),
        (SB_CFG, g.sb_cfg),
        (HV_CFG, g.hv_cfg),
        (NB_CFG_AT, g.nb_cfg_at),
        (SB_CFG_AT, g.sb_cfg_at),
        (HV_CFG_AT, g.hv_cfg_at),
    ):
        if value is not None:
            yield metric(value)


@collector(
    RAFT_LEADER,
    RAFT_TERM,
    RAFT_MEMBERS,
    RAFT_REACHABLE,
    RAFT_UNCOMMITTED,
    reads=lambda v: (v.world.databases, v.world.applicable),
)
def ovn_raft(view: View) -> Iterator[Sample]:
    """This host's member of each cluster."""
    for db in Database:
        own = _own(view, db)
        if own is None or own.model is not Model.CLUSTERED:
            continue
        yield RAFT_LEADER(bool(own.leader), db=db)
        if own.raft is not None:
            yield RAFT_TERM(own.raft.term, db=db)
            yield RAFT_MEMBERS(len(own.raft.others) + 1, db=db)
            if all(m.reachable is not None for m in own.raft.others):
                yield RAFT_REACHABLE(sum(bool(m.reachable) for m in own.raft.others) + 1, db=db)
            yield RAFT_UNCOMMITTED(own.raft.uncommitted, db=db)


def _own(view: View, db: Database) -> DatabaseServer | None:
    return next((s for s in servers(view.world, db) if s.server == LOCAL), None)
