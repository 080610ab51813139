"""Client for the control sockets of OVS and OVN daemons, as ovs-appctl(8) uses them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.wire.endpoint import Endpoint, within
from mecexporter.sources.wire.jsonrpc import MAX_BYTES, KeptStream
from mecexporter.sources.wire.processes import read_pid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
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
        return await self._call(self._locate(), command, *args)

    async def run_all(self, commands: Iterable[str]) -> dict[str, str | SourceError]:
        """Run several commands, each of words between spaces, sent at once.

        A daemon looks at its control socket once in each turn of its main loop, and then takes up to ten commands. One
        whose turns take seconds would hold up each of several that came one by one.

        Returns:
            Command -> its text, or ANSWERED_ERROR where the daemon answered that with an error.

        Raises:
            SourceError: as :meth:`run`, but for ANSWERED_ERROR.
        """
        commands, path = list(commands), self._locate()
        calls = (self._call(path, *command.split()) for command in commands)
        said = await asyncio.gather(*calls, return_exceptions=True)
        for outcome in said:
            if isinstance(outcome, BaseException) and not (
                isinstance(outcome, SourceError) and outcome.reason is Reason.ANSWERED_ERROR
            ):
                raise outcome
        return dict(zip(commands, said, strict=True))  # type: ignore[arg-type]  # what is left is text or SourceError

    def close(self) -> None:
        """Close the connection; the next command opens another."""
        self._kept.close()

    async def _call(self, path: Path, command: str, *args: str) -> str:
        async with within(self._deadline, f"{path}: {command}"):
            stream = await self._kept.to(Endpoint("unix", str(path)))
            text = await stream.call(command, list(args))
        if not isinstance(text, str):
            raise SourceError(Reason.GARBAGE, f"{path}: {command}: answered {text!r:.40}, not text")
        return text
