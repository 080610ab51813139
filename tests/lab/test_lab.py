"""The lab itself: it comes up, each incident breaks and repairs what it says, and nothing is left behind."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab import incidents
from tests.lab.__main__ import main
from tests.lab.central import DATABASES, NAMES, VIP, Cluster, Host, Pair, replicates
from tests.lab.failover import CLUSTER, beside_a_standby, northd
from tests.lab.monitoring import Monitoring, get
from tests.lab.site import MARK, PREFIX, ROOT, LabError, Node, Site, down, processes, run, sweep
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lab.site import Daemon

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
SECONDS = 60  # on a busy machine; a few on an idle one


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


@pytest.fixture(scope="class")
def pair() -> Iterator[Pair]:
    with Pair() as pair:
        yield pair


@pytest.fixture
def name() -> str:
    """Of a lab that another process starts; nobody else's on this machine."""
    return f"t{secrets.token_hex(4)}"


@pytest.fixture
def demo_log(tmp_path: Path) -> Path:
    return tmp_path / "demo.log"


def test_each_node_is_a_healthy_chassis_with_an_identity_of_its_own(site: Site) -> None:
    c1, c2 = site.nodes.values()
    assert site.chassis() == {c1.system_id, c2.system_id}
    assert c1.system_id_file.read_text().strip() == c1.system_id
    wait_until(lambda: healthy(c1), SECONDS, "c1 is healthy")
    wait_until(lambda: healthy(c2), SECONDS, "c2 is healthy")


def test_vms_come_move_and_go(site: Site) -> None:
    c1, c2 = site.nodes.values()
    c1.add_vm("vm3", "10.0.0.3")
    wait_until(lambda: site.ping("vm3", "vm1"), SECONDS, "vm3 reaches vm1 on its own node")
    c1.move_vm("vm3", c2)
    wait_until(lambda: site.ping("vm3", "vm1"), SECONDS, "vm3 reaches vm1 from the other node")
    c2.remove_vm("vm3")
    assert "vm3" not in site.sbctl("--bare", "--columns=logical_port", "list", "Port_Binding").split()
    assert site.netns("vm3") not in run("ip", "netns", "list")


def test_a_second_copy_runs_beside_it_and_is_not_touched(site: Site) -> None:
    with Site() as other:
        incidents.begin(other, "C2")
        wait_until(lambda: not other.ping("vm1", "vm2"), SECONDS, "the other's VMs are cut off")
        assert site.ping("vm1", "vm2")
    assert site.ping("vm1", "vm2")
    assert_nothing_left(other.name)


def test_a_site_without_vms_is_whole() -> None:
    with Site(vms=False) as site:
        node = site.nodes["c1"]
        wait_until(lambda: site.chassis() >= {node.system_id}, SECONDS, "c1 registers")
        wait_until(lambda: node.flows() > 0, SECONDS, "c1 has flows")


@pytest.mark.parametrize("name", incidents.INCIDENTS)
def test_an_incident_breaks_what_it_says_and_its_repair_mends_it(site: Site, name: str) -> None:
    node, expected = site.nodes["c1"], incidents.INCIDENTS[name]
    incidents.begin(site, name)
    wait_until(lambda: EVIDENCE[name](node), SECONDS, expected.what)
    wait_until(lambda: site.ping("vm1", "vm2") is expected.pings, SECONDS, f"pings: {expected.pings}")
    incidents.end(site, name)
    wait_until(lambda: site.ping("vm1", "vm2"), SECONDS, f"pings after the repair of {name}")
    wait_until(lambda: healthy(node), SECONDS, f"health after the repair of {name}")


@pytest.mark.parametrize("name", ["tunnel-failed", "interface-failed", "interface-orphaned"])
def test_a_repair_after_the_operators_own_ends_the_incident(site: Site, name: str) -> None:
    node = site.nodes["c1"]
    incidents.begin(site, name)
    port = {"tunnel-failed": incidents.FOREIGN_TUNNEL, "interface-failed": "tap-gone"}.get(name, "tap-orphan")
    node.vsctl("del-port", port)
    incidents.end(site, name)
    wait_until(lambda: healthy(node) and site.ping("vm1", "vm2"), SECONDS, f"health after the repair of {name}")


def test_a_wrong_wish_is_told(site: Site) -> None:
    with pytest.raises(LabError, match="no incident is named F; there are A, B"):
        incidents.begin(site, "F")
    with pytest.raises(LabError, match="no node is named c9; there are c1, c2"):
        incidents.begin(site, "A", "c9")
    with pytest.raises(LabError, match="incident A is not under way here"):
        incidents.end(site, "A")
    with pytest.raises(LabError, match="is there already"), Site(site.name):
        pass
    assert site.ping("vm1", "vm2")


def test_an_alert_takes_the_whole_way(site: Site) -> None:
    with Monitoring(site, interval=1, impatient=True, intervals={"live": "1s"}) as monitoring:
        wait_until(
            lambda: [sample["value"][1] for sample in monitoring.prometheus.query("up")] == ["1", "1"],
            SECONDS,
            "both exporters are scraped",
        )
        assert "mecexporter_build_info" in monitoring.exporters["c1"].metrics()
        assert "Alerts" in (get(monitoring.prometheus.alerts_page()) or "")
        drill = json.dumps([{"labels": {"alertname": "Drill", "instance": "c1.lab"}}])
        client = HTTPConnection("127.0.0.1", monitoring.alertmanager.port, timeout=5)
        client.request("POST", "/api/v2/alerts", drill, {"Content-Type": "application/json"})
        assert client.getresponse().status == 200
        client.close()
        wait_until(lambda: ("Drill", "c1.lab") in monitoring.receiver.firing(), SECONDS, "the drill is notified")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_ends_without_a_trace(demo_log: Path, name: str, number: signal.Signals) -> None:
    with demo(demo_log, "--name", name) as process:
        printed = demo_log.read_text()
        assert f"make incident LAB={name} NAME=C2" in printed
        for command in pasted(printed):
            done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=SECONDS, check=False)
            assert done.returncode == 0, (command, done.stderr)
        process.send_signal(number)
        assert process.wait(SECONDS) == 0, demo_log.read_text()
        assert_nothing_left(name)


@pytest.mark.parametrize(("kind", "hosts"), [("pair", ("ca", "cb", "cc")), ("cluster", ("s1", "s2", "s3"))])
def test_a_demo_of_a_control_plane(demo_log: Path, name: str, kind: str, hosts: tuple[str, ...]) -> None:
    with demo(demo_log, "--site", kind, "--name", name) as process:
        printed = demo_log.read_text()
        assert f"make incident LAB={name} NAME={'F1' if kind == 'pair' else 'R1'}" in printed
        commands = re.findall(r"(?:curl|amtool|OVN_RUNDIR=|ovs-appctl|ip netns exec) ?.*", printed)
        assert len(commands) == {"pair": 10, "cluster": 11}[kind], printed
        shells = re.findall(r"LAB=.* shell .*", printed)
        assert len(shells) == 3, printed
        checks = [f"{shell} mecexporter check" for shell in shells]
        runbook = [
            "ovs-appctl -t /run/ovn/ovnnb_db.ctl ovsdb-server/sync-status",
            "ovs-appctl -t /run/ovn/ovnsb_db.ctl memory/show",
            "ovn-appctl -t ovn-northd status",
            "ovn-nbctl ls-list",
        ]
        commands += [f"{shells[0]} {command}" for command in runbook]
        for command in commands:
            done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=SECONDS, check=False)
            assert done.returncode == 0, (command, done.stderr)
        for command, host in zip(checks, hosts, strict=True):
            wait_until(lambda: f"{host}: all is well" in said(command), 2 * SECONDS, f"{host} is well")  # noqa: B023  # called here
        prometheus = re.findall(r"Prometheus: (http://[^/]+)", printed)[0]
        wait_until(lambda: scraped(prometheus) == {(host, name) for host in hosts}, SECONDS, "all are scraped")
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 0, demo_log.read_text()
        assert_nothing_left(name)
        wait_until(lambda: f"mec{name}" not in run("ip", "link"), SECONDS, "no device is left either")


def said(command: str) -> str:
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=SECONDS, check=False).stdout


def scraped(prometheus: str) -> set[tuple[str, str]]:
    """The hosts that are, with their site."""
    up = json.loads(get(f"{prometheus}/api/v1/query?query=up==1") or '{"data":{"result":[]}}')["data"]["result"]
    return {(of["metric"]["instance"], of["metric"]["site"]) for of in up}


class TestPair:
    """What each incident does to the exporters' findings is tests/e2e's; here, that a person can play it."""

    def test_the_stages_come_in_their_order_and_the_repair_of_the_last_ends_them_all(self, pair: Pair) -> None:
        def refused(words: str, name: str, *, end: bool = False) -> bool:
            with pytest.raises(LabError, match=words):
                (incidents.end if end else incidents.begin)(pair, name)
            return True

        assert refused("incident F2 comes right after F1; under way now: none", "F2")
        incidents.begin(pair, "F1")
        assert refused("incident F1 is under way already", "F1")
        assert refused("incident F3 comes right after F2; under way now: F1", "F3")
        assert refused("incident northd-paused wants a site that is well; under way now: F1", "northd-paused")
        incidents.begin(pair, "F2")
        assert refused("F2 came after F1: repair F2 first", "F1", end=True)
        for stage in ("F3", "F4", "F5"):
            incidents.begin(pair, stage)
        assert [northd(host) for host in (pair.ca, pair.cb)] == [beside_a_standby(), "active"]
        assert well(pair, active=pair.cb)
        incidents.end(pair, "F5")
        assert refused("incident F1 is not under way here", "F1", end=True)
        assert well(pair, active=pair.ca)

    def test_each_stage_can_be_taken_back(self, pair: Pair) -> None:
        for stage in ("F1", "F2", "F3", "F4"):
            incidents.begin(pair, stage)
        for stage in ("F4", "F3", "F2", "F1"):
            incidents.end(pair, stage)
        assert well(pair, active=pair.ca)

    def test_from_wrong_turns_too(self, pair: Pair) -> None:
        incidents.begin(pair, "F1")
        incidents.begin(pair, "F2-northd-first")
        assert northd(pair.cb) == beside_a_standby()
        incidents.end(pair, "F2-northd-first")
        assert northd(pair.cb) == "active"
        incidents.begin(pair, "F4")
        incidents.begin(pair, "F5-second-active")
        assert [northd(host) for host in (pair.ca, pair.cb)] == ["active", "active"]
        incidents.end(pair, "F5-second-active")
        assert well(pair, active=pair.cb)
        incidents.end(pair, "F5")
        assert well(pair, active=pair.ca)

    def test_a_repair_after_the_operators_own(self, pair: Pair) -> None:
        incidents.begin(pair, "F1")
        pair.cb.promote(*DATABASES)
        incidents.begin(pair, "F2")
        pair.cb.start_northd()
        incidents.begin(pair, "F3")
        pair.take_address()
        pair.give_address(pair.cb)
        incidents.begin(pair, "F4")
        incidents.begin(pair, "F5-second-active")
        pair.ca.stop_northd()
        incidents.end(pair, "F5-second-active")
        incidents.end(pair, "F5")
        assert well(pair, active=pair.ca)

    def test_what_belongs_elsewhere_is_refused(self, pair: Pair, site: Site) -> None:
        for lab, name, words in (
            (pair, "C2", r"C2 is of a site of the kind compute, .* of the kind pair; start one: make demo$"),
            (pair, "R1", r"R1 is of a site of the kind cluster, .*; start one: make demo SITE=cluster$"),
            (site, "F1", r"F1 is of a site of the kind pair, .* of the kind compute; start one: make demo SITE=pair$"),
        ):
            with pytest.raises(LabError, match=words):
                incidents.begin(lab, name)
        with pytest.raises(LabError, match="F1 is of a whole site, not of a node"):
            incidents.begin(pair, "F1", "c1")
        with pytest.raises(LabError, match="is a site of the kind pair, not cluster"):
            Cluster.attach(pair.name)

    def test_the_command_line_finds_out_what_runs(
        self, pair: Pair, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("LAB", pair.name)
        assert main(["incident", "northd-paused"]) == 0
        assert northd(pair.ca) == "paused"
        assert main(["repair", "northd-paused"]) == 0
        assert northd(pair.ca) != "paused"
        assert main(["list"]) == 0
        listed = capsys.readouterr().out
        assert all(f"  {name} " in listed for catalogue in incidents.CATALOGUES.values() for name in catalogue)
        assert main(["shell", "c9"]) == 2
        assert "no host is named c9; there are ca, cb, cc" in capsys.readouterr().err


def well(pair: Pair, *, active: Host) -> bool:
    """Whether that one is the only writer and the other its standby, and what a client orders is carried out."""
    standby = pair.cb if active is pair.ca else pair.ca
    for db in DATABASES:
        assert "state: active" in active.appctl(db, "ovsdb-server/sync-status")
        wait_until(lambda: replicates(standby, db), SECONDS, f"{db} of {standby.name} replicates")  # noqa: B023  # called here
    wait_until(lambda: northd(active) == "active", SECONDS, f"northd of {active.name} works")
    client = ("ovn-nbctl", "--timeout=10", f"--db=tcp:{VIP}:6641")
    pair.cc.execute(*client, "--wait=sb", "sync")
    wait_until(lambda: active.dump("nb") == standby.dump("nb"), SECONDS, "they are equal")
    return True


def test_a_cluster_loses_members_and_gets_them_back() -> None:
    def status(host: Host) -> str:
        return host.appctl("nb", "cluster/status", NAMES["nb"])

    with Cluster() as cluster:
        s1, _, s3 = cluster.hosts.values()
        with pytest.raises(LabError, match="R2 comes right after R1"):
            incidents.begin(cluster, "R2")
        incidents.begin(cluster, "R1")
        incidents.begin(cluster, "R2")
        wait_until(lambda: "Leader: unknown" in status(s1), SECONDS, "the quorum is lost")
        incidents.end(cluster, "R2")
        wait_until(lambda: "Leader: unknown" not in status(s1), SECONDS, "there is a leader again")
        incidents.end(cluster, "R1")
        incidents.begin(cluster, "R-replaced")
        assert not s3.file("nb").exists()
        incidents.end(cluster, "R-replaced")
        wait_until(lambda: "Status: cluster member" in status(s3), SECONDS, "the new one is a member")
        assert {"R1", "R2", "R-replaced"} == CLUSTER.keys()


def test_a_demo_interrupted_while_it_starts_leaves_nothing(demo_log: Path, name: str) -> None:
    with demo(demo_log, "--name", name, until=(ROOT / f"{PREFIX}{name}/c1/ovs/db.sock").exists) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 0, demo_log.read_text()
        assert_nothing_left(name)


def test_what_a_killed_demo_left_behind_is_swept_up(demo_log: Path, name: str) -> None:
    with demo(demo_log, "--bare", "--name", name) as process:
        assert list(processes(name))
        process.kill()
        process.wait(SECONDS)
        sweep()
        assert_nothing_left(name)


def test_the_command_line_works_on_a_running_lab(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAB", site.name)
    assert main(["incident", "controller-paused", "--node", "c2"]) == 0
    assert site.nodes["c2"].appctl("ovn-controller", "debug/status") == "paused"
    assert main(["incident", "controller-paused"]) == 2
    assert "under way already" in capsys.readouterr().err
    assert main(["repair", "controller-paused"]) == 0
    assert site.nodes["c2"].appctl("ovn-controller", "debug/status") == "running"
    assert main(["list"]) == 0
    assert f"{site.name}  runs" in capsys.readouterr().out


def test_a_running_demo_can_be_taken_down_from_elsewhere(demo_log: Path, name: str) -> None:
    with demo(demo_log, "--bare", "--name", name) as process:
        assert main(["down", name]) == 0
        assert process.wait(SECONDS) == 0, demo_log.read_text()
        assert_nothing_left(name)


def test_the_command_line_says_why_it_does_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def says(words: str) -> bool:
        assert main(["repair", "A"]) == 2
        return words in capsys.readouterr().err

    monkeypatch.setenv("LAB", "nosuchlab")
    assert says("no lab named nosuchlab")
    monkeypatch.delenv("LAB")
    monkeypatch.setattr("tests.lab.__main__.labs", dict)
    assert says("no lab runs on this machine; start one: make demo")
    monkeypatch.setattr("tests.lab.__main__.labs", lambda: {"b": True, "a": True, "dead": False})
    assert says("say which one by LAB=name: a, b\n")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert says("the lab needs root")


def test_missing_programs_are_named_by_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.lab.site.PROGRAMS", {"no-such-program": "such-a-package", "ip": "iproute2"})
    with pytest.raises(LabError, match=r"install: apt-get install such-a-package$"), Site():
        pass


def pasted(printed: str) -> list[str]:
    """What a reader of the demo's words does: run what it prints, and a runbook's commands in each node's shell."""
    commands = re.findall(r"(?:curl|amtool|ovs-vsctl|ovn-sbctl) .*", printed)
    shells = re.findall(r"export .*", printed)
    assert len(commands) == 6, printed
    assert len(shells) == 2, printed
    runbook = (
        "ovs-vsctl --timeout=5 get Open_vSwitch . external_ids:system-id",
        "ovs-ofctl dump-aggregate br-int",
        "ovs-appctl --timeout=5 upcall/show",
        "ovn-appctl --timeout=5 -t ovn-controller debug/status",
        "ovn-sbctl --timeout=5 --columns=name,hostname list Chassis",
    )
    return commands + [f"{shell}; {command}" for shell in shells for command in runbook]


def healthy(node: Node) -> bool:
    """Whether the node does all that a chassis does: it follows a bump, and its VM's port is installed."""
    asked = node.site.bump_nb_cfg()
    name = node.system_id

    def follows() -> bool:
        row = ("--bare", "--columns=nb_cfg", "find", "Chassis_Private", f'name="{name}"')
        return int(node.site.sbctl(*row) or -1) >= asked

    try:
        wait_until(follows, 10, f"{node.name} follows")
    except AssertionError:
        return False
    taps = [vm.tap for vm in node.site.vms.values() if vm.node == node.name]
    return (
        node.flows() > 0
        and node.system_id_file.read_text().strip() == name
        and node.appctl("ovn-controller", "debug/status") == "running"
        and all("ovn-installed=" in node.vsctl("get", "Interface", tap, "external_ids") for tap in taps)
    )


def unregistered(node: Node) -> bool:
    return node.system_id not in node.site.chassis()


def keys(node: Node) -> str:
    return node.vsctl("get", "Open_vSwitch", ".", "external_ids")


def interface(node: Node, name: str, column: str) -> str:
    return node.vsctl("--if-exists", "get", "Interface", name, column)


def tunnel(node: Node) -> str:
    return next(port for port in node.vsctl("list-ports", "br-int").split() if port.startswith("ovn-"))


def connection(node: Node) -> str:
    return node.appctl("ovn-controller", "connection-status")


def dead(daemon: Daemon) -> Callable[[Node], bool]:
    return lambda node: not node.running(daemon)


def hanging(daemon: Daemon) -> Callable[[Node], bool]:
    return lambda node: ") T " in Path(f"/proc/{node.pid(daemon)}/stat").read_text()


EVIDENCE: dict[str, Callable[[Node], bool]] = {
    "A": lambda node: unregistered(node) and connection(node) == "connected" and node.flows() > 0,
    "B": lambda node: unregistered(node) and node.system_id_file.read_text().strip() == node.system_id,
    "C": lambda node: "ovn-remote" not in keys(node) and connection(node) == "not connected",
    "C2": lambda node: unregistered(node) and connection(node) == "connected" and node.flows() == 0,
    "D": lambda node: "system-id" not in keys(node),
    "E": lambda node: node.site.sbctl("--bare", "--columns=hostname", "list", "Chassis").split().count("c1.lab") == 2,
    "rename": lambda node: node.system_id == "new-c1" and not unregistered(node) and len(node.site.chassis()) == 2,
    "maintenance": lambda node: unregistered(node) and not node.running("ovn-controller"),
    "controller-killed": dead("ovn-controller"),
    "controller-stopped": hanging("ovn-controller"),
    "controller-paused": lambda node: node.appctl("ovn-controller", "debug/status") == "paused",
    "controller-disconnected": lambda node: connection(node) == "not connected",
    "vswitchd-killed": dead("ovs-vswitchd"),
    "vswitchd-stopped": hanging("ovs-vswitchd"),
    "ovsdb-killed": dead("ovsdb-server"),
    "ovsdb-stopped": hanging("ovsdb-server"),
    "tunnel-failed": lambda node: "File exists" in interface(node, tunnel(node), "error"),
    "tunnel-bfd-down": lambda node: interface(node, tunnel(node), "bfd_status:state") == "down",
    "interface-failed": lambda node: "No such device" in interface(node, "tap-gone", "error"),
    "interface-orphaned": lambda node: interface(node, "tap-orphan", "ofport").isdigit(),
    "sb-killed": lambda node: connection(node) == "not connected",
    "ovsctl-wipe-conf": lambda node: not unregistered(node) and node.flows() > 0,
    "ovsctl-delete-file": lambda node: unregistered(node) and node.system_id_file.read_text().strip() == node.system_id,
    "ovsctl-other-id": lambda node: unregistered(node) and node.system_id_file.read_text().strip() != node.system_id,
    "ovsctl-unwritable": lambda node: unregistered(node) and not node.system_id_file.exists(),
    "ovsctl-no-system-id": lambda node: node.system_id == "",
}


@contextmanager
def demo(log: Path, *options: str, until: Callable[[], bool] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m tests.lab demo OPTIONS`, up (or come as far as `until`); the last option is the lab's name."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "tests.lab", "demo", *options],
            cwd=Path(__file__).parents[2],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    up = until or (lambda: "Ctrl-C ends it" in log.read_text())
    try:
        wait_until(lambda: process.poll() is not None or up(), 2 * SECONDS, "the demo is up")
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        down(options[-1])


def assert_nothing_left(name: str) -> None:
    assert list(processes(name)) == [], f"processes with {MARK}={name}"
    assert f"{PREFIX}{name}-" not in run("ip", "netns", "list")
    assert not (ROOT / f"{PREFIX}{name}").exists()
