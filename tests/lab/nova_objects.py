"""Writes a cell's rows through Nova's own objects; run by the interpreter that has Nova: `nova_objects.py NOVA.CONF`.

What nova-compute, the scheduler and the conductor would do, without them. A line of JSON on standard input names a
method of Cell and its arguments, a line on standard output answers. Stands alone: nothing of this project can be
imported there.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from typing import Any

del sys.path[0]  # what lies beside this file is not for the packages that it imports

os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "1"
warnings.simplefilter("ignore")  # Nova's, about its own dependencies

objects = importlib.import_module("nova.objects")
GIB = 1024


class Cell:
    """The cell database that the configuration names."""

    def __init__(self, config: str) -> None:
        importlib.import_module("nova.config").parse_args(["nova", "--config-file", config])
        objects.register_all()
        self.context = importlib.import_module("nova.context").get_admin_context()

    def add_host(self, host: str, hypervisor_hostname: str) -> int:
        """nova-compute starts for the first time; returns the compute node's id, which pci_devices refer to."""
        service = objects.Service(self.context, host=host, binary="nova-compute", topic="compute", report_count=0)
        service.create()
        node = objects.ComputeNode(
            self.context, host=host, service_id=None, hypervisor_hostname=hypervisor_hostname, hypervisor_type="QEMU",
            hypervisor_version=7002000, vcpus=64, vcpus_used=0, memory_mb=256 * GIB, memory_mb_used=0, local_gb=1000,
            local_gb_used=0, free_ram_mb=256 * GIB, free_disk_gb=1000, current_workload=0, running_vms=0,
            cpu_info="{}", cpu_allocation_ratio=1.0, ram_allocation_ratio=1.0, disk_allocation_ratio=1.0, mapped=0,
        )  # fmt: skip
        if "uuid" in node.fields:
            node.uuid = importlib.import_module("oslo_utils.uuidutils").generate_uuid()
        node.create()
        self.report(host)
        return int(node.id)

    def report(self, host: str) -> None:
        """nova-compute's report: it is alive, and what is free in its pools of PCI devices."""
        service = objects.Service.get_by_host_and_binary(self.context, host, "nova-compute")
        service.report_count += 1
        service.save()
        node = self._node(host)
        pools: dict[tuple[str, str, Any], int] = {}
        for device in objects.PciDeviceList.get_by_compute_node(self.context, node.id):
            pool = (device.vendor_id, device.product_id, device.numa_node)
            pools[pool] = pools.get(pool, 0) + (device.status == "available")
        stats = [
            {"vendor_id": vendor, "product_id": product, "numa_node": numa, "count": count, "dev_type": "type-VF",
             "physical_network": "physnet2"}
            for (vendor, product, numa), count in pools.items()
        ]  # fmt: skip
        node.pci_device_pools = importlib.import_module("nova.objects.pci_device_pool").from_pci_stats(stats)
        node.save()

    def set_service(self, host: str, values: dict[str, Any]) -> None:
        """forced_down, disabled."""
        service = objects.Service.get_by_host_and_binary(self.context, host, "nova-compute")
        self._set(service, values)

    def add_vf(self, host: str, values: dict[str, Any]) -> None:
        """nova-compute finds it on its host; `values` are what the hypervisor says, and overrides of it."""
        address = values["address"]
        found = {
            "compute_node_id": self._node(host).id, "vendor_id": "15b3", "product_id": "101e", "numa_node": 0,
            "dev_type": "type-VF", "dev_id": f"pci_{address.replace(':', '_').replace('.', '_')}",
            "label": "label_15b3_101e", "capabilities": {"network": ["rx", "tx", "sg", "tso", "switchdev"]},
        }  # fmt: skip
        objects.PciDevice.create(self.context, found | values).save()

    def remove_vf(self, host: str, address: str) -> None:
        """It is no more on its host."""
        device = self._device(host, address)
        device.remove()
        device.save()

    def add_instance(self, uuid: str, host: str | None, requests: list[dict[str, Any]], values: dict[str, Any]) -> None:
        asked = [objects.InstancePCIRequest(**({"count": 1, "is_new": False} | request)) for request in requests]
        given = {
            "host": host, "node": host and self._node(host).hypervisor_hostname, "vm_state": "active",
            "power_state": 1, "user_id": "user", "project_id": "project", "display_name": uuid[:8],
        }  # fmt: skip
        if host and "compute_id" in objects.Instance.fields:  # of recent releases
            given["compute_id"] = self._node(host).id
        objects.Instance(
            self.context, uuid=uuid, pci_requests=objects.InstancePCIRequests(instance_uuid=uuid, requests=asked),
            **(given | values),
        ).create()  # fmt: skip

    def set_instance(self, uuid: str, values: dict[str, Any]) -> None:
        """host, vm_state, task_state and so on."""
        self._set(self._instance(uuid), values)

    def delete_instance(self, uuid: str) -> None:
        self._instance(uuid).destroy()

    def claim(self, uuid: str, host: str, address: str, request_id: str | None) -> None:
        """nova-compute keeps a free VF for an instance."""
        device = self._device(host, address)
        device.claim(uuid)
        device.request_id = request_id
        device.save()

    def allocate(self, uuid: str, host: str, address: str) -> None:
        """The instance has it; a claim may have come before."""
        device = self._device(host, address)
        device.allocate(self._instance(uuid))
        device.save()

    def free(self, host: str, address: str) -> None:
        device = self._device(host, address)
        device.free()
        device.save()

    def add_migration(self, uuid: str, source: str, target: str, values: dict[str, Any]) -> int:
        if "dest_compute_id" in objects.Migration.fields:  # of recent releases
            values = {"dest_compute_id": self._node(target).id} | values
        migration = objects.Migration(
            self.context, instance_uuid=uuid, source_compute=source, dest_compute=target,
            source_node=self._node(source).hypervisor_hostname, dest_node=self._node(target).hypervisor_hostname,
            **({"status": "finished", "migration_type": "migration"} | values),
        )  # fmt: skip
        migration.create()
        return int(migration.id)

    def set_migration(self, migration: int, values: dict[str, Any]) -> None:
        self._set(objects.Migration.get_by_id(self.context, migration), values)

    def set_migration_context(self, uuid: str, migration: int, old: list[list[str]], new: list[list[str]]) -> None:
        """`old`, `new`: the (host, address) of the VFs on the source and the target."""
        instance = self._instance(uuid)

        def devices(places: list[list[str]]) -> Any:
            return objects.PciDeviceList(objects=[self._device(*place) for place in places])

        instance.migration_context = objects.MigrationContext(
            self.context, instance_uuid=uuid, migration_id=migration, old_numa_topology=None, new_numa_topology=None,
            old_pci_devices=devices(old), new_pci_devices=devices(new), old_pci_requests=instance.pci_requests,
            new_pci_requests=instance.pci_requests, old_resources=None, new_resources=None,
        )  # fmt: skip
        instance.save()

    def drop_migration_context(self, uuid: str) -> None:
        """The migration was confirmed or reverted."""
        self._instance(uuid).drop_migration_context()

    def _node(self, host: str) -> Any:
        return objects.ComputeNode.get_first_node_by_host_for_old_compat(self.context, host)

    def _device(self, host: str, address: str) -> Any:
        return objects.PciDevice.get_by_dev_addr(self.context, self._node(host).id, address)

    def _instance(self, uuid: str) -> Any:
        wanted = ["pci_devices", "pci_requests", "migration_context"]
        return objects.Instance.get_by_uuid(self.context, uuid, expected_attrs=wanted)

    def _set(self, thing: Any, values: dict[str, Any]) -> None:
        for name, value in values.items():
            setattr(thing, name, value)
        thing.save()


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # what Nova may print is no answer
    cell = Cell(sys.argv[1])
    for line in sys.stdin:
        method, arguments = json.loads(line)
        answer: dict[str, Any] = {}
        try:
            answer["result"] = getattr(cell, method)(**arguments)
        except Exception as error:  # noqa: BLE001  # the asker is told
            answer["error"] = f"{type(error).__name__}: {error}"
        answers.write(f"{json.dumps(answer)}\n")
        answers.flush()


if __name__ == "__main__":
    main()
