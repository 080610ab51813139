"""A real ovn-northd, between two real databases."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.northd import NorthdSource
from mecexporter.state.ovn_db import Database
from mecexporter.state.world import Memory, Settings, empty_world
from tests.faults.servers import JSON, hostile
from tests.sources.daemons import Daemon, OvsdbServer, run, running, short_dir
from tests.waiting import answers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mecexporter.state.ovn_db import Northd

NB, SB = Database
WORLD = empty_world(0, "controller-1", Settings())
PATIENCE = 20


@dataclass
class Central:
    """Both databases and a northd."""

    directory: Path
    nb: OvsdbServer
    sb: OvsdbServer
    northd: Daemon

    def appctl(self, *args: str) -> str:
        return run("ovs-appctl", f"--target={self.northd.control}", *args)


@pytest.fixture
def central() -> Iterator[Central]:
    with short_dir() as directory:
        servers = []
        for db in Database:
            (directory / db).mkdir()
            servers.append(OvsdbServer(directory / db, db))
        nb, sb = servers
        northd = Daemon(directory, "ovn-northd", f"--ovnnb-db=unix:{nb.socket}", f"--ovnsb-db=unix:{sb.socket}")
        with running(nb, sb):
            run("ovn-nbctl", f"--db=unix:{nb.socket}", "init")
            with running(northd):
                yield Central(directory, nb, sb, northd)


async def until(source: NorthdSource, *, active: bool, paused: bool = False, connected: bool = True) -> Northd:
    """Ask until it says so."""

    def so(seen: Northd) -> bool:
        return (seen.active, seen.paused, all(seen.connected.values())) == (active, paused, connected)

    return await answers(lambda: source.read(WORLD), so, PATIENCE, "northd is so")


async def test_active_paused_and_without_its_databases(central: Central) -> None:
    source = NorthdSource(central.directory, None, 1)
    try:
        seen = await until(source, active=True)
        assert seen.connected == {NB: True, SB: True}
        assert seen.version == run("ovn-northd", "--version").split()[1]
        central.appctl("pause")
        await until(source, active=False, paused=True)
        central.appctl("resume")
        await until(source, active=True)
        central.sb.kill()
        seen = await until(source, active=False, connected=False)
        assert seen.connected == {NB: True, SB: False}
    finally:
        await source.close()


async def test_a_northd_that_has_ended(central: Central) -> None:
    source = NorthdSource(central.directory, None, 1)
    try:
        await until(source, active=True)
        central.northd.kill()
        await failure(source)  # the connection that was kept breaks
        assert (await failure(source)).reason is Reason.REFUSED
        central.northd.start()
        await until(source, active=True)
        central.northd.stop()
        assert (await failure(source)).reason is Reason.MISSING
    finally:
        await source.close()


@pytest.mark.parametrize("how", ["garbage", "close_at_once", "endless_string"])
async def test_a_hostile_northd(central: Central, how: str) -> None:
    source = NorthdSource(central.directory, None, 1)
    async with hostile(central.northd.control, JSON[how]):
        assert (await failure(source)).reason in {Reason.GARBAGE, Reason.CLOSED, Reason.TOO_LARGE}
    await source.close()


async def failure(source: NorthdSource) -> SourceError:
    with pytest.raises(SourceError) as caught:
        await source.read(WORLD)
    return caught.value


def test_it_applies_where_one_was_ever_seen(tmp_path: Path) -> None:
    source = NorthdSource(tmp_path, None, 1)
    assert not source.configured(WORLD)
    assert source.configured(replace(WORLD, memory=Memory(northd=True)))
