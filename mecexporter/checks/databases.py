"""What several checks ask of OVN's database servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.errors import NOBODY
from mecexporter.state.central import known, may_be, source_name
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.ovn_db import Database, DatabaseServer, Model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.state.central import Known
    from mecexporter.state.world import World


def databases(world: World, *models: Model) -> Iterator[tuple[Database, tuple[Known, ...]]]:
    """Each database of which a server is known here that is, or may be, of one of these models, with those servers."""
    for db in Database:
        if found := tuple(k for k in known(world, db) if may_be(world, k.source, models)):
            yield db, found


def answering(found: tuple[Known, ...]) -> list[DatabaseServer]:
    """Those that answer."""
    return [k.seen.value for k in found if isinstance(k.seen, Fresh)]


def silent(found: tuple[Known, ...]) -> list[str]:
    """The sources of those that do not, be it that nobody is there."""
    return [k.source for k in found if isinstance(k.seen, Absent)]


def unwanted(world: World, server: DatabaseServer) -> list[str]:
    """The source of the active that a server names, if it is disabled: who is there may do as it likes."""
    told = server.replication
    if told is None or told.active is None:
        return []
    source = source_name(server.db, told.active)
    return [source] if source in world.settings.disabled_sources else []


def hidden(found: tuple[Known, ...]) -> list[str]:
    """The sources of those that may live, and do as they like, though they do not answer us."""
    return [k.source for k in found if isinstance(k.seen, Absent) and k.seen.reason not in NOBODY]
