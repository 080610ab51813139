"""The VFs of each PF in each ledger, the claims one by one, and where ledgers disagree."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mecexporter.checks.vfs import Drift, Unjudged, drifts, hosts_of_ports, ledgers_of, unjudged
from mecexporter.metrics.collectors.sriov import use_of
from mecexporter.metrics.registry import collector
from mecexporter.metrics.spec import Kind, Metric, Stability
from mecexporter.state.observed import Fresh
from mecexporter.state.openstack import DeviceKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.checks.vfs import Ledgers
    from mecexporter.metrics.registry import View
    from mecexporter.metrics.spec import Sample
    from mecexporter.state.openstack import Provider

LEDGER = Metric(
    name="mec_vf_ledger",
    help="VFs of the PF by what a ledger says of them: claimed, free, unavailable, or not_tracked by this ledger.",
    labels=("hostname", "pf", "ledger", "state"),
    stability=Stability.STABLE,
)
CLAIM = Metric(
    name="mec_vf_claim_info",
    help="A VF that a record of Nova's or Neutron's gives to an instance.",
    kind=Kind.INFO,
    labels=("hostname", "pf", "pci_address", "ledger"),
    stability=Stability.STABLE,
)
FLAVOUR = Metric(
    name="mec_vf_flavour_claim_info",
    help="A VF that Nova gave to an instance by its flavour's alias: no port belongs to it.",
    kind=Kind.INFO,
    labels=("hostname", "pf", "pci_address"),
)
DRIFT = Metric(
    name="mec_vf_drift",
    help="Functions of the PF about which ledgers disagree, by kind; absent while that can't be told, or nothing is"
    " said of the host (see mec_vf_hosts_unjudged).",
    labels=("hostname", "pf", "kind"),
    stability=Stability.STABLE,
)
UNJUDGED = Metric(
    name="mec_vf_hosts_unjudged",
    help="Hosts with VFs of which the checks of VFs say nothing: their nova-compute is down, or is not_reporting into"
    " Nova's database at all (another servicegroup_driver), or there is no_service of that name.",
    labels=("reason",),
)

_CHECKS = {
    "vf_leaked": Drift.LEAKED,
    "vf_portless": Drift.PORTLESS,
    "vf_unrecorded": Drift.UNRECORDED,
    "vf_double_booked": Drift.DOUBLE_BOOKED,
    "vf_orphan_port": Drift.ORPHAN_PORT,
    "vf_inventory_mismatch": Drift.INVENTORY,
}
_FREE_IN_NOVA = "available"
_GONE_IN_NOVA = frozenset({"removed", "deleted"})

_Pf = tuple[str, str]
"""Host and the PF's address."""


class _Map:
    """Which PF each address of each host belongs to, as far as a ledger knows.

    Attributes:
        sizes: PF -> how many VFs the NIC or, of other hosts, Nova knows of it.
    """

    def __init__(self, ledgers: Ledgers) -> None:
        self._names = {ledgers.host.casefold(): ledgers.host}
        self._of_ports = hosts_of_ports(ledgers)
        self._parents: dict[tuple[str, str], str] = {}
        self.sizes: Counter[_Pf] = Counter()
        for row in (row for cell in ledgers.cells or () for row in cell.devices):
            self._names.setdefault(row.host.casefold(), row.host)
        for cell in ledgers.cells or ():
            for row in cell.devices:
                self._parents[row.host.casefold(), row.address] = row.parent or row.address
                if row.kind is not DeviceKind.PF and row.parent and row.status not in _GONE_IN_NOVA:
                    self.sizes[self.host(row.host), row.parent] += 1
        for pf in ledgers.nic.pfs if ledgers.nic else ():
            self.sizes[ledgers.host, pf.address] = pf.configured
            for function in (pf, *pf.vfs):
                self._parents[ledgers.host.casefold(), function.address] = pf.address

    def host(self, name: str) -> str:
        """In one spelling for all records of it: this node's own, where it is this node, else Nova's."""
        joined = self._of_ports.get(name, name.casefold())
        return self._names.get(joined, name)

    def pf(self, host: str, address: str) -> str:
        """'' where nobody knows."""
        return self._parents.get((host.casefold(), address), "")


@collector(
    LEDGER,
    CLAIM,
    FLAVOUR,
    DRIFT,
    UNJUDGED,
    reads=lambda v: (
        v.world.sysfs,
        v.world.neutron,
        v.world.placement,
        v.world.cells,
        v.world.hostname,
        v.world.applicable,
        v.report.findings,
    ),
)
def vf_ledgers(view: View) -> Iterator[Sample]:
    """Each ledger that answers."""
    ledgers = ledgers_of(view.world)
    known = _Map(ledgers)
    counts = Counter[tuple[str, str, str, str]]()
    for pf in ledgers.nic.pfs if ledgers.nic else ():
        of = Counter(use_of(vf) for vf in pf.vfs)
        for state, use in (("claimed", "guest"), ("free", "free"), ("unavailable", "host")):
            counts[ledgers.host, pf.address, "nic", state] = of[use]
    if ledgers.cells is not None:
        yield from _nova(ledgers, known, counts)
    if ledgers.ports is not None:
        for pf_key in known.sizes:
            counts[(*pf_key, "neutron", "claimed")] = 0
        hosts = ((port, known.host(port.host)) for port in ledgers.ports)
        claims = {(host, known.pf(host, port.address), port.address) for port, host in hosts}
        for host, address, vf in sorted(claims):
            if address and vf != address:
                counts[host, address, "neutron", "claimed"] += 1
            yield CLAIM(1, hostname=host, pf=address, pci_address=vf, ledger="neutron")
    tracked: set[_Pf] = set()
    if "placement" in view.world.applicable and isinstance(view.world.placement, Fresh):
        tracked = _placement(view.world.placement.value, known, counts)
    for (host, address, ledger, state), count in counts.items():
        yield LEDGER(count, hostname=host, pf=address, ledger=ledger, state=state)
    left_out = unjudged(ledgers)
    if ledgers.cells is not None:
        for reason in Unjudged:
            yield UNJUDGED(sum(why is reason for why in left_out.values()), reason=reason)
    judged = {pf for pf in (*known.sizes, *tracked) if pf[0].casefold() not in left_out}
    yield from _drift(view, known, judged)


def _nova(ledgers: Ledgers, known: _Map, counts: Counter[tuple[str, str, str, str]]) -> Iterator[Sample]:
    claims: set[tuple[str, str, str, bool]] = set()
    for cell in ledgers.cells or ():
        for row in cell.devices:
            if row.status in _GONE_IN_NOVA:
                continue
            host, address = known.host(row.host), known.pf(row.host, row.address)
            if row.claimed:
                claims.add((host, address, row.address, row.flavour))
            if row.kind is not DeviceKind.PF:
                for state in ("claimed", "free", "unavailable"):
                    counts[host, address, "nova", state] += 0
                state = "claimed" if row.claimed else "free" if row.status == _FREE_IN_NOVA else "unavailable"
                counts[host, address, "nova", state] += 1
    for host, address, vf, flavour in sorted(claims):
        yield CLAIM(1, hostname=host, pf=address, pci_address=vf, ledger="nova")
        if flavour:
            yield FLAVOUR(1, hostname=host, pf=address, pci_address=vf)


def _placement(providers: tuple[Provider, ...], known: _Map, counts: Counter[tuple[str, str, str, str]]) -> set[_Pf]:
    """The PFs that are tracked. A provider bears the hypervisor's hostname, which may be the host's with its domain."""
    hosts = {host.casefold(): host for host, _ in known.sizes}
    tracked: set[_Pf] = set()
    for provider in providers:
        full = provider.host.casefold()
        host = hosts.get(full) or hosts.get(full.partition(".")[0]) or provider.host
        tracked.add((host, provider.pf or ""))
        for one in provider.stock.values():
            counts[host, provider.pf or "", "placement", "claimed"] += one.used
            counts[host, provider.pf or "", "placement", "unavailable"] += one.reserved
            counts[host, provider.pf or "", "placement", "free"] += max(0, one.total - one.reserved - one.used)
    for pf, size in known.sizes.items():
        if pf not in tracked:
            counts[(*pf, "placement", "not_tracked")] = size
    return tracked


def _drift(view: View, known: _Map, of_pfs: set[_Pf]) -> Iterator[Sample]:
    """What is reported, by PF; 0 for each PF where the check can tell and has nothing to say."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for name, kind in _CHECKS.items():
        if name not in view.report.findings:
            continue
        for pf_key in sorted(of_pfs):
            counts[(*pf_key, kind)] = 0
        pfs = {case.subject: (case.host, case.pf) for case in drifts(view.world).get(kind, ())}
        for found in view.report.findings[name]:
            host, _, address = found.subject.rpartition("/")
            of = pfs.get(found.subject, (host, known.pf(host, address) or address))
            counts[(*of, kind)] += 1
    for (host, pf, drift), count in counts.items():
        yield DRIFT(count, hostname=host, pf=pf, kind=drift)
