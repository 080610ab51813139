"""A standby that gets nothing from its active."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mecexporter.checks.base import Unknown
from mecexporter.checks.ovn_db_replication_down import ovn_db_replication_down
from mecexporter.errors import Reason
from mecexporter.state.central import source_name
from mecexporter.state.ovn_db import LOCAL, Database
from tests.checks.verdicts import AWKWARD, findings, only_finding, reported
from tests.worlds import (
    ACTIVE,
    NB,
    READ,
    SB,
    STANDBY,
    active_server,
    address,
    asked_too,
    central,
    changed,
    from_afar,
    healthy_central,
    healthy_standby,
    healthy_third,
    member_server,
    standby_server,
    told,
    without,
)

if TYPE_CHECKING:
    from mecexporter.state.world import World

ask = ovn_db_replication_down.ask
BOTH = pytest.mark.parametrize("db", [NB, SB])


def source(db: Database, host: str = LOCAL) -> str:
    return source_name(db, host if host == LOCAL else address(db, host))


@pytest.mark.parametrize("world", [healthy_central(), healthy_standby(), healthy_third()])
def test_a_standby_that_replicates(world: World) -> None:
    assert ask(world) == ()


@BOTH
def test_an_active_that_nobody_is_to_ask(db: Database) -> None:
    """What the standby says of itself is all that there is: it tells that it does not replicate, not that it does."""
    asked_nowhere = told(healthy_standby(), db, active="tcp:x.example:1")
    unwanted = source_name(db, "tcp:x.example:1")
    world = replace(asked_nowhere, settings=replace(asked_nowhere.settings, disabled_sources=frozenset({unwanted})))
    assert "it can't be asked here" in only_finding(ovn_db_replication_down, asked_nowhere).summary
    assert ask(world) == Unknown((unwanted,))
    says = only_finding(ovn_db_replication_down, told(world, db, active="tcp:x.example:1", reopening=True))
    assert "again and again" in says.summary


@BOTH
@pytest.mark.parametrize(
    ("says", "trouble"),
    [
        pytest.param({"active": None}, "it is not told whom to replicate", id="told of none"),
        pytest.param({"connecting": True}, "it has no connection to {active}", id="never connected"),
        pytest.param({"reopening": True}, "it connects to {active} again and again", id="lost, and tries again"),
        pytest.param(
            {"active": "pssl:what"},
            "it can't be asked here at the address that it was told: pssl:what",
            id="an address of no known form",
        ),
        pytest.param(
            {"active": "tcp:x.example:1", "connecting": True},
            "it has no connection to tcp:x.example:1",
            id="one that is nobody",
        ),
    ],
)
def test_a_standby_says_itself_that_it_does_not(db: Database, says: dict[str, Any], trouble: str) -> None:
    """Whether its active answers us is another question."""
    finding = only_finding(ovn_db_replication_down, told(healthy_standby(), db, **says))
    assert finding.subject == source(db)
    assert finding.summary == (
        f"the standby local of {db} gets nothing from its active: {trouble.format(active=address(db, ACTIVE))}"
    )
    assert (finding.reads, finding.read_at) == (2, READ)


@BOTH
@pytest.mark.parametrize("reason", sorted(set(Reason) - {Reason.PENDING}))
def test_its_active_does_not_answer_us_either(db: Database, reason: Reason) -> None:
    """It goes on saying 'replicating'; that is not believed."""
    finding = only_finding(ovn_db_replication_down, without(healthy_standby(), source(db, ACTIVE), "no route", reason))
    assert finding.summary.endswith(f"{address(db, ACTIVE)} does not answer us: no route")
    assert f"see that {address(db, ACTIVE)} answers from this host" in finding.remedy


@BOTH
def test_while_its_active_is_being_asked_for_the_first_time_it_cannot_tell(db: Database) -> None:
    world = without(healthy_standby(), source(db, ACTIVE), "not asked yet", Reason.PENDING)
    assert ask(world) == Unknown((source(db, ACTIVE),))


@BOTH
def test_it_is_told_to_replicate_itself(db: Database) -> None:
    """The address that it names is asked, and it is the server itself that answers."""
    here = f"tcp:{STANDBY}:7777"
    world = asked_too(told(healthy_standby(), db, active=here), standby_server(db), here)
    finding = only_finding(ovn_db_replication_down, world)
    assert finding.summary.endswith(f"it is told to replicate itself ({here})")
    assert "ovsdb-server/set-active-ovsdb-server" in finding.remedy


@BOTH
def test_it_was_and_took_writes_upon_that(db: Database) -> None:
    here = f"tcp:{STANDBY}:7777"
    world = told(healthy_standby(), db, active=here, standby=False)
    world = asked_too(changed(world, source(db), writable=True), standby_server(db, writable=True), here)
    assert only_finding(ovn_db_replication_down, world).summary.endswith(f"it is told to replicate itself ({here})")


@BOTH
def test_one_that_was_promoted_need_not_replicate_whom_it_names(db: Database) -> None:
    world = told(healthy_standby(), db, standby=False)
    world = changed(world, source(db), writable=True)
    assert ask(without(world, source(db, ACTIVE))) == ()


@BOTH
def test_from_afar_it_replicates_the_one_that_takes_writes(db: Database) -> None:
    """What it was told only its own control socket says."""
    assert ask(healthy_third()) == ()
    finding = only_finding(ovn_db_replication_down, without(healthy_third(), source(db, ACTIVE)))
    assert finding.subject == source(db, STANDBY)
    assert finding.summary.endswith("it is not known here whom it replicates: not exactly one server takes writes")
    assert finding.remedy.startswith("see on the standby's host what ovs-appctl ovsdb-server/sync-status says")


@BOTH
def test_where_its_own_control_socket_fails_it_is_seen_as_from_afar(db: Database) -> None:
    world = changed(healthy_standby(), source(db), replication=None, control_why="no socket")
    assert ask(world) == ()
    assert only_finding(ovn_db_replication_down, without(world, source(db, ACTIVE))).subject == source(db)


@BOTH
def test_it_is_not_asked_who_replicates_whom_in_a_cluster(db: Database) -> None:
    lost = member_server(db, connected=False, writable=False, leader=False)
    assert ask(central(lost)) == ()


@BOTH
@pytest.mark.parametrize("reason", [Reason.MISSING, Reason.REFUSED])
def test_where_nobody_is_there_nobody_stands_by(db: Database, reason: Reason) -> None:
    assert ask(without(healthy_central(), source(db, STANDBY), reason=reason)) == ()


@BOTH
def test_one_that_hides_may_be_a_standby_without_its_active(db: Database) -> None:
    lost = without(healthy_central(), source(db, STANDBY), reason=Reason.TIMEOUT)
    assert ask(lost) == Unknown((source(db, STANDBY),))


def test_each_standby_of_each_database_has_a_finding_of_its_own() -> None:
    world = told(told(healthy_standby(), NB, connecting=True), SB, connecting=True)
    assert [f.subject for f in findings(ovn_db_replication_down, world)] == [source(NB), source(SB)]


@BOTH
def test_two_standbys_of_which_one_replicates(db: Database) -> None:
    third = from_afar(active_server(db, identity="third", writable=False), "192.0.2.13")
    world = asked_too(told(healthy_standby(), db, reopening=True), third, third.server)
    assert [f.subject for f in findings(ovn_db_replication_down, world)] == [source(db)]


@BOTH
def test_it_is_reported_after_two_reads(db: Database) -> None:
    world = told(healthy_standby(), db, connecting=True)
    assert reported(ovn_db_replication_down, world, reads=1) == ()
    (found,) = reported(ovn_db_replication_down, world, reads=2)
    assert (found.severity, found.subject) == ("warning", source(db))


def test_it_follows_from_no_writer() -> None:
    """Whoever mends the active mends this too."""
    assert ovn_db_replication_down.follows == ("ovn_db_no_writer",)


@pytest.mark.parametrize("name", AWKWARD)
def test_addresses_with_anything_in_them(name: str) -> None:
    world = told(healthy_standby(), NB, active=name)
    assert name in only_finding(ovn_db_replication_down, replace(world)).summary
