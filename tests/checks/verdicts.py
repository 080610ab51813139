"""What check tests share."""

from mecexporter.checks.base import Check, Finding, Unknown
from mecexporter.checks.ledger import Open
from mecexporter.state.world import World
from tests.worlds import view_of

AWKWARD = [
    "a\nb",
    "a\x1b[31mred",
    "it's",
    'say "hi"',
    "<script>alert(1)</script>",
    "two words",
    "a;b",
    "$(id)",
    "名",
    "\\",
]
"""Names that a database lets through."""


def findings(check: Check, world: World) -> tuple[Finding, ...]:
    """What it found; it must be able to tell."""
    verdict = check.ask(world)
    assert not isinstance(verdict, Unknown), verdict
    return verdict


def only_finding(check: Check, world: World) -> Finding:
    """The one finding that it must have."""
    (finding,) = findings(check, world)
    return finding


def reported(check: Check, world: World, *, seconds: float = 120, reads: int = 12) -> tuple[Open, ...]:
    """What the ledger reports of it after so many reads over so many seconds."""
    return view_of(world, checks=(check,), seconds=seconds, reads=reads).report.findings.get(check.name, ())


def all_said(world: World) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Of all checks: the subjects of what they report, and the sources that those miss which can't tell."""
    report = view_of(world).report
    return (
        {name: [f.subject for f in found] for name, found in report.findings.items() if found},
        {name: list(missing) for name, missing in report.unknown.items()},
    )
