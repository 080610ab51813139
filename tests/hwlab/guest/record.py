"""Writes raw netlink dumps to standard output; `manifest.py` is for sysfs.

record.py filters DEVICE       RTM_GETTFILTER of the device's ingress
record.py links                RTM_GETLINK with VF information (IFLA_EXT_MASK = RTEXT_FILTER_VF)
record.py stats                RTM_GETSTATS with IFLA_STATS_LINK_64 and IFLA_STATS_LINK_OFFLOAD_XSTATS
record.py datapaths            OVS_DP_CMD_GET
record.py vports DATAPATH      OVS_VPORT_CMD_GET of a datapath of that name
record.py flows DATAPATH       OVS_FLOW_CMD_GET
record.py conntrack            IPCTNL_MSG_CT_GET

One record for each receive call: its length as a u32 in the machine's byte order, then the buffer, which holds whole
netlink messages and, at the end of the last, NLMSG_DONE.
"""

import socket
import struct
import sys
from collections.abc import Iterator

RTM_GETLINK, RTM_GETTFILTER, RTM_GETSTATS, NLMSG_DONE = 18, 46, 94, 3
STATS_MASK = 1 << 0 | 1 << 3
NLM_F_REQUEST_DUMP, NLM_F_REQUEST = 0x301, 1
NETLINK_GENERIC, NETLINK_NETFILTER, CTNETLINK_GET = 16, 12, 0x101
GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME = 0x10, 3, 1, 2
OVS_GET = 3
TC_H_INGRESS_FILTERS = 0xFFFFFFF2
IFLA_EXT_MASK, RTEXT_FILTER_VF = 29, 1


def dump(kind: int, body: bytes, protocol: int = socket.NETLINK_ROUTE) -> Iterator[bytes]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        s.bind((0, 0))
        s.send(struct.pack("=IHHII", 16 + len(body), kind, NLM_F_REQUEST_DUMP, 1, 0) + body)
        done = False
        while not done:
            buffer = s.recv(1 << 18)
            yield buffer
            at = 0
            while at < len(buffer):
                length, message_type = struct.unpack_from("=IH", buffer, at)
                done = done or message_type == NLMSG_DONE
                at += (length + 3) & ~3


def family(name: str) -> int:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC) as s:
        raw = name.encode() + b"\0"
        attribute = struct.pack("=HH", 4 + len(raw), CTRL_ATTR_FAMILY_NAME) + raw.ljust((len(raw) + 3) & ~3, b"\0")
        body = struct.pack("=BBH", CTRL_CMD_GETFAMILY, 1, 0) + attribute
        s.send(struct.pack("=IHHII", 16 + len(body), GENL_ID_CTRL, NLM_F_REQUEST, 1, 0) + body)
        answer = s.recv(1 << 16)
    at = 20
    while at < len(answer):
        length, kind = struct.unpack_from("=HH", answer, at)
        if kind == CTRL_ATTR_FAMILY_ID:
            return int(struct.unpack_from("=H", answer, at + 4)[0])
        at += (length + 3) & ~3
    raise LookupError(name)


def openvswitch(name: str, datapath: int, version: int) -> Iterator[bytes]:
    return dump(family(name), struct.pack("=BBHi", OVS_GET, version, 0, datapath), NETLINK_GENERIC)


def asked(what: str, *device: str) -> Iterator[bytes]:
    if what == "datapaths":
        return openvswitch("ovs_datapath", 0, 2)
    if what in ("vports", "flows"):
        return openvswitch(f"ovs_{what[:-1]}", socket.if_nametoindex(*device), 1)
    if what == "conntrack":
        return dump(CTNETLINK_GET, bytes(4), NETLINK_NETFILTER)
    if what == "filters":
        index = socket.if_nametoindex(*device)
        return dump(RTM_GETTFILTER, struct.pack("=BxxxiIII", 0, index, 0, TC_H_INGRESS_FILTERS, 0))
    if what == "stats":
        return dump(RTM_GETSTATS, struct.pack("=BxxxII", 0, 0, STATS_MASK))
    attribute = struct.pack("=HHI", 8, IFLA_EXT_MASK, RTEXT_FILTER_VF)
    return dump(RTM_GETLINK, struct.pack("=BxHiII", 0, 0, 0, 0, 0) + attribute)


if __name__ == "__main__":
    for chunk in asked(*sys.argv[1:]):
        sys.stdout.buffer.write(struct.pack("=I", len(chunk)) + chunk)
