"""Many incidents on several sites at once: nearly all of the time is waiting."""

from __future__ import annotations

import queue
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from tests.e2e.expected import EXPECTED, expected
from tests.e2e.story import Lane, Pace, Story

if TYPE_CHECKING:
    from collections.abc import Iterable


class Campaign:
    """Runs incidents in the background, each on one of ``lanes`` sites; a site that does not heal is given up."""

    def __init__(self, names: Iterable[str], pace: Pace, lanes: int) -> None:
        self._pace = pace
        self._stories: dict[str, Future[Story]] = {name: Future() for name in names}
        self._waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        for name in sorted(self._stories, key=lambda name: -EXPECTED[name].longer):
            self._waiting.put(name)
        self._size = lanes
        self._pool = ThreadPoolExecutor(lanes, thread_name_prefix="lane")
        self._lanes: list[Future[None]] = []

    def __enter__(self) -> Self:
        self._lanes = [self._pool.submit(self._run) for _ in range(min(self._size, len(self._stories)))]
        return self

    def __exit__(self, *_: object) -> None:
        while self._next() is not None:
            pass
        self._pool.shutdown()
        for lane in self._lanes:
            lane.result()

    def story(self, name: str) -> Story:
        """Waits for it; raises what its site raised."""
        return self._stories[name].result()

    def _next(self) -> str | None:
        try:
            return self._waiting.get_nowait()
        except queue.Empty:
            return None

    def _run(self) -> None:
        name = self._next()
        while name is not None:
            try:
                with Lane(self._pace) as lane:
                    healed = True
                    while name is not None and healed:
                        story = lane.suffer(name, expected(name))
                        self._stories[name].set_result(story)
                        healed = story.well is not None
                        name = self._next()
            except Exception as error:
                if name is None:
                    raise
                self._stories[name].set_exception(error)
                name = self._next()
