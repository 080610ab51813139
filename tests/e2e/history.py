"""A real Prometheus that holds what was written down and scrapes nothing."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING

from tests.dashview.page import fetch
from tests.ports import free_port
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

PATIENCE = 30  # seconds


@contextlib.contextmanager
def history(directory: Path, lines: Iterable[str], *, lookback: int) -> Iterator[str]:
    """The address of one with these samples (``name{labels} value time``), each of which holds for so many seconds."""
    with serving(imported(directory, lines), lookback=lookback) as url:
        yield url


def imported(directory: Path, lines: Iterable[str]) -> Path:
    """Where the blocks are that hold these samples."""
    text, data = directory / "samples", directory / "data"
    text.write_text("\n".join((*lines, "# EOF\n")))
    backfill("--max-block-duration=720h", "openmetrics", text, data)
    return data


def backfill(*argv: str | Path) -> None:
    """Make blocks, as promtool's ``tsdb create-blocks-from`` is told."""
    command = ["promtool", "tsdb", "create-blocks-from", *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@contextlib.contextmanager
def serving(data: Path, *, lookback: int) -> Iterator[str]:
    """The address of one that has these blocks."""
    config = data.with_name("prometheus.yml")
    config.write_text("{}\n")
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--query.lookback-delta={lookback}s",
        "--log.level=error",
    ]
    url = f"http://127.0.0.1:{port}"

    def is_ready() -> bool:
        try:
            return fetch(f"{url}/-/ready")[0] == 200
        except OSError:
            return False

    with subprocess.Popen(command) as process:
        try:
            wait_until(is_ready, PATIENCE, "Prometheus is ready")
            yield url
        finally:
            process.terminate()
