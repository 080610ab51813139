import asyncio
import errno
import gc
import json
import os
import random
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.wire import jsonrpc
from mecexporter.sources.wire.endpoint import Endpoint, TlsFiles
from mecexporter.sources.wire.files import denied
from mecexporter.sources.wire.jsonrpc import Framer, JsonRpcStream, KeptStream
from tests.faults.servers import JSON, Behaviour, Hostile, hostile, says, silent
from tests.sources.daemons import short_dir
from tests.waiting import eventually

NOBODY = 65534


@pytest.fixture
def path() -> Iterator[Path]:
    with short_dir() as directory:
        yield directory / "socket"


def unix(path: Path) -> Endpoint:
    return Endpoint("unix", str(path))


# --- endpoints


@pytest.mark.parametrize(
    ("text", "endpoint", "canonical"),
    [
        ("unix:/run/db.sock", Endpoint("unix", "/run/db.sock"), "unix:/run/db.sock"),
        ("/run/db.sock", Endpoint("unix", "/run/db.sock"), "unix:/run/db.sock"),
        ("tcp:10.0.0.1:6642", Endpoint("tcp", "10.0.0.1", 6642), "tcp:10.0.0.1:6642"),
        ("tcp:db.example.org:6642", Endpoint("tcp", "db.example.org", 6642), "tcp:db.example.org:6642"),
        ("tcp:[fe80::1%eth0]:6642", Endpoint("tcp", "fe80::1%eth0", 6642), "tcp:[fe80::1%eth0]:6642"),
        ("ssl:[::1]:6642", Endpoint("ssl", "::1", 6642), "ssl:[::1]:6642"),
    ],
)
def test_endpoint(text: str, endpoint: Endpoint, canonical: str) -> None:
    assert Endpoint.parse(text) == endpoint
    assert str(endpoint) == canonical
    assert Endpoint.parse(canonical) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        *("", "unix:", "unix:db.sock", "db.sock", "tcp:", "tcp::6642", "tcp:::1:6642", "tcp:host:0"),
        *("tcp:host:65536", "tcp:ho st:1", "udp:host:1", "ssl:host:x", "tcp:host:1,", "tcp:host:1 ", "ptcp:6642"),
    ],
)
def test_what_is_no_endpoint_is_said_with_the_forms_that_are(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no endpoint: want unix:/path") as caught:
        Endpoint.parse(text)
    assert repr(text) in str(caught.value)


def test_ovsdbs_own_port_where_none_is_named() -> None:
    assert Endpoint.parse("tcp:host") == Endpoint("tcp", "host", 6640)
    assert Endpoint.parse("ssl:[::1]") == Endpoint("ssl", "::1", 6640)


# --- framing

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text() | st.text('{}[]"\\ é€😀'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('ab{}"\\é'), inner, max_size=4),
    max_leaves=12,
)


def cut(data: bytes, seed: int, longest: int) -> Iterator[bytes]:
    chance = random.Random(seed)  # noqa: S311  # a reproducible cut, no secret
    at = 0
    while at < len(data):
        size = chance.randint(1, longest)
        yield data[at : at + size]
        at += size


@settings(max_examples=300, deadline=None)
@given(
    objects=st.lists(st.dictionaries(st.text('xy{}"\\'), JSON_VALUES, max_size=3), max_size=5),
    ascii_only=st.booleans(),
    gap=st.sampled_from([b"", b"\n", b" \t\r\n  "]),
    seed=st.integers(),
    longest=st.integers(1, 40),
)
def test_any_cut_of_any_objects_gives_the_same_messages(
    objects: list[dict[str, Any]], *, ascii_only: bool, gap: bytes, seed: int, longest: int
) -> None:
    texts = [json.dumps(one, ensure_ascii=ascii_only).encode() for one in objects]
    framer = Framer("peer", 1 << 20)
    seen = [bytes(message) for chunk in cut(gap.join(texts) + gap, seed, longest) for message in framer.feed(chunk)]
    assert seen == texts
    assert not framer.unfinished


def plain_frames(data: bytes) -> tuple[list[bytes], bytes]:
    """The rule in its plainest form, byte by byte; data is cut where something else than `{` begins a message."""
    found, start, depth, quoted, escaped = [], 0, 0, False, False
    for at in range(len(data)):
        byte = data[at : at + 1]
        if not depth and byte != b"{":
            break
        if escaped:
            escaped = False
        elif byte == b"\\":
            escaped = True
        elif byte == b'"':
            quoted = not quoted
        elif not quoted and byte in b"{}":
            depth += 1 if byte == b"{" else -1
            if not depth:
                found.append(data[start : at + 1])
                start = at + 1
    return found, data[start:]


STRINGS = st.lists(st.sampled_from([b"{", b"}", b"a", rb"\"", rb"\\", rb"\n"])).map(
    lambda units: b'"' + b"".join(units) + b'"'
)
STRUCTURE = st.lists(st.sampled_from([b"{", b"}"]) | STRINGS).map(b"".join)


@settings(max_examples=500, deadline=None)
@given(tail=STRUCTURE, seed=st.integers(), longest=st.integers(1, 30))
def test_bytes_that_are_hardly_json_are_cut_by_the_plain_rule(tail: bytes, seed: int, longest: int) -> None:
    data = b"{" + tail
    wanted, rest = plain_frames(data)
    framer = Framer("peer", 1 << 20)
    seen: list[bytes] = []
    refused = False
    try:
        for chunk in cut(data, seed, longest):
            seen.extend(map(bytes, framer.feed(chunk)))
    except SourceError:
        refused = True
    assert seen == wanted
    assert refused == (rest[:1] not in (b"", b"{"))
    assert refused or bytes(framer.unfinished) == rest


def test_garbage_is_known_by_its_first_byte() -> None:
    with pytest.raises(SourceError, match=r"peer: sent b'\[1\]', not a JSON object") as caught:
        list(Framer("peer", 100).feed(b" \n[1]"))
    assert caught.value.reason is Reason.GARBAGE


@pytest.mark.parametrize("chunks", [[b'{"a":"' + b"x" * 200], [b'{"a":"', b"x" * 95], [b'{"a":"' + b"x" * 100 + b'"}']])
def test_a_message_over_the_limit(chunks: list[bytes]) -> None:
    framer = Framer("peer", 100)
    for chunk in chunks[:-1]:
        assert not list(framer.feed(chunk))
    with pytest.raises(SourceError) as caught:
        list(framer.feed(chunks[-1]))
    assert caught.value.reason is Reason.TOO_LARGE


@pytest.mark.parametrize(
    "block",
    [
        b'{"_uuid":["uuid","x"],"external_ids":["map",[["neutron:device_owner","compute:nova"]]]},',
        b'"recirc_id(0),in_port(1),actions:{drop} \\"quoted\\"\\n",',
        b"{{{{}}}}",
        b"\\\\",
    ],
)
def test_framing_a_large_answer_takes_linear_time(block: bytes) -> None:
    chunk = (block * (1 << 18))[: 1 << 18]
    framer = Framer("peer", 1 << 30)
    list(framer.feed(b'{"result":['))
    began = time.process_time()
    for _ in range(64):  # 16 MiB
        list(framer.feed(chunk))
    assert time.process_time() - began < 3  # 0.05 to 1.2 s on a laptop; a quadratic one takes minutes
    assert len(framer.unfinished) == 11 + 64 * len(chunk)


# --- parsing


def test_a_large_body_parsed_in_pieces_is_the_same() -> None:
    rows = [{"_uuid": ["uuid", str(n)], "name": f'"{n}" {{é}}', "n": n, "f": 0.5, "none": None} for n in range(20_000)]
    body = {"id": 1, "error": None, "result": [{"rows": rows}, {}, "x" * 400_000, [[[list(range(200_000))]]]]}
    collecting = gc.isenabled()
    assert jsonrpc._parse("peer", bytearray(orjson.dumps(body))) == body
    assert gc.isenabled() == collecting


@pytest.mark.parametrize("size", [10, 400_000])
def test_bytes_that_are_no_utf8_are_replaced(size: int) -> None:
    message = b'{"result":["' + b"\xff\xc3(" + b"x" * size + b'"]}'
    assert jsonrpc._parse("peer", bytearray(message)) == {"result": ["��(" + "x" * size]}


@pytest.mark.parametrize(
    "text", ['{"a":}', "{a}", '{"a":1,}', '{"a":' + "[" * 5000 + "}", '{"a":' + "[" * 500_000 + "}"]
)
def test_what_only_looks_like_json_is_garbage(text: str) -> None:
    with pytest.raises(SourceError, match="not JSON") as caught:
        jsonrpc._parse("peer", bytearray(text.encode()))
    assert caught.value.reason is Reason.GARBAGE
    assert len(caught.value.why) < 400


# --- the stream


def answers(reply: Callable[[list[dict[str, Any]]], bytes], requests: int = 1) -> Behaviour:
    """A peer that after every so many requests sends what `reply` makes of all that it got."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        framer = Framer("client", 1 << 20)
        got: list[dict[str, Any]] = []
        while chunk := await reader.read(65536):
            for message in framer.feed(chunk):
                got.append(orjson.loads(message))
                if len(got) % requests == 0:
                    writer.write(reply(got))

    return behave


async def failure(awaitable: Any) -> SourceError:
    with pytest.raises(SourceError) as caught:
        await awaitable
    return caught.value


async def test_several_calls_at_once_get_each_its_own_answer(path: Path) -> None:
    def backwards(got: list[dict[str, Any]]) -> bytes:
        return b"\n".join(
            orjson.dumps({"id": one["id"], "result": one["params"], "error": None}) for one in reversed(got)
        )

    async with hostile(path, answers(backwards, 3)):
        stream = await JsonRpcStream.open(unix(path))
        assert await asyncio.gather(*(stream.call("m", [n]) for n in range(3))) == [[0], [1], [2]]
        stream.close()


async def test_an_echo_is_answered_and_a_notification_dropped(path: Path) -> None:
    echoed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"id":"e","method":"echo","params":["x"]}{"id":null,"method":"update","params":[]}')
        echoed.set_result(orjson.loads(await reader.read(65536)))
        await silent(reader, writer)

    async with hostile(path, behave):
        stream = await JsonRpcStream.open(unix(path))
        async with asyncio.timeout(10):
            assert await echoed == {"id": "e", "result": ["x"], "error": None}
        assert not stream.closed.done()
        stream.close()


@pytest.mark.parametrize(
    ("reply", "reason", "why"),
    [
        (b'{"id":1,"error":"no such\\n command"}', Reason.ANSWERED_ERROR, "no such command"),  # OVS <= 3.1
        (b'{"id":1,"error":"' + b"x" * 9999 + b'","result":null}', Reason.ANSWERED_ERROR, "x" * 300 + "…"),
        (b'{"id":1,"error":{"error":"unknown","details":"d"},"result":null}', Reason.ANSWERED_ERROR, "unknown: d"),
        (b'{"id":1}', Reason.GARBAGE, "neither result nor error"),
        (b'{"id":7,"result":1}', Reason.GARBAGE, "id 7, which is not ours"),
        (b'{"id":[1],"result":1}', Reason.GARBAGE, "which is not ours"),
        (b"{}", Reason.GARBAGE, "which is not ours"),
        (b'{"id":1,"result":}', Reason.GARBAGE, "not JSON"),
    ],
)
async def test_answers_that_are_none(path: Path, reply: bytes, reason: Reason, why: str) -> None:
    async with hostile(path, says(reply)):
        stream = await JsonRpcStream.open(unix(path))
        error = await failure(stream.call("m", []))
        assert error.reason is reason
        assert str(path) in error.why
        assert why in error.why
        # Only an answered error leaves the stream of use.
        assert stream.closed.done() == (reason is not Reason.ANSWERED_ERROR)
        stream.close()


async def test_a_call_that_is_given_up_takes_the_stream_with_it(path: Path) -> None:
    async with hostile(path, silent):
        stream = await JsonRpcStream.open(unix(path), deadline=0.2)
        first, second = await asyncio.gather(failure(stream.call("a", [])), failure(stream.call("b", [])))
        assert (first.reason, second.reason) == (Reason.TIMEOUT, Reason.TIMEOUT)
        assert (await failure(stream.call("c", []))).reason is Reason.TIMEOUT  # what closed it

        stream = await JsonRpcStream.open(unix(path))
        call, other = asyncio.create_task(stream.call("a", [])), asyncio.create_task(failure(stream.call("b", [])))
        await eventually(lambda: len(stream._waiting) == 2, 10, "both calls are under way")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert stream.closed.done()
        assert (await other).reason is Reason.CLOSED


async def test_an_idle_stream_notices_that_the_peer_hung_up(path: Path) -> None:
    async with hostile(path, silent):
        stream = await JsonRpcStream.open(unix(path))
    async with asyncio.timeout(10):
        assert (await stream.closed).reason is Reason.CLOSED
    assert "hung up" in (await failure(stream.call("m", []))).why


async def test_the_event_loop_lives_while_a_large_answer_is_parsed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, parsing = jsonrpc._parse, threading.Event()

    def watched(peer: str, message: bytearray) -> dict[str, Any]:
        parsing.set()
        parsed = plain(peer, message)
        parsing.clear()
        return parsed

    monkeypatch.setattr(jsonrpc, "_parse", watched)
    row = {"_uuid": ["uuid", "x" * 36], "external_ids": ["map", [[f"key-{n}", "value"] for n in range(20)]]}
    body = orjson.dumps({"id": 1, "error": None, "result": [{"rows": [row] * 40_000}]})  # 16 MB
    async with hostile(path, says(body)):
        stream = await JsonRpcStream.open(unix(path), deadline=30, max_bytes=64 << 20)
        call = asyncio.create_task(stream.call("m", []))
        turns = 0
        while not call.done():
            await asyncio.sleep(0)
            turns += parsing.is_set()
        assert len((await call)[0]["rows"]) == 40_000
        assert turns > 5  # one, if the parser keeps the interpreter's lock from beginning to end
        stream.close()


async def test_a_kept_stream_is_shared_and_follows_the_endpoint(path: Path) -> None:
    other = path.with_name("other")
    kept = KeptStream(tls=None, deadline=5, max_bytes=1000)
    async with hostile(path, silent) as one, hostile(other, silent) as two:
        first, second = await asyncio.gather(kept.to(unix(path)), kept.to(unix(path)))
        assert first is second
        third = await kept.to(unix(other))
        assert first.closed.done()
        third.close()
        assert await kept.to(unix(other)) is not third
        await eventually(lambda: (one.accepted, two.accepted) == (1, 2), 10, "three connections in all")
        kept.close()


# --- connecting


REFUSED, UNREACHED = errno.ECONNREFUSED, errno.EHOSTUNREACH


@pytest.mark.parametrize(
    ("numbers", "reason", "why"),
    [
        ([REFUSED], Reason.REFUSED, "Connection refused"),
        ([UNREACHED], Reason.TIMEOUT, "No route to host"),
        ([REFUSED, REFUSED], Reason.REFUSED, "Connection refused"),
        ([UNREACHED, UNREACHED], Reason.TIMEOUT, "No route to host"),
        ([REFUSED, UNREACHED], Reason.TIMEOUT, "Connection refused, No route to host"),
        ([errno.EMFILE], Reason.GARBAGE, "Too many open files"),
        ([errno.EADDRNOTAVAIL, REFUSED], Reason.GARBAGE, "Cannot assign requested address, Connection refused"),
    ],
)
async def test_a_name_is_dead_if_each_of_its_addresses_is(
    monkeypatch: pytest.MonkeyPatch, numbers: list[int], reason: Reason, why: str
) -> None:
    """In asyncio's words, which are 'Connect call failed' for all of it."""
    failures = [OSError(number, f"Connect call failed ('192.0.2.{at}', 6642)") for at, number in enumerate(numbers)]
    together = OSError(f"Multiple exceptions: {', '.join(str(f) for f in failures)}")

    async def fail(*_: object, **__: object) -> NoReturn:
        raise failures[0] if len(failures) == 1 else together

    monkeypatch.setattr(asyncio, "open_connection", fail)
    error = await failure(JsonRpcStream.open(Endpoint("tcp", "central", 6642)))
    assert (error.reason, error.why) == (reason, f"tcp:central:6642: {why}")


async def test_nobody_there(path: Path) -> None:
    async def reason(endpoint: Endpoint) -> Reason:
        return (await failure(JsonRpcStream.open(endpoint))).reason

    assert await reason(unix(path)) is Reason.MISSING
    assert await reason(unix(path / "x")) is Reason.MISSING
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.close()
    assert await reason(unix(path)) is Reason.REFUSED
    assert await reason(unix(path / "x")) is Reason.MISSING
    assert await reason(Endpoint("unix", "/tmp/" + "x" * 120)) is Reason.GARBAGE  # noqa: S108  # never created
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        port = unheard.getsockname()[1]
        assert await reason(Endpoint("tcp", "127.0.0.1", port)) is Reason.REFUSED
        refused = await failure(JsonRpcStream.open(Endpoint("tcp", "127.0.0.1", port)))
        assert refused.why == f"tcp:127.0.0.1:{port}: Connection refused"
    # Nothing of these shows that nobody is there.
    assert await reason(Endpoint("ssl", "127.0.0.1", port)) is Reason.PERMISSION  # no key files
    assert await reason(Endpoint("tcp", "no.such.invalid", 6642)) is Reason.TIMEOUT


async def test_a_peer_that_accepts_no_more_connections(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        streams = [await JsonRpcStream.open(unix(path))]
        error = await failure(JsonRpcStream.open(unix(path)))
        assert error.reason is Reason.TIMEOUT
        assert "queue of connections is full" in error.why
        streams[0].close()


def mode(path: Path, bits: int) -> None:
    path.chmod(bits)


@contextmanager
def another_user() -> Iterator[str]:
    """Root may do everything, so be nobody for a while."""
    uid = os.geteuid()
    if uid:
        yield f"(uid {uid})"
        return
    os.seteuid(NOBODY)
    try:
        yield f"(uid {NOBODY})"
    finally:
        os.seteuid(0)


async def test_no_permission_says_who_lacks_what_on_which_path(path: Path) -> None:
    async with hostile(path, silent):
        mode(path.parent, 0o755)
        mode(path, 0)
        with another_user() as user:
            error = await failure(JsonRpcStream.open(unix(path)))
            assert error.reason is Reason.PERMISSION
            assert user in error.why
            assert f"may not connect to {path}: lacks write (w) on {path} (s---------, owner " in error.why
        mode(path.parent, 0)
        with another_user():
            error = await failure(JsonRpcStream.open(unix(path)))
            assert f"lacks search (x) on {path.parent} (d---------, owner " in error.why
        mode(path.parent, 0o700)
        assert "AppArmor or SELinux" in denied(path, "connect to").why or os.geteuid()


def test_tls_files_that_are_no_use_are_named(tmp_path: Path) -> None:
    key, certificate, ca = (tmp_path / name for name in ("key.pem", "certificate.pem", "ca.pem"))
    files = TlsFiles(key, certificate, ca)
    key.write_text("no key")
    certificate.write_text("no certificate")
    with pytest.raises(SourceError, match=f"{ca}: No such file") as caught:
        files.context()
    assert caught.value.reason is Reason.MISSING
    ca.write_text("no CA")
    with pytest.raises(SourceError, match="not a usable key, certificate and CA") as caught:
        files.context()
    assert caught.value.reason is Reason.GARBAGE


# --- hostile peers

WANTED = {
    "silent": Reason.TIMEOUT,
    "close_at_once": Reason.CLOSED,
    "garbage": Reason.GARBAGE,
    "braced_garbage": Reason.GARBAGE,
    "half_then_silent": Reason.TIMEOUT,
    "half_then_close": Reason.CLOSED,
    "endless_string": Reason.TOO_LARGE,
    "endless_nested": Reason.TOO_LARGE,
    "endless_echo": Reason.TIMEOUT,  # it does not read our replies, so it is not read either
    "slow_drip": Reason.TIMEOUT,
}


def patience(name: str) -> float:
    """Seconds: short where the deadline is what ends it, long where it must not be."""
    return 0.3 if WANTED.get(name) is Reason.TIMEOUT else 5


async def bounded(call: Callable[[], Any], server: Hostile) -> SourceError:
    """Fails in time and memory, and stops taking bytes."""
    gc.collect()
    tracemalloc.start()
    began = time.monotonic()
    try:
        error = await failure(call())
        took, peak = time.monotonic() - began, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert took < 3
    assert peak < 16 << 20
    assert server.sent < 8 << 20
    return error


@pytest.mark.parametrize("name", JSON)
async def test_a_hostile_peer_costs_bounded_time_and_memory(path: Path, name: str) -> None:
    async with hostile(path, JSON[name]) as server:
        stream = await JsonRpcStream.open(unix(path), deadline=patience(name), max_bytes=4 << 20)
        error = await bounded(lambda: stream.call("m", []), server)
        assert error.reason is WANTED[name]
        assert str(path) in error.why
        assert stream.closed.done()
