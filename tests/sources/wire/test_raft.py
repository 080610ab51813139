"""``cluster/status`` of every release, and of none."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.wire.raft import parse_cluster_status
from mecexporter.state.ovn_db import Member, Raft

LEADER = """\
s1
Name: OVN_Northbound
Cluster ID: 1edb (1edb6f09-3c51-4e5f-9d0e-2f1a0c6f7b11)
Server ID: d2f1 (d2f1f759-8a58-4e3a-8f6f-6b1f5c0e7a22)
Address: unix:/w/s1.raft
Status: cluster member
Role: leader
Term: 1
Leader: self
Vote: self

Last Election started 2584 ms ago, reason: timeout
Last Election won: 2584 ms ago
Election timer: 1000
Log: [2, 7]
Entries not yet committed: 0
Entries not yet applied: 0
Connections: <-s2 ->s2 <-s3 ->s3
Disconnections: 0
Servers:
    s3 (7081 at unix:/w/s3.raft) next_index=7 match_index=6 last msg 4 ms ago
    s2 (9c2e at unix:/w/s2.raft) next_index=7 match_index=6 last msg 5 ms ago
    s1 (d2f1 at unix:/w/s1.raft) (self) next_index=2 match_index=6
"""
FOLLOWER = """\
s2
Name: OVN_Northbound
Cluster ID: 1edb (1edb6f09-3c51-4e5f-9d0e-2f1a0c6f7b11)
Server ID: 9c2e (9c2e0b1d-1111-4e3a-8f6f-6b1f5c0e7a22)
Address: unix:/w/s2.raft
Status: cluster member
Role: follower
Term: 1
Leader: s1
Vote: unknown

Election timer: 1000
Log: [2, 7]
Entries not yet committed: 0
Entries not yet applied: 0
Connections: ->s1 <-s1 <-s3 ->s3
Disconnections: 0
Servers:
    s3 (7081 at unix:/w/s3.raft) last msg 98765 ms ago
    s1 (d2f1 at unix:/w/s1.raft) last msg 310 ms ago
    s2 (9c2e at unix:/w/s2.raft) (self)
"""
S1, S2, S3 = "unix:/w/s1.raft", "unix:/w/s2.raft", "unix:/w/s3.raft"


def changed(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def reachable(text: str) -> dict[str, bool | None]:
    return {m.address: m.reachable for m in parse_cluster_status(text).others}


def test_a_leader() -> None:
    assert parse_cluster_status(LEADER) == Raft(
        role="leader",
        leader="self",
        term=1,
        cluster_id="1edb6f09-3c51-4e5f-9d0e-2f1a0c6f7b11",
        uncommitted=0,
        others=(
            Member(server_id="9c2e", address=S2, reachable=True),
            Member(server_id="7081", address=S3, reachable=True),
        ),
    )


def test_a_follower() -> None:
    raft = parse_cluster_status(FOLLOWER)
    assert (raft.role, raft.leader, raft.term) == ("follower", "s1", 1)
    assert [m.server_id for m in raft.others] == ["d2f1", "7081"]


def test_the_order_of_servers_is_no_matter() -> None:
    head, _, tail = LEADER.partition("Servers:\n")
    again = f"{head}Servers:\n" + "\n".join(reversed(tail.splitlines())) + "\n"
    assert parse_cluster_status(again) == parse_cluster_status(LEADER)


@pytest.mark.parametrize("text", [LEADER, FOLLOWER])
def test_lines_that_older_releases_lack_are_not_missed(text: str) -> None:
    """2.9 and 2.12 print no elections, no timer and no times."""
    old = re.sub(r"^(Last Election.*|Election timer.*|Disconnections.*)\n", "", text, flags=re.MULTILINE)
    old = re.sub(r" last msg \d+ ms ago", "", old)
    assert parse_cluster_status(old) == parse_cluster_status(text)


class TestReachable:
    def test_all(self) -> None:
        assert reachable(LEADER) == {S2: True, S3: True}

    def test_followers_do_not_talk_to_each_other(self) -> None:
        """That s3 was silent for 98 s says nothing."""
        assert reachable(FOLLOWER) == {S1: True, S3: True}

    @pytest.mark.parametrize(
        ("connections", "reached"),
        [
            ("<-s2 ->s2 <-s3 ->s3", True),
            ("->s2 <-s2 ->s3 <-s3", True),
            ("<-s2 ->s2 (->s3)", False),
            ("<-s2 ->s2 (->s3) (<-s3)", False),
            ("<-s2 ->s2 ->s3 (<-s3)", True),
            ("<-s2 ->s2 <-s3 (->s3)", True),
            ("<-s2 ->s2 <-s3", True),
            ("<-s2 ->s2 <-s3 ->0000", True),  # seen on 3.1: ours has joined by that one
            ("<-s2 ->s2 (->0000)", False),
            ("<-s2 ->s2", False),
            ("<-s2 ->s2 <-s33 ->s33", False),
            ("<-s2 ->s2 ->s3", True),
        ],
    )
    @pytest.mark.parametrize("text", [LEADER, FOLLOWER])
    def test_by_its_connections(self, text: str, connections: str, reached: bool) -> None:
        """One in either direction is enough; a broken one stands in parentheses, or is gone."""
        ours = connections if text is LEADER else connections.replace("s2", "s1")
        said = re.sub(r"^Connections:.*$", f"Connections: {ours}", text, flags=re.MULTILINE)
        assert reachable(said) == {S2 if text is LEADER else S1: True, S3: reached}

    @pytest.mark.parametrize(
        ("timer", "ago", "reached"),
        [(1000, 1999, True), (1000, 2000, False), (10000, 2000, True), (10000, 19999, True), (10000, 20000, False)],
    )
    def test_a_leader_hears_its_followers(self, timer: int, ago: int, reached: bool) -> None:
        """A host that is off leaves its connection standing for a while."""
        text = changed(LEADER, ("timer: 1000", f"timer: {timer}"), ("last msg 4 ms", f"last msg {ago} ms"))
        assert reachable(text) == {S2: True, S3: reached}

    def test_a_leader_that_has_not_heard_of_one_yet_believes_the_connections(self) -> None:
        assert reachable(changed(LEADER, (" last msg 4 ms ago", ""))) == {S2: True, S3: True}

    @pytest.mark.parametrize("line", ["Connections:", "Connections: "])
    def test_without_a_connection_it_cannot_be_told(self, line: str) -> None:
        text = re.sub(r"^Connections:.*$", line, LEADER, flags=re.MULTILINE)
        assert reachable(text) == {S2: None, S3: None}

    def test_without_the_line_it_cannot_be_told(self) -> None:
        text = re.sub(r"^Connections:.*\n", "", FOLLOWER, flags=re.MULTILINE)
        assert reachable(text) == {S1: None, S3: None}

    def test_while_the_leader_changes_the_election_timer(self) -> None:
        """raft.c prints what it is changing to on the same line."""
        text = changed(LEADER, ("timer: 1000", "timer: 4000 (changing to 8000)"), ("msg 4 ms", "msg 7999 ms"))
        assert reachable(text) == {S2: True, S3: True}


class TestWithoutQuorum:
    def test_the_survivor_is_still_a_follower(self) -> None:
        raft = parse_cluster_status(changed(FOLLOWER, ("->s1 <-s1 <-s3 ->s3", "(->s1) (->s3)")))
        assert (raft.role, raft.leader) == ("follower", "s1"), "what it thinks; _Server.connected knows better"
        assert [m.reachable for m in raft.others] == [False, False]

    @pytest.mark.parametrize(
        "status",
        [
            pytest.param("disconnected from the cluster (election timeout)", id="since 2.16"),
            pytest.param("cluster member", id="2.15"),
        ],
    )
    def test_then_a_candidate_without_a_leader(self, status: str) -> None:
        text = changed(
            FOLLOWER,
            ("cluster member", status),
            ("Role: follower", "Role: candidate"),
            ("Leader: s1", "Leader: unknown"),
            ("Vote: unknown", "Vote: self"),
            ("->s1 <-s1 <-s3 ->s3", "(->s1) (->s3)"),
            ("(self)", "(self) (voted for s2)"),
        )
        raft = parse_cluster_status(text)
        assert (raft.role, raft.leader) == ("candidate", None)
        assert [m.reachable for m in raft.others] == [False, False]


class TestMembership:
    def test_one_that_is_joining(self) -> None:
        """It knows neither cluster nor leader nor servers."""
        raft = parse_cluster_status(
            "s4\nName: OVN_Northbound\nCluster ID: not yet known\n"
            "Server ID: aaaa (aaaa0b1d-1111-4e3a-8f6f-6b1f5c0e7a22)\nAddress: unix:/w/s4.raft\n"
            "Status: joining cluster\nRemotes for joining: unix:/w/s1.raft\nRole: follower\nTerm: 0\n"
            "Leader: unknown\nVote: unknown\n\nElection timer: 1000\nLog: [1, 1]\nEntries not yet committed: 0\n"
            "Entries not yet applied: 0\nConnections: (->0000)\nDisconnections: 0\nServers:\n"
        )
        assert (raft.leader, raft.term, raft.others) == (None, 0, ())

    def test_one_that_has_just_joined(self) -> None:
        """A leader tells of it before its first message."""
        text = changed(
            LEADER,
            ("Role: leader", "Adding server bbbb (bbbb at unix:/w/s5.raft) (catchup)\nRole: leader"),
            ("<-s3 ->s3", "<-s3 ->s3 <-s4 ->s4"),
            ("Servers:\n", "Servers:\n    s4 (aaaa at unix:/w/s4.raft) next_index=7 match_index=0\n"),
        )
        assert reachable(text) == {S2: True, S3: True, "unix:/w/s4.raft": True}

    def test_one_without_others(self) -> None:
        head, _, _ = LEADER.partition("Connections:")
        raft = parse_cluster_status(
            f"{head}Connections:\nDisconnections: 0\nServers:\n    s1 (d2f1 at unix:/w/s1.raft) (self) next_index=2\n"
        )
        assert (raft.role, raft.others) == ("leader", ())

    def test_one_whose_name_is_its_id(self) -> None:
        """Before a server has told its name it goes by its id."""
        text = changed(LEADER, ("    s3 (7081 at", "    7081 (7081 at"), ("<-s3 ->s3", "<-7081 ->7081"))
        assert parse_cluster_status(text).others[1] == Member(server_id="7081", address=S3, reachable=True)

    @pytest.mark.parametrize("address", ["tcp:192.0.2.13:6643", "ssl:[2001:db8::13]:6643", "ssl:c3.example:6643"])
    def test_addresses(self, address: str) -> None:
        assert address in reachable(changed(LEADER, ("7081 at unix:/w/s3.raft", f"7081 at {address}")))


def test_what_is_not_committed_yet() -> None:
    assert parse_cluster_status(changed(LEADER, ("committed: 0", "committed: 12"))).uncommitted == 12


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("unknown cluster", id="an error"),
        pytest.param("state: active", id="another command's answer"),
        pytest.param(LEADER.partition("Role:")[0], id="half an answer"),
        pytest.param(LEADER.partition("Entries not yet committed")[0], id="most of an answer"),
        pytest.param(changed(LEADER, ("Term: 1", "Term: one")), id="a term in words"),
        pytest.param(changed(LEADER, ("Term: 1", "Term:")), id="no term"),
        pytest.param(changed(LEADER, ("Term: 1", "Term: " + "1" * 5000)), id="a term without end"),
        pytest.param(changed(LEADER, ("timer: 1000", "timer: soon")), id="a timer in words"),
        pytest.param(changed(LEADER, ("committed: 0", "committed: none")), id="entries in words"),
        pytest.param(LEADER.lower(), id="all in small letters"),
        pytest.param("\0" * 100, id="zeros"),
    ],
)
def test_garbage(text: str) -> None:
    with pytest.raises(SourceError, match=r"^cluster/status: not of a known form: ") as caught:
        parse_cluster_status(text)
    assert caught.value.reason is Reason.GARBAGE
    assert len(caught.value.why) < 200


def test_a_time_without_end_is_no_time() -> None:
    assert reachable(changed(LEADER, ("last msg 4 ms", f"last msg {'9' * 5000} ms"))) == {S2: True, S3: True}


def parsed_or_refused(text: str) -> None:
    """Any other error fails the test."""
    with contextlib.suppress(SourceError):
        assert isinstance(parse_cluster_status(text), Raft)


@given(st.text())
@example("\nServers:\n    a (b at c)")
def test_whatever_is_said_it_is_read_or_refused(text: str) -> None:
    parsed_or_refused(text)


@given(
    st.lists(
        st.one_of(
            st.sampled_from([*LEADER.splitlines(), *FOLLOWER.splitlines()]),
            st.builds("{}: {}".format, st.sampled_from(["Role", "Term", "Leader", "Election timer"]), st.text()),
            st.builds("    {} ({} at {}) last msg {} ms ago".format, st.text(), st.text(), st.text(), st.integers()),
        )
    )
)
def test_whatever_lines_it_is_made_of(lines: list[str]) -> None:
    parsed_or_refused("\n".join(lines))


@given(st.data())
@pytest.mark.parametrize("text", [LEADER, FOLLOWER])
def test_wherever_it_is_torn(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    to = data.draw(st.integers(at, len(text)))
    parsed_or_refused(text[:at] + data.draw(st.text(max_size=20)) + text[to:])
