"""ovn-controller by its control socket (ovn-controller(8), RUNTIME MANAGEMENT COMMANDS)."""

from __future__ import annotations

import re
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.base import Source
from mecexporter.sources.ovn_daemon import CONTROLLER_WORK, told, work
from mecexporter.sources.wire.process import process_of
from mecexporter.sources.wire.unixctl import UnixctlClient, locate_by_pidfile
from mecexporter.state.ovn import OvnController
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from mecexporter.state.world import World

_DAEMON = "ovn-controller"
_ESSENTIAL = ("connection-status", "debug/status", "coverage/read-counter txn_error", "version")
_READS = 4  # 'in 3 of the last 4 live reads' (contract)


class OvnControllerSource(Source[OvnController]):
    """Asks a handful of questions that cost the daemon microseconds.

    Args:
        run_dir: where its pidfile and socket are.
        control: a socket that overrides what the pidfile says, or None.
        interval: seconds between reads.
        proc: where the processes of this host are.
    """

    name = "ovn_controller"
    roles = frozenset({Role.COMPUTE})

    def __init__(self, run_dir: Path, control: Path | None, interval: float, *, proc: Path = Path("/proc")) -> None:
        self.interval = interval
        self._run_dir, self._proc = run_dir, proc
        self._client = UnixctlClient(lambda: control or locate_by_pidfile(run_dir, _DAEMON), max_bytes=1 << 20)
        self._errors: int | None = None
        self._rises: deque[bool] = deque(maxlen=_READS)

    async def read(self, world: World) -> OvnController:  # noqa: ARG002  # asks the same whatever the World
        """Raises SourceError; GARBAGE where an answer is none of the known ones."""
        answers = await self._client.run_all((*_ESSENTIAL, *CONTROLLER_WORK))
        connection, status, counter, version = (told(answers, command) for command in _ESSENTIAL)
        if connection.strip() not in ("connected", "not connected") or status.strip() not in ("running", "paused"):
            raise SourceError(Reason.GARBAGE, f"ovn-controller calls itself {connection!r:.40}, {status!r:.40}")
        if not re.fullmatch(r"\d+\s*", counter):
            raise SourceError(Reason.GARBAGE, f"ovn-controller counts txn_error as {counter!r:.40}")
        errors = int(counter)
        if self._errors is not None:
            # A count that fell began again at 0 with the daemon.
            self._rises.append(errors > (self._errors if errors >= self._errors else 0))
        self._errors = errors
        return OvnController(
            version=_version(version),
            connected=connection.strip() == "connected",
            paused=status.strip() == "paused",
            txn_errors=errors,
            txn_rises=tuple(self._rises),
            work=work(answers, process_of(self._run_dir, _DAEMON, self._proc)),
        )

    async def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _version(text: str) -> str | None:
    """The number in ``ovn-controller 23.03.1`` (its first line)."""
    found = re.match(r"ovn-controller (\S+)", text)
    return found[1] if found else None
