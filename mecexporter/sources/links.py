"""What the kernel's network stack tells of the PFs: their VFs' addresses, driver, firmware and eswitch mode."""

from __future__ import annotations

import fcntl
import socket
import struct
from array import array
from types import MappingProxyType
from typing import TYPE_CHECKING

from mecexporter.aside import OneAtATime
from mecexporter.errors import Reason, SourceError
from mecexporter.sources.base import Source
from mecexporter.sources.wire.netlink import (
    NETLINK_GENERIC,
    NETLINK_ROUTE,
    Netlink,
    attribute,
    attributes,
    generic,
)
from mecexporter.state.observed import Fresh
from mecexporter.state.sriov import Links, PfLink, VfLink
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from mecexporter.state.world import World

# include/uapi/linux/rtnetlink.h, if_link.h
_RTM_GETLINK = 18
_IFINFOMSG = struct.Struct("=BxHiII")
_EXT_MASK, _VF_AND_NO_STATISTICS = 29, 0x1 | 0x8
_VFINFO_LIST, _VF_INFO, _VF_MAC, _VF_VLAN = 22, 1, 1, 2
_MAC_BYTES = 6
# include/uapi/linux/devlink.h
_ESWITCH_GET, _BUS_NAME, _DEV_NAME, _ESWITCH_MODE = 29, 1, 2, 25
_MODES = {0: "legacy", 1: "switchdev"}
# include/uapi/linux/ethtool.h, sockios.h
_SIOCETHTOOL, _GDRVINFO = 0x8946, 0x3
_DRVINFO = struct.Struct("=I32s32s32s32s32s12sIIIII")
_IFREQ = struct.Struct("16sP16x")
_LONGEST_NAME = 15


class LinksSource(Source[Links]):
    """Asks for each PF alone, by name, without statistics: some microseconds a VF.

    Args:
        interval: seconds between reads.
    """

    name = "links"
    roles = frozenset({Role.COMPUTE})
    needs = ("sysfs",)

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._reads: OneAtATime[Links] = OneAtATime("a driver does not answer")

    def question(self, world: World) -> Hashable:
        """The PFs with a netdev; None until they are known."""
        if not isinstance(world.sysfs, Fresh):
            return None
        return tuple((pf.address, pf.device) for pf in world.sysfs.value.pfs if pf.device)

    async def read(self, world: World) -> Links:
        """Raises SourceError where the kernel does not answer, or it is not known which PFs there are."""
        if not isinstance(world.sysfs, Fresh):
            raise SourceError(Reason.MISSING, f"which PFs there are is not known: {world.sysfs.why}")
        pfs = [(pf.address, pf.device) for pf in world.sysfs.value.pfs if pf.device]
        return await self._reads.call(_read, pfs)


def _read(pfs: list[tuple[str, str]]) -> Links:
    found: dict[str, PfLink] = {}
    if pfs:
        with Netlink(NETLINK_ROUTE) as route, Netlink(NETLINK_GENERIC) as genl:
            devlink = _devlink(genl)
            for address, device in pfs:
                try:
                    vfs = dict(_vfs(route, device))
                except SourceError as error:
                    if error.reason is Reason.MISSING:  # it went away, or was renamed, since sysfs was read
                        continue
                    raise
                driver, firmware = _versions(device)
                mode = _eswitch_mode(genl, devlink, address) if devlink else None
                found[address] = PfLink(
                    driver_version=driver, firmware_version=firmware, eswitch_mode=mode, vfs=MappingProxyType(vfs)
                )
    return Links(MappingProxyType(found))


def _vfs(route: Netlink, device: str) -> Iterator[tuple[int, VfLink]]:
    index = _index(device)
    mask = attribute(_EXT_MASK, struct.pack("=I", _VF_AND_NO_STATISTICS))
    for answer in route.ask(_RTM_GETLINK, _IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, 0, 0) + mask):
        yield from vfs_of(answer)


def vfs_of(link: bytes) -> Iterator[tuple[int, VfLink]]:
    """Number and settings of each VF in the body of an RTM_NEWLINK."""
    for kind, value in attributes(link[_IFINFOMSG.size :]):
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


def _index(device: str) -> int:
    try:
        return socket.if_nametoindex(device)
    except OSError:
        raise SourceError(Reason.MISSING, f"no network device {device}") from None


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


def _versions(device: str) -> tuple[str | None, str | None]:
    """Driver's and firmware's version (ETHTOOL_GDRVINFO), None for what it does not say."""
    buffer = array("B", struct.pack("=I", _GDRVINFO).ljust(_DRVINFO.size, b"\0"))
    request = _IFREQ.pack(device.encode()[:_LONGEST_NAME], buffer.buffer_info()[0])
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
    except OSError:  # a driver without it, or a device that went away
        return None, None
    _, _, version, firmware, *_ = _DRVINFO.unpack(buffer)
    texts = [raw.partition(b"\0")[0].decode("utf-8", "replace") for raw in (version, firmware)]
    return texts[0] or None, texts[1] or None
