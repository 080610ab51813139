"""The servers of databases that a configuration and its standbys name, and what becomes of those."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from mecexporter.app import Engine, make_sources
from mecexporter.config import Config
from mecexporter.errors import Reason, SourceError
from mecexporter.sources.host import HostSource
from mecexporter.sources.northd import NorthdSource
from mecexporter.sources.ovn_chassis import OvnChassisSource
from mecexporter.sources.ovn_db import OvnDatabaseSource
from mecexporter.sources.ovn_db_sync import Audits, OvnDatabaseSyncSource
from mecexporter.state.central import active_of, servers, source_name
from mecexporter.state.observed import Fresh
from mecexporter.state.ovn_db import LOCAL, Database, DatabaseServer, Model
from mecexporter.state.world import Role
from mecexporter.store import Saved, Store
from tests.metrics.scrape import exposition
from tests.test_app import on_virtual_time, scenario
from tests.virtual_time import until
from tests.worlds import (
    ACTIVE,
    NB,
    SB,
    STANDBY,
    active_server,
    address,
    from_afar,
    healthy_central,
    healthy_host,
    in_sync,
    own_socket,
    propagation,
    standby_server,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mecexporter.sources.base import Source
    from mecexporter.state.ovn_db import PairSync
    from mecexporter.state.propagation import Propagation
    from mecexporter.state.world import World

COMPUTE = ["ovs", "vswitchd", "openflow", "ovn_controller", "chassis_lookup"]
REFUSED = SourceError(Reason.REFUSED, "nobody listens")
ALL = {str(db): own_socket(db) for db in Database}


def config(ovn: dict[str, Any] | None = None, *, disable: tuple[str, ...] = ()) -> Config:
    return msgspec.convert({"sources": {"disable": [*COMPUTE, *disable]}, "ovn": ovn or {}}, Config, dec_hook=_parsed)


def _parsed(kind: Any, value: object) -> object:
    return kind.parse(value)


def database_sources(given: Config, db: Database = NB) -> dict[str, OvnDatabaseSource]:
    """By label, in their order."""
    made = [s for s in make_sources(given) if isinstance(s, OvnDatabaseSource) and s.db is db]
    found = {s.name.removeprefix(f"{db}@"): s for s in made}
    assert len(found) == len(made), "each label once"
    return found


class TestSources:
    @pytest.mark.parametrize(
        ("section", "asked"),
        [
            pytest.param({}, {"local": "unix:/run/ovn/ovnnb_db.sock"}, id="nothing given"),
            pytest.param({"database": "unix:/a/b"}, {"local": "unix:/a/b"}, id="another socket"),
            pytest.param(
                {"peers": ["tcp:b:6641"]},
                {"local": "unix:/run/ovn/ovnnb_db.sock", "tcp:b:6641": "tcp:b:6641"},
                id="a peer",
            ),
            pytest.param({"database": "tcp:a:6641"}, {"tcp:a:6641": "tcp:a:6641"}, id="none on this host"),
            pytest.param(
                {"database": "ssl:a:1, ssl:[2001:db8::2]:1"},
                {"ssl:a:1": "ssl:a:1", "ssl:[2001:db8::2]:1": "ssl:[2001:db8::2]:1"},
                id="a cluster's members",
            ),
            pytest.param(
                {"database": "unix:/a,tcp:b:1", "peers": ["tcp:c:1"]},
                {"local": "unix:/a", "tcp:b:1": "tcp:b:1", "tcp:c:1": "tcp:c:1"},
                id="our own among them",
            ),
            pytest.param({"database": "tcp:b:1,unix:/a"}, {"tcp:b:1": "tcp:b:1", "local": "unix:/a"}, id="last"),
            pytest.param(
                {"peers": ["tcp:b:1,tcp:c:1", " tcp:d:1 "]},
                {
                    "local": "unix:/run/ovn/ovnnb_db.sock",
                    "tcp:b:1": "tcp:b:1",
                    "tcp:c:1": "tcp:c:1",
                    "tcp:d:1": "tcp:d:1",
                },
                id="several peers in one connection string",
            ),
            pytest.param(
                {"database": "unix:/a", "peers": ["unix:/a", "unix:/b"]},
                {"local": "unix:/a", "unix:/b": "unix:/b"},
                id="a peer that is oneself, and one behind another socket",
            ),
            pytest.param({"database": "unix:/a,unix:/b"}, {"local": "unix:/a", "unix:/b": "unix:/b"}, id="two sockets"),
            pytest.param(
                {"database": "tcp:b", "peers": ["tcp:b:6640", "tcp:b"]}, {"tcp:b": "tcp:b:6640"}, id="once each"
            ),
        ],
    )
    @pytest.mark.parametrize("db", [NB, SB])
    def test_each_server_once_by_its_label(self, db: Database, section: dict[str, Any], asked: dict[str, str]) -> None:
        side, usual = ("northbound", "ovnnb_db") if db is NB else ("southbound", "ovnsb_db")
        found = database_sources(config({side: section}), db)
        expected = {label: text.replace("ovnnb_db", usual) for label, text in asked.items()}
        assert {label: str(s.endpoint) for label, s in found.items()} == expected
        assert list(found) == list(asked)

    def test_only_our_own_has_a_control_socket(self) -> None:
        found = database_sources(
            config({"northbound": {"database": "unix:/a,unix:/b", "peers": ["unix:/c", "tcp:d:1"]}})
        )
        assert {label: s._control is not None for label, s in found.items()} == {
            "local": True,
            "unix:/b": False,
            "unix:/c": False,
            "tcp:d:1": False,
        }

    def test_one_that_is_far_away_may_take_longer(self) -> None:
        found = database_sources(config({"northbound": {"peers": ["tcp:d:1"]}}))
        assert {label: s.deadline for label, s in found.items()} == {"local": 5, "tcp:d:1": 30}

    @pytest.mark.parametrize("section", [{"database": "unix:/a"}, {"peers": ["tcp:b:1"]}, {"exclude_tables": ["DNS"]}])
    def test_what_is_configured_applies_whatever_shows(self, section: dict[str, Any]) -> None:
        world = replace(healthy_central(), memory=replace(healthy_central().memory, models={}))
        bare = world.with_part("host", Fresh(replace(healthy_host(), signs={}), world.now))
        assert all(s.configured(bare) for s in database_sources(config({"northbound": section})).values())

    @pytest.mark.parametrize(
        ("signs", "models", "applies"),
        [
            ({}, {}, False),
            ({str(NB): "/s"}, {}, True),
            ({str(SB): "/s"}, {}, False),
            ({}, {source_name(NB, LOCAL): Model.STANDALONE}, True),
            ({}, {source_name(SB, LOCAL): Model.STANDALONE}, False),
        ],
    )
    def test_what_is_usual_applies_where_it_shows_or_once_did(
        self, signs: dict[str, str], models: dict[str, Model], applies: bool
    ) -> None:
        world = replace(healthy_central(), memory=replace(healthy_central().memory, models=models))
        world = world.with_part("host", Fresh(replace(healthy_host(), signs=signs), world.now))
        assert database_sources(Config())["local"].configured(world) is applies

    def test_what_is_disabled_is_not_there(self) -> None:
        off = ("OVN_Northbound@local", "ovn_southbound_sync", "northd")
        given = config({"northbound": {"peers": ["tcp:b:1"]}}, disable=off)
        assert {s.name for s in make_sources(given)} == {
            "certificates",
            "host",
            "OVN_Northbound@tcp:b:1",
            "OVN_Southbound@local",
            "ovn_chassis",
            "ovn_northbound_sync",
            "sysfs",
            "links",
            "tc",
            "ovs_flows",
            "conntrack",
        }

    def test_a_comparison_is_as_configured(self) -> None:
        given = config(
            {
                "audit": {"window": "22:00-05:30", "logical_flows": True},
                "southbound": {"exclude_tables": ["MAC_Binding"]},
            }
        )
        audits = {s.name: s._audits for s in make_sources(given) if isinstance(s, OvnDatabaseSyncSource)}
        both = Audits(every=300, window=(22 * 3600, 5.5 * 3600), grace=30, flows=True)
        assert audits == {
            "ovn_northbound_sync": both,
            "ovn_southbound_sync": replace(both, left_out=frozenset({"MAC_Binding"})),
        }


@dataclass
class Site:
    """What the servers say that this node may ask, by the name of the source; one that is not listed refuses."""

    store: Store
    config: Config = field(default_factory=config)
    saved: Saved = field(default_factory=lambda: Saved(format=1))
    signs: dict[str, str] = field(default_factory=lambda: dict(ALL))
    servers: dict[str, DatabaseServer | SourceError] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def stand_by(self) -> None:
        """This host's are standbys of those at ACTIVE."""
        for db in Database:
            self.say(standby_server(db), from_afar(active_server(db), ACTIVE))

    def say(self, *said: DatabaseServer) -> None:
        for server in said:
            self.servers[source_name(server.db, server.server)] = server

    def lose(self, source: str, why: SourceError = REFUSED) -> None:
        self.servers[source] = why

    async def database(self, source: OvnDatabaseSource, world: World) -> DatabaseServer:  # noqa: ARG002  # as it is asked
        self.asked.append(source.name)
        said = self.servers.get(source.name, REFUSED)
        if isinstance(said, SourceError):
            raise said
        return said

    async def pairs(self, source: OvnDatabaseSyncSource, world: World) -> tuple[PairSync, ...]:
        """All is equal that can be compared."""
        made = []
        for standby in servers(world, source._db):
            if standby.is_standby:
                active = active_of(world, standby)
                answers = active is not None and isinstance(active.seen, Fresh)
                made.append(
                    in_sync(source._db, standby.server, active.server if active else "?", in_sync=answers or None)
                )
        return tuple(made)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Engine]:
        engine = Engine(self.config, self.store, self.saved, read_only=True)
        task = asyncio.create_task(engine.run())
        try:
            yield engine
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    made = Site(Store(tmp_path))
    made.stand_by()
    on_virtual_time(monkeypatch)
    northd: Any = healthy_central().northd

    async def host(_source: Source[Any], _world: World) -> Any:
        return replace(healthy_host(), signs=made.signs)

    async def its_northd(_source: Source[Any], _world: World) -> Any:
        return replace(northd.value, active=False)

    async def database(source: OvnDatabaseSource, world: World) -> DatabaseServer:
        return await made.database(source, world)

    async def pairs(source: OvnDatabaseSyncSource, world: World) -> tuple[PairSync, ...]:
        return await made.pairs(source, world)

    monkeypatch.setattr(HostSource, "read", host)
    monkeypatch.setattr(NorthdSource, "read", its_northd)
    monkeypatch.setattr(OvnDatabaseSource, "read", database)

    async def chassis(_source: OvnChassisSource, _world: World) -> Propagation:
        return propagation()

    monkeypatch.setattr(OvnDatabaseSyncSource, "read", pairs)
    monkeypatch.setattr(OvnChassisSource, "read", chassis)
    return made


def labels(engine: Engine, db: Database = NB) -> set[str]:
    """The servers that apply."""
    prefix = f"{db}@"
    return {s.removeprefix(prefix) for s in engine.view().world.applicable if s.startswith(prefix)}


def found(engine: Engine) -> dict[str, list[str]]:
    """What is reported."""
    return {name: [f.subject for f in of] for name, of in engine.view().report.findings.items() if of}


def unknown(engine: Engine) -> dict[str, list[str]]:
    return {name: list(missing) for name, missing in engine.view().report.unknown.items()}


NAMED = address(NB, ACTIVE)


def naming(active: str, *, standby: bool = True) -> DatabaseServer:
    """This host's Northbound server, told to replicate that one; promoted if it does not stand by."""
    own = standby_server(NB, writable=not standby)
    assert own.replication is not None
    return replace(own, replication=replace(own.replication, active=active, standby=standby))


class TestNamed:
    """The active that a standby names is known without being listed."""

    def test_it_is_asked_and_all_is_well(self, site: Site) -> None:
        async def story() -> None:
            async with site.running() as engine:
                await until(60)
                world = engine.view().world
                assert world.roles == {Role.CENTRAL}
                assert labels(engine) == {LOCAL, NAMED}
                assert world.endpoints[NB, NAMED] == source_name(NB, NAMED)
                assert world.memory.models[source_name(NB, NAMED)] is Model.STANDALONE
                assert engine.ready()
                assert (found(engine), unknown(engine)) == ({}, {})
                assert f'mec_ovn_db_in_sync{{db="{NB}",server="local"}} 1.0' in exposition(world)

        scenario(story)

    def test_it_is_asked_once_in_an_interval(self, site: Site) -> None:
        async def story() -> None:
            async with site.running():
                await until(300)

        scenario(story)
        assert 18 <= site.asked.count(source_name(NB, NAMED)) <= 24
        assert 18 <= site.asked.count(source_name(NB, LOCAL)) <= 24

    @pytest.mark.parametrize(("listed", "told"), [(NAMED, NAMED), ("tcp:a.example", "tcp:a.example:6640")])
    def test_its_label_is_the_configured_one_if_it_is_listed(self, site: Site, listed: str, told: str) -> None:
        site.config = config({"northbound": {"peers": [listed]}})
        site.say(naming(told))
        site.say(replace(from_afar(active_server(NB), ACTIVE), server=listed))

        async def story() -> None:
            async with site.running() as engine:
                await until(60)
                assert labels(engine) == {LOCAL, listed}
                assert (found(engine), unknown(engine)) == ({}, {})

        scenario(story)

    def test_one_that_does_not_answer_is_no_active(self, site: Site) -> None:
        site.lose(source_name(NB, NAMED))

        async def story() -> None:
            async with site.running() as engine:
                await until(60)
                local = source_name(NB, LOCAL)
                assert found(engine) == {"ovn_db_no_writer": [local], "ovn_db_replication_down": [local]}
                assert unknown(engine) == {"ovn_db_out_of_sync": [source_name(NB, NAMED)]}

        scenario(story)

    def test_one_that_is_disabled_is_not_asked(self, site: Site) -> None:
        site.config = config(disable=(source_name(NB, NAMED),))

        async def story() -> None:
            async with site.running() as engine:
                await until(60)
                assert labels(engine) == {LOCAL}
                assert labels(engine, SB) == {LOCAL, address(SB, ACTIVE)}
                assert found(engine) == {}
                lacking = {check for check, missing in unknown(engine).items() if missing == [source_name(NB, NAMED)]}
                assert lacking == {"ovn_db_no_writer", "ovn_db_replication_down", "ovn_db_split_brain"}

        scenario(story)
        assert source_name(NB, NAMED) not in site.asked

    @pytest.mark.parametrize("nonsense", ["pssl:what", "192.0.2.11:6641", "tcp:a:b", "tcp:a:0", ""])
    def test_an_address_of_no_known_form_is_what_is_wrong(self, site: Site, nonsense: str) -> None:
        site.say(naming(nonsense))

        async def story() -> None:
            async with site.running() as engine:
                await until(60)
                assert labels(engine) == {LOCAL}
                assert found(engine)["ovn_db_replication_down"] == [source_name(NB, LOCAL)]

        scenario(story)

    def test_oneself(self, site: Site) -> None:
        """Asked like any other, seen to be the same server, and said."""
        here = address(NB, STANDBY)
        site.say(naming(here), from_afar(standby_server(NB), STANDBY))

        async def story() -> None:
            async with site.running() as engine:
                await until(60)
                assert [s.server for s in servers(engine.view().world, NB)] == [LOCAL]
                assert found(engine)["ovn_db_replication_down"] == [source_name(NB, LOCAL)]

        scenario(story)

    def test_another_than_before(self, site: Site) -> None:
        """The old one is not asked any more, and leaves nothing behind."""
        third = "tcp:192.0.2.13:6641"

        async def story() -> None:
            async with site.running() as engine:
                await until(60)
                site.lose(source_name(NB, NAMED))
                site.say(naming(third))
                site.say(replace(from_afar(active_server(NB), ACTIVE), server=third))
                await until(120)
                assert labels(engine) == {LOCAL, third}
                assert (found(engine), unknown(engine)) == ({}, {})
                assert NAMED not in exposition(engine.view().world)
                asked = site.asked.count(source_name(NB, NAMED))
                await until(300)
                assert site.asked.count(source_name(NB, NAMED)) == asked
                site.stand_by()
                await until(360)
                assert labels(engine) == {LOCAL, NAMED}, "and back again"
                assert (found(engine), unknown(engine)) == ({}, {})

        scenario(story)

    def test_nobody_any_more(self, site: Site) -> None:
        """Started again as an active: nothing is wrong with the one that it replicated."""
        own = active_server(NB, identity="restarted")

        async def story() -> None:
            async with site.running() as engine:
                await until(60)
                site.lose(source_name(NB, NAMED), SourceError(Reason.TIMEOUT, "its host is off"))
                site.say(own)
                await until(150)
                assert labels(engine) == {LOCAL}
                assert (found(engine), unknown(engine)) == ({}, {})
                assert "ovn_northbound_sync" not in engine.view().world.applicable

        scenario(story)

    def test_a_promoted_one_goes_on_naming_it(self, site: Site) -> None:
        promoted = naming(NAMED, standby=False)

        async def story() -> None:
            async with site.running() as engine:
                await until(60)
                site.lose(source_name(NB, NAMED))
                site.say(promoted)
                await until(150)
                assert labels(engine) == {LOCAL, NAMED}
                assert found(engine) == {}
                assert unknown(engine) == {"ovn_db_out_of_sync": [source_name(NB, NAMED)]}
                site.say(from_afar(active_server(NB), ACTIVE))
                await until(210)
                assert found(engine) == {"ovn_db_split_brain": [source_name(NB, LOCAL)]}

        scenario(story)

    def test_while_the_standby_does_not_tell_its_last_word_counts(self, site: Site) -> None:
        async def story() -> None:
            async with site.running() as engine:
                await until(60)
                site.lose(source_name(NB, LOCAL))
                await until(300)
                assert labels(engine) == {LOCAL, NAMED}
                assert found(engine) == {}, "there is one that takes writes"

        scenario(story)


class TestRole:
    def test_a_host_of_one_database(self, site: Site) -> None:
        site.signs = {str(SB): "/s"}

        async def story() -> None:
            async with site.running() as engine:
                await until(30)
                assert labels(engine, NB) == set()
                assert labels(engine, SB) == {LOCAL, address(SB, ACTIVE)}

        scenario(story)

    def test_a_server_that_once_showed_is_down_and_not_away(self, site: Site) -> None:
        async def story() -> None:
            async with site.running() as engine:
                await until(30)
                site.saved = engine._saved()
            site.signs = {}
            site.lose(source_name(NB, LOCAL), SourceError(Reason.MISSING, "no socket"))
            async with site.running() as engine:
                await until(60)
                assert engine.view().world.roles == {Role.CENTRAL}
                assert labels(engine) == {LOCAL}
                assert unknown(engine)["ovn_db_no_writer"] == [source_name(NB, LOCAL)]
                assert "ovn_db_raft_degraded" in engine.view().report.not_applicable, "it was no member"

        scenario(story)

    def test_one_that_was_moved_away_is_forgotten_with_what_it_named(self, site: Site) -> None:
        async def story() -> None:
            async with site.running() as engine:
                await until(60)
                assert engine._saved().models.keys() == {
                    source_name(db, server) for db in Database for server in (LOCAL, address(db, ACTIVE))
                }
                site.signs = {}
                for source in tuple(site.servers):
                    site.lose(source, SourceError(Reason.MISSING, "no socket"))
                await until(120)
                assert engine.view().world.roles == {Role.CENTRAL}
                await engine.forget("central")
                assert engine.view().world.roles == frozenset()
                assert engine.view().world.applicable == {"host"}
                assert engine.view().world.memory.models == {}
                await until(180)
                assert engine.view().world.memory.models == {}
                assert "mec_ovn_" not in exposition(engine.view().world)

        scenario(story)

    def test_one_that_still_shows_is_found_again(self, site: Site) -> None:
        async def story() -> None:
            async with site.running() as engine:
                await until(60)
                await engine.forget("central")
                assert engine.view().world.roles == {Role.CENTRAL}
                await until(120)
                assert engine.view().world.memory.models.keys() >= {source_name(NB, LOCAL), source_name(SB, LOCAL)}
                assert (found(engine), unknown(engine)) == ({}, {})

        scenario(story)

    def test_northd_belongs_to_it_where_one_ever_showed(self, site: Site) -> None:
        async def story() -> None:
            async with site.running() as engine:
                await until(60)
                assert "northd" not in engine.view().world.applicable
                assert "ovn_northd_inactive" in engine.view().report.not_applicable
                site.signs = ALL | {"northd": "/p"}
                await until(120)
                site.signs = dict(ALL)
                await until(180)
                assert "northd" in engine.view().world.applicable
                assert engine.view().report.findings["ovn_northd_inactive"] == ()
                await engine.forget("northd")
                assert "northd" not in engine.view().world.applicable

        scenario(story)

    def test_a_third_host_watches_what_it_is_told_of(self, site: Site) -> None:
        sections = {
            side: {"database": address(db, ACTIVE), "peers": [address(db, STANDBY)]}
            for side, db in (("northbound", NB), ("southbound", SB))
        }
        site.config = msgspec.structs.replace(config(sections), roles=[Role.CENTRAL])
        site.signs = {}
        site.servers = {}
        for db in Database:
            site.say(from_afar(active_server(db), ACTIVE), from_afar(standby_server(db), STANDBY))

        async def story() -> None:
            async with site.running() as engine:
                await until(60)
                assert labels(engine) == {address(NB, ACTIVE), address(NB, STANDBY)}
                assert (found(engine), unknown(engine)) == ({}, {})
                site.say(replace(from_afar(standby_server(NB), STANDBY), writable=True))
                await until(120)
                assert found(engine) == {"ovn_db_split_brain": [source_name(NB, address(NB, ACTIVE))]}

        scenario(story)


def test_answers_that_are_too_old_are_none(site: Site) -> None:
    """Also of servers that are not fields of the World."""

    async def hangs(source: OvnDatabaseSource, world: World) -> DatabaseServer:
        if source.name == source_name(NB, LOCAL):
            await asyncio.Event().wait()
        return await Site.database(site, source, world)

    async def story() -> None:
        async with site.running() as engine:
            await until(10)
            assert isinstance(engine.view().world.part(source_name(NB, LOCAL)), Fresh)
            site.database = hangs  # type: ignore[method-assign]  # from now on
            await until(70)
            assert not isinstance(engine.view().world.part(source_name(NB, LOCAL)), Fresh)
            assert isinstance(engine.view().world.part(source_name(SB, LOCAL)), Fresh)

    scenario(story)
