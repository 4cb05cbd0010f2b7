"""What a claim must find open: limits, rates, capabilities, fixed at an execution's birth.

Pure readings of the column ``gates`` and of what ``blocked`` keeps. Who holds a limit is a function
of the rows of executions; nobody counts up and down.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from msgspec import Struct

from outlast.lifecycle.record import Data, Execution
from outlast.lifecycle.states import FINAL, State

AGEING_US: Final = 60_000_000
"""A minute of waiting is worth one step of priority, so nothing waits for ever."""
CAPABILITY: Final = "capability:"
"""How the gate of a capability begins, as in ``capability:gpu``."""
BUDGET: Final = "budget:"
"""How the gate of a budget begins, as in ``budget:task:fulfil:usd``."""
RATE: Final = "rate:"
"""How the gate of a rate begins."""
_HAS_RUN: Final = 3
"""The high water of what has run."""


class LimitGate(Struct, frozen=True):
    """At most ``capacity`` executions at a time.

    Attributes:
        name: the gate, as in ``fulfil:ada``.
        family: what it is called without its key, as in ``fulfil``; a setting of either counts.
        capacity: how many may hold it, where nobody has set another number.
        hold: whether a holder keeps it while it is parked, to its end.
    """

    name: str
    family: str
    capacity: int
    hold: bool


class RateGate(Struct, frozen=True):
    """At most one dispatch each ``interval_us``, with ``burst`` of them at once after a rest."""

    name: str
    family: str
    interval_us: int
    burst: int


class Gates(Struct, frozen=True):
    """Everything that a claim of one execution must find open."""

    needs: Sequence[str]
    limits: Sequence[LimitGate]
    rates: Sequence[RateGate]


def is_gated(record: Execution) -> bool:
    """Tell whether a claim of it has to look at any gate."""
    gates = record.gates
    return gates is not None and any(gates.get(name) for name in ("limits", "rates", "needs"))


def gates_of(data: Data | None) -> Gates:
    """Read the column ``gates``."""
    if data is None:
        return _FREE
    return Gates(
        tuple(map(str, _list(data, "needs"))),
        tuple(
            LimitGate(one["name"], one["of"], one["capacity"], bool(one["hold"]))
            for one in _list(data, "limits")
        ),
        tuple(
            RateGate(one["name"], one["of"], one["interval_us"], one["burst"])
            for one in _list(data, "rates")
        ),
    )


def held_by(record: Execution) -> list[str]:
    """Name the limits that an execution holds: while it is leased, or from its start to its end."""
    if record.gates is None:
        return []
    keeps = record.high_water == _HAS_RUN and record.state not in FINAL
    return [
        limit.name
        for limit in gates_of(record.gates).limits
        if record.worker is not None or (limit.hold and keeps)
    ]


def counts_against_rates(record: Execution) -> bool:
    """Tell whether its next dispatch takes from its rates: a beginning and a retry do.

    One that goes on after a wait, an answer, a pause or the death of its worker has been counted.
    """
    return record.cause in ("first", "retry")


def waits_at(record: Execution) -> str | None:
    """Name the gate that a blocked execution waits at."""
    if record.state is not State.BLOCKED or record.detail is None:
        return None
    gate = record.detail.get("gate")
    return gate if isinstance(gate, str) else None


def waiting_since(record: Execution) -> int:
    """Give when it began to wait for a worker; a block, and its end, do not begin that anew."""
    since = (record.detail or {}).get("since")
    return since if isinstance(since, int) else record.state_at


def turn_of(record: Execution) -> tuple[int, str]:
    """Sort what waits for a worker: the lowest is next.

    Priority plus waiting time is the effective priority. Both grow alike for everybody, so this
    order never changes by itself, and an index can keep it.
    """
    return waiting_since(record) - record.priority * AGEING_US, record.id


def code_of(task: str, version: str | None) -> str:
    """Say in one word what code can run an execution: its task, or the version it is pinned to."""
    return task if version is None else f"{task}\x1f{version}"


def _list(data: Data, name: str) -> Iterable[Any]:
    found: Any = data.get(name) or ()
    return found  # type: ignore[no-any-return]


_FREE: Final = Gates((), (), ())


__all__ = [
    "AGEING_US",
    "CAPABILITY",
    "RATE",
    "Gates",
    "LimitGate",
    "RateGate",
    "code_of",
    "counts_against_rates",
    "gates_of",
    "held_by",
    "is_gated",
    "turn_of",
    "waiting_since",
    "waits_at",
]
