"""A standby that would serve something else than its active does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.checks.base import Finding, Severity, Unknown, check
from mecexporter.checks.databases import answering, databases, silent
from mecexporter.state.central import active_of
from mecexporter.state.observed import Absent
from mecexporter.state.ovn_db import Kind, Model
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from mecexporter.checks.base import Verdict
    from mecexporter.state.ovn_db import PairSync
    from mecexporter.state.world import World


@check(
    severity=Severity.CRITICAL,
    title=(
        "a row of a standby differs: it showed one value in two reads at least grace.db_sync apart while the active "
        "showed another at both"
    ),
    roles=frozenset({Role.CENTRAL}),
    sources=(),
    models=frozenset({Model.STANDALONE}),
    alert_for="0s",
)
def ovn_db_out_of_sync(world: World) -> Verdict:
    """Believe content only; what could not be compared can't be told."""
    findings: list[Finding] = []
    missing: list[str] = []
    for db, found in databases(world, Model.STANDALONE):
        # A server that is not there may be a standby, or the active of one: redundancy is not proven.
        missing += silent(found)
        standbys = [s for s in answering(found) if s.is_standby]
        if not standbys:
            continue
        source = f"{str(db).lower()}_sync"
        seen = world.part(source)
        if isinstance(seen, Absent):
            missing.append(source)
            continue
        results = {p.standby: p for p in seen.value}
        for standby in standbys:
            pair = results.get(standby.server)
            if pair is None or pair.in_sync is None:
                active = active_of(world, standby)
                missing.append(active.source if active and isinstance(active.seen, Absent) else source)
            elif not pair.in_sync:
                findings.append(_finding(pair, seen.at))
    return tuple(findings) if findings or not missing else Unknown(tuple(dict.fromkeys(missing)))


def _finding(pair: PairSync, at: float) -> Finding:
    tables = {table for (table, _), number in pair.rows.items() if number}
    counts = "; ".join(
        f"{table}: " + ", ".join(f"{n} {kind}" for kind in Kind if (n := pair.rows.get((table, kind), 0)))
        for table in sorted(tables)
    )
    rows = ", ".join(f"{d.table} {d.uuid} ({d.kind})" for d in pair.examples[:3] if d.uuid != "*")
    return Finding(
        subject=f"{pair.db}@{pair.standby}",
        summary=(
            f"the standby {pair.standby} of {pair.db} does not hold what its active {pair.active} does: {counts}"
            + (f"; for example {rows}" if rows else "")
        ),
        remedy=(
            "do not promote it. Restart the standby's ovsdb-server: it copies its active anew. If it differs again, "
            "find out who writes to it (ovsdb-server's log), and whether a table is kept from replication"
        ),
        read_at=at,
    )
