"""What the checks found, as data (``/api/v1/findings``, ``check --json``), as an exit status and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from mecexporter.checks.base import Severity
from mecexporter.web.text import duration, encodable, local_time, visible

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from mecexporter.metrics.registry import View
    from mecexporter.web.sources import SourceItem, SourcesDocument


class FindingItem(TypedDict):
    """One finding; ``first_seen`` is Unix seconds, ``follows`` the checks with findings now that explain this one."""

    check: str
    severity: str
    subject: str
    summary: str
    remedy: str
    first_seen: float
    follows: list[str]


class UnknownItem(TypedDict):
    """A check that can't tell, and the sources it misses."""

    check: str
    missing: list[str]


class FindingsDocument(TypedDict):
    """The contract's form; findings are sorted, critical first, and causes before what follows from them.

    ``pending``: of the checks that are ok, those that have seen something, not for long enough yet to report it.
    """

    findings: list[FindingItem]
    unknown: list[UnknownItem]
    not_applicable: list[str]
    ok: list[str]
    pending: list[str]


def findings_document(view: View) -> FindingsDocument:
    """The report in the contract's form."""
    report = view.report
    follows = {c.name: [cause for cause in c.follows if report.findings.get(cause)] for c in report.checks}
    findings: list[FindingItem] = [
        {
            "check": found.check,
            "severity": found.severity,
            "subject": encodable(found.subject),
            "summary": encodable(found.summary),
            "remedy": encodable(found.remedy),
            "first_seen": found.first_seen + view.world.skew,
            "follows": follows.get(found.check, []),
        }
        for opened in report.findings.values()
        for found in opened
    ]
    return {
        "findings": sorted(findings, key=_rank),
        "unknown": [
            {"check": name, "missing": [encodable(source) for source in missing]}
            for name, missing in sorted(report.unknown.items())
        ],
        "not_applicable": sorted(report.not_applicable),
        "ok": sorted(name for name, opened in report.findings.items() if not opened),
        "pending": sorted(name for name in report.pending if not report.findings[name]),
    }


def _rank(f: FindingItem) -> tuple[bool, int, str, str]:
    return f["severity"] != Severity.CRITICAL, len(f["follows"]), f["check"], f["subject"]


def only(document: FindingsDocument, checks: Collection[str]) -> FindingsDocument:
    """The part of a document that is about these checks."""
    return {
        "findings": [f for f in document["findings"] if f["check"] in checks],
        "unknown": [u for u in document["unknown"] if u["check"] in checks],
        "not_applicable": [name for name in document["not_applicable"] if name in checks],
        "ok": [name for name in document["ok"] if name in checks],
        "pending": [name for name in document.get("pending", []) if name in checks],
    }


def exit_status(document: FindingsDocument) -> int:
    """0 all well, 1 warnings, 2 critical, 3 something could not be told and there is neither warning nor critical."""
    severities = {f["severity"] for f in document["findings"]}
    if Severity.CRITICAL in severities:
        return 2
    if severities:
        return 1
    return 3 if document["unknown"] else 0


def verdict(document: FindingsDocument) -> str:
    """The whole in one line."""
    severities = [f["severity"] for f in document["findings"]]
    parts = [f"{n} {severity}" for severity in reversed(Severity) if (n := severities.count(severity))]
    if blind := len(document["unknown"]):
        parts.append(f"{blind} check{'s' * (blind > 1)} cannot tell")
    return ", ".join(parts) or (
        "all is well" if document["ok"] else "no check applies to this node: `mecexporter config` shows its roles"
    )


def cannot_tell(document: FindingsDocument, sources: SourcesDocument, now: float) -> list[tuple[list[str], list[str]]]:
    """Checks that miss the same sources, and why they miss each; ``now`` is Unix seconds."""
    by_name = {item["source"]: item for item in sources["sources"]}
    groups: dict[tuple[str, ...], list[str]] = {}
    for u in document["unknown"]:
        groups.setdefault(tuple(u["missing"]), []).append(u["check"])
    return [
        (checks, [_why(source, by_name.get(source), now) for source in missing]) for missing, checks in groups.items()
    ]


def in_words(document: FindingsDocument, sources: SourcesDocument, now: float) -> str:
    """For a terminal: each finding with what, where, since when and what to do; what can't be told, and why.

    Args:
        document: may be of another process or release; nothing in it reaches the terminal but as printable text.
        sources: of the same moment.
        now: Unix seconds.
    """
    return "".join(f"{visible(line)}\n" for line in _lines(document, sources, now))


def _lines(document: FindingsDocument, sources: SourcesDocument, now: float) -> Iterator[str]:
    yield f"{sources['hostname']}: {verdict(document)}"
    for f in document["findings"]:
        yield ""
        yield f"{f['severity'].upper()}  {f['check']}"
        yield f"  what   {f['summary']}"
        yield f"  where  {f['subject']}"
        yield f"  since  {local_time(f['first_seen'])} (for {duration(now - f['first_seen'])})"
        if causes := f.get("follows"):  # a service of another release may not say
            yield f"  cause  most likely what {', '.join(causes)} says: mend that first"
        yield f"  do     {f['remedy']}"
    for checks, reasons in cannot_tell(document, sources, now):
        yield ""
        yield f"CANNOT TELL  {', '.join(checks)}"
        yield from (f"  {reason}" for reason in reasons)
    waiting = document.get("pending", [])  # a service of another release may not say
    well = [name for name in document["ok"] if name not in waiting]
    for title, names in (
        ("Seen, not for long enough to report", waiting),
        ("Well", well),
        ("Does not apply to this node", document["not_applicable"]),
    ):
        if names:
            yield ""
            yield f"{title}: {', '.join(names)}"


_NO_SOURCES = {
    "internal": "the check itself failed; the exporter's log has the traceback",  # checks.ledger
    "memory": "memory: this node was not yet seen healthy for grace.identity without a break: nothing to compare with",
    "time": "seen now, but not for long enough to report: the running service can tell",  # cli: read by itself, once
}


def _why(source: str, item: SourceItem | None, now: float) -> str:
    if source in _NO_SOURCES:
        return _NO_SOURCES[source]
    if item is None:
        return f"{source}: it is not asked here; most likely sources.disable names it"
    if item["since"] is None:
        return f"{source}: {item['why'] or 'it answers, but that does not tell yet'}"
    return f"{source}: {item['why']}; no answer since {local_time(item['since'])} (for {duration(now - item['since'])})"
