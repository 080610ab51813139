"""What a source is, and the supervisor that asks it: deadline, back-off, jitter, duty cycle."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, TypeVar

from mecexporter.errors import Reason, SourceError
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.world import SourceStatus

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Hashable

    from mecexporter.state.observed import Observed
    from mecexporter.state.world import Role, World

log = logging.getLogger(__name__)

T = TypeVar("T")

DUTY_CYCLE = 0.25
"""A source is busy for at most this share of the time, unless its answers would be stale before the next."""

_CHEAP = frozenset({Reason.MISSING, Reason.REFUSED, Reason.PERMISSION})
"""Failures that cost this host nothing: asking again at the usual pace finds the repair soonest."""

_NOTHING = object()  # differs from every question
_LONGEST_BACKOFF = 300.0
_SPREAD = 15.0  # seconds over which the nodes that one event stirs ask a shared server
_SOON = 1.0  # a question that changes again and again is asked once in so many seconds


class Source(ABC, Generic[T]):
    """One place that knows one part of the World.

    Attributes:
        name: the World's field, and the ``source`` label.
        roles: the roles that it belongs to; empty: every node.
        interval: seconds between reads.
        deadline: seconds after which a read is given up.
        retry: seconds to the first read after one that failed, where that is not the interval.
        shared: whether many nodes ask the same server, so that even a refusal is to be asked for ever more seldom.
        rereads: whether a finding that waits for another read of it is worth one out of turn.
        needs: the sources of whose answers the question is made; not asked before they have said something.
    """

    name: str
    roles: frozenset[Role] = frozenset()
    interval: float
    deadline: float = 5.0
    retry: float | None = None
    shared: bool = False
    rereads: bool = False
    needs: tuple[str, ...] = ()

    @abstractmethod
    async def read(self, world: World) -> T:
        """Ask.

        Raises:
            SourceError: no answer, and why.
        """

    def configured(self, world: World) -> bool:  # noqa: ARG002  # the question may depend on it elsewhere
        """Whether there is anything to ask."""
        return True

    def question(self, world: World) -> Hashable:  # noqa: ARG002  # as above
        """What would be asked now, None if that can't be told; a change of it is asked at once."""
        return None

    def worth_asking(self, asked: Hashable, now: Hashable) -> bool:
        """Whether a question is another one than that asked last."""
        return asked != now

    def pause(self, value: T) -> float:  # noqa: ARG002  # as above
        """Seconds to the next read after this answer."""
        return self.interval

    async def close(self) -> None:  # not every source holds something
        """Let go of connections and threads."""

    @property
    def lifetime(self) -> float:
        """Seconds after which an answer can't be believed any more (contract: three intervals, at least 10 s)."""
        return max(3 * self.interval, 10.0)


class Supervisor(Generic[T]):
    """Keeps one source asked for as long as it runs; whatever the source raises becomes an Absent.

    Args:
        source: the one.
        world: the World now.
        publish: takes every outcome, with how the source fares.
        wanted: whether the source is to be asked at all.
        clock: the exporter's clock.
        chance: for the jitter.
        awaited: whether somebody waits for the first answer, of this one process alone.
    """

    def __init__(
        self,
        source: Source[T],
        *,
        world: Callable[[], World],
        publish: Callable[[Source[T], Observed[T], SourceStatus], None],
        wanted: Callable[[World], bool],
        clock: Callable[[], float],
        chance: random.Random,
        awaited: bool = False,
    ) -> None:
        self.source = source
        self._world = world
        self._publish = publish
        self._wanted = wanted
        self._clock = clock
        self._chance = chance
        self._awaited = awaited
        self._poked = asyncio.Event()
        self._asked: Hashable = _NOTHING
        self._errors: dict[Reason, int] = {}
        self._rounds = 0
        self._last_success: float | None = None
        self._again = False

    def poke(self, world: World) -> None:
        """Look at whether the question has changed, or is to be asked at last; if so it is asked soon."""
        question = self.source.question(world)
        if not self._ripe(world) or (question is None and self._asked is not _NOTHING):
            return
        if self._asked is _NOTHING or self.source.worth_asking(self._asked, question):
            self._poked.set()
        else:
            self._asked = question

    def again(self) -> None:
        """Ask soon, out of turn, for a second opinion; never twice between two reads in turn."""
        if self.source.rereads and not self._again:
            self._again = True
            self._poked.set()

    async def run(self) -> None:
        """Ask again and again until cancelled."""
        failing_since: float | None = None
        failures = 0
        stirred = True
        try:
            while True:
                while not self._ripe(self._world()):
                    self._asked = _NOTHING
                    self._poked.clear()
                    stirred = await self._poked.wait()
                if stirred and self.source.shared and not self._awaited:  # what stirs this node stirs others
                    await asyncio.sleep(self._chance.uniform(0, min(self.source.retry or 0, _SPREAD)))
                began, started = self._clock(), time.monotonic()
                outcome = await self._ask(began, failing_since)
                duration = time.monotonic() - started
                if isinstance(outcome, Fresh):
                    failing_since, failures = None, 0
                    # Not so long that the answer is stale before the next.
                    pause = max(self.source.pause(outcome.value), min(_rest(duration), self.source.lifetime / 2))
                else:
                    failing_since = outcome.since
                    cheap = outcome.reason in _CHEAP and not self.source.shared
                    failures = 0 if cheap else failures + 1
                    pause = self._backoff(failures, duration)
                self._publish(self.source, outcome, self._status(outcome, duration))
                stirred = await self._sleep(pause * self._chance.uniform(0.9, 1.1))
                self._again = self._again and stirred
        finally:
            await self.source.close()

    def _backoff(self, failures: int, duration: float) -> float:
        """Doubles with each failure, to ten intervals or 5 min, whichever is less (contract)."""
        first = self.source.retry or self.source.interval
        longest = max(first, min(10 * self.source.interval, _LONGEST_BACKOFF))
        return float(min(max(first * 2 ** min(max(0, failures - 1), 20), _rest(duration)), longest))

    def _ripe(self, world: World) -> bool:
        parts = (world.part(name) for name in self.source.needs)
        return self._wanted(world) and not any(isinstance(p, Absent) and p.reason is Reason.PENDING for p in parts)

    async def _ask(self, began: float, failing_since: float | None) -> Observed[T]:
        world = self._world()
        self._asked = self.source.question(world)
        self._poked.clear()
        try:
            async with asyncio.timeout(self.source.deadline):
                return Fresh(await self.source.read(world), self._clock())
        except SourceError as error:
            why, reason = error.why, error.reason
        except TimeoutError:
            why, reason = f"no answer within {self.source.deadline:g} s", Reason.TIMEOUT
        except Exception as error:  # a bug of ours in one source must not stop the others
            log.exception("source failed", extra={"source": self.source.name})
            why, reason = f"{type(error).__name__}: the log has the traceback", Reason.INTERNAL
        return Absent(why, began if failing_since is None else failing_since, self._clock(), reason)

    def _status(self, outcome: Observed[T], duration: float) -> SourceStatus:
        self._rounds += 1
        if isinstance(outcome, Fresh):
            self._last_success = outcome.at
        else:
            self._errors[outcome.reason] = self._errors.get(outcome.reason, 0) + 1
        return SourceStatus(
            last_success=self._last_success,
            duration=duration,
            errors=MappingProxyType(dict(self._errors)),
            rounds=self._rounds,
        )

    async def _sleep(self, seconds: float) -> bool:
        """Until the time is up or the question has changed; returns whether it has."""
        gap = min(_SOON, seconds)
        await asyncio.sleep(gap)
        try:
            async with asyncio.timeout(seconds - gap):
                return await self._poked.wait()
        except TimeoutError:
            return False


def _rest(duration: float) -> float:
    """Seconds of pause that a read of this length must be followed by."""
    return duration * (1 / DUTY_CYCLE - 1)
