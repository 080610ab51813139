"""No server of a database takes writes: nothing in the cloud can be changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.checks.base import Finding, Severity, Unknown, check
from mecexporter.checks.databases import answering, databases, silent, unwanted
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.ovn_db import Model
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from mecexporter.checks.base import Verdict
    from mecexporter.state.central import Known
    from mecexporter.state.ovn_db import DatabaseServer
    from mecexporter.state.world import World


@check(
    severity=Severity.CRITICAL,
    title=(
        "every known server of a database refused, answered 'not writable' or was silent for grace.no_writer, and at "
        "least one answered"
    ),
    roles=frozenset({Role.CENTRAL}),
    sources=(),
    models=frozenset({Model.STANDALONE, Model.CLUSTERED}),
    alert_for="0s",
)
def ovn_db_no_writer(world: World) -> Verdict:
    """One that takes writes is enough; one that can't be told whether it does leaves it open."""
    findings: list[Finding] = []
    missing: list[str] = []
    for db, found in databases(world, Model.STANDALONE, Model.CLUSTERED):
        servers = answering(found)
        if any(s.writable for s in servers):
            continue
        doubtful = [k.source for k in found if isinstance(k.seen, Fresh) and k.seen.value.writable is None]
        doubtful += [source for s in servers for source in unwanted(world, s)]
        if not servers or doubtful:
            missing += silent(found) + doubtful
            continue
        findings.append(
            Finding(
                subject=found[0].subject,
                summary=f"no server of {db} takes writes: {'; '.join(_words(k) for k in found)}",
                remedy=_remedy(servers),
                hold=world.settings.grace_no_writer,
                read_at=max(k.seen.at for k in found),
            )
        )
    return tuple(findings) if findings or not missing else Unknown(tuple(missing))


def _remedy(servers: list[DatabaseServer]) -> str:
    if any(s.model is Model.CLUSTERED for s in servers):
        return "start the members of the cluster that are down: it needs more than half of them"
    standby = min(servers, key=lambda s: s.control is None)  # of several one whose commands can be pasted
    return (
        "start the active; if it is lost for good, see that it can't come back by itself and promote a standby: "
        f"{standby.appctl('ovsdb-server/disconnect-active-ovsdb-server')}, the other database's too; then start "
        "ovn-northd there (restart it if it runs: it does not ask again) and move the address"
    )


def _words(k: Known) -> str:
    if isinstance(k.seen, Absent):
        return f"{k.server} does not answer"
    return f"{k.server} is a {'member without its cluster' if k.seen.value.model is Model.CLUSTERED else 'standby'}"
