"""The dashboards: as generated, legible, and made of nothing but declared names."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards import build
from dashboards import panels as parts
from mecexporter.metrics.collectors.findings import EVALUABLE, FINDINGS
from tests.contract import promql

DIRECTORY = Path(build.__file__).parent
GENERATED = build.dashboards()
VARIABLES = {"$__rate_interval": "1m", "$__interval": "15s", "$__range": "1h"} | {
    f"${name}": ".*" for name in ("site", "instance", "hostname", "pf")
}
DECLARED = promql.catalogue()

Dashboard = dict[str, Any]


def plain(expression: str) -> str:
    """The expression as Grafana sends it, all sites and nodes chosen."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def dashboard_of(name: str) -> Dashboard:
    dashboard: Dashboard = json.loads(GENERATED[name])
    return dashboard


def panels() -> list[Any]:
    return [
        pytest.param(panel, id=f"{name}-{panel['title']}")
        for name in GENERATED
        for panel in dashboard_of(name)["panels"]
        if panel["type"] != "row"
    ]


def queries() -> list[Any]:
    """What panels and annotations ask."""
    return [
        pytest.param(target["expr"], id=f"{name}-{part.get('title') or part['name']}-{target.get('refId', '')}")
        for name in GENERATED
        for part in (*dashboard_of(name)["panels"], *dashboard_of(name)["annotations"]["list"])
        for target in part.get("targets", [part] if "expr" in part else [])
    ]


def variables() -> list[Any]:
    """What variables ask: (selector, label)."""
    return [
        pytest.param(*re.findall(r"^label_values\((.+), (\w+)\)$", variable["definition"])[0], id=variable["name"])
        for name in GENERATED
        for variable in dashboard_of(name)["templating"]["list"]
        if variable["type"] == "query"
    ]


def test_what_is_checked_in_is_what_is_generated() -> None:
    assert {path.name: path.read_text() for path in DIRECTORY.glob("*.json")} == GENERATED


@pytest.mark.parametrize("panel", panels())
def test_panel_explains_itself(panel: Dashboard) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert defaults["unit"]
    assert defaults["noValue"], "healthy and 'no data' look alike"
    assert defaults["thresholds"]["steps"][0]["value"] is None
    for holder in (panel, *panel["targets"]):
        assert holder["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize("expression", queries())
def test_query_names_only_what_is_declared(expression: str) -> None:
    assert "$" not in plain(expression).replace("$1", ""), "a variable that nobody replaces"
    assert promql.problems(plain(expression), DECLARED) == []


@pytest.mark.parametrize(("selector", "label"), variables())
def test_variable_names_only_what_is_declared(selector: str, label: str) -> None:
    assert promql.problems(f"sum by ({label}) ({plain(selector)})", DECLARED) == []


@pytest.mark.parametrize("expression", queries())
def test_query_keeps_to_the_chosen_site(expression: str) -> None:
    selectors = re.findall(r"\{.*?\}", expression)
    assert selectors
    assert [selector for selector in selectors if 'site=~"$site"' not in selector] == []


@pytest.mark.parametrize("name", GENERATED)
def test_panels_have_titles_and_places_of_their_own(name: str) -> None:
    drawn = dashboard_of(name)["panels"]
    titles = [panel["title"] for panel in drawn]
    cells = [
        (x, y)
        for grid in (panel["gridPos"] for panel in drawn)
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(set(titles)) == len(titles)
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < parts.COLUMNS


def test_verdict_is_the_worst_that_is_known_of_a_node(tmp_path: Path) -> None:
    """By promtool, without a label `site`. Each node: verdict, `up`, findings by severity (None: cannot tell)."""
    nodes: list[tuple[str, int, dict[str, int | None]]] = [
        ("healthy", 1, {"critical": 0, "warning": 0}),
        ("warning", 1, {"critical": 0, "warning": 2}),
        ("cannot tell", 1, {"critical": None, "warning": 1}),
        ("cannot tell", 1, {}),
        ("critical", 1, {"critical": 1, "warning": None}),
        ("no answer", 0, {}),
    ]
    series = {'up{job="other",instance="stranger"}': 1}
    samples = []
    for number, (verdict, up, found) in enumerate(nodes):
        target = f'job="mecexporter",instance="{number}"'
        series[f"up{{{target}}}"] = up
        for severity, findings in found.items():
            series[f'{EVALUABLE.name}{{{target},check="{severity}"}}'] = int(findings is not None)
            if findings is not None:
                series[f'{FINDINGS.name}{{{target},check="{severity}",severity="{severity}"}}'] = findings
        value = [name for name, _ in parts.VERDICTS].index(verdict)
        samples.append({"labels": f"{{{target}}}", "value": value})
    test = {
        "input_series": [{"series": name, "values": str(value)} for name, value in series.items()],
        "promql_expr_test": [{"expr": plain(parts.VERDICT), "eval_time": "0s", "exp_samples": samples}],
    }
    path = tmp_path / "verdict.test.yaml"
    path.write_text(yaml.safe_dump({"tests": [test]}))
    done = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
