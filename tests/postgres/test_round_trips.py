"""A small transaction goes out whole, and one that finds what is hardly ever there looks first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from outlast.lifecycle import Kind, State
from outlast.store.postgres import PostgresStore, database
from outlast.store.postgres.session import Session
from outlast.store.protocol import QueueSetting
from outlast.testing.conformance import Owner, T, begun, codes, one, replace, state


@pytest.fixture
def store(postgres_store: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresStore]:
    monkeypatch.setattr(database, "LATELY_S", 3_600)
    store = PostgresStore(postgres_store, owner="w0", now=T)
    yield store
    store.close()


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> Trips:
    return Trips(monkeypatch)


class Trips:
    """Counts how often the server was waited for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        drain_all = Session.drain_all

        def counted(session: Session) -> list[Any]:
            self.count += 1
            return drain_all(session)

        monkeypatch.setattr(Session, "drain_all", counted)

    @contextmanager
    def are(self, count: int) -> Iterator[None]:
        before = self.count
        yield
        assert self.count - before == count


def ended(owner: Owner) -> list[Any]:
    return [owner.write(Kind.STEP, T + 1, key="a#1", payload=b"1"), owner.write(Kind.FINISH, T + 2)]


def test_an_execution_of_one_step_takes_two_round_trips(store: PostgresStore, trips: Trips) -> None:
    owner, birth = begun("a")
    with trips.are(1):
        assert codes(store.commit([birth])) == [None]
    with trips.are(1):
        assert codes(store.commit(ended(owner))) == [None, None]
    assert state(store, "a").state is State.SUCCEEDED


def test_who_was_silent_for_long_looks_first(
    store: PostgresStore, trips: Trips, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a connection that broke meanwhile is noticed while nothing is unknown."""
    monkeypatch.setattr(database, "LATELY_S", 0)
    with trips.are(2):
        store.commit([begun("a")[1]])


def test_a_stale_write_is_refused_as_ever(store: PostgresStore, trips: Trips) -> None:
    owner, birth = begun("a")
    store.commit([birth])
    step = owner.write(Kind.STEP, T + 1, key="a#1", payload=b"1")
    stale = replace(step, nonce=b"x" * 16)
    before = store.database.retries
    assert one(store, stale).refused == "fenced"
    assert one(store, step).refused is None
    assert store.database.retries == before  # nobody stood in its way
    assert [row.kind for row in store.log("a")][-1] is Kind.STEP


def test_a_birth_that_was_sent_twice_is_there_once(store: PostgresStore) -> None:
    assert one(store, begun("a")[1]).refused is None
    assert one(store, begun("a")[1]).refused == "already_exists"
    assert len(store.log("a")) == 3


def test_a_queue_with_a_rule_is_seen(store: PostgresStore) -> None:
    store.capacity.set_queue(QueueSetting("default", 1))
    answer = one(store, begun("a")[1])
    assert answer.unclaimed == ["a"]
    assert state(store, "a").state is State.QUEUED


def test_after_a_surprise_it_looks_first_for_a_while(
    store: PostgresStore, trips: Trips, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "RARE_PAUSE", 2)
    one(store, begun("a")[1])
    one(store, begun("a")[1])
    for name, count in (("b", 2), ("c", 2), ("d", 1)):
        with trips.are(count):
            one(store, begun(name)[1])


def test_many_rows_are_looked_at_first(store: PostgresStore, trips: Trips) -> None:
    with trips.are(2):
        store.commit([begun(f"e{n}")[1] for n in range(database.RARE_MAX + 1)])
