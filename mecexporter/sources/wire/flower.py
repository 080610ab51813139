"""Filters of the kernel's traffic control (TC flower), as little of each as is asked here.

Formats: include/uapi/linux/rtnetlink.h, pkt_cls.h, pkt_sched.h, gen_stats.h, tc_act/*.h. Attributes that are not asked
for are passed over.
"""

from __future__ import annotations

import struct
import sys
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mecexporter.errors import Reason, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SKIP_HW, SKIP_SW, IN_HW = 1, 2, 4
"""TCA_CLS_FLAGS_*."""

# struct tcmsg: family, ifindex, handle, parent, info (priority and protocol); and what of it names a filter
_TCMSG, _NAME = 20, slice(4, 20)
_KIND, _OPTIONS, _CHAIN = 1, 2, 11
# TCA_FLOWER_*
_ACT, _FLAGS, _IP_PROTO = 3, 22, 9
_ETH_TYPES = (8, 25, 79)  # without VLAN tags, behind one, behind two; kernels differ in which is the innermost
_UDP_PORTS = ((20, 37), (21, 38))  # source and destination, and their masks
_ICMPV6_TYPE, _ICMPV6_TYPE_MASK = 55, 56
_CT_STATE, _CT_STATE_MASK, _TRACKED = 91, 92, 8
_TUNNEL = frozenset((*range(26, 35), *range(43, 47), *range(80, 86)))  # TCA_FLOWER_KEY_ENC_*
# TCA_ACT_*, and in the options of gact and mirred
_ACT_KIND, _ACT_OPTIONS, _ACT_STATS, _ACT_COOKIE = 1, 2, 4, 6
_TM, _PARMS = 1, 2
# struct tc_gen: index, capab, action; TC_ACT_GOTO_CHAIN; TC_ACT_UNSPEC, OK, RECLASSIFY and PIPE
_VERDICT, _GOTO_CHAIN, _GOES_ON = 8, 2, frozenset({0xFFFFFFFF, 0, 1, 3})
# struct tc_mirred, after tc_gen: TCA_INGRESS_REDIR, TCA_INGRESS_MIRROR
_MIRRED, _MIRRED_SIZE, _TO_INGRESS = 20, 28, frozenset({3, 4})
_TOP_BYTE = 3 if sys.byteorder == "little" else 0
_BASIC, _BASIC_HW, _PKT64 = 1, 7, 8  # TCA_STATS_*

_ARP, _IP, _IPV6 = 0x0806, 0x0800, 0x86DD
_VLANS = frozenset({0x8100, 0x88A8, 0x9100})
_UDP, _ICMPV6 = 17, 58
_DHCP = frozenset(port.to_bytes(2, "big") for port in (67, 68, 546, 547))
_NEIGHBOUR_DISCOVERY = range(133, 138)

_HEADER = struct.Struct("=HH")
_MOST_VARIETIES = 5000


class Traits(NamedTuple):
    """What many filters have in common.

    Attributes:
        flags: TCA_CLS_FLAGS_*.
        protocol: IP's; None where the match leaves it open, -1 where it is not IP.
        ordinary: not ARP, neighbour discovery (ICMPv6 133 to 137) or DHCP.
        conntrack: whether it has a ``ct`` action, or matches a tracked state.
        tunnel: whether it matches a tunnel's header.
        terminal: whether neither another filter nor the host's network stack sees the packet after it.
        to_host: whether it hands packets to the host as if a device had received them (to the ingress of one): so Open
            vSwitch does for its internal ports.
    """

    flags: int
    protocol: int | None
    ordinary: bool
    conntrack: bool
    tunnel: bool
    terminal: bool
    to_host: bool


class Filter(NamedTuple):
    """One filter, as long as it is there.

    Attributes:
        key: names it: device or block, hook, priority, handle, chain, and its actions' cookie (of Open vSwitch: the
            flow's ufid).
        age: hundredths of a second since it was put there, rounded down; None where no action says.
    """

    key: bytes
    traits: Traits
    hw_packets: int
    hw_bytes: int
    sw_packets: int
    sw_bytes: int
    age: int | None


class _Recipe(NamedTuple):
    """Where a message has what.

    Attributes:
        ports: of UDP, where the match is for one.
        numbers: reads bytes and packets, and the same of hardware if ``split``; None without an action.
        age: reads it.
    """

    traits: Traits
    ports: tuple[slice, ...]
    chain: slice
    cookie: slice
    numbers: Callable[[bytes], tuple[int, ...]] | None
    split: bool
    age: Callable[[bytes], tuple[int]] | None


class FlowerReader:
    """Reads filters, each thread with one of its own.

    Thousands of filters differ only in addresses, counters and ages. What was once taken apart is known again by all
    that was looked at then, headers and values, in one step.
    """

    def __init__(self) -> None:
        # Length of a message -> ways of looking at it: what is looked at, and what was seen so far.
        self._looks: dict[int, list[tuple[str, Callable[[bytes], Any], dict[Any, _Recipe]]]] = {}
        self._varieties = 0

    def read(self, body: bytes) -> Filter | None:
        """Of the body of an RTM_NEWTFILTER; None where it is no flower filter (another kind, the head of a priority).

        Counters are those of the first action that bears the flow's cookie. Actions that do not may count for several
        filters (a meter's policer), or not in hardware (act_tunnel_key). Where none does, the last one is taken: mostly
        gact or mirred, which count everywhere. It is always the same, for they differ in bytes (act_vlan).

        Raises:
            SourceError: GARBAGE.
        """
        recipe = self._known(body) or self._learn(body)
        if recipe is None:
            return None
        traits, ports, chain, cookie, numbers, split, age = recipe
        for port in ports:
            if body[port] in _DHCP:
                traits = traits._replace(ordinary=False)
        hw_packets = hw_bytes = sw_packets = sw_bytes = 0
        if numbers is not None and split:
            octets, packets, hw_bytes, hw_packets = numbers(body)
            sw_packets, sw_bytes = max(0, packets - hw_packets), max(0, octets - hw_bytes)
        elif numbers is not None and traits.flags & (IN_HW | SKIP_SW):
            hw_bytes, hw_packets = numbers(body)
        elif numbers is not None:
            sw_bytes, sw_packets = numbers(body)
        key = body[_NAME] + body[chain] + body[cookie]
        return Filter(key, traits, hw_packets, hw_bytes, sw_packets, sw_bytes, None if age is None else age(body)[0])

    def _known(self, body: bytes) -> _Recipe | None:
        looks = self._looks.get(len(body), [])
        for n, (_, look, known) in enumerate(looks):
            recipe = known.get(look(body))
            if recipe is not None:
                if n:
                    looks.insert(0, looks.pop(n))  # the next message is probably alike
                return recipe
        return None

    def _learn(self, body: bytes) -> _Recipe | None:
        message = _Message(body)
        recipe = _recipe(message)
        if recipe is None:
            return None
        if self._varieties >= _MOST_VARIETIES:
            self._looks.clear()
            self._varieties = 0
        self._varieties += 1
        code = message.looked_at()
        looks = self._looks.setdefault(len(body), [])
        for known_code, look, known in looks:
            if known_code == code:
                known[look(body)] = recipe
                break
        else:
            look = struct.Struct(code).unpack_from
            looks.append((code, look, {look(body): recipe}))
        return recipe


class _Message:
    """Attributes of a message; remembers what was looked at."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self._seen = bytearray(len(body))

    def attributes(self, start: int, end: int) -> Iterator[tuple[int, tuple[int, int]]]:
        """Kind of each, and where its value begins and ends."""
        while start < end:
            if start + _HEADER.size > end:
                raise _garbage("ends within an attribute's header")
            length, kind = _HEADER.unpack_from(self.body, start)
            self._see(start, _HEADER.size)
            if length < _HEADER.size or start + length > end:
                raise _garbage("has an attribute that is longer than itself")
            yield kind & 0x3FFF, (start + _HEADER.size, start + length)
            start += (length + 3) & ~3

    def nested(self, where: tuple[int, int]) -> dict[int, tuple[int, int]]:
        return dict(self.attributes(*where))

    def text(self, where: tuple[int, int]) -> bytes:
        self._see(where[0], where[1] - where[0])
        return self.body[slice(*where)].rstrip(b"\0")

    def number(self, where: tuple[int, int], size: int, order: Literal["little", "big"] = sys.byteorder) -> int:
        self.sized(where, size)
        self._see(where[0], size)
        return int.from_bytes(self.body[slice(*where)], order)

    def verdict(self, where: tuple[int, int]) -> int:
        """A struct that begins as tc_gen; of TC_ACT_GOTO_CHAIN without the chain, which many filters differ in."""
        self.sized(where, _VERDICT + 4, or_more=True)
        at = where[0] + _VERDICT
        if self.body[at + _TOP_BYTE] >> 4 == _GOTO_CHAIN:
            self._see(at + _TOP_BYTE, 1)
            return 0
        return self.number((at, at + 4), 4)

    def eaction(self, where: tuple[int, int]) -> int:
        """Of struct tc_mirred: whether it redirects or copies, and to which side of a device."""
        at = self.sized(where, _MIRRED_SIZE, or_more=True)[0] + _MIRRED
        return self.number((at, at + 4), 4)

    def sized(self, where: tuple[int, int], size: int, *, or_more: bool = False) -> tuple[int, int]:
        found = where[1] - where[0]
        if found < size or (found > size and not or_more):
            raise _garbage(f"has an attribute of {found} bytes that should have {size}")
        return where

    def looked_at(self) -> str:
        """A format of the struct module for all of it."""
        runs = ((seen, len(list(run))) for seen, run in groupby(self._seen))
        return "=" + "".join(f"{length}{'s' if seen else 'x'}" for seen, length in runs)

    def _see(self, at: int, size: int) -> None:
        self._seen[at : at + size] = b"\1" * size


def _recipe(message: _Message) -> _Recipe | None:
    if len(message.body) < _TCMSG:
        raise _garbage("is shorter than its fixed part")
    top = message.nested((_TCMSG, len(message.body)))
    if _KIND not in top:
        raise _garbage("has no kind")
    if message.text(top[_KIND]) != b"flower" or _OPTIONS not in top:
        return None
    keys = message.nested(top[_OPTIONS])
    flags = message.number(keys[_FLAGS], 4) if _FLAGS in keys else 0
    actions = [_action(message, where) for _, where in message.attributes(*keys[_ACT])] if _ACT in keys else []
    counting = next((a for a in actions if a.cookie != _NOWHERE), actions[-1] if actions else None)
    split = counting is not None and len(counting.basic) == 4 and not flags & SKIP_SW
    protocol, ordinary, ports = _protocol(message, keys)
    state = [message.number(keys[k], 2) if k in keys else 0 for k in (_CT_STATE, _CT_STATE_MASK)]
    traits = Traits(
        flags=flags,
        protocol=protocol,
        ordinary=ordinary,
        conntrack=bool(state[0] & state[1] & _TRACKED) or any(a.kind == b"ct" for a in actions),
        tunnel=not _TUNNEL.isdisjoint(keys),
        terminal=bool(actions) and actions[-1].ends,
        to_host=any(a.to_host for a in actions),
    )
    return _Recipe(
        traits,
        ports,
        chain=slice(*message.sized(top[_CHAIN], 4)) if _CHAIN in top else slice(0),
        cookie=slice(*(counting.cookie if counting else _NOWHERE)),
        numbers=struct.Struct(counting.format(split=split)).unpack_from if counting else None,
        split=split,
        age=next((struct.Struct(f"={a.age}xQ").unpack_from for a in actions if a.age is not None), None),
    )


def _protocol(message: _Message, keys: dict[int, tuple[int, int]]) -> tuple[int | None, bool, tuple[slice, ...]]:
    """IP's protocol and whether it is ordinary, as in Traits, but for DHCP; and the ports that may be DHCP's."""
    inner = [t for k in _ETH_TYPES if k in keys and (t := message.number(keys[k], 2, "big")) not in _VLANS]
    eth_type = inner[-1] if inner else None
    if eth_type not in (_IP, _IPV6, None):
        return -1, eth_type != _ARP, ()
    if _IP_PROTO not in keys:
        return None, True, ()
    protocol = message.number(keys[_IP_PROTO], 1)
    if protocol == _UDP:
        found = [_exact(message, keys, port, mask, 2) for port, mask in _UDP_PORTS]
        return protocol, True, tuple(slice(*where) for where in found if where)
    icmp = _exact(message, keys, _ICMPV6_TYPE, _ICMPV6_TYPE_MASK, 1) if protocol == _ICMPV6 else None
    return protocol, not icmp or message.number(icmp, 1) not in _NEIGHBOUR_DISCOVERY, ()


def _exact(
    message: _Message, keys: dict[int, tuple[int, int]], key: int, mask: int, size: int
) -> tuple[int, int] | None:
    """Where the value is that is matched, None if it is not one alone."""
    if key not in keys or (mask in keys and message.number(keys[mask], size) != (1 << 8 * size) - 1):
        return None
    return message.sized(keys[key], size)


_NOWHERE = (0, 0)


class _Action(NamedTuple):
    """One action: where it has what.

    Attributes:
        basic: bytes and packets; the format of the latter ('I', or 'Q' of TCA_STATS_PKT64) comes with their place.
        ends: whether nothing comes after it.
        to_host: as in Traits.
    """

    kind: bytes
    cookie: tuple[int, int]
    basic: tuple[tuple[str, int], ...]
    age: int | None
    ends: bool
    to_host: bool

    def format(self, *, split: bool) -> str:
        """Of the struct module, for the numbers that are wanted."""
        out, at = "=", 0
        for code, where in self.basic if split else self.basic[:2]:
            out += f"{where - at}x{code}"
            at = where + struct.calcsize(f"={code}")
        return out


def _action(message: _Message, where: tuple[int, int]) -> _Action:
    parts = message.nested(where)
    if _ACT_KIND not in parts or _ACT_STATS not in parts:
        raise _garbage("has an action without a kind or statistics")
    kind = message.text(parts[_ACT_KIND])
    age, ends, to_host = None, True, False
    if kind in (b"gact", b"mirred") and _ACT_OPTIONS in parts:
        options = message.nested(parts[_ACT_OPTIONS])
        if _TM in options:
            age = message.sized(options[_TM], 8, or_more=True)[0]
        if _PARMS in options:
            ends = message.verdict(options[_PARMS]) not in _GOES_ON
            to_host = kind == b"mirred" and message.eaction(options[_PARMS]) in _TO_INGRESS
    return _Action(kind, parts.get(_ACT_COOKIE, _NOWHERE), _basic(message, parts[_ACT_STATS]), age, ends, to_host)


def _basic(message: _Message, where: tuple[int, int]) -> tuple[tuple[str, int], ...]:
    """Each TCA_STATS_PKT64 belongs to the basic before it: there may be two."""
    found: dict[int, tuple[tuple[str, int], ...]] = {}
    last = 0
    for kind, value in message.attributes(*where):
        if kind in (_BASIC, _BASIC_HW):  # struct gnet_stats_basic: u64 bytes, u32 packets
            at, _ = message.sized(value, 12, or_more=True)
            if kind in found:
                raise _garbage("has an action that counts twice")
            found[kind] = (("Q", at), ("I", at + 8))
            last = kind
        elif kind == _PKT64:
            if not last:
                raise _garbage("has 64 bits of packets of nothing")
            found[last] = (found[last][0], ("Q", message.sized(value, 8)[0]))
    if next(iter(found), None) != _BASIC:
        raise _garbage("has an action that does not count")
    return (*found[_BASIC], *found.get(_BASIC_HW, ()))


def _garbage(what: str) -> SourceError:
    return SourceError(Reason.GARBAGE, f"a TC filter's message {what}")
