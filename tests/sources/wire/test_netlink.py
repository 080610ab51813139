"""Netlink, against this machine's kernel, and torn messages."""

from __future__ import annotations

import errno
import socket
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.wire.netlink import (
    NETLINK_GENERIC,
    NETLINK_ROUTE,
    Netlink,
    attribute,
    attributes,
    generic,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

GETLINK = 18
IFNAME = 3


def link(index: int) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, 0, 0)


def test_one_link() -> None:
    with Netlink(NETLINK_ROUTE) as route:
        (answer,) = route.ask(GETLINK, link(socket.if_nametoindex("lo")))
    assert dict(attributes(answer[16:]))[IFNAME] == b"lo\0"


def test_all_links() -> None:
    with Netlink(NETLINK_ROUTE) as route:
        answers = route.ask(GETLINK, link(0), dump=True)
    names = {dict(attributes(answer[16:]))[IFNAME].rstrip(b"\0").decode() for answer in answers}
    assert names == {name for _, name in socket.if_nameindex()}


def test_a_link_that_is_not_there() -> None:
    with Netlink(NETLINK_ROUTE) as route:
        with pytest.raises(SourceError) as caught:
            route.ask(GETLINK, link(1 << 30))
        assert (caught.value.reason, caught.value.why) == (Reason.MISSING, "the kernel says: No such device")
        assert route.ask(GETLINK, link(socket.if_nametoindex("lo"))), "the socket goes on"


def test_a_question_that_the_kernel_does_not_understand() -> None:
    with Netlink(NETLINK_ROUTE) as route, pytest.raises(SourceError) as caught:
        route.ask(1234, b"")
    assert caught.value.reason is Reason.ANSWERED_ERROR


def test_families_of_generic_netlink() -> None:
    with Netlink(NETLINK_GENERIC) as genl:
        assert genl.family("nlctrl") == 0x10
        with pytest.raises(SourceError) as caught:
            genl.family("no such family")
    assert caught.value.reason is Reason.MISSING


def test_a_protocol_that_is_not_there() -> None:
    with pytest.raises(SourceError, match="netlink protocol 31") as caught:
        Netlink(31)
    assert caught.value.reason is Reason.MISSING


@contextmanager
def answered(*datagrams: bytes) -> Iterator[Netlink]:
    """A socket to somebody who has already answered the first question so."""
    kernel, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with kernel, Netlink(NETLINK_ROUTE) as route:
        route._socket.close()
        route._socket = ours
        for datagram in datagrams:
            kernel.send(datagram)
        yield route


def message(body: bytes, *, kind: int = GETLINK, flags: int = 2, sequence: int = 1) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


END = message(bytes(4), kind=3)


def test_what_is_not_ours_is_passed_over() -> None:
    with answered(message(b"old!", sequence=9) + message(b"new!"), END) as route:
        assert route.ask(GETLINK, b"", dump=True) == [b"new!"]
        assert not route.interrupted


def test_dump_that_was_interrupted_says_so() -> None:
    with answered(message(b"1234", flags=2 | 0x10), END) as route:
        assert route.ask(GETLINK, b"", dump=True) == [b"1234"]
        assert route.interrupted


def test_dump_that_fails_at_its_end() -> None:
    end = message(struct.pack("=i", -errno.EPERM), kind=3)
    with answered(message(b"1234"), end) as route, pytest.raises(SourceError) as caught:
        route.ask(GETLINK, b"", dump=True)
    assert caught.value.reason is Reason.PERMISSION


def test_more_than_is_taken() -> None:
    with answered(message(b"1234"), message(b"1234"), END) as route:
        stream = route.stream(GETLINK, b"", limit=30)
        assert next(stream) == b"1234"
        with pytest.raises(SourceError) as caught:
            next(stream)
    assert caught.value.reason is Reason.TOO_LARGE


def test_answer_that_never_ends() -> None:
    with answered(message(b"1234")) as route, pytest.raises(SourceError) as caught:
        list(route.stream(GETLINK, b"", seconds=-1))
    assert caught.value.reason is Reason.TIMEOUT


@pytest.mark.parametrize("length", [0, 15, 21, 1 << 31])
def test_a_message_that_lies_about_its_length(length: int) -> None:
    lie = struct.pack("=IHHII", length, GETLINK, 0, 0, 0) + b"1234"
    with answered(lie) as route, pytest.raises(SourceError) as caught:
        route.ask(GETLINK, b"")
    assert caught.value.reason is Reason.GARBAGE


def test_attributes_are_padded_and_nested_bits_left_out() -> None:
    data = attribute(1, b"abcde") + attribute(2 | 0x8000, attribute(3, b""))
    assert list(attributes(data)) == [(1, b"abcde"), (2, attribute(3, b""))]
    assert len(data) % 4 == 0


@pytest.mark.parametrize("torn", [b"\x08\0", struct.pack("=HH", 3, 1), struct.pack("=HH", 99, 1), b"\0" * 8])
def test_a_torn_attribute_ends_the_list(torn: bytes) -> None:
    assert list(attributes(attribute(1, b"x") + torn)) == [(1, b"x")]


def test_a_generic_request() -> None:
    assert generic(29, b"rest") == b"\x1d\x01\0\0rest"
