"""A real OpenStack control plane for tests: MariaDB, Placement, Neutron with ML2/OVN, and Nova's cell database.

Debian's packages, without a message broker and without Nova's services: what these would do (claim a VF for an
instance, bind its port) the tests do by the same APIs, and by rows as Nova's own objects serialise them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.lab.site import LabError
from tests.sources.daemons import Daemon, Server, free_port, run
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

PYTHON = "/usr/bin/python3"
"""Debian's own, for which its packages of OpenStack are."""
_START_SECONDS = 60
_MAKE_SECONDS = 180
_MARIADB = (
    "--no-defaults",
    "--bind-address=127.0.0.1",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=0",
    "--innodb-buffer-pool-size=64M",
    "--skip-log-bin",
)
_NEUTRON = """
[DEFAULT]
core_plugin = ml2
service_plugins = segments
auth_strategy = noauth
bind_host = 127.0.0.1
bind_port = {port}
state_path = {directory}
api_paste_config = {paste}
transport_url = fake://
rpc_workers = 0
api_workers = 1
[oslo_concurrency]
lock_path = {directory}/lock
[oslo_policy]
policy_file = {directory}/policy.yaml
[database]
connection = {database}
[ml2]
mechanism_drivers = ovn,sriovnicswitch
type_drivers = flat,vlan,geneve
tenant_network_types = geneve
extension_drivers = port_security
[ml2_type_vlan]
network_vlan_ranges = physnet2:100:200
[ml2_type_geneve]
vni_ranges = 1:65536
max_header_size = 38
[ovn]
ovn_nb_connection = unix:{nb}
ovn_sb_connection = unix:{sb}
"""
_TABLES = (
    ("neutron-db", "neutron.db.migration.cli", "neutron.conf", "upgrade", "head"),
    ("nova-db", "nova.cmd.manage", "nova.conf", "db", "sync", "--local_cell"),
    ("nova-sqlite", "nova.cmd.manage", "nova-sqlite.conf", "db", "sync", "--local_cell"),
)
"""Name, program, its configuration, and what makes its tables."""
_PASTE = """
[composite:neutron]
use = egg:Paste#urlmap
/: versions
/v2.0: api
[composite:api]
use = call:neutron.auth:pipeline_factory
noauth = request_id catch_errors extensions app
[filter:request_id]
paste.filter_factory = oslo_middleware:RequestId.factory
[filter:catch_errors]
paste.filter_factory = oslo_middleware:CatchErrors.factory
[filter:extensions]
paste.filter_factory = neutron.api.extensions:plugin_aware_extension_middleware_factory
[app:versions]
paste.app_factory = neutron.pecan_wsgi.app:versions_factory
[app:app]
paste.app_factory = neutron.api.v2.router:APIRouter.factory
"""
_PLACEMENT = """
[api]
auth_strategy = noauth2
[placement_database]
connection = {database}
sync_on_startup = true
"""
_PLACEMENT_SERVER = """
import os, sys, wsgiref.simple_server as w
from placement.wsgi import init_application
class Quiet(w.WSGIRequestHandler):
    def log_message(self, *a): pass
w.make_server("127.0.0.1", int(sys.argv[1]), init_application(), handler_class=Quiet).serve_forever()
"""
_NOVA = """
[DEFAULT]
state_path = {directory}
[database]
connection = {database}
[api_database]
connection = {database}
"""


@dataclass
class _Process:
    """A child in a session of its own, so that its workers end with it."""

    name: str
    log: Path
    popen: subprocess.Popen[bytes]

    def check(self) -> None:
        if self.popen.poll() is not None:
            raise LabError(f"{self.name} ended with {self.popen.returncode}:\n{self.log.read_text()[-2000:]}")

    def end(self) -> None:
        for how in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.popen.pid, how)
                self.popen.wait(10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        self.popen.wait()


class OpenStack:
    """Runs while it is a context.

    Args:
        directory: all files are below it; short, as sockets' paths are in it.
        hosts: names of compute nodes, each with a Chassis in Southbound so that ports bind there.
    """

    def __init__(self, directory: Path, hosts: Sequence[str]) -> None:
        self.directory = directory
        self.hosts = tuple(hosts)
        self.mariadb_port, self.neutron_port, self.placement_port = free_port(), free_port(), free_port()
        self.nb = Server(directory / "nb", db="OVN_Northbound")
        self.sb = Server(directory / "sb", db="OVN_Southbound")
        self.northd = Daemon(
            directory, "ovn-northd", f"--ovnnb-db=unix:{self.nb.socket}", f"--ovnsb-db=unix:{self.sb.socket}"
        )
        self._processes: dict[str, _Process] = {}

    @property
    def neutron(self) -> str:
        return f"http://127.0.0.1:{self.neutron_port}/v2.0"

    @property
    def placement(self) -> str:
        return f"http://127.0.0.1:{self.placement_port}"

    def database(self, name: str, user: str = "lab", password: str = "lab") -> str:  # noqa: S107  # opens nothing
        return f"mysql+pymysql://{user}:{password}@127.0.0.1:{self.mariadb_port}/{name}?charset=utf8"

    @property
    def nova_reader(self) -> str:
        """The URL that an exporter is given: may read, and nothing else."""
        return f"mysql+pymysql://reader:r3ader@127.0.0.1:{self.mariadb_port}/nova_cell1"

    @property
    def nova_sqlite(self) -> str:
        """A second cell, in a file."""
        return f"sqlite:///{self.directory}/cell2.sqlite"

    def __enter__(self) -> Self:
        try:
            self.start_mariadb()
            for daemon in (self.nb, self.sb, self.northd):
                daemon.start()
            for number, host in enumerate(self.hosts, 1):
                self._add_chassis(host, number)
            self._configure()
            made = [self._make_tables(*of) for of in _TABLES]
            self.start_placement()
            for process in made:
                if process.popen.wait(_MAKE_SECONDS) != 0:
                    process.check()
            self.start_neutron()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes.values()):
            process.end()
        for daemon in (self.northd, self.sb, self.nb):
            daemon.kill()

    # What a test may stop and start again.

    def start_mariadb(self) -> None:
        data = self.directory / "mariadb"
        new = not data.exists()
        if new:
            run("mariadb-install-db", "--no-defaults", f"--datadir={data}", "--skip-test-db",
                "--auth-root-authentication-method=normal", f"--user={_user()}")  # fmt: skip
        self._start(
            "mariadb",
            ["mariadbd", *_MARIADB, f"--datadir={data}", f"--socket={self.directory}/sql.sock", f"--user={_user()}",
             f"--port={self.mariadb_port}", f"--pid-file={self.directory}/sql.pid"],
        )  # fmt: skip
        wait_until(lambda: self._up("mariadb", self._sql_answers), _START_SECONDS, "MariaDB answers")
        if new:
            for name in ("neutron", "nova_cell1", "placement"):
                self.sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb3")
            self.sql("CREATE USER lab@'127.0.0.1' IDENTIFIED BY 'lab'")
            self.sql("GRANT ALL ON *.* TO lab@'127.0.0.1'")
            self.sql("CREATE USER reader@'127.0.0.1' IDENTIFIED BY 'r3ader'")
            self.sql("GRANT SELECT ON nova_cell1.* TO reader@'127.0.0.1'")

    def start_placement(self) -> None:
        environment = {"OS_PLACEMENT_CONFIG_DIR": str(self.directory)}
        self._start("placement", [PYTHON, "-c", _PLACEMENT_SERVER, str(self.placement_port)], environment)
        wait_until(lambda: self._up("placement", lambda: _answers(self.placement)), _START_SECONDS, "Placement answers")

    def start_neutron(self) -> None:
        self._start("neutron", _main("neutron.cmd.eventlet.server", "--config-file", "neutron.conf"))
        wait_until(
            lambda: self._up("neutron", lambda: _answers(f"{self.neutron}/ports")), _START_SECONDS, "Neutron answers"
        )
        # Its maintenance worker makes it a little later, and no port can be made before.
        wait_until(lambda: "neutron_pg_drop" in self.nb.dump("Port_Group"), _START_SECONDS, "Neutron has set NB up")

    def stop(self, name: str) -> None:
        """End ``mariadb``, ``placement`` or ``neutron``."""
        self._processes.pop(name).end()

    def suspend(self, name: str) -> None:
        os.killpg(self._processes[name].popen.pid, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        os.killpg(self._processes[name].popen.pid, signal.SIGCONT)

    # What an operator, Nova or a user does.

    def sql(self, statement: str, database: str = "") -> list[list[str]]:
        """Rows, as text."""
        out = run("mariadb", "--no-defaults", f"--socket={self.directory}/sql.sock", "--user=root", "--batch",
                  "--skip-column-names", "--execute", statement, *([database] if database else []))  # fmt: skip
        return [line.split("\t") for line in out.splitlines()]

    def create_network(self, name: str = "net") -> str:
        network: str = self.ask("POST", f"{self.neutron}/networks", {"network": {"name": name, "tenant_id": "t"}})[
            "network"
        ]["id"]
        return network

    def create_port(self, network: str, host: str, address: str, instance: str, vnic: str = "direct") -> str:
        """A port as Nova binds it to an instance's VF."""
        profile = {"pci_slot": address, "pci_vendor_info": "15b3:101e", "physical_network": "physnet2",
                   "capabilities": ["switchdev"]}  # fmt: skip
        wanted = {
            "network_id": network,
            "tenant_id": "t",
            "binding:vnic_type": vnic,
            "binding:profile": profile,
            "binding:host_id": host,
            "device_id": instance,
            "device_owner": "compute:nova",
        }
        port: str = self.ask("POST", f"{self.neutron}/ports", {"port": wanted})["port"]["id"]
        return port

    def update_port(self, port: str, **changes: Any) -> None:
        self.ask("PUT", f"{self.neutron}/ports/{port}", {"port": changes})

    def delete_port(self, port: str) -> None:
        self.ask("DELETE", f"{self.neutron}/ports/{port}")

    def create_provider(self, name: str, total: int, *, parent: str | None = None, resource: str | None = None) -> str:
        """A resource provider; with a resource class it has an inventory of it and the trait of Nova's PCI devices."""
        made = str(uuid.uuid4())
        self.place("POST", "/resource_providers", {"uuid": made, "name": name, "parent_provider_uuid": parent})
        if resource is not None:
            if resource.startswith("CUSTOM_"):
                self.place("PUT", f"/resource_classes/{resource}")
            inventory = {resource: {"total": total, "max_unit": total}}
            self.place("PUT", f"/resource_providers/{made}/inventories",
                       {"resource_provider_generation": 0, "inventories": inventory})  # fmt: skip
            self.place("PUT", f"/resource_providers/{made}/traits",
                       {"resource_provider_generation": 1, "traits": ["COMPUTE_MANAGED_PCI_DEVICE"]})  # fmt: skip
        return made

    def allocate(self, consumer: str, provider: str, resource: str, amount: int = 1) -> None:
        given = {"allocations": {provider: {"resources": {resource: amount}}}, "project_id": "p", "user_id": "u",
                 "consumer_generation": None, "consumer_type": "INSTANCE"}  # fmt: skip
        self.place("PUT", f"/allocations/{consumer}", given)

    def place(self, method: str, path: str, body: Any = None) -> Any:
        return self.ask(method, f"{self.placement}{path}", body, {"OpenStack-API-Version": "placement 1.38"})

    def ask(self, method: str, url: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """The JSON that an API answers.

        Raises:
            LabError: with what it says.
        """
        data = json.dumps(body).encode() if body is not None else None
        given = {"Content-Type": "application/json", "X-Auth-Token": "admin", **(headers or {})}
        request = urllib.request.Request(url, data, given, method=method)  # noqa: S310  # ours, on loopback
        try:
            with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310  # as above
                text = response.read()
        except urllib.error.HTTPError as error:
            raise LabError(f"{method} {url}: {error.code} {error.read().decode()}") from None
        return json.loads(text) if text else None

    def clouds(self) -> Path:
        """clouds.yaml with the cloud ``lab``."""
        cloud = {
            "auth_type": "admin_token",
            "auth": {"endpoint": self.placement, "token": "admin"},
            "network_endpoint_override": self.neutron,
            "placement_endpoint_override": self.placement,
        }
        path = self.directory / "clouds.yaml"
        path.write_text(json.dumps({"clouds": {"lab": cloud}}))
        return path

    # Inside.

    def _configure(self) -> None:
        (self.directory / "neutron.conf").write_text(
            _NEUTRON.format(
                port=self.neutron_port,
                directory=self.directory,
                paste=self.directory / "api-paste.ini",
                database=self.database("neutron"),
                nb=self.nb.socket,
                sb=self.sb.socket,
            )
        )
        (self.directory / "api-paste.ini").write_text(_PASTE)
        (self.directory / "policy.yaml").write_text("{}\n")
        (self.directory / "placement.conf").write_text(_PLACEMENT.format(database=self.database("placement")))
        for file, database in (("nova.conf", self.database("nova_cell1")), ("nova-sqlite.conf", self.nova_sqlite)):
            (self.directory / file).write_text(_NOVA.format(directory=self.directory, database=database))

    def _add_chassis(self, host: str, number: int) -> None:
        name = str(uuid.uuid5(uuid.NAMESPACE_DNS, host))
        sbctl = ("ovn-sbctl", "--timeout=10", f"--db=unix:{self.sb.socket}")
        run(*sbctl, "chassis-add", name, "geneve", f"192.0.2.{number}")
        run(*sbctl, "set", "Chassis", name, f"hostname={host}", "other_config:ovn-bridge-mappings=physnet2:br-ex")
        run(*sbctl, "--", "--id=@p", "create", "Chassis_Private", f"name={name}", f"chassis={_row(sbctl, name)}")

    def _make_tables(self, name: str, module: str, config: str, *arguments: str) -> _Process:
        return self._start(name, _main(module, "--config-file", config, *arguments))

    def _start(self, name: str, command: list[str], environment: dict[str, str] | None = None) -> _Process:
        log = self.directory / f"{name}.log"
        given = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        given |= {"PATH": f"/usr/sbin:/usr/bin:/sbin:/bin:{given.get('PATH', '')}", **(environment or {})}
        with log.open("ab") as out:
            popen = subprocess.Popen(command, cwd=self.directory, env=given, stdin=subprocess.DEVNULL, stdout=out,
                                     stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
        self._processes[name] = _Process(name, log, popen)
        return self._processes[name]

    def _up(self, name: str, answers: Callable[[], bool]) -> bool:
        self._processes[name].check()
        return answers()

    def _sql_answers(self) -> bool:
        try:
            return bool(self.sql("SELECT 1"))
        except AssertionError:
            return False


def _row(sbctl: tuple[str, ...], name: str) -> str:
    return run(*sbctl, "--bare", "--columns=_uuid", "find", "Chassis", f"name={name}").strip()


def _main(module: str, *arguments: str) -> list[str]:
    """A console script of a package that comes without them."""
    return [PYTHON, "-c", f"import sys; from {module} import main; sys.exit(main())", *arguments]


def _answers(url: str) -> bool:
    request = urllib.request.Request(url, headers={"X-Auth-Token": "admin"})  # noqa: S310  # ours, on loopback
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310  # as above
            return bool(response.status == 200)
    except OSError:
        return False


def _user() -> str:
    return "root" if os.geteuid() == 0 else str(os.getuid())
