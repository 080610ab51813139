"""The program's own logging in pytest's process, without a trace afterwards."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Whatever :func:`mecexporter.logs.set_up` changes in here is afterwards as it was; pytest captures none of it."""
    root = logging.getLogger()
    loggers = [root, *(logging.getLogger(name) for name in ("aiohttp.server", "aiohttp.access", "ovsdbapp"))]
    before = [(logger, logger.level, list(logger.filters)) for logger in loggers]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(root, "handlers", [])
        try:
            yield
        finally:
            for logger, level, filters in before:
                logger.setLevel(level)
                logger.filters = filters
