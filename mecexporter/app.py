"""The engine: keeps the World from the sources, asks the checks, remembers, and serves views of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import resource
import socket
import time
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mecexporter import roles
from mecexporter.aside import aside
from mecexporter.checks import base as checks
from mecexporter.checks.identity import remember
from mecexporter.checks.ledger import Ledger, Report
from mecexporter.checks.offload import attributed
from mecexporter.checks.offload_run import follow
from mecexporter.errors import NOBODY, MecExporterError, Reason
from mecexporter.metrics.registry import View
from mecexporter.sources.base import Supervisor
from mecexporter.sources.certificates import CertificatesSource, Daemon
from mecexporter.sources.chassis_lookup import ChassisLookupSource
from mecexporter.sources.conntrack import ConntrackSource
from mecexporter.sources.host import HostPaths, HostSource
from mecexporter.sources.links import LinksSource
from mecexporter.sources.neutron import NeutronSource
from mecexporter.sources.neutron_ovn import NeutronOvnSource
from mecexporter.sources.northd import NorthdSource
from mecexporter.sources.nova import NovaSource
from mecexporter.sources.openflow import OpenFlowSource
from mecexporter.sources.ovn_chassis import OvnChassisSource
from mecexporter.sources.ovn_controller import OvnControllerSource
from mecexporter.sources.ovn_db import Found, OvnDatabaseSource
from mecexporter.sources.ovn_db_sync import Audits, OvnDatabaseSyncSource
from mecexporter.sources.ovs import OvsSource
from mecexporter.sources.ovs_flows import OvsFlowsSource
from mecexporter.sources.placement import PlacementSource
from mecexporter.sources.security_groups import SecurityGroupsSource
from mecexporter.sources.sysfs import SysfsPaths, SysfsSource
from mecexporter.sources.tc import TcSource
from mecexporter.sources.vswitchd import VswitchdSource
from mecexporter.sources.wire.cloud import Cloud
from mecexporter.sources.wire.endpoint import Endpoint, TlsFiles
from mecexporter.state.central import servers
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.ovn_db import LOCAL, Database
from mecexporter.state.world import Process, Settings, Version, empty_world
from mecexporter.store import Saved, forget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mecexporter.config import Config, Northbound, Southbound
    from mecexporter.sources.base import Source
    from mecexporter.state.observed import Observed
    from mecexporter.state.world import Memory, SourceStatus, World
    from mecexporter.store import Store

log = logging.getLogger(__name__)

_TICK = 1.0  # seconds between looks while some grace runs
_IDLE_TICK = 5.0
_SAVE_EVERY = 2.0
_SAVED_FOR = 300.0
_SAVE_AT_END = 2.0


def make_clock() -> Callable[[], float]:
    """Unix time now, and from then on the monotonic clock's pace."""
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()


def settings(config: Config) -> Settings:
    """What checks need of the configuration."""
    return Settings(
        system_id_policy=config.ovs.system_id_policy,
        shared_hostnames=frozenset(config.ovn.shared_hostnames),
        grace_identity=config.grace.identity,
        grace_bridge=config.grace.bridge,
        grace_no_writer=config.grace.no_writer,
        grace_propagation=config.grace.propagation,
        grace_vf_drift=config.grace.vf_drift,
        grace_neutron_behind=config.grace.neutron_behind,
        device_mappings={net: tuple(devices) for net, devices in config.sriov.device_mappings.items()},
        offload_ratio_low=config.offload.ratio_low,
        offload_min_pps=config.offload.min_pps,
        offload_target=config.offload.target,
        maintenance_hosts=frozenset(host.casefold() for host in config.maintenance.hosts),
        findings_limit=config.findings.limit,
        disabled_checks=frozenset(config.checks.disable),
        disabled_sources=frozenset(config.sources.disable),
    )


def make_sources(config: Config) -> tuple[Source[Any], ...]:
    """Every source that is not disabled; whether it applies is asked of the World."""
    live, ovs, ovn = config.intervals.live, config.ovs, config.ovn
    every: list[Source[Any]] = [
        HostSource(
            HostPaths(
                proc=Path(config.host.proc),
                system_id_file=Path(ovs.system_id_file),
                override_file=Path(ovs.system_id_override_file or "/etc/system-id-override"),
                ovn_run_dir=Path(ovn.run_dir),
                signs=roles.signs(config),
            ),
            live,
        ),
        _certificates_source(config),
        OvsSource(ovs.database, ovs.integration_bridge, live),
        VswitchdSource(Path(ovs.run_dir), _path(ovs.vswitchd_control), live, proc=Path(config.host.proc)),
        OpenFlowSource(Path(ovs.run_dir), live),
        OvnControllerSource(Path(ovn.run_dir), _path(ovn.controller_control), live, proc=Path(config.host.proc)),
        NorthdSource(Path(ovn.run_dir), _path(ovn.northd_control), live, proc=Path(config.host.proc)),
        *_database_sources(config, Database.NORTHBOUND, ovn.northbound),
        *_database_sources(config, Database.SOUTHBOUND, ovn.southbound),
        OvnChassisSource(
            tls=_tls(config), interval=live, stale=config.grace.chassis_stale, keep=config.grace.propagation
        ),
        SysfsSource(SysfsPaths(sysfs=Path(config.host.sysfs), proc=Path(config.host.proc)), live),
        LinksSource(live, ovs="ovs" not in config.sources.disable),
        TcSource(config.intervals.flows),
        OvsFlowsSource(Path(ovs.run_dir), _path(ovs.vswitchd_control), config.intervals.flows),
        ConntrackSource(Path(config.host.proc), Path(config.host.sysfs), config.intervals.flows),
        *_openstack_sources(config),
    ]
    if ovn.chassis_lookup.enabled:
        lookup, again = ovn.chassis_lookup.interval, live
        every.append(ChassisLookupSource(ovn.southbound.given, _tls(config), interval=lookup, again=again))
    return tuple(s for s in every if s.name not in config.sources.disable)


def _certificates_source(config: Config) -> CertificatesSource:
    """Those of whoever of them is here."""
    ovn, run_dir = config.ovn, Path(config.ovn.run_dir)
    daemons = [
        Daemon(component="ovs", table=(Endpoint.parse(config.ovs.database), "Open_vSwitch")),
        Daemon(component="ovn", program="ovn-controller", pidfile=run_dir / "ovn-controller.pid"),
        Daemon(component="ovn_northd", program="ovn-northd", pidfile=run_dir / "ovn-northd.pid"),
    ]
    for db, section, stem in (
        (Database.NORTHBOUND, ovn.northbound, "ovnnb_db"),
        (Database.SOUTHBOUND, ovn.southbound, "ovnsb_db"),
    ):
        if local := _local(section.database):
            table, pidfile = (Endpoint.parse(local), str(db)), run_dir / f"{stem}.pid"
            daemons.append(Daemon(component=db, program="ovsdb-server", pidfile=pidfile, table=table))
    return CertificatesSource(
        own=_tls(config), daemons=tuple(daemons), proc=Path(config.host.proc), interval=config.intervals.audit
    )


def _openstack_sources(config: Config) -> Iterator[Source[Any]]:
    """What is asked of OpenStack, where there are credentials."""
    interval, every_host = config.intervals.openstack, config.openstack.scope == "all"
    if config.openstack.cloud:
        cloud = Cloud(config.openstack.cloud)
        classes = frozenset(config.openstack.resource_classes)
        yield NeutronSource(cloud, every_host=every_host, interval=interval)
        yield SecurityGroupsSource(cloud, interval=interval)
        yield NeutronOvnSource(cloud, tls=_tls(config), interval=interval)
        yield PlacementSource(cloud, every_host=every_host, classes=classes, interval=interval)
    for cell, url in config.nova.cells.items():
        down_after = config.nova.service_down_time
        yield NovaSource(cell, url, every_host=every_host, interval=interval, down_after=down_after)


def _database_sources(config: Config, db: Database, section: Northbound | Southbound) -> Iterator[Source[Any]]:
    """The servers that are configured, each once, and what holds standbys against their actives."""
    usual = section == type(section)()
    own, others = _parts(section.database), (part for peer in section.peers for part in _parts(peer))
    local = _local(section.database)
    seen: set[Endpoint] = set()
    for text in (*own, *others):
        endpoint = Endpoint.parse(text)
        if endpoint in seen:
            continue
        seen.add(endpoint)
        is_local = text == local
        yield OvnDatabaseSource(
            db,
            LOCAL if is_local else text,
            endpoint,
            control=Path(section.control) if is_local else None,
            tls=_tls(config),
            interval=config.intervals.live,
            found=Found.USUAL if usual else Found.CONFIGURED,
        )
    audit = config.ovn.audit
    yield OvnDatabaseSyncSource(
        db,
        tls=_tls(config),
        interval=config.intervals.live,
        audits=Audits(
            every=config.intervals.audit,
            window=audit.window.seconds if audit.window else None,
            grace=config.grace.db_sync,
            left_out=frozenset(section.exclude_tables),
            flows=audit.logical_flows,
        ),
    )


def _local(connections: str) -> str | None:
    """This host's own server."""
    return next((text for text in _parts(connections) if text.startswith("unix:")), None)


def _parts(connections: str) -> list[str]:
    return [part.strip() for part in connections.split(",")]


def named_sources(world: World, config: Config) -> Iterator[Source[Any]]:
    """Of the actives that standbys name, those that are not asked yet."""
    for db in Database:
        for s in servers(world, db):
            active = s.replication.active if s.replication is not None else None
            if active is None or (db, active) in world.endpoints:
                continue
            with contextlib.suppress(ValueError):  # an address of no known form: the check says so
                endpoint = Endpoint.parse(active)
                live = config.intervals.live
                yield OvnDatabaseSource(
                    db, active, endpoint, control=None, tls=_tls(config), interval=live, found=Found.NAMED
                )


def _tls(config: Config) -> TlsFiles | None:
    tls = config.ovn.tls
    if not (tls.private_key and tls.certificate and tls.ca_certificate):
        return None
    return TlsFiles(Path(tls.private_key), Path(tls.certificate), Path(tls.ca_certificate))


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


class Engine:
    """One node's exporter, without its listeners; the web layer's Site.

    Args:
        config: the configuration.
        store: where what must outlive a restart is kept.
        saved: what was kept there.
        read_only: never write to the store.
    """

    def __init__(self, config: Config, store: Store, saved: Saved, *, read_only: bool = False) -> None:
        self._config = config
        self._store = store
        self._read_only = read_only
        self._clock = make_clock()
        self._started = time.time()
        self._state_saved = True
        now = self._clock()
        self._sources: dict[str, Source[Any]] = {}
        self._supervisors: dict[str, Supervisor[Any]] = {}
        self._group: asyncio.TaskGroup | None = None  # while it runs
        self._chance = random.Random()  # noqa: S311  # jitter is no secret
        self._checks = checks.discover()
        self._ledger = Ledger(saved.findings, now)
        memory = saved.memory()
        known = config.host.hostname or (memory.identity and memory.identity.hostname) or socket.gethostname()
        self._world = replace(empty_world(now, known, settings(config)), memory=memory, process=self._process())
        self._report = Report()
        self._open: set[tuple[str, str]] = set()
        self._changed = asyncio.Event()
        self._ready = False
        self._sampled = now
        for source in make_sources(config):
            self._add(source)
        self._evaluate()

    def _add(self, source: Source[Any]) -> None:
        """One more source to ask; a server of a database brings its place in the World."""
        self._sources[source.name] = source
        if isinstance(source, OvnDatabaseSource):
            pending = Absent("not asked yet", self._world.now, self._world.now)
            known = {**self._world.endpoints, (source.db, str(source.endpoint)): source.name}
            self._world = replace(self._world.with_part(source.name, pending), endpoints=MappingProxyType(known))
        if isinstance(source, NovaSource):
            self._world = self._world.with_part(source.name, Absent("not asked yet", self._world.now, self._world.now))
        supervisor = self._supervisors[source.name] = Supervisor(
            source,
            world=lambda: self._world,
            publish=self._publish,
            wanted=self._wanted(source),
            clock=self._clock,
            chance=self._chance,
            awaited=self._read_only,
        )
        if self._group is not None:
            self._group.create_task(supervisor.run(), name=f"source {source.name}")

    def view(self) -> View:
        """The World now; an answer that has become too old since the last look is no answer."""
        if self._too_old(self._clock()):
            self._evaluate()
        return View(self._world, self._report)

    def ready(self) -> bool:
        """Whether every source that is asked has ended its first round, and what they told has been looked at."""
        if not self._ready:
            asked = [s.name for s in self._sources.values() if self._wanted(s)(self._world)]
            self._ready = not self._changed.is_set() and all(name in self._world.status for name in asked)
        return self._ready

    async def forget(self, what: str) -> None:
        """Drop from memory, and from the store.

        Raises:
            MecExporterError: there is no such thing, or the store can't be written.
        """
        kept = forget(self._saved(), what)
        self._world = replace(self._world, memory=kept.memory())
        self._evaluate()
        await aside(self._store.save, self._saved())

    async def run(self) -> None:
        """Keep everything current until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for s in self._supervisors.values():
                    group.create_task(s.run(), name=f"source {s.source.name}")
                group.create_task(self._look(), name="checks")
                if not self._read_only:
                    group.create_task(self._keep(), name="store")
        finally:
            if not self._read_only:
                with contextlib.suppress(TimeoutError):  # a file system that hangs must not keep us from ending
                    async with asyncio.timeout(_SAVE_AT_END):
                        await aside(self._save, self._saved())

    def _wanted(self, source: Source[Any]) -> Callable[[World], bool]:
        """Whether a source is to be asked: where it applies, and where roles are told by what it says."""
        tells_roles = self._config.roles == "auto" and source.name == "ovs"
        return lambda world: tells_roles or self._applies(source, world)

    def _applies(self, source: Source[Any], world: World) -> bool:
        has_role = not source.roles or bool(source.roles & world.roles)
        return has_role and self._sources.keys() >= set(source.needs) and source.configured(world)

    def _publish(self, source: Source[Any], outcome: Observed[Any], status: SourceStatus) -> None:
        before = self._world.part(source.name)
        if isinstance(outcome, Absent) and (
            isinstance(before, Fresh) or (before.reason, before.why) != (outcome.reason, outcome.why)
        ):
            level = logging.WARNING if source.name in self._world.applicable else logging.DEBUG
            log.log(level, "source lost", extra={"source": source.name, "reason": outcome.reason, "why": outcome.why})
        elif isinstance(outcome, Fresh) and isinstance(before, Absent):
            log.info("source answers", extra={"source": source.name})
        known = MappingProxyType({**self._world.status, source.name: status})
        self._world = replace(self._world.with_part(source.name, outcome), status=known)
        self._changed.set()

    async def _look(self) -> None:
        while True:
            memory = self._world.memory
            proving = memory.healthy_id is not None and (
                memory.identity is None or memory.identity.system_id != memory.healthy_id
            )
            waiting = self._report.pending or proving
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK if waiting else _IDLE_TICK):
                    await self._changed.wait()
            # What several sources publish in one go is looked at once.
            await asyncio.sleep(0.02)
            self._sample()
            self._evaluate()
            self._log_findings()

    def _too_old(self, now: float) -> list[str]:
        """Sources that were silent for too long since they answered, or since it was seen that nobody is there."""
        return [
            name
            for name, source in self._sources.items()
            if now - (part := self._world.part(name)).at > source.lifetime
            and (isinstance(part, Fresh) or (part.reason in NOBODY and not source.shared))
        ]

    def _evaluate(self) -> None:
        """Ask all checks of the World as it is now."""
        self._changed.clear()
        now = self._clock()
        world = replace(self._world, now=now, skew=self._skew(now))
        for name in self._too_old(now):
            part = world.part(name)
            if isinstance(part, Fresh):
                old = Absent(f"the last answer is {now - part.at:.0f} s old", part.at, now, Reason.STALE)
            else:  # a call is under way that gets no answer: whoever is there now is not known not to be
                old = Absent(f"{part.why}, {now - part.at:.0f} s ago; silent since", part.since, now, Reason.TIMEOUT)
            log.warning("source lost", extra={"source": name, "reason": old.reason, "why": old.why})
            world = world.with_part(name, old)
        world = replace(world, hostname=self._hostname(world))
        world = replace(world, roles=roles.in_force(world, self._config))
        world = replace(world, applicable=frozenset(n for n, s in self._sources.items() if self._applies(s, world)))
        for name, source in self._sources.items():
            if isinstance(world.part(name), Fresh) and not self._wanted(source)(world):
                world = world.with_part(name, Absent("not asked on this node", now, now))  # its role was forgotten
        memory = self._remember(world)
        if memory.roles != world.memory.roles:
            world = replace(world, memory=memory, roles=roles.in_force(world, self._config))
        self._world = replace(world, memory=memory, software=attributed(world))
        for source in named_sources(self._world, self._config):
            if source.name not in self._config.sources.disable:
                self._add(source)
        self._report = self._ledger.advance(self._checks, self._world)
        for s in self._supervisors.values():
            s.poke(self._world)
        for c in self._checks:
            if c.name in self._report.again:
                for name in c.names(self._world):
                    self._supervisors[name].again()

    def _remember(self, world: World) -> Memory:
        memory = remember(world)
        if self._config.roles == "auto":
            memory = replace(memory, roles=memory.roles | roles.found(world, self._config))
        if isinstance(world.host, Fresh) and "northd" in world.host.value.signs:
            memory = replace(memory, northd=True)
        models = {name: seen.value.model for name, seen in world.databases.items() if isinstance(seen, Fresh)}
        if not models.items() <= memory.models.items():
            memory = replace(memory, models=MappingProxyType({**memory.models, **models}))
        if (run := follow(world)) is not memory.offload:
            memory = replace(memory, offload=run)
        if isinstance(world.ovn_chassis, Fresh) and (stale := world.ovn_chassis.value.stale) != memory.stale_chassis:
            memory = replace(memory, stale_chassis=MappingProxyType(stale))
        versions = {
            component: version
            for component, version in world.versions().items()
            if component not in memory.versions or memory.versions[component].version != version
        }
        if versions:
            when = now_unix(world)
            seen = {c: Version(version=v, first_seen=when) for c, v in versions.items()}
            for component, version in versions.items():
                if component in memory.versions:
                    was = memory.versions[component].version
                    log.warning("version changed", extra={"component": component, "was": was, "now": version})
            memory = replace(memory, versions=MappingProxyType({**memory.versions, **seen}))
        if memory.identity != world.memory.identity and memory.identity is not None:
            log.info("identity remembered", extra={"system_id": memory.identity.system_id})
        return memory

    def _hostname(self, world: World) -> str:
        """As configured, else as Open vSwitch has it or last had it, else as the kernel has it."""
        if not self._config.host.hostname and isinstance(world.ovs, Fresh) and world.ovs.value.hostname:
            return world.ovs.value.hostname
        return world.hostname

    def _skew(self, now: float) -> float:
        skew = time.time() - now
        return float(round(skew)) if abs(skew) > 1 else 0.0

    def _sample(self) -> None:
        """Look at ourselves, at the pace of live reads and never in a scrape."""
        now = self._clock()
        if now - self._sampled >= self._config.intervals.live:
            self._sampled = now
            self._world = replace(self._world, process=self._process())

    def _process(self) -> Process | None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        try:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return None
        return Process(
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            resident_bytes=pages * os.sysconf("SC_PAGE_SIZE"),
            started=self._started,
            state_saved=self._state_saved,
        )

    def _log_findings(self) -> None:
        """One line when a finding opens, one when it closes; what can't be told now is neither."""
        now = {(f.check, f.subject): f for found in self._report.findings.values() for f in found}
        for key, f in now.items():
            if key not in self._open:
                extra = {"check": f.check, "severity": f.severity, "subject": f.subject, "summary": f.summary}
                log.warning("finding opened", extra=extra)
        for check, subject in self._open - now.keys():
            if check not in self._report.unknown:
                log.info("finding closed", extra={"check": check, "subject": subject})
        self._open = {key for key in self._open if key[0] in self._report.unknown} | now.keys()

    def _saved(self) -> Saved:
        skew = self._world.skew
        first_seen = self._ledger.first_seen()
        return Saved.of(
            self._world.memory,
            {check: {s: round(t + skew, 3) for s, t in subjects.items()} for check, subjects in first_seen.items()},
        )

    async def _keep(self) -> None:
        looked = self._clock()
        while True:
            await asyncio.sleep(_SAVE_EVERY)
            # What has not changed is saved too now and then: somebody may have deleted it.
            if not self._store.holds(saved := self._saved()) or self._clock() - looked > _SAVED_FOR:
                await aside(self._save, saved)
                looked = self._clock()

    def _save(self, saved: Saved) -> None:
        try:
            self._store.save(saved)
        except MecExporterError as error:
            if self._state_saved:
                log.warning("state is not saved", extra={"why": str(error)})
            self._state_saved = False
        else:
            self._state_saved = True


def now_unix(world: World) -> float:
    """The moment of a World as Unix time."""
    return world.now + world.skew
