"""The engine with OpenStack's ledgers: what is asked where, when it is asked again, and that secrets stay inside."""

from __future__ import annotations

import asyncio
import contextlib
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from mecexporter import app
from mecexporter.app import Engine, make_sources
from mecexporter.config import Config, effective
from mecexporter.errors import Reason, SourceError
from mecexporter.sources.base import Source
from mecexporter.sources.nova import NovaSource
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.world import Role
from mecexporter.store import Saved, Store
from tests.test_app import on_virtual_time
from tests.virtual_time import now, run_virtual, until
from tests.worlds import API_SOURCES, CELL1, HOSTNAME, VFS, leaked_vf, nic, vf

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from mecexporter.state.world import World

SECRET = "pa55word"  # noqa: S105  # opens nothing
GIVEN = {
    "openstack": {"cloud": "lab"},
    "nova": {"cells": {"cell1": f"mysql+pymysql://nova:{SECRET}@192.0.2.1/nova_cell1"}},
    "host": {"hostname": HOSTNAME},
}


def config(**sections: object) -> Config:
    made: Config = msgspec.convert(GIVEN | sections, Config, dec_hook=lambda kind, value: kind.parse(value))
    return made


REAL = {s.name: s for s in make_sources(config())}


class Double(Source[Any]):
    """Of a source: its manners, and what it is told to say."""

    def __init__(self, name: str, says: Callable[[], Any]) -> None:
        of = REAL[name]
        self.name, self.roles, self.interval, self.deadline = name, of.roles, of.interval, of.deadline
        self.rereads, self.shared, self.retry = of.rereads, of.shared, of.retry
        self.says = says
        self.asked: list[float] = []

    async def read(self, world: World) -> Any:  # noqa: ARG002  # it says what it says
        self.asked.append(now())
        said = self.says()
        if isinstance(said, Exception):
            raise said
        return said


class Cell(NovaSource):
    """A double of a cell keeps its class: the engine gives it a place by that."""

    def __init__(self, says: Callable[[], Any]) -> None:
        super().__init__("cell1", "sqlite:///x", every_host=False, interval=300, down_after=60)
        self.says = says
        self.asked: list[float] = []

    async def read(self, world: World) -> Any:  # noqa: ARG002  # it says what it says
        self.asked.append(now())
        return self.says()


class Node:
    """An engine whose ledgers are told what to say."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = leaked_vf()
        self.directory = directory
        self.silent: set[str] = set()
        self.doubles: dict[str, Any] = {n: Double(n, self.saying(n)) for n in ("sysfs", "neutron", "placement")}
        self.doubles[CELL1] = Cell(self.saying(CELL1))
        monkeypatch.setattr(app, "make_sources", lambda _config: tuple(self.doubles.values()))
        on_virtual_time(monkeypatch)

    def saying(self, name: str) -> Callable[[], Any]:
        def say() -> Any:
            if name in self.silent:
                return SourceError(Reason.TIMEOUT, "no answer")
            part: Any = self.world.part(name)
            return part.value

        return say

    @contextlib.asynccontextmanager
    async def running(self, **sections: object) -> AsyncIterator[Engine]:
        given = config(roles=["compute", "api"], **sections)
        engine = Engine(given, Store(self.directory), Saved(format=1), read_only=True)
        task = asyncio.create_task(engine.run())
        try:
            yield engine
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture(name="node")
def a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(tmp_path, monkeypatch)


def leaks(engine: Engine) -> list[str]:
    return [f.subject for f in engine.view().report.findings.get("vf_leaked", ())]


def test_a_leak_is_found_within_two_polls_and_grace_by_a_read_out_of_turn(node: Node) -> None:
    async def story() -> None:
        async with node.running() as engine:
            await until(55)
            assert leaks(engine) == []
            assert "vf_leaked" in engine.view().report.pending
            await until(100)
            assert leaks(engine) == [f"{HOSTNAME}/{VFS[1]}"]
            await until(1000)
        for name in ("neutron", CELL1):
            begun = node.doubles[name].asked
            gaps = [after - before for before, after in pairwise(begun)]
            assert 60 <= gaps[0] <= 90, "once out of turn"
            assert all(gap > 200 for gap in gaps[1:]), "else in turn, each five minutes"

    run_virtual(story())


def test_what_never_lasts_is_read_twice_as_often_at_most(node: Node) -> None:
    free = nic(*(vf(n) for n in range(4)))

    async def story() -> None:
        async with node.running() as engine:
            for turn in range(40):
                node.world = leaked_vf() if turn % 2 else leaked_vf().with_part("sysfs", Fresh(free, 0.0))
                node.world = node.world.with_part("neutron", Fresh((), 0.0)) if turn % 2 else node.world
                await until(90 * (turn + 1))
            assert engine.view().report.unknown == {}
        asked = node.doubles["neutron"].asked
        assert len(asked) <= 2 * 90 * 40 / 300 + 3

    run_virtual(story())


def test_a_ledger_that_is_lost_is_unknown_and_then_found_again(node: Node) -> None:
    async def story() -> None:
        async with node.running() as engine:
            await until(100)
            assert leaks(engine)
            node.silent.add("neutron")
            await until(800)
            report = engine.view().report
            assert report.unknown["vf_leaked"] == ("neutron",)
            assert "vf_unrecorded" not in report.unknown
            node.silent.clear()
            await until(2000)
            assert leaks(engine) == [f"{HOSTNAME}/{VFS[1]}"]

    run_virtual(story())


def test_sources_are_as_configured() -> None:
    assert REAL.keys() >= API_SOURCES
    only_cells = {s.name for s in make_sources(config(openstack={}))}
    assert CELL1 in only_cells
    assert not {"neutron", "placement", "security_groups"} & only_cells
    assert not API_SOURCES & {s.name for s in make_sources(Config())}
    off = {s.name for s in make_sources(config(sources={"disable": ["placement", CELL1]}))}
    assert API_SOURCES & off == {"neutron", "security_groups"}
    assert all(s.roles == {Role.API} for s in REAL.values() if s.name in API_SOURCES)
    assert all(s.deadline >= 30 for s in REAL.values() if s.name in API_SOURCES), "a call gives up after 30 s"


def test_secrets_are_masked() -> None:
    shown = str(effective(config()))
    assert "mysql+pymysql://nova:***@192.0.2.1/nova_cell1" in shown
    assert SECRET not in shown


def test_a_cell_has_its_place_before_it_answers(tmp_path: Path) -> None:
    engine = Engine(config(), Store(tmp_path), Saved(format=1), read_only=True)
    world = engine.view().world
    assert isinstance(world.part(CELL1), Absent)
    assert CELL1 in world.applicable
    assert SECRET not in str(world)
