"""What ovs-vswitchd was seen to run with; and that a real one behaves as is taken for granted."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mecexporter.checks.offload_run import follow, running
from mecexporter.state.observed import Fresh
from tests.sources.daemons import ovs_node
from tests.waiting import wait_until
from tests.worlds import NOW, changed, healthy_compute, without

if TYPE_CHECKING:
    from mecexporter.state.ovs import OffloadRun
    from mecexporter.state.world import World
    from tests.sources.daemons import Node


class Watch:
    """An exporter that reads both sources, 15 s apart; ``read`` is the conf's moment, just before the daemon's."""

    def __init__(self) -> None:
        self.world = healthy_compute()
        self.now, self.age, self.process = NOW, 86400.0, "a"

    def see(self, policy: str = "none", *, on: bool) -> OffloadRun | None:
        self.now, self.age = self.now + 15, self.age + 15
        self._tell(policy, on=on, conf_at=self.now - 1)
        self.world = replace(self.world, memory=replace(self.world.memory, offload=follow(self.world)))
        return running(self.world)

    def restart(self) -> None:
        self.process, self.age = self.process + "+", -5.0

    def _tell(self, policy: str, *, on: bool, conf_at: float) -> None:
        world = changed(self.world, "ovs", hw_offload=on, tc_policy=policy)
        world = changed(world, "vswitchd", process=self.process, age=self.age)
        self.world = _read_at(_read_at(world, "ovs", conf_at), "vswitchd", self.now)


def _read_at(world: World, source: str, when: float) -> World:
    part = world.part(source)
    assert isinstance(part, Fresh)
    return world.with_part(source, replace(part, at=when))


def known(run: OffloadRun | None) -> tuple[bool | None, str | None]:
    """Whether it offloads, and the policy that it took."""
    assert run is not None
    return run.offload, run.policy


def test_one_that_was_started_anew_under_watch() -> None:
    watch = Watch()
    watch.see("skip_sw", on=True)
    watch.restart()
    assert known(watch.see("skip_sw", on=True)) == (True, "skip_sw")
    assert known(watch.see("none", on=True)) == (True, "skip_sw"), "a change has no effect"
    assert known(watch.see("none", on=False)) == (True, "skip_sw"), "it is not switched off either"
    assert known(watch.see("skip_hw", on=True)) == (True, "skip_sw")
    watch.restart()
    assert known(watch.see("skip_hw", on=True)) == (True, "skip_hw")


def test_one_that_does_not_offload_until_it_is_told_to() -> None:
    watch = Watch()
    watch.see(on=False)
    watch.restart()
    assert known(watch.see("none", on=False)) == (False, None)
    assert known(watch.see("skip_hw", on=False)) == (False, None)
    assert known(watch.see("none", on=True)) == (True, "none"), "at once, with the policy of that moment"
    assert known(watch.see("skip_hw", on=False)) == (True, "none")


def test_one_that_began_before_it_was_watched() -> None:
    watch = Watch()
    assert known(watch.see("skip_sw", on=True)) == (True, None), "the policy may have been changed since"
    assert known(watch.see("none", on=True)) == (True, None)
    assert known(watch.see("none", on=False)) == (True, None)


def test_one_that_was_not_watched_and_is_not_configured_to_offload_may_do_so_still() -> None:
    watch = Watch()
    assert known(watch.see(on=False)) == (None, None)
    assert known(watch.see(on=True)) == (True, None)


def test_a_change_next_to_a_restart_may_have_been_before_or_after_it() -> None:
    watch = Watch()
    watch.see("none", on=True)
    watch.restart()
    assert known(watch.see("skip_sw", on=True)) == (True, None)
    watch.restart()
    assert known(watch.see("skip_sw", on=False)) == (None, None)


def test_a_restart_is_not_judged_by_what_was_read_before_it() -> None:
    watch = Watch()
    watch.see(on=True)
    watch.restart()
    watch.now, watch.age = watch.now + 15, 2.0
    watch._tell("none", on=True, conf_at=watch.now - 3)  # read a second before the start; switched off in between
    before = watch.world.memory.offload
    assert follow(watch.world) is before
    assert running(watch.world) is None, "what was known was of the one before"
    assert known(watch.see(on=False)) == (None, None)


def test_what_was_read_after_the_last_sign_of_life_may_be_its_successors() -> None:
    watch = Watch()
    before = watch.see(on=True)
    watch._tell("none", on=False, conf_at=watch.now + 5)
    assert follow(watch.world) is before


def test_nothing_new_is_the_same_object() -> None:
    watch = Watch()
    first = watch.see(on=True)
    assert watch.see(on=True) is first


@pytest.mark.parametrize("source", ["ovs", "vswitchd"])
def test_without_a_source_what_is_known_stays_and_is_not_told_of_who_is_not_seen(source: str) -> None:
    watch = Watch()
    run = watch.see(on=True)
    blind = without(watch.world, source)
    assert follow(blind) is run
    assert running(blind) is (run if source == "ovs" else None)


def test_a_process_that_proc_does_not_show() -> None:
    world = changed(changed(healthy_compute(), "ovs", hw_offload=True), "vswitchd", process=None)
    assert (follow(world), running(world)) == (None, None)


# The real one, with dummy devices: when it looks at hw-offload, and when it does not.


def said(node: Node) -> list[str]:
    """What it said of offloading, in order."""
    log = (node.run_dir / "ovs-vswitchd.log").read_text()
    return re.findall(r"Flow API Enabled|Flow HW offload is enabled|Using policy '\w+'", log)


def test_a_real_one_begins_at_once_and_keeps_to_it() -> None:
    def configure(**other: str) -> None:  # returns when ovs-vswitchd has taken it in
        node.vsctl("set", "Open_vSwitch", ".", *(f"other_config:{k.replace('_', '-')}={v}" for k, v in other.items()))

    with ovs_node() as node:
        configure(tc_policy="skip_sw")
        assert said(node) == [], "a policy alone is none"
        configure(hw_offload="true")
        # Newer ones say the policy only where the kernel has the datapath. The log is written a moment later.
        ways = ["Flow API Enabled", "Using policy 'skip_sw'"], ["Flow HW offload is enabled"]
        wait_until(lambda: said(node) in ways, 10, "it offloads without a restart")
        begun = said(node)
        configure(tc_policy="skip_hw")
        configure(hw_offload="false")
        configure(hw_offload="true", tc_policy="none")
        node.vswitchd.stop()
        assert said(node) == begun, "it did not stop, and took no other policy"
        node.vswitchd.start()
        anew = [*begun, *(line.replace("skip_sw", "none") for line in begun)]
        wait_until(lambda: said(node) == anew, 10, "what is configured is taken at the next start")
