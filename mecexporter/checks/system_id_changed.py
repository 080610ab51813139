"""The id in force is not the one this node was last healthy under: the driver installer's mark."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.checks.base import Finding, Severity, Unknown, check, unknown
from mecexporter.checks.words import delete_chassis, put_back, quoted
from mecexporter.state.identity import EffectiveId, effective_id
from mecexporter.state.observed import Fresh
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from mecexporter.checks.base import Verdict
    from mecexporter.state.world import World


@check(
    severity=Severity.CRITICAL,
    title="the effective id (commandline, else override, else ovsdb) is not the one this node was last healthy under",
    roles=frozenset({Role.COMPUTE}),
    sources=("host", "ovs"),
    alert_for="0s",
)
def system_id_changed(world: World) -> Verdict:
    """Compare with memory; a missing id is system_id_missing's matter."""
    if not isinstance(world.host, Fresh) or not isinstance(world.ovs, Fresh):
        return unknown(world, "host", "ovs")
    now = effective_id(world)
    if not isinstance(now, EffectiveId):
        return Unknown(now)
    remembered = world.memory.identity
    if remembered is None:
        return Unknown(("memory",))
    if now.system_id in ("", remembered.system_id):
        return ()
    return (
        Finding(
            subject=world.hostname,
            summary=(
                f"the system-id is {quoted(now.system_id)} (from {now.origin}), but this node was last healthy as "
                f"{quoted(remembered.system_id)}: OVN binds its ports to the old one, they lose their flows"
            ),
            remedy=(
                f"put the old id back: {put_back(world, now.origin, remembered.system_id)}. If the new id is meant: "
                f"{delete_chassis(remembered.system_id)} in Southbound; this clears when the "
                f"node has been healthy under it for {world.settings.grace_identity:.0f} s"
            ),
            # ovs-ctl takes a moment between the empty database and the id it writes.
            reads=2,
            hold=5.0,
            read_at=world.ovs.at,
        ),
    )
