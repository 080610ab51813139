"""NeutronOvnSource on a real Northbound server; what its Neutron can't be made to say comes from a stand-in."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from mecexporter.errors import Reason, SourceError
from mecexporter.sources import neutron_ovn
from mecexporter.sources.neutron_ovn import NeutronOvnSource
from mecexporter.sources.wire.cloud import Cloud
from mecexporter.state.central import source_name
from mecexporter.state.neutron_ovn import Resource, State
from mecexporter.state.ovn_db import LOCAL
from tests.drift.looks import LISTS, port, uuid
from tests.sources.apis import Apis, serve, sign_in
from tests.sources.daemons import Server, running, short_dir
from tests.worlds import NB, active_server, central, standby_server, without

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from mecexporter.state.neutron_ovn import NeutronAudit
    from mecexporter.state.world import World

NET, VM = uuid(100), 1
OWN_IDS = 'external_ids:"neutron:revision_number"='


class Neutron:
    """Its lists; asked by ids it answers those."""

    def __init__(self, apis: Apis) -> None:
        self.apis = apis
        self.lists: dict[str, list[dict[str, Any]]] = {what: [] for what in LISTS}
        for what in LISTS:
            apis.answers[f"/network/v2.0/{what}"] = self.answer

    def answer(self, request: web.Request) -> Any:
        what = request.path.rpartition("/")[2]
        ids = request.query.getall("id", [])
        rows = [row for row in self.lists[what] if not ids or row["id"] in ids]
        return {what.replace("-", "_"): rows}

    def asked(self) -> list[str]:
        """The lists since the last time: whole, or by ids."""
        asked = [(url.partition("?")[0].rpartition("/")[2], "&id=" in url or "?id=" in url) for url in self.apis.asked]
        self.apis.asked.clear()
        return [f"{what} by id" if by_id else what for what, by_id in asked]


@pytest.fixture(name="neutron")
async def a_neutron(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Neutron]:
    """Of a network with a port."""
    async with serve() as apis:
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(apis.clouds(tmp_path)))
        neutron = Neutron(apis)
        neutron.lists["networks"] = [{"id": NET, "revision_number": 2}]
        neutron.lists["ports"] = [port(VM)]
        yield neutron


@pytest.fixture(name="northbound")
def a_northbound() -> Iterator[Server]:
    """With the rows of these."""
    with short_dir() as directory:
        server = Server(directory / "nb")
        with running(server):
            server.nbctl("ls-add", f"neutron-{NET}", "--", "set", "Logical_Switch", f"neutron-{NET}", f"{OWN_IDS}2")
            add_port(server, VM)
            yield server


def add_port(server: Server, number: int, revision: int = 3) -> None:
    name = uuid(number)
    address = f'addresses="fa:16:3e:00:00:{number:02x} 10.0.0.{number}"'
    server.nbctl("lsp-add", f"neutron-{NET}", name, "--", "set", "Logical_Switch_Port", name, f"{OWN_IDS}{revision}",
                 address)  # fmt: skip


def world(server: Server) -> World:
    """On the host of this server."""
    made = central(active_server(NB))
    return replace(made, endpoints={(NB, f"unix:{server.socket}"): source_name(NB, LOCAL)})


def source(*, interval: float = 300) -> NeutronOvnSource:
    return NeutronOvnSource(Cloud("test"), tls=None, interval=interval)


def told(audit: NeutronAudit) -> set[tuple[str, State]]:
    return {(drift.uuid, drift.state) for drift in audit.drifts}


async def refused(of: NeutronOvnSource, where: World) -> SourceError:
    with pytest.raises(SourceError) as caught:
        await of.read(where)
    return caught.value


async def test_an_audit(neutron: Neutron, northbound: Server) -> None:
    of = source()
    audit = await of.read(world(northbound))
    assert (audit.ordered, audit.drifts) == ({r: int(r in ("network", "port")) for r in Resource}, ())
    assert sorted(neutron.asked()) == sorted(LISTS)
    await of.close()


async def test_only_what_is_needed_is_asked_for(neutron: Neutron, northbound: Server) -> None:
    of = source()
    await of.read(world(northbound))
    asked = {url.partition("?")[0].rpartition("/")[2]: url for url in neutron.apis.asked}
    assert all("fields=id" in url and "limit=1000" in url for url in asked.values())
    assert "description" not in "".join(asked.values())
    await of.close()


async def test_out_of_turn_only_what_differed_is_looked_at_again(neutron: Neutron, northbound: Server) -> None:
    """Here the lost one is found to be gone on both sides, and a new one is left to the next audit."""
    neutron.lists["ports"] += [port(2), port(3)]
    add_port(northbound, 4)
    of = source()
    audit = await of.read(world(northbound))
    everything = {(uuid(2), State.MISSING), (uuid(3), State.MISSING), (uuid(4), State.EXTRA)}
    assert told(audit) == everything
    assert {drift.age for drift in audit.drifts} == {0}
    neutron.asked()

    del neutron.lists["ports"][1]
    add_port(northbound, 5)
    audit = await of.read(world(northbound))
    assert set(neutron.asked()) == {"ports by id"}
    assert told(audit) == everything - {(uuid(2), State.MISSING)}
    assert all(drift.age > 0 for drift in audit.drifts)
    assert audit.ordered[Resource.PORT] == 3
    await of.close()


async def test_very_many_are_looked_at_in_whole(
    neutron: Neutron, northbound: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neutron_ovn, "_BY_IDS", 1)
    neutron.lists["ports"] += [port(2), port(3)]
    of = source()
    await of.read(world(northbound))
    neutron.asked()
    assert len((await of.read(world(northbound))).drifts) == 2
    assert sorted(neutron.asked()) == sorted(LISTS)
    await of.close()


async def test_the_next_in_turn_is_an_audit(neutron: Neutron, northbound: Server) -> None:
    neutron.lists["ports"].append(port(2))
    of = source(interval=0)
    await of.read(world(northbound))
    neutron.asked()
    await of.read(world(northbound))
    assert sorted(neutron.asked()) == sorted(LISTS)
    await of.close()


@pytest.mark.parametrize("what", LISTS)
async def test_one_list_that_fails_is_all(what: str, neutron: Neutron, northbound: Server) -> None:
    neutron.apis.answers[f"/network/v2.0/{what}"] = lambda _: web.Response(status=500, text="boom")
    error = await refused(source(), world(northbound))
    assert error.reason is Reason.ANSWERED_ERROR
    assert f"network /{what}: HTTP 500" in error.why


@pytest.mark.parametrize(
    ("what", "row"),
    [
        ("networks", {"id": NET}),
        ("networks", {"id": 7, "revision_number": 1}),
        ("routers", {"id": NET, "revision_number": "new"}),
        ("ports", port(VM, mac_address=None)),
        ("ports", port(VM, fixed_ips=[{}])),
    ],
)
async def test_an_object_without_what_is_needed(
    what: str, row: dict[str, Any], neutron: Neutron, northbound: Server
) -> None:
    neutron.lists[what] = [row]
    error = await refused(source(), world(northbound))
    assert error.reason is Reason.GARBAGE
    assert f"network /{what}: an object without what is needed" in error.why


async def test_without_a_server_nothing_can_be_told(neutron: Neutron, northbound: Server) -> None:
    of = source()
    await of.read(world(northbound))
    neutron.asked()
    northbound.stop()
    error = await refused(of, world(northbound))
    assert error.reason in (Reason.MISSING, Reason.REFUSED, Reason.CLOSED)
    assert neutron.asked() == [], "the cheap question is asked first"
    silent = without(world(northbound), source_name(NB, LOCAL))
    assert "this host's Northbound server does not answer" in (await refused(of, silent)).why


async def test_who_may_not_see_all_is_told_so(
    neutron: Neutron, northbound: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else every row of another project would seem to be extra."""
    sign_in(neutron.apis, monkeypatch, tmp_path, "reader")
    neutron.lists["ports"] = [port(VM, project_id="own")]
    error = await refused(source(), world(northbound))
    assert error.reason is Reason.PERMISSION
    assert "no port of another project is seen" in error.why
    neutron.lists["ports"].append(port(2, project_id="other"))
    assert told(await source().read(world(northbound))) == {(uuid(2), State.MISSING)}
    neutron.lists["ports"] = [{k: v for k, v in port(VM).items() if not k.startswith("binding:")}]
    error = await refused(source(), world(northbound))
    assert error.reason is Reason.PERMISSION
    sign_in(neutron.apis, monkeypatch, tmp_path, "admin")
    neutron.lists["ports"] = [port(VM, project_id="own")]
    assert told(await source().read(world(northbound))) == set()


def test_it_is_asked_where_northbound_is_written() -> None:
    of = source()
    assert of.configured(central(active_server(NB)))
    assert not source().configured(central(standby_server(NB)))
    assert not source().configured(central())
    # What led is believed to until another is seen to.
    assert of.configured(without(central(active_server(NB)), source_name(NB, LOCAL)))
