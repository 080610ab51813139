"""A standby that does not hold what its active does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mecexporter.checks.base import Unknown
from mecexporter.checks.ovn_db_out_of_sync import ovn_db_out_of_sync
from mecexporter.errors import Reason
from mecexporter.state.central import source_name
from mecexporter.state.observed import Fresh
from mecexporter.state.ovn_db import LOCAL, Database, Difference, Kind
from tests.checks.verdicts import findings, only_finding, reported
from tests.worlds import (
    ACTIVE,
    NB,
    READ,
    SB,
    STANDBY,
    SYNC,
    active_server,
    address,
    central,
    changed,
    healthy_central,
    healthy_standby,
    healthy_third,
    in_sync,
    member_server,
    out_of_sync,
    without,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from mecexporter.state.world import World

ask = ovn_db_out_of_sync.ask
BOTH = pytest.mark.parametrize("db", [NB, SB])
FROM_EACH = pytest.mark.parametrize(
    ("healthy", "standby"),
    [(healthy_central, STANDBY), (healthy_standby, LOCAL), (healthy_third, STANDBY)],
    ids=["the active's host", "the standby's host", "a third host"],
)


def source(db: Database, host: str = LOCAL) -> str:
    return source_name(db, host if host == LOCAL else address(db, host))


def compared(world: World, db: Database, **fields: Any) -> World:
    """The same World where the comparison of its one standby says otherwise in some fields."""
    part: Any = world.part(SYNC[db])
    (pair,) = part.value
    return world.with_part(SYNC[db], Fresh((replace(pair, **fields),), READ))


@FROM_EACH
def test_content_that_is_equal(healthy: Callable[[], World], standby: str) -> None:
    assert ask(healthy()) == ()
    assert standby in (LOCAL, STANDBY)


def test_what_differs_is_counted_by_table_and_kind_with_examples() -> None:
    finding = only_finding(ovn_db_out_of_sync, out_of_sync())
    assert finding.subject == source(SB, STANDBY)
    assert finding.summary == (
        f"the standby {address(SB, STANDBY)} of OVN_Southbound does not hold what its active local does: "
        "Chassis_Private: 1 changed; Port_Binding: 2 missing; for example "
        "Chassis_Private aaaaaaaa-0000-4000-8000-000000000001 (changed), "
        "Port_Binding bbbbbbbb-0000-4000-8000-000000000001 (missing), "
        "Port_Binding bbbbbbbb-0000-4000-8000-000000000002 (missing)"
    )
    assert finding.remedy.startswith("do not promote it. Restart the standby's ovsdb-server")


@BOTH
@FROM_EACH
def test_from_wherever_it_is_seen(healthy: Callable[[], World], standby: str, db: Database) -> None:
    world = compared(healthy(), db, in_sync=False, rows={("T", Kind.EXTRA): 1})
    finding = only_finding(ovn_db_out_of_sync, world)
    assert finding.subject == source(db, standby)
    assert finding.summary.endswith("T: 1 extra")


def test_a_table_that_is_only_counted_has_no_row_to_show() -> None:
    number = Difference("Logical_Flow", "*", Kind.CHANGED)
    world = compared(
        out_of_sync(), SB, rows={("Logical_Flow", Kind.CHANGED): 1, ("Port", Kind.EXTRA): 0}, examples=(number,)
    )
    assert only_finding(ovn_db_out_of_sync, world).summary.endswith("does: Logical_Flow: 1 changed")


def test_of_many_rows_three_are_shown() -> None:
    many = tuple(Difference("T", f"u{n}", Kind.EXTRA) for n in range(9))
    summary = only_finding(ovn_db_out_of_sync, compared(out_of_sync(), SB, examples=many)).summary
    assert summary.endswith("; for example T u0 (extra), T u1 (extra), T u2 (extra)")


def test_each_standby_of_each_database_has_a_finding_of_its_own() -> None:
    world = compared(compared(healthy_central(), NB, in_sync=False), SB, in_sync=False)
    assert [f.subject for f in findings(ovn_db_out_of_sync, world)] == [source(NB, STANDBY), source(SB, STANDBY)]


def test_one_read_is_enough_as_the_comparison_itself_waited() -> None:
    (found,) = reported(ovn_db_out_of_sync, out_of_sync(), seconds=0, reads=1)
    assert (found.severity, found.subject) == ("critical", source(SB, STANDBY))


@BOTH
@pytest.mark.parametrize("reason", Reason)
def test_a_comparison_that_fails(db: Database, reason: Reason) -> None:
    assert ask(without(healthy_central(), SYNC[db], reason=reason)) == Unknown((SYNC[db],))


@BOTH
def test_what_has_not_been_compared_yet(db: Database) -> None:
    assert ask(compared(healthy_central(), db, in_sync=None, why="not all tables yet")) == Unknown((SYNC[db],))


@BOTH
def test_a_standby_that_the_comparison_has_not_met_yet(db: Database) -> None:
    other = in_sync(db, "tcp:other.example:1", LOCAL)
    assert ask(healthy_central().with_part(SYNC[db], Fresh((other,), READ))) == Unknown((SYNC[db],))


@BOTH
def test_a_standby_whose_active_does_not_answer(db: Database) -> None:
    """What is missing is the active, not the comparison."""
    world = compared(without(healthy_standby(), source(db, ACTIVE)), db, in_sync=None)
    assert ask(world) == Unknown((source(db, ACTIVE),))


@BOTH
@pytest.mark.parametrize("reason", [Reason.REFUSED, Reason.MISSING, Reason.TIMEOUT])
def test_a_standby_that_is_not_there_cannot_take_over(db: Database, reason: Reason) -> None:
    assert ask(without(healthy_central(), source(db, STANDBY), reason=reason)) == Unknown((source(db, STANDBY),))


@BOTH
def test_what_differs_is_said_though_something_else_cannot_be_told(db: Database) -> None:
    other = SB if db is NB else NB
    world = compared(without(healthy_central(), source(other, STANDBY)), db, in_sync=False)
    assert only_finding(ovn_db_out_of_sync, world).subject == source(db, STANDBY)


def test_without_a_standby_there_is_nothing_to_compare() -> None:
    assert ask(central(active_server(NB), active_server(SB))) == ()


def test_a_clusters_members_are_not_compared() -> None:
    world = central(active_server(NB), member_server(SB))
    assert ask(without(world, source(SB), reason=Reason.TIMEOUT)) == ()


def test_what_an_old_comparison_says_of_one_that_was_promoted_is_over() -> None:
    world = changed(compared(healthy_standby(), SB, in_sync=False), source(SB), writable=True)
    assert ask(world) == ()
