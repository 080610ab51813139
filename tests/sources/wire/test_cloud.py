"""Reading OpenStack's APIs: what may go wrong, and that no secret gets out."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.wire import cloud as module
from mecexporter.sources.wire.cloud import Cloud, listed
from tests.ports import free_port
from tests.sources.apis import SECRET, Apis, serve, status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(name="apis")
async def the_apis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Apis]:
    async with serve() as apis:
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(apis.clouds(tmp_path)))
        yield apis


async def failure(cloud: Cloud, service: str = "network", path: str = "/ports") -> SourceError:
    with pytest.raises(SourceError) as caught:
        await cloud.get(service, path)
    assert SECRET not in caught.value.why
    assert "\n" not in caught.value.why
    return caught.value


async def test_an_answer(apis: Apis) -> None:
    apis.answers["/network/v2.0/ports"] = {"ports": [{"id": "a"}]}
    answer = await Cloud("test").get("network", "/ports", [("fields", "id"), ("fields", "status")])
    assert listed(answer, "ports", "ports") == [{"id": "a"}]
    assert "/network/v2.0/ports?fields=id&fields=status" in apis.asked


async def test_a_microversion(apis: Apis) -> None:
    apis.answers["/placement/resource_providers"] = lambda r: {"version": r.headers.get("OpenStack-API-Version", "")}
    answer = await Cloud("test").get("placement", "/resource_providers", microversion="1.28")
    assert answer == {"version": "placement 1.28"}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (400, Reason.ANSWERED_ERROR),
        (401, Reason.PERMISSION),
        (403, Reason.PERMISSION),
        (404, Reason.MISSING),
        (429, Reason.ANSWERED_ERROR),
        (500, Reason.ANSWERED_ERROR),
        (503, Reason.ANSWERED_ERROR),
        (504, Reason.TIMEOUT),
    ],
)
async def test_a_status_that_is_no_answer_is_not_asked_for_again(apis: Apis, code: int, reason: Reason) -> None:
    apis.answers["/network/v2.0/ports"] = status(code, f"the token {SECRET}\nis bad")
    error = await failure(Cloud("test"))
    assert error.reason is reason
    assert error.why == f"network /ports: HTTP {code}: the token *** is bad"
    assert len([a for a in apis.asked if a.startswith("/network/v2.0/ports")]) <= 2, "a refused token is renewed once"


@pytest.mark.parametrize(
    "body", ["", "<html>Bad gateway</html>", '{"ports": [{"id": "a"', "\x00\xff", "[" * 100_000], ids=len
)
async def test_a_body_that_is_no_json(apis: Apis, body: str) -> None:
    apis.answers["/network/v2.0/ports"] = status(200, body)
    assert (await failure(Cloud("test"))).reason is Reason.GARBAGE


async def test_a_body_that_is_cut_off(apis: Apis) -> None:
    async def torn(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"ports": [')
        assert request.transport is not None
        request.transport.close()
        return response

    apis.answers["/network/v2.0/ports"] = torn
    assert (await failure(Cloud("test"))).reason is Reason.CLOSED


async def test_a_body_that_is_too_large(apis: Apis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_BYTES", 1000)
    apis.answers["/network/v2.0/ports"] = {"ports": ["x" * 2000]}
    assert (await failure(Cloud("test"))).reason is Reason.TOO_LARGE


async def test_a_service_that_does_not_answer(apis: Apis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CALL", 0.3)
    never = asyncio.Event()

    async def silent(_: web.Request) -> web.Response:
        await never.wait()
        return web.Response()

    apis.answers["/network/v2.0/ports"] = silent
    assert (await failure(Cloud("test"))).reason is Reason.TIMEOUT
    never.set()


async def test_one_that_answers_a_byte_at_a_time(apis: Apis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CALL", 0.3)
    monkeypatch.setattr(module, "_CHUNK", 1)
    enough = asyncio.Event()

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while not enough.is_set():
            await response.write(b" ")
            try:
                async with asyncio.timeout(0.05):
                    await enough.wait()
            except TimeoutError:
                continue
        return response

    apis.answers["/network/v2.0/ports"] = drip
    error = await failure(Cloud("test"))
    assert (error.reason, error.why) == (Reason.TIMEOUT, "network /ports: no whole answer within 0.3 s")
    enough.set()


async def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apis = Apis()
    apis.port = free_port()
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(apis.clouds(tmp_path)))
    error = await failure(Cloud("test"))
    assert error.reason is Reason.REFUSED
    assert "cloud test, network:" in error.why


async def test_a_cloud_that_is_not_in_clouds_yaml(apis: Apis) -> None:
    assert apis.port
    error = await failure(Cloud("nosuch"))
    assert error.reason is Reason.MISSING
    assert error.why == f"cloud nosuch is not in {os.environ['OS_CLIENT_CONFIG_FILE']}"


async def test_without_a_clouds_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "nosuch.yaml"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    error = await failure(Cloud("test"))
    assert error.reason is Reason.MISSING
    assert "not in any clouds.yaml that can be read (/etc/openstack, OS_CLIENT_CONFIG_FILE)" in error.why


async def test_a_password_that_keystone_refuses(
    apis: Apis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    auth = {"username": "reader", "password": SECRET, "project_name": "p", "user_domain_name": "d"}
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(apis.clouds(tmp_path, **auth, project_domain_name="d")))
    apis.answers["/v3/auth/tokens"] = status(401, '{"error": {"message": "no", "code": 401, "title": "Unauthorized"}}')
    error = await failure(Cloud("test"))
    assert error.reason is Reason.PERMISSION
    assert "Keystone refuses its user, password or project: " in error.why
    assert SECRET not in caplog.text


async def test_a_token_that_expired_is_renewed(apis: Apis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    auth = {"username": "reader", "password": SECRET, "project_name": "p", "user_domain_name": "d"}
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(apis.clouds(tmp_path, **auth, project_domain_name="d")))
    given: list[str] = []

    def token(_: web.Request) -> web.Response:
        given.append(f"token-{len(given)}")
        place = {"interface": "public", "region": "r", "region_id": "r", "id": "e", "url": f"{apis.url}/network"}
        catalog = [{"type": "network", "name": "neutron", "id": "s", "endpoints": [place]}]
        times = {"expires_at": "2099-01-01T00:00:00Z", "issued_at": "2026-01-01T00:00:00Z"}
        user = {"id": "u", "name": "n", "domain": {"id": "d", "name": "d"}}
        body = {"token": {**times, "catalog": catalog, "methods": ["password"], "user": user}}
        return web.json_response(body, status=201, headers={"X-Subject-Token": given[-1]})

    def ports(request: web.Request) -> Any:
        fresh = request.headers["X-Auth-Token"] == given[-1] and len(given) == 2
        return {"ports": []} if fresh else web.Response(status=401)

    apis.answers |= {"/v3/auth/tokens": token, "/network/v2.0/ports": ports}
    cloud = Cloud("test")
    assert await cloud.get("network", "/ports") == {"ports": []}
    assert given == ["token-0", "token-1"]
    with pytest.raises(SourceError, match="endpoint for placement service not found") as caught:
        await cloud.get("placement", "/resource_providers")
    assert caught.value.reason is Reason.MISSING


@pytest.mark.parametrize("answer", [[], {}, {"ports": None}, {"ports": {"a": 1}}, {"ports": ["a"]}, None, 7])
def test_an_answer_of_another_form(answer: Any) -> None:
    with pytest.raises(SourceError, match="ports: no list of ports in the answer") as caught:
        listed(answer, "ports", "ports")
    assert caught.value.reason is Reason.GARBAGE
