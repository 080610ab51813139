"""A guest that holds a VF which Nova will give to another."""

import pytest

from mecexporter.checks.base import Unknown
from mecexporter.checks.vf_unrecorded import vf_unrecorded
from mecexporter.state.observed import Fresh
from tests.checks.verdicts import findings, only_finding
from tests.worlds import ALICE, BOB, CELL1, HOSTNAME, READ, VFS, changed, device, healthy_sriov, without


def test_healthy() -> None:
    assert findings(vf_unrecorded, healthy_sriov()) == ()


def test_the_guest_and_the_port_are_named() -> None:
    world = changed(healthy_sriov(), CELL1, devices=(device(0, ALICE), device(1)))
    finding = only_finding(vf_unrecorded, world)
    assert finding.subject == f"{HOSTNAME}/{VFS[1]}"
    assert f"is held by guest {BOB}, and Nova has it claimed for nobody; port port-b names it" in finding.summary
    assert f"virsh dominfo {BOB}" in finding.remedy


def test_neutron_is_not_needed_for_it() -> None:
    world = without(changed(healthy_sriov(), CELL1, devices=(device(0, ALICE),)), "neutron")
    assert only_finding(vf_unrecorded, world).read_at == (READ, READ)
    assert findings(vf_unrecorded, world.with_part(CELL1, Fresh(healthy_sriov().cells[CELL1].value, READ))) == ()  # type: ignore[union-attr]  # fresh in that World


@pytest.mark.parametrize("source", [CELL1, "sysfs"])
def test_nova_and_the_nic_are(source: str) -> None:
    assert vf_unrecorded.ask(without(healthy_sriov(), source)) == Unknown((source,))
