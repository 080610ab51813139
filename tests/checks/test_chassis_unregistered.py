"""Southbound's Chassis of the id that this node goes by."""

from dataclasses import replace
from typing import Any

import pytest

from mecexporter.checks.base import Unknown
from mecexporter.checks.chassis_unregistered import chassis_unregistered
from mecexporter.errors import Reason
from mecexporter.state.ovn import Chassis
from mecexporter.state.world import World
from tests.checks.verdicts import AWKWARD, findings, only_finding
from tests.worlds import HOSTNAME, SYSTEM_ID, changed, healthy_compute, reinstalled_compute, without

ask = chassis_unregistered.ask
NEW = "0badf00d-0000-4000-8000-000000000001"


def registered(**fields: Any) -> World:
    chassis = replace(Chassis(name=SYSTEM_ID, hostname=HOSTNAME, encap_ips=("192.0.2.1",)), **fields)
    ours = chassis.may_be(HOSTNAME, ("192.0.2.1",))
    return changed(healthy_compute(), "chassis_lookup", registered=chassis, ours=ours)


def test_it_is_registered() -> None:
    assert ask(healthy_compute()) == ()


def test_no_chassis_of_the_new_id() -> None:
    finding = only_finding(chassis_unregistered, reinstalled_compute())
    assert finding.subject == HOSTNAME
    assert f"Southbound (ssl:192.0.2.10:6642) has no Chassis {NEW}" in finding.summary
    assert f"external_ids:system-id={SYSTEM_ID}" in finding.remedy
    assert f"ovn-sbctl chassis-del {SYSTEM_ID}" in finding.remedy
    assert finding.reads == 2, "a node registers a moment after it starts"


def test_without_memory_the_old_id_is_the_one_southbound_has_for_this_hostname() -> None:
    world = reinstalled_compute()
    world = replace(world, memory=replace(world.memory, identity=None))
    assert f"external_ids:system-id={SYSTEM_ID}" in only_finding(chassis_unregistered, world).remedy


def test_a_node_that_never_registered_has_no_old_id() -> None:
    world = changed(healthy_compute(), "chassis_lookup", registered=None, ours=None, of_hostname=())
    assert "ovn-controller's log" in only_finding(chassis_unregistered, world).remedy


@pytest.mark.parametrize(
    ("fields", "ours"),
    [
        pytest.param({"hostname": HOSTNAME.upper()}, True, id="the hostname in another case"),
        pytest.param({"encap_ips": ("198.51.100.9",)}, True, id="our hostname, another address"),
        pytest.param({"hostname": "other"}, True, id="another hostname, our address"),
        pytest.param({"hostname": "other", "encap_ips": ("x", "192.0.2.1")}, True, id="one of the addresses is ours"),
        pytest.param({"hostname": "other", "encap_ips": ("198.51.100.9",)}, False, id="nothing is ours"),
        pytest.param({"hostname": f"{HOSTNAME}.example.com", "encap_ips": ()}, False, id="another domain, no address"),
        pytest.param({"hostname": "", "encap_ips": ()}, False, id="nothing is known of it"),
    ],
)
def test_whose_chassis_it_is(fields: dict[str, Any], ours: bool) -> None:
    found = findings(chassis_unregistered, registered(**fields))
    assert (not found) is ours
    if found:
        assert "not to this one" in found[0].summary
        assert "two hosts must not share one" in found[0].remedy


def test_with_nothing_to_compare_it_cannot_tell_whose_it_is() -> None:
    assert ask(changed(healthy_compute(), "chassis_lookup", ours=None)) == Unknown(("ovs",))


@pytest.mark.parametrize("down", [{"connected": False}, {"paused": True}])
def test_not_while_ovn_controller_is_down(down: dict[str, bool]) -> None:
    assert ask(changed(reinstalled_compute(), "ovn_controller", **down)) == ()


@pytest.mark.parametrize("dead", [Reason.MISSING, Reason.REFUSED])
def test_not_while_ovn_controller_is_dead(dead: Reason) -> None:
    assert ask(without(reinstalled_compute(), "ovn_controller", reason=dead)) == ()


def test_no_id_is_another_checks_matter() -> None:
    assert ask(changed(healthy_compute(), "ovs", system_id="")) == ()


def test_an_answer_about_another_id_is_none() -> None:
    assert ask(changed(healthy_compute(), "ovs", system_id=NEW)) == Unknown(("chassis_lookup",))


@pytest.mark.parametrize("source", ["host", "ovs", "chassis_lookup"])
def test_without_a_source_it_cannot_tell(source: str) -> None:
    assert ask(without(reinstalled_compute(), source)) == Unknown((source,))


@pytest.mark.parametrize("reason", [Reason.TIMEOUT, Reason.PERMISSION, Reason.GARBAGE, Reason.PENDING])
def test_a_silent_ovn_controller_is_not_a_dead_one(reason: Reason) -> None:
    assert ask(without(reinstalled_compute(), "ovn_controller", reason=reason)) == Unknown(("ovn_controller",))


@pytest.mark.parametrize("name", AWKWARD)
def test_names_with_anything_in_them(name: str) -> None:
    finding = only_finding(chassis_unregistered, registered(hostname=name, encap_ips=()))
    assert finding.subject == HOSTNAME
