"""Flows of the kernel's datapath: hand-made messages; recorded ones are in test_ovs_flows.py."""

from __future__ import annotations

import random
import struct
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.wire.netlink import attribute
from mecexporter.sources.wire.ovs_netlink import FlowReader, Shape
from mecexporter.state.datapath import Obstacle, Path, Protocol
from tests.sources import ovs_messages as ovs

TUNNEL = {0: bytes(8), 2: bytes(4), 4: b"\x40", 6: b"", 8: bytes(8), 10: b"\x17\xc1"}
"""Identifier, destination, TTL, checksum, Geneve's options, destination port."""
Match = tuple[ovs.Attributes, ovs.Attributes]
"""Key and mask."""
UDP_PORTS = b"\xff\xff\xff\xff"


def ip4(proto: int, mask: int = 0xFF, *, l4_key: bytes = b"", l4_mask: bytes = b"") -> Match:
    """Of IPv4 with this protocol; ``l4`` is UDP's."""
    key = {6: b"\x08\x00", 7: ovs.ipv4(proto)}
    masks = {6: b"\xff\xff", 7: bytes(8) + bytes((mask, 0, 0, 0xFF))}
    if l4_key:
        key[10], masks[10] = l4_key, l4_mask
    return key, masks


def ip6(proto: int, icmp: int | None = None, *, label: int = 0, frag: int = 0) -> Match:
    key = {6: b"\x86\xdd", 8: ovs.ipv6(proto, frag=frag)}
    masks = {6: b"\xff\xff", 8: bytes(32) + struct.pack(">IBBBB", label, 0xFF, 0, 0, 0xFF)}
    if icmp is not None:
        key[12], masks[12] = bytes((icmp, 0)), b"\xff\xff"
    return key, masks


def vlan(key_tci: int, mask_tci: int) -> Match:
    key, mask = ip4(47)
    return (
        {5: struct.pack(">H", key_tci), 6: b"\x81\x00", 1: ovs.nested(key)},
        {5: struct.pack(">H", mask_tci), 6: b"\xff\xff", 1: ovs.nested(mask)},
    )


def told(*actions: bytes, match: Match | None = None, ct_state: int = 0) -> Shape:
    key, mask = match or (None, None)
    body = ovs.flow(key, mask, *actions, ct_state=ct_state)
    reader = FlowReader()
    _, shape, *_ = reader.read(body)
    assert reader.read(body)[1] is shape, "the second time is as the first"
    return shape


def differs(shape: Shape) -> dict[str, object]:
    """Where it differs from plain TCP that is forwarded."""
    plain = asdict(told(ovs.output()))
    return {name: value for name, value in asdict(shape).items() if plain[name] != value}


def test_plain_flow() -> None:
    reader = FlowReader()
    body = ovs.flow(None, None, ovs.output(), packets=1 << 40, octets=1 << 50, in_port=9)
    identifier, shape, port, packets, octets = reader.read(body)
    assert (identifier, port, packets, octets) == (ovs.UFID, 9, 1 << 40, 1 << 50)
    assert asdict(shape) == {
        "protocol": Protocol.TCP,
        "hidden": False,
        "conntrack": False,
        "terminal": True,
        "ordinary": True,
        "tunnel": False,
        "obstacle": Obstacle.NONE,
        "path": Path.SOFTWARE,
    }


def test_flow_without_a_packet_has_no_counts() -> None:
    assert FlowReader().read(ovs.flow(packets=0))[3:] == (0, 0)


def test_flow_without_a_name_is_called_by_its_key() -> None:
    one, other = (FlowReader().read(ovs.flow(ufid=None, in_port=port))[0] for port in (1, 2))
    assert one != other
    assert len(one) > 100


@pytest.mark.parametrize(
    ("match", "wanted"),
    [
        (ip4(6), {}),
        (ip4(17), {"protocol": Protocol.UDP}),
        (ip4(132), {"protocol": Protocol.SCTP}),
        (ip4(1), {"protocol": Protocol.ICMP}),
        (ip4(47), {"protocol": Protocol.GRE}),
        (ip4(50), {"protocol": Protocol.OTHER}),
        (ip4(47, mask=0), {"protocol": Protocol.OTHER, "hidden": True}),
        (ip4(47, mask=0x0F), {"protocol": Protocol.OTHER, "hidden": True}),
        (ip6(58), {"protocol": Protocol.ICMP}),
        (ip6(58, 128), {"protocol": Protocol.ICMP}),
        (ip6(58, 135), {"protocol": Protocol.ICMP, "ordinary": False}),
        (ip6(47), {"protocol": Protocol.GRE}),
        (ip6(6, label=5), {"obstacle": Obstacle.MATCH}),
        (ip6(6, frag=1), {"obstacle": Obstacle.MATCH}),
        (({6: b"\x08\x06"}, {6: b"\xff\xff"}), {"protocol": Protocol.OTHER, "ordinary": False}),
        (({6: b"\x88\x47"}, {6: b"\xff\xff"}), {"protocol": Protocol.OTHER}),
        (({}, {}), {"protocol": Protocol.OTHER, "obstacle": Obstacle.MATCH}),
        (ip4(17, l4_key=b"\0\x44\0\x43", l4_mask=UDP_PORTS), {"protocol": Protocol.UDP, "ordinary": False}),
        (ip4(17, l4_key=b"\0\0\0\x43", l4_mask=b"\0\0\xff\xff"), {"protocol": Protocol.UDP, "ordinary": False}),
        (ip4(17, l4_key=b"\0\0\0\x43", l4_mask=b"\0\0\xff\xf0"), {"protocol": Protocol.UDP}),
        (ip4(17, l4_key=b"\0\0\0\x35", l4_mask=b"\0\0\xff\xff"), {"protocol": Protocol.UDP}),
        (vlan(0x1005, 0x1FFF), {"protocol": Protocol.GRE}),
        (vlan(0x1005, 0xFFFF), {"protocol": Protocol.GRE}),
        (vlan(0x1005, 0x10FF), {"protocol": Protocol.GRE, "obstacle": Obstacle.MATCH}),
        (vlan(0x1005, 0x1000), {"protocol": Protocol.GRE, "obstacle": Obstacle.MATCH}),
    ],
)
def test_match(match: Match, wanted: dict[str, object]) -> None:
    assert differs(told(ovs.output(), match=match)) == wanted


def test_no_vlan_is_a_match_that_tc_has() -> None:
    match = ip4(47)
    match[0][5], match[1][5] = bytes(2), b"\xff\xff"
    assert differs(told(ovs.output(), match=match)) == {"protocol": Protocol.GRE}


@pytest.mark.parametrize(
    ("key", "mask", "wanted"),
    [
        (0x22, 0x3F, {"conntrack": True}),
        (0x02, 0x02, {"conntrack": True}),
        (0, 0x20, {}),
        (0x22, 0x01, {}),
        (0, 0, {}),
        (0x62, 0xFF, {"conntrack": True, "obstacle": Obstacle.MATCH}),  # whether its address was translated
    ],
)
def test_state_that_only_tracking_gives(key: int, mask: int, wanted: dict[str, object]) -> None:
    masks = ovs.IPV4_MASK | {22: struct.pack("=I", mask)}
    assert differs(told(ovs.output(), match=(ovs.IPV4_KEY, masks), ct_state=key)) == wanted


@pytest.mark.parametrize("name", ["priority", "dp_hash", "mark"])
def test_match_that_tc_has_not(name: str) -> None:
    kind = {"priority": 2, "dp_hash": 19, "mark": 15}[name]
    parts = dict[int, bytes](ovs.IPV4_MASK) | {kind: b"\0\0\0\x01"}
    assert differs(told(ovs.output(), match=(ovs.IPV4_KEY, parts))) == {"obstacle": Obstacle.MATCH}


def test_mark_of_zero_is_no_obstacle() -> None:
    mask = ovs.IPV4_MASK | {15: b"\xff" * 4}
    assert differs(told(ovs.output(), match=(ovs.IPV4_KEY, mask))) == {}
    marked = ovs.IPV4_KEY | {15: b"\x05\0\0\0"}
    assert differs(told(ovs.output(), match=(marked, mask))) == {"obstacle": Obstacle.MATCH}


@pytest.mark.parametrize(
    ("extra", "wanted"),
    [
        ({}, {"tunnel": True}),
        ({7: b""}, {"tunnel": True}),
        ({15: bytes(12)}, {"tunnel": True, "obstacle": Obstacle.TUNNEL}),
    ],
)
def test_decapsulated(extra: ovs.Attributes, wanted: dict[str, object]) -> None:
    key = ovs.IPV4_KEY | {16: ovs.nested(TUNNEL | extra)}
    assert differs(told(ovs.output(), match=(key, ovs.IPV4_MASK))) == wanted


def set_tunnel(**extra: bytes) -> bytes:
    named = {"source_port": 9, "oam": 7, "erspan": 15}
    return ovs.action(ovs.SET, attribute(16, ovs.nested(TUNNEL | {named[n]: v for n, v in extra.items()})))


@pytest.mark.parametrize(
    ("actions", "wanted"),
    [
        ([], {}),
        ([ovs.ct(), ovs.recirc()], {"conntrack": True, "terminal": False}),
        ([ovs.ct(attribute(1, b"")), ovs.output()], {"conntrack": True}),
        ([ovs.ct(attribute(5, b"ftp\0")), ovs.output()], {"conntrack": True, "obstacle": Obstacle.ACTION}),
        ([ovs.action(16), ovs.output()], {}),  # ct_clear
        ([ovs.recirc()], {"terminal": False}),
        ([set_tunnel(), ovs.output()], {}),
        ([set_tunnel(source_port=b"\0\x05"), ovs.output()], {"obstacle": Obstacle.TUNNEL}),
        ([set_tunnel(oam=b""), ovs.output()], {"obstacle": Obstacle.TUNNEL}),
        ([set_tunnel(erspan=bytes(12)), ovs.output()], {"obstacle": Obstacle.TUNNEL}),
        ([ovs.action(ovs.SET_MASKED, attribute(7, bytes(24))), ovs.output()], {}),
        ([ovs.action(ovs.SET_MASKED, attribute(15, bytes(8))), ovs.output()], {"obstacle": Obstacle.ACTION}),
        ([ovs.action(ovs.TRUNC, b"\x64\0\0\0"), ovs.output()], {"obstacle": Obstacle.ACTION}),
        ([ovs.action(99), ovs.output()], {"obstacle": Obstacle.ACTION}),
        ([ovs.userspace(ovs.SLOW_PATH)], {"ordinary": False, "obstacle": Obstacle.ACTION}),
        ([ovs.userspace(ovs.SLOW_PATH), ovs.output()], {"ordinary": False, "obstacle": Obstacle.ACTION}),
        ([ovs.userspace(ovs.CONTROLLER)], {"ordinary": False, "obstacle": Obstacle.ACTION}),
        ([ovs.userspace(ovs.CONTROLLER), ovs.output()], {"obstacle": Obstacle.ACTION}),
        ([ovs.userspace(ovs.SFLOW), ovs.output()], {"obstacle": Obstacle.ACTION}),
        ([ovs.action(ovs.USERSPACE, attribute(1, bytes(4)))], {"obstacle": Obstacle.ACTION}),
    ],
)
def test_actions(actions: list[bytes], wanted: dict[str, object]) -> None:
    assert differs(told(*actions)) == wanted


def sample(*actions: bytes) -> bytes:
    return ovs.action(ovs.SAMPLE, attribute(1, bytes(4)) + attribute(2, b"".join(actions)))


def by_length(longer: bytes, shorter: bytes) -> bytes:
    return ovs.action(ovs.CHECK_PKT_LEN, attribute(1, b"\xdc\x05") + attribute(2, longer) + attribute(3, shorter))


@pytest.mark.parametrize(
    ("actions", "wanted"),
    [
        ([sample(ovs.userspace(ovs.SFLOW)), ovs.output()], {"obstacle": Obstacle.ACTION}),
        ([sample(ovs.userspace(ovs.CONTROLLER))], {"ordinary": False, "obstacle": Obstacle.ACTION}),
        ([by_length(ovs.output(), ovs.ct() + ovs.recirc())], {"conntrack": True}),
        ([by_length(b"", ovs.action(ovs.TRUNC, bytes(4)))], {"obstacle": Obstacle.ACTION}),
        (
            [ovs.action(ovs.CLONE, ovs.ct() + ovs.recirc()), ovs.output()],
            {"conntrack": True, "obstacle": Obstacle.ACTION},
        ),
    ],
)
def test_actions_in_actions(actions: list[bytes], wanted: dict[str, object]) -> None:
    assert differs(told(*actions)) == wanted


def nested_deep(depth: int) -> bytes:
    inner = ovs.output()
    for _ in range(depth):
        inner = ovs.action(ovs.CLONE, inner)
    return inner


@pytest.mark.parametrize(
    "body",
    [
        b"",
        bytes(7),
        ovs.header(),
        ovs.flow()[:-1],
        ovs.flow() + b"\x01\0",
        ovs.header() + attribute(9, ovs.UFID),
        ovs.header() + attribute(1, b"") + attribute(3, bytes(15)),
        ovs.header() + attribute(1, attribute(3, b"\x01")),
        ovs.header() + attribute(1, attribute(6, b"\x08")),
        ovs.header() + attribute(1, attribute(6, b"\x08\0") + attribute(7, bytes(8))),
        ovs.flow(None, None, nested_deep(100)),
    ],
)
def test_what_has_not_the_known_form(body: bytes) -> None:
    with pytest.raises(SourceError) as caught:
        FlowReader().read(body)
    assert caught.value.reason is Reason.GARBAGE


MATCHES = [ip4(6), ip4(17, l4_key=b"\0\x44\0\x43", l4_mask=UDP_PORTS), ip6(58, 135), vlan(0x1005, 0x1FFF)]
ACTIONS = [
    ovs.output(),
    ovs.ct(),
    ovs.recirc(),
    set_tunnel(),
    sample(ovs.userspace(ovs.SFLOW)),
    ovs.userspace(ovs.SLOW_PATH),
]


def spoilt(chance: random.Random) -> bytes:
    """A flow of which up to three bytes are others, and that may end early."""
    match = chance.choice(MATCHES)
    body = bytearray(
        ovs.flow(
            *match,
            *chance.choices(ACTIONS, k=chance.randrange(5)),
            ufid=chance.choice([None, chance.randbytes(16)]),
            packets=chance.choice([0, chance.getrandbits(64)]),
        )
    )
    for _ in range(chance.randrange(4)):
        body[chance.randrange(len(body))] = chance.choice([0, 1, 4, 255, chance.randrange(256)])
    return bytes(body if chance.randrange(4) else body[: chance.randrange(len(body))])


def as_it_comes(reader: FlowReader, body: bytes) -> object:
    try:
        return reader.read(body)
    except SourceError as error:
        return error.reason


def holds(body: bytes, used: FlowReader) -> None:
    """A reader that has seen much tells the same as one that has seen nothing."""
    fresh = as_it_comes(FlowReader(), body)
    known = as_it_comes(used, body)
    if isinstance(fresh, tuple):
        assert isinstance(known, tuple)
        assert asdict(fresh[1]) == asdict(known[1])
        assert (fresh[0], *fresh[2:]) == (known[0], *known[2:])
    else:
        assert known is fresh is Reason.GARBAGE


USED = FlowReader()


@settings(max_examples=1000, deadline=None)
@given(st.binary(max_size=600))
def test_any_bytes(body: bytes) -> None:
    holds(body, USED)


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False))
def test_spoilt_messages(chance: random.Random) -> None:
    chance = random.Random(chance.getrandbits(64))  # noqa: S311  # no secret; hypothesis' own draws are slow
    for _ in range(100):
        holds(spoilt(chance), USED)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_million_spoilt_messages() -> None:
    chance = random.Random()  # noqa: S311  # as above
    for _ in range(1_000_000):
        holds(spoilt(chance), USED)


def test_what_is_kept_is_bounded() -> None:
    reader = FlowReader()
    for n in range(2 * FlowReader._MOST_KEPT):
        shape = reader.read(ovs.flow(None, ovs.IPV4_MASK | {4: struct.pack("=IQ", n, 0)}, ovs.output()))[1]
        assert shape.protocol is Protocol.TCP
    kept = sum(len(known) for looks in reader._kept.values() for known in looks.values())
    assert 0 < kept <= FlowReader._MOST_KEPT
