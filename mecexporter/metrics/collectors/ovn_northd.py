"""ovn-northd of this host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.metrics.registry import collector
from mecexporter.metrics.spec import Metric, Stability
from mecexporter.state.observed import Fresh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.metrics.registry import View
    from mecexporter.metrics.spec import Sample

ACTIVE = Metric(
    name="mec_ovn_northd_active",
    help=(
        "Whether this host's northd calls itself active (1), or stands by or is paused (0). Beside a standby of OVS "
        "3.5 or newer it does so without effect."
    ),
    stability=Stability.STABLE,
)
PAUSED = Metric(
    name="mec_ovn_northd_paused",
    help="Whether this host's northd is paused (1) or not (0).",
    stability=Stability.STABLE,
)
CONNECTED = Metric(
    name="mec_ovn_northd_connected",
    help="Whether this host's northd is connected to the database (1) or not (0).",
    labels=("db",),
    stability=Stability.STABLE,
)


@collector(ACTIVE, PAUSED, CONNECTED, reads=lambda v: (v.world.northd, v.world.applicable))
def ovn_northd(view: View) -> Iterator[Sample]:
    """Its own words."""
    if "northd" in view.world.applicable and isinstance(view.world.northd, Fresh):
        northd = view.world.northd.value
        yield ACTIVE(northd.active)
        yield PAUSED(northd.paused)
        for db, connected in northd.connected.items():
            yield CONNECTED(connected, db=db)
