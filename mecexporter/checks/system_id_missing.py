"""This node has no id, or an empty one: ovn-controller does nothing until it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.checks.base import Finding, Severity, Unknown, check, unknown
from mecexporter.checks.words import put_back
from mecexporter.state.identity import EffectiveId, effective_id
from mecexporter.state.observed import Fresh
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from mecexporter.checks.base import Verdict
    from mecexporter.state.world import World


@check(
    severity=Severity.CRITICAL,
    title="the node has no system-id, or an empty one",
    roles=frozenset({Role.COMPUTE}),
    sources=("host", "ovs"),
    alert_for="0s",
)
def system_id_missing(world: World) -> Verdict:
    """Look at the id in force, wherever it comes from."""
    if not isinstance(world.host, Fresh) or not isinstance(world.ovs, Fresh):
        return unknown(world, "host", "ovs")
    now = effective_id(world)
    if not isinstance(now, EffectiveId):
        return Unknown(now)
    if now.system_id:
        return ()
    known = world.memory.identity.system_id if world.memory.identity else None
    if known is None:
        known = world.host.value.system_id_file.content or None
    return (
        Finding(
            subject=world.hostname,
            summary=f"the system-id (from {now.origin}) is missing or empty: ovn-controller programs nothing",
            remedy=(
                f"put the old id back: {put_back(world, now.origin, known)}"
                if known
                else "set it to this node's name in the Southbound database (ovn-sbctl list Chassis): "
                "ovs-vsctl set Open_vSwitch . external_ids:system-id=…; then restart ovn-controller"
            ),
            reads=2,
            hold=5.0,
            read_at=world.ovs.at,
        ),
    )
