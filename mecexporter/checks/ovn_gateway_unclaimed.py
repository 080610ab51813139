"""A gateway of a router that no chassis serves, or two take from each other all the time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.checks.base import Finding, Severity, check, unknown
from mecexporter.checks.words import quoted
from mecexporter.state.observed import Absent
from mecexporter.state.propagation import FLAPPING
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from mecexporter.checks.base import Verdict
    from mecexporter.state.propagation import Gateway
    from mecexporter.state.world import World


@check(
    severity=Severity.CRITICAL,
    title=(
        "a chassisredirect port has no chassis in two reads, or flaps (claim storm): of eight reads two saw it claimed "
        f"again and again, or it moved {FLAPPING} times; judged at Northbound's writer or leader"
    ),
    roles=frozenset({Role.CENTRAL}),
    sources=("ovn_chassis",),
    alert_for="0s",
)
def ovn_gateway_unclaimed(world: World) -> Verdict:
    """One that is on another chassis than the preferred one works: that is a number among the metrics, no finding."""
    seen = world.ovn_chassis
    if isinstance(seen, Absent):
        return unknown(world, "ovn_chassis")
    return tuple(
        _flaps(g, seen.at) if g.flaps else _unclaimed(g, seen.at)
        for g in seen.value.gateways
        if g.flaps or g.chassis is None
    )


def _unclaimed(gateway: Gateway, at: float) -> Finding:
    router_port = quoted(gateway.port.removeprefix("cr-"))
    return Finding(
        subject=gateway.port,
        summary=f"no chassis serves the gateway port {gateway.port}: its router has no way out",
        remedy=(
            f"see which chassis it may be on (ovn-nbctl lrp-get-gateway-chassis {router_port}; with an HA group: "
            "ovn-nbctl list HA_Chassis_Group), and that at least one of them is there (ovn-sbctl list Chassis) and its "
            "ovn-controller works"
        ),
        reads=2,
        read_at=at,
    )


def _flaps(gateway: Gateway, at: float) -> Finding:
    router_port = quoted(gateway.port.removeprefix("cr-"))
    return Finding(
        subject=gateway.port,
        summary=(
            f"chassis take the gateway port {gateway.port} from each other: within {gateway.window:.0f} s "
            f"{gateway.storms} reads saw it claimed again and again, and {gateway.moves} moves were seen; now it is on "
            f"{gateway.chassis or 'none'}"
        ),
        remedy=(
            "see the tunnels and their BFD sessions between the chassis that may have it (mecexporter check on each, "
            "ovs-vsctl --columns=name,bfd_status list Interface): chassis that don't see each other take it in turns. "
            f"To end it at once, leave it to one of them: ovn-nbctl lrp-del-gateway-chassis {router_port} <the other>"
        ),
        read_at=at,
    )
