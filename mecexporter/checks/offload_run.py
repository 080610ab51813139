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


def follow(world: World) -> OffloadRun | None:
    """What is known of the ovs-vswitchd that was looked at last; the same object if nothing changed.

    What was configured counts only if it was read between two signs of life of the same process.
    """
    run, conf, daemon = world.memory.offload, world.ovs, world.vswitchd
    if not isinstance(conf, Fresh) or not isinstance(daemon, Fresh) or daemon.value.process is None:
        return run
    start = daemon.at - daemon.value.age
    if not start + _SETTLED <= conf.at <= daemon.at:
        return run
    return _judge(run, daemon.value.process, conf.value)


def running(world: World) -> OffloadRun | None:
    """What is known of the ovs-vswitchd that runs now."""
    run = world.memory.offload
    fresh = isinstance(world.vswitchd, Fresh) and run is not None and world.vswitchd.value.process == run.process
    return run if fresh else None


def _judge(last: OffloadRun | None, process: str, conf: OvsConf) -> OffloadRun:
    on, policy = conf.hw_offload, conf.tc_policy
    same = last is not None and (last.hw_offload, last.tc_policy) == (on, policy)
    if last is None or last.process != process:  # what was configured before its start and is so after it, it took
        known = (on, policy if on else None) if same else (on or None, None)
        return OffloadRun(process=process, hw_offload=on, tc_policy=policy, offload=known[0], policy=known[1])
    if same:
        return last
    run = replace(last, hw_offload=on, tc_policy=policy)
    if on and not run.offload:
        return replace(run, offload=True, policy=policy if run.offload is False else None)
    return run
