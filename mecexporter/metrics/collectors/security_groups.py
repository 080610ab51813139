"""Ports on NICs' switches whose security groups name GRE, by whether connection tracking runs on it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mecexporter.checks.offload_gre_stateful import gre_ports
from mecexporter.metrics.registry import collector
from mecexporter.metrics.spec import Metric
from mecexporter.state.observed import Fresh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.metrics.registry import View
    from mecexporter.metrics.spec import Sample

PORTS = Metric(
    name="mec_security_group_gre_ports",
    help=(
        "Ports on the host's NICs in switchdev mode whose security groups name GRE in a rule, by whether these groups "
        "are stateful (1: connection tracking runs on it) or stateless (0)."
    ),
    labels=("hostname", "stateful"),
)


@collector(
    PORTS,
    reads=lambda v: (v.world.neutron, v.world.security_groups, v.world.hostname, v.world.applicable),
)
def security_groups(view: View) -> Iterator[Sample]:
    """Of each host that has such ports at all, 0 too."""
    world = view.world
    if not {"neutron", "security_groups"} <= world.applicable:
        return
    if not (isinstance(world.neutron, Fresh) and isinstance(world.security_groups, Fresh)):
        return
    own = world.hostname
    counts = Counter(
        {(_host(own, p.host), tracked): 0 for p in world.neutron.value if p.switched for tracked in (0, 1)}
    )
    counts.update((_host(own, port.host), int(group.tracked)) for port, group in gre_ports(world))
    for (host, tracked), count in sorted(counts.items()):
        yield PORTS(count, hostname=host, stateful=str(tracked))


def _host(own: str, name: str) -> str:
    """In this node's own spelling, where it is this node."""
    return own if name.casefold() == own.casefold() else name
