"""Connection tracking: a kernel that is played by a socket, and this machine's own."""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
import sys
from dataclasses import replace
from pathlib import Path as File
from typing import TYPE_CHECKING, Any

import pytest

from mecexporter.errors import Reason, SourceError
from mecexporter.sources import conntrack
from mecexporter.sources.conntrack import ConntrackSource
from mecexporter.sources.wire.netlink import attribute, attributes
from mecexporter.state.datapath import Conntrack, Counted, Path
from tests.hwlab import FIXTURES
from tests.sources.netlink_kernel import PlayedNetlink
from tests.sources.recordings import HEADER, messages
from tests.worlds import healthy_compute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WORLD = healthy_compute()
SEEN, OFFLOAD, HW_OFFLOAD = 0x2, 1 << 14, 1 << 15
TCP, GRE = 6, 47


def entry(
    number: int, proto: int = TCP, status: int = SEEN, counts: tuple[tuple[int, int], ...] = ((1, 100), (2, 200))
) -> bytes:
    """As ctnetlink_fill_info of the kernel writes it; ``counts`` of both ways, where it counts."""
    ends = b"".join(attribute(kind, struct.pack(">I", number)) for kind in (1, 2))
    pair = attribute(1 | 0x8000, ends) + attribute(2 | 0x8000, attribute(1, bytes((proto,))))
    parts = [attribute(1 | 0x8000, pair), attribute(2 | 0x8000, pair), attribute(3, struct.pack(">I", status))]
    for kind, (packets, octets) in zip((9, 10), counts, strict=False):
        both = attribute(1, struct.pack(">Q", packets)) + attribute(2, struct.pack(">Q", octets))
        parts.append(attribute(kind | 0x8000, both))
    return bytes((2, 0, 0, 0)) + b"".join(parts) + attribute(12, struct.pack(">I", number))


class Kernel:
    """Answers dumps of connection tracking.

    Attributes:
        entries: number, protocol and status of each, and more as in :func:`entry`.
        knows: the filters that it applies; others it ignores, as kernels do.
        error: what it answers instead.
    """

    def __init__(self) -> None:
        self.entries: list[tuple[Any, ...]] = []
        self.knows = {"status", "protocol"}
        self.error = 0
        self.asked = 0
        self.costs: Callable[[], None] = lambda: None

    def answer(self, kind: int, body: bytes) -> Iterator[bytes] | int:
        assert kind == 0x101, "nothing is written, and no counter reset"
        self.asked += 1
        self.costs()
        wanted = dict(attributes(body[4:]))
        if 25 in wanted and "protocol" in self.knows:  # as Linux 6.12 does
            if struct.pack("=HH", 12, 25 | 0x8000) not in body:
                return errno.EINVAL
            if body[0] not in (socket.AF_INET, socket.AF_INET6):
                return errno.EOPNOTSUPP
        return self.error or self._fitting(body[0], wanted)

    def _fitting(self, family: int, wanted: dict[int, bytes]) -> Iterator[bytes]:
        if family not in (socket.AF_UNSPEC, socket.AF_INET):
            return
        for number, proto, status, *counts in self.entries:
            if 3 in wanted and "status" in self.knows:
                value, mask = (struct.unpack(">I", wanted[part])[0] for part in (3, 26))
                if status & mask != value:
                    continue
            if 25 in wanted and "protocol" in self.knows:
                assert dict(attributes(wanted[25])) == {1: struct.pack("=I", 8)}
                if dict(attributes(dict(attributes(wanted[1]))[2])) != {1: bytes((proto,))}:
                    continue
            yield entry(number, proto, status, *counts)


class Clock:
    """In place of the module ``time``."""

    def __init__(self) -> None:
        self._now, self._cpu = 1000.0, 5.0

    def passes(self, seconds: float = 0.0, *, cpu: float = 0.0) -> None:
        self._now += seconds
        self._cpu += cpu

    def monotonic(self) -> float:
        return self._now

    def thread_time(self) -> float:
        return self._cpu


def late() -> None:
    raise SourceError(Reason.TIMEOUT, "the kernel's answer did not end within 2 s")


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def read(tmp_path: File, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Conntrack]:
    """Reads with this kernel's table, and procfs written to match."""
    source = ConntrackSource(tmp_path / "proc", tmp_path / "sys", 60)
    files = tmp_path / "proc/sys/net/netfilter"
    files.mkdir(parents=True)
    (tmp_path / "proc/sys/net/core").mkdir()
    (tmp_path / "sys/module/nf_conntrack").mkdir(parents=True)

    def now(*, acct: int = 1, count: int | None = None, most: int = 262144) -> Conntrack:
        numbers = {"count": len(kernel.entries) if count is None else count, "max": most, "acct": acct}
        for name, number in numbers.items():
            (files / f"nf_conntrack_{name}").write_text(f"{number}\n")
        return source._all()

    monkeypatch.setattr(conntrack, "Netlink", lambda protocol: PlayedNetlink(kernel.answer) if protocol == 12 else None)
    return now


def test_who_carries_what(kernel: Kernel, read: Callable[..., Conntrack]) -> None:
    kernel.entries = [
        *((n, TCP, SEEN) for n in range(3)),
        *((n, TCP, SEEN | OFFLOAD) for n in range(10, 12)),
        *((n, TCP, SEEN | OFFLOAD | HW_OFFLOAD) for n in range(20, 24)),
        (30, GRE, SEEN),
        (31, GRE, SEEN | OFFLOAD),
        (32, GRE, SEEN | OFFLOAD | HW_OFFLOAD),
    ]
    table = read()
    assert (table.entries, table.limit) == (12, 262144)
    assert table.offloaded == {Path.HARDWARE: 5, Path.SOFTWARE: 3}
    assert table.gre is not None
    assert table.gre.entries == {Path.HARDWARE: 1, Path.SOFTWARE: 2}
    assert (table.gre.software, table.gre.window, table.gre.seconds) == (Counted(), None, None)


def test_table_without_a_limit_is_never_full(read: Callable[..., Conntrack]) -> None:
    assert read(most=0).limit is None


def test_what_gre_carries_in_software(kernel: Kernel, read: Callable[..., Conntrack]) -> None:
    kernel.entries = [(1, GRE, SEEN, ((10, 1000), (20, 2000))), (2, GRE, HW_OFFLOAD, ((5, 500), (5, 500)))]
    read()
    kernel.entries = [(1, GRE, SEEN, ((13, 1300), (24, 2400))), (2, GRE, HW_OFFLOAD, ((9, 900), (9, 900)))]
    gre = read().gre
    assert gre is not None
    assert gre.software == Counted(7, 700)
    assert gre.seconds is not None


def test_entry_that_ended_and_came_again_under_its_id_counts_from_the_start(
    kernel: Kernel, read: Callable[..., Conntrack]
) -> None:
    kernel.entries = [(1, GRE, SEEN, ((5000, 500_000), (5000, 500_000)))]
    read()
    kernel.entries = [(1, GRE, SEEN, ((30, 3000), (40, 4000)))]
    gre = read().gre
    assert gre is not None
    assert gre.software == Counted(70, 7000)


@pytest.mark.parametrize("acct", [0, 1])
def test_what_is_not_counted_is_not_zero(kernel: Kernel, read: Callable[..., Conntrack], acct: int) -> None:
    counts: tuple[tuple[int, int], ...] = () if acct else ((1, 1), (1, 1))
    kernel.entries = [(1, GRE, SEEN, counts)]
    gre = read(acct=acct).gre
    assert gre is not None
    assert gre.entries[Path.SOFTWARE] == 1
    assert gre.software is None


def test_kernel_that_filters_by_protocol_alone(
    kernel: Kernel, read: Callable[..., Conntrack], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.entries = [*((n, TCP, SEEN) for n in range(40)), (50, GRE, SEEN), (51, TCP, SEEN | OFFLOAD)]
    kernel.knows = {"protocol"}
    assert read().offloaded == {Path.HARDWARE: 0, Path.SOFTWARE: 1}, "the table is small: all of it is read"
    monkeypatch.setattr(conntrack, "SMALL", 41)
    table = read()
    assert table.offloaded is None
    assert table.gre is not None
    assert table.gre.entries[Path.SOFTWARE] == 1


def test_kernel_that_does_not_filter(
    kernel: Kernel, read: Callable[..., Conntrack], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.entries = [*((n, TCP, SEEN) for n in range(40)), (50, GRE, SEEN)]
    kernel.knows = set()
    gre = read().gre
    assert gre is not None
    assert gre.entries[Path.SOFTWARE] == 1
    monkeypatch.setattr(conntrack, "SMALL", 40)
    assert read() == Conntrack(entries=41, limit=262144)


def test_too_many(kernel: Kernel, read: Callable[..., Conntrack], monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.entries = [(n, TCP, SEEN | OFFLOAD) for n in range(30)]
    monkeypatch.setattr(conntrack, "MOST_ENTRIES", 29)
    table = read()
    assert table.offloaded is None
    assert table.gre is not None


@pytest.mark.parametrize("error", ["EPERM", "EINVAL", "EOPNOTSUPP"])
def test_who_may_not_ask_has_the_numbers_alone(kernel: Kernel, read: Callable[..., Conntrack], error: str) -> None:
    kernel.error = getattr(errno, error)
    assert read(count=7) == Conntrack(entries=7, limit=262144)


def test_module_is_not_loaded_by_asking(kernel: Kernel, read: Callable[..., Conntrack], tmp_path: File) -> None:
    (tmp_path / "sys/module/nf_conntrack/initstate").write_text("live\n")
    assert read(count=7) == Conntrack(entries=7, limit=262144)
    assert kernel.asked == 0
    (tmp_path / "sys/module/nf_conntrack_netlink").mkdir()
    assert read(count=7).gre is not None


def why_not(source: ConntrackSource) -> SourceError:
    with pytest.raises(SourceError) as caught:
        source._all()
    return caught.value


def test_kernel_without_connection_tracking(tmp_path: File) -> None:
    (tmp_path / "sys/net/core").mkdir(parents=True)
    source = ConntrackSource(tmp_path, tmp_path, 60)
    assert source._all() == Conntrack(entries=0, limit=None)
    (tmp_path / "sys/net/netfilter").mkdir()
    (tmp_path / "sys/net/netfilter/nf_conntrack_count").write_text("many\n")
    assert why_not(source).reason is Reason.GARBAGE


def test_no_procfs(tmp_path: File) -> None:
    assert why_not(ConntrackSource(tmp_path, tmp_path, 60)).reason is Reason.MISSING


def test_how_full_it_is_is_read_each_time_and_entries_as_often_as_their_price_allows(
    kernel: Kernel, read: Callable[..., Conntrack], tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conntrack, "time", clock := Clock())
    kernel.costs = lambda: clock.passes(cpu=0.1)
    kernel.entries = [(1, TCP, OFFLOAD), (2, GRE, SEEN)]
    read()  # writes procfs
    source = ConntrackSource(tmp_path / "proc", tmp_path / "sys", 60)
    first = source._read()
    assert source.pause(first) == 60
    asked = kernel.asked
    (tmp_path / "proc/sys/net/netfilter/nf_conntrack_count").write_text("250000\n")
    clock.passes(299)
    between = source._read()
    assert kernel.asked == asked
    assert between == replace(first, entries=250_000)
    clock.passes(2)
    assert source._read().looked_at == first.looked_at + 301
    assert kernel.asked > asked


def test_entries_that_take_too_long_leave_the_numbers(kernel: Kernel, read: Callable[..., Conntrack]) -> None:
    kernel.entries = [(1, TCP, OFFLOAD), (2, GRE, SEEN)]
    kernel.costs = late
    table = read()
    assert (table.entries, table.limit, table.offloaded, table.gre) == (2, 262144, None, None)


@pytest.mark.parametrize("spoilt", [b"", b"\2\0\0\0", entry(1)[:30]])
def test_entry_that_is_none(
    kernel: Kernel, read: Callable[..., Conntrack], spoilt: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.entries = [(1, TCP, OFFLOAD)]
    monkeypatch.setattr(sys.modules[__name__], "entry", lambda *_: spoilt)
    with pytest.raises(SourceError) as caught:
        read()
    assert caught.value.reason is Reason.GARBAGE


def test_recorded_entry(kernel: Kernel, read: Callable[..., Conntrack], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of GRE, recorded in a guest: tests/hwlab/scenarios/kernel_flows.sh."""
    text = (FIXTURES / "recordings/kernel-ct.conntrack.txt").read_text()
    counts = [(int(packets), int(octets)) for packets, octets in re.findall(r"packets=(\d+) bytes=(\d+)", text)]
    assert len(counts) == 2
    recorded = next(messages(FIXTURES / "recordings/kernel-ct.conntrack.bin"))[HEADER:]
    assert [conntrack._counts(dict(attributes(recorded[4:]))[way]) for way in (9, 10)] == counts
    kernel.entries = [(1, TCP, SEEN)]
    read()
    kernel.entries.append((2, GRE, SEEN))
    monkeypatch.setattr(sys.modules[__name__], "entry", lambda *of: recorded if of[1] == GRE else entry(*of))
    gre = read().gre
    assert gre is not None
    assert gre.entries == {Path.HARDWARE: 0, Path.SOFTWARE: 1}
    assert gre.software == Counted(sum(n for n, _ in counts), sum(n for _, n in counts))


async def test_this_machine_kernel() -> None:
    counted = File("/proc/sys/net/netfilter/nf_conntrack_count").exists()  # noqa: ASYNC240  # a moment
    source = ConntrackSource(File("/proc"), File("/sys"), 60)
    found = await source.read(WORLD)
    await source.close()
    assert (found.limit is not None) == counted
    assert found.entries >= 0
    assert found.offloaded is None or os.geteuid() == 0
