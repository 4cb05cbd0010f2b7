"""What every store decides alike: which events the clock, a dead worker or a message calls for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from outlast.errors import InternalError
from outlast.lifecycle import (
    BrokenLog,
    Event,
    Execution,
    Kind,
    Message,
    MessageKind,
    Refusal,
    State,
    Transition,
    applied,
    create,
    decide,
    events_of,
    fold,
    note_of,
)
from outlast.lifecycle.delivery import is_awaited
from outlast.lifecycle.gate import is_gated
from outlast.lifecycle.lateness import is_closed
from outlast.lifecycle.record import COLUMNS, continued_as, copy_of
from outlast.store.protocol import (
    Answer,
    Create,
    CreateMany,
    Deliver,
    Descent,
    InboxEntry,
    Lease,
    Verdict,
    are_alike,
)

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
    if record.start_by is not None and record.start_by <= now:
        return [Event(Kind.DEADLINE, "engine", data={"why": "not_started"})]
    kind = _BY_CLOCK.get(record.state)
    if kind is None or record.due_at is None or record.due_at > now or _depends(record):
        return []
    if kind is not Kind.RESUME:
        return [Event(kind, "engine")]
    expired = record.state is State.AWAITING_INPUT
    return [Event(kind, "engine", data={"cause": "wait_expired" if expired else "timer"})]


def next_due(record: Execution) -> int | None:
    """Give the next instant at which the clock moves this execution, or None."""
    if record.is_final:
        return None
    by_clock = record.state in _BY_CLOCK and not _depends(record)
    instants = [record.deadline_at, record.start_by, record.due_at if by_clock else None]
    return min((instant for instant in instants if instant is not None), default=None)


def _depends(record: Execution) -> bool:
    """Tell whether it waits for other executions first; only those have a detail."""
    return record.state is State.SCHEDULED and record.detail is not None


def orphan_events(record: Execution) -> list[Event]:
    """Give the events that take an execution back from a dead worker: it is queued at once."""
    if record.state is State.STARTING:
        return [Event(Kind.LEASE_EXPIRED, "engine", record.fence)]
    return [Event(Kind.WORKER_LOST, "engine", record.fence), Event(Kind.RETRY_DUE, "engine")]


def claim_of(record: Execution, worker: str, nonce: bytes, floor: int) -> Event:
    """Give the event by which a worker takes an execution; its fence is not below the floor."""
    data: dict[str, object] = {"worker": worker}
    if floor > record.fence + 1:
        data["floor"] = floor
    return Event(Kind.CLAIM, "engine", nonce=nonce, data=data)


def crash_loop(record: Execution, lease: Lease) -> Event | None:
    """Give the suspension of a fresh claim whose predecessors all ended without progress."""
    if record.idle_claims <= lease.idle_claims_max:
        return None
    return Event(
        Kind.SUSPEND,
        "engine",
        record.fence,
        record.nonce,
        data={
            "code": "crash_loop",
            "text": f"its worker died {record.idle_claims - 1} times in a row without progress",
            "hint": f"find out what kills the process, then: outlast resume {record.id}",
        },
    )


def word_to_parent(ended: Execution, last: Transition) -> Deliver | None:
    """Make the message by which a parent that waits for it hears of a child's end.

    One that goes on as another execution has no end to tell yet: the other has the same parent.
    """
    if ended.parent_id is None or ended.parent_key is None or continued_as(ended) is not None:
        return None
    data: dict[str, object] = {"child": ended.id, "state": str(ended.state)}
    if ended.state is not State.FAILED:
        data.update(ended.detail or {})  # who cancelled it and why; which time had run out
    message = Message(
        f"child:{ended.id}", MessageKind.CHILD, "engine", ended.parent_key, data, last.payload
    )
    return Deliver(ended.parent_id, message, last.at)


class Errand(Struct):
    """What an execution that has ended owes to another.

    Attributes:
        to: whom.
        what: ``upstream`` (it depends on the ended one) or ``parent`` (it was made by it).
        source_id, source_state: the one that has ended.
    """

    to: str
    what: str
    source_id: str
    source_state: str

    def delivery(self, now: int) -> Deliver:
        """Make the message: the same whenever the errand is run."""
        id = f"{self.what}:{self.source_id}"
        if self.what == "upstream":
            data = {"upstream": self.source_id, "state": self.source_state}
            return Deliver(self.to, Message(id, MessageKind.UPSTREAM, "engine", data=data), now)
        data = {"why": f"its parent {self.source_id} ended as {self.source_state}"}
        return Deliver(self.to, Message(id, MessageKind.CANCEL, "parent", data=data), now)


def edges_of(birth: Transition) -> list[str]:
    """Name the executions that a new one depends on."""
    waits_on = (birth.data or {}).get("waits_on")
    return [str(edge["id"]) for edge in waits_on] if isinstance(waits_on, list | tuple) else []


def is_answered(message: Message, earlier: Iterable[Message]) -> bool:
    """Tell whether this is an answer to a question that has one already; the first wins."""
    if message.kind is not MessageKind.ANSWER or message.key is None:
        return False  # one that names no question answers none
    return any(other.kind is MessageKind.ANSWER and other.key == message.key for other in earlier)


def is_late(
    record: Execution, message: Message, log: Callable[[str], Sequence[Transition]]
) -> bool:
    """Tell whether this is an answer to a question that has ended.

    The row of what is parked names what it waits for; of the rest, the log is read.
    """
    if message.kind is not MessageKind.ANSWER or message.key is None:
        return False
    parked = record.state in (State.AWAITING_INPUT, State.WAITING)
    return not (parked and is_awaited(record, message)) and is_closed(log(record.id), message.key)


def descent_of(birth: Transition) -> Descent | None:
    """Read of which execution another one was made; None for one that was just started."""
    source: Any = birth.data.get("from") if birth.data else None
    if source is None:
        return None
    return Descent(birth.execution_id, source["id"], source["mode"], source.get("step"))


def births_of(item: CreateMany, tenant: int) -> Iterator[Create]:
    """Decide births that are alike, one after the other.

    Raises:
        InternalError: they have more than all have.
    """
    birth, facts = item.birth, item.birth.data or {}
    if not are_alike(birth):
        raise InternalError("what is born with more is not born together", where=item.ids[0])
    for id, payload, number in zip(item.ids, item.payloads, item.digests, strict=True):
        data = {**facts, "input_digest": number}
        event = Event(birth.kind, birth.actor, data=data, payload=payload)
        record, row = create(tenant, id, event, item.at)
        yield Create(record, [row])


def taken_answer(holder: Execution, item: Create) -> Answer:
    """Answer a create whose key is taken: the same input means the same execution."""
    same = holder.input_digest == item.after.input_digest and holder.task == item.after.task
    return Answer("already_exists" if same else "key_conflict", holder)


def unclaimed(item: Create, controlled: Container[str]) -> Create:
    """Take the claim out of a birth that may not have one: its gates, or its queue, ask for one.

    ``controlled`` are the queues that have rules. Gives the item itself where it may stay as it is.
    """
    record = item.after
    if record.worker is None or not (is_gated(record) or record.queue in controlled):
        return item
    kinds = [row.kind for row in item.rows]
    rows = item.rows[: kinds.index(Kind.CLAIM)]
    return Create(fold(rows), rows)


def take_backlog(
    record: Execution, backlog: Sequence[InboxEntry], now: int
) -> tuple[Execution, list[Transition]]:
    """Take messages that a lost or released owner left in the inbox into the log, in order.

    Nobody owns the execution now, so each acts as if it were delivered now. What a message can no
    longer do is kept as an annotation: none is passed over.
    """
    rows: list[Transition] = []
    for entry in backlog:
        if record.is_final:
            break
        events = events_of(record, entry.message, entry.number)
        if isinstance(decide(record, events[0], now), Refusal):
            events = [_annotation(entry)]
        record = _append(record, events, now, rows)
    return record, rows


def take_as_owner(
    record: Execution, backlog: Sequence[InboxEntry], now: int
) -> tuple[Execution, list[Transition]]:
    """Take messages into the log of an execution that was just claimed."""
    rows: list[Transition] = []
    for entry in backlog:
        note = note_of(entry.message, entry.number)
        note.fence, note.nonce = record.fence, record.nonce
        if isinstance(decide(record, note, now), Refusal):
            note = _annotation(entry)
            note.fence, note.nonce = record.fence, record.nonce
        record = _append(record, [note], now, rows)
    return record, rows


def _annotation(entry: InboxEntry) -> Event:
    """Keep a message that changes nothing, as an owner does with what is asked twice."""
    note = note_of(entry.message, entry.number)
    data = {**(note.data or {}), "again": str(note.kind)}
    return Event(Kind.ANNOTATION, note.actor, key=note.key, data=data, payload=note.payload)


def _append(
    record: Execution, events: Iterable[Event], now: int, rows: list[Transition]
) -> Execution:
    for event in events:
        decision = decide(record, event, now)
        if not isinstance(decision, Refusal):
            rows.append(decision.transition)
            record = applied(record, decision)
    return record


class Delivery(Struct):
    """What a message does to an execution.

    Attributes:
        after: the record it leaves.
        rows: the rows of the log it adds, those of a backlog before it included.
        entry: its entry in the inbox; None when it was refused or taken before.
        refused: the refusal, or None.
    """

    after: Execution
    rows: list[Transition]
    entry: InboxEntry | None = None
    refused: str | None = None


def deliver(
    record: Execution,
    item: Deliver,
    earlier: Sequence[Message],
    backlog: Sequence[InboxEntry],
    log: Callable[[str], Sequence[Transition]],
) -> Delivery:
    """Decide a delivery; while somebody owns the execution, only its inbox grows.

    Args:
        record: the execution as it is.
        item: the delivery.
        earlier: the messages in its inbox with the same id, or that answer the same question.
        backlog: the messages that the log has not taken in.
        log: reads its log; asked only for answers that nobody is parked for.
    """
    message = item.message
    if any(other.id == message.id for other in earlier):
        return Delivery(record, [])
    if item.only_if not in (None, (record.seq, record.inbox_count)):
        return Delivery(record, [], refused="stale")
    if record.is_final:
        return Delivery(record, [], refused="already_final")
    if is_answered(message, earlier):
        return Delivery(record, [], refused="already_answered")
    if is_late(record, message, log):
        return Delivery(record, [], refused="not_asked")
    number = record.inbox_count + 1
    after = copy_of(record)
    if after.is_leased:
        after.inbox_count = number
        return Delivery(after, [], InboxEntry(number, message, item.now))
    after, rows = take_backlog(after, backlog, item.now)
    if after.is_final:
        return Delivery(after, rows, refused="already_final")
    taken, after = after, copy_of(after)
    after.inbox_count = number
    for event in events_of(after, message, number):
        decision = decide(after, event, item.now)
        if isinstance(decision, Refusal):
            return Delivery(taken, rows[: taken.seq - record.seq], refused=decision.code)
        rows.append(decision.transition)
        after = applied(after, decision)
    return Delivery(after, rows, InboxEntry(number, message, item.now))


def verify_one(
    verdict: Verdict,
    id: str,
    record: Execution | None,
    rows: Sequence[Transition],
    entries: Sequence[InboxEntry],
) -> None:
    """Check one execution, read at one instant: its log against its row and its inbox."""
    verdict.executions += 1
    verdict.transitions += len(rows)
    verdict.messages += len(entries)
    if record is None:
        verdict.defects.append(f"{id}: its log, or its inbox, has no row")
        return
    if [entry.number for entry in entries] != list(range(1, record.inbox_count + 1)):
        verdict.defects.append(
            f"{id}: its row counts {record.inbox_count} messages, its inbox has {len(entries)}"
        )
    try:
        folded = fold(rows)
    except BrokenLog as error:
        verdict.defects.append(f"{id}: {error}")
        return
    folded.inbox_count = record.inbox_count  # alone no function of the log
    differing = [name for name in COLUMNS if getattr(folded, name) != getattr(record, name)]
    if differing:
        verdict.defects.append(f"{id}: its log does not fold to its row: {', '.join(differing)}")
    for row in rows:
        number = row.data.get("inbox") if row.data else None
        if isinstance(number, int) and not _is_of(row, number, entries):
            verdict.defects.append(f"{id}: row {row.seq} is not what message {number} says")


def verify_charges(
    verdict: Verdict,
    id: str,
    charged: Mapping[str, int],
    spending: Mapping[str, int],
    known: Collection[str],
) -> None:
    """Check what an execution's log says it charged against what was added up.

    Args:
        verdict: gets the defects.
        id: the execution.
        charged: what its log adds up to, by the budget's name.
        spending: what was added up.
        known: the budgets that there are; others were deleted, or never there.
    """
    for name in sorted({*charged, *spending} & {*known, *spending}):
        said, added = charged.get(name, 0), spending.get(name, 0)
        if said != added:
            verdict.defects.append(
                f"{id}: its log charges {said} to budget {name}, added up is {added}"
            )


def _is_of(row: Transition, number: int, entries: Sequence[InboxEntry]) -> bool:
    """Tell whether a row of the log took in just this message."""
    if not 1 <= number <= len(entries):
        return False
    message = entries[number - 1].message
    same = row.actor == message.actor
    if row.kind is note_of(message, number).kind:
        same = same and (row.key, row.payload) == (message.key, message.payload)
    return same
