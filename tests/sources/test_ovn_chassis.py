"""OvnChassisSource on real Southbound servers, with rows as ovn-controller, northd and ovn-ic write them."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.ovn_chassis import OvnChassisSource
from mecexporter.state.central import source_name
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.ovn_db import LOCAL, Globals, Model
from mecexporter.state.propagation import FLAPPING, STORMY, GatewayState
from mecexporter.state.world import Memory
from tests.faults.servers import JSON, hostile
from tests.sources.daemons import Server, run, running, short_dir
from tests.waiting import answers
from tests.worlds import (
    ACTIVE,
    NB,
    SB,
    STANDBY,
    active_server,
    central,
    changed,
    from_afar,
    healthy_standby,
    healthy_third,
    member_server,
    standby_server,
    without,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from mecexporter.state.propagation import Propagation
    from mecexporter.state.world import World

LOCAL_NB, LOCAL_SB = source_name(NB, LOCAL), source_name(SB, LOCAL)
QUICK = 0.01  # seconds between reads
REPORTED_MS = 1_700_000_000_500


class Southbound(Server):
    """With the rows of a small site."""

    def __init__(self, directory: Any) -> None:
        super().__init__(directory, db=SB)

    def transact(self, *ops: dict[str, Any]) -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = json.loads(
            run("ovsdb-client", "--timeout=10", "transact", f"unix:{self.socket}", json.dumps([self.db, *ops]))
        )
        assert not [r for r in results if "error" in r], results
        return results

    def add(self, name: str, hostname: str, ip: str, *, nb_cfg: int | None = 0, **other_config: str) -> str:
        """A chassis (its UUID); nb_cfg None: one that makes no reports."""
        ops = [
            insert("Encap", "e", {"type": "geneve", "ip": ip, "chassis_name": name}),
            insert(
                "Chassis",
                "c",
                {
                    "name": name,
                    "hostname": hostname,
                    "encaps": ["named-uuid", "e"],
                    "other_config": ["map", [[key.replace("_", "-"), value] for key, value in other_config.items()]],
                },
            ),
        ]
        if nb_cfg is not None:
            row = {
                "name": name,
                "chassis": ["named-uuid", "c"],
                "nb_cfg": nb_cfg,
                "nb_cfg_timestamp": REPORTED_MS,
            }
            ops.append(insert("Chassis_Private", "p", row))
        return str(self.transact(*ops)[1]["uuid"][1])

    def set(self, table: str, name: str, /, **row: Any) -> None:
        column = "logical_port" if table == "Port_Binding" else "name"
        self.transact({"op": "update", "table": table, "where": [[column, "==", name]], "row": row})

    def delete(self, table: str, name: str) -> None:
        self.transact({"op": "delete", "table": table, "where": [["name", "==", name]]})

    def bump(self, nb_cfg: int) -> None:
        self.transact({"op": "update", "table": "SB_Global", "where": [], "row": {"nb_cfg": nb_cfg}})

    def add_gateway(self, port: str, *candidates: tuple[str, int], at: str | None = None) -> None:
        """candidates: UUID and priority of each chassis of its group."""
        members = [
            insert("HA_Chassis", f"h{n}", {"chassis": ["uuid", uuid], "priority": priority})
            for n, (uuid, priority) in enumerate(candidates)
        ]
        group = {"name": port, "ha_chassis": ["set", [["named-uuid", f"h{n}"] for n in range(len(candidates))]]}
        row: dict[str, Any] = {
            "logical_port": port,
            "type": "chassisredirect",
            "datapath": ["named-uuid", "d"],
            "tunnel_key": 1,
        }
        if candidates:
            row["ha_chassis_group"] = ["named-uuid", "g"]
        if at is not None:
            row["chassis"] = ["uuid", at]
        ops = [*members, insert("Datapath_Binding", "d", {"tunnel_key": 1 + len(port)})]
        self.transact(*ops, *([insert("HA_Chassis_Group", "g", group)] if candidates else []),
                      insert("Port_Binding", "b", row))  # fmt: skip


def insert(table: str, name: str, row: dict[str, Any]) -> dict[str, Any]:
    return {"op": "insert", "table": table, "uuid-name": name, "row": row}


@pytest.fixture
def southbound() -> Iterator[Southbound]:
    with short_dir() as directory:
        server = Southbound(directory / "sb")
        with running(server):
            server.transact(insert("SB_Global", "g", {"nb_cfg": 7}))
            yield server


@pytest.fixture
async def source() -> AsyncIterator[OvnChassisSource]:
    made = OvnChassisSource(tls=None, interval=QUICK, stale=600, keep=60)
    yield made
    await made.close()


def on(server: Southbound, nb_cfg: int = 7) -> World:
    """The writer's host, that asks that Southbound server."""
    world = central(active_server(NB, globals=Globals(nb_cfg=nb_cfg)), active_server(SB))
    endpoints = {**world.endpoints} | {(SB, f"unix:{server.socket}"): LOCAL_SB}
    del endpoints[SB, "unix:/run/ovn/ovnsb_db.sock"]
    return replace(world, endpoints=endpoints)


async def failure(source: OvnChassisSource, world: World) -> SourceError:
    with pytest.raises(SourceError) as caught:
        await source.read(world)
    return caught.value


class TestChassis:
    async def test_who_there_is(self, source: OvnChassisSource, southbound: Southbound) -> None:
        southbound.add("c1", "host-1", "192.0.2.1", nb_cfg=7)
        southbound.add("c2", "host-2", "192.0.2.2", nb_cfg=0)
        southbound.add("far", "host-9", "192.0.2.9", nb_cfg=None, is_remote="true")
        southbound.add("vtep", "switch", "192.0.2.8", nb_cfg=None)
        seen = await source.read(on(southbound))
        assert (seen.nb_cfg, seen.sb_cfg, seen.southbound.behind) == (7, 7, None)
        assert {n: (c.hostname, c.encaps, c.remote) for n, c in seen.chassis.items()} == {
            "c1": ("host-1", (("geneve", "192.0.2.1"),), False),
            "c2": ("host-2", (("geneve", "192.0.2.2"),), False),
            "far": ("host-9", (("geneve", "192.0.2.9"),), True),
            "vtep": ("switch", (("geneve", "192.0.2.8"),), False),
        }
        assert {n: (r.nb_cfg, r.at, r.lag.behind) for n, r in seen.reported.items()} == {
            "c1": (7, 1_700_000_000.5, None),
            "c2": (0, 1_700_000_000.5, 0),
        }

    async def test_a_site_without_any(self, source: OvnChassisSource, southbound: Southbound) -> None:
        seen = await source.read(on(southbound))
        assert (dict(seen.chassis), dict(seen.reported), seen.gateways) == ({}, {}, ())

    async def test_an_empty_database(self, source: OvnChassisSource, southbound: Southbound) -> None:
        southbound.transact({"op": "delete", "table": "SB_Global", "where": []})
        assert (await source.read(on(southbound))).sb_cfg == 0

    async def test_one_that_comes_or_goes_is_seen_at_once(
        self, source: OvnChassisSource, southbound: Southbound
    ) -> None:
        source.interval = 3600  # the lists are read anew only for cause
        southbound.add("c1", "host-1", "192.0.2.1")
        first = await source.read(on(southbound))
        assert (await source.read(on(southbound))).chassis is first.chassis, "nothing has come or gone"
        southbound.add("c2", "host-1", "192.0.2.2")
        second = await source.read(on(southbound))
        assert set(second.chassis) == {"c1", "c2"}
        third = await source.read(on(southbound))
        assert third.listed > second.listed, "two of one host are looked at again and again"
        southbound.delete("Chassis_Private", "c2")
        southbound.delete("Chassis", "c2")
        assert set((await source.read(on(southbound))).chassis) == {"c1"}

    async def test_what_changes_seldom_is_seen_at_the_fourth_read(
        self, source: OvnChassisSource, southbound: Southbound
    ) -> None:
        southbound.add("c1", "host-1", "192.0.2.1")
        await source.read(on(southbound))
        southbound.set("Chassis", "c1", hostname="host-1.example")
        found = await answers(
            lambda: source.read(on(southbound)), lambda s: s.chassis["c1"].hostname != "host-1", 10, "a new hostname"
        )
        assert found.chassis["c1"].hostname == "host-1.example"

    async def test_a_report_whose_chassis_is_gone(self, source: OvnChassisSource, southbound: Southbound) -> None:
        southbound.add("c1", "host-1", "192.0.2.1", nb_cfg=3)
        southbound.delete("Chassis", "c1")
        seen = await source.read(on(southbound))
        assert (seen.chassis["c1"].registered, seen.chassis["c1"].hostname) == (False, "")
        assert seen.reported["c1"].nb_cfg == 3


class TestLag:
    async def test_one_that_stands_still_and_one_that_follows(
        self, source: OvnChassisSource, southbound: Southbound
    ) -> None:
        for name in ("c1", "c2"):
            southbound.add(name, name, f"192.0.2.{name[1]}", nb_cfg=7)
        await source.read(on(southbound))
        southbound.bump(8)
        southbound.set("Chassis_Private", "c1", nb_cfg=8)
        began = time.monotonic()
        await source.read(on(southbound, 8))
        seen = await answers(
            lambda: source.read(on(southbound, 8)), lambda _: time.monotonic() - began > 0.3, 10, "time passes"
        )
        assert seen.reported["c1"].lag.behind is None
        behind = seen.reported["c2"].lag.behind
        assert behind is not None
        assert 0.2 < behind <= time.monotonic() - began
        assert seen.reported["c2"].lag.missed == 1
        assert not seen.reported["c2"].stale

    async def test_southbound_that_stands_still(self, source: OvnChassisSource, southbound: Southbound) -> None:
        southbound.add("c1", "c1", "192.0.2.1", nb_cfg=7)
        await source.read(on(southbound))
        await source.read(on(southbound, 9))
        seen = await source.read(on(southbound, 9))
        assert seen.southbound.behind is not None
        assert seen.southbound.behind > 0
        assert seen.reported["c1"].lag.behind is None, "it can't know more than Southbound does"

    async def test_stale_takes_time_and_two_bumps(self, southbound: Southbound) -> None:
        source = OvnChassisSource(tls=None, interval=QUICK, stale=0.2, keep=60)
        southbound.add("c1", "c1", "192.0.2.1", nb_cfg=7)
        await source.read(on(southbound))
        southbound.bump(8)
        began = time.monotonic()

        async def when_time_has_passed() -> Propagation:
            return await answers(
                lambda: source.read(on(southbound, 8)), lambda _: time.monotonic() - began > 0.3, 10, "time passes"
            )

        assert not (await when_time_has_passed()).stale
        southbound.bump(9)
        assert (await source.read(on(southbound, 9))).stale == {"c1": 7}
        southbound.set("Chassis_Private", "c1", nb_cfg=9)
        assert not (await source.read(on(southbound, 9))).stale
        await source.close()

    async def test_one_that_an_earlier_process_knew_to_be_stale_is(
        self, source: OvnChassisSource, southbound: Southbound
    ) -> None:
        southbound.add("c1", "c1", "192.0.2.1", nb_cfg=3)
        world = replace(on(southbound), memory=Memory(stale_chassis={"c1": 3}))
        assert (await source.read(world)).stale == {"c1": 3}
        southbound.set("Chassis_Private", "c1", nb_cfg=4)
        assert not (await source.read(world)).stale, "it lives"

    async def test_one_that_caught_up_while_we_were_away_is_not(
        self, source: OvnChassisSource, southbound: Southbound
    ) -> None:
        southbound.add("c1", "c1", "192.0.2.1", nb_cfg=7)
        world = replace(on(southbound), memory=Memory(stale_chassis={"c1": 7}))
        assert not (await source.read(world)).stale


class TestGateways:
    async def test_each_is_where_it_is(self, source: OvnChassisSource, southbound: Southbound) -> None:
        one, two = (southbound.add(f"c{n}", f"h{n}", f"192.0.2.{n}") for n in (1, 2))
        southbound.add_gateway("cr-a", (one, 20), (two, 10), at=one)
        southbound.add_gateway("cr-bb", (one, 20), (two, 10), at=two)
        southbound.add_gateway("cr-ccc", (one, 20), (two, 20), at=two)
        southbound.add_gateway("cr-dddd", (one, 20))
        southbound.add_gateway("cr-eeeee", at=one)
        seen = await source.read(on(southbound))
        assert {g.port: (g.chassis, g.preferred, g.state, g.moves) for g in seen.gateways} == {
            "cr-a": ("c1", True, GatewayState.CLAIMED, 0),
            "cr-bb": ("c2", False, GatewayState.NOT_PREFERRED, 0),
            "cr-ccc": ("c2", True, GatewayState.CLAIMED, 0),
            "cr-dddd": (None, None, GatewayState.UNCLAIMED, 0),
            "cr-eeeee": ("c1", None, GatewayState.CLAIMED, 0),
        }

    async def test_priorities_of_single_gateway_chassis(self, source: OvnChassisSource, southbound: Southbound) -> None:
        """As before OVN 20.03."""
        one, two = (southbound.add(f"c{n}", f"h{n}", f"192.0.2.{n}") for n in (1, 2))
        southbound.add_gateway("cr-a", at=two)
        ops = [
            insert("Gateway_Chassis", f"g{n}", {"name": f"a-{n}", "chassis": ["uuid", uuid], "priority": priority})
            for n, (uuid, priority) in enumerate(((one, 20), (two, 10)))
        ]
        both = {"gateway_chassis": ["set", [["named-uuid", "g0"], ["named-uuid", "g1"]]]}
        southbound.transact(*ops, {"op": "update", "table": "Port_Binding", "where": [], "row": both})
        [gateway] = (await source.read(on(southbound))).gateways
        assert gateway.state is GatewayState.NOT_PREFERRED

    async def test_a_move_is_one_and_a_gap_is_none(self, source: OvnChassisSource, southbound: Southbound) -> None:
        source.interval = 100
        one, two = (southbound.add(f"c{n}", f"h{n}", f"192.0.2.{n}") for n in (1, 2))
        southbound.add_gateway("cr-a", (one, 20), (two, 10), at=one)
        moves = []
        for chassis in (["uuid", one], ["set", []], ["uuid", one], ["uuid", two]):
            southbound.set("Port_Binding", "cr-a", chassis=chassis)
            [gateway] = (await source.read(on(southbound))).gateways
            moves.append(gateway.moves)
        assert moves == [0, 0, 0, 1]

    async def test_moves_that_go_on_are_a_storm(self, source: OvnChassisSource, southbound: Southbound) -> None:
        source.interval = 10
        one, two = (southbound.add(f"c{n}", f"h{n}", f"192.0.2.{n}") for n in (1, 2))
        southbound.add_gateway("cr-a", (one, 20), (two, 10), at=one)
        await source.read(on(southbound))
        for turn in range(1, FLAPPING + 1):
            southbound.set("Port_Binding", "cr-a", chassis=["uuid", two if turn % 2 else one])
            [gateway] = (await source.read(on(southbound))).gateways
            assert (gateway.moves, gateway.storms) == (turn, 0)
            assert gateway.flaps is (turn == FLAPPING)

    async def test_a_storm_is_seen_though_one_has_it_nearly_all_the_time(
        self, source: OvnChassisSource, southbound: Southbound
    ) -> None:
        """The other's claim stands for milliseconds: no look need see it."""
        source.interval = 10
        one, two = (southbound.add(f"c{n}", f"h{n}", f"192.0.2.{n}") for n in (1, 2))
        southbound.add_gateway("cr-a", (one, 20), (two, 10), at=one)
        await source.read(on(southbound))
        over = threading.Event()

        def claim() -> None:
            where = [["logical_port", "==", "cr-a"]]
            while not over.wait(0.1):
                for uuid in (two, one):
                    row = {"chassis": ["uuid", uuid]}
                    southbound.transact({"op": "update", "table": "Port_Binding", "where": where, "row": row})

        rival = threading.Thread(target=claim)
        rival.start()
        try:
            seen = await answers(lambda: source.read(on(southbound)), lambda s: s.gateways[0].flaps, 60, "a storm")
        finally:
            over.set()
            rival.join()
        assert seen.gateways[0].storms == STORMY or seen.gateways[0].moves >= FLAPPING

    async def test_a_row_that_is_changed_once_or_twice_is_no_storm(
        self, source: OvnChassisSource, southbound: Southbound
    ) -> None:
        source.interval = 100
        one, two = (southbound.add(f"c{n}", f"h{n}", f"192.0.2.{n}") for n in (1, 2))
        southbound.add_gateway("cr-a", (one, 20), (two, 10), at=one)
        await source.read(on(southbound))
        for turn in range(3):
            southbound.set("Port_Binding", "cr-a", chassis=["uuid", two])
            southbound.set("Port_Binding", "cr-a", up=True, options=["map", [["turn", str(turn)]]])
            [gateway] = (await source.read(on(southbound))).gateways
        assert (gateway.moves, gateway.storms, gateway.flaps) == (1, 0, False)

    async def test_it_is_over_when_its_window_has_passed(
        self, source: OvnChassisSource, southbound: Southbound
    ) -> None:
        one, two = (southbound.add(f"c{n}", f"h{n}", f"192.0.2.{n}") for n in (1, 2))
        southbound.add_gateway("cr-a", at=one)
        await source.read(on(southbound))
        southbound.set("Port_Binding", "cr-a", chassis=["uuid", two])
        await answers(lambda: source.read(on(southbound)), lambda s: not s.gateways[0].moves, 10, "the move is past")


class TestWhere:
    @pytest.mark.parametrize(
        ("world", "applies"),
        [
            pytest.param(central(active_server(NB), active_server(SB)), True, id="the writer"),
            pytest.param(central(member_server(NB), member_server(SB)), True, id="the leader"),
            pytest.param(central(member_server(NB, leader=False), member_server(SB)), False, id="a follower"),
            pytest.param(healthy_standby(), False, id="a standby"),
            pytest.param(healthy_third(), False, id="a host without servers"),
            pytest.param(central(active_server(NB)), False, id="no Southbound is known"),
            pytest.param(central(active_server(SB)), False, id="no Northbound is here"),
        ],
    )
    def test_it_applies_where_northbound_is_written(
        self, source: OvnChassisSource, world: World, applies: bool
    ) -> None:
        assert source.configured(world) is applies

    def test_a_writer_that_died_is_down_not_away(self, source: OvnChassisSource) -> None:
        world = central(active_server(NB), active_server(SB))
        assert source.configured(world)
        assert source.configured(without(world, LOCAL_NB))

    def test_a_standby_that_died_has_nothing_to_tell(self, source: OvnChassisSource) -> None:
        world = healthy_standby()
        assert not source.configured(world)
        assert not source.configured(without(world, LOCAL_NB))

    def test_one_of_which_nothing_is_known_may_have_been_the_writer(self, source: OvnChassisSource) -> None:
        world = central(active_server(NB), active_server(SB))
        assert source.configured(without(world, LOCAL_NB))

    def test_where_another_writes_it_tells(self, source: OvnChassisSource) -> None:
        both = central(active_server(NB), active_server(SB), from_afar(standby_server(NB), STANDBY))
        assert source.configured(both)
        promoted = changed(both, source_name(NB, f"tcp:{STANDBY}:6641"), writable=True)
        assert not source.configured(without(promoted, LOCAL_NB))

    def test_before_the_first_answer_it_may(self, source: OvnChassisSource) -> None:
        """What an earlier process found is kept meanwhile."""
        world = central(active_server(NB), active_server(SB))
        pending = world.with_part(LOCAL_NB, Absent("not asked yet", world.now, world.now))
        assert source.configured(pending)

    @pytest.mark.parametrize(
        ("servers", "asked"),
        [
            pytest.param((active_server(SB),), LOCAL_SB, id="the writer is here"),
            pytest.param(
                (standby_server(SB), from_afar(active_server(SB), ACTIVE)),
                source_name(SB, f"tcp:{ACTIVE}:6642"),
                id="the writer is elsewhere",
            ),
            pytest.param((member_server(SB, leader=False),), LOCAL_SB, id="a follower is here"),
            pytest.param((active_server(SB, model=Model.RELAY, writable=None),), LOCAL_SB, id="a relay is here"),
            pytest.param((standby_server(SB),), None, id="nobody writes"),
            pytest.param((member_server(SB, connected=False, leader=False),), None, id="a member without its cluster"),
        ],
    )
    async def test_whom_it_asks(self, source: OvnChassisSource, servers: Any, asked: str | None) -> None:
        world = central(active_server(NB), *servers)
        assert source.question(world) == asked
        if asked is None:
            assert (await failure(source, world)).reason is Reason.MISSING

    async def test_another_server_is_asked_once_it_leads(
        self, source: OvnChassisSource, southbound: Southbound
    ) -> None:
        southbound.add("c1", "host-1", "192.0.2.1", nb_cfg=7)
        await source.read(on(southbound))
        with short_dir() as directory:
            other = Southbound(directory / "other")
            with running(other):
                other.transact(insert("SB_Global", "g", {"nb_cfg": 7}))
                other.add("c2", "host-2", "192.0.2.2", nb_cfg=7)
                assert set((await source.read(on(other))).chassis) == {"c2"}


class TestFailures:
    async def test_northbound_that_is_lost_is_why(self, source: OvnChassisSource, southbound: Southbound) -> None:
        caught = await failure(source, without(on(southbound), LOCAL_NB, reason=Reason.TIMEOUT))
        assert caught.reason is Reason.TIMEOUT
        assert "Northbound" in caught.why

    async def test_a_server_that_dies_and_comes_again(self, source: OvnChassisSource, southbound: Southbound) -> None:
        southbound.add("c1", "host-1", "192.0.2.1", nb_cfg=7)
        await source.read(on(southbound))
        southbound.kill()
        assert (await failure(source, on(southbound))).reason in {Reason.REFUSED, Reason.CLOSED}
        southbound.start()
        assert set((await source.read(on(southbound))).reported) == {"c1"}

    async def test_a_server_that_hangs(self, source: OvnChassisSource, southbound: Southbound) -> None:
        southbound.add("c1", "host-1", "192.0.2.1", nb_cfg=7)
        await source.read(on(southbound))
        southbound.suspend()
        try:
            assert (await failure(source, on(southbound))).reason is Reason.TIMEOUT
        finally:
            southbound.resume()

    @pytest.mark.parametrize("how", ["garbage", "close_at_once", "endless_string"])
    async def test_a_hostile_server(self, source: OvnChassisSource, southbound: Southbound, how: str) -> None:
        world = on(southbound)
        southbound.stop()
        async with hostile(southbound.socket, JSON[how]):
            assert (await failure(source, world)).reason in {Reason.GARBAGE, Reason.CLOSED, Reason.TOO_LARGE}

    async def test_it_writes_nothing(self, source: OvnChassisSource, southbound: Southbound) -> None:
        one = southbound.add("c1", "host-1", "192.0.2.1", nb_cfg=7)
        southbound.add_gateway("cr-a", (one, 20), at=one)
        before = southbound.file.read_bytes()
        for _ in range(20):
            await source.read(on(southbound))
        assert southbound.file.read_bytes() == before


def test_it_waits_for_the_first_word_of_its_own_northbound(source: OvnChassisSource) -> None:
    assert source.needs == (LOCAL_NB,)
    assert isinstance(central(active_server(NB)).part(LOCAL_NB), Fresh)
