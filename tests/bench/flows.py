"""What it costs to read many flows and to count what they carried."""

from __future__ import annotations

import multiprocessing
import os
import struct
import time
from typing import TYPE_CHECKING, NamedTuple
from unittest import mock

from mecexporter.sources.flow_counters import FlowCounters
from mecexporter.sources.tc import _Table
from mecexporter.state.datapath import FlowClass, Layer, Path, Protocol
from tests.bench.measure import Row, memory
from tests.sources.filters import Kernel, Recorded, bodies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

READS = 5
DATAGRAM = 60
"""Messages that the kernel puts into one."""


class Cost(NamedTuple):
    """CPU seconds of the cheapest read, bytes of memory that stay and at most."""

    cpu: float
    resident: int
    most: int


def of_flows(filters: int = 10_000, flows: int = 110_000) -> list[Row]:
    """Filters as real kernels dumped them, under other handles and cookies; and flows of any kind in the counters."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        read: Cost = pool.apply(_read_filters, (filters,))
        counted: Cost = pool.apply(_count, (flows,))
    return [
        Row("TC filter, CPU", f"{1e6 * read.cpu / filters:.1f} µs", "10 µs", f"of {filters:,}: decoded and counted"),
        Row("TC filters, RSS", _mib(read.resident), "", f"{filters:,}; at most {_mib(read.most)}"),
        Row("flow in the counters, CPU", f"{1e6 * counted.cpu / flows:.1f} µs", "", f"of {flows:,}"),
        Row("flows in the counters, RSS", _mib(counted.resident), "20 MiB", f"{flows:,}; at most {_mib(counted.most)}"),
    ]


def _mib(number: int) -> str:
    return f"{number / 2**20:.1f} MiB"


def _cost(read: Callable[[], object]) -> Cost:
    before = memory(os.getpid(), "VmRSS")
    spent = []
    for _ in range(READS):
        began = time.process_time()
        read()
        spent.append(time.process_time() - began)
    return Cost(min(spent), memory(os.getpid(), "VmRSS") - before, memory(os.getpid(), "VmHWM") - before)


def _read_filters(number: int) -> Cost:
    table, made = _Table(), list(_datagrams(number))
    kernel = Kernel()
    kernel.qdisc(1)
    qdiscs = [b"".join(map(_message, kernel.qdiscs)) + _END]

    def read() -> None:
        with mock.patch("mecexporter.sources.tc.Netlink", return_value=Recorded(qdiscs, made)):
            assert sum(table.read({}).flows.values()) == number

    return _cost(read)


def _datagrams(number: int) -> Iterator[bytes]:
    real = [*bodies("scale-1000.filters.bin"), *100 * list(bodies("gre-ct.p1.filters.bin"))]
    real = [body for body in real if len(body) > 100]  # not the heads of priorities
    for first in range(0, number, DATAGRAM):
        numbers = range(first, min(first + DATAGRAM, number))
        yield b"".join(_message(_renamed(real[n % len(real)], n)) for n in numbers)
    yield _END


def _renamed(body: bytes, number: int) -> bytes:
    """Under another handle, and where its actions have a cookie, under another one."""
    out = bytearray(body)
    struct.pack_into("=I", out, 8, number + 1)
    for at in range(0, len(out) - 16, 4):
        if out[at : at + 4] == b"\x14\0\6\0":  # TCA_ACT_COOKIE
            struct.pack_into("=Q", out, at + 4, number)
    return bytes(out)


def _message(body: bytes, kind: int = 44) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 2, 1, 0) + body


_END = _message(bytes(4), kind=3)


def _count(number: int) -> Cost:
    counters = FlowCounters()
    tally = counters.tally(FlowClass(path=Path.HARDWARE, protocol=Protocol.TCP, conntrack=True, layer=Layer.KERNEL))
    times = iter(range(0, 60 * READS, 60))

    def read() -> None:
        now = next(times)
        grown = ((n.to_bytes(16, "little"), tally, n + now, 1000 * (n + now), False) for n in range(number))
        assert counters.count(grown, now).flows

    return _cost(read)
