"""What the datapaths' flows carried: in hardware, in software and why, and the share of hardware."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mecexporter.checks.offload import BESIDE, TABLES, hit_ratios, reason
from mecexporter.errors import Reason
from mecexporter.metrics.registry import collector
from mecexporter.metrics.spec import Kind, Metric, Stability
from mecexporter.state.datapath import Path, Protocol, Why
from mecexporter.state.observed import Fresh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.metrics.registry import View
    from mecexporter.metrics.spec import Sample
    from mecexporter.state.datapath import FlowTable
    from mecexporter.state.world import World

_CLASS = ("path", "protocol", "conntrack")
_WHY = ("reason", "protocol", "conntrack")

FLOWS = Metric(
    name="mec_datapath_flows",
    help="Flows of the datapaths, TC's filters among them, by who carries their packets.",
    labels=_CLASS,
    stability=Stability.STABLE,
)
PACKETS = Metric(
    name="mec_datapath_packets_total",
    help="Packets that flows carried since the exporter started, as far as it saw; each is counted at its last flow.",
    kind=Kind.COUNTER,
    labels=_CLASS,
    stability=Stability.STABLE,
)
BYTES = Metric(
    name="mec_datapath_bytes_total",
    help="Bytes of these packets; TC may leave out their 14 bytes of Ethernet.",
    kind=Kind.COUNTER,
    labels=_CLASS,
    stability=Stability.STABLE,
)
RATIO = Metric(
    name="mec_offload_hit_ratio",
    help=(
        "Share of ordinary packets or bytes (no ARP, ND, DHCP, slow path) that hardware carried over the last "
        "interval, flows under 10 s old left out; absent where there were none, or nothing here could carry them."
    ),
    labels=("unit", "protocol"),
    stability=Stability.STABLE,
)
SOFTWARE_FLOWS = Metric(
    name="mec_datapath_software_flows",
    help="Flows that are not in hardware, by why; young: under 10 s old, it may be on its way there.",
    labels=_WHY,
)
SOFTWARE_PACKETS = Metric(
    name="mec_datapath_software_packets_total",
    help="Packets that software carried since the exporter started, by why, as it was known when they were read.",
    kind=Kind.COUNTER,
    labels=_WHY,
)
SOFTWARE_BYTES = Metric(
    name="mec_datapath_software_bytes_total",
    help="Bytes of these packets.",
    kind=Kind.COUNTER,
    labels=_WHY,
)
YOUNG = Metric(name="mec_datapath_young_flows", help="Flows under 10 s old, in hardware or not.")
WINDOW = Metric(
    name="mec_datapath_window_seconds",
    help="Time between the last two reads of a source's flows: the interval of mec_offload_hit_ratio.",
    labels=("source",),
)
SKIPPED = Metric(
    name="mec_datapath_detail_skipped",
    help="Whether flows were too many to be read one by one (1) or not (0).",
    labels=("source",),
)


@collector(
    FLOWS,
    PACKETS,
    BYTES,
    RATIO,
    SOFTWARE_FLOWS,
    SOFTWARE_PACKETS,
    SOFTWARE_BYTES,
    YOUNG,
    WINDOW,
    SKIPPED,
    reads=lambda v: (
        v.world.tc,
        v.world.ovs_flows,
        v.world.ovs,
        v.world.sysfs,
        v.world.links,
        v.world.software,
        v.world.applicable,
    ),
)
def datapath_flows(view: View) -> Iterator[Sample]:
    """A number is told where every source that has a part in it answers."""
    world = view.world
    known = [name for name in TABLES if name in world.applicable]
    tables = {name: part.value for name in known if isinstance(part := world.part(name), Fresh)}
    yield from _carried(tables, _whole(world, tables))
    if len(tables) == len(TABLES):
        for (unit, protocol), ratio in sorted(hit_ratios(world).items()):
            yield RATIO(ratio, unit=unit, protocol=protocol)
        yield from _software(world, tables)
        yield YOUNG(sum(sum(table.young.values()) for table in tables.values()))
    for name, table in tables.items():
        if table.seconds is not None:
            yield WINDOW(table.seconds, source=name)
    for name in sorted(known):
        part = world.part(name)
        if isinstance(part, Fresh) or part.reason is Reason.TOO_LARGE:
            yield SKIPPED(not isinstance(part, Fresh), source=name)


def _whole(world: World, tables: dict[str, FlowTable]) -> frozenset[Path]:
    """The paths of which every flow is known: TC alone has those in hardware, but for user-space datapaths."""
    if len(tables) == len(TABLES):
        return frozenset(Path)
    kernel = isinstance(world.ovs, Fresh) and all(b.datapath_type != "netdev" for b in world.ovs.value.bridges)
    return frozenset({Path.HARDWARE}) if kernel and "tc" in tables else frozenset()


def _carried(tables: dict[str, FlowTable], paths: frozenset[Path]) -> Iterator[Sample]:
    """A class that was seen once stays."""
    flows, packets, octets = (Counter[tuple[Path, Protocol, bool]]() for _ in range(3))
    for table in tables.values():
        for c in {*table.flows, *table.totals}:
            key = (c.path, c.protocol, c.conntrack)
            flows[key] += table.flows.get(c, 0)
            if c in table.totals:
                packets[key] += table.totals[c].packets
                octets[key] += table.totals[c].bytes
    for metric, numbers in ((FLOWS, flows), (PACKETS, packets), (BYTES, octets)):
        for (path, protocol, conntrack), number in sorted(numbers.items()):
            if path in paths:
                yield metric(number, path=path, protocol=protocol, conntrack=_truth(conntrack))


def _software(world: World, tables: dict[str, FlowTable]) -> Iterator[Sample]:
    flows = Counter[tuple[Why, Protocol, bool]](dict.fromkeys(world.software.carried, 0))
    for table in tables.values():
        for c, number in table.flows.items():
            if c.path is not Path.HARDWARE:
                why = reason(c, world)
                young = 0 if why in BESIDE else table.young.get(c, 0)
                flows[why, c.protocol, c.conntrack] += number - young
                if young:
                    flows[Why.YOUNG, c.protocol, c.conntrack] += young
    for (why, protocol, conntrack), number in sorted(flows.items()):
        yield SOFTWARE_FLOWS(number, reason=why, protocol=protocol, conntrack=_truth(conntrack))
    for metric, unit in ((SOFTWARE_PACKETS, "packets"), (SOFTWARE_BYTES, "bytes")):
        for (why, protocol, conntrack), counted in sorted(world.software.carried.items()):
            yield metric(getattr(counted, unit), reason=why, protocol=protocol, conntrack=_truth(conntrack))


def _truth(value: bool) -> str:
    return "1" if value else "0"
