"""Sockets in front of daemons' own: what they pass through can be turned into something hostile, and back.

An exporter that asks the front suffers, while the daemon behind it and everybody else who asks it does not.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextlib import AsyncExitStack
from threading import Thread
from typing import TYPE_CHECKING, Self

from tests.faults.servers import Behaviour, hostile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_END_SECONDS = 20


def passes(target: Path) -> Behaviour:
    """Everything to the socket `target` and back."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_unix_connection(target)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()

        pumps = [asyncio.create_task(pump(reader, forth)), asyncio.create_task(pump(back, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in pumps:
                task.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            forth.transport.abort()

    return behave


class _Switch:
    """A behaviour that can be changed; who is connected then is cut off."""

    def __init__(self, behave: Behaviour) -> None:
        self._behave = behave
        self._writers: set[asyncio.StreamWriter] = set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._behave(reader, writer)
        finally:
            self._writers.remove(writer)

    def turn(self, behave: Behaviour) -> None:
        self._behave = behave
        for writer in self._writers:
            writer.transport.abort()


class Front:
    """Fronts by path, served in a thread of their own.

    Args:
        targets: where each stands -> the socket behind it.
    """

    def __init__(self, targets: Mapping[Path, Path]) -> None:
        self._targets = dict(targets)
        self._switches = {path: _Switch(passes(target)) for path, target in targets.items()}
        self._thread = Thread(target=asyncio.run, args=(self._serve(),), name="front")
        self._running: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    def __enter__(self) -> Self:
        self._thread.start()
        self._running.result(_END_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        loop, end = self._running.result()
        loop.call_soon_threadsafe(end.set)
        self._thread.join(_END_SECONDS)

    def turn(self, path: Path, behave: Behaviour) -> None:
        loop, _ = self._running.result()
        loop.call_soon_threadsafe(self._switches[path].turn, behave)

    def heal(self, path: Path) -> None:
        self.turn(path, passes(self._targets[path]))

    async def _serve(self) -> None:
        end = asyncio.Event()
        try:
            async with AsyncExitStack() as stack:
                for path, switch in self._switches.items():
                    await stack.enter_async_context(hostile(path, switch))
                self._running.set_result((asyncio.get_running_loop(), end))
                await end.wait()
        except Exception as error:
            if self._running.done():
                raise
            self._running.set_exception(error)
