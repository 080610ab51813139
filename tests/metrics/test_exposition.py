"""The whole exposition: golden, clean to the tools that read it, and nothing in it of what is not there."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics import parser

from mecexporter.errors import Reason
from mecexporter.metrics.registry import discover
from mecexporter.metrics.render import Format, Renderer
from mecexporter.state.host import IdFile
from mecexporter.state.ovs import Counters
from mecexporter.state.world import Role, World
from tests.metrics.scrape import GOLDEN, WORLDS, exposition, golden, names, series, values
from tests.worlds import changed, healthy_central, healthy_compute, interface, reinstalled_compute, view_of, without

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family


@pytest.mark.parametrize("name", WORLDS)
def test_golden(name: str) -> None:
    """After a wanted change: ``python -m tests.metrics.scrape``, and read the difference."""
    assert golden(WORLDS[name]) == (GOLDEN / f"{name}.txt").read_text()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")
@pytest.mark.parametrize("name", WORLDS)
def test_promtool_finds_nothing_to_say(name: str) -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=exposition(WORLDS[name]),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def parsed_open_metrics(text: str) -> list[Family]:
    return list(parser.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]  # the library has no type here


@pytest.mark.parametrize("name", WORLDS)
def test_both_formats_say_the_same(name: str) -> None:
    text = Renderer(discover()).render(view_of(WORLDS[name]), Format.OPENMETRICS).decode()
    assert text.endswith("\n# EOF\n")
    assert text.count("# EOF") == 1
    parsed = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parsed_open_metrics(text)
        for sample in family.samples
    }
    assert parsed == series(WORLDS[name])


OF_SOURCE: dict[str, set[str]] = {
    "ovs": {
        "mec_integration_bridge_nb_cfg",
        "mec_offload_enabled",
        "mec_offload_tc_policy_info",
        "mec_ovn_controller_config_info",
        "mec_ovs_bytes_total",
        "mec_ovs_dropped_packets_total",
        "mec_ovs_errors_total",
        "mec_ovs_interface_bytes_total",
        "mec_ovs_interface_errors_total",
        "mec_ovs_interface_packets_total",
        "mec_ovs_interface_up",
        "mec_ovs_interfaces",
        "mec_ovs_interfaces_failed",
        "mec_ovs_interfaces_installed",
        "mec_ovs_interface_series_truncated",
        "mec_ovs_packets_total",
        "mec_tunnel_chassis",
        "mec_tunnels",
    },
    "vswitchd": {
        "mec_datapath_lookups_total",
        "mec_upcall_dump_duration_seconds",
        "mec_upcall_flow_limit",
        "mec_upcall_flows",
        # ovs-vswitchd keeps these in conf.db: without it they stand still.
        "mec_ovs_bytes_total",
        "mec_ovs_dropped_packets_total",
        "mec_ovs_errors_total",
        "mec_ovs_interface_bytes_total",
        "mec_ovs_interface_errors_total",
        "mec_ovs_interface_packets_total",
        "mec_ovs_interface_up",
        "mec_ovs_interface_series_truncated",
        "mec_ovs_packets_total",
        "mec_tunnels",
    },
    "openflow": {"mec_integration_bridge_flows"},
    "ovn_controller": {
        "mec_ovn_controller_connected",
        "mec_ovn_controller_paused",
        "mec_ovn_controller_txn_errors_total",
        "mec_ovn_engine_runs_total",
        "mec_ovn_full_recomputes_total",
        "mec_ovn_idl_cells",
        "mec_ovn_lflow_cache_enabled",
        "mec_ovn_lflow_cache_entries",
        "mec_ovn_lflow_cache_lookups_total",
        "mec_ovn_lflow_cache_size_bytes",
        "mec_ovn_lflow_cache_trims_total",
        "mec_ovn_process_cpu_seconds_total",
        "mec_ovn_process_resident_memory_bytes",
        "mec_ovn_stopwatch_average_seconds",
        "mec_ovn_stopwatch_max_seconds",
        "mec_ovn_stopwatch_p95_seconds",
        "mec_ovn_stopwatch_samples_total",
    },
    "chassis_lookup": set(),
    "host": set(),
}
"""Families that vanish with a source."""


def test_a_release_without_the_mark_counts_none_as_not_installed() -> None:
    vif = interface("tapvm1", ovn_installed=False)
    world = changed(healthy_compute(), "ovs", interfaces=(vif,))
    name = "mec_ovs_interfaces_installed"
    assert {v for (n, _), v in series(world).items() if n == name} == {0, 1}
    older = changed(world, "ovn_controller", version="20.12.0")
    assert not {v for (n, _), v in series(older).items() if n == name}


@pytest.mark.parametrize("source", OF_SOURCE)
def test_an_absent_source_has_no_series(source: str) -> None:
    # Silent, not dead: that a daemon is dead is a finding.
    blind = series(without(healthy_compute(), source, reason=Reason.TIMEOUT))
    whole = series(healthy_compute())
    assert names(whole) - names(blind) == OF_SOURCE[source]
    assert blind["mecexporter_source_up", frozenset({("source", source)})] == 0
    assert names(blind) <= names(whole)


@pytest.mark.parametrize(
    ("source", "gone"),
    [
        ("ovs", {"ovsdb", "effective"}),
        ("host", {"file", "effective"}),
        ("chassis_lookup", {"southbound"}),
        ("vswitchd", set()),
    ],
)
def test_ids_of_an_absent_source_are_not_told(source: str, gone: set[str]) -> None:
    def origins(world: World) -> set[str]:
        return {dict(labels)["origin"] for name, labels in series(world) if name == "mec_system_id_info"}

    assert origins(healthy_compute()) - origins(without(healthy_compute(), source)) == gone


def test_versions_of_an_absent_source_are_not_told() -> None:
    def components(world: World) -> set[str]:
        return {dict(labels)["component"] for name, labels in series(world) if name == "mec_component_info"}

    assert components(healthy_compute()) == {"kernel", "ovs", "ovs_schema", "ovn"}
    assert components(without(healthy_compute(), "host")) == {"ovs", "ovs_schema", "ovn"}
    assert components(without(healthy_compute(), "ovn_controller")) == {"kernel", "ovs", "ovs_schema"}
    assert components(without(without(healthy_compute(), "ovs"), "vswitchd")) == {"kernel", "ovn"}


def test_a_host_of_both_tells_the_version_of_each() -> None:
    both = healthy_compute().with_part("northd", changed(healthy_central(), "northd", version="25.03.0").northd)
    assert values(both, "mec_component_info", "version", component="ovn") == {("23.03.1",): 1}
    assert values(both, "mec_component_info", "version", component="ovn_northd") == {("25.03.0",): 1}
    assert values(both, "mec_node_info", "ovn_version") == {("23.03.1",): 1}
    assert values(healthy_central(), "mec_node_info", "ovn_version") == {("23.03.1",): 1}
    assert not values(without(healthy_central(), "northd"), "mec_component_info", component="ovn_northd")


def test_checks_that_cannot_tell_have_no_count() -> None:
    blind = series(without(reinstalled_compute(), "ovn_controller", reason=Reason.TIMEOUT))
    check = frozenset({("check", "ovn_controller_failing")})
    assert blind["mec_check_evaluable", check] == 0
    assert not any(n == "mec_check_findings" and ("check", "ovn_controller_failing") in labels for n, labels in blind)
    assert not any(n == "mec_finding_info" and ("check", "ovn_controller_failing") in labels for n, labels in blind)


@pytest.mark.parametrize("roles", [frozenset[Role](), frozenset({Role.API}), frozenset({Role.CENTRAL})])
def test_another_role_has_none_of_a_compute_nodes_series(roles: frozenset[Role]) -> None:
    world = replace(healthy_compute(), roles=roles, applicable=frozenset({"host"}))
    for source in ("ovs", "vswitchd", "openflow", "ovn_controller", "chassis_lookup"):
        world = without(world, source, reason=Reason.PENDING)
    assert {n for n in names(series(world)) if n.startswith("mec_")} == {
        "mec_node_info",
        "mec_component_info",
        "mec_component_first_seen_timestamp_seconds",
    }


AWKWARD = 'a"b\\c\nd<e>{f="g"}名\x1b[31m'


def test_names_from_outside_are_escaped() -> None:
    broken = interface(AWKWARD, error="x", bridge=AWKWARD)
    world = changed(healthy_compute(), "ovs", interfaces=(broken,), integration_bridge=AWKWARD, system_id=AWKWARD)
    found = series(replace(world, hostname=AWKWARD))
    assert found["mec_system_id_info", frozenset({("origin", "ovsdb"), ("system_id", AWKWARD)})] == 1
    subjects = {dict(labels)["subject"] for name, labels in found if name == "mec_finding_info"}
    assert {f"{AWKWARD}/{AWKWARD}", AWKWARD} <= subjects
    text = Renderer(discover()).render(view_of(world), Format.OPENMETRICS).decode()
    assert parsed_open_metrics(text)


def test_error_text_is_in_no_label() -> None:
    words = "only-for-people"
    world = changed(healthy_compute(), "ovs", interfaces=(interface("x", error=words),))
    world = without(world, "ovn_controller", why=words)
    assert words not in exposition(world)


def test_an_id_file_that_cannot_be_read_has_no_series() -> None:
    hidden = IdFile(path="/f", content=None, trouble=Reason.PERMISSION, why="?")
    found = series(changed(healthy_compute(), "host", system_id_file=hidden))
    assert not any(("origin", "file") in labels for name, labels in found if name == "mec_system_id_info")


def test_findings_beyond_the_limit_are_counted_but_not_listed() -> None:
    world = changed(healthy_compute(), "ovs", interfaces=tuple(interface(f"x{n:03}", error="e") for n in range(120)))
    world = replace(world, settings=replace(world.settings, findings_limit=7))
    found = series(world)
    check = ("check", "ovs_interface_failed")
    assert found["mec_check_findings", frozenset({check, ("severity", "warning")})] == 120
    assert found["mec_check_findings_truncated", frozenset({check})] == 113
    listed = {dict(labels)["subject"] for name, labels in found if name == "mec_finding_info" and check in labels}
    assert listed == {f"br-int/x{n:03}" for n in range(7)}


def test_times_are_unix_though_the_systems_clock_was_stepped() -> None:
    key = ("mecexporter_source_last_success_timestamp_seconds", frozenset({("source", "ovs")}))
    plain, stepped = series(healthy_compute()), series(replace(healthy_compute(), skew=7200.0))
    assert stepped[key] == plain[key] + 7200


def test_a_mesh_of_tunnels_has_a_bounded_number_of_series() -> None:
    world = healthy_compute()
    mesh = tuple(interface(f"t{n}", error="e") for n in range(400))
    world = changed(world, "ovs", interfaces=mesh, traffic={(i.bridge, i.name): Counters() for i in mesh})
    found = series(world)
    assert found["mec_ovs_interface_series_truncated", frozenset()] == 144
    assert sum(name == "mec_ovs_interface_up" for name, _ in found) == 256
