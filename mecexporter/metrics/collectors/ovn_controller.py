"""ovn-controller, and what it has put into the integration bridge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.metrics.registry import collector
from mecexporter.metrics.spec import Kind, Metric, Stability
from mecexporter.state.observed import Fresh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.metrics.registry import View
    from mecexporter.metrics.spec import Sample

CONNECTED = Metric(
    name="mec_ovn_controller_connected",
    help="Whether ovn-controller says it is connected to Southbound (1) or not (0); true even if all it writes fails.",
    stability=Stability.STABLE,
)
PAUSED = Metric(
    name="mec_ovn_controller_paused",
    help="Whether ovn-controller is paused (1) or not (0).",
    stability=Stability.STABLE,
)
TXN_ERRORS = Metric(
    name="mec_ovn_controller_txn_errors_total",
    help="Transactions of ovn-controller that failed, since it started.",
    kind=Kind.COUNTER,
    stability=Stability.STABLE,
)
FLOWS = Metric(
    name="mec_integration_bridge_flows",
    help="OpenFlow flows of the integration bridge, as OpenFlow counts them.",
    labels=("bridge",),
    stability=Stability.STABLE,
)
NB_CFG = Metric(
    name="mec_integration_bridge_nb_cfg",
    help="The nb_cfg that ovn-controller has installed in the bridge; absent before the first.",
    labels=("bridge",),
    stability=Stability.STABLE,
)


@collector(CONNECTED, PAUSED, TXN_ERRORS, reads=lambda v: (v.world.ovn_controller,))
def ovn_controller(view: View) -> Iterator[Sample]:
    """Its own words."""
    if isinstance(view.world.ovn_controller, Fresh):
        controller = view.world.ovn_controller.value
        yield CONNECTED(controller.connected)
        yield PAUSED(controller.paused)
        yield TXN_ERRORS(controller.txn_errors)


@collector(FLOWS, NB_CFG, reads=lambda v: (v.world.openflow, v.world.ovs, v.world.applicable))
def integration_bridge(view: View) -> Iterator[Sample]:
    """The count by OpenFlow, the number by the database."""
    world = view.world
    if isinstance(world.openflow, Fresh):
        yield FLOWS(world.openflow.value.flows, bridge=world.openflow.value.bridge)
    if "ovs" in world.applicable and isinstance(world.ovs, Fresh):
        bridge = world.ovs.value.bridge(world.ovs.value.integration_bridge)
        if bridge is not None and bridge.nb_cfg is not None:
            yield NB_CFG(bridge.nb_cfg, bridge=bridge.name)
