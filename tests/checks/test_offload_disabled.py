"""Representors whose traffic Open vSwitch is told to keep out of hardware."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mecexporter.checks.base import Unknown
from mecexporter.checks.offload_disabled import offload_disabled
from mecexporter.state.datapath import Obstacle
from mecexporter.state.observed import Fresh
from mecexporter.state.ovs import OffloadRun
from tests.checks.verdicts import findings, only_finding, reported
from tests.worlds import (
    ALICES,
    BOBS,
    HOSTNAME,
    READ,
    changed,
    flow,
    healthy_compute,
    healthy_offload,
    in_tc,
    interface,
    table,
    taps_alone,
    without,
)

if TYPE_CHECKING:
    from mecexporter.state.world import World


def no_tc(world: World) -> World:
    return world.with_part("tc", Fresh(table(), READ))


def test_healthy() -> None:
    for world in (healthy_offload(), healthy_compute(), taps_alone(), no_tc(healthy_offload())):
        assert findings(offload_disabled, world) == ()
    assert reported(offload_disabled, healthy_offload()) == ()


def test_hw_offload_is_off() -> None:
    finding = only_finding(offload_disabled, no_tc(changed(healthy_offload(), "ovs", hw_offload=False)))
    assert finding.subject == HOSTNAME
    assert finding.summary == (
        f"2 representors are in bridge br-int ({ALICES}, {BOBS}), and other_config:hw-offload is off: "
        "their traffic is switched by the CPU"
    )
    assert finding.remedy == (
        "ovs-vsctl set Open_vSwitch . other_config:hw-offload=true (Open vSwitch 3.1 takes it at once; its manual asks "
        "for a restart of ovs-vswitchd)"
    )


def test_it_is_off_and_still_runs() -> None:
    summary = only_finding(offload_disabled, changed(healthy_offload(), "ovs", hw_offload=False)).summary
    assert summary.endswith("; the one that runs began otherwise")


def test_tc_policy_forbids_hardware() -> None:
    finding = only_finding(offload_disabled, no_tc(changed(healthy_offload(), "ovs", tc_policy="skip_hw")))
    assert "other_config:tc-policy is skip_hw" in finding.summary
    assert finding.remedy.startswith("ovs-vsctl remove Open_vSwitch . other_config tc-policy; restart")
    assert finding.summary.endswith("by the CPU")


def test_both() -> None:
    world = no_tc(changed(healthy_offload(), "ovs", hw_offload=False, tc_policy="skip_hw"))
    remedy = only_finding(offload_disabled, world).remedy
    assert remedy.index("tc-policy") < remedy.index("hw-offload=true")  # it takes the policy of that moment


@pytest.mark.parametrize("policy", ["none", "skip_sw"])
def test_other_policies_are_no_trouble(policy: str) -> None:
    assert findings(offload_disabled, no_tc(changed(healthy_offload(), "ovs", tc_policy=policy))) == ()


def test_the_policy_was_changed_and_does_not_run_yet() -> None:
    kept_out = in_tc(obstacle=Obstacle.SKIP_HW)
    world = healthy_offload().with_part("tc", Fresh(table((kept_out, 5)), READ))
    finding = only_finding(offload_disabled, world)
    assert "runs with tc-policy skip_hw, though none is configured: " in finding.summary
    assert finding.remedy.startswith("restart ovs-vswitchd")
    some = world.with_part("tc", Fresh(table((kept_out, 5), (flow(), 0)), READ))
    assert findings(offload_disabled, some) == ()


def seen_running(world: World, policy: str) -> World:
    """An ovs-vswitchd that was watched when it began to offload."""
    run = OffloadRun(process="7 100", hw_offload=True, tc_policy=policy, offload=True, policy=policy)
    world = changed(world, "vswitchd", process=run.process)
    return replace(world, memory=replace(world.memory, offload=run))


def test_what_runs_was_seen() -> None:
    world = no_tc(healthy_offload())
    assert findings(offload_disabled, seen_running(world, "none")) == ()
    assert "runs with tc-policy skip_hw" in only_finding(offload_disabled, seen_running(world, "skip_hw")).summary
    off = seen_running(changed(world, "ovs", hw_offload=False), "none")
    assert only_finding(offload_disabled, off).summary.endswith("; the one that runs began otherwise")
    policy = seen_running(changed(world, "ovs", tc_policy="skip_hw"), "skip_sw")
    assert only_finding(offload_disabled, policy).summary.endswith("; the one that runs began otherwise")


def test_representors_elsewhere_are_not_meant() -> None:
    world = changed(healthy_offload(), "ovs", hw_offload=False, interfaces=(interface(ALICES, "br-other"),))
    assert findings(offload_disabled, world) == ()


def test_many_are_not_listed() -> None:
    names = [f"ens1f0npf0vf{n}" for n in range(4)]
    world = changed(healthy_offload(), "ovs", hw_offload=False, interfaces=tuple(interface(name) for name in names))
    assert (
        f"4 representors are in bridge br-int ({names[0]}, {names[1]}, {names[2]} …)"
        in only_finding(offload_disabled, world).summary
    )


@pytest.mark.parametrize("source", ["ovs", "sysfs"])
def test_cannot_tell(source: str) -> None:
    assert offload_disabled.ask(without(healthy_offload(), source)) == Unknown((source,))


@pytest.mark.parametrize("source", ["tc", "ovs_flows", "links", "conntrack"])
def test_can_do_without(source: str) -> None:
    world = changed(healthy_offload(), "ovs", hw_offload=False)
    assert len(findings(offload_disabled, without(world, source))) == 1
