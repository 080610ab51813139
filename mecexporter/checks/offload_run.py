"""What ovs-vswitchd offloads by, which is not always what is configured: a fold from one World to the next."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mecexporter.state.observed import Fresh
from mecexporter.state.ovs import OffloadRun

if TYPE_CHECKING:
    from mecexporter.state.ovs import OvsConf
    from mecexporter.state.world import World

_SETTLED = 5.0  # seconds after its start from which on a read of its database is one that it has seen
_YOUNG = 120.0  # seconds after its start within which nobody changes what is configured


def follow(world: World) -> OffloadRun | None:
    """What is known of the ovs-vswitchd that was looked at last; the same object if nothing changed.

    What was configured counts only if it was read between two signs of life of the same process.
    """
    run, conf, daemon = world.memory.offload, world.ovs, world.vswitchd
    if not isinstance(conf, Fresh) or not isinstance(daemon, Fresh) or daemon.value.process is None:
        return run
    since_start = conf.at - (daemon.at - daemon.value.age)
    if conf.at > daemon.at or since_start < _SETTLED:
        return run
    if run is None or run.process != daemon.value.process:
        run = OffloadRun(process=daemon.value.process)
    return _judge(run, conf.value, young=since_start < _YOUNG)


def running(world: World) -> OffloadRun | None:
    """What is known of the ovs-vswitchd that runs now."""
    run = world.memory.offload
    fresh = isinstance(world.vswitchd, Fresh) and run is not None and world.vswitchd.value.process == run.process
    return run if fresh else None


def _judge(run: OffloadRun, conf: OvsConf, *, young: bool) -> OffloadRun:
    if not conf.hw_offload:
        return replace(run, offload=False) if run.offload is None and young else run
    if not run.offload:
        return replace(run, offload=True, policy=conf.tc_policy, policy_known=young or run.offload is False)
    if conf.tc_policy != run.policy and not run.policy_known:
        return replace(run, policy_known=True)
    return run
