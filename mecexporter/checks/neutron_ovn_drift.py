"""What Neutron ordered and Northbound does not hold so, or holds and nobody ordered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.checks.base import Finding, Severity, check, unknown
from mecexporter.checks.words import quoted
from mecexporter.state.neutron_ovn import Resource, State
from mecexporter.state.observed import Fresh
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from mecexporter.checks.base import Verdict
    from mecexporter.state.neutron_ovn import Drift
    from mecexporter.state.world import World

SECOND_LOOK = 10.0
"""Seconds after the first look, at least, that the second one is made (contract)."""

_WORDS = {Resource.ROUTER_PORT: "port", Resource.SECURITY_GROUP: "security group"}
"""What the command line's client calls a resource, where not as we do."""
_NAMES = {"Logical_Switch": "neutron-", "Logical_Router": "neutron-", "Logical_Router_Port": "lrp-"}
"""What goes before the UUID in a row's name."""
_REPAIR = (
    "neutron-ovn-db-sync-util --ovn-neutron_sync_mode repair, with neutron-server's --config-file options; see first "
    "with --ovn-neutron_sync_mode log what else it would change"
)


@check(
    severity=Severity.WARNING,
    title="an object of Neutron's is not in Northbound, or not as Neutron has it, or a row of Neutron's is left there",
    roles=frozenset({Role.CENTRAL}),
    sources=("neutron_ovn",),
    alert_for="0s",
)
def neutron_ovn_drift(world: World) -> Verdict:
    """Seen in two looks; behind for longer than Neutron's own maintenance needs."""
    if not isinstance(world.neutron_ovn, Fresh):
        return unknown(world, "neutron_ovn")
    at = world.neutron_ovn.at
    return tuple(
        Finding(
            subject=f"{drift.resource}/{drift.uuid}",
            summary=_summary(drift),
            remedy=_remedy(drift),
            hold=SECOND_LOOK,
            reads=2,
            read_at=at,
            since=at - drift.age,
        )
        for drift in world.neutron_ovn.value.drifts
        if drift.state is not State.BEHIND or drift.age >= world.settings.grace_neutron_behind
    )


def confirmed(drift: Drift) -> bool:
    """Whether more than one look has shown it."""
    return drift.age >= SECOND_LOOK


def _summary(drift: Drift) -> str:
    what = f"{_word(drift)} {quoted(drift.uuid)}"
    rows = " and ".join(drift.rows)
    match drift.state:
        case State.MISSING:
            return f"{what} is in Neutron, and Northbound has no {rows} of it"
        case State.EXTRA:
            return f"{what} is not in Neutron, and Northbound has a {rows} of it"
        case State.CHANGED:
            return (
                f"{what}: {drift.what} of its {rows} in Northbound are not as in Neutron, though no newer revision is"
            )
        case State.AHEAD:
            return (
                f"{what} is of revision {drift.ordered} in Neutron, its {rows} in Northbound of {drift.held}: "
                "Neutron refuses to write what seems newer, so that no update of it arrives any more"
            )
    return f"{what} is of revision {drift.ordered} in Neutron, its {rows} in Northbound still of {drift.held}"


def _remedy(drift: Drift) -> str:
    match drift.state:
        case State.MISSING | State.EXTRA:
            return _REPAIR
        case State.AHEAD:
            own = "external_ids:'\"neutron:revision_number\"'=0"
            sets = "; ".join(
                f"ovn-nbctl set {table} {quoted(_NAMES.get(table, '') + drift.uuid)} {own}" for table in drift.rows
            )
            return f"on this host: {sets}; then have Neutron write it: {_touch(drift)}"
        case State.CHANGED if "security groups" in drift.what:
            port = quoted(drift.uuid)
            return (
                f"have Neutron put it into its groups anew: openstack port show -c security_group_ids {port}; for each "
                f"of them: openstack port unset --security-group GROUP {port}; openstack port set --security-group "
                f"GROUP {port} (its traffic stops in between); {_touch(drift)}"
            )
    return (
        f"have Neutron write it: {_touch(drift)}; where many are behind: is Neutron's maintenance task running "
        "(neutron-ovn-maintenance-worker, or in neutron-server before 2025.1)?"
        if drift.state is State.BEHIND
        else f"have Neutron write it: {_touch(drift)}"
    )


def _touch(drift: Drift) -> str:
    """An update that changes nothing that matters; one that changes nothing at all gives no new revision."""
    return f"openstack {_word(drift)} set --description 'written anew' {quoted(drift.uuid)}"


def _word(drift: Drift) -> str:
    return _WORDS.get(drift.resource, str(drift.resource))
