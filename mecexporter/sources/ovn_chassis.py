"""Has a change arrived everywhere? Northbound's number, Southbound's, every chassis' own; and who holds the gateways.

Asked where Northbound's writer or leader is, so that a site has each answer once. Nothing here is replicated. With
3,000 chassis and 100,000 ports the reports of all chassis cost Southbound's server 26 ms, the gateways 35 ms (16 of
them to find them), and the lists of chassis, encapsulations and priorities, which change seldom, some 100 ms. A copy of
the lists alone, kept live, would cost us 13 MiB, and 0.8 s each time that it is made. So the reports and the gateways
are asked for at each read; the lists every fourth time, and whenever a chassis comes or goes or two share a hostname.
Each question is a transaction of its own, that the server may answer others in between; but Southbound's number and the
reports are of one moment, as ``progress`` wants them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.base import Source
from mecexporter.sources.leading import OWN, Leading, endpoint_of, own_northbound
from mecexporter.sources.progress import Race
from mecexporter.sources.wire.ovsdb import OvsdbClient, as_atom, as_optional
from mecexporter.state.central import known
from mecexporter.state.observed import Fresh
from mecexporter.state.ovn_db import Database, Model
from mecexporter.state.propagation import Gateway, Lag, ListedChassis, Propagation, Reported, sharing_hostname
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from mecexporter.sources.wire.endpoint import Endpoint, TlsFiles
    from mecexporter.sources.wire.ovsdb import Row
    from mecexporter.state.central import Known
    from mecexporter.state.world import World

SB = str(Database.SOUTHBOUND)
_LOCAL_DEADLINE = 5.0
_LISTS_EVERY = 4
_WINDOW = 8  # reads over which the moves of a gateway are counted
_LOOKS = 6  # more looks within a read at a gateway whose row changed
_LOOK_EVERY = 0.3
_REWRITTEN = 3  # of those, the looks that must find it changed again
_LOOKED_AT = 100  # gateways, at most
_MAX_BYTES = 64 << 20


@dataclass(slots=True)
class _Claims:
    """Who was seen to have a gateway last.

    Attributes:
        version: of its row.
        moves: when another one had it.
        storms: when the row was seen to change again and again.
    """

    chassis: str | None = None
    version: str | None = None
    moves: deque[float] = field(default_factory=deque)
    storms: deque[float] = field(default_factory=deque)


@dataclass(frozen=True, slots=True)
class _Lists:
    """What changes seldom.

    Attributes:
        names: of chassis, by UUID.
        priorities: of a gateway's candidates: UUID of the HA_Chassis_Group or Gateway_Chassis -> those of the chassis'
            UUIDs, None for a chassis that is not there.
    """

    at: float
    reporters: frozenset[str]
    chassis: Mapping[str, ListedChassis]
    sharing: Mapping[str, tuple[ListedChassis, ...]]
    names: Mapping[str, str]
    priorities: Mapping[str, tuple[tuple[str | None, int], ...]]


class OvnChassisSource(Source[Propagation]):
    """Asks the Southbound server that leads, or the nearest member of its cluster.

    Args:
        tls: for ``ssl:`` endpoints.
        interval: seconds between reads.
        stale: seconds without progress after which a chassis is stale.
        keep: seconds for which a delay must be told.
    """

    name = "ovn_chassis"
    roles = frozenset({Role.CENTRAL})
    deadline = 30.0
    needs = (OWN,)

    def __init__(self, *, tls: TlsFiles | None, interval: float, stale: float, keep: float) -> None:
        self.interval = interval
        self._tls = tls
        self._stale = stale
        self._keep = 2 * max(stale, keep)
        self._leading = Leading()
        self._asked: tuple[Endpoint, OvsdbClient] | None = None
        self._southbound = Race(self._keep)
        self._chassis = Race(self._keep)
        self._lists: _Lists | None = None
        self._claims: dict[str, _Claims] = {}  # by the port's UUID

    def configured(self, world: World) -> bool:
        """Where this host's own Northbound server leads, or did so last; and some Southbound server is known."""
        there = [name for name in world.databases if name in world.applicable or name in world.memory.models]
        return self._leading.here(world) and any(name.startswith(f"{SB}@") for name in there)

    def question(self, world: World) -> Hashable:
        """Whom to ask."""
        chosen = _chosen(world)
        return chosen.source if chosen is not None else None

    async def read(self, world: World) -> Propagation:
        """One look.

        Raises:
            SourceError: MISSING where no Southbound server serves; as Northbound's where that does not answer.
        """
        own = own_northbound(world)
        nb_cfg = (own.globals and own.globals.nb_cfg) or 0
        client = self._client(world)
        sb_cfg, reports = await _reports(client)
        now = time.monotonic()
        reporters = frozenset(reports)
        if self._lists is None or self._outdated(self._lists, reporters, now):
            self._lists = await _read_lists(client, reporters, now)
        southbound = self._southbound.look(now, nb_cfg, [(SB, "", sb_cfg)])[SB]
        lags = self._chassis.look(
            now, sb_cfg, ((name, row["_uuid"], _number(row, "nb_cfg")) for name, row in reports.items())
        )
        gone = {
            name: ListedChassis(name=name, hostname="", registered=False)
            for name in reporters - self._lists.chassis.keys()
        }
        return Propagation(
            nb_cfg=nb_cfg,
            sb_cfg=sb_cfg,
            southbound=southbound,
            chassis=MappingProxyType({**self._lists.chassis, **gone}) if gone else self._lists.chassis,
            reported=MappingProxyType(
                {
                    name: self._reported(world, name, row, lags[name])
                    for name, row in reports.items()
                    if name in gone or not self._lists.chassis[name].remote
                }
            ),
            sharing=self._lists.sharing,
            gateways=await self._gateways(client, self._lists),
            listed=self._lists.at,
        )

    async def close(self) -> None:
        """Close the connection."""
        if self._asked is not None:
            self._asked[1].close()

    def _client(self, world: World) -> OvsdbClient:
        chosen = _chosen(world)
        if chosen is None:
            raise SourceError(Reason.MISSING, f"no server of {SB} that serves it answers")
        endpoint = endpoint_of(world, chosen.source)
        if self._asked is None or self._asked[0] != endpoint:
            if self._asked is not None:
                self._asked[1].close()
            deadline = _LOCAL_DEADLINE if endpoint.kind == "unix" else self.deadline
            client = OvsdbClient(endpoint, tls=self._tls, deadline=deadline, max_bytes=_MAX_BYTES)
            self._asked, self._lists = (endpoint, client), None
        return self._asked[1]

    def _outdated(self, lists: _Lists, reporters: frozenset[str], now: float) -> bool:
        old = now - lists.at > (_LISTS_EVERY - 0.5) * self.interval
        return old or reporters != lists.reporters or bool(lists.sharing)

    def _reported(self, world: World, name: str, row: Row, lag: Lag) -> Reported:
        nb_cfg, at = _number(row, "nb_cfg"), row.get("nb_cfg_timestamp")
        overdue = lag.idle >= self._stale and lag.missed > 1
        # What an earlier process knew, or this one under another server; one look that shows progress ends it.
        told = world.memory.stale_chassis.get(name) == nb_cfg
        return Reported(
            nb_cfg=nb_cfg,
            at=at / 1000 if at else None,
            lag=lag,
            stale=lag.behind is not None and (overdue or told),
        )

    async def _gateways(self, client: OvsdbClient, lists: _Lists) -> tuple[Gateway, ...]:
        columns = ("logical_port", "chassis", "ha_chassis_group", "gateway_chassis", "_version")
        rows = await client.select(SB, "Port_Binding", columns, [("type", "==", "chassisredirect")])
        claims = {row["_uuid"]: self._claims.get(row["_uuid"]) or _Claims() for row in rows or ()}
        self._claims = claims
        window = _WINDOW * self.interval
        changed = [row["_uuid"] for row in rows or () if self._note(row["_uuid"], row["chassis"], row["_version"])]
        restless = [uuid for uuid, of in claims.items() if of.moves or of.storms]
        if closely := list(dict.fromkeys(changed + restless))[:_LOOKED_AT]:
            await self._look_closely(client, closely)
        for of in claims.values():
            for times in (of.moves, of.storms):
                while times and time.monotonic() - times[0] > window:
                    times.popleft()
        found = [
            Gateway(
                port=row["logical_port"],
                # One that has just come is not in the list of this read.
                chassis=None if row["chassis"] is None else lists.names.get(row["chassis"], row["chassis"]),
                preferred=_preferred(row, lists),
                moves=len(claims[row["_uuid"]].moves),
                storms=len(claims[row["_uuid"]].storms),
                window=window,
            )
            for row in rows or ()
        ]
        return tuple(sorted(found, key=lambda g: g.port))

    def _note(self, uuid: str, chassis: str | None, version: str) -> bool:
        """Take down who has it now; whether the row has changed since it was last seen."""
        of = self._claims[uuid]
        if chassis is not None and chassis != of.chassis:
            if of.chassis is not None:
                of.moves.append(time.monotonic())
            of.chassis = chassis
        before, of.version = of.version, version
        return before not in (None, version)

    async def _look_closely(self, client: OvsdbClient, uuids: list[str]) -> None:
        """Two that claim one gateway by turns rewrite its row several times a second.

        Who is seen to have it need not change: OVN lets each of them claim it twice a second at most, so that one has
        it for some milliseconds, and the other for the rest of the time.
        """
        rewritten = dict.fromkeys(uuids, 0)
        for _ in range(_LOOKS):
            await asyncio.sleep(_LOOK_EVERY)
            for uuid, row in (await client.select_each(SB, "Port_Binding", ("chassis", "_version"), uuids)).items():
                rewritten[uuid] += self._note(uuid, as_optional(row["chassis"]), as_atom(row["_version"]))
        for uuid, times in rewritten.items():
            if times >= _REWRITTEN:
                self._claims[uuid].storms.append(time.monotonic())


def _chosen(world: World) -> Known | None:
    """The writer of a standalone database; of a cluster a member that is in it, of this host for choice."""
    serving = [
        k
        for k in known(world, Database.SOUTHBOUND)
        if isinstance(k.seen, Fresh)
        and (k.seen.value.leads if k.seen.value.model is Model.STANDALONE else k.seen.value.connected)
    ]
    return serving[0] if serving else None  # ``local`` is the first of all


async def _reports(client: OvsdbClient) -> tuple[int, Mapping[str, Row]]:
    """Southbound's number, and of each chassis the row in which it reports, of one moment."""
    columns = ("name", "nb_cfg", "nb_cfg_timestamp")
    wanted = (("SB_Global", ("nb_cfg",), ()), ("Chassis_Private", columns, ()))
    sb_global, rows = await client.select_at_once(SB, *wanted)
    if rows is None:  # OVN before 20.09, where all of it is in Chassis
        sb_global, rows = await client.select_at_once(SB, wanted[0], ("Chassis", columns, ()))
    if sb_global is None or rows is None:
        raise SourceError(Reason.GARBAGE, f"{client.endpoint}: no {SB}: it has no table Chassis")
    return _number(sb_global[0], "nb_cfg") if sb_global else 0, {row["name"]: row for row in rows}


async def _read_lists(client: OvsdbClient, reporters: frozenset[str], now: float) -> _Lists:
    rows = await client.select(SB, "Chassis", ("name", "hostname", "other_config", "external_ids")) or []
    encaps: dict[str, list[tuple[str, str]]] = {}
    for row in await client.select(SB, "Encap", ("type", "ip", "chassis_name")) or []:
        encaps.setdefault(row["chassis_name"], []).append((row["type"], row["ip"]))
    chassis = {
        row["name"]: ListedChassis(
            name=row["name"],
            hostname=row["hostname"],
            encaps=tuple(sorted(encaps.get(row["name"], ()))),
            remote="true" in (row.get(of, {}).get("is-remote") for of in ("other_config", "external_ids")),
        )
        for row in rows
    }
    return _Lists(
        at=now,
        reporters=reporters,
        chassis=MappingProxyType(chassis),
        sharing=MappingProxyType(sharing_hostname(chassis)),
        names={row["_uuid"]: row["name"] for row in rows},
        priorities=await _priorities(client),
    )


async def _priorities(client: OvsdbClient) -> dict[str, tuple[tuple[str | None, int], ...]]:
    """Of the candidates for gateways, by group, or one by one as before OVN 20.03 (ovn-sb(5), Gateway_Chassis)."""
    columns = ("chassis", "priority")
    members = {row["_uuid"]: row for row in await client.select(SB, "HA_Chassis", columns) or ()}
    found = {
        group["_uuid"]: tuple(
            (members[uuid]["chassis"], members[uuid]["priority"]) for uuid in group["ha_chassis"] if uuid in members
        )
        for group in await client.select(SB, "HA_Chassis_Group", ("ha_chassis",)) or ()
    }
    for row in await client.select(SB, "Gateway_Chassis", columns) or ():
        found[row["_uuid"]] = ((row["chassis"], row["priority"]),)
    return found


def _preferred(row: Row, lists: _Lists) -> bool | None:
    """Whether whoever has it is of the highest priority; None where none has, or that is not known."""
    group = row.get("ha_chassis_group")
    of = [group] if group else row.get("gateway_chassis", ())
    candidates = [candidate for uuid in of for candidate in lists.priorities.get(uuid, ())]
    if row["chassis"] is None or not candidates:
        return None
    best = max(priority for _, priority in candidates)
    return row["chassis"] in {chassis for chassis, priority in candidates if priority == best}


def _number(row: Row, column: str) -> int:
    value = row.get(column)
    if type(value) is not int:
        raise SourceError(Reason.GARBAGE, f"{SB}: {column} is {value!r:.40}")
    return value
