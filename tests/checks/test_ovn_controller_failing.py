"""txn_error, judged by whether it goes on."""

import pytest

from mecexporter.checks.base import Unknown
from mecexporter.checks.ovn_controller_failing import ovn_controller_failing
from mecexporter.errors import Reason
from tests.checks.verdicts import findings
from tests.worlds import HOSTNAME, changed, healthy_compute, reinstalled_compute, without

ask = ovn_controller_failing.ask
YES, NO = True, False


@pytest.mark.parametrize(
    ("rises", "fails"),
    [
        pytest.param((NO, NO, NO, NO), False, id="flat"),
        pytest.param((NO, NO, YES, NO), False, id="one, as at a live migration"),
        pytest.param((YES, YES, NO, NO), False, id="two"),
        pytest.param((NO, YES, YES, YES), True, id="three of four"),
        pytest.param((YES, YES, NO, YES), True, id="three of four, with a gap"),
        pytest.param((YES, YES, YES), True, id="three of three"),
        pytest.param((YES, YES, NO), False, id="two of three"),
        pytest.param((YES, YES, YES, YES), True, id="four"),
    ],
)
def test_what_goes_on(rises: tuple[bool, ...], fails: bool) -> None:
    found = findings(ovn_controller_failing, changed(healthy_compute(), "ovn_controller", txn_rises=rises))
    assert bool(found) is fails


@pytest.mark.parametrize("rises", [(), (YES,), (YES, YES), (NO, NO)])
def test_too_few_reads_cannot_tell(rises: tuple[bool, ...]) -> None:
    world = changed(healthy_compute(), "ovn_controller", txn_rises=rises)
    assert ask(world) == Unknown(("ovn_controller",))


def test_the_reinstalled_node() -> None:
    (finding,) = findings(ovn_controller_failing, reinstalled_compute())
    assert finding.subject == HOSTNAME
    assert "(15 since it started)" in finding.summary
    assert finding.reads == 1, "the reads are in the rises already"


@pytest.mark.parametrize("reason", list(Reason))
def test_without_its_source_it_cannot_tell(reason: Reason) -> None:
    assert ask(without(reinstalled_compute(), "ovn_controller", reason=reason)) == Unknown(("ovn_controller",))
