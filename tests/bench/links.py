"""What it costs to read the statistics of all links: real devices of this kernel, in a network of their own."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

from mecexporter.sources.wire.ethtool import Ethtool
from mecexporter.sources.wire.link_stats import statistics
from mecexporter.sources.wire.netlink import NETLINK_ROUTE, Netlink
from tests.bench.measure import Row
from tests.sources.netns import in_own_network, ip

if TYPE_CHECKING:
    from collections.abc import Callable

_BEST_OF = 10


def of_links(number: int = 1000, looked_at: int = 133) -> list[Row]:
    """All of so many links are in the kernel's answer; what is kept: all, or 128 representors, 2 PFs and their like."""

    def measure() -> tuple[float, float, float]:
        ip(*(f"link add a{n} type veth peer name b{n}" for n in range(number // 2)))
        names = {index: name for index, name in socket.if_nameindex() if name[0] in "ab"}
        few = dict(list(names.items())[:looked_at])
        with Netlink(NETLINK_ROUTE) as route, Ethtool() as ethtool:
            features = ethtool.features("lo")
            return (
                _price(lambda: statistics(route, names)),
                _price(lambda: statistics(route, few)),
                _price(lambda: [ethtool.tc_offload(name, features) for name in few.values()]),
            )

    every, some, features = in_own_network(measure)
    return [
        Row("statistics of links, CPU", f"{every * 1e3:.1f} ms", "5 ms", f"{number:,} links, the kernel's part too"),
        Row("statistics of a node's devices, CPU", f"{some * 1e3:.1f} ms", "", f"{looked_at} of {number:,} links kept"),
        Row("hw-tc-offload of devices, CPU", f"{features * 1e3:.1f} ms", "", f"{looked_at} devices"),
    ]


def _price(action: Callable[[], object]) -> float:
    """CPU seconds of the cheapest of some turns: others' work on the machine only makes them dearer."""
    prices = []
    for _ in range(_BEST_OF):
        began = time.thread_time()
        action()
        prices.append(time.thread_time() - began)
    return min(prices)
