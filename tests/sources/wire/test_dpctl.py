"""The text of dump-flows: what OVS 3.1 printed, recorded and here, and what it does not print."""

from __future__ import annotations

import random
import re
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.wire.dpctl import flows
from mecexporter.state.datapath import Obstacle, Path, Protocol
from tests.hwlab import FIXTURES

if TYPE_CHECKING:
    from pathlib import Path as File

    from mecexporter.sources.wire.ovs_netlink import Shape

RECORDED = sorted(FIXTURES.glob("recordings/*.dump-flows.txt"))
UFID = "b43cabbf-c814-491a-a778-caea4c4572d7"
TCP = (
    "eth_type(0x0800),ipv4(src=10.0.0.1/0.0.0.0,dst=10.0.0.2/0.0.0.0,proto=6,tos=0/0,ttl=64/0,frag=no),"
    "tcp(src=1000/0,dst=53)"
)


def line(match: str = TCP, actions: str = "p2", *, state: str = "0/0", layer: str = "", ufid: str = UFID) -> str:
    """As OVS 3.1 shows a flow of its user-space datapath."""
    return (
        f"ufid:{ufid}, skb_priority(0/0),skb_mark(0/0),ct_state({state}),ct_zone(0/0),ct_mark(0/0),ct_label(0/0),"
        "ct_tuple4(src=10.0.0.1/0.0.0.0,dst=10.0.0.2/0.0.0.0,proto=47/0,tp_src=0/0,tp_dst=0/0),"
        "recirc_id(0),dp_hash(0/0),in_port(p1),packet_type(ns=0,id=0),eth(src=50:54:00:00:00:05/00:00:00:00:00:00,"
        f"dst=50:54:00:00:00:07/00:00:00:00:00:00){match and ','}{match}, packets:12, bytes:3400, used:1.196s, "
        f"flags:SFP.{layer}, dp:ovs, actions:{actions}, dp-extra-info:miniflow_bits(4,2)\n"
    )


def told(*arguments: str, **named: str) -> Shape:
    (flow,) = flows(line(*arguments, **named).encode())
    identifier, shape, port, packets, octets = flow
    assert (identifier, port, packets, octets) == (UFID.encode(), b"p1", 12, 3400)
    return shape


def differs(shape: Shape) -> dict[str, object]:
    plain = asdict(told())
    return {name: value for name, value in asdict(shape).items() if plain[name] != value}


def test_plain_flow() -> None:
    assert asdict(told()) == {
        "protocol": Protocol.TCP,
        "hidden": False,
        "conntrack": False,
        "terminal": True,
        "ordinary": True,
        "tunnel": False,
        "obstacle": Obstacle.NONE,
        "path": Path.SOFTWARE,
    }


def ipv4(proto: str, more: str = "", ether: str = "0x0800") -> str:
    return f"eth_type({ether}),ipv4(src=1.1.1.1/0.0.0.0,dst=2.2.2.2,proto={proto},tos=0/0,ttl=1/0,frag=no){more}"


def ipv6(proto: str, more: str = "") -> str:
    return f"eth_type(0x86dd),ipv6(src=::1/::,dst=::2,label=0/0,proto={proto},tclass=0/0,hlimit=1/0,frag=no){more}"


OTHER = {"protocol": Protocol.OTHER}
HIDDEN = OTHER | {"hidden": True}
ARP = "eth_type(0x0806),arp(sip=10.0.0.1/0.0.0.0,tip=10.0.0.2/0.0.0.0,op=1/0)"


@pytest.mark.parametrize(
    ("match", "wanted"),
    [
        (ipv4("47"), {"protocol": Protocol.GRE}),
        (ipv4("47/0xff"), {"protocol": Protocol.GRE}),
        (ipv4("47/0"), HIDDEN),
        (ipv4("47/0xf"), HIDDEN),
        (ipv4("6", ether="0x0800/0"), HIDDEN),
        (ipv4("132"), {"protocol": Protocol.SCTP}),
        (ipv4("1", ",icmp(type=8/0,code=0/0)"), {"protocol": Protocol.ICMP}),
        (ipv4("50"), OTHER),
        (ipv4("17", ",udp(src=1000/0,dst=53)"), {"protocol": Protocol.UDP}),
        (ipv4("17", ",udp(src=68,dst=67)"), {"protocol": Protocol.UDP, "ordinary": False}),
        (ipv4("17", ",udp(src=1000/0,dst=67)"), {"protocol": Protocol.UDP, "ordinary": False}),
        (ipv4("17", ",udp(src=68/0,dst=67/0xfff0)"), {"protocol": Protocol.UDP}),
        (ipv6("58", ",icmpv6(type=135,code=0/0),nd(target=::3)"), {"protocol": Protocol.ICMP, "ordinary": False}),
        (ipv6("58", ",icmpv6(type=135/0,code=0/0)"), {"protocol": Protocol.ICMP}),
        (ipv6("58", ",icmpv6(type=128,code=0/0)"), {"protocol": Protocol.ICMP}),
        (ARP, OTHER | {"ordinary": False}),
        (f"eth_type(0x8100),vlan(vid=5,pcp=0),encap({ARP})", OTHER | {"ordinary": False}),
        ("eth_type(0x1234)", OTHER),
        ("", OTHER),
        (f"eth_type(0x8100),vlan(vid=5,pcp=0/0x0),encap({ipv4('47')})", {"protocol": Protocol.GRE}),
    ],
)
def test_match(match: str, wanted: dict[str, object]) -> None:
    assert differs(told(match)) == wanted


@pytest.mark.parametrize(
    ("state", "conntrack"), [("0x21/0x23", True), ("0x22", True), ("0/0x20", False), ("0x22/0", False)]
)
def test_state_that_only_tracking_gives(state: str, conntrack: bool) -> None:
    assert differs(told(state=state)) == ({"conntrack": True} if conntrack else {})


CONTROLLER = "userspace(pid=0,controller(reason=1,dont_send=0,continuation=0,recirc_id=2,rule_cookie=0,max_len=65535))"


@pytest.mark.parametrize(
    ("actions", "wanted"),
    [
        ("drop", {}),
        ("ct,recirc(0x1)", {"conntrack": True, "terminal": False}),
        ("ct(commit,zone=5,nat(src=10.0.0.9)),p2", {"conntrack": True}),
        ("ct_clear,p2", {}),
        ("set(ipv4(ttl=63)),p2", {}),
        ("tnl_pop(genev_sys_6081)", {"terminal": False}),
        ("clone(tnl_push(tnl_port(genev_sys_6081),header(size=50,type=5),out_port(br-ex)),eth1)", {}),
        ("check_pkt_len(size=1514,gt(ct,recirc(0x7)),le(p2))", {"conntrack": True}),
        ("userspace(pid=0,slow_path(cfm))", {"ordinary": False}),
        (CONTROLLER, {"ordinary": False}),
        (f"{CONTROLLER},p2", {}),
        (f"sample(sample=50.0%,actions({CONTROLLER}))", {}),
    ],
)
def test_actions(actions: str, wanted: dict[str, object]) -> None:
    assert differs(told(TCP, actions)) == wanted


def test_protocol_of_the_tunnel_that_it_is_put_into_is_not_its_own() -> None:
    header = "header(size=50,type=5,eth(dst=00:00:00:00:00:01),ipv4(src=1.1.1.1,dst=2.2.2.2,proto=17,tos=0,ttl=64))"
    actions = f"clone(tnl_push(tnl_port(genev_sys_6081),{header},out_port(br-ex)),eth1)"
    assert differs(told(ARP, actions)) == OTHER | {"ordinary": False}
    assert differs(told(TCP, actions)) == {}


@pytest.mark.parametrize(
    ("layer", "wanted"),
    [(", offloaded:yes", {"path": Path.HARDWARE}), (", offloaded:partial", {"path": Path.PARTIAL}), ("", {})],
)
def test_who_carries_it(layer: str, wanted: dict[str, object]) -> None:
    assert differs(told(layer=layer)) == wanted


def test_threads_have_flows_of_the_same_name() -> None:
    text = (
        f"flow-dump from the main thread:\n{line()}flow-dump from pmd on cpu core: 2\n{line()}{line(ufid=UFID[::-1])}"
    )
    assert [flow[0] for flow in flows(text.encode())] == [
        UFID.encode(),
        UFID.encode() + b"2",
        UFID[::-1].encode() + b"2",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "no flows here\n",
        "\n",
        line()[:-1],
        line().replace(", bytes:3400", ""),
        line().replace("packets:12", "packets:"),
        line().replace("packets:12", "packets:-1"),
        line().replace("packets:12", "packets:1_2"),
        line().replace(", actions:", ", "),
        line(layer=", offloaded:no"),
        line(state="+new+trk"),
        line().replace("proto=6,", "proto=,"),
        line(TCP, "p2\nufid:"),
        "flow-dump from somewhere else:\n" + line(),
    ],
)
def test_what_is_none_of_the_known_lines(text: str) -> None:
    with pytest.raises(SourceError) as caught:
        list(flows(line().encode() + text.encode()))
    assert caught.value.reason is Reason.GARBAGE


def slowly(text: str) -> list[tuple[bytes, str, int, int, Path, bool, bool, bytes]]:
    """The same, line by line with regular expressions."""
    found = []
    for entry in text.splitlines():
        numbers = re.search(r", packets:(\d+), bytes:(\d+), used:", entry)
        proto = re.search(r"eth_type\(0x\w+\),ipv.\([^)]*proto=(\d+)(/0)?,", entry)
        number = int(proto[1]) if proto and not proto[2] else None
        named = {1: "icmp", 58: "icmp", 6: "tcp", 17: "udp", 47: "gre", 132: "sctp"}
        state = re.search(r"ct_state\((\w+)/(\w+)\)", entry)
        actions = entry.split(", actions:")[1]
        assert numbers
        assert state
        found.append(
            (
                entry[5:41].encode(),
                named.get(number or 0, "other"),
                int(numbers[1]),
                int(numbers[2]),
                Path.HARDWARE if "offloaded:yes" in entry else Path.SOFTWARE,
                bool(re.search(r"\bct\(", actions)) or bool(int(state[1], 16) & int(state[2], 16)),
                "recirc(" not in actions,
                re.search(r"in_port\((\w+)\)", entry)[1].encode(),  # type: ignore[index]  # each has one
            )
        )
    return found


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda path: path.name.removesuffix(".dump-flows.txt"))
def test_recorded_flows(recorded: File) -> None:
    text = recorded.read_text()
    assert [
        (identifier, str(s.protocol), packets, octets, s.path, s.conntrack, s.terminal, port)
        for identifier, s, port, packets, octets in flows(text.encode())
    ] == slowly(text)


def as_it_comes(text: bytes) -> object:
    try:
        return list(flows(text))
    except SourceError as error:
        return error.reason


LINES = [entry.encode() for path in RECORDED for entry in path.read_text().splitlines(keepends=True)] + [
    line(TCP, CONTROLLER).encode()
]


def holds(text: bytes) -> None:
    outcome = as_it_comes(text)
    if isinstance(outcome, list):
        lines = [entry for entry in text.split(b"\n") if entry.startswith(b"ufid:")]
        assert len(outcome) == len(lines), "every line is counted, or none"
        assert all(packets >= 0 and octets >= 0 for _, _, _, packets, octets in outcome)
    else:
        assert outcome is Reason.GARBAGE


def spoilt(chance: random.Random) -> bytes:
    text = bytearray(b"".join(chance.choices(LINES, k=chance.randrange(1, 4))))
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(text))
        text[at : at + chance.randrange(4)] = chance.choice([b"", b",", b")", b"\n", b"0", chance.randbytes(1)])
    return bytes(text if chance.randrange(4) else text[: chance.randrange(len(text) + 1)])


@settings(max_examples=1000, deadline=None)
@given(st.binary(max_size=600))
def test_any_bytes(text: bytes) -> None:
    holds(text)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, (1 << 64) - 1))
def test_spoilt_text(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  # no secret; hypothesis' own draws are slow
    for _ in range(100):
        holds(spoilt(chance))


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_million_spoilt_texts() -> None:
    chance = random.Random()  # noqa: S311  # as above
    for _ in range(1_000_000):
        holds(spoilt(chance))
