"""Memory and SQLite side by side: random operations, the same answers, the same rows after each.

The memory store is built from ``decide`` alone and is the oracle. Writers are real owners and bad
ones: with an old fence, another's nonce, a number they do not have, messages they have not seen.
The run ends by coverage: every verb and every refusal a store gives was seen. What chance may miss
a directed story makes, through the same two stores.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from outlast.lifecycle import (
    Decision,
    Event,
    Kind,
    Message,
    MessageKind,
    State,
    apply,
    decide,
)
from outlast.lifecycle.record import copy_of
from outlast.store.memory import MemoryStore
from outlast.store.protocol import (
    Answer,
    Create,
    Deliver,
    Filter,
    Item,
    Lease,
    QueueSetting,
    Setting,
    Store,
    WorkerRow,
    Write,
)
from outlast.store.sqlite import SqliteStore
from outlast.testing.conformance import ASK, Owner, T, begun, born, message
from outlast.testing.conformance_structure import calls_child, child_of

VERBS = {
    "commit",
    "claim",
    "sweep",
    "recover",
    "register",
    "workers",
    "get",
    "find",
    "with_key",
    "page",
    "counts",
    "log",
    "inbox",
    "unread",
    "verify",
    "changed",
    "set_queue",
    "set_gate",
    "reset_gate",
}
REFUSALS = {
    "fenced",
    "moved",
    "already_exists",
    "key_conflict",
    "already_final",
    "already_answered",
    "no_execution",
    "internal_error",
    "already_paused",
    "no_upstream",
}
SECOND = 1_000_000
R = TypeVar("R")


class Pair:
    """Two stores that get the same calls and must give the same answers."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="outlast-diff-"))
        self.memory: Store = MemoryStore()
        self.sqlite = SqliteStore(self.directory / "outlast.db", owner="w0", now=1)
        self.sqlite._writer.execute("PRAGMA synchronous = OFF")  # what is compared is not the disk
        self.seen: Counter[str] = Counter()
        self.ids: list[str] = []

    def call(self, verb: str, use: Callable[[Store], R]) -> R:
        self.seen[verb] += 1
        one, other = use(self.memory), use(self.sqlite)
        assert one == other, f"{verb}: memory gives {one}, sqlite {other}"
        return one

    def commit(self, make: Callable[[], list[Item]]) -> list[Answer]:
        """Commit the items; each store gets its own, as items may be kept."""
        answers = [store.commit(make()) for store in (self.memory, self.sqlite)]
        self.seen["commit"] += 1
        for one, other in zip(*answers, strict=True):
            assert (one.refused, one.execution) == (other.refused, other.execution)
            assert (one.error is None) == (other.error is None)
            assert (list(one.told), one.owes) == (list(other.told), other.owes)
            self.seen["told"] += len(one.told)
            self.seen["owes"] += one.owes
            self.seen[one.refused or "stored"] += 1
        return answers[0]

    def check(self) -> None:
        """Compare everything there is."""
        ids = self.ids
        assert self.memory.get(ids) == self.sqlite.get(ids)
        for id in ids:
            assert self.memory.log(id) == self.sqlite.log(id), id
            assert self.memory.inbox(id) == self.sqlite.inbox(id), id
        assert self.memory.counts() == self.sqlite.counts()
        for newest in (True, False):
            asking = [
                store.asking(None, "", 1_000, newest=newest) for store in (self.memory, self.sqlite)
            ]
            assert asking[0] == asking[1]
            self.seen["asking"] += len(asking[0])
        assert self.memory.capacity.queues() == self.sqlite.capacity.queues()
        gates = self.memory.capacity.gates()
        assert gates == self.sqlite.capacity.gates()
        assert self.sqlite.capacity.defects() == []
        self.seen["blocked"] += any(gate.waiting for gate in gates)
        for id in ids[-20:]:
            assert self.memory.capacity.standing(id) == self.sqlite.capacity.standing(id), id

    def close(self) -> None:
        for store in (self.memory, self.sqlite):
            assert store.verify().defects == []
        assert self.memory.verify() == self.sqlite.verify()
        self.sqlite.close()
        shutil.rmtree(self.directory)


def twice(items: list[Item]) -> Callable[[], list[Item]]:
    """Give fresh copies of a batch, so that no store can see what another did to an item."""

    def make() -> list[Item]:
        fresh: list[Item] = []
        for item in items:
            if isinstance(item, Create):
                fresh.append(Create(copy_of(item.after), list(item.rows)))
            elif isinstance(item, Write):
                after = None if item.after is None else copy_of(item.after)
                fresh.append(replace(item, rows=list(item.rows), after=after))
            else:
                fresh.append(item)
        return fresh

    return make


LIMITS: list[dict[str, Any]] = [
    {"name": "k:a", "of": "k", "capacity": 1, "hold": False},
    {"name": "k:a", "of": "k", "capacity": 2, "hold": False},
    {"name": "k:b", "of": "k", "capacity": 1, "hold": True},
    {"name": "one", "of": "one", "capacity": 1, "hold": False},
    {"name": "one", "of": "one", "capacity": 2, "hold": True},
]
RATES: list[dict[str, Any]] = [
    {"name": "rate:r", "of": "rate:r", "interval_us": 3 * SECOND, "burst": 1},
    {"name": "rate:r:a", "of": "rate:r", "interval_us": 2 * SECOND, "burst": 2},
]


def some_gates(dice: random.Random) -> dict[str, Any]:
    """Gates of a few names, so that they are met again and again."""
    gates: dict[str, Any] = {}
    if dice.random() < 0.8:
        limits = {one["name"]: one for one in dice.sample(LIMITS, dice.choice([1, 1, 2]))}
        gates["limits"] = list(limits.values())
    if dice.random() < 0.25:
        gates["rates"] = dice.sample(RATES, dice.choice([1, 1, 2]))
    if dice.random() < 0.15:
        gates["needs"] = ["gpu"]
    return gates


OWNED = [
    Kind.START,
    Kind.STEP,
    Kind.STEP,
    Kind.STEP,
    Kind.INIT_BRANCH,
    Kind.FINISH_BRANCH,
    Kind.WAIT,
    Kind.WAIT,
    Kind.SUSPEND,
    Kind.RETRY,
    Kind.FINISH,
    Kind.ERROR,
    Kind.RELEASE,
    Kind.PAUSE,
    Kind.CANCEL,
    Kind.TIMER_FIRED,
    Kind.ATTEMPT_FAILED,
    Kind.STEP_ANNOUNCED,
    Kind.ANNOTATION,
]
GIVES_UP = {Kind.WAIT, Kind.SUSPEND, Kind.RETRY, Kind.PAUSE}
FORGERIES: list[dict[str, Any]] = [
    {"fence": 0},
    {"fence": 99},
    {"nonce": b"x" * 16},
    {"nonce": None},
    {"seq": 0},
    {"seq": 77},
    {"id": "ex_nobody"},
    {"inbox_seen": 99},
]


class Machine(RuleBasedStateMachine):
    """Random operations; a seeded die inside each rule keeps examples small and shrinkable."""

    seen: ClassVar[Counter[str]] = Counter()

    @initialize()
    def begin(self) -> None:
        self.pair = Pair()
        self.now = T
        self.owners: dict[str, Owner] = {}
        self.ghosts: list[Owner] = []
        self.unborn: dict[str, Owner] = {}
        self.keys = 0
        self.numbers = iter(range(1, 10**9))

    def nonce(self) -> bytes:
        return next(self.numbers).to_bytes(16)

    def fresh_id(self) -> str:
        id = f"ex_{next(self.numbers):06}"
        self.pair.ids.append(id)
        return id

    # Items

    def new_create(self, dice: random.Random) -> Item:
        data: dict[str, Any] = {
            "priority": dice.choice([0, 0, 5, -5]),
            "input_digest": dice.choice([1, 1, 2]),
            "due_at": dice.choice([None, None, self.now - 5, self.now + 7 * SECOND]),
            "deadline_at": dice.choice([None, None, None, self.now + 20 * SECOND]),
            "start_by": dice.choice([None, None, None, self.now + 10 * SECOND]),
        }
        if dice.random() < 0.3:
            data["key"] = f"key {dice.randrange(4)}"
        if dice.random() < 0.1:
            upstream = dice.choice([*self.pair.ids[-20:], "ex_other"])
            need, or_else = dice.choice(["success", "end"]), dice.choice(["cancel", "hold"])
            data["waits_on"] = [{"id": upstream, "need": need, "or_else": or_else}]
        data["queue"] = dice.choice(["default", "default", "a", "b"])
        if dice.random() < 0.5:
            data["gates"] = some_gates(dice)
        if dice.random() < 0.1 and self.pair.ids:
            return born(dice.choice(self.pair.ids), self.now, **data)
        if dice.random() < 0.3 and "waits_on" not in data:
            data["due_at"] = None
            owner, item = begun(self.fresh_id(), "w0", self.now, nonce=self.nonce(), **data)
            self.owners[owner.record.id] = owner  # look_again finds out if it was born queued
            return item
        return born(self.fresh_id(), self.now, task=dice.choice(["t", "t", "u"]), **data)

    def new_writes(self, dice: random.Random) -> list[Item]:
        """What one owner decides, honestly or not; it may decide several things for one batch."""
        if not self.owners and not self.ghosts:
            return []
        pool = list(self.owners.values())
        ghost = bool(self.ghosts) and (not pool or dice.random() < 0.15)
        owner = dice.choice(self.ghosts if ghost else pool)
        items: list[Item] = []
        for _ in range(dice.choice([1, 1, 1, 2, 4])):
            item = self.new_write(owner, dice)
            if item is None:
                break
            if dice.random() < 0.08:
                item = replace(item, **dice.choice(FORGERIES))
            elif dice.random() < 0.03:
                item.rows = [replace(item.rows[0], to_state=State.SCHEDULED)]
            items.append(item)
        return items

    def new_write(self, owner: Owner, dice: random.Random) -> Write | None:
        record = owner.record
        if not record.is_leased:
            return None
        entries = self.pair.memory.inbox(record.id, record.inbox_seen)
        if entries and dice.random() < 0.6:
            twin = copy_of(record)
            twin.inbox_count = max(twin.inbox_count, entries[0].number)
            note = Owner(twin)
            try:
                item = note.take(entries[0], self.now)
            except AssertionError:
                return None  # asked for the same twice; an engine keeps that as a remark
            owner.record = note.record
            return item
        if dice.random() < 0.15:
            return self.new_child(owner, dice)
        kind = dice.choice(OWNED)
        data = {
            **(ASK if dice.random() < 0.5 else {"waits": [{"kind": "timer"}]}),
            "due_at": self.now + dice.choice([1, 4, 9]) * SECOND,
            "retries": 3,
            "code": "budget",
            "text": "ü",
            "error": {"message": "it"},
        }
        event = Event(kind, "engine", record.fence, record.nonce, data=data)
        if not isinstance(decide(copy_of(record), event, self.now), Decision):
            return None
        seen = record.inbox_seen if kind in GIVES_UP else None
        return owner.write(
            kind,
            self.now,
            key=f"k#{dice.randrange(9)}",
            digest=dice.randrange(99),
            data=data,
            payload=dice.choice([None, b"", b"\x00", b"[1]"]),
            inbox_seen=seen,
        )

    def new_child(self, owner: Owner, dice: random.Random) -> Write | None:
        """A row of a parent, with a child that is born with it and a message to somebody."""
        if owner.record.state is not State.RUNNING:
            return None
        child, birth = child_of(owner, f"ex_{next(self.numbers):06}", key=f"k#{dice.randrange(9)}")
        item = calls_child(owner, birth, self.now)
        self.unborn[child.record.id] = child
        sent = self.new_delivery(dice)
        assert isinstance(sent, Deliver)
        return replace(item, sends=[sent]) if dice.random() < 0.3 else item

    def new_delivery(self, dice: random.Random) -> Item:
        kind = dice.choice(list(MessageKind))
        id = dice.choice([*self.pair.ids[-12:], "ex_nobody"])
        sent = Message(
            f"m{dice.randrange(60)}",
            kind,
            dice.choice(["ann", "bob"]),
            dice.choice(["q#1", "q#1", "q#2", None]),
            {
                "priority": dice.randrange(3),
                "why": "so",
                "force": dice.random() < 0.3,
                "upstream": dice.choice(self.pair.ids[-12:] or ["ex_nobody"]),
                "state": "failed",
            },
            dice.choice([None, b"yes"]),
        )
        return Deliver(id, sent, self.now)

    # Rules

    @rule(seed=st.integers(0, 2**32), size=st.integers(1, 8))
    def commit(self, seed: int, size: int) -> None:
        dice = random.Random(seed)
        items: list[Item] = []
        for _ in range(size):
            roll = dice.random()
            if roll < 0.25:
                items.append(self.new_create(dice))
            elif roll < 0.7:
                items += self.new_writes(dice)
            else:
                items.append(self.new_delivery(dice))
        self.pair.commit(twice(items))
        self.owners |= self.unborn
        self.pair.ids += self.unborn
        self.unborn.clear()
        self.look_again()

    def look_again(self) -> None:
        """Owners that lost their lease become ghosts; they still try to write."""
        for id, owner in list(self.owners.items()):
            (stored,) = self.pair.memory.get([id])
            known = copy_of(owner.record)
            if stored is not None:
                known.inbox_count = stored.inbox_count
            if stored != known or not owner.record.is_leased:
                del self.owners[id]
                if stored is not None and stored.nonce == owner.record.nonce is not None:
                    # The same lease: an owner throws such a copy away, or the compare-and-set,
                    # which looks at the number only, could take one thing for another.
                    self.owners[id] = Owner(stored)
                else:
                    self.ghosts = [*self.ghosts[-9:], owner]

    @rule(
        limit=st.integers(0, 6),
        tasks=st.sampled_from([["t"], ["t", "u"], ["unknown"]]),
        cap=st.sampled_from([5, 5, 1]),
        worker=st.sampled_from(["w0", "w1"]),
        queues=st.sampled_from([None, None, None, frozenset({"a", "default"})]),
        able=st.sampled_from([frozenset(), frozenset(), frozenset({"gpu"})]),
    )
    def claim(
        self,
        limit: int,
        tasks: list[str],
        cap: int,
        worker: str,
        queues: frozenset[str] | None,
        able: frozenset[str],
    ) -> None:
        drawn = [self.nonce() for _ in range(limit)]
        lease = Lease(worker, cap, queues, able)
        claimed = self.pair.call(
            "claim", lambda store: store.claim(lease, tasks, limit, self.now, drawn)
        )
        for one in claimed:
            self.owners[one.execution.id] = Owner(one.execution)
        self.look_again()

    @rule(seed=st.integers(0, 2**32))
    def operate(self, seed: int) -> None:
        """Rules for queues and gates, set and taken back."""
        dice = random.Random(seed)
        roll = dice.random()
        queue = QueueSetting(
            dice.choice(["default", "a", "b"]),
            dice.choice([None, None, 0, 1, 3]),
            dice.choice([None, None, self.now]),
        )
        gate = dice.choice(["k", "k:a", "one", "rate:r"])
        interval_us = dice.choice([SECOND, 5 * SECOND]) if gate.startswith("rate:") else None
        capacity = dice.choice([1, 2]) if interval_us else dice.randrange(4)
        setting = Setting(gate, capacity, interval_us, "ann", self.now)
        if roll < 0.4:
            self.pair.call("set_queue", lambda store: store.capacity.set_queue(queue))
        elif roll < 0.8:
            self.pair.call("set_gate", lambda store: store.capacity.set_gate(setting))
        else:
            self.pair.call("reset_gate", lambda store: store.capacity.reset_gate(gate))

    @rule(seconds=st.integers(0, 12), limit=st.sampled_from([100, 100, 2]))
    def sweep(self, seconds: int, limit: int) -> None:
        self.now += seconds * SECOND
        moved, due_at = self.pair.call("sweep", lambda store: store.sweep(self.now, limit))
        if moved < limit:
            assert due_at is None or due_at > self.now
        self.look_again()

    @rule(
        dead=st.sampled_from([None, ["w1"], ["w0", "w1"], []]),
        alive=st.sampled_from(["w0", "new"]),
        limit=st.sampled_from([100, 1]),
    )
    def recover(self, dead: list[str] | None, alive: str, limit: int) -> None:
        self.pair.call("recover", lambda store: store.recover(dead, alive, self.now, limit))
        self.look_again()

    @rule(seed=st.integers(0, 2**32))
    def read(self, seed: int) -> None:
        dice = random.Random(seed)
        filter = Filter(
            states=dice.choice(
                [
                    (),
                    (State.QUEUED,),
                    (State.SUCCEEDED,),
                    (State.PAUSED, State.FAILED),
                    (State.RUNNING, State.AWAITING_INPUT),
                ]
            ),
            task=dice.choice([None, "t"]),
            input_digest=dice.choice([None, 1]),
            created_after=dice.choice([None, self.now - SECOND]),
            before_id=dice.choice([None, *self.pair.ids[-3:]]),
            limit=dice.choice([2, 50]),
        )
        id = dice.choice([*self.pair.ids, "ex_nobody"])
        self.pair.call("page", lambda store: store.page(filter))
        self.pair.call("find", lambda store: store.find(dice_text(seed, id), 5))
        self.pair.call("with_key", lambda store: store.with_key(f"key {seed % 5}"))
        self.pair.call("get", lambda store: store.get([id, "ex_nobody", id]))
        self.pair.call("counts", lambda store: store.counts())
        self.pair.call("log", lambda store: store.log(id, seed % 4, seed % 3 - 1))
        self.pair.call("inbox", lambda store: store.inbox(id, seed % 2))
        self.pair.call("unread", lambda store: store.unread("w0"))
        self.pair.call("changed", lambda store: store.changed())

    @rule(n=st.integers(0, 3))
    def register(self, n: int) -> None:
        row = WorkerRow(f"w{n}", "host", n, T + n, self.now)
        self.pair.call("register", lambda store: store.register(row))
        self.pair.call("workers", lambda store: store.workers())

    @invariant()
    def same(self) -> None:
        if hasattr(self, "pair"):
            self.pair.check()

    def teardown(self) -> None:
        if hasattr(self, "pair"):
            self.pair.call("verify", lambda store: store.verify())
            self.pair.close()
            Machine.seen += self.pair.seen


def dice_text(seed: int, id: str) -> str:
    return [id, id[:5], id[-2:], "zz"][seed % 4]


@pytest.fixture(scope="module")
def seen() -> Counter[str]:
    """What the random part has seen."""
    Machine.seen = Counter()
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=int(os.environ.get("OUTLAST_EXAMPLES", "300")),
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
        ),
    )
    return Machine.seen


def test_the_stores_agree(seen: Counter[str]) -> None:
    """By the fixture; here: it was not an idle run."""
    assert seen["stored"] > 50 and seen["blocked"]


def directed() -> Counter[str]:
    """Every verb and every refusal once, whatever chance did."""
    pair = Pair()
    pair.ids = ["ex_1", "ex_2", "ex_3", "ex_4"]
    owner, item = begun("ex_1", "w0", key="k", input_digest=1)
    bad, item2 = begun("ex_2", "w0", nonce=b"b" * 16)
    pair.commit(
        twice([item, item2, born("ex_3"), born("ex_3"), born("ex_4", key="k", input_digest=2)])
    )
    pair.commit(twice([born("ex_4", key="k", input_digest=1)]))
    nobody = {"id": "ex_no", "need": "end", "or_else": "hold"}
    pair.commit(twice([born("ex_4", waits_on=[nobody])]))
    signal = message("m1", MessageKind.ANSWER, key="q#1")
    again = message("m2", MessageKind.ANSWER, key="q#1")
    pair.commit(
        twice([Deliver("ex_1", signal, T), Deliver("ex_1", again, T), Deliver("no", again, T)])
    )
    pair.commit(twice([Owner(owner.record).park(Kind.WAIT, data=ASK)]))
    pair.commit(twice([replace(Owner(owner.record).write(Kind.STEP), fence=9)]))
    wrong = bad.write(Kind.STEP)
    wrong.rows = [replace(wrong.rows[0], to_state=State.FAILED)]
    pair.commit(twice([wrong]))
    held = [Deliver("ex_3", message(f"p{n}", MessageKind.PAUSE), T) for n in range(2)]
    pair.commit(twice([*held]))
    pair.commit(twice([owner.write(Kind.FINISH)]))
    pair.commit(twice([Deliver("ex_1", message("m9", MessageKind.CANCEL), T)]))
    pair.check()
    pair.close()
    return pair.seen


def test_every_verb_and_every_refusal_was_seen(seen: Counter[str]) -> None:
    assert {name for name in VERBS if not seen[name]} == set()
    every = seen + directed()
    assert {name for name in REFUSALS if not every[name]} == set()
    unforeseen = every.keys() - VERBS - REFUSALS - {"stored", "told", "owes", "blocked", "asking"}
    assert not unforeseen, "a refusal that the protocol does not name"


def test_the_directed_part_alone_sees_every_refusal() -> None:
    assert directed().keys() >= REFUSALS


def test_the_pair_can_disagree() -> None:
    """The comparison is a comparison."""
    pair = Pair()
    pair.ids = ["ex_1"]
    pair.commit(twice([born("ex_1")]))
    (record,) = pair.memory.get(["ex_1"])
    assert record is not None
    decision = decide(record, Event(Kind.PAUSE, "ann"), T)
    assert isinstance(decision, Decision)
    apply(record, decision)
    memory = pair.memory
    assert isinstance(memory, MemoryStore)
    memory._records["ex_1"] = record
    with pytest.raises(AssertionError):
        pair.check()
    with pytest.raises(AssertionError):
        pair.call("counts", lambda store: store.counts())
    pair.sqlite.close()
    shutil.rmtree(pair.directory)
