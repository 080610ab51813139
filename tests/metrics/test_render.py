"""One cached block a collector; a broken one costs only itself."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, exposition
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector as LibraryCollector

from mecexporter.metrics.registry import Collector, discover
from mecexporter.metrics.render import Format, Renderer, negotiate
from mecexporter.metrics.spec import Kind, Metric, MetricContractError, Sample
from mecexporter.state.observed import Fresh
from tests.checks.verdicts import AWKWARD
from tests.worlds import COMPUTE_SOURCES, healthy_compute, view_of, without

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client.metrics_core import Metric as Family

    from mecexporter.metrics.registry import View

TOY = Metric(name="mec_toy", help="A toy.", labels=("bridge",))
GOOD = Collector("good", (TOY,), lambda v: (v.world.ovs,), lambda _v: [TOY(1, bridge="a"), TOY(2, bridge="b")])


def view() -> View:
    return view_of(healthy_compute())


def bad(
    collect: Callable[[Any], Iterable[Any]], reads: Callable[[Any], tuple[object, ...]] = lambda _v: ()
) -> Collector:
    return Collector("bad", (TOY,), reads, collect)


def raising(_view: Any) -> Any:
    raise ZeroDivisionError("a bug")


def raising_late(_view: Any) -> Iterable[Sample]:
    yield TOY(1, bridge="a")
    raise ZeroDivisionError("a bug")


OTHER = Metric(name="mec_other", help="Another.")

BROKEN: dict[str, Collector] = {
    "raises": bad(raising),
    "raises in the middle": bad(raising_late),
    "cannot say what it reads": bad(lambda _v: [], raising),
    "a duplicate series": bad(lambda _v: [TOY(1, bridge="a"), TOY(2, bridge="a")]),
    "an undeclared family": bad(lambda _v: [OTHER(1)]),
    "a wrong label": bad(lambda _v: [TOY(1, device="a")]),
    "no label": bad(lambda _v: [TOY(1)]),
    "a value that is no number": bad(lambda _v: [TOY("many", bridge="a")]),  # type: ignore[arg-type]  # on purpose
    "text that UTF-8 cannot hold": bad(lambda _v: [TOY(1, bridge="\ud800")]),
}


@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_collector_costs_only_itself(
    broken: Collector, form: Format, caplog: pytest.LogCaptureFixture
) -> None:
    text = (
        Renderer([broken, replace(GOOD, metrics=(OTHER,), collect=lambda _v: [OTHER(3)])]).render(view(), form).decode()
    )
    assert "mec_other 3.0\n" in text
    assert "mec_toy{" not in text
    assert 'mecexporter_collector_success{collector="bad"} 0.0\n' in text
    assert 'mecexporter_collector_success{collector="good"} 1.0\n' in text
    assert "collector failed" in caplog.text


def test_it_comes_back_by_itself() -> None:
    answers = iter([ZeroDivisionError("a bug"), None])

    def once(_view: Any) -> Iterable[Sample]:
        if (error := next(answers)) is not None:
            raise error
        return [TOY(1, bridge="a")]

    renderer = Renderer([Collector("toy", (TOY,), lambda v: (v.world.ovs,), once)])
    first = view()
    assert b'success{collector="toy"} 0.0' in renderer.render(first)
    again = replace(first, world=replace(first.world, ovs=Fresh(healthy(first), 1.0)))
    assert b'success{collector="toy"} 1.0' in renderer.render(again)


def healthy(v: View) -> Any:
    assert isinstance(v.world.ovs, Fresh)
    return v.world.ovs.value


class Counted:
    """The real collectors, and how often each was asked."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self.collectors = tuple(replace(c, collect=self.count(c)) for c in discover())

    def count(self, c: Collector) -> Callable[[View], Iterable[Sample]]:
        def collect(v: View) -> Iterable[Sample]:
            self.calls[c.name] = self.calls.get(c.name, 0) + 1
            return c.collect(v)

        return collect


def test_nothing_new_is_not_rendered_anew() -> None:
    counted = Counted()
    renderer, now = Renderer(counted.collectors), view()
    first = renderer.render(now)
    assert renderer.render(replace(now, world=replace(now.world, now=now.world.now + 1))) == first
    assert set(counted.calls.values()) == {1}


def test_each_format_has_blocks_of_its_own() -> None:
    renderer, now = Renderer(discover()), view()
    text, openmetrics = renderer.render(now), renderer.render(now, Format.OPENMETRICS)
    assert (renderer.render(now), renderer.render(now, Format.OPENMETRICS)) == (text, openmetrics)
    assert text != openmetrics


@pytest.mark.parametrize("source", sorted(COMPUTE_SOURCES))
def test_only_what_reads_a_part_is_rendered_anew_when_it_changes(source: str) -> None:
    counted = Counted()
    renderer, now = Renderer(counted.collectors), view()
    renderer.render(now)
    counted.calls.clear()
    renderer.render(replace(now, world=without(now.world, source)))
    readers = {"ovs": "ovs_interfaces", "vswitchd": "datapath", "openflow": "integration_bridge"} | {
        "ovn_controller": "ovn_controller",
        "chassis_lookup": "system_id",
        "host": "system_id",
        "sysfs": "sriov",
        "links": "sriov",
    }
    assert {readers.get(source, "sources"), "sources"} <= counted.calls.keys()
    assert "exporter" not in counted.calls
    assert len(counted.calls) < len(counted.collectors)


@pytest.mark.parametrize("source", sorted(COMPUTE_SOURCES))
def test_what_a_collector_does_not_read_it_does_not_show(source: str) -> None:
    """A collector whose ``reads`` forgets a part would go on showing yesterday's block."""
    kept, now = Renderer(discover()), view()
    kept.render(now)
    lost = view_of(without(now.world, source))
    assert kept.render(lost) == Renderer(discover()).render(lost)
    back = view_of(now.world)
    assert kept.render(back) == Renderer(discover()).render(back)


def test_no_collector_shares_a_family_with_another() -> None:
    declared = [m.name for c in discover() for m in c.metrics]
    assert len(declared) == len(set(declared))


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", Format.TEXT),
        ("*/*", Format.TEXT),
        ("text/plain;version=0.0.4", Format.TEXT),
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", Format.OPENMETRICS),
        ("text/html, application/openmetrics-text", Format.OPENMETRICS),
    ],
)
def test_openmetrics_where_it_is_asked_for(accept: str, form: Format) -> None:
    assert negotiate(accept) is form


class TestDeclaration:
    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"name": "node_toy"}, "names are mec_"),
            ({"name": "mec_Toy"}, "names are mec_"),
            ({"name": "mec_toy_total"}, "_total belongs to counters"),
            ({"name": "mec_toy", "kind": Kind.COUNTER}, "_total belongs to counters"),
            ({"name": "mec_toy_info"}, "_info belongs to infos"),
            ({"name": "mec_toy", "kind": Kind.INFO}, "_info belongs to infos"),
            ({"name": "mec_toy", "labels": ("name",)}, "can't be labels"),
            ({"name": "mec_toy", "labels": ("error", "db")}, "can't be labels"),
            ({"name": "mec_toy", "labels": ("db", "db")}, "a label is there twice"),
            ({"name": "mec_toy", "help": "No full stop"}, "ends with a full stop"),
        ],
    )
    def test_the_rules_of_names_are_kept_at_import(self, fields: dict[str, Any], words: str) -> None:
        with pytest.raises(MetricContractError, match=words):
            Metric(**{"help": "A toy."} | fields)

    def test_a_sample_has_its_labels_in_the_declarations_order(self) -> None:
        metric = Metric(name="mec_toy", help="A toy.", labels=("db", "server"))
        assert metric(True, server="local", db="x") == Sample(metric, ("x", "local"), 1.0)


class _Library(LibraryCollector):
    """The same families, as prometheus-client has them."""

    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> list[Family]:
        return self._families


VALUES = (0, 1, -1.5, 0.1, 1e-9, 21, 1_234_567, 1_800_000_000.125, 1e21, float("inf"), float("-inf"), float("nan"))


@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize("name", ["mec_awkward", "mec_awkward_total", "mec_awkward_info"])
def test_lines_are_the_librarys(form: Format, name: str) -> None:
    """Whatever labels and values hold."""
    kind = {"mec_awkward_total": Kind.COUNTER, "mec_awkward_info": Kind.INFO}.get(name, Kind.GAUGE)
    about = 'Back\\slash, "quotes" and\na second line.'
    ours = Metric(name=name, help=about, labels=("zone", "chassis"), kind=kind)
    bare = Metric(name="mec_bare", help="None.")
    family = (CounterMetricFamily if kind is Kind.COUNTER else GaugeMetricFamily)(name, about, labels=ours.labels)
    samples = []
    for number, text in enumerate([*AWKWARD, "", "=", "{}", ","]):
        samples.append(ours(VALUES[number % len(VALUES)], zone=text, chassis=f"{number}{text}"))
        family.add_metric((text, f"{number}{text}"), VALUES[number % len(VALUES)])
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Library([family, GaugeMetricFamily("mec_bare", "None.", value=7)]))
    generate = exposition.generate_latest if form is Format.TEXT else openmetrics.generate_latest
    expected: bytes = generate(registry)

    awkward = Collector("awkward", (ours, bare), lambda _v: (), lambda _v: [*samples, bare(7)])
    rendered = Renderer([awkward]).render(view_of(healthy_compute()), form)
    assert rendered.partition(b"# HELP mecexporter_")[0] == expected.removesuffix(b"# EOF\n")
