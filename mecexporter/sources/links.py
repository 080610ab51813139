"""What the kernel's network stack tells of PFs (their VFs, versions, eswitch mode), of uplinks and of representors."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from mecexporter.aside import OneAtATime
from mecexporter.errors import Reason, SourceError
from mecexporter.sources.base import Source
from mecexporter.sources.wire.ethtool import Ethtool
from mecexporter.sources.wire.link_stats import Hits, statistics
from mecexporter.sources.wire.netdev import (
    EXT_MASK,
    IFINFOMSG,
    NO_STATISTICS,
    RTM_GETLINK,
    index_of,
    known_index,
    ways_out,
    with_addresses,
)
from mecexporter.sources.wire.netlink import (
    NETLINK_GENERIC,
    NETLINK_ROUTE,
    Netlink,
    attribute,
    attributes,
    generic,
)
from mecexporter.state.observed import Fresh
from mecexporter.state.ovs import InterfaceKind
from mecexporter.state.sriov import Links, PfLink, Uplink, VfLink
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from mecexporter.state.sriov import Pf
    from mecexporter.state.world import World

_VF = 0x1  # RTEXT_FILTER_VF
_VFINFO_LIST, _VF_INFO, _VF_MAC, _VF_VLAN = 22, 1, 1, 2
_MAC_BYTES = 6
_OVS_ITSELF = "ovs-system"  # the master of every netdev in the kernel's datapath
_MOST_REPRESENTORS = 2048
# include/uapi/linux/devlink.h
_ESWITCH_GET, _BUS_NAME, _DEV_NAME, _ESWITCH_MODE = 29, 1, 2, 25
_MODES = {0: "legacy", 1: "switchdev"}


@dataclass(frozen=True, slots=True)
class _Asked:
    """Which devices matter.

    Attributes:
        pfs: those with a netdev.
        switched: uplinks of bridges of Open vSwitch, as far as the kernel has them.
        addresses: of tunnels' own ends.
        representors: as many as are looked at.
    """

    pfs: tuple[Pf, ...]
    switched: tuple[str, ...]
    addresses: tuple[str, ...]
    representors: tuple[str, ...]
    left_out: int

    @classmethod
    def of(cls, world: World) -> _Asked | None:
        """None until it is known which PFs there are."""
        if not isinstance(world.sysfs, Fresh):
            return None
        pfs = tuple(pf for pf in world.sysfs.value.pfs if pf.device)
        representors = [name for pf in pfs for _, name in sorted(pf.representors.items())]
        switched: set[str] = set()
        addresses: set[str] = set()
        if isinstance(world.ovs, Fresh):
            switched = {
                i.name for i in world.ovs.value.interfaces if i.kind is InterfaceKind.UPLINK and i.type == "system"
            }
            addresses = set(world.ovs.value.encap_ips)
        return cls(
            pfs,
            tuple(sorted(switched)),
            tuple(sorted(addresses)),
            tuple(representors[:_MOST_REPRESENTORS]),
            max(0, len(representors) - _MOST_REPRESENTORS),
        )


class LinksSource(Source[Links]):
    """Asks for each PF alone, by name, without statistics: some microseconds a VF.

    Statistics of all devices come in one dump, a microsecond each; a representor's feature costs six.

    Args:
        interval: seconds between reads.
        ovs: whether the source of that name, which knows uplinks, is asked at all.
    """

    name = "links"
    roles = frozenset({Role.COMPUTE})

    def __init__(self, interval: float, *, ovs: bool = True) -> None:
        self.interval = interval
        self.needs = ("sysfs", "ovs") if ovs else ("sysfs",)
        self._reads: OneAtATime[Links] = OneAtATime("a driver does not answer")
        self._hits = Hits()
        self._features: tuple[bytes, ...] = ()

    def question(self, world: World) -> Hashable:
        """The devices that matter; None until they are known."""
        asked = _Asked.of(world)
        return asked and (tuple((pf.address, pf.device) for pf in asked.pfs), asked.switched, asked.representors)

    async def read(self, world: World) -> Links:
        """Raises SourceError where the kernel does not answer, or it is not known which PFs there are."""
        asked = _Asked.of(world)
        if asked is None:
            why = getattr(world.sysfs, "why", "")
            raise SourceError(Reason.MISSING, f"which PFs there are is not known: {why}")
        return await self._reads.call(self._read, asked)

    def _read(self, asked: _Asked) -> Links:
        with Netlink(NETLINK_ROUTE) as route, Ethtool() as ethtool:
            pfs = dict(_pfs(asked.pfs, route, ethtool)) if asked.pfs else {}
            uplinks = tuple(_uplinks(asked, route, ethtool))
            bonds = (pf.master for pf in asked.pfs if pf.master and pf.master != _OVS_ITSELF)
            names = {*(pf.device for pf in asked.pfs), *bonds, *(u.device for u in uplinks), *asked.representors}
            indexes = {index: name for name in names if (index := _index(name))}
            passed = statistics(route, indexes)
            hits = self._hits.settle(passed)
            self._features = self._features or ethtool.features("lo")
            offload = {name: ethtool.tc_offload(name, self._features) for name in indexes.values()}
        return Links(
            MappingProxyType(pfs),
            statistics=MappingProxyType({indexes[index]: p.all for index, p in passed.items()}),
            cpu_hit=MappingProxyType({indexes[index]: hit for index, hit in hits.items()}),
            tc_offload=MappingProxyType({name: on for name, on in offload.items() if on is not None}),
            uplinks=uplinks,
            left_out=asked.left_out,
        )


def _index(device: str) -> int | None:
    """None where it went away, or was renamed, since it was seen."""
    try:
        return index_of(device)
    except SourceError:
        return None


def _uplinks(asked: _Asked, route: Netlink, ethtool: Ethtool) -> Iterator[Uplink]:
    """PFs that have VFs, and all NICs below what Open vSwitch or a tunnel's own address is on."""
    of_pf = {pf.device: pf for pf in asked.pfs}
    devices = {pf.device for pf in asked.pfs if pf.vfs or pf.representors}
    # Of these nobody knows whether the kernel has them.
    above = {index for name in asked.switched if (index := known_index(route, name))} | with_addresses(
        route, asked.addresses
    )
    for index in above:
        try:
            devices.update(ways_out(route, index))
        except SourceError as error:
            if error.reason is not Reason.MISSING:
                raise
    within = {name for pf in asked.pfs for vf in pf.vfs for name in vf.devices}.union(asked.representors)
    for device in sorted(devices - within):  # what passes these passes their PF
        pf = of_pf.get(device)
        yield Uplink(
            device=device,
            pf=pf.address if pf is not None else "",
            speed=pf.speed if pf is not None else ethtool.speed(device),
        )


def _pfs(pfs: tuple[Pf, ...], route: Netlink, ethtool: Ethtool) -> Iterator[tuple[str, PfLink]]:
    with Netlink(NETLINK_GENERIC) as genl:
        devlink = _devlink(genl)
        for pf in pfs:
            try:
                vfs = dict(_vfs(route, pf.device))
            except SourceError as error:
                if error.reason is Reason.MISSING:  # as _index()
                    continue
                raise
            driver, firmware = ethtool.versions(pf.device)
            mode = _eswitch_mode(genl, devlink, pf.address) if devlink else None
            yield (
                pf.address,
                PfLink(driver_version=driver, firmware_version=firmware, eswitch_mode=mode, vfs=MappingProxyType(vfs)),
            )


def _vfs(route: Netlink, device: str) -> Iterator[tuple[int, VfLink]]:
    mask = attribute(EXT_MASK, struct.pack("=I", _VF | NO_STATISTICS))
    for answer in route.ask(RTM_GETLINK, IFINFOMSG.pack(socket.AF_UNSPEC, 0, index_of(device), 0, 0) + mask):
        yield from vfs_of(answer)


def vfs_of(link: bytes) -> Iterator[tuple[int, VfLink]]:
    """Number and settings of each VF in the body of an RTM_NEWLINK."""
    for kind, value in attributes(link, IFINFOMSG.size):
        if kind == _VFINFO_LIST:
            yield from (_vf(info) for nested, info in attributes(value) if nested == _VF_INFO)


def _vf(info: bytes) -> tuple[int, VfLink]:
    number, mac, vlan = -1, None, None
    for kind, value in attributes(info):
        if kind == _VF_MAC:  # ifla_vf_mac: u32 vf, u8 mac[32]
            number = struct.unpack_from("=I", value)[0]
            raw = value[4 : 4 + _MAC_BYTES]
            mac = raw.hex(":") if any(raw) else None
        elif kind == _VF_VLAN:  # ifla_vf_vlan: u32 vf, u32 vlan, u32 qos
            vlan = struct.unpack_from("=I", value, 4)[0] or None
    return number, VfLink(mac=mac, vlan=vlan)


def _devlink(genl: Netlink) -> int | None:
    """The family's number; None on a kernel without it."""
    try:
        return genl.family("devlink")
    except SourceError as error:
        if error.reason is Reason.MISSING:
            return None
        raise


def _eswitch_mode(genl: Netlink, devlink: int, address: str, bus: str = "pci") -> str | None:
    """None where the device has no eswitch ('not supported', 'no such device'), or only an administrator may ask."""
    where = attribute(_BUS_NAME, bus.encode() + b"\0") + attribute(_DEV_NAME, address.encode() + b"\0")
    try:
        answers = genl.ask(devlink, generic(_ESWITCH_GET, where))
    except SourceError as error:
        if error.reason in (Reason.MISSING, Reason.ANSWERED_ERROR, Reason.PERMISSION):
            return None
        raise
    for answer in answers:
        for kind, value in attributes(answer[4:]):
            if kind == _ESWITCH_MODE:
                return _MODES.get(struct.unpack("=H", value)[0])
    return None
