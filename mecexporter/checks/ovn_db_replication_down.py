"""A standby gets nothing from its active, though what it has may still be equal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.checks.base import Finding, Severity, Unknown, check
from mecexporter.checks.databases import answering, databases, hidden, unwanted
from mecexporter.errors import Reason
from mecexporter.state.central import active_of, servers
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.ovn_db import Model
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from mecexporter.checks.base import Verdict
    from mecexporter.state.ovn_db import DatabaseServer, Replication
    from mecexporter.state.world import World


@check(
    severity=Severity.WARNING,
    title="a standby has no session to its active, though the content may still be equal, in two reads",
    roles=frozenset({Role.CENTRAL}),
    sources=(),
    models=frozenset({Model.STANDALONE}),
    alert_for="1m",
    follows=("ovn_db_no_writer",),
)
def ovn_db_replication_down(world: World) -> Verdict:
    """``sync-status`` goes on saying 'replicating' without a session: see whether it reconnects, and ask its active."""
    findings: list[Finding] = []
    missing: list[str] = []
    for db, found in databases(world, Model.STANDALONE):
        down = [
            (k, trouble)
            for k in found
            if isinstance(k.seen, Fresh) and (trouble := _trouble(world, k.seen.value)) is not None
        ]
        if not down:
            missing += hidden(found)
            missing += [source for s in answering(found) if s.is_standby for source in unwanted(world, s)]
        findings += [
            Finding(
                subject=k.subject,
                summary=f"the standby {k.server} of {db} gets nothing from its active: {trouble}",
                remedy=_remedy(k.seen.value),
                reads=2,
                read_at=k.seen.at,
            )
            for k, trouble in down
            if isinstance(k.seen, Fresh)
        ]
    return tuple(findings) if findings or not missing else Unknown(tuple(missing))


def _trouble(world: World, server: DatabaseServer) -> str | None:
    """Why a server replicates nobody though it should; None if it does, or need not."""
    active, told = active_of(world, server), server.replication
    if told and active and isinstance(active.seen, Fresh) and active.seen.value.identity == server.identity:
        # Where an address moves along with the role, a promoted server that is the only writer is right to be told so.
        if server.is_standby or any(s.writable and s.identity != server.identity for s in servers(world, server.db)):
            return f"it is told to replicate itself ({told.active})"
        return None
    if not server.is_standby:
        return None
    if told is not None and (words := _by_itself(told)):
        return words
    if active is None:
        return _not_asked(world, server)
    if isinstance(active.seen, Absent) and active.seen.reason is not Reason.PENDING:
        return f"{active.server} does not answer us: {active.seen.why}"
    return None


def _not_asked(world: World, server: DatabaseServer) -> str | None:
    """Why its active is not asked here; None where an operator wants it so."""
    if server.replication is None:
        return "it is not known here whom it replicates: not exactly one server takes writes"
    if unwanted(world, server):
        return None
    return f"it can't be asked here at the address that it was told: {server.replication.active}"


def _by_itself(told: Replication) -> str | None:
    """What its control socket shows to be wrong."""
    if told.active is None:
        return "it is not told whom to replicate"
    if told.connecting:
        return f"it has no connection to {told.active}"
    if told.reopening:
        return f"it connects to {told.active} again and again"
    return None


def _remedy(server: DatabaseServer) -> str:
    if server.replication is not None and server.replication.active is not None:
        return (
            f"see that {server.replication.active} answers from this host (ovsdb-client list-dbs) and is not this "
            "server itself; a new address takes ovsdb-server/set-active-ovsdb-server and then "
            "ovsdb-server/connect-active-ovsdb-server (from OVS 3.5 on after disconnect-active-ovsdb-server, which "
            "promotes it for a moment)"
        )
    return "see on the standby's host what ovs-appctl ovsdb-server/sync-status says, and that it reaches its active"
