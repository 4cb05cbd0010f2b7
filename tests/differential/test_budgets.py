"""Random histories of budgets on both stores, and beside a model that only adds up."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from outlast.budget import charged_by, data_of_charge
from outlast.lifecycle import Kind, Message, MessageKind, State
from outlast.store import open_store
from outlast.store.protocol import Adjust, Charge, Create, Deliver, Lease, Reserve, Store, Write
from outlast.testing.conformance import Owner, T, begun, codes, nonces, replace

IDS = ("ex_1", "ex_2", "ex_3", "ex_4")
SHARED = ("task:t:usd", "tenant:usd")


class History:
    """Draws what happens next, from what the owners know."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.owners: dict[str, Owner] = {}
        self.reserved: dict[str, list[str]] = {id: [] for id in IDS}
        self.bounded: set[str] = set()
        self.now = T
        self.count = 0

    def births(self) -> list[Create]:
        items = []
        for id in IDS:
            budget = {"scope": "execution", "limits": {"usd": self.dice.randint(20, 200)}}
            data: dict[str, Any] = {"budget": budget} if self.dice.random() < 0.7 else {}
            self.bounded.update([id] if data else [])
            self.owners[id], item = begun(id, nonce=id.encode().ljust(16, b"."), **data)
            items.append(item)
        return items

    def names(self, id: str) -> list[str]:
        """Name the budgets that an execution charges: its own from the moment that it has one."""
        return [*([f"execution:{id}:usd"] if id in self.bounded else []), *SHARED]

    def item(self) -> Any:
        self.count += 1
        id = self.dice.choice(sorted(self.owners) or IDS)
        owner = self.owners.get(id)
        draw = self.dice.random()
        if draw < 0.15 or owner is None:
            return self.adjustment()
        if draw < 0.2:
            message = Message(f"m{self.count}", MessageKind.CANCEL, "ann")
            return Deliver(self.dice.choice(IDS), message, self.now)
        if draw < 0.5:
            return self.reservation(owner, id)
        return self.spending(owner, id)

    def adjustment(self) -> Adjust:
        scope = self.dice.choice(["task:t", "tenant", f"execution:{self.dice.choice(IDS)}"])
        what = self.dice.choice(["set", "raised", "reset"])
        if what == "set":
            self.bounded.add(scope.removeprefix("execution:"))
        amount = None if what == "reset" else self.dice.randint(0, 150)
        period = self.dice.choice([None, 50]) if what == "set" else None
        soft = self.dice.choice([None, 500_000]) if what == "set" else None
        name = f"c{self.count}"
        return Adjust(scope, what, {"usd": amount}, "ann", self.now, name, soft, period)

    def reservation(self, owner: Owner, id: str) -> Reserve:
        key = f"pay#{self.count}"
        self.reserved[id].append(key)
        record = owner.record
        amounts = dict.fromkeys(self.names(id), self.dice.randint(0, 60))
        outlives = self.dice.random() < 0.3
        return Reserve(id, record.fence, record.nonce, key, amounts, outlives)

    def spending(self, owner: Owner, id: str) -> Write:
        amount, names = self.dice.randint(0, 40), self.names(id)
        settled = [key for key in self.reserved[id] if self.dice.random() < 0.5]
        self.reserved[id] = [key for key in self.reserved[id] if key not in settled]
        draw = self.dice.random()
        data = data_of_charge({"usd": amount}, names)
        charge = Charge(dict.fromkeys(names, amount), settled)
        if draw < 0.75:
            row = owner.write(Kind.STEP, self.now, key=f"pay#{self.count}", data=data)
            return replace(row, charge=charge)
        del self.owners[id]
        if draw < 0.85:
            row = owner.write(Kind.FINISH, self.now, data=data)
            return replace(row, charge=replace(charge, ends="all"))
        name = self.dice.choice(names)
        wanted = {"name": name, "need": self.dice.randint(0, 80)}
        row = owner.park(Kind.SUSPEND, self.now, data={**data, "code": "budget", "budget": wanted})
        return replace(row, charge=replace(charge, ends="bodies", awaits=name))


def seen(store: Store) -> dict[str, Any]:
    """Everything that a store shows of budgets and of who waits for them."""
    scopes = ["task:t", "tenant", *(f"execution:{id}" for id in IDS)]
    budgets = store.budgets(scopes)
    return {
        "budgets": budgets,
        "events": [store.budget_events(row.scope, row.meter) for row in budgets],
        "spending": {id: dict(store.spending(id)) for id in IDS},
        "reservations": {id: store.reservations(id) for id in IDS},
        "records": store.get(IDS),
        "logs": {id: store.log(id) for id in IDS},
    }


def adds_up(store: Store) -> None:
    """What budgets say is what the logs add up to, and what is set aside."""
    assert store.verify().defects == []
    for id in IDS:
        charged = charged_by(store.log(id))
        there = {row.name for row in store.budgets({name[:-4] for name in charged})}
        for name, amount in store.spending(id).items():
            assert name in there and 0 <= amount <= charged[name]


@pytest.mark.parametrize("seed", range(25))
def test_both_stores_and_the_sums_agree(seed: int, tmp_path: Path) -> None:
    _compare(seed, f"sqlite:///{tmp_path}/outlast.db")


@pytest.mark.parametrize("seed", range(5))
def test_postgres_agrees(seed: int, postgres_store: str) -> None:
    _compare(seed, postgres_store)


def _compare(seed: int, url: str) -> None:
    history = History(seed)
    memory = open_store("memory:", owner="w1", now=1)
    other = open_store(url, owner="w1", now=1)
    stores: list[Store] = [memory, other]
    setup = [
        *history.births(),
        Adjust("task:t", "set", {"usd": 300}, "ann", T, "s1"),
        Adjust("tenant", "set", {"usd": 500}, "ann", T, "s2", 500_000),
    ]
    for store in stores:
        assert codes(store.commit(setup)) == [None] * len(setup)
    for turn in range(60):
        history.now += history.dice.randint(1, 5)
        batch = [history.item() for _ in range(history.dice.randint(1, 4))]
        mine, theirs = (store.commit(batch) for store in stores)
        assert codes(mine) == codes(theirs)
        assert [answer.told for answer in mine] == [answer.told for answer in theirs]
        if turn % 5 == 0:
            first, second = (store.sweep(history.now, 10) for store in stores)
            assert first == second
        if turn % 9 == 0:
            _claim(stores, history)
        if turn % 20 == 19:
            first, second = (store.recover(None, "w2", history.now, 10) for store in stores)
            assert first == second
            history.owners.clear()
        assert seen(memory) == seen(other), f"turn {turn}"
    for store in stores:
        adds_up(store)
        store.close()


def _claim(stores: list[Store], history: History) -> None:
    """Claim what is queued, so that new owners go on."""
    found = [
        store.claim(Lease("w1"), ["t"], 4, history.now, nonces(4, history.count))
        for store in stores
    ]
    assert [one.execution for one in found[0]] == [one.execution for one in found[1]]
    for one in found[0]:
        owner = Owner(one.execution)
        history.reserved[one.execution.id] = []
        starts = [owner.write(Kind.START, history.now)]
        starts += [owner.take(entry, history.now) for entry in one.unseen]
        for store in stores:
            assert codes(store.commit(starts)) == [None] * len(starts)
        if owner.record.state is State.RUNNING:
            history.owners[one.execution.id] = owner


def test_a_silent_charge_is_found(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/outlast.db", owner="w1", now=1)
    owner, item = begun("ex_1", budget={"scope": "execution", "limits": {"usd": 10}})
    silent = replace(owner.write(Kind.STEP, T, key="a#1"), charge=Charge({"execution:ex_1:usd": 5}))
    store.commit([item])
    store.commit([silent])
    assert len(store.verify().defects) == 1
    store.close()
