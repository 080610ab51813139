"""The exporter itself: roles, sources, process."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from mecexporter import __version__
from mecexporter.errors import Reason
from mecexporter.metrics.registry import collector
from mecexporter.metrics.spec import Kind, Metric, Stability
from mecexporter.state.observed import Fresh
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.metrics.registry import View
    from mecexporter.metrics.spec import Sample

BUILD = Metric(
    name="mecexporter_build_info",
    help="The exporter's version and the Python it runs on.",
    kind=Kind.INFO,
    labels=("version", "python"),
    stability=Stability.STABLE,
)
ROLE = Metric(
    name="mecexporter_role",
    help="Whether this node has the role (1) or not (0).",
    labels=("role",),
    stability=Stability.STABLE,
)
UP = Metric(
    name="mecexporter_source_up",
    help="Whether the source answered lately (1) or not (0); absent where it does not apply.",
    labels=("source",),
    stability=Stability.STABLE,
)
LAST_SUCCESS = Metric(
    name="mecexporter_source_last_success_timestamp_seconds",
    help="When the source last answered, as Unix time; absent if it never did.",
    labels=("source",),
    stability=Stability.STABLE,
)
ERRORS = Metric(
    name="mecexporter_source_errors_total",
    help="Reads of a source that failed, by reason.",
    kind=Kind.COUNTER,
    labels=("source", "reason"),
    stability=Stability.STABLE,
)
DURATION = Metric(
    name="mecexporter_source_duration_seconds",
    help="How long the last read of a source took.",
    labels=("source",),
    stability=Stability.STABLE,
)
CPU = Metric(
    name="process_cpu_seconds_total",
    help="User and system CPU time of the exporter in seconds.",
    kind=Kind.COUNTER,
    stability=Stability.STABLE,
)
RESIDENT = Metric(
    name="process_resident_memory_bytes",
    help="Resident memory of the exporter in bytes.",
    stability=Stability.STABLE,
)
START = Metric(
    name="process_start_time_seconds",
    help="When the exporter started, as Unix time.",
    stability=Stability.STABLE,
)
STATE_WRITABLE = Metric(
    name="mecexporter_state_saved",
    help="Whether what must outlive a restart could be written to state_dir (1) or not (0).",
)

_ERRORS = tuple(r for r in Reason if r is not Reason.PENDING)


@collector(BUILD, ROLE, reads=lambda v: (v.world.roles,))
def exporter(view: View) -> Iterator[Sample]:
    """What it is."""
    yield BUILD(1, version=__version__, python=platform.python_version())
    for role in Role:
        yield ROLE(role in view.world.roles, role=role)


@collector(
    UP,
    LAST_SUCCESS,
    ERRORS,
    DURATION,
    reads=lambda v: (v.world.applicable, v.world.status, v.world.skew, tuple(_up(v).items())),
)
def sources(view: View) -> Iterator[Sample]:
    """How each source fares; error counters begin at 0, so that their first step is seen."""
    for source, up in _up(view).items():
        status = view.world.status.get(source)
        yield UP(up, source=source)
        for reason in _ERRORS:
            yield ERRORS(status.errors.get(reason, 0) if status else 0, source=source, reason=reason)
        if status is not None and status.last_success is not None:
            yield LAST_SUCCESS(status.last_success + view.world.skew, source=source)
        if status is not None and status.duration is not None:
            yield DURATION(status.duration, source=source)


def _up(view: View) -> dict[str, bool]:
    return {s: isinstance(view.world.part(s), Fresh) for s in sorted(view.world.applicable)}


@collector(CPU, RESIDENT, START, STATE_WRITABLE, reads=lambda v: (v.world.process,))
def process(view: View) -> Iterator[Sample]:
    """Sampled by the exporter's own clock, not by the scrape."""
    own = view.world.process
    if own is None:
        return
    yield CPU(own.cpu_seconds)
    yield RESIDENT(own.resident_bytes)
    yield START(own.started)
    yield STATE_WRITABLE(own.state_saved)
