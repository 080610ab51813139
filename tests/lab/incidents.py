"""The incidents that a site can suffer, each with what brings it about and what an operator does about it.

They were reproduced on OVS 3.1 and OVN 23.03; what each does to which table is told beside its functions. `begin` and
`end` may be called in different processes: what a repair must know is kept in the lab's directory meanwhile.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.lab.central import Cluster, Pair
from tests.lab.failover import CLUSTER, PAIR, Stage
from tests.lab.site import SETTLE_TIMEOUT, LabError, Node, Site, run
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.lab.site import Daemon

Memory = dict[str, str]  # what the repair must know of how things were

FOREIGN_TUNNEL = "gnv9"


@dataclass(frozen=True)
class Incident:
    """One way for a node to be broken.

    pings: whether VMs on the node still reach others while it lasts; None where the incident does not decide it.
    """

    what: str
    break_: Callable[[Node], Memory]
    repair: Callable[[Node, Memory], None]
    pings: bool | None


def begin(site: Site, name: str, node: str | None = None) -> None:
    """Brings an incident about; LabError if there is none such here, it is under way already, or is not its turn.

    node: a compute node; default: c1.
    """
    found = find(name)
    _belongs(site, name)
    under_way = _under_way(site)
    if name in under_way:
        raise LabError(f"incident {name} is under way already; repair it first")
    if isinstance(found, Stage):
        if node is not None:
            raise LabError(f"incident {name} is of a whole site, not of a node")
        _begin_stage(site, name, found, list(under_way))
        return
    node = node or "c1"
    if node not in site.nodes:
        raise LabError(f"no node is named {node}; there are {', '.join(site.nodes)}")
    memory = found.break_(site.nodes[node])
    _keep(site, under_way | {name: {"node": node, "memory": memory}})


def end(site: Site, name: str) -> None:
    """Does what an operator would do about it, and has not done already; LabError if that incident is not under way."""
    found = find(name)
    _belongs(site, name)
    under_way = _under_way(site)
    if name not in under_way:
        raise LabError(f"incident {name} is not under way here")
    if isinstance(found, Stage):
        _end_stage(site, name, found, list(under_way))
        return
    found.repair(site.nodes[under_way[name]["node"]], under_way[name]["memory"])
    _keep(site, {other: what for other, what in under_way.items() if other != name})


def find(name: str) -> Incident | Stage[Any]:
    for catalogue in CATALOGUES.values():
        if name in catalogue:
            return catalogue[name]
    every = ", ".join(name for catalogue in CATALOGUES.values() for name in catalogue)
    raise LabError(f"no incident is named {name}; there are {every}")


def _belongs(site: Site, name: str) -> None:
    if name not in CATALOGUES[site.kind]:
        kind = next(kind for kind, catalogue in CATALOGUES.items() if name in catalogue)
        raise LabError(
            f"incident {name} is of a site of the kind {kind}, and lab {site.name} is of the kind {site.kind}; start "
            f"one: make demo{'' if kind == Site.kind else f' SITE={kind}'}"
        )


def _begin_stage(site: Site, name: str, stage: Stage[Any], under_way: list[str]) -> None:
    last = under_way[-1] if under_way else None
    if stage.after is not None and stage.after != last:
        raise LabError(f"incident {name} comes right after {stage.after}; under way now: {_listed(under_way)}")
    if stage.after is None and under_way:
        raise LabError(f"incident {name} wants a site that is well; under way now: {_listed(under_way)}")
    stage.break_(site)
    _keep(site, {key: {} for key in [*under_way, name]})


def _end_stage(site: Site, name: str, stage: Stage[Any], under_way: list[str]) -> None:
    if under_way[-1] != name:
        raise LabError(f"{under_way[-1]} came after {name}: repair {under_way[-1]} first")
    stage.repair(site)
    left = under_way[:-1] if stage.leaves is None else stage.leaves
    _keep(site, {key: {} for key in left})


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"


def _under_way(site: Site) -> dict[str, dict[str, Any]]:
    """By name, in the order in which they began."""
    try:
        found: dict[str, dict[str, Any]] = json.loads(_record(site).read_text())
    except FileNotFoundError:
        return {}
    return found


def _keep(site: Site, under_way: dict[str, dict[str, Any]]) -> None:
    _record(site).write_text(json.dumps(under_way))


def _record(site: Site) -> Path:
    return site.dir / "incidents.json"


# The system-id


def _set_id(node: Node, system_id: str) -> None:
    node.vsctl("set", "Open_vSwitch", ".", f'external_ids:system-id="{system_id}"')


def _id_memory(node: Node) -> Memory:
    return {"system_id": node.system_id}


def _new_id(node: Node) -> str:
    return f"new-{node.name}"


def _restart_controller(node: Node) -> None:
    """As its systemd unit does it: `exit --restart` leaves the chassis in the Southbound database."""
    node.stop("ovn-controller", "--restart")
    node.start("ovn-controller")


def _put_back(node: Node, memory: Memory) -> None:
    """The remedy of incident 2: the old id back into the file and the database. ovn-controller takes it up live."""
    node.system_id_file.parent.mkdir(exist_ok=True)
    node.system_id_file.write_text(memory["system_id"] + "\n")
    _set_id(node, memory["system_id"])


def _change_live(node: Node) -> Memory:
    memory = _id_memory(node)
    _set_id(node, _new_id(node))
    return memory


def _restart_with_new_id(node: Node) -> Memory:
    memory = _id_memory(node)
    node.system_id_file.write_text(_new_id(node) + "\n")
    node.ovs_ctl("restart")
    _restart_controller(node)
    return memory


def _restart_with_old_id(node: Node, memory: Memory) -> None:
    _put_back(node, memory)
    node.ovs_ctl("restart")
    _restart_controller(node)


def _wipe(node: Node) -> Memory:
    memory = _id_memory(node)
    node.ovs_ctl("stop")
    node.conf_db.unlink()
    node.ovs_ctl("start")
    return memory


def _restore(node: Node, _: Memory) -> None:
    node.configure_all()


def _install_driver(node: Node) -> Memory:
    memory = _id_memory(node)
    node.ovs_ctl("stop")
    node.conf_db.unlink()
    node.system_id_file.unlink()
    node.ovs_ctl("start")
    node.configure_all()
    return memory


def _remove_id(node: Node) -> Memory:
    memory = _id_memory(node)
    node.vsctl("remove", "Open_vSwitch", ".", "external_ids", "system-id")
    return memory


def _change_id_and_address(node: Node) -> Memory:
    memory = _id_memory(node)
    node.vsctl(
        "set", "Open_vSwitch", ".", f"external_ids:system-id={_new_id(node)}",
        f"external_ids:ovn-encap-ip=172.31.1.{node.index}",
    )  # fmt: skip
    return memory


def _take_back_id_and_address(node: Node, memory: Memory) -> None:
    """In one transaction: an address that two chassis claim is refused by the Southbound database."""
    node.vsctl(
        "set", "Open_vSwitch", ".", f'external_ids:system-id="{memory["system_id"]}"',
        f"external_ids:ovn-encap-ip={node.encap_ip}",
    )  # fmt: skip
    _carry_through(node, gone=_new_id(node), name=memory["system_id"])


def _rename(node: Node, name: str) -> None:
    """A rename as it should be done: the id changed, in the file too, and the old chassis deleted."""
    old = node.system_id
    _put_back(node, {"system_id": name})
    _carry_through(node, gone=old, name=name)


def _rename_anew(node: Node) -> Memory:
    memory = _id_memory(node)
    _rename(node, _new_id(node))
    return memory


def _rename_back(node: Node, memory: Memory) -> None:
    _rename(node, memory["system_id"])


def _carry_through(node: Node, *, gone: str, name: str) -> None:
    """Deletes a chassis that is no more, so that the node can register, and mends what this does not mend by itself.

    ovn-controller's first try to claim its ports may meet its own earlier transactions and fail; it tries again when
    something wakes it. A peer may make the new tunnel before it has dropped the old one to the same address; 'File
    exists' then stays on the port until somebody deletes it and ovn-controller makes it anew.
    """
    site = node.site
    site.sbctl("--if-exists", "chassis-del", gone)
    wait_until(lambda: name in site.chassis() - {gone}, SETTLE_TIMEOUT, f"{node.name} registers as {name}")
    wait_until(lambda: _claims(node, name), SETTLE_TIMEOUT, f"{name} claims the ports of {node.name}")
    for peer in site.nodes.values():
        if peer is not node:
            _await_tunnel(peer, _tunnel(name))


def _claims(node: Node, chassis: str) -> bool:
    node.appctl("ovn-controller", "recompute")
    row = node.site.sbctl("--bare", "--columns=_uuid", "find", "Chassis", f'name="{chassis}"')
    ports = node.site.sbctl("--bare", "--columns=logical_port", "find", "Port_Binding", f"chassis={row}").split()
    return {vm.name for vm in node.site.vms.values() if vm.node == node.name} <= set(ports)


# Tunnels and interfaces


def _tunnel(chassis: str) -> str:
    """The name that ovn-controller gives to its port for a chassis."""
    return f"ovn-{chassis[:6]}-0"


def _await_tunnel(node: Node, tunnel: str) -> None:
    def works() -> bool:
        if node.vsctl("--if-exists", "get", "Interface", tunnel, "error").startswith('"'):
            node.vsctl("--if-exists", "del-port", tunnel, wait=True)
        return node.vsctl("--if-exists", "get", "Interface", tunnel, "ofport").isdigit()

    wait_until(works, SETTLE_TIMEOUT, f"tunnel {tunnel} of {node.name} works")


def _peer(node: Node) -> Node:
    return next(peer for peer in node.site.nodes.values() if peer is not node)


def _occupy_tunnel(node: Node) -> Memory:
    """Somebody's own port to the same peer takes the place of OVN's; ofport -1, 'could not add … (File exists)'."""
    peer = _peer(node)
    memory = {"tunnel": _tunnel(peer.system_id)}
    # Newer releases (seen: 25.03, 26.03) name the near end too; only one that does clashes with it.
    near = node.vsctl("--if-exists", "get", "Interface", memory["tunnel"], "options:local_ip")
    node.sigstop("ovn-controller")  # it would put its port back at once
    try:
        node.vsctl("del-port", memory["tunnel"], wait=True)
        node.vsctl(
            "add-port", "br-phy", FOREIGN_TUNNEL, "--", "set", "Interface", FOREIGN_TUNNEL, "type=geneve",
            f"options:remote_ip={peer.encap_ip}", "options:key=flow",
            *([f"options:local_ip={near}"] if near else []), wait=True,
        )  # fmt: skip
    finally:
        node.sigcont("ovn-controller")
    return memory


def _free_tunnel(node: Node, memory: Memory) -> None:
    node.vsctl("--if-exists", "del-port", FOREIGN_TUNNEL, wait=True)
    _await_tunnel(node, memory["tunnel"])


def _cut_underlay(node: Node) -> Memory:
    """OVN runs BFD over a tunnel only if both ends are candidates for a gateway port, so there must be one first."""
    site, peer = node.site, _peer(node)
    site.nbctl("lr-add", "gw0", "--", "lrp-add", "gw0", "gw0-ext", "02:00:00:00:02:01", "192.0.2.1/24", "--",
               "lrp-add", "gw0", "gw0-net0", "02:00:00:00:02:02", "10.0.0.254/24", "--",
               "lsp-add", "net0", "net0-gw0", "--", "lsp-set-type", "net0-gw0", "router", "--",
               "lsp-set-addresses", "net0-gw0", "router", "--",
               "lsp-set-options", "net0-gw0", "router-port=gw0-net0")  # fmt: skip
    for priority, chassis in ((20, node.system_id), (10, peer.system_id)):
        site.nbctl("lrp-set-gateway-chassis", "gw0-ext", chassis, str(priority))
    tunnel = _tunnel(peer.system_id)

    def bfd(key: str) -> str:
        return node.vsctl("--if-exists", "get", "Interface", tunnel, f"bfd_status:{key}")

    wait_until(lambda: bfd("state") == "up", SETTLE_TIMEOUT, f"BFD of {tunnel} comes up")
    run("ip", "-n", peer.netns, "link", "set", "phy0", "down")
    return {}


def _mend_underlay(node: Node, _: Memory) -> None:
    run("ip", "-n", _peer(node).netns, "link", "set", "phy0", "up")
    node.site.nbctl("lsp-del", "net0-gw0", "--", "lr-del", "gw0")


def _plug_nothing(node: Node) -> Memory:
    node.vsctl("add-port", "br-int", "tap-gone")
    return {}


def _unplug_nothing(node: Node, _: Memory) -> None:
    node.vsctl("--if-exists", "del-port", "br-int", "tap-gone")


def _plug_orphan(node: Node) -> Memory:
    """A port as Nova plugs it, of a logical port that nobody knows (any more)."""
    node.execute("ip", "link", "add", "tap-orphan", "up", "type", "veth", "peer", "name", "orphan")
    node.vsctl(
        "add-port", "br-int", "tap-orphan", "--", "set", "Interface", "tap-orphan", "external_ids:iface-id=orphan",
        "external_ids:iface-status=active", 'external_ids:attached-mac="02:00:00:00:03:01"',
        "external_ids:vm-uuid=00000000-0000-4000-8000-000000000001",
    )  # fmt: skip
    return {}


def _unplug_orphan(node: Node, _: Memory) -> None:
    node.vsctl("--if-exists", "del-port", "br-int", "tap-orphan")
    node.execute("ip", "link", "del", "tap-orphan")


# Daemons


def _stop_controller(node: Node) -> Memory:
    node.stop("ovn-controller")
    return {}


def _start_controller(node: Node, _: Memory) -> None:
    node.start("ovn-controller")


def _pause_controller(node: Node) -> Memory:
    node.appctl("ovn-controller", "debug/pause")
    return {}


def _resume_controller(node: Node, _: Memory) -> None:
    node.appctl("ovn-controller", "debug/resume")


def _misdirect_controller(node: Node) -> Memory:
    node.vsctl("set", "Open_vSwitch", ".", f"external_ids:ovn-remote=unix:{node.dir}/nowhere.sock")
    return {}


def _killed(daemon: Daemon, what: str, *, pings: bool | None) -> Incident:
    def kill(node: Node) -> Memory:
        node.kill(daemon)
        return {}

    def start(node: Node, _: Memory) -> None:
        node.start(daemon)

    return Incident(what, kill, start, pings)


def _stopped(daemon: Daemon, what: str, *, pings: bool | None) -> Incident:
    def stop(node: Node) -> Memory:
        node.sigstop(daemon)
        return {}

    def resume(node: Node, _: Memory) -> None:
        node.sigcont(daemon)

    return Incident(what, stop, resume, pings)


def _kill_southbound(node: Node) -> Memory:
    node.site.kill_database("sb")
    return {}


def _start_southbound(node: Node, _: Memory) -> None:
    node.site.start_database("sb")


# ovs-ctl, which overwrites external_ids:system-id at every start


def _wipe_and_restore(node: Node) -> Memory:
    memory = _wipe(node)
    node.configure_all()
    return memory


def _delete_file(node: Node) -> Memory:
    memory = _id_memory(node)
    node.system_id_file.unlink()
    node.ovs_ctl("restart")
    return memory


def _lose_directory(node: Node) -> Memory:
    memory = _id_memory(node)
    node.system_id_file.unlink()
    node.system_id_file.parent.rmdir()
    node.ovs_ctl("restart")
    return memory


def _start_without_id(node: Node) -> Memory:
    memory = _id_memory(node)
    node.ovs_ctl("restart", system_id=None)
    return memory


def _restart_ovs(node: Node, _: Memory) -> None:
    node.ovs_ctl("restart")


INCIDENTS = {
    "A": Incident("the system-id is changed while all runs", _change_live, _put_back, pings=True),
    "B": Incident("Open vSwitch and ovn-controller are restarted with a new system-id",
                  _restart_with_new_id, _restart_with_old_id, pings=True),
    "C": Incident("conf.db is wiped and the ovn-* keys are not restored", _wipe, _restore, pings=False),
    "C2": Incident("the driver installer: conf.db and system-id.conf are wiped, and all is restored but the id",
                   _install_driver, _put_back, pings=False),
    "D": Incident("the system-id is removed from the database", _remove_id, _put_back, pings=True),
    "E": Incident("the system-id and ovn-encap-ip are changed: a second chassis of one hostname",
                  _change_id_and_address, _take_back_id_and_address, pings=False),
    "rename": Incident("the system-id is changed and the old chassis deleted: a rename, carried through",
                       _rename_anew, _rename_back, pings=True),
    "maintenance": Incident("ovn-controller is told to exit", _stop_controller, _start_controller, pings=False),
    "controller-killed": _killed("ovn-controller", "ovn-controller dies", pings=True),
    "controller-stopped": _stopped("ovn-controller", "ovn-controller hangs", pings=True),
    "controller-paused": Incident("ovn-controller is paused", _pause_controller, _resume_controller, pings=True),
    "controller-disconnected": Incident("ovn-remote names a server that is not there",
                                        _misdirect_controller, lambda node, _: node.configure_ovn(), pings=True),
    "vswitchd-killed": _killed("ovs-vswitchd", "ovs-vswitchd dies", pings=False),
    "vswitchd-stopped": _stopped("ovs-vswitchd", "ovs-vswitchd hangs", pings=False),
    "ovsdb-killed": _killed("ovsdb-server", "the local ovsdb-server dies", pings=False),
    "ovsdb-stopped": _stopped("ovsdb-server", "the local ovsdb-server hangs", pings=True),
    "tunnel-failed": Incident("a foreign tunnel takes the place of OVN's to the peer",
                              _occupy_tunnel, _free_tunnel, pings=False),
    "tunnel-bfd-down": Incident("the underlay is cut between two gateway chassis: BFD goes down",
                                _cut_underlay, _mend_underlay, pings=False),
    "interface-failed": Incident("a port of br-int names a device that is not there",
                                 _plug_nothing, _unplug_nothing, pings=True),
    "interface-orphaned": Incident("a VM's interface has an iface-id that nobody knows",
                                   _plug_orphan, _unplug_orphan, pings=True),
    "sb-killed": Incident("the Southbound database server dies", _kill_southbound, _start_southbound, pings=True),
    "ovsctl-wipe-conf": Incident("conf.db is wiped and restored: the id comes back from system-id.conf",
                                 _wipe_and_restore, lambda _node, _memory: None, pings=True),
    "ovsctl-delete-file": Incident("system-id.conf is deleted and Open vSwitch restarted: a new id",
                                   _delete_file, _restart_with_old_id, pings=True),
    "ovsctl-other-id": Incident("another id is set in the database; the next restart takes the file's again",
                                _change_live, _restart_ovs, pings=True),
    "ovsctl-unwritable": Incident("system-id.conf cannot be written: a new id at every restart",
                                  _lose_directory, _restart_with_old_id, pings=True),
    "ovsctl-no-system-id": Incident("Open vSwitch is restarted without --system-id: an empty id",
                                    _start_without_id, _restart_ovs, pings=True),
}  # fmt: skip

CATALOGUES: dict[str, Mapping[str, Incident | Stage[Any]]] = {
    Site.kind: INCIDENTS,
    Pair.kind: PAIR,
    Cluster.kind: CLUSTER,
}
"""By the kind of site that they befall."""
