"""Who is behind, since when: a healthy site under steady bumps never is, one that stands still always comes to be."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from mecexporter.sources.progress import Race

if TYPE_CHECKING:
    from mecexporter.state.propagation import Lag

KEEP = 600.0


def one(race: Race, now: float, leader: int, value: int, row: str = "r1") -> Lag:
    return race.look(now, leader, [("c1", row, value)])["c1"]


def test_one_that_has_all_is_not_behind() -> None:
    lag = one(Race(KEEP), 0, 7, 7)
    assert (lag.behind, lag.idle, lag.missed, lag.from_start) == (None, 0, 0, False)


@pytest.mark.parametrize("late", [1, 3, 14, 16, 40])
@pytest.mark.parametrize("every", [1, 15])
def test_one_that_follows_late_is_behind_for_as_long_as_it_is_late(late: int, every: int) -> None:
    """A rise a second, for an hour."""
    race = Race(KEEP)
    most = 0.0
    for now in range(0, 3600, every):
        lag = one(race, now, 1000 + now, 1000 + now - late)
        most = max(most, lag.behind or 0)
        if now:
            assert lag.idle == 0
            assert lag.missed <= late
    assert most <= late
    assert most > late - every - 1


def test_by_chance_nobody_who_follows_within_seconds_is_behind_for_long() -> None:
    """Of a hundred chassis, each late by its own measure, looked at irregularly."""
    chance = random.Random(7)  # noqa: S311  # jitter is no secret
    race, now, leader = Race(KEEP), 0.0, 0
    history: list[tuple[float, int]] = []
    values = [0] * 100
    for _ in range(500):
        for _ in range(15):
            now += 1
            leader += chance.randrange(3)
            history.append((now, leader))
        for n in range(100):
            late = chance.uniform(0, 20)
            values[n] = max(values[n], next((v for t, v in reversed(history) if t <= now - late), 0))
        lags = race.look(now, leader, [(f"c{n}", f"r{n}", v) for n, v in enumerate(values)])
        assert max(lag.behind or 0 for lag in lags.values()) < 40
        del history[:-60]


def test_one_that_stands_still_is_behind_since_the_first_rise_after_it() -> None:
    race = Race(KEEP)
    one(race, 0, 7, 7)
    assert one(race, 15, 8, 7).behind == 0
    for now in range(30, 3000, 15):
        lag = one(race, now, 8 + now, 7)
        assert lag.behind == now - 15
        assert lag.idle == now
        assert not lag.from_start
    assert lag.missed == 8 + now - 7


def test_in_a_quiet_cloud_nobody_is_behind_however_long() -> None:
    race = Race(KEEP)
    for now in range(0, 7200, 15):
        lag = one(race, now, 7, 7)
    assert (lag.behind, lag.missed) == (None, 0)
    assert lag.idle == now


def test_one_that_was_behind_when_we_began_is_said_to_have_been() -> None:
    race = Race(KEEP)
    assert one(race, 100, 9, 7) == one(Race(KEEP), 100, 9, 7)
    lag = one(race, 130, 9, 7)
    assert (lag.behind, lag.idle, lag.missed, lag.from_start) == (30, 30, 2, True)
    lag = one(race, 145, 10, 8)
    assert (lag.behind, lag.missed, lag.from_start) == (45, 2, True), "it lacks 9, which was there when we began"
    lag = one(race, 160, 10, 9)
    assert (lag.behind, lag.from_start) == (15, False)


def test_one_that_comes_while_we_look_has_all_the_time_that_others_have() -> None:
    """A new chassis begins at 0, and what was ordered before it came is none that it has missed."""
    race = Race(KEEP)
    race.look(0, 5000, [("c2", "r2", 5000)])
    lag = one(race, 600, 5000, 0)
    assert (lag.behind, lag.idle, lag.missed, lag.from_start) == (0, 0, 0, False)
    lag = one(race, 615, 5002, 0)
    assert (lag.behind, lag.missed) == (15, 2)


@pytest.mark.parametrize(("row", "value"), [("r2", 0), ("r2", 4), ("r1", 3)], ids=["came back", "in full", "fell"])
def test_one_that_begins_anew_is_taken_for_new(row: str, value: int) -> None:
    race = Race(KEEP)
    one(race, 0, 9, 4)
    assert one(race, 600, 9, 4).behind == 600
    lag = one(race, 615, 9, value, row)
    assert (lag.behind, lag.idle, lag.missed) == (0, 0, 0)


def test_one_that_was_away_is_new() -> None:
    race = Race(KEEP)
    one(race, 0, 9, 4)
    assert race.look(15, 9, []) == {}
    assert one(race, 30, 9, 4).behind == 0


def test_a_number_that_falls_makes_all_before_it_void() -> None:
    """A backup was put back, or a standby promoted that lacked the last ones."""
    race = Race(KEEP)
    one(race, 0, 90, 90)
    one(race, 15, 95, 90)
    assert one(race, 30, 50, 90).behind is None
    assert one(race, 45, 51, 50).behind == 0, "its own number fell too"
    assert one(race, 60, 51, 51).behind is None


def test_a_gap_in_our_looks_makes_no_delay_and_hides_none() -> None:
    race = Race(KEEP)
    one(race, 0, 10, 10)
    one(race, 15, 12, 10)
    assert one(race, 6000, 3000, 2999).behind == 0, "it has gone on meanwhile"
    assert one(race, 6015, 3000, 2999).behind == 15
    stood = Race(KEEP)
    one(stood, 0, 10, 10)
    one(stood, 15, 12, 10)
    assert one(stood, 6000, 3000, 10).behind == 5985


def test_what_is_kept_is_bounded_and_one_that_creeps_is_behind_for_all_of_it() -> None:
    race = Race(60)
    for now in range(5000):
        lag = one(race, now, now, now // 10)
    assert len(race._values) <= 61
    assert lag.behind is not None
    assert lag.behind >= 59
    assert lag.idle < 11
