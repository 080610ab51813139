"""Hosts of the site as records know them, so that rules see which of them nobody watches, and which may be down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.metrics.registry import collector
from mecexporter.metrics.spec import Kind, Metric
from mecexporter.state.observed import Fresh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.metrics.registry import View
    from mecexporter.metrics.spec import Sample
    from mecexporter.state.openstack import Cell
    from mecexporter.state.world import World

ENABLED = Metric(
    name="mec_nova_compute_service_enabled",
    help="Whether the host's nova-compute is enabled (1) or disabled (0); of each host whose records are read.",
    labels=("hostname",),
)
MAINTENANCE = Metric(
    name="mec_maintenance_host_info",
    help="A host of a chassis, or of Nova's, that this exporter's maintenance.hosts names; as OVN or Nova spells it.",
    kind=Kind.INFO,
    labels=("hostname",),
)


def _cells(world: World) -> tuple[Cell, ...]:
    return tuple(seen.value for n, seen in world.cells.items() if n in world.applicable and isinstance(seen, Fresh))


@collector(ENABLED, reads=lambda v: (v.world.cells, v.world.applicable))
def nova_services(view: View) -> Iterator[Sample]:
    """Each host once: one that several cells have is enabled if it is in any."""
    enabled: dict[str, bool] = {}
    for cell in _cells(view.world):
        for host in cell.hosts:
            enabled[host] = enabled.get(host, False) or host not in cell.disabled
    for host in sorted(enabled):
        yield ENABLED(enabled[host], hostname=host)


@collector(MAINTENANCE, reads=lambda v: (v.world.cells, v.world.ovn_chassis, v.world.applicable, v.world.settings))
def maintenance(view: View) -> Iterator[Sample]:
    """In their spelling, for rules can't compare names in any case."""
    world = view.world
    hosts = {host for cell in _cells(world) for host in cell.hosts}
    if "ovn_chassis" in world.applicable and isinstance(world.ovn_chassis, Fresh):
        hosts |= {chassis.hostname for chassis in world.ovn_chassis.value.chassis.values()}
    for host in sorted(hosts):
        if host.casefold() in world.settings.maintenance_hosts:
            yield MAINTENANCE(1, hostname=host)
