"""What the checks found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.metrics.registry import collector
from mecexporter.metrics.spec import Kind, Metric, Stability

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.metrics.registry import View
    from mecexporter.metrics.spec import Sample

FINDINGS = Metric(
    name="mec_check_findings",
    help="Findings of a check now; absent while it can't be evaluated or does not apply to this node.",
    labels=("check", "severity"),
    stability=Stability.STABLE,
)
EVALUABLE = Metric(
    name="mec_check_evaluable",
    help="Whether the check can tell (1) or a source it needs has no answer (0); absent where it does not apply.",
    labels=("check",),
    stability=Stability.STABLE,
)
INFO = Metric(
    name="mec_finding_info",
    help="A finding, one series each, up to findings.limit a check.",
    kind=Kind.INFO,
    labels=("check", "severity", "subject"),
    stability=Stability.STABLE,
)
FIRST_SEEN = Metric(
    name="mec_finding_first_seen_timestamp_seconds",
    help="Since when a finding has been seen, as Unix time; kept over restarts of the exporter.",
    labels=("check", "subject"),
    stability=Stability.STABLE,
)
TRUNCATED = Metric(
    name="mec_check_findings_truncated",
    help="Findings of a check beyond findings.limit, which have no series of their own.",
    labels=("check",),
    stability=Stability.STABLE,
)
FAILURES = Metric(
    name="mecexporter_check_failures_total",
    help="Times a check raised an error of its own; the log has the traceback.",
    kind=Kind.COUNTER,
    labels=("check",),
)


@collector(
    FINDINGS, EVALUABLE, INFO, FIRST_SEEN, TRUNCATED, FAILURES, reads=lambda view: (view.report, view.world.skew)
)
def findings(view: View) -> Iterator[Sample]:
    """Counts for every check that applies, details for what is open."""
    limit = view.world.settings.findings_limit
    for c in view.report.checks:
        if c.name in view.report.not_applicable:
            continue
        yield FAILURES(view.report.failures.get(c.name, 0), check=c.name)
        found = view.report.findings.get(c.name)
        yield EVALUABLE(found is not None, check=c.name)
        if found is None:
            continue
        for severity in c.severities:
            yield FINDINGS(sum(f.severity is severity for f in found), check=c.name, severity=severity)
        yield TRUNCATED(max(0, len(found) - limit), check=c.name)
        for f in found[:limit]:
            yield INFO(1, check=c.name, severity=f.severity, subject=f.subject)
            yield FIRST_SEEN(f.first_seen + view.world.skew, check=c.name, subject=f.subject)
