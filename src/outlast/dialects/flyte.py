"""Flyte 2, as its page draws it: eight phases of a run.

From "Workflow Execution State Machine" (seed 002: *Key Architectural Findings* for the phases, the
*Diagram source* for the edges and their names). The prose lets an error happen during
initialization, the diagram does not; the diagram holds, and such an execution passes RUNNING.

Only the high water counts, and it never falls: so this view never goes back.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from outlast.dialects.dialect import Dialect, Edge, Line, Way
from outlast.lifecycle import State


class Phase(StrEnum):
    """002, *Key Architectural Findings*."""

    QUEUED = "QUEUED"
    WAITING_FOR_RESOURCES = "WAITING_FOR_RESOURCES"
    INITIALIZING = "INITIALIZING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    ABORTED = "ABORTED"
    TIMED_OUT = "TIMED_OUT"


P = Phase

LINES: Final = (
    Line(P.QUEUED, high_water=(0,)),
    Line(P.WAITING_FOR_RESOURCES, high_water=(1,)),
    Line(P.INITIALIZING, high_water=(2,)),
    Line(P.RUNNING, high_water=(3,)),
)

_ACTIVE: Final = "002, diagram, Active Execution"
_TERMINAL: Final = "002, diagram, Terminal States"

EDGES: Final = (
    Edge(None, P.QUEUED, "Run Created", "002, diagram"),
    Edge(P.QUEUED, P.WAITING_FOR_RESOURCES, "Backend Scheduling", _ACTIVE),
    Edge(P.WAITING_FOR_RESOURCES, P.INITIALIZING, "Resource Allocation", _ACTIVE),
    Edge(P.INITIALIZING, P.RUNNING, "Container Startup", _ACTIVE),
    Edge(P.RUNNING, P.SUCCEEDED, "Task Success", _TERMINAL),
    Edge(P.RUNNING, P.FAILED, "Task Error", _TERMINAL),
    Edge(P.RUNNING, P.TIMED_OUT, "Execution Timeout", _TERMINAL),
    Edge(P.QUEUED, P.ABORTED, "Manual Abort", _TERMINAL),
    Edge(P.WAITING_FOR_RESOURCES, P.ABORTED, "Manual Abort", _TERMINAL),
    Edge(P.INITIALIZING, P.ABORTED, "Manual Abort", _TERMINAL),
    Edge(P.RUNNING, P.ABORTED, "Manual Abort", _TERMINAL),
)

WAYS: Final = (
    Way((P.QUEUED, P.WAITING_FOR_RESOURCES, P.INITIALIZING), "a claim of what was never blocked"),
    Way((P.INITIALIZING, P.RUNNING, P.SUCCEEDED), "a result before the code has started"),
    Way((P.INITIALIZING, P.RUNNING, P.FAILED), "an error before the code has started"),
)

SILENCES: Final = (
    "retries, lost workers, suspensions and pauses: nothing leads back, all keep their phase",
    "a start time or a dependency: both are `QUEUED`, like waiting for a worker",
    "a deadline that passes before the code has run: it is `ABORTED` with reason `deadline`",
)

DIALECT: Final = Dialect(
    name="flyte",
    title="Flyte 2, runs",
    document="Workflow Execution State Machine (002)",
    words=Phase,
    initial=P.QUEUED,
    finals={
        State.SUCCEEDED: P.SUCCEEDED,
        State.FAILED: P.FAILED,
        State.TIMED_OUT: P.TIMED_OUT,
        State.CANCELLED: P.ABORTED,
    },
    lines=LINES,
    edges=EDGES,
    ways=WAYS,
    silences=(*SILENCES, "waits: all are `RUNNING`; the view of actions has them"),
)
