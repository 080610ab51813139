"""Ports whose groups name GRE, counted."""

from dataclasses import replace

import pytest

from mecexporter.state.observed import Fresh
from mecexporter.state.openstack import SecurityGroup
from mecexporter.state.world import World
from tests.metrics.scrape import series
from tests.worlds import ALICE, BOB, HOSTNAME, READ, healthy_sriov, port, without

METRIC = "mec_security_group_gre_ports"


def world() -> World:
    """Three hosts: two ports of this one name GRE, one stateful; one of the second does; the third's NIC is legacy."""
    ports = (
        port("a", 0, ALICE, groups=("gre", "default")),
        port("b", 1, BOB, host=HOSTNAME.upper(), groups=("less",)),
        port("c", 2, BOB, groups=("default",)),
        port("d", 0, BOB, host="compute-2", groups=("gre",)),
        port("e", 0, BOB, host="compute-3", groups=("gre",), switched=False),
    )
    groups = (
        SecurityGroup(uuid="gre", name="gre", project="p", stateful=True),
        SecurityGroup(uuid="less", name="less", project="p", stateful=False),
    )
    base = healthy_sriov().with_part("neutron", Fresh(ports, READ))
    return base.with_part("security_groups", Fresh(groups, READ))


def counts(of: World) -> dict[tuple[str, str], float]:
    return {(dict(p)["hostname"], dict(p)["stateful"]): v for (name, p), v in series(of).items() if name == METRIC}


def test_by_host() -> None:
    assert counts(world()) == {
        (HOSTNAME, "0"): 1,
        (HOSTNAME, "1"): 1,
        ("compute-2", "0"): 0,
        ("compute-2", "1"): 1,
    }


@pytest.mark.parametrize("source", ["neutron", "security_groups"])
def test_without_a_source_there_are_none(source: str) -> None:
    assert counts(without(world(), source)) == {}
    assert counts(replace(world(), applicable=world().applicable - {source})) == {}
