"""The catalogue keeps what the outside contract promises, and the documentation says what the code declares."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mecexporter.checks.base import discover as discover_checks
from mecexporter.metrics import docs
from mecexporter.state.ovn_db import Model
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from mecexporter.checks.base import Check

DOCS = Path(__file__).resolve().parents[2] / "docs"

METRICS = """
mecexporter_role{role}
mecexporter_source_up{source}
mecexporter_source_last_success_timestamp_seconds{source}
mecexporter_source_errors_total{source,reason}
mecexporter_source_duration_seconds{source}
mecexporter_collector_success{collector}
mec_check_findings{check,severity}
mec_check_evaluable{check}
mec_finding_info{check,severity,subject}
mec_check_findings_truncated{check}
mec_finding_first_seen_timestamp_seconds{check,subject}
mec_ovn_db_info{db,server,model}
mec_ovn_db_writable{db,server}
mec_ovn_db_in_sync{db,server}
mec_ovn_db_last_in_sync_timestamp_seconds{db,server}
mec_ovn_db_rows_differing{db,server,table,kind}
mec_ovn_raft_leader{db}
mec_ovn_raft_term{db}
mec_ovn_raft_members{db}
mec_ovn_raft_members_reachable{db}
mec_ovn_raft_log_uncommitted_entries{db}
mec_ovn_northd_active
mec_ovn_northd_paused
mec_ovn_northd_connected{db}
mec_ovn_nb_cfg
mec_ovn_sb_cfg
mec_ovn_hv_cfg
mec_ovn_nb_cfg_timestamp_seconds
mec_ovn_sb_cfg_timestamp_seconds
mec_ovn_hv_cfg_timestamp_seconds
mec_ovn_chassis_info{chassis,hostname,encap_type,encap_ip}
mec_ovn_chassis_nb_cfg{chassis,hostname}
mec_ovn_chassis_nb_cfg_timestamp_seconds{chassis,hostname}
mec_ovn_gateway_ports{state}
mec_node_info{hostname,kernel,ovs_version,ovn_version}
mec_neutron_ovn_objects{resource,state}
mec_system_id_info{origin,system_id}
mec_ovn_controller_config_info{hostname,encap_type,encap_ip,remote,bridge}
mec_ovn_controller_connected
mec_ovn_controller_paused
mec_ovn_controller_txn_errors_total
mec_integration_bridge_flows{bridge}
mec_integration_bridge_nb_cfg{bridge}
mec_sriov_pf_info{hostname,pf,device,driver,driver_version,firmware_version,eswitch_mode,physical_network,numa_node}
mec_sriov_vf_capacity{hostname,pf}
mec_sriov_vf_configured{hostname,pf}
mec_sriov_vf_state{hostname,pf,state}
mec_vf_ledger{hostname,pf,ledger,state}
mec_vf_holder_info{hostname,pf,pci_address,holder}
mec_vf_claim_info{hostname,pf,pci_address,ledger}
mec_vf_drift{hostname,pf,kind}
mec_datapath_flows{path,protocol,conntrack}
mec_datapath_packets_total{path,protocol,conntrack}
mec_datapath_bytes_total{path,protocol,conntrack}
mec_offload_hit_ratio{unit,protocol}
mec_conntrack_entries
mec_conntrack_offloaded_entries{path}
mec_offload_enabled
mec_offload_tc_policy_info{policy}
mec_representor_packets_total{device,pf,vf,direction,path}
mec_representor_bytes_total{device,pf,vf,direction,path}
"""
"""As the contract writes them; mecexporter_build_info{version,…} is left open there."""

CHECKS = {
    "system_id_changed": "critical",
    "system_id_mismatch": "warning",
    "system_id_missing": "critical",
    "chassis_unregistered": "critical",
    "integration_bridge_empty": "critical",
    "ovn_controller_disconnected": "critical",
    "ovn_controller_failing": "critical",
    "tunnel_port_failed": "critical",
    "ovs_interface_failed": "warning",
    "ovs_interface_orphaned": "warning",
    "neutron_ovn_drift": "warning",
    "offload_disabled": "warning",
    "offload_gre_conntrack": "warning",
    "offload_gre_stateful": "warning",
    "offload_ratio_low": "warning",
    "ovn_chassis_duplicate": "critical",
    "ovn_chassis_stale": "warning",
    "ovn_db_no_writer": "critical",
    "ovn_db_out_of_sync": "critical",
    "ovn_db_raft_degraded": "warning",
    "ovn_db_replication_down": "warning",
    "ovn_db_split_brain": "critical",
    "ovn_gateway_unclaimed": "critical",
    "ovn_northd_inactive": "critical",
    "ovn_propagation_stalled": "warning",
    "vf_double_booked": "critical",
    "vf_inventory_mismatch": "warning",
    "vf_leaked": "warning",
    "vf_orphan_port": "warning",
    "vf_portless": "warning",
    "vf_unrecorded": "warning",
}
SOURCES = {
    Role.COMPUTE: {
        *("ovs", "vswitchd", "openflow", "ovn_controller", "chassis_lookup", "host"),
        *("ovs_flows", "sysfs", "tc"),
    },
    Role.CENTRAL: {"neutron_ovn", "northd", "ovn_chassis"},
    Role.API: {"neutron", "nova@", "placement", "security_groups", "sysfs"},
}
EITHER = {
    "vf_double_booked": (("nova@",), ("neutron",)),
    "vf_inventory_mismatch": (("nova@", "sysfs"), ("placement",)),
}
"""Sets of sources of which one is enough."""
LEDGERS = {
    "vf_leaked": ("neutron", "nova@"),
    "vf_portless": ("neutron", "nova@", "sysfs"),
    "vf_unrecorded": ("nova@", "sysfs"),
    "vf_orphan_port": ("neutron", "nova@"),
    "vf_double_booked": (),
    "vf_inventory_mismatch": (),
}
"""Those that a VF check can't do without."""
PREFIXES = {
    Role.CENTRAL: ("neutron_ovn_", "ovn_chassis_", "ovn_db_", "ovn_gateway_", "ovn_northd_", "ovn_propagation_"),
    Role.API: ("vf_", "offload_gre_stateful"),
}
STANDALONE, CLUSTERED = Model.STANDALONE, Model.CLUSTERED
MODELS = {
    "ovn_db_no_writer": {STANDALONE, CLUSTERED},
    "ovn_db_out_of_sync": {STANDALONE},
    "ovn_db_raft_degraded": {CLUSTERED},
    "ovn_db_replication_down": {STANDALONE},
    "ovn_db_split_brain": {STANDALONE},
}
"""The servers that a check is about; which of them there are decides where it applies."""


def promised() -> list[tuple[str, tuple[str, ...]]]:
    found = re.findall(r"^(\w+)(?:{(.*)})?$", METRICS, re.MULTILINE)
    return [(name, tuple(labels.split(",")) if labels else ()) for name, labels in found]


DECLARED = {m.name: m for m in docs.all_metrics()}


@pytest.mark.parametrize(("name", "labels"), promised(), ids=lambda v: v if isinstance(v, str) else "")
def test_a_promised_metric_is_declared_with_its_labels(name: str, labels: tuple[str, ...]) -> None:
    assert DECLARED[name].labels == labels
    assert DECLARED[name].stability == "stable"


def test_the_build_has_its_version() -> None:
    assert "version" in DECLARED["mecexporter_build_info"].labels


def test_what_is_promised_is_said_to_be_stable_and_nothing_else_of_the_world() -> None:
    stable = {name for name, metric in DECLARED.items() if metric.stability == "stable" and name.startswith("mec_")}
    assert stable == {name for name, _ in promised() if name.startswith("mec_")}


def test_checks_are_the_promised_ones_with_their_severity() -> None:
    assert {c.name: str(c.severity) for c in discover_checks()} == CHECKS


@pytest.mark.parametrize("check", discover_checks(), ids=lambda c: c.name)
def test_a_check_belongs_to_a_role_and_needs_sources_that_there_are(check: Check) -> None:
    (role,) = check.roles
    assert role is next((r for r, prefixes in PREFIXES.items() if check.name.startswith(prefixes)), Role.COMPUTE)
    assert set(check.sources) <= SOURCES[role]
    assert check.sources == LEDGERS.get(check.name, check.sources)
    assert check.either == EITHER.get(check.name, ())
    assert check.models == MODELS.get(check.name, frozenset())
    assert check.sources or check.models or check.either, "it needs something"
    assert check.sources == tuple(sorted(check.sources))
    assert re.fullmatch(r"\d+[smh]", check.alert_for)
    assert check.title
    assert set(check.follows) <= CHECKS.keys() - {check.name}
    assert check.ask.__doc__


def test_one_check_has_two_severities() -> None:
    both = {c.name: [str(s) for s in c.severities] for c in discover_checks() if len(c.severities) > 1}
    assert both == {"ovn_db_raft_degraded": ["warning", "critical"]}


def test_what_follows_from_what_is_no_circle() -> None:
    follows = {c.name: set(c.follows) for c in discover_checks()}

    def reach(name: str, seen: frozenset[str] = frozenset()) -> None:
        assert name not in seen
        for cause in follows[name]:
            reach(cause, seen | {name})

    for name in follows:
        reach(name)


@pytest.mark.parametrize(
    ("name", "made"), [("metrics.md", docs.metrics_markdown()), ("checks.md", docs.checks_markdown())]
)
def test_the_documentation_is_what_make_generate_makes(name: str, made: str) -> None:
    assert (DOCS / name).read_text() == made


@pytest.mark.parametrize("made", [docs.metrics_markdown(), docs.checks_markdown()])
def test_its_tables_are_whole(made: str) -> None:
    rows = [line for line in made.splitlines() if line.startswith("|")]
    widths = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    assert len(widths) == 1
    assert len(rows) > 10


def test_the_catalogue_for_programs_has_all() -> None:
    catalogue = json.loads(docs.catalogue_json())
    assert {m["name"] for m in catalogue["metrics"]} == DECLARED.keys()
    assert {c["name"]: c["severity"] for c in catalogue["checks"]} == CHECKS
    assert {c["name"]: c["severities"] for c in catalogue["checks"]} == {
        c.name: list(c.severities) for c in discover_checks()
    }
    assert all(m["help"] and m["kind"] and m["stability"] for m in catalogue["metrics"])
    assert {c["name"]: c["alert"] for c in catalogue["checks"]}["system_id_changed"] == "MecSystemIdChanged"


@pytest.mark.parametrize("name", sorted(DECLARED))
def test_help_of_a_truth_value_says_which_is_which(name: str) -> None:
    if "Whether" in DECLARED[name].help:
        assert "(1)" in DECLARED[name].help
        assert "(0)" in DECLARED[name].help
