"""What the exporter costs: each function measures one thing and returns rows of a table.

Costs are CPU time of processes, not time on the clock, so other work on the machine disturbs them little.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import statistics
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, NamedTuple, get_args

from mecexporter.checks.base import discover as discover_checks
from mecexporter.checks.ledger import Ledger
from mecexporter.metrics.registry import View
from mecexporter.metrics.registry import discover as discover_collectors
from mecexporter.metrics.render import Renderer
from mecexporter.state.observed import Fresh
from mecexporter.web.listen import serve
from mecexporter.web.server import create_app
from tests.lab.monitoring import Exporter
from tests.lab.site import Daemon, Node, Site
from tests.waiting import wait_until
from tests.worlds import READ, healthy_compute, interface, view_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mecexporter.state.world import World

DAEMONS: tuple[Daemon, ...] = get_args(Daemon)
SCRAPES = 300
TURNS = 200
SAMPLES = 10_000


class Row(NamedTuple):
    """One line of the table: what, how much, what we want of it, how it was measured."""

    what: str
    value: str
    target: str
    how: str


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process, to the nanosecond (proc(5), schedstat)."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def memory(pid: int, field: str) -> int:
    """Bytes of a field of /proc/<pid>/status: VmRSS now, VmHWM at most."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))


def plug(node: Node, number: int) -> None:
    """Interfaces that OVN has bound and installed, as VMs have them; the devices are taps of ovs-vswitchd's own."""
    ports, interfaces = list[str](), list[str]()
    for n in range(number):
        ports += [
            "--",
            "lsp-add",
            "net0",
            f"b{n}",
            "--",
            "lsp-set-addresses",
            f"b{n}",
            f"02:00:00:01:{n >> 8:02x}:{n & 255:02x}",
        ]
        interfaces += ["--", "add-port", "br-int", f"tapb{n}", "--", "set", "Interface", f"tapb{n}", "type=internal",
                       f"external_ids:iface-id=b{n}", f"external_ids:vm-uuid={n}"]  # fmt: skip
    node.site.nbctl(*ports[1:])
    node.vsctl(*interfaces[1:])
    installed = ("--bare", "--columns=name", "find", "Interface", 'external_ids:ovn-installed="true"')
    wait_until(lambda: node.vsctl(*installed).count("tapb") == number, 120, f"{number} interfaces are installed")
    node.site.nbctl("--wait=hv", "sync")


def on_a_node(interfaces: int, seconds: float) -> list[Row]:
    """The exporter at default intervals, and what its questions cost the daemons: CPU with it minus CPU without."""
    with Site() as site:
        node = site.nodes["c1"]
        plug(node, interfaces)
        without = _spent(node, seconds)
        with Exporter(node) as exporter:
            assert exporter.process is not None
            pid = exporter.process.pid
            # Its start is not what it costs; the second look at everything is past after two intervals.
            _pass(min(seconds, 35))
            before = cpu_seconds(pid)
            spent = _spent(node, seconds)
            own = cpu_seconds(pid) - before
            now, most = memory(pid, "VmRSS"), memory(pid, "VmHWM")
            rows = [
                Row(
                    "exporter, CPU", _share(own, seconds), "1 %, goal 0.5 %", f"/proc, {seconds:g} s, default intervals"
                ),
                Row("exporter, RSS", f"{now / 2**20:.1f} MiB", "80 MiB, goal 48", "VmRSS"),
                Row("exporter, RSS at most", f"{most / 2**20:.1f} MiB", "", "VmHWM, start included"),
            ]
            for daemon in DAEMONS:
                cpu, commands = (spent[daemon][i] - without[daemon][i] for i in (0, 1))
                rows.append(
                    Row(
                        f"{daemon}, CPU for us",
                        _share(cpu, seconds),
                        "",
                        f"with {_share(spent[daemon][0], seconds)}, without {_share(without[daemon][0], seconds)}",
                    )
                )
                rows.append(
                    Row(
                        f"{daemon}, commands a minute",
                        f"{commands * 60 / seconds:.0f}",
                        "",
                        "its counter unixctl_received; questions to the database or by OpenFlow are no commands",
                    )
                )
            times, size = scrapes(exporter.port)
            rows += _scrape_rows("scrape of this node", times, size, "")
    return rows


def _spent(node: Node, seconds: float) -> dict[Daemon, tuple[float, int]]:
    """Daemon -> CPU seconds and control commands, in a span of that length."""

    def look() -> dict[Daemon, tuple[float, int]]:
        return {
            daemon: (
                cpu_seconds(node.pid(daemon)),
                int(node.appctl(daemon, "coverage/read-counter", "unixctl_received")),
            )
            for daemon in DAEMONS
        }

    before = look()
    _pass(seconds)
    after = look()
    return {daemon: (after[daemon][0] - before[daemon][0], after[daemon][1] - before[daemon][1]) for daemon in DAEMONS}


def _pass(seconds: float) -> None:
    """Here the passing of time itself is what is wanted."""
    Event().wait(seconds)


def _share(cpu: float, seconds: float) -> str:
    return f"{100 * cpu / seconds:.2f} %"


def scrapes(port: int, number: int = SCRAPES) -> tuple[list[float], int]:
    """Seconds of each of so many scrapes on one connection, and the last answer's bytes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    times, body = list[float](), b""
    try:
        for _ in range(number):
            began = time.perf_counter()
            connection.request("GET", "/metrics")
            body = connection.getresponse().read()
            times.append(time.perf_counter() - began)
    finally:
        connection.close()
    return times, len(body)


def _scrape_rows(what: str, times: list[float], size: int, target: str) -> list[Row]:
    percentiles = statistics.quantiles(times, n=100)
    how = f"{len(times)} scrapes, one client, loopback"
    return [
        Row(f"{what}, p50", f"{1e3 * percentiles[49]:.2f} ms", "", how),
        Row(f"{what}, p99", f"{1e3 * percentiles[98]:.2f} ms", target, how),
        Row(f"{what}, size", f"{size / 1e3:.0f} kB", "", "without gzip"),
    ]


def large_world(samples: int = SAMPLES) -> World:
    """A node with so many broken interfaces that its exposition has about so many samples."""
    world = healthy_compute()
    assert isinstance(world.ovs, Fresh)
    broken = tuple(interface(f"tap{n}", error="No such device") for n in range(samples // 2))
    # Each finding has two series; those of interfaces end at a limit.
    ovs = replace(world.ovs.value, interfaces=(*world.ovs.value.interfaces, *broken))
    return replace(world, ovs=Fresh(ovs, READ), settings=replace(world.settings, findings_limit=len(broken)))


class _Shown:
    """A site that shows one view."""

    def __init__(self, view: View) -> None:
        self.shown = view

    def view(self) -> View:
        return self.shown

    def ready(self) -> bool:
        return True

    async def forget(self, what: str) -> None:
        raise NotImplementedError(what)


@contextmanager
def _served(shown: _Shown) -> Iterator[int]:
    """The port of the web layer on that site, in a thread of its own."""
    ready, loop, end = Event(), asyncio.new_event_loop(), asyncio.Event()
    ports: list[int] = []

    async def main() -> None:
        runner = await serve(create_app(shown), "127.0.0.1", 0)
        ports.append(runner.addresses[0][1])
        ready.set()
        await end.wait()
        await runner.cleanup()

    thread = Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    ready.wait(10)
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(10)
        loop.close()


def large_scrape() -> list[Row]:
    """Scrapes of some 10,000 samples: of a world that stands still, and the price of rendering all of it anew."""
    view = view_of(large_world())
    text = Renderer(discover_collectors()).render(view).decode()
    count = sum(not line.startswith("#") for line in text.splitlines())
    with _served(_Shown(view)) as port:
        scrapes(port, 5)
        times, size = scrapes(port)
    renderer = Renderer(discover_collectors())
    again = _price(lambda: renderer.render(view), TURNS)
    anew = _price(lambda: Renderer(discover_collectors()).render(view), 10)
    return [
        *_scrape_rows(f"scrape of {count} samples", times, size, "10 ms, goal 5"),
        Row(
            f"rendering {count} samples again", f"{1e3 * again:.2f} ms", "1 ms", "CPU of a scrape where nothing is new"
        ),
        Row(
            f"rendering {count} samples anew", f"{1e3 * anew:.1f} ms", "", "CPU of a scrape after every source was read"
        ),
    ]


def all_checks(interfaces: int = 1000) -> list[Row]:
    """One evaluation of every check; the exporter makes one for each answer of a source."""
    world = healthy_compute()
    assert isinstance(world.ovs, Fresh)
    ovs = replace(world.ovs.value, interfaces=tuple(interface(f"tap{n}") for n in range(interfaces)))
    world = replace(world, ovs=Fresh(ovs, READ))
    ledger, checks = Ledger(), discover_checks()
    price = _price(lambda: ledger.advance(checks, world), TURNS)
    return [Row(f"all checks, {interfaces} interfaces", f"{1e3 * price:.2f} ms", "", f"CPU, mean of {TURNS}")]


def _price(action: Callable[[], object], turns: int) -> float:
    """CPU seconds of one turn, on average."""
    action()
    began = time.process_time()
    for _ in range(turns):
        action()
    return (time.process_time() - began) / turns


def machine() -> str:
    """What all of it was measured on."""
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores, {os.uname().sysname} {os.uname().release}, load {load:.1f} at the start"
