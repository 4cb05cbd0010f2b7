"""The feed: what happens to all executions, in one order, for whoever follows it.

Theory of operation. The store keeps the order (:class:`outlast.store.protocol.Feed`), and a cursor
is the feed's name and a position in it. So there is nothing here that could be lost: whoever goes
on from a cursor reads the store behind it, whichever process answers, after any restart. What is
kept in memory is the latest few thousand rows, read once for all who follow the feed here.

Positions are kept for a day. A cursor that is older, or of a feed that nobody has followed for so
long, is refused as a gap: rows behind it may have been forgotten, and nobody knows which.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterator
from collections.abc import Mapping as _Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from outlast.engine.read.stream import stepped
from outlast.errors import FeedGap, OutlastError, StoreUnavailable, UsageError
from outlast.lifecycle import Kind, State, Transition
from outlast.store.protocol import FeedHead, FeedRow, Store

if TYPE_CHECKING:
    from outlast.engine.engine import Engine

KEPT_US: Final = 24 * 3_600_000_000
"""How long a position is kept."""
PRUNED_AT_ONCE: Final = 5_000
ROWS_MAX: Final = 500
RING_MAX: Final = 5_000
"""Rows that are kept in memory for all who follow."""
POLL_SECONDS: Final = 0.05
NOTE_SECONDS: Final = 60.0
"""How often it is noted that somebody follows."""
OPENING_SECONDS: Final = 10.0
OLDEST: Final = "oldest"
"""The cursor that stands for the first row that is kept."""
_position: Final = attrgetter("position")


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows somebody wants to see; all that is given must hold.

    Attributes:
        task: of executions of this task.
        prefix: of executions of tasks whose names begin so.
        states: that led to one of these states; empty: to any.
        kinds: of these transitions; empty: of any.
        labels: of executions that have all these labels now.
    """

    task: str | None = None
    prefix: str | None = None
    states: frozenset[State] = frozenset()
    kinds: frozenset[Kind] = frozenset()
    labels: _Mapping[str, str] = msgspec.field(default_factory=dict)

    def fits(self, row: FeedRow) -> bool:
        """Tell whether a row is wanted; one that was purged since may have been."""
        if row.transition is None or row.task is None:
            return True
        return (
            (self.task is None or row.task == self.task)
            and (self.prefix is None or row.task.startswith(self.prefix))
            and (not self.states or row.transition.to_state in self.states)
            and (not self.kinds or row.transition.kind in self.kinds)
            and all(row.labels.get(name) == value for name, value in self.labels.items())
        )


def filter_of(
    task: str | None = None,
    prefix: str | None = None,
    states: Collection[str] = (),
    transitions: Collection[str] = (),
    labels: _Mapping[str, str] | None = None,
) -> EventFilter:
    """Make a filter of words.

    Raises:
        UsageError: there is no such state or transition.
    """
    try:
        return EventFilter(
            task=task,
            prefix=prefix,
            states=frozenset(map(State, states)),
            kinds=frozenset(map(Kind, transitions)),
            labels=dict(labels or {}),
        )
    except ValueError as error:
        raise UsageError(f"{error}", do="docs/lifecycle.md has the words") from None


class FeedEvent(msgspec.Struct, frozen=True):
    """Something that happened to an execution.

    Attributes:
        cursor: with it as ``after``, one goes on behind this event.
        execution_id: the execution.
        task: its task.
        labels: its labels, as they are now.
        transition: the row of its log; None: it has been deleted since, with its execution, whose
            task nobody knows any more.
    """

    cursor: str
    execution_id: str
    task: str | None
    labels: _Mapping[str, str]
    transition: Transition | None


def cursor_of(name: str, position: int) -> str:
    """Write a cursor."""
    return f"{name}.{position}"


def event_of(name: str, row: FeedRow) -> FeedEvent:
    """Make an event of a row."""
    cursor = cursor_of(name, row.position)
    return FeedEvent(cursor, row.execution_id, row.task, row.labels, row.transition)


def begin(head: FeedHead, after: str | None) -> int:
    """Give the position that a cursor stands for; None: what comes from now on.

    Raises:
        FeedGap: rows behind it may have been forgotten.
        UsageError: it is no cursor.
    """
    if after is None:
        return head.last
    if after == OLDEST:
        return head.pruned
    name, _, number = after.rpartition(".")
    if not name or not (number.isascii() and number.isdigit() and len(number) <= 18):
        raise UsageError("this cursor is none that an event had", where=after[:80])
    position = int(number)
    if name != head.name or not head.pruned <= position <= head.last:
        raise gap(after)
    return position


def gap(where: str) -> FeedGap:
    """Say that rows behind a cursor may have been forgotten."""
    return FeedGap(
        "what came behind this cursor is not all kept any more",
        where=where,
        why="the feed is kept for a day, and only while somebody follows it",
        do="go on without a cursor, and read what you may have missed: outlast ls\n"
        'after="oldest" begins with the first that is kept',
    )


class Tail:
    """The end of the feed, read once for all who follow it in this process.

    Args:
        engine: the engine, which is open when somebody follows.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._head: FeedHead | None = None
        self._ring: list[FeedRow] = []
        self._ring_from = 0
        self._followers = 0
        self._task: asyncio.Task[None] | None = None
        self._grown: asyncio.Future[None] | None = None
        self._beginning = asyncio.Lock()

    async def follow(
        self, after: str | None, *, payload: bool = False
    ) -> AsyncIterator[tuple[str, list[FeedRow]]]:
        """Give rows behind a cursor as they come, a page at a time, with the cursor behind them.

        The first page is empty, and its cursor says where it begins; an empty one later says that
        there was nothing new for a while. It has no end.

        Raises:
            FeedGap: rows behind the cursor may have been forgotten.
            UsageError: it is no cursor.
            StoreUnavailable: it cannot be begun yet.
        """
        self._followers += 1
        try:
            async with self._beginning:
                head = await self._begin()
            position = begin(head, after)
            yield cursor_of(head.name, position), []
            while True:
                rows = await self._page(head.name, position, payload=payload)
                if rows:
                    position = rows[-1].position
                else:
                    await self._wait()
                yield cursor_of(head.name, position), rows
        finally:
            self._followers -= 1
            if not self._followers and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _begin(self) -> FeedHead:
        """See that the feed is kept, and that this process reads it; gives its head."""
        await self._follow()
        deadline = asyncio.get_running_loop().time() + OPENING_SECONDS
        while not (head := await self._look()).is_whole:
            if asyncio.get_running_loop().time() > deadline:
                raise not_yet(self._store().url)
            await asyncio.sleep(POLL_SECONDS)
        if self._task is None:
            self._head, self._ring, self._ring_from = head, [], head.last
            self._task = asyncio.create_task(self._keep_reading())
        return head

    def _store(self) -> Store:
        return self._engine.store

    async def _read(self, look: Callable[[], Any]) -> Any:
        return await self._engine.worker.read(look)

    async def _write(self, act: Callable[[], Any]) -> Any:
        return await self._engine.journal.call(act)

    async def _follow(self) -> None:
        name, now, store = secrets.token_hex(6), self._engine.clock.now(), self._store()
        await self._write(lambda: store.feed.follow(name, now))

    async def _look(self) -> FeedHead:
        """Give the head, with a position for all that can be seen."""
        feed = self._store().feed
        while True:
            head: FeedHead | None = await self._read(feed.head)
            if head is None:  # nobody had followed it for long, in this very moment
                await self._follow()
            elif head.is_unsettled and await self._write(feed.settle):
                continue
            else:
                return head

    async def _keep_reading(self) -> None:
        """Read what comes, as long as somebody follows."""
        loop = asyncio.get_running_loop()
        note_at = loop.time() + NOTE_SECONDS
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                if loop.time() >= note_at:
                    await self._follow()
                    note_at = loop.time() + NOTE_SECONDS
                await self._read_on()
            except OutlastError:
                continue  # the store is away for now; the next look finds what there is

    async def _read_on(self) -> None:
        head = await self._look()
        known = self._head
        if known is None or head.name != known.name:
            self._ring, self._ring_from = [], head.last
        elif head.last > known.last:
            at, store = known.last, self._store()
            while at < head.last:
                rows = await self._read(lambda at=at: store.feed.read(at, ROWS_MAX))  # type: ignore[misc]
                if not rows:
                    break
                self._ring += rows
                at = rows[-1].position
            if len(self._ring) > RING_MAX:
                gone = len(self._ring) - RING_MAX // 2
                self._ring_from = self._ring[gone - 1].position
                del self._ring[:gone]
        is_news = known != head
        self._head = head
        if is_news and self._grown is not None:
            self._grown.set_result(None)
            self._grown = None

    async def _page(self, name: str, position: int, *, payload: bool) -> list[FeedRow]:
        """Give some rows behind a position, if there are any.

        Raises:
            FeedGap: they were forgotten meanwhile.
        """
        head = self._head
        if head is None or head.name != name:
            raise gap(cursor_of(name, position))
        if position >= head.last:
            return []
        if position >= self._ring_from and not payload:
            place = bisect_right(self._ring, position, key=_position)
            return self._ring[place : place + ROWS_MAX]
        store = self._store()
        rows: list[FeedRow] = await self._read(
            lambda: store.feed.read(position, ROWS_MAX, payload=payload)
        )
        now: FeedHead | None = await self._read(store.feed.head)
        if now is None or now.name != name or now.pruned > position:
            raise gap(cursor_of(name, position))
        return rows

    async def _wait(self) -> None:
        """Wait for something new, for a while."""
        if self._grown is None:
            self._grown = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._grown], timeout=1.0)


async def keep(store: Store, write: Callable[[Callable[[], Any]], Awaitable[Any]], now: int) -> int:
    """Forget what has been kept long enough; gives how many rows.

    Nothing is written where there is no feed.
    """
    before, forgotten = now - KEPT_US, 0
    if await write(store.feed.head) is None or await write(lambda: store.feed.end(before)):
        return 0
    while some := await write(lambda: store.feed.prune(before, PRUNED_AT_ONCE)):
        forgotten += some
    return forgotten


def follow_outside(
    store: Store, after: str | None, filter: EventFilter, now: Callable[[], int]
) -> Iterator[tuple[str, list[FeedEvent]]]:
    """Give what happens, to a process that only reads the store, and the cursor behind it.

    The list is empty if there is nothing; the first one is, and says where it begins.

    Raises:
        FeedGap, UsageError, StoreUnavailable: as :meth:`Tail.follow`.
    """
    store.feed.follow(secrets.token_hex(6), now())
    noted = time.monotonic()
    head = _looked(store)
    while head is None or not head.is_whole:
        if time.monotonic() - noted > OPENING_SECONDS:
            raise not_yet(store.url)
        time.sleep(POLL_SECONDS)
        head = _looked(store)
    position, name = begin(head, after), head.name
    yield cursor_of(name, position), []
    while True:
        rows = store.feed.read(position, ROWS_MAX)
        head = _looked(store)
        if head is None or head.name != name or head.pruned > position:
            raise gap(cursor_of(name, position))
        if rows:
            position = rows[-1].position
        told = [event_of(name, row) for row in rows if filter.fits(row)]
        yield cursor_of(name, position), told
        if time.monotonic() - noted > NOTE_SECONDS:
            noted = time.monotonic()
            store.feed.follow(name, now())


def _looked(store: Store) -> FeedHead | None:
    while (head := store.feed.head()) is not None and head.is_unsettled and store.feed.settle():
        pass
    return head


def not_yet(url: str) -> StoreUnavailable:
    """Say that the feed cannot begin: whoever began before it may have written past it."""
    return StoreUnavailable(
        "the feed cannot begin yet",
        where=url,
        why="a transaction is still open that began before the feed did",
        do="ask again once it has ended",
    )


class Events:
    """What happens to executions, as it comes: ``for`` or ``async for``; it has no end.

    Without a cursor it begins where it is first asked for an event; or where it is opened.

    Attributes:
        cursor: goes on behind all that was given so far, and what no filter let through.
    """

    def __init__(
        self,
        follow: Callable[[str | None], AsyncIterator[FeedEvent | str]],
        run: Callable[[Coroutine[Any, Any, Any]], Any],
        after: str | None,
    ) -> None:
        self._follow, self._run = follow, run
        self.cursor = after

    async def aopen(self) -> Self:
        """Begin here and now, before the first event is asked for.

        Raises:
            FeedGap: what came behind the cursor is not all kept any more.
            UsageError: it is no cursor.
        """
        async with contextlib.aclosing(self._follow(self.cursor)) as events:  # type: ignore[type-var]
            one = await anext(events)
            assert isinstance(one, str), "the first thing that is told is where it begins"
            self.cursor = one
        return self

    def open(self) -> Self:
        """Begin here and now, as :meth:`aopen`, from a thread."""
        self._run(self.aopen())
        return self

    async def __aiter__(self) -> AsyncIterator[FeedEvent]:
        async with contextlib.aclosing(self._follow(self.cursor)) as events:  # type: ignore[type-var]
            async for one in events:
                if isinstance(one, str):
                    self.cursor = one
                else:
                    self.cursor = one.cursor
                    yield one

    def __iter__(self) -> Iterator[FeedEvent]:
        return stepped(self.__aiter__(), self._run)


async def _close(events: Any) -> None:
    await events.aclose()


async def fitting(
    tail: Tail, filter: EventFilter, after: str | None, *, payload: bool
) -> AsyncIterator[FeedEvent | str]:
    """Give the events of a tail that a filter lets through, and cursors where it lets none."""
    pages = tail.follow(after, payload=payload)
    try:
        is_begun = False
        async for cursor, rows in pages:
            for row in rows:
                if filter.fits(row):
                    yield event_of(cursor.partition(".")[0], row)
            if rows or not is_begun:
                yield cursor
            is_begun = True
    finally:
        await _close(pages)


__all__ = [
    "OLDEST",
    "EventFilter",
    "Events",
    "FeedEvent",
    "Tail",
    "begin",
    "cursor_of",
    "event_of",
    "filter_of",
    "fitting",
    "gap",
    "keep",
]
