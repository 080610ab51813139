"""A chassis without flows; 'cannot tell' is never 0."""

from dataclasses import replace

import pytest

from mecexporter.checks.base import Unknown
from mecexporter.checks.integration_bridge_empty import integration_bridge_empty
from mecexporter.errors import Reason
from mecexporter.state.ovs import InterfaceKind
from mecexporter.state.world import World
from tests.checks.verdicts import AWKWARD, only_finding
from tests.worlds import (
    HOSTNAME,
    OVN_SETTINGS,
    SYSTEM_ID,
    changed,
    healthy_compute,
    interface,
    reinstalled_compute,
    without,
)

ask = integration_bridge_empty.ask


def no_bridge(world: World) -> World:
    return changed(world, "ovs", bridges=())


def never_healthy(world: World) -> World:
    return replace(world, memory=replace(world.memory, identity=None))


def test_flows_are_there() -> None:
    assert ask(healthy_compute()) == ()


def test_a_node_without_vms_has_the_eleven_of_ovn_itself() -> None:
    assert ask(changed(healthy_compute(), "openflow", flows=11)) == ()


def test_none() -> None:
    finding = only_finding(integration_bridge_empty, reinstalled_compute())
    assert (finding.subject, finding.hold, finding.reads) == (HOSTNAME, 30.0, 2)
    assert "br-int has no flows" in finding.summary
    assert finding.read_at == reinstalled_compute().openflow.at


def test_grace_is_as_configured() -> None:
    world = reinstalled_compute()
    world = replace(world, settings=replace(world.settings, grace_bridge=5.0))
    assert only_finding(integration_bridge_empty, world).hold == 5.0


@pytest.mark.parametrize("openflow", ["absent", "fresh"])
def test_no_bridge_is_known_from_the_database(openflow: str) -> None:
    world = no_bridge(healthy_compute())
    if openflow == "absent":
        world = without(world, "openflow", reason=Reason.MISSING)
    assert "there is no bridge br-int" in only_finding(integration_bridge_empty, world).summary


def test_a_bridge_that_is_only_a_row() -> None:
    unmade = interface("br-int", kind=InterfaceKind.INTERNAL, ofport=None)
    world = changed(without(healthy_compute(), "openflow", reason=Reason.MISSING), "ovs", interfaces=(unmade,))
    assert "there is no bridge br-int" in only_finding(integration_bridge_empty, world).summary
    assert ask(without(world, "vswitchd")) == Unknown(("openflow",)), "ovs-vswitchd may be starting"
    assert ask(without(world, "openflow", reason=Reason.TIMEOUT)) == Unknown(("openflow",))
    made = changed(world, "ovs", interfaces=(interface("br-int", kind=InterfaceKind.INTERNAL, ofport=65534),))
    assert ask(made) == Unknown(("openflow",))


def test_the_bridge_may_have_another_name() -> None:
    world = changed(reinstalled_compute(), "ovs", integration_bridge="br-ovn", bridges=())
    assert "no bridge br-ovn" in only_finding(integration_bridge_empty, world).summary


def test_the_flows_of_another_bridge_do_not_tell() -> None:
    world = changed(healthy_compute(), "openflow", bridge="br-old")
    assert ask(world) == Unknown(("openflow",))


def test_a_lost_remote_is_given_back_with_its_values() -> None:
    wiped = changed(reinstalled_compute(), "ovs", ovn_remote=None, ovn_settings={"hostname": HOSTNAME})
    remedy = only_finding(integration_bridge_empty, wiped).remedy
    assert "ovn-remote is gone: ovs-vsctl set Open_vSwitch . " in remedy
    assert "external_ids:ovn-remote='\"ssl:192.0.2.10:6642\"'" in remedy
    assert "hostname" not in remedy, "which is there"


def test_a_lost_encapsulation_is_given_back_with_its_values() -> None:
    kept = {key: value for key, value in OVN_SETTINGS.items() if key != "ovn-encap-ip"}
    empty = changed(healthy_compute(), "openflow", flows=0)
    remedy = only_finding(integration_bridge_empty, changed(empty, "ovs", encap_ips=(), ovn_settings=kept)).remedy
    assert remedy == (
        f"ovn-encap-ip is gone: ovs-vsctl set Open_vSwitch . external_ids:system-id={SYSTEM_ID} "
        "external_ids:ovn-encap-ip=192.0.2.1; "
        "then restart ovn-controller"
    )


def test_a_switch_that_was_never_a_chassis_may_be_empty() -> None:
    assert ask(never_healthy(changed(reinstalled_compute(), "ovs", ovn_remote=None))) == ()
    only_finding(integration_bridge_empty, never_healthy(reinstalled_compute()))  # ovn-remote calls it a chassis


@pytest.mark.parametrize(("source", "reason"), [("ovs", Reason.REFUSED), ("openflow", Reason.TIMEOUT)])
def test_without_a_source_it_cannot_tell(source: str, reason: Reason) -> None:
    assert ask(without(reinstalled_compute(), source, reason=reason)) == Unknown((source,))


@pytest.mark.parametrize("name", AWKWARD)
def test_names_with_anything_in_them(name: str) -> None:
    world = changed(reinstalled_compute(), "ovs", integration_bridge=name, bridges=())
    finding = only_finding(integration_bridge_empty, world)
    assert finding.subject == HOSTNAME
    assert name in finding.summary
