"""A standby's content held against its active's, on real pairs of ovsdb-servers."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from mecexporter.errors import SourceError
from mecexporter.sources.ovn_db import OvnDatabaseSource
from mecexporter.sources.ovn_db_sync import Audits, OvnDatabaseSyncSource, Pair, Side
from mecexporter.sources.wire.endpoint import Endpoint
from mecexporter.sources.wire.ovsdb import Column, Shape
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.ovn_db import Database, Kind, PairSync
from mecexporter.state.world import Settings, World, empty_world
from tests.faults.link import Link
from tests.sources.daemons import Server, run, running, short_dir
from tests.waiting import answers, eventually, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from mecexporter.sources.wire.ovsdb import Schema

NB, SB = Database
GRACE = 1.0
PATIENCE = 20


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_dir() as path:
        yield path


@dataclass
class Watch:
    """The sources that one exporter would have; ``at`` of the servers are asked by their control sockets too."""

    db: Database
    servers: list[OvnDatabaseSource]
    sync: OvnDatabaseSyncSource
    world: World = field(default_factory=lambda: empty_world(0, "controller-1", Settings()))

    async def look(self) -> PairSync:
        """Ask every server, then hold the standby against its active."""
        endpoints = {(s.db, str(s.endpoint)): s.name for s in self.servers}
        names = frozenset(endpoints.values())
        world = replace(self.world, endpoints=endpoints, applicable=names)
        for source in self.servers:
            try:
                world = world.with_part(source.name, Fresh(await source.read(world), 0))
            except SourceError as error:
                world = world.with_part(source.name, Absent(error.why, 0, 0, error.reason))
        self.world = world
        (result,) = await self.sync.read(world)
        return result

    async def until(self, condition: Callable[[PairSync], bool], what: str, seconds: float = PATIENCE) -> PairSync:
        return await answers(self.look, condition, seconds, what)


@asynccontextmanager
async def watching(
    standby: Server, active: str, *, db: Database = NB, control: bool = True, **audits: Any
) -> AsyncIterator[Watch]:
    """From the standby's host; or from anywhere, without its control socket. ``active``: the other's address."""

    def source(label: str, where: str, server: Server | None) -> OvnDatabaseSource:
        control = server.control if server else None
        return OvnDatabaseSource(db, label, Endpoint.parse(where), control=control, tls=None, interval=1)

    given = {"every": 1.0, "grace": GRACE} | audits
    sync = OvnDatabaseSyncSource(db, tls=None, interval=1, audits=Audits(**given))
    own = source("local", f"unix:{standby.socket}", standby if control else None)
    servers = [own, source("active", active, None)]
    try:
        yield Watch(db, servers, sync)
    finally:
        await sync.close()
        for s in servers:
            await s.close()


@contextmanager
def pair(directory: Path, *, db: Database = NB) -> Iterator[tuple[Server, Server, Link]]:
    """Active, standby, and the link by which the one gets to the other."""
    active = Server(directory / "a", db=db)
    with Link(active.port) as link:
        standby = Server(directory / "b", f"--sync-from={link.address}", db=db)
        with running(active, standby):
            if db is NB:
                active.nbctl("init")
            else:
                run("ovn-sbctl", "--timeout=10", f"--db=unix:{active.socket}", "init")
            wait_until(lambda: "replicating" in standby.appctl("ovsdb-server/sync-status"), PATIENCE, "it replicates")
            yield active, standby, link


def equal(seen: PairSync) -> bool:
    return seen.in_sync is True


def differs(seen: PairSync) -> bool:
    return seen.in_sync is False


def counted(seen: PairSync) -> dict[tuple[str, Kind], int]:
    return {key: number for key, number in seen.rows.items() if number}


@pytest.mark.parametrize("control", [True, False], ids=["on its host", "from afar"])
async def test_a_pair_that_is_equal(directory: Path, *, control: bool) -> None:
    with pair(directory) as (active, standby, link):
        active.nbctl("ls-add", "net0", "--", "lsp-add", "net0", "vm1")
        async with watching(standby, link.address, control=control) as watch:
            first = await watch.look()
            assert (first.in_sync, first.last_in_sync) == (None, None), "nothing is proven before the first audit"
            seen = await watch.until(equal, "it is equal")
            assert (seen.standby, seen.active, seen.why) == ("local", "active", None)
            assert seen.rows["Logical_Switch_Port", Kind.MISSING] == 0
            assert counted(seen) == {}
            seen = await watch.look()
            assert seen.last_in_sync == pytest.approx(time.time(), abs=10)


async def test_a_session_that_silently_carries_no_more(directory: Path) -> None:
    """Everything says 'replicating'; only the content shows it, and it is named by table and row."""
    with pair(directory) as (active, standby, link):
        active.nbctl("ls-add", "net0", "--", "ls-add", "net1")
        wait_until(lambda: "net1" in standby.dump("Logical_Switch"), PATIENCE, "it has copied")
        link.freeze()
        async with watching(standby, link.address) as watch:
            await watch.until(equal, "it is equal")
            before = watch.world
            uuid = active.nbctl("--bare", "--columns=_uuid", "find", "Logical_Switch", "name=net1").strip()
            active.nbctl("ls-add", "net2", "--", "set", "Logical_Switch", "net1", "other_config:mcast_snoop=true",
                         "--", "ls-del", "net0")  # fmt: skip
            seen = await watch.until(lambda s: differs(s) and len(counted(s)) == 3, "it is out of sync")
            assert counted(seen) == {("Logical_Switch", kind): 1 for kind in Kind}
            assert ("Logical_Switch", uuid, Kind.CHANGED) in [(d.table, d.uuid, d.kind) for d in seen.examples]
            assert seen.last_in_sync is not None
            standby_says = watch.world.databases["OVN_Northbound@local"]
            assert isinstance(standby_says, Fresh)
            assert standby_says.value.replication == before.databases["OVN_Northbound@local"].value.replication  # type: ignore[union-attr]  # fresh too
            link.mend()
            seen = await watch.until(equal, "it is equal again")
            assert counted(seen) == {}


async def test_of_very_many_rows_all_are_counted(directory: Path) -> None:
    with pair(directory) as (active, standby, link):
        link.freeze()
        names = [f"net{n}" for n in range(2500)]
        for at in range(0, len(names), 500):
            active.nbctl(*" -- ".join(f"ls-add {name}" for name in names[at : at + 500]).split())
        async with watching(standby, link.address) as watch:
            seen = await watch.until(lambda s: bool(counted(s)), "it is out of sync")
            assert counted(seen) == {("Logical_Switch", Kind.MISSING): 2500}
            assert len(seen.examples) == 20


class Rows(Side):
    """A server of one table; what is to happen ``meanwhile`` does while it answers about rows."""

    def __init__(self, *uuids: str) -> None:
        super().__init__(NB, Endpoint.parse("unix:/nowhere"), None)
        self.held = list(uuids)
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    async def schema(self) -> Schema:
        return {"DNS": {"_uuid": Column(Shape.SCALAR)}}

    async def uuids(self, table: str) -> list[str]:  # noqa: ARG002  # it has one
        return list(self.held)

    async def raw(self, table: str, columns: Sequence[str], uuids: Sequence[str]) -> bytes:  # noqa: ARG002  # as above
        return repr([uuid for uuid in uuids if uuid in self.held]).encode()

    async def digests(self, table: str, columns: Sequence[str], uuids: Iterable[str]) -> dict[str, int]:  # noqa: ARG002  # as above
        found = {uuid: 1 for uuid in uuids if uuid in self.held}
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        return found


async def test_what_an_audit_finds_during_a_look_stays_found() -> None:
    standby, active = Rows(), Rows("first")
    pair = Pair(NB, standby, active, active_identity="a", audits=Audits(every=60.0, grace=0.0))
    await pair.audit()
    standby.held = ["first"]
    active.held = ["first", "second"]
    standby.meanwhile = pair.audit
    await pair.look()
    assert pair.last_in_sync is None
    await pair.look()
    assert counted(pair.result("b", "a", None)) == {("DNS", Kind.MISSING): 1}


class TestTablesLeftOut:
    """Of replication (ovsdb-server(1), ``--sync-exclude-tables``)."""

    @staticmethod
    def leave_out(standby: Server) -> None:
        standby.appctl("ovsdb-server/set-sync-exclude-tables", "OVN_Northbound:Address_Set")
        wait_until(lambda: "replicating" in standby.appctl("ovsdb-server/sync-status"), PATIENCE, "it replicates")

    async def test_its_own_host_is_told_by_the_server(self, directory: Path) -> None:
        with pair(directory) as (active, standby, link):
            self.leave_out(standby)
            active.nbctl("create", "Address_Set", "name=as1")
            async with watching(standby, link.address) as watch:
                seen = await watch.until(equal, "the rest is equal")
                assert seen.left_out == ("Address_Set",)
                assert ("Address_Set", Kind.MISSING) not in seen.rows

    async def test_elsewhere_it_must_be_configured(self, directory: Path) -> None:
        with pair(directory) as (active, standby, link):
            self.leave_out(standby)
            active.nbctl("create", "Address_Set", "name=as1")
            async with watching(standby, link.address, control=False) as watch:
                seen = await watch.until(differs, "it is out of sync")
                assert counted(seen) == {("Address_Set", Kind.MISSING): 1}
            left_out = frozenset({"Address_Set"})
            async with watching(standby, link.address, control=False, left_out=left_out) as watch:
                await watch.until(equal, "the rest is equal")


async def test_ephemeral_columns_differ_on_a_pair_that_is_well(directory: Path) -> None:
    """Southbound's Connection.status and is_connected are of each server's own."""
    with pair(directory, db=SB) as (active, standby, link):
        sbctl = ("ovn-sbctl", "--timeout=10", f"--db=unix:{active.socket}")
        run(*sbctl, "set-connection", "ptcp:0:127.0.0.1")
        run(*sbctl, "--", "--id=@e", "create", "Encap", "type=geneve", "ip=192.0.2.1", "chassis_name=c1",
            "--", "create", "Chassis", "name=c1", "hostname=c1", "encaps=@e")  # fmt: skip
        async with watching(standby, link.address, db=SB) as watch:
            seen = await watch.until(equal, "it is equal")
            assert ("Connection", Kind.CHANGED) in seen.rows


class TestChurn:
    """Rows that are under way are no differences."""

    @staticmethod
    async def write(active: Server, seconds: float, rate: int) -> int:
        """Change rows of many tables, some again and again; returns how often."""
        reader, writer = await asyncio.open_unix_connection(str(active.socket))
        began, done = time.monotonic(), 0

        async def transact(*ops: dict[str, Any]) -> None:
            nonlocal done
            writer.write(json.dumps({"id": 0, "method": "transact", "params": ["OVN_Northbound", *ops]}).encode())
            answer = await reader.read(1 << 16)
            assert b'"error":null' in answer, answer
            done += len(ops)

        while time.monotonic() - began < seconds:
            await transact(
                {"op": "insert", "table": "Address_Set", "row": {"name": f"as{done}"}},
                {"op": "update", "table": "NB_Global", "where": [], "row": {"nb_cfg": done}},
                {"op": "update", "table": "NB_Global", "where": [], "row": {"hv_cfg": done}},
                {
                    "op": "delete",
                    "table": "Address_Set",
                    "where": [["name", "==", f"as{(done - 400) % 500}-{done - 400}"]],
                },
            )
            await eventually(lambda: done <= rate * (time.monotonic() - began), 5, "the next is due")
        writer.close()
        return done

    @pytest.mark.parametrize(
        ("seconds", "rate"),
        [(8, 500), pytest.param(120, 1000, marks=[pytest.mark.long, pytest.mark.timeout(400)])],
    )
    async def test_a_healthy_pair_under_writes_with_compaction_is_never_flagged(
        self, directory: Path, seconds: float, rate: int
    ) -> None:
        with pair(directory) as (active, standby, link):
            async with watching(standby, link.address, every=5.0) as watch:
                await watch.until(equal, "it is equal")
                writing = asyncio.create_task(self.write(active, seconds, rate))
                looks = 0
                while not writing.done():
                    due = time.monotonic() + 0.1
                    seen = await watch.look()
                    assert seen.in_sync is True, seen
                    assert counted(seen) == {}
                    looks += 1
                    if looks % 20 == 0:
                        await asyncio.to_thread(active.appctl, "ovsdb-server/compact")
                        await asyncio.to_thread(standby.appctl, "ovsdb-server/compact")
                    await eventually(lambda: time.monotonic() > due, 1, "the next look is due")  # noqa: B023  # called here
                assert await writing >= 0.5 * rate * seconds
                assert looks >= seconds


class TestWhatCanNotBeTold:
    async def test_the_active_is_lost(self, directory: Path) -> None:
        with pair(directory) as (active, standby, link):
            async with watching(standby, link.address) as watch:
                await watch.until(lambda s: s.last_in_sync is not None, "it is equal")
                active.kill()
                seen = await watch.until(lambda s: s.in_sync is None, "it can't be told")
                assert seen.last_in_sync is not None
                assert "active" in (seen.why or "")
                assert (dict(seen.rows), seen.examples) == ({}, ())

    async def test_the_active_is_another_process_now(self, directory: Path) -> None:
        with pair(directory) as (active, standby, link):
            async with watching(standby, link.address, every=3600.0) as watch:
                await watch.until(equal, "it is equal")
                active.kill()
                active.start()
                wait_until(
                    lambda: "replicating" in standby.appctl("ovsdb-server/sync-status"), PATIENCE, "it replicates"
                )
                await watch.until(lambda s: s.in_sync is None, "nothing is proven of the new one")
                await watch.until(equal, "it is equal")

    async def test_an_audit_is_believed_for_a_while_only(self, directory: Path) -> None:
        with pair(directory) as (_, standby, link):
            async with watching(standby, link.address, every=0.3) as watch:
                await watch.until(equal, "it is equal")
                next(iter(watch.sync._pairs.values()))._due = time.monotonic() + 3600
                seen = await watch.until(lambda s: s.in_sync is None, "it is too old")
                assert "not all tables" in (seen.why or "")

    async def test_a_standby_that_is_not_there(self, directory: Path) -> None:
        with pair(directory) as (_, standby, link):
            async with watching(standby, link.address) as watch:
                await watch.until(equal, "it is equal")
                standby.appctl("ovsdb-server/disconnect-active-ovsdb-server")
                with pytest.raises(SourceError, match="no standby of OVN_Northbound answers"):
                    await watch.look()


async def test_nothing_is_left_when_it_is_closed(directory: Path) -> None:
    with pair(directory) as (active, standby, link):
        for n in range(3):
            active.nbctl("ls-add", f"net{n}")
        async with watching(standby, link.address) as watch:
            await watch.look()
            audits = [t for t in asyncio.all_tasks() if t.get_name().startswith("audit")]
            assert audits
        await asyncio.wait(audits, timeout=5)
        assert all(t.done() for t in audits)


async def test_both_files_stay_as_they_are(directory: Path) -> None:
    with pair(directory) as (active, standby, link):
        active.nbctl("ls-add", "net0")
        wait_until(lambda: "net0" in standby.dump("Logical_Switch"), PATIENCE, "it has copied")
        before = [server.file.read_bytes() for server in (active, standby)]
        async with watching(standby, link.address, every=0.2) as watch:
            await watch.until(equal, "it is equal")
            for _ in range(20):
                await watch.look()
        assert [server.file.read_bytes() for server in (active, standby)] == before


@pytest.mark.parametrize(
    ("window", "hour", "may"),
    [
        (None, 12, True),
        ((3600.0, 18000.0), 1, True),
        ((3600.0, 18000.0), 5, False),
        ((82800.0, 3600.0), 23.5, True),
        ((82800.0, 3600.0), 0.5, True),
        ((82800.0, 3600.0), 12, False),
    ],
)
def test_a_window_may_go_over_midnight(window: tuple[float, float] | None, hour: float, *, may: bool) -> None:
    assert Audits(every=300, window=window).may_begin(hour * 3600) is may
