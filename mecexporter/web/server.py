"""The HTTP application: every answer is made of memory, none waits for anything."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from mecexporter.errors import MecExporterError
from mecexporter.metrics.registry import discover
from mecexporter.metrics.render import Renderer, negotiate
from mecexporter.web.findings import findings_document
from mecexporter.web.page import CONTENT_SECURITY_POLICY, status_page
from mecexporter.web.sources import sources_document, waiting_for

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mecexporter.web.security import Security
    from mecexporter.web.site import Site

MAX_BODY = 4096  # bytes; no request has a body that means anything


def create_app(site: Site, *, local: bool = False, security: Security | None = None) -> web.Application:
    """The application for one listener.

    Args:
        site: what is known now.
        local: for the local socket, whose users may also change what the exporter remembers.
        security: TLS, basic authentication and headers of the web configuration file.
    """
    app = web.Application(client_max_size=MAX_BODY)
    app.on_response_prepare.append(_harden)
    if security is not None:
        security.protect(app)
    pages = _Pages(site)
    app.add_routes(
        [
            web.get("/", pages.status),
            web.get("/metrics", pages.metrics),
            web.get("/healthz", pages.healthz),
            web.get("/readyz", pages.readyz),
            web.get("/api/v1/findings", pages.findings),
            web.get("/api/v1/sources", pages.sources),
        ]
    )
    if local:
        app.add_routes([web.post("/local/v1/forget/{what}", pages.forget)])
    return app


def accepts_gzip(accept_encoding: Iterable[str]) -> bool:
    """Whether the client takes gzip (RFC 9110, 12.5.3): named or ``*``, and not with a weight of 0."""
    weights: dict[str, bool] = {}
    for part in ",".join(accept_encoding).lower().split(","):
        coding, _, weight = part.replace(" ", "").partition(";q=")
        weights[coding] = weight.strip("0.") != "" or weight == ""
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", False)))


async def _harden(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers[hdrs.SERVER] = "mecexporter"
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")


def _json(document: object) -> web.Response:
    return web.json_response(document, dumps=lambda d: json.dumps(d, separators=(",", ":")))


class _Pages:
    def __init__(self, site: Site) -> None:
        self._site = site
        self._renderer = Renderer(discover())

    async def metrics(self, request: web.Request) -> web.Response:
        form = negotiate(",".join(request.headers.getall(hdrs.ACCEPT, ())))
        body = self._renderer.render(self._site.view(), form)
        headers = {hdrs.CONTENT_TYPE: form.value, hdrs.VARY: "Accept, Accept-Encoding"}
        if accepts_gzip(request.headers.getall(hdrs.ACCEPT_ENCODING, ())):
            # here, at level 1: aiohttp would hand a large body to a thread, and wait for it
            body = gzip.compress(body, compresslevel=1, mtime=0)
            headers[hdrs.CONTENT_ENCODING] = "gzip"
        return web.Response(body=body, headers=headers)

    async def healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def readyz(self, _request: web.Request) -> web.Response:
        if self._site.ready():
            return web.Response(text="ready\n")
        missing = waiting_for(self._site.view().world)
        return web.Response(status=503, text=f"not ready: waiting for {', '.join(missing) or 'the first round'}\n")

    async def status(self, _request: web.Request) -> web.Response:
        return web.Response(
            body=status_page(self._site.view()),
            headers={
                hdrs.CONTENT_TYPE: "text/html; charset=utf-8",
                "Content-Security-Policy": CONTENT_SECURITY_POLICY,
                "Referrer-Policy": "no-referrer",
            },
        )

    async def findings(self, _request: web.Request) -> web.Response:
        return _json(findings_document(self._site.view()))

    async def sources(self, _request: web.Request) -> web.Response:
        return _json(sources_document(self._site.view()))

    async def forget(self, request: web.Request) -> web.Response:
        try:
            await self._site.forget(request.match_info["what"])
        except MecExporterError as error:
            return web.Response(status=400, text=f"{error}\n")
        return web.Response(status=204)
