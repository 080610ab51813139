"""Sums of flows that come, go, are replaced, wrap and grow old."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from mecexporter.sources import flow_counters
from mecexporter.sources.flow_counters import YOUNG, FlowCounters
from mecexporter.state.datapath import Counted, FlowClass, FlowTable, Layer, Path, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mecexporter.sources.flow_counters import Tally

GRE = FlowClass(path=Path.HARDWARE, protocol=Protocol.GRE, conntrack=True, layer=Layer.TC)
TCP = FlowClass(path=Path.SOFTWARE, protocol=Protocol.TCP, conntrack=False, layer=Layer.TC)
CHAIN_0 = FlowClass(path=Path.HARDWARE, protocol=Protocol.GRE, conntrack=True, layer=Layer.TC, terminal=False)
Flow = tuple[bytes, FlowClass, int, int, bool | None]


def flow(
    key: bytes, packets: int, flow_class: FlowClass = TCP, *, octets: int | None = None, new: bool | None = None
) -> Flow:
    return key, flow_class, packets, packets * 100 if octets is None else octets, new


def count(counters: FlowCounters, now: float, *flows: Flow) -> FlowTable:
    return counters.count([(key, counters.tally(c), *rest) for key, c, *rest in flows], now)  # type: ignore[misc]


def begun(*flows: Flow) -> FlowCounters:
    """Counters that have seen these flows long ago."""
    counters = FlowCounters()
    count(counters, 0, *flows)
    count(counters, 100, *flows)
    return counters


def test_first_read_counts_flows_and_no_traffic() -> None:
    table = count(FlowCounters(), 0, flow(b"a", 1000), flow(b"b", 5, GRE))
    assert table.flows == {TCP: 1, GRE: 1}
    assert table.totals == {TCP: Counted(), GRE: Counted()}
    assert table.seconds is None


def test_what_a_known_flow_carries_is_counted() -> None:
    counters = begun(flow(b"a", 1000))
    table = count(counters, 160, flow(b"a", 1007, octets=100_701))
    assert table.totals[TCP] == table.window[TCP] == Counted(7, 701)
    assert table.seconds == 60


def test_all_that_a_later_flow_carried_is_counted() -> None:
    table = count(begun(), 160, flow(b"a", 1000))
    assert table.totals[TCP] == Counted(1000, 100_000)


def test_end_of_a_flow_takes_nothing_away() -> None:
    counters = begun(flow(b"a", 1))
    count(counters, 160, flow(b"a", 50))
    table = count(counters, 220)
    assert table.totals[TCP] == Counted(49, 4900)
    assert table.flows == {}
    assert len(counters) == 0


@pytest.mark.parametrize("new", [True, None], ids=["begun after the last read", "fell"])
def test_flow_that_began_again_under_its_name(new: bool | None) -> None:
    counters = begun(flow(b"a", 1000))
    assert count(counters, 160, flow(b"a", 30, new=new)).totals[TCP] == Counted(30, 3000)


def test_flow_that_began_again_and_has_overtaken_itself() -> None:
    counters = begun(flow(b"a", 1000))
    assert count(counters, 160, flow(b"a", 1500, new=True)).totals[TCP] == Counted(1500, 150_000)


def test_flow_that_was_there_before_has_not_begun_again() -> None:
    counters = begun(flow(b"a", 1000))
    assert count(counters, 160, flow(b"a", 998, octets=100_050, new=False)).totals[TCP] == Counted(0, 50)
    assert count(counters, 220, flow(b"a", 1003, new=False)).totals[TCP] == Counted(3, 300)


@pytest.mark.parametrize("new", [False, None], ids=["there before", "not known"])
def test_32_bit_count_of_packets_wraps(new: bool | None) -> None:
    high = (1 << 32) - 10
    counters = begun(flow(b"a", high))
    wrapped = flow(b"a", 90, octets=high * 100 + 10_000, new=new)
    assert count(counters, 160, wrapped).totals[TCP] == Counted(100, 10_000)


def test_count_beyond_32_bits() -> None:
    counters = begun(flow(b"a", (1 << 32) - 10))
    assert count(counters, 160, flow(b"a", (1 << 32) + 90)).totals[TCP] == Counted(100, 10_000)


def test_flow_of_few_large_packets_that_began_again_has_not_wrapped() -> None:
    counters = begun(flow(b"a", 1000, octets=60_000))
    assert count(counters, 160, flow(b"a", 900, octets=1_300_000)).totals[TCP] == Counted(900, 1_300_000)


def test_only_terminal_flows_count_packets() -> None:
    counters = begun(flow(b"a", 0, CHAIN_0), flow(b"b", 0, GRE))
    table = count(counters, 160, flow(b"a", 100, CHAIN_0), flow(b"b", 100, GRE))
    assert table.totals == {GRE: Counted(100, 10_000)}
    assert table.flows == {CHAIN_0: 1, GRE: 1}


def test_flow_shown_twice_in_one_read_counts_once() -> None:
    counters = begun(flow(b"a", 10))
    table = count(counters, 160, flow(b"a", 20), flow(b"a", 20))
    assert (table.totals[TCP], table.flows[TCP]) == (Counted(10, 1000), 1)


def test_young_flow_is_left_out_of_the_window_and_brings_all_when_it_comes_of_age() -> None:
    counters = begun()
    seen = []
    for now, packets in ((101, 5), (105, 20), (101 + YOUNG, 100), (120, 130)):
        table = count(counters, now, flow(b"a", packets))
        seen.append((table.young.get(TCP, 0), table.window[TCP].packets, table.totals[TCP].packets))
    assert seen == [(1, 0, 5), (1, 0, 20), (0, 100, 100), (0, 30, 130)]


def test_young_flow_that_is_replaced_brings_both() -> None:
    counters = begun()
    count(counters, 101, flow(b"a", 50))
    count(counters, 103, flow(b"a", 20, new=True))
    assert count(counters, 120, flow(b"a", 25)).window[TCP] == Counted(75, 7500)


def test_flows_of_the_first_read_bring_only_what_they_carry_afterwards() -> None:
    counters = FlowCounters()
    count(counters, 0, flow(b"a", 1000))
    count(counters, 1, flow(b"a", 1001))
    assert count(counters, YOUNG, flow(b"a", 1005)).window[TCP] == Counted(5, 500)


def test_flow_that_changes_its_class_is_counted_where_it_is() -> None:
    counters = begun(flow(b"a", 10))
    table = count(counters, 160, flow(b"a", 30, GRE))
    assert table.totals == {TCP: Counted(), GRE: Counted(20, 2000)}


def test_read_that_breaks_off_loses_nothing() -> None:
    counters = begun(flow(b"a", 0), flow(b"b", 0))
    tally = counters.tally(TCP)

    def breaks() -> Iterator[tuple[bytes, object, int, int, bool]]:
        yield b"a", tally, 10, 1000, False
        raise OSError("torn")

    with pytest.raises(OSError, match="torn"):
        counters.count(breaks(), 160)  # type: ignore[arg-type]  # as above
    table = count(counters, 220, flow(b"a", 15), flow(b"b", 7))
    assert table.totals[TCP] == table.window[TCP] == Counted(22, 2200)
    assert (table.seconds, table.flows) == (120, {TCP: 2})


def test_patient_counters_know_a_flow_again_that_one_read_left_out() -> None:
    counters = FlowCounters(patient=True)
    for now in (0, 100):
        count(counters, now, flow(b"a", 1000), flow(b"b", 1))
    left_out = count(counters, 160, flow(b"b", 1))
    assert (left_out.flows, left_out.totals) == ({TCP: 1}, {TCP: Counted()})
    assert count(counters, 220, flow(b"a", 1010), flow(b"b", 1)).totals[TCP] == Counted(10, 1000)
    assert len(counters) == 2
    count(counters, 280)
    assert count(counters, 340).flows == {}
    assert len(counters) == 0


def test_patience_outlasts_reads_that_break_off() -> None:
    counters = FlowCounters(patient=True)
    for now in (0, 100, 160):
        count(counters, now, *([flow(b"a", 1000)] if now < 160 else []))
    for now in range(200, 200 + 300):
        with pytest.raises(OSError, match="torn"):
            counters.count(torn(counters.tally(TCP), now, flows=0), now)
    assert count(counters, 600, flow(b"a", 1003)).totals[TCP] == Counted(3, 300)


def torn(tally: Tally, read: int, *, flows: int) -> Iterator[tuple[bytes, Tally, int, int, bool]]:
    """So many new flows, and then no end."""
    for n in range(flows):
        yield b"%d-%d" % (read, n), tally, 5, 500, False
    raise OSError("torn")


def test_reads_that_break_off_again_and_again_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_counters, "_MOST_REMEMBERED", 50)
    counters, carried = begun(flow(b"a", 1)), 0
    tally = counters.tally(TCP)
    for read in range(10):
        with pytest.raises(OSError, match="torn"):
            counters.count(torn(tally, read, flows=20), 160 + read)
        assert len(counters) <= 70
        assert tally.packets >= carried
        carried = tally.packets
    first = count(counters, 600, *(flow(b"%d" % n, 7) for n in range(40)))
    assert (first.totals[TCP].packets, first.window[TCP].packets, first.seconds) == (carried, 0, None)
    assert count(counters, 660, flow(b"0", 9)).window[TCP].packets == 2


@dataclass
class Truth:
    """One flow of a made-up datapath."""

    key: bytes
    packets: int
    born: float


def history(rng: random.Random, flows: int, reads: int) -> Iterator[tuple[float, Sequence[Truth], int]]:
    """Times, flows and packets carried since the first read: flows grow, end after a read, are born, are replaced."""
    now, carried = 0.0, 0
    alive = [Truth(b"%d" % n, rng.randrange(1000), -100.0) for n in range(flows)]
    yield now, alive, 0
    for n in range(reads):
        last, now = now, now + rng.uniform(1, 60)
        alive = [f for f in alive if rng.random() > 0.1]
        for f in alive:
            more = rng.randrange(50)
            carried += more
            f.packets, f.born = (more, now - (now - last) / 2) if rng.random() < 0.1 else (f.packets + more, f.born)
        for m in range(rng.randrange(flows // 5)):
            more = rng.randrange(50)
            carried += more
            alive.append(Truth(b"%d-%d" % (n, m), more, now - (now - last) / 2))
        yield now, alive, carried


@pytest.mark.parametrize("seed", range(20))
def test_totals_are_exact_and_windows_add_up_to_them(seed: int) -> None:
    counters, last, windows, before = FlowCounters(), 0.0, 0, 0
    table = FlowTable()
    for now, flows, carried in history(random.Random(seed), 100, 300):  # noqa: S311  # no secret
        table = count(counters, now, *(flow(f.key, f.packets, new=f.born > last) for f in flows))
        last = now
        assert table.totals[TCP] == Counted(carried, carried * 100)
        assert table.totals[TCP].packets >= before
        before = carried
        windows += table.window[TCP].packets
    assert windows <= before
    assert windows > 0.7 * before, "flows that end while young are missing, and no others"
