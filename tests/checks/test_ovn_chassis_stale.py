"""ovn_chassis_stale: chassis that give no sign of life while others do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mecexporter.checks.base import Unknown
from mecexporter.checks.ovn_chassis_stale import ovn_chassis_stale
from mecexporter.state.propagation import ListedChassis
from tests.checks.verdicts import findings, only_finding, reported
from tests.worlds import PEER, READ, SYSTEM_ID, healthy_central, leading, propagation, without
from tests.worlds import reported as report

STALE = report(3, behind=640, idle=650, missed=18, stale=True)


def test_one_that_is_stale() -> None:
    world = leading(healthy_central(), propagation(reported={SYSTEM_ID: report(), PEER: STALE}))
    finding = only_finding(ovn_chassis_stale, world)
    assert (finding.subject, finding.since) == (PEER, READ - 650)
    assert "compute-2" in finding.summary
    assert "has stood at nb_cfg 3, while Southbound went on to 21" in finding.summary
    assert f"ovn-sbctl chassis-del {PEER} -- --if-exists destroy Chassis_Private {PEER}" in finding.remedy
    assert len(reported(ovn_chassis_stale, world)) == 1


@pytest.mark.parametrize("peer", [report(), report(19, behind=599, idle=599, missed=2)])
def test_one_that_is_not(peer: object) -> None:
    world = leading(healthy_central(), propagation(reported={SYSTEM_ID: report(), PEER: peer}))
    assert findings(ovn_chassis_stale, world) == ()


def test_one_that_has_never_reported() -> None:
    never = replace(STALE, nb_cfg=0, at=None)
    world = leading(healthy_central(), propagation(reported={SYSTEM_ID: report(), PEER: never}))
    assert "has never reported" in only_finding(ovn_chassis_stale, world).summary


def test_a_report_without_its_chassis_holds_hv_cfg_back_too() -> None:
    gone = ListedChassis(name="gone", hostname="", registered=False)
    seen = propagation(
        chassis={**propagation().chassis, "gone": gone},
        reported={SYSTEM_ID: report(), PEER: report(), "gone": STALE},
    )
    finding = only_finding(ovn_chassis_stale, leading(healthy_central(), seen))
    assert finding.subject == "gone"
    assert "its Chassis is gone" in finding.summary
    assert "ovn-sbctl destroy Chassis_Private gone" in finding.remedy


def test_one_in_maintenance_may_be() -> None:
    world = leading(healthy_central(), propagation(reported={SYSTEM_ID: report(), PEER: STALE}))
    world = replace(world, settings=replace(world.settings, maintenance_hosts=frozenset({"compute-2"})))
    assert findings(ovn_chassis_stale, world) == ()


def test_without_an_answer_it_cannot_tell() -> None:
    assert ovn_chassis_stale.ask(without(healthy_central(), "ovn_chassis")) == Unknown(("ovn_chassis",))
