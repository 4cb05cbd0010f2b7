"""Random operations on two stores, and the shortest story of a disagreement.

An operation is a name and the seed of a die: it looks at what is there and does something of its
kind, honestly or not. So operations may be left out of a story and the others still mean
something, which is how a story is made short.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from outlast.budget import data_of_charge
from outlast.lifecycle import PARKED, Decision, Event, Kind, Message, MessageKind, State, decide
from outlast.lifecycle.record import copy_of
from outlast.schedule import Plan, Request, Wish
from outlast.store.protocol import (
    Adjust,
    Answer,
    Charge,
    Deliver,
    Emission,
    Filter,
    Item,
    Lease,
    Offer,
    ProgressRow,
    QueueSetting,
    Reserve,
    Setting,
    WorkerRow,
    Write,
)
from outlast.testing.conformance import ASK, Owner, T, begun, born, born_alike, replace
from outlast.testing.conformance_schedules import draft, every
from outlast.testing.conformance_structure import calls_child, child_of
from tests.differential.pair import Open, Pair, open_sqlite, twice

SECOND = 1_000_000
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
OWNED = [
    Kind.START,
    *[Kind.STEP] * 3,
    Kind.INIT_BRANCH,
    Kind.FINISH_BRANCH,
    *[Kind.WAIT] * 2,
    Kind.SUSPEND,
    Kind.RETRY,
    *[Kind.FINISH] * 2,
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
ENDS = {Kind.FINISH, Kind.ERROR, Kind.CANCEL}
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
WAITS: list[dict[str, Any]] = [
    ASK,
    {"waits": [{"kind": "ask", "key": "q#2", "to": "ann"}, {"kind": "ask", "key": "q#1"}]},
    {"waits": [{"kind": "timer"}]},
    {"waits": [{"kind": "child", "key": "k#1"}, {"kind": "ask", "key": "q#1", "to": "bob"}]},
]
SHARED = ["task:t", "queue:a"]


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
    if dice.random() < 0.2:
        gates["version"] = dice.choice(["v1", "v2"])
    return gates


class Machine:
    """One world of executions, kept by two stores."""

    def __init__(self, open: Open = open_sqlite) -> None:
        self.pair = Pair(open)
        self.now = T
        self.owners: dict[str, Owner] = {}
        self.ghosts: list[Owner] = []
        self.unborn: dict[str, Owner] = {}
        self.numbers = iter(range(1, 10**9))

    def do(self, name: str, seed: int) -> None:
        """Do one operation, and compare everything."""
        getattr(self, name)(random.Random(seed))
        self.look_again()
        self.pair.check(self.now)

    def nonce(self) -> bytes:
        return next(self.numbers).to_bytes(16)

    def fresh_id(self) -> str:
        id = f"ex_{next(self.numbers):06}"
        self.pair.ids.append(id)
        return id

    def some_id(self, dice: random.Random) -> str:
        return dice.choice([*self.pair.ids[-12:], *self.pair.ids[-12:], "ex_nobody"])

    # Items

    def new_create(self, dice: random.Random) -> Item:
        data: dict[str, Any] = {
            "priority": dice.choice([0, 0, 5, -5]),
            "input_digest": dice.choice([1, 1, 2]),
            "due_at": dice.choice([None, None, self.now - 5, self.now + 7 * SECOND]),
            "deadline_at": dice.choice([None, None, None, self.now + 20 * SECOND]),
            "start_by": dice.choice([None, None, None, self.now + 10 * SECOND]),
            "queue": dice.choice(["default", "default", "a", "b"]),
        }
        if dice.random() < 0.3:
            data["key"] = f"key {dice.randrange(4)}"
        if dice.random() < 0.2:
            edges = {
                id: {
                    "id": id,
                    "need": dice.choice(["success", "end"]),
                    "or_else": dice.choice(["cancel", "hold"]),
                }
                for id in (self.some_id(dice) for _ in range(dice.choice([1, 1, 2])))
            }
            data["waits_on"] = list(edges.values())
        if dice.random() < 0.4:
            data["gates"] = some_gates(dice)
        if dice.random() < 0.3:
            labels = {"team": dice.choice("xy"), "city": dice.choice(["Ulm", "Bonn"])}
            data["labels"] = dict(dice.sample(list(labels.items()), dice.choice([1, 2])))
        if dice.random() < 0.2:
            mode = dice.choice(["rerun", "fork", "recover"])
            data["from"] = {"id": self.some_id(dice), "mode": mode, "step": None}
        if dice.random() < 0.25:
            scope = dice.choice(["execution", "tree"])
            data["budget"] = {"scope": scope, "limits": {"usd": 60}, "soft": 500_000}
        there = [one.id for one in self.pair.memory.get(self.pair.ids[-12:]) if one is not None]
        if dice.random() < 0.1 and there:
            return born(dice.choice(there), self.now, **data)
        if dice.random() < 0.4 and "waits_on" not in data:
            data["due_at"] = None
            owner, item = begun(self.fresh_id(), "w0", self.now, nonce=self.nonce(), **data)
            self.owners[owner.record.id] = owner  # look_again finds out if it was born queued
            return item
        return born(self.fresh_id(), self.now, task=dice.choice(["t", "t", "u"]), **data)

    def new_births(self, dice: random.Random) -> Item:
        ids = [self.fresh_id() for _ in range(dice.choice([1, 3]))]
        if dice.random() < 0.1:
            taken = self.some_id(dice)
            if self.pair.memory.get([taken]) != [None]:  # else it may be of a parent that is purged
                ids.append(taken)
        return born_alike(ids, self.now, queue=dice.choice(["default", "a"]))

    def some_owner(self, dice: random.Random) -> Owner | None:
        pool = list(self.owners.values())
        ghost = bool(self.ghosts) and (not pool or dice.random() < 0.15)
        if not pool and not ghost:
            return None
        return dice.choice(self.ghosts if ghost else pool)

    def new_writes(self, dice: random.Random) -> list[Item]:
        """What one owner decides, honestly or not; it may decide several things for one batch."""
        owner = self.some_owner(dice)
        if owner is None:
            return []
        items: list[Item] = []
        for _ in range(dice.choice([1, 1, 1, 2, 4])):
            item = self.new_write(owner, dice)
            if item is None:
                break
            if dice.random() < 0.08:
                item = replace(item, **dice.choice(FORGERIES))
            elif dice.random() < 0.03:
                item.rows = [replace(item.rows[0], to_state=State.SCHEDULED)]
            if dice.random() < 0.2:
                item = replace(item, **self.emission(owner, item, dice))
            items.append(item)
        return items

    def emission(self, owner: Owner, item: Write, dice: random.Random) -> dict[str, Any]:
        """Values for a stream: the next ones, some that are there, or some behind a gap."""
        there = len(self.pair.memory.stream(item.id, "draft"))
        first = dice.choice([there + 1, there + 1, 1, there + 3])
        parts = range(first, first + dice.choice([1, 3]))
        emits = [Emission("draft", part, self.now, bytes([part])) for part in parts]
        progress = dice.choice([None, ProgressRow(self.now, there, None, "so far")])
        return {"emits": emits, "progress": progress}

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
        if dice.random() < 0.2:
            return self.new_child(owner, dice)
        kind = dice.choice(OWNED)
        data = {
            **dice.choice(WAITS),
            "due_at": self.now + dice.choice([1, 4, 9]) * SECOND,
            "retries": 3,
            "code": "budget",
            "text": "ü",
            "error": {"message": "it"},
        }
        if kind is Kind.STEP_ANNOUNCED and dice.random() < 0.5:
            data["question"] = {"to": "ann"}
        charge = self.new_charge(owner, kind, dice)
        if charge is not None:
            data |= data_of_charge({"usd": next(iter(charge.amounts.values()), 0)}, charge.amounts)
        if charge is not None and charge.awaits is not None:
            data["budget"] = {"name": charge.awaits, "need": dice.choice([1, 30])}
        if kind is Kind.FINISH and dice.random() < 0.25:
            return self.new_successor(owner, charge, dice)
        event = Event(kind, "engine", record.fence, record.nonce, data=data)
        if not isinstance(decide(copy_of(record), event, self.now), Decision):
            return None
        seen = record.inbox_seen if kind in GIVES_UP else None
        item = owner.write(
            kind,
            self.now,
            key=f"k#{dice.randrange(9)}",
            digest=dice.randrange(99),
            data=data,
            payload=dice.choice([None, b"", b"\x00", b"[1]"]),
            inbox_seen=seen,
        )
        return replace(item, charge=charge)

    def new_charge(self, owner: Owner, kind: Kind, dice: random.Random) -> Charge | None:
        """What an owner says it has spent, of budgets that there are."""
        ends = "all" if kind in ENDS else "bodies" if kind in GIVES_UP | {Kind.RELEASE} else None
        names = [one.name for one in self.pair.memory.budgets([*SHARED, *own(owner)])]
        if not names or (ends is None and dice.random() < 0.7):
            return None if ends is None else Charge({}, (), ends)
        amount = dice.choice([0, 7, 40])
        some = dice.sample(names, dice.randint(0, len(names)))
        awaits = dice.choice(names) if kind is Kind.SUSPEND else None
        settled = [f"k#{dice.randrange(3)}"]
        return Charge(dict.fromkeys(some, amount), settled, ends, awaits)

    def new_successor(self, owner: Owner, charge: Charge | None, dice: random.Random) -> Write:
        """The end of an execution that goes on as another one, which is born with it."""
        record = owner.record
        names: dict[str, Any] = {
            name: getattr(record, name)
            for name in ("parent_id", "root_id", "parent_key")
            if record.parent_id is not None
        }
        id = f"ex_{next(self.numbers):06}"
        follower, birth = begun(id, "w0", self.now, nonce=self.nonce(), **names)
        said = {"continued_as": id}
        if charge is not None and charge.amounts:
            said |= data_of_charge({"usd": next(iter(charge.amounts.values()))}, charge.amounts)  # type: ignore[arg-type]
        event = Event(Kind.FINISH, "engine", record.fence, record.nonce, data=said)
        if not isinstance(decide(copy_of(record), event, self.now), Decision):
            return owner.write(Kind.ANNOTATION, self.now)
        self.unborn[id] = follower
        seen = record.inbox_seen  # nothing that came in is lost with it
        item = owner.write(Kind.FINISH, self.now, data=said, payload=b"null", inbox_seen=seen)
        return replace(item, births=[birth], charge=charge)

    def new_child(self, owner: Owner, dice: random.Random) -> Write | None:
        """A row of a parent, with a child that is born with it and a message to somebody."""
        if owner.record.state is not State.RUNNING:
            return None
        id, key = f"ex_{next(self.numbers):06}", f"k#{dice.randrange(9)}"
        queue = dice.choice(["default", "a"])
        gates = {"gates": some_gates(dice)} if dice.random() < 0.3 else {}
        child, birth = child_of(owner, id, key=key, queue=queue, **gates)
        item = calls_child(owner, birth, self.now)
        self.unborn[child.record.id] = child
        sent = self.new_delivery(dice)
        assert isinstance(sent, Deliver)
        return replace(item, sends=[sent]) if dice.random() < 0.3 else item

    def new_delivery(self, dice: random.Random) -> Item:
        kind = dice.choice([*MessageKind, MessageKind.CANCEL, MessageKind.LABELS])
        id = self.some_id(dice)
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
                "labels": {"team": dice.choice(["x", "y", None])},
            },
            dice.choice([None, b"yes"]),
        )
        offer = self.new_offer(dice) if dice.random() < 0.5 else None
        return Deliver(id, sent, self.now, offer=offer)

    def new_offer(self, dice: random.Random) -> Offer:
        queues = dice.choice([None, None, frozenset({"a", "default"})])
        lease = Lease(dice.choice(["w0", "w1"]), queues=queues)
        return Offer(lease, dice.choice([["t"], ["t", "u"]]), self.nonce())

    def new_reserve(self, dice: random.Random) -> Item | None:
        owner = self.some_owner(dice)
        if owner is None:
            return None
        record = owner.record
        names = [one.name for one in self.pair.memory.budgets([*SHARED, *own(owner)])]
        names = dice.sample([*names, "task:none:usd"], dice.randint(1, len(names) + 1))
        amounts = dict.fromkeys(names, dice.choice([1, 20, 50]))
        key, outlives = f"k#{dice.randrange(3)}", dice.random() < 0.3
        return Reserve(record.id, record.fence, record.nonce, key, amounts, outlives)

    def new_adjust(self, dice: random.Random) -> Item:
        scope = dice.choice(SHARED)
        if dice.random() < 0.3:
            there = [one.id for one in self.pair.memory.get(self.pair.ids[-12:]) if one is not None]
            scope = f"execution:{dice.choice(there)}" if there else scope
        what = dice.choice(["set", "set", "raised", "reset"])
        return Adjust(
            scope,
            what,
            {"usd": dice.choice([None, 50, 50, 90]) if what == "set" else 30},
            "ann",
            self.now,
            f"c{dice.randrange(30)}",
            dice.choice([None, 500_000]) if what == "set" else None,
            dice.choice([None, 9 * SECOND]) if what == "set" else None,
        )

    # Operations

    def commit(self, dice: random.Random) -> None:
        items: list[Item] = []
        for _ in range(dice.choice([1, 1, 2, 3, 5, 8])):
            roll = dice.random()
            if roll < 0.2:
                items.append(self.new_create(dice))
            elif roll < 0.25:
                items.append(self.new_births(dice))
            elif roll < 0.65:
                items += self.new_writes(dice)
            elif roll < 0.88:
                items.append(self.new_delivery(dice))
            elif roll < 0.94:
                items += [one] if (one := self.new_reserve(dice)) is not None else []
            else:
                items.append(self.new_adjust(dice))
        answers = self.pair.commit(twice(items))
        self.owners |= self.unborn
        self.own(answers)
        self.pair.ids += self.unborn
        self.unborn.clear()

    def own(self, answers: list[Answer]) -> None:
        """Take what was claimed with messages."""
        for answer in answers:
            if answer.claimed is not None:
                self.pair.seen["claimed with a message"] += 1
                self.owners[answer.claimed.execution.id] = Owner(answer.claimed.execution)

    def wake(self, dice: random.Random) -> None:
        """Wake what is parked, with slots for most of it, where hardly anybody waits any more."""
        drawn = [self.nonce() for _ in range(99)]
        versions = [("t", "v1"), ("t", "v2"), ("u", "v1"), ("u", "v2")]
        lease = Lease("w0", capabilities=frozenset({"gpu"}))
        for one in self.pair.call(
            "claim",
            lambda store: store.claim(lease, ["t", "u"], 99, self.now, drawn, versions),
        ):
            self.owners[one.execution.id] = Owner(one.execution)
        found = [one for one in self.pair.memory.get(self.pair.ids) if one is not None]
        parked = [one.id for one in found if one.state in PARKED and one.started_at is not None]
        wakers = [(MessageKind.RESUME, None), (MessageKind.ANSWER, "q#1")]
        items: list[Item] = []
        for id in dice.sample(parked, min(len(parked), 4)):
            kind, key = dice.choice(wakers)
            sent = Message(f"m{next(self.numbers)}", kind, "ann", key, None, b"yes")
            offer = self.new_offer(dice) if dice.random() < 0.9 else None
            items.append(Deliver(id, sent, self.now, offer=offer))
            if dice.random() < 0.2:
                items.append(self.new_delivery(dice))
        self.own(self.pair.commit(twice(items)))

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

    def claim(self, dice: random.Random) -> None:
        limit = dice.randrange(7)
        tasks = dice.choice([["t"], ["t", "u"], ["t", "u"], ["unknown"]])
        drawn = [self.nonce() for _ in range(limit)]
        queues = dice.choice([None, None, None, frozenset({"a", "default"})])
        able = dice.choice([frozenset[str](), frozenset[str](), frozenset({"gpu"})])
        lease = Lease(dice.choice(["w0", "w1"]), dice.choice([5, 5, 1]), queues, able)
        versions = dice.choice([[], [("t", "v1")], [("t", "v1"), ("u", "v2")]])
        claimed = self.pair.call(
            "claim", lambda store: store.claim(lease, tasks, limit, self.now, drawn, versions)
        )
        for one in claimed:
            self.owners[one.execution.id] = Owner(one.execution)

    def operate(self, dice: random.Random) -> None:
        """Rules for queues and gates, set and taken back."""
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

    def sweep(self, dice: random.Random) -> None:
        self.now += dice.randrange(13) * SECOND
        limit = dice.choice([100, 100, 2, 1, 1])
        moved, due_at = self.pair.call(
            "sweep", lambda store: self.pair.sweep(store, self.now, limit)
        )
        if moved < limit:
            assert due_at is None or due_at > self.now

    def recover(self, dice: random.Random) -> None:
        dead = dice.choice([None, ["w1"], ["w0", "w1"], []])
        alive, limit = dice.choice(["w0", "new"]), dice.choice([100, 1])
        self.pair.call("recover", lambda store: store.recover(dead, alive, self.now, limit))

    def purge(self, dice: random.Random) -> None:
        """Some that have ended, some that are open, somebody who was never there."""
        before = self.now + dice.choice([1, 1, -5 * SECOND])
        ended = self.pair.call("ended", lambda store: store.ended("", "~", before, 20))
        ids = [one.id for one in ended if dice.random() < 0.4]
        ids += [self.some_id(dice) for _ in range(3)]
        self.pair.call("purge", lambda store: store.purge(ids))

    def schedule(self, dice: random.Random) -> None:
        """What people want of schedules, and what the clock does."""
        name = dice.choice(["s1", "s2"])
        wish = dice.choice([*Wish, Wish.CREATE, Wish.CREATE, *[Wish.ADVANCE] * 4])
        rows = {row.name: row for row in self.pair.memory.schedules.page()}
        seq = rows[name].seq if name in rows else 1
        ids = tuple(f"ex_{next(self.numbers):06}" for _ in range(20))
        request = Request(
            wish=wish,
            actor="ann",
            draft=draft(self.new_plan(dice), name, options={"priority": dice.randrange(2)}),
            seq=seq if dice.random() < 0.9 else seq + 1,
            since=self.now - 30 * SECOND,
            until=self.now,
            why="so",
            ids=ids,
        )
        self.pair.wish(name, request, self.now)
        slot = T + dice.randrange(40) * SECOND
        self.pair.call("schedules.due", lambda store: store.schedules.due(self.now, 2))
        self.pair.call("schedules.fate", lambda store: store.schedules.fate(name, slot))

    def new_plan(self, dice: random.Random) -> Plan:
        return every(
            dice.choice([2, 7]) * SECOND,
            start_at=dice.choice([T, self.now]),
            overlap=dice.choice(["skip", "queue", "cancel_old", "allow"]),
            misfire=dice.choice(["skip", "last", "all"]),
            count_max=dice.choice([None, None, 3]),
        )

    def advance(self, dice: random.Random) -> None:
        """Advance all that is due, as an engine does: in one transaction."""
        due, _ = self.pair.call("schedules.due", lambda store: store.schedules.due(self.now, 9))
        requests = [
            (
                name,
                Request(
                    wish=Wish.ADVANCE,
                    seq=seq,
                    ids=tuple(f"ex_{next(self.numbers):06}" for _ in range(4)),
                ),
            )
            for name, seq in due
        ]
        answers = self.pair.call(
            "schedules.apply_all", lambda store: store.schedules.apply_all(requests, self.now)
        )
        for answer in answers:
            self.pair.ids += answer.made
            self.pair.seen["fired"] += bool(answer.made)

    def prune(self, dice: random.Random) -> None:
        before, limit = self.now - dice.choice([1, 9]) * SECOND, 1_000
        self.pair.call("schedules.prune", lambda store: store.schedules.prune(before, limit))

    def read(self, dice: random.Random) -> None:
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
            origin=dice.choice([None, None, "schedule:s1"]),
            input_digest=dice.choice([None, 1]),
            created_after=dice.choice([None, self.now - SECOND]),
            created_before=dice.choice([None, None, self.now - SECOND]),
            labels=dice.choice([{}, {"team": "x"}, {"team": "y", "city": "Ulm"}]),
            parent_id=dice.choice([None, None, self.some_id(dice)]),
            before_id=dice.choice([None, *self.pair.ids[-3:]]),
            limit=dice.choice([2, 50]),
        )
        number = dice.randrange(1_000)
        id = dice.choice([*self.pair.ids, "ex_nobody"])
        call = self.pair.call
        call("page", lambda store: store.page(filter))
        call("part", lambda store: store.part(filter, 10_000).found)
        call("find", lambda store: store.find([id, id[:5], id[-2:], "zz"][number % 4], 5))
        call("with_key", lambda store: store.with_key(f"key {number % 5}"))
        call("get", lambda store: store.get([id, "ex_nobody", id]))
        call("counts", lambda store: store.counts())
        call("log", lambda store: store.log(id, number % 4, number % 3 - 1))
        call("inbox", lambda store: store.inbox(id, number % 2))
        call("unread", lambda store: store.unread("w0"))
        is_file = not self.pair.other.has_own_clock  # a server always may have been written to
        call("changed", lambda store: store.changed() and is_file)
        call("descents", lambda store: store.descents([id, "ex_nobody"]))
        call("budgets", lambda store: store.budgets(after="queue:a", limit=number % 3))
        call("secret", lambda store: store.secret(f"s{number % 2}", bytes([number % 256])))

    def register(self, dice: random.Random) -> None:
        n = dice.randrange(4)
        lease_us = dice.choice((None, 1, 1_000_000))
        row = WorkerRow(f"w{n}", "host", n, T + n, self.now, lease_us)
        call = self.pair.call
        if self.pair.other.has_own_clock:
            # Its leases run by a clock that is not this story's, and its rows tell its time.
            row = replace(row, lease_us=None)
            call("register", lambda store: store.register(row))
            call("workers", lambda store: {(one.id, one.state) for one in store.workers()})
            return
        call("register", lambda store: store.register(row))
        name, lease_us = f"w{dice.randrange(5)}", dice.choice((1, 1_000_000))
        match dice.randrange(4):
            case 0:
                draining = dice.random() < 0.5
                now = self.now
                call("renew", lambda store: store.renew(name, lease_us, now, draining=draining))
            case 1:
                call("leave", lambda store: store.leave(name, self.now))
            case 2:
                call("forget_workers", lambda store: store.forget_workers(self.now - 1_000))
        call("expired", lambda store: store.expired(self.now, thorough=n % 2 == 0))
        call("workers", lambda store: store.workers())


def own(owner: Owner) -> list[str]:
    root = owner.record.root_id or owner.record.id
    return [f"execution:{owner.record.id}", f"tree:{root}"]


WEIGHTS = {
    "commit": 40,
    "claim": 12,
    "sweep": 12,
    "schedule": 6,
    "operate": 4,
    "wake": 4,
    "purge": 4,
    "recover": 3,
    "advance": 3,
    "read": 5,
    "register": 1,
    "prune": 1,
}
Story = list[tuple[str, int]]


@dataclass
class Found:
    """A disagreement: the shortest story of it that was found in the time there was."""

    story: Story
    error: BaseException


def new_story(seed: int, length: int) -> Story:
    """Draw a story."""
    dice = random.Random(seed)
    names = dice.choices(list(WEIGHTS), weights=list(WEIGHTS.values()), k=length)
    return [(name, dice.randrange(2**32)) for name in names]


def tell(
    story: Story, seen: Counter[str] | None = None, open: Open = open_sqlite
) -> BaseException | None:
    """Let a story happen; gives what went wrong, if anything."""
    machine = Machine(open)
    try:
        for name, seed in story:
            machine.do(name, seed)
    except Exception as error:  # noqa: BLE001  whatever it is: it is what the story is about
        machine.pair.drop()
        return error
    try:
        machine.pair.close(machine.now)
    except Exception as error:  # noqa: BLE001  the same
        return error
    if seen is not None:
        seen.update(machine.pair.seen)
        seen.update(machine.pair.refused)
    return None


def shortest(
    story: Story, error: BaseException, seconds: float, happen: Callable[[Story], Any] = tell
) -> Found:
    """Leave out whatever the story does not need, as long as there is time."""
    ends_at = time.monotonic() + seconds
    found = Found(story, error)
    size = len(story)
    while size and time.monotonic() < ends_at:
        place = 0
        while place < len(found.story) and time.monotonic() < ends_at:
            shorter = found.story[:place] + found.story[place + size :]
            said = happen(shorter)
            if type(said) is type(found.error):
                found = Found(shorter, said)
            else:
                place += size
        size //= 2
    return found
