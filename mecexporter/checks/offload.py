"""Why packets are in software, and which share of them hardware carries."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from mecexporter.checks.base import Unknown, unknown
from mecexporter.checks.offload_run import running
from mecexporter.state.datapath import Counted, Layer, Obstacle, Path, PortKind, Protocol, Software, Why
from mecexporter.state.observed import Fresh
from mecexporter.state.ovs import InterfaceKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mecexporter.checks.base import Verdict
    from mecexporter.state.datapath import FlowClass, FlowTable
    from mecexporter.state.sriov import Nic, Pf
    from mecexporter.state.world import World

TABLES = ("tc", "ovs_flows")
"""The sources whose flows, together, are all that the datapaths carry."""

BESIDE = frozenset({Why.EXEMPT, Why.NOT_ON_NIC, Why.NOT_SWITCHDEV})
"""Traffic that no hardware is expected to carry: left out where hardware's share is judged."""

REMEDIES = {
    Why.PARTIAL: "the NIC only marks these flows: see what its driver of the user-space datapath can do",
    Why.MISSED: "hardware has the flow's filter and hands its packets on: look at conntrack's offloaded entries, and"
    " for drops and errors of the uplink (ethtool -S)",
    Why.OFFLOAD_OFF: "ovs-vsctl set Open_vSwitch . other_config:hw-offload=true",
    Why.TC_POLICY: "ovs-vsctl remove Open_vSwitch . other_config tc-policy, and restart ovs-vswitchd",
    Why.FEATURE_OFF: "ethtool -K DEVICE hw-tc-offload on, for the uplink and the representors",
    Why.TUNNEL: "this encapsulation is none that TC knows: compare its options with a tunnel that is in hardware",
    Why.ACTION: "find the OpenFlow rule whose action TC does not have (ovs-appctl dpctl/dump-flows -m type=ovs)",
    Why.MATCH: "find the OpenFlow rule whose match TC does not have (ovs-appctl dpctl/dump-flows -m type=ovs)",
    Why.CONNTRACK_GRE: "take GRE out of connection tracking by a stateless security group, or run a kernel and driver"
    " that offload it",
    Why.CONNTRACK: "this kernel, or this Open vSwitch, puts no connection tracking into TC: the kernel needs"
    " CONFIG_NET_TC_SKB_EXT, CONFIG_NET_ACT_CT and CONFIG_NF_FLOW_TABLE (grep them in /boot/config-$(uname -r))",
    Why.REFUSED: "TC has these flows and the driver does not take them: its log says why (dmesg), most often a table"
    " that is full or an action that the NIC lacks",
    Why.HIDDEN: "no OpenFlow rule looks at the protocol: mec_conntrack_gre_entries says whether it is GRE",
    Why.UNKNOWN: "ovs-appctl dpctl/dump-flows -m type=ovs shows the flows; with dpif_netlink and netdev_offload_tc (in"
    " Open vSwitch 4.0: dpif_offload_tc_netdev) at debug (ovs-appctl vlog/set) ovs-vswitchd's log says why it did not"
    " offload them",
}
"""What to do about each reason that is worth a word."""


class Rate(NamedTuple):
    """What passed in a second."""

    packets: float
    bytes: float


# What the World says of the NICs


def representors(world: World) -> frozenset[str]:
    """The netdevs that stand for VFs in switchdev mode, as far as they are known."""
    return frozenset(name for pf in _pfs(world) for name in pf.representors.values())


def _pfs(world: World) -> tuple[Pf, ...]:
    nic = _nic(world)
    return nic.pfs if nic is not None else ()


def _nic(world: World) -> Nic | None:
    return world.sysfs.value if isinstance(world.sysfs, Fresh) else None


def _legacy(pf: Pf, world: World) -> bool:
    """Only an administrator is told the mode; representors are there in one mode only."""
    link = world.links.value.pfs.get(pf.address) if isinstance(world.links, Fresh) else None
    mode = link.eswitch_mode if link is not None else None
    return mode != "switchdev" and not pf.representors


def _has_offload(world: World) -> Mapping[str, bool]:
    """The devices whose driver has the feature hw-tc-offload, and whether it is on."""
    return world.links.value.tc_offload if isinstance(world.links, Fresh) else {}


def has_taps(world: World) -> bool:
    """Whether guests of this host have ports that are on no NIC; the metadata's are installed nowhere.

    Before OVN 21.03 no port is marked as installed: there who plugged it tells.
    """
    if not isinstance(world.ovs, Fresh):
        return False
    on_nic = representors(world) | _has_offload(world).keys()
    marked = world.marks_installed()
    return any(
        i.kind is InterfaceKind.VIF and (i.ovn_installed if marked else i.of_guest) and i.name not in on_nic
        for i in world.ovs.value.interfaces
    )


def _takes_filters(world: World) -> bool:
    """Whether a device that is no PF (of a NIC without VFs) is to carry flows, or does."""
    configured = isinstance(world.ovs, Fresh) and world.ovs.value.hw_offload
    return (configured and any(_has_offload(world).values())) or any(
        c.path is not Path.SOFTWARE for table in _tables(world) for c in _known(table)
    )


# Why a flow is in software


def _tables(world: World) -> Iterator[FlowTable]:
    for name in TABLES:
        part = world.part(name)
        if isinstance(part, Fresh):
            yield part.value


def _known(table: FlowTable) -> Iterator[FlowClass]:
    """Of flows that are there or were."""
    yield from table.flows
    yield from table.totals


def _gre(c: FlowClass) -> bool:
    return c.protocol is Protocol.GRE and c.conntrack


def _not_on_nic(c: FlowClass, world: World) -> bool:
    if c.port_kind in (PortKind.UPLINK, PortKind.TUNNEL):
        nic = _nic(world)
        return nic is not None and not nic.pfs and not _takes_filters(world)
    beside = c.port_kind in (PortKind.OTHER, PortKind.INTERNAL)
    return beside and (not c.port or c.port not in _has_offload(world))


def _not_switchdev(c: FlowClass, world: World) -> bool:
    pfs = _pfs(world)
    return c.port_kind in (PortKind.UPLINK, PortKind.TUNNEL) and bool(pfs) and all(_legacy(pf, world) for pf in pfs)


def _offload(c: FlowClass, world: World) -> bool | None:
    """Whether offload is on: flows in TC show that it runs; else as it runs, or is configured; None if not known."""
    if c.layer is Layer.TC or (c.layer is Layer.KERNEL and isinstance(world.tc, Fresh) and world.tc.value.flows):
        return True
    run = running(world)
    if run is not None and run.offload is not None:
        return run.offload
    return world.ovs.value.hw_offload if isinstance(world.ovs, Fresh) else None


def _only_hardware(c: FlowClass, world: World) -> bool:
    """Whether a flow of the kernel's datapath is there because hardware did not take it, and TC alone may not."""
    return c.layer is Layer.KERNEL and isinstance(world.ovs, Fresh) and world.ovs.value.tc_policy == "skip_sw"


def _feature_off(c: FlowClass, world: World) -> bool:
    """Whether it is off for the device or, where only its kind is known, for all devices of that kind."""
    if c.layer is not Layer.TC and not _only_hardware(c, world):
        return False
    if c.port:
        devices = {c.port}
    elif c.port_kind is PortKind.REPRESENTOR:
        devices = set(representors(world))
    else:
        devices = {name for pf in _pfs(world) for name in pf.devices}
    known = _has_offload(world)
    told = [known[device] for device in devices if device in known]
    return bool(told) and not any(told)


def _no_conntrack_in_tc(c: FlowClass, world: World) -> bool:
    """Whether connection tracking stays out of TC altogether; where it is GRE's alone, GRE may be the cause."""
    if c.layer is not Layer.KERNEL or not c.conntrack or not isinstance(world.tc, Fresh):
        return False
    if world.tc.value.tracked:
        return False
    if not _gre(c):
        return True
    return isinstance(world.ovs_flows, Fresh) and bool(world.ovs_flows.value.tracked - {Protocol.GRE})


_RULES: tuple[tuple[Why, Callable[[FlowClass, World], bool]], ...] = (
    (Why.EXEMPT, lambda c, _: not c.ordinary),
    (Why.PARTIAL, lambda c, _: c.path is Path.PARTIAL),
    # Hardware has the filter: whatever was set did not keep it out.
    (Why.CONNTRACK_GRE, lambda c, _: c.obstacle is Obstacle.MISSED and _gre(c)),
    (Why.MISSED, lambda c, _: c.obstacle is Obstacle.MISSED),
    # Nothing that could be set would bring it there.
    (Why.NOT_ON_NIC, _not_on_nic),
    (Why.NOT_SWITCHDEV, _not_switchdev),
    # What is set.
    (Why.TC_POLICY, lambda c, _: c.obstacle is Obstacle.SKIP_HW),
    (Why.UNKNOWN, lambda c, world: _offload(c, world) is None),
    (Why.OFFLOAD_OFF, lambda c, world: not _offload(c, world)),
    (Why.FEATURE_OFF, _feature_off),
    # What the flow itself shows.
    (Why.TUNNEL, lambda c, _: c.obstacle is Obstacle.TUNNEL),
    (Why.ACTION, lambda c, _: c.obstacle is Obstacle.ACTION),
    (Why.MATCH, lambda c, _: c.obstacle is Obstacle.MATCH),
    # What the others show.
    (Why.CONNTRACK, _no_conntrack_in_tc),
    (Why.CONNTRACK_GRE, lambda c, world: _gre(c) and (c.layer is Layer.TC or isinstance(world.tc, Fresh))),
    (Why.HIDDEN, lambda c, world: c.hidden and c.conntrack and c.layer is Layer.KERNEL and isinstance(world.tc, Fresh)),
    (Why.REFUSED, lambda c, world: c.layer is Layer.TC or _only_hardware(c, world)),
)


def reason(c: FlowClass, world: World) -> Why:
    """Why the packets of a class that is not in hardware are in software: the first that is known to hold.

    In this order: what the flow is; what hardware shows; where its packets come from; what is set (nothing that follows
    can be believed while that is not known); what the flow shows; what flows of other classes show.
    """
    return next((why for why, holds in _RULES if holds(c, world)), Why.UNKNOWN)


# What was carried


def attributed(world: World) -> Software:
    """The World's ``software`` with what its tables have counted since; the same object if that is nothing."""
    counted, carried = dict(world.software.counted), dict(world.software.carried)
    for table in _tables(world):
        for c, total in table.totals.items():
            if c.path is Path.HARDWARE or counted.get(c) == total:
                continue
            before = counted.get(c, Counted())
            counted[c] = total
            key = (reason(c, world), c.protocol, c.conntrack)
            so_far = carried.get(key, Counted())
            carried[key] = Counted(
                so_far.packets + total.packets - before.packets, so_far.bytes + total.bytes - before.bytes
            )
    if counted == world.software.counted:
        return world.software
    return Software(MappingProxyType(carried), MappingProxyType(counted))


TRAFFIC = ("ovs", "ovs_flows", "sysfs", "tc")
"""What a check of traffic can't do without."""


def carried(world: World) -> Mapping[FlowClass, Rate] | Verdict:
    """The rates for a check of traffic, or what it says where there are none to judge."""
    lost = unknown(world, *TRAFFIC)
    if lost.missing:
        return lost
    found = rates(world)
    if found is None:  # not read twice yet
        return () if nothing_expected(world) else Unknown(TABLES)
    return found


def rates(world: World) -> Mapping[FlowClass, Rate] | None:
    """What passed between the last two reads, young flows left out; None until every table was read twice."""
    out: dict[FlowClass, Rate] = {}
    for name in TABLES:
        part = world.part(name)
        if not isinstance(part, Fresh) or not part.value.seconds:
            return None
        for c, counted in part.value.window.items():
            out[c] = Rate(counted.packets / part.value.seconds, counted.bytes / part.value.seconds)
    return out


def in_play(world: World) -> bool:
    """Whether there is anything on this host that could carry packets in hardware, as far as it is known."""
    if isinstance(world.ovs, Fresh) and world.ovs.value.hw_offload:
        return True
    if any(not _legacy(pf, world) for pf in _pfs(world)):
        return True
    return any(c.path is not Path.SOFTWARE for table in _tables(world) for c in _known(table))


ALL = "all"
"""In place of a protocol."""


def hit_ratios(world: World) -> Mapping[tuple[str, str], float]:
    """(packets or bytes, protocol or 'all') -> the share that hardware carried of ordinary traffic (contract)."""
    found = rates(world)
    if found is None or not in_play(world):
        return {}
    hardware: dict[tuple[str, str], float] = {}
    every: dict[tuple[str, str], float] = {}
    for c, rate in found.items():
        if c.ordinary:
            for unit, amount in rate._asdict().items():
                for protocol in (str(c.protocol), ALL):
                    every[unit, protocol] = every.get((unit, protocol), 0.0) + amount
                    if c.path is Path.HARDWARE:
                        hardware[unit, protocol] = hardware.get((unit, protocol), 0.0) + amount
    return {key: hardware.get(key, 0.0) / amount for key, amount in every.items() if amount}


@dataclass(frozen=True, slots=True)
class Judged:
    """Packets a second of the traffic that hardware is expected to carry.

    Attributes:
        software: by why.
    """

    hardware: float
    software: Mapping[Why, float]

    @property
    def every(self) -> float:
        """Of both."""
        return self.hardware + sum(self.software.values())

    @property
    def ratio(self) -> float:
        """Of them the share in hardware, 1 where there are none."""
        return self.hardware / self.every if self.every else 1.0


def expected(world: World) -> Callable[[FlowClass], bool]:
    """Whether hardware is expected to carry a class.

    What no NIC in switchdev mode has to do with is not. Where guests have taps too, what comes from the network may be
    for them: only what comes from VFs is judged there, and so where offload is off.
    """
    taps = has_taps(world)

    def is_expected(c: FlowClass) -> bool:
        if not c.ordinary or (taps and c.port_kind is not PortKind.REPRESENTOR):
            return False
        if c.path is Path.HARDWARE:
            return True
        why = reason(c, world)
        return why not in BESIDE and (why is not Why.OFFLOAD_OFF or c.port_kind is PortKind.REPRESENTOR)

    return is_expected


def to_be_judged(found: Mapping[FlowClass, Rate], world: World) -> Mapping[FlowClass, float]:
    """Packets a second of the classes that are to be in hardware.

    The first packets of a connection pass the CPU until connection tracking has put it into hardware: what hardware
    missed so is left out as long as it carries no less of that protocol's connections.
    """
    is_expected = expected(world)
    of = {c: rate.packets for c, rate in found.items() if is_expected(c)}
    return {
        c: packets
        for c, packets in of.items()
        if c.obstacle is not Obstacle.MISSED
        or not c.conntrack
        or _gre(c)
        or _carried(of, c.protocol) < _missed(of, c.protocol)
    }


def judged(found: Mapping[FlowClass, Rate], world: World) -> Judged:
    """What of these rates is to be in hardware, and what of it is."""
    software: dict[Why, float] = {}
    of = to_be_judged(found, world)
    for c, packets in of.items():
        if c.path is not Path.HARDWARE:
            why = reason(c, world)
            software[why] = software.get(why, 0.0) + packets
    return Judged(sum(packets for c, packets in of.items() if c.path is Path.HARDWARE), software)


def _carried(of: Mapping[FlowClass, float], protocol: Protocol) -> float:
    return sum(n for c, n in of.items() if c.path is Path.HARDWARE and c.conntrack and c.protocol is protocol)


def _missed(of: Mapping[FlowClass, float], protocol: Protocol) -> float:
    return sum(n for c, n in of.items() if c.obstacle is Obstacle.MISSED and c.conntrack and c.protocol is protocol)


def nothing_expected(world: World) -> bool:
    """Whether the flows that are there leave nothing to judge, however long they are watched."""
    is_expected = expected(world)
    return not any(is_expected(c) for table in _tables(world) for c in _known(table))
