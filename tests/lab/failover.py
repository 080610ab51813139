"""The incidents of a control plane: the fail-over of a pair in stages, its wrong turns, and what else goes wrong.

One at a time: what a stage does is told for the state in which the one before it has left the hosts. Steps are shared:
what the tests hold against the exporters is what `make incident` does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from tests.lab.central import DATABASES, NOBODY, PORTS, VIP, Cluster, Pair, replicates
from tests.lab.site import OVN_SHARE, SETTLE_TIMEOUT, release
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.lab.central import Host
    from tests.lab.site import Database

S = TypeVar("S", Pair, Cluster)


@dataclass(frozen=True)
class Stage(Generic[S]):
    """One way for a control plane to be broken, or one step of mending it.

    after: the incident that must be under way, the last one; None: none may be.
    leaves: those that are under way when it is repaired; None: those that were before it.
    """

    what: str
    break_: Callable[[S], object]
    repair: Callable[[S], object]
    after: str | None = None
    leaves: tuple[str, ...] | None = None


# The fail-over of a pair


def host_dies(pair: Pair) -> None:
    """The active's, with all that runs there; no one says goodbye."""
    pair.ca.kill("nb", "sb", "ovn-northd")
    pair.ca.cut()


def host_returns_as_it_was(pair: Pair) -> None:
    """With the start options that it had: as an active, with its northd."""
    pair.ca.mend()
    for db in DATABASES:
        pair.ca.start(db)
    pair.ca.start_northd()


def promote(pair: Pair) -> None:
    pair.cb.promote(*DATABASES)


def demote(pair: Pair) -> None:
    """A standby of the dead one again, in wait for it."""
    for db in DATABASES:
        pair.cb.replicate(db, pair.ca.tcp(db))


def start_northd(pair: Pair) -> None:
    """Again, if one runs there that stood by."""
    pair.cb.stop_northd()
    pair.cb.start_northd()
    wait_until(lambda: northd(pair.cb) == "active", SETTLE_TIMEOUT, "northd of cb is active")


def beside_a_standby() -> str:
    """What a northd calls itself whose servers are standbys, by their release, whichever its own is.

    3.1 refuses its lock, and it does not ask again when the standby is promoted. 3.5 and 4.0 grant it, and refuse what
    it writes until they are promoted; nothing in between was tried.
    """
    return "standby" if release("ovsdb-server") < (3, 5) else "active"


def start_northd_too_early(pair: Pair) -> None:
    """At a standby."""
    pair.cb.start_northd()
    wait_until(lambda: northd(pair.cb) == beside_a_standby(), SETTLE_TIMEOUT, "northd of cb is there")
    connection = ("nb-connection-status", "sb-connection-status")
    wait_until(
        lambda: all(pair.cb.appctl("ovn-northd", of) == "connected" for of in connection),
        SETTLE_TIMEOUT,
        "northd of cb is connected",
    )
    promote(pair)


def northd(host: Host) -> str:
    """What it calls itself: active, standby or paused."""
    return host.appctl("ovn-northd", "status").removeprefix("Status: ")


def address_moves(pair: Pair) -> None:
    pair.take_address()
    pair.give_address(pair.cb)


def address_moves_back(pair: Pair) -> None:
    pair.take_address()
    pair.give_address(pair.ca)


def host_returns_as_standby(pair: Pair) -> None:
    pair.ca.mend()
    for db in DATABASES:
        pair.ca.start(db, f"--sync-from={pair.cb.tcp(db)}")
        wait_until(lambda: replicates(pair.ca, db), SETTLE_TIMEOUT, f"{db} of ca replicates")  # noqa: B023  # called here
    pair.ca.start_northd()


def change_back(pair: Pair) -> None:
    """The roles as they were at first, by plan: nobody writes meanwhile, and nothing is lost.

    `ca` is promoted before `cb` is made a standby. The other way round each would replicate the other for a moment, and
    `cb` begins by throwing its rows away.
    """
    pair.take_address()
    pair.cb.stop_northd()
    for db in DATABASES:
        wait_until(lambda: pair.ca.dump(db) == pair.cb.dump(db), SETTLE_TIMEOUT, f"{db} of ca is level")  # noqa: B023  # called here
    pair.ca.promote(*DATABASES)
    sync_again(pair.cb, pair.ca)
    pair.ca.stop_northd()
    pair.ca.start_northd()
    pair.give_address(pair.ca)


def sync_again(host: Host, active: Host) -> None:
    """A standby of that one, until its next start."""
    for db in DATABASES:
        host.replicate(db, active.tcp(db))
        wait_until(lambda: replicates(host, db), SETTLE_TIMEOUT, f"{db} of {host.name} replicates")  # noqa: B023  # called here


def end_the_second(pair: Pair) -> None:
    """The old active a standby after all: what was written to it alone is lost. Its northd must ask for its lock."""
    pair.ca.stop_northd()
    sync_again(pair.ca, pair.cb)
    pair.ca.start_northd()


def follow_the_address(pair: Pair) -> None:
    """A standby of whoever has the clients' address: at this moment the active."""
    restart_standby(pair, f"--sync-from=tcp:{VIP}:{PORTS['nb']}")
    wait_until(lambda: replicates(pair.cb, "nb"), SETTLE_TIMEOUT, "nb of cb replicates")


def address_becomes_its_own(pair: Pair) -> None:
    address_moves(pair)
    pair.cb.appctl("nb", "ovsdb-server/disconnect-active-ovsdb-server")
    pair.cb.appctl("nb", "ovsdb-server/connect-active-ovsdb-server")


def follow_an_address_that_becomes_its_own(pair: Pair) -> None:
    follow_the_address(pair)
    address_becomes_its_own(pair)


def follow_the_host(pair: Pair) -> None:
    address_moves_back(pair)
    restart_standby(pair)


# What else happens to a pair


def start_standby(pair: Pair, *options: str) -> None:
    pair.cb.start("nb", *(options or (f"--sync-from={pair.ca.tcp('nb')}",)))


def restart_standby(pair: Pair, *options: str) -> None:
    pair.cb.kill("nb")
    start_standby(pair, *options)


def start_empty(pair: Pair) -> None:
    """A standby that never had a session."""
    pair.cb.kill("nb")
    pair.cb.file("nb").rename(pair.cb.dir / "nb.old")
    start_standby(pair, f"--sync-from={NOBODY}")


def exclude_a_table(pair: Pair) -> None:
    leave_out(pair, "OVN_Northbound:DNS")
    pair.ca.nbctl("create", "DNS", "records:a=b")


def leave_out(pair: Pair, tables: str) -> None:
    pair.cb.appctl("nb", "ovsdb-server/set-sync-exclude-tables", tables)
    wait_until(lambda: replicates(pair.cb, "nb"), SETTLE_TIMEOUT, "it replicates")


def leave_nothing_out(pair: Pair) -> None:
    leave_out(pair, "")


def change_by_hand(pair: Pair) -> None:
    """A row of the standby that its active does not have, in a table that it has stopped to replicate."""
    pair.cb.promote("nb")
    pair.cb.nbctl("create", "Address_Set", "name=by_hand")
    pair.cb.appctl("nb", "ovsdb-server/set-sync-exclude-tables", "OVN_Northbound:Address_Set")
    pair.cb.appctl("nb", "ovsdb-server/connect-active-ovsdb-server")
    wait_until(lambda: replicates(pair.cb, "nb"), SETTLE_TIMEOUT, "it replicates")


def newer_schema(host: Host) -> Path:
    """Northbound's, with one more column."""
    schema = json.loads((OVN_SHARE / "ovn-nb.ovsschema").read_text())
    schema.pop("cksum", None)
    schema["version"] = "99.0.0"
    schema["tables"]["Logical_Switch"]["columns"]["novel"] = {"type": {"key": "string", "min": 0, "max": 1}}
    file = host.dir / "newer.ovsschema"
    file.write_text(json.dumps(schema))
    return file


def convert_the_active(pair: Pair) -> None:
    """What cannot be replicated any more promotes its standby."""
    pair.ca.execute("ovsdb-client", "--timeout=10", "convert", pair.ca.unix("nb"), newer_schema(pair.ca))


def convert_the_standby(pair: Pair) -> None:
    pair.cb.kill("nb")
    pair.cb.execute("ovsdb-tool", "convert", pair.cb.file("nb"), newer_schema(pair.cb))
    start_standby(pair)


def _sync_cb_again(pair: Pair) -> None:
    sync_again(pair.cb, pair.ca)


def _active_killed(db: Database, what: str) -> Stage[Pair]:
    return Stage(what, lambda p: p.ca.kill(db), lambda p: p.ca.start(db))


PAIR: dict[str, Stage[Pair]] = {
    "F1": Stage("fail-over: the active's host dies", host_dies, host_returns_as_it_was),
    "F2": Stage("fail-over: the standby is promoted", promote, demote, after="F1"),
    "F3": Stage("fail-over: northd is started there", start_northd, lambda p: p.cb.stop_northd(), after="F2"),
    "F4": Stage("fail-over: the clients' address is moved there", address_moves, address_moves_back, after="F3"),
    "F5": Stage("fail-over: the old active comes back as a standby (repair: the roles are changed back)",
                host_returns_as_standby, change_back, after="F4", leaves=()),
    "F2-northd-first": Stage("wrong turn: northd is started before the promotion, and goes on standing by (OVS 3.1)",
                             start_northd_too_early, start_northd, after="F1", leaves=("F1", "F2", "F3")),
    "F5-second-active": Stage("wrong turn: the old active comes back as a second active",
                              host_returns_as_it_was, end_the_second, after="F4",
                              leaves=("F1", "F2", "F3", "F4", "F5")),
    "own-address": Stage("wrong turn: a standby replicates the clients' address, which is moved to it",
                         follow_an_address_that_becomes_its_own, follow_the_host),
    "northd-paused": Stage("northd is paused", lambda p: p.ca.appctl("ovn-northd", "pause"),
                           lambda p: p.ca.appctl("ovn-northd", "resume")),
    "northd-killed": Stage("northd dies", lambda p: p.ca.kill("ovn-northd"), lambda p: p.ca.start_northd()),
    "active-killed": _active_killed("nb", "Northbound's active dies, its host lives"),
    "active-sb-killed": _active_killed("sb", "Southbound's active dies, its host lives"),
    "active-stopped": Stage("Northbound's active hangs", lambda p: p.ca.suspend("nb"), lambda p: p.ca.resume("nb")),
    "link-cut": Stage("the standby's link is cut without a word", lambda p: p.cb.cut(), lambda p: p.cb.mend()),
    "standby-killed": Stage("Northbound's standby dies", lambda p: p.cb.kill("nb"), start_standby),
    "wrong-active-set": Stage("the standby is told an address that nobody has, and not yet to connect to it",
                              lambda p: p.cb.appctl("nb", "ovsdb-server/set-active-ovsdb-server", NOBODY),
                              _sync_cb_again),
    "wrong-active": Stage("the standby is told an address that nobody has",
                          lambda p: p.cb.replicate("nb", NOBODY), _sync_cb_again),
    "never-connected": Stage("an empty standby is started with an address that nobody has",
                             start_empty, restart_standby),
    "self-replication": Stage("the standby is told its own address",
                              lambda p: p.cb.replicate("nb", p.cb.tcp("nb")), _sync_cb_again),
    "two-actives": Stage("the standby is promoted though its active lives", promote, _sync_cb_again),
    "newer-schema": Stage("the active's schema is made a newer one: its standby promotes itself",
                          convert_the_active, convert_the_standby),
    "table-excluded": Stage("a table is kept from replication", exclude_a_table, leave_nothing_out),
    "row-by-hand": Stage("a row is written to the standby by hand", change_by_hand, leave_nothing_out),
}  # fmt: skip


# A cluster


def member_dies(host: Host) -> None:
    host.kill(*DATABASES)


def member_returns(host: Host) -> None:
    for db in DATABASES:
        host.start(db)


def _third(cluster: Cluster) -> Host:
    return cluster.hosts["s3"]


def lose_a_member(cluster: Cluster) -> None:
    """With its file."""
    _third(cluster).kill("nb")
    _third(cluster).file("nb").unlink()


def replace_the_member(cluster: Cluster) -> None:
    cluster.kick(_third(cluster), "nb")
    cluster.join(_third(cluster), "nb")


CLUSTER: dict[str, Stage[Cluster]] = {
    "R1": Stage("one member of three dies", lambda c: member_dies(c.hosts["s3"]),
                lambda c: member_returns(c.hosts["s3"])),
    "R2": Stage("a second one dies: the quorum is lost", lambda c: member_dies(c.hosts["s2"]),
                lambda c: member_returns(c.hosts["s2"]), after="R1"),
    "R-replaced": Stage("a member of Northbound is lost for good (repair: another one takes its place)",
                        lose_a_member, replace_the_member),
}  # fmt: skip
