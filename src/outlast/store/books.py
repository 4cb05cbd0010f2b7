"""What every store decides alike about budgets: charges, reservations, changes, turns.

Theory of operation. A store reads the budgets and reservations that a batch names, lets a
:class:`Books` apply its items one after another, and writes down what they became, so that many
writers of one budget within a batch are one row written. What was spent is a fact: a charge is
never refused, also where it exceeds the limit. What is about to be spent is a question: it fits, or
is refused as ``over_budget``.

Each row of a log that charges something says how much and to which budgets (``spent`` and
``charged`` of its data); the budgets are what these rows add up to, see :func:`charged_by`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy

from msgspec import Struct, field

from outlast.budget import (
    UNIT,
    charges_of,
    data_of_charge,
    limits_at_birth,
    name_of,
    parts_of,
)
from outlast.lifecycle import Execution, Kind, Message, MessageKind, Transition
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


def budgets_of(birth: Transition) -> list[BudgetRow]:
    """Make the budgets that an execution is born with."""
    return [BudgetRow(*one) for one in limits_at_birth(birth)]


def loses(kind: Kind) -> str | None:
    """Tell which reservations end with a row that others than its owner write.

    ``bodies``: those of an owner that is gone; ``all``: the execution ends. Each counts as spent:
    nobody can know how far what it was for has come.
    """
    if kind in (Kind.DEADLINE, Kind.CANCEL, Kind.EXHAUSTED):
        return "all"
    return "bodies" if kind in (Kind.WORKER_LOST, Kind.LEASE_EXPIRED) else None


def with_losses(row: Transition, reserved: Sequence[Reservation]) -> Charge | None:
    """Write into a row, which nobody has seen yet, what was set aside and is taken for spent."""
    ends = loses(row.kind)
    lost = [one for one in reserved if ends == "all" or (ends and not one.outlives)]
    if not lost:
        return None
    spent: dict[str, int] = {}
    of_call: dict[tuple[str, str], int] = {}
    for one in lost:  # of one call, each of its budgets has the same amount
        of_call[one.key, parts_of(one.name)[1]] = one.amount
    for (_, meter), amount in of_call.items():
        spent[meter] = spent.get(meter, 0) + amount
    names = {one.name for one in lost}
    row.data = {**(row.data or {}), **data_of_charge(spent, names)}
    return Charge(charges_of(row.data), sorted({one.key for one in lost}))


class Books(Struct):
    """Budgets and reservations as a batch finds them, and what it makes of them.

    Attributes:
        budgets: by name.
        reservations: of each execution that was asked for.
        touched: the names of the budgets that have changed, or that somebody waits for now.
        spending: what was charged, by execution and budget.
        opened, closed: reservations that are new, and those that ended.
        events: what happened to budgets.
        sends: the same, for the logs of the executions it happened by.
        known: the ids of changes that were made before.
    """

    budgets: dict[str, BudgetRow]
    reservations: dict[str, list[Reservation]] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    spending: dict[tuple[str, str], int] = field(default_factory=dict)
    opened: list[Reservation] = field(default_factory=list)
    closed: list[Reservation] = field(default_factory=list)
    events: list[BudgetEvent] = field(default_factory=list)
    sends: list[Deliver] = field(default_factory=list)
    known: set[str] = field(default_factory=set)

    def reserve(self, item: Reserve) -> bool:
        """Set amounts aside, all or none; gives whether they fit."""
        id = item.execution_id
        if any(one.key == item.key for one in self.reservations.get(id, ())):
            return True
        wanted = {name: amount for name, amount in item.amounts.items() if name in self.budgets}
        for name, amount in wanted.items():
            left = self.budgets[name].left
            if left is not None and amount > left:
                return False
        for name, amount in wanted.items():
            one = Reservation(id, item.key, name, amount, item.outlives)
            self.budgets[name].reserved += amount
            self.touched.add(name)
            self.reservations.setdefault(id, []).append(one)
            self.opened.append(one)
        return True

    def charge(self, id: str, charge: Charge, at: int) -> list[str]:
        """Take what rows of an execution's log say; gives the names of the budgets it touched."""
        names: list[str] = []
        for one in list(self.reservations.get(id, ())):
            ended = charge.ends == "all" or (charge.ends == "bodies" and not one.outlives)
            if ended or one.key in charge.settled:
                self._close(one)
                names.append(one.name)
        for name, amount in charge.amounts.items():
            budget = self.budgets.get(name)
            if budget is None:
                continue
            budget.charged += amount
            self.spending[id, name] = self.spending.get((id, name), 0) + amount
            names.append(name)
            self._cross(budget, at, id)
        if charge.awaits in self.budgets:
            names.append(charge.awaits)
        self.touched.update(names)
        return names

    def _close(self, one: Reservation) -> None:
        self.reservations[one.execution_id].remove(one)
        budget = self.budgets.get(one.name)
        if budget is not None:
            budget.reserved -= one.amount
        if one in self.opened:
            self.opened.remove(one)
        else:
            self.closed.append(one)

    def adjust(self, item: Adjust) -> bool:
        """Set, raise or reset budgets; gives whether all of them are there."""
        names = [name_of(item.scope, meter) for meter in item.amounts]
        if item.id in self.known:
            return True
        is_tree = item.scope.startswith("tree:")  # what it has made already would not charge it
        may_be_new = item.what == "set" and not is_tree
        if not may_be_new and not all(name in self.budgets for name in names):
            return False
        self.known.add(item.id)
        for name, amount in zip(names, item.amounts.values(), strict=True):
            budget = self.budgets.get(name)
            if budget is None:
                budget = self.budgets[name] = BudgetRow(*parts_of(name))
            if item.what == "set":
                budget.limit, budget.soft = amount, item.soft
                budget.period_us = item.period_us
                period_us = item.period_us
                budget.turns_at = None if period_us is None else item.now + period_us
            elif item.what == "raised" and budget.limit is not None:
                budget.limit += amount or 0
            elif item.what == "reset":
                budget.charged_before = budget.charged
            self._note(budget, item.what, item.actor, item.now, None, item.id)
            self._cross(budget, item.now, None)
            self.touched.add(name)
        kind, _, id = item.scope.partition(":")
        if kind in ("execution", "tree"):
            data: dict[str, object] = {
                "what": item.what,
                "scope": kind,
                "meters": {
                    meter: {
                        "limit": self.budgets[name_of(item.scope, meter)].limit,
                        "spent": self.budgets[name_of(item.scope, meter)].spent,
                    }
                    for meter in item.amounts
                },
            }
            message = Message(item.id, MessageKind.BUDGET, item.actor, item.scope, data)
            self.sends.append(Deliver(id, message, item.now))
        return True

    def turn(self, budget: BudgetRow, now: int) -> None:
        """Begin anew a budget whose period is over; what was missed meanwhile is one turn."""
        assert budget.period_us is not None and budget.turns_at is not None
        missed = (now - budget.turns_at) // budget.period_us
        budget.turns_at += (missed + 1) * budget.period_us
        budget.charged_before = budget.charged
        self._note(budget, "turned", "engine", now, None)
        self._cross(budget, now, None)
        self.touched.add(budget.name)

    def _cross(self, budget: BudgetRow, at: int, id: str | None) -> None:
        """See whether a limit was crossed; below it again, the next crossing is another one."""
        limit = budget.limit
        soft = None
        if limit is not None and budget.soft is not None:
            soft = limit * budget.soft // UNIT
        if soft is None or budget.spent < soft:
            budget.soft_at = None
        elif budget.soft_at is None:
            budget.soft_at = at
            self._note(budget, "soft", "engine", at, id)
        if limit is None or budget.spent < limit:
            budget.spent_up_at = None
        elif budget.spent_up_at is None:
            budget.spent_up_at = at
            self._note(budget, "spent_up", "engine", at, id)

    def _note(
        self,
        budget: BudgetRow,
        what: str,
        actor: str,
        at: int,
        id: str | None,
        change: str | None = None,
    ) -> None:
        budget.event_count += 1
        number, name = budget.event_count, budget.name
        self.events.append(
            BudgetEvent(name, number, what, actor, at, id, budget.limit, budget.spent, change)
        )
        if id is not None:
            data: dict[str, object] = {
                "what": what,
                "scope": budget.scope.partition(":")[0],
                "meters": {budget.meter: {"limit": budget.limit, "spent": budget.spent}},
            }
            message = Message(f"budget:{name}:{number}", MessageKind.BUDGET, actor, name, data)
            self.sends.append(Deliver(id, message, at))

    def after(self, names: Iterable[str]) -> list[BudgetRow]:
        """Give copies of these budgets as they are now."""
        return [copy(self.budgets[name]) for name in sorted(set(names)) if name in self.budgets]


def waits_for(record: Execution) -> tuple[str, int] | None:
    """Give the budget that a suspended execution waits for, and how much of it."""
    wanted = (record.detail or {}).get("budget")
    if not isinstance(wanted, Mapping):
        return None
    return str(wanted["name"]), int(str(wanted["need"]))


def that_fit(budget: BudgetRow, waiting: Iterable[Execution]) -> list[Execution]:
    """Choose those who may go on: in this order, as long as what they need together is left."""
    left = budget.left
    chosen = []
    for record in waiting:
        _, need = waits_for(record) or ("", 0)
        if left is not None:
            if need > left:
                break
            left -= need
        chosen.append(record)
    return chosen


Paying = Write | Reserve | Adjust
"""The items that have to do with budgets; a write only with a charge."""


def take_item(
    books: Books, item: Paying, leases: Mapping[str, tuple[int, bytes | None]], answer: Answer
) -> Answer:
    """Apply an item whose rows, if it has any, are stored; gives the answer to it.

    Args:
        books: has the budgets that it names.
        item: the item.
        leases: fence and nonce of those executions that are leased.
        answer: the answer to a write so far.
    """
    if isinstance(item, Reserve):
        if leases.get(item.execution_id) != (item.fence, item.nonce):
            return Answer("fenced")
        refused = None if books.reserve(item) else "over_budget"
        return Answer(refused, budgets=books.after(item.amounts))
    if isinstance(item, Adjust):
        refused = None if books.adjust(item) else "no_budget"
        names = [name_of(item.scope, meter) for meter in item.amounts]
        return Answer(refused, budgets=books.after(names))
    assert item.charge is not None
    touched = books.charge(item.id, item.charge, item.position[3])
    return Answer(None, answer.execution, budgets=books.after(touched))


def tell(answer: Answer, word: Answer) -> None:
    """Add to the answer to an item what a log was told because of it."""
    if word.entry is not None and word.execution is not None:
        answer.told = [*answer.told, (word.execution, word.entry)]


class Losses:
    """What a transaction finds out to be lost: reservations that end with others' rows."""

    __slots__ = ("_reserved", "charges")

    def __init__(self) -> None:
        self._reserved: dict[str, list[Reservation]] = {}
        self.charges: list[tuple[str, Charge, int]] = []

    def look(self, reserved: Mapping[str, list[Reservation]]) -> None:
        """Hear what executions that others may end have set aside."""
        self._reserved.update(reserved)

    def see(self, rows: Iterable[Transition]) -> None:
        """See rows that are about to be written; those that lose something say so."""
        if not self._reserved:
            return
        for row in rows:
            reserved = self._reserved.get(row.execution_id, [])
            charge = with_losses(row, reserved)
            if charge is not None:
                self.charges.append((row.execution_id, charge, row.at))
                self._reserved[row.execution_id] = [
                    one for one in reserved if one.key not in charge.settled
                ]


__all__ = [
    "Books",
    "Losses",
    "Paying",
    "budgets_of",
    "loses",
    "take_item",
    "tell",
    "that_fit",
    "waits_for",
    "with_losses",
]
