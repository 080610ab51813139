"""Which NICs lie below a device: hand-made links, and this machine's kernel; real bonds and VLANs: tests/hwlab."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.wire import netdev
from mecexporter.sources.wire.netdev import index_of, known_index, ways_out, with_addresses
from mecexporter.sources.wire.netlink import NETLINK_ROUTE, Netlink, attribute, attributes
from tests.sources.netns import in_own_network, ip, needs_root

if TYPE_CHECKING:
    from typing import Self

IFNAME, LINK, MASTER, LINKINFO, NETNSID, INFO_KIND = 3, 5, 10, 18, 37, 1


def link(index: int, name: str, kind: str = "", *, lower: int = 0, master: int = 0, elsewhere: bool = False) -> bytes:
    """The body of an RTM_NEWLINK."""
    parts = [attribute(IFNAME, name.encode() + b"\0"), attribute(99, b"unknown")]
    if kind:
        parts.append(attribute(LINKINFO, attribute(INFO_KIND, kind.encode() + b"\0") + attribute(2, b"\1\2\3")))
    parts += [attribute(LINK, struct.pack("=I", lower))] if lower else []
    parts += [attribute(MASTER, struct.pack("=I", master))] if master else []
    parts += [attribute(NETNSID, struct.pack("=I", 4))] if elsewhere else []
    return struct.pack("=BxHiII", 0, 1, index, 0, 0) + b"".join(parts)


class Kernel(Netlink):
    """Answers as a kernel that has these links; an old one does not filter by the master."""

    def __init__(self, *links: bytes, filters: bool) -> None:
        super().__init__(NETLINK_ROUTE)
        self.links = {netdev._link(each).number: each for each in links}
        self.filters = filters

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def ask(self, kind: int, body: bytes, *, dump: bool = False) -> list[bytes]:
        assert kind == netdev.RTM_GETLINK
        _, _, index, _, _ = netdev.IFINFOMSG.unpack_from(body)
        if not dump:
            if index not in self.links:
                raise SourceError(Reason.MISSING, "the kernel says: No such device")
            return [self.links[index]]
        (master,) = struct.unpack("=I", dict(attributes(body, netdev.IFINFOMSG.size))[MASTER])
        return [each for each in self.links.values() if not self.filters or netdev._link(each).master == master]


NIC = link(2, "ens1f0"), link(3, "ens1f1")


@pytest.mark.parametrize("filters", [True, False])
@pytest.mark.parametrize(
    ("links", "wanted"),
    [
        ((link(9, "ens1f0"),), ["ens1f0"]),
        ((link(9, "veth1", "veth", lower=8),), ["veth1"]),
        ((link(9, "nsim0", "netdevsim"),), ["nsim0"]),
        ((link(9, "bond0", "bond"), link(2, "ens1f0", master=9), link(3, "ens1f1", master=9), link(4, "x")),
         ["ens1f0", "ens1f1"]),
        ((link(9, "team0", "team"), link(2, "ens1f0", master=9)), ["ens1f0"]),
        ((link(9, "ens1f0.7", "vlan", lower=2), *NIC), ["ens1f0"]),
        ((link(9, "bond0.7", "vlan", lower=8), link(8, "bond0", "bond"), link(2, "ens1f0", master=8)), ["ens1f0"]),
        ((link(9, "bond0", "bond"),), []),
        ((link(9, "ens1f0.7", "vlan", lower=2, elsewhere=True), *NIC), []),
        ((link(9, "br-ex", "openvswitch"), *NIC), []),
        ((link(9, "tap1", "tun"),), []),
        ((link(9, "vtep", "dummy"),), []),
        ((link(9, "loop.1", "vlan", lower=9),), []),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and value else None,
)  # fmt: skip
def test_what_lies_below(links: tuple[bytes, ...], wanted: list[str], *, filters: bool) -> None:
    with Kernel(*links, filters=filters) as route:
        assert sorted(ways_out(route, 9)) == wanted


def test_a_device_that_went_away() -> None:
    with Netlink(NETLINK_ROUTE) as route, pytest.raises(SourceError) as caught:
        list(ways_out(route, 1 << 30))
    assert caught.value.reason is Reason.MISSING


def test_the_loopback_leads_nowhere() -> None:
    with Netlink(NETLINK_ROUTE) as route:
        assert list(ways_out(route, index_of("lo"))) == []


def test_who_has_an_address() -> None:
    lo = socket.if_nametoindex("lo")
    with Netlink(NETLINK_ROUTE) as route:
        assert with_addresses(route, ["127.0.0.1", "203.0.113.99", "no address"]) == {lo}
        assert with_addresses(route, ["not one", ""]) == set()


@needs_root
def test_a_real_kernels_devices() -> None:
    def look() -> tuple[list[str], list[str], set[int], set[int]]:
        ip(
            "link add one type veth peer name two",
            "link add name bri type bridge",
            "link set two master bri",
            "link set one up",
            "address add 192.0.2.1/24 dev one",
            "address add 2001:db8::1/128 dev lo",
        )
        with Netlink(NETLINK_ROUTE) as route:
            one, bridge, lo = index_of("one"), index_of("bri"), index_of("lo")
            members = [name for n in netdev._members(route, bridge) for name in ways_out(route, n)]
            below = [*ways_out(route, one), *ways_out(route, bridge)]
            return below, members, with_addresses(route, ["192.0.2.1", "2001:db8::1"]), {one, lo}

    below, members, having, wanted = in_own_network(look)
    assert (below, members, having) == (["one"], ["two"], wanted)


def test_names_of_any_length() -> None:
    with pytest.raises(SourceError, match="no network device"):
        index_of("x" * 15)
    assert index_of("lo") == socket.if_nametoindex("lo")


def test_device_is_looked_for_without_loading_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ioctl by which if_nametoindex(3) asks makes the kernel load what has the alias ``netdev-NAME``."""
    lo = index_of("lo")
    monkeypatch.setattr(socket, "if_nametoindex", None)
    with Netlink(NETLINK_ROUTE) as route:
        assert [known_index(route, name) for name in ("lo", "nosuch0", "x" * 16, "")] == [lo, None, None, None]


@given(st.binary(max_size=200))
def test_links_of_any_bytes(answer: bytes) -> None:
    if len(answer) < netdev.IFINFOMSG.size:
        with pytest.raises(SourceError, match=f"a link of {len(answer)} bytes"):
            netdev._link(answer)
    else:
        assert netdev._link(answer).number == netdev.IFINFOMSG.unpack_from(answer)[2]
