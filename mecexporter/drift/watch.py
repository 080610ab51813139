"""Drift over several looks: what one look shows may have been written between its two halves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from mecexporter.state.neutron_ovn import State

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from mecexporter.state.neutron_ovn import Drift, Resource

Key = tuple["Resource", str]


class _Seen(NamedTuple):
    state: State
    since: float
    lacked: int | None  # the revision that Northbound was first seen to lack


class Watch:
    """Remembers since when each object drifts."""

    def __init__(self) -> None:
        self._seen: dict[Key, _Seen] = {}

    def keys(self) -> Collection[Key]:
        """The objects that drifted in the latest look."""
        return self._seen.keys()

    def follow(self, drifts: Iterable[Drift], now: float) -> tuple[Drift, ...]:
        """One more look at all that is watched.

        Args:
            drifts: what it shows.
            now: in seconds, of a clock that is never stepped.

        Returns:
            The drifts with their ages. One that was in another state in the look before is left out, until the next
            look shows it again: under churn a look shows anything, but never the same twice.
        """
        before, self._seen = self._seen, {}
        told = []
        for drift in drifts:
            key = (drift.resource, drift.uuid)
            old = before.get(key)
            same = old is not None and old.state is drift.state
            if old is None or not same or _caught_up(old, drift):
                old_age, seen = 0.0, _Seen(drift.state, now, drift.ordered)
            else:
                old_age, seen = now - old.since, old
            self._seen[key] = seen
            if key not in before or same:
                told.append(replace(drift, age=old_age))
        return tuple(sorted(told, key=lambda d: (d.resource, d.uuid)))


def _caught_up(old: _Seen, drift: Drift) -> bool:
    """Whether Northbound has reached what it lacked, and lacks something newer: it follows."""
    behind = drift.state is State.BEHIND and old.lacked is not None and drift.held is not None
    return behind and drift.held >= old.lacked  # type: ignore[operator]  # neither is None
