"""Locks come in one order, are told when they are not had, and are held where two would race."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, LiteralString

import psycopg
import pytest

import outlast.store.relational.store as module
from outlast.engine.cluster.fleet import Fleet
from outlast.errors import StoreBusy, StoreUnavailable
from outlast.lifecycle import Kind, Message, MessageKind
from outlast.store.auditing import FREE_FAILURES
from outlast.store.books import Books
from outlast.store.postgres import PostgresStore
from outlast.store.protocol import Deliver, Lease, QueueSetting
from outlast.testing.conformance import Owner, T, begun, born, codes, nonces
from outlast.testing.conformance_access import deed
from outlast.testing.conformance_budgets import adjust, spends
from outlast.testing.conformance_capacity import limited
from outlast.testing.conformance_structure import calls_child, child_of

from .test_fleet import until
from .test_writers import WRITERS, at_once

ROUNDS = 25


@pytest.fixture
def store(postgres_store: str) -> Iterator[PostgresStore]:
    store = PostgresStore(postgres_store, owner="w0", now=T)
    yield store
    store.close()


def waiting(url: str) -> int:
    """Count those who wait for an advisory lock."""
    return _locks(url, "NOT granted")


def sharing(url: str) -> int:
    """Count those who hold an advisory lock that others may share."""
    return _locks(url, "granted AND mode = 'ShareLock'")


def _locks(url: str, which: LiteralString) -> int:
    with psycopg.connect(url) as connection:
        found = connection.execute(
            f"SELECT count(*) FROM pg_locks WHERE {which} AND locktype = 'advisory'"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        ).fetchone()
    assert found is not None
    return int(found[0])


@pytest.mark.parametrize(
    "rule", [QueueSetting("default", None, T, "ada", "why"), QueueSetting("default", 1)]
)
@pytest.mark.parametrize("is_whole", [False, True])
@pytest.mark.parametrize("way", ["claimed", "born with its claim", "a child"])
def test_who_sets_a_queue_waits_for_claims_under_way(
    store: PostgresStore,
    postgres_store: str,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    is_whole: bool,
    rule: QueueSetting,
) -> None:
    """So when a pause, or a limit, is told, nobody claims any more who has not seen it.

    A birth that is sent whole, with its COMMIT, holds the lock from its first statement on, too.
    """
    parent, item = begun("ex_0", queue="other")
    store.commit([born("ex_1"), item])
    _, child = child_of(parent, "ex_2")
    acts: dict[str, tuple[str, str, Callable[[], Any]]] = {
        "claimed": (
            "ask_all",
            "waiting_codes",
            lambda: store.claim(Lease("w0"), ["t"], 1, T + 1, nonces(1)),
        ),
        "born with its claim": ("ask_rare", "taken_ids", lambda: store.commit([begun("ex_2")[1]])),
        "a child": ("ask_rare", "taken_ids", lambda: store.commit([calls_child(parent, child)])),
    }
    verb, statement, act = acts[way]
    reached, go = threading.Event(), threading.Event()
    plain = getattr(store.server, verb)

    def ask(name: str, values: Any) -> Any:
        found = plain(name, values)
        if name == statement:
            until(lambda: sharing(postgres_store), "the lock")  # nobody waited for an answer yet
            reached.set()
            assert go.wait(100)
        return found

    monkeypatch.setattr(store.server, verb, ask)
    monkeypatch.setattr(store.server, "_may_be_hasty", lambda: is_whole)
    claims: list[Any] = []
    claimer = threading.Thread(target=lambda: claims.extend(act()))
    claimer.start()
    assert reached.wait(100)
    other = PostgresStore(postgres_store, owner="w1", now=T)
    setter = threading.Thread(target=other.capacity.set_queue, args=(rule,))
    setter.start()
    until(lambda: waiting(postgres_store) or not setter.is_alive())
    assert setter.is_alive(), "the rule was told while a claim that had not seen it went on"
    go.set()
    claimer.join()
    setter.join()
    assert len(claims) == 1
    id = "ex_1" if way == "claimed" else "ex_2"
    (record,) = other.get([id])
    assert record is not None and record.is_leased, "it was claimed before the rule"
    _, late = begun("ex_3", nonce=b"3" * 16)
    (answer,) = other.commit([late])
    assert list(answer.unclaimed) == ["ex_3"]
    assert list(other.claim(Lease("w1"), ["t"], 1, T + 1, nonces(1))) == []
    other.close()


def test_a_lock_that_is_not_had_is_told_soon_and_as_not_written(
    store: PostgresStore, postgres_store: str
) -> None:
    store.commit([born("ex_1")])
    path, _, *more = store.server._settings
    store.server._settings = (path, b"200", *more)
    signal = Deliver("ex_1", Message("m1", MessageKind.SIGNAL, "a", "go", None, b"1"), T + 1)
    with psycopg.connect(postgres_store) as other:
        other.execute("SELECT 1 FROM outlast.execution FOR UPDATE")
        with pytest.raises(StoreBusy):
            store.commit([signal])
    assert store.server.retries == 0, "it has waited as long as it may already"
    assert store.inbox("ex_1") == []
    assert codes(store.commit([signal])) == [None]


def test_writes_that_pay_and_changes_of_budgets_never_wait_in_a_circle(
    store: PostgresStore, postgres_store: str
) -> None:
    """Each frees a place, which touches a line, and then changes a budget and looks at its gate."""
    store.commit([adjust("set", 10**9), adjust("set", 10**9, "tenant", id="other")])
    count = WRITERS * ROUNDS
    store.commit([born(f"ex_{n:03}", gates=limited(capacity=100)) for n in range(count)])
    claims = store.claim(Lease("w0"), ["t"], count, T + 1, nonces(count))
    owners = [Owner(claimed.execution) for claimed in claims]
    store.commit([owner.write(Kind.START) for owner in owners])

    def act(number: int, one: PostgresStore) -> None:
        for n in range(number, count, WRITERS):
            end = spends(owners[n], 1, "task:t:usd", kind=Kind.STEP, now=T + 1)
            freed = owners[n].write(Kind.FINISH, T + 1)
            change = adjust("raised", 1, "task:t" if n % 2 else "tenant", id=f"more {n}")
            assert codes(one.commit([end, freed, change])) == [None, None, None]
            one.sweep(T + 2, 100)

    assert at_once(postgres_store, act) == 0
    assert store.verify().defects == []


def test_a_purge_locks_as_everybody_does(store: PostgresStore, postgres_store: str) -> None:
    """Executions, then budgets by their names."""
    meters = ["a", "b", "c", "d"]
    store.commit([adjust("set", 10**9, f"task:{meter}", id=meter) for meter in meters])
    owners = [begun(f"ex_{n:03}", nonce=bytes([n, 2]) * 8) for n in range(WRITERS * ROUNDS)]
    store.commit([item for _, item in owners])

    def act(number: int, one: PostgresStore) -> None:
        dice = random.Random(number)
        for n in range(number, WRITERS * ROUNDS, WRITERS):
            shuffled = [f"task:{meter}:usd" for meter in dice.sample(meters, len(meters))]
            paid = spends(owners[n][0], 1, *shuffled, now=T + 1)
            end = owners[n][0].write(Kind.FINISH, T + 1)
            assert codes(one.commit([paid, end])) == [None, None]
            assert one.purge([f"ex_{n:03}"], deed("purge")) == 1

    assert at_once(postgres_store, act) == 0
    budgets = store.budgets()
    assert [budget.purged for budget in budgets] == [WRITERS * ROUNDS] * len(meters)
    assert store.verify().defects == []


def test_a_budget_that_is_gone_when_its_period_ends(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has purged it between the look and the lock."""
    store.commit([adjust("set", 10, period_us=1_000, id="a")])
    monkeypatch.setattr(module, "read_books", lambda *_: Books({}, {}))
    moved, _ = store.sweep(T + 10_000, 10)
    assert moved >= 0


def test_guesses_at_once_are_counted_one_by_one(postgres_store: str) -> None:
    let_in: list[int] = []

    def act(number: int, one: PostgresStore) -> None:
        waits = [one.access.attempt(b"d" * 32, T) for _ in range(10)]
        let_in.extend(number for wait in waits if wait == 0)

    at_once(postgres_store, act)
    assert len(let_in) == FREE_FAILURES + 1


def test_a_short_page_is_not_the_last() -> None:
    """Another engine had locked some of it; more may be behind it."""
    pages = [200, 3, 200, 7, 0]
    fleet = object.__new__(Fleet)
    fleet.taken = 0

    async def call(act: Callable[[], int]) -> int:
        return act()

    fleet._engine = SimpleNamespace(  # type: ignore[assignment]
        store=SimpleNamespace(recover=lambda *_: pages.pop(0)),
        name="w1",
        clock=SimpleNamespace(now=lambda: T),
        journal=SimpleNamespace(call=call),
        is_open=False,
    )
    recovering = fleet._recover(["w2"])
    with pytest.raises(StopIteration):
        recovering.send(None)
    assert pages == [] and fleet.taken == 410


def test_a_renewal_is_given_up_long_before_its_lease_ends(
    store: PostgresStore, postgres_store: str
) -> None:
    """Each try waits for a part of the lease, not for a fixed while."""
    store.renew("w0", 1_000_000, T)
    with psycopg.connect(postgres_store) as other:
        other.execute("LOCK TABLE outlast.worker")
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            store.renew("w0", 1_000_000, T)
        assert time.monotonic() - began < 10  # 1 s, and two connections; it was 12 s
