"""A port names a VF that its instance does not have."""

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
    title="a port names a VF that Nova has not claimed, or that no guest holds though its instance runs",
    roles=frozenset({Role.API}),
    sources=("neutron", CELL),
    alert_for="0s",
)
def vf_orphan_port(world: World) -> Verdict:
    """-P-, and NP- of an instance that is ACTIVE without a task."""
    return verdict(world, Drift.ORPHAN_PORT, ("neutron", CELL, "sysfs"), _say)


def _say(case: Case) -> Said:
    (port,) = case.named
    uuid, owner = quoted(port.uuid), quoted(port.instance)
    if case.claims:
        return Said(
            summary=f"port {uuid} and Nova give {case.name} to instance {owner}, which runs without it",
            remedy=f"its guest lost the device: openstack server reboot --hard {owner} when its owner agrees",
        )
    known = "" if case.instances else ", which is not on this host"
    mend = (
        f"openstack server remove port {owner} {uuid}; once its device_id is empty: "
        f"openstack server add port {owner} {uuid}"
        if case.instances
        else f"see first where the instance is (openstack server show {owner}); if it is gone: openstack port unset "
        f"--device {uuid}, or openstack port delete {uuid} where nobody needs it"
    )
    return Said(
        summary=f"port {uuid} of instance {owner}{known} names {case.name}, which Nova has claimed for nobody",
        remedy=mend,
    )
