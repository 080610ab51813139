"""The NIC's ledger: PFs of this host, their VFs, and who holds them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mecexporter.errors import NOBODY
from mecexporter.metrics.registry import collector
from mecexporter.metrics.spec import Kind, Metric, Stability
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.sriov import Held

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.metrics.registry import View
    from mecexporter.metrics.spec import Sample
    from mecexporter.state.sriov import Nic, Pf, PfLink, Vf
    from mecexporter.state.world import World

PF = Metric(
    name="mec_sriov_pf_info",
    help="A physical function that can have VFs; empty where something is not known. Absent while what knows its"
    " physical network has no answer.",
    kind=Kind.INFO,
    labels=(
        "hostname",
        "pf",
        "device",
        "driver",
        "driver_version",
        "firmware_version",
        "eswitch_mode",
        "physical_network",
        "numa_node",
    ),
    stability=Stability.STABLE,
)
CAPACITY = Metric(
    name="mec_sriov_vf_capacity",
    help="How many VFs the PF can have (sriov_totalvfs).",
    labels=("hostname", "pf"),
    stability=Stability.STABLE,
)
CONFIGURED = Metric(
    name="mec_sriov_vf_configured",
    help="How many VFs the PF has.",
    labels=("hostname", "pf"),
    stability=Stability.STABLE,
)
STATE = Metric(
    name="mec_sriov_vf_state",
    help="VFs of the PF by who uses them: nobody (free), a guest, or the host itself.",
    labels=("hostname", "pf", "state"),
    stability=Stability.STABLE,
)
SPEED = Metric(
    name="mec_sriov_pf_speed_bytes_per_second",
    help="Speed of the PF's link; absent without link.",
    labels=("hostname", "pf"),
)
VF = Metric(
    name="mec_sriov_vf_info",
    help="A VF as its PF's driver and Open vSwitch know it; empty where something can't be told.",
    kind=Kind.INFO,
    labels=("hostname", "pf", "pci_address", "vf", "driver", "mac", "vlan", "representor", "logical_port"),
)
HOLDER = Metric(
    name="mec_vf_holder_info",
    help="A VF that a guest holds, with the guest's id; empty where that can't be told.",
    kind=Kind.INFO,
    labels=("hostname", "pf", "pci_address", "holder"),
    stability=Stability.STABLE,
)
VISIBLE = Metric(
    name="mec_sriov_holders_visible",
    help="Whether the exporter sees which process has a VF open (1), or takes all bound to vfio-pci for held (0).",
)

_GUEST, _HOST, _FREE = "guest", "host", "free"


def nic_of(world: World) -> Nic | None:
    """The NIC's ledger where it belongs to this node and is fresh."""
    return world.sysfs.value if "sysfs" in world.applicable and isinstance(world.sysfs, Fresh) else None


def use_of(vf: Vf) -> str:
    """The ``state`` of a VF; one that is handed on as a macvtap or vDPA device is a guest's."""
    if vf.held is not Held.NO:
        return _GUEST
    return _HOST if vf.by_host else _FREE


@collector(
    PF,
    CAPACITY,
    CONFIGURED,
    STATE,
    SPEED,
    VF,
    HOLDER,
    VISIBLE,
    reads=lambda v: (
        v.world.sysfs,
        v.world.links,
        v.world.ovs,
        v.world.cells,
        v.world.hostname,
        v.world.applicable,
        v.world.settings,
        v.world.memory.versions,
    ),
)
def sriov(view: View) -> Iterator[Sample]:
    """By PF; nothing where a host has none."""
    nic, host = nic_of(view.world), view.world.hostname
    if nic is None or not nic.pfs:
        return
    links = view.world.links.value.pfs if isinstance(view.world.links, Fresh) else {}
    ports = _logical_ports(view.world)
    yield VISIBLE(nic.processes_seen)
    for pf in nic.pfs:
        yield from _pf(view.world, pf, links.get(pf.address))
        for vf in pf.vfs:
            yield _vf(host, pf, vf, links.get(pf.address), ports)
            if use_of(vf) == _GUEST:
                yield HOLDER(1, hostname=host, pf=pf.address, pci_address=vf.address, holder=vf.holder)


def _pf(world: World, pf: Pf, link: PfLink | None) -> Iterator[Sample]:
    host = world.hostname
    mode = link.eswitch_mode if link is not None else None
    network = physical_network(world, pf)
    # With an empty network for a while, the PF's VFs would leave the sums of one network for those of another.
    if network is not None:
        yield PF(
            1,
            hostname=host,
            pf=pf.address,
            device=pf.device,
            driver=pf.driver or "",
            driver_version=(link and link.driver_version) or "",
            firmware_version=(link and link.firmware_version) or "",
            # Only an administrator is told the mode; representors are there in one mode only.
            eswitch_mode=mode or ("switchdev" if pf.representors else ""),
            physical_network=network,
            numa_node="" if pf.numa_node is None else str(pf.numa_node),
        )
    yield CAPACITY(pf.capacity, hostname=host, pf=pf.address)
    yield CONFIGURED(pf.configured, hostname=host, pf=pf.address)
    states = Counter(use_of(vf) for vf in pf.vfs)
    for state in (_FREE, _GUEST, _HOST):
        yield STATE(states[state], hostname=host, pf=pf.address, state=state)
    if pf.speed is not None:
        yield SPEED(pf.speed / 8, hostname=host, pf=pf.address)


def _vf(host: str, pf: Pf, vf: Vf, link: PfLink | None, ports: dict[str, str]) -> Sample:
    told = link.vfs.get(vf.index) if link is not None else None
    representor = pf.representors.get(vf.index, "")
    return VF(
        1,
        hostname=host,
        pf=pf.address,
        pci_address=vf.address,
        vf=str(vf.index),
        driver=vf.driver or "",
        mac=(told and told.mac) or "",
        vlan=str(told.vlan) if told is not None and told.vlan is not None else "",
        representor=representor,
        logical_port=ports.get(representor, ""),
    )


def _logical_ports(world: World) -> dict[str, str]:
    """Netdev -> logical port, which under Neutron is the port's uuid."""
    if not isinstance(world.ovs, Fresh):
        return {}
    return {i.name: i.iface_id for i in world.ovs.value.interfaces if i.iface_id is not None}


def physical_network(world: World, pf: Pf) -> str | None:
    """As configured; else of the OVS bridge that has the PF or its bond; else as Nova was asked for it.

    '' where none of them knows, None where one that may know has no answer.
    """
    for network, devices in world.settings.device_mappings.items():
        if pf.device in devices:
            return network
    if isinstance(world.ovs, Fresh):
        ovs = world.ovs.value
        mappings = (pair.strip().partition(":") for pair in ovs.ovn_settings.get("ovn-bridge-mappings", "").split(","))
        networks = {bridge: network for network, _, bridge in mappings if bridge}
        names = {name for name in (pf.device, pf.master) if name}
        for interface in ovs.interfaces:
            if interface.name in names and interface.bridge in networks:
                return networks[interface.bridge]
    elif _has_ovs(world):
        return None
    for name, cell in world.cells.items():
        if name in world.applicable and isinstance(cell, Fresh):
            for row in cell.value.devices:
                own = row.host.casefold() == world.hostname.casefold()
                if own and pf.address in (row.parent, row.address) and row.physical_network:
                    return row.physical_network
    lost = any(name in world.applicable and isinstance(cell, Absent) for name, cell in world.cells.items())
    return None if lost else ""


def _has_ovs(world: World) -> bool:
    """Whether an Open vSwitch that does not answer was ever here, or may be: a host may do without."""
    if "ovs" not in world.applicable or isinstance(world.ovs, Fresh):
        return False
    return "ovs_schema" in world.memory.versions or world.ovs.reason not in NOBODY
