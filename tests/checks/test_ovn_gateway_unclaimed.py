"""ovn_gateway_unclaimed: gateways that nobody serves, or two by turns."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mecexporter.checks.base import Severity, Unknown
from mecexporter.checks.ovn_gateway_unclaimed import ovn_gateway_unclaimed
from mecexporter.state.propagation import FLAPPING, STORMY, Gateway
from tests.checks.verdicts import findings, only_finding, reported
from tests.worlds import PEER, healthy_central, leading, propagation, without

if TYPE_CHECKING:
    from mecexporter.state.world import World

GATEWAY = Gateway(port="cr-lrp-1", chassis=PEER, preferred=True, window=120.0)


def with_gateway(**changes: Any) -> World:
    return leading(healthy_central(), propagation(gateways=(replace(GATEWAY, **changes),)))


def test_one_that_nobody_serves_in_two_reads() -> None:
    world = with_gateway(chassis=None, preferred=None)
    finding = only_finding(ovn_gateway_unclaimed, world)
    assert finding.subject == "cr-lrp-1"
    assert "no chassis serves" in finding.summary
    assert "lrp-get-gateway-chassis lrp-1" in finding.remedy
    assert reported(ovn_gateway_unclaimed, world, reads=1) == ()
    [opened] = reported(ovn_gateway_unclaimed, world)
    assert opened.severity is Severity.CRITICAL


@pytest.mark.parametrize("chassis", [PEER, None])
@pytest.mark.parametrize("seen", [{"moves": FLAPPING}, {"storms": STORMY}, {"moves": 2, "storms": STORMY}])
def test_a_claim_storm(chassis: str | None, seen: dict[str, int]) -> None:
    world = with_gateway(chassis=chassis, **seen)
    finding = only_finding(ovn_gateway_unclaimed, world)
    assert finding.subject == "cr-lrp-1"
    assert "from each other: within 120 s" in finding.summary
    assert f"{seen.get('moves', 0)} moves" in finding.summary
    assert "lrp-del-gateway-chassis lrp-1" in finding.remedy
    assert len(reported(ovn_gateway_unclaimed, world, reads=1)) == 1, "it was seen many times"


@pytest.mark.parametrize(
    "changes",
    [{}, {"preferred": None}, {"preferred": False}, {"moves": 2}, {"moves": FLAPPING - 1, "storms": STORMY - 1}],
)
def test_one_that_works(changes: dict[str, Any]) -> None:
    assert findings(ovn_gateway_unclaimed, with_gateway(**changes)) == ()


def test_a_site_without_gateways() -> None:
    assert findings(ovn_gateway_unclaimed, leading(healthy_central(), propagation(gateways=()))) == ()


def test_without_an_answer_it_cannot_tell() -> None:
    world = without(with_gateway(chassis=None), "ovn_chassis")
    assert ovn_gateway_unclaimed.ask(world) == Unknown(("ovn_chassis",))
