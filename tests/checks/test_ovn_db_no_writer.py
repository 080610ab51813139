"""No server of a database takes writes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mecexporter.checks.base import Unknown
from mecexporter.checks.ledger import Ledger
from mecexporter.checks.ovn_db_no_writer import ovn_db_no_writer
from mecexporter.errors import Reason
from mecexporter.state.central import source_name
from mecexporter.state.ovn_db import LOCAL, Database, Model
from tests.checks.verdicts import only_finding, reported
from tests.worlds import (
    ACTIVE,
    NB,
    NOW,
    READ,
    SB,
    STANDBY,
    active_server,
    address,
    asked_too,
    central,
    changed,
    healthy_central,
    healthy_member,
    healthy_standby,
    healthy_third,
    standby_server,
    without,
)

ask = ovn_db_no_writer.ask
BOTH = pytest.mark.parametrize("db", [NB, SB])


def source(db: Database, host: str = LOCAL) -> str:
    return source_name(db, host if host == LOCAL else address(db, host))


@pytest.mark.parametrize("world", [healthy_central(), healthy_standby(), healthy_third(), healthy_member()])
def test_one_that_takes_writes_is_enough(world: object) -> None:
    assert ask(world) == ()  # type: ignore[arg-type]  # parametrize has no type for it


@BOTH
@pytest.mark.parametrize("reason", Reason)
def test_the_active_does_not_answer_whatever_the_reason(db: Database, reason: Reason) -> None:
    """Silence is enough, where another server answers that it takes no writes."""
    world = without(healthy_standby(), source(db, ACTIVE), reason=reason)
    finding = only_finding(ovn_db_no_writer, world)
    assert finding.subject == source(db)
    assert finding.summary == (
        f"no server of {db} takes writes: local is a standby; {address(db, ACTIVE)} does not answer"
    )
    control = f"/run/ovn/ovn{'nb' if db is NB else 'sb'}_db.ctl"
    assert f"ovs-appctl -t {control} ovsdb-server/disconnect-active-ovsdb-server" in finding.remedy
    assert finding.hold == world.settings.grace_no_writer


@BOTH
def test_all_stand_by(db: Database) -> None:
    finding = only_finding(ovn_db_no_writer, changed(healthy_central(), source(db), writable=False))
    assert finding.summary.endswith(f"local is a standby; {address(db, STANDBY)} is a standby")
    assert finding.read_at == READ


@BOTH
def test_a_member_without_its_cluster(db: Database) -> None:
    world = changed(healthy_member(), source(db), connected=False, writable=False)
    finding = only_finding(ovn_db_no_writer, world)
    assert finding.summary == f"no server of {db} takes writes: local is a member without its cluster"
    assert finding.remedy == "start the members of the cluster that are down: it needs more than half of them"


def test_each_database_has_a_finding_of_its_own() -> None:
    world = central(standby_server(NB), standby_server(SB))
    assert [f.subject for f in reported(ovn_db_no_writer, world)] == [source(NB), source(SB)]


@BOTH
def test_where_nobody_answers_it_cannot_tell(db: Database) -> None:
    """One's own network may be what is broken."""
    world = without(without(healthy_central(), source(db)), source(db, STANDBY), reason=Reason.TIMEOUT)
    assert ask(world) == Unknown((source(db), source(db, STANDBY)))


@BOTH
def test_one_that_cannot_be_told_leaves_it_open(db: Database) -> None:
    """A listener for readers only answers as a standby does."""
    world = changed(healthy_standby(), source(db, ACTIVE), writable=None)
    assert ask(world) == Unknown((source(db, ACTIVE),))


@BOTH
def test_a_relay_is_no_server_that_could_take_them(db: Database) -> None:
    relay = active_server(db, identity="relay", model=Model.RELAY, writable=None)
    world = asked_too(changed(healthy_central(), source(db), writable=False), relay, "tcp:relay.example:1")
    assert "relay" not in only_finding(ovn_db_no_writer, world).summary


@BOTH
def test_the_other_database_that_cannot_be_told_hides_nothing(db: Database) -> None:
    other = SB if db is NB else NB
    world = changed(healthy_central(), source(db), writable=False)
    for host in (LOCAL, STANDBY):
        world = without(world, source(other, host))
    assert only_finding(ovn_db_no_writer, world).subject == source(db)


@BOTH
def test_it_is_reported_after_the_grace(db: Database) -> None:
    world = changed(healthy_central(), source(db), writable=False)
    assert reported(ovn_db_no_writer, world, seconds=29) == ()
    (found,) = reported(ovn_db_no_writer, world, seconds=30)
    assert (found.severity, found.first_seen) == ("critical", NOW - 30)
    longer = replace(world, settings=replace(world.settings, grace_no_writer=90.0))
    assert reported(ovn_db_no_writer, longer, seconds=89) == ()
    assert len(reported(ovn_db_no_writer, longer, seconds=90)) == 1


def test_a_writer_in_between_begins_the_grace_anew() -> None:
    ledger = Ledger()
    without_writer = changed(healthy_central(), source(NB), writable=False)
    for seconds, world in ((0, without_writer), (20, healthy_central()), (25, without_writer), (50, without_writer)):
        report = ledger.advance([ovn_db_no_writer], replace(world, now=NOW + seconds))
        assert report.findings[ovn_db_no_writer.name] == (), seconds
    report = ledger.advance([ovn_db_no_writer], replace(without_writer, now=NOW + 55))
    assert len(report.findings[ovn_db_no_writer.name]) == 1


@BOTH
def test_its_subject_stays_when_the_server_that_answers_stops(db: Database) -> None:
    """Whichever of the two is silent: the finding is the same one."""
    standing_by = changed(healthy_central(), source(db), writable=False)
    silent = without(healthy_central(), source(db))
    assert only_finding(ovn_db_no_writer, standing_by).subject == only_finding(ovn_db_no_writer, silent).subject
