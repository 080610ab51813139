"""ethtool's ioctl, against this machine's kernel and its own tool; a SmartNIC's features: tests/hwlab."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

import pytest

from mecexporter.sources.wire import ethtool
from mecexporter.sources.wire.ethtool import Ethtool
from tests.sources.daemons import run
from tests.sources.netns import in_own_network, ip, needs_root

if TYPE_CHECKING:
    from collections.abc import Callable

FEATURES = (*(f"feature-{n}".encode() for n in range(40)), b"hw-tc-offload")


class Driver(Ethtool):
    """Answers as a driver would."""

    def __init__(self, answer: Callable[[bytes], bytes | None]) -> None:
        super().__init__()
        self._answer = answer

    def _ask(self, device: str, request: bytes) -> bytes | None:
        assert device == "ens1f0"
        return self._answer(request)


def blocks(available: int, active: int) -> bytes:
    """Two of them; the feature is number 40, so the second's bit 8."""
    bit = 1 << 8
    first = struct.pack("=4I", 0xFFFFFFFF, 0, 0xFFFFFFFF & ~bit, 0)
    return struct.pack("=II", 0x3A, 2) + first + struct.pack("=4I", bit * available, 0, bit * active, 0)


@pytest.mark.parametrize(
    ("available", "active", "wanted"), [(1, 1, True), (1, 0, False), (0, 1, True), (0, 0, None)]
)  # fmt: skip
def test_the_feature_of_a_driver(available: int, active: int, *, wanted: bool | None) -> None:
    def answer(request: bytes) -> bytes:
        assert request[:8] == struct.pack("=II", 0x3A, 2)
        return blocks(available, active)

    with Driver(answer) as asked:
        assert asked.tc_offload("ens1f0", FEATURES) is wanted


def test_a_kernel_without_the_feature_is_not_asked() -> None:
    with Ethtool() as asked:
        assert asked.tc_offload("lo", FEATURES[:-1]) is None


def test_a_device_that_is_not_there() -> None:
    with Ethtool() as asked:
        assert (asked.features("nosuch0"), asked.versions("nosuch0")) == ((), (None, None))
        assert (asked.tc_offload("nosuch0", FEATURES), asked.speed("nosuch0")) == (None, None)


def test_a_name_is_never_cut_to_that_of_another() -> None:
    with Ethtool() as asked:
        assert asked._ask("x" * 40, bytes(8)) is None


def test_a_driver_that_is_asked_for_what_it_does_not_have() -> None:
    with Driver(lambda _: None) as asked:
        assert (asked.speed("ens1f0"), asked.features("ens1f0")) == (None, ())
        assert asked.tc_offload("ens1f0", FEATURES) is None


@pytest.mark.parametrize(
    ("megabits", "wanted"), [(100_000, 100_000_000_000), (0, None), (0xFFFFFFFF, None)]
)  # fmt: skip
def test_the_speed_of_a_link(megabits: int, wanted: int | None) -> None:
    def answer(request: bytes) -> bytes:
        (words,) = struct.unpack_from("=b", request, 15)
        if words != 4:
            return ethtool._LINK.pack(0x4C, 0, -4)
        assert len(request) == 48 + 3 * 4 * 4
        return ethtool._LINK.pack(0x4C, megabits, 4) + request[48:]

    with Driver(answer) as asked:
        assert asked.speed("ens1f0") == wanted


def test_a_driver_that_never_agrees_on_the_masks() -> None:
    with Driver(lambda _: ethtool._LINK.pack(0x4C, 0, -4)) as asked:
        assert asked.speed("ens1f0") is None


@needs_root
def test_a_real_kernel_is_read_as_ethtool_reads_it() -> None:
    def look() -> tuple[tuple[bytes, ...], bool | None, int | None, tuple[str | None, str | None], str, str]:
        ip("link add one type veth peer name two", "link set one up", "link set two up")
        with Ethtool() as asked:
            features = asked.features("lo")
            return (
                features,
                asked.tc_offload("one", features),
                asked.speed("one"),
                asked.versions("one"),
                run("ethtool", "-k", "one"),
                run("ethtool", "one"),
            )

    features, offload, speed, versions, theirs, link = in_own_network(look)
    assert f"hw-tc-offload: {'on' if offload else 'off'}" in theirs
    assert (offload is None) == ("hw-tc-offload: off [fixed]" in theirs)
    assert {b"hw-tc-offload", b"tx-checksum-ip-generic"} <= {*features}
    assert f"Speed: {speed // 10**6 if speed else None}Mb/s" in link
    assert versions[0] is None or "veth" not in versions[0]


def test_features_are_the_same_for_all_devices() -> None:
    with Ethtool() as asked:
        assert len({asked.features(name) for _, name in socket.if_nameindex()}) == 1
