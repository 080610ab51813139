"""The application, over real connections."""

from __future__ import annotations

import gzip
import json
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from mecexporter.web.server import accepts_gzip, create_app
from tests.web.conftest import finds_a_thousand, needs_openflow, run, status_of
from tests.worlds import healthy_compute, reinstalled_compute, view_of, without

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.web.conftest import FakeSite, Serve

PROMETHEUS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"


async def get(url: str, **headers: str) -> tuple[aiohttp.ClientResponse, bytes]:
    wanted = {"Accept-Encoding": "identity"} | headers
    async with aiohttp.ClientSession(auto_decompress=False) as session, session.get(url, headers=wanted) as answer:
        return answer, await answer.read()


async def test_metrics_are_text_unless_openmetrics_is_asked_for(url: str) -> None:
    plain, text = await get(f"{url}/metrics", Accept="*/*")
    open_, openmetrics = await get(f"{url}/metrics", Accept=PROMETHEUS)
    assert plain.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert open_.headers["Content-Type"].startswith("application/openmetrics-text")
    assert openmetrics.endswith(b"# EOF\n")
    names = {family.name for family in parse_text(text.decode())}
    assert names == {f.name for f in parse_openmetrics(openmetrics.decode())}  # type: ignore[no-untyped-call]  # untyped
    assert "mec_check_findings" in names


@pytest.mark.parametrize("accept", ["*/*", PROMETHEUS])
async def test_gzip_is_the_same_smaller(url: str, accept: str) -> None:
    _, text = await get(f"{url}/metrics", Accept=accept)
    answer, packed = await get(f"{url}/metrics", **{"Accept": accept, "Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["Vary"] == "Accept, Accept-Encoding"
    assert len(packed) < len(text) / 3
    assert gzip.decompress(packed) == text


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("*", True),
        ("gzip; q=1.0", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000, *", False),
        ("identity", False),
        ("", False),
    ],
)
def test_accept_encoding(header: str, accepted: bool) -> None:
    assert accepts_gzip([header]) is accepted


async def test_head_tells_the_length_and_no_more(url: str) -> None:
    _, text = await get(f"{url}/metrics")
    code, said = await run("curl", "-sI", f"{url}/metrics")
    assert code == 0
    assert f"content-length: {len(text)}\r\n".encode() in said.lower()
    assert said.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("world", [healthy_compute(), reinstalled_compute(), without(healthy_compute(), "ovs")])
async def test_promtool_finds_nothing_wrong(site: FakeSite, url: str, world: Any) -> None:
    site.now = view_of(world)
    _, text = await get(f"{url}/metrics")
    assert await run("promtool", "check", "metrics", stdin=text) == (0, b"")


async def test_all_findings_are_in_the_data_and_not_all_are_series(site: FakeSite, url: str) -> None:
    site.now = view_of(healthy_compute(), checks=[finds_a_thousand])
    _, text = await get(f"{url}/metrics")
    assert b'mec_check_findings_truncated{check="finds_a_thousand"} 900.0\n' in text
    _, findings = await get(f"{url}/api/v1/findings")
    assert len(json.loads(findings)["findings"]) == 1000


@pytest.fixture
def touched() -> Iterator[list[str]]:
    """Whatever this thread asks of the kernel that Python tells of, while the list is looked at."""
    seen: list[str] = []
    me, watching = threading.get_ident(), True

    def hook(event: str, args: tuple[object, ...]) -> None:
        if watching and threading.get_ident() == me and event.partition(".")[0] in IO:
            seen.append(f"{event} {args}")

    sys.addaudithook(hook)  # for ever: hooks can't be taken out
    next(Path("/proc/self").iterdir())
    assert seen, "the hook sees what is done"
    yield seen
    watching = False


IO = {
    "open",
    "os",
    "socket",
    "subprocess",
    "shutil",
    "glob",
    "tempfile",
    "sqlite3",
    "urllib",
    "fcntl",
    "mmap",
    "import",
}


@pytest.mark.parametrize("accept", ["*/*", PROMETHEUS])
@pytest.mark.parametrize("encoding", ["gzip", "identity"])
async def test_a_scrape_does_no_io_and_waits_for_nothing(
    site: FakeSite, touched: list[str], monkeypatch: pytest.MonkeyPatch, accept: str, encoding: str
) -> None:
    app = create_app(site)
    app.freeze()
    for world in (healthy_compute(), reinstalled_compute(), without(healthy_compute(), "ovs")):
        site.now = view_of(world)  # another world: nothing comes from the cache
        request = make_mocked_request("GET", "/metrics", {"Accept": accept, "Accept-Encoding": encoding}, app=app)
        handler = (await app.router.resolve(request)).handler
        with monkeypatch.context() as patched:
            for name in ("stat", "lstat", "read", "write"):  # no audit event tells of them
                patched.setattr(os, name, lambda *args, name=name, **_: touched.append(f"os.{name} {args}"))
            touched.clear()
            with pytest.raises(StopIteration) as done:
                handler(request).__await__().__next__()  # to its end, without a loop
            seen = list(touched)
        assert seen == []
        assert done.value.value.status == 200
        assert len(done.value.value.body) > 500


async def test_alive_and_ready(site: FakeSite, url: str) -> None:
    world = healthy_compute()
    site.is_ready = False
    started = {s: status for s, status in world.status.items() if s not in {"ovs", "host"}}
    site.now = view_of(replace(world, status=started))
    answer, said = await get(f"{url}/readyz")
    assert (answer.status, said) == (503, b"not ready: waiting for host, ovs\n")
    assert (await get(f"{url}/healthz"))[1] == b"alive\n"
    site.is_ready = True
    answer, said = await get(f"{url}/readyz")
    assert (answer.status, said) == (200, b"ready\n")


async def test_findings_and_sources_as_json(site: FakeSite, url: str) -> None:
    world = without(healthy_compute(), "openflow", "/run/br-int.mgmt: \udcff\n")
    site.now = view_of(world, checks=[needs_openflow])
    answer, said = await get(f"{url}/api/v1/findings")
    assert answer.content_type == "application/json"
    assert json.loads(said)["unknown"] == [{"check": "needs_openflow", "missing": ["openflow"]}]
    said.decode("ascii")
    sources = json.loads((await get(f"{url}/api/v1/sources"))[1])
    assert sources["hostname"] == "compute-1"
    assert sources["roles"] == ["compute"]
    openflow = next(s for s in sources["sources"] if s["source"] == "openflow")
    assert openflow["up"] is False
    assert openflow["why"] == "/run/br-int.mgmt: \\udcff\n"
    assert openflow["errors"] == {"refused": 2}


@pytest.mark.parametrize("path", ["/nothing", "/api/v1", "/metrics/", "/%0d%0aX-Y:%20z", "/../../etc/passwd"])
async def test_unknown_paths_are_404_in_one_line(url: str, path: str) -> None:
    code, said = await run("curl", "-s", "--path-as-is", "-w", "|%{http_code}", f"{url}{path}")
    assert code == 0
    assert said == b"404: Not Found|404"


async def test_forget_is_there_on_the_local_socket_only(site: FakeSite, url: str, serving: Serve) -> None:
    assert await status_of("-X", "POST", f"{url}/local/v1/forget/identity") == 404
    assert site.forgotten == []
    local = f"http://127.0.0.1:{await serving(create_app(site, local=True))}/local/v1/forget"
    assert await status_of(f"{local}/identity") == 405
    assert await status_of("-X", "POST", f"{local}/identity") == 204
    assert site.forgotten == ["identity"]
    code, said = await run("curl", "-s", "-w", "|%{http_code}", "-X", "POST", f"{local}/x")
    assert (code, said) == (0, b"nothing is remembered as 'x'\n|400")


async def test_every_answer_is_hardened(url: str) -> None:
    for path in ("/", "/metrics", "/nothing"):
        answer, _ = await get(f"{url}{path}")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Server"] == "mecexporter"
