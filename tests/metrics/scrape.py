"""Expositions as a scraper reads them. ``python -m tests.metrics.scrape`` writes the golden files anew."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from mecexporter.metrics.registry import discover
from mecexporter.metrics.render import Renderer
from tests.worlds import (
    degraded_member,
    gre_conntrack,
    healthy_central,
    healthy_compute,
    healthy_offload,
    healthy_sriov,
    leaked_vf,
    neutron_drift,
    out_of_sync,
    reinstalled_compute,
    view_of,
)

if TYPE_CHECKING:
    from mecexporter.state.world import World

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]

GOLDEN = Path(__file__).parent / "golden"
WORLDS = {
    "compute_healthy": healthy_compute(),
    "compute_reinstalled": reinstalled_compute(),
    "sriov_healthy": healthy_sriov(),
    "sriov_leaked": leaked_vf(),
    "offload_healthy": healthy_offload(),
    "offload_gre_conntrack": gre_conntrack(),
    "central_healthy": healthy_central(),
    "central_out_of_sync": out_of_sync(),
    "neutron_drift": neutron_drift(),
    "member_degraded": degraded_member(),
}
_OWN_VERSIONS = re.compile(r"^(mecexporter_build_info){.*}", re.MULTILINE)


def exposition(world: World) -> str:
    return Renderer(discover()).render(view_of(world)).decode()


def golden(world: World) -> str:
    """Without what changes with each release of this program or of Python."""
    return _OWN_VERSIONS.sub(r"\1{}", exposition(world))


def series(world: World) -> Series:
    """(name, labels) -> value of every sample of a World."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exposition(world))
        for sample in family.samples
    }


def values(world: World, metric: str, *labels: str, **wanted: str) -> dict[tuple[str, ...], float]:
    """By some labels, the series of a family that have others as wanted."""
    found = {}
    for (name, pairs), value in series(world).items():
        given = dict(pairs)
        if name == metric and wanted.items() <= given.items():
            found[tuple(given[label] for label in labels)] = value
    return found


def names(found: Series) -> set[str]:
    return {name for name, _ in found}


if __name__ == "__main__":
    for name, world in WORLDS.items():
        (GOLDEN / f"{name}.txt").write_text(golden(world))
