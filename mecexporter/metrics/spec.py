"""Metrics declared as data: the only place a name, its labels and its help are written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from mecexporter.errors import MecExporterError


class Kind(StrEnum):
    """The Prometheus types this exporter emits; an info is a gauge that is always 1."""

    GAUGE = "gauge"
    COUNTER = "counter"
    INFO = "info"


class Stability(StrEnum):
    """How long a name is promised: stable names are contract, experimental ones may yet change."""

    EXPERIMENTAL = "experimental"
    STABLE = "stable"


class MetricContractError(MecExporterError):
    """A declaration or a sample broke the catalogue's rules."""


_SUFFIX = {Kind.COUNTER: "_total", Kind.INFO: "_info"}
_FORBIDDEN_LABELS = frozenset({"type", "name", "id", "error", "message"})


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one metric."""

    metric: Metric
    labels: tuple[str, ...]
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric family.

    Raises:
        MetricContractError: the declaration breaks a rule of names; at import, so that no test is needed to see it.
    """

    name: str
    help: str
    kind: Kind = Kind.GAUGE
    labels: tuple[str, ...] = ()
    stability: Stability = Stability.EXPERIMENTAL

    def __post_init__(self) -> None:
        """Refuse what breaks the rules of names."""
        if not re.fullmatch(r"(mec(exporter)?|process)_[a-z][a-z0-9_]*", self.name):
            raise MetricContractError(f"{self.name}: names are mec_<snake_case> or mecexporter_<snake_case>")
        for kind, suffix in _SUFFIX.items():
            if (self.kind is kind) != self.name.endswith(suffix):
                raise MetricContractError(f"{self.name}: {suffix} belongs to {kind}s, and to all of them")
        if bad := _FORBIDDEN_LABELS & set(self.labels):
            raise MetricContractError(f"{self.name}: {sorted(bad)} can't be labels")
        if len(set(self.labels)) != len(self.labels):
            raise MetricContractError(f"{self.name}: a label is there twice")
        if not self.help.endswith("."):
            raise MetricContractError(f"{self.name}: help is a sentence and ends with a full stop")

    def __call__(self, value: float, /, **labels: str) -> Sample:
        """Build a sample; the labels must be exactly those declared.

        Raises:
            MetricContractError: they are not.
        """
        if labels.keys() != set(self.labels):
            raise MetricContractError(f"{self.name}: got labels {sorted(labels)}, want {sorted(self.labels)}")
        return Sample(self, tuple(labels[k] for k in self.labels), float(value))
