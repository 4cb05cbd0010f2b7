"""Capacity against a model: random lives, and at each step nobody too many and nobody idle."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from outlast.dialects import DIALECTS
from outlast.dialects.dialect import project
from outlast.lifecycle import Event, Execution, Kind, MessageKind, State
from outlast.lifecycle.gate import gates_of, held_by, turn_of
from outlast.store.memory import MemoryStore
from outlast.store.protocol import Deliver, Lease, QueueSetting, Setting, Store, Write
from outlast.store.relational.capacity import LINES_MAX
from outlast.store.relational.pending import Pending
from outlast.store.relational.rows import values_of_execution
from outlast.store.sqlite import SqliteStore
from outlast.testing.conformance import ASK, Owner, T, begun, born, message, nonces, one

SECOND = 1_000_000
NAMES = ["k:a", "k:b", "pool"]


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store = MemoryStore()
    if request.param == "sqlite":
        made = SqliteStore(tmp_path / "outlast.db", owner="w0", now=1)
        made.file.writer.execute("PRAGMA synchronous = OFF")
    yield made
    made.close()


class Model:
    """What must be so, computed from the executions' rows alone."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store, self.dice = store, random.Random(seed)
        self.now, self.count, self.worker = T, 0, 0
        self.ids: list[str] = []
        self.owners: dict[str, Owner] = {}
        self.capacities: dict[str, int] = {}
        self.queues: dict[str, QueueSetting] = {}
        self.inside_before: dict[str, set[str]] = {}
        self.most: dict[str, int] = {}
        self.taken = self.blocked = 0

    def rows(self) -> list[Execution]:
        return [row for row in self.store.get(self.ids) if row is not None]

    def inside(self) -> dict[str, set[str]]:
        inside: dict[str, set[str]] = {}
        for row in self.rows():
            for gate in held_by(row):
                inside.setdefault(gate, set()).add(row.id)
        return inside

    def capacity(self, name: str, row: Execution) -> int:
        family = name.partition(":")[0]
        own = next(limit.capacity for limit in gates_of(row.gates).limits if limit.name == name)
        return self.capacities.get(name, self.capacities.get(family, own))

    def is_admissible(self, row: Execution, inside: dict[str, set[str]]) -> bool:
        queue = self.queues.get(row.queue)
        if queue is not None:
            running = sum(one.is_leased and one.queue == row.queue for one in self.rows())
            full = queue.capacity is not None and running >= queue.capacity
            if queue.paused_at is not None or full:
                return False
        return all(
            row.id in inside.get(limit.name, ())
            or len(inside.get(limit.name, ())) < self.capacity(limit.name, row)
            for limit in gates_of(row.gates).limits
        )

    # What happens

    def start(self) -> None:
        self.count += 1
        id = f"ex_{self.count:05}"
        limits = [
            {"name": name, "of": name.partition(":")[0], "capacity": 2, "hold": name == "k:b"}
            for name in self.dice.sample(NAMES, self.dice.choice([0, 1, 1, 2]))
        ]
        data: dict[str, Any] = {"gates": {"limits": limits}} if limits else {}
        queue, priority = self.dice.choice(["a", "b"]), self.dice.choice([0, 0, 0, 3])
        item = born(id, self.now, queue=queue, priority=priority, **data)
        assert one(self.store, item).refused is None
        self.ids.append(id)

    def leave(self) -> None:
        running = [owner for owner in self.owners.values() if owner.record.is_leased]
        if not running:
            return
        owner = self.dice.choice(running)
        del self.owners[owner.record.id]
        how = self.dice.choice(["end", "fail", "park", "release", "retry"])
        data: dict[str, Any] = {"error": {"message": "no"}, "retries": 9, "due_at": self.now + 5}
        item = {
            "end": lambda: owner.write(Kind.FINISH, self.now),
            "fail": lambda: owner.write(Kind.ERROR, self.now, data=data),
            "park": lambda: owner.park(Kind.WAIT, self.now, data=ASK),
            "release": lambda: owner.write(Kind.RELEASE, self.now),
            "retry": lambda: owner.park(Kind.RETRY, self.now, data=data),
        }[how]()
        assert one(self.store, item).refused is None

    def send(self) -> None:
        idle = [row.id for row in self.rows() if not row.is_leased and not row.is_final]
        if not idle:
            return
        kind = self.dice.choice(
            [MessageKind.ANSWER, MessageKind.ANSWER, MessageKind.CANCEL, MessageKind.PAUSE]
            + [MessageKind.RESUME] * 3
            + [MessageKind.PRIORITY]
        )
        self.count += 1
        key = "q#1" if kind is MessageKind.ANSWER else None
        data = {"priority": self.dice.randrange(5)}
        sent = message(f"m{self.count}", kind, key=key, data=data)
        one(self.store, Deliver(self.dice.choice(idle), sent, self.now))

    def crash(self) -> None:
        self.owners.clear()
        dead, self.worker = f"w{self.worker}", self.worker + 1
        self.store.recover([dead], f"w{self.worker}", self.now, 1_000)

    def operate(self) -> None:
        roll = self.dice.random()
        if roll < 0.4:
            name, capacity = self.dice.choice([*NAMES, "k"]), self.dice.randrange(4)
            self.capacities[name] = capacity
            self.store.capacity.set_gate(Setting(name, capacity, None, "ann", self.now))
        elif roll < 0.6:
            name = self.dice.choice([*NAMES, "k"])
            self.capacities.pop(name, None)
            self.store.capacity.reset_gate(name)
        else:
            queue = QueueSetting(
                self.dice.choice("ab"),
                self.dice.choice([None, None, 1, 3]),
                self.dice.choice([None, None, None, self.now]),
            )
            self.queues[queue.name] = queue
            self.store.capacity.set_queue(queue)

    def claim(self, limit: int) -> None:
        before = self.inside()
        waiting = {row.id: row for row in self.rows() if row.state in (State.QUEUED, State.BLOCKED)}
        self.count += 1
        lease = Lease(f"w{self.worker}", 10**9)
        claims = self.store.claim(lease, ["t"], limit, self.now, nonces(limit, self.count))
        claimed = [claim.execution.id for claim in claims]
        after = self.inside()
        for gate, ids in after.items():
            for id in ids - before.get(gate, set()):
                (row,) = self.store.get([id])
                assert row is not None
                assert len(ids) <= self.capacity(gate, row), f"too many in {gate}"
            self.most[gate] = max(self.most.get(gate, 0), len(ids))
        left = {row.id: row for row in self.rows() if row.id in waiting and not row.is_leased}
        admissible = [id for id, row in left.items() if self.is_admissible(row, after)]
        if len(claimed) < limit:
            assert not admissible, "there was room, and somebody who could have come in"
        turns = [turn_of(waiting[id]) for id in claimed]
        assert turns == sorted(turns), "in the order of their turn"
        for id in admissible:
            assert turn_of(waiting[id]) > turns[-1], "nobody was passed over who could come in"
        owners = [Owner(claim.execution) for claim in claims]
        self.owners |= {owner.record.id: owner for owner in owners}
        started = [owner.write(Kind.START, self.now) for owner in owners]
        assert all(answer.refused is None for answer in self.store.commit(started))
        self.taken += len(claimed)
        self.blocked += any(row.state is State.BLOCKED for row in left.values())

    def step(self) -> None:
        self.now += self.dice.randrange(30) * SECOND
        self.store.sweep(self.now, 1_000)
        roll = self.dice.random()
        if roll < 0.35:
            self.start()
        elif roll < 0.6:
            self.leave()
        elif roll < 0.7:
            self.send()
        elif roll < 0.73:
            self.crash()
        elif roll < 0.8:
            self.operate()
        else:
            self.claim(self.dice.choice([1, 2, 5, 50]))


@pytest.mark.parametrize("seed", range(8))
def test_never_too_many_never_idle_always_in_turn(store: Store, seed: int) -> None:
    model = Model(store, seed)
    for _ in range(250):
        model.step()
    for queue in "ab":
        model.queues[queue] = QueueSetting(queue)
        store.capacity.set_queue(QueueSetting(queue))
    for name in [*NAMES, "k"]:
        model.capacities.pop(name, None)
        store.capacity.reset_gate(name)
    for _ in range(400):  # whoever waits comes in at last
        model.now += SECOND
        store.sweep(model.now, 1_000)
        for row in model.rows():
            if row.state in (State.AWAITING_INPUT, State.PAUSED):
                model.count += 1
                kind = MessageKind.CANCEL
                one(store, Deliver(row.id, message(f"z{model.count}", kind), model.now))
        model.claim(50)
        for owner in list(model.owners.values()):
            one(store, owner.write(Kind.FINISH, model.now))
        model.owners.clear()
        if all(row.is_final for row in model.rows()):
            break
    assert all(row.is_final for row in model.rows())
    assert model.taken > 50 and model.blocked > 5 and model.most
    assert store.verify().defects == []


def test_ten_thousand_at_one_key_cost_a_claim_one_step(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "outlast.db", owner="w0", now=1)
    store.file.writer.execute("PRAGMA synchronous = OFF")
    gates = {"limits": [{"name": "k", "of": "k", "capacity": 1, "hold": False}]}
    for place in range(0, 10_000, 2_000):
        store.commit([born(f"ex_{n:05}", T + n, gates=gates) for n in range(place, place + 2_000)])
    seed = iter(range(10**6))

    def claim(now: int, limit: int = 100) -> list[Execution]:
        found = store.claim(Lease("w0"), ["t"], limit, now, nonces(limit, next(seed)))
        is_unfinished.append(found.is_unfinished)
        return [claimed.execution for claimed in found]

    is_unfinished: list[bool] = []
    taken = claim(T + 10**6)
    while is_unfinished[-1]:
        taken += claim(T + 10**6)
    assert [one.id for one in taken] == ["ex_00000"] and len(is_unfinished) == 20
    assert store.counts() == {State.BLOCKED: 9_999, State.STARTING: 1}

    steps: list[int] = []
    traced = [0]

    def trace(_: object) -> bool:
        traced[0] += 1
        return False

    store.file.writer.set_progress_handler(
        lambda: trace(None), 100
    )  # each 100 steps of its machine
    for n in range(1, 6):
        owner = Owner(taken[-1])
        store.commit(
            [owner.write(Kind.START, T + 10**7 + n), owner.write(Kind.FINISH, T + 10**7 + n)]
        )
        traced[0] = 0
        taken += claim(T + 10**7 + n)
        steps.append(traced[0])
        assert taken[-1].id == f"ex_{n:05}"
    store.file.writer.set_progress_handler(None)
    assert max(steps) < 150, "some ten thousand steps would be a scan"
    store.close()


@pytest.mark.parametrize("foreign", ["task", "version"])
def test_ten_thousand_that_cannot_be_run_here_cost_a_claim_nothing(
    tmp_path: Path, foreign: str
) -> None:
    """What other engines' code runs stands before what ours does, and no claim passes it."""
    store = SqliteStore(tmp_path / "outlast.db", owner="w0", now=1)
    store.file.writer.execute("PRAGMA synchronous = OFF")
    theirs: dict[str, Any] = (
        {"task": "theirs"} if foreign == "task" else {"gates": {"version": "2"}}
    )
    for place in range(0, 10_000, 2_000):
        store.commit([born(f"ex_{n:05}", T + n, **theirs) for n in range(place, place + 2_000)])
    store.commit([born("ex_ours", T + 10**5), born("ex_pin", T + 10**5, gates={"version": "1"})])
    traced = [0]

    def trace() -> bool:
        traced[0] += 1
        return False

    store.file.writer.set_progress_handler(trace, 100)  # each 100 steps of its machine
    found = store.claim(Lease("w0"), ["t"], 9, T + 10**6, nonces(9, 1), [("t", "1")])
    store.file.writer.set_progress_handler(None)
    assert [one.execution.id for one in found] == ["ex_ours", "ex_pin"]
    assert traced[0] < 150, "some ten thousand steps would be a scan"
    store.close()


def test_more_lines_than_one_claim_looks_at(tmp_path: Path) -> None:
    """Each line comes to its turn, though one claim looks at some of them only."""
    store = SqliteStore(tmp_path / "outlast.db", owner="w0", now=1)
    count = LINES_MAX + 40
    name = {"of": "k", "capacity": 1, "hold": False}
    for n in range(count):
        gates = {"limits": [{"name": f"k:{n}", **name}]}
        store.commit(
            [born(f"ex_{n:04}a", T + n, gates=gates), born(f"ex_{n:04}b", T + n, gates=gates)]
        )
    found = store.claim(Lease("w0"), ["t"], 2 * count, T + count, nonces(2 * count))
    while found.is_unfinished:
        more = store.claim(Lease("w0"), ["t"], 2 * count, T + count, nonces(2 * count, 7))
        found.extend(more)
        found.is_unfinished = more.is_unfinished
    assert len(found) == count
    owners = [Owner(claimed.execution) for claimed in found]
    store.commit([owner.write(Kind.START, T + count) for owner in owners])
    store.commit([owner.write(Kind.FINISH, T + count) for owner in owners])
    again = store.claim(Lease("w0"), ["t"], 2 * count, T + count + 1, nonces(2 * count, 8))
    while again.is_unfinished:
        more = store.claim(Lease("w0"), ["t"], 2 * count, T + count + 1, nonces(2 * count, 9))
        again.extend(more)
        again.is_unfinished = more.is_unfinished
    assert len(again) == count
    store.close()


GATED = {"limits": [{"name": "k", "of": "k", "capacity": 1, "hold": False}]}


@pytest.fixture
def full(tmp_path: Path) -> Iterator[SqliteStore]:
    """One inside a limit, one in its line."""
    store = SqliteStore(tmp_path / "outlast.db", owner="w0", now=1)
    store.commit([born("ex_1", T, gates=GATED), born("ex_2", T + 1, gates=GATED)])
    assert len(store.claim(Lease("w0"), ["t"], 9, T + 2, nonces(9))) == 1
    yield store
    store.close()


def test_a_second_holder_is_refused_by_the_schema(full: SqliteStore) -> None:
    """What a claim with a bug would write: the lease, though its limit is full."""
    (record,) = full.get(["ex_2"])
    assert record is not None
    owner = Owner(record)
    row = owner.decide(Event(Kind.CLAIM, "engine", nonce=b"x" * 16, data={"worker": "w0"}), T + 3)
    after = owner.record
    position = (after.seq, after.idle_claims, after.inbox_seen, after.updated_at)
    item = Write("ex_2", record.fence, None, record.seq, [row], position, after)
    answer = one(full, item)
    assert answer.refused == "internal_error" and "no more holders" in str(answer.error)
    assert full.get(["ex_2"]) == [record] and full.verify().defects == []


def test_a_birth_with_a_lease_and_gates_is_refused_by_the_schema(full: SqliteStore) -> None:
    _, item = begun("ex_3", gates={"needs": ["gpu"]})
    full.file.writer.execute("BEGIN")
    pending = Pending()
    pending.transitions += item.rows
    pending.born.append(values_of_execution(item.after))
    with pytest.raises(apsw.ConstraintError, match="claimed, not born with a lease"):
        full._flush(pending)
    full.file.writer.execute("ROLLBACK")


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("DELETE FROM holder", "ex_1: is no holder by the index: k"),
        ("INSERT INTO holder VALUES (1, 'z', 'ex_2')", "ex_2: is a holder by the index only: z"),
        ("DELETE FROM line", "ex_2: stands in a line that there is not: k"),
    ],
)
def test_verify_finds_an_index_that_is_not_what_the_rows_say(
    full: SqliteStore, sql: str, said: str
) -> None:
    assert full.verify().defects == []
    full.file.writer.execute(sql)
    assert full.verify().defects == [said]


def test_a_blocked_execution_waits_for_resources_in_flytes_words(full: SqliteStore) -> None:
    words = [str(one.target) for one in project(DIALECTS["flyte-action"], full.log("ex_2"))]
    assert words[-1] == "WAITING_FOR_RESOURCES"
