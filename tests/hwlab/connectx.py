"""A manifest made by hand, no such NIC was there: a ConnectX-like one of two ports in switchdev mode, as mlx5 shows it.

Made after the kernel's Documentation/networking/representors.rst, Documentation/networking/devlink/mlx5.rst (eswitch
modes), Documentation/ABI/testing/sysfs-bus-pci and sysfs-class-net, and the driver (mlx5/core/en_rep.c): the parent of
a representor is the PF, so it lies in the PF's net/; all ports of the NIC have one phys_switch_id, its system image
GUID; a representor has no link settings, so that reading its speed fails.
"""

from __future__ import annotations

from tests.hwlab.manifest import Dir, Entry, File, Link, Tree, Unreadable, render

NAME = "connectx-switchdev.manifest"
GUEST = "5f0c7a1e-8d53-4b43-9b0e-0c6a52d1f7aa"
VFS = 8
_SWITCH = "1c34da0003ab12f8"
_ROOT = "devices/pci0000:00/0000:00:03.0"
_OFFSETS = (2, 9)  # first VF Offset: the VFs of the second port follow those of the first
_UNSUPPORTED = Unreadable("EOPNOTSUPP")
_NO_LINK_SETTINGS = Unreadable("EINVAL")
HEADER = f"""\
Made by hand (tests/hwlab/connectx.py), not recorded: a ConnectX-like NIC of two ports, {VFS} VFs each, in switchdev
mode, both ports in bond0, the representors of the first port's VFs 0 to 3 in Open vSwitch.
First port: VF 0 on vfio-pci, held by a QEMU; VF 1 on vfio-pci, held by nobody; VF 2 has a vDPA device; VF 3 has no
driver; VF 4's netdev is in a bridge of the host's; the others have idle netdevs.
Second port: all idle, on the host's driver."""


def tree() -> Tree:
    made: Tree = {"proc/2/comm": File("kthreadd\n"), "sys/kernel/iommu_groups": Dir()}
    for driver in ("mlx5_core", "vfio-pci"):
        made[f"sys/bus/pci/drivers/{driver}"] = Dir()
    for port in range(len(_OFFSETS)):
        _port(made, port)
    for upper in ("bond0", "ovs-system", "br-host"):
        _virtual(made, upper)
    _held(made, pid=4242, group=60)
    return made


def _address(number: int) -> str:
    """By PCI routing id on bus 3."""
    return f"0000:03:{number >> 3:02x}.{number & 7}"


def _port(made: Tree, port: int) -> None:
    own = _address(port)
    base = f"sys/{_ROOT}/{own}"
    _function(made, own, device="0x101d", driver="mlx5_core", group=40 + port)
    sriov = {
        "sriov_drivers_autoprobe": "1",
        "sriov_numvfs": str(VFS),
        "sriov_offset": str(_OFFSETS[port]),
        "sriov_stride": "1",
        "sriov_totalvfs": str(VFS),
        "sriov_vf_device": "101e",
        "sriov_vf_total_msix": "0",
    }
    made.update({f"{base}/{name}": File(f"{value}\n") for name, value in sriov.items()})
    uplink = f"enp3s0f{port}np{port}"
    _netdev(made, own, uplink, mac=f"1c:34:da:ab:12:f{8 + port}", name=f"p{port}", speed=File("100000\n"))
    _enslave(made, own, uplink, "bond0")
    for n in range(VFS):
        vf = _address(port + _OFFSETS[port] + n)
        made[f"{base}/virtfn{n}"] = Link(f"../{vf}")
        representor = f"enp3s0f{port}r{n}"
        _netdev(made, own, representor, mac=f"52:54:00:0{port}:ee:0{n}", name=f"pf{port}vf{n}", speed=_NO_LINK_SETTINGS)
        if port == 0 and n < 4:
            _enslave(made, own, representor, "ovs-system")
        _vf(made, own, vf, port, n)


def _vf(made: Tree, pf: str, vf: str, port: int, n: int) -> None:
    driver = {0: "vfio-pci", 1: "vfio-pci", 3: None}.get(n, "mlx5_core") if port == 0 else "mlx5_core"
    _function(made, vf, device="0x101e", driver=driver, group=60 + port * VFS + n)
    base = f"sys/{_ROOT}/{vf}"
    made[f"{base}/physfn"] = Link(f"../{pf}")
    if driver == "vfio-pci":
        made[f"{base}/driver_override"] = File("vfio-pci\n")
        made[f"{base}/vfio-dev/vfio{n}"] = Dir()
    if driver != "mlx5_core":
        return
    netdev = f"enp3s0f{port}v{n}"
    _netdev(made, vf, netdev, mac=f"fa:16:3e:0{port}:00:0{n}", name=None, speed=File("100000\n"))
    if port == 0 and n == 2:
        made[f"{base}/vdpa0"] = Dir()
    if port == 0 and n == 4:
        _enslave(made, vf, netdev, "br-host")


def _function(made: Tree, address: str, *, device: str, driver: str | None, group: int) -> None:
    base = f"sys/{_ROOT}/{address}"
    up = "../" * (_ROOT.count("/") + 2)
    made[f"sys/bus/pci/devices/{address}"] = Link(f"../../../{_ROOT}/{address}")
    files = {
        "class": "0x020000",
        "vendor": "0x15b3",
        "device": device,
        "subsystem_vendor": "0x15b3",
        "subsystem_device": "0x0016",
        "numa_node": "0",
        "driver_override": "(null)",
        "max_link_speed": "16.0 GT/s PCIe",
        "max_link_width": "16",
        "current_link_speed": "16.0 GT/s PCIe",
        "current_link_width": "16",
    }
    made.update({f"{base}/{name}": File(f"{value}\n") for name, value in files.items()})
    made[f"{base}/subsystem"] = Link(f"{up}bus/pci")
    made[f"{base}/iommu_group"] = Link(f"{up}kernel/iommu_groups/{group}")
    made[f"sys/kernel/iommu_groups/{group}/devices/{address}"] = Link(f"../../../../{_ROOT}/{address}")
    if driver:
        made[f"{base}/driver"] = Link(f"{up}bus/pci/drivers/{driver}")


def _netdev(made: Tree, parent: str, netdev: str, *, mac: str, name: str | None, speed: Entry) -> None:
    base = f"sys/{_ROOT}/{parent}/net/{netdev}"
    made[f"sys/class/net/{netdev}"] = Link(f"../../{_ROOT}/{parent}/net/{netdev}")
    made[f"{base}/device"] = Link(f"../../../{parent}")
    made[f"{base}/subsystem"] = Link("../" * (_ROOT.count("/") + 4) + "class/net")
    made[f"{base}/address"] = File(f"{mac}\n")
    made[f"{base}/carrier"] = File("1\n")
    made[f"{base}/operstate"] = File("up\n")
    made[f"{base}/mtu"] = File("9000\n")
    made[f"{base}/speed"] = speed
    made[f"{base}/phys_port_id"] = _UNSUPPORTED
    made[f"{base}/phys_port_name"] = File(f"{name}\n") if name else _UNSUPPORTED
    made[f"{base}/phys_switch_id"] = File(f"{_SWITCH}\n") if name else _UNSUPPORTED


def _enslave(made: Tree, parent: str, netdev: str, upper: str) -> None:
    base = f"sys/{_ROOT}/{parent}/net/{netdev}"
    up = "../" * (_ROOT.count("/") + 3)
    for link in ("master", f"upper_{upper}"):
        made[f"{base}/{link}"] = Link(f"{up}virtual/net/{upper}")
    made[f"sys/devices/virtual/net/{upper}/lower_{netdev}"] = Link(
        f"../../../{_ROOT.removeprefix('devices/')}/{parent}/net/{netdev}"
    )


def _virtual(made: Tree, netdev: str) -> None:
    base = f"sys/devices/virtual/net/{netdev}"
    made[f"sys/class/net/{netdev}"] = Link(f"../../devices/virtual/net/{netdev}")
    made[f"{base}/subsystem"] = Link("../../../../class/net")
    made[f"{base}/operstate"] = File("up\n")
    made[f"{base}/phys_port_name"] = _UNSUPPORTED
    made[f"{base}/phys_switch_id"] = _UNSUPPORTED


def _held(made: Tree, pid: int, group: int) -> None:
    words = ("/usr/bin/qemu-system-x86_64", "-name", "guest=instance-0000000a,debug-threads=on", "-uuid", GUEST)
    process = f"proc/{pid}"
    made[f"{process}/comm"] = File("qemu-system-x86\n")
    made[f"{process}/cmdline"] = File("".join(f"{word}\0" for word in words))
    for fd, target in (
        (0, "/dev/null"),
        (3, "/dev/vfio/vfio"),
        (4, f"/dev/vfio/{group}"),
        (5, "anon_inode:[vfio-device]"),
    ):
        made[f"{process}/fd/{fd}"] = Link(target)


def manifest() -> str:
    return render(tree(), HEADER)
