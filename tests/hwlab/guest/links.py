"""links.py DEVICE REPRESENTOR...: what the source `links` tells of a netdevsim, as if it were a PF, as JSON.

netdevsim is no PCI device, so that the exporter itself does not find its representors.
"""

import asyncio
import json
import sys
from types import MappingProxyType

from mecexporter.sources.links import LinksSource
from mecexporter.state.observed import Fresh
from mecexporter.state.sriov import Held, Nic, Pf
from mecexporter.state.world import Settings, empty_world

device, *representors = sys.argv[1:]
pf = Pf(
    address="0000:3b:00.0",
    driver="netdevsim",
    iommu_group=None,
    held=Held.NO,
    devices=(device,),
    vendor="",
    product="",
    numa_node=None,
    capacity=len(representors),
    configured=0,
    vfs=(),
    representors=MappingProxyType(dict(enumerate(representors))),
)
nic = Nic(pfs=(pf,), addresses=frozenset(), processes_seen=True)
found = asyncio.run(LinksSource(15).read(empty_world(0.0, "h", Settings()).with_part("sysfs", Fresh(nic, 0.0))))
told = {
    "statistics": {name: counters._asdict() for name, counters in found.statistics.items()},
    "cpu_hit": {name: counters._asdict() for name, counters in found.cpu_hit.items()},
    "tc_offload": dict(found.tc_offload),
    "uplinks": [uplink.device for uplink in found.uplinks],
}
sys.stdout.write(json.dumps(told, sort_keys=True) + "\n")
