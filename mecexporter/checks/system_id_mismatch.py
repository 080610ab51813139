"""The next start of Open vSwitch will change the id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.checks.base import Finding, Severity, Unknown, check, unknown
from mecexporter.checks.words import put_back, quoted, uses_file
from mecexporter.errors import Reason
from mecexporter.state.identity import EffectiveId, effective_id
from mecexporter.state.observed import Fresh
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from mecexporter.checks.base import Verdict
    from mecexporter.state.host import IdFile
    from mecexporter.state.world import World


@check(
    severity=Severity.WARNING,
    title="the next restart will change the id: system-id.conf is absent, empty or different, where ovs-ctl uses it",
    roles=frozenset({Role.COMPUTE}),
    sources=("host", "ovs"),
    alert_for="5m",
)
def system_id_mismatch(world: World) -> Verdict:
    """Compare the file with the database; ovs-ctl overwrites the latter with the former at each start."""
    if not isinstance(world.host, Fresh) or not isinstance(world.ovs, Fresh):
        return unknown(world, "host", "ovs")
    file = world.host.value.system_id_file
    now = effective_id(world)
    if not isinstance(now, EffectiveId):
        return Unknown(now)
    system_id = now.system_id
    if now.origin != "ovsdb" or not system_id or not uses_file(world):
        return ()  # the file decides nothing, or system_id_missing
    if file.trouble not in (None, Reason.MISSING):
        return Unknown(("host",))
    if file.content == system_id:
        return ()
    what = {None: "does not exist", "": "is empty"}.get(file.content, f"holds {quoted(file.content or '')}")
    return (
        Finding(
            subject=world.hostname,
            summary=f"{file.path} {what}, the id in force is {quoted(system_id)}: the next start changes it",
            remedy=_remedy(world, system_id, file),
            reads=2,
            hold=5.0,
            read_at=world.host.at,
        ),
    )


def _remedy(world: World, system_id: str, file: IdFile) -> str:
    keep = (
        f"{quoted(system_id)} is right: echo {quoted(system_id)} > {quoted(file.path)} "
        "(its directory must be writable by root; otherwise correct the database)"
    )
    known = world.memory.identity
    if file.content and known is not None and known.system_id == file.content:  # system_id_changed says so too
        back = put_back(world, "ovsdb", file.content)
        return f"the file holds the id under which this node was last healthy, so put that back: {back}. Only if {keep}"
    return f"if {keep}"
