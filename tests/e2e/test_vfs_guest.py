"""Incident 3 with real VFs: the exporter in a guest with SR-IOV, beside a real Placement, Neutron and Nova cell."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, Self

import pytest
import yaml

from tests import hwlab
from tests.hwlab import Guest
from tests.lab.monitoring import get
from tests.lab.openstack import OpenStack
from tests.ports import free_port
from tests.sources.nova_rows import Rows
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOST = "compute-1"
PF = "0000:01:00.0"
CLASS = "CUSTOM_PCI_8086_10CA"
UUID = "11111111-2222-4333-8444-555555555555"
"""Of the guest's guest, as its QEMU has it."""
SOON = 240  # seconds: the guest is emulated, and OpenStack's libraries alone take a minute to import there
"""Seconds: software emulation is slow, and a second read comes ten after the first one."""

pytestmark = [
    pytest.mark.root,
    pytest.mark.long,  # a minute of one core for the emulated processor; each part of it has quicker tests
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(hwlab.unavailable()), reason=hwlab.unavailable() or "-"),
]


class Machine:
    """A guest that does what it is told, and its exporter."""

    def __init__(self, share: Path, openstack: OpenStack) -> None:
        self.share, self.port = share, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._number = 0
        self._result: Any = None
        afar = {"clouds.yaml": openstack.clouds().read_text(), "config.yaml": self._config(openstack)}
        for name, text in afar.items():
            (share / name).write_text(text.replace("127.0.0.1", "10.0.2.2"))
        guest = Guest(nic="igb", share=share, forward={self.port: 9746})
        script = """
            network; pf; vfs 4; vf_bind 0 vfio-pci; hold 0
            export OS_CLIENT_CONFIG_FILE=/share/clouds.yaml
            python3 -m mecexporter run --config /share/config.yaml >/share/exporter.log 2>&1 &
            obey
            kill %1
        """

        def work() -> None:
            try:
                self._result = guest.sh(script, timeout=500)
            except Exception as error:  # noqa: BLE001  # told to the test, which runs elsewhere
                self._result = error

        self._thread = threading.Thread(target=work, daemon=True)

    def _config(self, openstack: OpenStack) -> str:
        return yaml.safe_dump(
            {
                "roles": ["compute", "api"],
                "web": {"listen": "0.0.0.0:9746", "local_socket": None},
                "intervals": {"live": "1s", "openstack": "2s"},
                "host": {"hostname": HOST, "state_dir": "/tmp/state"},  # noqa: S108  # the guest's
                "openstack": {"cloud": "lab"},
                # No nova-compute runs here to report.
                "nova": {"cells": {"cell1": openstack.nova_reader}, "service_down_time": "10m"},
                "grace": {"vf_drift": "1s"},
                "sriov": {"device_mappings": {"physnet2": ["pf0"]}},
            }
        )

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(
            lambda: self._alive() and get(f"{self.url}/readyz") is not None, SOON, "the guest's exporter is ready"
        )
        return self

    def __exit__(self, *_: object) -> None:
        (self.share / "todo").mkdir(exist_ok=True)
        (self.share / "todo/end").touch()
        self._thread.join(60)

    def _alive(self) -> bool:
        assert self._result is None, f"the guest has ended: {self._result}"
        return True

    def do(self, script: str) -> str:
        """Runs lines of bash in the guest, with the functions of guest/lib.sh."""
        self._number += 1
        todo, done = self.share / "todo" / str(self._number), self.share / "done" / str(self._number)
        todo.with_name(".next").write_text(script)
        todo.with_name(".next").rename(todo)
        wait_until(lambda: self._alive() and done.exists(), SOON, f"the guest has done: {script}")
        status, _, said = done.read_text().partition("\n")
        assert status == "0", f"{script}: {said}"
        return said

    def found(self) -> dict[str, list[str]]:
        """VF check -> its subjects."""
        page = get(f"{self.url}/api/v1/findings")
        assert page is not None, "the exporter answers"
        out: dict[str, list[str]] = {}
        for finding in json.loads(page)["findings"]:
            if finding["check"].startswith("vf_"):
                out.setdefault(finding["check"], []).append(finding["subject"].partition("/")[2])
        return out

    def series(self, name: str) -> list[str]:
        page = get(f"{self.url}/metrics")
        assert page is not None, "the exporter answers"
        return [line for line in page.splitlines() if line.startswith(f"{name}{{")]


@pytest.fixture(name="openstack")
def an_openstack() -> Iterator[OpenStack]:
    with OpenStack([HOST]) as openstack:
        yield openstack


def test_the_leak_on_real_vfs(openstack: OpenStack, tmp_path: Path) -> None:
    hwlab.prepare()
    rows = Rows(openstack.database("nova_cell1"))
    rows.host(1, HOST, seen=0)
    vfs = [f"0000:01:10.{n}" for n in (0, 2, 4, 6)]
    for vf in vfs:
        rows.vf(1, vf, parent_addr=PF)
    for name in (UUID, "b" + UUID[1:]):
        rows.instance(name, HOST, [])
    network = openstack.create_network()
    rows.claim(1, vfs[0], UUID)
    port = openstack.create_port(network, HOST, vfs[0], UUID)
    root = openstack.create_provider(HOST)
    openstack.create_pf_provider(HOST, root, PF, 4, resource=CLASS)
    with Machine(tmp_path, openstack) as machine:
        wait_until(lambda: len(machine.series("mec_vf_drift")) == 6, SOON, "all ledgers are read")
        assert machine.found() == {}
        [holder] = machine.series("mec_vf_holder_info")
        assert UUID in holder
        assert vfs[0] in holder
        [pf] = machine.series("mec_sriov_pf_info")
        assert all(part in pf for part in ('driver="igb"', 'device="pf0"', 'physical_network="physnet2"')), pf

        # Detached and deleted at once: the guest lets go, the port is gone, Nova's update fails.
        machine.do("release && vf_bind 0 igbvf")
        openstack.delete_port(port)
        wait_until(lambda: machine.found() == {"vf_leaked": [vfs[0]]}, SOON, "the leak is found")
        rows.claim(1, vfs[0], None)
        wait_until(lambda: machine.found() == {}, SOON, "it is mended")

        # A guest that nobody has written down, and VFs that go.
        machine.do("vf_bind 1 vfio-pci && hold 1")
        wait_until(lambda: machine.found() == {"vf_unrecorded": [vfs[1]]}, SOON, "a guest without a record")
        rows.claim(1, vfs[1], UUID)
        wait_until(lambda: machine.found() == {"vf_portless": [vfs[1]]}, SOON, "claimed, and without a port")
        port = openstack.create_port(network, HOST, vfs[1], UUID)
        wait_until(lambda: machine.found() == {}, SOON, "all agree")
        machine.do("release && vf_bind 1 igbvf && vfs 0")
        wait_until(lambda: "0.0" in machine.series("mec_sriov_vf_configured")[0], SOON, "the VFs are gone")
        machine.do("unplug")
        wait_until(lambda: machine.series("mec_sriov_pf_info") == [], SOON, "the PF is gone")
