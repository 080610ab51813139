"""Findings over time: graces, reads, first-seen times, and what outlives restarts and blindness."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from mecexporter.checks.base import Check, Finding, Severity, Unknown
from mecexporter.checks.ledger import KEPT_WHILE_UNKNOWN, Ledger
from mecexporter.state.world import Role
from tests.worlds import NOW, healthy_compute

if TYPE_CHECKING:
    from mecexporter.checks.base import Verdict
    from mecexporter.checks.ledger import Open, Report
    from mecexporter.state.world import World


@dataclass
class Story:
    """One check whose verdicts a test dictates, and the ledger that folds them."""

    ledger: Ledger = field(default_factory=Ledger)
    verdict: Verdict | Exception = ()
    world: World = field(default_factory=healthy_compute)
    report: Report | None = None

    def check(self) -> Check:
        return Check(
            name="toy",
            severity=Severity.WARNING,
            title="a toy",
            roles=frozenset({Role.COMPUTE}),
            sources=("ovs",),
            alert_for="0s",
            follows=(),
            ask=self.ask,
        )

    def ask(self, _world: World) -> Verdict:
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict

    def at(self, seconds: float, *found: Finding) -> tuple[Open, ...]:
        """What is reported at NOW + seconds, where the check finds these."""
        self.verdict = found
        return self._advance(seconds).findings["toy"]

    def blind(self, seconds: float) -> Report:
        self.verdict = Unknown(("ovs",))
        return self._advance(seconds)

    def broken(self, seconds: float) -> Report:
        self.verdict = ValueError("a bug")
        return self._advance(seconds)

    def waiting(self) -> tuple[str, ...]:
        assert self.report is not None
        return tuple(self.report.pending)

    def lacks(self) -> float:
        """Seconds for which something must still be seen."""
        assert self.report is not None
        return self.report.pending["toy"]

    def _advance(self, seconds: float) -> Report:
        self.report = self.ledger.advance([self.check()], replace(self.world, now=NOW + seconds))
        return self.report


def finding(read: float = 0.0, *, subject: str = "x", hold: float = 0.0, reads: int = 1) -> Finding:
    return Finding(subject=subject, summary="s", remedy="r", read_at=NOW + read, hold=hold, reads=reads)


def test_a_finding_without_grace_is_reported_at_once() -> None:
    (opened,) = Story().at(0, finding())
    assert (opened.check, opened.severity, opened.subject, opened.first_seen) == ("toy", "warning", "x", NOW)


def test_it_keeps_its_first_seen_time_and_has_its_latest_words() -> None:
    story = Story()
    story.at(0, finding())
    (opened,) = story.at(60, replace(finding(60), summary="worse"))
    assert (opened.first_seen, opened.summary) == (NOW, "worse")


def test_a_finding_clears_at_the_first_evaluation_without_it() -> None:
    story = Story()
    story.at(0, finding())
    assert story.at(1) == ()
    (again,) = story.at(2, finding(2))
    assert again.first_seen == NOW + 2


def test_a_grace_must_pass_without_a_break() -> None:
    story = Story()
    assert story.at(0, finding(0, hold=30)) == ()
    assert (story.waiting(), story.lacks()) == (("toy",), 30)
    assert story.at(29.9, finding(29.9, hold=30), finding(29.9, hold=500, subject="y")) == ()
    assert story.lacks() == pytest.approx(0.1)
    (opened,) = story.at(30, finding(30, hold=30))
    assert opened.first_seen == NOW, "since when it was seen, not since when it was reported"
    assert story.waiting() == ()


def test_a_break_begins_the_grace_anew() -> None:
    story = Story()
    story.at(0, finding(0, hold=30))
    story.at(15)
    assert story.at(30, finding(30, hold=30)) == ()
    assert story.at(59, finding(59, hold=30)) == ()
    assert len(story.at(60, finding(60, hold=30))) == 1


def test_blindness_begins_the_grace_of_what_was_not_reported_anew() -> None:
    story = Story()
    story.at(0, finding(0, hold=30))
    story.blind(10)
    assert story.at(30, finding(30, hold=30)) == ()


def test_reads_are_counted_by_when_they_were_made() -> None:
    story = Story()
    assert story.at(0, finding(0, reads=2)) == ()
    assert story.at(5, finding(0, reads=2)) == (), "the same read looked at again"
    assert len(story.at(10, finding(10, reads=2))) == 1


def test_both_reads_and_grace_are_needed() -> None:
    story = Story()
    story.at(0, finding(0, reads=2, hold=30))
    assert story.at(40, finding(0, reads=2, hold=30)) == ()
    assert len(story.at(41, finding(41, reads=2, hold=30))) == 1


def test_a_world_may_know_since_when() -> None:
    story = Story()
    (opened,) = story.at(0, replace(finding(hold=30), since=NOW - 40))
    assert opened.first_seen == NOW - 40
    (other,) = Story().at(0, replace(finding(), since=NOW + 40))
    assert other.first_seen == NOW, "never in the future"


def test_subjects_are_held_apart() -> None:
    story = Story()
    story.at(0, finding(subject="b"))
    opened = story.at(10, finding(10, subject="b"), finding(10, subject="a"))
    assert [(o.subject, o.first_seen) for o in opened] == [("a", NOW + 10), ("b", NOW)]


def test_a_subject_twice_is_one_finding() -> None:
    assert len(Story().at(0, finding(), finding())) == 1


@pytest.mark.parametrize(("blind_for", "kept"), [(KEPT_WHILE_UNKNOWN, True), (KEPT_WHILE_UNKNOWN + 1, False)])
def test_first_seen_outlives_five_minutes_of_blindness_and_no_more(blind_for: float, kept: bool) -> None:
    story = Story()
    story.at(0, finding())
    for second in range(10, int(blind_for), 10):
        report = story.blind(second)
        assert report.unknown == {"toy": ("ovs",)}
        assert "toy" not in report.findings
    story.blind(blind_for)
    assert (story.ledger.first_seen() == {"toy": {"x": NOW}}) is kept
    (opened,) = story.at(blind_for + 1, finding(blind_for + 1))
    assert opened.first_seen == (NOW if kept else NOW + blind_for + 1)


def test_what_comes_back_within_them_needs_no_new_grace() -> None:
    story = Story()
    story.at(0, finding(0, reads=2, hold=30))
    story.at(30, finding(30, reads=2, hold=30))
    story.blind(60)
    assert len(story.at(90, finding(90, reads=2, hold=30))) == 1


def test_first_seen_outlives_a_restart_and_its_first_blindness() -> None:
    first = Story()
    first.at(0, finding(0, hold=30, reads=2))
    first.at(30, finding(30, hold=30, reads=2))
    saved = first.ledger.first_seen()
    second = Story(Ledger(saved, NOW + 100))
    second.blind(100)
    assert second.ledger.first_seen() == saved
    (opened,) = second.at(101, finding(101, hold=30, reads=2))
    assert opened.first_seen == NOW


def test_a_restart_with_the_trouble_gone_forgets_it() -> None:
    story = Story(Ledger({"toy": {"x": NOW}}, NOW + 100))
    assert story.at(100) == ()
    assert story.ledger.first_seen() == {}


def test_a_saved_time_in_the_future_is_now() -> None:
    (opened,) = Story(Ledger({"toy": {"x": NOW + 9999}}, NOW)).at(0, finding())
    assert opened.first_seen == NOW


def test_what_is_not_reported_is_not_saved() -> None:
    story = Story()
    story.at(0, finding(hold=30))
    assert story.ledger.first_seen() == {}


def test_a_check_that_raises_cannot_tell_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    story = Story()
    story.at(0, finding())
    report = story.broken(10)
    assert report.unknown == {"toy": ("internal",)}
    assert report.failures == {"toy": 1}
    assert "check failed" in caplog.text
    assert story.broken(20).failures == {"toy": 2}
    (opened,) = story.at(30, finding(30))
    assert opened.first_seen == NOW, "blindness of our own making is blindness"
    assert story.report is not None
    assert story.report.failures == {"toy": 2}


def test_it_costs_only_itself() -> None:
    story = Story(verdict=ValueError("a bug"))
    other = replace(story.check(), name="other", ask=lambda _world: ())
    report = story.ledger.advance([story.check(), other], story.world)
    assert set(report.unknown) == {"toy"}
    assert report.findings == {"other": ()}


@pytest.mark.parametrize("lost", ["role", "source", "disabled"])
def test_a_check_that_does_not_apply_has_nothing(lost: str) -> None:
    story = Story()
    story.at(0, finding())
    settings = replace(story.world.settings, disabled_checks=frozenset({"toy"}))
    story.world = {
        "role": replace(story.world, roles=frozenset({Role.CENTRAL})),
        "source": replace(story.world, applicable=frozenset({"host"})),
        "disabled": replace(story.world, settings=settings),
    }[lost]
    report = story.blind(10)
    assert report.not_applicable == ("toy",)
    assert not report.findings
    assert not report.unknown
    assert story.ledger.first_seen() == {}
