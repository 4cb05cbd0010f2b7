"""What every store does alike with a schedule's change: executions, cancels, numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from msgspec.structs import replace

from outlast.errors import InternalError
from outlast.lifecycle import Event, Kind, Message, MessageKind, create
from outlast.naming import SCHEDULE_ORIGIN
from outlast.schedule import (
    Birth,
    Change,
    Entry,
    Request,
    ScheduleKind,
    ScheduleRecord,
    slot_key,
)
from outlast.store.protocol import Answer, Create, Deliver, ScheduleAnswer
from outlast.store.tenants import closed

OPEN_MAX: Final = 1_000
"""Open executions of one schedule that are looked at: more are not cancelled at once."""

SPANS_AT_BIRTH: Final = ("deadline_at", "start_by")
"""What a schedule's options say as if its executions were born in 1970."""


def origin_of(name: str) -> str:
    """Give the origin of a schedule's executions."""
    return SCHEDULE_ORIGIN + name


def belonging(request: Request, tenant: int) -> Request:
    """Give a request whose draft, if any, is of the tenant that is asked."""
    draft = request.draft
    if draft is None or draft.tenant == tenant:
        return request
    return replace(request, draft=replace(draft, tenant=tenant))


def creates_of(change: Change, now: int) -> list[Create]:
    """Make the items that create a change's executions."""
    return [_create(change.after, birth, now) for birth in change.births]


def _create(schedule: ScheduleRecord, birth: Birth, now: int) -> Create:
    data: dict[str, Any] = {
        **schedule.options,
        "task": schedule.task,
        "input_digest": schedule.input_digest,
        "origin": origin_of(schedule.name),
    }
    for instant in SPANS_AT_BIRTH:
        if instant in data:
            data[instant] += now
    if birth.slot is not None:
        data["key"] = slot_key(schedule.name, birth.slot)
        data["slot"] = birth.slot
    event = Event(Kind.CREATE, birth.actor, data=data, payload=schedule.input)
    record, row = create(schedule.tenant, birth.id, event, now)
    return Create(record, [row])


def cancels_of(change: Change, now: int) -> list[Deliver]:
    """Make the messages that cancel what a newer slot overtakes."""
    name, seq = change.after.name, change.after.seq
    why = {"why": f"schedule {name} has fired again"}
    return [
        Deliver(id, Message(f"schedule:{seq}:{id}", MessageKind.CANCEL, "engine", data=why), now)
        for id in change.cancels
    ]


def settled(change: Change, answers: Sequence[Answer]) -> ScheduleAnswer:
    """Number a change's entries, having seen what became of its executions.

    A slot whose execution is there already (its key is taken) keeps that one. What was asked for
    by hand, and is there already, leaves no entry.

    Raises:
        InternalError: an execution was refused for a reason that cannot be.
    """
    there: dict[str, str] = {}
    made: list[str] = []
    for birth, answer in zip(change.births, answers, strict=True):
        if answer.refused is None:
            made.append(birth.id)
        elif answer.execution is not None:
            there[birth.id] = answer.execution.id
        else:
            if answer.refused == "tenant_closed":
                raise closed("", change.after.name)
            raise answer.error or InternalError(f"a slot was refused: {answer.refused}")
    kept: list[Entry] = []
    for entry in change.entries:
        if entry.execution_id in there:
            if entry.kind in (ScheduleKind.TRIGGER, ScheduleKind.BACKFILL):
                continue
            entry.execution_id = there[entry.execution_id]
            entry.data = {**(entry.data or {}), "was_there": True}
        change.after.seq += 1
        entry.seq = change.after.seq
        kept.append(entry)
    change.entries = kept
    last = change.after.last_execution_id
    change.after.last_execution_id = there.get(last, last) if last is not None else None
    return ScheduleAnswer(record=change.after, made=made, more=change.more)
