"""Flows of the kernel's datapath, played and recorded, and of a real ovs-vswitchd's own."""

from __future__ import annotations

import errno
import re
import struct
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mecexporter.errors import Reason, SourceError
from mecexporter.sources import ovs_flows
from mecexporter.sources.ovs_flows import OvsFlowsSource
from mecexporter.sources.wire import dpctl, ovs_netlink
from mecexporter.sources.wire.netlink import attribute
from mecexporter.sources.wire.ovs_netlink import FlowReader, PortType
from mecexporter.state.datapath import Counted, FlowClass, FlowTable, Layer, Obstacle, Path, PortKind, Protocol
from mecexporter.state.observed import Fresh
from mecexporter.state.ovs import Bridge, InterfaceKind
from tests.hwlab import FIXTURES
from tests.sources import ovs_messages as ovs
from tests.sources.daemons import Node, ovs_node, run
from tests.sources.netlink_kernel import PlayedNetlink
from tests.sources.recordings import HEADER, messages
from tests.waiting import wait_until
from tests.worlds import changed, healthy_compute, healthy_sriov, interface, without

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path as File

FAMILIES = {"nlctrl": 0x10, "ovs_datapath": 24, "ovs_vport": 25, "ovs_flow": 26}
VPORTS = {0: ("ovs-system", 2), 1: ("ens1f0npf0vf1", 1), 2: ("ens1f0np0", 1), 3: ("genev_sys_6081", 1), 4: ("tap1", 1)}
PLAIN = FlowClass(path=Path.SOFTWARE, protocol=Protocol.TCP, conntrack=False, layer=Layer.KERNEL)
WORLD = changed(healthy_sriov(), "vswitchd", datapaths=())


class Kernel:
    """One datapath, ``ovs-system``; ``errors`` by family, ``flows`` as many as there are."""

    def __init__(self) -> None:
        self.flows: list[bytes] = []
        self.families = dict(FAMILIES)
        self.errors: dict[str, int] = {}
        self.count: int | None = None

    def answer(self, kind: int, body: bytes) -> Iterable[bytes] | int:
        name = next(name for name, number in FAMILIES.items() if number == kind)
        assert body[0] == 3, "GET, of whatever"
        if name in self.errors:
            return self.errors[name]
        return {"nlctrl": self._controller, "ovs_datapath": self._datapaths, "ovs_vport": self._ports}.get(
            name, self.shown
        )()

    def shown(self) -> Iterable[bytes]:
        return self.flows

    def _controller(self) -> Iterator[bytes]:
        for name, number in self.families.items():
            yield bytes(4) + attribute(1, struct.pack("=H", number)) + attribute(2, name.encode() + b"\0")

    def _datapaths(self) -> Iterator[bytes]:
        counts = struct.pack("=4Q", 1, 2, 3, len(self.flows) if self.count is None else self.count)
        yield ovs.header(6) + attribute(1, b"ovs-system\0") + attribute(3, counts)

    def _ports(self) -> Iterator[bytes]:
        for number, (name, kind) in VPORTS.items():
            numbers = [attribute(of, struct.pack("=I", value)) for of, value in ((1, number), (2, kind))]
            yield ovs.header(6) + b"".join(numbers) + attribute(3, name.encode() + b"\0")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(ovs_flows, "Netlink", lambda _: PlayedNetlink(kernel.answer))
    return kernel


@pytest.fixture
def source(tmp_path: File) -> OvsFlowsSource:
    return OvsFlowsSource(tmp_path, None, 60)


def ufid(number: int) -> bytes:
    return struct.pack(">QQ", 0, number)


def flow(number: int, packets: int = 0, *actions: bytes, in_port: int = 4, proto: int = 6) -> bytes:
    key = {6: b"\x08\0", 7: ovs.ipv4(proto)}
    return ovs.flow(key, None, *actions, packets=packets, octets=packets * 100, ufid=ufid(number), in_port=in_port)


async def test_what_flows_of_the_kernel_carried(kernel: Kernel, source: OvsFlowsSource) -> None:
    kernel.flows = [flow(1, 10, ovs.output()), flow(2, 5, ovs.ct(), ovs.recirc())]
    first = await source.read(WORLD)
    tracked = replace(PLAIN, conntrack=True, terminal=False)
    assert first.flows == {PLAIN: 1, tracked: 1}
    assert first.totals == {PLAIN: Counted()}
    kernel.flows = [flow(1, 17, ovs.output()), flow(2, 12, ovs.ct(), ovs.recirc()), flow(3, 4, ovs.output())]
    second = await source.read(WORLD)
    assert second.totals == {PLAIN: Counted(11, 1100)}
    assert second.flows == {PLAIN: 2, tracked: 1}


async def test_table_that_is_rehashed_while_it_is_read_is_read_again(
    kernel: Kernel, source: OvsFlowsSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = [flow(number, 1000, ovs.output()) for number in range(4)]
    shown = [every, every, [every[0], every[1], every[0], every[1]], every, every]
    monkeypatch.setattr(kernel, "shown", lambda: shown.pop(0))
    tables = [await source.read(WORLD) for _ in range(4)]
    assert [table.flows for table in tables] == [{PLAIN: 4}] * 4
    assert tables[-1].totals == {PLAIN: Counted()}
    assert not shown


async def test_where_flows_come_from(kernel: Kernel, source: OvsFlowsSource) -> None:
    kernel.flows = [flow(port, 1, ovs.output(), in_port=port) for port in (*VPORTS, 77)]
    kinds = {found.port_kind: number for found, number in (await source.read(WORLD)).flows.items()}
    assert kinds == {
        PortKind.INTERNAL: 1,
        PortKind.REPRESENTOR: 1,
        PortKind.UPLINK: 1,
        PortKind.TUNNEL: 1,
        PortKind.OTHER: 2,
    }


async def test_device_of_gre_with_conntrack_is_named(kernel: Kernel, source: OvsFlowsSource) -> None:
    kernel.flows = [
        flow(1, 1, ovs.ct(), ovs.output(), in_port=1, proto=47),
        flow(2, 1, ovs.output(), in_port=1, proto=47),
        flow(3, 1, ovs.ct(), ovs.output(), in_port=1),
    ]
    named = {found.port for found in (await source.read(WORLD)).flows if found.conntrack}
    assert named == {"ens1f0npf0vf1", ""}
    assert sum(1 for found in (await source.read(WORLD)).flows if found.port) == 1


async def test_kernel_without_the_module_has_no_flows(kernel: Kernel, source: OvsFlowsSource) -> None:
    kernel.families = {"nlctrl": 0x10}
    table = await source.read(WORLD)
    assert (table.flows, table.totals) == ({}, {})


async def test_datapath_in_another_network_namespace_is_not_told(kernel: Kernel, source: OvsFlowsSource) -> None:
    kernel.families = {"nlctrl": 0x10}
    error = await why_not(source, healthy_sriov())
    assert error.reason is Reason.MISSING
    assert error.why.endswith("not in this network namespace")


async def test_devices_that_are_not_known(kernel: Kernel, source: OvsFlowsSource) -> None:
    kernel.flows = [flow(1, 10, ovs.output())]
    assert (await why_not(source, without(WORLD, "sysfs"))).reason is Reason.MISSING


async def why_not(source: OvsFlowsSource, world: object = WORLD) -> SourceError:
    with pytest.raises(SourceError) as caught:
        await source.read(world)  # type: ignore[arg-type]  # a World
    return caught.value


async def test_more_flows_than_are_read(kernel: Kernel, source: OvsFlowsSource) -> None:
    kernel.count = 200_001
    error = await why_not(source)
    assert error.reason is Reason.TOO_LARGE
    assert "200001" in error.why


@pytest.mark.parametrize(
    ("error", "reason"), [(errno.EPERM, Reason.PERMISSION), (errno.EOPNOTSUPP, Reason.ANSWERED_ERROR)]
)
@pytest.mark.parametrize("family", FAMILIES)
async def test_kernel_that_refuses(
    kernel: Kernel, source: OvsFlowsSource, family: str, error: int, reason: Reason
) -> None:
    kernel.errors = {family: error}
    assert (await why_not(source)).reason is reason


async def test_datapath_that_went_away_meanwhile(kernel: Kernel, source: OvsFlowsSource) -> None:
    kernel.flows = [flow(1, 10, ovs.output())]
    await source.read(WORLD)
    kernel.errors = {"ovs_vport": errno.ENODEV}
    assert (await source.read(WORLD)).flows == {}


async def test_flow_that_is_none_spoils_the_read_and_not_the_count(kernel: Kernel, source: OvsFlowsSource) -> None:
    kernel.flows = [flow(1, 10, ovs.output())]
    await source.read(WORLD)
    kernel.flows = [flow(1, 15, ovs.output()), b"\0" * 12]
    assert (await why_not(source)).reason is Reason.GARBAGE
    kernel.flows = [flow(1, 21, ovs.output())]
    assert (await source.read(WORLD)).totals[PLAIN] == Counted(11, 1100)


def test_the_more_it_costs_the_more_seldom(source: OvsFlowsSource) -> None:
    pauses = []
    for source._cpu in (0.0, 0.1, 1.0, 1000.0):
        pauses.append(source.pause(FlowTable(seconds=60.0)))
        assert source.lifetime >= 3 * pauses[-1]
    assert pauses == [60, 60, 500, 900]


# -- recorded in a guest, beside what OVS said of the same: tests/hwlab/scenarios/kernel_flows.sh


def bodies(name: str) -> list[bytes]:
    """Of a recording's messages."""
    return [message[HEADER:] for message in messages(FIXTURES / "recordings" / name)]


class Recorded(Kernel):
    """Says what a kernel said."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.flows = bodies(f"{name}.flows.bin")
        self._name = name

    def _datapaths(self) -> Iterator[bytes]:
        yield from bodies("kernel-ct.datapaths.bin")

    def _ports(self) -> Iterator[bytes]:
        yield from bodies(f"{self._name}.vports.bin")


def as_shown(identifier: bytes) -> str:
    """OVS shows it as four numbers of 32 bits."""
    return str(uuid.UUID(bytes=b"".join(identifier[n : n + 4][::-1] for n in range(0, 16, 4))))


@pytest.mark.parametrize("name", ["kernel-ct", "kernel-other"])
def test_recorded_flows_are_those_that_ovs_showed(name: str) -> None:
    reader = FlowReader()
    ports = {number: port for number, (port, _) in recorded_ports(name).items()}
    by_netlink = {}
    for body in bodies(f"{name}.flows.bin"):
        identifier, shape, port, packets, octets = reader.read(body)
        by_netlink[as_shown(identifier)] = (
            ports[port],
            packets,
            octets,
            (shape.protocol, shape.hidden, shape.conntrack, shape.terminal, shape.ordinary, shape.path),
        )
    text = (FIXTURES / f"recordings/{name}.dump-flows.txt").read_bytes()
    by_text = {
        identifier.decode(): (
            port.decode(),
            packets,
            octets,
            (shape.protocol, shape.hidden, shape.conntrack, shape.terminal, shape.ordinary, shape.path),
        )
        for identifier, shape, port, packets, octets in dpctl.flows(text)
    }
    assert by_netlink == by_text
    assert len(by_text) > 10


def recorded_ports(name: str) -> dict[int, ovs_netlink.Port]:
    return ovs_netlink.ports(PlayedNetlink(lambda *_: bodies(f"{name}.vports.bin")), 25, 6)


def test_recorded_ports_are_those_that_ovs_showed() -> None:
    text = (FIXTURES / "recordings/kernel-ct.dpctl-show.txt").read_text()
    shown = {int(n): (name, kind) for n, name, kind in re.findall(r"port (\d+): (\S+)(?: \((\w+))?", text)}
    names = {"": PortType.NETDEV, "internal": PortType.INTERNAL, "geneve": PortType.TUNNEL}
    assert recorded_ports("kernel-ct") == {n: (name, names[kind]) for n, (name, kind) in shown.items()}


def test_recorded_datapath_is_that_which_ovs_showed() -> None:
    (found,) = ovs_netlink.datapaths(PlayedNetlink(lambda *_: bodies("kernel-ct.datapaths.bin")), 24)
    text = (FIXTURES / "recordings/kernel-ct.dpctl-show.txt").read_text()
    assert text.startswith(f"system@{found.name}:\n")
    assert f"flows: {found.flows}\n" in text


def test_recorded_obstacles() -> None:
    """What TC lacks, in the words in which OVS shows it."""
    text = (FIXTURES / "recordings/kernel-other.dump-flows.txt").read_text().splitlines()
    reader, foreign = FlowReader(), re.compile(r"actions:.*(?:trunc|sample|userspace|clone|skb_mark)\(")
    wanted = {line[5:41]: Obstacle.ACTION if foreign.search(line) else Obstacle.NONE for line in text}
    found = (reader.read(body) for body in bodies("kernel-other.flows.bin"))
    assert {as_shown(identifier): shape.obstacle for identifier, shape, *_ in found} == wanted
    assert set(wanted.values()) == {Obstacle.ACTION, Obstacle.NONE}


async def test_recorded_flows_are_counted(source: OvsFlowsSource, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Recorded("kernel-ct")
    monkeypatch.setattr(ovs_flows, "Netlink", lambda _: PlayedNetlink(kernel.answer))
    table = await source.read(healthy_compute())
    assert sum(table.flows.values()) == len(kernel.flows)
    gre = {found.port: number for found, number in table.flows.items() if found.protocol is Protocol.GRE}
    assert gre.keys() == {"q1", "q2"}
    assert all(found.conntrack for found in table.flows if found.protocol is Protocol.GRE)


# -- a user-space datapath

NETDEV = changed(
    changed(healthy_compute(), "vswitchd", datapaths=()),
    "ovs",
    bridges=(Bridge(name="br0", nb_cfg=None, datapath_type="netdev"),),
    interfaces=(interface("p1", "br0", InterfaceKind.UPLINK), interface("br0", "br0", InterfaceKind.INTERNAL)),
)
PROTOCOLS = {"tcp": 6, "udp": 17, "gre": 47, "icmp": 1}
OPENFLOW = (
    "priority=20,ip,nw_proto=47,ct_state=-trk,actions=ct(table=1,zone=7)",
    "table=1,ip,nw_proto=47,ct_state=+trk+new,actions=ct(commit,zone=7),output:p2",
    "priority=10,tcp,actions=output:p2",
    "priority=10,udp,tp_dst=67,actions=output:p2",
    "priority=9,udp,actions=output:p2",
    "priority=8,icmp,actions=controller",
    "priority=7,arp,actions=normal",
)


def packet(proto: int, more: str = "") -> str:
    return (
        "in_port(1),eth(src=50:54:00:00:00:05,dst=50:54:00:00:00:07),eth_type(0x0800),"
        f"ipv4(src=10.0.0.1,dst=10.0.0.2,proto={proto},tos=0,ttl=64,frag=no){more}"
    )


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with ovs_node() as node:
        node.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
        for n in (1, 2):
            node.vsctl("add-port", "br0", f"p{n}", "--", "set", "interface", f"p{n}", "type=dummy")
        node.vsctl("set", "open_vswitch", ".", "other_config:max-idle=600000")
        run("ovs-ofctl", "del-flows", f"unix:{node.management('br0')}")
        for text in OPENFLOW:
            run("ovs-ofctl", "--names", "add-flow", f"unix:{node.management('br0')}", text)
        yield node


def appctl(node: Node, *command: str) -> str:
    return run("ovs-appctl", "-t", str(node.vswitchd.control), *command)


def send(node: Node, times: int = 3) -> None:
    """So many packets of each kind."""
    for _ in range(times):
        for of in (
            packet(47),
            packet(6, ",tcp(src=1000,dst=80)"),
            packet(17, ",udp(src=1000,dst=5000)"),
            packet(17, ",udp(src=68,dst=67)"),
            packet(1, ",icmp(type=8,code=0)"),
        ):
            appctl(node, "netdev-dummy/receive", "p1", of)


def shown(node: Node) -> list[tuple[int, int]]:
    """Packets and bytes of each flow that ends a packet's way."""
    text = appctl(node, "dpctl/dump-flows", "-m", "netdev@ovs-netdev")
    return [
        (int(packets), int(octets))
        for packets, octets, actions in re.findall(r"packets:(\d+), bytes:(\d+),.* actions:(.*)", text)
        if "recirc(" not in actions
    ]


def settled(node: Node) -> None:
    """Its counts, and how many flows there are, are those of the packets sent."""
    wait_until(lambda: sum(n for n, _ in shown(node)) == sum(n for n, _ in shown(node)), 10, "counts rest")


async def test_flows_of_a_user_space_datapath(node: Node, kernel: Kernel) -> None:
    kernel.families = {"nlctrl": 0x10}
    asked = OvsFlowsSource(node.run_dir, None, 60)
    send(node, 2)
    settled(node)
    before, table = shown(node), await asked.read(NETDEV)
    assert sum(table.flows.values()) == appctl(node, "dpctl/dump-flows", "-m", "netdev@ovs-netdev").count("ufid:")
    send(node, 5)
    settled(node)
    after, table = shown(node), await asked.read(NETDEV)
    await asked.close()
    packets = sum(counted.packets for counted in table.totals.values())
    assert packets == sum(n for n, _ in after) - sum(n for n, _ in before) == 25
    assert sum(c.bytes for c in table.totals.values()) == sum(n for _, n in after) - sum(n for _, n in before)
    uplink = replace(PLAIN, layer=Layer.USERSPACE, port_kind=PortKind.UPLINK)
    gre = replace(uplink, protocol=Protocol.GRE, conntrack=True, port="p1")
    assert {found: counted.packets for found, counted in table.totals.items()} == {
        uplink: 5,
        gre: 5,
        replace(uplink, protocol=Protocol.UDP): 5,
        replace(uplink, protocol=Protocol.UDP, ordinary=False): 5,
        replace(uplink, protocol=Protocol.ICMP, ordinary=False): 5,
    }
    assert table.flows[replace(gre, terminal=False)] == 1


async def test_too_many_to_be_shown(node: Node, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.families = {"nlctrl": 0x10}
    send(node, 1)
    wait_until(lambda: "(current 0)" not in appctl(node, "upcall/show"), 10, "flows are counted")
    asked = OvsFlowsSource(node.run_dir, None, 60)
    monkeypatch.setattr(ovs_flows, "HELD", 1e-5)
    error = await why_not(asked, NETDEV)
    await asked.close()
    assert error.reason is Reason.TOO_LARGE
    assert re.search(r"netdev@ovs-netdev has \d+ flows: to show more than 0 would hold", error.why)


async def test_slow_answer_lowers_the_limit_for_a_while(node: Node, kernel: Kernel) -> None:
    kernel.families = {"nlctrl": 0x10}
    send(node, 1)
    wait_until(lambda: "(current 0)" not in appctl(node, "upcall/show"), 10, "flows are counted")
    asked = OvsFlowsSource(node.run_dir, None, 60)
    asked._flow_seconds = 1.0  # as after an answer that took long
    refused = 0
    while True:
        try:
            assert (await asked.read(NETDEV)).flows
            break
        except SourceError as error:
            if error.reason is not Reason.TOO_LARGE:
                raise
            refused += 1
    assert 10 < refused < 100
    await asked.close()


async def test_without_ovs_vswitchd_there_is_no_user_space_datapath(kernel: Kernel, source: OvsFlowsSource) -> None:
    kernel.flows = [flow(1, 10, ovs.output())]
    assert (await source.read(NETDEV)).flows == {PLAIN: 1}
    assert (await source.read(without(NETDEV, "ovs"))).flows == {PLAIN: 1}
    assert isinstance(NETDEV.ovs, Fresh)


async def test_killed_and_back(node: Node, kernel: Kernel) -> None:
    kernel.families = {"nlctrl": 0x10}
    asked = OvsFlowsSource(node.run_dir, None, 60)
    send(node, 1)
    assert (await asked.read(NETDEV)).flows
    node.vswitchd.kill()
    await asked.close()
    assert (await asked.read(NETDEV)).flows == {}
    node.vswitchd.start()
    wait_until(lambda: "netdev@ovs-netdev" in appctl(node, "dpctl/dump-dps"), 10, "it has its datapath again")
    assert (await asked.read(NETDEV)).seconds is not None
    await asked.close()
