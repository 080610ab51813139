"""The table of incidents: what must be found on the node, what may follow from it, what cannot be told meanwhile.

Everything else is silent, on the node and on its peer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.lab.site import controller_aborts


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What one incident looks like, by names of checks.

    Attributes:
        must: found in time; for an incident whose mark is that nothing can be told, none.
        may: follows from it, not necessarily or not at once.
        unknown: not evaluable while it lasts.
        mending: may besides be found while it is repaired: what the repair's own restarts and renames honestly are.
        peer: may be found on the other node.
        adopted: the new id is carried through (or cannot be told from one that is) and becomes the remembered one.
        longer: seconds that a check's own hold adds to the pace's.
        hangs: a daemon is silent, not dead.
    """

    must: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()
    mending: frozenset[str] = frozenset()
    peer: frozenset[str] = frozenset()
    adopted: bool = False
    longer: float = 0
    hangs: bool = False


def _checks(names: str) -> frozenset[str]:
    return frozenset(names.split())


_NEW_ID = _checks("system_id_changed chassis_unregistered ovn_controller_failing")
_RENAMED = _NEW_ID  # the latter two if SB's owner takes more than a read to delete the old chassis
_BY_CONTROLLER = _checks(
    "chassis_unregistered ovn_controller_disconnected ovn_controller_failing ovs_interface_orphaned"
)
_BY_VSWITCHD = _checks("integration_bridge_empty ovs_interface_failed ovs_interface_orphaned tunnel_port_failed")
_BY_OVSDB = _checks(
    "chassis_unregistered integration_bridge_empty ovs_interface_failed ovs_interface_orphaned system_id_changed "
    "system_id_mismatch system_id_missing tunnel_port_failed offload_disabled offload_gre_conntrack offload_ratio_low"
)
_BY_FLOWS = _checks("offload_gre_conntrack offload_ratio_low")  # of a user-space datapath
_DISCONNECTED = _checks("ovn_controller_disconnected")
_FAILING = _checks("ovn_controller_failing")
_ORPHANED = _checks("ovs_interface_orphaned")  # after a minute: the VM's port waits for an OVN that does not know us
# A peer's tunnel to a chassis that came anew at an old address may fail ('File exists'); the lab's repair mends it.
_PEER_TUNNEL = _checks("tunnel_port_failed")

EXPECTED = {
    "A": Expected(must=_NEW_ID | _checks("system_id_mismatch")),
    "B": Expected(must=_NEW_ID, may=_ORPHANED | _DISCONNECTED),
    # Without a datapath there is nobody to ask for flows.
    "C": Expected(must=_DISCONNECTED | _checks("integration_bridge_empty"), unknown=_ORPHANED),
    "C2": Expected(must=_NEW_ID | _checks("integration_bridge_empty"), may=_ORPHANED),
    "D": Expected(must=_checks("system_id_missing")),
    "E": Expected(
        must=_checks("system_id_changed system_id_mismatch"), mending=_RENAMED, peer=_PEER_TUNNEL, adopted=True
    ),
    "rename": Expected(
        must=_checks("system_id_changed"),
        may=_RENAMED,
        mending=_RENAMED,
        peer=_PEER_TUNNEL,
        adopted=True,
    ),
    "maintenance": Expected(must=_DISCONNECTED, unknown=_FAILING),
    "controller-killed": Expected(must=_DISCONNECTED, unknown=_FAILING),
    "controller-stopped": Expected(unknown=_BY_CONTROLLER, hangs=True),
    "controller-paused": Expected(must=_DISCONNECTED),
    "controller-disconnected": Expected(must=_DISCONNECTED),
    "vswitchd-killed": Expected(unknown=_BY_VSWITCHD),
    # Its flows are read once a minute, where nothing else is configured.
    "vswitchd-stopped": Expected(unknown=_BY_VSWITCHD | _BY_FLOWS, hangs=True, longer=20),
    "ovsdb-killed": Expected(unknown=_BY_OVSDB),
    "ovsdb-stopped": Expected(unknown=_BY_OVSDB, hangs=True),
    "tunnel-failed": Expected(must=_checks("tunnel_port_failed")),
    "tunnel-bfd-down": Expected(must=_checks("tunnel_port_failed"), peer=_PEER_TUNNEL),
    "interface-failed": Expected(must=_checks("ovs_interface_failed")),
    "interface-orphaned": Expected(must=_ORPHANED, longer=60),
    "sb-killed": Expected(must=_DISCONNECTED, peer=_DISCONNECTED),
    "ovsctl-wipe-conf": Expected(),
    "ovsctl-delete-file": Expected(must=_NEW_ID, mending=_DISCONNECTED),
    "ovsctl-other-id": Expected(must=_NEW_ID | _checks("system_id_mismatch")),
    "ovsctl-unwritable": Expected(must=_NEW_ID | _checks("system_id_mismatch"), mending=_DISCONNECTED),
    "ovsctl-no-system-id": Expected(must=_checks("system_id_missing"), may=_FAILING),
}


def expected(incident: str) -> Expected:
    """As the release that runs has it: one that aborts fails no transaction, nor does it when it is started again."""
    its = EXPECTED[incident]
    if not controller_aborts():
        return its
    return replace(its, must=its.must - _FAILING, may=its.may | (its.must & _FAILING))
