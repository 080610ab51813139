"""The databases of a site as operators have them: an active host and a standby, or a RAFT cluster; of real daemons.

Each controller host is a network namespace on one bridge, so that a link can be cut without a word and an address can
move. Its directory holds what a real host has in /run/ovn and /var/lib/ovn, by the same names; in a host's shell it is
there, so that runbooks can be followed to the letter.
"""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import json
import os
import re
import shlex
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, ClassVar, Self

import yaml

from tests.lab.monitoring import Scraped
from tests.lab.site import (
    OVN_SHARE,
    SETTLE_TIMEOUT,
    Database,
    LabError,
    Site,
    environment,
    gone,
    release,
    require,
    run,
    started,
)
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

DATABASES: tuple[Database, ...] = ("nb", "sb")
NAMES = {"nb": "OVN_Northbound", "sb": "OVN_Southbound"}
SECTIONS = {"nb": "northbound", "sb": "southbound"}
STEMS = {"nb": "ovnnb_db", "sb": "ovnsb_db"}
"""Of files in /run/ovn and /var/lib/ovn, as ovn-ctl names them."""
PORTS = {"nb": 6641, "sb": 6642}
TLS_PORTS = {"nb": 16641, "sb": 16642}
NETWORK = "172.30.0"
VIP = f"{NETWORK}.100"
NOBODY = f"tcp:{NETWORK}.99:6641"
EXPORTER_PORT = 9746
OFFICES = ipaddress.IPv4Network("198.18.0.0/15")  # for benchmarks (RFC 2544): nobody's, and not what a VPN uses


class Host:
    """A controller host; its address is reached by all others of the lab."""

    def __init__(self, site: Central, name: str, index: int) -> None:
        self.site, self.name = site, name
        self.dir = site.dir / name
        self.netns = site.netns(name)
        self.index = index
        self.ip = f"{NETWORK}.{index}"
        self.env = environment(site.name) | {"OVS_RUNDIR": str(self.dir), "OVN_RUNDIR": str(self.dir)}

    def create(self) -> None:
        self.dir.mkdir()
        port = f"p-{self.name}"
        run("ip", "netns", "add", self.netns)
        run("ip", "-n", self.netns, "link", "set", "lo", "up")
        run("ip", "link", "add", "eth0", "netns", self.netns, "type", "veth", "peer", "name", port,
            "netns", self.site.switch)  # fmt: skip
        run("ip", "-n", self.site.switch, "link", "set", port, "master", "br0", "up")
        run("ip", "-n", self.netns, "link", "set", "eth0", "up")
        run("ip", "-n", self.netns, "addr", "add", f"{self.ip}/24", "dev", "eth0")

    def execute(self, *argv: str | Path) -> str:
        """A command in the host's namespace."""
        return run("ip", "netns", "exec", self.netns, *argv, env=self.env)

    def shell(self, *command: str) -> list[str]:
        """A command (default: a shell) for whom /run/ovn, /var/lib/ovn and mecexporter are this host's.

        The mounts are in a mount namespace of `ip netns exec`'s and gone with it.
        """
        here, paths = shlex.quote(str(self.dir)), "/run/ovn /run/mecexporter /var/lib/ovn"
        script = (
            "set -e; mount -t tmpfs none /run; test -d /var/lib/ovn || mount -t tmpfs none /var/lib; "
            f'mkdir -p {paths}; for at in {paths}; do mount --bind {here} $at; done; cd {here}; exec "$@"'
        )
        prompt = f"PS1={self.name}# "
        nowhere = ("-u", "OVS_RUNDIR", "-u", "OVN_RUNDIR")  # as on a real host
        return ["ip", "netns", "exec", self.netns, "env", *nowhere, prompt, "bash", "-c", script, "bash",
                *(command or ("bash", "--norc"))]  # fmt: skip

    def cut(self) -> None:
        """Pull the cable at the other end: this host sees nothing, and what is sent goes nowhere."""
        run("ip", "-n", self.site.switch, "link", "set", f"p-{self.name}", "nomaster")

    def mend(self) -> None:
        run("ip", "-n", self.site.switch, "link", "set", f"p-{self.name}", "master", "br0", "up")

    # Servers

    def unix(self, db: Database) -> str:
        return f"unix:{self.dir}/{STEMS[db]}.sock"

    def control(self, db: Database) -> Path:
        return self.dir / f"{STEMS[db]}.ctl"

    def file(self, db: Database) -> Path:
        return self.dir / f"{STEMS[db]}.db"

    def tcp(self, db: Database) -> str:
        return f"tcp:{self.ip}:{PORTS[db]}"

    def ssl(self, db: Database) -> str:
        return f"ssl:{self.ip}:{TLS_PORTS[db]}"

    def start(self, db: Database, *options: str) -> None:
        """`--sync-from=…` makes it a standby; a file that is not there is made."""
        file = self.file(db)
        if not file.exists():
            run("ovsdb-tool", "create", file, OVN_SHARE / f"ovn-{db}.ovsschema")
        tls = [f"--remote=pssl:{TLS_PORTS[db]}", *self.site.tls_options("server")] if self.site.tls else []
        self.execute(
            "ovsdb-server", *self._server_options(db), f"--remote=ptcp:{PORTS[db]}", *tls, *options, file,
        )  # fmt: skip

    def start_relay(self, db: Database, source: str) -> None:
        """A server that keeps nothing and passes all on to `source`."""
        self.execute("ovsdb-server", *self._server_options(db), f"relay:{NAMES[db]}:{source}")

    def _server_options(self, db: Database) -> list[str]:
        return ["--detach", "--no-chdir", f"--pidfile={self.pidfile(db)}", f"--unixctl={self.control(db)}",
                f"--log-file={self.dir}/ovsdb-server-{db}.log", "-vconsole:off",
                f"--remote=p{self.unix(db)}"]  # fmt: skip

    def pidfile(self, daemon: str) -> Path:
        """daemon: nb, sb or ovn-northd."""
        return self.dir / f"{STEMS.get(daemon, daemon)}.pid"

    def pid(self, daemon: str) -> int:
        """LabError if it was never started or ended by itself."""
        try:
            return int(self.pidfile(daemon).read_text())
        except FileNotFoundError:
            raise LabError(f"{daemon} of {self.name} is not running") from None

    def running(self, daemon: str) -> bool:
        return self.pidfile(daemon).exists() and started(self.pid(daemon)) is not None

    def kill(self, *daemons: str) -> None:
        for daemon in daemons:
            pid = self.pid(daemon)
            os.kill(pid, signal.SIGKILL)
            os.kill(pid, signal.SIGCONT)
            wait_until(lambda: gone(pid), SETTLE_TIMEOUT, f"{daemon} of {self.name} dies")  # noqa: B023  # called here

    def suspend(self, daemon: str) -> None:
        os.kill(self.pid(daemon), signal.SIGSTOP)

    def resume(self, daemon: str) -> None:
        os.kill(self.pid(daemon), signal.SIGCONT)

    def appctl(self, daemon: str, *args: str) -> str:
        northd = daemon == "ovn-northd"
        control = self.dir / (f"{daemon}.{self.pid(daemon)}.ctl" if northd else f"{STEMS[daemon]}.ctl")
        return run("ovs-appctl", "--timeout=5", f"--target={control}", *args, env=self.env)

    def promote(self, *dbs: Database) -> None:
        for db in dbs:
            self.appctl(db, "ovsdb-server/disconnect-active-ovsdb-server")

    def replicate(self, db: Database, active: str) -> None:
        self.appctl(db, "ovsdb-server/set-active-ovsdb-server", active)
        if release("ovsdb-server") >= (3, 5):  # where one that is connected does nothing when told to connect
            self.promote(db)
        self.appctl(db, "ovsdb-server/connect-active-ovsdb-server")

    def start_northd(self) -> None:
        """If a second one is started, it stands by: the lock is the Southbound server's."""
        self.execute(
            "ovn-northd", "--detach", "--no-chdir", f"--pidfile={self.dir}/ovn-northd.pid", "-vconsole:off",
            f"--log-file={self.dir}/ovn-northd.log", f"--ovnnb-db={self.site.northd_nb(self)}",
            f"--ovnsb-db={self.site.northd_sb(self)}",
        )  # fmt: skip

    def stop_northd(self) -> None:
        """If it runs: somebody may have done it by hand."""
        if not self.running("ovn-northd"):
            return
        pid = self.pid("ovn-northd")
        self.appctl("ovn-northd", "exit")
        wait_until(lambda: gone(pid), SETTLE_TIMEOUT, f"ovn-northd of {self.name} ends")

    def nbctl(self, *args: str) -> str:
        return run("ovn-nbctl", "--timeout=10", "--no-leader-only", f"--db={self.unix('nb')}", *args, env=self.env)

    def dump(self, db: Database, *table: str) -> str:
        """Of all tables if none is named."""
        return run("ovsdb-client", "--timeout=10", "dump", self.unix(db), NAMES[db], *table, env=self.env)


class Central(Site):
    """Hosts on one switch; `with Pair() as pair:` and `with Cluster() as cluster:` give them running."""

    def __init__(self, names: Sequence[str], name: str | None, *, tls: bool = False) -> None:
        super().__init__(name)
        self.nodes = {}
        self.tls = tls or (self.dir / "ca.key").exists()  # of a lab that another process has started
        self.switch = self.netns("switch")
        self.hosts = {name: Host(self, name, index) for index, name in enumerate(names, start=1)}

    def tls_options(self, who: str) -> list[str]:
        """Options of ovsdb-server and its clients; all of one authority, which is trusted by all."""
        return [
            f"--private-key={self.dir}/{who}.key",
            f"--certificate={self.dir}/{who}.crt",
            f"--ca-cert={self.dir}/ca.crt",
        ]

    def northd_nb(self, host: Host) -> str:
        return host.unix("nb")

    def northd_sb(self, host: Host) -> str:
        return host.unix("sb")

    def _start(self) -> None:
        if self.tls:
            self._make_certificates()
        run("ip", "netns", "add", self.switch)
        run("ip", "-n", self.switch, "link", "add", "br0", "up", "type", "bridge")
        for host in self.hosts.values():
            host.create()
        self.start_daemons()

    def start_daemons(self) -> None:
        raise NotImplementedError

    def open_office(self) -> dict[str, str]:
        """Lets this machine itself reach the hosts, as a Prometheus elsewhere would: their names and addresses.

        The network is one that is free here: several labs may run. It goes with the switch's namespace.
        """
        taken = re.findall(r"inet (198\.1[89]\.\d+)\.", run("ip", "-4", "addr"))
        blocks = list(OFFICES.subnets(new_prefix=24))
        first = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:4], "big") % len(blocks)
        networks = (str(block.network_address).rpartition(".")[0] for block in blocks[first:] + blocks[:first])
        network = next(n for n in networks if n not in taken)
        device = f"mec{self.name}"  # 15 characters at most
        run("ip", "link", "add", device, "type", "veth", "peer", "name", "p-office", "netns", self.switch)
        run("ip", "-n", self.switch, "link", "set", "p-office", "master", "br0", "up")
        run("ip", "addr", "add", f"{network}.254/24", "dev", device)
        run("ip", "link", "set", device, "up")
        found = {}
        for host in self.hosts.values():
            found[host.name] = f"{network}.{host.index}"
            run("ip", "-n", host.netns, "addr", "add", f"{found[host.name]}/24", "dev", "eth0")
        return found

    def exporters(self, addresses: Mapping[str, str]) -> dict[str, CentralExporter]:
        """One for each host, configured as an operator would, listening at these addresses."""
        return {
            name: CentralExporter(host, self.sections(host), **self.tls_section(host)).at(addresses[name])
            for name, host in self.hosts.items()
        }

    def sections(self, host: Host) -> dict[Database, dict[str, object]]:
        """Of each database in the configuration of a host's exporter, beyond its own server's."""
        raise NotImplementedError

    def tls_section(self, host: Host) -> dict[str, dict[str, object]]:  # noqa: ARG002  # most need none
        return {}

    def _make_certificates(self) -> None:
        require({"openssl": "openssl"})
        days = ("-days", "30", "-nodes")
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", *days, "-subj", "/CN=lab CA",
            "-keyout", self.dir / "ca.key", "-out", self.dir / "ca.crt")  # fmt: skip
        for who in ("server", "client"):
            key, request, certificate = (self.dir / f"{who}.{suffix}" for suffix in ("key", "csr", "crt"))
            run(
                "openssl",
                "req",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-subj",
                f"/CN={who}",
                "-keyout",
                key,
                "-out",
                request,
            )
            run("openssl", "x509", "-req", "-in", request, "-CA", self.dir / "ca.crt", "-CAkey", self.dir / "ca.key",
                "-CAcreateserial", "-days", "30", "-out", certificate)  # fmt: skip


class Pair(Central):
    """`ca` is active and runs northd; `cb` replicates both databases and runs none. `cc` is a host without servers."""

    kind: ClassVar[str] = "pair"

    def __init__(self, name: str | None = None, *, tls: bool = False) -> None:
        super().__init__(("ca", "cb", "cc"), name, tls=tls)
        self.ca, self.cb, self.cc = self.hosts.values()

    def start_daemons(self) -> None:
        for db in DATABASES:
            self.ca.start(db)
        self.give_address(self.ca)
        self.ca.nbctl("init", "--", "ls-add", "net0", "--", "lsp-add", "net0", "vm1")
        run("ovn-sbctl", "--timeout=10", f"--db={self.ca.unix('sb')}", "init", env=self.env)
        self.ca.start_northd()
        for db in DATABASES:
            self.cb.start(db, f"--sync-from={self.ca.tcp(db)}")
            wait_until(lambda: replicates(self.cb, db), SETTLE_TIMEOUT, f"{db} of cb replicates")  # noqa: B023  # called here
        wait_until(
            lambda: "net0" in self.cb.dump("sb", "Datapath_Binding"), SETTLE_TIMEOUT, "northd's work has arrived"
        )

    def take_address(self) -> None:
        """The clients' address from whoever has it."""
        for host in self.hosts.values():
            if f" {VIP}/" in run("ip", "-n", host.netns, "addr", "show", "dev", "eth0"):
                run("ip", "-n", host.netns, "addr", "del", f"{VIP}/24", "dev", "eth0")

    def give_address(self, host: Host) -> None:
        """And let the others know, as a cluster manager does by gratuitous ARP: they remember who had it before."""
        run("ip", "-n", host.netns, "addr", "add", f"{VIP}/24", "dev", "eth0")
        for other in self.hosts.values():
            run("ip", "-n", other.netns, "neigh", "flush", "to", VIP)

    def sections(self, host: Host) -> dict[Database, dict[str, object]]:
        """`cc` has no server and asks both over TLS; the others list each other, and themselves."""
        if host is self.cc and self.tls:
            return {db: {"database": self.ca.ssl(db), "peers": [self.cb.ssl(db)]} for db in DATABASES}
        if host is self.cc:
            return {db: {"database": self.ca.tcp(db), "peers": [self.cb.tcp(db)]} for db in DATABASES}
        return {db: {"peers": [self.ca.tcp(db), self.cb.tcp(db)]} for db in DATABASES}

    def tls_section(self, host: Host) -> dict[str, dict[str, object]]:
        if host is not self.cc or not self.tls:
            return {}
        files = {"private_key": "client.key", "certificate": "client.crt", "ca_certificate": "ca.crt"}
        return {"ovn": {"tls": {key: f"{self.dir}/{file}" for key, file in files.items()}}}


class Cluster(Central):
    """Three members of both databases; northd on the first."""

    kind: ClassVar[str] = "cluster"

    def __init__(self, name: str | None = None) -> None:
        super().__init__(("s1", "s2", "s3"), name)

    def raft(self, host: Host, db: Database) -> str:
        return f"tcp:{host.ip}:{PORTS[db] + 2}"

    def northd_nb(self, host: Host) -> str:  # noqa: ARG002  # all members, from wherever
        return ",".join(member.tcp("nb") for member in self.hosts.values())

    def northd_sb(self, host: Host) -> str:  # noqa: ARG002  # as above
        return ",".join(member.tcp("sb") for member in self.hosts.values())

    def start_daemons(self) -> None:
        first, *others = self.hosts.values()
        for db in DATABASES:
            file = first.file(db)
            run("ovsdb-tool", "create-cluster", file, OVN_SHARE / f"ovn-{db}.ovsschema", self.raft(first, db))
            first.start(db)
            for host in others:
                self.join(host, db)
        first.nbctl("init", "--", "ls-add", "net0")
        first.start_northd()

    def join(self, host: Host, db: Database) -> None:
        """Make an empty member of a host, by the first."""
        first = next(iter(self.hosts.values()))
        run("ovsdb-tool", "join-cluster", host.file(db), NAMES[db], self.raft(host, db), self.raft(first, db))
        host.start(db)
        run("ovsdb-client", "--timeout=20", "wait", host.unix(db), NAMES[db], "connected", env=self.env)

    def kick(self, host: Host, db: Database) -> None:
        """Take a member out of the cluster's list, by the first."""
        first = next(iter(self.hosts.values()))
        status = first.appctl(db, "cluster/status", NAMES[db])
        [lost] = re.findall(rf"\((\w+) at {self.raft(host, db)}\)", status)
        first.appctl(db, "cluster/kick", NAMES[db], lost)

    def sections(self, host: Host) -> dict[Database, dict[str, object]]:  # noqa: ARG002  # each member tells of all
        return {}


def replicates(host: Host, db: Database) -> bool:
    """Whether its server says so, which is not much."""
    return "replicating" in host.appctl(db, "ovsdb-server/sync-status")


class CentralExporter(Scraped):
    """The exporter of a controller host, in its namespace; asked by its local socket."""

    def __init__(
        self, host: Host, databases: Mapping[Database, Mapping[str, object]], **sections: Mapping[str, object]
    ) -> None:
        """`databases`: the sections of each, beyond the host's own sockets; `sections`: further ones."""
        super().__init__(host.site, f"exporter-{host.name}")
        self.host = host
        self.instance = host.name
        self.url = f"http://127.0.0.1:{EXPORTER_PORT}"
        self.config = host.dir / "mecexporter.yaml"
        self.socket = host.dir / "api.sock"
        ovn: dict[str, object] = {"run_dir": str(host.dir)}
        for db in DATABASES:
            own = {"database": host.unix(db), "control": str(host.control(db))}
            ovn[SECTIONS[db]] = own | dict(databases.get(db, {}))
        base: dict[str, Mapping[str, object]] = {
            "web": {"local_socket": str(self.socket), "listen": self.address},
            "ovs": {"database": f"unix:{host.dir}/db.sock", "run_dir": str(host.dir)},
            "ovn": ovn,
            "host": {"state_dir": str(host.dir / "state"), "hostname": host.name},
        }
        self.settings = {n: dict(base.get(n, {})) | dict(sections.get(n, {})) for n in base.keys() | sections.keys()}

    def at(self, address: str) -> Self:
        """The same, listening at an address that others reach."""
        self.url = f"http://{address}:{EXPORTER_PORT}"
        self.settings["web"]["listen"] = self.address
        return self

    def command(self) -> list[str | Path]:
        (self.host.dir / "state").mkdir(exist_ok=True)
        self.config.write_text(yaml.safe_dump({"roles": ["central"]} | self.settings, sort_keys=False))
        return [
            "ip",
            "netns",
            "exec",
            self.host.netns,
            sys.executable,
            "-m",
            "mecexporter",
            "run",
            "--config",
            self.config,
        ]

    def ready(self) -> bool:
        return self._get("/readyz") is not None

    def metrics(self) -> str:
        return self._page("/metrics")

    def findings(self) -> dict[str, Any]:
        """/api/v1/findings."""
        found: dict[str, Any] = json.loads(self._page("/api/v1/findings"))
        return found

    def found(self) -> set[str]:
        """The checks that have findings now."""
        return {finding["check"] for finding in self.findings()["findings"]}

    def unknown(self) -> set[str]:
        """The checks that can't tell now."""
        return {item["check"] for item in self.findings()["unknown"]}

    def _page(self, page: str) -> str:
        body = self._get(page)
        if body is None:
            raise LabError(f"{self.name} does not answer: {self.log.read_text()[-500:]}")
        return body

    def _get(self, page: str) -> str | None:
        connection = http.client.HTTPConnection("localhost", timeout=5)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(5)
        try:
            connection.sock.connect(str(self.socket))
            connection.request("GET", page)
            answer = connection.getresponse()
            body = answer.read().decode()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        return body if answer.status == http.HTTPStatus.OK else None
