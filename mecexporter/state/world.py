"""The one immutable picture that every check and collector reads."""

from __future__ import annotations

import re
from collections.abc import Mapping  # noqa: TC003  # the state file is read into Identity by its types
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mecexporter.state.datapath import Software
from mecexporter.state.observed import Absent, Fresh, Observed
from mecexporter.state.ovn_db import Model  # noqa: TC001  # as Mapping

if TYPE_CHECKING:
    from mecexporter.errors import Reason
    from mecexporter.state.datapath import Conntrack, FlowTable
    from mecexporter.state.host import HostFacts
    from mecexporter.state.neutron_ovn import NeutronAudit
    from mecexporter.state.openstack import Cell, Port, Provider, SecurityGroup
    from mecexporter.state.ovn import ChassisLookup, OvnController
    from mecexporter.state.ovn_db import Database, DatabaseServer, Northd, PairSync
    from mecexporter.state.ovs import BridgeFlows, OffloadRun, OvsConf, Vswitchd
    from mecexporter.state.propagation import Propagation
    from mecexporter.state.sriov import Links, Nic
    from mecexporter.state.tls import CertificateFile


ENCAPSULATION = ("ovn-encap-ip", "ovn-encap-type")
"""The external_ids without which ovn-controller calls itself connected and writes nothing."""

_MARKS_INSTALLED = (21, 3)  # OVN's NEWS of that release

CELL = "nova@"
"""What the names of the sources that read Nova's cells begin with (contract)."""


class Role(StrEnum):
    """What a node does for the cloud."""

    COMPUTE = "compute"
    CENTRAL = "central"
    API = "api"


class SystemIdPolicy(StrEnum):
    """Whether the next start takes the id from system-id.conf: found out, yes, or no."""

    AUTO = "auto"
    FILE = "file"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an operator may set of how the World is judged (durations in seconds).

    Attributes:
        device_mappings: physical network -> the PFs' netdevs that lead to it.
        offload_ratio_low: share of packets in hardware that is too small.
        offload_min_pps: packets a second under which no share is judged.
        offload_target: bits a second that a server is to carry.
        maintenance_hosts: hostnames of chassis that may be behind, case-folded.
    """

    system_id_policy: SystemIdPolicy = SystemIdPolicy.AUTO
    shared_hostnames: frozenset[str] = frozenset()
    grace_identity: float = 120.0
    grace_bridge: float = 30.0
    grace_no_writer: float = 30.0
    grace_propagation: float = 60.0
    grace_vf_drift: float = 60.0
    grace_neutron_behind: float = 720.0
    device_mappings: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    offload_ratio_low: float = 0.8
    offload_min_pps: float = 1000.0
    offload_target: float = 40e9
    maintenance_hosts: frozenset[str] = frozenset()
    findings_limit: int = 100
    disabled_checks: frozenset[str] = frozenset()
    disabled_sources: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStatus:
    """How a source fares; counters run from the exporter's start.

    Attributes:
        last_success: when it last answered, None if never.
        duration: seconds that the last read took.
        errors: reason -> how many reads failed so.
        rounds: reads that ended, well or badly.
    """

    last_success: float | None = None
    duration: float | None = None
    errors: Mapping[Reason, int] = field(default_factory=lambda: MappingProxyType({}))
    rounds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The id under which this node was last healthy, and what it was told then (to put it back).

    Attributes:
        origin: where the id came from: ``commandline``, ``override`` or ``ovsdb``.
        since: Unix time at which it was remembered.
        settings: external_ids of Open_vSwitch that ovn-controller reads, see :class:`mecexporter.state.ovs.OvsConf`.
    """

    system_id: str
    origin: str
    since: float
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def hostname(self) -> str | None:
        """external_ids:hostname as it was then."""
        return self.settings.get("hostname")


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A component's version and when the exporter first saw it (Unix seconds)."""

    version: str
    first_seen: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What outlives a restart (state_dir), but for the last two: a running proof of health.

    Attributes:
        nb_cfg_seen_under: the id under which br-int last carried an ovn-nb-cfg.
        id_file_seen: whether system-id.conf was ever there.
        models: source of a database server -> the model that it last had.
        offload: what was seen of the ovs-vswitchd that was looked at last.
        stale_chassis: name -> nb_cfg, of the chassis that were stale when that was last told.
        healthy_id: the id that all signs have agreed on without a break since healthy_since.
    """

    roles: frozenset[Role] = frozenset()
    northd: bool = False
    identity: Identity | None = None
    nb_cfg_seen_under: str | None = None
    id_file_seen: bool = False
    versions: Mapping[str, Version] = field(default_factory=lambda: MappingProxyType({}))
    models: Mapping[str, Model] = field(default_factory=lambda: MappingProxyType({}))
    offload: OffloadRun | None = None
    stale_chassis: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    healthy_id: str | None = None
    healthy_since: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """The exporter itself; ``started`` is Unix time."""

    cpu_seconds: float
    resident_bytes: int
    started: float
    state_saved: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everything known now.

    Attributes:
        now: the exporter's clock, seconds: Unix time at start, then the monotonic clock. No step of the system's
            clock changes an age.
        skew: what to add to such a time to have today's Unix time (0 unless the system's clock was stepped).
        hostname: the name of this host in findings and labels.
        applicable: the sources that belong to this node's roles and are configured.
        status: by source.
        databases: the servers of OVN's databases, by source.
        cells: Nova's cell databases, by source.
        endpoints: (database, address) -> the source that asks there.
        identities: source of a database's server -> the identity of whoever answered it last, in this process.
        software: what software carried, by why; follows from ``tc`` and ``ovs_flows``.
    """

    now: float
    skew: float = 0.0
    hostname: str
    settings: Settings
    roles: frozenset[Role] = frozenset()
    applicable: frozenset[str] = frozenset()
    status: Mapping[str, SourceStatus] = field(default_factory=lambda: MappingProxyType({}))
    memory: Memory = Memory()
    process: Process | None = None
    ovs: Observed[OvsConf]
    vswitchd: Observed[Vswitchd]
    openflow: Observed[BridgeFlows]
    ovn_controller: Observed[OvnController]
    chassis_lookup: Observed[ChassisLookup]
    host: Observed[HostFacts]
    certificates: Observed[tuple[CertificateFile, ...]]
    northd: Observed[Northd]
    ovn_northbound_sync: Observed[tuple[PairSync, ...]]
    ovn_southbound_sync: Observed[tuple[PairSync, ...]]
    ovn_chassis: Observed[Propagation]
    neutron_ovn: Observed[NeutronAudit]
    sysfs: Observed[Nic]
    links: Observed[Links]
    tc: Observed[FlowTable]
    ovs_flows: Observed[FlowTable]
    conntrack: Observed[Conntrack]
    neutron: Observed[tuple[Port, ...]]
    security_groups: Observed[tuple[SecurityGroup, ...]]
    placement: Observed[tuple[Provider, ...]]
    cells: Mapping[str, Observed[Cell]] = field(default_factory=lambda: MappingProxyType({}))
    databases: Mapping[str, Observed[DatabaseServer]] = field(default_factory=lambda: MappingProxyType({}))
    endpoints: Mapping[tuple[Database, str], str] = field(default_factory=lambda: MappingProxyType({}))
    identities: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    software: Software = field(default_factory=Software)

    def part(self, source: str) -> Observed[Any]:
        """What a source last said; its name is the field's, or a key of ``cells`` or ``databases``."""
        if source.startswith(CELL):
            return self.cells[source]
        if "@" in source:
            return self.databases[source]
        value: Observed[Any] | object = getattr(self, source)
        if not isinstance(value, (Fresh, Absent)):
            raise KeyError(source)
        return value

    def with_part(self, source: str, outcome: Observed[Any]) -> World:
        """The same World with what a source said last."""
        if source.startswith(CELL):
            return replace(self, cells=MappingProxyType({**self.cells, source: outcome}))
        if "@" in source:
            world = replace(self, databases=MappingProxyType({**self.databases, source: outcome}))
            if isinstance(outcome, Fresh) and self.identities.get(source) != outcome.value.identity:
                known = {**self.identities, source: outcome.value.identity}
                world = replace(world, identities=MappingProxyType(known))
            return world
        self.part(source)
        return replace(self, **{source: outcome})  # type: ignore[arg-type]  # part() knows that it is a source's field

    def versions(self) -> Mapping[str, str]:
        """Component -> version, of what is fresh now; ``ovn`` is ovn-controller."""
        found: dict[str, str | None] = {}
        if isinstance(self.host, Fresh):
            found["kernel"] = self.host.value.kernel
        if isinstance(self.ovs, Fresh):
            found["ovs_schema"] = self.ovs.value.schema_version
        if isinstance(self.vswitchd, Fresh):
            found["ovs"] = self.vswitchd.value.version
        if isinstance(self.ovn_controller, Fresh):
            found["ovn"] = self.ovn_controller.value.version
        if isinstance(self.northd, Fresh):
            found["ovn_northd"] = self.northd.value.version
        if isinstance(self.sysfs, Fresh) and isinstance(self.links, Fresh):
            for pf in self.sysfs.value.pfs:
                if (link := self.links.value.pfs.get(pf.address)) is not None:
                    found[f"driver {pf.driver}"] = link.driver_version
                    found[f"firmware {pf.address}"] = link.firmware_version
        return {component: version for component, version in found.items() if version}

    def marks_installed(self) -> bool:
        """Whether ovn-controller marks the interfaces that it has installed, by ``ovn-installed``: since OVN 21.03.

        As far as is known: it bears one, or the release that runs here, or did last, is of those that do.
        """
        if isinstance(self.ovs, Fresh) and any(i.ovn_installed for i in self.ovs.value.interfaces):
            return True
        last = self.memory.versions.get("ovn")
        version = self.versions().get("ovn", last.version if last else "")
        numbers = re.match(r"(\d+)\.(\d+)", version)
        return numbers is not None and tuple(map(int, numbers.groups())) >= _MARKS_INSTALLED


def empty_world(now: float, hostname: str, settings: Settings) -> World:
    """A World before the first answer of any source."""
    nothing = Absent("not asked yet", now, now)
    return World(
        now=now,
        hostname=hostname,
        settings=settings,
        ovs=nothing,
        vswitchd=nothing,
        openflow=nothing,
        ovn_controller=nothing,
        chassis_lookup=nothing,
        host=nothing,
        certificates=nothing,
        northd=nothing,
        ovn_northbound_sync=nothing,
        ovn_southbound_sync=nothing,
        ovn_chassis=nothing,
        neutron_ovn=nothing,
        sysfs=nothing,
        links=nothing,
        tc=nothing,
        ovs_flows=nothing,
        conntrack=nothing,
        neutron=nothing,
        security_groups=nothing,
        placement=nothing,
    )
