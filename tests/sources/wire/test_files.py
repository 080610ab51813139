"""Small files, and words for what stands in the way of reading them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.wire.files import MAX_BYTES, denied, read_small
from tests.sources.daemons import short_dir
from tests.sources.wire.test_jsonrpc import another_user

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def why_not(path: Path, max_bytes: int = MAX_BYTES) -> SourceError:
    with pytest.raises(SourceError) as caught:
        read_small(path, max_bytes)
    return caught.value


@pytest.mark.parametrize("content", [b"", b"x\n", bytes(range(256)), b"x" * MAX_BYTES], ids=len)
def test_what_is_in_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f").write_bytes(content)
    assert read_small(tmp_path / "f") == content


def test_a_file_of_proc_whose_size_is_not_told(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc/self/cmdline")
    assert b"python" in read_small(tmp_path / "link")


@pytest.mark.parametrize(
    ("make", "reason", "words"),
    [
        pytest.param(lambda _: None, Reason.MISSING, "no ", id="nothing"),
        pytest.param(lambda f: f.symlink_to("gone"), Reason.MISSING, "no ", id="a link to nothing"),
        pytest.param(os.mkfifo, Reason.GARBAGE, "is no regular file", id="a FIFO"),
        pytest.param(lambda f: f.mkdir(), Reason.GARBAGE, "is no regular file", id="a directory"),
        pytest.param(lambda f: f.symlink_to("/dev/zero"), Reason.GARBAGE, "is no regular file", id="a device"),
        pytest.param(lambda f: f.symlink_to("f"), Reason.GARBAGE, "symbolic links", id="a loop"),
        pytest.param(lambda f: f.write_bytes(b"12345"), Reason.TOO_LARGE, "more than 4 bytes", id="too much"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, make: Callable[[Path], None], reason: Reason, words: str) -> None:
    make(tmp_path / "f")
    error = why_not(tmp_path / "f", 4)
    assert error.reason is reason
    assert str(tmp_path / "f") in error.why
    assert words in error.why


def test_below_a_file_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    assert why_not(tmp_path / "f" / "g").reason is Reason.MISSING


def test_nothing_stays_open(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # a count
    for _ in range(20):
        read_small(tmp_path / "f")
        why_not(tmp_path / "f", 4)
        why_not(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208  # as above


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
class TestDenied:
    """The first obstacle from the root down is the one that is named."""

    def test_a_file(self) -> None:
        with short_dir() as directory:
            directory.chmod(0o755)
            file = directory / "f"
            file.touch(0o600)
            with another_user() as user:
                error = why_not(file)
            assert error.reason is Reason.PERMISSION
            assert user in error.why
            assert f"may not read {file}: lacks read (r) on {file} (-rw-------, owner 0, group 0)" in error.why

    def test_a_directory_on_the_way(self) -> None:
        with short_dir() as directory:
            directory.chmod(0o700)
            with another_user() as user:
                error = why_not(directory / "a" / "b")
            assert user in error.why
            assert f"lacks search (x) on {directory} (drwx------, owner 0, group 0)" in error.why

    def test_a_socket(self) -> None:
        with short_dir() as directory:
            directory.chmod(0o755)
            file = directory / "s"
            file.touch(0o644)
            with another_user():
                error = denied(file, "connect to")
            assert f"may not connect to {file}: lacks write (w) on {file}" in error.why

    def test_what_no_mode_explains(self, tmp_path: Path) -> None:
        assert "a sandbox, AppArmor or SELinux forbids it" in denied(tmp_path, "read").why
