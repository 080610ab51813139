"""The kernel's Open vSwitch datapath by generic netlink: its ports and its flows. No privilege is needed.

Formats: include/uapi/linux/openvswitch.h. What keeps a flow out of TC, and thereby out of hardware, is told as OVS
tells it when it tries (``test_key_and_mask`` and ``netdev_tc_parse_nl_actions`` in its lib/netdev-offload-tc.c, since
OVS 3.6 lib/dpif-offload-tc-netdev.c); what some kernel or release takes and others do not is no obstacle here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.wire.netlink import attributes, generic
from mecexporter.state.datapath import PROTOCOLS, Obstacle, Path, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.sources.wire.netlink import Netlink

DATAPATH, VPORT, FLOW = "ovs_datapath", "ovs_vport", "ovs_flow"
"""The generic netlink families."""

_GET = 3  # OVS_DP_CMD_GET, OVS_VPORT_CMD_GET, OVS_FLOW_CMD_GET
_HEADER = struct.Struct("=BBHi")  # genlmsghdr, ovs_header: command, version, reserved; datapath's ifindex
_ATTRIBUTE = struct.Struct("=HH")
_COUNTS = struct.Struct("=QQ")
_BYTE, _U16, _U32, _BE16 = struct.Struct("=B"), struct.Struct("=H"), struct.Struct("=I"), struct.Struct(">H")
_TYPE = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_DEEPEST = 16  # attributes in attributes: the kernel takes no deeper ones

_DP_NAME, _DP_STATS = 1, 3
_PORT_NO, _PORT_TYPE, _PORT_NAME = 1, 2, 3
_PORT_INTERNAL, _PORT_NETDEV = 2, 1
_FLOW_KEY, _FLOW_ACTIONS, _FLOW_STATS, _FLOW_MASK, _FLOW_UFID = 1, 2, 3, 7, 9


class _Key:
    """enum ovs_key_attr."""

    ENCAP, PRIORITY, IN_PORT, VLAN, ETHERTYPE, IPV4, IPV6, TCP, UDP = 1, 2, 3, 5, 6, 7, 8, 9, 10
    ETHERNET, ICMPV6, ND, SKB_MARK, TUNNEL, DP_HASH, RECIRC_ID, MPLS = 4, 12, 14, 15, 16, 19, 20, 21
    CT_STATE, CT_ORIG_IPV4, CT_ORIG_IPV6, NSH = 22, 26, 27, 28


class _Action:
    """enum ovs_action_attr."""

    OUTPUT, USERSPACE, SET, PUSH_VLAN, POP_VLAN, SAMPLE, RECIRC = range(1, 8)
    PUSH_MPLS, POP_MPLS, SET_MASKED, CT, CT_CLEAR, METER, CLONE, CHECK_PKT_LEN, DROP = 9, 10, 11, 12, 16, 19, 20, 21, 24


_IN_TC = frozenset(
    {
        _Action.OUTPUT,
        _Action.SET,
        _Action.PUSH_VLAN,
        _Action.POP_VLAN,
        _Action.RECIRC,
        _Action.PUSH_MPLS,
        _Action.POP_MPLS,
        _Action.SET_MASKED,
        _Action.CT,
        _Action.CT_CLEAR,
        _Action.METER,
        _Action.CHECK_PKT_LEN,
        _Action.DROP,
    }
)
_SETTABLE = frozenset({_Key.ETHERNET, _Key.IPV4, _Key.IPV6, _Key.TCP, _Key.UDP, _Key.TUNNEL, _Key.MPLS})
_NEVER_MATCHED = (_Key.PRIORITY, _Key.DP_HASH, _Key.ND, _Key.CT_ORIG_IPV4, _Key.CT_ORIG_IPV6, _Key.NSH)
_CT_HELPER = 5
_CT_NAT = 0x40 | 0x80  # OVS_CS_F_SRC_NAT, OVS_CS_F_DST_NAT
_NEVER_DECAPSULATED = frozenset({15, 16})  # OVS_TUNNEL_KEY_ATTR_ERSPAN_OPTS, _IPV4_INFO_BRIDGE; they begin at 0
_NEVER_ENCAPSULATED = _NEVER_DECAPSULATED | {7, 9}  # _OAM, _TP_SRC
_BRANCHES = {_Action.SAMPLE: (2,), _Action.CHECK_PKT_LEN: (2, 3)}  # which attributes of them hold actions
_USERDATA = 2
_SLOW_PATH, _CONTROLLER = 2, 5  # enum user_action_cookie_type (OVS: lib/odp-util.h)

_ARP = frozenset({0x0806, 0x8035})
_PROTOCOL_AT = {0x0800: (_Key.IPV4, 8), 0x86DD: (_Key.IPV6, 36)}
_IPV6_LABEL, _IPV6_FRAGMENT = 32, 39
_ICMPV6, _UDP = 58, 17
_DISCOVERY = range(133, 138)  # neighbour discovery (RFC 4861)
_DHCP = frozenset(_BE16.pack(port) for port in (67, 68, 546, 547))


class PortType(Enum):
    """What a port of the datapath is."""

    NETDEV = "netdev"
    INTERNAL = "internal"
    TUNNEL = "tunnel"


class Datapath(NamedTuple):
    """One datapath of the kernel: its number (that of its local port's netdev), its name, and how many flows it has."""

    number: int
    name: str
    flows: int


class Port(NamedTuple):
    """A port of a datapath."""

    name: str
    type: PortType


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """What a flow shows of what it is for; compared by identity, of equal ones a reader makes one.

    The fields are those of :class:`mecexporter.state.datapath.FlowClass`.

    Attributes:
        tunnel: whether its packets were decapsulated.
    """

    protocol: Protocol
    hidden: bool
    conntrack: bool
    terminal: bool
    ordinary: bool
    tunnel: bool
    obstacle: Obstacle = Obstacle.NONE
    path: Path = Path.SOFTWARE


def datapaths(genl: Netlink, family: int) -> list[Datapath]:
    """The kernel's datapaths; raises SourceError."""
    found = []
    for body in genl.stream(family, _asked(0, version=2)):
        told = dict(attributes(body[_HEADER.size :]))
        stats = told.get(_DP_STATS, b"")
        if len(body) < _HEADER.size or len(stats) < 32:  # struct ovs_dp_stats: hit, missed, lost, flows
            raise _unknown("datapath")
        found.append(
            Datapath(_HEADER.unpack_from(body)[3], _name(told[_DP_NAME]), struct.unpack_from("=Q", stats, 24)[0])
        )
    return found


def ports(genl: Netlink, family: int, datapath: int) -> dict[int, Port]:
    """The ports of a datapath by number; raises SourceError."""
    found = {}
    for body in genl.stream(family, _asked(datapath)):
        told = dict(attributes(body[_HEADER.size :]))
        try:
            number, kind = (_U32.unpack(told[of])[0] for of in (_PORT_NO, _PORT_TYPE))
            name = _name(told[_PORT_NAME])
        except (KeyError, struct.error):
            raise _unknown("port") from None
        # Tunnels are netdevs that ovs-vswitchd makes, genev_sys_6081; in old releases, ports of their own type.
        tunnel = kind not in (_PORT_NETDEV, _PORT_INTERNAL) or "_sys" in name
        found[number] = Port(
            name, PortType.INTERNAL if kind == _PORT_INTERNAL else PortType.TUNNEL if tunnel else PortType.NETDEV
        )
    return found


def flows(genl: Netlink, family: int, datapath: int, *, limit: int, seconds: float) -> Iterator[bytes]:
    """The flows of a datapath, for a :class:`FlowReader`; limits and errors are those of :meth:`Netlink.stream`."""
    return genl.stream(family, _asked(datapath), limit=limit, seconds=seconds)


class FlowReader:
    """Takes flows apart: some microseconds each.

    To walk through the forty attributes of a flow takes long. Flows are alike, though: all but addresses and counts
    are the same in many. So what was found in one is kept together with the bits that led to it (all headers, all of
    the mask, protocol, state); another of the same length that has the same bits there is of the same shape.
    """

    _MOST_KEPT = 4096

    def __init__(self) -> None:
        self._kept: dict[int, dict[int, dict[int, _Found]]] = {}  # length -> which bits -> those bits -> found
        self._shapes: dict[tuple[object, ...], Shape] = {}
        self._count = 0

    def read(self, body: bytes) -> tuple[bytes, Shape, int, int, int]:
        """Identifier, shape, number of the input port (-1: none), packets and bytes of a flow.

        Raises:
            SourceError: GARBAGE.
        """
        bits = int.from_bytes(body, "little")
        found = None
        for look, known in self._kept.get(len(body), _NOTHING).items():
            if (found := known.get(bits & look)) is not None:
                break
        if found is None:
            found = self._learn(body, bits)
        shape, begin, end, port_at, stats_at, dhcp_at = found
        for at in dhcp_at:
            if body[at : at + 2] in _DHCP:
                shape = self._shape(shape, ordinary=False)
        packets, octets = _COUNTS.unpack_from(body, stats_at) if stats_at else (0, 0)
        return body[begin:end], shape, _U32.unpack_from(body, port_at)[0] if port_at else -1, packets, octets

    def _learn(self, body: bytes, bits: int) -> _Found:
        walk = _Walk(body)
        found = walk.flow()
        found = found._replace(shape=self._shape(found.shape))
        if self._count >= self._MOST_KEPT:
            self._kept.clear()
            self._count = 0
        self._count += 1
        look = int.from_bytes(walk.looked_at, "little")
        self._kept.setdefault(len(body), {}).setdefault(look, {})[bits & look] = found
        return found

    def _shape(self, shape: Shape, *, ordinary: bool | None = None) -> Shape:
        fields = (
            shape.protocol,
            shape.hidden,
            shape.conntrack,
            shape.terminal,
            shape.ordinary if ordinary is None else ordinary,
            shape.tunnel,
            shape.obstacle,
        )
        return self._shapes.setdefault(fields, Shape(*fields))


class _Found(NamedTuple):
    """What a flow is, and where in it lies what differs from its like; offset 0: nowhere."""

    shape: Shape
    identifier: int
    identifier_end: int
    port: int
    stats: int
    dhcp: tuple[int, ...]


_NOTHING: dict[int, dict[int, _Found]] = {}
_Span = tuple[int, int]


class _Actions:
    """What is seen in a list of actions, nested ones included."""

    def __init__(self) -> None:
        self.conntrack = self.forwards = self.slow_path = self.controller = False
        self.terminal = True
        self.obstacle = Obstacle.NONE


class _Walk:
    """One flow, attribute by attribute; ``looked_at`` has ones where the outcome depends on a bit."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.looked_at = bytearray(len(body))

    def flow(self) -> _Found:
        body, top = self._body, dict[int, _Span]()
        for kind, begin, end in self._attributes(min(_HEADER.size, len(body)), len(body)):
            top[kind] = begin, end
        if _FLOW_KEY not in top:
            raise _unknown("flow")
        identifier = top.get(_FLOW_UFID, top[_FLOW_KEY])
        stats_at, stats_end = top.get(_FLOW_STATS, (0, _COUNTS.size))
        if stats_end - stats_at < _COUNTS.size:
            raise _unknown("flow")
        actions = _Actions()
        if _FLOW_ACTIONS in top:
            self._actions(*top[_FLOW_ACTIONS], actions)
        key: dict[int, _Span] = {}
        vlans: list[_Span] = []
        self._keys(*top[_FLOW_KEY], key, vlans)
        mask: dict[int, _Span] | None = None
        mask_vlans: list[_Span] = []
        if _FLOW_MASK in top:
            mask = {}
            begin, end = top[_FLOW_MASK]
            self._look(begin, end)
            self._keys(begin, end, mask, mask_vlans)
        match = _Match(self, key, mask)
        ethertype = match.value(_Key.ETHERTYPE, _BE16) if _Key.ETHERTYPE in key else None
        proto, hidden, discovery, dhcp = self._layer4(match, ethertype)
        tunnel = _Key.TUNNEL in key
        obstacle = actions.obstacle
        if obstacle is Obstacle.NONE and tunnel and self._nested(key[_Key.TUNNEL]) & _NEVER_DECAPSULATED:
            obstacle = Obstacle.TUNNEL
        if obstacle is Obstacle.NONE and (
            ethertype is None or match.foreign() or self._odd_vlan(vlans, mask_vlans if mask is not None else None)
        ):
            obstacle = Obstacle.MATCH
        shape = Shape(
            protocol=PROTOCOLS.get(proto, Protocol.OTHER),
            hidden=hidden,
            conntrack=actions.conntrack or match.tracked(),
            terminal=actions.terminal,
            ordinary=not (
                ethertype in _ARP or discovery or actions.slow_path or (actions.controller and not actions.forwards)
            ),
            tunnel=tunnel,
            obstacle=obstacle,
        )
        port_at, port_end = key.get(_Key.IN_PORT, (0, 4))
        if port_end - port_at < _U32.size:
            raise _unknown("flow")
        return _Found(shape, *identifier, port_at, stats_at, dhcp)

    def _layer4(self, match: _Match, ethertype: int | None) -> tuple[int, bool, bool, tuple[int, ...]]:
        """Protocol (-1: none, or hidden), whether it is hidden, whether neighbour discovery, where DHCP's ports are."""
        ip, at = _PROTOCOL_AT.get(ethertype or 0, (0, 0))
        if ip not in match.key:
            return -1, False, False, ()
        if match.mask(ip, _BYTE, at) != 0xFF:
            return -1, True, False, ()
        proto = match.value(ip, _BYTE, at)
        discovery, dhcp = False, list[int]()
        if proto == _ICMPV6 and _Key.ICMPV6 in match.key and match.mask(_Key.ICMPV6, _BYTE) == 0xFF:
            discovery = match.value(_Key.ICMPV6, _BYTE) in _DISCOVERY
        elif proto == _UDP and _Key.UDP in match.key:
            begin, end = match.key[_Key.UDP]
            dhcp = [begin + n for n in (0, 2) if begin + n + 2 <= end and match.mask(_Key.UDP, _BE16, n) == 0xFFFF]
        return proto, False, discovery, tuple(dhcp)

    def _keys(self, begin: int, end: int, into: dict[int, _Span], vlans: list[_Span], depth: int = 0) -> None:
        """Attributes of a key or mask; of what is inside a VLAN the innermost."""
        if depth > _DEEPEST:
            raise _unknown("flow")
        inner = None
        for kind, at, to in self._attributes(begin, end):
            if kind == _Key.ENCAP:
                inner = at, to
            elif kind == _Key.VLAN:
                vlans.append((at, to))
            else:
                into[kind] = at, to
        if inner is not None:
            self._keys(*inner, into, vlans, depth + 1)

    def _actions(self, begin: int, end: int, into: _Actions, depth: int = 0) -> None:
        if depth > _DEEPEST:
            raise _unknown("flow")
        for kind, at, to in self._attributes(begin, end):
            if kind not in _IN_TC:
                into.obstacle = Obstacle.ACTION
            if kind in (_Action.OUTPUT, _Action.RECIRC):
                into.forwards = True
                into.terminal = into.terminal and not (kind == _Action.RECIRC and depth == 0)
            elif kind == _Action.CT:
                into.conntrack = True
                if _CT_HELPER in self._nested((at, to)):
                    into.obstacle = Obstacle.ACTION
            elif kind == _Action.USERSPACE:
                self._userspace(at, to, into)
            elif kind in (_Action.SET, _Action.SET_MASKED):
                self._set(at, to, into)
            elif kind == _Action.CLONE:
                self._actions(at, to, into, depth + 1)
            elif kind in _BRANCHES:
                for nested, nested_at, nested_to in self._attributes(at, to):
                    if nested in _BRANCHES[kind]:
                        self._actions(nested_at, nested_to, into, depth + 1)

    def _userspace(self, begin: int, end: int, into: _Actions) -> None:
        for kind, at, to in self._attributes(begin, end):
            if kind == _USERDATA and to - at >= 2:
                cookie = self.number((at, to), _U16, 0)
                into.slow_path = into.slow_path or cookie == _SLOW_PATH
                into.controller = into.controller or cookie == _CONTROLLER

    def _set(self, begin: int, end: int, into: _Actions) -> None:
        for kind, at, to in self._attributes(begin, end):
            if kind not in _SETTABLE:
                into.obstacle = Obstacle.ACTION
            elif kind == _Key.TUNNEL and self._nested((at, to)) & _NEVER_ENCAPSULATED:
                into.obstacle = Obstacle.TUNNEL

    def _odd_vlan(self, vlans: list[_Span], masks: list[_Span] | None) -> bool:
        """Whether a VLAN is matched by other than its whole id, its whole priority, or its absence."""
        for n, span in enumerate(vlans):
            value = self.number(span, _BE16, 0)
            mask = 0xFFFF if masks is None else self.number(masks[n], _BE16, 0) if n < len(masks) else 0
            whole = (mask & 0xFFF) in (0, 0xFFF) and (mask & 0xE000) in (0, 0xE000) and mask & ~0x1000
            there = mask & value & 0x1000
            if mask and not (there and whole) and not (mask == 0xFFFF and value == 0):
                return True
        return False

    def _nested(self, span: _Span) -> set[int]:
        """The types of the attributes in an attribute."""
        return {kind for kind, _, _ in self._attributes(*span)}

    def _attributes(self, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Type, begin and end of each."""
        at, body = begin, self._body
        while at + _ATTRIBUTE.size <= end:
            length, kind = _ATTRIBUTE.unpack_from(body, at)
            if length < _ATTRIBUTE.size or at + length > end:
                raise _unknown("flow")
            self._look(at, at + _ATTRIBUTE.size)
            yield kind & _TYPE, at + _ATTRIBUTE.size, at + length
            at += (length + 3) & ~3
        if at < end:
            raise _unknown("flow")

    def number(self, span: _Span, of: struct.Struct, at: int) -> int:
        """What is there in an attribute."""
        begin = span[0] + at
        if begin + of.size > span[1]:
            raise _unknown("flow")
        self._look(begin, begin + of.size)
        return int(of.unpack_from(self._body, begin)[0])

    def any_bit(self, span: _Span, at: int = 0) -> bool:
        """Whether there is a one in an attribute from there on."""
        self._look(*span)
        return any(self._body[span[0] + at : span[1]])

    def _look(self, begin: int, end: int) -> None:
        self.looked_at[begin:end] = b"\xff" * (end - begin)


class _Match:
    """The key of a flow under its mask; without a mask all of it counts."""

    def __init__(self, walk: _Walk, key: dict[int, _Span], mask: dict[int, _Span] | None) -> None:
        self.key = key
        self._mask = mask
        self._walk = walk

    def value(self, kind: int, of: struct.Struct, at: int = 0) -> int:
        return self._walk.number(self.key[kind], of, at)

    def mask(self, kind: int, of: struct.Struct, at: int = 0) -> int:
        if self._mask is None:
            return int((1 << 8 * of.size) - 1)
        return self._walk.number(self._mask[kind], of, at) if kind in self._mask else 0

    def tracked(self) -> bool:
        """Whether it wants a state that only connection tracking gives."""
        return _Key.CT_STATE in self.key and bool(self.value(_Key.CT_STATE, _U32) & self.mask(_Key.CT_STATE, _U32))

    def foreign(self) -> bool:
        """Whether it looks at something that TC does not know."""
        mask, walk = self._mask, self._walk
        if mask is None:
            return False
        if any(kind in mask and walk.any_bit(mask[kind]) for kind in _NEVER_MATCHED):
            return True
        mark = self.mask(_Key.SKB_MARK, _U32)
        if mark and (mark != 0xFFFFFFFF or _Key.SKB_MARK not in self.key or self.value(_Key.SKB_MARK, _U32)):
            return True
        if self.mask(_Key.CT_STATE, _U32) & _CT_NAT or (_Key.MPLS in mask and walk.any_bit(mask[_Key.MPLS], 4)):
            return True
        if _Key.IPV6 not in self.key:
            return False
        fragment = self.mask(_Key.IPV6, _BYTE, _IPV6_FRAGMENT) and self.value(_Key.IPV6, _BYTE, _IPV6_FRAGMENT)
        return bool(fragment or self.mask(_Key.IPV6, _U32, _IPV6_LABEL))


def _asked(datapath: int, version: int = 1) -> bytes:
    return generic(_GET, struct.pack("=i", datapath), version)


def _name(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "replace")


def _unknown(what: str) -> SourceError:
    return SourceError(Reason.GARBAGE, f"a {what} of the kernel's Open vSwitch is not of the known form")
