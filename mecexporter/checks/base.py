"""A check is a pure question to the World; its answer may be 'cannot tell'."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, TypeAlias

from mecexporter.state.central import may_be_of
from mecexporter.state.observed import Fresh
from mecexporter.state.world import CELL

if TYPE_CHECKING:
    from collections.abc import Callable

    from mecexporter.state.ovn_db import Model
    from mecexporter.state.world import Role, World


class Severity(StrEnum):
    """How loudly a finding calls."""

    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Sources disagree about one subject, and what an operator does about it.

    Attributes:
        subject: unique within the check; never error text.
        summary: what is wrong, with the values seen.
        remedy: what to do, with the values to use.
        hold: seconds for which it must be seen without a break before it is reported.
        reads: distinct reads that must show it before it is reported.
        read_at: when the read that shows it was made, or the reads: a read is distinct where all of them are new.
        since: when the trouble began, where the World knows it better than by having looked twice.
        severity: where it is not the check's own.
    """

    subject: str
    summary: str
    remedy: str
    read_at: float | tuple[float, ...]
    hold: float = 0.0
    reads: int = 1
    since: float | None = None
    severity: Severity | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """Sources that are needed and not fresh: say nothing, and say that."""

    missing: tuple[str, ...]


Verdict: TypeAlias = tuple[Finding, ...] | Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A named question.

    Attributes:
        severity: of its findings.
        worst: of those of its findings that are graver than the others, None if all are alike.
        title: 'true when …', one line for people.
        roles: where it applies.
        sources: those it can't do without; it applies where all of them do. ``nova@`` stands for every cell.
        either: sets of sources; where there are any, it applies where all of one set do.
        models: those of OVN's database servers that it is about; it applies where there is one, or may be.
        alert_for: Prometheus' ``for`` of its alert, on top of what the check itself waits.
        follows: checks whose findings explain this one's: whoever mends those mends this.
    """

    name: str
    severity: Severity
    title: str
    roles: frozenset[Role]
    sources: tuple[str, ...]
    alert_for: str
    follows: tuple[str, ...]
    ask: Callable[[World], Verdict]
    models: frozenset[Model] = frozenset()
    worst: Severity | None = None
    either: tuple[tuple[str, ...], ...] = ()

    @property
    def severities(self) -> tuple[Severity, ...]:
        """What its findings may bear."""
        return (self.severity,) if self.worst is None else (self.severity, self.worst)

    def names(self, world: World) -> tuple[str, ...]:
        """The sources on this node that it is made of."""
        wanted = (*self.sources, *(source for sources in self.either for source in sources))
        return tuple(sorted({name for source in wanted for name in asked(world, source)}))

    def applies(self, world: World) -> bool:
        """Whether this node has the role and the sources, and nobody disabled it."""
        return (
            bool(self.roles & world.roles)
            and _there(world, self.sources)
            and (not self.either or any(_there(world, sources) for sources in self.either))
            and (not self.models or may_be_of(world, self.models))
            and self.name not in world.settings.disabled_checks
        )


def _there(world: World, sources: tuple[str, ...]) -> bool:
    return all(asked(world, source) for source in sources)


def asked(world: World, source: str) -> tuple[str, ...]:
    """The sources of this name that apply on this node: none, one or, of Nova's cells, several."""
    if source == CELL:
        return tuple(sorted(name for name in world.cells if name in world.applicable))
    return (source,) if source in world.applicable else ()


def check(
    *,
    severity: Severity,
    title: str,
    roles: frozenset[Role],
    sources: tuple[str, ...],
    alert_for: str,
    follows: tuple[str, ...] = (),
    models: frozenset[Model] = frozenset(),
    worst: Severity | None = None,
    either: tuple[tuple[str, ...], ...] = (),
) -> Callable[[Callable[[World], Verdict]], Check]:
    """Declare a check: its name is the function's, and the module's."""

    def declare(ask: Callable[[World], Verdict]) -> Check:
        return Check(
            name=ask.__name__,
            severity=severity,
            title=title,
            roles=roles,
            sources=sources,
            alert_for=alert_for,
            follows=follows,
            ask=ask,
            models=models,
            worst=worst,
            either=either,
        )

    return declare


def unknown(world: World, *sources: str) -> Unknown:
    """Which of the sources are not fresh, for a check that has just seen that one is not."""
    return Unknown(tuple(s for s in sources if not isinstance(world.part(s), Fresh)))


def discover() -> tuple[Check, ...]:
    """Every check of this package, by name; one a module."""
    package = __name__.rpartition(".")[0]
    root = import_module(package)
    found = {
        thing.name: thing
        for info in iter_modules(root.__path__)
        for thing in vars(import_module(f"{package}.{info.name}")).values()
        if isinstance(thing, Check)
    }
    return tuple(found[name] for name in sorted(found))
