"""What it costs to read the flows of Open vSwitch's datapaths, and what ovs-vswitchd pays for it.

The kernel's are messages of the form and size that a kernel sends (343 to 500 bytes), made here; what the kernel needs
to make them is not in the figures. The user-space datapath is a real ovs-vswitchd's.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.flow_counters import FlowCounters
from mecexporter.sources.ovs_flows import OvsFlowsSource, _counted
from mecexporter.sources.wire import dpctl
from mecexporter.sources.wire.netlink import attribute
from mecexporter.sources.wire.ovs_netlink import FlowReader
from mecexporter.sources.wire.unixctl import UnixctlClient
from mecexporter.state.datapath import FlowClass, Layer
from mecexporter.state.observed import Fresh
from mecexporter.state.ovs import Bridge
from mecexporter.state.sriov import Nic
from mecexporter.state.world import Settings, empty_world
from tests.bench.measure import Row, memory
from tests.sources import ovs_messages as ovs
from tests.sources.daemons import Node, ovs_node, run
from tests.waiting import wait_until
from tests.worlds import healthy_ovs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mecexporter.sources.flow_counters import Tally
    from mecexporter.sources.wire.ovs_netlink import Shape

FLOWS = 100_000
READS = 3


def of_the_kernel(flows: int = FLOWS) -> list[Row]:
    """Flows by netlink."""
    return _rows("flow of the kernel", flows, _messages, "under 10 us")


def of_text(flows: int = FLOWS) -> list[Row]:
    """Flows as dump-flows shows them."""
    return _rows("line of dump-flows", flows, _lines, "under 3 us")


def _rows(what: str, flows: int, made: Callable[[int], Callable[[], Iterable[_Flow]]], target: str) -> list[Row]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        seconds, extra = pool.apply(_counting, (made, flows))
    return [
        Row(
            f"{what}, CPU",
            f"{seconds / flows * 1e6:.1f} us",
            target,
            f"{flows} of them, read and counted; best of {READS}",
        ),
        Row(
            f"{what}, memory",
            f"{extra / 2**20 + 0.05:.1f} MiB",
            "under 32 MiB",
            f"{flows} of them, beside what was read",
        ),
    ]


_Flow = tuple[bytes, "Shape", Any, int, int]
"""Identifier, shape, port (a number or a name), packets, bytes."""


def _counting(made: Callable[[int], Callable[[], Iterable[_Flow]]], flows: int) -> tuple[float, int]:
    """CPU seconds of a read, and bytes of memory that reads took at most, counters of each flow included."""
    read = made(flows)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    before = memory(os.getpid(), "VmHWM")
    counters = FlowCounters()

    def tally(shape: Shape, port: object) -> Tally:
        return counters.tally(
            FlowClass(
                path=shape.path,
                protocol=shape.protocol,
                conntrack=shape.conntrack,
                layer=Layer.KERNEL,
                terminal=shape.terminal,
                port=str(port) if shape.conntrack else "",
            )
        )

    best = float("inf")
    for n in range(READS):
        began = time.process_time()
        counters.count(_counted(read(), tally), 100.0 * n)
        best = min(best, time.process_time() - began)
    return best, memory(os.getpid(), "VmHWM") - before


def _messages(flows: int) -> Callable[[], Iterable[_Flow]]:
    chance, bodies = random.Random(1), []  # noqa: S311  # no secret
    tunnel = ovs.action(
        ovs.SET, attribute(16, ovs.nested({0: bytes(8), 2: bytes(4), 4: b"\x40", 6: b"", 10: bytes(2)}))
    )
    for _ in range(flows):
        proto = chance.choice([1, 6, 17, 47])
        key = {6: b"\x08\0", 7: chance.randbytes(8) + bytes((proto, 0, 64, 0))}
        mask = {6: b"\xff\xff", 7: bytes(8) + b"\xff\0\0\xff"}
        if proto in (6, 17):
            key[9 if proto == 6 else 10], mask[9 if proto == 6 else 10] = chance.randbytes(4), b"\0\0\xff\xff"
        actions = chance.choice(
            [[ovs.ct(), ovs.recirc(chance.randrange(1000))], [ovs.output()], [tunnel, ovs.output()]]
        )
        port = chance.randrange(1, 130)
        bodies.append(
            ovs.flow(key, mask, *actions, ufid=chance.randbytes(16), packets=chance.getrandbits(30), in_port=port)
        )
    reader = FlowReader()
    return lambda: map(reader.read, bodies)


def _lines(flows: int) -> Callable[[], Iterable[_Flow]]:
    chance, lines = random.Random(1), ["flow-dump from pmd on cpu core: 2\n"]  # noqa: S311  # no secret
    layer4 = {6: ",tcp(src=1000/0,dst={0})", 17: ",udp(src=1000/0,dst={0})", 1: ",icmp(type=8/0,code=0/0)", 47: ""}
    for n in range(flows):
        proto = chance.choice(list(layer4))
        address = ".".join(str(byte) for byte in chance.randbytes(4))
        actions = chance.choice([f"ct(zone=5),recirc(0x{chance.randrange(1000):x})", f"p{chance.randrange(200)}"])
        lines.append(
            f"ufid:{n:08x}-c814-491a-a778-caea4c4572d7, skb_priority(0/0),skb_mark(0/0),ct_state(0x21/0x23),"
            f"ct_zone(0/0),ct_mark(0/0),ct_label(0/0),recirc_id(0),dp_hash(0/0),in_port(p{chance.randrange(130)}),packet_type(ns=0,id=0),"
            "eth(src=50:54:00:00:00:05/00:00:00:00:00:00,dst=50:54:00:00:00:07/00:00:00:00:00:00),eth_type(0x0800),"
            f"ipv4(src={address}/0.0.0.0,dst={address},proto={proto},tos=0/0,ttl=64/0,frag=no)"
            f"{layer4[proto].format(chance.randrange(1000))}, packets:{chance.getrandbits(30)}, "
            f"bytes:{chance.getrandbits(40)}, used:1.208s, dp:ovs, actions:{actions}, "
            "dp-extra-info:miniflow_bits(4,2)\n"
        )
    text = "".join(lines).encode()
    return lambda: dpctl.flows(text)


def beside_vswitchd(few: int = 3000, many: int = FLOWS) -> list[Row]:
    """How long another's command waits at most while we read a user-space datapath of so many flows."""
    with ovs_node() as node:
        node.vsctl("set", "open_vswitch", ".", "other_config:max-idle=3600000", "other_config:flow-limit=1000000")
        node.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
        for n in (1, 2):
            node.vsctl("add-port", "br0", f"p{n}", "--", "set", "interface", f"p{n}", "type=dummy")
        _appctl(node, "upcall/set-flow-limit", "1000000")
        run("ovs-ofctl", "del-flows", f"unix:{node.management('br0')}")
        run("ovs-ofctl", "add-flow", f"unix:{node.management('br0')}", "actions=2")
        rows = []
        for begin, flows in ((0, few), (few, many)):
            _fill(node, begin, flows)
            alone, beside, said = asyncio.run(_waits(node))
            how = f"{said}; {alone * 1e3:.0f} ms without us"
            rows.append(
                Row(f"another's command beside us, {flows} flows", f"{beside * 1e3:.0f} ms", "under 100 ms", how)
            )
    return rows


def _appctl(node: Node, *command: str) -> str:
    return run("ovs-appctl", "-t", str(node.vswitchd.control), *command)


def _fill(node: Node, begin: int, end: int) -> None:
    """Datapath flows that ovs-vswitchd finds in order and keeps."""
    file = node.run_dir / "flows"
    for first in range(begin, end, 10_000):  # within the tool's patience
        file.write_text(
            "".join(
                "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth(src=50:54:00:00:00:05,dst=50:54:00:00:00:07),"
                f"eth_type(0x0800),ipv4(src=10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255},dst=10.0.0.2,proto=6,tos=0,"
                "ttl=64,frag=no),tcp(src=1000,dst=80) 2\n"
                for n in range(first, min(first + 10_000, end))
            )
        )
        _appctl(node, "dpctl/add-flows", "netdev@ovs-netdev", str(file))
    wait_until(lambda: f"(current {end})" in _appctl(node, "upcall/show"), 60, "the flows are there")


async def _waits(node: Node) -> tuple[float, float, str]:
    """Longest wait without us and with us, seconds; what our source said."""
    nothing = empty_world(0, "bench", Settings())
    bridge = Bridge(name="br0", nb_cfg=None, datapath_type="netdev")
    world = replace(
        nothing,
        ovs=Fresh(replace(healthy_ovs(), bridges=(bridge,)), 0),
        sysfs=Fresh(Nic(pfs=(), addresses=frozenset(), processes_seen=True), 0),
    )
    other, source = UnixctlClient(lambda: node.vswitchd.control, deadline=30), OvsFlowsSource(node.run_dir, None, 60)

    async def longest(while_: asyncio.Task[str]) -> float:
        worst = 0.0
        while not while_.done():
            began = time.perf_counter()
            await other.run("version")
            worst = max(worst, time.perf_counter() - began)
        return worst

    async def read() -> str:
        said = ""
        for _ in range(5):
            try:
                table = await source.read(world)
                said = f"{sum(table.flows.values())} flows read"
            except SourceError as error:
                if error.reason is not Reason.TOO_LARGE:
                    raise
                said = "detail skipped"
        return said

    async def nobody() -> str:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.Event().wait()
        return ""

    try:
        alone = await longest(asyncio.create_task(nobody()))
        reading = asyncio.create_task(read())
        beside = await longest(reading)
        return alone, beside, await reading
    finally:
        other.close()
        await source.close()
