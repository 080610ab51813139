"""Why packets are in software, what of them hardware is to carry, and what of them it does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mecexporter.checks.offload import BESIDE, attributed, expected, hit_ratios, judged, rates, reason
from mecexporter.state.datapath import (
    Counted,
    FlowClass,
    FlowTable,
    Layer,
    Obstacle,
    Path,
    PortKind,
    Protocol,
    Software,
    Why,
)
from mecexporter.state.observed import Fresh
from mecexporter.state.ovs import OffloadRun
from mecexporter.state.sriov import Nic
from tests.worlds import (
    ALICES,
    ARP,
    BOBS,
    GRE,
    GRE_IN_KERNEL,
    PF,
    READ,
    TCP,
    UDP,
    UPLINK,
    changed,
    flow,
    gre_conntrack,
    healthy_offload,
    in_kernel,
    in_tc,
    interface,
    nic,
    offloading,
    table,
    taps_alone,
    vf,
    with_flows,
    without,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from mecexporter.state.world import World

TAP, TUNNEL = PortKind.OTHER, PortKind.TUNNEL


def no_offload(world: World) -> World:
    """As configured, and nothing in TC shows otherwise."""
    return changed(world, "ovs", hw_offload=False).with_part("tc", Fresh(table(), READ))


def legacy(world: World) -> World:
    return world.with_part("sysfs", Fresh(nic(vf(0), representors={}), READ)).with_part(
        "links", Fresh(replace(world.links.value, pfs={}), READ) if isinstance(world.links, Fresh) else world.links
    )


def no_feature(*devices: str) -> Callable[[World], World]:
    return lambda world: changed(world, "links", tc_offload=dict.fromkeys(devices, False))


def no_conntrack_in_tc(world: World) -> World:
    return with_flows(
        world, table((flow(UDP), 100)), table((GRE_IN_KERNEL, 100), (in_kernel(TCP, conntrack=True), 100))
    )


def gre_alone_in_conntrack(world: World) -> World:
    return with_flows(world, table((flow(UDP), 100)), table((GRE_IN_KERNEL, 100)))


def policy(name: str) -> Callable[[World], World]:
    return lambda world: changed(world, "ovs", tc_policy=name)


def as_it_is(world: World) -> World:
    return world


HIDDEN = in_kernel(Protocol.OTHER, conntrack=True, hidden=True)


@pytest.mark.parametrize(
    ("c", "change", "why"),
    [
        # Alone.
        (ARP, as_it_is, Why.EXEMPT),
        (in_kernel(layer=Layer.USERSPACE, path=Path.PARTIAL), as_it_is, Why.PARTIAL),
        (in_tc(obstacle=Obstacle.MISSED), as_it_is, Why.MISSED),
        (in_tc(GRE, conntrack=True, obstacle=Obstacle.MISSED), as_it_is, Why.CONNTRACK_GRE),
        (in_kernel(port_kind=TAP), as_it_is, Why.NOT_ON_NIC),
        (in_tc(port_kind=TAP), as_it_is, Why.NOT_ON_NIC),
        (in_tc(port_kind=PortKind.INTERNAL), as_it_is, Why.NOT_ON_NIC),
        (in_kernel(port_kind=TUNNEL), legacy, Why.NOT_SWITCHDEV),
        (in_kernel(port_kind=PortKind.UPLINK), legacy, Why.NOT_SWITCHDEV),
        (in_tc(obstacle=Obstacle.SKIP_HW), as_it_is, Why.TC_POLICY),
        (in_kernel(), no_offload, Why.OFFLOAD_OFF),
        (in_tc(), no_feature(UPLINK, ALICES), Why.FEATURE_OFF),
        (in_tc(port=ALICES), no_feature(ALICES), Why.FEATURE_OFF),
        (in_tc(port_kind=TUNNEL), no_feature(UPLINK), Why.FEATURE_OFF),
        (in_kernel(obstacle=Obstacle.TUNNEL), as_it_is, Why.TUNNEL),
        (in_kernel(obstacle=Obstacle.ACTION), as_it_is, Why.ACTION),
        (in_kernel(obstacle=Obstacle.MATCH), as_it_is, Why.MATCH),
        (GRE_IN_KERNEL, as_it_is, Why.CONNTRACK_GRE),
        (in_tc(GRE, conntrack=True), as_it_is, Why.CONNTRACK_GRE),
        (GRE_IN_KERNEL, no_conntrack_in_tc, Why.CONNTRACK),
        (in_kernel(TCP, conntrack=True), no_conntrack_in_tc, Why.CONNTRACK),
        (GRE_IN_KERNEL, gre_alone_in_conntrack, Why.CONNTRACK_GRE),
        (HIDDEN, no_conntrack_in_tc, Why.CONNTRACK),
        (HIDDEN, as_it_is, Why.HIDDEN),
        (in_tc(), as_it_is, Why.REFUSED),
        (in_tc(TCP, conntrack=True), as_it_is, Why.REFUSED),
        (in_kernel(), policy("skip_sw"), Why.REFUSED),
        (in_kernel(), as_it_is, Why.UNKNOWN),
        (in_kernel(TCP, conntrack=True), as_it_is, Why.UNKNOWN),
        (in_kernel(layer=Layer.USERSPACE), as_it_is, Why.UNKNOWN),
        (in_kernel(layer=Layer.USERSPACE), no_offload, Why.OFFLOAD_OFF),
        # One before the other.
        (in_kernel(Protocol.OTHER, ordinary=False, port_kind=TAP), no_offload, Why.EXEMPT),
        (in_tc(port_kind=TAP, obstacle=Obstacle.MISSED), as_it_is, Why.MISSED),
        (in_tc(port_kind=TAP, obstacle=Obstacle.SKIP_HW), as_it_is, Why.NOT_ON_NIC),
        (in_kernel(port_kind=TAP), no_offload, Why.NOT_ON_NIC),
        (in_kernel(port_kind=TUNNEL, obstacle=Obstacle.TUNNEL), legacy, Why.NOT_SWITCHDEV),
        (GRE_IN_KERNEL, no_offload, Why.OFFLOAD_OFF),
        (in_kernel(obstacle=Obstacle.MATCH), no_offload, Why.OFFLOAD_OFF),
        (replace(GRE_IN_KERNEL, obstacle=Obstacle.ACTION), as_it_is, Why.ACTION),
        (in_tc(GRE, conntrack=True), no_feature(UPLINK, ALICES), Why.FEATURE_OFF),
        # Filters in TC show that offload runs, whatever was configured since; of those that are not there it says all.
        (in_tc(), lambda world: changed(world, "ovs", hw_offload=False), Why.REFUSED),
        (in_kernel(), lambda world: changed(world, "ovs", hw_offload=False), Why.UNKNOWN),
        # A device that has the feature is a NIC's, whoever knows it or not; one of several that are off proves nothing.
        (in_kernel(GRE, conntrack=True, port_kind=TAP, port=ALICES), as_it_is, Why.CONNTRACK_GRE),
        (in_kernel(GRE, conntrack=True, port_kind=TAP, port="tap1"), as_it_is, Why.NOT_ON_NIC),
        (in_tc(), lambda world: changed(world, "links", tc_offload={ALICES: False, BOBS: True}), Why.REFUSED),
    ],
)
def test_reason(c: FlowClass, change: Callable[[World], World], why: Why) -> None:
    assert reason(c, change(healthy_offload())) is why


@pytest.mark.parametrize(
    ("c", "source", "why"),
    [
        (GRE_IN_KERNEL, "tc", Why.UNKNOWN),
        (in_kernel(TCP, conntrack=True), "tc", Why.UNKNOWN),
        (in_kernel(obstacle=Obstacle.ACTION), "tc", Why.ACTION),
        (in_tc(), "ovs", Why.REFUSED),
        (in_tc(), "links", Why.REFUSED),
        (in_tc(), "sysfs", Why.REFUSED),
        (in_kernel(port_kind=TUNNEL), "sysfs", Why.UNKNOWN),
    ],
)
def test_what_is_not_known_is_no_reason(c: FlowClass, source: str, why: Why) -> None:
    assert reason(c, without(healthy_offload(), source)) is why


def test_whether_offload_is_on_must_be_known() -> None:
    """Filters in TC tell as well as the configuration."""
    c = in_kernel(obstacle=Obstacle.ACTION)
    blind = without(healthy_offload(), "ovs")
    assert reason(c, blind) is Why.ACTION
    assert reason(c, without(blind, "tc")) is Why.UNKNOWN
    assert reason(c, blind.with_part("tc", Fresh(table(), READ))) is Why.UNKNOWN


def test_what_runs_counts_more_than_what_is_configured() -> None:
    world = changed(no_offload(healthy_offload()), "vswitchd", process="7 100")
    run = OffloadRun(process="7 100", hw_offload=True, tc_policy="none", offload=True)
    running = replace(world, memory=replace(world.memory, offload=run))
    assert reason(in_kernel(), running) is Why.UNKNOWN
    off = replace(world, memory=replace(world.memory, offload=replace(run, offload=False)))
    assert reason(in_kernel(), changed(off, "ovs", hw_offload=True)) is Why.OFFLOAD_OFF
    another = replace(world, memory=replace(world.memory, offload=replace(run, process="8 200")))
    assert reason(in_kernel(), another) is Why.OFFLOAD_OFF


@pytest.mark.parametrize("kind", [PortKind.UPLINK, TUNNEL])
def test_a_nic_without_vfs(kind: PortKind) -> None:
    """It is expected to carry flows where offload is on and it has the feature, or where it is seen to."""
    c = in_kernel(port_kind=kind)
    none = healthy_offload().with_part("sysfs", Fresh(Nic(pfs=(), addresses=frozenset(), processes_seen=True), READ))
    none = with_flows(none, table((in_tc(), 1)), table((c, 1)))
    assert reason(c, changed(none, "links", tc_offload={})) is Why.NOT_ON_NIC
    assert reason(c, changed(none, "links", tc_offload={"eth1": False})) is Why.NOT_ON_NIC
    feature = changed(none, "links", tc_offload={"eth1": True})
    assert reason(c, feature) is Why.UNKNOWN
    assert reason(c, changed(feature, "ovs", hw_offload=False)) is Why.NOT_ON_NIC
    hardware = with_flows(changed(none, "links", tc_offload={}), table((flow(), 1)), table((c, 1)))
    assert reason(c, hardware) is Why.UNKNOWN


@pytest.mark.parametrize(
    ("mode", "why"), [("switchdev", Why.UNKNOWN), ("legacy", Why.NOT_SWITCHDEV), (None, Why.NOT_SWITCHDEV)]
)
def test_the_mode_where_no_representor_tells_it(mode: str | None, why: Why) -> None:
    """None: this user may not ask; what has VFs and no representors is not in switchdev mode."""
    world = healthy_offload().with_part("sysfs", Fresh(nic(vf(0), representors={}), READ))
    link = replace(world.links.value.pfs[PF], eswitch_mode=mode) if isinstance(world.links, Fresh) else None
    world = changed(world, "links", pfs={PF: link})
    assert reason(in_kernel(port_kind=PortKind.UPLINK), world) is why


@settings(deadline=None)
@given(
    st.builds(
        FlowClass,
        path=st.sampled_from([Path.SOFTWARE, Path.PARTIAL]),
        protocol=st.sampled_from(Protocol),
        conntrack=st.booleans(),
        layer=st.sampled_from(Layer),
        port_kind=st.sampled_from(PortKind),
        obstacle=st.sampled_from(Obstacle),
        ordinary=st.booleans(),
        hidden=st.booleans(),
        port=st.sampled_from(["", ALICES, "tap1"]),
    ),
    st.sets(st.sampled_from(["ovs", "tc", "ovs_flows", "links", "sysfs"])),
    st.sampled_from([healthy_offload(), gre_conntrack(), taps_alone()]),
)
def test_every_class_has_a_reason_whatever_is_absent(c: FlowClass, lost: set[str], world: World) -> None:
    for source in lost:
        world = without(world, source)
    why = reason(c, world)
    assert why is not Why.YOUNG  # which is of flows, not of classes
    if c.ordinary and c.path is Path.SOFTWARE and "ovs" in lost and "tc" in lost and c.layer is not Layer.TC:
        assert why in {Why.UNKNOWN, Why.MISSED, Why.CONNTRACK_GRE, Why.TC_POLICY} | BESIDE


# What was carried


def grown(total: FlowTable, by: int) -> FlowTable:
    """After that many packets more of each class."""
    return replace(total, totals={c: Counted(t.packets + by, t.bytes + 100 * by) for c, t in total.totals.items()})


def test_what_was_carried_stays_with_the_reason_that_was_known_then() -> None:
    world = gre_conntrack()
    before = world.software
    key = (Why.CONNTRACK_GRE, GRE, True)
    assert before.carried[key] == Counted(3600 * 58_090, 3_600_000 * 58_090)
    off = no_offload(world)
    assert isinstance(off.ovs_flows, Fresh)
    off = off.with_part("ovs_flows", Fresh(grown(off.ovs_flows.value, 10), READ))
    after = attributed(off)
    assert after.carried[key] == before.carried[key]
    assert after.carried[Why.OFFLOAD_OFF, GRE, True] == Counted(30, 3000)


def test_nothing_new_is_the_same_object() -> None:
    world = gre_conntrack()
    assert attributed(world) is world.software
    assert attributed(without(world, "tc")) is world.software


def test_hardware_is_no_software() -> None:
    world = offloading(table((flow(), 7)), table())
    assert world.software == Software()


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 1000), st.booleans(), st.sampled_from(["", "tc", "ovs_flows", "ovs"])), max_size=8
    )
)
def test_counters_by_reason_never_fall_and_lose_nothing(steps: list[tuple[int, bool, str]]) -> None:
    """Whatever is set or absent meanwhile; what was counted while a table was absent comes with its next answer."""
    world, datapath = gre_conntrack(), gre_conntrack().ovs_flows
    assert isinstance(datapath, Fresh)
    total = datapath.value
    for by, off, lost in steps:
        total = grown(total, by)
        now = changed(world.with_part("ovs_flows", Fresh(total, READ)), "ovs", hw_offload=not off)
        before, world = world.software, replace(world, software=attributed(without(now, lost) if lost else now))
        assert all(world.software.carried[key].packets >= was.packets for key, was in before.carried.items())
    world = replace(world, software=attributed(world.with_part("ovs_flows", Fresh(total, READ))))
    assert isinstance(world.tc, Fresh)
    every = [t.packets for c, t in (*world.tc.value.totals.items(), *total.totals.items()) if c.path is Path.SOFTWARE]
    assert sum(t.packets for t in world.software.carried.values()) == sum(every)


# The share of hardware


def test_ratio_by_protocol_and_unit() -> None:
    world = offloading(table((flow(), 900), (flow(UDP), 10)), table((in_kernel(), 100), (ARP, 5000)))
    assert hit_ratios(world) == pytest.approx(
        {
            ("packets", "tcp"): 0.9,
            ("packets", "udp"): 1.0,
            ("packets", "all"): 910 / 1010,
            ("bytes", "tcp"): 0.9,
            ("bytes", "udp"): 1.0,
            ("bytes", "all"): 910 / 1010,
        }
    )


def test_reads_of_different_lengths_are_compared_as_rates() -> None:
    world = offloading(table((flow(), 300), seconds=60.0), table((in_kernel(), 100), seconds=240.0))
    assert hit_ratios(world)["packets", "all"] == pytest.approx(0.75)


def test_partial_is_software() -> None:
    partial = in_kernel(layer=Layer.USERSPACE, path=Path.PARTIAL)
    hardware = flow(layer=Layer.USERSPACE)
    assert hit_ratios(offloading(table(), table((partial, 30), (hardware, 10))))["packets", "all"] == 0.25


@pytest.mark.parametrize(
    "world",
    [
        pytest.param(taps_alone(), id="nothing here could carry it"),
        pytest.param(without(healthy_offload(), "tc"), id="TC is absent"),
        pytest.param(without(healthy_offload(), "ovs_flows"), id="the datapath is absent"),
        pytest.param(offloading(table(), table((ARP, 100))), id="nothing ordinary"),
        pytest.param(offloading(table(), table((in_kernel(), 0))), id="nothing ran"),
        pytest.param(offloading(table((flow(), 9), seconds=None), table()), id="TC was read once"),
    ],
)
def test_no_ratio(world: World) -> None:
    assert hit_ratios(world) == {}


def test_off_in_spite_of_representors_is_zero() -> None:
    world = no_offload(offloading(table(), table((in_kernel(), 100))))
    assert hit_ratios(world)["packets", "all"] == 0


def judge(world: World) -> tuple[float, dict[Why, float]]:
    found = rates(world)
    assert found is not None
    got = judged(found, world)
    return got.hardware, dict(got.software)


def test_what_no_hardware_is_to_carry_is_not_judged() -> None:
    world = offloading(
        table((flow(), 10), (in_tc(port_kind=TAP), 20)),
        table((ARP, 30), (in_kernel(port_kind=TAP), 40), (in_kernel(), 5)),
    )
    assert judge(world) == (10, {Why.UNKNOWN: 5})


def test_first_packets_of_connections_are_not_held_against_it() -> None:
    missed = in_tc(TCP, conntrack=True, obstacle=Obstacle.MISSED)
    assert judge(offloading(table((flow(TCP, conntrack=True), 50), (missed, 50)), table())) == (50, {})
    assert judge(offloading(table((flow(TCP, conntrack=True), 49), (missed, 50)), table())) == (49, {Why.MISSED: 50})
    # Other protocols' connections prove nothing.
    assert judge(offloading(table((flow(UDP, conntrack=True), 99), (missed, 50)), table())) == (99, {Why.MISSED: 50})
    # Without connection tracking there is no reason to miss.
    stateless = replace(missed, conntrack=False)
    assert judge(offloading(table((flow(TCP), 50), (stateless, 50)), table())) == (50, {Why.MISSED: 50})


def with_tap(world: World, **changes: Any) -> World:
    assert isinstance(world.ovs, Fresh)
    return changed(world, "ovs", interfaces=(*world.ovs.value.interfaces, interface("tapvm1", **changes)))


def test_beside_taps_only_what_comes_from_vfs_is_judged() -> None:
    world = offloading(
        table((flow(), 10), (flow(port_kind=TUNNEL), 100)), table((in_kernel(port_kind=TUNNEL), 7), (in_kernel(), 3))
    )
    assert judge(world) == (110, {Why.UNKNOWN: 10})
    assert judge(with_tap(world)) == (10, {Why.UNKNOWN: 3})
    assert judge(with_tap(world, ovn_installed=False)) == (110, {Why.UNKNOWN: 10})


def test_taps_under_a_release_that_marks_none_as_installed() -> None:
    """Not the metadata's."""
    world = offloading(table((flow(port_kind=TUNNEL), 100)), table())
    assert isinstance(world.ovs, Fresh)
    unmarked = tuple(replace(i, ovn_installed=False) for i in world.ovs.value.interfaces)
    older = changed(changed(world, "ovs", interfaces=unmarked), "ovn_controller", version="20.12.0")
    assert judge(older) == (100, {})
    assert judge(with_tap(older, ovn_installed=False)) == (100, {}), "nobody's"
    assert judge(with_tap(older, ovn_installed=False, of_guest=True)) == (0, {})


def test_where_offload_is_off_only_what_comes_from_vfs_is_judged() -> None:
    world = no_offload(offloading(table(), table((in_kernel(port_kind=TUNNEL), 7), (in_kernel(), 3))))
    assert judge(world) == (0, {Why.OFFLOAD_OFF: 3})


def test_a_host_without_such_a_nic_has_nothing_to_judge() -> None:
    assert judge(taps_alone()) == (0, {})
    is_expected = expected(taps_alone())
    assert isinstance(taps_alone().ovs_flows, Fresh)
    assert not any(is_expected(c) for c in taps_alone().software.counted)
