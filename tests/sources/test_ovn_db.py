"""One server of a database in every state that it can be in, on real ovsdb-servers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.ovn_db import _CFG, Found, OvnDatabaseSource
from mecexporter.sources.wire.endpoint import Endpoint
from mecexporter.sources.wire.ovsdb import OvsdbClient
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.ovn_db import LOCAL, Database, DatabaseServer, Model
from mecexporter.state.world import Memory, Settings, empty_world
from tests.faults.servers import JSON, hostile
from tests.ports import free_port
from tests.sources.daemons import Daemon, Member, OvsdbServer, Server, cluster, run, running, short_dir
from tests.waiting import answers, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

NB, SB = Database
WORLD = empty_world(0, "controller-1", Settings())
PATIENCE = 20


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_dir() as path:
        yield path


@pytest.fixture
def active(directory: Path) -> Iterator[Server]:
    server = Server(directory / "a")
    with running(server):
        server.nbctl("init")
        yield server


@pytest.fixture
def standby(directory: Path, active: Server) -> Iterator[Server]:
    server = Server(directory / "b", f"--sync-from={active.tcp}")
    with running(server):
        yield server


@asynccontextmanager
async def asking(
    server: OvsdbServer, *, control: bool = True, found: Found = Found.CONFIGURED
) -> AsyncIterator[OvnDatabaseSource]:
    source = OvnDatabaseSource(
        NB,
        LOCAL,
        Endpoint.parse(f"unix:{server.socket}"),
        control=server.control if control else None,
        tls=None,
        interval=1,
        found=found,
    )
    try:
        yield source
    finally:
        await source.close()


async def said(server: OvsdbServer, *, control: bool = True) -> DatabaseServer:
    async with asking(server, control=control) as source:
        return await source.read(WORLD)


async def until(
    source: OvnDatabaseSource, condition: Callable[[DatabaseServer], bool], what: str, *, seconds: float = PATIENCE
) -> DatabaseServer:
    """Ask until it says so."""
    return await answers(lambda: source.read(WORLD), condition, seconds, what)


async def test_an_active(active: Server) -> None:
    active.nbctl("set", "NB_Global", ".", "nb_cfg=7")
    seen = await said(active)
    assert (seen.db, seen.server, seen.model, seen.connected, seen.leader, seen.writable) == (
        NB, LOCAL, Model.STANDALONE, True, None, True,
    )  # fmt: skip
    assert seen.globals is not None
    assert seen.globals.nb_cfg == 7
    assert seen.replication is not None
    assert (seen.replication.standby, seen.replication.active) == (False, None)
    assert seen.version == run("ovsdb-server", "--version").split()[3]
    assert seen.memory["cells"] > 0
    assert (seen.is_standby, seen.leads, seen.control_why) == (False, True, None)


async def test_a_standby(active: Server, standby: Server) -> None:
    async with asking(standby) as source:
        seen = await until(source, lambda s: s.globals is not None, "it has copied")
    assert (seen.writable, seen.is_standby, seen.leads) == (False, True, False)
    assert seen.replication is not None
    assert (seen.replication.active, seen.replication.connecting, seen.replication.reopening) == (
        active.tcp, False, False,
    )  # fmt: skip


@pytest.mark.parametrize("which", ["active", "standby"])
async def test_from_afar_it_is_told_by_a_transaction_that_changes_nothing(
    which: str, active: Server, standby: Server
) -> None:
    server = {"active": active, "standby": standby}[which]
    async with asking(standby) as source:
        await until(source, lambda s: s.globals is not None, "it has copied: from here on nobody writes")
    file = server.file.read_bytes()
    seen = await said(server, control=False)
    assert (seen.writable, seen.replication, seen.memory) == (which == "active", None, {})
    assert server.file.read_bytes() == file


async def test_one_server_by_two_addresses_is_the_same_and_another_is_not(active: Server, standby: Server) -> None:
    by_tcp = OvnDatabaseSource(NB, active.tcp, Endpoint.parse(active.tcp), control=None, tls=None, interval=1)
    try:
        identity = (await by_tcp.read(WORLD)).identity
    finally:
        await by_tcp.close()
    assert identity == (await said(active)).identity != (await said(standby)).identity


async def test_a_remote_for_readers_is_not_taken_for_a_standby(directory: Path) -> None:
    """Only Southbound's schema knows such."""
    server = Server(directory / "a", "--remote=db:OVN_Southbound,SB_Global,connections", db="OVN_Southbound")
    port = free_port()
    with running(server):
        sbctl = ("ovn-sbctl", "--timeout=10", f"--db=unix:{server.socket}")
        run(*sbctl, "init")
        run(*sbctl, "--", "--id=@c", "create", "Connection", f'target="ptcp:{port}:127.0.0.1"', "read_only=true",
            "--", "set", "SB_Global", ".", "connections=@c")  # fmt: skip
        await eventually(lambda: listens(port), PATIENCE, "it listens")
        readers = Endpoint("tcp", "127.0.0.1", port)
        source = OvnDatabaseSource(SB, "x", readers, control=None, tls=None, interval=1)
        try:
            assert (await source.read(WORLD)).writable is None
        finally:
            await source.close()


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class TestReplication:
    """What ``sync-status`` tells, and what it does not."""

    async def test_promoted_by_hand(self, active: Server, standby: Server) -> None:
        standby.appctl("ovsdb-server/disconnect-active-ovsdb-server")
        seen = await said(standby)
        assert seen.writable is True
        assert seen.replication is not None
        assert (seen.replication.standby, seen.replication.active) == (False, active.tcp)

    async def test_told_to_replicate_itself(self, active: Server) -> None:
        active.appctl("ovsdb-server/set-active-ovsdb-server", active.tcp)
        active.appctl("ovsdb-server/connect-active-ovsdb-server")
        async with asking(active) as source:
            seen = await until(source, lambda s: s.writable is True, "it has promoted itself by its error")
        assert seen.replication is not None
        assert seen.replication.active == active.tcp

    async def test_that_never_connected(self, directory: Path) -> None:
        server = Server(directory / "c", "--sync-from=tcp:127.0.0.1:9")
        with running(server):
            seen = await said(server)
        assert seen.is_standby
        assert seen.replication is not None
        assert (seen.replication.connecting, seen.replication.active) == (True, "tcp:127.0.0.1:9")
        assert seen.globals is None

    async def test_tables_that_it_leaves_out(self, standby: Server) -> None:
        standby.appctl("ovsdb-server/set-sync-exclude-tables", "OVN_Northbound:Meter,OVN_Northbound:DNS")
        seen = await said(standby)
        assert seen.replication is not None
        assert seen.replication.exclude_tables == ("DNS", "Meter")

    async def test_its_session_is_lost_though_it_says_that_it_replicates(self, active: Server, standby: Server) -> None:
        async with asking(standby) as source:
            await until(source, lambda s: s.globals is not None, "it has copied")
            active.kill()
            seen = await until(source, lambda s: bool(s.replication and s.replication.reopening), "it reconnects")
            assert seen.replication is not None
            assert not seen.replication.connecting, "sync-status still says 'replicating'"
            assert seen.is_standby

    async def test_that_was_started_again_it_is_not_blamed_for_what_it_did_before(
        self, directory: Path, active: Server, standby: Server
    ) -> None:
        control = directory / "nb.ctl"  # as OVN's scripts have it: the same for every process
        control.symlink_to(standby.control)
        endpoint = Endpoint.parse(f"unix:{standby.socket}")
        source = OvnDatabaseSource(NB, LOCAL, endpoint, control=control, tls=None, interval=1)
        try:
            await until(source, lambda s: s.globals is not None, "it has copied")
            active.kill()
            await until(source, lambda s: bool(s.replication and s.replication.reopening), "it reconnects")
            standby.kill()
            active.start()
            standby.start()
            control.unlink()
            control.symlink_to(standby.control)
            with contextlib.suppress(SourceError):  # by the connection to the process before
                await source.read(WORLD)
            seen = await source.read(WORLD)
            assert seen.replication is not None
            assert not seen.replication.reopening
        finally:
            await source.close()


def ask_member(member: Member) -> OvnDatabaseSource:
    endpoint = Endpoint.parse(f"unix:{member.socket}")
    return OvnDatabaseSource(NB, LOCAL, endpoint, control=member.control, tls=None, interval=1)


async def test_a_cluster_that_loses_its_members(directory: Path) -> None:
    with cluster(directory) as members:
        sources = [ask_member(m) for m in members]
        try:
            first, second, _ = [
                await until(s, lambda s: bool(s.raft and s.raft.leader), "it knows its leader") for s in sources
            ]
            assert first.model is second.model is Model.CLUSTERED
            assert first.identity != second.identity
            assert (first.leader, second.leader) == (True, False)
            assert first.writable is second.writable is True
            assert (first.leads, second.leads) == (True, False)
            assert first.raft is not None
            assert second.raft is not None
            assert first.raft.cluster_id == second.raft.cluster_id
            assert [m.reachable for m in first.raft.others] == [True, True]

            members[2].kill()
            for source in sources[:2]:
                seen = await until(source, _one_lost, "one is lost")
                assert seen.raft is not None
                assert [m.address for m in seen.raft.others if m.reachable is False] == [members[2].raft]
                assert seen.writable

            members[1].kill()
            seen = await until(sources[0], lambda s: not s.connected, "it has no cluster")
            assert (seen.writable, seen.leader) == (False, False)
            seen = await until(sources[0], lambda s: bool(s.raft and s.raft.leader is None), "it knows no leader")

            members[1].start()
            await until(sources[0], lambda s: s.writable is True, "it has a quorum again")
        finally:
            for source in sources:
                await source.close()


def _one_lost(seen: DatabaseServer) -> bool:
    return seen.raft is not None and sum(m.reachable is False for m in seen.raft.others) == 1


async def test_a_leader_hears_no_more_of_a_member_that_hangs(directory: Path) -> None:
    with cluster(directory) as members:
        source = ask_member(members[0])
        try:
            await until(source, lambda s: bool(s.leader), "it leads")
            members[1].suspend()
            await until(source, _one_lost, "it is heard no more")
            members[1].resume()
            await until(source, lambda s: not _one_lost(s), "it is heard again")
        finally:
            await source.close()


async def test_a_relay(active: Server, directory: Path) -> None:
    run_dir = directory / "relay"
    run_dir.mkdir()
    path = run_dir / "db.sock"
    relay = Daemon(run_dir, "ovsdb-server", f"--remote=punix:{path}", f"relay:OVN_Northbound:{active.tcp}")
    with running(relay):
        endpoint = Endpoint.parse(f"unix:{path}")
        source = OvnDatabaseSource(NB, LOCAL, endpoint, control=relay.control, tls=None, interval=1)
        try:
            seen = await until(source, lambda s: s.connected, "it has its source")
            assert (seen.model, seen.writable, seen.replication) == (Model.RELAY, None, None)
            assert not seen.is_standby
            active.kill()
            await until(source, lambda s: not s.connected, "it has lost it", seconds=60)  # it is patient for 30
        finally:
            await source.close()


class TestTrouble:
    async def test_a_server_of_another_database(self, directory: Path) -> None:
        with running(other := Server(directory / "a", db="OVN_Southbound")):
            assert (await refused(other)).reason is Reason.ANSWERED_ERROR

    async def test_nobody_there(self, active: Server) -> None:
        active.kill()
        assert (await refused(active)).reason is Reason.REFUSED
        active.socket.unlink()
        assert (await refused(active)).reason is Reason.MISSING

    async def test_a_server_that_hangs(self, active: Server) -> None:
        async with asking(active) as source:
            source.deadline = 0.5
            os.kill(active.pid, signal.SIGSTOP)
            try:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await source.read(WORLD)
            finally:
                active.resume()
            assert (await source.read(WORLD)).writable

    @pytest.mark.parametrize("how", ["garbage", "close_at_once", "endless_string"])
    async def test_a_hostile_server(self, active: Server, how: str) -> None:
        async with hostile(active.socket, JSON[how]):
            assert (await refused(active)).reason in {Reason.GARBAGE, Reason.CLOSED, Reason.TOO_LARGE}

    @pytest.mark.parametrize(
        ("table", "column", "value"),
        [
            *(("NB_Global", column, value) for column in _CFG for value in ("7", 7.5, True, None, (7, 8), {"a": 7})),
            *(("Database", "_uuid", value) for value in (7, ("a", "b"), {"a": "b"})),
        ],
    )
    async def test_columns_of_other_types_than_the_schemas(
        self, active: Server, monkeypatch: pytest.MonkeyPatch, table: str, column: str, value: object
    ) -> None:
        active.nbctl("set", "NB_Global", ".", "nb_cfg=7")
        select = OvsdbClient.select

        async def otherwise(client: OvsdbClient, db: str, of: str, *args: Any) -> list[dict[str, Any]] | None:
            rows = await select(client, db, of, *args)
            return [row | {column: value} for row in rows or ()] if of == table else rows

        monkeypatch.setattr(OvsdbClient, "select", otherwise)
        error = await refused(active)
        assert error.reason is Reason.GARBAGE
        assert repr(value)[:30] in error.why

    async def test_without_its_control_socket_it_is_asked_from_afar(self, active: Server) -> None:
        control = active.control
        async with asking(active) as source:
            control.rename(control.with_suffix(".away"))
            try:
                seen = await source.read(WORLD)
            finally:
                control.with_suffix(".away").rename(control)
        assert seen.writable is True
        assert seen.replication is None
        assert str(control) in (seen.control_why or "")


async def refused(server: Server) -> SourceError:
    async with asking(server) as source:
        with pytest.raises(SourceError) as caught:
            await source.read(WORLD)
    return caught.value


class TestConfigured:
    """For how long a server applies, by how it came to be asked."""

    @staticmethod
    def source(found: Found, endpoint: str = "tcp:192.0.2.1:6641") -> OvnDatabaseSource:
        return OvnDatabaseSource(NB, "x", Endpoint.parse(endpoint), control=None, tls=None, interval=1, found=found)

    async def test_named_for_as_long_as_a_standby_names_it(self, active: Server, standby: Server) -> None:
        named = self.source(Found.NAMED, active.tcp)
        seen = await said(standby)
        world = replace(
            WORLD.with_part("OVN_Northbound@local", Fresh(seen, 0)), applicable=frozenset({"OVN_Northbound@local"})
        )
        assert named.configured(world)
        assert not self.source(Found.NAMED).configured(world)
        gone = world.with_part("OVN_Northbound@local", Absent("gone", 0, 0))
        assert named.configured(gone), "nobody says otherwise"

    def test_where_a_database_usually_is_it_must_have_shown(self) -> None:
        usual = self.source(Found.USUAL)
        assert not usual.configured(WORLD)
        assert usual.configured(replace(WORLD, memory=Memory(models={"OVN_Northbound@x": Model.STANDALONE})))

    def test_what_is_configured_applies(self) -> None:
        assert self.source(Found.CONFIGURED).configured(WORLD)
