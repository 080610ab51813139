"""GRE that connection tracking runs on, because a security group is stateful: the cause of incident 4."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.checks.base import Finding, Severity, check, unknown
from mecexporter.checks.words import quoted
from mecexporter.state.datapath import Path, Protocol
from mecexporter.state.observed import Fresh
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.checks.base import Verdict
    from mecexporter.state.openstack import Port, SecurityGroup
    from mecexporter.state.world import World


@check(
    severity=Severity.WARNING,
    title="a port that a NIC's switch is to carry is in a stateful security group that allows GRE by name, and the NIC "
    "was not seen to carry GRE with conntrack",
    roles=frozenset({Role.API}),
    sources=("neutron", "security_groups"),
    alert_for="15m",
)
def offload_gre_stateful(world: World) -> Verdict:
    """A rule for every protocol, as groups have for what goes out, allows GRE too: most of their ports have none."""
    if not (isinstance(world.neutron, Fresh) and isinstance(world.security_groups, Fresh)):
        return unknown(world, "neutron", "security_groups")
    read_at = (world.neutron.at, world.security_groups.at)
    return tuple(
        Finding(
            subject=f"port/{port.uuid}",
            summary=f"{_what(world, port, group)}, so that connection tracking runs on its GRE: kernels before about "
            f"Linux 5.18 do not offload that{_unseen(world, port)}",
            remedy=_remedy(port, group),
            read_at=read_at,
        )
        for port, group in gre_ports(world)
        if group.tracked and not (_here(world, port) and carried(world))
    )


def gre_ports(world: World) -> Iterator[tuple[Port, SecurityGroup]]:
    """The ports on NICs' switches whose groups name GRE in a rule, each with the first such group.

    Neutron does not let a port have stateful and stateless groups at once.
    """
    if not (isinstance(world.neutron, Fresh) and isinstance(world.security_groups, Fresh)):
        return
    groups = {group.uuid: group for group in world.security_groups.value}
    for port in world.neutron.value if groups else ():
        if port.switched and not groups.keys().isdisjoint(port.groups):
            yield port, next(groups[uuid] for uuid in port.groups if uuid in groups)


def carried(world: World) -> bool:
    """Whether this host's hardware has carried GRE with conntrack since the exporter began: newer kernels let it.

    Their versions do not tell, for vendors backport it.
    """
    tables = (part.value for part in (world.tc, world.ovs_flows) if isinstance(part, Fresh))
    seen = any(
        of.path is Path.HARDWARE and of.protocol is Protocol.GRE and of.conntrack and counted.packets
        for table in tables
        for of, counted in table.totals.items()
    )
    gre = world.conntrack.value.gre if isinstance(world.conntrack, Fresh) else None
    return seen or (gre is not None and gre.entries.get(Path.HARDWARE, 0) > 0)


def _here(world: World, port: Port) -> bool:
    return port.host.casefold() == world.hostname.casefold()


def _unseen(world: World, port: Port) -> str:
    return "" if _here(world, port) else "; whether that host's does is not seen from here"


def _what(world: World, port: Port, group: SecurityGroup) -> str:
    host = world.hostname if _here(world, port) else port.host
    named = f"{quoted(group.name)} ({quoted(group.uuid)})" if group.name else quoted(group.uuid)
    return (
        f"port {quoted(port.uuid)} (VF {port.address} of {quoted(host)}, instance {quoted(port.instance)}) is in "
        f"security group {named}, which allows GRE by name and is stateful"
    )


def _remedy(port: Port, group: SecurityGroup) -> str:
    if group.stateful is None:
        return (
            "this Neutron has no stateless groups (ML2/OVN has them from Yoga on, with OVN 21.06 or newer): update it, "
            "or give the host a kernel and a NIC driver that offload GRE with conntrack; never switch port security "
            "off for it: addresses can be forged then, and conntrack runs on all ports of a network that has one "
            "stateful port"
        )
    new, project = (
        quoted(f"{group.name or 'gre'}-stateless"),
        f"--project {quoted(port.project)} " if port.project else "",
    )
    made = f"openstack security group create {project}--stateless {new}"
    rule = f"openstack security group rule create {project}--protocol 47 --ingress --remote-ip PEER {new}"
    groups = " ".join(quoted(uuid) for uuid in port.groups)
    return (
        f"where the flows of that host are not in hardware: {made}; {rule}; give it what else the port needs (for each "
        f"of {groups}: openstack security group rule list GROUP) and, as it remembers no connection, a rule for "
        "the replies to all that the guest begins itself; then, which replaces all groups of the port at once: "
        f"openstack port set --no-security-group --security-group {new} {quoted(port.uuid)}; never switch port "
        "security off in its place: addresses can be forged then, and conntrack runs on all ports of a network that "
        "has one stateful port"
    )
