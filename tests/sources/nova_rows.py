"""A cell database of the tables and columns that are read, with rows as Nova writes them; its own schema: tests/e2e."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

TABLES = """
CREATE TABLE compute_nodes (id INTEGER PRIMARY KEY, deleted INTEGER, host TEXT, hypervisor_hostname TEXT);
CREATE TABLE services (id INTEGER PRIMARY KEY, deleted INTEGER, host TEXT, "binary" TEXT, last_seen_up DATETIME,
  forced_down BOOLEAN, disabled BOOLEAN);
CREATE TABLE pci_devices (id INTEGER PRIMARY KEY, deleted INTEGER, compute_node_id INTEGER, address TEXT,
  parent_addr TEXT, dev_type TEXT, status TEXT, numa_node INTEGER, instance_uuid TEXT, request_id TEXT);
CREATE TABLE instances (id INTEGER PRIMARY KEY, deleted INTEGER, uuid TEXT, host TEXT, vm_state TEXT, task_state TEXT);
CREATE TABLE instance_extra (id INTEGER PRIMARY KEY, deleted INTEGER, instance_uuid TEXT, pci_requests TEXT,
  migration_context TEXT);
CREATE TABLE migrations (id INTEGER PRIMARY KEY, deleted INTEGER, instance_uuid TEXT, source_compute TEXT,
  dest_compute TEXT, status TEXT);
"""


def request(request_id: str, *, port: str | None = None, alias: str | None = None) -> dict[str, Any]:
    """An InstancePCIRequest as Nova serialises it into ``instance_extra.pci_requests``."""
    return {
        "count": 1,
        "spec": [{"physical_network": "physnet2"}] if port else [{"vendor_id": "15b3"}],
        "alias_name": alias,
        "is_new": False,
        "numa_policy": None,
        "request_id": request_id,
        "requester_id": port,
    }


class Rows:
    """Writes rows into a sqlite file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"
        with closing(sqlite3.connect(path)) as database:
            database.executescript(TABLES)

    def run(self, statement: str, *values: object) -> None:
        with closing(sqlite3.connect(self.path)) as database, database:
            database.execute(statement, values)

    def add(self, table: str, **values: object) -> None:
        columns = {"deleted": 0, **values}
        marks = ", ".join("?" * len(columns))
        names = ", ".join(f'"{name}"' for name in columns)
        self.run(f"INSERT INTO {table} ({names}) VALUES ({marks})", *columns.values())  # noqa: S608  # names of ours

    def host(self, number: int, host: str, *, seen: str = "0 seconds", forced_down: bool = False) -> None:
        self.add("compute_nodes", id=number, host=host, hypervisor_hostname=f"{host}.example.org")
        self.run(
            "INSERT INTO services (deleted, host, binary, last_seen_up, forced_down) "
            "VALUES (0, ?, 'nova-compute', datetime('now', ?), ?)",
            host, seen, forced_down,
        )  # fmt: skip

    def vf(self, node: int, address: str, instance: str | None = None, **values: object) -> None:
        given = {
            "status": "allocated" if instance else "available",
            "dev_type": "type-VF",
            "parent_addr": "0000:3b:00.0",
        }
        self.add("pci_devices", compute_node_id=node, address=address, instance_uuid=instance, **{**given, **values})

    def instance(
        self, uuid: str, host: str | None, requests: list[dict[str, Any]] | None = None, **values: object
    ) -> None:
        context = values.pop("migration_context", None)
        self.add("instances", uuid=uuid, host=host, **{"vm_state": "active", **values})
        text = json.dumps(requests) if requests is not None else None
        self.add("instance_extra", instance_uuid=uuid, pci_requests=text, migration_context=context)
