"""What is read of the operator's generation: real servers with the schemas of OVN 20.12 and 21.03, and of OVS 2.15."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from mecexporter.checks.ovn_chassis_duplicate import ovn_chassis_duplicate
from mecexporter.checks.ovn_chassis_stale import ovn_chassis_stale
from mecexporter.checks.ovn_gateway_unclaimed import ovn_gateway_unclaimed
from mecexporter.checks.ovn_propagation_stalled import ovn_propagation_stalled
from mecexporter.errors import SourceError
from mecexporter.sources.ovn_chassis import OvnChassisSource
from mecexporter.sources.ovn_db import OvnDatabaseSource
from mecexporter.sources.wire.endpoint import Endpoint
from mecexporter.sources.wire.ovsdb import OvsdbClient
from mecexporter.state.observed import Fresh
from mecexporter.state.ovn import Chassis
from mecexporter.state.ovn_db import Database, Globals, Kind
from mecexporter.state.ovs import Bridge, InterfaceKind
from tests.sources.daemons import OvsdbServer, Server, run, running, short_dir
from tests.sources.older import create, schema
from tests.sources.test_chassis_lookup import ask as look_up
from tests.sources.test_chassis_lookup import world as node
from tests.sources.test_ovn_chassis import LOCAL_SB, REPORTED_MS, Southbound, insert, on
from tests.sources.test_ovn_db import said
from tests.sources.test_ovn_db_sync import counted, differs, equal, pair, watching
from tests.sources.test_ovs import source as ovs_source
from tests.waiting import answers
from tests.worlds import healthy_compute

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

NB, SB = Database
BEFORE_REPORTS = (20, 6)
"""Without Chassis_Private, and without times."""
WALLABY = ((20, 12), (21, 3))
PATIENCE = 20
CHECKS = (ovn_chassis_duplicate, ovn_chassis_stale, ovn_gateway_unclaimed, ovn_propagation_stalled)

Release = tuple[int, int]

wallaby = pytest.mark.parametrize("southbound", WALLABY, ids=str, indirect=True)


@pytest.fixture
def southbound(request: pytest.FixtureRequest) -> Iterator[Southbound]:
    """Of the release that is its parameter."""
    with short_dir() as directory:
        create(directory / "sb", SB, request.param)
        server = Southbound(directory / "sb")
        with running(server):
            server.transact(insert("SB_Global", "g", {"nb_cfg": 7}))
            yield server


@pytest.fixture
async def source() -> AsyncIterator[OvnChassisSource]:
    made = OvnChassisSource(tls=None, interval=0.01, stale=600, keep=60)
    yield made
    await made.close()


@pytest.mark.parametrize(
    ("db", "release", "table", "column"),
    [
        (NB, BEFORE_REPORTS, "NB_Global", "nb_cfg_timestamp"),
        (SB, BEFORE_REPORTS, "Chassis_Private", "nb_cfg"),
        (SB, (20, 12), "Port_Binding", "up"),
        (SB, (21, 3), "Port_Binding", "additional_chassis"),
    ],
    ids=str,
)
async def test_who_asks_for_what_came_later_is_refused(db: Database, release: Release, table: str, column: str) -> None:
    with short_dir() as directory:
        create(directory, db, release)
        server = OvsdbServer(directory, db)
        with running(server):
            client = OvsdbClient(Endpoint.parse(f"unix:{server.socket}"))
            with pytest.raises(SourceError, match=rf"No table named {table}|{column} is not a valid column name"):
                await client.transact(db, {"op": "select", "table": table, "where": [], "columns": [column]})
            client.close()


class TestChassis:
    @wallaby
    async def test_a_healthy_site(self, southbound: Southbound, source: OvnChassisSource) -> None:
        first, second = (southbound.add(f"c{n}", f"host-{n}", f"192.0.2.{n}", nb_cfg=7) for n in (1, 2))
        southbound.add("far", "host-9", "192.0.2.9", nb_cfg=None, is_remote="true")
        southbound.add_gateway("cr-a", (first, 20), (second, 10), at=first)
        world = on(southbound)
        seen = await source.read(world)
        assert (seen.nb_cfg, seen.sb_cfg) == (7, 7)
        assert {n: (r.nb_cfg, r.at, r.lag.behind) for n, r in seen.reported.items()} == dict.fromkeys(
            ("c1", "c2"), (7, REPORTED_MS / 1000, None)
        )
        assert seen.chassis["far"].remote
        assert seen.chassis["c1"].encaps == (("geneve", "192.0.2.1"),)
        [gateway] = seen.gateways
        assert (gateway.chassis, gateway.preferred) == ("c1", True)
        world = world.with_part("ovn_chassis", Fresh(seen, world.now))
        assert [check.ask(world) for check in CHECKS] == [()] * len(CHECKS)

    @wallaby
    async def test_a_chassis_that_stalls_and_a_gateway_of_nobody(
        self, southbound: Southbound, source: OvnChassisSource
    ) -> None:
        uuid = southbound.add("c1", "host-1", "192.0.2.1", nb_cfg=7)
        southbound.add_gateway("cr-a", (uuid, 20))
        await source.read(on(southbound))
        southbound.bump(8)
        began = time.monotonic()
        seen = await answers(
            lambda: source.read(on(southbound, 8)), lambda _: time.monotonic() - began > 0.2, PATIENCE, "time passes"
        )
        assert seen.reported["c1"].lag.missed == 1
        assert seen.reported["c1"].lag.behind
        assert [g.chassis for g in seen.gateways] == [None]

    @pytest.mark.parametrize("southbound", [BEFORE_REPORTS], ids=str, indirect=True)
    async def test_an_older_release_reports_in_chassis(self, southbound: Southbound, source: OvnChassisSource) -> None:
        """Before OVN 20.09 there is no Chassis_Private, and no time: it is absent, not 0."""
        southbound.add("c1", "host-1", "192.0.2.1", nb_cfg=None)
        southbound.set("Chassis", "c1", nb_cfg=6)
        seen = await source.read(on(southbound))
        assert (seen.reported["c1"].nb_cfg, seen.reported["c1"].at) == (6, None)

    @wallaby
    async def test_a_node_finds_itself(self, southbound: Southbound) -> None:
        southbound.add("id-1", "Compute-1", "192.0.2.1")
        found = await look_up(node(f"unix:{southbound.socket}"))
        mine = Chassis(name="id-1", hostname="Compute-1", encap_ips=("192.0.2.1",))
        assert (found.registered, found.ours, found.of_hostname) == (mine, True, (mine,))


class TestDatabases:
    @pytest.mark.parametrize(("release", "at"), [(BEFORE_REPORTS, None), *((r, 1.5) for r in WALLABY)], ids=str)
    async def test_northbounds_numbers(self, release: Release, at: float | None) -> None:
        with short_dir() as directory:
            create(directory / "nb", NB, release)
            server = Server(directory / "nb")
            with running(server):
                server.nbctl("init", "--", "set", "NB_Global", ".", "nb_cfg=7", "sb_cfg=7", "hv_cfg=6")
                if at is not None:
                    server.nbctl(
                        "set", "NB_Global", ".", *(f"{side}_cfg_timestamp=1500" for side in ("nb", "sb", "hv"))
                    )
                seen = await said(server)
        assert seen.writable is True
        assert seen.globals == Globals(nb_cfg=7, sb_cfg=7, hv_cfg=6, nb_cfg_at=at, sb_cfg_at=at, hv_cfg_at=at)

    @wallaby
    async def test_southbounds_number(self, southbound: Southbound) -> None:
        world = on(southbound)
        asked = OvnDatabaseSource(
            SB, "local", Endpoint.parse(f"unix:{southbound.socket}"), control=southbound.control, tls=None, interval=1
        )
        seen = await asked.read(world)
        await asked.close()
        assert (asked.name, seen.writable) == (LOCAL_SB, True)
        assert seen.globals == Globals(nb_cfg=7)

    @pytest.mark.parametrize(("db", "release"), [(db, r) for db in Database for r in WALLABY], ids=str)
    async def test_a_pair(self, db: Database, release: Release) -> None:
        """Every table that the release has is compared."""
        with short_dir() as directory:
            for side in ("a", "b"):
                create(directory / side, db, release)
            with pair(directory, db=db) as (active, standby, link):
                link.freeze()
                async with watching(standby, link.address, db=db) as watch:
                    seen = await watch.until(equal, "it is equal")
                    assert {table for table, _ in seen.rows} <= schema(db, release)["tables"].keys()
                    if db is NB:
                        active.nbctl("ls-add", "net0")
                    else:
                        run("ovn-sbctl", f"--db=unix:{active.socket}", "chassis-add", "c1", "geneve", "192.0.2.1")
                    seen = await watch.until(differs, "it is out of sync")
                    assert counted(seen)["Logical_Switch" if db is NB else "Chassis", Kind.MISSING] == 1


async def test_open_vswitch() -> None:
    with short_dir() as directory:
        create(directory, "Open_vSwitch", (2, 15))
        server = OvsdbServer(directory, "Open_vSwitch")
        with running(server):
            run(
                "ovs-vsctl", "--no-wait", f"--db=unix:{server.socket}", "init", "--",
                "set", "Open_vSwitch", ".", "external_ids:system-id=id-1", "db-version=8.2.0", "--",
                "add-br", "br-int", "--", "set", "Bridge", "br-int", "external_ids:ovn-nb-cfg=7", "--",
                "add-port", "br-int", "tap1", "--", "set", "Interface", "tap1", "external_ids:iface-id=vm1",
                "external_ids:iface-status=active", "--", "add-port", "br-int", "tap2", "--",
                "set", "Interface", "tap2", "external_ids:iface-id=metadata", "--",
                "add-port", "br-int", "ovn-c2-0", "--",
                "set", "Port", "ovn-c2-0", "external_ids:ovn-chassis-id=c2", "--",
                "set", "Interface", "ovn-c2-0", "type=geneve", "bfd_status:state=down",
            )  # fmt: skip
            async with ovs_source(server) as asked:
                seen = await asked.read(healthy_compute())
    assert (seen.system_id, seen.schema_version, seen.bridges) == ("id-1", "8.2.0", (Bridge(name="br-int", nb_cfg=7),))
    of = {i.name: i for i in seen.interfaces}
    assert (of["tap1"].kind, of["tap1"].iface_id, of["tap1"].ovn_installed) == (InterfaceKind.VIF, "vm1", False)
    assert (of["tap1"].of_guest, of["tap2"].of_guest) == (True, False)
    assert (of["ovn-c2-0"].remote_chassis, of["ovn-c2-0"].bfd_state) == ("c2", "down")
