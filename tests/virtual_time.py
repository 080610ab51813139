"""An event loop whose clock is moved by the loop itself: what waits for minutes is tested in milliseconds."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

START = 1000.0


class VirtualLoop(asyncio.SelectorEventLoop):
    """Where nothing is ready, the time of the next timer has come. No threads: their work would take no time at all."""

    def __init__(self) -> None:
        super().__init__()
        self._now = START
        selector: Any = self._selector  # type: ignore[attr-defined]  # the one hook that asyncio has for this
        select = selector.select

        def jump(timeout: float | None) -> Any:
            events = select(0)
            if events:
                return events
            assert timeout is not None, "everything waits, and nothing will ever happen"
            self._now += timeout
            return events

        selector.select = jump

    def time(self) -> float:
        return self._now


def now() -> float:
    """Seconds since the start."""
    return asyncio.get_running_loop().time() - START


async def until(moment: float) -> None:
    """Let the others run until so many seconds after the start."""
    try:
        async with asyncio.timeout(moment - now()):
            await asyncio.Event().wait()
    except TimeoutError:
        return


def run_virtual(scenario: Coroutine[Any, Any, T]) -> T:
    """Run on such a loop."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(scenario)
