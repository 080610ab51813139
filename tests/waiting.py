"""Waiting for a condition with a deadline: what tests do in place of sleeping."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

POLL = 0.02  # seconds

T = TypeVar("T")


def wait_until(condition: Callable[[], T], seconds: float, what: str) -> T:
    """Polls until the condition is truthy and returns it; AssertionError naming `what` when the time is up."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(POLL)
    return value


async def eventually(condition: Callable[[], T], seconds: float, what: str) -> T:
    """Like `wait_until`, for conditions that come true on the running event loop."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(POLL)
    return value


async def answers(ask: Callable[[], Awaitable[T]], wanted: Callable[[T], bool], seconds: float, what: str) -> T:
    """Asks until the answer is as wanted and returns it; AssertionError naming `what` when the time is up."""
    deadline = time.monotonic() + seconds
    while not wanted(answer := await ask()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}; the last answer: {answer}")
        await asyncio.sleep(POLL)
    return answer
