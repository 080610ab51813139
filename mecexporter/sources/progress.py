"""Who follows a number that rises, who is behind it, and since when: by what was seen, at each look.

Neutron has Northbound's nb_cfg rise all the time, so at any one moment a healthy chassis may be behind. What tells is
not that it lacks the newest value, but that it lacks one which was there long ago. So values are kept with the time at
which each was first seen, and a follower that stands at v has been behind since a value above v was first seen. One
that is always three seconds late under a rise a second is three seconds behind, for as long as it likes.

What makes that safe to say:

- Times are those of our own looks. The two numbers of a look are of one moment, or the follower's is the later one: a
  delay may be told shorter than it is, by the time between two looks, never longer.
- Numbers rise: a follower that stands at v stood no higher before, also while we could not look.
- A follower is behind since it was first seen, at the earliest, and anew where its row was made anew or its number
  fell: a chassis that was deleted and comes back begins at 0, and one whose controller starts again may.
- Where the number that is followed falls, for a database was put back, what was there before is forgotten.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mecexporter.state.propagation import Lag

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(slots=True)
class _Follower:
    row: str  # its UUID
    value: int
    seen: float
    moved: float  # when it made progress, or was first seen
    floor: int  # rises up to this value are none that it has missed
    behind: float | None = None


class Race:
    """A number that rises, and those who follow it.

    Args:
        keep: seconds for which values are kept; a follower that makes progress and is behind for longer than that is
            told to be behind for that long.
    """

    def __init__(self, keep: float) -> None:
        self._keep = keep
        self._began: float | None = None
        self._values: list[int] = []  # rising
        self._times: list[float] = []  # when each was first seen
        self._followers: dict[str, _Follower] = {}

    def look(self, now: float, leader: int, followers: Iterable[tuple[str, str, int]]) -> Mapping[str, Lag]:
        """Take down what is seen now.

        Args:
            now: seconds, on a clock that is never set.
            leader: the number.
            followers: name, UUID of the row, and number of each.

        Returns:
            How each of them follows.
        """
        first = self._began is None
        if self._began is None:
            self._began = now
        self._note(now, leader)
        known, self._followers = self._followers, {}
        for name, row, value in followers:
            follower = known.get(name)
            if follower is None or follower.row != row or value < follower.value:
                follower = _Follower(row, value, now, now, value if first else max(value, leader))
            elif value > follower.value:
                follower.value, follower.moved, follower.behind, follower.floor = value, now, None, value
            if value >= leader:
                follower.behind = None
            elif follower.behind is None:
                follower.behind = max(follower.seen, self._passed(value))
            self._followers[name] = follower
        return {name: self._lag(now, leader, follower) for name, follower in self._followers.items()}

    def _note(self, now: float, leader: int) -> None:
        if self._values and leader < self._values[-1]:
            self._values, self._times = [], []
        if not self._values or leader > self._values[-1]:
            self._values.append(leader)
            self._times.append(now)
        old = bisect_right(self._times, now - self._keep, hi=len(self._times) - 1)
        del self._values[:old], self._times[:old]

    def _passed(self, value: int) -> float:
        """When a greater one was first seen."""
        return self._times[bisect_right(self._values, value)]

    def _lag(self, now: float, leader: int, follower: _Follower) -> Lag:
        behind = follower.behind
        return Lag(
            behind=None if behind is None else now - behind,
            idle=now - follower.moved,
            missed=max(0, leader - follower.floor),
            from_start=behind is not None and behind == self._began,
        )
