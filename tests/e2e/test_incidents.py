"""Every incident of the lab is found by the right checks and no others, survives a restart, and clears."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.campaign import Campaign
from tests.e2e.expected import EXPECTED, expected
from tests.e2e.story import DEFAULT, METADATA, QUICK, Pace
from tests.lab.incidents import INCIDENTS

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

LANES = 8


@pytest.fixture(scope="module")
def campaign(request: pytest.FixtureRequest) -> Iterator[Campaign]:
    """All incidents that this run has selected, at the pace that is the fixture's parameter."""
    pace: Pace = request.param
    calls = [getattr(item, "callspec", None) for item in request.session.items if item.path == request.path]
    names = [call.params["incident"] for call in calls if call and call.params.get("campaign") is pace]
    with Campaign(names, pace, LANES) as running:
        yield running


def test_every_incident_is_expected() -> None:
    assert EXPECTED.keys() == INCIDENTS.keys()


@pytest.mark.parametrize(
    "campaign",
    [
        pytest.param(QUICK, id="quick"),
        pytest.param(DEFAULT, id="default", marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
    ],
    indirect=True,
)
@pytest.mark.parametrize("incident", EXPECTED)
def test_incident(campaign: Campaign, incident: str) -> None:
    wanted, story = expected(incident), campaign.story(incident)
    assert story.found.keys() == wanted.must
    its = wanted.must | wanted.may
    assert story.opened["c1"] <= its
    assert story.opened["c2"] <= wanted.peer
    assert story.mending["c1"] <= its | wanted.mending
    assert story.mending["c2"] <= wanted.peer
    assert f"br-int/{METADATA}" not in story.subjects
    assert story.unknown == wanted.unknown
    assert story.adopted == wanted.adopted
    assert story.well is not None, "not all is well after the repair"
    if story.first_seen:
        before, after = story.first_seen
        assert before.keys() == wanted.must
        assert after == pytest.approx(before, abs=0.01)
    assert story.stopped is None or story.stopped < 5
