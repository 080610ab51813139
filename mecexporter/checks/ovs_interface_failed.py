"""An interface that Open vSwitch could not make."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.checks.base import Finding, Severity, check, unknown
from mecexporter.checks.words import quoted
from mecexporter.state.observed import Fresh
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from mecexporter.checks.base import Verdict
    from mecexporter.state.world import World


@check(
    severity=Severity.WARNING,
    title="an interface other than a tunnel to a chassis has an error",
    roles=frozenset({Role.COMPUTE}),
    sources=("ovs", "vswitchd"),
    alert_for="5m",
)
def ovs_interface_failed(world: World) -> Verdict:
    """Read Interface.error; a guest's device is often gone a moment before its port."""
    if not isinstance(world.ovs, Fresh) or not isinstance(world.vswitchd, Fresh):
        return unknown(world, "ovs", "vswitchd")
    at = world.ovs.at
    return tuple(
        Finding(
            subject=f"{i.bridge}/{i.name}",
            summary=f"interface {quoted(i.name)} of bridge {quoted(i.bridge)} is broken: {i.error}",
            remedy=(
                "bring the device back, or, once nothing is known to need it: "
                f"ovs-vsctl del-port {quoted(i.bridge)} {quoted(i.name)}"
            ),
            reads=2,
            hold=10.0,
            read_at=at,
        )
        for i in world.ovs.value.interfaces
        if i.error and i.remote_chassis is None
    )
