"""What check tests share."""

from mecexporter.checks.base import Check, Finding, Unknown
from mecexporter.state.world import World

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
