"""The supervisor, on a clock of its own: when it asks, what it publishes, and that nothing stops it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, field
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.base import Source, Supervisor
from mecexporter.state.observed import Absent, Fresh
from tests.virtual_time import now, run_virtual, until
from tests.worlds import healthy_compute, without

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Hashable
    from typing import Any

    from mecexporter.state.observed import Observed
    from mecexporter.state.world import SourceStatus, World

HANGS = 1e9


class Scripted(Source[str]):
    """A double: answers, fails or hangs as it is told to, its last word for ever after."""

    name = "openflow"

    def __init__(self, *script: str | Exception | float, interval: float = 10.0) -> None:
        self.interval = interval
        self.script = list(script)
        self.takes = 0.0
        self.asks: Hashable = None
        self.asked: list[float] = []
        self.closed = 0

    async def read(self, world: World) -> str:  # noqa: ARG002  # it has its script
        self.asked.append(now())
        word = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        await until(now() + (word if isinstance(word, float) else self.takes))
        if isinstance(word, Exception):
            raise word
        return str(word)

    def question(self, world: World) -> Hashable:  # noqa: ARG002  # as above
        return self.asks

    async def close(self) -> None:
        self.closed += 1


class Even(random.Random):
    """No jitter."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


class Late(random.Random):
    """All the jitter there is."""

    def uniform(self, a: float, b: float) -> float:
        return max(a, b)


@dataclass
class Bench:
    """A supervisor at work, and what it published."""

    source: Scripted
    chance: random.Random = field(default_factory=Even)
    world: World = field(default_factory=healthy_compute)
    wanted: bool = True
    awaited: bool = False
    seen: list[tuple[float, Observed[str], SourceStatus]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.supervisor = Supervisor(
            self.source,
            world=lambda: self.world,
            publish=lambda _source, outcome, status: self.seen.append((now(), outcome, status)),
            wanted=lambda _world: self.wanted,
            clock=now,
            chance=self.chance,
            awaited=self.awaited,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.supervisor.run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def run(self, seconds: float) -> Bench:
        async def scenario() -> None:
            async with self.running():
                await until(seconds)

        run_virtual(scenario())
        return self

    def poke(self) -> None:
        self.supervisor.poke(self.world)

    @property
    def outcomes(self) -> list[Observed[str]]:
        return [outcome for _, outcome, _ in self.seen]


@pytest.fixture(autouse=True)
def virtual_durations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads are timed by the same clock as everything else here."""
    monkeypatch.setattr("mecexporter.sources.base.time", SimpleNamespace(monotonic=now))


def failing(reason: Reason) -> SourceError:
    return SourceError(reason, f"it is {reason}")


def gaps(times: list[float]) -> list[float]:
    return [round(later - earlier, 3) for earlier, later in pairwise(times)]


class TestWhenItAsks:
    def test_at_once_and_then_each_interval(self) -> None:
        assert Bench(Scripted("a")).run(45).source.asked == [0, 10, 20, 30, 40]

    def test_the_answer_may_say_when_to_ask_again(self) -> None:
        class Patient(Scripted):
            def pause(self, value: str) -> float:
                return 100 if value == "well" else 5

        assert Bench(Patient("ill", "ill", "well")).run(300).source.asked == [0, 5, 10, 110, 210]

    @pytest.mark.parametrize(
        ("interval", "retry", "reason", "shared", "expected"),
        [
            pytest.param(15, None, Reason.ANSWERED_ERROR, False, [15, 30, 60, 120, 150, 150], id="to ten intervals"),
            pytest.param(1, None, Reason.GARBAGE, False, [1, 2, 4, 8, 10, 10], id="to ten short intervals"),
            pytest.param(60, None, Reason.CLOSED, False, [60, 120, 240, 300, 300], id="to five minutes"),
            pytest.param(300, None, Reason.TIMEOUT, False, [300, 300], id="an interval of five minutes"),
            pytest.param(15, None, Reason.REFUSED, False, [15, 15, 15], id="a refusal costs nothing"),
            pytest.param(15, None, Reason.MISSING, False, [15, 15, 15], id="nor does a missing socket"),
            pytest.param(15, None, Reason.PERMISSION, False, [15, 15, 15], id="nor does a lack of rights"),
            pytest.param(1800, 15, Reason.REFUSED, True, [15, 30, 60, 120, 240, 300, 300], id="but by thousands"),
            pytest.param(1800, 15, Reason.TIMEOUT, True, [15, 30, 60, 120, 240, 300, 300], id="rare, found again soon"),
        ],
    )
    def test_back_off(
        self, interval: float, retry: float | None, reason: Reason, shared: bool, expected: list[float]
    ) -> None:
        source = Scripted(failing(reason), interval=interval)
        source.retry, source.shared = retry, shared
        assert gaps(Bench(source).run(sum(expected) + 9).source.asked) == expected

    def test_back_off_ends_with_the_first_answer(self) -> None:
        down = failing(Reason.GARBAGE)
        assert gaps(Bench(Scripted(down, down, down, "up", down, "up")).run(150).source.asked)[:6] == [
            10,
            20,
            40,
            10,
            10,
            10,
        ]

    def test_a_thousand_failures_later_it_still_asks(self) -> None:
        bench = Bench(Scripted(failing(Reason.GARBAGE), interval=1)).run(12_000)
        assert gaps(bench.source.asked)[-1] == 10

    def test_jitter_spreads_by_a_tenth(self) -> None:
        spread = gaps(Bench(Scripted("a"), chance=random.Random(1)).run(3000).source.asked)  # noqa: S311  # no secret
        assert 9 <= min(spread) < 9.5
        assert 10.5 < max(spread) <= 11

    def test_slow_answers_are_asked_for_a_quarter_of_the_time_at_most(self) -> None:
        source = Scripted("slow", interval=4)
        source.takes = 2
        assert Bench(source).run(20).source.asked == [0, 8, 16]

    @pytest.mark.parametrize("interval", [1, 3, 15])
    @pytest.mark.parametrize("takes", [2.5, 4.0, 4.4])
    def test_but_a_slow_read_does_not_make_its_own_answer_stale(self, interval: float, takes: float) -> None:
        source = Scripted("slow", interval=interval)
        source.takes = takes
        bench = Bench(source, chance=Late()).run(200)
        told = [outcome.at for outcome in bench.outcomes if isinstance(outcome, Fresh)]
        assert max(gaps(told)) <= source.lifetime

    def test_a_silent_source_is_asked_again_within_ten_intervals(self) -> None:
        assert Bench(Scripted(HANGS, interval=1)).run(40).source.asked == [0, 15, 30], "5 s of silence, 10 s of rest"

    def test_one_that_does_not_apply_is_not_asked(self) -> None:
        bench = Bench(Scripted("a"), wanted=False).run(1000)
        assert bench.source.asked == []
        assert bench.seen == []

    def test_it_is_asked_as_soon_as_it_applies_and_no_longer_than_that(self) -> None:
        bench = Bench(Scripted("a"), wanted=False)

        async def scenario() -> None:
            async with bench.running():
                await until(100)
                bench.wanted = True
                bench.poke()
                await until(125)
                bench.wanted = False
                bench.poke()
                await until(300)
                bench.wanted = True
                bench.poke()
                await until(305)

        run_virtual(scenario())
        assert bench.source.asked == [100, 110, 120, 300]

    def test_not_before_what_its_question_is_made_of(self) -> None:
        bench = Bench(Scripted("a"))
        bench.source.needs = ("ovs", "host")
        bench.world = without(without(healthy_compute(), "ovs", reason=Reason.PENDING), "host", reason=Reason.PENDING)

        async def scenario() -> None:
            async with bench.running():
                await until(50)
                bench.world = bench.world.with_part("host", healthy_compute().host)
                bench.poke()
                await until(60)
                bench.world = without(bench.world, "ovs", reason=Reason.REFUSED)  # badly answered is answered
                bench.poke()
                await until(61)

        run_virtual(scenario())
        assert bench.source.asked == [60]


class TestPoke:
    @staticmethod
    def questions(bench: Bench, *changes: tuple[float, Hashable], end: float) -> list[float]:
        async def scenario() -> None:
            async with bench.running():
                for moment, question in changes:
                    await until(moment)
                    bench.source.asks = question
                    bench.poke()
                await until(end)

        run_virtual(scenario())
        return bench.source.asked

    def test_a_changed_question_is_asked_at_once(self) -> None:
        assert self.questions(Bench(Scripted("a", interval=1800)), (100, "id 1"), (200, "id 2"), end=300) == [
            0,
            100,
            200,
        ]

    def test_the_same_question_is_not(self) -> None:
        changes = [(t, "id 1") for t in range(100, 200, 10)]
        assert self.questions(Bench(Scripted("a", interval=1800)), *changes, end=300) == [0, 100]

    def test_one_that_cannot_be_told_now_is_not(self) -> None:
        asked = self.questions(Bench(Scripted("a", interval=1800)), (100, "id 1"), (150, None), (200, "id 1"), end=300)
        assert asked == [0, 100]

    def test_one_that_changes_all_the_time_is_asked_once_a_second(self) -> None:
        changes = [(100 + n / 20, n) for n in range(100)]
        asked = self.questions(Bench(Scripted("a", interval=1800)), *changes, end=300)
        assert min(gaps(asked)) >= 1
        assert len(asked) <= 8

    def test_it_ends_a_back_off(self) -> None:
        bench = Bench(Scripted(failing(Reason.TIMEOUT), interval=1800))
        assert self.questions(bench, (100, "another remote"), end=200) == [0, 100]

    def test_a_question_that_changes_while_it_is_asked_is_asked_again(self) -> None:
        bench = Bench(Scripted("a", interval=1800))
        bench.source.takes = 3
        assert self.questions(bench, (1, "id 1"), end=100) == [0, 4]


class TestShared:
    """Thousands of nodes ask the same server: what stirs one stirs others."""

    @staticmethod
    def source(interval: float = 1800.0, retry: float = 10.0) -> Scripted:
        made = Scripted("a", interval=interval)
        made.shared, made.retry = True, retry
        return made

    def test_it_waits_a_jitter_at_first_and_whenever_it_is_stirred_and_not_besides(self) -> None:
        source = self.source(interval=600)
        assert TestPoke.questions(Bench(source), (100, "id 1"), end=800) == [5, 105, 705]
        assert TestPoke.questions(Bench(self.source(), chance=Late()), (100, "id 1"), end=300) == [10, 110]

    def test_however_seldom_it_is_asked_it_does_not_wait_long_to_be_asked_at_first(self) -> None:
        source = self.source(retry=3600)
        assert TestPoke.questions(Bench(source, chance=Late()), (100, "id 1"), end=300) == [15, 115]

    def test_what_changes_while_it_waits_is_asked_once(self) -> None:
        asked = TestPoke.questions(Bench(self.source()), (100, "id 1"), (102, "id 2"), end=300)
        assert asked == [5, 105]

    def test_a_question_that_is_not_worth_it_is_not_asked_but_its_contrary_is(self) -> None:
        class Asks(Scripted):
            def worth_asking(self, asked: Hashable, now: Hashable) -> bool:  # noqa: ARG002  # it is one-sided
                return now == "it fails"

        source = Asks("a", interval=1800)
        changes = [(100, "it fails"), (200, "well"), (300, "it fails"), (350, "well"), (360, "well")]
        assert TestPoke.questions(Bench(source), *changes, end=500) == [0, 100, 300]


class TestWhatItPublishes:
    def test_an_answer_with_when_it_was_had(self) -> None:
        source = Scripted("a")
        source.takes = 2
        moment, outcome, status = Bench(source).run(5).seen[0]
        assert (moment, outcome) == (2, Fresh("a", 2))
        assert (status.last_success, status.duration, status.rounds, dict(status.errors)) == (2, 2, 1, {})

    def test_silence_ends_at_the_deadline(self) -> None:
        source = Scripted(HANGS)
        source.deadline = 5
        moment, outcome, _ = Bench(source).run(8).seen[0]
        assert moment == 5
        assert outcome == Absent("no answer within 5 s", since=0, at=5, reason=Reason.TIMEOUT)

    def test_an_error_is_absence_at_once_with_its_words(self) -> None:
        assert Bench(Scripted(failing(Reason.REFUSED))).run(1).outcomes == [
            Absent("it is refused", since=0, at=0, reason=Reason.REFUSED)
        ]

    def test_since_is_when_the_first_failed_call_was_begun(self) -> None:
        down = failing(Reason.REFUSED)
        bench = Bench(Scripted("a", HANGS, down, down, "a", down)).run(70)
        absent = [(o.since, o.reason) for o in bench.outcomes if isinstance(o, Absent)]
        assert absent[:3] == [(10, Reason.TIMEOUT), (10, Reason.REFUSED), (10, Reason.REFUSED)]
        assert absent[3][0] > 30, "a new trouble"

    def test_a_bug_costs_this_source_only(self, caplog: pytest.LogCaptureFixture) -> None:
        bench = Bench(Scripted(ZeroDivisionError("oops"), "a")).run(15)
        (first, second) = bench.outcomes
        assert isinstance(first, Absent)
        assert (first.reason, first.why) == (Reason.INTERNAL, "ZeroDivisionError: the log has the traceback")
        assert isinstance(second, Fresh)
        assert "source failed" in caplog.text
        assert "oops" in caplog.text

    def test_its_errors_are_counted_by_reason(self) -> None:
        down, garbage = failing(Reason.REFUSED), failing(Reason.GARBAGE)
        _, _, status = Bench(Scripted(down, down, garbage, "a")).run(35).seen[-1]
        assert dict(status.errors) == {Reason.REFUSED: 2, Reason.GARBAGE: 1}
        assert (status.rounds, status.last_success) == (4, 30)

    def test_what_was_published_does_not_change_afterwards(self) -> None:
        bench = Bench(Scripted(failing(Reason.REFUSED))).run(35)
        assert [dict(status.errors) for _, _, status in bench.seen] == [{Reason.REFUSED: n} for n in (1, 2, 3, 4)]


class TestEnd:
    @pytest.mark.parametrize("script", ["a", HANGS, failing(Reason.REFUSED)])
    def test_cancelling_closes_the_source_once(self, script: Any) -> None:
        bench = Bench(Scripted(script)).run(2)
        assert bench.source.closed == 1

    def test_one_that_was_never_asked_too(self) -> None:
        assert Bench(Scripted("a"), wanted=False).run(2).source.closed == 1

    def test_a_cancelled_read_publishes_nothing(self) -> None:
        assert Bench(Scripted(HANGS)).run(2).seen == []


@pytest.mark.parametrize(("interval", "lifetime"), [(1, 10), (3, 10), (4, 12), (15, 45), (1800, 5400)])
def test_an_answer_lives_three_intervals_and_ten_seconds_at_least(interval: float, lifetime: float) -> None:
    assert Scripted("a", interval=interval).lifetime == lifetime


def test_where_somebody_waits_for_it_a_shared_source_is_asked_at_once() -> None:
    source = Scripted("a", interval=1800.0)
    source.shared, source.retry = True, 15.0
    assert Bench(source, awaited=True).run(5).source.asked == [0.0]


class TestAgain:
    """A second opinion, out of turn."""

    def bench(self) -> Bench:
        bench = Bench(Scripted("a", interval=300.0))
        bench.source.rereads = True
        return bench

    def test_it_is_asked_for_once_between_two_reads_in_turn(self) -> None:
        bench = self.bench()

        async def scenario() -> None:
            async with bench.running():
                for moment in (60, 70, 80, 200):
                    await until(moment)
                    bench.supervisor.again()
                await until(1000)

        run_virtual(scenario())
        assert [round(at) for at in bench.source.asked] == [0, 60, 360, 660, 960]

    def test_after_the_next_read_in_turn_it_may_be_asked_for_anew(self) -> None:
        bench = self.bench()

        async def scenario() -> None:
            async with bench.running():
                for moment in (60, 400):
                    await until(moment)
                    bench.supervisor.again()
                await until(500)

        run_virtual(scenario())
        assert [round(at) for at in bench.source.asked] == [0, 60, 360, 400]

    def test_a_source_that_reads_often_enough_is_not_stirred(self) -> None:
        bench = self.bench()
        bench.source.rereads = False

        async def scenario() -> None:
            async with bench.running():
                await until(60)
                bench.supervisor.again()
                await until(200)

        run_virtual(scenario())
        assert [round(at) for at in bench.source.asked] == [0]
