"""TLS, basic authentication and headers by the Prometheus exporters' own file.

Its form is exporter-toolkit's docs/web-configuration.md. As there, authentication covers every path, successes are
remembered, relative paths start at the file, and changes are picked up without a restart (here within RENEWAL; what
changes TLS other than the certificate and its key needs one). Refused, so that nobody believes in a protection that is
not there: ``cert``, ``key`` and ``client_ca`` inline, ``client_allowed_sans``, ``curve_preferences``, ``rate_limit``,
TLS below 1.2, and the kinds of client_auth_type that ask for certificates without verifying them. ``http2`` may be
said, and has no effect: this server speaks HTTP/1.1.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
import ssl
from typing import TYPE_CHECKING, Literal

import msgspec
from aiohttp import BasicAuth, hdrs, web

from mecexporter.aside import aside
from mecexporter.errors import ConfigError
from mecexporter.yamlfile import YamlFile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from aiohttp.typedefs import Handler

log = logging.getLogger(__name__)

RENEWAL = 30.0
"""Seconds between two looks at whether the file, the certificate or the key changed."""
MAX_COST = 16  # a bcrypt of this cost takes some seconds, and each step more doubles it
MAX_WAITING = 8
"""Passwords waiting to be verified, one at a time; more requests are turned away."""

_BCRYPT = re.compile(r"\$2[abxy]\$(\d\d)\$[./A-Za-z0-9]{53}")
_BCRYPT_READS = 72  # bytes; the algorithm ignores the rest of a password, newer libraries refuse it
_HEADERS: Mapping[str, tuple[str, ...]] = {  # exporter-toolkit's list: name -> values, any where there are none
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
    "Content-Security-Policy": (),
}
_UNSUPPORTED: Mapping[tuple[str, ...], str] = {
    ("tls_server_config", "cert"): "name a file in cert_file",
    ("tls_server_config", "key"): "name a file in key_file",
    ("tls_server_config", "client_ca"): "name a file in client_ca_file",
    ("tls_server_config", "client_allowed_sans"): "let a CA of its own sign the clients that may",
    ("tls_server_config", "curve_preferences"): "leave the choice to OpenSSL",
    ("rate_limit",): "a scrape costs next to nothing; limit in front of the exporter",
}
_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_CIPHERS = {  # Go's names of TLS 1.2 -> OpenSSL's; those of 1.3 can't be chosen in either
    f"TLS_ECDHE_{key}_WITH_{go}": f"ECDHE-{key}-{openssl}"
    for key in ("ECDSA", "RSA")
    for go, openssl in (
        ("AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
        ("AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
        ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"),
        ("AES_128_CBC_SHA", "AES128-SHA"),
        ("AES_256_CBC_SHA", "AES256-SHA"),
    )
}


class _Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    cert_file: str = ""
    key_file: str = ""
    client_auth_type: Literal["NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"] = "NoClientCert"
    client_ca_file: str = ""
    min_version: Literal["TLS12", "TLS13"] = "TLS12"
    max_version: Literal["TLS12", "TLS13"] = "TLS13"
    cipher_suites: tuple[str, ...] = ()
    prefer_server_cipher_suites: bool = True


class _Http(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    http2: bool = True
    headers: dict[str, str] | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tls_server_config: _Tls | None = None
    http_server_config: _Http | None = None
    basic_auth_users: dict[str, str] | None = None


class Security:
    """What a web configuration file asks for.

    Args:
        path: the file.

    Attributes:
        ssl_context: for the listener; None for plain HTTP.

    Raises:
        ConfigError: the file, or one that it names, can't be used; the text names file and key.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _read(path)
        self._stamps = self._look()
        tls = self._file.tls_server_config
        self.ssl_context = None if tls is None else _context(tls, path)
        self._key = secrets.token_bytes(32)
        self._verified: set[bytes] = set()  # no more than users: one password matches a hash
        self._one_at_a_time = asyncio.Lock()
        self._waiting = 0

    def protect(self, app: web.Application) -> None:
        """Let nobody in who must not be, on any path of the application."""
        app.middlewares.append(self._guard)
        app.on_response_prepare.append(self._decorate)
        app.cleanup_ctx.append(self._watch)

    def renew(self) -> None:
        """Take over users, headers, certificate and key, if one of the files changed.

        Raises:
            ConfigError: they can't be used; what was in force stays.
        """
        stamps = self._look()
        if stamps == self._stamps:
            return
        self._stamps = stamps  # a bad file is reported once
        file = _read(self._path)
        tls = file.tls_server_config
        if tls != self._file.tls_server_config:
            raise ConfigError(f"{self._path}: tls_server_config has changed: restart the exporter to use it")
        if tls is not None and self.ssl_context is not None:
            _context(tls, self._path)  # raises if certificate and key do not fit, before the context in use has one
            _load_chain(self.ssl_context, tls, self._path)
        self._file, self._verified = file, set()
        log.info("web configuration renewed", extra={"path": str(self._path)})

    def _look(self) -> list[tuple[int, int, int] | None]:
        tls = self._file.tls_server_config
        return [_stamp(self._path.parent / name) for name in (self._path.name, *_names(tls))]

    async def _watch(self, _app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(self._keep_renewing())
        yield
        task.cancel()

    async def _keep_renewing(self) -> None:
        while True:
            await asyncio.sleep(RENEWAL)
            try:
                await aside(self.renew)
            except ConfigError as error:
                log.warning("the old web configuration stays in force: %s", error)

    async def _decorate(self, _request: web.Request, response: web.StreamResponse) -> None:
        http = self._file.http_server_config
        for name, value in (http.headers or {}).items() if http else ():
            if value:
                response.headers.setdefault(name, value)  # the page's own policy is the stricter one

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if await self._admits(request.headers.get(hdrs.AUTHORIZATION, "")):
            return await handler(request)
        raise web.HTTPUnauthorized(headers={hdrs.WWW_AUTHENTICATE: 'Basic realm="mecexporter", charset="UTF-8"'})

    async def _admits(self, authorization: str) -> bool:
        """Whether the credentials are a user's; waits only for credentials that were not seen to be good before.

        Raises:
            HTTPServiceUnavailable: too many are waiting already.
        """
        users = self._file.basic_auth_users
        if not users:
            return True
        try:
            given = BasicAuth.decode(authorization, "utf-8")
        except ValueError:
            return False
        # a user who does not exist costs what the dearest one costs, so that nobody can find out who exists
        hashed = (users.get(given.login) or max(users.values(), key=_cost)).encode()
        password = given.password.encode()[:_BCRYPT_READS]
        digest = hashlib.blake2b(b"\0".join((given.login.encode(), hashed, password)), key=self._key).digest()
        if digest in self._verified:
            return True
        if self._waiting >= MAX_WAITING:
            raise web.HTTPServiceUnavailable(headers={hdrs.RETRY_AFTER: "1"})
        self._waiting += 1
        try:
            async with self._one_at_a_time:
                good = await aside(_matches, password, hashed) and given.login in users
        finally:
            self._waiting -= 1
        if good:
            self._verified.add(digest)
        return good


def _matches(password: bytes, hashed: bytes) -> bool:
    import bcrypt  # noqa: PLC0415  # most nodes have no users: 3 MiB less

    if b"\0" in password:  # the algorithm would take it for the password's repetition
        return False
    return bcrypt.checkpw(password, hashed)


def _cost(hashed: str) -> int:
    match = _BCRYPT.fullmatch(hashed)
    return int(match[1]) if match else 0


def _names(tls: _Tls | None) -> list[str]:
    return [] if tls is None else [tls.cert_file, tls.key_file]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _read(path: Path) -> _File:
    content = YamlFile(path)
    for key, instead in _UNSUPPORTED.items():
        if _holds(content.data, key):
            raise content.wrong(key, f"not supported by this exporter: {instead}")
    file = content.convert(_File)
    _judge_tls(file.tls_server_config, path)
    _judge_headers(file.http_server_config, path)
    _judge_users(file.basic_auth_users or {}, path)
    return file


def _holds(raw: object, key: tuple[str, ...]) -> bool:
    for part in key:
        if not isinstance(raw, dict) or part not in raw:
            return False
        raw = raw[part]
    return True


def _judge_tls(tls: _Tls | None, path: Path) -> None:
    if tls is None:
        return
    where = f"{path}: tls_server_config"
    for key in ("cert_file", "key_file"):
        if not getattr(tls, key):
            raise ConfigError(f"{where}.{key} is missing")
    if bool(tls.client_ca_file) != (tls.client_auth_type != "NoClientCert"):
        raise ConfigError(
            f"{where}: client_ca_file and a client_auth_type that verifies (RequireAndVerifyClientCert, "
            "VerifyClientCertIfGiven) go together"
        )
    if tls.min_version > tls.max_version:
        raise ConfigError(f"{where}: min_version is above max_version")
    if bad := [name for name in tls.cipher_suites if name not in _CIPHERS]:
        raise ConfigError(f"{where}.cipher_suites: {bad[0]!r} is none of {', '.join(_CIPHERS)}")


def _judge_headers(http: _Http | None, path: Path) -> None:
    for name, value in (http.headers or {}).items() if http else ():
        where = f"{path}: http_server_config.headers"
        if name not in _HEADERS:
            raise ConfigError(f"{where}: {name!r} is none of {', '.join(_HEADERS)}")
        if _HEADERS[name] and value not in _HEADERS[name]:
            raise ConfigError(f"{where}.{name}: {value!r} is none of {', '.join(_HEADERS[name])}")
        if not (value.isascii() and value.isprintable()):
            raise ConfigError(f"{where}.{name}: only printable ASCII can stand in a header")


def _judge_users(users: Mapping[str, str], path: Path) -> None:
    for user, hashed in users.items():
        where = f"{path}: basic_auth_users.{user!r}"
        if ":" in user or not user.isprintable():
            raise ConfigError(f"{where}: no user can be called that (a colon, or not printable)")
        if not _BCRYPT.fullmatch(hashed):  # it may be the password itself: it is not repeated
            raise ConfigError(f"{where}: not a bcrypt hash; make one with: htpasswd -nBC 10 {user}")
        if not 4 <= _cost(hashed) <= MAX_COST:
            raise ConfigError(f"{where}: a bcrypt cost of {_cost(hashed)}; 10 is usual, {MAX_COST} the most")


def _context(tls: _Tls, path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[tls.min_version]
    context.maximum_version = _VERSIONS[tls.max_version]
    if tls.prefer_server_cipher_suites:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if tls.cipher_suites:
        context.set_ciphers(":".join(_CIPHERS[name] for name in tls.cipher_suites))
    _load_chain(context, tls, path)
    if tls.client_ca_file:
        ca = path.parent / tls.client_ca_file
        try:
            context.load_verify_locations(ca)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(f"{path}: tls_server_config.client_ca_file: {ca}: {_why(error)}") from error
    context.verify_mode = _CLIENT_AUTH[tls.client_auth_type]
    return context


def _load_chain(context: ssl.SSLContext, tls: _Tls, path: Path) -> None:
    files = {key: path.parent / name for key, name in zip(("cert_file", "key_file"), _names(tls), strict=True)}
    for key, file in files.items():  # OpenSSL does not say which of the two it could not open
        try:
            file.open("rb").close()
        except OSError as error:
            raise ConfigError(f"{path}: tls_server_config.{key}: {file}: {error.strerror}") from error
    try:
        # a key under a password: without one given here OpenSSL would ask on the terminal
        context.load_cert_chain(files["cert_file"], files["key_file"], password="")
    except OSError as error:
        pair = f"{files['cert_file']} with {files['key_file']}"
        raise ConfigError(f"{path}: tls_server_config.cert_file, key_file: {pair}: {_why(error)}") from error


def _why(error: OSError) -> str:
    return (error.reason if isinstance(error, ssl.SSLError) else error.strerror) or str(error)
