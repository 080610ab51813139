"""ovn-controller and ovn-northd from inside: what they compute anew, how long their turns take, what they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.metrics.registry import collector
from mecexporter.metrics.spec import Kind, Metric
from mecexporter.state.observed import Fresh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.metrics.registry import View
    from mecexporter.metrics.spec import Sample
    from mecexporter.state.ovn_daemon import Work

RECOMPUTES = Metric(
    name="mec_ovn_full_recomputes_total",
    help="How often an OVN daemon of this host has computed all logical flows anew, since it started.",
    kind=Kind.COUNTER,
    labels=("daemon",),
)
RUNS = Metric(
    name="mec_ovn_engine_runs_total",
    help=(
        "How often each node of its incremental processing engine was brought up to date: by a recompute, by computing"
        " what changed, or not, as that was cancelled. Without the nodes that only take in a table of a database."
    ),
    kind=Kind.COUNTER,
    labels=("daemon", "engine_node", "kind"),
)
SAMPLES = Metric(
    name="mec_ovn_stopwatch_samples_total",
    help=(
        "How many times a stopwatch of an OVN daemon was stopped: flow-generation and flow-installation are a turn of"
        " ovn-controller, ovn-northd-loop one of ovn-northd."
    ),
    kind=Kind.COUNTER,
    labels=("daemon", "stopwatch"),
)
AVERAGE = Metric(
    name="mec_ovn_stopwatch_average_seconds",
    help="What that took, on average of about the last hundred times.",
    labels=("daemon", "stopwatch"),
)
P95 = Metric(
    name="mec_ovn_stopwatch_p95_seconds",
    help="The 95th percentile of what that took.",
    labels=("daemon", "stopwatch"),
)
LONGEST = Metric(
    name="mec_ovn_stopwatch_max_seconds",
    help="The longest that it took since the daemon started.",
    labels=("daemon", "stopwatch"),
)
LONG_POLLS = Metric(
    name="mec_ovn_long_polls_total",
    help="Turns of its main loop that an OVN daemon calls unreasonably long; absent where its release does not count.",
    kind=Kind.COUNTER,
    labels=("daemon",),
)
CPU = Metric(
    name="mec_ovn_process_cpu_seconds_total",
    help="CPU time that an OVN daemon has used since it started; absent where its process can't be seen.",
    kind=Kind.COUNTER,
    labels=("daemon",),
)
RESIDENT = Metric(
    name="mec_ovn_process_resident_memory_bytes",
    help="Memory that an OVN daemon holds; absent where its process can't be seen.",
    labels=("daemon",),
)
CELLS = Metric(
    name="mec_ovn_idl_cells",
    help="Cells (columns of rows) of the copy of a database that an OVN daemon holds.",
    labels=("daemon", "db"),
)
CACHE_ENABLED = Metric(
    name="mec_ovn_lflow_cache_enabled",
    help="Whether ovn-controller's cache of logical flows is enabled (1) or not (0).",
)
CACHE_ENTRIES = Metric(
    name="mec_ovn_lflow_cache_entries",
    help="What ovn-controller's cache of logical flows holds.",
)
CACHE_BYTES = Metric(
    name="mec_ovn_lflow_cache_size_bytes",
    help="Memory that it takes, in steps of 1024.",
)
CACHE_TRIMS = Metric(
    name="mec_ovn_lflow_cache_trims_total",
    help="How often ovn-controller has given memory of it back.",
    kind=Kind.COUNTER,
)
CACHE_LOOKUPS = Metric(
    name="mec_ovn_lflow_cache_lookups_total",
    help="How often ovn-controller has looked into it, by result: hit or miss.",
    kind=Kind.COUNTER,
    labels=("result",),
)


@collector(
    RECOMPUTES,
    RUNS,
    SAMPLES,
    AVERAGE,
    P95,
    LONGEST,
    LONG_POLLS,
    CPU,
    RESIDENT,
    CELLS,
    reads=lambda v: (v.world.ovn_controller, v.world.northd, v.world.applicable),
)
def ovn_daemons(view: View) -> Iterator[Sample]:
    """Of each that answers; what its release does not tell is left out."""
    for daemon, of in _works(view):
        for metric, value in (
            (RECOMPUTES, of.full_recomputes),
            (LONG_POLLS, of.long_polls),
            (CPU, of.cpu_seconds),
            (RESIDENT, of.resident_bytes),
        ):
            if value is not None:
                yield metric(value, daemon=daemon)
        for node, numbers in of.engine.items():
            for kind, number in numbers.items():
                yield RUNS(number, daemon=daemon, engine_node=node, kind=kind)
        for name, watch in of.stopwatches.items():
            yield SAMPLES(watch.samples, daemon=daemon, stopwatch=name)
            yield AVERAGE(watch.average, daemon=daemon, stopwatch=name)
            yield P95(watch.p95, daemon=daemon, stopwatch=name)
            yield LONGEST(watch.longest, daemon=daemon, stopwatch=name)
        for db, cells in of.idl_cells.items():
            yield CELLS(cells, daemon=daemon, db=db)


@collector(
    CACHE_ENABLED, CACHE_ENTRIES, CACHE_BYTES, CACHE_TRIMS, CACHE_LOOKUPS, reads=lambda v: (v.world.ovn_controller,)
)
def lflow_cache(view: View) -> Iterator[Sample]:
    """ovn-controller alone has one."""
    if not isinstance(view.world.ovn_controller, Fresh):
        return
    of = view.world.ovn_controller.value.work
    if (cache := of.lflow_cache) is not None:
        yield CACHE_ENABLED(cache.enabled)
        yield CACHE_ENTRIES(cache.entries)
        if cache.size_bytes is not None:
            yield CACHE_BYTES(cache.size_bytes)
        if cache.trims is not None:
            yield CACHE_TRIMS(cache.trims)
    for result, number in of.lflow_cache_lookups.items():
        yield CACHE_LOOKUPS(number, result=result)


def _works(view: View) -> Iterator[tuple[str, Work]]:
    world = view.world
    if isinstance(world.ovn_controller, Fresh):
        yield "ovn-controller", world.ovn_controller.value.work
    if "northd" in world.applicable and isinstance(world.northd, Fresh):
        yield "ovn-northd", world.northd.value.work
