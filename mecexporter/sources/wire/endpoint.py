"""Where a peer listens, and how it is reached within a deadline, with errors in words."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.wire.files import denied

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DEFAULT_PORT = 6640
"""OVSDB's, where a connection method names none (ovsdb(7))."""
_UNREACHABLE = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN})
"""Nobody answered that nobody listens: who is there may live and do as it likes."""
READ_BYTES = 256 << 10
"""What a stream takes in one go: asyncio's transports read no more at a time."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a peer listens, in the notation of ovsdb(7): ``unix:/path``, ``tcp:host:port`` or ``ssl:host:port``.

    Attributes:
        kind: ``unix``, ``tcp`` or ``ssl``.
        address: an absolute path, or a host name or address without brackets.
        port: 0 for a unix socket.
    """

    kind: str
    address: str
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Read an endpoint; an absolute path alone is a unix socket.

        Raises:
            ValueError: the text is none of the forms; says which are.
        """
        if text.startswith(("/", "unix:/")):
            return cls("unix", text.removeprefix("unix:"))
        form = re.fullmatch(r"(tcp|ssl):(?:\[([^\[\]\s]+)\]|([^\[\]:,\s]+))(?::(\d{1,5}))?", text)
        port = int(form[4] or DEFAULT_PORT) if form else 0
        if form is None or not 0 < port < 1 << 16:
            raise ValueError(
                f"{text!r} is no endpoint: want unix:/path, /path, tcp:host:port, tcp:[v6]:port or ssl:host:port"
            )
        return cls(form[1], form[2] or form[3], port)

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix:{self.address}"
        return (
            f"{self.kind}:[{self.address}]:{self.port}"
            if ":" in self.address
            else f"{self.kind}:{self.address}:{self.port}"
        )


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files for ``ssl:`` endpoints, as ``ovs-vsctl set-ssl`` knows them."""

    private_key: Path
    certificate: Path
    ca_cert: Path

    def context(self) -> ssl.SSLContext:
        """A client context that trusts this CA only.

        Host names are not compared: the certificates of ``ovs-pki`` bear none, and OVS's own clients do not ask.

        Raises:
            SourceError: MISSING, PERMISSION or GARBAGE, naming the file.
        """
        for path in (self.private_key, self.certificate, self.ca_cert):
            try:
                path.open("rb").close()  # OpenSSL's own errors do not say which file
            except PermissionError:
                raise denied(path, "read") from None
            except OSError as error:
                raise SourceError(Reason.MISSING, f"{path}: {error.strerror}") from None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        try:
            context.load_verify_locations(self.ca_cert)
            # The password keeps OpenSSL from asking the terminal for one.
            context.load_cert_chain(self.certificate, self.private_key, password="")
        except (ssl.SSLError, ValueError) as error:
            files = f"{self.private_key}, {self.certificate}, {self.ca_cert}"
            raise SourceError(Reason.GARBAGE, f"{files}: not a usable key, certificate and CA: {error}") from None
        return context


@asynccontextmanager
async def within(seconds: float, what: str) -> AsyncIterator[None]:
    """Bound the block in time.

    Raises:
        SourceError: TIMEOUT, naming ``what``.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise SourceError(Reason.TIMEOUT, f"{what}: no answer within {seconds:g} s") from None


async def connect(endpoint: Endpoint, tls: TlsFiles | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect; the caller bounds the time.

    Raises:
        SourceError: MISSING, REFUSED, PERMISSION (also where TLS files are not configured), GARBAGE (the TLS handshake,
            or a unix socket that can't be asked), or TIMEOUT: out of reach, a name that can't be resolved, or a unix
            socket whose queue of connections is full.
    """
    try:
        if endpoint.kind == "unix":
            return await _connect_unix(endpoint.address)
        if endpoint.kind == "tcp":
            return await asyncio.open_connection(endpoint.address, endpoint.port, limit=READ_BYTES)
        if tls is None:
            why = "no private key, certificate and CA are configured for it"
            raise SourceError(Reason.PERMISSION, f"{endpoint}: {why}")
        return await asyncio.open_connection(endpoint.address, endpoint.port, limit=READ_BYTES, ssl=tls.context())
    except PermissionError as error:
        if endpoint.kind == "unix":
            raise denied(Path(endpoint.address), "connect to") from None
        raise SourceError(Reason.PERMISSION, f"{endpoint}: {error.strerror}") from None
    except BlockingIOError:
        why = "its queue of connections is full; whoever listens there accepts none"
        raise SourceError(Reason.TIMEOUT, f"{endpoint}: {why}") from None
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceError(Reason.MISSING, f"{endpoint}: {error.strerror}") from None
    except socket.gaierror as error:  # a name that can't be resolved says nothing of who is behind it
        raise SourceError(Reason.TIMEOUT, f"{endpoint}: {error.strerror}") from None
    except ssl.SSLError as error:
        raise SourceError(Reason.GARBAGE, f"{endpoint}: no TLS session: {error}") from None
    except (ConnectionResetError, BrokenPipeError):
        raise SourceError(Reason.CLOSED, f"{endpoint}: hung up while connecting") from None
    except OSError as error:
        # asyncio says 'Connect call failed' for whatever it was, and of a name with several addresses one text for all.
        numbers = [error.errno] if error.errno else [int(n) for n in re.findall(r"\[Errno (\d+)\]", str(error))]
        why = ", ".join(dict.fromkeys(os.strerror(n) for n in numbers)) or str(error)
        if _UNREACHABLE.intersection(numbers):
            raise SourceError(Reason.TIMEOUT, f"{endpoint}: {why}") from None
        # REFUSED means that it is dead: what keeps us from asking (a path too long, no descriptor left) does not show
        # that.
        refused = bool(numbers) and set(numbers) == {errno.ECONNREFUSED}
        raise SourceError(Reason.REFUSED if refused else Reason.GARBAGE, f"{endpoint}: {why}") from None


async def _connect_unix(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    # A unix socket connects at once or not at all. asyncio takes the EAGAIN of a full queue for a connection under way,
    # then finds the socket writable and calls it connected: so connect here, before asyncio sees it.
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        peer.setblocking(False)
        peer.connect(path)
        return await asyncio.open_unix_connection(sock=peer, limit=READ_BYTES)
    except BaseException:
        peer.close()
        raise
