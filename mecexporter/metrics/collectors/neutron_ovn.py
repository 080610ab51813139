"""Neutron's objects by what Northbound holds of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mecexporter.checks.neutron_ovn_drift import SECOND_LOOK, neutron_ovn_drift, subject
from mecexporter.metrics.registry import collector
from mecexporter.metrics.spec import Metric, Stability
from mecexporter.state.neutron_ovn import State
from mecexporter.state.observed import Fresh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.metrics.registry import View
    from mecexporter.metrics.spec import Sample

OBJECTS = Metric(
    name="mec_neutron_ovn_objects",
    help="Neutron's objects by what Northbound holds of them: in_sync, missing, behind (normal for some minutes after "
    "many updates), ahead, or changed though of one revision; and rows of none (extra). Drift counts once two looks "
    "have shown it; until then the object counts as in_sync.",
    labels=("resource", "state"),
    stability=Stability.STABLE,
)


@collector(OBJECTS, reads=lambda v: (v.world.neutron_ovn, v.world.applicable, v.report.findings))
def neutron_ovn(view: View) -> Iterator[Sample]:
    """Of every kind, 0 too."""
    world, reported = view.world, view.report.findings.get(neutron_ovn_drift.name)
    if reported is None or not isinstance(world.neutron_ovn, Fresh):
        return
    audit, subjects = world.neutron_ovn.value, {finding.subject for finding in reported}
    counts = Counter(
        (drift.resource, drift.state)
        for drift in audit.drifts
        if subject(drift) in subjects or (drift.state is State.BEHIND and drift.age >= SECOND_LOOK)
    )
    for resource, ordered in audit.ordered.items():
        off = {state: counts[resource, state] for state in State}
        off[State.IN_SYNC] = max(0, ordered - sum(off.values()) + off[State.EXTRA])
        for state, number in off.items():
            yield OBJECTS(number, resource=resource, state=state)
