"""What it costs to watch 3,000 chassis that follow nb_cfg: the exporter, Southbound's server, and Prometheus' rules.

Chassis are rows in a real Southbound, and a script answers for them: it raises Northbound's number once a second, as
Neutron does, and a moment later Southbound's and that of every chassis. No northd and no ovn-controller runs, so what
the server spends is on our questions and on those updates.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Self

import yaml

from mecexporter.state.ovn_db import Database
from tests.bench.audit import fill, insert, southbound
from tests.bench.measure import Row, cpu_seconds, memory
from tests.lab.monitoring import RULES, Alertmanager, Prometheus, Receiver, SiteExporter
from tests.lab.site import OVN_SHARE, Site, run
from tests.lab.site import Database as Side
from tests.sources.daemons import run as tool
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

SB = str(Database.SOUTHBOUND)
FILLED = 120
GROUP = "mec-propagation"


class Southbound(Site):
    """A site's databases alone, with rows for chassis and gateways."""

    def __init__(self, chassis: int, ports: int, gateways: int) -> None:
        super().__init__(vms=False)
        self.nodes = {}
        self._size = (chassis, ports, gateways)

    def _start(self) -> None:
        sides: tuple[Side, ...] = ("nb", "sb")
        for side in sides:
            run("ovsdb-tool", "create", self.dir / f"{side}.db", OVN_SHARE / f"ovn-{side}.ovsschema")
            self.start_database(side)
        self.nbctl("init")
        number, ports, gateways = self._size
        socket = self.dir / "sb.sock"
        asyncio.run(fill(socket, Database.SOUTHBOUND, southbound(number)))
        uuids = self.sbctl("--bare", "--columns=_uuid", "list", "Chassis").split()
        asyncio.run(fill(socket, Database.SOUTHBOUND, bindings(ports, gateways, uuids)))

    def pid(self, database: str) -> int:
        return int((self.dir / f"{database}.pid").read_text())


def bindings(ports: int, gateways: int, chassis: list[str]) -> Iterator[list[dict[str, Any]]]:
    """The first ones are gateways, each with a group of three candidates."""
    batch = 500
    for first in range(0, ports, batch):
        ops = [insert("Datapath_Binding", "d", {"tunnel_key": 1 + first // batch})]
        for n in range(first, min(first + batch, ports)):
            at = chassis[n % len(chassis)]
            row: dict[str, Any] = {
                "logical_port": f"{'cr-lrp' if n < gateways else 'port'}-{n}",
                "datapath": ["named-uuid", "d"],
                "tunnel_key": n % batch + 1,
                "chassis": ["uuid", at],
            }
            if n < gateways:
                members = []
                for priority in range(3):
                    member = {"chassis": ["uuid", chassis[(n + priority) % len(chassis)]], "priority": 3 - priority}
                    members.append(["named-uuid", f"h{n}_{priority}"])
                    ops.append(insert("HA_Chassis", f"h{n}_{priority}", member))
                ops.append(insert("HA_Chassis_Group", f"g{n}", {"name": f"g{n}", "ha_chassis": ["set", members]}))
                row |= {"type": "chassisredirect", "ha_chassis_group": ["named-uuid", f"g{n}"]}
            ops.append(insert("Port_Binding", f"b{n}", row))
        yield ops


class Answering:
    """Raises the number, and answers it for every chassis."""

    def __init__(self, site: Southbound, every: float = 1.0) -> None:
        self.bumps = 0
        self._site, self._every = site, every
        self._over = Event()
        self._thread = Thread(target=self._go, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _go(self) -> None:
        number = 7
        while not self._over.wait(self._every):
            number += 1
            self._write("nb", "OVN_Northbound", ("NB_Global", number))
            self._write("sb", SB, ("SB_Global", number))
            self._write("sb", SB, ("Chassis_Private", number))
            self.bumps += 1

    def _write(self, database: str, name: str, *updates: tuple[str, int]) -> None:
        stamp = {"nb_cfg_timestamp": int(time.time() * 1000)}
        ops = [
            {"op": "update", "table": t, "where": [], "row": {"nb_cfg": n} | ({} if t == "SB_Global" else stamp)}
            for t, n in updates
        ]
        tool("ovsdb-client", "--timeout=10", "transact", f"unix:{self._site.dir}/{database}.sock",
             json.dumps([name, *ops]))  # fmt: skip


_PACE = 60
"""Seconds between two evaluations of a group, at most, where it says nothing else."""


def on_chassis(chassis: int = 3_000, ports: int = 100_000, gateways: int = 1_000, seconds: float = 60) -> list[Row]:
    """At default intervals."""
    size = f"{chassis:,} chassis, {ports:,} ports, {gateways:,} gateways; a bump a second that all follow"
    with Southbound(chassis, ports, gateways) as site, Answering(site) as answering, contextlib.ExitStack() as stack:
        pid = site.pid("sb")
        wait_until(lambda: answering.bumps > 1, FILLED, "bumps")
        without, bumps_without = _spent(pid, answering, seconds)
        exporter = stack.enter_context(SiteExporter(site))
        assert exporter.process is not None
        wait_until(lambda: "mec_ovn_chassis_nb_cfg{" in exporter.metrics(), FILLED, "all has been read")
        receiver = stack.enter_context(Receiver())
        alertmanager = stack.enter_context(Alertmanager(site, receiver))
        prometheus = stack.enter_context(Prometheus(site, [exporter], alertmanager, interval=15))
        own = cpu_seconds(exporter.process.pid)
        spent, bumps = _spent(pid, answering, seconds)
        own = cpu_seconds(exporter.process.pid) - own
        page = exporter.metrics()
        series = sum(not line.startswith("#") for line in page.splitlines())
        of_chassis = len(re.findall(r"^mec_ovn_(?:chassis|gateway)_", page, re.MULTILINE))
        took = rule_times(prometheus)
        found = exporter.findings()
        assert not found["findings"], found
        assert not {u["check"] for u in found["unknown"]}, found
        resident = memory(exporter.process.pid, "VmRSS")
    updates = without / max(1, bumps_without) * bumps
    return [
        Row("central, CPU", f"{100 * own / seconds:.2f} %", "2 %, goal 1 %",
            f"{seconds:g} s, scraped each 15 s; {size}"),
        Row("central, RSS", f"{resident / 2**20:.0f} MiB", "112 MiB", "VmRSS"),
        Row("central, SB server's CPU for us", f"{100 * (spent - updates) / seconds:.2f} %", "",
            f"with {100 * spent / seconds:.1f} %, without {100 * updates / seconds:.1f} % (the bumps)"),
        Row("central, series", f"{series:,}", "", f"{of_chassis:,} of them of chassis and gateways"),
        Row("central, rules of propagation", f"{1e3 * max(took[GROUP]):.1f} ms", "100 ms",
            f"longest evaluation of {len(took[GROUP])}, in a real Prometheus"),
        Row("central, all rules", f"{1e3 * sum(max(of) for of in took.values()):.0f} ms", "",
            "the longest of each group"),
    ]  # fmt: skip


def rule_times(prometheus: Prometheus, rounds: int = 3) -> dict[str, list[float]]:
    """Group -> seconds that its last evaluations took: so many, one of a group that has a slower pace of its own."""
    names = [
        group["name"] for path in RULES.glob("*.rules.yaml") for group in yaml.safe_load(path.read_text())["groups"]
    ]
    took: dict[str, list[float]] = {name: [] for name in names}
    seen: dict[str, str] = {}
    needed = dict.fromkeys(names, rounds)

    def enough() -> bool:
        for group in prometheus.rules():
            if group["interval"] > _PACE:
                needed[group["name"]] = 1
            if seen.get(group["name"]) != group["lastEvaluation"] and group["evaluationTime"]:
                seen[group["name"]] = group["lastEvaluation"]
                took[group["name"]].append(group["evaluationTime"])
        return all(len(of) >= needed[name] for name, of in took.items())

    wait_until(enough, 420, "the rules are evaluated")
    return took


def _spent(pid: int, answering: Answering, seconds: float) -> tuple[float, int]:
    """CPU of the server, and bumps, in that time."""
    before, bumps = cpu_seconds(pid), answering.bumps
    Event().wait(seconds)
    return cpu_seconds(pid) - before, answering.bumps - bumps
