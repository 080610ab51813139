"""The work of an OVN daemon by its control socket: the engine, the stopwatches, what it holds.

Texts as in ovn-controller(8) and ovn-northd(8), RUNTIME MANAGEMENT COMMANDS, and OVS' lib/stopwatch.c. A release that
lacks a command, a counter or a stopwatch answers with an error. Whatever is not told in a known form is left out: that
a daemon lives and is connected is not to be lost over it.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING

from mecexporter.errors import SourceError
from mecexporter.state.ovn_daemon import LflowCache, Run, Stopwatch, Work

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mecexporter.sources.wire.process import Process

    Answers = Mapping[str, str | SourceError]

_ENGINE = "inc-engine/show-stats"
_MEMORY = "memory/show"
_LONG_POLLS = "coverage/read-counter long_poll_interval"
_LFLOW_RUN = "coverage/read-counter lflow_run"
_CACHE = "lflow-cache/show-stats"
_LOOKUPS = {result: f"coverage/read-counter lflow_cache_{result}" for result in ("hit", "miss")}
_SHOW = "stopwatch/show "  # one by name: all that OVN 26.03 has take 50 kB
_OLD = "ovn-controller-"  # what the name of its first stopwatch began with up to OVN 21.03

# The stopwatches cover a turn of the main loop, no second twice.
CONTROLLER_WORK = (
    _ENGINE, _MEMORY, _LONG_POLLS, _LFLOW_RUN, _CACHE, *_LOOKUPS.values(),
    _SHOW + "flow-generation", _SHOW + _OLD + "flow-generation", _SHOW + "flow-installation",
)  # fmt: skip
NORTHD_WORK = (_ENGINE, _MEMORY, _LONG_POLLS, _SHOW + "ovn-northd-loop")

_NODE = re.compile(r"^Node: (\S+)\n- recompute: +(\d+)\n- compute: +(\d+)\n- (?:cancel|abort): +(\d+)$", re.MULTILINE)
_OF_A_TABLE = re.compile(r"(NB|SB|OVS)_")  # such a node takes in a table: it is counted at each turn, whatever came
_NORTHD_LFLOWS = "lflow"  # northd's node that makes all logical flows
_STOPWATCH = re.compile(
    r"  Total samples: (?P<samples>\d+)\n  Maximum: (?P<longest>\d+) msec\n  Minimum: \d+ msec\n"
    r"  95th percentile: (?P<p95>\d+\.\d+) msec\n  Short term average: \d+\.\d+ msec\n"
    r"  Long term average: (?P<average>\d+\.\d+) msec"
)


def told(answers: Answers, command: str) -> str:
    """What a source can't be without.

    Raises:
        SourceError: ANSWERED_ERROR, the daemon's.
    """
    said = answers[command]
    if isinstance(said, SourceError):
        raise said
    return said


def work(answers: Answers, process: Process | None) -> Work:
    """Made of the answers to CONTROLLER_WORK or NORTHD_WORK."""
    texts = {command: said for command, said in answers.items() if isinstance(said, str)}
    engine = _engine(texts.get(_ENGINE, ""))
    of_northd = engine.get(_NORTHD_LFLOWS, {}).get(Run.RECOMPUTE)
    stopwatches = {
        command.removeprefix(_SHOW).removeprefix(_OLD): _stopwatch(said)
        for command, said in texts.items()
        if command.startswith(_SHOW)
    }
    lookups = {result: _count(texts.get(command)) for result, command in _LOOKUPS.items()}
    return Work(
        full_recomputes=_count(texts[_LFLOW_RUN]) if _LFLOW_RUN in texts else of_northd,
        engine=engine,
        stopwatches=MappingProxyType({name: watch for name, watch in stopwatches.items() if watch is not None}),
        long_polls=_count(texts.get(_LONG_POLLS)),
        idl_cells=MappingProxyType(
            {db: int(number) for db, number in re.findall(r"\bidl-cells-(\w+):(\d+)", texts.get(_MEMORY, ""))}
        ),
        lflow_cache=_cache(texts.get(_CACHE, "")),
        lflow_cache_lookups=MappingProxyType({r: number for r, number in lookups.items() if number is not None}),
        cpu_seconds=process.cpu_seconds if process else None,
        resident_bytes=process.resident_bytes if process else None,
    )


def _engine(text: str) -> Mapping[str, Mapping[Run, int]]:
    return MappingProxyType(
        {
            node: MappingProxyType(dict(zip(Run, map(int, numbers), strict=True)))
            for node, *numbers in _NODE.findall(text)
            if not _OF_A_TABLE.match(node)
        }
    )


def _stopwatch(text: str) -> Stopwatch | None:
    found = _STOPWATCH.search(text)
    if found is None:
        return None
    return Stopwatch(
        samples=int(found["samples"]),
        average=float(found["average"]) / 1000,
        p95=float(found["p95"]) / 1000,
        longest=int(found["longest"]) / 1000,
    )


def _cache(text: str) -> LflowCache | None:
    """``Enabled: true``, ``total : 61``, … in any order; None before there is one ('Invalid arguments.')."""
    said = {name.strip(): value for name, value in re.findall(r"^([^:\n]+):[ \t]*(\w+)$", text, re.MULTILINE)}
    numbers = [_count(said.get(name)) for name in ("total", "Mem usage (KB)", "trim count")]
    entries, kilobytes, trims = numbers
    if said.get("Enabled") not in ("true", "false") or entries is None:
        return None
    return LflowCache(
        enabled=said["Enabled"] == "true",
        entries=entries,
        size_bytes=None if kilobytes is None else kilobytes * 1024,
        trims=trims,
    )


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"\d{1,18}\s*", text) else None
