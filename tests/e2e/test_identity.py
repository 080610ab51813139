"""Nodes that are well though they look odd, and what the exporter remembers of a node."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.e2e.story import QUICK, Watched
from tests.lab import incidents
from tests.lab.site import Site, release
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

WATCH = 15
"""Seconds after which what a check holds for a while would have been found (but for an orphan: 60)."""


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as running:
        yield running


def await_well(exporter: Watched) -> None:
    wait_until(exporter.well, QUICK.clear, f"{exporter.name} finds all well")


def rounds(exporter: Watched) -> float:
    """When ovs last answered: it grows with each round."""
    line = next(
        x for x in exporter.metrics().splitlines() if x.startswith("mecexporter_source_last_success") and '"ovs"' in x
    )
    return float(line.rpartition(" ")[2])


def watch(exporter: Watched, seconds: float) -> None:
    """Until the exporter has gone on reading for so long."""
    began = rounds(exporter)
    wait_until(lambda: rounds(exporter) - began >= seconds, 3 * seconds, f"{exporter.name} reads for {seconds} s")


def test_a_compute_node_without_vms_is_well_and_remembered() -> None:
    with Site(vms=False) as site, Watched(site.nodes["c1"], QUICK) as exporter:
        await_well(exporter)
        watch(exporter, WATCH)
        assert exporter.well()
        assert exporter.opened(0) == set()
        assert exporter.remembered_id() == site.nodes["c1"].system_id
        assert exporter.check().returncode == 0


def test_an_exporter_that_slept_through_the_incident_knows_the_old_id(site: Site) -> None:
    """The installer often takes the exporter down too; and no ovn-chassis-idx-* key is left to go by."""
    node = site.nodes["c1"]
    exporter = Watched(node, QUICK)
    with exporter:
        wait_until(lambda: exporter.remembered_id() == node.system_id, QUICK.clear, "the id is remembered")
        old = node.system_id
    incidents.begin(site, "C2")
    with exporter:
        wait_until(lambda: "system_id_changed" in exporter.found(), QUICK.found, "it is found")
        [finding] = [f for f in exporter.findings()["findings"] if f["check"] == "system_id_changed"]
        assert old in finding["remedy"]
        assert node.system_id in finding["summary"]
        assert exporter.remembered_id() == old
        told = exporter.check("--only", "system_id_changed")
        assert told.returncode == 2
        assert f"put the old id back: echo {old} > {node.system_id_file}" in told.stdout


def test_a_reader_without_a_service_tells_the_incident(site: Site) -> None:
    """`check` with no service on the host: it reads for itself, and writes nothing."""
    node = site.nodes["c1"]
    exporter = Watched(node, QUICK)
    with exporter:
        wait_until(lambda: exporter.remembered_id() == node.system_id, QUICK.clear, "the id is remembered")
    state = node.dir / "state" / "state.json"
    before = state.read_bytes()
    incidents.begin(site, "A")
    told = exporter.check("--json")
    found = {f["check"] for f in json.loads(told.stdout)["findings"]}
    assert told.returncode == 2
    assert found >= {"system_id_changed", "chassis_unregistered"}
    # 26.03 looks whether another chassis has its address before it writes: it aborts; started again nothing fails.
    assert ("ovn_controller_failing" in found) == (release("ovn-controller") < (26, 3))
    assert state.read_bytes() == before


def test_the_id_of_another_host_is_not_adopted(site: Site) -> None:
    """Both ovn-controllers write the one Chassis by turns, and nothing fails."""
    node, other = site.nodes["c1"], site.nodes["c2"]
    with Watched(node, replace(QUICK, grace={"bridge": "5s", "identity": "20s"})) as exporter:
        wait_until(lambda: exporter.remembered_id() == node.system_id, QUICK.clear, "the id is remembered")
        await_well(exporter)
        old = node.system_id
        node.vsctl("set", "Open_vSwitch", ".", f"external_ids:system-id={other.system_id}")
        site.sbctl("chassis-del", old)
        wait_until(lambda: "system_id_changed" in exporter.found(), QUICK.found, "the change is found")
        watch(exporter, 30)
        assert "system_id_changed" in exporter.found()
        assert exporter.remembered_id() == old
        # By chance: two look-ups in a row must meet the other's turn.
        wait_until(lambda: "chassis_unregistered" in exporter.opened(0), 90, "the Chassis is once seen to be another's")


def test_a_lost_encapsulation_is_put_back_by_the_remedy(site: Site) -> None:
    """The node looks healthy without it until the bridge is made anew."""
    node = site.nodes["c1"]
    with Watched(node, replace(QUICK, grace={"bridge": "5s", "identity": "2s"})) as exporter:
        wait_until(lambda: exporter.remembered_id() == node.system_id, QUICK.clear, "the id is remembered")
        await_well(exporter)
        node.vsctl("remove", "Open_vSwitch", ".", "external_ids", "ovn-encap-ip")
        watch(exporter, 5)
        assert exporter.well()
        node.kill("ovs-vswitchd")
        node.start("ovs-vswitchd")
        wait_until(lambda: exporter.found() == {"integration_bridge_empty"}, QUICK.found, "it is found")
        [finding] = exporter.findings()["findings"]
        command, _, rest = finding["remedy"].removeprefix("ovn-encap-ip is gone: ").partition("; ")
        assert command.startswith("ovs-vsctl set Open_vSwitch . ")
        assert command.endswith(f" external_ids:ovn-encap-ip={node.encap_ip}")
        assert rest == "then restart ovn-controller"
        node.vsctl(*command.split()[1:])
        node.stop("ovn-controller", "--restart")
        node.start("ovn-controller")
        await_well(exporter)
        wait_until(lambda: site.ping("vm1", "vm2"), QUICK.clear, "vm1 reaches vm2")


def test_a_forgotten_identity_is_learnt_anew_once_the_node_is_well(site: Site) -> None:
    """Amid C2 there is no ovn-chassis-idx-* key to go by: until the node has been well, nobody knows its id."""
    node = site.nodes["c1"]
    with Watched(node, replace(QUICK, grace={"bridge": "5s", "identity": "3s"})) as exporter:
        wait_until(lambda: exporter.remembered_id() == node.system_id, QUICK.clear, "the id is remembered")
        old = node.system_id
        incidents.begin(site, "C2")
        wait_until(lambda: "system_id_changed" in exporter.found(), QUICK.found, "the change is found")
        said = exporter.tell("forget", "identity")
        assert said.returncode == 0, said.stderr
        wait_until(lambda: "system_id_changed" in exporter.unknown(), QUICK.found, "it cannot tell")
        assert exporter.remembered_id() is None
        incidents.end(site, "C2")
        wait_until(lambda: exporter.well() and exporter.remembered_id() == old, QUICK.adopt, "the old id is learnt")
