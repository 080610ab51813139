"""Two servers of one database take writes: they drift apart, and one of the two will lose what it was told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.checks.base import Finding, Severity, Unknown, check
from mecexporter.checks.databases import answering, databases, hidden, unwanted
from mecexporter.state.observed import Fresh
from mecexporter.state.ovn_db import Model
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from mecexporter.checks.base import Verdict
    from mecexporter.state.ovn_db import DatabaseServer
    from mecexporter.state.world import World


@check(
    severity=Severity.CRITICAL,
    title=(
        "two standalone servers of one database, listed as peers or one configured to replicate the other, both accept "
        "writes, in two reads"
    ),
    roles=frozenset({Role.CENTRAL}),
    sources=(),
    models=frozenset({Model.STANDALONE}),
    alert_for="0s",
)
def ovn_db_split_brain(world: World) -> Verdict:
    """A server that does not answer may take writes all the same, unless it is known that nobody is there."""
    findings: list[Finding] = []
    missing: list[str] = []
    for db, found in databases(world, Model.STANDALONE):
        writers = [k for k in found if isinstance(k.seen, Fresh) and k.seen.value.writable]
        if len(writers) < 2:
            doubtful = [k.source for k in found if isinstance(k.seen, Fresh) and k.seen.value.writable is None]
            not_asked = [source for s in answering(found) for source in unwanted(world, s)]
            missing += hidden(found) + doubtful + not_asked
            continue
        findings.append(
            Finding(
                subject=found[0].subject,  # whichever of them write: a subject that changes is a new finding
                summary=f"{len(writers)} servers of {db} take writes: {', '.join(k.server for k in writers)}",
                remedy=_remedy([k.seen.value for k in writers if isinstance(k.seen, Fresh)]),
                reads=2,
                read_at=min(k.seen.at for k in writers),
            )
        )
    return tuple(findings) if findings or not missing else Unknown(tuple(missing))


def _remedy(writers: list[DatabaseServer]) -> str:
    own = next((s for s in writers if s.control is not None), None)
    right = next((s.server for s in writers if s is not own), None) if own and len(writers) == 2 else None
    wrong = own or writers[0]
    become = wrong.appctl(f"ovsdb-server/set-active-ovsdb-server {right or '<the right one>'}")
    return (
        "decide which of them is right (northd's and the clients' address lead there), and make the other its standby: "
        "what was written to it alone is lost then, so look at it first. "
        + (f"If {wrong.server} is the wrong one: " if right else "On the host of the wrong one: ")
        + f"{become}; {wrong.appctl('ovsdb-server/connect-active-ovsdb-server')}. It holds until the server's next "
        "start: change its options (--sync-from) too, and restart the ovn-northd beside it"
    )
