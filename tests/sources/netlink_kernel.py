"""A kernel that is played: what a Netlink sends is answered at once."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from mecexporter.sources.wire.netlink import Netlink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_DUMP = 0x301


class PlayedNetlink(Netlink):
    """A Netlink whose dumps are answered with bodies, or an errno, by ``answer(type, body of the question)``."""

    def __init__(self, answer: Callable[[int, bytes], Iterable[bytes] | int]) -> None:
        self._socket: Any = _Socket(answer)
        self._sequence = 0
        self.interrupted = False


class _Socket:
    def __init__(self, answer: Callable[[int, bytes], Iterable[bytes] | int]) -> None:
        self._answer = answer
        self._datagrams: Iterator[bytes] = iter(())

    def send(self, question: bytes) -> int:
        _, kind, flags, sequence, _ = struct.unpack_from("=IHHII", question)
        assert flags == _DUMP, "it is only ever read"
        self._datagrams = self._told(self._answer(kind, question[16:]), sequence)
        return len(question)

    @staticmethod
    def _told(told: Iterable[bytes] | int, sequence: int) -> Iterator[bytes]:
        if isinstance(told, int):
            yield struct.pack("=IHHIIi", 20, 2, 0, sequence, 0, -told)
            return
        for body in told:
            yield struct.pack("=IHHII", 16 + len(body), 0x100, 2, sequence, 0) + body
        yield struct.pack("=IHHIIi", 20, 3, 2, sequence, 0, 0)

    def recv(self, _: int) -> bytes:
        return next(self._datagrams)

    def close(self) -> None:
        """There is nothing to close."""
