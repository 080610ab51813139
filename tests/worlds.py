"""Worlds to begin a test with: a healthy node of each kind, and what changes one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mecexporter.checks.base import discover
from mecexporter.checks.ledger import Ledger
from mecexporter.checks.offload import attributed
from mecexporter.errors import Reason
from mecexporter.metrics.registry import View
from mecexporter.state.central import source_name
from mecexporter.state.datapath import (
    Conntrack,
    Counted,
    FlowClass,
    FlowTable,
    Gre,
    Layer,
    Obstacle,
    Path,
    PortKind,
    Protocol,
)
from mecexporter.state.host import HostFacts, IdFile
from mecexporter.state.neutron_ovn import Drift, NeutronAudit, Resource, State
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.openstack import Cell, DeviceKind, Instance, PciDevice, Port, Provider, Stock
from mecexporter.state.ovn import Chassis, ChassisLookup, OvnController
from mecexporter.state.ovn_daemon import LflowCache, Run, Stopwatch, Work
from mecexporter.state.ovn_db import (
    LOCAL,
    Database,
    DatabaseServer,
    Difference,
    Globals,
    Kind,
    Member,
    Model,
    Northd,
    PairSync,
    Raft,
    Replication,
)
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
from mecexporter.state.propagation import Gateway, Lag, ListedChassis, Propagation, Reported
from mecexporter.state.sriov import Held, Links, Nic, Pf, PfLink, Uplink, Vf, VfLink
from mecexporter.state.tls import CertificateFile, CertificateKind
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
COMPUTE_SOURCES = frozenset(
    {"ovs", "vswitchd", "openflow", "ovn_controller", "chassis_lookup", "host", "sysfs", "links"}
    | {"certificates", "tc", "ovs_flows", "conntrack"}
)
NB, SB = Database.NORTHBOUND, Database.SOUTHBOUND
SYNC = {NB: "ovn_northbound_sync", SB: "ovn_southbound_sync"}
CENTRAL_SOURCES = frozenset(
    {"certificates", "host", "northd", "ovn_chassis", *SYNC.values(), *(source_name(db, LOCAL) for db in Database)}
)
"""On a host of databases; its peers and actives come on top."""
ACTIVE, STANDBY, THIRD = "192.0.2.11", "192.0.2.12", "192.0.2.13"
"""Hosts of databases."""


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


def certificates(*components: str, directory: str) -> tuple[CertificateFile, ...]:
    """A certificate of 90 days and an authority of ten years for each."""
    return tuple(
        CertificateFile(component=component, kind=kind, path=f"{directory}/{kind}.pem", expires=NOW + days * 86400)
        for component in components
        for kind, days in ((CertificateKind.CERTIFICATE, 90), (CertificateKind.CA, 3650))
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
            OvnController(
                version="23.03.1",
                connected=True,
                paused=False,
                txn_errors=0,
                txn_rises=(False,) * 3,
                work=controller_work(),
            ),
            READ,
        ),
        chassis_lookup=Fresh(
            ChassisLookup(system_id=SYSTEM_ID, remote=REMOTE, registered=chassis, ours=True, of_hostname=(chassis,)),
            READ,
        ),
        host=Fresh(healthy_host(), READ),
        certificates=Fresh(certificates("ovs", directory="/etc/openvswitch"), READ),
        sysfs=Fresh(Nic(pfs=(), addresses=frozenset({"0000:00:1f.0"}), processes_seen=True), READ),
        links=Fresh(Links({}), READ),
        tc=Fresh(FlowTable(), READ),
        ovs_flows=Fresh(healthy_ovs_flows(), READ),
        conntrack=Fresh(Conntrack(entries=120, limit=262_144), READ),
    )


def controller_work() -> Work:
    """Of an ovn-controller of OVN 23.03, which does not count its long turns."""
    runs = {"runtime_data": (3, 840, 0), "logical_flow_output": (3, 838, 2), "physical_flow_output": (5, 812, 0)}
    return Work(
        full_recomputes=3,
        engine={node: dict(zip(Run, numbers, strict=True)) for node, numbers in runs.items()},
        stopwatches={
            "flow-generation": Stopwatch(samples=1700, average=0.0035, p95=0.012, longest=0.31),
            "flow-installation": Stopwatch(samples=1650, average=0.0005, p95=0.002, longest=0.02),
        },
        idl_cells={"OVN_Southbound": 96_300, "Open_vSwitch": 1610},
        lflow_cache=LflowCache(enabled=True, entries=6100, size_bytes=512 << 10, trims=1),
        lflow_cache_lookups={"hit": 4200, "miss": 6900},
        cpu_seconds=7.25,
        resident_bytes=42 << 20,
    )


def northd_work() -> Work:
    """Of a northd of OVN 23.03, which makes all logical flows anew at most changes."""
    return Work(
        full_recomputes=410,
        engine={"northd": dict(zip(Run, (410, 0, 0), strict=True)), "lflow": dict(zip(Run, (410, 20, 0), strict=True))},
        stopwatches={"ovn-northd-loop": Stopwatch(samples=900, average=0.042, p95=0.09, longest=0.4)},
        idl_cells={"OVN_Northbound": 39_000, "OVN_Southbound": 96_300},
        cpu_seconds=40.5,
        resident_bytes=90 << 20,
    )


def healthy_ovs_flows() -> FlowTable:
    """Of the kernel's datapath: TCP of a VM on a tap, and ARP; the exporter may ask for no more."""
    tcp = FlowClass(path=Path.SOFTWARE, protocol=Protocol.TCP, conntrack=True, layer=Layer.KERNEL)
    arp = replace(tcp, protocol=Protocol.OTHER, conntrack=False, ordinary=False)
    return FlowTable(
        flows={tcp: 4, replace(tcp, terminal=False): 4, arp: 2},
        young={tcp: 1},
        totals={tcp: Counted(5000, 4_000_000), arp: Counted(20, 840)},
        window={tcp: Counted(600, 480_000), arp: Counted(2, 84)},
        seconds=60.0,
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


def address(db: Database, host: str) -> str:
    """Where a host's server listens for others."""
    return f"tcp:{host}:{6641 if db is NB else 6642}"


def own_socket(db: Database) -> str:
    """Where it listens on its own host."""
    return f"unix:/run/ovn/ovn{'nb' if db is NB else 'sb'}_db.sock"


def active_server(db: Database, **changes: Any) -> DatabaseServer:
    """The server that takes writes, as its own host sees it; ``changes`` are fields of DatabaseServer."""
    cfg = Globals(nb_cfg=21, nb_cfg_at=NOW - 60, sb_cfg=21, sb_cfg_at=NOW - 59.5, hv_cfg=20, hv_cfg_at=NOW - 600)
    return replace(
        DatabaseServer(
            db=db,
            server=LOCAL,
            identity=f"{db} on {ACTIVE}",
            model=Model.STANDALONE,
            connected=True,
            leader=None,
            writable=True,
            globals=cfg if db is NB else Globals(nb_cfg=21),
            replication=Replication(standby=False, active=None, connecting=False, exclude_tables=(), reopening=False),
            memory={"atoms": 240, "backlog": 0, "cells": 340, "monitors": 3, "sessions": 2},
            version="3.1.0",
            control=own_socket(db).removeprefix("unix:").replace(".sock", ".ctl"),
        ),
        **changes,
    )


def standby_server(db: Database, **changes: Any) -> DatabaseServer:
    """The server that replicates it, as its own host sees it."""
    told = Replication(standby=True, active=address(db, ACTIVE), connecting=False, exclude_tables=(), reopening=False)
    changes = {"identity": f"{db} on {STANDBY}", "writable": False, "replication": told} | changes
    return active_server(db, **changes)


def from_afar(server: DatabaseServer, host: str) -> DatabaseServer:
    """As another host sees it: by its address, and without its control socket."""
    label = address(server.db, host)
    return replace(server, server=label, replication=None, raft=None, memory={}, version=None, control=None)


def member_server(db: Database, **changes: Any) -> DatabaseServer:
    """A member of a cluster of three, and its leader."""
    hosts = {STANDBY: "5e02", THIRD: "5e03"}
    others = tuple(
        Member(server_id=sid, address=f"tcp:{host}:{6643 if db is NB else 6644}", reachable=True)
        for host, sid in hosts.items()
    )
    raft = Raft(role="leader", leader="self", term=3, cluster_id=f"{db} cluster", uncommitted=0, others=others)
    clustered = {"model": Model.CLUSTERED, "leader": True, "replication": None, "raft": raft}
    return active_server(db, **(clustered | changes))


def in_sync(db: Database, standby: str, active: str, **changes: Any) -> PairSync:
    """A standby whose content is its active's."""
    tables = ("Logical_Switch", "NB_Global") if db is NB else ("Chassis_Private", "Port_Binding", "SB_Global")
    return replace(
        PairSync(
            db=db,
            standby=standby,
            active=active,
            in_sync=True,
            last_in_sync=READ,
            rows={(table, kind): 0 for table in tables for kind in Kind},
            audited=NOW - 120,
            audit_seconds=0.4,
        ),
        **changes,
    )


def central(*servers: DatabaseServer, pairs: Iterable[PairSync] = ()) -> World:
    """A host of databases with these servers, its own among them, each of which answers; and northd."""
    by_source = {source_name(s.db, s.server): s for s in servers}
    pairs = tuple(pairs)
    syncs = {SYNC[db]: tuple(p for p in pairs if p.db is db) for db in Database}
    world = empty_world(NOW, "central-1", Settings())
    applicable = frozenset({"certificates", "host", "northd", *by_source, *(name for name, of in syncs.items() if of)})
    versions = {"kernel": "6.1.0-30-amd64", "ovn_northd": "23.03.1"}
    world = replace(
        world,
        roles=frozenset({Role.CENTRAL}),
        applicable=applicable,
        status={s: SourceStatus(last_success=READ, duration=0.004, rounds=4) for s in applicable},
        memory=Memory(
            roles=frozenset({Role.CENTRAL}),
            northd=True,
            models={source: s.model for source, s in by_source.items()},
            versions={name: Version(version=v, first_seen=NOW - 86400) for name, v in versions.items()},
        ),
        process=Process(cpu_seconds=1.5, resident_bytes=48 << 20, started=NOW - 86400, state_saved=True),
        databases={source: Fresh(s, READ) for source, s in by_source.items()},
        endpoints={
            (s.db, own_socket(s.db) if s.server == LOCAL else s.server): source for source, s in by_source.items()
        },
        northd=Fresh(
            Northd(
                version="23.03.1",
                active=True,
                paused=False,
                connected=dict.fromkeys(Database, True),
                work=northd_work(),
            ),
            READ,
        ),
        certificates=Fresh(certificates(*Database, directory="/etc/ovn"), READ),
        host=Fresh(replace(healthy_host(), signs={str(db): own_socket(db) for db in Database}), READ),
    )
    for name, of in syncs.items():
        if of:
            world = world.with_part(name, Fresh(of, READ))
    return world


def reported(nb_cfg: int = 21, *, behind: float | None = None, **changes: Any) -> Reported:
    """What a chassis that follows has reported, a second ago; ``changes`` are fields of Reported or Lag."""
    of_lag = {name: changes.pop(name) for name in ("idle", "missed", "from_start") if name in changes}
    return replace(Reported(nb_cfg=nb_cfg, at=NOW - 3, lag=Lag(behind=behind, **of_lag)), **changes)


def propagation(**changes: Any) -> Propagation:
    """Two chassis that follow, the first with a gateway; ``changes`` are fields of Propagation."""
    names = {SYSTEM_ID: (HOSTNAME, "192.0.2.1"), PEER: ("compute-2", "192.0.2.2")}
    return replace(
        Propagation(
            nb_cfg=21,
            sb_cfg=21,
            southbound=Lag(),
            chassis={
                name: ListedChassis(name=name, hostname=hostname, encaps=(("geneve", ip),))
                for name, (hostname, ip) in names.items()
            },
            reported={name: reported() for name in names},
            gateways=(Gateway(port="cr-lrp-1", chassis=SYSTEM_ID, preferred=True, window=120.0),),
            listed=1000.0,
        ),
        **changes,
    )


def leading(world: World, seen: Propagation | None = None) -> World:
    """The same World on the host of Northbound's writer or leader."""
    status = {**world.status, "ovn_chassis": SourceStatus(last_success=READ, duration=0.004, rounds=4)}
    world = replace(world, applicable=world.applicable | {"ovn_chassis"}, status=status)
    return world.with_part("ovn_chassis", Fresh(seen or propagation(), READ))


def audit(*drifts: Drift) -> NeutronAudit:
    """A hundred ports, ten of each other kind."""
    ordered = dict.fromkeys(Resource, 10) | {Resource.PORT: 100}
    return NeutronAudit(ordered=ordered, drifts=drifts)


def audited(world: World, seen: NeutronAudit) -> World:
    """The same World with credentials for OpenStack."""
    status = {**world.status, "neutron_ovn": SourceStatus(last_success=READ, duration=9.0, rounds=4)}
    world = replace(world, applicable=world.applicable | {"neutron_ovn"}, status=status)
    return world.with_part("neutron_ovn", Fresh(seen, READ))


def healthy_central() -> World:
    """The host of the actives: it asks its own servers and, as peers, their standbys; its northd works."""
    world = central(
        *(active_server(db) for db in Database),
        *(from_afar(standby_server(db), STANDBY) for db in Database),
        pairs=(in_sync(db, address(db, STANDBY), LOCAL) for db in Database),
    )
    return leading(world)


def neutron_drift() -> World:
    """A port's row was lost, and another's is of a revision that Neutron never gave it; some follow."""
    lsp = ("Logical_Switch_Port",)
    lost, frozen, *late = (f"5e9c0b5e-0000-4000-8000-{n:012}" for n in range(5))
    of_port: dict[str, Any] = {"resource": Resource.PORT, "ordered": 3, "rows": lsp, "age": 300.0}
    drifts = (
        Drift(uuid=lost, state=State.MISSING, **of_port),
        Drift(uuid=frozen, state=State.AHEAD, held=9, **of_port),
        *(Drift(uuid=uuid, state=State.BEHIND, held=2, **of_port) for uuid in late),
    )
    return audited(healthy_central(), audit(*drifts))


def healthy_standby() -> World:
    """The host of the standbys: it asks its own servers and the actives that they name; its northd stands by."""
    world = central(
        *(standby_server(db) for db in Database),
        *(from_afar(active_server(db), ACTIVE) for db in Database),
        pairs=(in_sync(db, LOCAL, address(db, ACTIVE)) for db in Database),
    )
    return replace(changed(world, "northd", active=False), hostname="central-2")


def healthy_third() -> World:
    """A host that has no servers of its own and is told of both."""
    world = central(
        *(from_afar(active_server(db), ACTIVE) for db in Database),
        *(from_afar(standby_server(db), STANDBY) for db in Database),
        pairs=(in_sync(db, address(db, STANDBY), address(db, ACTIVE)) for db in Database),
    )
    memory = replace(world.memory, northd=False)
    world = replace(world, hostname="third", memory=memory, applicable=world.applicable - {"northd"})
    return changed(world, "host", signs={}).with_part("northd", Absent("not asked yet", NOW, NOW))


def healthy_member() -> World:
    """A host whose servers are members, and leaders, of clusters of three."""
    return leading(central(*(member_server(db) for db in Database)))


def out_of_sync() -> World:
    """The actives' host again: rows of Southbound are not what its standby holds."""
    pair = in_sync(SB, address(SB, STANDBY), LOCAL)
    rows = {("Port_Binding", Kind.MISSING): 2, ("Chassis_Private", Kind.CHANGED): 1}
    examples = (
        Difference("Chassis_Private", "aaaaaaaa-0000-4000-8000-000000000001", Kind.CHANGED),
        Difference("Port_Binding", "bbbbbbbb-0000-4000-8000-000000000001", Kind.MISSING),
        Difference("Port_Binding", "bbbbbbbb-0000-4000-8000-000000000002", Kind.MISSING),
    )
    differs = replace(pair, in_sync=False, last_in_sync=NOW - 300, rows={**pair.rows, **rows}, examples=examples)
    return healthy_central().with_part(SYNC[SB], Fresh((differs,), READ))


def degraded_member() -> World:
    """One of the three members of Southbound's cluster can't be reached."""
    return with_member(healthy_member(), SB, THIRD, reachable=False)


def with_member(world: World, db: Database, host: str, *, reachable: bool | None) -> World:
    """The same World where this host's member sees another one so."""
    source = source_name(db, LOCAL)
    part: Any = world.part(source)
    others = tuple(replace(m, reachable=reachable) if host in m.address else m for m in part.value.raft.others)
    return changed(world, source, raft=replace(part.value.raft, others=others))


def told(world: World, db: Database, **fields: Any) -> World:
    """The same World where the control socket of this host's server says otherwise of its replication."""
    source = source_name(db, LOCAL)
    part: Any = world.part(source)
    return changed(world, source, replication=replace(part.value.replication, **fields))


def asked_too(world: World, server: DatabaseServer, at: str) -> World:
    """The same World where a server is asked at one more address, which is then its label."""
    source = source_name(server.db, at)
    world = replace(
        world,
        applicable=world.applicable | {source},
        status={**world.status, source: SourceStatus(last_success=READ, duration=0.004, rounds=4)},
        endpoints={**world.endpoints, (server.db, at): source},
    )
    return world.with_part(source, Fresh(replace(server, server=at, replication=None, raft=None, memory={}), READ))


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
    for source in (
        *COMPUTE_SOURCES,
        "northd",
        "ovn_chassis",
        "neutron_ovn",
        *SYNC.values(),
        *API_SOURCES - {CELL1},
        *world.databases,
        *world.cells,
    ):
        part = world.part(source)
        if isinstance(part, Fresh):
            value = part.value
            if isinstance(value, Propagation):  # whose list was read anew too
                value = replace(value, listed=value.listed - seconds)
            earlier = earlier.with_part(source, Fresh(value, part.at - seconds))
        elif part.reason is not Reason.PENDING:
            earlier = earlier.with_part(source, replace(part, at=part.at - seconds))
    return earlier


def changed(world: World, source: str, **fields: Any) -> World:
    """The same World where a source, which must be fresh, says otherwise in some fields of its value."""
    part: Any = world.part(source)
    assert isinstance(part, Fresh), f"{source} is absent"
    return world.with_part(source, Fresh(replace(part.value, **fields), part.at))


# A compute node with SR-IOV and read-only credentials: 0000:3b:00.0 has four VFs, of which guests hold two.
PF, UPLINK = "0000:3b:00.0", "ens1f0np0"
VFS = tuple(f"0000:3b:00.{n}" for n in range(2, 6))
ALICE, BOB = "a11ce000-0000-4000-8000-000000000001", "b0b00000-0000-4000-8000-000000000002"
"""Instances."""
CELL1 = "nova@cell1"
API_SOURCES = frozenset({"neutron", "placement", "security_groups", CELL1})


def vf(index: int, **changes: Any) -> Vf:
    """A VF that nobody uses; ``changes`` are fields of Vf."""
    made = Vf(address=VFS[index], index=index, driver="mlx5_core", iommu_group=40 + index, held=Held.NO)
    return replace(made, **changes)


def held_vf(index: int, guest: str, **changes: Any) -> Vf:
    """A VF that a guest holds."""
    return vf(index, **{"driver": "vfio-pci", "held": Held.YES, "holder": guest} | changes)


def nic(*vfs: Vf, **changes: Any) -> Nic:
    """One PF with these VFs."""
    pf = Pf(
        address=PF,
        driver="mlx5_core",
        iommu_group=39,
        held=Held.NO,
        devices=(UPLINK,),
        vendor="0x15b3",
        product="0x101d",
        numa_node=0,
        capacity=8,
        configured=len(vfs),
        vfs=vfs,
        speed=100_000_000_000,
        representors={v.index: f"ens1f0npf0vf{v.index}" for v in vfs},
    )
    addresses = frozenset({"0000:00:1f.0", PF, *(v.address for v in vfs)})
    return Nic(pfs=(replace(pf, **changes),), addresses=addresses, processes_seen=True)


def port(uuid: str, index: int, instance: str, **changes: Any) -> Port:
    """A port that names a VF and is in a security group that says nothing of GRE."""
    made = Port(
        uuid=uuid,
        host=HOSTNAME,
        address=VFS[index],
        instance=instance,
        vnic="direct",
        groups=("default",),
        switched=True,
    )
    return replace(made, **changes)


def device(index: int, instance: str | None = None, **changes: Any) -> PciDevice:
    """Nova's row of a VF, claimed where it has an instance."""
    made = PciDevice(
        host=HOSTNAME,
        address=VFS[index],
        parent=PF,
        kind=DeviceKind.VF,
        status="allocated" if instance else "available",
        numa_node=0,
        instance=instance,
        physical_network="physnet2" if instance else None,
    )
    return replace(made, **changes)


def instance(**changes: Any) -> Instance:
    """One that runs on this host."""
    return replace(Instance(host=HOSTNAME, vm_state="active", task_state=None), **changes)


def cell(*devices: PciDevice, **changes: Any) -> Cell:
    """A cell in which Alice and Bob run here, and nova-compute reports."""
    made = Cell(devices=devices, instances={ALICE: instance(), BOB: instance()}, up={HOSTNAME: True})
    return replace(made, **changes)


CLASS = "CUSTOM_PCI_15B3_101E"


def provider(*, total: int = 4, reserved: int = 0, used: int = 0, **changes: Any) -> Provider:
    """The PF's in Placement, of one class."""
    stock = {CLASS: Stock(total=total, reserved=reserved, used=used)}
    made = Provider(uuid="rp-1", name=f"{HOSTNAME}_{PF.upper()}", host=HOSTNAME, pf=PF, stock=stock)
    return replace(made, **changes)


def healthy_sriov() -> World:
    """All four ledgers agree: Alice and Bob have a VF each, two are free; Placement tracks them."""
    world = healthy_compute()
    return replace(
        world,
        roles=frozenset({Role.COMPUTE, Role.API}),
        applicable=world.applicable | API_SOURCES,
        status={
            **world.status,
            **{s: SourceStatus(last_success=READ, duration=0.1, rounds=3) for s in API_SOURCES},
        },
        sysfs=Fresh(nic(held_vf(0, ALICE), held_vf(1, BOB), vf(2), vf(3)), READ),
        links=Fresh(
            Links(
                {
                    PF: PfLink(
                        driver_version="5.8-1.1.2",
                        firmware_version="22.35.1012",
                        eswitch_mode="switchdev",
                        vfs={n: VfLink(mac=f"fa:16:3e:00:00:0{n}", vlan=None) for n in range(4)},
                    )
                },
                statistics={UPLINK: Counters(900, 800, 90_000, 80_000, rx_errors=1, rx_dropped=2)}
                | {f"ens1f0npf0vf{n}": Counters(400, 500, 40_000, 50_000) for n in range(2)},
                cpu_hit={f"ens1f0npf0vf{n}": Counters(4, 5, 400, 500) for n in range(2)},
                tc_offload={UPLINK: True} | {f"ens1f0npf0vf{n}": True for n in range(4)},
                uplinks=(Uplink(device=UPLINK, pf=PF, speed=100_000_000_000),),
            ),
            READ,
        ),
        neutron=Fresh((port("port-a", 0, ALICE), port("port-b", 1, BOB)), READ),
        security_groups=Fresh((), READ),
        placement=Fresh((provider(used=2),), READ),
        cells={CELL1: Fresh(cell(device(0, ALICE), device(1, BOB), device(2), device(3)), READ)},
    )


def leaked_vf() -> World:
    """Incident 3: Bob's port was detached and deleted at once; Nova never frees the VF."""
    world = changed(healthy_sriov(), "sysfs", pfs=nic(held_vf(0, ALICE), vf(1), vf(2), vf(3)).pfs)
    return world.with_part("neutron", Fresh((port("port-a", 0, ALICE),), READ))


# A compute node whose NIC is in switchdev mode, under load: Alice's and Bob's VFs by their representors in br-int.
UPLINK = "ens1f0np0"
ALICES, BOBS = "ens1f0npf0vf0", "ens1f0npf0vf1"
"""Representors."""
SECONDS = 60.0
"""Between two reads of all flows."""
GRE, TCP, UDP = Protocol.GRE, Protocol.TCP, Protocol.UDP


def flow(protocol: Protocol = TCP, *, conntrack: bool = False, **changes: Any) -> FlowClass:
    """Flows that come from VFs and are in hardware; ``changes`` are fields of FlowClass."""
    made = FlowClass(
        path=Path.HARDWARE, protocol=protocol, conntrack=conntrack, layer=Layer.TC, port_kind=PortKind.REPRESENTOR
    )
    return replace(made, **changes)


def in_tc(protocol: Protocol = TCP, *, conntrack: bool = False, **changes: Any) -> FlowClass:
    """Those that TC has and hardware does not."""
    return flow(protocol, conntrack=conntrack, **{"path": Path.SOFTWARE} | changes)


def in_kernel(protocol: Protocol = TCP, *, conntrack: bool = False, **changes: Any) -> FlowClass:
    """Those of the kernel's datapath."""
    return flow(protocol, conntrack=conntrack, **{"path": Path.SOFTWARE, "layer": Layer.KERNEL} | changes)


def table(*carried: tuple[FlowClass, int], seconds: float | None = SECONDS, young: int = 0) -> FlowTable:
    """Five flows of each class, which carry so many packets of 1,000 bytes a second, for an hour now."""
    return FlowTable(
        flows={c: 5 for c, _ in carried},
        young={c: young for c, _ in carried if young},
        totals={c: Counted(3600 * pps, 3_600_000 * pps) for c, pps in carried},
        window={c: Counted(int(pps * (seconds or 0)), int(1000 * pps * (seconds or 0))) for c, pps in carried},
        seconds=seconds,
    )


def with_flows(world: World, tc: FlowTable, ovs_flows: FlowTable) -> World:
    """The same World with these flows."""
    world = world.with_part("tc", Fresh(tc, READ)).with_part("ovs_flows", Fresh(ovs_flows, READ))
    return replace(world, software=attributed(world))


def offloading(tc: FlowTable, ovs_flows: FlowTable) -> World:
    """A node with hw-offload and a NIC in switchdev mode, with these flows."""
    world = healthy_sriov()
    world = replace(
        world,
        roles=frozenset({Role.COMPUTE}),
        applicable=COMPUTE_SOURCES,
        status={s: SourceStatus(last_success=READ, duration=0.004, rounds=4) for s in COMPUTE_SOURCES},
    )
    interfaces = (
        interface("br-int", kind=InterfaceKind.INTERNAL),
        interface(ALICES, iface_id="port-a"),
        interface(BOBS, iface_id="port-b"),
        interface("tapmetadata-0", iface_id="ovnmeta", ovn_installed=False),
        interface("ovn-peer-0", kind=InterfaceKind.TUNNEL),
        interface(UPLINK, "br-ex", InterfaceKind.UPLINK),
    )
    world = changed(world, "ovs", interfaces=interfaces, hw_offload=True)
    world = changed(world, "links", tc_offload=dict.fromkeys((UPLINK, ALICES, BOBS), True))
    conntrack = Conntrack(
        entries=5200,
        limit=262144,
        offloaded={Path.HARDWARE: 4800, Path.SOFTWARE: 0},
        gre=Gre(entries={Path.HARDWARE: 2, Path.SOFTWARE: 0}, software=Counted(), window=Counted(), seconds=SECONDS),
    )
    return with_flows(world.with_part("conntrack", Fresh(conntrack, READ)), tc, ovs_flows)


ARP = in_kernel(Protocol.OTHER, ordinary=False)
"""And all else that no hardware is to carry."""
LOAD = (
    (flow(GRE, conntrack=True), 200_000),
    (flow(TCP, conntrack=True), 300_000),
    (flow(TCP, conntrack=True, port_kind=PortKind.TUNNEL), 300_000),
    (flow(UDP, port_kind=PortKind.UPLINK), 40_000),
    # First packets of connections.
    (in_tc(TCP, conntrack=True, obstacle=Obstacle.MISSED), 9_000),
    (flow(TCP, conntrack=True, terminal=False), 0),
)


def healthy_offload() -> World:
    """Under load, with a storm of ARP, and a few connections whose first packets pass the CPU."""
    return offloading(table(*LOAD, young=1), table((ARP, 90_000), (in_kernel(UDP), 300)))


GRE_IN_KERNEL = in_kernel(GRE, conntrack=True, port=ALICES)


def gre_conntrack() -> World:
    """Incident 4: GRE with conntrack fell out of hardware; other protocols did not."""
    return offloading(
        table(*LOAD[1:]),
        table(
            (GRE_IN_KERNEL, 30_000),
            (in_kernel(GRE, conntrack=True, port=BOBS), 90),
            (in_kernel(GRE, conntrack=True, port="genev_sys_6081", port_kind=PortKind.TUNNEL), 28_000),
        ),
    )


def taps_alone() -> World:
    """A node without such a NIC and without hw-offload, whose guests talk GRE under connection tracking."""
    world = offloading(
        table(),
        table(
            (in_kernel(TCP, conntrack=True, port_kind=PortKind.OTHER), 80_000),
            (in_kernel(GRE, conntrack=True, port_kind=PortKind.OTHER, port="tapvm1"), 5_000),
            (in_kernel(GRE, conntrack=True, port_kind=PortKind.TUNNEL, port="genev_sys_6081"), 5_000),
            (in_kernel(TCP, port_kind=PortKind.UPLINK), 60_000),
        ),
    )
    world = world.with_part("ovs", Fresh(healthy_ovs(), READ)).with_part("links", Fresh(Links({}), READ))
    legacy = nic(vf(0), vf(1), representors={})
    world = world.with_part("sysfs", Fresh(legacy, READ))
    return replace(world, software=attributed(replace(world, software=type(world.software)())))
