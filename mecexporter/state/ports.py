"""What the ports of this host's datapaths are, by the names of their devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.state.datapath import PortKind
from mecexporter.state.observed import Fresh
from mecexporter.state.ovs import InterfaceKind

if TYPE_CHECKING:
    from mecexporter.state.world import World

_OF_OVS = {
    InterfaceKind.UPLINK: PortKind.UPLINK,
    InterfaceKind.TUNNEL: PortKind.TUNNEL,
    InterfaceKind.INTERNAL: PortKind.INTERNAL,
}


def port_kinds(world: World) -> dict[str, PortKind]:
    """Device -> kind; a device that is not in it is OTHER, as far as it is known."""
    kinds = {}
    if isinstance(world.ovs, Fresh):
        kinds = {i.name: _OF_OVS[i.kind] for i in world.ovs.value.interfaces if i.kind in _OF_OVS}
    if isinstance(world.sysfs, Fresh):
        for pf in world.sysfs.value.pfs:
            kinds |= dict.fromkeys((*pf.devices, *filter(None, (pf.master,))), PortKind.UPLINK)
            kinds |= dict.fromkeys(pf.representors.values(), PortKind.REPRESENTOR)
    return kinds
