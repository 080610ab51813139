"""What Neutron has ordered, and how Northbound's rows of it differ."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Resource(StrEnum):
    """A kind of Neutron's objects; the ``resource`` label, and the first part of a subject."""

    NETWORK = "network"
    PORT = "port"
    ROUTER = "router"
    ROUTER_PORT = "router_port"
    SUBNET = "subnet"
    FLOATING_IP = "floating_ip"
    SECURITY_GROUP = "security_group"


class State(StrEnum):
    """What Northbound has of an object; the ``state`` label."""

    IN_SYNC = "in_sync"
    MISSING = "missing"  # no row of it, or not all
    EXTRA = "extra"  # a row, and Neutron has no such object
    BEHIND = "behind"  # of an older revision
    AHEAD = "ahead"  # of a revision that Neutron never gave it, so that Neutron refuses to write the row
    CHANGED = "changed"  # of its revision, and of other content


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """An object that is not in Northbound as Neutron has it.

    Attributes:
        uuid: Neutron's.
        ordered: its revision in Neutron, None where it has none or is not there.
        held: the revision of its row in Northbound that differs most, None likewise.
        rows: the tables of Northbound that this is about.
        what: of one that is changed, the columns.
        age: seconds from the first look that showed it to the latest; of one that is behind, since Northbound last
            caught up with a revision that it was seen to lack.
    """

    resource: Resource
    uuid: str
    state: State
    ordered: int | None = None
    held: int | None = None
    rows: tuple[str, ...] = ()
    what: str = ""
    age: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NeutronAudit:
    """Neutron against Northbound.

    Attributes:
        ordered: how many objects of each kind Neutron has that Northbound must hold.
        drifts: those that are not as ordered, and rows that nobody ordered; of one look, if their age is 0.
    """

    ordered: Mapping[Resource, int]
    drifts: tuple[Drift, ...]
