"""The budgets of the store in memory: one set of books that is never closed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, MutableMapping, Sequence
from copy import copy

from outlast.budget import is_shared
from outlast.lifecycle import Execution, State
from outlast.store.books import Books, Paying, take_item, that_fit, waits_for
from outlast.store.protocol import (
    Answer,
    BudgetEvent,
    BudgetRow,
    Charge,
    Deliver,
    Reservation,
    Write,
)


class MemoryBudgets:
    """Budgets, what was charged to them, and what is set aside; its store holds the lock."""

    def __init__(self, records: Mapping[str, Execution]) -> None:
        self._records = records
        self._books = Books({})

    def open(self, budgets: Iterable[BudgetRow]) -> None:
        """Take the budgets that an execution is born with."""
        for budget in budgets:
            self._books.budgets[budget.name] = budget
            self._books.touched.add(budget.name)

    def take(
        self, paying: Sequence[tuple[int, Paying]], answers: MutableMapping[int, Answer]
    ) -> list[tuple[int, Deliver]]:
        """Apply the items of a batch; gives what logs are told of it, and because of which item."""
        words: list[tuple[int, Deliver]] = []
        leases = {
            id: (record.fence, record.nonce)
            for id, record in self._records.items()
            if paying and record.is_leased
        }
        for place, item in paying:
            if isinstance(item, Write) and answers[place].refused is not None:
                continue
            answers[place] = take_item(self._books, item, leases, answers[place])
            words += ((place, send) for send in self._books.sends)
            self._books.sends.clear()
        self._settle()
        if any(budget.stirred for budget in self._books.budgets.values()):
            for place, item in paying:
                if not isinstance(item, Write) or answers[place].refused is None:
                    answers[place].owes = True
        return words

    def charge(self, charges: Iterable[tuple[str, Charge, int]]) -> None:
        """Apply what others than owners have written into logs."""
        for id, charge, at in charges:
            self._books.charge(id, charge, at)
        self._settle()

    def _settle(self) -> None:
        """See who is stirred by what has changed."""
        books = self._books
        for name in books.touched & books.budgets.keys():
            budget = books.budgets[name]
            budget.stirred = bool(that_fit(budget, self._waiting(name)[:1]))
        books.touched.clear()
        books.sends.clear()
        books.opened.clear()
        books.closed.clear()

    def _waiting(self, name: str) -> list[Execution]:
        found = []
        for record in self._records.values():
            wanted = waits_for(record) if record.state is State.SUSPENDED else None
            if wanted is not None and wanted[0] == name:
                found.append((wanted[1], record.id, record))
        return [record for _, _, record in sorted(found, key=lambda one: one[:2])]

    def sweep(self, now: int, limit: int) -> tuple[int, list[Execution]]:
        """Begin periods anew; gives how much was done, and the executions that may go on."""
        due = [
            (budget.turns_at, budget.scope, budget.meter, budget)
            for budget in self._books.budgets.values()
            if budget.turns_at is not None and budget.turns_at <= now
        ]
        turning = [one[-1] for one in sorted(due, key=lambda one: one[:3])][: max(limit, 0)]
        for budget in turning:
            self._books.turn(budget, now)
        self._settle()
        moved, going = len(turning), []
        for budget in sorted(self._books.budgets.values(), key=lambda one: (one.scope, one.meter)):
            if not budget.stirred or moved >= limit:
                continue
            waiting = self._waiting(budget.name)
            fit = that_fit(budget, waiting)[: limit - moved]
            budget.stirred = len(fit) == limit - moved
            moved += max(1, len(fit))
            going += fit
        return moved, going

    def instants(self) -> list[int | None]:
        """Give when the clock has something to do here."""
        budgets = self._books.budgets.values()
        return [0 if budget.stirred else budget.turns_at for budget in budgets]

    def reserved_by(self, ids: Collection[str]) -> dict[str, list[Reservation]]:
        """Give what executions have set aside."""
        reservations = self._books.reservations
        return {
            id: sorted(map(copy, reservations[id]), key=lambda one: (one.key, one.name))
            for id in ids
            if reservations.get(id)
        }

    def of(self, scopes: Collection[str] | None, after: str) -> list[BudgetRow]:
        """Give the budgets of these scopes, by default all shared ones."""
        found = [
            copy(budget)
            for budget in self._books.budgets.values()
            if (is_shared(budget.scope) if scopes is None else budget.scope in scopes)
            and budget.scope > after
        ]
        return sorted(found, key=lambda budget: (budget.scope, budget.meter))

    def history(self, name: str) -> list[BudgetEvent]:
        """Give what happened to a budget."""
        return [copy(event) for event in self._books.events if event.name == name]

    def spending_of(self, id: str) -> dict[str, int]:
        """Give what an execution has charged, by the budget's name."""
        return {
            name: amount
            for (payer, name), amount in sorted(self._books.spending.items())
            if payer == id
        }

    def names(self) -> Collection[str]:
        """Give the names of all budgets."""
        return self._books.budgets.keys()

    def defects(self) -> list[str]:
        """Check budgets against what was charged to them and set aside."""
        books, found = self._books, []
        for name, budget in sorted(books.budgets.items()):
            spending = sum(amount for (_, of), amount in books.spending.items() if of == name)
            reserved = sum(
                one.amount for of in books.reservations.values() for one in of if one.name == name
            )
            if (budget.charged, budget.reserved) != (budget.purged + spending, reserved):
                found.append(
                    f"budget {name}: it says {budget.charged} charged where "
                    f"{budget.purged + spending} was, and {budget.reserved} reserved where "
                    f"{reserved} is"
                )
        return found

    def purge(self, id: str) -> None:
        """Forget an execution, but not what it has charged to others' budgets."""
        books = self._books
        own = (f"execution:{id}", f"tree:{id}")
        gone = {name for name, budget in books.budgets.items() if budget.scope in own}
        for payer, name in list(books.spending):
            if payer == id or name in gone:
                amount = books.spending.pop((payer, name))
                if name not in gone:
                    books.budgets[name].purged += amount
        books.reservations.pop(id, None)
        for payer, held in books.reservations.items():
            books.reservations[payer] = [one for one in held if one.name not in gone]
        for name in gone:
            del books.budgets[name]
        books.events = [event for event in books.events if event.name not in gone]
        books.known = {event.id for event in books.events if event.id is not None}


__all__ = ["MemoryBudgets"]
