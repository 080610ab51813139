"""SR-IOV on this host: physical functions (PFs), their virtual functions (VFs), and who holds them.

A PCI address is written as the kernel does: lower case, with its domain (``0000:3b:00.2``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mecexporter.state.ovs import Counters


class Held(StrEnum):
    """Whether a guest holds a function."""

    YES = "yes"  # bound to vfio-pci, and a process or a running domain has it open
    BOUND = "bound"  # bound to vfio-pci; who has it open can't be seen from here: weaker evidence
    NO = "no"
    UNSEEN = "unseen"  # a guest that holds it leaves no trace: handed on as a macvtap or vDPA device, or all are bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """What a PF and a VF have in common.

    Attributes:
        driver: that it is bound to, None if to none.
        iommu_group: its number, None without an IOMMU.
        holder: the id of the guest that holds it (Nova's instance), '' where that can't be told.
        by_host: whether the host itself uses it: a bridge or bond has its netdev, or ovs-vswitchd has it open.
        devices: its netdevs.
    """

    address: str
    driver: str | None
    iommu_group: int | None
    held: Held
    holder: str = ""
    by_host: bool = False
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Vf(Function):
    """A virtual function; ``index`` is its number at its PF (``virtfnN``)."""

    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pf(Function):
    """A physical function that can have VFs.

    Attributes:
        vendor: PCI vendor id, as the kernel writes it (``0x15b3``).
        product: PCI device id.
        numa_node: None where the machine does not say.
        capacity: how many VFs it can have (``sriov_totalvfs``).
        configured: how many it has.
        vfs: by index.
        master: the bond or bridge that has its uplink's netdev, None if none has.
        speed: of its link, in bits a second; None without link.
        representors: index of a VF -> the netdev that stands for it in switchdev mode (``phys_port_name`` pf0vf3).
    """

    vendor: str
    product: str
    numa_node: int | None
    capacity: int
    configured: int
    vfs: tuple[Vf, ...]
    master: str | None = None
    speed: int | None = None
    representors: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def device(self) -> str:
        """The netdev of its uplink, '' if it has none."""
        return self.devices[0] if self.devices else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """The NICs of this host that can have VFs.

    Attributes:
        pfs: network devices only, by address.
        addresses: every PCI function of the host, whatever it is.
        processes_seen: whether /proc shows which process has which device open.
    """

    pfs: tuple[Pf, ...]
    addresses: frozenset[str]
    processes_seen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VfLink:
    """What a PF's driver was told of a VF (IFLA_VF_INFO of rtnetlink(7)); None where it does not say."""

    mac: str | None
    vlan: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PfLink:
    """What netlink and ethtool tell of a PF.

    Attributes:
        driver_version: ETHTOOL_GDRVINFO's; for drivers of the kernel's own tree its release.
        firmware_version: ETHTOOL_GDRVINFO's.
        eswitch_mode: ``legacy`` or ``switchdev`` (devlink), None where the driver has none.
        vfs: by index.
    """

    driver_version: str | None
    firmware_version: str | None
    eswitch_mode: str | None
    vfs: Mapping[int, VfLink]


@dataclass(frozen=True, slots=True, kw_only=True)
class Uplink:
    """A NIC's own netdev by which the cloud's traffic leaves this host; a bond or VLAN is told by those below it.

    Attributes:
        pf: address of its PF, '' where the NIC is none that can have VFs.
        speed: of its link, in bits a second; None without link.
    """

    device: str
    pf: str
    speed: int | None


@dataclass(frozen=True, slots=True)
class Links:
    """What netlink and ethtool tell of this host's network devices.

    Attributes:
        pfs: by the PF's address; a PF without a netdev (bound to vfio-pci) is not in it.
        statistics: all that passed a netdev, by its name: PFs, their bonds, uplinks, representors. What a device
            missed for lack of buffers is in rx_dropped.
        cpu_hit: the part of it that came to the CPU (IFLA_OFFLOAD_XSTATS_CPU_HIT), where the driver tells; never more
            than all of it, and all less it never falls while the device is there. Packets and bytes only.
        tc_offload: whether the netdev's feature hw-tc-offload is on, where the driver has it.
        uplinks: each once; by none of them may a packet pass that passes another.
        left_out: representors beyond the limit, of which nothing is told.
    """

    pfs: Mapping[str, PfLink]
    statistics: Mapping[str, Counters] = field(default_factory=lambda: MappingProxyType({}))
    cpu_hit: Mapping[str, Counters] = field(default_factory=lambda: MappingProxyType({}))
    tc_offload: Mapping[str, bool] = field(default_factory=lambda: MappingProxyType({}))
    uplinks: tuple[Uplink, ...] = ()
    left_out: int = 0
