"""A chassis whose integration bridge has no flows carries no traffic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.checks.base import Finding, Severity, Unknown, check
from mecexporter.checks.words import restore_settings
from mecexporter.errors import Reason
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.world import ENCAPSULATION, Role

if TYPE_CHECKING:
    from mecexporter.checks.base import Verdict
    from mecexporter.state.ovs import OvsConf
    from mecexporter.state.world import World


@check(
    severity=Severity.CRITICAL,
    title="the integration bridge has 0 visible flows or is missing, while ovn-remote or memory calls this a chassis",
    roles=frozenset({Role.COMPUTE}),
    sources=("openflow", "ovs"),
    alert_for="0s",
    follows=("system_id_changed", "system_id_missing", "chassis_unregistered", "ovn_controller_disconnected"),
)
def integration_bridge_empty(world: World) -> Verdict:
    """Believe OpenFlow's own count; 'no such bridge' comes from the database."""
    if not isinstance(world.ovs, Fresh):
        return Unknown(("ovs",))
    ovs = world.ovs.value
    name = ovs.integration_bridge
    if not ovs.ovn_remote and world.memory.identity is None:
        return ()
    if ovs.bridge(name) is None or _never_made(world, ovs):
        summary, at = f"there is no bridge {name}: no VM of this host has a network", world.ovs.at
    else:
        if not isinstance(world.openflow, Fresh) or world.openflow.value.bridge != name:
            return Unknown(("openflow",))
        if world.openflow.value.flows:
            return ()
        summary, at = f"{name} has no flows: no VM of this host has a network", world.openflow.at
    return (
        Finding(
            subject=world.hostname,
            summary=summary,
            remedy=_remedy(world, ovs),
            hold=world.settings.grace_bridge,
            reads=2,
            read_at=at,
        ),
    )


def _remedy(world: World, ovs: OvsConf) -> str:
    known = world.memory.identity.settings if world.memory.identity else {}
    gone = [] if ovs.ovn_remote else ["ovn-remote"]
    # Without an encapsulation ovn-controller keeps what flows there are, and writes none into an empty bridge.
    gone = gone or [key for key in ENCAPSULATION if known.get(key) and not ovs.ovn_settings.get(key)]
    if gone:
        are = "is" if len(gone) == 1 else "are"
        return f"{' and '.join(gone)} {are} gone: {restore_settings(world)}; then restart ovn-controller"
    return "mend what else is reported for this node first (its id, ovn-controller); then restart ovn-controller"


def _never_made(world: World, ovs: OvsConf) -> bool:
    """Whether the bridge is only a row: ovs-vswitchd lives, has made no port of its own for it, and listens nowhere.

    So it is where conf.db was wiped and what it then asks for can't be had (a kernel datapath without the module).
    """
    local = next((i for i in ovs.interfaces if i.bridge == i.name == ovs.integration_bridge), None)
    return (
        isinstance(world.vswitchd, Fresh)
        and isinstance(world.openflow, Absent)
        and world.openflow.reason is Reason.MISSING
        and (local is None or local.ofport is None or local.ofport < 0)
    )
