"""Nova counts a VF as taken, but no port names it and no guest has it: incident 3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.checks.base import Severity, check
from mecexporter.checks.vfs import Drift, Said, verdict
from mecexporter.checks.words import quoted, sql_quoted
from mecexporter.state.world import CELL, Role

if TYPE_CHECKING:
    from mecexporter.checks.base import Verdict
    from mecexporter.checks.vfs import Case
    from mecexporter.state.world import World


@check(
    severity=Severity.WARNING,
    title="Nova has a VF claimed for an instance, and no port names it and no guest is seen to hold it",
    roles=frozenset({Role.API}),
    sources=("neutron", CELL),
    alert_for="0s",
)
def vf_leaked(world: World) -> Verdict:
    """N--. Of a host whose NIC is not seen from here a guest may still hold it: the site's rules know."""
    return verdict(world, Drift.LEAKED, ("neutron", CELL, "sysfs"), _say)


def _say(case: Case) -> Said:
    claim = case.claims[0]
    unseen = "" if case.function is not None else "; whether a guest holds it is not seen from here"
    port = f" (for port {quoted(claim.port)}, which is gone)" if claim.port else ""
    return Said(
        summary=(
            f"{case.name} is {claim.status} by Nova to instance {quoted(str(claim.instance))}{port}, "
            f"no port names it{unseen}"
        ),
        remedy=f"{_look_first(case)}{free(case)}; never delete or re-create the host's VFs for it",
    )


def _look_first(case: Case) -> str:
    """A claim that is given up under a guest that still has the VF makes it free for a second one."""
    if case.function is not None:
        return ""
    return f"see first whether a guest on {quoted(case.host)} has it (mec_vf_holder_info of that host): then leave it; "


def free(case: Case) -> str:
    """How Nova's claim is given up: nova-compute keeps its devices in memory and would write them back."""
    claim = case.claims[0]
    return (
        f"when the instance can be deleted or live-migrated, that frees it; else, with nova-compute on "  # noqa: S608  # for a person
        f"{quoted(claim.host)} stopped, in its cell's database: UPDATE pci_devices SET status='available', "
        f"instance_uuid=NULL, request_id=NULL WHERE deleted=0 AND address={sql_quoted(case.address)} AND "
        f"instance_uuid={sql_quoted(str(claim.instance))} AND compute_node_id IN (SELECT id FROM compute_nodes WHERE "
        f"deleted=0 AND host={sql_quoted(claim.host)}); then start nova-compute"
    )
