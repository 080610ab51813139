"""What a node remembers of itself, from one World to the next."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mecexporter.checks.identity import remember
from mecexporter.errors import Reason
from mecexporter.state.host import IdFile
from mecexporter.state.observed import Fresh
from mecexporter.state.ovn import Chassis
from mecexporter.state.ovs import Bridge
from mecexporter.state.world import Identity, Memory, Role
from tests.worlds import HOSTNAME, NOW, OVN_SETTINGS, SYSTEM_ID, changed, healthy_compute, reinstalled_compute, without

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mecexporter.state.world import World

GRACE = 120.0
NEW = "0badf00d-0000-4000-8000-000000000001"


def fold(memory: Memory, worlds: Iterable[World], step: float = 10.0) -> Memory:
    """The memory after these Worlds, one each ``step`` seconds."""
    for n, world in enumerate(worlds):
        memory = remember(replace(world, now=NOW + n * step, memory=memory))
    return memory


def known_as(system_id: str, **fields: Any) -> Memory:
    return Memory(identity=Identity(system_id=system_id, origin="ovsdb", since=NOW - 86400), **fields)


def renamed() -> World:
    """The id was changed, and Southbound and ovn-controller follow: a rename that was carried through."""
    world = changed(healthy_compute(), "ovs", system_id=NEW)
    chassis = Chassis(name=NEW, hostname=HOSTNAME, encap_ips=("192.0.2.1",))
    return changed(world, "chassis_lookup", system_id=NEW, registered=chassis, of_hostname=(chassis,))


def without_keys(world: World) -> World:
    return changed(world, "ovs", remembered_ids=())


def id_of(memory: Memory) -> str | None:
    return memory.identity.system_id if memory.identity else None


def test_a_first_id_is_remembered_after_grace_and_not_before() -> None:
    world = without_keys(healthy_compute())
    assert id_of(fold(Memory(), [world] * 12)) is None
    memory = fold(Memory(), [world] * 13)
    assert memory.identity == Identity(system_id=SYSTEM_ID, origin="ovsdb", since=NOW + GRACE, settings=OVN_SETTINGS)


def test_grace_is_as_configured() -> None:
    world = without_keys(healthy_compute())
    world = replace(world, settings=replace(world.settings, grace_identity=0.0))
    assert id_of(fold(Memory(), [world])) is None, "seen twice all the same"
    assert id_of(fold(Memory(), [world] * 2)) == SYSTEM_ID


def test_times_are_todays_though_the_systems_clock_was_stepped() -> None:
    world = replace(without_keys(healthy_compute()), skew=3600.0)
    memory = fold(Memory(), [world] * 13)
    assert memory.identity is not None
    assert memory.identity.since == NOW + GRACE + 3600


def test_an_encapsulation_that_is_lost_is_remembered_and_what_else_is_removed_is_not() -> None:
    with_more = changed(healthy_compute(), "ovs", ovn_settings=OVN_SETTINGS | {"ovn-bridge-mappings": "physnet1:br-ex"})
    memory = fold(Memory(), [with_more] * 20)
    left = {"hostname": HOSTNAME, "ovn-encap-type": "vxlan", "ovn-remote": OVN_SETTINGS["ovn-remote"]}
    memory = fold(memory, [changed(healthy_compute(), "ovs", encap_ips=(), ovn_settings=left)] * 20)
    assert memory.identity is not None
    assert memory.identity.settings == OVN_SETTINGS | {"ovn-encap-type": "vxlan"}


def test_nothing_new_is_the_same_object() -> None:
    memory = fold(Memory(), [healthy_compute()] * 20)
    assert remember(replace(healthy_compute(), now=NOW + 1000, memory=memory)) is memory


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(changed(healthy_compute(), "ovn_controller", connected=False), id="not connected"),
        pytest.param(changed(healthy_compute(), "ovn_controller", paused=True), id="paused"),
        pytest.param(changed(healthy_compute(), "ovn_controller", txn_rises=(False, True)), id="a transaction failed"),
        pytest.param(changed(healthy_compute(), "ovn_controller", txn_rises=()), id="never compared a counter"),
        pytest.param(changed(healthy_compute(), "openflow", flows=0), id="no flows"),
        pytest.param(changed(healthy_compute(), "openflow", bridge="br-old"), id="flows of another bridge"),
        pytest.param(changed(healthy_compute(), "ovs", bridges=()), id="no bridge"),
        pytest.param(changed(healthy_compute(), "ovs", system_id=""), id="no id"),
        pytest.param(changed(healthy_compute(), "ovs", system_id=NEW), id="Southbound was asked for another id"),
        pytest.param(changed(healthy_compute(), "chassis_lookup", registered=None), id="not registered"),
        pytest.param(
            changed(
                healthy_compute(),
                "chassis_lookup",
                registered=Chassis(name=SYSTEM_ID, hostname="other", encap_ips=("198.51.100.1",)),
            ),
            id="registered by another host",
        ),
        pytest.param(
            changed(
                healthy_compute(),
                "chassis_lookup",
                registered=Chassis(name=SYSTEM_ID, hostname="other", encap_ips=("192.0.2.1",)),
            ),
            id="registered by another host, with our address",
        ),
        pytest.param(
            changed(changed(healthy_compute(), "ovs", hostname=None), "chassis_lookup", ours=None),
            id="registered, and nothing to compare with",
        ),
        *(
            pytest.param(without(healthy_compute(), source), id=f"{source} absent")
            for source in ("ovs", "openflow", "ovn_controller", "chassis_lookup", "host")
        ),
    ],
)
def test_one_break_begins_the_proof_anew(broken: World) -> None:
    good = without_keys(healthy_compute())
    broken = without_keys(broken) if isinstance(broken.ovs, Fresh) else broken
    worlds = [good] * 12 + [broken] + [good] * 12
    assert id_of(fold(Memory(), worlds)) is None
    assert id_of(fold(Memory(), [*worlds, good])) == SYSTEM_ID


@pytest.mark.parametrize("source", ["vswitchd"])
def test_what_is_no_sign_of_health_is_not_needed(source: str) -> None:
    assert id_of(fold(Memory(), [without(without_keys(healthy_compute()), source)] * 13)) == SYSTEM_ID


def not_asked(world: World, source: str) -> World:
    """Disabled, or not configured here."""
    world = without(world, source, reason=Reason.PENDING)
    return replace(world, applicable=world.applicable - {source})


@pytest.mark.parametrize("source", ["chassis_lookup", "openflow", "ovn_controller"])
def test_a_sign_that_is_not_to_be_asked_for_is_not_waited_for(source: str) -> None:
    world = not_asked(without_keys(healthy_compute()), source)
    assert id_of(fold(Memory(), [world] * 13)) == SYSTEM_ID


@pytest.mark.parametrize("source", ["openflow", "ovn_controller"])
def test_a_rename_is_adopted_without_it_too(source: str) -> None:
    assert id_of(fold(known_as(SYSTEM_ID), [not_asked(renamed(), source)] * 13)) == NEW


def test_our_hostname_may_be_written_in_other_letters() -> None:
    world = changed(without_keys(healthy_compute()), "ovs", hostname=HOSTNAME.upper())
    assert id_of(fold(Memory(), [world] * 13)) == SYSTEM_ID


def test_without_a_hostname_an_address_of_ours_will_do() -> None:
    world = changed(without_keys(healthy_compute()), "ovs", hostname=None)
    assert id_of(fold(Memory(), [world] * 13)) == SYSTEM_ID


def test_where_the_id_comes_from_is_remembered() -> None:
    world = changed(without_keys(healthy_compute()), "host", commandline_id=SYSTEM_ID)
    memory = fold(Memory(), [world] * 13)
    assert memory.identity is not None
    assert memory.identity.origin == "commandline"
    moved = fold(memory, [without_keys(healthy_compute())] * 13)
    assert moved.identity is not None
    assert moved.identity.origin == "ovsdb", "the same id, and proven again"


def test_a_transaction_that_failed_a_while_ago_is_forgiven() -> None:
    world = changed(without_keys(healthy_compute()), "ovn_controller", txn_rises=(True, True, True, False))
    assert id_of(fold(Memory(), [world] * 13)) == SYSTEM_ID


class TestAfterTheDriverInstaller:
    """Incident C2: connected, registered nowhere, nothing in the bridge."""

    def test_the_old_id_stays_remembered_for_as_long_as_it_takes(self) -> None:
        assert id_of(fold(known_as(SYSTEM_ID), [reinstalled_compute()] * 500)) == SYSTEM_ID

    def test_also_over_a_restart_of_the_exporter(self) -> None:
        memory = fold(known_as(SYSTEM_ID), [reinstalled_compute()] * 5)
        restarted = replace(memory, healthy_id=None, healthy_since=None)
        assert id_of(fold(restarted, [reinstalled_compute()] * 500)) == SYSTEM_ID

    def test_a_single_key_of_the_new_id_does_not_replace_it(self) -> None:
        world = changed(reinstalled_compute(), "ovs", remembered_ids=(NEW,))
        assert id_of(fold(known_as(SYSTEM_ID), [world] * 50)) == SYSTEM_ID

    def test_a_rename_that_is_carried_through_is_adopted_after_grace(self) -> None:
        assert id_of(fold(known_as(SYSTEM_ID), [renamed()] * 12)) == SYSTEM_ID
        memory = fold(known_as(SYSTEM_ID), [renamed()] * 13)
        assert id_of(memory) == NEW

    def test_put_back_it_never_was_another(self) -> None:
        worlds = [healthy_compute()] * 13 + [reinstalled_compute()] * 30 + [healthy_compute()] * 13
        memory = fold(Memory(), worlds)
        assert id_of(memory) == SYSTEM_ID
        assert memory.identity is not None
        assert memory.identity.since == NOW, "seeded from the one key, and never anything else since"


class TestSeeding:
    """Without a memory, ovn-controller's own note of its ids is asked: external_ids:ovn-chassis-idx-<id>."""

    @pytest.mark.parametrize(
        ("keys", "seed"),
        [((), None), ((SYSTEM_ID,), SYSTEM_ID), (("older", SYSTEM_ID), None)],
        ids=["none", "one", "several"],
    )
    def test_from_a_single_key(self, keys: tuple[str, ...], seed: str | None) -> None:
        world = changed(reinstalled_compute(), "ovs", remembered_ids=keys)
        assert id_of(fold(Memory(), [world] * 30)) == seed

    def test_a_single_key_of_the_id_in_force_is_believed_if_southbound_has_it(self) -> None:
        """After the driver installer and a restart of ovn-controller the one key is that of the wrong id."""
        wrong = changed(reinstalled_compute(), "ovs", remembered_ids=(NEW,))
        assert id_of(fold(Memory(), [wrong] * 50)) is None
        assert id_of(fold(Memory(), [without(healthy_compute(), "chassis_lookup", reason=Reason.TIMEOUT)] * 50)) is None
        assert id_of(fold(Memory(), [healthy_compute()])) == SYSTEM_ID

    def test_where_southbound_is_not_asked_if_ovn_controller_does_its_work(self) -> None:
        wrong = changed(reinstalled_compute(), "ovs", remembered_ids=(NEW,))
        assert id_of(fold(Memory(), [not_asked(wrong, "chassis_lookup")] * 50)) is None
        assert id_of(fold(Memory(), [not_asked(healthy_compute(), "chassis_lookup")])) == SYSTEM_ID

    def test_repaired_the_good_id_is_no_change(self) -> None:
        wrong = changed(reinstalled_compute(), "ovs", remembered_ids=(NEW,))
        repaired = changed(healthy_compute(), "ovs", remembered_ids=(NEW, SYSTEM_ID))
        assert id_of(fold(Memory(), [wrong] * 20 + [repaired] * 12)) is None
        assert id_of(fold(Memory(), [wrong] * 20 + [repaired] * 13)) == SYSTEM_ID

    def test_several_or_none_are_settled_by_health(self) -> None:
        world = changed(healthy_compute(), "ovs", remembered_ids=("older", SYSTEM_ID))
        assert id_of(fold(Memory(), [world] * 13)) == SYSTEM_ID

    def test_the_seed_knows_the_values_to_put_back(self) -> None:
        memory = fold(Memory(), [changed(reinstalled_compute(), "ovs", remembered_ids=(SYSTEM_ID,))])
        assert memory.identity is not None
        assert memory.identity.settings == OVN_SETTINGS

    def test_only_a_compute_node_has_an_identity(self) -> None:
        world = replace(healthy_compute(), roles=frozenset({Role.CENTRAL}))
        assert id_of(fold(Memory(), [world] * 30)) is None

    def test_not_while_the_id_in_force_cannot_be_told(self) -> None:
        assert id_of(fold(Memory(), [without(healthy_compute(), "host")] * 3)) is None


class TestOvnNbCfg:
    """The bridge carries ovn-nb-cfg from the first bump on; a healthy node may never have seen one."""

    @staticmethod
    def without_nb_cfg(world: World) -> World:
        return changed(world, "ovs", bridges=(Bridge(name="br-int", nb_cfg=None),))

    def test_a_node_that_never_had_one_is_healthy(self) -> None:
        world = self.without_nb_cfg(without_keys(healthy_compute()))
        memory = fold(Memory(), [world] * 13)
        assert id_of(memory) == SYSTEM_ID
        assert memory.nb_cfg_seen_under is None

    def test_a_node_that_had_one_and_lost_it_is_not(self) -> None:
        memory = fold(Memory(), [without_keys(healthy_compute())])
        assert memory.nb_cfg_seen_under == SYSTEM_ID
        world = self.without_nb_cfg(without_keys(healthy_compute()))
        assert id_of(fold(memory, [world] * 30)) is None

    def test_what_another_id_had_does_not_count(self) -> None:
        memory = known_as(SYSTEM_ID, nb_cfg_seen_under=SYSTEM_ID)
        assert id_of(fold(memory, [self.without_nb_cfg(renamed())] * 13)) == NEW

    def test_one_seen_on_a_sick_node_is_a_stale_copy(self) -> None:
        world = changed(reinstalled_compute(), "ovs", bridges=healthy_compute_bridges())
        assert fold(known_as(SYSTEM_ID), [world] * 30).nb_cfg_seen_under is None


def healthy_compute_bridges() -> tuple[Bridge, ...]:
    world = healthy_compute()
    assert isinstance(world.ovs, Fresh)
    return world.ovs.value.bridges


def test_that_the_file_was_ever_there_is_remembered() -> None:
    memory = fold(Memory(), [healthy_compute()])
    assert memory.id_file_seen
    gone = IdFile(path="/f", content=None, trouble=Reason.MISSING)
    assert fold(memory, [changed(healthy_compute(), "host", system_id_file=gone)]).id_file_seen
    assert not fold(Memory(), [changed(healthy_compute(), "host", system_id_file=gone)]).id_file_seen


GOOD_UNDER = {
    "old": healthy_compute(),
    "new": renamed(),
    "sick": reinstalled_compute(),
    "blind": without(healthy_compute(), "ovs"),
}


@given(st.lists(st.tuples(st.sampled_from(sorted(GOOD_UNDER)), st.integers(1, 90)), max_size=40))
def test_only_an_unbroken_grace_of_health_changes_what_is_remembered(history: list[tuple[str, int]]) -> None:
    memory, now = known_as(SYSTEM_ID), NOW
    healthy_under, since = None, now
    for kind, seconds in history:
        before = id_of(memory)
        memory = remember(replace(GOOD_UNDER[kind], now=now, memory=memory))
        under = {"old": SYSTEM_ID, "new": NEW}.get(kind)
        if under != healthy_under:
            healthy_under, since = under, now
        proven = healthy_under is not None and now - since >= GRACE
        assert id_of(memory) == (healthy_under if proven else before)
        now += seconds
