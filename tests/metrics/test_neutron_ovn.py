"""Neutron's objects, counted by what Northbound holds of them."""

from dataclasses import replace

from mecexporter.metrics.registry import discover
from mecexporter.metrics.render import Renderer
from mecexporter.state.neutron_ovn import Drift, Resource, State
from tests.metrics.scrape import values
from tests.worlds import audit, audited, healthy_central, view_of, without

METRIC = "mec_neutron_ovn_objects"
PORT = Resource.PORT


def drift(uuid: str, state: State, age: float = 60.0) -> Drift:
    return Drift(resource=PORT, uuid=uuid, state=state, age=age)


WORLD = audited(
    healthy_central(),
    audit(
        *(drift(f"b{n}", State.BEHIND) for n in range(3)),
        drift("m", State.MISSING),
        drift("e", State.EXTRA),
        drift("a", State.AHEAD),
        drift("new", State.BEHIND, age=0),
    ),
)


def test_by_state() -> None:
    assert values(WORLD, METRIC, "state", resource="port") == {
        ("in_sync",): 95,
        ("missing",): 1,
        ("extra",): 1,
        ("behind",): 3,
        ("ahead",): 1,
        ("changed",): 0,
    }
    of_others = values(WORLD, METRIC, "resource", "state")
    assert {resource for resource, _ in of_others} == set(Resource)
    assert {pair: n for pair, n in of_others.items() if n and pair[0] != "port"} == {
        (resource, "in_sync"): 10.0 for resource in Resource if resource is not PORT
    }


def test_what_was_seen_once_is_not_counted() -> None:
    once = audited(healthy_central(), audit(drift("m", State.MISSING, age=0), drift("b", State.BEHIND, age=0)))
    page = Renderer(discover()).render(view_of(once, reads=1)).decode()
    assert f'{METRIC}{{resource="port",state="in_sync"}} 100.0' in page.splitlines()


def test_without_an_answer_there_are_none() -> None:
    assert values(without(WORLD, "neutron_ovn"), METRIC, "state") == {}
    assert values(replace(WORLD, applicable=WORLD.applicable - {"neutron_ovn"}), METRIC, "state") == {}
