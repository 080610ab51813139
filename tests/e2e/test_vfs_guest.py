"""Incident 3 with real VFs: the exporter in a guest with SR-IOV, beside a real Placement, Neutron and Nova cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import hwlab
from tests.e2e.machine import Machine
from tests.hwlab import Guest
from tests.lab.openstack import OpenStack
from tests.sources.nova_rows import Rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOST = "compute-1"
PF = "0000:01:00.0"
CLASS = "CUSTOM_PCI_8086_10CA"
UUID = "11111111-2222-4333-8444-555555555555"
"""Of the guest's guest, as its QEMU has it."""
pytestmark = [
    pytest.mark.root,
    pytest.mark.long,  # a minute of one core for the emulated processor; each part of it has quicker tests
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(hwlab.unavailable()), reason=hwlab.unavailable() or "-"),
]


def machine_of(share: Path, openstack: OpenStack) -> Machine:
    """Four VFs, the first of which a guest holds; the records are read from outside."""
    (share / "clouds.yaml").write_text(openstack.clouds().read_text().replace("127.0.0.1", "10.0.2.2"))
    return Machine(
        share,
        lambda forward: Guest(nic="igb", share=share, forward=forward),
        {
            "roles": ["compute", "api"],
            "intervals": {"live": "1s", "openstack": "2s"},
            "host": {"hostname": HOST, "state_dir": "/tmp/state"},  # noqa: S108  # the guest's
            "openstack": {"cloud": "lab"},
            # No nova-compute runs here to report.
            "nova": {"cells": {"cell1": openstack.nova_reader}, "service_down_time": "10m"},
            "grace": {"vf_drift": "1s"},
            "sriov": {"device_mappings": {"physnet2": ["pf0"]}},
        },
        "pf; vfs 4; vf_bind 0 vfio-pci; hold 0; export OS_CLIENT_CONFIG_FILE=/share/clouds.yaml",
    )


def found(machine: Machine) -> dict[str, list[str]]:
    """VF check -> its subjects."""
    out: dict[str, list[str]] = {}
    for finding in machine.findings()["findings"]:
        if finding["check"].startswith("vf_"):
            out.setdefault(finding["check"], []).append(finding["subject"].partition("/")[2])
    return out


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
    with machine_of(tmp_path, openstack) as machine:
        machine.until(lambda: len(machine.series("mec_vf_drift")) == 6, "all ledgers are read")
        assert found(machine) == {}
        [holder] = machine.series("mec_vf_holder_info")
        assert UUID in holder
        assert vfs[0] in holder
        [pf] = machine.series("mec_sriov_pf_info")
        assert all(part in pf for part in ('driver="igb"', 'device="pf0"', 'physical_network="physnet2"')), pf

        # Detached and deleted at once: the guest lets go, the port is gone, Nova's update fails.
        machine.do("release && vf_bind 0 igbvf")
        openstack.delete_port(port)
        machine.until(lambda: found(machine) == {"vf_leaked": [vfs[0]]}, "the leak is found")
        rows.claim(1, vfs[0], None)
        machine.until(lambda: found(machine) == {}, "it is mended")

        # A guest that nobody has written down, and VFs that go.
        machine.do("vf_bind 1 vfio-pci && hold 1")
        machine.until(lambda: found(machine) == {"vf_unrecorded": [vfs[1]]}, "a guest without a record")
        rows.claim(1, vfs[1], UUID)
        machine.until(lambda: found(machine) == {"vf_portless": [vfs[1]]}, "claimed, and without a port")
        port = openstack.create_port(network, HOST, vfs[1], UUID)
        machine.until(lambda: found(machine) == {}, "all agree")
        machine.do("release && vf_bind 1 igbvf && vfs 0")
        machine.until(lambda: "0.0" in machine.series("mec_sriov_vf_configured")[0], "the VFs are gone")
        machine.do("unplug")
        machine.until(lambda: machine.series("mec_sriov_pf_info") == [], "the PF is gone")
