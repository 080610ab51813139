"""Netlink, as little of it as is asked here: dumps and requests, attributes, and generic netlink's families.

Formats: include/uapi/linux/netlink.h, genetlink.h, rtnetlink.h. A library that decodes all of a message costs twenty
times as much a link; the tests hold this one's answers against such a library's.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from typing import TYPE_CHECKING, Self, TypeVar

from mecexporter.errors import Reason, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

A = TypeVar("A")
T = TypeVar("T")

NETLINK_ROUTE, NETLINK_GENERIC = 0, 16
_REQUEST, _ACK, _INTERRUPTED, _DUMP = 0x1, 0x4, 0x10, 0x300
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
_NESTED = 0x8000 | 0x4000  # NLA_F_NESTED, NLA_F_NET_BYTEORDER
_RECEIVE = 1 << 20
_TIMEOUT = 2.0  # seconds that the kernel may take for one message
_LONGEST, _MOST = 20.0, 64 << 20  # seconds and bytes of one answer
_GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 3, 1, 2
_CTRL = 0x10


class Netlink:
    """One socket to the kernel, blocking and bounded: for use in a thread.

    Args:
        protocol: NETLINK_ROUTE or NETLINK_GENERIC.

    Raises:
        SourceError: there is no such protocol in this kernel.
    """

    def __init__(self, protocol: int) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        except OSError as error:
            raise SourceError(Reason.MISSING, f"netlink protocol {protocol}: {error.strerror}") from None
        self._socket.settimeout(_TIMEOUT)
        self._sequence = 0
        self.interrupted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, kind: int, body: bytes, *, dump: bool = False) -> list[bytes]:
        """The bodies of the kernel's answers; raises SourceError as :meth:`stream` does."""
        return list(self.stream(kind, body, dump=dump))

    def stream(
        self, kind: int, body: bytes, *, dump: bool = True, limit: int = _MOST, seconds: float = _LONGEST
    ) -> Iterator[bytes]:
        """The bodies one by one, of which the kernel makes no more than 32 KiB ahead.

        Whether what is dumped changed meanwhile, so that something may be missing or be there twice, is then in
        ``interrupted``; not every dump says so. A stream that was not read to its end leaves the socket unfit for more.

        Args:
            kind: the message's type: RTM_*, or a generic netlink family.
            body: what follows its header.
            dump: whether all of something is asked for.
            limit: bytes that may come.
            seconds: for all of it, the reader's own time included.

        Raises:
            SourceError: MISSING (ENODEV, ENOENT), PERMISSION, TIMEOUT, TOO_LARGE, GARBAGE, ANSWERED_ERROR with the
                kernel's own word.
        """
        self._sequence = ours = self._sequence + 1
        self.interrupted = False
        flags = _REQUEST | (_DUMP if dump else _ACK)
        self._talk(self._socket.send, _HEADER.pack(_HEADER.size + len(body), kind, flags, ours, 0) + body)
        until, head, read = time.monotonic() + seconds, _HEADER.size, _HEADER.unpack_from
        while True:
            datagram = self._talk(self._socket.recv, _RECEIVE)
            limit -= len(datagram)
            if limit < 0:
                raise SourceError(Reason.TOO_LARGE, "the kernel's answer is larger than what is taken")
            if time.monotonic() > until:
                raise SourceError(Reason.TIMEOUT, f"the kernel's answer did not end within {seconds:g} s")
            at, end = 0, len(datagram)
            while at + head <= end:
                length, of, told, sequence, _ = read(datagram, at)
                if length < head or at + length > end:
                    raise SourceError(Reason.GARBAGE, "a netlink message is longer than what came")
                answer = datagram[at + head : at + length]
                at += (length + 3) & ~3
                if sequence != ours:  # of an earlier question that was given up
                    continue
                if told & _INTERRUPTED:
                    self.interrupted = True
                if of > _DONE:
                    yield answer
                elif of in (_ERROR, _DONE):
                    code = -struct.unpack_from("=i", answer)[0] if len(answer) >= 4 else 0
                    if code:
                        raise _failed(code)
                    return

    def _talk(self, do: Callable[[A], T], what: A) -> T:
        try:
            return do(what)
        except TimeoutError:
            raise SourceError(Reason.TIMEOUT, f"the kernel did not answer within {_TIMEOUT:g} s") from None
        except OSError as error:
            raise SourceError(Reason.ANSWERED_ERROR, f"netlink: {error.strerror}") from None

    def families(self) -> dict[str, int]:
        """The numbers of generic netlink's families (genetlink's controller, CTRL_CMD_GETFAMILY).

        All of them are listed: a kernel that is asked for one by its name loads the module that might have it.
        """
        found = {}
        for answer in self.stream(_CTRL, generic(_GET_FAMILY, b"")):
            told = dict(attributes(answer[4:]))
            number = told.get(_FAMILY_ID, b"")
            if len(number) != 2:
                raise SourceError(Reason.GARBAGE, "a family of generic netlink without a number")
            name = told.get(_FAMILY_NAME, b"").partition(b"\0")[0].decode("utf-8", "replace")
            found[name] = int(struct.unpack("=H", number)[0])
        return found

    def family(self, name: str) -> int:
        """The number of one family; raises SourceError, MISSING where this kernel has none of that name."""
        families = self.families()
        if name not in families:
            raise SourceError(Reason.MISSING, f"this kernel has no netlink family {name}")
        return families[name]


def generic(command: int, body: bytes, version: int = 1) -> bytes:
    """A generic netlink request: genlmsghdr and attributes."""
    return struct.pack("=BBH", command, version, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + b"\0" * (_aligned(length) - length)


def attributes(data: bytes, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """Type and value of each, from an offset on; a torn one ends it."""
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size or at + length > len(data):
            return
        yield kind & ~_NESTED, data[at + _ATTRIBUTE.size : at + length]
        at += _aligned(length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _failed(code: int) -> SourceError:
    reasons = {
        errno.ENODEV: Reason.MISSING,
        errno.ENOENT: Reason.MISSING,
        errno.EPERM: Reason.PERMISSION,
        errno.EACCES: Reason.PERMISSION,
    }
    return SourceError(reasons.get(code, Reason.ANSWERED_ERROR), f"the kernel says: {os.strerror(code)}")
