"""Statistics of links: hand-made messages, and this machine's own kernel.

IFLA_OFFLOAD_XSTATS_CPU_HIT was seen on no hardware here: its messages are made after the kernel's header.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifstatsmsg import ifstatsmsg

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.wire.link_stats import Hits, Passed, passed, statistics
from mecexporter.sources.wire.netlink import NETLINK_ROUTE, Netlink, attribute
from mecexporter.state.ovs import Counters
from tests.hwlab import FIXTURES
from tests.sources.netns import in_own_network, ip, needs_root, send
from tests.sources.recordings import messages

if TYPE_CHECKING:
    from pathlib import Path

NEWSTATS = 92
LINK_64, LINK_XSTATS, OFFLOAD_XSTATS, CPU_HIT, HW_S_INFO = 1, 2, 4, 1, 2
NESTED = 0x8000
RX_DROPPED, RX_MISSED, FIELDS = 6, 15, 25
"""Of rtnl_link_stats64, by position: 25 fields of 8 bytes since Linux 6.1."""

SEEN = Counters(10, 20, 1000, 2000, 1, 2, 3, 4)


def stats64(counters: Counters, missed: int = 0, fields: int = FIELDS) -> bytes:
    values = [*counters, *range(1000, 1000 + fields - len(counters))]
    values[RX_MISSED] = missed
    return struct.pack(f"={fields}Q", *values)


def message(index: int, *parts: bytes) -> bytes:
    return struct.pack("=BxxxII", 0, index, 0) + b"".join(parts)


def cpu_hit(counters: Counters) -> bytes:
    return attribute(OFFLOAD_XSTATS, attribute(CPU_HIT, stats64(counters)))


def test_all_that_passed() -> None:
    assert passed([message(7, attribute(LINK_64, stats64(SEEN)))], {7}) == {7: Passed(SEEN, None)}


def test_what_came_to_the_cpu() -> None:
    hit = Counters(rx_packets=2, tx_packets=3, rx_bytes=200, tx_bytes=300)
    (found,) = passed([message(7, attribute(LINK_64, stats64(SEEN)), cpu_hit(hit))], {7}).values()
    assert found == Passed(SEEN, hit)


def test_what_a_device_missed_is_dropped_as_in_proc_net_dev() -> None:
    (found,) = passed([message(7, attribute(LINK_64, stats64(SEEN, missed=100)))], {7}).values()
    assert found.all == SEEN._replace(rx_dropped=103)


def test_kernels_of_all_ages() -> None:
    for fields in (23, 24, 25, 40):  # Linux 4.7, 4.6 with rx_nohandler, 6.1, and one to come
        (found,) = passed([message(7, attribute(LINK_64, stats64(SEEN, fields=fields)))], {7}).values()
        assert found.all == SEEN


def test_attributes_that_we_do_not_know() -> None:
    unknown = attribute(0, b"") + attribute(LINK_XSTATS | NESTED, attribute(9, b"abc")) + attribute(99, b"x" * 50)
    nested = attribute(OFFLOAD_XSTATS | NESTED, attribute(HW_S_INFO, b"12345678") + attribute(77, b""))
    found = passed([message(7, unknown, attribute(LINK_64, stats64(SEEN)), nested)], {7})
    assert found == {7: Passed(SEEN, None)}, "hardware statistics of another kind are no CPU hits"


def test_devices_that_nobody_asked_for_cost_nothing_and_say_nothing() -> None:
    others = [message(n, b"\xff" * 30) for n in range(5)]
    assert passed([*others, message(7, attribute(LINK_64, stats64(SEEN)))], {7, 8}) == {7: Passed(SEEN, None)}


def test_a_device_that_tells_nothing() -> None:
    assert passed([message(7)], {7}) == {}


@pytest.mark.parametrize("size", [0, 8, 8 * RX_MISSED + 7])
def test_counters_that_are_too_few(size: int) -> None:
    with pytest.raises(SourceError, match=rf"counters of {size} bytes") as caught:
        passed([message(7, attribute(LINK_64, stats64(SEEN)[:size]))], {7})
    assert caught.value.reason is Reason.GARBAGE


def test_a_message_that_is_too_short() -> None:
    with pytest.raises(SourceError, match="statistics of 11 bytes"):
        passed([message(7)[:-1]], {7})


def told(messages: list[bytes], indexes: set[int]) -> dict[int, Passed]:
    """What is read; nothing where it is garbage. Anything else is raised."""
    try:
        return passed(messages, indexes)
    except SourceError as error:
        if error.reason is not Reason.GARBAGE:
            raise
        return {}


WHOLE = message(7, attribute(LINK_64, stats64(SEEN)), cpu_hit(SEEN))


@given(st.integers(0, len(WHOLE) - 1))
@settings(max_examples=500)
def test_a_message_that_is_cut_off_tells_the_truth_or_nothing(size: int) -> None:
    assert told([WHOLE[:size]], {7}) in ({}, {7: Passed(SEEN, None)})


@given(st.lists(st.binary(max_size=400), max_size=4), st.sets(st.integers(0, 255), max_size=4))
@settings(max_examples=2000)
def test_bytes_of_any_kind(messages: list[bytes], indexes: set[int]) -> None:
    assert told(messages, indexes).keys() <= indexes


@given(st.data())
@settings(max_examples=2000)
def test_bytes_that_were_changed(data: st.DataObject) -> None:
    mangled = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        mangled[data.draw(st.integers(0, 60))] = data.draw(st.integers(0, 255))
    assert told([bytes(mangled)], {7}).keys() <= {7}


# What a real kernel answered (tests/fixtures/hw), and pyroute2's reading of the same bytes.


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.stats.bin")), ids=lambda p: p.stem)
def test_recorded_statistics_are_read_as_pyroute2_reads_them(path: Path) -> None:
    recorded = list(messages(path, NEWSTATS))
    assert len(recorded) > 4
    for whole in recorded:
        theirs = ifstatsmsg(whole)
        theirs.decode()
        counted = theirs.get_attr("IFLA_STATS_LINK_64")
        wanted = Counters(*(counted[name] for name in Counters._fields))
        wanted = wanted._replace(rx_dropped=wanted.rx_dropped + counted["rx_missed_errors"])
        assert passed([whole[16:]], {theirs["ifindex"]}) == {theirs["ifindex"]: Passed(wanted, None)}


# What is left for hardware never falls, whatever the driver's two counts do.


def carried(packets: int) -> Counters:
    return Counters(rx_packets=packets, tx_packets=packets, rx_bytes=packets * 100, tx_bytes=packets * 100)


def hardware(hits: Hits, every: int, cpu: int, index: int = 7) -> int:
    settled = hits.settle({index: Passed(carried(every), carried(cpu))})[index]
    assert settled == carried(settled.rx_packets)
    assert 0 <= settled.rx_packets <= every
    return every - settled.rx_packets


def test_hardware_carried_what_did_not_come_to_the_cpu() -> None:
    hits = Hits()
    assert [hardware(hits, 100, 10), hardware(hits, 200, 20), hardware(hits, 200, 20)] == [90, 180, 180]


def test_a_count_of_all_that_lags_behind_takes_nothing_back() -> None:
    hits = Hits()
    told = [hardware(hits, 100, 10), hardware(hits, 100, 60), hardware(hits, 100, 130), hardware(hits, 1000, 130)]
    assert told == [90, 90, 90, 870]


def test_a_device_that_begins_anew() -> None:
    hits = Hits()
    assert [hardware(hits, 100, 10), hardware(hits, 50, 5), hardware(hits, 60, 5)] == [90, 45, 55]


def test_a_device_in_the_place_of_another() -> None:
    hits = Hits()
    assert hardware(hits, 100, 10) == 90
    assert hardware(hits, 200, 150, index=8) == 50
    assert hardware(hits, 100, 90) == 10, "it was gone meanwhile"


def test_a_count_of_the_cpu_that_begins_anew_alone() -> None:
    hits = Hits()
    assert [hardware(hits, 100, 60), hardware(hits, 150, 10), hardware(hits, 160, 20)] == [40, 80, 80]


def test_a_driver_that_does_not_tell_has_no_share() -> None:
    assert Hits().settle({7: Passed(SEEN, None)}) == {}


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=30))
@settings(max_examples=500)
def test_both_parts_only_rise(steps: list[tuple[int, int]]) -> None:
    hits, every, cpu, before = Hits(), 0, 0, (0, 0)
    for more, more_cpu in steps:
        every, cpu = every + more, cpu + more_cpu
        part = hardware(hits, every, cpu)
        assert part >= before[0]
        assert every - part >= before[1]
        before = part, every - part


# This machine's kernel.


@needs_root
def test_a_real_kernel_counts_each_packet() -> None:
    def count() -> tuple[Passed, Passed]:
        ip("link add one type veth peer name two", "link set one up", "link set two up")
        send("one", packets=300, size=100)
        send("two", packets=7, size=60)
        indexes = [socket.if_nametoindex(name) for name in ("one", "two")]
        with Netlink(NETLINK_ROUTE) as route:
            found = statistics(route, indexes)
        assert found.keys() == set(indexes)
        return found[indexes[0]], found[indexes[1]]

    one, two = in_own_network(count)
    assert one.all[:4] == (7, 300, 7 * 60, 300 * 100)
    assert two.all[:4] == (300, 7, 300 * 100, 7 * 60)
    assert (one.cpu, two.cpu) == (None, None), "a veth has nothing that could carry packets past the CPU"


@needs_root
def test_4096_links() -> None:
    def count() -> dict[int, Passed]:
        ip(*(f"link add a{n} type veth peer name b{n}" for n in range(2048)), "link set a9 up", "link set b9 up")
        send("a9", packets=5, size=60)
        names = {index: name for index, name in socket.if_nameindex() if name[0] in "ab"}
        assert len(names) == 4096
        with Netlink(NETLINK_ROUTE) as route:
            found = statistics(route, names)
        assert found.keys() == names.keys()
        return {index: p for index, p in found.items() if p.all.tx_packets}

    ((_, sender),) = in_own_network(count).items()
    assert (sender.all.tx_packets, sender.all.tx_bytes) == (5, 300)


def test_a_device_that_is_not_there() -> None:
    lo = socket.if_nametoindex("lo")
    with Netlink(NETLINK_ROUTE) as route:
        assert statistics(route, {lo, 1 << 30}).keys() == {lo}


@pytest.mark.root
@needs_root
def test_nobody_may_ask_too() -> None:
    code = """
import os, socket
from mecexporter.sources.wire.link_stats import statistics
from mecexporter.sources.wire.netlink import NETLINK_ROUTE, Netlink
os.setgid(65534); os.setuid(65534)
with Netlink(NETLINK_ROUTE) as route:
    print(len(statistics(route, {socket.if_nametoindex("lo")})))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, os.geteuid()) == ("1\n", 0), done.stderr
