"""Flows of this host's datapaths, and what they carried: in hardware, or why not.

A flow is a filter of the kernel's traffic control (TC flower), a flow of the kernel's Open vSwitch datapath, or one of
a user-space datapath. A packet passes several flows where it is recirculated (conntrack, chains): only the last one,
the *terminal* flow, counts it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Path(StrEnum):
    """Who carried a packet (contract)."""

    HARDWARE = "hardware"
    SOFTWARE = "software"
    PARTIAL = "partial"  # hardware marks it, software switches it (user-space datapaths)


class Protocol(StrEnum):
    """The flow's own layer 4, after decapsulation (contract)."""

    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"
    ICMP = "icmp"  # for IPv6 too
    GRE = "gre"
    OTHER = "other"


PROTOCOLS = MappingProxyType(
    {
        1: Protocol.ICMP,
        6: Protocol.TCP,
        17: Protocol.UDP,
        47: Protocol.GRE,
        58: Protocol.ICMP,
        132: Protocol.SCTP,
    }
)
"""Those that are told apart, by IANA's numbers."""


class Layer(StrEnum):
    """Where a flow is written down."""

    TC = "tc"
    KERNEL = "kernel"
    USERSPACE = "userspace"


class PortKind(StrEnum):
    """What a flow's packets come from."""

    REPRESENTOR = "representor"  # of a VF, in switchdev mode
    UPLINK = "uplink"  # a PF, or the bond of PFs
    TUNNEL = "tunnel"  # decapsulated
    INTERNAL = "internal"  # the host itself, or in TC's software for it
    OTHER = "other"  # tap, veth: no NIC knows it


class Obstacle(StrEnum):
    """What a flow itself shows of why its packets are not in hardware."""

    NONE = "none"
    MISSED = "missed"  # the filter is in hardware, and these packets came to the CPU nevertheless
    SKIP_HW = "skip_hw"  # the filter is marked to be kept out of hardware
    TUNNEL = "tunnel"  # encapsulation in a form that TC does not have
    ACTION = "action"  # an action that TC does not have
    MATCH = "match"  # a match that TC does not have


class Why(StrEnum):
    """Why packets are in software: the bounded set behind the ``reason`` label."""

    EXEMPT = "exempt"  # ARP, neighbour discovery, DHCP, slow path: no traffic that hardware is expected to carry
    PARTIAL = "partial"  # hardware marks it, software switches it
    MISSED = "missed"  # the filter is in hardware, and yet these came to the CPU
    NOT_ON_NIC = "not_on_nic"  # from a port that is on no NIC which could carry it
    NOT_SWITCHDEV = "not_switchdev"  # no PF's eswitch is in switchdev mode
    OFFLOAD_OFF = "offload_off"  # other_config:hw-offload
    TC_POLICY = "tc_policy"  # other_config:tc-policy keeps it out of hardware
    FEATURE_OFF = "feature_off"  # ethtool's hw-tc-offload of the device
    TUNNEL = "tunnel"
    ACTION = "action"
    MATCH = "match"
    CONNTRACK_GRE = "conntrack_gre"  # GRE under connection tracking, while other protocols may well be in hardware
    CONNTRACK = "conntrack"  # kernel or Open vSwitch put no connection tracking into TC at all
    REFUSED = "refused"  # TC has it, hardware did not take it: its table is full, or it can't
    HIDDEN = "hidden"  # under connection tracking, with a match that leaves open whether it is GRE
    YOUNG = "young"  # a flow that may be on its way into hardware
    UNKNOWN = "unknown"  # a source that would tell is absent, or nothing shows it


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowClass:
    """What flows are counted by.

    Attributes:
        conntrack: whether connection tracking runs on it: a ``ct`` action, or a match on a tracked state.
        terminal: whether it ends a packet's way; if not, a later flow counts the packet.
        ordinary: False for ARP, neighbour discovery, DHCP and what ovs-vswitchd handles itself (slow path), which are
            no traffic that hardware is expected to carry.
        hidden: whether the match leaves the protocol open, which then reads ``other``.
        port: the device, for GRE with conntrack in software alone: the finding names it.
    """

    path: Path
    protocol: Protocol
    conntrack: bool
    layer: Layer
    port_kind: PortKind = PortKind.OTHER
    obstacle: Obstacle = Obstacle.NONE
    terminal: bool = True
    ordinary: bool = True
    hidden: bool = False
    port: str = ""


@dataclass(frozen=True, slots=True)
class Counted:
    """Packets and bytes."""

    packets: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowTable:
    """What one read of all flows of a source gave.

    Attributes:
        flows: how many there are now, terminal or not.
        young: how many of them were first seen less than 10 s ago.
        totals: what terminal flows have carried since the exporter began, as far as it was seen: never falls.
        window: what they carried between the read before this and this one, young flows left out; a flow that comes of
            age brings what it carried while young.
        seconds: length of the window; None at the first read, which has none.
        tracked: protocols of those under connection tracking, flows that are there and flows that were.
    """

    flows: Mapping[FlowClass, int] = field(default_factory=lambda: MappingProxyType({}))
    young: Mapping[FlowClass, int] = field(default_factory=lambda: MappingProxyType({}))
    totals: Mapping[FlowClass, Counted] = field(default_factory=lambda: MappingProxyType({}))
    window: Mapping[FlowClass, Counted] = field(default_factory=lambda: MappingProxyType({}))
    seconds: float | None = None
    tracked: frozenset[Protocol] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        of = chain(self.flows, self.totals)
        object.__setattr__(self, "tracked", frozenset(c.protocol for c in of if c.conntrack))


@dataclass(frozen=True, slots=True)
class Software:
    """What software has carried since the exporter began, by why, protocol and whether under connection tracking.

    Why is known of a moment: what a read adds belongs to the reason that was known then, and stays there.

    Attributes:
        counted: the totals that are in it.
    """

    carried: Mapping[tuple[Why, Protocol, bool], Counted] = field(default_factory=lambda: MappingProxyType({}))
    counted: Mapping[FlowClass, Counted] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Gre:
    """GRE in the connection tracking table.

    Attributes:
        entries: of protocol 47, by who carries them; ``software`` is all that is not in hardware.
        software: what entries out of hardware have carried since the exporter began, as far as it was seen; None
            where the kernel does not count (``nf_conntrack_acct`` 0).
        window: the same between two reads.
        seconds: length of the window; None at the first read.
    """

    entries: Mapping[Path, int]
    software: Counted | None
    window: Counted | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conntrack:
    """The kernel's connection tracking table (of the exporter's network namespace).

    Attributes:
        entries: now.
        limit: at most (``nf_conntrack_max``).
        offloaded: entries in a flow table, by whether it is the NIC's (``[HW_OFFLOAD]``) or the kernel's own
            (``[OFFLOAD]``: software); None where this user may not ask.
        gre: None as above.
        looked_at: when offloaded and gre were read, which may be more seldom than the numbers are: seconds on any clock
            that only goes forwards.
    """

    entries: int
    limit: int | None
    offloaded: Mapping[Path, int] | None = None
    gre: Gre | None = None
    looked_at: float = field(default=0.0, compare=False)
