"""Placement's ledger: how many VFs of which PF are given to consumers, where Placement tracks them at all."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.base import Source
from mecexporter.sources.wire.cloud import listed
from mecexporter.state.openstack import Provider, Stock
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from collections.abc import Hashable

    from mecexporter.sources.wire.cloud import Cloud
    from mecexporter.state.world import World

_TRAIT = "COMPUTE_MANAGED_PCI_DEVICE"
_CLASSES = ("CUSTOM_PCI_", "SRIOV_NET_VF")
_MICROVERSION = "1.28"  # traits in a list: 1.18; consumers' generations: 1.28
_NAME = re.compile(r"(?P<host>.+)_(?P<pf>[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7])")
_MOST_AT_ONCE = 2000  # changed providers read in one go; the others follow at the next


@dataclass(frozen=True, slots=True)
class _Read:
    generation: int
    provider: Provider | None


class PlacementSource(Source[tuple[Provider, ...]]):
    """One request for the list of providers, and two more for each one whose generation has changed.

    There is no bulk read of allocations; ``allocation_candidates`` and ``?resources=`` leave out full providers.

    Args:
        cloud: whose.
        every_host: whether all hosts' providers are wanted, or this one's.
        classes: resource classes of the operator's own that stand for VFs; with them all providers are looked at.
        interval: seconds between reads.
    """

    name = "placement"
    roles = frozenset({Role.API})
    deadline = 240.0
    shared = True
    retry = 15.0
    rereads = True

    def __init__(self, cloud: Cloud, *, every_host: bool, classes: frozenset[str], interval: float) -> None:
        self.interval = interval
        self._cloud = cloud
        self._every_host = every_host
        self._classes = classes
        self._known: dict[str, _Read] = {}

    def question(self, world: World) -> Hashable:
        """Whose providers."""
        return None if self._every_host else world.hostname

    async def read(self, world: World) -> tuple[Provider, ...]:
        """Raises SourceError."""
        params = [] if self._classes else [("required", _TRAIT)]
        answer = await self._cloud.get("placement", "/resource_providers", params, _MICROVERSION)
        rows = [row for row in map(_row, listed(answer, "resource_providers", "placement /resource_providers")) if row]
        host = None if self._every_host else world.hostname.casefold()
        wanted = {uuid: (name, generation) for uuid, name, generation in rows if host is None or _of(name, host)}
        self._known = {uuid: read for uuid, read in self._known.items() if uuid in wanted}
        changed = [
            uuid
            for uuid, (_, generation) in wanted.items()
            if uuid not in self._known or self._known[uuid].generation != generation
        ]
        if len(changed) > _MOST_AT_ONCE:
            for uuid in changed[:_MOST_AT_ONCE]:
                await self._look(uuid, *wanted[uuid])
            rest = len(changed) - _MOST_AT_ONCE
            raise SourceError(Reason.TIMEOUT, f"{rest} of {len(wanted)} providers are still to be read")
        for uuid in changed:
            await self._look(uuid, *wanted[uuid])
        return tuple(read.provider for read in self._known.values() if read.provider is not None)

    async def _look(self, uuid: str, name: str, generation: int) -> None:
        try:
            inventories = await self._ask(uuid, "inventories")
            allocations = await self._ask(uuid, "allocations")
        except SourceError as error:
            if error.reason is Reason.MISSING:  # deleted since it was listed
                self._known.pop(uuid, None)
                return
            raise
        provider = self._provider(uuid, name, inventories, allocations)
        # An allocation made between the two reads has raised the generation: it is read again at the next turn.
        self._known[uuid] = _Read(generation, provider)

    async def _ask(self, uuid: str, what: str) -> dict[str, Any]:
        path = f"/resource_providers/{uuid}/{what}"
        answer = await self._cloud.get("placement", path, microversion=_MICROVERSION)
        found = answer.get(what) if isinstance(answer, dict) else None
        if not isinstance(found, dict):
            raise SourceError(Reason.GARBAGE, f"placement {path}: no {what} in the answer")
        return found

    def _is_of_vfs(self, resource: str) -> bool:
        return resource in self._classes or resource.startswith(_CLASSES)

    def _provider(
        self, uuid: str, name: str, inventories: dict[str, Any], allocations: dict[str, Any]
    ) -> Provider | None:
        """None where it holds no VFs."""
        used: Counter[str] = Counter()
        for consumer in allocations.values():
            given = consumer.get("resources") if isinstance(consumer, dict) else None
            if not isinstance(given, dict):
                raise SourceError(Reason.GARBAGE, f"placement: an allocation of {name} without resources")
            used.update({c: _count(given, c) for c in given if self._is_of_vfs(c)})
        classes = sorted({*filter(self._is_of_vfs, inventories), *used})
        stock = {c: _stock(inventories.get(c), used[c]) for c in classes}
        if not stock:
            return None
        found = _NAME.fullmatch(name)
        return Provider(
            uuid=uuid,
            name=name,
            host=found["host"] if found else name,
            pf=found["pf"].lower() if found else None,
            stock=stock,
        )


def _stock(inventory: object, used: int) -> Stock:
    if inventory is None:
        return Stock(total=0, reserved=0, used=used)
    return Stock(total=_count(inventory, "total"), reserved=_count(inventory, "reserved"), used=used)


def _count(inventory: object, key: str) -> int:
    value = inventory.get(key) if isinstance(inventory, dict) else None
    if not isinstance(value, int) or isinstance(value, bool):
        raise SourceError(Reason.GARBAGE, f"placement: {key} of an inventory or allocation is no number")
    return value


def _row(row: dict[str, Any]) -> tuple[str, str, int] | None:
    uuid, name, generation = (row.get(key) for key in ("uuid", "name", "generation"))
    if isinstance(uuid, str) and isinstance(name, str) and isinstance(generation, int):
        return uuid, name, generation
    return None


def _of(name: str, host: str) -> bool:
    """Whether a provider is this host's: a hypervisor's hostname may be the host's with its domain."""
    found = _NAME.fullmatch(name)
    own = (found["host"] if found else name).casefold()
    return own == host or own.startswith(f"{host}.") or host.startswith(f"{own}.")
