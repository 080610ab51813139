"""Real OVS daemons for tests: started directly in a short temporary directory, no kernel module, ended by their pid."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ports import free_port
from tests.waiting import wait_until

_SHARE = Path(os.environ.get("LAB_ROOT", "/")) / "usr/share"  # of another generation: tests/lab/generations.py
SCHEMAS = {
    "Open_vSwitch": _SHARE / "openvswitch/vswitch.ovsschema",
    "OVN_Northbound": _SHARE / "ovn/ovn-nb.ovsschema",
    "OVN_Southbound": _SHARE / "ovn/ovn-sb.ovsschema",
}
_PATH = {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}  # Debian keeps the daemons out of users' PATH
_START_SECONDS = 20


@contextmanager
def short_dir() -> Iterator[Path]:
    """A temporary directory whose sockets' paths fit into the 107 bytes of a unix address; pytest's own may not."""
    directory = Path(tempfile.mkdtemp(prefix="wire-", dir="/tmp"))  # short is the point; mkdtemp makes it ours
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class Daemon:
    """One daemon as a child process: pidfile and control socket are where its own defaults put them under `run_dir`.

    It is up when it knows a command by its control socket, for some come only after it has read its database.
    """

    def __init__(self, run_dir: Path, name: str, *args: str, knows: str = "version") -> None:
        self.name = name
        self._knows = knows
        self.run_dir = run_dir
        self._command = [
            name,
            f"--pidfile={run_dir}/{name}.pid",
            f"--log-file={run_dir}/{name}.log",
            "-vconsole:off",
            *args,
        ]
        kinds = ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR", "OVN_RUNDIR", "OVN_LOGDIR",
                 "OVN_SYSCONFDIR")  # fmt: skip
        self._env = _PATH | dict.fromkeys(kinds, str(run_dir))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    @property
    def control(self) -> Path:
        return self.run_dir / f"{self.name}.{self.pid}.ctl"

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, env=self._env, cwd=self.run_dir, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )

        def ready() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, f"{self.name} ended with {self._process.returncode}"
            pidfile = self.run_dir / f"{self.name}.pid"
            named = self.control.exists() and pidfile.exists() and pidfile.read_text() == f"{self.pid}\n"
            return named and self._knows in self._commands()

        wait_until(ready, _START_SECONDS, f"{self.name} is up")

    def _commands(self) -> list[str]:
        """None of a daemon that does not answer yet."""
        command = ("ovs-appctl", "--timeout=5", f"--target={self.control}", "list-commands")
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30, env=_PATH)
        return done.stdout.split()

    def suspend(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it gracefully: pidfile and socket go."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with SIGKILL: pidfile and socket stay behind."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(how)
            self._process.send_signal(signal.SIGCONT)
            try:
                self._process.wait(_START_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()


class OvsdbServer(Daemon):
    """An ovsdb-server of one fresh database on `socket`, and on further remotes."""

    def __init__(self, run_dir: Path, db: str, *args: str) -> None:
        self.socket = run_dir / "db.sock"
        self.file = run_dir / f"{db}.db"
        if not self.file.exists():
            run("ovsdb-tool", "create", str(self.file), str(SCHEMAS[db]))
        super().__init__(run_dir, "ovsdb-server", f"--remote=punix:{self.socket}", *args, str(self.file))


class Server(OvsdbServer):
    """A server of one of OVN's databases that also listens on TCP; ``tcp`` is its address."""

    def __init__(self, directory: Path, *args: str, db: str = "OVN_Northbound") -> None:
        directory.mkdir(exist_ok=True)
        self.db = db
        self.port = free_port()
        self.tcp = f"tcp:127.0.0.1:{self.port}"
        super().__init__(directory, db, f"--remote=ptcp:{self.port}:127.0.0.1", *args)

    def appctl(self, *args: str) -> str:
        return run("ovs-appctl", f"--target={self.control}", *args)

    def dump(self, table: str) -> str:
        return run("ovsdb-client", "--timeout=10", "dump", f"unix:{self.socket}", self.db, table)

    def nbctl(self, *args: str) -> str:
        return run("ovn-nbctl", "--timeout=10", f"--db=unix:{self.socket}", *args)


class Member(Daemon):
    """A member of a RAFT cluster of Northbound; the first makes it."""

    def __init__(self, directory: Path, name: str, first: "Member | None" = None) -> None:
        directory = directory / name
        directory.mkdir()
        self.socket = directory / "db.sock"
        self.raft = f"unix:{directory}/{name}.raft"
        file = directory / "nb.db"
        if first is None:
            run("ovsdb-tool", "create-cluster", str(file), str(SCHEMAS["OVN_Northbound"]), self.raft)
        else:
            run("ovsdb-tool", "join-cluster", str(file), "OVN_Northbound", self.raft, first.raft)
        super().__init__(directory, "ovsdb-server", f"--remote=punix:{self.socket}", str(file))


class Node:
    """Open vSwitch of one node, all datapaths and devices dummies."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.server = OvsdbServer(run_dir, "Open_vSwitch")
        self.vswitchd = Daemon(
            run_dir, "ovs-vswitchd", "--enable-dummy=override", "--disable-system", f"unix:{self.server.socket}",
            knows="upcall/show",
        )  # fmt: skip

    def start(self) -> None:
        self.server.start()
        self.vsctl("--no-wait", "init")
        self.vswitchd.start()

    def vsctl(self, *args: str) -> str:
        return run("ovs-vsctl", "--timeout=10", f"--db=unix:{self.server.socket}", *args)

    def management(self, bridge: str) -> Path:
        """The bridge's OpenFlow socket."""
        return self.run_dir / f"{bridge}.mgmt"


@contextmanager
def running(*daemons: Daemon) -> Iterator[None]:
    """Start these, and end them in reverse order."""
    try:
        for daemon in daemons:
            daemon.start()
        yield
    finally:
        for daemon in reversed(daemons):
            daemon.kill()


@contextmanager
def cluster(directory: Path) -> Iterator[list[Member]]:
    """Three members that run, each connected."""
    first = Member(directory, "s1")
    members = [first, Member(directory, "s2", first), Member(directory, "s3", first)]
    with running(*members):
        for member in members:
            run("ovsdb-client", "--timeout=20", "wait", f"unix:{member.socket}", "OVN_Northbound", "connected")
        yield members


@contextmanager
def ovs_node() -> Iterator[Node]:
    """A node that runs, in a directory of its own."""
    with short_dir() as directory:
        node = Node(directory)
        try:
            node.start()
            yield node
        finally:
            node.vswitchd.kill()
            node.server.kill()


class OvnNode(Node):
    """Such a node with its ovn-controller, which nobody has told of Southbound yet; both databases; and a northd."""

    def __init__(self, directory: Path) -> None:
        run_dir = directory / "node"
        run_dir.mkdir()
        super().__init__(run_dir)
        self.nb, self.sb = (Server(directory / db, db=f"OVN_{db}") for db in ("Northbound", "Southbound"))
        self.controller = Daemon(run_dir, "ovn-controller", f"unix:{self.server.socket}")
        self.northd = Daemon(directory, "ovn-northd", f"--ovnnb-db={self.nb.tcp}", f"--ovnsb-db={self.sb.tcp}")

    def bind(self, port: str) -> None:
        """Tell ovn-controller what it needs, and have it carry through a port of Northbound."""
        keys = {
            "system-id": "h1",
            "ovn-remote": f'"{self.sb.tcp}"',
            "ovn-encap-type": "geneve",
            "ovn-encap-ip": "127.0.0.1",
            "ovn-bridge-datapath-type": "dummy",
        }
        settings = (f"external_ids:{key}={value}" for key, value in keys.items())
        self.vsctl("--no-wait", "set", "Open_vSwitch", ".", *settings)
        self.nb.nbctl("ls-add", f"of-{port}", "--", "lsp-add", f"of-{port}", port)
        self.nb.nbctl("--wait=hv", "sync")
        iface = ("set", "Interface", port, "type=dummy", f"external_ids:iface-id={port}")
        self.vsctl("add-port", "br-int", port, "--", *iface)
        self.nb.nbctl("wait-until", "Logical_Switch_Port", port, "up=true")


@contextmanager
def ovn_node(directory: Path) -> Iterator[OvnNode]:
    """One that runs."""
    node = OvnNode(directory)
    with running(node.nb, node.sb, node.server):
        node.vsctl("--no-wait", "init")
        node.nb.nbctl("init")
        with running(node.vswitchd, node.northd, node.controller):
            yield node


def run(*command: str) -> str:
    """Run a tool; what it printed."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30, env=_PATH)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout
