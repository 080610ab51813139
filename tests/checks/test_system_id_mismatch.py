"""system-id.conf against the database: what the next start will make of it."""

from dataclasses import replace
from typing import Any

import pytest

from mecexporter.checks.base import Unknown
from mecexporter.checks.system_id_mismatch import system_id_mismatch
from mecexporter.errors import Reason
from mecexporter.state.host import IdFile
from mecexporter.state.world import SystemIdPolicy, World
from tests.checks.verdicts import AWKWARD, only_finding
from tests.worlds import HOSTNAME, SYSTEM_ID, changed, healthy_compute, reinstalled_compute, without

ask = system_id_mismatch.ask
PATH = "/etc/openvswitch/system-id.conf"
ABSENT = IdFile(path=PATH, content=None, trouble=Reason.MISSING, why=f"no {PATH}")


def with_file(file: IdFile | str | None, policy: SystemIdPolicy = SystemIdPolicy.AUTO) -> World:
    if not isinstance(file, IdFile):
        file = ABSENT if file is None else IdFile(path=PATH, content=file)
    world = changed(healthy_compute(), "host", system_id_file=file)
    return replace(world, settings=replace(world.settings, system_id_policy=policy))


def test_a_file_that_agrees_is_well() -> None:
    assert ask(healthy_compute()) == ()


def test_the_driver_installer_changed_both_alike() -> None:
    assert ask(reinstalled_compute()) == ()


@pytest.mark.parametrize(
    ("file", "words"),
    [(None, "does not exist"), ("", "is empty"), ("another", "holds another")],
)
def test_absent_empty_or_different(file: str | None, words: str) -> None:
    finding = only_finding(system_id_mismatch, with_file(file))
    assert finding.subject == HOSTNAME
    assert f"{PATH} {words}, the id in force is {SYSTEM_ID}" in finding.summary
    assert f"echo {SYSTEM_ID} > {PATH}" in finding.remedy
    assert finding.reads == 2


def test_where_the_file_is_right_the_database_is_to_be_mended() -> None:
    finding = only_finding(system_id_mismatch, changed(healthy_compute(), "ovs", system_id="another"))
    assert finding.remedy.startswith(
        "the file holds the id under which this node was last healthy, so put that back: "
        f"echo {SYSTEM_ID} > {PATH}; ovs-vsctl set Open_vSwitch . external_ids:system-id={SYSTEM_ID}; "
        f"then restart ovn-controller. Only if another is right: echo another > {PATH} ("
    )
    world = changed(healthy_compute(), "ovs", system_id="another")
    world = replace(world, memory=replace(world.memory, identity=None))
    assert only_finding(system_id_mismatch, world).remedy.startswith(f"if another is right: echo another > {PATH} (")


@pytest.mark.parametrize("file", [None, "", "another"])
def test_where_ovs_ctl_ignores_the_file_it_does_not_matter(file: str | None) -> None:
    assert ask(with_file(file, SystemIdPolicy.IGNORE)) == ()


def test_no_file_and_no_sign_that_one_is_used() -> None:
    world = changed(with_file(None), "host", starts_from_file=None)
    assert ask(replace(world, memory=replace(world.memory, id_file_seen=False))) == ()


def test_a_file_that_was_there_once_is_missed() -> None:
    only_finding(system_id_mismatch, changed(with_file(None), "host", starts_from_file=None))


def test_policy_file_misses_it_though_nothing_else_says_so() -> None:
    world = changed(with_file(None, SystemIdPolicy.FILE), "host", starts_from_file=None)
    only_finding(system_id_mismatch, replace(world, memory=replace(world.memory, id_file_seen=False)))


@pytest.mark.parametrize(
    "instead",
    [{"commandline_id": "cname"}, {"override_file": IdFile(path="/o", content="over")}],
    ids=["commandline", "override"],
)
@pytest.mark.parametrize("file", [None, "", "another"])
def test_where_the_id_comes_from_elsewhere_the_file_changes_nothing(file: str | None, instead: dict[str, Any]) -> None:
    assert ask(changed(with_file(file), "host", **instead)) == ()


def test_an_override_that_cannot_be_read_may_be_in_force() -> None:
    hidden = IdFile(path="/o", content=None, trouble=Reason.PERMISSION)
    assert ask(changed(with_file("another"), "host", override_file=hidden)) == Unknown(("host",))


@pytest.mark.parametrize("trouble", [Reason.PERMISSION, Reason.GARBAGE, Reason.TOO_LARGE])
@pytest.mark.parametrize("unit", ["a unit", None])
def test_a_file_that_cannot_be_read_cannot_be_compared(trouble: Reason, unit: str | None) -> None:
    world = with_file(IdFile(path=PATH, content=None, trouble=trouble, why="?"))
    world = changed(world, "host", starts_from_file=unit)
    assert ask(replace(world, memory=replace(world.memory, id_file_seen=False))) == Unknown(("host",))


@pytest.mark.parametrize("nothing", ["", None])
def test_no_id_in_the_database_is_another_checks_matter(nothing: str | None) -> None:
    assert ask(changed(healthy_compute(), "ovs", system_id=nothing)) == ()


@pytest.mark.parametrize("source", ["host", "ovs"])
def test_without_a_source_it_cannot_tell(source: str) -> None:
    assert ask(without(with_file(None), source)) == Unknown((source,))


@pytest.mark.parametrize("name", AWKWARD)
def test_names_with_anything_in_them(name: str) -> None:
    assert only_finding(system_id_mismatch, with_file(name)).subject == HOSTNAME
