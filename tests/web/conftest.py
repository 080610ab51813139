"""A site of which a test says what is known, and real clients."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import pytest

from mecexporter.checks.base import Finding, Severity, check, unknown
from mecexporter.errors import MecExporterError
from mecexporter.state.observed import Fresh
from mecexporter.state.world import Role
from mecexporter.web.listen import serve
from mecexporter.web.server import create_app
from tests.worlds import healthy_compute, view_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from aiohttp import web

    from mecexporter.checks.base import Verdict
    from mecexporter.metrics.registry import View
    from mecexporter.state.world import World

CALL_TIMEOUT = 10  # seconds, for any one command


@dataclass
class FakeSite:
    """A Site that says what it is told to."""

    now: View = field(default_factory=lambda: view_of(healthy_compute()))
    is_ready: bool = True
    forgotten: list[str] = field(default_factory=list)

    def view(self) -> View:
        return self.now

    def ready(self) -> bool:
        return self.is_ready

    async def forget(self, what: str) -> None:
        if what != "identity":
            raise MecExporterError(f"nothing is remembered as {what!r}")
        self.forgotten.append(what)


class Serve(Protocol):
    async def __call__(self, app: web.Application, ssl_context: ssl.SSLContext | None = None) -> int: ...


@check(severity=Severity.CRITICAL, title="a toy", roles=frozenset(Role), sources=("openflow",), alert_for="1m")
def needs_openflow(world: World) -> Verdict:
    """Can't tell without openflow, and finds nothing with it."""
    return () if isinstance(world.openflow, Fresh) else unknown(world, "openflow")


@check(severity=Severity.WARNING, title="a toy", roles=frozenset(Role), sources=("ovs",), alert_for="1m")
def finds_a_thousand(world: World) -> Verdict:
    """Finds much."""
    return tuple(Finding(subject=f"tap{n}", summary="no", remedy="mend", read_at=world.now) for n in range(1000))


@pytest.fixture
def site() -> FakeSite:
    return FakeSite()


@pytest.fixture
async def serving() -> AsyncIterator[Serve]:
    """Serves an application on a free port of 127.0.0.1 until the test is over; returns the port."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(app: web.Application, ssl_context: ssl.SSLContext | None = None) -> int:
            runner = await serve(app, "127.0.0.1", 0, ssl_context)
            stack.push_async_callback(runner.cleanup)
            return int(runner.addresses[0][1])

        yield start


@pytest.fixture
async def url(site: FakeSite, serving: Serve) -> str:
    """Where the plain application of ``site`` listens."""
    return f"http://127.0.0.1:{await serving(create_app(site))}"


async def run(*argv: str, stdin: bytes = b"") -> tuple[int, bytes]:
    """A real client: exit status and everything it said."""
    async with asyncio.timeout(CALL_TIMEOUT):
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said, _ = await process.communicate(stdin)
    assert process.returncode is not None
    return process.returncode, said


async def status_of(*args: str) -> int:
    """The HTTP status that curl sees; 0 where there was no answer at all."""
    _, said = await run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "5", *args)
    return int(said)
