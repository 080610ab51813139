"""Two instances, or two ports, have one VF by their records."""

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
    severity=Severity.CRITICAL,
    title="two instances or two ports have one VF in one ledger, or Nova's claim and the port name different instances",
    roles=frozenset({Role.API}),
    sources=(),
    either=((CELL,), ("neutron",)),
    alert_for="0s",
)
def vf_double_booked(world: World) -> Verdict:
    """The only verdict that one ledger alone can give."""
    return verdict(world, Drift.DOUBLE_BOOKED, ("neutron", CELL), _say)


def _say(case: Case) -> Said:
    records = [f"Nova's claim of instance {quoted(str(claim.instance))}" for claim in case.claims]
    records += [f"port {quoted(port.uuid)} of instance {quoted(port.instance)}" for port in case.named]
    return Said(
        summary=f"{case.name} is given away more than once: {'; '.join(records)}",
        remedy=(
            f"see which guest really has it on {quoted(case.host)} (virsh dumpxml INSTANCE | grep -A3 '<hostdev'), "
            "take the port of the other from its instance (openstack server remove port INSTANCE PORT) and, once its "
            "device_id is empty, attach it anew; start no instance of the two that is stopped"
        ),
    )
