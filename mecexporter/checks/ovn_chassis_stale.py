"""A chassis that has given no sign of life for long: dead, or gone without having been deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.checks.base import Finding, Severity, check, unknown
from mecexporter.checks.words import delete_chassis, quoted
from mecexporter.state.observed import Absent
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from mecexporter.checks.base import Verdict
    from mecexporter.state.propagation import ListedChassis, Propagation, Reported
    from mecexporter.state.world import World


@check(
    severity=Severity.WARNING,
    title=(
        "a chassis (not in maintenance) made no nb_cfg progress for grace.chassis_stale, 10 min unless set, over two "
        "or more bumps; judged at Northbound's writer or leader"
    ),
    roles=frozenset({Role.CENTRAL}),
    sources=("ovn_chassis",),
    alert_for="0s",
)
def ovn_chassis_stale(world: World) -> Verdict:
    """In a quiet cloud, whose nb_cfg stands still, nobody need make progress."""
    seen = world.ovn_chassis
    if isinstance(seen, Absent):
        return unknown(world, "ovn_chassis")
    stale = seen.value.judged(world.settings, lambda r: r.stale)
    return tuple(_finding(seen.value, c, r, seen.at) for c, r in stale)


def _finding(value: Propagation, chassis: ListedChassis, reported: Reported, at: float) -> Finding:
    host = f" ({chassis.hostname})" if chassis.hostname else ""
    stands = f"has stood at nb_cfg {reported.nb_cfg}" if reported.nb_cfg else "has never reported an nb_cfg"
    name = chassis.name
    delete = delete_chassis(name) if chassis.registered else f"ovn-sbctl destroy Chassis_Private {quoted(name)}"
    left = "" if chassis.registered else "; its Chassis is gone, only the row in which it reported is left"
    return Finding(
        subject=chassis.name,
        summary=(
            f"chassis {chassis.name}{host} {stands}, while Southbound went on to {value.sb_cfg}{left}; Northbound's "
            "hv_cfg waits for it"
        ),
        remedy=(
            "if the host lives, start its ovn-controller again; if it is down on purpose, list it in "
            f"maintenance.hosts; if it is gone for good: {delete}"
        ),
        read_at=at,
        since=at - reported.lag.idle,
    )
