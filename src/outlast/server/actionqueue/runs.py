"""Tasks and runs: told in ActionQueue's shapes and orders, cancelled, and the engine paused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from outlast.access import Permission
from outlast.dialects import DIALECTS
from outlast.dialects.actionqueue import RunState
from outlast.dialects.dialect import DialectTransition, project, status_of
from outlast.errors import BadRequest, NotFound, ScheduleRefused, TransitionRefused
from outlast.lifecycle import Execution as Record
from outlast.lifecycle import Kind, State, Transition
from outlast.lifecycle.gate import gates_of
from outlast.naming import SCHEDULE_ORIGIN
from outlast.schedule.record import ScheduleRecord
from outlast.server import veil
from outlast.server.actionqueue.names import (
    ATTEMPT,
    RUN,
    TASK,
    id_of,
    named,
    no_such,
    refusal,
    schedule_id,
    uuid_in,
)
from outlast.server.call import Call, Reply
from outlast.server.system import scrape_metrics
from outlast.store.protocol import Filter

LISTED_MAX: Final = 10_000
LIMIT: Final = 100
LIMIT_MAX: Final = 1_000
_DIALECT: Final = DIALECTS["actionqueue"]
_UNLIMITED: Final = 2**32 - 1


# Reading


async def aq_healthz(call: Call) -> dict[str, str]:
    """Say that the process answers."""
    return {"status": "ok"}


async def aq_ready(call: Call) -> dict[str, str]:
    """Say that the store can be read."""
    await call.read(lambda store: store.counts())
    return {"status": "ready"}


async def aq_metrics(call: Call) -> Reply:
    """Give the metrics of the engine, for Prometheus, by our names."""
    return await scrape_metrics(call)


async def aq_stats(call: Call) -> dict[str, Any]:
    """Count tasks, runs and attempts; of the newest 10,000 executions."""
    records = await _all(call)
    schedules = [one for one in await call.engine.schedules.alist() if call.listed(one.task)]
    states = {_DIALECT.label(word): 0 for word in RunState}
    for word in await states_of(call, records):
        states[_DIALECT.label(word)] += 1
    return {
        "total_tasks": len(schedules) + sum(1 for one in records if _schedule_of(one) is None),
        "total_runs": len(records),
        "attempts_total": sum(one.attempt for one in records),
        "runs_by_state": states,
        "latest_sequence": sum(one.seq for one in records),
    }


async def aq_list_tasks(call: Call) -> dict[str, Any]:
    """List tasks, those of high priority first."""
    limit, offset = _page(call)
    found: list[tuple[int, int, str, Record | ScheduleRecord]] = [
        (-one.priority, one.created_at, id_of(one.id, TASK), one)
        for one in await _all(call)
        if _schedule_of(one) is None
    ]
    planned = [
        (-_priority(one), one.created_at, schedule_id(one.name), one)
        for one in await call.engine.schedules.alist()
        if call.listed(one.task)
    ]
    entries = sorted([*found, *planned], key=lambda entry: entry[:3])[offset : offset + limit]
    tasks = [_task_form(call, one) for _, _, _, one in entries]
    return {"tasks": tasks, "limit": limit, "offset": offset}


async def aq_get_task(call: Call) -> dict[str, Any]:
    """Show a task, with its payload as bytes where the caller may read it."""
    found = await _task(call)
    form = _task_form(call, found)
    sees = call.may(Permission.PAYLOADS_READ, found.task)
    payload: bytes | None = None
    if sees and isinstance(found, ScheduleRecord):
        payload = found.input
    elif sees and isinstance(found, Record):
        id = found.id
        payload = (await call.read(lambda store: store.log(id, 0, 1)))[0].payload
    form["payload"] = list(payload or b"")
    form["content_type"] = "application/json" if payload is not None else None
    return form


async def aq_list_runs(call: Call) -> dict[str, Any]:
    """List runs, by when they were to begin."""
    limit, offset = _page(call)
    records = sorted(await _all(call), key=lambda one: (_scheduled_at(one), one.id))
    shown = records[offset : offset + limit]
    words = await states_of(call, shown)
    runs = [run_form(one, word) for one, word in zip(shown, words, strict=True)]
    return {"runs": runs, "limit": limit, "offset": offset}


async def aq_get_run(call: Call) -> dict[str, Any]:
    """Show a run: its history, its attempts, and who has it."""
    record = await _run(call)
    log = await call.engine.read_log(record.id)
    told = project(_DIALECT, log)
    word = RunState(status_of(_DIALECT, log))
    sees = call.may(Permission.PAYLOADS_READ, record.task)
    attempts = _attempts(record, log, told, sees=sees)
    form = run_form(record, word)
    form["state_history"] = [
        {"from": one.source, "to": one.target, "timestamp": _seconds(one.at)} for one in told
    ]
    form["attempts"] = attempts
    is_open = bool(attempts) and attempts[-1]["finished_at"] is None
    form["current_attempt_id"] = attempts[-1]["attempt_id"] if is_open else None
    form["lease"] = await _lease(call, record)
    terminal = (RunState.COMPLETED, RunState.FAILED, RunState.CANCELED)
    form["block_reason"] = (
        None if word is RunState.READY else "terminal" if word in terminal else _DIALECT.label(word)
    )
    return form


# Acting


async def aq_cancel_task(call: Call) -> dict[str, Any]:
    """Cancel a task: it makes no more runs, and those that are open end."""
    found = await _task(call)
    if isinstance(found, ScheduleRecord):
        origin = SCHEDULE_ORIGIN + found.name
        records = [one for one in await _all(call) if one.origin == origin]
        try:
            await call.engine.schedules.acancel(found.name, actor=call.actor)
            status = "canceled"
        except ScheduleRefused:
            status = "already_canceled"
        id = schedule_id(found.name)
    else:
        records, id = [found], id_of(found.id, TASK)
        status = "already_canceled" if found.state is State.CANCELLED else "canceled"
    canceled = 0
    for record in records:
        if not record.is_final:
            canceled += await _cancel(call, record)
    return {
        "task_id": id,
        "status": status,
        "runs_canceled": canceled,
        "runs_already_terminal": len(records) - canceled,
        "runs_total": len(records),
    }


async def aq_cancel_run(call: Call) -> dict[str, str]:
    """Cancel a run; one that has ended stays as it is."""
    record = await _run(call)
    if record.is_final:
        is_canceled = record.state is State.CANCELLED
        status = "already_canceled" if is_canceled else "already_terminal"
    else:
        status = "canceled" if await _cancel(call, record) else "already_terminal"
    return {"run_id": id_of(record.id, RUN), "status": status}


async def aq_pause_engine(call: Call) -> dict[str, str]:
    """Let nothing be dispatched; what runs goes on."""
    names, paused = await _queues(call)
    for name in names - paused:
        await call.engine.queues.apause(name, "the engine was paused", actor=call.actor)
    return {"status": "already_paused" if names <= paused else "paused"}


async def aq_resume_engine(call: Call) -> dict[str, str]:
    """Let runs be dispatched again."""
    _, paused = await _queues(call)
    for name in paused:
        await call.engine.queues.aresume(name)
    return {"status": "resumed" if paused else "already_resumed"}


async def _queues(call: Call) -> tuple[set[str], set[str]]:
    """Give all queues that there are, and those that are paused."""
    rows = await call.engine.queues.alist()
    names = {one.queue for one in call.engine.tasks.values()} | {one.setting.name for one in rows}
    return names, {one.setting.name for one in rows if one.setting.paused_at is not None}


async def _cancel(call: Call, record: Record) -> int:
    try:
        await call.engine.execution(record.id).acancel(actor=call.actor)
    except TransitionRefused:
        return 0  # it has ended in this very moment
    return 1


# Inside


def _page(call: Call) -> tuple[int, int]:
    """Read which part of a list is asked for.

    Raises:
        BadRequest: a number is none, or out of its bounds.
    """
    numbers = {}
    for name, default, least, most in (
        ("limit", LIMIT, 1, LIMIT_MAX),
        ("offset", 0, 0, LISTED_MAX),
    ):
        text = getattr(call.query, name)
        is_number = text is not None and text.isascii() and text.isdigit() and len(text) <= 9
        value = default if text is None else int(text) if is_number else -1
        if not least <= value <= most:
            said = f"{name} is a number from {least} to {most}"
            raise refusal("invalid_pagination", said, "field", name)
        numbers[name] = value
    return numbers["limit"], numbers["offset"]


async def _all(call: Call) -> list[Record]:
    """Read the newest executions that the caller may see."""
    records: list[Record] = []
    wanted = Filter()
    call.asked = True
    while len(records) < LISTED_MAX:
        found, following = await veil.page(call, wanted, 500)
        records += found
        if following is None or not found:
            break
        wanted = Filter(before_id=found[-1].id)
    return records[:LISTED_MAX]


async def states_of(call: Call, records: Sequence[Record]) -> list[RunState]:
    """Give the states of runs; what a deadline ended is told by the log."""
    logs = await call.read(lambda store: store.logs([one.id for one in records]))
    return [RunState(status_of(_DIALECT, log)) for log in logs]


async def _run(call: Call) -> Record:
    text = uuid_in(call, "run")
    return await _visible(call, named(text, RUN), no_such("run", text))


async def _task(call: Call) -> Record | ScheduleRecord:
    text = uuid_in(call, "task")
    name = named(text, TASK)
    if name is not None:
        return await _visible(call, name, no_such("task", text))
    for one in await call.engine.schedules.alist():
        if schedule_id(one.name) == text and call.identity.rights.see(call.tenant, one.task):
            call.allow(one.task)
            return one
    raise no_such("task", text)


async def _visible(call: Call, name: str | None, none: BadRequest) -> Record:
    """Read an execution, if the caller may do this to it."""
    if name is None:
        raise none
    try:
        record = await call.engine.read_one(name)
    except NotFound:
        raise none from None
    if not call.identity.rights.see(record.tenant, record.task):
        raise none
    call.allow(record.task)
    return record


def _seconds(at: int) -> int:
    return at // 1_000_000


def _scheduled_at(record: Record) -> int:
    due = record.due_at if record.state is State.SCHEDULED else None
    return due if due is not None else record.created_at


def _schedule_of(record: Record) -> str | None:
    origin = record.origin or ""
    return origin.removeprefix(SCHEDULE_ORIGIN) if origin.startswith(SCHEDULE_ORIGIN) else None


def _task_id(record: Record) -> str:
    schedule = _schedule_of(record)
    return id_of(record.id, TASK) if schedule is None else schedule_id(schedule)


def _key_of(record: Record) -> str | None:
    limits = gates_of(record.gates).limits
    return str(limits[0].name) if limits else None


def run_form(record: Record, word: RunState) -> dict[str, Any]:
    """Write a run."""
    return {
        "run_id": id_of(record.id, RUN),
        "task_id": _task_id(record),
        "state": word,
        "created_at": _seconds(record.created_at),
        "scheduled_at": _seconds(_scheduled_at(record)),
        "attempt_count": record.attempt,
        "concurrency_key": _key_of(record),
    }


def _priority(one: ScheduleRecord) -> int:
    priority = one.options.get("priority", 0)
    return priority if isinstance(priority, int) else 0


def _policy(one: ScheduleRecord) -> Any:
    plan = one.plan
    if plan.every_us is not None:
        count = plan.count_max or _UNLIMITED
        return {"Repeat": {"count": count, "interval_secs": _seconds(plan.every_us)}}
    if plan.cron is not None:
        return {"Cron": {"expression": plan.cron, "max_occurrences": plan.count_max}}
    return "Once"


def _task_form(call: Call, one: Record | ScheduleRecord) -> dict[str, Any]:
    if isinstance(one, ScheduleRecord):
        form = _common(call, one, _priority(one), {})
        return {**form, "id": schedule_id(one.name), "run_policy": _policy(one)}
    form = _common(call, one, one.priority, one.labels or {})
    needs = gates_of(one.gates).needs
    form["constraints"]["concurrency_key"] = _key_of(one)
    form["constraints"]["required_capabilities"] = list(needs) or None
    if one.parent_id is not None and veil.sees_all(call):
        form["parent_task_id"] = id_of(one.parent_id, TASK)
    return {**form, "id": id_of(one.id, TASK), "run_policy": "Once"}


def _common(
    call: Call, one: Record | ScheduleRecord, priority: int, labels: Mapping[str, object]
) -> dict[str, Any]:
    code = call.engine.tasks.get(one.task)
    return {
        "constraints": {
            "max_attempts": 1 if code is None else code.policy.retries + 1,
            "timeout_secs": None,
            "concurrency_key": None,
            "concurrency_key_hold_policy": "HoldDuringRetry",
            "safety_level": "Idempotent",
            "required_capabilities": None,
        },
        "metadata": {
            "tags": [one.task, *(f"{name}={value}" for name, value in sorted(labels.items()))],
            "priority": priority,
            "description": one.task,
        },
        "created_at": _seconds(one.created_at),
        "updated_at": _seconds(one.updated_at),
    }


_RESULTS: Final = {
    RunState.COMPLETED: "Success",
    RunState.SUSPENDED: "Suspended",
    RunState.RETRY_WAIT: "Failure",
    RunState.FAILED: "Failure",
}


def _attempts(
    record: Record, log: Sequence[Transition], told: Sequence[DialectTransition], *, sees: bool
) -> list[dict[str, Any]]:
    """Tell the tries: each time that it ran."""
    rows = {row.seq: row for row in log}
    attempts: list[dict[str, Any]] = []
    for hop in told:
        if hop.target is RunState.RUNNING:
            attempts.append(
                {
                    "attempt_id": id_of(record.id, ATTEMPT, len(attempts) + 1),
                    "started_at": _seconds(hop.at),
                    "finished_at": None,
                    "result": None,
                    "error": None,
                }
            )
        elif hop.source is RunState.RUNNING and attempts:
            row = rows[hop.seq]
            said: Any = (row.data or {}).get("error") or {}
            is_late = row.kind is Kind.DEADLINE
            result = _RESULTS.get(RunState(hop.target))
            attempts[-1].update(
                finished_at=_seconds(hop.at),
                result="Timeout" if is_late and result == "Failure" else result,
            )
            if result == "Failure":
                attempts[-1]["error"] = str(said.get("message", "")) if sees else said.get("type")
    return attempts


async def _lease(call: Call, record: Record) -> dict[str, Any] | None:
    """Say who has a run; where a lock proves it, no lease runs out."""
    if record.worker is None:
        return None
    workers = await call.read(lambda store: store.workers())
    row = next((one for one in workers if one.id == record.worker), None)
    expiry = None if row is None or row.expires_at is None else _seconds(row.expires_at)
    return {
        "owner": record.worker,
        "expiry": expiry,
        "acquired_at": _seconds(record.state_at),
        "updated_at": _seconds(record.state_at if row is None else row.seen_at),
    }
