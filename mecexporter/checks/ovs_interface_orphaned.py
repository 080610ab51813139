"""An interface with an iface-id that ovn-controller has not installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.checks.base import Finding, Severity, Unknown, check, unknown
from mecexporter.checks.controller import controller_is_down
from mecexporter.checks.words import ovsdb_quoted, quoted
from mecexporter.state.observed import Fresh
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from mecexporter.checks.base import Verdict
    from mecexporter.state.world import World

HOLD = 60.0


@check(
    severity=Severity.WARNING,
    title="an interface with an iface-id has neither ovn-installed nor a flow for over 60 s, while ovn-controller runs",
    roles=frozenset({Role.COMPUTE}),
    sources=("openflow", "ovn_controller", "ovs"),
    alert_for="5m",
    follows=("system_id_changed", "system_id_missing", "chassis_unregistered", "integration_bridge_empty"),
)
def ovs_interface_orphaned(world: World) -> Verdict:
    """Read Interface.external_ids, and ask OpenFlow for the flows of ports without the mark: a localport has some.

    With ovn-controller down, that is the finding, and not each port of the host.
    """
    if not isinstance(world.ovs, Fresh) or not isinstance(world.openflow, Fresh):
        return unknown(world, "openflow", "ovs")
    down = controller_is_down(world)
    if down is None:
        return Unknown(("ovn_controller",))
    if down:
        return ()
    ovs, flows, at = world.ovs.value, world.openflow.value.from_port, world.openflow.at
    found = tuple(
        Finding(
            subject=f"{i.bridge}/{i.name}",
            summary=(
                f"interface {quoted(i.name)} asks for logical port {quoted(i.iface_id)}, not installed by OVN here"
            ),
            remedy=(
                f"see where OVN has it (ovn-sbctl find Port_Binding logical_port={ovsdb_quoted(i.iface_id)}); "
                f"if the port or its guest is gone: ovs-vsctl del-port {quoted(i.bridge)} {quoted(i.name)}"
            ),
            reads=2,
            hold=HOLD,
            read_at=at,
        )
        for i in ovs.uninstalled()
        if i.iface_id is not None and i.ofport is not None and flows.get(i.ofport) == 0
    )
    return Unknown(("openflow",)) if world.openflow.value.unasked and not found else found
