"""Julep: seven statuses, nine transition types.

From "Execution State Machine in Julep" (seed 000: *Execution States*, *State Transitions*,
*Transition Types*, *State Machine Diagram*) and Julep's page "Executions" (seed 001: *Execution
Statuses*, *Transition Types*). Bullets and diagram of 000 differ, each has edges that the other
lacks; both hold, which gives 14. The diagram draws branches as boxes; they are transition types
(*Transition Types*), and their rows leave a running execution running.

A type belongs to the edge it takes: ``init`` leads to starting, ``wait`` to awaiting_input,
``resume`` out of it. No type says that the code starts; as in Julep's own log, the row after
``init`` is a ``step``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from outlast.dialects.dialect import Dialect, Edge, Line
from outlast.lifecycle import Kind, State


class Status(StrEnum):
    """000, *Execution States*."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    AWAITING_INPUT = "awaiting_input"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Type(StrEnum):
    """000, *Transition Types*."""

    INIT = "init"
    INIT_BRANCH = "init_branch"
    FINISH = "finish"
    FINISH_BRANCH = "finish_branch"
    WAIT = "wait"
    RESUME = "resume"
    ERROR = "error"
    STEP = "step"
    CANCELLED = "cancelled"


S, T = Status, Type

LINES: Final = (
    Line(S.AWAITING_INPUT, states=(State.AWAITING_INPUT,)),
    Line(S.AWAITING_INPUT, states=(State.PAUSED,), high_water=(3,)),
    Line(S.QUEUED, high_water=(0, 1)),
    Line(S.STARTING, high_water=(2,)),
    Line(S.RUNNING, high_water=(3,)),
)

_BOTH: Final = "000, bullets and diagram"
_BULLET: Final = "000, bullets"
_DIAGRAM: Final = "000, diagram"

# One edge, one row.
# fmt: off
EDGES: Final = (
    Edge(None, S.QUEUED, None, _DIAGRAM),
    Edge(S.QUEUED, S.STARTING, T.INIT, _BOTH),
    Edge(S.QUEUED, S.CANCELLED, T.CANCELLED, _DIAGRAM),
    Edge(S.STARTING, S.RUNNING, T.STEP, _BOTH),
    Edge(S.STARTING, S.AWAITING_INPUT, T.WAIT, _BULLET),
    Edge(S.STARTING, S.CANCELLED, T.CANCELLED, _BOTH),
    Edge(S.STARTING, S.SUCCEEDED, T.FINISH, _BULLET),
    Edge(S.STARTING, S.FAILED, T.ERROR, _BOTH),
    Edge(S.RUNNING, S.RUNNING, T.STEP, _BOTH, frozenset({Kind.STEP})),
    Edge(S.RUNNING, S.RUNNING, T.INIT_BRANCH, _DIAGRAM, frozenset({Kind.INIT_BRANCH})),
    Edge(S.RUNNING, S.RUNNING, T.FINISH_BRANCH, _DIAGRAM, frozenset({Kind.FINISH_BRANCH})),
    Edge(S.RUNNING, S.AWAITING_INPUT, T.WAIT, _BOTH),
    Edge(S.RUNNING, S.CANCELLED, T.CANCELLED, _BOTH),
    Edge(S.RUNNING, S.SUCCEEDED, T.FINISH, _BOTH),
    Edge(S.RUNNING, S.FAILED, T.ERROR, _BOTH),
    Edge(S.AWAITING_INPUT, S.RUNNING, T.RESUME, _BOTH),
    Edge(S.AWAITING_INPUT, S.CANCELLED, T.CANCELLED, _BOTH),
)
# fmt: on

DIALECT: Final = Dialect(
    name="julep",
    title="Julep",
    document="Execution State Machine in Julep (000), and Julep's page on executions (001)",
    words=Status,
    initial=S.QUEUED,
    finals={
        State.SUCCEEDED: S.SUCCEEDED,
        State.FAILED: S.FAILED,
        State.TIMED_OUT: S.FAILED,
        State.CANCELLED: S.CANCELLED,
    },
    lines=LINES,
    edges=EDGES,
    ways=(),
    silences=(
        "retries, lost workers, suspensions, and waits for timers or children: all are `running`",
        "scheduled and blocked: both are `queued`",
        "a pause: it looks like a wait for input, whose exits it has",
        "a deadline: it is `failed`, or `cancelled` with reason `deadline` where Julep cannot fail",
        "that the code starts: no type says so, the row after `init` is a `step`",
    ),
    aliases={"start": T.INIT, "cancel": T.CANCELLED},  # 001, *Transition Types*
)
