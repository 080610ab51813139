"""Whether a change arrives, chassis and gateways, on a real site: what is told of each trouble, and nothing of none.

Neutron-like bumps go on all the while, one a second, unless a test is about a quiet cloud.
"""

from __future__ import annotations

import os
import shlex
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from mecexporter.checks.words import delete_chassis
from tests.lab.monitoring import SiteExporter
from tests.lab.site import Node, Site, gone, run
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

QUICK: dict[str, dict[str, object]] = {
    "intervals": {"live": "1s"},
    "grace": {"propagation": "6s", "chassis_stale": "20s"},
}
FOUND = CLEAR = 60  # seconds, on a machine with other work to do
STALLED, STALE = "ovn_propagation_stalled", "ovn_chassis_stale"
DUPLICATE, UNCLAIMED = "ovn_chassis_duplicate", "ovn_gateway_unclaimed"
OURS = {STALLED, STALE, DUPLICATE, UNCLAIMED}
PORT = "cr-lrp-ext"
OTHER_END = "cr-ext-r0"
"""The same gateway at the switch's end, which has a port of its own in newer releases (seen with 26.03)."""


def add_router(site: Site) -> None:
    """A router between net0 and an outer network, its gateway preferably on c1."""
    ports = {
        "lrp0": ("net0", "02:00:00:00:00:01", "10.0.0.254/24"),
        "lrp-ext": ("ext", "02:00:00:00:00:02", "172.16.0.1/24"),
    }
    commands = ["lr-add", "r0", "--", "ls-add", "ext"]
    for port, (switch, mac, network) in ports.items():
        peer = f"{switch}-r0"
        commands += ["--", "lrp-add", "r0", port, mac, network, "--", "lsp-add", switch, peer]
        commands += ["--", "lsp-set-type", peer, "router", "--", "lsp-set-addresses", peer, "router"]
        commands += ["--", "lsp-set-options", peer, f"router-port={port}"]
    site.nbctl(*commands)
    for node, priority in zip(site.nodes.values(), ("20", "10"), strict=True):
        site.nbctl("lrp-set-gateway-chassis", "lrp-ext", node.system_id, priority)


@contextmanager
def bumps(site: Site, every: float = 1.0) -> Iterator[None]:
    """As Neutron does all the time."""
    over = threading.Event()

    def bump() -> None:
        while not over.wait(every):
            site.bump_nb_cfg()

    thread = threading.Thread(target=bump, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Watched:
    """A site and the exporter on its databases' host; what its checks of ours have ever found is kept."""

    def __init__(self, site: Site, exporter: SiteExporter) -> None:
        self.site, self.exporter = site, exporter
        self.ever: set[tuple[str, str]] = set()

    def found(self) -> set[tuple[str, str]]:
        """Check and subject."""
        findings = self.exporter.findings()["findings"]
        found = {(f["check"], f["subject"]) for f in findings if f["check"] in OURS and f["subject"] != OTHER_END}
        self.ever |= found
        return found

    def unknown(self) -> set[str]:
        return {u["check"] for u in self.exporter.findings()["unknown"]} & OURS

    def told(self, *wanted: tuple[str, str]) -> None:
        """Exactly these come to be found, and stay so for a while."""
        wait_until(lambda: self.found() == set(wanted), FOUND, f"{wanted} is found")
        self.all_along(5, lambda: self.found() == set(wanted))

    def well(self) -> None:
        wait_until(lambda: not self.found() and not self.unknown(), CLEAR, "all is well")

    def all_along(self, seconds: float, condition: Callable[[], bool]) -> None:
        """It holds at each look for so long."""
        until = time.monotonic() + seconds

        def over() -> bool:
            assert condition(), self.exporter.findings()
            return time.monotonic() > until

        wait_until(over, seconds + 30, "the time is up")

    def metric(self, start: str) -> float | None:
        lines = (line for line in self.exporter.metrics().splitlines() if line.startswith(start))
        return next((float(line.rpartition(" ")[2]) for line in lines), None)

    def gateways(self, state: str) -> float | None:
        return self.metric(f'mec_ovn_gateway_ports{{state="{state}"}}')

    def reporting(self) -> int:
        """Chassis that make reports."""
        return self.exporter.metrics().count("\nmec_ovn_chassis_nb_cfg{")

    def c2(self) -> tuple[Node, str]:
        node = self.site.nodes["c2"]
        return node, node.system_id


@pytest.fixture(scope="module")
def lab() -> Iterator[Site]:
    with Site(vms=False) as site:
        add_router(site)
        of = ("--bare", "--columns=chassis", "find", "Port_Binding", f"logical_port={PORT}")
        wait_until(lambda: bool(site.sbctl(*of).strip()), FOUND, "a new gateway is claimed for the first time")
        yield site


@pytest.fixture
def watched(lab: Site) -> Iterator[Watched]:
    """All is well before, and has to be after the repair."""
    with bumps(lab), SiteExporter(lab, **QUICK) as exporter:
        it = Watched(lab, exporter)
        it.well()
        wait_until(lambda: it.gateways("claimed") and not it.gateways("not_preferred"), FOUND, "c1 has the gateway")
        assert it.ever == set()
        yield it
        it.well()


def pause(node: Node) -> None:
    node.appctl("ovn-controller", "debug/pause")


def resume(node: Node) -> None:
    node.appctl("ovn-controller", "debug/resume")


def test_a_healthy_site_under_bumps_is_silent(watched: Watched) -> None:
    watched.all_along(12, lambda: not watched.found() and not watched.unknown())
    nb_cfg, behind = watched.metric("mec_ovn_nb_cfg "), watched.metric("mec_ovn_chassis_behind_seconds")
    assert nb_cfg is not None
    assert nb_cfg > 5
    assert behind is not None
    assert behind < 6


@pytest.mark.parametrize(
    ("stop", "go"),
    [
        pytest.param(lambda n: n.sigstop("ovn-controller"), lambda n: n.sigcont("ovn-controller"), id="SIGSTOP"),
        pytest.param(pause, resume, id="paused", marks=pytest.mark.long),
    ],
)
def test_a_chassis_that_stops_is_stalled_then_stale(
    watched: Watched, stop: Callable[[Node], None], go: Callable[[Node], None]
) -> None:
    node, name = watched.c2()
    stop(node)
    try:
        watched.told((STALLED, name))
        watched.told((STALE, name))
        assert watched.ever == {(STALLED, name), (STALE, name)}
        assert watched.metric('mec_ovn_chassis_state{state="stale"}') == 1
    finally:
        go(node)


@pytest.mark.long
def test_a_host_that_is_powered_off_for_ever() -> None:
    """It is stale, hides nobody else's trouble, and is no more than that; the remedy ends it."""
    with Site(vms=False) as site, bumps(site), SiteExporter(site, **QUICK) as exporter:
        it = Watched(site, exporter)
        it.well()
        (node, name), other = it.c2(), site.nodes["c1"]
        rival = (STALLED, other.system_id)
        for daemon in ("ovn-controller", "ovs-vswitchd", "ovsdb-server"):
            node.kill(daemon)
        it.told((STALE, name))
        other.sigstop("ovn-controller")
        it.told((STALE, name), rival)
        other.sigcont("ovn-controller")
        wait_until(lambda: it.found() == {(STALE, name)}, CLEAR, "it alone is left")
        it.all_along(30, lambda: it.found() == {(STALE, name)})
        [remedy] = [f["remedy"] for f in exporter.findings()["findings"] if f["check"] == STALE]
        site.sbctl(*shlex.split(remedy.rpartition("gone for good: ")[2])[1:])
        it.well()
        assert it.ever == {(STALLED, name), (STALE, name), rival}


@pytest.mark.long
def test_what_is_stale_outlives_a_restart_of_the_exporter(watched: Watched) -> None:
    node, name = watched.c2()
    node.kill("ovn-controller")
    try:
        watched.told((STALE, name))
        [before] = [f["first_seen"] for f in watched.exporter.findings()["findings"] if f["check"] == STALE]
        watched.exporter.stop()
        watched.ever.clear()
        watched.exporter.start()
        watched.told((STALE, name))
        [after] = [f["first_seen"] for f in watched.exporter.findings()["findings"] if f["check"] == STALE]
        assert abs(after - before) < 0.01, "kept to the millisecond"
        watched.all_along(10, lambda: watched.found() == {(STALE, name)})
        assert watched.ever == {(STALE, name)}, "it is not taken for stalled meanwhile"
    finally:
        node.start("ovn-controller")


def test_in_a_quiet_cloud_one_that_is_behind_at_our_start_is_told_after_the_grace(lab: Site) -> None:
    node = lab.nodes["c2"]
    name = node.system_id
    node.sigstop("ovn-controller")
    try:
        lab.bump_nb_cfg()
        with SiteExporter(lab, **QUICK) as exporter:
            it = Watched(lab, exporter)
            assert it.unknown() == {STALLED}, "it is not known since when"
            it.told((STALLED, name))
    finally:
        node.sigcont("ovn-controller")


@pytest.mark.parametrize("how", ["pause", pytest.param("kill", marks=pytest.mark.long)])
def test_northd_that_does_nothing_is_told_of_southbound_alone(watched: Watched, how: str) -> None:
    site = watched.site
    control = ("ovs-appctl", "--timeout=5", f"--target={site.dir}/ovn-northd.ctl")
    if how == "pause":
        run(*control, "pause", env=site.env)
    else:
        pid = int((site.dir / "ovn-northd.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: gone(pid), FOUND, "northd dies")
    try:
        watched.told((STALLED, "OVN_Southbound"))
        watched.all_along(15, lambda: watched.found() == {(STALLED, "OVN_Southbound")})
        assert watched.exporter.found() == {STALLED, "ovn_northd_inactive"}
        assert watched.ever == {(STALLED, "OVN_Southbound")}
    finally:
        if how == "pause":
            run(*control, "resume", env=site.env)
        else:
            site.start_northd()


def test_a_chassis_that_is_deleted_and_comes_back_is_none_that_stalls(watched: Watched) -> None:
    node, name = watched.c2()
    node.stop("ovn-controller")
    try:
        wait_until(lambda: name not in watched.exporter.metrics(), FOUND, "its series are gone")
        watched.all_along(8, lambda: not watched.found())
    finally:
        node.start("ovn-controller")
    wait_until(lambda: name in watched.exporter.metrics(), FOUND, "it is back")
    watched.all_along(8, lambda: not watched.found())


def test_a_hostname_that_turns_fqdn_is_no_second_host(watched: Watched) -> None:
    node, name = watched.c2()
    for hostname in ("c2", "c2.lab.example", node.hostname):
        node.vsctl("set", "Open_vSwitch", ".", f"external_ids:hostname={hostname}")
        line = f'mec_ovn_chassis_nb_cfg{{chassis="{name}",hostname="{hostname}"}}'
        wait_until(lambda: line in watched.exporter.metrics(), FOUND, hostname)  # noqa: B023  # called here
        watched.all_along(4, lambda: not watched.found())


@pytest.mark.long
def test_a_rolling_restart_is_no_trouble(watched: Watched) -> None:
    """With the Chassis kept, as the unit does it, and without."""
    for options in (("--restart",), (), ("--restart",)):
        for node in watched.site.nodes.values():
            node.stop("ovn-controller", *options)
            node.start("ovn-controller")
            watched.all_along(3, lambda: not {check for check, _ in watched.found()} & {STALLED, STALE, DUPLICATE})
    # The gateway may be on nobody for as long as its chassis needs to come back.
    assert {check for check, _ in watched.ever} <= {UNCLAIMED}


@pytest.mark.long
def test_a_rolling_restart_of_ten_chassis_is_no_trouble() -> None:
    """An upgrade, host by host: every other one takes its Chassis away with it."""
    with Site(vms=False) as site:
        for index in range(3, 11):
            node = site.nodes[f"c{index}"] = Node(site, f"c{index}", index)
            node.create()
            node.ovs_ctl("start")
            node.configure_ovn()
            node.start("ovn-controller")
        with bumps(site), SiteExporter(site, **QUICK) as exporter:
            it = Watched(site, exporter)
            wait_until(lambda: it.reporting() == 10, FOUND, "all report")
            it.well()
            for number, node in enumerate(site.nodes.values()):
                node.stop("ovn-controller", *(["--restart"] if number % 2 else []))
                node.ovs_ctl("restart")
                node.start("ovn-controller")
                it.all_along(2, lambda: not it.found())
            wait_until(lambda: it.reporting() == 10, FOUND, "all report again")
            it.all_along(10, lambda: not it.found())
            assert it.ever == set()


def test_a_host_that_comes_under_another_id_and_address_has_two_chassis(watched: Watched) -> None:
    node, old = watched.c2()
    encap_ip = node.encap_ip
    node.kill("ovn-controller")
    node.vsctl("set", "Open_vSwitch", ".", "external_ids:system-id=another", "external_ids:ovn-encap-ip=172.31.0.22")
    node.start("ovn-controller")
    try:
        wait_until(lambda: (DUPLICATE, node.hostname) in watched.found(), FOUND, "it is found")
        wait_until(lambda: (STALLED, old) in watched.found(), FOUND, "the old one stalls")
        watched.site.sbctl(*shlex.split(delete_chassis(old))[1:])
        wait_until(lambda: not watched.found(), CLEAR, "it is deleted")
        # Of two chassis, the other took itself for cut off while it saw the old one gone, and gave the gateway up.
        assert watched.ever - {(UNCLAIMED, PORT)} == {(DUPLICATE, node.hostname), (STALLED, old)}
    finally:
        node.stop("ovn-controller")
        node.vsctl("set", "Open_vSwitch", ".", f"external_ids:system-id={old}", f"external_ids:ovn-encap-ip={encap_ip}")
        node.start("ovn-controller")


def test_a_gateway_on_another_chassis_and_on_none(watched: Watched) -> None:
    site = watched.site
    first = site.nodes["c1"]
    first.stop("ovn-controller")
    try:
        wait_until(lambda: watched.gateways("not_preferred"), FOUND, "c2 has it")
        watched.well()
        node = site.nodes["c2"]
        node.stop("ovn-controller")
        try:
            watched.told((UNCLAIMED, PORT))
        finally:
            node.start("ovn-controller")
        wait_until(lambda: not watched.found(), CLEAR, "c2 has it again")
    finally:
        first.start("ovn-controller")
    assert {check for check, _ in watched.ever} == {UNCLAIMED}


def test_a_claim_storm(watched: Watched) -> None:
    """Somebody else claims it again and again, and c1's ovn-controller takes it back."""
    site = watched.site
    other = site.sbctl("--bare", "--columns=_uuid", "find", "Chassis", f"name={site.nodes['c2'].system_id}")
    binding = site.sbctl("--bare", "--columns=_uuid", "find", "Port_Binding", f"logical_port={PORT}")
    over = threading.Event()

    def claim() -> None:
        while not over.wait(0.2):
            site.sbctl("set", "Port_Binding", binding, f"chassis={other}")

    rival = threading.Thread(target=claim, daemon=True)
    rival.start()
    try:
        wait_until(lambda: (UNCLAIMED, PORT) in watched.found(), FOUND, "the storm is found")
        [summary] = [f["summary"] for f in watched.exporter.findings()["findings"] if f["subject"] == PORT]
        assert "from each other" in summary
    finally:
        over.set()
        rival.join()
    watched.well()
    assert watched.ever == {(UNCLAIMED, PORT)}


def test_without_southbound_nothing_can_be_told(watched: Watched) -> None:
    watched.site.kill_database("sb")
    try:
        wait_until(lambda: watched.unknown() == OURS, FOUND, "it cannot tell")
        assert "mec_ovn_chassis" not in watched.exporter.metrics()
        assert "mec_ovn_gateway_ports" not in watched.exporter.metrics()
    finally:
        watched.site.start_database("sb")
    assert watched.ever == set()


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_at_default_intervals() -> None:
    """Silent for two minutes; stalled within a minute and the grace, stale after ten; and all over within a minute."""
    with Site(vms=False) as site, bumps(site), SiteExporter(site) as exporter:
        it = Watched(site, exporter)
        it.well()
        it.all_along(120, lambda: not it.found() and not it.unknown())
        node, name = it.c2()
        began = time.monotonic()
        node.sigstop("ovn-controller")
        wait_until(lambda: it.found() == {(STALLED, name)}, 120, "it is stalled")
        assert time.monotonic() - began > 60
        wait_until(lambda: it.found() == {(STALE, name)}, 660, "it is stale")
        assert time.monotonic() - began > 600 - 15
        node.sigcont("ovn-controller")
        wait_until(lambda: not it.found(), 60, "it is over")
        assert it.ever == {(STALLED, name), (STALE, name)}
