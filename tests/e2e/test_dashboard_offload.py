"""*Hardware offload*, drawn from Worlds as the exporter renders them, hours of them, out of a real Prometheus."""

from __future__ import annotations

import json
import re
import time
import urllib.parse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dashboards import build
from mecexporter.errors import Reason
from mecexporter.metrics.registry import discover
from mecexporter.metrics.render import Format, Renderer
from mecexporter.state.ovs import Counters
from tests import worlds
from tests.dashview import Drawing, draw
from tests.dashview.page import fetch
from tests.e2e.history import history

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.state.world import World

# The first drawing on a machine fetches and bundles the page: minutes, once.
pytestmark = pytest.mark.timeout(1200)

DASHBOARD = Path(build.__file__).with_name("hardware-offload.json")
PANELS = json.loads(DASHBOARD.read_text())["panels"]
HOURS = 6
STEP = 60
SHOWN = re.compile(r"mec_|mecexporter_(?:source_up|build_info)")
COUNTER = re.compile(r"mec_(?:datapath|conntrack|uplink|representor)\w*_total")
"""Of these the Worlds hold what an hour brings."""


def carrying(world: World) -> World:
    """What passed its uplink and its VFs in an hour: a terabyte each way, one packet in a hundred in software."""
    passed = Counters(10**9, 10**9, 10**12, 10**12)
    software = Counters(10**7, 10**7, 10**10, 10**10)
    names = (worlds.UPLINK, worlds.ALICES, worlds.BOBS)
    return worlds.changed(
        world,
        "links",
        statistics=dict.fromkeys(names, passed),
        cpu_hit=dict.fromkeys(names[1:], software),
    )


OFFLOADING = worlds.healthy_offload()
SITES: dict[str, dict[str, World]] = {
    "north": {"c1": carrying(worlds.healthy_offload()), "c2": carrying(worlds.healthy_offload())},
    "south": {"c1": carrying(worlds.healthy_offload()), "c2": carrying(worlds.gre_conntrack())},
    "west": {
        "c1": worlds.without(worlds.gre_conntrack(), "ovs_flows", "240000 flows", Reason.TOO_LARGE, ago=3600),
        "c2": worlds.without(worlds.healthy_offload(), "tc", "timed out", Reason.TIMEOUT, ago=3600),
    },
    "east": {"c1": replace(OFFLOADING, applicable=OFFLOADING.applicable - {"ovs_flows"})},
    "edge": {"c1": worlds.taps_alone()},
}


def samples(now: int) -> Iterator[str]:
    for site, nodes in SITES.items():
        for instance, world in nodes.items():
            target = f'site="{site}",job="mecexporter",instance="{instance}"'
            shown = replace(world, skew=now - worlds.NOW)
            text = Renderer(discover()).render(worlds.view_of(shown, seconds=3600, reads=60), Format.OPENMETRICS)
            lines = [line.rpartition(" ") for line in text.decode().splitlines() if SHOWN.match(line)]
            for age in range(HOURS * 3600, -1, -STEP):
                yield f"up{{{target}}} 1 {now - age}"
                for name, _, value in lines:
                    series = f"{name[:-1]},{target}}}" if name.endswith("}") else f"{name}{{{target}}}"
                    told = float(value) * (HOURS * 3600 - age) / 3600 if COUNTER.match(name) else value
                    yield f"{series} {told} {now - age}"


@dataclass(frozen=True)
class Prometheus:
    """One that holds all of it and scrapes nothing."""

    url: str
    now: int

    def query(self, expression: str, site: str) -> list[dict[str, Any]]:
        for name, value in {"$site": site, "$instance": ".*", "$__range": "1h", "$__interval": "1m"}.items():
            expression = expression.replace(name, value)
        wanted = {"query": expression, "time": self.now}
        status, page = fetch(f"{self.url}/api/v1/query?{urllib.parse.urlencode(wanted)}")
        assert status == 200, page
        found: list[dict[str, Any]] = json.loads(page)["data"]["result"]
        return found

    def tiles(self, site: str) -> dict[str, float]:
        """What the tiles at the top say."""
        tiles = {target["legendFormat"]: self.query(target["expr"], site) for target in PANELS[0]["targets"]}
        return {name: float(found[0]["value"][1]) for name, found in tiles.items()}

    def values(self, title: str, site: str, *labels: str) -> dict[tuple[str, ...], float]:
        """What the last moment of a panel shows, by these labels."""
        (panel,) = (panel for panel in PANELS if panel["title"] == title)
        found = [row for target in panel["targets"] for row in self.query(target["expr"], site)]
        return {tuple(row["metric"].get(name, "") for name in labels): float(row["value"][1]) for row in found}

    def draw(self, site: str, picture: Path) -> Drawing:
        return draw(
            DASHBOARD,
            self.url,
            picture=picture,
            time_from=str(1000 * (self.now - 3600)),
            time_to=str(1000 * self.now),
            variables={"site": [site]},
        )


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    now = int(time.time()) // STEP * STEP
    with history(tmp_path_factory.mktemp("prometheus"), samples(now), lookback=300) as url:
        yield Prometheus(url, now)


NO_GRE_IN_SOFTWARE = "Nodes with tracked GRE in software"
"""Empty where there is none."""


def test_a_healthy_site(prometheus: Prometheus, tmp_path: Path) -> None:
    tiles = prometheus.tiles("north")
    share = 840 / 849.3
    assert tiles == {
        "packets in hardware": pytest.approx(share, abs=1e-6),
        "bytes in hardware": pytest.approx(share, abs=1e-6),
        "GRE in hardware": 1,
        "GRE tracked, in software": 0,
        "nodes below 80 %": 0,
        "nodes not read": 0,
        "checks can't tell": 0,
    }
    drawing = prometheus.draw("north", tmp_path / "healthy.png")
    assert drawing.bad(allow_empty={NO_GRE_IN_SOFTWARE}) == []


def test_incident_4_is_to_be_seen(prometheus: Prometheus, tmp_path: Path) -> None:
    tiles = prometheus.tiles("south")
    assert tiles["GRE tracked, in software"] == pytest.approx(58_090)
    # A half of the site's GRE, and all that c2 has.
    assert tiles["GRE in hardware"] == pytest.approx(200_000 / 258_090)
    assert tiles["nodes below 80 %"] == 0  # GRE is a tenth of c2's packets
    assert prometheus.values("Hardware's share by protocol", "south", "protocol") == {
        ("gre",): pytest.approx(200_000 / 258_090),
        ("tcp",): pytest.approx(1_200_000 / 1_218_000),
        ("udp",): pytest.approx(80_000 / 80_300),
    }
    reasons = prometheus.values("Packets in software by reason", "south", "reason")
    assert reasons == {
        ("conntrack_gre",): pytest.approx(58_090),
        ("missed",): pytest.approx(18_000),
        ("unknown",): pytest.approx(300),
    }
    assert prometheus.values(NO_GRE_IN_SOFTWARE, "south", "instance") == {("c2",): pytest.approx(58_090)}
    drawing = prometheus.draw("south", tmp_path / "incident.png")
    assert drawing.bad() == []
    rows = {panel.title: panel.rows for panel in drawing.panels}
    assert rows["Findings"] == 1
    assert rows["Nodes with the most packets in software"] == 2


def test_what_is_not_read_has_no_share(prometheus: Prometheus) -> None:
    """Neither the one without its software, nor the one without TC."""
    tiles = prometheus.tiles("west")
    assert tiles["packets in hardware"] == tiles["GRE tracked, in software"] == tiles["nodes below 80 %"] == -1
    assert tiles["nodes not read"] == 1
    assert tiles["checks can't tell"] == 4
    assert prometheus.values("Nodes with the smallest share", "west", "instance") == {}


def test_without_a_source_there_is_no_share(prometheus: Prometheus) -> None:
    """Of a node whose configuration disables it: what TC has in hardware would be all of it."""
    tiles = prometheus.tiles("east")
    assert tiles["packets in hardware"] == tiles["GRE tracked, in software"] == tiles["nodes below 80 %"] == -1


def test_taps_alone_have_no_share(prometheus: Prometheus) -> None:
    tiles = prometheus.tiles("edge")
    assert tiles["packets in hardware"] == -1
    assert tiles["nodes below 80 %"] == 0
    assert tiles["checks can't tell"] == 0
    assert prometheus.values("Packets in software by reason", "edge", "reason") == {}


def test_throughput(prometheus: Prometheus) -> None:
    found = prometheus.values("Throughput of each server", "north", "instance", "direction")
    assert found == dict.fromkeys(
        [("c1", "rx"), ("c1", "tx"), ("c2", "rx"), ("c2", "tx")], pytest.approx(8e12 / 3600, rel=1e-3)
    )
    against = prometheus.values("Throughput against the target", "north", "instance")
    assert against == dict.fromkeys([("c1",), ("c2",)], pytest.approx(8e12 / 3600 / 40e9, rel=1e-3))


def test_settings(prometheus: Prometheus) -> None:
    about = prometheus.values("Configured and running", "north", "instance", "policy", "kernel")
    assert about == {(node, "none", "6.1.0-30-amd64"): 3 for node in ("c1", "c2")}
    assert set(prometheus.values("Configured and running", "edge", "instance").values()) == {0}
    (mode,) = {row["metric"]["eswitch_mode"] for row in prometheus.query(_only("NICs"), "north")}
    assert mode == "switchdev"
    assert set(prometheus.values("NICs", "north", "hostname").values()) == {1}


def _only(title: str) -> str:
    ((target,),) = (panel["targets"] for panel in PANELS if panel["title"] == title)
    return str(target["expr"])
