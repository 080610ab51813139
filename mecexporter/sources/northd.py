"""ovn-northd by its control socket (ovn-northd(8), RUNTIME MANAGEMENT COMMANDS)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.base import Source
from mecexporter.sources.ovn_daemon import NORTHD_WORK, told, work
from mecexporter.sources.wire.process import process_of
from mecexporter.sources.wire.unixctl import UnixctlClient, locate_by_pidfile
from mecexporter.state.ovn_db import Database, Northd
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from mecexporter.state.world import World

_DAEMON = "ovn-northd"
_CONNECTIONS = {Database.NORTHBOUND: "nb-connection-status", Database.SOUTHBOUND: "sb-connection-status"}
_STATES = ("active", "standby", "paused")


class NorthdSource(Source[Northd]):
    """Asks this host's northd.

    Args:
        run_dir: where its pidfile and socket are.
        control: a socket that overrides what the pidfile says, or None.
        interval: seconds between reads.
        proc: where the processes of this host are.
    """

    name = "northd"
    roles = frozenset({Role.CENTRAL})

    def __init__(self, run_dir: Path, control: Path | None, interval: float, *, proc: Path = Path("/proc")) -> None:
        self.interval = interval
        self._run_dir, self._proc = run_dir, proc
        self._client = UnixctlClient(lambda: control or locate_by_pidfile(run_dir, _DAEMON), max_bytes=1 << 20)

    def configured(self, world: World) -> bool:
        """A host of databases need not have one; one that was ever seen is remembered."""
        return world.memory.northd

    async def read(self, world: World) -> Northd:  # noqa: ARG002  # asks the same whatever the World
        """Raises SourceError; GARBAGE where an answer is none of the known ones."""
        answers = await self._client.run_all(("status", "version", *_CONNECTIONS.values(), *NORTHD_WORK))
        status = told(answers, "status").strip().removeprefix("Status: ")
        if status not in _STATES:
            raise SourceError(Reason.GARBAGE, f"ovn-northd calls itself {status!r:.40}")
        version = re.match(r"ovn-northd (\S+)", told(answers, "version"))
        return Northd(
            version=version[1] if version else None,
            active=status == "active",
            paused=status == "paused",
            connected={db: _connected(command, told(answers, command)) for db, command in _CONNECTIONS.items()},
            work=work(answers, process_of(self._run_dir, _DAEMON, self._proc)),
        )

    async def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _connected(command: str, said: str) -> bool:
    if said.strip() not in ("connected", "not connected"):
        raise SourceError(Reason.GARBAGE, f"ovn-northd: {command} says {said!r:.40}")
    return said.strip() == "connected"
