"""What Neutron ordered has not arrived: in Southbound, or on a chassis.

A chassis can't know more than Southbound does: while Southbound is behind, that alone is reported, and chassis are
measured by the values that Southbound had. How delays are measured, and why a healthy site under Neutron's steady bumps
has none, is written in ``sources/progress.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.checks.base import Finding, Severity, Unknown, check, unknown
from mecexporter.checks.words import quoted
from mecexporter.state.observed import Absent
from mecexporter.state.ovn_db import Database
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from mecexporter.checks.base import Verdict
    from mecexporter.state.propagation import Lag, ListedChassis, Propagation, Reported
    from mecexporter.state.world import World


@check(
    severity=Severity.WARNING,
    title=(
        "for longer than grace.propagation Northbound stood at a value while Southbound or a chassis (not stale, not "
        "in maintenance) stood below it; judged at Northbound's writer or leader"
    ),
    roles=frozenset({Role.CENTRAL}),
    sources=("ovn_chassis",),
    alert_for="1m",
)
def ovn_propagation_stalled(world: World) -> Verdict:
    """Right after our start it is not known for how long one that is behind has been so."""
    seen, grace = world.ovn_chassis, world.settings.grace_propagation
    if isinstance(seen, Absent):
        return unknown(world, "ovn_chassis")
    value = seen.value
    stalled = value.judged(world.settings, lambda r: _stalled(r.lag, grace) and not r.stale)
    findings = [_of_chassis(value, c, r, seen.at) for c, r in stalled]
    if _stalled(value.southbound, grace):
        findings.append(_of_southbound(value, seen.at))
    before_us = value.judged(world.settings, lambda r: r.lag.from_start and not r.stale)
    if not findings and (value.southbound.from_start or any(before_us)):
        return Unknown(("ovn_chassis",))
    return tuple(findings)


def _stalled(lag: Lag, grace: float) -> bool:
    return lag.behind is not None and lag.behind > grace


def _of_southbound(value: Propagation, at: float) -> Finding:
    behind = value.southbound.behind or 0.0
    return Finding(
        subject=str(Database.SOUTHBOUND),
        summary=(
            f"Northbound's nb_cfg is {value.nb_cfg}, Southbound's still {value.sb_cfg}: what was ordered in the last "
            f"{behind:.0f} s or more has not reached Southbound"
        ),
        remedy=(
            "see that an ovn-northd is active and connected to both databases (ovn-appctl -t ovn-northd status, "
            "nb-connection-status, sb-connection-status), and in its log whether it is busy (unreasonably long poll)"
        ),
        read_at=at,
        since=at - behind,
    )


def _of_chassis(value: Propagation, chassis: ListedChassis, reported: Reported, at: float) -> Finding:
    behind = reported.lag.behind or 0.0
    host = f" ({chassis.hostname})" if chassis.hostname else ""
    stands = f"stands at nb_cfg {reported.nb_cfg}" if reported.nb_cfg else "has never reported an nb_cfg"
    return Finding(
        subject=chassis.name,
        summary=(
            f"chassis {chassis.name}{host} {stands}, Southbound at {value.sb_cfg}: for {behind:.0f} s it has not "
            "carried through what was there"
        ),
        remedy=(
            f"on {quoted(chassis.hostname) if chassis.hostname else 'its host'}: mecexporter check; see that "
            "ovn-controller runs, is not paused (ovn-appctl -t ovn-controller debug/status) and is connected "
            "(connection-status). If the host is down on purpose, list it in maintenance.hosts"
        ),
        read_at=at,
        since=at - behind,
    )
