"""OVN as one host sees it: its ovn-controller, and its own entry in the Southbound database."""

from __future__ import annotations

from dataclasses import dataclass, field

from mecexporter.state.ovn_daemon import Work


@dataclass(frozen=True, slots=True, kw_only=True)
class OvnController:
    """One answer of ovn-controller's control socket.

    Attributes:
        connected: what ``connection-status`` says; it stays true while every transaction fails.
        txn_errors: the coverage counter ``txn_error``, from 0 at the daemon's start.
        txn_rises: for up to the last four reads, oldest first, whether the counter had grown since the read before.
        work: what it does, and what that costs.
    """

    version: str | None
    connected: bool
    paused: bool
    txn_errors: int
    txn_rises: tuple[bool, ...]
    work: Work = field(default_factory=Work)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chassis:
    """A row of Southbound's Chassis with its Encaps' addresses."""

    name: str
    hostname: str
    encap_ips: tuple[str, ...]

    def may_be(self, hostname: str | None, encap_ips: tuple[str, ...]) -> bool | None:
        """Whether this can be that host: its name or an address is the same; None where there is nothing to compare."""
        if hostname is None and not encap_ips:
            return None
        same_name = hostname is not None and self.hostname.casefold() == hostname.casefold()
        return same_name or bool(set(self.encap_ips) & set(encap_ips))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChassisLookup:
    """What Southbound said when asked for one id and one hostname.

    Attributes:
        system_id: the id that was asked for.
        registered: the Chassis of that id, None if there is none.
        ours: whether that Chassis can be this host, None if it can't be told or there is none.
        of_hostname: every Chassis of this host's hostname.
    """

    system_id: str
    remote: str
    registered: Chassis | None
    ours: bool | None
    of_hostname: tuple[Chassis, ...]
