"""Every check has its alert, every alert its runbook and its cases, and nothing names what does not exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mecexporter.checks.base import Check, Severity, discover
from mecexporter.metrics.docs import alert_name
from tests.contract.promql import RECORDED, TARGET, catalogue, metrics, problems

ROOT = Path(__file__).parents[2]
RUNBOOKS = ROOT / "docs" / "runbooks"
CASES = ROOT / "tests" / "alerts"
SECTIONS = ["Meaning", "Impact", "Diagnosis", "Remedy", "Verification"]

Rule = dict[str, Any]


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


EVERY: list[Rule] = [
    rule
    for path in sorted(ROOT.glob("alerts/*.rules.yaml"))
    for group in load(path)["groups"]
    for rule in group["rules"]
]
RULES = [rule for rule in EVERY if "alert" in rule]
RECORDS = [rule for rule in EVERY if "record" in rule]
ALERTS = sorted({rule["alert"] for rule in RULES})
CHECKS = discover()
DECLARED = catalogue()

each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule['alert']}-{rule['labels']['severity']}")
each_alert = pytest.mark.parametrize("alert", ALERTS)
each_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)


def cases(alert: str) -> list[dict[str, Any]]:
    tests: list[dict[str, Any]] = load(CASES / f"{alert}.test.yaml")["tests"]
    return tests


def expected(test: dict[str, Any], alert: str) -> list[list[Any]]:
    """What a case expects of an alert, each time it asks for it."""
    return [a["exp_alerts"] for a in test["alert_rule_test"] if a["alertname"] == alert]


@each_check
def test_check_has_one_alert_as_declared(check: Check) -> None:
    """Of one rule for each severity that its findings may bear."""
    rules = [rule for rule in RULES if rule["alert"] == alert_name(check.name)]
    assert [rule["labels"] for rule in rules] == [{"severity": severity} for severity in check.severities]
    for rule in rules:
        own = f',severity="{rule["labels"]["severity"]}"' if check.worst else ""
        assert f'{{check="{check.name}"{own}}}' in rule["expr"]
        assert rule["for"] == check.alert_for
        assert rule["keep_firing_for"] == "10m"
        fires, *_ = rule["expr"].partition(" unless ")
        assert metrics(fires) <= {"mec_finding_info", "mec_check_findings"}


@each_check
def test_an_unknown_takes_the_severity_of_its_check(check: Check) -> None:
    judges = []
    for rule in RULES:
        if rule["alert"] == "MecCheckCannotTell":
            judged = rule["expr"].partition(" unless ")[0]
            [(operator, pattern)] = re.findall(r'check([=!]~)"([^"]+)"', judged)
            if bool(re.fullmatch(pattern, check.name)) == (operator == "=~"):
                judges.append(rule)
    [rule] = judges
    assert rule["labels"]["severity"] == check.severity
    assert rule["for"] == "5m"


@each_rule
def test_rule_says_what_how_bad_and_where_to_read_on(rule: Rule) -> None:
    assert rule["alert"].startswith("Mec")
    assert rule["labels"]["severity"] in {*Severity, "info"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"


@each_rule
def test_rule_names_only_what_is_declared(rule: Rule) -> None:
    texts = " ".join(rule["annotations"].values())
    queries = [query.replace("%q", '"x"') for query in re.findall(r"printf\s+`([^`]+)`", texts)]
    assert len(queries) == len(re.findall(r"\bquery\b", texts))
    for expression in [rule["expr"], *queries]:
        assert problems(expression, DECLARED) == []
    own = {label for name in metrics(rule["expr"]) if name in DECLARED for label in DECLARED[name].labels}
    own.update(*(RECORDED.get(name, ()) for name in metrics(rule["expr"])))
    assert set(re.findall(r"\$labels\.(\w+)", texts)) <= own | TARGET


@pytest.mark.parametrize("rule", RECORDS, ids=lambda rule: str(rule["record"]))
def test_record_names_only_what_is_declared_and_has_a_case(rule: Rule) -> None:
    """``level:metric:operation``, without labels of its own; a case shows the labels of its level and no others."""
    assert re.fullmatch(r"[a-z_]+:mec_[a-z_]+:(max|min|rate|ratio|sum)", rule["record"])
    assert rule.keys() == {"record", "expr"}
    assert problems(rule["expr"], DECLARED) == []
    shown, *_ = [
        sample["labels"]
        for test in load(CASES / "records.test.yaml")["tests"]
        for asked in test["promql_expr_test"]
        for sample in asked["exp_samples"][:1]
        if asked["expr"] == rule["record"]
    ]
    assert set(re.findall(r"(\w+)=", shown)) == RECORDED[rule["record"]]


@each_alert
def test_alert_has_cases_where_it_fires_and_where_it_is_silent(alert: str) -> None:
    tests = cases(alert)
    fired = [a for t in tests if t["name"].startswith("fires") for got in expected(t, alert) for a in got]
    declared = {rule["labels"]["severity"] for rule in RULES if rule["alert"] == alert}
    assert {a["exp_labels"]["severity"] for a in fired} == declared
    silent = [t for t in tests if t["name"].startswith("stays silent")]
    assert silent
    assert not any(any(expected(t, alert)) for t in silent)
    [healthy] = cases("healthy_site")
    assert expected(healthy, alert)
    assert not any(expected(healthy, alert))


@each_check
def test_alert_has_cases_where_its_source_and_its_exporter_are_lost(check: Check) -> None:
    alert = alert_name(check.name)
    [lost] = [t for t in cases(alert) if t["name"].startswith("is held when its source is lost")]
    assert any(expected(lost, alert))
    assert expected(lost, alert)[-1] == []
    assert expected(lost, "MecCheckCannotTell")[-1] != []
    [restart] = [t for t in cases(alert) if t["name"].startswith("outlives a restart")]
    assert all(expected(restart, alert))


@pytest.mark.parametrize("path", sorted(CASES.glob("*.test.yaml")), ids=lambda path: path.name)
def test_cases_feed_only_series_that_are_declared(path: Path) -> None:
    for test in load(path)["tests"]:
        for series in test["input_series"]:
            if series["series"].startswith(("mec", *RECORDED)):
                assert problems(series["series"], DECLARED) == []


@each_alert
def test_runbook_has_its_sections_and_names_what_exists(alert: str) -> None:
    text = (RUNBOOKS / f"{alert}.md").read_text()
    assert text.startswith(f"# {alert}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    recorded = set(re.findall(r"\b[a-z_]+:mec_[a-z_]+:[a-z]+", text))
    assert recorded <= RECORDED.keys()
    assert set(re.findall(r"(?<!:)\bmec(?:exporter)?_[a-z_]+", text)) <= DECLARED.keys()
    assert set(re.findall(r"--only (\w+)", text)) <= {check.name for check in CHECKS}
    assert set(re.findall(r"\(([\w.]+\.md)\)", text)) <= {path.name for path in RUNBOOKS.iterdir()}


def test_nothing_is_left_over() -> None:
    assert {path.stem for path in RUNBOOKS.iterdir()} == {"README", "failover", *ALERTS}
    cases_of = {path.name.removesuffix(".test.yaml") for path in CASES.glob("*.yaml")}
    assert cases_of == {"healthy_site", "records", *ALERTS}
    index = (RUNBOOKS / "README.md").read_text()
    assert sorted(re.findall(r"\((Mec\w+)\.md\)", index)) == ALERTS
    example = (ROOT / "alerts" / "alertmanager.example.yaml").read_text()
    assert set(re.findall(r"Mec[A-Z]\w+", example)) <= set(ALERTS)
