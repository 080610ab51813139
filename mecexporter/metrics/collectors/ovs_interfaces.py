"""OVS interfaces: sums by kind for all, series of their own for uplinks, tunnels and what has errors."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mecexporter.metrics.registry import collector
from mecexporter.metrics.spec import Kind, Metric
from mecexporter.state.observed import Fresh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.metrics.registry import View
    from mecexporter.metrics.spec import Sample

SERIES_LIMIT = 256
"""Interfaces with series of their own, at most: a full mesh of tunnels grows with the site."""

COUNT = Metric(
    name="mec_ovs_interfaces",
    help="Interfaces of a bridge by kind: vif, tunnel, uplink, patch, internal, other.",
    labels=("bridge", "kind"),
)
FAILED = Metric(
    name="mec_ovs_interfaces_failed",
    help="Interfaces of a bridge for which Open vSwitch reports an error, by kind.",
    labels=("bridge", "kind"),
)
INSTALLED = Metric(
    name="mec_ovs_interfaces_installed",
    help="Interfaces of the integration bridge with an iface-id, by whether OVN has installed them (1) or not (0); "
    "absent before OVN 21.03, which has no mark of that.",
    labels=("bridge", "installed"),
)
KIND_PACKETS = Metric(
    name="mec_ovs_packets_total",
    help="Packets through the interfaces of a kind since the exporter started, as the switch sees the direction.",
    kind=Kind.COUNTER,
    labels=("kind", "direction"),
)
KIND_BYTES = Metric(
    name="mec_ovs_bytes_total",
    help="Bytes through the interfaces of a kind since the exporter started, as the switch sees the direction.",
    kind=Kind.COUNTER,
    labels=("kind", "direction"),
)
KIND_ERRORS = Metric(
    name="mec_ovs_errors_total",
    help="Packets with errors at the interfaces of a kind since the exporter started.",
    kind=Kind.COUNTER,
    labels=("kind", "direction"),
)
KIND_DROPPED = Metric(
    name="mec_ovs_dropped_packets_total",
    help="Packets dropped at the interfaces of a kind since the exporter started.",
    kind=Kind.COUNTER,
    labels=("kind", "direction"),
)
UP = Metric(
    name="mec_ovs_interface_up",
    help="Whether an uplink's or tunnel's link is up and it has an OpenFlow port and no error (1) or not (0).",
    labels=("bridge", "device", "kind"),
)
PACKETS = Metric(
    name="mec_ovs_interface_packets_total",
    help="Packets through one interface (uplinks, tunnels, and what has an error).",
    kind=Kind.COUNTER,
    labels=("bridge", "device", "direction"),
)
BYTES = Metric(
    name="mec_ovs_interface_bytes_total",
    help="Bytes through one interface (uplinks, tunnels, and what has an error).",
    kind=Kind.COUNTER,
    labels=("bridge", "device", "direction"),
)
ERRORS = Metric(
    name="mec_ovs_interface_errors_total",
    help="Packets with errors at one interface (uplinks, tunnels, and what has an error).",
    kind=Kind.COUNTER,
    labels=("bridge", "device", "direction"),
)
TRUNCATED = Metric(
    name="mec_ovs_interface_series_truncated",
    help="Uplinks, tunnels and failed interfaces beyond the limit, which have no series of their own.",
)


@collector(
    COUNT,
    FAILED,
    INSTALLED,
    reads=lambda v: (v.world.ovs, v.world.marks_installed(), v.world.applicable),
)
def ovs_interfaces(view: View) -> Iterator[Sample]:
    """Counts by bridge and kind."""
    if "ovs" not in view.world.applicable or not isinstance(view.world.ovs, Fresh):
        return
    ovs = view.world.ovs.value
    count = Counter((i.bridge, i.kind) for i in ovs.interfaces)
    failed = Counter((i.bridge, i.kind) for i in ovs.interfaces if i.error)
    for (bridge, kind), number in sorted(count.items()):
        yield COUNT(number, bridge=bridge, kind=kind)
        yield FAILED(failed[bridge, kind], bridge=bridge, kind=kind)
    bridge = ovs.integration_bridge
    installed = Counter(i.ovn_installed for i in ovs.interfaces if i.bridge == bridge and i.iface_id is not None)
    if ovs.bridge(bridge) is not None and view.world.marks_installed():
        for state in (False, True):
            yield INSTALLED(installed[state], bridge=bridge, installed=str(int(state)))


@collector(
    KIND_PACKETS,
    KIND_BYTES,
    KIND_ERRORS,
    KIND_DROPPED,
    UP,
    PACKETS,
    BYTES,
    ERRORS,
    TRUNCATED,
    reads=lambda v: (v.world.ovs, v.world.vswitchd, v.world.applicable),
)
def ovs_traffic(view: View) -> Iterator[Sample]:
    """Statistics are ovs-vswitchd's: without it those in the database stand still, and are left out."""
    world = view.world
    if (
        "ovs" not in world.applicable
        or not isinstance(world.ovs, Fresh)
        or ("vswitchd" in world.applicable and not isinstance(world.vswitchd, Fresh))
    ):
        return
    ovs = world.ovs.value
    for kind, sums in ovs.traffic_by_kind.items():
        for direction in ("rx", "tx"):
            yield KIND_PACKETS(getattr(sums, f"{direction}_packets"), kind=kind, direction=direction)
            yield KIND_BYTES(getattr(sums, f"{direction}_bytes"), kind=kind, direction=direction)
            yield KIND_ERRORS(getattr(sums, f"{direction}_errors"), kind=kind, direction=direction)
            yield KIND_DROPPED(getattr(sums, f"{direction}_dropped"), kind=kind, direction=direction)
    own = [i for i in ovs.interfaces if (i.bridge, i.name) in ovs.traffic]
    yield TRUNCATED(max(0, len(own) - SERIES_LIMIT))
    for i in own[:SERIES_LIMIT]:
        up = i.link_state != "down" and i.ofport is not None and i.ofport >= 0 and not i.error and i.bfd_state != "down"
        yield UP(up, bridge=i.bridge, device=i.name, kind=i.kind)
        sums = ovs.traffic[i.bridge, i.name]
        for direction in ("rx", "tx"):
            labels = {"bridge": i.bridge, "device": i.name, "direction": direction}
            yield PACKETS(getattr(sums, f"{direction}_packets"), **labels)
            yield BYTES(getattr(sums, f"{direction}_bytes"), **labels)
            yield ERRORS(getattr(sums, f"{direction}_errors"), **labels)
