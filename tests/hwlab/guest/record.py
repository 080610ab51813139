"""Writes raw rtnetlink dumps to standard output; `manifest.py` is for sysfs.

record.py filters DEVICE       RTM_GETTFILTER of the device's ingress
record.py links                RTM_GETLINK with VF information (IFLA_EXT_MASK = RTEXT_FILTER_VF)
record.py stats                RTM_GETSTATS with IFLA_STATS_LINK_64 and IFLA_STATS_LINK_OFFLOAD_XSTATS

One record for each receive call: its length as a u32 in the machine's byte order, then the buffer, which holds whole
netlink messages and, at the end of the last, NLMSG_DONE.
"""

import socket
import struct
import sys
from collections.abc import Iterator

RTM_GETLINK, RTM_GETTFILTER, RTM_GETSTATS, NLMSG_DONE = 18, 46, 94, 3
STATS_MASK = 1 << 0 | 1 << 3
NLM_F_REQUEST_DUMP = 0x301
TC_H_INGRESS_FILTERS = 0xFFFFFFF2
IFLA_EXT_MASK, RTEXT_FILTER_VF = 29, 1


def dump(kind: int, body: bytes) -> Iterator[bytes]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as s:
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


def asked(what: str, *device: str) -> Iterator[bytes]:
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
