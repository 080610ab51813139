"""ovs-vswitchd by its control socket (ovs-vswitchd(8), RUNTIME MANAGEMENT COMMANDS).

Only commands that cost its main thread well under a millisecond for each few hundred ports.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.base import Source
from mecexporter.sources.wire.process import process_of
from mecexporter.sources.wire.unixctl import UnixctlClient, locate_by_pidfile
from mecexporter.state.ovs import Datapath, Upcalls, Vswitchd
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from mecexporter.state.world import World

_DAEMON = "ovs-vswitchd"
_LOOKUPS = re.compile(r"^\s+lookups: hit:(\d+) missed:(\d+) lost:(\d+)$", re.MULTILINE)
_FLOWS = re.compile(r"^\s+flows\s+: \(current (\d+)\) \(avg \d+\) \(max \d+\) \(limit (\d+)\)$", re.MULTILINE)
_DUMP = re.compile(r"^\s+dump duration\s*: (\d+)ms$", re.MULTILINE)


class VswitchdSource(Source[Vswitchd]):
    """Reads counters and limits.

    Args:
        run_dir: where its pidfile and socket are.
        control: a socket that overrides what the pidfile says, or None.
        interval: seconds between reads.
        proc: where the processes of this host are.
    """

    name = "vswitchd"
    roles = frozenset({Role.COMPUTE})

    def __init__(self, run_dir: Path, control: Path | None, interval: float, *, proc: Path = Path("/proc")) -> None:
        self.interval = interval
        self._run_dir, self._proc = run_dir, proc
        self._client = UnixctlClient(lambda: control or locate_by_pidfile(run_dir, _DAEMON), max_bytes=4 << 20)

    async def read(self, world: World) -> Vswitchd:  # noqa: ARG002  # asks the same whatever the World
        """Raises SourceError; GARBAGE where an answer has not the known form."""
        process = process_of(self._run_dir, _DAEMON, self._proc)
        version = re.match(r"ovs-vswitchd \(Open vSwitch\) (\S+)", await self._client.run("version"))
        show = await self._show()
        return Vswitchd(
            version=version[1] if version else None,
            datapaths=tuple(_datapath(name, text) for name, text in _sections(show)),
            upcalls=await upcalls(self._client),
            process=process.start if process else None,
            age=process.age if process else 0.0,
        )

    async def _show(self) -> str:
        """``dpctl/show``; where there is no datapath at all, it answers with an error of no words."""
        try:
            return await self._client.run("dpctl/show")
        except SourceError as error:
            if error.reason is Reason.ANSWERED_ERROR:
                return ""
            raise

    async def close(self) -> None:
        """Close the connection."""
        self._client.close()


async def upcalls(client: UnixctlClient) -> tuple[Upcalls, ...]:
    """How many flows each datapath has; raises SourceError."""
    return tuple(_upcalls(name, text) for name, text in _sections(await client.run("upcall/show")))


def _sections(text: str) -> list[tuple[str, str]]:
    """Split at lines that are not indented: (``system@ovs-system``, what follows)."""
    parts = re.split(r"^(\S.*):$", text, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def _datapath(name: str, text: str) -> Datapath:
    found = _LOOKUPS.search(text)
    if found is None:
        raise SourceError(Reason.GARBAGE, f"dpctl/show: {name} without lookups: {text!r:.60}")
    return Datapath(name=name, hit=int(found[1]), missed=int(found[2]), lost=int(found[3]))


def _upcalls(name: str, text: str) -> Upcalls:
    flows, dump = _FLOWS.search(text), _DUMP.search(text)
    if flows is None:
        raise SourceError(Reason.GARBAGE, f"upcall/show: {name} without flows: {text!r:.60}")
    return Upcalls(
        datapath=name,
        flows=int(flows[1]),
        flow_limit=int(flows[2]),
        dump_duration_seconds=int(dump[1]) / 1000 if dump else None,
    )
