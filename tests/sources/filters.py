"""TC filters for tests: recorded dumps, messages made by hand, and a kernel that dumps them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.wire.netlink import NETLINK_ROUTE, Netlink, attribute
from tests.hwlab import FIXTURES
from tests.sources.recordings import HEADER, messages

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pytest

RECORDINGS = FIXTURES / "recordings"
INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
GETQDISC, GETTFILTER, NEWTFILTER = 38, 46, 44
IPV4, IPV6, ARP, VLAN = b"\x08\0", b"\x86\xdd", b"\x08\6", b"\x81\0"
IN_HW, NOT_IN_HW = 4, 8
DROP, STOLEN, PIPE = 2, 4, 3
EGRESS_REDIR, INGRESS_REDIR = 1, 3
UFID = bytes(range(16))


def bodies(name: str) -> Iterator[bytes]:
    """Of a recording: each RTM_NEWTFILTER without its netlink header."""
    return (message[HEADER:] for message in messages(RECORDINGS / name, NEWTFILTER))


def u32(number: int) -> bytes:
    return struct.pack("=I", number)


def stats(total: tuple[int, int], hardware: tuple[int, int] | None = None) -> bytes:
    """TCA_ACT_STATS as the kernel writes it: packets and bytes; 64 bits of packets where 32 do not hold them."""
    out = b""
    for kind, numbers in ((1, total), (7, hardware)):
        if numbers is not None:
            packets, octets = numbers
            out += attribute(kind, struct.pack("=QII", octets, packets & 0xFFFFFFFF, 0))
            if packets >> 32:
                out += attribute(8, struct.pack("=Q", packets))
    return out + attribute(3, bytes(20))


def action(
    kind: str,
    counted: bytes,
    *,
    verdict: int = PIPE,
    age: int | None = 1000,
    cookie: bytes = UFID,
    number: int = 1,
    more: bytes = b"",
    eaction: int = EGRESS_REDIR,
) -> bytes:
    """One of TCA_FLOWER_ACT; the verdict and the age are put where gact and mirred have them."""
    options = attribute(2, struct.pack("=IIiiiiI", 1, 0, verdict, 1, 1, eaction, 7))
    if age is not None:
        options += attribute(1, struct.pack("=QQQQ", age, 0, 0, age))
    parts = attribute(1, kind.encode() + b"\0") + attribute(4, counted)
    if cookie:
        parts += attribute(6, cookie)
    return attribute(number, parts + attribute(9, bytes(8)) + more + attribute(0x8002, options))


def filter_(
    *actions: bytes,
    flags: int = IN_HW,
    keys: Iterable[tuple[int, bytes]] = ((8, IPV4), (9, b"\x06")),
    chain: int = 0,
    handle: int = 1,
    device: int = 5,
    parent: int = INGRESS,
    kind: str = "flower",
    more: bytes = b"",
) -> bytes:
    """The body of an RTM_NEWTFILTER."""
    options = b"".join(attribute(k, v) for k, v in keys) + attribute(22, u32(flags)) + more
    if actions:
        options += attribute(3, b"".join(actions))
    return (
        struct.pack("=BxxxiIII", 0, device, handle, parent, 0x20008)
        + attribute(1, kind.encode() + b"\0")
        + attribute(11, u32(chain))
        + attribute(2, options)
    )


def forwarding(
    total: tuple[int, int] = (0, 0), hardware: tuple[int, int] | None = None, *, age: int = 100_000, **how: Any
) -> bytes:
    """A filter of Open vSwitch that sends packets on."""
    own = {name: how.pop(name) for name in ("cookie", "eaction") if name in how}
    return filter_(action("mirred", stats(total, hardware), verdict=STOLEN, age=age, **own), **how)


@dataclass
class Kernel:
    """Stands for a Netlink: qdiscs and filters of made-up devices."""

    devices: dict[int, str] = field(default_factory=lambda: {5: "p1"})
    qdiscs: list[bytes] = field(default_factory=list)
    filters: dict[tuple[int, int], list[bytes] | SourceError] = field(default_factory=dict)
    disturbed: int = 0  # dumps of filters to come that say so
    asked: list[tuple[int, int]] = field(default_factory=list)
    interrupted: bool = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def qdisc(self, device: int, kind: str = "ingress", blocks: dict[int, int] | None = None) -> None:
        shared = b"".join(attribute(k, u32(block)) for k, block in (blocks or {}).items())
        head = struct.pack("=BxxxiIII", 0, device, 0xFFFF0000, 0xFFFFFFF1, 1)
        self.qdiscs.append(head + attribute(1, kind.encode() + b"\0") + attribute(2, b"") + shared)

    def stream(self, kind: int, request: bytes, *, limit: int, seconds: float) -> Iterator[bytes]:
        assert limit > 0
        assert seconds > 0
        self.interrupted = False
        if kind == GETQDISC:
            yield from self.qdiscs
            return
        assert kind == GETTFILTER
        _, device, _, parent, _ = struct.unpack("=BxxxiIII", request)
        self.asked.append((device, parent))
        found = self.filters.get((device, parent), [])
        if isinstance(found, SourceError):
            raise found
        yield from found
        self.interrupted = self.disturbed > 0
        self.disturbed -= 1

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def name(index: int) -> str:
            try:
                return self.devices[index]
            except KeyError:
                raise OSError from None

        monkeypatch.setattr("mecexporter.sources.tc.Netlink", lambda _: self)
        monkeypatch.setattr("mecexporter.sources.tc.socket.if_indextoname", name)


class Recorded(Netlink):
    """Gives one dump after the other, as a socket once gave them."""

    def __init__(self, *dumps: Iterable[bytes]) -> None:
        super().__init__(NETLINK_ROUTE)
        self._dumps = list(dumps)
        self._left: Iterator[bytes] = iter(())

    def _talk(self, do: Any, what: Any) -> Any:
        if do == self._socket.send:
            self._sequence = 0  # each was the first that its socket was asked
            self._left = iter(self._dumps.pop(0))
            return len(what)
        return next(self._left)


GONE = SourceError(Reason.MISSING, "the kernel says: No such device")
