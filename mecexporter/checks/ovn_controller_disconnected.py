"""ovn-controller is dead, paused, or has no connection to Southbound."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.checks.base import Finding, Severity, Unknown, check
from mecexporter.checks.controller import is_dead
from mecexporter.checks.words import put_remote_back, restore_settings
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from mecexporter.checks.base import Verdict
    from mecexporter.state.world import World


@check(
    severity=Severity.CRITICAL,
    title="ovn-controller is dead, paused or not connected, in two reads",
    roles=frozenset({Role.COMPUTE}),
    sources=("ovn_controller",),
    alert_for="1m",
)
def ovn_controller_disconnected(world: World) -> Verdict:
    """Read its own words; 'connected' alone proves nothing, which is why other checks look at what it does."""
    controller = world.ovn_controller
    since = None
    if isinstance(controller, Absent):
        if not is_dead(controller):
            return Unknown(("ovn_controller",))
        summary, remedy = (
            f"ovn-controller is not running: {controller.why}",
            ("start it: systemctl start ovn-controller (if it runs with another run directory, set ovn.run_dir)"),
        )
        since = controller.since
    elif controller.value.paused:
        summary, remedy = "ovn-controller is paused", "ovn-appctl -t ovn-controller debug/resume"
    elif not controller.value.connected:
        summary, remedy = _not_connected(world)
    else:
        return ()
    return (
        Finding(subject=world.hostname, summary=summary, remedy=remedy, reads=2, read_at=controller.at, since=since),
    )


def _not_connected(world: World) -> tuple[str, str]:
    remote = world.ovs.value.ovn_remote if isinstance(world.ovs, Fresh) else None
    if isinstance(world.ovs, Fresh) and not remote:
        return "ovn-controller has no Southbound database: ovn-remote is not set", restore_settings(world)
    where = f" ({remote})" if remote else ""
    summary = f"ovn-controller is not connected to the Southbound database{where}"
    look = "see that the database answers from this host (ovsdb-client list-dbs)"
    if remote and (command := put_remote_back(world)):
        return summary, (
            f"ovn-remote is not what it was when this node was last healthy; to put that back: {command}. If the new "
            f"one is meant, {look}, and ovn-controller's log for certificates"
        )
    return summary, f"{look}, that ovn-remote is right, and ovn-controller's log for certificates"
