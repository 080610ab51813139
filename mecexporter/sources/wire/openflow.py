"""How many flows a bridge has, and how many take packets from a port, by OpenFlow 1.3 on its management socket.

The exact count of what OpenFlow sees: the text of ``bridge/dump-flows`` also lists Open vSwitch's own hidden flows.
Sections named here are those of the OpenFlow Switch Specification 1.3.5.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.wire.endpoint import Endpoint, connect, within

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MAX_BYTES = 1 << 18
"""Most bytes taken from a switch for one count; its hello and its answers are under 100 each."""

_VERSION = 4  # the wire's name for OpenFlow 1.3
_NAMES = {1: "1.0", 2: "1.1", 3: "1.2", 4: "1.3", 5: "1.4", 6: "1.5"}
_HEADER = struct.Struct("!BBHI")  # 7.1: version, type, length with header, xid
_HELLO, _ERROR, _ECHO_REQUEST, _ECHO_REPLY, _MULTIPART_REQUEST, _MULTIPART_REPLY = 0, 1, 2, 3, 18, 19
_AGGREGATE = 2  # 7.3.5: OFPMP_AGGREGATE
_REPLY_MORE = 1  # 7.3.5: OFPMPF_REPLY_MORE

# 7.5.1: one element of type OFPHET_VERSIONBITMAP, 8 bytes long, with the bit of our version.
_HELLO_BODY = struct.pack("!HHI", 1, 8, 1 << _VERSION)
# 7.3.5, 7.3.5.3: OFPMP_AGGREGATE, no flags; a table, OFPP_ANY, OFPG_ANY, any cookie; then the match.
_REQUEST = struct.Struct("!HH4xB3xII4xQQ")
_ALL_TABLES = 0xFF
_ANY = 0xFFFFFFFF
_EMPTY_MATCH = struct.pack("!HH4x", 1, 4)  # 7.2.3.1: OFPMT_OXM, its length without padding
_IN_PORT_MATCH = struct.Struct("!HHII4x")  # with one field
_OXM_IN_PORT = 0x80000004  # 7.2.3.2: OFPXMC_OPENFLOW_BASIC, OFPXMT_OFB_IN_PORT, no mask, 4 bytes
_MULTIPART = struct.Struct("!HH4x")
_AGGREGATE_REPLY = struct.Struct("!QQI4x")  # 7.3.5.3: packets, bytes, flows


async def flow_counts(
    management: Path, *, ports: Sequence[int] = (), deadline: float = 5.0
) -> tuple[int, dict[int, int]]:
    """Count the flows of all tables, as OpenFlow sees them; and those of table 0 that match on a port as input.

    Args:
        management: the socket, ``<run_dir>/<bridge>.mgmt``.
        ports: OpenFlow port numbers.
        deadline: seconds for all of it.

    Returns:
        The flows of all tables, and by port those of table 0.

    Raises:
        SourceError: MISSING (no such bridge, or no vswitchd), REFUSED, PERMISSION, TIMEOUT, CLOSED, GARBAGE, TOO_LARGE;
            ANSWERED_ERROR if the switch sends an error or does not offer OpenFlow 1.3.
    """
    async with within(deadline, f"{management}: OpenFlow"):
        reader, writer = await connect(Endpoint("unix", str(management)))
        try:
            session = _Session(str(management), reader, writer)
            await session.greet()
            total = await session.aggregate(_ALL_TABLES, _EMPTY_MATCH)
            by_port = {p: await session.aggregate(0, _IN_PORT_MATCH.pack(1, 12, _OXM_IN_PORT, p)) for p in ports}
        except OSError as error:
            raise SourceError(Reason.CLOSED, f"{management}: the connection broke: {error}") from None
        finally:
            writer.transport.abort()
    return total, by_port


class _Session:
    def __init__(self, peer: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._peer = peer
        self._reader = reader
        self._writer = writer
        self._left = MAX_BYTES
        self._xid = 0

    async def greet(self) -> None:
        self._send(_HELLO, self._next_xid(), _HELLO_BODY)
        self._negotiate(*await self._receive())

    async def aggregate(self, table: int, match: bytes) -> int:
        request = self._next_xid()
        self._send(_MULTIPART_REQUEST, request, _REQUEST.pack(_AGGREGATE, 0, table, _ANY, _ANY, 0, 0) + match)
        answer = b""
        while True:
            version, kind, xid, body = await self._receive()
            if version != _VERSION:
                raise self._garbage(f"a message of version {version} after 1.3 was agreed")
            if kind == _ECHO_REQUEST:
                self._send(_ECHO_REPLY, xid, body)
                await self._writer.drain()
            elif kind == _ERROR:
                raise self._error(body)
            elif kind == _MULTIPART_REPLY and xid == request:
                if len(body) < _MULTIPART.size or (head := _MULTIPART.unpack_from(body))[0] != _AGGREGATE:
                    raise self._garbage("an answer to another question")
                answer += body[_MULTIPART.size :]
                if not head[1] & _REPLY_MORE:
                    break
        if len(answer) != _AGGREGATE_REPLY.size:
            raise self._garbage(f"an aggregate of {len(answer)} bytes")
        flows: int = _AGGREGATE_REPLY.unpack(answer)[2]
        return flows

    def _next_xid(self) -> int:
        self._xid += 1
        return self._xid

    def _negotiate(self, version: int, kind: int, _xid: int, body: bytes) -> None:
        """See that 1.3 is what both sides come to (6.3.1, 7.5.1).

        Without a bitmap the lower of the two versions is used, and whoever offers 1.3 or more is taken to speak it.
        """
        if kind != _HELLO:
            raise self._garbage("something else than an OpenFlow HELLO")
        offered: set[int] | None = None
        while len(body) >= 4:
            element, length = struct.unpack_from("!HH", body)
            if length < 4 or length > len(body):
                raise self._garbage("a HELLO with a broken element")
            if element == 1 and length >= 8:
                bits = struct.unpack_from("!I", body, 4)[0]
                offered = {bit for bit in range(32) if bits >> bit & 1}
            body = body[(length + 7) // 8 * 8 :]
        if offered is None:
            offered = set(range(_VERSION, version + 1)) or {version}
        if _VERSION not in offered:
            names = ", ".join(_NAMES.get(one, f"version {one}") for one in sorted(offered))
            why = f"OpenFlow 1.3 is needed, the bridge offers {names} (see its column `protocols`)"
            raise SourceError(Reason.ANSWERED_ERROR, f"{self._peer}: {why}")

    def _send(self, kind: int, xid: int, body: bytes) -> None:
        self._writer.write(_HEADER.pack(_VERSION, kind, _HEADER.size + len(body), xid) + body)

    async def _receive(self) -> tuple[int, int, int, bytes]:
        """The next message: version, type, xid, body."""
        try:
            version, kind, length, xid = _HEADER.unpack(await self._reader.readexactly(_HEADER.size))
            if length < _HEADER.size or version not in _NAMES:
                raise self._garbage("bytes that are no OpenFlow")
            self._left -= length
            if self._left < 0:
                raise SourceError(
                    Reason.TOO_LARGE, f"{self._peer}: more than {MAX_BYTES} bytes and no answer among them"
                )
            return version, kind, xid, await self._reader.readexactly(length - _HEADER.size)
        except asyncio.IncompleteReadError:
            raise SourceError(Reason.CLOSED, f"{self._peer}: hung up before its answer was whole") from None

    def _error(self, body: bytes) -> SourceError:
        """An OFPT_ERROR in words (7.5.4): type, code, data."""
        if len(body) < 4:
            return self._garbage("a broken error")
        kind, code = struct.unpack_from("!HH", body)
        return SourceError(Reason.ANSWERED_ERROR, f"{self._peer}: OpenFlow error of type {kind}, code {code}")

    def _garbage(self, what: str) -> SourceError:
        return SourceError(Reason.GARBAGE, f"{self._peer}: sent {what}")
