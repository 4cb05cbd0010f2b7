"""The words of the lifecycle: states, transition kinds, and the sets they form."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Where an execution is. Each state answers one question: who must act next?"""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    BLOCKED = "blocked"
    STARTING = "starting"
    RUNNING = "running"
    AWAITING_INPUT = "awaiting_input"
    WAITING = "waiting"
    RETRY_WAIT = "retry_wait"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"


class Kind(StrEnum):
    """What can happen to an execution. The last fourteen are notes: the state stays."""

    CREATE = "create"
    PROMOTE = "promote"
    BLOCK = "block"
    UNBLOCK = "unblock"
    CLAIM = "claim"
    RELEASE = "release"
    LEASE_EXPIRED = "lease_expired"
    WORKER_LOST = "worker_lost"
    START = "start"
    STEP = "step"
    INIT_BRANCH = "init_branch"
    FINISH_BRANCH = "finish_branch"
    WAIT = "wait"
    RESUME = "resume"
    PAUSE = "pause"
    UNPAUSE = "unpause"
    SUSPEND = "suspend"
    RETRY = "retry"
    RETRY_DUE = "retry_due"
    EXHAUSTED = "exhausted"
    FINISH = "finish"
    ERROR = "error"
    CANCEL = "cancel"
    DEADLINE = "deadline"
    CANCEL_REQUESTED = "cancel_requested"
    PAUSE_REQUESTED = "pause_requested"
    INPUT_RECEIVED = "input_received"
    SIGNAL_RECEIVED = "signal_received"
    CHILD_FINISHED = "child_finished"
    UPSTREAM_ENDED = "upstream_ended"
    TIMER_FIRED = "timer_fired"
    ATTEMPT_FAILED = "attempt_failed"
    STEP_ANNOUNCED = "step_announced"
    CALL_ABANDONED = "call_abandoned"
    BUDGET_CHANGED = "budget_changed"
    PRIORITY_CHANGED = "priority_changed"
    LABELS_CHANGED = "labels_changed"
    ANNOTATION = "annotation"


FINAL: Final = frozenset({State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.CANCELLED})
OPEN: Final = tuple(state for state in State if state not in FINAL)
LEASED: Final = frozenset({State.STARTING, State.RUNNING})
"""States in which one worker owns the execution and alone writes its log."""
PARKED: Final = frozenset({State.AWAITING_INPUT, State.WAITING, State.PAUSED, State.SUSPENDED})
"""States that never end by failing: only a named actor, cancel or the deadline leave them."""

MEANINGS: Final[dict[State, str]] = {
    State.SCHEDULED: "the clock, a dependency or a trigger acts next",
    State.QUEUED: "a worker acts next",
    State.BLOCKED: "capacity acts next: a named gate is closed",
    State.STARTING: "the worker that leased it acts next; nothing has run yet",
    State.RUNNING: "the code acts next",
    State.AWAITING_INPUT: "a person or an outside system acts next",
    State.WAITING: "a timer, a child execution or an internal event acts next",
    State.RETRY_WAIT: "the clock acts next, after a back-off",
    State.PAUSED: "the operator acts next",
    State.SUSPENDED: "whoever lifts what the engine preempted it for acts next",
    State.SUCCEEDED: "final: the code returned",
    State.FAILED: "final: the code raised, and no attempt is left",
    State.TIMED_OUT: "final: its own deadline passed",
    State.CANCELLED: "final: it was cancelled",
}

TAKEOVERS: Final = frozenset({Kind.LEASE_EXPIRED, Kind.WORKER_LOST, Kind.CANCEL, Kind.DEADLINE})
"""Kinds that may be written over a lease by somebody else; they raise the fence."""

PROGRESS: Final = frozenset(
    {
        Kind.STEP,
        Kind.INIT_BRANCH,
        Kind.FINISH_BRANCH,
        Kind.WAIT,
        Kind.RETRY,
        Kind.SUSPEND,
        Kind.TIMER_FIRED,
        Kind.ATTEMPT_FAILED,
    }
)
"""Kinds that show a claim was of use; they reset the count of claims without progress."""
