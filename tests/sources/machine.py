"""A small machine in a directory: PCI devices with VFs as sysfs shows them, and processes as /proc shows them."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PF = "0000:01:00.0"
VFS = ("0000:01:10.0", "0000:01:10.2", "0000:01:10.4", "0000:01:10.6")
"""With a stride of two, as igb's."""


class Machine:
    """Roots for SysfsPaths, made under a directory."""

    def __init__(self, root: Path) -> None:
        self.sysfs, self.proc, self.libvirt = root / "sys", root / "proc", root / "libvirt"
        self.pci = self.sysfs / "bus/pci/devices"
        for directory in (self.pci, self.proc, self.libvirt):
            directory.mkdir(parents=True)
        self.write(self.proc / "2/comm", "kthreadd\n")

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def link(self, path: Path, target: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    def device(
        self, address: str, *, driver: str | None = None, kind: str = "0x020000", group: int | None = None
    ) -> Path:
        path = self.pci / address
        self.write(path / "class", f"{kind}\n")
        self.write(path / "vendor", "0x8086\n")
        self.write(path / "device", "0x10c9\n")
        self.write(path / "numa_node", "-1\n")
        self.bind(address, driver)
        if group is not None:
            self.link(path / "iommu_group", f"../../../kernel/iommu_groups/{group}")
        return path

    def bind(self, address: str, driver: str | None) -> None:
        link = self.pci / address / "driver"
        link.unlink(missing_ok=True)
        if driver is not None:
            self.link(link, f"../../../bus/pci/drivers/{driver}")

    def pf(
        self, address: str = PF, *, vfs: tuple[str, ...] = VFS, total: int = 7, driver: str = "igb", net: str = "eth0"
    ) -> Path:
        path = self.device(address, driver=driver)
        self.write(path / "sriov_totalvfs", f"{total}\n")
        self.write(path / "sriov_numvfs", f"{len(vfs)}\n")
        self.netdev(address, net)
        for index, vf in enumerate(vfs):
            self.plug(address, index, vf)
        return path

    def plug(self, pf: str, index: int, vf: str) -> None:
        """A VF comes."""
        self.device(vf, driver="igbvf", group=10 + index)
        self.link(self.pci / vf / "physfn", f"../{pf}")
        self.link(self.pci / pf / f"virtfn{index}", f"../{vf}")

    def unplug(self, pf: str, index: int) -> None:
        """A VF goes."""
        link = self.pci / pf / f"virtfn{index}"
        vf = link.readlink().name
        link.unlink()
        shutil.rmtree(self.pci / vf)

    def netdev(self, address: str, name: str, **files: str) -> Path:
        path = self.pci / address / "net" / name
        path.mkdir(parents=True)
        for file, text in files.items():
            self.write(path / file, f"{text}\n")
        return path

    def process(self, pid: int, *files: str, comm: str = "qemu-system-x86", guest: str | None = None) -> Path:
        path = self.proc / str(pid)
        words = ["/usr/bin/qemu-system-x86_64", "-name", "guest=x", *(["-uuid", guest] if guest else [])]
        self.write(path / "comm", f"{comm}\n")
        self.write(path / "cmdline", "\0".join(words) + "\0")
        (path / "fd").mkdir()
        for number, file in enumerate(files):
            self.link(path / "fd" / str(number), file)
        return path

    def end(self, pid: int) -> None:
        shutil.rmtree(self.proc / str(pid))

    def domain(self, name: str, uuid: str, *addresses: str) -> None:
        devices = "".join(
            f"<hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0x{a[:4]}' "
            f"bus='0x{a[5:7]}' slot='0x{a[8:10]}' function='0x{a[11]}'/></source>"
            "<address type='pci' domain='0x0000' bus='0x06' slot='0x00' function='0x0'/></hostdev>"
            for a in addresses
        )
        domain = f"<domain type='kvm'><uuid>{uuid}</uuid><devices>{devices}</devices></domain>"
        self.write(self.libvirt / f"{name}.xml", f"<domstatus state='running'>{domain}</domstatus>")
