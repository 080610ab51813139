"""A daemon's process, by its pidfile and proc(5)."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mecexporter.errors import SourceError
from mecexporter.sources.wire.files import read_small
from mecexporter.sources.wire.unixctl import locate_by_pidfile

if TYPE_CHECKING:
    from pathlib import Path

# Fields of /proc/PID/stat by their numbers in proc(5), counted after the program's name, which is the second.
_UTIME, _STIME, _STARTTIME, _RSS = (number - 3 for number in (14, 15, 22, 24))


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One run of a daemon.

    Attributes:
        start: tells it from every other run: boot, pid and time of its start.
        age: seconds.
        cpu_seconds: user and system time since its start, all threads.
        resident_bytes: memory that it holds now.
    """

    start: str
    age: float
    cpu_seconds: float
    resident_bytes: int


def process_of(run_dir: Path, daemon: str, proc: Path) -> Process | None:
    """The process that a pidfile names; None where that can't be told.

    The pidfile of another pid namespace leads to another program, or to none.
    """
    try:
        pid = locate_by_pidfile(run_dir, daemon).name.split(".")[-2]
        stat = read_small(proc / pid / "stat").decode("utf-8", "replace")
        boot = read_small(proc / "sys/kernel/random/boot_id").decode("utf-8", "replace").strip()
    except SourceError:
        return None
    before, _, after = stat.rpartition(") ")
    fields = after.split()
    if before != f"{pid} ({daemon}" or len(fields) <= _RSS:
        return None
    wanted = [fields[i] for i in (_UTIME, _STIME, _STARTTIME, _RSS)]
    if not all(field.isdigit() for field in wanted):
        return None
    utime, stime, started, pages = map(int, wanted)
    ticks = os.sysconf("SC_CLK_TCK")
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - started / ticks
    if age < 0:
        return None
    return Process(
        start=f"{boot}/{pid}/{started}",
        age=age,
        cpu_seconds=(utime + stime) / ticks,
        resident_bytes=pages * os.sysconf("SC_PAGE_SIZE"),
    )
