"""A compute node's one small read of Southbound: is my id there, and is it me?

It is asked at start, when the id, the hostname or the remote changes, and when transactions begin to fail; else every
half hour. Thousands of nodes ask, so each asks for its own rows only, with jitter, and lets go of the connection.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.base import Source
from mecexporter.sources.wire.endpoint import Endpoint, TlsFiles
from mecexporter.sources.wire.ovsdb import OvsdbClient
from mecexporter.state.identity import EffectiveId, effective_id
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.ovn import Chassis, ChassisLookup
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from collections.abc import Hashable

    from mecexporter.sources.wire.ovsdb import Row
    from mecexporter.state.world import World

SB = "OVN_Southbound"
_SLOWEST_AGAIN = 120.0
_MAX_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class _Question:
    system_id: str
    hostname: str | None
    encap_ips: tuple[str, ...]
    remote: str | None
    failing: bool
    connected: bool
    unanswered: bool


class ChassisLookupSource(Source[ChassisLookup]):
    """Asks Southbound for the Chassis of this node's id, and for those of its hostname.

    Args:
        database: a connection string that overrides ovn-remote, or None.
        tls: for ``ssl:`` remotes, None if not configured.
        interval: seconds between reads while all is well.
        again: seconds to the next read while the node is not registered as itself; doubles with each.
    """

    name = "chassis_lookup"
    roles = frozenset({Role.COMPUTE})
    deadline = 30.0
    shared = True
    needs = ("ovs", "host")

    def __init__(self, database: str | None, tls: TlsFiles | None, *, interval: float, again: float) -> None:
        self.interval = interval
        self._database = database
        self._tls = tls
        self.retry = again
        self._first_again = again
        self._again = again
        # As last told: losing sight of conf.db does not change what is configured.
        self._wants_tls = False
        self._told = _Question("", None, (), None, failing=False, connected=False, unanswered=False)
        self._proving = False

    def configured(self, world: World) -> bool:
        """Not where Southbound wants certificates and we have been given none."""
        if (remote := self._remote(world)) is not None:
            self._wants_tls = all(part.strip().startswith("ssl:") for part in remote.split(","))
        return self._tls is not None or not self._wants_tls

    def question(self, world: World) -> _Question | None:
        """Who this node is and whom to ask; and what makes it worth asking again."""
        now = effective_id(world)
        if not isinstance(now, EffectiveId) or not isinstance(world.ovs, Fresh):
            return None
        ovs, controller = world.ovs.value, world.ovn_controller
        failing = isinstance(controller, Fresh) and any(controller.value.txn_rises[-1:])
        return _Question(
            now.system_id,
            ovs.hostname,
            ovs.encap_ips,
            self._remote(world),
            failing=failing,
            connected=isinstance(controller, Fresh) and controller.value.connected,
            unanswered=isinstance(world.chassis_lookup, Absent),
        )

    def worth_asking(self, asked: Hashable, now: Hashable) -> bool:
        """Not for trouble that has ended, but for who had no answer in it; at the end of an outage those are few."""
        if not isinstance(asked, _Question) or not isinstance(now, _Question):
            return asked != now
        again = now.unanswered and now.connected and not asked.connected
        before = replace(
            asked, failing=asked.failing and now.failing, connected=now.connected, unanswered=now.unanswered
        )
        return again or before != now

    def pause(self, value: ChassisLookup) -> float:
        """Soon again while the node is not registered, or as another host: that is read twice, and its repair seen.

        Soon again too while a new id is being proven: two hosts of one id have one Chassis by turns.
        """
        if value.registered is not None and value.ours is not False:
            self._again = self._first_again
            return min(self._first_again, self.interval) if self._proving else self.interval
        pause, self._again = self._again, min(2 * self._again, max(_SLOWEST_AGAIN, self._first_again))
        return min(pause, self.interval)

    async def read(self, world: World) -> ChassisLookup:
        """Ask the remotes in any order until one answers.

        Raises:
            SourceError: MISSING where the id or the remote is not known or not set; else what the last remote said.
        """
        self._told = told = self.question(world) or self._told
        known = world.memory.identity
        self._proving = known is not None and known.system_id != told.system_id
        if not told.system_id:
            raise SourceError(Reason.MISSING, "this node has no system-id to look up, or it can't be told")
        if not told.remote:
            raise SourceError(Reason.MISSING, "external_ids:ovn-remote is not set: no Southbound to ask")
        remotes = [part.strip() for part in told.remote.split(",")]
        random.shuffle(remotes)
        share = self.deadline / len(remotes)
        last = SourceError(Reason.GARBAGE, f"ovn-remote is {told.remote!r}")
        for remote in remotes:
            try:
                async with asyncio.timeout(share):
                    return await self._ask(Endpoint.parse(remote), told)
            except SourceError as error:
                last = error
            except ValueError as error:
                last = SourceError(Reason.GARBAGE, f"ovn-remote: {error}")
            except TimeoutError:
                last = SourceError(Reason.TIMEOUT, f"{remote}: no answer within {share:g} s")
        raise last

    def _remote(self, world: World) -> str | None:
        return self._database or (world.ovs.value.ovn_remote if isinstance(world.ovs, Fresh) else None)

    async def _ask(self, endpoint: Endpoint, told: _Question) -> ChassisLookup:
        client = OvsdbClient(endpoint, tls=self._tls, deadline=self.deadline, max_bytes=_MAX_BYTES)
        try:
            await _see_that_it_serves(client)
            columns = ("name", "hostname")
            # At once: two hosts of one id write that Chassis hundreds of times a second; its parts would be of both.
            by_id, its_encaps, by_hostname = await client.select_at_once(
                SB,
                ("Chassis", columns, [("name", "==", told.system_id)]),
                ("Encap", ("ip",), [("chassis_name", "==", told.system_id)]),
                ("Chassis", columns, [("hostname", "==", told.hostname or "")]),
            )
            if by_id is None or by_hostname is None:
                raise SourceError(Reason.GARBAGE, f"{endpoint}: no OVN_Southbound: it has no table Chassis")
            found = {row["name"]: _chassis(row, its_encaps) for row in by_id}
            if not told.hostname:
                by_hostname = []
            for row in by_hostname:
                if row["name"] not in found:
                    encaps = await client.select(SB, "Encap", ("ip",), [("chassis_name", "==", row["name"])])
                    found[row["name"]] = _chassis(row, encaps)
        finally:
            client.close()
        registered = found.get(told.system_id)
        return ChassisLookup(
            system_id=told.system_id,
            remote=str(endpoint),
            registered=registered,
            ours=registered.may_be(told.hostname, told.encap_ips) if registered else None,
            of_hostname=tuple(found[row["name"]] for row in by_hostname),
        )


async def _see_that_it_serves(client: OvsdbClient) -> None:
    """A RAFT member without its cluster answers with what it once knew: refuse that (``_Server``, ovsdb-server(5))."""
    rows = await client.select("_Server", "Database", ("name", "connected"), [("name", "==", SB)])
    if rows is None:
        return  # a server older than the table
    if not rows:
        raise SourceError(Reason.ANSWERED_ERROR, f"{client.endpoint}: serves no {SB}")
    if not rows[0].get("connected", True):
        raise SourceError(Reason.ANSWERED_ERROR, f"{client.endpoint}: {SB} has lost its cluster")


def _chassis(row: Row, encaps: list[Row] | None) -> Chassis:
    ips = {encap["ip"] for encap in encaps or ()}
    return Chassis(name=row["name"], hostname=row["hostname"], encap_ips=tuple(sorted(ips)))
