"""The catalogue: every metric and check, as Markdown and JSON; ``python -m mecexporter.metrics.docs`` writes docs/."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mecexporter.checks import base as checks
from mecexporter.metrics.registry import discover
from mecexporter.metrics.render import COLLECTOR_SUCCESS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mecexporter.checks.base import Check
    from mecexporter.metrics.spec import Metric


def all_metrics() -> tuple[Metric, ...]:
    """Every declared metric, by name."""
    found = {metric.name: metric for c in discover() for metric in c.metrics}
    found[COLLECTOR_SUCCESS.name] = COLLECTOR_SUCCESS
    return tuple(found[name] for name in sorted(found))


def alert_name(check: str) -> str:
    """The alert of a check: ``MecSystemIdChanged`` for ``system_id_changed`` (contract)."""
    return "Mec" + "".join(word.capitalize() for word in check.split("_"))


def metrics_markdown() -> str:
    """docs/metrics.md."""
    rows = (
        (f"`{m.name}`", str(m.kind), ", ".join(f"`{label}`" for label in m.labels), m.help, str(m.stability))
        for m in all_metrics()
    )
    return _page("Metrics", ("Name", "Kind", "Labels", "What it is", "Stability"), rows)


def checks_markdown() -> str:
    """docs/checks.md."""
    rows = (
        (
            f"`{c.name}`",
            " or ".join(c.severities),
            c.title,
            ", ".join(sorted(c.roles)),
            _needs(c),
            f"[{alert_name(c.name)}](runbooks/{alert_name(c.name)}.md)",
            c.alert_for,
            ", ".join(f"`{f}`" for f in c.follows),
        )
        for c in checks.discover()
    )
    return _page("Checks", ("Check", "Severity", "True when", "Role", "Needs", "Alert", "`for`", "Follows from"), rows)


def _needs(c: Check) -> str:
    """Its sources; of the sets that it may do with, each."""
    every, *others = [", ".join(f"`{s}`" for s in sources) for sources in (c.sources, *c.either)]
    return every or " or ".join(others)


def catalogue_json() -> str:
    """Both, for programs: ``{"metrics": [...], "checks": [...]}``."""
    document = {
        "metrics": [
            {"name": m.name, "kind": m.kind, "labels": m.labels, "help": m.help, "stability": m.stability}
            for m in all_metrics()
        ],
        "checks": [
            {
                "name": c.name,
                "severity": c.severity,
                "severities": c.severities,
                "title": c.title,
                "roles": sorted(c.roles),
                "sources": c.sources,
                "either": c.either,
                "alert": alert_name(c.name),
                "alert_for": c.alert_for,
                "follows": c.follows,
            }
            for c in checks.discover()
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def _page(title: str, head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"# {title}", "", "Made by `make generate` from the declarations in the code; do not edit.", ""]
    lines += [_row(head), _row(("---",) * len(head))]
    lines += [_row(row) for row in rows]
    return "\n".join(lines) + "\n"


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    (directory / "metrics.md").write_text(metrics_markdown())
    (directory / "checks.md").write_text(checks_markdown())
