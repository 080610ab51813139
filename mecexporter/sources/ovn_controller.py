"""ovn-controller by its control socket (ovn-controller(8), RUNTIME MANAGEMENT COMMANDS)."""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.base import Source
from mecexporter.sources.wire.unixctl import UnixctlClient, locate_by_pidfile
from mecexporter.state.ovn import OvnController
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from pathlib import Path

    from mecexporter.state.world import World

_READS = 4  # 'in 3 of the last 4 live reads' (contract)


class OvnControllerSource(Source[OvnController]):
    """Asks a handful of questions that cost the daemon microseconds.

    Args:
        run_dir: where its pidfile and socket are.
        control: a socket that overrides what the pidfile says, or None.
        interval: seconds between reads.
    """

    name = "ovn_controller"
    roles = frozenset({Role.COMPUTE})

    def __init__(self, run_dir: Path, control: Path | None, interval: float) -> None:
        self.interval = interval
        self._client = UnixctlClient(lambda: control or locate_by_pidfile(run_dir, "ovn-controller"), max_bytes=1 << 20)
        self._errors: int | None = None
        self._rises: deque[bool] = deque(maxlen=_READS)

    async def read(self, world: World) -> OvnController:  # noqa: ARG002  # asks the same whatever the World
        """Raises SourceError; GARBAGE where an answer is none of the known ones."""
        connection = await self._client.run("connection-status")
        status = await self._client.run("debug/status")
        counter = await self._client.run("coverage/read-counter", "txn_error")
        version = await self._client.run("version")
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
        )

    async def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _version(text: str) -> str | None:
    """The number in ``ovn-controller 23.03.1`` (its first line)."""
    found = re.match(r"ovn-controller (\S+)", text)
    return found[1] if found else None
