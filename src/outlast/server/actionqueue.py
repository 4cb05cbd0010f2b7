"""ActionQueue's daemon: its routes, its shapes and its words, before our engine.

Theory of operation. A task of ActionQueue is what makes runs. Here that is a schedule, or any other
execution by itself, with one run; a run is an execution. Its ids are UUIDs, so ours, of 100 bits,
are put into one of version 8, and read out of it again: nothing is looked up. States and histories
are those of ``dialects/actionqueue.py``. Lists are in its orders, by whole seconds, and look at the
newest 10,000 executions; whoever has more pages through ``/api/v1``.

What it promised and did not do is done by what stands behind: leases end, roles are asked for at
each route, a cancel reaches what runs, a crash strands nothing.
"""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from outlast.access import Grant, Permission, Role
from outlast.accounts.desk import Desk, checked_subject
from outlast.dialects import DIALECTS
from outlast.dialects.actionqueue import RunState
from outlast.dialects.dialect import DialectTransition, project, status_of
from outlast.engine.acting import deed
from outlast.engine.registry import StartOptions, task
from outlast.engine.remote import Actor
from outlast.errors import BadRequest, NotFound, OutlastError, ScheduleRefused, TransitionRefused
from outlast.lifecycle import Execution as Record
from outlast.lifecycle import Kind, State, Transition
from outlast.lifecycle.gate import gates_of
from outlast.naming import SCHEDULE_ORIGIN
from outlast.schedule.record import ScheduleRecord
from outlast.server import veil
from outlast.server.call import Call, Reply
from outlast.server.problem import status_of as status_of_error
from outlast.server.route import Route, Scope, Style
from outlast.server.work import desk_of
from outlast.store.protocol import Filter

HOME: Final = "/actionqueue"
LISTED_MAX: Final = 10_000
LIMIT: Final = 100
LIMIT_MAX: Final = 1_000
_DIALECT: Final = DIALECTS["actionqueue"]
_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_SCHEDULES: Final = uuid.UUID("5c0e1c5e-7a0c-5f0e-8b7e-6f75746c6173")
_TASK, _RUN, _ATTEMPT = 1, 2, 3
_LOW: Final = (1 << 62) - 1
_UNLIMITED: Final = 2**32 - 1


# Refusals


class ErrorForm(msgspec.Struct):
    """What went wrong, in ActionQueue's words."""

    error: str
    message: str
    details: dict[str, Any]


class Refusal(BadRequest):
    """What ActionQueue refuses by a word of its own."""

    def __init__(self, word: str, message: str, details: dict[str, Any], status: int = 400) -> None:
        super().__init__(message, status=status)
        self.word, self.details = word, details


def _written(error: OutlastError, instance: str) -> ErrorForm:
    if isinstance(error, Refusal):
        return ErrorForm(error.word, error.what, error.details)
    if status_of_error(error) == 500:
        return ErrorForm("internal_error", "the server met an error that is not yours", {})
    return ErrorForm(error.code, error.what, {})


STYLE: Final = Style(form=ErrorForm, media="application/json", write=_written)


# Names


def id_of(name: str, kind: int, number: int = 0) -> str:
    """Write the id of an execution as a UUID of version 8: as a task, a run or an attempt."""
    bits = 0
    for digit in name.removeprefix("ex_"):
        bits = bits << 5 | _DIGITS.index(digit)
    body = bits << 22 | kind << 18 | number  # 122 bits: 100, 4 and 18
    high, middle, low = body >> 74, body >> 62 & 0xFFF, body & _LOW
    return str(uuid.UUID(int=high << 80 | 8 << 76 | middle << 64 | 2 << 62 | low))


def named(text: str, kind: int) -> str | None:
    """Read the id of an execution out of such a UUID; None where there is none in it.

    Raises:
        ValueError: it is no UUID.
    """
    number = uuid.UUID(text).int
    if number >> 76 & 15 != 8 or number >> 62 & 3 != 2:
        return None
    body = (number >> 80) << 74 | (number >> 64 & 0xFFF) << 62 | number & _LOW
    if body >> 18 & 15 != kind or body & 0x3FFFF:
        return None
    bits = body >> 22
    return "ex_" + "".join(_DIGITS[bits >> shift & 31] for shift in range(95, -5, -5))


def schedule_id(name: str) -> str:
    """Give the id of a schedule as a task."""
    return str(uuid.uuid5(_SCHEDULES, name))


def _uuid(call: Call, what: str) -> str:
    """Give the UUID that the path names, in the usual spelling.

    Raises:
        Refusal: it is none, or nil.
    """
    text = call.path["uuid"]
    try:
        found = uuid.UUID(text)
    except ValueError:
        found = uuid.UUID(int=0)
    if not found.int or str(found) != text.lower():
        said = f"{text[:80]!a} is no id of {what}"
        raise Refusal(f"invalid_{what}_id", said, {f"{what}_id": text[:80]})
    return str(found)


def _none(what: str, id: str) -> Refusal:
    said = f"there is no {what} {id}"
    return Refusal(f"{what}_not_found", said, {f"{what}_id": id}, 404)


# Forms


class TaskForm(msgspec.Struct, omit_defaults=True):
    """A task: a schedule, or an execution that no schedule has made."""

    id: str
    run_policy: Any
    constraints: dict[str, Any]
    metadata: dict[str, Any]
    created_at: int
    updated_at: int | None
    parent_task_id: str | None = None
    payload: list[int] | msgspec.UnsetType = msgspec.UNSET
    content_type: str | msgspec.UnsetType | None = msgspec.UNSET


class TaskPage(msgspec.Struct):
    """Tasks, by priority, the highest first, then by age."""

    tasks: list[TaskForm]
    limit: int
    offset: int


class RunForm(msgspec.Struct):
    """A run: an execution."""

    run_id: str
    task_id: str
    state: RunState
    created_at: int
    scheduled_at: int
    attempt_count: int
    concurrency_key: str | None


class RunPage(msgspec.Struct):
    """Runs, by when they were to begin."""

    runs: list[RunForm]
    limit: int
    offset: int


class HopForm(msgspec.Struct, rename={"source": "from", "target": "to"}):
    """A transition of a run."""

    source: str | None
    target: str
    timestamp: int


class AttemptForm(msgspec.Struct):
    """A try of a run; its result is ``Success``, ``Failure``, ``Timeout`` or ``Suspended``."""

    attempt_id: str
    started_at: int
    finished_at: int | None
    result: str | None
    error: str | None


class LeaseForm(msgspec.Struct):
    """Who has the run, and until when."""

    owner: str
    expiry: int | None
    acquired_at: int
    updated_at: int


class RunDetail(RunForm):
    """A run, with what happened to it."""

    current_attempt_id: str | None
    state_history: list[HopForm]
    attempts: list[AttemptForm]
    lease: LeaseForm | None
    block_reason: str | None


class StatsForm(msgspec.Struct):
    """How much there is."""

    total_tasks: int
    total_runs: int
    attempts_total: int
    runs_by_state: dict[str, int]
    latest_sequence: int


class StatusForm(msgspec.Struct):
    """What became of it."""

    status: str


class TaskCancelForm(msgspec.Struct):
    """What became of a task's runs."""

    task_id: str
    status: str
    runs_canceled: int
    runs_already_terminal: int
    runs_total: int


class RunCancelForm(msgspec.Struct):
    """What became of a run."""

    run_id: str
    status: str


class PageQuery(msgspec.Struct):
    """Which part of a list: at most 1,000 at once."""

    limit: str | None = None
    offset: str | None = None


# Reading


async def aq_healthz(call: Call) -> dict[str, str]:
    """Say that the process answers."""
    return {"status": "ok"}


async def aq_ready(call: Call) -> dict[str, str]:
    """Say that the store can be read."""
    await call.read(lambda store: store.counts())
    return {"status": "ready"}


async def aq_stats(call: Call) -> dict[str, Any]:
    """Count tasks, runs and attempts; of the newest 10,000 executions."""
    records = await _all(call)
    schedules = [one for one in await call.engine.schedules.alist() if call.listed(one.task)]
    states = {_DIALECT.label(word): 0 for word in RunState}
    for word in await _states(call, records):
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
        (-one.priority, one.created_at, id_of(one.id, _TASK), one)
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
    words = await _states(call, shown)
    runs = [_run_form(one, word) for one, word in zip(shown, words, strict=True)]
    return {"runs": runs, "limit": limit, "offset": offset}


async def aq_get_run(call: Call) -> dict[str, Any]:
    """Show a run: its history, its attempts, and who has it."""
    record = await _run(call)
    log = await call.engine.read_log(record.id)
    told = project(_DIALECT, log)
    word = RunState(status_of(_DIALECT, log))
    sees = call.may(Permission.PAYLOADS_READ, record.task)
    attempts = _attempts(record, log, told, sees=sees)
    form = _run_form(record, word)
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
        records, id = [found], id_of(found.id, _TASK)
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
    return {"run_id": id_of(record.id, _RUN), "status": status}


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
        Refusal: a number is none, or out of its bounds.
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
            raise Refusal(
                "invalid_pagination", f"{name} is a number from {least} to {most}", {"field": name}
            )
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


async def _states(call: Call, records: Sequence[Record]) -> list[RunState]:
    """Give the states of runs; what a deadline ended is told by the log."""
    logs = await call.read(lambda store: store.logs([one.id for one in records]))
    return [RunState(status_of(_DIALECT, log)) for log in logs]


async def _run(call: Call) -> Record:
    text = _uuid(call, "run")
    return await _visible(call, named(text, _RUN), _none("run", text))


async def _task(call: Call) -> Record | ScheduleRecord:
    text = _uuid(call, "task")
    name = named(text, _TASK)
    if name is not None:
        return await _visible(call, name, _none("task", text))
    for one in await call.engine.schedules.alist():
        if schedule_id(one.name) == text and call.identity.rights.see(call.tenant, one.task):
            call.allow(one.task)
            return one
    raise _none("task", text)


async def _visible(call: Call, name: str | None, none: Refusal) -> Record:
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
    return id_of(record.id, _TASK) if schedule is None else schedule_id(schedule)


def _key_of(record: Record) -> str | None:
    limits = gates_of(record.gates).limits
    return str(limits[0].name) if limits else None


def _run_form(record: Record, word: RunState) -> dict[str, Any]:
    return {
        "run_id": id_of(record.id, _RUN),
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
        form["parent_task_id"] = id_of(one.parent_id, _TASK)
    return {**form, "id": id_of(one.id, _TASK), "run_policy": "Once"}


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
                    "attempt_id": id_of(record.id, _ATTEMPT, len(attempts) + 1),
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


# Actors: workers that say who they are, and take steps for other machines (``/api/v1/claims``)


class _In(msgspec.Struct, forbid_unknown_fields=True):
    """A body; what it has more than its form is refused."""


Word = Annotated[str, Meta(min_length=1, max_length=128)]
Id = Annotated[str, Meta(min_length=36, max_length=36)]


class ActorBody(_In):
    """An actor: its capabilities are the steps that it can run."""

    identity: Word
    capabilities: Annotated[list[Word], Meta(min_length=1, max_length=100)]
    heartbeat_interval_secs: Annotated[int, Meta(ge=1, le=86_400)]
    actor_id: Id | None = None
    department: Word | None = None
    tenant_id: Id | None = None


class ActorForm(msgspec.Struct):
    """Who was registered."""

    actor_id: str


class ClaimableForm(msgspec.Struct):
    """The runs that have a step which the actor can run."""

    runs: list[RunForm]


class RoleBody(_In):
    """A role for the user that the actor's identity names."""

    role: Word
    tenant_id: Id | None = None


class CapabilityBody(_In):
    """What the user that the actor's identity names may do."""

    capability: Word
    tenant_id: Id | None = None


class LedgerBody(_In):
    """An entry of the ledger; nothing ever changes or deletes one."""

    ledger_key: Word
    payload_base64: Annotated[str, Meta(max_length=1_000_000)]
    actor_id: Id | None = None
    tenant_id: Id | None = None


class EntryForm(msgspec.Struct):
    """What was entered."""

    entry_id: str


ROLES: Final = {"Operator": Role.OPERATOR, "Auditor": Role.AUDITOR, "Gatekeeper": Role.OPERATOR}
CAPABILITIES: Final = {
    "CanSubmit": Role.SUBMITTER,
    "CanExecute": Role.WORKER,
    "CanReview": Role.PAYLOAD_READER,
    "CanApprove": Role.OPERATOR,
    "CanCancel": Role.OPERATOR,
}


@task(name="outlast.ledger", retention=None)
async def ledger(ledger_key: str, payload_base64: str, actor_id: str | None) -> int:
    """Keep an entry of the ledger: its input is the entry. Gives how long its payload is."""
    return len(base64.b64decode(payload_base64))


async def aq_register_actor(call: Call) -> dict[str, str]:
    """Register an actor; again under the same id, it is the same one, with what is said now."""
    body = call.body
    id = str(uuid.uuid4()) if body.actor_id is None else _checked_id(body.actor_id, "actor")
    call.asked = True
    actor = Actor(
        id, body.identity, tuple(body.capabilities), body.heartbeat_interval_secs, call.actor
    )
    desk_of(call).register(actor)
    return {"actor_id": id}


async def aq_beat_actor(call: Call) -> dict[str, str]:
    """Take an actor's sign of life."""
    desk_of(call).register(_actor(call))
    return {"status": "ok"}


async def aq_remove_actor(call: Call) -> dict[str, str]:
    """Let an actor go; what it has goes to others."""
    desk_of(call).remove(_actor(call).id)
    return {"status": "ok"}


async def aq_claimable(call: Call) -> dict[str, Any]:
    """List the runs that have a step for this actor; it claims them by ``/api/v1/claims``."""
    actor = _actor(call)
    found = desk_of(call).on_offer(actor.capabilities)
    records = [await call.engine.read_one(id) for id in found[:LIMIT]]
    seen = [one for one in records if call.listed(one.task)]
    words = await _states(call, seen)
    return {"runs": [_run_form(one, word) for one, word in zip(seen, words, strict=True)]}


async def aq_give_role(call: Call) -> None:
    """Give a role to the user that an actor's identity names."""
    await _give(call, ROLES.get(call.body.role), call.body.role, "role")


async def aq_give_capability(call: Call) -> None:
    """Let the user that an actor's identity names do something."""
    await _give(call, CAPABILITIES.get(call.body.capability), call.body.capability, "capability")


async def aq_append_ledger(call: Call) -> Reply:
    """Append an entry to the ledger: an execution that is kept for ever, sealed as all others."""
    body = call.body
    call.allow(ledger.name)
    try:
        base64.b64decode(body.payload_base64, validate=True)
    except binascii.Error:
        raise Refusal("invalid_payload", "payload_base64 is not base64", {}) from None
    options = StartOptions(actor=call.actor, labels={"ledger_key": body.ledger_key})
    given = (body.ledger_key, body.payload_base64, body.actor_id)
    record, _ = await call.engine.astart_row(options, ledger, given, {})
    return Reply({"entry_id": id_of(record.id, _RUN)}, 201)


async def _give(call: Call, role: Role | None, word: str, what: str) -> None:
    actor = desk_of(call).actor(_uuid(call, "actor"))
    if actor is None:
        raise _none("actor", call.path["uuid"])
    if role is None:
        try:
            role = Role(word)
        except ValueError:
            said = f"there is no {what} {word!a}"
            raise Refusal(f"unknown_{what}", said, {what: word}) from None
    done = deed()
    assert done is not None
    grant = Grant(role, tenant=call.tenant)
    access = call.engine.store.access
    subject = checked_subject(f"user:{actor.identity}")
    await call.engine.journal.call(lambda: Desk(access).give(subject, grant, done))


def _actor(call: Call) -> Actor:
    """Give the actor that the path names, to who has registered it."""
    call.asked = True
    id = _uuid(call, "actor")
    actor = desk_of(call).actor(id)
    if actor is None or actor.registered_by != call.actor:
        raise _none("actor", id)
    return actor


def _checked_id(text: str, what: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        said = f"{text!a} is no id"
        raise Refusal(f"invalid_{what}_id", said, {f"{what}_id": text}) from None


# The table

P, S = Permission, Scope


def _route(method: str, path: str, handler: Any, answer: Any, **more: Any) -> Route:
    more = {"permission": P.EXECUTIONS_READ, "scope": S.LISTED, "tag": "actionqueue", **more}
    return Route(
        method=method, path=HOME + path, handler=handler, answer=answer, style=STYLE, **more
    )


_ANYONE: Final[dict[str, Any]] = {"permission": P.ANYONE, "scope": S.NONE}
_WORK: Final[dict[str, Any]] = {"permission": P.WORK_TAKE}
_SET: Final[dict[str, Any]] = {"permission": P.ACCESS_WRITE, "scope": S.TENANT}
_OPERATE: Final[dict[str, Any]] = {"permission": P.EXECUTIONS_OPERATE, "scope": S.TASK}
_PAUSE: Final[dict[str, Any]] = {"permission": P.CAPACITY_WRITE, "scope": S.TENANT}
_V1, _V2 = "/api/v1", "/api/v2"

ROUTES: Final = (
    _route("GET", "/healthz", aq_healthz, StatusForm, **_ANYONE),
    _route("GET", "/ready", aq_ready, StatusForm, **_ANYONE),
    _route("GET", _V1 + "/stats", aq_stats, StatsForm),
    _route("GET", _V1 + "/tasks", aq_list_tasks, TaskPage, query=PageQuery),
    _route("GET", _V1 + "/tasks/{uuid}", aq_get_task, TaskForm, scope=S.TASK),
    _route("GET", _V1 + "/runs", aq_list_runs, RunPage, query=PageQuery),
    _route("GET", _V1 + "/runs/{uuid}", aq_get_run, RunDetail, scope=S.TASK),
    _route("POST", _V1 + "/tasks/{uuid}/cancel", aq_cancel_task, TaskCancelForm, **_OPERATE),
    _route("POST", _V1 + "/runs/{uuid}/cancel", aq_cancel_run, RunCancelForm, **_OPERATE),
    _route("POST", _V1 + "/engine/pause", aq_pause_engine, StatusForm, **_PAUSE),
    _route("POST", _V1 + "/engine/resume", aq_resume_engine, StatusForm, **_PAUSE),
    _route("POST", _V2 + "/actors/register", aq_register_actor, ActorForm, body=ActorBody,
           status=201, **_WORK),
    _route("POST", _V2 + "/actors/{uuid}/heartbeat", aq_beat_actor, StatusForm, **_WORK),
    _route("DELETE", _V2 + "/actors/{uuid}", aq_remove_actor, StatusForm, **_WORK),
    _route("GET", _V2 + "/actors/{uuid}/claimable", aq_claimable, ClaimableForm, **_WORK),
    _route("POST", _V2 + "/actors/{uuid}/roles", aq_give_role, None, body=RoleBody, status=204,
           **_SET),
    _route("POST", _V2 + "/actors/{uuid}/capabilities", aq_give_capability, None,
           body=CapabilityBody, status=204, **_SET),
    _route("POST", _V2 + "/ledger", aq_append_ledger, EntryForm, body=LedgerBody, status=201,
           permission=P.EXECUTIONS_START, scope=S.TASK),
)  # fmt: skip
"""ActionQueue's routes, as its daemon had them, and as it should have had them."""

__all__ = ["HOME", "ROUTES", "STYLE", "ErrorForm", "id_of", "named", "schedule_id"]
