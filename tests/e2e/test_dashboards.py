"""The dashboards drawn from a real site: by Grafana's own front end, from Prometheus, from exporters of real nodes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboards import build
from mecexporter.metrics.collectors.datapath import LOOKUPS
from mecexporter.metrics.collectors.findings import FINDINGS, INFO
from tests.dashview import Drawing, draw
from tests.lab import incidents
from tests.lab.monitoring import Monitoring
from tests.lab.site import Site
from tests.waiting import wait_until

# The first drawing on a machine fetches and bundles the page: minutes, once.
pytestmark = [pytest.mark.root, pytest.mark.timeout(1200)]

DASHBOARD = Path(build.__file__).with_name("node-identity.json")
C2 = {"system_id_changed", "chassis_unregistered", "integration_bridge_empty", "ovn_controller_failing"}
OF_CENTRAL = {"Chassis without a tunnel"}
"""Nobody here tells of the list of chassis."""
PATIENCE = 60  # seconds


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def rows(drawing: Drawing, title: str) -> int | None:
    return next(panel.rows for panel in drawing.panels if panel.title == title)


def test_node_identity_shows_health_an_incident_and_silence(site: Site, tmp_path: Path) -> None:
    with Monitoring(site, interval=1, intervals={"live": "1s"}, grace={"identity": "5s", "bridge": "3s"}) as monitoring:
        prometheus = monitoring.prometheus

        def drawn(name: str) -> Drawing:
            picture = tmp_path / f"{name}.png"
            return draw(DASHBOARD, prometheus.url, picture=picture, time_from="now-5m", scrape_interval="1s")

        def series(expression: str) -> int:
            return len(prometheus.query(expression))

        # Checks of every node, and two scrapes of every counter for its rate.
        nodes = len(site.nodes)
        wait_until(
            lambda: (
                series(f"count by (instance) ({FINDINGS.name})") == nodes
                and series(f"count by (instance) (rate({LOOKUPS.name}[4s]))") == nodes
            ),
            PATIENCE,
            "all nodes are scraped",
        )
        wait_until(lambda: series(f"{INFO.name}") == 0, PATIENCE, "the nodes are healthy")
        healthy = drawn("healthy")
        assert healthy.bad(allow_empty=OF_CENTRAL) == []
        assert len(healthy.panels) > 20
        # The row that says 'none' is not 'no data'.
        assert [rows(healthy, title) for title in ("Findings", "What cannot be told")] == [1, 1]

        incidents.begin(site, "C2")
        wait_until(
            lambda: {found["metric"]["check"] for found in prometheus.query(INFO.name)} >= C2,
            PATIENCE,
            "the incident is found",
        )
        ill = drawn("C2")
        assert ill.bad(allow_empty=OF_CENTRAL) == []
        assert (rows(ill, "Findings") or 0) >= len(C2)

        for exporter in monitoring.exporters.values():
            exporter.stop()
        wait_until(lambda: series("up == 0") == nodes, PATIENCE, "Prometheus misses the exporters")
        silent = drawn("silent")
        assert silent.errors == ()
        assert [panel for panel in silent.panels if panel.status == "error"] == []
        # What is said of this moment is not said any more, and who is missing is.
        assert {panel.title for panel in silent.panels if panel.status == "no data"} == OF_CENTRAL | {
            panel.title for panel in silent.panels if panel.kind == "table"
        }
        assert rows(silent, "Nodes by verdict")
