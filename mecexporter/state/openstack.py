"""What OpenStack's services have written down of PCI devices: Nova's claims, Neutron's ports, Placement's counts.

Addresses are lower case with their domain; hosts are Nova's, which are also Neutron's ``binding:host_id``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

CLAIMED = frozenset({"claimed", "allocated"})
"""Nova's ``PciDeviceStatus`` of a device that an instance has."""


class DeviceKind(StrEnum):
    """Nova's ``pci_devices.dev_type``; others are of no interest here."""

    VF = "type-VF"
    PF = "type-PF"
    VDPA = "vdpa"


@dataclass(frozen=True, slots=True, kw_only=True)
class PciDevice:
    """A row of a cell's ``pci_devices`` that is not deleted.

    Attributes:
        host: ``compute_nodes.host``.
        parent: the PF's address, None at a PF.
        status: Nova's ``PciDeviceStatus``: available, claimed, allocated, removed, unclaimable, unavailable, …
        instance: to whom it is given, None if to nobody.
        flavour: whether a flavour's alias asked for it and not a port (``instance_extra.pci_requests``).
        port: for which port it was claimed, None where Nova does not say.
        physical_network: of the request that it answers, None without one.
    """

    host: str
    address: str
    parent: str | None
    kind: DeviceKind
    status: str
    numa_node: int | None = None
    instance: str | None = None
    flavour: bool = False
    port: str | None = None
    physical_network: str | None = None

    @property
    def claimed(self) -> bool:
        """Whether Nova thinks that an instance has it."""
        return self.status in CLAIMED and self.instance is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A row of a cell's ``instances`` that is not deleted.

    Attributes:
        host: where it is, None while nowhere (shelved and offloaded, or not scheduled).
        moving: whether a migration of it is not ended: under way, or awaiting confirmation.
        context: addresses that its ``migration_context`` names.
    """

    host: str | None
    vm_state: str | None
    task_state: str | None
    moving: bool = False
    context: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What one of Nova's cell databases says.

    Attributes:
        instances: by uuid: those on the hosts in scope and those that have a device there.
        up: host -> whether its nova-compute reports, None where that can't be told from this database; a host without
            the service is not in it.
        disabled: those of them whose nova-compute is disabled: it is given no new instances.
        asked_for: the host in scope, None for all.
    """

    devices: tuple[PciDevice, ...]
    instances: Mapping[str, Instance]
    up: Mapping[str, bool | None]
    disabled: frozenset[str] = frozenset()
    asked_for: str | None = None

    @property
    def knows_host(self) -> bool:
        """Whether the host in scope is one of the cell's: by another name it would seem to have no devices at all."""
        return self.asked_for is None or self.asked_for.casefold() in {host.casefold() for host in self.up}

    @property
    def hosts(self) -> tuple[str, ...]:
        """Those in scope that have a nova-compute."""
        own = None if self.asked_for is None else self.asked_for.casefold()
        return tuple(host for host in self.up if own in (None, host.casefold()))

    @property
    def tells(self) -> bool:
        """Whether it says of the host in scope, or of one at least, that its nova-compute reports or does not."""
        return any(self.up[host] is not None for host in self.hosts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A port of Neutron's that names a PCI device and belongs to an instance.

    Attributes:
        address: ``binding:profile.pci_slot``.
        instance: ``device_id``.
        vnic: ``binding:vnic_type``.
        project: whose it is, '' where Neutron does not say.
        groups: the security groups that it is in; none where its port security is off.
        switched: whether the NIC's embedded switch is to carry it: direct with the capability switchdev, vdpa or
            remote-managed.
    """

    uuid: str
    host: str
    address: str
    instance: str
    vnic: str
    project: str = ""
    groups: tuple[str, ...] = ()
    switched: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityGroup:
    """A security group of Neutron's that names GRE in a rule.

    Attributes:
        stateful: whether connection tracking runs on what it allows; None where this Neutron has no stateless groups,
            so that it always does.
    """

    uuid: str
    name: str
    project: str
    stateful: bool | None

    @property
    def tracked(self) -> bool:
        """Whether connection tracking runs on what it allows."""
        return self.stateful is not False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """VFs of one resource class of a provider.

    Attributes:
        used: allocated to consumers; may be more than ``total``.
    """

    total: int
    reserved: int
    used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A resource provider of Placement's that stands for the VFs of a PF.

    Attributes:
        name: ``<hypervisor hostname>_<PF ADDRESS>``, or as the operator called it.
        host: the name's first part, or the whole name where there is no address.
        pf: its address in lower case, None where the name has none.
        stock: by resource class, of those that stand for VFs; a class may be allocated and have no inventory.
    """

    uuid: str
    name: str
    host: str
    pf: str | None
    stock: Mapping[str, Stock]

    @property
    def overdrawn(self) -> Mapping[str, Stock]:
        """The classes of which more is allocated than there is; none makes up for another."""
        return {name: one for name, one in self.stock.items() if one.used > one.total}
