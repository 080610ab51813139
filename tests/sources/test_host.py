"""Files and /proc, on a tree of this test's own; rights as another user has them."""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.host import DEFAULT_ID_FILE, HostPaths, HostSource
from tests.sources.wire.test_jsonrpc import another_user
from tests.waiting import eventually
from tests.worlds import healthy_compute

if TYPE_CHECKING:
    from pathlib import Path

    from mecexporter.state.host import HostFacts

WORLD = healthy_compute()


@pytest.fixture
def paths(tmp_path: Path) -> HostPaths:
    """A host that has nothing but a kernel."""
    kernel = tmp_path / "proc/sys/kernel/osrelease"
    kernel.parent.mkdir(parents=True)
    kernel.write_text("6.1.0-30-amd64\n")
    (tmp_path / "run").mkdir()
    return HostPaths(
        proc=tmp_path / "proc",
        system_id_file=tmp_path / "etc/system-id.conf",
        override_file=tmp_path / "etc/system-id-override",
        ovn_run_dir=tmp_path / "run",
        signs={
            "compute": (f"{tmp_path}/run/ovn-controller.pid", f"{tmp_path}/run/ovn-controller.*.ctl"),
            "central": (f"{tmp_path}/run/ovnnb_db.sock",),
        },
        units=(tmp_path / "unit", tmp_path / "vendor-unit"),
    )


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    return tmp_path / "etc"


async def read(paths: HostPaths) -> HostFacts:
    return await HostSource(paths, 15).read(WORLD)


async def test_a_bare_host(paths: HostPaths) -> None:
    facts = await read(paths)
    assert facts.kernel == "6.1.0-30-amd64"
    assert (facts.system_id_file.content, facts.system_id_file.trouble) == (None, Reason.MISSING)
    assert (facts.override_file.content, facts.override_file.trouble) == (None, Reason.MISSING)
    assert facts.commandline_id is None
    assert "ovn-controller is not running here" in (facts.commandline_why or "")
    assert facts.starts_from_file is None
    assert facts.signs == {}


@pytest.mark.parametrize(
    ("content", "system_id"),
    [
        (b"3f2a8c1e\n", "3f2a8c1e"),
        (b"  padded \n\n", "padded"),
        (b"", ""),
        (b"\n", ""),
        ("naïve 名\n".encode(), "naïve 名"),
        (b"bad \xff byte\n", "bad \ufffd byte"),
    ],
)
async def test_the_id_file(paths: HostPaths, etc: Path, content: bytes, system_id: str) -> None:
    (etc / "system-id.conf").write_bytes(content)
    file = (await read(paths)).system_id_file
    assert (file.path, file.content, file.trouble) == (str(etc / "system-id.conf"), system_id, None)


@pytest.mark.parametrize(
    ("content", "system_id"),
    [
        pytest.param(b"over3\n", "over3", id="a line"),
        pytest.param(b"over3", "over3", id="without its end"),
        pytest.param(b"  over3 trailing \nmore\n", "  over3 trailing ", id="the first line, spaces and all"),
        pytest.param(b"", None, id="an empty file is none"),
        pytest.param(b"\nx\n", "", id="an empty first line is an empty id"),
    ],
)
async def test_the_override_is_read_as_ovn_controller_reads_it(
    paths: HostPaths, etc: Path, content: bytes, system_id: str | None
) -> None:
    (etc / "system-id-override").write_bytes(content)
    file = (await read(paths)).override_file
    assert (file.content, file.trouble) == (system_id, None)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.mkdir()


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def huge(path: Path) -> None:
    path.write_bytes(b"x" * 70_000)


@pytest.mark.parametrize(
    ("make", "reason"),
    [(fifo, Reason.GARBAGE), (directory, Reason.GARBAGE), (loop, Reason.GARBAGE), (huge, Reason.TOO_LARGE)],
)
async def test_what_is_no_small_file_troubles_only_itself(
    paths: HostPaths, etc: Path, make: object, reason: Reason
) -> None:
    assert callable(make)
    make(etc / "system-id.conf")
    make(etc / "system-id-override")
    facts = await read(paths)
    for file in (facts.system_id_file, facts.override_file):
        assert (file.content, file.trouble) == (None, reason)
        assert file.path in (file.why or "")
    assert facts.kernel


async def test_a_file_that_we_may_not_read_says_who_may_not(paths: HostPaths, etc: Path) -> None:
    file = etc / "system-id.conf"
    file.write_text("x")
    file.chmod(0)
    for parent in (etc, *list(etc.parents)[:4]):
        parent.chmod(parent.stat().st_mode | 0o055)
    with another_user() as user:
        found = HostSource(paths, 15)._read().system_id_file
    assert found.trouble is Reason.PERMISSION
    assert user in (found.why or "")
    assert str(file) in (found.why or "")


async def test_without_proc_there_are_no_facts(paths: HostPaths, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no .*/elsewhere/sys/kernel/osrelease") as caught:
        await read(replace(paths, proc=tmp_path / "elsewhere"))
    assert caught.value.reason is Reason.MISSING


class TestCommandline:
    @staticmethod
    def controller(paths: HostPaths, *words: str) -> None:
        (paths.ovn_run_dir / "ovn-controller.pid").write_text("4711\n")
        process = paths.proc / "4711"
        process.mkdir()
        (process / "cmdline").write_bytes("\0".join([*words, ""]).encode())

    @pytest.mark.parametrize(
        ("words", "system_id"),
        [
            (("ovn-controller", "unix:/db.sock"), None),
            (("/usr/bin/ovn-controller", "-n", "name 1", "unix:/db.sock"), "name 1"),
            (("ovn-controller", "-nname1", "--detach"), "name1"),
            (("ovn-controller", "-n", "a", "-n", "b"), "b"),
            (("ovn-controller", "--no-chdir", "-vconsole:off"), None),
            (("/lib/ld-linux.so.2", "--argv0", "ovn-controller", "/usr/bin/ovn-controller", "-n", "x"), "x"),
        ],
    )
    async def test_its_n(self, paths: HostPaths, words: tuple[str, ...], system_id: str | None) -> None:
        self.controller(paths, *words)
        facts = await read(paths)
        assert (facts.commandline_id, facts.commandline_why) == (system_id, None)

    async def test_a_process_that_is_another_tells_nothing(self, paths: HostPaths) -> None:
        self.controller(paths, "sshd", "-n", "x")
        facts = await read(paths)
        assert facts.commandline_id is None
        assert "4711 is not ovn-controller" in (facts.commandline_why or "")

    async def test_a_process_that_is_gone_tells_nothing(self, paths: HostPaths) -> None:
        (paths.ovn_run_dir / "ovn-controller.pid").write_text("4711\n")
        assert "4711/cmdline" in ((await read(paths)).commandline_why or "")

    async def test_a_foreign_pidfile_tells_nothing(self, paths: HostPaths) -> None:
        (paths.ovn_run_dir / "ovn-controller.pid").write_text("../../etc/passwd\n")
        facts = await read(paths)
        assert facts.commandline_id is None
        assert facts.commandline_why


class TestStart:
    """Debian's units call ovs-ctl with --system-id=random, which keeps the id in the default file."""

    @pytest.mark.parametrize("name", ["unit", "vendor-unit"])
    async def test_a_unit_says_so(self, paths: HostPaths, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_text("ExecStart=/usr/share/openvswitch/scripts/ovs-ctl --system-id=random start\n")
        facts = await read(replace(paths, system_id_file=DEFAULT_ID_FILE))
        assert facts.starts_from_file == f"{tmp_path / name} calls ovs-ctl --system-id=random"

    async def test_no_unit_says_so(self, paths: HostPaths, tmp_path: Path) -> None:
        (tmp_path / "unit").write_text("ExecStart=ovs-ctl --system-id=fixed start\n")
        assert (await read(replace(paths, system_id_file=DEFAULT_ID_FILE))).starts_from_file is None

    async def test_another_file_is_not_ovs_ctls(self, paths: HostPaths, tmp_path: Path) -> None:
        (tmp_path / "unit").write_text("--system-id=random")
        assert (await read(paths)).starts_from_file is None


@pytest.mark.parametrize(
    ("name", "signs"),
    [
        ("ovn-controller.pid", {"compute"}),
        ("ovn-controller.99.ctl", {"compute"}),
        ("ovnnb_db.sock", {"central"}),
        ("ovn-northd.pid", set()),
    ],
)
async def test_signs_of_roles(paths: HostPaths, name: str, signs: set[str]) -> None:
    (paths.ovn_run_dir / name).touch()
    facts = await read(paths)
    assert facts.signs.keys() == signs
    assert set(facts.signs.values()) <= {str(paths.ovn_run_dir / name)}


async def test_a_file_system_that_hangs_holds_one_thread_and_no_more(
    paths: HostPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = HostSource(paths, 15)
    answered, calls = threading.Event(), []

    def hangs() -> HostFacts:
        calls.append(1)
        answered.wait(20)
        return plain()

    plain = source._read
    monkeypatch.setattr(source, "_read", hangs)
    try:
        for _ in range(3):
            with pytest.raises((SourceError, TimeoutError)):
                async with asyncio.timeout(0.05):
                    await source.read(WORLD)
        assert len(calls) == 1
    finally:
        answered.set()
    assert source._reads.running is not None
    await eventually(source._reads.running.done, 10, "the read that hung has ended")
    assert (await source.read(WORLD)).kernel
