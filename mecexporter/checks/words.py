"""Phrases that several findings share; commands are given so that they can be pasted."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING

from mecexporter.errors import Reason
from mecexporter.state.observed import Fresh
from mecexporter.state.world import ENCAPSULATION

if TYPE_CHECKING:
    from mecexporter.state.world import World


def quoted(value: str) -> str:
    """A value as a shell and a person can take it, whatever it holds."""
    return shlex.quote(value)


def sql_quoted(value: str) -> str:
    """A value as a string of SQL."""
    return "'" + value.replace("'", "''") + "'"


def delete_chassis(name: str) -> str:
    """Both of its rows: before OVN 23.03 ``chassis-del`` leaves the one in which it reports, and hv_cfg waits."""
    return f"ovn-sbctl chassis-del {quoted(name)} -- --if-exists destroy Chassis_Private {quoted(name)}"


def put_back(world: World, origin: str, system_id: str) -> str:
    """The commands that make ``system_id`` the id in force again, given where the present one comes from."""
    value = quoted(system_id)
    restart = "restart ovn-controller"
    if origin == "commandline":
        return f"correct -n in ovn-controller's options to {value}, and {restart}"
    if origin == "override" and isinstance(world.host, Fresh):
        return f"echo {value} > {quoted(world.host.value.override_file.path)}, and {restart}"
    # An address that came with the new id is the new Chassis' by now: with the old id goes the old one.
    commands = [_set({"system-id": system_id} | _lost(world, *ENCAPSULATION))]
    if isinstance(world.host, Fresh) and uses_file(world):
        commands.insert(0, f"echo {value} > {quoted(world.host.value.system_id_file.path)}")
    return f"{'; '.join(commands)}; then {restart}"


def uses_file(world: World) -> bool:
    """Whether the next start takes the id from system-id.conf (ovs-ctl(8), ``--system-id=random``)."""
    policy = world.settings.system_id_policy
    if policy.value != "auto":
        return policy.value == "file"
    if not isinstance(world.host, Fresh):
        return world.memory.id_file_seen
    host = world.host.value
    there = host.system_id_file.trouble is not Reason.MISSING  # one that we can't read is read by root all the same
    return bool(host.starts_from_file) or there or world.memory.id_file_seen


def restore_settings(world: World) -> str:
    """How to set again what ovn-controller needs from the local database, with the values this node last had."""
    known = world.memory.identity
    if known is None or "ovn-remote" not in known.settings:
        return (
            "set external_ids ovn-remote, ovn-encap-type and ovn-encap-ip of Open_vSwitch as your installer does "
            "(ovs-vsctl set Open_vSwitch . external_ids:ovn-remote=…)"
        )
    own_id = {"system-id": known.system_id} if known.origin == "ovsdb" else {}
    return _set(own_id | _lost(world, *known.settings))


def put_remote_back(world: World) -> str | None:
    """How to set ovn-remote as it was when this node was last healthy; None where it is that, or never was seen."""
    lost = _lost(world, "ovn-remote")
    return _set(lost) if lost else None


def _lost(world: World, *keys: str) -> dict[str, str]:
    """Of these settings those that are no more what they were when the node was last healthy."""
    known = world.memory.identity.settings if world.memory.identity else {}
    now = world.ovs.value.ovn_settings if isinstance(world.ovs, Fresh) else {}
    return {key: known[key] for key in keys if key in known and known[key] != now.get(key)}


def _set(settings: dict[str, str]) -> str:
    words = (f"external_ids:{ovsdb_quoted(key)}={ovsdb_quoted(value)}" for key, value in settings.items())
    return f"ovs-vsctl set Open_vSwitch . {' '.join(words)}"


def ovsdb_quoted(value: str) -> str:
    """A value as a shell, and behind it ovs-vsctl and its kin, take it: whatever is not plain as a JSON string."""
    return quoted(value if re.fullmatch(r"[\w.-]+", value, re.ASCII) else json.dumps(value, ensure_ascii=False))
