"""The questions that an execution has asked and that somebody can still answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from outlast.codec import as_json, validate
from outlast.errors import AlreadyAnswered, NotFound, UsageError
from outlast.lifecycle import Execution as Record
from outlast.lifecycle import Kind, State, Transition
from outlast.lifecycle.lateness import late_answers


class OpenQuestion(Struct, frozen=True):
    """A question without an answer.

    Attributes:
        key: its identity in its execution.
        title: the question.
        to: who has to answer now, or None for anybody.
        schema: the form of the answer, as JSON Schema.
        asked_at: since when, in microseconds since 1970.
        until: when the wait for it ends, or is put to somebody else; None: never.
        late: who did not answer in time, where it was put to somebody else; or None.
        refused: why an earlier answer was not taken, or None.
        execution_id: the execution that asks.
        task: its task.
    """

    key: str
    title: str
    to: str | None
    schema: Mapping[str, Any]
    asked_at: int
    until: int | None
    late: str | None = None
    refused: str | None = None
    execution_id: str = ""
    task: str = ""

    def check(self, value: object) -> bytes:
        """Give the bytes of an answer, having compared it with the form that is asked for.

        Raises:
            BadPayload: it does not have that form.
        """
        payload = as_json(value, name="answer")
        validate(self.schema, msgspec.json.decode(payload), name="answer")
        return payload


def asked_by(record: Record) -> list[OpenQuestion] | None:
    """Give the open questions that a row alone tells; None where its log must be read as well.

    What waits for an answer names all its questions in its row, as an answer takes it out of that
    state. What has never run has asked nothing.
    """
    if record.is_final or not record.attempt:
        return []
    if record.state is not State.AWAITING_INPUT:
        return None
    waits: Any = (record.detail or {}).get("waits", ())
    return [_open(record, wait["key"], wait) for wait in waits if wait.get("kind") == "ask"]


def open_questions(record: Record, log: Iterable[Transition]) -> list[OpenQuestion]:
    """Give the open questions of an execution, the oldest first."""
    told = asked_by(record)
    if told is not None:
        return told
    asked: dict[str, Mapping[str, Any]] = {}
    for row in log:
        if row.kind is Kind.STEP_ANNOUNCED and row.key and row.data and "question" in row.data:
            question: Any = row.data["question"]
            asked[row.key] = {"asked_at": row.at, **question}
        elif row.kind is Kind.WAIT:
            waits: Any = (row.data or {}).get("waits", ())
            keys = {wait.get("key") for wait in waits}
            asked = {key: question for key, question in asked.items() if key in keys}
        elif row.kind is Kind.RETRY:
            asked.clear()  # the next try asks anew
        elif row.kind in (Kind.INPUT_RECEIVED, Kind.CALL_ABANDONED):
            asked.pop(row.key or "", None)
    return [_open(record, key, question) for key, question in asked.items()]


def _open(record: Record, key: str, asked: Mapping[str, Any]) -> OpenQuestion:
    return OpenQuestion(
        key,
        asked["title"],
        asked.get("to"),
        asked["schema"],
        asked.get("asked_at", record.state_at),
        asked.get("until"),
        asked.get("late"),
        asked.get("refused"),
        record.id,
        record.task,
    )


def is_answered(log: Iterable[Transition], key: str) -> bool:
    """Tell whether a question has an answer; one that came too late is none."""
    rows = list(log)
    late = late_answers(rows)
    return any(
        row.kind is Kind.INPUT_RECEIVED and row.key == key and row.seq not in late for row in rows
    )


def already_answered(id: str, key: str | None) -> AlreadyAnswered:
    """Make the error of a second answer."""
    return AlreadyAnswered(
        "this question was answered before",
        where=f"{id}, {key}",
        why="the first answer wins",
        do=f"outlast show {id}",
    )


def too_late(id: str, key: str | None) -> NotFound:
    """Make the error of an answer that its question did not wait for."""
    return NotFound(
        f"{id} does not ask {key} any more",
        where=id,
        why="its time was up, or the code went on, before the answer was taken",
        do=f"outlast show {id}",
    )


def pick(
    questions: Sequence[OpenQuestion],
    key: str | None,
    record: Record,
    log: Iterable[Transition] = (),
) -> OpenQuestion:
    """Choose the question that an answer is for.

    Raises:
        AlreadyAnswered: the question of this key has its answer in the log.
        NotFound: there is no such open question.
        UsageError: several are open, and none was named.
    """
    if key is not None:
        questions = [question for question in questions if question.key == key]
    if not questions:
        if key is not None and is_answered(log, key):
            raise already_answered(record.id, key)
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
