"""A node's tunnels as its exporter counts them, while the underlay is cut between two candidates for a gateway."""

from __future__ import annotations

import re

import pytest

from mecexporter.metrics.collectors.tunnels import CHASSIS, TUNNELS
from tests.e2e.story import QUICK, Watched
from tests.lab import incidents
from tests.lab.site import SETTLE_TIMEOUT, Site
from tests.waiting import wait_until

pytestmark = pytest.mark.root


def tunnels(exporter: Watched) -> dict[str, int]:
    """By BFD, and ``chassis``: those that they lead to."""
    found = re.findall(
        rf'^(?:{TUNNELS.name}{{bfd_state="(\w+)"}}|{CHASSIS.name}) (\S+)$', exporter.metrics(), re.MULTILINE
    )
    return {state or "chassis": int(float(number)) for state, number in found}


def test_bfd_between_two_gateways() -> None:
    none = dict.fromkeys(("up", "down", "init", "admin_down", "off"), 0)
    with Site() as site, Watched(site.nodes["c1"], QUICK) as exporter:
        assert len(site.chassis()) == 2
        wait_until(lambda: tunnels(exporter) == none | {"off": 1, "chassis": 1}, SETTLE_TIMEOUT, "a tunnel, no BFD")
        incidents.begin(site, "tunnel-bfd-down")
        wait_until(lambda: tunnels(exporter) == none | {"down": 1, "chassis": 1}, SETTLE_TIMEOUT, "BFD is down")
        incidents.end(site, "tunnel-bfd-down")
        wait_until(lambda: tunnels(exporter) == none | {"off": 1, "chassis": 1}, SETTLE_TIMEOUT, "BFD is off again")
