"""Log lines as key=value, one a line whatever is in them."""

from __future__ import annotations

import json
import logging
import time

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class KeyValue(logging.Formatter):
    """``time=… level=info msg="finding opened" check=system_id_changed …``: the record's extras follow its message."""

    converter = time.gmtime  # type: ignore[assignment]  # typeshed forgets that its argument is optional

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback becomes one quoted value."""
        pairs: dict[str, object] = {
            "time": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        pairs |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            pairs["traceback"] = self.formatException(record.exc_info)
        return " ".join(f"{key}={_value(value)}" for key, value in pairs.items())


def _value(value: object) -> str:
    text = str(value)
    plain = text.isascii() and text.isprintable() and text and not any(c in text for c in ' "=\\')
    return text if plain else json.dumps(text)


def set_up(level: int = logging.INFO) -> None:
    """Send all logs to stderr in this form."""
    handler = logging.StreamHandler()
    handler.setFormatter(KeyValue())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Their own words about every reconnection; what matters of it is in our sources' state.
    for noisy in ("ovsdbapp", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    logging.getLogger("aiohttp.server").addFilter(_is_not_a_bad_request)


def _is_not_a_bad_request(record: logging.LogRecord) -> bool:
    """Whoever sends something else than HTTP gets his 400; a port scan must not fill the log."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or kind.__module__ != "aiohttp.http_exceptions"
