"""How each source fares, as data: ``/api/v1/sources``, and what words and pages take their reasons from."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, TypedDict

from mecexporter.errors import Reason
from mecexporter.state.host import HostFacts
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.openstack import Cell
from mecexporter.state.tls import CertificateFile
from mecexporter.web.text import encodable

if TYPE_CHECKING:
    from mecexporter.metrics.registry import View
    from mecexporter.state.observed import Observed
    from mecexporter.state.world import World


class SourceItem(TypedDict):
    """One source; times are Unix seconds, ``duration`` is seconds.

    ``up`` is None where the source does not apply to this node. ``reason`` and ``since`` (when the first call that
    failed was begun) are None unless it applies and has no answer; ``why`` is None unless that, or it has gaps.
    ``errors``: reason -> reads that failed so.
    """

    source: str
    applicable: bool
    up: bool | None
    why: str | None
    reason: str | None
    since: float | None
    last_success: float | None
    duration: float | None
    errors: dict[str, int]


class SourcesDocument(TypedDict):
    """The form of ``/api/v1/sources``."""

    hostname: str
    roles: list[str]
    sources: list[SourceItem]


def sources_document(view: View) -> SourcesDocument:
    """Every source this program knows, those that do not apply included."""
    world = view.world
    parts = {f.name for f in fields(world) if isinstance(getattr(world, f.name), (Fresh, Absent))}
    return {
        "hostname": encodable(world.hostname),
        "roles": sorted(world.roles),
        "sources": [_item(world, source) for source in sorted(parts | world.databases.keys() | world.cells.keys())],
    }


def waiting_for(world: World) -> list[str]:
    """The sources whose first round is not done."""
    return sorted(s for s in world.applicable if s not in world.status or not world.status[s].rounds)


def _item(world: World, source: str) -> SourceItem:
    applicable = source in world.applicable
    part = world.part(source)
    absent = part if applicable and isinstance(part, Absent) else None
    status = world.status.get(source)
    last_success = status.last_success if status else None
    why = absent.why if absent else _gaps(part) if applicable else None
    return {
        "source": encodable(source),
        "applicable": applicable,
        "up": isinstance(part, Fresh) if applicable else None,
        "why": None if why is None else encodable(why),
        "reason": absent.reason if absent else None,
        "since": absent.since + world.skew if absent else None,
        "last_success": None if last_success is None else last_success + world.skew,
        "duration": status.duration if status else None,
        "errors": {str(reason): n for reason, n in status.errors.items()} if status else {},
    }


def _gaps(part: Observed[object]) -> str | None:
    """What an answer could not tell, though it is one."""
    if not isinstance(part, Fresh):
        return None
    if isinstance(part.value, Cell):
        return _gap_of_cell(part.value)
    if isinstance(part.value, tuple):
        return "; ".join(of.why for of in part.value if isinstance(of, CertificateFile) and of.why) or None
    if not isinstance(part.value, HostFacts):
        return None
    host = part.value
    unread = [f.why for f in (host.system_id_file, host.override_file) if f.trouble not in (None, Reason.MISSING)]
    return "; ".join(why for why in (*unread, host.commandline_why) if why) or None


def _gap_of_cell(cell: Cell) -> str | None:
    if not cell.knows_host:
        return f"it has no nova-compute of host {cell.asked_for}: host.hostname must be Nova's name of this host"
    if cell.tells:
        return None
    if not cell.up:
        return "it has no nova-compute at all: is it nova_cell0, or has this cell no hosts yet?"
    who = (
        "no nova-compute"
        if cell.asked_for is None
        else f"nova-compute of host {cell.asked_for} never reported, or none"
    )
    return (
        f"{who} reports into this database now, so whether it is up can't be told: see Nova's servicegroup_driver "
        "(only db reports here) and nova-conductor"
    )
