"""What checks found, over time: graces, first-seen times, and the report that metrics and people read."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from mecexporter.checks.base import Unknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mecexporter.checks.base import Check, Finding, Severity, Verdict
    from mecexporter.state.world import World

log = logging.getLogger(__name__)

KEPT_WHILE_UNKNOWN = 300.0
"""Seconds for which a first-seen time outlives 'cannot tell' (contract)."""

Key = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """A finding that is reported."""

    check: str
    severity: Severity
    subject: str
    summary: str
    remedy: str
    first_seen: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The state of all checks at one moment; every check of the catalogue is in exactly one of the three.

    Attributes:
        findings: by check that could be evaluated, the empty tuple where all is well.
        unknown: check -> the sources that are missing.
        not_applicable: checks that this node does not have.
        pending: checks with something seen that has not been seen for long enough to be reported -> the seconds that
            the first of it lacks at least, 0 where only another read is lacking.
        again: of those, the ones that have waited long enough and lack only another read.
    """

    checks: tuple[Check, ...] = ()
    findings: Mapping[str, tuple[Open, ...]] = field(default_factory=lambda: MappingProxyType({}))
    unknown: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    not_applicable: tuple[str, ...] = ()
    pending: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    again: tuple[str, ...] = ()
    failures: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class _Entry:
    """One (check, subject) that was seen lately."""

    since: float
    seen: float  # when it was last seen or, while unknown, could last have been
    reads: int
    read_at: tuple[float, ...]
    opened: bool


def _all_newer(now: tuple[float, ...], before: tuple[float, ...]) -> bool:
    """Whether every source was read again; others than before are a beginning."""
    return len(now) != len(before) or all(n > b for n, b in zip(now, before, strict=True))


class Ledger:
    """Folds verdicts into reports, one after another.

    Args:
        first_seen: what an earlier process knew: check -> subject -> time on this process' clock.
        now: when that was read.
    """

    def __init__(self, first_seen: Mapping[str, Mapping[str, float]] | None = None, now: float = 0.0) -> None:
        self._entries: dict[Key, _Entry] = {
            (check, subject): _Entry(since=min(since, now), seen=now, reads=0, read_at=(), opened=True)
            for check, subjects in (first_seen or {}).items()
            for subject, since in subjects.items()
        }
        self._failures: dict[str, int] = {}

    def first_seen(self) -> dict[str, dict[str, float]]:
        """Of the findings that are open, what the next process should know."""
        out: dict[str, dict[str, float]] = {}
        for (check, subject), entry in self._entries.items():
            if entry.opened:
                out.setdefault(check, {})[subject] = entry.since
        return out

    def advance(self, checks: Iterable[Check], world: World) -> Report:
        """Ask every check that applies, and say what is to be reported now."""
        findings: dict[str, tuple[Open, ...]] = {}
        unknown: dict[str, tuple[str, ...]] = {}
        not_applicable: list[str] = []
        pending: dict[str, float] = {}
        again: list[str] = []
        checks = tuple(checks)
        for c in checks:
            if not c.applies(world):
                not_applicable.append(c.name)
                self._forget(c.name)
                continue
            verdict = self._ask(c, world)
            if isinstance(verdict, Unknown):
                unknown[c.name] = verdict.missing
                self._age(c.name, world.now)
                continue
            findings[c.name], waiting = self._fold(c, verdict, world.now)
            if waiting:
                pending[c.name] = min(waiting)
            if 0.0 in waiting:
                again.append(c.name)
        return Report(
            checks=checks,
            findings=findings,
            unknown=unknown,
            not_applicable=tuple(not_applicable),
            pending=pending,
            again=tuple(again),
            failures=dict(self._failures),
        )

    def _ask(self, c: Check, world: World) -> Verdict:
        """A check that raises can't tell, and costs only itself."""
        self._failures.setdefault(c.name, 0)
        try:
            return c.ask(world)
        except Exception:  # whatever a check's bug raises must not take the other checks along
            log.exception("check failed", extra={"check": c.name})
            self._failures[c.name] += 1
            return Unknown(("internal",))

    def _fold(self, c: Check, verdict: tuple[Finding, ...], now: float) -> tuple[tuple[Open, ...], set[float]]:
        """What is reported, and for how many seconds what is not must still be seen."""
        seen = {f.subject: f for f in verdict}
        for key in [k for k in self._entries if k[0] == c.name and k[1] not in seen]:
            del self._entries[key]
        out: list[Open] = []
        waiting: set[float] = set()
        for f in seen.values():
            entry = self._entries.get((c.name, f.subject))
            if entry is None:
                since = now if f.since is None else min(f.since, now)
                entry = _Entry(since=since, seen=now, reads=0, read_at=(), opened=False)
            read_at = f.read_at if isinstance(f.read_at, tuple) else (f.read_at,)
            new_read = _all_newer(read_at, entry.read_at)
            reads = entry.reads + 1 if new_read else entry.reads
            opened = entry.opened or (reads >= f.reads and now - entry.since >= f.hold)
            self._entries[c.name, f.subject] = replace(
                entry, seen=now, reads=reads, read_at=read_at if new_read else entry.read_at, opened=opened
            )
            if opened:
                out.append(
                    Open(
                        check=c.name,
                        severity=f.severity or c.severity,
                        subject=f.subject,
                        summary=f.summary,
                        remedy=f.remedy,
                        first_seen=entry.since,
                    )
                )
            else:
                waiting.add(max(0.0, f.hold - (now - entry.since)))
        return tuple(sorted(out, key=lambda o: o.subject)), waiting

    def _age(self, check: str, now: float) -> None:
        """While a check can't tell, what is open keeps its first-seen time for a while; what is not starts anew."""
        for key, entry in [(k, e) for k, e in self._entries.items() if k[0] == check]:
            if not entry.opened or now - entry.seen > KEPT_WHILE_UNKNOWN:
                del self._entries[key]

    def _forget(self, check: str) -> None:
        for key in [k for k in self._entries if k[0] == check]:
            del self._entries[key]
