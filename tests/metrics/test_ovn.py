"""Series of OVN's databases and of northd: what is there, and that nothing is of what can't be told."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mecexporter.errors import Reason
from mecexporter.metrics.registry import discover
from mecexporter.metrics.render import Renderer
from mecexporter.state.central import source_name
from mecexporter.state.observed import Fresh
from mecexporter.state.ovn_db import LOCAL, Database, Globals, Model
from mecexporter.state.world import Role
from tests.metrics.scrape import Series, names, series
from tests.worlds import (
    ACTIVE,
    NB,
    READ,
    SB,
    STANDBY,
    SYNC,
    THIRD,
    active_server,
    address,
    asked_too,
    central,
    changed,
    degraded_member,
    from_afar,
    healthy_central,
    healthy_member,
    healthy_standby,
    healthy_third,
    in_sync,
    member_server,
    out_of_sync,
    view_of,
    with_member,
    without,
)

if TYPE_CHECKING:
    from mecexporter.state.world import World

BOTH = pytest.mark.parametrize("db", [NB, SB])
CFG = {f"mec_ovn_{side}_cfg{what}" for side in ("nb", "sb", "hv") for what in ("", "_timestamp_seconds")}
OF_SERVER = {
    "mec_ovn_db_backlog_bytes",
    "mec_ovn_db_cells",
    "mec_ovn_db_info",
    "mec_ovn_db_monitors",
    "mec_ovn_db_sessions",
    "mec_ovn_db_writable",
}
OF_PAIR = {
    "mec_ovn_db_audit_duration_seconds",
    "mec_ovn_db_audit_timestamp_seconds",
    "mec_ovn_db_in_sync",
    "mec_ovn_db_last_in_sync_timestamp_seconds",
    "mec_ovn_db_rows_differing",
}
OF_RAFT = {
    "mec_ovn_raft_leader",
    "mec_ovn_raft_log_uncommitted_entries",
    "mec_ovn_raft_members",
    "mec_ovn_raft_members_reachable",
    "mec_ovn_raft_term",
}
OF_CHASSIS = {
    "mec_ovn_chassis_behind_seconds",
    "mec_ovn_chassis_info",
    "mec_ovn_chassis_nb_cfg",
    "mec_ovn_chassis_nb_cfg_timestamp_seconds",
    "mec_ovn_chassis_state",
    "mec_ovn_gateway_ports",
    "mec_ovn_sb_behind_seconds",
}
OF_NORTHD = {"mec_ovn_northd_active", "mec_ovn_northd_connected", "mec_ovn_northd_paused"}


def ours(found: Series) -> Series:
    """Those that are OVN's, but for the work of its daemons (test_ovn_daemons.py)."""
    work = {m.name for c in discover() if c.name in ("ovn_daemons", "lflow_cache") for m in c.metrics}
    return {key: value for key, value in found.items() if key[0].startswith("mec_ovn_") and key[0] not in work}


def gone(before: World, after: World) -> set[tuple[str, str | None, str | None]]:
    """(name, db, server) of series that vanish; none may come."""
    was, now = ours(series(before)), ours(series(after))
    assert now.keys() <= was.keys()
    return {(name, dict(labels).get("db"), dict(labels).get("server")) for name, labels in was.keys() - now.keys()}


def value(world: World, name: str, **labels: str) -> float | None:
    return series(world).get((name, frozenset(labels.items())))


@pytest.mark.parametrize(
    ("world", "families"),
    [
        pytest.param(healthy_central(), OF_SERVER | OF_PAIR | CFG | OF_NORTHD | OF_CHASSIS, id="the actives' host"),
        pytest.param(healthy_standby(), OF_SERVER | OF_PAIR | OF_NORTHD, id="the standbys' host"),
        pytest.param(healthy_third(), {"mec_ovn_db_info", "mec_ovn_db_writable"} | OF_PAIR, id="a third host"),
        pytest.param(healthy_member(), OF_SERVER | OF_RAFT | CFG | OF_NORTHD | OF_CHASSIS, id="a leader's host"),
    ],
)
def test_what_each_host_has(world: World, families: set[str]) -> None:
    assert names(ours(series(world))) == families


@BOTH
def test_a_server_that_is_lost_has_no_series(db: Database) -> None:
    local = {(name, db, LOCAL) for name in OF_SERVER}
    cfg = {(name, None, None) for name in CFG} if db is NB else set()
    assert gone(healthy_central(), without(healthy_central(), source_name(db, LOCAL))) == local | cfg
    peer = address(db, STANDBY)
    assert gone(healthy_central(), without(healthy_central(), source_name(db, peer))) == {
        (name, db, peer) for name in ("mec_ovn_db_info", "mec_ovn_db_writable")
    }


@BOTH
def test_a_member_that_is_lost_has_no_series(db: Database) -> None:
    cfg = {(name, None, None) for name in CFG} if db is NB else set()
    assert gone(healthy_member(), without(healthy_member(), source_name(db, LOCAL))) == (
        {(name, db, LOCAL) for name in OF_SERVER} | {(name, db, None) for name in OF_RAFT} | cfg
    )


@BOTH
def test_a_comparison_that_is_lost_has_no_series(db: Database) -> None:
    assert gone(healthy_central(), without(healthy_central(), SYNC[db])) == {
        (name, db, address(db, STANDBY)) for name in OF_PAIR
    }


@BOTH
def test_one_that_cannot_tell_says_only_when_it_last_could(db: Database) -> None:
    pair = in_sync(db, address(db, STANDBY), LOCAL, in_sync=None)
    world = healthy_central().with_part(SYNC[db], Fresh((pair,), READ))
    left = "mec_ovn_db_last_in_sync_timestamp_seconds"
    assert gone(healthy_central(), world) == {(name, db, address(db, STANDBY)) for name in OF_PAIR - {left}}


@BOTH
def test_one_that_was_never_in_sync_says_nothing_of_that(db: Database) -> None:
    pair = in_sync(db, address(db, STANDBY), LOCAL, in_sync=False, last_in_sync=None, audited=None, audit_seconds=None)
    world = healthy_central().with_part(SYNC[db], Fresh((pair,), READ))
    left = {"mec_ovn_db_in_sync", "mec_ovn_db_rows_differing"}
    assert gone(healthy_central(), world) == {(name, db, address(db, STANDBY)) for name in OF_PAIR - left}
    assert value(world, "mec_ovn_db_in_sync", db=db, server=address(db, STANDBY)) == 0


def test_chassis_that_are_lost_have_no_series() -> None:
    lost = without(healthy_central(), "ovn_chassis", reason=Reason.TIMEOUT)
    assert {name for name, _, _ in gone(healthy_central(), lost)} == OF_CHASSIS


def test_northd_that_is_lost_has_no_series() -> None:
    expected = {(name, None, None) for name in OF_NORTHD - {"mec_ovn_northd_connected"}}
    expected_by_db = {("mec_ovn_northd_connected", str(db), None) for db in Database}
    assert gone(healthy_central(), without(healthy_central(), "northd")) == expected | expected_by_db


@pytest.mark.parametrize("what", [frozenset[str](), frozenset({"host"})])
def test_what_does_not_apply_has_no_series(what: frozenset[str]) -> None:
    world = replace(healthy_central(), roles=frozenset[Role](), applicable=what)
    assert ours(series(world)) == {}


@pytest.mark.parametrize(
    ("fields", "values"),
    [
        ({}, (1, 0, 1, 1)),
        ({"active": False}, (0, 0, 1, 1)),
        ({"active": False, "paused": True}, (0, 1, 1, 1)),
        ({"connected": {NB: True, SB: False}}, (1, 0, 1, 0)),
    ],
)
def test_northd(fields: dict[str, Any], values: tuple[int, ...]) -> None:
    world = changed(healthy_central(), "northd", **fields)
    assert values == (
        value(world, "mec_ovn_northd_active"),
        value(world, "mec_ovn_northd_paused"),
        value(world, "mec_ovn_northd_connected", db=NB),
        value(world, "mec_ovn_northd_connected", db=SB),
    )


@BOTH
def test_a_server_asked_by_two_addresses_is_exported_once_and_as_our_own(db: Database) -> None:
    once = ours(series(healthy_central()))
    assert ours(series(asked_too(healthy_central(), active_server(db), address(db, ACTIVE)))) == once


@BOTH
def test_a_relay_is_not_said_to_take_writes_or_not(db: Database) -> None:
    world = central(active_server(db, model=Model.RELAY, writable=None))
    assert value(world, "mec_ovn_db_info", db=db, server=LOCAL, model="relay") == 1
    assert value(world, "mec_ovn_db_writable", db=db, server=LOCAL) is None


@BOTH
def test_nor_is_one_of_which_it_cannot_be_told(db: Database) -> None:
    world = changed(healthy_central(), source_name(db, address(db, STANDBY)), writable=None)
    assert value(world, "mec_ovn_db_writable", db=db, server=address(db, STANDBY)) is None


@BOTH
def test_without_the_control_socket_the_servers_numbers_are_not_told(db: Database) -> None:
    world = changed(healthy_central(), source_name(db, LOCAL), memory={}, control_why="no socket")
    left = {"mec_ovn_db_info", "mec_ovn_db_writable"}
    assert gone(healthy_central(), world) == {(name, db, LOCAL) for name in OF_SERVER - left}


@BOTH
def test_a_member_without_its_control_socket_still_says_whether_it_leads(db: Database) -> None:
    world = changed(healthy_member(), source_name(db, LOCAL), raft=None, control_why="no socket")
    assert gone(healthy_member(), world) == {(name, db, None) for name in OF_RAFT - {"mec_ovn_raft_leader"}}


class TestPropagation:
    """Northbound's markers come from one host of a site."""

    @pytest.mark.parametrize(
        ("world", "there"),
        [
            pytest.param(healthy_central(), True, id="the writer's"),
            pytest.param(healthy_standby(), False, id="a standby's"),
            pytest.param(healthy_third(), False, id="one that only watches"),
            pytest.param(healthy_member(), True, id="the leader's"),
            pytest.param(central(member_server(NB, leader=False)), False, id="a follower's"),
            pytest.param(central(active_server(NB, writable=None)), False, id="one of which it can't be told"),
            pytest.param(central(active_server(NB, model=Model.RELAY, writable=None)), False, id="a relay's"),
            pytest.param(central(active_server(SB)), False, id="one of Southbound alone"),
        ],
    )
    def test_by_whom(self, world: World, there: bool) -> None:
        assert names(series(world)) & CFG == (CFG if there else set())

    def test_a_database_that_has_no_row_yet(self) -> None:
        assert names(series(central(active_server(NB, globals=None)))) & CFG == set()

    def test_a_marker_that_never_moved_has_no_time(self) -> None:
        """A quiet cloud: 0 is not a time."""
        world = central(active_server(NB, globals=Globals(nb_cfg=0, sb_cfg=0, hv_cfg=0)))
        assert names(series(world)) & CFG == {"mec_ovn_nb_cfg", "mec_ovn_sb_cfg", "mec_ovn_hv_cfg"}
        assert value(world, "mec_ovn_nb_cfg") == 0


class TestRaft:
    @BOTH
    def test_a_follower(self, db: Database) -> None:
        world = changed(healthy_member(), source_name(db, LOCAL), leader=False)
        assert value(world, "mec_ovn_raft_leader", db=db) == 0

    def test_a_member_that_is_lost(self) -> None:
        world = degraded_member()
        assert value(world, "mec_ovn_raft_members", db=SB) == 3
        assert value(world, "mec_ovn_raft_members_reachable", db=SB) == 2
        assert value(world, "mec_ovn_raft_members_reachable", db=NB) == 3

    def test_one_of_which_it_cannot_be_told_is_not_counted_either_way(self) -> None:
        world = with_member(healthy_member(), SB, THIRD, reachable=None)
        assert value(world, "mec_ovn_raft_members", db=SB) == 3
        assert value(world, "mec_ovn_raft_members_reachable", db=SB) is None

    def test_members_elsewhere_are_not_this_hosts(self) -> None:
        world = central(*(from_afar(member_server(db), ACTIVE) for db in Database))
        assert names(series(world)) & OF_RAFT == set()


def test_a_block_is_made_anew_when_what_it_is_made_of_changes() -> None:
    renderer = Renderer(discover())
    worlds = (healthy_central(), out_of_sync(), healthy_standby())
    texts = [renderer.render(view_of(world)).decode() for world in worlds]
    pair = f'mec_ovn_db_in_sync{{db="{SB}",server="{address(SB, STANDBY)}"}}'
    assert f"{pair} 1.0" in texts[0]
    assert f"{pair} 0.0" in texts[1]
    assert pair not in texts[2]
    assert "mec_ovn_nb_cfg 21.0" in texts[1]
    assert "mec_ovn_nb_cfg 21.0" not in texts[2]


@pytest.mark.parametrize("reason", [Reason.REFUSED, Reason.TIMEOUT])
def test_a_check_that_cannot_tell_has_no_count(reason: Reason) -> None:
    world = healthy_central()
    for name in world.databases:
        world = without(world, name, reason=reason)
    found = series(world)
    assert value(world, "mec_check_evaluable", check="ovn_db_no_writer") == 0
    assert not any(n == "mec_check_findings" and ("check", "ovn_db_no_writer") in labels for n, labels in found)
