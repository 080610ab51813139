"""Series of chassis and gateways."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mecexporter.state.propagation import Gateway, Lag, ListedChassis
from mecexporter.state.world import Settings
from tests.metrics.scrape import series
from tests.worlds import HOSTNAME, PEER, SYSTEM_ID, healthy_central, leading, propagation, reported

if TYPE_CHECKING:
    from mecexporter.state.propagation import Propagation
    from mecexporter.state.world import World


def of(world: World, name: str) -> dict[frozenset[tuple[str, str]], float]:
    return {labels: value for (found, labels), value in series(world).items() if found == name}


def states(seen: Propagation, settings: Settings | None = None) -> dict[str, float]:
    """Those that are not 0."""
    world = leading(replace(healthy_central(), settings=settings or Settings()), seen)
    found = {dict(labels)["state"]: value for labels, value in of(world, "mec_ovn_chassis_state").items()}
    assert set(found) == {"current", "behind", "stalled", "stale", "maintenance", "remote", "silent"}
    assert sum(found.values()) == len(seen.chassis)
    return {state: value for state, value in found.items() if value}


def test_each_chassis_is_listed_with_its_encapsulations() -> None:
    both = ListedChassis(name="b", hostname="h", encaps=(("geneve", "192.0.2.7"), ("vxlan", "192.0.2.8")))
    bare = ListedChassis(name="c", hostname="")
    world = leading(healthy_central(), propagation(chassis={"b": both, "c": bare}, reported={}))
    assert of(world, "mec_ovn_chassis_info") == {
        frozenset(
            {"chassis": "b", "hostname": "h", "encap_type": "geneve,vxlan", "encap_ip": "192.0.2.7,192.0.2.8"}.items()
        ): 1,
        frozenset({"chassis": "c", "hostname": "", "encap_type": "", "encap_ip": ""}.items()): 1,
    }


def test_what_each_has_reported() -> None:
    seen = propagation(reported={SYSTEM_ID: reported(20), PEER: reported(0, at=None)})
    world = leading(healthy_central(), seen)
    first = frozenset({"chassis": SYSTEM_ID, "hostname": HOSTNAME}.items())
    second = frozenset({"chassis": PEER, "hostname": "compute-2"}.items())
    assert of(world, "mec_ovn_chassis_nb_cfg") == {first: 20, second: 0}
    assert of(world, "mec_ovn_chassis_nb_cfg_timestamp_seconds").keys() == {first}, "one that never did has no time"


@pytest.mark.parametrize(
    ("peer", "state"),
    [
        (reported(), "current"),
        (reported(20, behind=5), "behind"),
        (reported(20, behind=60), "behind"),
        (reported(20, behind=61), "stalled"),
        (reported(3, behind=700, stale=True), "stale"),
        (None, "silent"),
    ],
)
def test_each_is_in_one_state(peer: object, state: str) -> None:
    of_peer = {} if peer is None else {PEER: peer}
    found = states(propagation(reported={SYSTEM_ID: reported(), **of_peer}))
    assert found == ({"current": 2} if state == "current" else {"current": 1, state: 1})


def test_remote_and_maintenance_come_before_what_they_report() -> None:
    remote = replace(propagation().chassis[PEER], remote=True)
    seen = propagation(
        chassis={**propagation().chassis, PEER: remote}, reported={SYSTEM_ID: reported(2, behind=900, stale=True)}
    )
    assert states(seen, Settings(maintenance_hosts=frozenset({HOSTNAME}))) == {"maintenance": 1, "remote": 1}


def test_how_far_behind() -> None:
    """The stale and those in maintenance are not waited for."""
    third = ListedChassis(name="t", hostname="third")
    seen = propagation(
        southbound=Lag(behind=4.0),
        chassis={**propagation().chassis, "t": third},
        reported={
            SYSTEM_ID: reported(20, behind=7),
            PEER: reported(3, behind=900, stale=True),
            "t": reported(2, behind=99),
        },
    )
    world = replace(leading(healthy_central(), seen), settings=Settings(maintenance_hosts=frozenset({"third"})))
    assert of(world, "mec_ovn_sb_behind_seconds") == {frozenset(): 4}
    assert of(world, "mec_ovn_chassis_behind_seconds") == {frozenset(): 7}


def test_nobody_is_behind() -> None:
    for name in ("mec_ovn_sb_behind_seconds", "mec_ovn_chassis_behind_seconds"):
        assert of(healthy_central(), name) == {frozenset(): 0}


def test_a_gateway_is_in_one_state() -> None:
    gateways = (
        Gateway(port="a", chassis=PEER, preferred=True),
        Gateway(port="b", chassis=PEER, preferred=None),
        Gateway(port="c", chassis=PEER, preferred=False),
        Gateway(port="d", chassis=None),
    )
    world = leading(healthy_central(), propagation(gateways=gateways))
    found = {dict(labels)["state"]: value for labels, value in of(world, "mec_ovn_gateway_ports").items()}
    assert found == {"claimed": 2, "not_preferred": 1, "unclaimed": 1}


def test_a_list_read_anew_that_says_the_same_is_printed_as_before() -> None:
    again = propagation(chassis=dict(propagation().chassis))
    assert of(leading(healthy_central(), again), "mec_ovn_chassis_info") == of(
        healthy_central(), "mec_ovn_chassis_info"
    )
