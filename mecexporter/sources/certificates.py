"""When the TLS certificates of this host's daemons expire: of the files that they are told to use.

Who uses which is told by their command lines, and by the SSL tables of their databases where these are meant
(``--certificate=db:OVN_Southbound,SSL,certificate``, as ovn-ctl starts servers). Keys are never opened: of private
keys the path is asked for, so that a file that holds key and certificate is left alone. Parsed by ``cryptography``,
which costs 10 MiB of memory and is loaded only where there is a file to read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mecexporter.aside import OneAtATime
from mecexporter.errors import Reason, SourceError
from mecexporter.sources.base import Source
from mecexporter.sources.wire.files import read_small
from mecexporter.sources.wire.ovsdb import OvsdbClient
from mecexporter.sources.wire.processes import command_line
from mecexporter.state.tls import CertificateFile, CertificateKind
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from mecexporter.sources.wire.endpoint import Endpoint, TlsFiles
    from mecexporter.state.world import World

OWN = "mecexporter"
"""The component that we are."""

_DATABASE_DEADLINE = 1.5
_MAX_BYTES = 1 << 20  # a system's bundle of CAs has some 200 kB
_FROM_TABLE = re.compile(r"db:([^,]+),([^,]+),([^,]+)")  # ovsdb-server(1)
_IN_TABLE = {"key": "private_key", "certificate": "certificate", "ca": "ca_cert"}
_OPTIONS = {
    "-p": "key",
    "--private-key": "key",
    "-c": "certificate",
    "--certificate": "certificate",
    "-C": "ca",
    "--ca-cert": "ca",
    "--bootstrap-ca-cert": "ca",
}
"""ovs-vswitchd(8), Public Key Infrastructure Options; the same for all daemons of OVS and OVN."""

_Files: TypeAlias = dict[str, str]
"""``key``, ``certificate``, ``ca`` -> path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """Where it is told what a daemon uses.

    Attributes:
        component: see :class:`mecexporter.state.tls.CertificateFile`.
        program: its name, None where no command line is to be looked at.
        pidfile: of the same.
        table: its server and database, whose SSL table counts where no command line tells; None if it has none.
    """

    component: str
    program: str | None = None
    pidfile: Path = field(default_factory=Path)
    table: tuple[Endpoint, str] | None = None


class CertificatesSource(Source[tuple[CertificateFile, ...]]):
    """Reads the files of each daemon that is here; what a silent database would tell is left out.

    Args:
        own: this exporter's.
        daemons: the others.
        proc: procfs.
        interval: seconds between reads.
    """

    name = "certificates"
    roles = frozenset({Role.COMPUTE, Role.CENTRAL})

    def __init__(self, *, own: TlsFiles | None, daemons: tuple[Daemon, ...], proc: Path, interval: float) -> None:
        self.interval = interval
        self._own = own
        self._daemons = daemons
        self._proc = proc
        self._lines: OneAtATime[dict[str, _Files]] = OneAtATime("/proc does not answer")
        self._reads: OneAtATime[tuple[CertificateFile, ...]] = OneAtATime("a file system does not answer")

    async def read(self, world: World) -> tuple[CertificateFile, ...]:  # noqa: ARG002  # asks the same whatever the World
        """Raises SourceError only where a file system hangs; each file's trouble is part of the answer."""
        wanted: dict[str, _Files] = {}
        if self._own is not None:
            own = self._own
            files = {"key": own.private_key, "certificate": own.certificate, "ca": own.ca_cert}
            wanted[OWN] = {what: str(path) for what, path in files.items()}
        lines = await self._lines.call(self._command_lines)
        for daemon in self._daemons:
            wanted[daemon.component] = await self._files(daemon, lines.get(daemon.component))
        return await self._reads.call(_read_all, wanted)

    def _command_lines(self) -> dict[str, _Files]:
        """By component, of those whose command line can be read."""
        found = {}
        for daemon in self._daemons:
            if daemon.program is not None:
                try:
                    found[daemon.component] = _options(command_line(self._proc, daemon.pidfile, daemon.program))
                except SourceError:  # not here, or out of sight: its table may tell
                    continue
        return found

    async def _files(self, daemon: Daemon, given: _Files | None) -> _Files:
        if daemon.table is None:
            return given or {}
        endpoint, db = daemon.table
        if given is None:
            given = {what: f"db:{db},SSL,{column}" for what, column in _IN_TABLE.items()}
        if not any(_FROM_TABLE.fullmatch(path) for path in given.values()):
            return given
        client = OvsdbClient(endpoint, tls=self._own, deadline=_DATABASE_DEADLINE)
        try:
            return {what: path for what, told in given.items() if (path := await _resolved(client, told))}
        except SourceError:  # the source that this database is says so
            return {}
        finally:
            client.close()


async def _resolved(client: OvsdbClient, told: str) -> str | None:
    """A path, or what a column of a table has for it, which may be nothing."""
    if (column := _FROM_TABLE.fullmatch(told)) is None:
        return told
    rows = await client.select(column[1], column[2], (column[3],))
    found = [row.get(column[3]) for row in rows or ()]
    return next((path for path in found if isinstance(path, str) and path), None)


def _options(words: list[str]) -> _Files:
    """As getopt_long(3) reads them; of one that is given twice the last counts."""
    found: _Files = {}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if word.startswith("--") and name in _OPTIONS:
            found[_OPTIONS[name]] = value if equals else following
        elif word[:2] in _OPTIONS:
            found[_OPTIONS[word[:2]]] = word[2:] or following
    return {what: path for what, path in found.items() if path and (what, path) != ("ca", "none")}


def _read_all(wanted: dict[str, _Files]) -> tuple[CertificateFile, ...]:
    found = []
    for component, files in wanted.items():
        key, leaf = files.get("key"), None
        for kind in CertificateKind:
            if (path := files.get(kind)) is None:
                continue
            expires, why = None, None
            try:
                certificates = _certificates(Path(path), Path(key) if key else None)
            except SourceError as error:
                if error.reason is Reason.MISSING and component != OWN and not Path(path).parent.is_dir():
                    continue  # the daemon sees another file system than we: one of the two is in a container
                why = error.why
            else:
                if kind is CertificateKind.CERTIFICATE:
                    leaf = certificates[0]
                expires = _expiry(kind, certificates, leaf)
            found.append(CertificateFile(component=component, kind=kind, path=path, expires=expires, why=why))
    return tuple(found)


def _certificates(path: Path, key: Path | None) -> list[Certificate]:
    """Those in a PEM file, one at least.

    Raises:
        SourceError: as :func:`read_small`, and GARBAGE.
    """
    if not path.is_absolute():
        raise SourceError(Reason.GARBAGE, f"{path} is no absolute path: what it is relative to can't be told")
    if key is not None and _same(path, key):
        raise SourceError(Reason.PERMISSION, f"{path} holds the private key as well: it is not opened")
    content = read_small(path, _MAX_BYTES)
    from cryptography import x509  # noqa: PLC0415  # dear to load, and most hosts have no certificates

    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise SourceError(Reason.GARBAGE, f"{path} holds no certificates in PEM that can be read") from None


def _same(path: Path, key: Path) -> bool:
    try:
        return path == key or path.samefile(key)
    except OSError:  # one of them is not there, or may not be looked for
        return False


def _expiry(kind: CertificateKind, certificates: list[Certificate], leaf: Certificate | None) -> float:
    """Of a chain when the first of them ends; of CAs when the last does that may have issued our own certificate.

    A bundle may hold CAs that are of no more use, or of others: as long as one of ours is good, so is the bundle.
    """
    ends = {c: c.not_valid_after_utc.timestamp() for c in certificates}
    if kind is CertificateKind.CERTIFICATE:
        return min(ends.values())
    issuers = [c for c in certificates if leaf is not None and c.subject == leaf.issuer]
    return max(ends[c] for c in issuers or certificates)
