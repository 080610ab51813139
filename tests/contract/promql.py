"""PromQL held against the catalogue: every metric and label that an expression names must be declared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import promql_parser as promql
import yaml

from mecexporter.metrics.docs import all_metrics
from mecexporter.metrics.spec import Kind, Metric

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TARGET = frozenset({"job", "instance", "site"})
"""Labels that Prometheus gives to whatever it scrapes; ``site`` where one Prometheus holds several."""

FOREIGN = {"up": TARGET}
"""Metrics that are not ours: Prometheus' own."""

LEVELS = {
    "pf": frozenset({"site", "hostname", "pf", "physical_network", "numa_node"}),
    "network_numa": frozenset({"site", "physical_network", "numa_node"}),
    "network": frozenset({"site", "physical_network"}),
    "node": TARGET,
    "node_flow": TARGET | {"protocol", "conntrack"},
    "site_flow": frozenset({"site", "protocol", "conntrack"}),
    "site_protocol": frozenset({"site", "protocol"}),
    "site_conntrack": frozenset({"site", "conntrack"}),
    "site": frozenset({"site"}),
    "site_direction": frozenset({"site", "direction"}),
    "node_direction": TARGET | {"direction"},
    "node_daemon": TARGET | {"daemon"},
}
"""The labels of a recorded series, by the first part of its name (level:metric:operation)."""

RECORDED: dict[str, frozenset[str]] = {
    rule["record"]: LEVELS[rule["record"].partition(":")[0]]
    for path in sorted((Path(__file__).parents[2] / "alerts").glob("*.rules.yaml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if "record" in rule
}
"""What rules record of our metrics."""

COUNTING = frozenset({"rate", "irate", "increase", "resets"})
"""Functions that mean something for counters only."""

N = TypeVar("N", bound=promql.Expr)


def catalogue() -> dict[str, Metric]:
    """Every declared metric by the name it has in an exposition (a counter's declared name ends in ``_total``)."""
    return {m.name: m for m in all_metrics()}


def problems(expression: str, declared: Mapping[str, Metric]) -> list[str]:
    """What an expression names that does not exist, in words; empty if all is well.

    A label of a matcher must be the metric's own or the target's; one of by, on, ignoring or group_left must belong to
    a metric below it. Grafana's variables must have been replaced.

    Raises:
        ValueError: it is no PromQL.
    """
    return list(_problems(promql.parse(expression), declared))


def metrics(expression: str) -> set[str]:
    """The names of the metrics that an expression selects."""
    return {str(s.name) for s in _nodes(promql.parse(expression), promql.VectorSelector)}


def _problems(expression: promql.Expr, declared: Mapping[str, Metric]) -> Iterator[str]:
    for selector in _nodes(expression, promql.VectorSelector):
        labels = _labels(selector, declared)
        if labels is None:
            yield f"no metric {selector.name}"
            continue
        for some in (selector.matchers.matchers, *selector.matchers.or_matchers):
            yield from (f"{selector.name} has no label {m.name}" for m in some if m.name not in labels)
    for aggregate in _nodes(expression, promql.AggregateExpr):
        if aggregate.modifier:
            yield from _unknown_labels(aggregate.modifier.labels, aggregate, declared)
    for binary in _nodes(expression, promql.BinaryExpr):
        if binary.modifier:
            matching = binary.modifier.matching.labels if binary.modifier.matching else []
            yield from _unknown_labels([*matching, *(binary.modifier.group_labels or [])], binary, declared)
    for call in _nodes(expression, promql.Call):
        if call.func.name in COUNTING:
            for name in (str(s.name) for s in _nodes(call, promql.VectorSelector)):
                if name in declared and declared[name].kind is not Kind.COUNTER:
                    yield f"{call.func.name}() of {name}, which is no counter"


def _unknown_labels(names: list[str], below: promql.Expr, declared: Mapping[str, Metric]) -> Iterator[str]:
    known = TARGET.union(*(_labels(s, declared) or () for s in _nodes(below, promql.VectorSelector)))
    for call in _nodes(below, promql.Call):
        if call.func.name in {"label_replace", "label_join"} and isinstance(call.args[1], promql.StringLiteral):
            known |= {call.args[1].val}
    yield from (f"no metric here has a label {name}" for name in names if name not in known)


def _labels(selector: promql.VectorSelector, declared: Mapping[str, Metric]) -> frozenset[str] | None:
    name = str(selector.name)
    return TARGET.union(declared[name].labels) if name in declared else (FOREIGN | RECORDED).get(name)


def _nodes(expression: promql.Expr, kind: type[N]) -> list[N]:
    """The nodes of one kind in an expression, itself included."""
    found: list[N] = []

    def visit(node: promql.Expr) -> None:
        if isinstance(node, kind):
            found.append(node)

    promql.walk(expression, visit)
    return found
