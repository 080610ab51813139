"""The example's routes by amtool, its inhibitions by a real Alertmanager."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mecexporter.checks.base import Check, Severity, discover
from mecexporter.metrics.docs import alert_name
from tests.lab.monitoring import ALERTMANAGERS, get
from tests.ports import free_port
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = Path(__file__).parents[2] / "alerts" / "alertmanager.example.yaml"
CHECKS = discover()
CAUSES = {cause for check in CHECKS for cause in check.follows}


def amtool(*argv: str) -> None:
    done = subprocess.run(["amtool", *argv], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_example_is_valid() -> None:
    amtool("check-config", str(EXAMPLE))


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["alertname=MecSystemIdChanged", "severity=critical", "site=north"], "call"),
        (["alertname=MecOvsInterfaceFailed", "severity=warning"], "ticket"),
        (["alertname=MecComponentVersionChanged", "severity=info"], "log"),
        (["alertname=SomethingElse"], "ticket"),
    ],
)
def test_severity_decides_who_is_called(labels: list[str], receiver: str) -> None:
    amtool("config", "routes", "test", f"--config.file={EXAMPLE}", f"--verify.receivers={receiver}", *labels)


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an Alertmanager with the example's inhibitions, whose receivers notify nobody."""
    directory = tmp_path_factory.mktemp("alertmanager")
    config = directory / "alertmanager.yaml"
    config.write_text(EXAMPLE.read_text().replace("http://alerts.example.net/", "http://127.0.0.1:9/"))
    address = f"127.0.0.1:{free_port()}"
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(
            [
                next(name for name in ALERTMANAGERS if shutil.which(name)),
                f"--config.file={config}",
                f"--storage.path={directory}",
                f"--web.listen-address={address}",
                "--cluster.listen-address=",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: process.poll() is None and get(f"http://{address}/-/ready"), 20, "Alertmanager is ready")
        yield address
    finally:
        process.terminate()
        process.wait(10)


def post(address: str, *alerts: dict[str, str]) -> None:
    body = json.dumps([{"labels": labels} for labels in alerts]).encode()
    request = urllib.request.Request(
        f"http://{address}/api/v2/alerts", body, {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=5):  # noqa: S310 - the address is our own
        pass


def states(address: str, instance: str) -> dict[str, str]:
    """Alert -> ``active`` or ``suppressed``, of one instance."""
    found: list[dict[str, Any]] = json.loads(get(f"http://{address}/api/v2/alerts") or "[]")
    return {
        alert["labels"]["alertname"] + alert["labels"].get("site", ""): alert["status"]["state"]
        for alert in found
        if alert["labels"].get("instance", "") == instance
    }


def judged(alertmanager: str, instance: str, want: dict[str, str]) -> None:
    wait_until(lambda: states(alertmanager, instance) == want, 10, f"{instance}: {want}")


def test_an_exporter_that_is_down_silences_all_else_of_its_node(alertmanager: str) -> None:
    names = ["MecSystemIdChanged", "MecSourceDown", "MecCheckCannotTell", "MecExporterDown"]
    post(alertmanager, *({"alertname": name, "instance": "down"} for name in names))
    judged(alertmanager, "down", dict.fromkeys(names[:-1], "suppressed") | {"MecExporterDown": "active"})


@pytest.mark.parametrize("site", [{"site": "north"}, {}], ids=["site", "no site"])
@pytest.mark.parametrize("cause", sorted(CAUSES))
def test_a_cause_silences_what_is_declared_to_follow_from_it_on_its_node_only(
    alertmanager: str, cause: str, site: dict[str, str]
) -> None:
    node, suffix = {"instance": f"{cause}-{len(site)}"}, site.get("site", "")
    # Other causes stay away, but for those that follow themselves: each case is about one cause.
    here = [c for c in CHECKS if c.name == cause or c.name not in CAUSES or cause in c.follows]
    follows = {c.name for c in here if {*c.follows} & {h.name for h in here}}
    elsewhere = {c.name for c in here if cause in c.follows and c.name not in CAUSES}
    post(
        alertmanager,
        *({"alertname": alert_name(c.name), **node, **site} for c in here),
        *({"alertname": alert_name(name), **node, "site": "south"} for name in elsewhere),
    )
    want = {alert_name(c.name) + suffix: "suppressed" if c.name in follows else "active" for c in here}
    judged(alertmanager, node["instance"], want | {f"{alert_name(name)}south": "active" for name in elsewhere})


def test_a_cluster_without_a_leader_silences_that_it_has_lost_a_member(alertmanager: str) -> None:
    alert = {"alertname": "MecOvnDbRaftDegraded", "instance": "raft"}
    post(alertmanager, {**alert, "severity": "warning", "site": "north"})
    judged(alertmanager, "raft", {"MecOvnDbRaftDegradednorth": "active"})
    post(alertmanager, {**alert, "severity": "critical", "site": "north"})

    def by_severity() -> dict[str, str]:
        found: list[dict[str, Any]] = json.loads(get(f"http://{alertmanager}/api/v2/alerts") or "[]")
        return {a["labels"]["severity"]: a["status"]["state"] for a in found if a["labels"].get("instance") == "raft"}

    wait_until(
        lambda: by_severity() == {"critical": "active", "warning": "suppressed"}, 10, "the warning is suppressed"
    )


def test_sites_counted_as_one_silence_their_writers_but_not_those_of_a_site_with_a_label(alertmanager: str) -> None:
    post(
        alertmanager,
        {"alertname": "MecOvnSitesCountedAsOne", "db": "OVN_Northbound"},
        {"alertname": "MecOvnSiteWritersMany", "db": "OVN_Northbound"},
        {"alertname": "MecOvnSiteRaftLeaders", "db": "OVN_Southbound"},
        {"alertname": "MecOvnSiteWritersMany", "db": "OVN_Northbound", "site": "north"},
    )
    want = {
        "MecOvnSitesCountedAsOne": "active",
        "MecOvnSiteWritersMany": "suppressed",
        "MecOvnSiteRaftLeaders": "active",
        "MecOvnSiteWritersManynorth": "active",
    }
    judged(alertmanager, "", want)


def test_vfs_that_are_gone_silence_that_they_run_out_of_their_network_only(alertmanager: str) -> None:
    network = {"physical_network": "physnet1", "instance": "gone"}
    post(
        alertmanager,
        {"alertname": "MecVfsExhausted", "site": "east", **network},
        {"alertname": "MecVfsRunOut", "site": "east", **network},
        {"alertname": "MecVfsRunOut", "site": "west", **network},
        {"alertname": "MecVfsRunOut", "site": "", **network, "physical_network": "physnet2"},
    )
    want = {"MecVfsExhaustedeast": "active", "MecVfsRunOuteast": "suppressed", "MecVfsRunOutwest": "active"}
    judged(alertmanager, "gone", want | {"MecVfsRunOut": "active"})


@pytest.mark.parametrize("source", ["neutron", "nova@cell1", "placement", "sysfs"])
def test_a_ledger_of_vfs_that_is_lost_is_told_once_and_what_is_critical_too(alertmanager: str, source: str) -> None:
    node = {"instance": f"lost {source}"}

    def unknown(check: Check) -> dict[str, str]:
        return {"alertname": "MecCheckCannotTell", "check": check.name, "severity": check.severity, **node}

    of_vfs = [c for c in CHECKS if c.name.startswith("vf_")]
    other = next(c for c in CHECKS if c.name == "ovs_interface_failed")

    def by_check() -> dict[str, str]:
        found: list[dict[str, Any]] = json.loads(get(f"http://{alertmanager}/api/v2/alerts") or "[]")
        here = (a for a in found if a["labels"].get("instance") == node["instance"])
        return {a["labels"].get("check") or a["labels"]["source"]: a["status"]["state"] for a in here}

    post(alertmanager, *map(unknown, (*of_vfs, other)), {"alertname": "MecSourceDown", "source": source, **node})
    want = {c.name: "suppressed" if c.severity is Severity.WARNING else "active" for c in of_vfs}
    assert set(want.values()) == {"suppressed", "active"}
    want |= {other.name: "active", source: "active"}
    wait_until(lambda: by_check() == want, 10, f"{want}")


def test_how_far_a_change_has_come_is_not_asked_where_nobody_writes(alertmanager: str) -> None:
    node = {"instance": "unwritten"}
    post(
        alertmanager,
        {"alertname": "MecOvnDbNoWriter", **node},
        {"alertname": "MecCheckCannotTell", "check": "ovn_propagation_stalled", **node},
    )
    judged(alertmanager, "unwritten", {"MecOvnDbNoWriter": "active", "MecCheckCannotTell": "suppressed"})


def test_what_ovn_controller_alone_can_tell_follows_from_its_death(alertmanager: str) -> None:
    node = {"instance": "dead"}
    post(
        alertmanager,
        {"alertname": "MecOvnControllerDisconnected", **node},
        {"alertname": "MecCheckCannotTell", "check": "ovn_controller_failing", **node},
        {"alertname": "MecSourceDown", "source": "ovn_controller", **node},
    )
    post(
        alertmanager,
        {"alertname": "MecCheckCannotTell", "check": "tunnel_port_failed", "instance": "dead too"},
        {"alertname": "MecOvnControllerDisconnected", "instance": "dead too"},
    )
    dead = "MecOvnControllerDisconnected"
    judged(alertmanager, "dead", {dead: "active", "MecCheckCannotTell": "suppressed", "MecSourceDown": "suppressed"})
    judged(alertmanager, "dead too", {dead: "active", "MecCheckCannotTell": "active"})
