"""Which servers of a database there are, who replicates whom."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mecexporter.errors import Reason
from mecexporter.state.central import active_of, by_endpoint, known, may_be, may_be_of, servers, source_name
from mecexporter.state.observed import Fresh
from mecexporter.state.ovn_db import LOCAL, Database, DatabaseServer, Model
from tests.worlds import (
    ACTIVE,
    NB,
    READ,
    SB,
    STANDBY,
    active_server,
    address,
    asked_too,
    central,
    changed,
    from_afar,
    healthy_central,
    healthy_compute,
    healthy_standby,
    healthy_third,
    own_socket,
    standby_server,
    told,
    without,
)

if TYPE_CHECKING:
    from mecexporter.state.world import World

BOTH = pytest.mark.parametrize("db", [NB, SB])
ELSEWHERE = "tcp:another.example:7777"


def labels(world: World, db: Database) -> list[str]:
    return [k.server for k in known(world, db)]


def label_at(world: World, db: Database, endpoint: str) -> str | None:
    found = by_endpoint(world, db, endpoint)
    return found.server if found else None


def own(world: World, db: Database) -> DatabaseServer:
    return next(s for s in servers(world, db) if s.server == LOCAL)


@BOTH
def test_a_source_bears_the_databases_name_and_the_servers_label(db: Database) -> None:
    assert source_name(db, LOCAL) == f"{db}@local"
    (first, second) = known(healthy_central(), db)
    assert (first.source, first.server, first.subject) == (f"{db}@local", "local", f"{db}@local")
    assert second.subject == f"{db}@{address(db, STANDBY)}"


@BOTH
def test_those_of_one_database_only(db: Database) -> None:
    assert labels(healthy_central(), db) == [LOCAL, address(db, STANDBY)]
    assert labels(central(active_server(NB)), SB) == []
    assert labels(healthy_compute(), db) == []


@BOTH
def test_those_that_do_not_answer_are_known_too(db: Database) -> None:
    world = without(healthy_central(), source_name(db, address(db, STANDBY)))
    assert labels(world, db) == [LOCAL, address(db, STANDBY)]
    assert [s.server for s in servers(world, db)] == [LOCAL]


@BOTH
def test_those_that_do_not_apply_are_not(db: Database) -> None:
    world = healthy_central()
    assert labels(replace(world, applicable=world.applicable - {source_name(db, LOCAL)}), db) == [address(db, STANDBY)]


@BOTH
def test_a_server_asked_by_two_addresses_is_known_once_and_as_our_own(db: Database) -> None:
    """Whichever was configured first."""
    far = from_afar(active_server(db), ACTIVE)
    assert labels(central(far, active_server(db)), db) == [LOCAL]
    assert labels(central(active_server(db), far), db) == [LOCAL]


@BOTH
def test_of_two_other_labels_the_first_is_kept(db: Database) -> None:
    world = asked_too(healthy_third(), active_server(db), ELSEWHERE)
    assert labels(world, db) == [address(db, ACTIVE), address(db, STANDBY)]


@BOTH
def test_while_our_own_address_is_silent_the_other_one_stands_for_the_server(db: Database) -> None:
    world = without(asked_too(healthy_central(), active_server(db), ELSEWHERE), source_name(db, LOCAL))
    assert labels(world, db) == [LOCAL, address(db, STANDBY), ELSEWHERE]
    assert [s.server for s in servers(world, db)] == [address(db, STANDBY), ELSEWHERE]


class TestOneServerByTwoAddresses:
    """Neither of which gets an answer any more."""

    @staticmethod
    def dead(db: Database, *, at: Reason = Reason.REFUSED, other: Reason = Reason.REFUSED) -> World:
        world = asked_too(healthy_third(), active_server(db), ELSEWHERE)
        for label, reason in ((address(db, ACTIVE), at), (ELSEWHERE, other)):
            source = source_name(db, label)
            world = without(world.with_part(source, world.part(source)), source, reason=reason)
        return world

    @BOTH
    def test_known_to_be_one_from_before(self, db: Database) -> None:
        assert labels(self.dead(db), db) == [address(db, ACTIVE), address(db, STANDBY)]
        assert label_at(self.dead(db), db, ELSEWHERE) == address(db, ACTIVE)
        silent = self.dead(db, at=Reason.TIMEOUT, other=Reason.CLOSED)
        assert labels(silent, db) == [address(db, ACTIVE), address(db, STANDBY)]

    @BOTH
    def test_silent_at_one_and_refusing_at_the_other(self, db: Database) -> None:
        """That nobody is there is not known of it."""
        world = self.dead(db, other=Reason.TIMEOUT)
        assert labels(world, db) == [address(db, ACTIVE), address(db, STANDBY), ELSEWHERE]
        assert label_at(world, db, ELSEWHERE) == ELSEWHERE

    @BOTH
    def test_two_that_never_answered_are_two(self, db: Database) -> None:
        world = asked_too(healthy_third(), active_server(db), ELSEWHERE)
        for label in (address(db, ACTIVE), ELSEWHERE):
            world = without(world, source_name(db, label))
        assert labels(world, db) == [address(db, ACTIVE), address(db, STANDBY), ELSEWHERE]

    @BOTH
    def test_an_address_that_is_silent_may_have_moved(self, db: Database) -> None:
        """From the server that goes on answering at its other one."""
        source = source_name(db, ELSEWHERE)
        world = asked_too(healthy_third(), active_server(db), ELSEWHERE)
        world = without(world.with_part(source, world.part(source)), source, reason=Reason.TIMEOUT)
        assert labels(world, db) == [address(db, ACTIVE), address(db, STANDBY), ELSEWHERE]


class TestByAddress:
    @BOTH
    def test_by_the_address_at_which_it_is_asked(self, db: Database) -> None:
        world = healthy_central()
        assert label_at(world, db, own_socket(db)) == LOCAL
        assert label_at(world, db, address(db, STANDBY)) == address(db, STANDBY)

    @BOTH
    def test_an_address_that_nobody_is_asked_at(self, db: Database) -> None:
        assert label_at(healthy_central(), db, ELSEWHERE) is None
        assert label_at(healthy_central(), db, "pssl:what") is None

    def test_an_address_of_the_other_database(self) -> None:
        assert label_at(healthy_central(), SB, address(NB, STANDBY)) is None

    @BOTH
    def test_another_address_of_our_own_is_our_own(self, db: Database) -> None:
        assert label_at(asked_too(healthy_central(), active_server(db), ELSEWHERE), db, ELSEWHERE) == LOCAL

    @BOTH
    def test_one_that_is_silent_goes_by_its_own_label(self, db: Database) -> None:
        world = asked_too(healthy_central(), active_server(db), ELSEWHERE)
        assert label_at(without(world, source_name(db, ELSEWHERE)), db, ELSEWHERE) == ELSEWHERE

    @BOTH
    def test_one_that_does_not_apply_any_more(self, db: Database) -> None:
        world = healthy_central()
        world = replace(world, applicable=frozenset({"host"}))
        assert label_at(world, db, own_socket(db)) is None


class TestActive:
    @BOTH
    def test_whom_the_standby_says(self, db: Database) -> None:
        world = healthy_standby()
        active = active_of(world, own(world, db))
        assert active is not None
        assert active.server == address(db, ACTIVE)

    @BOTH
    def test_whom_it_says_though_that_one_takes_no_writes(self, db: Database) -> None:
        world = changed(healthy_standby(), source_name(db, address(db, ACTIVE)), writable=False)
        active = active_of(world, own(world, db))
        assert active is not None
        assert active.server == address(db, ACTIVE)

    @BOTH
    def test_whom_it_says_though_that_one_is_silent(self, db: Database) -> None:
        world = without(healthy_standby(), source_name(db, address(db, ACTIVE)))
        active = active_of(world, own(world, db))
        assert active is not None
        assert active.source == source_name(db, address(db, ACTIVE))

    @BOTH
    @pytest.mark.parametrize("says", [None, "pssl:what", ELSEWHERE])
    def test_one_that_says_nobody_who_is_known_has_none(self, db: Database, says: str | None) -> None:
        """Not the one that takes writes: it says otherwise."""
        world = told(healthy_standby(), db, active=says)
        assert active_of(world, own(world, db)) is None

    @BOTH
    def test_one_that_says_itself(self, db: Database) -> None:
        world = asked_too(told(healthy_standby(), db, active=ELSEWHERE), standby_server(db), ELSEWHERE)
        active = active_of(world, own(world, db))
        assert active is not None
        assert active.server == LOCAL

    @BOTH
    @pytest.mark.parametrize("host", [ACTIVE, "a third"])
    def test_from_afar_the_only_one_that_takes_writes(self, db: Database, host: str) -> None:
        world = healthy_central() if host == ACTIVE else healthy_third()
        standby = next(s for s in servers(world, db) if s.is_standby)
        active = active_of(world, standby)
        assert active is not None
        assert active.server == (LOCAL if host == ACTIVE else address(db, ACTIVE))

    @BOTH
    def test_from_afar_none_where_none_or_two_do(self, db: Database) -> None:
        world = healthy_third()
        standby = next(s for s in servers(world, db) if s.is_standby)
        assert active_of(without(world, source_name(db, address(db, ACTIVE))), standby) is None
        assert active_of(asked_too(world, active_server(db, identity="third"), ELSEWHERE), standby) is None

    @BOTH
    def test_one_writer_by_two_addresses_is_one(self, db: Database) -> None:
        world = asked_too(healthy_third(), active_server(db), ELSEWHERE)
        standby = next(s for s in servers(world, db) if s.is_standby)
        active = active_of(world, standby)
        assert active is not None
        assert active.server == address(db, ACTIVE)


class TestModels:
    SOURCE = source_name(NB, LOCAL)

    @pytest.mark.parametrize("model", Model)
    @pytest.mark.parametrize("asked", Model)
    def test_by_its_answer_or_its_last(self, model: Model, asked: Model) -> None:
        world = central(active_server(NB, model=model))
        assert may_be(world, self.SOURCE, {asked}) is (asked is model)
        assert may_be(without(world, self.SOURCE), self.SOURCE, {asked}) is (asked is model)
        assert may_be_of(without(world, self.SOURCE), {asked}) is (asked is model)

    @pytest.mark.parametrize("asked", Model)
    @pytest.mark.parametrize("reason", [Reason.PENDING, Reason.TIMEOUT])
    def test_one_that_never_told_may_be_any(self, asked: Model, reason: Reason) -> None:
        world = without(central(active_server(NB)), self.SOURCE, reason=reason)
        world = replace(world, memory=replace(world.memory, models={}))
        assert may_be(world, self.SOURCE, {asked})

    @pytest.mark.parametrize(
        ("fellow", "may"),
        [
            (Model.STANDALONE, {Model.STANDALONE}),
            (Model.CLUSTERED, {Model.CLUSTERED}),
            (Model.RELAY, set(Model)),
        ],
    )
    @pytest.mark.parametrize("db", [NB, SB])
    @pytest.mark.parametrize("answers", [True, False])
    def test_one_that_never_told_is_like_the_others_of_its_database(
        self, fellow: Model, may: set[Model], db: Database, answers: bool
    ) -> None:
        """A database has one way of being served, but for relays."""
        other = from_afar(active_server(db, model=fellow), ACTIVE)
        world = without(central(active_server(NB), other), self.SOURCE)
        world = replace(world, memory=replace(world.memory, models={source_name(db, address(db, ACTIVE)): fellow}))
        if not answers:
            world = without(world, source_name(db, address(db, ACTIVE)))
        assert {m for m in Model if may_be(world, self.SOURCE, {m})} == (may if db is NB else set(Model))

    @pytest.mark.parametrize("world", [central(), healthy_compute()])
    def test_where_there_is_none_there_is_none_of_any(self, world: World) -> None:
        assert not may_be_of(world, set(Model))


@pytest.mark.parametrize(
    ("model", "writable", "leader", "standby", "leads"),
    [
        (Model.STANDALONE, True, None, False, True),
        (Model.STANDALONE, False, None, True, False),
        (Model.STANDALONE, None, None, False, False),
        (Model.CLUSTERED, True, True, False, True),
        (Model.CLUSTERED, True, False, False, False),
        (Model.CLUSTERED, False, False, False, False),
        (Model.RELAY, None, None, False, False),
    ],
)
def test_who_stands_by_and_whose_word_counts(
    model: Model, writable: bool | None, leader: bool | None, standby: bool, leads: bool
) -> None:
    server = active_server(NB, model=model, writable=writable, leader=leader)
    assert (server.is_standby, server.leads) == (standby, leads)


def test_the_world_has_its_servers_as_parts() -> None:
    world = healthy_central()
    source = source_name(NB, LOCAL)
    assert world.part(source) == Fresh(active_server(NB), READ)
    other = Fresh(active_server(NB, writable=False), READ + 1)
    assert world.with_part(source, other).part(source) == other
    assert world.part(source) == Fresh(active_server(NB), READ), "a world is never changed"
    with pytest.raises(KeyError):
        world.part("OVN_Northbound@nowhere")
