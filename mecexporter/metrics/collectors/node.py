"""Who this node is: versions, ids and what ovn-controller is configured with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mecexporter.metrics.registry import collector
from mecexporter.metrics.spec import Kind, Metric, Stability
from mecexporter.state.identity import EffectiveId, effective_id
from mecexporter.state.observed import Fresh
from mecexporter.state.world import Role

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mecexporter.metrics.registry import View
    from mecexporter.metrics.spec import Sample

NODE = Metric(
    name="mec_node_info",
    help="This node and its versions (ovn_version: ovn-controller's, else northd's); empty where one can't be told.",
    kind=Kind.INFO,
    labels=("hostname", "kernel", "ovs_version", "ovn_version"),
    stability=Stability.STABLE,
)
COMPONENT = Metric(
    name="mec_component_info",
    help="The version of a component of this node.",
    kind=Kind.INFO,
    labels=("component", "version"),
)
COMPONENT_SINCE = Metric(
    name="mec_component_first_seen_timestamp_seconds",
    help="When the exporter first saw the version that a component has now, as Unix time.",
    labels=("component", "version"),
)
SYSTEM_ID = Metric(
    name="mec_system_id_info",
    help="The system-id by origin: commandline, override, ovsdb, file, memory (the exporter's), southbound, effective.",
    kind=Kind.INFO,
    labels=("origin", "system_id"),
    stability=Stability.STABLE,
)
CONFIG = Metric(
    name="mec_ovn_controller_config_info",
    help="What the local database tells ovn-controller; empty where a key is missing.",
    kind=Kind.INFO,
    labels=("hostname", "encap_type", "encap_ip", "remote", "bridge"),
    stability=Stability.STABLE,
)


@collector(
    NODE,
    COMPONENT,
    COMPONENT_SINCE,
    reads=lambda v: (v.world.hostname, v.world.memory.versions, v.world.versions()),
)
def versions(view: View) -> Iterator[Sample]:
    """Versions that are known now; the memory only tells since when."""
    now = view.world.versions()
    yield NODE(
        1,
        hostname=view.world.hostname,
        kernel=now.get("kernel", ""),
        ovs_version=now.get("ovs", ""),
        ovn_version=now.get("ovn") or now.get("ovn_northd", ""),
    )
    for component, version in sorted(now.items()):
        yield COMPONENT(1, component=component, version=version)
        seen = view.world.memory.versions.get(component)
        if seen is not None and seen.version == version:
            yield COMPONENT_SINCE(seen.first_seen, component=component, version=version)


@collector(
    SYSTEM_ID,
    reads=lambda v: (v.world.ovs, v.world.host, v.world.chassis_lookup, v.world.memory.identity, v.world.roles),
)
def system_id(view: View) -> Iterator[Sample]:
    """One series an origin that has an id; none for what can't be told."""
    world = view.world
    if Role.COMPUTE not in world.roles:
        return
    ids: dict[str, str | None] = {}
    if isinstance(world.host, Fresh):
        ids["commandline"] = world.host.value.commandline_id
        ids["override"] = world.host.value.override_file.content
        ids["file"] = world.host.value.system_id_file.content
    if isinstance(world.ovs, Fresh):
        ids["ovsdb"] = world.ovs.value.system_id
    if world.memory.identity is not None:
        ids["memory"] = world.memory.identity.system_id
    if isinstance(world.chassis_lookup, Fresh):
        found = world.chassis_lookup.value
        registered = found.registered or next(iter(found.of_hostname), None)
        ids["southbound"] = registered.name if registered else None
    now = effective_id(world)
    if isinstance(now, EffectiveId):
        ids["effective"] = now.system_id
    for origin, value in ids.items():
        if value:
            yield SYSTEM_ID(1, origin=origin, system_id=value)


@collector(CONFIG, reads=lambda v: (v.world.ovs, v.world.hostname, v.world.applicable))
def controller_config(view: View) -> Iterator[Sample]:
    """The ovn-* keys of external_ids."""
    if "ovs" in view.world.applicable and isinstance(view.world.ovs, Fresh):
        ovs = view.world.ovs.value
        yield CONFIG(
            1,
            hostname=view.world.hostname,
            encap_type=",".join(ovs.encap_types),
            encap_ip=",".join(ovs.encap_ips),
            remote=ovs.ovn_remote or "",
            bridge=ovs.integration_bridge,
        )
