"""Flows of the kernel's traffic control (TC flower): in hardware and in software, and what each carried."""

from __future__ import annotations

import math
import socket
import struct
import time
from collections import Counter
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from mecexporter.aside import OneAtATime
from mecexporter.errors import Reason, SourceError
from mecexporter.sources.base import Source
from mecexporter.sources.flow_counters import FlowCounters
from mecexporter.sources.wire.flower import IN_HW, SKIP_HW, SKIP_SW, FlowerReader
from mecexporter.sources.wire.netlink import NETLINK_ROUTE, Netlink, attributes
from mecexporter.state.datapath import (
    PROTOCOLS,
    FlowClass,
    FlowTable,
    Layer,
    Obstacle,
    Path,
    PortKind,
    Protocol,
)
from mecexporter.state.observed import Fresh
from mecexporter.state.ports import port_kinds
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mecexporter.sources.flow_counters import Tally
    from mecexporter.sources.wire.flower import Traits
    from mecexporter.state.world import World

# include/uapi/linux/rtnetlink.h, pkt_sched.h
_RTM_GETQDISC, _RTM_GETTFILTER = 38, 46
_TCMSG = struct.Struct("=BxxxiIII")  # family, ifindex, handle, parent, info
_KIND, _INGRESS_BLOCK, _EGRESS_BLOCK = 1, 13, 14
_INGRESS, _EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
_HOOKS = {b"ingress\0": (_INGRESS,), b"clsact\0": (_INGRESS, _EGRESS)}
_BLOCK = -1  # TCM_IFINDEX_MAGIC_BLOCK: in place of a device, and the block's number in place of a hook

_GRE = 47

_MOST_FILTERS, _MOST_BYTES, _LONGEST_READ = 200_000, 256 << 20, 4.0
_SHARE, _LONGEST_PAUSE = 0.002, 300.0  # of a core; seconds
_JIFFIES, _DRIFT = 0.05, 0.001  # seconds by which an age may be wrong, and the same for each second


class TcSource(Source[FlowTable]):
    """Asks for the filters of every device with a qdisc ``ingress`` or ``clsact``, whoever made them.

    Open vSwitch hangs filters on the ingress hook of its ports, on the egress hook of its internal ones, and on a block
    that the members of a bond share. The process' own network namespace is looked at, which is that of Open vSwitch.

    Args:
        interval: seconds between reads; longer while there are more filters than a five-hundredth of a core can read.
    """

    name = "tc"
    roles = frozenset({Role.COMPUTE})
    needs = ("sysfs",)

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._reads: OneAtATime[FlowTable] = OneAtATime("the kernel's list of filters does not end")
        self._table = _Table()

    def pause(self, value: FlowTable) -> float:
        """Seconds to the next read; the second, before which nothing can be judged, comes soon whatever it costs."""
        if value.seconds is None:
            return self.interval
        return max(self.interval, min(self._table.cpu_seconds / _SHARE, _LONGEST_PAUSE))

    @property
    def lifetime(self) -> float:
        """Three of the intervals that are kept now."""
        return max(super().lifetime, min(3 * self._table.cpu_seconds / _SHARE, 3 * _LONGEST_PAUSE))

    async def read(self, world: World) -> FlowTable:
        """Raises SourceError, TOO_LARGE where there are too many filters, and where representors are not known."""
        if not isinstance(world.sysfs, Fresh):
            raise SourceError(Reason.MISSING, f"which devices are representors is not known: {world.sysfs.why}")
        return await self._reads.call(self._table.read, port_kinds(world))


class _Hook(NamedTuple):
    """Where filters hang: ifindex and parent as tcmsg has them."""

    device: int
    parent: int
    name: str
    kind: PortKind


class _Table:
    """What is remembered from read to read; for one thread at a time."""

    def __init__(self) -> None:
        self.cpu_seconds = 0.0
        # A priority that goes makes a dump that is under way pass over another one.
        self._counters = FlowCounters(patient=True)
        self._reader = FlowerReader()
        self._tallies: dict[tuple[Traits, PortKind, str], tuple[Tally, Tally]] = {}
        self._ended: float | None = None
        # When the last two whole reads began. What is remembered was seen since then, for one of them may leave it out.
        self._began: tuple[float, float] | None = None

    def read(self, kinds: Mapping[str, PortKind]) -> FlowTable:
        began, cpu = time.monotonic(), time.thread_time()
        beside: Counter[Tally] = Counter()
        try:
            with Netlink(NETLINK_ROUTE) as route:
                dumps = _Dumps(route, began + _LONGEST_READ)
                hooks = _hooks(dumps, kinds)
                table = self._counters.count(self._flows(dumps, hooks, began, beside), began)
            self._began = self._began[1] if self._began else -math.inf, began
        finally:
            self._ended, self.cpu_seconds = time.monotonic(), time.thread_time() - cpu
        no_flows = {tally.flow_class: number for tally, number in beside.items()}
        flows = {c: n for c, all_ in table.flows.items() if (n := all_ - no_flows.get(c, 0)) > 0}
        young = {c: min(n, flows[c]) for c, n in table.young.items() if c in flows}
        return replace(table, flows=MappingProxyType(flows), young=MappingProxyType(young))

    def _flows(
        self, dumps: _Dumps, hooks: list[_Hook], began: float, beside: Counter[Tally]
    ) -> Iterator[tuple[bytes, Tally, int, int, bool | None]]:
        """For :meth:`FlowCounters.count`: of a filter what hardware carried and what the CPU did, if it did.

        ``beside`` counts those of them that are not a flow of their own.
        """
        # Ages in hundredths of a second: of one that began since the last read, of one that was there before.
        younger, older = 0.0, math.inf
        if self._ended is not None:
            younger = 100 * ((began - self._ended) * (1 - _DRIFT) - _JIFFIES)
        if self._began is not None:
            older = 100 * ((began + _LONGEST_READ - self._began[0]) * (1 + _DRIFT) + _JIFFIES)
        found = 0
        for hook in hooks:
            tallies: dict[Traits, tuple[Tally, Tally]] = {}
            request = _TCMSG.pack(socket.AF_UNSPEC, hook.device, 0, hook.parent, 0)
            for body in dumps.of(_RTM_GETTFILTER, request):
                found += 1
                if found > _MOST_FILTERS:
                    raise SourceError(Reason.TOO_LARGE, f"more than {_MOST_FILTERS:,} filters in TC: they are not read")
                one = self._reader.read(body)
                if one is None:
                    continue
                key, traits, hw_packets, hw_bytes, sw_packets, sw_bytes, age = one
                in_hardware = traits.flags & (IN_HW | SKIP_SW)
                since = None if age is None or younger <= age <= older else age < younger
                pair = tallies.get(traits)
                if pair is None:
                    pair = tallies[traits] = self._of(traits, hook)
                hardware, software = pair
                if in_hardware or hw_packets:
                    yield key + b"h", hardware, hw_packets, hw_bytes, since
                    if not in_hardware:  # any more
                        beside[hardware] += 1
                if not in_hardware or sw_packets:
                    yield key + b"s", software, sw_packets, sw_bytes, since
                    if in_hardware:
                        beside[software] += 1

    def _of(self, traits: Traits, hook: _Hook) -> tuple[Tally, Tally]:
        port = hook.name if traits.protocol == _GRE and traits.conntrack else ""
        kind = PortKind.TUNNEL if traits.tunnel else hook.kind
        found = self._tallies.get((traits, kind, port))
        if found is None:
            hardware, software = map(self._counters.tally, _classes(traits, kind, port))
            found = self._tallies[traits, kind, port] = hardware, software
        return found


class _Dumps:
    """Dumps of the kernel's, all of them in one time."""

    def __init__(self, route: Netlink, until: float) -> None:
        self._route = route
        self._until = until

    def of(self, kind: int, request: bytes) -> Iterator[bytes]:
        """The bodies; those of a dump that was disturbed are followed by those of a second one.

        Nothing of a device that is gone, and its filters with it.
        """
        for _ in range(2):
            try:
                yield from self._route.stream(kind, request, limit=_MOST_BYTES, seconds=self._until - time.monotonic())
            except SourceError as error:
                if error.reason is Reason.MISSING:
                    return
                raise
            if not self._route.interrupted:
                return
        raise SourceError(Reason.STALE, "filters came and went while they were read, twice")


def _hooks(dumps: _Dumps, kinds: Mapping[str, PortKind]) -> list[_Hook]:
    """Each once, though several devices may share it."""
    members: dict[tuple[int, int], set[str]] = {}
    for body in dumps.of(_RTM_GETQDISC, _TCMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        told = dict(attributes(body[_TCMSG.size :]))
        hooks = _HOOKS.get(told.get(_KIND, b""))
        if hooks is None:
            continue
        index = _TCMSG.unpack_from(body)[1]
        try:
            name = socket.if_indextoname(index)
        except OSError:  # it is gone
            continue
        for hook, block in zip(hooks, (_INGRESS_BLOCK, _EGRESS_BLOCK), strict=False):
            shared = told.get(block, b"")
            where = (_BLOCK, struct.unpack("=I", shared)[0]) if len(shared) == 4 else (index, hook)
            members.setdefault(where, set()).add(name)
    return [_Hook(*where, ",".join(sorted(names)), _kind(where, names, kinds)) for where, names in members.items()]


def _kind(where: tuple[int, int], names: set[str], kinds: Mapping[str, PortKind]) -> PortKind:
    if where[1] == _EGRESS and where[0] != _BLOCK:
        return PortKind.INTERNAL
    found = {kinds[name] for name in names if name in kinds}
    return found.pop() if len(found) == 1 else PortKind.OTHER


def _classes(traits: Traits, kind: PortKind, port: str) -> tuple[FlowClass, FlowClass]:
    """Of what hardware carries, and of what the CPU does."""
    hardware = FlowClass(
        path=Path.HARDWARE,
        protocol=PROTOCOLS.get(-1 if traits.protocol is None else traits.protocol, Protocol.OTHER),
        conntrack=traits.conntrack,
        layer=Layer.TC,
        port_kind=kind,
        terminal=traits.terminal,
        ordinary=traits.ordinary,
        hidden=traits.protocol is None,
    )
    obstacle = Obstacle.NONE
    if traits.flags & (IN_HW | SKIP_SW):
        obstacle = Obstacle.MISSED
    elif traits.flags & SKIP_HW:
        obstacle = Obstacle.SKIP_HW
    if traits.to_host and obstacle is not Obstacle.MISSED:  # most NICs can't, and what for
        kind, port = PortKind.INTERNAL, ""
    return hardware, replace(hardware, path=Path.SOFTWARE, obstacle=obstacle, port_kind=kind, port=port)
