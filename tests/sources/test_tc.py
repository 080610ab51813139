"""Flows of TC: counted once, in hardware and out of it; through filters that are replaced, wrap, come and go."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mecexporter.errors import Reason, SourceError
from mecexporter.sources import tc
from mecexporter.sources.tc import TcSource
from mecexporter.state.datapath import Counted, FlowClass, FlowTable, Layer, Obstacle, Path, PortKind, Protocol
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.world import Settings, empty_world
from tests.sources.filters import (
    ARP,
    EGRESS,
    GONE,
    IN_HW,
    INGRESS,
    INGRESS_REDIR,
    IPV4,
    NOT_IN_HW,
    RECORDINGS,
    Kernel,
    Recorded,
    action,
    bodies,
    filter_,
    forwarding,
    stats,
)
from tests.sources.recordings import datagrams
from tests.worlds import NOW, nic

if TYPE_CHECKING:
    from collections.abc import Mapping

WORLD = empty_world(NOW, "h", Settings()).with_part("sysfs", Fresh(nic(devices=("p1",)), NOW))
HARDWARE = FlowClass(
    path=Path.HARDWARE, protocol=Protocol.TCP, conntrack=False, layer=Layer.TC, port_kind=PortKind.UPLINK
)
MISSED = replace(HARDWARE, path=Path.SOFTWARE, obstacle=Obstacle.MISSED)
SOFTWARE = replace(HARDWARE, path=Path.SOFTWARE)
BLOCK = -1


@pytest.fixture(name="kernel")
def a_kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """One PF, p1, with a hook for filters."""
    kernel = Kernel()
    kernel.qdisc(5)
    kernel.install(monkeypatch)
    return kernel


class Clock:
    """The monotonic clock, as far as the source reads it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return 0.0


@pytest.fixture(name="clock")
def a_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("mecexporter.sources.tc.time", clock)
    return clock


async def table(kernel: Kernel, *filters: bytes, source: TcSource | None = None) -> FlowTable:
    kernel.filters[5, INGRESS] = list(filters)
    return await (source or TcSource(60)).read(WORLD)


async def carried(kernel: Kernel, clock: Clock, before: list[bytes], after: list[bytes]) -> Mapping[FlowClass, Counted]:
    """Between two reads a minute apart, of flows that were known for long."""
    source = TcSource(60)
    for filters in (before, before, after):
        last = await table(kernel, *filters, source=source)
        clock.now += 60
    assert last.totals == last.window
    return {c: n for c, n in last.totals.items() if n.packets}


# -- classes


async def test_flow_in_hardware_counts_once_though_the_cpu_had_some_of_it(kernel: Kernel) -> None:
    found = await table(kernel, forwarding((100, 10_000), (90, 9_000)))
    assert found.flows == {HARDWARE: 1}
    assert found.young == {HARDWARE: 1}
    assert found.totals == {HARDWARE: Counted(), MISSED: Counted()}
    assert found.seconds is None


async def test_flow_that_the_hardware_refused(kernel: Kernel) -> None:
    assert (await table(kernel, forwarding((1, 100), flags=NOT_IN_HW))).flows == {SOFTWARE: 1}


async def test_flow_that_is_kept_out_of_hardware(kernel: Kernel) -> None:
    found = await table(kernel, forwarding((1, 100), flags=NOT_IN_HW | 1))
    assert found.flows == {replace(SOFTWARE, obstacle=Obstacle.SKIP_HW): 1}


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [(NOT_IN_HW, replace(SOFTWARE, port_kind=PortKind.INTERNAL)), (IN_HW, HARDWARE)],
    ids=["refused", "taken"],
)
async def test_flow_to_an_internal_port(kernel: Kernel, flags: int, wanted: FlowClass) -> None:
    """What the host itself receives is not expected in hardware, though some NICs take it."""
    found = await table(kernel, forwarding((100, 10_000), flags=flags, eaction=INGRESS_REDIR))
    assert found.flows == {wanted: 1}


async def test_flow_that_was_in_hardware_and_is_no_more(kernel: Kernel, clock: Clock) -> None:
    before = forwarding((100, 10_000), (90, 9_000))
    after = forwarding((130, 13_000), (95, 9_500), flags=NOT_IN_HW)
    assert await carried(kernel, clock, [before], [after]) == {HARDWARE: Counted(5, 500), SOFTWARE: Counted(25, 2_500)}
    assert (await table(kernel, after)).flows == {SOFTWARE: 1}


@pytest.mark.parametrize(
    ("keys", "changes"),
    [
        ([(8, IPV4), (9, b"\x2f")], {"protocol": Protocol.GRE}),
        ([(8, IPV4), (9, b"\x84")], {"protocol": Protocol.SCTP}),
        ([(8, IPV4), (9, b"\x59")], {"protocol": Protocol.OTHER}),
        ([(8, IPV4)], {"protocol": Protocol.OTHER, "hidden": True}),
        ([(8, ARP)], {"protocol": Protocol.OTHER, "ordinary": False}),
        ([(8, IPV4), (9, b"\x06"), (26, bytes(4))], {"port_kind": PortKind.TUNNEL}),
        ([(8, IPV4), (9, b"\x06"), (91, b"\x0a\0"), (92, b"\x0a\0")], {"conntrack": True}),
    ],
)
async def test_class(kernel: Kernel, keys: list[tuple[int, bytes]], changes: dict[str, Any]) -> None:
    assert (await table(kernel, forwarding(keys=keys))).flows == {replace(HARDWARE, **changes): 1}


async def test_port_is_named_for_gre_with_conntrack_in_software_alone(kernel: Kernel) -> None:
    gre = [(8, IPV4), (9, b"\x2f"), (91, b"\x0a\0"), (92, b"\x0a\0")]
    found = await table(
        kernel,
        forwarding((3, 300), flags=NOT_IN_HW, keys=gre),
        forwarding((3, 300), (2, 200), keys=gre, handle=2),
        forwarding((3, 300), flags=NOT_IN_HW, keys=gre[:2], handle=3),
    )
    named = {c for c in found.totals if c.port}
    assert {(c.port, c.path, c.obstacle) for c in named} == {
        ("p1", Path.SOFTWARE, Obstacle.NONE),
        ("p1", Path.SOFTWARE, Obstacle.MISSED),
    }
    assert all(c.protocol is Protocol.GRE and c.conntrack for c in named)


async def test_what_a_flow_comes_from(kernel: Kernel) -> None:
    kernel.devices |= {6: "eth0", 7: "br-int", 8: "tap0"}
    kernel.qdisc(6)
    kernel.qdisc(7, "clsact")
    kernel.qdisc(8, "noqueue")
    kernel.filters = {
        (5, INGRESS): [forwarding()],
        (6, INGRESS): [forwarding(device=6)] * 2,
        (7, EGRESS): [forwarding(device=7, handle=n) for n in range(3)],
    }
    pf = replace(nic(devices=("p1",)).pfs[0], representors={0: "eth0"})
    world = WORLD.with_part("sysfs", Fresh(replace(nic(), pfs=(pf,)), NOW))
    found = await TcSource(60).read(world)
    assert {c.port_kind: n for c, n in found.flows.items()} == {
        PortKind.UPLINK: 1,
        PortKind.REPRESENTOR: 1,
        PortKind.INTERNAL: 3,
    }
    assert kernel.asked == [(5, INGRESS), (6, INGRESS), (7, INGRESS), (7, EGRESS)]


async def test_filters_that_a_bonds_members_share_are_read_once(kernel: Kernel) -> None:
    kernel.devices |= {6: "p2", 9: "bond0"}
    kernel.qdiscs.clear()
    for device in (5, 6, 9):
        kernel.qdisc(device, "clsact", blocks={13: 22, 14: 23})
    gre = [(8, IPV4), (9, b"\x2f"), (91, b"\x0a\0"), (92, b"\x0a\0")]
    kernel.filters = {(BLOCK, 22): [forwarding(device=BLOCK, parent=22, keys=gre, flags=NOT_IN_HW)]}
    found = await TcSource(60).read(WORLD)
    assert kernel.asked == [(BLOCK, 22), (BLOCK, 23)]
    [(flow_class, number)] = found.flows.items()
    assert (flow_class.port_kind, flow_class.port, number) == (PortKind.UPLINK, "bond0,p1,p2", 1)


# -- counters


async def test_packets_are_counted_where_they_went(kernel: Kernel, clock: Clock) -> None:
    before, after = forwarding((100, 10_000), (90, 9_000)), forwarding((250, 25_000), (230, 23_000))
    assert await carried(kernel, clock, [before], [after]) == {
        HARDWARE: Counted(140, 14_000),
        MISSED: Counted(10, 1_000),
    }


async def test_what_the_cpu_begins_to_see_is_counted_from_nothing(kernel: Kernel, clock: Clock) -> None:
    source = TcSource(60)
    await table(kernel, forwarding((90, 9_000), (90, 9_000)), source=source)
    clock.now += 60
    found = await table(kernel, forwarding((97, 9_700), (90, 9_000)), source=source)
    assert found.totals == {HARDWARE: Counted(), MISSED: Counted(7, 700)}


async def test_beyond_32_bits(kernel: Kernel, clock: Clock) -> None:
    big = 1 << 32
    before, after = (
        forwarding((big - 5, big * 100), (big - 5, big * 100)),
        forwarding((big + 5, big * 101), (big + 5, big * 101)),
    )
    assert await carried(kernel, clock, [before], [after]) == {HARDWARE: Counted(10, big)}


async def test_packet_is_counted_at_its_last_chain(kernel: Kernel, clock: Clock) -> None:
    def flows(packets: int) -> list[bytes]:
        counted = stats((packets, packets * 100), (packets, packets * 100))
        first = filter_(action("ct", counted), action("gact", counted, number=2, verdict=0x20000006, age=100_000))
        return [first, forwarding((packets, packets * 100), (packets, packets * 100), chain=6)]

    assert await carried(kernel, clock, flows(10), flows(30)) == {HARDWARE: Counted(20, 2_000)}
    found = await table(kernel, *flows(1))
    assert {c.terminal: n for c, n in found.flows.items()} == {True: 1, False: 1}


@pytest.mark.parametrize(
    ("age", "packets"),
    [
        (3_000, 1500),  # put there half a minute ago: all of it is new
        (5_985, 1500),  # just after the last read
        (5_998, 500),  # perhaps before it
        (100_000, 500),  # long there
    ],
)
async def test_flow_that_was_replaced_and_has_overtaken_itself(
    kernel: Kernel, clock: Clock, age: int, packets: int
) -> None:
    before, after = forwarding((1000, 100_000), (1000, 100_000)), forwarding((1500, 150_000), (1500, 150_000), age=age)
    assert await carried(kernel, clock, [before], [after]) == {HARDWARE: Counted(packets, packets * 100)}


async def test_software_s_part_that_falls_is_not_counted_anew(kernel: Kernel, clock: Clock) -> None:
    """It is a difference of two counts, and the kernel may not have read them at one moment."""
    source, seen = TcSource(60), []
    for sum_, hardware in ((1000, 900), (1100, 1000), (1200, 1100), (1300, 1203), (1400, 1298)):
        found = await table(
            kernel, forwarding((sum_, sum_ * 100), (hardware, hardware * 100), age=100_000), source=source
        )
        seen.append({c.path: t.packets for c, t in found.totals.items()}[Path.SOFTWARE])
        clock.now += 60
    assert seen == [0, 0, 0, 0, 2]


async def test_filter_that_a_dump_left_out_is_not_counted_anew(kernel: Kernel, clock: Clock) -> None:
    """As the kernel does to one priority when another, dumped before it, goes meanwhile."""
    old, other = forwarding((9000, 900_000), (9000, 900_000)), forwarding((1, 100), (1, 100), handle=2)
    source = TcSource(60)
    for filters in ([old, other], [old, other], [other]):
        await table(kernel, *filters, source=source)
        clock.now += 60
    again = forwarding((9005, 900_500), (9005, 900_500))
    assert (await table(kernel, again, other, source=source)).totals[HARDWARE] == Counted(5, 500)


async def test_thousand_recorded_filters(kernel: Kernel, clock: Clock) -> None:
    scale = list(bodies("scale-1000.filters.bin"))
    source = TcSource(60)
    for _ in range(2):
        found = await table(kernel, *scale, source=source)
        clock.now += 1  # they were some two seconds old
    gre = replace(HARDWARE, protocol=Protocol.GRE, conntrack=True)
    assert (found.flows, found.young, found.seconds) == ({gre: 1000}, {gre: 1000}, 1)
    assert found.totals == {
        gre: Counted(),
        replace(gre, path=Path.SOFTWARE, obstacle=Obstacle.MISSED, port="p1"): Counted(),
    }


# -- a kernel that is disturbed, or of another mind


async def test_device_that_vanishes_takes_its_filters_with_it(kernel: Kernel) -> None:
    kernel.devices[6] = "p2"
    kernel.qdisc(6)
    kernel.qdisc(77)
    kernel.filters = {(5, INGRESS): GONE, (6, INGRESS): [forwarding(device=6)]}
    assert sum((await TcSource(60).read(WORLD)).flows.values()) == 1


async def test_no_device_with_filters_is_no_flow(kernel: Kernel) -> None:
    kernel.qdiscs.clear()
    found = await TcSource(60).read(WORLD)
    assert (found.flows, found.totals, kernel.asked) == ({}, {}, [])


async def test_disturbed_dump_is_asked_for_again_once(kernel: Kernel) -> None:
    kernel.disturbed = 1
    assert (await table(kernel, forwarding())).flows == {HARDWARE: 1}
    kernel.disturbed = 2
    with pytest.raises(SourceError) as caught:
        await table(kernel, forwarding())
    assert caught.value.reason is Reason.STALE


async def test_one_torn_filter_is_no_answer(kernel: Kernel) -> None:
    with pytest.raises(SourceError) as caught:
        await table(kernel, forwarding(), forwarding()[:-30])
    assert caught.value.reason is Reason.GARBAGE


async def test_kernel_that_refuses(kernel: Kernel) -> None:
    kernel.filters[5, INGRESS] = SourceError(Reason.PERMISSION, "the kernel says: Operation not permitted")
    with pytest.raises(SourceError) as caught:
        await TcSource(60).read(WORLD)
    assert caught.value.reason is Reason.PERMISSION


async def test_too_many_filters_are_no_part_of_them(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tc, "_MOST_FILTERS", 2)
    with pytest.raises(SourceError, match="more than 2 filters") as caught:
        await table(kernel, forwarding(), forwarding(), forwarding())
    assert caught.value.reason is Reason.TOO_LARGE


async def test_unknown_representors() -> None:
    world = WORLD.with_part("sysfs", Absent("no /sys", NOW, NOW))
    with pytest.raises(SourceError, match="no /sys") as caught:
        await TcSource(60).read(world)
    assert caught.value.reason is Reason.MISSING


# -- harm


@pytest.mark.parametrize(("cpu", "pause", "lifetime"), [(0.01, 60, 180), (0.5, 250, 750), (9, 300, 900)])
def test_longer_reads_are_rarer(cpu: float, pause: float, lifetime: float) -> None:
    source = TcSource(60)
    source._table.cpu_seconds = cpu
    assert (source.pause(FlowTable(seconds=60.0)), source.lifetime) == (pause, lifetime)
    assert source.pause(FlowTable()) == 60, "nothing can be judged before the second read"


def test_recorded_datagrams() -> None:
    with Recorded(list(datagrams(RECORDINGS / "gre-ct.p1.filters.bin"))) as route:
        dumps = tc._Dumps(route, time.monotonic() + 10)
        assert len(list(dumps.of(46, b""))) == len(list(bodies("gre-ct.p1.filters.bin")))


async def test_real_kernel_has_an_answer() -> None:
    """Of whatever devices this machine has; real filters: tests/e2e."""
    assert isinstance(await TcSource(60).read(WORLD), FlowTable)
