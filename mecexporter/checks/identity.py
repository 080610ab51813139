"""What this node remembers of itself: a fold from one World to the next.

A node is healthy under an id when all signs agree: ovn-controller connected, running and without failing transactions,
flows in the integration bridge, an ovn-nb-cfg on it if this id ever had one, and Southbound's Chassis of that id ours.
After grace.identity of that without a break, the id is remembered; from then on any other one is a change.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mecexporter.state.identity import EffectiveId, effective_id
from mecexporter.state.observed import Fresh
from mecexporter.state.world import ENCAPSULATION, Identity, Role

if TYPE_CHECKING:
    from mecexporter.state.ovs import OvsConf
    from mecexporter.state.world import Memory, World


def remember(world: World) -> Memory:
    """The memory that follows from this World; the same object if nothing changed."""
    memory = world.memory
    if isinstance(world.host, Fresh) and world.host.value.system_id_file.content and not memory.id_file_seen:
        memory = replace(memory, id_file_seen=True)
    if Role.COMPUTE not in world.roles or not isinstance(world.ovs, Fresh):
        return _unproven(memory)
    ovs = world.ovs.value
    now = effective_id(world)
    if not isinstance(now, EffectiveId) or not now.system_id:
        return _unproven(memory)
    if memory.identity is None and (seed := _seed(world, now.system_id, ovs)) is not None:
        memory = replace(memory, identity=_identity(world, replace(now, system_id=seed), ovs))
    if not _healthy(world, now.system_id, memory):
        return _unproven(memory)
    bridge = ovs.bridge(ovs.integration_bridge)
    if bridge is not None and bridge.nb_cfg is not None and memory.nb_cfg_seen_under != now.system_id:
        memory = replace(memory, nb_cfg_seen_under=now.system_id)
    if memory.healthy_id != now.system_id or memory.healthy_since is None:
        return replace(memory, healthy_id=now.system_id, healthy_since=world.now)
    if world.now - memory.healthy_since < world.settings.grace_identity:
        return memory
    proven, known = _identity(world, now, ovs), memory.identity
    if known is not None and replace(proven, since=known.since) == known:
        return memory
    return replace(memory, identity=proven)


def _unproven(memory: Memory) -> Memory:
    return memory if memory.healthy_id is None else replace(memory, healthy_id=None, healthy_since=None)


def _identity(world: World, now: EffectiveId, ovs: OvsConf) -> Identity:
    known, settings = world.memory.identity, dict(ovs.ovn_settings)
    if known is not None and known.system_id == now.system_id:
        # A node that loses these looks healthy until the bridge is made anew, and then nobody else knows them.
        settings = {key: known.settings[key] for key in ENCAPSULATION if key in known.settings} | settings
    return Identity(system_id=now.system_id, origin=now.origin, since=world.now + world.skew, settings=settings)


def _seed(world: World, system_id: str, ovs: OvsConf) -> str | None:
    """Without a memory, the one id of which ovn-controller left a note, unless Southbound contradicts.

    After a reinstallation the only note can be that of the new, wrong id: so the id that is in force now is believed
    only if Southbound has it or, where that is not to be asked, if ovn-controller does its work under it.
    """
    if len(ovs.remembered_ids) != 1:
        return None
    [noted] = ovs.remembered_ids
    if noted != system_id:
        return noted
    if "chassis_lookup" in world.applicable:
        return noted if _registered(world, system_id, ovs) else None
    return noted if _works(world) and _programmed(world, ovs.integration_bridge) else None


def _healthy(world: World, system_id: str, memory: Memory) -> bool:
    """Whether every sign agrees; what can't be told is not health, what is not to be asked here is no sign."""
    if not isinstance(world.ovs, Fresh):
        return False
    bridge = world.ovs.value.bridge(world.ovs.value.integration_bridge)
    return (
        bridge is not None
        and (bridge.nb_cfg is not None or memory.nb_cfg_seen_under != system_id)
        and _works(world)
        and _programmed(world, bridge.name)
        and _registered(world, system_id, world.ovs.value)
    )


def _works(world: World) -> bool:
    """Whether ovn-controller is connected and running, and what it wrote lately was taken."""
    if "ovn_controller" not in world.applicable:
        return True
    if not isinstance(world.ovn_controller, Fresh):
        return False
    controller = world.ovn_controller.value
    return controller.connected and not controller.paused and controller.txn_rises[-1:] == (False,)


def _programmed(world: World, bridge: str) -> bool:
    """Whether the integration bridge has flows."""
    if "openflow" not in world.applicable:
        return True
    flows = world.openflow
    return isinstance(flows, Fresh) and flows.value.bridge == bridge and flows.value.flows > 0


def _registered(world: World, system_id: str, ovs: OvsConf) -> bool:
    """Whether Southbound has the Chassis of this id, with our hostname."""
    if "chassis_lookup" not in world.applicable:
        return True
    if not isinstance(world.chassis_lookup, Fresh):
        return False
    found = world.chassis_lookup.value
    if found.system_id != system_id or found.registered is None:
        return False
    if ovs.hostname is None:
        return found.ours is True
    return found.registered.hostname.casefold() == ovs.hostname.casefold()
