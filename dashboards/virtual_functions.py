"""*VFs: drift and capacity*: do the ledgers agree about every VF, and when do a site's VFs run out?

What a node without credentials knows (its NIC, who holds what) is joined here with what an exporter of the api role
reads (claims and ports of every host). Several exporters may tell the same of a host: each thing counts once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboards.panels import (
    ANY_IS_BAD,
    COLORED_TEXT,
    COLUMNS,
    LINES,
    MANY,
    NONE_IS_BAD,
    Json,
    Steps,
    annotation,
    at,
    cells,
    column,
    dashboard,
    labelled,
    of,
    one,
    or_none,
    panel,
    query,
    state_timeline,
    states,
    steps,
    table,
    texts,
    timeseries,
    unknown_table,
    variable,
    worst,
)
from mecexporter.metrics.collectors import exporter, findings, sriov, vf_ledgers
from mecexporter.metrics.docs import alert_name

if TYPE_CHECKING:
    from mecexporter.metrics.spec import Metric

UID = "mec-virtual-functions"

SITE = 'site=~"$site"'
HOST = f'{SITE},hostname=~"$hostname"'
CHOSEN = f'{HOST},pf=~"$pf"'
VF_CHECKS = 'check=~"vf_.+"'
VF_SOURCES = 'source=~"sysfs|links|neutron|placement|nova@.+"'
OF_HOST = 'subject=~"($hostname)(/.*)?"'
"""Of findings, which have no label of their own for it."""

PF = "site, hostname, pf"
FUNCTION = "site, hostname, pci_address"
VF = f"{PF}, pci_address"
SETTLED = "15m"
"""How long a guest must hold what Nova gave to nobody: its database is read every five minutes, twice to be sure."""

NO_EXPORTER = "Nothing is known: no exporter answers"
NO_CHECK = "Nothing is known: no check of VFs can tell"
NO_PF = "No PF is known: no exporter shows one"
NO_BOTH = "Not known: it takes Nova's records, the NIC of the same host, and alerts/vf.rules.yaml"

KINDS = (
    ("inventory", "inventory", "orange"),
    ("orphan_port", "orphan port", "orange"),
    ("unrecorded", "unrecorded", "orange"),
    ("portless", "portless", "orange"),
    ("leaked", "leaked", "orange"),
    ("double_booked", "double-booked", "red"),
)
"""Of drift: the label, in words, the colour; the most alarming last."""

REMEDIES = {
    "vf_leaked": "Delete or move the instance, else free Nova's claim by hand",
    "vf_portless": "Hard reboot if the owner agrees, then free Nova's claim",
    "vf_unrecorded": "Find the guest: shut down a leftover, reboot an instance",
    "vf_orphan_port": "Remove the port from its instance and add it again",
    "vf_double_booked": "See who has it; take the other's port off its instance",
    "vf_inventory_mismatch": "Make missing VFs again, or restart nova-compute",
}
"""In short; `mecexporter check` names the real values, the runbook explains."""

UP = f'max by (site, job, instance) (up{{job=~".*mecexporter.*",{SITE}}})'


# By VF


def called(expression: str, label: str, text: str) -> str:
    """What a label is shown as where it is empty."""
    return f'label_replace({expression}, "{label}", "{text}", "{label}", "")'


def held(offset: str = "") -> str:
    """VFs that a guest holds."""
    return f"max by ({VF}) ({of(sriov.HOLDER, selected=CHOSEN)}{offset})"


def unclaimed(offset: str = "") -> str:
    """Of those the ones that Nova has given to nobody."""
    return f"({held(offset)} unless on ({FUNCTION}) {of(vf_ledgers.CLAIM, selected=HOST, ledger='nova')}{offset})"


def by_function(expression: str) -> str:
    """Findings by the host and the address that their subject consists of."""
    host = f'label_replace({expression}, "hostname", "$1", "subject", "([^/]+).*")'
    return f'label_replace({host}, "pci_address", "$1", "subject", "[^/]+/(.+)")'


def found(*matchers: str) -> str:
    """Since when (ms), by function, check and severity."""
    matchers = (OF_HOST, *matchers)
    since = (
        f"1000 * {of(findings.FIRST_SEEN, *matchers, selected=SITE)}"
        " * on (site, job, instance, check, subject) group_left (severity)"
        f" {of(findings.INFO, *matchers, selected=SITE)}"
    )
    return f"min by ({FUNCTION}, check, severity) ({by_function(since)})"


LEAKED = 'check="vf_leaked"'
HELD_BUT_LEAKED = f"({held()} and on ({FUNCTION}) {by_function(of(findings.INFO, LEAKED, OF_HOST, selected=SITE))})"
"""Who sees no NIC takes such a VF for leaked; the node that has it knows better."""
UNRECORDED = (
    f"({unclaimed()} and on ({FUNCTION}) {unclaimed(f' offset {SETTLED}')}"
    f" and on ({PF}) {of(vf_ledgers.LEDGER, selected=CHOSEN, ledger='nova')})"
)

FOUND = " or ".join(
    (
        found(VF_CHECKS, 'check!="vf_leaked"'),
        f"({found(LEAKED)} unless on ({FUNCTION}) {held()})",
        labelled(f"({found(LEAKED)} and on ({FUNCTION}) {held()})", "check", "vf_portless"),
    )
)
FINDINGS = (
    f"({FOUND} or on ({FUNCTION}, check) "
    + labelled(labelled(f"0 * max by ({FUNCTION}) ({UNRECORDED})", "check", "vf_unrecorded"), "severity", "warning")
    + ")"
)
"""Of exporters, and what follows from several of them together, which has no known beginning (0)."""


def owner(selected: str) -> str:
    """The PF of each function, as label."""
    known = " or ".join(of(m, 'pf!=""', selected=selected) for m in (sriov.VF, sriov.HOLDER, vf_ledgers.CLAIM))
    itself = f'label_replace({of(vf_ledgers.LEDGER, selected=selected)}, "pci_address", "$1", "pf", "(.+)")'
    return one(FUNCTION, f"group by ({VF}) ({known} or {itself})")


FINDINGS_OF_PF = (
    f"{FINDINGS} * on ({FUNCTION}) group_left (pf) {owner(CHOSEN)} or ({FINDINGS} unless on ({FUNCTION}) {owner(HOST)})"
)

_VF_LABELS = f"{VF}, vf, driver, mac, vlan, representor, logical_port"
_KNOWN = f"group by ({_VF_LABELS}) ({of(sriov.VF, selected=CHOSEN)})"
_VFS = f"({_KNOWN} or on ({FUNCTION}) group by ({VF}) ({of(vf_ledgers.CLAIM, selected=CHOSEN)}))"
"""Also those that a record claims, and no NIC shows."""
_HOLDERS = called(
    one(FUNCTION, f"group by ({FUNCTION}, holder) ({of(sriov.HOLDER, selected=CHOSEN)})"),
    "holder",
    "a guest, not known which",
)
_CHECKS = one(FUNCTION, f"group by ({FUNCTION}, check) ({FINDINGS})")
_FLAGS = (
    f"group by ({VF}, ledger) ({of(vf_ledgers.CLAIM, selected=CHOSEN, ledger='nova')})",
    f"2 * group by ({VF}, ledger) ({of(vf_ledgers.CLAIM, selected=CHOSEN, ledger='neutron')})",
    labelled(f"4 * group by ({VF}) ({unclaimed()})", "ledger", "nobody"),
    labelled(f"8 * group by ({VF}) ({_VFS} and on ({FUNCTION}) {_CHECKS})", "ledger", "finding"),
    f"0 * group by ({VF}) ({_VFS})",
)
RECORDS = f"sum by ({VF}) ({' or '.join(_FLAGS)})"
"""Who has given it away, as the sum of 1 (Nova) and 2 (Neutron); 4 and 8 put what needs a look to the top."""
_WITH_HOLDER = f"({_VFS} * on ({FUNCTION}) group_left (holder) {_HOLDERS} or on ({FUNCTION}) {_VFS})"
_WITH_CHECK = f"({_WITH_HOLDER} * on ({FUNCTION}) group_left (check) {_CHECKS} or on ({FUNCTION}) {_WITH_HOLDER})"
MOST_VFS = 200
VF_TABLE = f"topk({MOST_VFS}, {_WITH_CHECK} * on ({VF}) group_left () {RECORDS})"


# By PF


def ledger(name: str, state: str) -> str:
    """How many of a PF's VFs are in one state in one ledger."""
    return f"max by ({PF}) ({of(vf_ledgers.LEDGER, selected=CHOSEN, ledger=name, state=state)})"


def most(*expressions: str) -> str:
    """The highest for each PF: what several exporters know of the same VFs counts once."""
    told = (labelled(expression, "by", str(number)) for number, expression in enumerate(expressions))
    return f"max by ({PF}) ({' or '.join(told)})"


def reported(kind: str) -> str:
    """Drift as exporters report it."""
    return f"max by ({PF}) ({of(vf_ledgers.DRIFT, selected=CHOSEN, kind=kind)})"


_LEAKED, _PORTLESS, _UNRECORDED = (reported(kind) for kind in ("leaked", "portless", "unrecorded"))
_BOTH = f"({ledger('nova', 'claimed')} and on ({PF}) {ledger('nic', 'claimed')})"
_HELD = f"count by ({PF}) ({HELD_BUT_LEAKED})"
_JOINED = {
    "leaked": f"clamp_min({_LEAKED} - on ({PF}) ({_HELD} or 0 * {_LEAKED}), 0)",
    "portless": most(_PORTLESS, _HELD, f"0 * ({_LEAKED} and on ({PF}) {_BOTH})"),
    "unrecorded": most(_UNRECORDED, f"count by ({PF}) ({UNRECORDED})", f"0 * {_BOTH}"),
}


def drift(kind: str) -> str:
    """VFs of a PF in one kind of drift, by all that is known."""
    return _JOINED.get(kind) or reported(kind)


DRIFT = " or ".join(labelled(drift(kind), "kind", text) for kind, text, _ in KINDS)
REPORTED = " or ".join(labelled(reported(kind), "kind", text) for kind, text, _ in KINDS)
"""As the exporters report it: cheap enough for graphs."""
WORST_REPORTED = (
    f"max by ({PF}) ("
    + " or ".join(
        labelled(f"{number} * clamp_max({reported(kind)}, 1)", "kind", text)
        for number, (kind, text, _) in enumerate(KINDS, 1)
    )
    + ")"
)
AS_REPORTED = (
    " As the exporters report it: where nodes have no credentials, a VF that is found portless or unrecorded only by"
    " holding NIC and records together is here leaked or missing."
)

SCHEDULABLE = f"pf:mec_vf_schedulable:min{{{CHOSEN}}}"
"""The lower of what Nova and the NIC have free, as alerts/vf.rules.yaml records it, so that weeks of it cost little.
Where a PF has leaked VFs and unrecorded ones at once, fewer can be given."""

_NETWORKS = one(PF, f"group by ({PF}, physical_network, numa_node) ({of(sriov.PF, selected=CHOSEN)})")
PLACES = called(called(_NETWORKS, "physical_network", "unknown network"), "numa_node", "?")


def by_place(expression: str) -> str:
    """Of PFs, summed up by physical network and NUMA node."""
    return (
        f"sum by (site, physical_network, numa_node) ({expression}"
        f" * on ({PF}) group_left (physical_network, numa_node) {PLACES})"
    )


def by_host(expression: str) -> str:
    """Of PFs, summed up by host."""
    return f"sum by (site, hostname) ({expression})"


def of_pf(metric: Metric, **labels: str) -> str:
    """A number that the NIC tells of a PF."""
    return f"max by ({PF}) ({of(metric, selected=CHOSEN, **labels)})"


# Panels


_LEFT_ON_HOST, _FREE_ON_HOST = by_host(SCHEDULABLE), by_host(ledger("nic", "free"))
_EVALUABLE = of(findings.EVALUABLE, VF_CHECKS, selected=SITE)
UNJUDGED = of(vf_ledgers.UNJUDGED, selected=SITE)
TILES = {
    "hosts without VF": (f"count({_LEFT_ON_HOST} == 0) or 0 * count({_LEFT_ON_HOST})", "orange"),
    "… of them blocked": (
        f"count({_LEFT_ON_HOST} == 0 and on (site, hostname) {_FREE_ON_HOST} > 0) or 0 * count({_LEFT_ON_HOST})",
        "red",
    ),
    "hosts unjudged": (f"sum({UNJUDGED})", "purple"),
    "checks can't tell": (f"count({_EVALUABLE} == 0) or 0 * count({_EVALUABLE})", "purple"),
    "exporters silent": (f"count({UP} == 0) or 0 * count({UP})", "dark-blue"),
}
"""Beside the kinds of drift: text, how many, the colour of one and more."""


def tiles() -> Json:
    """What a NOC asks first."""
    numbers = [
        *((text, f"sum({drift(kind)})", color) for kind, text, color in reversed(KINDS)),
        *((text, expression, color) for text, (expression, color) in TILES.items()),
    ]
    made = panel(
        "stat",
        "VFs in drift, and what can't be told",
        "VFs about which the ledgers disagree, by kind; then hosts that have no VF left to give, and those of them"
        " that are blocked: an attach fails though VFs are free on the NIC. Green 0 is well. Purple 'not told': no"
        " source here can tell, which is not the same as none. Hosts unjudged (see below), checks that can't tell and"
        " silent exporters may hide more.",
        [query(f"{expression} or on () 0 * count({UP}) - 1", name, instant=True) for name, expression, _ in numbers],
        size=(COLUMNS, 4),
        unit="none",
        empty=NO_EXPORTER,
        mappings=[{"type": "value", "options": {"-1": {"index": 0, "text": "not told", "color": "purple"}}}],
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
                "steps": [{"value": None, "color": "green"}, {"value": 1, "color": color}],
            },
        )
        for name, _, color in numbers
    ]
    return made


RUNBOOK_LINK = [
    {"title": "Runbook ${__value.text}", "url": "${runbooks}/${__value.text}.md", "targetBlank": True},
]
HOST_LINK = [
    {
        "title": "This host alone",
        "url": f"/d/{UID}?${{datasource:queryparam}}&${{site:queryparam}}"
        "&var-hostname=${__value.text}&${__url_time_range}",
    }
]


def renamed(names: dict[str, str]) -> list[Json]:
    """Value mappings from one text to another."""
    options = {name: {"index": number, "text": text} for number, (name, text) in enumerate(names.items())}
    return [{"type": "value", "options": options}]


def findings_of_vfs() -> Json:
    """What is wrong, since when, and what to do."""
    none, unsure = "no finding about VFs", "none, but checks can't tell"
    known = of(findings.EVALUABLE, VF_CHECKS, selected=SITE)
    rows = or_none(f"({FINDINGS_OF_PF})", f"({known} unless on () {known} == 0)", "check", none)
    rows = or_none(rows, known, "check", unsure)
    rows = labelled(labelled(rows, "remedy", "$1", "check"), "runbook", "$1", "check")
    return table(
        "Findings",
        "Every VF about which ledgers disagree: where, of which kind, since when, and in short what to do. On the"
        " exporter's host `mecexporter check` names the records and the commands. A dash in Since: seen only by holding"
        f" one node's NIC against another's records, for longer than {SETTLED}.",
        rows,
        {
            "severity": "Severity",
            "site": "Site",
            "hostname": "Host",
            "pf": "PF",
            "pci_address": "Function",
            "check": "Finding",
            "Value": "Since",
            "remedy": "What to do",
            "runbook": "Runbook",
        },
        [
            column("Host", links=HOST_LINK, custom_width=130),
            column("Site", custom_width=80),
            column(
                "Severity",
                mappings=texts(("critical", "red"), ("warning", "orange")),
                custom_cellOptions={"type": "color-background", "mode": "basic"},
                custom_width=90,
            ),
            column("PF", custom_width=110),
            column("Function", custom_width=110),
            column(
                "Finding",
                mappings=texts((none, "green"), (unsure, "purple")),
                custom_cellOptions=COLORED_TEXT,
                custom_width=190,
            ),
            column(
                "Since",
                unit="dateTimeFromNow",
                mappings=[{"type": "value", "options": {"0": {"index": 0, "text": "-"}}}],
                custom_width=115,
            ),
            column("What to do", mappings=renamed({**REMEDIES, none: "-", unsure: "See what cannot be told"})),
            column(
                "Runbook",
                mappings=renamed({**{check: alert_name(check) for check in REMEDIES}, none: "-", unsure: "-"}),
                links=RUNBOOK_LINK,
                custom_width=195,
            ),
        ],
        sort=[{"displayName": "Severity", "desc": False}],
        size=(COLUMNS, 8),
        unit="none",
        empty=NO_CHECK,
    )


def health() -> list[Json]:
    """Is there drift, where, of which kind, since when, and what to do."""
    unknown = (
        f"{of(findings.EVALUABLE, VF_CHECKS, selected=SITE)} == 0 or {of(exporter.UP, VF_SOURCES, selected=SITE)} == 0"
    )
    return [
        tiles(),
        findings_of_vfs(),
        state_timeline(
            "Drift of each PF",
            "The worst kind of drift among a PF's VFs at each moment. A gap: nothing can be told of it."
            f" The {LINES} PFs that fared worst.{AS_REPORTED}",
            [query(worst(WORST_REPORTED, count=LINES), "{{site}} {{hostname}} {{pf}}")],
            names=(("the ledgers agree", "green"), *((text, color) for _, text, color in KINDS)),
            size=(15, 8),
            empty=NO_CHECK,
        )
        | {"interval": "5m"},
        unknown_table(unknown, VF_CHECKS, selected=SITE),
    ]


def ledgers() -> list[Json]:
    """The four of them side by side, and how they went."""
    names = {"nova": "Nova", "neutron": "Neutron", "nic": "NIC", "placement": "Placement"}
    shown = [("In drift", f"sum by ({PF}) ({DRIFT})")]
    for state, of_whom in (
        ("claimed", ("nova", "neutron", "nic", "placement")),
        ("free", ("nova", "nic", "placement")),
        ("unavailable", ("nova", "nic", "placement")),
    ):
        shown += [(f"{names[one_of]} {state}", ledger(one_of, state)) for one_of in of_whom]
    shown.append(("Not tracked", ledger("placement", "not_tracked")))
    claimed = of(vf_ledgers.LEDGER, selected=CHOSEN, state="claimed")
    return [
        table(
            "Ledgers side by side",
            "How many VFs of each PF every ledger has claimed, free and unavailable; claimed on the NIC is held by a"
            " guest, unavailable there is used by the host itself. Well: Nova, Neutron and the NIC have as many"
            " claimed, stopped instances and flavours' devices apart. Not tracked: Placement does not count these VFs,"
            " which is usual and no drift. A dash: this ledger is not read, or does not know the PF.",
            cells(*((name, at(expression, "site", "hostname", "pf")) for name, expression in shown)),
            {"at\\column": "PF", **{name: name for name, _ in shown}},
            [
                column("PF", custom_width=220),
                column(
                    "In drift",
                    thresholds={
                        "mode": "absolute",
                        "steps": [{"value": None, "color": "green"}, {"value": 1, "color": "orange"}],
                    },
                    custom_cellOptions=COLORED_TEXT,
                    custom_width=80,
                ),
                *(column(name, custom_width=20 + 7 * len(name)) for name, _ in shown[1:]),
            ],
            matrix=("at", "column", "Value"),
            sort=[{"displayName": "In drift", "desc": True}],
            size=(COLUMNS, 8),
            unit="none",
            empty=NO_PF,
        ),
        timeseries(
            "Claimed VFs by ledger",
            "All chosen PFs together. The lines of Nova, Neutron and the NIC lie close: one that stays above the others"
            " is a record that nobody gives up, one that falls away is a ledger that is not read any more.",
            [query(f"sum by (ledger) (max by ({PF}, ledger) ({claimed}))", "{{ledger}}")],
            size=(9, 8),
            unit="short",
            decimals=0,
            empty=NO_PF,
            stepped=True,
        ),
        timeseries(
            "Drift by kind",
            "VFs in each kind of drift, all chosen PFs together. Zero is healthy; leaks pile up until attaches fail."
            + AS_REPORTED,
            [query(f"sum by (kind) ({REPORTED})", "{{kind}}")],
            size=(9, 8),
            unit="short",
            decimals=0,
            steps=ANY_IS_BAD,
            line=True,
            empty=NO_CHECK,
            stepped=True,
        )
        | {"interval": "5m"},
        timeseries(
            "Hosts unjudged",
            "Hosts with VFs of which nothing is said, by reason, added up over exporters. down: nova-compute ceased to"
            " report, as in a restart or maintenance. not_reporting: it never reported into Nova's database (another"
            " servicegroup_driver), or none of the cell does now. no_service: records name a host that Nova has no"
            " nova-compute of: a name that is spelled otherwise, or a service that was deleted too early.",
            [query(f"sum by (reason) ({UNJUDGED})", "{{reason}}")],
            size=(6, 8),
            unit="short",
            decimals=0,
            empty="Nova's records are not read",
            stepped=True,
        ),
    ]


def functions() -> list[Json]:
    """VF by VF, PF by PF, and whether the sources answer."""
    given = ("nobody", "Nova", "Neutron", "Nova and Neutron")
    evidence = (
        f"{of(sriov.PF, selected=CHOSEN)} * on (site, job, instance) group_left () {of(sriov.VISIBLE, selected=SITE)}"
    )
    about = ", ".join(("site", *sriov.PF.labels))
    return [
        table(
            "VFs",
            f"VF by VF, those that need a look first, {MOST_VFS} at most: choose a host to see all of its. Recorded by:"
            " who has it down as given away. No VF number: a record names it, and no NIC shows it.",
            VF_TABLE,
            {
                "check": "Finding",
                "site": "Site",
                "hostname": "Host",
                "pf": "PF",
                "vf": "VF",
                "pci_address": "Address",
                "Value": "Recorded by",
                "holder": "Held by",
                "driver": "Driver",
                "representor": "Representor",
                "logical_port": "Logical port",
                "mac": "MAC",
                "vlan": "VLAN",
            },
            [
                column("Host", links=HOST_LINK, custom_width=115),
                column("Site", custom_width=70),
                column("Finding", mappings=texts((".+", "orange")), custom_cellOptions=COLORED_TEXT, custom_width=150),
                column("PF", custom_width=105),
                column("VF", custom_width=40),
                column("Address", custom_width=105),
                column("Recorded by", mappings=states((text, "text") for text in given * 4), custom_width=135),
                column("Held by", custom_width=295),
                column("Driver", custom_width=85),
                column("Representor", custom_width=125),
                column("Logical port", custom_width=295),
                column("MAC", custom_width=135),
                column("VLAN", custom_width=55),
            ],
            size=(COLUMNS, 10),
            unit="none",
            empty="No VF is known: no exporter shows one",
        ),
        table(
            "PFs",
            "The NICs that can have VFs. Who holds a VF is seen (a process has it open) where the exporter may look"
            " into other users' processes; elsewhere all that is bound to vfio-pci counts as held, which is weaker.",
            f"max by ({about}) ({evidence})",
            {
                "site": "Site",
                "hostname": "Host",
                "pf": "PF",
                "device": "Device",
                "physical_network": "Network",
                "numa_node": "NUMA",
                "eswitch_mode": "Mode",
                "driver": "Driver",
                "driver_version": "Driver version",
                "firmware_version": "Firmware",
                "Value": "Holders",
            },
            [
                column("Host", links=HOST_LINK, custom_width=115),
                column("Site", custom_width=70),
                column("PF", custom_width=110),
                column("Device", custom_width=95),
                column("Network", custom_width=85),
                column("NUMA", custom_width=60),
                column("Mode", custom_width=85),
                column("Driver", custom_width=85),
                column("Driver version", custom_width=110),
                column("Firmware", custom_width=95),
                column(
                    "Holders",
                    mappings=states((("by driver", "orange"), ("seen", "green"))),
                    custom_cellOptions=COLORED_TEXT,
                    custom_width=90,
                ),
            ],
            size=(15, 8),
            unit="none",
            empty=NO_PF,
        ),
        state_timeline(
            "Ledgers' sources",
            "Whether what the ledgers are read from answers: sysfs and links are a node's NIC, the others records."
            " While one does not, its ledger is absent and the checks that need it can't tell."
            f" The {LINES} that fared worst.",
            [
                query(
                    worst(of(exporter.UP, VF_SOURCES, selected=SITE), low=True, count=LINES), "{{instance}} {{source}}"
                )
            ],
            names=(("no answer", "red"), ("answers", "green")),
            size=(9, 8),
            empty=NO_EXPORTER,
        ),
    ]


SOON: Steps = ((None, "red"), (7 * 86400, "orange"), (30 * 86400, "green"))
TREND = "7d:6h"
"""Over which past VFs' going is reckoned, four values a day."""
MONTH = 30 * 86400


def forecast() -> Json:
    """When they run out."""
    left = by_place(SCHEDULABLE)
    # No judgement without a value a day ago, nor without one now.
    a_second = f"(deriv(({left})[{TREND}]) and last_over_time(({left})[6h:3h] offset 1d) and {left})"
    share = f"{by_place(of_pf(sriov.STATE, state='guest'))} / {by_place(of_pf(sriov.CONFIGURED))}"
    shown = (
        ("Schedulable", left),
        ("Configured", by_place(of_pf(sriov.CONFIGURED))),
        ("Capacity", by_place(of_pf(sriov.CAPACITY))),
        ("Held", share),
        ("A day", f"86400 * {a_second}"),
        ("In 30 days", f"clamp_min({left} + {MONTH} * {a_second}, 0)"),
        # What gets more, or less by under one in a hundred days, is not in sight.
        ("Run out in", f"{left} / -({a_second} < -0.01 / 86400) or 0 * {a_second} - 1"),
    )

    def row(expression: str) -> str:
        numa = labelled(f"({expression})", "numa_node", "NUMA $1", "numa_node")
        return at(numa, "site", "physical_network", "numa_node")

    return table(
        "When VFs run out",
        "By physical network and NUMA node: what can be given now, how it went over the last seven days, and when none"
        " is left if it goes on like this. A dash: there is less than a day of history to tell by.",
        cells(*((name, row(expression)) for name, expression in shown)),
        {"at\\column": "Network", **{name: name for name, _ in shown}},
        [
            column("Schedulable", thresholds=steps((None, "red"), (1, "green")), custom_cellOptions=COLORED_TEXT),
            column("Held", unit="percentunit", decimals=0),
            column("A day", decimals=1),
            column("In 30 days", decimals=0),
            column(
                "Run out in",
                unit="s",
                decimals=1,
                thresholds=steps(*SOON),
                mappings=[
                    {
                        "type": "value",
                        "options": {
                            "-1": {"index": 0, "text": "not in sight", "color": "green"},
                            "0": {"index": 1, "text": "none left", "color": "red"},
                        },
                    }
                ],
                custom_cellOptions=COLORED_TEXT,
            ),
            column("Network", custom_width=220),
        ],
        matrix=("at", "column", "Value"),
        size=(COLUMNS, 7),
        unit="none",
        empty=NO_BOTH,
    )


def capacity() -> list[Json]:
    """For planners: the last 30 days, whatever time is chosen above."""
    fewest = f"bottomk({MANY}, {by_host(SCHEDULABLE)})"
    free, held_by_guests = by_host(ledger("nic", "free")), by_host(of_pf(sriov.STATE, state="guest"))
    hosts = (
        ("Schedulable", fewest),
        ("Free but out of reach", f"clamp_min({free} - {by_host(SCHEDULABLE)}, 0) and {fewest}"),
        ("Held", f"{held_by_guests} and {fewest}"),
        ("Configured", f"{by_host(of_pf(sriov.CONFIGURED))} and {fewest}"),
        ("Share held", f"{held_by_guests} / {by_host(of_pf(sriov.CONFIGURED))} and {fewest}"),
    )
    month = {"timeFrom": "30d", "interval": "10m"}
    return [
        forecast(),
        timeseries(
            "Schedulable VFs by network and NUMA node",
            "What Nova can still give to an instance: of each PF the lower of what its records and the NIC have free."
            " At zero every attach fails. A gap: Nova's records or the NIC were not read.",
            [query(by_place(SCHEDULABLE), "{{site}} {{physical_network}} NUMA {{numa_node}}")],
            size=(12, 9),
            unit="short",
            decimals=0,
            steps=NONE_IS_BAD,
            line=True,
            empty=NO_BOTH,
        )
        | month,
        timeseries(
            "Capacity, configured, held and schedulable",
            "All chosen PFs together. Configured below capacity is room for more VFs; held is what guests use;"
            " what lies between schedulable and the rest of configured is lost to leaks and reservations.",
            [
                query(f"sum({of_pf(sriov.CAPACITY)})", "capacity"),
                query(f"sum({of_pf(sriov.CONFIGURED)})", "configured"),
                query(f"sum({of_pf(sriov.STATE, state='guest')})", "held by guests"),
                query(f"sum({ledger('nic', 'free')})", "free on the NIC"),
                query(f"sum({SCHEDULABLE})", "schedulable"),
            ],
            size=(12, 9),
            unit="short",
            decimals=0,
            empty=NO_PF,
        )
        | month,
        table(
            "Hosts with the fewest VFs left",
            f"The {MANY} hosts that run out first. Free but out of reach: free on the NIC, and not to be had, as Nova"
            " has them down as taken or does not manage them; with nothing schedulable, an attach fails though VFs are"
            " free.",
            cells(*((name, at(f"({expression})", "site", "hostname")) for name, expression in hosts)),
            {"at\\column": "Host", **{name: name for name, _ in hosts}},
            [
                column("Schedulable", thresholds=steps((None, "red"), (1, "green")), custom_cellOptions=COLORED_TEXT),
                column(
                    "Free but out of reach",
                    thresholds=steps((None, "text"), (1, "orange")),
                    custom_cellOptions=COLORED_TEXT,
                ),
                column("Share held", unit="percentunit", decimals=0),
            ],
            matrix=("at", "column", "Value"),
            sort=[{"displayName": "Schedulable", "desc": False}],
            size=(COLUMNS, 8),
            unit="none",
            empty=NO_BOTH,
        ),
    ]


RUNBOOKS: Json = {
    "type": "constant",
    "name": "runbooks",
    "label": "Where the runbooks are served",
    "query": "docs/runbooks",
    "hide": 2,
}
"""To be replaced by an address, as in the alerts; until then the link names the file."""


def virtual_functions() -> Json:
    """*VFs: drift and capacity*."""
    return dashboard(
        UID,
        "VFs: drift and capacity",
        "Do Nova, Neutron, Placement and the NIC agree about every VF, and when do the VFs run out?",
        (
            ("", health()),
            ("The ledgers, PF by PF", ledgers()),
            ("VFs, PFs and sources", functions()),
            ("Capacity, over 30 days", capacity()),
        ),
        (
            annotation(
                "Findings about VFs",
                "orange",
                f"1000 * {of(findings.FIRST_SEEN, VF_CHECKS, OF_HOST, selected=SITE)}",
                "{{check}}",
                "{{subject}}",
            ),
        ),
        variables=(
            variable("hostname", "Host", vf_ledgers.LEDGER, f"{{{SITE}}}"),
            variable("pf", "PF", vf_ledgers.LEDGER, f"{{{HOST}}}"),
            RUNBOOKS,
        ),
        time_from="now-24h",
        refresh="5m",
    )
