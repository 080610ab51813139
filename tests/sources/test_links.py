"""What netlink and ethtool tell of PFs: recorded and hand-made messages; the real ones: tests/hwlab."""

from __future__ import annotations

import socket
import struct
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from mecexporter.errors import Reason, SourceError
from mecexporter.sources import links
from mecexporter.sources.links import LinksSource
from mecexporter.sources.wire.netlink import NETLINK_GENERIC, Netlink, attribute
from mecexporter.state.observed import Fresh
from mecexporter.state.sriov import Links, VfLink
from mecexporter.state.world import Settings, empty_world
from tests.hwlab import FIXTURES
from tests.worlds import NOW, nic, without

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mecexporter.state.world import World

NEWLINK = 16
EMPTY = empty_world(NOW, "h", Settings())


def with_pf(device: str) -> World:
    """The PF's netdev is one of this machine, as far as its name goes."""
    return EMPTY.with_part("sysfs", Fresh(nic(devices=(device,)), NOW))


def info(vf: int, mac: bytes, vlan: int) -> bytes:
    """IFLA_VF_INFO as the kernel orders it, with attributes that we do not read."""
    return (
        attribute(1, struct.pack("=I", vf) + mac.ljust(32, b"\0"))
        + attribute(13, b"\xff" * 32)  # broadcast
        + attribute(2, struct.pack("=III", vf, vlan, 0))
        + attribute(8, b"")  # statistics
    )


def test_a_vf() -> None:
    assert links._vf(info(3, bytes.fromhex("fa163e0000aa"), 101)) == (3, VfLink(mac="fa:16:3e:00:00:aa", vlan=101))


def test_one_without_address_and_vlan() -> None:
    assert links._vf(info(0, b"", 0)) == (0, VfLink(mac=None, vlan=None))


# What a real kernel answered (tests/fixtures/hw), and pyroute2's reading of the same bytes.


def messages(path: Path) -> Iterator[bytes]:
    """Of a recording: u32 length and buffer for each receive call; whole netlink messages are in a buffer."""
    data = path.read_bytes()
    while data:
        (length,) = struct.unpack_from("<I", data)
        buffer, data = data[4 : 4 + length], data[4 + length :]
        while buffer:
            size, kind = struct.unpack_from("=IH", buffer)
            if kind == NEWLINK:
                yield buffer[:size]
            buffer = buffer[(size + 3) & ~3 :]


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("**/*.links.bin")), ids=lambda p: p.stem)
def test_recorded_vfs_are_read_as_pyroute2_reads_them(path: Path) -> None:
    found = 0
    for message in messages(path):
        ours = dict(links.vfs_of(message[16:]))
        theirs = ifinfmsg(message)
        theirs.decode()
        wanted = {}
        for info in (theirs.get_attr("IFLA_VFINFO_LIST") or {"attrs": []})["attrs"]:
            mac, vlan = (info[1].get_attr(f"IFLA_VF_{name}") for name in ("MAC", "VLAN"))
            number = mac["mac"] if mac["mac"] != "00:00:00:00:00:00" else None
            wanted[mac["vf"]] = VfLink(mac=number, vlan=vlan["vlan"] or None)
        assert ours == wanted
        found += len(ours)
    assert found or "no-vfs" in path.stem or "unplugged" in path.stem or "switchdev" in path.stem


async def test_a_pf_without_vfs_and_a_driver_that_says_little() -> None:
    found = (await LinksSource(15).read(with_pf("lo"))).pfs
    (pf,) = found.values()
    assert (dict(pf.vfs), pf.driver_version, pf.firmware_version, pf.eswitch_mode) == ({}, None, None, None)


async def test_a_pf_that_went_away_meanwhile_is_left_out() -> None:
    assert (await LinksSource(15).read(with_pf("nosuch0"))) == Links({})


async def test_no_pfs_is_an_answer() -> None:
    assert await LinksSource(15).read(EMPTY.with_part("sysfs", Fresh(replace(nic(), pfs=()), NOW))) == Links({})


async def test_without_sysfs_nobody_knows_which_pfs_there_are() -> None:
    world = without(EMPTY, "sysfs", why="no /sys", reason=Reason.MISSING)
    with pytest.raises(SourceError, match="which PFs there are is not known: no /sys"):
        await LinksSource(15).read(world)


def test_a_pf_that_comes_is_asked_for_at_once() -> None:
    source = LinksSource(15)
    assert source.question(EMPTY) is None
    before, after = (source.question(with_pf(name)) for name in ("eth0", "eth1"))
    assert source.worth_asking(before, after)
    assert not source.worth_asking(before, source.question(with_pf("eth0")))


def test_a_device_without_an_eswitch() -> None:
    with Netlink(NETLINK_GENERIC) as genl:
        number = links._devlink(genl)
        if number is None:
            pytest.skip("this kernel has no devlink; the guest's has")
        assert links._eswitch_mode(genl, number, "0000:ff:1f.7") is None


def test_names_of_any_length() -> None:
    assert links._versions("x" * 40) == (None, None)
    with pytest.raises(SourceError, match="no network device"):
        links._index("x" * 15)
    assert links._index("lo") == socket.if_nametoindex("lo")
