"""Text manifests of /sys and /proc trees: what a machine shows, kept as a fixture and laid out again as a directory.

A manifest has one line for each entry, sorted by path, and comments that begin with #. Paths begin with sys/ or proc/.

    sys/class/net/
    sys/class/net/pf0 -> ../../devices/pci0000:00/0000:00:06.0/0000:01:00.0/net/pf0
    sys/bus/pci/devices/0000:01:00.0/sriov_numvfs = 4
    sys/devices/virtual/net/bond0/ifalias : ""
    sys/class/net/pf0/phys_switch_id ! EOPNOTSUPP

are a directory; a link; a file of one line; any other file, as a JSON string; a file that fails when it is read.
Directories that hold something are not listed. Links are kept, not followed.

In a guest this file runs alone, with nothing but Python: `manifest.py pack` prints what the machine shows of its NICs.
"""

from __future__ import annotations

import contextlib
import errno
import json
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# What is read of a device; what begins with sriov_, or is a link of one of the names, comes too.
_PCI = ("class", "vendor", "device", "subsystem_vendor", "subsystem_device", "numa_node", "driver_override",
        "max_link_speed", "max_link_width", "current_link_speed", "current_link_width")  # fmt: skip
_NET = ("address", "carrier", "dev_port", "duplex", "ifindex", "mtu", "operstate", "phys_port_id", "phys_port_name",
        "phys_switch_id", "speed")  # fmt: skip
_LINK = re.compile(r"driver|iommu_group|physfn|virtfn\d+|subsystem|device|master|(upper|lower)_.+")
_BY_ITS_NAME = re.compile(r"vfio-dev|vdpa\d+")
_LINE = re.compile(r"(?P<path>\S+?)(?:(?P<dir>/)| (?P<kind>->|=|:|!) ?(?P<value>.*))")
# Files of Linux that fail in the way asked for wherever there is a network namespace.
_FAILS = {errno.EOPNOTSUPP: "/sys/class/net/lo/phys_switch_id", errno.EINVAL: "/sys/class/net/lo/speed"}
# On Linux EOPNOTSUPP and ENOTSUP are one number; the first is what the kernel says.
_NAMES = {**errno.errorcode, errno.EOPNOTSUPP: "EOPNOTSUPP"}
_ANYWAY = "/proc/self/mem"  # EIO at its beginning


@dataclass(frozen=True, slots=True)
class Dir:
    pass


@dataclass(frozen=True, slots=True)
class Link:
    target: str


@dataclass(frozen=True, slots=True)
class File:
    text: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    error: str
    """errno's name."""


Entry = Dir | Link | File | Unreadable
Tree = dict[str, Entry]


def parse(text: str) -> Tree:
    """Raises ValueError naming the line that is none."""
    tree: Tree = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError(f"line {number}: {line}")
        value = found["value"] or ""
        entry: Entry
        match found["kind"]:
            case "->":
                entry = Link(value)
            case "=":
                entry = File(value + "\n")
            case ":":
                entry = File(json.loads(value))
            case "!":
                entry = Unreadable(value)
            case _:
                entry = Dir()
        tree[found["path"]] = entry
    return tree


def render(tree: Tree, header: str = "") -> str:
    lines = [f"# {line}".rstrip() for line in header.splitlines()]
    for path, entry in sorted(tree.items()):
        match entry:
            case Dir():
                lines.append(f"{path}/")
            case Link(target):
                lines.append(f"{path} -> {target}")
            case Unreadable(error):
                lines.append(f"{path} ! {error}")
            case File(text):
                one = text.removesuffix("\n")
                plain = text.endswith("\n") and one.isprintable() and one == one.strip()
                lines.append(f"{path} = {one}" if plain else f"{path} : {json.dumps(text)}")
    return "\n".join(lines) + "\n"


def unpack(manifest: Path, directory: Path) -> None:
    """Lays the tree out below the directory: `directory / "sys"`, and where the manifest has it `directory / "proc"`.

    A file that fails when read fails here too: with the same error where this machine has a file that does, else
    with EIO.
    """
    for path, entry in parse(manifest.read_text()).items():
        place = directory / path
        place.parent.mkdir(parents=True, exist_ok=True)
        match entry:
            case Dir():
                place.mkdir(exist_ok=True)
            case Link(target):
                place.symlink_to(target)
            case File(text):
                place.write_text(text)
            case Unreadable(error):
                place.symlink_to(_failing(getattr(errno, error)))


def _failing(number: int) -> str:
    known = _FAILS.get(number, _ANYWAY)
    try:
        Path(known).read_bytes()
    except OSError as error:
        if error.errno == number:
            return known
    return _ANYWAY


def pack(root: Path = Path("/")) -> Tree:
    """What the machine shows of its PCI devices, netdevsim devices, netdevs, and who has VFIO devices open."""
    tree: Tree = {}
    sys_ = root / "sys"
    for device in _entries(sys_ / "bus/pci/devices"):
        _add_pci(tree, root, device)
    for device in _entries(sys_ / "bus/netdevsim/devices"):
        _add(tree, root, device)
        _add_attributes(tree, root, device.resolve(), ())
    for netdev in _entries(sys_ / "class/net"):
        _add(tree, root, netdev)
        if netdev.is_symlink():  # bonding keeps a file here
            _add_attributes(tree, root, netdev.resolve(), _NET)
    for group in _entries(sys_ / "kernel/iommu_groups"):
        for member in _entries(group / "devices"):
            _add(tree, root, member)
    for driver in {entry.target for entry in tree.values() if isinstance(entry, Link) and "/drivers/" in entry.target}:
        tree["sys/" + driver.lstrip("./")] = Dir()  # or the link would lead nowhere
    for path in _holders(root / "proc"):
        _add(tree, root, path)
    return tree


def _add_pci(tree: Tree, root: Path, device: Path) -> None:
    _add(tree, root, device)
    place = device.resolve()
    network = _read(place / "class").startswith("0x02")
    _add_attributes(tree, root, place, _PCI if network else ("class", "vendor", "device"))
    for special in _entries(place) if network else ():
        if _BY_ITS_NAME.fullmatch(special.name):
            for below in [special, *_entries(special)]:
                tree[_name(root, below)] = Dir()


def _add_attributes(tree: Tree, root: Path, place: Path, names: Iterable[str]) -> None:
    for path in _entries(place):
        if path.is_symlink():
            if _LINK.fullmatch(path.name):
                _add(tree, root, path)
        elif path.is_file() and (path.name in names or path.name.startswith("sriov_")):
            _add(tree, root, path)


def _holders(proc: Path) -> Iterator[Path]:
    """What tells that this is the host's /proc, and all about each process with a VFIO device."""
    yield proc / "2/comm"
    for process in _entries(proc):
        if not process.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it has ended
            descriptors = _entries(process / "fd")
            if any(str(fd.readlink()).startswith("/dev/vfio/") for fd in descriptors):
                yield from (process / "comm", process / "cmdline", *descriptors)


def _add(tree: Tree, root: Path, path: Path) -> None:
    name = _name(root, path)
    if path.is_symlink():
        tree[name] = Link(str(path.readlink()))
    elif path.is_dir():
        tree[name] = Dir()
    elif path.stat().st_mode & 0o444:  # not what can only be written
        try:
            tree[name] = File(path.read_bytes().decode("utf-8", "backslashreplace"))
        except OSError as error:
            tree[name] = Unreadable(_NAMES.get(error.errno or 0, "EIO"))


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _entries(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.is_dir() else []


if __name__ == "__main__":
    if sys.argv[1:] != ["pack"]:
        sys.exit("usage: manifest.py pack")
    sys.stdout.write(render(pack(), f"Recorded on Linux {platform.release()}."))
