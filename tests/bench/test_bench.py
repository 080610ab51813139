"""The bench runs; how fast things are is for people to judge, not for a test on a shared machine."""

from __future__ import annotations

import pytest

from tests.bench.audit import on_a_pair
from tests.bench.datapaths import beside_vswitchd, of_text, of_the_kernel
from tests.bench.flows import of_flows
from tests.bench.ledgers import CHANGED, on_a_site
from tests.bench.links import of_links
from tests.bench.measure import all_checks, large_scrape, on_a_node
from tests.bench.propagation import on_chassis


def test_price_of_the_checks_is_measured() -> None:
    assert all_checks(10)


def test_large_scrape_is_large() -> None:
    [first, *_] = large_scrape()
    assert int(first.what.removeprefix("scrape of ").partition(" ")[0]) > 9000


@pytest.mark.root
def test_a_node_is_measured() -> None:
    assert {row.what for row in on_a_node(5, 2)} >= {"exporter, CPU", "ovs-vswitchd, CPU for us"}


def test_an_audit_is_measured() -> None:
    assert {row.what for row in on_a_pair(20, 5, 20)} >= {
        "audit of OVN_Northbound, CPU",
        "audit of OVN_Southbound, RSS",
    }


def test_ledgers_are_measured_and_agree() -> None:
    rows = {row.what: row.value for row in on_a_site(10, 2_000)}
    assert rows["poll of Placement, requests"] == str(1 + 2 * CHANGED)
    assert {"poll of Neutron, CPU", "VFs judged, CPU", "ledgers, RSS"} <= rows.keys()
    # 640 groups are 13 requests for their rules, and one more each, for some came; 13 groups and one a project are 3.
    assert rows["poll of security groups, requests"] == "29"


def test_flows_are_measured() -> None:
    assert {row.what for row in of_flows(500, 500)} >= {"TC filter, CPU", "flows in the counters, RSS"}


@pytest.mark.root
def test_links_are_measured() -> None:
    assert {row.what for row in of_links(20, 5)} >= {"statistics of links, CPU", "hw-tc-offload of devices, CPU"}


def test_flows_of_datapaths_are_measured() -> None:
    assert [float(row.value.split()[0]) > 0 for row in (*of_the_kernel(2000), *of_text(2000))] == [True] * 4


def test_how_long_ovs_vswitchd_is_held_is_measured() -> None:
    few, many = beside_vswitchd(500, 30_000)
    assert few.what.startswith("another's command beside us, 500 flows")
    assert "detail skipped" in many.how


@pytest.mark.root
@pytest.mark.long
@pytest.mark.timeout(900)
def test_chassis_are_measured_and_none_is_said_to_be_behind() -> None:
    rows = {row.what: row.value for row in on_chassis(50, 1_000, 20, 20)}
    assert {"central, CPU", "central, SB server's CPU for us", "central, rules of propagation"} <= rows.keys()
    assert int(rows["central, series"].replace(",", "")) > 3 * 50
