"""The databases' incidents and the fail-over in stages, on real pairs and clusters, told by real exporters.

Each trouble is brought about on a pair that is well, seen by an exporter on the active's host and one on the standby's,
and repaired; what is found, what can't be told meanwhile, and nothing else.
"""

from __future__ import annotations

import queue
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab import incidents
from tests.lab.central import DATABASES, CentralExporter, Host, Pair
from tests.lab.failover import PAIR
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.root

QUICK: dict[str, dict[str, object]] = {
    "intervals": {"live": "1s", "audit": "3s"},
    "grace": {"db_sync": "3s", "no_writer": "3s"},
}
FOUND = 30  # seconds; a call over TCP that gets no answer is believed to be lost after ten
CLEAR = 60  # a call that hangs must first give up, and back-off ends at ten intervals
LANES = 4

NO_WRITER, OUT_OF_SYNC = "ovn_db_no_writer", "ovn_db_out_of_sync"
REPLICATION, SPLIT, NORTHD = "ovn_db_replication_down", "ovn_db_split_brain", "ovn_northd_inactive"
PROPAGATION = frozenset(
    {"ovn_chassis_duplicate", "ovn_chassis_stale", "ovn_gateway_unclaimed", "ovn_propagation_stalled"}
)
"""What the host of Northbound's writer tells alone, of both databases."""
NONE: frozenset[str] = frozenset()


def checks(*names: str) -> frozenset[str]:
    return frozenset(names)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one exporter must say, may besides, and can't tell."""

    must: frozenset[str] = NONE
    may: frozenset[str] = NONE
    unknown: frozenset[str] = NONE
    may_not_tell: frozenset[str] = NONE


WELL = Seen()
UNPROVEN = Seen(unknown=checks(OUT_OF_SYNC))
"""A server is known to be gone: nothing is wrong, but there is no standby that could be believed."""
PARTED = Seen(unknown=checks(OUT_OF_SYNC, SPLIT, REPLICATION))
"""A server is silent: it may do anything."""


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """What each host's exporter says of an incident of a pair."""

    ca: Seen
    cb: Seen
    heal: float = CLEAR


STAGES = {"F1", "F2", "F2-northd-first", "F3", "F4", "F5", "F5-second-active", "own-address"}
"""Incidents that test_failover has."""

LOST_WRITER = checks(NO_WRITER, REPLICATION)

TROUBLES = {
    "northd-paused": Trouble(ca=Seen(must=checks(NORTHD)), cb=WELL),
    "northd-killed": Trouble(ca=Seen(must=checks(NORTHD)), cb=WELL),
    "active-killed": Trouble(
        ca=Seen(must=LOST_WRITER | checks(NORTHD), unknown=checks(OUT_OF_SYNC) | PROPAGATION),
        cb=Seen(must=LOST_WRITER, unknown=checks(OUT_OF_SYNC)),
    ),
    "active-sb-killed": Trouble(
        ca=Seen(must=LOST_WRITER | checks(NORTHD), unknown=checks(OUT_OF_SYNC) | PROPAGATION),
        cb=Seen(must=LOST_WRITER, unknown=checks(OUT_OF_SYNC)),
    ),
    "active-stopped": Trouble(
        ca=Seen(must=LOST_WRITER, may=checks(NORTHD), unknown=checks(OUT_OF_SYNC, SPLIT) | PROPAGATION),
        cb=Seen(must=LOST_WRITER, unknown=checks(OUT_OF_SYNC, SPLIT)),
    ),
    "link-cut": Trouble(
        ca=PARTED, cb=Seen(must=LOST_WRITER, unknown=checks(OUT_OF_SYNC, SPLIT)),
        heal=120,  # the standby's own session to its active wakes after a minute
    ),
    "standby-killed": Trouble(ca=UNPROVEN, cb=UNPROVEN),
    "wrong-active-set": Trouble(
        ca=WELL, cb=Seen(must=checks(REPLICATION), unknown=checks(OUT_OF_SYNC), may_not_tell=checks(SPLIT)),
    ),
    "wrong-active": Trouble(
        ca=Seen(may=checks(OUT_OF_SYNC)),
        cb=Seen(must=checks(REPLICATION), unknown=checks(OUT_OF_SYNC), may_not_tell=checks(SPLIT)),
    ),
    "never-connected": Trouble(
        ca=Seen(must=checks(OUT_OF_SYNC)),
        cb=Seen(must=checks(REPLICATION), unknown=checks(OUT_OF_SYNC), may_not_tell=checks(SPLIT)),
    ),
    "self-replication": Trouble(ca=Seen(must=checks(SPLIT)), cb=Seen(must=checks(SPLIT, REPLICATION))),
    "two-actives": Trouble(ca=Seen(must=checks(SPLIT)), cb=Seen(must=checks(SPLIT))),
    "newer-schema": Trouble(ca=Seen(must=checks(SPLIT)), cb=Seen(must=checks(SPLIT))),
    "table-excluded": Trouble(ca=Seen(must=checks(OUT_OF_SYNC)), cb=WELL),
    "row-by-hand": Trouble(ca=Seen(must=checks(OUT_OF_SYNC), may=checks(SPLIT)), cb=Seen(may=checks(SPLIT))),
}  # fmt: skip


@dataclass
class Told:
    """What one exporter said of a trouble: once it was as expected or the time was up; and all it ever opened."""

    found: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    opened: set[str] = field(default_factory=set)
    summaries: list[str] = field(default_factory=list)


@dataclass
class Story:
    ca: Told
    cb: Told
    healed: bool


def peers(*hosts: Host) -> dict[Any, dict[str, object]]:
    return {db: {"peers": [host.tcp(db) for host in hosts]} for db in DATABASES}


def within(condition: Callable[[], bool], seconds: float) -> bool:
    try:
        wait_until(condition, seconds, "the condition")
    except AssertionError:
        return False
    return True


def is_well(exporter: CentralExporter) -> bool:
    document = exporter.findings()
    return not document["findings"] and not document["unknown"] and not document["pending"]


def as_expected(exporter: CentralExporter, expected: Seen, told: Told) -> bool:
    document = exporter.findings()
    told.found = {f["check"] for f in document["findings"]}
    told.unknown = {u["check"] for u in document["unknown"]}
    told.opened |= told.found
    told.summaries = [f["summary"] for f in document["findings"]]
    return agrees(told, expected)


def agrees(told: Told, expected: Seen) -> bool:
    return (
        expected.must <= told.found <= expected.must | expected.may
        and expected.unknown <= told.unknown <= expected.unknown | expected.may_not_tell
    )


def suffer(name: str) -> Story:
    """On a pair of its own."""
    trouble = TROUBLES[name]
    with Pair() as pair, ExitStack() as stack:
        ca, cb = (
            stack.enter_context(CentralExporter(host, peers(pair.ca, pair.cb), **QUICK)) for host in (pair.ca, pair.cb)
        )
        wait_until(lambda: is_well(ca) and is_well(cb), 60, "all is well before")
        story = Story(Told(), Told(), healed=False)
        incidents.begin(pair, name)

        def both() -> bool:
            told = [as_expected(ca, trouble.ca, story.ca), as_expected(cb, trouble.cb, story.cb)]
            return all(told)

        within(both, FOUND)
        # What is wrong from the outset shows at once; what follows from it wrongly shows later.
        settled = time.monotonic() + 5
        within(lambda: not both() or time.monotonic() > settled, 6)
        incidents.end(pair, name)
        story.healed = within(lambda: is_well(ca) and is_well(cb), trouble.heal)
    return story


class Stories:
    """Several pairs at once: nearly all of the time is waiting."""

    def __init__(self, names: list[str]) -> None:
        self._told: dict[str, Future[Story]] = {name: Future() for name in names}
        self._waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        for name in names:
            self._waiting.put(name)
        self._pool = ThreadPoolExecutor(LANES, thread_name_prefix="lane")
        for _ in range(LANES):
            self._pool.submit(self._run)

    def of(self, name: str) -> Story:
        return self._told[name].result()

    def close(self) -> None:
        while not self._waiting.empty():
            self._waiting.get_nowait()
        self._pool.shutdown()

    def _run(self) -> None:
        while True:
            try:
                name = self._waiting.get_nowait()
            except queue.Empty:
                return
            try:
                self._told[name].set_result(suffer(name))
            except Exception as error:  # noqa: BLE001  # the test that waits for it is to have it
                self._told[name].set_exception(error)


@pytest.fixture(scope="module")
def stories(request: pytest.FixtureRequest) -> Iterator[Stories]:
    calls = [getattr(item, "callspec", None) for item in request.session.items if item.path == request.path]
    running = Stories([call.params["name"] for call in calls if call and call.params.get("name") in TROUBLES])
    yield running
    running.close()


def test_every_incident_of_a_pair_is_told() -> None:
    """Here, or as a stage of the fail-over."""
    assert TROUBLES.keys() | STAGES == PAIR.keys()


@pytest.mark.parametrize("name", TROUBLES)
def test_trouble(stories: Stories, name: str) -> None:
    trouble, story = TROUBLES[name], stories.of(name)
    for told, expected in ((story.ca, trouble.ca), (story.cb, trouble.cb)):
        assert agrees(told, expected), f"{told} is not {expected}"
        assert told.opened <= expected.must | expected.may, told
    assert story.healed, "not all is well after the repair"
