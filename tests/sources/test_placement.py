"""Placement's ledger, from a stand-in that counts what is asked; a real one: tests/e2e/test_vfs.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from mecexporter.errors import Reason, SourceError
from mecexporter.sources import placement
from mecexporter.sources.placement import PlacementSource
from mecexporter.sources.wire.cloud import Cloud
from mecexporter.state.openstack import Provider, Stock
from mecexporter.state.world import Settings, empty_world
from tests.sources.apis import Apis, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FIXTURES = Path(__file__).parents[1] / "fixtures/openstack"
WORLD = empty_world(0.0, "compute-1", Settings())
CLASS = "CUSTOM_PCI_15B3_101E"
LIST = "/placement/resource_providers"


@pytest.fixture(name="apis")
async def the_apis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Apis]:
    async with serve() as apis:
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(apis.clouds(tmp_path)))
        yield apis


class Tree:
    """Providers with inventories and allocations."""

    def __init__(self, apis: Apis) -> None:
        self.apis = apis
        self.rows: dict[str, dict[str, Any]] = {}
        apis.answers[LIST] = lambda _: {"resource_providers": list(self.rows.values())}

    def add(self, uuid: str, name: str, total: int = 8, used: int = 0, resource: str = CLASS) -> None:
        self.rows[uuid] = {
            "uuid": uuid,
            "name": name,
            "generation": self.rows.get(uuid, {"generation": 0})["generation"] + 1,
        }
        inventories = {resource: {"total": total, "reserved": 1}, "VCPU": {"total": 64, "reserved": 0}}
        given = {f"vm-{n}": {"resources": {resource: 1, "VCPU": 4}} for n in range(used)}
        self.apis.answers[f"{LIST}/{uuid}/inventories"] = {"inventories": inventories}
        self.apis.answers[f"{LIST}/{uuid}/allocations"] = {"allocations": given}


def source(*classes: str, every_host: bool = False) -> PlacementSource:
    return PlacementSource(Cloud("test"), every_host=every_host, classes=frozenset(classes), interval=300)


async def test_providers_of_this_host(apis: Apis) -> None:
    tree = Tree(apis)
    tree.add("rp-1", "compute-1_0000:3B:00.0", used=2)
    tree.add("rp-2", "compute-1.example.org_0000:3B:00.1")
    tree.add("rp-3", "compute-10_0000:3B:00.0")
    found = await source().read(WORLD)
    stock = {CLASS: Stock(total=8, reserved=1, used=2)}
    assert found[0] == Provider(
        uuid="rp-1", name="compute-1_0000:3B:00.0", host="compute-1", pf="0000:3b:00.0", stock=stock
    )
    assert [p.uuid for p in found] == ["rp-1", "rp-2"], "a hypervisor's hostname may have its domain"
    assert apis.asked[0] == f"{LIST}?required=COMPUTE_MANAGED_PCI_DEVICE"


@pytest.mark.parametrize("release", ["debian", "newest"])
async def test_what_a_real_placement_answered(apis: Apis, release: str) -> None:
    def recorded(name: str) -> Any:
        return json.loads((FIXTURES / release / f"placement_{name}.json").read_text())

    rows = recorded("resource_providers")["resource_providers"]
    apis.answers[LIST] = {"resource_providers": rows}
    for row in rows:
        for what in ("inventories", "allocations"):
            apis.answers[f"{LIST}/{row['uuid']}/{what}"] = recorded(what)
    found = await source(every_host=True).read(WORLD)
    assert {(p.host, p.pf) for p in found} == {(f"compute-{n}.example.org", "0000:3b:00.0") for n in (1, 2)}
    assert [list(p.stock.values()) for p in found] == 2 * [[Stock(total=6, reserved=0, used=2)]]


async def test_providers_of_all_hosts(apis: Apis) -> None:
    tree = Tree(apis)
    for n in range(5):
        tree.add(f"rp-{n}", f"compute-{n}_0000:3B:00.0")
    assert len(await source(every_host=True).read(WORLD)) == 5


async def test_only_what_changed_is_asked_for_again(apis: Apis) -> None:
    tree = Tree(apis)
    for n in range(5):
        tree.add(f"rp-{n}", f"compute-1_0000:3B:00.{n}")
    one = source()
    await one.read(WORLD)
    apis.asked.clear()
    assert len(await one.read(WORLD)) == 5
    assert len(apis.asked) == 1
    tree.add("rp-3", "compute-1_0000:3B:00.3", used=7)
    del tree.rows["rp-4"]
    found = {p.uuid: p.stock[CLASS].used for p in await one.read(WORLD)}
    assert found == {"rp-0": 0, "rp-1": 0, "rp-2": 0, "rp-3": 7}
    assert len(apis.asked) == 1 + 3


async def test_classes_of_the_operators_own(apis: Apis) -> None:
    tree = Tree(apis)
    tree.add("rp-1", "compute-1", resource="CUSTOM_VF")
    tree.add("rp-2", "compute-1_0000:3B:00.0", resource="SRIOV_NET_VF")
    assert [p.uuid for p in await source().read(WORLD)] == ["rp-2"]
    found = await source("CUSTOM_VF").read(WORLD)
    stock = Stock(total=8, reserved=1, used=0)
    assert [(p.name, p.host, p.pf, p.stock) for p in found] == [
        ("compute-1", "compute-1", None, {"CUSTOM_VF": stock}),
        ("compute-1_0000:3B:00.0", "compute-1", "0000:3b:00.0", {"SRIOV_NET_VF": stock}),
    ]
    assert LIST in apis.asked, "such providers bear no trait: all are looked at"


async def test_each_class_is_counted_by_itself(apis: Apis) -> None:
    Tree(apis).add("rp-1", "compute-1_0000:3B:00.0")
    both = {CLASS: {"total": 8, "reserved": 0}, "CUSTOM_VF": {"total": 2, "reserved": 1}}
    apis.answers[f"{LIST}/rp-1/inventories"] = {"inventories": both}
    of_vm = {"resources": {"CUSTOM_VF": 3, "CUSTOM_PCI_GONE": 1}}
    apis.answers[f"{LIST}/rp-1/allocations"] = {"allocations": {"vm-1": of_vm, "vm-2": {"resources": {CLASS: 1}}}}
    (found,) = await source("CUSTOM_VF").read(WORLD)
    assert found.stock == {
        CLASS: Stock(total=8, reserved=0, used=1),
        "CUSTOM_VF": Stock(total=2, reserved=1, used=3),
        "CUSTOM_PCI_GONE": Stock(total=0, reserved=0, used=1),
    }
    assert found.overdrawn.keys() == {"CUSTOM_VF", "CUSTOM_PCI_GONE"}


async def test_a_provider_without_vfs_is_none(apis: Apis) -> None:
    Tree(apis).add("rp-1", "compute-1", resource="PCPU")
    assert await source("CUSTOM_VF").read(WORLD) == ()


async def test_a_provider_deleted_since_it_was_listed(apis: Apis) -> None:
    tree = Tree(apis)
    tree.add("rp-1", "compute-1_0000:3B:00.0")
    apis.answers[f"{LIST}/rp-1/allocations"] = lambda _: web.Response(status=404)
    assert await source().read(WORLD) == ()


async def test_thousands_of_providers_are_read_by_and_by(apis: Apis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "_MOST_AT_ONCE", 2)
    tree = Tree(apis)
    for n in range(5):
        tree.add(f"rp-{n}", f"compute-1_0000:3B:00.{n}")
    one = source()
    for rest in (3, 1):
        with pytest.raises(SourceError, match=f"{rest} of 5 providers are still to be read"):
            await one.read(WORLD)
    assert len(await one.read(WORLD)) == 5


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        (LIST, {"resource_providers": None}),
        (f"{LIST}/rp-1/inventories", {"inventories": []}),
        (f"{LIST}/rp-1/inventories", {"inventories": {CLASS: {"total": "8"}}}),
        (f"{LIST}/rp-1/allocations", []),
        (f"{LIST}/rp-1/allocations", {"allocations": {"vm": {"resources": None}}}),
        (f"{LIST}/rp-1/allocations", {"allocations": {"vm": {"resources": {CLASS: "1"}}}}),
        (f"{LIST}/rp-1/inventories", {"inventories": {CLASS: {"total": True, "reserved": 0}}}),
    ],
)
async def test_answers_of_another_form(apis: Apis, path: str, answer: Any) -> None:
    Tree(apis).add("rp-1", "compute-1_0000:3B:00.0")
    apis.answers[path] = answer
    with pytest.raises(SourceError) as caught:
        await source().read(WORLD)
    assert caught.value.reason is Reason.GARBAGE


async def test_a_failure_half_way_loses_nothing(apis: Apis) -> None:
    tree = Tree(apis)
    for n in range(2):
        tree.add(f"rp-{n}", f"compute-1_0000:3B:00.{n}")
    apis.answers[f"{LIST}/rp-1/allocations"] = lambda _: web.Response(status=503)
    one = source()
    with pytest.raises(SourceError, match="HTTP 503"):
        await one.read(WORLD)
    tree.add("rp-1", "compute-1_0000:3B:00.1")
    apis.asked.clear()
    assert len(await one.read(WORLD)) == 2
    assert len(apis.asked) == 3
