"""A network of one's own for a test: devices come and go there, and nobody else's packets are counted."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _IFF_RUNNING = 0x8913, 0x40
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")


def in_own_network(function: Callable[[], T]) -> T:
    """Run it in a thread in a network namespace of its own, as are the threads and processes that it starts."""
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            _leave()
            results.append(function())
        except BaseException as error:  # noqa: BLE001  # raised again below, in the test's own thread
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _leave() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "no network namespace")
    quiet = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
    if quiet.exists():  # devices that come up send nothing of their own accord
        quiet.write_text("1")


def ip(*commands: str) -> None:
    """Commands of ip(8), in one go."""
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True, timeout=120)


def send(device: str, packets: int, size: int) -> None:
    """Frames of that size, Ethernet header included, of a protocol that nobody takes."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((device, 0))
        # A veth that was just set up has no carrier for a moment, and drops what is sent.
        wait_until(lambda: _running(raw, device), 20, f"{device} has a carrier")
        frame = b"\xff" * 12 + b"\x88\xb5" + b"\0" * (size - 14)
        for _ in range(packets):
            raw.send(frame)


def _running(any_socket: socket.socket, device: str) -> bool:
    answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16sh22x", device.encode(), 0))
    flags: int = struct.unpack_from("h", answer, 16)[0]
    return bool(flags & _IFF_RUNNING)
