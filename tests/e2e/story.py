"""What exporters say while a site suffers an incident and is repaired: told to the end first, judged by tests later.

An exporter's log has one line for each finding that opens, so nothing that was only there between two looks is missed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.lab import incidents
from tests.lab.monitoring import Exporter
from tests.lab.site import SETTLE_TIMEOUT, Site
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from tests.e2e.expected import Expected
    from tests.lab.site import Node

METADATA = "tap-meta"

_OPENED = re.compile(r'msg="finding opened" check=(\S+) .*subject=(\S+)')


@dataclass(frozen=True, kw_only=True, eq=False)
class Pace:
    """How fast exporters look, and how fast they must find (seconds).

    Attributes:
        intervals, grace: sections of the configuration; empty for the defaults.
        found: an incident's checks must be found within this.
        clear: everything must be well again within this after a repair.
        heal: the same where a daemon hung: the exporter asks it less and less often, up to ten intervals.
        adopt: a new id must be adopted within this.
        restart: whether an exporter that is restarted amid an incident must still know.
    """

    intervals: Mapping[str, str]
    grace: Mapping[str, str]
    found: float
    clear: float
    heal: float
    adopt: float
    restart: bool


# A restarted ovs-vswitchd has an empty bridge for 3.0 s, ovn-controller's back-off, and twice as long on a busy
# machine: grace.bridge must be longer.
QUICK = Pace(
    intervals={"live": "1s", "flows": "1s"},
    grace={"bridge": "10s", "identity": "10s"},
    found=25,
    clear=20,
    heal=30,
    adopt=40,
    restart=True,
)
DEFAULT = Pace(intervals={}, grace={}, found=60, clear=75, heal=200, adopt=240, restart=False)


class Watched(Exporter):
    """An exporter at a pace."""

    def __init__(self, node: Node, pace: Pace) -> None:
        super().__init__(node, intervals=pace.intervals, grace=pace.grace)

    def tell(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Any command of the program with this exporter's configuration."""
        return subprocess.run(
            [sys.executable, "-m", "mecexporter", *words, "--config", self.config],
            env=self.site.env, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def log_size(self) -> int:
        return self.log.stat().st_size

    def opened(self, since: int) -> set[str]:
        """The checks of which a finding was opened since the log had this size."""
        with self.log.open("rb") as log:
            log.seek(since)
            return {check for check, _ in _OPENED.findall(log.read().decode())}

    def subjects(self) -> set[str]:
        """Of all findings that were ever opened."""
        return {subject for _, subject in _OPENED.findall(self.log.read_text())}

    def unknown(self) -> set[str]:
        return {item["check"] for item in self.findings()["unknown"]}

    def well(self) -> bool:
        document = self.findings()
        return not document["findings"] and not document["unknown"]

    def first_seen(self) -> dict[str, float]:
        return {finding["check"]: finding["first_seen"] for finding in self.findings()["findings"]}

    def remembered_id(self) -> str | None:
        """The id in the exporter's memory, None if it has none."""
        found = re.search(r'^mec_system_id_info\{origin="memory",system_id="(.*)"\}', self.metrics(), re.MULTILINE)
        return found[1] if found else None


@dataclass(kw_only=True)
class Story:
    """What was seen of one incident.

    Attributes:
        found: check -> seconds from the incident to its finding; without those that were not found in time.
        opened: node -> every check that opened from the incident to its repair.
        mending: the same from the beginning of the repair until all was well.
        subjects: of every finding on c1 since its exporter began.
        unknown: the checks that could not tell, once they were as expected or the time was up.
        first_seen: before and after a restart of the exporter amid the incident, of the checks that must be found.
        stopped: seconds that the exporter needed to end.
        well: seconds from the repair until all exporters said that all is well; None if not in time.
        adopted: whether the new id became the remembered one, where it should.
    """

    found: dict[str, float] = field(default_factory=dict)
    opened: dict[str, set[str]] = field(default_factory=dict)
    mending: dict[str, set[str]] = field(default_factory=dict)
    subjects: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    first_seen: list[dict[str, float]] = field(default_factory=list)
    stopped: float | None = None
    well: float | None = None
    adopted: bool = False


def plug_metadata(node: Node) -> None:
    """What Neutron's metadata agent makes on every node: a tap with an iface-id and nothing else, of a localport.

    OVN never marks it as installed, which is also what an orphan looks like.
    """
    node.site.nbctl("lsp-add", "net0", "meta", "--", "lsp-set-type", "meta", "localport", "--",
                    "lsp-set-addresses", "meta", "02:00:00:00:04:01 10.0.0.253")  # fmt: skip
    node.execute("ip", "link", "add", METADATA, "up", "type", "veth", "peer", "name", "meta")
    node.vsctl("add-port", "br-int", METADATA, "--", "set", "Interface", METADATA, "external_ids:iface-id=meta")


class Lane:
    """A site with an exporter on each node, which suffers one incident after the other on c1.

    c1 has Neutron's metadata port too; it is never to be a subject.
    """

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.site = Site()
        self.exporters = {name: Watched(node, pace) for name, node in self.site.nodes.items()}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.site)
            plug_metadata(self.site.nodes["c1"])
            for exporter in self.exporters.values():
                stack.enter_context(exporter)
            self._await_well(2 * SETTLE_TIMEOUT)  # four reads at the default interval
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def suffer(self, name: str, expected: Expected) -> Story:
        """From health through the incident to health again; AssertionError if it was not well before."""
        story, pace, exporter, node = Story(), self.pace, self.exporters["c1"], self.site.nodes["c1"]
        before = node.system_id
        self._await_well(pace.clear)
        wait_until(lambda: exporter.remembered_id() == before, pace.adopt, f"{before} is remembered")
        marks = {name: watched.log_size() for name, watched in self.exporters.items()}
        incidents.begin(self.site, name)
        began = time.monotonic()

        def as_expected() -> bool:
            now = exporter.opened(marks["c1"])
            for check in now & expected.must:
                story.found.setdefault(check, time.monotonic() - began)
            story.unknown = exporter.unknown()
            return now >= expected.must and story.unknown == expected.unknown

        _within(as_expected, pace.found + expected.longer)
        if expected.adopted:
            new = node.system_id
            story.adopted = _within(
                lambda: exporter.remembered_id() == new and "system_id_changed" not in exporter.found(), pace.adopt
            )
        elif pace.restart:
            self._restart(exporter, expected.must, story)
        story.opened = {name: watched.opened(marks[name]) for name, watched in self.exporters.items()}
        marks = {name: watched.log_size() for name, watched in self.exporters.items()}
        incidents.end(self.site, name)
        repaired = time.monotonic()
        if _within(self._well, pace.adopt if expected.adopted else pace.heal if expected.hangs else pace.clear):
            story.well = time.monotonic() - repaired
        story.mending = {name: watched.opened(marks[name]) for name, watched in self.exporters.items()}
        story.subjects = exporter.subjects()
        return story

    def _restart(self, exporter: Watched, must: Collection[str], story: Story) -> None:
        # A look-up that was asked anew may just not have answered; the test says so if it does not come back.
        _within(lambda: _of(must, exporter.first_seen()).keys() == set(must), self.pace.found)
        story.first_seen.append(_of(must, exporter.first_seen()))
        began = time.monotonic()
        assert exporter.stop() == 0
        story.stopped = time.monotonic() - began
        exporter.start()
        _within(lambda: _of(must, exporter.first_seen()).keys() == set(must), self.pace.found)
        story.first_seen.append(_of(must, exporter.first_seen()))

    def _well(self) -> bool:
        """By the exporters, and in truth: a bridge that is empty within its grace is no health to begin with."""
        return all(exporter.well() and exporter.node.flows() for exporter in self.exporters.values())

    def _await_well(self, seconds: float) -> None:
        if not _within(self._well, seconds):
            raise AssertionError(f"not well: {[exporter.findings() for exporter in self.exporters.values()]}")


def _of(checks: Collection[str], seen: Mapping[str, float]) -> dict[str, float]:
    return {check: seen[check] for check in checks if check in seen}


def _within(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether it came true in time."""
    try:
        wait_until(condition, seconds, "the condition")
    except AssertionError:
        return False
    return True
