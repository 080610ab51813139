import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dashview import draw
from tests.dashview.page import fetch
from tests.ports import free_port
from tests.waiting import wait_until


def panel(title: str, kind: str, query: str, x: int) -> dict[str, object]:
    return {
        "title": title,
        "type": kind,
        "gridPos": {"x": x, "y": 0, "w": 6, "h": 6},
        "datasource": {"type": "prometheus", "uid": "prometheus"},
        "targets": [{"refId": "A", "expr": query}],
    }


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[str]:
    """A Prometheus that scrapes itself."""
    port = free_port()
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: self, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]\n"
    )
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ]
    )
    url = f"http://127.0.0.1:{port}"

    def has_scraped() -> bool:
        try:
            status, body = fetch(f"{url}/api/v1/query?query=up")
        except OSError:
            return False
        return status == 200 and bool(json.loads(body)["data"]["result"])

    try:
        wait_until(has_scraped, 30, "the first scrape")
        yield url
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.timeout(1200)  # the first drawing on a machine fetches and bundles the page
def test_tells_data_from_its_absence_and_from_errors(prometheus: str, tmp_path: Path) -> None:
    dashboard = tmp_path / "dashboard.json"
    panels = [
        panel("Up", "stat", "up", 0),
        panel("Series", "timeseries", "prometheus_tsdb_head_series", 6),
        panel("Nothing", "table", "mec_no_such_metric", 12),
        panel("Broken", "timeseries", "sum(", 18),
    ]
    dashboard.write_text(json.dumps({"title": "Self", "time": {"from": "now-5m", "to": "now"}, "panels": panels}))
    picture = tmp_path / "shot.png"

    drawing = draw(dashboard, prometheus, picture=picture, scrape_interval="1s")

    assert [(drawn.title, drawn.status) for drawn in drawing.panels] == [
        ("Up", "ok"),
        ("Series", "ok"),
        ("Nothing", "no data"),
        ("Broken", "error"),
    ]
    assert "parse error" in drawing.panels[3].detail
    assert drawing.panels[2].queries == (("mec_no_such_metric", 0),)
    assert [line.split()[0] for line in drawing.bad(allow_empty={"Nothing"})] == ["error"]
    assert picture.read_bytes().startswith(b"\x89PNG")
