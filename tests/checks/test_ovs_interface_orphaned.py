"""Interfaces that ask for a logical port which OVN has not put here."""

import shlex
from typing import Any

import pytest

from mecexporter.checks.base import Unknown
from mecexporter.checks.ovs_interface_orphaned import HOLD, ovs_interface_orphaned
from mecexporter.errors import Reason
from mecexporter.state.ovs import InterfaceKind
from mecexporter.state.world import World
from tests.checks.verdicts import AWKWARD, only_finding
from tests.worlds import changed, healthy_compute, interface, without

ask = ovs_interface_orphaned.ask


def with_vif(from_port: dict[int, int], **fields: Any) -> World:
    given: dict[str, Any] = {"name": "tap1", "ovn_installed": False, "ofport": 5}
    vif = interface(**given | fields)
    return changed(changed(healthy_compute(), "ovs", interfaces=(vif,)), "openflow", from_port=from_port)


def test_all_are_installed() -> None:
    assert ask(healthy_compute()) == ()


def test_an_orphan_has_neither_the_mark_nor_a_flow() -> None:
    finding = only_finding(ovs_interface_orphaned, with_vif({5: 0}))
    assert finding.subject == "br-int/tap1"
    assert finding.summary == "interface tap1 asks for logical port port-of-tap1, not installed by OVN here"
    assert "ovn-sbctl find Port_Binding logical_port=port-of-tap1" in finding.remedy
    assert finding.remedy.endswith("ovs-vsctl del-port br-int tap1")
    assert (finding.hold, finding.reads) == (HOLD, 2)


@pytest.mark.parametrize(
    "world",
    [
        pytest.param(with_vif({5: 1}), id="a localport never has the mark, but has flows"),
        pytest.param(with_vif({}), id="nobody has asked for its flows yet"),
        pytest.param(with_vif({5: 0}, ofport=None), id="no port yet"),
        pytest.param(with_vif({-1: 0}, ofport=None, error="no device"), id="no device: ovs_interface_failed"),
        pytest.param(with_vif({5: 0}, ovn_installed=True), id="installed"),
        pytest.param(with_vif({5: 0}, iface_id=None, kind=InterfaceKind.OTHER), id="asks for nothing"),
        pytest.param(with_vif({5: 0}, bridge="br-ex"), id="in another bridge"),
    ],
)
def test_no_orphan(world: World) -> None:
    assert ask(world) == ()


def test_ports_that_nobody_asked_for_may_be_orphans() -> None:
    unasked = changed(with_vif({5: 1}), "openflow", unasked=1)
    assert ask(unasked) == Unknown(("openflow",))


def test_but_one_that_was_found_is_said() -> None:
    only_finding(ovs_interface_orphaned, changed(with_vif({5: 0}), "openflow", unasked=1000))


@pytest.mark.parametrize("down", [{"connected": False}, {"paused": True}])
def test_with_ovn_controller_down_that_is_the_finding(down: dict[str, bool]) -> None:
    assert ask(changed(with_vif({5: 0}), "ovn_controller", **down)) == ()


def test_with_ovn_controller_dead_that_is_the_finding() -> None:
    assert ask(without(with_vif({5: 0}), "ovn_controller", reason=Reason.MISSING)) == ()


@pytest.mark.parametrize("source", ["ovs", "openflow", "ovn_controller"])
def test_without_a_source_it_cannot_tell(source: str) -> None:
    assert ask(without(with_vif({5: 0}), source, reason=Reason.TIMEOUT)) == Unknown((source,))


@pytest.mark.parametrize("name", AWKWARD)
def test_names_with_anything_in_them(name: str) -> None:
    finding = only_finding(ovs_interface_orphaned, with_vif({5: 0}, name=name, iface_id=name))
    assert finding.subject == f"br-int/{name}"
    assert shlex.split(finding.remedy[finding.remedy.index("ovs-vsctl") :])[-1] == name
