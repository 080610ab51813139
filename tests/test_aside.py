"""Blocking calls in threads of their own, on the real loop: what they say, and what becomes of those given up."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from mecexporter.aside import OneAtATime, aside
from mecexporter.errors import Reason, SourceError
from tests.waiting import eventually


async def test_what_it_returns() -> None:
    assert await aside(divmod, 7, 2) == (3, 1)
    assert await aside(int, "ff", base=16) == 255


async def test_what_it_raises_is_the_callers() -> None:
    with pytest.raises(ZeroDivisionError):
        await aside(divmod, 1, 0)

    def leaves() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        await aside(leaves)


async def test_calls_that_hang_hold_up_neither_the_loop_nor_each_other() -> None:
    released = threading.Event()
    hanging = [asyncio.create_task(aside(released.wait, 30)) for _ in range(100)]
    try:
        assert await aside(lambda: "through") == "through"
        assert not any(task.done() for task in hanging)
    finally:
        released.set()
    assert all(await asyncio.gather(*hanging))


async def test_one_that_was_given_up_may_end_as_it_will() -> None:
    released, ended = threading.Event(), threading.Event()

    def fails_late() -> None:
        released.wait(30)
        ended.set()
        raise OSError("nobody cares any more")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await aside(fails_late)
    released.set()
    await eventually(ended.is_set, 10, "it has ended")
    await eventually(lambda: not any("fails_late" in t.name for t in threading.enumerate()), 10, "its thread is gone")


LOOP_ENDS_FIRST = """
import asyncio, threading
from mecexporter.aside import OneAtATime, aside
from mecexporter.errors import Reason, SourceError

released, ended = threading.Event(), threading.Event()

def hangs():
    released.wait(30)
    ended.set()

async def main():
    asyncio.create_task(aside(hangs))
    await asyncio.sleep(0)

asyncio.run(main())
released.set()
ended.wait(30)
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join(30)
print("ended")
"""
HANGS_FOR_EVER = """
import asyncio, threading
from mecexporter.aside import OneAtATime, aside
from mecexporter.errors import Reason, SourceError

async def main():
    asyncio.create_task(aside(threading.Event().wait))
    await asyncio.sleep(0)

asyncio.run(main())
print("ended")
"""


@pytest.mark.parametrize("code", [LOOP_ENDS_FIRST, HANGS_FOR_EVER], ids=["ends after the loop", "hangs for ever"])
def test_a_process_ends_quietly_whatever_hangs_in_it(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


async def test_the_next_call_is_not_begun_while_one_hangs() -> None:
    reads: OneAtATime[int] = OneAtATime("the disk is gone")
    go_on = threading.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await reads.call(lambda: int(go_on.wait(10)))
    with pytest.raises(SourceError, match="the read before this one still hangs: the disk is gone") as caught:
        await reads.call(int)
    assert caught.value.reason is Reason.TIMEOUT
    go_on.set()
    assert reads.running is not None
    assert await reads.running == 1
    assert await reads.call(int) == 0
