"""What is asked of the store for somebody: births and messages, and what the answers mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from outlast.budget import Budget
from outlast.codec import digest
from outlast.engine.read.questions import already_answered, too_late
from outlast.engine.task.gate import Demand
from outlast.engine.task.registry import PLAIN, StartOptions, Task
from outlast.engine.write.identity import message_id
from outlast.errors import KeyConflict, NotFound, Stale, TenantClosed, TransitionRefused
from outlast.lifecycle import Event, Kind, Message, MessageKind
from outlast.lifecycle import Execution as Record
from outlast.lifecycle.record import continued_as
from outlast.lifecycle.table import REFUSAL_MEANINGS
from outlast.naming import checked_labels, checked_name, checked_priority, checked_text
from outlast.store.protocol import Answer, are_alike


class _Form(Struct):
    """What all executions of a task that are started with the same options are born with."""

    data: dict[str, Any]
    delay_us: int | None
    start_at: int | None
    deadline_us: int | None
    queue_us: int | None
    demand: Demand
    actor: str

    def alike(self, task: Task[Any, Any]) -> Event | None:
        """Give the event of births that differ by their inputs alone; None where they may not."""
        demand = self.demand
        clock = (self.delay_us, self.start_at, self.deadline_us, self.queue_us)
        if clock != (None,) * 4 or demand.limits or demand.rates or demand.needs or task.pin:
            return None
        birth = Event(Kind.CREATE, self.actor, data=self.data)
        return birth if are_alike(birth) else None

    def fill(self, task: Task[Any, Any], payload: bytes, now: int) -> Event:
        """Make the event of one of them."""
        data = {**self.data, "input_digest": digest(payload)}
        due_at = self.start_at if self.delay_us is None else now + self.delay_us
        if due_at is not None and due_at > now:  # a time that has passed means now
            data["due_at"] = due_at
        else:
            due_at = now
        if self.deadline_us is not None:
            data["deadline_at"] = now + self.deadline_us
        if self.queue_us is not None:
            data["start_by"] = due_at + self.queue_us
        gates = self.demand.gates(task.name, payload) or {}
        if task.pin:
            gates = {**gates, "version": task.version}
        if gates:
            data["gates"] = gates
        return Event(Kind.CREATE, self.actor, data=data, payload=payload)


def birth_event(task: Task[Any, Any], payload: bytes, options: StartOptions, now: int) -> Event:
    """Make the event by which an execution is born.

    Raises:
        UsageError: its key, queue, sender or origin is no name.
    """
    return _form_for(task, options).fill(task, payload, now)


def birth_of_many(task: Task[Any, Any], options: StartOptions) -> Event | None:
    """Make the event by which executions are born that differ by their inputs alone.

    Gives None where they are born with more than all have.

    Raises:
        UsageError: as :func:`birth_event`.
    """
    return _form_for(task, options).alike(task)


def _form_for(task: Task[Any, Any], options: StartOptions) -> _Form:
    if options is not PLAIN:
        return _form_of(task, options)
    form: _Form | None = task.form
    if form is None:
        form = task.form = _form_of(task, options)
    return form


def _form_of(task: Task[Any, Any], options: StartOptions) -> _Form:
    for what in ("key", "queue", "actor", "origin"):
        name = getattr(options, what)
        if name is not None:
            checked_name(name, what)
    priority = checked_priority(_first(options.priority, task.priority) or 0)
    data: dict[str, Any] = {
        "task": task.name, "queue": options.queue or task.queue, "priority": priority,
    }  # fmt: skip
    optional = {
        "key": options.key,
        "version": task.version,
        "origin": options.origin,
        "labels": _labels(task.labels, options.labels),
        "budget": _budget(options.budget or task.budget),
        "attempt_timeout_us": _first(options.attempt_timeout_us, task.attempt_timeout_us),
        "waits_on": [one.edge() for one in options.after] or None,
    }
    data.update((name, value) for name, value in optional.items() if value is not None)
    return _Form(
        data,
        options.delay_us,
        options.start_at,
        _first(options.deadline_us, task.timeout_us),
        _first(options.queue_timeout_us, task.queue_timeout_us),
        options.demand.over(task.demand),
        options.actor or "user",
    )


def _budget(budget: Budget | None) -> dict[str, object] | None:
    return None if budget is None else budget.as_data()


def _first(given: int | None, usual: int | None) -> int | None:
    return usual if given is None else given


def _labels(
    usual: Mapping[str, str | None], given: Mapping[str, str] | None
) -> dict[str, str] | None:
    if not usual and not given:
        return None
    labels = checked_labels({**usual, **(given or {})})
    return {name: value for name, value in labels.items() if value is not None} or None


def read_birth(answer: Answer, key: str | None) -> Record:
    """Give the row of the execution that a start means, or raise what its refusal means.

    The same key and input mean the same execution.

    Raises:
        KeyConflict: the key belongs to another task or input.
        NotFound: it shall start after one that is not there.
        TenantClosed: nothing is started in this tenant.
    """
    if answer.refused == "tenant_closed":
        raise TenantClosed(
            "nothing was started: the tenant is closed",
            why="nothing is started or run in it; what is there can be read",
            do="outlast tenant ls, and: outlast tenant open NAME",
        )
    if answer.refused == "no_upstream":
        raise NotFound(
            "nothing was started: an execution that it shall start after is not there",
            why="after= names one that was never started, or was deleted since",
            do="outlast ls",
        )
    holder = answer.execution
    assert holder is not None
    if answer.refused == "key_conflict":
        raise KeyConflict(
            f'the key "{key}" is taken by another start',
            where=f"{holder.id}, task {holder.task}",
            why="its task or input differs from this one",
            do="use another key, or the same input",
        )
    return holder


def new_message(
    kind: MessageKind,
    actor: str,
    *,
    key: str | None = None,
    data: dict[str, Any] | None = None,
    payload: bytes | None = None,
    id: str | None = None,
) -> Message:
    """Make a message, by default with an id of its own.

    Raises:
        UsageError: its sender, key or id is no name, or its reason no text.
    """
    checked_name(actor, "sender")
    for what, name in (("name", key), ("message id", id)):
        if name is not None:
            checked_name(name, what)
    if data is not None and data.get("why") is not None:
        checked_text(data["why"], "reason")
    return Message(id or message_id(), kind, actor, key, data, payload)


def successor_of(answer: Answer) -> str | None:
    """Name the execution that a message is for instead: the one as which its receiver went on."""
    if answer.refused != "already_final" or answer.execution is None:
        return None
    return continued_as(answer.execution)


def read_delivery(answer: Answer, id: str, message: Message) -> Record:
    """Give the execution's row after a delivery, or raise what its refusal means.

    Raises:
        NotFound, AlreadyAnswered, Stale, TransitionRefused: see :meth:`outlast.Engine.asend`.
    """
    code, record = answer.refused, answer.execution
    if code == "no_execution":
        raise NotFound(f"there is no execution {id}", do="outlast ls")
    if code == "already_answered":
        raise already_answered(id, message.key)
    if code == "not_asked":
        raise too_late(id, message.key)
    assert record is not None
    if code == "stale":
        raise Stale(f"{id} has changed since", where=f"{id}, {record.state}")
    if code is None or code in _SAME_AGAIN.get(message.kind, ()):
        return record
    raise TransitionRefused(
        f"{message.kind} is not possible: {REFUSAL_MEANINGS.get(code, code)}",
        state=record.state,
        kind=message.kind,
        refusal=code,
        where=f"{id}, {record.state}",
    )


_SAME_AGAIN: Final[Mapping[MessageKind, Sequence[str]]] = {
    MessageKind.PAUSE: ("already_paused",),
}
"""Refusals that say a request is fulfilled already: asking again is no error."""


__all__ = [
    "birth_event",
    "birth_of_many",
    "new_message",
    "read_birth",
    "read_delivery",
    "successor_of",
]
