"""Flows of Open vSwitch's own datapaths: the kernel's by netlink, a user-space one's as text of ovs-vswitchd.

The kernel is asked itself: ovs-vswitchd does nothing for it. A user-space datapath is part of ovs-vswitchd, whose main
thread writes out all flows at one go and does nothing else meanwhile. So it is asked how many there are first.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from mecexporter.aside import OneAtATime
from mecexporter.errors import NOBODY, Reason, SourceError
from mecexporter.sources.base import Source
from mecexporter.sources.flow_counters import FlowCounters
from mecexporter.sources.vswitchd import upcalls
from mecexporter.sources.wire import dpctl, ovs_netlink
from mecexporter.sources.wire.netlink import NETLINK_GENERIC, Netlink
from mecexporter.sources.wire.ovs_netlink import PortType
from mecexporter.sources.wire.unixctl import UnixctlClient, locate_by_pidfile
from mecexporter.state.datapath import FlowClass, FlowTable, Layer, Path, PortKind, Protocol
from mecexporter.state.observed import Fresh
from mecexporter.state.ports import port_kinds
from mecexporter.state.world import Role

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from mecexporter.sources.flow_counters import Tally
    from mecexporter.sources.wire.ovs_netlink import Shape
    from mecexporter.state.world import World

P = TypeVar("P", int, bytes)

MOST_FLOWS = 200_000
"""Flows of the kernel that are read one by one: ovs-vswitchd's own limit, unless it was raised."""
HELD = 0.08
"""Seconds for which ovs-vswitchd's main thread may be held (we promise 0.1)."""

_SHARE = 0.002  # of one core
_LONGEST_PAUSE = 900.0
_FLOW_SECONDS, _LEAST_FLOW_SECONDS = 40e-6, 8e-6  # of the main thread for the text of a flow: unmeasured, and at best
_ENOUGH_TO_MEASURE = 1000  # flows
_KERNEL_BYTES, _KERNEL_SECONDS = 256 << 20, 4.0
_TEXT_BYTES = 32 << 20


class OvsFlowsSource(Source[FlowTable]):
    """Reads every flow, the more seldom the more there are.

    Args:
        run_dir: where ovs-vswitchd's pidfile and socket are.
        control: a socket that overrides what the pidfile says, or None.
        interval: seconds between reads, as long as these are cheap.
    """

    name = "ovs_flows"
    roles = frozenset({Role.COMPUTE})
    needs = ("sysfs",)

    def __init__(self, run_dir: pathlib.Path, control: pathlib.Path | None, interval: float) -> None:
        self.interval = interval
        self._client = UnixctlClient(
            lambda: control or locate_by_pidfile(run_dir, "ovs-vswitchd"), max_bytes=_TEXT_BYTES
        )
        self._reads: OneAtATime[tuple[FlowTable, float]] = OneAtATime("of the datapath's flows")
        self._counters = FlowCounters()
        self._reader = ovs_netlink.FlowReader()
        self._cpu = 0.0
        self._flow_seconds = _FLOW_SECONDS
        self._best: float | None = None

    def pause(self, value: FlowTable) -> float:
        """So long that the share of a core stays small; the second read comes soon, for before it nothing is judged."""
        if value.seconds is None:
            return self.interval
        return min(max(self.interval, self._cpu / _SHARE), max(self.interval, _LONGEST_PAUSE))

    @property
    def lifetime(self) -> float:
        """Three pauses, at least 10 s."""
        return 3 * max(self.pause(FlowTable(seconds=0.0)), 10.0 / 3)

    async def read(self, world: World) -> FlowTable:
        """Raises SourceError; TOO_LARGE where there are more flows than may be read."""
        if not isinstance(world.sysfs, Fresh):
            raise SourceError(Reason.MISSING, f"which devices are representors is not known: {world.sysfs.why}")
        texts = await self._texts(world)
        table, self._cpu = await self._reads.call(self._read, port_kinds(world), texts, _in_kernel(world))
        return table

    async def close(self) -> None:
        """Close the connection."""
        self._client.close()

    async def _texts(self, world: World) -> list[str]:
        """The flows of user-space datapaths."""
        if isinstance(world.ovs, Fresh) and all(b.datapath_type == "system" for b in world.ovs.value.bridges):
            return []
        try:
            datapaths = [u for u in await upcalls(self._client) if not u.datapath.startswith("system@")]
        except SourceError as error:
            if error.reason in NOBODY:  # and with ovs-vswitchd its datapath is gone
                return []
            raise
        limit = int(HELD / self._flow_seconds)
        texts = []
        for datapath in datapaths:
            if datapath.flows > limit:
                # A busy machine may have been the cause of one slow answer: not for ever.
                self._flow_seconds = max(self._best or _LEAST_FLOW_SECONDS, self._flow_seconds * 0.8)
                raise SourceError(
                    Reason.TOO_LARGE,
                    f"{datapath.datapath} has {datapath.flows} flows: to show more than {limit} would hold "
                    f"ovs-vswitchd for over {HELD:g} s",
                )
            began = time.monotonic()
            texts.append(await self._client.run("dpctl/dump-flows", "-m", datapath.datapath))
            if datapath.flows >= _ENOUGH_TO_MEASURE:
                self._flow_seconds = max(_LEAST_FLOW_SECONDS, (time.monotonic() - began) / datapath.flows)
                self._best = min(self._flow_seconds, self._best or self._flow_seconds)
        return texts

    def _read(
        self, kinds: Mapping[str, PortKind], texts: list[str], in_kernel: bool = False
    ) -> tuple[FlowTable, float]:
        began, now = time.thread_time(), time.monotonic()
        table = self._counters.count(self._all(kinds, texts, in_kernel), now)
        return table, time.thread_time() - began

    def _all(
        self, kinds: Mapping[str, PortKind], texts: list[str], in_kernel: bool
    ) -> Iterator[tuple[bytes, Tally, int, int, None]]:
        yield from self._kernel(kinds, in_kernel)

        def of_text(shape: Shape, port: bytes) -> Tally:
            name = port.decode("utf-8", "replace")
            kind = PortKind.TUNNEL if "_sys" in name else kinds.get(name, PortKind.OTHER)
            return self._tally(Layer.USERSPACE, shape, name, kind)

        for text in texts:
            yield from _counted(dpctl.flows(text.encode()), of_text)

    def _kernel(self, kinds: Mapping[str, PortKind], in_kernel: bool) -> Iterator[tuple[bytes, Tally, int, int, None]]:
        with Netlink(NETLINK_GENERIC) as genl:
            families = genl.families()
            datapaths = []
            if families.keys() >= {ovs_netlink.DATAPATH, ovs_netlink.VPORT, ovs_netlink.FLOW}:
                datapaths = ovs_netlink.datapaths(genl, families[ovs_netlink.DATAPATH])
            if in_kernel and not datapaths:
                raise SourceError(
                    Reason.MISSING, "ovs-vswitchd has a datapath in the kernel, but not in this network namespace"
                )
            if (count := sum(d.flows for d in datapaths)) > MOST_FLOWS:
                raise SourceError(
                    Reason.TOO_LARGE,
                    f"the kernel's datapath has {count} flows: no more than {MOST_FLOWS} are read one by one",
                )
            for datapath in datapaths:
                try:
                    ports = ovs_netlink.ports(genl, families[ovs_netlink.VPORT], datapath.number)
                except SourceError as error:
                    if error.reason is Reason.MISSING:  # it went away meanwhile, and its flows with it
                        continue
                    raise

                def of_kernel(shape: Shape, number: int, ports: Mapping[int, ovs_netlink.Port] = ports) -> Tally:
                    port = ports.get(number)
                    if port is None:
                        return self._tally(Layer.KERNEL, shape, "", PortKind.OTHER)
                    kind = _OF_KERNEL.get(port.type) or kinds.get(port.name, PortKind.OTHER)
                    return self._tally(Layer.KERNEL, shape, port.name, kind)

                for _ in range(2):
                    bodies = ovs_netlink.flows(
                        genl, families[ovs_netlink.FLOW], datapath.number, limit=_KERNEL_BYTES, seconds=_KERNEL_SECONDS
                    )
                    yield from _counted(map(self._reader.read, bodies), of_kernel)
                    if not self._counters.doubled:
                        break
                    # The kernel has rehashed its table meanwhile: as many as it showed twice it did not show at all.

    def _tally(self, layer: Layer, shape: Shape, name: str, kind: PortKind) -> Tally:
        named = shape.protocol is Protocol.GRE and shape.conntrack and shape.path is not Path.HARDWARE
        return self._counters.tally(
            FlowClass(
                path=shape.path,
                protocol=shape.protocol,
                conntrack=shape.conntrack,
                layer=layer,
                port_kind=PortKind.TUNNEL if shape.tunnel else kind,
                obstacle=shape.obstacle,
                terminal=shape.terminal,
                ordinary=shape.ordinary,
                hidden=shape.hidden,
                port=name if named else "",
            )
        )


def _in_kernel(world: World) -> bool:
    """Whether ovs-vswitchd says that it has a datapath in the kernel."""
    return isinstance(world.vswitchd, Fresh) and any(
        datapath.name.startswith("system@") for datapath in world.vswitchd.value.datapaths
    )


_OF_KERNEL = {PortType.INTERNAL: PortKind.INTERNAL, PortType.TUNNEL: PortKind.TUNNEL}


def _counted(
    flows: Iterable[tuple[bytes, Shape, P, int, int]], of: Callable[[Shape, P], Tally]
) -> Iterator[tuple[bytes, Tally, int, int, None]]:
    """What FlowCounters takes; ``of`` is asked once for each shape and port."""
    tallies: dict[tuple[Shape, P], Tally] = {}
    for identifier, shape, port, packets, octets in flows:
        tally = tallies.get((shape, port))
        if tally is None:
            tally = tallies[shape, port] = of(shape, port)
        yield identifier, tally, packets, octets, None
