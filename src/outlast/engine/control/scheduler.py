"""Fires schedules: sleeps until the next slot of any, then has the store decide about it.

Theory of operation. What a slot comes to is decided in the store's own transaction
(``schedule.decide``), so it does not matter how many schedulers there are or where one dies: the
first to commit has moved the schedule on, everybody else is refused as ``moved`` and looks again.
It is woken by the clock, by a change of a schedule (here, or by another process), and by the end of
an execution that a slot waits for. Nothing is remembered but what is broken, and of which schedules
a slot waits: only a scheduler makes one wait, so nobody else has to be asked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from outlast.engine.control.schedules import Book
from outlast.errors import OutlastError
from outlast.lifecycle import Execution as Record
from outlast.lifecycle import State
from outlast.naming import SCHEDULE_ORIGIN
from outlast.schedule import Request, ScheduleState, Wish

if TYPE_CHECKING:
    from outlast.engine.engine import Engine

DUE_MAX: Final = 100
"""Schedules advanced after one look."""
BIRTHS_MAX: Final = 16
"""Executions that one schedule makes in one transaction, so that nobody waits long behind it."""
BROKEN_SECONDS: Final = 1.0
"""How often it looks while a schedule that is due is broken."""
PRUNE_MAX: Final = 500
"""Entries deleted with one transaction."""
_OPEN: Final = (ScheduleState.ACTIVE, ScheduleState.PAUSED)


class Scheduler:
    """Fires the schedules of one engine's store; for its loop only."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._wake = asyncio.Event()
        self._broken: set[str] = set()
        self._waiting: set[str] = set()

    def look(self) -> None:
        """See what there is to fire."""
        self._wake.set()

    def ended(self, record: Record) -> None:
        """An execution has ended; a slot may have waited for it."""
        origin = record.origin
        if origin is not None and origin.removeprefix(SCHEDULE_ORIGIN) in self._waiting:
            self._wake.set()

    def swept(self) -> None:
        """The clock has moved executions; a slot may have waited for one that timed out."""
        if self._waiting:
            self._wake.set()

    async def sync(self) -> None:
        """Bring the store what the tasks' code declares."""
        engine = self._engine
        book = Book(engine.store, engine.clock.now)
        await engine.journal.call(partial(book.sync, dict(engine.tasks)))
        self._waiting = {one.name for one in book.every(_OPEN) if one.waiting_slot is not None}

    async def tick(self) -> None:
        """Advance what is due, then sleep until the next instant."""
        engine = self._engine
        self._wake.clear()
        now = engine.clock.now()
        due, next_at = await engine.worker.read(lambda: engine.store.schedules.due(now, DUE_MAX))
        sound = [one for one in due if one[0] not in self._broken]
        if sound:
            await self._advance(sound)
            return
        longest = engine.tick_seconds_max
        delay = longest if next_at is None else (next_at - engine.clock.now()) / 1e6
        if delay <= 0:
            delay = BROKEN_SECONDS  # of one that is broken; others may be due before long
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(delay, longest)):
                await self._wake.wait()

    async def _advance(self, due: Sequence[tuple[str, int]]) -> None:
        """Advance schedules together: one commit for all that come at the same instant."""
        engine = self._engine
        now = engine.clock.now()
        requests = [(name, self._request(seq)) for name, seq in due]
        apply_all = engine.store.schedules.apply_all
        try:
            answers = await engine.journal.call(lambda: apply_all(requests, now))
        except OutlastError:
            engine.doubt()
            raise
        for (name, _), answer in zip(due, answers, strict=True):
            if answer.error is not None:
                self._set_aside(name, answer.error)
                continue
            if answer.record is not None and answer.record.waiting_slot is not None:
                self._waiting.add(name)
            else:
                self._waiting.discard(name)
            for id in answer.cancelled:
                self.tell_cancelled(id)
        if any(answer.made for answer in answers):
            engine.look()

    def _request(self, seq: int) -> Request:
        ids = tuple(self._engine.new_id() for _ in range(BIRTHS_MAX))
        return Request(wish=Wish.ADVANCE, actor="engine", seq=seq, ids=ids)

    def _set_aside(self, name: str, error: Exception) -> None:
        """Leave a schedule that cannot be advanced to its operator; the others go on."""
        self._broken.add(name)
        self._engine.loop.call_exception_handler(
            {"message": f"outlast cannot fire schedule {name}", "exception": error}
        )

    def tell_cancelled(self, id: str) -> None:
        """Bring the driver of an execution its cancel, or its waiters its end."""
        driver = self._engine.worker.drivers.get(id)
        if driver is not None:
            self._engine.worker.read_inbox(driver)
        else:
            self._engine._ended(id)

    async def prune(self) -> None:
        """Delete entries of logs that are older than executions that succeeded are kept."""
        engine = self._engine
        kept_us = engine._retention.kept_us(State.SUCCEEDED)
        if kept_us is None:
            return
        before = engine.clock.now() - kept_us
        prune = partial(engine.store.schedules.prune, before, PRUNE_MAX)
        while await engine.journal.call(prune) == PRUNE_MAX:
            pass


__all__ = ["Scheduler"]
