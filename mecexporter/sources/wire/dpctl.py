"""The text in which ovs-vswitchd shows a datapath's flows (ovs-dpctl(8), ``dump-flows -m``), OVS 2.15 to 4.0.

One line a flow, here as it is for a user-space datapath; what its threads forward comes under a title for each::

    flow-dump from pmd on cpu core: 2
    ufid:…, skb_priority(0/0),…ct_state(0x21/0x23),…recirc_id(0x1),…in_port(p1),…,eth_type(0x0800),
    ipv4(…proto=47,…), packets:1, bytes:34, used:1.169s, offloaded:yes, dp:dpdk, actions:ct(zone=5),recirc(0x2)

It is searched as it is, never split: two microseconds a line, and no copy of it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.wire.ovs_netlink import Shape
from mecexporter.state.datapath import PROTOCOLS, Path, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

_TITLE = re.compile(rb"flow-dump from (?:the main thread|pmd on cpu core: (\d+)):?")
_UFID = len("ufid:00000000-0000-0000-0000-000000000000")
_PATHS = {b"": Path.SOFTWARE, b"yes": Path.HARDWARE, b"partial": Path.PARTIAL}
_MASKED = re.compile(rb"(0x[0-9a-f]+|\d+)(?:/(0x[0-9a-f]+|\d+))?")
_VLANS = (b"0x8100)", b"0x88a8)")
_ARP = (b"0x0806)", b"0x8035)")
_TO_LOOK_AT = (b"17,", b"58,")
_EXTRAORDINARY = re.compile(  # DHCP, and neighbour discovery (RFC 4861), matched as such
    rb"udp\((?:src=(?:67|68|546|547),|src=[^,]*,dst=(?:67|68|546|547)\))|icmpv6\(type=13[3-7],"
)
_TRACKS, _GOES_ON, _SLOW, _CONTROLLER, _FORWARDS = 1, 2, 4, 8, 16
_INNERMOST = re.compile(rb"\([^()]*\)")
_CT = re.compile(rb"(?:^|[(,])ct(?![\w])")
_STAY = frozenset(
    {b"userspace", b"set", b"ct", b"ct_clear", b"meter", b"hash", b"trunc", b"drop"}
    | {b"%b_%b" % (do, what) for do in (b"push", b"pop") for what in (b"vlan", b"mpls", b"eth", b"nsh")}
)
"""Actions after which the packet is still there; any other name is a port, or leads to one."""
_ON = frozenset({b"recirc", b"tnl_pop"})
"""Actions after which another flow counts the packet."""
_MOST_KEPT = 4096
_Signs = tuple[bytes, bytes, bool, bytes, bytes, int]


def flows(text: bytes) -> Iterator[tuple[bytes, Shape, bytes, int, int]]:
    """Identifier, shape, name of the input port, packets and bytes of each flow.

    Raises:
        SourceError: GARBAGE at the first line that is none of the known ones.
    """
    find, size = text.find, len(text)
    shapes: dict[_Signs, Shape] = {}
    acts: dict[bytes, int] = {}
    at, thread = 0, b""
    while at < size:
        end = find(b"\n", at)
        if end < 0:
            raise _unknown(text[at:])
        if text[at : at + 5] != b"ufid:":
            thread, at = _title(text[at:end]), end + 1
            continue
        head = at + _UFID
        # Each is looked for from the one before it: that is what makes it quick. Where one is missing (-1), so are all
        # that are looked for from there.
        state, port = find(b"ct_state(", head, end), find(b"in_port(", head, end)
        ether = find(b"eth_type(", port if port > 0 else head, end)
        kind = text[ether + 9 : ether + 16] if ether > 0 else b""
        packets = find(b", packets:", ether if ether > 0 else head, end)
        if kind in _VLANS:
            ether = text.rfind(b"eth_type(", ether, packets)
            kind = text[ether + 9 : ether + 16]
        proto = find(b"proto=", ether, packets) if ether > 0 else -1
        octets = find(b", bytes:", packets, end)
        used = find(b", used:", octets, end)
        does = find(b", actions:", used, end)
        if does < 0:
            raise _unknown(text[at:end])
        offloaded = find(b"offloaded:", used, does)
        action = text[does:end]
        seen = acts.get(action)
        if seen is None:
            if len(acts) >= _MOST_KEPT:
                acts.clear()
            seen = acts[action] = _seen(action)
        number = text[proto + 6 : proto + 15] if proto > 0 else b""
        signs = (
            kind,
            number,
            number[:3] in _TO_LOOK_AT and _EXTRAORDINARY.search(text, proto, packets) is not None,
            text[state + 9 : find(b")", state, end)] if state > 0 else b"0",
            text[offloaded + 10 : does] if offloaded > 0 else b"",
            seen,
        )
        shape = shapes.get(signs)
        count, length = text[packets + 10 : octets], text[octets + 8 : used]
        if shape is None:
            try:
                shape = shapes[signs] = _shape(*signs)
            except (KeyError, ValueError):
                raise _unknown(text[at:end]) from None
        if not (count.isdigit() and length.isdigit()):
            raise _unknown(text[at:end])
        name = text[port + 8 : find(b")", port, end)] if port > 0 else b""
        yield text[at + 5 : head] + thread, shape, name, int(count), int(length)
        at = end + 1


def _title(line: bytes) -> bytes:
    """What tells the flows of a thread from those of another, which may bear the same name."""
    title = _TITLE.fullmatch(line)
    if title is None:
        raise _unknown(line)
    return title[1] or b""


def _shape(ether: bytes, proto: bytes, extraordinary: bool, state: bytes, offloaded: bytes, seen: int) -> Shape:  # noqa: PLR0917  # the signs, in their order
    """Raises KeyError and ValueError at what is not known."""
    hidden, number = False, -1
    if proto:
        number, mask = _numbers(proto.partition(b",")[0])
        hidden = mask not in (None, 0xFF) or not ether.endswith(b")")
    track, mask = _numbers(state)
    control = bool(seen & _SLOW) or (bool(seen & _CONTROLLER) and not seen & _FORWARDS)
    return Shape(
        protocol=Protocol.OTHER if hidden else PROTOCOLS.get(number, Protocol.OTHER),
        hidden=hidden,
        conntrack=bool(seen & _TRACKS) or bool(track & (-1 if mask is None else mask)),
        terminal=not seen & _GOES_ON,
        ordinary=not (ether in _ARP or extraordinary or control),
        tunnel=False,
        path=_PATHS[offloaded.partition(b",")[0]],
    )


def _numbers(text: bytes) -> tuple[int, int | None]:
    """Value and mask, None where there is none."""
    found = _MASKED.fullmatch(text)
    if found is None:
        raise ValueError(text)
    return int(found[1], 0), None if found[2] is None else int(found[2], 0)


def _seen(actions: bytes) -> int:
    """Flags of what is in a list of actions."""
    actions = actions.partition(b":")[2].partition(b", dp-extra-info:")[0]
    seen = (_TRACKS if _CT.search(actions) else 0) | (_SLOW if b"slow_path(" in actions else 0)
    seen |= _CONTROLLER if b"controller(" in actions else 0
    while (outside := _INNERMOST.sub(b"", actions)) != actions:
        actions = outside
    names = set(actions.split(b","))
    return seen | (_GOES_ON if names & _ON else 0) | (_FORWARDS if names - _STAY else 0)


def _unknown(line: bytes) -> SourceError:
    return SourceError(Reason.GARBAGE, f"dpctl/dump-flows: a line of no known form: {line!r:.100}")
