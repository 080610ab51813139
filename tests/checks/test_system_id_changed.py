"""The id in force against the one that this node was last healthy under."""

import shlex
from dataclasses import replace

import pytest

from mecexporter.checks.base import Check, Unknown
from mecexporter.checks.system_id_changed import system_id_changed
from mecexporter.checks.system_id_mismatch import system_id_mismatch
from mecexporter.checks.system_id_missing import system_id_missing
from mecexporter.errors import Reason
from mecexporter.state.host import IdFile
from mecexporter.state.world import World
from tests.checks.verdicts import AWKWARD, only_finding
from tests.worlds import HOSTNAME, SYSTEM_ID, changed, healthy_compute, reinstalled_compute, without

ask = system_id_changed.ask
NEW = "0badf00d-0000-4000-8000-000000000001"
OVERRIDE = "/etc/system-id-override"


def with_override(world: World, content: str | None) -> World:
    return changed(world, "host", override_file=IdFile(path=OVERRIDE, content=content))


def test_the_remembered_id_is_well() -> None:
    assert ask(healthy_compute()) == ()


def test_the_driver_installer_made_a_new_one() -> None:
    finding = only_finding(system_id_changed, reinstalled_compute())
    assert finding.subject == HOSTNAME
    assert NEW in finding.summary
    assert SYSTEM_ID in finding.summary
    assert "(from ovsdb)" in finding.summary
    assert finding.remedy.startswith(
        f"put the old id back: echo {SYSTEM_ID} > /etc/openvswitch/system-id.conf; "
        f"ovs-vsctl set Open_vSwitch . external_ids:system-id={SYSTEM_ID}; then restart ovn-controller"
    )
    assert f"ovn-sbctl chassis-del {SYSTEM_ID}" in finding.remedy
    assert finding.reads == 2, "ovs-ctl is between an empty database and its id for a moment"


def test_where_ovs_ctl_ignores_the_file_the_remedy_leaves_it_alone() -> None:
    world = changed(reinstalled_compute(), "host", starts_from_file=None)
    world = changed(world, "host", system_id_file=IdFile(path="/x", content=None, trouble=Reason.MISSING))
    world = replace(world, memory=replace(world.memory, id_file_seen=False))
    finding = only_finding(system_id_changed, world)
    assert "echo" not in finding.remedy


@pytest.mark.parametrize(
    ("commandline", "override", "origin"),
    [
        ("other", None, "commandline"),
        ("other", "third", "commandline"),
        (None, "other", "override"),
        (None, "  over3 trailing", "override"),
    ],
)
def test_the_order_of_origins_is_ovn_controllers(commandline: str | None, override: str | None, origin: str) -> None:
    world = with_override(changed(healthy_compute(), "host", commandline_id=commandline), override)
    finding = only_finding(system_id_changed, world)
    assert f"(from {origin})" in finding.summary
    if origin == "override":
        assert f"echo {SYSTEM_ID} > {OVERRIDE}" in finding.remedy
    else:
        assert f"correct -n in ovn-controller's options to {SYSTEM_ID}" in finding.remedy


def test_an_override_to_the_remembered_id_is_well_whatever_the_database_says() -> None:
    assert ask(with_override(changed(healthy_compute(), "ovs", system_id=NEW), SYSTEM_ID)) == ()


def given_on_the_commandline(world: World) -> World:
    """A node that was last healthy under the name that ``-n`` gave it; the database has another id, or none."""
    assert world.memory.identity is not None
    identity = replace(world.memory.identity, system_id="cname", origin="commandline")
    return replace(world, memory=replace(world.memory, identity=identity))


@pytest.mark.parametrize("database", [SYSTEM_ID, "", None])
@pytest.mark.parametrize("check", [system_id_changed, system_id_missing, system_id_mismatch], ids=lambda c: c.name)
def test_an_id_of_the_commandline_is_in_force_while_ovn_controller_is_stopped(
    database: str | None, check: Check
) -> None:
    """Its stop is one finding, ovn_controller_disconnected's."""
    world = given_on_the_commandline(changed(healthy_compute(), "ovs", system_id=database))
    stopped = without(changed(world, "host", commandline_why="no pidfile"), "ovn_controller", reason=Reason.MISSING)
    assert check.ask(stopped) == ()


def test_started_again_without_it_is_a_change() -> None:
    finding = only_finding(system_id_changed, given_on_the_commandline(healthy_compute()))
    assert "(from ovsdb)" in finding.summary
    assert "last healthy as cname" in finding.summary


def test_whoever_never_had_one_goes_by_the_database_though_the_process_cannot_be_seen() -> None:
    assert ask(changed(healthy_compute(), "host", commandline_why="another pid namespace")) == ()
    only_finding(system_id_changed, changed(reinstalled_compute(), "host", commandline_why="another pid namespace"))


@pytest.mark.parametrize("nothing", ["", None])
def test_no_id_at_all_is_another_checks_matter(nothing: str | None) -> None:
    assert ask(changed(healthy_compute(), "ovs", system_id=nothing)) == ()


@pytest.mark.parametrize("source", ["host", "ovs"])
def test_without_a_source_it_cannot_tell(source: str) -> None:
    assert ask(without(reinstalled_compute(), source)) == Unknown((source,))


def test_without_both_it_names_both() -> None:
    assert ask(without(without(healthy_compute(), "ovs"), "host")) == Unknown(("host", "ovs"))


def test_an_override_that_cannot_be_read_may_name_any_id() -> None:
    unreadable = IdFile(path=OVERRIDE, content=None, trouble=Reason.PERMISSION, why="user x may not read it")
    assert ask(changed(healthy_compute(), "host", override_file=unreadable)) == Unknown(("host",))


def test_a_node_that_was_never_healthy_cannot_tell() -> None:
    world = reinstalled_compute()
    assert ask(replace(world, memory=replace(world.memory, identity=None))) == Unknown(("memory",))


@pytest.mark.parametrize("name", AWKWARD)
def test_whatever_an_id_holds_the_remedy_can_be_pasted(name: str) -> None:
    world = reinstalled_compute()
    assert world.memory.identity is not None
    world = replace(world, memory=replace(world.memory, identity=replace(world.memory.identity, system_id=name)))
    remedy = only_finding(system_id_changed, world).remedy
    assert f"echo {shlex.quote(name)} > /etc/openvswitch/system-id.conf; " in remedy
    assert f"Chassis_Private {shlex.quote(name)} in Southbound" in remedy
