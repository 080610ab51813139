"""*OVN control plane*, drawn from real pairs and clusters: by Grafana's own front end, from a real Prometheus."""

from __future__ import annotations

import json
import urllib.parse
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from dashboards import build
from mecexporter.metrics.collectors import ovn_db
from tests.dashview import Drawing, draw
from tests.e2e.test_databases import QUICK, is_well, peers
from tests.faults.link import Link
from tests.lab import incidents
from tests.lab.central import CentralExporter, Cluster, Pair
from tests.lab.monitoring import Service, get
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.lab.site import Site

# The first drawing on a machine fetches and bundles the page: minutes, once.
pytestmark = [pytest.mark.root, pytest.mark.timeout(1200)]

DASHBOARD = Path(build.__file__).with_name("ovn-control-plane.json")
OF_CLUSTERS = {"Leaders", "Members that can't be reached", "Elections", "Log entries not committed"}
OF_PAIRS = {
    "Standbys",
    "Rows that differ",
    "Age of the last proof",
    "Comparing all tables",
    "Age of the last comparison",
}
OF_TLS = {"TLS certificates that expire first"}
PATIENCE = 60  # seconds


class Prometheus(Service):
    """Scrapes exporters whose listeners are in namespaces of their own, by their local sockets."""

    def __init__(self, site: Site, ports: Mapping[str, int]) -> None:
        super().__init__(site, "prometheus")
        self._ports = ports

    def command(self) -> list[str | Path]:
        config = self.site.dir / "prometheus.yaml"
        targets = [{"targets": [f"127.0.0.1:{port}"], "labels": {"instance": n}} for n, port in self._ports.items()]
        scrape = {"job_name": "mecexporter", "static_configs": targets}
        config.write_text(yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": [scrape]}))
        return ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={self.site.dir}/prometheus",
                f"--web.listen-address=127.0.0.1:{self.port}"]  # fmt: skip

    def ready(self) -> bool:
        return get(f"{self.url}/-/ready") is not None

    def query(self, expression: str) -> list[dict[str, Any]]:
        page = get(f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        assert page is not None
        found: list[dict[str, Any]] = json.loads(page)["data"]["result"]
        return found


@contextmanager
def scraped(site: Site, *exporters: CentralExporter) -> Iterator[Prometheus]:
    with ExitStack() as stack:
        for exporter in exporters:
            stack.enter_context(exporter)
        ports = {e.host.name: stack.enter_context(Link(e.socket)).port for e in exporters}
        wait_until(lambda: all(is_well(e) for e in exporters), PATIENCE, "all is well")
        yield stack.enter_context(Prometheus(site, ports))


def drawn(prometheus: Prometheus, picture: Path) -> Drawing:
    return draw(DASHBOARD, prometheus.url, picture=picture, time_from="now-5m", scrape_interval="1s")


def rows(drawing: Drawing, title: str) -> int | None:
    return next(panel.rows for panel in drawing.panels if panel.title == title)


def test_a_pair_in_sync_and_out_of_it(tmp_path: Path) -> None:
    with Pair(tls=True) as pair:
        pair.ca.nbctl("--wait=hv", "sync")
        exporters = [CentralExporter(host, peers(pair.ca, pair.cb), **QUICK) for host in (pair.ca, pair.cb)]
        with scraped(pair, *exporters) as prometheus:
            wait_until(lambda: len(prometheus.query(ovn_db.IN_SYNC.name)) == 4, PATIENCE, "both are scraped")
            healthy = drawn(prometheus, tmp_path / "healthy.png")
            assert healthy.bad(allow_empty=OF_CLUSTERS) == []
            assert rows(healthy, "Servers") == 8
            # Certificate and authority, of both databases, on both hosts; and the one northd.
            assert (rows(healthy, "TLS certificates that expire first"), rows(healthy, "Versions that run")) == (8, 1)
            # The row that says 'none' is not 'no data'.
            assert [rows(healthy, title) for title in ("Findings", "What cannot be told", "Rows that differ")] == [
                1,
                1,
                1,
            ]

            incidents.begin(pair, "table-excluded")
            wait_until(lambda: prometheus.query(f"{ovn_db.IN_SYNC.name} == 0"), PATIENCE, "it is found")
            ill = drawn(prometheus, tmp_path / "ill.png")
            assert ill.bad(allow_empty=OF_CLUSTERS) == []
            assert (rows(ill, "Findings"), rows(ill, "Rows that differ")) == (1, 1)


def test_a_cluster(tmp_path: Path) -> None:
    with Cluster() as cluster:
        cluster.hosts["s1"].nbctl("--wait=hv", "sync")
        exporters = [CentralExporter(host, {}, **QUICK) for host in cluster.hosts.values()]
        with scraped(cluster, *exporters) as prometheus:
            wait_until(lambda: len(prometheus.query(ovn_db.RAFT_LEADER.name)) == 6, PATIENCE, "all are scraped")
            healthy = drawn(prometheus, tmp_path / "cluster.png")
            assert healthy.bad(allow_empty=OF_PAIRS | OF_TLS) == []
            assert rows(healthy, "Servers") == 6
