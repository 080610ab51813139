"""*OVN control plane*: do the databases have one writer each, and would their standbys serve if it died now?

And does what is ordered arrive: in Southbound, on every chassis, at the gateways?
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboards.panels import (
    ANY_IS_BAD,
    COLORED_TEXT,
    CRITICAL_SINCE,
    LINES,
    NODE,
    Json,
    annotation,
    column,
    dashboard,
    findings_table,
    of,
    or_none,
    query,
    rate,
    state_timeline,
    states,
    steps,
    table,
    timeseries,
    unknown_table,
    worst,
)
from mecexporter.metrics.collectors import exporter, findings, node, ovn_chassis, ovn_daemons, ovn_db, ovn_northd, tls

if TYPE_CHECKING:
    from mecexporter.metrics.spec import Metric

UID = "mec-ovn-control-plane"
CHECKS = 'check=~"ovn_(chassis|db|gateway|northd|propagation)_.+"'
SOURCES = 'source=~"northd|ovn_chassis|ovn_.+_sync|OVN_.+"'
NO_DATABASE = "No host of the databases answers"
NO_CLUSTER = "No member of a cluster answers"
NO_WRITER = "No writer or leader answers"
NO_DAEMON = "No ovn-controller and no northd answers"

OWN = 'server="local"'
"""A server counts once: by what its own host says."""

_ALONE = of(ovn_db.INFO, OWN, model="standalone")
_STANDALONE = f"sum by (site, db) ({of(ovn_db.WRITABLE, OWN)} * on ({NODE}, db, server) {_ALONE})"
_CLUSTERED = f"sum by (site, db) ({of(ovn_db.RAFT_LEADER)})"
WRITERS = f"clamp_max({_STANDALONE} or {_CLUSTERED}, 2)"
SERVERS = f"{of(ovn_db.INFO)} + on ({NODE}, db, server) group_left () {of(ovn_db.WRITABLE)}"
DIFFERING = or_none(
    f"{of(ovn_db.DIFFERING)} > 0", of(ovn_db.IN_SYNC), "table", "no row of any standby that can be told differs"
)
VERSIONED = 'component=~"ovs|ovn|ovn_northd"'
LEFT = steps((None, "red"), (3 * 86400, "orange"), (30 * 86400, "green"))
SERVER = "{{instance}} {{db}} {{server}}"
DAEMON = "{{instance}} {{daemon}}"

_MISSING = f"{of(ovn_db.SB_CFG)} - on ({NODE}) group_right () {of(ovn_chassis.NB_CFG)}"
FURTHEST = or_none(f"topk({LINES}, {_MISSING} > 0)", of(ovn_db.SB_CFG), "chassis", "no chassis lacks any")
BUSY = f"sum by ({NODE}, daemon) ({rate(ovn_daemons.SAMPLES)} * {of(ovn_daemons.AVERAGE)})"


def took(cfg: Metric, at: Metric) -> str:
    """How long the last bump took to get there, where it has."""
    return f"{of(at)} - {of(ovn_db.NB_CFG_AT)} and {of(cfg)} == {of(ovn_db.NB_CFG)}"


def health() -> list[Json]:
    """What a NOC asks first."""
    return [
        state_timeline(
            "Writers of each database",
            "How many servers of a site take writes; of a cluster, how many lead. One is right. None: nothing in the"
            " cloud can be changed. Several: they drift apart. By what each server's own host says; a gap: none of"
            " them answers.",
            [query(WRITERS, "{{site}} {{db}}")],
            names=(("no writer", "red"), ("one writer", "green"), ("several writers", "red")),
            size=(12, 6),
            empty=NO_DATABASE,
        ),
        state_timeline(
            "Standbys",
            "Whether a standby holds what its active does, proven by content. A gap: that can't be told, as its active"
            f" does not answer or nothing was compared yet. The {LINES} that fared worst.",
            [query(worst(of(ovn_db.IN_SYNC), low=True, count=LINES), SERVER)],
            names=(("differs", "red"), ("in sync", "green")),
            size=(12, 6),
            empty="No standby that can be told",
        ),
        findings_table(CHECKS),
        unknown_table(f"{of(findings.EVALUABLE, CHECKS)} == 0 or {of(exporter.UP, SOURCES)} == 0", CHECKS),
    ]


def databases() -> list[Json]:
    """Who serves them, and what differs."""
    return [
        table(
            "Servers",
            "Every server that a host knows, by its own label: `local` is the host's own. Standbys are standalone"
            " servers that take no writes. A server that is not here does not answer, or is a relay.",
            SERVERS,
            {
                "site": "Site",
                "instance": "Node",
                "db": "Database",
                "server": "Server",
                "model": "Model",
                "Value": "Takes writes",
            },
            [column("Takes writes", mappings=states((("", "text"), ("no", "text"), ("yes", "green"))))],
            size=(12, 8),
            unit="none",
            empty=NO_DATABASE,
        ),
        table(
            "Rows that differ",
            "Rows of a standby that its active has not, or has otherwise, for longer than grace.db_sync; of a table"
            " that is only counted, one. `mecexporter check` names some of them.",
            DIFFERING,
            {
                "instance": "Node",
                "db": "Database",
                "server": "Standby",
                "table": "Table",
                "kind": "Kind",
                "Value": "Rows",
            },
            [column("Node", custom_width=100), column("Kind", custom_width=80), column("Rows", custom_width=70)],
            size=(12, 8),
            unit="none",
            empty="No standby that can be told",
        ),
        timeseries(
            "Age of the last proof",
            "How long ago a standby last showed no difference to its active. It grows where a row differs, or where"
            " that can't be told.",
            [query(worst(f"time() - {of(ovn_db.LAST_IN_SYNC)}"), SERVER)],
            size=(12, 7),
            unit="s",
            empty="No standby was ever in sync",
        ),
        timeseries(
            "Northbound ahead",
            "How many of Neutron's configuration numbers Southbound and the furthest behind chassis have yet to carry"
            " through, as the writer or leader says. A short peak is normal; a powered-off host holds the chassis"
            " back.",
            [
                query(f"{of(ovn_db.NB_CFG)} - {of(ovn_db.SB_CFG)}", "{{instance}} Southbound"),
                query(f"{of(ovn_db.NB_CFG)} - {of(ovn_db.HV_CFG)}", "{{instance}} chassis"),
            ],
            size=(12, 7),
            unit="short",
            empty=NO_WRITER,
            stepped=True,
            decimals=0,
        ),
    ]


def propagation() -> list[Json]:
    """Whether what is ordered arrives; told by Northbound's writer or leader."""
    return [
        timeseries(
            "Behind",
            "For how long Southbound, and the chassis that is furthest behind, have lacked a number that was there, by"
            " the exporter's own clock. Stale chassis and those in maintenance are left out. Above the line, at"
            " grace.propagation's default, something has stalled.",
            [
                query(of(ovn_chassis.SB_BEHIND), "{{instance}} Southbound"),
                query(of(ovn_chassis.CHASSIS_BEHIND), "{{instance}} chassis"),
            ],
            size=(12, 7),
            unit="s",
            steps=((None, "green"), (60, "orange")),
            empty=NO_WRITER,
            line=True,
        ),
        timeseries(
            "Chassis that are not current",
            "Chassis by state. Behind for a moment is normal; stalled is longer than grace.propagation, stale longer"
            " than grace.chassis_stale. Silent ones make no reports, as VTEPs; remote ones are another deployment's.",
            [query(of(ovn_chassis.STATE, 'state!="current"'), "{{instance}} {{state}}")],
            size=(12, 7),
            unit="short",
            empty=NO_WRITER,
            stepped=True,
            decimals=0,
        ),
        timeseries(
            "How long a bump takes",
            "From Northbound's last bump until Southbound had it, and until the last chassis had carried it through, by"
            " the clocks of the hosts that did it. A gap: it has not arrived yet. A dead chassis leaves no more of the"
            " second line.",
            [
                query(took(ovn_db.SB_CFG, ovn_db.SB_CFG_AT), "{{instance}} Southbound"),
                query(took(ovn_db.HV_CFG, ovn_db.HV_CFG_AT), "{{instance}} every chassis"),
            ],
            size=(8, 7),
            unit="s",
            empty="No bump has arrived, or no writer or leader answers",
        ),
        table(
            "Chassis furthest behind",
            f"How many numbers a chassis lacks of Southbound's, the {LINES} that lack most. One or two are normal.",
            FURTHEST,
            {"site": "Site", "chassis": "Chassis", "hostname": "Host", "Value": "Lacks"},
            [column("Lacks", custom_width=80)],
            size=(8, 7),
            unit="none",
            empty=NO_WRITER,
        ),
        timeseries(
            "Gateway ports",
            "Gateways of routers: on their preferred chassis (claimed), on another, or on none.",
            [query(of(ovn_chassis.GATEWAYS), "{{instance}} {{state}}")],
            size=(8, 7),
            unit="short",
            empty=NO_WRITER,
            stepped=True,
            decimals=0,
        ),
    ]


def northd() -> list[Json]:
    """Who works."""
    return [
        state_timeline(
            "ovn-northd",
            "What each northd says of itself. One of a site is active; two that are active on a pair of databases"
            " are no trouble by themselves. A gap: it does not answer.",
            [query(f"{of(ovn_northd.ACTIVE)} + 2 * {of(ovn_northd.PAUSED)}")],
            names=(("standby", "blue"), ("active", "green"), ("paused", "red")),
            size=(12, 6),
            empty="No northd answers",
        ),
        state_timeline(
            "ovn-northd's connections",
            "Whether each northd is connected to the databases.",
            [query(of(ovn_northd.CONNECTED), "{{instance}} {{db}}")],
            names=(("not connected", "red"), ("connected", "green")),
            size=(12, 6),
            empty="No northd answers",
        ),
    ]


def at_work() -> list[Json]:
    """What ovn-controller and northd do, and what it costs: of all hosts, those that do most."""
    return [
        timeseries(
            "Busy",
            "The share of the time that the main loop of ovn-controller or northd works, or waits for a CPU to work on."
            f" Above the line, with full recomputes, it is a storm of them. The {LINES} that were highest.",
            [query(worst(BUSY, count=LINES), DAEMON)],
            size=(12, 7),
            unit="percentunit",
            steps=((None, "green"), (0.8, "orange")),
            empty=NO_DAEMON,
            line=True,
        ),
        timeseries(
            "Full recomputes",
            "How often a minute all logical flows are computed anew. None, but for a start, is what ovn-controller"
            " should have; northd has one at most changes up to OVN 23.03.",
            [query(worst(f"60 * {rate(ovn_daemons.RECOMPUTES)}", count=LINES), DAEMON)],
            size=(12, 7),
            unit="short",
            empty=NO_DAEMON,
        ),
        timeseries(
            "What is computed anew",
            "How often a minute a node of the engine is recomputed, without those that only take in a table: the"
            f" {LINES} that were highest. Some small ones are at each turn.",
            [
                query(
                    worst(f"60 * {rate(ovn_daemons.RUNS, kind='recompute')}", count=LINES),
                    "{{instance}} {{daemon}} {{engine_node}}",
                )
            ],
            size=(12, 7),
            unit="short",
            empty=NO_DAEMON,
        ),
        timeseries(
            "How long a turn takes",
            "The 95th percentile of each part of a turn, by the daemon's own stopwatches, in steps of a millisecond.",
            [query(worst(of(ovn_daemons.P95), count=LINES), "{{instance}} {{stopwatch}}")],
            size=(12, 7),
            unit="s",
            soft_max=0.01,
            empty=NO_DAEMON,
        ),
        timeseries(
            "CPU",
            "Of one core, all threads. A gap: its process can't be seen, as it is in another pid namespace.",
            [query(worst(rate(ovn_daemons.CPU), count=LINES), DAEMON)],
            size=(12, 7),
            unit="percentunit",
            empty="No process of theirs can be seen",
        ),
        timeseries(
            "Memory",
            "What each daemon holds: above all its copies of databases, the cache and the flows.",
            [query(worst(of(ovn_daemons.RESIDENT), count=LINES), DAEMON)],
            size=(12, 7),
            unit="bytes",
            empty="No process of theirs can be seen",
        ),
    ]


def clusters() -> list[Json]:
    """RAFT, as each member sees it."""
    return [
        state_timeline(
            "Leaders",
            "Which member leads each cluster. A gap: it does not answer.",
            [query(of(ovn_db.RAFT_LEADER), "{{instance}} {{db}}")],
            names=(("follower", "blue"), ("leader", "green")),
            size=(12, 7),
            empty=NO_CLUSTER,
        ),
        timeseries(
            "Members that can't be reached",
            "Of the members that each one knows. More than half must be there for anything to be written.",
            [query(f"{of(ovn_db.RAFT_MEMBERS)} - {of(ovn_db.RAFT_REACHABLE)}", "{{instance}} {{db}}")],
            size=(12, 7),
            unit="short",
            steps=ANY_IS_BAD,
            empty=NO_CLUSTER,
            stepped=True,
            decimals=0,
        ),
        timeseries(
            "Elections",
            "The term of each member: it rises with every election.",
            [query(of(ovn_db.RAFT_TERM), "{{instance}} {{db}}")],
            size=(12, 6),
            unit="short",
            empty=NO_CLUSTER,
            stepped=True,
            decimals=0,
        ),
        timeseries(
            "Log entries not committed",
            "What the members have yet to agree on; it stays near 0.",
            [query(of(ovn_db.RAFT_UNCOMMITTED), "{{instance}} {{db}}")],
            size=(12, 6),
            unit="short",
            empty=NO_CLUSTER,
            stepped=True,
            decimals=0,
        ),
    ]


def load() -> list[Json]:
    """What the servers carry."""
    own = "{{instance}} {{db}}"
    return [
        timeseries(
            "Sessions",
            "Clients of each host's own servers.",
            [query(worst(of(ovn_db.SESSIONS)), own)],
            size=(8, 6),
            unit="short",
            empty=NO_DATABASE,
            stepped=True,
            decimals=0,
        ),
        timeseries(
            "Backlog",
            "Bytes that each host's own servers have yet to send to their clients. One that grows is a client that does"
            " not keep up.",
            [query(worst(of(ovn_db.BACKLOG)), own)],
            size=(8, 6),
            unit="bytes",
            empty=NO_DATABASE,
        ),
        timeseries(
            "Content",
            "Cells that each host's own servers hold: columns of rows.",
            [query(worst(of(ovn_db.CELLS)), own)],
            size=(8, 6),
            unit="short",
            empty=NO_DATABASE,
        ),
        timeseries(
            "Monitors",
            "What the clients of each host's own servers keep an eye on.",
            [query(worst(of(ovn_db.MONITORS)), own)],
            size=(8, 6),
            unit="short",
            empty=NO_DATABASE,
            stepped=True,
            decimals=0,
        ),
        timeseries(
            "Comparing all tables",
            "How long it took to hold a standby against its active; three quarters of that are rests.",
            [query(of(ovn_db.AUDIT_SECONDS), SERVER)],
            size=(8, 6),
            unit="s",
            empty="No standby that can be told",
        ),
        timeseries(
            "Age of the last comparison",
            "How long ago all tables were last compared; intervals.audit and ovn.audit.window say how often they are.",
            [query(f"time() - {of(ovn_db.AUDITED)}", SERVER)],
            size=(8, 6),
            unit="s",
            empty="No standby that can be told",
        ),
    ]


def site() -> list[Json]:
    """Is the site of one piece, and for how much longer?"""
    left = f"{of(tls.EXPIRY)} - time()"
    soon = [column("Left", unit="s", custom_width=110, thresholds=LEFT, custom_cellOptions=COLORED_TEXT)]
    return [
        table(
            "TLS certificates that expire first",
            f"The {LINES} that have the least time left, of daemons' files and of servers that showed theirs (without a"
            " file). Orange below thirty days, red below three. Files that can't be read are not here: an alert tells"
            " of them.",
            f"sort(bottomk({LINES}, {left}))",
            {
                "site": "Site",
                "instance": "Node",
                "component": "Whose",
                "kind": "Kind",
                "path": "File",
                "Value": "Left",
            },
            [column("Node", custom_width=100), column("Kind", custom_width=90), *soon],
            size=(14, 7),
            unit="none",
            empty="No TLS certificate is known",
        ),
        table(
            "Versions that run",
            "On how many hosts; more than one of a component in a site for a day is an alert.",
            f"count by (site, component, version) ({of(node.COMPONENT, VERSIONED)})",
            {"site": "Site", "component": "Component", "version": "Version", "Value": "Hosts"},
            [column("Hosts", custom_width=80)],
            size=(10, 7),
            unit="none",
            empty="No host's version is known",
        ),
    ]


def control_plane() -> Json:
    """*OVN control plane*."""
    return dashboard(
        UID,
        "OVN control plane",
        "Do the databases have one writer each, would their standbys serve if it died now, and does what is ordered"
        " arrive?",
        (
            ("", health()),
            ("The databases", databases()),
            ("Chassis and gateways", propagation()),
            ("Northd", northd()),
            ("ovn-controller and northd at work", at_work()),
            ("Clusters", clusters()),
            ("What the servers carry", load()),
            ("Certificates and versions", site()),
        ),
        (annotation("Critical findings", "red", CRITICAL_SINCE, "{{instance}}: {{check}}", "{{subject}}"),),
    )
