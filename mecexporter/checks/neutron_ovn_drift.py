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

_WORDS = {
    Resource.ROUTER_PORT: "port",
    Resource.SECURITY_GROUP: "security group",
    Resource.FLOATING_IP: "floating ip",
}
"""What the command line's client calls a resource, where not as we do."""
_MAY_NEED_NONE = {Resource.FLOATING_IP: "is not attached", Resource.SUBNET: "has no DHCP"}
_NAMES = {"Logical_Switch": "neutron-", "Logical_Router": "neutron-", "Logical_Router_Port": "lrp-"}
"""What goes before the UUID in a row's name."""
_KEYS = {"DHCP_Options": "subnet_id", "NAT": '"neutron:fip_id"'}
_BEGIN = "external_ids:'\"neutron:revision_number\"'=0"
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
            subject=subject(drift),
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


def subject(drift: Drift) -> str:
    """Of its finding (contract)."""
    return f"{drift.resource}/{drift.uuid}"


def _summary(drift: Drift) -> str:
    what = f"{_word(drift)} {quoted(drift.uuid)}"
    rows = " and ".join(drift.rows)
    match drift.state:
        case State.MISSING:
            return f"{what} is in Neutron, and Northbound has no {rows} of it"
        case State.EXTRA:
            gone = "is not in Neutron"
            if drift.resource in _MAY_NEED_NONE:
                gone = f"{gone}, or {_MAY_NEED_NONE[drift.resource]}"
            return f"{what} {gone}, and Northbound has a {rows} of it"
        case State.CHANGED:
            return f"{what}: its {rows} in Northbound is of the same revision as in Neutron, but not its {drift.what}"
        case State.AHEAD:
            refuses = "some releases of Neutron refuse" if drift.resource in _MAY_NEED_NONE else "Neutron refuses"
            return (
                f"{what} is of revision {drift.ordered} in Neutron, its {rows} in Northbound of {drift.held}: "
                f"{refuses} to write what seems newer, so that no update of it arrives any more"
            )
    return f"{what} is of revision {drift.ordered} in Neutron, its {rows} in Northbound still of {drift.held}"


def _remedy(drift: Drift) -> str:
    if drift.state in (State.MISSING, State.EXTRA):
        return _REPAIR
    steps = [f"have Neutron write it anew, as it is: {_touch(drift)}"]
    if drift.state is State.AHEAD:
        steps[:0] = [f"on this host: ovn-nbctl set {table} {_row(drift, table)} {_BEGIN}" for table in drift.rows]
    if "Logical_Router_Port" in drift.rows:
        row = quoted(f"lrp-{drift.uuid}")
        steps.append(f"if its Logical_Router_Port stays as it is: ovn-nbctl lrp-del {row}, and at once {_REPAIR}")
    if "security groups" in drift.what:
        steps.append(f"for its groups, take it out of each and put it back: {_regroup(drift)}")
    if drift.state is State.BEHIND:
        steps.append(
            "where many are behind, see whether Neutron's maintenance task runs (neutron-ovn-maintenance-worker, or "
            "in neutron-server itself in older releases)"
        )
    return "; ".join(steps)


def _row(drift: Drift, table: str) -> str:
    """How ovn-nbctl finds a row: by its name, or by an id that it bears."""
    if table in _KEYS:
        found = quoted(f"external_ids:{_KEYS[table]}={drift.uuid}")
        return f'"$(ovn-nbctl --bare --columns=_uuid find {table} {found})"'
    return quoted(_NAMES.get(table, "") + drift.uuid)


def _touch(drift: Drift) -> str:
    """Neutron writes the whole row at an update that changes nothing too."""
    kind, uuid = _word(drift), quoted(drift.uuid)
    what = "description" if drift.resource is Resource.FLOATING_IP else "name"
    return f'openstack {kind} set --{what} "$(openstack {kind} show -f value -c {what} {uuid})" {uuid}'


def _regroup(drift: Drift) -> str:
    uuid = quoted(drift.uuid)
    return (
        f"openstack port show -c security_group_ids {uuid}; openstack port unset --security-group GROUP {uuid}; "
        f"openstack port set --security-group GROUP {uuid}"
    )


def _word(drift: Drift) -> str:
    return _WORDS.get(drift.resource, str(drift.resource))
