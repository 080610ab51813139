"""Draws a Grafana dashboard with Grafana's own front-end packages in headless Chromium, against a real Prometheus.

There is no Grafana server: that a dashboard loads in Grafana is not proven, that each panel shows data is. Drawn are
timeseries, stat, gauge, bargauge, table, text, row, state-timeline and status-history; another panel type is an error,
as are library panels, transformations outside `@grafana/data`, and data sources other than Prometheus. Annotations and
links are left out silently. Collapsed rows are opened. Times are UTC. Instant queries ask for the end of the range.

    drawing = draw(Path("dashboards/node-identity.json"), "http://127.0.0.1:9090", picture=tmp_path / "shot.png")
    assert drawing.bad(allow_empty={"Findings"}) == []

`python -m tests.dashview DASHBOARD.json --prometheus URL` does the same by hand.
"""

import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import ConsoleMessage, sync_playwright
from playwright.sync_api import TimeoutError as PageTimeout

from tests.dashview.page import build, serving

__all__ = ["Drawing", "Panel", "draw"]

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--disable-gpu", "--hide-scrollbars", "--force-color-profile=srgb")
NO_SANDBOX = ("--no-sandbox",)  # Chromium refuses to sandbox itself as root
PAGE_TIMEOUT = 60.0  # seconds
CHROMIUM_START_TIMEOUT = 60.0
SETTLE_MS = 400  # canvases and virtual tables draw in frames after the last report


@dataclass(frozen=True, slots=True)
class Panel:
    """What one panel showed.

    `status` is `ok`, `no data` or `error`; `rows` is None after an error; `queries` are the expressions as sent, each
    with the rows it brought.
    """

    title: str
    kind: str
    status: str
    rows: int | None
    detail: str
    queries: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        notes = [self.detail] if self.detail else []
        notes += [f"no data from {expression}" for expression, rows in self.queries if not rows]
        return "  -- ".join([f"{self.status:<8} {self.kind:<14} {self.rows!s:>5} rows  {self.title}", *notes])


@dataclass(frozen=True, slots=True)
class Drawing:
    """What the page told: its panels, and errors of the page as a whole (a variable without values, a script error)."""

    panels: tuple[Panel, ...]
    errors: tuple[str, ...]

    def bad(self, allow_empty: Collection[str] = ()) -> list[str]:
        """Return, in words, the errors and each panel drawn without data; titles in `allow_empty` may lack it."""
        unfit = [
            str(panel)
            for panel in self.panels
            if panel.status != "ok" and not (panel.status == "no data" and panel.title in allow_empty)
        ]
        return [*self.errors, *unfit]


def draw(
    dashboard: Path,
    prometheus: str,
    *,
    picture: Path,
    time_from: str | None = None,
    time_to: str | None = None,
    variables: Mapping[str, Sequence[str]] | None = None,
    scrape_interval: str = "15s",
    width: int = 1600,
) -> Drawing:
    """Draw `dashboard` (a JSON file) into `picture` (PNG).

    Blocks, for up to a few minutes the first time; call it from a thread where an event loop runs. Times are Grafana's
    (`now-1h`, ISO, milliseconds) and default to the dashboard's own; `variables` are values by name, `All` is all.
    Raises page.BuildError, FileNotFoundError without a browser, and playwright's Error.
    """
    config = {
        "dashboard": json.loads(dashboard.read_text()),
        "from": time_from,
        "to": time_to,
        "variables": {name: list(values) for name, values in (variables or {}).items()},
        "scrapeInterval": scrape_interval,
    }
    with serving(build(), prometheus.rstrip("/"), config) as url:
        found = _photograph(url, picture, width)
    panels = tuple(_panel(panel) for panel in found["panels"] if panel)
    return Drawing(panels, tuple(found["errors"]))


def _browser() -> str:
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    raise FileNotFoundError(f"none of {', '.join(BROWSERS)} is installed")


def _photograph(url: str, picture: Path, width: int) -> dict[str, Any]:
    """Open the page, wait until every panel has reported, take the picture; returns what the page collected."""
    console: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type == "error":
            console.append(f"console: {message.text}")

    flags = [*FLAGS, *(NO_SANDBOX if os.geteuid() == 0 else ())]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=_browser(), args=flags, timeout=CHROMIUM_START_TIMEOUT * 1000
        )
        page = browser.new_page(viewport={"width": width, "height": 900}, timezone_id="UTC", locale="en-US")
        page.on("console", note)
        page.goto(url)
        stuck: list[str] = []
        try:
            page.wait_for_function("window.dashview?.isDone?.()", timeout=PAGE_TIMEOUT * 1000)
        except PageTimeout:
            stuck.append(f"the page was not ready after {PAGE_TIMEOUT:g} seconds")
        height = page.evaluate("document.getElementById('root').scrollHeight")
        page.set_viewport_size({"width": width, "height": max(height, 200)})
        page.evaluate("document.fonts.ready")
        page.wait_for_timeout(SETTLE_MS)
        found: dict[str, Any] = page.evaluate("window.dashview.collect()")
        page.screenshot(path=picture, full_page=True)
        browser.close()
    # What a query's failure prints on the console is in its panel's detail too: only a stuck page needs the console.
    found["errors"] += [*stuck, *(console if stuck else [])]
    return found


def _panel(found: dict[str, Any]) -> Panel:
    return Panel(
        title=found["title"],
        kind=found["type"],
        status=found["status"],
        rows=found["rows"],
        detail=found.get("detail") or "",
        queries=tuple((target["expression"], target["rows"]) for target in found["targets"]),
    )
