"""A view in, an exposition out: one cached block a collector; one that fails costs only itself.

Lines are written here, as prometheus-client writes them and the tests hold against it: a site's chassis have thousands
of series that are new at each read, and its families of samples of dictionaries take eight times as long.
"""

from __future__ import annotations

import logging
from enum import Enum
from typing import TYPE_CHECKING

from prometheus_client import exposition
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.utils import floatToGoString

from mecexporter.metrics.spec import Kind, Metric, MetricContractError, Stability
from mecexporter.state.observed import Absent, Fresh

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mecexporter.metrics.registry import Collector, View
    from mecexporter.metrics.spec import Sample

log = logging.getLogger(__name__)

COLLECTOR_SUCCESS = Metric(
    name="mecexporter_collector_success",
    help="Whether the collector rendered without an error (1) or not (0).",
    labels=("collector",),
    stability=Stability.STABLE,
)


class Format(Enum):
    """The exposition formats served; the value is the HTTP content type."""

    TEXT = exposition.CONTENT_TYPE_PLAIN_0_0_4
    OPENMETRICS = openmetrics.CONTENT_TYPE_LATEST


def negotiate(accept: str) -> Format:
    """Choose by the Accept header as prometheus-client does: OpenMetrics where it is asked for."""
    wanted = (part.partition(";")[0].strip() for part in accept.split(","))
    return Format.OPENMETRICS if "application/openmetrics-text" in wanted else Format.TEXT


class Renderer:
    """Keeps each collector's last block, by format, for as long as what it reads is the same."""

    def __init__(self, collectors: Iterable[Collector]) -> None:
        self._collectors = tuple(collectors)
        self._blocks: dict[tuple[str, Format], tuple[tuple[object, ...], bytes, bool]] = {}

    def render(self, view: View, form: Format = Format.TEXT) -> bytes:
        """The whole exposition."""
        blocks: list[bytes] = []
        verdicts: list[Sample] = []
        for c in self._collectors:
            block, good = self._block(c, view, form)
            blocks.append(block)
            verdicts.append(COLLECTOR_SUCCESS(good, collector=c.name))
        blocks.append(_family(COLLECTOR_SUCCESS, verdicts, form).encode())
        if form is Format.OPENMETRICS:
            blocks.append(b"# EOF\n")
        return b"".join(blocks)

    def _block(self, c: Collector, view: View, form: Format) -> tuple[bytes, bool]:
        known = self._blocks.get((c.name, form))
        reads: tuple[object, ...] | None = None
        try:
            reads = c.reads(view)
            if known and len(known[0]) == len(reads) and all(_same(a, b) for a, b in zip(known[0], reads, strict=True)):
                return known[1], known[2]
            block, good = _families(c, view, form).encode(), True
        except Exception:  # a collector's bug must not take the other collectors along
            log.exception("collector failed", extra={"collector": c.name})
            block, good = b"", False
        if reads is not None:
            self._blocks[c.name, form] = (reads, block, good)
        return block, good


def _same(a: object, b: object) -> bool:
    """Whether a part of the view is what it was; an answer is another one even if it says the same."""
    return a is b or (not isinstance(a, (Fresh, Absent)) and a == b)


def _families(c: Collector, view: View, form: Format) -> str:
    by_metric: dict[Metric, list[Sample]] = {m: [] for m in c.metrics}
    for sample in c.collect(view):
        if sample.metric not in by_metric:
            raise MetricContractError(f"collector {c.name} emits {sample.metric.name}, which it does not declare")
        by_metric[sample.metric].append(sample)
    return "".join(_family(metric, samples, form) for metric, samples in by_metric.items() if samples)


def _family(metric: Metric, samples: Iterable[Sample], form: Format) -> str:
    """HELP, TYPE, and a line a sample, labels in alphabetical order (text format 0.0.4; OpenMetrics 1.0)."""
    kind = "counter" if metric.kind is Kind.COUNTER else "gauge"
    name, about = metric.name, metric.help.replace("\\", r"\\").replace("\n", r"\n")
    if form is Format.OPENMETRICS:
        name, about = name.removesuffix("_total") if kind == "counter" else name, about.replace('"', r"\"")
    lines = [f"# HELP {name} {about}\n# TYPE {name} {kind}\n"]
    order = sorted((label, place) for place, label in enumerate(metric.labels))
    seen: set[tuple[str, ...]] = set()
    for sample in samples:
        if sample.labels in seen:  # Prometheus would refuse the whole scrape
            raise MetricContractError(f"{metric.name}: two samples with labels {sample.labels}")
        seen.add(sample.labels)
        labels = ",".join([f'{label}="{_escaped(sample.labels[place])}"' for label, place in order])
        value: str = floatToGoString(sample.value)  # type: ignore[no-untyped-call]  # the library has no type here
        lines.append(f"{metric.name}{f'{{{labels}}}' if labels else ''} {value}\n")
    return "".join(lines)


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
