"""Nova or Placement count on VFs that are not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.checks.base import Severity, Unknown, check
from mecexporter.checks.vfs import Drift, Said, drifts, finding, silent
from mecexporter.checks.words import quoted
from mecexporter.state.observed import Fresh
from mecexporter.state.world import CELL, Role

if TYPE_CHECKING:
    from mecexporter.checks.base import Verdict
    from mecexporter.checks.vfs import Case
    from mecexporter.state.openstack import Provider
    from mecexporter.state.world import World

NOTICED = 180.0
"""Seconds within which nova-compute notices that devices came or went: its audit runs each minute, and takes time."""

_NIC = (CELL, "sysfs")


@check(
    severity=Severity.WARNING,
    title="Nova knows a VF that the host has not, or Placement has given away more VFs of a class than it has",
    roles=frozenset({Role.API}),
    sources=(),
    either=(_NIC, ("placement",)),
    alert_for="0s",
)
def vf_inventory_mismatch(world: World) -> Verdict:
    """Each of the two comparisons that is configured; what the one finds is said though the other can't tell."""
    nic = _NIC if world.applicable.issuperset({"sysfs"}) and any(n in world.applicable for n in world.cells) else ()
    missing = silent(world, (*nic, "placement"))
    found = []
    if nic and not silent(world, nic):
        of = drifts(world).get(Drift.INVENTORY, ())
        found += [finding(world, case.subject, _say(case), nic, NOTICED) for case in of]
    if "placement" in world.applicable and isinstance(world.placement, Fresh):
        over = (p for p in world.placement.value if p.overdrawn)
        found += [finding(world, _subject(p), _overdrawn(p), ("placement",), NOTICED) for p in over]
    return Unknown(missing) if missing and not found else tuple(found)


def _say(case: Case) -> Said:
    row = case.rows[0]
    owner = f", given to instance {quoted(row.instance)}" if row.instance else ""
    return Said(
        summary=f"Nova's cell knows {case.name} ({row.status}{owner}); this host has no such device",
        remedy=(
            f"see why it went (ls -d /sys/bus/pci/devices/{case.pf}/virtfn*; dmesg): make the VFs again, as many as "
            "there were, before the instances on them start again; if they were taken away on purpose, nova-compute on "
            f"{quoted(case.host)} drops those that nobody has, and claimed ones once their instance is gone"
        ),
    )


def _subject(provider: Provider) -> str:
    return f"{provider.host}/{provider.pf}" if provider.pf else provider.host


def _overdrawn(provider: Provider) -> Said:
    uuid = quoted(provider.uuid)
    given = (f"{one.used} {quoted(name)} of {one.total}" for name, one in provider.overdrawn.items())
    return Said(
        summary=f"Placement gave away more of provider {quoted(provider.name)} than it has: {', '.join(given)}",
        remedy=(
            f"see whose they are (openstack resource provider show --allocations {uuid}); if VFs were taken away from "
            "the PF, make them again or move instances; an allocation whose instance is gone: openstack resource "
            "provider allocation delete CONSUMER"
        ),
    )
