"""Drift over several looks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mecexporter.drift.watch import Watch
from mecexporter.state.neutron_ovn import Drift, Resource, State


def drift(state: State = State.MISSING, uuid: str = "a", *, ordered: int = 3, held: int = 1) -> Drift:
    return Drift(resource=Resource.PORT, uuid=uuid, state=state, ordered=ordered, held=held)


def ages(watch: Watch, now: float, *drifts: Drift) -> dict[str, float]:
    return {d.uuid: d.age for d in watch.follow(drifts, now)}


def test_what_stays_grows_old_and_what_was_gone_begins_anew() -> None:
    watch = Watch()
    assert ages(watch, 100, drift()) == {"a": 0}
    assert ages(watch, 110, drift(), drift(uuid="b")) == {"a": 10, "b": 0}
    assert ages(watch, 120, drift(uuid="b")) == {"b": 10}
    assert ages(watch, 130, drift(), drift(uuid="b")) == {"a": 0, "b": 20}
    assert set(watch.keys()) == {(Resource.PORT, "a"), (Resource.PORT, "b")}


def test_another_state_than_in_the_look_before_is_not_told_yet() -> None:
    watch = Watch()
    assert ages(watch, 100, drift()) == {"a": 0}
    assert ages(watch, 110, drift(State.BEHIND)) == {}
    assert ages(watch, 120, drift(State.EXTRA)) == {}
    assert ages(watch, 130, drift(State.EXTRA)) == {"a": 10}


def test_one_that_follows_is_never_long_behind() -> None:
    """An object that is updated all the time, and a row that Neutron's maintenance brings up now and then."""
    watch = Watch()
    for turn in range(50):
        looked = ages(watch, turn * 300, drift(State.BEHIND, ordered=10 * turn + 10, held=10 * turn))
        assert looked == {"a": 0}
    stands = [ages(watch, 15_000 + n * 300, drift(State.BEHIND, ordered=510 + n, held=490))["a"] for n in range(4)]
    assert stands == [300, 600, 900, 1200]


def test_ahead_is_not_excused_by_a_revision_that_was_reached() -> None:
    watch = Watch()
    ages(watch, 0, drift(State.AHEAD, held=9))
    assert ages(watch, 60, drift(State.AHEAD, held=9)) == {"a": 60}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
def test_an_object_is_behind_since_its_row_lacks_what_was_first_seen_to_lack(steps: list[tuple[int, int]]) -> None:
    """Held against a history that is searched from the end, for each look."""
    watch = Watch()
    ordered = held = 0
    history: list[tuple[int, int]] = []  # of each look in an unbroken row of those that show it behind
    for now, (more, reached) in enumerate(steps):
        ordered += more
        held = min(ordered, held + reached)
        if held == ordered:
            history = []
            assert watch.follow([], now) == ()
            continue
        history.append((ordered, held))
        (told,) = watch.follow([drift(State.BEHIND, ordered=ordered, held=held)], now)
        begun = 0
        for at in range(len(history)):  # a look that shows what was lacking before begins it anew
            if history[at][1] >= history[begun][0]:
                begun = at
        assert told.age == len(history) - 1 - begun
