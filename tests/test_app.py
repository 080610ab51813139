"""The engine with sources that are doubles (they say what they are told to) on a clock of its own."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import resource
import socket
import threading
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from mecexporter import app
from mecexporter.app import Engine, make_sources, settings
from mecexporter.checks.base import discover as discover_checks
from mecexporter.config import Config, load
from mecexporter.errors import MecExporterError, Reason, SourceError
from mecexporter.metrics.registry import discover
from mecexporter.metrics.render import Renderer
from mecexporter.sources.base import Source
from mecexporter.state.observed import Absent, Fresh
from mecexporter.state.ovn import OvnController
from mecexporter.state.world import Role, SystemIdPolicy
from mecexporter.store import Saved, Store
from tests.virtual_time import now, run_virtual, until
from tests.waiting import eventually
from tests.worlds import (
    CENTRAL_SOURCES,
    COMPUTE_SOURCES,
    HOSTNAME,
    NOW,
    SYSTEM_ID,
    healthy_compute,
    reinstalled_compute,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

    from mecexporter.state.world import World

HANGS = object()
REFUSED = SourceError(Reason.REFUSED, "nobody listens")
REFUSED_NOW = Absent("nobody listens", NOW, NOW, Reason.REFUSED)
REAL = {s.name: s for s in make_sources(Config())}


class Double(Source[Any]):
    """In a real source's place, with its roles and needs."""

    def __init__(self, name: str, says: object, interval: float = 15.0) -> None:
        self.name, self.roles, self.needs = name, REAL[name].roles, REAL[name].needs
        self.deadline, self.interval, self.says = REAL[name].deadline, interval, says
        self.takes = 0.0

    async def read(self, world: World) -> Any:  # noqa: ARG002  # it says what it says
        await until(now() + self.takes)
        if self.says is HANGS:
            await asyncio.Event().wait()
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


def said(world: World) -> dict[str, Any]:
    parts = {name: world.part(name) for name in COMPUTE_SOURCES}
    return {name: part.value for name, part in parts.items() if isinstance(part, Fresh)}


@dataclass
class Node:
    """An engine and its doubles."""

    store: Store
    config: Config = field(default_factory=Config)
    saved: Saved = field(default_factory=lambda: Saved(format=1))
    doubles: dict[str, Double] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.doubles = {name: Double(name, value) for name, value in said(healthy_compute()).items()} | self.doubles

    def says(self, **values: object) -> None:
        for name, value in values.items():
            self.doubles[name].says = value

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Engine]:
        engine = Engine(self.config, self.store, self.saved, read_only=True)
        task = asyncio.create_task(engine.run())
        try:
            yield engine
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    made = Node(Store(tmp_path))
    monkeypatch.setattr(
        app,
        "make_sources",
        lambda config: tuple(s for s in made.doubles.values() if s.name not in config.sources.disable),
    )
    on_virtual_time(monkeypatch)
    return made


def on_virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's clocks are the loop's."""
    monkeypatch.setattr(app, "make_clock", lambda: lambda: NOW + now())
    monkeypatch.setattr(app, "time", SimpleNamespace(time=lambda: NOW + now()))
    monkeypatch.setattr("mecexporter.sources.base.time", SimpleNamespace(monotonic=now))
    monkeypatch.setattr(app, "aside", at_once)
    monkeypatch.setattr(socket, "gethostname", lambda: "kernel-name")


async def at_once(function: Callable[..., Any], *args: object) -> Any:
    """In place of aside(): a clock of our own has no time for threads."""
    return function(*args)


def scenario(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    run_virtual(story())


def fields(value: Any, **changes: Any) -> Any:
    return replace(value, **changes)


def found(engine: Engine) -> dict[str, int]:
    return {name: len(opened) for name, opened in engine.view().report.findings.items() if opened}


def test_a_healthy_node(node: Node) -> None:
    async def story() -> None:
        async with node.running() as engine:
            assert not engine.ready()
            await until(2)
            view = engine.view()
            assert engine.ready()
            assert view.world.roles == {Role.COMPUTE}
            assert view.world.applicable == COMPUTE_SOURCES
            assert all(isinstance(view.world.part(s), Fresh) for s in COMPUTE_SOURCES)
            assert view.world.hostname == HOSTNAME
            assert found(engine) == {}
            await until(130)
            assert engine.view().world.memory.healthy_id == SYSTEM_ID
            assert not engine.view().report.unknown

    scenario(story)


def test_it_is_ready_when_every_source_has_ended_a_round_well_or_badly(node: Node) -> None:
    async def story() -> None:
        node.says(openflow=REFUSED, vswitchd=HANGS, ovn_controller=ZeroDivisionError("a bug"))
        async with node.running() as engine:
            await until(4)
            assert not engine.ready(), "vswitchd has 5 s"
            await until(6)
            assert engine.ready()

    scenario(story)


def test_once_ready_it_stays_so_while_answers_come_in(node: Node) -> None:
    async def story() -> None:
        async with node.running() as engine:
            await until(3)
            assert engine.ready()
            engine._publish(node.doubles["ovs"], REFUSED_NOW, engine.view().world.status["ovs"])
            assert engine.ready(), "what has just come in is looked at in a moment"

    scenario(story)


def test_sources_that_nobody_can_ask_do_not_hold_it_up(node: Node) -> None:
    node.config = msgspec.structs.replace(
        node.config, sources=type(node.config.sources)(disable=["ovs", "host"]), roles=[Role.COMPUTE]
    )
    (node.doubles["links"].needs,) = (s.needs for s in make_sources(node.config) if s.name == "links")

    async def story() -> None:
        async with node.running() as engine:
            await until(3)
            assert engine.ready()
            applicable = engine.view().world.applicable
            local = {"vswitchd", "ovn_controller", "certificates", "sysfs", "links", "tc", "ovs_flows", "conntrack"}
            assert applicable == local, "openflow needs ovs"
            assert "system_id_changed" in engine.view().report.not_applicable

    scenario(story)


class TestStaleness:
    def test_a_value_dies_after_its_lifetime_though_nothing_is_published(self, node: Node) -> None:
        node.doubles["openflow"].deadline = 1000.0

        async def story() -> None:
            async with node.running() as engine:
                await until(2)
                node.says(openflow=HANGS)
                await until(44)
                assert isinstance(engine.view().world.openflow, Fresh)
                assert engine.view().report.findings["integration_bridge_empty"] == ()
                await until(62)
                part = engine.view().world.openflow
                assert isinstance(part, Absent)
                assert part.reason is Reason.STALE
                assert "integration_bridge_empty" in engine.view().report.unknown

        scenario(story)

    def test_also_where_nothing_runs_any_more_but_the_scrape(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        async def story() -> None:
            async with node.running() as engine:
                await until(2)
            await until(30)
            assert all(isinstance(engine.view().world.part(s), Fresh) for s in COMPUTE_SOURCES)
            await until(60)

            def no_io(*_args: object, **_kwargs: object) -> Any:
                raise AssertionError("a scrape does no I/O")

            with monkeypatch.context() as patch:
                for module, name in ((io, "open"), (os, "open"), (resource, "getrusage")):
                    patch.setattr(module, name, no_io)
                patch.setattr("builtins.open", no_io)
                view = engine.view()
                text = Renderer(discover()).render(view).decode()
            assert all(isinstance(view.world.part(s), Absent) for s in COMPUTE_SOURCES)
            assert 'mecexporter_source_up{source="ovs"} 0.0' in text
            assert "mec_integration_bridge_flows{" not in text
            assert "mec_check_findings{" not in text

        scenario(story)

    def test_who_refused_and_then_is_silent_is_not_known_to_be_dead(self, node: Node) -> None:
        node.doubles["ovn_controller"].deadline = 1000.0

        async def story() -> None:
            async with node.running() as engine:
                await until(2)
                node.says(ovn_controller=REFUSED)
                await until(62)
                assert engine.view().report.findings["ovn_controller_disconnected"]
                node.says(ovn_controller=HANGS)
                await until(140)
                part = engine.view().world.ovn_controller
                assert isinstance(part, Absent)
                assert part.reason is Reason.TIMEOUT
                assert "ovn_controller_disconnected" in engine.view().report.unknown

        scenario(story)

    def test_it_is_logged_once(self, node: Node, caplog: pytest.LogCaptureFixture) -> None:
        node.doubles["openflow"].deadline = 1000.0

        async def story() -> None:
            async with node.running() as engine:
                await until(2)
                node.says(openflow=HANGS)
                for moment in range(50, 200, 10):
                    await until(moment)
                    engine.view()

        scenario(story)
        lost = [r for r in caplog.records if r.getMessage() == "source lost"]
        assert [(vars(r)["source"], vars(r)["reason"]) for r in lost] == [("openflow", Reason.STALE)]

    @pytest.mark.parametrize("live", [1.0, 3.0])
    def test_a_slow_read_is_there_all_the_time(self, node: Node, live: float, caplog: pytest.LogCaptureFixture) -> None:
        node.doubles["ovs"].interval, node.doubles["ovs"].takes = live, 4.0

        async def story() -> None:
            async with node.running() as engine:
                await until(6)
                for second in range(6, 200):
                    await until(second)
                    assert isinstance(engine.view().world.ovs, Fresh), second

        scenario(story)
        assert "source lost" not in caplog.text

    def test_a_step_of_the_systems_clock_changes_no_age(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        async def story() -> None:
            async with node.running() as engine:
                await until(60)
                for step in (86400.0, -86400.0):
                    monkeypatch.setattr(app, "time", SimpleNamespace(time=lambda s=step: NOW + now() + s))
                    await until(now() + 60)
                    world = engine.view().world
                    assert world.skew == step
                    assert world.now == pytest.approx(NOW + now(), abs=16)
                    assert all(isinstance(world.part(s), Fresh) for s in COMPUTE_SOURCES)
                    assert found(engine) == {}

        scenario(story)

    def test_a_clock_that_is_only_slewed_is_left_alone(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(app, "time", SimpleNamespace(time=lambda: NOW + now() + 0.9))

        async def story() -> None:
            async with node.running() as engine:
                await until(20)
                assert engine.view().world.skew == 0

        scenario(story)


class TestHostname:
    def test_as_configured_before_all(self, node: Node) -> None:
        node.config = msgspec.structs.replace(node.config, host=type(node.config.host)(hostname="nova-name"))

        async def story() -> None:
            async with node.running() as engine:
                await until(2)
                assert engine.view().world.hostname == "nova-name"

        scenario(story)

    def test_the_kernels_until_open_vswitch_has_said_one_and_its_last_one_then(self, node: Node) -> None:
        ovs = node.doubles["ovs"].says
        node.says(ovs=REFUSED)

        async def story() -> None:
            async with node.running() as engine:
                await until(2)
                assert engine.view().world.hostname == "kernel-name"
                node.says(ovs=ovs)
                await until(20)
                assert engine.view().world.hostname == HOSTNAME
                node.says(ovs=fields(ovs, hostname="renamed"))
                await until(40)
                assert engine.view().world.hostname == "renamed"
                for lost in (REFUSED, fields(ovs, hostname=None)):
                    node.says(ovs=lost)
                    await until(now() + 300)
                    assert engine.view().world.hostname == "renamed"

        scenario(story)

    def test_after_a_restart_the_remembered_one(self, node: Node) -> None:
        node.saved = Saved.of(healthy_compute().memory, {})
        node.says(ovs=REFUSED)

        async def story() -> None:
            async with node.running() as engine:
                assert engine.view().world.hostname == HOSTNAME
                await until(20)
                assert engine.view().world.hostname == HOSTNAME

        scenario(story)


class TestRoles:
    @staticmethod
    def vanish(node: Node) -> None:
        """As on a host without OVN and Open vSwitch."""
        gone = SourceError(Reason.MISSING, "no socket")
        host = fields(node.doubles["host"].says, signs={})
        node.says(ovs=gone, vswitchd=gone, openflow=gone, ovn_controller=gone, chassis_lookup=gone, host=host)

    def test_a_host_without_anything_has_none(self, node: Node) -> None:
        self.vanish(node)

        async def story() -> None:
            async with node.running() as engine:
                await until(60)
                assert engine.ready()
                assert engine.view().world.roles == frozenset()
                assert engine.view().world.applicable == {"host"}
                assert set(engine.view().report.not_applicable) == {c.name for c in engine.view().report.checks}

        scenario(story)

    def test_a_role_once_seen_stays_and_its_daemons_are_down(self, node: Node) -> None:
        async def story() -> None:
            async with node.running() as engine:
                await until(5)
                self.vanish(node)
                await until(120)
                assert engine.view().world.roles == {Role.COMPUTE}
                assert found(engine) == {"ovn_controller_disconnected": 1}
                assert engine._saved().roles == {Role.COMPUTE}

        scenario(story)

    def test_also_over_a_restart(self, node: Node) -> None:
        node.saved = Saved(format=1, roles=frozenset({Role.COMPUTE}))
        self.vanish(node)

        async def story() -> None:
            async with node.running() as engine:
                assert engine.view().world.roles == {Role.COMPUTE}
                await until(60)
                assert found(engine) == {"ovn_controller_disconnected": 1}

        scenario(story)

    def test_until_it_is_forgotten(self, node: Node) -> None:
        async def story() -> None:
            async with node.running() as engine:
                await until(5)
                self.vanish(node)
                await until(60)
                await engine.forget("compute")
                assert engine.view().world.roles == frozenset()
                assert found(engine) == {}
                assert node.store.load().roles == frozenset()
                with pytest.raises(MecExporterError, match="can't be forgotten"):
                    await engine.forget("everything")

        scenario(story)

    def test_one_that_still_shows_is_found_again(self, node: Node) -> None:
        async def story() -> None:
            async with node.running() as engine:
                await until(5)
                await engine.forget("compute")
                assert engine.view().world.roles == {Role.COMPUTE}

        scenario(story)

    @pytest.mark.parametrize(
        ("signs", "roles"),
        [
            ({"compute": "x"}, {Role.COMPUTE}),
            ({"OVN_Northbound": "x"}, {Role.CENTRAL}),
            ({"OVN_Southbound": "x"}, {Role.CENTRAL}),
            ({"OVN_Northbound": "x", "compute": "y", "northd": "z"}, {Role.CENTRAL, Role.COMPUTE}),
        ],
    )
    def test_by_their_signs(self, node: Node, signs: dict[str, str], roles: set[Role]) -> None:
        self.vanish(node)
        node.says(host=fields(node.doubles["host"].says, signs=signs))

        async def story() -> None:
            async with node.running() as engine:
                await until(5)
                assert engine.view().world.roles == roles
                assert engine.view().world.memory.northd is ("northd" in signs)
                assert ("ovs" in engine.view().world.applicable) is (Role.COMPUTE in roles)

        scenario(story)

    def test_by_ovn_remote_alone(self, node: Node) -> None:
        node.says(host=fields(node.doubles["host"].says, signs={}))

        async def story() -> None:
            async with node.running() as engine:
                await until(5)
                assert engine.view().world.roles == {Role.COMPUTE}

        scenario(story)

    @pytest.mark.parametrize("reason", [Reason.PERMISSION, Reason.TIMEOUT, Reason.GARBAGE, Reason.CLOSED])
    def test_behind_a_database_that_does_not_tell_there_may_be_a_compute_node(self, node: Node, reason: Reason) -> None:
        """It cannot tell, which is not 'all is well'; and what is presumed is not remembered."""
        self.vanish(node)
        hidden = SourceError(Reason.PERMISSION, "user x may not enter")
        node.says(vswitchd=hidden, openflow=hidden, ovn_controller=hidden, ovs=SourceError(reason, "no"))

        async def story() -> None:
            async with node.running() as engine:
                await until(60)
                assert engine.view().world.roles == {Role.COMPUTE}
                report = engine.view().report
                assert set(report.unknown) == {c.name for c in report.checks if Role.COMPUTE in c.roles}
                assert set(report.not_applicable) == {c.name for c in report.checks if Role.COMPUTE not in c.roles}
                assert engine._saved().roles == frozenset()
                assert engine.view().world.memory.roles == frozenset()
                self.vanish(node)
                await until(600)
                assert engine.view().world.roles == frozenset(), "now it is known that there is nothing"
                assert engine.view().world.applicable == {"host"}

        scenario(story)

    def test_nothing_is_presumed_while_the_first_copy_is_being_made(self, node: Node) -> None:
        self.vanish(node)
        node.says(ovs=SourceError(Reason.PENDING, "the first copy is being made"))

        async def story() -> None:
            async with node.running() as engine:
                await until(60)
                assert engine.view().world.roles == frozenset()

        scenario(story)

    def test_nor_where_roles_are_configured(self, node: Node) -> None:
        node.config = msgspec.structs.replace(node.config, roles=[Role.CENTRAL])
        node.says(ovs=SourceError(Reason.PERMISSION, "no"))

        async def story() -> None:
            async with node.running() as engine:
                await until(30)
                assert engine.view().world.roles == {Role.CENTRAL}

        scenario(story)

    def test_api_by_its_configuration(self, node: Node) -> None:
        self.vanish(node)
        node.config = msgspec.structs.replace(node.config, openstack=type(node.config.openstack)(cloud="mycloud"))

        async def story() -> None:
            async with node.running() as engine:
                await until(5)
                assert engine.view().world.roles == {Role.API}

        scenario(story)

    def test_as_configured_and_no_other(self, node: Node) -> None:
        node.config = msgspec.structs.replace(node.config, roles=[Role.CENTRAL])

        async def story() -> None:
            async with node.running() as engine:
                await until(60)
                assert engine.view().world.roles == {Role.CENTRAL}
                assert engine.view().world.applicable == {"certificates", "host"}
                assert isinstance(engine.view().world.ovs, Absent), "not even asked"

        scenario(story)


class TestFindings:
    @pytest.fixture(autouse=True)
    def _remembered(self, node: Node, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        node.saved = Saved.of(healthy_compute().memory, {})

    @staticmethod
    def lines(caplog: pytest.LogCaptureFixture, check: str) -> list[str]:
        return [r.getMessage() for r in caplog.records if getattr(r, "check", None) == check]

    def test_the_driver_installer_is_found_within_a_minute_at_default_intervals(self, node: Node) -> None:
        async def story() -> None:
            async with node.running() as engine:
                await until(100)
                node.says(**said(reinstalled_compute()))
                await until(160)
                assert found(engine) == {
                    "system_id_changed": 1,
                    "chassis_unregistered": 1,
                    "integration_bridge_empty": 1,
                    "ovn_controller_failing": 1,
                }
                node.says(**said(healthy_compute()))
                await until(177)
                assert found(engine) == {}

        scenario(story)

    def test_one_line_when_it_opens_and_one_when_it_closes(self, node: Node, caplog: pytest.LogCaptureFixture) -> None:
        async def story() -> None:
            async with node.running():
                await until(20)
                node.says(**said(reinstalled_compute()))
                await until(300)
                node.says(**said(healthy_compute()))
                await until(400)

        scenario(story)
        assert self.lines(caplog, "system_id_changed") == ["finding opened", "finding closed"]
        opened = next(r for r in caplog.records if r.getMessage() == "finding opened")
        assert {"check", "severity", "subject", "summary"} <= vars(opened).keys()

    def test_blindness_in_between_closes_nothing(self, node: Node, caplog: pytest.LogCaptureFixture) -> None:
        async def story() -> None:
            async with node.running() as engine:
                await until(20)
                node.says(**said(reinstalled_compute()))
                await until(100)
                (opened,) = engine.view().report.findings["system_id_changed"]
                node.says(host=REFUSED)
                await until(200)
                assert "system_id_changed" in engine.view().report.unknown
                node.says(host=said(reinstalled_compute())["host"])
                await until(230)
                (again,) = engine.view().report.findings["system_id_changed"]
                assert again.first_seen == opened.first_seen

        scenario(story)
        assert self.lines(caplog, "system_id_changed") == ["finding opened"]

    def test_first_seen_is_saved_in_unix_time_and_outlives_a_restart(
        self, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def story() -> None:
            async with node.running() as engine:
                await until(20)
                monkeypatch.setattr(app, "time", SimpleNamespace(time=lambda: NOW + now() + 3600))
                node.says(**said(reinstalled_compute()))
                await until(100)
                (opened,) = engine.view().report.findings["system_id_changed"]
                node.saved = engine._saved()
                assert node.saved.findings["system_id_changed"] == {HOSTNAME: round(opened.first_seen + 3600, 3)}
            monkeypatch.setattr(app, "make_clock", lambda: lambda: NOW + now() + 3600)
            async with node.running() as engine:
                await until(110)
                (again,) = engine.view().report.findings["system_id_changed"]
                assert again.first_seen == pytest.approx(opened.first_seen + 3600, abs=0.001)

        scenario(story)

    def test_a_rename_that_is_carried_through_is_adopted_and_clears(self, node: Node) -> None:
        new = said(reinstalled_compute())["ovs"].system_id
        healthy = said(healthy_compute())
        chassis = fields(healthy["chassis_lookup"].registered, name=new)
        lookup = fields(healthy["chassis_lookup"], system_id=new, registered=chassis, of_hostname=(chassis,))

        async def story() -> None:
            async with node.running() as engine:
                await until(20)
                node.says(ovs=fields(healthy["ovs"], system_id=new), chassis_lookup=lookup)
                await until(80)
                assert found(engine)["system_id_changed"] == 1
                await until(200)
                identity = engine.view().world.memory.identity
                assert identity is not None
                assert identity.system_id == new
                assert "system_id_changed" not in found(engine)

        scenario(story)

    def test_a_node_named_on_the_commandline_whose_ovn_controller_is_stopped_is_one_finding(self, node: Node) -> None:
        healthy = said(healthy_compute())
        chassis = fields(healthy["chassis_lookup"].registered, name="cname")
        lookup = fields(healthy["chassis_lookup"], system_id="cname", registered=chassis, of_hostname=(chassis,))
        node.says(host=fields(healthy["host"], commandline_id="cname"), chassis_lookup=lookup)

        async def story() -> None:
            async with node.running() as engine:
                await until(300)
                assert found(engine) == {}, "adopted"
                node.saved = engine._saved()
            node.says(
                host=fields(healthy["host"], commandline_id=None, commandline_why="no pidfile"),
                ovn_controller=SourceError(Reason.MISSING, "no pidfile"),
            )
            async with node.running() as engine:
                await until(600)
                assert found(engine) == {"ovn_controller_disconnected": 1}, "also over a restart of the exporter"

        scenario(story)

    def test_a_wrong_id_that_was_there_first_is_never_taken_for_the_good_one(self, node: Node) -> None:
        """Incident C2 with ovn-controller restarted, and only then the exporter's first start."""
        node.saved = Saved(format=1)
        wrong = said(reinstalled_compute())
        node.says(**wrong | {"ovs": fields(wrong["ovs"], remembered_ids=(wrong["ovs"].system_id,))})

        async def story() -> None:
            async with node.running() as engine:
                await until(300)
                assert engine.view().world.memory.identity is None
                assert "chassis_unregistered" in found(engine)
                node.says(**said(healthy_compute()))
                for moment in range(320, 900, 5):
                    await until(moment)
                    assert "system_id_changed" not in found(engine)
                identity = engine.view().world.memory.identity
                assert identity is not None
                assert identity.system_id == SYSTEM_ID

        scenario(story)

    @pytest.mark.parametrize("source", ["openflow", "ovn_controller", "chassis_lookup"])
    def test_a_source_that_is_disabled_does_not_leave_the_identity_unproven(self, node: Node, source: str) -> None:
        node.saved = Saved(format=1)
        node.config = msgspec.structs.replace(node.config, sources=type(node.config.sources)(disable=[source]))
        node.says(ovs=fields(said(healthy_compute())["ovs"], remembered_ids=()))

        async def story() -> None:
            async with node.running() as engine:
                await until(300)
                assert engine.view().world.memory.identity is not None
                assert engine.view().report.findings["system_id_changed"] == ()

        scenario(story)

    def test_forgetting_the_identity_while_it_runs(self, node: Node) -> None:
        async def story() -> None:
            async with node.running() as engine:
                node.says(ovs=fields(said(reinstalled_compute())["ovs"], remembered_ids=()))
                await until(60)
                assert found(engine)["system_id_changed"] == 1
                await engine.forget("identity")
                assert engine.view().world.memory.identity is None
                assert engine.view().report.unknown["system_id_changed"] == ("memory",)
                assert node.store.load().identity is None

        scenario(story)


def test_versions_and_when_each_changed(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    controller = node.doubles["ovn_controller"].says
    assert isinstance(controller, OvnController)

    async def story() -> None:
        async with node.running() as engine:
            await until(10)
            seen = engine.view().world.memory.versions
            assert {c: v.version for c, v in seen.items()} == {
                "kernel": "6.1.0-30-amd64",
                "ovs": "3.1.0",
                "ovs_schema": "8.3.1",
                "ovn": "23.03.1",
            }
            assert "version changed" not in caplog.text
            node.says(ovn_controller=fields(controller, version="24.03.0"))
            await until(40)
            now_seen = engine.view().world.memory.versions
            assert now_seen["ovn"].version == "24.03.0"
            assert now_seen["ovn"].first_seen > seen["ovn"].first_seen
            assert now_seen["kernel"] == seen["kernel"]
            node.says(ovn_controller=REFUSED, vswitchd=REFUSED)
            await until(80)
            assert engine.view().world.memory.versions == now_seen

    scenario(story)
    assert caplog.text.count("version changed") == 1


def test_a_check_that_raises_stops_nothing(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_world: World) -> Any:
        raise ZeroDivisionError("a bug")

    real = discover_checks()
    broken_checks = tuple(replace(c, ask=broken) if c.name == "system_id_missing" else c for c in real)
    monkeypatch.setattr("mecexporter.checks.base.discover", lambda: broken_checks)

    async def story() -> None:
        async with node.running() as engine:
            await until(30)
            report = engine.view().report
            assert report.unknown["system_id_missing"] == ("internal",)
            assert report.findings["system_id_mismatch"] == ()

    scenario(story)


class Hanging(Store):
    """On a file system that does not answer until it is released."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.called, self.released = threading.Event(), threading.Event()

    def _write(self, saved: Saved) -> None:
        self.called.set()
        self.released.wait(60)
        super()._write(saved)


class TestStateSaved:
    """On the real clock and loop: the store is written from a thread."""

    @pytest.fixture(autouse=True)
    def _real_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(app, "_SAVE_EVERY", 0.01)

    def engine(self, tmp_path: Path, *, read_only: bool = False) -> Engine:
        config = msgspec.convert({"roles": ["central"], "sources": {"disable": ["host"]}}, Config)
        return Engine(config, Store(tmp_path), Saved(format=1), read_only=read_only)

    def test_trouble_is_said_once_and_shown_until_it_ends(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "state").touch()
        engine = self.engine(tmp_path / "state")
        for _ in range(3):
            engine._save(Saved(format=1, northd=True))
        assert caplog.text.count("state is not saved") == 1
        assert not process_saved(engine)
        (tmp_path / "state").unlink()
        engine._save(Saved(format=1, northd=True))
        assert process_saved(engine)

    async def test_it_is_saved_at_the_end_too(self, tmp_path: Path) -> None:
        engine = self.engine(tmp_path)
        task = asyncio.create_task(engine.run())
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert (tmp_path / "state.json").exists()

    async def test_a_state_dir_that_hangs_does_not_keep_it_from_ending(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(app, "_SAVE_AT_END", 0.1)
        hangs = Hanging(tmp_path)
        engine = self.engine(tmp_path)
        engine._store = hangs
        task = asyncio.create_task(engine.run())
        try:
            await eventually(hangs.called.is_set, 10, "a save hangs")
            task.cancel()
            async with asyncio.timeout(5):
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        finally:
            hangs.released.set()

    async def test_forgetting_waits_for_the_disk_and_nothing_waits_for_that(self, tmp_path: Path) -> None:
        hangs = Hanging(tmp_path)
        engine = self.engine(tmp_path)
        engine._store = hangs
        forgetting = asyncio.create_task(engine.forget("central"))
        try:
            await eventually(hangs.called.is_set, 10, "the save hangs")
            assert engine.view().world.roles == {Role.CENTRAL}, "it is configured"
            assert not forgetting.done()
        finally:
            hangs.released.set()
        await forgetting

    async def test_read_only_it_writes_nothing(self, tmp_path: Path) -> None:
        engine = self.engine(tmp_path, read_only=True)
        task = asyncio.create_task(engine.run())
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert os.listdir(tmp_path) == []  # noqa: PTH208  # not blocking for long


def process_saved(engine: Engine) -> bool:
    process = engine._process()
    assert process is not None
    return process.state_saved


def test_settings_are_the_configurations(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text(
        "ovs: {system_id_policy: ignore}\novn: {shared_hostnames: [a]}\n"
        "grace: {identity: 5s, bridge: 6s, no_writer: 8s, propagation: 9s}\nmaintenance: {hosts: [Compute-9]}\n"
        "findings: {limit: 7}\nchecks: {disable: [x]}\n"
    )
    made = settings(load(path, known_checks=frozenset({"x"})))
    assert made.system_id_policy is SystemIdPolicy.IGNORE
    assert made.shared_hostnames == {"a"}
    assert (made.grace_identity, made.grace_bridge, made.findings_limit) == (5, 6, 7)
    assert (made.grace_no_writer, made.grace_propagation) == (8, 9)
    assert made.maintenance_hosts == {"compute-9"}
    assert made.disabled_checks == {"x"}


def test_sources_are_as_configured() -> None:
    assert {s.name for s in make_sources(Config())} == COMPUTE_SOURCES | CENTRAL_SOURCES
    off = msgspec.convert({"sources": {"disable": ["vswitchd"]}, "ovn": {"chassis_lookup": {"enabled": False}}}, Config)
    assert {s.name for s in make_sources(off)} == (COMPUTE_SOURCES | CENTRAL_SOURCES) - {"vswitchd", "chassis_lookup"}
    blind = msgspec.convert({"sources": {"disable": ["ovs"]}}, Config)
    for config, needs in ((Config(), ("sysfs", "ovs")), (blind, ("sysfs",))):  # who knows no uplinks is not waited for
        assert [s.needs for s in make_sources(config) if s.name == "links"] == [needs]
    others = {"chassis_lookup", "ovn_chassis", "ovn_northbound_sync", "ovn_southbound_sync"}
    assert all(s.deadline <= 5 for s in make_sources(Config()) if s.name not in others)
