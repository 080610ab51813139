"""conf.db of a real ovsdb-server, with a real ovs-vswitchd behind it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import threading
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.ovs import OvsSource, Traffic
from mecexporter.sources.wire.ovsdb_live import Replica
from mecexporter.state.ovs import Counters, Interface, InterfaceKind, OvsConf
from tests.faults.servers import JSON, hostile
from tests.sources.daemons import Node, OvsdbServer, ovs_node, run, running, short_dir
from tests.waiting import eventually, wait_until
from tests.worlds import healthy_compute

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

WORLD = healthy_compute()
PATIENCE = 20


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with ovs_node() as node:
        yield node


@pytest.fixture(autouse=True)
def empty(request: pytest.FixtureRequest) -> None:
    """A database without bridges and keys."""
    if "node" in request.fixturenames:
        node: Node = request.getfixturevalue("node")
        for bridge in node.vsctl("list-br").split():
            node.vsctl("del-br", bridge)
        node.vsctl("clear", "Open_vSwitch", ".", "external_ids", "--", "clear", "Open_vSwitch", ".", "other_config")
        node.vsctl("clear", "Open_vSwitch", ".", "ovs-version", "--", "clear", "Open_vSwitch", ".", "db-version")


@asynccontextmanager
async def source(node: Node | OvsdbServer, bridge: str | None = None) -> AsyncIterator[OvsSource]:
    server = node.server if isinstance(node, Node) else node
    made = OvsSource(f"unix:{server.socket}", bridge, 15)
    try:
        yield made
    finally:
        await made.close()


async def read(node: Node, bridge: str | None = None) -> OvsConf:
    async with source(node, bridge) as ovs:
        return await ovs.read(WORLD)


def named(conf: OvsConf, name: str) -> Interface:
    (found,) = [i for i in conf.interfaces if i.name == name]
    return found


async def test_an_empty_database(node: Node) -> None:
    conf = await read(node)
    assert (conf.system_id, conf.hostname, conf.ovn_remote) == (None, None, None)
    assert (conf.encap_types, conf.encap_ips, conf.remembered_ids) == ((), (), ())
    assert (conf.bridges, conf.interfaces) == ((), ())
    assert conf.integration_bridge == "br-int"
    assert conf.schema_version is None, "ovs-ctl writes it"
    assert conf.ovn_settings == {}


async def test_what_ovn_is_told(node: Node) -> None:
    node.vsctl(
        "set",
        "Open_vSwitch",
        ".",
        "external_ids:system-id=host 1",
        "external_ids:hostname=Compute-1.example.com",
        'external_ids:ovn-remote="ssl:192.0.2.1:6642,ssl:192.0.2.2:6642"',
        'external_ids:ovn-encap-type="geneve, vxlan"',
        'external_ids:ovn-encap-ip="192.0.2.3,192.0.2.4"',
        "external_ids:ovn-bridge=br-ovn",
        'other_config:ovn-chassis-idx-b=""',
        "other_config:ovn-chassis-idx-a=0",
        "other_config:vlan-limit=0",
    )
    conf = await read(node)
    assert conf.system_id == "host 1"
    assert conf.hostname == "Compute-1.example.com"
    assert conf.ovn_remote == "ssl:192.0.2.1:6642,ssl:192.0.2.2:6642"
    assert conf.encap_types == ("geneve", "vxlan")
    assert conf.encap_ips == ("192.0.2.3", "192.0.2.4")
    assert conf.integration_bridge == "br-ovn"
    assert conf.ovn_settings == {
        "hostname": "Compute-1.example.com",
        "ovn-bridge": "br-ovn",
        "ovn-encap-ip": "192.0.2.3,192.0.2.4",
        "ovn-encap-type": "geneve, vxlan",
        "ovn-remote": "ssl:192.0.2.1:6642,ssl:192.0.2.2:6642",
    }, "to the letter, and without the id"
    assert conf.remembered_ids == ("a", "b")
    assert (await read(node, "br-mine")).integration_bridge == "br-mine", "as configured here"


async def test_the_schemas_version(node: Node) -> None:
    node.vsctl("set", "Open_vSwitch", ".", "ovs-version=3.1.0", "db-version=8.3.1")
    assert (await read(node)).schema_version == "8.3.1"


async def test_an_empty_id_is_not_a_missing_one(node: Node) -> None:
    node.vsctl("set", "Open_vSwitch", ".", 'external_ids:system-id=""', 'external_ids:hostname=""')
    conf = await read(node)
    assert conf.system_id == ""
    assert conf.hostname is None


@pytest.mark.parametrize("name", ["a\nb", 'say "hi"', "<b>x</b>", "名", "\\", "x\x1b[31m"])
async def test_names_with_anything_in_them(node: Node, name: str) -> None:
    node.vsctl("set", "Open_vSwitch", ".", f"external_ids:system-id={json.dumps(name)}")
    assert (await read(node)).system_id == name


async def test_interfaces_of_each_kind(node: Node) -> None:
    node.vsctl("add-br", "br-int", "--", "set", "bridge", "br-int", "external_ids:ovn-nb-cfg=7")
    node.vsctl("add-br", "br-ex", "--", "set", "bridge", "br-ex", "external_ids:ovn-nb-cfg=many")
    node.vsctl("add-port", "br-ex", "eth1")
    node.vsctl("add-port", "br-int", "vm1", "--", "set", "interface", "vm1", "external_ids:iface-id=port-1")
    node.vsctl(
        *("add-port", "br-int", "vm2", "--", "set", "interface", "vm2", "external_ids:iface-id=port-2"),
        "external_ids:ovn-installed=true",
    )
    node.vsctl("add-port", "br-int", "other")
    node.vsctl(
        *(
            "add-port",
            "br-int",
            "ovn-p-0",
            "--",
            "set",
            "interface",
            "ovn-p-0",
            "type=geneve",
            "options:remote_ip=192.0.2.9",
        ),
        *("--", "set", "port", "ovn-p-0", "external_ids:ovn-chassis-id=peer@192.0.2.9"),
    )
    node.vsctl("add-port", "br-int", "patch1", "--", "set", "interface", "patch1", "type=patch", "options:peer=patch2")
    node.vsctl("add-port", "br-ex", "patch2", "--", "set", "interface", "patch2", "type=patch", "options:peer=patch1")
    # Told to wait, ovs-vsctl fails from 4.0 on.
    node.vsctl("--no-wait", "add-port", "br-int", "broken", "--", "set", "interface", "broken", "type=nonsense")
    wait_until(lambda: "-1" in node.vsctl("get", "interface", "broken", "ofport"), 10, "it is tried")
    async with source(node) as ovs:
        conf = await ovs.read(WORLD)
    assert {b.name: b.nb_cfg for b in conf.bridges} == {"br-ex": None, "br-int": 7}
    assert {i.name: i.kind for i in conf.interfaces} == {
        "br-int": InterfaceKind.INTERNAL,
        "br-ex": InterfaceKind.INTERNAL,
        "eth1": InterfaceKind.UPLINK,
        "vm1": InterfaceKind.VIF,
        "vm2": InterfaceKind.VIF,
        "other": InterfaceKind.OTHER,
        "ovn-p-0": InterfaceKind.TUNNEL,
        "patch1": InterfaceKind.PATCH,
        "patch2": InterfaceKind.PATCH,
        "broken": InterfaceKind.OTHER,
    }
    assert (named(conf, "vm1").ovn_installed, named(conf, "vm2").ovn_installed) == (False, True)
    assert {i.name for i in conf.uninstalled()} == {"vm1"}
    assert named(conf, "ovn-p-0").remote_chassis == "peer@192.0.2.9"
    broken = named(conf, "broken")
    assert broken.ofport == -1
    assert broken.error
    assert named(conf, "vm1").ofport
    assert conf.traffic.keys() == {("br-ex", "eth1"), ("br-int", "ovn-p-0"), ("br-int", "broken")}
    assert conf.traffic_by_kind.keys() == set(InterfaceKind)


async def test_changes_are_seen_at_the_next_read(node: Node) -> None:
    async with source(node) as ovs:
        assert (await ovs.read(WORLD)).interfaces == ()
        for name in ("a", "b", "c"):
            node.vsctl("add-br", f"br-{name}")
        conf = await ovs.read(WORLD)
        assert {b.name for b in conf.bridges} == {"br-a", "br-b", "br-c"}
        node.vsctl("set", "Open_vSwitch", ".", "external_ids:system-id=new")
        node.vsctl("del-br", "br-b")
        conf = await ovs.read(WORLD)
        assert {b.name for b in conf.bridges} == {"br-a", "br-c"}
        assert conf.system_id == "new"


def threads() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if t is not threading.main_thread()}


def left(before: set[threading.Thread]) -> set[threading.Thread]:
    """Threads since then, without the one that makes all copies of this process."""
    return {t for t in threads() - before if not t.name.startswith("copies")}


async def test_closed_it_leaves_no_thread(node: Node) -> None:
    before = threads()
    async with source(node) as ovs:
        await ovs.read(WORLD)
        assert left(before)
    await eventually(lambda: not left(before), PATIENCE, "its threads have ended")


@pytest.fixture
def slow_copies(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Copies that are not made before this is set, as where there are thousands of interfaces; no waiting for them."""
    may = threading.Event()
    connect = Replica._connect

    def slowly(self: Replica[Any]) -> Any:
        may.wait(PATIENCE)
        return connect(self)

    monkeypatch.setattr(Replica, "_connect", slowly)
    monkeypatch.setattr("mecexporter.sources.ovs._PATIENCE", 0.05)
    yield may
    may.set()


def has_copy(ovs: OvsSource) -> bool:
    return ovs._replica is not None


class TestFirstCopy:
    """It may take longer than a read has."""

    async def test_it_is_kept_over_reads_while_the_server_answers(
        self, node: Node, slow_copies: threading.Event
    ) -> None:
        async with source(node) as ovs:
            assert [await reason_of(ovs) for _ in range(3)] == [Reason.PENDING] * 3
            replica = ovs._replica
            assert replica is not None
            slow_copies.set()
            await eventually_reads(ovs, None)
            assert ovs._replica is replica, "the one that was begun at first"

    async def test_it_is_dropped_when_the_server_is_silent(self, node: Node, slow_copies: threading.Event) -> None:
        async with source(node) as ovs:
            ovs.deadline = 1.0
            assert await reason_of(ovs) is Reason.PENDING
            assert has_copy(ovs)
            node.server.suspend()
            try:
                assert await reason_of(ovs) is Reason.TIMEOUT
                assert not has_copy(ovs)
            finally:
                node.server.resume()
            slow_copies.set()
            await eventually_reads(ovs, None)

    async def test_closing_leaves_nothing_behind(self, node: Node, slow_copies: threading.Event) -> None:
        before, connections = threads(), sockets()
        async with source(node) as ovs:
            assert await reason_of(ovs) is Reason.PENDING
        slow_copies.set()
        await eventually(
            lambda: not left(before) and sockets() == connections, PATIENCE, "threads and sockets are gone"
        )


async def test_replicas_come_and_go_and_no_file_stays_open(node: Node) -> None:
    """Asked for a UUID, libuuid keeps a file open for each thread that ever did (where we may write it)."""
    async with source(node) as ovs:
        for _ in range(3):
            await ovs.read(WORLD)
            await ovs._drop()
        before = len(files())
        for _ in range(30):
            await ovs.read(WORLD)
            await ovs._drop()
        await eventually(lambda: len(files()) <= before, PATIENCE, "no more files are open than before")


def files() -> list[str]:
    """What this process has open, but for what ovsdbapp leaves to the garbage collector (a pipe a connection)."""
    gc.collect()
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found.append(str(descriptor.readlink()))
    return sorted(found)


def sockets() -> int:
    return sum(name.startswith("socket:") for name in files())


async def reason_of(ovs: OvsSource) -> Reason | None:
    try:
        async with asyncio.timeout(ovs.deadline):
            await ovs.read(WORLD)
    except SourceError as error:
        return error.reason
    except TimeoutError:
        return Reason.TIMEOUT
    return None


class TestServer:
    """The server dies, restarts, is stopped, has its database replaced."""

    @pytest.fixture
    def directory(self) -> Iterator[Path]:
        with short_dir() as directory:
            yield directory

    @staticmethod
    def server(directory: Path, system_id: str) -> OvsdbServer:
        made = OvsdbServer(directory, "Open_vSwitch")
        made.start()
        run("ovs-vsctl", "--no-wait", f"--db=unix:{made.socket}", "init")
        run(
            "ovs-vsctl",
            "--no-wait",
            f"--db=unix:{made.socket}",
            "set",
            "Open_vSwitch",
            ".",
            f"external_ids:system-id={system_id}",
        )
        return made

    async def test_killed_and_started_again(self, directory: Path) -> None:
        server = self.server(directory, "one")
        try:
            async with source(server) as ovs:
                assert (await ovs.read(WORLD)).system_id == "one"
                server.kill()
                assert await reason_of(ovs) in {Reason.REFUSED, Reason.CLOSED}
                assert await reason_of(ovs) is Reason.REFUSED
                server.stop()
                server.socket.unlink()
                assert await reason_of(ovs) is Reason.MISSING
                server.start()
                assert (await ovs.read(WORLD)).system_id == "one", "at the first read"
        finally:
            server.kill()

    async def test_its_database_was_wiped(self, directory: Path) -> None:
        server = self.server(directory, "one")
        try:
            async with source(server) as ovs:
                assert (await ovs.read(WORLD)).system_id == "one"
                server.stop()
                server.file.unlink()
                server = self.server(directory, "two")
                await eventually_reads(ovs, "two")
        finally:
            server.kill()

    async def test_stopped_it_is_silent_and_goes_on(self, directory: Path) -> None:
        server = self.server(directory, "one")
        try:
            async with source(server) as ovs:
                ovs.deadline = 1.0
                assert (await ovs.read(WORLD)).system_id == "one"
                server.suspend()
                assert await reason_of(ovs) is Reason.TIMEOUT
                server.resume()
                ovs.deadline = 5.0
                await eventually_reads(ovs, "one")
        finally:
            server.kill()

    async def test_a_database_without_its_root_row(self, directory: Path) -> None:
        server = OvsdbServer(directory, "Open_vSwitch")
        with running(server):
            async with source(server) as ovs:
                with pytest.raises(SourceError, match="0 root rows, not one") as caught:
                    await ovs.read(WORLD)
        assert caught.value.reason is Reason.GARBAGE

    async def test_another_database_is_no_open_vswitch(self, directory: Path) -> None:
        server = OvsdbServer(directory, "OVN_Southbound")
        with running(server):
            async with source(server) as ovs:
                assert await reason_of(ovs) is Reason.ANSWERED_ERROR

    @pytest.mark.parametrize("name", ["garbage", "half_then_close", "close_at_once"])
    async def test_somebody_else_behind_its_socket(self, directory: Path, name: str) -> None:
        server = self.server(directory, "one")
        try:
            async with source(server) as ovs:
                assert (await ovs.read(WORLD)).system_id == "one"
                server.kill()
                async with hostile(server.socket, JSON[name]):
                    assert await reason_of(ovs) in {Reason.GARBAGE, Reason.CLOSED}
                server.start()
                await eventually_reads(ovs, "one")
        finally:
            server.kill()


async def eventually_reads(ovs: OvsSource, system_id: str | None) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                async with asyncio.timeout(ovs.deadline):
                    if (await ovs.read(WORLD)).system_id == system_id:
                        return
            except (SourceError, TimeoutError):
                await asyncio.sleep(0)


class TestTraffic:
    VIF, UPLINK = InterfaceKind.VIF, InterfaceKind.UPLINK

    def test_what_was_before_the_first_look_does_not_count(self) -> None:
        traffic = Traffic()
        traffic.add({(self.VIF, "a"): Counters(rx_packets=100)})
        assert traffic.sums() == {self.VIF: Counters()}
        traffic.add({(self.VIF, "a"): Counters(rx_packets=110, tx_bytes=5)})
        assert traffic.sums() == {self.VIF: Counters(rx_packets=10, tx_bytes=5)}

    def test_sums_never_fall_though_interfaces_go(self) -> None:
        traffic = Traffic()
        traffic.add({(self.VIF, "a"): Counters(), (self.VIF, "b"): Counters()})
        traffic.add({(self.VIF, "a"): Counters(rx_bytes=7), (self.VIF, "b"): Counters(rx_bytes=5)})
        traffic.add({})
        assert traffic.sums()[self.VIF].rx_bytes == 12

    def test_one_that_begins_again_at_zero_adds_what_it_has_counted_since(self) -> None:
        traffic = Traffic()
        for packets in (0, 50, 3):
            traffic.add({(self.VIF, "a"): Counters(rx_packets=packets)})
        assert traffic.sums()[self.VIF].rx_packets == 53

    def test_one_that_comes_to_be_of_another_kind_brings_no_past(self) -> None:
        traffic = Traffic()
        traffic.add({(self.UPLINK, "a"): Counters(rx_packets=1000)})
        traffic.add({(self.VIF, "a"): Counters(rx_packets=1001)})
        assert traffic.sums() == {self.VIF: Counters(rx_packets=1), self.UPLINK: Counters()}

    def test_a_new_one_may_be_an_old_device(self) -> None:
        traffic = Traffic()
        traffic.add({})
        traffic.add({(self.UPLINK, "a"): Counters(rx_packets=10**9)})
        assert traffic.sums()[self.UPLINK].rx_packets == 0
