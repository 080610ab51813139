"""What this node remembers of itself: a fold from one World to the next.

A node is healthy under an id when all signs agree: ovn-controller connected, running and without failing transactions,
flows in the integration bridge, an ovn-nb-cfg on it if this id ever had one, and Southbound's Chassis of that id ours.
After grace.identity of that without a break, the id is remembered; from then on any other one is a change.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mecexporter.checks.chassis_unregistered import is_ours
from mecexporter.state.identity import EffectiveId, effective_id
from mecexporter.state.observed import Fresh
from mecexporter.state.world import Identity, Role

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
    bridge = ovs.bridge(ovs.integration_bridge)
    if (
        bridge is not None
        and bridge.nb_cfg is not None
        and memory.nb_cfg_seen_under != now.system_id
        and _healthy(world, now.system_id, memory)
    ):
        memory = replace(memory, nb_cfg_seen_under=now.system_id)
    if memory.identity is None and len(ovs.remembered_ids) == 1:
        memory = replace(memory, identity=_identity(ovs, ovs.remembered_ids[0], world.now + world.skew))
    if not _healthy(world, now.system_id, memory):
        return _unproven(memory)
    if memory.healthy_id != now.system_id or memory.healthy_since is None:
        memory = replace(memory, healthy_id=now.system_id, healthy_since=world.now)
    assert memory.healthy_since is not None  # noqa: S101  # just set
    if world.now - memory.healthy_since < world.settings.grace_identity:
        return memory
    proven = _identity(ovs, now.system_id, world.now + world.skew)
    known = memory.identity
    if known is None or replace(known, since=0.0) != replace(proven, since=0.0):
        memory = replace(memory, identity=proven)
    return memory


def _unproven(memory: Memory) -> Memory:
    return memory if memory.healthy_id is None else replace(memory, healthy_id=None, healthy_since=None)


def _identity(ovs: OvsConf, system_id: str, since: float) -> Identity:
    return Identity(
        system_id=system_id,
        since=since,
        ovn_remote=ovs.ovn_remote,
        encap_types=ovs.encap_types,
        encap_ips=ovs.encap_ips,
        hostname=ovs.hostname,
    )


def _healthy(world: World, system_id: str, memory: Memory) -> bool:
    """Whether every sign that can be had agrees; what can't be told is not health."""
    if not (
        isinstance(world.ovs, Fresh) and isinstance(world.ovn_controller, Fresh) and isinstance(world.openflow, Fresh)
    ):
        return False
    ovs, controller = world.ovs.value, world.ovn_controller.value
    bridge = ovs.bridge(ovs.integration_bridge)
    return (
        controller.connected
        and not controller.paused
        and not any(controller.txn_rises[-1:])
        and bridge is not None
        and world.openflow.value.bridge == ovs.integration_bridge
        and world.openflow.value.flows > 0
        and (bridge.nb_cfg is not None or memory.nb_cfg_seen_under != system_id)
        and _registered(world, system_id, ovs)
    )


def _registered(world: World, system_id: str, ovs: OvsConf) -> bool:
    """Whether Southbound has our Chassis; yes if it is not to be asked (chassis_lookup disabled)."""
    if "chassis_lookup" not in world.applicable:
        return True
    if not isinstance(world.chassis_lookup, Fresh):
        return False
    found = world.chassis_lookup.value
    return found.system_id == system_id and found.registered is not None and is_ours(found.registered, ovs)
