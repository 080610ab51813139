"""Incident 3 with real Placement, Neutron and Nova's own schema; the NIC is made of files, a guest's: tests/hwlab."""

from __future__ import annotations

import itertools
import json
import time
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from mecexporter.checks.vf_inventory_mismatch import NOTICED
from mecexporter.checks.vfs import Drift
from tests.lab.monitoring import get
from tests.lab.openstack import OpenStack
from tests.lab.openstack_releases import debian, newest
from tests.lab.sriov import VfExporter
from tests.sources.daemons import short_dir
from tests.sources.machine import Machine
from tests.sources.nova_rows import Rows, request
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOST = "compute-1"
PF = "0000:3b:00.0"
VFS = tuple(f"0000:3b:{n >> 3:02x}.{n & 7}" for n in range(2, 14))
CLASS = "CUSTOM_PCI_15B3_101E"
SOON = 40
"""Seconds: a second read comes ten after the first one."""

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]


class Node:
    """A compute node: its NIC, its rows in Nova's cell, its ports in Neutron, its provider in Placement."""

    _numbers = itertools.count(1)

    def __init__(self, openstack: OpenStack, rows: Rows, network: str, directory: Path) -> None:
        self.number = next(self._numbers)
        self.host = f"compute-{self.number}"
        self.openstack, self.rows, self.network, self.directory = openstack, rows, network, directory
        self.machine = Machine(directory / "machine")
        self.machine.pf(PF, vfs=VFS, total=16, driver="mlx5_core", net="ens1f0np0")
        rows.host(self.number, self.host)
        for vf in VFS:
            rows.vf(self.number, vf, parent_addr=PF, request_id=None)
        root = openstack.create_provider(self.host)
        self.provider = openstack.create_pf_provider(self.host, root, PF, len(VFS), resource=CLASS)
        self.instances: set[str] = set()

    def exporter(self, **sections: Any) -> VfExporter:
        host = {"hostname": self.host, "sysfs": str(self.machine.sysfs), "proc": str(self.machine.proc)}
        # Nobody reports for nova-compute but where a test does, and a busy machine takes its time.
        own = {"host": {**host, "state_dir": str(self.directory)}, "nova": {"service_down_time": "10m"}}
        return VfExporter(self.openstack, self.directory, **{**own, **sections})

    def uuid(self, name: str) -> str:
        """An instance of this node, made when it is first named."""
        made = str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}.{self.host}"))
        if made not in self.instances:
            self.instances.add(made)
            self.rows.instance(made, self.host, [])
        return made

    def attach(self, vf: str, name: str, **parts: bool) -> str:
        """As Nova does: a claim, a port, and a guest that has it; ``parts`` that are False are left out."""
        owner = self.uuid(name)
        port = ""
        if parts.get("claim", True):
            self.rows.claim(self.number, vf, owner)
        if parts.get("port", True):
            port = self.openstack.create_port(self.network, self.host, vf, owner)
        if parts.get("guest", True):
            self.hold(vf, owner)
        return port

    def hold(self, vf: str, owner: str) -> None:
        self.machine.bind(vf, "vfio-pci")
        group = (self.machine.pci / vf / "iommu_group").readlink().name
        self.machine.process(1000 + VFS.index(vf), f"/dev/vfio/{group}", guest=owner)

    def let_go(self, vf: str) -> None:
        self.machine.end(1000 + VFS.index(vf))
        self.machine.bind(vf, "mlx5_core")

    def unclaim(self, vf: str) -> None:
        self.rows.claim(self.number, vf, None)

    def task(self, name: str, task: str | None, state: str = "active") -> None:
        statement = "UPDATE instances SET task_state = :task, vm_state = :state WHERE uuid = :uuid"
        self.rows.run(statement, task=task, state=state, uuid=self.uuid(name))


@pytest.fixture(
    scope="module",
    name="openstack",
    params=[debian, pytest.param(newest, marks=pytest.mark.long)],
    ids=lambda r: r.__name__,
)
def an_openstack(request: pytest.FixtureRequest) -> Iterator[OpenStack]:
    with OpenStack([f"compute-{n}" for n in range(1, 17)], release=request.param()) as openstack:
        yield openstack


@pytest.fixture(scope="module", name="network")
def a_network(openstack: OpenStack) -> str:
    return openstack.create_network()


@pytest.fixture(scope="module", name="rows")
def a_cell(openstack: OpenStack) -> Rows:
    return Rows(openstack.database("nova_cell1"))


@pytest.fixture(name="node")
def a_node(openstack: OpenStack, rows: Rows, network: str) -> Iterator[Node]:
    with short_dir() as directory:
        yield Node(openstack, rows, network, directory)


def kept(exporter: VfExporter, node: Node, wanted: dict[str, set[str]], reads: int = 3) -> None:
    """It is so at each of some reads of every ledger."""
    for _ in range(reads):
        before = {source: exporter.reads(source) for source in ("neutron", "nova@cell1", "placement", "sysfs")}
        node.rows.report(node.host)
        wait_until(partial(_all_read, exporter, before), SOON, "all are read again")
        assert exporter.found() == wanted


def _all_read(exporter: VfExporter, before: dict[str, float]) -> bool:
    return all(exporter.reads(source) > at for source, at in before.items())


def test_the_quick_detach_and_delete_leaks_and_the_slow_one_does_not(node: Node) -> None:
    quick, slow = node.attach(VFS[0], "quick"), node.attach(VFS[1], "slow")
    node.openstack.allocate(node.uuid("quick"), node.provider, CLASS)
    with node.exporter() as exporter:
        kept(exporter, node, {})
        assert exporter.value("mec_vf_drift", hostname=node.host, pf=PF, kind="leaked") == 0

        # The guest lets go, and the port is gone before Nova has freed the VF: its update fails, 'no such port'.
        node.let_go(VFS[0])
        node.openstack.delete_port(quick)
        # The slow way: Nova frees the VF first.
        node.let_go(VFS[1])
        node.unclaim(VFS[1])
        node.openstack.delete_port(slow)

        wait_until(lambda: exporter.found() == {"vf_leaked": {VFS[0]}}, SOON, "the leak, and nothing else, is found")
        (finding,) = [f for f in exporter.report()["findings"] if f["check"] == "vf_leaked"]
        assert node.uuid("quick") in finding["summary"]

        def of(ledger: str, state: str) -> float | None:
            return exporter.value("mec_vf_ledger", hostname=node.host, pf=PF, ledger=ledger, state=state)

        assert [of(name, "claimed") for name in ("placement", "nova", "neutron", "nic")] == [1, 1, 0, 0]
        assert of("nic", "free") == len(VFS)
        kept(exporter, node, {"vf_leaked": {VFS[0]}})

        # With nova-compute down nothing is said of its host, and that is no lack of an answer.
        node.rows.run("UPDATE services SET forced_down = 1 WHERE host = :host", host=node.host)
        wait_until(lambda: exporter.found() == {}, SOON, "its host is down: no verdict")
        assert exporter.unknown() == {}
        node.rows.run("UPDATE services SET forced_down = 0 WHERE host = :host", host=node.host)
        wait_until(lambda: exporter.found() == {"vf_leaked": {VFS[0]}}, SOON, "it is found again")

        # The remedy, as the finding says it.
        statement = finding["remedy"].partition("UPDATE")[2].partition("; then")[0]
        node.rows.run(f"UPDATE{statement}")
        wait_until(lambda: exporter.found() == {}, SOON, "it is mended")


def test_each_kind_of_drift_is_found_and_clears(node: Node) -> None:
    ports = {vf: node.attach(vf, f"well{n}") for n, vf in enumerate(VFS[6:9])}
    with node.exporter() as exporter:
        portless = node.attach(VFS[0], "portless")
        node.openstack.delete_port(portless)
        node.attach(VFS[1], "stray", claim=False, port=False)
        node.attach(VFS[2], "unclaimd", claim=False)
        orphan = node.attach(VFS[3], "orphan", claim=False, guest=False)
        node.attach(VFS[4], "lost", guest=False)
        node.attach(VFS[5], "twice")
        second = node.openstack.create_port(node.network, node.host, VFS[5], node.uuid("other"))
        expected = {
            "vf_portless": {VFS[0]},
            "vf_unrecorded": {VFS[1], VFS[2]},
            "vf_orphan_port": {VFS[3], VFS[4]},
            "vf_double_booked": {VFS[5]},
        }
        wait_until(lambda: exporter.found() == expected, SOON, "each is found as what it is")
        counts = {str(k): exporter.value("mec_vf_drift", hostname=node.host, pf=PF, kind=str(k)) for k in Drift}
        other = {"leaked": 0, "inventory": 0}
        assert counts == {"portless": 1, "unrecorded": 2, "double_booked": 1, "orphan_port": 2, **other}

        node.openstack.create_port(node.network, node.host, VFS[0], node.uuid("portless"))
        node.let_go(VFS[1])
        node.rows.claim(node.number, VFS[2], node.uuid("unclaimd"))
        node.openstack.delete_port(orphan)
        node.hold(VFS[4], node.uuid("lost"))
        node.openstack.delete_port(second)
        wait_until(lambda: exporter.found() == {}, SOON, "all are mended")
        assert len(ports) == 3


@pytest.mark.long
def test_a_vf_that_nova_counts_on_and_is_not_there(node: Node) -> None:
    """After the three minutes that nova-compute has to notice by itself; Placement's overdraw beside it."""
    gone = VFS[-1]
    gone_and_overdrawn = {"vf_inventory_mismatch": {gone, PF}}
    with node.exporter() as exporter:
        kept(exporter, node, {}, reads=1)
        node.machine.unplug(PF, VFS.index(gone))
        for n in range(2):
            node.openstack.allocate(node.uuid(f"placed{n}"), node.provider, CLASS)
        node.openstack.resize_inventory(node.provider, CLASS, 1)
        began = time.monotonic()
        wait_until(lambda: exporter.found() == gone_and_overdrawn, 240, "both are found")
        assert time.monotonic() - began >= NOTICED
        said = {f["subject"]: f["summary"] for f in exporter.report()["findings"]}
        assert f"Nova's cell knows VF {gone} of PF {PF} (available)" in said[f"{node.host}/{gone}"]
        assert said[f"{node.host}/{PF}"].endswith(f"than it has: 2 {CLASS} of 1")
        assert exporter.value("mec_vf_drift", hostname=node.host, pf=PF, kind="inventory") == 2

        # Without Placement what the NIC and Nova show is said all the same; without Nova, Placement's.
        node.openstack.placement.stop()
        wait_until(lambda: exporter.found() == {"vf_inventory_mismatch": {gone}}, SOON, "Placement is lost")
        node.machine.plug(PF, VFS.index(gone), gone)
        missing = {"vf_inventory_mismatch": {"placement"}}
        wait_until(lambda: exporter.unknown() == missing, SOON, "it is back, and the rest cannot be told")
        assert exporter.found() == {}
        node.openstack.placement.start()
        node.openstack.resize_inventory(node.provider, CLASS, len(VFS))
        wait_until(lambda: exporter.found() == {} == exporter.unknown(), 90, "all is well")


def test_normal_life_is_silent(node: Node) -> None:
    """Each stage for some reads of every ledger, with the graces as short as they can be."""
    with node.exporter(grace={"vf_drift": "1s"}) as exporter:
        node.attach(VFS[0], "stopped", guest=False)
        node.task("stopped", None, "stopped")
        node.attach(VFS[1], "shelved", claim=False, guest=False)
        node.task("shelved", None, "shelved_offloaded")
        node.rows.run("UPDATE instances SET host = NULL WHERE uuid = :uuid", uuid=node.uuid("shelved"))
        node.rows.claim(node.number, VFS[2], node.uuid("building"))
        node.task("building", "spawning", "building")
        node.attach(VFS[3], "resized", port=False, guest=False)
        node.task("resized", None, "resized")
        node.rows.add("migrations", instance_uuid=node.uuid("resized"), source_compute=node.host,
                      dest_compute="elsewhere", status="finished")  # fmt: skip
        arriving = str(uuid.uuid4())
        node.rows.instance(arriving, "elsewhere", [], task_state="migrating")
        node.rows.claim(node.number, VFS[4], arriving)
        node.rows.add("migrations", instance_uuid=arriving, source_compute="elsewhere", dest_compute=node.host,
                      status="running")  # fmt: skip
        node.attach(VFS[5], "rebuilt", guest=False)
        node.task("rebuilt", "rebuild_spawning")
        gpu = node.uuid("flavoury")
        node.rows.run("UPDATE instance_extra SET pci_requests = :r WHERE instance_uuid = :u",
                      r=json.dumps([request("rq", alias="a")]), u=gpu)  # fmt: skip
        node.rows.claim(node.number, VFS[6], gpu)
        node.rows.run("UPDATE pci_devices SET request_id = 'rq' WHERE instance_uuid = :u", u=gpu)
        node.hold(VFS[6], gpu)
        trunk = node.openstack.create_port(node.network, node.host, VFS[7], "")
        node.openstack.update_port(trunk, device_owner="trunk:subport")
        kept(exporter, node, {}, reads=14)


def test_a_service_that_is_lost_makes_its_checks_unknown_and_others_go_on(node: Node) -> None:
    node.attach(VFS[0], "leaky", port=False, guest=False)
    node.attach(VFS[1], "stray", claim=False, port=False)
    expected = {"vf_leaked": {VFS[0]}, "vf_unrecorded": {VFS[1]}}
    with node.exporter() as exporter:
        wait_until(lambda: exporter.found() == expected, SOON, "found")
        node.openstack.neutron.stop()
        needs_neutron = {"vf_leaked", "vf_portless", "vf_orphan_port", "vf_double_booked"}
        unknown = {check: {"neutron"} for check in needs_neutron}
        wait_until(lambda: exporter.unknown() == unknown, SOON, "without Neutron they can't tell")
        assert exporter.found() == {"vf_unrecorded": {VFS[1]}}
        assert not any('ledger="neutron"' in labels for labels in exporter.series("mec_vf_ledger"))
        assert not any('kind="leaked"' in labels for labels in exporter.series("mec_vf_drift"))
        node.openstack.neutron.start()
        node.rows.report(node.host)
        wait_until(lambda: exporter.found() == expected, SOON, "it is back")

        node.openstack.mariadb.stop()
        wait_until(lambda: exporter.unknown().get("vf_unrecorded") == {"nova@cell1"}, SOON, "Nova's ledger is lost")
        assert exporter.found() == {}
        # Nowhere is the password of the cell's URL to be seen.
        said = [get(f"{exporter.url}{page}") for page in ("/metrics", "/", "/api/v1/findings", "/api/v1/sources")]
        for text in (*said, exporter.log.read_text()):
            assert text is not None
            assert "r3ader" not in text
        node.openstack.mariadb.start()
        node.rows.report(node.host)
        wait_until(lambda: exporter.found() == expected, 90, "it is back")


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_who_sees_only_its_own_projects_ports_is_not_told_of_leaks() -> None:
    hosts = [f"compute-{n}" for n in range(1, 33)]
    with OpenStack(hosts, release=newest(), token_seconds=3600) as openstack, short_dir() as directory:
        assert openstack.keystone is not None
        openstack.keystone.add_user("watcher", "reader", "member")
        openstack.keystone.add_user("keeper", "admin")
        rows, network = Rows(openstack.database("nova_cell1")), openstack.create_network()
        node = Node(openstack, rows, network, directory)
        node.attach(VFS[0], "well")
        node.attach(VFS[1], "leaky", port=False, guest=False)
        needs_neutron = ("vf_leaked", "vf_portless", "vf_orphan_port", "vf_double_booked")
        # Placement refuses such an account in words of its own.
        unknown = {check: {"neutron"} for check in needs_neutron} | {"vf_inventory_mismatch": {"placement"}}
        openstack.account = "watcher"
        with node.exporter() as exporter:
            wait_until(lambda: exporter.unknown() == unknown, SOON, "it is not known who has ports")
            assert exporter.found() == {}
            sources = json.loads(get(f"{exporter.url}/api/v1/sources") or "")["sources"]
            (neutron,) = (s for s in sources if s["source"] == "neutron")
            assert neutron["reason"] == "permission"
            assert "must be allowed to list the ports of all projects" in neutron["why"]
        openstack.account = "keeper"
        with node.exporter() as exporter:
            wait_until(lambda: exporter.found() == {"vf_leaked": {VFS[1]}}, SOON, "an administrator sees the leak")
            assert exporter.unknown() == {}


def test_where_nova_compute_does_not_report_into_the_database_it_cannot_tell(node: Node) -> None:
    """As with servicegroup_driver=mc: Nova's rows are there, and none is ever seen."""
    node.attach(VFS[0], "leaky", port=False, guest=False)
    node.rows.run("UPDATE services SET last_seen_up = NULL, created_at = '2026-01-01 00:00:00'")

    def unjudged(exporter: VfExporter) -> dict[str, float]:
        return {reason: n for reason, n in exporter.series("mec_vf_hosts_unjudged").items() if n}

    with node.exporter(nova={"service_down_time": "10s"}) as exporter:
        wait_until(lambda: exporter.unknown().get("vf_leaked") == {"nova@cell1"}, SOON, "it cannot tell")
        assert unjudged(exporter) == {'{reason="not_reporting"}': 1}
        page = get(f"{exporter.url}/api/v1/sources")
        assert page is not None
        assert "servicegroup_driver" in page
        assert exporter.series("mec_vf_drift") == {}
        node.rows.report(node.host)
        wait_until(lambda: not exporter.unknown(), SOON, "it reports")
        assert unjudged(exporter) == {}
        # Another one reports, and this one has ceased to for the ten seconds that were configured: it is down.
        node.rows.run("UPDATE services SET last_seen_up = '2037-01-01 00:00:00' WHERE host = :host", host=node.host)
        node.rows.host(node.number + 1000, f"{node.host}-b")
        wait_until(lambda: unjudged(exporter) == {'{reason="down"}': 1}, SOON, "by Nova's own rule it is down")
        assert exporter.unknown() == {}


def test_all_hosts_from_a_node_without_a_nic(node: Node, openstack: OpenStack, rows: Rows, network: str) -> None:
    with short_dir() as directory:
        other = Node(openstack, rows, network, directory)
        other.attach(VFS[0], "away", port=False, guest=False)
        node.attach(VFS[1], "here", port=False)
        away = f"{other.host}/{VFS[0]}"
        sections = {"openstack": {"cloud": "lab", "scope": "all"}, "nova": {"cells": {
            "cell1": openstack.nova_reader, "cell2": openstack.nova_sqlite}}}  # fmt: skip
        with VfExporter(openstack, directory / "api", roles=("api",), **sections) as exporter:
            wait_until(lambda: away in {f["subject"] for f in exporter.report()["findings"]}, SOON, "found from afar")
            report = exporter.report()
            subjects = {f["subject"] for f in report["findings"] if f["check"] == "vf_leaked"}
            assert {away, f"{node.host}/{VFS[1]}"} <= subjects, "whether a guest holds it is the node's to say"
            assert exporter.value("mecexporter_source_up", source="nova@cell2") == 1, "a cell in a file"

            def enabled(node: Node) -> float | None:
                return exporter.value("mec_nova_compute_service_enabled", hostname=node.host)

            assert (enabled(node), enabled(other)) == (1, 1)
            rows.run("UPDATE services SET disabled = 1 WHERE host = :host", host=other.host)
            wait_until(lambda: enabled(other) == 0, SOON, "an operator has disabled it")
            assert enabled(node) == 1
