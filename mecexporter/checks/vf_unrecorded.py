"""A guest has a VF that Nova thinks is free and will give to another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.checks.base import Severity, check
from mecexporter.checks.vfs import Drift, Said, verdict
from mecexporter.checks.words import quoted
from mecexporter.state.world import CELL, Role

if TYPE_CHECKING:
    from mecexporter.checks.base import Verdict
    from mecexporter.checks.vfs import Case
    from mecexporter.state.world import World


@check(
    severity=Severity.WARNING,
    title="a guest holds a VF that Nova has not claimed for any instance",
    roles=frozenset({Role.API}),
    sources=(CELL, "sysfs"),
    alert_for="0s",
)
def vf_unrecorded(world: World) -> Verdict:
    """-PG and --G."""
    return verdict(world, Drift.UNRECORDED, (CELL, "sysfs"), _say)


def _say(case: Case) -> Said:
    holder = case.function.holder if case.function is not None else ""
    ports = "".join(f"; port {quoted(port.uuid)} names it" for port in case.ports)
    who = f"guest {quoted(holder)}" if holder else "a guest"
    look = f"virsh dominfo {quoted(holder)}; openstack server show {quoted(holder)}" if holder else "virsh list"
    return Said(
        summary=f"{case.name} is held by {who}{case.weak}, and Nova has it claimed for nobody{ports}",
        remedy=(
            f"Nova may give it to a second instance: find the guest on this host ({look}); a domain that Nova does not "
            "know is left over from a failed migration or evacuation: shut it down (virsh destroy) once its owner is "
            "known; an instance that Nova knows: openstack server reboot --hard, or move it away"
        ),
    )
