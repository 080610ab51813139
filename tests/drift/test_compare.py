"""Neutron's objects against Northbound's rows: every kind of drift, and all that is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mecexporter.drift.compare import compare, numbers
from mecexporter.state.neutron_ovn import Resource
from tests.drift.looks import (
    Row,
    dhcp,
    floating_ip,
    group,
    nat,
    neutron,
    northbound,
    other,
    port,
    subnet,
    switch_port,
    told,
    uuid,
)

SG, OTHER_SG = 200, 201


def of_port(order: Row, row: Row | None, *groups: Row) -> set[tuple[str, str]]:
    """State and columns of a port's drift."""
    held = northbound(Logical_Switch_Port=[row] if row else [], Port_Group=list(groups))
    ids = [{"id": uuid(int(g["_uuid"].rpartition("-")[2]))} for g in groups]
    return {(str(d.state), d.what) for d in compare(neutron(ports=[order], security_groups=ids), held)}


@pytest.mark.parametrize(
    ("changes", "drift"),
    [
        ({}, set()),
        ({"revision": 2}, {("behind", "")}),
        ({"revision": 9}, {("ahead", "")}),
        ({"addresses": ("fa:16:3e:00:00:01 10.0.0.99",)}, {("changed", "addresses")}),
        ({"addresses": ("fa:16:3e:ff:ff:ff 10.0.0.1",)}, {("changed", "addresses")}),
        ({"addresses": ("fa:16:3e:00:00:01",)}, {("changed", "addresses")}),
        ({"addresses": ()}, {("changed", "addresses")}),
        ({"addresses": ("FA:16:3E:00:00:01 10.0.0.1",)}, set()),
        ({"addresses": ("fa:16:3e:00:00:01 10.0.0.1", "unknown")}, {("changed", "addresses")}),
        ({"enabled": False}, {("changed", "admin state")}),
        ({"enabled": None}, set()),
        ({"enabled": False, "addresses": ("unknown",)}, {("changed", "admin state, addresses")}),
        ({"revision": 2, "enabled": False}, {("behind", "")}),
    ],
)
def test_a_port_by_revision_and_content(changes: dict[str, Any], drift: set[tuple[str, str]]) -> None:
    assert of_port(port(1), switch_port(1, **changes)) == drift


@pytest.mark.parametrize(
    ("order", "row"),
    [
        # Metadata ports are not secured, and their row has no ``unknown``.
        ({"device_owner": "network:distributed", "port_security_enabled": False}, {"type": "localport"}),
        ({"port_security_enabled": False}, {"addresses": ("fa:16:3e:00:00:01 10.0.0.1", "unknown")}),
        # Neutron 29, where no DHCP serves the port.
        ({"port_security_enabled": False}, {"addresses": ("unknown",)}),
        (
            {"allowed_address_pairs": [{"mac_address": "00:00:5E:00:01:01", "ip_address": "10.0.0.200"}]},
            {"addresses": ("00:00:5e:00:01:01", "fa:16:3e:00:00:01 10.0.0.1")},
        ),
        ({"fixed_ips": []}, {"addresses": ("fa:16:3e:00:00:01",)}),
        ({"name": "ovn-lb-vip-1", "device_owner": ""}, {"addresses": ()}),
        ({"admin_state_up": False}, {"enabled": False}),
        (
            {"fixed_ips": [{"ip_address": "10.0.0.1"}, {"ip_address": "10.0.0.2"}]},
            {"type": "virtual", "addresses": ("fa:16:3e:00:00:01 10.0.0.1",)},
        ),
        ({}, {"type": "vtep", "addresses": ("unknown",)}),
        ({"port_security_enabled": False, "security_groups": []}, {"addresses": ("unknown",)}),
        # Older rows carry fewer ids, or no revision.
        ({}, {"external_ids": {"neutron:port_name": ""}}),
        # What Neutron trusts is in no group.
        ({"device_owner": "network:dhcp", "security_groups": [uuid(SG)]}, {}),
        # That its group is missing is said once.
        ({"security_groups": [uuid(SG)]}, {}),
    ],
)
def test_what_is_no_drift_of_a_port(order: dict[str, Any], row: dict[str, Any]) -> None:
    assert of_port(port(1, **order), switch_port(1, **row)) == set()


def test_the_groups_of_a_port() -> None:
    both = port(1, security_groups=[uuid(SG), uuid(OTHER_SG)])
    assert of_port(both, switch_port(1), group(SG, 1), group(OTHER_SG, 1, 2)) == set()
    assert of_port(both, switch_port(1), group(SG, 1), group(OTHER_SG, 2)) == {("changed", "security groups")}
    assert of_port(port(1), switch_port(1), group(SG, 1)) == {("changed", "security groups")}


def test_a_routers_port_is_one_object_of_two_rows() -> None:
    order = neutron(ports=[port(1, device_owner="network:router_interface")])
    lsp, name = switch_port(1, type="router", addresses=("router",)), f"lrp-{uuid(1)}"

    def verdict(*rows: Row, lrp: Row | None = None) -> set[tuple[str, tuple[str, ...]]]:
        held = northbound(Logical_Switch_Port=list(rows), Logical_Router_Port=[lrp] if lrp else [])
        return {(str(d.state), d.rows) for d in compare(order, held)}

    assert verdict(lsp, lrp=other(name)) == set()
    assert verdict(lsp) == {("missing", ("Logical_Router_Port",))}
    assert verdict(lrp=other(name)) == {("missing", ("Logical_Switch_Port",))}
    assert verdict(lsp, lrp=other(name, 2)) == {("behind", ("Logical_Router_Port",))}
    assert verdict(switch_port(1, revision=9), lrp=other(name, 2)) == {("ahead", ("Logical_Switch_Port",))}
    order = neutron()
    assert verdict(lsp, lrp=other(name)) == {("extra", ("Logical_Router_Port", "Logical_Switch_Port"))}
    assert verdict(lsp) == {("extra", ("Logical_Switch_Port",))}
    assert verdict(lrp=other(name)) == {("extra", ("Logical_Router_Port",))}


def test_rows_that_are_none_of_neutrons_business() -> None:
    foreign = {"_uuid": "row", "external_ids": {"owner": "me"}}
    held = northbound(
        Logical_Switch=[other("neutron-not-an-id"), {**foreign, "name": f"neutron-{uuid(9)}"}, other("transit")],
        Logical_Router=[{**foreign, "name": "octavia"}],
        Logical_Router_Port=[{**foreign, "name": f"lrp-{uuid(9)}"}],
        Logical_Switch_Port=[
            switch_port(9, name=f"provnet-{uuid(9)}", type="localnet"),
            switch_port(9, external_ids={}),
        ],
        Port_Group=[
            *({**group(9, 1), "name": f"{name}_pg_drop"} for name in ("neutron", "pvlan")),
            {**group(9, 1), "external_ids": {}},
        ],
    )
    assert told(neutron(), held) == set()


def test_objects_that_have_no_row() -> None:
    order = neutron(
        routers=[{"id": uuid(1), "revision_number": 1, "flavor_id": uuid(7)}],
        subnets=[
            subnet(11, enable_dhcp=False),
            subnet(12, ip_version=6, ipv6_address_mode="slaac"),
        ],
        floatingips=[
            floating_ip(21, port_id=None, router_id=None, fixed_ip_address=None),
            floating_ip(22, port_id=None, fixed_ip_address=None),  # it forwards single ports
            floating_ip(23, router_id=uuid(1)),
        ],
        ports=[
            port(2, device_owner="network:floatingip"),
            port(3, device_owner="network:router_interface", device_id=uuid(1)),
        ],
    )
    assert told(order, northbound(Logical_Switch_Port=[switch_port(3)])) == set()
    assert numbers(order) == dict.fromkeys(Resource, 0) | {Resource.PORT: 1}


def test_subnets_with_dhcp() -> None:
    order = neutron(subnets=[subnet(1), subnet(2, ip_version=6, ipv6_address_mode="dhcpv6-stateful"), subnet(3)])
    held = northbound(DHCP_Options=[dhcp(1), dhcp(1, 0, port_id=uuid(9)), dhcp(2, 1), dhcp(4)])
    assert told(order, held) == {
        ("subnet", uuid(2), "behind"), ("subnet", uuid(3), "missing"), ("subnet", uuid(4), "extra"),
    }  # fmt: skip


def test_floating_ips_by_content() -> None:
    order = neutron(floatingips=[floating_ip(1), floating_ip(2), floating_ip(3)])
    snat = {"_uuid": "snat", "external_ids": {}, "external_ip": "203.0.113.9", "logical_ip": "10.0.0.0/24"}
    held = northbound(NAT=[nat(1), nat(2, logical_ip="10.0.0.77"), nat(3, 9), nat(4), snat])
    assert told(order, held) == {
        ("floating_ip", uuid(2), "changed"), ("floating_ip", uuid(3), "ahead"), ("floating_ip", uuid(4), "extra"),
    }  # fmt: skip


# A site of random objects, of which each is given its state first: what must be told follows from that alone.


@dataclass
class Thing:
    kind: str
    state: str
    ordered: int
    step: int
    noise: bool


THINGS = st.lists(
    st.builds(
        Thing,
        kind=st.sampled_from([str(resource) for resource in Resource]),
        state=st.sampled_from(["in_sync", "missing", "extra", "behind", "ahead", "changed"]),
        ordered=st.integers(10, 20),
        step=st.integers(1, 9),
        noise=st.booleans(),
    ),
    max_size=40,
)


def written(thing: Thing, number: int) -> tuple[dict[str, list[Row]], dict[str, list[Row]], str]:
    """Its row of the API, its rows of Northbound, and the state that these can show: groups have no revision."""
    state = thing.state
    if thing.kind == "security_group" and state in ("behind", "ahead", "changed"):
        state = "in_sync"
    if thing.kind not in ("port", "floating_ip") and state == "changed":
        state = "in_sync"
    held = thing.ordered + {"behind": -thing.step, "ahead": thing.step}.get(state, 0)
    lists: dict[str, list[Row]] = {}
    tables: dict[str, list[Row]] = {}
    plain = {"id": uuid(number), "revision_number": thing.ordered}
    if thing.kind == "network":
        lists["networks"], tables["Logical_Switch"] = [plain], [other(f"neutron-{uuid(number)}", held)]
    elif thing.kind == "router":
        lists["routers"], tables["Logical_Router"] = [plain], [other(f"neutron-{uuid(number)}", held)]
    elif thing.kind == "security_group":
        lists["security_groups"], tables["Port_Group"] = [{"id": uuid(number)}], [group(number)]
    elif thing.kind == "subnet":
        lists["subnets"], tables["DHCP_Options"] = [subnet(number, thing.ordered)], [dhcp(number, held)]
    elif thing.kind == "floating_ip":
        off = {"external_ip" if thing.noise else "logical_ip": "192.0.2.1"} if state == "changed" else {}
        lists["floatingips"], tables["NAT"] = [floating_ip(number, thing.ordered)], [nat(number, held, **off)]
    elif thing.kind == "port":
        lists["ports"] = [port(number, revision_number=thing.ordered)]
        content = {"enabled": False} if thing.noise else {"addresses": ("fa:16:3e:00:00:ff",)}
        changed = content if state == "changed" or state in ("behind", "ahead") else {}
        tables["Logical_Switch_Port"] = [switch_port(number, revision=held, **changed)]
    else:
        lists["ports"] = [port(number, revision_number=thing.ordered, device_owner="network:router_gateway")]
        # One of the two rows is off; of one that is gone, it may be either.
        first, second = (held, thing.ordered) if thing.noise else (thing.ordered, held)
        tables["Logical_Switch_Port"] = [switch_port(number, revision=first, type="router", addresses=("router",))]
        tables["Logical_Router_Port"] = [other(f"lrp-{uuid(number)}", second)]
    if state == "extra":
        lists = {}
    if state == "missing":
        gone = sorted(tables)[0 if thing.noise else -1]
        tables[gone] = []
    return lists, tables, state


@given(THINGS)
def test_each_object_of_a_random_site_is_told_by_its_state(things: list[Thing]) -> None:
    lists: dict[str, list[Row]] = {}
    tables: dict[str, list[Row]] = {}
    expected = set()
    for number, thing in enumerate(things, 1):
        of_lists, of_tables, state = written(thing, number)
        for target, source in ((lists, of_lists), (tables, of_tables)):
            for name, rows in source.items():
                target.setdefault(name, []).extend(rows)
        if state != "in_sync":
            expected.add((thing.kind, uuid(number), state))
    order = neutron(**lists)
    assert told(order, northbound(**tables)) == expected
    there = [thing.kind for thing in things if thing.state != "extra"]
    assert numbers(order) == {resource: there.count(resource) for resource in Resource}
