"""An OpenStack control plane of real services: Neutron with ML2/OVN, Placement, Nova's cell databases on MariaDB.

`with OpenStack(["compute-1"]) as cloud:` has it running on loopback, each host a Chassis in Southbound so that ports
bind there. Without a message broker and Nova's services, with Keystone only if wanted: what Nova would do, tests do by
the methods below and by `cloud.cell`, whose rows Nova's own objects write. Like every lab it may run beside others and
leaves nothing.
"""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypedDict

from tests.lab import openstack_config as config
from tests.lab.nova_cell import NovaCell
from tests.lab.openstack_releases import Release, cached, debian, digest
from tests.lab.openstack_services import TOKEN, Keystone, MariaDb, Neutron, NeutronMaintenance, Placement, ask
from tests.lab.site import OVN_SHARE, PROGRAMS, LabError, Site, require, run
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.lab.openstack_services import Process

PROGRAMS_OF_OPENSTACK = PROGRAMS | {"mariadbd": "mariadb-server-core", "mariadb": "mariadb-client-core"}
DATABASES = ("neutron", "placement", "nova_cell1")
PLACEMENT_VERSION = "placement 1.38"  # knows consumer_type
FORMAT = "1"  # of what make_databases keeps in the cache
MIGRATION_TIMEOUT = 180  # seconds; five on an idle core


class Allocation(TypedDict):
    resources: dict[str, int]


class OpenStack(Site):
    """A cloud; what may be stopped, started, suspended and resumed: mariadb, neutron, placement, and OVN's daemons."""

    def __init__(
        self, hosts: Sequence[str] = ("compute-1",), *, release: Release | None = None, maintenance: bool = False,
        token_seconds: int | None = None,
    ) -> None:  # fmt: skip
        """A cloud that is not started.

        maintenance: with Neutron's worker that compares its revisions with Northbound and mends. token_seconds: with
        Keystone, whose tokens last that long, and which the services ask about their callers; else any token will do.
        """
        super().__init__()
        self.nodes = {}
        self.hosts = tuple(hosts)
        self.release = release or debian()
        self.mariadb, self.placement = MariaDb(self), Placement(self)
        self.neutron = Neutron(self, maintenance=maintenance)
        self.keystone = None if token_seconds is None else Keystone(self, token_seconds)
        self.account = "admin"  # who is in clouds.yaml, where there is Keystone
        self._worker = NeutronMaintenance(self)
        self._maintenance = maintenance
        self.sqlite = self.dir / "cell2.sqlite"
        python = self.release.python
        self.cell = NovaCell(self, "nova-cell1", python, self.dir / "nova-cell1.conf")
        self.sqlite_cell = NovaCell(self, "nova-cell2", python, self.dir / "nova-cell2.conf")

    def __exit__(self, *reason: object) -> None:
        try:
            services = (self._worker, self.neutron, self.placement, self.keystone, self.mariadb)
            children: tuple[NovaCell | Process | None, ...] = (self.cell, self.sqlite_cell, *services)
            for child in children:
                if child is not None:
                    child.end()
        finally:
            super().__exit__(*reason)

    # Addresses and credentials

    def database(self, name: str, account: str = "lab:lab") -> str:
        """The URL of a database of DATABASES, as SQLAlchemy has it."""
        return f"mysql+pymysql://{account}@127.0.0.1:{self.mariadb.port}/{name}"

    @property
    def nova_reader(self) -> str:
        """The URL of the first cell for an exporter: may read this database and do nothing else."""
        return self.database("nova_cell1", "reader:r3ader")

    @property
    def nova_sqlite(self) -> str:
        """The URL of the second cell, in a file."""
        return f"sqlite:///{self.sqlite}"

    def clouds(self) -> Path:
        """A clouds.yaml with the cloud `lab`, which openstacksdk can use even if there is no Keystone."""
        path = self.dir / "clouds.yaml"
        cloud: dict[str, object] = {"placement_default_microversion": PLACEMENT_VERSION.split()[1]}
        if self.keystone:
            who = dict.fromkeys(("username", "password", "project_name"), self.account)
            domains = dict.fromkeys(("user_domain_id", "project_domain_id"), "default")
            cloud |= {"auth": {"auth_url": self.keystone.api} | who | domains, "region_name": "RegionOne"}
        else:
            cloud |= {
                "auth_type": "admin_token",
                "auth": {"endpoint": self.placement.url, "token": TOKEN},
                "network_endpoint_override": self.neutron.url,
                "placement_endpoint_override": self.placement.url,
            }
        path.write_text(json.dumps({"clouds": {"lab": cloud}}, indent=1))  # YAML too
        return path

    def _token(self) -> dict[str, str]:
        return self.keystone.token() if self.keystone else {}

    # Neutron, as an operator and Nova use it

    def network(self, method: str, path: str, body: object = None) -> Any:
        """Asks Neutron: `network("GET", "/ports?fields=id")`."""
        return ask(method, f"{self.neutron.api}{path}", body, **self._token())

    def create_network(self, name: str = "net", *, vlan: int | None = None) -> str:
        """A provider network on PHYSNET, for SR-IOV; returns its id. `vlan`: Neutron chooses if None."""
        wanted = {"name": name, "project_id": "project", "provider:network_type": "vlan",
                  "provider:physical_network": config.PHYSNET}  # fmt: skip
        segment = {} if vlan is None else {"provider:segmentation_id": vlan}
        made: str = self.network("POST", "/networks", {"network": wanted | segment})["network"]["id"]
        return made

    def create_subnet(self, network: str, cidr: str) -> str:
        wanted = {"network_id": network, "project_id": "project", "ip_version": 4, "cidr": cidr}
        made: str = self.network("POST", "/subnets", {"subnet": wanted})["subnet"]["id"]
        return made

    def create_port(
        self, network: str, host: str, pci_slot: str | None, instance: str, *, offload: bool = True, **values: object
    ) -> str:
        """A port as Nova binds it for an instance; returns its id.

        pci_slot: the VF, for a direct port; None: an ordinary port. offload: the PF is in switchdev mode, so OVN binds
        it; else the host's SR-IOV agent does (add_sriov_agent). values: more of the port, or other than these.
        """
        wanted: dict[str, object] = {
            "network_id": network, "project_id": "project", "binding:host_id": host, "device_id": instance,
            "device_owner": "compute:nova",
        }  # fmt: skip
        if pci_slot is not None:
            profile: dict[str, object] = {
                "pci_slot": pci_slot, "pci_vendor_info": "15b3:101e", "physical_network": config.PHYSNET,
            }  # fmt: skip
            if offload:
                profile["capabilities"] = ["switchdev"]
            wanted |= {"binding:vnic_type": "direct", "binding:profile": profile}
        made: str = self.network("POST", "/ports", {"port": wanted | values})["port"]["id"]
        return made

    def update_port(self, port: str, **changes: object) -> None:
        """Names that are no identifiers: `**{"binding:host_id": …}`."""
        self.network("PUT", f"/ports/{port}", {"port": changes})

    def delete_port(self, port: str) -> None:
        self.network("DELETE", f"/ports/{port}")

    def ports(self, **filters: str) -> list[dict[str, Any]]:
        query = "&".join(f"{name}={value}" for name, value in filters.items())
        found: list[dict[str, Any]] = self.network("GET", f"/ports?{query}")["ports"]
        return found

    def add_sriov_agent(self, host: str) -> None:
        """As if neutron-sriov-nic-agent ran there and reported for years to come: it would need a message broker."""
        agent = {"devices": 0, "device_mappings": {config.PHYSNET: ["ens1f0np0"]}, "extensions": []}
        self.mariadb.sql(
            "INSERT INTO agents (id, agent_type, `binary`, topic, host, admin_state_up, created_at, started_at,"  # noqa: S608  # ours
            " heartbeat_timestamp, configurations, `load`) VALUES"
            f" ('{uuid.uuid4()}', 'NIC Switch agent', 'neutron-sriov-nic-agent', 'N/A', '{host}', 1, NOW(), NOW(),"
            f" '2037-01-01', '{json.dumps(agent)}', 0)",
            "neutron",
        )

    # Placement, as nova-compute and the scheduler use it

    def place(self, method: str, path: str, body: object = None) -> Any:
        """Asks Placement: `place("GET", "/resource_providers")`."""
        headers = {"OpenStack-API-Version": PLACEMENT_VERSION} | self._token()
        return ask(method, f"{self.placement.url}{path}", body, **headers)

    def create_provider(
        self, name: str, *, parent: str | None = None, inventory: Mapping[str, int] | None = None,
        traits: Sequence[str] = (),
    ) -> str:  # fmt: skip
        """A resource provider with totals by resource class; returns its UUID."""
        made = str(uuid.uuid4())
        self.place("POST", "/resource_providers", {"uuid": made, "name": name, "parent_provider_uuid": parent})
        generation = 0
        if inventory:
            for resource in inventory:
                if resource.startswith("CUSTOM_"):
                    self.place("PUT", f"/resource_classes/{resource}")
            wanted = {resource: {"total": total, "max_unit": total} for resource, total in inventory.items()}
            body = {"resource_provider_generation": generation, "inventories": wanted}
            generation = self.place("PUT", f"/resource_providers/{made}/inventories", body)[
                "resource_provider_generation"
            ]
        if traits:
            body = {"resource_provider_generation": generation, "traits": list(traits)}
            self.place("PUT", f"/resource_providers/{made}/traits", body)
        return made

    def create_pf_provider(self, host: str, parent: str, pf: str, total: int, *, resource: str) -> str:
        """A PF as nova-compute reports it with `[pci]report_in_placement`; `parent`: the host's own provider."""
        return self.create_provider(
            f"{host}_{pf.upper()}", parent=parent, inventory={resource: total},
            traits=("COMPUTE_MANAGED_PCI_DEVICE", "OWNER_NOVA"),
        )  # fmt: skip

    def resize_inventory(self, provider: str, resource: str, total: int) -> None:
        """As when a PF gets more VFs, or fewer than are allocated."""
        path = f"/resource_providers/{provider}/inventories/{resource}"
        generation = self.place("GET", path)["resource_provider_generation"]
        self.place("PUT", path, {"resource_provider_generation": generation, "total": total})

    def allocate(self, consumer: str, provider: str, resource: str, amount: int = 1) -> None:
        """Adds to what a consumer (an instance, a migration) has already."""
        self._allocate(consumer, provider, resource, amount)

    def deallocate(self, consumer: str, provider: str, resource: str, amount: int = 1) -> None:
        self._allocate(consumer, provider, resource, -amount)

    def _allocate(self, consumer: str, provider: str, resource: str, more: int) -> None:
        now = self.place("GET", f"/allocations/{consumer}")
        has: dict[str, Allocation] = {
            of: {"resources": dict(given["resources"])} for of, given in now["allocations"].items()
        }
        resources = has.setdefault(provider, {"resources": {}})["resources"]
        resources[resource] = resources.get(resource, 0) + more
        if not resources[resource]:
            del resources[resource]
        wanted = {of: given for of, given in has.items() if given["resources"]}
        self.place("PUT", f"/allocations/{consumer}", {
            "allocations": wanted, "project_id": "project", "user_id": "user", "consumer_type": "INSTANCE",
            "consumer_generation": now.get("consumer_generation"),
        })  # fmt: skip

    # Start

    def _start(self) -> None:
        require(PROGRAMS_OF_OPENSTACK)
        self._configure()
        variant = f"{self.release.name}-keystone" if self.keystone else self.release.name
        made = cached(f"databases-{variant}-{self._key()}", self.make_databases)
        run("cp", "-a", "--reflink=auto", f"{made}/.", self.dir)
        self.mariadb.launch()
        for database in ("nb", "sb"):
            run("ovsdb-tool", "create", self.dir / f"{database}.db", OVN_SHARE / f"ovn-{database}.ovsschema")
            self.start_database(database)
        self.nbctl("init")
        self.sbctl("init")
        self.start_northd()
        for host in self.hosts:
            self.add_chassis(host)
        self.mariadb.await_ready()
        if self.keystone:
            self._start_keystone(self.keystone)
        self.neutron.launch()
        self.placement.start()
        self.neutron.await_ready()
        # Until its worker has made this, no port can be made.
        wait_until(lambda: "neutron_pg_drop" in self.nbctl("list", "Port_Group"), 20, "Neutron has set Northbound up")
        if self._maintenance and self.release.name != "debian":
            self._worker.start()

    def _start_keystone(self, keystone: Keystone) -> None:
        keystone.bootstrap()
        keystone.start()
        keystone.register("network", self.neutron.url)
        keystone.register("placement", self.placement.url)

    def add_chassis(self, host: str, name: str | None = None) -> str:
        """What ovn-controller of a compute node writes to Southbound; returns the chassis's name."""
        name = name or str(uuid.uuid5(uuid.NAMESPACE_DNS, host))
        number = len(self.sbctl("--bare", "--columns=_uuid", "list", "Chassis").split()) + 1
        self.sbctl("chassis-add", name, "geneve", f"192.0.2.{number}")
        mappings = f"ovn-bridge-mappings={config.PHYSNET}:br-ex"  # where they are has changed between releases
        self.sbctl("set", "Chassis", name, f"hostname={host}", f"external_ids:{mappings}", f"other_config:{mappings}")
        row = self.sbctl("--bare", "--columns=_uuid", "find", "Chassis", f"name={name}")
        self.sbctl("create", "Chassis_Private", f"name={name}", f"chassis={row}", "nb_cfg=0")
        return name

    def _configure(self) -> None:
        values = {"directory": self.dir, "nb": self.nb, "sb": self.sb, "port": self.neutron.port}
        cells = {"nova-cell1.conf": self.database("nova_cell1"), "nova-cell2.conf": self.nova_sqlite}
        values["auth"], asking = "noauth", ""
        if self.keystone:
            values["auth"], asking = "keystone", config.AUTHTOKEN.format(url=self.keystone.api)
        files = {
            "neutron.conf": config.NEUTRON.format(database=self.database("neutron"), **values) + asking,
            "neutron-paste.ini": config.NEUTRON_PASTE,
            "neutron-policy.yaml": config.NEUTRON_POLICY,
            "placement.conf": config.PLACEMENT.format(
                database=self.database("placement"), auth="keystone" if self.keystone else "noauth2"
            )
            + asking,
        } | {name: config.NOVA.format(database=url, **values) for name, url in cells.items()}
        if self.keystone:
            files["keystone.conf"] = config.KEYSTONE.format(
                database=self.database("keystone"), seconds=self.keystone.seconds, directory=self.dir
            )
        for name, text in files.items():
            (self.dir / name).write_text(text)
        self.env = {name: value for name, value in self.env.items() if not name.startswith("PYTHON")} | {
            "TMPDIR": str(self.dir),  # Neutron leaves a file there
            "OS_NOVA_DISABLE_EVENTLET_PATCHING": "1",  # its objects are used by a plain program
        }

    def _key(self) -> str:
        return digest("\n".join((FORMAT, run("mariadbd", "--version", env=self.env), self.release.versions)))

    def make_databases(self, place: Path) -> None:
        """All tables, by each project's own migrations, which take longer than all the rest; for the cache."""
        self.mariadb.create()
        self.mariadb.start()
        accounts = "CREATE USER {0}@'127.0.0.1' IDENTIFIED BY '{1}'; GRANT {2} TO {0}@'127.0.0.1'"
        for name in (*DATABASES, *(["keystone"] if self.keystone else [])):
            self.mariadb.sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb3")
        self.mariadb.sql(accounts.format("lab", "lab", "ALL ON *.*"))
        self.mariadb.sql(accounts.format("reader", "r3ader", "SELECT ON nova_cell1.*"))
        manage, here = self.release.program, self.dir
        sync = ("db", "sync", "--local_cell")
        cells = {
            name: manage("nova.cmd.manage", "--config-file", here / f"nova-{name}.conf", *sync)
            for name in ("cell1", "cell2")
        }
        migrations = cells | {
            "neutron": manage("neutron.db.migration.cli", "--config-file", here / "neutron.conf", "upgrade", "head"),
            "placement": manage("placement.cmd.manage", "--config-file", here / "placement.conf", "db", "sync"),
        }
        if self.keystone:
            migrations["keystone"] = self.keystone.manage("db_sync")
            self.keystone.create()
        running = {name: self.spawn(*command, log=here / f"{name}-db.log") for name, command in migrations.items()}
        for name, process in running.items():
            try:
                failed = process.wait(MIGRATION_TIMEOUT)
            except subprocess.TimeoutExpired:
                raise LabError(f"the tables of {name} are not made in {MIGRATION_TIMEOUT} s") from None
            if failed:
                raise LabError(f"the tables of {name}: {(here / f'{name}-db.log').read_text()[-1000:]}")
        self.mariadb.stop(signal.SIGTERM)  # in order, so that its copies need no repair
        place.mkdir()
        shutil.move(self.mariadb.data, place / "mariadb")
        shutil.move(self.sqlite, place / "cell2.sqlite")
        if self.keystone:
            shutil.move(self.keystone.keys, place / "keystone")

    # What is in the second cell

    def sqlite_rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Asks or changes the second cell's file."""
        with closing(sqlite3.connect(self.sqlite)) as connection, connection:
            return connection.execute(statement, values).fetchall()
