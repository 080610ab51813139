"""A compute node's exporter beside a real OpenStack: its NIC is a machine of files, or a guest's (tests/hwlab)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Self

import yaml

from tests.lab.monitoring import get
from tests.lab.site import LabError
from tests.ports import free_port
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.lab.openstack import OpenStack

_READY_SECONDS = 60


class VfExporter:
    """``mecexporter run`` with the ledgers of an OpenStack; ``sections`` go before the lab's own."""

    def __init__(
        self, lab: OpenStack, directory: Path, roles: tuple[str, ...] = ("compute", "api"), **sections: Any
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.openstack, self.directory = lab, directory
        self.config = directory / "mecexporter.yaml"
        self.log = directory / "exporter.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        missing = str(directory / "nothing")
        base: dict[str, Mapping[str, object]] = {
            "web": {"local_socket": str(directory / "api.sock"), "listen": f"127.0.0.1:{self.port}"},
            "intervals": {"live": "1s", "openstack": "1s"},
            "ovs": {"database": f"unix:{missing}/db.sock", "run_dir": missing},
            "ovn": {"run_dir": missing},
            "host": {"state_dir": str(directory)},
            "openstack": {"cloud": "lab"},
            "nova": {"cells": {"cell1": lab.nova_reader}},
            "grace": {"vf_drift": "1s"},
        }
        given = {name: {**base.get(name, {}), **sections.get(name, {})} for name in base | sections}
        self.settings: dict[str, Any] = {"roles": list(roles), **given}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.config.write_text(yaml.safe_dump(self.settings))
        environment = os.environ | {"OS_CLIENT_CONFIG_FILE": str(self.openstack.clouds())}
        command = [sys.executable, "-m", "mecexporter", "run", "--config", str(self.config)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_until(self._ready, _READY_SECONDS, f"the exporter is ready; its log: {self.log}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(20)

    def _ready(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise LabError(f"the exporter ended:\n{self.log.read_text()[-2000:]}")
        return get(f"{self.url}/readyz") is not None

    def metrics(self) -> str:
        page = get(f"{self.url}/metrics")
        assert page is not None, "the exporter answers"
        return page

    def series(self, name: str) -> dict[str, float]:
        """The labels as printed -> value, of one metric."""
        wanted = (line for line in self.metrics().splitlines() if line.startswith((f"{name}{{", f"{name} ")))
        lines = (line.rpartition(" ") for line in wanted)
        return {labels.removeprefix(name): float(value) for labels, _, value in lines}

    def value(self, metric: str, **labels: str) -> float | None:
        """The value of one series, None if it is not there."""
        wanted = ",".join(f'{name}="{labels[name]}"' for name in sorted(labels))
        return self.series(metric).get(f"{{{wanted}}}")

    def report(self) -> dict[str, Any]:
        page = get(f"{self.url}/api/v1/findings")
        assert page is not None, "the exporter answers"
        found: dict[str, Any] = json.loads(page)
        return found

    def found(self) -> dict[str, set[str]]:
        """VF check -> addresses of its findings."""
        out: dict[str, set[str]] = {}
        for finding in self.report()["findings"]:
            if finding["check"].startswith("vf_"):
                out.setdefault(finding["check"], set()).add(finding["subject"].partition("/")[2])
        return out

    def unknown(self) -> dict[str, set[str]]:
        """VF check -> the sources that it misses."""
        return {u["check"]: set(u["missing"]) for u in self.report()["unknown"] if u["check"].startswith("vf_")}

    def reads(self, source: str) -> float:
        """How long ago it last answered, as a time that grows with each read."""
        return self.value("mecexporter_source_last_success_timestamp_seconds", source=source) or 0.0
