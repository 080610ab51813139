"""Writes a recording to standard output.

record.py filters DEVICE       raw RTM_GETTFILTER dump of the device's ingress
record.py links                raw RTM_GETLINK dump with VF information (IFLA_EXT_MASK = RTEXT_FILTER_VF)
record.py sysfs PATH...        a text manifest of the trees under /sys; symlinks kept, not followed

A raw dump is one record for each receive call: its length as a u32 in the machine's byte order, then the buffer,
which holds whole netlink messages and, at the end of the last, NLMSG_DONE.
A manifest has one JSON array a line: ["dir", path], ["link", path, target], ["file", path, mode, text]
or ["error", path, mode, errno name] for a file that exists but fails when read.
"""

import errno
import json
import os
import socket
import struct
import sys
from collections.abc import Iterator

RTM_GETLINK, RTM_GETTFILTER, NLMSG_DONE = 18, 46, 3
NLM_F_REQUEST_DUMP = 0x301
TC_H_INGRESS_FILTERS = 0xFFFFFFF2
# Not worth keeping, or endless, or with an effect when read
SKIP = {
    "power",
    "config",
    "rom",
    "vpd",
    "msi_irqs",
    "queues",
    "remove",
    "rescan",
    "reset",
    "firmware_node",
    "wakeup",
    "iommu",
}


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


def manifest(path: str) -> Iterator[list[str]]:
    if os.path.islink(path):
        yield ["link", path, os.readlink(path)]
    elif os.path.isdir(path):
        yield ["dir", path]
        for name in sorted(os.listdir(path)):
            if name not in SKIP and not name.startswith("resource"):
                yield from manifest(os.path.join(path, name))
    else:
        mode = format(os.stat(path).st_mode & 0o777, "o")
        if not os.stat(path).st_mode & 0o444:
            yield ["file", path, mode, ""]
            return
        try:
            with open(path, encoding="ascii", errors="backslashreplace") as f:
                yield ["file", path, mode, f.read()]
        except OSError as e:
            yield ["error", path, mode, errno.errorcode[e.errno or 0]]


def main(what: str, *args: str) -> None:
    if what == "sysfs":
        for path in args:
            for entry in manifest(path):
                print(json.dumps(entry))
        return
    if what == "filters":
        with open(f"/sys/class/net/{args[0]}/ifindex") as f:
            index = int(f.read())
        chunks = dump(RTM_GETTFILTER, struct.pack("=BxxxiIII", 0, index, 0, TC_H_INGRESS_FILTERS, 0))
    else:
        chunks = dump(RTM_GETLINK, struct.pack("=BxHiII", 0, 0, 0, 0, 0) + struct.pack("=HHI", 8, 29, 1))
    for chunk in chunks:
        sys.stdout.buffer.write(struct.pack("=I", len(chunk)) + chunk)


main(*sys.argv[1:])
