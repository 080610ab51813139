"""Groups that name GRE, from a stand-in; a real Neutron's: tests/e2e/test_security_groups.py."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.security_groups import SecurityGroupsSource
from mecexporter.sources.wire import lists
from mecexporter.sources.wire.cloud import Cloud
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.openstack import Port, SecurityGroup
from mecexporter.state.world import Settings, World, empty_world
from tests.sources.apis import Apis, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NETWORK = "/network/v2.0"


class Groups:
    """A Neutron with some groups; ``shown`` are those that the caller may see.

    most: rows in one answer, as ``pagination_max_limit`` has it.
    """

    def __init__(self, apis: Apis, most: int = 1000) -> None:
        self.groups: dict[str, dict[str, Any]] = {}
        self.rules: list[tuple[str, str | None]] = []
        self.ports: dict[str, tuple[str, ...]] = {}
        self.hidden: set[str] = set()
        self.most = most
        apis.answers[f"{NETWORK}/security-groups"] = self._list_groups
        apis.answers[f"{NETWORK}/security-group-rules"] = self._list_rules
        apis.answers[f"{NETWORK}/ports"] = self._list_ports

    def add(self, uuid: str, *protocols: str | None, **values: Any) -> str:
        self.groups[uuid] = {"id": uuid, "name": f"{uuid}'s", "project_id": "p", "stateful": True} | values
        self.rules += [(uuid, protocol) for protocol in protocols]
        return uuid

    def _list_groups(self, request: web.Request) -> Any:
        wanted = (self.groups[g] for g in request.query.getall("id") if g in self.groups and g not in self.hidden)
        return {"security_groups": list(wanted)[: self.most]}

    def _list_rules(self, request: web.Request) -> Any:
        of, protocols = request.query.getall("security_group_id"), request.query.getall("protocol")
        rows = [{"security_group_id": g} for g, p in self.rules if g in of and p in protocols and g not in self.hidden]
        return {"security_group_rules": rows[: self.most]}

    def _list_ports(self, request: web.Request) -> Any:
        wanted = (p for p in request.query.getall("id") if p in self.ports)
        return {"ports": [{"id": p, "security_groups": list(self.ports[p])} for p in wanted]}


@pytest.fixture(name="apis")
async def the_apis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Apis]:
    async with serve() as apis:
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(apis.clouds(tmp_path)))
        yield apis


@pytest.fixture(name="neutron")
def a_neutron(apis: Apis) -> Groups:
    return Groups(apis)


def world(*ports: Port) -> World:
    return empty_world(0.0, "compute-1", Settings()).with_part("neutron", Fresh(ports, 0.0))


def port(uuid: str, *groups: str, **changes: Any) -> Port:
    made = Port(uuid=uuid, host="compute-1", address="0000:3b:00.2", instance="vm", vnic="direct", project="p",
                groups=groups, switched=True)  # fmt: skip
    return replace(made, **changes)


async def read(*ports: Port) -> tuple[SecurityGroup, ...]:
    return await SecurityGroupsSource(Cloud("test"), interval=300).read(world(*ports))


def asked(apis: Apis, what: str) -> list[str]:
    return [path for path in apis.asked if path.startswith(f"{NETWORK}/{what}?")]


async def test_groups_that_name_gre_by_name_or_number(neutron: Groups) -> None:
    neutron.add("by-name", "tcp", "gre", "gre")
    neutron.add("by-number", "47", stateful=False)
    neutron.add("any", None, "tcp")
    neutron.add("elsewhere", "gre")
    assert await read(port("a", "any", "by-name"), port("b", "by-number")) == (
        SecurityGroup(uuid="by-name", name="by-name's", project="p", stateful=True),
        SecurityGroup(uuid="by-number", name="by-number's", project="p", stateful=False),
    )


async def test_a_neutron_without_stateless_groups(apis: Apis, neutron: Groups) -> None:
    """ML2/OVN before Yoga leaves the attribute out: all groups are stateful."""
    neutron.add("g", "gre")
    del neutron.groups["g"]["stateful"]
    (group,) = await read(port("a", "g"))
    assert group.stateful is None
    assert group.tracked
    assert not asked(apis, "ports")


async def test_nothing_is_asked_without_a_port_that_a_nic_carries(apis: Apis) -> None:
    assert await read(port("legacy", "g", switched=False), port("bare")) == ()
    assert apis.asked == []


async def test_rules_are_asked_for_by_protocol_and_groups_only_where_they_count(apis: Apis, neutron: Groups) -> None:
    for n in range(120):
        neutron.add(f"g{n:03}", "gre" if n % 60 == 7 else "tcp")
    assert [g.uuid for g in await read(*(port(f"{n}", f"g{n:03}") for n in range(120)))] == ["g007", "g067"]
    first = asked(apis, "security-group-rules")[0]
    assert first.startswith(f"{NETWORK}/security-group-rules?protocol=gre&protocol=47&fields=security_group_id&")
    assert first.count("security_group_id=g") == lists.AT_ONCE
    assert len(first) < 4096 - 1024, "the rest of the head needs room too"
    # Fifty, those of them without an answer where one came, fifty, the same, and twenty.
    assert len(asked(apis, "security-group-rules")) == 5
    assert len(asked(apis, "security-groups")) == 1, "with one more of the project"


async def test_a_service_that_gives_less_than_was_asked_for(apis: Apis) -> None:
    neutron = Groups(apis, most=2)
    groups = [neutron.add(f"g{n}", "gre", "47", "gre") for n in range(5)]
    assert [g.uuid for g in await read(port("a", *groups))] == groups


async def test_groups_that_we_may_not_see_are_no_lack_of_gre(neutron: Groups) -> None:
    """Rules of others are left out without an error."""
    neutron.add("ours")
    neutron.add("theirs", "gre", project_id="q")
    neutron.hidden.add("theirs")
    ports = (port("a", "ours"), port("b", "theirs", project="q"))
    neutron.ports = {p.uuid: p.groups for p in ports}
    with pytest.raises(SourceError, match="group theirs of a port is not shown: who asks must see") as caught:
        await read(*ports)
    assert caught.value.reason is Reason.PERMISSION


@pytest.mark.parametrize("now", [{}, {"b": ()}], ids=["deleted port", "port without it"])
async def test_a_group_that_was_deleted_meanwhile(neutron: Groups, now: dict[str, tuple[str, ...]]) -> None:
    neutron.add("kept", "gre")
    neutron.ports = {"a": ("kept",), **now}
    assert [g.uuid for g in await read(port("a", "kept"), port("b", "gone", project="q"))] == ["kept"]


async def test_without_ports_it_has_no_answer_either(apis: Apis) -> None:
    lost = world().with_part("neutron", Absent("HTTP 500", 0.0, 1.0, Reason.ANSWERED_ERROR))
    source = SecurityGroupsSource(Cloud("test"), interval=300)
    with pytest.raises(SourceError, match="no answer from neutron") as caught:
        await source.read(lost)
    assert caught.value.reason is Reason.ANSWERED_ERROR
    assert source.question(lost) is None
    assert apis.asked == []


@pytest.mark.parametrize("what", ["security-groups", "security-group-rules"])
async def test_an_error_is_the_sources(apis: Apis, neutron: Groups, what: str) -> None:
    neutron.add("g", "gre")
    apis.answers[f"{NETWORK}/{what}"] = lambda _: web.Response(status=500, text="boom")
    with pytest.raises(SourceError, match=f"/{what}: HTTP 500: boom"):
        await read(port("a", "g"))


@pytest.mark.parametrize("row", [{}, {"security_group_id": ["g"]}, {"security_group_id": None}])
async def test_rows_of_another_form_name_nothing(apis: Apis, neutron: Groups, row: dict[str, Any]) -> None:
    neutron.add("g", "gre")
    apis.answers[f"{NETWORK}/security-group-rules"] = {"security_group_rules": [row]}
    assert await read(port("a", "g")) == ()


def test_another_group_is_another_question() -> None:
    source = SecurityGroupsSource(Cloud("test"), interval=300)
    first, other = world(port("a", "g", "h"), port("b", "g")), world(port("a", "g"))
    assert source.question(first) == frozenset({"g", "h"})
    assert source.question(first) is source.question(first)
    assert source.question(other) == frozenset({"g"})
