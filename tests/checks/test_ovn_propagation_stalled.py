"""ovn_propagation_stalled: whose number is below one that was there for longer than the grace, and nobody else's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mecexporter.checks.base import Severity, Unknown
from mecexporter.checks.ovn_propagation_stalled import ovn_propagation_stalled
from mecexporter.errors import Reason
from mecexporter.state.propagation import Lag
from mecexporter.state.world import Settings
from tests.checks.verdicts import AWKWARD, all_said, findings, only_finding, reported
from tests.worlds import HOSTNAME, PEER, READ, SYSTEM_ID, healthy_central, leading, propagation, without
from tests.worlds import reported as report

if TYPE_CHECKING:
    from mecexporter.state.propagation import Reported
    from mecexporter.state.world import World


def with_peer(peer: Reported, *, settings: dict[str, Any] | None = None, **changes: Any) -> World:
    """The second chassis reports that."""
    seen = propagation(reported={SYSTEM_ID: report(), PEER: peer}, **changes)
    return leading(replace(healthy_central(), settings=Settings(**(settings or {}))), seen)


def test_one_that_lacks_a_value_for_longer_than_the_grace() -> None:
    world = with_peer(report(19, behind=61, idle=70, missed=2))
    finding = only_finding(ovn_propagation_stalled, world)
    assert finding.subject == PEER
    assert finding.since == READ - 61
    assert "compute-2" in finding.summary
    assert "stands at nb_cfg 19, Southbound at 21" in finding.summary
    assert "mecexporter check" in finding.remedy
    [opened] = reported(ovn_propagation_stalled, world)
    assert opened.severity is Severity.WARNING


@pytest.mark.parametrize("behind", [None, 0.0, 15.0, 60.0])
def test_one_that_follows_within_the_grace(behind: float | None) -> None:
    assert findings(ovn_propagation_stalled, with_peer(report(20, behind=behind, missed=1))) == ()


def test_the_grace_is_as_configured() -> None:
    world = with_peer(report(20, behind=61), settings={"grace_propagation": 120})
    assert findings(ovn_propagation_stalled, world) == ()


def test_one_that_has_never_reported_is_said_to_have_not() -> None:
    finding = only_finding(ovn_propagation_stalled, with_peer(report(0, behind=61, idle=61, at=None)))
    assert "has never reported" in finding.summary


def test_one_that_is_stale_is_told_as_that() -> None:
    world = with_peer(report(3, behind=700, idle=700, missed=18, stale=True))
    assert findings(ovn_propagation_stalled, world) == ()
    assert all_said(world) == ({"ovn_chassis_stale": [PEER]}, {})


def test_one_in_maintenance_may_be_behind() -> None:
    world = with_peer(report(3, behind=61), settings={"maintenance_hosts": frozenset({"compute-2"})})
    assert findings(ovn_propagation_stalled, world) == ()
    shouted = propagation().chassis[PEER]
    chassis = {**propagation().chassis, PEER: replace(shouted, hostname="COMPUTE-2")}
    world = with_peer(report(3, behind=61), settings={"maintenance_hosts": frozenset({"compute-2"})}, chassis=chassis)
    assert findings(ovn_propagation_stalled, world) == ()


def test_southbound_that_is_behind() -> None:
    """Northd does nothing: one finding, not one a chassis."""
    finding = only_finding(
        ovn_propagation_stalled, leading(healthy_central(), propagation(nb_cfg=23, southbound=Lag(behind=61, idle=90)))
    )
    assert finding.subject == "OVN_Southbound"
    assert "Northbound's nb_cfg is 23, Southbound's still 21" in finding.summary
    assert "ovn-northd" in finding.remedy


@pytest.mark.parametrize("southbound", [Lag(behind=30, from_start=True), Lag()])
@pytest.mark.parametrize("peer", [report(20, behind=30, from_start=True), report()])
def test_right_after_our_start_it_is_not_known_for_how_long(southbound: Lag, peer: Reported) -> None:
    world = with_peer(peer, southbound=southbound)
    verdict = ovn_propagation_stalled.ask(world)
    if southbound.from_start or peer.lag.from_start:
        assert verdict == Unknown(("ovn_chassis",))
    else:
        assert verdict == ()


def test_one_that_is_stalled_for_certain_is_told_though_another_is_not_known() -> None:
    seen = {SYSTEM_ID: report(19, behind=30, from_start=True), PEER: report(19, behind=61, from_start=True)}
    assert only_finding(ovn_propagation_stalled, leading(healthy_central(), propagation(reported=seen))).subject == PEER


def test_the_grace_over_one_that_was_behind_when_we_began_is_stalled() -> None:
    assert findings(ovn_propagation_stalled, with_peer(report(19, behind=61, from_start=True)))


@pytest.mark.parametrize("reason", [Reason.TIMEOUT, Reason.MISSING, Reason.STALE])
def test_without_an_answer_it_cannot_tell(reason: Reason) -> None:
    world = without(with_peer(report(19, behind=61)), "ovn_chassis", reason=reason)
    assert ovn_propagation_stalled.ask(world) == Unknown(("ovn_chassis",))


def test_where_nobody_leads_it_does_not_apply() -> None:
    world = healthy_central()
    assert not ovn_propagation_stalled.applies(replace(world, applicable=world.applicable - {"ovn_chassis"}))
    assert ovn_propagation_stalled.applies(world)


@pytest.mark.parametrize("name", AWKWARD)
def test_names_of_any_kind(name: str) -> None:
    chassis = {**propagation().chassis, PEER: replace(propagation().chassis[PEER], hostname=name)}
    finding = only_finding(ovn_propagation_stalled, with_peer(report(19, behind=61), chassis=chassis))
    assert finding.subject == PEER
    assert HOSTNAME not in finding.summary
