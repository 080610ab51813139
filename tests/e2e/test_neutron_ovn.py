"""Neutron's objects against Northbound's rows, with a real Neutron, ML2/OVN, OVN and MariaDB."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

import pytest

from tests.lab.openstack import OpenStack
from tests.lab.openstack_releases import debian, newest
from tests.lab.site import run
from tests.lab.sriov import VfExporter
from tests.sources.daemons import short_dir
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOST = "compute-1"
CHECK = "neutron_ovn_drift"
METRIC = "mec_neutron_ovn_objects"
SOON = 60
REVISION = 'external_ids:"neutron:revision_number"'

LONGER = pytest.mark.timeout(3000)

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]


@pytest.fixture(
    scope="module",
    name="openstack",
    params=[debian, pytest.param(newest, marks=pytest.mark.long)],
    ids=lambda r: r.__name__,
)
def an_openstack(request: pytest.FixtureRequest) -> Iterator[OpenStack]:
    """Without Neutron's maintenance, so that nothing mends what a test breaks."""
    with OpenStack([HOST], release=request.param()) as openstack:
        # Without a place for gateways, Neutron 29's tool fails half-way.
        gateway = "ovn-cms-options=enable-chassis-as-gw"
        chassis = openstack.sbctl("--bare", "--columns=name", "list", "Chassis").strip()
        openstack.sbctl("set", "Chassis", chassis, f"external_ids:{gateway}", f"other_config:{gateway}")
        yield openstack


class Tenant:
    """One of each object that Northbound must hold, and of those that it must not."""

    def __init__(self, openstack: OpenStack) -> None:
        self.openstack = openstack
        self.net = openstack.create_network("net")
        subnet = self.subnet = openstack.create_subnet(self.net, "10.0.0.0/24")
        self.make("subnets", network_id=self.net, ip_version=6, cidr="fd00::/64", ipv6_address_mode="slaac",
                  ipv6_ra_mode="slaac")  # fmt: skip
        self.make("subnets", network_id=self.net, ip_version=4, cidr="10.9.0.0/24", enable_dhcp=False)
        segment = {"provider:network_type": "vlan", "provider:physical_network": "physnet2"}
        outside = self.make("networks", **{"router:external": True}, **segment)
        openstack.create_subnet(outside, "203.0.113.0/24")
        self.router = self.make("routers", external_gateway_info={"network_id": outside})
        added = openstack.network("PUT", f"/routers/{self.router}/add_router_interface", {"subnet_id": subnet})
        self.interface: str = added["port_id"]
        route = {"destination": "198.51.100.0/24", "nexthop": "10.0.0.77"}
        openstack.network("PUT", f"/routers/{self.router}", {"router": {"routes": [route]}})
        self.group = self.make("security-groups", name="g", stateful=False)
        at = {"fixed_ips": [{"subnet_id": subnet}]}
        self.port = self.add_port(**at, security_groups=[self.group])
        pair = {"ip_address": "10.0.0.200", "mac_address": "00:00:5e:00:01:01"}
        self.add_port(**at, admin_state_up=False, allowed_address_pairs=[pair])
        self.add_port(port_security_enabled=False, security_groups=[])
        openstack.create_port(self.net, HOST, "0000:3b:00.2", "vm")
        self.make("ports", network_id=self.net, fixed_ips=[])
        self.outside = outside
        self.floating_ip = self.make("floatingips", floating_network_id=outside, port_id=self.port)
        self.make("floatingips", floating_network_id=outside)

    def make(self, what: str, **values: Any) -> str:
        kind = what.removesuffix("s").replace("-", "_")
        wanted = {kind: {"project_id": "project", **values}}
        made: str = self.openstack.network("POST", f"/{what}", wanted)[kind]["id"]
        return made

    def add_port(self, **values: Any) -> str:
        return self.openstack.create_port(self.net, HOST, None, "vm", **values)

    def touch(self, what: str, uuid: str) -> None:
        """As the remedy says: an update that changes nothing has Neutron write the row anew."""
        kind = what.removesuffix("s").replace("-", "_")
        field = "description" if what == "floatingips" else "name"
        now = self.openstack.network("GET", f"/{what}/{uuid}?fields={field}")[kind]
        self.openstack.network("PUT", f"/{what}/{uuid}", {kind: {field: now[field]}})

    def touch_all(self) -> None:
        """In place of Neutron's maintenance: what was made or joined is behind until then."""
        for what in ("subnets", "networks", "routers", "ports"):
            for row in self.openstack.network("GET", f"/{what}?fields=id&fields=device_owner")[what]:
                if row.get("device_owner") != "network:floatingip":
                    self.touch(what, row["id"])


def an_exporter(openstack: OpenStack, directory: Path, **sections: Any) -> VfExporter:
    servers = {
        name: {"database": getattr(openstack, db), "control": f"{openstack.dir}/{db}.ctl"}
        for name, db in (("northbound", "nb"), ("southbound", "sb"))
    }
    own: dict[str, Any] = {
        "host": {"hostname": "central-1", "state_dir": str(directory)},
        "ovn": {"run_dir": str(directory / "nothing"), **servers},
        "grace": {"neutron_behind": "1s"},
    }
    return VfExporter(openstack, directory, roles=("central",), **own | sections)


def found(exporter: VfExporter) -> dict[str, str]:
    """Subject -> summary."""
    return {f["subject"]: f["summary"] for f in exporter.report()["findings"] if f["check"] == CHECK}


def unknown(exporter: VfExporter) -> set[str]:
    return {name for u in exporter.report()["unknown"] if u["check"] == CHECK for name in u["missing"]}


def counts(exporter: VfExporter) -> dict[tuple[str, str], float]:
    """What is not in sync, by resource and state."""
    found = {}
    for labels, value in exporter.series(METRIC).items():
        resource, state = (part.split('"')[1] for part in labels.strip("{}").split(","))
        if value and state != "in_sync":
            found[resource, state] = value
    return found


def evaluated(exporter: VfExporter) -> bool:
    return CHECK in exporter.report()["ok"] and bool(exporter.series(METRIC))


def row_of(openstack: OpenStack, table: str, uuid: str) -> str:
    """Of a row without a name, as the remedy finds it."""
    key = {"NAT": '"neutron:fip_id"', "DHCP_Options": "subnet_id"}[table]
    return openstack.nbctl("--bare", "--columns=_uuid", "find", table, f"external_ids:{key}={uuid}").strip()


def test_every_drift_and_what_is_none(openstack: OpenStack) -> None:
    tenant = Tenant(openstack)
    other = openstack.create_network("other")
    ports = {name: tenant.add_port() for name in ("lost", "behind", "ahead", "moved", "off", "ungrouped", "joined")}
    spare = {name: tenant.make("routers") for name in ("lost", "behind", "ahead")}
    nets = {name: openstack.create_network(name) for name in ("behind", "ahead")}
    lost_group = tenant.make("security-groups", name="lost")
    fixed = {"fixed_ips": [{"subnet_id": tenant.subnet}]}
    fips = {
        name: tenant.make("floatingips", floating_network_id=tenant.outside, port_id=tenant.add_port(**fixed))
        for name in ("lost", "behind", "ahead", "moved")
    }
    nets |= {"served": openstack.create_network("served")}
    subnets = {
        name: openstack.create_subnet(nets["served"], f"10.{n}.0.0/24")
        for n, name in enumerate(("lost", "behind", "ahead"), 1)
    }
    for name, subnet in subnets.items():  # Neutron 29 makes them with revision 0
        openstack.network("PUT", f"/subnets/{subnet}", {"subnet": {"name": name}})
    tenant.touch_all()
    strange = str(uuid4())
    # By these names Neutron's own tool knows a row for its own.
    own_names = (f'external_ids:"neutron:{kind}_name"={strange}' for kind in ("network", "port", "router"))
    ids = (f"{REVISION}=1", *own_names)

    with short_dir() as directory, an_exporter(openstack, directory) as exporter:
        wait_until(lambda: evaluated(exporter), SOON, "the first audit")
        wait_until(lambda: (counts(exporter), found(exporter)) == ({}, {}), SOON, "all is in sync")
        numbers = {labels: value for labels, value in exporter.series(METRIC).items() if '"in_sync"' in labels}
        assert {labels.split('"')[1] for labels, value in numbers.items() if value} == {
            "network", "port", "router", "router_port", "security_group", "subnet", "floating_ip",
        }  # fmt: skip

        nb = openstack.nbctl
        nb("lsp-del", ports["lost"])
        nb("ls-del", f"neutron-{other}")
        nb("lr-del", f"neutron-{spare['lost']}")
        nb("lrp-del", f"lrp-{tenant.interface}")
        nb("pg-del", f"pg_{lost_group.replace('-', '_')}")
        nb("lsp-add", f"neutron-{tenant.net}", strange, "--", "set", "Logical_Switch_Port", strange, *ids)
        for add, table in (("ls-add", "Logical_Switch"), ("lr-add", "Logical_Router")):
            nb(add, f"neutron-{strange}", "--", "set", table, f"neutron-{strange}", *ids)
        pg = f"pg_{strange.replace('-', '_')}"
        nb("pg-add", pg, "--", "set", "Port_Group", pg, f'external_ids:"neutron:security_group_id"={strange}')
        lrp = f"lrp-{strange}"
        nb("lrp-add", f"neutron-{strange}", lrp, "fa:16:3e:00:00:09", "10.66.0.1/24", "--", "set",
           "Logical_Router_Port", lrp, *ids)  # fmt: skip
        router = f"neutron-{tenant.router}"
        nb("remove", "Logical_Router", router, "nat", row_of(openstack, "NAT", fips["lost"]))
        nb("destroy", "DHCP_Options", row_of(openstack, "DHCP_Options", subnets["lost"]))
        nb("set", "NAT", row_of(openstack, "NAT", fips["moved"]), "logical_ip=192.0.2.1")
        nb("lr-nat-add", router, "dnat_and_snat", "203.0.113.250", "10.0.0.250")
        row = nb("--bare", "--columns=_uuid", "find", "NAT", "external_ip=203.0.113.250").strip()
        nb("set", "NAT", row, f"{REVISION}=1", f'external_ids:"neutron:fip_id"={strange}')
        nb("create", "DHCP_Options", "cidr=10.77.0.0/24", f"external_ids:subnet_id={strange}", f"{REVISION}=1")
        for name, revision in (("behind", 0), ("ahead", 99)):
            nb("set", "NAT", row_of(openstack, "NAT", fips[name]), f"{REVISION}={revision}")
            nb("set", "DHCP_Options", row_of(openstack, "DHCP_Options", subnets[name]), f"{REVISION}={revision}")
            nb("set", "Logical_Switch_Port", ports[name], f"{REVISION}={revision}")
            nb("set", "Logical_Switch", f"neutron-{nets[name]}", f"{REVISION}={revision}")
            nb("set", "Logical_Router", f"neutron-{spare[name]}", f"{REVISION}={revision}")
        nb("set", "Logical_Switch_Port", ports["moved"], 'addresses="fa:16:3e:00:00:07 10.0.0.99"')
        nb("set", "Logical_Switch_Port", ports["off"], "enabled=false")
        default = next(row for row in openstack.ports() if row["id"] == ports["ungrouped"])["security_groups"][0]
        members = f"pg_{default.replace('-', '_')}"
        row = nb("--bare", "--columns=_uuid", "find", "Logical_Switch_Port", f"name={ports['ungrouped']}").strip()
        nb("remove", "Port_Group", members, "ports", row)
        row = nb("--bare", "--columns=_uuid", "find", "Logical_Switch_Port", f"name={ports['joined']}").strip()
        nb("add", "Port_Group", f"pg_{tenant.group.replace('-', '_')}", "ports", row)
        # None of Neutron's: an operator's own rows.
        nb("ls-add", "transit", "--", "lsp-add", "transit", str(uuid4()), "--", "lr-add", "mine")

        missing = {f"port/{ports['lost']}", f"network/{other}", f"router/{spare['lost']}",
                   f"router_port/{tenant.interface}", f"security_group/{lost_group}",
                   f"floating_ip/{fips['lost']}", f"subnet/{subnets['lost']}"}  # fmt: skip
        kinds = ("port", "network", "router", "subnet", "floating_ip", "router_port", "security_group")
        extra = {f"{kind}/{strange}" for kind in kinds}
        behind, ahead = (
            {f"port/{ports[name]}", f"network/{nets[name]}", f"router/{spare[name]}"}
            | {f"subnet/{subnets[name]}", f"floating_ip/{fips[name]}"}
            for name in ("behind", "ahead")
        )
        changed = {f"port/{ports[name]}" for name in ("moved", "off", "ungrouped", "joined")}
        changed |= {f"floating_ip/{fips['moved']}"}
        everything = missing | extra | behind | ahead | changed
        wait_until(lambda: found(exporter).keys() == everything, SOON, "each is found, and nothing else")
        said = found(exporter)
        assert {s for s in said if "and Northbound has no" in said[s]} == missing
        assert {s for s in said if "is not in Neutron" in said[s]} == extra
        assert {s for s in said if "still of 0" in said[s]} == behind
        assert {s for s in said if "in Northbound of 99" in said[s]} == ahead
        assert {s: said[s].rpartition("but not its ")[2] for s in changed} == {
            f"port/{ports['moved']}": "addresses",
            f"floating_ip/{fips['moved']}": "addresses",
            f"port/{ports['off']}": "admin state",
            f"port/{ports['ungrouped']}": "security groups",
            f"port/{ports['joined']}": "security groups",
        }
        assert counts(exporter) == {
            **{(kind, state): 1 for kind in kinds for state in ("missing", "extra")},
            **{(kind, state): 1 for kind in kinds[:5] for state in ("behind", "ahead")},
            ("port", "changed"): 4,
            ("floating_ip", "changed"): 1,
        }

        repair(openstack, tenant, said, ports)
        wait_until(lambda: (found(exporter), counts(exporter)) == ({}, {}), SOON, "it is mended")


def repair(openstack: OpenStack, tenant: Tenant, said: dict[str, str], ports: dict[str, str]) -> None:
    """What the remedies say."""
    tables = {"port": "Logical_Switch_Port", "network": "Logical_Switch", "router": "Logical_Router",
              "subnet": "DHCP_Options", "floating_ip": "NAT"}  # fmt: skip
    for subject, summary in said.items():
        kind, _, uuid = subject.partition("/")
        what = f"{kind.replace('_', '')}s"
        if "in Northbound of 99" in summary:
            table = tables[kind]
            name = row_of(openstack, table, uuid) if table in ("NAT", "DHCP_Options") else uuid
            name = f"neutron-{uuid}" if kind in ("network", "router") else name
            tenant.touch(what, uuid)
            name = row_of(openstack, table, uuid) if table in ("NAT", "DHCP_Options") else name  # it may be a new one
            kept = openstack.nbctl("get", table, name, REVISION).strip()
            if kind in ("network", "port", "router"):
                assert kept == '"99"', "Neutron does not write what seems newer"
            openstack.nbctl("set", table, name, f"{REVISION}=0")
        if "still of" in summary or "in Northbound of" in summary or "but not its" in summary:
            tenant.touch(what, uuid)
    for name in ("ungrouped", "joined"):
        groups = next(row for row in openstack.ports() if row["id"] == ports[name])["security_groups"]
        openstack.update_port(ports[name], security_groups=[])
        openstack.update_port(ports[name], security_groups=[tenant.group] if name == "joined" else groups)
        openstack.update_port(ports[name], security_groups=groups)
    tool = openstack.release.program(
        "neutron.cmd.ovn.neutron_ovn_db_sync_util", "--config-file", openstack.dir / "neutron.conf",
        "--ovn-neutron_sync_mode", "repair",
    )  # fmt: skip
    run(*tool, env=openstack.env)
    tenant.touch_all()


def test_without_either_side_it_cannot_tell(openstack: OpenStack) -> None:
    """Neither nothing nor yesterday's numbers: no series at all."""
    tenant = Tenant(openstack)
    tenant.touch_all()
    with short_dir() as directory, an_exporter(openstack, directory) as exporter:
        wait_until(lambda: evaluated(exporter), SOON, "the first audit")
        openstack.neutron.stop()
        wait_until(lambda: unknown(exporter) == {"neutron_ovn"}, SOON, "without Neutron it can't tell")
        assert exporter.series(METRIC) == {}
        openstack.neutron.start()
        wait_until(lambda: evaluated(exporter), 2 * SOON, "Neutron is back")
        openstack.kill_database("nb")
        wait_until(lambda: unknown(exporter) == {"neutron_ovn"}, SOON, "without Northbound it can't tell")
        assert exporter.series(METRIC) == {}
        openstack.start_database("nb")
        wait_until(lambda: evaluated(exporter), 2 * SOON, "Northbound is back")
        assert found(exporter) == {}


class Load:
    """Ports, networks and groups made, changed and deleted without pause, by a few users at once."""

    def __init__(self, openstack: OpenStack, users: int = 2) -> None:
        self.tenant = Tenant(openstack)
        self.rounds = 0
        self.failures: list[Exception] = []
        self._ended = threading.Event()
        self._users = [threading.Thread(target=self._use) for _ in range(users)]

    def __enter__(self) -> Self:
        for user in self._users:
            user.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for user in self._users:
            user.join()

    def _use(self) -> None:
        tenant = self.tenant
        try:
            while not self._ended.is_set():
                port = tenant.add_port(security_groups=[tenant.group])
                tenant.openstack.update_port(port, name="n", admin_state_up=False)
                tenant.openstack.update_port(port, security_groups=[], description="d")
                net, group = tenant.make("networks"), tenant.make("security-groups", name="g")
                tenant.openstack.create_subnet(net, "10.7.0.0/24")
                tenant.openstack.delete_port(port)
                for what, uuid in (("networks", net), ("security-groups", group)):
                    tenant.openstack.network("DELETE", f"/{what}/{uuid}")
                self.rounds += 1
        except Exception as error:  # noqa: BLE001  # told by the test
            self.failures.append(error)


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(60, id="a minute", marks=pytest.mark.long),
        pytest.param(1800, id="half an hour", marks=[pytest.mark.long, LONGER]),
    ],
)
def test_a_busy_neutron_is_none(openstack: OpenStack, seconds: float) -> None:
    """Behind is all that is ever counted, and not told: it is for Neutron's maintenance, which does not run here."""
    settings: dict[str, Any] = {"grace": {"neutron_behind": "1h"}, "intervals": {"live": "1s", "openstack": "10s"}}
    with Load(openstack) as load, short_dir() as directory, an_exporter(openstack, directory, **settings) as exporter:
        wait_until(lambda: evaluated(exporter), SOON, "the first audit")
        begun, looks = load.rounds, set()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert (found(exporter), unknown(exporter)) == ({}, set())
            assert {state for _, state in counts(exporter)} <= {"behind"}
            looks.add(exporter.reads("neutron_ovn"))
            assert load.failures == []
        assert len(looks) > seconds / 60
        assert load.rounds - begun > seconds / 20
