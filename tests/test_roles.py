"""Roles of a node: by its signs, by its configuration, and what may hide behind what won't tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from mecexporter import roles
from mecexporter.config import Config
from mecexporter.errors import Reason
from mecexporter.sources.host import HostPaths, HostSource
from mecexporter.state.world import Memory, Role, World
from tests.worlds import changed, healthy_compute, without

COMPUTE, CENTRAL, API = Role.COMPUTE, Role.CENTRAL, Role.API
AUTO = Config()


def config(**sections: object) -> Config:
    return msgspec.convert(sections, Config)


def world(**signs: str) -> World:
    """Nothing is remembered, and there is no Open vSwitch."""
    bare = without(replace(healthy_compute(), memory=Memory()), "ovs", reason=Reason.MISSING)
    return changed(bare, "host", signs=signs)


@pytest.mark.parametrize(
    ("signs", "found"),
    [
        ({}, set()),
        ({"compute": "/p"}, {COMPUTE}),
        ({"OVN_Northbound": "/s"}, {CENTRAL}),
        ({"OVN_Southbound": "/s"}, {CENTRAL}),
        ({"northd": "/p"}, set()),
        ({"compute": "/p", "OVN_Southbound": "/s", "northd": "/p"}, {COMPUTE, CENTRAL}),
    ],
)
def test_by_signs(signs: dict[str, str], found: set[Role]) -> None:
    assert roles.found(world(**signs), AUTO) == found
    assert roles.in_force(world(**signs), AUTO) == found


def test_ovn_remote_is_a_sign() -> None:
    told = replace(world(), ovs=healthy_compute().ovs)
    assert roles.found(told, AUTO) == {COMPUTE}
    assert roles.found(changed(told, "ovs", ovn_remote=None), AUTO) == set()


@pytest.mark.parametrize(
    "given",
    [config(openstack={"cloud": "c"}), config(nova={"cells": {"cell1": "sqlite:////x"}})],
    ids=["cloud", "cell"],
)
def test_api_is_configured(given: Config) -> None:
    assert roles.found(world(), given) == {API}


def test_without_facts_of_the_host_nothing_shows() -> None:
    assert roles.found(without(world(compute="/p"), "host"), AUTO) == set()


def test_what_once_showed_is_kept() -> None:
    assert roles.in_force(replace(world(), memory=Memory(roles=frozenset({CENTRAL}))), AUTO) == {CENTRAL}


@pytest.mark.parametrize("reason", Reason)
def test_behind_a_database_that_will_not_tell_there_may_be_a_compute_node(reason: Reason) -> None:
    hidden = without(world(), "ovs", reason=reason)
    presumed = set() if reason in (Reason.MISSING, Reason.PENDING) else {COMPUTE}
    assert roles.in_force(hidden, AUTO) == presumed
    assert roles.found(hidden, AUTO) == set(), "not so found that it would be remembered"


def test_as_configured_and_no_other() -> None:
    hidden = without(world(OVN_Northbound="/s"), "ovs", reason=Reason.PERMISSION)
    remembered = replace(hidden, memory=Memory(roles=frozenset({CENTRAL})))
    assert roles.in_force(remembered, config(roles=["api"])) == {API}


@pytest.mark.parametrize(
    ("path", "shows"),
    [
        ("ovn-controller.pid", {"compute"}),
        ("ovn-controller.7.ctl", {"compute"}),
        ("given.ctl", {"compute"}),
        ("ovnnb_db.sock", {"OVN_Northbound"}),
        ("ovnnb_db.ctl", {"OVN_Northbound"}),
        ("ovnnb_db.pid", {"OVN_Northbound"}),
        ("ovnsb_db.ctl", {"OVN_Southbound"}),
        ("ovnsb_db.pid", {"OVN_Southbound"}),
        ("ovn-northd.pid", {"northd"}),
        ("given-northd.ctl", {"northd"}),
        ("ovs-vswitchd.pid", set()),
    ],
)
async def test_signs_are_where_the_configuration_says(tmp_path: Path, path: str, shows: set[str]) -> None:
    run = str(tmp_path)
    given = config(
        ovn={
            "run_dir": run,
            "controller_control": f"{run}/given.ctl",
            "northd_control": f"{run}/given-northd.ctl",
            "northbound": {"database": f"unix:{run}/ovnnb_db.sock", "control": f"{run}/ovnnb_db.ctl"},
            "southbound": {"database": "tcp:192.0.2.1:6642", "control": f"{run}/ovnsb_db.ctl"},
        }
    )
    (tmp_path / path).touch()
    paths = HostPaths(
        proc=Path("/proc"),
        system_id_file=tmp_path / "x",
        override_file=tmp_path / "x",
        ovn_run_dir=tmp_path,
        signs=roles.signs(given),
    )
    assert (await HostSource(paths, 15).read(world())).signs == dict.fromkeys(shows, f"{run}/{path}")


def test_a_server_elsewhere_is_no_sign() -> None:
    given = config(ovn={"northbound": {"database": "tcp:192.0.2.1:6641"}})
    assert roles.signs(given)["OVN_Northbound"] == ("/run/ovn/ovnnb_db.ctl", "/run/ovn/ovnnb_db.pid")


def test_of_several_endpoints_the_sockets_are_signs() -> None:
    given = config(ovn={"southbound": {"database": "tcp:192.0.2.1:6642, unix:/a/sb.sock"}})
    assert roles.signs(given)["OVN_Southbound"] == ("/a/sb.sock", "/run/ovn/ovnsb_db.ctl", "/run/ovn/ovnsb_db.pid")
