"""Client for the control sockets of OVS and OVN daemons, as ovs-appctl(8) uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.wire.endpoint import Endpoint, within
from mecexporter.sources.wire.jsonrpc import MAX_BYTES, KeptStream
from mecexporter.sources.wire.processes import read_pid

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def locate_by_pidfile(run_dir: Path, daemon: str) -> Path:
    """Where a running daemon's control socket is: ``<run_dir>/<daemon>.<pid>.ctl``, the pid as its pidfile has it.

    Whether a process of that pid lives is not asked: the daemon may be in another pid namespace. The socket tells.

    Raises:
        SourceError: MISSING (not running here), PERMISSION, or GARBAGE if the pidfile holds no pid.
    """
    return run_dir / f"{daemon}.{read_pid(run_dir / f'{daemon}.pid', daemon)}.ctl"


class UnixctlClient:
    """Runs commands on one daemon over a kept connection.

    Args:
        locate: where the socket is now, asked before every command, as a restart moves it; raises SourceError.
        deadline: seconds for a command, connecting included.
        max_bytes: largest answer taken.
    """

    def __init__(self, locate: Callable[[], Path], *, deadline: float = 5.0, max_bytes: int = MAX_BYTES) -> None:
        self._locate = locate
        self._deadline = deadline
        self._kept = KeptStream(tls=None, deadline=deadline, max_bytes=max_bytes)

    async def run(self, command: str, *args: str) -> str:
        """Run a command and return its text.

        Raises:
            SourceError: whatever ``locate`` raises; MISSING or REFUSED (the daemon died), PERMISSION, TIMEOUT (it
                hangs), CLOSED, GARBAGE, TOO_LARGE; ANSWERED_ERROR with the daemon's words.
        """
        path = self._locate()
        async with within(self._deadline, f"{path}: {command}"):
            stream = await self._kept.to(Endpoint("unix", str(path)))
            text = await stream.call(command, list(args))
        if not isinstance(text, str):
            raise SourceError(Reason.GARBAGE, f"{path}: {command}: answered {text!r:.40}, not text")
        return text

    def close(self) -> None:
        """Close the connection; the next command opens another."""
        self._kept.close()
