"""Blocking calls off the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar

from mecexporter.errors import Reason, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")


async def aside(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call in a daemon thread of its own.

    Not asyncio's pool: a call that hangs (a dead file system) would keep its place there from other sources, and the
    process from ending.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if outcome.done():  # given up meanwhile
            return
        if error is None:
            outcome.set_result(result)  # type: ignore[arg-type]  # without an error it is a T
        else:
            outcome.set_exception(error)

    def work() -> None:
        result, error = None, None
        try:
            result = function(*args, **kwargs)
        except BaseException as raised:  # noqa: BLE001  # whatever it is, it belongs to who awaits
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name=f"aside {getattr(function, '__qualname__', function)}", daemon=True).start()
    return await outcome


class OneAtATime(Generic[T]):
    """Calls aside, of which the next is not begun while one hangs.

    Args:
        hanging: what is said then, for people.
    """

    def __init__(self, hanging: str) -> None:
        self._hanging = hanging
        self.running: asyncio.Future[T] | None = None

    async def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call; whoever gives up waiting leaves the call to itself.

        Raises:
            SourceError: TIMEOUT, where the call before this one has not ended.
        """
        if self.running is not None and not self.running.done():
            raise SourceError(Reason.TIMEOUT, f"the read before this one still hangs: {self._hanging}")
        self.running = asyncio.ensure_future(aside(function, *args, **kwargs))
        return await asyncio.shield(self.running)
