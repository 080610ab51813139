"""Too much of the traffic that hardware is to carry is switched by the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mecexporter.checks.base import Finding, Severity, check
from mecexporter.checks.offload import REMEDIES, TABLES, TRAFFIC, carried, judged
from mecexporter.state.observed import Fresh
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from mecexporter.checks.base import Verdict
    from mecexporter.state.world import World

_INTERVALS = 3
_SAID = 3


@check(
    severity=Severity.WARNING,
    title="hardware carries less than offload.ratio_low of more than offload.min_pps for three intervals",
    roles=frozenset({Role.COMPUTE}),
    sources=TRAFFIC,
    alert_for="0s",
    follows=("offload_disabled", "offload_gre_conntrack"),
)
def offload_ratio_low(world: World) -> Verdict:
    """Of ordinary traffic of a NIC in switchdev mode alone."""
    found = carried(world)
    if not isinstance(found, Mapping):
        return found
    got, settings = judged(found, world), world.settings
    if got.every <= settings.offload_min_pps or got.ratio >= settings.offload_ratio_low:
        return ()
    worst = sorted(got.software, key=lambda why: -got.software[why])[:_SAID]
    reasons = ", ".join(f"{why} {got.software[why]:.0f}" for why in worst)
    return (
        Finding(
            subject=world.hostname,
            summary=(
                f"hardware carries {got.ratio:.0%} of {got.every:.0f} packets a second "
                f"(wanted: {settings.offload_ratio_low:.0%}); in software: {reasons}"
            ),
            remedy="; ".join(f"{why}: {REMEDIES[why]}" for why in worst if why in REMEDIES),
            reads=_INTERVALS,
            read_at=tuple(part.at for name in TABLES if isinstance(part := world.part(name), Fresh)),
        ),
    )
