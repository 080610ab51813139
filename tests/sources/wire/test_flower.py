"""TC filters: what real kernels dumped, held against what others read from it; made-up ones; and torn ones."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.wire.flower import Filter, FlowerReader, Traits
from mecexporter.sources.wire.netlink import attribute
from tests.sources.filters import (
    ARP,
    DROP,
    EGRESS,
    IN_HW,
    IPV4,
    IPV6,
    NOT_IN_HW,
    PIPE,
    RECORDINGS,
    STOLEN,
    UFID,
    VLAN,
    action,
    bodies,
    filter_,
    forwarding,
    stats,
)

GOTO = 0x20000000
SKIP_SW = 2


def read(body: bytes) -> Filter:
    found = FlowerReader().read(body)
    assert found is not None
    return found


def traits(**keys: bytes) -> Traits:
    """Of a filter that matches these, by the attributes' numbers (``k8``)."""
    return read(forwarding(keys=[(int(k[1:]), v) for k, v in keys.items()])).traits


# -- what real kernels said

RECORDED = sorted(path.name for path in RECORDINGS.glob("*.filters.bin"))


def recorded(name: str) -> list[Filter]:
    reader = FlowerReader()
    return [found for body in bodies(f"{name}.filters.bin") if (found := reader.read(body)) is not None]


def attrs(node: Any) -> dict[str, Any]:
    return dict(reversed(node["attrs"]))  # of doubles the first


@pytest.mark.parametrize("name", ["offload", "offload-refused", "gre-ct.p1"])
def test_as_a_library_decodes_them(name: str) -> None:
    lines = (RECORDINGS / f"{name}.filters.decoded.jsonl").read_text().splitlines()
    decoded = [attrs(message) for message in map(json.loads, lines)]
    options = [attrs(message["TCA_OPTIONS"]) for message in decoded if "TCA_OPTIONS" in message]
    found = recorded(name)
    assert len(found) == len(options)
    for one, told in zip(found, options, strict=True):
        actions = [attrs(a) for _, a in told["TCA_FLOWER_ACT"]["attrs"]]
        last = actions[-1]
        counted = attrs(last["TCA_ACT_STATS"])
        total, hardware = counted["TCA_STATS_BASIC"], counted.get("TCA_STATS_BASIC_HW", {"packets": 0, "bytes": 0})
        assert (one.hw_packets, one.hw_bytes) == (hardware["packets"], hardware["bytes"])
        assert one.sw_packets + one.hw_packets == total["packets"]
        assert one.sw_bytes + one.hw_bytes == total["bytes"]
        assert one.traits.flags == told["TCA_FLOWER_FLAGS"]
        assert (one.traits.protocol or None) == told.get("TCA_FLOWER_KEY_IP_PROTO", one.traits.protocol)
        assert one.key[-16:].hex(":") == last["TCA_ACT_COOKIE"]
        tracked = told.get("TCA_FLOWER_KEY_CT_STATE", 0) & told.get("TCA_FLOWER_KEY_CT_STATE_MASK", 0) & 8
        assert one.traits.conntrack == (bool(tracked) or any(a["TCA_ACT_KIND"] == "ct" for a in actions))


@pytest.mark.parametrize("name", ["offload", "gre-ct.p1", "gre-ct.v1"])
def test_as_iproute2_prints_them(name: str) -> None:
    printed = [f for f in json.loads((RECORDINGS / f"{name}.tc.json").read_text()) if "handle" in f.get("options", {})]
    found = recorded(name)
    assert len(found) == len(printed)
    for one, told in zip(found, printed, strict=True):
        options = told["options"]
        last = options["actions"][-1]
        assert one.hw_packets == last["stats"].get("hw_packets", 0)
        assert one.hw_packets + one.sw_packets == last["stats"]["packets"]
        assert one.hw_bytes + one.sw_bytes == last["stats"]["bytes"]
        assert bool(one.traits.flags & IN_HW) == options.get("in_hw", False)
        assert one.key[-16:].hex() == last["cookie"]
        assert int.from_bytes(one.key[16:20], "little") == told["chain"]
        assert one.traits.terminal == (last["control_action"]["type"] != "goto")
        assert one.traits.ordinary == (options["keys"]["eth_type"] != "arp")
        assert one.age is not None
        assert one.age // 100 in (last["installed"], last["installed"] - 1), "tc asked a moment later"


def ufid(cookie: bytes) -> str:
    """Open vSwitch writes each 32-bit word the other way round."""
    text = b"".join(cookie[n : n + 4][::-1] for n in range(0, 16, 4)).hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


@pytest.mark.parametrize(
    ("flows", "name"),
    [
        ("offload", "offload"),
        ("offload-refused", "offload-refused"),
        ("gre-ct", "gre-ct.p1"),
        ("gre-ct", "gre-ct.v1"),
        ("gre-stateless", "gre-stateless"),
    ],
)
def test_as_open_vswitch_shows_them(flows: str, name: str) -> None:
    lines = (RECORDINGS / f"{flows}.dump-flows.txt").read_text().splitlines()
    shown = {line[5:41]: line for line in lines}
    for one in recorded(name):
        line = shown[ufid(one.key[-16:])]
        assert f"packets:{one.hw_packets + one.sw_packets}, bytes:{one.hw_bytes + one.sw_bytes}," in line
        assert ("offloaded:yes" in line) == bool(one.traits.flags & IN_HW)
        assert one.traits.terminal == ("recirc(" not in line)
        assert one.traits.ordinary == ("arp(" not in line)
        assert one.traits.conntrack == bool(re.search(r"ct\(|ct_state\(0x[1-9a-f][0-9a-f]*/", line))
        proto = re.search(r"proto=(\d+)(/0)?", line)
        if proto:
            assert one.traits.protocol == (None if proto[2] else int(proto[1]))


def test_a_thousand_filters() -> None:
    found = recorded("scale-1000")
    assert len({one.key for one in found}) == len(found) == 1000
    assert {one._replace(key=b"", age=0) for one in found} == {
        Filter(b"", Traits(IN_HW, 47, True, True, False, True, False), 7777, 999999, 0, 0, 0)
    }


# -- made by hand


def test_what_hardware_carried_and_what_it_missed() -> None:
    one = read(forwarding((100, 10_000), (90, 9_000)))
    assert one[2:] == (90, 9_000, 10, 1_000, 100_000)


def test_more_packets_than_32_bits_hold_each_with_the_basic_before_it() -> None:
    big = 1 << 32
    assert read(forwarding((5 * big, 1), (3 * big, 1)))[2:6:2] == (3 * big, 2 * big)
    assert read(forwarding((big + 7, 1), (3, 1)))[2:6:2] == (3, big + 4)
    pad = attribute(6, b"")
    basic = attribute(1, (9).to_bytes(8, "little") + bytes(8)), attribute(8, (big).to_bytes(8, "little"))
    assert read(filter_(action("mirred", basic[0] + pad + basic[1]), flags=NOT_IN_HW)).sw_packets == big


def test_kernel_that_does_not_tell_hardware_apart() -> None:
    assert read(forwarding((100, 10_000)))[2:6] == (100, 10_000, 0, 0)
    assert read(forwarding((100, 10_000), flags=NOT_IN_HW))[2:6] == (0, 0, 100, 10_000)


def test_filter_that_is_kept_out_of_software() -> None:
    assert read(forwarding((100, 10_000), (90, 9_000), flags=SKIP_SW | IN_HW))[2:6] == (100, 10_000, 0, 0)


def test_reading_amid_an_update_takes_nothing_away() -> None:
    assert read(forwarding((100, 10_000), (101, 10_100)))[2:6] == (101, 10_100, 0, 0)


def test_action_that_does_not_count_in_hardware() -> None:
    one = read(
        filter_(
            action("tunnel_key", stats((5, 500), (0, 0)), number=1, cookie=b""),
            action("mirred", stats((105, 10_500), (100, 10_000)), number=2, verdict=STOLEN),
        )
    )
    assert one[2:6] == (100, 10_000, 5, 500)


def test_actions_that_differ_in_bytes_are_not_taken_in_turns() -> None:
    def one(before: tuple[int, int], after: tuple[int, int]) -> Filter:
        actions = action("ct", stats(before)), action("mirred", stats(after), number=2, verdict=STOLEN)
        return read(filter_(*actions, flags=NOT_IN_HW))

    assert one((100, 10_400), (100, 10_000))[4:6] == (100, 10_400)
    assert one((100, 10_400), (101, 10_100))[4:6] == (100, 10_400), "a packet came while they were read"


def test_policer_that_several_filters_share() -> None:
    one = read(
        filter_(
            action("police", stats((9_999, 999_999), (0, 0)), number=1, cookie=b""),
            action("mirred", stats((10, 1_000), (0, 0)), number=2, verdict=STOLEN),
        )
    )
    assert one[2:6] == (0, 0, 10, 1_000)
    assert read(filter_(action("police", stats((3, 300)), cookie=b""))).hw_packets == 3


@pytest.mark.parametrize(
    ("last", "verdict", "terminal"),
    [
        ("gact", GOTO | 6, False),
        ("gact", DROP, True),
        ("gact", -1, False),
        ("gact", 0, False),
        ("mirred", STOLEN, True),
        ("mirred", PIPE, False),
        ("ct", PIPE, True),  # what comes after it is not where we look; Open vSwitch does not end with it
    ],
)
def test_whether_a_packet_is_seen_again(last: str, verdict: int, terminal: bool) -> None:
    counted = stats((1, 100), (1, 100))
    one = read(filter_(action("ct", counted, number=1), action(last, counted, number=2, verdict=verdict)))
    assert one.traits.terminal == terminal
    assert one.traits.conntrack


def test_filter_without_action() -> None:
    one = read(filter_())
    assert one[2:] == (0, 0, 0, 0, None)
    assert not one.traits.terminal


@pytest.mark.parametrize(
    ("keys", "protocol", "ordinary"),
    [
        ({"k8": IPV4, "k9": b"\x11", "k21": b"\0\x35", "k38": b"\xff\xff"}, 17, True),
        ({"k8": IPV4, "k9": b"\x11", "k21": b"\0\x43", "k38": b"\xff\xff"}, 17, False),
        ({"k8": IPV4, "k9": b"\x11", "k20": b"\0\x44"}, 17, False),
        ({"k8": IPV6, "k9": b"\x11", "k20": b"\x02\x23", "k37": b"\xff\xff"}, 17, False),
        ({"k8": IPV4, "k9": b"\x11", "k21": b"\0\x40", "k38": b"\xff\xf0"}, 17, True),
        ({"k8": IPV4, "k9": b"\x06", "k19": b"\0\x43"}, 6, True),
        ({"k8": IPV6, "k9": b"\x3a", "k55": b"\x87", "k56": b"\xff"}, 58, False),
        ({"k8": IPV6, "k9": b"\x3a", "k55": b"\x80", "k56": b"\xff"}, 58, True),
        ({"k8": IPV6, "k9": b"\x3a", "k55": b"\x80", "k56": b"\xf0"}, 58, True),
        ({"k8": IPV4, "k9": b"\x01", "k55": b"\x87"}, 1, True),
        ({"k8": IPV4, "k9": b"\x2f", "k47": b"\0\0\0\1", "k48": b"\0\0\0\1"}, 47, True),  # fragments
        ({"k8": IPV4}, None, True),
        ({}, None, True),
        ({"k8": ARP}, -1, False),
        ({"k8": b"\x88\x47"}, -1, True),
        ({"k8": VLAN, "k23": b"\0\x64", "k25": IPV4, "k9": b"\x2f"}, 47, True),
        ({"k8": IPV4, "k23": b"\0\x64", "k25": IPV4, "k9": b"\x2f"}, 47, True),
        ({"k8": VLAN, "k25": VLAN, "k79": IPV6}, None, True),
        ({"k8": b"\x88\xa8", "k25": VLAN, "k79": ARP}, -1, False),
        ({"k8": VLAN, "k25": ARP}, -1, False),
        ({"k8": VLAN}, None, True),
    ],
)
def test_what_is_matched(keys: dict[str, bytes], protocol: int | None, ordinary: bool) -> None:
    found = traits(**keys)
    assert (found.protocol, found.ordinary) == (protocol, ordinary)


@pytest.mark.parametrize(
    ("state", "mask", "conntrack"), [(0x0A, 0x0A, True), (0x09, 0x0B, True), (0, 8, False), (8, 0, False)]
)
def test_conntrack_by_the_match_alone(state: int, mask: int, conntrack: bool) -> None:
    found = traits(k8=IPV4, k91=state.to_bytes(2, "little"), k92=mask.to_bytes(2, "little"))
    assert found.conntrack == conntrack


def test_tunnel_by_its_key() -> None:
    assert traits(k8=IPV4, k26=bytes(4)).tunnel
    assert traits(k45=b"\x17\xc1").tunnel
    assert not traits(k8=IPV4).tunnel


def test_unknown_attributes_are_passed_over() -> None:
    unknown = attribute(0x3000, b"whatever") + attribute(4000, b"")
    plain = read(forwarding((100, 10_000), (90, 9_000)))
    assert read(forwarding((100, 10_000), (90, 9_000), more=unknown) + unknown) == plain
    one = filter_(action("mirred", stats((100, 10_000), (90, 9_000)) + unknown, age=100_000, verdict=4, more=unknown))
    assert read(one) == plain


@pytest.mark.parametrize("body", [forwarding(kind="bpf"), filter_(kind="matchall"), forwarding()[:40]])
def test_what_is_no_flower_filter(body: bytes) -> None:
    assert FlowerReader().read(body) is None


def test_name_of_a_filter() -> None:
    several = (
        forwarding(),
        forwarding(chain=1),
        forwarding(handle=2),
        forwarding(device=6),
        forwarding(parent=EGRESS),
        forwarding(cookie=b""),
        forwarding(cookie=UFID[::-1]),
    )
    assert len({read(body).key for body in several}) == len(several)
    assert read(forwarding((1, 100), age=7)).key == read(forwarding()).key


def test_filters_alike_are_told_apart_whatever_was_read_before() -> None:
    several = [
        forwarding((n, n * 100), (n // 2, n * 50), keys=[(8, IPV4), (9, proto), (21, port), (38, b"\xff\xff")], chain=n)
        for n in range(3)
        for proto in (b"\x11", b"\x06")
        for port in (b"\0\x43", b"\0\x35", b"\x43\0")
    ]
    reader = FlowerReader()
    assert [reader.read(body) for body in several] == [read(body) for body in several]
    assert [reader.read(body) for body in reversed(several)] == [read(body) for body in reversed(several)]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mecexporter.sources.wire.flower._MOST_VARIETIES", 10)
    reader = FlowerReader()
    for proto in range(100):
        one = reader.read(forwarding((proto, 1), keys=[(8, IPV4), (9, bytes([proto]))]))
        assert one is not None
        assert (one.traits.protocol, one.hw_packets) == (proto, proto)
    assert reader._varieties <= 10


# -- torn

GACT = attribute(1, b"gact\0") + attribute(4, stats((1, 1)))
GARBAGE = {
    "nothing": b"",
    "no fixed part": bytes(19),
    "no kind": bytes(20),
    "flags of two bytes": filter_(more=attribute(22, b"\4\0")),
    "half an attribute": forwarding() + b"\x08\0",
    "an attribute longer than all": forwarding() + b"\xff\xff\x0b\0",
    "an attribute of no length": forwarding() + b"\0\0\x0b\0",
    "no statistics": filter_(attribute(1, attribute(1, b"gact\0"))),
    "no kind of action": filter_(attribute(1, attribute(4, stats((1, 1))))),
    "no counters": filter_(action("gact", attribute(3, bytes(20)))),
    "short counters": filter_(action("gact", attribute(1, bytes(8)))),
    "hardware's counters alone": filter_(action("gact", stats((1, 1))[20:] + attribute(7, bytes(16)))),
    "counters twice": filter_(action("gact", stats((1, 1), (1, 1)) + stats((1, 1)))),
    "64 bits of nothing": filter_(action("gact", attribute(8, bytes(8)) + stats((1, 1)))),
    "64 bits that are 32": filter_(action("gact", stats((1, 1)) + attribute(8, bytes(4)))),
    "no verdict": filter_(attribute(1, GACT + attribute(2, attribute(2, b"abc")))),
    "short age": filter_(attribute(1, GACT + attribute(2, attribute(1, b"abc")))),
}  # fmt: skip


@pytest.mark.parametrize("body", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage(body: bytes) -> None:
    with pytest.raises(SourceError) as caught:
        FlowerReader().read(body)
    assert caught.value.reason is Reason.GARBAGE


REAL = [body for name in RECORDED if "scale" not in name for body in bodies(name)]


def outcome(reader: FlowerReader, body: bytes) -> Filter | Reason | None:
    """What it reads, or why it does not: nothing else may happen."""
    try:
        found = reader.read(body)
    except SourceError as error:
        return error.reason
    assert found is None or min(found[2:6]) >= 0
    return found


def test_cut_anywhere_it_is_refused_or_no_filter() -> None:
    reader = FlowerReader()
    for body in REAL:
        whole = reader.read(body)
        for cut in range(len(body)):
            assert outcome(reader, body[:cut]) in (Reason.GARBAGE, None, whole if cut > len(body) - 4 else None)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A real message with some bytes changed, cut out or doubled."""
    body = bytearray(draw(st.sampled_from(REAL)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(body) - 1))
        match draw(st.sampled_from("bwxd")):
            case "b":
                body[at] = draw(st.integers(0, 255))
            case "w":
                body[at & ~3 : (at & ~3) + 2] = draw(st.integers(0, 70)).to_bytes(2, "little")
            case "x":
                del body[at : at + draw(st.integers(1, 40))]
            case "d":
                body[at:at] = body[at : at + draw(st.integers(1, 40))]
        if not body:
            break
    return bytes(body)


KEPT = FlowerReader()
"""Reads all that hypothesis makes, so that what it remembers is of many forms."""


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(mutated())
def test_mutated_messages(body: bytes) -> None:
    fresh = outcome(FlowerReader(), body)
    assert outcome(KEPT, body) == outcome(KEPT, body) == fresh
    assert fresh in (None, Reason.GARBAGE) or isinstance(fresh, Filter)


@pytest.mark.parametrize(
    "number", [10_000, pytest.param(1_000_000, marks=[pytest.mark.long, pytest.mark.timeout(1800)])]
)
def test_many_mutated_messages(number: int) -> None:
    chance = random.Random(number)  # noqa: S311  # no secret
    refused = 0
    for _ in range(number):
        body = bytearray(chance.choice(REAL))
        for _ in range(chance.randrange(1, 4)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        if chance.random() < 0.2:
            del body[chance.randrange(len(body)) :]
        found = outcome(KEPT, bytes(body))
        assert found in (None, Reason.GARBAGE) or isinstance(found, Filter)
        refused += found is Reason.GARBAGE
    assert 0.1 < refused / number < 0.9
