"""The command line."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import io
import json
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mecexporter import __version__, logs
from mecexporter.checks import base as checks
from mecexporter.config import Config, Duration, effective, load
from mecexporter.errors import ConfigError, MecExporterError
from mecexporter.store import FORGETTABLE, Store, forget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mecexporter.app import Engine
    from mecexporter.metrics.registry import View
    from mecexporter.web.findings import FindingsDocument
    from mecexporter.web.security import Security
    from mecexporter.web.sources import SourcesDocument

log = logging.getLogger(__name__)

EXIT_FAILED = 1  # run: it could not do what it was asked
EXIT_USAGE = 2  # bad configuration or usage, but for check
EXIT_CANNOT_TELL = 3  # check: also bad configuration or usage

ALONE_SECONDS = 45.0
"""How long ``check`` reads for itself at most, where no service runs."""
_ALONE_INTERVAL = 2.0
_SETTLED_AFTER = 12.0  # seconds in which checks that need several quick reads have had them
_ASK_SECONDS = 5.0
_MOST_BYTES = 64 << 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    # Python has no stream where its descriptor was closed (>&-), and print() then takes the other one.
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115  # for as long as the process lives
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115  # as above
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names from outside need not fit the terminal's encoding
    arguments = sys.argv[1:] if arguments is None else arguments
    usage, failed = EXIT_USAGE, EXIT_FAILED
    if "run" in arguments[:1]:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until there is something to end in order
    if "check" in arguments[:1]:
        usage = failed = EXIT_CANNOT_TELL
    try:
        options = _parser().parse_args(arguments)
    except SystemExit as stop:  # argparse has said why
        return usage if stop.code else 0
    try:
        status = int(options.command(options))
        sys.stdout.flush()
    except ConfigError as error:
        print(f"mecexporter: {error}", file=sys.stderr)
        return usage
    except MecExporterError as error:
        print(f"mecexporter: {error}", file=sys.stderr)
        return failed
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # whoever read our output has had enough
            print(f"mecexporter: {error}", file=sys.stderr)
        # What is left in the buffer is not to be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return failed
    except KeyboardInterrupt:  # whoever waited has had enough: end by the signal, without a traceback
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)
        return failed  # never reached
    except Exception:  # Python's own status for a bug is 1, by which check says 'warnings'
        log.exception("failed")
        return failed
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mecexporter", description="Prometheus exporter for OVN, Open vSwitch and SR-IOV"
    )
    parser.add_argument("--version", action="version", version=f"mecexporter {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    configured = argparse.ArgumentParser(add_help=False)
    configured.add_argument("--config", type=Path, metavar="F", help="configuration file (YAML); without one, defaults")

    def command(name: str, run: Any, words: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=words, description=words, parents=[configured])
        made.set_defaults(command=run)
        return made

    run = command("run", _run, "serve until SIGTERM")
    run.add_argument("--listen", metavar="HOST:PORT", help="instead of web.listen")
    check = command("check", _check, "say what is wrong on this node and what to do")
    check.add_argument("--json", action="store_true", help="the same for programs")
    check.add_argument("--only", nargs="+", action="extend", metavar="CHECK", default=[], help="these checks only")
    command("once", _once, "print the exposition once, after one round of every source")
    catalogue = command("catalogue", _catalogue, "list every metric and check")
    catalogue.add_argument("--format", choices=("md", "json"), default="md")
    command("config", _config, "print the effective configuration, secrets masked")
    what = command("forget", _forget, "drop what is remembered of a role, northd or this node's identity")
    what.add_argument("what", choices=FORGETTABLE, metavar="|".join(FORGETTABLE))
    return parser


def _load(options: argparse.Namespace) -> Config:
    config = load(options.config, known_checks=frozenset(c.name for c in checks.discover()))
    _where(config.web.listen, "web.listen")
    return config


def _run(options: argparse.Namespace) -> int:
    config = _load(options)
    where = _where(options.listen or config.web.listen, "--listen")
    security = _security(config)
    logs.set_up()
    asyncio.run(_serve(config, where, security))
    return 0


def _security(config: Config) -> Security | None:
    """What web.web_config asks for, as the service would take it."""
    from mecexporter.web.security import Security  # noqa: PLC0415  # other commands need no web server

    return Security(Path(config.web.web_config)) if config.web.web_config else None


def _where(text: str, key: str) -> tuple[str, int]:
    from mecexporter.web.listen import parse_listen  # noqa: PLC0415  # catalogue needs no web server

    try:
        return parse_listen(text)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from None


async def _serve(config: Config, where: tuple[str, int], security: Security | None) -> None:
    from mecexporter.web.listen import serve, serve_local  # noqa: PLC0415  # other commands need no web server
    from mecexporter.web.server import create_app  # noqa: PLC0415  # as above

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    engine, runners = _engine(config), []
    context = security.ssl_context if security else None
    try:
        runners.append(await serve(create_app(engine, security=security), *where, context))
        if config.web.local_socket:
            local = await serve_local(create_app(engine, local=True), Path(config.web.local_socket))
            runners += [local] if local else []
        log.info("serving", extra={"version": __version__, "addresses": runners[0].addresses})
        work = asyncio.create_task(engine.run())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait((work, stopped), return_when=asyncio.FIRST_COMPLETED)
        for task in (work, stopped):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
    finally:
        await asyncio.gather(*(runner.cleanup() for runner in runners))


def _engine(config: Config, *, read_only: bool = False) -> Engine:
    from msgspec.structs import replace  # noqa: PLC0415  # for this one place

    from mecexporter.app import Engine  # noqa: PLC0415  # catalogue needs no sources

    if read_only:  # somebody waits for it
        quick = replace(config.intervals, live=Duration(min(config.intervals.live, _ALONE_INTERVAL)))
        config = replace(config, intervals=quick)
    store = Store(Path(config.host.state_dir))
    if not read_only and not store.claim():
        raise MecExporterError(f"another mecexporter keeps its state in {config.host.state_dir}: set host.state_dir")
    return Engine(config, store, store.load(keep_aside=not read_only), read_only=read_only)


def _check(options: argparse.Namespace) -> int:
    from mecexporter.web.findings import exit_status, in_words, only  # noqa: PLC0415  # other commands need no web layer

    config = _load(options)
    unknown = set(options.only) - {c.name for c in checks.discover()}
    if unknown:
        raise ConfigError(f"no check is called {', '.join(sorted(map(repr, unknown)))}; see mecexporter catalogue")
    logs.set_up(logging.ERROR)
    findings, sources = _ask_service(config) or asyncio.run(_read_alone(config))
    if options.only:
        findings = only(findings, options.only)
    if options.json:
        print(json.dumps(findings, indent=2))
    else:
        sys.stdout.write(in_words(findings, sources, time.time()))
    return exit_status(findings)


def _ask_service(config: Config) -> tuple[FindingsDocument, SourcesDocument] | None:
    """What the running service says; None where none runs."""
    path = config.web.local_socket
    if path is None:
        return None
    try:
        return _get(path, "/api/v1/findings"), _get(path, "/api/v1/sources")
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except (OSError, ValueError, http.client.HTTPException) as error:
        print(f"mecexporter: the service does not answer on {path} ({error}); reading for myself", file=sys.stderr)
        return None


def _get(path: str, page: str) -> Any:
    connection = _LocalConnection(path)
    try:
        connection.request("GET", page)
        response = connection.getresponse()
        body = response.read(_MOST_BYTES)
        if response.status != http.HTTPStatus.OK:
            raise ValueError(f"{page}: status {response.status}")
        return json.loads(body)
    finally:
        connection.close()


class _LocalConnection(http.client.HTTPConnection):
    """HTTP over the service's unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_ASK_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_ASK_SECONDS)
        self.sock.connect(self._path)


async def _read_alone(config: Config) -> tuple[FindingsDocument, SourcesDocument]:
    """Watch for a while without a service; what would need longer is 'cannot tell', and is not waited for."""
    from mecexporter.web.findings import findings_document  # noqa: PLC0415  # other commands need no web layer
    from mecexporter.web.sources import sources_document  # noqa: PLC0415  # as above

    engine = _engine(config, read_only=True)
    work = asyncio.create_task(engine.run())
    began = time.monotonic()
    try:
        while (passed := time.monotonic() - began) < ALONE_SECONDS:
            await asyncio.sleep(0.2)
            report = engine.view().report
            in_time = any(lacks <= ALONE_SECONDS - passed for lacks in report.pending.values())
            if engine.ready() and not in_time and (not report.unknown or passed > _SETTLED_AFTER):
                break
        view = engine.view()
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
    findings = findings_document(view)
    for name in view.report.pending:
        if name in findings["ok"]:
            findings["ok"].remove(name)
            findings["unknown"].append({"check": name, "missing": ["time"]})
    findings["pending"] = []
    return findings, sources_document(view)


def _once(options: argparse.Namespace) -> int:
    from mecexporter.metrics.registry import discover  # noqa: PLC0415  # other commands render nothing
    from mecexporter.metrics.render import Renderer  # noqa: PLC0415  # as above

    config = _load(options)
    logs.set_up(logging.ERROR)
    sys.stdout.buffer.write(Renderer(discover()).render(asyncio.run(_one_round(config))))
    return 0


async def _one_round(config: Config) -> View:
    """What every source says when asked once."""
    engine = _engine(config, read_only=True)
    work = asyncio.create_task(engine.run())
    try:
        async with asyncio.timeout(ALONE_SECONDS):
            while not engine.ready():  # noqa: ASYNC110  # readiness is a state of many parts, not an event
                await asyncio.sleep(0.05)
    except TimeoutError:
        log.error("not every source has ended its round")  # noqa: TRY400  # the traceback says nothing
    finally:
        view = engine.view()
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
    return view


def _catalogue(options: argparse.Namespace) -> int:
    from mecexporter.metrics import docs  # noqa: PLC0415  # other commands need no catalogue

    if options.format == "json":
        sys.stdout.write(docs.catalogue_json())
    else:
        sys.stdout.write(f"{docs.metrics_markdown()}\n{docs.checks_markdown()}")
    return 0


def _config(options: argparse.Namespace) -> int:
    from mecexporter.web.sources import sources_document  # noqa: PLC0415  # other commands need no web layer
    from mecexporter.web.text import visible  # noqa: PLC0415  # as above

    config = _load(options)
    _security(config)  # a file that the service would refuse is wrong here too
    yaml.safe_dump(effective(config), sys.stdout, sort_keys=False, allow_unicode=True)
    logs.set_up(logging.CRITICAL)
    found = sources_document(asyncio.run(_one_round(config)))
    print("# found on this host:")
    print(f"#   hostname: {visible(found['hostname'])}")
    print(f"#   roles: {', '.join(found['roles']) or 'none'}")
    for source in found["sources"]:
        if source["applicable"]:
            print(f"#   {source['source']}: {'answers' if source['up'] else visible(source['why'] or '')}")
    return 0


def _forget(options: argparse.Namespace) -> int:
    config = _load(options)
    path = config.web.local_socket
    connection = _LocalConnection(path) if path else None
    try:
        if connection is not None:
            connection.request("POST", f"/local/v1/forget/{options.what}")
            response = connection.getresponse()
            said = response.read().decode(errors="replace").strip()
            if response.status != http.HTTPStatus.NO_CONTENT:
                raise MecExporterError(said or f"the service answered with status {response.status}")
            return 0
    except (FileNotFoundError, ConnectionRefusedError):
        pass  # no service runs: the file is ours to change
    except (OSError, http.client.HTTPException) as error:
        raise MecExporterError(f"the service does not answer on {path}: {error}") from None
    finally:
        if connection is not None:
            connection.close()
    store = Store(Path(config.host.state_dir))
    if not store.claim():
        raise MecExporterError(f"a service that has no local socket keeps its state in {store.path}: stop it first")
    store.save(forget(store.load(), options.what))
    return 0
