"""How a daemon of this host was started."""

from __future__ import annotations

import re
from pathlib import Path

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.wire.files import read_small


def read_pid(pidfile: Path, daemon: str) -> str:
    """The pid in a daemon's pidfile; whether a process of that pid lives is not asked.

    Raises:
        SourceError: MISSING (not running here), PERMISSION, or GARBAGE if the pidfile holds no pid.
    """
    try:
        content = read_small(pidfile, 64)
    except SourceError as error:
        if error.reason is Reason.MISSING:
            raise SourceError(Reason.MISSING, f"no {pidfile}: {daemon} is not running here") from None
        raise
    if (pid := re.fullmatch(rb"([1-9]\d{0,9})\n", content)) is None:
        raise SourceError(Reason.GARBAGE, f"{pidfile}: holds {content[:20]!r}, not a pid and a newline")
    return pid[1].decode()


def command_line(proc: Path, pidfile: Path, daemon: str) -> list[str]:
    """The words with which a daemon was started; bytes that are no UTF-8 are replaced.

    Raises:
        SourceError: as :func:`read_pid`; MISSING, too, where the process is gone; GARBAGE where it is another one: its
            pidfile is left over, or from another pid namespace.
    """
    pid = read_pid(pidfile, daemon)
    words = read_small(proc / pid / "cmdline").decode("utf-8", "replace").split("\0")
    if not any(Path(word).name == daemon for word in words):
        raise SourceError(Reason.GARBAGE, f"process {pid} is not {daemon}: its pidfile is from another pid namespace")
    return words
