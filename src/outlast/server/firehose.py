"""The firehose: what happens to all executions, as server-sent events.

The id of an event is a cursor of the feed (:mod:`outlast.engine.read.feed`): with it as
``Last-Event-ID``, any server of this store goes on behind it. Who may not read an execution gets
none of its events; the permission is asked for each.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from outlast import forms
from outlast.access import Permission
from outlast.dialects import DIALECTS, Dialect, project
from outlast.engine.primitives.publishing import publish
from outlast.engine.read.feed import EventFilter, cursor_of
from outlast.errors import BadRequest, FeedGap, UsageError
from outlast.lifecycle import Kind
from outlast.server.call import Call, Live, Reply
from outlast.server.executions import labels_of, states_of
from outlast.server.live import BEAT, event
from outlast.server.shapes import EventBody, FeedQuery
from outlast.server.strict import unfit
from outlast.server.veil import veiled
from outlast.store.protocol import FeedRow

PUBLISH_SECONDS: Final = 10.0
"""How long a caller waits until an event has reached all."""
ID_SECONDS: Final = 5.0
"""How often a reader whom nothing is shown is told how far it is."""


async def follow_events(call: Call) -> Live:
    """Follow what happens to all executions: an event a row of a log, from now or a cursor on.

    The first event is ``begin``. With ``Last-Event-ID`` it goes on behind that event; where rows
    behind it may have been forgotten, that is refused (410).
    """
    call.asked = True
    query: FeedQuery = call.query
    after = call.headers.get("last-event-id", query.after)
    pages = call.engine.tail.follow(after, payload=query.payload)
    try:
        begun, _ = await anext(pages)
    except UsageError as error:
        raise BadRequest(error.what, where="last-event-id") from None
    return Live(_events(call, filter_of(query), begun, pages))


def filter_of(query: FeedQuery) -> EventFilter:
    """Read which events are wanted.

    Raises:
        BadPayload: there is no such state or transition, or a label is none.
    """
    words = [word for one in query.transition for word in one.split(",")]
    strange = next((word for word in words if word not in list(Kind)), None)
    if strange is not None:
        raise unfit("$.transition", f"there is no transition {strange[:40]!a}", "query")
    return EventFilter(
        task=query.task,
        prefix=query.prefix,
        states=frozenset(states_of(query.state)),
        kinds=frozenset(map(Kind, words)),
        labels=labels_of(query.label),
    )


async def _events(
    call: Call,
    filter: EventFilter,
    begun: str,
    pages: AsyncIterator[tuple[str, list[FeedRow]]],
) -> AsyncIterator[str]:
    query: FeedQuery = call.query
    name = begun.partition(".")[0]
    dialect = None if query.dialect is None else DIALECTS[query.dialect]
    clock = asyncio.get_running_loop().time
    told_at, behind = clock(), None
    try:
        yield event("begin", {"type": "begin"}, begun)
        async for cursor, rows in pages:
            wanted = [row for row in rows if filter.fits(row) and _may_see(call, row)]
            told = {} if dialect is None else await _told(call, dialect, wanted)
            for row in wanted:
                shown = told if dialect is not None else None
                for text in await _texts(call, name, row, shown):
                    told_at, behind = clock(), None
                    yield text
            if rows and (not wanted or wanted[-1] is not rows[-1]):
                behind = cursor
            if behind is not None and clock() - told_at >= ID_SECONDS:
                yield f"id: {behind}\n{BEAT}"
                told_at, behind = clock(), None
            elif not rows:
                yield ""
    except FeedGap:
        yield event("gap", {"type": "gap", "why": "forgotten"}, None)
    finally:
        close = getattr(pages, "aclose", None)
        if close is not None:
            await close()


def _may_see(call: Call, row: FeedRow) -> bool:
    """Tell whether the caller may know of a row; that one was purged, anybody may."""
    return row.task is None or call.listed(row.task)


async def _texts(
    call: Call, name: str, row: FeedRow, told: dict[tuple[str, int], list[Any]] | None
) -> list[str]:
    """Write the events of a row; only the last one has the id, so that none is told by half."""
    cursor = cursor_of(name, row.position)
    if row.transition is None or row.task is None:
        return [event("gap", {"type": "gap", "why": "purged"}, cursor)]
    if told is not None:
        said = told.get((row.execution_id, row.seq), [])
        forms_said = [
            {
                "type": "transition",
                "id": row.execution_id,
                "task": row.task,
                **await veiled(call, one),
            }
            for one in said
        ]
    else:
        payload = call.query.payload and call.may(Permission.PAYLOADS_READ, row.task)
        form = await veiled(call, forms.log_form(row.transition, payload=payload))
        forms_said = [{**form, "task": row.task, "labels": dict(row.labels)}]
    return [
        event("transition", form, cursor if form is forms_said[-1] else None) for form in forms_said
    ]


async def _told(
    call: Call, dialect: Dialect, rows: Sequence[FeedRow]
) -> dict[tuple[str, int], list[Any]]:
    """Tell rows in another system's words; it takes the whole logs."""
    ids = list(dict.fromkeys(row.execution_id for row in rows))
    logs = await call.read(lambda store: store.logs(ids)) if ids else []
    told: dict[tuple[str, int], list[Any]] = {}
    for id, log in zip(ids, logs, strict=True):
        for one in project(dialect, log) if log else ():
            told.setdefault((id, one.seq), []).append(forms.told_form(dialect, one))
    return told


async def publish_event(call: Call) -> Reply:
    """Send an event to every execution that is open: each gets it as a signal of this name.

    It is taken by a wait that fits, now or later; who is started later never gets it. The same
    Idempotency-Key means the same event, with status 200. Where it has not reached all of them
    after a few seconds, the answer is 202, and the execution of this id goes on sending it.
    """
    body: EventBody = call.body
    call.allow(body.task)
    told = await publish(
        call.engine,
        body.name,
        body.value,
        key=call.key,
        task=body.task,
        labels=body.labels,
        actor=call.actor,
        wait_seconds=PUBLISH_SECONDS,
    )
    form = {"id": told.id, "name": told.name, "reached": told.reached}
    status = 202 if told.reached is None else 201 if told.is_new else 200
    headers = {} if told.is_new else {"idempotency-replayed": "true"}
    return Reply(form, status, headers)


__all__ = ["filter_of", "follow_events", "publish_event"]
