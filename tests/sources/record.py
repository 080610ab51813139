"""Records what ovsdb-server, vswitchd and OVN's daemons say by their control sockets: python -m tests.sources.record.

The texts go to tests/fixtures/ovs-<version>/<state>.txt, those of OVN's daemons about their work to ovn-<version>. Of
another generation than the machine's: python -m tests.lab.generations sid python -m tests.sources.record. Directories
and ports are made the same each time. Only some of it: python -m tests.sources.record joining (or servers, members,
northds, work, switches: all that can be had of Open vSwitch without OVN).
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.ovn_daemon import CONTROLLER_WORK, NORTHD_WORK
from mecexporter.sources.wire.unixctl import UnixctlClient
from tests.sources.daemons import Daemon, Member, Node, Server, cluster, ovn_node, run, running, short_dir
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

FIXTURES = Path(__file__).parents[1] / "fixtures"
SECONDS = 30
NB, SB = "OVN_Northbound", "OVN_Southbound"
NOBODY = "tcp:127.0.0.1:9"
WITHOUT_RELAYS = ("2.15.0",)
SERVER = (
    "version",
    "memory/show",
    "ovsdb-server/sync-status",
    "ovsdb-server/get-active-ovsdb-server",
    "ovsdb-server/get-sync-exclude-tables",
    "coverage/read-counter stream_open",
)
MEMBER = (*SERVER, f"cluster/status {NB}")
SWITCH = ("version", "memory/show", "dpctl/show", "upcall/show", "dpctl/dump-flows -m netdev@ovs-netdev")
NORTHD = ("version", "status", "is-paused", "nb-connection-status", "sb-connection-status")


def read(path: Path) -> dict[str, str]:
    """What was said: command -> the exact text."""
    parts = re.split(r"^\$ (.+)\n", path.read_text(), flags=re.MULTILINE)
    return {command: text.removesuffix("\n") for command, text in zip(parts[1::2], parts[2::2], strict=True)}


def written(said: Mapping[str, str]) -> str:
    return "".join(f"$ {command}\n{text}\n" for command, text in said.items())


class Recorder:
    """Of one generation."""

    def __init__(self, directory: Path) -> None:
        self._scratch = directory
        self.version = run("ovsdb-server", "--version").split()[3]
        self.target = FIXTURES / f"ovs-{self.version}"
        self.target.mkdir(exist_ok=True)

    def take(self, state: str, daemon: Daemon, commands: tuple[str, ...], seen: Callable[[], bool]) -> None:
        """Once it is in that state."""
        wait_until(seen, SECONDS, f"{daemon.name} is {state}")
        said = {command: self._same(ask(daemon, command)) for command in commands}
        (self.target / f"{state}.txt").write_text(written(said))

    def work(self, state: str, daemon: Daemon, commands: tuple[str, ...]) -> None:
        """Of a daemon of OVN, without what its release does not know."""
        target = FIXTURES / f"ovn-{ask(daemon, 'version').split()[1]}"
        target.mkdir(exist_ok=True)
        said = {}
        for command in commands:
            try:
                said[command] = ask(daemon, command)
            except SourceError as error:
                if error.reason is not Reason.ANSWERED_ERROR:
                    raise
        (target / f"{state}.txt").write_text(written(said))

    def _same(self, text: str) -> str:
        """Without what differs each time and tells nothing."""
        ports: dict[str, str] = {}
        text = text.replace(str(self._scratch), "/run/lab")
        return re.sub(r"(?<=127\.0\.0\.1:)\d{4,5}", lambda m: ports.setdefault(m[0], str(6641 + len(ports))), text)


def ask(daemon: Daemon, command: str) -> str:
    """The text itself: ovs-appctl(8) ends it with a newline where it has none."""

    async def asked() -> str:
        client = UnixctlClient(lambda: daemon.control)
        try:
            return await client.run(*command.split())
        finally:
            client.close()

    return asyncio.run(asked())


def says(daemon: Daemon, command: str, words: str) -> Callable[[], bool]:
    return lambda: words in ask(daemon, command)


def sync(server: Daemon, words: str) -> Callable[[], bool]:
    return says(server, "ovsdb-server/sync-status", words)


def servers(recorder: Recorder, directory: Path) -> None:
    active = Server(directory / "a")
    standby = Server(directory / "b", f"--sync-from={active.tcp}")
    with running(active, standby):
        active.nbctl("init")
        recorder.take("active", active, SERVER, lambda: True)
        recorder.take("standby", standby, SERVER, sync(standby, "replicating"))
        standby.appctl("ovsdb-server/set-sync-exclude-tables", f"{NB}:Meter,{NB}:DNS")
        recorder.take("standby-excluding", standby, SERVER, sync(standby, "replicating"))
        standby.kill()  # 3.5 and 4.0 are killed by another list after one of two tables
        standby.start()
        wait_until(sync(standby, "replicating"), SECONDS, "it replicates")
        if recorder.version not in WITHOUT_RELAYS:
            relay_dir = directory / "relay"
            relay_dir.mkdir()
            relay = Daemon(relay_dir, "ovsdb-server", f"--remote=punix:{relay_dir}/db.sock", f"relay:{NB}:{active.tcp}")
            with running(relay):
                recorder.take("relay", relay, SERVER, says(relay, "memory/show", "cells"))
        opened = int(ask(standby, "coverage/read-counter stream_open"))
        active.kill()
        recorder.take(
            "standby-active-lost", standby, SERVER,
            lambda: int(ask(standby, "coverage/read-counter stream_open")) > opened + 1,
        )  # fmt: skip
        active.start()
        standby.appctl("ovsdb-server/disconnect-active-ovsdb-server")
        recorder.take("promoted", standby, SERVER, sync(standby, "state: active"))
        active.appctl("ovsdb-server/set-active-ovsdb-server", active.tcp)
        active.appctl("ovsdb-server/connect-active-ovsdb-server")
        recorder.take("self-replicating", active, SERVER, sync(active, "state: active"))
    lonely = Server(directory / "c", f"--sync-from={NOBODY}")
    with running(lonely):
        recorder.take("standby-never-connected", lonely, SERVER, sync(lonely, "connecting"))


def members(recorder: Recorder, directory: Path) -> None:
    status = f"cluster/status {NB}"
    with cluster(directory) as (first, second, third):
        recorder.take("member-leader", first, MEMBER, says(first, status, "Role: leader"))
        recorder.take("member-follower", second, MEMBER, says(second, status, "Leader: s1"))
        third.kill()
        recorder.take("member-leader-one-lost", first, MEMBER, says(first, status, "(->s3)"))
        second.kill()
        recorder.take("member-losing-quorum", first, MEMBER, says(first, status, "(->s2)"))
        recorder.take("member-without-quorum", first, MEMBER, says(first, status, "Leader: unknown"))


def joining(recorder: Recorder, directory: Path) -> None:
    """By a member that does not answer."""
    member = Member(directory, "s2", Member(directory, "s1"))
    with running(member):
        recorder.take("member-joining", member, MEMBER, says(member, f"cluster/status {NB}", "(->s1)"))


@contextmanager
def northd(directory: Path, nb: str, sb: str) -> Iterator[Daemon]:
    directory.mkdir()
    daemon = Daemon(directory, "ovn-northd", f"--ovnnb-db={nb}", f"--ovnsb-db={sb}")
    with running(daemon):
        yield daemon


def settled(daemon: Daemon) -> Callable[[], bool]:
    """Of one beside a standby: active, or connected and not active for a while, by release."""
    since: list[float] = []

    def so() -> bool:
        if any("not" in ask(daemon, f"{side}-connection-status") for side in ("nb", "sb")):
            return False
        since.append(time.monotonic())
        return says(daemon, "status", "active")() or since[-1] - since[0] > 3

    return so


def northds(recorder: Recorder, directory: Path) -> None:
    nb, sb = Server(directory / "nb", db=NB), Server(directory / "sb", db=SB)
    with running(nb, sb):
        nb.nbctl("init")
        replicas = [Server(directory / f"{s.db}-b", f"--sync-from={s.tcp}", db=s.db) for s in (nb, sb)]
        with northd(directory / "n1", nb.tcp, sb.tcp) as first:
            recorder.take("northd-active", first, NORTHD, says(first, "status", "active"))
            with northd(directory / "n2", nb.tcp, sb.tcp) as second:
                connected = says(second, "sb-connection-status", "connected")
                recorder.take(
                    "northd-standby", second, NORTHD, lambda: connected() and says(second, "status", "standby")()
                )
            with running(*replicas):
                for replica in replicas:
                    wait_until(sync(replica, "replicating"), SECONDS, "it replicates")
                with northd(directory / "n3", *(f"unix:{r.socket}" for r in replicas)) as third:
                    recorder.take("northd-beside-a-standby", third, NORTHD, settled(third))
            run("ovs-appctl", f"--target={first.control}", "pause")
            recorder.take("northd-paused", first, NORTHD, says(first, "status", "paused"))
            run("ovs-appctl", f"--target={first.control}", "resume")
            sb.kill()
            recorder.take(
                "northd-without-southbound", first, NORTHD, says(first, "sb-connection-status", "not connected")
            )


def switches(recorder: Recorder, directory: Path) -> None:
    """A user-space datapath with the flows of three packets: TCP, UDP, and GRE with connection tracking."""
    node = Node(directory)
    with running(node.server):
        node.vsctl("--no-wait", "init")
        with running(node.vswitchd):
            node.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
            for port in ("p1", "p2"):
                node.vsctl("add-port", "br0", port, "--", "set", "interface", port, "type=dummy")
            management = f"unix:{node.management('br0')}"
            run("ovs-ofctl", "del-flows", management)
            for rule in (
                "ip,nw_proto=47,ct_state=-trk,actions=ct(table=1,zone=7)",
                "table=1,ip,nw_proto=47,ct_state=+trk+new,actions=ct(commit,zone=7),output:2",
                "tcp,actions=output:2",
                "udp,actions=output:2",
            ):
                run("ovs-ofctl", "add-flow", management, rule)
            for proto, more in ((47, ""), (6, ",tcp(src=1000,dst=80)"), (17, ",udp(src=1000,dst=5000)")):
                packet = (
                    "in_port(1),eth(src=50:54:00:00:00:05,dst=50:54:00:00:00:07),eth_type(0x0800),"
                    f"ipv4(src=10.0.0.1,dst=10.0.0.2,proto={proto},tos=0,ttl=64,frag=no){more}"
                )
                for _ in range(2):
                    run("ovs-appctl", f"--target={node.vswitchd.control}", "netdev-dummy/receive", "p1", packet)
            counted = says(node.vswitchd, "upcall/show", "(current 4)")
            recorder.take(
                "vswitchd", node.vswitchd, SWITCH,
                lambda: counted() and len(re.findall("packets:[1-9]", ask(node.vswitchd, SWITCH[-1]))) == 4,
            )  # fmt: skip


def work(recorder: Recorder, directory: Path) -> None:
    """Before a controller has a bridge, and with a port on it."""
    with ovn_node(directory) as node:
        recorder.work("controller-without-a-bridge", node.controller, CONTROLLER_WORK)
        node.bind("p1")
        recorder.work("controller", node.controller, CONTROLLER_WORK)
        recorder.work("northd", node.northd, NORTHD_WORK)


PARTS = {part.__name__: part for part in (servers, members, joining, northds, work, switches)}


def main(*names: str) -> None:
    with short_dir() as directory:
        recorder = Recorder(directory)
        for part in [PARTS[name] for name in names or PARTS]:
            place = directory / part.__name__
            place.mkdir()
            part(recorder, place)
        sys.stdout.write(f"{recorder.target}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
