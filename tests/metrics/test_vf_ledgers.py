"""What is printed of the VFs' ledgers, and above all what is not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mecexporter.state.observed import Fresh
from mecexporter.state.openstack import DeviceKind, Provider
from mecexporter.state.sriov import Held
from tests.metrics.scrape import series, values
from tests.worlds import (
    ALICE,
    BOB,
    CELL1,
    HOSTNAME,
    PF,
    READ,
    VFS,
    cell,
    changed,
    device,
    healthy_sriov,
    held_vf,
    interface,
    leaked_vf,
    nic,
    port,
    vf,
    without,
)

if TYPE_CHECKING:
    from mecexporter.state.world import World


def ledger(world: World, name: str) -> dict[tuple[str, ...], float]:
    return values(world, "mec_vf_ledger", "state", ledger=name, hostname=HOSTNAME, pf=PF)


def test_four_ledgers_of_one_leak() -> None:
    world = leaked_vf()
    assert ledger(world, "nova") == {("claimed",): 2, ("free",): 2, ("unavailable",): 0}
    assert ledger(world, "neutron") == {("claimed",): 1}
    assert ledger(world, "nic") == {("claimed",): 1, ("free",): 3, ("unavailable",): 0}
    assert ledger(world, "placement") == {("claimed",): 2, ("free",): 2, ("unavailable",): 0}
    drift = values(world, "mec_vf_drift", "kind", pf=PF)
    assert drift.pop(("leaked",)) == 1
    assert set(drift.values()) == {0}


def test_placement_that_does_not_track_says_so() -> None:
    world = healthy_sriov().with_part("placement", Fresh((), READ))
    assert ledger(world, "placement") == {("not_tracked",): 4}


def test_a_providers_host_may_have_its_domain() -> None:
    provider = Provider(uuid="u", name="n", host=f"{HOSTNAME}.example.org", pf=PF, total=4, reserved=1, used=2)
    world = healthy_sriov().with_part("placement", Fresh((provider,), READ))
    assert ledger(world, "placement") == {("claimed",): 2, ("free",): 1, ("unavailable",): 1}


SHOWN = {"neutron": "neutron", CELL1: "nova", "sysfs": "nic", "placement": "placement"}


@pytest.mark.parametrize(("source", "name"), SHOWN.items())
def test_a_lost_ledger_has_no_series(source: str, name: str) -> None:
    world = without(healthy_sriov(), source)
    assert values(world, "mec_vf_ledger", "state", ledger=name) == {}
    assert values(world, "mec_vf_claim_info", "pci_address", ledger=name) == {}
    others = {"neutron", "nova", "nic", "placement"} - {name}
    assert {key for (key,) in values(world, "mec_vf_ledger", "ledger")} == others


def test_drift_that_cannot_be_told_is_not_zero() -> None:
    drift = values(without(leaked_vf(), "neutron"), "mec_vf_drift", "kind")
    assert {kind for (kind,) in drift} == {"unrecorded", "inventory"}


def test_with_placement_alone_its_pfs_have_a_verdict() -> None:
    world = replace(healthy_sriov(), applicable=frozenset({"placement"}))
    assert values(world, "mec_vf_drift", "kind", pf=PF) == {("inventory",): 0}


def test_a_port_on_a_pf_that_nobody_knows_makes_no_count_of_it() -> None:
    world = replace(healthy_sriov(), applicable=frozenset({"neutron"}))
    assert values(world, "mec_vf_ledger", "pf") == {}
    assert values(world, "mec_vf_claim_info", "pci_address", "pf") == {(VFS[0], ""): 1, (VFS[1], ""): 1}


def test_a_flavours_device_is_a_claim_of_novas_and_marked() -> None:
    world = changed(healthy_sriov(), CELL1, devices=(device(0, ALICE, flavour=True), device(1, BOB)))
    assert values(world, "mec_vf_claim_info", "pci_address", ledger="nova") == {(VFS[0],): 1, (VFS[1],): 1}
    assert values(world, "mec_vf_flavour_claim_info", "pci_address") == {(VFS[0],): 1}


def test_a_pf_given_as_a_whole_is_no_vf_of_its_own() -> None:
    whole = device(0, ALICE, address=PF, parent=None, kind=DeviceKind.PF)
    world = changed(healthy_sriov(), CELL1, devices=(whole,))
    world = world.with_part("neutron", Fresh((port("p", 0, ALICE, address=PF, vnic="direct-physical"),), READ))
    assert ledger(world, "neutron") == {("claimed",): 0}
    assert values(world, "mec_vf_claim_info", "ledger", pci_address=PF) == {("nova",): 1, ("neutron",): 1}


def test_other_hosts_are_called_as_nova_calls_them() -> None:
    away = device(0, ALICE, host="Compute-2")
    world = healthy_sriov().with_part(CELL1, Fresh(cell(device(0, ALICE, host="COMPUTE-1"), away), READ))
    assert values(world, "mec_vf_claim_info", "hostname", ledger="nova") == {(HOSTNAME,): 1, ("Compute-2",): 1}


def test_holders_and_their_evidence() -> None:
    world = changed(healthy_sriov(), "sysfs", pfs=nic(held_vf(0, ALICE), held_vf(1, "", held=Held.BOUND), vf(2)).pfs)
    world = changed(world, "sysfs", processes_seen=False)
    assert values(world, "mec_vf_holder_info", "pci_address", "holder") == {(VFS[0], ALICE): 1, (VFS[1], ""): 1}
    assert values(world, "mec_sriov_holders_visible") == {(): 0}


def test_states_of_vfs_add_up() -> None:
    vfs = (held_vf(0, ALICE), vf(1, held=Held.UNSEEN), vf(2, by_host=True), vf(3))
    world = changed(healthy_sriov(), "sysfs", pfs=nic(*vfs).pfs)
    assert values(world, "mec_sriov_vf_state", "state") == {("guest",): 2, ("host",): 1, ("free",): 1}
    assert values(world, "mec_sriov_vf_configured", "pf") == {(PF,): 4}
    assert values(world, "mec_sriov_vf_capacity", "pf") == {(PF,): 8}


def test_the_logical_port_of_a_vf_is_its_representors() -> None:
    world = changed(healthy_sriov(), "ovs", interfaces=(interface("ens1f0npf0vf0", iface_id="port-a"),))
    assert values(world, "mec_sriov_vf_info", "representor", "logical_port", vf="0") == {("ens1f0npf0vf0", "port-a"): 1}
    assert values(without(world, "ovs"), "mec_sriov_vf_info", "logical_port", vf="0") == {("",): 1}


def test_versions_and_mode_come_from_netlink_and_are_empty_without_it() -> None:
    labels = ("driver", "driver_version", "firmware_version", "eswitch_mode", "numa_node")
    assert values(healthy_sriov(), "mec_sriov_pf_info", *labels) == {
        ("mlx5_core", "5.8-1.1.2", "22.35.1012", "switchdev", "0"): 1
    }
    lost = without(healthy_sriov(), "links")
    assert values(lost, "mec_sriov_pf_info", *labels) == {("mlx5_core", "", "", "switchdev", "0"): 1}, (
        "representors are there in that mode only"
    )


class TestPhysicalNetwork:
    def of(self, world: World) -> str:
        ((network,),) = values(world, "mec_sriov_pf_info", "physical_network")
        return network

    def test_as_nova_was_asked_for_it(self) -> None:
        assert self.of(healthy_sriov()) == "physnet2"
        assert self.of(without(healthy_sriov(), CELL1)) == ""

    def test_as_the_bridge_says(self) -> None:
        world = changed(
            healthy_sriov(),
            "ovs",
            ovn_settings={"ovn-bridge-mappings": "physnet1:br-ex, physnet3:br-nic"},
            interfaces=(interface("ens1f0np0", "br-nic"),),
        )
        assert self.of(world) == "physnet3"

    def test_as_the_bridge_of_its_bond_says(self) -> None:
        world = changed(healthy_sriov(), "sysfs", pfs=nic(vf(0), master="bond0").pfs)
        mapped = {"ovn-bridge-mappings": "physnet3:br-nic"}
        world = changed(world, "ovs", ovn_settings=mapped, interfaces=(interface("bond0", "br-nic"),))
        assert self.of(world) == "physnet3"

    def test_as_configured_before_all(self) -> None:
        world = healthy_sriov()
        mapped = replace(world.settings, device_mappings={"physnet9": ("ens1f0np0",)})
        assert self.of(replace(world, settings=mapped)) == "physnet9"


def test_a_host_without_such_nics_has_no_series() -> None:
    world = changed(healthy_sriov(), "sysfs", pfs=())
    assert not {name for name, _ in series(world) if name.startswith("mec_sriov_")}
