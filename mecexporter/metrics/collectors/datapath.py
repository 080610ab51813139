"""The datapath's lookups and the flows that ovs-vswitchd keeps in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.metrics.registry import collector
from mecexporter.metrics.spec import Kind, Metric
from mecexporter.state.observed import Fresh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.metrics.registry import View
    from mecexporter.metrics.spec import Sample

LOOKUPS = Metric(
    name="mec_datapath_lookups_total",
    help="Flow lookups of the datapath: hit a flow, missed (an upcall to ovs-vswitchd), lost (the upcall was dropped).",
    kind=Kind.COUNTER,
    labels=("datapath", "result"),
)
UPCALL_FLOWS = Metric(
    name="mec_upcall_flows",
    help="Flows that ovs-vswitchd's revalidators keep in the datapath.",
    labels=("datapath",),
)
UPCALL_LIMIT = Metric(
    name="mec_upcall_flow_limit",
    help="Flows that ovs-vswitchd allows in the datapath now; it falls when revalidating takes too long.",
    labels=("datapath",),
)
UPCALL_DUMP = Metric(
    name="mec_upcall_dump_duration_seconds",
    help="How long the last revalidation of all flows took.",
    labels=("datapath",),
)


@collector(LOOKUPS, UPCALL_FLOWS, UPCALL_LIMIT, UPCALL_DUMP, reads=lambda v: (v.world.vswitchd,))
def datapath(view: View) -> Iterator[Sample]:
    """As ovs-vswitchd tells it."""
    if not isinstance(view.world.vswitchd, Fresh):
        return
    for d in view.world.vswitchd.value.datapaths:
        for result, value in (("hit", d.hit), ("missed", d.missed), ("lost", d.lost)):
            yield LOOKUPS(value, datapath=d.name, result=result)
    for u in view.world.vswitchd.value.upcalls:
        yield UPCALL_FLOWS(u.flows, datapath=u.datapath)
        yield UPCALL_LIMIT(u.flow_limit, datapath=u.datapath)
        if u.dump_duration_seconds is not None:
            yield UPCALL_DUMP(u.dump_duration_seconds, datapath=u.datapath)
