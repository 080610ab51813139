"""The Open_vSwitch database of this host (ovs-vswitchd.conf.db(5)).

Two ways at once. A raw select of the interfaces' statistics is asked at each read: hot columns, that no replica should
follow, and the proof that the server answers now. What changes seldom is kept by ovsdbapp; the select's rows are held
against the copy's, and a copy that stays different is made anew.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mecexporter.aside import aside
from mecexporter.errors import Reason, SourceError
from mecexporter.sources.base import Source
from mecexporter.sources.wire.endpoint import Endpoint
from mecexporter.sources.wire.jsonrpc import JsonRpcStream
from mecexporter.sources.wire.ovsdb import OvsdbClient
from mecexporter.sources.wire.ovsdb_live import Replica, Tables
from mecexporter.state.ovs import Bridge, Counters, Interface, InterfaceKind, OvsConf
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mecexporter.state.world import World

DB = "Open_vSwitch"
COLUMNS = {
    "Open_vSwitch": ("external_ids", "other_config", "db_version", "bridges"),
    "Bridge": ("name", "ports", "external_ids", "datapath_type"),
    "Port": ("name", "interfaces", "external_ids"),
    "Interface": ("name", "type", "external_ids", "ofport", "error", "link_state", "bfd_status"),
}
_IDX = "ovn-chassis-idx-"  # ovn-controller's note of each id it went by
_TUNNELS = frozenset(
    {"geneve", "vxlan", "gre", "ip6gre", "stt", "erspan", "ip6erspan", "gtpu", "bareudp", "srv6", "lisp"}
)
_DEVICES = frozenset({"", "system", "dpdk", "afxdp", "dummy", "netdev"})
_COPY_AGAIN = 3600.0  # seconds after which the copy is made anew, whatever it looks like
_FIRST_COPY = 60.0  # seconds that the first copy may take: 5,000 interfaces take 5 on an idle machine
_PATIENCE = 3.0  # seconds that one read waits for it
_SETTLE = 1.0  # seconds that the copy may lag behind a select


@dataclass(frozen=True, slots=True)
class _Copy:
    """What the replica froze."""

    external_ids: Mapping[str, str]
    other_config: Mapping[str, str]
    schema_version: str | None
    integration_bridge: str
    bridges: tuple[Bridge, ...]
    interfaces: Mapping[str, Interface]  # by row UUID


class OvsSource(Source[OvsConf]):
    """Reads conf.db.

    Args:
        database: OVSDB connection string.
        integration_bridge: a name that overrides external_ids:ovn-bridge, or None.
        interval: seconds between reads.
    """

    name = "ovs"
    roles = frozenset({Role.COMPUTE})

    def __init__(self, database: str, integration_bridge: str | None, interval: float) -> None:
        self.interval = interval
        self._database = database
        self._integration_bridge = integration_bridge
        self._endpoint = Endpoint.parse(database)
        self._client = OvsdbClient(self._endpoint)
        self._replica: Replica[_Copy] | None = None
        self._made = 0.0
        self._lagging: set[str] = set()  # rows that the copy lacked, or had too many, at the last read
        self._traffic = Traffic()

    async def read(self, world: World) -> OvsConf:  # noqa: ARG002  # asks the same whatever the World
        """Raises SourceError; PENDING while the first copy is being made."""
        try:
            statistics = await self._statistics()
            copy = await self._copy(statistics.keys())
        except BaseException as error:
            # Whoever is behind the socket now, ovsdbapp must not go on talking to it unwatched. But while the server
            # answers our select, a copy that takes its time is left to it.
            if not (isinstance(error, SourceError) and error.reason is Reason.PENDING):
                await self._drop()
            raise
        return self._conf(copy, statistics)

    async def close(self) -> None:
        """Close the connections and end the thread."""
        self._client.close()
        await self._drop()

    async def _statistics(self) -> dict[str, Mapping[str, int]]:
        rows = await self._client.select(DB, "Interface", ("statistics",))
        if rows is None:
            raise SourceError(Reason.GARBAGE, f"{self._endpoint}: {DB} has no table Interface")
        return {row["_uuid"]: row.get("statistics", {}) for row in rows}

    async def _copy(self, uuids: Iterable[str]) -> _Copy:
        """The copy, once it has the rows that the server has."""
        if self._replica is not None and time.monotonic() - self._made > _COPY_AGAIN:
            await self._drop()
        if self._replica is None:
            await self._make()
        copy = await self._value()
        differing = set(uuids) ^ copy.interfaces.keys()
        if not differing:
            self._lagging = set()
            return copy
        # Rows come and go between the two looks; what still differs in a second pair of looks is lag or loss.
        await asyncio.sleep(_SETTLE)
        copy = await self._value()
        differing &= set(await self._statistics()) ^ copy.interfaces.keys()
        if differing & self._lagging:
            raise SourceError(Reason.STALE, f"{self._endpoint}: the copy of {DB} lacks what the server has for long")
        self._lagging = differing
        return copy

    async def _value(self) -> _Copy:
        """What the copy holds; waits for the first a little, as most take no time."""
        assert self._replica is not None  # noqa: S101  # _copy() has seen to it
        patience = asyncio.get_running_loop().time() + _PATIENCE
        while True:
            try:
                return await aside(self._replica.value)
            except SourceError as error:
                if error.reason is not Reason.PENDING or asyncio.get_running_loop().time() > patience:
                    raise
            await asyncio.sleep(0.05)

    async def _make(self) -> None:
        stream = await JsonRpcStream.open(self._endpoint, deadline=self.deadline)
        try:
            schema = await stream.call("get_schema", [DB])
        finally:
            stream.close()
        if not isinstance(schema, dict) or not isinstance(schema.get("tables"), dict):
            raise SourceError(Reason.GARBAGE, f"{self._endpoint}: the schema of {DB} has not the form of RFC 7047")
        self._replica = Replica(
            self._database,
            schema,
            COLUMNS,
            partial(_freeze, configured_bridge=self._integration_bridge),
            timeout=_FIRST_COPY,
        )
        self._made = time.monotonic()
        self._replica.start()

    async def _drop(self) -> None:
        if self._replica is not None:
            replica, self._replica = self._replica, None
            self._lagging = set()
            await asyncio.shield(aside(replica.stop))

    def _conf(self, copy: _Copy, statistics: Mapping[str, Mapping[str, int]]) -> OvsConf:
        ids = copy.external_ids
        counters = {uuid: _counters(statistics.get(uuid, {})) for uuid in copy.interfaces}
        self._traffic.add({(i.kind, uuid): counters[uuid] for uuid, i in copy.interfaces.items()})
        return OvsConf(
            system_id=ids.get("system-id"),
            hostname=ids.get("hostname") or None,
            ovn_remote=ids.get("ovn-remote") or None,
            encap_types=_words(ids.get("ovn-encap-type", "")),
            encap_ips=_words(ids.get("ovn-encap-ip", "")),
            ovn_settings={k: v for k, v in sorted(ids.items()) if k.startswith("ovn-") or k == "hostname"},
            integration_bridge=copy.integration_bridge,
            remembered_ids=tuple(sorted(k.removeprefix(_IDX) for k in copy.other_config if k.startswith(_IDX))),
            schema_version=copy.schema_version,
            bridges=copy.bridges,
            interfaces=tuple(copy.interfaces.values()),
            traffic_by_kind=self._traffic.sums(),
            traffic={
                (i.bridge, i.name): counters[uuid]
                for uuid, i in copy.interfaces.items()
                if i.error or i.kind in (InterfaceKind.UPLINK, InterfaceKind.TUNNEL)
            },
            hw_offload=copy.other_config.get("hw-offload", "").lower() == "true",
            tc_policy=copy.other_config.get("tc-policy") or "none",
        )


class Traffic:
    """Sums by kind that never fall, though interfaces come, go and begin again at 0."""

    def __init__(self) -> None:
        self._last: dict[str, Counters] = {}  # by row UUID: an interface may come to be of another kind
        self._sums: dict[InterfaceKind, dict[str, int]] = defaultdict(lambda: dict.fromkeys(_COUNTERS, 0))

    def add(self, now: dict[tuple[InterfaceKind, str], Counters]) -> None:
        """Add what each interface has counted since the last look; at the first look at it, nothing.

        A row may be new while its device is old, with all that has ever passed it in its counters.
        """
        for (kind, uuid), counters in now.items():
            sums = self._sums[kind]
            before = self._last.get(uuid)
            if before is None:
                continue
            for name in _COUNTERS:
                new, old = getattr(counters, name), getattr(before, name)
                sums[name] += new - old if new >= old else new
        self._last = {uuid: counters for (_, uuid), counters in now.items()}

    def sums(self) -> dict[InterfaceKind, Counters]:
        """By kind, of all kinds ever seen."""
        return {kind: Counters(**sums) for kind, sums in sorted(self._sums.items())}


_COUNTERS = Counters._fields


def _counters(statistics: Mapping[str, int]) -> Counters:
    return Counters(**{name: statistics.get(name, 0) for name in _COUNTERS})


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _freeze(tables: Tables, *, configured_bridge: str | None) -> _Copy:
    """Values of the live rows.

    Raises:
        SourceError: GARBAGE where the one row of Open_vSwitch is not there.
    """
    roots = list(tables["Open_vSwitch"].rows.values())
    if len(roots) != 1:
        raise SourceError(Reason.GARBAGE, f"{DB} has {len(roots)} root rows, not one")
    root = roots[0]
    integration = configured_bridge or root.external_ids.get("ovn-bridge") or "br-int"
    bridges = sorted(root.bridges, key=lambda b: str(b.name))
    return _Copy(
        external_ids=dict(root.external_ids),
        other_config=dict(root.other_config),
        schema_version=_first(root.db_version),
        integration_bridge=integration,
        bridges=tuple(
            Bridge(
                name=b.name,
                nb_cfg=_number(b.external_ids.get("ovn-nb-cfg")),
                datapath_type=b.datapath_type or "system",
            )
            for b in bridges
        ),
        interfaces={
            str(i.uuid): _interface(b.name, p, i, integrates=b.name == integration)
            for b in bridges
            for p in sorted(b.ports, key=lambda p: str(p.name))
            for i in p.interfaces
        },
    )


def _interface(bridge: str, port: Any, row: Any, *, integrates: bool) -> Interface:
    iface_id = row.external_ids.get("iface-id")
    return Interface(
        bridge=bridge,
        name=row.name,
        type=row.type or "system",
        kind=_kind(row.type, iface_id, integrates=integrates),
        iface_id=iface_id,
        ovn_installed=row.external_ids.get("ovn-installed") == "true",
        remote_chassis=port.external_ids.get("ovn-chassis-id"),
        ofport=_first(row.ofport),
        error=_first(row.error),
        link_state=_first(row.link_state),
        bfd_state=row.bfd_status.get("state"),
        of_guest=row.external_ids.get("iface-status") == "active",
    )


def _kind(of_type: str, iface_id: str | None, *, integrates: bool) -> InterfaceKind:
    if of_type in _TUNNELS:
        return InterfaceKind.TUNNEL
    if of_type == "patch":
        return InterfaceKind.PATCH
    if iface_id is not None:
        return InterfaceKind.VIF
    if of_type == "internal":
        return InterfaceKind.INTERNAL
    if not integrates and of_type in _DEVICES:
        return InterfaceKind.UPLINK
    return InterfaceKind.OTHER


def _first(optional: Any) -> Any:
    """An optional column comes from ovs as a list of none or one."""
    return optional[0] if optional else None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None
