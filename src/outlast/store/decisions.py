"""What every store decides alike: which events the clock, a dead worker or a message calls for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from outlast.lifecycle import Event, Execution, Kind, Message, MessageKind, State
from outlast.store.protocol import Answer, Create, Lease

_BY_CLOCK: Final = {
    State.SCHEDULED: Kind.PROMOTE,
    State.WAITING: Kind.RESUME,
    State.AWAITING_INPUT: Kind.RESUME,
    State.RETRY_WAIT: Kind.RETRY_DUE,
}
"""The states that the clock ends, and by what."""


def due_events(record: Execution, now: int) -> list[Event]:
    """Give the events that the clock calls for now."""
    if record.is_final:
        return []
    if record.deadline_at is not None and record.deadline_at <= now:
        return [Event(Kind.DEADLINE, "engine", data={"why": "deadline"})]
    kind = _BY_CLOCK.get(record.state)
    if kind is None or record.due_at is None or record.due_at > now:
        return []
    if kind is not Kind.RESUME:
        return [Event(kind, "engine")]
    expired = record.state is State.AWAITING_INPUT
    return [Event(kind, "engine", data={"cause": "wait_expired" if expired else "timer"})]


def next_due(record: Execution) -> int | None:
    """Give the next instant at which the clock moves this execution, or None."""
    if record.is_final:
        return None
    instants = [record.deadline_at, record.due_at if record.state in _BY_CLOCK else None]
    return min((instant for instant in instants if instant is not None), default=None)


def orphan_events(record: Execution) -> list[Event]:
    """Give the events that take an execution back from a dead worker; it is queued again at once."""
    if record.state is State.STARTING:
        return [Event(Kind.LEASE_EXPIRED, "engine", record.fence)]
    return [Event(Kind.WORKER_LOST, "engine", record.fence), Event(Kind.RETRY_DUE, "engine")]


def crash_loop(record: Execution, lease: Lease) -> Event | None:
    """Give the suspension of a fresh claim whose predecessors all ended without progress."""
    if record.idle_claims <= lease.idle_claims_max:
        return None
    return Event(
        Kind.SUSPEND, "engine", record.fence, record.nonce,
        data={
            "code": "crash_loop",
            "text": f"its worker died {record.idle_claims - 1} times in a row without progress",
            "hint": f"find out what kills the process, then: outlast resume {record.id}",
        },
    )


def is_answered(message: Message, earlier: Iterable[Message]) -> bool:
    """Tell whether this is an answer to a question that has one already; the first wins."""
    if message.kind is not MessageKind.ANSWER:
        return False
    return any(
        other.kind is MessageKind.ANSWER and other.key == message.key for other in earlier
    )


def taken_answer(holder: Execution, item: Create) -> Answer:
    """Answer a create whose key is taken: the same input means the same execution."""
    same = holder.input_digest == item.after.input_digest and holder.task == item.after.task
    return Answer("already_exists" if same else "key_conflict", holder)
