"""What a message does to an execution: an answer, a signal, a cancel, a pause, a resume.

While a worker owns the execution, the message waits in its inbox and the owner takes it into the
log. Without an owner, whoever delivers decides here, on the record read in the same transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from outlast.lifecycle.record import Data, Event, Execution
from outlast.lifecycle.states import PARKED, Kind, State


class MessageKind(StrEnum):
    """What can be sent to an execution."""

    ANSWER = "answer"
    SIGNAL = "signal"
    CHILD = "child"
    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    PRIORITY = "priority"
    LABELS = "labels"
    BUDGET = "budget"
    NOTE = "note"


@dataclass(slots=True)
class Message:
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
    """Tell whether a parked execution waits for just this message."""
    waits = (record.detail or {}).get("waits")
    if not isinstance(waits, list | tuple):
        return False
    wanted = _WAITS[message.kind]
    name = "title" if message.kind is MessageKind.SIGNAL else "key"
    return any(wait.get("kind") == wanted and wait.get(name) == message.key for wait in waits)


def _cancel(record: Execution, message: Message, number: int) -> list[Event]:
    why = (message.data or {}).get("why")
    return [
        Event(Kind.CANCEL, message.actor, data={"by": message.actor, "why": why, "inbox": number})
    ]


def _pause(record: Execution, message: Message, number: int) -> list[Event]:
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
    MessageKind.CANCEL: _cancel,
    MessageKind.PAUSE: _pause,
    MessageKind.RESUME: _resume,
    MessageKind.PRIORITY: _note,
    MessageKind.LABELS: _note,
    MessageKind.BUDGET: _note,
    MessageKind.NOTE: _note,
}
