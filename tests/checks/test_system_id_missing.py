"""No id, or an empty one, wherever it should come from."""

from dataclasses import replace

import pytest

from mecexporter.checks.base import Unknown
from mecexporter.checks.system_id_missing import system_id_missing
from mecexporter.errors import Reason
from mecexporter.state.host import IdFile
from mecexporter.state.world import World
from tests.checks.verdicts import only_finding
from tests.worlds import HOSTNAME, SYSTEM_ID, changed, healthy_compute, without

ask = system_id_missing.ask
NO_FILE = IdFile(path="/f", content=None, trouble=Reason.MISSING)


def forgetful(world: World) -> World:
    return replace(world, memory=replace(world.memory, identity=None))


def test_an_id_is_there() -> None:
    assert ask(healthy_compute()) == ()


@pytest.mark.parametrize("nothing", ["", None])
def test_none_or_empty_in_the_database(nothing: str | None) -> None:
    finding = only_finding(system_id_missing, changed(healthy_compute(), "ovs", system_id=nothing))
    assert finding.subject == HOSTNAME
    assert "(from ovsdb) is missing or empty" in finding.summary
    assert f"ovs-vsctl set Open_vSwitch . external_ids:system-id={SYSTEM_ID}" in finding.remedy
    assert finding.reads == 2


def test_an_override_whose_first_line_is_empty_is_an_empty_id() -> None:
    override = IdFile(path="/etc/system-id-override", content="")
    finding = only_finding(system_id_missing, changed(healthy_compute(), "host", override_file=override))
    assert "(from override)" in finding.summary
    assert f"echo {SYSTEM_ID} > /etc/system-id-override" in finding.remedy, "the database is not asked then"


def test_an_override_or_commandline_makes_up_for_it() -> None:
    missing = changed(healthy_compute(), "ovs", system_id=None)
    assert ask(changed(missing, "host", override_file=IdFile(path="/o", content="x"))) == ()
    assert ask(changed(missing, "host", commandline_id="x")) == ()


def test_without_memory_the_file_is_what_is_known() -> None:
    world = forgetful(changed(healthy_compute(), "ovs", system_id=None))
    assert f"system-id={SYSTEM_ID}" in only_finding(system_id_missing, world).remedy


def test_with_nothing_known_southbound_is_where_to_look() -> None:
    world = forgetful(changed(healthy_compute(), "ovs", system_id=None))
    remedy = only_finding(system_id_missing, changed(world, "host", system_id_file=NO_FILE)).remedy
    assert "ovn-sbctl list Chassis" in remedy


@pytest.mark.parametrize("source", ["host", "ovs"])
def test_without_a_source_it_cannot_tell(source: str) -> None:
    assert ask(without(changed(healthy_compute(), "ovs", system_id=None), source)) == Unknown((source,))
