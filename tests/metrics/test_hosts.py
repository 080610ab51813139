"""Series of hosts that records know: whether Nova uses them, and which are in maintenance."""

from __future__ import annotations

from dataclasses import replace

from mecexporter.state.observed import Fresh
from mecexporter.state.world import Settings
from tests.metrics.scrape import values
from tests.worlds import CELL1, HOSTNAME, NOW, cell, changed, healthy_central, healthy_sriov, leading, without

ENABLED = "mec_nova_compute_service_enabled"
MAINTENANCE = "mec_maintenance_host_info"


def test_each_host_in_scope_says_whether_nova_uses_it() -> None:
    up = {HOSTNAME: True, "compute-2": False, "compute-3": None}
    every = changed(healthy_sriov(), CELL1, up=up, disabled=frozenset({"compute-2"}))
    assert values(every, ENABLED, "hostname") == {(HOSTNAME,): 1, ("compute-2",): 0, ("compute-3",): 1}
    own = changed(every, CELL1, asked_for=HOSTNAME.upper())
    assert values(own, ENABLED, "hostname") == {(HOSTNAME,): 1}, "not a series of every host from each of them"


def test_of_a_cell_that_is_silent_nothing_is_said() -> None:
    assert not values(without(healthy_sriov(), CELL1), ENABLED)
    assert not values(healthy_central(), ENABLED)


def test_a_host_of_two_cells_is_told_once() -> None:
    world = healthy_sriov()
    second = "nova@cell2"
    world = replace(
        world,
        applicable=world.applicable | {second},
        cells={**world.cells, second: Fresh(cell(disabled=frozenset({HOSTNAME})), NOW)},
    )
    assert values(world, ENABLED, "hostname") == {(HOSTNAME,): 1}


def test_hosts_in_maintenance_by_the_spelling_of_those_who_know_them() -> None:
    listed = Settings(maintenance_hosts=frozenset({"compute-2", "nobody"}))
    assert values(leading(replace(healthy_central(), settings=listed)), MAINTENANCE, "hostname") == {("compute-2",): 1}
    novas = changed(healthy_sriov(), CELL1, up={HOSTNAME: True, "COMPUTE-2": True})
    assert values(replace(novas, settings=listed), MAINTENANCE, "hostname") == {("COMPUTE-2",): 1}
    assert not values(leading(healthy_central()), MAINTENANCE)
