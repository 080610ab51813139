"""A small cloud with one of each thing that the ledgers of VFs can say, and what the services answer about it.

`python -m tests.lab.openstack_scene` records the answers again, into tests/fixtures/openstack.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.lab.nova_cell import flavour_request, port_request
from tests.lab.openstack import OpenStack
from tests.lab.openstack_releases import debian, newest

if TYPE_CHECKING:
    from tests.lab.nova_cell import NovaCell

RECORDED = Path(__file__).parents[1] / "fixtures" / "openstack"
FIRST, SECOND = "compute-1", "compute-2"
HOSTS = (FIRST, SECOND)
PF = "0000:3b:00.0"
VFS = tuple(f"0000:3b:00.{function}" for function in range(2, 8))
CLASS = "CUSTOM_PCI_15B3_101E"
WITH_PORT, BY_FLAVOUR, RESIZED, LEAKED, BUILDING = (f"{digit * 8}-0000-4000-8000-000000000000" for digit in "12345")
FIELDS = ("id", "network_id", "status", "device_id", "device_owner", "binding:host_id", "binding:vnic_type",
          "binding:profile", "binding:vif_type", "binding:vif_details", "revision_number")  # fmt: skip
COLUMNS = {
    "compute_nodes": "id, uuid, deleted, host, hypervisor_hostname, pci_stats",
    "services": 'id, deleted, host, "binary", last_seen_up, forced_down, disabled, report_count',
    "instances": "uuid, deleted, host, node, vm_state, task_state, power_state",
    "instance_extra": "instance_uuid, deleted, pci_requests, migration_context",
    "migrations": "id, deleted, instance_uuid, source_compute, dest_compute, status, migration_type",
    "pci_devices": "deleted, compute_node_id, address, vendor_id, product_id, dev_type, dev_id, label, status,"
    " extra_info, instance_uuid, request_id, numa_node, parent_addr, uuid",
}
JSON_COLUMNS = ("pci_stats", "pci_requests", "migration_context", "extra_info")


def request_id(instance: str) -> str:
    return f"aaaaaaaa{instance[8:-1]}{instance[0]}"


def make_rows(cell: NovaCell, ports: dict[str, str]) -> None:
    """`ports`: instance -> its port, of those that ask for one."""
    for host in HOSTS:
        cell.add_host(host, f"{host}.example.org")
        for vf in VFS:
            cell.add_vf(host, vf, PF, parent_ifname="ens1f0np0")
    for instance in (WITH_PORT, RESIZED, LEAKED, BUILDING):
        cell.add_instance(instance, FIRST, [port_request(request_id(instance), ports.get(instance))])
    cell.add_instance(BY_FLAVOUR, FIRST, [flavour_request(request_id(BY_FLAVOUR), "nic")])
    for instance, vf in zip((WITH_PORT, BY_FLAVOUR, RESIZED, LEAKED), VFS, strict=False):
        cell.claim(instance, FIRST, vf, request_id(instance))
        cell.allocate(instance, FIRST, vf)
    cell.claim(BUILDING, FIRST, VFS[4], request_id(BUILDING))
    cell.set_instance(BUILDING, vm_state="building", task_state="spawning")
    # Resized to the other host, and waiting for the user to confirm: both hosts' VFs are kept.
    cell.claim(RESIZED, SECOND, VFS[0], request_id(RESIZED))
    cell.allocate(RESIZED, SECOND, VFS[0])
    migration = cell.add_migration(RESIZED, FIRST, SECOND)
    cell.set_migration_context(RESIZED, migration, old=[(FIRST, VFS[2])], new=[(SECOND, VFS[0])])
    cell.set_instance(RESIZED, host=SECOND, vm_state="resized")
    for host in HOSTS:
        cell.report(host)


def make_ports(cloud: OpenStack) -> dict[str, str]:
    network = cloud.create_network(vlan=101)
    cloud.create_subnet(network, "10.0.0.0/24")
    cloud.add_sriov_agent(SECOND)
    ports = {
        WITH_PORT: cloud.create_port(network, FIRST, VFS[0], WITH_PORT),
        RESIZED: cloud.create_port(network, SECOND, VFS[0], RESIZED, offload=False),
        LEAKED: cloud.create_port(network, FIRST, VFS[3], LEAKED),
    }
    cloud.create_port(network, FIRST, None, WITH_PORT)
    cloud.delete_port(ports[LEAKED])
    return ports


def make_providers(cloud: OpenStack) -> dict[str, str]:
    """The PFs' providers by host."""
    made = {}
    for host in HOSTS:
        node = cloud.create_provider(f"{host}.example.org", inventory={"VCPU": 64, "MEMORY_MB": 262144})
        made[host] = cloud.create_pf_provider(f"{host}.example.org", node, PF, len(VFS), resource=CLASS)
    for instance in (WITH_PORT, LEAKED):
        cloud.allocate(instance, made[FIRST], CLASS)
    return made


def answers(cloud: OpenStack) -> dict[str, Any]:
    """All that is recorded, by file name; of a cloud that has nothing yet."""
    providers = make_providers(cloud)
    make_rows(cloud.sqlite_cell, make_ports(cloud))
    pf = f"/resource_providers/{providers[FIRST]}"
    query = "&".join(f"fields={field}" for field in FIELDS)
    return {
        "neutron_ports": cloud.network("GET", f"/ports?limit=1000&sort_key=id&sort_dir=asc&{query}"),
        "placement_resource_providers": cloud.place("GET", "/resource_providers?required=COMPUTE_MANAGED_PCI_DEVICE"),
        "placement_inventories": cloud.place("GET", f"{pf}/inventories"),
        "placement_allocations": cloud.place("GET", f"{pf}/allocations"),
        "placement_usages": cloud.place("GET", f"{pf}/usages"),
        "placement_consumer": cloud.place("GET", f"/allocations/{WITH_PORT}"),
    } | {f"nova_{table}": rows(cloud.sqlite, table) for table in COLUMNS}


def rows(file: Path, table: str) -> list[dict[str, Any]]:
    """Of a cell in a file; columns of JSON text as what they mean."""
    with closing(sqlite3.connect(file)) as connection:
        connection.row_factory = sqlite3.Row
        found = [dict(row) for row in connection.execute(f"SELECT {COLUMNS[table]} FROM {table}")]  # noqa: S608  # ours
    for row in found:
        for column in row.keys() & JSON_COLUMNS:
            row[column] = json.loads(row[column]) if row[column] is not None else None
    return found


def main() -> None:
    for release in (debian(), newest()):
        with OpenStack(HOSTS, release=release) as cloud:
            place = RECORDED / release.name
            place.mkdir(parents=True, exist_ok=True)
            for name, answer in answers(cloud).items():
                text = json.dumps(answer, indent=2, sort_keys=True).replace(str(cloud.placement.port), "8778")
                (place / f"{name}.json").write_text(f"{text}\n")


if __name__ == "__main__":
    main()
