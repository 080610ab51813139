"""Listening on TCP and on the local socket, so that no client can hold the exporter up."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from mecexporter.errors import MecExporterError

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator
    from pathlib import Path

log = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds a client has to send a whole request, and again to take the whole answer."""
KEEP_ALIVE = 75.0
"""Seconds an idle connection stays; longer than the usual scrape interval."""
MAX_CONNECTIONS = 128
LOOK = 1.0
"""Seconds between two looks at who is too slow."""
MAX_HEADER = 8190  # bytes, of the request line and of each header
STOP = 0.5
"""Seconds that running requests get to end, twice: aiohttp first waits, then cancels."""


def parse_listen(text: str) -> tuple[str, int]:
    """``HOST:PORT`` in its parts: ``0.0.0.0:9746``, ``[::]:9746``, ``localhost:0``; host '' for ``:9746``: everywhere.

    Raises:
        ValueError: what is wrong with it.
    """
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} is not HOST:PORT: the port is missing")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(f"{text!r} is not HOST:PORT: {port!r} is not a port from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise ValueError(f"{text!r} is not HOST:PORT: only an IPv6 address stands in brackets")
    elif any(c in host for c in ":[]"):
        raise ValueError(f"{text!r} is not HOST:PORT: an IPv6 address must stand in brackets, as in [::]:9746")
    if any(c.isspace() for c in host) or "/" in host:
        raise ValueError(f"{text!r} is not HOST:PORT: {host!r} is neither a name nor an address")
    return host, int(port)


async def serve(app: web.Application, host: str, port: int, ssl_context: ssl.SSLContext | None = None) -> web.AppRunner:
    """Listen on TCP; ``runner.addresses`` tells where, ``runner.cleanup()`` stops within 2 s.

    Args:
        app: for this listener alone.
        host: a name or address; '' and ``::`` mean every address of both families.
        port: 0 for any free one.
        ssl_context: plain HTTP without one.

    Raises:
        MecExporterError: it can't listen there, and why.
    """
    runner = await _runner(app)
    try:
        await web.TCPSite(runner, None if host in {"", "::"} else host, port, ssl_context=ssl_context).start()
    except OSError as error:
        await runner.cleanup()
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        why = "already in use" if error.errno == errno.EADDRINUSE else error.strerror
        raise MecExporterError(f"cannot listen on {where}: {why}") from error
    return runner


async def serve_local(app: web.Application, path: Path) -> web.AppRunner | None:
    """Listen on a unix socket of mode 0660; None, and a line in the log, where that can't be: the exporter goes on.

    A socket behind which nobody answers is replaced; ours is removed again when the runner is cleaned up.
    """
    try:
        if await _answers(path):
            raise OSError(errno.EADDRINUSE, "another process answers there")  # noqa: TRY301  # one line for all causes
        sock = _bind(path)
    except OSError as error:
        log.warning("no local socket: %s: %s", path, error.strerror or error)
        return None
    ours = _inode(path)

    async def remove(_app: web.Application) -> None:
        if _inode(path) == ours:
            _remove(path)

    app.on_cleanup.append(remove)
    runner = await _runner(app)
    await web.SockSite(runner, sock).start()
    return runner


async def _answers(path: Path) -> bool:
    """Whether somebody accepts connections there."""
    try:
        async with asyncio.timeout(1):
            _, writer = await asyncio.open_unix_connection(path)
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except (BlockingIOError, TimeoutError):  # its backlog is full: alive, or stopped
        return True
    writer.close()
    return True


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("the local socket stays: %s: %s", path, error.strerror)


def _bind(path: Path) -> socket.socket:
    """A socket of mode 0660 there, in place of one behind which nobody is; nothing else is replaced."""
    if path.is_socket():
        path.unlink()
    sock = socket.socket(socket.AF_UNIX)
    try:
        os.fchmod(sock.fileno(), 0o660)  # Linux makes the file with the socket's mode: it is never wider than this
        sock.bind(str(path))
        path.chmod(0o660)  # what the umask took off
    except OSError:
        sock.close()
        raise
    return sock


async def _runner(app: web.Application) -> web.AppRunner:
    runner = web.AppRunner(
        app,
        access_log=None,
        keepalive_timeout=KEEP_ALIVE,
        shutdown_timeout=STOP,
        max_line_size=MAX_HEADER,
        max_field_size=MAX_HEADER,
        lingering_time=0,
    )
    patience = _Patience(runner)
    app.on_response_prepare.append(patience.note)
    app.on_shutdown.append(patience.look)
    app.cleanup_ctx.append(patience.watch)
    await runner.setup()
    return runner


@dataclass(frozen=True, slots=True)
class _Client:
    """A connection; ``since`` is when it was made or last given an answer, on the loop's clock."""

    transport: asyncio.Transport
    since: float
    answered: bool

    def overdue(self, now: float) -> bool:
        # a transport that is closing still waits for its client to take what is in the buffer
        idle = self.answered and not self.transport.is_closing() and not self.transport.get_write_buffer_size()
        return now - self.since > (KEEP_ALIVE + PATIENCE if idle else PATIENCE)


class _Patience:
    """Ends the connections of clients that are too slow or too many; aiohttp limits neither."""

    def __init__(self, runner: web.AppRunner) -> None:
        self._runner = runner
        self._clients: dict[web.RequestHandler, _Client] = {}

    async def note(self, request: web.Request, _response: web.StreamResponse) -> None:
        if request.transport is not None:
            self._clients[request.protocol] = _Client(request.transport, asyncio.get_running_loop().time(), True)

    async def watch(self, _app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(self._watch())
        yield
        task.cancel()
        for client in self._clients.values():
            client.transport.abort()  # aiohttp only closed it, which waits for a client that does not read

    async def look(self, _app: web.Application | None = None) -> None:
        """Forget who is gone, learn who is new."""
        now = asyncio.get_running_loop().time()
        clients = {c: self._clients.get(c) or _client(c, now) for c in self._connections()}
        self._clients = {c: client for c, client in clients.items() if client is not None}

    def _connections(self) -> list[web.RequestHandler]:
        return self._runner.server.connections if self._runner.server is not None else []

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK)
            await self.look()
            oldest_first = sorted(self._clients.values(), key=lambda client: client.since)
            too_many = max(0, len(oldest_first) - MAX_CONNECTIONS)
            for nth, client in enumerate(oldest_first):
                if nth < too_many or client.overdue(loop.time()):
                    client.transport.abort()


def _client(connection: web.RequestHandler, now: float) -> _Client | None:
    return None if connection.transport is None else _Client(connection.transport, now, False)
