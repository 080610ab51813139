"""Writes the dashboards beside this file: ``python dashboards/build.py``.

Names of metrics come from their declarations only. What is written is the classic dashboard JSON of Grafana 11 and
later. A panel is a dict as in that JSON, but its gridPos has only a width and a height: `lay_out` places it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mecexporter.metrics.collectors import datapath, exporter, findings, node, ovn_controller, ovs_interfaces
from mecexporter.metrics.render import COLLECTOR_SUCCESS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mecexporter.metrics.spec import Metric

Json = dict[str, Any]
Steps = tuple[tuple[float | None, str], ...]  # from which value on which colour; the first has no value

UID = "mec-node-identity"
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


def of(metric: Metric, **labels: str) -> str:
    """A metric of the chosen nodes, its labels compared for equality."""
    matchers = [SELECTED, *(f'{label}="{value}"' for label, value in labels.items())]
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

OPEN = f"1000 * {of(findings.FIRST_SEEN)} * on ({NODE}, check, subject) group_left (severity) {of(findings.INFO)}"
CRITICAL_SINCE = (
    f"1000 * {of(findings.FIRST_SEEN)} and on ({NODE}, check, subject) {of(findings.INFO, severity='critical')}"
)

_IDS, _EFFECTIVE = of(node.SYSTEM_ID), of(node.SYSTEM_ID, origin="effective")
_OTHERS = f"({_IDS} unless on ({NODE}, system_id) {_EFFECTIVE} and on ({NODE}) {_EFFECTIVE})"
IDS = f"sort_desc({labelled(_OTHERS, 'system_id', '≠ $1', 'system_id')} or 0 * ({_IDS} unless {_OTHERS}))"
"""An id that is not the effective one is marked; the nodes that have such ids come first."""

UNKNOWN = or_none(
    f"{of(findings.EVALUABLE)} == 0 or {of(exporter.UP)} == 0",
    of(findings.EVALUABLE),
    "check",
    "every check can tell",
)

FAULTS = or_none(
    " or ".join(
        (
            labelled(
                f"{of(COLLECTOR_SUCCESS)} == 0", "fault", "collector $1 fails: its metrics are missing", "collector"
            ),
            labelled(f"increase({of(findings.FAILURES)}[$__range]) > 0", "fault", "check $1 raised an error", "check"),
            labelled(f"{of(exporter.STATE_WRITABLE)} == 0", "fault", "cannot write to its state directory"),
            labelled(f"{of(findings.TRUNCATED)} > 0", "fault", "check $1 has more findings than are listed", "check"),
            labelled(f"{of(ovs_interfaces.TRUNCATED)} > 0", "fault", "more interfaces than have series of their own"),
        )
    ),
    of(COLLECTOR_SUCCESS),
    "fault",
    "none",
)

LAG = (
    f'max by (site) ({ovn_controller.NB_CFG.name}{{site=~"$site"}})'
    f" - on (site) group_right () {of(ovn_controller.NB_CFG)}"
)
TUNNELS_UP = (
    f"sum by ({NODE}) ({of(ovs_interfaces.UP, kind='tunnel')}) or on ({NODE}) 0 * {of(ovs_interfaces.TRUNCATED)}"
)
UPLINK_TRAFFIC = (
    f"8 * {rate(ovs_interfaces.BYTES)} and on ({NODE}, bridge, device) {of(ovs_interfaces.UP, kind='uplink')}"
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


COLORED_TEXT = {"type": "color-text"}
NODE_LINK = [
    {
        "title": "This node alone",
        "url": f"/d/{UID}?${{datasource:queryparam}}&${{site:queryparam}}"
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


# Dashboards


def verdict_panel() -> Json:
    """A tile a verdict."""
    made = panel(
        "stat",
        "Nodes by verdict",
        "Each node counts once, by the worst that is known of it. Critical and warning: it has found something wrong"
        " with itself. Cannot tell: a check lacks the answer of a source, so that trouble would not be seen."
        " No answer: its exporter is not there, nothing is known of the node. All in green is well.",
        [
            query(f"count(({VERDICT}) == {number}) or 0 * count({EXPORTERS})", name, instant=True)
            for number, (name, _) in reversed(list(enumerate(VERDICTS)))
        ],
        size=(COLUMNS, 4),
        unit="none",
        empty="Prometheus knows no exporter of ours",
        options={
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "background",
            "graphMode": "none",
            "textMode": "value_and_name",
            "justifyMode": "center",
            "orientation": "vertical",
        },
    )
    made["fieldConfig"]["overrides"] = [
        column(
            name,
            thresholds={
                "mode": "absolute",
                "steps": [
                    {"value": None, "color": "#3f434a"},
                    {"value": 1, "color": color},
                ],
            },
        )
        for name, color in VERDICTS
    ]
    return made


def health() -> list[Json]:
    """Which nodes are not healthy, since when and why."""
    return [
        verdict_panel(),
        table(
            "Findings",
            "What the nodes have found wrong with themselves, the critical first. `mecexporter check` on the node says"
            " what to do; the alert's runbook explains.",
            or_none(OPEN, of(findings.EVALUABLE), "check", "no findings on the nodes that answer"),
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
        ),
        table(
            "What cannot be told",
            "Checks that lack an answer of a source they need, and the sources without an answer. Such a check is"
            " neither well nor ill: look after the source first.",
            UNKNOWN,
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
        ),
        state_timeline(
            "Verdict of each node",
            f"The worst that was known of a node at each moment; the {LINES} nodes that fared worst.",
            [query(worst(VERDICT, count=LINES))],
            names=VERDICTS,
            size=(COLUMNS, 6),
            empty="Prometheus knows no exporter of ours",
        ),
    ]


def identity() -> list[Json]:
    """Who each node thinks it is, and whether OVN has really programmed it."""
    return [
        table(
            "System-id by origin",
            "Each node's system-id as every origin has it. In force is what ovn-controller uses; an id that differs"
            " from it is red and marked ≠. Last healthy: what the exporter remembers. Southbound: the Chassis that"
            " stands there for this node. Red in Last healthy and Southbound after a driver's installer has run: put"
            " the old id back. A dash: no such id, or not known.",
            IDS,
            {
                "instance\\origin": "Node",
                "effective": "In force",
                "memory": "Last healthy",
                "southbound": "Southbound",
                "ovsdb": "Open vSwitch database",
                "file": "system-id.conf",
                "override": "Override file",
                "commandline": "Command line",
            },
            [
                {
                    "matcher": {"id": "byType", "options": "string"},
                    "properties": [
                        {"id": "mappings", "value": texts(("≠ .*", "red"))},
                        {"id": "custom.cellOptions", "value": COLORED_TEXT},
                    ],
                },
                column("Node", custom_width=125),
            ],
            matrix=("instance", "origin", "system_id"),
            size=(COLUMNS, 6),
            unit="none",
            empty=NOBODY,
        ),
        state_timeline(
            "ovn-controller",
            "What ovn-controller says of itself. Connected is no proof: it also says so while all it writes is refused."
            f" A gap: it does not answer. The {LINES} nodes that fared worst.",
            [
                query(
                    worst(
                        f"2 * {of(ovn_controller.CONNECTED)} * (1 - {of(ovn_controller.PAUSED)})"
                        f" + {of(ovn_controller.PAUSED)}",
                        low=True,
                        count=LINES,
                    )
                )
            ],
            names=(("not connected", "red"), ("paused", "orange"), ("connected", "green")),
            size=(12, 7),
            empty="No ovn-controller answers",
        ),
        timeseries(
            "Refused transactions of ovn-controller",
            "Writes to the Southbound database that failed, a second. One now and then, as at a live migration, is"
            " normal; errors that go on mean that nothing new is set up here.",
            [query(worst(rate(ovn_controller.TXN_ERRORS)))],
            size=(12, 7),
            unit="suffix:errors/s",
            empty="No ovn-controller answers",
            decimals=1,
        ),
        timeseries(
            "Flows in the integration bridge",
            "OpenFlow flows that ovn-controller has set up. At 0 no VM of the node has a network. The line ends where"
            f" the bridge is gone or cannot be asked. The {MANY} nodes with the fewest.",
            [query(worst(of(ovn_controller.FLOWS), low=True), "{{instance}} {{bridge}}")],
            size=(12, 7),
            unit="short",
            steps=NONE_IS_BAD,
            line=True,
            empty="No integration bridge answers",
            stepped=True,
        ),
        timeseries(
            "nb_cfg: behind the furthest node",
            "How many of Neutron's configuration numbers a node has not installed yet. Zero is up to date, a short peak"
            " is normal, a step that stays is a node that no longer follows. No line: nothing is installed at all.",
            [query(worst(LAG))],
            size=(12, 7),
            unit="short",
            empty="No node has an nb_cfg installed",
            stepped=True,
            decimals=0,
        ),
    ]


def interfaces() -> list[Json]:
    """Tunnels and ports."""
    return [
        timeseries(
            "Tunnels up",
            "Tunnels to other chassis that work: link up, an OpenFlow port, no error, BFD not down. A fall without"
            f" hosts being taken away cuts VMs off from each other. The {MANY} nodes with the fewest.",
            [query(worst(TUNNELS_UP, low=True))],
            size=(8, 7),
            unit="short",
            decimals=0,
            empty=NOBODY,
            stepped=True,
        ),
        timeseries(
            "Failed interfaces by kind",
            "Interfaces for which Open vSwitch reports an error, such as a device that is gone. Zero is healthy.",
            [query(worst(f"sum by ({NODE}, kind) ({of(ovs_interfaces.FAILED)})"), "{{instance}} {{kind}}")],
            size=(8, 7),
            unit="short",
            decimals=0,
            steps=ANY_IS_BAD,
            line=True,
            empty=NOBODY,
            stepped=True,
        ),
        timeseries(
            "Ports that OVN has not installed",
            "Interfaces of VMs in the integration bridge that wait for OVN. Seconds at a VM's start are normal; one"
            " that stays is a VM without a network, or a port that was left behind.",
            [query(worst(of(ovs_interfaces.INSTALLED, installed="0")))],
            size=(8, 7),
            unit="short",
            decimals=0,
            steps=ANY_IS_BAD,
            line=True,
            empty=NOBODY,
            stepped=True,
        ),
    ]


def traffic() -> list[Json]:
    """The datapath, and what goes through it."""
    lookups = datapath.LOOKUPS
    return [
        timeseries(
            "Lookups in the datapath",
            "Packets looked up, of all chosen nodes together. Hit: a flow was there. Missed: a first packet, asked"
            " of ovs-vswitchd. Many misses among few hits mean short connections, or flows thrown out early.",
            [query(f"sum by (result) ({rate(lookups)})", "{{result}}")],
            size=(8, 7),
            unit="pps",
            empty="No ovs-vswitchd answers",
        ),
        timeseries(
            "Lost upcalls",
            "First packets that were dropped, because ovs-vswitchd did not keep up with them. Zero is healthy.",
            [query(worst(rate(lookups, result="lost")), "{{instance}} {{datapath}}")],
            size=(8, 7),
            unit="pps",
            steps=((None, "green"), (0.001, "red")),
            line=True,
            empty="No ovs-vswitchd answers",
        ),
        timeseries(
            "Flows against the limit",
            "Flows in the datapath as a share of what ovs-vswitchd allows now. From 90 % on flows are soon thrown out"
            " early, and their packets go the slow way.",
            [query(worst(f"{of(datapath.UPCALL_FLOWS)} / {of(datapath.UPCALL_LIMIT)}"), "{{instance}} {{datapath}}")],
            size=(8, 7),
            unit="percentunit",
            steps=((None, "green"), (0.9, "red")),
            line=True,
            empty="No ovs-vswitchd answers",
        ),
        timeseries(
            "Traffic by kind of interface",
            "All chosen nodes together, as the switch sees it: rx comes in from a VM (vif), a tunnel or an uplink."
            " What hardware forwards by itself is counted where the driver reports it.",
            [query(f"8 * sum by (kind, direction) ({rate(ovs_interfaces.KIND_BYTES)})", "{{kind}} {{direction}}")],
            size=(8, 7),
            unit="bps",
            empty=NOBODY,
        ),
        timeseries(
            "Traffic of the uplinks",
            f"Each uplink as the switch sees it; the {MANY} busiest.",
            [query(worst(UPLINK_TRAFFIC), "{{instance}} {{device}} {{direction}}")],
            size=(8, 7),
            unit="bps",
            empty="No node has an uplink in Open vSwitch",
        ),
        timeseries(
            "Dropped packets and errors",
            "Packets dropped or broken at interfaces of a kind, of all chosen nodes together. Near zero is healthy.",
            [
                query(f"sum by (kind) ({rate(ovs_interfaces.KIND_DROPPED)})", "{{kind}} dropped"),
                query(f"sum by (kind) ({rate(ovs_interfaces.KIND_ERRORS)})", "{{kind}} errors"),
            ],
            size=(8, 7),
            unit="pps",
            empty=NOBODY,
        ),
    ]


def versions() -> list[Json]:
    """What runs, and since when."""
    return [
        table(
            "Versions",
            "What runs on each node. Nodes of one site should not differ for long. Empty: not known now.",
            of(node.NODE),
            {
                "site": "Site",
                "instance": "Node",
                "hostname": "Hostname",
                "kernel": "Kernel",
                "ovs_version": "Open vSwitch",
                "ovn_version": "OVN",
            },
            size=(13, 7),
            unit="none",
            empty=NOBODY,
        ),
        table(
            "When each version was first seen",
            "The last change first. A version that nobody changed on purpose came with somebody's installer. The blue"
            " lines in the graphs mark these moments.",
            f"sort_desc(1000 * {of(node.COMPONENT_SINCE)})",
            {"site": "Site", "instance": "Node", "component": "Component", "version": "Version", "Value": "First seen"},
            [column("First seen", unit="dateTimeAsIso", custom_width=170), column("Component", custom_width=120)],
            size=(11, 7),
            unit="none",
            empty=NOBODY,
        ),
    ]


def exporters() -> list[Json]:
    """Whether all of the above can be believed."""
    answers = (("no answer", "red"), ("answers", "green"))
    return [
        state_timeline(
            "Sources",
            "Whether each source of an exporter answers. While one does not, its metrics are absent and the checks"
            f" that need it cannot tell. The {MANY} that fared worst.",
            [query(worst(of(exporter.UP), low=True), "{{instance}} {{source}}")],
            names=answers,
            size=(12, 10),
            empty=NOBODY,
        ),
        state_timeline(
            "Scrapes",
            f"Whether Prometheus reaches each exporter. The {LINES} that fared worst.",
            [query(worst(EXPORTERS, low=True, count=LINES))],
            names=answers,
            size=(12, 5),
            empty="Prometheus knows no exporter of ours",
        ),
        table(
            "Faults of the exporter itself",
            "What keeps an exporter from telling all it knows; its log has the details.",
            FAULTS,
            {"site": "Site", "instance": "Node", "fault": "Fault"},
            [column("Fault", mappings=texts(("none", "green"), (".+", "red")), custom_cellOptions=COLORED_TEXT)],
            size=(12, 5),
            unit="none",
            empty=NOBODY,
        ),
        timeseries(
            "Failed reads of sources",
            "Reads that failed, a second, by source. Zero is healthy; the page of the exporter says why they fail.",
            [
                query(
                    worst(f"sum by ({NODE}, source) ({rate(exporter.ERRORS)})"),
                    "{{instance}} {{source}}",
                )
            ],
            size=(8, 7),
            unit="suffix:errors/s",
            decimals=1,
            empty=NOBODY,
        ),
        timeseries(
            "How long reads of sources take",
            f"The last read of each source; the {MANY} slowest.",
            [query(worst(of(exporter.DURATION)), "{{instance}} {{source}}")],
            size=(8, 7),
            unit="s",
            soft_max=0.1,
            empty=NOBODY,
        ),
        timeseries(
            "CPU of the exporter",
            "Share of one core, by node. It is there to do no harm: a few hundredths are usual.",
            [query(worst(rate(exporter.CPU)))],
            size=(4, 7),
            unit="percentunit",
            soft_max=0.1,
            empty=NOBODY,
        ),
        timeseries(
            "Memory of the exporter",
            "Resident memory, by node. It should be level.",
            [query(worst(of(exporter.RESIDENT)))],
            size=(4, 7),
            unit="bytes",
            empty=NOBODY,
        ),
    ]


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


def node_identity() -> Json:
    """*Node identity*: is each node the chassis it thinks it is, and is its Open vSwitch really programmed?"""
    return {
        "uid": UID,
        "title": "Node identity",
        "description": "Is each node the chassis that it thinks it is, and is its Open vSwitch really programmed?",
        "tags": ["mecexporter", "ovn"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,  # one crosshair in all panels
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus"},
                variable("site", "Site", exporter.BUILD),
                variable("instance", "Node", exporter.BUILD, '{site=~"$site"}'),
            ]
        },
        "annotations": {
            "list": [
                annotation(
                    "Versions",
                    "blue",
                    f"1000 * {of(node.COMPONENT_SINCE)}",
                    "{{instance}}: {{component}} {{version}}",
                    "first seen",
                ),
                annotation("Critical findings", "red", CRITICAL_SINCE, "{{instance}}: {{check}}", "{{subject}}"),
            ]
        },
        "panels": lay_out(
            (
                ("", health()),
                ("Who each node is, and whether it is programmed", identity()),
                ("Tunnels and ports", interfaces()),
                ("Datapath and traffic", traffic()),
                ("What runs", versions()),
                ("The exporter itself", exporters()),
            )
        ),
    }


def dashboards() -> dict[str, str]:
    """The text of each file, by its name."""
    return {"node-identity.json": json.dumps(node_identity(), indent=2, ensure_ascii=False) + "\n"}


if __name__ == "__main__":
    for name, text in dashboards().items():
        (Path(__file__).parent / name).write_text(text)
