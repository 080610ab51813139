"""A site that is well, but never still: nothing is found but what restarts honestly are, no longer than they last."""

from __future__ import annotations

import random
import time
from threading import Event, Thread
from typing import TYPE_CHECKING

import pytest

from tests.e2e.story import DEFAULT, QUICK, Pace, Watched
from tests.lab.site import Site, run
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.root

LOOK = 0.25  # seconds


class Diary:
    """Looks at exporters all the time: (when, node, check) of each finding, and of each check that could not tell."""

    def __init__(self, *exporters: Watched) -> None:
        self.found: list[tuple[float, str, str]] = []
        self.unknown: list[tuple[float, str, str]] = []
        self._exporters = exporters
        self._end = Event()
        self._thread = Thread(target=self._run, name="diary")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(LOOK):
            for exporter in self._exporters:
                document, now = exporter.findings(), time.monotonic()
                self.found += [(now, exporter.node.name, item["check"]) for item in document["findings"]]
                self.unknown += [(now, exporter.node.name, item["check"]) for item in document["unknown"]]


class Churn:
    """VMs that come, go and move; the seed makes a run repeatable."""

    def __init__(self, site: Site, seed: int) -> None:
        self._site = site
        self._chance = random.Random(seed)  # noqa: S311  # not for secrets
        self._number = 10
        self.steps = 0

    def step(self) -> None:
        site, chance = self._site, self._chance
        visitors = [name for name in site.vms if name not in ("vm1", "vm2")]
        self.steps += 1
        if len(visitors) < 2 or (len(visitors) < 6 and chance.random() < 0.4):
            self._number += 1
            node = chance.choice(list(site.nodes.values()))
            name = f"vm{self._number}"
            node.add_vm(name, f"10.0.{self._number // 200}.{self._number % 200 + 3}")
            self._await_installed(name)
            return
        name = chance.choice(visitors)
        node = site.nodes[site.vms[name].node]
        if chance.random() < 0.6:
            node.move_vm(name, next(other for other in site.nodes.values() if other is not node))
            self._await_installed(name)
        elif chance.random() < 0.5:
            # As Nova does it: the guest's device is gone a moment before its port.
            run("ip", "-n", node.netns, "link", "del", site.vms[name].tap)
            node.remove_vm(name)
        else:
            node.remove_vm(name)

    def _await_installed(self, name: str) -> None:
        vm = self._site.vms[name]
        node = self._site.nodes[vm.node]
        installed = ("get", "Interface", vm.tap, "external_ids:ovn-installed")
        wait_until(lambda: "true" in node.vsctl("--if-exists", *installed), 20, f"{name} is installed on {node.name}")


def timed(action: Callable[[], None]) -> tuple[float, float]:
    began = time.monotonic()
    action()
    return began, time.monotonic()


@pytest.mark.parametrize(
    ("pace", "seconds"),
    [
        pytest.param(QUICK, 60, id="quick"),
        pytest.param(DEFAULT, 300, id="default", marks=[pytest.mark.long, pytest.mark.timeout(900)]),
    ],
)
def test_churn(pace: Pace, seconds: float) -> None:
    interval = float(pace.intervals.get("live", "15s").removesuffix("s"))
    with Site() as site, Watched(site.nodes["c1"], pace) as first, Watched(site.nodes["c2"], pace) as second:
        wait_until(lambda: first.well() and second.well(), 90, "all is well")
        c1, c2 = site.nodes.values()
        marks = {exporter: exporter.log_size() for exporter in (first, second)}
        churn, diary = Churn(site, seed=1), Diary(first, second)
        began = time.monotonic()

        def until(share: float) -> None:
            while time.monotonic() - began < share * seconds:
                churn.step()
                if churn.steps % 5 == 0:
                    site.bump_nb_cfg()

        def restart_controller() -> None:
            c1.stop("ovn-controller", "--restart")
            c1.start("ovn-controller")

        with diary:
            until(1 / 3)
            controller = timed(restart_controller)
            until(2 / 3)
            ovs = timed(lambda: c2.ovs_ctl("restart"))
            until(1)
            wait_until(lambda: first.well() and second.well(), pace.clear, "all is well afterwards")
        assert churn.steps > seconds / 4, "that was hardly a churn"
        wait_until(lambda: site.ping("vm1", "vm2"), 20, "vm1 reaches vm2")

        # A restart is seen at the next read, and its end at the next but one at the latest.
        spells = {
            "c1": (controller[0], controller[1] + 2.5 * interval + 2),
            "c2": (ovs[0], ovs[1] + 2.5 * interval + 6),
        }
        honest = {"c1": {"ovn_controller_disconnected"}, "c2": set[str]()}
        for at, node, check in diary.found:
            assert check in honest[node]
            assert spells[node][0] <= at <= spells[node][1], f"{check} of {node}"
        for at, node, check in diary.unknown:
            assert spells[node][0] <= at <= spells[node][1], f"{check} of {node} cannot tell"
        for exporter, mark in marks.items():
            assert exporter.opened(mark) <= honest[exporter.node.name]
