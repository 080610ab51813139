"""Open vSwitch on this host, as conf.db, ovs-vswitchd and OpenFlow tell it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class InterfaceKind(StrEnum):
    """What an OVS interface is for; the bounded set behind the ``kind`` label."""

    VIF = "vif"  # external_ids:iface-id: a logical port's interface
    TUNNEL = "tunnel"
    UPLINK = "uplink"  # a system or DPDK port of a bridge that is not the integration bridge
    PATCH = "patch"
    INTERNAL = "internal"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """A row of Interface with what its Port and Bridge say (ovs-vswitchd.conf.db(5)).

    Attributes:
        type: the column of that name; the database's empty string means ``system``.
        remote_chassis: Port.external_ids:ovn-chassis-id, set by ovn-controller on its tunnels.
        ofport: OpenFlow port; -1 where ovs-vswitchd could not add it, None where it has not said.
        error: what ovs-vswitchd says is wrong, None if nothing.
        bfd_state: Interface.bfd_status:state where BFD is enabled, else None.
        of_guest: external_ids:iface-status is ``active``, as os-vif and libvirt write it with a guest's iface-id;
            Neutron's agent for metadata writes the iface-id alone.
    """

    bridge: str
    name: str
    type: str
    kind: InterfaceKind
    iface_id: str | None
    ovn_installed: bool
    remote_chassis: str | None
    ofport: int | None
    error: str | None
    link_state: str | None
    bfd_state: str | None
    of_guest: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge:
    """A row of Bridge.

    Attributes:
        nb_cfg: external_ids:ovn-nb-cfg, what ovn-controller installed last, if ever.
        datapath_type: ``netdev`` for a user-space datapath; the database's empty string means ``system``.
    """

    name: str
    nb_cfg: int | None
    datapath_type: str = "system"


class Counters(NamedTuple):
    """What passed an interface since it or the exporter began (netdev statistics; packets and bytes)."""

    rx_packets: int = 0
    tx_packets: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_errors: int = 0
    tx_errors: int = 0
    rx_dropped: int = 0
    tx_dropped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OvsConf:
    """The Open_vSwitch database of this host.

    Attributes:
        system_id: external_ids:system-id; None where the key is absent, '' where it is empty.
        integration_bridge: the name in force: configured, else external_ids:ovn-bridge, else br-int.
        ovn_settings: external_ids that begin with ``ovn-``, and ``hostname``: what ovn-controller is told.
        remembered_ids: the ids in other_config:ovn-chassis-idx-<id>, which ovn-controller leaves there.
        traffic_by_kind: monotonic sums over all interfaces of a kind, those that are gone included.
        traffic: by (bridge, interface), of uplinks, tunnels and interfaces with an error only.
        hw_offload: other_config:hw-offload as configured; ovs-vswitchd looks at it when it starts.
        tc_policy: other_config:tc-policy: ``none`` (the default), ``skip_sw`` or ``skip_hw``; likewise.
    """

    system_id: str | None
    hostname: str | None
    ovn_remote: str | None
    encap_types: tuple[str, ...]
    encap_ips: tuple[str, ...]
    ovn_settings: Mapping[str, str]
    integration_bridge: str
    remembered_ids: tuple[str, ...]
    schema_version: str | None
    bridges: tuple[Bridge, ...]
    interfaces: tuple[Interface, ...]
    traffic_by_kind: Mapping[InterfaceKind, Counters]
    traffic: Mapping[tuple[str, str], Counters]
    hw_offload: bool = False
    tc_policy: str = "none"

    def uninstalled(self) -> tuple[Interface, ...]:
        """Interfaces of the integration bridge that ask for a logical port and bear no mark of having got it."""
        return tuple(
            i
            for i in self.interfaces
            if i.bridge == self.integration_bridge and i.iface_id is not None and not i.ovn_installed
        )

    def bridge(self, name: str) -> Bridge | None:
        """The bridge of that name, if there is one."""
        return next((b for b in self.bridges if b.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Datapath:
    """Lookups of one datapath since it was created (ovs-dpctl(8), ``show``)."""

    name: str
    hit: int
    missed: int
    lost: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Upcalls:
    """The datapath flows that ovs-vswitchd keeps, and how long its revalidators need (``upcall/show``)."""

    datapath: str
    flows: int
    flow_limit: int
    dump_duration_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Vswitchd:
    """What ovs-vswitchd tells of itself.

    Attributes:
        process: one start of it, told from all others; None where /proc does not show it.
        age: seconds since that start.
    """

    version: str | None
    datapaths: tuple[Datapath, ...]
    upcalls: tuple[Upcalls, ...]
    process: str | None = None
    age: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadRun:
    """What one start of ovs-vswitchd runs with, from what was configured while it was watched.

    It begins to offload as soon as hw-offload is true, takes the tc-policy of that moment, and keeps to both until it
    ends (netdev_set_flow_api_enabled in its lib/netdev-offload.c): what is configured now may not be what runs.

    Attributes:
        process: as in Vswitchd.
        hw_offload: as it was configured at the last look.
        tc_policy: likewise.
        offload: whether it offloads, None where that can't be told.
        policy: the tc-policy that it took; None where it offloads by none, or nobody watched when it took it.
    """

    process: str
    hw_offload: bool
    tc_policy: str
    offload: bool | None = None
    policy: str | None = None


@dataclass(frozen=True, slots=True)
class BridgeFlows:
    """OpenFlow's own count of the flows of one bridge; ovs-vswitchd's hidden flows are not in it.

    Attributes:
        from_port: OpenFlow port -> flows of table 0 that take packets from it, of the ports that were asked for.
        unasked: ports in doubt that were too many to be asked for.
    """

    bridge: str
    flows: int
    from_port: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))
    unasked: int = 0
