"""What one execution hands out while it runs: the items of its streams, and how far it is.

Theory of operation. Task code and bodies of steps say things from the loop, from threads and from
other processes; each gets its number at once, under a lock. What was said waits here and goes out
with the next row of the log, in the same transaction, or alone, a few milliseconds later, if no row
comes. So nothing that was said before a row is lost once that row is durable, and nothing is
durable that rests on a row that is not, as a write without rows names the log's position, too.

At most one write without rows is under way. A row that is decided meanwhile takes its items along
once more: if that write fails, and the row's does not, they are there all the same. The store
passes over what it has.

Task code says the same again when it is replayed. What it said before a row that an owner of a
lease wrote later is in the store for certain, and only counted; the rest is sent again and the
store passes over what it has. A body that is begun again says other things: it has a lease, or an
attempt, of its own.

Bounded memory. Whoever says more than fits waits: threads at once, bodies on the loop where they
await it. Task code on the loop cannot wait for the disk; what it says between two outcomes is kept,
and no further body starts before there is room.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final

from outlast.store.protocol import LOGS, Emission, ProgressRow

ITEM_BYTES_MAX: Final = 256 * 1024
"""The largest item of a stream."""
WAITING_MAX: Final = 5_000
"""Items that wait here before whoever says more has to wait."""
WAITING_BYTES_MAX: Final = 4 * 1024 * 1024
SOON_SECONDS: Final = 0.01
"""How long an item waits for a row to go out with."""
LINE_SECONDS: Final = 0.1
"""How long a line that code logs waits for a row to go out with."""
LINES_MAX: Final = 1_000
"""Lines of one try of a step, and of task code between two rows of its log."""
CUT: Final = b'{"level":"WARNING","logger":"outlast","message":"more was logged here","cut":true}'
PROGRESS_SECONDS: Final = 0.25
"""How far apart two notes of how far it is are, where nothing else is written."""
_LOOK_SECONDS: Final = 0.5


class Said:
    """What saying something gives: await it, and it waits while too much is on its way."""

    __slots__ = ("_room",)

    def __init__(self, room: Callable[[], Awaitable[None]] | None = None) -> None:
        self._room = room

    def __await__(self) -> Generator[Any, None, None]:
        if self._room is not None:
            yield from self._room().__await__()


DONE: Final = Said()
"""There is room."""


class Emitter:
    """What one execution says, on one lease.

    Args:
        loop: the engine's.
        now: gives the time.
        lease: the fence.
        attempt: the how-manieth try of the task this is.
        flush: asks for :meth:`alone` to be written, on the loop.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        now: Callable[[], int],
        lease: int,
        attempt: int,
        flush: Callable[[], None],
    ) -> None:
        self._loop, self._now, self._flush = loop, now, flush
        self._lease, self._attempt = lease, attempt
        self._lock = threading.Lock()
        self._parts: dict[tuple[str, str, int], int] = {}
        self._lost = self._jots = 0
        self._jotted_at = -1
        self._waiting: list[Emission] = []
        self._bytes = 0
        self._alone: list[Emission] = []
        self._is_alone = self._is_closed = False
        self._called_for: float | None = None
        self._progress: ProgressRow | None = None
        self._alone_progress: ProgressRow | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._room = threading.Event()
        self._waiters: list[asyncio.Future[None]] = []

    # Whoever says something

    def say(self, name: str, payload: bytes, step: str = "", attempt: int = 0) -> Said:
        """Append to a stream, from any thread; a step's body gives its key and attempt."""
        with self._lock:
            part = self._count(name, step, attempt)
            body = (step, attempt, self._lease) if step else ("", self._attempt, 0)
            self._waiting.append(Emission(name, part, self._now(), payload, *body))
            self._bytes += len(payload)
        self._call(SOON_SECONDS)
        return self._wait() if self.is_full else DONE

    def jot(self, payload: bytes, step: str = "", attempt: int = 0, *, place: int = 0) -> None:
        """Take a line that code logs, from any thread; it waits for nothing, and is lost if full.

        Args:
            payload: the line, a JSON object.
            step: the key of the step whose body says it; "" is task code.
            attempt: the how-manieth try of that it is.
            place: for task code, the row of the log that it has learned of last.
        """
        with self._lock:
            if self.is_full:
                self._lost += 1
                return
            if step:
                part = count = self._count(LOGS, step, attempt)
            else:
                self._jots = self._jots + 1 if place == self._jotted_at else 1
                self._jotted_at, count = place, self._jots
                part = place * LINES_MAX + count
            if count > LINES_MAX:
                return
            if count == LINES_MAX:
                payload = CUT
            elif self._lost:
                payload = payload[:-1] + b',"lost":%d}' % self._lost
                self._lost = 0
            body = (step, attempt, self._lease) if step else ("", self._attempt, 0)
            self._waiting.append(Emission(LOGS, part, self._now(), payload, *body))
            self._bytes += len(payload)
        self._call(LINE_SECONDS)

    def pass_over(self, name: str) -> Said:
        """Count what task code says again and the store has for certain."""
        with self._lock:
            self._count(name, "", 0)
        return DONE

    def _count(self, name: str, step: str, attempt: int) -> int:
        source = (name, step, attempt)
        part = self._parts[source] = self._parts.get(source, 0) + 1
        return part

    def report(self, done: float, total: float | None, text: str | None, step: str = "") -> Said:
        """Say how far it is, from any thread; the latest counts."""
        self._progress = ProgressRow(self._now(), done, total, text, step)
        self._call(PROGRESS_SECONDS)
        return DONE

    @property
    def is_full(self) -> bool:
        """Whether whoever says something has to wait."""
        return len(self._waiting) >= WAITING_MAX or self._bytes >= WAITING_BYTES_MAX

    def _wait(self) -> Said:
        running = _get_running_loop()
        if running is self._loop:
            return Said(self._wait_on_loop)
        if running is not None:
            return DONE  # the loop of task code: it rests only where it waits for an outcome
        while self.is_full and not self._is_closed:
            self._room.clear()
            if self.is_full:
                self._room.wait(_LOOK_SECONDS)
        return DONE

    async def _wait_on_loop(self) -> None:
        while self.is_full and not self._is_closed:
            future: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(future)
            await future

    def _call(self, seconds: float) -> None:
        """See to it that what was said goes out, at the latest so soon."""
        if self.is_full:
            seconds = 0
        if self._called_for is not None and self._called_for <= seconds:
            return
        self._called_for = seconds
        if _get_running_loop() is self._loop:
            self._arm(seconds)
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed: so is the engine
                self._loop.call_soon_threadsafe(self._arm, seconds)

    def _arm(self, seconds: float) -> None:
        if self._is_closed:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._due)

    def _due(self) -> None:
        self._timer = None
        self._called_for = None
        self._flush()

    # The driver, on the loop

    def ride(self) -> tuple[list[Emission], ProgressRow | None]:
        """Give what goes out with a row: all that is not durable for certain."""
        items, progress = self._take()
        if self._is_alone:
            items = [*self._alone, *items]
            progress = progress or self._alone_progress
            self._alone = []
        return items, progress

    def alone(self) -> tuple[list[Emission], ProgressRow | None] | None:
        """Give what goes out without a row; None where there is nothing, or some is under way."""
        if self._is_alone:
            return None
        items, progress = self._take()
        if not items and progress is None:
            return None
        self._alone, self._alone_progress = items, progress
        self._is_alone = True
        return items, progress

    def went_alone(self) -> None:
        """Hear that a write without rows is durable."""
        self._is_alone = False
        self._alone, self._alone_progress = [], None
        if self._waiting:
            self._flush()
        elif self._progress is not None:
            self._call(PROGRESS_SECONDS)

    def take_back(self, items: list[Emission], progress: ProgressRow | None) -> None:
        """Keep what went out with a row that was refused, for the next one."""
        with self._lock:
            self._waiting = [*items, *self._waiting]
            self._bytes = sum(len(one.payload) for one in self._waiting)
        self._progress = self._progress or progress
        self._call(SOON_SECONDS)

    def _take(self) -> tuple[list[Emission], ProgressRow | None]:
        with self._lock:
            items, self._waiting = self._waiting, []
            self._bytes = 0
        progress, self._progress = self._progress, None
        self._make_room()
        return items, progress

    def _make_room(self) -> None:
        self._room.set()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def follow(self, before: Emitter) -> None:
        """Count on from what task code has said on an earlier lease."""
        self._parts = {source: part for source, part in before._parts.items() if not source[1]}

    def close(self) -> None:
        """Let everybody go who waits; what is said from here on is nobody's."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._make_room()


__all__ = ["DONE", "ITEM_BYTES_MAX", "Emitter", "Said"]
