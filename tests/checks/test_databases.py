"""What the checks of databases share: where they apply, and that a healthy site is one from wherever it is seen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mecexporter.checks.base import discover
from mecexporter.errors import Reason
from mecexporter.state.central import source_name
from mecexporter.state.ovn_db import LOCAL, Model
from mecexporter.state.world import Role
from tests.checks.verdicts import all_said
from tests.worlds import (
    ACTIVE,
    NB,
    SB,
    STANDBY,
    active_server,
    address,
    asked_too,
    central,
    from_afar,
    healthy_central,
    healthy_compute,
    healthy_member,
    healthy_standby,
    healthy_third,
    in_sync,
    member_server,
    standby_server,
    without,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from mecexporter.state.world import World

OF_STANDALONE = {"ovn_db_no_writer", "ovn_db_out_of_sync", "ovn_db_replication_down", "ovn_db_split_brain"}
OF_CLUSTERED = {"ovn_db_no_writer", "ovn_db_raft_degraded"}
HEALTHY = [healthy_central, healthy_standby, healthy_third, healthy_member]


def applying(world: World) -> set[str]:
    """The checks of databases that apply."""
    return {c.name for c in discover() if c.name.startswith("ovn_db_") and c.applies(world)}


def alone(model: Model) -> World:
    """One Northbound server, and none of Southbound."""
    return central(active_server(NB, model=model, writable=None if model is Model.RELAY else True))


def forgotten(world: World) -> World:
    return replace(world, memory=replace(world.memory, models={}))


@pytest.mark.parametrize("healthy", HEALTHY)
def test_a_healthy_site_has_no_finding_and_no_doubt(healthy: Callable[[], World]) -> None:
    assert all_said(healthy()) == ({}, {})


@pytest.mark.parametrize("healthy", HEALTHY)
def test_nothing_of_it_is_needed_in_memory(healthy: Callable[[], World]) -> None:
    assert all_said(forgotten(healthy())) == ({}, {})


@pytest.mark.parametrize(
    ("world", "checks"),
    [
        pytest.param(healthy_compute(), set(), id="a compute node"),
        pytest.param(central(), set(), id="no server is known"),
        pytest.param(healthy_central(), OF_STANDALONE, id="the actives' host"),
        pytest.param(healthy_standby(), OF_STANDALONE, id="the standbys' host"),
        pytest.param(healthy_third(), OF_STANDALONE, id="a third host"),
        pytest.param(healthy_member(), OF_CLUSTERED, id="a member's host"),
        pytest.param(alone(Model.RELAY), set(), id="a relay"),
        pytest.param(
            central(active_server(NB), member_server(SB)), OF_STANDALONE | OF_CLUSTERED, id="one of each model"
        ),
    ],
)
def test_they_apply_where_a_server_is_of_their_model(world: World, checks: set[str]) -> None:
    assert applying(world) == checks


@pytest.mark.parametrize(
    ("model", "checks"),
    [(Model.STANDALONE, OF_STANDALONE), (Model.CLUSTERED, OF_CLUSTERED), (Model.RELAY, set())],
)
def test_a_server_that_is_down_is_what_it_was(model: Model, checks: set[str]) -> None:
    assert applying(without(alone(model), source_name(NB, LOCAL))) == checks


def test_a_server_that_never_told_may_be_any() -> None:
    assert applying(forgotten(without(alone(Model.STANDALONE), source_name(NB, LOCAL)))) == OF_STANDALONE | OF_CLUSTERED


def test_a_server_that_became_another_is_what_it_is_now() -> None:
    world = alone(Model.CLUSTERED)
    was = replace(world.memory, models={source_name(NB, LOCAL): Model.STANDALONE})
    assert applying(replace(world, memory=was)) == OF_CLUSTERED


def test_what_does_not_apply_any_more_makes_no_check_apply() -> None:
    world = healthy_central()
    assert applying(replace(world, applicable=frozenset({"host", "northd"}))) == set()


@pytest.mark.parametrize("roles", [frozenset[Role](), frozenset({Role.COMPUTE}), frozenset({Role.API})])
def test_they_belong_to_the_role(roles: frozenset[Role]) -> None:
    assert applying(replace(healthy_central(), roles=roles)) == set()


def test_one_that_is_disabled_does_not_apply() -> None:
    world = healthy_central()
    off = replace(world.settings, disabled_checks=frozenset({"ovn_db_split_brain"}))
    assert applying(replace(world, settings=off)) == OF_STANDALONE - {"ovn_db_split_brain"}


@pytest.mark.parametrize("db", [NB, SB])
@pytest.mark.parametrize("healthy", [healthy_central, healthy_standby])
def test_a_server_asked_by_two_addresses_is_one(healthy: Callable[[], World], db: str) -> None:
    """A peer may name oneself."""
    world = healthy()
    for each in (active_server(NB), active_server(SB)) if healthy is healthy_central else ():
        world = asked_too(world, each, "tcp:central.example:9999")
    for each in (standby_server(NB), standby_server(SB)) if healthy is healthy_standby else ():
        world = asked_too(world, each, "tcp:central.example:9999")
    assert f"{db}@tcp:central.example:9999" in world.applicable
    assert all_said(world) == ({}, {})


def mixed(silent: Model) -> World:
    """Northbound a healthy pair, of Southbound a server of another model that is silent now."""
    pair = (active_server(NB), from_afar(standby_server(NB), STANDBY))
    far = from_afar(active_server(SB, model=silent), ACTIVE)
    world = central(*pair, far, pairs=[in_sync(NB, address(NB, STANDBY), LOCAL)])
    return without(world, source_name(SB, address(SB, ACTIVE)), reason=Reason.TIMEOUT)


@pytest.mark.parametrize("silent", [Model.CLUSTERED, Model.RELAY])
def test_of_a_server_of_another_model_they_want_to_know_nothing(silent: Model) -> None:
    _, unknown = all_said(mixed(silent))
    assert unknown.keys() & (OF_STANDALONE - {"ovn_db_no_writer"}) == set()


def test_a_clusters_check_wants_to_know_nothing_of_a_pair() -> None:
    world = central(member_server(NB), active_server(SB))
    _, unknown = all_said(without(world, source_name(SB, LOCAL), reason=Reason.TIMEOUT))
    assert unknown.keys() == OF_STANDALONE


def test_a_relay_among_the_peers_changes_nothing() -> None:
    relay = active_server(SB, identity="relay", model=Model.RELAY, writable=None)
    assert all_said(asked_too(healthy_central(), relay, "tcp:relay.example:6642")) == ({}, {})
