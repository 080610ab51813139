"""Every collector, found by importing ``collectors/``."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mecexporter.checks.ledger import Report
    from mecexporter.metrics.spec import Metric, Sample
    from mecexporter.state.world import World


@dataclass(frozen=True, slots=True)
class View:
    """What a collector reads: the World, and what the checks found in it."""

    world: World
    report: Report


@dataclass(frozen=True, slots=True)
class Collector:
    """A named pure function from a view to samples.

    Attributes:
        reads: the parts of the view that the function looks at; its block is rendered anew when one was replaced.
    """

    name: str
    metrics: tuple[Metric, ...]
    reads: Callable[[View], tuple[object, ...]]
    collect: Callable[[View], Iterable[Sample]]


def collector(
    *metrics: Metric, reads: Callable[[View], tuple[object, ...]]
) -> Callable[[Callable[[View], Iterable[Sample]]], Collector]:
    """Declare the families that a function may emit, and what it reads."""

    def declare(collect: Callable[[View], Iterable[Sample]]) -> Collector:
        return Collector(collect.__name__, metrics, reads, collect)

    return declare


def discover(package: str = "mecexporter.metrics.collectors") -> tuple[Collector, ...]:
    """Every collector of the package, by module and name."""
    root = import_module(package)
    found = {
        thing.name: thing
        for info in sorted(iter_modules(root.__path__), key=lambda i: i.name)
        for thing in vars(import_module(f"{package}.{info.name}")).values()
        if isinstance(thing, Collector)
    }
    return tuple(found.values())
