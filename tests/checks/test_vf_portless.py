"""A guest that goes on using a VF whose port was deleted."""

from mecexporter.checks.vf_portless import vf_portless
from mecexporter.state.observed import Fresh
from mecexporter.state.sriov import Held
from tests.checks.verdicts import findings, only_finding
from tests.worlds import ALICE, BOB, HOSTNAME, PF, READ, VFS, changed, healthy_sriov, held_vf, leaked_vf, nic, port


def test_healthy_and_leaked() -> None:
    assert findings(vf_portless, healthy_sriov()) == ()
    assert findings(vf_portless, leaked_vf()) == ()


def test_a_guest_has_it() -> None:
    world = healthy_sriov().with_part("neutron", Fresh((port("port-a", 0, ALICE),), READ))
    finding = only_finding(vf_portless, world)
    assert finding.subject == f"{HOSTNAME}/{VFS[1]}"
    claimed = f"claimed by instance {BOB}, but no port names it"
    assert finding.summary == f"VF {VFS[1]} of PF {PF} is held by a guest and {claimed}"
    assert f"openstack server reboot --hard {BOB}" in finding.remedy


def test_on_weaker_evidence_that_is_said() -> None:
    world = healthy_sriov().with_part("neutron", Fresh((port("port-a", 0, ALICE),), READ))
    bound = nic(held_vf(0, ALICE), held_vf(1, "", held=Held.BOUND))
    summary = only_finding(vf_portless, changed(world, "sysfs", pfs=bound.pfs)).summary
    assert "(bound to vfio-pci; which process has it open can't be seen from here)" in summary
