"""A whole OVN site of real daemons on one machine: NB, SB, northd and two compute nodes in network namespaces.

User-space datapath (no kernel module), geneve over a veth between the nodes, 'VMs' as namespaces that ping each other.
Every copy has a name; its namespaces, its directory and, by an environment variable, its processes bear it, so that
copies run side by side and any copy can be taken down by another process. Needs root and the programs in PROGRAMS.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import threading
import uuid
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self, TypedDict

from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

Daemon = Literal["ovsdb-server", "ovs-vswitchd", "ovn-controller"]
Database = Literal["nb", "sb"]

ROOT = Path("/tmp")  # noqa: S108 - Unix socket paths must stay under 108 bytes, which a TMPDIR may spoil
PREFIX = "mec-"
MARK = "MEC_LAB"  # in the environment of every process of a lab: how it is found, whatever it is called
_SHARE = Path(os.environ.get("LAB_ROOT", "/")) / "usr/share"  # of another generation: tests/lab/generations.py
OVS_SHARE = _SHARE / "openvswitch"
OVN_SHARE = _SHARE / "ovn"
PROGRAMS = {  # program -> Debian package
    "ethtool": "ethtool",
    "ip": "iproute2",
    "ovn-controller": "ovn-host",
    "ovn-nbctl": "ovn-common",
    "ovn-northd": "ovn-central",
    "ovs-vswitchd": "openvswitch-switch",
    "ovs-vsctl": "openvswitch-switch",
    "ping": "iputils-ping",
    "uuidgen": "uuid-runtime",
}
CALL_TIMEOUT = 30  # seconds, for any one command
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # all end a lab in order
SETTLE_TIMEOUT = 60  # seconds, for any one thing to come about, on a busy machine too


class LabError(Exception):
    """The lab cannot do what was asked; the message is for people."""


class Vm(NamedTuple):
    """A 'VM': a namespace whose eth0 is plugged into br-int of its node as tap-<name>."""

    name: str
    address: str
    node: str

    @property
    def mac(self) -> str:
        return "02:00:" + ":".join(f"{int(octet):02x}" for octet in self.address.split("."))

    @property
    def tap(self) -> str:
        return f"tap-{self.name}"


def run(*argv: str | Path, env: dict[str, str] | None = None, check: bool = True) -> str:
    """Runs one command within CALL_TIMEOUT and returns its standard output, stripped; LabError with its own words."""
    line = " ".join(map(str, argv))
    try:
        done = subprocess.run(
            argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=CALL_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"no answer in {CALL_TIMEOUT} s: {line}") from None
    if check and done.returncode:
        raise LabError(f"{line}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def environment(name: str) -> dict[str, str]:
    """The environment of a lab's processes: the caller's without OVS_* and OVN_*, with the lab's mark."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OVS_", "OVN_"))}
    return kept | {MARK: name, "LC_ALL": "C.UTF-8", "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}


def require(programs: dict[str, str]) -> None:
    """LabError unless we are root and have the programs (program -> Debian package)."""
    if os.geteuid() != 0:
        raise LabError("the lab needs root: it makes network namespaces and runs daemons in them")
    path = environment("")["PATH"]
    if missing := {package for program, package in programs.items() if not shutil.which(program, path=path)}:
        raise LabError(f"programs are missing; install: apt-get install {' '.join(sorted(missing))}")


@cache
def release(program: str) -> tuple[int, ...]:
    """Of a program of Open vSwitch or OVN, as the lab runs it: (3, 1, 0)."""
    said = run(program, "--version", env=environment("")).splitlines()[0]
    return tuple(map(int, said.split()[-1].split(".")))


def controller_aborts() -> bool:
    """Whether this release's ovn-controller aborts when its system-id becomes another: seen with 26.03 only."""
    return release("ovn-controller") >= (26, 3)


def gone(pid: int) -> bool:
    """Whether a process is dead and reaped: ovs-ctl takes a zombie for a running daemon."""
    return not Path(f"/proc/{pid}").exists()


def started(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (proc(5), stat field 22); None if it is dead or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])


class Node:
    """One compute node: a network namespace, and run, etc, database and log directories of its own.

    ovsdb-server and ovs-vswitchd are started and stopped by the real ovs-ctl, as Debian's units do it.
    """

    def __init__(self, site: Site, name: str, index: int) -> None:
        self.site, self.name, self.index = site, name, index
        self.hostname = f"{name}.lab"
        self.netns = site.netns(name)
        self.dir = site.dir / name
        self.ovs_run = self.dir / "ovs"
        self.ovn_run = self.dir / "ovn"
        self.etc = self.dir / "etc"
        self.db_dir = self.dir / "db"
        self.log = self.dir / "log"
        self.conf_db = self.db_dir / "conf.db"
        self.database = f"unix:{self.ovs_run}/db.sock"
        self.system_id_file = self.etc / "openvswitch" / "system-id.conf"
        self.system_id_override_file = self.etc / "system-id-override"  # in OVN_SYSCONFDIR itself (strace, 23.03)
        self.encap_ip = f"172.31.0.{index}"
        self.env = environment(site.name)
        for project, run_dir in (("OVS", self.ovs_run), ("OVN", self.ovn_run)):
            self.env |= {
                f"{project}_RUNDIR": str(run_dir),
                f"{project}_LOGDIR": str(self.log),
                f"{project}_DBDIR": str(self.db_dir),
                f"{project}_SYSCONFDIR": str(self.etc),
            }

    # What ovs-ctl, ovs-vsctl and ovs-appctl do

    def ovs_ctl(self, command: str, *options: str, system_id: str | None = "random") -> None:
        """Debian's own way to start, stop and restart ovsdb-server and ovs-vswitchd; None: without --system-id."""
        identity = [] if system_id is None else [f"--system-id={system_id}"]
        self.execute(
            self.dir / "scripts" / "ovs-ctl", *identity, f"--external-id=hostname={self.hostname}",
            "--no-monitor", "--no-mlockall", "--no-force-corefiles", "--no-record-hostname",
            "--ovsdb-server-priority=0", "--ovs-vswitchd-priority=0", *options, command,
        )  # fmt: skip
        if command != "stop" and self.running("ovs-vswitchd") and "br-phy" in self.vsctl("list-br").split():
            self._address_underlay()

    def vsctl(self, *args: str, wait: bool = False) -> str:
        """wait: until ovs-vswitchd has done it."""
        mode = "--timeout=10" if wait else "--no-wait"
        return run("ovs-vsctl", mode, f"--db={self.database}", *args, env=self.env)

    def appctl(self, daemon: Daemon, *args: str) -> str:
        target = self.pidfile(daemon).with_name(f"{daemon}.{self.pid(daemon)}.ctl")
        return run("ovs-appctl", "--timeout=5", f"--target={target}", *args, env=self.env)

    def execute(self, *argv: str | Path) -> str:
        """Runs a command in the node's network namespace."""
        return run("ip", "netns", "exec", self.netns, *argv, env=self.env)

    def flows(self) -> int:
        """Visible flows of br-int; LabError if there is no answer."""
        bridge = f"unix:{self.ovs_run}/br-int.mgmt"
        reply = run("ovs-ofctl", "--timeout=5", "--protocols=OpenFlow13", "dump-aggregate", bridge, env=self.env)
        return int(reply.rpartition("flow_count=")[2])

    @property
    def system_id(self) -> str:
        """What external_ids:system-id says now; LabError if there is none."""
        return self.vsctl("get", "Open_vSwitch", ".", "external_ids:system-id").strip('"')

    # Daemons

    def pidfile(self, daemon: Daemon) -> Path:
        return (self.ovn_run if daemon == "ovn-controller" else self.ovs_run) / f"{daemon}.pid"

    def pid(self, daemon: Daemon) -> int:
        """The pid in the pidfile; LabError if it was never started or ended by itself."""
        try:
            return int(self.pidfile(daemon).read_text())
        except FileNotFoundError:
            raise LabError(f"{daemon} of {self.name} is not running") from None

    def running(self, daemon: Daemon) -> bool:
        return self.pidfile(daemon).exists() and started(self.pid(daemon)) is not None

    def start(self, daemon: Daemon, *options: str) -> None:
        if daemon == "ovsdb-server":
            self.ovs_ctl("start", "--no-ovs-vswitchd", *options)
        elif daemon == "ovs-vswitchd":
            self.ovs_ctl("start", "--no-ovsdb-server", *options)
        else:
            # --monitor: its unit has Restart=on-failure; 23.03 too has died when conf.db came anew on a busy machine.
            self.execute(
                "ovn-controller", "--detach", "--no-chdir", "--monitor", f"--pidfile={self.pidfile(daemon)}",
                f"--log-file={self.log}/ovn-controller.log", "-vconsole:off", *options, self.database,
            )  # fmt: skip

    def stop(self, daemon: Daemon, *options: str) -> None:
        """Asks the daemon to end; `--restart` makes ovn-controller leave its chassis behind, as its unit does."""
        if daemon == "ovn-controller" and controller_aborts():  # and comes again, at most every ten seconds
            wait_until(lambda: self.running(daemon), SETTLE_TIMEOUT, f"{daemon} of {self.name} runs again")
        pid = self.pid(daemon)
        self.appctl(daemon, "exit", *options)
        wait_until(lambda: gone(pid), SETTLE_TIMEOUT, f"{daemon} of {self.name} ends")

    def kill(self, daemon: Daemon) -> None:
        pid = self.pid(daemon)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: gone(pid), SETTLE_TIMEOUT, f"{daemon} of {self.name} dies")

    def sigstop(self, daemon: Daemon) -> None:
        os.kill(self.pid(daemon), signal.SIGSTOP)

    def sigcont(self, daemon: Daemon) -> None:
        os.kill(self.pid(daemon), signal.SIGCONT)

    # Setting the node up, and again after its database was wiped

    def create(self) -> None:
        for path in (self.ovs_run, self.ovn_run, self.system_id_file.parent, self.db_dir, self.log):
            path.mkdir(parents=True)
        scripts = self.dir / "scripts"
        scripts.mkdir()
        for name in ("ovs-ctl", "ovs-lib"):
            (scripts / name).symlink_to(OVS_SHARE / "scripts" / name)
        # The real one fails where there is no kernel module to load; the user-space datapath needs none.
        (scripts / "ovs-kmod-ctl").write_text("#!/bin/sh\nexit 0\n")
        (scripts / "ovs-kmod-ctl").chmod(0o755)
        run("ip", "netns", "add", self.netns)
        run("ip", "-n", self.netns, "link", "set", "lo", "up")

    def configure_ovn(self) -> None:
        """The ovn-* keys, as the deployment tool writes them."""
        self.vsctl(
            "set", "Open_vSwitch", ".", f"external_ids:ovn-remote={self.site.sb}",
            "external_ids:ovn-encap-type=geneve", f"external_ids:ovn-encap-ip={self.encap_ip}",
            "external_ids:ovn-bridge-datapath-type=netdev",
        )  # fmt: skip

    def configure_underlay(self) -> None:
        """br-phy with the veth to the other node. Its MAC is fixed: peers remember it for minutes."""
        mac = f"02:00:00:00:1f:{self.index:02x}"
        self.vsctl(
            "--may-exist", "add-br", "br-phy", "--",
            "set", "Bridge", "br-phy", "datapath_type=netdev", f'other_config:hwaddr="{mac}"', "--",
            "--may-exist", "add-port", "br-phy", "phy0", wait=True,
        )  # fmt: skip
        self._address_underlay()

    def _address_underlay(self) -> None:
        """br-phy is a tap of ovs-vswitchd's, gone and come again with it; a host's ifupdown would do this."""
        wait_until(lambda: self._has_device("br-phy"), SETTLE_TIMEOUT, f"br-phy of {self.name} is there")
        run("ip", "-n", self.netns, "addr", "replace", f"{self.encap_ip}/24", "dev", "br-phy")
        run("ip", "-n", self.netns, "link", "set", "br-phy", "up")

    def _has_device(self, device: str) -> bool:
        return f'"{device}"' in run("ip", "-n", self.netns, "-json", "link", "show")

    def configure_all(self) -> None:
        """Everything that a wiped conf.db has lost, but the system-id."""
        self.configure_ovn()
        self.configure_underlay()
        for vm in self.site.vms.values():
            if vm.node == self.name:
                self.plug(vm)

    def plug(self, vm: Vm) -> None:
        """What Nova's os-vif does; ovn-controller has made br-int by then."""
        wait_until(lambda: "br-int" in self.vsctl("list-br").split(), SETTLE_TIMEOUT, f"br-int of {self.name}")
        run("ip", "-n", self.netns, "link", "set", vm.tap, "up")
        self.vsctl(
            "--may-exist", "add-port", "br-int", vm.tap, "--", "set", "Interface", vm.tap,
            f"external_ids:iface-id={vm.name}", "external_ids:iface-status=active",
            f'external_ids:attached-mac="{vm.mac}"',
            f"external_ids:vm-uuid={uuid.uuid5(uuid.NAMESPACE_DNS, vm.name)}",
        )  # fmt: skip

    # VMs

    def add_vm(self, name: str, address: str) -> Vm:
        vm = Vm(name, address, self.name)
        netns = self.site.netns(name)
        self.site.nbctl("lsp-add", "net0", name, "--", "lsp-set-addresses", name, f"{vm.mac} {address}")
        run("ip", "netns", "add", netns)
        run("ip", "link", "add", vm.tap, "netns", self.netns, "type", "veth",
            "peer", "name", "eth0", "address", vm.mac, "netns", netns)  # fmt: skip
        run("ip", "netns", "exec", netns, "ethtool", "-K", "eth0", "tx", "off")  # no one finishes checksums here
        run("ip", "-n", netns, "addr", "add", f"{address}/24", "dev", "eth0")
        run("ip", "-n", netns, "link", "set", "eth0", "up")
        self.site.remember(vm)
        self.plug(vm)
        return vm

    def remove_vm(self, name: str) -> None:
        vm = self.site.forget(name)
        self.vsctl("--if-exists", "del-port", "br-int", vm.tap)
        run("ip", "netns", "del", self.site.netns(name))
        self.site.nbctl("lsp-del", name)

    def move_vm(self, name: str, to: Node) -> None:
        """Unplugs it here and plugs it there, as a migration does."""
        vm = self.site.forget(name)._replace(node=to.name)
        self.vsctl("del-port", "br-int", vm.tap, wait=True)
        run("ip", "-n", self.netns, "link", "set", vm.tap, "netns", to.netns)
        self.site.remember(vm)
        to.plug(vm)


class Site:
    """One lab. `with Site() as site:` gives it running, vm1 on c1 and vm2 on c2 having reached each other."""

    kind: ClassVar[str] = "compute"

    def __init__(self, name: str | None = None, *, vms: bool = True) -> None:
        self.name = name or secrets.token_hex(3)
        if not re.fullmatch("[a-z0-9]{1,12}", self.name):
            raise LabError(f"a lab's name is up to 12 lower-case letters and digits, not {self.name!r}")
        self.dir = ROOT / f"{PREFIX}{self.name}"
        self.nb = f"unix:{self.dir}/nb.sock"
        self.sb = f"unix:{self.dir}/sb.sock"
        self.env = environment(self.name) | {"OVS_RUNDIR": str(self.dir), "OVN_RUNDIR": str(self.dir)}
        self.nodes = {node: Node(self, node, index) for index, node in enumerate(("c1", "c2"), start=1)}
        self.vms: dict[str, Vm] = {}
        self._with_vms = vms
        self._handlers: dict[signal.Signals, Any] = {}  # as they were before

    @classmethod
    def attach(cls, name: str) -> Self:
        """A running lab of this machine, started by whichever process; LabError if there is none of that name."""
        state = read_state(name)
        if state["kind"] != cls.kind:
            raise LabError(f"lab {name} is a site of the kind {state['kind']}, not {cls.kind}")
        site = cls(name)
        site.vms = {vm.name: vm for vm in state["vms"]}
        return site

    def __enter__(self) -> Self:
        require(PROGRAMS)
        sweep()
        try:
            self.dir.mkdir(mode=0o755)
        except FileExistsError:
            raise LabError(f"a lab named {self.name} is there already") from None
        try:
            if threading.current_thread() is threading.main_thread():
                self._handlers = {number: signal.signal(number, signal.default_int_handler) for number in INTERRUPTS}
            self._save()
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)  # a second Ctrl-C must not leave half of it behind
        try:
            down(self.name)
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)

    def _start(self) -> None:
        for database in ("nb", "sb"):
            run("ovsdb-tool", "create", self.dir / f"{database}.db", OVN_SHARE / f"ovn-{database}.ovsschema")
            self.start_database(database)
        self.nbctl("init", "--", "ls-add", "net0")
        self.sbctl("init")
        self.start_northd()
        for node in self.nodes.values():
            node.create()
        first, second = self.nodes.values()
        run("ip", "link", "add", "phy0", "netns", first.netns, "type", "veth",
            "peer", "name", "phy0", "netns", second.netns)  # fmt: skip
        for node in self.nodes.values():
            run("ip", "-n", node.netns, "link", "set", "phy0", "up")
            node.ovs_ctl("start")
            node.configure_ovn()
            node.configure_underlay()
            node.start("ovn-controller")
        if self._with_vms:
            first.add_vm("vm1", "10.0.0.1")
            second.add_vm("vm2", "10.0.0.2")
            wait_until(lambda: self.ping("vm1", "vm2"), SETTLE_TIMEOUT, "vm1 reaches vm2")
        self.bump_nb_cfg()

    def start_database(self, database: Database) -> None:
        run(
            "ovsdb-server", "--detach", "--no-chdir", f"--pidfile={self.dir}/{database}.pid",
            f"--unixctl={self.dir}/{database}.ctl", f"--log-file={self.dir}/{database}.log", "-vconsole:off",
            f"--remote=punix:{self.dir}/{database}.sock", self.dir / f"{database}.db", env=self.env,
        )  # fmt: skip

    def kill_database(self, database: Database) -> None:
        pid = int((self.dir / f"{database}.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: gone(pid), SETTLE_TIMEOUT, f"{database} dies")

    def start_northd(self) -> None:
        run(
            "ovn-northd", "--detach", "--no-chdir", f"--pidfile={self.dir}/ovn-northd.pid",
            f"--unixctl={self.dir}/ovn-northd.ctl", f"--log-file={self.dir}/ovn-northd.log", "-vconsole:off",
            f"--ovnnb-db={self.nb}", f"--ovnsb-db={self.sb}", env=self.env,
        )  # fmt: skip

    def nbctl(self, *args: str) -> str:
        return run("ovn-nbctl", "--timeout=10", f"--db={self.nb}", *args, env=self.env)

    def sbctl(self, *args: str) -> str:
        return run("ovn-sbctl", "--timeout=10", f"--db={self.sb}", *args, env=self.env)

    def chassis(self) -> set[str]:
        """The names in SB's Chassis table."""
        return set(self.sbctl("--bare", "--columns=name", "list", "Chassis").split())

    def bump_nb_cfg(self) -> int:
        """Asks every chassis for a sign of life, as Neutron does all the time; returns the new nb_cfg."""
        nb_cfg = int(self.nbctl("get", "NB_Global", ".", "nb_cfg")) + 1
        self.nbctl("set", "NB_Global", ".", f"nb_cfg={nb_cfg}")
        return nb_cfg

    def ping(self, source: str, target: str) -> bool:
        """Whether one echo came back within a second."""
        command = ("ip", "netns", "exec", self.netns(source), "ping", "-n", "-c1", "-W1", self.vms[target].address)
        return "1 received" in run(*command, env=self.env, check=False)

    def netns(self, name: str) -> str:
        """The network namespace of a node or VM."""
        return f"{PREFIX}{self.name}-{name}"

    def spawn(self, *argv: str | Path, log: Path) -> subprocess.Popen[bytes]:
        """Starts a process of this lab that does not make itself a daemon."""
        with log.open("ab") as output:
            return subprocess.Popen(
                argv,
                env=self.env,
                cwd=Path(__file__).parents[2],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a terminal's Ctrl-C is for the lab, which then ends it in order
            )

    def remember(self, vm: Vm) -> None:
        self.vms[vm.name] = vm
        self._save()

    def forget(self, name: str) -> Vm:
        vm = self.vms.pop(name)
        self._save()
        return vm

    def _save(self) -> None:
        """For other processes: who owns this lab (kept if it is not us who made it) and which VMs it has."""
        path = self.dir / "state.json"
        vms = list(self.vms.values())
        if path.exists():
            state = read_state(self.name) | {"vms": vms}
        else:
            state = State(owner=os.getpid(), since=started(os.getpid()), kind=self.kind, vms=vms)
        scratch = path.with_suffix(".tmp")
        scratch.write_text(json.dumps(state))
        scratch.replace(path)


class State(TypedDict):
    """state.json: the process that made the lab, when that process started, the lab's kind, and its VMs."""

    owner: int
    since: int | None
    kind: str
    vms: list[Vm]


def read_state(name: str) -> State:
    """What a lab says of itself; LabError if there is no such lab."""
    try:
        state: State = json.loads((ROOT / f"{PREFIX}{name}" / "state.json").read_text())
    except FileNotFoundError:
        raise LabError(f"no lab named {name} is here") from None
    state["vms"] = [Vm(*vm) for vm in state["vms"]]
    return state


def labs() -> dict[str, bool]:
    """The labs of this machine by name, and whether the process that made each still lives."""
    found = {}
    for path in ROOT.glob(f"{PREFIX}*/state.json"):
        name = path.parent.name.removeprefix(PREFIX)
        with contextlib.suppress(LabError):  # it is being taken down at this moment
            state = read_state(name)
            found[name] = started(state["owner"]) == state["since"]
    return found


def sweep() -> None:
    """Takes away what killed processes left behind."""
    for name, owned in labs().items():
        if not owned:
            down(name)


def processes(name: str) -> Iterator[int]:
    """The living processes of a lab, by the mark in their environment."""
    mark = f"{MARK}={name}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            marked = mark in (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended meanwhile
        if marked:
            yield int(entry.name)


def down(name: str) -> None:
    """Takes a lab away: its processes, its network namespaces and its directory. No lab: nothing to do."""

    def none_left() -> bool:
        left = [pid for pid in processes(name) if pid != os.getpid()]
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    wait_until(none_left, SETTLE_TIMEOUT, f"the processes of lab {name} end")
    for line in run("ip", "netns", "list").splitlines():
        netns = line.split()[0]
        if netns.startswith(f"{PREFIX}{name}-"):
            run("ip", "netns", "del", netns, check=False)  # another process may be sweeping too
    shutil.rmtree(ROOT / f"{PREFIX}{name}", ignore_errors=True)
