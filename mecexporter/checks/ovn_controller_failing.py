"""ovn-controller's transactions fail again and again, though it calls itself connected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.checks.base import Finding, Severity, Unknown, check
from mecexporter.state.observed import Fresh
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from mecexporter.checks.base import Verdict
    from mecexporter.state.world import World

RISES = 3
"""Of the last four reads; a single failed transaction is normal at a live migration, going on is not."""


@check(
    severity=Severity.CRITICAL,
    title="ovn-controller's txn_error rose in 3 of the last 4 live reads",
    roles=frozenset({Role.COMPUTE}),
    sources=("ovn_controller",),
    alert_for="0s",
    follows=("system_id_changed", "chassis_unregistered"),
)
def ovn_controller_failing(world: World) -> Verdict:
    """Judge by whether it goes on: the rate differs a thousandfold between releases."""
    if not isinstance(world.ovn_controller, Fresh):
        return Unknown(("ovn_controller",))
    controller = world.ovn_controller.value
    if len(controller.txn_rises) < RISES:
        return Unknown(("ovn_controller",))  # not enough reads yet
    if sum(controller.txn_rises) < RISES:
        return ()
    return (
        Finding(
            subject=world.hostname,
            summary=(
                f"ovn-controller's transactions to Southbound keep failing ({controller.txn_errors} since it started): "
                "what it learns and does is not recorded, and new ports get no flows"
            ),
            remedy=(
                "compare this node's id and encapsulation address with Southbound's (mecexporter check; ovn-sbctl list "
                "Chassis; ovn-sbctl list Encap); ovn-controller's log names the constraint"
            ),
            read_at=world.ovn_controller.at,
        ),
    )
