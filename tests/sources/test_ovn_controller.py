"""A real ovn-controller by its control socket, and answers that it does not give."""

from __future__ import annotations

import asyncio
import json
import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.ovn_controller import OvnControllerSource
from mecexporter.sources.wire.jsonrpc import Framer
from mecexporter.state.ovn_daemon import Work
from tests.faults.servers import JSON, Behaviour, hostile
from tests.sources.daemons import Daemon, OvsdbServer, run, running, short_dir
from tests.waiting import eventually
from tests.worlds import healthy_compute

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mecexporter.state.ovn import OvnController

WORLD = healthy_compute()


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """Beside a conf.db without anything in it."""
    with short_dir() as directory:
        server = OvsdbServer(directory, "Open_vSwitch")
        with running(server):
            run("ovs-vsctl", "--no-wait", f"--db=unix:{server.socket}", "init")
            controller = Daemon(directory, "ovn-controller", f"unix:{server.socket}")
            with running(controller):
                yield controller


@pytest.fixture
def source(daemon: Daemon) -> OvnControllerSource:
    return OvnControllerSource(daemon.run_dir, None, 15)


@contextmanager
def told(daemon: Daemon, command: str, undo: str) -> Iterator[None]:
    run("ovn-appctl", "-t", str(daemon.control), command)
    try:
        yield
    finally:
        run("ovn-appctl", "-t", str(daemon.control), undo)


async def read(asked: OvnControllerSource) -> OvnController:
    try:
        async with asyncio.timeout(10):
            return await asked.read(WORLD)
    finally:
        await asked.close()


async def comes_to_be(asked: OvnControllerSource, *, connected: bool) -> None:
    async with asyncio.timeout(20):
        while True:
            if (await read(asked)).connected is connected:
                return


async def why_not(asked: OvnControllerSource) -> SourceError:
    with pytest.raises(SourceError) as caught:
        await read(asked)
    return caught.value


async def test_what_it_says_of_itself(source: OvnControllerSource) -> None:
    found = await read(source)
    assert f"ovn-controller {found.version}" in run("ovn-controller", "--version")
    assert (found.connected, found.paused) == (False, False), "nobody told it of a Southbound"
    assert (found.txn_errors, found.txn_rises) == (0, ())


async def test_each_read_after_the_first_compares(source: OvnControllerSource) -> None:
    rises = [(await read(source)).txn_rises for _ in range(7)]
    assert rises == [(False,) * min(n, 4) for n in range(7)]


async def test_paused(daemon: Daemon, source: OvnControllerSource) -> None:
    with told(daemon, "debug/pause", "debug/resume"):
        assert (await read(source)).paused
    assert not (await read(source)).paused


async def test_a_control_socket_that_is_configured_comes_before_the_pidfile(daemon: Daemon, tmp_path: Path) -> None:
    assert (await read(OvnControllerSource(tmp_path, daemon.control, 15))).version


async def test_connected(daemon: Daemon, source: OvnControllerSource) -> None:
    southbound_dir = daemon.run_dir / "sb"
    southbound_dir.mkdir()
    southbound = OvsdbServer(southbound_dir, "OVN_Southbound")
    db = f"--db=unix:{daemon.run_dir}/db.sock"
    with running(southbound):
        remote = json.dumps(f"unix:{southbound.socket}")
        run("ovs-vsctl", "--no-wait", db, "set", "Open_vSwitch", ".", f"external_ids:ovn-remote={remote}")
        await comes_to_be(source, connected=True)
    run("ovs-vsctl", "--no-wait", db, "clear", "Open_vSwitch", ".", "external_ids")
    await comes_to_be(source, connected=False)


async def test_killed_hanging_stopped_and_back(daemon: Daemon, source: OvnControllerSource) -> None:
    assert (await read(source)).version
    daemon.suspend()
    try:
        hurried = OvnControllerSource(daemon.run_dir, None, 15)
        hurried._client._deadline = 0.3
        assert (await why_not(hurried)).reason is Reason.TIMEOUT
    finally:
        daemon.resume()
    daemon.kill()
    assert (await why_not(source)).reason is Reason.REFUSED
    daemon.start()
    assert (await read(source)).version
    daemon.stop()
    await eventually(lambda: not daemon.control.exists(), 10, "its socket is gone")
    assert (await why_not(source)).reason is Reason.MISSING
    daemon.start()


async def test_a_socket_that_cannot_be_asked_is_no_dead_daemon(daemon: Daemon, tmp_path: Path) -> None:
    far = tmp_path / ("x" * 100)  # sun_path has 108 bytes
    far.symlink_to(daemon.run_dir)
    error = await why_not(OvnControllerSource(far, None, 15))
    assert (error.reason, "too long" in error.why) == (Reason.GARBAGE, True)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        error = await why_not(OvnControllerSource(daemon.run_dir, daemon.control, 15))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (error.reason, "Too many open files" in error.why) == (Reason.GARBAGE, True)


@pytest.mark.parametrize(("name", "reason"), [("garbage", Reason.GARBAGE), ("close_at_once", Reason.CLOSED)])
async def test_somebody_else_behind_its_socket(
    daemon: Daemon, source: OvnControllerSource, name: str, reason: Reason
) -> None:
    async with hostile(daemon.control, JSON[name]):
        assert (await why_not(source)).reason is reason
    assert (await read(source)).version


def answering(**answers: str) -> Behaviour:
    """A double that says these, and else what a healthy one says (OVN 23.03); of its work nothing."""
    said = {
        "connection-status": "connected",
        "debug/status": "running",
        "coverage/read-counter": "0\n",
        "version": "ovn-controller 23.03.1\nOpen vSwitch Library 3.1.0\n",
    } | answers

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        framer = Framer("client", 4096)
        while chunk := await reader.read(4096):
            for request in framer.feed(chunk):
                asked = json.loads(request)
                text = said.get(asked["method"])
                answer = {"result": text, "error": None} if text is not None else {"error": "not a valid command"}
                writer.write(json.dumps({"id": asked["id"], **answer}).encode())

    return behave


CONNECTION, STATUS, COUNTER, VERSION = "connection-status", "debug/status", "coverage/read-counter", "version"


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (CONNECTION, "connected to everything"),
        (CONNECTION, ""),
        (STATUS, "walking"),
        (COUNTER, "-1"),
        (COUNTER, "1e3"),
        (COUNTER, "many"),
    ],
)
async def test_an_answer_of_another_kind_is_none(tmp_path: Path, command: str, text: str) -> None:
    with short_dir() as directory:
        async with hostile(directory / "c", answering(**{command: text})):
            assert (await why_not(OvnControllerSource(tmp_path, directory / "c", 15))).reason is Reason.GARBAGE


async def test_a_version_that_it_does_not_tell_costs_nothing_else(tmp_path: Path) -> None:
    with short_dir() as directory:
        async with hostile(directory / "c", answering(**{VERSION: "custom build"})):
            found = await read(OvnControllerSource(tmp_path, directory / "c", 15))
    assert (found.version, found.connected) == (None, True)


async def test_a_release_that_tells_nothing_of_its_work(tmp_path: Path) -> None:
    with short_dir() as directory:
        async with hostile(directory / "c", answering(**{COUNTER: "7\n"})):
            found = await read(OvnControllerSource(tmp_path, directory / "c", 15))
    assert (found.connected, found.txn_errors) == (True, 7)
    # The double says 7 for whatever counter.
    assert found.work == Work(full_recomputes=7, long_polls=7, lflow_cache_lookups={"hit": 7, "miss": 7})


async def test_a_counter_that_rises_and_begins_anew(tmp_path: Path) -> None:
    counts = iter([5, 5, 7, 2, 2, 0, 3])
    rises: tuple[bool, ...] = ()
    with short_dir() as directory:
        source = OvnControllerSource(tmp_path, directory / "c", 15)
        for count in counts:
            async with hostile(directory / "c", answering(**{COUNTER: f"{count}\n"})):
                found = await read(source)
                rises = found.txn_rises
                assert found.txn_errors == count
    # 7 -> 2 is a restart with two errors since, 2 -> 0 one without.
    assert rises == (True, False, False, True)
