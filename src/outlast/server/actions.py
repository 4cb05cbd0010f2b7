"""What is done to executions: each is one call of the engine's, and answers with the row after."""

from __future__ import annotations

import msgspec

from outlast import forms
from outlast.access import Permission
from outlast.duration import microseconds, microseconds_of
from outlast.engine.control.bulk import Action, BulkReport
from outlast.engine.control.descent import Descent, Mode
from outlast.engine.write.request import new_message
from outlast.errors import BadRequest, NotRecoverable, Stale, TransitionRefused, UsageError
from outlast.lifecycle import Execution as Record
from outlast.lifecycle import MessageKind, State
from outlast.naming import SCHEDULE_ORIGIN, checked_labels, checked_name, checked_priority
from outlast.server import veil
from outlast.server.call import Call, Reply, asked_id
from outlast.server.executions import aware, etag_of, hiding_holders, own_key, row
from outlast.server.shapes import FilterBody
from outlast.store.protocol import Filter


async def _send(
    call: Call,
    kind: MessageKind,
    *,
    key: str | None = None,
    data: dict[str, object] | None = None,
    payload: bytes | None = None,
    id: str | None = None,
) -> Reply:
    """Deliver a message; under the same Idempotency-Key it is taken once."""
    message = new_message(kind, call.actor, key=key, data=data, payload=payload, id=id or call.key)
    return _taken(call, await call.engine.asend(call.row.id, message))


def _taken(call: Call, record: Record) -> Reply:
    return Reply(row(call, record), headers={"etag": etag_of(record)})


def _why(reason: str | None) -> dict[str, object] | None:
    return {"why": reason} if reason else None


async def pause_execution(call: Call) -> Reply:
    """Hold an execution at its next safe point; asking again changes nothing."""
    return await _send(call, MessageKind.PAUSE, data=_why(call.body.reason))


async def resume_execution(call: Call) -> Reply:
    """Let an execution go on: after a pause, a suspension, or before its time has come."""
    pin = call.body.pin
    return await _send(call, MessageKind.RESUME, data=None if pin is None else {"pin": pin})


async def wake_execution(call: Call) -> Reply:
    """Begin now what waits for its start time, or is in its back-off; a timer of its code stays."""
    record = call.row
    if not record.is_final and record.state not in (State.SCHEDULED, State.RETRY_WAIT):
        raise TransitionRefused(
            "wake is not possible: it waits neither for its start time nor in a back-off",
            state=record.state,
            refusal="not_waiting_to_begin",
            where=f"{record.id}, {record.state}",
            do=f"GET /api/v1/executions/{record.id}/reason",
        )
    return await _send(call, MessageKind.RESUME, data=_why(call.body.reason))


async def cancel_execution(call: Call) -> Reply:
    """Ask an execution to end; its code may clean up. Asking again changes nothing."""
    try:
        return await _send(call, MessageKind.CANCEL, data=_why(call.body.reason))
    except TransitionRefused as refused:
        if refused.state == State.CANCELLED:
            return _taken(call, await call.engine.read_one(call.row.id))
        raise


async def signal_execution(call: Call) -> Reply:
    """Send an execution a signal; it is kept until its code waits for one of this name."""
    body = call.body
    if body.id is not None and call.key is not None:
        raise BadRequest("an id stands in the body, and another one in Idempotency-Key")
    payload = msgspec.json.encode(body.value)
    id = own_key(body.id)
    return await _send(call, MessageKind.SIGNAL, key=body.name, payload=payload, id=id)


async def answer_execution(call: Call) -> Reply:
    """Answer the question of an execution; the first answer wins."""
    question = await call.execution.aquestion(call.body.key)
    payload = question.check(call.body.value)
    return await _send(call, MessageKind.ANSWER, key=question.key, payload=payload)


async def give_input(call: Call) -> Reply:
    """Answer the question of an execution: another name of ``answer``."""
    return await answer_execution(call)


async def pin_execution(call: Call) -> Reply:
    """Leave an execution to code of one version of its task; null lets any version have it."""
    version = call.body.version
    pin = None if version is None else checked_name(version, "version")
    return await _send(call, MessageKind.NOTE, data={"pin": pin})


async def prioritize_execution(call: Call) -> Reply:
    """Give an execution another priority."""
    return await _send(call, MessageKind.PRIORITY, data={"priority": call.body.priority})


async def label_execution(call: Call) -> Reply:
    """Set labels of an execution, and take away those given as null."""
    return await _send(call, MessageKind.LABELS, data={"labels": checked_labels(call.body.labels)})


async def patch_execution(call: Call) -> Reply:
    """Change labels and priority of an execution, if it is as ``If-Match`` says.

    That is judged once more within the transaction of the first change: of two who have seen the
    same version, one is told that it has changed since.
    """
    body, wanted = call.body, call.headers.get("if-match", "*").strip()
    only_if = None
    if wanted != "*":
        if wanted != etag_of(call.row):
            raise _stale(call, wanted, call.row)
        only_if = call.row.seq, call.row.inbox_count
    changes: list[tuple[MessageKind, dict[str, object]]] = []
    if body.labels:
        changes.append((MessageKind.LABELS, {"labels": checked_labels(body.labels)}))
    if body.priority is not None:
        changes.append((MessageKind.PRIORITY, {"priority": checked_priority(body.priority)}))
    record = call.row
    for kind, data in changes:
        message = new_message(kind, call.actor, data=data)
        try:
            record = await call.engine.asend(record.id, message, only_if=only_if)
        except Stale:
            raise _stale(call, wanted, await call.engine.read_one(record.id)) from None
        only_if = None
    return _taken(call, record)


def _stale(call: Call, wanted: str, record: Record) -> Stale:
    return Stale(
        f"{record.id} has changed since",
        where=f"if-match: {wanted[:80]}",
        why=f"it is {etag_of(record)} now",
        do="GET it again, and send its new ETag",
    )


async def raise_budget(call: Call) -> dict[str, object]:
    """Let an execution spend more; it goes on if it was suspended for that."""
    from outlast.engine.control.budgets import own_scopes

    await call.execution.araise_budget(actor=call.actor, **call.body.raise_)
    rows = await call.engine.read_budgets(own_scopes(call.row.id))
    return {"items": [forms.budget_form(one) for one in rows]}


# Made of it


async def _descend(call: Call, wish: Descent) -> Reply:
    call.allow(call.row.task, Permission.EXECUTIONS_START)
    with hiding_holders(call):
        made = await call.engine.adescend(call.row.id, wish)
    return Reply(
        row(call, made),
        headers={"location": f"/api/v1/executions/{made.id}", "etag": etag_of(made)},
    )


async def rerun_execution(call: Call) -> Reply:
    """Start an execution again from nothing, as another one, perhaps with other input."""
    body = call.body
    wish = Descent(
        mode=Mode.RERUN, edits=body.input, why=body.reason, actor=call.actor, key=_key(call)
    )
    return await _descend(call, wish)


async def fork_execution(call: Call) -> Reply:
    """Make another execution that has done what this one had before a step, and goes on anew."""
    body = call.body
    wish = Descent(
        mode=Mode.FORK,
        step=body.from_step,
        edits=body.input,
        why=body.reason,
        actor=call.actor,
        key=_key(call),
    )
    return await _descend(call, wish)


async def recover_execution(call: Call) -> Reply:
    """Make another execution of one that failed: finished steps are reused, the rest runs."""
    body = call.body
    wish = Descent(mode=Mode.RECOVER, why=body.reason, actor=call.actor, key=_key(call))
    return await _descend(call, wish)


async def retry_execution(call: Call) -> Reply:
    """Try an execution again now: in its back-off at once, one that failed by a recovery."""
    record = call.row
    if record.state is State.RETRY_WAIT:
        said = await _send(call, MessageKind.RESUME, data=_why(call.body.reason))
        return Reply(said.value, 200, said.headers)
    if not record.is_final:
        raise NotRecoverable(
            f"{record.id} is {record.state}: there is nothing to try again",
            where=f"{record.id}, {record.state}",
            do=f"GET /api/v1/executions/{record.id}/reason",
        )
    return await recover_execution(call)


def _key(call: Call) -> str | None:
    key = own_key(call.body.key)
    if key is not None and call.key is not None:
        raise BadRequest("a key stands in the body, and another one in Idempotency-Key")
    return key or call.key


# Many


async def do_in_bulk(call: Call) -> dict[str, object]:
    """Do something to all executions that a filter fits; with ``dry_run`` only count them."""
    body = call.body
    wanted: FilterBody = body.filter
    if wanted.task is None:
        call.allow(None)
    else:
        call.allow(wanted.task)
    if body.action in (Action.RETRY, Action.RERUN):  # they make executions, as each alone does
        call.allow(wanted.task, Permission.EXECUTIONS_START)
    filter = Filter(
        states=tuple(wanted.states),
        task=wanted.task,
        origin=None if wanted.schedule is None else SCHEDULE_ORIGIN + wanted.schedule,
        parent_id=asked_id(wanted.parent, "filter.parent"),
        roots=wanted.roots,
        labels=wanted.labels,
        created_after=_instant(wanted.created_after, "created_after"),
        created_before=_instant(wanted.created_before, "created_before"),
    )
    report = await call.engine.abulk(
        body.action, filter, why=body.reason, actor=call.actor, dry_run=body.dry_run
    )
    return bulk_form(report)


def bulk_form(report: BulkReport) -> dict[str, object]:
    """Write what an action on many executions means, and what became of it."""
    return {
        "action": report.action,
        "matched": report.matched,
        "oldest_at": forms.at(report.oldest_at),
        "sample": report.sample,
        "done": report.done,
        "made": report.made,
        "refused": report.refused,
        "is_dry": report.is_dry,
    }


def _instant(at: object, name: str) -> int | None:
    return None if at is None else microseconds_of(aware(at, f"filter.{name}"))


# People


async def list_questions(call: Call) -> dict[str, object]:
    """List the open questions of all executions that the caller may see, a page at a time."""
    query = call.query
    cursor = await veil.opened(call.engine, query.cursor)
    if cursor is not None and ("/" not in cursor or not cursor.isprintable()):
        raise UsageError("this is no cursor", do="give what the page before has as next")
    items: list[dict[str, object]] = []
    looked = 0
    while True:
        page = await call.engine.aquestions(
            query.to, oldest_first=query.oldest_first, cursor=cursor, limit=query.limit
        )
        for one in page:
            if call.listed(one.task):
                if len(items) == query.limit:
                    last = items[-1]
                    return {"items": items, "next": f"{last['id']}/{last['key']}"}
                items.append(forms.question_form(one))
        call.asked = True
        cursor, looked = page.next, looked + len(page.items)
        if cursor is None:
            return {"items": items, "next": None}
        if looked >= veil.LOOKED_MAX:
            return {"items": items, "next": await veil.sealed(call.engine, cursor)}
        if len(items) == query.limit and veil.sees_all(call):
            return {"items": items, "next": cursor}


async def list_own_questions(call: Call) -> dict[str, object]:
    """List the open questions of an execution, the oldest first."""
    found = await call.execution.aquestions()
    return {"items": [forms.question_form(one) for one in found], "next": None}


async def make_answer_token(call: Call) -> dict[str, object]:
    """Make a token with which whoever holds it may answer a question, once."""
    body = call.body
    question = await call.execution.aquestion(body.key)
    # Whoever answers by it is told from whoever made it, and is not taken for anybody else.
    actor = f"{call.actor}, for {body.actor or question.to or 'whoever holds its token'}"
    checked_name(actor, "actor")
    token = await call.engine.amake_token(question, actor, microseconds(body.expires))
    return {"token": token, "id": call.row.id, "key": question.key}


async def look_by_token(call: Call) -> dict[str, object]:
    """Show the question that a token permits to answer; the token is all it takes."""
    return forms.question_form(await call.engine.aquestion_by_token(call.body.token))


async def answer_by_token(call: Call) -> dict[str, object]:
    """Answer the question of a token; the token is all it takes."""
    question = await call.engine.aquestion_by_token(call.body.token)
    await call.engine.aanswer_by_token(call.body.token, call.body.value)
    return forms.question_form(question)
