"""What every store does with budgets: charges, reservations, changes, turns, and who waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from outlast.budget import data_of_charge
from outlast.lifecycle import Kind, MessageKind, State
from outlast.store.protocol import (
    Adjust,
    Answer,
    BudgetRow,
    Charge,
    Create,
    Deliver,
    Lease,
    Reserve,
    Store,
    Write,
)
from outlast.testing.conformance import Owner, T, begun, codes, message, nonces, one, replace, state

USD = 1_000_000
TASK = "task:t:usd"


def with_budget(
    id: str, *, scope: str = "execution", limit: int = USD, **more: Any
) -> tuple[Owner, Create]:
    """Make a running execution with a budget of its own."""
    data: dict[str, Any] = {"budget": {"scope": scope, "limits": {"usd": limit}, "soft": 800_000}}
    return begun(id, nonce=id.encode().ljust(16, b"."), **data, **more)


def spends(
    owner: Owner,
    amount: int,
    *names: str,
    key: str = "pay#1",
    kind: Kind = Kind.STEP,
    settled: Sequence[str] = (),
    ends: str | None = None,
    now: int = T,
) -> Write:
    """Make the item by which a row of an execution says what it spent."""
    row = owner.write(kind, now, key=key, data=data_of_charge({"usd": amount}, names))
    return replace(row, charge=Charge(dict.fromkeys(names, amount), settled, ends))


def reserve(owner: Owner, amount: int, *names: str, key: str = "pay#1", **more: Any) -> Reserve:
    """Make the item that sets an amount aside."""
    record = owner.record
    amounts = dict.fromkeys(names, amount)
    return Reserve(record.id, record.fence, record.nonce, key, amounts, **more)


def adjust(what: str, amount: int | None, scope: str = "task:t", **more: Any) -> Adjust:
    """Make the item that changes a budget."""
    names: dict[str, Any] = {"now": T, "id": f"{what} {amount}", **more}
    return Adjust(scope, what, {"usd": amount}, "user", **names)


def own(id: str, scope: str = "execution") -> str:
    """Name the budget of an execution."""
    return f"{scope}:{id}:usd"


def budget(store: Store, name: str) -> BudgetRow:
    """Read a budget."""
    scope = name.rpartition(":")[0]
    (found,) = [row for row in store.budgets([scope]) if row.name == name]
    return found


def suspends(owner: Owner, name: str, need: int, now: int = T) -> Write:
    """Make the item that suspends an execution until a budget has room."""
    data: Mapping[str, Any] = {"code": "budget", "budget": {"name": name, "need": need}}
    row = owner.park(Kind.SUSPEND, now, data=data)
    return replace(row, charge=Charge({}, (), "bodies", name))


def kinds(store: Store, id: str) -> list[Kind]:
    """Give the kinds of a log's rows."""
    return [row.kind for row in store.log(id)]


def sound(store: Store) -> None:
    """See that budgets equal what logs say."""
    assert store.verify().defects == []


class BudgetConformance:
    """The suite; each store gives it a fixture ``store``."""

    def test_an_execution_is_born_with_its_budget(self, store: Store) -> None:
        _, item = with_budget("ex_1")
        one(store, item)
        found = budget(store, own("ex_1"))
        assert (found.limit, found.soft, found.spent, found.left) == (USD, 800_000, 0, USD)
        assert store.budgets() == []
        sound(store)

    def test_charges_of_a_batch_add_up_and_are_told(self, store: Store) -> None:
        owner, item = with_budget("ex_1")
        one(store, item)
        batch = [spends(owner, 300, own("ex_1"), key=f"pay#{place}") for place in range(3)]
        answers = store.commit(batch)
        assert codes(answers) == [None] * 3
        assert [answer.budgets[0].charged for answer in answers] == [300, 600, 900]
        assert budget(store, own("ex_1")).spent == 900
        assert store.spending("ex_1") == {own("ex_1"): 900}
        sound(store)

    def test_a_refused_write_charges_nothing(self, store: Store) -> None:
        owner, item = with_budget("ex_1")
        one(store, item)
        stale = replace(spends(owner, 300, own("ex_1")), fence=7)
        assert one(store, stale).refused == "fenced"
        assert budget(store, own("ex_1")).spent == 0
        sound(store)

    def test_a_charge_may_exceed_the_limit_and_goes_to_what_is_there(self, store: Store) -> None:
        owner, item = with_budget("ex_1")
        one(store, item)
        one(store, adjust("set", 5))
        answer = one(store, spends(owner, 2 * USD, own("ex_1"), TASK))
        assert answer.refused is None
        assert [found.left for found in answer.budgets] == [-USD, 5 - 2 * USD]
        sound(store)

    def test_a_reservation_fits_or_is_refused(self, store: Store) -> None:
        first, item = with_budget("ex_1")
        second, other = with_budget("ex_2")
        store.commit([item, other])
        one(store, adjust("set", 100))
        race = [reserve(first, 60, own("ex_1"), TASK), reserve(second, 60, own("ex_2"), TASK)]
        answers = store.commit(race)
        assert codes(answers) == [None, "over_budget"]
        assert budget(store, own("ex_2")).reserved == 0  # all of it, or nothing
        assert budget(store, TASK).left == 40
        assert codes(store.commit(race)) == [None, "over_budget"]  # asked again
        assert budget(store, TASK).reserved == 60
        done = spends(first, 55, own("ex_1"), TASK, settled=["pay#1"])
        assert one(store, done).refused is None
        assert (budget(store, TASK).reserved, budget(store, TASK).spent) == (0, 55)
        assert store.reservations("ex_1") == []
        sound(store)

    def test_only_the_owner_reserves(self, store: Store) -> None:
        owner, item = with_budget("ex_1")
        one(store, item)
        stale = replace(reserve(owner, 1, own("ex_1")), nonce=b"x" * 16)
        assert one(store, stale).refused == "fenced"
        missing = replace(reserve(owner, 1, own("ex_1")), execution_id="ex_9")
        assert one(store, missing).refused == "fenced"

    def test_what_a_lost_worker_had_reserved_is_spent(self, store: Store) -> None:
        owner, item = with_budget("ex_1")
        one(store, item)
        store.commit(
            [
                reserve(owner, 300, own("ex_1")),
                reserve(owner, 50, own("ex_1"), key="reserve#1", outlives=True),
            ]
        )
        assert store.recover(None, "w2", T + 1, 10) == 1
        found = budget(store, own("ex_1"))
        assert (found.spent, found.reserved) == (300, 50)
        lost = next(row for row in store.log("ex_1") if row.kind is Kind.WORKER_LOST)
        assert lost.data == {"spent": {"usd": 300}, "charged": [own("ex_1")]}
        sound(store)

    def test_whoever_ends_an_execution_takes_what_it_reserved_for_spent(self, store: Store) -> None:
        by_clock, first = begun(
            "ex_1", deadline_at=T + 5, budget={"scope": "tree", "limits": {"usd": 9}}
        )
        parked, second = with_budget("ex_2")
        store.commit([first, second])
        one(store, reserve(by_clock, 4, own("ex_1", "tree")))
        one(store, reserve(parked, 7, own("ex_2"), key="reserve#1", outlives=True))
        wait = parked.park(Kind.WAIT, data={"waits": [{"kind": "timer"}], "due_at": T + 9})
        one(store, replace(wait, charge=Charge({}, (), "bodies")))
        assert budget(store, own("ex_2")).reserved == 7
        assert store.sweep(T + 5, 10)[0] == 1
        assert budget(store, own("ex_1", "tree")).spent == 4
        one(store, Deliver("ex_2", message("m1", MessageKind.CANCEL), T + 6))
        assert state(store, "ex_2").state is State.CANCELLED
        found = budget(store, own("ex_2"))
        assert (found.spent, found.reserved) == (7, 0)
        sound(store)

    def test_a_threshold_is_crossed_once(self, store: Store) -> None:
        owner, item = with_budget("ex_1")
        one(store, item)
        told: list[Answer] = [
            one(store, spends(owner, 300_000, own("ex_1"), key=f"pay#{place}"))
            for place in range(4)
        ]
        happened = store.budget_events("execution:ex_1", "usd")
        assert [(event.what, event.spent) for event in happened] == [
            ("soft", 900_000),
            ("spent_up", 1_200_000),
        ]
        assert [event.execution_id for event in happened] == ["ex_1", "ex_1"]
        assert [len(answer.told) for answer in told] == [0, 0, 1, 1]
        entries = store.inbox("ex_1")
        assert [entry.message.kind for entry in entries] == [MessageKind.BUDGET] * 2
        assert [entry for answer in told for _, entry in answer.told] == entries

    def test_below_a_limit_again_the_next_crossing_counts(self, store: Store) -> None:
        owner, item = with_budget("ex_1")
        one(store, item)
        one(store, spends(owner, 900_000, own("ex_1")))
        one(store, adjust("raised", USD, "execution:ex_1"))
        assert budget(store, own("ex_1")).soft_at is None
        one(store, spends(owner, 900_000, own("ex_1")))
        happened = [event.what for event in store.budget_events("execution:ex_1", "usd")]
        assert happened == ["soft", "raised", "soft"]

    def test_budgets_are_set_raised_and_reset(self, store: Store) -> None:
        owner, item = begun("ex_1")
        one(store, item)
        assert one(store, adjust("raised", 5)).refused == "no_budget"
        (set_,) = one(store, adjust("set", 100, soft=500_000)).budgets
        assert (set_.limit, set_.soft) == (100, 500_000)
        one(store, spends(owner, 70, TASK))
        one(store, adjust("raised", 5))
        one(store, adjust("raised", 5))  # the same change, sent again
        assert budget(store, TASK).limit == 105
        one(store, adjust("reset", None))
        found = budget(store, TASK)
        assert (found.spent, found.charged, found.limit) == (0, 70, 105)
        one(store, adjust("set", None))
        assert budget(store, TASK).left is None
        assert [row.name for row in store.budgets()] == [TASK]
        what = [event.what for event in store.budget_events("task:t", "usd")]
        assert what == ["set", "soft", "raised", "reset", "set"]
        sound(store)

    def test_a_change_of_its_own_budget_is_in_the_log(self, store: Store) -> None:
        owner, item = with_budget("ex_1")
        one(store, item)
        answer = one(store, adjust("raised", USD, "execution:ex_1"))
        ((_, entry),) = answer.told
        one(store, owner.take(entry))
        row = store.log("ex_1")[-1]
        assert (row.kind, row.actor) == (Kind.BUDGET_CHANGED, "user")
        assert row.data is not None and row.data["what"] == "raised"
        sound(store)

    def test_who_waits_for_a_budget_goes_on_when_it_has_room(self, store: Store) -> None:
        owners = []
        for id, need in (("ex_1", 30), ("ex_2", 20), ("ex_3", 60)):
            owner, item = begun(id, nonce=id.encode().ljust(16, b"."))
            one(store, item)
            owners.append((owner, need))
        one(store, adjust("set", 10))
        for owner, need in owners:
            one(store, suspends(owner, TASK, need))
        assert store.sweep(T + 1, 10) == (0, None)
        one(store, adjust("raised", 50, now=T + 2))
        assert store.sweep(T + 2, 10)[0] == 2  # 20 and 30 together; 60 is not left
        states = [state(store, id).state for id in ("ex_1", "ex_2", "ex_3")]
        assert states == [State.QUEUED, State.QUEUED, State.SUSPENDED]
        assert state(store, "ex_1").cause == "budget"
        assert store.sweep(T + 3, 10) == (0, None)
        one(store, adjust("raised", 1, now=T + 4))
        store.sweep(T + 4, 10)
        assert state(store, "ex_3").state is State.QUEUED
        sound(store)

    def test_room_that_came_before_the_suspension_is_seen(self, store: Store) -> None:
        owner, item = begun("ex_1")
        store.commit([item, adjust("set", 10), adjust("raised", 50)])
        one(store, suspends(owner, TASK, 40))
        assert store.sweep(T + 1, 10)[0] == 1
        assert state(store, "ex_1").state is State.QUEUED

    def test_what_another_gives_back_is_room(self, store: Store) -> None:
        first, item = with_budget("ex_1")
        second, other = with_budget("ex_2")
        store.commit([item, other, adjust("set", 100)])
        one(store, reserve(first, 80, TASK))
        one(store, suspends(second, TASK, 50))
        assert store.sweep(T + 1, 10)[0] == 0
        one(store, spends(first, 10, TASK, settled=["pay#1"]))
        assert store.sweep(T + 1, 10)[0] == 1
        sound(store)

    def test_a_period_turns(self, store: Store) -> None:
        owner, item = begun("ex_1")
        store.commit([item, adjust("set", 100, period_us=10)])
        ((_, entry),) = one(store, spends(owner, 100, TASK)).told
        one(store, owner.take(entry))
        one(store, suspends(owner, TASK, 50))
        assert store.sweep(T + 9, 10) == (0, T + 10)
        store.sweep(T + 35, 10)  # three turns were missed: it is one
        found = budget(store, TASK)
        assert (found.spent, found.charged, found.turns_at) == (0, 100, T + 40)
        assert state(store, "ex_1").state is State.QUEUED
        what = [event.what for event in store.budget_events("task:t", "usd")]
        assert what == ["set", "spent_up", "turned"]
        sound(store)

    def test_what_ends_with_the_lease_and_with_the_history(self, store: Store) -> None:
        owner, item = with_budget("ex_1")
        one(store, item)
        one(store, reserve(owner, 10, own("ex_1")))
        one(store, reserve(owner, 20, own("ex_1"), key="reserve#1", outlives=True))
        release = spends(owner, 10, own("ex_1"), kind=Kind.RELEASE, ends="bodies")
        one(store, release)
        found = budget(store, own("ex_1"))
        assert (found.spent, found.reserved) == (10, 20)
        (claimed,) = store.claim(Lease("w1"), ["t"], 1, T + 1, nonces(1))
        again = Owner(claimed.execution)
        one(store, again.write(Kind.START, T + 1))
        one(store, spends(again, 20, own("ex_1"), kind=Kind.FINISH, ends="all", now=T + 1))
        found = budget(store, own("ex_1"))
        assert (found.spent, found.reserved) == (30, 0)
        sound(store)

    def test_a_purge_keeps_what_was_charged_to_others(self, store: Store) -> None:
        owner, item = with_budget("ex_1")
        store.commit([item, adjust("set", 100)])
        one(store, spends(owner, 70, own("ex_1"), TASK))
        one(store, owner.write(Kind.FINISH))
        assert store.purge(["ex_1"]) == 1
        assert store.budgets(["execution:ex_1"]) == []
        found = budget(store, TASK)
        assert (found.charged, found.purged, found.spent) == (70, 70, 70)
        assert store.spending("ex_1") == {}
        sound(store)

    def test_an_untold_charge_is_a_defect(self, store: Store) -> None:
        owner, item = with_budget("ex_1")
        one(store, item)
        silent = replace(owner.write(Kind.STEP, key="pay#1"), charge=Charge({own("ex_1"): 5}))
        one(store, silent)
        (defect,) = store.verify().defects
        assert "its log charges 0" in defect


__all__ = ["BudgetConformance"]
