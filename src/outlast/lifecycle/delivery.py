"""What a message does to an execution: an answer, a signal, a cancel, a pause, a resume.

While a worker owns the execution, the message waits in its inbox and the owner takes it into the
log. Without an owner, whoever delivers decides here, on the record read in the same transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

from msgspec import Struct

from outlast.lifecycle.dependency import dependencies_of, remaining
from outlast.lifecycle.matching import payload_contains
from outlast.lifecycle.record import Data, Event, Execution
from outlast.lifecycle.states import PARKED, Kind, State


class MessageKind(StrEnum):
    """What can be sent to an execution."""

    ANSWER = "answer"
    SIGNAL = "signal"
    CHILD = "child"
    UPSTREAM = "upstream"
    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    PRIORITY = "priority"
    LABELS = "labels"
    BUDGET = "budget"
    NOTE = "note"


class Message(Struct):
    """One message for one execution.

    Attributes:
        id: unique per execution: sent again, it is taken once.
        kind: what it is.
        actor: who sends it.
        key: the question answered, the signal's name, the child's id.
        data: facts for the engine.
        payload: the user's bytes.
    """

    id: str
    kind: MessageKind
    actor: str
    key: str | None = None
    data: Data | None = None
    payload: bytes | None = None


NOTES: Final[dict[MessageKind, Kind]] = {
    MessageKind.ANSWER: Kind.INPUT_RECEIVED,
    MessageKind.SIGNAL: Kind.SIGNAL_RECEIVED,
    MessageKind.CHILD: Kind.CHILD_FINISHED,
    MessageKind.UPSTREAM: Kind.UPSTREAM_ENDED,
    MessageKind.CANCEL: Kind.CANCEL_REQUESTED,
    MessageKind.PAUSE: Kind.PAUSE_REQUESTED,
    MessageKind.PRIORITY: Kind.PRIORITY_CHANGED,
    MessageKind.LABELS: Kind.LABELS_CHANGED,
    MessageKind.BUDGET: Kind.BUDGET_CHANGED,
    MessageKind.NOTE: Kind.ANNOTATION,
}
"""The note that the owner writes when it takes a message out of its inbox."""


def note_of(message: Message, number: int) -> Event:
    """Make the note by which an owner takes message ``number`` of the inbox into its log.

    A resume of something that runs says nothing new; it is kept as an annotation.
    """
    kind = NOTES.get(message.kind, Kind.ANNOTATION)
    data = {**(message.data or {}), "inbox": number}
    return Event(kind, message.actor, key=message.key, data=data, payload=message.payload)


def events_of(record: Execution, message: Message, number: int) -> list[Event]:
    """Give the events by which a message acts on an execution that nobody owns, in order."""
    return _ACTS[message.kind](record, message, number)


def _note(record: Execution, message: Message, number: int) -> list[Event]:
    return [note_of(message, number)]


def _wakes(record: Execution, message: Message, number: int) -> list[Event]:
    """Keep it, and wake the execution if this is what it waits for."""
    events = [note_of(message, number)]
    if record.state in (State.AWAITING_INPUT, State.WAITING) and is_awaited(record, message):
        events.append(Event(Kind.RESUME, message.actor, data={"cause": _CAUSES[message.kind]}))
    return events


def is_awaited(record: Execution, message: Message) -> bool:
    """Tell whether a parked execution waits for just this message.

    A signal that a wait's pattern does not fit wakes nobody; it is kept for another wait.
    """
    waits = (record.detail or {}).get("waits")
    if not isinstance(waits, list | tuple):
        return False
    wanted = _WAITS[message.kind]
    if message.kind is MessageKind.CHILD:
        return any(wait.get("kind") == wanted for wait in waits)  # not all are named one by one
    name = "title" if message.kind is MessageKind.SIGNAL else "key"
    return any(
        wait.get("kind") == wanted
        and wait.get(name) == message.key
        and ("match" not in wait or payload_contains(message.payload, wait["match"]))
        for wait in waits
    )


def _cancel(record: Execution, message: Message, number: int) -> list[Event]:
    why = (message.data or {}).get("why")
    data = {"by": message.actor, "why": why, "inbox": number}
    forced = bool((message.data or {}).get("force")) or record.state is State.SUSPENDED
    if forced or not (_has_clean_up(record) or record.cancel_at is not None):
        return [Event(Kind.CANCEL, message.actor, data=data)]
    events = [note_of(message, number)]
    if record.cancel_at is not None:
        return [_again(events[0])]  # it is on its way to its clean-up
    if record.state is State.PAUSED:
        events.append(Event(Kind.UNPAUSE, "engine"))
    if State.RUNNING not in (record.state, record.paused_from):
        events.append(Event(Kind.RESUME, "engine", data={"cause": "cancel"}))
    return events


def _has_clean_up(record: Execution) -> bool:
    """Tell whether its code stands where a cancel would run something: an except, a finally."""
    detail = record.detail or {}
    held = detail.get("held_detail")
    return bool(detail.get("cleanup") or (isinstance(held, Mapping) and held.get("cleanup")))


def _again(note: Event) -> Event:
    """Keep what was asked twice as a remark."""
    data = {**(note.data or {}), "again": str(note.kind)}
    return Event(Kind.ANNOTATION, note.actor, key=note.key, data=data, payload=note.payload)


def _upstream(record: Execution, message: Message, number: int) -> list[Event]:
    """Keep it; the last one that was missing lets it go, a failed one may take it along."""
    note = note_of(message, number)
    open_before = dependencies_of(record)
    if not open_before:
        return [note]  # somebody has triggered it meanwhile
    rest = remaining(open_before, note.data or {})
    upstream, state = (message.data or {}).get("upstream"), (message.data or {}).get("state")
    if any(edge.get("ended") and edge["or_else"] == "cancel" for edge in rest):
        why = f"{upstream}, which it depends on, ended as {state}"
        data = {"by": "upstream", "why": why, "upstream": upstream}
        return [note, Event(Kind.CANCEL, "upstream", data=data)]
    if not rest and record.state is State.SCHEDULED and record.due_at is None:
        return [note, Event(Kind.PROMOTE, "engine")]
    return [note]


def _pause(record: Execution, message: Message, number: int) -> list[Event]:
    """Hold it, unless it is on its way to its clean-up: a cancel is not held up."""
    if record.cancel_at is not None and record.state is not State.PAUSED:
        return [_again(note_of(message, number))]
    return [Event(Kind.PAUSE, message.actor, data={**(message.data or {}), "inbox": number})]


def _resume(record: Execution, message: Message, number: int) -> list[Event]:
    data = {**(message.data or {}), "inbox": number}
    if record.state is State.PAUSED:
        return [Event(Kind.UNPAUSE, message.actor, data=data), *_kept(record)]
    if record.state in PARKED:
        return [Event(Kind.RESUME, message.actor, data={**data, "cause": "operator"})]
    if record.state is State.RETRY_WAIT:
        return [Event(Kind.RETRY_DUE, message.actor, data={**data, "trigger": True})]
    if record.state is State.SCHEDULED:
        return [Event(Kind.PROMOTE, message.actor, data={**data, "trigger": True})]
    return [note_of(message, number)]


def _kept(record: Execution) -> list[Event]:
    """Wake what goes back to a wait: an answer may have come while it was held.

    The code looks at what was kept, and waits on if it is not what it waits for.
    """
    if record.paused_from in (State.AWAITING_INPUT, State.WAITING):
        return [Event(Kind.RESUME, "engine", data={"cause": "unpause"})]
    free = record.paused_from is State.SCHEDULED and not dependencies_of(record)
    if free and (record.detail or {}).get("held_due_at") is None:
        return [Event(Kind.PROMOTE, "engine")]
    return []


_CAUSES: Final = {
    MessageKind.ANSWER: "input",
    MessageKind.SIGNAL: "event",
    MessageKind.CHILD: "child",
}
_WAITS: Final = {
    MessageKind.ANSWER: "ask",
    MessageKind.SIGNAL: "event",
    MessageKind.CHILD: "child",
}
_ACTS: Final[dict[MessageKind, Callable[[Execution, Message, int], list[Event]]]] = {
    MessageKind.ANSWER: _wakes,
    MessageKind.SIGNAL: _wakes,
    MessageKind.CHILD: _wakes,
    MessageKind.UPSTREAM: _upstream,
    MessageKind.CANCEL: _cancel,
    MessageKind.PAUSE: _pause,
    MessageKind.RESUME: _resume,
    MessageKind.PRIORITY: _note,
    MessageKind.LABELS: _note,
    MessageKind.BUDGET: _note,
    MessageKind.NOTE: _note,
}
