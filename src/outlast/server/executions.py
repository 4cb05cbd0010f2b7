"""What is read of executions, and how they are started."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET

from outlast import forms
from outlast.access import Permission
from outlast.budget import Budget
from outlast.dialects import DIALECTS, Dialect, is_final, project, status_of
from outlast.duration import microseconds, microseconds_of
from outlast.engine.primitives.publishing import NAME as EVENT
from outlast.engine.read.birth import birth_in
from outlast.engine.read.logs import is_of, line_of
from outlast.engine.read.measures import measures_of
from outlast.engine.read.stream import ITEMS_MAX
from outlast.engine.task.after import After
from outlast.engine.task.registry import StartOptions, Task
from outlast.errors import (
    BadPayload,
    KeyConflict,
    NotFound,
    UnknownTask,
    WaitTimeout,
    WrongArguments,
)
from outlast.lifecycle import OPEN, State, Transition, reason_of
from outlast.lifecycle import Execution as Record
from outlast.lifecycle.record import continued_as
from outlast.naming import SCHEDULE_ORIGIN, checked_name
from outlast.server import veil
from outlast.server.call import (
    KEY_PREFIX,
    Call,
    Reply,
    asked_id,
    checked_id,
    checked_word,
    no_execution,
)
from outlast.server.shapes import ListQuery, OwnBudgetBody, StartBody, TaskStartBody
from outlast.server.strict import unfit
from outlast.server.webhook import NAME, begin, checked_url
from outlast.store.protocol import LOGS, Filter
from outlast.story import story_of

if TYPE_CHECKING:
    from outlast.engine.engine import Engine
    from outlast.store.protocol import Store

WAIT_US_MAX: Final = 60_000_000
FOUND_MAX: Final = 20
RESERVED: Final = (KEY_PREFIX, f"{NAME}:", f"{EVENT}:")
"""What keys begin with that callers may not choose."""
_TRACE: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
TRACE: Final = "traceparent"
"""The label that keeps where a trace comes from."""


# Starting


async def start_execution(call: Call) -> Reply:
    """Start an execution.

    The same key, or Idempotency-Key, with the same task and input means the same execution:
    it is answered again, with status 200.
    """
    body: StartBody = call.body
    name = _one_of(body, "task", "workflow_id")
    if name is UNSET:
        raise unfit("$.task", "the body names no task", "body")
    given = _one_of(body, "input", "input_data")
    return await _start(call, str(name), {} if given is UNSET else given, body)


async def start_task(call: Call) -> Reply:
    """Start an execution of this task."""
    name = checked_word(call.path["name"], "task")
    return await _start(call, name, call.body.input, call.body)


async def _start(
    call: Call, name: str, given: dict[str, Any], body: StartBody | TaskStartBody
) -> Reply:
    call.allow(name)
    task = task_of(call.engine, name)
    args, kwargs = arguments(task, given)
    key = own_key(body.key)
    if call.key is not None:
        if key is not None:
            raise unfit("$.key", "a key stands here, and another one in Idempotency-Key", "body")
        key = call.key
    if body.origin is not None and body.origin.startswith((SCHEDULE_ORIGIN, f"{NAME}:")):
        # It would count as open of that schedule, which then leaves out its slots.
        raise unfit("$.origin", "only a schedule, or a webhook, starts with such an origin", "body")
    if body.delay is not None and body.start_at is not None:
        raise unfit("$.delay", "delay and start_at say the same thing", "body")
    options = StartOptions(
        key=key,
        delay_us=_span(body.delay),
        start_at=None
        if body.start_at is None
        else microseconds_of(aware(body.start_at, "start_at")),
        deadline_us=_span(body.timeout),
        queue_timeout_us=_span(body.queue_timeout),
        attempt_timeout_us=_span(body.attempt_timeout),
        priority=body.priority,
        queue=body.queue,
        actor=call.actor,
        origin=body.origin or "http",
        after=tuple(After(one.id, one.need, one.or_else) for one in body.after),
        budget=_budget(body.budget),
        labels=_traced(call, body.labels),
    )
    urls = [checked_url(url, f"$.notify[{place}]") for place, url in enumerate(body.notify)]
    await _see_upstream(call, [one.id for one in body.after])
    with hiding_holders(call):
        record, is_new = await call.engine.astart_row(options, task, args, kwargs)
    if record.task != name:
        raise KeyConflict(f'the key "{key}" is taken by another task')
    for number, url in enumerate(urls):
        await begin(call.engine, record.id, url, number, call.actor)
    headers = {"location": f"/api/v1/executions/{record.id}", "etag": etag_of(record)}
    if not is_new:
        headers["idempotency-replayed"] = "true"
    return Reply(row(call, record), 201 if is_new else 200, headers)


@contextlib.contextmanager
def hiding_holders(call: Call) -> Iterator[None]:
    """Name no holder of a key to who may not see all executions: it may be one of those.

    Raises:
        KeyConflict: without the holder's id and task.
    """
    try:
        yield
    except KeyConflict as error:
        if veil.sees_all(call):
            raise
        raise KeyConflict(error.what, why=error.why, do=error.do) from None


def own_key(key: str | None) -> str | None:
    """Give a key of a body back, having seen that it is not one that is made here.

    Raises:
        BadPayload: it stands for somebody's Idempotency-Key, or for a webhook.
    """
    if key is not None and key.startswith(RESERVED):
        raise unfit("$.key", "keys that begin so are the server's own", "body")
    return key


async def _see_upstream(call: Call, ids: Sequence[str]) -> None:
    """See that the caller may know how the executions end which a new one shall wait for.

    Raises:
        NotFound: one is not there, or must not be seen; the same words for both.
    """
    for id in ids:
        try:
            record = await call.engine.read_one(checked_id(id))
        except NotFound:
            raise no_execution(id) from None
        if not call.may(Permission.EXECUTIONS_READ, record.task):
            raise no_execution(id)


def _one_of(body: Any, name: str, other: str) -> Any:
    """Give the value that stands under one of two names."""
    one, two = getattr(body, name), getattr(body, other)
    if one is not UNSET and two is not UNSET:
        raise unfit(f"$.{other}", f"{name} and {other} say the same thing", "body")
    return two if one is UNSET else one


def _traced(call: Call, labels: dict[str, str]) -> dict[str, str] | None:
    """Keep where the caller's trace comes from; what is no traceparent is passed over."""
    said = call.headers.get("traceparent", "")
    if _TRACE.fullmatch(said):
        labels = {TRACE: said, **labels}
    return labels or None


def task_of(engine: Engine, name: str) -> Task[Any, Any]:
    """Give the task of a name.

    Raises:
        UnknownTask: the engine does not have it.
    """
    task = engine.tasks.get(name)
    if task is None:
        raise UnknownTask(
            f'there is no task "{name[:80]}"',
            where="$.task",
            why="the engine behind this server does not know it",
            do="GET /api/v1/tasks",
        )
    return task


def arguments(
    task: Task[Any, Any], given: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Read a task's arguments from JSON, by name.

    Raises:
        WrongArguments: one is missing, or one too many.
        BadPayload: one is not of its parameter's type.
    """
    signature = task.input.signature
    strange = next((name for name in given if name not in signature.parameters), None)
    if strange is not None:
        raise WrongArguments(
            f"{task.name} has no parameter {strange[:80]!a}",
            where=f"$.input.{strange[:80]}",
            why=f"{task.name}{signature}",
            do=f"GET /api/v1/tasks/{task.name}",
        )
    try:
        return task.input.unbind(msgspec.json.encode(given))
    except BadPayload as error:
        if "missing required field" in error.why:
            raise WrongArguments(
                f"{task.name}: {error.why}", where="$.input", do=f"GET /api/v1/tasks/{task.name}"
            ) from None
        part = error.what.partition(":")[0]
        path = "$.input" if part == "the input" else f"$.input.{part}"
        raise unfit(path, error.why, "body") from None


def aware(at: Any, name: str) -> Any:
    """Give an instant back, having seen that it has a time zone.

    Raises:
        BadPayload: it has none.
    """
    if at.tzinfo is None:
        raise unfit(f"$.{name}", "it has no time zone", "body")
    return at


def _budget(body: OwnBudgetBody | None) -> Budget | None:
    if body is None:
        return None
    return Budget(scope=body.scope, soft=body.soft, **body.limits)


@lru_cache(256)  # callers name the same few spans
def _span(text: str | None) -> int | None:
    return None if text is None else microseconds(text)


# Reading


def row(call: Call, record: Record, reason: Any = None) -> dict[str, Any]:
    """Write a row, as far as the caller may see it."""
    sees = call.may(Permission.PAYLOADS_READ, record.task)
    return forms.row_form(record, reason, sees_payloads=sees)


def etag_of(record: Record) -> str:
    """Name the version of a row."""
    return f'"{record.seq}.{record.inbox_count}"'


async def list_executions(call: Call) -> Reply:
    """List executions, the newest first."""
    query: ListQuery = call.query
    if query.find is not None:
        return await _found(call, query.find, query.limit)
    wanted = Filter(
        states=states_of(query.state),
        task=query.task,
        origin=query.origin if query.schedule is None else SCHEDULE_ORIGIN + query.schedule,
        parent_id=asked_id(query.parent, "parent"),
        roots=query.roots,
        labels=labels_of(query.label),
        created_after=_instant(query.created_after, "created_after"),
        created_before=_instant(query.created_before, "created_before"),
        before_id=await _before(call),
    )
    shown, following = await veil.page(call, wanted, query.limit)
    call.asked = True
    items = [row(call, record) for record in shown]
    if query.dialect is not None:
        dialect = DIALECTS[query.dialect]
        logs = await call.read(lambda store: store.logs([record.id for record in shown]))
        for item, log in zip(items, logs, strict=True):
            item["dialect"] = _in_words(dialect, log)
    return Reply({"items": items, "next": following}, headers=_link(following))


async def _found(call: Call, text: str, limit: int) -> Reply:
    """Give the executions whose ids begin, or end, with a text."""

    def look(store: Store) -> list[Record | None]:
        return store.get(store.find(text, min(limit, FOUND_MAX)))

    found = [one for one in await call.read(look) if one is not None and call.listed(one.task)]
    call.asked = True
    return Reply({"items": [row(call, one) for one in found], "next": None})


def _link(following: str | None) -> dict[str, str]:
    return {} if following is None else {"link": f'<?cursor={following}>; rel="next"'}


async def get_execution(call: Call) -> Reply:
    """Show an execution: its state, why it is there, and what it carries."""
    record = call.row
    tag = etag_of(record)
    reason = await call.engine.read_standing(record)
    form = row(call, record, reason)
    if call.query.dialect is not None:
        log = await call.engine.read_log(record.id)
        form["dialect"] = _in_words(DIALECTS[call.query.dialect], log)
    return Reply(form, headers={"etag": tag})


async def get_input(call: Call) -> dict[str, Any]:
    """Show what an execution was started with."""
    log = await call.read(lambda store: store.log(call.row.id, 0, 1))
    return {"id": call.row.id, "input": forms.raw(birth_in(call.row.id, log).payload)}


async def get_result(call: Call) -> Reply:
    """Show what an execution came to; with ``wait``, wait for its end first.

    While it goes on, also as another, the answer is 202, with its state.
    """
    record = call.row
    wait = _span(call.query.wait)
    if wait and (not record.is_final or continued_as(record) is not None):
        with contextlib.suppress(WaitTimeout):
            await call.execution.await_(min(wait, WAIT_US_MAX) / 1e6)
        await call.see_still()
        record = await call.engine.read_one(record.id)
    while (successor := continued_as(record)) is not None:
        record = await call.engine.read_one(successor)
        if not record.is_final:
            break
    form: dict[str, Any] = {"id": record.id, "state": record.state, "result": None, "failure": None}
    if record.id != call.row.id:
        form["continued_as"] = record.id
    if not record.is_final:
        return Reply(form, 202, {"retry-after": "1"})
    last = (await call.engine.read_log(record.id, record.seq - 1))[-1]
    return Reply({**form, **forms.outcome_form(record, last)})


async def get_reason(call: Call) -> dict[str, Any]:
    """Say why an execution is not moving, and what to do about it."""
    record = call.row
    seen = record if call.sees_payloads else forms.veiled_record(record)
    reason = await call.engine.read_standing(record) or reason_of(seen)
    return {"id": record.id, "state": record.state, "reason": forms.reason_form(reason)}


async def list_steps(call: Call) -> dict[str, Any]:
    """List the steps of an execution, in the order in which they were noted."""
    sees = call.sees_payloads
    if call.query.payload:
        call.allow(call.row.task, Permission.PAYLOADS_READ)
    items = []
    for form in forms.story_form(await _story(call)):
        if not call.query.payload:
            del form["payload"], form["progress"]
        if not sees:
            form["failures"] = [{**one, "message": None} for one in form["failures"]]
        items.append(form)
    return {"items": items}


async def list_attempts(call: Call) -> dict[str, Any]:
    """List the attempts of the steps, in the order of the steps."""
    sees = call.sees_payloads
    items = [
        {**one, "message": one["message"] if sees else None}
        for one in forms.attempts_form(await _story(call))
    ]
    return {"items": items}


async def _story(call: Call) -> Any:
    id = call.row.id
    return story_of(id, await call.engine.read_log(id))


async def list_transitions(call: Call) -> dict[str, Any]:
    """List the rows of an execution's log, in order; or those of another system's."""
    query, id = call.query, call.row.id
    if query.payload:
        call.allow(call.row.task, Permission.PAYLOADS_READ)
    if query.dialect is not None:
        told = project(DIALECTS[query.dialect], await call.engine.read_log(id))
        wanted = [one for one in told if one.seq > query.after_seq]
        items = [forms.told_form(DIALECTS[query.dialect], one) for one in wanted[: query.limit]]
        # A row of ours may be told as several of theirs: a page ends between two rows.
        while len(wanted) > query.limit and items and wanted[len(items)].seq == items[-1]["seq"]:
            items.pop()
        if not items and wanted:
            items = [
                forms.told_form(DIALECTS[query.dialect], one)
                for one in wanted
                if one.seq == wanted[0].seq
            ]
        more = len(items) < len(wanted)
        return {"items": items, "next": items[-1]["seq"] if more else None}
    rows = await call.read(lambda store: store.log(id, query.after_seq, query.limit + 1))
    shown = rows[: query.limit]
    return {
        "items": [forms.log_form(one, payload=query.payload) for one in shown],
        "next": shown[-1].seq if len(rows) > query.limit else None,
    }


async def list_children(call: Call) -> Reply:
    """List the children of an execution, the newest first."""
    wanted = Filter(parent_id=call.row.id, before_id=await _before(call))
    shown, following = await veil.page(call, wanted, call.query.limit)
    items = [row(call, one) for one in shown]
    return Reply({"items": items, "next": following}, headers=_link(following))


async def _before(call: Call) -> str | None:
    """Give where the page that is asked for begins."""
    return asked_id(await veil.opened(call.engine, call.query.cursor), "cursor")


async def list_descents(call: Call) -> dict[str, Any]:
    """Say of what an execution was made, and what was made of it, as far as one may see it."""
    found = await call.read(lambda store: store.descents([call.row.id]))
    if not veil.sees_all(call):
        ids = sorted({id for one in found for id in (one.id, one.source_id)})
        seen = await veil.seen_executions(call, ids)
        found = [one for one in found if one.id in seen and one.source_id in seen]
    return {"items": [forms.descent_form(one) for one in found]}


async def list_streams(call: Call) -> dict[str, Any]:
    """Name the streams of an execution."""
    heads = await call.engine.read_streams(call.row.id)
    items = [{"name": one.name, "count": one.count, "at": forms.at(one.at)} for one in heads]
    return {"items": items}


async def get_stream(call: Call) -> dict[str, Any]:
    """Read a stream of an execution from behind an item on."""
    query, name = call.query, checked_word(call.path["name"], "stream")
    items = await call.engine.read_stream(call.row.id, name, query.after, query.limit + 1)
    shown = items[: query.limit]
    following = shown[-1].number if len(items) > query.limit else None
    return {"items": [forms.item_form(one) for one in shown], "next": following}


async def get_metrics(call: Call) -> dict[str, Any]:
    """Say what an execution took: times by state and step, attempts, resources, errors."""
    log = await call.engine.read_log(call.row.id)
    return forms.measures_form(measures_of(call.row.id, log, call.engine.clock.now()))


async def get_logs(call: Call) -> dict[str, Any]:
    """Read what an execution's code has logged, from behind a line on."""
    query, after = call.query, call.query.after
    shown: list[dict[str, Any]] = []
    for _ in range(LOG_PAGES_MAX):
        items = await call.engine.read_stream(call.row.id, LOGS, after, ITEMS_MAX)
        for item in items:
            line = line_of(item)
            if is_of(line, query.step):
                if len(shown) == query.limit:
                    return {"items": shown, "next": after}
                shown.append(forms.line_form(line))
            after = item.number
        if len(items) < ITEMS_MAX:
            return {"items": shown, "next": None}
    return {"items": shown, "next": after}


async def get_progress(call: Call) -> dict[str, Any]:
    """Say how far an execution is, in its own words."""
    said = await call.engine.read_progress(call.row.id)
    form = forms.progress_form(said, sees_payloads=call.sees_payloads)
    return {"id": call.row.id, "progress": form}


async def get_budget(call: Call) -> dict[str, Any]:
    """Show an execution's own budgets."""
    from outlast.engine.control.budgets import own_scopes

    rows = await call.engine.read_budgets(own_scopes(call.row.id))
    return {"items": [forms.budget_form(one) for one in rows]}


LOG_PAGES_MAX: Final = 20
"""How much of a log is looked through for the lines of one step, in one request."""


def _in_words(dialect: Dialect, log: Sequence[Transition]) -> dict[str, Any]:
    status = status_of(dialect, log)
    return {
        "name": dialect.name,
        "status": status,
        "is_final": is_final(dialect, status),
        "number": dialect.numbers[status] if dialect.numbers else None,
    }


def states_of(words: Sequence[str]) -> tuple[State, ...]:
    """Read states.

    Raises:
        BadPayload: one is none.
    """
    wanted: list[State] = []
    for word in (part for one in words for part in one.split(",")):
        if word == "open":
            wanted += OPEN
        elif word in list(State):
            wanted.append(State(word))
        else:
            raise unfit("$.state", f"there is no state {word[:40]!a}", "query")
    return tuple(dict.fromkeys(wanted))


def labels_of(words: Sequence[str]) -> dict[str, str]:
    """Read labels to look for.

    Raises:
        BadPayload: one is not NAME=VALUE.
    """
    labels = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise unfit("$.label", "a label is NAME=VALUE", "query")
        labels[checked_name(name, "label")] = value
    return labels


def _instant(at: Any, name: str) -> int | None:
    return None if at is None else microseconds_of(aware(at, name))


__all__ = ["arguments", "aware", "etag_of", "hiding_holders", "own_key", "row", "task_of"]
