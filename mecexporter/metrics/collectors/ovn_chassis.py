"""How far a change has come: each chassis by what it reports, all of them by state, and the gateways."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING

from mecexporter.metrics.registry import collector
from mecexporter.metrics.spec import Kind, Metric, Stability
from mecexporter.state.observed import Fresh
from mecexporter.state.propagation import GatewayState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.metrics.registry import View
    from mecexporter.metrics.spec import Sample
    from mecexporter.state.propagation import ListedChassis, Propagation
    from mecexporter.state.world import Settings


class ChassisState(StrEnum):
    """Of a chassis; each is in one."""

    CURRENT = "current"
    BEHIND = "behind"
    STALLED = "stalled"
    STALE = "stale"
    MAINTENANCE = "maintenance"
    REMOTE = "remote"
    SILENT = "silent"


INFO = Metric(
    name="mec_ovn_chassis_info",
    help="A chassis that Southbound lists; several encapsulations are separated by commas.",
    kind=Kind.INFO,
    labels=("chassis", "hostname", "encap_type", "encap_ip"),
    stability=Stability.STABLE,
)
NB_CFG = Metric(
    name="mec_ovn_chassis_nb_cfg",
    help="The nb_cfg that a chassis has carried through, 0 if none yet; from Northbound's writer or leader only.",
    labels=("chassis", "hostname"),
    stability=Stability.STABLE,
)
NB_CFG_AT = Metric(
    name="mec_ovn_chassis_nb_cfg_timestamp_seconds",
    help="When it reported that, as Unix time by its own clock.",
    labels=("chassis", "hostname"),
    stability=Stability.STABLE,
)
STATE = Metric(
    name="mec_ovn_chassis_state",
    help=(
        "Chassis by state: current; behind, and stalled for longer than grace.propagation; stale for longer than"
        " grace.chassis_stale; maintenance; remote (another deployment's); silent (makes no reports, as VTEPs)."
    ),
    labels=("state",),
)
CHASSIS_BEHIND = Metric(
    name="mec_ovn_chassis_behind_seconds",
    help=(
        "For how long the chassis that is furthest behind (stale and maintenance left out) has lacked a value of nb_cfg"
        " that Southbound had, as seen from here; 0 where none lacks any."
    ),
)
SB_BEHIND = Metric(
    name="mec_ovn_sb_behind_seconds",
    help=(
        "For how long Southbound has lacked a value of nb_cfg that Northbound had, as seen from here; 0 where it lacks"
        " none."
    ),
)
GATEWAYS = Metric(
    name="mec_ovn_gateway_ports",
    help=(
        "Ports of type chassisredirect by state, each in one: claimed by the preferred chassis (or any, where none is"
        " preferred), unclaimed, or claimed by another (not_preferred)."
    ),
    labels=("state",),
    stability=Stability.STABLE,
)


def _seen(view: View) -> Propagation | None:
    seen = view.world.ovn_chassis
    return seen.value if "ovn_chassis" in view.world.applicable and isinstance(seen, Fresh) else None


def _list(view: View) -> object:
    """What the list is made of; read anew it may well be the same."""
    seen = _seen(view)
    return seen.chassis if seen is not None else None


@collector(INFO, reads=lambda v: (_list(v),))
def ovn_chassis_list(view: View) -> Iterator[Sample]:
    """Apart from what changes at each read."""
    seen = _seen(view)
    for c in seen.chassis.values() if seen is not None else ():
        types, addresses = zip(*c.encaps, strict=True) if c.encaps else ((), ())
        labels = {"encap_type": ",".join(types), "encap_ip": ",".join(addresses)}
        yield INFO(1, chassis=c.name, hostname=c.hostname, **labels)


@collector(NB_CFG, NB_CFG_AT, reads=lambda v: (v.world.ovn_chassis, v.world.applicable))
def ovn_chassis_reports(view: View) -> Iterator[Sample]:
    """Of those that report."""
    seen = _seen(view)
    if seen is None:
        return
    for name, reported in seen.reported.items():
        hostname = seen.chassis[name].hostname
        yield NB_CFG(reported.nb_cfg, chassis=name, hostname=hostname)
        if reported.at is not None:
            yield NB_CFG_AT(reported.at, chassis=name, hostname=hostname)


@collector(
    STATE,
    SB_BEHIND,
    CHASSIS_BEHIND,
    GATEWAYS,
    reads=lambda v: (v.world.ovn_chassis, v.world.applicable, v.world.settings),
)
def ovn_chassis_states(view: View) -> Iterator[Sample]:
    """Numbers of each kind, 0 included."""
    seen = _seen(view)
    if seen is None:
        return
    states = {name: _state(seen, c, view.world.settings) for name, c in seen.chassis.items()}
    numbers = Counter(states.values())
    for state in ChassisState:
        yield STATE(numbers[state], state=state)
    following = (ChassisState.BEHIND, ChassisState.STALLED)
    yield SB_BEHIND(seen.southbound.behind or 0)
    yield CHASSIS_BEHIND(
        max((seen.reported[name].lag.behind or 0.0 for name, state in states.items() if state in following), default=0)
    )
    gateways = Counter(g.state for g in seen.gateways)
    for gateway_state in GatewayState:
        yield GATEWAYS(gateways[gateway_state], state=gateway_state)


def _state(seen: Propagation, chassis: ListedChassis, settings: Settings) -> ChassisState:
    if chassis.remote:
        return ChassisState.REMOTE
    if chassis.hostname.casefold() in settings.maintenance_hosts:
        return ChassisState.MAINTENANCE
    reported = seen.reported.get(chassis.name)
    if reported is None:
        return ChassisState.SILENT
    if reported.stale:
        return ChassisState.STALE
    if reported.lag.behind is None:
        return ChassisState.CURRENT
    return ChassisState.STALLED if reported.lag.behind > settings.grace_propagation else ChassisState.BEHIND
