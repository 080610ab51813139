"""What hardware offload is configured to be, and what runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.checks.offload_run import running
from mecexporter.metrics.collectors.sriov import nic_of
from mecexporter.metrics.collectors.uplinks import links_of
from mecexporter.metrics.registry import collector
from mecexporter.metrics.spec import Kind, Metric, Stability
from mecexporter.state.observed import Fresh
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.metrics.registry import View
    from mecexporter.metrics.spec import Sample

ENABLED = Metric(
    name="mec_offload_enabled",
    help="Whether hardware offload is configured (1) or not (0): other_config:hw-offload.",
    stability=Stability.STABLE,
)
POLICY = Metric(
    name="mec_offload_tc_policy_info",
    help="Which flows are configured to be offered to hardware (other_config:tc-policy): none (all), skip_sw, skip_hw.",
    kind=Kind.INFO,
    labels=("policy",),
    stability=Stability.STABLE,
)
RUNNING = Metric(
    name="mec_offload_running",
    help="Whether the ovs-vswitchd that runs offloads (1) or not (0), whatever is configured; absent if not known.",
)
RUNNING_POLICY = Metric(
    name="mec_offload_tc_policy_running_info",
    help="The tc-policy that the ovs-vswitchd that runs took when it began to offload; absent if not known.",
    kind=Kind.INFO,
    labels=("policy",),
)
DEVICE = Metric(
    name="mec_offload_device_enabled",
    help="Whether a netdev's feature hw-tc-offload is on (1) or off (0): PFs, their bonds, uplinks, representors.",
    labels=("device", "pf"),
)
TARGET = Metric(
    name="mec_offload_target_bytes_per_second",
    help="What this server is to carry in each direction (offload.target).",
)


@collector(
    ENABLED,
    POLICY,
    RUNNING,
    RUNNING_POLICY,
    TARGET,
    reads=lambda v: (
        v.world.ovs,
        v.world.vswitchd,
        v.world.memory.offload,
        v.world.settings,
        v.world.roles,
        v.world.applicable,
    ),
)
def offload_config(view: View) -> Iterator[Sample]:
    """Of Open vSwitch; what runs is told only as far as it was seen."""
    world = view.world
    if Role.COMPUTE in world.roles:
        yield TARGET(world.settings.offload_target / 8)
    if "ovs" in world.applicable and isinstance(world.ovs, Fresh):
        yield ENABLED(world.ovs.value.hw_offload)
        yield POLICY(1, policy=world.ovs.value.tc_policy)
    run = running(world) if "vswitchd" in world.applicable else None
    if run is not None and run.offload is not None:
        yield RUNNING(run.offload)
    if run is not None and run.policy is not None:
        yield RUNNING_POLICY(1, policy=run.policy)


@collector(DEVICE, reads=lambda v: (v.world.sysfs, v.world.links, v.world.applicable))
def offload_devices(view: View) -> Iterator[Sample]:
    """``pf`` is empty for a bond, and where the NIC is none that can have VFs."""
    nic, links = nic_of(view.world), links_of(view.world)
    if links is None:
        return
    pf_of = {name: pf.address for pf in nic.pfs for name in (pf.device, *pf.representors.values())} if nic else {}
    for device, on in sorted(links.tc_offload.items()):
        yield DEVICE(on, device=device, pf=pf_of.get(device, ""))
