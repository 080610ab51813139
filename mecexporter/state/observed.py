"""What a source last said, and whether it can still be believed.

All times are the exporter's own clock in seconds (see :mod:`mecexporter.state.world`): Unix time at start, and never
stepped while the process lives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from mecexporter.errors import Reason

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fresh(Generic[T]):
    """A value read from a source at ``at``."""

    value: T
    at: float


@dataclass(frozen=True, slots=True)
class Absent:
    """The source has no answer.

    Attributes:
        why: one line for people.
        since: when the first call that failed was begun.
        at: when the latest attempt ended; every attempt has its own.
        reason: the class of failure.
    """

    why: str
    since: float
    at: float
    reason: Reason = Reason.PENDING


Observed: TypeAlias = Fresh[T] | Absent
