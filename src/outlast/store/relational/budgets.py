"""The tables of budgets: read for a batch, written once for all that it did to them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import astuple

from outlast.budget import name_of, parts_of
from outlast.lifecycle.gate import BUDGET
from outlast.store.books import Books, Paying, take_item
from outlast.store.protocol import (
    Adjust,
    Answer,
    BudgetEvent,
    BudgetRow,
    Charge,
    Deliver,
    Reservation,
    Reserve,
    Write,
)
from outlast.store.relational.database import Database
from outlast.store.relational.rows import Value

if TYPE_CHECKING:
    from outlast.store.relational.store import RelationalStore


def take_money(
    store: RelationalStore, paying: Sequence[tuple[int, Paying]], answers: list[Answer]
) -> list[tuple[int, Deliver]]:
    """Apply the items of a batch to the budgets, in order.

    The rows of the batch's writes are stored already; a refused one has charged nothing.

    Returns:
        What logs are told of it, with the place of the item that it came of.
    """
    taken = [(place, item) for place, item in paying if answers[place].refused is None]
    names: set[str] = set()
    payers: set[str] = set()
    for _, item in taken:
        if isinstance(item, Write):
            assert item.charge is not None
            names.update(item.charge.amounts)
            names.update([item.charge.awaits] if item.charge.awaits else [])
            payers.add(item.id)
        elif isinstance(item, Reserve):
            names.update(item.amounts)
            payers.add(item.execution_id)
        else:
            names.update(name_of(item.scope, meter) for meter in item.amounts)
    books = read_books(store, names, payers)
    changes = [item.id for _, item in taken if isinstance(item, Adjust)]
    books.known = {str(id) for (id,) in store.database.ask("known_changes", list(changes))}
    owners = [item.execution_id for _, item in taken if isinstance(item, Reserve)]
    leases = store._lease_of(owners) if owners else {}
    words: list[tuple[int, Deliver]] = []
    for place, item in taken:
        answers[place] = take_item(books, item, leases, answers[place])
        words += ((place, send) for send in books.sends[len(words) :])
    write_books(store, books)
    for _, item in taken:
        if isinstance(item, Adjust):
            for meter in item.amounts:
                store._look_at_gate(BUDGET + name_of(item.scope, meter))
    if any_stirred(store):
        for place, _ in taken:
            answers[place].owes = True
    return words


def lock_money(database: Database, paying: Sequence[tuple[int, Paying]]) -> None:
    """Take the lock of gates that what comes of payments asks for, before those of budgets.

    Whoever changes a budget looks at its gate at the end, and what is told of it may move a holder.
    """
    if any(isinstance(item, Adjust) for _, item in paying):
        database.lock("gates")
    elif paying:
        database.lock("gates_shared")


def any_stirred(store: RelationalStore) -> bool:
    """Tell whether somebody who waits for a budget may go on."""
    return bool(store.database.ask("any_stirred", [store.tenant]))


def take_charges(store: RelationalStore, charges: Sequence[tuple[str, Charge, int]]) -> None:
    """Apply what others than owners have written into logs."""
    names = {name for _, charge, _ in charges for name in charge.amounts}
    books = read_books(store, names, {id for id, _, _ in charges})
    for id, charge, at in charges:
        books.charge(id, charge, at)
    write_books(store, books)


def read_books(store: RelationalStore, names: Iterable[str], payers: Collection[str]) -> Books:
    """Read budgets, and the reservations of executions with the budgets that they are of."""
    reservations = read_reservations(store, payers)
    wanted = {*names, *(one.name for of in reservations.values() for one in of)}
    values: list[Value] = []
    for name in sorted(wanted):
        values += parts_of(name)
    budgets = map(budget_of, store.database.ask("budgets_by_name", values))
    return Books({budget.name: budget for budget in budgets}, reservations)


def read_reservations(store: RelationalStore, ids: Collection[str]) -> dict[str, list[Reservation]]:
    """Read what executions have set aside."""
    found: dict[str, list[Reservation]] = {}
    for columns in store.database.ask("reservations_of", sorted(ids)):
        one = reservation_of(columns)
        found.setdefault(one.execution_id, []).append(one)
    for of in found.values():
        of.sort(key=lambda one: (one.key, one.name))
    return found


def write_books(store: RelationalStore, books: Books) -> None:
    """Write down what a batch made of budgets."""
    send = store.database.send
    touched = [books.budgets[name] for name in sorted(books.touched) if name in books.budgets]
    send("save_budgets", list(map(values_of, touched)))
    send(
        "add_spending",
        [(id, *parts_of(name), amount) for (id, name), amount in books.spending.items()],
    )
    send(
        "end_reservations",
        [(one.execution_id, one.key, *parts_of(one.name)) for one in books.closed],
    )
    send(
        "insert_reservations",
        [
            (one.execution_id, one.key, *parts_of(one.name), one.amount, int(one.outlives))
            for one in books.opened
        ],
    )
    send(
        "insert_budget_events",
        [
            (*parts_of(event.name), event.number, event.what, event.actor, event.at,
             event.execution_id, event.limit, event.spent, event.id)
            for event in books.events
        ],
    )  # fmt: skip


def budget_of(columns: Sequence[object]) -> BudgetRow:
    """Make a budget from its columns."""
    *most, stirred = columns
    return BudgetRow(*most, bool(stirred))  # type: ignore[arg-type, call-arg]


def values_of(budget: BudgetRow) -> tuple[Value, ...]:
    """Give the columns of a budget, in the order of ``save_budgets``."""
    return astuple(budget)[:-1]


def reservation_of(columns: Sequence[object]) -> Reservation:
    """Make a reservation from its columns."""
    id, key, scope, meter, amount, outlives = columns
    name = name_of(str(scope), str(meter))
    return Reservation(str(id), str(key), name, int(str(amount)), bool(outlives))


def event_of(name: str, columns: Sequence[object]) -> BudgetEvent:
    """Make an event of a budget from its columns."""
    return BudgetEvent(name, *columns)  # type: ignore[arg-type]
