"""What a task asks of a claim: limits, rates, capabilities, and the gates they make at a start."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from outlast.duration import Duration, microseconds
from outlast.errors import UsageError
from outlast.lifecycle.gate import CAPABILITY, RATE
from outlast.lifecycle.record import Data
from outlast.naming import checked_name

_RESERVED: Final = frozenset({"queue", RATE.rstrip(":"), CAPABILITY.rstrip(":")})


@dataclass(frozen=True, slots=True, init=False)
class Limit:
    """At most so many executions at a time.

    Args:
        capacity: how many.
        per: counts apart for each value in the input: a parameter's name, and names or numbers
            behind dots, as in ``"order.customer"`` or ``"rows.0"``. Without it all count together.
        hold: whether an execution that waits (for an answer, a timer, a child) keeps its place from
            its start to its end. Without it a place is taken only while its code runs, and it has
            to come in again after a wait.
        name: what the limit is called; tasks that use one name share it. By default the task's.

    Raises:
        UsageError: the capacity is no whole number above 0, or a name is none.
    """

    capacity: int
    per: str | None
    hold: bool
    name: str | None

    def __init__(
        self, capacity: int, *, per: str | None = None, hold: bool = False, name: str | None = None
    ) -> None:
        _set(self, capacity=_count(capacity, "capacity"), per=_path(per), hold=bool(hold))
        _set(self, name=_family(name))

    def gate(self, task: str, given: object) -> dict[str, Any]:
        """Make the gate of one execution."""
        numbers = {"capacity": self.capacity, "hold": self.hold}
        return {**_named(self.family(task), self.per, given), **numbers}

    def family(self, task: str) -> str:
        """Give its name without a key."""
        return self.name or _family(task) or task


@dataclass(frozen=True, slots=True, init=False)
class Rate:
    """At most so many dispatches in any span of time.

    They are spaced evenly: with ``Rate(6, "1m")`` one may begin every ten seconds, so that no
    minute sees more than six. What is not used is not saved up, but for ``burst``.

    Args:
        count: how many.
        period: the span.
        per: as for :class:`Limit`.
        burst: how many may begin at once after a rest; a period can then see ``burst - 1`` more.
        name: as for :class:`Limit`.

    Raises:
        UsageError: a number is not above 0, the period is too short, or a name is none.
    """

    count: int
    period_us: int
    per: str | None
    burst: int
    name: str | None

    def __init__(
        self,
        count: int,
        period: Duration,
        *,
        per: str | None = None,
        burst: int = 1,
        name: str | None = None,
    ) -> None:
        _set(self, count=_count(count, "count"), period_us=microseconds(period), per=_path(per))
        _set(self, burst=_count(burst, "burst"), name=_family(name))
        if self.period_us < self.count:
            raise UsageError(
                f"{count} in {self.period_us} µs is no rate", do="write a longer period"
            )

    @property
    def interval_us(self) -> int:
        """The time between two dispatches, rounded up, so that there are never more than said."""
        return -(-self.period_us // self.count)

    def gate(self, task: str, given: object) -> dict[str, Any]:
        """Make the gate of one execution."""
        numbers = {"interval_us": self.interval_us, "burst": self.burst}
        return {**_named(self.family(task), self.per, given), **numbers}

    def family(self, task: str) -> str:
        """Give its name without a key."""
        return RATE + (self.name or _family(task) or task)


Limited = Limit | Sequence[Limit]
Rated = Rate | Sequence[Rate]


@dataclass(frozen=True, slots=True)
class Demand:
    """What a task, or one start of it, asks of a claim; None where it says nothing."""

    limits: tuple[Limit, ...] | None = None
    rates: tuple[Rate, ...] | None = None
    needs: tuple[str, ...] | None = None

    def over(self, usual: Demand) -> Demand:
        """Fill in what this one does not say."""
        return Demand(
            usual.limits if self.limits is None else self.limits,
            usual.rates if self.rates is None else self.rates,
            usual.needs if self.needs is None else self.needs,
        )

    def gates(self, task: str, payload: bytes) -> dict[str, Any] | None:
        """Make the gates of an execution with this input; None where there are none.

        Raises:
            UsageError: the input has no such key, or two limits have one name.
        """
        if not (self.limits or self.rates or self.needs):
            return None
        wanted: list[Limit | Rate] = [*(self.limits or ()), *(self.rates or ())]
        given = msgspec.json.decode(payload) if any(one.per for one in wanted) else None
        gates = {
            "limits": [limit.gate(task, given) for limit in self.limits or ()],
            "rates": [rate.gate(task, given) for rate in self.rates or ()],
            "needs": list(self.needs or ()),
        }
        return {name: value for name, value in gates.items() if value}


FREE: Final = Demand()
"""It says nothing."""


def demand_of(
    limit: Limited | None, rate: Rated | None, needs: str | Iterable[str] | None, task: str
) -> Demand:
    """Read what was written at a task or a start.

    Raises:
        UsageError: it is something else, or two limits, or two rates, would have one name.
    """
    limits = None if limit is None else _many(limit, Limit, "limit")
    rates = None if rate is None else _many(rate, Rate, "rate")
    for kind, wanted in (("limits", limits), ("rates", rates)):
        families = [one.family(task) for one in wanted or ()]
        if len(families) != len(set(families)):
            raise UsageError(
                f"two {kind} of task {task} are both named {families[0]}",
                do='name them: Limit(4, name="shipping")',
            )
    if isinstance(needs, str):
        needs = (needs,)
    names = None if needs is None else tuple(checked_name(one, "capability") for one in needs)
    return Demand(limits, rates, names)


def _many(given: Any, kind: type[Any], what: str) -> tuple[Any, ...]:
    wanted = tuple(given) if isinstance(given, Iterable) else (given,)
    for one in wanted:
        if not isinstance(one, kind):
            raise UsageError(f"{one!r} is no {what}", do=f"{kind.__name__}(…)")
    return wanted


def _set(target: Any, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(target, name, value)


def _count(number: int, what: str) -> int:
    if type(number) is not int or not 1 <= number <= 2**31:
        raise UsageError(f"the {what} {number!r} is no whole number above 0")
    return number


def _path(per: str | None) -> str | None:
    return None if per is None else checked_name(per, "path")


def _family(name: str | None) -> str | None:
    if name is None:
        return None
    checked_name(name, "limit")
    if ":" in name or name in _RESERVED:
        raise UsageError(
            f'no limit can be named "{name}"',
            why="a colon stands before a key" if ":" in name else "it means something else",
            do='name it: Limit(4, name="shipping")',
        )
    return name


def _named(family: str, per: str | None, given: object) -> dict[str, Any]:
    """Give the names of a gate, and by what it was named, for another input."""
    by = {} if per is None else {"per": per}
    return {"name": _keyed(family, per, given), "of": family, **by}


def named_anew(gates: Data, payload: bytes) -> dict[str, Any]:
    """Give the gates of an execution that is made of another one, with an input of its own.

    Raises:
        UsageError: the input has no such key.
    """
    given = msgspec.json.decode(payload)
    named = dict(gates)
    for kind in ("limits", "rates"):
        found: Any = gates.get(kind) or ()
        if found:
            named[kind] = [{**one, **_named(one["of"], one.get("per"), given)} for one in found]
    return named


def _keyed(family: str, per: str | None, given: object) -> str:
    """Give the name of a gate: its family, and the value in the input that it counts by."""
    if per is None:
        return family
    value = given
    for part in per.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise UsageError(
                f'the input has no "{part}"', where=f'per="{per}" of {family}', do="look at per="
            )
    if not isinstance(value, str | int | float) and value is not None:
        raise UsageError(
            f'per="{per}" leads to {type(value).__name__}',
            where=family,
            why="only texts, numbers, true, false and null can be counted by",
        )
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return f"{family}:{checked_name(text, 'key of a limit')}"


__all__ = ["FREE", "Demand", "Limit", "Limited", "Rate", "Rated", "demand_of", "named_anew"]
