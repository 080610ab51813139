"""Network devices as rtnetlink shows them: which NICs lie below one, and which have an address.

Formats: include/uapi/linux/rtnetlink.h, if_link.h, if_addr.h.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import TYPE_CHECKING, NamedTuple

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.wire.netlink import attribute, attributes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from mecexporter.sources.wire.netlink import Netlink

RTM_GETLINK = 18
IFINFOMSG = struct.Struct("=BxHiII")
EXT_MASK, NO_STATISTICS = 29, 0x8  # IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS
_RTM_GETADDR = 22
_IFADDRMSG = struct.Struct("=BBBBI")
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFNAME, _LINK, _MASTER, _LINKINFO, _INFO_KIND, _LINK_NETNSID = 3, 5, 10, 18, 1, 37
_BUNDLES = frozenset({"bond", "team"})
_ABOVE_ONE = frozenset({"vlan", "macvlan", "ipvlan"})
_INSIDE = frozenset({"openvswitch", "bridge", "tun", "dummy"})  # no way out of this host, nor is the loopback
_IFF_LOOPBACK = 0x8
_DEEPEST = 4
_LONGEST_NAME = 15


class _Link(NamedTuple):
    """A device: what it is stacked upon (of this network namespace), and what it is a member of; 0 for none."""

    number: int  # its index
    name: str
    kind: str
    loopback: bool
    lower: int
    master: int


def index_of(device: str) -> int:
    """Raises SourceError: MISSING."""
    try:
        return socket.if_nametoindex(device)
    except OSError:
        raise SourceError(Reason.MISSING, f"no network device {device}") from None


def known_index(route: Netlink, device: str) -> int | None:
    """None where there is no such device; :func:`index_of` would make the kernel load the module that might have it.

    Raises:
        SourceError: as :meth:`Netlink.ask`.
    """
    name = device.encode()
    if len(name) > _LONGEST_NAME:
        return None
    wanted = attribute(EXT_MASK, struct.pack("=I", NO_STATISTICS)) + attribute(_IFNAME, name + b"\0")
    try:
        answers = route.ask(RTM_GETLINK, IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + wanted)
    except SourceError as error:
        if error.reason is Reason.MISSING:
            return None
        raise
    return next((_link(answer).number for answer in answers), None)


def ways_out(route: Netlink, index: int, depth: int = _DEEPEST) -> Iterator[str]:
    """The NICs' own netdevs below a device: itself, or members of a bond, or what a VLAN is upon.

    Raises:
        SourceError: as :meth:`Netlink.ask`; MISSING where there is no such device.
    """
    mask = attribute(EXT_MASK, struct.pack("=I", NO_STATISTICS))
    for answer in route.ask(RTM_GETLINK, IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, 0, 0) + mask):
        link = _link(answer)
        if link.kind in _BUNDLES:
            below = list(_members(route, link.number))
        elif link.kind in _ABOVE_ONE:
            below = [link.lower] if link.lower else []
        else:
            below = []
            if link.kind not in _INSIDE and not link.loopback:
                yield link.name
        for lower in below if depth else ():
            yield from ways_out(route, lower, depth - 1)


def with_addresses(route: Netlink, addresses: Collection[str]) -> set[int]:
    """Indexes of the devices that have one of these IP addresses.

    Raises:
        SourceError: as :meth:`Netlink.ask`.
    """
    wanted = {packed for text in addresses if (packed := _packed(text)) is not None}
    return {
        _IFADDRMSG.unpack_from(answer)[4]
        for answer in (route.ask(_RTM_GETADDR, _IFADDRMSG.pack(0, 0, 0, 0, 0), dump=True) if wanted else ())
        for kind, value in attributes(answer, _IFADDRMSG.size)
        if kind in (_IFA_ADDRESS, _IFA_LOCAL) and value in wanted
    }


def _members(route: Netlink, master: int) -> Iterator[int]:
    """A kernel that does not know the filter answers with all devices."""
    wanted = attribute(EXT_MASK, struct.pack("=I", NO_STATISTICS)) + attribute(_MASTER, struct.pack("=I", master))
    for answer in route.ask(RTM_GETLINK, IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + wanted, dump=True):
        link = _link(answer)
        if link.master == master:
            yield link.number


def _link(answer: bytes) -> _Link:
    if len(answer) < IFINFOMSG.size:
        raise SourceError(Reason.GARBAGE, f"a link of {len(answer)} bytes")
    _, _, index, flags, _ = IFINFOMSG.unpack_from(answer)
    found = dict(attributes(answer, IFINFOMSG.size))
    info = dict(attributes(found.get(_LINKINFO, b"")))
    return _Link(
        number=index,
        name=_text(found.get(_IFNAME, b"")),
        kind=_text(info.get(_INFO_KIND, b"")),
        loopback=bool(flags & _IFF_LOOPBACK),
        lower=0 if _LINK_NETNSID in found else _number(found.get(_LINK, b"")),
        master=_number(found.get(_MASTER, b"")),
    )


def _text(value: bytes) -> str:
    return value.partition(b"\0")[0].decode("utf-8", "replace")


def _number(value: bytes) -> int:
    return int.from_bytes(value, sys.byteorder)


def _packed(text: str) -> bytes | None:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_pton(family, text)
        except OSError:
            continue
    return None
