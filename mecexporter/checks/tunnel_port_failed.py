"""A tunnel to another chassis that Open vSwitch could not make, or that BFD calls down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.checks.base import Finding, Severity, check, unknown
from mecexporter.checks.words import quoted
from mecexporter.state.observed import Fresh
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from mecexporter.checks.base import Verdict
    from mecexporter.state.ovs import Interface
    from mecexporter.state.world import World


@check(
    severity=Severity.CRITICAL,
    title="a tunnel to a chassis (external_ids:ovn-chassis-id) has an error, no ofport, or BFD down, in two reads",
    roles=frozenset({Role.COMPUTE}),
    sources=("ovs", "vswitchd"),
    alert_for="1m",
)
def tunnel_port_failed(world: World) -> Verdict:
    """What the database says of an interface is ovs-vswitchd's word: without it, it is yesterday's."""
    if not isinstance(world.ovs, Fresh) or not isinstance(world.vswitchd, Fresh):
        return unknown(world, "ovs", "vswitchd")
    at = world.ovs.at
    return tuple(
        Finding(
            subject=f"{i.bridge}/{i.name}",
            summary=f"the tunnel {quoted(i.name)} to chassis {quoted(i.remote_chassis or '')} is broken: {trouble}",
            remedy=_remedy(i),
            reads=2,
            read_at=at,
        )
        for i in world.ovs.value.interfaces
        if i.remote_chassis is not None and (trouble := tunnel_trouble(i))
    )


def tunnel_trouble(interface: Interface) -> str | None:
    """What is wrong with a tunnel in words, None if nothing."""
    if interface.error:
        return interface.error
    if interface.ofport is None or interface.ofport < 0:
        return "Open vSwitch has not made a port of it (no ofport)"
    if interface.bfd_state == "down":
        return "BFD gets no answer from the other end"
    return None


def _remedy(interface: Interface) -> str:
    if interface.bfd_state == "down" and not interface.error:
        return "see that the other chassis lives and that UDP 3784 and the tunnel's own port pass between the two hosts"
    return (
        f"ovs-vsctl del-port {quoted(interface.bridge)} {quoted(interface.name)}: ovn-controller makes it anew; "
        "if it comes back so, look for another tunnel to the same address (ovs-vsctl list Interface)"
    )
