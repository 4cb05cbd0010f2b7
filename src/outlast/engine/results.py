"""What an execution came to, as its caller sees it: a value, or the error that ended it."""

from __future__ import annotations

from typing import Any

import msgspec

from outlast import failure
from outlast.engine.registry import Task
from outlast.errors import (
    ExecutionCancelled,
    ExecutionFailed,
    ExecutionNotStarted,
    ExecutionTimedOut,
    StepFailed,
)
from outlast.lifecycle import Execution as Record
from outlast.lifecycle import State, Transition


def outcome_of(record: Record, last: Transition, task: Task[Any, Any] | None) -> Any:
    """Give the result of an ended execution.

    Args:
        record: its row, in a final state.
        last: the last row of its log.
        task: its task, whose annotation the result is read by; None reads plain JSON.

    Raises:
        Exception: what its code raised, where the class is known here; else ExecutionFailed.
        ExecutionCancelled, ExecutionTimedOut, ExecutionNotStarted: it ended so.
    """
    if record.state is State.SUCCEEDED:
        data = last.payload if last.payload is not None else b"null"
        return task.output.decode(data) if task is not None else msgspec.json.decode(data)
    where = f"{record.id}, task {record.task}"
    if record.state is State.CANCELLED:
        detail = record.detail or {}
        why = f": {detail['why']}" if detail.get("why") else ""
        raise ExecutionCancelled(
            f"{record.id} was cancelled by {detail.get('by', last.actor)}{why}"
        )
    if record.state is State.TIMED_OUT:
        if (record.detail or {}).get("why") == "not_started":
            raise ExecutionNotStarted(
                f"{record.id} had not begun in time",
                where=where,
                why="no engine took it within its queue_timeout",
                do="start an engine that knows the task, or allow a longer queue_timeout",
            )
        raise ExecutionTimedOut(f"{record.id} did not end before its deadline", where=where)
    error = failure.rebuild(last.payload or b"{}")
    if isinstance(error, StepFailed):
        raise ExecutionFailed(error.what, where=where, do=f"outlast show {record.id}")
    raise error
