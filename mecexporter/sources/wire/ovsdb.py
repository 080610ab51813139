"""Reading an OVSDB server without a replica: raw selects, as RFC 7047 has them.

It only ever selects: an exporter does no harm.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import orjson

from mecexporter.aside import aside
from mecexporter.errors import Reason, SourceError
from mecexporter.sources.wire.endpoint import Endpoint, TlsFiles, within
from mecexporter.sources.wire.jsonrpc import MAX_BYTES, JsonRpcStream, KeptStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_UUID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Row: TypeAlias = dict[str, Any]
"""A row by column: in wire form from ``transact``, decoded from ``select``."""


class Shape(Enum):
    """How many atoms a column holds (RFC 7047 section 3.2, ``<type>``)."""

    SCALAR = "scalar"  # exactly one
    OPTIONAL = "optional"  # one or none
    SET = "set"
    MAP = "map"


@dataclass(frozen=True, slots=True)
class Column:
    """What the server's schema says of a column.

    Attributes:
        shape: decides how a value is decoded.
        ephemeral: the server does not keep it over a restart, nor is it the same on a replica.
    """

    shape: Shape
    ephemeral: bool = False


Schema: TypeAlias = dict[str, dict[str, Column]]
"""Columns by table and name; ``_uuid`` and ``_version``, which changes with each change of the row, included."""


def as_atom(value: Any) -> Any:
    """One atom: a str (a UUID too), int, float or bool.

    Raises:
        SourceError: GARBAGE.
    """
    match value:
        case str() | int() | float():
            return value
        case ["uuid", str() as uuid]:
            return uuid
    raise _malformed("an atom", value)


def as_set(value: Any) -> tuple[Any, ...]:
    """The atoms of a set in the server's order; a set of one comes as the bare atom (RFC 7047 section 5.1, ``<set>``).

    Raises:
        SourceError: GARBAGE.
    """
    match value:
        case ["set", list() as atoms]:
            return tuple(as_atom(atom) for atom in atoms)
    return (as_atom(value),)


def as_optional(value: Any) -> Any:
    """The atom of a set of at most one, or None.

    Raises:
        SourceError: GARBAGE.
    """
    match as_set(value):
        case ():
            return None
        case (atom,):
            return atom
    raise _malformed("at most one atom", value)


def as_map(value: Any) -> dict[Any, Any]:
    """A map as a dict of atoms.

    Raises:
        SourceError: GARBAGE.
    """
    match value:
        case ["map", list() as pairs] if all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            return {as_atom(key): as_atom(held) for key, held in pairs}
    raise _malformed("a map", value)


_DECODERS = {Shape.SCALAR: as_atom, Shape.OPTIONAL: as_optional, Shape.SET: as_set, Shape.MAP: as_map}


class _Result(msgspec.Struct):
    """Of a select; a row is parsed when its turn comes, so that no two are there at once."""

    rows: list[msgspec.Raw]


def _give(body: bytes, decoders: Mapping[str, Callable[[Any], Any]], take: Callable[[Row], None]) -> None:
    """Each row of the one select that was answered."""
    try:
        [result] = msgspec.json.decode(body, type=list[_Result])
        rows = [memoryview(raw) for raw in result.rows]
    except (msgspec.DecodeError, ValueError) as error:
        raise SourceError(Reason.GARBAGE, f"OVSDB sent {body!r:.60} for rows: {error}") from None
    for raw in rows:
        row = orjson.loads(raw)
        try:
            decoded = {name: decode(row[name]) for name, decode in decoders.items()}
        except (KeyError, TypeError):
            raise SourceError(Reason.GARBAGE, f"OVSDB sent {bytes(raw)!r:.60} for a row: a column is missing") from None
        take(decoded)


def _malformed(wanted: str, value: object) -> SourceError:
    return SourceError(Reason.GARBAGE, f"OVSDB sent {value!r:.60} for {wanted}")


def _column(declared: Any) -> Column:
    """Read a ``<column-schema>`` (RFC 7047 section 3.2)."""
    kind = declared["type"]
    if isinstance(kind, str):
        shape = Shape.SCALAR
    elif "value" in kind:
        shape = Shape.MAP
    elif kind.get("max", 1) != 1:
        shape = Shape.SET
    else:
        shape = Shape.SCALAR if kind.get("min", 1) else Shape.OPTIONAL
    return Column(shape, bool(declared.get("ephemeral")))


class OvsdbClient:
    """Reads one OVSDB server over a kept connection.

    Args:
        endpoint: the server.
        tls: for ``ssl:`` endpoints.
        deadline: seconds for each call, connecting included.
        max_bytes: largest answer taken.
    """

    def __init__(
        self, endpoint: Endpoint, *, tls: TlsFiles | None = None, deadline: float = 5.0, max_bytes: int = MAX_BYTES
    ) -> None:
        self.endpoint = endpoint
        self._deadline = deadline
        self._kept = KeptStream(tls=tls, deadline=deadline, max_bytes=max_bytes)
        self._schemas: dict[str, Schema] = {}
        self._schemas_of: JsonRpcStream | None = None

    async def transact(self, db: str, *ops: dict[str, Any]) -> list[list[Row]]:
        """Run selects in one transaction; the rows of each, in wire form.

        Raises:
            ValueError: one of the operations is no select.
            SourceError: ANSWERED_ERROR, naming the table, and all that :meth:`JsonRpcStream.call` and ``open`` raise.
        """
        async with within(self._deadline, f"{self.endpoint}: {db}"):
            return await self._transact(await self._kept.to(self.endpoint), db, ops)

    async def get_schema(self, db: str) -> Schema:
        """The columns that the server's schema has; asked once a connection, as a converted database drops its clients.

        Raises:
            SourceError: ANSWERED_ERROR if there is no such database; all that :meth:`transact` raises.
        """
        async with within(self._deadline, f"{self.endpoint}: schema of {db}"):
            return await self._schema(await self._kept.to(self.endpoint), db)

    async def select(
        self, db: str, table: str, columns: Iterable[str], where: Sequence[tuple[str, str, Any]] = ()
    ) -> list[Row] | None:
        """Rows of a table, decoded by the schema: str, int, float or bool, None for an empty optional, tuple, dict.

        ``_uuid`` is always among the columns: without it equal rows come as one (RFC 7047 section 5.2.2).

        Args:
            db: the database.
            table: the table.
            columns: those wanted; what this release's schema lacks is left out of the rows.
            where: conditions (column, function, value in wire form), all of which must hold.

        Returns:
            The rows, or None if this release has no such table.

        Raises:
            SourceError: as :meth:`transact`.
        """
        [rows] = await self.select_at_once(db, (table, columns, where))
        return rows

    async def select_at_once(
        self, db: str, *wanted: tuple[str, Iterable[str], Sequence[tuple[str, str, Any]]]
    ) -> list[list[Row] | None]:
        """As several :meth:`select`, of table, columns and conditions each, in one transaction: of one moment.

        Raises:
            SourceError: as :meth:`transact`.
        """
        what = f"{self.endpoint}: {db} {', '.join(table for table, _, _ in wanted)}"
        async with within(self._deadline, what):
            stream = await self._kept.to(self.endpoint)
            schema = await self._schema(stream, db)
            ops, decoders = [], []
            for table, columns, where in wanted:
                if (known := schema.get(table)) is not None:
                    of = {name: _DECODERS[known[name].shape] for name in {"_uuid", *columns} & known.keys()}
                    ops.append({"op": "select", "table": table, "where": list(where), "columns": list(of)})
                    decoders.append(of)
            results = await self._transact(stream, db, ops) if ops else []
        try:
            found = [
                [{name: decode(row[name]) for name, decode in of.items()} for row in rows]
                for of, rows in zip(decoders, results, strict=True)
            ]
        except (KeyError, TypeError):
            raise SourceError(Reason.GARBAGE, f"{what}: a row lacks a column asked for") from None
        there = iter(found)
        return [next(there) if table in schema else None for table, _, _ in wanted]

    async def each(self, db: str, table: str, columns: Iterable[str], take: Callable[[Row], None]) -> bool:
        """As :meth:`select`, of a table that may be large: its rows are decoded and given away one by one, in a thread.

        Args:
            db: the database.
            table: the table.
            columns: as for ``select``.
            take: given each row; what it raises is raised.

        Returns:
            Whether this release has such a table.

        Raises:
            SourceError: as :meth:`rows_raw`.
        """
        known = (await self.get_schema(db)).get(table)
        if known is None:
            return False
        decoders = {name: _DECODERS[known[name].shape] for name in {"_uuid", *columns} & known.keys()}
        op = orjson.dumps({"op": "select", "table": table, "where": [], "columns": list(decoders)})
        await aside(_give, await self._raw(db, table, op, results=1), decoders, take)
        return True

    async def takes_writes(self, db: str) -> bool:
        """Whether the server would take a write, asked by a transaction that names no row and ends itself.

        ``commit`` is what a server in read-only mode refuses, ``abort`` what keeps one that is not from doing anything
        (RFC 7047 sections 5.2.7 and 5.2.8; OVS' ovsdb/execution.c). Not for clusters: without quorum they say the same.

        Raises:
            SourceError: ANSWERED_ERROR where it says neither; all that :meth:`JsonRpcStream.call` and ``open`` raise.
        """
        async with within(self._deadline, f"{self.endpoint}: {db}"):
            stream = await self._kept.to(self.endpoint)
            results = await stream.call("transact", [db, {"op": "commit", "durable": False}, {"op": "abort"}])
        match results:
            case [{"error": "not allowed", "details": str() as said}, *_] if "read only mode" in said:
                return False
            case [{}, {"error": "aborted"}]:
                return True
        raise SourceError(Reason.ANSWERED_ERROR, f"{self.endpoint}: {db}: to commit and abort it says {results!r:.100}")

    async def select_each(self, db: str, table: str, columns: Iterable[str], uuids: Sequence[str]) -> dict[str, Row]:
        """Rows by their UUIDs, in wire form; those that are not there are left out. A look-up each, no scan.

        Raises:
            SourceError: as :meth:`transact`.
        """
        wanted = sorted({"_uuid", *columns})
        ops = [
            {"op": "select", "table": table, "where": [["_uuid", "==", ["uuid", uuid]]], "columns": wanted}
            for uuid in uuids
        ]
        found = await self.transact(db, *ops) if ops else []
        return {uuid: rows[0] for uuid, rows in zip(uuids, found, strict=True) if rows}

    async def uuids(self, db: str, table: str, where: Sequence[Any] = ()) -> list[str]:
        """Of all rows of a table, or of those for which all conditions hold: how many there are, and which.

        Raises:
            SourceError: as :meth:`rows_raw`.
        """
        op = orjson.dumps({"op": "select", "table": table, "where": list(where), "columns": ["_uuid"]})
        return [uuid.decode() for uuid in _UUID.findall(await self._raw(db, table, op, results=1))]

    async def rows_raw(self, db: str, table: str, columns: Iterable[str], uuids: Sequence[str]) -> bytes:
        """As :meth:`select_each`, as the server sends it: two of one release that hold the same send the same bytes.

        Raises:
            SourceError: GARBAGE where it has not one result for each UUID; as :meth:`transact`.
        """
        op = orjson.dumps({"op": "select", "table": table, "columns": sorted(columns)})[:-1]
        tail = b'"]]]}'
        head = op + b',"where":[["_uuid","==",["uuid","'
        ops = b",".join([head + uuid.encode() + tail for uuid in uuids])
        return await self._raw(db, table, ops, results=len(uuids))

    async def _raw(self, db: str, table: str, ops: bytes, *, results: int) -> bytes:
        async with within(self._deadline, f"{self.endpoint}: {db} {table}"):
            stream = await self._kept.to(self.endpoint)
            body = await stream.call_raw("transact", b"[" + orjson.dumps(db) + b"," + ops + b"]")
        # In a string its quotes would be escaped.
        if body.count(b'{"rows":[') != results:
            raise SourceError(Reason.GARBAGE, f"{self.endpoint}: {db} {table}: not the rows asked for: {body!r:.200}")
        return body

    @property
    def certificate_expires(self) -> float | None:
        """When the certificate that the server showed expires, as Unix time; None without TLS or a connection."""
        return self._kept.certificate_expires

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        self._kept.close()

    async def _transact(self, stream: JsonRpcStream, db: str, ops: Sequence[dict[str, Any]]) -> list[list[Row]]:
        if any(op.get("op") != "select" for op in ops):
            raise ValueError("an exporter only selects")
        results = await stream.call("transact", [db, *ops])
        tables = [op.get("table") for op in ops]
        if not isinstance(results, list):
            raise SourceError(Reason.GARBAGE, f"{self.endpoint}: {db} {tables}: answered no list of results")
        found: list[list[Row]] = []
        for table, result in zip_longest(tables, results):
            match result:
                case {"rows": list() as rows}:
                    found.append(rows)
                case {"error": error}:
                    said = f"{error}: {result.get('details')}"
                    raise SourceError(Reason.ANSWERED_ERROR, f"{self.endpoint}: {db} {table}: {said:.300}")
        if len(found) != len(ops):
            raise SourceError(Reason.GARBAGE, f"{self.endpoint}: {db} {tables}: rows for {len(found)} operations")
        return found

    async def _schema(self, stream: JsonRpcStream, db: str) -> Schema:
        if stream is not self._schemas_of:
            self._schemas, self._schemas_of = {}, stream
        if db not in self._schemas:
            declared = await stream.call("get_schema", [db])
            try:
                self._schemas[db] = {
                    table: {"_uuid": Column(Shape.SCALAR), "_version": Column(Shape.SCALAR, ephemeral=True)}
                    | {name: _column(held) for name, held in body["columns"].items()}
                    for table, body in declared["tables"].items()
                }
            except (KeyError, TypeError, AttributeError):
                raise SourceError(
                    Reason.GARBAGE, f"{self.endpoint}: {db}: its schema has not the form of RFC 7047"
                ) from None
        return self._schemas[db]
