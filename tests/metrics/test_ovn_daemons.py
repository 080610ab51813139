"""Series of ovn-controller's and northd's work: what is there, and that nothing is of what a release does not tell."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mecexporter.errors import Reason
from mecexporter.metrics.collectors import ovn_daemons
from mecexporter.metrics.spec import Metric
from mecexporter.state.observed import Fresh
from mecexporter.state.ovn_daemon import Work
from tests.metrics.scrape import names, series, values
from tests.worlds import READ, healthy_central, healthy_compute, without

if TYPE_CHECKING:
    from mecexporter.state.world import World

ALL = {m.name for m in vars(ovn_daemons).values() if isinstance(m, Metric)}
OF_A_CACHE = {name for name in ALL if "_lflow_cache_" in name}
NOT_COUNTED = {ovn_daemons.LONG_POLLS.name}
"""Before OVN 25.03, as in these Worlds."""


def controller(work: Work) -> World:
    world = healthy_compute()
    assert isinstance(world.ovn_controller, Fresh)
    return replace(world, ovn_controller=Fresh(replace(world.ovn_controller.value, work=work), READ))


def test_a_controller() -> None:
    world = healthy_compute()
    assert names(series(world)) & ALL == ALL - NOT_COUNTED
    assert values(world, ovn_daemons.RECOMPUTES.name, "daemon") == {("ovn-controller",): 3}
    assert values(world, ovn_daemons.RUNS.name, "kind", engine_node="logical_flow_output") == {
        ("recompute",): 3,
        ("compute",): 838,
        ("cancel",): 2,
    }
    assert values(world, ovn_daemons.AVERAGE.name, "daemon", "stopwatch") == {
        ("ovn-controller", "flow-generation"): 0.0035,
        ("ovn-controller", "flow-installation"): 0.0005,
    }
    assert values(world, ovn_daemons.CACHE_LOOKUPS.name, "result") == {("hit",): 4200, ("miss",): 6900}


def test_a_northd() -> None:
    world = healthy_central()
    assert names(series(world)) & ALL == ALL - NOT_COUNTED - OF_A_CACHE
    assert values(world, ovn_daemons.CELLS.name, "daemon", "db") == {
        ("ovn-northd", "OVN_Northbound"): 39_000,
        ("ovn-northd", "OVN_Southbound"): 96_300,
    }


@pytest.mark.parametrize(
    ("work", "told"),
    [
        (Work(), set()),
        (Work(long_polls=0), {ovn_daemons.LONG_POLLS.name}),
        (Work(full_recomputes=0), {ovn_daemons.RECOMPUTES.name}),
        (Work(cpu_seconds=0.5, resident_bytes=4096), {ovn_daemons.CPU.name, ovn_daemons.RESIDENT.name}),
    ],
)
def test_what_a_release_does_not_tell_is_absent_and_what_it_tells_may_be_0(work: Work, told: set[str]) -> None:
    assert names(series(controller(work))) & ALL == told


def test_a_daemon_without_an_answer_has_none() -> None:
    assert not names(series(without(healthy_compute(), "ovn_controller", reason=Reason.TIMEOUT))) & ALL
    assert not names(series(without(healthy_central(), "northd"))) & ALL
    central = healthy_central()
    assert not names(series(replace(central, applicable=central.applicable - {"northd"}))) & ALL
