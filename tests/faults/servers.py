"""Hostile servers on a unix path, to stand where a daemon should: each behaves badly in one way.

    async with hostile(path, silent): ...

They may take over the socket of a daemon that runs (`path` exists): it is put aside and comes back at the end.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

Behaviour: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

FLOOD_BYTES = 100 << 20


@dataclass
class Hostile:
    """What is known of a running hostile server: how many connections it took, how many bytes it got rid of."""

    accepted: int = 0
    sent: int = 0


@contextmanager
def _taken_over(path: Path) -> Iterator[None]:
    aside = path.with_name(path.name + ".real")
    taken = path.exists()
    if taken:
        path.rename(aside)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        if taken:
            aside.rename(path)


@asynccontextmanager
async def hostile(path: Path, behave: Behaviour) -> AsyncIterator[Hostile]:
    """Serve on `path` in this event loop until the block ends."""
    seen = Hostile()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(connection: socket.socket) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=connection)
        plain_write = writer.write

        def counted(data: bytes | bytearray | memoryview) -> None:
            plain_write(data)
            seen.sent += len(data)

        writer.write = counted  # type: ignore[method-assign]  # the simplest place to count
        try:
            await behave(reader, writer)
        except ConnectionError:
            pass  # the client left
        finally:
            writer.transport.abort()

    # Not asyncio's own server: closed while it accepts, it forgets the connection but leaves it open (seen on 3.11).
    async def accept(listener: socket.socket) -> None:
        while True:
            connection, _ = await asyncio.get_running_loop().sock_accept(listener)
            seen.accepted += 1
            tasks.add(asyncio.create_task(serve(connection)))

    with _taken_over(path), socket.socket(socket.AF_UNIX) as listener:
        listener.setblocking(False)
        listener.bind(str(path))
        listener.listen()
        tasks.add(asyncio.create_task(accept(listener)))
        try:
            yield seen
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Accept, read, never answer."""
    while await reader.read(65536):
        pass


async def close_at_once(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Accept and hang up."""


def says(data: bytes, *, then_close: bool = False) -> Behaviour:
    """Send this at the first request, whatever it was; then hang up or be silent."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(data)
        await writer.drain()
        if not then_close:
            await silent(reader, writer)

    return behave


def floods(head: bytes, block: bytes, total: int = FLOOD_BYTES) -> Behaviour:
    """Send `head`, then `block` again and again, as fast as the client takes it."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(head)
        for _ in range(total // len(block)):
            writer.write(block)
            await writer.drain()
        await silent(reader, writer)

    return behave


def drips(data: bytes, interval: float) -> Behaviour:
    """Send one byte every `interval` seconds."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        never = asyncio.Event()
        for byte in data:
            writer.write(bytes([byte]))
            await writer.drain()
            try:
                await asyncio.wait_for(never.wait(), interval)
            except TimeoutError:
                continue

    return behave


_HALF = b'{"id":1,"error":null,"result":"hal'
_BLOCK = 1 << 16

JSON: dict[str, Behaviour] = {
    "silent": silent,
    "close_at_once": close_at_once,
    "garbage": says(b"\x00\xff\x17HTTP/1.1 400 Bad Request\r\n\r\n"),
    "braced_garbage": says(b'{"id":1,"result":nonsense}'),
    "half_then_silent": says(_HALF),
    "half_then_close": says(_HALF, then_close=True),
    "endless_string": floods(_HALF, b"a" * _BLOCK),
    "endless_nested": floods(b'{"id":1,"result":[', b'{"rows":[{"a":["map",[["k","v"]]]}]},' * (_BLOCK // 37)),
    "endless_echo": floods(b"", b'{"id":"echo","method":"echo","params":[]}' * (_BLOCK // 41)),
    "slow_drip": drips(_HALF * 1000, 0.02),
}
"""Hostile servers for control sockets and OVSDB, by name."""

_HELLO = bytes.fromhex("0400000800000001")

OPENFLOW: dict[str, Behaviour] = {
    "silent": silent,
    "close_at_once": close_at_once,
    "garbage": says(b"\x00\xff\x17HTTP/1.1 400 Bad Request\r\n\r\n"),
    "half_then_silent": says(_HELLO + b"\x04\x13\x00"),
    "half_then_close": says(_HELLO + b"\x04\x13\x00", then_close=True),
    "endless_string": floods(_HELLO, bytes.fromhex("0403fff800000000") + bytes(0xFFF0)),
    "endless_nested": floods(_HELLO, bytes.fromhex("0403000800000000") * (_BLOCK // 8)),
    "endless_echo": floods(_HELLO, bytes.fromhex("0402000800000000") * (_BLOCK // 8)),
    "endless_more": floods(_HELLO, (bytes.fromhex("0413002800000002 0002000100000000") + bytes(24)) * (_BLOCK // 40)),
    "slow_drip": drips(_HELLO * 1000, 0.02),
}
"""Hostile switches, by name."""
