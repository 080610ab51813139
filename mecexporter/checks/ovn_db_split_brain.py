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
                remedy=(
                    "decide which of them is right (northd's and the clients' address lead there), and make the other "
                    "its standby: ovs-appctl -t <its control socket> ovsdb-server/set-active-ovsdb-server <the right "
                    "one>, then ovsdb-server/connect-active-ovsdb-server; what was written to it alone is lost then, "
                    "so look at it first. It holds until the server's next start: change its options (--sync-from) "
                    "too, and restart the ovn-northd beside it"
                ),
                reads=2,
                read_at=min(k.seen.at for k in writers),
            )
        )
    return tuple(findings) if findings or not missing else Unknown(tuple(missing))
