import asyncio
import re
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mecexporter.errors import Reason
from mecexporter.sources.wire.openflow import flow_counts
from tests.faults.servers import OPENFLOW, Behaviour, drips, hostile, silent
from tests.sources.daemons import Node, ovs_node, run
from tests.sources.wire.test_jsonrpc import WANTED, bounded, failure, patience

HELLO = struct.pack("!BBHI", 4, 0, 8, 9)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with ovs_node() as node:
        node.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=dummy", "fail-mode=secure")
        yield node


@pytest.fixture
def path(node: Node) -> Path:
    return node.run_dir / "hostile.mgmt"


def of(kind: int, body: bytes = b"", xid: int = 2, version: int = 4) -> bytes:
    return struct.pack("!BBHI", version, kind, 8 + len(body), xid) + body


def aggregate(flows: int) -> bytes:
    return struct.pack("!QQI4x", 10, 1000, flows)


def multipart(body: bytes, flags: int = 0, kind: int = 2) -> bytes:
    return of(19, struct.pack("!HH4x", kind, flags) + body)


def switch(answer: bytes, hello: bytes = HELLO) -> Behaviour:
    """A switch that says hello, waits for the request and sends this."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(16) == of(0, struct.pack("!HHI", 1, 8, 1 << 4), xid=1)
        writer.write(hello)
        await reader.readexactly(56)
        writer.write(answer)
        await silent(reader, writer)

    return behave


# --- a real switch


@pytest.mark.parametrize("flows", [0, 1, 300])
async def test_the_count_is_that_of_ovs_ofctl(node: Node, flows: int) -> None:
    target = f"unix:{node.management('br0')}"
    listed = node.run_dir / "flows"
    listed.write_text("".join(f"table={n % 7},priority={n},actions=drop\n" for n in range(flows)))
    run("ovs-ofctl", "-O", "OpenFlow13", "replace-flows", target, str(listed))
    said = re.search(r"flow_count=(\d+)", run("ovs-ofctl", "-O", "OpenFlow13", "dump-aggregate", target))
    assert said is not None
    assert (await flow_counts(node.management("br0")))[0] == int(said[1]) == flows


async def test_the_flows_of_a_port_are_those_of_table_0_that_match_on_it(node: Node) -> None:
    target = f"unix:{node.management('br0')}"
    listed = node.run_dir / "flows"
    listed.write_text(
        "in_port=1,actions=drop\nin_port=2,tcp,actions=drop\nin_port=2,udp,actions=drop\narp,actions=drop\n"
        "table=8,in_port=3,actions=drop\nin_port=LOCAL,actions=drop\n"
    )
    run("ovs-ofctl", "-O", "OpenFlow13", "replace-flows", target, str(listed))
    local = 0xFFFFFFFE  # OFPP_LOCAL
    by_port = {1: 1, 2: 2, 3: 0, 4: 0, 65279: 0, local: 1}
    assert await flow_counts(node.management("br0"), ports=list(by_port)) == (6, by_port)
    for port in (1, 2, 3):
        said = run("ovs-ofctl", "-O", "OpenFlow13", "dump-aggregate", target, f"table=0,in_port={port}")
        assert f"flow_count={by_port[port]}" in said
    run("ovs-ofctl", "-O", "OpenFlow13", "del-flows", target)
    assert await flow_counts(node.management("br0"), ports=[1, 2]) == (0, {1: 0, 2: 0})


@pytest.mark.parametrize(
    ("protocols", "offered"),
    [("OpenFlow10", "1.0"), ("OpenFlow10,OpenFlow14,OpenFlow15", "1.0, 1.4, 1.5"), ("OpenFlow15", "1.5")],
)
async def test_a_bridge_that_does_not_speak_1_3_says_what_it_does(node: Node, protocols: str, offered: str) -> None:
    node.vsctl("set", "bridge", "br0", f"protocols={protocols}")
    error = await failure(flow_counts(node.management("br0")))
    assert error.reason is Reason.ANSWERED_ERROR
    assert f"OpenFlow 1.3 is needed, the bridge offers {offered} (see its column `protocols`)" in error.why
    node.vsctl("set", "bridge", "br0", "protocols=OpenFlow13")
    assert (await flow_counts(node.management("br0")))[0] >= 0
    node.vsctl("clear", "bridge", "br0", "protocols")


async def test_no_bridge_a_hanging_switch_and_a_dead_one(node: Node) -> None:
    management = node.management("br0")
    assert (await failure(flow_counts(node.management("br9")))).reason is Reason.MISSING
    node.vswitchd.suspend()
    try:
        began = time.monotonic()
        assert (await failure(flow_counts(management, deadline=0.5))).reason is Reason.TIMEOUT
        assert time.monotonic() - began < 2
    finally:
        node.vswitchd.resume()
    assert (await flow_counts(management))[0] >= 0
    node.vswitchd.kill()
    assert (await failure(flow_counts(management))).reason is Reason.REFUSED
    node.vswitchd.start()
    node.vsctl("set", "bridge", "br0", "external_ids:seen=yes")  # waits until vswitchd has the bridge again
    assert (await flow_counts(management))[0] == 0


# --- what a switch may say, and what none should


@pytest.mark.parametrize(
    "answer",
    [
        multipart(aggregate(7)),
        of(10, bytes(100), xid=0) + of(12, bytes(72), xid=0) + of(2, b"ping") + multipart(aggregate(7)),
        multipart(aggregate(7)[:10], flags=1) + multipart(b"", flags=1) + multipart(aggregate(7)[10:]),
        of(19, b"another one's", xid=99) + multipart(aggregate(7)),
    ],
)
async def test_the_answer_is_found_among_other_messages(path: Path, answer: bytes) -> None:
    async with hostile(path, switch(answer)):
        assert (await flow_counts(path))[0] == 7


async def test_an_answer_that_comes_byte_by_byte(path: Path) -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await drips(HELLO + multipart(aggregate(7)), 0.001)(reader, writer)
        await silent(reader, writer)

    async with hostile(path, behave):
        assert (await flow_counts(path))[0] == 7


async def test_an_echo_is_answered(path: Path) -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HELLO)
        await reader.readexactly(16 + 56)
        writer.write(of(2, b"ping", xid=77))
        assert await reader.readexactly(12) == of(3, b"ping", xid=77)
        writer.write(multipart(aggregate(7)))
        await silent(reader, writer)

    async with hostile(path, behave):
        assert (await flow_counts(path))[0] == 7


@pytest.mark.parametrize(
    ("answer", "reason", "why"),
    [
        (of(1, struct.pack("!HH", 1, 5) + b"data"), Reason.ANSWERED_ERROR, "OpenFlow error of type 1, code 5"),
        (of(1), Reason.GARBAGE, "a broken error"),
        (multipart(b""), Reason.GARBAGE, "an aggregate of 0 bytes"),
        (multipart(aggregate(7) * 2), Reason.GARBAGE, "an aggregate of 48 bytes"),
        (multipart(aggregate(7), kind=1), Reason.GARBAGE, "an answer to another question"),
        (of(19), Reason.GARBAGE, "an answer to another question"),
        (of(19, version=1), Reason.GARBAGE, "version 1 after 1.3"),
        (b"\x04\x13\x00\x07\x00\x00\x00\x02", Reason.GARBAGE, "no OpenFlow"),
    ],
)
async def test_answers_that_are_none(path: Path, answer: bytes, reason: Reason, why: str) -> None:
    async with hostile(path, switch(answer)):
        error = await failure(flow_counts(path))
        assert error.reason is reason
        assert str(path) in error.why
        assert why in error.why


def bitmap(*versions: int, of_type: int = 1) -> bytes:
    return struct.pack("!HHI", of_type, 8, sum(1 << version for version in versions))


@pytest.mark.parametrize(
    ("hello", "speaks"),
    [
        (of(0), True),
        (of(0, version=5), True),
        (of(0, version=3), False),
        (of(0, bitmap(1, 4, 6), version=6), True),
        (of(0, bitmap(7, of_type=2) + bitmap(4), version=6), True),
        (of(0, bitmap(1, 6), version=6), False),
        (of(0, bitmap(31), version=6), False),
        (of(0, b"\x00\x01"), True),
    ],
)
async def test_versions_are_agreed_by_bitmap_or_else_by_the_lower_one(
    path: Path, hello: bytes, *, speaks: bool
) -> None:
    async with hostile(path, switch(multipart(aggregate(7)), hello)):
        if speaks:
            assert (await flow_counts(path))[0] == 7
        else:
            assert (await failure(flow_counts(path))).reason is Reason.ANSWERED_ERROR


@pytest.mark.parametrize("hello", [of(0, struct.pack("!HH", 1, 0)), of(0, struct.pack("!HH", 1, 99)), of(10)])
async def test_a_broken_hello_is_garbage(path: Path, hello: bytes) -> None:
    async with hostile(path, switch(b"", hello)):
        assert (await failure(flow_counts(path))).reason is Reason.GARBAGE


@pytest.mark.parametrize("name", OPENFLOW)
async def test_a_hostile_switch(path: Path, name: str) -> None:
    wanted = WANTED | {"endless_more": Reason.TOO_LARGE}
    async with hostile(path, OPENFLOW[name]) as server:
        error = await bounded(lambda: flow_counts(path, deadline=patience(name)), server)
        # Echoes without end may reach the limit in bytes before that in time.
        assert error.reason is wanted[name] or (name, error.reason) == ("endless_echo", Reason.TOO_LARGE)
        assert str(path) in error.why
