"""What it costs to hold a large standby against its active: the exporter, both servers, and who else asks them."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import resource
import time
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

from mecexporter.sources.ovn_db_sync import Audits, Pair, Side
from mecexporter.sources.wire.endpoint import Endpoint
from mecexporter.sources.wire.ovsdb import OvsdbClient
from mecexporter.state.ovn_db import Database
from tests.bench.measure import Row, cpu_seconds
from tests.sources.daemons import Server, running, short_dir
from tests.waiting import eventually, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NB, SB = Database
BATCH = 100
FILLED = 120


class Cost(NamedTuple):
    """Of one audit: seconds of our CPU and on the clock, bytes of memory at most, longest wait of another client."""

    cpu: float
    seconds: float
    resident: int
    waited: float


def on_a_pair(switches: int = 10_000, ports: int = 10, chassis: int = 3_000) -> list[Row]:
    """An audit of Northbound with so many switches of so many ports and ACLs each, and of Southbound with chassis."""
    size = {
        NB: f"{switches * ports:,} ports, {switches:,} switches, {switches * ports:,} ACLs",
        SB: f"{chassis:,} chassis",
    }
    rows: list[Row] = []
    for db, batches in ((NB, northbound(switches, ports)), (SB, southbound(chassis))):
        with short_dir() as directory:
            active = Server(directory / "a", db=db)
            standby = Server(directory / "b", f"--sync-from={active.tcp}", db=db)
            with running(active, standby):
                asyncio.run(fill(active.socket, db, batches))
                wait_until(lambda: _cells(standby) == _cells(active), FILLED, "the standby has copied")  # noqa: B023  # called here
                before = [cpu_seconds(s.pid) for s in (active, standby)]
                # In a process of its own, whose memory is the audit's alone.
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    cost: Cost = pool.apply(audit, (db, str(active.socket), str(standby.socket)))
                spent = [cpu_seconds(s.pid) - b for s, b in zip((active, standby), before, strict=True)]
            how = f"{db}: {size[db]}"
            rows += [
                Row(f"audit of {db}, CPU", f"{cost.cpu:.2f} s", "5 s, goal 1", how),
                Row(f"audit of {db}, RSS", f"{cost.resident / 2**20:.0f} MiB", "512 MiB, goal 256", "at most"),
                Row(f"audit of {db}, active's CPU", f"{spent[0]:.2f} s", "", f"over {cost.seconds:.0f} s on the clock"),
                Row(f"audit of {db}, standby's CPU", f"{spent[1]:.2f} s", "", ""),
                Row(f"audit of {db}, others wait", f"{1e3 * cost.waited:.0f} ms", "500 ms", "another client, longest"),
            ]
    return rows


def audit(db: Database, active: str, standby: str) -> Cost:
    """One audit, while another client asks the active for next to nothing again and again."""
    return asyncio.run(_audit(db, active, standby))


async def _audit(db: Database, active: str, standby: str) -> Cost:
    sides = [Side(db, Endpoint("unix", path), None) for path in (standby, active)]
    pair = Pair(db, *sides, active_identity="", audits=Audits(every=300))
    other = OvsdbClient(Endpoint("unix", active))
    waited, asked_cpu = [0.0], 0.0

    async def ask() -> None:
        nonlocal asked_cpu
        while True:
            began = time.monotonic()
            await other.select("_Server", "Database", ("name",))
            waited.append(time.monotonic() - began)
            await eventually(lambda: time.monotonic() - began > 0.05, 1, "its next turn")  # noqa: B023  # called here

    asking = asyncio.create_task(ask())
    began, cpu = time.monotonic(), time.process_time()
    await pair.audit()
    cost = Cost(
        time.process_time() - cpu,
        time.monotonic() - began,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
        max(waited),
    )
    asking.cancel()
    pair.close()
    other.close()
    return cost


async def fill(path: Path, db: Database, batches: Iterator[list[dict[str, Any]]]) -> None:
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 26)
    for ops in batches:
        writer.write(json.dumps({"id": 0, "method": "transact", "params": [db, *ops]}).encode())
        answer = b""
        while not answer.endswith((b'"error":null}', b'"id":0}')) and b'"error":null' not in answer[-60:]:
            answer += await reader.read(1 << 20)
    writer.close()


def _cells(server: Server) -> int:
    told = dict(part.split(":") for part in server.appctl("memory/show").split())
    return int(told.get("cells", 0))


def insert(table: str, name: str, row: dict[str, Any]) -> dict[str, Any]:
    return {"op": "insert", "table": table, "uuid-name": name, "row": row}


def _map(**pairs: str) -> list[Any]:
    return ["map", list(pairs.items())]


def northbound(switches: int, ports: int) -> Iterator[list[dict[str, Any]]]:
    """As Neutron fills it: ports with their external_ids, an ACL each."""
    yield [insert("NB_Global", "g", {})]
    for first in range(0, switches, BATCH):
        ops: list[dict[str, Any]] = []
        for n in range(first, min(first + BATCH, switches)):
            members: dict[str, list[list[str]]] = {"ports": [], "acls": []}
            for p in range(ports):
                address = f"fa:16:{n >> 8:02x}:{n & 255:02x}:00:{p:02x} 10.{n >> 8}.{n & 255}.{p}"
                ids = {
                    "neutron:cidrs": "10.0.0.1/24",
                    "neutron:device_id": str(uuid.uuid4()),
                    "neutron:device_owner": "compute:nova",
                    "neutron:network_name": f"neutron-{uuid.uuid4()}",
                    "neutron:port_name": f"port-{p}",
                    "neutron:project_id": uuid.uuid4().hex,
                    "neutron:revision_number": "4",
                    "neutron:security_group_ids": str(uuid.uuid4()),
                }
                port = {"name": str(uuid.uuid4()), "addresses": address, "port_security": address}
                ops.append(insert("Logical_Switch_Port", f"p{n}_{p}", port | {"external_ids": _map(**ids)}))
                acl = {
                    "direction": "to-lport",
                    "priority": 1002,
                    "match": f"outport == @pg_{n} && ip4 && tcp && tcp.dst == {p}",
                    "action": "allow-related",
                    "external_ids": _map(**{"neutron:security_group_rule_id": str(uuid.uuid4())}),
                }
                ops.append(insert("ACL", f"a{n}_{p}", acl))
                members["ports"].append(["named-uuid", f"p{n}_{p}"])
                members["acls"].append(["named-uuid", f"a{n}_{p}"])
            switch = {"name": f"neutron-{uuid.uuid4()}"} | {key: ["set", held] for key, held in members.items()}
            ops.append(insert("Logical_Switch", f"s{n}", switch))
        yield ops


def southbound(chassis: int) -> Iterator[list[dict[str, Any]]]:
    """Chassis with what each keeps to itself."""
    yield [insert("SB_Global", "g", {})]
    for first in range(0, chassis, BATCH):
        ops: list[dict[str, Any]] = []
        for n in range(first, min(first + BATCH, chassis)):
            name, ip = str(uuid.uuid4()), f"192.{n >> 16}.{n >> 8 & 255}.{n & 255}"
            ops += [
                insert("Encap", f"e{n}", {"type": "geneve", "ip": ip, "chassis_name": name}),
                insert(
                    "Chassis", f"c{n}", {"name": name, "hostname": f"compute-{n}", "encaps": ["named-uuid", f"e{n}"]}
                ),
                insert("Chassis_Private", f"p{n}", {"name": name, "chassis": ["named-uuid", f"c{n}"], "nb_cfg": 7}),
            ]
        yield ops
