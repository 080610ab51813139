"""Certificates of a real PKI, where real daemons are told of them; files that can't be told."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mecexporter.sources.certificates import CertificatesSource, Daemon
from mecexporter.sources.ovn_db import OvnDatabaseSource
from mecexporter.sources.wire.endpoint import Endpoint, TlsFiles
from mecexporter.state.ovn_db import Database
from tests.ports import free_port
from tests.sources.daemons import OvsdbServer, run, running, short_dir
from tests.sources.wire.test_jsonrpc import another_user
from tests.worlds import healthy_central

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.state.tls import CertificateFile

WORLD = healthy_central()
PROC = Path("/proc")
NOWHERE = Path("/nowhere")
DAY = 86400.0


class Pki:
    """An authority, others, and what they have issued."""

    def __init__(self, directory: Path) -> None:
        self.dir = directory
        self.authority("ca", days=3650)

    def authority(self, name: str, *, days: int) -> Path:
        """That has signed itself, under a subject of its own."""
        run("openssl", "req", "-x509", *_KEY, "-days", str(days), "-subj", f"/CN=authority {name}",
            "-keyout", str(self.dir / f"{name}.key"), "-out", str(self.dir / f"{name}.pem"))  # fmt: skip
        return self.dir / f"{name}.pem"

    def issue(self, name: str, *, days: int, by: str = "ca") -> Path:
        key, request, certificate = (self.dir / f"{name}.{suffix}" for suffix in ("key", "csr", "pem"))
        run("openssl", "req", *_KEY, "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(request))
        run("openssl", "x509", "-req", "-in", str(request), "-CA", str(self.dir / f"{by}.pem"), "-CAkey",
            str(self.dir / f"{by}.key"), "-CAcreateserial", "-days", str(days), "-out", str(certificate))  # fmt: skip
        return certificate

    def files(self, name: str) -> TlsFiles:
        return TlsFiles(self.dir / f"{name}.key", self.dir / f"{name}.pem", self.dir / "ca.pem")

    def bundle(self, name: str, *files: Path) -> Path:
        path = self.dir / name
        path.write_text("".join(file.read_text() for file in files))
        return path


_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def ends(certificate: Path) -> float:
    """As openssl reads it."""
    said = run("openssl", "x509", "-noout", "-enddate", "-dateopt", "iso_8601", "-in", str(certificate))
    return datetime.fromisoformat(said.strip().removeprefix("notAfter=")).timestamp()


@pytest.fixture
def pki() -> Iterator[Pki]:
    with short_dir() as directory:
        directory.chmod(0o755)
        yield Pki(directory)


async def read(*daemons: Daemon, own: TlsFiles | None = None) -> dict[tuple[str, str], CertificateFile]:
    """By component and kind."""
    found = await CertificatesSource(own=own, daemons=daemons, proc=PROC, interval=300).read(WORLD)
    files = {(file.component, str(file.kind)): file for file in found}
    assert len(files) == len(found)
    assert all((file.expires is None) == bool(file.why) for file in found)
    return files


@contextmanager
def serving(pki: Pki, db: str, *options: str) -> Iterator[tuple[OvsdbServer, Daemon]]:
    """A server, and where it is told what it uses."""
    server = OvsdbServer(pki.dir, db, *options)
    with running(server):
        yield (
            server,
            Daemon(
                component=db,
                program="ovsdb-server",
                pidfile=pki.dir / "ovsdb-server.pid",
                table=(Endpoint("unix", str(server.socket)), db),
            ),
        )


def set_ssl(server: OvsdbServer, files: TlsFiles, tool: str = "ovn-sbctl") -> None:
    paths = (str(files.private_key), str(files.certificate), str(files.ca_cert))
    run(tool, f"--db=unix:{server.socket}", *(["--no-wait"] if tool == "ovs-vsctl" else []), "set-ssl", *paths)


FROM_TABLE = tuple(
    f"--{option}=db:OVN_Southbound,SSL,{column}"
    for option, column in (("private-key", "private_key"), ("certificate", "certificate"), ("ca-cert", "ca_cert"))
)


async def test_a_server_that_takes_them_from_its_table_and_shows_them(pki: Pki) -> None:
    pki.issue("server", days=20)
    pki.issue("client", days=2)
    port = free_port()
    with serving(pki, "OVN_Southbound", *FROM_TABLE, f"--remote=pssl:{port}:127.0.0.1") as (server, daemon):
        assert await read(daemon) == {}, "the table is empty yet"
        set_ssl(server, pki.files("server"))
        found = await read(daemon, own=pki.files("client"))
        assert {of: file.expires for of, file in found.items()} == {
            ("OVN_Southbound", "certificate"): ends(pki.dir / "server.pem"),
            ("OVN_Southbound", "ca"): ends(pki.dir / "ca.pem"),
            ("mecexporter", "certificate"): ends(pki.dir / "client.pem"),
            ("mecexporter", "ca"): ends(pki.dir / "ca.pem"),
        }
        assert ends(pki.dir / "server.pem") == pytest.approx(time.time() + 20 * DAY, abs=600)
        assert found["OVN_Southbound", "certificate"].path == str(pki.dir / "server.pem")
        secure = Endpoint.parse(f"ssl:127.0.0.1:{port}")
        for endpoint, shown in ((secure, ends(pki.dir / "server.pem")), (Endpoint("unix", str(server.socket)), None)):
            source = OvnDatabaseSource(
                Database.SOUTHBOUND, "x", endpoint, control=None, tls=pki.files("client"), interval=15
            )
            seen = await source.read(WORLD)
            await source.close()
            assert seen.certificate_expires == shown


async def test_a_server_whose_command_line_names_them(pki: Pki) -> None:
    pki.issue("server", days=20)
    pki.issue("other", days=5)
    files = pki.files("server")
    options = ("-p", str(files.private_key), f"-c{files.certificate}", "--ca-cert", str(files.ca_cert))
    with serving(pki, "OVN_Southbound", *options) as (server, daemon):
        set_ssl(server, pki.files("other"))
        found = await read(daemon)
        assert found["OVN_Southbound", "certificate"].expires == ends(files.certificate), "its table is of no effect"
        assert found["OVN_Southbound", "ca"].path == str(files.ca_cert)
        # Who can't see the process, as from another pid namespace, goes by the table.
        out_of_sight = await read(Daemon(component="sb", program="x", pidfile=NOWHERE, table=daemon.table))
        assert out_of_sight["sb", "certificate"].expires == ends(pki.dir / "other.pem")


async def test_a_server_without_tls(pki: Pki) -> None:
    pki.issue("server", days=20)
    with serving(pki, "OVN_Southbound") as (server, daemon):
        set_ssl(server, pki.files("server"))
        assert await read(daemon) == {}, "what the table has is of no effect"
    assert await read(daemon) == {}, "neither a process nor a server"


async def test_the_local_database(pki: Pki) -> None:
    pki.issue("switch", days=9)
    with serving(pki, "Open_vSwitch") as (server, daemon):
        vswitchd = Daemon(component="ovs", table=daemon.table)
        run("ovs-vsctl", "--no-wait", f"--db=unix:{server.socket}", "init")
        assert await read(vswitchd) == {}
        set_ssl(server, pki.files("switch"), "ovs-vsctl")
        assert (await read(vswitchd))["ovs", "certificate"].expires == ends(pki.dir / "switch.pem")
        server.suspend()
        try:
            assert await read(vswitchd) == {}, "not what it said before"
        finally:
            server.resume()


async def test_certificates_of_ovs_pki(pki: Pki) -> None:
    """They are preceded by themselves in words."""
    command = ("ovs-pki", "--dir", str(pki.dir / "pki"), "--log", str(pki.dir / "log"))
    run(*command, "init")
    run("sh", "-c", f"cd {pki.dir} && {' '.join(command)} req+sign node switch")
    files = TlsFiles(pki.dir / "node-privkey.pem", pki.dir / "node-cert.pem", pki.dir / "pki/controllerca/cacert.pem")
    found = await read(own=files)
    assert found["mecexporter", "certificate"].expires == ends(files.certificate)
    assert found["mecexporter", "ca"].expires == ends(files.ca_cert), "another authority's: it issued none of ours"


async def test_several_certificates_in_a_file(pki: Pki) -> None:
    root, middle = pki.dir / "ca.pem", pki.issue("middle", days=30)
    leaf = pki.issue("leaf", days=90, by="middle")
    foreign, foreign_late = pki.authority("foreign", days=1), pki.authority("late", days=9000)
    renewed = pki.dir / "renewed.pem"
    run("openssl", "x509", "-in", str(root), "-signkey", str(pki.dir / "ca.key"), "-days", "4000", "-out", str(renewed))

    async def told(certificate: Path, ca: Path) -> tuple[float | None, float | None]:
        found = await read(own=TlsFiles(pki.dir / "leaf.key", certificate, ca))
        return found["mecexporter", "certificate"].expires, found["mecexporter", "ca"].expires

    chain = pki.bundle("chain.pem", leaf, middle)
    assert await told(chain, root) == (ends(middle), ends(root)), "the first of a chain to end"
    own = pki.issue("own", days=3)
    bundle = pki.bundle("bundle.pem", foreign, root, foreign_late)
    assert await told(own, bundle) == (ends(own), ends(root)), "others in a bundle are of no importance"
    rolled = pki.bundle("rolled.pem", root, renewed)
    assert await told(own, rolled) == (ends(own), ends(renewed)), "as long as one of them is good"
    strangers = pki.bundle("strangers.pem", foreign, foreign_late)
    assert await told(own, strangers) == (ends(own), ends(foreign_late))


async def test_files_that_cannot_be_told(pki: Pki) -> None:
    good = pki.issue("node", days=9)
    key = pki.dir / "node.key"
    garbage, cut, fifo, large, link = (pki.dir / name for name in ("garbage", "cut", "fifo", "large", "link"))
    garbage.write_bytes(bytes(range(256)))
    cut.write_text(good.read_text()[:200])
    os.mkfifo(fifo)
    large.write_text(good.read_text() * 5000)
    both = pki.bundle("both.pem", key, good)
    link.symlink_to(both)
    loop = pki.dir / "loop"
    loop.symlink_to(loop)

    async def why(certificate: Path, private_key: Path = key) -> str:
        found = await read(own=TlsFiles(private_key, certificate, pki.dir / "ca.pem"))
        assert found["mecexporter", "ca"].expires == ends(pki.dir / "ca.pem"), "one file's trouble is not another's"
        assert found["mecexporter", "certificate"].expires is None
        return found["mecexporter", "certificate"].why or ""

    for path in (garbage, cut, key):
        assert await why(path, pki.dir / "other.key") == f"{path} holds no certificates in PEM that can be read"
    assert await why(pki.dir / "gone.pem") == f"no {pki.dir}/gone.pem"
    assert await why(fifo) == f"{fifo} is no regular file"
    assert "more than 1048576 bytes" in await why(large)
    assert "Too many levels of symbolic links" in await why(loop)
    assert "no absolute path" in await why(Path("node.pem"))
    for path in (both, link):
        assert await why(path, both) == f"{path} holds the private key as well: it is not opened"
    good.chmod(0)
    with another_user() as user:
        assert user in await why(good)


async def test_a_daemon_of_another_file_system_is_left_out(pki: Pki) -> None:
    """Of a path in a container the directory is not there; what is missing from one that is there is told of."""
    elsewhere, gone = pki.dir / "etc/server.pem", pki.dir / "gone.pem"
    with serving(pki, "OVN_Southbound", *FROM_TABLE) as (server, daemon):
        set_ssl(server, TlsFiles(elsewhere, elsewhere.with_name("chain.pem"), gone))
        found = await read(daemon, own=TlsFiles(elsewhere, elsewhere, pki.dir / "ca.pem"))
    assert {of: file.why for of, file in found.items()} == {
        ("OVN_Southbound", "ca"): f"no {gone}",
        ("mecexporter", "certificate"): f"{elsewhere} holds the private key as well: it is not opened",
        ("mecexporter", "ca"): None,
    }


async def test_nothing_that_is_a_key_is_opened(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    pki.issue("server", days=20)
    opened: list[str] = []
    really = os.open

    def watched(path: Path, *args: int) -> int:
        opened.append(str(path))
        return really(path, *args)

    with serving(pki, "OVN_Southbound", *FROM_TABLE) as (server, daemon):
        set_ssl(server, pki.files("server"))
        monkeypatch.setattr(os, "open", watched)
        assert len(await read(daemon, own=pki.files("server"))) == 4
    assert str(pki.dir / "server.pem") in opened
    assert not [path for path in opened if path.endswith(".key")]
