"""What Nova, Neutron and the NIC have written down of each PCI function, put side by side and judged.

A function is claimed (N: Nova's cell database gives it to an instance), named by a port (P: Neutron's binding) and
held by a guest (G: vfio-pci, or a port's macvtap). N, P and G together are well, and so is none of them; each other
combination is one kind of drift, or normal life of an instance that is stopped, moved or changed right now.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from mecexporter.checks.base import Finding, Unknown, asked
from mecexporter.state.observed import Fresh
from mecexporter.state.openstack import DeviceKind
from mecexporter.state.sriov import Held
from mecexporter.state.world import CELL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from mecexporter.checks.base import Verdict
    from mecexporter.state.openstack import Cell, Instance, PciDevice, Port
    from mecexporter.state.sriov import Function, Nic
    from mecexporter.state.world import World

T = TypeVar("T")

_NOT_HERE = frozenset({"removed", "deleted"})
"""Statuses of rows whose device Nova itself knows to be gone."""
_NO_VFIO = frozenset({"macvtap", "vdpa", "virtio-forwarder"})
"""vnic types whose guests hold no VFIO group."""
_CYBORGS = "accelerator-"
"""vnic types whose devices are Cyborg's: their ports name them and Nova has no claim."""

_SECOND_READ = 10.0
"""Seconds after the first read, at least, that the second one is made (contract)."""


class Unjudged(StrEnum):
    """Why nothing is said of a host's functions; the ``reason`` label."""

    DOWN = "down"  # its nova-compute has ceased to report, or was forced down
    NOT_REPORTING = "not_reporting"  # it never reported into this database, or nobody does there
    NO_SERVICE = "no_service"  # a record names it, and no cell has a nova-compute of this name


class Drift(StrEnum):
    """How ledgers disagree about a function; the ``kind`` label."""

    LEAKED = "leaked"
    PORTLESS = "portless"
    UNRECORDED = "unrecorded"
    DOUBLE_BOOKED = "double_booked"
    ORPHAN_PORT = "orphan_port"
    INVENTORY = "inventory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One PCI function of one host with all that is recorded of it.

    Attributes:
        host: as this node calls itself, or as Nova calls another one.
        pf: the address of its PF, its own if it is one, '' where nobody knows.
        rows: Nova's, of whatever status.
        function: the NIC's own record.
        instances: those that it names, as far as Nova has them.
        up: whether the host's nova-compute reports, as far as Nova is asked.
    """

    host: str
    address: str
    pf: str = ""
    rows: tuple[PciDevice, ...] = ()
    ports: tuple[Port, ...] = ()
    function: Function | None = None
    instances: Mapping[str, Instance] = field(default_factory=dict)
    up: bool = False

    @property
    def subject(self) -> str:
        """Of findings (contract)."""
        return f"{self.host}/{self.address}"

    @property
    def name(self) -> str:
        """In words."""
        return f"PF {self.address}" if self.address == self.pf else f"VF {self.address} of PF {self.pf or 'unknown'}"

    @property
    def claims(self) -> tuple[PciDevice, ...]:
        """Nova's rows that give it to an instance."""
        return tuple(row for row in self.rows if row.claimed)

    @property
    def named(self) -> tuple[Port, ...]:
        """The ports that say something of now.

        One whose instance is nowhere (shelved and offloaded), or not yet anywhere, keeps the address that it had when
        it last ran: Nova leaves its binding, and gives the device to others meanwhile.
        """
        return tuple(port for port in self.ports if not self._nowhere(port))

    def _nowhere(self, port: Port) -> bool:
        instance = self.instances.get(port.instance)
        if instance is None or any(claim.instance == port.instance for claim in self.claims):
            return False
        return instance.host is None or instance.vm_state == "building"

    @property
    def held(self) -> bool:
        """Whether a guest holds it, on the weaker evidence too."""
        return self.function is not None and self.function.held in (Held.YES, Held.BOUND)

    @property
    def weak(self) -> str:
        """What to say where the evidence that a guest holds it is the weaker one."""
        if self.function is None or self.function.held is not Held.BOUND:
            return ""
        return " (bound to vfio-pci; which process has it open can't be seen from here)"


class Said(NamedTuple):
    """A drift in words."""

    summary: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledgers:
    """The ledgers that a verdict is made of; None: not configured here, or silent.

    Attributes:
        host: the one that the NIC's ledger is of.
    """

    host: str
    cells: tuple[Cell, ...] | None
    ports: tuple[Port, ...] | None
    nic: Nic | None


def judge(case: Case, ledgers: Ledgers) -> Drift | None:
    """The verdict of the contract's table about one function, None where all is well or nothing can be said."""
    if _unsettled(case, ledgers):
        return None
    claims, ports = case.claims, case.named
    owners = {str(c.instance) for c in claims} | ({p.instance for p in ports} if claims else set())
    if len(owners) > 1 or len({p.uuid for p in ports}) > 1:
        return Drift.DOUBLE_BOOKED
    if ledgers.cells is not None:
        if _lacks(case, ledgers):
            return Drift.INVENTORY
        if not claims and case.held:
            return Drift.UNRECORDED
        if ledgers.ports is not None:
            return _claim_against_port(case)
    return None


def _claim_against_port(case: Case) -> Drift | None:
    if case.claims and not case.named:
        return Drift.PORTLESS if case.held else Drift.LEAKED
    if case.named and not case.claims:
        return Drift.ORPHAN_PORT
    return Drift.ORPHAN_PORT if case.named and _should_be_held(case) else None


def _unsettled(case: Case, ledgers: Ledgers) -> bool:
    """Whether what it looks like now may be normal life, or belongs to a flavour and not to Neutron."""
    if ledgers.cells is not None and not case.up:
        return True
    if any(row.flavour for row in case.claims) or any(port.vnic.startswith(_CYBORGS) for port in case.ports):
        return True
    return any(i.task_state or i.moving or case.address in i.context for i in case.instances.values())


def _lacks(case: Case, ledgers: Ledgers) -> bool:
    """Whether Nova counts on a VF that this host has not; that of a PF that a guest has as a whole is hidden."""
    if ledgers.nic is None or case.host.casefold() != ledgers.host.casefold() or case.address in ledgers.nic.addresses:
        return False
    return any(row.kind is DeviceKind.VF and row.status not in _NOT_HERE for row in case.rows)


def _should_be_held(case: Case) -> bool:
    """Whether its instance runs on this host, undisturbed, and yet the NIC shows that no guest has it."""
    if case.function is None or case.function.held is not Held.NO or any(p.vnic in _NO_VFIO for p in case.named):
        return False
    instance = case.instances.get(case.named[0].instance)
    if instance is None or instance.host is None:
        return False
    return instance.vm_state == "active" and instance.host.casefold() == case.host.casefold()


def cases(ledgers: Ledgers) -> Iterator[Case]:
    """Every function that somebody claims, names, holds or lacks; free ones are of no interest."""
    devices = [row for cell in ledgers.cells or () for row in cell.devices]
    instances = {uuid: i for cell in ledgers.cells or () for uuid, i in cell.instances.items()}
    up = {host for host, reports in _reports(ledgers).items() if reports}
    own = ledgers.host.casefold()
    functions = {f.address: f for pf in (ledgers.nic.pfs if ledgers.nic else ()) for f in (pf, *pf.vfs)}
    pfs = {f.address: pf.address for pf in (ledgers.nic.pfs if ledgers.nic else ()) for f in (pf, *pf.vfs)}
    given = {(row.host.casefold(), row.address) for row in devices if row.kind is DeviceKind.PF and row.claimed}
    rows = _grouped(devices, lambda row: (row.host.casefold(), row.address))
    hosts = hosts_of_ports(ledgers)
    ports = _grouped(ledgers.ports or (), lambda port: (hosts[port.host], port.address))
    interesting = {key for key, of in rows.items() if any(row.claimed for row in of)} | ports.keys()
    if ledgers.nic is not None:
        interesting |= {(own, f.address) for f in functions.values() if f.held in (Held.YES, Held.BOUND)}
        interesting |= {key for key in rows if key[0] == own and key[1] not in ledgers.nic.addresses}
    for key in sorted(interesting):
        host, address = key
        # A PF that a guest has as a whole takes its VFs along.
        of = tuple(r for r in rows.get(key, ()) if r.claimed or (host, r.parent) not in given)
        named = tuple(ports.get(key, ()))
        function = functions.get(address) if host == own else None
        spelling = (*(row.host for row in of), *(port.host for port in named), host)
        parents = (pfs.get(address) if host == own else None, *(row.parent or row.address for row in of))
        holder = function.holder if function is not None else None
        uuids = {uuid for uuid in (*(r.instance for r in of), *(p.instance for p in named), holder) if uuid}
        yield Case(
            host=ledgers.host if host == own else spelling[0],
            address=address,
            pf=next((parent for parent in parents if parent), ""),
            rows=of,
            ports=named,
            function=function,
            instances={uuid: instances[uuid] for uuid in sorted(uuids) if uuid in instances},
            up=host in up,
        )


def unjudged(ledgers: Ledgers) -> dict[str, Unjudged]:
    """The hosts with VFs of which nothing is said, in lower case; none where Nova is not asked."""
    if ledgers.cells is None:
        return {}
    hosts = {row.host.casefold() for cell in ledgers.cells for row in cell.devices if row.status not in _NOT_HERE}
    hosts |= set(hosts_of_ports(ledgers).values())
    if ledgers.nic is not None and ledgers.nic.pfs:
        hosts.add(ledgers.host.casefold())
    reports = _reports(ledgers)
    reasons = {False: Unjudged.DOWN, None: Unjudged.NOT_REPORTING}
    return {
        host: reasons[reports[host]] if host in reports else Unjudged.NO_SERVICE
        for host in sorted(hosts)
        if not reports.get(host)
    }


def hosts_of_ports(ledgers: Ledgers) -> dict[str, str]:
    """Neutron's name of each host -> that by which records of it are joined: Nova's, in lower case.

    One that Nova has no nova-compute of is another spelling, with or without the domain, where it fits one host alone.
    """
    services: dict[str, set[str]] = {}
    for service in _reports(ledgers):
        services.setdefault(service.partition(".")[0], set()).add(service)
    out: dict[str, str] = {}
    for name in {port.host for port in ledgers.ports or ()}:
        host = name.casefold()
        alike = services.get(host.partition(".")[0], set())
        others = [s for s in alike if s.startswith(f"{host}.") or host.startswith(f"{s}.")]
        out[name] = others[0] if host not in alike and len(others) == 1 else host
    return out


def _reports(ledgers: Ledgers) -> dict[str, bool | None]:
    """Host in lower case -> whether its nova-compute reports; a row left behind in another cell says nothing of it."""
    out: dict[str, bool | None] = {}
    for cell in ledgers.cells or ():
        for host, up in cell.up.items():
            known = out.get(host.casefold())
            out[host.casefold()] = known or up if up is not None else known
    return out


def _grouped(things: Iterable[T], key: Callable[[T], tuple[str, str]]) -> dict[tuple[str, str], list[T]]:
    out: dict[tuple[str, str], list[T]] = {}
    for thing in things:
        out.setdefault(key(thing), []).append(thing)
    return out


def ledgers_of(world: World) -> Ledgers:
    """Those of this node that answer; of the cells all must."""
    cells = [world.cells[name] for name in asked(world, CELL)]
    fresh = tuple(cell.value for cell in cells if isinstance(cell, Fresh))
    neutron = world.neutron if "neutron" in world.applicable else None
    sysfs = world.sysfs if "sysfs" in world.applicable else None
    return Ledgers(
        host=world.hostname,
        cells=fresh if cells and len(fresh) == len(cells) else None,
        ports=neutron.value if isinstance(neutron, Fresh) else None,
        nic=sysfs.value if isinstance(sysfs, Fresh) else None,
    )


_latest: list[tuple[tuple[object, ...], dict[Drift, tuple[Case, ...]]]] = []


def drifts(world: World) -> Mapping[Drift, tuple[Case, ...]]:
    """All cases by verdict; made once for all checks that ask of the same answers."""
    ledgers = ledgers_of(world)
    parts: tuple[object, ...] = (ledgers.host, *(ledgers.cells or (None,)), ledgers.ports, ledgers.nic)
    before = _latest[0][0] if _latest else ()
    if len(parts) != len(before) or any(now is not was and now != was for now, was in zip(parts, before, strict=True)):
        found: dict[Drift, list[Case]] = {}
        for case in cases(ledgers):
            if (verdict := judge(case, ledgers)) is not None:
                found.setdefault(verdict, []).append(case)
        _latest[:] = [(parts, {kind: tuple(of) for kind, of in found.items()})]
    return _latest[0][1]


def silent(world: World, sources: tuple[str, ...]) -> tuple[str, ...]:
    """Of the sources those that are asked here and do not answer, or have nothing to say of this host."""
    names = [name for source in sources for name in asked(world, source)]
    lost = tuple(name for name in names if not isinstance(world.part(name), Fresh))
    cells = [world.cells[name] for name in names if name in world.cells]
    told = [cell.value for cell in cells if isinstance(cell, Fresh)]
    # With no host in any cell, ports that name devices tell that the hosts are in another database.
    ports = ledgers_of(world).ports
    asked_of_any = bool(ports) or any(cell.asked_for is not None or cell.up or cell.devices for cell in told)
    if asked_of_any and not any(cell.tells for cell in told):
        return (*lost, *(name for name in names if name in world.cells and name not in lost))
    return lost


def finding(world: World, subject: str, said: Said, sources: tuple[str, ...], hold: float = 0.0) -> Finding:
    """A drift that is believed once every ledger that it was read from has been read twice, grace apart."""
    parts = (world.part(name) for source in sources for name in asked(world, source))
    return Finding(
        subject=subject,
        summary=said.summary,
        remedy=said.remedy,
        hold=max(world.settings.grace_vf_drift, _SECOND_READ, hold),
        reads=2,
        read_at=tuple(part.at for part in parts),
    )


def verdict(world: World, kind: Drift, sources: tuple[str, ...], say: Callable[[Case], Said]) -> Verdict:
    """The findings of one kind.

    Args:
        world: the World.
        kind: which drift.
        sources: the ledgers by their sources, of which those that apply here must answer.
        say: summary and remedy of a case.
    """
    if missing := silent(world, sources):
        return Unknown(missing)
    return tuple(finding(world, case.subject, say(case), sources) for case in drifts(world).get(kind, ()))
