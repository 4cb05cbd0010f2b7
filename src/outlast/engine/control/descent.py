"""New executions made of old ones: rerun, fork, recover.

What has ended never changes; these make another execution, that names its source. What it reuses is
copied into its own log at its birth, in one item with it, so that it owes nothing to a source that
may be deleted. ``script.py`` says how its code comes by the copies.

- A *rerun* begins again from nothing, with the same input or an edited one.
- A *fork* keeps what had come before a step's outcome, as it came, and goes its own way from there.
- A *recovery* keeps every finished step, and tries again what failed or was never finished.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec
from msgspec import Struct

from outlast.codec import PAYLOAD_BYTES_MAX, codec_for, digest, hints_of
from outlast.engine.read.birth import birth_in
from outlast.engine.replay.script import KEPT, REUSABLE, is_point, is_reusable, past_of
from outlast.engine.task.change import marker_of
from outlast.engine.task.gate import named_anew
from outlast.engine.task.registry import Task, locals_of
from outlast.errors import BadPayload, NotRecoverable, UnknownStep, UnknownTask, WrongArguments
from outlast.lifecycle import (
    Event,
    Execution,
    Kind,
    Refusal,
    State,
    Transition,
    apply,
    create,
    decide,
)
from outlast.naming import checked_name, checked_text
from outlast.store.protocol import Create

_INHERITED: Final = ("task", "queue", "version", "gates", "attempt_timeout_us", "slot", "budget")
"""What the birth of a source says about every execution that is made of it."""
_OUTCOMES: Final = {
    Kind.STEP: "step",
    Kind.TIMER_FIRED: "timer",
    Kind.INPUT_RECEIVED: "input",
    Kind.SIGNAL_RECEIVED: "signal",
    Kind.CHILD_FINISHED: "child",
}
_STEPS: Final = ("step", "input", "child")
"""What a fork can begin at."""
_MESSAGES: Final = ("input", "signal")
NAMED_MAX: Final = 20
"""How many steps an error names."""


class Mode(StrEnum):
    """How an execution is made of another one."""

    RERUN = "rerun"
    FORK = "fork"
    RECOVER = "recover"


class Descent(Struct, frozen=True, kw_only=True):
    """What somebody wants to be made of an execution.

    Attributes:
        mode: how.
        step: the step that a fork begins at: its key, its name where it is the only one, or its
            place among the steps, from 1.
        edits: arguments by name that take the place of the source's.
        document: the whole input as JSON, instead.
        why: kept with the new execution.
        actor: who wants it.
        key: the key of the new execution: the same key means the same execution.
    """

    mode: Mode
    step: str | int | None = None
    edits: Mapping[str, Any] | None = None
    document: bytes | None = None
    why: str | None = None
    actor: str = "user"
    key: str | None = None


class _Copy(Struct):
    """Something a source had learned.

    Attributes:
        kind: step, timer, input, signal, or point.
        row: the row of the source's log by which its code learned it.
        at: the time at which its code took it to be.
        original: the row that has the payload, where that was reused itself.
        digest: what a call must have for it.
    """

    kind: str
    row: Transition
    at: int
    original: Transition
    digest: int | None

    def event(self) -> Event:
        """Make the event of the row that copies it."""
        data: dict[str, object] = {REUSABLE: self.row.seq, "kind": self.kind, "at": self.at}
        said = self.original.data or {}
        data.update((name, said[name]) for name in KEPT if name in said)
        row = self.row
        return Event(
            Kind.ANNOTATION,
            row.actor,
            key=row.key,
            digest=self.digest,
            data=data,
            payload=self.original.payload,
        )


def descend(
    source: Execution,
    log: Sequence[Transition],
    wish: Descent,
    task: Task[Any, Any] | None,
    id: str,
    now: int,
    *,
    bytes_max: int = PAYLOAD_BYTES_MAX,
) -> Create:
    """Make the item by which a new execution is made of another one.

    Args:
        source: the execution as it is.
        log: its whole log.
        wish: what is to be made of it.
        task: its task; only an edited input needs it.
        id: the new execution's.
        now: the instant.
        bytes_max: the largest input.

    Raises:
        NotFound: it was deleted since it was read.
        UnknownStep: it has no such step.
        NotRecoverable: it goes on, or succeeded: there is nothing to recover.
        UnknownTask: the input is edited, and nobody knows the task here.
        WrongArguments, BadPayload, PayloadTooLarge: the edited input does not fit.
    """
    birth = birth_in(source.id, log)
    payload = _input_of(birth.payload or b"{}", wish, task, source.task, bytes_max)
    copies, step = _copies(source, log, wish)
    event = _birth(source, birth, wish, payload, now)
    _unpin(event, task)
    origin: dict[str, Any] = {"id": source.id, "mode": str(wish.mode)}
    origin.update(_past(source, log, wish, step))
    if wish.why is not None:
        origin["why"] = checked_text(wish.why, "reason")
    event.data = {**(event.data or {}), "from": origin}
    record, row = create(source.tenant, id, event, now)
    rows = [row]
    for copied in [*_markers(log, wish, copies), *(copy.event() for copy in copies)]:
        decision = decide(record, copied, now)
        assert not isinstance(decision, Refusal), decision
        apply(record, decision)
        rows.append(decision.transition)
    return Create(record, rows)


def _birth(source: Execution, birth: Transition, wish: Descent, payload: bytes, now: int) -> Event:
    said = birth.data or {}
    data: dict[str, Any] = {name: said[name] for name in _INHERITED if said.get(name) is not None}
    if "gates" in data:
        data["gates"] = named_anew(data["gates"], payload)
    data["input_digest"] = digest(payload)
    data["priority"] = source.priority
    if source.labels:
        data["labels"] = source.labels
    if wish.key is not None:
        data["key"] = checked_name(wish.key, "key")
    deadline_at = said.get("deadline_at")
    if isinstance(deadline_at, int):
        data["deadline_at"] = now + deadline_at - birth.at
    return Event(Kind.CREATE, checked_name(wish.actor, "actor"), data=data, payload=payload)


def _unpin(event: Event, task: Task[Any, Any] | None) -> None:
    """Let today's code run it: what the source was pinned to may be the code that failed."""
    data: dict[str, Any] = dict(event.data or {})
    gates = {name: gate for name, gate in data.pop("gates", {}).items() if name != "version"}
    if task is not None and task.version is not None:
        data["version"] = task.version
        if task.pin:
            gates["version"] = task.version
    if gates:
        data["gates"] = gates
    event.data = data


def _past(
    source: Execution, log: Sequence[Transition], wish: Descent, step: str | None
) -> dict[str, Any]:
    """Say what the new execution takes up; nothing where it begins again from nothing."""
    began_at = _began_at(log)
    if wish.mode is Mode.RERUN or began_at is None:
        return {} if step is None else {"step": step}
    before = past_of(log[0])
    past: dict[str, Any] = {
        "began_at": began_at,
        "seed": source.id if before is None else before.seed,
    }
    if step is not None:
        past["step"] = step
    if wish.mode is Mode.RECOVER:
        past["identity"] = source.id if before is None else before.identity
    return past


# What the source had learned


def _copies(
    source: Execution, log: Sequence[Transition], wish: Descent
) -> tuple[list[_Copy], str | None]:
    """Give what is copied, and the key of the step that a fork begins at."""
    if wish.mode is Mode.RERUN:
        return [], None
    if wish.mode is Mode.RECOVER:
        if not source.is_final or source.state is State.SUCCEEDED:
            raise NotRecoverable(
                f"{source.id} {'succeeded' if source.is_final else 'has not ended'}",
                where=f"{source.id}, {source.state}",
                why="only what failed, timed out or was cancelled is recovered",
                do="rerun it, or fork it" if source.is_final else "wait for its end, or cancel it",
            )
        return list(_finished(source, log)), None
    learned = list(_learned(log))
    key = _step_of(source, log, learned, wish.step)
    for place, copy in enumerate(learned):
        if copy.row.key == key and copy.kind in _STEPS:
            return learned[:place], key
    return learned, key


def _markers(log: Sequence[Transition], wish: Descent, copies: Sequence[_Copy]) -> Iterator[Event]:
    """Give the marks of edits that the source had met on the way that is taken up."""
    last = max((copy.row.seq for copy in copies), default=0)
    for row in log:
        if marker_of(row) is not None and (wish.mode is Mode.RECOVER or row.seq < last):
            yield Event(Kind.ANNOTATION, "engine", key=row.key, data=row.data)


def _finished(source: Execution, log: Sequence[Transition]) -> Iterator[_Copy]:
    """Give what a recovery keeps: all but the steps that failed, and the wait that ended it."""
    learned = list(_learned(log))
    if source.state is State.FAILED and learned and learned[-1].kind == "timer":
        learned.pop()  # a wait that was over in vain; it would end it again at once
    for copy in [*learned, *_left_over(log, learned)]:
        said = copy.original.data or {}
        if not said.get("failed") and said.get("state", State.SUCCEEDED) == State.SUCCEEDED:
            yield copy


def _learned(log: Sequence[Transition]) -> Iterator[_Copy]:
    """Give what the code had learned in its last try, in the order in which it did.

    What a cancel led to is left out: it belongs to that cancel.
    """
    first = _first_of_last_try(log)
    again = (Kind.STEP, Kind.CHILD_FINISHED)
    rows = {row.seq: row for row in log if is_reusable(row) or row.kind in again}
    questions = _questions(log)
    came = [row for row in log[:first] if _OUTCOMES.get(row.kind) in _MESSAGES]
    on_source_way = past_of(log[0]) is not None

    def copy_of(row: Transition, at: int, kind: str) -> _Copy:
        reused = rows.get(int(str((row.data or {}).get("reused", 0))))
        if on_source_way:
            at = 0 if reused is None else int(str((reused.data or {}).get("at", 0)))
        wanted = questions.get(row.key or "") if kind in ("input", "child") else row.digest
        original = row if reused is None or kind not in ("step", "child") else reused
        return _Copy(kind, row, at, original, wanted)

    for row in log[first:]:
        kind = _OUTCOMES.get(row.kind)
        if row.kind is Kind.CANCEL_REQUESTED:
            return
        if row.kind is Kind.START:
            for message in came:
                yield copy_of(message, row.at, _OUTCOMES[message.kind])
            came = []
        elif is_point(row):
            if "reused" not in (row.data or {}):
                on_source_way = False
            yield copy_of(row, row.at, "point")
        elif kind is not None and row.from_state is State.RUNNING:
            yield copy_of(row, row.at, kind)
        elif kind is not None:
            came.append(row)


def _left_over(log: Sequence[Transition], learned: Iterable[_Copy]) -> Iterator[_Copy]:
    """Give the steps that are finished, but that the code's last try has not come to again."""
    known = {copy.row.key for copy in learned if copy.kind == "step"}
    for row in log[: _first_of_last_try(log)]:
        is_step = row.kind is Kind.STEP and "reused" not in (row.data or {})
        if is_step and row.key not in known:
            known.add(row.key)
            yield _Copy("step", row, row.at, row, row.digest)
    for row in log:
        if is_reusable(row) and row.data and row.data["kind"] == "step" and row.key not in known:
            known.add(row.key)
            yield _Copy("step", row, int(str(row.data["at"])), row, row.digest)


def _first_of_last_try(log: Sequence[Transition]) -> int:
    return max((place + 1 for place, row in enumerate(log) if row.kind is Kind.RETRY), default=0)


def _began_at(log: Sequence[Transition]) -> int | None:
    """Give the time at which the code of the last try that began did; None if it never did.

    One that ended while it waited for its next try has finished steps all the same.
    """
    past = past_of(log[0])
    if past is not None:
        return past.began_at
    starts = [row for row in log if row.kind is Kind.START]
    tried = [row for row in log[_first_of_last_try(log) :] if row.kind is Kind.START]
    began = tried[:1] or starts[-1:]
    return began[0].at if began else None


def _questions(log: Iterable[Transition]) -> dict[str, int]:
    """Give the digests of questions and calls of tasks: a call that asks the same has it."""
    digests: dict[str, int] = {}
    for row in log:
        is_asked = row.kind is Kind.STEP_ANNOUNCED
        if (is_asked or is_reusable(row)) and row.key is not None and row.digest is not None:
            digests[row.key] = row.digest
    return digests


# Steps, by name


def steps_of(log: Sequence[Transition]) -> list[str]:
    """Give the keys of the steps and questions of an execution, in the order of their outcomes."""
    learned = [copy for copy in _learned(log) if copy.kind in _STEPS]
    keys = dict.fromkeys(copy.row.key for copy in learned if copy.row.key is not None)
    begun = (Kind.STEP_ANNOUNCED, Kind.ATTEMPT_FAILED)
    rows = log[_first_of_last_try(log) :]
    keys.update(dict.fromkeys(r.key for r in rows if r.kind in begun and r.key is not None))
    return list(keys)


def _step_of(
    source: Execution, log: Sequence[Transition], learned: Iterable[_Copy], step: str | int | None
) -> str:
    keys = steps_of(log)
    if isinstance(step, str) and step in keys:
        return step
    place = step if isinstance(step, int) else int(step) if step and step.isdecimal() else None
    if place is not None and 1 <= place <= len(keys):
        return keys[place - 1]
    named = [key for key in keys if re.split("[#:]", key.rpartition("/")[2])[0] == step]
    if len(named) == 1:
        return named[0]
    shown = named or keys
    said = ", ".join(shown[:NAMED_MAX]) + (" and more" if len(shown) > NAMED_MAX else "")
    raise UnknownStep(
        f"{source.id} has {f'{len(named)} steps' if named else 'no step'} {step}",
        where=f"{source.id}, {source.state}",
        why=f"it has {said}" if keys else "none of its steps was ever noted",
        do="name one by its key, or by its place from 1" if keys else "rerun it",
    )


# Inputs


def _input_of(
    recorded: bytes, wish: Descent, task: Task[Any, Any] | None, name: str, bytes_max: int
) -> bytes:
    """Give the input of the new execution; an edited one has been read by the task's types."""
    if wish.document is None and not wish.edits:
        return recorded
    if task is None:
        raise UnknownTask(
            f"the input of {name} cannot be edited here",
            why="nothing that knows its types has been loaded",
            do="name the file that defines it, or leave the input as it is",
        )
    document = wish.document if wish.document is not None else recorded
    if wish.edits:
        document = _edited(task, document, wish.edits)
    try:
        args, kwargs = task.input.unbind(document)
    except BadPayload as error:
        error.what = error.what.replace(": the stored bytes do", ": the new input does")
        error.do = "give every parameter a value of its type"
        raise
    return task.input.bind(args, kwargs, bytes_max=bytes_max)


def _edited(task: Task[Any, Any], document: bytes, edits: Mapping[str, Any]) -> bytes:
    parameters = task.input.signature.parameters
    hints = hints_of(task.fn, locals_of(task.fn))
    fields: dict[str, Any] = msgspec.json.decode(document, type=dict[str, msgspec.Raw])
    for name, value in edits.items():
        parameter = parameters.get(name)
        if parameter is None:
            raise WrongArguments(
                f"{task.name} has no parameter {name}",
                where=f"{task.name}{task.input.signature}",
                do="edit the parameters that it has",
            )
        is_many = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        codec = codec_for(Any if is_many else hints.get(name, Any))
        fields[name] = msgspec.Raw(codec.encode(value, name=name))
    return msgspec.json.encode(fields)


__all__ = ["Descent", "Mode", "descend", "steps_of"]
