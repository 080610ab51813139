"""Files and /proc of this host: ids, how daemons were started, the signs of its roles, versions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mecexporter.aside import OneAtATime
from mecexporter.errors import SourceError
from mecexporter.sources.base import Source
from mecexporter.sources.wire.files import read_small
from mecexporter.sources.wire.processes import command_line
from mecexporter.state.host import HostFacts, IdFile

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mecexporter.state.world import World

DEFAULT_ID_FILE = Path("/etc/openvswitch/system-id.conf")
_OVS_UNITS = tuple(Path(d) / "ovsdb-server.service" for d in ("/etc/systemd/system", "/usr/lib/systemd/system"))


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPaths:
    """Where to look; every root can be another directory in a test.

    Attributes:
        signs: ``compute``, ``northd`` or a database's name -> glob patterns of paths, any of which shows it.
        units: unit files of ovsdb-server that say how ovs-ctl is called.
    """

    proc: Path
    system_id_file: Path
    override_file: Path
    ovn_run_dir: Path
    signs: dict[str, tuple[str, ...]]
    units: tuple[Path, ...] = _OVS_UNITS


class HostSource(Source[HostFacts]):
    """Reads a dozen small files, in a thread, as any of them may be on a file system that hangs.

    Args:
        paths: where to look.
        interval: seconds between reads.
    """

    name = "host"

    def __init__(self, paths: HostPaths, interval: float) -> None:
        self.interval = interval
        self._paths = paths
        self._reads: OneAtATime[HostFacts] = OneAtATime("a file system does not answer")

    async def read(self, world: World) -> HostFacts:  # noqa: ARG002  # asks the same whatever the World
        """Raises SourceError only where /proc itself can't be read; each file's trouble is part of the facts."""
        return await self._reads.call(self._read)

    def _read(self) -> HostFacts:
        paths = self._paths
        commandline_id, commandline_why = self._commandline_id()
        return HostFacts(
            kernel=_read_small(paths.proc / "sys/kernel/osrelease").strip(),
            system_id_file=_id_file(paths.system_id_file),
            override_file=_override_file(paths.override_file),
            commandline_id=commandline_id,
            commandline_why=commandline_why,
            starts_from_file=self._starts_from_file(),
            signs={
                sign: str(found)
                for sign, patterns in paths.signs.items()
                if (found := next((path for pattern in patterns for path in _matches(pattern)), None))
            },
        )

    def _commandline_id(self) -> tuple[str | None, str | None]:
        """ovn-controller's ``-n`` (ovn-controller(8)); the process may be out of sight in another pid namespace."""
        try:
            pidfile = self._paths.ovn_run_dir / "ovn-controller.pid"
            return _option_n(command_line(self._paths.proc, pidfile, "ovn-controller")), None
        except SourceError as error:
            return None, error.why

    def _starts_from_file(self) -> str | None:
        """Debian's and RHEL's units call ``ovs-ctl --system-id=random``, which keeps the id in the default file."""
        if self._paths.system_id_file != DEFAULT_ID_FILE:
            return None
        for unit in self._paths.units:
            try:
                if "--system-id=random" in _read_small(unit):
                    return f"{unit} calls ovs-ctl --system-id=random"
            except SourceError:
                continue
        return None


def _matches(pattern: str) -> Iterable[Path]:
    return Path(pattern).parent.glob(Path(pattern).name)


def _option_n(words: Iterable[str]) -> str | None:
    words = list(words)
    found: str | None = None
    for at, word in enumerate(words):
        if word == "-n" and at + 1 < len(words):
            found = words[at + 1]
        elif re.match(r"-n[^-]", word):
            found = word[2:]
    return found


def _id_file(path: Path) -> IdFile:
    try:
        return IdFile(path=str(path), content=_read_small(path).strip())
    except SourceError as error:
        return IdFile(path=str(path), content=None, trouble=error.reason, why=error.why)


def _override_file(path: Path) -> IdFile:
    """ovn-controller takes the first line as it is, spaces included, and an empty file as none."""
    try:
        text = _read_small(path)
    except SourceError as error:
        return IdFile(path=str(path), content=None, trouble=error.reason, why=error.why)
    return IdFile(path=str(path), content=text.partition("\n")[0] if text else None)


def _read_small(path: Path) -> str:
    """Text of a small file; bytes that are no UTF-8 are replaced."""
    return read_small(path).decode("utf-8", "replace")
