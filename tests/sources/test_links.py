"""What netlink and ethtool tell of PFs: recorded and hand-made messages; the real ones: tests/hwlab."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from mecexporter.errors import Reason, SourceError
from mecexporter.sources import links
from mecexporter.sources.links import LinksSource
from mecexporter.sources.wire.ethtool import Ethtool
from mecexporter.sources.wire.link_stats import Passed
from mecexporter.sources.wire.netlink import NETLINK_GENERIC, Netlink, attribute
from mecexporter.state.observed import Fresh
from mecexporter.state.ovs import Counters, InterfaceKind
from mecexporter.state.sriov import Links, Uplink, VfLink
from mecexporter.state.world import Settings, empty_world
from tests.hwlab import FIXTURES
from tests.sources.netns import in_own_network, ip, needs_root, send
from tests.sources.recordings import messages
from tests.worlds import NOW, PF, changed, healthy_compute, interface, nic, vf, without

if TYPE_CHECKING:
    from pathlib import Path

    from mecexporter.state.sriov import Pf
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


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("**/*.links.bin")), ids=lambda p: p.stem)
def test_recorded_vfs_are_read_as_pyroute2_reads_them(path: Path) -> None:
    found = 0
    for message in messages(path, NEWLINK):
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
    assert (await LinksSource(15).read(with_pf("nosuch0"))) == Links({}, statistics={})


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


# Which devices are looked at, and what passed them: this machine's kernel.


def switched(*names: str, encap_ips: tuple[str, ...] = (), pf: Pf | None = None) -> World:
    """These are uplinks of a bridge; the tunnels' own addresses are these; there is this PF, or none."""
    uplinks = tuple(interface(name, "br-ex", InterfaceKind.UPLINK) for name in names)
    world = healthy_compute().with_part("sysfs", Fresh(replace(nic(), pfs=(pf,) if pf else ()), NOW))
    return changed(world, "ovs", interfaces=uplinks, encap_ips=encap_ips)


def with_vfs(device: str, **changes: object) -> Pf:
    (pf,) = nic(vf(0, devices=("vf0",)), vf(1)).pfs
    return replace(pf, **{"devices": (device,), "representors": {}, "speed": None} | changes)  # type: ignore[arg-type]


def read_in_own_network(world: World, *commands: str, packets: int = 0) -> Links:
    """Two ends of a cable, ``one`` and ``two``, over which so many frames of 100 bytes went."""

    def look() -> Links:
        ip("link add one type veth peer name two", "link set one up", "link set two up", *commands)
        send("one", packets, size=100)
        return asyncio.run(LinksSource(15).read(world))

    return in_own_network(look)


@needs_root
def test_uplinks_of_a_node_without_a_pf() -> None:
    found = read_in_own_network(switched("one", "nosuch0"), packets=42)
    assert [(u.device, u.pf) for u in found.uplinks] == [("one", "")]
    assert found.uplinks[0].speed == 10_000_000_000
    assert found.statistics == {"one": Counters(tx_packets=42, tx_bytes=4200)}
    assert (found.pfs, found.cpu_hit, found.tc_offload, found.left_out) == ({}, {}, {}, 0)


@needs_root
def test_what_a_tunnels_address_is_on_is_an_uplink() -> None:
    world = switched(encap_ips=("192.0.2.1",))
    found = read_in_own_network(world, "address add 192.0.2.1/24 dev two", packets=3)
    assert [u.device for u in found.uplinks] == ["two"]
    assert found.statistics["two"][:4] == (3, 0, 300, 0)


@needs_root
def test_a_pf_with_vfs_is_an_uplink_and_one_without_is_looked_at_only() -> None:
    used = read_in_own_network(switched(pf=with_vfs("one", speed=25_000_000_000)))
    assert used.uplinks == (Uplink(device="one", pf=PF, speed=25_000_000_000),)
    unused = read_in_own_network(switched(pf=with_vfs("one", vfs=())))
    assert (unused.uplinks, set(unused.statistics)) == ((), {"one"})


@needs_root
def test_representors_and_vfs_are_no_uplinks() -> None:
    pf = with_vfs("one", representors={0: "two", 1: "gone"})
    found = read_in_own_network(switched("two", "vf0", pf=pf), "link add vf0 type veth peer name vf1", packets=8)
    assert [u.device for u in found.uplinks] == ["one"]
    assert found.statistics.keys() == {"one", "two"}
    assert found.statistics["two"].rx_packets == 8


@needs_root
def test_representors_beyond_the_limit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_MOST_REPRESENTORS", 1)
    found = read_in_own_network(switched(pf=with_vfs("one", representors={5: "nosuch0", 0: "two", 9: "nosuch1"})))
    assert (set(found.statistics), found.left_out) == ({"one", "two"}, 2)


def test_a_feature_that_drivers_have(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"lo": True, "ens1f0": None}
    monkeypatch.setattr(Ethtool, "tc_offload", lambda _, device, features: told[device] if features else None)
    found = asyncio.run(LinksSource(15).read(switched(pf=with_vfs("lo"))))
    assert found.tc_offload == {"lo": True}


def test_a_kernel_that_refuses_statistics_makes_the_source_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> dict[int, Passed]:
        raise SourceError(Reason.ANSWERED_ERROR, "the kernel says: Operation not supported")

    monkeypatch.setattr(links, "statistics", refuse)
    with pytest.raises(SourceError, match="Operation not supported"):
        asyncio.run(LinksSource(15).read(switched(pf=with_vfs("lo"))))


def test_the_cpus_part_is_kept_from_read_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    told = [(100, 10), (100, 70), (200, 80)]

    def tell(_: Netlink, indexes: dict[int, str]) -> dict[int, Passed]:
        every, cpu = told.pop(0)
        return {index: Passed(Counters(rx_packets=every), Counters(rx_packets=cpu)) for index in indexes}

    monkeypatch.setattr(links, "statistics", tell)
    source, world = LinksSource(15), switched(pf=with_vfs("lo"))
    seen = [asyncio.run(source.read(world)).cpu_hit["lo"].rx_packets for _ in range(3)]
    assert seen == [10, 10, 80]


def test_uplinks_and_representors_that_come_are_asked_for_at_once() -> None:
    source = LinksSource(15)
    before = source.question(switched("one", pf=with_vfs("lo")))
    assert source.worth_asking(before, source.question(switched("one", "two", pf=with_vfs("lo"))))
    assert source.worth_asking(before, source.question(switched("one", pf=with_vfs("lo", representors={0: "x"}))))
    assert not source.worth_asking(before, source.question(switched("one", pf=with_vfs("lo"))))


def test_without_open_vswitch_pfs_are_still_looked_at() -> None:
    world = without(switched("one", pf=with_vfs("lo")), "ovs")
    assert [u.device for u in asyncio.run(LinksSource(15).read(world)).uplinks] == ["lo"]
