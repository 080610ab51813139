"""Series of a node's tunnels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mecexporter.errors import Reason
from mecexporter.metrics.collectors.tunnels import CHASSIS, TUNNELS
from mecexporter.state.observed import Fresh
from mecexporter.state.ovs import InterfaceKind
from tests.metrics.scrape import values
from tests.worlds import PEER, READ, healthy_compute, interface, without

if TYPE_CHECKING:
    from mecexporter.state.ovs import Interface
    from mecexporter.state.world import World

NONE = {("up",): 0, ("down",): 0, ("init",): 0, ("admin_down",): 0, ("off",): 0}


def tunnel(name: str, to: str | None = PEER, bfd: str | None = None) -> Interface:
    return replace(interface(name, kind=InterfaceKind.TUNNEL), remote_chassis=to, bfd_state=bfd)


def with_interfaces(*interfaces: Interface) -> World:
    world = healthy_compute()
    assert isinstance(world.ovs, Fresh)
    return replace(world, ovs=Fresh(replace(world.ovs.value, interfaces=interfaces), READ))


@pytest.mark.parametrize(
    ("interfaces", "chassis", "by_bfd"),
    [
        pytest.param((), 0, {}, id="none"),
        pytest.param((tunnel("a"),), 1, {("off",): 1}, id="without BFD"),
        pytest.param((tunnel("a"), tunnel("b")), 1, {("off",): 2}, id="two to one chassis, by another encapsulation"),
        pytest.param(
            (
                tunnel("a", "1", "up"),
                tunnel("b", "2", "down"),
                tunnel("c", "3", "init"),
                tunnel("d", "4", "admin_down"),
            ),
            4,
            {("up",): 1, ("down",): 1, ("init",): 1, ("admin_down",): 1},
            id="each state",
        ),
        pytest.param((tunnel("a", None, "up"), interface("eth0", kind=InterfaceKind.UPLINK)), 0, {}, id="not OVN's"),
    ],
)
def test_tunnels(interfaces: tuple[Interface, ...], chassis: int, by_bfd: dict[tuple[str], int]) -> None:
    world = with_interfaces(*interfaces)
    assert values(world, CHASSIS.name) == {(): chassis}
    assert values(world, TUNNELS.name, "bfd_state") == NONE | by_bfd


def test_without_ovs_vswitchd_bfd_cannot_be_told() -> None:
    world = without(healthy_compute(), "vswitchd", reason=Reason.TIMEOUT)
    assert values(world, CHASSIS.name) == {(): 1}
    assert values(world, TUNNELS.name) == {}


def test_without_the_database_nothing_can() -> None:
    world = without(healthy_compute(), "ovs", reason=Reason.TIMEOUT)
    assert values(world, CHASSIS.name) == {}
    assert values(world, TUNNELS.name) == {}
