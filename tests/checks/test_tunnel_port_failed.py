"""Tunnels to other chassis."""

from dataclasses import replace
from typing import Any

import pytest

from mecexporter.checks.base import Unknown
from mecexporter.checks.tunnel_port_failed import tunnel_port_failed
from mecexporter.state.ovs import InterfaceKind
from mecexporter.state.world import World
from tests.checks.verdicts import AWKWARD, findings, only_finding
from tests.worlds import PEER, changed, healthy_compute, interface, without

ask = tunnel_port_failed.ask
ERROR = "could not add network device ovn-7e2917-0 to ofproto (File exists)"


def with_tunnels(*fields: dict[str, Any]) -> World:
    tunnels = tuple(
        interface(**{"name": f"ovn-peer-{n}", "kind": InterfaceKind.TUNNEL} | each) for n, each in enumerate(fields)
    )
    return changed(healthy_compute(), "ovs", interfaces=tunnels)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="without BFD"),
        pytest.param({"bfd_state": "up"}, id="BFD up"),
        pytest.param({"bfd_state": "init"}, id="BFD on its way"),
        pytest.param({"bfd_state": "admin_down"}, id="BFD told to be down"),
        pytest.param({"link_state": None}, id="no link state"),
    ],
)
def test_a_tunnel_that_works(fields: dict[str, Any]) -> None:
    assert ask(with_tunnels(fields)) == ()


@pytest.mark.parametrize(
    ("fields", "trouble", "remedy"),
    [
        pytest.param({"ofport": -1, "error": ERROR}, ERROR, "ovs-vsctl del-port br-int ovn-peer-0:", id="File exists"),
        pytest.param({"error": "any"}, "any", "ovs-vsctl del-port br-int ovn-peer-0:", id="an error with an ofport"),
        pytest.param({"ofport": -1}, "no ofport", "ovs-vsctl del-port", id="ofport -1"),
        pytest.param({"ofport": None}, "no ofport", "ovs-vsctl del-port", id="no ofport yet"),
        pytest.param({"bfd_state": "down"}, "BFD gets no answer", "UDP 3784", id="BFD down"),
        pytest.param({"bfd_state": "down", "error": "any"}, "any", "ovs-vsctl del-port", id="an error comes first"),
    ],
)
def test_a_tunnel_that_does_not(fields: dict[str, Any], trouble: str, remedy: str) -> None:
    finding = only_finding(tunnel_port_failed, with_tunnels(fields))
    assert finding.subject == "br-int/ovn-peer-0"
    assert PEER in finding.summary
    assert trouble in finding.summary
    assert remedy in finding.remedy
    assert finding.reads == 2


def test_each_has_a_finding_of_its_own() -> None:
    found = findings(tunnel_port_failed, with_tunnels({"error": "x"}, {}, {"error": "y"}))
    assert [f.subject for f in found] == ["br-int/ovn-peer-0", "br-int/ovn-peer-2"]


def test_a_tunnel_that_is_not_ovns_is_not_to_a_chassis() -> None:
    assert ask(with_tunnels({"error": "x", "remote_chassis": None})) == ()


@pytest.mark.parametrize("source", ["ovs", "vswitchd"])
def test_without_a_source_it_cannot_tell(source: str) -> None:
    assert ask(without(with_tunnels({"error": "x"}), source)) == Unknown((source,))


def test_without_both_it_names_both() -> None:
    assert ask(without(without(healthy_compute(), "ovs"), "vswitchd")) == Unknown(("ovs", "vswitchd"))


@pytest.mark.parametrize("name", AWKWARD)
def test_names_with_anything_in_them(name: str) -> None:
    world = with_tunnels({"error": name, "name": name, "bridge": name, "remote_chassis": name})
    assert only_finding(tunnel_port_failed, replace(world)).subject == f"{name}/{name}"
