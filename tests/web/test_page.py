"""The page for people."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

from mecexporter.checks.ledger import Report
from mecexporter.metrics.registry import View
from mecexporter.state.world import Settings, empty_world
from mecexporter.web.page import CONTENT_SECURITY_POLICY, status_page
from tests.web.conftest import finds_a_thousand, needs_openflow
from tests.web.test_findings import EVIL, finding
from tests.worlds import NOW, SYSTEM_ID, healthy_compute, reinstalled_compute, view_of, without


class Reader(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.open: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += f" {data}"


def read(view: View) -> Reader:
    reader = Reader(status_page(view))
    assert not reader.open
    reader.text = " ".join(reader.text.split())
    return reader


def test_a_healthy_node_in_one_line() -> None:
    page = read(view_of(healthy_compute()))
    assert "compute-1 all is well as of" in page.text
    assert "What is wrong" not in page.text
    assert f"system-id, effective {SYSTEM_ID}" in page.text
    assert "ovn 23.03.1 seen since" in page.text


def test_the_incident_with_what_to_do() -> None:
    page = read(view_of(reinstalled_compute()))
    assert "critical system_id_changed" in page.text
    assert f"put the old id back: echo {SYSTEM_ID} >" in page.text


def test_what_can_not_be_told_and_why() -> None:
    world = without(healthy_compute(), "openflow", "br-int.mgmt: connection refused")
    page = read(view_of(world, checks=[needs_openflow]))
    assert "1 check cannot tell as of" in page.text
    assert "cannot tell needs_openflow openflow: br-int.mgmt: connection refused; no answer since" in page.text
    assert "openflow no answer 2 s ago 4 ms 2 refused br-int.mgmt: connection refused; since" in page.text


def test_no_more_findings_of_a_check_than_the_limit() -> None:
    view = view_of(healthy_compute(), checks=[finds_a_thousand])
    page = status_page(view)
    assert page.count(b'<article class="card warning">') == view.world.settings.findings_limit
    assert b"and 900 more of finds_a_thousand" in page


def test_before_the_first_answer() -> None:
    world = replace(empty_world(NOW, "new", Settings()), applicable=frozenset({"ovs", "host"}))
    assert "Still waiting for the first answer of: host, ovs" in read(View(world, Report())).text


def test_a_node_of_no_role_has_checks_that_do_not_apply() -> None:
    world = replace(healthy_compute(), roles=frozenset(), applicable=frozenset())
    text = read(view_of(world)).text
    assert "system_id_changed does not apply" in text
    assert "vswitchd does not apply" in text


def test_names_are_text() -> None:
    evil = EVIL + "</style><script>alert(1)</script>\"'><img src=x onerror=x>{{ 7*7 }}"
    world = without(replace(healthy_compute(), hostname=evil), "ovs", evil)
    view = View(world, Report(findings={"a": (finding("a", subject=evil, text=evil),)}, unknown={"u": (evil,)}))
    page = read(view)
    clean = read(View(healthy_compute(), Report(findings={"a": (finding("a"),)}, unknown={"u": ("x",)})))
    assert set(page.tags) == set(clean.tags)
    assert not {"script", "img"} & set(page.tags)
    assert page.attributes == clean.attributes
    assert r"vm\n\x1b[31m\x07<b>\u202egpj\u200b\udcff</style><script>alert(1)</script>" in page.text
    assert "{{ 7*7 }}" in page.text


def test_nothing_from_elsewhere_and_no_scripts() -> None:
    page = status_page(view_of(reinstalled_compute())).decode()
    assert not re.search(r"https?://|//[a-z]|\bstyle=|<script|<link|\bon\w+=", page)
    style = page.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}';" in CONTENT_SECURITY_POLICY
