"""Names from outside, made harmless for terminals and pages; times in words."""

from __future__ import annotations

from datetime import UTC, datetime


def encodable(text: str) -> str:
    r"""The same text where UTF-8 can hold it; lone surrogates (bytes that were no UTF-8) become visible ``\udcxx``."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def visible(text: str) -> str:
    """One line; control characters, escape sequences, bidi overrides and surrogates are shown as their escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def local_time(unix: float) -> str:
    """ISO 8601 in this host's time zone, to the second."""
    return datetime.fromtimestamp(unix, tz=UTC).astimezone().isoformat(sep=" ", timespec="seconds")


def duration(seconds: float) -> str:
    """A span in its two largest units: ``45 s``, ``3 min``, ``2 h 5 min``, ``3 d 4 h``."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if not hours:
        return f"{minutes} min"
    large, unit, small, small_unit = (days, "d", hours % 24, "h") if days else (hours, "h", minutes % 60, "min")
    return f"{large} {unit} {small} {small_unit}" if small else f"{large} {unit}"
