"""Which id ovn-controller goes by, and where it comes from.

Order as in ovn-controller(8): ``-n`` on the command line, else the file system-id-override, else
external_ids:system-id of the local Open_vSwitch database.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mecexporter.errors import Reason
from mecexporter.state.observed import Fresh

if TYPE_CHECKING:
    from mecexporter.state.world import World


@dataclass(frozen=True, slots=True)
class EffectiveId:
    """An id and its origin (``commandline``, ``override``, ``ovsdb``); '' where there is none."""

    origin: str
    system_id: str


def effective_id(world: World) -> EffectiveId | tuple[str, ...]:
    """The id in force, or the sources without which it can't be told."""
    if not isinstance(world.host, Fresh):
        return ("host",)
    host = world.host.value
    if host.commandline_id:
        return EffectiveId("commandline", host.commandline_id)
    remembered = world.memory.identity
    if host.commandline_why is not None and remembered is not None and remembered.origin == "commandline":
        # ovn-controller is not there to be looked at: it was last given this id, and so it will be again.
        return EffectiveId("commandline", remembered.system_id)
    override = host.override_file
    if override.content is not None:
        return EffectiveId("override", override.content)
    if override.trouble not in (None, Reason.MISSING):
        return ("host",)  # it may name another id, and we can't read it
    if not isinstance(world.ovs, Fresh):
        return ("ovs",)
    return EffectiveId("ovsdb", world.ovs.value.system_id or "")
