"""Two standalone servers of one database take writes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mecexporter.checks.base import Unknown
from mecexporter.checks.ledger import Ledger
from mecexporter.checks.ovn_db_split_brain import ovn_db_split_brain
from mecexporter.errors import Reason
from mecexporter.state.central import source_name
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.ovn_db import LOCAL, Database, Model
from tests.checks.verdicts import findings, only_finding, reported
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
    healthy_central,
    healthy_member,
    healthy_standby,
    healthy_third,
    member_server,
    without,
)

if TYPE_CHECKING:
    from mecexporter.state.world import World

ask = ovn_db_split_brain.ask
BOTH = pytest.mark.parametrize("db", [NB, SB])


def source(db: Database, host: str = LOCAL) -> str:
    return source_name(db, host if host == LOCAL else address(db, host))


def split(db: Database) -> World:
    return changed(healthy_central(), source(db, STANDBY), writable=True)


@pytest.mark.parametrize("world", [healthy_central(), healthy_standby(), healthy_third()])
def test_one_writer(world: World) -> None:
    assert ask(world) == ()


@BOTH
def test_none_is_another_checks(db: Database) -> None:
    assert ask(changed(healthy_central(), source(db), writable=False)) == ()


@BOTH
def test_two_writers(db: Database) -> None:
    finding = only_finding(ovn_db_split_brain, split(db))
    assert finding.subject == source(db)
    assert finding.summary == f"2 servers of {db} take writes: local, {address(db, STANDBY)}"
    assert "decide which of them is right" in finding.remedy
    control = f"/run/ovn/ovn{'nb' if db is NB else 'sb'}_db.ctl"
    assert (
        "If local is the wrong one: "
        f"ovs-appctl -t {control} ovsdb-server/set-active-ovsdb-server {address(db, STANDBY)}; "
        f"ovs-appctl -t {control} ovsdb-server/connect-active-ovsdb-server. "
    ) in finding.remedy
    assert finding.reads == 2


@BOTH
def test_a_third_host_does_not_know_their_sockets(db: Database) -> None:
    remedy = only_finding(ovn_db_split_brain, changed(healthy_third(), source(db, STANDBY), writable=True)).remedy
    assert (
        "On the host of the wrong one: "
        "ovs-appctl -t <its control socket> ovsdb-server/set-active-ovsdb-server <the right one>; "
    ) in remedy


def test_both_databases() -> None:
    world = changed(split(NB), source(SB, STANDBY), writable=True)
    assert [f.subject for f in findings(ovn_db_split_brain, world)] == [source(NB), source(SB)]


@BOTH
def test_three_writers_are_one_finding(db: Database) -> None:
    world = asked_too(split(db), active_server(db, identity="the third"), "tcp:third.example:1")
    assert only_finding(ovn_db_split_brain, world).summary.startswith(f"3 servers of {db} take writes: ")


@BOTH
def test_the_standbys_own_host_sees_it_too(db: Database) -> None:
    finding = only_finding(ovn_db_split_brain, changed(healthy_standby(), source(db), writable=True))
    assert finding.summary.endswith(f"local, {address(db, ACTIVE)}")


@BOTH
def test_which_of_them_write_makes_no_new_finding(db: Database) -> None:
    third = "tcp:third.example:1"
    world = asked_too(split(db), active_server(db, identity="the third"), third)
    ledger = Ledger()
    subjects = set()
    silent = (None, source(db), source(db, STANDBY), source_name(db, third))
    for at, lost in enumerate(silent):
        now = replace(without(world, lost) if lost else world, now=READ + at)
        subjects |= {f.subject for f in findings(ovn_db_split_brain, now)}
        for read in (0.0, 0.5):
            every = {s: Fresh(p.value, READ + at + read) for s, p in now.databases.items() if isinstance(p, Fresh)}
            report = ledger.advance([ovn_db_split_brain], replace(now, databases={**now.databases, **every}))
        (found,) = report.findings[ovn_db_split_brain.name]
        assert found.first_seen == READ
    assert subjects == {source(db)}


@BOTH
def test_one_server_by_two_addresses_is_one_writer(db: Database) -> None:
    assert ask(asked_too(healthy_central(), active_server(db), address(db, ACTIVE))) == ()
    again = asked_too(split(db), active_server(db), address(db, ACTIVE))
    assert only_finding(ovn_db_split_brain, again).summary.startswith("2 servers")


@BOTH
def test_members_and_relays_are_no_two_writers(db: Database) -> None:
    world = asked_too(healthy_member(), member_server(db, identity="another"), address(db, STANDBY))
    relay = active_server(db, identity="relay", model=Model.RELAY, writable=None)
    assert ask(asked_too(world, relay, "tcp:relay.example:1")) == ()
    assert ask(asked_too(healthy_central(), relay, "tcp:relay.example:1")) == ()


@BOTH
@pytest.mark.parametrize("reason", [Reason.MISSING, Reason.REFUSED])
def test_where_nobody_is_there_nobody_takes_writes(db: Database, reason: Reason) -> None:
    assert ask(without(healthy_central(), source(db, STANDBY), reason=reason)) == ()


@BOTH
@pytest.mark.parametrize("reason", sorted(set(Reason) - {Reason.MISSING, Reason.REFUSED}))
def test_one_that_does_not_answer_may_take_writes_all_the_same(db: Database, reason: Reason) -> None:
    lost = without(healthy_central(), source(db, STANDBY), reason=reason)
    assert ask(lost) == Unknown((source(db, STANDBY),))


@BOTH
def test_one_that_cannot_be_told_may_too(db: Database) -> None:
    assert ask(changed(healthy_central(), source(db, STANDBY), writable=None)) == Unknown((source(db, STANDBY),))


@BOTH
def test_two_that_do_are_enough_whatever_a_third_does(db: Database) -> None:
    world = asked_too(split(db), active_server(db, identity="the third"), "tcp:third.example:1")
    world = without(world, source_name(db, "tcp:third.example:1"), reason=Reason.TIMEOUT)
    assert only_finding(ovn_db_split_brain, world).summary.startswith("2 servers")


def test_one_that_never_told_what_it_is_may_be_one() -> None:
    world = central(active_server(NB))
    peer = source(NB, STANDBY)
    world = replace(world, applicable=world.applicable | {peer})
    assert ask(world.with_part(peer, Absent("not asked yet", READ, READ))) == Unknown((peer,))


@BOTH
def test_it_is_reported_after_two_reads_of_both(db: Database) -> None:
    assert reported(ovn_db_split_brain, split(db), reads=1) == ()
    (found,) = reported(ovn_db_split_brain, split(db), reads=2)
    assert (found.severity, found.subject) == ("critical", source(db))
    world = split(db)
    older = world.with_part(source(db), Fresh(active_server(db), READ - 9))
    assert only_finding(ovn_db_split_brain, older).read_at == READ - 9, "the older of the two"


@BOTH
def test_one_that_was_started_again_is_not_two(db: Database) -> None:
    """Its identity is new; at its other address it was last asked before that."""
    before = asked_too(healthy_central(), active_server(db), address(db, ACTIVE))
    again = active_server(db, identity="started again")
    ledger = Ledger()
    for at in (READ + 5, READ + 12, READ + 14):
        world = replace(before.with_part(source(db), Fresh(again, at)), now=at)
        assert ledger.advance([ovn_db_split_brain], world).findings[ovn_db_split_brain.name] == ()
    after = world.with_part(source(db, ACTIVE), Fresh(replace(again, server=address(db, ACTIVE)), READ + 15))
    report = ledger.advance([ovn_db_split_brain], after)
    assert (report.findings[ovn_db_split_brain.name], report.pending) == ((), {})
