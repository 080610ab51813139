"""Each source of a running exporter is killed, hung, restarted, or replaced by something hostile, on a real node.

Every scrape answers in under a second, the source's own series say that it has no answer, exactly the checks that need
it cannot tell, all else goes on, memory stays bounded, and it heals by itself. Several nodes at once, as nearly all of
the time is waiting.
"""

from __future__ import annotations

import os
import queue
import re
import signal
import time
import urllib.request
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Literal

import pytest

from tests.faults.front import Front
from tests.faults.servers import JSON, OPENFLOW
from tests.lab.monitoring import Exporter
from tests.lab.site import Site
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lab.site import Daemon, Node

pytestmark = pytest.mark.root

LANES = 8
SEEN = 45
"""Seconds in which a fault must show and be counted: a call gives up after 5 (SB: 30), an answer is old after 10."""
HEALED = 40
"""Seconds in which it must heal: back-off ends at ten intervals, and a call that hangs must first give up."""
SCRAPE = 1.0
RESIDENT = 160 << 20
"""Bytes; the exporter has some 60 MiB at rest, an answer may have 16, and each is copied a few times."""

SERIES = {
    "ovs": 'mec_ovs_interfaces{bridge="br-int",kind="vif"}',
    "vswitchd": 'mec_datapath_lookups_total{datapath="netdev@ovs-netdev",result="hit"}',
    "openflow": 'mec_integration_bridge_flows{bridge="br-int"}',
    "ovn_controller": "mec_ovn_controller_connected",
    "chassis_lookup": 'mec_system_id_info{origin="southbound"',
    "host": 'mec_system_id_info{origin="file"',
    "ovs_flows": 'mec_datapath_detail_skipped{source="ovs_flows"} 0',
}
"""What each source alone tells: absent without it, and only then."""

DEPENDENTS = {
    "ovs": (
        "chassis_unregistered integration_bridge_empty ovs_interface_failed ovs_interface_orphaned system_id_changed "
        "system_id_mismatch system_id_missing tunnel_port_failed "
        "offload_disabled offload_gre_conntrack offload_ratio_low"
    ),
    "vswitchd": "ovs_interface_failed tunnel_port_failed",
    "ovs_flows": "offload_gre_conntrack offload_ratio_low",
    "openflow": "integration_bridge_empty ovs_interface_orphaned",
    "ovn_controller": (
        "chassis_unregistered ovn_controller_disconnected ovn_controller_failing ovs_interface_orphaned"
    ),
    "chassis_lookup": "chassis_unregistered",
    "host": "chassis_unregistered system_id_changed system_id_mismatch system_id_missing",
}
"""The checks that cannot tell without each source."""

DEAD_CONTROLLER = {"ovn_controller_failing"}
"""Of a controller that is known to be dead, the rest can be told."""

BEHAVIOURS = ("silent", "close_at_once", "garbage", "half_then_silent", "endless_string")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One fault.

    Attributes:
        source: the one that is struck.
        how: what is done to its daemon, or how what stands in its place behaves.
        down: the sources that have no answer meanwhile.
        unknown: the checks that cannot tell meanwhile.
        found: what the fault honestly is, to be found or not.
    """

    source: str
    how: str
    down: frozenset[str]
    unknown: frozenset[str]
    found: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.source}-{self.how}"


BESIDE = {"vswitchd": ("ovs_flows",)}
"""What asks the same daemon, of whose user-space datapath nobody else tells."""


def hostile_case(source: str, how: str) -> Case:
    return daemon_case(source, how, *BESIDE.get(source, ()))


def daemon_case(
    source: str, how: str, *also: str, unknown: set[str] | None = None, found: frozenset[str] = frozenset()
) -> Case:
    down = frozenset({source, *also})
    needing = {check for name in down for check in DEPENDENTS[name].split()}
    return Case(source=source, how=how, down=down, unknown=frozenset(unknown or needing), found=found)


def restarted(source: str, found: frozenset[str] = frozenset()) -> Case:
    return Case(source=source, how="restarted", down=frozenset(), unknown=frozenset(), found=found)


DISCONNECTED = frozenset({"ovn_controller_disconnected"})

CASES = [
    *(
        hostile_case(source, how)
        for source in ("chassis_lookup", "ovs", "vswitchd", "openflow", "ovn_controller")
        for how in BEHAVIOURS
    ),
    # Without its database ovs-vswitchd 3.1 does not serve OpenFlow.
    daemon_case("ovs", "killed", "openflow"),
    daemon_case("ovs", "stopped"),
    daemon_case("vswitchd", "killed", "openflow"),  # with it its datapath is gone: no flows is what ovs_flows says
    daemon_case("vswitchd", "stopped", "openflow", "ovs_flows"),
    daemon_case("ovn_controller", "killed", unknown=DEAD_CONTROLLER, found=DISCONNECTED),
    daemon_case("ovn_controller", "stopped"),
    # ovn-controller loses Southbound too, and that is the finding; it is why the node's chassis is not asked for.
    Case(source="chassis_lookup", how="killed", down=frozenset({"chassis_lookup"}), unknown=frozenset(),
         found=DISCONNECTED),
    daemon_case("chassis_lookup", "stopped"),
    restarted("ovs"),
    # A user-space datapath is empty until ovn-controller comes back to it.
    restarted("vswitchd"),
    restarted("ovn_controller", DISCONNECTED),
    restarted("chassis_lookup", DISCONNECTED),
    *(hostile_case("host", how) for how in ("missing", "fifo", "endless")),
]  # fmt: skip

DAEMONS: dict[str, Daemon | Literal["sb"]] = {
    "ovs": "ovsdb-server", "vswitchd": "ovs-vswitchd", "ovn_controller": "ovn-controller", "chassis_lookup": "sb",
}  # fmt: skip


@dataclass
class Seen:
    """What was seen of one case.

    Attributes:
        down, unknown, absent: sources that are not up, checks not evaluable, sources without their own series; once as
            expected, or when the time was up.
        opened: checks of which a finding opened, from the fault until it had healed.
        slowest: the longest scrape, in seconds, and how many there were.
        resident: the exporter's greatest resident set, in bytes.
        rose: whether the source's error counter counted it.
        healed: seconds until all was up again; None if not in time.
    """

    down: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    absent: set[str] = field(default_factory=set)
    opened: set[str] = field(default_factory=set)
    slowest: float = 0.0
    scrapes: int = 0
    resident: int = 0
    rose: bool = False
    healed: float | None = None


class Fronted(Exporter):
    """An exporter that asks everything through fronts of its own."""

    def __init__(self, node: Node) -> None:
        # Its Southbound is asked at every turn, so that a fault of it shows as soon as any other's.
        super().__init__(node, intervals={"live": "1s", "flows": "1s"}, grace={"bridge": "5s"})
        self.roles = ["compute"]  # its Southbound's socket would be the sign of another role
        self.dir = node.dir / "front"
        self.proc = self.dir / "proc"
        pid = node.pid("ovn-controller")
        self.sockets = {
            "ovs": (self.dir / "db.sock", node.ovs_run / "db.sock"),
            "vswitchd": (self.dir / "vswitchd.ctl", node.ovs_run / f"ovs-vswitchd.{node.pid('ovs-vswitchd')}.ctl"),
            "openflow": (self.dir / "br-int.mgmt", node.ovs_run / "br-int.mgmt"),
            "ovn_controller": (self.dir / "controller.ctl", node.ovn_run / f"ovn-controller.{pid}.ctl"),
            "chassis_lookup": (self.dir / "sb.sock", node.site.dir / "sb.sock"),
        }
        self._write_proc()
        fronts = {source: str(path) for source, (path, _) in self.sockets.items()}
        self.settings |= {
            "ovs": {
                "database": f"unix:{fronts['ovs']}",
                "run_dir": str(self.dir),
                "vswitchd_control": fronts["vswitchd"],
                "system_id_file": str(node.system_id_file),
                "system_id_override_file": str(node.system_id_override_file),
            },
            "ovn": {
                "run_dir": str(node.ovn_run),
                "controller_control": fronts["ovn_controller"],
                "southbound": {"database": f"unix:{fronts['chassis_lookup']}"},
                "chassis_lookup": {"interval": "1s"},
            },
            "host": {"state_dir": str(node.dir / "state"), "proc": str(self.proc)},
        }

    @property
    def kernel(self) -> Path:
        """The one file without which the source `host` has no answer."""
        return self.proc / "sys/kernel/osrelease"

    def _write_proc(self) -> None:
        self.kernel.parent.mkdir(parents=True, exist_ok=True)
        self.kernel.unlink(missing_ok=True)
        self.kernel.write_text("6.1.0-lab\n")
        (self.proc / "sys/net/core").mkdir(parents=True, exist_ok=True)  # by which procfs is known; nothing is tracked


class Direct(Exporter):
    """An exporter that asks the daemons themselves."""

    def __init__(self, node: Node) -> None:
        super().__init__(node, intervals={"live": "1s", "flows": "1s"}, grace={"bridge": "5s"})
        self.settings["ovn"] = {"run_dir": str(node.ovn_run), "chassis_lookup": {"interval": "1s"}}


class Page:
    """An exposition."""

    def __init__(self, text: str) -> None:
        self.text = text

    def zeros(self, metric: str, label: str) -> set[str]:
        return set(re.findall(rf'^{metric}\{{{label}="(\w+)"\}} 0\.0$', self.text, re.MULTILINE))

    def down(self) -> set[str]:
        return self.zeros("mecexporter_source_up", "source")

    def unknown(self) -> set[str]:
        return self.zeros("mec_check_evaluable", "check")

    def absent(self) -> set[str]:
        return {source for source, series in SERIES.items() if f"\n{series}" not in self.text}

    def errors(self, source: str) -> float:
        pattern = rf'^mecexporter_source_errors_total\{{.*source="{source}".*\}} (\S+)$'
        return sum(float(count) for count in re.findall(pattern, self.text, re.MULTILINE))

    def well(self) -> bool:
        return not self.down() and not self.unknown() and not self.absent()


class Scraper:
    """Scrapes without a pause, and keeps the longest time it took."""

    def __init__(self, exporter: Exporter, seen: Seen) -> None:
        self._url = f"{exporter.url}/metrics"
        self._seen = seen
        self._end = Event()
        self._thread = Thread(target=self._run, name="scraper")
        self.error: Exception | None = None

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        while True:
            began = time.monotonic()
            try:
                with urllib.request.urlopen(self._url, timeout=10) as answer:  # noqa: S310  # our own http address
                    answer.read()
            except OSError as error:
                self.error = error
                return
            self._seen.slowest = max(self._seen.slowest, time.monotonic() - began)
            self._seen.scrapes += 1
            if self._end.wait(0.1):
                return


def within(condition: Callable[[], bool], seconds: float) -> bool:
    with suppress(AssertionError):
        return wait_until(condition, seconds, "the condition")
    return False


@contextmanager
def struck(case: Case, node: Node, exporter: Exporter, front: Front | None) -> Iterator[None]:
    """The fault, for as long as the block lasts."""
    if front is not None and isinstance(exporter, Fronted):
        path, _ = exporter.sockets[case.source]
        front.turn(path, (OPENFLOW if case.source == "openflow" else JSON)[case.how])
        yield
        front.heal(path)
    elif isinstance(exporter, Fronted):
        kernel = exporter.kernel
        kernel.unlink()
        if case.how == "fifo":
            os.mkfifo(kernel)
        elif case.how == "endless":
            with kernel.open("wb") as file:
                file.truncate(100 << 20)
        yield
        kernel.unlink(missing_ok=True)
        kernel.write_text("6.1.0-lab\n")
    else:
        with daemon_struck(case.how, node, DAEMONS[case.source]):
            yield


@contextmanager
def daemon_struck(how: str, node: Node, daemon: Daemon | Literal["sb"]) -> Iterator[None]:
    if daemon == "sb":
        pid = int((node.site.dir / "sb.pid").read_text())
        kill, start = partial(node.site.kill_database, daemon), partial(node.site.start_database, daemon)
    else:
        pid = node.pid(daemon)
        kill, start = partial(node.kill, daemon), partial(node.start, daemon)
    if how == "stopped":
        os.kill(pid, signal.SIGSTOP)
        yield
        os.kill(pid, signal.SIGCONT)
    elif how == "killed":
        kill()
        yield
        start()
    else:
        kill()
        start()
        yield


class Faults:
    """Runs the cases in the background; see tests/e2e/campaign.py for the same with incidents."""

    def __init__(self, cases: list[Case]) -> None:
        self._seen: dict[Case, Future[Seen]] = {case: Future() for case in cases}
        self._waiting: queue.SimpleQueue[Case] = queue.SimpleQueue()
        for case in cases:
            self._waiting.put(case)
        self._pool = ThreadPoolExecutor(LANES, thread_name_prefix="lane")
        for _ in range(LANES):
            self._pool.submit(self._run)

    def seen(self, case: Case) -> Seen:
        return self._seen[case].result()

    def close(self) -> None:
        while self._next() is not None:
            pass
        self._pool.shutdown()

    def _next(self) -> Case | None:
        try:
            return self._waiting.get_nowait()
        except queue.Empty:
            return None

    def _run(self) -> None:
        while (case := self._next()) is not None:
            try:
                with Site() as site:
                    node = site.nodes["c1"]
                    seen = strike(case, node)
                    self._seen[case].set_result(seen)
            except Exception as error:  # noqa: BLE001  # the test that waits for it is to have it
                self._seen[case].set_exception(error)


def strike(case: Case, node: Node) -> Seen:
    seen = Seen()
    if case in DIRECT:
        with Direct(node) as exporter:
            observe(case, node, exporter, None, seen)
    else:
        fronted = Fronted(node)
        with Front(dict(fronted.sockets.values())) as front, fronted:
            observe(case, node, fronted, None if case.source == "host" else front, seen)
    return seen


def observe(case: Case, node: Node, exporter: Exporter, front: Front | None, seen: Seen) -> None:
    def page() -> Page:
        return Page(exporter.metrics())

    wait_until(lambda: page().well() and not exporter.found(), SEEN, f"all is well before {case}")
    mark, errors = exporter.log.stat().st_size, page().errors(case.source)
    assert exporter.process is not None
    status = Path(f"/proc/{exporter.process.pid}/status")
    with Scraper(exporter, seen):
        with struck(case, node, exporter, front):
            within(lambda: _as_expected(case, page(), errors, seen), SEEN)
        began = time.monotonic()
        if within(lambda: page().well() and not exporter.found(), HEALED):
            seen.healed = time.monotonic() - began
    seen.opened = set(re.findall(r'msg="finding opened" check=(\S+)', exporter.log.read_text()[mark:]))
    seen.resident = int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) << 10


def _as_expected(case: Case, now: Page, errors: float, seen: Seen) -> bool:
    seen.down, seen.unknown, seen.absent = now.down(), now.unknown(), now.absent()
    seen.rose = seen.rose or now.errors(case.source) > errors
    told = seen.rose if case.down else seen.scrapes > LOOKS
    return told and seen.down == case.down == seen.absent and seen.unknown == case.unknown


LOOKS = 10
"""Scrapes for which what nobody is to notice lasts."""
DIRECT = [case for case in CASES if case.how in ("killed", "stopped", "restarted")]


@pytest.fixture(scope="module")
def faults(request: pytest.FixtureRequest) -> Iterator[Faults]:
    """All cases that this run has selected."""
    calls = [getattr(item, "callspec", None) for item in request.session.items if item.path == request.path]
    running = Faults([call.params["case"] for call in calls if call and "case" in call.params])
    yield running
    running.close()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_fault(faults: Faults, case: Case) -> None:
    seen = faults.seen(case)
    assert seen.down == case.down
    assert seen.absent == case.down
    assert seen.unknown == case.unknown
    assert seen.rose or not case.down
    assert seen.opened <= case.found
    assert seen.healed is not None, "it does not heal"
    assert seen.scrapes > 0
    assert seen.slowest < SCRAPE
    assert seen.resident < RESIDENT
