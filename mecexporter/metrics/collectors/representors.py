"""What passed each VF by way of its representor, and whether hardware or the CPU carried it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.metrics.collectors.sriov import nic_of
from mecexporter.metrics.collectors.uplinks import links_of
from mecexporter.metrics.registry import collector
from mecexporter.metrics.spec import Kind, Metric, Stability
from mecexporter.state.datapath import Path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.metrics.registry import View
    from mecexporter.metrics.spec import Sample
    from mecexporter.state.ovs import Counters

_LABELS = ("device", "pf", "vf", "direction")

PACKETS = Metric(
    name="mec_representor_packets_total",
    help="Packets of a VF by who carried them (hardware, software); absent where its driver does not tell.",
    kind=Kind.COUNTER,
    labels=(*_LABELS, "path"),
    stability=Stability.STABLE,
)
BYTES = Metric(
    name="mec_representor_bytes_total",
    help="Bytes of a VF by who carried them (hardware, software); absent where its driver does not tell.",
    kind=Kind.COUNTER,
    labels=(*_LABELS, "path"),
    stability=Stability.STABLE,
)
ALL_PACKETS = Metric(
    name="mec_representor_traffic_packets_total",
    help="Packets of a VF as its representor counts them, whoever carried them; direction as the guest sees it.",
    kind=Kind.COUNTER,
    labels=_LABELS,
)
ALL_BYTES = Metric(
    name="mec_representor_traffic_bytes_total",
    help="Bytes of a VF as its representor counts them, whoever carried them; direction as the guest sees it.",
    kind=Kind.COUNTER,
    labels=_LABELS,
)
TRUNCATED = Metric(
    name="mec_representor_series_truncated",
    help="Representors beyond the limit, which have no series.",
)


@collector(
    PACKETS,
    BYTES,
    ALL_PACKETS,
    ALL_BYTES,
    TRUNCATED,
    reads=lambda v: (v.world.sysfs, v.world.links, v.world.applicable),
)
def representors(view: View) -> Iterator[Sample]:
    """Nothing where a host has no representors."""
    nic, links = nic_of(view.world), links_of(view.world)
    if nic is None or links is None or not any(pf.representors for pf in nic.pfs):
        return
    yield TRUNCATED(links.left_out)
    for pf in nic.pfs:
        for vf, device in sorted(pf.representors.items()):
            every, cpu = links.statistics.get(device), links.cpu_hit.get(device)
            if every is not None:
                yield from _representor(every, cpu, device=device, pf=pf.address, vf=str(vf))


def _representor(every: Counters, cpu: Counters | None, **device: str) -> Iterator[Sample]:
    for direction, seen in (("rx", "tx"), ("tx", "rx")):  # what a representor sends, its VF receives
        labels = {**device, "direction": direction}
        for unit, metric, by_path in (("packets", ALL_PACKETS, PACKETS), ("bytes", ALL_BYTES, BYTES)):
            total = getattr(every, f"{seen}_{unit}")
            yield metric(total, **labels)
            if cpu is not None:
                software = getattr(cpu, f"{seen}_{unit}")
                yield by_path(total - software, path=Path.HARDWARE, **labels)
                yield by_path(software, path=Path.SOFTWARE, **labels)
