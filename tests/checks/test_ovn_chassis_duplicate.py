"""ovn_chassis_duplicate: two Chassis of one host."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mecexporter.checks.base import Unknown
from mecexporter.checks.ovn_chassis_duplicate import ovn_chassis_duplicate
from mecexporter.state.propagation import ListedChassis, sharing_hostname
from tests.checks.verdicts import findings, only_finding, reported
from tests.worlds import PEER, SYSTEM_ID, healthy_central, leading, propagation, without
from tests.worlds import reported as report

if TYPE_CHECKING:
    from mecexporter.state.world import World

OLD = ListedChassis(name="0ld", hostname="compute-2", encaps=(("geneve", "192.0.2.9"), ("vxlan", "192.0.2.9")))


def with_chassis(*chassis: ListedChassis, shared: frozenset[str] = frozenset()) -> World:
    """Beside the two."""
    listed = {**propagation().chassis, **{c.name: c for c in chassis}}
    seen = propagation(
        chassis=listed,
        sharing=sharing_hostname(listed),
        reported={SYSTEM_ID: report(), PEER: report(), "0ld": report(19, behind=5)},
    )
    world = leading(healthy_central(), seen)
    return replace(world, settings=replace(world.settings, shared_hostnames=shared))


def test_two_of_one_host() -> None:
    world = with_chassis(OLD)
    finding = only_finding(ovn_chassis_duplicate, world)
    assert finding.subject == "compute-2"
    assert "2 Chassis are of the host compute-2" in finding.summary
    assert "0ld (192.0.2.9 192.0.2.9, nb_cfg 19, behind)" in finding.summary
    assert f"{PEER} (192.0.2.2, nb_cfg 21)" in finding.summary
    assert "chassis-del" in finding.remedy
    assert len(reported(ovn_chassis_duplicate, world)) == 1


def test_one_read_of_the_list_is_not_enough() -> None:
    """An operator may be about to delete the old one; that the reports are read anew is no second look at the list."""
    assert reported(ovn_chassis_duplicate, with_chassis(OLD), reads=1) == ()


@pytest.mark.parametrize("hostname", ["COMPUTE-2", "Compute-2"])
def test_case_makes_no_other_host(hostname: str) -> None:
    assert only_finding(ovn_chassis_duplicate, with_chassis(replace(OLD, hostname=hostname))).subject == hostname


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(replace(OLD, hostname="compute-2.example"), id="a name that turned FQDN"),
        pytest.param(replace(OLD, hostname=""), id="no name"),
        pytest.param(replace(OLD, remote=True), id="another deployment's"),
        pytest.param(replace(OLD, registered=False), id="its Chassis is gone"),
    ],
)
def test_what_is_no_second(other: ListedChassis) -> None:
    assert findings(ovn_chassis_duplicate, with_chassis(other)) == ()


def test_two_without_a_name_share_none() -> None:
    nameless = replace(OLD, hostname="")
    assert findings(ovn_chassis_duplicate, with_chassis(nameless, replace(nameless, name="b"))) == ()


def test_a_host_that_rightly_has_several() -> None:
    assert findings(ovn_chassis_duplicate, with_chassis(OLD, shared=frozenset({"Compute-2"}))) == ()


def test_without_an_answer_it_cannot_tell() -> None:
    assert ovn_chassis_duplicate.ask(without(with_chassis(OLD), "ovn_chassis")) == Unknown(("ovn_chassis",))
