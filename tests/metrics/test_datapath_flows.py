"""What is printed of flows and connections, and what is not where a source is absent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mecexporter.errors import Reason
from mecexporter.state.datapath import Conntrack, Counted, Gre, Layer, Path, PortKind
from mecexporter.state.observed import Fresh
from mecexporter.state.ovs import Bridge
from tests.metrics.scrape import names, series, values
from tests.worlds import (
    ARP,
    READ,
    SECONDS,
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

if TYPE_CHECKING:
    from mecexporter.state.world import World

FAMILIES = {
    "mec_datapath_flows",
    "mec_datapath_packets_total",
    "mec_datapath_bytes_total",
    "mec_datapath_software_flows",
    "mec_datapath_software_packets_total",
    "mec_datapath_software_bytes_total",
    "mec_datapath_young_flows",
    "mec_datapath_window_seconds",
    "mec_offload_hit_ratio",
}
CONNTRACK = {
    "mec_conntrack_entries",
    "mec_conntrack_limit",
    "mec_conntrack_offloaded_entries",
    "mec_conntrack_gre_entries",
    "mec_conntrack_gre_software_packets_total",
    "mec_conntrack_gre_software_bytes_total",
}


def shown(world: World) -> set[str]:
    return names(series(world)) & (FAMILIES | CONNTRACK)


def packets(world: World) -> dict[tuple[str, ...], float]:
    return values(world, "mec_datapath_packets_total", "path", "protocol", "conntrack")


def test_each_packet_is_counted_once_and_each_flow_is_one() -> None:
    tracked = flow(TCP, conntrack=True)
    to_conntrack = replace(tracked, terminal=False)
    tc = table((tracked, 10), (replace(tracked, port_kind=PortKind.TUNNEL), 5), (in_tc(UDP), 2))
    tc = replace(tc, flows={**tc.flows, to_conntrack: 7})
    world = offloading(tc, table((in_kernel(UDP), 1), (ARP, 3)))
    assert packets(world) == {
        ("hardware", "tcp", "1"): 3600 * 15,
        ("software", "udp", "0"): 3600 * 3,
        ("software", "other", "0"): 3600 * 3,
    }
    assert values(world, "mec_datapath_flows", "path", "protocol", "conntrack") == {
        ("hardware", "tcp", "1"): 17,
        ("software", "udp", "0"): 10,
        ("software", "other", "0"): 5,
    }
    assert values(world, "mec_datapath_bytes_total", "path", protocol="tcp") == {("hardware",): 15 * 3_600_000}


def test_software_by_reason_is_all_that_is_in_software() -> None:
    for world in (healthy_offload(), gre_conntrack(), taps_alone()):
        by_reason = values(world, "mec_datapath_software_packets_total", "reason", "protocol", "conntrack")
        in_software = values(world, "mec_datapath_packets_total", "protocol", "conntrack", path="software")
        assert sum(by_reason.values()) == sum(in_software.values())
        by_reason = values(world, "mec_datapath_software_flows", "reason", "protocol", "conntrack")
        in_software = values(world, "mec_datapath_flows", "protocol", "conntrack", path="software")
        assert sum(by_reason.values()) == sum(in_software.values())


def test_young_flows_are_in_software_for_a_reason_of_their_own() -> None:
    tc, datapath = table((flow(), 1), (in_tc(UDP), 1), young=2), table((ARP, 1), young=1)
    world = offloading(tc, datapath)
    assert values(world, "mec_datapath_software_flows", "reason", "protocol") == {
        ("refused", "udp"): 3,
        ("young", "udp"): 2,
        ("exempt", "other"): 5,
    }
    assert values(world, "mec_datapath_young_flows") == {(): 5}


def test_a_class_that_was_seen_stays_with_all_its_series() -> None:
    world = gre_conntrack()
    assert isinstance(world.ovs_flows, Fresh)
    gone = changed(world, "ovs_flows", flows={})
    assert series(gone).keys() == series(world).keys()
    assert values(gone, "mec_datapath_software_flows", "reason", protocol="gre") == {("conntrack_gre",): 0}
    assert values(gone, "mec_datapath_flows", "path", protocol="gre") == {("software",): 0}


def test_incident_4_is_to_be_seen() -> None:
    world = gre_conntrack()
    assert values(world, "mec_offload_hit_ratio", "unit", protocol="gre") == {("packets",): 0, ("bytes",): 0}
    assert values(world, "mec_offload_hit_ratio", "unit", protocol="tcp")["packets",] > 0.98
    assert values(world, "mec_datapath_software_packets_total", "conntrack", reason="conntrack_gre") == {
        ("1",): 3600 * 58_090
    }


def test_the_window_of_each_source() -> None:
    both = values(healthy_offload(), "mec_datapath_window_seconds", "source")
    assert both == {("tc",): SECONDS, ("ovs_flows",): SECONDS}
    once = offloading(table((flow(), 1), seconds=None), table(seconds=90.0))
    assert values(once, "mec_datapath_window_seconds", "source") == {("ovs_flows",): 90}
    assert values(once, "mec_offload_hit_ratio", "unit") == {}


@pytest.mark.parametrize(
    ("source", "left"),
    [
        # Those in hardware are TC's alone; whether all that is in software is known takes both.
        ("ovs_flows", {"mec_datapath_flows", "mec_datapath_packets_total", "mec_datapath_bytes_total"}),
        ("tc", set()),
    ],
)
def test_without_a_table(source: str, left: set[str]) -> None:
    world = without(gre_conntrack(), source)
    assert shown(world) == left | CONNTRACK | {"mec_datapath_window_seconds"}
    assert {path for path, _, _ in packets(world)} == ({"hardware"} if source == "ovs_flows" else set())


def test_user_space_datapaths_have_hardware_flows_of_their_own() -> None:
    world = without(gre_conntrack(), "ovs_flows")
    netdev = changed(world, "ovs", bridges=(Bridge(name="br-int", nb_cfg=7, datapath_type="netdev"),))
    assert packets(world) != {}
    assert packets(netdev) == {}
    assert packets(without(world, "ovs")) == {}
    hardware, partial = flow(layer=Layer.USERSPACE), in_kernel(layer=Layer.USERSPACE, path=Path.PARTIAL)
    both = offloading(table(), table((hardware, 2), (partial, 1)))
    assert values(both, "mec_datapath_packets_total", "path") == {("hardware",): 7200, ("partial",): 3600}
    assert values(both, "mec_datapath_software_packets_total", "reason") == {("partial",): 3600}


def test_detail_that_was_skipped() -> None:
    world = healthy_offload()
    metric = "mec_datapath_detail_skipped"
    assert values(world, metric, "source") == {("tc",): 0, ("ovs_flows",): 0}
    too_many = without(world, "ovs_flows", "240000 flows, more than 200000", Reason.TOO_LARGE)
    assert values(too_many, metric, "source") == {("tc",): 0, ("ovs_flows",): 1}
    silent = without(world, "tc", reason=Reason.TIMEOUT)
    assert values(silent, metric, "source") == {("ovs_flows",): 0}


def test_conntrack() -> None:
    world = healthy_offload()
    assert values(world, "mec_conntrack_entries") == {(): 5200}
    assert values(world, "mec_conntrack_limit") == {(): 262144}
    assert values(world, "mec_conntrack_offloaded_entries", "path") == {("hardware",): 4800, ("software",): 0}
    assert values(world, "mec_conntrack_gre_entries", "path") == {("hardware",): 2, ("software",): 0}
    assert shown(without(world, "conntrack")) == FAMILIES


def test_conntrack_without_rights() -> None:
    world = healthy_offload().with_part("conntrack", Fresh(Conntrack(entries=5, limit=None), READ))
    assert shown(world) & CONNTRACK == {"mec_conntrack_entries"}


def test_gre_that_the_kernel_does_not_count() -> None:
    world = healthy_offload()
    gre = Gre(entries={Path.SOFTWARE: 1}, software=None)
    world = changed(world, "conntrack", gre=gre)
    assert CONNTRACK - shown(world) == {
        "mec_conntrack_gre_software_packets_total",
        "mec_conntrack_gre_software_bytes_total",
    }
    world = changed(world, "conntrack", gre=replace(gre, software=Counted(7, 700)))
    assert values(world, "mec_conntrack_gre_software_packets_total") == {(): 7}
    assert values(world, "mec_conntrack_gre_software_bytes_total") == {(): 700}


def test_a_node_whose_sources_were_never_asked_has_nothing() -> None:
    world = healthy_compute()
    for source in ("tc", "ovs_flows", "conntrack"):
        world = without(world, source, Reason.PENDING)
    assert shown(world) == set()
