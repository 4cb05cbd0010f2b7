"""Executions, steps and rows of a log as JSON; the words are those of the store."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from outlast.cli.story import Step, Story
from outlast.duration import instant
from outlast.lifecycle import Execution, Reason, Transition, reason_of

if TYPE_CHECKING:
    from outlast.engine.questions import OpenQuestion
    from outlast.store.protocol import Descent


LAST_US: Final = 253_402_300_799_000_000
"""The end of the year 9999."""


def at(value: int | None) -> datetime | None:
    """Write an instant as RFC 3339, in UTC; one that has no date is the last that has one."""
    return None if value is None else instant(min(value, LAST_US))


def raw(payload: bytes | None) -> msgspec.Raw | None:
    """Put a payload into a document as it is: it is JSON already."""
    return None if payload is None else msgspec.Raw(payload)


def execution_form(record: Execution, reason: Reason | None = None) -> dict[str, Any]:
    """Write an execution's row."""
    detail = record.detail or {}
    return {
        "id": record.id,
        "task": record.task,
        "state": record.state,
        "is_cancelling": not record.is_final
        and (record.cancel_at is not None or (reason is not None and reason.code == "cancelling")),
        "is_pausing": record.pause_at is not None and not record.is_final,
        "reason": reason_form(reason or reason_of(record)),
        "error": detail.get("error"),
        "created_at": at(record.created_at),
        "started_at": at(record.started_at),
        "state_at": at(record.state_at),
        "due_at": at(record.due_at),
        "deadline_at": at(record.deadline_at),
        "seq": record.seq,
        "attempt": record.attempt,
        "failures": record.failures,
        "claims": record.claims,
        "worker": record.worker,
        "queue": record.queue,
        "priority": record.priority,
        "key": record.key,
        "version": record.version,
        "origin": record.origin,
        "labels": record.labels or {},
    }


def descent_form(descent: Descent) -> dict[str, Any]:
    """Write of which execution another one was made."""
    return {
        "id": descent.id,
        "source": descent.source_id,
        "mode": descent.mode,
        "step": descent.step,
    }


def reason_form(reason: Reason | None) -> dict[str, Any] | None:
    """Write why an execution is where it is."""
    if reason is None:
        return None
    return {
        "code": reason.code,
        "text": reason.text,
        "since": at(reason.since),
        "until": at(reason.until),
        "hint": reason.hint,
    }


def transition_form(row: Transition, *, payload: bool = False) -> dict[str, Any]:
    """Write a row of a log."""
    form: dict[str, Any] = {
        "type": "transition",
        "id": row.execution_id,
        "seq": row.seq,
        "kind": row.kind,
        "from": row.from_state,
        "to": row.to_state,
        "at": at(row.at),
        "actor": row.actor,
        "key": row.key,
        "data": row.data,
    }
    if payload:
        form["payload"] = raw(row.payload)
    return form


def step_form(step: Step) -> dict[str, Any]:
    """Write a step."""
    return {
        "key": step.key,
        "status": step.status,
        "title": step.title,
        "to": step.to,
        "attempts": step.attempts,
        "since": at(step.since),
        "ended_at": at(step.ended_at),
        "retry_at": at(step.retry_at),
        "progress": raw(step.progress),
        "beat_at": at(step.beat_at),
        "child": step.child,
        "failures": [
            {"attempt": one.attempt, "at": at(one.at), "type": one.type, "message": one.message}
            for one in step.failures
        ],
        "payload": raw(step.payload),
    }


def question_form(question: OpenQuestion) -> dict[str, Any]:
    """Write an open question."""
    return {
        "id": question.execution_id,
        "task": question.task,
        "key": question.key,
        "title": question.title,
        "to": question.to,
        "schema": question.schema,
        "asked_at": at(question.asked_at),
        "until": at(question.until),
        "late": question.late,
        "refused": question.refused,
    }


def outcome_form(record: Execution, last: Transition) -> dict[str, Any]:
    """Write what an ended execution came to."""
    said: dict[str, Any] = {"result": None, "failure": None}
    if record.state == "succeeded":
        said["result"] = raw(last.payload or b"null")
    elif record.state == "failed":
        said["failure"] = raw(last.payload)
    return said


def story_form(story: Story) -> list[dict[str, Any]]:
    """Write the steps of an execution, in the order in which they were noted."""
    return [step_form(step) for step in story.steps.values()]
