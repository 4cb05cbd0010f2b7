"""Server-sent events: a log, or a stream of an execution, as it grows.

The id of an event is its place in the log or stream, so that ``Last-Event-ID`` goes on behind it:
each place is read from the store, in order, so nothing is lost and nothing comes twice, whichever
server answers. A reader that does not take what is sent for a while is dropped; it comes back with
the last id that it has.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import msgspec

from outlast import forms
from outlast.access import Permission
from outlast.engine.read.logs import is_of, line_of
from outlast.engine.read.stream import ITEMS_MAX
from outlast.errors import BadRequest
from outlast.lifecycle import FINAL
from outlast.lifecycle import Execution as Record
from outlast.lifecycle.record import continued_as
from outlast.server.call import Call, Live, checked_word
from outlast.server.guard import Receive, Send
from outlast.server.veil import veiled
from outlast.store.protocol import LOGS

HEARTBEAT_SECONDS: Final = 15.0
LOOK_SECONDS: Final = 10.0
"""How long a reader is believed whose token or role may have been taken back."""
SLOW_SECONDS: Final = 20.0
"""How long a reader may take to take what was sent."""
ROWS_MAX: Final = 500
RETRY_MS: Final = 1_000
BEAT: Final = ": beat\n\n"
_encode: Final = msgspec.json.encode


async def watch_execution(call: Call) -> Live:
    """Follow the log of an execution: an event a row, whose id is its ``seq``, to the final one.

    The last event is ``end``. With ``Last-Event-ID`` it goes on behind that row.
    """
    if call.query.payload:
        call.allow(call.row.task, Permission.PAYLOADS_READ)
    after = _after(call, call.query.after_seq)
    return Live(_rows(call, call.row.id, after, payload=call.query.payload))


async def _rows(call: Call, id: str, seq: int, *, payload: bool) -> AsyncIterator[str]:
    engine = call.engine
    while True:
        # Rows of executions are read together for all who ask in one turn, logs one by one.
        record = await engine.read_one(id)
        if record.seq <= seq:
            if record.is_final:
                yield event("end", {"id": id, "state": record.state}, None)
                return
            yield ""
            await engine.next_change(id)
            continue
        for row in await _page(call, id, seq):
            seq = row.seq
            form = await veiled(call, forms.log_form(row, payload=payload))
            yield event("transition", form, seq)
            if row.to_state in FINAL:
                end = {"id": id, "state": row.to_state}
                if row.data is not None and "continued_as" in row.data:
                    end["continued_as"] = row.data["continued_as"]
                yield event("end", await veiled(call, end), None)
                return


async def _page(call: Call, id: str, seq: int) -> list[Any]:
    return await call.read(lambda store: store.log(id, seq, ROWS_MAX))


async def watch_stream(call: Call) -> Live:
    """Follow a stream of an execution: an event an item, whose id is its number, to its end.

    Where the execution goes on as a new one (``continue_as_new``), an event ``continued`` names
    that, and its items follow; their ids are its id, a colon and the number.
    """
    name = checked_word(call.path["name"], "stream")
    last = call.headers.get("last-event-id")
    id, after = call.row.id, call.query.after
    if last is not None and ":" in last:
        id, _, said = last.rpartition(":")
        after = _number(said)
        await _see_successor(call, id)
    elif last is not None:
        after = _number(last)
    return Live(_items(call, id, name, after))


async def watch_logs(call: Call) -> Live:
    """Follow what an execution's code logs: an event a line, whose id is its number, to its end."""
    last = call.headers.get("last-event-id")
    after = call.query.after if last is None else _number(last)
    return Live(_lines(call, after))


async def _lines(call: Call, after: int) -> AsyncIterator[str]:
    engine, id, step = call.engine, call.row.id, call.query.step
    ended = False
    while True:
        items = await engine.read_stream(id, LOGS, after, ITEMS_MAX)
        for item in items:
            after = item.number
            line = line_of(item)
            if is_of(line, step):
                yield event("line", forms.line_form(line), after)
        if items:
            continue
        if ended:
            yield event("end", {"id": id}, None)
            return
        ended = (await engine.read_one(id)).is_final
        if not ended:
            yield ""
            await engine.next_change(id)


async def _see_successor(call: Call, id: str) -> None:
    """See that the execution of the path has gone on as another, at however many removes.

    Raises:
        BadRequest: it has not, or the caller may not read that one.
    """
    record = call.row
    while record.id != id:
        successor = await _successor(call, record)
        if successor is None:
            raise _no_event()
        record = successor


async def _successor(call: Call, record: Record) -> Record | None:
    """Give what an execution has gone on as, if it has, and the caller may read that one, too."""
    id = continued_as(record)
    if id is None:
        return None
    found = await call.engine.read_one(id)
    return found if call.may(Permission.PAYLOADS_READ, found.task) else None


async def _items(call: Call, id: str, name: str, after: int) -> AsyncIterator[str]:
    engine = call.engine
    ended: Record | None = None
    while True:
        items = await engine.read_stream(id, name, after, ITEMS_MAX)
        for item in items:
            after = item.number
            place = after if id == call.row.id else f"{id}:{after}"
            yield event("item", forms.item_form(item), place)
        if items:
            continue
        if ended is not None:
            successor = await _successor(call, ended)
            if successor is None:
                yield event("end", {"id": id}, None)
                return
            yield event("continued", {"id": id, "as": successor.id}, f"{successor.id}:0")
            id, after, ended = successor.id, 0, None
            continue
        record = await engine.read_one(id)
        if record.is_final:
            ended = record  # and what it said last is read once more
        else:
            yield ""
            await engine.next_change(id)


def _after(call: Call, said: int) -> int:
    """Give the place behind which to begin.

    Raises:
        BadRequest: Last-Event-ID is no place.
    """
    last = call.headers.get("last-event-id")
    return said if last is None else _number(last)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise _no_event()
    return int(text)


def _no_event() -> BadRequest:
    return BadRequest("this Last-Event-ID is none that an event had", where="last-event-id")


def event(kind: str, value: Any, id: int | str | None) -> str:
    """Write an event; JSON has no line breaks, so its data is one line."""
    named = "" if id is None else f"id: {id}\n"
    return f"event: {kind}\n{named}data: {_encode(value).decode()}\n\n"


async def serve(
    events: AsyncIterator[str],
    receive: Receive,
    send: Send,
    is_stopping: Callable[[], bool],
    counts_still: Callable[[], Awaitable[bool]] | None = None,
) -> None:
    """Send events as they come, with a beat where there are none, until either side ends.

    ``events`` gives an empty text where it has nothing new; then is the moment to look whether
    somebody still reads.
    """
    gone = asyncio.create_task(_gone(receive))
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
    loop = asyncio.get_running_loop()
    try:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await _push(send, f"retry: {RETRY_MS}\n\n")
        beat_at = loop.time() + HEARTBEAT_SECONDS
        look_at = loop.time() + LOOK_SECONDS
        async for text in events:
            if gone.done():
                return
            if is_stopping():
                break  # whoever reads comes back with its last id
            if counts_still is not None and loop.time() >= look_at:
                if not await counts_still():
                    break  # whoever comes back is asked who it is
                look_at = loop.time() + LOOK_SECONDS
            if not text and loop.time() < beat_at:
                continue
            await _push(send, text or BEAT)
            beat_at = loop.time() + HEARTBEAT_SECONDS
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    except TimeoutError:
        pass  # it reads too slowly: its connection is ended, and it comes back with its last id
    finally:
        gone.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gone
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()


async def _push(send: Send, text: str) -> None:
    async with asyncio.timeout(SLOW_SECONDS):
        await send({"type": "http.response.body", "body": text.encode(), "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


__all__ = ["event", "serve", "watch_execution", "watch_stream"]
