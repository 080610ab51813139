"""ovn-northd by its control socket (ovn-northd(8), RUNTIME MANAGEMENT COMMANDS)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.base import Source
from mecexporter.sources.wire.unixctl import UnixctlClient, locate_by_pidfile
from mecexporter.state.ovn_db import Database, Northd
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from pathlib import Path

    from mecexporter.state.world import World

_STATES = ("active", "standby", "paused")


class NorthdSource(Source[Northd]):
    """Asks this host's northd.

    Args:
        run_dir: where its pidfile and socket are.
        control: a socket that overrides what the pidfile says, or None.
        interval: seconds between reads.
    """

    name = "northd"
    roles = frozenset({Role.CENTRAL})

    def __init__(self, run_dir: Path, control: Path | None, interval: float) -> None:
        self.interval = interval
        self._client = UnixctlClient(lambda: control or locate_by_pidfile(run_dir, "ovn-northd"), max_bytes=1 << 20)

    def configured(self, world: World) -> bool:
        """A host of databases need not have one; one that was ever seen is remembered."""
        return world.memory.northd

    async def read(self, world: World) -> Northd:  # noqa: ARG002  # asks the same whatever the World
        """Raises SourceError; GARBAGE where an answer is none of the known ones."""
        status = (await self._client.run("status")).strip().removeprefix("Status: ")
        if status not in _STATES:
            raise SourceError(Reason.GARBAGE, f"ovn-northd calls itself {status!r:.40}")
        version = re.match(r"ovn-northd (\S+)", await self._client.run("version"))
        return Northd(
            version=version[1] if version else None,
            active=status == "active",
            paused=status == "paused",
            connected={
                Database.NORTHBOUND: await self._connected("nb-connection-status"),
                Database.SOUTHBOUND: await self._connected("sb-connection-status"),
            },
        )

    async def close(self) -> None:
        """Close the connection."""
        self._client.close()

    async def _connected(self, command: str) -> bool:
        said = (await self._client.run(command)).strip()
        if said not in ("connected", "not connected"):
            raise SourceError(Reason.GARBAGE, f"ovn-northd: {command} says {said!r:.40}")
        return said == "connected"
