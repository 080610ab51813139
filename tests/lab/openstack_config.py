"""What is written into the files of an OpenStack of the lab: no message broker, Keystone if wanted, all on loopback."""

from __future__ import annotations

PHYSNET = "physnet2"
"""The network of SR-IOV ports, of type VLAN."""

MARIADB = (
    "--no-defaults",
    "--bind-address=127.0.0.1",
    "--skip-log-bin",
    # Nothing needs to survive a power cut.
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
    "--innodb-doublewrite=0",
    "--debug-no-sync",
    # Small: the copied data directory, and memory. A smaller buffer pool makes the migrations wait for the disk.
    "--innodb-buffer-pool-size=64M",
    "--innodb-log-file-size=8M",
    "--innodb-autoextend-increment=4",
    "--aria-pagecache-buffer-size=8M",
    "--key-buffer-size=8M",
    "--performance-schema=0",
)

NEUTRON = """\
[DEFAULT]
core_plugin = ml2
service_plugins = ovn-router,segments,qos,port_forwarding
auth_strategy = {auth}
bind_host = 127.0.0.1
bind_port = {port}
state_path = {directory}
api_paste_config = {directory}/neutron-paste.ini
transport_url = fake://
api_workers = 1
rpc_workers = 0
rpc_state_report_workers = 0
[oslo_concurrency]
lock_path = {directory}/lock
[oslo_policy]
policy_file = {directory}/neutron-policy.yaml
[database]
connection = {database}
[ml2]
mechanism_drivers = ovn,sriovnicswitch
type_drivers = flat,vlan,geneve
tenant_network_types = geneve
extension_drivers = port_security,qos
[ml2_type_vlan]
network_vlan_ranges = physnet2:100:4000
[ml2_type_geneve]
vni_ranges = 1:65536
max_header_size = 38
[ovn]
ovn_nb_connection = {nb}
ovn_sb_connection = {sb}
ovn_l3_scheduler = leastloaded
"""

NEUTRON_PASTE = """\
[composite:neutron]
use = egg:Paste#urlmap
/: versions
/v2.0: api
[composite:api]
use = call:neutron.auth:pipeline_factory
noauth = request_id catch_errors extensions app
keystone = request_id catch_errors authtoken keystonecontext extensions app
[filter:request_id]
paste.filter_factory = oslo_middleware:RequestId.factory
[filter:catch_errors]
paste.filter_factory = oslo_middleware:CatchErrors.factory
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
[filter:keystonecontext]
paste.filter_factory = neutron.auth:NeutronKeystoneContext.factory
[filter:extensions]
paste.filter_factory = neutron.api.extensions:plugin_aware_extension_middleware_factory
[app:versions]
paste.app_factory = neutron.pecan_wsgi.app:versions_factory
[app:app]
paste.app_factory = neutron.api.v2.router:APIRouter.factory
"""

# Recent releases let only Nova itself, of role service, say which VF a port is on; here no one is.
NEUTRON_POLICY = """\
"create_port:binding:profile": ""
"update_port:binding:profile": ""
"get_port:binding:profile": ""
"""

PLACEMENT = """\
[api]
auth_strategy = {auth}
[placement_database]
connection = {database}
sync_on_startup = true
"""

NOVA = """\
[DEFAULT]
state_path = {directory}
transport_url = fake://
[database]
connection = {database}
[api_database]
connection = {database}
"""

KEYSTONE = """\
[database]
connection = {database}
[token]
expiration = {seconds}
allow_expired_window = 0
[fernet_tokens]
key_repository = {directory}/keystone/fernet
[credential]
key_repository = {directory}/keystone/credential
[identity]
password_hash_rounds = 4
"""

# Of each service that asks Keystone about its callers; at once, so that a token that ends is refused at once.
AUTHTOKEN = """\
[keystone_authtoken]
www_authenticate_uri = {url}
auth_url = {url}
auth_type = password
username = admin
password = admin
project_name = admin
user_domain_id = default
project_domain_id = default
token_cache_time = -1
"""
