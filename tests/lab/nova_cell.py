"""A Nova cell's database without Nova's services: its rows are written by Nova's own objects (nova_objects.py)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

from tests.lab.site import LabError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.lab.site import Site

SCRIPT = Path(__file__).with_name("nova_objects.py")


class PciRequest(TypedDict):
    """What an instance asks of PCI devices: for a port (requester_id) or by its flavour (alias_name)."""

    request_id: str | None
    requester_id: str | None
    alias_name: str | None
    spec: list[dict[str, str | None]]


def port_request(request_id: str, port: str | None, physical_network: str = "physnet2") -> PciRequest:
    """Of a Neutron port; `port`: None as Nova wrote it before it kept the port's id."""
    spec: list[dict[str, str | None]] = [{"physical_network": physical_network, "remote_managed": "False"}]
    return PciRequest(request_id=request_id, requester_id=port, alias_name=None, spec=spec)


def flavour_request(request_id: str, alias: str) -> PciRequest:
    spec: list[dict[str, str | None]] = [{"vendor_id": "15b3", "product_id": "101e", "dev_type": "type-VF"}]
    return PciRequest(request_id=request_id, requester_id=None, alias_name=alias, spec=spec)


class NovaCell:
    """Asks nova_objects.py to write; started when first used, gone with its site."""

    def __init__(self, site: Site, name: str, python: Path, config: Path) -> None:
        self.log = site.dir / f"{name}.log"
        self._site, self._python, self._config = site, python, config
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """So that it is ready when first needed; importing Nova takes seconds."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._python, SCRIPT, self._config], env=self._site.env, cwd=self._site.dir, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
            )  # fmt: skip

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    # nova-compute

    def add_host(self, host: str, hypervisor_hostname: str | None = None) -> int:
        """A compute node and its service, alive now; returns the id that pci_devices refer to."""
        return int(self._call("add_host", host=host, hypervisor_hostname=hypervisor_hostname or host))

    def report(self, host: str) -> None:
        """A sign of life, and the pools of PCI devices (pci_stats) as they are now."""
        self._call("report", host=host)

    def set_service(self, host: str, *, forced_down: bool | None = None, disabled: bool | None = None) -> None:
        given = {"forced_down": forced_down, "disabled": disabled}
        self._call("set_service", host=host, values={name: value for name, value in given.items() if value is not None})

    def add_vf(self, host: str, address: str, parent_addr: str, **values: object) -> None:
        """A free VF; `values`: vendor_id, product_id, numa_node, dev_type, and others of the hypervisor's words."""
        self._call("add_vf", host=host, values={"address": address, "parent_addr": parent_addr} | values)

    def remove_vf(self, host: str, address: str) -> None:
        self._call("remove_vf", host=host, address=address)

    def claim(self, instance: str, host: str, address: str, request_id: str | None = None) -> None:
        self._call("claim", uuid=instance, host=host, address=address, request_id=request_id)

    def allocate(self, instance: str, host: str, address: str) -> None:
        """With a claim before it, or without."""
        self._call("allocate", uuid=instance, host=host, address=address)

    def free(self, host: str, address: str) -> None:
        self._call("free", host=host, address=address)

    # Instances

    def add_instance(self, uuid: str, host: str | None, requests: Sequence[PciRequest] = (), **values: object) -> None:
        """`values`: vm_state (default active), task_state and others of its columns."""
        self._call("add_instance", uuid=uuid, host=host, requests=list(requests), values=values)

    def set_instance(self, uuid: str, **values: object) -> None:
        self._call("set_instance", uuid=uuid, values=values)

    def delete_instance(self, uuid: str) -> None:
        """Its rows stay, marked as deleted."""
        self._call("delete_instance", uuid=uuid)

    def add_migration(self, instance: str, source: str, target: str, **values: object) -> int:
        """`values`: status (default finished: to be confirmed), migration_type (migration, resize, live-migration)."""
        return int(self._call("add_migration", uuid=instance, source=source, target=target, values=values))

    def set_migration(self, migration: int, **values: object) -> None:
        self._call("set_migration", migration=migration, values=values)

    def set_migration_context(
        self, instance: str, migration: int, *, old: Sequence[tuple[str, str]], new: Sequence[tuple[str, str]]
    ) -> None:
        """`old`, `new`: (host, address) of the VFs on the source and on the target."""
        self._call("set_migration_context", uuid=instance, migration=migration, old=old, new=new)

    def drop_migration_context(self, instance: str) -> None:
        self._call("drop_migration_context", uuid=instance)

    def _call(self, method: str, **arguments: object) -> Any:
        if self._process is None:
            self.start()
        process = cast("subprocess.Popen[str]", self._process)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{json.dumps([method, arguments])}\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise LabError(f"{SCRIPT.name} ended: {self.log.read_text()[-1000:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise LabError(f"{method}: {answer['error']}")
        return answer["result"]
