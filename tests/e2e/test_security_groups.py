"""Incident 4's cause with a real Neutron: GRE behind stateful groups is found, and the remedy's steps mend it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mecexporter.errors import Reason, SourceError
from mecexporter.sources.neutron import NeutronSource
from mecexporter.sources.security_groups import SecurityGroupsSource
from mecexporter.sources.wire.cloud import Cloud
from mecexporter.state.observed import Fresh
from mecexporter.state.world import Settings, empty_world
from tests.lab.openstack import OpenStack
from tests.lab.openstack_releases import debian, newest
from tests.lab.openstack_services import ApiError, ask
from tests.lab.sriov import VfExporter
from tests.sources.daemons import short_dir
from tests.waiting import wait_until
from tests.worlds import CELL1, cell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mecexporter.state.openstack import Cell, Port

HOST = "compute-1"
CHECK = "offload_gre_stateful"
METRIC = "mec_security_group_gre_ports"
SOON = 40

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]


@pytest.fixture(
    scope="module",
    name="openstack",
    params=[debian, pytest.param(newest, marks=pytest.mark.long)],
    ids=lambda r: r.__name__,
)
def an_openstack(request: pytest.FixtureRequest) -> Iterator[OpenStack]:
    with OpenStack([HOST, "compute-2"], release=request.param()) as openstack:
        for host in openstack.hosts:
            openstack.add_sriov_agent(host)
        yield openstack


class Tenant:
    """Groups and ports on a network of their own; VFs are counted up."""

    def __init__(self, openstack: OpenStack, host: str) -> None:
        self.openstack, self.host = openstack, host
        self.network = openstack.create_network(f"net of {host}")
        openstack.create_subnet(self.network, "10.0.0.0/24")
        self.vfs = iter(f"0000:3b:{n >> 3:02x}.{n & 7}" for n in range(2, 64))

    def group(self, name: str, *rules: dict[str, str], **values: Any) -> str:
        wanted = {"name": name, "project_id": "project", **values}
        made: str = self.openstack.network("POST", "/security-groups", {"security_group": wanted})["security_group"][
            "id"
        ]
        for rule in rules:
            self.rule(made, **rule)
        return made

    def rule(self, group: str, **values: str) -> None:
        wanted = {"security_group_id": group, "project_id": "project", "direction": "ingress", **values}
        self.openstack.network("POST", "/security-group-rules", {"security_group_rule": wanted})

    def port(self, *groups: str, **values: Any) -> str:
        if groups:
            values["security_groups"] = list(groups)
        return self.openstack.create_port(self.network, self.host, next(self.vfs), "vm", **values)


def found(exporter: VfExporter) -> set[str]:
    return {f["subject"] for f in exporter.report()["findings"] if f["check"] == CHECK}


def unknown(exporter: VfExporter) -> set[str]:
    return {name for u in exporter.report()["unknown"] if u["check"] == CHECK for name in u["missing"]}


def counts(exporter: VfExporter, host: str = HOST) -> dict[str, float | None]:
    return {stateful: exporter.value(METRIC, hostname=host, stateful=stateful) for stateful in "01"}


def an_exporter(openstack: OpenStack, directory: Path) -> VfExporter:
    own = {"hostname": HOST, "state_dir": str(directory)}
    return VfExporter(openstack, directory, roles=("api",), host=own, openstack={"cloud": "lab", "scope": "all"})


def acls(openstack: OpenStack, action: str, group: str) -> list[str]:
    """What a group's rules match in Northbound."""
    matches = openstack.nbctl("--bare", "--columns=match", "find", "ACL", f"action={action}")
    return [line for line in matches.splitlines() if f"@pg_{group.replace('-', '_')} " in line]


def test_gre_behind_stateful_groups_and_what_is_none(openstack: OpenStack) -> None:
    tenant = Tenant(openstack, HOST)
    by_name = tenant.group("by name", {"protocol": "gre"})
    by_number = tenant.group("by number", {"protocol": "47", "ethertype": "IPv6", "direction": "egress"})
    of_a_group = tenant.group("of a group")
    tenant.rule(of_a_group, protocol="gre", remote_group_id=by_name)
    tcp = tenant.group("tcp", {"protocol": "tcp"})
    everything = tenant.group("everything", {})
    less = tenant.group("less", {"protocol": "gre"}, stateful=False)
    wrong = {
        tenant.port(by_name),
        tenant.port(tcp, by_number, everything),
        tenant.port(of_a_group),
        tenant.port(by_name, **{"binding:vnic_type": "vdpa"}),
    }
    tenant.port(less)
    tenant.port(everything)
    tenant.port()  # in the project's default group
    tenant.port(security_groups=[], port_security_enabled=False)
    tenant.port(by_name, offload=False)  # bound by the SR-IOV agent: Open vSwitch is not in its way
    openstack.create_port(tenant.network, HOST, None, "vm", security_groups=[by_name])
    elsewhere = Tenant(openstack, "compute-2").port(by_name)
    wrong.add(elsewhere)

    with short_dir() as directory, an_exporter(openstack, directory) as exporter:
        subjects = {f"port/{uuid}" for uuid in wrong}
        wait_until(lambda: found(exporter) == subjects, SOON, "those that name GRE, and no others, are found")
        assert counts(exporter) == {"0": 1, "1": 4}
        assert counts(exporter, "compute-2") == {"0": 0, "1": 1}
        unseen = {f["subject"] for f in exporter.report()["findings"] if "not seen from here" in f["summary"]}
        assert unseen == {f"port/{elsewhere}"}

        openstack.neutron.stop()
        wait_until(lambda: unknown(exporter) == {"neutron", "security_groups"}, SOON, "without Neutron it can't tell")
        assert found(exporter) == set()
        assert exporter.series(METRIC) == {}
        openstack.neutron.start()
        wait_until(lambda: found(exporter) == subjects, 2 * SOON, "it is back")

        # The remedy: what is in use can't be changed, nor joined by a stateless one.
        with pytest.raises(ApiError, match="SecurityGroupInUse"):
            openstack.network("PUT", f"/security-groups/{by_name}", {"security_group": {"stateful": False}})
        port = min(wrong)
        with pytest.raises(ApiError, match="Cannot apply both stateful and stateless"):
            openstack.update_port(port, security_groups=[by_name, less])
        (said,) = [f for f in exporter.report()["findings"] if f["subject"] == f"port/{port}"]
        name = said["remedy"].partition("--stateless ")[2].partition(";")[0].strip("'")
        made = tenant.group(name, {"protocol": "47", "remote_ip_prefix": "192.0.2.7/32"}, stateful=False)
        openstack.update_port(port, security_groups=[made])
        wait_until(lambda: found(exporter) == subjects - {f"port/{port}"}, SOON, "it is mended")
        for other in wrong - {port}:
            openstack.update_port(other, security_groups=[made])
        wait_until(lambda: counts(exporter) == {"0": 5, "1": 0}, SOON, "all are mended")
        assert counts(exporter, "compute-2") == {"0": 1, "1": 0}
        wait_until(lambda: (found(exporter), unknown(exporter)) == (set(), set()), SOON, "nothing is found")

        # A rule that is added to a group in use is found too.
        tenant.rule(everything, protocol="gre", ethertype="IPv6")
        wait_until(lambda: len(found(exporter)) == 1, SOON, "a new rule is found")

    assert any("ip.proto == 47" in match for match in acls(openstack, "allow-stateless", made))
    assert acls(openstack, "allow-related", made) == []


def test_one_stateful_port_makes_conntrack_run_on_all_of_its_network(openstack: OpenStack) -> None:
    """Why port security that is off is no remedy: northd sends all IP there but what stateless rules allow."""
    tenant = Tenant(openstack, "compute-2")
    stateless = tenant.group("stateless", {"protocol": "gre"}, stateful=False)
    tenant.port(security_groups=[], port_security_enabled=False)
    tenant.port(stateless)
    switch = f"neutron-{tenant.network}"

    def before_acls() -> dict[str, str]:
        """Match -> action of the stages that decide whether conntrack is asked."""
        lines = (line for line in openstack.sbctl("lflow-list", switch).splitlines() if "_pre_acl " in line)
        return {
            line.partition("match=(")[2].partition("), action=")[0]: line.partition("action=(")[2] for line in lines
        }

    openstack.nbctl("--wait=sb", "sync")
    assert "ip" not in before_acls()
    tenant.port(tenant.group("stateful"))
    openstack.nbctl("--wait=sb", "sync")
    stages = before_acls()
    assert stages["ip"].startswith("reg0[0] = 1; next;"), "of any port"
    group = f"pg_{stateless.replace('-', '_')}"
    assert "reg0[0]" not in stages[f"outport == @{group} && ip4 && ip.proto == 47"]


def clouds_of(user: str, project: str, admins: Path) -> Path:
    """The administrator's clouds.yaml for somebody else, whose name is the password too."""
    given = json.loads(admins.read_text())
    given["clouds"]["lab"]["auth"] |= {"username": user, "password": user, "project_name": project}
    path = admins.with_name(f"{user}.yaml")
    path.write_text(json.dumps(given))
    return path


@pytest.mark.long
async def test_who_may_not_see_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without the administrator's role; then one who may see all ports, and no groups of others."""
    with OpenStack([HOST], release=newest(), token_seconds=3600) as openstack:
        keystone = openstack.keystone
        assert keystone is not None
        token = keystone.token()
        project = ask("POST", f"{keystone.api}/projects", {"project": {"name": "theirs"}}, **token)["project"]["id"]
        user = {"name": "nosy", "password": "nosy", "default_project_id": project}
        nosy = ask("POST", f"{keystone.api}/users", {"user": user}, **token)["user"]["id"]
        (role,) = ask("GET", f"{keystone.api}/roles?name=reader", **token)["roles"]
        ask("PUT", f"{keystone.api}/projects/{project}/users/{nosy}/roles/{role['id']}", **token)
        clouds = openstack.clouds()
        of_nosy = clouds_of("nosy", "theirs", clouds)

        network = openstack.network("POST", "/networks", {"network": {"name": "n"}})["network"]["id"]
        wanted = {"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/24"}
        openstack.network("POST", "/subnets", {"subnet": wanted})
        group = openstack.network("POST", "/security-groups", {"security_group": {"name": "g"}})["security_group"]["id"]
        rule = {"security_group_id": group, "direction": "ingress", "protocol": "gre"}
        openstack.network("POST", "/security-group-rules", {"security_group_rule": rule})
        owner = openstack.network("GET", f"/networks/{network}")["network"]["project_id"]
        port = openstack.create_port(network, HOST, "0000:3b:00.2", "vm", project_id=owner, security_groups=[group])

        async def ports_and_groups(config: Path, *cells: Cell) -> tuple[tuple[Port, ...], Any]:
            monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(config))
            world = replace(empty_world(0.0, HOST, Settings()), applicable=frozenset({CELL1} if cells else ()))
            for told in cells:
                world = world.with_part(CELL1, Fresh(told, 0.0))
            cloud = Cloud("lab")
            ports = await NeutronSource(cloud, every_host=True, interval=300).read(world)
            world = world.with_part("neutron", Fresh(ports, 0.0))
            return ports, await SecurityGroupsSource(cloud, interval=300).read(world)

        ports, groups = await ports_and_groups(clouds)
        assert [p.uuid for p in ports] == [port]
        assert [g.uuid for g in groups] == [group]
        # A port of nosy's own project, to be seen at all.
        mine = openstack.create_port(network, HOST, "0000:3b:00.3", "vm", project_id=project, security_groups=[group])
        with pytest.raises(SourceError, match="has no bindings") as caught:
            await ports_and_groups(of_nosy)
        assert caught.value.reason is Reason.PERMISSION

        with (openstack.dir / "neutron-policy.yaml").open("a") as policy:
            policy.write('"get_port:binding:host_id": ""\n')
        openstack.neutron.stop()
        openstack.neutron.start()
        with pytest.raises(SourceError, match="no port of another project is seen") as caught:
            await ports_and_groups(of_nosy)
        assert caught.value.reason is Reason.PERMISSION
        # Where Nova has claimed nothing, no port is missed.
        with pytest.raises(SourceError, match=f"group {group} of a port is not shown") as caught:
            await ports_and_groups(of_nosy, cell())
        assert caught.value.reason is Reason.PERMISSION
        openstack.delete_port(mine)
