"""Neutron against Northbound: what is told of an audit, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mecexporter.checks.neutron_ovn_drift import neutron_ovn_drift
from mecexporter.state.neutron_ovn import Drift, NeutronAudit, Resource, State
from mecexporter.state.observed import Fresh
from tests.checks.verdicts import AWKWARD, all_said, findings, only_finding, reported
from tests.worlds import READ, audit, audited, healthy_central, without

if TYPE_CHECKING:
    from mecexporter.state.world import World

PORT, LSP, LRP = "5e9c0b5e-2222-4000-8000-000000000002", "Logical_Switch_Port", "Logical_Router_Port"


def drift(state: State, resource: Resource = Resource.PORT, **changes: Any) -> Drift:
    given: dict[str, Any] = {"ordered": 5, "held": 5, "rows": (LSP,), "age": 60.0} | changes
    return Drift(resource=resource, uuid=given.pop("uuid", PORT), state=state, **given)


def world(*drifts: Drift) -> World:
    return audited(healthy_central(), audit(*drifts))


def test_all_is_as_ordered() -> None:
    assert findings(neutron_ovn_drift, world()) == ()
    assert all_said(world()) == ({}, {})


def test_without_an_answer_it_cannot_tell() -> None:
    lost = without(world(drift(State.MISSING)), "neutron_ovn")
    assert all_said(lost) == ({}, {"neutron_ovn_drift": ["neutron_ovn"]})


def test_where_northbound_is_not_written_or_nobody_has_credentials_it_does_not_apply() -> None:
    assert not neutron_ovn_drift.applies(healthy_central())
    assert neutron_ovn_drift.applies(world())


@pytest.mark.parametrize(
    ("of", "summary", "remedy"),
    [
        (
            drift(State.MISSING, Resource.ROUTER_PORT, rows=(LSP, LRP)),
            f"port {PORT} is in Neutron, and Northbound has no {LSP} and {LRP} of it",
            "neutron-ovn-db-sync-util --ovn-neutron_sync_mode repair",
        ),
        (
            drift(State.EXTRA, Resource.SECURITY_GROUP, rows=("Port_Group",)),
            f"security group {PORT} is not in Neutron, and Northbound has a Port_Group of it",
            "neutron-ovn-db-sync-util --ovn-neutron_sync_mode repair",
        ),
        (
            drift(State.AHEAD, held=9),
            f"port {PORT} is of revision 5 in Neutron, its {LSP} in Northbound of 9: Neutron refuses",
            f"ovn-nbctl set {LSP} {PORT} external_ids:'\"neutron:revision_number\"'=0; have Neutron write it anew",
        ),
        (
            drift(State.AHEAD, Resource.NETWORK, held=9, rows=("Logical_Switch",)),
            f"network {PORT} is of revision 5 in Neutron, its Logical_Switch in Northbound of 9: Neutron refuses",
            f"ovn-nbctl set Logical_Switch neutron-{PORT} ",
        ),
        (
            drift(State.BEHIND, held=1, age=720),
            f"port {PORT} is of revision 5 in Neutron, its {LSP} in Northbound still of 1",
            f'openstack port set --name "$(openstack port show -f value -c name {PORT})" {PORT}',
        ),
        (
            drift(State.BEHIND, Resource.ROUTER_PORT, held=1, age=720, rows=(LRP,)),
            f"port {PORT} is of revision 5 in Neutron, its {LRP} in Northbound still of 1",
            f"ovn-nbctl lrp-del lrp-{PORT}, and at once neutron-ovn-db-sync-util",
        ),
        (
            drift(State.AHEAD, Resource.FLOATING_IP, held=9, rows=("NAT",)),
            f"floating ip {PORT} is of revision 5 in Neutron, its NAT in Northbound of 9",
            f"""--columns=_uuid find NAT 'external_ids:"neutron:fip_id"={PORT}')" external_ids:""",
        ),
        (
            drift(State.EXTRA, Resource.FLOATING_IP, rows=("NAT",)),
            f"floating ip {PORT} is not in Neutron, or is not attached, and Northbound has a NAT of it",
            "neutron-ovn-db-sync-util --ovn-neutron_sync_mode repair",
        ),
        (
            drift(State.BEHIND, Resource.FLOATING_IP, held=1, age=720, rows=("NAT",)),
            f"floating ip {PORT} is of revision 5 in Neutron, its NAT in Northbound still of 1",
            f'openstack floating ip set --description "$(openstack floating ip show -f value -c description {PORT})"',
        ),
        (
            drift(State.CHANGED, what="addresses"),
            f"port {PORT}: its {LSP} in Northbound is of the same revision as in Neutron, but not its addresses",
            f"{PORT})\" {PORT}",
        ),
        (
            drift(State.CHANGED, what="admin state, security groups"),
            f"port {PORT}: its {LSP} in Northbound is of the same revision as in Neutron, but not its admin state, ",
            f"openstack port unset --security-group GROUP {PORT}",
        ),
    ],
)  # fmt: skip
def test_how_they_differ_and_what_mends_it(of: Drift, summary: str, remedy: str) -> None:
    finding = only_finding(neutron_ovn_drift, world(of))
    assert finding.subject == f"{of.resource}/{PORT}"
    assert finding.summary.startswith(summary)
    assert remedy in finding.remedy
    assert finding.since == READ - of.age


def test_behind_is_normal_until_neutrons_maintenance_has_run() -> None:
    assert findings(neutron_ovn_drift, world(drift(State.BEHIND, held=1, age=719))) == ()
    assert len(findings(neutron_ovn_drift, world(drift(State.BEHIND, held=1, age=720)))) == 1


def test_one_look_is_none() -> None:
    seen = world(drift(State.MISSING, age=0))
    assert reported(neutron_ovn_drift, seen, reads=1) == ()
    assert len(reported(neutron_ovn_drift, seen, reads=2)) == 1


@pytest.mark.parametrize("name", AWKWARD)
def test_ids_are_quoted(name: str) -> None:
    finding = only_finding(neutron_ovn_drift, world(drift(State.AHEAD, held=9, uuid=name)))
    assert finding.subject == f"port/{name}"
    assert "$(id)" not in finding.remedy.replace("'$(id)'", "")


def test_an_audit_is_of_its_moment() -> None:
    old = world(drift(State.EXTRA)).with_part("neutron_ovn", Fresh(NeutronAudit(ordered={}, drifts=()), READ))
    assert findings(neutron_ovn_drift, old) == ()
