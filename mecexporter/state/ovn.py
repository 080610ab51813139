"""OVN as one host sees it: its ovn-controller, and its own entry in the Southbound database."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class OvnController:
    """One answer of ovn-controller's control socket.

    Attributes:
        connected: what ``connection-status`` says; it stays true while every transaction fails.
        txn_errors: the coverage counter ``txn_error``, from 0 at the daemon's start.
        txn_rises: for up to the last four reads, oldest first, whether the counter had grown since the read before.
    """

    version: str | None
    connected: bool
    paused: bool
    txn_errors: int
    txn_rises: tuple[bool, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chassis:
    """A row of Southbound's Chassis with its Encaps' addresses."""

    name: str
    hostname: str
    encap_ips: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChassisLookup:
    """What Southbound said when asked for one id and one hostname.

    Attributes:
        system_id: the id that was asked for.
        hostname: the hostname that was asked for, as external_ids:hostname spells it.
        registered: the Chassis of that id, None if there is none.
        of_hostname: every Chassis of that hostname.
    """

    system_id: str
    hostname: str | None
    remote: str
    registered: Chassis | None
    of_hostname: tuple[Chassis, ...]
