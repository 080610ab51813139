"""What the releases really say by their control sockets, and what is made of it: see record.py and the fixtures."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.northd import NorthdSource
from mecexporter.sources.ovn_db import OvnDatabaseSource, _memory, _version
from mecexporter.sources.vswitchd import VswitchdSource
from mecexporter.sources.wire.dpctl import flows
from mecexporter.sources.wire.endpoint import Endpoint
from mecexporter.sources.wire.raft import parse_cluster_status
from mecexporter.sources.wire.unixctl import UnixctlClient
from mecexporter.state.datapath import Protocol
from mecexporter.state.ovn_db import LOCAL, Database, Northd, Replication
from mecexporter.state.world import Settings, empty_world
from tests.sources.record import FIXTURES, WITHOUT_RELAYS, read, written

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from mecexporter.state.ovn_db import Raft

NB, SB = Database
WORLD = empty_world(0, "controller-1", Settings())
RELEASES = {"2.15.0": "23.03.1", "3.1.0": "23.03.1", "3.5.0": "25.03.0", "4.0.0": "26.03.1"}
"""Open vSwitch's, and that of the OVN beside it: of the same Debian suite, but for 2.15's, which has none."""

release = pytest.mark.parametrize("release", RELEASES)


def told(*states: str) -> list[tuple[str, str]]:
    """Each release in each of these states, where it has such."""
    return [(r, state) for r in RELEASES for state in states if state != "relay" or r not in WITHOUT_RELAYS]


class Recorded(UnixctlClient):
    """A daemon in one state."""

    def __init__(self, said: Mapping[str, str]) -> None:
        self._said = said

    async def run(self, command: str, *args: str) -> str:
        return self._said[" ".join((command, *args))]

    async def run_all(self, commands: Iterable[str]) -> dict[str, str | SourceError]:
        """What is not recorded, of their work, is as if the daemon did not know it."""
        unknown = SourceError(Reason.ANSWERED_ERROR, "not a valid command")
        return {command: self._said.get(command, unknown) for command in commands}

    def close(self) -> None:
        pass


def said(release: str, state: str) -> dict[str, str]:
    return read(FIXTURES / f"ovs-{release}" / f"{state}.txt")


async def replication(release: str, *states: str) -> Replication:
    """As the last of these states is told by one that has read them all, of one process."""
    source = OvnDatabaseSource(NB, LOCAL, Endpoint.parse("unix:/none"), control=None, tls=None, interval=1)
    for state in states:
        found = await source._replication(Recorded(said(release, state)), "the same")
    return found


def raft(release: str, state: str) -> Raft:
    return parse_cluster_status(said(release, state)["cluster/status OVN_Northbound"])


def reachable(raft: Raft) -> dict[str, bool | None]:
    return {re.sub(r".*/", "", m.address): m.reachable for m in raft.others}


@release
def test_each_release_is_recorded_in_the_same_states(release: str) -> None:
    states, all_states = ({path.stem for path in (FIXTURES / f"ovs-{r}").iterdir()} for r in (release, "3.1.0"))
    assert all_states - states == ({"relay"} if release in WITHOUT_RELAYS else set())
    assert states <= all_states


def test_a_recording_is_read_as_it_was_written(tmp_path: Path) -> None:
    texts = {"one": "", "two with words": "no newline", "three": "a\n\nb\n\n", "four": "\n"}
    (tmp_path / "state.txt").write_text(written(texts))
    assert read(tmp_path / "state.txt") == texts


class TestReplication:
    @release
    @pytest.mark.parametrize(
        ("state", "standby", "active", "connecting"),
        [
            ("active", False, None, False),
            ("standby", True, "tcp:127.0.0.1:6641", False),
            ("standby-active-lost", True, "tcp:127.0.0.1:6641", False),
            ("standby-never-connected", True, "tcp:127.0.0.1:9", True),
            ("promoted", False, "tcp:127.0.0.1:6641", False),
            ("self-replicating", False, "tcp:127.0.0.1:6641", False),
        ],
    )
    async def test_in_each_state(
        self, release: str, state: str, standby: bool, active: str | None, connecting: bool
    ) -> None:
        assert await replication(release, state) == Replication(
            standby=standby, active=active, connecting=connecting, exclude_tables=(), reopening=False
        )

    @release
    async def test_tables_that_are_left_out_in_whatever_order(self, release: str) -> None:
        assert (await replication(release, "standby-excluding")).exclude_tables == ("DNS", "Meter")

    @release
    async def test_one_opening_of_a_connection_is_no_reopening(self, release: str) -> None:
        assert not (await replication(release, "standby", "standby-active-lost")).reopening


class TestRaft:
    @release
    def test_a_leader(self, release: str) -> None:
        found = raft(release, "member-leader")
        assert (found.role, found.leader, found.term, found.uncommitted) == ("leader", "self", 1, 0)
        assert re.fullmatch(r"[0-9a-f-]{36}", found.cluster_id)
        assert reachable(found) == {"s2.raft": True, "s3.raft": True}

    @release
    def test_a_follower(self, release: str) -> None:
        found = raft(release, "member-follower")
        assert (found.role, found.leader, found.term) == ("follower", "s1", 1)
        assert found.cluster_id == raft(release, "member-leader").cluster_id
        assert reachable(found) == {"s1.raft": True, "s3.raft": True}

    @release
    def test_one_is_lost(self, release: str) -> None:
        found = raft(release, "member-leader-one-lost")
        assert (found.role, reachable(found)) == ("leader", {"s2.raft": True, "s3.raft": False})

    @release
    def test_two_are_lost_and_the_survivor_still_calls_itself_leader(self, release: str) -> None:
        found = raft(release, "member-losing-quorum")
        assert (found.role, found.leader) == ("leader", "self"), "what it thinks; _Server.connected knows better"
        assert reachable(found) == {"s2.raft": False, "s3.raft": False}

    @release
    def test_then_it_is_a_candidate(self, release: str) -> None:
        found = raft(release, "member-without-quorum")
        assert (found.role, found.leader) == ("candidate", None)
        assert reachable(found) == {"s2.raft": False, "s3.raft": False}

    @release
    def test_it_has_not_joined_yet(self, release: str) -> None:
        """Nothing here says so but `Status`; its server refuses the database meanwhile: see test_ovn_db.py."""
        found = raft(release, "member-joining")
        assert (found.role, found.leader, found.term, found.others) == ("follower", None, 0, ())
        assert "\nStatus: joining cluster\n" in said(release, "member-joining")["cluster/status OVN_Northbound"]

    @pytest.mark.parametrize(("release", "state"), told("member-leader", "member-without-quorum", "relay"))
    def test_its_sync_status_is_nothing_to_go_by(self, release: str, state: str) -> None:
        """Why a clustered server and a relay are told by `_Server`."""
        assert said(release, state)["ovsdb-server/sync-status"].strip() == "state: active"


class TestNorthd:
    @release
    @pytest.mark.parametrize(
        ("state", "active", "paused"),
        [("northd-active", True, False), ("northd-standby", False, False), ("northd-paused", False, True)],
    )
    async def test_in_each_state(self, release: str, state: str, *, active: bool, paused: bool) -> None:
        assert await northd(release, state) == Northd(
            version=RELEASES[release], active=active, paused=paused, connected={NB: True, SB: True}
        )

    @release
    async def test_without_southbound(self, release: str) -> None:
        found = await northd(release, "northd-without-southbound")
        assert (found.active, found.connected) == (False, {NB: True, SB: False})

    @release
    async def test_beside_a_standby(self, release: str) -> None:
        """Up to OVS 3.1 a standby refuses its lock; later ones grant it: it calls itself active, and cannot write."""
        found = await northd(release, "northd-beside-a-standby")
        assert found.active == (release not in {"2.15.0", "3.1.0"})
        assert found.connected == {NB: True, SB: True}


async def northd(release: str, state: str) -> Northd:
    source = NorthdSource(FIXTURES, None, 1)
    source._client = Recorded(said(release, state))
    return await source.read(WORLD)


@pytest.mark.parametrize(("release", "state"), told("active", "standby", "relay", "member-leader"))
def test_memory_and_version(release: str, state: str) -> None:
    texts = said(release, state)
    memory = _memory(texts["memory/show"])
    assert memory["cells"] > 0
    assert "monitors" in memory
    assert ("atoms" in memory) == (release != "2.15.0")
    assert ("raft-log" in memory) == (state == "member-leader")
    assert _version(texts["version"]) == release


class TestVswitchd:
    @release
    async def test_its_numbers(self, release: str) -> None:
        source = VswitchdSource(FIXTURES, None, 1)
        source._client = Recorded(said(release, "vswitchd"))
        found = await source.read(WORLD)
        assert (found.version, [d.name for d in found.datapaths]) == (release, ["netdev@ovs-netdev"])
        [datapath], [upcalls] = found.datapaths, found.upcalls
        assert datapath.missed >= 4
        assert (upcalls.datapath, upcalls.flows, upcalls.flow_limit) == ("netdev@ovs-netdev", 4, 10000)
        assert upcalls.dump_duration_seconds is not None

    @release
    def test_its_flows(self, release: str) -> None:
        found = list(flows(said(release, "vswitchd")["dpctl/dump-flows -m netdev@ovs-netdev"].encode()))
        assert {(s.protocol, s.conntrack, s.terminal) for _, s, *_ in found} == {
            (Protocol.TCP, False, True),
            (Protocol.UDP, False, True),
            (Protocol.GRE, True, False),
            (Protocol.GRE, True, True),
        }
        assert {port for _, _, port, *_ in found} == {b"p1"}
        assert all(packets and octets for *_, packets, octets in found)
