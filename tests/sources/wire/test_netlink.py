"""Netlink, against this machine's kernel, and torn messages."""

from __future__ import annotations

import socket
import struct

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


def test_what_is_not_ours_is_passed_over() -> None:
    with Netlink(NETLINK_ROUTE) as route:
        route._sequence = 7
        other = struct.pack("=IHHII", 20, GETLINK, 2, 6, 0) + b"old!"
        done = struct.pack("=IHHII", 20, 3, 2, 7, 0) + bytes(4)
        ours = struct.pack("=IHHII", 20, GETLINK, 2, 7, 0) + b"new!"
        out: list[bytes] = []
        assert not route._take(other + ours, out)
        assert route._take(done, out)
    assert out == [b"new!"]


@pytest.mark.parametrize("length", [0, 15, 21, 1 << 31])
def test_a_message_that_lies_about_its_length(length: int) -> None:
    with Netlink(NETLINK_ROUTE) as route, pytest.raises(SourceError) as caught:
        route._take(struct.pack("=IHHII", length, GETLINK, 0, 0, 0) + b"1234", [])
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
