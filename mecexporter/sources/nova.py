"""Nova's ledger: the PCI devices that a cell database gives to instances. Nova's API does not show them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import orjson

from mecexporter.aside import OneAtATime
from mecexporter.errors import Reason, SourceError
from mecexporter.sources.base import Source
from mecexporter.state.openstack import CLAIMED, Cell, DeviceKind, Instance, PciDevice
from mecexporter.state.world import CELL, Role

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from mecexporter.state.world import World

CALL = 30.0
"""Seconds after which the database is given up (contract)."""
_MOST = 1_000_000
_SHORT = 160
_ENDED = ("confirmed", "reverted", "completed", "done", "error", "failed", "cancelled")
"""``migrations.status`` of a migration that is over (nova.db.main.api, migration_get_in_progress_by_host_and_node)."""

_DEVICES = """
SELECT cn.host, pd.address, pd.parent_addr, pd.dev_type, pd.status, pd.numa_node, pd.instance_uuid, pd.request_id
FROM pci_devices pd JOIN compute_nodes cn ON cn.id = pd.compute_node_id
WHERE pd.deleted = 0 AND cn.deleted = 0 AND cn.host IS NOT NULL AND pd.dev_type IN ('type-VF', 'type-PF', 'vdpa')
"""
_SERVICES = """
SELECT host, {age} AS age, last_seen_up IS NOT NULL AS reported, forced_down, disabled FROM services
WHERE deleted = 0 AND services.binary = 'nova-compute' AND host IS NOT NULL
"""
_AGE = "TIMESTAMPDIFF(SECOND, COALESCE(last_seen_up, created_at), UTC_TIMESTAMP())"
_AGE_SQLITE = "strftime('%s', 'now') - strftime('%s', COALESCE(last_seen_up, created_at))"
_INSTANCES = "SELECT uuid, host, vm_state, task_state FROM instances WHERE deleted = 0"
_MIGRATIONS = """
SELECT instance_uuid, source_compute, dest_compute FROM migrations
WHERE deleted = 0 AND status NOT IN :ended AND instance_uuid IS NOT NULL
"""
_EXTRA = "SELECT instance_uuid, pci_requests, migration_context FROM instance_extra WHERE instance_uuid IN :uuids"
_AT_ONCE = 500  # instances whose JSON is read by one statement


class NovaSource(Source[Cell]):
    """Reads a cell database in one read-only transaction, in a thread; needs the extra ``nova-db``.

    Args:
        cell: its name.
        url: SQLAlchemy's, of MySQL, MariaDB or sqlite.
        every_host: whether all hosts' devices are wanted, or this one's.
        interval: seconds between reads.
        down_after: seconds after its last report that a nova-compute is down (nova.conf, service_down_time).
    """

    roles = frozenset({Role.API})
    deadline = 4 * CALL
    shared = True
    retry = 15.0
    rereads = True

    def __init__(self, cell: str, url: str, *, every_host: bool, interval: float, down_after: float) -> None:
        self.name = f"{CELL}{cell}"
        self.interval = interval
        self._url = url
        self._every_host = every_host
        self._down_after = down_after
        self._engine: Any = None
        self._reads: OneAtATime[Cell] = OneAtATime("the database does not answer")

    def question(self, world: World) -> Hashable:
        """Whose devices."""
        return None if self._every_host else world.hostname

    async def read(self, world: World) -> Cell:
        """Raises SourceError; its text holds neither password nor URL."""
        host = None if self._every_host else world.hostname
        return await self._reads.call(self._read, host)

    def _read(self, host: str | None) -> Cell:
        try:
            import sqlalchemy  # noqa: PLC0415  # optional, and dear to load
        except ImportError:
            why = "Nova's database needs SQLAlchemy and a driver: pip install 'mecexporter[nova-db]'"
            raise SourceError(Reason.MISSING, why) from None
        try:
            if self._engine is None:
                self._engine = _engine(sqlalchemy, self._url)
            with self._engine.connect() as connection:
                _be_read_only(sqlalchemy, connection)
                return _cell(_Reader(sqlalchemy, connection), host, self._down_after)
        except SourceError:
            raise
        except Exception as error:  # noqa: BLE001  # the driver's own: dozens of kinds
            raise _failed(error, self.name) from None


class _Reader:
    """Statements of one transaction."""

    def __init__(self, sqlalchemy: Any, connection: Any) -> None:
        self._sqlalchemy = sqlalchemy
        self._connection = connection
        self.sqlite = connection.dialect.name == "sqlite"

    def of_host(self, column: str) -> str:
        """In any case, and by the column's index: MySQL's collations ignore case by themselves."""
        return f"{column} = :host{' COLLATE NOCASE' if self.sqlite else ''}"

    def rows(self, statement: str, **values: Any) -> list[Any]:
        """All rows, of which there may be many but not any number."""
        text = self._sqlalchemy.text(statement)
        lists = [
            self._sqlalchemy.bindparam(k, expanding=True) for k, v in values.items() if isinstance(v, (list, tuple))
        ]
        found: list[Any] = self._connection.execute(text.bindparams(*lists), values).fetchmany(_MOST + 1)
        if len(found) > _MOST:
            raise SourceError(Reason.TOO_LARGE, f"more than {_MOST} rows of {statement.rsplit(maxsplit=1)[-1]}")
        return found


def _engine(sqlalchemy: Any, url: str) -> Any:
    parsed = sqlalchemy.engine.make_url(url)
    arguments: dict[str, Any] = {"timeout": CALL}
    if parsed.get_backend_name() == "sqlite":
        # sqlite makes a file that is not there, unless it may only read.
        parsed = parsed.set(database=f"file:{parsed.database}", query={"mode": "ro", "uri": "true"})
    else:
        arguments = {"connect_timeout": CALL / 3, "read_timeout": CALL, "write_timeout": CALL}
    return sqlalchemy.create_engine(parsed, poolclass=sqlalchemy.pool.NullPool, connect_args=arguments)


def _be_read_only(sqlalchemy: Any, connection: Any) -> None:
    """Nothing is written even by mistake, and all statements see one moment."""
    if connection.dialect.name in ("mysql", "mariadb"):
        connection.exec_driver_sql("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        limit = (
            f"max_statement_time = {CALL}"
            if connection.dialect.is_mariadb
            else f"max_execution_time = {CALL * 1000:.0f}"
        )
        connection.exec_driver_sql(f"SET SESSION {limit}")
        connection.rollback()
        connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
    else:
        connection.execute(sqlalchemy.text("PRAGMA query_only = ON"))


def _cell(reader: _Reader, host: str | None, down_after: float) -> Cell:
    of_host = {"host": host} if host is not None else {}
    devices = reader.rows(f"{_DEVICES} AND {reader.of_host('cn.host')}" if host is not None else _DEVICES, **of_host)
    owners = {row.instance_uuid for row in devices if row.instance_uuid and row.status in CLAIMED}
    moves = reader.rows(_MIGRATIONS, ended=_ENDED)
    here = {
        row.instance_uuid
        for row in moves
        if host is None or host.casefold() in {str(row.source_compute).casefold(), str(row.dest_compute).casefold()}
    }
    requests, contexts, aliased = _extra(reader, sorted(owners | here))
    instances = _instances(reader, host, owners | here)
    moving = {row.instance_uuid for row in moves}
    services = reader.rows(_SERVICES.format(age=_AGE_SQLITE if reader.sqlite else _AGE))
    return Cell(
        devices=tuple(_device(row, requests, aliased) for row in devices),
        instances={
            row.uuid: Instance(
                host=row.host,
                vm_state=row.vm_state,
                task_state=row.task_state,
                moving=row.uuid in moving,
                context=contexts.get(row.uuid, frozenset()),
            )
            for row in instances
        },
        up=_up(services, down_after),
        disabled=frozenset(row.host for row in services if row.disabled),
        asked_for=host,
    )


def _instances(reader: _Reader, host: str | None, wanted: set[str]) -> list[Any]:
    """Those of the host, those that have something here, and those that are nowhere: their ports may stay."""
    if host is None:
        return reader.rows(_INSTANCES)
    found = reader.rows(f"{_INSTANCES} AND ({reader.of_host('host')} OR host IS NULL)", host=host)
    rest = sorted(wanted - {row.uuid for row in found})
    return found + [
        row for some in _slices(rest) for row in reader.rows(f"{_INSTANCES} AND uuid IN :uuids", uuids=some)
    ]


def _extra(reader: _Reader, uuids: list[str]) -> tuple[dict[str, _Request], dict[str, frozenset[str]], set[str]]:
    """request_id -> request, instance -> addresses in its migration_context, and who has a flavour's without an id.

    Before Zed, Nova gave an id to ports' requests alone; instances made then keep theirs.
    """
    requests: dict[str, _Request] = {}
    aliased: set[str] = set()
    contexts: dict[str, frozenset[str]] = {}
    for some in _slices(uuids):
        for row in reader.rows(_EXTRA, uuids=some):
            for request in _data(row.pci_requests, "requests"):
                found = _Request(request)
                if found.id:
                    requests[found.id] = found
                elif found.flavour:
                    aliased.add(row.instance_uuid)
            if row.migration_context:
                contexts[row.instance_uuid] = frozenset(_ADDRESSES.findall(str(row.migration_context).lower()))
    return requests, contexts, aliased


_ADDRESSES = re.compile(r'"address": *"([0-9a-f:.]+)"')


class _Request:
    """One InstancePCIRequest (nova.objects.instance_pci_requests), as the database has it."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        inner = request.get("nova_object.data")
        data = inner if isinstance(inner, dict) else request
        self.id = _string(data.get("request_id"))
        self.flavour = bool(data.get("alias_name"))
        self.port = _string(data.get("requester_id"))
        spec = data.get("spec")
        spec = spec if isinstance(spec, list) else []
        networks = (one.get("physical_network") for one in spec if isinstance(one, dict))
        self.physical_network = next((n for n in networks if isinstance(n, str)), None)


def _string(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _data(text: str | None, key: str) -> Iterator[Mapping[str, Any]]:
    """The objects of a serialised list: Nova writes a bare list, or an object that holds it."""
    try:
        found = orjson.loads(text) if text else []
    except orjson.JSONDecodeError:
        return
    for name in ("nova_object.data", key):
        if isinstance(found, dict):
            found = found.get(name, found)
    if isinstance(found, list):
        yield from (one for one in found if isinstance(one, dict))


def _device(row: Any, requests: Mapping[str, _Request], aliased: AbstractSet[str]) -> PciDevice:
    request = requests.get(row.request_id) if row.request_id else None
    return PciDevice(
        host=row.host,
        address=str(row.address).lower(),
        parent=row.parent_addr.lower() if row.parent_addr else None,
        kind=DeviceKind(row.dev_type),
        status=row.status,
        numa_node=row.numa_node,
        instance=row.instance_uuid,
        flavour=request.flavour if request else not row.request_id and row.instance_uuid in aliased,
        port=request.port if request else None,
        physical_network=request.physical_network if request else None,
    )


def _up(services: Iterable[Any], down_after: float) -> dict[str, bool | None]:
    """By the database's own clock, in UTC, and Nova's own rule (nova.servicegroup.drivers.db, is_up).

    Under another driver (``servicegroup_driver=mc``) nothing is reported here: that a service never did, or that none
    of the cell does now, tells nothing of its host.
    """
    recent = {row.host for row in services if row.age is not None and abs(float(row.age)) <= down_after}
    out: dict[str, bool | None] = {}
    for row in services:
        if row.forced_down:
            out[row.host] = False
        elif row.host in recent:
            out[row.host] = True
        else:
            out[row.host] = False if row.reported and recent else None
    return out


def _slices(values: Sequence[str]) -> Iterable[Sequence[str]]:
    return (list(values[at : at + _AT_ONCE]) for at in range(0, len(values), _AT_ONCE))


def _failed(error: Exception, name: str) -> SourceError:
    """Without the statement and its values, and without what a URL may hold."""
    original = getattr(error, "orig", None) or error
    code = next((a for a in getattr(original, "args", ()) if isinstance(a, int)), None)
    said = " ".join(str(a) for a in getattr(original, "args", ()) if isinstance(a, str))
    said = re.sub(r"://[^/@\s]*@", "://***@", said)
    names = " ".join(kind.__name__ for kind in type(original).__mro__)
    if code in _CODES:
        reason = _CODES[code]
    elif "imeout" in names or "timed out" in said:
        reason = Reason.TIMEOUT
    elif "ModuleNotFoundError" in names or "NoSuchModuleError" in names or "unable to open" in said:
        reason = Reason.MISSING
    else:
        reason = Reason.ANSWERED_ERROR
    return SourceError(reason, f"{name}: {' '.join(said.split())[:_SHORT] or type(original).__name__}")


_CODES = {
    1044: Reason.PERMISSION,
    1045: Reason.PERMISSION,
    1142: Reason.PERMISSION,
    1049: Reason.MISSING,
    1146: Reason.MISSING,
    2003: Reason.REFUSED,
    2013: Reason.CLOSED,
}
"""MySQL's error numbers (MySQL and MariaDB reference manuals)."""
