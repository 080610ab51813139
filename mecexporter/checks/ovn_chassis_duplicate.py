"""Two Chassis of one host: it goes by a new id, and the old one's ports and tunnels are still there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.checks.base import Finding, Severity, check, unknown
from mecexporter.checks.words import delete_chassis, quoted
from mecexporter.state.observed import Absent
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from mecexporter.checks.base import Verdict
    from mecexporter.state.propagation import ListedChassis, Propagation
    from mecexporter.state.world import World


@check(
    severity=Severity.CRITICAL,
    title=(
        "two Chassis share a hostname, case-folded (not one of ovn.shared_hostnames, not is-remote), in two reads; "
        "judged at Northbound's writer or leader"
    ),
    roles=frozenset({Role.CENTRAL}),
    sources=("ovn_chassis",),
    alert_for="0s",
)
def ovn_chassis_duplicate(world: World) -> Verdict:
    """Two reads, as an operator may be about to delete the old one."""
    seen = world.ovn_chassis
    if isinstance(seen, Absent):
        return unknown(world, "ovn_chassis")
    shared = {hostname.casefold() for hostname in world.settings.shared_hostnames}
    return tuple(_finding(seen.value, of) for hostname, of in seen.value.sharing.items() if hostname not in shared)


def _finding(value: Propagation, of: tuple[ListedChassis, ...]) -> Finding:
    hostname = min(c.hostname for c in of)
    return Finding(
        subject=hostname,
        summary=f"{len(of)} Chassis are of the host {hostname}: {', '.join(_words(value, c) for c in of)}",
        remedy=(
            f"on {quoted(hostname)}, see which id is in force (mecexporter check); delete the others: "
            f"{delete_chassis('NAME')}. If the host rightly has several, list it in ovn.shared_hostnames"
        ),
        reads=2,
        read_at=value.listed,
    )


def _words(value: Propagation, chassis: ListedChassis) -> str:
    addresses = " ".join(ip for _, ip in chassis.encaps) or "no encapsulation"
    reported = value.reported.get(chassis.name)
    if reported is None:
        return f"{chassis.name} ({addresses})"
    return f"{chassis.name} ({addresses}, nb_cfg {reported.nb_cfg}{'' if reported.lag.behind is None else ', behind'})"
