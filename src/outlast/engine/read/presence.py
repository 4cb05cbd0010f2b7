"""Who serves a store now, and why none of them takes an execution: pure readings of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from outlast.lifecycle import Execution, Reason, State, reason_of
from outlast.lifecycle.gate import gates_of
from outlast.store.protocol import Store, WorkerRow

ROWS_MAX: Final = 1_000
"""Workers that are looked at."""


def serving(store: Store, now: int) -> list[WorkerRow]:
    """Give the workers that serve a store, as far as leases can tell.

    On a store that one engine owns these are the rows that say so; whether it lives says its lock.
    """
    rows = [row for row in store.workers(ROWS_MAX) if row.is_serving]
    expired = set(store.expired(now)) if store.is_shared else ()
    return [row for row in rows if row.id not in expired]


def no_taker(record: Execution, workers: Sequence[WorkerRow]) -> Reason | None:
    """Say what no worker that lives can offer to an execution that waits for one.

    None where one could take it (it is full, or just about to), and where it waits for something
    else.
    """
    reason = reason_of(record)
    if record.state not in (State.QUEUED, State.BLOCKED) or reason is None or not workers:
        return None
    lacking = _lacking(record, workers)
    if lacking is None:
        return None
    code, text, hint = lacking
    return Reason(code, text, reason.since, reason.until, hint)


def _lacking(record: Execution, workers: Sequence[WorkerRow]) -> tuple[str, str, str] | None:
    """Name the first thing that none of those has who have all before it."""
    task, pin, queue = record.task, record.pin, record.queue
    knowing = [one for one in workers if task in one.service.tasks]
    if pin is not None:
        knowing = [one for one in workers if (task, pin) in one.service.versions]
        if not knowing:
            text = f"it is pinned to version {pin} of {task}, which no worker that lives knows"
            return "no_worker_version", text, f"outlast worker FILE, with version {pin} of {task}"
    elif not knowing:
        text = f"no worker that lives knows the task {task}"
        return "no_worker_task", text, f"outlast worker FILE, with the file that defines {task}"
    fitting = [one for one in knowing if one.service.queues is None or queue in one.service.queues]
    if not fitting:
        text = f"no worker that lives, and knows {task}, takes from the queue {queue}"
        return "no_worker_queue", text, f"outlast worker FILE --queue {queue}"
    for need in gates_of(record.gates).needs:
        fitting = [one for one in fitting if need in one.service.capabilities]
        if not fitting:
            text = f"it needs {need}, which no worker that could take it offers"
            return "no_worker_capability", text, f"outlast worker FILE --capability {need}"
    if all(one.state == "draining" for one in fitting):
        text = "all workers that could take it are stopping, and claim no more"
        return "workers_draining", text, "outlast worker FILE"
    return None


__all__ = ["no_taker", "serving"]
