"""Neutron's ledger: which port names which PCI device of which host."""

from __future__ import annotations

import re
from sys import intern
from typing import TYPE_CHECKING, Any

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.base import Source
from mecexporter.sources.wire import lists
from mecexporter.state.observed import Fresh
from mecexporter.state.openstack import Port
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from collections.abc import Hashable

    from mecexporter.sources.wire.cloud import Cloud
    from mecexporter.state.world import World

_SAMPLE = 100
"""Ports of whatever host among which one of another project is looked for."""
_FIELDS = (
    *("id", "device_id", "device_owner", "binding:host_id", "binding:vnic_type", "binding:profile"),
    *("project_id", "security_groups"),
)
_ADMINS = frozenset({"binding:host_id", "binding:profile"})
"""Neutron leaves them out for whoever may not see them; without them no port would seem to name a device."""
_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_SWITCHED = frozenset({"vdpa", "remote-managed"})
"""vnic types that only a NIC in switchdev mode has."""
_NAMED = 2


class NeutronSource(Source[tuple[Port, ...]]):
    """Lists ports with the fields that are needed, page by page, of this host or of all.

    ``vnic_type`` can't be asked for (the API answers 400), and ``pci_slot`` lies in ``binding:profile`` alone. To
    whoever is no administrator Neutron lists the ports of the own project, without a word of others: a claim of Nova's
    that no port names is believed to be without one only where it is known that the ports of all projects are seen. So
    is the list as such where no claims of Nova's are there to hold it against.

    Args:
        cloud: whose.
        every_host: whether all hosts' ports are wanted, or this one's.
        interval: seconds between reads.
    """

    name = "neutron"
    roles = frozenset({Role.API})
    deadline = 240.0
    shared = True
    retry = 15.0
    rereads = True

    def __init__(self, cloud: Cloud, *, every_host: bool, interval: float) -> None:
        self.interval = interval
        self._cloud = cloud
        self._every_host = every_host

    def question(self, world: World) -> Hashable:
        """Whose ports."""
        return None if self._every_host else world.hostname

    async def read(self, world: World) -> tuple[Port, ...]:
        """Raises SourceError."""
        host = None if self._every_host else world.hostname
        found, projects = await self._list(host)
        missed = _missed(world, host, found)
        if missed or not _claims_awaited(world):
            await self._prove_all_are_seen(projects, missed)
        return found

    async def _prove_all_are_seen(self, projects: set[str], missed: list[str]) -> None:
        """Raises SourceError unless the role says it, or a port of another project is among those that are listed."""
        caller = await self._cloud.caller()
        if caller.admin or projects - {caller.project}:
            return
        page = with_bindings(await lists.first(self._cloud, "ports", _FIELDS, _SAMPLE))
        if not projects_of(page) - {caller.project}:
            claims = f", and Nova has claims that no port names ({', '.join(missed[:_NAMED])})" if missed else ""
            why = (
                f"network /ports: no port of another project is seen{claims}: who asks must be allowed to list the "
                "ports of all projects, as with the role admin (Neutron's policy context_is_admin)"
            )
            raise SourceError(Reason.PERMISSION, why)

    async def _list(self, host: str | None) -> tuple[tuple[Port, ...], set[str]]:
        """The ports that name a device, and the projects of all that were listed."""
        found: dict[str, Port] = {}
        projects: set[str] = set()

        def begin() -> None:
            found.clear()
            projects.clear()

        def take(page: list[dict[str, Any]]) -> None:
            ports = map(_port, with_bindings(page))
            found.update({port.uuid: port for port in ports if port is not None})
            projects.update(projects_of(page))

        of_host = [] if host is None else [("binding:host_id", host)]
        await lists.whole(self._cloud, "ports", _FIELDS, begin=begin, take=take, filters=of_host)
        return tuple(found.values()), projects


def with_bindings(page: list[dict[str, Any]], wanted: frozenset[str] = _ADMINS) -> list[dict[str, Any]]:
    """Raises SourceError where the caller is not shown them."""
    if any("id" in row and not row.keys() >= wanted for row in page):
        why = "network /ports: the answer has no bindings: who asks must be allowed to see them, as an admin is"
        raise SourceError(Reason.PERMISSION, why)
    return page


def projects_of(page: list[dict[str, Any]]) -> set[str]:
    """Whose ports these are; Neutron's own belong to nobody."""
    return {project for row in page if isinstance(project := row.get("project_id"), str) and project}


def _missed(world: World, host: str | None, ports: tuple[Port, ...]) -> list[str]:
    """What Nova has claimed in scope for other than flavours, as far as its cells answer, and no port names."""
    named = {(port.host.casefold(), port.address) for port in ports}
    cells = [cell.value for name, cell in world.cells.items() if name in world.applicable and isinstance(cell, Fresh)]
    return [
        f"{row.host}/{row.address}"
        for cell in cells
        for row in cell.devices
        if row.claimed
        and not row.flavour
        and (host is None or row.host.casefold() == host.casefold())
        and (row.host.casefold(), row.address) not in named
    ]


def _claims_awaited(world: World) -> bool:
    """Whether a cell of Nova's has told its claims, or was not asked for them yet."""
    cells = [cell for name, cell in world.cells.items() if name in world.applicable]
    return any(isinstance(cell, Fresh) or cell.reason is Reason.PENDING for cell in cells)


def _port(row: dict[str, Any]) -> Port | None:
    """None where it names no device, is bound to no host, or belongs to no instance."""
    profile = row.get("binding:profile")
    profile = profile if isinstance(profile, dict) else {}
    address = profile.get("pci_slot")
    texts = [row.get(key) for key in ("id", "binding:host_id", "device_id", "device_owner", "binding:vnic_type")]
    if not isinstance(address, str) or not all(isinstance(text, str) and text for text in texts):
        return None
    uuid, host, instance, owner, vnic = map(str, texts)
    if not owner.startswith("compute:") or not _ADDRESS.fullmatch(address.lower()):
        return None
    groups, able = row.get("security_groups"), profile.get("capabilities")
    return Port(
        uuid=uuid,
        host=host,
        address=address.lower(),
        instance=instance,
        vnic=vnic,
        project=str(row.get("project_id") or ""),
        groups=tuple(intern(g) for g in groups if isinstance(g, str)) if isinstance(groups, list) else (),
        switched=vnic in _SWITCHED or (vnic == "direct" and isinstance(able, list) and "switchdev" in able),
    )
