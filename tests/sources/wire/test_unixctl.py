import asyncio
import functools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.wire.unixctl import UnixctlClient, locate_by_pidfile
from tests.faults.servers import JSON, hostile, says
from tests.sources.daemons import Node, ovs_node, run
from tests.sources.wire.test_jsonrpc import WANTED, another_user, bounded, failure, mode, patience
from tests.waiting import eventually


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with ovs_node() as node:
        node.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=dummy", "fail-mode=secure")
        yield node


@pytest.fixture
def vswitchd(node: Node) -> Iterator[UnixctlClient]:
    client = UnixctlClient(functools.partial(locate_by_pidfile, node.run_dir, "ovs-vswitchd"), deadline=10)
    yield client
    client.close()


def at(path: Path, deadline: float = 5) -> UnixctlClient:
    return UnixctlClient(lambda: path, deadline=deadline, max_bytes=4 << 20)


# --- pidfiles


def test_the_pidfile_leads_to_the_socket(tmp_path: Path) -> None:
    (tmp_path / "ovn-controller.pid").write_text("1234\n")
    assert locate_by_pidfile(tmp_path, "ovn-controller") == tmp_path / "ovn-controller.1234.ctl"


@pytest.mark.parametrize("directory", [".", "nothing/here", "file"])
def test_without_a_pidfile_the_daemon_is_not_running_here(tmp_path: Path, directory: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SourceError, match=r"no .*/ovn-controller.pid: ovn-controller is not running here") as caught:
        locate_by_pidfile(tmp_path / directory, "ovn-controller")
    assert caught.value.reason is Reason.MISSING


@pytest.mark.parametrize("content", [b"", b"12", b"0\n", b"12\n13\n", b"../../x\n", b"\xff\xfe\n", b"1" * 60 + b"\n"])
def test_a_torn_or_foreign_pidfile_is_garbage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d.pid").write_bytes(content)
    with pytest.raises(SourceError, match=r"d\.pid: holds b'.*', not a pid and a newline") as caught:
        locate_by_pidfile(tmp_path, "d")
    assert caught.value.reason is Reason.GARBAGE


def test_a_pidfile_that_is_no_file_does_not_hold_us(tmp_path: Path) -> None:
    (tmp_path / "dir.pid").mkdir()
    os.mkfifo(tmp_path / "fifo.pid")
    (tmp_path / "loop.pid").symlink_to("loop.pid")
    for daemon in ("dir", "fifo", "loop"):
        with pytest.raises(SourceError) as caught:
            locate_by_pidfile(tmp_path, daemon)
        assert caught.value.reason is Reason.GARBAGE


def test_a_pidfile_that_may_not_be_read(node: Node) -> None:
    secret = node.run_dir / "secret.pid"
    secret.write_text("1\n")
    mode(node.run_dir, 0o755)
    mode(secret, 0)
    with another_user() as user, pytest.raises(SourceError) as caught:
        locate_by_pidfile(node.run_dir, "secret")
    mode(node.run_dir, 0o700)
    assert caught.value.reason is Reason.PERMISSION
    assert user in caught.value.why
    assert f"may not read {secret}: lacks read (r) on {secret}" in caught.value.why


# --- a real daemon


async def test_commands_say_what_ovs_appctl_says(node: Node, vswitchd: UnixctlClient) -> None:
    for command in (["version"], ["fdb/show", "br0"], ["list-commands"], ["coverage/read-counter", "txn_error"]):
        # ovs-appctl adds a newline where there is none.
        printed = run("ovs-appctl", "-t", str(node.vswitchd.control), *command)
        assert (await vswitchd.run(*command)).removesuffix("\n") == printed.removesuffix("\n")


async def test_what_the_daemon_refuses_comes_in_its_own_words(node: Node, vswitchd: UnixctlClient) -> None:
    error = await failure(vswitchd.run("no/such"))
    assert error.reason is Reason.ANSWERED_ERROR
    assert '"no/such" is not a valid command' in error.why
    assert str(node.vswitchd.control) in error.why
    assert "no such bridge" in (await failure(vswitchd.run("fdb/show", "br9"))).why
    assert "VLAN" in await vswitchd.run("fdb/show", "br0")  # on the same connection


async def test_a_daemon_that_hangs_then_wakes_then_dies_then_comes_back(node: Node, vswitchd: UnixctlClient) -> None:
    client = UnixctlClient(vswitchd._locate, deadline=0.5)
    assert "Open vSwitch" in await client.run("version")
    node.vswitchd.suspend()
    try:
        for _ in range(2):  # on the kept connection, and on a new one
            began = time.monotonic()
            error = await failure(client.run("version"))
            assert error.reason is Reason.TIMEOUT
            assert time.monotonic() - began < 2
    finally:
        node.vswitchd.resume()
    assert "Open vSwitch" in await vswitchd.run("version")

    node.vswitchd.kill()
    error = await failure(vswitchd.run("version"))
    assert error.reason in (Reason.REFUSED, Reason.CLOSED)  # CLOSED if the kernel's news of the end came in between
    assert (await failure(vswitchd.run("version"))).reason is Reason.REFUSED

    node.vswitchd.start()
    assert "Open vSwitch" in await vswitchd.run("version")
    node.vswitchd.stop()
    assert (await failure(vswitchd.run("version"))).reason is Reason.MISSING
    node.vswitchd.start()
    assert "Open vSwitch" in await vswitchd.run("version")


async def test_several_at_once_are_answered_in_one_wait(node: Node) -> None:
    """The daemon, which hears nothing for a while, has them all when it wakes: one that came after another had not."""
    client = UnixctlClient(lambda: node.vswitchd.control, deadline=10)
    node.vswitchd.suspend()
    asked = asyncio.create_task(client.run_all(["version", "nonesuch", "coverage/read-counter txn_error"]))
    try:
        await eventually(
            lambda: client._kept._stream is not None and len(client._kept._stream._waiting) == 3, 10, "sent"
        )
    finally:
        node.vswitchd.resume()
    said = await asked
    assert list(said) == ["version", "nonesuch", "coverage/read-counter txn_error"]
    assert "Open vSwitch" in str(said["version"])
    error = said["nonesuch"]
    assert isinstance(error, SourceError)
    assert error.reason is Reason.ANSWERED_ERROR
    assert str(said["coverage/read-counter txn_error"]).strip().isdigit()
    client.close()


async def test_several_at_once_fail_together(node: Node) -> None:
    path = node.run_dir / "hostile.ctl"
    async with hostile(path, JSON["close_at_once"]):
        client = at(path)
        with pytest.raises(SourceError) as caught:
            await client.run_all(["version", "nonesuch"])
        assert caught.value.reason is Reason.CLOSED
        client.close()


async def test_a_restart_behind_a_pidfile_is_followed_though_the_old_socket_lives(node: Node, tmp_path: Path) -> None:
    pidfile = tmp_path / "d.pid"
    for pid, daemon in ((1, node.vswitchd), (2, node.server)):
        (tmp_path / f"d.{pid}.ctl").symlink_to(daemon.control)
    client = UnixctlClient(functools.partial(locate_by_pidfile, tmp_path, "d"), deadline=10)
    for pid, name in ((1, "ovs-vswitchd"), (2, "ovsdb-server")):
        pidfile.write_text(f"{pid}\n")
        assert name in await client.run("version")
    client.close()


async def test_a_socket_that_something_else_took_over_heals_without_a_restart(
    node: Node, vswitchd: UnixctlClient
) -> None:
    before = await vswitchd.run("version")
    vswitchd.close()
    async with hostile(node.vswitchd.control, JSON["garbage"]):
        assert (await failure(vswitchd.run("version"))).reason is Reason.GARBAGE
    assert await vswitchd.run("version") == before


# --- hostile peers


@pytest.mark.parametrize("name", JSON)
async def test_a_hostile_daemon(node: Node, name: str) -> None:
    path = node.run_dir / "hostile.ctl"
    async with hostile(path, JSON[name]) as server:
        client = at(path, patience(name))
        error = await bounded(lambda: client.run("version"), server)
        assert error.reason is WANTED[name]
        assert str(path) in error.why
        client.close()


async def test_an_answer_that_is_no_text_is_garbage(node: Node) -> None:
    path = node.run_dir / "hostile.ctl"
    async with hostile(path, says(b'{"id":1,"result":["a"],"error":null}')):
        client = at(path)
        error = await failure(client.run("version"))
        assert (error.reason, "not text" in error.why) == (Reason.GARBAGE, True)
        client.close()


async def test_a_name_that_is_no_utf8_hides_nothing_else(node: Node) -> None:
    path = node.run_dir / "hostile.ctl"
    async with hostile(path, says(b'{"id":1,"result":"br\xff0: 7 flows","error":null}')):
        client = at(path)
        assert await client.run("x") == "br�0: 7 flows"
        client.close()
