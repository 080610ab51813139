"""Interfaces that Open vSwitch could not make, tunnels to chassis aside."""

import shlex

import pytest

from mecexporter.checks.base import Unknown
from mecexporter.checks.ovs_interface_failed import ovs_interface_failed
from mecexporter.state.ovs import InterfaceKind
from tests.checks.verdicts import AWKWARD, findings, only_finding
from tests.worlds import changed, healthy_compute, interface, without

ask = ovs_interface_failed.ask
ERROR = "could not open network device nodev0 (No such device)"


def test_no_errors() -> None:
    assert ask(healthy_compute()) == ()


@pytest.mark.parametrize("kind", list(InterfaceKind))
def test_an_error_on_any_kind(kind: InterfaceKind) -> None:
    broken = interface("nodev0", kind=kind, error=ERROR, ofport=-1, remote_chassis=None)
    finding = only_finding(ovs_interface_failed, changed(healthy_compute(), "ovs", interfaces=(broken,)))
    assert finding.subject == "br-int/nodev0"
    assert finding.summary == f"interface nodev0 of bridge br-int is broken: {ERROR}"
    assert finding.remedy.endswith("ovs-vsctl del-port br-int nodev0")
    assert (finding.reads, finding.hold) == (2, 10.0), "a guest's device goes a moment before its port"


def test_a_tunnel_to_a_chassis_is_another_checks_matter() -> None:
    tunnel = interface("t", kind=InterfaceKind.TUNNEL, error=ERROR)
    assert ask(changed(healthy_compute(), "ovs", interfaces=(tunnel,))) == ()


def test_no_ofport_without_an_error_is_no_finding() -> None:
    assert ask(changed(healthy_compute(), "ovs", interfaces=(interface("x", ofport=None),))) == ()


def test_interfaces_of_one_name_in_two_bridges_are_two() -> None:
    world = changed(healthy_compute(), "ovs", interfaces=tuple(interface("x", b, error="e") for b in ("br-a", "br-b")))
    assert [f.subject for f in findings(ovs_interface_failed, world)] == ["br-a/x", "br-b/x"]


@pytest.mark.parametrize("source", ["ovs", "vswitchd"])
def test_without_a_source_it_cannot_tell(source: str) -> None:
    world = changed(healthy_compute(), "ovs", interfaces=(interface("x", error="e"),))
    assert ask(without(world, source)) == Unknown((source,))


@pytest.mark.parametrize("name", AWKWARD)
def test_names_with_anything_in_them(name: str) -> None:
    broken = interface(name, error=name)
    finding = only_finding(ovs_interface_failed, changed(healthy_compute(), "ovs", interfaces=(broken,)))
    assert finding.subject == f"br-int/{name}"
    command = finding.remedy[finding.remedy.index("ovs-vsctl") :]
    assert shlex.split(command) == ["ovs-vsctl", "del-port", "br-int", name]
