"""The NICs of this host that can have VFs, and who holds these: sysfs, /proc, and libvirt's running domains."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree as ET

from mecexporter.aside import OneAtATime
from mecexporter.errors import Reason, SourceError
from mecexporter.sources.base import Source
from mecexporter.sources.wire.files import denied, read_small
from mecexporter.state.sriov import Function, Held, Nic, Pf, Vf
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mecexporter.state.world import World

_NETWORK_CLASS = "0x02"  # PCI base class 02h, network controller
_MEGABIT = 1_000_000
_REST = 200.0  # looking through all open files rests so many times as long as it took
_LONGEST_REST = 30.0
_VFIO = "/dev/vfio/"
_REPRESENTOR = re.compile(r"(?:c\d+)?pf(?P<pf>\d+)vf(?P<vf>\d+)")
_SWITCH = "ovs-vswitchd"  # with DPDK it has VFs open for the host's own use
_XML_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SysfsPaths:
    """Where to look; every root can be another directory in a test."""

    sysfs: Path
    proc: Path
    libvirt: Path = Path("/run/libvirt/qemu")


class _Use(NamedTuple):
    """Who uses a function."""

    held: Held = Held.NO
    holder: str = ""
    by_host: bool = False


@dataclass(frozen=True, slots=True)
class _Holder:
    """A process that has a VFIO device open: ``fd`` shows it again without a search."""

    fd: Path
    target: str
    command: str
    guest: str


class SysfsSource(Source[Nic]):
    """Reads some six small files a VF, in a thread.

    ``sriov_numvfs`` is not read: while VFs are taken away under a guest that holds one, this blocks until it ends.

    The kernel's ABI: Documentation/ABI/testing/sysfs-bus-pci (``sriov_*``, ``virtfnN``, ``physfn``), sysfs-class-net
    (``phys_port_name``), Documentation/driver-api/vfio.rst (groups).

    Args:
        paths: where to look.
        interval: seconds between reads.
    """

    name = "sysfs"
    roles = frozenset({Role.COMPUTE})

    def __init__(self, paths: SysfsPaths, interval: float) -> None:
        self.interval = interval
        self._paths = paths
        self._reads: OneAtATime[Nic] = OneAtATime("a file system does not answer")
        self._holders: dict[str, _Holder] = {}  # VFIO device -> who has it open
        self._searched = False
        self._search_after = 0.0

    async def read(self, world: World) -> Nic:  # noqa: ARG002  # asks the same whatever the World
        """Raises SourceError where the kernel's list of PCI devices can't be read."""
        return await self._reads.call(self._read)

    def _read(self) -> Nic:
        root = self._paths.sysfs / "bus/pci/devices"
        if not self._paths.sysfs.is_dir():
            raise SourceError(Reason.MISSING, f"no {self._paths.sysfs}")
        try:
            addresses = sorted(path.name for path in root.iterdir())
        except PermissionError:
            raise denied(root, "read") from None
        except OSError:  # a machine without PCI
            addresses = []
        pfs = [root / a for a in addresses if (root / a / "sriov_totalvfs").exists()]
        nics = [pf for pf in pfs if _text(pf / "class").startswith(_NETWORK_CLASS)]
        of = {pf: _virtual(pf) for pf in nics}
        devices = [*nics, *(vf for vfs in of.values() for vf in vfs.values())]
        bound = {path.name: _vfio_devices(path) for path in devices if _link(path / "driver") == "vfio-pci"}
        holders = self._find_holders({name for names in bound.values() for name in names}) if bound else {}
        domains = _domains(self._paths.libvirt) if bound else {}
        seen = holders is not None
        every = (vfs.values() for vfs in of.values() if len(vfs) > 1 and all(vf.name in bound for vf in vfs.values()))
        beforehand = {vf.name for vfs in every for vf in vfs}

        def use(address: str) -> _Use:
            if address not in bound:
                return _Use()
            by = next((holders[name] for name in bound[address] if holders and name in holders), None)
            if by is not None and by.command == _SWITCH:
                return _Use(by_host=True)
            if by is not None or address in domains:
                return _Use(Held.YES, (by.guest if by else "") or domains.get(address, ""))
            # Where every VF is bound beforehand, that one is bound does not tell it from the others.
            return _Use(Held.NO if seen else Held.UNSEEN if address in beforehand else Held.BOUND)

        return Nic(
            pfs=tuple(
                _pf(
                    path,
                    self._paths.sysfs / "class/net",
                    of[path],
                    use(path.name),
                    {vf: use(vf.name) for vf in of[path].values()},
                )
                for path in nics
            ),
            addresses=frozenset(addresses),
            processes_seen=seen,
        )

    def _find_holders(self, wanted: set[str]) -> Mapping[str, _Holder] | None:
        """Who has which VFIO device open; None where not all processes of the host can be seen.

        Known holders are only looked at again. Searching through all files of all processes is dear: it is done where
        a device has no holder, and rests for so long that it stays below half a percent of a core.
        """
        self._holders = {name: h for name, h in self._holders.items() if _target(h.fd) == h.target}
        now = time.monotonic()
        if not wanted <= self._holders.keys() and now >= self._search_after:
            found = _search(self._paths.proc)
            self._searched = found is not None
            self._holders.update(found or {})
            took = time.monotonic() - now
            self._search_after = now + (min(took * _REST, _LONGEST_REST))
        return self._holders if self._searched else None


def _representors(netdevs: Path, uplink: Path) -> dict[int, str]:
    """By the switch that they share with the uplink, whose port is p0 where theirs are pf0vf0, pf0vf1 and so on.

    Not all drivers put them below their PF.
    """
    switch, port = _text(uplink / "phys_switch_id"), _text(uplink / "phys_port_name")
    if not switch or not re.fullmatch(r"p\d+", port):
        return {}
    found: dict[int, str] = {}
    for name in _names(netdevs):
        theirs = _REPRESENTOR.fullmatch(_text(netdevs / name / "phys_port_name"))
        if theirs and theirs["pf"] == port[1:] and _text(netdevs / name / "phys_switch_id") == switch:
            found[int(theirs["vf"])] = name
    return found


def _pf(
    path: Path,
    netdevs: Path,
    virtual: Mapping[int, Path],
    use: _Use,
    uses: Mapping[Path, _Use],
) -> Pf:
    base = _function(path, use)
    uplinks = tuple(d for d in base.devices if not _REPRESENTOR.fullmatch(_text(path / "net" / d / "phys_port_name")))
    net = path / "net" / uplinks[0] if uplinks else None
    speed = _number(net / "speed") if net else None
    numa = _number(path / "numa_node")
    return Pf(
        address=base.address,
        driver=base.driver,
        iommu_group=base.iommu_group,
        held=base.held,
        holder=base.holder,
        by_host=base.by_host,
        devices=uplinks,
        vendor=_text(path / "vendor"),
        product=_text(path / "device"),
        numa_node=numa if numa is not None and numa >= 0 else None,
        capacity=_number(path / "sriov_totalvfs") or 0,
        configured=len(virtual),
        vfs=tuple(_vf(index, vf, uses[vf]) for index, vf in sorted(virtual.items())),
        master=_link(net / "master") if net else None,
        speed=speed * _MEGABIT if speed is not None and speed > 0 else None,
        representors=_representors(netdevs, net) if net else {},
    )


def _vf(index: int, path: Path, use: _Use) -> Vf:
    base = _function(path, use)
    state, used = base.held, base.by_host
    if state is Held.NO:
        above = [name for device in base.devices for name in _names(path / "net" / device)]
        if any(name.startswith(("upper_macvtap", "upper_macvlan")) for name in above) or _has_vdpa(path):
            state = Held.UNSEEN
        else:
            used = used or any(name == "master" or name.startswith("upper_") for name in above)
    return Vf(
        address=base.address,
        driver=base.driver,
        iommu_group=base.iommu_group,
        held=state,
        holder=base.holder,
        by_host=used,
        devices=base.devices,
        index=index,
    )


def _function(path: Path, use: _Use) -> Function:
    group = _link(path / "iommu_group")
    return Function(
        address=path.name,
        driver=_link(path / "driver"),
        iommu_group=int(group) if group and group.isdigit() else None,
        held=use.held,
        holder=use.holder,
        by_host=use.by_host,
        devices=tuple(_names(path / "net")),
    )


def _virtual(pf: Path) -> dict[int, Path]:
    """Index -> VF, by the links ``virtfnN``: addresses follow the device's stride."""
    found: dict[int, Path] = {}
    for name in _names(pf):
        target = _link(pf / name) if re.fullmatch(r"virtfn\d+", name) else None
        if target:
            found[int(name.removeprefix("virtfn"))] = pf.parent / target
    return found


def _vfio_devices(path: Path) -> list[str]:
    """By which names a process has it open: its group, or with IOMMUFD the device itself."""
    group = _link(path / "iommu_group")
    own = [f"{_VFIO}devices/{name}" for name in _names(path / "vfio-dev")]
    return [*((f"{_VFIO}{group}", f"{_VFIO}noiommu-{group}") if group else ()), *own]


def _has_vdpa(path: Path) -> bool:
    return any(re.fullmatch(r"vdpa\d+", name) for name in _names(path))


def _search(proc: Path) -> dict[str, _Holder] | None:
    """Who has a VFIO device open, of all processes; None if some can't be seen.

    Process 2 is kthreadd in the host's own PID namespace and nowhere else.
    """
    if _text(proc / "2" / "comm") != "kthreadd":
        return None
    found: dict[str, _Holder] = {}
    # Not by pathlib: this takes half the time, and a host has tens of thousands of open files.
    for process in os.listdir(proc):  # noqa: PTH208
        if not process.isdigit():
            continue
        directory = f"{proc}/{process}/fd"
        try:
            descriptors = os.listdir(directory)  # noqa: PTH208
        except PermissionError:
            return None
        except OSError:  # it has ended
            continue
        for fd in descriptors:
            try:
                target = os.readlink(f"{directory}/{fd}")  # noqa: PTH115
            except OSError:  # closed since
                continue
            if target.startswith(_VFIO) and target != f"{_VFIO}vfio":
                found[target] = _holder(proc / process, Path(directory, fd), target)
    return found


def _holder(process: Path, fd: Path, target: str) -> _Holder:
    words = _text(process / "cmdline").split("\0")
    guest = next((after for word, after in pairwise(words) if word == "-uuid"), "")  # qemu(1)
    return _Holder(fd=fd, target=target, command=_text(process / "comm"), guest=guest)


def _domains(directory: Path) -> dict[str, str]:
    """Address -> uuid, of the devices of libvirt's running domains, whose live XML root can read."""
    found: dict[str, str] = {}
    for name in _names(directory):
        if not name.endswith(".xml"):
            continue
        try:
            # Written by libvirt, for root alone; no entities are resolved, and the size is bounded.
            root = ET.fromstring(read_small(directory / name, _XML_LIMIT))  # noqa: S314
        except (SourceError, ET.ParseError):
            continue
        uuid = next(root.iter("uuid"), None)
        for address in root.iterfind(".//hostdev/source/address"):
            parts = [address.get(key, "") for key in ("domain", "bus", "slot", "function")]
            try:
                domain, bus, slot, function = (int(part, 16) for part in parts)
            except ValueError:
                continue
            found[f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"] = (uuid.text or "") if uuid is not None else ""
    return found


def _names(directory: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in directory.iterdir())
    except OSError:
        return []


def _link(path: Path) -> str | None:
    """The last part of what a link leads to."""
    target = _target(path)
    return target.rpartition("/")[2] if target else None


def _target(path: Path) -> str | None:
    try:
        return str(path.readlink())
    except OSError:
        return None


def _text(path: Path) -> str:
    """'' where it is not there or, as some of sysfs, fails when it is read."""
    try:
        return read_small(path).decode("utf-8", "replace").strip()
    except SourceError:
        return ""


def _number(path: Path) -> int | None:
    try:
        return int(_text(path))
    except ValueError:
        return None
