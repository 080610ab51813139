"""The flow count of the integration bridge, as OpenFlow itself counts; and of ports whose standing is in doubt."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.base import Source
from mecexporter.sources.wire.openflow import flow_counts
from mecexporter.state.observed import Fresh
from mecexporter.state.ovs import BridgeFlows
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from collections.abc import Hashable
    from pathlib import Path

    from mecexporter.state.world import World


MOST_PORTS = 1024
"""Ports asked for in one read; each question walks table 0 in ovs-vswitchd's main thread."""


class OpenFlowSource(Source[BridgeFlows]):
    """One aggregate request on ``<run_dir>/<bridge>.mgmt``, and one for each port without ``ovn-installed``.

    A localport (Neutron's metadata) never gets that mark, yet has its flows; a port that OVN does not know has none.

    Args:
        run_dir: ovs-vswitchd's.
        interval: seconds between reads.
    """

    name = "openflow"
    roles = frozenset({Role.COMPUTE})
    needs = ("ovs",)

    def __init__(self, run_dir: Path, interval: float) -> None:
        self.interval = interval
        self._run_dir = run_dir
        self._bridge: str | None = None  # as last told: it lives on while conf.db does not answer

    def question(self, world: World) -> Hashable:
        """Which bridge, and whether it is there."""
        if not isinstance(world.ovs, Fresh):
            return None
        ovs = world.ovs.value
        return ovs.integration_bridge, ovs.bridge(ovs.integration_bridge) is not None

    async def read(self, world: World) -> BridgeFlows:
        """Raises SourceError; MISSING while nobody knows the bridge's name."""
        if isinstance(world.ovs, Fresh):
            self._bridge = world.ovs.value.integration_bridge
        if self._bridge is None:
            raise SourceError(Reason.MISSING, "the integration bridge's name can't be told: no answer from ovs")
        name = self._bridge
        if "/" in name:
            raise SourceError(Reason.MISSING, f"a bridge called {name!r} has no management socket")
        doubtful = world.ovs.value.uninstalled() if isinstance(world.ovs, Fresh) else ()
        ports = [i.ofport for i in doubtful if i.ofport is not None and i.ofport > 0]
        management = self._run_dir / f"{name}.mgmt"
        flows, from_port = await flow_counts(management, ports=ports[:MOST_PORTS], deadline=self.deadline)
        return BridgeFlows(name, flows, MappingProxyType(from_port), unasked=len(ports[MOST_PORTS:]))
