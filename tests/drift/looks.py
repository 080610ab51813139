"""Both sides of an object as Neutron's API and Northbound show it, and what changes them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from mecexporter.drift.compare import compare
from mecexporter.drift.neutron import Neutron
from mecexporter.drift.northbound import Northbound

Row = dict[str, Any]

LISTS = ("routers", "networks", "subnets", "security-groups", "floatingips", "ports")


def uuid(number: int) -> str:
    return str(UUID(int=number))


def port(number: int, **changes: Any) -> Row:
    """Of a VM, as the API lists it."""
    return {
        "id": uuid(number),
        "revision_number": 3,
        "name": "",
        "device_id": "vm",
        "device_owner": "compute:nova",
        "mac_address": f"fa:16:3e:00:00:{number:02x}",
        "fixed_ips": [{"subnet_id": "s", "ip_address": f"10.0.0.{number}"}],
        "admin_state_up": True,
        "allowed_address_pairs": [],
        "port_security_enabled": True,
        "security_groups": [],
        "project_id": "p",
        "binding:host_id": "compute-1",
    } | changes


def switch_port(number: int, **changes: Any) -> Row:
    """A Logical_Switch_Port as Neutron makes it of that; ``revision`` is its id's."""
    ids = {"neutron:revision_number": str(changes.pop("revision", 3)), "neutron:device_owner": "compute:nova"}
    return {
        "_uuid": f"row-{number}",
        "name": uuid(number),
        "external_ids": ids,
        "type": "",
        "addresses": (f"fa:16:3e:00:00:{number:02x} 10.0.0.{number}",),
        "enabled": True,
    } | changes


def other(name: str, revision: int | None = 3, **changes: Any) -> Row:
    """A Logical_Switch, Logical_Router or Logical_Router_Port."""
    ids = {"neutron:network_name": "n"} | ({} if revision is None else {"neutron:revision_number": str(revision)})
    return {"_uuid": f"row-{name}", "name": name, "external_ids": ids} | changes


def subnet(number: int, revision: int = 3, **changes: Any) -> Row:
    """With DHCP."""
    row = {"id": uuid(number), "revision_number": revision, "enable_dhcp": True, "ip_version": 4}
    return row | {"ipv6_address_mode": None} | changes


def dhcp(number: int, revision: int = 3, **ids: str) -> Row:
    """The DHCP_Options of a subnet, or with ``port_id`` of one port on it."""
    own = {"subnet_id": uuid(number), "neutron:revision_number": str(revision)}
    return {"_uuid": f"dhcp-{number}", "external_ids": own | ids}


def floating_ip(number: int, revision: int = 3, **changes: Any) -> Row:
    """Attached to a port."""
    return {
        "id": uuid(number),
        "revision_number": revision,
        "port_id": uuid(1),
        "router_id": uuid(2),
        "floating_ip_address": f"203.0.113.{number}",
        "fixed_ip_address": f"10.0.0.{number}",
    } | changes


def nat(number: int, revision: int = 3, **changes: Any) -> Row:
    """As Neutron makes it of that."""
    ids = {"neutron:fip_id": uuid(number), "neutron:revision_number": str(revision)}
    row = {"_uuid": f"nat-{number}", "external_ids": ids, "external_ip": f"203.0.113.{number}"}
    return row | {"logical_ip": f"10.0.0.{number}"} | changes


def group(number: int, *members: int) -> Row:
    """A Port_Group with these ports' rows."""
    ports = tuple(f"row-{member}" for member in members)
    name, ids = f"pg_{uuid(number).replace('-', '_')}", {"neutron:security_group_id": uuid(number)}
    return {"_uuid": f"group-{number}", "name": name, "external_ids": ids, "ports": ports}


def neutron(**lists: list[Row]) -> Neutron:
    """By list, with _ for -."""
    made = Neutron()
    for what in LISTS:
        for row in lists.get(what.replace("-", "_"), []):
            made.add(what, row)
    return made


def northbound(**tables: list[Row]) -> Northbound:
    made = Northbound()
    for table, rows in tables.items():
        for row in rows:
            made.add(table, row)
    return made


def told(ordered: Neutron, held: Northbound) -> set[tuple[str, str, str]]:
    """Resource, UUID and state of each drift."""
    drifts = list(compare(ordered, held))
    found = {(str(d.resource), d.uuid, str(d.state)) for d in drifts}
    assert len(found) == len(drifts), "each object once"
    return found
