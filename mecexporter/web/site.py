"""What the web layer asks of the program that runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mecexporter.metrics.registry import View


class Site(Protocol):
    """The node as it is known now; nothing here may do I/O, but for :meth:`forget`."""

    def view(self) -> View:
        """The present World and the report of the checks on it."""

    def ready(self) -> bool:
        """Whether the first round of every enabled source is done, well or badly."""

    async def forget(self, what: str) -> None:
        """Drop what state_dir remembers of a role, ``northd`` or ``identity``; asked for on the local socket only.

        Raises:
            MecExporterError: there is nothing of that name, or it could not be written down; the text is for people.
        """
