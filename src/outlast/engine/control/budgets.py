"""Budgets as people see them: read, set, raised and reset.

Every method has an async twin, with an ``a`` before its name.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Coroutine, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol, TypeVar

from msgspec import Struct

from outlast.budget import (
    Amount,
    amounts_of,
    checked_meter,
    checked_scope,
    decimal_of,
    millionths,
    share_of,
)
from outlast.duration import Duration, instant, microseconds
from outlast.errors import NotFound, TransitionRefused, UsageError
from outlast.lifecycle import Execution
from outlast.naming import checked_name
from outlast.store.protocol import Adjust, Answer, BudgetRow

T = TypeVar("T")


class Keeper(Protocol):
    """What keeps budgets: an engine."""

    clock: Any

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine from a thread without a loop."""

    async def aadjust(self, item: Adjust) -> list[BudgetRow]:
        """Change budgets; gives them as they are then."""

    async def read_budgets(self, scopes: Collection[str] | None) -> list[BudgetRow]:
        """Read the budgets of these scopes; None: all shared ones."""

    async def read_one(self, id: str) -> Execution:
        """Read an execution's row, or raise NotFound."""


class BudgetState(Struct, frozen=True):
    """A budget as it was when it was read. Amounts are in units, exactly.

    Attributes:
        scope: whose it is: ``task:NAME``, ``tenant``, ``execution:ID`` or ``tree:ID``.
        meter: what it counts.
        limit: the hard limit; None for one that only counts.
        spent: what was spent, since the last reset or turn of the period.
        reserved: what is set aside.
        soft: the amount at which a threshold event is recorded, or None.
        turns_at: when the next period begins, or None.
    """

    scope: str
    meter: str
    limit: Decimal | None
    spent: Decimal
    reserved: Decimal
    soft: Decimal | None
    turns_at: datetime | None

    @property
    def name(self) -> str:
        """The scope and the meter, as ``task:fulfil:usd``."""
        return f"{self.scope}:{self.meter}"

    @property
    def left(self) -> Decimal | None:
        """What is neither spent nor set aside; negative where more was spent."""
        return None if self.limit is None else self.limit - self.spent - self.reserved


class Budgets:
    """The budgets of an engine's store: those that a task, or everybody, shares, and others."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    async def aset(
        self,
        scope: str,
        *,
        period: Duration | None = None,
        soft: float | Decimal | None = None,
        actor: str = "user",
        **meters: Amount | None,
    ) -> Sequence[BudgetState]:
        """Give a scope its limits; what it has spent stays.

        Args:
            scope: ``task:NAME``, ``tenant``, ``execution:ID`` or ``tree:ID``.
            period: begin anew every so often, from now on; what was spent is then 0 again.
            soft: the share of the limit at which a threshold event is recorded.
            actor: who does it.
            meters: the limits; None only counts.

        Raises:
            UsageError: there is no such scope or meter, or a limit is no amount.
            NotFound: an execution, or tree, was born without a budget on this meter.
        """
        period_us = None if period is None else microseconds(period)
        amounts = limits_of(meters)
        kind, _, id = checked_scope(scope).partition(":")
        if kind == "execution":
            check_open(await self._keeper.read_one(id))
        return await self._adjust(
            "set", scope, amounts, actor, soft=share_of(soft), period_us=period_us
        )

    def set(self, scope: str, **more: Any) -> Sequence[BudgetState]:
        """Give a scope its limits, as :meth:`aset`."""
        return self._keeper.run(self.aset(scope, **more))

    async def araise_(
        self, scope: str, *, actor: str = "user", **meters: Amount
    ) -> Sequence[BudgetState]:
        """Raise limits; executions that are suspended for them go on.

        Raises:
            NotFound: there is no such budget.
            UsageError: an amount is none.
        """
        return await self._adjust("raised", scope, amounts_of(meters, "raise"), actor)

    def raise_(self, scope: str, **more: Any) -> Sequence[BudgetState]:
        """Raise limits, as :meth:`araise_`."""
        return self._keeper.run(self.araise_(scope, **more))

    async def areset(self, scope: str, *meters: str, actor: str = "user") -> Sequence[BudgetState]:
        """Begin anew: nothing is spent. By default on all meters of the scope.

        Raises:
            NotFound: there is no such budget.
        """
        names = meters or tuple(row.meter for row in await self._rows(scope))
        amounts = {checked_meter(meter): None for meter in names}
        if not amounts:
            raise no_budget(scope)
        return await self._adjust("reset", scope, amounts, actor)

    def reset(self, scope: str, *meters: str, actor: str = "user") -> Sequence[BudgetState]:
        """Begin anew, as :meth:`areset`."""
        return self._keeper.run(self.areset(scope, *meters, actor=actor))

    async def aget(self, scope: str) -> dict[str, BudgetState]:
        """Give the budgets of a scope, by meter; empty where there are none."""
        return {row.meter: state_of(row) for row in await self._rows(scope)}

    def get(self, scope: str) -> dict[str, BudgetState]:
        """Give the budgets of a scope, as :meth:`aget`."""
        return self._keeper.run(self.aget(scope))

    async def alist(self) -> Sequence[BudgetState]:
        """Give the budgets that executions share: those of tasks, and of the tenant."""
        return [state_of(row) for row in await self._keeper.read_budgets(None)]

    def list(self) -> Sequence[BudgetState]:
        """Give the budgets that executions share, as :meth:`alist`."""
        return self._keeper.run(self.alist())

    async def _rows(self, scope: str) -> Sequence[BudgetRow]:
        return await self._keeper.read_budgets([checked_scope(scope)])

    async def _adjust(
        self, what: str, scope: str, amounts: Mapping[str, int | None], actor: str, **more: Any
    ) -> Sequence[BudgetState]:
        item = adjustment(what, scope, amounts, actor, self._keeper.clock.now(), **more)
        return [state_of(row) for row in await self._keeper.aadjust(item)]


def limits_of(meters: Mapping[str, Amount | None]) -> dict[str, int | None]:
    """Read limits by meter; None is no limit.

    Raises:
        UsageError: there is none, one is no amount, or its name no meter.
    """
    if not meters:
        raise UsageError("a budget names no meter", do="as usd=50")
    return {
        checked_meter(meter): None if limit is None else millionths(limit, meter)
        for meter, limit in meters.items()
    }


def adjustment(
    what: str,
    scope: str,
    amounts: Mapping[str, int | None],
    actor: str,
    now: int,
    *,
    soft: int | None = None,
    period_us: int | None = None,
) -> Adjust:
    """Make the item that changes budgets.

    Raises:
        UsageError: there is no such scope, or the actor is no name.
    """
    checked_scope(scope)
    checked_name(actor, "actor")
    if period_us == 0:
        raise UsageError("a period has no length", do='period="1d"')
    return Adjust(scope, what, amounts, actor, now, secrets.token_hex(8), soft, period_us)


def read_adjusted(answer: Answer, item: Adjust) -> list[BudgetRow]:
    """Give the budgets after a change, or raise what its refusal means.

    Raises:
        NotFound: there is no such budget.
    """
    if answer.refused is not None:
        raise no_budget(item.scope, *item.amounts)
    return list(answer.budgets)


def no_budget(scope: str, *meters: str) -> NotFound:
    """Make the error of a budget that is not there."""
    said = " on " + ", ".join(meters) if meters else ""
    do = f"outlast budget set {scope} METER=AMOUNT"
    if scope.startswith("tree:"):
        do = "give it one at its start: @task(budget=Budget(…)), or task.options(budget=…)"
    return NotFound(f"{scope} has no budget{said}", do=do)


def state_of(row: BudgetRow) -> BudgetState:
    """Show a budget in units."""
    soft = None if row.limit is None or row.soft is None else row.limit * row.soft // 1_000_000
    return BudgetState(
        row.scope,
        row.meter,
        None if row.limit is None else decimal_of(row.limit),
        decimal_of(row.spent),
        decimal_of(row.reserved),
        None if soft is None else decimal_of(soft),
        None if row.turns_at is None else instant(row.turns_at),
    )


async def own_budgets(keeper: Any, id: str) -> dict[str, BudgetState]:
    """Give an execution's own budgets, by meter."""
    rows = await keeper.read_budgets(own_scopes(id))
    return {row.meter: state_of(row) for row in rows}


async def set_own(
    keeper: Any, id: str, soft: float | Decimal | None, meters: Mapping[str, Amount], actor: str
) -> None:
    """Give an open execution budgets of its own, or other limits.

    Raises:
        TransitionRefused: it has ended.
    """
    limits = limits_of(meters)
    check_open(await keeper.read_one(id))
    for scope, amounts in (await _by_scope(keeper, id, limits)).items():
        now = keeper.clock.now()
        await keeper.aadjust(adjustment("set", scope, amounts, actor, now, soft=share_of(soft)))


def check_open(record: Execution) -> None:
    """See that an execution can have a budget.

    Raises:
        TransitionRefused: it has ended.
    """
    if record.is_final:
        raise TransitionRefused(
            "what has ended spends nothing any more",
            state=record.state,
            kind="budget",
            refusal="already_final",
            where=f"{record.id}, {record.state}",
        )


async def raise_own(keeper: Any, id: str, meters: Mapping[str, Amount], actor: str) -> None:
    """Raise an execution's own budgets.

    Raises:
        NotFound: it has none on one of these meters.
    """
    raises = await _by_scope(keeper, id, amounts_of(meters, "raise"))
    for scope, amounts in raises.items():
        await keeper.aadjust(adjustment("raised", scope, amounts, actor, keeper.clock.now()))


async def _by_scope(
    keeper: Any, id: str, amounts: Mapping[str, int] | Mapping[str, int | None]
) -> dict[str, dict[str, int | None]]:
    """Part amounts by the scope of the execution's own budget on their meter."""
    rows = await keeper.read_budgets(own_scopes(id))
    scopes = {row.meter: row.scope for row in rows}
    found: dict[str, dict[str, int | None]] = {}
    for meter, amount in amounts.items():
        found.setdefault(scopes.get(meter, f"execution:{id}"), {})[meter] = amount
    return found


def own_scopes(id: str) -> list[str]:
    """Name the scopes of an execution's own budgets."""
    return [f"execution:{id}", f"tree:{id}"]


__all__ = ["BudgetState", "Budgets"]
