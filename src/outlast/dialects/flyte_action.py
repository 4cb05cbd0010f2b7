"""Flyte 2, as its client of today counts: ten phases, and a wait is an action of its own.

The client (``flyte`` 2.12, ``ActionPhase``; wire numbers in ``flyteidl2``, ``ActionPhase``) has two
phases more than its page (seed 002): PAUSED and RECOVERED. Neither is a phase of the run's root
action ``a0``, whose edges are those of the page. A *condition* is an action beside it: it is born
PAUSED and ends by a signal, in time or not, or with its run. A result that a retry uses again
belongs to an action that is born RECOVERED, and final.

Conditions are the waits for somebody outside (``ask``, ``wait_for``); they open with the row that
parks the execution. A wait that the code gave up is gone from the next such row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from outlast.dialects import flyte
from outlast.dialects.dialect import Dialect, DialectTransition, Edge, Line, Way
from outlast.lifecycle import FINAL, Kind, State, Transition


class ActionPhase(StrEnum):
    """The client's ``ActionPhase``, in the order of the wire numbers."""

    QUEUED = "QUEUED"
    WAITING_FOR_RESOURCES = "WAITING_FOR_RESOURCES"
    INITIALIZING = "INITIALIZING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    ABORTED = "ABORTED"
    TIMED_OUT = "TIMED_OUT"
    PAUSED = "PAUSED"
    RECOVERED = "RECOVERED"


P = ActionPhase
ROOT: Final = "a0"

NUMBERS: Final[dict[StrEnum, int]] = {phase: number for number, phase in enumerate(ActionPhase, 1)}
"""The wire numbers; 0 is ``UNSPECIFIED``."""

LINES: Final = tuple(Line(P(line.word), high_water=line.high_water) for line in flyte.LINES)

_PAGE: Final = tuple(
    Edge(edge.source and P(edge.source), P(edge.target), edge.name, edge.origin)
    for edge in flyte.EDGES
)
EDGES: Final = (
    *_PAGE,
    Edge(None, P.PAUSED, "new_condition", "client, new_condition"),
    Edge(P.PAUSED, P.SUCCEEDED, "signal", "client, Condition.signal"),
    Edge(P.PAUSED, P.TIMED_OUT, "timeout", "client, ConditionTimedoutError"),
    Edge(P.PAUSED, P.ABORTED, "abort", "client, Action.abort"),
    Edge(None, P.RECOVERED, "recover", "client, rerun(recover=True)"),
)
WAYS: Final = tuple(
    Way(tuple(word and P(word) for word in way.words), way.when) for way in flyte.WAYS
)
_NAMES: Final = {(edge.source, edge.target): edge.name for edge in EDGES}


def beside(rows: Sequence[Transition]) -> list[DialectTransition]:
    """Give the transitions of the actions beside the root: conditions, and results used again."""
    actions = _Actions()
    for row in rows:
        taker = _TAKERS.get(row.kind)
        if taker is not None:
            taker(actions, row, row.data or {})
        if row.to_state in FINAL:
            _ended(actions, row)
    return actions.told


@dataclass(slots=True)
class _Actions:
    """The open conditions by name, with what each waits for; and all that was told."""

    told: list[DialectTransition] = field(default_factory=list)
    open: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    born: Counter[str] = field(default_factory=Counter)

    def bear(self, row: Transition, key: str, phase: ActionPhase) -> str:
        """Begin an action; a second one of a key gets a number, as names are unique in a run."""
        self.born[key] += 1
        name = key if self.born[key] == 1 else f"{key}.{self.born[key]}"
        self.tell(row, name, None, phase)
        return name

    def end(self, row: Transition, name: str, phase: ActionPhase) -> None:
        """End a condition."""
        del self.open[name]
        self.tell(row, name, P.PAUSED, phase)

    def tell(
        self, row: Transition, name: str, source: ActionPhase | None, target: ActionPhase
    ) -> None:
        edge_name = _NAMES[source, target]
        self.told.append(
            DialectTransition(row.seq, row.at, row.kind, source, target, edge_name, action=name)
        )

    def waiting(self, **wanted: object) -> list[str]:
        """Name the open conditions that have all of these."""
        return [
            name
            for name, wait in self.open.items()
            if all(wait.get(one) == value for one, value in wanted.items())
        ]


def _parked(actions: _Actions, row: Transition, data: Mapping[str, Any]) -> None:
    _expired(actions, row, data)
    waits = {
        str(wait.get("key") or wait.get("title") or "condition"): wait
        for wait in data.get("waits", ())
        if wait.get("outside")
    }
    for name in list(actions.open):
        key = str(actions.open[name][_KEY])
        if key not in waits:
            actions.end(row, name, P.ABORTED)
        else:
            actions.open[name] = {**waits.pop(key), _KEY: key}
    for key, wait in waits.items():
        actions.open[actions.bear(row, key, P.PAUSED)] = {**wait, _KEY: key}


def _answered(actions: _Actions, row: Transition, data: Mapping[str, Any]) -> None:
    for name in actions.waiting(kind="ask", key=row.key)[:1]:
        actions.end(row, name, P.SUCCEEDED)


def _signalled(actions: _Actions, row: Transition, data: Mapping[str, Any]) -> None:
    for name in actions.waiting(kind="event", title=row.key)[:1]:
        actions.end(row, name, P.SUCCEEDED)


def _expired(actions: _Actions, row: Transition, data: Mapping[str, Any]) -> None:
    for name, wait in list(actions.open.items()):
        until = wait.get("until")
        if isinstance(until, int) and until <= row.at and not wait.get("escalates"):
            actions.end(row, name, P.TIMED_OUT)


def _abandoned(actions: _Actions, row: Transition, data: Mapping[str, Any]) -> None:
    for name in actions.waiting(key=row.key):
        actions.end(row, name, P.ABORTED)


def _used_again(actions: _Actions, row: Transition, data: Mapping[str, Any]) -> None:
    if "reused" in data:
        actions.bear(row, row.key or "step", P.RECOVERED)


def _ended(actions: _Actions, row: Transition) -> None:
    phase = P.TIMED_OUT if row.to_state is State.TIMED_OUT else P.ABORTED
    for name in list(actions.open):
        actions.end(row, name, phase)


_KEY: Final = "condition"
"""Where an open condition keeps the key it was born for, which its name may have a number to."""
_TAKERS: Final[dict[Kind, Callable[[_Actions, Transition, Mapping[str, Any]], None]]] = {
    Kind.WAIT: _parked,
    Kind.INPUT_RECEIVED: _answered,
    Kind.SIGNAL_RECEIVED: _signalled,
    Kind.RESUME: _expired,
    Kind.TIMER_FIRED: _expired,
    Kind.CALL_ABANDONED: _abandoned,
    Kind.STEP: _used_again,
}

DIALECT: Final = Dialect(
    name="flyte-action",
    title="Flyte 2, actions",
    document="Workflow Execution State Machine (002), and ActionPhase of Flyte's client 2.12",
    words=ActionPhase,
    initial=P.QUEUED,
    finals={state: P(word) for state, word in flyte.DIALECT.finals.items()},
    lines=LINES,
    edges=EDGES,
    ways=WAYS,
    silences=(
        *flyte.SILENCES,
        "waits for timers and children: they are no conditions, the root is `RUNNING`",
        "that a condition's answer was not what the code wanted: a signal is a signal",
    ),
    numbers=NUMBERS,
    root=ROOT,
    beside=beside,
)
