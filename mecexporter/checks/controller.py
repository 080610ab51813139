"""What several checks ask of ovn-controller."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.errors import NOBODY
from mecexporter.state.observed import Absent, Fresh

if TYPE_CHECKING:
    from mecexporter.state.observed import Observed
    from mecexporter.state.ovn import OvnController
    from mecexporter.state.world import World


def is_dead(controller: Observed[OvnController]) -> bool:
    """Whether it is known not to run; silence is not death."""
    return isinstance(controller, Absent) and controller.reason in NOBODY


def controller_is_down(world: World) -> bool | None:
    """Whether ovn-controller is dead, paused or not connected; None if that can't be told."""
    controller = world.ovn_controller
    if isinstance(controller, Fresh):
        return controller.value.paused or not controller.value.connected
    return True if is_dead(controller) else None
