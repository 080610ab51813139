"""What the World knows of OVN's databases as a whole: which servers there are, and who replicates whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mecexporter.errors import NOBODY
from mecexporter.state.observed import Fresh
from mecexporter.state.ovn_db import LOCAL, Database, DatabaseServer, Model

if TYPE_CHECKING:
    from collections.abc import Collection

    from mecexporter.state.observed import Observed
    from mecexporter.state.world import World


@dataclass(frozen=True, slots=True)
class Known:
    """A server by its source's name, label, and what it last said."""

    source: str
    server: str
    seen: Observed[DatabaseServer]

    @property
    def subject(self) -> str:
        """Of findings: the source's name is the database's (contract)."""
        return self.source


def source_name(db: Database, server: str) -> str:
    """``OVN_Northbound@<server>`` (contract)."""
    return f"{db}@{server}"


def known(world: World, db: Database) -> tuple[Known, ...]:
    """Every server of a database that is asked on this node, each once, ``local`` before other labels of the same."""
    found: list[Known] = []
    already: set[tuple[object, ...]] = set()
    prefix = f"{db}@"
    names = [n for n in world.databases if n.startswith(prefix) and n in world.applicable]
    for name in sorted(names, key=lambda n: n != source_name(db, LOCAL)):
        which = _which(world, name)
        if which not in already:
            already.add(which)
            found.append(Known(name, name.removeprefix(prefix), world.databases[name]))
    return tuple(found)


def _which(world: World, source: str) -> tuple[object, ...]:
    """What two sources have in common that ask one server.

    Of those that get no answer: that one server answered both when they last did, and that they lack it in one way. An
    address that is silent is not known to be that of a server that answers at another: it may have moved.
    """
    seen = world.databases[source]
    if isinstance(seen, Fresh):
        return ("answers", seen.value.identity)
    if (identity := world.identities.get(source)) is not None:
        return (seen.reason in NOBODY, identity)
    return ("never answered", source)


def servers(world: World, db: Database) -> tuple[DatabaseServer, ...]:
    """Those of them that answer."""
    return tuple(k.seen.value for k in known(world, db) if isinstance(k.seen, Fresh))


def may_be(world: World, source: str, models: Collection[Model]) -> bool:
    """Whether a server is of one of these models, or was when it last told; one that never told is like its fellows."""
    own = _model(world, source)
    if own is not None:
        return own in models
    of = source.partition("@")[0]
    fellows = (name for name in world.databases if name.startswith(f"{of}@") and name in world.applicable)
    told = {_model(world, name) for name in fellows} - {None, Model.RELAY}
    return not told or not told.isdisjoint(models)


def _model(world: World, source: str) -> Model | None:
    seen = world.databases[source]
    return seen.value.model if isinstance(seen, Fresh) else world.memory.models.get(source)


def may_be_of(world: World, models: Collection[Model]) -> bool:
    """Whether a server is known here that is, or may be, of one of these models."""
    return any(may_be(world, name, models) for name in world.databases if name in world.applicable)


def by_endpoint(world: World, db: Database, endpoint: str) -> Known | None:
    """The server that is asked at an address, by whatever label it goes."""
    name = world.endpoints.get((db, endpoint))
    if name is None:
        return None
    if name not in world.databases or name not in world.applicable:
        return None
    which = _which(world, name)
    return next((k for k in known(world, db) if _which(world, k.source) == which), None)


def active_of(world: World, standby: DatabaseServer) -> Known | None:
    """Whom a standby replicates: whom it says, or from afar the only server that takes writes; None if not known."""
    if standby.replication is not None:
        return by_endpoint(world, standby.db, standby.replication.active) if standby.replication.active else None
    writers = [k for k in known(world, standby.db) if isinstance(k.seen, Fresh) and k.seen.value.writable]
    return writers[0] if len(writers) == 1 else None
