"""GRE under connection tracking is switched by the CPU: incident 4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mecexporter.checks.base import Finding, Severity, Unknown, check
from mecexporter.checks.offload import REMEDIES, TABLES, TRAFFIC, carried, reason, to_be_judged
from mecexporter.checks.words import quoted
from mecexporter.state.datapath import Path, Protocol, Why
from mecexporter.state.observed import Fresh
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mecexporter.checks.base import Verdict
    from mecexporter.state.datapath import FlowClass
    from mecexporter.state.world import World

_LIMIT = 100.0
"""Packets a second (contract)."""
_SAID = 5
_GROUP = "gre-stateless"


@check(
    severity=Severity.WARNING,
    title="GRE under connection tracking is in software, 100 packets a second or more in two reads",
    roles=frozenset({Role.COMPUTE}),
    sources=TRAFFIC,
    alert_for="0s",
    follows=("offload_disabled",),
)
def offload_gre_conntrack(world: World) -> Verdict:
    """By the flows or, of those whose match leaves the protocol open, by conntrack's own count of GRE."""
    found = carried(world)
    if not isinstance(found, Mapping):
        return found
    tracked = {
        c: packets
        for c, packets in to_be_judged(found, world).items()
        if packets and c.conntrack and c.path is not Path.HARDWARE and (c.hidden or c.protocol is Protocol.GRE)
    }
    seen = {c: packets for c, packets in tracked.items() if not c.hidden}
    told, hidden = sum(seen.values()), sum(tracked.values()) - sum(seen.values())
    at = [part.at for name in TABLES if isinstance(part := world.part(name), Fresh)]
    share = 0.0
    if told < _LIMIT <= told + hidden:
        counted = _by_conntrack(world)
        if counted is None or not isinstance(world.conntrack, Fresh):
            return Unknown(("conntrack",))
        share = min(hidden, max(0.0, counted - told))
        at.append(world.conntrack.value.looked_at)
    if told + share < _LIMIT:
        return ()
    return (
        Finding(
            subject=world.hostname,
            summary=f"{told + share:.0f} packets a second of GRE under connection tracking are switched by the CPU"
            + (_ports(world, seen) if seen else "")
            + (f"; {share:.0f} of them by conntrack's own count, for their flows match any protocol" if share else ""),
            remedy=_remedy(world, tracked if share else seen),
            reads=2,
            read_at=tuple(at),
        ),
    )


def _by_conntrack(world: World) -> float | None:
    """Packets a second of GRE that are not in hardware, None where conntrack does not tell."""
    gre = world.conntrack.value.gre if isinstance(world.conntrack, Fresh) else None
    if gre is None:
        return None
    if not gre.entries.get(Path.SOFTWARE):
        return 0.0
    return gre.window.packets / gre.seconds if gre.window is not None and gre.seconds else None


def _ids(world: World) -> Mapping[str, str]:
    """Device -> Neutron's port."""
    interfaces = world.ovs.value.interfaces if isinstance(world.ovs, Fresh) else ()
    return {i.name: i.iface_id for i in interfaces if i.iface_id}


def _ports(world: World, seen: Mapping[FlowClass, float]) -> str:
    """Where they come from, the busiest first."""
    ids = _ids(world)
    by_port: dict[str, float] = {}
    for c, packets in seen.items():
        by_port[c.port] = by_port.get(c.port, 0.0) + packets
    named = sorted((port for port in by_port if port), key=lambda port: (-by_port[port], port))
    said = [
        f"{by_port[port]:.0f} from {quoted(port)}" + (f" (port {quoted(ids[port])})" if port in ids else "")
        for port in named[:_SAID]
    ]
    more = [f"{len(named) - _SAID} devices more"] if len(named) > _SAID else []
    return f": {', '.join(said + more)}" if named else ""


def _remedy(world: World, tracked: Mapping[FlowClass, float]) -> str:
    """What brings it back: what is set or lacks on this host, and what takes GRE out of connection tracking."""
    by_why: dict[Why, float] = {}
    for c, packets in tracked.items():
        why = reason(c, world)
        by_why[why] = by_why.get(why, 0.0) + packets
    worst = max(by_why, key=lambda why: by_why[why])
    own = f"{REMEDIES[worst]}; " if worst in REMEDIES and worst is not Why.CONNTRACK_GRE else ""
    if worst in (Why.OFFLOAD_OFF, Why.TC_POLICY, Why.FEATURE_OFF):
        return own.removesuffix("; ")
    return f"{own}{_stateless(_ids(world)[c.port] for c in tracked if c.port in _ids(world))}"


def _stateless(ports: Iterable[str]) -> str:
    """A stateless group has rules for both directions, for replies are not known as such."""
    named = sorted(set(ports))
    each = "; ".join(
        f"openstack port set --no-security-group --security-group {_GROUP} {quoted(port)}" for port in named[:_SAID]
    )
    create = "openstack security group rule create --project PROJECT"
    return (
        "take GRE out of connection tracking (PROJECT: the ports' own): openstack security group create --project"
        f" PROJECT --stateless {_GROUP}; {create} --ingress --protocol 47 {_GROUP}; {create} --egress --protocol 47"
        f" {_GROUP}, and what else these guests need, in both directions; "
        + (each or f"openstack port set --no-security-group --security-group {_GROUP} PORT for the guests' ports")
        + "; or run a kernel and driver that offload GRE under connection tracking: measure it, no version proves it"
    )
