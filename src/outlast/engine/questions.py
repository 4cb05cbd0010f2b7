"""The questions an execution has asked and nobody has answered, read from its log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outlast.codec import codec_for, validate
from outlast.errors import NotFound, UsageError
from outlast.lifecycle import Execution as Record
from outlast.lifecycle import Kind, Transition


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """A question without an answer.

    Attributes:
        key: its identity in its execution.
        title: the question.
        to: who shall answer, or None.
        schema: the form of the answer, as JSON Schema.
        asked_at: since when, in microseconds since 1970.
        until: when the wait for it ends, or None.
    """

    key: str
    title: str
    to: str | None
    schema: Mapping[str, Any]
    asked_at: int
    until: int | None

    def check(self, value: object) -> bytes:
        """Give the bytes of an answer, having compared it with the form that is asked for.

        Raises:
            BadPayload: it does not have that form.
        """
        payload = codec_for(Any).encode(value, name="answer")
        validate(self.schema, value, name="answer")
        return payload


def open_questions(log: Iterable[Transition]) -> list[OpenQuestion]:
    """Give the questions of a log that have no answer yet, the oldest first."""
    questions: dict[str, OpenQuestion] = {}
    for row in log:
        if row.key is None:
            continue
        if row.kind is Kind.STEP_ANNOUNCED and row.data and "question" in row.data:
            asked: Any = row.data["question"]
            questions[row.key] = OpenQuestion(
                row.key, asked["title"], asked["to"], asked["schema"], row.at, asked["until"]
            )
        elif row.kind in (Kind.INPUT_RECEIVED, Kind.CALL_ABANDONED):
            questions.pop(row.key, None)
    return list(questions.values())


def pick(questions: Sequence[OpenQuestion], key: str | None, record: Record) -> OpenQuestion:
    """Choose the question that an answer is for.

    Raises:
        NotFound: there is no such open question.
        UsageError: several are open, and none was named.
    """
    if key is not None:
        questions = [question for question in questions if question.key == key]
    if not questions:
        raise NotFound(
            f"{record.id} asks nothing"
            if key is None
            else f"{record.id} has no open question {key}",
            where=f"{record.id}, {record.state}",
            do=f"outlast show {record.id}",
        )
    if len(questions) > 1:
        keys = ", ".join(question.key for question in questions)
        raise UsageError(
            f"{record.id} asks {len(questions)} questions", why=keys, do="say which, by its key"
        )
    return questions[0]
