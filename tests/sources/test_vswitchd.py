"""A real ovs-vswitchd by its control socket, and answers that it does not give."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.vswitchd import VswitchdSource, _datapath, _sections, _upcalls
from mecexporter.state.ovs import Datapath, Upcalls
from tests.faults.servers import JSON, hostile
from tests.sources.daemons import Node, ovs_node, run
from tests.worlds import healthy_compute

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORLD = healthy_compute()


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with ovs_node() as node:
        yield node


@pytest.fixture
def source(node: Node) -> VswitchdSource:
    return VswitchdSource(node.run_dir, None, 15)


async def why_not(asked: VswitchdSource) -> SourceError:
    with pytest.raises(SourceError) as caught:
        async with asyncio.timeout(10):
            await asked.read(WORLD)
    await asked.close()
    return caught.value


async def test_without_a_bridge_there_is_no_datapath(node: Node, source: VswitchdSource) -> None:
    for bridge in node.vsctl("list-br").split():
        node.vsctl("del-br", bridge)
    found = await source.read(WORLD)
    await source.close()
    assert found.version
    assert f"(Open vSwitch) {found.version}\n" in run("ovs-vswitchd", "--version")
    assert (found.datapaths, found.upcalls) == ((), ())


async def test_what_it_forwards_and_what_it_keeps(node: Node, source: VswitchdSource) -> None:
    node.vsctl("--may-exist", "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=dummy")
    node.vsctl("--may-exist", "add-port", "br0", "p1", "--", "set", "interface", "p1", "type=dummy")
    before = await source.read(WORLD)
    packet = "in_port(1),eth(src=50:54:00:00:00:05,dst=50:54:00:00:00:07),eth_type(0x1234)"
    for _ in range(3):
        run("ovs-appctl", "-t", str(node.vswitchd.control), "netdev-dummy/receive", "p1", packet)
    after = await source.read(WORLD)
    ((was,), (now,)) = before.datapaths, after.datapaths
    assert now.name == "dummy@ovs-dummy"
    assert now.hit + now.missed + now.lost == was.hit + was.missed + was.lost + 3
    (upcalls,) = after.upcalls
    assert upcalls.datapath == "dummy@ovs-dummy"
    async with asyncio.timeout(20):  # the count is its revalidators', who come by twice a second
        while not upcalls.flows:
            (upcalls,) = (await source.read(WORLD)).upcalls
    assert upcalls.flow_limit > 0
    await source.close()


async def test_which_start_it_is_of(node: Node, source: VswitchdSource) -> None:
    first, again = await source.read(WORLD), await source.read(WORLD)
    assert first.process == again.process
    assert first.process is not None
    assert f"/{node.vswitchd.pid}/" in first.process
    assert 0 <= first.age <= again.age < 600
    node.vswitchd.kill()
    node.vswitchd.start()
    other = await source.read(WORLD)
    assert other.process not in (None, first.process)
    assert other.age < again.age
    await source.close()


@pytest.mark.parametrize(
    "stat",
    ["", "1 (ovs-vswitchd) S 1", "PID (python3) S " + "0 " * 40, "PID (ovs-vswitchd) S " + "x " * 40,
     "PID (ovs-vswitchd) S " + "99999999999 " * 40, None],
    ids=["empty", "short", "another program", "no numbers", "not started yet", "gone"],
)  # fmt: skip
async def test_a_process_that_is_not_shown(node: Node, tmp_path: Path, stat: str | None) -> None:
    """Its pidfile may be of another pid namespace, in which a container runs it."""
    process = tmp_path / str(node.vswitchd.pid)
    process.mkdir()
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text("b007\n")
    if stat is not None:
        (process / "stat").write_text(stat.replace("PID", str(node.vswitchd.pid)))
    blind = VswitchdSource(node.run_dir, None, 15, proc=tmp_path)
    found = await blind.read(WORLD)
    await blind.close()
    assert (found.process, found.age, bool(found.version)) == (None, 0.0, True)


async def test_a_control_socket_that_is_configured_comes_before_the_pidfile(node: Node) -> None:
    named = VswitchdSource(node.run_dir / "elsewhere", node.vswitchd.control, 15)
    assert (await named.read(WORLD)).version
    await named.close()


async def test_killed_stopped_and_back(node: Node, source: VswitchdSource) -> None:
    assert (await source.read(WORLD)).version
    node.vswitchd.kill()
    assert (await why_not(source)).reason in (Reason.REFUSED, Reason.CLOSED)
    assert (await why_not(source)).reason is Reason.REFUSED
    node.vswitchd.start()
    assert (await source.read(WORLD)).version
    node.vswitchd.stop()
    assert "ovs-vswitchd is not running here" in (await why_not(source)).why
    node.vswitchd.start()


@pytest.mark.parametrize(("name", "reason"), [("garbage", Reason.GARBAGE), ("close_at_once", Reason.CLOSED)])
async def test_somebody_else_behind_its_socket(node: Node, source: VswitchdSource, name: str, reason: Reason) -> None:
    async with hostile(node.vswitchd.control, JSON[name]):
        assert (await why_not(source)).reason is reason
    assert (await source.read(WORLD)).version
    await source.close()


SHOW = """system@ovs-system:
  lookups: hit:148 missed:20 lost:1
  flows: 6
  masks: hit:180 total:3 hit/pkt:1.07
  port 0: ovs-system (internal)
netdev@ovs-netdev:
  lookups: hit:0 missed:0 lost:0
  port 1: a:b (tap)
"""
UPCALLS = """system@ovs-system:
  flows         : (current 6) (avg 4) (max 32) (limit 32000)
  dump duration : 1ms
  ufid enabled : true

  23: (keys 0)
netdev@ovs-netdev:
  flows         : (current 0) (avg 0) (max 0) (limit 10000)
"""


def test_several_datapaths() -> None:
    assert [_datapath(*section) for section in _sections(SHOW)] == [
        Datapath(name="system@ovs-system", hit=148, missed=20, lost=1),
        Datapath(name="netdev@ovs-netdev", hit=0, missed=0, lost=0),
    ]
    assert [_upcalls(*section) for section in _sections(UPCALLS)] == [
        Upcalls(datapath="system@ovs-system", flows=6, flow_limit=32000, dump_duration_seconds=0.001),
        Upcalls(datapath="netdev@ovs-netdev", flows=0, flow_limit=10000, dump_duration_seconds=None),
    ]


@pytest.mark.parametrize("read", [_datapath, _upcalls])
@pytest.mark.parametrize("text", ["", "  lookups: hit:-1 missed:many lost:\n  flows : (current 6)\n"])
def test_what_has_not_the_known_form_is_no_number(read: object, text: str) -> None:
    assert callable(read)
    with pytest.raises(SourceError) as caught:
        read("dp", text)
    assert caught.value.reason is Reason.GARBAGE
