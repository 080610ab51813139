"""Recorded netlink (`tests/fixtures/hw/recordings/README.md`, Formats)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEADER = 16
"""Bytes of a netlink header."""
_DONE = 3  # NLMSG_DONE


def datagrams(recording: Path) -> Iterator[bytes]:
    """What each receive call gave."""
    data, at = recording.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        yield data[at + 4 : at + 4 + length]
        at += 4 + length


def messages(recording: Path, kind: int | None = None) -> Iterator[bytes]:
    """Whole netlink messages, of one kind or of all, but for the one that ends a dump."""
    for datagram in datagrams(recording):
        at = 0
        while at < len(datagram):
            length, of_kind = struct.unpack_from("=IH", datagram, at)
            if of_kind == kind or (kind is None and of_kind != _DONE):
                yield datagram[at : at + length]
            at += (length + 3) & ~3
