"""A question to a person or an outside system: what ``ask`` asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
from msgspec import Struct

from outlast.codec import codec_for, digest, validate
from outlast.duration import Duration, microseconds
from outlast.errors import BadPayload, UsageError
from outlast.naming import checked_name, checked_text

Escalation = str | Sequence[str | tuple[str, Duration]]
"""Who is asked next: a recipient, or several in turn, each perhaps with a patience of its own."""


class Reader(Protocol):
    """What reads an answer: the codec of a type, or a schema."""

    def decode(self, data: bytes, *, name: str = ...) -> Any:
        """Read an answer, or raise BadPayload."""

    def json_schema(self) -> Mapping[str, Any]:
        """Describe what it takes."""


class SchemaReader:
    """Reads JSON of a form that is given as a JSON Schema."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        codec_for(Any).encode(schema, name="form")

    def decode(self, data: bytes, *, name: str = "answer") -> Any:
        """Read an answer.

        Raises:
            BadPayload: it does not have the form.
        """
        value = codec_for(Any).decode(data, name=name)
        validate(self._schema, value, name=name)
        return value

    def json_schema(self) -> Mapping[str, Any]:
        """Give the form."""
        return self._schema


class Turn(NamedTuple):
    """Who has to answer, and for how long it is up to them; None: for ever."""

    to: str | None
    patience_us: int | None


class Question(Struct):
    """What is asked, of whom in turn, and in what form the answer must come.

    Attributes:
        title: the question, for people.
        answer: reads the answer.
        turns: who is asked, one after the other; at least one.
        stage: whose turn it is, from 0.
        asked_at: when it was asked, in microseconds since 1970.
        until: when this turn is over, or None.
        refused: why an earlier answer was not taken, where it is asked anew for that.
        times: how often it was asked.
    """

    title: str
    answer: Reader
    turns: tuple[Turn, ...]
    stage: int = 0
    asked_at: int = 0
    until: int | None = None
    refused: str | None = None
    times: int = 1

    @property
    def to(self) -> str | None:
        """Who has to answer now."""
        return self.turns[self.stage].to

    @property
    def is_last(self) -> bool:
        """Whether nobody is asked after this one."""
        return self.stage + 1 == len(self.turns)

    @property
    def digest(self) -> int:
        """Stand for its arguments."""
        asked: list[Any] = [self.title, self.turns[0].to, self.answer.json_schema()]
        if len(self.turns) > 1:
            asked.append([turn.to for turn in self.turns[1:]])
        return digest(msgspec.json.encode(asked))

    def begin(self, now: int) -> int | None:
        """Ask the first one; gives how long it is up to them, in microseconds."""
        self.asked_at = now
        return self._enter(now)

    def escalate(self, now: int) -> int | None:
        """Ask the next one, there must be one; gives how long it is up to them."""
        self.stage += 1
        return self._enter(now)

    def ask_anew(self, refused: BadPayload, key: str | None) -> str | None:
        """Note why an answer was not taken; gives the key of the call that asks again."""
        self.refused = refused.why or refused.what
        self.times += 1
        return None if key is None else f"{key}.{self.times}"

    def _enter(self, now: int) -> int | None:
        patience = self.turns[self.stage].patience_us
        self.until = None if patience is None else now + patience
        return patience

    def as_data(self) -> dict[str, Any]:
        """Write it for the log: everything that is needed to show it and to check an answer."""
        data: dict[str, Any] = {
            "title": self.title,
            "to": self.to,
            "schema": self.answer.json_schema(),
            "until": self.until,
            "asked_at": self.asked_at,
        }
        if self.stage:
            data["stage"] = self.stage
            data["late"] = self.turns[self.stage - 1].to or "nobody"
        if not self.is_last:
            data["escalates"] = True
        if self.refused is not None:
            data["refused"] = self.refused
        return data

    def as_wait(self) -> dict[str, Any]:
        """Write it as one of the things an execution waits for."""
        return {"kind": "ask", **self.as_data()}


def question_of(
    title: str,
    form: Any,
    to: str | None,
    timeout: Duration | None,
    on_timeout: str | None,
    escalate_to: Escalation | None,
) -> Question:
    """Make a question of what ``ask`` is given.

    Raises:
        UsageError: a name or text cannot be stored, or the escalation makes no sense.
        BadPayload: the form has no JSON Schema.
    """
    checked_text(title, "question")
    if to is not None:
        checked_name(to, "recipient")
    reader: Reader = SchemaReader(form) if isinstance(form, Mapping) else codec_for(form)
    patience = None if timeout is None else microseconds(timeout)
    turns = (Turn(to, patience), *_escalation(patience, on_timeout, escalate_to))
    return Question(title, reader, turns)


def _escalation(
    patience: int | None, on_timeout: str | None, escalate_to: Escalation | None
) -> list[Turn]:
    if on_timeout not in (None, "escalate"):
        raise UsageError(
            f"on_timeout={on_timeout!r} is not possible",
            do='on_timeout="escalate", default=…, or neither, to get a WaitTimeout',
        )
    if on_timeout is None and escalate_to is None:
        return []
    if patience is None:
        raise UsageError(
            "a question without timeout never escalates", do='give timeout=, as in "2d"'
        )
    if escalate_to is None:
        return [Turn(None, patience)]  # to everybody
    steps = [escalate_to] if isinstance(escalate_to, str) else list(escalate_to)
    if not steps:
        raise UsageError("escalate_to names nobody", do='escalate_to="role:boss", or leave it out')
    turns = []
    for step in steps:
        name, span = (step, patience) if isinstance(step, str) else _with_patience(step)
        turns.append(Turn(checked_name(name, "recipient"), span))
    return turns


def _with_patience(step: Any) -> tuple[str, int]:
    try:
        name, span = step
    except (TypeError, ValueError):
        raise UsageError(
            f"{step!r} is no step of an escalation", do='"role:boss", or ("role:boss", "1d")'
        ) from None
    return name, microseconds(span)
