"""VFs that are counted on and are not there."""

from dataclasses import replace

import pytest

from mecexporter.checks.base import Unknown
from mecexporter.checks.vf_inventory_mismatch import NOTICED, vf_inventory_mismatch
from mecexporter.state.observed import Fresh
from mecexporter.state.openstack import Stock
from mecexporter.state.world import World
from tests.checks.verdicts import findings, only_finding
from tests.worlds import ALICE, CELL1, HOSTNAME, PF, READ, VFS, healthy_sriov, held_vf, nic, provider, without


def placed(**changes: int) -> World:
    return healthy_sriov().with_part("placement", Fresh((provider(**{"used": 4, **changes}),), READ))


def test_healthy() -> None:
    assert findings(vf_inventory_mismatch, healthy_sriov()) == ()


def test_vfs_that_the_host_has_no_more() -> None:
    world = healthy_sriov().with_part("sysfs", Fresh(nic(held_vf(0, ALICE)), READ))
    found = {f.subject: f for f in findings(vf_inventory_mismatch, world)}
    assert found.keys() == {f"{HOSTNAME}/{address}" for address in VFS[1:]}
    of_bob, free = found[f"{HOSTNAME}/{VFS[1]}"], found[f"{HOSTNAME}/{VFS[2]}"]
    assert "(allocated, given to instance b0b" in of_bob.summary
    assert f"Nova's cell knows VF {VFS[2]} of PF {PF} (available); this host has no such device" == free.summary
    assert (free.hold, free.reads) == (NOTICED, 2), "nova-compute notices within minutes"


@pytest.mark.parametrize(("changes", "over"), [({"used": 4}, False), ({"used": 5}, True), ({"total": 0}, True)])
def test_placement_gave_away_more_than_it_has(changes: dict[str, int], over: bool) -> None:
    found = findings(vf_inventory_mismatch, placed(**changes))
    assert [f.subject for f in found] == ([f"{HOSTNAME}/{PF}"] if over else [])


def test_one_class_does_not_make_up_for_another() -> None:
    stock = {"CUSTOM_FAST": Stock(total=2, reserved=0, used=3), "SRIOV_NET_VF": Stock(total=8, reserved=0, used=1)}
    world = healthy_sriov().with_part("placement", Fresh((provider(stock=stock),), READ))
    finding = only_finding(vf_inventory_mismatch, world)
    assert finding.summary == (
        f"Placement gave away more of provider {HOSTNAME}_{PF.upper()} than it has: 3 CUSTOM_FAST of 2"
    )


def test_a_provider_without_an_address_goes_by_its_name() -> None:
    own = provider(total=1, used=2, name="compute-1-vfs", host="compute-1-vfs", pf=None)
    world = healthy_sriov().with_part("placement", Fresh((own,), READ))
    assert only_finding(vf_inventory_mismatch, world).subject == "compute-1-vfs"


def test_where_it_applies() -> None:
    for sources, applies in (
        ({"placement"}, True),
        ({"sysfs", CELL1}, True),
        ({"sysfs", "neutron"}, False),
        ({CELL1, "neutron"}, False),
    ):
        assert vf_inventory_mismatch.applies(replace(healthy_sriov(), applicable=frozenset(sources))) is applies


def test_placement_that_does_not_track_vfs_is_no_drift() -> None:
    assert findings(vf_inventory_mismatch, healthy_sriov().with_part("placement", Fresh((), READ))) == ()


@pytest.mark.parametrize("source", ["placement", CELL1, "sysfs"])
def test_without_one_of_both_comparisons_it_cannot_tell(source: str) -> None:
    assert vf_inventory_mismatch.ask(without(healthy_sriov(), source)) == Unknown((source,))


def test_but_what_the_other_finds_is_said() -> None:
    assert only_finding(vf_inventory_mismatch, without(placed(used=5), "sysfs")).subject == f"{HOSTNAME}/{PF}"
