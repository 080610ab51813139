"""The configuration file: what may be set, its defaults, and errors that name key and place."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from mecexporter.state.world import Role, SystemIdPolicy
from mecexporter.yamlfile import YamlFile

SHORTEST_INTERVAL = 1.0
_SOURCE = re.compile(
    "ovs|vswitchd|openflow|ovn_controller|chassis_lookup|host|northd|ovn_(?:north|south)bound_sync|ovn_chassis|sysfs|links|tc|ovs_flows|conntrack|neutron|neutron_ovn|security_groups|placement"
    "|OVN_(North|South)bound@.+|nova@.+"
)
_DATABASE = re.compile(
    r"(?:mysql|mariadb)(?:\+\w+)?://(?:[^@]*@)?[^@/?]*/[^@?]+(?:\?[^@=]+=.*)?|sqlite:///.+", re.DOTALL
)
"""SQLAlchemy's URLs: what precedes the first @ is user and password, and all that follows is shown in errors."""
_URL = "want a SQLAlchemy URL, such as mysql+pymysql://USER:PASSWORD@HOST/nova_cell1"
_AT = f"more than one @: {_URL}; an @ in USER or PASSWORD is written %40"
_CONNECTION = re.compile(r"unix:/.*|(?:tcp|ssl):(?:\[[^\[\]\s]+\]|[^\[\]:,\s]+)(?::(?P<port>\d{1,5}))?")
_Wrong: TypeAlias = "tuple[list[str | int], str]"
_CLOCK = r"(?:[01]\d|2[0-3]):[0-5]\d"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_RATES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def _digits(number: float) -> str:
    """Without an exponent, which the file's notation has not."""
    return f"{number:.6f}".rstrip("0").rstrip(".")


class Window(str):
    """Hours of the day, local time, written ``01:00-05:30``; may go over midnight."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object) -> Window:
        """Raises ValueError."""
        if not isinstance(text, str) or not re.fullmatch(rf"{_CLOCK}-{_CLOCK}", text):
            raise ValueError(f"{text!r} is no window: want two times of the day, such as 01:00-05:30")
        return cls(text)

    @property
    def seconds(self) -> tuple[float, float]:
        """Begin and end, from midnight."""
        begin, end = (60.0 * (60 * int(t[:2]) + int(t[3:])) for t in self.split("-"))
        return begin, end


class Duration(float):
    """Seconds, written ``15s``, ``500ms``, ``2m``, ``1h``, ``1d``."""

    @classmethod
    def parse(cls, text: object) -> Duration:
        """Raises ValueError."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text) if isinstance(text, str) else None
        if found is None:
            raise ValueError(f"{text!r} is no duration: want a number with ms, s, m, h or d, such as 15s")
        return cls(float(found[1]) * _UNITS[found[2]])

    def __str__(self) -> str:
        for unit, seconds in reversed(_UNITS.items()):
            if self and self % seconds == 0:
                return f"{_digits(self / seconds)}{unit}"
        return f"{_digits(self)}s"


class Rate(float):
    """Bits a second, written ``40Gbps``."""

    @classmethod
    def parse(cls, text: object) -> Rate:
        """Raises ValueError."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([kMGT]?)bps", text) if isinstance(text, str) else None
        if found is None:
            raise ValueError(f"{text!r} is no rate: want a number with bps, kbps, Mbps, Gbps or Tbps")
        return cls(float(found[1]) * _RATES[found[2]])

    def __str__(self) -> str:
        for unit, size in reversed(_RATES.items()):
            if self and self % size == 0:
                return f"{_digits(self / size)}{unit}bps"
        return f"{_digits(self)}bps"


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mapping of the file; a key that is not here is refused."""


class Web(_Section, frozen=True):
    """HTTP."""

    listen: str = "0.0.0.0:9746"  # an exporter is there to be scraped (contract)
    web_config: str | None = None
    local_socket: str | None = "/run/mecexporter/api.sock"


class Intervals(_Section, frozen=True):
    """How often is asked."""

    live: Duration = Duration(15)
    audit: Duration = Duration(300)
    flows: Duration = Duration(60)
    openstack: Duration = Duration(300)


class Ovs(_Section, frozen=True):
    """Open vSwitch on this host."""

    database: str = "unix:/run/openvswitch/db.sock"
    run_dir: str = "/run/openvswitch"
    vswitchd_control: str | None = None
    system_id_file: str = "/etc/openvswitch/system-id.conf"
    system_id_override_file: str | None = None
    system_id_policy: SystemIdPolicy = SystemIdPolicy.AUTO
    integration_bridge: str | None = None


class Northbound(_Section, frozen=True):
    """The Northbound database."""

    database: str = "unix:/run/ovn/ovnnb_db.sock"
    control: str = "/run/ovn/ovnnb_db.ctl"
    peers: list[str] = []
    exclude_tables: list[str] = []


class Southbound(_Section, frozen=True):
    """The Southbound database."""

    database: str = "unix:/run/ovn/ovnsb_db.sock"
    control: str = "/run/ovn/ovnsb_db.ctl"
    peers: list[str] = []
    exclude_tables: list[str] = []

    @property
    def given(self) -> str | None:
        """The connection if it is another than the usual one, which a compute node has not."""
        return None if self.database == Southbound().database else self.database


class Tls(_Section, frozen=True):
    """Files for ``ssl:`` connections to OVN's databases: all or none."""

    private_key: str | None = None
    certificate: str | None = None
    ca_certificate: str | None = None


class ChassisLookup(_Section, frozen=True):
    """A compute node's small read of Southbound."""

    enabled: bool = True
    interval: Duration = Duration(1800)


class Audit(_Section, frozen=True):
    """How a standby's whole content is held against its active's, each intervals.audit."""

    window: Window | None = None
    logical_flows: bool = False


class Ovn(_Section, frozen=True):
    """OVN."""

    run_dir: str = "/run/ovn"
    controller_control: str | None = None
    northd_control: str | None = None
    northbound: Northbound = Northbound()
    southbound: Southbound = Southbound()
    tls: Tls = Tls()
    audit: Audit = Audit()
    chassis_lookup: ChassisLookup = ChassisLookup()
    shared_hostnames: list[str] = []


class Host(_Section, frozen=True):
    """This host."""

    sysfs: str = "/sys"
    proc: str = "/proc"
    state_dir: str = "/var/lib/mecexporter"
    hostname: str | None = None


class OpenStack(_Section, frozen=True):
    """Which cloud of clouds.yaml, and whose records."""

    cloud: str | None = None
    scope: Literal["host", "all"] = "host"
    resource_classes: list[str] = []


class Nova(_Section, frozen=True):
    """Nova's cell databases by name: SQLAlchemy URLs; and what it takes for a service that is down."""

    cells: dict[str, str] = {}
    service_down_time: Duration = Duration(60)


class Sriov(_Section, frozen=True):
    """What no source tells of the NICs: physical network -> netdevs of the PFs that lead to it."""

    device_mappings: dict[str, list[str]] = {}


class Offload(_Section, frozen=True):
    """What is expected of hardware offload."""

    ratio_low: float = 0.8
    min_pps: float = 1000
    target: Rate = Rate(40e9)


class Grace(_Section, frozen=True):
    """For how long a trouble must be seen before it is one."""

    db_sync: Duration = Duration(30)
    no_writer: Duration = Duration(30)
    propagation: Duration = Duration(60)
    chassis_stale: Duration = Duration(600)
    identity: Duration = Duration(120)
    bridge: Duration = Duration(30)
    vf_drift: Duration = Duration(60)
    neutron_behind: Duration = Duration(720)


class Findings(_Section, frozen=True):
    """How many findings of a check get series of their own."""

    limit: int = 100


class Maintenance(_Section, frozen=True):
    """Hosts that may be behind."""

    hosts: list[str] = []


class Disable(_Section, frozen=True):
    """Names to leave out."""

    disable: list[str] = []


class Config(_Section, frozen=True):
    """The whole file."""

    roles: Literal["auto"] | list[Role] = "auto"
    web: Web = Web()
    intervals: Intervals = Intervals()
    ovs: Ovs = Ovs()
    ovn: Ovn = Ovn()
    host: Host = Host()
    openstack: OpenStack = OpenStack()
    nova: Nova = Nova()
    sriov: Sriov = Sriov()
    offload: Offload = Offload()
    grace: Grace = Grace()
    findings: Findings = Findings()
    maintenance: Maintenance = Maintenance()
    sources: Disable = Disable()
    checks: Disable = Disable()


def _decode(kind: type[Any], value: object) -> Any:
    """For msgspec: the types of our own; no others are in the sections."""
    return kind.parse(value)


def load(path: Path | None, *, known_checks: frozenset[str]) -> Config:
    """Read a configuration file; None: all defaults.

    Args:
        path: the file.
        known_checks: names that ``checks.disable`` may hold.

    Raises:
        ConfigError: names the file, the key and its line.
    """
    if path is None:
        return Config()
    file = YamlFile(path)
    config = file.convert(Config, dec_hook=_decode)
    for keys, why in _values(config, known_checks):
        raise file.wrong(keys, why)
    return config


def effective(config: Config) -> dict[str, Any]:
    """The configuration as YAML has it, secrets masked: a password in a database's URL."""
    shown: dict[str, Any] = _plain(config)
    shown["nova"]["cells"] = {cell: _masked(url) for cell, url in config.nova.cells.items()}
    return shown


def _masked(url: str) -> str:
    """Without the password, which may hold any character, also as an argument of the driver."""
    url = re.sub(r"(://[^:/@]*:).*@", r"\1***@", url, flags=re.DOTALL)
    return re.sub(r"([?&][^=&]*pass[^=&]*=)[^&]*", r"\1***", url, flags=re.IGNORECASE)


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return {k: _plain(v) for k, v in msgspec.structs.asdict(value).items()}
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, (Duration, Rate, StrEnum, Window)) else value


def _values(config: Config, known_checks: frozenset[str]) -> list[_Wrong]:
    """What types can't say: (keys, what is wrong)."""
    wrong: list[_Wrong] = [
        (["intervals", name], "must be 1s or more")
        for name in config.intervals.__struct_fields__
        if getattr(config.intervals, name) < SHORTEST_INTERVAL
    ]
    if config.ovn.chassis_lookup.interval < SHORTEST_INTERVAL:
        wrong.append((["ovn", "chassis_lookup", "interval"], "must be 1s or more"))
    if config.findings.limit < 1:  # the alerts are made of findings' series
        wrong.append((["findings", "limit"], "must be 1 or more"))
    if not 0 <= config.offload.ratio_low <= 1:
        wrong.append((["offload", "ratio_low"], "must be between 0 and 1"))
    wrong += [
        (["checks", "disable", at], f"no check is called {name!r}")
        for at, name in enumerate(config.checks.disable)
        if name not in known_checks
    ]
    wrong += [
        (["sources", "disable", at], f"no source is called {name!r}")
        for at, name in enumerate(config.sources.disable)
        if not _SOURCE.fullmatch(name)
    ]
    wrong += [
        (["nova", "cells", cell], _AT if url.count("@") > 1 else _URL)
        for cell, url in config.nova.cells.items()
        if not _DATABASE.fullmatch(url)
    ]
    return wrong + _connections(config) + _tls(config.ovn.tls) + _paths(config)


def _connections(config: Config) -> list[_Wrong]:
    given: list[tuple[list[str | int], str]] = [(["ovs", "database"], config.ovs.database)]
    for side, db in (("northbound", config.ovn.northbound), ("southbound", config.ovn.southbound)):
        given.append((["ovn", side, "database"], db.database))
        given += [(["ovn", side, "peers", at], peer) for at, peer in enumerate(db.peers)]
    return [
        (keys, f"{part!r} is no OVSDB connection: want unix:/path, tcp:host:port or ssl:host:port")
        for keys, value in given
        for part in (value.split(",") if keys != ["ovs", "database"] else [value])
        if not _is_connection(part.strip())
    ]


def _is_connection(text: str) -> bool:
    found = _CONNECTION.fullmatch(text)
    return found is not None and (found["port"] is None or 0 < int(found["port"]) < 1 << 16)


def _tls(tls: Tls) -> list[_Wrong]:
    given = [key for key in tls.__struct_fields__ if getattr(tls, key)]
    missing = [key for key in tls.__struct_fields__ if key not in given]
    return [(["ovn", "tls", key], f"must be set too, as ovn.tls.{given[0]} is") for key in missing] if given else []


def _paths(config: Config) -> list[_Wrong]:
    return [
        ([section, name], f"{value!r} is no absolute path")
        for section in ("ovs", "ovn", "host")
        for name in getattr(config, section).__struct_fields__
        if name.endswith(("_dir", "_file", "_control", "proc", "sysfs"))
        and (value := getattr(getattr(config, section), name)) is not None
        and not Path(value).is_absolute()
    ]
