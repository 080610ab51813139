"""The work of OVN's daemons: what each release says of it (record.py), and real ones that compute everything anew."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.northd import NorthdSource
from mecexporter.sources.ovn_controller import OvnControllerSource
from mecexporter.sources.ovn_daemon import CONTROLLER_WORK, told, work
from mecexporter.sources.wire.process import Process
from mecexporter.state.ovn_daemon import LflowCache, Run, Stopwatch, Work
from mecexporter.state.world import Settings, empty_world
from tests.sources.daemons import ovn_node, run, short_dir
from tests.sources.record import FIXTURES, read
from tests.waiting import answers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.sources.daemons import Daemon, OvnNode

WORLD = empty_world(0, "compute-1", Settings())
PATIENCE = 20
RELEASES = ("23.03.1", "25.03.0", "26.03.1")
release = pytest.mark.parametrize("release", RELEASES)
# What an ovn-controller of OVN 21.03 calls it: a text of OVS' lib/stopwatch.c.
OLD_STOPWATCH = """Statistics for 'ovn-controller-flow-generation'
  Total samples: 1200
  Maximum: 2150 msec
  Minimum: 0 msec
  95th percentile: 801.500000 msec
  Short term average: 3.250000 msec
  Long term average: 40.125000 msec
"""


def recorded(release: str, state: str) -> Work:
    return work(read(FIXTURES / f"ovn-{release}" / f"{state}.txt"), None)


class TestRecorded:
    @release
    def test_a_controller(self, release: str) -> None:
        found = recorded(release, "controller")
        lflows = "lflow_output" if release == "26.03.1" else "logical_flow_output"
        assert found.full_recomputes == found.engine[lflows][Run.RECOMPUTE] > 0
        assert found.engine[lflows][Run.COMPUTE] > 0
        assert {"runtime_data", "ct_zones"} < set(found.engine)
        assert not [node for node in found.engine if node.startswith(("SB_", "OVS_"))]
        assert set(found.stopwatches) == {"flow-generation", "flow-installation"}
        assert all(0 <= w.average <= w.longest < 1 and w.samples > 0 for w in found.stopwatches.values())
        assert (found.long_polls is None) == (release == "23.03.1")
        assert set(found.idl_cells) == {"OVN_Southbound", "Open_vSwitch"}
        cache = found.lflow_cache
        assert cache is not None
        assert (cache.enabled, cache.trims) == (True, 0)
        assert cache.entries > 10
        assert set(found.lflow_cache_lookups) == {"hit", "miss"}

    @release
    def test_a_controller_without_a_bridge_has_no_cache(self, release: str) -> None:
        found = recorded(release, "controller-without-a-bridge")
        assert (found.lflow_cache, found.full_recomputes) == (None, 0)
        assert found.stopwatches["flow-installation"].samples == 0

    @release
    def test_a_northd(self, release: str) -> None:
        found = recorded(release, "northd")
        assert found.full_recomputes == found.engine["lflow"][Run.RECOMPUTE] > 0
        assert "northd" in found.engine
        assert not [node for node in found.engine if node.startswith(("SB_", "NB_"))]
        assert set(found.stopwatches) == {"ovn-northd-loop"}
        assert set(found.idl_cells) == {"OVN_Northbound", "OVN_Southbound"}
        assert (found.lflow_cache, found.lflow_cache_lookups) == (None, {})


def test_the_older_name_of_a_stopwatch() -> None:
    found = work({"stopwatch/show ovn-controller-flow-generation": OLD_STOPWATCH}, None)
    assert found.stopwatches == {"flow-generation": Stopwatch(samples=1200, average=0.040125, p95=0.8015, longest=2.15)}


def test_aborts_are_cancels() -> None:
    found = work({"inc-engine/show-stats": "Node: ct_zones\n- recompute:   1\n- compute:   2\n- abort:    3\n"}, None)
    assert found.engine == {"ct_zones": {Run.RECOMPUTE: 1, Run.COMPUTE: 2, Run.CANCEL: 3}}


@pytest.mark.parametrize(
    "text", ["Enabled: true", "Enabled: perhaps\ntotal : 1", "total : 1", "", "Invalid arguments."]
)
def test_a_cache_that_cannot_be_told(text: str) -> None:
    assert work({"lflow-cache/show-stats": text}, None).lflow_cache is None


def test_a_cache_that_tells_less() -> None:
    found = work({"lflow-cache/show-stats": "Enabled: false\ntotal : 0\n"}, None)
    assert found.lflow_cache == LflowCache(enabled=False, entries=0, size_bytes=None, trims=None)


@pytest.mark.parametrize("command", CONTROLLER_WORK)
@pytest.mark.parametrize("text", ["", "Node: x", "many", "Statistics for 'flow-generation'\n  Total samples: 3\n"])
def test_a_text_of_another_form_tells_nothing(command: str, text: str) -> None:
    assert work({command: text}, None) == Work()


def test_the_process() -> None:
    found = work({}, Process(start="b/1/2", age=3.0, cpu_seconds=1.5, resident_bytes=4096))
    assert found == Work(cpu_seconds=1.5, resident_bytes=4096)


def test_what_must_be_told() -> None:
    error = SourceError(Reason.ANSWERED_ERROR, "no such command")
    assert told({"status": "x"}, "status") == "x"
    with pytest.raises(SourceError) as caught:
        told({"status": error}, "status")
    assert caught.value is error


@pytest.fixture
def node() -> Iterator[OvnNode]:
    with short_dir() as directory, ovn_node(directory) as node:
        node.bind("p1")
        yield node


async def test_real_ones(node: OvnNode) -> None:
    """Each is told to compute everything anew, which is what a storm of recomputes is; a port that comes is no such."""
    controller = OvnControllerSource(node.run_dir, None, 15)
    northd = NorthdSource(node.northd.run_dir, None, 15)
    try:
        before = (await controller.read(WORLD)).work
        node.nb.nbctl("ls-add", "s2", "--", "lsp-add", "s2", "p2")
        node.nb.nbctl("--wait=hv", "sync")
        after = (await controller.read(WORLD)).work
        assert of_ports(before) < of_ports(after)
        assert after.full_recomputes == before.full_recomputes

        for _ in range(20):
            recompute(node.controller)
        again = (
            await answers(
                lambda: controller.read(WORLD), lambda c: rose(c.work, after, 10), PATIENCE, "it computes all anew"
            )
        ).work
        assert samples(again) > samples(after)
        process(again, node.controller)

        first = (await northd.read(WORLD)).work
        for _ in range(20):
            recompute(node.northd)
        last = (await answers(lambda: northd.read(WORLD), lambda n: rose(n.work, first, 10), PATIENCE, "so")).work
        assert samples(last) > samples(first)
        process(last, node.northd)
    finally:
        await controller.close()
        await northd.close()


async def test_a_process_that_is_not_shown(node: OvnNode, tmp_path: Path) -> None:
    for source in (
        OvnControllerSource(node.run_dir, None, 15, proc=tmp_path),
        NorthdSource(node.northd.run_dir, None, 15, proc=tmp_path),
    ):
        found = (await source.read(WORLD)).work
        await source.close()
        assert (found.cpu_seconds, found.resident_bytes, bool(found.stopwatches)) == (None, None, True)


def of_ports(of: Work) -> int:
    return of.engine["lflow_output" if "lflow_output" in of.engine else "logical_flow_output"][Run.COMPUTE]


def recompute(daemon: Daemon) -> None:
    run("ovs-appctl", f"--target={daemon.control}", "inc-engine/recompute")


def rose(now: Work, before: Work, by: int) -> bool:
    assert now.full_recomputes is not None
    assert before.full_recomputes is not None
    return now.full_recomputes >= before.full_recomputes + by


def samples(of: Work) -> int:
    return sum(watch.samples for watch in of.stopwatches.values())


def process(of: Work, daemon: Daemon) -> None:
    """It is as the kernel says."""
    assert of.resident_bytes is not None
    held = int(Path(f"/proc/{daemon.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert 0.5 * held < of.resident_bytes < 2 * held
    assert of.cpu_seconds is not None
    assert 0 < of.cpu_seconds < 60
