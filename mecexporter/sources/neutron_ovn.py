"""Neutron's objects against Northbound's rows, where Northbound is written, so that a site does it once.

Northbound is read first: what it holds by then Neutron has ordered before, so that no row is ahead for having been read
late. All is let go of afterwards but what differs; that is looked at again, on both sides, before it is told.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from mecexporter.aside import aside
from mecexporter.drift.compare import compare, numbers
from mecexporter.drift.neutron import FIELDS, Neutron
from mecexporter.drift.northbound import COLUMNS, Northbound
from mecexporter.drift.watch import Watch
from mecexporter.errors import Reason, SourceError
from mecexporter.sources.base import Source
from mecexporter.sources.leading import OWN, Leading, endpoint_of, own_northbound
from mecexporter.sources.neutron import projects_of, with_bindings
from mecexporter.sources.wire import lists
from mecexporter.sources.wire.ovsdb import OvsdbClient
from mecexporter.state.neutron_ovn import NeutronAudit, Resource
from mecexporter.state.ovn_db import Database
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mecexporter.drift.watch import Key
    from mecexporter.sources.wire.cloud import Cloud
    from mecexporter.sources.wire.endpoint import Endpoint, TlsFiles
    from mecexporter.state.neutron_ovn import Drift
    from mecexporter.state.world import World

NB = str(Database.NORTHBOUND)
_LISTS = {
    Resource.NETWORK: "networks",
    Resource.ROUTER: "routers",
    Resource.SECURITY_GROUP: "security-groups",
    Resource.SUBNET: "subnets",
    Resource.FLOATING_IP: "floatingips",
    Resource.PORT: "ports",
    Resource.ROUTER_PORT: "ports",
}
_OF_PORTS = ("Logical_Switch_Port", "Logical_Router_Port", "Port_Group")
_TABLES = {
    "networks": ("Logical_Switch",),
    "routers": ("Logical_Router",),
    "security-groups": ("Port_Group",),
    "subnets": ("DHCP_Options",),
    "floatingips": ("NAT",),
    "ports": _OF_PORTS,
}
_ORDER = ("routers", "networks", "subnets", "security-groups", "floatingips", "ports")
"""Routers first, as :meth:`Neutron.add` wants it."""

_BY_IDS = 1000
"""Objects that are looked at again one by one; of more, all are."""
_ADMINS = frozenset({"binding:host_id"})
"""What ports have for an administrator alone."""
_DEADLINE = 30.0
_MAX_BYTES = 512 << 20


class NeutronOvnSource(Source[NeutronAudit]):
    """Lists all that Northbound must hold, at each read in turn; out of turn, only what differed.

    Args:
        cloud: whose.
        tls: for ``ssl:`` endpoints.
        interval: seconds between reads.
    """

    name = "neutron_ovn"
    roles = frozenset({Role.CENTRAL})
    deadline = 600.0
    shared = True
    retry = 15.0
    rereads = True
    needs = (OWN,)

    def __init__(self, cloud: Cloud, *, tls: TlsFiles | None, interval: float) -> None:
        self.interval = interval
        self._cloud = cloud
        self._tls = tls
        self._leading = Leading()
        self._asked: tuple[Endpoint, OvsdbClient] | None = None
        self._watch = Watch()
        self._audited: float | None = None
        self._numbers: dict[Resource, int] = {}
        self._foreign: frozenset[str] = frozenset()

    def configured(self, world: World) -> bool:
        """Where this host's own Northbound server leads, or did so last."""
        return self._leading.here(world)

    async def read(self, world: World) -> NeutronAudit:
        """One look.

        Raises:
            SourceError: one of the lists or tables can't be read, or not all of it is shown: PERMISSION.
        """
        own_northbound(world)
        client = self._client(world)
        began = time.monotonic()
        audited, self._audited = self._audited, None  # whatever fails, an audit is next
        keys = frozenset(self._watch.keys())
        # A read out of turn comes well before the next in turn (jitter: a tenth).
        in_turn = audited is None or began - audited > 0.85 * self.interval
        if in_turn or not 0 < len(keys) <= _BY_IDS:
            audited, drifts = began, await self._audit(client)
        else:
            drifts = await self._look_again(client, keys)
        told = self._watch.follow(drifts, time.monotonic())
        self._audited = audited
        return NeutronAudit(ordered=self._numbers, drifts=told)

    async def close(self) -> None:
        """Close the connection."""
        if self._asked is not None:
            self._asked[1].close()

    async def _audit(self, client: OvsdbClient) -> tuple[Drift, ...]:
        northbound = await _northbound(client, COLUMNS, Northbound())
        neutron = Neutron()
        projects: set[str] = set()
        for what in _ORDER:
            await self._list(what, neutron, projects)
        await self._prove_all_are_seen(projects)
        self._numbers, self._foreign = numbers(neutron), frozenset(neutron.foreign)
        return await aside(_compared, neutron, northbound)

    async def _look_again(self, client: OvsdbClient, keys: frozenset[Key]) -> tuple[Drift, ...]:
        ids: dict[str, set[str]] = {}
        for resource, uuid in keys:
            ids.setdefault(_LISTS[resource], set()).add(uuid)
        tables = dict.fromkeys(table for what in ids for table in _TABLES[what])
        wanted = Northbound(only=frozenset(uuid for of in ids.values() for uuid in of))
        northbound = await _northbound(client, tables, wanted)
        neutron = Neutron(foreign=set(self._foreign))
        for what in _ORDER:
            if what in ids:
                rows = await lists.by(self._cloud, what, "id", ids[what], fields=FIELDS[what])
                _add(neutron, what, rows.values())
        return tuple(drift for drift in _compared(neutron, northbound) if (drift.resource, drift.uuid) in keys)

    async def _list(self, what: str, neutron: Neutron, projects: set[str]) -> None:
        def take(page: list[dict[str, Any]]) -> None:
            if what == "ports":
                projects.update(projects_of(with_bindings(page, _ADMINS)))
            _add(neutron, what, page)

        begin = partial(neutron.begin, what)
        await lists.whole(self._cloud, what, FIELDS[what], begin=begin, take=take, gently=True)

    async def _prove_all_are_seen(self, projects: set[str]) -> None:
        """Raises SourceError unless the role says it, or ports of other projects are among those that are listed.

        To whoever is no administrator Neutron lists the own project alone, and all other rows would seem to be extra.
        """
        caller = await self._cloud.caller()
        if not caller.admin and not projects - {caller.project}:
            why = (
                "network /ports: no port of another project is seen: who asks must be allowed to list those of all "
                "projects, as with the role admin (Neutron's policy context_is_admin)"
            )
            raise SourceError(Reason.PERMISSION, why)

    def _client(self, world: World) -> OvsdbClient:
        endpoint = endpoint_of(world, OWN)
        if self._asked is None or self._asked[0] != endpoint:
            client = OvsdbClient(endpoint, tls=self._tls, deadline=_DEADLINE, max_bytes=_MAX_BYTES)
            self._asked = (endpoint, client)
        return self._asked[1]


async def _northbound(client: OvsdbClient, tables: Iterable[str], into: Northbound) -> Northbound:
    for table in tables:
        if not await client.each(NB, table, COLUMNS[table], partial(into.add, table)):
            raise SourceError(Reason.GARBAGE, f"{client.endpoint}: no {NB}: it has no table {table}")
    return into


def _add(neutron: Neutron, what: str, rows: Iterable[dict[str, Any]]) -> None:
    for row in rows:
        try:
            neutron.add(what, row)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            why = f"network /{what}: an object without what is needed: {type(error).__name__} {error}"
            raise SourceError(Reason.GARBAGE, why) from None


def _compared(neutron: Neutron, northbound: Northbound) -> tuple[Drift, ...]:
    return tuple(compare(neutron, northbound))
