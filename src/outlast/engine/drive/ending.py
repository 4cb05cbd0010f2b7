"""How an execution ends, as far as its code decides: by which event, and whether it is tried again.

Everything here is a function of what the code came to and of the record; nothing is written.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final

from outlast import failure
from outlast.engine.drive.attempts import NEVER_RETRIED
from outlast.engine.replay.scope import Scope
from outlast.engine.replay.thread_scope import ThreadScope
from outlast.engine.task.registry import Task
from outlast.engine.task.task_call import ContinueAsNew
from outlast.engine.write.clock import Clock
from outlast.errors import Deadlock, OutlastError, RetryAfter
from outlast.lifecycle import Event, Execution, Kind

_ENDS_OF_CANCELLED: Final = (asyncio.CancelledError, ContinueAsNew)


def end_of_code(
    task: Task[Any, Any],
    record: Execution,
    scope: Scope | ThreadScope,
    clock: Clock,
    bytes_max: int,
    cancelled: Callable[[], Event],
) -> Event | ContinueAsNew:
    """Say how an execution ends whose code has ended.

    Args:
        task: what it runs.
        record: the execution.
        scope: its code.
        clock: tells when another try is due.
        bytes_max: of its result.
        cancelled: gives the event by which a cancel ends it.

    Returns:
        The event, or what it goes on as.
    """
    error = scope.exception
    if error is None:
        if record.cancel_at is not None:
            return cancelled()
        try:
            payload = task.output.encode(scope.result, bytes_max=bytes_max, name="result")
        except OutlastError as refused:
            refused.where = f"task {task.name}, {task.where}"
            return end_by_error(task, record, refused, clock, cancelled)
        return Event(Kind.FINISH, "engine", payload=payload)
    if record.cancel_at is not None and isinstance(error, _ENDS_OF_CANCELLED):
        return cancelled()
    if isinstance(error, ContinueAsNew):
        return error
    return end_by_error(task, record, error, clock, cancelled)


def end_by_error(
    task: Task[Any, Any],
    record: Execution,
    error: BaseException,
    clock: Clock,
    cancelled: Callable[[], Event],
) -> Event:
    """Try the whole task again if its policy allows that after this error, else let it fail."""
    described = failure.describe(error)
    payload = failure.dump(described)
    said = {"type": described.type, "message": described.message[:500]}
    policy = task.policy
    if not isinstance(error, (*NEVER_RETRIED, Deadlock)) and policy.allows(record.failures, error):
        if record.cancel_at is not None:
            return cancelled()  # another try would follow, and is cancelled
        at_least = round(error.delay_seconds * 1e6) if isinstance(error, RetryAfter) else 0
        delay = policy.delay_us(record.failures + 1, random.random(), at_least_us=at_least)
        due_at = clock.now() + delay
        data = {"error": said, "retries": policy.retries, "due_at": due_at}
        return Event(Kind.RETRY, "engine", data=data, payload=payload)
    return Event(Kind.ERROR, "engine", data={"error": said}, payload=payload)


__all__ = ["end_by_error", "end_of_code"]
