"""What Neutron ordered against what Northbound holds: of each object its state, and of each row that nobody ordered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.state.neutron_ovn import Drift, Resource, State

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mecexporter.drift.neutron import Neutron, Order, PortOrder
    from mecexporter.drift.northbound import Northbound, PortRow, Row

_ANY = "unknown"
"""In a port's addresses: whatever comes that is nobody's."""
_ROUTER, _VIRTUAL, _VTEP = "router", "virtual", "vtep"

_SWITCH_PORT, _ROUTER_PORT = "Logical_Switch_Port", "Logical_Router_Port"


def numbers(neutron: Neutron) -> dict[Resource, int]:
    """How many objects of each kind there are."""
    return {
        Resource.NETWORK: len(neutron.networks),
        Resource.PORT: len(neutron.ports),
        Resource.ROUTER: len(neutron.routers),
        Resource.ROUTER_PORT: len(neutron.router_ports),
        Resource.SUBNET: len(neutron.subnets),
        Resource.FLOATING_IP: len(neutron.floating_ips),
        Resource.SECURITY_GROUP: len(neutron.security_groups),
    }


def compare(neutron: Neutron, northbound: Northbound) -> Iterator[Drift]:
    """Each object that is not held as ordered, each row that is not of an object.

    A look at both: what is written between its two halves is told as drift too.
    """
    plain = (
        (Resource.NETWORK, neutron.networks, northbound.switches, "Logical_Switch"),
        (Resource.ROUTER, neutron.routers, northbound.routers, "Logical_Router"),
        (Resource.SUBNET, neutron.subnets, northbound.subnets, "DHCP_Options"),
        (Resource.FLOATING_IP, neutron.floating_ips, northbound.floating_ips, "NAT"),
        (Resource.SECURITY_GROUP, neutron.security_groups, northbound.security_groups, "Port_Group"),
    )
    for resource, orders, rows, table in plain:
        for uuid, order in orders.items():
            row = rows.get(uuid)
            changed = row is not None and row.addresses != order.addresses
            yield from _judged(resource, uuid, order, {table: row}, "addresses" if changed else "")
        foreign = neutron.foreign if resource is Resource.ROUTER else ()
        for uuid in rows.keys() - orders.keys() - set(foreign):
            yield _extra(resource, uuid, {table: rows[uuid]})
    yield from _ports(neutron, northbound)


def _ports(neutron: Neutron, northbound: Northbound) -> Iterator[Drift]:
    for uuid, order in neutron.ports.items():
        row = northbound.ports.get(uuid)
        yield from _judged(Resource.PORT, uuid, order, {_SWITCH_PORT: row}, _difference(order, row, northbound))
    # The two rows of a router's port are one object.
    for uuid, order in neutron.router_ports.items():
        both = {_SWITCH_PORT: northbound.ports.get(uuid), _ROUTER_PORT: northbound.router_ports.get(uuid)}
        yield from _judged(Resource.ROUTER_PORT, uuid, order, both)
    of_routers = northbound.router_ports.keys() - neutron.router_ports.keys()
    for uuid in northbound.ports.keys() - neutron.ports.keys() - neutron.router_ports.keys():
        row = northbound.ports[uuid]
        if row.port is None or row.port.kind != _ROUTER:
            yield _extra(Resource.PORT, uuid, {_SWITCH_PORT: row})
        elif uuid not in of_routers:
            yield _extra(Resource.ROUTER_PORT, uuid, {_SWITCH_PORT: row})
    for uuid in of_routers:
        left = {_ROUTER_PORT: northbound.router_ports[uuid]}
        row = northbound.ports.get(uuid)
        if row is not None and row.port is not None and row.port.kind == _ROUTER and uuid not in neutron.ports:
            left[_SWITCH_PORT] = row
        yield _extra(Resource.ROUTER_PORT, uuid, left)


def _judged(
    resource: Resource, uuid: str, order: Order, rows: Mapping[str, Row | None], difference: str = ""
) -> Iterator[Drift]:
    there = {table: row for table, row in rows.items() if row is not None}
    if len(there) < len(rows):
        absent = tuple(table for table in rows if table not in there)
        yield Drift(resource=resource, uuid=uuid, state=State.MISSING, ordered=order.revision, rows=absent)
        return
    revision = order.revision
    revisions = {table: row.revision for table, row in there.items() if row.revision is not None}
    if revision is not None and any(held != revision for held in revisions.values()):
        ahead = {table: held for table, held in revisions.items() if held > revision}
        off = ahead or {table: held for table, held in revisions.items() if held < revision}
        yield Drift(
            resource=resource,
            uuid=uuid,
            state=State.AHEAD if ahead else State.BEHIND,
            ordered=revision,
            held=(max if ahead else min)(off.values()),
            rows=tuple(off),
        )
    elif difference:
        yield Drift(
            resource=resource,
            uuid=uuid,
            state=State.CHANGED,
            ordered=revision,
            held=next(iter(revisions.values()), None),
            rows=tuple(rows),
            what=difference,
        )


def _extra(resource: Resource, uuid: str, rows: Mapping[str, Row]) -> Drift:
    revisions = [row.revision for row in rows.values() if row.revision is not None]
    held = max(revisions, default=None)
    return Drift(resource=resource, uuid=uuid, state=State.EXTRA, held=held, rows=tuple(sorted(rows)))


def _difference(order: Order, row: Row | None, northbound: Northbound) -> str:
    """What of a port's row is not as ordered, in words; '' where all is."""
    if row is None or row.port is None or order.port is None:
        return ""
    wanted, found = order.port, row.port
    parts = []
    if found.enabled != wanted.enabled:
        parts.append("admin state")
    if found.kind != _VTEP and not _addresses_fit(wanted, found):
        parts.append("addresses")
    if wanted.groups is not None:
        known = wanted.groups & northbound.security_groups.keys()  # of one that is missing that is said
        if known != set(northbound.members.get(row.uuid, ())):
            parts.append("security groups")
    return ", ".join(parts)


def _addresses_fit(wanted: PortOrder, found: PortRow) -> bool:
    own = {wanted.mac, *wanted.ips}
    if not found.addresses <= own | wanted.pairs | {_ANY}:
        return False
    if _ANY in found.addresses and wanted.secured and not found.kind:
        return False
    if own <= found.addresses:
        return True
    return (
        (wanted.balancer and not found.addresses)
        # Without port security, and without an address to hand out: since 2023.1.
        or (found.addresses == {_ANY} and not wanted.secured)
        # Releases before 2024.2 leave out the addresses that follow the virtual one.
        or (found.kind == _VIRTUAL and wanted.mac in found.addresses)
    )
