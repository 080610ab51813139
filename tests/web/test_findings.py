"""The report as data, exit status and words."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mecexporter.checks.base import Finding, Severity, check
from mecexporter.checks.ledger import Open, Report
from mecexporter.errors import Reason
from mecexporter.metrics.registry import View
from mecexporter.state.host import IdFile
from mecexporter.state.observed import Fresh
from mecexporter.state.world import Role, World
from mecexporter.web.findings import exit_status, findings_document, in_words, only, verdict
from mecexporter.web.sources import sources_document
from mecexporter.web.text import duration, encodable, local_time, visible
from tests.web.conftest import needs_openflow
from tests.worlds import (
    NOW,
    READ,
    SYSTEM_ID,
    certificates,
    changed,
    healthy_compute,
    healthy_host,
    reinstalled_compute,
    view_of,
    without,
)

EVIL = "vm\n\x1b[31m\x07<b>\u202egpj\u200b\udcff"


def finding(name: str, severity: Severity = Severity.WARNING, subject: str = "compute-1", text: str = "it is") -> Open:
    return Open(
        check=name, severity=severity, subject=subject, summary=text, remedy=f"mend {text}", first_seen=NOW - 180
    )


def view(
    *findings: Open,
    unknown: dict[str, tuple[str, ...]] | None = None,
    ok: tuple[str, ...] = (),
    pending: tuple[str, ...] = (),
) -> View:
    by_check: dict[str, tuple[Open, ...]] = dict.fromkeys(ok, ())
    for f in findings:
        by_check[f.check] = (*by_check.get(f.check, ()), f)
    report = Report(
        findings=by_check, unknown=unknown or {}, not_applicable=("z", "y"), pending=dict.fromkeys(pending, 5.0)
    )
    return View(healthy_compute(), report)


def words(v: View) -> str:
    return in_words(findings_document(v), sources_document(v), NOW)


def test_the_document_has_the_contracts_form() -> None:
    v = view(
        finding("a"), finding("c", Severity.CRITICAL, "s2"), finding("c", Severity.CRITICAL, "s1"),
        unknown={"u": ("ovs", "host")}, ok=("b", "p"), pending=("p", "a"),
    )  # fmt: skip
    document = findings_document(v)
    assert document == {
        "findings": [
            {
                "check": name,
                "severity": severity,
                "subject": subject,
                "summary": "it is",
                "remedy": "mend it is",
                "first_seen": NOW - 180,
                "follows": [],
            }
            for name, severity, subject in (
                ("c", "critical", "s1"),
                ("c", "critical", "s2"),
                ("a", "warning", "compute-1"),
            )
        ],
        "unknown": [{"check": "u", "missing": ["ovs", "host"]}],
        "not_applicable": ["y", "z"],
        "ok": ["b", "p"],
        "pending": ["p"],
    }
    assert json.loads(json.dumps(document)) == document


def test_first_seen_is_unix_time_whatever_the_clock_did() -> None:
    v = view(finding("a"))
    stepped = View(replace(v.world, skew=3600.0), v.report)
    assert findings_document(stepped)["findings"][0]["first_seen"] == NOW - 180 + 3600


@pytest.mark.parametrize(
    ("v", "status", "line"),
    [
        (view(ok=("a", "b")), 0, "all is well"),
        (view(), 0, "no check applies to this node: `mecexporter config` shows its roles"),
        (view(finding("a")), 1, "1 warning"),
        (view(finding("a"), finding("c", Severity.CRITICAL)), 2, "1 critical, 1 warning"),
        (view(unknown={"u": ("ovs",)}), 3, "1 check cannot tell"),
        (view(finding("a"), unknown={"u": ("ovs",)}), 1, "1 warning, 1 check cannot tell"),
        (view(finding("c", Severity.CRITICAL), unknown={"u": (), "v": ()}), 2, "1 critical, 2 checks cannot tell"),
    ],
)
def test_exit_status_and_verdict(v: View, status: int, line: str) -> None:
    assert exit_status(findings_document(v)) == status
    assert verdict(findings_document(v)) == line


def test_only_some_checks() -> None:
    document = findings_document(view(finding("a"), finding("b"), unknown={"u": ("ovs",)}, ok=("k",)))
    assert only(document, {"a", "u", "y"}) == {
        "findings": [document["findings"][0]],
        "unknown": document["unknown"],
        "not_applicable": ["y"],
        "ok": [],
        "pending": [],
    }


def test_what_has_been_seen_too_briefly_is_not_called_well() -> None:
    said = words(view(ok=("b", "p"), pending=("p",)))
    assert "\nSeen, not for long enough to report: p\n" in said
    assert "\nWell: b\n" in said


def test_words_say_what_where_since_when_and_what_to_do() -> None:
    assert words(view(finding("a"), unknown={"u": ("internal",), "t": ("time",)}, ok=("b", "k"))) == (
        f"""compute-1: 1 warning, 2 checks cannot tell

WARNING  a
  what   it is
  where  compute-1
  since  {local_time(NOW - 180)} (for 3 min)
  do     mend it is

CANNOT TELL  t
  seen now, but not for long enough to report: the running service can tell

CANNOT TELL  u
  the check itself failed; the exporter's log has the traceback

Well: b, k

Does not apply to this node: y, z
"""
    )


def test_words_say_why_a_source_is_missing() -> None:
    world = without(healthy_compute(), "openflow", "/run/openvswitch/br-int.mgmt: connection refused", ago=75)
    said = words(view_of(world, checks=[needs_openflow]))
    assert "CANNOT TELL  needs_openflow\n" in said
    since = local_time(NOW - 75)
    reason = f"openflow: /run/openvswitch/br-int.mgmt: connection refused; no answer since {since} (for 1 min)\n"
    assert reason in said


def test_words_say_what_an_answer_could_not_tell() -> None:
    override = IdFile(
        path="/etc/system-id-override",
        content=None,
        trouble=Reason.PERMISSION,
        why="/etc/system-id-override: user mec may not read it",
    )
    host = Fresh(replace(healthy_host(), override_file=override), READ)
    v = View(replace(healthy_compute(), host=host), Report(unknown={"u": ("host", "ovs")}))
    assert "  host: /etc/system-id-override: user mec may not read it\n" in words(v)
    assert "  ovs: it answers, but that does not tell yet\n" in words(v)


def test_words_say_what_is_missing_where_nothing_is_remembered() -> None:
    world = replace(healthy_compute(), memory=replace(healthy_compute().memory, identity=None))
    said = words(view_of(world))
    assert "CANNOT TELL  system_id_changed\n  memory: this node was not yet seen healthy for grace.identity " in said


def test_words_say_that_an_answer_does_not_tell_yet() -> None:
    said = words(view_of(changed(healthy_compute(), "ovn_controller", txn_rises=(False,))))
    assert "CANNOT TELL  ovn_controller_failing\n  ovn_controller: it answers, but that does not tell yet\n" in said


def test_words_say_of_a_source_that_nobody_asks_that_it_is_so() -> None:
    v = View(healthy_compute(), Report(unknown={"u": ("OVN_Northbound@tcp:192.0.2.11:6641",)}))
    assert (
        "  OVN_Northbound@tcp:192.0.2.11:6641: it is not asked here; most likely sources.disable names it\n" in words(v)
    )


def test_the_incident_in_words_carries_the_remedy() -> None:
    v = view_of(reinstalled_compute())
    said = words(v)
    assert "system_id_changed" in said
    assert f"external_ids:system-id={SYSTEM_ID}" in said
    assert exit_status(findings_document(v)) == 2
    for f in (f for found in v.report.findings.values() for f in found):
        assert f"{f.severity.upper()}  {f.check}\n  what   {f.summary}\n  where  {f.subject}\n" in said


def test_names_can_not_talk_to_the_terminal() -> None:
    evil = replace(view(finding("a", subject=EVIL, text=EVIL), unknown={"u": (EVIL,)}), world=without(
        replace(healthy_compute(), hostname=EVIL), "ovs", EVIL))  # fmt: skip
    said = words(evil)
    assert all(line.isprintable() for line in said.split("\n"))
    assert said.count("\n") == words(view(finding("a"), unknown={"u": ("x",)})).count("\n")
    assert r"vm\n\x1b[31m\x07<b>\u202egpj\u200b\udcff" in said
    said.encode()
    json.dumps(findings_document(evil), ensure_ascii=False).encode()
    json.dumps(sources_document(evil), ensure_ascii=False).encode()


def test_visible_and_encodable() -> None:
    assert visible("Zürich 日本 OK") == "Zürich 日本 OK"
    assert visible("a\rb\u2028\u009b") == r"a\rb\u2028\x9b"
    assert encodable("a\n\udcff") == "a\n\\udcff"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86400, "1 d"),
        (100_000, "1 d 3 h"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_check_that_raises_can_not_tell() -> None:
    @check(severity=Severity.WARNING, title="x", roles=frozenset(Role), sources=(), alert_for="1m")
    def broken(_world: object) -> tuple[Finding, ...]:
        raise RuntimeError("bug")

    assert "CANNOT TELL  broken\n  the check itself failed" in words(view_of(healthy_compute(), checks=[broken]))


def test_sources_that_do_not_apply_are_listed_as_such() -> None:
    world = replace(healthy_compute(), applicable=frozenset({"ovs"}), roles=frozenset())
    document = sources_document(View(world, Report()))
    by_name = {s["source"]: s for s in document["sources"]}
    assert by_name["ovs"]["up"] is True
    assert by_name["ovs"]["last_success"] == READ
    assert by_name["vswitchd"]["applicable"] is False
    assert by_name["vswitchd"]["up"] is None
    assert by_name["vswitchd"]["why"] is None


def test_files_of_certificates_that_cannot_be_read_are_said_at_their_source() -> None:
    def why(world: World) -> str | None:
        [item] = [s for s in sources_document(View(world, Report()))["sources"] if s["source"] == "certificates"]
        assert item["up"]
        return item["why"]

    good, other = certificates("ovs", directory="/etc")
    assert why(healthy_compute().with_part("certificates", Fresh((good, other), NOW))) is None
    bad = replace(good, expires=None, why="no /etc/certificate.pem")
    assert why(healthy_compute().with_part("certificates", Fresh((bad, other), NOW))) == "no /etc/certificate.pem"


def test_causes_come_before_what_follows_from_them() -> None:
    v = view_of(reinstalled_compute())
    names = [f["check"] for f in findings_document(v)["findings"]]
    assert names[0] == "system_id_changed"
    assert "integration_bridge_empty" in names[1:]
    assert "cause  most likely what system_id_changed" in words(v)
