"""Neutron's objects, of what its API answers, as far as Northbound must hold them (networking-ovn's ``ovn_client``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from sys import intern
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

FIELDS = {
    "networks": ("id", "revision_number"),
    "routers": ("id", "revision_number", "flavor_id"),
    "security-groups": ("id",),
    "subnets": ("id", "revision_number", "enable_dhcp", "ip_version", "ipv6_address_mode"),
    "floatingips": (*("id", "revision_number", "port_id", "router_id", "floating_ip_address", "fixed_ip_address"),),
    "ports": (
        *("id", "revision_number", "name", "device_id", "device_owner", "mac_address", "fixed_ips", "admin_state_up"),
        *("allowed_address_pairs", "port_security_enabled", "security_groups", "project_id", "binding:host_id"),
    ),
}
"""What is asked of each list."""

_FLOATING = "network:floatingip"
_ROUTERS = ("network:router_", "network:ha_router_")
"""What the owners begin with whose ports join a network to a router."""
_TRUSTED = "network:"
"""Owners whose ports are in no group, and not held to their addresses."""
_SLAAC = "slaac"
_BALANCER = "ovn-lb-vip-"
"""Ports of Octavia's: without addresses in Northbound while nobody has them."""


class PortOrder(NamedTuple):
    """What the row of a port must hold.

    Attributes:
        pairs: addresses that may be in the row besides.
        secured: whether only traffic of its own addresses passes.
        groups: None where the port is in none, whatever Neutron says.
        balancer: whether its addresses may be left out.
    """

    mac: str
    ips: tuple[str, ...]
    pairs: frozenset[str]
    secured: bool
    groups: frozenset[str] | None
    enabled: bool
    balancer: bool


class Order(NamedTuple):
    """An object by its revision; a port with its content, a floating IP with its address and the fixed one."""

    revision: int | None
    port: PortOrder | None = None
    addresses: tuple[str, ...] = ()


@dataclass(slots=True)
class Neutron:
    """All objects of one look, by UUID.

    Attributes:
        foreign: routers of a flavour, which another driver than OVN's makes.
    """

    networks: dict[str, Order] = field(default_factory=dict)
    routers: dict[str, Order] = field(default_factory=dict)
    ports: dict[str, Order] = field(default_factory=dict)
    router_ports: dict[str, Order] = field(default_factory=dict)
    security_groups: dict[str, Order] = field(default_factory=dict)
    subnets: dict[str, Order] = field(default_factory=dict)
    floating_ips: dict[str, Order] = field(default_factory=dict)
    foreign: set[str] = field(default_factory=set)

    def begin(self, what: str) -> None:
        """Nothing of a list yet, or no more."""
        for of in {
            "networks": (self.networks,),
            "routers": (self.routers,),
            "security-groups": (self.security_groups,),
            "subnets": (self.subnets,),
            "floatingips": (self.floating_ips,),
            "ports": (self.ports, self.router_ports),
        }[what]:
            of.clear()

    def add(self, what: str, row: Mapping[str, Any]) -> None:
        """A row of a list; routers go before ports and floating IPs.

        Args:
            what: which list, a key of FIELDS.
            row: with these fields; those that a release does not know are left out.

        Raises:
            KeyError, TypeError, AttributeError, ValueError: it is no object of this list.
        """
        uuid = row["id"]
        if not isinstance(uuid, str):
            raise TypeError(uuid)
        if what == "security-groups":
            self.security_groups[uuid] = Order(None)
        elif what == "ports":
            self._add_port(uuid, row)
        elif what == "subnets":
            self._add_subnet(uuid, row)
        elif what == "floatingips":
            self._add_floating_ip(uuid, row)
        elif what == "networks":
            self.networks[uuid] = Order(int(row["revision_number"]))
        elif row.get("flavor_id"):
            self.foreign.add(uuid)
        else:
            self.routers[uuid] = Order(int(row["revision_number"]))

    def _add_subnet(self, uuid: str, row: Mapping[str, Any]) -> None:
        """Northbound has what DHCP answers; with SLAAC nobody asks."""
        slaac = row["ip_version"] == 6 and row.get("ipv6_address_mode") == _SLAAC  # IPv6
        if row["enable_dhcp"] and not slaac:
            self.subnets[uuid] = Order(int(row["revision_number"]))

    def _add_floating_ip(self, uuid: str, row: Mapping[str, Any]) -> None:
        """One that is not attached, or forwards single ports, has no NAT."""
        router, fixed = row["router_id"], row["fixed_ip_address"]
        if row["port_id"] and router and fixed and router not in self.foreign:
            self.floating_ips[uuid] = Order(
                int(row["revision_number"]), addresses=(str(row["floating_ip_address"]), str(fixed))
            )

    def _add_port(self, uuid: str, row: Mapping[str, Any]) -> None:
        owner, revision = row["device_owner"] or "", int(row["revision_number"])
        if owner == _FLOATING:
            return
        if owner.startswith(_ROUTERS):
            of = self.ports if row["device_id"] in self.foreign else self.router_ports
            of[uuid] = Order(revision)
            return
        trusted = owner.startswith(_TRUSTED)
        pairs = row.get("allowed_address_pairs") or ()
        self.ports[uuid] = Order(
            revision,
            PortOrder(
                mac=row["mac_address"].lower(),
                ips=tuple(ip["ip_address"] for ip in row["fixed_ips"]),
                pairs=frozenset(part for pair in pairs for part in (pair["mac_address"].lower(), pair["ip_address"])),
                secured=bool(row.get("port_security_enabled")) and not trusted,
                groups=None if trusted else frozenset(map(intern, row.get("security_groups") or ())),
                enabled=bool(row["admin_state_up"]),
                balancer=(row.get("name") or "").startswith(_BALANCER),
            ),
        )
