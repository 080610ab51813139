"""What dashboards are made of: PromQL, panels, their places. One dashboard a file beside this one.

Names of metrics come from their declarations only. What is made is the classic dashboard JSON of Grafana 11 and later.
A panel is a dict as in that JSON, but its gridPos has only a width and a height: `lay_out` places it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mecexporter.metrics.collectors import exporter, findings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mecexporter.metrics.spec import Metric

Json = dict[str, Any]
Steps = tuple[tuple[float | None, str], ...]  # from which value on which colour; the first has no value

NODE_UID = "mec-node-identity"
SCHEMA_VERSION = 39  # Grafana 11.0
COLUMNS = 24
MANY = 20
"""Series of one panel, at most: those that were worst within the time shown."""
LINES = 10
"""The same for a state timeline, whose lines must bear a name each."""

NODE = "site, job, instance"
SELECTED = 'site=~"$site",instance=~"$instance"'
SOURCE = {"type": "prometheus", "uid": "${datasource}"}

NOBODY = "Nothing is known: no exporter answers"
"""The empty state of a panel that shows something, be it zero or 'none', as long as one exporter answers."""

NEUTRAL: Steps = ((None, "text"),)
ANY_IS_BAD: Steps = ((None, "green"), (1, "red"))
NONE_IS_BAD: Steps = ((None, "red"), (1, "green"))

VERDICTS = (
    ("healthy", "green"),
    ("warning", "orange"),
    ("cannot tell", "purple"),
    ("critical", "red"),
    ("no answer", "dark-blue"),
)
"""What can be said of a node, and its colour; by number, the most alarming last."""


# PromQL


def of(metric: Metric, *matchers: str, selected: str = SELECTED, **labels: str) -> str:
    """A metric of what is chosen, its labels compared for equality, and by further matchers."""
    matchers = (selected, *matchers, *(f'{label}="{value}"' for label, value in labels.items()))
    return metric.name + "{" + ",".join(matchers) + "}"


def rate(metric: Metric, **labels: str) -> str:
    """How fast a counter grows, a second."""
    return f"rate({of(metric, **labels)}[$__rate_interval])"


def worst(expression: str, *, low: bool = False, count: int = MANY) -> str:
    """Those series that had the highest (or lowest) value within the time shown: one choice for the whole of it."""
    choose, extreme = ("bottomk", "min_over_time") if low else ("topk", "max_over_time")
    return f"({expression}) and {choose}({count}, {extreme}(({expression})[$__range:$__interval] @ end()))"


def labelled(expression: str, label: str, text: str, said_of: str = "") -> str:
    """Series with one more label, in whose text $1 is the value of the label `said_of`."""
    return f'label_replace({expression}, "{label}", "{text}", "{said_of}", "(.*)")'


def one(by: str, expression: str) -> str:
    """One series of each group, whatever it is, so that a join never fails."""
    return f"topk by ({by}) (1, {expression})"


def cells(*columns: tuple[str, str]) -> str:
    """Series by their label ``at`` and the column that they belong to, for a table that is a matrix."""
    return " or ".join(labelled(expression, "column", name) for name, expression in columns)


def at(expression: str, *labels: str) -> str:
    """What a row is of, in one label."""
    names = ", ".join(f'"{label}"' for label in labels)
    return f'label_join({expression}, "at", " ", {names})'


def or_none(expression: str, known: str, label: str, text: str) -> str:
    """Where there is nothing to show, one row that says so in a label; not even that unless `known` has series."""
    return f"{expression} or on () {labelled(f'0 * count({known})', label, text)}"


EXPORTERS = f'max by ({NODE}) (up{{job=~".*mecexporter.*",{SELECTED}}})'

VERDICT = f" or on ({NODE}) ".join(
    (
        f"({EXPORTERS} == 0) + 4",
        f"0 * (sum by ({NODE}) ({of(findings.FINDINGS, severity='critical')}) > 0) + 3",
        f"0 * (min by ({NODE}) ({of(findings.EVALUABLE)}) == 0) + 2",
        f"0 * (sum by ({NODE}) ({of(findings.FINDINGS, severity='warning')}) > 0) + 1",
        f"0 * min by ({NODE}) ({of(findings.EVALUABLE)})",
        f"0 * {EXPORTERS} + 2",
    )
)
"""The index in VERDICTS, of each node; one whose exporter answers without a single check cannot tell."""

CRITICAL_SINCE = (
    f"1000 * {of(findings.FIRST_SEEN)} and on ({NODE}, check, subject) {of(findings.INFO, severity='critical')}"
)

# Panels


def query(expression: str, legend: str = "{{instance}}", *, instant: bool = False, table: bool = False) -> Json:
    """One target, without its refId; a table asks for the end of the time shown."""
    return {
        "datasource": SOURCE,
        "expr": expression,
        "legendFormat": "__auto" if table else legend,
        "format": "table" if table else "time_series",
        "instant": instant or table,
        "range": not (instant or table),
    }


def panel(
    kind: str,
    title: str,
    description: str,
    targets: Iterable[Json],
    *,
    size: tuple[int, int],
    unit: str,
    empty: str,
    steps: Steps = NEUTRAL,
    options: Json | None = None,
    **more: Any,
) -> Json:
    """What all kinds share. `empty`: what is said where there is no series; `more`: further defaults of its fields."""
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "gridPos": {"w": size[0], "h": size[1]},
        "targets": [{"refId": chr(ord("A") + number), **target} for number, target in enumerate(targets)],
        "fieldConfig": {
            "defaults": {
                "unit": unit,
                "noValue": empty,
                "thresholds": {
                    "mode": "absolute",
                    "steps": [{"value": value, "color": color} for value, color in steps],
                },
                **more,
            },
            "overrides": [],
        },
        "options": options or {},
    }


def states(names: Iterable[tuple[str, str]]) -> list[Json]:
    """Value mappings from 0, 1, … to a text and a colour each."""
    options = {
        str(number): {"index": number, "text": text, "color": color} for number, (text, color) in enumerate(names)
    }
    return [{"type": "value", "options": options}]


def state_timeline(
    title: str, description: str, targets: Iterable[Json], *, names: Iterable[tuple[str, str]], **more: Any
) -> Json:
    """One line a series; a gap where nothing is known."""
    return panel(
        "state-timeline",
        title,
        description,
        targets,
        unit="none",
        mappings=states(names),
        color={"mode": "thresholds"},
        custom={"fillOpacity": 80, "lineWidth": 0},
        options={"mergeValues": True, "showValue": "auto", "rowHeight": 0.85, "legend": {"showLegend": True}},
        **more,
    )


def timeseries(
    title: str,
    description: str,
    targets: Iterable[Json],
    *,
    line: bool = False,
    stepped: bool = False,
    soft_max: float = 1,
    **more: Any,
) -> Json:
    """`line`: the thresholds are drawn; `stepped`: a count keeps its value until it changes.

    soft_max: how far the axis reaches at least, so that a line of zeros does not look like one of a hundred.
    """
    return panel(
        "timeseries",
        title,
        description,
        targets,
        min=0,
        color={"mode": "palette-classic"},
        custom={
            "lineWidth": 2,
            "fillOpacity": 0,
            "showPoints": "never",
            "lineInterpolation": "stepAfter" if stepped else "linear",
            "thresholdsStyle": {"mode": "dashed" if line else "off"},
            "axisSoftMax": soft_max,
        },
        options={
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        **more,
    )


def column(name: str, **properties: Any) -> Json:
    """An override of one column; `_` in a property's name stands for its dot."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": key.replace("_", "."), "value": value} for key, value in properties.items()],
    }


def texts(*colored: tuple[str, str]) -> list[Json]:
    """Value mappings that colour texts and leave them as they are."""
    return [
        {"type": "regex", "options": {"pattern": pattern, "result": {"index": number, "color": color}}}
        for number, (pattern, color) in enumerate(colored)
    ]


def steps(*colored: tuple[float | None, str]) -> Json:
    """Thresholds of one column."""
    return {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in colored]}


COLORED_TEXT = {"type": "color-text"}
NODE_LINK = [
    {
        "title": "This node alone",
        "url": f"/d/{NODE_UID}?${{datasource:queryparam}}&${{site:queryparam}}"
        "&var-instance=${__value.text}&${__url_time_range}",
    }
]


def table(
    title: str,
    description: str,
    expression: str,
    columns: dict[str, str],
    overrides: Iterable[Json] = (),
    *,
    matrix: tuple[str, str, str] | None = None,
    sort: Sequence[Json] = (),
    **more: Any,
) -> Json:
    """`columns`: labels (or Value) to their headings, in order; others are left out.

    matrix: the labels that become rows, columns and cells, in place of one row a series.
    """
    transformations: list[Json] = []
    if matrix:
        row, col, cell = matrix
        grouping = {"rowField": row, "columnField": col, "valueField": cell, "emptyValue": "empty"}
        transformations.append({"id": "groupingToMatrix", "options": grouping})
    transformations += [
        {"id": "filterFieldsByName", "options": {"include": {"names": list(columns)}}},
        {
            "id": "organize",
            "options": {
                "indexByName": {name: index for index, name in enumerate(columns)},
                "renameByName": columns,
                "excludeByName": {},
            },
        },
    ]
    made = panel(
        "table",
        title,
        description,
        [query(expression, table=True)],
        options={"showHeader": True, "cellHeight": "sm", "sortBy": list(sort), "footer": {"show": False}},
        custom={"align": "left"},
        **more,
    )
    no_text = {"matcher": {"id": "byRegexp", "options": "/.*/"}, "properties": [{"id": "noValue", "value": "-"}]}
    made["fieldConfig"]["overrides"] = [
        no_text,
        column("Site", custom_width=100),
        column("Node", links=NODE_LINK, custom_width=160),
        *overrides,
    ]
    return made | {"transformations": transformations}


def findings_table(*matchers: str) -> Json:
    """What was found by the checks that match."""
    found = (
        f"1000 * {of(findings.FIRST_SEEN, *matchers)} * on ({NODE}, check, subject) group_left (severity)"
        f" {of(findings.INFO, *matchers)}"
    )
    return table(
        "Findings",
        "What the nodes have found wrong with themselves, the critical first. `mecexporter check` on the node says"
        " what to do; the alert's runbook explains.",
        or_none(found, of(findings.EVALUABLE, *matchers), "check", "no findings on the nodes that answer"),
        {
            "severity": "Severity",
            "site": "Site",
            "instance": "Node",
            "check": "Check",
            "subject": "Subject",
            "Value": "Since",
        },
        [
            column(
                "Severity",
                mappings=texts(("critical", "red"), ("warning", "orange")),
                custom_cellOptions={"type": "color-background", "mode": "basic"},
                custom_width=95,
            ),
            column(
                "Check",
                mappings=texts(("no findings .*", "green")),
                custom_cellOptions=COLORED_TEXT,
                custom_width=250,
            ),
            column(
                "Since",
                unit="dateTimeFromNow",
                mappings=[{"type": "value", "options": {"0": {"index": 0, "text": "-"}}}],
                custom_width=130,
            ),
        ],
        sort=[{"displayName": "Severity", "desc": False}],
        size=(15, 8),
        unit="none",
        empty=NOBODY,
    )


def unknown_table(expression: str, *matchers: str, selected: str = SELECTED) -> Json:
    """Series of checks and sources that have no answer; matchers: of the checks among them."""
    return table(
        "What cannot be told",
        "Checks that lack an answer of a source they need, and the sources without an answer. Such a check is"
        " neither well nor ill: look after the source first.",
        or_none(expression, of(findings.EVALUABLE, *matchers, selected=selected), "check", "every check can tell"),
        {"site": "Site", "instance": "Node", "check": "Check", "source": "Source"},
        [
            column(
                "Check",
                mappings=texts(("every check can tell", "green"), (".+", "purple")),
                custom_cellOptions=COLORED_TEXT,
                custom_width=230,
            ),
            column("Source", mappings=texts((".+", "purple")), custom_cellOptions=COLORED_TEXT),
        ],
        size=(9, 8),
        unit="none",
        empty=NOBODY,
    )


def lay_out(sections: Iterable[tuple[str, list[Json]]]) -> list[Json]:
    """Rows with a title (or none) and their panels, put where the columns are least filled, leftmost first."""
    placed: list[Json] = []
    filled = [0] * COLUMNS
    for title, panels in sections:
        if title:
            y = max(filled)
            placed.append({"type": "row", "title": title, "collapsed": False, "panels": []} | _at(0, y, COLUMNS, 1))
            filled = [y + 1] * COLUMNS
        for each in panels:
            w, h = each["gridPos"]["w"], each["gridPos"]["h"]
            y, x = min((max(filled[x : x + w]), x) for x in range(COLUMNS - w + 1))
            filled[x : x + w] = [y + h] * w
            placed.append(each | _at(x, y, w, h))
    return [{"id": number, **each} for number, each in enumerate(placed, 1)]


def _at(x: int, y: int, w: int, h: int) -> Json:
    return {"gridPos": {"x": x, "y": y, "w": w, "h": h}}


def variable(name: str, label: str, metric: Metric, matchers: str = "") -> Json:
    """Values of a label that may be missing altogether: All matches its absence too."""
    text = f"label_values({metric.name}{matchers}, {name})"
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": SOURCE,
        "query": {"query": text, "refId": name},
        "definition": text,
        "refresh": 2,  # when the time range changes
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def annotation(name: str, color: str, expression: str, title: str, text: str) -> Json:
    """Marks at the times that are the values (ms) of the expression."""
    return {
        "name": name,
        "enable": True,
        "datasource": SOURCE,
        "expr": expression,
        "useValueForTime": True,
        "iconColor": color,
        "titleFormat": title,
        "textFormat": text,
    }


SITE_VARIABLE = variable("site", "Site", exporter.BUILD)


def dashboard(
    uid: str,
    title: str,
    description: str,
    sections: Iterable[tuple[str, list[Json]]],
    annotations: Iterable[Json],
    *,
    variables: Iterable[Json] = (variable("instance", "Node", exporter.BUILD, '{site=~"$site"}'),),
    time_from: str = "now-1h",
    refresh: str = "30s",
) -> Json:
    """A whole one, for chosen sites, and nodes or what else there is to choose."""
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["mecexporter", "ovn"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,  # one crosshair in all panels
        "refresh": refresh,
        "time": {"from": time_from, "to": "now"},
        "templating": {
            "list": [
                {"type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus"},
                SITE_VARIABLE,
                *variables,
            ]
        },
        "annotations": {"list": list(annotations)},
        "panels": lay_out(sections),
    }
