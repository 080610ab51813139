"""Neutron's ledger, from a stand-in that answers as no real one can be made to; a real one: tests/e2e/test_vfs.py."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from aiohttp import web

from mecexporter.errors import Reason, SourceError
from mecexporter.sources import neutron
from mecexporter.sources.neutron import NeutronSource
from mecexporter.sources.wire import lists
from mecexporter.sources.wire.cloud import Cloud
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.openstack import Port
from mecexporter.state.world import Settings, World, empty_world
from tests.sources.apis import Apis, serve, sign_in
from tests.worlds import ALICE, CELL1, cell, device

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FIXTURES = Path(__file__).parents[1] / "fixtures/openstack"
WORLD = empty_world(0.0, "compute-1", Settings())
PORTS = "/network/v2.0/ports"


@pytest.fixture(name="apis")
async def the_apis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Apis]:
    async with serve() as apis:
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(apis.clouds(tmp_path)))
        yield apis


def source(*, every_host: bool = False) -> NeutronSource:
    return NeutronSource(Cloud("test"), every_host=every_host, interval=300)


def row(uuid: str = "p", **changes: Any) -> dict[str, Any]:
    return {
        "id": uuid,
        "device_id": "vm",
        "device_owner": "compute:nova",
        "binding:host_id": "compute-1",
        "binding:vnic_type": "direct",
        "binding:profile": {"pci_slot": "0000:3b:00.2", "physical_network": "physnet2"},
    } | changes


def claimed(*addresses: str, **changes: Any) -> World:
    """Nova has given these VFs of this host to instances."""
    devices = (device(0, ALICE, address=address, **changes) for address in addresses)
    world = replace(WORLD, applicable=frozenset({CELL1}))
    return world.with_part(CELL1, Fresh(cell(*devices), 0.0))


class Ports:
    """Lists sorted by id, page by page, as Neutron does; ``gone`` are deleted once they were listed."""

    def __init__(self, rows: list[dict[str, Any]], gone: list[str] | None = None) -> None:
        self.rows = {r["id"]: r for r in rows}
        self.gone = gone or []

    def __call__(self, request: web.Request) -> Any:
        marker = request.query.get("marker")
        if marker is not None and marker not in self.rows:
            return web.json_response({"NeutronError": {"type": "PortNotFound"}}, status=404)
        after = [self.rows[k] for k in sorted(self.rows) if marker is None or k > marker]
        page = after[: int(request.query["limit"])]
        if self.gone and page and page[-1]["id"] == self.gone[0]:
            del self.rows[self.gone.pop(0)]
        return {"ports": page}


async def test_ports_that_name_devices(apis: Apis) -> None:
    apis.answers[PORTS] = Ports(
        [
            row("a"),
            row("b", **{"binding:vnic_type": "macvtap", "binding:profile": {"pci_slot": "0000:3B:00.3"}}),
            row("normal", **{"binding:vnic_type": "normal", "binding:profile": {}}),
            row("unbound", **{"binding:host_id": ""}),
            row("trunk", device_owner="trunk:subport"),
            row("free", device_id=""),
            row("odd", **{"binding:profile": {"pci_slot": "nonsense"}}),
            row("hidden", **{"binding:profile": None}),
            {"id": "bare", "binding:host_id": "compute-1", "binding:profile": {"pci_slot": "0000:3b:00.4"}},
        ]
    )
    assert await source().read(WORLD) == (
        Port(uuid="a", host="compute-1", address="0000:3b:00.2", instance="vm", vnic="direct"),
        Port(uuid="b", host="compute-1", address="0000:3b:00.3", instance="vm", vnic="macvtap"),
    )


@pytest.mark.parametrize(
    ("vnic", "capabilities", "switched"),
    [
        ("direct", ["switchdev"], True),
        ("direct", [], False),
        ("direct", None, False),
        ("macvtap", ["switchdev"], False),
        ("vdpa", None, True),
        ("remote-managed", None, True),
    ],
)
async def test_ports_that_a_nics_switch_is_to_carry(
    apis: Apis, vnic: str, capabilities: list[str] | None, *, switched: bool
) -> None:
    profile = {"pci_slot": "0000:3b:00.2"} | ({} if capabilities is None else {"capabilities": capabilities})
    changes: dict[str, Any] = {"binding:vnic_type": vnic, "binding:profile": profile}
    apis.answers[PORTS] = {"ports": [row(**changes)]}
    (port,) = await source().read(WORLD)
    assert port.switched is switched


async def test_the_groups_that_a_port_is_in(apis: Apis) -> None:
    apis.answers[PORTS] = {
        "ports": [row("a", project_id="p", security_groups=["g", "h"]), row("b", security_groups=None)]
    }
    first, second = await source().read(WORLD)
    assert (first.project, first.groups) == ("p", ("g", "h"))
    assert (second.project, second.groups) == ("", ())


@pytest.mark.parametrize("release", ["debian", "newest"])
async def test_what_a_real_neutron_answered(apis: Apis, release: str) -> None:
    recorded = json.loads((FIXTURES / release / "neutron_ports.json").read_text())
    apis.answers[PORTS] = recorded
    found = await source(every_host=True).read(WORLD)
    direct = [p for p in recorded["ports"] if p["binding:vnic_type"] == "direct"]
    assert [(p.uuid, p.host, p.address, p.instance) for p in found] == [
        (p["id"], p["binding:host_id"], p["binding:profile"]["pci_slot"], p["device_id"]) for p in direct
    ]
    assert found


@pytest.mark.parametrize("hidden", ["binding:profile", "binding:host_id"])
async def test_bindings_that_we_may_not_see_are_no_lack_of_ports(apis: Apis, hidden: str) -> None:
    apis.answers[PORTS] = {"ports": [{k: v for k, v in row().items() if k != hidden}]}
    with pytest.raises(SourceError, match="has no bindings") as caught:
        await source().read(WORLD)
    assert caught.value.reason is Reason.PERMISSION


def by_host(rows: list[dict[str, Any]]) -> Any:
    """Answers with those of the host that is asked for, or with all."""

    def answer(request: web.Request) -> Any:
        host = request.query.get("binding:host_id")
        return {"ports": [r for r in rows if host in (None, r["binding:host_id"])]}

    return answer


OWN = row("own", project_id="own", **{"binding:host_id": "compute-2"})
OTHERS = row("other", project_id="another", **{"binding:host_id": "compute-2"})
NOBODYS = row("nobody", project_id="", device_owner="network:dhcp", **{"binding:host_id": "compute-2"})
HIDDEN = {key: value for key, value in OWN.items() if not key.startswith("binding:")} | {"binding:host_id": "compute-2"}


@pytest.mark.parametrize(
    ("listed", "says"),
    [
        pytest.param([], "no port of another project is seen", id="none at all"),
        pytest.param([OWN, NOBODYS], "no port of another project is seen", id="only the own project's"),
        pytest.param([HIDDEN], "the answer has no bindings", id="the own project's, without bindings"),
        pytest.param([row("here", project_id="own", device_id="vm2", **{"binding:profile": {}})],
                     "no port of another project is seen", id="the own project's of this host"),
    ],
)  # fmt: skip
async def test_who_sees_only_its_own_projects_ports_does_not_see_that_a_claim_has_none(
    apis: Apis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: list[dict[str, Any]], says: str
) -> None:
    sign_in(apis, monkeypatch, tmp_path, "reader", "member")
    apis.answers[PORTS] = by_host(listed)
    with pytest.raises(SourceError, match=says) as caught:
        await source().read(claimed("0000:3b:00.2", "0000:3b:00.3"))
    assert caught.value.reason is Reason.PERMISSION
    if "another project" in says:
        assert "(compute-1/0000:3b:00.2, compute-1/0000:3b:00.3)" in caught.value.why
        assert "role admin" in caught.value.why


async def test_a_port_of_another_project_proves_that_all_are_seen(
    apis: Apis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in(apis, monkeypatch, tmp_path, "watcher")
    apis.answers[PORTS] = by_host([OWN, OTHERS])
    assert await source().read(claimed("0000:3b:00.2")) == ()
    assert [asked.partition("?")[2].partition("&")[0] for asked in apis.asked if asked.startswith(PORTS)] == [
        "limit=1000",
        "limit=100",
    ]
    apis.asked.clear()
    assert len(await source(every_host=True).read(claimed("0000:3b:00.3"))) == 2
    assert [a for a in apis.asked if "limit=100&" in a] == [], "it is among those that are listed"


@pytest.mark.parametrize("role", ["admin", "Admin"])
async def test_an_administrator_sees_all(
    apis: Apis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    sign_in(apis, monkeypatch, tmp_path, "reader", role)
    apis.answers[PORTS] = {"ports": []}
    assert await source().read(claimed("0000:3b:00.2")) == ()
    assert len([a for a in apis.asked if a.startswith(PORTS)]) == 1


async def test_without_keystone_everybody_is_an_administrator(apis: Apis) -> None:
    apis.answers[PORTS] = {"ports": []}
    assert await source().read(claimed("0000:3b:00.2")) == ()


@pytest.mark.parametrize(
    "world",
    [
        pytest.param(
            replace(WORLD, applicable=frozenset({CELL1})).with_part(CELL1, Absent("not asked yet", 0.0, 0.0)),
            id="Nova is not asked yet",
        ),
        pytest.param(claimed(), id="no claims"),
        pytest.param(claimed("0000:3b:00.2", flavour=True), id="a flavour's"),
        pytest.param(claimed("0000:3b:00.2", host="compute-2"), id="another host's"),
        pytest.param(claimed("0000:3b:00.2", status="available"), id="given to nobody"),
    ],
)
async def test_where_nova_claims_nothing_no_port_is_missed(
    apis: Apis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    sign_in(apis, monkeypatch, tmp_path, "member")
    apis.answers[PORTS] = {"ports": []}
    assert await source().read(world) == ()


SILENT = Absent("Connection refused", 0.0, 0.0, Reason.REFUSED)


@pytest.mark.parametrize(
    "world",
    [
        pytest.param(WORLD, id="no cell is configured"),
        pytest.param(replace(claimed("0000:3b:00.2"), applicable=frozenset()), id="not here"),
        pytest.param(replace(WORLD, applicable=frozenset({CELL1})).with_part(CELL1, SILENT), id="no cell answers"),
    ],
)
async def test_without_novas_claims_the_list_itself_must_be_known_to_be_whole(
    apis: Apis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    sign_in(apis, monkeypatch, tmp_path, "member")
    apis.answers[PORTS] = by_host([OWN, NOBODYS])
    with pytest.raises(SourceError, match="no port of another project is seen: who asks") as caught:
        await source().read(world)
    assert caught.value.reason is Reason.PERMISSION
    apis.answers[PORTS] = by_host([OWN, OTHERS])
    assert await source().read(world) == ()


async def test_nor_where_each_claim_has_its_port(apis: Apis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sign_in(apis, monkeypatch, tmp_path, "member")
    apis.answers[PORTS] = {"ports": [row("p", project_id="own")]}
    assert len(await source().read(claimed("0000:3b:00.2"))) == 1


async def test_only_what_is_needed_is_asked_for_of_one_host_or_all(apis: Apis) -> None:
    apis.answers[PORTS] = {"ports": []}
    assert await source().read(WORLD) == ()
    assert await source(every_host=True).read(WORLD) == ()
    fields = "".join(f"&fields={quote(f)}" for f in neutron._FIELDS)
    page = f"{PORTS}?limit=1000&sort_key=id&sort_dir=asc{fields}"
    assert apis.asked == [f"{page}&binding%3Ahost_id=compute-1", page]


async def test_twenty_thousand_ports(apis: Apis) -> None:
    apis.answers[PORTS] = Ports([row(f"{n:06}") for n in range(20_000)])
    found = await source(every_host=True).read(WORLD)
    assert [port.uuid for port in found] == [f"{n:06}" for n in range(20_000)]
    assert len(apis.asked) == 21


async def test_a_service_that_gives_smaller_pages_than_were_asked_for(
    apis: Apis, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = Ports([row(f"{n}") for n in range(7)])

    def at_most_two(request: web.Request) -> Any:
        answer = ports(request)
        more = [{"rel": "next", "href": "http://elsewhere"}] if len(answer["ports"]) > 2 else []
        return {"ports": answer["ports"][:2], "ports_links": more}

    apis.answers[PORTS] = at_most_two
    monkeypatch.setattr(lists, "PAGE", 5)
    assert len(await source().read(WORLD)) == 7


async def test_a_port_deleted_between_two_pages(apis: Apis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "PAGE", 3)
    apis.answers[PORTS] = Ports([row(f"{n}") for n in range(8)], gone=["2"])
    assert [port.uuid for port in await source().read(WORLD)] == ["0", "1", "3", "4", "5", "6", "7"]


async def test_where_that_goes_on_it_gives_up(apis: Apis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "PAGE", 3)
    apis.answers[PORTS] = Ports([row(f"{n}") for n in range(9)], gone=["2", "3", "4"])
    with pytest.raises(SourceError, match="the last one of a page was deleted 3 times") as caught:
        await source().read(WORLD)
    assert caught.value.reason is Reason.ANSWERED_ERROR


async def test_an_end_without_end(apis: Apis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "PAGE", 2)
    monkeypatch.setattr(lists, "_MOST", 10)
    turn = iter(range(1000))
    apis.answers[PORTS] = lambda _: {"ports": [row(f"{next(turn)}"), row(f"{next(turn)}")]}
    with pytest.raises(SourceError) as caught:
        await source().read(WORLD)
    assert caught.value.reason is Reason.TOO_LARGE


async def test_a_service_that_ignores_the_marker(apis: Apis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "PAGE", 1)
    apis.answers[PORTS] = {"ports": [row("a")]}
    assert len(await source().read(WORLD)) == 1


async def test_an_error_is_the_sources(apis: Apis) -> None:
    apis.answers[PORTS] = lambda _: web.Response(status=500, text="boom")
    with pytest.raises(SourceError, match="HTTP 500: boom"):
        await source().read(WORLD)


def test_another_hostname_is_another_question() -> None:
    assert source().question(WORLD) == "compute-1"
    assert source(every_host=True).question(WORLD) is None
