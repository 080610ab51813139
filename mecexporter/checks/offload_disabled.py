"""VFs' representors are in the integration bridge, and Open vSwitch is told to keep their traffic out of hardware."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.checks.base import Finding, Severity, check, unknown
from mecexporter.checks.offload import representors
from mecexporter.checks.offload_run import running
from mecexporter.checks.words import quoted
from mecexporter.state.datapath import Obstacle, Path
from mecexporter.state.observed import Fresh
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from mecexporter.checks.base import Verdict
    from mecexporter.state.ovs import OvsConf
    from mecexporter.state.world import World

_KEEPS_OUT = "skip_hw"
_ON = "ovs-vsctl set Open_vSwitch . other_config:hw-offload=true"
_FREE = "ovs-vsctl remove Open_vSwitch . other_config tc-policy"
_SWITCHED = {
    False: "their traffic is switched by the CPU",
    True: "from the next start of ovs-vswitchd on the CPU switches their traffic; the one that runs began otherwise",
}
"""By whether the ovs-vswitchd that runs is known to do otherwise."""
_AT_ONCE = "(Open vSwitch 3.1 takes it at once; its manual asks for a restart of ovs-vswitchd)"
_RESTART = "restart ovs-vswitchd in a maintenance window: it keeps to what it took before (traffic pauses)"


@check(
    severity=Severity.WARNING,
    title="representors are in the integration bridge, and hw-offload is off or tc-policy forbids hardware",
    roles=frozenset({Role.COMPUTE}),
    sources=("ovs", "sysfs"),
    alert_for="5m",
)
def offload_disabled(world: World) -> Verdict:
    """As configured and, where TC's filters show otherwise, as it runs."""
    if not isinstance(world.ovs, Fresh) or not isinstance(world.sysfs, Fresh):
        return unknown(world, "ovs", "sysfs")
    ovs = world.ovs.value
    known = representors(world)
    there = sorted(i.name for i in ovs.interfaces if i.bridge == ovs.integration_bridge and i.name in known)
    if not there or (said := _wrong(ovs, *_run(world))) is None:
        return ()
    what, remedy = said
    shown = ", ".join(quoted(name) for name in there[:3]) + (" …" if len(there) > 3 else "")
    return (
        Finding(
            subject=world.hostname,
            summary=f"{len(there)} representors are in bridge {quoted(ovs.integration_bridge)} ({shown}), and {what}",
            remedy=remedy,
            read_at=world.ovs.at,
        ),
    )


def _run(world: World) -> tuple[bool, str | None]:
    """Whether offload is known to run, and by which tc-policy, as TC's filters show it or it was seen to begin."""
    flows = world.tc.value.flows if isinstance(world.tc, Fresh) else {}
    run = running(world)
    known = run is not None and run.policy is not None
    if not known and flows and all(c.obstacle is Obstacle.SKIP_HW for c in flows):
        return True, _KEEPS_OUT
    on = any(c.path is Path.HARDWARE for c in flows) or bool(run and run.offload)
    return on, run.policy if run is not None else None


def _wrong(ovs: OvsConf, on: bool, policy: str | None) -> tuple[str, str] | None:
    """What is wrong and what to do, None where nothing is."""
    if not ovs.hw_offload:
        first = f"{_FREE}; " if ovs.tc_policy == _KEEPS_OUT else ""
        return f"other_config:hw-offload is off: {_SWITCHED[on]}", f"{first}{_ON} {_AT_ONCE}"
    if ovs.tc_policy == _KEEPS_OUT:
        other = policy not in (None, _KEEPS_OUT)
        return f"other_config:tc-policy is skip_hw: {_SWITCHED[other]}", f"{_FREE}; {_RESTART}"
    if policy == _KEEPS_OUT:
        now = quoted(ovs.tc_policy)
        return f"ovs-vswitchd runs with tc-policy skip_hw, though {now} is configured: the CPU switches all", _RESTART
    return None
