"""What it costs to read the VFs' ledgers of a whole site, and to put them side by side.

Neutron and Placement are a stand-in at full size, on this machine and outside the process that is measured; Nova's cell
is a sqlite file. What real services need to answer is theirs, and not in these figures.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import resource
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from mecexporter.checks.offload_gre_stateful import gre_ports
from mecexporter.checks.vfs import drifts
from mecexporter.sources.neutron import NeutronSource
from mecexporter.sources.nova import NovaSource
from mecexporter.sources.placement import PlacementSource
from mecexporter.sources.security_groups import SecurityGroupsSource
from mecexporter.sources.wire.cloud import Cloud
from mecexporter.state.observed import Fresh
from mecexporter.state.world import Settings, empty_world
from tests.bench.measure import Row
from tests.sources.apis import serve
from tests.sources.daemons import short_dir
from tests.sources.nova_rows import Rows

if TYPE_CHECKING:
    from pathlib import Path

    from aiohttp import web

    from tests.sources.apis import Apis

PFS, VFS = 2, 64
CLASS = "CUSTOM_PCI_15B3_101E"
CHANGED = 5
"""PFs that a VF was taken of between two polls."""


GROUPS, NAMING = 10_000, 50
"""Security groups of the ports, and of how many one names GRE."""


class Cost(NamedTuple):
    """CPU seconds of a first and of a later poll of each ledger, of the judgement, and bytes of memory at most."""

    placement: float
    neutron: float
    groups: float
    nova: float
    judged: float
    resident: int


def on_a_site(hosts: int = 300, ports: int = 100_000) -> list[Row]:
    """All three ledgers with ``scope: all``."""
    with short_dir() as directory:
        asked, of_groups, cost = asyncio.run(_measure(directory, hosts, ports))
    size = f"{hosts} hosts x {PFS} PFs x {VFS} VFs"
    return [
        Row("poll of Placement, requests", str(asked), f"{1 + 2 * CHANGED}", f"{size}, {CHANGED} PFs changed"),
        Row("poll of Placement, CPU", f"{cost.placement:.2f} s", "", "the same"),
        Row("poll of Neutron, CPU", f"{cost.neutron:.2f} s", "", f"{ports:,} ports listed"),
        Row("poll of security groups, requests", str(of_groups), "", f"{GROUPS:,} groups, one of {NAMING} names GRE"),
        Row("poll of security groups, CPU", f"{cost.groups:.2f} s", "", "the same, and their ports told"),
        Row("poll of Nova's cell, CPU", f"{cost.nova:.2f} s", "", size),
        Row("VFs judged, CPU", f"{cost.judged:.2f} s", "", "once for all checks"),
        Row("ledgers, RSS", f"{cost.resident / 2**20:.0f} MiB", "256 MiB", "at most, all three read and judged"),
    ]


async def _measure(directory: Path, hosts: int, ports: int) -> tuple[int, int, Cost]:
    url = _cell(directory, hosts)
    async with serve() as apis:
        site = _Site(apis, hosts, ports)
        clouds = apis.clouds(directory)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            cost: Cost = await asyncio.to_thread(pool.apply, poll, (str(clouds), url, f"{apis.url}/change"))
    return site.requests, sum("/security-group" in path for path in apis.asked), cost


def poll(clouds: str, url: str, change: str) -> Cost:
    """In a process of its own."""
    os.environ["OS_CLIENT_CONFIG_FILE"] = clouds
    return asyncio.run(_poll(url, change))


async def _poll(url: str, change: str) -> Cost:
    from aiohttp import ClientSession  # noqa: PLC0415  # not the exporter's, and not to be counted as such

    cloud = Cloud("test")
    placement = PlacementSource(cloud, every_host=True, classes=frozenset(), interval=300)
    neutron = NeutronSource(cloud, every_host=True, interval=300)
    groups = SecurityGroupsSource(cloud, interval=300)
    nova = NovaSource("cell1", url, every_host=True, interval=300, down_after=60)
    world = empty_world(0.0, "controller", Settings())
    await placement.read(world)
    async with ClientSession() as session:
        await session.post(change)
    spent: list[float] = []
    world = replace(world, applicable=frozenset({"neutron", "placement", nova.name}))
    for source in (placement, neutron, groups, nova):
        began = time.process_time()
        world = world.with_part(source.name, Fresh(await source.read(world), 0.0))
        list(gre_ports(world))
        spent.append(time.process_time() - began)
    began = time.process_time()
    drifts(world)
    spent.append(time.process_time() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Cost(spent[0], spent[1], spent[2], spent[3], spent[4], peak)


class _Site:
    """The stand-in: half of the VFs are given away, consistently in all ledgers."""

    def __init__(self, apis: Apis, hosts: int, ports: int) -> None:
        self.apis, self.requests = apis, 0
        self.generation = {f"rp-{h}-{p}": 1 for h in range(hosts) for p in range(PFS)}
        self.ports = [self._port(n, hosts) for n in range(ports)]
        apis.answers["/change"] = self._change
        apis.answers["/network/v2.0/ports"] = self._list_ports
        apis.answers["/network/v2.0/security-group-rules"] = _list_rules
        apis.answers["/network/v2.0/security-groups"] = _list_groups
        apis.answers["/placement/resource_providers"] = self._list_providers
        for uuid in self.generation:
            path = f"/placement/resource_providers/{uuid}"
            apis.answers[f"{path}/inventories"] = {"inventories": {CLASS: {"total": VFS, "reserved": 0}}}
            given = {f"vm-{n}": {"resources": {CLASS: 1}} for n in range(VFS // 2)}
            apis.answers[f"{path}/allocations"] = {"allocations": given}

    def _change(self, _: web.Request) -> Any:
        for uuid in list(self.generation)[:CHANGED]:
            self.generation[uuid] += 1
        self.apis.asked.clear()
        return {}

    def _list_providers(self, _: web.Request) -> Any:
        rows = []
        for uuid, generation in self.generation.items():
            host, pf = uuid.split("-")[1:]
            rows.append({"uuid": uuid, "name": f"compute-{host}_{_pf(int(pf)).upper()}", "generation": generation})
        return {"resource_providers": rows}

    def _list_ports(self, request: web.Request) -> Any:
        self.requests = sum(path.startswith("/placement") for path in self.apis.asked)
        marker = request.query.get("marker")
        begin = int(marker) + 1 if marker else 0
        return {"ports": self.ports[begin : begin + int(request.query["limit"])]}

    def _port(self, n: int, hosts: int) -> dict[str, Any]:
        """The first ones have VFs, the rest are ordinary."""
        taken = hosts * PFS * VFS // 2
        host, at = divmod(n, PFS * VFS // 2)
        return {
            "id": f"{n:08}",
            "device_id": f"vm-{n}",
            "device_owner": "compute:nova",
            "binding:host_id": f"compute-{host}" if n < taken else f"compute-{n % hosts}",
            "binding:vnic_type": "direct" if n < taken else "normal",
            "binding:profile": {"pci_slot": _vf(at), "capabilities": ["switchdev"]} if n < taken else {},
            "project_id": f"project-{n % 100}",
            "security_groups": [f"{n % GROUPS:036}"],
        }


def _list_rules(request: web.Request) -> Any:
    asked = request.query.getall("security_group_id")
    return {"security_group_rules": [{"security_group_id": g} for g in asked if int(g) % NAMING == 0]}


def _list_groups(request: web.Request) -> Any:
    rows = [{"id": g, "name": "g", "project_id": "p", "stateful": True} for g in request.query.getall("id")]
    return {"security_groups": rows}


def _pf(number: int) -> str:
    return f"0000:{0x3B + number:02x}:00.0"


def _vf(number: int) -> str:
    """The number-th one that is given away: every other one of the first PF's, then of the second's."""
    pf, at = divmod(2 * number, VFS)
    return f"0000:{0x3B + pf:02x}:{1 + (at >> 3):02x}.{at & 7}"


def _cell(directory: Path, hosts: int) -> str:
    path = directory / "cell.sqlite"
    rows = Rows.of_a_file(path)
    with closing(sqlite3.connect(path)) as database, database:
        for host in range(hosts):
            database.execute("INSERT INTO compute_nodes VALUES (?, 0, ?, ?)", (host, f"compute-{host}", ""))
            database.execute(
                "INSERT INTO services (deleted, host, binary, last_seen_up, forced_down) "
                "VALUES (0, ?, 'nova-compute', datetime('now', '+1 hour'), 0)",
                (f"compute-{host}",),
            )
            for at in range(PFS * VFS):
                pf, slot = divmod(at, VFS)
                number = host * PFS * VFS // 2 + at // 2 if at % 2 == 0 else None
                owner = f"vm-{number}" if number is not None else None
                database.execute(
                    "INSERT INTO pci_devices (deleted, compute_node_id, address, parent_addr, dev_type, status, "
                    "numa_node, instance_uuid) VALUES (0, ?, ?, ?, 'type-VF', ?, ?, ?)",
                    (host, f"0000:{0x3B + pf:02x}:{1 + (slot >> 3):02x}.{slot & 7}", _pf(pf),
                     "allocated" if owner else "available", pf, owner),
                )  # fmt: skip
                if owner:
                    database.execute(
                        "INSERT INTO instances (deleted, uuid, host, vm_state) VALUES (0, ?, ?, 'active')",
                        (owner, f"compute-{host}"),
                    )
    return rows.url
