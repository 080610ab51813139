"""The kernel's connection tracking: how full it is, what of it is offloaded, and GRE in it.

How full it is everybody may read (``/proc/sys/net/netfilter``). Entries are netlink's (ctnetlink), and need
CAP_NET_ADMIN. The kernel is asked for those in a flow table, and for those of protocol 47, so that few of them are
copied: it filters by status since Linux 5.18, by protocol since 5.8, and ignores a filter that it does not know.

Formats: include/uapi/linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_common.h.
"""

from __future__ import annotations

import logging
import socket
import struct
import time
from dataclasses import replace
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from mecexporter.aside import OneAtATime
from mecexporter.errors import Reason, SourceError
from mecexporter.sources.base import Source
from mecexporter.sources.flow_counters import FlowCounters
from mecexporter.sources.wire.files import read_small
from mecexporter.sources.wire.netlink import Netlink, attribute, attributes
from mecexporter.state.datapath import Conntrack, Counted, FlowClass, Gre, Layer, Path, Protocol
from mecexporter.state.world import Role

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Iterator, Mapping

    from mecexporter.sources.flow_counters import Tally
    from mecexporter.state.world import World

T = TypeVar("T")
log = logging.getLogger(__name__)

MOST_ENTRIES = 200_000
"""Entries in a flow table, or of GRE, that are counted one by one."""
SMALL = 20_000
"""Entries of a table that is read whole where the kernel does not filter."""

_NETFILTER = 12
_GET = 1 << 8 | 1  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
_NFGENMSG = struct.Struct("=BBH")  # family, version, resource
_BY_FAMILY = (socket.AF_INET, socket.AF_INET6)  # by protocol the kernel filters one at a time only
_ORIGINAL, _STATUS, _COUNTERS, _ID, _FILTER, _STATUS_MASK = 1, 3, (9, 10), 12, 25, 26
_TUPLE_PROTO, _PROTO_NUM, _FILTER_ORIGINAL, _BY_PROTO_NUM = 2, 1, 1, 1 << 3
_NESTED = 0x8000  # NLA_F_NESTED: the kernel refuses a filter without it
_OFFLOAD, _HW_OFFLOAD = 1 << 14, 1 << 15  # IPS_OFFLOAD: in a flow table; IPS_HW_OFFLOAD: in the NIC's too
_GRE = 47
_BE32, _BE64 = struct.Struct(">I"), struct.Struct(">Q")
_STRAYS = 16  # entries that changed while the kernel looked at them
_BYTES, _SECONDS = 128 << 20, 2.0
_SHARE = 0.001  # of one core
_LONGEST_PAUSE = 900.0


class ConntrackSource(Source[Conntrack]):
    """Reads how full it is each time, and the entries that matter, the more seldom the more they cost.

    Between two reads of the entries the last ones are told; where they are not told, the numbers are.

    Args:
        proc: the root of procfs.
        sysfs: the root of sysfs.
        interval: seconds between reads, and between those of the entries as long as these are cheap.
    """

    name = "conntrack"
    roles = frozenset({Role.COMPUTE})

    def __init__(self, proc: pathlib.Path, sysfs: pathlib.Path, interval: float) -> None:
        self.interval = interval
        self._net = proc / "sys/net"
        self._modules = sysfs / "module"
        self._reads: OneAtATime[Conntrack] = OneAtATime("of the connection tracking table")
        self._counters = FlowCounters()
        self._last: Conntrack | None = None
        self._due = 0.0
        self._said: dict[str, str] = {}

    async def read(self, world: World) -> Conntrack:  # noqa: ARG002  # asks the same whatever the World
        """Raises SourceError where there is no procfs."""
        return await self._reads.call(self._read)

    def _read(self) -> Conntrack:
        """The share of a core stays small: for the entries the kernel walks through the whole table."""
        entries = self._number("nf_conntrack_count")
        if self._last is not None and entries is not None and time.monotonic() < self._due:
            return replace(self._last, entries=entries, limit=self._limit())
        began, self._last = time.thread_time(), None
        self._last = self._all()
        self._due = time.monotonic() + min((time.thread_time() - began) / _SHARE, _LONGEST_PAUSE)
        return self._last

    def _all(self) -> Conntrack:
        if not (self._net / "core").exists():
            raise SourceError(Reason.MISSING, f"no {self._net}/core: no procfs, or not this one")
        entries = self._number("nf_conntrack_count")
        if entries is None:  # the kernel tracks nothing
            return Conntrack(entries=0, limit=None, offloaded=None, gre=None)
        limit, whole, now = self._limit(), entries <= SMALL, time.monotonic()
        if not self._loaded():
            return Conntrack(entries=entries, limit=limit)
        offloaded = self._unless_refused("offloaded", lambda: _offloaded(whole=whole))
        gre = self._unless_refused("GRE", lambda: self._gre(whole=whole))
        return Conntrack(entries=entries, limit=limit, offloaded=offloaded, gre=gre, looked_at=now)

    def _loaded(self) -> bool:
        """Whether ctnetlink is there; a question to it would make the kernel load it."""
        module = (self._modules / "nf_conntrack/initstate").exists()
        return not module or (self._modules / "nf_conntrack_netlink").exists()

    def _limit(self) -> int | None:
        return self._number("nf_conntrack_max") or None  # 0: as many as there may come

    def _number(self, name: str) -> int | None:
        try:
            return int(read_small(self._net / "netfilter" / name, 64))
        except ValueError:
            raise SourceError(Reason.GARBAGE, f"{self._net}/netfilter/{name} holds no number") from None
        except SourceError as error:
            if error.reason is Reason.MISSING:
                return None
            raise

    def _unless_refused(self, what: str, ask: Callable[[], T]) -> T | None:
        """None, and why in the log, where entries can't be had."""
        try:
            found = ask()
        except SourceError as error:
            if error.reason is Reason.GARBAGE:
                raise
            if self._said.get(what) != error.why:
                log.info("entries of connection tracking are not counted", extra={"what": what, "why": error.why})
            self._said[what] = error.why
            return None
        self._said.pop(what, None)
        return found

    def _gre(self, *, whole: bool) -> Gre:
        entries = dict.fromkeys(_TALLIED, 0)
        tallies = {path: self._counters.tally(of) for path, of in _TALLIED.items()}
        counts = self._number("nf_conntrack_acct") == 1

        def counted() -> Iterator[tuple[bytes, Tally, int, int, None]]:
            nonlocal counts
            proto = attribute(_TUPLE_PROTO | _NESTED, attribute(_PROTO_NUM, bytes((_GRE,))))
            by = attribute(_FILTER | _NESTED, attribute(_FILTER_ORIGINAL, struct.pack("=I", _BY_PROTO_NUM)))
            asked = attribute(_ORIGINAL | _NESTED, proto) + by
            for body in chain(*(_entries(asked, _is_gre, whole=whole, family=family) for family in _BY_FAMILY)):
                told = dict(attributes(body[_NFGENMSG.size :]))
                path = Path.HARDWARE if _status(body) & _HW_OFFLOAD else Path.SOFTWARE
                entries[path] += 1
                sums = [_counts(told[way]) for way in _COUNTERS if way in told]
                counts = counts and len(sums) == len(_COUNTERS)
                packets, octets = (sum(column) for column in zip(*sums, strict=True)) if sums else (0, 0)
                # An entry that ended and came again may bear the same id: the kernel makes it of where the entry lies.
                yield told.get(_ID, b"") + told[_ORIGINAL], tallies[path], packets, octets, None

        table = self._counters.count(counted(), time.monotonic())
        software = _TALLIED[Path.SOFTWARE]
        return Gre(
            entries=MappingProxyType(entries),
            software=table.totals.get(software, Counted()) if counts else None,
            window=table.window.get(software, Counted()) if counts and table.seconds is not None else None,
            seconds=table.seconds,
        )


_TALLIED = {
    path: FlowClass(path=path, protocol=Protocol.GRE, conntrack=True, layer=Layer.KERNEL)
    for path in (Path.HARDWARE, Path.SOFTWARE)
}


def _offloaded(*, whole: bool) -> Mapping[Path, int]:
    found = {Path.HARDWARE: 0, Path.SOFTWARE: 0}
    bit = _BE32.pack(_OFFLOAD)
    for body in _entries(attribute(_STATUS, bit) + attribute(_STATUS_MASK, bit), _is_offloaded, whole=whole):
        found[Path.HARDWARE if _status(body) & _HW_OFFLOAD else Path.SOFTWARE] += 1
    return MappingProxyType(found)


def _entries(
    asked: bytes, fits: Callable[[bytes], bool], *, whole: bool, family: int = socket.AF_UNSPEC
) -> Iterator[bytes]:
    """The entries that fit; what the kernel sends besides shows that it does not filter.

    Args:
        asked: the filter.
        fits: whether an entry passes it.
        whole: whether the table is small enough to be read unfiltered.
        family: of addresses; AF_UNSPEC for all.

    Raises:
        SourceError: PERMISSION; TOO_LARGE where there are too many, or too many would have to be passed over.
    """
    count = strays = 0
    with Netlink(_NETFILTER) as netfilter:
        question = _NFGENMSG.pack(family, 0, 0) + asked
        for body in netfilter.stream(_GET, question, limit=_BYTES, seconds=_SECONDS):
            if fits(body):
                count += 1
                yield body
            else:
                strays += 1
            if count > MOST_ENTRIES or (strays > _STRAYS and not whole):
                why = "this kernel does not filter them" if strays > _STRAYS else f"there are more than {MOST_ENTRIES}"
                raise SourceError(Reason.TOO_LARGE, f"entries of connection tracking: {why}")


def _is_offloaded(body: bytes) -> bool:
    return bool(_status(body) & _OFFLOAD)


def _is_gre(body: bytes) -> bool:
    for kind, value in attributes(body[_NFGENMSG.size :]):
        if kind == _ORIGINAL:
            proto = dict(attributes(dict(attributes(value)).get(_TUPLE_PROTO, b"")))
            return proto.get(_PROTO_NUM) == bytes((_GRE,))
    return False


def _status(body: bytes) -> int:
    for kind, value in attributes(body[_NFGENMSG.size :]):
        if kind == _STATUS and len(value) == _BE32.size:
            return int(_BE32.unpack(value)[0])
    raise SourceError(Reason.GARBAGE, "an entry of connection tracking without a status")


def _counts(counters: bytes) -> tuple[int, int]:
    """Packets and bytes (enum ctattr_counters)."""
    told = dict(attributes(counters))
    try:
        return _BE64.unpack(told[1])[0], _BE64.unpack(told[2])[0]
    except (KeyError, struct.error):
        raise SourceError(Reason.GARBAGE, "an entry of connection tracking with half a counter") from None
