"""A live copy of a real server's tables, stopped at every moment."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.wire import ovsdb_live
from mecexporter.sources.wire.ovsdb_live import Replica
from tests.sources.daemons import OvsdbServer, run, running, short_dir
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.sources.wire.ovsdb_live import Tables

COLUMNS = {"Open_vSwitch": ("external_ids", "no_such_column"), "No_Such_Table": ("x",)}


@pytest.fixture(scope="module")
def server() -> Iterator[OvsdbServer]:
    with short_dir() as directory:
        made = OvsdbServer(directory, "Open_vSwitch")
        with running(made):
            run("ovs-vsctl", "--no-wait", f"--db=unix:{made.socket}", "init")
            yield made


@pytest.fixture(scope="module")
def schema(server: OvsdbServer) -> Any:
    return json.loads(run("ovsdb-client", "get-schema", f"unix:{server.socket}", "Open_vSwitch"))


def frozen(tables: Tables) -> dict[str, str]:
    (root,) = tables["Open_vSwitch"].rows.values()
    return dict(root.external_ids)


def replica(server: OvsdbServer, schema: Any, timeout: float = 10) -> Replica[dict[str, str]]:
    columns = {table: wanted for table, wanted in COLUMNS.items() if table in schema["tables"]}
    return Replica(f"unix:{server.socket}", schema, columns, frozen, timeout=timeout)


def set_id(server: OvsdbServer, value: str) -> None:
    run("ovs-vsctl", "--no-wait", f"--db=unix:{server.socket}", "set", "Open_vSwitch", ".", f"external_ids:x={value}")


def connections(server: OvsdbServer) -> int:
    """How many the server itself counts, but for the question's own."""
    said = run("ovs-appctl", "-t", str(server.control), "memory/show")
    return int(said.partition("sessions:")[2].split()[0]) if "sessions:" in said else 0


def said(copy: Replica[dict[str, str]]) -> dict[str, str] | Reason:
    try:
        return copy.value()
    except SourceError as error:
        return error.reason


def busy() -> set[str]:
    """Names of threads that belong to copies, but for the one that makes them all."""
    return {t.name for t in threading.enumerate() if t.name != "MainThread" and not t.name.startswith("copies")}


def test_it_follows_the_server(server: OvsdbServer, schema: Any) -> None:
    copy = replica(server, schema)
    assert said(copy) is Reason.PENDING
    set_id(server, "one")
    copy.start()
    try:
        wait_until(lambda: said(copy) == {"x": "one"}, 10, "the first copy")
        assert copy.value() is copy.value(), "frozen once for each change"
        set_id(server, "two")
        wait_until(lambda: said(copy) == {"x": "two"}, 10, "a change")
    finally:
        copy.stop()
    assert said(copy) is Reason.CLOSED


def test_stopped_it_leaves_neither_connection_nor_thread(server: OvsdbServer, schema: Any) -> None:
    before, threads = connections(server), busy()
    for _ in range(3):
        copy = replica(server, schema)
        copy.start()
        wait_until(lambda copy=copy: isinstance(said(copy), dict), 10, "the first copy")  # type: ignore[misc]  # a default binds it now
        copy.stop()
        copy.stop()
    wait_until(lambda: busy() <= threads, 10, "its threads have ended")
    wait_until(lambda: connections(server) <= before, 10, "its connections are closed")


@pytest.mark.parametrize("at", ["before", "while it is made", "after it was made", "at once"])
def test_stopped_while_it_starts(server: OvsdbServer, schema: Any, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    before, threads = connections(server), busy()
    reached, go = threading.Event(), threading.Event()
    connect = Replica._connect

    def halting(self: Replica[Any]) -> Any:
        made = connect(self) if at == "after it was made" else None
        reached.set()
        go.wait(20)
        return made or connect(self)

    copy = replica(server, schema)
    if at in ("while it is made", "after it was made"):
        monkeypatch.setattr(Replica, "_connect", halting)
        copy.start()
        assert reached.wait(10)
        copy.stop()
        go.set()
    elif at == "before":
        copy.stop()
        copy.start()
    else:
        copy.start()
        copy.stop()
    wait_until(lambda: busy() <= threads, 10, "its threads have ended")
    wait_until(lambda: connections(server) <= before, 10, "its connections are closed")
    assert said(copy) is Reason.CLOSED


def test_a_server_that_hangs_is_given_up_in_time(server: OvsdbServer, schema: Any) -> None:
    threads = busy()
    copy = replica(server, schema, timeout=0.5)
    server.suspend()
    try:
        copy.start()
        wait_until(lambda: said(copy) is Reason.TIMEOUT, 10, "it was not to be had")
    finally:
        server.resume()
    copy.stop()
    wait_until(lambda: busy() <= threads, 10, "its threads have ended")


def test_a_schema_that_is_none(server: OvsdbServer) -> None:
    copy = Replica(f"unix:{server.socket}", {"tables": {}, "name": 7}, {}, frozen, timeout=1)
    copy.start()
    wait_until(lambda: said(copy) is Reason.GARBAGE, 10, "no copy is made of it")
    copy.stop()


async def test_stopping_is_bounded_though_the_first_copy_may_take_long(server: OvsdbServer, schema: Any) -> None:
    threads = busy()
    copy = replica(server, schema, timeout=60)
    server.suspend()
    try:
        copy.start()
        wait_until(lambda: copy._connection is not None, 10, "it has begun")
        async with asyncio.timeout(ovsdb_live._JOIN + 3):
            await asyncio.to_thread(copy.stop)
    finally:
        server.resume()
    wait_until(lambda: {n for n in busy() - threads if not n.startswith("asyncio")} == set(), 10, "its threads ended")
