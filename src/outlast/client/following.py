"""Follow a log over a connection that may break: it goes on behind the last row that came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import httpx

from outlast.client import reading
from outlast.client.wire import Wire
from outlast.engine.read.feed import FeedEvent, gap
from outlast.errors import Forbidden, OutlastError, ServerUnreachable
from outlast.lifecycle import FINAL, Transition

PATIENCE: Final = 240
"""How often in a row a connection may fail before it is given up: two minutes."""
AGAIN_SECONDS: Final = 0.5


async def followed(wire: Wire, id: str, seq: int = 0) -> AsyncIterator[Transition]:
    """Give the rows of a log from behind one on as they are recorded, to the final one.

    Raises:
        OutlastError: the server refuses to show it.
        ServerUnreachable: it has not answered for two minutes.
    """
    payload, outage = True, _Outage(wire.url)
    while True:
        try:
            path = f"/executions/{id}/events"
            async with wire.stream(path, after_seq=seq, payload=payload) as answer:
                if not answer.is_success:
                    await answer.aread()
                    raise wire.refusal(answer)
                async for line in answer.aiter_lines():
                    outage.is_over()
                    if line.startswith("event: end"):
                        return
                    if line.startswith('data: {"type":"transition"'):
                        form = reading.read(line[6:].encode(), reading.LogForm, wire.url)
                        row = reading.transition_of(form)
                        seq = row.seq
                        yield row
                        if row.to_state in FINAL:
                            return
        except Forbidden:
            if not payload:
                raise
            payload = False
            continue
        except (httpx.TransportError, OutlastError) as error:
            outage.note(error)
        await outage.wait()


async def fed(
    wire: Wire, after: str | None, query: Mapping[str, Any]
) -> AsyncIterator[FeedEvent | str]:
    """Give what happens to all executions, over connections that come and go.

    Raises:
        FeedGap: what came behind the cursor is not all kept any more.
        OutlastError: the server refuses to show it.
        ServerUnreachable: it has not answered for two minutes.
    """
    kind, outage = "", _Outage(wire.url)
    while True:
        try:
            given = {**query, **({} if after is None else {"after": after})}
            async with wire.stream("/events", **given) as answer:
                if not answer.is_success:
                    await answer.aread()
                    raise wire.refusal(answer)
                cursor: str | None = None
                async for line in answer.aiter_lines():
                    outage.is_over()
                    name, _, value = line.partition(": ")
                    if name == "event":
                        kind = value
                    elif name == "id":
                        cursor = value
                    elif name == "data" and kind == "begin":
                        after = cursor
                        yield cursor or ""
                    elif name == "data" and kind == "gap" and cursor is None:
                        raise gap(after or "")
                    elif name == "data" and kind in ("transition", "gap") and cursor is not None:
                        after = cursor
                        yield _event_of(kind, value, cursor, wire.url)
                    elif not line:
                        if cursor is not None and cursor != after:
                            after = cursor
                            yield cursor
                        kind, cursor = "", None
        except (httpx.TransportError, OutlastError) as error:
            outage.note(error)
        await outage.wait()


class _Outage:
    """How often in a row a connection has come to nothing, and why it did the last time."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._failures = 0
        self._why = ""

    def is_over(self) -> None:
        """Note that the server has said something."""
        self._failures = 0

    def note(self, error: httpx.TransportError | OutlastError) -> None:
        """Note why a connection came to nothing.

        Raises:
            OutlastError: the server has refused; to ask again would give the same.
        """
        if not isinstance(error, OutlastError):
            self._why = str(error) or type(error).__name__
        elif isinstance(error, ServerUnreachable) or error.code == "overloaded":
            self._why = error.why
        else:
            raise error

    async def wait(self) -> None:
        """Wait until it is time to ask again.

        Raises:
            ServerUnreachable: it has been asked often enough.
        """
        self._failures += 1
        if self._failures >= PATIENCE:
            raise ServerUnreachable("no server answers any more", where=self._url, why=self._why)
        await asyncio.sleep(AGAIN_SECONDS)


def _event_of(kind: str, value: str, cursor: str, url: str) -> FeedEvent:
    if kind == "gap":
        return FeedEvent(cursor, "", None, {}, None)
    form = reading.read(value.encode(), reading.FedForm, url)
    return FeedEvent(cursor, form.id, form.task, form.labels, reading.transition_of(form))


__all__ = ["fed", "followed"]
