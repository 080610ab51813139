"""The databases of a site as operators have them: an active host and a standby, or a RAFT cluster; of real daemons.

Each controller host is a network namespace on one bridge, so that a link can be cut without a word and an address can
move. Its run directory is where an exporter looks: nb.sock, nb.ctl, ovn-northd.pid and so on.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

import yaml

from tests.lab.monitoring import Service
from tests.lab.site import (
    OVN_SHARE,
    SETTLE_TIMEOUT,
    Database,
    LabError,
    Site,
    environment,
    gone,
    run,
)
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

DATABASES: tuple[Database, ...] = ("nb", "sb")
NAMES = {"nb": "OVN_Northbound", "sb": "OVN_Southbound"}
SECTIONS = {"nb": "northbound", "sb": "southbound"}
PORTS = {"nb": 6641, "sb": 6642}
TLS_PORTS = {"nb": 16641, "sb": 16642}
NETWORK = "172.30.0"
VIP = f"{NETWORK}.100"
NOBODY = f"tcp:{NETWORK}.99:6641"


class Host:
    """A controller host; its address is reached by all others of the lab."""

    def __init__(self, site: Central, name: str, index: int) -> None:
        self.site, self.name = site, name
        self.dir = site.dir / name
        self.netns = site.netns(name)
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

    def cut(self) -> None:
        """Pull the cable at the other end: this host sees nothing, and what is sent goes nowhere."""
        run("ip", "-n", self.site.switch, "link", "set", f"p-{self.name}", "nomaster")

    def mend(self) -> None:
        run("ip", "-n", self.site.switch, "link", "set", f"p-{self.name}", "master", "br0", "up")

    # Servers

    def unix(self, db: Database) -> str:
        return f"unix:{self.dir}/{db}.sock"

    def tcp(self, db: Database) -> str:
        return f"tcp:{self.ip}:{PORTS[db]}"

    def ssl(self, db: Database) -> str:
        return f"ssl:{self.ip}:{TLS_PORTS[db]}"

    def start(self, db: Database, *options: str) -> None:
        """`--sync-from=…` makes it a standby; a file that is not there is made."""
        file = self.dir / f"{db}.db"
        if not file.exists():
            run("ovsdb-tool", "create", file, OVN_SHARE / f"ovn-{db}.ovsschema")
        tls = [f"--remote=pssl:{TLS_PORTS[db]}", *self.site.tls_options("server")] if self.site.tls else []
        self.execute(
            "ovsdb-server", "--detach", "--no-chdir", f"--pidfile={self.dir}/{db}.pid",
            f"--unixctl={self.dir}/{db}.ctl", f"--log-file={self.dir}/{db}.log", "-vconsole:off",
            f"--remote=punix:{self.dir}/{db}.sock",
            f"--remote=ptcp:{PORTS[db]}", *tls, *options, file,
        )  # fmt: skip

    def start_relay(self, db: Database, source: str) -> None:
        """A server that keeps nothing and passes all on to `source`."""
        self.execute(
            "ovsdb-server", "--detach", "--no-chdir", f"--pidfile={self.dir}/{db}.pid",
            f"--unixctl={self.dir}/{db}.ctl", f"--log-file={self.dir}/{db}.log", "-vconsole:off",
            f"--remote=punix:{self.dir}/{db}.sock", f"relay:{NAMES[db]}:{source}",
        )  # fmt: skip

    def pid(self, daemon: str) -> int:
        """daemon: nb, sb or ovn-northd."""
        return int((self.dir / f"{daemon}.pid").read_text())

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
        name = f"{daemon}.{self.pid(daemon)}.ctl" if daemon == "ovn-northd" else f"{daemon}.ctl"
        return run("ovs-appctl", "--timeout=5", f"--target={self.dir}/{name}", *args, env=self.env)

    def promote(self, *dbs: Database) -> None:
        for db in dbs:
            self.appctl(db, "ovsdb-server/disconnect-active-ovsdb-server")

    def replicate(self, db: Database, active: str) -> None:
        self.appctl(db, "ovsdb-server/set-active-ovsdb-server", active)
        self.appctl(db, "ovsdb-server/connect-active-ovsdb-server")

    def start_northd(self) -> None:
        self.execute(
            "ovn-northd", "--detach", "--no-chdir", f"--pidfile={self.dir}/ovn-northd.pid", "-vconsole:off",
            f"--log-file={self.dir}/ovn-northd.log", f"--ovnnb-db={self.site.northd_nb(self)}",
            f"--ovnsb-db={self.site.northd_sb(self)}",
        )  # fmt: skip

    def nbctl(self, *args: str) -> str:
        return run("ovn-nbctl", "--timeout=10", "--no-leader-only", f"--db={self.unix('nb')}", *args, env=self.env)

    def dump(self, db: Database, table: str) -> str:
        return run("ovsdb-client", "--timeout=10", "dump", self.unix(db), NAMES[db], table, env=self.env)


class Central(Site):
    """Hosts on one switch; `with Pair() as pair:` and `with Cluster() as cluster:` give them running."""

    def __init__(self, names: Sequence[str], *, tls: bool = False) -> None:
        super().__init__()
        self.nodes = {}
        self.tls = tls
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

    def _make_certificates(self) -> None:
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

    def __init__(self, *, tls: bool = False) -> None:
        super().__init__(("ca", "cb", "cc"), tls=tls)
        self.ca, self.cb, self.cc = self.hosts.values()

    def start_daemons(self) -> None:
        for db in DATABASES:
            self.ca.start(db)
        run("ip", "-n", self.ca.netns, "addr", "add", f"{VIP}/24", "dev", "eth0")
        self.ca.nbctl("init", "--", "ls-add", "net0", "--", "lsp-add", "net0", "vm1")
        run("ovn-sbctl", "--timeout=10", f"--db={self.ca.unix('sb')}", "init", env=self.env)
        self.ca.start_northd()
        for db in DATABASES:
            self.cb.start(db, f"--sync-from={self.ca.tcp(db)}")
            wait_until(lambda: replicates(self.cb, db), SETTLE_TIMEOUT, f"{db} of cb replicates")  # noqa: B023  # called here
        wait_until(
            lambda: "net0" in self.cb.dump("sb", "Datapath_Binding"), SETTLE_TIMEOUT, "northd's work has arrived"
        )

    def move_address(self) -> None:
        """The clients' address from ca to cb."""
        run("ip", "-n", self.ca.netns, "addr", "del", f"{VIP}/24", "dev", "eth0")
        run("ip", "-n", self.cb.netns, "addr", "add", f"{VIP}/24", "dev", "eth0")


class Cluster(Central):
    """Three members of both databases; northd on the first."""

    def __init__(self) -> None:
        super().__init__(("s1", "s2", "s3"))

    def raft(self, host: Host, db: Database) -> str:
        return f"tcp:{host.ip}:{PORTS[db] + 2}"

    def northd_nb(self, host: Host) -> str:  # noqa: ARG002  # all members, from wherever
        return ",".join(member.tcp("nb") for member in self.hosts.values())

    def northd_sb(self, host: Host) -> str:  # noqa: ARG002  # as above
        return ",".join(member.tcp("sb") for member in self.hosts.values())

    def start_daemons(self) -> None:
        first, *others = self.hosts.values()
        for db in DATABASES:
            file = first.dir / f"{db}.db"
            run("ovsdb-tool", "create-cluster", file, OVN_SHARE / f"ovn-{db}.ovsschema", self.raft(first, db))
            first.start(db)
            for host in others:
                self.join(host, db)
        first.nbctl("init", "--", "ls-add", "net0")
        first.start_northd()

    def join(self, host: Host, db: Database) -> None:
        """Make an empty member of a host, by the first."""
        first = next(iter(self.hosts.values()))
        file = host.dir / f"{db}.db"
        run("ovsdb-tool", "join-cluster", file, NAMES[db], self.raft(host, db), self.raft(first, db))
        host.start(db)
        run("ovsdb-client", "--timeout=20", "wait", host.unix(db), NAMES[db], "connected", env=self.env)


def replicates(host: Host, db: Database) -> bool:
    """Whether its server says so, which is not much."""
    return "replicating" in host.appctl(db, "ovsdb-server/sync-status")


class CentralExporter(Service):
    """The exporter of a controller host, in its namespace; asked by its local socket."""

    def __init__(
        self, host: Host, databases: Mapping[Database, Mapping[str, object]], **sections: Mapping[str, object]
    ) -> None:
        """`databases`: the sections of each, beyond the host's own sockets; `sections`: further ones."""
        super().__init__(host.site, f"exporter-{host.name}")
        self.host = host
        self.config = host.dir / "mecexporter.yaml"
        self.socket = host.dir / "api.sock"
        ovn: dict[str, object] = {"run_dir": str(host.dir)}
        for db in DATABASES:
            own = {"database": host.unix(db), "control": f"{host.dir}/{db}.ctl"}
            ovn[SECTIONS[db]] = own | dict(databases.get(db, {}))
        base: dict[str, Mapping[str, object]] = {
            "web": {"local_socket": str(self.socket), "listen": "127.0.0.1:9746"},
            "ovs": {"database": f"unix:{host.dir}/db.sock", "run_dir": str(host.dir)},
            "ovn": ovn,
            "host": {"state_dir": str(host.dir / "state"), "hostname": host.name},
        }
        self.settings = {n: dict(base.get(n, {})) | dict(sections.get(n, {})) for n in base.keys() | sections.keys()}

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
