"""*VFs: drift and capacity*, drawn from Worlds as the exporter renders them, days of them, out of a real Prometheus."""

from __future__ import annotations

import json
import re
import time
import urllib.parse
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from dashboards import build
from dashboards import virtual_functions as shown
from mecexporter.errors import Reason
from mecexporter.metrics.registry import discover
from mecexporter.metrics.render import Format, Renderer
from mecexporter.state.observed import Fresh
from mecexporter.state.sriov import Held, Links, PfLink, VfLink
from mecexporter.state.world import Role, Settings, SourceStatus
from tests import worlds
from tests.dashview import Drawing, draw
from tests.dashview.page import fetch
from tests.e2e.history import backfill, imported, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mecexporter.state.sriov import Vf
    from mecexporter.state.world import World

# The first drawing on a machine fetches and bundles the page: minutes, once.
pytestmark = pytest.mark.timeout(1200)

DASHBOARD = Path(build.__file__).with_name("virtual-functions.json")
RULES = DASHBOARD.parents[1] / "alerts" / "vf.rules.yaml"
SCHEDULABLE = "pf:mec_vf_schedulable:min"
"""What the dashboard takes from the rules."""
DAYS = 8
STEP = 1800  # seconds between samples; Prometheus looks back as far
DRIFTING = 3 * 3600
"""For how long what is wrong has been wrong; before that all was well."""
SHOWN = re.compile(r"mec_(?:sriov|vf|check|finding)_|mecexporter_(?:source_up|build_info)")
PANELS = json.loads(DASHBOARD.read_text())["panels"]
VFS = 16  # of every host here


def guest(number: int) -> str:
    """The id of an instance."""
    return f"{number:08x}-0000-4000-8000-000000000000"


def function(index: int) -> str:
    """The address of a VF."""
    return f"0000:3b:{2 + index // 8:02x}.{index % 8}"


@dataclass(frozen=True)
class Host:
    """One host in all ledgers: index of a VF -> instance; its first ``agreed`` VFs are everywhere the same."""

    name: str
    agreed: int = 0
    numa: int = 0
    tracked: bool = False
    seen: bool = True
    held: Mapping[int, str] = field(default_factory=dict)
    claims: Mapping[int, str] = field(default_factory=dict)
    ports: Mapping[int, str] = field(default_factory=dict)

    def all(self, some: Mapping[int, str]) -> dict[int, str]:
        return {n: guest(n) for n in range(self.agreed)} | dict(some)

    def vf(self, index: int) -> Vf:
        made = replace(worlds.vf(0), address=function(index), index=index, iommu_group=40 + index)
        holder = self.all(self.held).get(index)
        return replace(made, driver="vfio-pci", held=Held.YES, holder=holder) if holder is not None else made


def node(host: Host) -> World:
    """What its own exporter knows, which has no credentials."""
    base = worlds.healthy_sriov()
    vfs = tuple(host.vf(index) for index in range(VFS))
    # Each VF that a port names is in the integration bridge by its representor.
    vifs = (
        worlds.interface(f"ens1f0npf0vf{n}", iface_id=f"port-{host.name}-{n}") for n in sorted(host.all(host.ports))
    )
    ovs = replace(worlds.healthy_ovs(), interfaces=tuple(vifs))
    macs = {n: VfLink(mac=f"fa:16:3e:00:00:{n:02x}", vlan=None) for n in range(VFS)}
    link = PfLink(driver_version="5.8-1.1.2", firmware_version="22.35.1012", eswitch_mode="switchdev", vfs=macs)
    return replace(
        base,
        hostname=host.name,
        roles=frozenset({Role.COMPUTE}),
        applicable=worlds.COMPUTE_SOURCES | {"sysfs", "links"},
        settings=replace(base.settings, device_mappings={"physnet2": ("ens1f0np0",)}),
        sysfs=Fresh(worlds.nic(*vfs, numa_node=host.numa, capacity=2 * VFS), worlds.READ),
        links=Fresh(Links({worlds.PF: link}), worlds.READ),
        cells={},
        ovs=Fresh(ovs, worlds.READ),
    )


def api(*hosts: Host) -> World:
    """What the exporter knows that reads the records of all hosts."""
    devices, ports, providers = [], [], []
    for host in hosts:
        claims = host.all(host.claims)
        devices += [
            worlds.device(0, claims.get(n), host=host.name, address=function(n), numa_node=host.numa)
            for n in range(VFS)
        ]
        ports += [
            worlds.port(f"port-{host.name}-{n}", 0, owner, host=host.name, address=function(n))
            for n, owner in host.all(host.ports).items()
        ]
        if host.tracked:
            providers.append(worlds.provider(total=VFS, used=len(claims), name=host.name, host=host.name))
    instances = {row.instance: worlds.instance(host=row.host) for row in devices if row.instance}
    cell = worlds.cell(*devices, instances=instances, up={host.name: True for host in hosts})
    sources = frozenset({"host", "neutron", "placement", worlds.CELL1})
    return replace(
        worlds.healthy_sriov(),
        hostname="controller-1",
        settings=Settings(),
        roles=frozenset({Role.API}),
        applicable=sources,
        status={s: SourceStatus(last_success=worlds.READ, duration=0.1, rounds=3) for s in sources},
        neutron=Fresh(tuple(ports), worlds.READ),
        placement=Fresh(tuple(providers), worlds.READ),
        cells={worlds.CELL1: Fresh(cell, worlds.READ)},
    )


GROWTH = (Host("compute-1", agreed=5), Host("compute-2", agreed=2, numa=1, tracked=True))
EXHAUSTED = Host("compute-1", agreed=13, claims={n: guest(n) for n in (13, 14, 15)})
"""Three have leaked, and with them the last that could have been given."""
CROOKED = Host(
    "compute-2",
    agreed=4,
    numa=1,
    # 4: its port was deleted, its guest goes on. 5: a guest of a failed migration.
    held={4: guest(4), 5: guest(5)},
    # 6: given to two.
    claims={4: guest(4), 6: guest(6)},
    ports={6: guest(66)},
)


def portless() -> World:
    """Bob's port was deleted, and his guest goes on; the node has credentials and knows."""
    world = worlds.healthy_sriov()
    return world.with_part("neutron", Fresh((worlds.port("port-a", 0, worlds.ALICE),), worlds.READ))


def from_afar(world: World) -> World:
    """What the exporter of all hosts makes of the same records, without the NIC."""
    sources = frozenset({"neutron", "placement", worlds.CELL1})
    return replace(world, hostname="controller-1", roles=frozenset({Role.API}), applicable=sources)


def sites(age: float) -> dict[str, dict[str, World | None]]:
    """Site -> exporter -> its World so many seconds ago; None: it does not answer."""
    drifting = age < DRIFTING
    days = DAYS - age / 86400
    grown = [replace(host, agreed=host.agreed + int(days)) for host in GROWTH]
    ill = [EXHAUSTED, CROOKED] if drifting else grown
    west = api(*grown)
    if drifting:
        west = worlds.without(west, worlds.CELL1, "2013: lost connection", Reason.REFUSED, ago=DRIFTING)
    lost = {
        "compute-1": worlds.without(node(grown[0]), "sysfs", ago=DRIFTING) if drifting else node(grown[0]),
        "compute-2": None if drifting else node(grown[1]),
        "controller-1": west,
    }
    return {
        "north": {**{host.name: node(host) for host in grown}, "controller-1": api(*grown)},
        "south": {**{host.name: node(host) for host in ill}, "controller-1": api(*ill)},
        "west": lost,
        "edge": {"compute-1": worlds.leaked_vf() if drifting else worlds.healthy_sriov()},
        "twice": {"compute-1": portless(), "controller-1": from_afar(portless())} if drifting else {},
    }


class Samples:
    """The lines of an OpenMetrics file, of Worlds at their times."""

    def __init__(self, now: float) -> None:
        self.lines: list[str] = []
        self._now = now
        self._rendered: dict[tuple[int, bool], list[tuple[str, str]]] = {}

    def add(self, age: float) -> None:
        """All sites, so many seconds ago."""
        key = (int(DAYS - age / 86400), age < DRIFTING)  # what a World says changes with these two only
        if key not in self._rendered:
            self._rendered[key] = [
                line
                for site, exporters in sites(age).items()
                for instance, world in exporters.items()
                for line in self._render(site, instance, world)
            ]
        self.lines += [f"{name} {value} {self._now - age:.0f}" for name, value in self._rendered[key]]

    def _render(self, site: str, instance: str, world: World | None) -> list[tuple[str, str]]:
        target = f'site="{site}",job="mecexporter",instance="{instance}"'
        up = [(f"up{{{target}}}", "1" if world else "0")]
        if world is None:
            return up
        world = replace(world, skew=self._now - worlds.NOW)
        text = Renderer(discover()).render(worlds.view_of(world, seconds=DRIFTING, reads=6), Format.OPENMETRICS)
        lines = (line.rpartition(" ") for line in text.decode().splitlines() if SHOWN.match(line))
        return up + [(self._labelled(name, target), value) for name, _, value in lines]

    @staticmethod
    def _labelled(name: str, target: str) -> str:
        return f"{name[:-1]},{target}}}" if name.endswith("}") else f"{name}{{{target}}}"


@dataclass(frozen=True)
class Prometheus:
    """One that holds all of it and scrapes nothing."""

    url: str
    now: int

    def query(self, expression: str, **chosen: str) -> list[dict[str, Any]]:
        for name, value in ({"hostname": ".*", "pf": ".*"} | chosen).items():
            expression = expression.replace(f"${name}", value)
        wanted = {"query": expression, "time": self.now}
        status, page = fetch(f"{self.url}/api/v1/query?{urllib.parse.urlencode(wanted)}")
        assert status == 200, page
        found: list[dict[str, Any]] = json.loads(page)["data"]["result"]
        return found

    def panel(self, title: str, site: str, **chosen: str) -> list[dict[str, Any]]:
        """What the only query of a table brings."""
        ((target,),) = (panel["targets"] for panel in PANELS if panel["title"] == title)
        return self.query(target["expr"], site=site, **chosen)

    def tiles(self, site: str) -> dict[str, float]:
        """What the tiles at the top say."""
        tiles = {target["legendFormat"]: self.query(target["expr"], site=site) for target in PANELS[0]["targets"]}
        return {name: float(found[0]["value"][1]) for name, found in tiles.items()}

    def draw(self, site: str, picture: Path) -> Drawing:
        return draw(
            DASHBOARD,
            self.url,
            picture=picture,
            time_from=str(1000 * (self.now - 86400)),
            time_to=str(1000 * self.now),
            variables={"site": [site]},
        )


def recording(name: str) -> str:
    """The expression of a rule that needs no other one."""
    rules = yaml.safe_load(RULES.read_text())["groups"]
    expressions = {r["record"]: r["expr"] for group in rules for r in group["rules"] if "record" in r}
    expression: str = expressions[name]
    while used := next((other for other in expressions if other in expression), None):
        expression = expression.replace(used, f"({expressions[used]})")
    return expression


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    directory = tmp_path_factory.mktemp("prometheus")
    now = (int(time.time()) // STEP - 1) * STEP
    # promtool records at moments of its own between two samples: at the last one the latest sample is recorded too.
    last = now + STEP - 2
    samples = Samples(now)
    for age in range(DAYS * 86400, -1, -STEP):
        samples.add(age)
    data, rules = imported(directory, samples.lines), directory / "rules.yaml"
    # What a Prometheus that had the rules all the time would have recorded.
    of_all_time = [{"record": name, "expr": recording(name)} for name in (SCHEDULABLE,)]
    rules.write_text(json.dumps({"groups": [{"name": "records", "interval": f"{STEP}s", "rules": of_all_time}]}))
    with serving(data, lookback=STEP - 1) as url:
        since = ("--start", str(now - DAYS * 86400), "--end", str(last))
        backfill("rules", *since, "--url", url, "--output-dir", data, "--eval-interval", f"{STEP}s", rules)
    with serving(data, lookback=STEP - 1) as url:
        yield Prometheus(url, last)


def rows(drawing: Drawing) -> dict[str, int | None]:
    return {panel.title: panel.rows for panel in drawing.panels}


WELL = dict.fromkeys((text for _, text, _ in shown.KINDS), 0) | dict.fromkeys(shown.TILES, 0)


def test_a_healthy_site_is_green_and_its_vfs_run_out(prometheus: Prometheus, tmp_path: Path) -> None:
    assert prometheus.tiles("north") == WELL
    drawing = prometheus.draw("north", tmp_path / "healthy.png")
    assert drawing.bad() == []
    # The row that says 'none' is not 'no data'.
    assert rows(drawing).items() >= {"Findings": 1, "What cannot be told": 1, "VFs": 2 * VFS, "PFs": 2}.items()
    run_out = {
        row["metric"]["at"]: float(row["value"][1]) / 86400
        for row in prometheus.panel("When VFs run out", "north")
        if row["metric"]["column"] == "Run out in"
    }
    # Three and six are left, and one goes a day.
    assert run_out == {
        "north physnet2 NUMA 0": pytest.approx(3, abs=0.5),
        "north physnet2 NUMA 1": pytest.approx(6, abs=0.5),
    }


def test_drift_is_joined_from_nodes_and_records(prometheus: Prometheus, tmp_path: Path) -> None:
    kinds = {"leaked": 3, "portless": 1, "unrecorded": 1, "double-booked": 1}
    assert prometheus.tiles("south") == WELL | kinds | {"hosts without VF": 1, "… of them blocked": 1}
    found = {
        (row["metric"]["hostname"], row["metric"]["pci_address"], row["metric"]["check"], row["metric"]["pf"])
        for row in prometheus.panel("Findings", "south")
    }
    assert found == {
        *(("compute-1", function(n), "vf_leaked", worlds.PF) for n in (13, 14, 15)),
        ("compute-2", function(4), "vf_portless", worlds.PF),
        ("compute-2", function(5), "vf_unrecorded", worlds.PF),
        ("compute-2", function(6), "vf_double_booked", worlds.PF),
    }
    drawing = prometheus.draw("south", tmp_path / "drift.png")
    assert drawing.bad() == []
    assert rows(drawing).items() >= {"Findings": len(found), "What cannot be told": 1, "VFs": 2 * VFS}.items()


def test_lost_sources_are_not_taken_for_health(prometheus: Prometheus, tmp_path: Path) -> None:
    told = {"checks can't tell": 3, "exporters silent": 1, "inventory": 0}  # Placement answers, and alone tells that
    assert prometheus.tiles("west") == dict.fromkeys(WELL, -1) | told
    drawing = prometheus.draw("west", tmp_path / "lost.png")
    assert drawing.bad(allow_empty={"PFs", "When VFs run out", "Hosts with the fewest VFs left"}) == []
    assert [row["metric"]["check"] for row in prometheus.panel("Findings", "west")] == ["none, but checks can't tell"]


def test_a_host_that_knows_all_ledgers_by_itself(prometheus: Prometheus, tmp_path: Path) -> None:
    assert prometheus.tiles("edge") == WELL | {"leaked": 1}
    drawing = prometheus.draw("edge", tmp_path / "leaked.png")
    assert drawing.bad() == []
    assert rows(drawing).items() >= {"Findings": 1, "VFs": 4, "PFs": 1, "Ledgers side by side": 1}.items()


def test_what_two_exporters_know_counts_once_as_the_one_that_sees_the_nic_says(prometheus: Prometheus) -> None:
    assert prometheus.tiles("twice") == WELL | {"portless": 1}
    (found,) = prometheus.panel("Findings", "twice")
    assert (found["metric"]["check"], found["metric"]["pci_address"]) == ("vf_portless", worlds.VFS[1])
    assert len(prometheus.panel("VFs", "twice")) == len(worlds.VFS)


def test_a_host_and_a_pf_are_chosen(prometheus: Prometheus) -> None:
    for chosen, found in (({"hostname": "compute-2"}, 3), ({"hostname": "(compute-1|compute-2)"}, 6)):
        assert len(prometheus.panel("Findings", "south", **chosen)) == found
    assert len(prometheus.panel("VFs", "south", hostname="compute-2", pf=worlds.PF)) == VFS
    (none,) = prometheus.panel("Findings", "south", pf="0000:5e:00.0")
    assert none["metric"]["check"] == "no finding about VFs"


def test_where_no_exporter_is_every_panel_says_so(prometheus: Prometheus, tmp_path: Path) -> None:
    drawing = prometheus.draw("nowhere", tmp_path / "nowhere.png")
    assert drawing.errors == ()
    assert {panel.title for panel in drawing.panels if panel.status != "no data"} == set()
