"""The processes of an OpenStack of the lab: MariaDB, Keystone, Placement, Neutron; each has a port of 127.0.0.1."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.lab import openstack_config as config
from tests.lab.monitoring import Service, get
from tests.lab.site import SETTLE_TIMEOUT, LabError, gone, run
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.lab.openstack import OpenStack

SERVE = Path(__file__).with_name("openstack_serve.py")
TOKEN = "admin"  # noqa: S105  # what Placement's noauth2 takes for an administrator's
ASK_TIMEOUT = 60  # seconds


class ApiError(LabError):
    """An API said no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def ask(method: str, url: str, body: object = None, **headers: str) -> Any:
    """The JSON that an API answers, None if it answers nothing; ApiError with its own words."""
    data = None if body is None else json.dumps(body).encode()
    given = {"Content-Type": "application/json", "X-Auth-Token": TOKEN} | headers
    request = urllib.request.Request(url, data, given, method=method)  # noqa: S310  # our own http addresses
    try:
        with urllib.request.urlopen(request, timeout=ASK_TIMEOUT) as response:  # noqa: S310  # as above
            text = response.read()
    except urllib.error.HTTPError as error:
        raise ApiError(error.code, f"{method} {url}: {error.code} {error.read().decode()}") from None
    return json.loads(text) if text else None


class Process(Service):
    """With all its workers; killed unless asked otherwise: nothing of a lab is kept."""

    patience = 60  # seconds: Neutron's own start takes ten on a busy machine

    def __init__(self, cloud: OpenStack, name: str) -> None:
        super().__init__(cloud, name)
        self.cloud = cloud

    def stop(self, number: signal.Signals = signal.SIGKILL) -> int:
        if self.process is None:
            raise LabError(f"{self.name} was not started")
        workers = self.pids()
        self._signal(number)
        self._signal(signal.SIGCONT)
        status = self.process.wait(SETTLE_TIMEOUT)
        if number == signal.SIGKILL:
            wait_until(lambda: all(map(_ended, workers)), SETTLE_TIMEOUT, f"the workers of {self.name} end")
        return status

    def end(self) -> None:
        """Whatever state it is in."""
        if self.process is not None:
            self.stop()

    def suspend(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def pids(self) -> list[int]:
        """Its own and its workers'."""
        assert self.process is not None, f"{self.name} was not started"
        return [int(pid) for pid in run("ps", "-o", "pid=", "-s", str(self.process.pid), check=False).split()]

    def resident(self) -> int:
        """Bytes of memory of all of them; pages that they share count in each."""
        lines = run("ps", "-o", "rss=", "-p", ",".join(map(str, self.pids()))).split()
        return sum(map(int, lines)) * 1024

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None, f"{self.name} was not started"
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return  # it has ended by itself


class MariaDb(Process):
    def __init__(self, cloud: OpenStack) -> None:
        super().__init__(cloud, "mariadb")
        self.data = cloud.dir / "mariadb"
        self.socket = cloud.dir / "mariadb.sock"

    def create(self) -> None:
        run("mariadb-install-db", "--no-defaults", f"--datadir={self.data}", "--skip-test-db", "--user=root",
            "--auth-root-authentication-method=normal", "--innodb-log-file-size=8M")  # fmt: skip

    def command(self) -> list[str | Path]:
        return ["mariadbd", *config.MARIADB, f"--datadir={self.data}", f"--socket={self.socket}", "--user=root",
                f"--port={self.port}", f"--pid-file={self.cloud.dir}/mariadb.pid"]  # fmt: skip

    def ready(self) -> bool:
        return bool(self._client("SELECT 1", check=False))

    def sql(self, statement: str, database: str = "") -> list[list[str]]:
        """What an administrator asks of it, on its socket; rows as text, a NULL as 'NULL'."""
        return [line.split("\t") for line in self._client(statement, database).splitlines()]

    def _client(self, statement: str, database: str = "", *, check: bool = True) -> str:
        options = ("--no-defaults", f"--socket={self.socket}", "--user=root", "--batch", "--raw",
                   "--skip-column-names")  # fmt: skip
        return run("mariadb", *options, "--execute", statement, *([database] if database else []), check=check)


class Keystone(Process):
    """Its tokens last for `seconds`; the only user is admin, whose password is admin, but for those that are added."""

    def __init__(self, cloud: OpenStack, seconds: int) -> None:
        super().__init__(cloud, "keystone")
        self.seconds = seconds
        self.api = f"{self.url}/v3"
        self.keys = cloud.dir / "keystone"

    def command(self) -> list[str | Path]:
        return ["env", f"OS_KEYSTONE_CONFIG_DIR={self.cloud.dir}", self.cloud.release.python, SERVE, "keystone",
                str(self.port)]  # fmt: skip

    def ready(self) -> bool:
        return get(self.api) is not None

    def manage(self, *arguments: str | Path) -> list[str | Path]:
        return self.cloud.release.program(
            "keystone.cmd.manage", "--config-file", self.cloud.dir / "keystone.conf", *arguments
        )

    def create(self) -> None:
        """Its keys; its tables are made with the others'."""
        for keys in ("fernet", "credential"):
            (self.keys / keys).mkdir(parents=True)
            command = self.manage(f"{keys}_setup", "--keystone-user", "root", "--keystone-group", "root")
            run(*command, env=self.cloud.env)

    def bootstrap(self) -> None:
        endpoints = [f"--bootstrap-{interface}-url={self.api}/" for interface in ("admin", "internal", "public")]
        options = ("--bootstrap-password=admin", "--bootstrap-region-id=RegionOne", *endpoints)
        run(*self.manage("bootstrap", *options), env=self.cloud.env)

    def register(self, kind: str, url: str) -> None:
        """An entry of the catalogue."""
        token = self.token()
        service = ask("POST", f"{self.api}/services", {"service": {"type": kind, "name": kind}}, **token)["service"]
        endpoint = {"service_id": service["id"], "interface": "public", "url": url, "region_id": "RegionOne"}
        ask("POST", f"{self.api}/endpoints", {"endpoint": endpoint}, **token)

    def add_user(self, name: str, *roles: str) -> None:
        """One more account, whose password and only project are called as itself, with these roles there."""
        token = self.token()
        project = ask("POST", f"{self.api}/projects", {"project": {"name": name}}, **token)["project"]["id"]
        account = {"user": {"name": name, "password": name}}
        user = ask("POST", f"{self.api}/users", account, **token)["user"]["id"]
        for role in roles:
            found = ask("GET", f"{self.api}/roles?name={role}", **token)["roles"][0]["id"]
            ask("PUT", f"{self.api}/projects/{project}/users/{user}/roles/{found}", **token)

    def token(self) -> dict[str, str]:
        """A new token of the administrator, as the header that carries it."""
        domain = {"id": "default"}
        password = {"user": {"name": "admin", "password": "admin", "domain": domain}}
        wanted = {
            "identity": {"methods": ["password"], "password": password},
            "scope": {"project": {"name": "admin", "domain": domain}},
        }
        request = urllib.request.Request(  # noqa: S310  # our own http address
            f"{self.api}/auth/tokens", json.dumps({"auth": wanted}).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=ASK_TIMEOUT) as response:  # noqa: S310  # as above
            return {"X-Auth-Token": response.headers["X-Subject-Token"]}

    def revoke(self, token: str) -> None:
        ask("DELETE", f"{self.api}/auth/tokens", **self.token(), **{"X-Subject-Token": token})


class Placement(Process):
    def __init__(self, cloud: OpenStack) -> None:
        super().__init__(cloud, "placement")

    def command(self) -> list[str | Path]:
        return ["env", f"OS_PLACEMENT_CONFIG_DIR={self.cloud.dir}", self.cloud.release.python, SERVE, "placement",
                str(self.port)]  # fmt: skip

    def ready(self) -> bool:
        return get(self.url) is not None


class Neutron(Process):
    def __init__(self, cloud: OpenStack, *, maintenance: bool) -> None:
        super().__init__(cloud, "neutron")
        self.api = f"{self.url}/v2.0"
        self._options = [] if maintenance else ["--no-maintenance"]

    def command(self) -> list[str | Path]:
        directory = self.cloud.dir
        return ["env", f"OS_NEUTRON_CONFIG_DIR={directory}", "OS_NEUTRON_CONFIG_FILES=neutron.conf",
                self.cloud.release.python, SERVE, "neutron", str(self.port), *self._options]  # fmt: skip

    def ready(self) -> bool:
        try:
            ask("GET", f"{self.api}/networks?limit=1")
        except ApiError as error:
            return error.status == HTTPStatus.UNAUTHORIZED  # with Keystone it knows us not, and has asked it
        except OSError:
            return False
        return True


class NeutronMaintenance(Process):
    """Of recent releases, where it is a program of its own; in older ones the server has it."""

    def __init__(self, cloud: OpenStack) -> None:
        super().__init__(cloud, "neutron-maintenance")

    def command(self) -> list[str | Path]:
        return self.cloud.release.program(
            "neutron.cmd.server", "--config-file", self.cloud.dir / "neutron.conf", main="main_ovn_maintenance"
        )

    def ready(self) -> bool:
        return "Maintenance task thread has started" in self.log.read_text()


def _ended(pid: int) -> bool:
    """Dead; a worker whose parent is dead too may stay a zombie for good, where no one adopts it."""
    if gone(pid):
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
