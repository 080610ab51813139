"""The kernel's connection tracking table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.metrics.registry import collector
from mecexporter.metrics.spec import Kind, Metric, Stability
from mecexporter.state.observed import Fresh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.metrics.registry import View
    from mecexporter.metrics.spec import Sample

ENTRIES = Metric(
    name="mec_conntrack_entries",
    help="Connections in the kernel's table, of this network namespace.",
    stability=Stability.STABLE,
)
LIMIT = Metric(name="mec_conntrack_limit", help="Connections that the kernel allows (nf_conntrack_max).")
OFFLOADED = Metric(
    name="mec_conntrack_offloaded_entries",
    help="Entries in a flow table, the NIC's (hardware) or the kernel's own (software); absent where it may not ask.",
    labels=("path",),
    stability=Stability.STABLE,
)
GRE = Metric(
    name="mec_conntrack_gre_entries",
    help="Connections of GRE, by whether they are in the NIC's flow table (hardware) or not (software).",
    labels=("path",),
)
GRE_PACKETS = Metric(
    name="mec_conntrack_gre_software_packets_total",
    help="Packets of connections of GRE that are not in hardware, since the exporter started, as far as it saw.",
    kind=Kind.COUNTER,
)
GRE_BYTES = Metric(name="mec_conntrack_gre_software_bytes_total", help="Bytes of these packets.", kind=Kind.COUNTER)


@collector(
    ENTRIES, LIMIT, OFFLOADED, GRE, GRE_PACKETS, GRE_BYTES, reads=lambda v: (v.world.conntrack, v.world.applicable)
)
def conntrack(view: View) -> Iterator[Sample]:
    """As the kernel tells it, as far as this user may ask."""
    if "conntrack" not in view.world.applicable or not isinstance(view.world.conntrack, Fresh):
        return
    table = view.world.conntrack.value
    yield ENTRIES(table.entries)
    if table.limit is not None:
        yield LIMIT(table.limit)
    for path, number in sorted((table.offloaded or {}).items()):
        yield OFFLOADED(number, path=path)
    if table.gre is not None:
        for path, number in sorted(table.gre.entries.items()):
            yield GRE(number, path=path)
        if table.gre.software is not None:
            yield GRE_PACKETS(table.gre.software.packets)
            yield GRE_BYTES(table.gre.software.bytes)
