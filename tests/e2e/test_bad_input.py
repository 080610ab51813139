"""What a host may throw at the exporter: a clear message, nothing lost, no crash."""

from __future__ import annotations

import json
import os
import pwd
import re
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.story import QUICK, Watched
from tests.lab.monitoring import get
from tests.lab.site import Site
from tests.ports import free_port
from tests.sources.daemons import OvsdbServer, run, running, short_dir
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lab.site import Node

ROOT = Path(__file__).parents[2]
NASTY_INTERFACE = "tap\"<b>'\n\x1b"
NASTY = "\"><script>alert(1)</script>\n'; ${x} \\ \t\x1b[31m \u202e é"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site() as made:
        yield made


def program(*words: str | Path, **changes: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mecexporter", *words],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, **changes,
    )  # fmt: skip


def nothing(directory: Path) -> dict[str, Any]:
    """The configuration of a machine on which nothing of ours runs."""
    return {
        "web": {"local_socket": str(directory / "api.sock"), "listen": f"127.0.0.1:{free_port()}"},
        "intervals": {"live": "1s"},
        "ovs": {
            "database": f"unix:{directory}/db.sock",
            "run_dir": str(directory),
            "system_id_file": str(directory / "system-id.conf"),
            "system_id_override_file": str(directory / "system-id-override"),
        },
        "ovn": {
            "run_dir": str(directory),
            "northbound": {"database": f"unix:{directory}/nb.sock", "control": str(directory / "nb.ctl")},
            "southbound": {"database": f"unix:{directory}/sb.sock", "control": str(directory / "sb.ctl")},
        },
        "host": {"state_dir": str(directory / "state")},
    }


@contextmanager
def served(directory: Path, settings: dict[str, Any], *python: str) -> Iterator[str]:
    """The address of an exporter; ``python``: what is run in place of ``-m mecexporter``."""
    config = directory / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    command = [sys.executable, *(python or ("-m", "mecexporter")), "run", "--config", str(config)]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    url = f"http://{settings['web']['listen']}"
    try:
        wait_until(lambda: process.poll() is not None or get(f"{url}/readyz"), 20, "the exporter is ready")
        assert process.poll() is None, (directory / "log").read_text()
        yield url
    finally:
        process.terminate()
        assert process.wait(20) == 0, (directory / "log").read_text()


def sources(url: str) -> dict[str, Any]:
    page = get(f"{url}/api/v1/sources")
    assert page is not None
    return {item["source"]: item for item in json.loads(page)["sources"]}


def page(url: str) -> str:
    text = get(url)
    assert text is not None
    return text


def samples(text: str) -> dict[str, list[dict[str, str]]]:
    """Metric name -> labels of each sample, as Prometheus' own parser reads them."""
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


# A machine with nothing


def test_a_machine_with_nothing_is_served_and_has_no_role() -> None:
    with short_dir() as directory:
        settings = nothing(directory)
        with served(directory, settings) as url:
            text = page(f"{url}/metrics")
            for role in ("compute", "central", "api"):
                assert f'mecexporter_role{{role="{role}"}} 0.0' in text
            assert 'mecexporter_source_up{source="host"} 1.0' in text
            assert "mec_check_evaluable" not in text
            assert "mec_node_info" in text
            config = directory / "config.yaml"
            checked = program("check", "--config", config)
            assert checked.returncode == 0, checked.stdout
            once = program("once", "--config", config)
            assert once.returncode == 0
            assert samples(once.stdout).keys() <= samples(text).keys()


def test_a_compute_role_with_nothing_says_what_is_missing() -> None:
    with short_dir() as directory:
        settings = nothing(directory) | {"roles": ["compute"]}
        with served(directory, settings) as url:
            wait_until(lambda: json.loads(page(f"{url}/api/v1/findings"))["findings"], 20, "it is found")
            checked = program("check", "--config", directory / "config.yaml")
            assert checked.returncode == 2
            assert "CRITICAL  ovn_controller_disconnected" in checked.stdout
            assert f"no {directory}/ovn-controller.pid: ovn-controller is not running here" in checked.stdout
            assert f"{directory}/db.sock: No such file" in checked.stdout
            text = page(f"{url}/metrics")
            for check in ("system_id_missing", "system_id_changed", "integration_bridge_empty"):
                assert f'mec_check_evaluable{{check="{check}"}} 0.0' in text
                assert f'mec_check_findings{{check="{check}"' not in text


def test_state_that_cannot_be_written_is_said_and_harms_nothing() -> None:
    with short_dir() as directory:
        settings = nothing(directory)
        (directory / "state").write_text("a file where a directory should be")
        with served(directory, settings) as url:
            wait_until(lambda: "mecexporter_state_saved 0.0" in page(f"{url}/metrics"), 20, "it says so")


# The command line and the configuration


@pytest.mark.parametrize("command", ["run", "once", "config", "check"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("intervals: {lvie: 1s}\n", r":1: intervals\.lvie: no such key"),
        ("ovs:\n  run_dir: relative\n", r":2: ovs\.run_dir: .*absolute"),
        ("intervals: {live: 1}\n", r":1: intervals\.live: .*duration"),
        ("web: [\n", r":\d+:\d+: "),
        ("web: {listen: nowhere}\n", r"web\.listen: .*port"),
    ],
)
def test_a_bad_configuration_is_refused_with_key_and_place(tmp_path: Path, command: str, text: str, words: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(text)
    told = program(command, "--config", config)
    assert told.returncode == (3 if command == "check" else 2)
    assert re.search(words, told.stderr), told.stderr
    assert "Traceback" not in told.stderr
    assert not told.stdout


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump({"web": {"local_socket": None}, "host": {"state_dir": str(tmp_path / "s")}}))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        told = program("run", "--config", config, "--listen", address)
    assert told.returncode == 1
    assert f"cannot listen on {address}: already in use" in told.stderr
    assert "Traceback" not in told.stderr


# Who may not


UNPRIVILEGED = """
import os, pkgutil, pwd, sys
from importlib import import_module
import mecexporter
for module in pkgutil.walk_packages(mecexporter.__path__, "mecexporter."):
    if not module.name.endswith("__main__"):
        import_module(module.name)
import ovs.db.idl, ovsdbapp.backend.ovs_idl.connection, ovsdbapp.exceptions
user = pwd.getpwnam("nobody")
os.setgroups([]); os.setgid(user.pw_gid); os.setuid(user.pw_uid)
from mecexporter.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""Everything is imported first: the tree under test may be where only root can read."""


@pytest.mark.root
def test_a_user_who_may_not_is_told_which_user_lacks_what(site: Site, node_settings: dict[str, Any]) -> None:
    node = site.nodes["c1"]
    node.system_id_file.chmod(0o600)
    uid = pwd.getpwnam("nobody").pw_uid
    with short_dir() as directory:
        os.chown(directory, uid, -1)
        settings = node_settings | {
            "web": {"local_socket": str(directory / "api.sock"), "listen": f"127.0.0.1:{free_port()}"},
            "host": {"state_dir": str(directory / "state")},
        }
        who = f"user nobody (uid {uid})"
        try:
            with served(directory, settings, "-c", UNPRIVILEGED) as url:
                told = sources(url)
                controls = {
                    "ovs": node.ovs_run / "db.sock",
                    "vswitchd": node.ovs_run / f"ovs-vswitchd.{node.pid('ovs-vswitchd')}.ctl",
                    "ovn_controller": node.ovn_run / f"ovn-controller.{node.pid('ovn-controller')}.ctl",
                }
                for source, path in controls.items():
                    assert told[source]["reason"] == "permission", told[source]
                    assert who in told[source]["why"]
                    assert str(path) in told[source]["why"]
                assert told["host"]["up"] is True
                assert who in told["host"]["why"]
                assert str(node.system_id_file) in told["host"]["why"]
                checked = program("check", "--config", directory / "config.yaml")
                assert checked.returncode == 3
                for source in ("ovs", "ovn_controller"):
                    assert f"{source}: {told[source]['why']}" in checked.stdout
        finally:
            node.system_id_file.chmod(0o644)


@pytest.fixture
def node_settings(site: Site) -> dict[str, Any]:
    """The configuration of an exporter on c1, sections web and host left out."""
    exporter = Watched(site.nodes["c1"], QUICK)
    return {key: value for key, value in exporter.settings.items() if key not in ("web", "host")}


# Names from outside


def ovsdb_string(text: str) -> str:
    """As ovs-vsctl reads it: an OVSDB string in JSON's quotes."""
    return json.dumps(text)


def plug_nasty(node: Node) -> None:
    """An interface with a nasty name and iface-id; no device is called so."""
    node.vsctl(
        "add-port", "br-int", NASTY_INTERFACE, "--", "set", "Interface", NASTY_INTERFACE,
        f"external_ids:iface-id={ovsdb_string(NASTY)}", f"external_ids:vm-uuid={ovsdb_string(NASTY)}",
    )  # fmt: skip


@pytest.mark.root
def test_nasty_names_pass_through_every_door(site: Site) -> None:
    node = site.nodes["c1"]
    hostname = node.vsctl("get", "Open_vSwitch", ".", "external_ids:hostname").strip('"')
    with Watched(node, QUICK) as exporter:
        wait_until(exporter.well, QUICK.clear, "all is well")
        try:
            plug_nasty(node)
            node.vsctl("set", "Open_vSwitch", ".", f"external_ids:hostname={ovsdb_string(NASTY)}",
                       f"external_ids:system-id={ovsdb_string(NASTY)}")  # fmt: skip
            wait_until(
                lambda: exporter.found() >= {"system_id_changed", "ovs_interface_failed"}, QUICK.found, "it is found"
            )
            subjects = {f["check"]: f["subject"] for f in exporter.findings()["findings"]}
            assert subjects["system_id_changed"] == NASTY
            assert subjects["ovs_interface_failed"] == f"br-int/{NASTY_INTERFACE}"
            metrics = samples(exporter.metrics())
            assert [labels["hostname"] for labels in metrics["mec_node_info"]] == [NASTY]
            assert {"check": "system_id_changed", "severity": "critical", "subject": NASTY} in metrics[
                "mec_finding_info"
            ]
            openmetrics = subprocess.run(
                ["promtool", "check", "metrics"], input=exporter.metrics(), capture_output=True, text=True, check=False
            )
            assert openmetrics.returncode == 0, openmetrics.stderr
            status = page(f"{exporter.url}/")
            assert "<script" not in status
            assert "&lt;script&gt;" in status
            told = exporter.check()
            assert told.returncode == 2
            for text in (told.stdout, status):
                assert "\x1b" not in text
                assert "\u202e" not in text
            assert "Traceback" not in exporter.log.read_text()
        finally:
            node.vsctl("--if-exists", "del-port", "br-int", NASTY_INTERFACE)
            node.vsctl("set", "Open_vSwitch", ".", f"external_ids:hostname={hostname}",
                       f"external_ids:system-id={node.system_id_file.read_text().strip()}")  # fmt: skip
        wait_until(exporter.well, QUICK.clear, "all is well again")


@pytest.mark.root
def test_a_system_id_file_of_no_text_is_a_mismatch(site: Site) -> None:
    node = site.nodes["c1"]
    right = node.system_id_file.read_bytes()
    with Watched(node, QUICK) as exporter:
        wait_until(exporter.well, QUICK.clear, "all is well")
        try:
            node.system_id_file.write_bytes(b"\xff\xfe\x00\n\x80" + right)
            wait_until(lambda: exporter.found() == {"system_id_mismatch"}, QUICK.found, "it is found")
            assert samples(exporter.metrics())["mec_finding_info"]
            told = exporter.check()
            assert told.returncode == 1
            assert "\x00" not in told.stdout
        finally:
            node.system_id_file.write_bytes(right)
        wait_until(exporter.well, QUICK.clear, "all is well again")


def be_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def be_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def be_endless(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 << 20)


@pytest.mark.root
@pytest.mark.parametrize("become", [be_fifo, be_directory, be_endless])
def test_a_system_id_file_that_is_none_costs_one_check(site: Site, become: Callable[[Path], None]) -> None:
    node = site.nodes["c1"]
    path, right = node.system_id_file, node.system_id_file.read_bytes()
    with Watched(node, QUICK) as exporter:
        wait_until(exporter.well, QUICK.clear, "all is well")
        try:
            become(path)
            wait_until(lambda: exporter.unknown() == {"system_id_mismatch"}, QUICK.found, "one check cannot tell")
            assert exporter.found() == set()
            told = sources(exporter.url)["host"]
            assert told["up"] is True
            assert str(path) in told["why"]
            assert str(path) in exporter.check().stdout
        finally:
            path.rmdir() if path.is_dir() else path.unlink()
            path.write_bytes(right)
        wait_until(exporter.well, QUICK.clear, "all is well again")


def test_a_torn_state_is_put_aside_and_said() -> None:
    with short_dir() as directory:
        settings = nothing(directory)
        state = directory / "state" / "state.json"
        state.parent.mkdir()
        state.write_bytes(b'{"format":1,"roles":["comp')
        with served(directory, settings) as url:
            wait_until(lambda: state.exists() and "mecexporter_state_saved 1.0" in page(f"{url}/metrics"), 20, "saved")
            assert (state.parent / "state.json.unreadable").read_bytes() == b'{"format":1,"roles":["comp'
        assert "state was unreadable" in (directory / "log").read_text()


# Hostnames: the node's own against Southbound's


@pytest.mark.root
@pytest.mark.parametrize(
    ("theirs", "address", "ours"),
    [
        ("c1.lab", "172.31.0.1", True),
        ("C1.LAB", "198.51.100.9", True),
        ("c1", "172.31.0.1", True),
        ("c1.other.example", "172.31.0.1", True),
        ("other.lab", "198.51.100.9", False),
    ],
)
def test_a_chassis_is_ours_by_hostname_or_by_address(
    site: Site, node_settings: dict[str, Any], theirs: str, address: str, *, ours: bool
) -> None:
    """A Southbound of the test's own, as ovn-controller would correct the one of the lab at once."""
    node = site.nodes["c1"]
    with short_dir() as directory:
        server = OvsdbServer(directory, "OVN_Southbound")
        with running(server):
            run("ovn-sbctl", f"--db=unix:{server.socket}", "init")
            run("ovn-sbctl", f"--db=unix:{server.socket}", "chassis-add", node.system_id, "geneve", address, "--",
                "set", "Chassis", node.system_id, f"hostname={theirs}")  # fmt: skip
            settings = node_settings | {
                "web": {"local_socket": str(directory / "api.sock"), "listen": f"127.0.0.1:{free_port()}"},
                "host": {"state_dir": str(directory / "state")},
            }
            settings["ovn"] = settings["ovn"] | {
                "southbound": {"database": f"unix:{server.socket}"}, "chassis_lookup": {"interval": "1s"},
            }  # fmt: skip
            with served(directory, settings) as url:

                def told() -> dict[str, Any]:
                    found: dict[str, Any] = json.loads(page(f"{url}/api/v1/findings"))
                    return found

                if ours:
                    wait_until(lambda: "chassis_unregistered" in told()["ok"], QUICK.found, "it is ours")
                    assert told()["findings"] == []
                else:
                    wait_until(lambda: told()["findings"], QUICK.found, "it is another's")
                    [finding] = told()["findings"]
                    assert finding["check"] == "chassis_unregistered"
                    assert "other.lab" in finding["summary"]
