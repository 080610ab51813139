"""Which roles a node has: configured, or found by itself and remembered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mecexporter.errors import Reason
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.ovn_db import Database
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from mecexporter.config import Config, Northbound, Southbound
    from mecexporter.state.world import World


def signs(config: Config) -> dict[str, tuple[str, ...]]:
    """``compute``, ``northd`` or a database -> glob patterns of paths, any of which shows that it is here."""
    run_dir = config.ovn.run_dir
    controls = [c for c in (config.ovn.controller_control,) if c]
    return {
        "compute": (f"{run_dir}/ovn-controller.pid", f"{run_dir}/ovn-controller.*.ctl", *controls),
        str(Database.NORTHBOUND): _database(config.ovn.northbound, run_dir, "ovnnb_db"),
        str(Database.SOUTHBOUND): _database(config.ovn.southbound, run_dir, "ovnsb_db"),
        "northd": (f"{run_dir}/ovn-northd.pid", *(c for c in (config.ovn.northd_control,) if c)),
    }


def _database(db: Northbound | Southbound, run_dir: str, stem: str) -> tuple[str, ...]:
    sockets = (part.strip().removeprefix("unix:") for part in db.database.split(","))
    return (*(s for s in sockets if Path(s).is_absolute()), db.control, f"{run_dir}/{stem}.pid")


def found(world: World, config: Config) -> frozenset[Role]:
    """The roles that show now."""
    roles: set[Role] = set()
    seen = world.host.value.signs if isinstance(world.host, Fresh) else {}
    if "compute" in seen or (isinstance(world.ovs, Fresh) and world.ovs.value.ovn_remote):
        roles.add(Role.COMPUTE)
    if seen.keys() & set(Database):
        roles.add(Role.CENTRAL)
    if config.openstack.cloud or config.nova.cells:
        roles.add(Role.API)
    return frozenset(roles)


def in_force(world: World, config: Config) -> frozenset[Role]:
    """As configured; with ``auto`` what shows, what once showed, and what may be behind a conf.db that won't tell."""
    if config.roles != "auto":
        return frozenset(config.roles)
    locked = isinstance(world.ovs, Absent) and world.ovs.reason not in (Reason.MISSING, Reason.PENDING)
    presumed = frozenset({Role.COMPUTE}) if locked else frozenset()
    return found(world, config) | world.memory.roles | presumed
