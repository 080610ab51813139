"""How far a change has come: from Northbound to Southbound, and from there to every chassis; and the gateways' claims.

Seconds here are by the exporter's monotonic clock, at the moment of the read: no clock of another host, and no step of
this one's, makes a delay or hides one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mecexporter.state.world import Settings

FLAPPING = 5
"""Moves of a gateway port within :attr:`Gateway.window` that are a claim storm. A rolling restart makes two."""
STORMY = 2
"""Reads within it, that saw the port claimed again and again, which are one too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """How one follows a number that rises.

    Attributes:
        behind: for how many seconds it has lacked a value that was there to be followed; None if it lacks none.
        idle: for how many seconds it has made no progress, since it was first seen at most.
        missed: how often the number has risen since it last made progress.
        from_start: whether it has lacked that value since the first look at all: for how long is not known.
    """

    behind: float | None = None
    idle: float = 0.0
    missed: int = 0
    from_start: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedChassis:
    """A row of Southbound's Chassis (ovn-sb(5)).

    Attributes:
        hostname: empty where there is none, as of a Chassis_Private whose Chassis is gone.
        encaps: type and IP address of each.
        remote: of another OVN deployment, written here by ovn-ic: it reports nothing here.
        registered: False where only a Chassis_Private is left of it, which holds hv_cfg back all the same.
    """

    name: str
    hostname: str
    encaps: tuple[tuple[str, str], ...] = ()
    remote: bool = False
    registered: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What a chassis last reported.

    Attributes:
        nb_cfg: 0 if nothing yet.
        at: when, as Unix time by its own clock; None if never, and before OVN had it.
        stale: whether it made no progress for grace.chassis_stale over two or more rises, or did not when that was
            last told.
    """

    nb_cfg: int
    at: float | None
    lag: Lag
    stale: bool = False


class GatewayState(StrEnum):
    """Of a gateway port: on its preferred chassis (or whichever, where there is no preference), on none, on another."""

    CLAIMED = "claimed"
    UNCLAIMED = "unclaimed"
    NOT_PREFERRED = "not_preferred"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A Port_Binding of type chassisredirect.

    Attributes:
        chassis: who has claimed it, None if nobody has.
        preferred: whether that is the one of highest priority; None where no priorities are known.
        moves: how often another chassis was seen to have it.
        storms: how many reads saw its row change again and again within two seconds.
        window: seconds within which these were.
    """

    port: str
    chassis: str | None
    preferred: bool | None = None
    moves: int = 0
    storms: int = 0
    window: float = 0.0

    @property
    def flaps(self) -> bool:
        """Whether it is in a claim storm."""
        return self.moves >= FLAPPING or self.storms >= STORMY

    @property
    def state(self) -> GatewayState:
        """One of three."""
        if self.chassis is None:
            return GatewayState.UNCLAIMED
        return GatewayState.NOT_PREFERRED if self.preferred is False else GatewayState.CLAIMED


@dataclass(frozen=True, slots=True, kw_only=True)
class Propagation:
    """One look at a site.

    Attributes:
        nb_cfg: Northbound's number.
        sb_cfg: Southbound's.
        southbound: how Southbound follows Northbound.
        chassis: by name.
        reported: by name; a chassis without reports (remote, or a VTEP gateway) is not there.
        sharing: chassis that have a hostname in common, see :func:`sharing_hostname`.
        listed: when the list of chassis was read, as its order: a greater one is another read.
    """

    nb_cfg: int
    sb_cfg: int
    southbound: Lag
    chassis: Mapping[str, ListedChassis] = field(default_factory=lambda: MappingProxyType({}))
    reported: Mapping[str, Reported] = field(default_factory=lambda: MappingProxyType({}))
    sharing: Mapping[str, tuple[ListedChassis, ...]] = field(default_factory=lambda: MappingProxyType({}))
    gateways: tuple[Gateway, ...] = ()
    listed: float = 0.0

    @property
    def stale(self) -> dict[str, int]:
        """Name -> number, of the chassis that are stale."""
        return {name: r.nb_cfg for name, r in self.reported.items() if r.stale}

    def judged(self, settings: Settings, which: Callable[[Reported], bool]) -> Iterator[tuple[ListedChassis, Reported]]:
        """Of the chassis that must follow (they report, and are not in maintenance) those whose report is so."""
        for name, reported in self.reported.items():
            if which(reported):
                chassis = self.chassis[name]
                if chassis.hostname.casefold() not in settings.maintenance_hosts:
                    yield chassis, reported


def sharing_hostname(chassis: Mapping[str, ListedChassis]) -> dict[str, tuple[ListedChassis, ...]]:
    """Of the chassis that have a hostname in common, case-folded: those by it, in the order of their names."""
    found: dict[str, list[ListedChassis]] = {}
    for name in sorted(chassis):
        each = chassis[name]
        if each.hostname and each.registered and not each.remote:
            found.setdefault(each.hostname.casefold(), []).append(each)
    return {hostname: tuple(of) for hostname, of in found.items() if len(of) > 1}
