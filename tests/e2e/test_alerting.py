"""The driver installer's incident, all the way: exporter, Prometheus with our rules, Alertmanager, a webhook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.story import QUICK
from tests.lab import incidents
from tests.lab.monitoring import PROGRAMS_WITH_MONITORING, Monitoring
from tests.lab.site import Site, require
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.lab.monitoring import Receiver

pytestmark = pytest.mark.root

MUST = {"MecSystemIdChanged", "MecChassisUnregistered", "MecOvnControllerFailing", "MecIntegrationBridgeEmpty"}


def criticals(receiver: Receiver) -> set[tuple[str, str]]:
    """(alertname, instance) of every critical alert that was ever notified."""
    return {
        (alert["labels"]["alertname"], alert["labels"]["instance"])
        for notification in list(receiver.notifications)
        for alert in notification["alerts"]
        if alert["labels"]["severity"] == "critical"
    }


def alert(receiver: Receiver, name: str) -> dict[str, Any]:
    """The first notification of an alert."""
    found: dict[str, Any] = next(
        alert
        for notification in receiver.notifications
        for alert in notification["alerts"]
        if alert["labels"]["alertname"] == name
    )
    return found


def tell_of_c2(site: Site, monitoring: Monitoring, *, found: float, resolved: float) -> None:
    receiver, node = monitoring.receiver, site.nodes["c1"]
    exporters = monitoring.exporters.values()
    wait_until(
        lambda: all(not e.findings()["findings"] and not e.findings()["unknown"] for e in exporters), 90, "all is well"
    )
    wait_until(lambda: len(monitoring.prometheus.query("mec_check_evaluable == 1")) > 0, 60, "Prometheus has scraped")
    old = node.system_id
    incidents.begin(site, "C2")
    must = {(name, node.hostname) for name in MUST}
    wait_until(lambda: receiver.firing() >= must, found, f"{MUST} are notified, of {receiver.firing}")
    told = alert(receiver, "MecSystemIdChanged")
    assert old in told["annotations"]["description"]
    assert node.system_id in told["annotations"]["description"]
    assert told["annotations"]["runbook_url"].endswith("MecSystemIdChanged.md")
    incidents.end(site, "C2")
    wait_until(lambda: not receiver.firing() & must, resolved, "the alerts are resolved")


def test_c2_ends_in_a_webhook() -> None:
    """Rules as they are but for their waiting times; a source that is lost for a moment may then call too."""
    require(PROGRAMS_WITH_MONITORING)
    with (
        Site() as site,
        Monitoring(site, interval=1, impatient=True, intervals=QUICK.intervals, grace=QUICK.grace) as monitoring,
    ):
        tell_of_c2(site, monitoring, found=40, resolved=60)
        assert {name for name, instance in criticals(monitoring.receiver) if instance != "c1.lab"} == set()


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_c2_ends_in_a_webhook_with_nothing_hurried() -> None:
    """Default intervals, our rules word for word, a scrape every 15 s: the alerts come, and no others that call."""
    require(PROGRAMS_WITH_MONITORING)
    with Site() as site, Monitoring(site, interval=15) as monitoring:
        tell_of_c2(site, monitoring, found=120, resolved=900)
        assert criticals(monitoring.receiver) == {(name, "c1.lab") for name in MUST}
