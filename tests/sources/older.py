"""Schemas of older releases: the installed one, without what later releases brought.

By the schemas in the releases' own sources: ovn-nb.ovsschema and ovn-sb.ovsschema of OVN v20.06.0, v20.12.0, v21.03.0,
v23.03.1, v25.03.1 and v26.03.1, vswitchd/vswitch.ovsschema of Open vSwitch v2.15.0. None of them took away a table or a
column that was there before. Types are the installed ones, which here and there allow for more; but numbers end where
they did, as a server refuses a condition on one that is out of range.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.sources.daemons import SCHEMAS, run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WHOLE = ""
"""In place of a table's columns: the table itself came with that release."""

BROUGHT: Mapping[str, Mapping[tuple[int, int], Mapping[str, str]]] = {
    "OVN_Northbound": {
        (20, 12): {
            "Logical_Router_Policy": "options",
            "Logical_Router_Static_Route": "options",
            "Meter": "fair",
            "NAT": "allowed_ext_ips exempted_ext_ips",
            "NB_Global": "nb_cfg_timestamp sb_cfg_timestamp hv_cfg_timestamp",
        },
        (21, 3): {
            "BFD": WHOLE,
            "Load_Balancer": "options",
            "Logical_Router_Policy": "nexthops",
            "Logical_Router_Static_Route": "bfd",
        },
        (23, 3): {
            "ACL": "label options",
            "Chassis_Template_Var": WHOLE,
            "Copp": WHOLE,
            "Load_Balancer_Group": WHOLE,
            "Logical_Router": "copp load_balancer_group",
            "Logical_Router_Static_Route": "route_table",
            "Logical_Switch": "copp load_balancer_group",
            "Logical_Switch_Port": "mirror_rules",
            "Mirror": WHOLE,
            "NAT": "gateway_port",
            "Static_MAC_Binding": WHOLE,
        },
        (25, 3): {
            "ACL": "sample_est sample_new tier",
            "DHCP_Relay": WHOLE,
            "DNS": "options",
            "Logical_Router_Policy": "bfd_sessions chain jump_chain",
            "Logical_Router_Port": "dhcp_relay status",
            "Logical_Router_Static_Route": "selection_fields",
            "Logical_Switch_Port": "peer",
            "NAT": "match priority",
            "SSL": "ssl_ciphersuites",
            "Sample": WHOLE,
            "Sample_Collector": WHOLE,
            "Sampling_App": WHOLE,
        },
        (26, 3): {
            "ACL": "network_function_group",
            "Logical_Router_Policy": "output_port",
            "Logical_Switch_Port": "health_checks",
            "Logical_Switch_Port_Health_Check": WHOLE,
            "Mirror": "mirror_rules",
            "Mirror_Rule": WHOLE,
            "Network_Function": WHOLE,
            "Network_Function_Group": WHOLE,
            "Network_Function_Health_Check": WHOLE,
        },
    },
    "OVN_Southbound": {
        (20, 12): {
            "Chassis_Private": WHOLE,
            "Datapath_Binding": "load_balancers",
            "Load_Balancer": WHOLE,
            "Logical_DP_Group": WHOLE,
            "Logical_Flow": "logical_dp_group",
        },
        (21, 3): {
            "BFD": WHOLE,
            "FDB": WHOLE,
            "Load_Balancer": "options",
            "Port_Binding": "up",
        },
        (23, 3): {
            "Chassis_Template_Var": WHOLE,
            "Load_Balancer": "datapath_group",
            "Logical_Flow": "controller_meter tags",
            "MAC_Binding": "timestamp",
            "Mirror": WHOLE,
            "Port_Binding": (
                "additional_chassis additional_encap mirror_rules port_security requested_additional_chassis "
                "requested_chassis"
            ),
            "Static_MAC_Binding": WHOLE,
        },
        (25, 3): {
            "ACL_ID": WHOLE,
            "Advertised_Route": WHOLE,
            "BFD": "chassis_name",
            "DNS": "options",
            "ECMP_Nexthop": WHOLE,
            "FDB": "timestamp",
            "IGMP_Group": "chassis_name protocol",
            "Learned_Route": WHOLE,
            "Load_Balancer": "lr_datapath_group ls_datapath_group",
            "Logical_Flow": "flow_desc",
            "SSL": "ssl_ciphersuites",
            "Service_Monitor": "chassis_name",
        },
        (26, 3): {
            "Advertised_MAC_Binding": WHOLE,
            "Datapath_Binding": "nb_uuid type",
            "Port_Binding": "mirror_port",
            "Service_Monitor": "ic_learned logical_input_port mac remote type",
        },
    },
    "Open_vSwitch": {
        (3, 1): {"Interface": "ingress_policing_kpkts_burst ingress_policing_kpkts_rate"},
        (3, 5): {
            "CT_Zone": "limit",
            "Datapath": "ct_zone_default_limit",
            "Flow_Sample_Collector_Set": "local_group_id",
            "IPFIX": "stats_interval template_interval",
            "Mirror": "filter",
        },
    },
}
"""Database -> release -> table -> its columns that one release has and the one before it in this list has not."""

ENDED: Mapping[str, Mapping[tuple[int, int], tuple[str, str, int]]] = {
    "OVN_Southbound": {(21, 3): ("Logical_Flow", "table_id", 23)}
}
"""Database -> release before which a column's numbers ended so."""


def schema(db: str, release: tuple[int, int]) -> dict[str, Any]:
    """As that release has it (RFC 7047 section 3.2)."""
    declared: dict[str, Any] = json.loads(SCHEMAS[db].read_text())
    tables = declared["tables"]
    for since, brought in BROUGHT[db].items():
        if since > release:
            for table, columns in brought.items():
                if columns == WHOLE:
                    tables.pop(table, None)
                for column in columns.split():
                    tables.get(table, {}).get("columns", {}).pop(column, None)
    for until, (table, column, end) in ENDED.get(db, {}).items():
        if release < until:
            tables[table]["columns"][column]["type"]["key"]["maxInteger"] = end
    # A digest of the file as it was; ovsdb-server does not look at it.
    declared.pop("cksum", None)
    return declared


def create(directory: Path, db: str, release: tuple[int, int]) -> None:
    """The database file of a server in that directory."""
    directory.mkdir(exist_ok=True)
    declared = directory / f"{db}.ovsschema"
    declared.write_text(json.dumps(schema(db, release)))
    run("ovsdb-tool", "create", str(directory / f"{db}.db"), str(declared))
