"""*Hardware offload*: what share of packets does the NIC carry, and why not the rest?

Shares are made of what was carried, never of shares: sums of rates of counters, one divided by the other. What no
hardware is expected to carry (docs/offload.md) is left out, and a node counts only while all its flows are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboards.panels import (
    ANY_IS_BAD,
    COLORED_TEXT,
    COLUMNS,
    LINES,
    MANY,
    NOBODY,
    NODE,
    Json,
    Steps,
    annotation,
    at,
    column,
    dashboard,
    findings_table,
    labelled,
    of,
    panel,
    query,
    state_timeline,
    states,
    steps,
    table,
    texts,
    timeseries,
    unknown_table,
    worst,
)
from mecexporter.checks.offload import BESIDE
from mecexporter.metrics.collectors import (
    conntrack,
    datapath,
    datapath_flows,
    exporter,
    findings,
    node,
    offload_config,
    representors,
    sriov,
    uplinks,
)
from mecexporter.state.datapath import Why

if TYPE_CHECKING:
    from mecexporter.metrics.spec import Metric

UID = "mec-offload"
CHECKS = 'check=~"offload_.+"'
SOURCES = 'source=~"tc|ovs_flows|conntrack|links|sysfs"'
PERIOD = "10m"
"""Flows are read once a minute, more rarely where there are very many."""
JUDGED = f'reason!~"{"|".join(sorted(BESIDE))}"'
GOOD: Steps = ((None, "red"), (0.5, "orange"), (0.8, "green"))
"""Of the share of hardware; 0.8 is what offload.ratio_low is by default."""

NO_FLOWS = "Not known: no node reads all its flows, or none has anything to offload"
NO_UPLINK = "No uplink is known: no exporter shows one"
NO_CONNTRACK = "Not known: no node tells of its connection tracking"
NO_REPRESENTOR = "No VF is plugged in by a representor, or no driver tells who carried its packets"

TABLES = 'source=~"tc|ovs_flows"'
WHOLE = f"(sum by ({NODE}) ({of(exporter.UP, TABLES)}) == 2)"


def flows(metric: Metric, *matchers: str, **labels: str) -> str:
    """A second, of nodes all of whose flows are read."""
    return f"(rate({of(metric, *matchers, **labels)}[{PERIOD}]) and on ({NODE}) {WHOLE})"


def hardware(unit: Metric, **labels: str) -> str:
    """What hardware carried."""
    return flows(unit, path="hardware", **labels)


_SOFTWARE = {
    datapath_flows.PACKETS.name: datapath_flows.SOFTWARE_PACKETS,
    datapath_flows.BYTES.name: datapath_flows.SOFTWARE_BYTES,
}


def software(unit: Metric, **labels: str) -> str:
    """What software carried, though hardware is to."""
    return flows(_SOFTWARE[unit.name], JUDGED, **labels)


def share(by: str, unit: Metric = datapath_flows.PACKETS, **labels: str) -> str:
    """Of what hardware is to carry, what it does; 0 where it carries nothing."""
    every = f"sum by ({by}) ({hardware(unit, **labels)} or {software(unit, **labels)})"
    return f"(sum by ({by}) ({hardware(unit, **labels)}) or 0 * {every}) / ({every} > 0)"


PER_NODE = share(NODE)


def tiles() -> Json:
    """What a NOC asks first."""
    gre = f"sum({software(datapath_flows.PACKETS, protocol='gre', conntrack='1')})"
    evaluable = of(findings.EVALUABLE, CHECKS)
    known = f"0 * count({of(datapath_flows.PACKETS)} and on ({NODE}) {WHOLE})"
    numbers = (
        ("packets in hardware", share(""), "percentunit", GOOD),
        ("bytes in hardware", share("", datapath_flows.BYTES), "percentunit", GOOD),
        ("GRE in hardware", share("", protocol="gre"), "percentunit", GOOD),
        ("GRE tracked, in software", f"{gre} or {known}", "pps", ((None, "green"), (100, "orange"))),
        ("nodes below 80 %", f"count({PER_NODE} < 0.8) or {known}", "none", ((None, "green"), (1, "orange"))),
        (
            "nodes not read",
            f"count({of(datapath_flows.SKIPPED)} == 1) or 0 * count({of(datapath_flows.SKIPPED)})",
            "none",
            ((None, "green"), (1, "purple")),
        ),
        (
            "checks can't tell",
            f"count({evaluable} == 0) or 0 * count({evaluable})",
            "none",
            ((None, "green"), (1, "purple")),
        ),
    )
    made = panel(
        "stat",
        "Hardware's share now, and what stands against it",
        "All chosen nodes together, over ten minutes: of the packets and bytes that NICs in switchdev mode are to"
        " carry, what they do. A grey 'not told': there was no such traffic, or it is not known.",
        [
            query(f"{expression} or on () 0 * count({of(exporter.BUILD)}) - 1", name, instant=True)
            for name, expression, _, _ in numbers
        ],
        size=(COLUMNS, 4),
        unit="none",
        empty=NOBODY,
        mappings=[{"type": "value", "options": {"-1": {"index": 0, "text": "not told", "color": "#6e7079"}}}],
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
        column(name, unit=unit, decimals=1 if unit == "percentunit" else 0, thresholds=steps(*colors))
        for name, _, unit, colors in numbers
    ]
    return made


def health() -> list[Json]:
    """Now."""
    unknown = f"{of(findings.EVALUABLE, CHECKS)} == 0 or {of(exporter.UP, SOURCES)} == 0"
    return [tiles(), findings_table(CHECKS), unknown_table(unknown, CHECKS)]


def _share_graph(title: str, description: str, targets: list[Json], width: int = 8) -> Json:
    return timeseries(
        title, description, targets, size=(width, 8), unit="percentunit", max=1, steps=GOOD, empty=NO_FLOWS
    )


def shares() -> list[Json]:
    """Over time."""
    return [
        _share_graph(
            "Hardware's share of packets and bytes",
            "All chosen nodes together. Bytes above packets: what is in software are small packets. A fall that comes"
            " with a version (blue line) came with somebody's installer. A gap: flows are not read.",
            [query(share("site"), "{{site}} packets"), query(share("site", datapath_flows.BYTES), "{{site}} bytes")],
        ),
        _share_graph(
            "Hardware's share by protocol",
            "Packets, all chosen nodes together. One protocol that falls alone: a kernel, driver or security group"
            " keeps it out. Other: also what no OpenFlow rule tells apart.",
            [query(share("protocol"), "{{protocol}}")],
        ),
        _share_graph(
            "Hardware's share by connection tracking",
            "Packets, all chosen nodes together. Tracked alone falls: connections are not put into hardware.",
            [
                query(share("conntrack", conntrack="1"), "tracked"),
                query(share("conntrack", conntrack="0"), "not tracked"),
            ],
        ),
        _share_graph(
            "Nodes with the smallest share",
            f"Packets, node by node: the {MANY} that were worst within the time shown.",
            [query(worst(PER_NODE, low=True))],
            width=12,
        ),
        timeseries(
            "Packets in hardware and in software",
            "All chosen nodes together. The share says nothing where there is next to no traffic: look here.",
            [
                query(f"sum({hardware(datapath_flows.PACKETS)})", "hardware"),
                query(f"sum({software(datapath_flows.PACKETS)})", "software, to be in hardware"),
                query(
                    f"sum({flows(datapath_flows.SOFTWARE_PACKETS, JUDGED.replace('!~', '=~'))})",
                    "software, and rightly so",
                ),
            ],
            size=(12, 8),
            unit="pps",
            empty=NO_FLOWS,
        ),
    ]


def reasons() -> list[Json]:
    """Why not."""
    by_node = f"topk({MANY}, sum by (site, instance) ({software(datapath_flows.PACKETS)}))"
    why = f"sum by (site, instance, reason) ({software(datapath_flows.PACKETS)}) >= 1"
    return [
        timeseries(
            "Packets in software by reason",
            "What hardware is to carry and does not, all chosen nodes together. docs/offload.md says what each reason"
            " means and how it is known; the runbook of MecOffloadRatioLow, what to do.",
            [query(f"sum by (reason) ({software(datapath_flows.PACKETS)})", "{{reason}}")],
            size=(12, 9),
            unit="pps",
            empty=NO_FLOWS,
        ),
        timeseries(
            "Flows in software by reason",
            "How many flows these are now; young ones may be on their way into hardware. Many flows with few packets"
            " are no trouble, few with many are.",
            [query(f"sum by (reason) ({of(datapath_flows.SOFTWARE_FLOWS, JUDGED)})", "{{reason}}")],
            size=(12, 9),
            unit="short",
            decimals=0,
            empty=NO_FLOWS,
            stepped=True,
        ),
        table(
            "Nodes with the most packets in software",
            f"The {MANY} nodes whose CPU switches most of what hardware is to carry, packets a second by reason.",
            f"{at(labelled(by_node, 'reason', 'all'), 'site', 'instance')}"
            f" or {at(f'({why}) and on (site, instance) {by_node}', 'site', 'instance')}",
            {
                "at\\reason": "Node",
                "all": "All",
                **{str(w): str(w) for w in Why if w not in BESIDE and w is not Why.YOUNG},
            },
            [column("Node", custom_width=220)],
            matrix=("at", "reason", "Value"),
            sort=[{"displayName": "All", "desc": True}],
            size=(COLUMNS, 8),
            unit="pps",
            decimals=0,
            empty=NO_FLOWS,
        ),
    ]


def gre() -> list[Json]:
    """Incident 4."""
    return [
        timeseries(
            "GRE by who carries it",
            "All chosen nodes together. Tracked: behind a stateful security group; in software that is a few hundred"
            " Mbit/s a host.",
            [
                query(
                    f"sum by (conntrack) ({hardware(datapath_flows.PACKETS, protocol='gre')})",
                    "hardware, conntrack {{conntrack}}",
                ),
                query(
                    f"sum by (conntrack) ({software(datapath_flows.PACKETS, protocol='gre')})",
                    "software, conntrack {{conntrack}}",
                ),
            ],
            size=(8, 8),
            unit="pps",
            empty=NO_FLOWS,
        ),
        timeseries(
            "Nodes with tracked GRE in software",
            f"Packets a second; the {MANY} worst. From 100 on it is a finding, which names the guests' ports.",
            [query(worst(f"sum by ({NODE}) ({software(datapath_flows.PACKETS, protocol='gre', conntrack='1')})"))],
            size=(8, 8),
            unit="pps",
            steps=((None, "green"), (100, "orange")),
            line=True,
            empty="No node has any, or it is not known",
        ),
        timeseries(
            "Connections of GRE",
            "As connection tracking holds them: in the NIC's flow table, or not. Where flows match any protocol this is"
            " all that tells of GRE.",
            [query(f"sum by (path) ({of(conntrack.GRE)})", "{{path}}")],
            size=(8, 8),
            unit="short",
            decimals=0,
            empty=NO_CONNTRACK,
            stepped=True,
        ),
    ]


def throughput() -> list[Json]:
    """What servers carry."""
    rates = f"sum by ({NODE}, direction) (rate({of(uplinks.BYTES)}[{PERIOD}]))"
    target = f"max by ({NODE}) ({of(offload_config.TARGET)})"
    lost = f"sum by ({NODE}) (rate({of(uplinks.DROPPED)}[{PERIOD}]) + rate({of(uplinks.ERRORS)}[{PERIOD}]))"
    seen = f"sum by ({NODE}) (rate({of(datapath_flows.PACKETS)}[{PERIOD}]))"
    passed = f"sum by ({NODE}) (rate({of(uplinks.PACKETS)}[{PERIOD}]))"
    return [
        timeseries(
            "Throughput of each server",
            f"Through all its uplinks, each direction for itself: the {MANY} that carried most. The dashed line is"
            " 40 Gbit/s.",
            [query(worst(f"8 * {rates}"), "{{instance}} {{direction}}")],
            size=(12, 8),
            unit="bps",
            steps=((None, "text"), (40e9, "green")),
            line=True,
            soft_max=40e9,
            empty=NO_UPLINK,
        ),
        timeseries(
            "Throughput against the target",
            f"Of what a server is to carry (offload.target), what it does, in its busier direction; the {MANY} that"
            " carried most. That little is sent is no trouble: look at drops and at the CPU's part too.",
            [query(worst(f"max by ({NODE}) ({rates}) / on ({NODE}) ({target} > 0)"))],
            size=(12, 8),
            unit="percentunit",
            empty=NO_UPLINK,
        ),
        timeseries(
            "Packets that uplinks lose",
            f"Dropped, or with errors, at all uplinks of a server: the {MANY} worst. A few are of no harm (frames of a"
            " protocol that nobody takes).",
            [query(worst(lost))],
            size=(8, 8),
            unit="pps",
            steps=((None, "green"), (10, "orange")),
            line=True,
            empty=NO_UPLINK,
        ),
        timeseries(
            "Packets of uplinks that no flow counted",
            "At least so many: what passed the uplinks less what all flows counted. The host's own traffic, flows that"
            " came and went between two reads, and all there is while flows are not read.",
            [query(worst(f"clamp_min({passed} - ({seen} or 0 * {passed}), 0)"))],
            size=(8, 8),
            unit="pps",
            empty=NO_UPLINK,
        ),
        timeseries(
            "VFs' packets by who carried them",
            "As the NIC's driver tells it of each representor, whatever flows are read: all chosen nodes together.",
            [query(f"sum by (path) (rate({of(representors.PACKETS)}[{PERIOD}]))", "{{path}}")],
            size=(8, 8),
            unit="pps",
            empty=NO_REPRESENTOR,
        ),
        table(
            "VFs with the most packets in software",
            f"Packets a second that the CPU handled, by representor: the {MANY} busiest.",
            f"topk({MANY}, sum by (site, instance, device, pf, vf)"
            f" (rate({of(representors.PACKETS, path='software')}[{PERIOD}])))",
            {
                "site": "Site",
                "instance": "Node",
                "device": "Representor",
                "pf": "PF",
                "vf": "VF",
                "Value": "Packets a second",
            },
            [column("Packets a second", unit="pps", decimals=0)],
            sort=[{"displayName": "Packets a second", "desc": True}],
            size=(COLUMNS, 8),
            unit="none",
            empty=NO_REPRESENTOR,
        ),
    ]


def tracking() -> list[Json]:
    """Connection tracking, the datapath, and what is read of both."""
    return [
        timeseries(
            "How full connection tracking is",
            f"Connections, of as many as the kernel allows: the {MANY} fullest nodes. When it is full, first packets of"
            " new connections are dropped.",
            [query(worst(f"{of(conntrack.ENTRIES)} / {of(conntrack.LIMIT)}"))],
            size=(8, 8),
            unit="percentunit",
            steps=((None, "green"), (0.9, "red")),
            line=True,
            empty=NO_CONNTRACK,
        ),
        timeseries(
            "Connections in flow tables",
            "All chosen nodes together: in the NIC's flow table (hardware), in the kernel's own (software), and all.",
            [
                query(f"sum by (path) ({of(conntrack.OFFLOADED)})", "{{path}}"),
                query(f"sum({of(conntrack.ENTRIES)})", "all"),
            ],
            size=(8, 8),
            unit="short",
            decimals=0,
            empty=NO_CONNTRACK,
            stepped=True,
        ),
        timeseries(
            "Upcalls that were lost",
            f"First packets of connections that ovs-vswitchd did not keep up with: the {MANY} worst datapaths.",
            [query(worst(f"rate({of(datapath.LOOKUPS, result='lost')}[{PERIOD}])"), "{{instance}} {{datapath}}")],
            size=(8, 8),
            unit="pps",
            steps=ANY_IS_BAD,
            line=True,
            empty=NOBODY,
        ),
        state_timeline(
            "Detail that was skipped",
            "Whether flows, or connections, were too many to be read one by one; then nothing is known of their share."
            f" A gap: the source has no answer, or was never asked. The {LINES} that fared worst.",
            [query(worst(of(datapath_flows.SKIPPED), count=LINES), "{{instance}} {{source}}")],
            names=(("read", "green"), ("skipped", "purple")),
            size=(12, 8),
            empty=NOBODY,
        ),
        timeseries(
            "Time between reads of all flows",
            f"The more flows there are, the more rarely they are read; the {MANY} longest. The gauge"
            " mec_offload_hit_ratio is over this time.",
            [query(worst(of(datapath_flows.WINDOW)), "{{instance}} {{source}}")],
            size=(12, 8),
            unit="s",
            empty=NO_FLOWS,
        ),
    ]


_ENABLED = of(offload_config.ENABLED)
_BOTH = f"({_ENABLED} + 2 * ({of(offload_config.RUNNING)} or on ({NODE}) {_ENABLED}))"
"""0: off. 1: configured and does not run. 2: runs and is not configured any more. 3: on. Where what runs is not known,
what is configured."""


def with_label(expression: str, info: str, label: str) -> str:
    """With a label of an info of the same node, if there is one."""
    return f"({expression} * on ({NODE}) group_left ({label}) {info} or on ({NODE}) {expression})"


def configured() -> list[Json]:
    """Configured against running, and versions."""
    running = labelled(of(offload_config.RUNNING_POLICY), "running_policy", "$1", "policy")
    setting = with_label(_BOTH, of(offload_config.POLICY), "policy")
    setting = with_label(setting, f"max by ({NODE}, running_policy) ({running})", "running_policy")
    setting = with_label(setting, of(node.NODE), "kernel, ovs_version")
    about = ", ".join(("site", *sriov.PF.labels))
    on_host = f"{of(offload_config.DEVICE)} * on ({NODE}) group_left (hostname) {of(node.NODE)}"
    feature = f"max by (site, hostname, pf, device) ({on_host})"
    pfs = f"max by ({about}) ({of(sriov.PF)})"
    return [
        table(
            "Configured and running",
            "hw-offload as it is configured and as the ovs-vswitchd that runs took it: a change waits for its restart."
            " The policy is other_config:tc-policy; skip_hw keeps all out of hardware. A dash: not known.",
            setting,
            {
                "site": "Site",
                "instance": "Node",
                "Value": "hw-offload",
                "policy": "Policy",
                "running_policy": "Running policy",
                "kernel": "Kernel",
                "ovs_version": "Open vSwitch",
            },
            [
                column(
                    "hw-offload",
                    mappings=states(
                        (("off", "text"), ("on, not running", "orange"), ("off, still runs", "orange"), ("on", "green"))
                    ),
                    custom_cellOptions=COLORED_TEXT,
                ),
                column("Policy", mappings=texts(("skip_hw", "orange")), custom_cellOptions=COLORED_TEXT),
                column("Running policy", mappings=texts(("skip_hw", "orange")), custom_cellOptions=COLORED_TEXT),
            ],
            size=(12, 8),
            unit="none",
            empty=NOBODY,
        ),
        table(
            "When each version was first seen",
            "The last change first: a share that fell at the same time fell because of it. Drivers and firmware are"
            " told of each PF.",
            f"sort_desc(1000 * {of(node.COMPONENT_SINCE)})",
            {"site": "Site", "instance": "Node", "component": "Component", "version": "Version", "Value": "First seen"},
            [column("First seen", unit="dateTimeAsIso", custom_width=170)],
            size=(12, 8),
            unit="none",
            empty=NOBODY,
        ),
        table(
            "NICs",
            "Driver, firmware and eswitch mode of each PF, and whether its feature hw-tc-offload is on. Only a NIC in"
            " switchdev mode carries Open vSwitch's flows.",
            f"({pfs} * on (site, hostname, pf, device) group_left () {feature}) or {pfs} + 1",
            {
                "site": "Site",
                "hostname": "Host",
                "pf": "PF",
                "device": "Device",
                "eswitch_mode": "Mode",
                "driver": "Driver",
                "driver_version": "Driver version",
                "firmware_version": "Firmware",
                "Value": "hw-tc-offload",
            },
            [
                column("Mode", mappings=texts(("switchdev", "green")), custom_cellOptions=COLORED_TEXT),
                column(
                    "hw-tc-offload",
                    mappings=states((("off", "orange"), ("on", "green"), ("not known", "text"))),
                    custom_cellOptions=COLORED_TEXT,
                ),
            ],
            size=(COLUMNS, 8),
            unit="none",
            empty="No PF is known: no exporter shows one",
        ),
    ]


def offload() -> Json:
    """*Hardware offload*."""
    return dashboard(
        UID,
        "Hardware offload",
        "What share of packets does the NIC carry, and why not the rest?",
        (
            ("", health()),
            ("Hardware's share", shares()),
            ("Why in software", reasons()),
            ("GRE", gre()),
            ("Throughput and VFs", throughput()),
            ("Connection tracking, and what is read", tracking()),
            ("Settings and versions", configured()),
        ),
        (
            annotation(
                "Versions",
                "blue",
                f"1000 * {of(node.COMPONENT_SINCE)}",
                "{{component}} {{version}}",
                "{{instance}}",
            ),
            annotation(
                "Findings about offload",
                "orange",
                f"1000 * {of(findings.FIRST_SEEN, CHECKS)}",
                "{{check}}",
                "{{subject}}",
            ),
        ),
        time_from="now-6h",
        refresh="1m",
    )
