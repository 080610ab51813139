"""The page for the engineer on the host: one file, no scripts, nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mecexporter import __version__
from mecexporter.metrics.collectors.node import system_id
from mecexporter.web.findings import cannot_tell, exit_status, findings_document, verdict
from mecexporter.web.sources import sources_document, waiting_for
from mecexporter.web.text import duration, local_time, visible

if TYPE_CHECKING:
    from mecexporter.checks.ledger import Report
    from mecexporter.metrics.registry import View
    from mecexporter.web.findings import FindingItem

_STATES = ("finding", "cannot tell", "seen, waiting", "ok", "does not apply")
_CLASSES = ("ok", "warning", "critical", "unknown")  # by exit status


def status_page(view: View) -> bytes:
    """The whole page, in UTF-8."""
    world, report = view.world, view.report
    now = world.now + world.skew
    findings, sources = findings_document(view), sources_document(view)
    shown, more = _limited(findings["findings"], world.settings.findings_limit)
    versions = world.versions()
    return _template.render(
        now=now,
        version=__version__,
        hostname=sources["hostname"],
        roles=sources["roles"],
        verdict=verdict(findings),
        verdict_class=_CLASSES[exit_status(findings)],
        waiting_for=waiting_for(world),
        findings=shown,
        more=more,
        unknown=cannot_tell(findings, sources, now),
        sources=sources["sources"],
        checks=sorted(
            ((c, _state(c.name, report)) for c in report.checks), key=lambda row: (_STATES.index(row[1]), row[0].name)
        ),
        versions=[
            (name, versions[name], seen.first_seen if seen and seen.version == versions[name] else None)
            for name in sorted(versions)
            for seen in (world.memory.versions.get(name),)
        ],
        ids=[sample.labels for sample in system_id.collect(view)],
    ).encode("utf-8")


def _limited(findings: list[FindingItem], limit: int) -> tuple[list[FindingItem], dict[str, int]]:
    """Up to ``limit`` findings a check, and how many more each check has."""
    shown: list[FindingItem] = []
    counts: dict[str, int] = {}
    for f in findings:
        counts[f["check"]] = counts.get(f["check"], 0) + 1
        if counts[f["check"]] <= limit:
            shown.append(f)
    return shown, {check: n - limit for check, n in counts.items() if n > limit}


def _state(check: str, report: Report) -> str:
    if check in report.unknown:
        return "cannot tell"
    if check in report.not_applicable:
        return "does not apply"
    if report.findings.get(check):
        return "finding"
    return "seen, waiting" if check in report.pending else "ok"


def _shown(value: object) -> object:
    """What every expression of the template passes through before it is escaped."""
    return value if isinstance(value, Markup) else visible(str(value))


_jinja = Environment(autoescape=True, undefined=StrictUndefined, finalize=_shown, trim_blocks=True, lstrip_blocks=True)
_jinja.filters |= {"time": local_time, "duration": duration}
_source = (files("mecexporter.web") / "templates" / "status.html").read_text("utf-8")
_template = _jinja.from_string(_source)
_style = _source.partition("<style>")[2].partition("</style>")[0]  # holds no expression: what is sent is what is here
_style_hash = base64.b64encode(hashlib.sha256(_style.encode()).digest()).decode()

CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_style_hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing may run, load or frame; the page's own style by its hash (CSP level 3)."""
