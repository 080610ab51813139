"""What passed the NICs by which the cloud's traffic leaves this host, whoever carried it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.metrics.registry import collector
from mecexporter.metrics.spec import Kind, Metric
from mecexporter.state.observed import Fresh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.metrics.registry import View
    from mecexporter.metrics.spec import Sample
    from mecexporter.state.sriov import Links
    from mecexporter.state.world import World

_LABELS = ("device", "pf", "direction")

PACKETS = Metric(
    name="mec_uplink_packets_total",
    help="Packets through an uplink; a bond is told by its members, so that all of a node can be summed.",
    kind=Kind.COUNTER,
    labels=_LABELS,
)
BYTES = Metric(
    name="mec_uplink_bytes_total",
    help="Bytes through an uplink; a bond is told by its members, so that all of a node can be summed.",
    kind=Kind.COUNTER,
    labels=_LABELS,
)
ERRORS = Metric(
    name="mec_uplink_errors_total",
    help="Packets with errors at an uplink.",
    kind=Kind.COUNTER,
    labels=_LABELS,
)
DROPPED = Metric(
    name="mec_uplink_dropped_packets_total",
    help="Packets dropped at an uplink, those included that it missed for lack of buffers.",
    kind=Kind.COUNTER,
    labels=_LABELS,
)
SPEED = Metric(
    name="mec_uplink_speed_bytes_per_second",
    help="Speed of an uplink's link; absent without link.",
    labels=("device", "pf"),
)


def links_of(world: World) -> Links | None:
    """What the network stack tells, where it belongs to this node and is fresh."""
    return world.links.value if "links" in world.applicable and isinstance(world.links, Fresh) else None


@collector(PACKETS, BYTES, ERRORS, DROPPED, SPEED, reads=lambda v: (v.world.links, v.world.applicable))
def uplinks(view: View) -> Iterator[Sample]:
    """By netdev; ``pf`` is empty where the NIC is none that can have VFs."""
    links = links_of(view.world)
    for uplink in links.uplinks if links is not None else ():
        labels = {"device": uplink.device, "pf": uplink.pf}
        if uplink.speed is not None:
            yield SPEED(uplink.speed / 8, **labels)
        passed = links.statistics.get(uplink.device) if links is not None else None
        for direction in ("rx", "tx") if passed is not None else ():
            yield PACKETS(getattr(passed, f"{direction}_packets"), direction=direction, **labels)
            yield BYTES(getattr(passed, f"{direction}_bytes"), direction=direction, **labels)
            yield ERRORS(getattr(passed, f"{direction}_errors"), direction=direction, **labels)
            yield DROPPED(getattr(passed, f"{direction}_dropped"), direction=direction, **labels)
