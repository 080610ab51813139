"""A cell database of the tables and columns that are read, with rows as Nova writes them; its own schema: tests/e2e."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy

if TYPE_CHECKING:
    from pathlib import Path

TABLES = """
CREATE TABLE compute_nodes (id INTEGER PRIMARY KEY, deleted INTEGER, host TEXT, hypervisor_hostname TEXT);
CREATE TABLE services (id INTEGER PRIMARY KEY, deleted INTEGER, host TEXT, "binary" TEXT, last_seen_up DATETIME,
  created_at DATETIME, forced_down BOOLEAN, disabled BOOLEAN);
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
    """Writes rows into a cell database, of whatever engine, and of Nova's own schema or of the tables above."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool)
        self._tables: dict[str, sqlalchemy.Table] = {}

    @classmethod
    def of_a_file(cls, path: Path) -> Rows:
        """In sqlite, with only what is read."""
        with closing(sqlite3.connect(path)) as database:
            database.executescript(TABLES)
        return cls(f"sqlite:///{path}")

    def run(self, statement: str, **values: object) -> None:
        with self._engine.begin() as connection:
            connection.execute(sqlalchemy.text(statement), values)

    def add(self, table: str, **values: Any) -> None:
        """A row; columns that must not be NULL and are not given are empty."""
        of = self._table(table)
        for column in of.columns:
            if not column.nullable and not column.primary_key and column.server_default is None:
                values.setdefault(column.name, 0 if column.type.python_type in (int, float) else "")
        with self._engine.begin() as connection:
            connection.execute(of.insert().values(**{"deleted": 0, **values}))

    def host(self, number: int, host: str, *, seen: float = 0, forced_down: bool = False) -> None:
        """A compute node whose nova-compute reported ``seen`` seconds ago."""
        self.add("compute_nodes", id=number, host=host, hypervisor_hostname=f"{host}.example.org")
        at = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=seen)
        self.add("services", host=host, binary="nova-compute", last_seen_up=at, forced_down=forced_down)

    def report(self, host: str) -> None:
        """nova-compute reports again."""
        at = datetime.now(UTC).replace(tzinfo=None)
        self.run("UPDATE services SET last_seen_up = :at WHERE host = :host", at=at, host=host)

    def vf(self, node: int, address: str, instance: str | None = None, **values: Any) -> None:
        status = "allocated" if instance else "available"
        given = {"status": status, "dev_type": "type-VF", "parent_addr": "0000:3b:00.0"}
        self.add("pci_devices", compute_node_id=node, address=address, instance_uuid=instance, **{**given, **values})

    def instance(
        self, uuid: str, host: str | None, requests: list[dict[str, Any]] | None = None, **values: Any
    ) -> None:
        context = values.pop("migration_context", None)
        self.add("instances", uuid=uuid, host=host, **{"vm_state": "active", **values})
        text = json.dumps(requests) if requests is not None else None
        self.add("instance_extra", instance_uuid=uuid, pci_requests=text, migration_context=context)

    def claim(self, node: int, address: str, instance: str | None) -> None:
        """Nova gives a VF that it knows to an instance, or takes it back."""
        status = "allocated" if instance else "available"
        where = "WHERE deleted = 0 AND compute_node_id = :node AND address = :address"
        statement = f"UPDATE pci_devices SET status = :status, instance_uuid = :instance {where}"  # noqa: S608  # ours
        self.run(statement, status=status, instance=instance, node=node, address=address)

    def _table(self, name: str) -> sqlalchemy.Table:
        if name not in self._tables:
            self._tables[name] = sqlalchemy.Table(
                name, sqlalchemy.MetaData(), autoload_with=self._engine, resolve_fks=False
            )
        return self._tables[name]
