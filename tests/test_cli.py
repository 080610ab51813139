"""The command line as its users run it: in processes of its own, beside a real compute node and beside nothing."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from mecexporter import __version__, cli
from mecexporter.checks.base import discover
from mecexporter.config import Config, effective, load
from mecexporter.metrics import docs
from mecexporter.state.world import Identity, Memory, Role
from mecexporter.store import Saved, Store
from mecexporter.web.findings import exit_status, in_words
from tests.own_logging import restored
from tests.ports import free_port
from tests.sources.daemons import Daemon, Node, OvsdbServer, run, running, short_dir
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

ME = [sys.executable, "-m", "mecexporter"]
SECONDS = 60
AT_ONCE = 15
"""Seconds, on a busy machine: whoever waits for what does not come takes 45 and more."""
CHECKS = {c.name for c in discover()}
OF_COMPUTE = {c.name for c in discover() if Role.COMPUTE in c.roles}
DONE = tuple[int, str, str]
"""Exit status, stdout, stderr."""


def mecexporter(*args: str, env: dict[str, str] | None = None) -> DONE:
    done = subprocess.run(
        [*ME, *args], capture_output=True, text=True, timeout=SECONDS, check=False, env=os.environ | (env or {})
    )
    return done.returncode, done.stdout, done.stderr


class Here(Protocol):
    def __call__(self, *args: str) -> DONE: ...


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Here:
    """The same in this process, for what ends before it reads or serves anything."""

    def run_here(*args: str) -> DONE:
        with restored():
            status = cli.main(args)
        return status, *capsys.readouterr()

    return run_here


def start(*args: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*ME, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def settings(directory: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    """A configuration in which every path is below ``directory``."""
    d = str(directory)
    base: dict[str, dict[str, Any]] = {
        "web": {"listen": f"127.0.0.1:{free_port()}", "local_socket": f"{d}/api.sock"},
        "intervals": {"live": "1s"},
        "ovs": {
            "database": f"unix:{d}/db.sock",
            "run_dir": d,
            "system_id_file": f"{d}/system-id.conf",
            "system_id_override_file": f"{d}/system-id-override",
        },
        "ovn": {
            "run_dir": d,
            "northbound": {"database": f"unix:{d}/nb.sock", "control": f"{d}/nb.ctl"},
            "southbound": {"control": f"{d}/sb.ctl"},
        },
        "host": {"state_dir": f"{d}/state"},
    }
    return {name: base.get(name, {}) | sections.get(name, {}) for name in base.keys() | sections.keys()}


def written(directory: Path, config: dict[str, Any]) -> str:
    path = directory / "mecexporter.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


@dataclass
class Host:
    """A compute node of real daemons: Open vSwitch with dummy devices, ovn-controller, and its Southbound."""

    directory: Path
    id: str = "me"
    node: Node = field(init=False)
    controller: Daemon = field(init=False)
    southbound: OvsdbServer = field(init=False)

    def __post_init__(self) -> None:
        (self.directory / "sb").mkdir()
        self.southbound = OvsdbServer(self.directory / "sb", "OVN_Southbound")
        self.node = Node(self.directory)
        self.controller = Daemon(self.directory, "ovn-controller", f"unix:{self.node.server.socket}")
        self.controller._env |= {f"OVN_{kind}": str(self.directory) for kind in ("RUNDIR", "LOGDIR", "SYSCONFDIR")}

    @contextlib.contextmanager
    def up(self) -> Iterator[Host]:
        with running(self.southbound):
            run("ovn-sbctl", f"--db=unix:{self.southbound.socket}", "init")
            try:
                self.node.start()
                keys = {
                    "system-id": self.id,
                    "hostname": "compute-1",
                    "ovn-remote": f"unix:{self.southbound.socket}",
                    "ovn-encap-type": "geneve",
                    "ovn-encap-ip": "127.0.0.1",
                    "rundir": str(self.directory),
                    "ovn-bridge-datapath-type": "dummy",
                }
                self.set(**keys)
                (self.directory / "system-id.conf").write_text(f"{self.id}\n")
                with running(self.controller):
                    wait_until(self.programmed, 20, "the node is registered and its bridge programmed")
                    yield self
            finally:
                self.node.vswitchd.kill()
                self.node.server.kill()

    def set(self, **keys: str) -> None:
        pairs = (f"external_ids:{key}={json.dumps(value)}" for key, value in keys.items())
        self.node.vsctl("--no-wait", "set", "Open_vSwitch", ".", *pairs)

    def programmed(self) -> bool:
        chassis = run("ovn-sbctl", f"--db=unix:{self.southbound.socket}", "--bare", "--columns=name", "list", "Chassis")
        if self.id not in chassis.split() or "br-int" not in self.node.vsctl("list-br"):
            return False
        return (
            len(run("ovs-ofctl", "-OOpenFlow13", "dump-flows", f"unix:{self.node.management('br-int')}").splitlines())
            > 1
        )


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with short_dir() as directory, Host(directory).up() as host:
        yield host


@pytest.fixture
def bare() -> Iterator[Path]:
    """A directory for a host that has nothing; short, as sockets will be in it."""
    with short_dir() as directory:
        yield directory


@dataclass
class Service:
    """``mecexporter run``."""

    directory: Path
    config: str
    process: subprocess.Popen[bytes]
    port: int

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Its exit status, and how long it took."""
        began = time.monotonic()
        self.process.send_signal(how)
        return self.process.wait(20), time.monotonic() - began

    def get(self, page: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", page)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def wait_ready(self) -> None:
        wait_until(self.ready, 30, "the service is ready")


@contextlib.contextmanager
def service(directory: Path, **sections: dict[str, Any]) -> Iterator[Service]:
    config = settings(directory, **sections)
    path = written(directory, config)
    port = int(config["web"]["listen"].rpartition(":")[2])
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([*ME, "run", "--config", path], stderr=log, stdout=log)
    made = Service(directory, path, process, port)
    try:
        made.wait_ready()
        yield made
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.wait(20)


def content(directory: Path) -> dict[str, tuple[bytes, int, int]]:
    return {
        p.name: (p.read_bytes(), p.stat().st_mtime_ns, p.stat().st_ino) for p in directory.rglob("*") if p.is_file()
    }


@dataclass
class Slow:
    """A command that waits a while, started before the other tests."""

    directory: Path
    process: subprocess.Popen[str]
    before: dict[str, tuple[bytes, int, int]]

    def result(self) -> DONE:
        out, err = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, out, err


REMEMBERED = Saved.of(
    Memory(roles=frozenset({Role.COMPUTE}), identity=Identity(system_id="the old one", origin="ovsdb", since=1.0)),
    {"ovn_controller_disconnected": {"nobody": 1000.0}},
)


@pytest.fixture(scope="module", autouse=True)
def slow() -> Iterator[dict[str, Slow]]:
    commands = {"dead": ["check"], "blind": ["check", "--json", "--only", "system_id_changed"]}
    started: dict[str, Slow] = {}
    with contextlib.ExitStack() as stack:
        for name, command in commands.items():
            directory = stack.enter_context(short_dir())
            Store(directory / "state").save(REMEMBERED)
            path = written(directory, settings(directory))
            process = stack.enter_context(start(*command, "--config", path))
            stack.callback(process.kill)
            started[name] = Slow(directory, process, content(directory / "state"))
        yield started


# --- usage and configuration


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        pytest.param([], 2, "required: COMMAND", id="no command"),
        pytest.param(["walk"], 2, "invalid choice: 'walk'", id="no such command"),
        pytest.param(["run", "--lisen", ":1"], 2, "unrecognized arguments", id="no such option"),
        pytest.param(["run", "--listen", "here"], 2, "--listen: 'here' is not HOST:PORT", id="a bad address"),
        pytest.param(["run", "--config", "/nowhere"], 2, "/nowhere: No such file or directory", id="run without file"),
        pytest.param(["once", "--config", "/nowhere"], 2, "/nowhere: No such file", id="once without file"),
        pytest.param(["config", "--config", "/nowhere"], 2, "/nowhere: No such file", id="config without file"),
        pytest.param(["catalogue", "--format", "xml"], 2, "invalid choice: 'xml'", id="no such format"),
        pytest.param(["forget"], 2, "required", id="forget what"),
        pytest.param(["forget", "everything"], 2, "invalid choice: 'everything'", id="forget no such thing"),
        pytest.param(
            ["check", "--config", "/nowhere"], 3, "/nowhere: No such file or directory", id="check without file"
        ),
        pytest.param(["check", "--bogus"], 3, "unrecognized arguments: --bogus", id="check with no such option"),
        pytest.param(["check", "--only"], 3, "expected at least one argument", id="check nothing"),
        pytest.param(["check", "--only", "bogus", "--json"], 3, "no check is called 'bogus'", id="no such check"),
        pytest.param(["check", "--only", "system_id_missing", "x y"], 3, "no check is called 'x y'", id="one of two"),
        pytest.param(["check", "--only", "x", "--only", "system_id_missing"], 3, "no check is called 'x'", id="twice"),
    ],
)
def test_what_is_wrong_is_said_on_stderr_and_nowhere_else(here: Here, args: list[str], status: int, words: str) -> None:
    done, out, err = here(*args)
    assert (done, out) == (status, "")
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("command", "status"), [("run", 2), ("once", 2), ("config", 2), ("forget", 2), ("check", 3)])
def test_a_bad_configuration_names_key_and_place(here: Here, bare: Path, command: str, status: int) -> None:
    (bare / "f").write_text("grace:\n  bridge: soon\n")
    args = ["northd"] if command == "forget" else []
    done, out, err = here(command, "--config", str(bare / "f"), *args)
    assert (done, out) == (status, "")
    assert err.startswith(f"mecexporter: {bare}/f:2: grace.bridge: 'soon' is no duration: want a number with ms, s,")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["run", "config"])
def test_a_bad_address_in_it_too(here: Here, bare: Path, command: str) -> None:
    (bare / "f").write_text("web: {listen: '9746'}\n")
    done, out, err = here(command, "--config", str(bare / "f"))
    assert (done, out) == (2, "")
    assert "web.listen: '9746' is not HOST:PORT" in err


@pytest.mark.parametrize("command", ["run", "config"])
def test_a_bad_web_config_ends_it_before_it_listens(bare: Path, command: str) -> None:
    (bare / "web.yml").write_text("basic_auth_users: {a: plain}\n")
    done, out, err = mecexporter(
        command, "--config", written(bare, settings(bare, web={"web_config": f"{bare}/web.yml"}))
    )
    assert (done, out) == (2, "")
    assert f"{bare}/web.yml" in err
    assert "Traceback" not in err


def test_help_and_version(here: Here) -> None:
    assert here("--version") == (0, f"mecexporter {__version__}\n", "")
    for args in (["--help"], ["check", "--help"]):
        status, out, err = here(*args)
        assert (status, err) == (0, "")
        assert "usage: mecexporter" in out


def test_config_prints_what_is_in_force_and_no_secret(here: Here, bare: Path) -> None:
    (bare / "f").write_text("nova: {cells: {cell1: 'mysql+pymysql://nova:geheim@db/nova'}}\ngrace: {bridge: 90s}\n")
    status, out, err = here("config", "--config", str(bare / "f"))
    assert (status, err) == (0, "")
    assert "geheim" not in out
    shown = yaml.safe_load(out)
    assert shown["grace"]["bridge"] == "90s"
    assert shown.keys() == effective(Config()).keys()
    assert yaml.safe_load(here("config")[1]) == effective(Config())


def test_the_catalogue(here: Here) -> None:
    status, out, err = here("catalogue")
    assert (status, out, err) == (0, f"{docs.metrics_markdown()}\n{docs.checks_markdown()}", "")
    status, out, _ = here("catalogue", "--format", "json")
    assert (status, out) == (0, docs.catalogue_json())


@pytest.mark.parametrize(("command", "status"), [("check", 3), ("config", 1)])
def test_a_bug_of_ours_is_no_verdict(here: Here, monkeypatch: pytest.MonkeyPatch, command: str, status: int) -> None:
    monkeypatch.setattr(cli, "load", lambda *_args, **_kwargs: 1 // 0)
    done, out, err = here(command)
    assert (done, out) == (status, "")
    assert "ZeroDivisionError" in err


def test_a_reader_that_has_had_enough_is_no_trouble() -> None:
    for command in (["catalogue"], ["config"]):
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run([*ME, *command], stdout=write, stderr=subprocess.PIPE, timeout=SECONDS, check=False)
        os.close(write)
        assert (done.returncode, done.stderr) == (1, b"")


def test_a_full_disk_behind_it_is_said() -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123  # a device
        done = subprocess.run([*ME, "catalogue"], stdout=full, stderr=subprocess.PIPE, timeout=SECONDS, check=False)
    assert (done.returncode, done.stderr) == (1, b"mecexporter: [Errno 28] No space left on device\n")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_is_no_trouble(bare: Path, closed: str) -> None:
    path = written(bare, settings(bare))

    def shell(words: str) -> subprocess.Popen[str]:
        line = f"exec {shlex.join(ME)} {words} {closed}"
        return subprocess.Popen(["/bin/sh", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    for words in ("catalogue", f"forget northd --config {path}", f"check --config {path}"):
        process = shell(words)
        _, err = process.communicate(timeout=SECONDS)
        assert (process.returncode, err) == (0, ""), words
    process = shell(f"check --json --config {bare}/none.yaml")
    assert process.communicate(timeout=SECONDS)[0] == "", "what is wrong is said on stderr and nowhere else"
    assert process.returncode == 3
    process = shell(f"run --config {path}")
    try:
        wait_until(lambda: process.poll() is not None or (bare / "api.sock").exists(), 20, "it serves")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


# --- without a service


def test_once_on_a_healthy_node(host: Host) -> None:
    status, out, err = mecexporter("once", "--config", written(host.directory, settings(host.directory)))
    assert (status, err) == (0, "")
    values = {
        (s.name, *sorted(s.labels.values())): s.value for f in text_string_to_metric_families(out) for s in f.samples
    }
    for source in ("ovs", "vswitchd", "openflow", "ovn_controller", "chassis_lookup", "host"):
        assert values["mecexporter_source_up", source] == 1
    assert values["mec_ovn_controller_connected",] == 1
    assert values["mec_integration_bridge_flows", "br-int"] > 0
    assert values["mec_system_id_info", "effective", "me"] == 1
    assert values["mec_system_id_info", "me", "southbound"] == 1
    assert not (host.directory / "state").exists()


def test_once_where_there_is_nothing(bare: Path) -> None:
    status, out, _ = mecexporter("once", "--config", written(bare, settings(bare)))
    assert status == 0
    assert 'mecexporter_role{role="compute"} 0.0' in out
    assert 'mecexporter_source_up{source="host"} 1.0' in out
    assert 'source="ovs"' not in out
    assert "mec_check_evaluable" not in out


def test_check_alone_on_a_healthy_node_is_well_and_writes_nothing(host: Host) -> None:
    before = content(host.directory)
    status, out, err = mecexporter("check", "--json", "--config", written(host.directory, settings(host.directory)))
    document = json.loads(out)
    assert (status, document["findings"], document["unknown"]) == (0, [], []), err
    assert set(document["ok"]) == OF_COMPUTE
    assert not (host.directory / "state").exists()
    after = content(host.directory)
    written_to = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert {n for n in written_to if not n.endswith((".log", ".db", ".lock", ".yaml"))} == set()


def test_check_alone_where_all_is_dead_finds_it_and_leaves_the_state_alone(slow: dict[str, Slow]) -> None:
    """Nothing runs, but state_dir says that this is a compute node."""
    status, out, err = slow["dead"].result()
    assert status == 2, err
    assert "CRITICAL  ovn_controller_disconnected" in out
    assert f"ovn-controller is not running: no {slow['dead'].directory}/ovn-controller.pid" in out
    assert "do     start it: systemctl start ovn-controller" in out
    assert "CANNOT TELL" in out
    assert content(slow["dead"].directory / "state") == slow["dead"].before


@pytest.mark.parametrize("foreign", [b"", b"not ours", b'{"format": 99}'])
def test_check_alone_leaves_a_foreign_state_alone(bare: Path, foreign: bytes) -> None:
    (bare / "state").mkdir()
    (bare / "state" / "state.json").write_bytes(foreign)
    before = content(bare / "state")
    path = written(bare, settings(bare) | {"roles": ["api"]})
    status, _, _ = mecexporter("check", "--config", path)
    assert status == 0
    assert content(bare / "state") == before


def test_check_alone_where_something_cannot_be_told(slow: dict[str, Slow]) -> None:
    status, out, _ = slow["blind"].result()
    assert status == 3
    assert json.loads(out) == {
        "findings": [],
        "unknown": [{"check": "system_id_changed", "missing": ["ovs"]}],
        "not_applicable": [],
        "ok": [],
        "pending": [],
    }


async def test_what_would_need_a_longer_look_is_said_to_need_time_and_not_waited_for(host: Host) -> None:
    began = time.monotonic()
    config = load(Path(written(host.directory, settings(host.directory))), known_checks=frozenset(CHECKS))
    add = ("add-port", "br-int", "p1", "--", "set", "interface", "p1", "type=dummy", "external_ids:iface-id=nobody")
    host.node.vsctl("--", *add)
    try:
        document, sources = await cli._read_alone(config)
    finally:
        host.node.vsctl("--if-exists", "del-port", "br-int", "p1")
    assert {"check": "ovs_interface_orphaned", "missing": ["time"]} in document["unknown"]
    assert "ovs_interface_orphaned" not in document["ok"]
    assert time.monotonic() - began < cli.ALONE_SECONDS / 2
    assert exit_status(document) == 3
    assert "not for long enough to report" in in_words(document, sources, time.time())


AS_NOBODY = """
import importlib, os, pkgutil, sys
import mecexporter
from mecexporter import cli
for info in pkgutil.walk_packages(mecexporter.__path__, "mecexporter."):  # nobody may not read our interpreter's files
    if not info.name.endswith("__main__"):
        importlib.import_module(info.name)
cli._SETTLED_AFTER = 1.0
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_check_by_a_user_who_may_see_nothing_cannot_tell(bare: Path) -> None:
    """'All is well' would be a lie."""
    bare.chmod(0o755)
    locked = bare / "run"
    locked.mkdir(mode=0o700)
    config = settings(locked, host={"state_dir": f"{bare}/state"})
    config["web"]["local_socket"] = None
    path = written(bare, config)
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, "check", "--json", "--config", path],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    document = json.loads(done.stdout)
    assert {u["check"] for u in document["unknown"]} == OF_COMPUTE
    assert (document["findings"], document["ok"]) == ([], [])
    assert set(document["not_applicable"]) == CHECKS - OF_COMPUTE


def test_check_that_is_interrupted_ends_so_and_says_nothing(bare: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(bare / "db.sock"))
        silent.listen()
        silent.settimeout(SECONDS)
        # What is started in the background of a shell ignores SIGINT, and so does all that it starts.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            process = start("check", "--config", written(bare, settings(bare) | {"roles": ["compute"]}))
        finally:
            signal.signal(signal.SIGINT, before)
        with silent.accept()[0]:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out, err) == (-signal.SIGINT, "", "")


def test_check_alone_where_nothing_applies(bare: Path) -> None:
    status, out, _ = mecexporter("check", "--json", "--config", written(bare, settings(bare)))
    assert status == 0
    assert set(json.loads(out)["not_applicable"]) == CHECKS


def test_forget_without_a_service(bare: Path) -> None:
    path = written(bare, settings(bare))
    Store(bare / "state").save(REMEMBERED)
    assert mecexporter("forget", "identity", "--config", path) == (0, "", "")
    kept = Store(bare / "state").load()
    assert kept.identity is None
    assert kept.roles == {Role.COMPUTE}
    assert mecexporter("forget", "compute", "--config", path) == (0, "", "")
    assert Store(bare / "state").load().roles == frozenset()


def test_forget_where_it_cannot_be_written(bare: Path) -> None:
    (bare / "state").touch()
    status, out, err = mecexporter("forget", "northd", "--config", written(bare, settings(bare)))
    assert (status, out) == (1, "")
    assert f"{bare}/state/state.json" in err
    assert "Traceback" not in err


# --- with a service


def test_check_asks_the_service(host: Host) -> None:
    broken = 'x\x1b[31m"<b>'
    with service(host.directory) as running_service:

        def checked(*args: str, env: dict[str, str] | None = None) -> DONE:
            return mecexporter("check", "--config", running_service.config, *args, env=env)

        def document() -> Any:
            return json.loads(running_service.get("/api/v1/findings")[1])

        def names() -> set[str]:
            return {f["check"] for f in document()["findings"]}

        wait_until(lambda: set(document()["ok"]) == OF_COMPUTE, 30, "all is well")
        began = time.monotonic()
        status, out, err = checked("--json")
        assert time.monotonic() - began < AT_ONCE, "it has nothing to wait for"
        assert (status, err) == (0, "")
        assert json.loads(out) == document()
        try:
            (host.directory / "system-id.conf").write_text("another\n")
            wait_until(lambda: names() == {"system_id_mismatch"}, 20, "a warning")
            status, out, _ = checked()
            assert status == 1
            assert "WARNING  system_id_mismatch" in out
            assert "the id in force is me: the next start changes it" in out
            status, out, _ = checked("--json", "--only", "ovn_controller_failing", "system_id_missing")
            assert (status, json.loads(out)["findings"]) == (0, [])
            assert set(json.loads(out)["ok"]) == {"ovn_controller_failing", "system_id_missing"}

            host.set(**{"system-id": broken})
            wait_until(lambda: "system_id_changed" in names(), 30, "the changed id is found")
            status, out, err = checked(env={"PYTHONIOENCODING": "ascii"})
            assert (status, err) == (2, "")
            assert "\x1b" not in out
            assert '\\x1b[31m"<b>' in out
            read, write = os.pipe()
            os.close(read)
            done = subprocess.run(
                [*ME, "check", "--config", running_service.config],
                stdout=write,
                stderr=subprocess.PIPE,
                timeout=SECONDS,
                check=False,
            )
            os.close(write)
            assert (done.returncode, done.stderr) == (3, b""), "nobody has read what is wrong"
        finally:
            host.set(**{"system-id": "me"})
            (host.directory / "system-id.conf").write_text("me\n")

        assert mecexporter("forget", "identity", "--config", running_service.config) == (0, "", "")
        status, took = running_service.stop()
        assert status == 0
        assert took < AT_ONCE
        log = running_service.log
    assert len(re.findall(r'msg="finding opened".* check=system_id_mismatch ', log)) == 1
    assert "Traceback" not in log
    assert "\x1b" not in log
    assert all(line.startswith("time=") for line in log.splitlines())
    assert not (host.directory / "api.sock").exists()
    assert Store(host.directory / "state").load().roles == {Role.COMPUTE}


def test_a_service_that_hangs_is_said_and_not_waited_for(bare: Path) -> None:
    with service(bare) as running_service:
        running_service.process.send_signal(signal.SIGSTOP)
        forget = start("forget", "northd", "--config", running_service.config)
        status, out, err = mecexporter("check", "--json", "--config", running_service.config)
        assert status == 0
        assert set(json.loads(out)["not_applicable"]) == CHECKS
        assert err == f"mecexporter: the service does not answer on {bare}/api.sock (timed out); reading for myself\n"
        out, err = forget.communicate(timeout=SECONDS)
        assert (forget.returncode, out) == (1, "")
        assert "does not answer" in err


def test_a_port_that_is_taken_is_said(bare: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        path = written(bare, settings(bare))
        status, _, err = mecexporter("run", "--config", path, "--listen", f"127.0.0.1:{port}")
    assert status == 1
    assert f"cannot listen on 127.0.0.1:{port}: already in use" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_at_once_whoever_is_connected(bare: Path, how: signal.Signals) -> None:
    with service(bare) as running_service, contextlib.ExitStack() as open_connections:
        for request in (b"", b"GET /metrics HTTP/1.1\r\nHost: x\r\n", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"):
            client = open_connections.enter_context(socket.create_connection(("127.0.0.1", running_service.port), 10))
            client.sendall(request)
        for _ in range(30):  # asks again and again, and reads nothing
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        status, took = running_service.stop(how)
        assert status == 0, running_service.log
        assert took < AT_ONCE
        assert "Traceback" not in running_service.log


def test_it_ends_in_time_though_its_web_configuration_hangs(bare: Path) -> None:
    """As a file on a dead file system does; here it becomes a FIFO that nobody writes to."""
    web = bare / "web.yaml"
    web.write_text("")
    path = written(bare, settings(bare, web={**settings(bare)["web"], "web_config": str(web)}))
    impatient = "import sys; from mecexporter.web import security; security.RENEWAL = 0.1"
    main = "from mecexporter.cli import main; sys.exit(main())"
    with (bare / "log").open("wb") as log:
        command = [sys.executable, "-c", f"{impatient}; {main}", "run", "--config", path]
        process = subprocess.Popen(command, stderr=log, stdout=log)

    def opened() -> int | None:
        try:
            return os.open(web, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads it yet
            return None

    writer = None
    try:
        wait_until((bare / "api.sock").exists, 20, "it serves")
        web.unlink()
        os.mkfifo(web)
        writer = wait_until(opened, 20, "it reads its web configuration")
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0, (bare / "log").read_text()
    finally:
        process.kill()
        process.wait(20)
        if writer is not None:
            os.close(writer)


def test_it_ends_in_time_beside_daemons_that_hang(host: Host) -> None:
    with service(host.directory) as running_service:
        daemons = (host.node.server, host.node.vswitchd, host.controller, host.southbound)
        for daemon in daemons:
            daemon.suspend()
        try:
            wait_until(
                lambda: 'source_up{source="ovs"} 0.0' in running_service.get("/metrics")[1], 20, "they are silent"
            )
            status, took = running_service.stop()
        finally:
            for daemon in daemons:
                daemon.resume()
        assert status == 0, running_service.log
        assert took < AT_ONCE
        assert "Traceback" not in running_service.log


def test_two_do_not_keep_their_state_in_one_place(bare: Path) -> None:
    with service(bare, web={"local_socket": None}) as first:
        status, out, err = mecexporter("run", "--config", first.config, "--listen", f"127.0.0.1:{free_port()}")
        assert (status, out) == (1, "")
        assert err == f"mecexporter: another mecexporter keeps its state in {bare}/state: set host.state_dir\n"
        assert mecexporter("once", "--config", first.config)[0] == 0, "which writes nothing"
        assert first.stop()[0] == 0
    kept = Store(bare / "state").load()
    assert kept == Saved(format=1, versions=kept.versions)


def test_forget_beside_a_service_without_a_local_socket_is_refused(bare: Path) -> None:
    """It would write back what it still remembers."""
    Store(bare / "state").save(REMEMBERED)
    with service(bare, web={"local_socket": None}) as running_service:
        status, out, err = mecexporter("forget", "identity", "--config", running_service.config)
        assert (status, out) == (1, "")
        assert f"keeps its state in {bare}/state/state.json: stop it first" in err
        assert running_service.stop()[0] == 0
    assert mecexporter("forget", "identity", "--config", running_service.config) == (0, "", "")
    assert Store(bare / "state").load().identity is None


def test_whoever_speaks_no_http_gets_his_answer_and_no_traceback(bare: Path) -> None:
    hello = bytes.fromhex("16030100c8010000c403036b") + bytes(200)  # a TLS client's first words
    with service(bare) as running_service:
        for request in (hello, b"GET / HTTP/1.1\r\nX: " + b"a" * 9000 + b"\r\n\r\n", b"\0" * 100):
            with socket.create_connection(("127.0.0.1", running_service.port), 10) as client:
                client.sendall(request)
                assert client.recv(100).startswith(b"HTTP/1.0 400 ")
        assert running_service.get("/healthz")[0] == 200
        assert running_service.stop()[0] == 0
        assert "Traceback" not in running_service.log
        assert "level=error" not in running_service.log


@pytest.mark.parametrize("seen", ["frozenlist", "_http_parser", "markupsafe", "orjson", "serving"])
def test_told_to_end_while_it_starts_it_ends_well(bare: Path, seen: str) -> None:
    """At moments that its libraries, and then its log, tell."""
    path = written(bare, settings(bare))
    with (bare / "log").open("wb") as log:
        process = subprocess.Popen([*ME, "run", "--config", path], stderr=log, stdout=log)

    def reached() -> bool:
        return seen in Path(f"/proc/{process.pid}/maps").read_text() or seen in (bare / "log").read_text()

    try:
        wait_until(reached, 20, f"it has come to {seen}")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, (bare / "log").read_text()
    finally:
        process.kill()
        process.wait(20)
    assert "Traceback" not in (bare / "log").read_text()


def test_two_on_one_host_do_not_take_each_others_socket(bare: Path) -> None:
    with service(bare) as first:
        second = settings(bare, host={"state_dir": f"{bare}/state of the second"})
        path = bare / "second.yaml"
        path.write_text(yaml.safe_dump(second))
        process = subprocess.Popen([*ME, "run", "--config", str(path)], stderr=subprocess.PIPE, text=True)
        try:
            assert process.stderr is not None
            assert "no local socket" in process.stderr.readline()
        finally:
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=20)
        assert process.returncode == 0, err
        assert mecexporter("check", "--config", first.config)[2] == "", "the first still answers"
