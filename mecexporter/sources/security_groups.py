"""The security groups of ports on a NIC's switch that name GRE in a rule, and whether they are stateful."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.base import Source
from mecexporter.sources.wire import lists
from mecexporter.sources.wire.lists import AT_ONCE
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.openstack import SecurityGroup
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from mecexporter.sources.wire.cloud import Cloud
    from mecexporter.state.openstack import Port
    from mecexporter.state.world import World

_GRE = ("gre", "47")
"""Neutron keeps a rule's protocol as it was given: as a name or as a number."""
_RULES, _GROUPS, _PORTS = "security-group-rules", "security-groups", "ports"


class SecurityGroupsSource(Source[tuple[SecurityGroup, ...]]):
    """Asks for the rules that name GRE of the groups that ``neutron`` found, and then for the groups that have one.

    A list of groups makes Neutron read all their rules, one group after the other: a hundred take it several times as
    long as the rules for GRE of as many.

    Args:
        cloud: whose.
        interval: seconds between reads.
    """

    name = "security_groups"
    roles = frozenset({Role.API})
    deadline = 240.0
    shared = True
    retry = 5.0  # what stirs it is this node's own ports, and no event that all nodes see
    needs = ("neutron",)

    def __init__(self, cloud: Cloud, *, interval: float) -> None:
        self.interval = interval
        self._cloud = cloud
        self._ports: tuple[Port, ...] = ()
        self._groups: frozenset[str] = frozenset()

    def question(self, world: World) -> Hashable:
        """Which groups; looked for once in each answer of ``neutron``, for this is asked all the time."""
        if not isinstance(world.neutron, Fresh):
            return None
        if world.neutron.value is not self._ports:
            self._ports, self._groups = world.neutron.value, frozenset(_named(world.neutron.value))
        return self._groups

    async def read(self, world: World) -> tuple[SecurityGroup, ...]:
        """Raises SourceError, PERMISSION where groups are not shown that ports are in."""
        if isinstance(world.neutron, Absent):
            raise SourceError(world.neutron.reason, "the ports can't be told: no answer from neutron")
        examples = _named(world.neutron.value)
        protocols = [("protocol", name) for name in _GRE]
        gre = await lists.by(self._cloud, _RULES, "security_group_id", examples, filters=protocols)
        # Whoever may not see the groups of a project is shown none of its rules either, and no error: one of each is
        # asked for.
        seen = {port.project: port.groups[0] for port in examples.values()}
        wanted = gre.keys() | set(seen.values())
        found = await lists.by(self._cloud, _GROUPS, "id", wanted, fields=("name", "project_id", "stateful"))
        await self._visible({group: examples[group] for group in wanted - found.keys()})
        return tuple(_group(uuid, found[uuid]) for uuid in sorted(gre) if uuid in found)

    async def _visible(self, missing: Mapping[str, Port]) -> None:
        """Whether groups are missing because nobody needs them any more: one that a port is in can't be deleted."""
        of = {port.uuid: group for group, port in sorted(missing.items())[:AT_ONCE]}
        now = await lists.by(self._cloud, _PORTS, "id", of, fields=("security_groups",))
        hidden = [group for port, group in of.items() if group in (now.get(port, {}).get("security_groups") or ())]
        if hidden:
            why = f"group {hidden[0]} of a port is not shown: who asks must see all projects' groups, as an admin does"
            raise SourceError(Reason.PERMISSION, f"network /security-groups: {why}")


def _named(ports: Iterable[Port]) -> dict[str, Port]:
    """The groups of ports on a NIC's switch, with a port that is in each."""
    return {group: port for port in ports if port.switched for group in port.groups}


def _group(uuid: str, row: dict[str, Any]) -> SecurityGroup:
    stateful = row.get("stateful")
    return SecurityGroup(
        uuid=uuid,
        name=str(row.get("name") or ""),
        project=str(row.get("project_id") or ""),
        stateful=stateful if isinstance(stateful, bool) else None,
    )
