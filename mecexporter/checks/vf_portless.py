"""A guest goes on using a VF whose port was deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.checks.base import Severity, check
from mecexporter.checks.vf_leaked import free
from mecexporter.checks.vfs import Drift, Said, verdict
from mecexporter.checks.words import quoted
from mecexporter.state.world import CELL, Role

if TYPE_CHECKING:
    from mecexporter.checks.base import Verdict
    from mecexporter.checks.vfs import Case
    from mecexporter.state.world import World


@check(
    severity=Severity.WARNING,
    title="Nova has a VF claimed for an instance and a guest holds it, but its port was deleted",
    roles=frozenset({Role.API}),
    sources=("neutron", CELL, "sysfs"),
    alert_for="0s",
)
def vf_portless(world: World) -> Verdict:
    """N-G."""
    return verdict(world, Drift.PORTLESS, ("neutron", CELL, "sysfs"), _say)


def _say(case: Case) -> Said:
    instance = quoted(str(case.claims[0].instance))
    return Said(
        summary=f"{case.name} is held by a guest{case.weak} and claimed by instance {instance}, but no port names it",
        remedy=(
            f"when its owner agrees: openstack server reboot --hard {instance} makes its domain anew without the "
            f"device; then the claim is left: {free(case)}"
        ),
    )
