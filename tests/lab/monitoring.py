"""What watches a lab: an exporter on each node, Prometheus, Alertmanager, and a receiver of its notifications."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import yaml

from tests.lab.site import CALL_TIMEOUT, PROGRAMS, SETTLE_TIMEOUT, LabError, environment
from tests.ports import free_port
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.lab.site import Node, Site

RULES = Path(__file__).parents[2] / "alerts"
ALERTMANAGERS = ("alertmanager", "prometheus-alertmanager")  # upstream's name and Debian's
PROGRAMS_WITH_MONITORING = PROGRAMS | {"prometheus": "prometheus"}


def get(url: str) -> str | None:
    """The body of a page; None if nobody answers or not with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own http addresses
            body: bytes = answer.read()
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None
    return body.decode()


class Service:
    """A process of the lab that serves HTTP on a port of 127.0.0.1 and stays in the foreground."""

    patience: float = SETTLE_TIMEOUT  # seconds until it is ready

    def __init__(self, site: Site, name: str) -> None:
        self.site, self.name = site, name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = site.dir / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str | Path]:
        raise NotImplementedError

    def ready(self) -> bool:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts it and waits until it is ready; LabError with its last words if it ends instead."""
        self.launch()
        self.await_ready()

    def launch(self) -> None:
        self.process = self.site.spawn(*self.command(), log=self.log)

    def await_ready(self) -> None:
        process = self.process
        assert process is not None
        try:
            wait_until(lambda: process.poll() is not None or self.ready(), self.patience, f"{self.name} is ready")
        except BaseException:
            self.stop(signal.SIGKILL)
            raise
        if process.poll() is not None:
            words = self.log.read_text(errors="replace").strip().splitlines()[-5:]
            raise LabError(f"{self.name} ended with {process.returncode}: {' / '.join(words)}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends it and returns its exit status."""
        if self.process is None:
            raise LabError(f"{self.name} was not started")
        self.process.send_signal(number)
        return self.process.wait(SETTLE_TIMEOUT)


class Scraped(Service):
    """An exporter, as Prometheus and people find it.

    config: its file. instance: the host's name. address: host:port of its listener.
    """

    config: Path
    instance: str

    @property
    def address(self) -> str:
        return self.url.removeprefix("http://")


E = TypeVar("E", bound=Scraped)


class Exporter(Scraped):
    """The exporter of one node, outside its namespace: all that it asks are Unix sockets, files and /proc."""

    def __init__(self, node: Node, **sections: Mapping[str, object]) -> None:
        """`sections` of the configuration: what they set goes before the lab's own paths and the defaults."""
        super().__init__(node.site, f"exporter-{node.name}")
        self.node = node
        self.instance = node.hostname
        self.roles: str | list[str] = "auto"
        self.config = node.dir / "mecexporter.yaml"
        paths: dict[str, dict[str, object]] = {
            "web": {"local_socket": str(node.dir / "api.sock")},
            "ovs": {
                "database": node.database,
                "run_dir": str(node.ovs_run),
                "system_id_file": str(node.system_id_file),
                "system_id_override_file": str(node.system_id_override_file),
            },
            "ovn": {"run_dir": str(node.ovn_run)},
            "host": {"state_dir": str(node.dir / "state"), "hostname": None},
        }
        self.settings = {name: paths.get(name, {}) | dict(sections.get(name, {})) for name in paths | sections}

    def command(self) -> list[str | Path]:
        (self.config.parent / "state").mkdir(parents=True, exist_ok=True)
        self.config.write_text(yaml.safe_dump({"roles": self.roles} | self.settings, sort_keys=False))
        return [sys.executable, "-m", "mecexporter", "run", "--config", self.config,
                "--listen", f"127.0.0.1:{self.port}"]  # fmt: skip

    def ready(self) -> bool:
        return get(f"{self.url}/readyz") is not None

    def metrics(self) -> str:
        page = get(f"{self.url}/metrics")
        if page is None:
            raise LabError(f"{self.name} does not answer")
        return page

    def findings(self) -> dict[str, Any]:
        """/api/v1/findings."""
        page = get(f"{self.url}/api/v1/findings")
        if page is None:
            raise LabError(f"{self.name} does not answer")
        found: dict[str, Any] = json.loads(page)
        return found

    def found(self) -> set[str]:
        """The checks that have findings now."""
        return {finding["check"] for finding in self.findings()["findings"]}

    def check(self, *options: str) -> subprocess.CompletedProcess[str]:
        """`mecexporter check`, as an operator runs it on the host."""
        return subprocess.run(
            [sys.executable, "-m", "mecexporter", "check", "--config", self.config, *options],
            env=self.site.env, cwd=RULES.parent, capture_output=True, text=True, timeout=2 * CALL_TIMEOUT, check=False,
        )  # fmt: skip


class SiteExporter(Exporter):
    """The exporter of the host of a site's databases and northd, which is no compute node."""

    def __init__(self, site: Site, **sections: Mapping[str, object]) -> None:
        """`sections` as of a node's."""
        Scraped.__init__(self, site, "exporter-central")
        self.instance = "central"
        self.roles = ["central"]
        directory = site.dir / "central"
        self.config = directory / "mecexporter.yaml"
        databases = {
            section: {"database": f"unix:{site.dir}/{db}.sock", "control": str(site.dir / f"{db}.ctl")}
            for section, db in (("northbound", "nb"), ("southbound", "sb"))
        }
        paths: dict[str, dict[str, object]] = {
            "web": {"local_socket": str(directory / "api.sock")},
            "ovs": {"database": f"unix:{directory}/db.sock", "run_dir": str(directory)},
            "ovn": {"run_dir": str(site.dir), "northd_control": str(site.dir / "ovn-northd.ctl"), **databases},
            "host": {"state_dir": str(directory / "state"), "hostname": "central"},
        }
        self.settings = {name: paths.get(name, {}) | dict(sections.get(name, {})) for name in paths | sections}


class Receiver:
    """Takes Alertmanager's notifications and keeps them, newest last."""

    def __init__(self) -> None:
        self.notifications: list[dict[str, Any]] = []
        notifications = self.notifications

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                notifications.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def firing(self) -> set[tuple[str, str]]:
        """(alertname, instance) of each alert whose latest notification said that it fires."""
        latest = {
            (alert["labels"]["alertname"], alert["labels"].get("instance", "")): alert["status"]
            for notification in list(self.notifications)
            for alert in notification["alerts"]
        }
        return {alert for alert, status in latest.items() if status == "firing"}


class Alertmanager(Service):
    """Sends each alert to the receiver within about a second."""

    def __init__(self, site: Site, receiver: Receiver) -> None:
        super().__init__(site, "alertmanager")
        self._receiver = receiver

    def command(self) -> list[str | Path]:
        path = environment("")["PATH"]
        program = next(filter(None, (shutil.which(name, path=path) for name in ALERTMANAGERS)), None)
        if program is None:
            raise LabError("programs are missing; install: apt-get install prometheus-alertmanager")
        config = self.site.dir / "alertmanager.yaml"
        route = {"receiver": "lab", "group_by": ["alertname", "instance"], "group_wait": "1s", "group_interval": "1s"}
        receiver = {"name": "lab", "webhook_configs": [{"url": self._receiver.url, "send_resolved": True}]}
        config.write_text(yaml.safe_dump({"route": route, "receivers": [receiver]}))
        return [program, f"--config.file={config}", f"--storage.path={self.site.dir}/alertmanager",
                f"--web.listen-address=127.0.0.1:{self.port}", "--cluster.listen-address="]  # fmt: skip

    def ready(self) -> bool:
        return get(f"{self.url}/-/ready") is not None


class Prometheus(Service):
    """Scrapes the exporters and evaluates the project's own rules.

    interval: seconds between scrapes and between evaluations. impatient: the rules' `for` and `keep_firing_for` become
    an interval, so that a test sees an alert come and go.
    """

    def __init__(
        self,
        site: Site,
        exporters: Sequence[Scraped],
        alertmanager: Alertmanager,
        *,
        interval: int = 5,
        impatient: bool = False,
    ) -> None:
        super().__init__(site, "prometheus")
        self._exporters, self._alertmanager = exporters, alertmanager
        self._interval, self._impatient = interval, impatient

    def command(self) -> list[str | Path]:
        rules = self.site.dir / "rules"
        rules.mkdir(exist_ok=True)
        for source in RULES.glob("*.rules.yaml"):
            (rules / source.name).write_text(self._rules(source))
        targets = [
            {
                "targets": [exporter.address],
                "labels": {"instance": exporter.instance, "site": self.site.name},
            }
            for exporter in self._exporters
        ]
        config = self.site.dir / "prometheus.yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    "global": {
                        "scrape_interval": f"{self._interval}s",
                        "scrape_timeout": f"{self._interval}s",
                        "evaluation_interval": f"{self._interval}s",
                    },
                    "rule_files": [f"{rules}/*.rules.yaml"],
                    "alerting": {
                        "alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{self._alertmanager.port}"]}]}]
                    },
                    "scrape_configs": [{"job_name": "mecexporter", "static_configs": targets}],
                }
            )
        )
        return ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={self.site.dir}/prometheus",
                f"--web.listen-address=127.0.0.1:{self.port}"]  # fmt: skip

    def _rules(self, source: Path) -> str:
        content = yaml.safe_load(source.read_text())
        if self._impatient:
            for group in content["groups"]:
                for rule in group["rules"]:
                    rule |= {key: f"{self._interval}s" for key in ("for", "keep_firing_for") if key in rule}
        return yaml.safe_dump(content)

    def ready(self) -> bool:
        return get(f"{self.url}/-/ready") is not None

    def alerts_page(self) -> str:
        """The address at which people see its alerts: Debian's package has the classic pages only."""
        pages = (f"{self.url}{path}" for path in ("/alerts", "/classic/alerts"))
        return next((page for page in pages if get(page) is not None), f"{self.url}/api/v1/alerts")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """An instant query; each result has `metric` (labels) and `value` (time, text)."""
        page = get(f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        if page is None:
            raise LabError(f"Prometheus does not answer {expression}")
        result: list[dict[str, Any]] = json.loads(page)["data"]["result"]
        return result

    def rules(self) -> list[dict[str, Any]]:
        """Its groups of rules, each with `name`, `lastEvaluation` and `evaluationTime` (seconds)."""
        page = get(f"{self.url}/api/v1/rules")
        if page is None:
            raise LabError("Prometheus does not tell its rules")
        groups: list[dict[str, Any]] = json.loads(page)["data"]["groups"]
        return groups


class Watch(Generic[E]):
    """Exporters, and what scrapes them and passes their alerts on."""

    def __init__(self, site: Site, exporters: Mapping[str, E], *, interval: int = 5, impatient: bool = False) -> None:
        """`interval` and `impatient` as of Prometheus."""
        self.receiver = Receiver()
        self.exporters = exporters
        self.alertmanager = Alertmanager(site, self.receiver)
        self.prometheus = Prometheus(
            site, list(exporters.values()), self.alertmanager, interval=interval, impatient=impatient
        )
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.receiver)
            services: tuple[Service, ...] = (*self.exporters.values(), self.alertmanager, self.prometheus)
            for service in services:
                stack.enter_context(service)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class Monitoring(Watch[Exporter]):
    """All of it for a site of compute nodes."""

    def __init__(
        self, site: Site, *, interval: int = 5, impatient: bool = False, **sections: Mapping[str, object]
    ) -> None:
        """`interval` and `impatient` as of Prometheus, `sections` as of each exporter."""
        exporters = {name: Exporter(node, **sections) for name, node in site.nodes.items()}
        super().__init__(site, exporters, interval=interval, impatient=impatient)
