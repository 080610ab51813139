"""Incident 3: a VF that Nova counts as taken and nobody has."""

from dataclasses import replace

import pytest

from mecexporter.checks.vf_leaked import vf_leaked
from tests.checks.verdicts import AWKWARD, findings, only_finding, reported
from tests.worlds import BOB, CELL1, HOSTNAME, PF, READ, VFS, changed, device, healthy_sriov, leaked_vf


def test_healthy() -> None:
    assert findings(vf_leaked, healthy_sriov()) == ()
    assert reported(vf_leaked, healthy_sriov()) == ()


def test_incident_3() -> None:
    finding = only_finding(vf_leaked, leaked_vf())
    assert finding.subject == f"{HOSTNAME}/{VFS[1]}"
    assert finding.summary == f"VF {VFS[1]} of PF {PF} is allocated by Nova to instance {BOB}, no port names it"
    assert (finding.hold, finding.reads, finding.read_at) == (60.0, 2, (READ, READ, READ))
    (found,) = reported(vf_leaked, leaked_vf())
    assert found.severity == "warning"


def test_the_remedy_names_the_row_and_stops_nova_compute_first() -> None:
    remedy = only_finding(vf_leaked, leaked_vf()).remedy
    where = (
        f"WHERE deleted=0 AND address='{VFS[1]}' AND instance_uuid='{BOB}' AND compute_node_id IN (SELECT id FROM "  # noqa: S608  # never run
        f"compute_nodes WHERE deleted=0 AND host='{HOSTNAME}')"
    )
    assert where in remedy
    assert remedy.index("stopped") < remedy.index("UPDATE") < remedy.index("then start nova-compute")


def test_the_port_that_is_gone_is_named() -> None:
    world = changed(leaked_vf(), CELL1, devices=(device(1, BOB, port="port-b"),))
    assert "(for port port-b, which is gone)" in only_finding(vf_leaked, world).summary


def test_of_another_host_it_is_said_that_the_guest_is_not_seen() -> None:
    world = replace(leaked_vf(), applicable=leaked_vf().applicable - {"sysfs"})
    assert only_finding(vf_leaked, world).summary.endswith("; whether a guest holds it is not seen from here")


@pytest.mark.parametrize("name", AWKWARD)
def test_names_with_anything_in_them(name: str) -> None:
    world = changed(leaked_vf(), CELL1, devices=(device(1, name),), instances={})
    remedy = only_finding(vf_leaked, world).remedy
    assert "instance_uuid='" + name.replace("'", "''") + "'" in remedy
