"""The flow counts of a real ovs-vswitchd, for the bridge and the ports that conf.db tells of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mecexporter.errors import Reason, SourceError
from mecexporter.sources import openflow
from mecexporter.sources.openflow import OpenFlowSource
from mecexporter.state.ovs import Bridge, BridgeFlows, InterfaceKind
from tests.sources.daemons import Node, ovs_node, run
from tests.worlds import changed, healthy_compute, interface, without

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.state.world import World


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """br-int with a port of one flow, a port of two, one of none, and a flow that asks for no port."""
    with ovs_node() as node:
        node.vsctl("add-br", "br-int", "--", "set", "bridge", "br-int", "datapath_type=dummy", "fail-mode=secure")
        for number in range(1, 4):
            node.vsctl("add-port", "br-int", f"p{number}", "--", "set", "interface", f"p{number}", "type=dummy",
                       f"ofport_request={number}")  # fmt: skip
        flows = node.run_dir / "flows"
        flows.write_text(
            "in_port=1,actions=drop\nin_port=2,tcp,actions=drop\nin_port=2,udp,actions=drop\n"
            "arp,actions=drop\ntable=8,in_port=3,actions=drop\n"
        )
        run("ovs-ofctl", "-O", "OpenFlow13", "replace-flows", f"unix:{node.management('br-int')}", str(flows))
        yield node


def world(*doubtful: int | None, bridge: str = "br-int") -> World:
    """A conf.db whose integration bridge has these ports without a mark."""
    vifs = [interface(f"p{n}", bridge, ovn_installed=False, ofport=ofport) for n, ofport in enumerate(doubtful)]
    installed = interface("well", bridge, ofport=3)
    return changed(healthy_compute(), "ovs", integration_bridge=bridge, interfaces=(installed, *vifs))


def source(node: Node) -> OpenFlowSource:
    return OpenFlowSource(node.run_dir, 15)


async def why_not(asked: OpenFlowSource, of: World) -> SourceError:
    with pytest.raises(SourceError) as caught:
        await asked.read(of)
    return caught.value


async def test_all_flows_and_those_of_ports_in_doubt(node: Node) -> None:
    assert await source(node).read(world()) == BridgeFlows("br-int", 5)
    assert await source(node).read(world(1, 2, 3)) == BridgeFlows("br-int", 5, {1: 1, 2: 2, 3: 0}), "of table 0"


async def test_only_ports_that_there_are_can_be_asked_for(node: Node) -> None:
    found = await source(node).read(world(None, -1, 0, 2))
    assert found.from_port == {2: 2}
    assert found.unasked == 0


async def test_an_interface_that_asks_for_nothing_is_not_in_doubt(node: Node) -> None:
    other = interface("p", ovn_installed=False, iface_id=None, kind=InterfaceKind.OTHER, ofport=1)
    asked = changed(healthy_compute(), "ovs", interfaces=(other,))
    assert (await source(node).read(asked)).from_port == {}


async def test_what_was_too_much_to_ask_for_is_counted(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openflow, "MOST_PORTS", 2)
    found = await source(node).read(world(1, 2, 3, 4, 5))
    assert (found.from_port, found.unasked) == ({1: 1, 2: 2}, 3)


async def test_as_many_as_it_may_are_asked_for_in_time(node: Node) -> None:
    found = await source(node).read(world(*range(1, openflow.MOST_PORTS + 1)))
    assert len(found.from_port) == openflow.MOST_PORTS
    assert sum(found.from_port.values()) == 3


async def test_blind_to_the_database_it_counts_the_bridge_it_was_told_of(node: Node) -> None:
    asked = source(node)
    lost = without(world(1), "ovs", reason=Reason.TIMEOUT)
    assert (await why_not(asked, lost)).reason is Reason.MISSING
    await asked.read(world(1))
    assert await asked.read(lost) == BridgeFlows("br-int", 5)


@pytest.mark.parametrize("bridge", ["br-none", "../br-int", "a/b", "br\nint", "名"])
async def test_a_bridge_that_is_not_there(node: Node, bridge: str) -> None:
    error = await why_not(source(node), world(bridge=bridge))
    assert error.reason is Reason.MISSING


async def test_killed_hanging_and_back(node: Node) -> None:
    asked = source(node)
    asked.deadline = 0.5
    node.vswitchd.suspend()
    try:
        assert (await why_not(asked, world(1))).reason is Reason.TIMEOUT
    finally:
        node.vswitchd.resume()
    assert (await asked.read(world(1))).flows == 5
    node.vswitchd.kill()
    assert (await why_not(asked, world(1))).reason is Reason.REFUSED
    node.vswitchd.start()
    node.vsctl("set", "bridge", "br-int", "external_ids:seen=yes")  # waits until vswitchd has the bridge again
    assert (await asked.read(world(1))).from_port == {1: 0}, "its flows went with it"


def test_a_new_question_is_another_bridge_or_one_that_comes_or_goes() -> None:
    asked = OpenFlowSource(Path("/nowhere"), 15)
    plain = asked.question(healthy_compute())
    assert asked.question(changed(healthy_compute(), "ovs", bridges=())) != plain
    assert asked.question(changed(healthy_compute(), "ovs", bridges=(Bridge(name="br-int", nb_cfg=8),))) == plain
    assert asked.question(world(bridge="br-ovn")) != plain
    assert asked.question(without(healthy_compute(), "ovs")) is None
