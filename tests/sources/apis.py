"""A stand-in for OpenStack's APIs that answers as it is told: what real services can't be made to say in a test."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SECRET = "s3cret-pa55word"  # noqa: S105  # opens nothing
Answer = Callable[[web.Request], web.StreamResponse | Any]


class Apis:
    """What is asked, and what is answered: a JSON value, a response, or a function of the request."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[str] = []
        self.answers: dict[str, Any] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(str(request.rel_url))
        for path, answer in self.answers.items():
            if request.path == path:
                value = answer(request) if callable(answer) else answer
                if hasattr(value, "__await__"):
                    value = await value
                return value if isinstance(value, web.StreamResponse) else web.json_response(value)
        return web.json_response(_versions(self.url, request.path))

    def clouds(self, directory: Path, **auth: str) -> Path:
        """A clouds.yaml with a cloud ``test``: by a token that is given, or by whatever ``auth`` says."""
        cloud: dict[str, Any] = {
            "auth_type": "admin_token",
            "auth": {"endpoint": self.url, "token": SECRET},
            "network_endpoint_override": f"{self.url}/network/v2.0",
            "placement_endpoint_override": f"{self.url}/placement",
        }
        if auth:
            cloud = {"auth_type": "password", "auth": {"auth_url": f"{self.url}/v3", **auth}}
        path = directory / "clouds.yaml"
        path.write_text(json.dumps({"clouds": {"test": cloud}}))
        return path


def _versions(url: str, path: str) -> dict[str, Any]:
    """What the discovery of Keystone's version asks for."""
    found = {"id": "v3.14", "status": "stable", "links": [{"rel": "self", "href": f"{url}/v3/"}]}
    return {"version": found} if path.startswith("/v3") else {"versions": {"values": [found]}}


@asynccontextmanager
async def serve() -> AsyncIterator[Apis]:
    apis = Apis()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", apis.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    apis.port = runner.addresses[0][1]
    try:
        yield apis
    finally:
        await runner.cleanup()


def status(code: int, body: str = "") -> Answer:
    return lambda _: web.Response(status=code, text=body)


def sign_in(apis: Apis, monkeypatch: pytest.MonkeyPatch, directory: Path, *roles: str) -> None:
    """By Keystone, as somebody of project ``own`` with these roles."""
    who = {"username": "reader", "password": "x", "project_name": "own"}
    clouds = apis.clouds(directory, **who, user_domain_name="d", project_domain_name="d")
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(clouds))
    place = {"interface": "public", "region": "r", "region_id": "r", "id": "e", "url": f"{apis.url}/network"}
    token = {
        "expires_at": "2099-01-01T00:00:00Z",
        "issued_at": "2026-01-01T00:00:00Z",
        "catalog": [{"type": "network", "name": "neutron", "id": "s", "endpoints": [place]}],
        "methods": ["password"],
        "user": {"id": "u", "name": "n", "domain": {"id": "d", "name": "d"}},
        "project": {"id": "own", "name": "own", "domain": {"id": "d", "name": "d"}},
        "roles": [{"id": role, "name": role} for role in roles],
    }
    apis.answers["/v3/auth/tokens"] = lambda _: web.json_response(
        {"token": token}, status=201, headers={"X-Subject-Token": "t"}
    )
