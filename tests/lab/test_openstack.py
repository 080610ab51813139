"""The lab's OpenStack: real services start soon, do what Nova and an operator ask of them, and leave nothing."""

from __future__ import annotations

import json
import os
import time
import urllib.request
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab import openstack_scene as scene
from tests.lab.monitoring import get
from tests.lab.nova_cell import port_request
from tests.lab.openstack import OpenStack
from tests.lab.openstack_releases import newest
from tests.lab.openstack_services import ApiError, ask
from tests.lab.site import LabError, processes, run
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root"), pytest.mark.timeout(600)]
SECONDS = 30
HOST = "compute-9"
"""Of the tests that change something; those of the scene are as they were made."""


@pytest.fixture(scope="module", name="cloud")
def a_cloud() -> Iterator[OpenStack]:
    with OpenStack([*scene.HOSTS, HOST]) as cloud:
        yield cloud


@pytest.fixture(scope="module", name="answers")
def its_answers(cloud: OpenStack) -> dict[str, Any]:
    return scene.answers(cloud)


@pytest.fixture(scope="module", name="network")
def a_network(cloud: OpenStack) -> str:
    return cloud.create_network("of the tests")


def test_a_direct_port_is_bound_by_ovn_or_by_the_agent_of_its_host(answers: dict[str, Any]) -> None:
    bound = {
        (port["device_id"], port["binding:vnic_type"]): (port["binding:host_id"], port["binding:vif_type"])
        for port in answers["neutron_ports"]["ports"]
    }
    assert bound == {
        (scene.WITH_PORT, "direct"): (scene.FIRST, "ovs"),
        (scene.WITH_PORT, "normal"): (scene.FIRST, "ovs"),
        (scene.RESIZED, "direct"): (scene.SECOND, "hw_veb"),
    }


def test_placement_has_a_provider_for_each_pf(answers: dict[str, Any]) -> None:
    providers = answers["placement_resource_providers"]["resource_providers"]
    assert {provider["name"] for provider in providers} == {
        "compute-1.example.org_0000:3B:00.0",
        "compute-2.example.org_0000:3B:00.0",
    }
    assert answers["placement_inventories"]["inventories"][scene.CLASS]["total"] == len(scene.VFS)
    assert answers["placement_allocations"]["allocations"].keys() == {scene.WITH_PORT, scene.LEAKED}
    assert answers["placement_usages"]["usages"] == {scene.CLASS: 2}


def test_novas_rows_tell_of_claims_leaks_and_moves(answers: dict[str, Any]) -> None:
    owned = {
        (device["compute_node_id"], device["address"][-1]): (device["instance_uuid"], device["status"])
        for device in answers["nova_pci_devices"]
        if device["status"] != "available"
    }
    assert owned == {
        (1, "2"): (scene.WITH_PORT, "allocated"),
        (1, "3"): (scene.BY_FLAVOUR, "allocated"),
        (1, "4"): (scene.RESIZED, "allocated"),
        (1, "5"): (scene.LEAKED, "allocated"),
        (1, "6"): (scene.BUILDING, "claimed"),
        (2, "2"): (scene.RESIZED, "allocated"),
    }
    (pool,) = answers["nova_compute_nodes"][0]["pci_stats"]["nova_object.data"]["objects"]
    assert pool["nova_object.data"]["count"] == len(scene.VFS) - 5


def test_the_recorded_answers_are_still_what_the_services_say(answers: dict[str, Any]) -> None:
    assert_as_recorded("debian", answers)


def test_the_cell_on_mariadb_has_the_same_rows(cloud: OpenStack, answers: dict[str, Any]) -> None:
    scene.make_rows(cloud.cell, {})
    columns = "compute_node_id, address, status, instance_uuid, request_id"
    found = cloud.mariadb.sql(f"SELECT {columns} FROM pci_devices ORDER BY id", "nova_cell1")  # noqa: S608  # ours
    assert found == [
        [str(device["compute_node_id"]), device["address"], device["status"], device["instance_uuid"] or "NULL",
         device["request_id"] or "NULL"]
        for device in answers["nova_pci_devices"]
    ]  # fmt: skip
    ((text,),) = cloud.mariadb.sql(
        f"SELECT pci_requests FROM instance_extra WHERE instance_uuid = '{scene.BY_FLAVOUR}'",  # noqa: S608  # ours
        "nova_cell1",
    )
    recorded = {row["instance_uuid"]: row["pci_requests"] for row in answers["nova_instance_extra"]}
    assert json.loads(text) == recorded[scene.BY_FLAVOUR]


def test_an_instances_life_in_the_cell(cloud: OpenStack) -> None:
    cell, instance, vf = cloud.cell, str(uuid.uuid4()), "0000:5e:00.2"

    def states() -> list[list[str]]:
        query = f"SELECT deleted > 0, status, instance_uuid FROM pci_devices WHERE address = '{vf}'"  # noqa: S608  # ours
        return cloud.mariadb.sql(query, "nova_cell1")

    cell.add_host(HOST)
    cell.add_vf(HOST, vf, "0000:5e:00.0", numa_node=1)
    assert states() == [["0", "available", "NULL"]]
    cell.add_instance(instance, HOST, [port_request(str(uuid.uuid4()), None)], task_state="spawning")
    cell.claim(instance, HOST, vf)
    assert states() == [["0", "claimed", instance]]
    cell.allocate(instance, HOST, vf)
    cell.set_instance(instance, task_state=None)
    assert states() == [["0", "allocated", instance]]
    with pytest.raises(LabError, match="PciDeviceInvalidStatus"):
        cell.claim(instance, HOST, vf)
    cell.free(HOST, vf)
    cell.remove_vf(HOST, vf)
    assert states() == [["1", "available", "NULL"]]
    cell.delete_instance(instance)
    query = f"SELECT deleted > 0 FROM instances WHERE uuid = '{instance}'"  # noqa: S608  # ours
    assert cloud.mariadb.sql(query, "nova_cell1") == [["1"]]


def test_migrations_come_and_go_in_the_cell(cloud: OpenStack) -> None:
    cell, instance = cloud.cell, str(uuid.uuid4())
    for host in ("compute-7", "compute-8"):
        cell.add_host(host)
        cell.add_vf(host, "0000:5e:00.3", "0000:5e:00.0")
    cell.add_instance(instance, "compute-7")
    migration = cell.add_migration(
        instance, "compute-7", "compute-8", migration_type="live-migration", status="running"
    )
    places = [(host, "0000:5e:00.3") for host in ("compute-7", "compute-8")]
    cell.set_migration_context(instance, migration, old=places[:1], new=places[1:])
    assert context(cloud, instance).count('"address": "0000:5e:00.3"') == 2
    cell.drop_migration_context(instance)
    cell.set_migration(migration, status="completed")
    assert context(cloud, instance) == "NULL"
    query = f"SELECT status FROM migrations WHERE instance_uuid = '{instance}'"  # noqa: S608  # ours
    assert cloud.mariadb.sql(query, "nova_cell1") == [["completed"]]


def test_a_nova_compute_reports_and_is_forced_down(cloud: OpenStack) -> None:
    def service() -> list[str]:
        columns = "last_seen_up > NOW() - INTERVAL 1 MINUTE, forced_down"
        (row,) = cloud.mariadb.sql(f"SELECT {columns} FROM services WHERE host = 'compute-6'", "nova_cell1")  # noqa: S608  # ours
        return row

    cloud.cell.add_host("compute-6")
    cloud.mariadb.sql("UPDATE services SET last_seen_up = '2020-01-01' WHERE host = 'compute-6'", "nova_cell1")
    assert service() == ["0", "0"]
    cloud.cell.report("compute-6")
    cloud.cell.set_service("compute-6", forced_down=True)
    assert service() == ["1", "1"]


def test_an_exporters_account_may_read_its_cell_and_no_more(cloud: OpenStack) -> None:
    reader = ("mariadb", "--no-defaults", "--host=127.0.0.1", f"--port={cloud.mariadb.port}", "--user=reader",
              "--password=r3ader", "--execute")  # fmt: skip
    run(*reader, "SELECT COUNT(*) FROM nova_cell1.pci_devices")
    for refused in ("DELETE FROM nova_cell1.pci_devices", "SELECT * FROM neutron.ports"):
        with pytest.raises(LabError, match="denied"):
            run(*reader, refused)


def test_a_port_is_in_northbound_until_it_is_deleted(cloud: OpenStack, network: str) -> None:
    port = cloud.create_port(network, HOST, "0000:5e:00.4", str(uuid.uuid4()))
    assert port in cloud.nbctl("list", "Logical_Switch_Port")
    cloud.update_port(port, **{"binding:host_id": scene.FIRST})
    assert [found["binding:host_id"] for found in cloud.ports(id=port)] == [scene.FIRST]
    cloud.delete_port(port)
    assert port not in cloud.nbctl("list", "Logical_Switch_Port")
    with pytest.raises(ApiError) as error:
        cloud.delete_port(port)
    assert error.value.status == 404


def test_allocations_add_up(cloud: OpenStack) -> None:
    host = cloud.create_provider(HOST)
    pfs = [cloud.create_pf_provider(HOST, host, f"0000:5e:00.{n}", 2, resource=scene.CLASS) for n in (0, 1)]
    consumer = str(uuid.uuid4())
    cloud.allocate(consumer, pfs[0], scene.CLASS)
    cloud.allocate(consumer, pfs[0], scene.CLASS)
    cloud.allocate(consumer, pfs[1], scene.CLASS)
    assert used(cloud, pfs) == [2, 1]
    with pytest.raises(ApiError, match="409"):
        cloud.allocate(str(uuid.uuid4()), pfs[0], scene.CLASS)
    cloud.deallocate(consumer, pfs[0], scene.CLASS, 2)
    assert used(cloud, pfs) == [0, 1]
    cloud.deallocate(consumer, pfs[1], scene.CLASS)
    assert used(cloud, pfs) == [0, 0]


def test_services_stop_hang_and_come_back(cloud: OpenStack, network: str) -> None:
    for service, address in ((cloud.neutron, f"{cloud.neutron.api}/networks"), (cloud.placement, cloud.placement.url)):
        service.stop()
        assert get(address) is None
        service.start()
        assert get(address) is not None
        service.suspend()
        with pytest.raises(TimeoutError):
            urllib.request.urlopen(address, timeout=0.5)  # noqa: S310  # ours
        service.resume()
        wait_until(lambda: get(address) is not None, SECONDS, "it goes on")  # noqa: B023  # called here
    cloud.mariadb.stop()
    cloud.mariadb.start()
    assert cloud.network("GET", f"/networks/{network}")["network"]["name"] == "of the tests"


@pytest.mark.filterwarnings("ignore")  # openstacksdk 4 warns of itself at each start
def test_openstacksdk_uses_it_without_keystone(
    cloud: OpenStack, answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    openstack = pytest.importorskip("openstack")
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(cloud.clouds()))
    connection = openstack.connect(cloud="lab")
    ports = connection.network.get("/ports", params={"device_id": scene.WITH_PORT}).json()["ports"]
    assert {port["binding:vnic_type"] for port in ports} == {"direct", "normal"}
    providers = answers["placement_resource_providers"]["resource_providers"]
    answer = connection.placement.get("/resource_providers", params={"uuid": providers[0]["uuid"]}).json()
    assert answer == {"resource_providers": providers[:1]}
    connection.close()


def test_another_starts_soon_beside_it_and_leaves_nothing(cloud: OpenStack) -> None:
    began = time.monotonic()
    with OpenStack() as other:
        assert time.monotonic() - began < SECONDS  # three on two idle cores
        assert other.ports() == []
        assert other.place("GET", "/resource_providers") == {"resource_providers": []}
        directory: Path = other.dir
    assert not directory.exists()
    assert list(processes(other.name)) == []
    assert cloud.network("GET", "/networks")["networks"]


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_newest_releases_answer_as_recorded() -> None:
    with OpenStack(scene.HOSTS, release=newest(), maintenance=True) as cloud:
        assert_as_recorded("newest", scene.answers(cloud))
        cloud.neutron.stop()
        cloud.neutron.start()
        assert len(cloud.ports()) == 3


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore")  # openstacksdk 4 warns of itself at each start
def test_with_keystone_a_token_ends_and_openstacksdk_gets_another(monkeypatch: pytest.MonkeyPatch) -> None:
    openstack = pytest.importorskip("openstack")
    with OpenStack(release=newest(), token_seconds=3600) as cloud:
        keystone = cloud.keystone
        assert keystone is not None
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(cloud.clouds()))
        connection = openstack.connect(cloud="lab")
        assert connection.network.get("/ports").json() == {"ports": []}
        token = connection.session.get_token()
        keystone.revoke(token)
        for address in (f"{cloud.neutron.api}/ports", f"{cloud.placement.url}/resource_providers"):
            with pytest.raises(ApiError) as refused:
                ask("GET", address, **{"X-Auth-Token": token})
            assert refused.value.status == 401
        assert connection.placement.get("/resource_providers").json() == {"resource_providers": []}
        assert connection.session.get_token() != token
        connection.close()


def used(cloud: OpenStack, providers: list[str]) -> list[int]:
    usages = [cloud.place("GET", f"/resource_providers/{provider}/usages")["usages"] for provider in providers]
    return [usage[scene.CLASS] for usage in usages]


def context(cloud: OpenStack, instance: str) -> str:
    query = f"SELECT migration_context FROM instance_extra WHERE instance_uuid = '{instance}'"  # noqa: S608  # ours
    ((text,),) = cloud.mariadb.sql(query, "nova_cell1")
    return text


def assert_as_recorded(release: str, answers: dict[str, Any]) -> None:
    for name, answer in answers.items():
        recorded = json.loads((scene.RECORDED / release / f"{name}.json").read_text())
        assert shape(answer) == shape(recorded), name


def shape(value: Any) -> Any:
    """Of JSON: its keys and types; what stands at a UUID, and what order a list has, is of one run only."""
    if isinstance(value, dict):
        return {key if len(key) != 36 else "UUID": shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return sorted({json.dumps(shape(inner), sort_keys=True) for inner in value})
    return type(value).__name__
