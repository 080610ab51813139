"""Messages as the kernel's Open vSwitch writes them: include/uapi/linux/openvswitch.h, net/openvswitch/datapath.c."""

from __future__ import annotations

import struct

from mecexporter.sources.wire.netlink import attribute

ETHERNET = bytes.fromhex("02000000000102000000000f")
UFID = bytes(range(16))
OUTPUT, USERSPACE, SET, PUSH_VLAN, SAMPLE, RECIRC, SET_MASKED, CT, TRUNC, CLONE, CHECK_PKT_LEN = (
    *(1, 2, 3, 4, 6, 7, 11, 12, 13, 20),
    21,
)
SFLOW, SLOW_PATH, CONTROLLER = 1, 2, 5
Attributes = dict[int, bytes]


def nested(attributes: Attributes) -> bytes:
    return b"".join(attribute(kind, value) for kind, value in attributes.items())


def action(kind: int, value: bytes = b"") -> bytes:
    return attribute(kind, value)


def output(port: int = 2) -> bytes:
    return action(OUTPUT, struct.pack("=I", port))


def recirc(number: int = 7) -> bytes:
    return action(RECIRC, struct.pack("=I", number))


def ct(*inside: bytes) -> bytes:
    return action(CT, attribute(2, struct.pack("=H", 5)) + b"".join(inside))


def userspace(cookie: int) -> bytes:
    return action(USERSPACE, nested({1: struct.pack("=I", 4711), 2: struct.pack("=HH", cookie, 1) + bytes(44)}))


def header(datapath: int = 6) -> bytes:
    return struct.pack("=BBHi", 1, 1, 0, datapath)


def metadata(in_port: int, recirc_id: int, ct_state: int = 0) -> Attributes:
    """What every key and mask begins with."""
    return {
        20: struct.pack("=I", recirc_id),
        19: bytes(4),
        2: bytes(4),
        3: struct.pack("=I", in_port),
        15: bytes(4),
        22: struct.pack("=I", ct_state),
        23: bytes(2),
        24: bytes(4),
        25: bytes(16),
    }


def ipv4(proto: int, *, frag: int = 0) -> bytes:
    return bytes((10, 0, 0, 1, 10, 0, 0, 2, proto, 0, 64, frag))


def ipv6(proto: int, *, label: int = 0, frag: int = 0) -> bytes:
    return bytes(32) + struct.pack(">IBBBB", label, proto, 0, 64, frag)


IPV4_KEY = {6: b"\x08\x00", 7: ipv4(6)}
IPV4_MASK = {6: b"\xff\xff", 7: bytes(8) + b"\xff\0\0\xff"}


def flow(
    key: Attributes | None = None,
    mask: Attributes | None = None,
    *actions: bytes,
    packets: int = 3,
    octets: int = 300,
    ufid: bytes | None = UFID,
    in_port: int = 1,
    ct_state: int = 0,
) -> bytes:
    """The body of an OVS_FLOW_CMD_NEW: of TCP over IPv4, where nothing else is said."""
    key = metadata(in_port, 0, ct_state) | {4: ETHERNET} | (IPV4_KEY if key is None else key)
    mask = metadata(0xFFFFFFFF, 0xFFFFFFFF) | {4: bytes(12)} | (IPV4_MASK if mask is None else mask)
    parts = [attribute(9, ufid)] if ufid is not None else []
    parts += [attribute(1, nested(key)), attribute(7, nested(mask))]
    if packets:
        parts += [attribute(5, bytes(8)), attribute(3, struct.pack("=QQ", packets, octets)), attribute(4, b"\x10")]
    return header() + b"".join(parts) + attribute(2, b"".join(actions))
