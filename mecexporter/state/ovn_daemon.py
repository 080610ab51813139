"""What ovn-controller and ovn-northd tell of their own work."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Run(StrEnum):
    """How a node of the incremental processing engine was brought up to date (ovn-northd(8), inc-engine/show-stats).

    ``CANCEL`` is called ``abort`` up to OVN 23.03: work that needed a recompute while none was allowed, put off.
    """

    RECOMPUTE = "recompute"
    COMPUTE = "compute"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopwatch:
    """``stopwatch/show`` of one; seconds by the clock, whether it had a CPU or not.

    Attributes:
        samples: how many were taken since the daemon's start.
        average: over about the last hundred.
        p95: the 95th percentile.
        longest: since the daemon's start.
    """

    samples: int
    average: float
    p95: float
    longest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LflowCache:
    """ovn-controller's cache of logical flows, ``lflow-cache/show-stats``; the last two are younger than the rest."""

    enabled: bool
    entries: int
    size_bytes: int | None
    trims: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One answer; whatever a release does not tell is None or left out.

    Attributes:
        full_recomputes: how often all logical flows were computed anew, since its start.
        engine: node that is computed (not a table of a database) -> how -> how often, since its start.
        stopwatches: by name.
        long_polls: turns of its main loop that it calls unreasonably long, since its start.
        idl_cells: database -> cells (columns of rows) of the copy that it holds.
        lflow_cache: ovn-controller's.
        lflow_cache_lookups: ``hit`` and ``miss`` -> how many.
        cpu_seconds: None where its process is not shown.
        resident_bytes: the same.
    """

    full_recomputes: int | None = None
    engine: Mapping[str, Mapping[Run, int]] = field(default_factory=lambda: MappingProxyType({}))
    stopwatches: Mapping[str, Stopwatch] = field(default_factory=lambda: MappingProxyType({}))
    long_polls: int | None = None
    idl_cells: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    lflow_cache: LflowCache | None = None
    lflow_cache_lookups: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    cpu_seconds: float | None = None
    resident_bytes: int | None = None
