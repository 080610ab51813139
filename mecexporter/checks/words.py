"""Phrases that several findings share; commands are given so that they can be pasted."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from mecexporter.state.observed import Fresh

if TYPE_CHECKING:
    from mecexporter.state.world import World


def quoted(value: str) -> str:
    """A value as a shell and a person can take it, whatever it holds."""
    return shlex.quote(value)


def put_back(world: World, origin: str, system_id: str) -> str:
    """The commands that make ``system_id`` the id in force again, given where the present one comes from."""
    value = quoted(system_id)
    restart = "restart ovn-controller"
    if origin == "commandline":
        return f"correct -n in ovn-controller's options to {value}, and {restart}"
    if origin == "override" and isinstance(world.host, Fresh):
        return f"echo {value} > {quoted(world.host.value.override_file.path)}, and {restart}"
    commands = [f"ovs-vsctl set Open_vSwitch . external_ids:system-id={value}"]
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
    return bool(host.starts_from_file) or host.system_id_file.content is not None or world.memory.id_file_seen


def restore_settings(world: World) -> str:
    """How to set again what ovn-controller needs from the local database, with the values this node last had."""
    known = world.memory.identity
    if known is None or not known.ovn_remote:
        return (
            "set external_ids ovn-remote, ovn-encap-type and ovn-encap-ip of Open_vSwitch as your installer does "
            "(ovs-vsctl set Open_vSwitch . external_ids:ovn-remote=…)"
        )
    pairs = {
        "system-id": known.system_id,
        "ovn-remote": known.ovn_remote,
        "ovn-encap-type": ",".join(known.encap_types),
        "ovn-encap-ip": ",".join(known.encap_ips),
        "hostname": known.hostname or "",
    }
    words = " ".join(f"external_ids:{key}={quoted(_ovsdb(value))}" for key, value in pairs.items() if value)
    return f"ovs-vsctl set Open_vSwitch . {words}"


def _ovsdb(value: str) -> str:
    """A value for ovs-vsctl's own grammar, where a comma separates (ovs-vsctl(8), Database Values)."""
    return f'"{value}"' if any(c in value for c in ',: "') else value
