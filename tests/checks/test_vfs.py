"""The reconciliation of the VFs' ledgers: the contract's table, what is never reported, and an oracle of its own."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mecexporter.checks.base import Unknown
from mecexporter.checks.ledger import Ledger
from mecexporter.checks.vf_leaked import vf_leaked
from mecexporter.checks.vfs import Drift, Ledgers, Unjudged, cases, drifts, hosts_of_ports, judge, ledgers_of, unjudged
from mecexporter.errors import Reason
from mecexporter.state.observed import Fresh
from mecexporter.state.openstack import DeviceKind
from mecexporter.state.sriov import Held
from mecexporter.state.world import CELL
from mecexporter.web.sources import sources_document
from tests.worlds import (
    ALICE,
    BOB,
    CELL1,
    HOSTNAME,
    NOW,
    PF,
    VFS,
    cell,
    changed,
    device,
    healthy_sriov,
    held_vf,
    instance,
    leaked_vf,
    nic,
    port,
    vf,
    view_of,
    without,
)

if TYPE_CHECKING:
    from mecexporter.state.openstack import Cell, PciDevice, Port
    from mecexporter.state.sriov import Nic, Vf
    from mecexporter.state.world import World


def verdicts(world: World) -> dict[str, Drift]:
    return {case.subject: kind for kind, found in drifts(world).items() for case in found}


def one_vf(*, claim: str | None = None, named: str | None = None, held: Held | None = Held.NO, **changes: Any) -> World:
    """A World of one VF: claimed by, named by a port of, held or not; ``changes`` are fields of the Cell."""
    the_vf = vf(0) if held in (Held.NO, None) else held_vf(0, claim or named or "", held=held)
    world = healthy_sriov()
    world = world.with_part("sysfs", Fresh(nic(the_vf), NOW - 2))
    world = world.with_part("neutron", Fresh((port("port-1", 0, named),) if named else (), NOW - 2))
    world = world.with_part(CELL1, Fresh(cell(device(0, claim), **changes), NOW - 2))
    if held is None:
        world = replace(world, applicable=world.applicable - {"sysfs"})
    return world


SUBJECT = f"{HOSTNAME}/{VFS[0]}"


@pytest.mark.parametrize(
    ("claim", "named", "held", "expected"),
    [
        pytest.param(None, None, Held.NO, None, id="---"),
        pytest.param(ALICE, None, Held.NO, Drift.LEAKED, id="N--"),
        pytest.param(ALICE, ALICE, Held.NO, Drift.ORPHAN_PORT, id="NP-"),
        pytest.param(ALICE, ALICE, Held.YES, None, id="NPG"),
        pytest.param(ALICE, ALICE, Held.BOUND, None, id="NPg"),
        pytest.param(ALICE, None, Held.YES, Drift.PORTLESS, id="N-G"),
        pytest.param(ALICE, None, Held.BOUND, Drift.PORTLESS, id="N-g"),
        pytest.param(None, ALICE, Held.YES, Drift.UNRECORDED, id="-PG"),
        pytest.param(None, None, Held.YES, Drift.UNRECORDED, id="--G"),
        pytest.param(None, None, Held.BOUND, Drift.UNRECORDED, id="--g"),
        pytest.param(None, ALICE, Held.NO, Drift.ORPHAN_PORT, id="-P-"),
        pytest.param(ALICE, BOB, Held.YES, Drift.DOUBLE_BOOKED, id="claim and port of two instances"),
        pytest.param(ALICE, ALICE, Held.UNSEEN, None, id="handed on as a macvtap"),
        pytest.param(ALICE, None, Held.UNSEEN, Drift.LEAKED, id="a macvtap without a port"),
        pytest.param(None, None, Held.UNSEEN, None, id="a macvtap of nobody's"),
        pytest.param(ALICE, None, None, Drift.LEAKED, id="N-? of another host"),
        pytest.param(ALICE, ALICE, None, None, id="NP? of another host"),
        pytest.param(None, ALICE, None, Drift.ORPHAN_PORT, id="-P? of another host"),
    ],
)
def test_table(claim: str | None, named: str | None, held: Held | None, expected: Drift | None) -> None:
    assert verdicts(one_vf(claim=claim, named=named, held=held)).get(SUBJECT) == expected


def test_all_agree() -> None:
    assert verdicts(healthy_sriov()) == {}


def test_incident_3() -> None:
    assert verdicts(leaked_vf()) == {f"{HOSTNAME}/{VFS[1]}": Drift.LEAKED}


TROUBLES = [
    pytest.param({"claim": ALICE}, id="leaked"),
    pytest.param({"claim": ALICE, "held": Held.YES}, id="portless"),
    pytest.param({"named": ALICE, "held": Held.YES}, id="unrecorded"),
    pytest.param({"named": ALICE}, id="orphan port"),
    pytest.param({"claim": ALICE, "named": ALICE}, id="no guest"),
    pytest.param({"claim": ALICE, "named": BOB}, id="double booked"),
]
NORMAL = [
    pytest.param({"task_state": "deleting"}, id="a task runs"),
    pytest.param({"task_state": "image_uploading"}, id="an image is made or fetched"),
    pytest.param({"task_state": "rebuilding"}, id="rebuild"),
    pytest.param({"task_state": "migrating", "moving": True}, id="live migration"),
    pytest.param({"vm_state": "resized", "moving": True}, id="a resize awaits confirmation"),
    pytest.param({"context": frozenset({VFS[0]})}, id="a migration's context names it"),
]


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("normal", NORMAL)
def test_nothing_is_said_of_an_instance_that_is_changed_right_now(trouble: Any, normal: Any) -> None:
    assert verdicts(one_vf(**trouble, instances={ALICE: instance(**normal), BOB: instance()})) == {}


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("up", [{HOSTNAME: False}, {HOSTNAME: None}, {}, {"another": True}])
def test_nothing_is_said_of_a_host_whose_nova_compute_is_down(trouble: Any, up: dict[str, bool]) -> None:
    assert verdicts(one_vf(**trouble, up=up)) == {}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_an_instance_at_rest_changes_nothing(trouble: Any) -> None:
    assert verdicts(one_vf(**trouble))


@pytest.mark.parametrize("state", ["stopped", "suspended", "paused", "rescued", "shelved", "soft-delete", "error"])
def test_an_instance_that_does_not_run_has_no_guest(state: str) -> None:
    assert verdicts(one_vf(claim=ALICE, named=ALICE, instances={ALICE: instance(vm_state=state)})) == {}


def test_one_that_is_shelved_and_offloaded_keeps_its_port_and_no_claim() -> None:
    nowhere = instance(host=None, vm_state="shelved_offloaded")
    assert verdicts(one_vf(named=ALICE, instances={ALICE: nowhere})) == {}


@pytest.mark.parametrize("port_of_bob", [True, False])
def test_its_vf_is_anothers_meanwhile(port_of_bob: bool) -> None:
    both = {ALICE: instance(host=None, vm_state="shelved_offloaded"), BOB: instance()}
    world = one_vf(claim=BOB, named=ALICE, held=Held.YES, instances=both)
    ports = (port("left", 0, ALICE), *((port("own", 0, BOB),) if port_of_bob else ()))
    found = verdicts(world.with_part("neutron", Fresh(ports, NOW)))
    assert found == ({} if port_of_bob else {SUBJECT: Drift.PORTLESS})


@pytest.mark.parametrize("held", [Held.NO, Held.YES])
def test_a_device_of_cyborgs_has_a_port_and_no_claim(held: Held) -> None:
    of_cyborg = port("p", 0, ALICE, vnic="accelerator-direct")
    assert verdicts(one_vf(named=ALICE, held=held).with_part("neutron", Fresh((of_cyborg,), NOW))) == {}


def test_one_that_is_being_built_has_a_port_before_a_claim() -> None:
    assert verdicts(one_vf(named=ALICE, instances={ALICE: instance(vm_state="building")})) == {}


def test_a_port_of_an_instance_that_is_gone() -> None:
    assert verdicts(one_vf(named=ALICE, instances={})) == {SUBJECT: Drift.ORPHAN_PORT}


def test_a_device_of_a_flavour_is_not_neutrons() -> None:
    for held in (Held.NO, Held.YES):
        world = one_vf(claim=ALICE, held=held)
        assert verdicts(changed(world, CELL1, devices=(device(0, ALICE, flavour=True),))) == {}


@pytest.mark.parametrize("vnic", ["macvtap", "vdpa", "virtio-forwarder"])
def test_a_port_whose_guest_has_no_vfio_group(vnic: str) -> None:
    world = one_vf(claim=ALICE, named=ALICE)
    assert verdicts(world.with_part("neutron", Fresh((port("p", 0, ALICE, vnic=vnic),), NOW))) == {}


def test_two_ports_of_one_vf() -> None:
    world = one_vf(claim=ALICE, named=ALICE, held=Held.YES)
    both = (port("p1", 0, ALICE), port("p2", 0, ALICE))
    assert verdicts(world.with_part("neutron", Fresh(both, NOW))) == {SUBJECT: Drift.DOUBLE_BOOKED}
    without_nova = replace(world.with_part("neutron", Fresh(both, NOW)), applicable=frozenset({"neutron"}))
    assert verdicts(without_nova) == {SUBJECT: Drift.DOUBLE_BOOKED}, "Neutron alone tells it"


def test_two_cells_give_one_vf_away() -> None:
    world = one_vf(claim=ALICE)
    second = f"{CELL}cell2"
    world = replace(world, applicable=world.applicable | {second})
    world = world.with_part(second, Fresh(cell(device(0, BOB)), NOW))
    assert verdicts(world) == {SUBJECT: Drift.DOUBLE_BOOKED}


def test_a_dead_service_row_in_another_cell_does_not_silence_a_host() -> None:
    second = f"{CELL}cell2"
    world = leaked_vf()
    world = replace(world, applicable=world.applicable | {second})
    world = world.with_part(second, Fresh(cell(up={HOSTNAME: False}), NOW))
    assert verdicts(world) == {f"{HOSTNAME}/{VFS[1]}": Drift.LEAKED}


def test_one_row_left_by_a_compute_node_that_was_made_anew_is_no_second_instance() -> None:
    world = one_vf(claim=ALICE, named=ALICE, held=Held.YES)
    assert verdicts(changed(world, CELL1, devices=(device(0, ALICE), device(0, ALICE)))) == {}


@pytest.mark.parametrize(
    ("status", "found"),
    [("available", True), ("claimed", True), ("unavailable", True), ("removed", False), ("deleted", False)],
)
def test_nova_knows_a_vf_that_the_host_has_not(status: str, found: bool) -> None:
    owner = ALICE if status == "claimed" else None
    world = changed(healthy_sriov(), CELL1, devices=(device(0, owner, address="0000:3b:01.7", status=status),))
    said = verdicts(replace(world, applicable=world.applicable - {"neutron"}))
    assert said.get(f"{HOSTNAME}/0000:3b:01.7") == (Drift.INVENTORY if found else None)


def test_vfs_of_other_hosts_are_not_looked_for_here() -> None:
    away = device(0, address="0000:3b:01.7", host="compute-2")
    world = changed(one_vf(), CELL1, devices=(away,), up={HOSTNAME: True, "compute-2": True})
    assert verdicts(world) == {}


def test_a_pf_that_a_guest_has_as_a_whole_hides_its_vfs() -> None:
    whole = device(0, ALICE, address=PF, parent=None, kind=DeviceKind.PF)
    hidden = tuple(device(n, status="unavailable") for n in range(4))
    world = changed(one_vf(), CELL1, devices=(whole, *hidden))
    taken = nic(driver="vfio-pci", held=Held.YES, holder=ALICE, devices=())
    world = world.with_part("sysfs", Fresh(taken, NOW))
    direct = port("p", 0, ALICE, address=PF, vnic="direct-physical")
    assert verdicts(world.with_part("neutron", Fresh((direct,), NOW))) == {}
    assert verdicts(world) == {f"{HOSTNAME}/{PF}": Drift.PORTLESS}


def test_a_device_spec_that_takes_only_some_vfs() -> None:
    world = changed(one_vf(), CELL1, devices=(device(2),))
    assert verdicts(world.with_part("sysfs", Fresh(nic(*(vf(n) for n in range(4))), NOW))) == {}


def test_hosts_are_the_same_in_any_case() -> None:
    world = one_vf(claim=ALICE, named=ALICE, held=Held.YES)
    world = changed(world, CELL1, devices=(device(0, ALICE, host="Compute-1"),), up={"COMPUTE-1": True})
    assert verdicts(world) == {}
    assert verdicts(world.with_part("neutron", Fresh((), NOW))) == {SUBJECT: Drift.PORTLESS}


@pytest.mark.parametrize(
    ("novas", "neutrons"), [("compute-2", "compute-2.example.org"), ("Compute-2.example.org", "COMPUTE-2")]
)
def test_a_host_is_the_same_with_its_domain_and_without(novas: str, neutrons: str) -> None:
    """Where one of the two was renamed; otherwise each VF would be leaked, and an orphan beside it."""
    world = changed(one_vf(), CELL1, devices=(device(0, ALICE, host=novas),), up={HOSTNAME: True, novas: True})
    world = changed(world, CELL1, instances={ALICE: instance(host=novas)})
    named = world.with_part("neutron", Fresh((port("p", 0, ALICE, host=neutrons),), NOW))
    assert verdicts(named) == {}
    assert unjudged(ledgers_of(named)) == {}
    assert verdicts(world) == {f"{novas}/{VFS[0]}": Drift.LEAKED}


def test_hosts_of_two_domains_are_two() -> None:
    up = {"a.example.org": True, "b": True}
    told = ledgers((cell(up=up),), tuple(port("p", 0, ALICE, host=h) for h in ("a.example.net", "B", "bb", "a")), nic())
    assert hosts_of_ports(told) == {"a.example.net": "a.example.net", "B": "b", "bb": "bb", "a": "a.example.org"}
    both = replace(told, cells=(cell(up={**up, "a.example.com": True}),))
    assert hosts_of_ports(both)["a"] == "a", "it may be either"


def test_another_host_is_called_as_nova_calls_it() -> None:
    away = device(0, ALICE, host="Compute-2")
    elsewhere = {ALICE: instance(host="Compute-2")}
    world = changed(one_vf(), CELL1, devices=(away,), up={"Compute-2": True}, instances=elsewhere)
    ((case,),) = drifts(world).values()
    assert (case.subject, case.pf, case.function) == (f"Compute-2/{VFS[0]}", PF, None)


def test_the_same_answers_are_judged_once() -> None:
    world = leaked_vf()
    assert drifts(world) is drifts(replace(world, now=world.now + 5))
    assert drifts(world) is not drifts(healthy_sriov())


# The second read.


def read_at(world: World, **ats: float) -> World:
    """The same answers, read at other times."""
    for source, at in ats.items():
        name = CELL1 if source == "nova" else source
        part: Any = world.part(name)
        world = world.with_part(name, Fresh(part.value, at))
    return world


def test_a_leak_is_reported_once_every_ledger_was_read_twice_grace_apart() -> None:
    ledger = Ledger()

    def report(now: float, **ats: float) -> tuple[bool, bool]:
        found = ledger.advance((vf_leaked,), replace(read_at(leaked_vf(), **ats), now=NOW + now))
        return bool(found.findings["vf_leaked"]), bool(found.again)

    assert report(0, neutron=NOW, nova=NOW, sysfs=NOW) == (False, False)
    assert report(15, neutron=NOW, nova=NOW, sysfs=NOW + 15) == (False, False)
    assert report(60, neutron=NOW, nova=NOW, sysfs=NOW + 60) == (False, True), "only a read is lacking: out of turn"
    assert report(61, neutron=NOW + 61, nova=NOW, sysfs=NOW + 60) == (False, True), "Nova may have changed since"
    assert report(62, neutron=NOW + 61, nova=NOW + 62, sysfs=NOW + 60) == (True, False)


def test_a_second_read_that_comes_early_proves_nothing_before_grace() -> None:
    ledger = Ledger()
    for now, expected in ((0, False), (10, False), (59, False), (60, True)):
        world = read_at(leaked_vf(), neutron=NOW + now, nova=NOW + now, sysfs=NOW + now)
        found = ledger.advance((vf_leaked,), replace(world, now=NOW + now))
        assert bool(found.findings["vf_leaked"]) is expected, now


@pytest.mark.parametrize("source", ["neutron", CELL1, "sysfs"])
def test_without_a_configured_ledger_it_cannot_tell(source: str) -> None:
    assert vf_leaked.ask(without(leaked_vf(), source, reason=Reason.TIMEOUT)) == Unknown((source,))


def test_without_the_nic_where_that_is_not_configured_it_can() -> None:
    world = leaked_vf()
    assert vf_leaked.ask(replace(world, applicable=world.applicable - {"sysfs"})) != ()


def test_a_cell_that_does_not_know_this_host_cannot_tell() -> None:
    """By a name that is not Nova's it would seem to have no devices."""
    world = changed(leaked_vf(), CELL1, asked_for=HOSTNAME, up={"compute-1.example.org": True}, devices=())
    assert vf_leaked.ask(world) == Unknown((CELL1,))
    second = f"{CELL}cell2"
    both = replace(world, applicable=world.applicable | {second}).with_part(second, leaked_vf().part(CELL1))
    assert vf_leaked.ask(both) != Unknown((CELL1,)), "another cell has it"
    words = next(s for s in sources_document(view_of(world))["sources"] if s["source"] == CELL1)["why"]
    assert words == f"it has no nova-compute of host {HOSTNAME}: host.hostname must be Nova's name of this host"


@pytest.mark.parametrize("asked_for", [HOSTNAME, None])
def test_where_no_nova_compute_reports_it_cannot_tell(asked_for: str | None) -> None:
    """Under another servicegroup_driver every host would seem to be down, and no leak would ever be found."""
    world = changed(leaked_vf(), CELL1, asked_for=asked_for, up={HOSTNAME: None, "compute-2": None})
    assert vf_leaked.ask(world) == Unknown((CELL1,))
    words = next(s for s in sources_document(view_of(world))["sources"] if s["source"] == CELL1)["why"]
    who = f"nova-compute of host {HOSTNAME} never reported, or none" if asked_for else "no nova-compute"
    assert words == (
        f"{who} reports into this database now, so whether it is up can't be told: see Nova's servicegroup_driver "
        "(only db reports here) and nova-conductor"
    )


@pytest.mark.parametrize("up", [{HOSTNAME: False}, {HOSTNAME: None, "compute-2": True}, {"compute-2": True}])
def test_of_other_hosts_it_can(up: dict[str, bool | None]) -> None:
    assert vf_leaked.ask(changed(leaked_vf(), CELL1, up=up)) == ()


def test_a_cell_without_hosts_tells_that_there_are_none() -> None:
    named = changed(leaked_vf(), CELL1, up={}, devices=())
    assert vf_leaked.ask(named) == Unknown((CELL1,)), "ports are on hosts"
    assert vf_leaked.ask(named.with_part("neutron", Fresh((), NOW))) == ()
    words = next(s for s in sources_document(view_of(named))["sources"] if s["source"] == CELL1)["why"]
    assert words == "it has no nova-compute at all: is it nova_cell0, or has this cell no hosts yet?"
    second = f"{CELL}cell2"
    both = changed(leaked_vf(), CELL1, up={HOSTNAME: None})
    both = replace(both, applicable=both.applicable | {second}).with_part(second, Fresh(cell(up={}), NOW))
    assert vf_leaked.ask(both) == Unknown((CELL1, second)), "and nothing of another cell's"


def test_which_hosts_are_left_out_and_why() -> None:
    devices = [device(0, ALICE, host=h) for h in ("Down", "mute", "gone", HOSTNAME)]
    told = ledgers(
        (
            cell(*devices, up={"down": False, "MUTE": None, HOSTNAME: True}),
            cell(device(0, host="retired", status="removed"), up={"down": None, "mute": None, "idle": False}),
        ),
        (port("p", 0, BOB, host="named-otherwise"),),
        nic(),
    )
    assert unjudged(told) == {
        "down": Unjudged.DOWN,
        "mute": Unjudged.NOT_REPORTING,
        "gone": Unjudged.NO_SERVICE,
        "named-otherwise": Unjudged.NO_SERVICE,
    }
    assert unjudged(replace(told, cells=None)) == {}
    mute = ledgers((cell(up={HOSTNAME: None}),), (), nic(held_vf(0, ALICE)))
    assert unjudged(mute) == {HOSTNAME: Unjudged.NOT_REPORTING}, "its NIC has VFs"


# An oracle of its own: the contract's sentences, one after another, over one VF's records.


def oracle(rows: list[PciDevice], ports: list[Port], the_vf: Vf, the_cell: Cell) -> str | None:
    claims = [r for r in rows if r.status in ("claimed", "allocated") and r.instance]
    if not the_cell.up.get(HOSTNAME, False):
        return None
    for r in claims:
        if r.flavour:
            return None
    people = {r.instance for r in rows} | {p.instance for p in ports} | {the_vf.holder}
    for person in people:
        i = the_cell.instances.get(person or "")
        if i is not None and (i.task_state is not None or i.moving or VFS[0] in i.context):
            return None
    # An instance that is nowhere, or not yet anywhere, and has no claim here: its port tells of the past.
    gone = {u for u, i in the_cell.instances.items() if i.host is None or i.vm_state == "building"}
    ports = [p for p in ports if p.instance not in gone or p.instance in {r.instance for r in claims}]
    n, p, g = len(claims) > 0, len(ports) > 0, the_vf.held in (Held.YES, Held.BOUND)
    if len({r.instance for r in claims}) == 2 or len(ports) == 2:
        return "double_booked"
    if n and p and claims[0].instance != ports[0].instance:
        return "double_booked"
    table = {
        (False, False, False): None,
        (False, False, True): "unrecorded",
        (False, True, False): "orphan_port",
        (False, True, True): "unrecorded",
        (True, False, False): "leaked",
        (True, False, True): "portless",
        (True, True, False): "orphan_port",
        (True, True, True): None,
    }
    verdict = table[n, p, g]
    if verdict == "orphan_port":
        owner = the_cell.instances.get(ports[0].instance)
        if n:
            runs = owner is not None and owner.host == HOSTNAME and owner.vm_state == "active"
            if not runs or the_vf.held is Held.UNSEEN or ports[0].vnic == "macvtap":
                return None
    return verdict


PEOPLE = [ALICE, BOB]
instances = st.builds(
    instance,
    host=st.sampled_from([HOSTNAME, HOSTNAME, None, "compute-2"]),
    vm_state=st.sampled_from(["active", "active", "stopped", "building", "shelved_offloaded"]),
    task_state=st.sampled_from([None, None, None, "migrating"]),
    moving=st.sampled_from([False, False, False, True]),
    context=st.sampled_from([frozenset[str](), frozenset({VFS[0]}), frozenset({VFS[1]})]),
)
rows = st.lists(
    st.builds(
        lambda owner, status, flavour: device(0, owner, status=status, flavour=flavour),
        st.sampled_from([None, *PEOPLE]),
        st.sampled_from(["available", "claimed", "allocated", "allocated", "unavailable", "removed"]),
        st.sampled_from([False, False, False, True]),
    ),
    max_size=2,
)
named = st.lists(
    st.builds(
        lambda owner, vnic: (owner, vnic), st.sampled_from([*PEOPLE, "carol"]), st.sampled_from(["direct", "macvtap"])
    ),
    max_size=2,
)
vfs = st.builds(
    lambda held, holder: vf(0, held=held, holder=holder if held is Held.YES else ""),
    st.sampled_from([Held.NO, Held.NO, Held.YES, Held.YES, Held.BOUND, Held.UNSEEN]),
    st.sampled_from(["", *PEOPLE]),
)
people = st.dictionaries(st.sampled_from(PEOPLE), instances)
ups = st.sampled_from([{HOSTNAME: True}, {HOSTNAME: True}, {HOSTNAME: True}, {HOSTNAME: False}, {}])


def ledgers(the_cells: tuple[Cell, ...], ports: tuple[Port, ...], the_nic: Nic) -> Ledgers:
    return Ledgers(host=HOSTNAME, cells=the_cells, ports=ports, nic=the_nic)


@settings(max_examples=3000, deadline=None)
@given(rows, named, vfs, people, ups)
def test_an_oracle_agrees(
    of: list[PciDevice], named_by: list[tuple[str, str]], the_vf: Vf, who: dict[str, Any], up: dict[str, bool]
) -> None:
    the_cell = cell(*of, instances=who, up=up)
    ports = [port(f"p{n}", 0, owner, vnic=vnic) for n, (owner, vnic) in enumerate(named_by)]
    told = ledgers((the_cell,), tuple(ports), nic(the_vf))
    found = {case.address: judge(case, told) for case in cases(told)}
    expected = oracle(of, ports, the_vf, the_cell)
    assert found.get(VFS[0]) == expected
    assert not any(verdict for address, verdict in found.items() if address != VFS[0])
    # Neither the order of rows and ports nor how they are spread over cells matters.
    backwards = ledgers((replace(the_cell, devices=tuple(reversed(of))),), tuple(reversed(ports)), nic(the_vf))
    assert {case.address: judge(case, backwards) for case in cases(backwards)} == found
    halves = tuple(replace(the_cell, devices=(row,)) for row in of) or (the_cell,)
    spread = ledgers(halves, tuple(ports), nic(the_vf))
    assert {case.address: judge(case, spread) for case in cases(spread)} == found


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([None, *PEOPLE]), min_size=4, max_size=4), st.permutations(range(4)))
def test_ledgers_that_agree_never_drift(owners: list[str | None], order: list[int]) -> None:
    made: list[tuple[PciDevice, Port | None, Vf]] = []
    for n, owner in enumerate(owners):
        the_vf = held_vf(n, owner) if owner else vf(n)
        made.append((device(n, owner), port(f"p{n}", n, owner) if owner else None, the_vf))
    shuffled = [made[n] for n in order]
    told = ledgers(
        (cell(*(d for d, _, _ in shuffled)),),
        tuple(p for _, p, _ in shuffled if p is not None),
        nic(*(v for _, _, v in shuffled)),
    )
    assert [judge(case, told) for case in cases(told)] == [None] * sum(owner is not None for owner in owners)


def test_many_hosts() -> None:
    hosts = [f"compute-{n}" for n in range(2, 52)]
    rows_of = [device(0, ALICE, host=h, address=a) for h, a in itertools.product(hosts, VFS)]
    told = ledgers((cell(*rows_of, up=dict.fromkeys(hosts, True), instances={}),), (), nic())
    assert {judge(case, told) for case in cases(told)} == {Drift.LEAKED}
    assert sum(1 for _ in cases(told)) == len(rows_of)
