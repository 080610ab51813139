"""A RAFT cluster that has lost a member, or its leader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.checks.base import Finding, Severity, Unknown, check
from mecexporter.checks.databases import databases, silent
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.ovn_db import Model
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.checks.base import Verdict
    from mecexporter.state.central import Known
    from mecexporter.state.ovn_db import DatabaseServer
    from mecexporter.state.world import World


@check(
    severity=Severity.WARNING,
    worst=Severity.CRITICAL,
    title="a member of a RAFT cluster is unreachable in two reads (warning), or it has no leader (critical)",
    roles=frozenset({Role.CENTRAL}),
    sources=(),
    models=frozenset({Model.CLUSTERED}),
    alert_for="1m",
)
def ovn_db_raft_degraded(world: World) -> Verdict:
    """Each member that answers tells of the others; from afar, those that do not answer are what is seen."""
    findings: list[Finding] = []
    missing: list[str] = []
    for _, found in databases(world, Model.CLUSTERED):
        members = [k for k in found if isinstance(k.seen, Fresh)]
        if not members:
            missing += silent(found)
        led = any(_has_leader(k.seen.value) for k in members if isinstance(k.seen, Fresh))
        for k in members:
            findings += _of_member(k, led=led)
        if members and not any(isinstance(k.seen, Fresh) and k.seen.value.raft for k in members):
            findings += _of_silence(found)
            missing += [k.source for k in members if isinstance(k.seen, Fresh) and k.seen.value.control_why]
    return tuple(findings) if findings or not missing else Unknown(tuple(missing))


def _has_leader(server: DatabaseServer) -> bool:
    return server.connected and (server.raft is None or server.raft.leader is not None)


def _of_member(k: Known, *, led: bool) -> Iterator[Finding]:
    if not isinstance(k.seen, Fresh):
        return
    server, raft = k.seen.value, k.seen.value.raft
    if led and not _has_leader(server):
        yield Finding(
            subject=k.subject,
            summary=f"the member {k.server} of the cluster of {server.db} knows of no leader, though there is one",
            remedy="see on its host why it can't reach the others; start it again if it does not join them",
            reads=2,
            read_at=k.seen.at,
        )
    elif not led:
        yield Finding(
            subject=k.subject,
            summary=f"the cluster of {server.db} has no leader that {k.server} knows of: nothing can be written",
            remedy=(
                "start the members that are down, more than half of them are needed; if they are lost for good: "
                "ovsdb-tool cluster-to-standalone on the newest copy, and a new cluster from it"
            ),
            severity=Severity.CRITICAL,
            reads=2,
            read_at=k.seen.at,
        )
    elif raft is not None and (lost := [m for m in raft.others if m.reachable is False]):
        yield Finding(
            subject=k.subject,
            summary=(
                f"of {len(raft.others) + 1} members of the cluster of {server.db}, {len(lost)} can't be reached from "
                f"{k.server}: {', '.join(m.address for m in lost)}{_left(server, len(lost))}"
            ),
            remedy=(
                "start the member again; if it is lost for good: "
                f"{server.appctl(f'cluster/kick {server.db} {lost[0].server_id}')}, move its old file away and join a "
                "new one (ovsdb-tool join-cluster)"
            ),
            reads=2,
            read_at=k.seen.at,
        )


def _left(server: DatabaseServer, lost: int) -> str:
    members = len(server.raft.others) + 1 if server.raft else 0
    spare = (members - 1) // 2 - lost
    return f"; {spare} more may fail" if spare > 0 else "; none more may fail"


def _of_silence(found: tuple[Known, ...]) -> Iterator[Finding]:
    """From afar: a server that does not answer, of a database that others of it serve as a cluster."""
    for k in found:
        if isinstance(k.seen, Absent):
            yield Finding(
                subject=k.subject,
                summary=f"the member {k.server} of the cluster does not answer: {k.seen.why}",
                remedy="start it again, or see why it can't be reached from here",
                reads=2,
                read_at=k.seen.at,
            )
