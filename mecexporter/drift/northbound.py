"""Northbound's rows that Neutron has made, by the object that each is of.

What has no ids of Neutron's is none of its business: ports ``provnet-``, Octavia's balancers, an operator's own rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from sys import intern
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

COLUMNS = {
    "Logical_Switch": ("name", "external_ids"),
    "Logical_Router": ("name", "external_ids"),
    "Logical_Router_Port": ("name", "external_ids"),
    "Logical_Switch_Port": ("name", "external_ids", "type", "addresses", "enabled"),
    "Port_Group": ("name", "external_ids", "ports"),
    "DHCP_Options": ("external_ids",),
    "NAT": ("external_ids", "external_ip", "logical_ip"),
}
"""What is asked of each table."""

_PARTS = tuple(f"[0-9a-f]{{{length}}}" for length in (8, 4, 4, 4, 12))
_UUID = "-".join(_PARTS)
_NAMES = {
    "Logical_Switch": re.compile(f"neutron-({_UUID})"),
    "Logical_Router": re.compile(f"neutron-({_UUID})"),
    "Logical_Router_Port": re.compile(f"lrp-({_UUID})"),
    "Logical_Switch_Port": re.compile(f"({_UUID})"),
    "Port_Group": re.compile(f"pg_({'_'.join(_PARTS)})"),
}
_KEYS = {"DHCP_Options": "subnet_id", "NAT": "neutron:fip_id"}
"""Rows without a name of the object's bear its id here."""
_OF_PORT = "port_id"
"""Of DHCP_Options that are a single port's."""
_OWN = "neutron:"
_REVISION = "neutron:revision_number"


class PortRow(NamedTuple):
    """The content of a Logical_Switch_Port.

    Attributes:
        kind: its type.
        addresses: every MAC, IP and word of it, in lower case.
    """

    kind: str
    addresses: frozenset[str]
    enabled: bool


class Row(NamedTuple):
    """A row by its own UUID and by the revision that it is of, None where it bears none."""

    uuid: str
    revision: int | None
    port: PortRow | None = None
    addresses: tuple[str, ...] = ()


@dataclass(slots=True)
class Northbound:
    """All rows of one look, by the object's UUID.

    Attributes:
        only: the objects wanted, but for security groups, of which all are; None: all.
        members: of a Logical_Switch_Port, by the row's own UUID: the security groups that it is in.
    """

    only: frozenset[str] | None = None
    switches: dict[str, Row] = field(default_factory=dict)
    routers: dict[str, Row] = field(default_factory=dict)
    router_ports: dict[str, Row] = field(default_factory=dict)
    ports: dict[str, Row] = field(default_factory=dict)
    security_groups: dict[str, Row] = field(default_factory=dict)
    subnets: dict[str, Row] = field(default_factory=dict)
    floating_ips: dict[str, Row] = field(default_factory=dict)
    members: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def add(self, table: str, row: Mapping[str, Any]) -> None:
        """A row, decoded.

        Args:
            table: a key of COLUMNS.
            row: with these columns and its ``_uuid``.
        """
        own, ids = row["_uuid"], row["external_ids"]
        if table in _KEYS:
            uuid = None if _OF_PORT in ids else ids.get(_KEYS[table])
        else:
            named = _NAMES[table].fullmatch(row["name"])
            uuid = named and named[1]
        if uuid is None:
            return
        if not any(name.startswith(_OWN) for name in ids):
            return
        if table == "Port_Group":
            uuid = intern(uuid.replace("_", "-"))
            self.security_groups[uuid] = Row(own, None)
            for port in row["ports"]:
                self.members[port] = (*self.members.get(port, ()), uuid)
            return
        if self.only is not None and uuid not in self.only:
            return
        text = ids.get(_REVISION, "")
        revision = int(text) if text.isdecimal() else None
        if table == "Logical_Switch_Port":
            words = (word for address in row["addresses"] for word in address.lower().split())
            content = PortRow(intern(row["type"]), frozenset(words), row["enabled"] is not False)
            self.ports[uuid] = Row(own, revision, content)
        elif table == "NAT":
            self.floating_ips[uuid] = Row(own, revision, addresses=(row["external_ip"], row["logical_ip"]))
        else:
            of = {
                "DHCP_Options": self.subnets,
                "Logical_Switch": self.switches,
                "Logical_Router": self.routers,
                "Logical_Router_Port": self.router_ports,
            }
            of[table][uuid] = Row(own, revision)
