"""Listeners against clients of all manners."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import stat
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from mecexporter.errors import MecExporterError
from mecexporter.web import listen
from mecexporter.web.listen import parse_listen, serve, serve_local
from mecexporter.web.server import create_app
from tests.waiting import eventually
from tests.web.conftest import status_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.web.conftest import FakeSite, Serve

BIG = b"x" * (64 << 20)  # more than any buffer between a server and a client that does not read


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:9746", ("0.0.0.0", 9746)),
        ("[::]:9746", ("::", 9746)),
        ("[fe80::1%eth0]:1", ("fe80::1%eth0", 1)),
        (":9746", ("", 9746)),
        ("localhost:0", ("localhost", 0)),
    ],
)
def test_parse_listen(text: str, address: tuple[str, int]) -> None:
    assert parse_listen(text) == address


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "'' is not HOST:PORT: the port is missing"),
        ("9746", "'9746' is not HOST:PORT: the port is missing"),
        ("host:", "'host:' is not HOST:PORT: '' is not a port from 0 to 65535"),
        ("host:65536", "'host:65536' is not HOST:PORT: '65536' is not a port from 0 to 65535"),
        ("host:-1", "'host:-1' is not HOST:PORT: '-1' is not a port from 0 to 65535"),
        ("host:٣", "'host:٣' is not HOST:PORT: '٣' is not a port from 0 to 65535"),
        ("::1:9746", "'::1:9746' is not HOST:PORT: an IPv6 address must stand in brackets, as in [::]:9746"),
        ("[::1]", "'[::1]' is not HOST:PORT: '1]' is not a port from 0 to 65535"),
        ("[host]:1", "'[host]:1' is not HOST:PORT: only an IPv6 address stands in brackets"),
        ("http://host:1", "'http://host:1' is not HOST:PORT: an IPv6 address must stand in brackets, as in [::]:9746"),
        ("a b:1", "'a b:1' is not HOST:PORT: 'a b' is neither a name nor an address"),
    ],
)
def test_parse_listen_says_what_is_wrong(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(wrong)}$"):
        parse_listen(text)


async def test_a_port_that_is_taken(site: FakeSite) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MecExporterError, match=rf"^cannot listen on 127\.0\.0\.1:{port}: already in use$"):
            await serve(create_app(site), "127.0.0.1", port)


async def test_an_address_that_is_not_ours(site: FakeSite) -> None:
    with pytest.raises(MecExporterError, match=r"^cannot listen on \[2001:db8::1\]:9746: \w+"):
        await serve(create_app(site), "2001:db8::1", 9746)
    with pytest.raises(MecExporterError, match=r"^cannot listen on no\.such\.invalid:9746: \w+"):
        await serve(create_app(site), "no.such.invalid", 9746)


@pytest.mark.parametrize("host", ["", "::"])
async def test_everywhere_is_both_families(site: FakeSite, host: str) -> None:
    runner = await serve(create_app(site), host, 0)
    try:
        ports = {("[::1]" if len(address) == 4 else "127.0.0.1"): address[1] for address in runner.addresses}
        assert "127.0.0.1" in ports
        for name, port in ports.items():
            assert await status_of(f"http://{name}:{port}/healthz") == 200
    finally:
        await runner.cleanup()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "PATIENCE", 0.3)
    monkeypatch.setattr(listen, "LOOK", 0.05)


def dropped(reader: asyncio.StreamReader) -> bool:
    return reader.at_eof() or reader.exception() is not None


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("said", [b"", b"GET /metr", b"GET / HTTP/1.1\r\nHost: x\r\n", b"GET / HTTP/1.1\r\nA: b"])
async def test_a_client_that_never_ends_its_request_is_dropped(site: FakeSite, serving: Serve, said: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", await serving(create_app(site)))
    writer.write(said)
    await eventually(lambda: dropped(reader), 5, "the silent client is dropped")
    writer.close()


@pytest.mark.usefixtures("impatient")
async def test_a_client_that_drips_is_dropped(site: FakeSite, serving: Serve) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", await serving(create_app(site)))
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")

    def drip() -> bool:
        writer.write(b"A: b\r\n")
        return dropped(reader)

    await eventually(drip, 5, "the dripping client is dropped")
    writer.close()


@pytest.mark.usefixtures("impatient")
async def test_an_idle_client_is_kept_for_a_while_and_then_dropped(
    site: FakeSite, serving: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listen, "KEEP_ALIVE", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", await serving(create_app(site)))
    for _ in range(2):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in await reader.readuntil(b"alive\n")
    await eventually(lambda: dropped(reader), 5, "the idle client is dropped")
    writer.close()


@contextlib.asynccontextmanager
async def greedy(port: int) -> AsyncIterator[socket.socket]:
    """A client that asks for a lot and reads nothing."""
    with socket.socket() as sock:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", port))
        await loop.sock_sendall(sock, b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        yield sock


def with_big_answer(site: FakeSite) -> tuple[web.Application, asyncio.Event]:
    app, asked = create_app(site), asyncio.Event()

    async def big(_request: web.Request) -> web.Response:
        asked.set()
        return web.Response(body=BIG)

    app.router.add_get("/big", big)
    return app, asked


@pytest.mark.usefixtures("impatient")
async def test_a_client_that_does_not_read_its_answer_is_dropped(site: FakeSite) -> None:
    app, asked = with_big_answer(site)
    runner = await serve(app, "127.0.0.1", 0)
    assert runner.server is not None
    server = runner.server
    async with greedy(runner.addresses[0][1]) as sock:
        await asked.wait()
        await eventually(lambda: not server.connections, 5, "the client is dropped")
        assert await rest(sock) < len(BIG)
    await runner.cleanup()


async def rest(sock: socket.socket) -> int:
    """How many bytes are still to be had."""
    received = 0
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionResetError):
            while chunk := await asyncio.get_running_loop().sock_recv(sock, 1 << 20):
                received += len(chunk)
    return received


@pytest.mark.usefixtures("impatient")
async def test_too_many_clients_push_out_the_oldest(
    site: FakeSite, serving: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listen, "PATIENCE", 60)
    monkeypatch.setattr(listen, "MAX_CONNECTIONS", 3)
    port = await serving(create_app(site))
    first, writer = await asyncio.open_connection("127.0.0.1", port)
    writers = [writer, *[(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(3)]]
    await eventually(lambda: dropped(first), 5, "the oldest is dropped")
    assert await status_of(f"http://127.0.0.1:{port}/healthz") == 200
    for w in writers:
        w.close()


@pytest.mark.parametrize("header", [b"X: " + b"x" * 20_000, b"\r\n".join(b"X-%d: x" % n for n in range(2000))])
async def test_headers_are_bounded(site: FakeSite, serving: Serve, header: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", await serving(create_app(site)))
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n\r\n")
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.0 400 ")
    writer.close()


async def test_stops_within_two_seconds_whoever_hangs_on(site: FakeSite) -> None:
    app, asked = with_big_answer(site)
    never = asyncio.Event()

    async def stuck(_request: web.Request) -> web.Response:
        asked.set()
        await never.wait()
        return web.Response()

    app.router.add_get("/stuck", stuck)
    runner = await serve(app, "127.0.0.1", 0)
    port = runner.addresses[0][1]
    ends = []
    for said in (
        b"",
        b"GET / HTT",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n",
    ):
        asked.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        if b"healthz" in said:
            await reader.readuntil(b"alive\n")
        if b"stuck" in said:
            await asked.wait()
        ends.append((reader, writer))
    asked.clear()
    async with greedy(port) as sock:
        await asked.wait()
        began = time.monotonic()
        await runner.cleanup()
        assert time.monotonic() - began < 2
        for reader, writer in ends:
            await eventually(partial(dropped, reader), 2, "the connection is ended")
            writer.close()
        assert await rest(sock) < len(BIG)
    assert await status_of(f"http://127.0.0.1:{port}/healthz") == 0


async def test_the_local_socket(site: FakeSite, tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    runner = await serve_local(create_app(site, local=True), path)
    assert runner is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    curl = ("--unix-socket", str(path))
    assert await status_of(*curl, "http://local/api/v1/findings") == 200
    assert await status_of(*curl, "-X", "POST", "http://local/local/v1/forget/identity") == 204
    assert site.forgotten == ["identity"]
    await runner.cleanup()
    assert not path.exists()


async def test_a_stale_socket_is_replaced(site: FakeSite, tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    runner = await serve_local(create_app(site, local=True), path)
    assert runner is not None
    assert await status_of("--unix-socket", str(path), "http://local/healthz") == 200
    await runner.cleanup()


async def test_a_socket_that_answers_is_left_alone(
    site: FakeSite, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "api.sock"
    first = await serve_local(create_app(site, local=True), path)
    assert first is not None
    assert await serve_local(create_app(site, local=True), path) is None
    assert f"no local socket: {path}: another process answers there" in caplog.messages
    assert await status_of("--unix-socket", str(path), "http://local/healthz") == 200
    await first.cleanup()


async def test_a_socket_with_a_full_backlog_is_somebodys(site: FakeSite, tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as stopped, contextlib.ExitStack() as clients:
        stopped.bind(str(path))
        stopped.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                client = clients.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(path))
        assert await serve_local(create_app(site, local=True), path) is None
    assert path.is_socket()


async def test_a_local_socket_that_can_not_be_is_logged_and_no_more(
    site: FakeSite, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    for path, why in (
        (tmp_path / "missing" / "api.sock", "No such file or directory"),
        (file, "Address already in use"),
        (file / "api.sock", "Not a directory"),
        (tmp_path / ("x" * 120), "AF_UNIX path too long"),
    ):
        assert await serve_local(create_app(site, local=True), path) is None
        assert f"no local socket: {path}: {why}" in caplog.messages
    assert file.read_text() == "precious"
