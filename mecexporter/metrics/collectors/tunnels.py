"""The tunnels of this node: how many chassis they lead to, and what BFD says of them.

Which ones should be there no node knows without reading Southbound's whole list of chassis, which thousands of nodes
are not to do: Prometheus holds their number against what Northbound's writer or leader tells of the list.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mecexporter.metrics.registry import collector
from mecexporter.metrics.spec import Metric
from mecexporter.state.observed import Fresh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.metrics.registry import View
    from mecexporter.metrics.spec import Sample

OFF = "off"
STATES = ("up", "down", "init", "admin_down")
"""As ovs-vswitchd.conf.db(5) has them, Interface.bfd_status:state."""

CHASSIS = Metric(
    name="mec_tunnel_chassis",
    help="Other chassis that this node has a tunnel to, whatever its state.",
)
TUNNELS = Metric(
    name="mec_tunnels",
    help=(
        "Tunnels to other chassis by their BFD sessions: up, down, init, admin_down; off where there is none: OVN has"
        " BFD only between candidates for a gateway."
    ),
    labels=("bfd_state",),
)


@collector(CHASSIS, TUNNELS, reads=lambda v: (v.world.ovs, v.world.vswitchd, v.world.applicable))
def tunnels(view: View) -> Iterator[Sample]:
    """Ports are ovn-controller's, by the database; what BFD says is ovs-vswitchd's word: without it, yesterday's."""
    world = view.world
    if "ovs" not in world.applicable or not isinstance(world.ovs, Fresh):
        return
    ours = [i for i in world.ovs.value.interfaces if i.remote_chassis is not None]
    yield CHASSIS(len({i.remote_chassis for i in ours}))
    if "vswitchd" in world.applicable and not isinstance(world.vswitchd, Fresh):
        return
    numbers = Counter(i.bfd_state or OFF for i in ours)
    for state in (*STATES, OFF):
        yield TUNNELS(numbers[state], bfd_state=state)
