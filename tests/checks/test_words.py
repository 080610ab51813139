"""Remedies can be pasted: what they hold goes through a real shell and a real ovs-vsctl and comes out as it was."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mecexporter.checks.words import ovsdb_quoted, put_back, quoted, restore_settings, uses_file
from mecexporter.errors import Reason
from mecexporter.state.host import IdFile
from mecexporter.state.world import SystemIdPolicy, World
from tests.sources.daemons import OvsdbServer, run, running, short_dir
from tests.worlds import OVN_SETTINGS, SYSTEM_ID, changed, healthy_compute, without

GONE = IdFile(path="/f", content=None, trouble=Reason.MISSING)
VALUES = [
    SYSTEM_ID,
    "compute-1.example.com",
    "ssl:192.0.2.10:6642,ssl:192.0.2.11:6642",
    "tcp:[2001:db8::1]:6642",
    "geneve,vxlan",
    "two words",
    "  spaces around ",
    "it's",
    'say "hi"',
    "back\\slash",
    "a;b|c&d>e",
    "$(id) `id` $HOME",
    "<b>html</b>",
    "{x=y}[z]",
    "line\nbreak",
    "tab\there",
    "ünïcode 名",
    "",
    "true",
    "42",
    "-n",
    "#",
    "*",
]


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with short_dir() as directory:
        server = OvsdbServer(directory, "Open_vSwitch")
        with running(server):
            run("ovs-vsctl", "--no-wait", f"--db=unix:{server.socket}", "init")
            yield f"unix:{server.socket}"


def in_shell(command: str) -> str:
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def vsctl(database: str, rest: str) -> str:
    return in_shell(f"ovs-vsctl --no-wait --db={quoted(database)} {rest}")


def external_ids(database: str) -> dict[str, str]:
    """As the server holds them, by the protocol's own JSON."""
    rows = json.loads(
        in_shell(
            f"ovsdb-client --timeout=10 transact {database} "
            """'["Open_vSwitch",{"op":"select","table":"Open_vSwitch","where":[],"columns":["external_ids"]}]'"""
        )
    )[0]["rows"]
    return dict(rows[0]["external_ids"][1])


@pytest.mark.parametrize("value", VALUES)
def test_a_shell_takes_what_is_quoted(value: str) -> None:
    assert in_shell(f"printf %s {quoted(value)}") == value


@pytest.mark.parametrize("value", VALUES)
def test_ovs_vsctl_takes_what_is_quoted(database: str, value: str) -> None:
    vsctl(database, f"set Open_vSwitch . external_ids:system-id={ovsdb_quoted(value)}")
    # 'find' reads the same grammar on the other side of the comparison, and must find the row by it.
    row = vsctl(database, f"--columns=_uuid --bare find Open_vSwitch external_ids:system-id={ovsdb_quoted(value)}")
    assert row.strip()
    assert vsctl(database, "get Open_vSwitch . external_ids:system-id").rstrip("\n") in (
        value,
        json.dumps(value, ensure_ascii=False),
    )


def test_lost_settings_are_restored_by_one_command(database: str) -> None:
    world = healthy_compute()
    assert world.memory.identity is not None
    settings = {
        "hostname": "compute-1",
        "ovn-bridge": "br-ovn",
        "ovn-bridge-mappings": 'physnet1:br-ex,physnet 2:br-"x"',
        "ovn-encap-ip": "192.0.2.1,192.0.2.2",
        "ovn-encap-type": "geneve,vxlan",
        "ovn-remote": "ssl:192.0.2.10:6642,ssl:[2001:db8::1]:6642",
        "ovn-encap-ip-compute 1; $(id) `id`: 'a\"=,": "keys are anybody's words too",
    }
    wiped = changed(world, "ovs", ovn_remote=None, ovn_settings={})
    known = replace(world.memory.identity, settings=settings)
    words = restore_settings(replace(wiped, memory=replace(world.memory, identity=known)))
    assert words.startswith("ovs-vsctl set ")
    vsctl(database, f"clear Open_vSwitch . external_ids -- {words.removeprefix('ovs-vsctl ')}")
    assert external_ids(database) == {"system-id": SYSTEM_ID} | settings


def test_with_the_old_id_goes_the_old_address(database: str) -> None:
    """The new one is by now the new Chassis' own: no other may have it."""
    given = {"ovn-remote": "unix:/sb", "ovn-encap-ip": "198.51.100.7", "ovn-encap-type": "vxlan", "hostname": "x"}
    world = changed(healthy_compute(), "ovs", ovn_settings=given)
    world = changed(world, "host", system_id_file=GONE, starts_from_file=None)
    world = replace(world, memory=replace(world.memory, id_file_seen=False))
    command = put_back(world, "ovsdb", SYSTEM_ID).removesuffix("; then restart ovn-controller")
    vsctl(database, f"clear Open_vSwitch . external_ids -- {command.removeprefix('ovs-vsctl ')}")
    assert external_ids(database) == {
        "system-id": SYSTEM_ID,
        "ovn-encap-ip": "192.0.2.1",
        "ovn-encap-type": "geneve",
    }, "and nothing that ovn-controller can do without"


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        ("commandline", "correct -n in ovn-controller's options to me, and restart ovn-controller"),
        ("override", "echo me > /etc/system-id-override, and restart ovn-controller"),
    ],
)
def test_an_id_is_put_back_where_it_came_from(origin: str, words: str) -> None:
    assert put_back(healthy_compute(), origin, "me") == words


def test_an_id_that_did_not_come_from_the_database_is_not_put_there(database: str) -> None:
    world = changed(healthy_compute(), "ovs", ovn_settings={"ovn-encap-ip": "192.0.2.1"})
    assert world.memory.identity is not None
    known = replace(world.memory.identity, origin="commandline")
    words = restore_settings(replace(world, memory=replace(world.memory, identity=known)))
    vsctl(database, f"clear Open_vSwitch . external_ids -- {words.removeprefix('ovs-vsctl ')}")
    assert external_ids(database) == {k: v for k, v in OVN_SETTINGS.items() if k != "ovn-encap-ip"}, "what is lost"


def test_without_memory_the_settings_are_named_not_guessed() -> None:
    world = healthy_compute()
    assert "as your installer does" in restore_settings(replace(world, memory=replace(world.memory, identity=None)))


def test_the_old_id_is_put_back_by_what_can_be_pasted(database: str, tmp_path: Path) -> None:
    file = tmp_path / "a directory" / "system-id.conf"
    file.parent.mkdir()
    world = changed(healthy_compute(), "host", system_id_file=IdFile(path=str(file), content="new"))
    command, restart = put_back(world, "ovsdb", "the old: one").rsplit("; then ", 1)
    assert restart == "restart ovn-controller"
    in_shell(command.replace("ovs-vsctl ", f"ovs-vsctl --no-wait --db={database} "))
    assert file.read_text() == "the old: one\n"
    assert vsctl(database, "get Open_vSwitch . external_ids:system-id").strip() == '"the old: one"'


HIDDEN = IdFile(path="/f", content=None, trouble=Reason.PERMISSION)
THERE = IdFile(path="/f", content="x")
AUTO, FILE, IGNORE = SystemIdPolicy.AUTO, SystemIdPolicy.FILE, SystemIdPolicy.IGNORE


def host(policy: SystemIdPolicy, file: IdFile, *, unit: bool = False, seen: bool = False) -> World:
    world = healthy_compute()
    world = replace(
        world,
        settings=replace(world.settings, system_id_policy=policy),
        memory=replace(world.memory, id_file_seen=seen),
    )
    return changed(world, "host", system_id_file=file, starts_from_file="a unit" if unit else None)


@pytest.mark.parametrize(
    ("world", "uses"),
    [
        pytest.param(host(FILE, GONE), True, id="told to"),
        pytest.param(host(IGNORE, THERE, unit=True, seen=True), False, id="told not to"),
        pytest.param(host(AUTO, GONE, unit=True), True, id="the unit says so"),
        pytest.param(host(AUTO, THERE), True, id="the file is there"),
        pytest.param(host(AUTO, HIDDEN), True, id="the file is there and hidden from us"),
        pytest.param(host(AUTO, GONE, seen=True), True, id="the file was there once"),
        pytest.param(host(AUTO, GONE), False, id="no sign of it"),
        pytest.param(without(host(AUTO, THERE, seen=True), "host"), True, id="host lost, the file was there once"),
        pytest.param(without(host(AUTO, THERE), "host"), False, id="host lost, nothing known"),
    ],
)
def test_whether_the_next_start_takes_the_file(world: World, uses: bool) -> None:
    assert uses_file(world) is uses
