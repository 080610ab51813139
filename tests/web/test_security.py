"""The web configuration file against real TLS clients and real passwords."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from typing import TYPE_CHECKING

import bcrypt
import pytest

from mecexporter import yamlfile
from mecexporter.errors import ConfigError
from mecexporter.web import security
from mecexporter.web.security import Security
from mecexporter.web.server import create_app
from tests.waiting import eventually
from tests.web.conftest import run, status_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.web.conftest import FakeSite, Serve

PASSWORD = "correct horse: battery"  # noqa: S105  # of a user who exists in this file only
HASH = bcrypt.hashpw(PASSWORD.encode(), b"$2b$04$" + b"." * 22).decode()  # the same for all who collect this file
USERS = f"basic_auth_users: {{prometheus: {HASH}}}\n"
TLS = "tls_server_config: {cert_file: server.crt, key_file: server.key}\n"


async def openssl(directory: Path, *argv: str) -> None:
    code, said = await run("openssl", *[str(directory / a) if "." in a and "/" not in a else a for a in argv])
    assert code == 0, said.decode()


async def certificate(directory: Path, name: str, issuer: str | None = None) -> None:
    """``name``.crt and ``name``.key, for localhost; self-signed without an issuer."""
    by = ["-CA", f"{issuer}.crt", "-CAkey", f"{issuer}.key"] if issuer else []
    await openssl(
        directory, "req", "-x509", *by, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost",
        "-keyout", f"{name}.key", "-out", f"{name}.crt",
    )  # fmt: skip


@pytest.fixture
async def pki(tmp_path: Path) -> Path:
    """A CA, and a server and a client that it signed."""
    await certificate(tmp_path, "ca")
    await certificate(tmp_path, "server", "ca")
    await certificate(tmp_path, "client", "ca")
    return tmp_path


def loaded(directory: Path, text: str) -> Security:
    path = directory / "web.yaml"
    path.write_text(text)
    return Security(path)


async def listening(site: FakeSite, serving: Serve, what: Security) -> str:
    port = await serving(create_app(site, security=what), what.ssl_context)
    return f"{'http' if what.ssl_context is None else 'https'}://localhost:{port}"


async def test_tls(site: FakeSite, serving: Serve, pki: Path) -> None:
    url = await listening(site, serving, loaded(pki, TLS))
    ca = str(pki / "ca.crt")
    assert await status_of("--cacert", ca, f"{url}/metrics") == 200
    assert await status_of(f"{url}/metrics") == 0
    assert await status_of(url.replace("https", "http") + "/metrics") == 0
    assert await status_of("--cacert", ca, "--tls-max", "1.1", f"{url}/metrics") == 0


async def test_tls_versions_and_ciphers(site: FakeSite, serving: Serve, pki: Path) -> None:
    suite = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"
    only = TLS.replace("}", f", max_version: TLS12, cipher_suites: [{suite}]}}")
    url = await listening(site, serving, loaded(pki, only))
    ca = ("--cacert", str(pki / "ca.crt"))
    assert await status_of(*ca, "--tlsv1.3", f"{url}/metrics") == 0
    assert await status_of(*ca, f"{url}/metrics") == 200
    assert await status_of(*ca, "--ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256", f"{url}/metrics") == 0
    new = await listening(site, serving, loaded(pki, TLS.replace("}", ", min_version: TLS13}")))
    assert await status_of(*ca, "--tls-max", "1.2", f"{new}/metrics") == 0
    assert await status_of(*ca, f"{new}/metrics") == 200


async def test_client_certificates(site: FakeSite, serving: Serve, pki: Path) -> None:
    must = TLS.replace("}", ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.crt}")
    url = await listening(site, serving, loaded(pki, must))
    await certificate(pki, "stranger")
    ca = ("--cacert", str(pki / "ca.crt"))
    assert await status_of(*ca, f"{url}/healthz") == 0
    for name, status in (("client", 200), ("stranger", 0)):
        own = ("--cert", str(pki / f"{name}.crt"), "--key", str(pki / f"{name}.key"))
        assert await status_of(*ca, *own, f"{url}/healthz") == status


async def test_a_new_certificate_is_used_without_a_restart(
    site: FakeSite, serving: Serve, pki: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(security, "RENEWAL", 0.02)
    url = await listening(site, serving, loaded(pki, TLS + USERS))
    await certificate(pki, "other-ca")
    await certificate(pki, "next", "other-ca")
    (pki / "next.crt").replace(pki / "server.crt")
    await eventually(lambda: "the old web configuration stays in force" in caplog.text, 5, "half a change is refused")
    assert await status_of("--cacert", str(pki / "ca.crt"), f"{url}/healthz") == 401
    (pki / "next.key").replace(pki / "server.key")
    caplog.set_level("INFO")
    await eventually(lambda: "web configuration renewed" in caplog.text, 5, "the whole change is taken over")
    assert await status_of("--cacert", str(pki / "other-ca.crt"), f"{url}/healthz") == 401
    assert await status_of("--cacert", str(pki / "ca.crt"), f"{url}/healthz") == 0


async def test_users_change_without_a_restart(site: FakeSite, serving: Serve, tmp_path: Path) -> None:
    what = loaded(tmp_path, USERS)
    url = await listening(site, serving, what)
    user = ("-u", f"prometheus:{PASSWORD}")
    assert await status_of(*user, f"{url}/metrics") == 200
    (tmp_path / "web.yaml").write_text(USERS.replace("prometheus", "alice"))
    what.renew()
    assert await status_of(*user, f"{url}/metrics") == 401
    (tmp_path / "web.yaml").write_text("basic_auth_user: {}")
    with pytest.raises(ConfigError, match="basic_auth_user"):
        what.renew()
    (tmp_path / "web.yaml").write_text(TLS + USERS)
    with pytest.raises(ConfigError, match="tls_server_config has changed: restart"):
        what.renew()
    assert await status_of("-u", f"alice:{PASSWORD}", f"{url}/metrics") == 200


@pytest.mark.parametrize(
    "path", ["/", "/metrics", "/healthz", "/readyz", "/api/v1/findings", "/api/v1/sources", "/none"]
)
async def test_every_path_wants_a_password(site: FakeSite, serving: Serve, tmp_path: Path, path: str) -> None:
    url = await listening(site, serving, loaded(tmp_path, USERS))
    code, said = await run("curl", "-si", f"{url}{path}")
    assert code == 0
    assert said.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert b'WWW-Authenticate: Basic realm="mecexporter", charset="UTF-8"\r\n' in said
    assert b"compute-1" not in said
    assert await status_of("-u", "prometheus:wrong", f"{url}{path}") == 401
    assert await status_of("-u", f"prometheus:{PASSWORD}", f"{url}{path}") == (404 if path == "/none" else 200)


@pytest.mark.parametrize(
    "header",
    ["", "Basic", "Basic ====", "Basic /w==", "Basic Og==", "Bearer x", "Basic " + "QQ==" * 1000, "Negotiate é"],
)
async def test_malformed_credentials(site: FakeSite, serving: Serve, tmp_path: Path, header: str) -> None:
    url = await listening(site, serving, loaded(tmp_path, USERS))
    assert await status_of("-H", f"Authorization: {header}", f"{url}/metrics") == 401


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The hashes against which passwords were verified."""
    calls: list[bytes] = []
    real = security._matches

    def matches(password: bytes, hashed: bytes) -> bool:
        calls.append(hashed)
        return real(password, hashed)

    monkeypatch.setattr(security, "_matches", matches)
    return calls


async def test_a_good_password_is_verified_once(
    site: FakeSite, serving: Serve, tmp_path: Path, counted: list[bytes]
) -> None:
    url = await listening(site, serving, loaded(tmp_path, USERS))
    for _ in range(3):
        assert await status_of("-u", f"prometheus:{PASSWORD}", f"{url}/metrics") == 200
    assert len(counted) == 1
    for n in range(2):
        assert await status_of("-u", "prometheus:wrong", f"{url}/metrics") == 401
        assert len(counted) == 2 + n


async def test_a_user_who_does_not_exist_costs_as_much_as_a_wrong_password(
    site: FakeSite, serving: Serve, tmp_path: Path, counted: list[bytes]
) -> None:
    dearer = bcrypt.hashpw(b"x", bcrypt.gensalt(6)).decode()
    url = await listening(site, serving, loaded(tmp_path, f"{USERS[:-2]}, alice: {dearer}}}"))
    assert await status_of("-u", "nobody:x", f"{url}/metrics") == 401
    assert counted == [dearer.encode()]
    assert await status_of("-u", "alice:x", f"{url}/metrics") == 200
    assert await status_of("-u", "nobody:x", f"{url}/metrics") == 401


async def test_long_passwords_and_other_alphabets(site: FakeSite, serving: Serve, tmp_path: Path) -> None:
    long = "пароль" * 20
    hashed = bcrypt.hashpw(long.encode()[:72], bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$")
    url = await listening(site, serving, loaded(tmp_path, f"basic_auth_users: {{jürgen: {hashed}}}"))
    assert await status_of("-u", f"jürgen:{long}", f"{url}/metrics") == 200
    assert await status_of("-u", f"jürgen:{long[:30]}", f"{url}/metrics") == 401


async def test_a_flood_of_passwords_is_turned_away_and_known_users_are_served(
    site: FakeSite, serving: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await listening(site, serving, loaded(tmp_path, USERS))
    assert await status_of("-u", f"prometheus:{PASSWORD}", f"{url}/metrics") == 200
    release, at_once, most = asyncio.Event(), 0, 0
    loop = asyncio.get_running_loop()

    def slow(_password: bytes, _hashed: bytes) -> bool:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(10)
        at_once -= 1
        return False

    monkeypatch.setattr(security, "_matches", slow)
    flood = [asyncio.create_task(status_of("-u", f"a:{n}", f"{url}/metrics")) for n in range(security.MAX_WAITING + 3)]
    await eventually(lambda: sum(t.done() for t in flood) == 3, 10, "the rest is turned away")
    assert await status_of("-u", f"prometheus:{PASSWORD}", f"{url}/metrics") == 200
    release.set()
    assert sorted(await asyncio.gather(*flood)) == [401] * security.MAX_WAITING + [503] * 3
    assert most == 1


async def test_headers(site: FakeSite, serving: Serve, tmp_path: Path) -> None:
    text = (
        "http_server_config: {http2: false, headers: {X-Frame-Options: deny, Content-Security-Policy: default-src x}}"
    )
    url = await listening(site, serving, loaded(tmp_path, text))
    _, metrics = await run("curl", "-si", f"{url}/metrics")
    assert b"\r\nX-Frame-Options: deny\r\n" in metrics
    assert b"\r\nContent-Security-Policy: default-src x\r\n" in metrics
    _, page = await run("curl", "-si", f"{url}/")
    assert b"\r\nContent-Security-Policy: default-src 'none'; style-src 'sha256-" in page


def test_an_empty_file_asks_for_nothing(tmp_path: Path) -> None:
    for text in ("", "# nothing\n", "tls_server_config:\nbasic_auth_users:\nhttp_server_config: {headers: }\n"):
        assert loaded(tmp_path, text).ssl_context is None


async def test_bcrypt_is_not_imported_without_need() -> None:
    code = "import sys, mecexporter.web.server, mecexporter.web.security; sys.exit('bcrypt' in sys.modules)"
    assert await run(sys.executable, "-c", code) == (0, b"")


WRONG = {
    "tls_server_config: {cert_file: a": ":1:33: expected ',' or '}', but got '<stream end>'",
    "[1]": ": the file: expected `object`, got `array`",
    "a: \x01": ": unacceptable character #x0001: special characters are not allowed",
    "basic_auth_users: {a: x}\nbasic_auth_users: {}": ":2: basic_auth_users: the key is there twice",
    "tls_config: {}": ":1: tls_config: no such key",
    "tls_server_config: {certfile: a}": ":1: tls_server_config.certfile: no such key",
    "tls_server_config: {cert: x}": ":1: tls_server_config.cert: not supported by this exporter: name a file",
    "tls_server_config: {client_allowed_sans: [a]}": ":1: tls_server_config.client_allowed_sans: not supported",
    "rate_limit: {burst: 3}": ":1: rate_limit: not supported by this exporter",
    "tls_server_config: {}": ": tls_server_config.cert_file is missing",
    "tls_server_config: {cert_file: server.crt}": ": tls_server_config.key_file is missing",
    "tls_server_config: {min_version: TLS10}": ":1: tls_server_config.min_version: invalid enum value 'TLS10'",
    TLS.replace(
        "}", ", min_version: TLS13, max_version: TLS12}"
    ): ": tls_server_config: min_version is above max_version",
    TLS.replace("}", ", client_auth_type: RequestClientCert}"): (
        ":1: tls_server_config.client_auth_type: invalid enum value 'RequestClientCert'"
    ),
    TLS.replace(
        "}", ", client_ca_file: ca.crt}"
    ): ": tls_server_config: client_ca_file and a client_auth_type that verif",
    TLS.replace(
        "}", ", client_auth_type: RequireAndVerifyClientCert}"
    ): ": tls_server_config: client_ca_file and a clie",
    TLS.replace("}", ", cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]}"): (
        ": tls_server_config.cipher_suites: 'TLS_RSA_WITH_RC4_128_SHA' is none of TLS_ECDHE_ECDSA_WITH"
    ),
    "http_server_config: {headers: {X-Powered-By: me}}": ": http_server_config.headers: 'X-Powered-By' is none of ",
    "http_server_config: {headers: {X-Frame-Options: x}}": (
        ": http_server_config.headers.X-Frame-Options: 'x' is none of deny, sameorigin"
    ),
    'http_server_config: {headers: {X-XSS-Protection: "a\\r\\nb: c"}}': (
        ": http_server_config.headers.X-XSS-Protection: only printable ASCII can stand in a header"
    ),
    "basic_auth_users: {alice: hunter2}": ": basic_auth_users.'alice': not a bcrypt hash; make one with: htpasswd",
    f'basic_auth_users: {{"a:b": {HASH}}}': ": basic_auth_users.'a:b': no user can be called that",
    f"basic_auth_users: {{alice: {HASH.replace('$04$', '$31$')}}}": ": basic_auth_users.'alice': a bcrypt cost of 31",
    "basic_auth_users: {alice: 7}": ":1: basic_auth_users: expected `str`, got `int`",
}


@pytest.mark.parametrize(("text", "wrong"), WRONG.items())
def test_what_is_wrong_is_said_with_key_and_file(tmp_path: Path, text: str, wrong: str) -> None:
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, text)
    assert str(raised.value).startswith(f"{tmp_path / 'web.yaml'}{wrong}")
    assert "hunter2" not in str(raised.value)


async def test_files_that_are_not_there_or_do_not_fit(pki: Path) -> None:
    web = pki / "web.yaml"
    with pytest.raises(ConfigError, match=f"^{pki / 'none.yaml'}: No such file or directory$"):
        Security(pki / "none.yaml")
    with pytest.raises(ConfigError, match=f"^{web}: tls_server_config.key_file: {pki / 'no.key'}: No such file"):
        loaded(pki, TLS.replace("server.key", "no.key"))
    with pytest.raises(ConfigError, match=f"^{web}: tls_server_config.cert_file, key_file: .*: KEY_VALUES_MISMATCH$"):
        loaded(pki, TLS.replace("server.key", "client.key"))
    with pytest.raises(ConfigError, match=f"^{web}: tls_server_config.client_ca_file: {pki / 'web.yaml'}: NO_CERT"):
        loaded(pki, TLS.replace("}", ", client_auth_type: VerifyClientCertIfGiven, client_ca_file: web.yaml}"))
    await openssl(pki, "ec", "-in", "server.key", "-out", "locked.key", "-aes128", "-passout", "pass:secret")
    with pytest.raises(ConfigError, match="cert_file, key_file"):
        loaded(pki, TLS.replace("server.key", "locked.key"))
    os.truncate(web, yamlfile.MAX_BYTES + 1)
    with pytest.raises(ConfigError, match="longer than 1048576 bytes"):
        Security(web)


def test_go_knows_the_ciphers_by_these_names() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for name in security._CIPHERS.values():
        context.set_ciphers(name)
