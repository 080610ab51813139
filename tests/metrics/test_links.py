"""Series of representors and uplinks, and of what offload is configured to be and what runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mecexporter.errors import Reason
from mecexporter.state.datapath import Path
from mecexporter.state.ovs import Counters, OffloadRun
from mecexporter.state.sriov import PfLink, Uplink
from mecexporter.state.world import Role
from tests.metrics.scrape import names, series, values
from tests.worlds import PF, UPLINK, changed, healthy_compute, healthy_sriov, without

REPRESENTOR = "ens1f0npf0vf0"
SRIOV = healthy_sriov()
RUN = OffloadRun(process="a", hw_offload=True, tc_policy="none", offload=True, policy="skip_sw")


def test_directions_are_those_of_the_guest() -> None:
    world = changed(
        SRIOV, "links", statistics={REPRESENTOR: Counters(rx_packets=1, tx_packets=2, rx_bytes=3, tx_bytes=4)}
    )
    world = changed(world, "links", cpu_hit={})
    assert values(world, "mec_representor_traffic_packets_total", "vf", "direction") == {("0", "rx"): 2, ("0", "tx"): 1}
    assert values(world, "mec_representor_traffic_bytes_total", "pf", "direction") == {(PF, "rx"): 4, (PF, "tx"): 3}


def test_hardware_carried_what_the_cpu_did_not() -> None:
    packets = values(SRIOV, "mec_representor_packets_total", "direction", "path", device=REPRESENTOR)
    assert packets == {
        ("rx", Path.HARDWARE): 495,
        ("rx", Path.SOFTWARE): 5,
        ("tx", Path.HARDWARE): 396,
        ("tx", Path.SOFTWARE): 4,
    }
    carried = values(SRIOV, "mec_representor_bytes_total", "path", device=REPRESENTOR, direction="rx")
    assert carried == {(Path.HARDWARE,): 49_500, (Path.SOFTWARE,): 500}


def test_a_driver_that_does_not_tell_the_two_apart_has_no_paths() -> None:
    found = names(series(changed(SRIOV, "links", cpu_hit={})))
    assert not found & {"mec_representor_packets_total", "mec_representor_bytes_total"}
    assert "mec_representor_traffic_packets_total" in found


def test_a_representor_that_is_gone_has_no_series() -> None:
    assert values(SRIOV, "mec_representor_traffic_packets_total", "vf", direction="rx").keys() == {("0",), ("1",)}


def test_representors_without_series_are_counted() -> None:
    assert values(changed(SRIOV, "links", left_out=7), "mec_representor_series_truncated") == {(): 7}


def test_uplinks() -> None:
    world = changed(
        SRIOV,
        "links",
        uplinks=(Uplink(device=UPLINK, pf=PF, speed=100_000_000_000), Uplink(device="eth9", pf="", speed=None)),
    )
    assert values(world, "mec_uplink_packets_total", "device", "direction") == {
        (UPLINK, "rx"): 900,
        (UPLINK, "tx"): 800,
    }
    assert values(world, "mec_uplink_bytes_total", "pf", "direction") == {(PF, "rx"): 90_000, (PF, "tx"): 80_000}
    assert values(world, "mec_uplink_errors_total", "direction") == {("rx",): 1, ("tx",): 0}
    assert values(world, "mec_uplink_dropped_packets_total", "direction") == {("rx",): 2, ("tx",): 0}
    assert values(world, "mec_uplink_speed_bytes_per_second", "device") == {(UPLINK,): 12_500_000_000}


OF_LINKS = {
    "mec_offload_device_enabled",
    *(f"mec_representor_{what}_total" for what in ("packets", "bytes", "traffic_packets", "traffic_bytes")),
    "mec_representor_series_truncated",
    *(f"mec_uplink_{what}_total" for what in ("packets", "bytes", "errors", "dropped_packets")),
    "mec_uplink_speed_bytes_per_second",
}


def test_without_the_source_nothing_is_told() -> None:
    gone = names(series(SRIOV)) - names(series(without(SRIOV, "links", reason=Reason.TIMEOUT)))
    assert gone >= OF_LINKS
    assert not {name for name in gone if name.startswith("mec_offload")} - OF_LINKS


def test_a_node_of_another_role_has_no_target() -> None:
    assert values(healthy_compute(), "mec_offload_target_bytes_per_second") == {(): 5e9}
    world = replace(healthy_compute(), roles=frozenset({Role.API}), applicable=frozenset())
    assert not {name for name in names(series(world)) if name.startswith(("mec_offload", "mec_uplink"))}


def test_features_of_devices() -> None:
    world = changed(SRIOV, "links", tc_offload={UPLINK: False, REPRESENTOR: True, "bond0": True})
    found = values(world, "mec_offload_device_enabled", "device", "pf")
    assert found == {(UPLINK, PF): 0, (REPRESENTOR, PF): 1, ("bond0", ""): 1}


def test_configured() -> None:
    world = changed(healthy_compute(), "ovs", hw_offload=True, tc_policy="skip_hw")
    assert values(world, "mec_offload_enabled") == {(): 1}
    assert values(world, "mec_offload_tc_policy_info", "policy") == {("skip_hw",): 1}
    assert not names(series(world)) & {"mec_offload_running", "mec_offload_tc_policy_running_info"}


@pytest.mark.parametrize(
    ("run", "running", "policy"),
    [
        (RUN, {(): 1}, {("skip_sw",): 1}),
        (replace(RUN, policy=None), {(): 1}, {}),
        (replace(RUN, offload=False, policy=None), {(): 0}, {}),
        (replace(RUN, offload=None, policy=None), {}, {}),
        (replace(RUN, process="the one before"), {}, {}),
    ],
)
def test_running(run: OffloadRun, running: dict[object, float], policy: dict[object, float]) -> None:
    world = changed(healthy_compute(), "vswitchd", process="a")
    world = replace(world, memory=replace(world.memory, offload=run))
    assert values(world, "mec_offload_running") == running
    assert values(world, "mec_offload_tc_policy_running_info", "policy") == policy
    assert not values(without(world, "vswitchd"), "mec_offload_running")


def test_versions_of_drivers_and_firmware() -> None:
    components = values(SRIOV, "mec_component_info", "component", "version")
    assert {("driver mlx5_core", "5.8-1.1.2"), (f"firmware {PF}", "22.35.1012")} <= components.keys()
    link = PfLink(driver_version="5.8-1.1.2", firmware_version=None, eswitch_mode=None, vfs={})
    silent = changed(SRIOV, "links", pfs={PF: link})
    assert not values(silent, "mec_component_info", component=f"firmware {PF}")
