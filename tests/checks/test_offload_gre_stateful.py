"""Incident 4's cause: GRE behind a stateful security group."""

from dataclasses import replace

import pytest

from mecexporter.checks.base import Unknown
from mecexporter.checks.offload_gre_stateful import offload_gre_stateful
from mecexporter.state.datapath import Conntrack, Counted, FlowClass, FlowTable, Gre, Layer, Path, Protocol
from mecexporter.state.observed import Fresh
from mecexporter.state.openstack import SecurityGroup
from mecexporter.state.world import World
from tests.checks.verdicts import AWKWARD, findings, only_finding, reported
from tests.worlds import ALICE, BOB, HOSTNAME, READ, VFS, healthy_sriov, port, without

GRE_CT = FlowClass(path=Path.HARDWARE, protocol=Protocol.GRE, conntrack=True, layer=Layer.TC)


def world(*groups: SecurityGroup, host: str = HOSTNAME) -> World:
    """Alice's port is in a group that names no GRE and in ``gre``, Bob's in ``open``."""
    ports = (
        port("port-a", 0, ALICE, host=host, project="5g", groups=("default", "gre")),
        port("port-b", 1, BOB, host=host, project="5g", groups=("open",)),
    )
    base = healthy_sriov().with_part("neutron", Fresh(ports, READ))
    return base.with_part("security_groups", Fresh(groups, READ))


def gre(uuid: str = "gre", *, name: str = "gtp", stateful: bool | None = True) -> SecurityGroup:
    return SecurityGroup(uuid=uuid, name=name, project="5g", stateful=stateful)


def test_healthy() -> None:
    assert findings(offload_gre_stateful, healthy_sriov()) == ()
    assert findings(offload_gre_stateful, world()) == ()
    assert findings(offload_gre_stateful, world(gre(stateful=False), gre("open", stateful=False))) == ()


def test_incident_4() -> None:
    finding = only_finding(offload_gre_stateful, world(gre()))
    assert finding.subject == "port/port-a"
    assert finding.summary == (
        f"port port-a (VF {VFS[0]} of {HOSTNAME}, instance {ALICE}) is in security group gtp (gre), which allows GRE "
        "by name and is stateful, so that connection tracking runs on its GRE: kernels before about Linux 5.18 do not "
        "offload that"
    )
    assert (finding.hold, finding.reads, finding.read_at) == (0.0, 1, (READ, READ))
    (found,) = reported(offload_gre_stateful, world(gre()))
    assert found.severity == "warning"


def test_the_remedy_replaces_all_groups_at_once() -> None:
    remedy = only_finding(offload_gre_stateful, world(gre())).remedy
    steps = (
        "openstack security group create --project 5g --stateless gtp-stateless; ",
        "openstack security group rule create --project 5g --protocol 47 --ingress --remote-ip PEER gtp-stateless; ",
        "(for each of default gre: openstack security group rule list GROUP) and, as it remembers no connection, a ",
        "openstack port set --no-security-group --security-group gtp-stateless port-a; ",
        "never switch port security off in its place",
    )
    assert [remedy.index(step) for step in steps] == sorted(remedy.index(step) for step in steps)


def test_a_neutron_without_stateless_groups_needs_another_remedy() -> None:
    remedy = only_finding(offload_gre_stateful, world(gre(stateful=None))).remedy
    assert remedy.startswith("this Neutron has no stateless groups (ML2/OVN has them from Yoga on")
    assert "--stateless" not in remedy


@pytest.mark.parametrize("groups", [(), ("default",)], ids=["port security off", "default group only"])
def test_ports_that_name_no_gre(groups: tuple[str, ...]) -> None:
    alone = (port("port-a", 0, ALICE, groups=groups),)
    assert findings(offload_gre_stateful, world(gre()).with_part("neutron", Fresh(alone, READ))) == ()


def test_a_port_that_no_nic_is_to_carry() -> None:
    legacy = (port("port-a", 0, ALICE, groups=("gre",), switched=False),)
    assert findings(offload_gre_stateful, world(gre()).with_part("neutron", Fresh(legacy, READ))) == ()


def carrying(packets: int, **changes: Path | Protocol | bool) -> FlowTable:
    return FlowTable(totals={replace(GRE_CT, **changes): Counted(packets, 64 * packets)})  # type: ignore[arg-type]  # fields of it


@pytest.mark.parametrize("source", ["tc", "ovs_flows"])
def test_hardware_that_was_seen_to_carry_it(source: str) -> None:
    """A newer kernel, or one to which the vendor gave it: its version does not tell."""
    assert findings(offload_gre_stateful, world(gre()).with_part(source, Fresh(carrying(1), READ))) == ()


@pytest.mark.parametrize(
    "table",
    [carrying(0), carrying(9, path=Path.SOFTWARE), carrying(9, protocol=Protocol.TCP), carrying(9, conntrack=False)],
    ids=["nothing yet", "software", "another protocol", "without conntrack"],
)
def test_flows_that_prove_nothing(table: FlowTable) -> None:
    only_finding(offload_gre_stateful, world(gre()).with_part("tc", Fresh(table, READ)))


@pytest.mark.parametrize(("entries", "proves"), [({Path.HARDWARE: 2}, True), ({Path.SOFTWARE: 2}, False)])
def test_entries_of_conntrack_prove_it_too(entries: dict[Path, int], *, proves: bool) -> None:
    """Where the flows' masks hide the protocol."""
    table = Conntrack(entries=2, limit=None, gre=Gre(entries=entries, software=None))
    found = findings(offload_gre_stateful, world(gre()).with_part("conntrack", Fresh(table, READ)))
    assert (found == ()) is proves


def test_what_this_host_carries_says_nothing_of_another() -> None:
    elsewhere = world(gre(), host="compute-2").with_part("tc", Fresh(carrying(1), READ))
    finding = only_finding(offload_gre_stateful, elsewhere)
    assert f"(VF {VFS[0]} of compute-2, " in finding.summary
    assert finding.summary.endswith("; whether that host's does is not seen from here")


@pytest.mark.parametrize("source", ["neutron", "security_groups"])
def test_without_a_source_it_cannot_tell(source: str) -> None:
    assert offload_gre_stateful.ask(without(world(gre()), source)) == Unknown((source,))


def test_where_it_applies() -> None:
    for sources, applies in (({"neutron", "security_groups"}, True), ({"neutron"}, False)):
        assert offload_gre_stateful.applies(replace(world(), applicable=frozenset(sources))) is applies


@pytest.mark.parametrize("name", AWKWARD)
def test_names_with_anything_in_them(name: str) -> None:
    finding = only_finding(offload_gre_stateful, world(gre(name=name)))
    assert finding.subject == "port/port-a"
    assert "--security-group gtp-stateless" not in finding.remedy


def test_a_group_without_a_name() -> None:
    finding = only_finding(offload_gre_stateful, world(gre(name="")))
    assert "is in security group gre, which" in finding.summary
    assert "--stateless gre-stateless; " in finding.remedy
