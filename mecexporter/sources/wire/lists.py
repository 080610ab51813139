"""Neutron's lists: as they are, page by page; and of some objects, by their ids."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.wire.cloud import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mecexporter.sources.wire.cloud import Cloud

PAGE = 1000
"""Objects asked for at once; Neutron may answer fewer."""
AT_ONCE = 50
"""Ids in one request: servers take no more than 4 KiB of its head, if they are left as they come (uWSGI)."""
_MOST = 2_000_000
_BEGINNINGS = 3

Params = list[tuple[str, str]]
Row = dict[str, Any]


async def whole(
    cloud: Cloud,
    what: str,
    fields: Iterable[str],
    *,
    begin: Callable[[], None],
    take: Callable[[list[Row]], None],
    filters: Iterable[tuple[str, str]] = (),
    gently: bool = False,
) -> None:
    """All objects of a list, a page at a time.

    Args:
        cloud: whose.
        what: which list, as in its path.
        fields: of each object.
        begin: called before the first page, and again where the list must be begun anew.
        take: given each page.
        filters: which of them.
        gently: whether to rest as long as each page took.

    Raises:
        SourceError: as :meth:`Cloud.get`; ANSWERED_ERROR, TOO_LARGE where there is no end.
    """
    params = [*_sorted(fields, PAGE), *filters]
    for _ in range(_BEGINNINGS):
        begin()
        marker: str | None = None
        seen = 0
        while seen < _MOST:
            began = time.monotonic()
            try:
                rows, more = await _page(cloud, what, params, marker)
            except _MarkerGoneError:
                break
            took = time.monotonic() - began
            take(rows)
            seen += len(rows)
            last = rows[-1].get("id") if rows else None
            if not isinstance(last, str) or last == marker or not more:
                return
            marker = last
            if gently:
                await asyncio.sleep(took)
        else:
            raise SourceError(Reason.TOO_LARGE, f"{what}: more than {_MOST}")
    raise SourceError(Reason.ANSWERED_ERROR, f"{what}: the last one of a page was deleted {_BEGINNINGS} times")


async def first(cloud: Cloud, what: str, fields: Iterable[str], limit: int) -> list[Row]:
    """Some objects of a list.

    Raises:
        SourceError: as :meth:`Cloud.get`.
    """
    rows, _ = await _page(cloud, what, _sorted(fields, limit), None)
    return rows


async def by(
    cloud: Cloud,
    what: str,
    column: str,
    values: Iterable[str],
    *,
    fields: Iterable[str] = (),
    filters: Iterable[tuple[str, str]] = (),
) -> dict[str, Row]:
    """A row of a list for each of the values in one of its columns, for those that have one.

    What is asked for goes into one page, but a service may give smaller ones: those that no row came for are asked for
    again, for as long as some come.

    Raises:
        SourceError: as :meth:`Cloud.get`.
    """
    given = sorted(values)
    params = [*filters, *(("fields", name) for name in dict.fromkeys((*fields, column)))]
    rows: dict[str, Row] = {}
    for begin in range(0, len(given), AT_ONCE):
        left = given[begin : begin + AT_ONCE]
        while left:
            answer = await cloud.get("network", f"/{what}", [*params, *((column, one) for one in left)])
            page = listed(answer, _key(what), f"network /{what}")
            new = {row[column]: row for row in page if row.get(column) in left}
            rows |= new
            left = [one for one in left if one not in new] if new else []
    return rows


class _MarkerGoneError(Exception):
    """The object that the next page was to begin after was deleted meanwhile."""


async def _page(cloud: Cloud, what: str, params: Params, marker: str | None) -> tuple[list[Row], bool]:
    """Objects, and whether there are more: a service may give smaller pages than are asked for, and says so."""
    at = [("marker", marker)] if marker is not None else []
    try:
        answer = await cloud.get("network", f"/{what}", params + at)
    except SourceError as error:
        if marker is not None and error.reason is Reason.MISSING:
            raise _MarkerGoneError from None
        raise
    page = listed(answer, _key(what), f"network /{what}")
    links = answer.get(f"{_key(what)}_links") or []
    told = any(isinstance(link, dict) and link.get("rel") == "next" for link in links)
    return page, told or len(page) >= PAGE


def _sorted(fields: Iterable[str], limit: int) -> Params:
    return [("limit", str(limit)), ("sort_key", "id"), ("sort_dir", "asc"), *(("fields", f) for f in fields)]


def _key(what: str) -> str:
    return what.replace("-", "_")
