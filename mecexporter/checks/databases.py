"""What several checks ask of OVN's database servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.errors import Reason
from mecexporter.state.central import known
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.ovn_db import Database, DatabaseServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.state.central import Known
    from mecexporter.state.world import World

_NOBODY = frozenset({Reason.MISSING, Reason.REFUSED})


def databases(world: World) -> Iterator[tuple[Database, tuple[Known, ...]]]:
    """Each database of which a server is known here, with its servers."""
    for db in Database:
        if found := known(world, db):
            yield db, found


def answering(found: tuple[Known, ...]) -> list[DatabaseServer]:
    """Those that answer."""
    return [k.seen.value for k in found if isinstance(k.seen, Fresh)]


def silent(found: tuple[Known, ...]) -> list[str]:
    """The sources of those that do not, be it that nobody is there."""
    return [k.source for k in found if isinstance(k.seen, Absent)]


def hidden(found: tuple[Known, ...]) -> list[str]:
    """The sources of those that may live, and do as they like, though they do not answer us."""
    return [k.source for k in found if isinstance(k.seen, Absent) and k.seen.reason not in _NOBODY]
