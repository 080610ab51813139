"""The northd of this host does nothing: what Neutron orders never reaches Southbound from here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.checks.base import Finding, Severity, Unknown, check
from mecexporter.errors import NOBODY
from mecexporter.state.observed import Absent
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from mecexporter.checks.base import Verdict
    from mecexporter.state.world import World


@check(
    severity=Severity.CRITICAL,
    title="the northd that this host is known to run is dead, paused, or not connected to NB or SB, in two reads",
    roles=frozenset({Role.CENTRAL}),
    sources=("northd",),
    alert_for="1m",
    follows=("ovn_db_no_writer",),
)
def ovn_northd_inactive(world: World) -> Verdict:
    """``standby`` is healthy: another one works."""
    seen = world.northd
    since = None
    if isinstance(seen, Absent):
        if seen.reason not in NOBODY:
            return Unknown(("northd",))
        summary = f"ovn-northd is not running: {seen.why}"
        remedy = (
            "start it: systemctl start ovn-northd; if it was moved away for good: mecexporter forget northd (if it "
            "runs with another run directory, set ovn.run_dir)"
        )
        since = seen.since
    elif seen.value.paused:
        summary, remedy = "ovn-northd is paused", "ovn-appctl -t ovn-northd resume"
    elif away := [str(db) for db, connected in seen.value.connected.items() if not connected]:
        summary = f"ovn-northd is not connected to {' and '.join(away)}"
        remedy = "see that the database's server takes writes and answers from this host, and ovn-northd's log"
    else:
        return ()
    return (Finding(subject=world.hostname, summary=summary, remedy=remedy, reads=2, read_at=seen.at, since=since),)
