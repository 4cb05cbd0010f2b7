"""Read the streams of an execution, live."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Final, Protocol, TypeVar

from outlast.lifecycle import Execution as Record
from outlast.lifecycle.record import continued_as
from outlast.store.protocol import ProgressRow, StreamHead, StreamItem

T = TypeVar("T")
ITEMS_MAX: Final = 500
"""Items that are read at once."""


class Source(Protocol):
    """Where streams are read."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine from a thread without a loop."""

    async def read_one(self, id: str) -> Record:
        """Read an execution's row, or raise NotFound."""

    async def read_stream(self, id: str, name: str, after: int, limit: int) -> list[StreamItem]:
        """Read a stream from behind an item on."""

    async def read_streams(self, id: str) -> list[StreamHead]:
        """Name the streams of an execution."""

    async def read_progress(self, id: str) -> ProgressRow | None:
        """Say how far an execution is."""

    async def next_change(self, id: str) -> None:
        """Wait until something may have changed about an execution."""


class Stream:
    """The items of one stream, from behind one of them on, as they come; until its execution ends.

    Where that goes on as a new one (``continue_as_new``), so do the items: with those of the new
    execution's stream of the same name, from its first.

    Iterate over it with ``async for``, or with ``for`` from a thread. All that was ever said is
    there, in the order in which it was written. Where a step's body was begun again, what it says
    then follows what it said before: its first item ``is_anew``, and all of them name the step, the
    attempt and the lease.

    Attributes:
        id: the execution that the last item is of, and those to come.
        after: the number of the last item that was given, in the stream of that execution.
    """

    def __init__(self, source: Source, id: str, name: str, after: int) -> None:
        self._source, self._name = source, name
        self.id, self.after = id, after

    async def __aiter__(self) -> AsyncIterator[StreamItem]:
        while (items := await self._more()) is not None:
            for item in items:
                self.after = item.number
                yield item

    def __iter__(self) -> Iterator[StreamItem]:
        while (items := self._source.run(self._more())) is not None:
            for item in items:
                self.after = item.number
                yield item

    async def _more(self) -> list[StreamItem] | None:
        """Wait for more items; None: there will be none."""
        ended: Record | None = None
        while True:
            items = await self._source.read_stream(self.id, self._name, self.after, ITEMS_MAX)
            if items:
                return items
            if ended is not None:
                successor = continued_as(ended)
                if successor is None:
                    return None
                self.id, self.after, ended = successor, 0, None
                continue
            record = await self._source.read_one(self.id)
            if record.is_final:
                ended = record
            else:
                await self._source.next_change(self.id)


def stepped(items: AsyncIterator[T], run: Callable[[Coroutine[Any, Any, Any]], Any]) -> Iterator[T]:
    """Give what comes asynchronously to a thread, one after the other."""
    try:
        while True:
            try:
                item = run(_next(items))
            except StopAsyncIteration:
                return
            yield item
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            run(close())


async def _next(items: AsyncIterator[T]) -> T:
    return await anext(items)


__all__ = ["Stream", "stepped"]
