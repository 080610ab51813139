"""One VF, two owners."""

from dataclasses import replace

import pytest

from mecexporter.checks.base import Unknown
from mecexporter.checks.vf_double_booked import vf_double_booked
from mecexporter.state.observed import Fresh
from tests.checks.verdicts import findings, only_finding
from tests.worlds import ALICE, BOB, CELL1, HOSTNAME, READ, VFS, changed, healthy_sriov, port, without


def test_healthy() -> None:
    assert findings(vf_double_booked, healthy_sriov()) == ()


def test_all_records_are_named() -> None:
    ports = (port("port-a", 0, ALICE), port("port-b", 0, BOB))
    finding = only_finding(vf_double_booked, healthy_sriov().with_part("neutron", Fresh(ports, READ)))
    assert finding.subject == f"{HOSTNAME}/{VFS[0]}"
    assert f"Nova's claim of instance {ALICE}; port port-a of instance {ALICE}; port port-b of instance {BOB}" in (
        finding.summary
    )


@pytest.mark.parametrize("alone", ["neutron", CELL1])
def test_one_ledger_is_enough_where_it_alone_is_configured(alone: str) -> None:
    world = replace(healthy_sriov(), applicable=frozenset({alone}))
    assert vf_double_booked.applies(world)
    assert findings(vf_double_booked, world) == ()


def test_with_neither_it_does_not_apply() -> None:
    assert not vf_double_booked.applies(replace(healthy_sriov(), applicable=frozenset({"sysfs", "placement"})))


@pytest.mark.parametrize("source", ["neutron", CELL1])
def test_one_that_is_configured_and_silent_makes_it_unknown(source: str) -> None:
    assert vf_double_booked.ask(without(healthy_sriov(), source)) == Unknown((source,))


def test_ports_of_one_instance_on_two_vfs_are_well() -> None:
    world = changed(healthy_sriov(), CELL1, instances={})
    assert findings(vf_double_booked, world) == ()
