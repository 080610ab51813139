"""Ports that name VFs which their instances do not have."""

from mecexporter.checks.vf_orphan_port import vf_orphan_port
from tests.checks.verdicts import findings, only_finding
from tests.worlds import (
    ALICE,
    BOB,
    CELL1,
    HOSTNAME,
    PF,
    VFS,
    changed,
    device,
    healthy_sriov,
    held_vf,
    instance,
    nic,
    vf,
)


def test_healthy() -> None:
    assert findings(vf_orphan_port, healthy_sriov()) == ()


def test_a_port_without_a_claim() -> None:
    world = changed(healthy_sriov(), CELL1, devices=(device(0, ALICE),))
    world = changed(world, "sysfs", pfs=nic(held_vf(0, ALICE), vf(1)).pfs)
    finding = only_finding(vf_orphan_port, world)
    assert finding.subject == f"{HOSTNAME}/{VFS[1]}"
    assert (
        finding.summary
        == f"port port-b of instance {BOB} names VF {VFS[1]} of PF {PF}, which Nova has claimed for nobody"
    )
    assert f"openstack server remove port {BOB} port-b" in finding.remedy
    gone = changed(world, CELL1, instances={ALICE: instance()})
    assert "which is not on this host" in only_finding(vf_orphan_port, gone).summary
    assert "openstack port delete port-b" in only_finding(vf_orphan_port, gone).remedy


def test_an_instance_that_runs_without_its_vf() -> None:
    world = changed(healthy_sriov(), "sysfs", pfs=nic(held_vf(0, ALICE), vf(1)).pfs)
    finding = only_finding(vf_orphan_port, world)
    assert finding.summary.endswith(f"to instance {BOB}, which runs without it")
    assert f"openstack server reboot --hard {BOB}" in finding.remedy
