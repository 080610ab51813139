"""*Node identity*: is each node the chassis it thinks it is, and is its Open vSwitch really programmed?"""

from __future__ import annotations

from dashboards.panels import (
    ANY_IS_BAD,
    COLORED_TEXT,
    COLUMNS,
    CRITICAL_SINCE,
    EXPORTERS,
    LINES,
    MANY,
    NOBODY,
    NODE,
    NODE_UID,
    NONE_IS_BAD,
    VERDICT,
    VERDICTS,
    Json,
    annotation,
    column,
    dashboard,
    findings_table,
    labelled,
    of,
    or_none,
    panel,
    query,
    rate,
    state_timeline,
    table,
    texts,
    timeseries,
    unknown_table,
    worst,
)
from mecexporter.metrics.collectors import (
    datapath,
    exporter,
    findings,
    node,
    ovn_chassis,
    ovn_controller,
    ovs_interfaces,
    tunnels,
)
from mecexporter.metrics.render import COLLECTOR_SUCCESS

_IDS, _EFFECTIVE = of(node.SYSTEM_ID), of(node.SYSTEM_ID, origin="effective")
_OTHERS = f"({_IDS} unless on ({NODE}, system_id) {_EFFECTIVE} and on ({NODE}) {_EFFECTIVE})"
IDS = f"sort_desc({labelled(_OTHERS, 'system_id', '≠ $1', 'system_id')} or 0 * ({_IDS} unless {_OTHERS}))"
"""An id that is not the effective one is marked; the nodes that have such ids come first."""

UNKNOWN = f"{of(findings.EVALUABLE)} == 0 or {of(exporter.UP)} == 0"

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
_LISTED = f'max by (site) (sum by ({NODE}) ({ovn_chassis.STATE.name}{{site=~"$site",state!~"remote|silent"}}))'
WITHOUT_TUNNEL = f"clamp_min({_LISTED} - 1 - on (site) group_right () {of(tunnels.CHASSIS)}, 0)"
UPLINK_TRAFFIC = (
    f"8 * {rate(ovs_interfaces.BYTES)} and on ({NODE}, bridge, device) {of(ovs_interfaces.UP, kind='uplink')}"
)


# Panels


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
        findings_table(),
        unknown_table(UNKNOWN),
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
            empty=f"{NOBODY}, or OVN is before 21.03",
            stepped=True,
        ),
        timeseries(
            "BFD of the tunnels",
            "Tunnels of all chosen nodes together by their BFD sessions. OVN has BFD only between candidates for a"
            " gateway: the others are off. Down is an underlay that is cut, or a host that is.",
            [query(f"sum by (bfd_state) ({of(tunnels.TUNNELS)})", "{{bfd_state}}")],
            size=(12, 7),
            unit="short",
            decimals=0,
            empty=NOBODY,
            stepped=True,
        ),
        timeseries(
            "Chassis without a tunnel",
            "How many of the chassis that Southbound lists a node has no tunnel to, as Northbound's writer or leader"
            " counts them; remote and silent ones are left out. Zero is a full mesh. Transport zones leave some out for"
            f" good; a step up on one node is one that no longer follows. The {MANY} nodes with the most.",
            [query(worst(WITHOUT_TUNNEL))],
            size=(12, 7),
            unit="short",
            decimals=0,
            empty="No writer or leader of Northbound answers, or no node",
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


def node_identity() -> Json:
    """*Node identity*: is each node the chassis it thinks it is, and is its Open vSwitch really programmed?"""
    return dashboard(
        NODE_UID,
        "Node identity",
        "Is each node the chassis that it thinks it is, and is its Open vSwitch really programmed?",
        (
            ("", health()),
            ("Who each node is, and whether it is programmed", identity()),
            ("Tunnels and ports", interfaces()),
            ("Datapath and traffic", traffic()),
            ("What runs", versions()),
            ("The exporter itself", exporters()),
        ),
        (
            annotation(
                "Versions",
                "blue",
                f"1000 * {of(node.COMPONENT_SINCE)}",
                "{{instance}}: {{component}} {{version}}",
                "first seen",
            ),
            annotation("Critical findings", "red", CRITICAL_SINCE, "{{instance}}: {{check}}", "{{subject}}"),
        ),
    )
