"""Reading ``cluster/status`` (ovsdb-server(1), CLUSTER COMMANDS; its text is made in OVS' ovsdb/raft.c)."""

from __future__ import annotations

import re
from collections import Counter

from mecexporter.errors import Reason, SourceError
from mecexporter.state.ovn_db import Member, Raft

_KEY = re.compile(r"^(?P<key>[A-Z][A-Za-z ]+?):[ \t]*(?P<value>.*)$", re.MULTILINE)
_SERVER = re.compile(
    r"^ {4}(?P<name>\S+) \((?:(?P<sid>[0-9a-f]+) at )?(?P<address>\S+?)\)(?P<self> \(self\))?(?P<rest>.*)$",
    re.MULTILINE,
)
_LAST = re.compile(r"last msg (\d{1,18}) ms ago")
_SILENT_ELECTIONS = 2
"""A leader hears from each follower several times in an election timer; after two it would have lost its own leader."""


def parse_cluster_status(text: str) -> Raft:
    """One member's view of its cluster, of every release since 2.9.

    Who can be reached: a connection in either direction stands (a broken one is put in parentheses; one to the member
    by which ours has joined is called ``->0000`` until either of them starts again), and a leader hears its followers.
    Followers do not talk to each other, so the time since their last message says nothing.

    Raises:
        SourceError: GARBAGE, where it lacks what every release prints.
    """
    head, _, tail = text.partition("\nServers:")
    keys = {m["key"]: m["value"].strip() for m in _KEY.finditer(head)}
    try:
        role, term = keys["Role"], int(keys["Term"])
        timer = int((keys.get("Election timer") or "1000").split()[0])  # may go on "(changing to 2000)"
        uncommitted = int(keys["Entries not yet committed"])
    except (KeyError, ValueError):
        raise SourceError(Reason.GARBAGE, f"cluster/status: not of a known form: {text!r:.80}") from None
    leader = keys.get("Leader")
    connections = keys.get("Connections", "").split()
    servers = list(_SERVER.finditer(tail))
    names = Counter(m["name"] for m in servers)
    others = tuple(
        Member(
            server_id=m["sid"] or m["name"],
            address=m["address"],
            # A server on a unix socket is called by its file, which need not be another one than its neighbour's.
            reachable=_reachable(m["name"], connections, m["rest"], timer, leads=role == "leader")
            if names[m["name"]] == 1
            else None,
        )
        for m in servers
        if not m["self"]
    )
    return Raft(
        role=role,
        leader=None if leader in (None, "", "unknown") else leader,
        term=term,
        cluster_id=_id(keys.get("Cluster ID", "")),
        uncommitted=uncommitted,
        others=tuple(sorted(others, key=lambda m: m.address)),
    )


def _reachable(name: str, connections: list[str], rest: str, timer: int, *, leads: bool) -> bool | None:
    if not connections:
        return None
    if not {f"->{name}", f"<-{name}"} & set(connections):
        return False
    if leads and (last := _LAST.search(rest)) is not None:
        return int(last[1]) < _SILENT_ELECTIONS * timer
    return True


def _id(text: str) -> str:
    """The whole UUID of ``1edb (1edb6f09-…)``."""
    found = re.fullmatch(r"\S+ \(([0-9a-f-]+)\)", text)
    return found[1] if found else text
