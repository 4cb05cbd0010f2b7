"""Budgets: amounts on named meters, and who they are for.

Amounts are whole millionths of a unit everywhere inside: sums of them are exact. What people write
(an int, a Decimal, a string, a float) is read by its shortest decimal, and what lies between two
millionths is rounded up, so that nothing is ever charged too little.

A budget is a limit on one meter for one scope, and is named by both: ``task:fulfil:usd``. A scope
is an ``execution:ID``, a ``tree:ID`` (that execution and everything below it), a ``task:NAME``, or
the ``tenant``. The last two are shared by executions that know nothing of each other.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Literal

from outlast.errors import UsageError
from outlast.lifecycle import Transition

Amount = int | float | Decimal | str
"""What every public parameter that is an amount takes."""

UNIT: Final = 1_000_000
"""Millionths in one."""
AMOUNT_MAX: Final = 10**12
"""The largest amount there is, in units: sums of many still fit into 64 bits."""
SECONDS: Final = "seconds"
"""The meter that the engine itself charges: the run time of step bodies."""
_NOISE: Final = Decimal("1e-9")
"""What a float's arithmetic leaves behind; less than half of it is nothing."""
_METER: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_TAKEN: Final = frozenset({"soft", "scope", "period"})


class Budget:
    """What one execution, or it and everything below it, may spend.

    Args:
        scope: ``execution``, or ``tree`` for it and its children and theirs.
        soft: the share of a limit at which a threshold event is recorded, as 0.8; None for none.
        meters: the limits by meter, as ``usd=2.00, tokens=200_000``. The engine itself charges
            ``seconds``, with the run time of step bodies; any other name is yours.

    Raises:
        UsageError: a limit is no amount, a name no meter, or there is no limit at all.
    """

    __slots__ = ("limits", "scope", "soft")

    def __init__(
        self,
        *,
        scope: Literal["execution", "tree"] = "execution",
        soft: float | Decimal | None = None,
        **meters: Amount,
    ) -> None:
        if scope not in ("execution", "tree"):
            raise UsageError(
                f'"{scope}" is no scope of a task\'s own budget',
                do='scope="execution" or scope="tree"; for others: engine.budgets.set(…)',
            )
        self.scope = scope
        self.soft = share_of(soft)
        self.limits = amounts_of(meters, "budget")

    def __repr__(self) -> str:
        said = ", ".join(f"{meter}={shown(limit)}" for meter, limit in self.limits.items())
        return f"<Budget {self.scope} {said}>"

    def as_data(self) -> dict[str, object]:
        """Give it as the birth of an execution records it."""
        data: dict[str, object] = {"scope": self.scope, "limits": dict(self.limits)}
        if self.soft is not None:
            data["soft"] = self.soft
        return data


def millionths(amount: Amount, what: str = "amount") -> int:
    """Read an amount, in millionths of its unit; what lies between two is rounded up.

    Raises:
        UsageError: it is no number, negative, or too large.
    """
    number: Decimal | None = None
    if not isinstance(amount, bool):
        with contextlib.suppress(InvalidOperation):
            number = Decimal(str(amount))
    if number is None or not number.is_finite():
        raise UsageError(f"the {what} is no amount: {str(amount)[:80]!r}", do="as 0.05 or 830")
    if number < 0:
        raise UsageError(f"the {what} is negative: {amount}", do="what was spent stays spent")
    if number > AMOUNT_MAX:
        raise UsageError(f"the {what} is larger than {AMOUNT_MAX:,}: {str(amount)[:80]}")
    billionths = int((number / _NOISE).to_integral_value())
    return -(-billionths // 1_000)


def amounts_of(meters: Mapping[str, Amount], what: str) -> dict[str, int]:
    """Read amounts by meter.

    Raises:
        UsageError: there is none, one is no amount, or its name no meter.
    """
    if not meters:
        raise UsageError(f"a {what} names no meter", do="as usd=0.05")
    for meter in meters:
        checked_meter(meter)
    return {meter: millionths(amount, meter) for meter, amount in meters.items()}


def checked_meter(meter: str) -> str:
    """Give the name of a meter back, having seen that it is one.

    Raises:
        UsageError: it is none.
    """
    if not _METER.fullmatch(meter) or meter in _TAKEN:
        raise UsageError(
            f"{str(meter)[:80]!r} is no name of a meter", do="small letters, digits and _, as usd"
        )
    return meter


def share_of(soft: float | Decimal | None) -> int | None:
    """Read the share of a limit that a soft one is, in millionths.

    Raises:
        UsageError: it is not between 0 and 1.
    """
    if soft is None:
        return None
    share = millionths(soft, "soft limit")
    if not 0 < share <= UNIT:
        raise UsageError(f"soft={soft} is no share of a limit", do="as soft=0.8")
    return share


def name_of(scope: str, meter: str) -> str:
    """Name a budget."""
    return f"{scope}:{meter}"


def parts_of(name: str) -> tuple[str, str]:
    """Give the scope and the meter of a budget's name."""
    scope, _, meter = name.rpartition(":")
    return scope, meter


def is_shared(scope: str) -> bool:
    """Tell whether executions that know nothing of each other share this scope."""
    return scope == "tenant" or scope.startswith("task:")


def checked_scope(scope: str) -> str:
    """Give a scope back, having seen that it is one.

    Raises:
        UsageError: it is none.
    """
    kind, colon, rest = scope.partition(":")
    if scope == "tenant" or (colon and rest and kind in ("execution", "tree", "task")):
        return scope
    raise UsageError(
        f"{scope[:80]!r} is no scope of a budget", do="task:NAME, tenant, execution:ID or tree:ID"
    )


def decimal_of(amount: int) -> Decimal:
    """Give an amount in its unit, exactly."""
    found = (Decimal(amount) / UNIT).normalize()
    # Without an exponent, which nobody expects of money: 50, not 5E+1.
    return Decimal(f"{found:f}")


def shown(amount: int) -> str:
    """Write an amount for people: all its digits, and two decimals where it has some."""
    whole, part = divmod(abs(amount), UNIT)
    digits = f"{part:06}".rstrip("0")
    sign = "-" if amount < 0 else ""
    return f"{sign}{whole:,}" + (f".{digits.ljust(2, '0')}" if digits else "")


def limits_at_birth(birth: Transition) -> list[tuple[str, str, int, int | None]]:
    """Read the budgets that an execution is born with: scope, meter, limit and soft share."""
    own: Any = (birth.data or {}).get("budget")
    if own is None:
        return []
    scope, soft = f"{own['scope']}:{birth.execution_id}", own.get("soft")
    return [(scope, meter, limit, soft) for meter, limit in own["limits"].items()]


def data_of_charge(spent: Mapping[str, int], charged: Iterable[str]) -> dict[str, object]:
    """Give what a row of the log says about its charge.

    Args:
        spent: in millionths, by meter.
        charged: the names of the budgets.
    """
    names = sorted(name for name in charged if parts_of(name)[1] in spent)
    return {"spent": dict(spent)} | ({"charged": names} if names else {})


def charged_by(rows: Iterable[Transition]) -> dict[str, int]:
    """Add up what the rows of a log have charged, by the budget's name."""
    total: dict[str, int] = {}
    for row in rows:
        if row.data is None or "charged" not in row.data:
            continue
        for name, amount in charges_of(row.data).items():
            total[name] = total.get(name, 0) + amount
    return total


def charges_of(data: Mapping[str, object]) -> dict[str, int]:
    """Give what the data of a row charges, by the budget's name."""
    spent, charged = data.get("spent"), data.get("charged")
    if not isinstance(spent, Mapping) or not isinstance(charged, Sequence):
        return {}
    return {name: int(spent[parts_of(name)[1]]) for name in charged}


def spent_by(rows: Iterable[Transition]) -> dict[str, int]:
    """Add up what the rows of a log say was spent, by meter, whatever it was charged to."""
    total: dict[str, int] = {}
    for row in rows:
        spent = row.data.get("spent") if row.data is not None else None
        if isinstance(spent, Mapping):
            for meter, amount in spent.items():
                total[meter] = total.get(meter, 0) + int(amount)
    return total


__all__ = [
    "SECONDS",
    "UNIT",
    "Amount",
    "Budget",
    "amounts_of",
    "charged_by",
    "charges_of",
    "checked_meter",
    "checked_scope",
    "data_of_charge",
    "decimal_of",
    "is_shared",
    "limits_at_birth",
    "millionths",
    "name_of",
    "parts_of",
    "share_of",
    "shown",
    "spent_by",
]
