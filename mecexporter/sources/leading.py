"""Whether this host's own Northbound server is the one that counts, so that a site is asked about once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.errors import SourceError
from mecexporter.sources.wire.endpoint import Endpoint
from mecexporter.state.central import known, source_name
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.ovn_db import LOCAL, Database

if TYPE_CHECKING:
    from mecexporter.state.ovn_db import DatabaseServer
    from mecexporter.state.world import World

OWN = source_name(Database.NORTHBOUND, LOCAL)


class Leading:
    """Follows the server of this host over the Worlds that it is shown."""

    def __init__(self) -> None:
        # Of one that has not told us yet it is not known that it does not: what was found before our start is kept.
        self._led = True

    def here(self, world: World) -> bool:
        """Whether it leads, or did so last and no other does."""
        if OWN not in world.databases or not (OWN in world.applicable or OWN in world.memory.models):
            return False
        own = world.databases[OWN]
        if isinstance(own, Fresh):
            self._led = own.value.leads
            return self._led
        others = (k.seen for k in known(world, Database.NORTHBOUND))
        return self._led and not any(isinstance(seen, Fresh) and seen.value.leads for seen in others)


def own_northbound(world: World) -> DatabaseServer:
    """What it last said.

    Raises:
        SourceError: as Northbound's where that does not answer.
    """
    own = world.databases[OWN]
    if isinstance(own, Absent):
        raise SourceError(own.reason, "this host's Northbound server does not answer")
    return own.value


def endpoint_of(world: World, source: str) -> Endpoint:
    """Where the source of a server asks."""
    return Endpoint.parse(next(where for (_, where), name in world.endpoints.items() if name == source))
