"""The northd of this host dead, paused or not connected; standing by is none of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mecexporter.checks.base import Unknown
from mecexporter.checks.ovn_northd_inactive import ovn_northd_inactive
from mecexporter.errors import Reason
from tests.checks.verdicts import only_finding, reported
from tests.worlds import (
    NB,
    READ,
    SB,
    changed,
    healthy_central,
    healthy_compute,
    healthy_member,
    healthy_standby,
    healthy_third,
    without,
)

ask = ovn_northd_inactive.ask


def test_active_and_connected() -> None:
    assert ask(healthy_central()) == ()


def test_standing_by() -> None:
    assert ask(changed(healthy_central(), "northd", active=False)) == ()


@pytest.mark.parametrize("reason", [Reason.MISSING, Reason.REFUSED])
def test_dead(reason: Reason) -> None:
    world = without(healthy_central(), "northd", "no pidfile", reason, ago=42)
    finding = only_finding(ovn_northd_inactive, world)
    assert finding.subject == "central-1"
    assert finding.summary == "ovn-northd is not running: no pidfile"
    assert finding.remedy.startswith(
        "start it: systemctl start ovn-northd; if it was moved away for good: mecexporter "
    )
    assert finding.since == world.now - 42, "the grace runs from the first call that failed"
    assert finding.reads == 2


def test_paused() -> None:
    finding = only_finding(ovn_northd_inactive, changed(healthy_central(), "northd", active=False, paused=True))
    assert finding.summary == "ovn-northd is paused"
    assert finding.remedy == "ovn-appctl -t ovn-northd resume"
    assert (finding.reads, finding.read_at, finding.since) == (2, READ, None)


@pytest.mark.parametrize(
    ("connected", "words"),
    [
        ({NB: False, SB: True}, "OVN_Northbound"),
        ({NB: True, SB: False}, "OVN_Southbound"),
        ({NB: False, SB: False}, "OVN_Northbound and OVN_Southbound"),
    ],
)
@pytest.mark.parametrize("active", [True, False])
def test_not_connected_names_to_what(connected: dict[str, bool], words: str, active: bool) -> None:
    world = changed(healthy_central(), "northd", active=active, connected=connected)
    assert only_finding(ovn_northd_inactive, world).summary == f"ovn-northd is not connected to {words}"


@pytest.mark.parametrize("reason", sorted(set(Reason) - {Reason.MISSING, Reason.REFUSED}))
def test_any_other_failure_cannot_tell(reason: Reason) -> None:
    assert ask(without(healthy_central(), "northd", reason=reason)) == Unknown(("northd",))


def test_it_needs_no_other_source() -> None:
    world = changed(healthy_central(), "northd", paused=True)
    for source in ("host", *world.databases):
        world = without(world, source, reason=Reason.TIMEOUT)
    assert only_finding(ovn_northd_inactive, world).summary == "ovn-northd is paused"


@pytest.mark.parametrize(
    ("world", "applies"),
    [
        (healthy_central(), True),
        (healthy_standby(), True),
        (healthy_member(), True),
        (without(healthy_central(), "northd"), True),
        (healthy_third(), False),
        (healthy_compute(), False),
    ],
)
def test_it_applies_where_one_is_known_to_run(world: object, applies: bool) -> None:
    assert ovn_northd_inactive.applies(world) is applies  # type: ignore[arg-type]  # parametrize has no type for it


def test_it_is_reported_after_two_reads() -> None:
    dead = without(healthy_central(), "northd", ago=300)
    assert reported(ovn_northd_inactive, dead, reads=1) == ()
    (found,) = reported(ovn_northd_inactive, dead, reads=2)
    assert (found.severity, found.subject) == ("critical", "central-1")
    assert found.first_seen == dead.now - 300
    assert len(reported(ovn_northd_inactive, replace(dead, hostname="x"), reads=2)) == 1
