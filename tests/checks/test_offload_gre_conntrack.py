"""Incident 4: GRE under connection tracking left the hardware, and nothing showed it."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mecexporter.checks.base import Unknown
from mecexporter.checks.offload_gre_conntrack import offload_gre_conntrack
from mecexporter.errors import Reason
from mecexporter.state.datapath import Counted, Gre, Layer, Obstacle, Path, PortKind, Protocol
from mecexporter.state.observed import Fresh
from mecexporter.state.ovs import InterfaceKind
from tests.checks.verdicts import AWKWARD, all_said, findings, only_finding, reported
from tests.worlds import (
    ALICES,
    BOBS,
    COMPUTE_SOURCES,
    GRE,
    GRE_IN_KERNEL,
    HOSTNAME,
    LOAD,
    READ,
    TCP,
    changed,
    flow,
    gre_conntrack,
    healthy_compute,
    healthy_offload,
    in_kernel,
    in_tc,
    interface,
    offloading,
    table,
    taps_alone,
    without,
)

if TYPE_CHECKING:
    from mecexporter.state.datapath import FlowClass
    from mecexporter.state.world import World

HIDDEN = in_kernel(Protocol.OTHER, conntrack=True, hidden=True)


def test_healthy() -> None:
    for world in (healthy_offload(), taps_alone()):
        assert findings(offload_gre_conntrack, world) == ()
        assert reported(offload_gre_conntrack, world) == ()
    assert not offload_gre_conntrack.applies(replace(healthy_compute(), applicable=COMPUTE_SOURCES - {"tc"}))


def test_incident_4() -> None:
    finding = only_finding(offload_gre_conntrack, gre_conntrack())
    assert finding.subject == HOSTNAME
    assert finding.summary == (
        "58090 packets a second of GRE under connection tracking are switched by the CPU: "
        f"30000 from {ALICES} (port port-a), 28000 from genev_sys_6081, 90 from {BOBS} (port port-b)"
    )
    assert (finding.reads, finding.read_at) == (2, (READ, READ))
    assert reported(offload_gre_conntrack, gre_conntrack(), reads=1) == ()
    (found,) = reported(offload_gre_conntrack, gre_conntrack(), reads=2)
    assert found.severity == "warning"


def test_nothing_else_is_found_then() -> None:
    assert all_said(gre_conntrack()) == ({"offload_gre_conntrack": [HOSTNAME]}, {})


def test_the_remedy_names_the_ports() -> None:
    remedy = only_finding(offload_gre_conntrack, gre_conntrack()).remedy
    for command in (
        "openstack security group create --project PROJECT --stateless gre-stateless; ",
        "openstack security group rule create --project PROJECT --ingress --protocol 47 gre-stateless; ",
        "openstack security group rule create --project PROJECT --egress --protocol 47 gre-stateless, ",
        "openstack port set --no-security-group --security-group gre-stateless port-a; ",
        "openstack port set --no-security-group --security-group gre-stateless port-b; ",
    ):
        assert command in remedy


def test_where_no_connection_tracking_is_in_tc_the_kernel_is_named_first() -> None:
    world = offloading(table((flow(), 10)), table((GRE_IN_KERNEL, 500), (in_kernel(TCP, conntrack=True), 500)))
    remedy = only_finding(offload_gre_conntrack, world).remedy
    assert remedy.index("CONFIG_NET_TC_SKB_EXT") < remedy.index("--stateless")


def test_where_offload_is_off_that_is_the_remedy() -> None:
    world = changed(offloading(table(), table((GRE_IN_KERNEL, 500))), "ovs", hw_offload=False)
    assert only_finding(offload_gre_conntrack, world).remedy == (
        "ovs-vsctl set Open_vSwitch . other_config:hw-offload=true"
    )


@pytest.mark.parametrize(
    ("c", "there"),
    [
        (in_tc(GRE, conntrack=True), True),
        (in_tc(GRE, conntrack=True, obstacle=Obstacle.MISSED), True),
        (in_tc(GRE, conntrack=True, port_kind=PortKind.UPLINK), True),
        (in_kernel(GRE, conntrack=True, layer=Layer.USERSPACE, path=Path.PARTIAL), True),
        (flow(GRE, conntrack=True), False),
        (in_kernel(GRE), False),
        (in_kernel(TCP, conntrack=True), False),
        (in_kernel(GRE, conntrack=True, port_kind=PortKind.OTHER, port="tapvm1"), False),
        (in_kernel(GRE, conntrack=True, port_kind=PortKind.INTERNAL), False),
    ],
)
def test_which_flows_count(c: FlowClass, there: bool) -> None:
    tables = (table((c, 100)), table()) if c.layer is Layer.TC else (table(), table((c, 100)))
    assert bool(findings(offload_gre_conntrack, offloading(*tables))) is there


def test_threshold() -> None:
    def world(pps: int) -> World:
        return offloading(table((in_tc(GRE, conntrack=True, port=ALICES), 40)), table((GRE_IN_KERNEL, pps)))

    assert findings(offload_gre_conntrack, world(59)) == ()
    assert len(findings(offload_gre_conntrack, world(60))) == 1


def test_beside_taps_what_the_network_brings_may_be_theirs() -> None:
    brought = in_kernel(GRE, conntrack=True, port="genev_sys_6081", port_kind=PortKind.TUNNEL)
    world = offloading(table(*LOAD), table((brought, 5000)))
    assert len(findings(offload_gre_conntrack, world)) == 1
    assert isinstance(world.ovs, Fresh)
    with_tap = changed(world, "ovs", interfaces=(*world.ovs.value.interfaces, interface("tapvm1")))
    assert findings(offload_gre_conntrack, with_tap) == ()


def test_many_ports_are_not_listed() -> None:
    ports = [in_kernel(GRE, conntrack=True, port=f"rep{n}") for n in range(8)]
    summary = only_finding(offload_gre_conntrack, offloading(table(), table(*((c, 50) for c in ports)))).summary
    assert summary.endswith("50 from rep4, 3 devices more")


def test_a_thousand_ports_are_judged_quickly() -> None:
    ports = [in_kernel(GRE, conntrack=True, port=f"rep{n}") for n in range(1000)]
    world = offloading(table((flow(), 10)), table(*((c, 50) for c in ports)))
    world = changed(world, "links", tc_offload={c.port: True for c in ports})
    began = time.thread_time()
    assert only_finding(offload_gre_conntrack, world).summary.endswith("995 devices more")
    assert time.thread_time() - began < 0.2  # 0.02 s; where each class is held against all others, 1 s


@pytest.mark.parametrize("name", AWKWARD)
def test_ports_with_anything_in_their_name(name: str) -> None:
    world = changed(gre_conntrack(), "ovs", interfaces=(interface(ALICES, kind=InterfaceKind.VIF, iface_id=name),))
    finding = only_finding(offload_gre_conntrack, world)
    quoted = "'" + name.replace("'", "'\"'\"'") + "'"
    assert (name if name.isascii() and name.isalnum() else quoted) in finding.remedy


# Flows that match any protocol


def hidden(pps: int, gre: Gre | None, *, known: int = 0) -> World:
    world = offloading(table(*LOAD), table((HIDDEN, pps), (GRE_IN_KERNEL, known)))
    return changed(world, "conntrack", gre=gre, looked_at=READ - 1)


def counted(packets: float, *, entries: int = 2) -> Gre:
    packets = int(60 * packets)
    window = Counted(packets, 100 * packets)
    return Gre(entries={Path.SOFTWARE: entries, Path.HARDWARE: 0}, software=window, window=window, seconds=60.0)


def test_hidden_flows_are_told_by_conntrack() -> None:
    finding = only_finding(offload_gre_conntrack, hidden(10_000, counted(700)))
    assert finding.summary == (
        "700 packets a second of GRE under connection tracking are switched by the CPU; "
        "700 of them by conntrack's own count, for their flows match any protocol"
    )
    assert finding.read_at == (READ, READ, READ - 1)
    assert "for the guests' ports" in finding.remedy


def test_conntrack_counts_no_more_than_the_flows_carried() -> None:
    """A packet is in two zones where both ports have a stateful group."""
    assert only_finding(offload_gre_conntrack, hidden(400, counted(800))).summary.startswith("400 packets")


def test_what_the_flows_show_is_not_counted_twice() -> None:
    assert findings(offload_gre_conntrack, hidden(10_000, counted(90), known=90)) == ()
    assert only_finding(offload_gre_conntrack, hidden(10_000, counted(190), known=90)).summary.startswith("190 packets")


@pytest.mark.parametrize("gre", [counted(99), counted(0), Gre(entries={Path.SOFTWARE: 0}, software=None)])
def test_hidden_flows_without_gre(gre: Gre) -> None:
    assert findings(offload_gre_conntrack, hidden(10_000, gre)) == ()


def test_first_packets_of_hidden_connections_need_no_conntrack() -> None:
    tracked = flow(Protocol.OTHER, conntrack=True, hidden=True)
    missed = in_tc(Protocol.OTHER, conntrack=True, hidden=True, obstacle=Obstacle.MISSED)
    well = changed(offloading(table((tracked, 5000), (missed, 4000)), table()), "conntrack", gre=None)
    assert findings(offload_gre_conntrack, well) == ()
    ill = changed(offloading(table((tracked, 500), (missed, 4000)), table()), "conntrack", gre=None)
    assert offload_gre_conntrack.ask(ill) == Unknown(("conntrack",))


UNTOLD = [
    pytest.param(None, id="no word of GRE"),
    pytest.param(Gre(entries={Path.SOFTWARE: 1}, software=None), id="the kernel does not count"),
    pytest.param(Gre(entries={Path.SOFTWARE: 1}, software=Counted()), id="read once"),
]


@pytest.mark.parametrize("gre", UNTOLD)
def test_hidden_flows_that_conntrack_does_not_tell(gre: Gre | None) -> None:
    assert offload_gre_conntrack.ask(hidden(100, gre)) == Unknown(("conntrack",))
    assert findings(offload_gre_conntrack, hidden(99, gre)) == ()
    assert len(findings(offload_gre_conntrack, hidden(10_000, gre, known=100))) == 1


def test_conntrack_is_asked_only_where_it_matters() -> None:
    assert offload_gre_conntrack.ask(without(hidden(100, counted(700)), "conntrack")) == Unknown(("conntrack",))
    assert len(findings(offload_gre_conntrack, without(gre_conntrack(), "conntrack"))) == 1
    assert findings(offload_gre_conntrack, without(healthy_offload(), "conntrack")) == ()


@pytest.mark.parametrize("source", ["ovs", "sysfs", "tc", "ovs_flows"])
def test_cannot_tell(source: str) -> None:
    lost = without(gre_conntrack(), source, "300000 flows, more than the limit", Reason.TOO_LARGE)
    assert offload_gre_conntrack.ask(lost) == Unknown((source,))


def test_cannot_tell_before_the_second_read() -> None:
    once = offloading(table(*LOAD, seconds=None), table((GRE_IN_KERNEL, 5000), seconds=None))
    assert offload_gre_conntrack.ask(once) == Unknown(("tc", "ovs_flows"))
    nothing_hidden = offloading(table(seconds=None), table((in_kernel(port_kind=PortKind.OTHER), 9), seconds=None))
    assert findings(offload_gre_conntrack, nothing_hidden) == ()
