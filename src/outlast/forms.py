"""Executions, steps and rows of a log as JSON; the words are those of the store."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import structs

from outlast.budget import UNIT, shown
from outlast.duration import instant
from outlast.lifecycle import Execution, Reason, Transition, reason_of
from outlast.store.webhooks import DeliveryState
from outlast.story import Step, Story

if TYPE_CHECKING:
    from outlast.dialects import Dialect, DialectTransition
    from outlast.engine.read.doctor import Finding
    from outlast.engine.read.logs import LogLine
    from outlast.engine.read.measures import Measures
    from outlast.engine.read.questions import OpenQuestion
    from outlast.schedule import Entry, ScheduleRecord
    from outlast.store.protocol import (
        BudgetEvent,
        BudgetRow,
        Descent,
        GateRow,
        ProgressRow,
        QueueRow,
        QueueSetting,
        Setting,
        StreamItem,
    )
    from outlast.store.webhooks import Delivery, Webhook

LAST_US: Final = 253_402_300_799_000_000
"""The end of the year 9999."""


@lru_cache(1_024)  # a row names the same few instants again and again
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


def row_form(
    record: Execution, reason: Reason | None = None, *, sees_payloads: bool = True
) -> dict[str, Any]:
    """Write all of an execution's row, so that :mod:`outlast.client` can read it back.

    Args:
        record: the row.
        reason: why it is where it is, where the row alone does not know.
        sees_payloads: whether texts of errors may be shown.
    """
    if not sees_payloads:
        record = veiled_record(record)
    form = execution_form(record, reason)
    return {
        **form,
        "updated_at": at(record.updated_at),
        "cancel_at": at(record.cancel_at),
        "pause_at": at(record.pause_at),
        "start_by": at(record.start_by),
        "paused_from": record.paused_from,
        "cause": record.cause,
        "fence": record.fence,
        "high_water": record.high_water,
        "idle_claims": record.idle_claims,
        "inbox_count": record.inbox_count,
        "inbox_seen": record.inbox_seen,
        "input_digest": str(record.input_digest) if sees_payloads else None,
        "parent_id": record.parent_id,
        "parent_key": record.parent_key,
        "root_id": record.root_id,
        "children": record.children,
        "gates": record.gates,
        "detail": record.detail,
    }


def veiled_record(record: Execution) -> Execution:
    """Give a row as whoever may read no payloads sees it; so are the reasons made of it."""
    return structs.replace(record, detail=_veiled_data(record.detail))


def veiled(error: Any) -> Any:
    """Leave out of an error what its text may tell of payloads."""
    return {"type": error.get("type")} if isinstance(error, dict) else None


TELLING: Final = frozenset({"match", "unfit", "ended", "standing", "digest", "input_digest"})
"""Facts of rows that tell of payloads: parts of them, texts of errors, and digests of inputs, of
which there may be so few that whoever tries them all finds the one."""


def _veiled_data(data: Any) -> Any:
    """Leave out what tells of payloads, also where it is kept inside, as of what was paused."""
    if isinstance(data, list | tuple):
        return [_veiled_data(one) for one in data]
    if not isinstance(data, dict):
        return data
    return {
        name: (
            veiled(said)
            if name == "error" and not isinstance(said, str)
            else said
            if name == "labels"  # their names are the user's
            else _veiled_data(said)
        )
        for name, said in data.items()
        if name not in TELLING
    }


def log_form(row: Transition, *, payload: bool) -> dict[str, Any]:
    """Write all of a row of a log, so that :mod:`outlast.client` can read it back."""
    form = transition_form(row, payload=payload)
    if not payload:
        form["data"] = _veiled_data(form["data"])
    return {
        **form,
        "fence": row.fence,
        "is_owned": row.nonce is not None,
        "digest": str(row.digest) if payload and row.digest is not None else None,
    }


def told_form(dialect: Dialect, one: DialectTransition) -> dict[str, Any]:
    """Write a transition in another system's words."""
    return {
        "seq": one.seq,
        "at": at(one.at),
        "kind": one.kind,
        **({"action": one.action} if dialect.root else {}),
        "name": one.name,
        "from": one.source,
        "to": one.target,
        "is_synthetic": one.is_synthetic,
        "reason": one.reason,
    }


def attempts_form(story: Story) -> list[dict[str, Any]]:
    """Write the attempts of all steps: those that failed, and the last of each."""
    found: list[dict[str, Any]] = []
    for step in story.steps.values():
        found += [
            {
                "step": step.key,
                "attempt": one.attempt,
                "began_at": None,
                "ended_at": at(one.at),
                "outcome": "failed",
                "type": one.type,
                "message": one.message,
            }
            for one in step.failures
        ]
        found.append(
            {
                "step": step.key,
                "attempt": step.attempts,
                "began_at": at(step.since),
                "ended_at": at(step.ended_at),
                "outcome": step.status,
                "type": None,
                "message": None,
            }
        )
    return found


def item_form(item: StreamItem) -> dict[str, Any]:
    """Write an item of a stream."""
    return {
        "name": item.name,
        "number": item.number,
        "step": item.step,
        "attempt": item.attempt,
        "lease": item.lease,
        "part": item.part,
        "at": at(item.at),
        "value": raw(item.payload),
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


def schedule_form(record: ScheduleRecord) -> dict[str, Any]:
    """Write a schedule's row."""
    return {
        "name": record.name,
        "task": record.task,
        "state": record.state,
        "why": record.why,
        "when": record.plan.in_words(),
        "plan": record.plan.as_data(),
        "is_declared": record.is_declared,
        "next_slot": at(record.next_slot),
        "next_at": at(record.next_at),
        "waiting_slot": at(record.waiting_slot),
        "fired": record.fired,
        "last_slot": at(record.last_slot),
        "last_execution_id": record.last_execution_id,
        "input": raw(record.input),
        "seq": record.seq,
        "created_at": at(record.created_at),
        "state_at": at(record.state_at),
    }


def entry_form(entry: Entry) -> dict[str, Any]:
    """Write an entry of a schedule's log."""
    return {
        "seq": entry.seq,
        "kind": entry.kind,
        "at": at(entry.at),
        "actor": entry.actor,
        "slot": at(entry.slot),
        "until_slot": at(entry.until_slot),
        "execution_id": entry.execution_id,
        "data": entry.data,
    }


def setting_form(setting: QueueSetting) -> dict[str, Any]:
    """Give a queue's rules as JSON has them."""
    return {
        "queue": setting.name,
        "capacity": setting.capacity,
        "paused_at": at(setting.paused_at),
        "paused_by": setting.paused_by,
        "why": setting.why,
    }


def queue_form(row: QueueRow) -> dict[str, Any]:
    """Give a queue as JSON has it."""
    return {
        **setting_form(row.setting),
        "queued": row.queued,
        "blocked": row.blocked,
        "leased": row.leased,
        "waiting_since": at(row.waiting_since),
    }


def gate_form(row: GateRow) -> dict[str, Any]:
    """Give a limit, rate or capability as JSON has it."""
    return {
        "limit": row.gate,
        "setting": None if row.setting is None else rule_form(row.setting),
        "holders": list(row.holders),
        "waiting": row.waiting,
        "next": row.next_id,
    }


def webhook_form(row: Webhook) -> dict[str, Any]:
    """Give a webhook as JSON has it; never a secret."""
    terms, wanted = row.terms, row.terms.wanted
    return {
        "id": row.id,
        "url": terms.url,
        "filter": {
            "task": wanted.task,
            "prefix": wanted.prefix,
            "states": list(wanted.states),
            "transitions": list(wanted.transitions),
            "labels": dict(wanted.labels),
        },
        "description": terms.description,
        "state": str(row.state),
        "reason": terms.why,
        "created_at": at(row.created_at),
        "updated_at": at(row.updated_at),
        "former_secret_until": at(row.former_until),
        "failing_since": at(row.failing_since),
        "pending": row.pending,
        "waiting_since": at(row.waiting_since),
    }


def delivery_form(one: Delivery) -> dict[str, Any]:
    """Give a delivery as JSON has it."""
    is_about = bool(one.execution_id)
    return {
        "number": one.number,
        "message_id": one.message_id,
        "kind": str(one.kind),
        "execution_id": one.execution_id if is_about else None,
        "seq": one.seq if is_about else None,
        "state": str(one.state),
        "attempts": one.attempts,
        "created_at": at(one.created_at),
        "next_at": at(one.next_at) if one.state is DeliveryState.PENDING else None,
        "tried_at": at(one.tried_at),
        "status": one.status,
        "error": one.error,
    }


def rule_form(setting: Setting) -> dict[str, Any]:
    """Write what is set for a limit or rate."""
    return {
        "name": setting.gate,
        "capacity": setting.capacity,
        "interval_us": setting.interval_us,
        "by": setting.by,
        "at": at(setting.at),
    }


def budget_form(row: BudgetRow) -> dict[str, object]:
    """Give a budget as JSON; amounts are decimal strings, as no float is exact."""
    return {
        "scope": row.scope,
        "meter": row.meter,
        "spent": _decimal(row.spent),
        "reserved": _decimal(row.reserved),
        "limit": None if row.limit is None else _decimal(row.limit),
        "left": None if row.left is None else _decimal(row.left),
        "soft": None if row.soft is None else row.soft / UNIT,
        "period_us": row.period_us,
        "turns_at": at(row.turns_at),
    }


def event_form(event: BudgetEvent) -> dict[str, object]:
    """Give what happened to a budget as JSON."""
    return {
        "name": event.name,
        "number": event.number,
        "what": event.what,
        "actor": event.actor,
        "at": at(event.at),
        "execution_id": event.execution_id,
        "limit": None if event.limit is None else _decimal(event.limit),
        "spent": _decimal(event.spent),
    }


def _decimal(amount: int) -> str:
    return shown(amount).replace(",", "")


def finding_form(finding: Finding) -> dict[str, Any]:
    """Write a finding of the doctor."""
    return structs.asdict(finding)


def measures_form(measures: Measures) -> dict[str, Any]:
    """Write what an execution took."""
    return {
        "id": measures.id,
        "task": measures.task,
        "state": measures.state,
        "created_at": at(measures.created_at),
        "started_at": at(measures.started_at),
        "ended_at": at(measures.ended_at),
        "duration_us": measures.duration_us,
        "queued_us": measures.queued_us,
        "run_us": measures.run_us,
        "parked_us": measures.parked_us,
        "by_state_us": {str(state): span for state, span in measures.by_state.items()},
        "attempts": measures.attempts,
        "retries": measures.retries,
        "claims": measures.claims,
        "takeovers": measures.takeovers,
        "cpu_us": measures.cpu_us,
        "memory_bytes": measures.memory_bytes,
        "errors": dict(measures.errors),
        "steps": [
            {
                "key": step.key,
                "ran_us": step.ran_us,
                "tries": [
                    {**structs.asdict(one), "ended_at": at(one.ended_at)} for one in step.tries
                ],
            }
            for step in measures.steps
        ],
    }


def line_form(line: LogLine) -> dict[str, Any]:
    """Write a line that code has logged."""
    return {
        "number": line.number,
        "at": at(line.at),
        "level": line.level,
        "logger": line.logger,
        "message": line.message,
        "step": line.step,
        "attempt": line.attempt,
        "error": line.error,
        "is_cut": line.is_cut,
        "lost": line.lost,
    }


def progress_form(row: ProgressRow | None, *, sees_payloads: bool = True) -> dict[str, Any] | None:
    """Write how far an execution is as JSON; its text may tell of payloads."""
    if row is None:
        return None
    return {
        "done": row.done,
        "total": row.total,
        "text": row.text if sees_payloads else None,
        "step": row.step or None,
        "at": at(row.at),
    }
