"""tc_flows.py: for each line of standard input a read of the exporter's `tc`, of which one line of JSON is printed.

What is told of a class: its fields by name (`port` and the like only where they say something), how many flows it has,
and packets and bytes carried since the first read.
"""

import asyncio
import dataclasses
import json
import sys
from pathlib import Path

from mecexporter.sources.sysfs import SysfsPaths, SysfsSource
from mecexporter.sources.tc import TcSource
from mecexporter.state.observed import Fresh
from mecexporter.state.world import Settings, empty_world


async def reads() -> None:
    nic = SysfsSource(SysfsPaths(sysfs=Path("/sys"), proc=Path("/proc")), 60)
    world = empty_world(0.0, "guest", Settings())
    world = world.with_part("sysfs", Fresh(await nic.read(world), 0.0))
    source = TcSource(60)
    for _ in sys.stdin:
        table = await source.read(world)
        told = []
        for flow_class, counted in table.totals.items():
            told.append(dataclasses.asdict(flow_class) | dataclasses.asdict(counted))
            told[-1]["flows"] = table.flows.get(flow_class, 0)
        told += [dataclasses.asdict(c) | {"flows": n} for c, n in table.flows.items() if c not in table.totals]
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


asyncio.run(reads())
