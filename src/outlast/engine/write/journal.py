"""The commit pipeline: every change of this process goes to the disk through here, in batches.

Theory of operation. The engine's loop submits items; one thread takes whatever is there, bounded in
rows and bytes, writes it as one transaction, and tells the loop, once a batch, what became of each
item. So one ``fsync`` serves every execution that is ready to commit at that moment (group commit),
and a lone writer waits for no timer. The thread is the only caller of the store's writing verbs;
other work for it (claims, sweeps) runs between two batches, in the order of submission.

What one turn of the loop submits is handed over together. The interpreter's lock is why: a thread
that is woken by the first item would write it alone, or wait for the lock while the loop computes.

If a commit fails, nobody knows what is in the file. Every item of the batch is then answered with
``unknown``; who submitted it must throw away what ran ahead of it, and read again.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from outlast.engine.write.acting import is_acting, signed
from outlast.errors import NoEngine, OutlastError, StoreBusy, StoreFailedOver, StoreUnavailable
from outlast.store.protocol import Adjust, Answer, Create, CreateMany, Deliver, Item, Store, Write

if TYPE_CHECKING:
    from outlast.engine.cluster.failover import Recall
    from outlast.engine.write.tally import Tally

ROWS_MAX: Final = 2_000
"""Rows of the log a batch; beyond it a batch gains nothing and everybody in it waits longer."""
BYTES_MAX: Final = 4 * 1024 * 1024
"""Payload bytes a batch, so that one huge result delays nobody for long."""
BACKLOG_MAX: Final = 20_000
"""Items queued before ``start`` has to wait."""

_WITH_ROWS: Final = (Create, Write)
_FROM_OUTSIDE: Final = (Create, CreateMany, Deliver, Adjust)

T = TypeVar("T")


class Submitter(Protocol):
    """Whoever submits an item, and is told what became of it, on the loop."""

    def settled(self, item: Any, answer: Answer) -> None:
        """Take the answer to an item."""


class _Job:
    """A call that the journal's thread makes between two batches."""

    __slots__ = ("call", "future")

    def __init__(self, call: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        self.call, self.future = call, future


_Entry = tuple[Item, Submitter]
_Post = list[_Entry] | _Job | None
"""What the thread is handed: entries, a job, or the end."""
_NOTHING: Final[_Post] = []
POST_MAX: Final = 128
"""Items after which a long turn of the loop hands over what it has, so that both have work."""


class Journal:
    """The one way to the store's writing verbs. All methods are for the loop's own thread.

    Attributes:
        tally: counts its commits.
        on_offer: hears what became of a delivery with which a slot was offered.
    """

    tally: Tally | None = None

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._loop = loop
        self._queue: queue.SimpleQueue[_Post] = queue.SimpleQueue()
        self._outbox: list[_Entry] = []
        self._posting = False
        self._pending = 0
        self._closed = False
        self._room: list[asyncio.Future[None]] = []
        self._idle: list[asyncio.Future[None]] = []
        self.batches = 0
        self.items = 0
        self.on_failure: Callable[[OutlastError], None] | None = None
        self.on_offer: Callable[[Answer], None] = _nobody
        self.recall: Recall | None = None
        self._thread = threading.Thread(target=self._write, name="outlast-journal", daemon=True)
        self._thread.start()

    def submit(self, item: Item, submitter: Submitter) -> None:
        """Queue an item; its submitter's ``settled`` is called once it is written or refused.

        Raises:
            NoEngine: the journal is closed.
        """
        if self._closed:
            raise NoEngine("this engine is closed")
        self._pending += 1
        self._outbox.append((item, submitter))
        if not self._posting:
            self._posting = True
            self._loop.call_soon(self._post)
        elif len(self._outbox) >= POST_MAX:
            self._queue.put(self._outbox)
            self._outbox = []

    def _post(self) -> None:
        """Hand over what this turn of the loop has submitted."""
        self._posting = False
        if self._outbox:
            self._queue.put(self._outbox)
            self._outbox = []

    async def commit(self, item: Item) -> Answer:
        """Write an item and give its answer; waits while the journal is full.

        Raises:
            StoreUnavailable: whether the item was written is unknown.
        """
        await self.room()
        future: asyncio.Future[Answer] = self._loop.create_future()
        if isinstance(item, Create | Deliver | Adjust):
            item = signed(item)
        self.submit(item, _Waiter(future))
        answer = await future
        if answer.error is not None:
            raise answer.error
        return answer

    @property
    def backlog(self) -> int:
        """How many items were submitted and have no answer yet."""
        return self._pending

    async def room(self) -> None:
        """Wait while the journal is full."""
        if self._pending >= BACKLOG_MAX:
            await self._wait(self._room)

    async def call(self, call: Callable[[], T]) -> T:
        """Run a writing verb of the store on the journal's thread, between two batches.

        Raises:
            NoEngine: the journal is closed.
        """
        if self._closed:
            raise NoEngine("this engine is closed")
        self._post()
        if is_acting():
            call = partial(copy_context().run, call)  # it is signed there as it would be here
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_Job(call, future))
        return await future

    async def drain(self) -> None:
        """Wait until everything submitted so far has been answered."""
        if self._pending:
            await self._wait(self._idle)

    async def close(self) -> None:
        """Write what is queued, then stop the thread."""
        await self.drain()
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def stop(self) -> None:
        """Let the thread end after what it has; for when there is no loop any more."""
        self._closed = True
        self._queue.put(None)
        self._thread.join()

    async def _wait(self, waiters: list[asyncio.Future[None]]) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        waiters.append(future)
        await future

    def _write(self) -> None:
        waiting: deque[_Entry] = deque()
        while True:
            post = self._next_post(wait=not waiting)
            if isinstance(post, list):
                waiting.extend(post)
                if post is _NOTHING or len(waiting) >= ROWS_MAX:
                    self._write_batch(waiting)
                continue
            while waiting:
                self._write_batch(waiting)
            if post is None:
                return
            self._run(post)

    def _next_post(self, *, wait: bool) -> _Post:
        try:
            return self._queue.get(wait)
        except queue.Empty:
            return _NOTHING

    def _write_batch(self, waiting: deque[_Entry]) -> None:
        """Write what fits into one transaction."""
        batch: list[_Entry] = []
        rows = size = 0
        while waiting and rows < ROWS_MAX and size < BYTES_MAX:
            entry = waiting.popleft()
            more_rows, more_size = _weight(entry[0])
            rows, size = rows + more_rows, size + more_size
            batch.append(entry)
        begun = monotonic()
        try:
            answers = self._store.commit([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001
            # Whatever it was, the submitters must hear of it; what is in the file is unknown.
            unknown = Answer("unknown", error=_unavailable(error))
            answers = [unknown] * len(batch)
        if self.tally is not None:
            self.tally.wrote(monotonic() - begun, answers)
        self._tell(self._settle, batch, answers)

    def _run(self, job: _Job) -> None:
        try:
            result = job.call()
        except Exception as error:  # noqa: BLE001 - handed to whoever asked
            self._tell(_fail, job.future, error)
            if isinstance(error, StoreFailedOver):
                self._tell(self._failed, error)
        else:
            self._tell(_resolve, job.future, result)

    def _tell(self, callback: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to hear
            self._loop.call_soon_threadsafe(callback, *args)

    def _settle(self, batch: list[_Entry], answers: list[Answer]) -> None:
        self.batches += 1
        self.items += len(batch)
        self._pending -= len(batch)
        failed = next(
            (
                answer
                for (item, _), answer in zip(batch, answers, strict=True)
                if answer.refused == "unknown" and not _is_spared(item, answer)
            ),
            None,
        )
        if failed is not None and self.recall is not None:
            self.recall.keep()  # whoever hears of it below drops what it knows
        self._posting = True  # what this leads to is handed over below
        try:
            for (item, submitter), answer in zip(batch, answers, strict=True):
                try:
                    if isinstance(item, Deliver) and item.offer is not None:
                        self.on_offer(answer)  # whoever sent it may be gone
                    submitter.settled(item, answer)
                except Exception as error:  # noqa: BLE001 - a bug of ours; the others must hear
                    self._loop.call_exception_handler(
                        {"message": "outlast failed to go on after a commit", "exception": error}
                    )
        finally:
            self._post()
        if failed is not None:
            assert isinstance(failed.error, OutlastError)
            self._failed(failed.error)
        elif self.recall is not None:
            self.recall.take(batch, answers)
        if self._room and self._pending < BACKLOG_MAX // 2:
            _wake(self._room)
        if self._idle and not self._pending:
            _wake(self._idle)

    def _failed(self, error: OutlastError) -> None:
        if self.on_failure is not None:
            self.on_failure(error)


class _Waiter:
    """A submitter that waits in a coroutine."""

    __slots__ = ("_future",)

    def __init__(self, future: asyncio.Future[Answer]) -> None:
        self._future = future

    def settled(self, item: Item, answer: Answer) -> None:
        _resolve(self._future, answer)


def _is_spared(item: Item, answer: Answer) -> bool:
    """Tell whether nothing has become of an item for certain, and nobody's memory rests on it.

    A store that was busy has taken the batch back, and whoever sent the item hears of it. What an
    owner wrote it has in memory already, so it has to begin anew.
    """
    return isinstance(answer.error, StoreBusy) and isinstance(item, _FROM_OUTSIDE)


def _weight(item: Item) -> tuple[int, int]:
    """Give the rows and the payload bytes of an item."""
    if isinstance(item, Deliver):
        return 2, len(item.message.payload or b"")
    if isinstance(item, CreateMany):
        return len(item.ids), sum(map(len, item.payloads))
    if not isinstance(item, _WITH_ROWS):
        return 1, 0
    size = 0
    for row in item.rows:
        if row.payload is not None:
            size += len(row.payload)
    if isinstance(item, Write) and item.emits:
        return len(item.rows) + len(item.emits), size + sum(len(x.payload) for x in item.emits)
    return len(item.rows), size


def _unavailable(error: Exception) -> OutlastError:
    if isinstance(error, OutlastError):
        return error
    return StoreUnavailable("the store failed in an unforeseen way", why=repr(error))


def _resolve(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _nobody(answer: Answer) -> None:
    """Hear what became of an offer, where nobody makes any."""


def _wake(waiters: list[asyncio.Future[None]]) -> None:
    for future in waiters:
        _resolve(future, None)
    waiters.clear()
