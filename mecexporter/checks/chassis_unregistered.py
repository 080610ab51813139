"""Southbound does not know this node by the id that it goes by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.checks.base import Finding, Severity, Unknown, check
from mecexporter.checks.controller import controller_is_down
from mecexporter.checks.words import delete_chassis, put_back, quoted
from mecexporter.state.identity import EffectiveId, effective_id
from mecexporter.state.observed import Fresh
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from mecexporter.checks.base import Verdict
    from mecexporter.state.ovn import ChassisLookup
    from mecexporter.state.world import World


@check(
    severity=Severity.CRITICAL,
    title=(
        "Southbound has no Chassis of the effective id, or it is another host's (hostname and all encapsulation "
        "addresses differ); not while ovn-controller is down"
    ),
    roles=frozenset({Role.COMPUTE}),
    sources=("chassis_lookup", "host", "ovn_controller", "ovs"),
    alert_for="0s",
    follows=("system_id_changed",),
)
def chassis_unregistered(world: World) -> Verdict:
    """Take the last look-up, if it was for the id that is in force now."""
    down = controller_is_down(world)
    if down is None:
        return Unknown(("ovn_controller",))
    now = effective_id(world)
    if not isinstance(now, EffectiveId):
        return Unknown(now)
    if down or not now.system_id:
        return ()  # ovn_controller_disconnected or system_id_missing says why
    if not isinstance(world.chassis_lookup, Fresh):
        return Unknown(("chassis_lookup",))
    lookup = world.chassis_lookup.value
    if lookup.system_id != now.system_id:
        return Unknown(("chassis_lookup",))
    if lookup.registered is not None:
        if lookup.ours is None:
            return Unknown(("ovs",))  # neither hostname nor address to compare with
        if lookup.ours:
            return ()
    return (
        Finding(
            subject=world.hostname,
            summary=_summary(lookup),
            remedy=_remedy(world, now, lookup),
            reads=2,
            read_at=world.chassis_lookup.at,
        ),
    )


def _summary(lookup: ChassisLookup) -> str:
    if lookup.registered is None:
        return f"Southbound ({lookup.remote}) has no Chassis {quoted(lookup.system_id)}, the id this node goes by"
    return (
        f"Southbound's Chassis {quoted(lookup.system_id)} belongs to host {quoted(lookup.registered.hostname)} "
        f"({', '.join(lookup.registered.encap_ips) or 'no address'}), not to this one"
    )


def _remedy(world: World, now: EffectiveId, lookup: ChassisLookup) -> str:
    remembered = world.memory.identity.system_id if world.memory.identity else None
    other = [c.name for c in lookup.of_hostname if c.name != now.system_id]
    old = remembered if remembered and remembered != now.system_id else next(iter(other), None)
    if old:
        return f"put the old id back: {put_back(world, now.origin, old)}. If the new id is meant: {delete_chassis(old)}"
    if lookup.registered is not None:
        return "give this node an id of its own: two hosts must not share one; then restart ovn-controller"
    return (
        "look at ovn-controller's log for what keeps it from registering (an encapsulation address that another "
        "Chassis holds, a certificate, a read-only Southbound)"
    )
