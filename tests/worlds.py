"""Worlds to begin a test with: a healthy node of each kind, and what changes one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mecexporter.checks.base import discover
from mecexporter.checks.ledger import Ledger
from mecexporter.errors import Reason
from mecexporter.metrics.registry import View
from mecexporter.state.host import HostFacts, IdFile
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.ovn import Chassis, ChassisLookup, OvnController
from mecexporter.state.ovs import (
    Bridge,
    BridgeFlows,
    Counters,
    Datapath,
    Interface,
    InterfaceKind,
    OvsConf,
    Upcalls,
    Vswitchd,
)
from mecexporter.state.world import (
    Identity,
    Memory,
    Process,
    Role,
    Settings,
    SourceStatus,
    Version,
    empty_world,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mecexporter.checks.base import Check
    from mecexporter.state.world import World

NOW = 1_800_000_000.0
"""Unix time of every World here, and the exporter's clock too (skew 0)."""
READ = NOW - 2
"""When every source was read."""
HOSTNAME = "compute-1"
SYSTEM_ID = "3f2a8c1e-5b0d-4c57-9f0e-1f3c1e6a7b21"
PEER = "c0ffee00-0000-4000-8000-000000000002"
REMOTE = "ssl:192.0.2.10:6642"
OVN_SETTINGS = {"hostname": HOSTNAME, "ovn-encap-ip": "192.0.2.1", "ovn-encap-type": "geneve", "ovn-remote": REMOTE}
COMPUTE_SOURCES = frozenset({"ovs", "vswitchd", "openflow", "ovn_controller", "chassis_lookup", "host"})


def interface(name: str, bridge: str = "br-int", kind: InterfaceKind = InterfaceKind.VIF, **changes: Any) -> Interface:
    """A healthy interface; ``changes`` are fields of Interface."""
    return replace(
        Interface(
            bridge=bridge,
            name=name,
            type={InterfaceKind.TUNNEL: "geneve", InterfaceKind.INTERNAL: "internal"}.get(kind, "system"),
            kind=kind,
            iface_id=f"port-of-{name}" if kind is InterfaceKind.VIF else None,
            ovn_installed=kind is InterfaceKind.VIF,
            remote_chassis=PEER if kind is InterfaceKind.TUNNEL else None,
            ofport=1,
            error=None,
            link_state="up",
            bfd_state=None,
        ),
        **changes,
    )


def healthy_ovs() -> OvsConf:
    """One VM, one tunnel to a peer, one uplink."""
    return OvsConf(
        system_id=SYSTEM_ID,
        hostname=HOSTNAME,
        ovn_remote=REMOTE,
        encap_types=("geneve",),
        encap_ips=("192.0.2.1",),
        ovn_settings=OVN_SETTINGS,
        integration_bridge="br-int",
        remembered_ids=(SYSTEM_ID,),
        schema_version="8.3.1",
        bridges=(
            Bridge(name="br-int", nb_cfg=7),
            Bridge(name="br-ex", nb_cfg=None),
        ),
        interfaces=(
            interface("br-int", kind=InterfaceKind.INTERNAL),
            interface("tapvm1"),
            interface("ovn-peer-0", kind=InterfaceKind.TUNNEL),
            interface("eth1", "br-ex", InterfaceKind.UPLINK),
        ),
        traffic_by_kind={kind: Counters() for kind in InterfaceKind},
        traffic={("br-int", "ovn-peer-0"): Counters(), ("br-ex", "eth1"): Counters(rx_packets=3, rx_bytes=300)},
    )


def healthy_host() -> HostFacts:
    """system-id.conf holds the id in force; no override, no ``-n``."""
    return HostFacts(
        kernel="6.1.0-30-amd64",
        system_id_file=IdFile(path="/etc/openvswitch/system-id.conf", content=SYSTEM_ID),
        override_file=IdFile(path="/etc/system-id-override", content=None, trouble=Reason.MISSING, why="not there"),
        commandline_id=None,
        commandline_why=None,
        starts_from_file="/lib/systemd/system/ovs-vswitchd.service",
        signs={"compute": "/run/ovn/ovn-controller.pid"},
    )


def healthy_compute() -> World:
    """A compute node whose sources all answer, that is who it was, and of which every check says ok."""
    chassis = Chassis(name=SYSTEM_ID, hostname=HOSTNAME, encap_ips=("192.0.2.1",))
    versions = {"kernel": "6.1.0-30-amd64", "ovs": "3.1.0", "ovs_schema": "8.3.1", "ovn": "23.03.1"}
    return replace(
        empty_world(NOW, HOSTNAME, Settings()),
        roles=frozenset({Role.COMPUTE}),
        applicable=COMPUTE_SOURCES,
        status={s: SourceStatus(last_success=READ, duration=0.004, rounds=4) for s in COMPUTE_SOURCES},
        memory=Memory(
            roles=frozenset({Role.COMPUTE}),
            identity=Identity(system_id=SYSTEM_ID, origin="ovsdb", since=NOW - 86400, settings=OVN_SETTINGS),
            nb_cfg_seen_under=SYSTEM_ID,
            id_file_seen=True,
            versions={name: Version(version=v, first_seen=NOW - 86400) for name, v in versions.items()},
            healthy_id=SYSTEM_ID,
            healthy_since=NOW - 3600,
        ),
        process=Process(cpu_seconds=1.5, resident_bytes=48 << 20, started=NOW - 86400, state_saved=True),
        ovs=Fresh(healthy_ovs(), READ),
        vswitchd=Fresh(
            Vswitchd(
                version="3.1.0",
                datapaths=(Datapath(name="system@ovs-system", hit=100, missed=2, lost=0),),
                upcalls=(
                    Upcalls(datapath="system@ovs-system", flows=6, flow_limit=200000, dump_duration_seconds=0.001),
                ),
            ),
            READ,
        ),
        openflow=Fresh(BridgeFlows("br-int", 147), READ),
        ovn_controller=Fresh(
            OvnController(version="23.03.1", connected=True, paused=False, txn_errors=0, txn_rises=(False,) * 3), READ
        ),
        chassis_lookup=Fresh(
            ChassisLookup(system_id=SYSTEM_ID, remote=REMOTE, registered=chassis, ours=True, of_hostname=(chassis,)),
            READ,
        ),
        host=Fresh(healthy_host(), READ),
    )


def reinstalled_compute() -> World:
    """Incident C2: the driver installer made a new id; ovn-controller says it is connected, br-int stays empty."""
    world = healthy_compute()
    new = "0badf00d-0000-4000-8000-000000000001"
    old = Chassis(name=SYSTEM_ID, hostname=HOSTNAME, encap_ips=("192.0.2.1",))
    return replace(
        world,
        ovs=Fresh(
            replace(
                healthy_ovs(),
                system_id=new,
                remembered_ids=(),
                bridges=(Bridge(name="br-int", nb_cfg=None),),
                interfaces=(
                    interface("br-int", kind=InterfaceKind.INTERNAL),
                    interface("tapvm1", ovn_installed=False),
                ),
                traffic={},
            ),
            READ,
        ),
        openflow=Fresh(BridgeFlows("br-int", 0), READ),
        ovn_controller=Fresh(
            OvnController(version="23.03.1", connected=True, paused=False, txn_errors=15, txn_rises=(True,) * 4), READ
        ),
        chassis_lookup=Fresh(
            ChassisLookup(system_id=new, remote=REMOTE, registered=None, ours=None, of_hostname=(old,)),
            READ,
        ),
        host=Fresh(
            replace(healthy_host(), system_id_file=IdFile(path="/etc/openvswitch/system-id.conf", content=new)), READ
        ),
    )


def without(
    world: World,
    source: str,
    why: str = "/run/x.sock: nobody listens",
    reason: Reason = Reason.REFUSED,
    ago: float = 10,
) -> World:
    """The same World where one source has had no answer for ``ago`` seconds."""
    status = world.status.get(source, SourceStatus())
    failed = replace(status, errors={**status.errors, reason: 2}, rounds=status.rounds + 2)
    lost = replace(world, status={**world.status, source: failed})
    return lost.with_part(source, Absent(why, world.now - ago, world.now - 1, reason))


def view_of(world: World, *, checks: Iterable[Check] | None = None, seconds: float = 120, reads: int = 12) -> View:
    """What the exporter shows after having seen nothing but this World for ``seconds``, read anew ``reads`` times.

    The view's World is the one given; the reads before it are the same answers at earlier times.
    """
    ledger = Ledger()
    asked = tuple(discover() if checks is None else checks)
    for n in reversed(range(reads)):
        report = ledger.advance(asked, _earlier(world, n * seconds / max(1, reads - 1)))
    return View(world, report)


def _earlier(world: World, seconds: float) -> World:
    earlier = replace(world, now=world.now - seconds)
    for source in COMPUTE_SOURCES:
        part = world.part(source)
        if isinstance(part, Fresh):
            earlier = earlier.with_part(source, Fresh(part.value, part.at - seconds))
    return earlier


def changed(world: World, source: str, **fields: Any) -> World:
    """The same World where a source, which must be fresh, says otherwise in some fields of its value."""
    part: Any = world.part(source)
    assert isinstance(part, Fresh), f"{source} is absent"
    return world.with_part(source, Fresh(replace(part.value, **fields), part.at))
