"""Hardware carries too little."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mecexporter.checks.base import Unknown
from mecexporter.checks.offload_ratio_low import offload_ratio_low
from mecexporter.errors import Reason
from mecexporter.state.datapath import Obstacle, PortKind
from mecexporter.state.observed import Fresh
from mecexporter.state.world import Settings
from tests.checks.verdicts import findings, only_finding, reported
from tests.worlds import (
    ARP,
    COMPUTE_SOURCES,
    GRE_IN_KERNEL,
    HOSTNAME,
    READ,
    TCP,
    UDP,
    changed,
    flow,
    gre_conntrack,
    healthy_compute,
    healthy_offload,
    in_kernel,
    in_tc,
    offloading,
    table,
    taps_alone,
    without,
)

SLOW = offloading(table((flow(), 400), (in_tc(), 500)), table((in_kernel(UDP), 101)))


def test_healthy() -> None:
    for world in (healthy_offload(), taps_alone()):
        assert findings(offload_ratio_low, world) == ()
        assert reported(offload_ratio_low, world) == ()
    assert not offload_ratio_low.applies(replace(healthy_compute(), applicable=COMPUTE_SOURCES - {"tc"}))


def test_below_the_limit() -> None:
    finding = only_finding(offload_ratio_low, SLOW)
    assert finding.subject == HOSTNAME
    assert finding.summary == (
        "hardware carries 40% of 1001 packets a second (wanted: 80%); in software: refused 500, unknown 101"
    )
    assert finding.remedy.startswith("refused: TC has these flows and the driver does not take them")
    assert (finding.reads, finding.read_at, finding.hold) == (3, (READ, READ), 0.0)


def test_after_three_intervals() -> None:
    assert reported(offload_ratio_low, SLOW, reads=2) == ()
    (found,) = reported(offload_ratio_low, SLOW, reads=3)
    assert found.severity == "warning"


def test_both_tables_must_have_been_read_again() -> None:
    assert only_finding(offload_ratio_low, SLOW.with_part("tc", Fresh(table((in_tc(), 2000)), READ - 9))).read_at == (
        READ - 9,
        READ,
    )


def test_limits_are_settings() -> None:
    assert findings(offload_ratio_low, replace(SLOW, settings=Settings(offload_ratio_low=0.39))) == ()
    assert findings(offload_ratio_low, replace(SLOW, settings=Settings(offload_min_pps=1001))) == ()


def test_at_the_limits_all_is_well() -> None:
    assert findings(offload_ratio_low, offloading(table((flow(), 800), (in_tc(), 200)), table())) == ()
    assert findings(offload_ratio_low, offloading(table((in_tc(), 1000)), table())) == ()
    assert len(findings(offload_ratio_low, offloading(table((in_tc(), 1001)), table()))) == 1


def test_what_is_not_expected_in_hardware_is_no_load() -> None:
    tap = in_kernel(TCP, port_kind=PortKind.OTHER)
    assert findings(offload_ratio_low, offloading(table(), table((ARP, 10**6), (tap, 10**6), (in_kernel(), 900)))) == ()


def test_short_connections_are_no_trouble() -> None:
    missed = in_tc(TCP, conntrack=True, obstacle=Obstacle.MISSED)
    assert (
        findings(offload_ratio_low, offloading(table((flow(TCP, conntrack=True), 5500), (missed, 5000)), table())) == ()
    )


def test_incident_4() -> None:
    assert findings(offload_ratio_low, gre_conntrack()) == ()  # TCP is nine tenths of it
    alone = offloading(table((flow(), 10_000)), table((GRE_IN_KERNEL, 30_000)))
    assert only_finding(offload_ratio_low, alone).summary.endswith("in software: conntrack_gre 30000")


@pytest.mark.parametrize("source", ["ovs", "sysfs", "tc", "ovs_flows"])
def test_cannot_tell(source: str) -> None:
    lost = without(SLOW, source, "300000 flows, more than the limit", Reason.TOO_LARGE)
    assert offload_ratio_low.ask(lost) == Unknown((source,))


def test_cannot_tell_before_the_second_read() -> None:
    once = offloading(table((flow(), 400), seconds=None), table((in_kernel(UDP), 101), seconds=None))
    assert offload_ratio_low.ask(once) == Unknown(("tc", "ovs_flows"))


def test_where_nothing_is_expected_one_read_is_enough() -> None:
    tap = in_kernel(TCP, port_kind=PortKind.OTHER)
    assert findings(offload_ratio_low, offloading(table(seconds=None), table((tap, 10**6), seconds=None))) == ()


def test_hw_offload_is_off() -> None:
    world = changed(offloading(table(), table((in_kernel(), 5000))), "ovs", hw_offload=False)
    assert "in software: offload_off 5000" in only_finding(offload_ratio_low, world).summary
