"""Nova's ledger from a cell database; against Nova's own schema in sqlite and MariaDB: tests/e2e/test_vfs.py."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from mecexporter.errors import Reason, SourceError
from mecexporter.sources import nova
from mecexporter.sources.nova import NovaSource
from mecexporter.state.openstack import Cell, DeviceKind, Instance, PciDevice
from mecexporter.state.world import Settings, empty_world
from tests.sources.nova_rows import Rows, request

if TYPE_CHECKING:
    from pathlib import Path

WORLD = empty_world(0.0, "compute-1", Settings())
ALICE, BOB = "a11ce000-0000-4000-8000-000000000001", "b0b00000-0000-4000-8000-000000000002"
PF, VF = "0000:3b:00.0", "0000:3b:00.2"


@pytest.fixture(name="rows")
def some_rows(tmp_path: Path) -> Rows:
    rows = Rows.of_a_file(tmp_path / "cell.sqlite")
    rows.host(1, "compute-1")
    rows.host(2, "compute-2")
    return rows


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def read(rows: Rows, *, every_host: bool = False) -> Cell:
    return await NovaSource("cell1", rows.url, every_host=every_host, interval=300, down_after=60).read(WORLD)


async def test_devices_of_this_host(rows: Rows) -> None:
    rows.vf(1, "0000:3B:00.2", ALICE, request_id="r1", numa_node=1)
    rows.vf(1, "0000:3b:00.3")
    rows.vf(1, "0000:3b:00.4", deleted=7)
    rows.vf(1, PF, dev_type="type-PF", parent_addr=None, status="unavailable")
    rows.vf(1, "0000:65:00.0", dev_type="type-PCI", parent_addr=None)
    rows.vf(2, "0000:3b:00.2", BOB)
    rows.instance(ALICE, "compute-1", [request("r1", port="port-a")])
    cell = await read(rows)
    alice = PciDevice(
        host="compute-1", address=VF, parent=PF, kind=DeviceKind.VF, status="allocated", numa_node=1,
        instance=ALICE, port="port-a", physical_network="physnet2",
    )  # fmt: skip
    assert cell.devices[0] == alice
    assert [(d.address, d.kind, d.status, d.parent) for d in cell.devices[1:]] == [
        ("0000:3b:00.3", DeviceKind.VF, "available", PF),
        (PF, DeviceKind.PF, "unavailable", None),
    ]
    assert cell.instances == {ALICE: Instance(host="compute-1", vm_state="active", task_state=None)}


async def test_a_host_in_any_case(rows: Rows) -> None:
    rows.vf(1, VF, ALICE)
    rows.instance(ALICE, "COMPUTE-1")
    rows.instance(BOB, "COMPUTE-1")
    rows.run("UPDATE compute_nodes SET host = 'Compute-1' WHERE id = 1")
    cell = await read(rows)
    assert [d.address for d in cell.devices] == [VF]
    assert cell.instances.keys() == {ALICE, BOB}


async def test_devices_of_all_hosts(rows: Rows) -> None:
    rows.vf(1, VF, ALICE)
    rows.vf(2, VF, BOB)
    rows.add("compute_nodes", id=3, host="gone", deleted=3)
    rows.vf(3, VF, ALICE)
    for uuid, host in ((ALICE, "compute-1"), (BOB, "compute-2")):
        rows.instance(uuid, host)
    cell = await read(rows, every_host=True)
    assert [(d.host, d.instance) for d in cell.devices] == [("compute-1", ALICE), ("compute-2", BOB)]
    assert cell.instances.keys() == {ALICE, BOB}


async def test_a_host_that_the_cell_does_not_have(rows: Rows) -> None:
    assert (await read(rows)).knows_host
    rows.run("UPDATE services SET host = 'compute-1.example.org' WHERE host = 'compute-1'")
    assert not (await read(rows)).knows_host
    assert (await read(rows, every_host=True)).knows_host


async def test_a_flavours_device_is_told_by_its_alias(rows: Rows) -> None:
    rows.vf(1, VF, ALICE, request_id="r1")
    rows.instance(ALICE, "compute-1", [request("r0", port="port-a"), request("r1", alias="gpu-ish")])
    (device,) = (await read(rows)).devices
    assert (device.flavour, device.port, device.physical_network) == (True, None, None)


async def test_before_zed_a_flavours_request_had_no_id(rows: Rows) -> None:
    no_id = request("", alias="gpu-ish") | {"request_id": None}
    rows.vf(1, VF, ALICE, request_id=None)
    rows.vf(1, "0000:3b:00.3", ALICE, request_id="r0")
    rows.vf(1, "0000:3b:00.4", BOB, request_id=None)
    rows.instance(ALICE, "compute-1", [request("r0", port="port-a"), no_id])
    rows.instance(BOB, "compute-1", [request("r2", port="port-b")])
    assert [d.flavour for d in (await read(rows)).devices] == [True, False, False]


async def test_requests_with_ids_of_another_type_say_nothing(rows: Rows) -> None:
    rows.vf(1, VF, ALICE, request_id="r1")
    rows.instance(ALICE, "compute-1", [request("r1") | {"request_id": ["r1"]}, request("r1") | {"requester_id": 7}])
    assert (await read(rows)).devices[0].port is None


async def test_rows_that_name_no_host(rows: Rows) -> None:
    rows.add("compute_nodes", id=9, host=None)
    rows.vf(9, VF, ALICE)
    rows.add("services", host=None, binary="nova-compute", forced_down=False)
    cell = await read(rows, every_host=True)
    assert cell.devices == ()
    assert cell.up.keys() == {"compute-1", "compute-2"}


@pytest.mark.parametrize("text", ["", "{", "[1, null]", '{"nova_object.data": {"requests": null}}', "null"])
async def test_requests_of_another_form_say_nothing(rows: Rows, text: str) -> None:
    rows.vf(1, VF, ALICE, request_id="r1")
    rows.instance(ALICE, "compute-1")
    rows.run("UPDATE instance_extra SET pci_requests = :text", text=text)
    (device,) = (await read(rows)).devices
    assert (device.flavour, device.port) == (False, None)


async def test_requests_in_an_object(rows: Rows) -> None:
    rows.vf(1, VF, ALICE, request_id="r1")
    rows.instance(ALICE, "compute-1")
    wrapped = {"nova_object.data": {"requests": [{"nova_object.data": request("r1", alias="a")}]}}
    rows.run("UPDATE instance_extra SET pci_requests = :text", text=json.dumps(wrapped))
    assert (await read(rows)).devices[0].flavour


@pytest.mark.parametrize(
    ("status", "moving"),
    [
        ("migrating", True), ("post-migrating", True), ("finished", True), ("accepted", True), ("queued", True),
        ("confirmed", False), ("reverted", False), ("error", False), ("completed", False), ("done", False),
    ],
)  # fmt: skip
async def test_migrations_that_are_not_ended(rows: Rows, status: str, moving: bool) -> None:
    rows.vf(1, VF, ALICE)
    rows.instance(ALICE, "compute-2")
    rows.add("migrations", instance_uuid=ALICE, source_compute="compute-1", dest_compute="compute-2", status=status)
    assert (await read(rows)).instances[ALICE].moving is moving


async def test_an_instance_that_moves_here_is_known_here(rows: Rows) -> None:
    rows.instance(ALICE, "compute-2", task_state="migrating")
    rows.instance(BOB, "compute-2")
    rows.add("migrations", instance_uuid=ALICE, source_compute="compute-2", dest_compute="Compute-1", status="running")
    assert (await read(rows)).instances.keys() == {ALICE}


async def test_an_instance_that_is_nowhere_is_known_everywhere(rows: Rows) -> None:
    rows.instance(ALICE, None, vm_state="shelved_offloaded")
    assert (await read(rows)).instances[ALICE].host is None


async def test_addresses_of_a_migration_context(rows: Rows) -> None:
    rows.vf(1, VF, ALICE)
    devices = {"objects": [{"nova_object.data": {"address": "0000:3B:00.5", "parent_addr": PF}}]}
    context = json.dumps({"nova_object.data": {"old_pci_devices": {"nova_object.data": devices}}})
    rows.instance(ALICE, "compute-1", migration_context=context)
    assert (await read(rows)).instances[ALICE].context == {"0000:3b:00.5"}


async def test_nova_compute_that_is_down(rows: Rows) -> None:
    rows.host(3, "slow", seen=57)
    rows.host(4, "dead", seen=63)
    rows.host(5, "fenced", forced_down=True)
    rows.add("services", host="never", binary="nova-compute", last_seen_up=None, forced_down=0)
    rows.add("services", host="ctl", binary="nova-scheduler", last_seen_up=None, forced_down=0)
    rows.host(6, "ahead", seen=-30)
    rows.host(7, "far ahead", seen=-63)
    assert (await read(rows)).up == {
        "compute-1": True, "compute-2": True, "slow": True, "dead": False, "fenced": False, "never": None,
        "ahead": True, "far ahead": False,
    }  # fmt: skip
    patient = NovaSource("cell1", rows.url, every_host=True, interval=300, down_after=120)
    assert (await patient.read(WORLD)).up["dead"], "nova.conf may say otherwise"


async def test_nova_compute_that_is_disabled(rows: Rows) -> None:
    rows.host(3, "compute-3")
    rows.run("UPDATE services SET disabled = 1 WHERE host = 'compute-1'")
    rows.run("UPDATE services SET disabled = 0 WHERE host = 'compute-2'")
    everywhere = await read(rows, every_host=True)
    assert everywhere.disabled == {"compute-1"}, "not one of which nothing is said"
    assert everywhere.hosts == ("compute-1", "compute-2", "compute-3")
    here = await read(rows, every_host=False)
    assert here.hosts == ("compute-1",)


@pytest.mark.parametrize(("age", "up"), [(30, True), (90, None)])
async def test_one_that_is_new_counts_from_when_it_was_made(rows: Rows, age: float, up: bool | None) -> None:
    rows.host(3, "new", seen=age)
    rows.run("UPDATE services SET created_at = last_seen_up, last_seen_up = NULL WHERE host = 'new'")
    assert (await read(rows)).up["new"] is up


@pytest.mark.parametrize("every_host", [True, False])
async def test_where_nobody_reports_nothing_is_told(rows: Rows, every_host: bool) -> None:
    """Another servicegroup_driver, or no nova-conductor: all were seen last long ago, or never."""
    rows.host(3, "fenced", forced_down=True)
    rows.run("UPDATE services SET last_seen_up = '2026-01-01 00:00:00'")
    cell = await read(rows, every_host=every_host)
    assert cell.up == {"compute-1": None, "compute-2": None, "fenced": False}
    assert cell.tells is every_host, "of one host it does"


async def test_many_instances(rows: Rows) -> None:
    for n in range(1203):
        rows.vf(1, f"0000:{n >> 8:02x}:{n & 255 >> 3:02x}.{n & 7:x}", f"vm-{n}")
    with_one_more = NovaSource("cell1", rows.url, every_host=False, interval=300, down_after=60)
    assert len((await with_one_more.read(WORLD)).devices) == 1203


async def test_too_many_rows(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nova, "_MOST", 1)
    rows.vf(1, VF)
    rows.vf(1, "0000:3b:00.3")
    with pytest.raises(SourceError) as caught:
        await read(rows)
    assert caught.value.reason is Reason.TOO_LARGE


async def test_nothing_is_written(rows: Rows, tmp_path: Path) -> None:
    rows.vf(1, VF, ALICE)
    file = tmp_path / "cell.sqlite"
    before = hashlib.sha256(file.read_bytes()).digest(), names(tmp_path)
    file.chmod(0o400)
    await read(rows)
    assert (hashlib.sha256(file.read_bytes()).digest(), names(tmp_path)) == before


async def failure(url: str) -> SourceError:
    with pytest.raises(SourceError) as caught:
        await NovaSource("cell1", url, every_host=True, interval=300, down_after=60).read(WORLD)
    assert "pa55" not in caught.value.why
    return caught.value


async def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    error = await failure(f"sqlite:///{tmp_path}/nothing.sqlite")
    assert error.reason is Reason.MISSING
    assert names(tmp_path) == []


async def test_a_database_without_the_tables(tmp_path: Path) -> None:
    (tmp_path / "empty.sqlite").touch()
    error = await failure(f"sqlite:///{tmp_path}/empty.sqlite")
    assert (error.reason, error.why) == (Reason.ANSWERED_ERROR, "nova@cell1: no such table: pci_devices")


async def test_a_server_where_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        error = await failure(f"mysql+pymysql://nova:pa55@127.0.0.1:{free.getsockname()[1]}/nova_cell1")
    assert error.reason is Reason.REFUSED


async def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nova, "CALL", 0.6)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        error = await failure(f"mysql+pymysql://nova:pa55@127.0.0.1:{silent.getsockname()[1]}/nova_cell1")
    assert error.reason in (Reason.TIMEOUT, Reason.CLOSED)


async def test_a_driver_that_is_not_installed() -> None:
    error = await failure("mysql+nosuchdriver://nova:pa55@127.0.0.1/nova")
    assert error.reason is Reason.MISSING


async def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    error = await failure("sqlite:////x")
    assert (error.reason, "pip install 'mecexporter[nova-db]'" in error.why) == (Reason.MISSING, True)


async def test_a_read_that_hangs_is_not_begun_again(rows: Rows) -> None:
    source = NovaSource("cell1", rows.url, every_host=True, interval=300, down_after=60)
    source._reads.running = asyncio.get_running_loop().create_future()
    with pytest.raises(SourceError, match="still hangs"):
        await source.read(WORLD)
    source._reads.running.cancel()


def test_its_name_and_question(rows: Rows) -> None:
    source = NovaSource("cell1", rows.url, every_host=False, interval=300, down_after=60)
    assert (source.name, source.question(WORLD)) == ("nova@cell1", "compute-1")
