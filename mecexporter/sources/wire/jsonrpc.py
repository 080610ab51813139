"""One JSON-RPC 1.0 stream on asyncio, for control sockets (unixctl) and OVSDB alike.

The form is RFC 7047 section 4: objects follow each other on a byte stream with neither length nor separator, so the
only end of a message is its last closing brace.
"""

from __future__ import annotations

import asyncio
import gc
import re
import ssl
from array import array
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.wire.endpoint import READ_BYTES, connect, within

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.sources.wire.endpoint import Endpoint, TlsFiles

MAX_BYTES = 16 << 20
"""Largest answer taken unless the caller says otherwise."""

_THREAD_BYTES = 1 << 20  # bodies above this are parsed in a thread
_UNASKED_BYTES = 1 << 20  # echoes and notifications taken between two answers: an idle peer's echoes of a day
_SAID_CHARS = 300  # how much of a peer's own words goes into an error


class Framer:
    """Cuts a byte stream into JSON objects, in linear time and without parsing them.

    Feed it chunks as they come; it keeps at most ``max_bytes`` of an unfinished message.
    """

    _SPACE = re.compile(rb"[ \t\r\n]*")
    _MARK = re.compile(rb'["{}]|\\.?', re.DOTALL)
    _NOT_MARKS = bytes(set(range(256)) - set(b'"{}'))
    _STEPS = bytes.maketrans(b"{}", b"\x01\xff")  # as signed bytes: an opening brace is +1, a closing one -1

    def __init__(self, peer: str, max_bytes: int) -> None:
        self._peer = peer
        self._max_bytes = max_bytes
        self._depth = 0
        self._in_string = False
        self._escaped = False  # the last chunk ended in a backslash, which takes the next byte with it
        self.unfinished = bytearray()

    def feed(self, chunk: bytes) -> Iterator[bytearray]:
        """Yield each message that the chunk completes.

        Raises:
            SourceError: GARBAGE if something else than an object begins; TOO_LARGE.
        """
        at = 0
        while at < len(chunk):
            if not self._depth:
                at = self._SPACE.match(chunk, at).end()  # type: ignore[union-attr]  # it matches the empty string
                if at == len(chunk):
                    return
                if chunk[at] != ord("{"):
                    raise SourceError(Reason.GARBAGE, f"{self._peer}: sent {chunk[at : at + 20]!r}, not a JSON object")
            end = (self._skim(chunk) if at == 0 else 0) or self._walk(chunk, at)
            if len(self.unfinished) + end - at > self._max_bytes:
                raise SourceError(Reason.TOO_LARGE, f"{self._peer}: a message of more than {self._max_bytes} bytes")
            self.unfinished += memoryview(chunk)[at:end]
            at = end
            if not self._depth:
                message, self.unfinished = self.unfinished, bytearray()
                yield message

    def _skim(self, chunk: bytes) -> int:
        """Take the whole chunk, or all to its last brace if that ends the message; no Python loop over what is in it.

        Returns:
            Where that is; 0, and nothing taken, where a message ends earlier.
        """
        body = chunk[self._escaped :].replace(rb"\\", b"").replace(rb"\"", b"")
        # Two neighbouring quotes, whatever they open or close, leave us where we were.
        parts = body.translate(None, self._NOT_MARKS).replace(b'""', b"").split(b'"')
        steps = array("b", b"".join(parts[self._in_string :: 2]).translate(self._STEPS))
        heights = accumulate(steps, initial=self._depth)
        if not self._depth:
            next(heights)
        depth, in_string = self._depth + sum(steps), self._in_string ^ (len(parts) % 2 == 0)
        lowest = min(islice(heights, len(steps) - (not self._depth)), default=1)
        if lowest <= 0 or depth < 0 or (not depth and (in_string or not chunk.rstrip().endswith(b"}"))):
            return 0
        self._depth, self._in_string, self._escaped = depth, in_string, bool(depth) and body.endswith(b"\\")
        return len(chunk) if depth else chunk.rfind(b"}") + 1

    def _walk(self, chunk: bytes, at: int) -> int:
        """Go mark by mark to the end of the message, or of the chunk; returns where that is."""
        if self._escaped:
            self._escaped = False
            at += 1
        for mark in self._MARK.finditer(chunk, at):
            match mark[0]:
                case b'"':
                    self._in_string = not self._in_string
                case b"\\":
                    self._escaped = True
                case b"{" if not self._in_string:
                    self._depth += 1
                case b"}" if not self._in_string:
                    self._depth -= 1
                    if not self._depth:
                        return mark.end()
        return len(chunk)


def _parse(peer: str, message: bytearray) -> dict[str, Any]:
    """Parse one framed message.

    Bytes that are no UTF-8 are replaced: ovsdb-server refuses them, but a control socket passes on whatever a
    configuration or a packet put into a name, and one odd name must not hide all else.
    """
    collecting = gc.isenabled()
    gc.disable()  # it would walk the growing tree again and again: three quarters of the time of a large body
    try:
        try:
            return _loads(message)  # type: ignore[no-any-return]  # framed between braces: an object
        except ValueError:
            return _loads(message.decode("utf-8", "replace").encode())  # type: ignore[no-any-return]  # as above
    except (ValueError, RecursionError) as error:
        raise SourceError(Reason.GARBAGE, f"{peer}: sent {bytes(message[:40])!r}…, not JSON: {error}") from None
    finally:
        if collecting:
            gc.enable()


class _Envelope(msgspec.Struct):
    """A message whose result is left as it came."""

    id: Any = None
    method: str | None = None
    params: Any = None
    result: msgspec.Raw = msgspec.Raw()
    error: Any = None


_ENVELOPE = msgspec.json.Decoder(_Envelope)


def _open(peer: str, message: bytearray) -> dict[str, Any]:
    """Parse one framed message but for its result, which stays bytes."""
    try:
        envelope = _ENVELOPE.decode(message)
    except ValueError as error:  # msgspec's errors are ValueErrors
        raise SourceError(Reason.GARBAGE, f"{peer}: sent {bytes(message[:40])!r}…, not JSON-RPC: {error}") from None
    opened = msgspec.structs.asdict(envelope)
    opened["result"] = bytes(envelope.result)
    return opened if opened["result"] else {key: opened[key] for key in opened.keys() - {"result"}}


_SPLIT_BYTES = 1 << 18
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])


def _loads(body: bytes | bytearray | memoryview, levels: int = 4) -> Any:
    """Parse JSON, a large body piece by piece.

    A parser holds the interpreter's lock from beginning to end, so a thread alone does not keep the event loop alive;
    between two pieces the loop gets its turn. Each level is scanned once more; OVSDB's rows are four levels down.

    Raises:
        ValueError: not JSON (orjson's errors and msgspec's both are).
    """
    if levels and len(body) > _SPLIT_BYTES:
        if body[0] == ord("{"):
            return {key: _loads(memoryview(held), levels - 1) for key, held in _OBJECT.decode(body).items()}
        if body[0] == ord("["):
            return [_loads(memoryview(held), levels - 1) for held in _ARRAY.decode(body)]
    return orjson.loads(body)


_reading: set[asyncio.Task[None]] = set()


class JsonRpcStream:
    """A connection to one peer; several calls may be under way at once.

    It answers the peer's ``echo`` and drops its notifications. After any failure but an answered error the connection
    is closed and of no more use: the owner opens another. A call that is given up, by its deadline or by cancellation,
    is such a failure, so no late answer can meet a later request.

    Attributes:
        endpoint: the peer.
        closed: done as soon as the connection is, also while idle; its result says why.
        certificate_expires: the peer's ``notAfter``, as Unix time; None without TLS.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        deadline: float,
        max_bytes: int,
    ) -> None:
        self.endpoint = endpoint
        self.certificate_expires = _certificate_expires(writer)
        self.closed: asyncio.Future[SourceError] = asyncio.get_running_loop().create_future()
        self._reader = reader
        self._writer = writer
        self._deadline = deadline
        self._framer = Framer(str(endpoint), max_bytes)
        self._calls = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._raw: set[int] = set()  # of those, the ones that want bytes
        self._unasked = 0  # bytes of messages since the last answer that were none
        self._task = asyncio.create_task(self._read(), name=f"read {endpoint}")
        _reading.add(self._task)  # the loop itself holds tasks weakly
        self._task.add_done_callback(_reading.discard)

    @classmethod
    async def open(
        cls, endpoint: Endpoint, *, tls: TlsFiles | None = None, deadline: float = 5.0, max_bytes: int = MAX_BYTES
    ) -> JsonRpcStream:
        """Connect.

        Args:
            endpoint: the peer.
            tls: for ``ssl:`` endpoints.
            deadline: seconds for connecting, and again for each call from sending to the whole answer.
            max_bytes: largest message taken from the peer.

        Raises:
            SourceError: as :func:`connect`, and TIMEOUT.
        """
        async with within(deadline, str(endpoint)):
            reader, writer = await connect(endpoint, tls)
        return cls(endpoint, reader, writer, deadline=deadline, max_bytes=max_bytes)

    async def call_raw(self, method: str, params: bytes) -> bytes:
        """The same for who compares or searches bytes: neither the parameters nor the result are parsed.

        Raises:
            SourceError: as :meth:`call`.
        """
        ident = self._calls + 1  # the one that call() is about to give
        self._raw.add(ident)
        try:
            answer: bytes = await self.call(method, orjson.Fragment(params))
        finally:
            self._raw.discard(ident)
        return answer

    async def call(self, method: str, params: list[Any] | orjson.Fragment) -> Any:
        """Send a request and wait for its result.

        Raises:
            SourceError: ANSWERED_ERROR, after which the stream is still good; TIMEOUT, CLOSED, GARBAGE or TOO_LARGE,
                after which it is closed.
        """
        if self.closed.done():
            raise _again(self.closed.result())
        self._calls += 1
        ident = self._calls
        answer = self._waiting[ident] = asyncio.get_running_loop().create_future()
        # Not drained: the wait for the answer bounds the time, and requests are small.
        self._writer.write(orjson.dumps({"id": ident, "method": method, "params": params}))
        try:
            async with within(self._deadline, f"{self.endpoint}: {method}"):
                return await answer
        except SourceError as error:
            if answer.cancelled():
                self._fail(error)
            raise
        except asyncio.CancelledError:
            self._fail(SourceError(Reason.CLOSED, f"{self.endpoint}: closed as a call was given up"))
            raise
        finally:
            del self._waiting[ident]

    def close(self) -> None:
        """Close; calls under way fail as CLOSED."""
        self._fail(SourceError(Reason.CLOSED, f"{self.endpoint}: closed by us"))

    def _fail(self, error: SourceError) -> None:
        if self.closed.done():
            return
        self.closed.set_result(error)
        self._writer.transport.abort()  # nothing unsent is worth waiting for; the reading task ends by it
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(_again(error))

    async def _read(self) -> None:
        error = SourceError(Reason.INTERNAL, f"{self.endpoint}: our reader broke")
        try:
            while not self.closed.done() and (chunk := await self._reader.read(READ_BYTES)):
                for message in self._framer.feed(chunk):
                    if self._raw:
                        parsed = _open(str(self.endpoint), message)
                    elif len(message) > _THREAD_BYTES:
                        parsed = await asyncio.to_thread(_parse, str(self.endpoint), message)
                    else:
                        parsed = _parse(str(self.endpoint), message)
                    await self._take(parsed, len(message))
            done = len(self._framer.unfinished)
            error = SourceError(
                Reason.CLOSED, f"{self.endpoint}: hung up" + f" {done} bytes into a message" * bool(done)
            )
        except SourceError as problem:
            error = problem
        except OSError as problem:  # ssl.SSLError among them: a peer that refuses our certificate says so only here
            error = SourceError(Reason.CLOSED, f"{self.endpoint}: the connection broke: {problem}")
        finally:
            self._fail(error)

    async def _take(self, message: dict[str, Any], size: int) -> None:
        """Handle a message: an answer, a request or a notification (RFC 7047 section 4, JSON-RPC 1.0)."""
        ident = message.get("id")
        if message.get("method") is not None:
            self._unasked += size
            if self._unasked > _UNASKED_BYTES:
                raise SourceError(
                    Reason.TOO_LARGE, f"{self.endpoint}: over {_UNASKED_BYTES} bytes that nobody asked for"
                )
            if message["method"] == "echo" and ident is not None:
                self._writer.write(orjson.dumps({"id": ident, "result": message.get("params"), "error": None}))
                await self._writer.drain()  # a peer that asks and never reads stops being read
            return
        self._unasked = 0
        answer = self._waiting.get(ident) if isinstance(ident, int) else None
        if answer is None:
            raise SourceError(
                Reason.GARBAGE, f"{self.endpoint}: answered a request of id {ident!r:.40}, which is not ours"
            )
        if answer.done():
            return  # given up a moment ago; the connection is closing
        # OVS up to 3.1 leaves `result` out of an error's answer, so look at `error` first.
        if (said := message.get("error")) is not None:
            answer.set_exception(SourceError(Reason.ANSWERED_ERROR, f"{self.endpoint}: {_words(said)}"))
        elif "result" in message:
            result = message["result"]
            # Beside a call for bytes every result comes as bytes.
            answer.set_result(_loads(result) if self._raw and ident not in self._raw else result)
        else:
            raise SourceError(Reason.GARBAGE, f"{self.endpoint}: an answer with neither result nor error")


def _again(error: SourceError) -> SourceError:
    """A copy: one exception raised in two tasks would mix their tracebacks."""
    return SourceError(error.reason, error.why)


def _words(said: object) -> str:
    """A peer's error on one line of bounded length: unixctl sends text, OVSDB ``{"error": …, "details": …}``."""
    if isinstance(said, dict):
        said = ": ".join(str(said[key])[:_SAID_CHARS] for key in ("error", "details") if said.get(key))
    text = " ".join(str(said)[: 2 * _SAID_CHARS].split())
    return text if len(text) <= _SAID_CHARS else text[:_SAID_CHARS] + "…"


def _certificate_expires(writer: asyncio.StreamWriter) -> float | None:
    shown: dict[str, Any] = writer.get_extra_info("peercert") or {}
    return ssl.cert_time_to_seconds(shown["notAfter"]) if "notAfter" in shown else None


class KeptStream:
    """Keeps a stream open between calls; opens another after a failure or when the peer is another one."""

    def __init__(self, *, tls: TlsFiles | None, deadline: float, max_bytes: int) -> None:
        self._tls = tls
        self._deadline = deadline
        self._max_bytes = max_bytes
        self._lock = asyncio.Lock()
        self._stream: JsonRpcStream | None = None

    async def to(self, endpoint: Endpoint) -> JsonRpcStream:
        """The open stream to this endpoint.

        Raises:
            SourceError: as :meth:`JsonRpcStream.open`.
        """
        async with self._lock:
            if self._stream is None or self._stream.closed.done() or self._stream.endpoint != endpoint:
                self.close()
                self._stream = await JsonRpcStream.open(
                    endpoint, tls=self._tls, deadline=self._deadline, max_bytes=self._max_bytes
                )
            return self._stream

    @property
    def certificate_expires(self) -> float | None:
        """Of the peer at the other end of the stream, see :class:`JsonRpcStream`; None where none is open."""
        return self._stream.certificate_expires if self._stream is not None else None

    def close(self) -> None:
        """Close the stream if one is open; the next call opens another."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
