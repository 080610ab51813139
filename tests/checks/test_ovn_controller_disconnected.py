"""ovn-controller dead, paused or not connected; silence is none of them."""

from dataclasses import replace

import pytest

from mecexporter.checks.base import Unknown
from mecexporter.checks.ovn_controller_disconnected import ovn_controller_disconnected
from mecexporter.errors import Reason
from tests.checks.verdicts import only_finding
from tests.worlds import HOSTNAME, OVN_SETTINGS, REMOTE, changed, healthy_compute, reinstalled_compute, without

ask = ovn_controller_disconnected.ask


def test_connected_and_running() -> None:
    assert ask(healthy_compute()) == ()


def test_what_it_calls_connected_is_taken_though_all_else_fails() -> None:
    assert ask(reinstalled_compute()) == ()


@pytest.mark.parametrize("reason", [Reason.MISSING, Reason.REFUSED])
def test_dead(reason: Reason) -> None:
    world = without(healthy_compute(), "ovn_controller", "no pidfile", reason, ago=42)
    finding = only_finding(ovn_controller_disconnected, world)
    assert finding.subject == HOSTNAME
    assert finding.summary == "ovn-controller is not running: no pidfile"
    assert finding.remedy.startswith(
        "start it: systemctl start ovn-controller (if it runs with another run directory, "
    )
    assert finding.since == world.now - 42, "the grace runs from the first call that failed"
    assert finding.reads == 2


def test_paused_still_says_connected() -> None:
    finding = only_finding(ovn_controller_disconnected, changed(healthy_compute(), "ovn_controller", paused=True))
    assert finding.summary == "ovn-controller is paused"
    assert finding.remedy == "ovn-appctl -t ovn-controller debug/resume"


def test_not_connected_names_the_remote() -> None:
    finding = only_finding(ovn_controller_disconnected, changed(healthy_compute(), "ovn_controller", connected=False))
    assert "not connected to the Southbound database (ssl:192.0.2.10:6642)" in finding.summary


def test_not_connected_to_the_remote_that_was_always_there() -> None:
    finding = only_finding(ovn_controller_disconnected, changed(healthy_compute(), "ovn_controller", connected=False))
    assert finding.remedy == (
        "see that the database answers from this host (ovsdb-client list-dbs), that ovn-remote is right, and "
        "ovn-controller's log for certificates"
    )


def test_not_connected_to_another_remote_than_that_of_its_health() -> None:
    world = changed(healthy_compute(), "ovn_controller", connected=False)
    wrong = OVN_SETTINGS | {"ovn-remote": "tcp:192.0.2.99:6642"}
    world = changed(world, "ovs", ovn_remote=wrong["ovn-remote"], ovn_settings=wrong)
    finding = only_finding(ovn_controller_disconnected, world)
    assert "(tcp:192.0.2.99:6642)" in finding.summary
    assert finding.remedy.startswith(
        "ovn-remote is not what it was when this node was last healthy; to put that back: "
        f"""ovs-vsctl set Open_vSwitch . external_ids:ovn-remote='"{REMOTE}"'. If the new one is meant, """
    )
    world = replace(world, memory=replace(world.memory, identity=None))
    assert only_finding(ovn_controller_disconnected, world).remedy.startswith("see that the database answers")


def test_not_connected_as_there_is_no_remote() -> None:
    world = changed(changed(healthy_compute(), "ovn_controller", connected=False), "ovs", ovn_remote=None)
    finding = only_finding(ovn_controller_disconnected, world)
    assert "ovn-remote is not set" in finding.summary
    assert finding.remedy.startswith("ovs-vsctl set Open_vSwitch . external_ids:system-id=")


def test_it_needs_no_other_source() -> None:
    world = changed(healthy_compute(), "ovn_controller", connected=False)
    for source in ("ovs", "vswitchd", "openflow", "chassis_lookup", "host"):
        world = without(world, source)
    assert only_finding(ovn_controller_disconnected, world).summary.endswith("Southbound database")


@pytest.mark.parametrize("reason", sorted(set(Reason) - {Reason.MISSING, Reason.REFUSED}))
def test_any_other_failure_cannot_tell(reason: Reason) -> None:
    assert ask(without(healthy_compute(), "ovn_controller", reason=reason)) == Unknown(("ovn_controller",))
