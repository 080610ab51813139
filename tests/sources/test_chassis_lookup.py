"""The one small read of Southbound, of a real server of its database."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import cycle, pairwise
from typing import TYPE_CHECKING, Any

import pytest

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.chassis_lookup import ChassisLookupSource
from mecexporter.sources.wire.endpoint import TlsFiles
from mecexporter.sources.wire.ovsdb import OvsdbClient
from mecexporter.state.host import IdFile
from mecexporter.state.ovn import Chassis, ChassisLookup
from mecexporter.state.world import Identity, Memory
from tests.faults.servers import hostile, silent
from tests.sources.daemons import OvsdbServer, run, running, short_dir
from tests.worlds import changed, healthy_compute, without

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from mecexporter.state.world import World

ME, HOST = "id-1", "Compute-1"


@pytest.fixture(scope="module")
def southbound() -> Iterator[OvsdbServer]:
    with short_dir() as directory:
        server = OvsdbServer(directory, "OVN_Southbound")
        with running(server):
            run("ovn-sbctl", f"--db=unix:{server.socket}", "--timeout=10", "init")
            for name, hostname, kind, address in (
                (ME, HOST, "geneve,vxlan", "192.0.2.1"),
                ("old-id", HOST, "geneve", "192.0.2.9"),
                ("peer", "compute-2", "geneve", "192.0.2.2"),
            ):
                sbctl(server, "chassis-add", name, kind, address)
                sbctl(server, "set", "Chassis", name, f"hostname={hostname}")
            yield server


def sbctl(server: OvsdbServer, *args: str) -> str:
    return run("ovn-sbctl", f"--db=unix:{server.socket}", "--timeout=10", *args)


def world(remote: str | None, system_id: str | None = ME, hostname: str | None = HOST) -> World:
    return changed(healthy_compute(), "ovs", ovn_remote=remote, system_id=system_id, hostname=hostname)


def of(server: OvsdbServer) -> str:
    return f"unix:{server.socket}"


@asynccontextmanager
async def source(database: str | None = None, tls: TlsFiles | None = None) -> AsyncIterator[ChassisLookupSource]:
    made = ChassisLookupSource(database, tls, interval=1800, again=15)
    try:
        yield made
    finally:
        await made.close()


async def ask(asked: World, database: str | None = None) -> ChassisLookup:
    async with source(database) as lookup:
        return await lookup.read(asked)


async def why_not(asked: World, database: str | None = None) -> tuple[Reason, str]:
    with pytest.raises(SourceError) as caught:
        await ask(asked, database)
    return caught.value.reason, caught.value.why


async def test_my_chassis_and_those_of_my_hostname(southbound: OvsdbServer) -> None:
    mine = Chassis(name=ME, hostname=HOST, encap_ips=("192.0.2.1",))
    found = await ask(world(of(southbound)))
    assert replace(found, of_hostname=()) == ChassisLookup(
        system_id=ME, remote=of(southbound), registered=mine, ours=True, of_hostname=()
    )
    assert set(found.of_hostname) == {mine, Chassis(name="old-id", hostname=HOST, encap_ips=("192.0.2.9",))}


async def test_an_id_that_southbound_does_not_know(southbound: OvsdbServer) -> None:
    found = await ask(world(of(southbound), system_id="new-id"))
    assert (found.registered, found.ours) == (None, None)
    assert {c.name for c in found.of_hostname} == {ME, "old-id"}


async def test_an_id_that_is_another_hosts(southbound: OvsdbServer) -> None:
    found = await ask(world(of(southbound), system_id="peer"))
    assert found.registered == Chassis(name="peer", hostname="compute-2", encap_ips=("192.0.2.2",))
    assert found.ours is False


@pytest.mark.parametrize(
    ("system_id", "hostname", "encap_ips", "ours"),
    [
        pytest.param(ME, HOST, (), True, id="the hostname"),
        pytest.param(ME, HOST.upper(), ("198.51.100.1",), True, id="the hostname in other letters"),
        pytest.param(ME, "renamed", ("198.51.100.1", "192.0.2.1"), True, id="an address"),
        pytest.param(ME, None, ("192.0.2.1",), True, id="an address, with no hostname set"),
        pytest.param(ME, "renamed", ("198.51.100.1",), False, id="neither"),
        pytest.param(ME, "renamed", (), False, id="another hostname, with no address set"),
        pytest.param(ME, None, (), None, id="nothing to compare with"),
        pytest.param("new-id", HOST, ("192.0.2.1",), None, id="not registered"),
    ],
)
async def test_whether_it_can_be_this_host(
    southbound: OvsdbServer, system_id: str, hostname: str | None, encap_ips: tuple[str, ...], ours: bool | None
) -> None:
    asked = changed(world(of(southbound), system_id, hostname), "ovs", encap_ips=encap_ips)
    found = await ask(asked)
    assert found.ours is ours
    assert (found.of_hostname == ()) is (hostname is None or hostname != HOST)


async def test_an_id_of_two_hosts_is_one_of_them_at_a_time(
    southbound: OvsdbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both write its Chassis, hundreds of times a second (seen on 23.03, 25.03, 26.03): here after each question."""
    transact = OvsdbClient._transact
    turns = cycle([("compute-9", "192.0.2.19"), ("compute-8", "192.0.2.18")])

    def other_host() -> None:
        hostname, address = next(turns)
        sbctl(southbound, "set", "Chassis", "shared", f"hostname={hostname}", "--",
              "set", "Encap", encap, f"ip={address}")  # fmt: skip

    async def then_the_other_writes(client: OvsdbClient, *args: Any) -> list[list[Any]]:
        try:
            return await transact(client, *args)
        finally:
            other_host()

    sbctl(southbound, "chassis-add", "shared", "geneve", "192.0.2.18")
    try:
        encap = sbctl(southbound, "--bare", "--columns=_uuid", "find", "Encap", "chassis_name=shared").strip()
        other_host()
        monkeypatch.setattr(OvsdbClient, "_transact", then_the_other_writes)
        asked = changed(world(of(southbound), "shared", "compute-9"), "ovs", encap_ips=("192.0.2.19",))
        found = [await ask(asked) for _ in range(3)]
        monkeypatch.undo()
    finally:
        sbctl(southbound, "chassis-del", "shared")
    whole: dict[tuple[str, tuple[str, ...]], bool] = {
        ("compute-9", ("192.0.2.19",)): True,
        ("compute-8", ("192.0.2.18",)): False,
    }
    for seen in found:
        assert seen.registered is not None
        assert whole[seen.registered.hostname, seen.registered.encap_ips] is seen.ours
        assert bool(seen.of_hostname) is seen.ours


@pytest.mark.parametrize("name", ["a\nb", 'say "hi"', "'; drop", "<b>", "名", "[]"])
async def test_names_with_anything_in_them(southbound: OvsdbServer, name: str) -> None:
    assert (await ask(world(of(southbound), system_id=name, hostname=name))).registered is None


async def test_the_id_in_force_is_asked_for_not_the_databases(southbound: OvsdbServer) -> None:
    overridden = changed(
        world(of(southbound), system_id="else"), "host", override_file=IdFile(path="/o", content="peer")
    )
    assert (await ask(overridden)).system_id == "peer"


async def test_a_configured_database_comes_before_the_remote(southbound: OvsdbServer) -> None:
    found = await ask(world("tcp:192.0.2.1:6642"), of(southbound))
    assert found.remote == of(southbound)


async def test_any_remote_that_answers_will_do(southbound: OvsdbServer, tmp_path: Path) -> None:
    remotes = f"unix:{tmp_path}/none,{of(southbound)},unix:{tmp_path}/neither"
    for _ in range(6):  # in any order
        assert (await ask(world(remotes))).remote == of(southbound)


async def test_a_silent_remote_does_not_eat_the_others_time(southbound: OvsdbServer) -> None:
    with short_dir() as directory:
        async with hostile(directory / "sb", silent), source() as lookup:
            lookup.deadline = 1.0
            for _ in range(4):  # in any order
                found = await lookup.read(world(f"unix:{directory}/sb,{of(southbound)}"))
                assert found.remote == of(southbound)


@pytest.mark.parametrize(
    ("asked", "reason", "words"),
    [
        pytest.param(world(None), Reason.MISSING, "external_ids:ovn-remote is not set", id="no remote"),
        pytest.param(world("nonsense"), Reason.GARBAGE, "ovn-remote: 'nonsense' is no endpoint", id="a bad remote"),
        pytest.param(world("unix:/x", system_id=None), Reason.MISSING, "no system-id", id="no id"),
        pytest.param(world("unix:/x", system_id=""), Reason.MISSING, "no system-id", id="an empty id"),
        pytest.param(without(world("unix:/x"), "host"), Reason.MISSING, "can't be told", id="no host facts"),
        pytest.param(without(world("unix:/x"), "ovs"), Reason.MISSING, "can't be told", id="no database"),
        pytest.param(world("unix:/nowhere/sb"), Reason.MISSING, "/nowhere/sb", id="no socket"),
    ],
)
async def test_what_cannot_be_asked(asked: World, reason: Reason, words: str) -> None:
    found, why = await why_not(asked)
    assert found is reason
    assert words in why


async def test_a_server_of_another_database() -> None:
    with short_dir() as directory:
        server = OvsdbServer(directory, "Open_vSwitch")
        with running(server):
            reason, why = await why_not(world(of(server)))
    assert reason is Reason.ANSWERED_ERROR
    assert "serves no OVN_Southbound" in why


async def test_a_raft_member_without_its_cluster_is_not_believed() -> None:
    """It goes on answering with what it once knew."""
    with short_dir() as directory:
        schema = "/usr/share/ovn/ovn-sb.ovsschema"
        run("ovsdb-tool", "create-cluster", str(directory / "s1"), schema, f"unix:{directory}/1.raft")
        first = OvsdbServer(directory, "OVN_Southbound")
        first.file.unlink()
        (directory / "s1").rename(first.file)
        other_dir = directory / "2"
        other_dir.mkdir()
        second = OvsdbServer(other_dir, "OVN_Southbound")
        second.file.unlink()
        run(
            *("ovsdb-tool", "join-cluster", str(second.file), "OVN_Southbound"),
            *(f"unix:{directory}/2.raft", f"unix:{directory}/1.raft"),
        )
        with running(first, second):
            run("ovsdb-client", "--timeout=20", "wait", of(second), "OVN_Southbound", "connected")
            sbctl(first, "chassis-add", ME, "geneve", "192.0.2.1")
            sbctl(first, "set", "Chassis", ME, f"hostname={HOST}")
            assert (await ask(world(of(first)))).registered
            second.kill()
            async with source() as lookup:
                reason = await lost(lookup, of(first))
    assert reason is Reason.ANSWERED_ERROR


async def lost(lookup: ChassisLookupSource, remote: str) -> Reason:
    async with asyncio.timeout(30):
        while True:
            try:
                await lookup.read(world(remote))
            except SourceError as error:
                if "lost its cluster" in error.why:
                    return error.reason
            await asyncio.sleep(0)


class TestWhen:
    """What is a new question, and how soon it is asked again."""

    lookup = ChassisLookupSource(None, None, interval=1800, again=15)

    @pytest.mark.parametrize(
        "other",
        [
            pytest.param(world("tcp:192.0.2.1:6642", system_id="new"), id="the id"),
            pytest.param(world("tcp:192.0.2.1:6642", hostname="compute-9"), id="the hostname"),
            pytest.param(world("tcp:192.0.2.2:6642"), id="the remote"),
            pytest.param(
                changed(world("tcp:192.0.2.1:6642"), "ovn_controller", txn_rises=(False, True)),
                id="failing transactions",
            ),
        ],
    )
    def test_a_change_of_it_is_a_new_question(self, other: World) -> None:
        assert self.lookup.question(other) != self.lookup.question(world("tcp:192.0.2.1:6642"))

    @pytest.mark.parametrize("source", ["openflow", "vswitchd"])
    def test_what_it_is_not_made_of_does_not_change_it(self, source: str) -> None:
        plain = world("tcp:192.0.2.1:6642")
        assert self.lookup.question(without(plain, source)) == self.lookup.question(plain)

    @pytest.mark.parametrize("source", ["ovs", "host"])
    def test_without_its_makings_it_cannot_be_told(self, source: str) -> None:
        assert self.lookup.question(without(world("tcp:192.0.2.1:6642"), source)) is None

    def test_only_transactions_that_begin_to_fail_are_worth_asking_for(self) -> None:
        well = self.lookup.question(world("tcp:192.0.2.1:6642"))
        failing = self.lookup.question(changed(world("tcp:192.0.2.1:6642"), "ovn_controller", txn_rises=(False, True)))
        assert self.lookup.worth_asking(well, failing)
        assert not self.lookup.worth_asking(failing, well), "at an end of trouble all nodes would ask at once"
        assert not self.lookup.worth_asking(failing, failing)
        assert not self.lookup.worth_asking(well, well)
        other = self.lookup.question(world("tcp:192.0.2.1:6642", system_id="new"))
        assert self.lookup.worth_asking(failing, other)

    def test_who_had_no_answer_asks_when_ovn_controller_is_connected_again(self) -> None:
        well = world("tcp:192.0.2.1:6642")
        outage = changed(well, "ovn_controller", connected=False)
        questions = [self.lookup.question(w) for w in (well, outage, without(outage, "chassis_lookup"))]
        for asked, now in pairwise(questions):
            assert not self.lookup.worth_asking(asked, now)
        assert self.lookup.worth_asking(questions[2], self.lookup.question(without(well, "chassis_lookup")))
        assert not self.lookup.worth_asking(questions[1], questions[0]), "it has an answer"
        refused = self.lookup.question(without(well, "chassis_lookup"))
        assert not self.lookup.worth_asking(questions[0], refused), "nothing is news but our own failure"

    def test_an_unregistered_node_is_looked_up_soon_then_ever_more_seldom(self) -> None:
        lookup = ChassisLookupSource(None, None, interval=1800, again=15)
        chassis = Chassis(name=ME, hostname=HOST, encap_ips=())
        absent = ChassisLookup(system_id=ME, remote="r", registered=None, ours=None, of_hostname=())
        assert [lookup.pause(absent) for _ in range(5)] == [15, 30, 60, 120, 120]
        assert lookup.pause(replace(absent, registered=chassis, ours=True)) == 1800
        assert lookup.pause(absent) == 15

    def test_so_is_one_that_is_registered_as_another_host(self) -> None:
        lookup = ChassisLookupSource(None, None, interval=1800, again=15)
        other = Chassis(name=ME, hostname="compute-2", encap_ips=())
        found = ChassisLookup(system_id=ME, remote="r", registered=other, ours=False, of_hostname=())
        assert [lookup.pause(found) for _ in range(3)] == [15, 30, 60], "a finding needs two reads"
        assert lookup.pause(replace(found, ours=True)) == 1800, "by its address"
        assert lookup.pause(replace(found, ours=None)) == 1800, "nothing to compare with"

    async def test_a_new_id_is_looked_up_again_until_it_is_adopted(self, southbound: OvsdbServer) -> None:
        """It may be another host's too, whose Chassis it is at the next moment."""
        mine = world(of(southbound))
        adopted = replace(mine.memory, identity=Identity(system_id=ME, origin="ovsdb", since=0))
        renamed = replace(mine.memory, identity=Identity(system_id="old-id", origin="ovsdb", since=0))
        async with source() as lookup:
            for memory, pause in ((renamed, 15), (renamed, 15), (adopted, 1800), (Memory(), 1800)):
                assert lookup.pause(await lookup.read(replace(mine, memory=memory))) == pause

    def test_never_more_seldom_than_configured(self) -> None:
        lookup = ChassisLookupSource(None, None, interval=20, again=15)
        absent = ChassisLookup(system_id=ME, remote="r", registered=None, ours=None, of_hostname=())
        assert [lookup.pause(absent) for _ in range(3)] == [15, 20, 20]


class TestCertificates:
    def test_a_southbound_that_wants_them_is_not_asked_without(self, tmp_path: Path) -> None:
        files = TlsFiles(tmp_path, tmp_path, tmp_path)
        tls = world("ssl:192.0.2.1:6642,ssl:192.0.2.2:6642")
        assert not ChassisLookupSource(None, None, interval=1, again=1).configured(tls)
        assert ChassisLookupSource(None, files, interval=1, again=1).configured(tls)

    def test_one_remote_without_is_enough(self) -> None:
        mixed = world("ssl:192.0.2.1:6642,tcp:192.0.2.2:6642")
        assert ChassisLookupSource(None, None, interval=1, again=1).configured(mixed)

    def test_losing_sight_of_the_remote_does_not_change_that(self) -> None:
        lookup = ChassisLookupSource(None, None, interval=1, again=1)
        tls = world("ssl:192.0.2.1:6642")
        assert not lookup.configured(tls)
        assert not lookup.configured(without(tls, "ovs"))
        assert lookup.configured(world("tcp:192.0.2.1:6642"))
