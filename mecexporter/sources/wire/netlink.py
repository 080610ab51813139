"""Netlink, as little of it as is asked here: dumps and requests, attributes, and generic netlink's families.

Formats: include/uapi/linux/netlink.h, genetlink.h, rtnetlink.h. A library that decodes all of a message costs twenty
times as much a link; the tests hold this one's answers against such a library's.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, Self

from mecexporter.errors import Reason, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

NETLINK_ROUTE, NETLINK_GENERIC = 0, 16
_REQUEST, _MULTI, _ACK, _DUMP = 0x1, 0x2, 0x4, 0x300
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
_NESTED = 0x8000 | 0x4000  # NLA_F_NESTED, NLA_F_NET_BYTEORDER
_RECEIVE = 1 << 20
_TIMEOUT = 2.0  # seconds that the kernel may take for one message
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, kind: int, body: bytes, *, dump: bool = False) -> list[bytes]:
        """The bodies of the kernel's answers.

        Raises:
            SourceError: MISSING (ENODEV, ENOENT), PERMISSION, TIMEOUT, ANSWERED_ERROR with the kernel's own word.
        """
        self._sequence += 1
        flags = _REQUEST | (_DUMP if dump else _ACK)
        header = _HEADER.pack(_HEADER.size + len(body), kind, flags, self._sequence, 0)
        out: list[bytes] = []
        try:
            self._socket.send(header + body)
            while not self._take(self._socket.recv(_RECEIVE), out):
                pass
        except TimeoutError:
            raise SourceError(Reason.TIMEOUT, f"the kernel did not answer within {_TIMEOUT:g} s") from None
        except OSError as error:
            raise SourceError(Reason.ANSWERED_ERROR, f"netlink: {error.strerror}") from None
        return out

    def _take(self, datagram: bytes, out: list[bytes]) -> bool:
        """Adds the answers in a datagram; whether it held the end."""
        at = 0
        while at + _HEADER.size <= len(datagram):
            length, kind, _, sequence, _ = _HEADER.unpack_from(datagram, at)
            if length < _HEADER.size or at + length > len(datagram):
                raise SourceError(Reason.GARBAGE, "a netlink message is longer than what came")
            body = datagram[at + _HEADER.size : at + length]
            at += _aligned(length)
            if sequence != self._sequence:  # of an earlier question that was given up
                continue
            if kind in (_ERROR, _DONE):
                code = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
                if code:
                    raise _failed(code)
                return True
            out.append(body)
        return False

    def family(self, name: str) -> int:
        """The number of a generic netlink family (genetlink's controller, CTRL_CMD_GETFAMILY)."""
        answers = self.ask(_CTRL, generic(_GET_FAMILY, attribute(_FAMILY_NAME, name.encode() + b"\0")))
        for answer in answers:
            for kind, value in attributes(answer[4:]):
                if kind == _FAMILY_ID:
                    return int(struct.unpack("=H", value)[0])
        raise SourceError(Reason.GARBAGE, f"the kernel gives no number to the netlink family {name}")


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
