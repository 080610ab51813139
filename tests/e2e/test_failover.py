"""A fail-over in stages, a cluster that loses members, and the same truth from every host, also over TLS."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.test_databases import (
    CLEAR,
    FOUND,
    LOST_WRITER,
    NO_WRITER,
    NORTHD,
    OUT_OF_SYNC,
    PROPAGATION,
    QUICK,
    REPLICATION,
    SPLIT,
    Seen,
    Told,
    agrees,
    as_expected,
    checks,
    is_well,
    peers,
    within,
)
from tests.lab import incidents
from tests.lab.central import DATABASES, NAMES, VIP, CentralExporter, Cluster, Host, Pair
from tests.lab.failover import address_becomes_its_own, beside_a_standby, follow_the_address, follow_the_host, northd
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

DEGRADED = "ovn_db_raft_degraded"
UNSEEN = checks(OUT_OF_SYNC, SPLIT, REPLICATION)
"""What can't be told where a server is silent."""


def says(exporter: CentralExporter, expected: Seen, stage: str, *, seconds: float = FOUND) -> list[str]:
    """Wait until it says that, see that it stays so, and return its findings' summaries."""
    told = Told()
    assert within(lambda: as_expected(exporter, expected, told), seconds), f"{stage}: {told} is not {expected}"
    until = time.monotonic() + 4
    wait_until(lambda: not as_expected(exporter, expected, told) or time.monotonic() > until, 5, stage)
    assert agrees(told, expected), f"{stage}: {told} is no longer {expected}"
    return told.summaries


@pytest.fixture
def pair() -> Iterator[Pair]:
    with Pair() as pair:
        yield pair


def from_afar(first: Host, second: Host) -> dict[Any, dict[str, object]]:
    """For a host that has no server of its own."""
    return {db: {"database": first.tcp(db), "peers": [second.tcp(db)]} for db in DATABASES}


def test_a_fail_over_in_stages_and_back(pair: Pair) -> None:
    ca, cb = pair.ca, pair.cb
    with ExitStack() as stack:
        near = stack.enter_context(CentralExporter(cb, peers(ca, cb), **QUICK))
        far = stack.enter_context(CentralExporter(pair.cc, from_afar(ca, cb), **QUICK))
        wait_until(lambda: is_well(near) and is_well(far), 60, "all is well before")

        fail_over(pair, near, far)

        incidents.begin(pair, "F5")
        wait_until(lambda: is_well(near) and is_well(far), CLEAR, "all is well with the old active as standby")
        assert in_sync(near) == {("OVN_Northbound", ca.tcp("nb")): 1.0, ("OVN_Southbound", ca.tcp("sb")): 1.0}
        assert northd(ca) == beside_a_standby()
        wait_until(lambda: "after" in ca.dump("nb", "Logical_Switch"), 20, "it has what it missed")

        incidents.end(pair, "F5")
        wait_until(lambda: "local" in {of[1] for of in in_sync(near)}, FOUND, "the roles are as they were at first")
        # The northd that worked here meanwhile was ended by plan, which nobody tells the exporter.
        says(near, Seen(must=checks(NORTHD)), "the northd here is ended", seconds=CLEAR)
        wait_until(lambda: is_well(far), CLEAR, "all is well")
        assert northd(ca) == "active"
        assert "after" in ca.dump("nb", "Logical_Switch")


def test_the_old_active_comes_back_as_a_second(pair: Pair) -> None:
    ca, cb = pair.ca, pair.cb
    with ExitStack() as stack:
        near = stack.enter_context(CentralExporter(cb, peers(ca, cb), **QUICK))
        far = stack.enter_context(CentralExporter(pair.cc, from_afar(ca, cb), **QUICK))
        wait_until(lambda: is_well(near) and is_well(far), 60, "all is well before")

        fail_over(pair, near, far)

        incidents.begin(pair, "F5-second-active")
        ca.nbctl("ls-add", "lost")
        for exporter in (near, far):
            summaries = says(exporter, Seen(must=checks(SPLIT)), "the old active came back as another", seconds=CLEAR)
            assert any("2 servers of OVN_Northbound take writes" in summary for summary in summaries)

        incidents.end(pair, "F5-second-active")
        wait_until(lambda: "after" in ca.dump("nb", "Logical_Switch"), 20, "it has what it missed")
        assert "lost" not in ca.dump("nb", "Logical_Switch")
        wait_until(lambda: is_well(near) and is_well(far), CLEAR, "all is well with the old active as standby")
        assert in_sync(near) == {("OVN_Northbound", ca.tcp("nb")): 1.0, ("OVN_Southbound", ca.tcp("sb")): 1.0}


def fail_over(pair: Pair, near: CentralExporter, far: CentralExporter) -> None:
    """The stages until a new active works, each seen as what it is: from the standby's host, and from a third."""
    incidents.begin(pair, "F1")
    for exporter in (near, far):
        says(exporter, Seen(must=LOST_WRITER, unknown=checks(OUT_OF_SYNC, SPLIT)), "the active host is dead")

    incidents.begin(pair, "F2")
    for exporter in (near, far):
        says(exporter, Seen(unknown=UNSEEN), "the standby is promoted")

    incidents.begin(pair, "F3")
    wait_until(lambda: "mec_ovn_northd_active 1.0" in near.metrics(), FOUND, "northd works there")
    incidents.begin(pair, "F4")
    says(near, Seen(unknown=UNSEEN), "northd and the address have moved")
    pair.cb.nbctl("ls-add", "after")


@pytest.mark.long
def test_a_northd_that_was_there_before_the_promotion(pair: Pair) -> None:
    """It stands by for ever. No host can tell; the rule of the site can, once the dead host's exporter is up again.

    Or it works from the promotion on, where a standby had granted its lock.
    """
    with CentralExporter(pair.cb, peers(pair.ca, pair.cb), **QUICK) as exporter:
        wait_until(lambda: is_well(exporter), 60, "all is well before")
        incidents.begin(pair, "F1")
        incidents.begin(pair, "F2-northd-first")
        says(exporter, Seen(unknown=UNSEEN), "it is promoted, its northd was there")
        if beside_a_standby() == "standby":
            assert "mec_ovn_northd_active 0.0" in exporter.metrics()
        else:
            assert "mec_ovn_northd_active 1.0" in exporter.metrics()
            pair.cb.nbctl("--wait=sb", "ls-add", "before")
        incidents.end(pair, "F2-northd-first")
        wait_until(lambda: "mec_ovn_northd_active 1.0" in exporter.metrics(), FOUND, "started again it works")
        for stage in ("F3", "F2", "F1"):
            incidents.end(pair, stage)
        says(exporter, Seen(must=checks(NORTHD)), "the active is back, the northd here ended", seconds=CLEAR)


def test_an_address_that_became_its_own(pair: Pair) -> None:
    """A standby that replicates the clients' address, when that is moved to it."""
    follow_the_address(pair)
    with CentralExporter(pair.cb, peers(pair.ca, pair.cb), **QUICK) as exporter:
        wait_until(lambda: is_well(exporter), 60, "all is well before")
        address_becomes_its_own(pair)
        summaries = says(exporter, Seen(must=checks(REPLICATION, SPLIT)), "it replicates itself")
        assert any(f"it is told to replicate itself (tcp:{VIP}:6641)" in summary for summary in summaries)
        pair.ca.kill("nb")
        says(exporter, Seen(unknown=checks(OUT_OF_SYNC)), "the address and the role are its own by now")
        pair.ca.start("nb")
        follow_the_host(pair)
        wait_until(lambda: is_well(exporter), CLEAR, "all is well with the active's own address")


def test_a_row_changed_by_hand_is_named_by_table_and_id(pair: Pair) -> None:
    with CentralExporter(pair.ca, peers(pair.ca, pair.cb), **QUICK) as exporter:
        wait_until(lambda: is_well(exporter), 60, "all is well before")
        incidents.begin(pair, "row-by-hand")
        summaries = says(exporter, Seen(must=checks(OUT_OF_SYNC), may=checks(SPLIT)), "a row is extra")
        uuid = re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", pair.cb.dump("nb", "Address_Set"))[0]
        assert any(f"Address_Set: 1 extra; for example Address_Set {uuid} (extra)" in s for s in summaries)
        differing = series(exporter, "mec_ovn_db_rows_differing")
        assert {k for k, rows in differing.items() if rows} == {
            ("OVN_Northbound", "extra", pair.cb.tcp("nb"), "Address_Set")
        }


def test_a_host_of_relays_is_well(pair: Pair) -> None:
    """A relay neither writes nor replicates: it is told apart, and nothing is asked of it that it has not."""
    for db in DATABASES:
        pair.cc.start_relay(db, pair.ca.tcp(db))
    with CentralExporter(pair.cc, peers(pair.ca, pair.cb), **QUICK) as exporter:
        wait_until(lambda: is_well(exporter), 60, "all is well")
        models = series(exporter, "mec_ovn_db_info")
        assert {key for key in models if "local" in key} == {(NAMES[db], "relay", "local") for db in DATABASES}
        assert not any("local" in key for key in series(exporter, "mec_ovn_db_writable"))
        pair.ca.kill("nb")
        says(exporter, Seen(must=LOST_WRITER, unknown=checks(OUT_OF_SYNC)), "its source is dead")


class TestCluster:
    def test_it_loses_one_member_then_two_and_recovers(self) -> None:
        with Cluster() as cluster:
            s1, s2, s3 = cluster.hosts.values()
            with ExitStack() as stack:
                first, second = (stack.enter_context(CentralExporter(h, {}, **QUICK)) for h in (s1, s2))
                wait_until(lambda: is_well(first) and is_well(second), 60, "all is well before")
                assert series(first, "mec_ovn_raft_members_reachable") == {
                    ("OVN_Northbound",): 3,
                    ("OVN_Southbound",): 3,
                }

                incidents.begin(cluster, "R1")
                for exporter in (first, second):
                    summaries = says(exporter, Seen(must=checks(DEGRADED)), "one member is lost")
                    assert all(severity == "warning" for severity in severities(exporter))
                    assert any(
                        cluster.raft(s3, "nb") in summary and "none more may fail" in summary for summary in summaries
                    )

                incidents.begin(cluster, "R2")
                says(first, Seen(must=checks(DEGRADED, NO_WRITER), may=checks(NORTHD)), "two members are lost")
                assert "critical" in severities(first)

                for stage in ("R2", "R1"):
                    incidents.end(cluster, stage)
                wait_until(lambda: is_well(first) and is_well(second), CLEAR, "all is well with three members again")

    def test_a_member_is_replaced(self) -> None:
        with Cluster() as cluster, CentralExporter(cluster.hosts["s1"], {}, **QUICK) as exporter:
            wait_until(lambda: is_well(exporter), 60, "all is well before")
            incidents.begin(cluster, "R-replaced")
            says(exporter, Seen(must=checks(DEGRADED)), "a member is lost")
            incidents.end(cluster, "R-replaced")
            wait_until(lambda: is_well(exporter), CLEAR, "all is well with the new one")


def test_the_same_truth_from_every_host_also_over_tls() -> None:
    with Pair(tls=True) as pair, ExitStack() as stack:
        ca, cb, cc = pair.ca, pair.cb, pair.cc
        addresses: dict[Any, dict[str, object]] = {
            db: {"database": ca.ssl(db), "peers": [cb.ssl(db)]} for db in DATABASES
        }
        files = {
            k: f"{pair.dir}/{n}"
            for k, n in (("private_key", "client.key"), ("certificate", "client.crt"), ("ca_certificate", "ca.crt"))
        }
        by_tls = CentralExporter(cc, addresses, **QUICK)
        by_tls.settings["ovn"]["tls"] = files
        exporters = [CentralExporter(h, peers(ca, cb), **QUICK) for h in (ca, cb)]
        for exporter in (*exporters, by_tls):
            stack.enter_context(exporter)
        wait_until(lambda: all(is_well(e) for e in (*exporters, by_tls)), 60, "all is well from everywhere")
        labels = [
            {"nb": ("local", cb.tcp("nb")), "sb": ("local", cb.tcp("sb"))},
            {"nb": (ca.tcp("nb"), "local"), "sb": (ca.tcp("sb"), "local")},
            {"nb": (ca.ssl("nb"), cb.ssl("nb")), "sb": (ca.ssl("sb"), cb.ssl("sb"))},
        ]
        for exporter, of in zip((*exporters, by_tls), labels, strict=True):
            expected = {("OVN_Northbound", of["nb"][0]): 1.0, ("OVN_Southbound", of["sb"][0]): 1.0}
            expected |= {("OVN_Northbound", of["nb"][1]): 0.0, ("OVN_Southbound", of["sb"][1]): 0.0}
            assert series(exporter, "mec_ovn_db_writable") == expected, "each server once"
            assert in_sync(exporter) == {(db, server): 1.0 for (db, server), value in expected.items() if not value}
        shown = series(by_tls, "mec_tls_certificate_expiry_timestamp_seconds")
        assert {of[0] for of in shown if not of[2]} == {
            f"{NAMES[db]}@{h.ssl(db)}" for db in DATABASES for h in (ca, cb)
        }
        own = {("mecexporter", "certificate", files["certificate"]), ("mecexporter", "ca", files["ca_certificate"])}
        assert {of for of in shown if of[2]} == own
        assert shown == dict.fromkeys(shown, pytest.approx(time.time() + 30 * 86400, abs=900))
        ca.kill("nb")
        for exporter in (*exporters, by_tls):
            told = checks(OUT_OF_SYNC) | (PROPAGATION if exporter is exporters[0] else frozenset())
            says(exporter, Seen(must=LOST_WRITER, may=checks(NORTHD), unknown=told), "the active is dead")


def series(exporter: CentralExporter, metric: str) -> dict[tuple[str, ...], float]:
    """By the values of its labels."""
    found = re.findall(rf"^{metric}\{{(.*)\}} (\S+)$", exporter.metrics(), re.MULTILINE)
    return {tuple(re.findall(r'="([^"]*)"', labels)): float(value) for labels, value in found}


def in_sync(exporter: CentralExporter) -> dict[tuple[str, ...], float]:
    return series(exporter, "mec_ovn_db_in_sync")


def severities(exporter: CentralExporter) -> set[str]:
    return {finding["severity"] for finding in exporter.findings()["findings"]}


@pytest.mark.long
@pytest.mark.timeout(900)
def test_it_writes_nothing(pair: Pair) -> None:
    """As many reads of a quiet pair as there are in two hours at default intervals, and a hundred audits."""
    seconds = 500
    hosts: tuple[Host, ...] = (pair.ca, pair.cb)
    pair.ca.kill("ovn-northd")  # who writes
    with ExitStack() as stack:
        exporters = [stack.enter_context(CentralExporter(h, peers(*hosts), **QUICK)) for h in hosts]
        wait_until(lambda: all(in_sync(e) for e in exporters), 60, "all has been read")
        before = [h.file(db).read_bytes() for h in hosts for db in DATABASES]
        until = time.monotonic() + seconds
        wait_until(lambda: time.monotonic() > until, seconds + 1, "the time is up")
        assert [h.file(db).read_bytes() for h in hosts for db in DATABASES] == before
        assert all(set(in_sync(e).values()) == {1.0} for e in exporters)
