"""What passed each network device, and the part of it that came to the CPU: RTM_GETSTATS, one dump of all devices.

Formats: include/uapi/linux/if_link.h, if_stats_msg and rtnl_link_stats64.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.wire.netlink import attributes
from mecexporter.state.ovs import Counters

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from mecexporter.sources.wire.netlink import Netlink

_RTM_GETSTATS = 94
_MESSAGE = struct.Struct("=BxxxII")  # if_stats_msg: family, index, filter_mask
_LINK_64, _OFFLOAD_XSTATS, _CPU_HIT = 1, 4, 1
_MASK = 1 << (_LINK_64 - 1) | 1 << (_OFFLOAD_XSTATS - 1)
_STATS = struct.Struct("=8Q56xQ")  # rtnl_link_stats64 down to rx_dropped, tx_dropped, and rx_missed_errors


class Passed(NamedTuple):
    """What passed a device, and what of it the CPU handled; None where its driver does not tell."""

    all: Counters
    cpu: Counters | None


def statistics(route: Netlink, indexes: Collection[int]) -> dict[int, Passed]:
    """By index, of these devices as far as there are such.

    Raises:
        SourceError: as :meth:`Netlink.ask`; GARBAGE where a device's counters are not of the known form.
    """
    return passed(route.ask(_RTM_GETSTATS, _MESSAGE.pack(0, 0, _MASK), dump=True), indexes)


def passed(messages: Iterable[bytes], indexes: Collection[int]) -> dict[int, Passed]:
    """The same of the bodies of RTM_NEWSTATS messages."""
    found: dict[int, Passed] = {}
    for message in messages:
        if len(message) < _MESSAGE.size:
            raise SourceError(Reason.GARBAGE, f"a link's statistics of {len(message)} bytes")
        _, index, _ = _MESSAGE.unpack_from(message)
        if index in indexes:
            every, cpu = None, None
            for kind, value in attributes(message, _MESSAGE.size):
                if kind == _LINK_64:
                    every = _counters(value)
                elif kind == _OFFLOAD_XSTATS:
                    cpu = next((_counters(hit) for nested, hit in attributes(value) if nested == _CPU_HIT), None)
            if every is not None:
                found[index] = Passed(every, cpu)
    return found


def _counters(value: bytes) -> Counters:
    """What a device missed for lack of buffers counts as dropped, as in /proc/net/dev."""
    if len(value) < _STATS.size:
        raise SourceError(Reason.GARBAGE, f"a link's counters of {len(value)} bytes")
    rp, tp, rb, tb, re, te, rd, td, missed = _STATS.unpack_from(value)
    return Counters(rp, tp, rb, tb, re, te, rd + missed, td)


class Hits:
    """Keeps what is left for hardware from falling.

    A driver may tell the two counts of different moments: all as it last asked its hardware, the CPU's as it is now.
    """

    def __init__(self) -> None:
        self._known: dict[int, list[_Split]] = {}

    def settle(self, now: Mapping[int, Passed]) -> dict[int, Counters]:
        """The CPU's part of what passed, by index: never more than all of it, and all less it never falls.

        A device that begins to count anew begins anew here. Errors and drops are not divided.
        """
        self._known = {
            index: [
                split.next(getattr(every, name), getattr(cpu, name))
                for name, split in zip(_CARRIED, self._known.get(index, _UNKNOWN), strict=True)
            ]
            for index, (every, cpu) in now.items()
            if cpu is not None
        }
        return {
            index: now[index].all._replace(**{n: s.all - s.hardware for n, s in zip(_CARRIED, splits, strict=True)})
            for index, splits in self._known.items()
        }


class _Split(NamedTuple):
    """One counter of a device as told last, and what of it was hardware's."""

    all: int = 0
    cpu: int = 0
    before: int = 0  # what the CPU's counter had reached each time it began anew while all went on
    hardware: int = 0

    def next(self, every: int, cpu: int) -> _Split:
        if every < self.all:
            return _Split(every, cpu, 0, max(0, every - cpu))
        before = self.before + (self.cpu if cpu < self.cpu else 0)
        return _Split(every, cpu, before, max(self.hardware, every - before - cpu))


_CARRIED = ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes")
_UNKNOWN = [_Split()] * len(_CARRIED)
