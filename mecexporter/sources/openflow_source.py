"""The flow count of the integration bridge, as OpenFlow itself counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.base import Source
from mecexporter.sources.openflow import flow_count
from mecexporter.state.observed import Fresh
from mecexporter.state.ovs import BridgeFlows
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from collections.abc import Hashable
    from pathlib import Path

    from mecexporter.state.world import World


class OpenFlowSource(Source[BridgeFlows]):
    """One aggregate request on ``<run_dir>/<bridge>.mgmt``.

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
        return BridgeFlows(name, await flow_count(self._run_dir / f"{name}.mgmt", deadline=self.deadline))
