"""Counters that never run backwards, made of flows that come and go."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from mecexporter.state.datapath import Counted, FlowTable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mecexporter.state.datapath import FlowClass

YOUNG = 10.0
"""Seconds for which a flow may be on its way into hardware (contract)."""

_WORD = 1 << 32
_PACKETS = (1 << 64) - 1
_GENERATIONS = 256
_MOST_REMEMBERED = 500_000  # flows: two reads of the 200,000 that sources read at most, and some
_LEAST_BYTES = 20  # of a packet that a flow counts: an IPv4 header


class Tally:
    """The sums of one class; made by :meth:`FlowCounters.tally`, filled by :meth:`FlowCounters.count`."""

    __slots__ = ("bytes", "flow_class", "flows", "packets", "window_bytes", "window_packets", "young")

    def __init__(self, flow_class: FlowClass) -> None:
        self.flow_class = flow_class
        self.flows = self.young = 0
        self.packets = self.bytes = 0
        self.window_packets = self.window_bytes = 0


class FlowCounters:
    """What was carried, flow by flow, since the first read.

    What a flow had carried before the first read is not counted: how old it is is not known. Of one that appears later
    everything is. What one carries between its last read and its end is never seen.

    Args:
        patient: whether a flow that one read did not show is remembered until the next, for dumps that may leave one
            out. Only for flows of which it is known when they began: others may have begun again meanwhile.

    Attributes:
        doubled: whether the read that goes on, or the last one, showed a flow twice.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.doubled = False
        self._patient = patient
        # Of each flow in one number, a third of a tuple's size: bytes, 64 bits of packets, 8 bits of generation.
        self._known: dict[bytes, int] = {}
        # Of a young one: when it was first seen, packets and bytes that it has carried since.
        self._young: dict[bytes, tuple[float, int, int]] = {}
        self._tallies: dict[FlowClass, Tally] = {}
        self._generation = self._whole = 0  # of this read, and of the last one that ended
        self._at: float | None = None

    def __len__(self) -> int:
        return len(self._known)

    def tally(self, flow_class: FlowClass) -> Tally:
        """Where flows of this class are summed up; keep it, looking it up is dear."""
        found = self._tallies.get(flow_class)
        if found is None:
            found = self._tallies[flow_class] = Tally(flow_class)
        return found

    def count(self, flows: Iterable[tuple[bytes, Tally, int, int, bool | None]], now: float) -> FlowTable:
        """Take in one read of all flows.

        Args:
            flows: key, tally, packets, bytes, and whether the flow began after the last read, None where that is not
                known. Where the iteration raises, what came before it is kept and its window goes on until the next
                read that ends; where too many are remembered after many of these, that next one is a first read.
            now: when the read began, seconds on any clock that only goes forwards.
        """
        if len(self._known) > _MOST_REMEMBERED:
            self._forget()
        known, young, first = self._known, self._young, self._at is None
        self.doubled = False
        self._generation = generation = (self._generation + 1) % _GENERATIONS
        begins = (now, 0, 0)
        for tally in self._tallies.values():
            tally.flows = tally.young = 0
        for key, tally, packets, octets, begun in flows:
            last, entry = known.get(key), octets << 72 | packets << 8
            if last is None:
                young[key] = begins
                more_packets, more_bytes = (0, 0) if first else (packets, octets)
            elif last & 0xFF == generation:  # a table that is rehashed while it is read may show a flow twice
                self.doubled = True
                continue
            elif begun:
                more_packets, more_bytes = packets, octets
            else:
                last_packets, last_bytes = last >> 8 & _PACKETS, last >> 72
                more_packets, more_bytes = packets - last_packets, octets - last_bytes
                if more_packets < 0 or more_bytes < 0:
                    more_packets, more_bytes, entry = _after_fall(packets, octets, last, begun)
            known[key] = entry | generation
            tally.flows += 1
            tally.packets += more_packets
            tally.bytes += more_bytes
            if key in young:
                since, had_packets, had_bytes = young[key]
                more_packets += had_packets
                more_bytes += had_bytes
                if now - since < YOUNG:
                    tally.young += 1
                    if more_packets or more_bytes:
                        young[key] = since, more_packets, more_bytes
                    continue
                del young[key]
            tally.window_packets += more_packets
            tally.window_bytes += more_bytes
        self._drop_ended()
        return self._table(now)

    def _drop_ended(self) -> None:
        """Forget flows that this read, and if patient the one before it, did not show."""
        known, young, generation = self._known, self._young, self._generation
        patience = (generation - self._whole) % _GENERATIONS if self._patient else 0
        lately = {(generation - back) % _GENERATIONS for back in range(patience + 1)}
        gone = [key for key, entry in known.items() if entry & 0xFF not in lately]
        for key in gone:
            del known[key]
            young.pop(key, None)
        self._whole = generation
        # A dictionary that was large stays so.
        if len(gone) > len(known):
            self._known = dict(known)
        if not young:
            self._young = {}

    def _forget(self) -> None:
        """All but the totals."""
        self._known, self._young, self._at = {}, {}, None
        for tally in self._tallies.values():
            tally.window_packets = tally.window_bytes = 0

    def _table(self, now: float) -> FlowTable:
        tallies = self._tallies
        terminal = [t for t in tallies.values() if t.flow_class.terminal]
        table = FlowTable(
            flows=MappingProxyType({c: t.flows for c, t in tallies.items() if t.flows}),
            young=MappingProxyType({c: t.young for c, t in tallies.items() if t.young}),
            totals=MappingProxyType({t.flow_class: Counted(t.packets, t.bytes) for t in terminal}),
            window=MappingProxyType({t.flow_class: Counted(t.window_packets, t.window_bytes) for t in terminal}),
            seconds=None if self._at is None else now - self._at,
        )
        self._at = now
        for tally in tallies.values():
            tally.window_packets = tally.window_bytes = 0
        return table


def _after_fall(packets: int, octets: int, last: int, begun: bool | None) -> tuple[int, int, int]:
    """Packets and bytes that a flow carried whose count fell, and what to remember of it."""
    entry, last_packets, last_octets = octets << 72 | packets << 8, last >> 8 & _PACKETS, last >> 72
    wrapped, more = packets - last_packets + _WORD, octets - last_octets
    # 32 bits of packets (no TCA_STATS_PKT64); bytes have 64 always.
    if packets < last_packets < _WORD and more >= wrapped * _LEAST_BYTES:
        return wrapped, more, entry
    if begun is None:
        return packets, octets, entry
    # Not begun again: it is a difference of two counts, which are not read at one moment.
    most_packets, most_octets = max(packets, last_packets), max(octets, last_octets)
    return most_packets - last_packets, most_octets - last_octets, most_octets << 72 | most_packets << 8
