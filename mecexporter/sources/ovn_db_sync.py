"""Is a standby's content its active's? Asked of the content itself, as ``sync-status`` goes on saying yes.

The few rows that change all the time are held against each other at each read, all that is replicated at each audit. A
row that differs is looked at again at each read; it counts as different once the standby has shown one value for
grace.db_sync while the active showed another.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import orjson

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.base import Source
from mecexporter.sources.wire.endpoint import Endpoint, TlsFiles
from mecexporter.sources.wire.ovsdb import OvsdbClient
from mecexporter.state.central import active_of, servers, source_name
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.ovn_db import Database, DatabaseServer, Difference, Kind, PairSync
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from mecexporter.sources.wire.ovsdb import Row, Schema
    from mecexporter.state.central import Known
    from mecexporter.state.world import World

log = logging.getLogger(__name__)

_MARKERS = {Database.NORTHBOUND: ("NB_Global",), Database.SOUTHBOUND: ("SB_Global", "Chassis_Private")}
_BY_NUMBER = frozenset({"Logical_Flow", "Logical_DP_Group"})
"""Tables of Southbound that northd makes of the others: their rows are only counted, unless asked for."""

_PARTS: dict[str, tuple[list[list[Any]], ...]] = {
    "Logical_Flow": (
        [["table_id", "<", 6]],
        *([["table_id", ">=", low], ["table_id", "<", high]] for low, high in pairwise((6, 9, 12, 18, 23))),
        [["table_id", ">=", 23]],
    )
}
"""What is asked of a table in one go: the server answers nobody else while it writes half a million UUIDs.

Before OVN 21.03 the last table is 23, and a condition on a greater number is refused.
"""

NUMBER = "*"
"""In a row's place, the number of a table's rows."""

_CHUNK = 1000  # rows a transaction reads: a few milliseconds of the server's
_TRACKED = 1000  # rows of a table that are looked at again one by one; the rest is only counted
_EXAMPLES = 20
_REST = 3.0  # an audit rests three times as long as its last question took: servers have others to serve
_DEADLINE = 30.0
_DAY = 86400.0
_LONGEST_AUDIT = 1800.0
_AGAIN = 30.0  # seconds after which an audit that failed is tried again
_MAX_BYTES = 64 << 20


@dataclass(slots=True)
class _Row:
    """A row that differs; ``standby`` is what the standby shows (a digest, None: no such row) since ``since``."""

    standby: int | None
    kind: Kind
    since: float
    confirmed: bool = False


class Side:
    """One of the two servers."""

    def __init__(self, db: Database, endpoint: Endpoint, tls: TlsFiles | None) -> None:
        self.endpoint = endpoint
        self._db = str(db)
        self._client = OvsdbClient(endpoint, tls=tls, deadline=_DEADLINE, max_bytes=_MAX_BYTES)
        self.took = 0.0

    async def schema(self) -> Schema:
        """Its tables and columns."""
        return await self._client.get_schema(self._db)

    async def uuids(self, table: str) -> list[str]:
        """Of all rows of a table; of one that may be very large part by part."""
        found: list[str] = []
        for where in _PARTS.get(table, ([],)):
            began = time.monotonic()
            found += await self._client.uuids(self._db, table, where)
            self.took = time.monotonic() - began
        return found

    async def digests(self, table: str, columns: Sequence[str], uuids: Iterable[str]) -> dict[str, int]:
        """UUID -> digest of the rows that are there."""
        began = time.monotonic()
        rows = await self._client.select_each(self._db, table, columns, list(uuids))
        self.took = time.monotonic() - began
        return {uuid: _digest(row) for uuid, row in rows.items()}

    async def raw(self, table: str, columns: Sequence[str], uuids: Sequence[str]) -> bytes:
        """The rows as they come."""
        began = time.monotonic()
        body = await self._client.rows_raw(self._db, table, columns, uuids)
        self.took = time.monotonic() - began
        return body

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _digest(row: Row) -> int:
    """Of the wire form, whose sets and maps the server sorts; good in this process only."""
    return hash(orjson.dumps(row, option=orjson.OPT_SORT_KEYS))


class Pair:
    """A standby held against its active.

    Attributes:
        active_identity: of the active, which a restart of its server changes.
        left_out: tables that are not replicated.
        last_in_sync: Unix time at which nothing was seen to differ, after an audit.
    """

    def __init__(self, db: Database, standby: Side, active: Side, *, active_identity: str, audits: Audits) -> None:
        self.active_identity = active_identity
        self.left_out = audits.left_out
        self.last_in_sync: float | None = None
        self._db = db
        self._standby = standby
        self._active = active
        self._grace = audits.grace
        self._by_number = frozenset[str]() if audits.flows else _BY_NUMBER
        self._rows: dict[str, dict[str, _Row]] = {}  # table -> UUID
        self._more: dict[str, Counter[Kind]] = {}  # of a table, rows beyond those
        self._tables: frozenset[str] = frozenset()  # of the last audit
        self._audited: float | None = None  # Unix time
        self._audited_at = 0.0  # the same on the clock that is never set
        self._audit_seconds: float | None = None
        self._valid = audits.valid
        self._due = 0.0
        self._audit: asyncio.Task[None] | None = None

    async def look(self) -> None:
        """Hold the rows that change all the time against each other, and once more those that differed.

        Raises:
            SourceError: a server does not answer.
        """
        columns = await self._columns()
        markers = _MARKERS[self._db]
        self._rows = {table: rows for table, rows in self._rows.items() if table in columns}
        for table, rows in list(self._rows.items()):
            if rows and table not in markers:
                await self._compare(table, columns[table], list(rows))
        for table in markers:
            if table in columns:
                await self._compare(table, columns[table])
        if self._believable() and not any(self._rows.values()):
            self.last_in_sync = time.time()

    def audit_if_due(self, audits: Audits) -> None:
        """Begin an audit of all that is replicated, which goes on while others read, if it is time for one."""
        clock, now = time.localtime(), time.monotonic()
        # The first one waits for no window: without it nothing can be told.
        if (self._audit is not None and not self._audit.done()) or now < self._due:
            return
        if self._audited is not None and not audits.may_begin(clock.tm_hour * 3600 + clock.tm_min * 60 + clock.tm_sec):
            return
        self._due = now + audits.every * random.uniform(0.9, 1.1)  # noqa: S311  # jitter is no secret
        self._audit = asyncio.create_task(self._try_audit(), name=f"audit {self._standby.endpoint}")

    async def _try_audit(self) -> None:
        try:
            async with asyncio.timeout(_LONGEST_AUDIT):
                await self.audit()
        except (SourceError, TimeoutError) as error:  # the next look says what is wrong with the server
            log.info("audit given up", extra={"endpoint": str(self._standby.endpoint), "why": str(error)})
            self._due = min(self._due, time.monotonic() + _AGAIN)

    def _believable(self) -> bool:
        if self._audited is None or self._audit_seconds is None:
            return False
        return time.monotonic() - self._audited_at < self._valid + 2 * self._audit_seconds

    def result(self, standby: str, active: str, why: str | None) -> PairSync:
        """What is known now; ``why`` is what kept the last look from telling, None if nothing did."""
        rows = self._confirmed() if why is None else {}
        differs = any(rows.values())
        if why is None and not differs and not self._believable():
            why = "not all tables have been held against the active's yet"
        return PairSync(
            db=self._db,
            standby=standby,
            active=active,
            in_sync=None if why is not None else not differs,
            why=why,
            last_in_sync=self.last_in_sync,
            rows=MappingProxyType(rows),
            examples=self._examples() if rows else (),
            audited=self._audited,
            audit_seconds=self._audit_seconds,
            left_out=tuple(sorted(self.left_out)),
        )

    async def audit(self) -> None:
        """Hold all that is replicated against each other, table by table.

        Raises:
            SourceError: a server does not answer.
        """
        began = time.monotonic()
        columns = await self._columns()
        for table in sorted(columns):
            await self._compare(table, columns[table])
            await self._rest()
        self._tables = frozenset(columns)
        self._audited, self._audited_at = time.time(), time.monotonic()
        self._audit_seconds = self._audited_at - began

    def _confirmed(self) -> dict[tuple[str, Kind], int]:
        """Rows that differ for certain, of every table that was audited."""
        found = {(table, kind): 0 for table in sorted(self._tables) for kind in Kind}
        for table, rows in self._rows.items():
            confirmed = Counter(row.kind for row in rows.values() if row.confirmed)
            for kind in Kind:
                more = self._more.get(table, Counter())[kind] if confirmed else 0
                if number := confirmed[kind] + more:
                    found[table, kind] = number
        return found

    def _examples(self) -> tuple[Difference, ...]:
        """Some of them."""
        found = sorted(
            Difference(table, uuid, row.kind)
            for table, rows in self._rows.items()
            for uuid, row in rows.items()
            if row.confirmed
        )
        return tuple(found[:_EXAMPLES])

    def close(self) -> None:
        """End the audit and close the connections."""
        if self._audit is not None:
            self._audit.cancel()
        self._standby.close()
        self._active.close()

    async def _columns(self) -> dict[str, list[str]]:
        """Of each table that both have and that is replicated, the columns that both keep."""
        standby, active = await self._standby.schema(), await self._active.schema()
        return {
            table: sorted(
                name
                for name in standby[table].keys() & active[table].keys()
                if not standby[table][name].ephemeral and not active[table][name].ephemeral
            )
            for table in standby.keys() & active.keys()
            if table not in self.left_out
        }

    async def _compare(self, table: str, columns: Sequence[str], only: Iterable[str] = ()) -> None:
        """Hold a table, or only some of its rows, against each other."""
        if table in self._by_number:
            ours, theirs = len(await self._standby.uuids(table)), len(await self._active.uuids(table))
            self._note(table, {NUMBER: (ours, theirs)} if ours != theirs else {})
            return
        wanted = sorted(only) or sorted({*await self._standby.uuids(table), *await self._active.uuids(table)})
        differing: dict[str, tuple[int | None, int | None]] = {}
        for at in range(0, len(wanted), _CHUNK):
            if at:
                await self._rest()
            chunk = wanted[at : at + _CHUNK]
            # As bytes they are equal nearly always, and that is ten times cheaper than to parse them.
            if not only and await self._standby.raw(table, columns, chunk) == await self._active.raw(
                table, columns, chunk
            ):
                continue
            standby = await self._standby.digests(table, columns, chunk)
            active = await self._active.digests(table, columns, chunk)
            differing |= {u: (standby.get(u), active.get(u)) for u in chunk if standby.get(u) != active.get(u)}
        self._note(table, differing, only=wanted if only else None)

    async def _rest(self) -> None:
        await asyncio.sleep(_REST * (self._standby.took + self._active.took))

    def _note(
        self,
        table: str,
        differing: Mapping[str, tuple[int | None, int | None]],
        *,
        only: Sequence[str] | None = None,
    ) -> None:
        """Take down what differs now; what was taken down before and is equal is struck off.

        Where ``only`` some rows were asked for the others stay: an audit may have found them meanwhile.
        """
        now = time.monotonic()
        before = self._rows.get(table, {})
        asked = before.keys() if only is None else set(only)
        rows: dict[str, _Row] = {uuid: row for uuid, row in before.items() if uuid not in asked}
        more: Counter[Kind] = Counter()
        # What is known already stays among those that are looked at one by one.
        for uuid, (standby, active) in sorted(differing.items(), key=lambda item: item[0] not in before):
            kind = _kind(standby, active)
            if len(rows) >= _TRACKED:
                more[kind] += 1
                continue
            known = before.get(uuid)
            if known is not None and known.standby == standby:
                rows[uuid] = replace(known, kind=kind, confirmed=now - known.since >= self._grace)
            else:
                rows[uuid] = _Row(standby, kind, now)
        self._rows[table] = rows
        if only is None:
            self._more[table] = more


def _kind(standby: int | None, active: int | None) -> Kind:
    if standby is None:
        return Kind.MISSING
    return Kind.EXTRA if active is None else Kind.CHANGED


@dataclass(frozen=True, slots=True, kw_only=True)
class Audits:
    """When and how whole databases are compared.

    Attributes:
        every: seconds from one to the next.
        window: seconds from midnight, local time, between which one may begin; None: at any time.
        grace: seconds for which a difference must last.
        left_out: tables that peers leave out, where no control socket says which.
        flows: whether Southbound's tables of flows are compared row by row too.
    """

    every: float
    window: tuple[float, float] | None = None
    grace: float = 30.0
    left_out: frozenset[str] = frozenset()
    flows: bool = False

    def may_begin(self, seconds: float) -> bool:
        """Whether that second of the day is in the window, which may go over midnight."""
        if self.window is None:
            return True
        begin, end = self.window
        return begin <= seconds < end if begin < end else seconds >= begin or seconds < end

    @property
    def valid(self) -> float:
        """Seconds for which an audit can be believed."""
        return 3 * self.every if self.window is None else max(3 * self.every, 2 * _DAY)


class OvnDatabaseSyncSource(Source[tuple[PairSync, ...]]):
    """Holds every standby of a database that is known here against its active.

    Args:
        db: which database.
        tls: for ``ssl:`` endpoints.
        interval: seconds between reads.
        audits: when and how whole databases are compared.
    """

    roles = frozenset({Role.CENTRAL})
    deadline = 2 * _DEADLINE

    def __init__(self, db: Database, *, tls: TlsFiles | None, interval: float, audits: Audits) -> None:
        self.name = f"{str(db).lower()}_sync"
        self.interval = interval
        self._db = db
        self._tls = tls
        self._audits = audits
        self._pairs: dict[str, Pair] = {}  # by the standby's identity, which a restart of its server changes

    def configured(self, world: World) -> bool:
        """Where a standby is known."""
        return any(s.is_standby for s in servers(world, self._db))

    def question(self, world: World) -> Hashable:
        """Who stands by for whom, and whether they answer."""
        return tuple((s.identity, _identity(active_of(world, s))) for s in servers(world, self._db) if s.is_standby)

    async def read(self, world: World) -> tuple[PairSync, ...]:
        """One result a standby; what can't be told of one says so itself, and costs no other.

        Raises:
            SourceError: MISSING where no standby answers.
        """
        standbys = [s for s in servers(world, self._db) if s.is_standby]
        if not standbys:
            raise SourceError(Reason.MISSING, f"no standby of {self._db} answers")
        for identity in self._pairs.keys() - {s.identity for s in standbys}:
            self._pairs.pop(identity).close()
        return tuple(await asyncio.gather(*(self._judge(world, standby) for standby in standbys)))

    async def close(self) -> None:
        """End audits and close connections."""
        for pair in self._pairs.values():
            pair.close()

    async def _judge(self, world: World, standby: DatabaseServer) -> PairSync:
        active = active_of(world, standby)
        pair = self._pairs.get(standby.identity)
        why: str | None
        if active is None or isinstance(active.seen, Absent):
            label = active.server if active else (standby.replication and standby.replication.active) or "unknown"
            why = f"its active {label} does not answer" if active else "it is not known whom it replicates"
            return PairSync(
                db=self._db,
                standby=standby.server,
                active=label,
                in_sync=None,
                why=why,
                last_in_sync=pair.last_in_sync if pair else None,
            )
        if pair is None or pair.active_identity != active.seen.value.identity:
            earlier = pair
            pair = self._pairs[standby.identity] = self._pair(world, standby, active.seen.value)
            if earlier is not None:
                earlier.close()
                pair.last_in_sync = earlier.last_in_sync
        if standby.replication is not None:
            pair.left_out = self._audits.left_out | set(standby.replication.exclude_tables)
        why = None
        try:
            await pair.look()
        except SourceError as error:
            why = error.why
        pair.audit_if_due(self._audits)
        return pair.result(standby.server, active.server, why)

    def _pair(self, world: World, standby: DatabaseServer, active: DatabaseServer) -> Pair:
        where = {name: endpoint for (_, endpoint), name in world.endpoints.items()}
        sides = (
            Side(self._db, Endpoint.parse(where[source_name(self._db, s.server)]), self._tls) for s in (standby, active)
        )
        return Pair(self._db, *sides, active_identity=active.identity, audits=self._audits)


def _identity(known: Known | None) -> str | None:
    return known.seen.value.identity if known is not None and isinstance(known.seen, Fresh) else None
