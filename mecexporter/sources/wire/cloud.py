"""One cloud of clouds.yaml, asked through openstacksdk's session: it authenticates, renews tokens, knows the catalogue.

Its resource objects are not used: they cost hundreds of times as much as the JSON that they hold. Nor is its discovery
of versions: it asks more, and hides why a service does not answer.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from mecexporter.aside import aside
from mecexporter.errors import Reason, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable

CALL = 30.0
"""Seconds after which a call is given up (contract)."""
_MAX_BYTES = 32 << 20
_CHUNK = 64 << 10
_SHORT = 160  # characters of what a service says
_VERSIONS = {"network": "/v2.0"}
"""Parts of the path that catalogues have or leave out."""
_REASONS = {
    401: Reason.PERMISSION,
    403: Reason.PERMISSION,
    404: Reason.MISSING,
    408: Reason.TIMEOUT,
    504: Reason.TIMEOUT,
}


class Caller(NamedTuple):
    """As whom services know us.

    Attributes:
        project: which one the token is of, None where it is of none, or no Keystone gave it.
        admin: whether it has the role by which services' default policies know an administrator; without a Keystone
            they know nobody else.
    """

    project: str | None
    admin: bool


class Cloud:
    """Reads from services' APIs; each call in a thread, with a deadline and a limit of size, and never repeated.

    Args:
        name: the cloud's in clouds.yaml, found where openstacksdk finds it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._config: Any = None
        self._session: Any = None
        self._bases: dict[str, str] = {}
        self._secrets: tuple[str, ...] = ()

    async def get(
        self, service: str, path: str, params: Iterable[tuple[str, str]] = (), microversion: str | None = None
    ) -> Any:
        """The JSON that a service answers.

        Args:
            service: ``network`` or ``placement``.
            path: below the service's endpoint.
            params: of the query.
            microversion: where the service has such.

        Raises:
            SourceError: by the status' or the failure's kind; its text holds no secret.
        """
        return await aside(self._get, service, path, list(params), microversion)

    async def caller(self) -> Caller:
        """Raises SourceError."""
        return await aside(self._caller)

    def _caller(self) -> Caller:
        try:
            with self._lock:
                if self._session is None:
                    self._open()
            access = getattr(self._session.auth, "get_access", None)
            if access is None:
                return Caller(project=None, admin=True)
            token = access(self._session)
            return Caller(project=token.project_id, admin="admin" in {name.casefold() for name in token.role_names})
        except SourceError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever the libraries raise: dozens of kinds
            raise self._failed(error, "identity") from None

    def _get(self, service: str, path: str, params: list[tuple[str, str]], microversion: str | None) -> Any:
        until = time.monotonic() + CALL
        try:
            with self._lock:
                if self._session is None:
                    self._open()
                base = self._bases.get(service) or self._find(service)
            # One attempt: the source's own back-off decides when to ask again. A refused token is renewed once.
            response = self._session.get(
                f"{base}{path}",
                params=params,
                microversion=microversion,
                microversion_service_type=service,
                headers={"Accept": "application/json"},
                authenticated=True,
                raise_exc=False,
                log=False,
                stream=True,
                timeout=CALL,
            )
            with closing(response):
                body = self._body(response, f"{service} {path}", until)
        except SourceError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever the libraries raise: dozens of kinds
            raise self._failed(error, service) from None
        return self._parsed(response.status_code, body, f"{service} {path}")

    def _open(self) -> None:
        import openstack  # noqa: PLC0415  # 27 MiB and 0.15 s that most nodes need not pay

        for noisy in ("keystoneauth", "openstack", "urllib3"):  # they print what was sent, and URLs as they are given
            logging.getLogger(noisy).setLevel(logging.ERROR)
        found = openstack.config.OpenStackConfig()
        if self._name not in found.get_cloud_names():
            where = found.config_filename or "any clouds.yaml that can be read (/etc/openstack, OS_CLIENT_CONFIG_FILE)"
            raise SourceError(Reason.MISSING, f"cloud {self._name} is not in {where}")
        self._config = found.get_one(cloud=self._name, api_timeout=CALL)
        auth = self._config.config.get("auth") or {}
        words = ("password", "token", "secret")
        self._secrets = tuple(str(v) for k, v in auth.items() if v and any(word in k for word in words))
        self._session = self._config.get_session()

    def _find(self, service: str) -> str:
        """Where a service is: as clouds.yaml says, else the catalogue."""
        base = self._config.get_endpoint(service) or self._session.get_endpoint(
            service_type=service,
            interface=self._config.get_interface(service),
            region_name=self._config.get_region_name(service),
        )
        if not base:
            raise SourceError(Reason.MISSING, f"cloud {self._name}: its catalogue has no endpoint of {service}")
        base = base.rstrip("/")
        version = _VERSIONS.get(service, "")
        self._bases[service] = base if base.endswith(version) else f"{base}{version}"
        return self._bases[service]

    def _body(self, response: Any, what: str, until: float) -> bytes:
        body = bytearray()
        for chunk in response.iter_content(_CHUNK):
            body += chunk
            if len(body) > _MAX_BYTES:
                raise SourceError(Reason.TOO_LARGE, f"{what}: the answer has more than {_MAX_BYTES} bytes")
            if time.monotonic() > until:
                raise SourceError(Reason.TIMEOUT, f"{what}: no whole answer within {CALL:g} s")
        return bytes(body)

    def _parsed(self, status: int, body: bytes, what: str) -> Any:
        if status != 200:
            said = self._without_secrets(body[:4096].decode("utf-8", "replace"))
            raise SourceError(_REASONS.get(status, Reason.ANSWERED_ERROR), f"{what}: HTTP {status}: {said}")
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            raise SourceError(Reason.GARBAGE, f"{what}: the answer is no JSON, or is cut off") from None

    def _failed(self, error: Exception, service: str) -> SourceError:
        """By the class' name: the libraries are imported late, and wrap each other's errors."""
        names = " ".join(kind.__name__ for kind in type(error).__mro__)
        reason = next((reason for word, reason in _BY_CLASS if word in names), Reason.ANSWERED_ERROR)
        said = self._without_secrets(str(error)) or type(error).__name__
        if "Unauthorized" in names:  # what Keystone says of a wrong password does not name it
            said = f"Keystone refuses its user, password or project: {said}"
        return SourceError(reason, f"cloud {self._name}, {service}: {said}")

    def _without_secrets(self, text: str) -> str:
        text = re.sub(r"://[^/@\s]*@", "://***@", text)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return " ".join(text.split())[:_SHORT]


_BY_CLASS = (
    ("Timeout", Reason.TIMEOUT),
    ("ChunkedEncodingError", Reason.CLOSED),
    ("IncompleteRead", Reason.CLOSED),
    ("ProtocolError", Reason.CLOSED),
    ("Unauthorized", Reason.PERMISSION),
    ("Forbidden", Reason.PERMISSION),
    ("ConfigException", Reason.MISSING),
    ("EndpointNotFound", Reason.MISSING),
    ("NotFound", Reason.MISSING),
    ("ModuleNotFoundError", Reason.MISSING),
    ("ConnectFailure", Reason.REFUSED),
    ("ConnectionError", Reason.REFUSED),
)


def listed(answer: Any, key: str, what: str) -> list[dict[str, Any]]:
    """The list of objects in an answer.

    Raises:
        SourceError: GARBAGE; it has another form.
    """
    found = answer.get(key) if isinstance(answer, dict) else None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise SourceError(Reason.GARBAGE, f"{what}: no list of {key} in the answer")
    return found
