"""What an execution came to, as its caller sees it: a value, or the error that ended it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from outlast import failure
from outlast.errors import (
    ExecutionCancelled,
    ExecutionFailed,
    ExecutionNotStarted,
    ExecutionTimedOut,
    StepFailed,
)
from outlast.lifecycle import Execution as Record
from outlast.lifecycle import State, Transition
from outlast.lifecycle.record import Data

if TYPE_CHECKING:
    from outlast.engine.task.registry import Task


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
    detail = {"by": last.actor, **(record.detail or {})}
    return value_of(record.state, last.payload, detail, task, record.id, record.task)


def value_of(
    state: State,
    payload: bytes | None,
    detail: Data,
    task: Task[Any, Any] | None,
    id: str,
    name: str,
) -> Any:
    """Give the result of an execution that ended in this state, with this last row.

    Raises:
        as :func:`outcome_of`.
    """
    where = f"{id}, task {name}"
    if state is State.SUCCEEDED:
        data = payload if payload is not None else b"null"
        return task.output.decode(data) if task is not None else msgspec.json.decode(data)
    if state is State.CANCELLED:
        why = f": {detail['why']}" if detail.get("why") else ""
        raise ExecutionCancelled(f"{id} was cancelled by {detail.get('by')}{why}")
    if state is State.TIMED_OUT:
        if detail.get("why") == "not_started":
            raise ExecutionNotStarted(
                f"{id} had not begun in time",
                where=where,
                why="no engine took it within its queue_timeout",
                do="start an engine that knows the task, or allow a longer queue_timeout",
            )
        raise ExecutionTimedOut(f"{id} did not end before its deadline", where=where)
    error = failure.rebuild(payload or b"{}")
    if isinstance(error, StepFailed):
        raise ExecutionFailed(error.what, where=where, do=f"outlast show {id}")
    raise error
