"""The World: its parts, and the id in force in it."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest

from mecexporter.errors import Reason
from mecexporter.state.host import IdFile
from mecexporter.state.identity import EffectiveId, effective_id
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.world import Memory, Settings, Version, empty_world
from tests.worlds import COMPUTE_SOURCES, SYSTEM_ID, changed, healthy_compute, interface, without


def test_before_the_first_answer_nothing_is_known() -> None:
    world = empty_world(5.0, "x", Settings())
    for source in COMPUTE_SOURCES:
        assert world.part(source) == Absent("not asked yet", 5.0, 5.0, Reason.PENDING)
    assert world.versions() == {}
    assert effective_id(world) == ("host",)


@pytest.mark.parametrize("name", ["now", "hostname", "roles", "memory", "part"])
def test_what_is_no_source_is_no_part(name: str) -> None:
    with pytest.raises(KeyError):
        healthy_compute().part(name)
    with pytest.raises(KeyError):
        healthy_compute().with_part(name, Absent("x", 0, 0))


def test_a_world_is_never_changed() -> None:
    world = healthy_compute()
    other = world.with_part("ovs", Absent("x", 0, 0))
    assert isinstance(world.ovs, Fresh)
    assert isinstance(other.ovs, Absent)
    with pytest.raises(FrozenInstanceError):
        world.now = 0.0  # type: ignore[misc]  # that it can't be is the point


def test_the_version_of_open_vswitch_is_what_vswitchd_runs() -> None:
    """Not what conf.db says: that would flip at each restart of an upgraded one."""
    world = changed(healthy_compute(), "vswitchd", version="3.1.1")
    assert world.versions()["ovs"] == "3.1.1"
    assert "ovs" not in without(world, "vswitchd").versions()
    assert "ovs" not in changed(world, "vswitchd", version=None).versions()


@pytest.mark.parametrize(
    ("version", "marked", "marks"),
    [
        ("20.12.0", False, False),
        ("21.03.0", False, True),
        ("23.03.1", False, True),
        ("unreleased", False, False),
        (None, False, False),
        (None, True, True),
    ],
)
def test_whether_ovn_marks_what_it_installs(version: str | None, *, marked: bool, marks: bool) -> None:
    """By what runs here, or did last where that is dead; or by the mark itself."""
    world = changed(healthy_compute(), "ovs", interfaces=(interface("tap1", ovn_installed=marked),))
    forgetful = replace(world, memory=Memory())
    assert changed(forgetful, "ovn_controller", version=version).marks_installed() is marks
    last = {"ovn": Version(version=version, first_seen=0)} if version else {}
    dead = replace(without(world, "ovn_controller"), memory=Memory(versions=last))
    assert dead.marks_installed() is marks


FILE = IdFile(path="/o", content="from override")


@pytest.mark.parametrize(
    ("commandline", "override", "ovsdb", "effective"),
    [
        ("n", FILE, "db", EffectiveId("commandline", "n")),
        (None, FILE, "db", EffectiveId("override", "from override")),
        ("", FILE, "db", EffectiveId("override", "from override")),
        (None, IdFile(path="/o", content=None, trouble=Reason.MISSING), "db", EffectiveId("ovsdb", "db")),
        (None, IdFile(path="/o", content=None), "db", EffectiveId("ovsdb", "db")),
        (None, IdFile(path="/o", content=None), None, EffectiveId("ovsdb", "")),
        (None, IdFile(path="/o", content=None), "", EffectiveId("ovsdb", "")),
        (None, IdFile(path="/o", content=""), "db", EffectiveId("override", "")),
        (None, IdFile(path="/o", content=None, trouble=Reason.PERMISSION), "db", ("host",)),
        (None, IdFile(path="/o", content=None, trouble=Reason.GARBAGE), "db", ("host",)),
    ],
)
def test_the_id_in_force(
    commandline: str | None, override: IdFile, ovsdb: str | None, effective: EffectiveId | tuple[str, ...]
) -> None:
    world = changed(healthy_compute(), "host", commandline_id=commandline, override_file=override)
    assert effective_id(changed(world, "ovs", system_id=ovsdb)) == effective


def test_what_comes_first_needs_nothing_behind_it() -> None:
    lost = without(healthy_compute(), "ovs")
    assert effective_id(changed(lost, "host", commandline_id="n")) == EffectiveId("commandline", "n")
    assert effective_id(changed(lost, "host", override_file=FILE)) == EffectiveId("override", "from override")
    assert effective_id(lost) == ("ovs",)
    assert effective_id(without(healthy_compute(), "host")) == ("host",), "a commandline may name another"
    assert effective_id(healthy_compute()) == EffectiveId("ovsdb", SYSTEM_ID)
