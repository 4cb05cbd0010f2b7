"""What an engine knows to be acknowledged when its store goes back in time, and says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from outlast.engine.cluster import failover as failovers
from outlast.engine.cluster.failover import Failover
from outlast.engine.control.pruner import Rules
from outlast.engine.write.journal import Journal
from outlast.errors import StoreFailedOver, StoreUnavailable
from outlast.lifecycle import Message, MessageKind
from outlast.retention import Retention
from outlast.store.epoch import EpochLoss
from outlast.store.memory import MemoryStore
from outlast.store.protocol import Answer, Deliver
from outlast.testing.conformance import T, begun, born


class Stub:
    """As much of an engine as a failover sees; some calls of the store fail."""

    fails = 0

    def __init__(self, store: MemoryStore) -> None:
        self.store, self.name, self.recent, self.is_open = store, "w1", {}, True
        self.journal: Any = SimpleNamespace(recall=None, call=self.call)
        self.worker: Any = SimpleNamespace(drivers={}, read=self.call)
        self.clock = SimpleNamespace(now=lambda: T)
        self.rules = Rules(Retention(None))
        self.fleet = SimpleNamespace(membership=SimpleNamespace(name="w1"))

    async def call(self, act: Callable[[], Any]) -> Any:
        """Do something in another thread."""
        await asyncio.sleep(0)
        if self.fails:
            self.fails -= 1
            raise StoreUnavailable("for a moment")
        return act()

    def runs(self, record: Any, durable: int) -> None:
        """Hold an execution, whose log is durable so far."""
        owner = SimpleNamespace(record=record, before_park=None, durable=durable)
        self.worker.drivers[record.id] = SimpleNamespace(owner=owner)


def losses(store: MemoryStore, *waiters: Failover) -> list[EpochLoss]:
    """Come back, in as many ways at once, and read what was said."""

    async def account() -> None:
        await asyncio.gather(*(one.account() for one in waiters))

    asyncio.run(account())
    return store.epochs.losses(1)


def test_what_ran_here_is_missed_also_if_its_lease_was_found_gone_before() -> None:
    store = MemoryStore(is_shared=True)
    engine: Any = Stub(store)
    failover = Failover(engine)
    engine.runs(begun("ex_1")[0].record, 7)
    failover.dropping(None)  # a renewal was refused, and nobody has said why
    engine.worker.drivers.clear()
    failover.dropping(StoreFailedOver("promoted", epoch=1))
    (loss,) = losses(store, failover)
    assert (loss.known, loss.missing) == (1, 1)


def test_what_was_dropped_before_is_forgotten_once_it_has_joined_again() -> None:
    store = MemoryStore(is_shared=True)
    engine: Any = Stub(store)
    failover = Failover(engine)
    engine.runs(begun("ex_1")[0].record, 7)
    failover.dropping(None)
    engine.worker.drivers.clear()
    assert losses(store, failover) == []
    failover.dropping(StoreFailedOver("promoted", epoch=1))
    (loss,) = losses(store, failover)
    assert loss.known == 0


def test_who_comes_back_by_a_name_that_is_given_up_forgets_nothing() -> None:
    store = MemoryStore(is_shared=True)
    engine: Any = Stub(store)
    failover = Failover(engine)
    engine.runs(begun("ex_1")[0].record, 7)
    failover.dropping(None)
    engine.worker.drivers.clear()
    engine.name = "w2"  # has not joined yet; who was on the way back as w1 comes back now
    losses(store, failover)
    failover.dropping(StoreFailedOver("promoted", epoch=1))
    (loss,) = losses(store, failover)
    assert (loss.known, loss.missing) == (1, 1)


def test_a_message_that_was_there_already_was_acknowledged_as_well() -> None:
    before, after = MemoryStore(is_shared=True), MemoryStore(is_shared=True)
    engine: Any = Stub(after)
    failover = Failover(engine)
    for store in (before, after):
        store.commit([born("ex_1")])
    item = Deliver("ex_1", Message("m1", MessageKind.NOTE, "client"), T)
    before.commit([item])  # of unknown outcome: its sender sends it again
    failover.recall.take([(item, None)], before.commit([item]))
    failover.dropping(StoreFailedOver("promoted", epoch=1))
    (loss,) = losses(after, failover)
    assert loss.messages == 1


def test_a_start_whose_key_was_there_was_acknowledged_as_well() -> None:
    before, after = MemoryStore(is_shared=True), MemoryStore(is_shared=True)
    engine: Any = Stub(after)
    failover = Failover(engine)
    before.commit([born("ex_1", key="k")])  # of unknown outcome: it is started again
    again = born("ex_2", key="k")
    failover.recall.take([(again, None)], before.commit([again]))
    failover.dropping(StoreFailedOver("promoted", epoch=1))
    (loss,) = losses(after, failover)
    assert (loss.missing, loss.examples) == (1, ("ex_1",))


def test_what_may_have_been_deleted_is_not_told_as_lost() -> None:
    """Who starts little knows for months what it started last, and nobody keeps that so long."""
    for kept, lost in ((None, (1, 1)), ("1d", (1, 1)), ("0s", (0, 0))):
        before, after = MemoryStore(is_shared=True), MemoryStore(is_shared=True)
        engine: Any = Stub(after)
        engine.rules = Rules(Retention(kept))
        failover = Failover(engine)
        note = Deliver("ex_1", Message("m1", MessageKind.NOTE, "client"), T)
        for item in (born("ex_1"), note):
            failover.recall.take([(item, None)], before.commit([item]))
        failover.dropping(StoreFailedOver("promoted", epoch=1))
        (loss,) = losses(after, failover)
        assert (loss.missing, loss.messages) == lost, kept


def test_what_ran_is_noted_before_those_who_wrote_hear_that_their_commit_failed() -> None:
    """They let go of what they ran, in the very commit that says that the store went back."""
    store = MemoryStore(is_shared=True)
    engine: Any = Stub(store)

    class Owner:
        def settled(self, item: Any, answer: Answer) -> None:
            engine.worker.drivers.clear()

    async def fail(error: StoreFailedOver) -> None:
        journal = Journal(store, asyncio.get_running_loop())
        engine.journal = journal
        failover = Failover(engine)
        journal.on_failure = failover.dropping
        engine.runs(begun("ex_1")[0].record, 7)
        journal._pending = 1
        journal._settle([(born("ex_2"), Owner())], [Answer("unknown", error=error)])
        await failover.account()
        await journal.close()

    asyncio.run(fail(StoreFailedOver("promoted", epoch=1)))
    (loss,) = store.epochs.losses(1)
    assert loss.examples == ("ex_1",)


def test_who_comes_back_twice_at_once_says_it_once() -> None:
    store = MemoryStore(is_shared=True)
    engine: Any = Stub(store)
    failover = Failover(engine)
    failover.dropping(StoreFailedOver("promoted", epoch=1))
    assert len(losses(store, failover, failover)) == 1


def test_it_is_said_also_if_the_store_fails_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failovers, "AGAIN_SECONDS", 0.0)
    store = MemoryStore(is_shared=True)
    engine: Any = Stub(store)
    failover = Failover(engine)
    failover.dropping(StoreFailedOver("promoted", epoch=1))
    engine.fails = 2
    assert len(losses(store, failover)) == 1
