"""The stages of a fail-over, seen from the active's host, the standby's and a third: these findings and no other."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mecexporter.errors import Reason
from mecexporter.state.central import servers, source_name
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.ovn_db import LOCAL, Database, DatabaseServer, Model
from tests.checks.verdicts import all_said
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
    changed,
    from_afar,
    healthy_central,
    healthy_member,
    healthy_standby,
    healthy_third,
    in_sync,
    standby_server,
    with_member,
    without,
)

if TYPE_CHECKING:
    from mecexporter.state.world import World

HOSTS = {ACTIVE: healthy_central, STANDBY: healthy_standby, THIRD: healthy_third}
BOTH = pytest.mark.parametrize("db", [NB, SB])
FROM_EACH = pytest.mark.parametrize("host", HOSTS)
Server = DatabaseServer | Reason
"""What it says as its own host sees it, or why it says nothing."""


def label(host: str, of: str, db: Database) -> str:
    """Of a host's server, seen from another host or from its own."""
    return LOCAL if of == host else address(db, of)


def name(host: str, of: str, db: Database) -> str:
    """Its source, and what findings call it."""
    return source_name(db, label(host, of, db))


def seen_from(host: str, db: Database, first: Server, second: Server, *, equal: bool | None = True) -> World:
    """One database's two servers, the first on the active's host; the other database's are healthy.

    Args:
        host: whose World it is.
        db: the database.
        first: the server on the active's host.
        second: the server on the standby's host.
        equal: what the comparison says of each that stands by.
    """
    world = HOSTS[host]()
    standbys: dict[str, str] = {}
    for of, other, server in ((ACTIVE, STANDBY, first), (STANDBY, ACTIVE, second)):
        source = name(host, of, db)
        if isinstance(server, Reason):
            world = without(world, source, f"{of}: no answer", server)
            continue
        seen = server if of == host else from_afar(server, of)
        world = world.with_part(source, Fresh(seen, READ))
        if seen.is_standby:
            standbys[seen.server] = label(host, other, db)
    if not standbys:
        gone = replace(world, applicable=world.applicable - {SYNC[db]})
        return gone.with_part(SYNC[db], Absent("not asked on this node", READ, READ))
    return world.with_part(SYNC[db], Fresh(tuple(in_sync(db, s, a, in_sync=equal) for s, a in standbys.items()), READ))


def promoted(db: Database) -> DatabaseServer:
    """The standby that takes writes now; it still names whom it replicated."""
    told = standby_server(db).replication
    assert told is not None
    return standby_server(db, writable=True, replication=replace(told, standby=False))


def rejoined(db: Database, **fields: Any) -> DatabaseServer:
    """The server on the active's host, told to replicate the promoted one."""
    told = standby_server(db).replication
    assert told is not None
    fields = {"active": address(db, STANDBY)} | fields
    return active_server(db, writable=fields.get("standby", True) is False, replication=replace(told, **fields))


@BOTH
@FROM_EACH
@pytest.mark.parametrize("reason", [Reason.REFUSED, Reason.TIMEOUT])
def test_the_active_dies(host: str, db: Database, reason: Reason) -> None:
    world = seen_from(host, db, reason, standby_server(db), equal=None)
    dead, standby = name(host, ACTIVE, db), name(host, STANDBY, db)
    findings, unknown = all_said(world)
    first = standby if host == STANDBY else dead
    assert findings == {"ovn_db_no_writer": [first], "ovn_db_replication_down": [standby]}
    hidden = {"ovn_db_split_brain": [dead]} if reason is Reason.TIMEOUT else {}
    # Only the standby's own host knows whom it replicated; elsewhere the comparison itself has nobody to ask.
    with_whom = [dead] if host == STANDBY else [dead, SYNC[db]]
    assert unknown == {"ovn_db_out_of_sync": with_whom} | hidden


@BOTH
@FROM_EACH
def test_the_standby_is_promoted_while_the_active_is_dead(host: str, db: Database) -> None:
    """One server less is not all well, but nothing is wrong with what there is."""
    findings, unknown = all_said(seen_from(host, db, Reason.REFUSED, promoted(db)))
    assert findings == {}
    assert unknown == {"ovn_db_out_of_sync": [name(host, ACTIVE, db)]}


@BOTH
@FROM_EACH
def test_the_standby_is_promoted_while_nobody_knows_of_the_active(host: str, db: Database) -> None:
    """Its host may be off, or cut off and taking writes."""
    dead = name(host, ACTIVE, db)
    findings, unknown = all_said(seen_from(host, db, Reason.TIMEOUT, promoted(db)))
    assert findings == {}
    checks = ("ovn_db_out_of_sync", "ovn_db_replication_down", "ovn_db_split_brain")
    assert unknown == {check: [dead] for check in checks}


@BOTH
@FROM_EACH
def test_the_old_active_comes_back_as_one(host: str, db: Database) -> None:
    first = name(host, STANDBY if host == STANDBY else ACTIVE, db)
    assert all_said(seen_from(host, db, active_server(db), promoted(db))) == ({"ovn_db_split_brain": [first]}, {})


@BOTH
@FROM_EACH
def test_the_old_active_rejoins_as_the_standby(host: str, db: Database) -> None:
    assert all_said(seen_from(host, db, rejoined(db), promoted(db))) == ({}, {})


@BOTH
@FROM_EACH
def test_the_old_active_rejoins_and_cannot_reach_the_new_one(host: str, db: Database) -> None:
    """Only its own host sees that, until rows differ."""
    world = seen_from(host, db, rejoined(db, connecting=True), promoted(db))
    seen = {"ovn_db_replication_down": [name(host, ACTIVE, db)]} if host == ACTIVE else {}
    assert all_said(world) == (seen, {})


@BOTH
@FROM_EACH
def test_the_old_active_rejoins_with_what_it_alone_was_told(host: str, db: Database) -> None:
    world = seen_from(host, db, rejoined(db), promoted(db), equal=False)
    assert all_said(world) == ({"ovn_db_out_of_sync": [name(host, ACTIVE, db)]}, {})


@BOTH
@FROM_EACH
def test_the_old_active_is_told_to_replicate_itself_and_promotes_itself(host: str, db: Database) -> None:
    """OVS 3.1 gives up on that without a word, and takes writes."""
    itself = rejoined(db, active=address(db, ACTIVE), standby=False)
    world = seen_from(host, db, replace(itself, writable=True), promoted(db))
    own = {"ovn_db_replication_down": [name(host, ACTIVE, db)]} if host == ACTIVE else {}
    if host == ACTIVE:  # an address that is named is asked
        world = asked_too(world, replace(itself, writable=True), address(db, ACTIVE))
    first = name(host, STANDBY if host == STANDBY else ACTIVE, db)
    assert all_said(world) == ({"ovn_db_split_brain": [first]} | own, {})


@BOTH
def test_a_standby_that_is_told_to_replicate_itself_and_stays_one(db: Database) -> None:
    world = seen_from(ACTIVE, db, rejoined(db, active=address(db, ACTIVE)), promoted(db))
    world = asked_too(world, rejoined(db, active=address(db, ACTIVE)), address(db, ACTIVE))
    assert all_said(world)[0] == {"ovn_db_replication_down": [name(ACTIVE, ACTIVE, db)]}


@BOTH
@FROM_EACH
def test_the_standby_dies(host: str, db: Database) -> None:
    """Nobody is there to take over: that can't be told to be well."""
    findings, unknown = all_said(seen_from(host, db, active_server(db), Reason.REFUSED))
    assert findings == {}
    assert unknown == {"ovn_db_out_of_sync": [name(host, STANDBY, db)]}


@BOTH
@FROM_EACH
def test_both_die(host: str, db: Database) -> None:
    """Nobody says what is the matter: there is no finding, and no 'well' either."""
    findings, unknown = all_said(seen_from(host, db, Reason.REFUSED, Reason.REFUSED))
    both = [name(host, of, db) for of in ((STANDBY, ACTIVE) if host == STANDBY else (ACTIVE, STANDBY))]
    assert findings == {}
    assert {check: set(missing) for check, missing in unknown.items()} == {
        "ovn_db_no_writer": set(both),
        "ovn_db_out_of_sync": set(both),
    }


@BOTH
@FROM_EACH
def test_both_stand_by(host: str, db: Database) -> None:
    """The active was told to replicate the standby, and nobody was promoted."""
    findings, _ = all_said(seen_from(host, db, rejoined(db), standby_server(db)))
    assert "ovn_db_no_writer" in findings
    assert "ovn_db_split_brain" not in findings
    assert "ovn_db_out_of_sync" not in findings


class TestCluster:
    """The same for a member of a cluster of three."""

    @BOTH
    def test_another_member_dies(self, db: Database) -> None:
        world = with_member(healthy_member(), db, THIRD, reachable=False)
        assert all_said(world) == ({"ovn_db_raft_degraded": [source_name(db, LOCAL)]}, {})

    @BOTH
    def test_two_others_die(self, db: Database) -> None:
        (own,) = servers(healthy_member(), db)
        assert own.raft is not None
        lone = replace(own.raft, role="candidate", leader=None)
        world = changed(
            healthy_member(), source_name(db, LOCAL), connected=False, leader=False, writable=False, raft=lone
        )
        local = source_name(db, LOCAL)
        assert all_said(world) == ({"ovn_db_no_writer": [local], "ovn_db_raft_degraded": [local]}, {})

    @BOTH
    def test_this_member_dies(self, db: Database) -> None:
        """Of a cluster nobody else is asked about, it can't be told how it is."""
        findings, unknown = all_said(without(healthy_member(), source_name(db, LOCAL)))
        assert findings == {}
        assert unknown == {
            "ovn_db_no_writer": [source_name(db, LOCAL)],
            "ovn_db_raft_degraded": [source_name(db, LOCAL)],
        }

    def test_a_member_is_not_two_writers(self) -> None:
        world = healthy_member()
        for db in Database:
            (own,) = servers(world, db)
            assert own.model is Model.CLUSTERED
            world = asked_too(world, replace(own, identity="another member", leader=False), address(db, STANDBY))
        assert all_said(world) == ({}, {})
