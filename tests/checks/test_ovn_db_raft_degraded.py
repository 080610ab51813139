"""A cluster that lost a member (a warning), or its leader (critical)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mecexporter.checks.base import Severity, Unknown
from mecexporter.checks.ovn_db_raft_degraded import ovn_db_raft_degraded
from mecexporter.errors import Reason
from mecexporter.state.central import source_name
from mecexporter.state.ovn_db import LOCAL, Database, Member
from tests.checks.verdicts import findings, only_finding, reported
from tests.metrics.scrape import series
from tests.worlds import (
    ACTIVE,
    NB,
    READ,
    SB,
    STANDBY,
    THIRD,
    active_server,
    address,
    asked_too,
    central,
    changed,
    degraded_member,
    from_afar,
    healthy_member,
    member_server,
    with_member,
    without,
)

if TYPE_CHECKING:
    from mecexporter.state.world import World

ask = ovn_db_raft_degraded.ask
BOTH = pytest.mark.parametrize("db", [NB, SB])
HOSTS = (ACTIVE, STANDBY, THIRD)


def source(db: Database, host: str = LOCAL) -> str:
    return source_name(db, host if host == LOCAL else address(db, host))


def raft(world: World, db: Database, **fields: Any) -> World:
    part: Any = world.part(source(db))
    return changed(world, source(db), raft=replace(part.value.raft, **fields))


def cluster_from_afar() -> World:
    """Nobody's control socket can be asked."""
    members = (
        from_afar(member_server(db, identity=f"{db} {host}", leader=host == ACTIVE), host)
        for db in Database
        for host in HOSTS
    )
    return central(*members)


def follower() -> World:
    """Its leader is s2; of the third it can tell nothing."""
    world = healthy_member()
    for db in Database:
        world = raft(changed(world, source(db), leader=False), db, role="follower", leader="s2")
        world = with_member(world, db, THIRD, reachable=None)
    return world


@pytest.mark.parametrize("world", [healthy_member(), follower(), cluster_from_afar()])
def test_all_members_are_there(world: World) -> None:
    assert ask(world) == ()


@BOTH
def test_a_member_that_cannot_be_reached(db: Database) -> None:
    finding = only_finding(ovn_db_raft_degraded, with_member(healthy_member(), db, THIRD, reachable=False))
    port = 6643 if db is NB else 6644
    assert finding.subject == source(db)
    assert finding.summary == (
        f"of 3 members of the cluster of {db}, 1 can't be reached from local: tcp:{THIRD}:{port}; none more may fail"
    )
    assert f"cluster/kick {db} 5e03, move its old file away" in finding.remedy
    assert (finding.severity, finding.reads, finding.read_at) == (None, 2, READ)


@pytest.mark.parametrize(
    ("members", "lost", "words"),
    [
        (2, 1, "none more may fail"),
        (3, 1, "none more may fail"),
        (5, 1, "1 more may fail"),
        (5, 2, "none more may fail"),
        (7, 1, "2 more may fail"),
    ],
)
def test_how_many_more_may_fail(members: int, lost: int, words: str) -> None:
    others = tuple(Member(server_id=f"{n:04x}", address=f"tcp:h{n}:1", reachable=n >= lost) for n in range(members - 1))
    summary = only_finding(ovn_db_raft_degraded, raft(healthy_member(), NB, others=others)).summary
    assert summary.startswith(f"of {members} members of the cluster of OVN_Northbound, {lost} can't be reached")
    assert summary.endswith(f"; {words}")


@BOTH
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"connected": False}, id="_Server says so, whatever the member thinks"),
        pytest.param({"raft": None, "connected": False}, id="_Server alone"),
    ],
)
def test_no_quorum(db: Database, fields: dict[str, Any]) -> None:
    finding = only_finding(ovn_db_raft_degraded, changed(healthy_member(), source(db), writable=False, **fields))
    assert finding.severity is Severity.CRITICAL
    assert finding.summary == f"the cluster of {db} has no leader that local knows of: nothing can be written"
    assert "more than half of them are needed" in finding.remedy


@BOTH
@pytest.mark.parametrize("role", ["follower", "candidate"])
def test_no_leader(db: Database, role: str) -> None:
    world = with_member(raft(healthy_member(), db, role=role, leader=None), db, THIRD, reachable=False)
    assert only_finding(ovn_db_raft_degraded, world).severity is Severity.CRITICAL, "and not the warning too"


@BOTH
def test_a_cluster_of_one(db: Database) -> None:
    assert ask(raft(healthy_member(), db, others=())) == ()


class TestFromAfar:
    """Of members whose control sockets are not ours to ask, those that do not answer are what is seen."""

    @BOTH
    @pytest.mark.parametrize("reason", sorted(set(Reason)))
    def test_one_does_not_answer(self, db: Database, reason: Reason) -> None:
        world = without(cluster_from_afar(), source(db, THIRD), "no route", reason)
        finding = only_finding(ovn_db_raft_degraded, world)
        assert finding.subject == source(db, THIRD)
        assert finding.summary == f"the member {address(db, THIRD)} of the cluster does not answer: no route"
        assert (finding.severity, finding.reads, finding.read_at) == (None, 2, world.now - 1)

    def test_one_that_has_not_been_asked_yet_is_never_reported(self) -> None:
        world = without(cluster_from_afar(), source(NB, THIRD), "not asked yet", Reason.PENDING)
        assert reported(ovn_db_raft_degraded, world) == ()

    @BOTH
    def test_one_is_cut_off_from_the_others(self, db: Database) -> None:
        """There is a leader, and what it serves can be written."""
        world = changed(cluster_from_afar(), source(db, THIRD), connected=False, writable=False)
        finding = only_finding(ovn_db_raft_degraded, world)
        assert (finding.subject, finding.severity) == (source(db, THIRD), None)
        assert finding.summary == (
            f"the member {address(db, THIRD)} of the cluster of {db} knows of no leader, though there is one"
        )

    @BOTH
    def test_none_has_a_leader(self, db: Database) -> None:
        world = cluster_from_afar()
        for host in HOSTS:
            world = changed(world, source(db, host), connected=False, writable=False, leader=False)
        found = findings(ovn_db_raft_degraded, world)
        assert [f.subject for f in found] == [source(db, host) for host in HOSTS]
        assert {f.severity for f in found} == {Severity.CRITICAL}

    @BOTH
    def test_our_own_is_cut_off_and_a_peer_knows_of_a_leader(self, db: Database) -> None:
        own = changed(raft(healthy_member(), db, role="candidate", leader=None), source(db), connected=False)
        peer = member_server(db, identity="the second")
        finding = only_finding(ovn_db_raft_degraded, asked_too(own, peer, address(db, STANDBY)))
        assert (finding.subject, finding.severity) == (source(db), None)

    @BOTH
    def test_a_member_that_is_a_peer_is_known_by_our_own_members_word(self, db: Database) -> None:
        """It is reachable from the cluster, if not from here: no finding."""
        peer = member_server(db, identity="the second", leader=False)
        world = without(asked_too(healthy_member(), peer, address(db, STANDBY)), source(db, STANDBY))
        assert ask(world) == ()

    @BOTH
    def test_nobody_answers(self, db: Database) -> None:
        world = cluster_from_afar()
        for host in HOSTS:
            world = without(world, source(db, host))
        assert ask(world) == Unknown(tuple(source(db, host) for host in HOSTS))


@BOTH
def test_without_its_control_socket_a_member_cannot_tell_of_the_others(db: Database) -> None:
    world = changed(healthy_member(), source(db), raft=None, control_why="ovnnb_db.ctl: permission denied")
    assert ask(world) == Unknown((source(db),))


@BOTH
def test_a_finding_of_one_database_is_told_though_the_other_is_silent(db: Database) -> None:
    other = SB if db is NB else NB
    world = without(with_member(healthy_member(), db, THIRD, reachable=False), source(other))
    assert only_finding(ovn_db_raft_degraded, world).subject == source(db)


def test_each_database_has_a_finding_of_its_own() -> None:
    world = with_member(degraded_member(), NB, STANDBY, reachable=False)
    assert [f.subject for f in findings(ovn_db_raft_degraded, world)] == [source(NB), source(SB)]


def test_a_standalone_server_is_no_member() -> None:
    assert ask(central(member_server(NB), active_server(SB))) == ()


def test_it_is_reported_after_two_reads_with_its_severity() -> None:
    assert reported(ovn_db_raft_degraded, degraded_member(), reads=1) == ()
    (found,) = reported(ovn_db_raft_degraded, degraded_member(), reads=2)
    assert found.severity is Severity.WARNING
    (found,) = reported(ovn_db_raft_degraded, raft(degraded_member(), SB, leader=None), reads=2)
    assert found.severity is Severity.CRITICAL


@pytest.mark.parametrize(
    ("world", "warnings", "criticals"),
    [
        (healthy_member(), 0, 0),
        (degraded_member(), 1, 0),
        (raft(degraded_member(), NB, leader=None), 1, 1),
        (raft(degraded_member(), SB, leader=None), 0, 1),
    ],
)
def test_both_severities_have_a_series(world: World, warnings: int, criticals: int) -> None:
    """Also when one is 0, so that an alert on either one can end."""
    found = series(world)
    counts = {
        severity: found["mec_check_findings", frozenset({("check", "ovn_db_raft_degraded"), ("severity", severity)})]
        for severity in ("warning", "critical")
    }
    assert counts == {"warning": warnings, "critical": criticals}
