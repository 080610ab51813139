"""A scrape does no I/O, seen from outside: every system call of the exporter while it answers, by strace."""

from __future__ import annotations

import http.client
import re
import shutil
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.e2e.story import Pace, Watched
from tests.lab.site import Site
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root

SCRAPES = 50
PAGES = ("/metrics", "/", "/api/v1/findings", "/api/v1/sources", "/healthz", "/readyz")

# Nothing is read again while the test lasts, so that whatever is seen is the scrape's.
STILL = Pace(intervals={"live": "1h"}, grace={}, found=0, clear=0, heal=0, adopt=0, restart=False)

OWN = {"brk", "mmap", "munmap", "mremap", "madvise", "futex", "epoll_wait", "getpid"}
"""What a program asks about itself: memory, its threads' locks, its number, and whether a socket is ready."""

REMEMBERED = {"kernel", "ovs", "ovs_schema", "ovn", "system_id"}
"""What its state file names once every source has answered; then there is nothing more to save."""

_CALL = re.compile(r"^(?P<thread>\d+) +(?:(?P<resumed><\.\.\. )?)(?P<name>\w+)(?: resumed>|\()(?P<rest>.*)$")
_UNFINISHED = " <unfinished ...>"


class Call(NamedTuple):
    thread: str
    name: str
    rest: str

    @property
    def descriptor(self) -> str:
        return self.rest.partition(",")[0]


@contextmanager
def traced(pid: int, output: Path) -> Iterator[None]:
    """strace(1) on all threads of a process."""
    assert shutil.which("strace"), "strace is missing; install: apt-get install strace"
    # The process by which the block knows that strace has attached.
    tracer = subprocess.Popen(
        ["strace", "-f", "-s", "64", "-o", output, "-p", str(pid)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        assert tracer.stderr is not None
        said = tracer.stderr.readline()
        assert b"attached" in said, said
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=10)


def calls(output: Path) -> list[Call]:
    """Each when it had ended; what strace tells in two lines, as another thread called meanwhile, is put together."""
    begun: dict[str, str] = {}
    found: list[Call] = []
    for line in output.read_text(errors="replace").splitlines():
        if (m := _CALL.match(line)) is None:
            continue
        rest = begun.pop(m["thread"], "") + m["rest"] if m["resumed"] else m["rest"]
        if rest.endswith(_UNFINISHED):
            begun[m["thread"]] = rest.removesuffix(_UNFINISHED)
        else:
            found.append(Call(m["thread"], m["name"], rest))
    return found


def words(state: Path) -> set[str]:
    return set(re.findall(r'"(\w+)":', state.read_text()))


def scrape(port: int, path: str) -> None:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
    finally:
        connection.close()


def answers(seen: list[Call], path: str) -> list[list[Call]]:
    """For each request of a page: what all threads called from reading it to having sent the answer's beginning."""
    found: list[list[Call]] = []
    window: list[Call] | None = None
    socket = ""
    for call in seen:
        if window is None:
            if call.name in ("recvfrom", "read") and f'"GET {path} ' in call.rest:
                window, socket = [], call.descriptor
        elif call.name in ("sendto", "sendmsg", "write", "writev") and "HTTP/1.1 200" in call.rest:
            assert call.descriptor == socket
            found.append(window)
            window = None
        elif call.descriptor != socket:
            window.append(call)
    return found


def test_a_scrape_does_no_io(tmp_path: Path) -> None:
    with Site() as site, Watched(site.nodes["c1"], STILL) as exporter:
        wait_until(lambda: "mec_integration_bridge_flows" in exporter.metrics(), 20, "every source has answered")
        state = site.nodes["c1"].dir / "state" / "state.json"
        wait_until(lambda: state.exists() and words(state) >= REMEMBERED, 20, "all that it remembers is saved")
        assert exporter.process is not None
        trace = tmp_path / "trace"
        with traced(exporter.process.pid, trace):
            for _ in range(SCRAPES):
                for path in PAGES:
                    scrape(exporter.port, path)
        seen = calls(trace)
        for path in PAGES:
            windows = answers(seen, path)
            assert len(windows) == SCRAPES, f"{path}: not every answer was seen"
            assert {call.name for window in windows for call in window} <= OWN, path
