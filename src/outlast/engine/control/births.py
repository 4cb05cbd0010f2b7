"""Executions that are started together: sent to the journal in parts, and answered in order.

What has been answered can be taken at any time: of many, nothing but their ids has to be kept.

Those that only wait in their queue are sent well ahead of their commits, so that the loop makes the
next ones while the journal's thread writes; and where they differ by their inputs alone, many are
one item, whose parts are the same for all (decision 0048). Those that run at once are sent in small
parts, and the next part waits for them: what runs meanwhile stays in the processor's caches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from outlast.codec import digest
from outlast.engine.write.acting import signed
from outlast.engine.write.request import birth_event, birth_of_many, read_birth
from outlast.errors import InternalError
from outlast.lifecycle import Event, State
from outlast.lifecycle import Execution as Record
from outlast.store.protocol import Answer, Create, CreateMany

if TYPE_CHECKING:
    from outlast.engine.drive.driver import Driver
    from outlast.engine.engine import Engine
    from outlast.engine.task.registry import StartOptions, Task

START_MANY: Final = 128
"""Executions that run at once and are sent before waiting for their commits: with more, those that
run meanwhile fall out of the processor's caches, and W1 loses a fifth."""
PUT_MANY: Final = 4_000
"""The same where they only wait in their queue; more are sent when half of them are written."""
PART: Final = START_MANY
"""How many are sent without giving others a turn of the loop."""
ALIKE: Final = 1_000
"""The same of those that are one item, and take the loop a fifth of the time."""
ALIKE_BYTES: Final = 1024 * 1024
"""Bytes of inputs after which such an item takes no more."""
_EXPECTED: Final = (None, "already_exists", "key_conflict", "no_upstream", "tenant_closed")


class Births:
    """Births on their way; send them, and wait for what becomes of them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._drivers: dict[str, Driver] = {}
        self._answers: list[tuple[Create | CreateMany, Answer]] = []
        self._submitted = self._answered = 0
        self._waits = self._is_early = False
        self._due_at: int | None = None
        self._failed: Exception | None = None
        self._until = 0
        self._come: asyncio.Future[None] | None = None

    def submit(self, id: str, event: Event, now: int) -> None:
        """Send one to the journal."""
        item, driver = self._engine.worker.birth(id, event, now)
        self._submitted += 1
        if driver is not None:
            self._drivers[id] = driver
        elif item.after.state is State.SCHEDULED and item.after.detail is None:
            self._is_early = True
        else:  # what waits for others may be queued by its very birth: they have ended
            self._waits = True
        if self._is_early or item.after.deadline_at is not None:
            due_at = _due_at(item.after)
            self._due_at = due_at if self._due_at is None else min(due_at, self._due_at)
        self._engine.journal.submit(signed(item), self)

    def send(
        self, task: Task[Any, Any], options: StartOptions, payloads: Sequence[bytes], place: int
    ) -> int:
        """Send a part of those with these inputs, from this place on; gives where the next begins.

        Raises:
            UsageError: see :func:`birth_event`.
        """
        engine = self._engine
        now = engine.clock.now()
        alike = birth_of_many(task, options)
        if alike is None or engine.worker.runs_at_once(alike, now):
            some = payloads[place : place + PART]
            for payload in some:
                self.submit(engine.new_id(), birth_event(task, payload, options, now), now)
            return place + len(some)
        part: list[bytes] = []
        size = 0
        for payload in payloads[place : place + ALIKE]:
            part.append(payload)
            size += len(payload)
            if size > ALIKE_BYTES:
                break
        ids = engine.new_ids(len(part))
        item = CreateMany(alike, now, ids, part, list(map(digest, part)))
        self._submitted += len(part)
        self._waits = True
        engine.journal.submit(signed(item), self)
        return place + len(part)

    def settled(self, item: Create | CreateMany, answer: Answer) -> None:
        """Hear from the journal; a driver is let go here, in a plain callback of the loop."""
        if self._drivers and isinstance(item, Create):
            driver = self._drivers.pop(item.after.id, None)
            if driver is not None:
                stored = answer.refused is None and not answer.unclaimed
                self._engine.worker.born(driver, item, stored)
                self._waits = self._waits or bool(answer.unclaimed)
        self._answers.append((item, answer))
        self._answered += len(item.ids) if isinstance(item, CreateMany) else 1
        if answer.refused not in _EXPECTED and self._failed is None:
            self._failed = answer.error or InternalError(f"a start was refused: {answer.refused}")
        awaited = self._come is not None and not self._come.done()
        is_enough = awaited and self._answered >= self._until
        if is_enough or self._answered == self._submitted:
            self._tell()
        if is_enough:
            assert self._come is not None
            self._come.set_result(None)

    def _tell(self) -> None:
        """Have the engine look at what is there now."""
        if self._waits:
            self._engine.look()
        elif self._due_at is not None:
            self._engine.expect(self._due_at)
        if self._waits or self._is_early:
            self._engine.hint("work")  # another one may know the task, or have room
        self._waits = self._is_early = False
        self._due_at = None

    def come(self) -> list[Answer]:
        """Take what has become of those that were answered, in the order they were sent in.

        Raises:
            StoreUnavailable: as :meth:`room`.
        """
        if self._failed is not None:
            raise self._failed
        answers, self._answers = self._answers, []
        return [answer for _, answer in answers]

    def ids(self, options: StartOptions) -> list[str]:
        """Name those that were answered, as :meth:`come` gives what has become of them.

        Raises:
            KeyConflict, NotFound, TenantClosed: see :func:`read_birth`.
            StoreUnavailable: as :meth:`room`.
        """
        if self._failed is not None:
            raise self._failed
        answers, self._answers = self._answers, []
        ids: list[str] = []
        for item, answer in answers:
            if isinstance(item, Create) or answer.refused is not None:
                ids.append(read_birth(answer, options.key).id)
            else:
                ids += item.ids
        return ids

    async def room(self) -> None:
        """Wait until more may be sent.

        Raises:
            StoreUnavailable: which of those that were sent are written is unknown.
        """
        await self._engine.journal.room()
        under_way = self._submitted - self._answered
        if self._drivers:
            if under_way >= START_MANY:
                await self.all()
        elif under_way >= PUT_MANY:
            await self._wait(self._submitted - PUT_MANY // 2)
        elif self._submitted:
            await asyncio.sleep(0)  # others want to run, too

    async def all(self) -> None:
        """Wait until all are answered.

        Raises:
            StoreUnavailable: as :meth:`room`.
        """
        await self._wait(self._submitted)

    async def _wait(self, count: int) -> None:
        """Wait for so many answers since the beginning."""
        if self._answered < count:
            self._until = count
            self._come = self._engine.loop.create_future()
            await self._come
        if self._failed is not None:
            raise self._failed


def _due_at(born: Record) -> int:
    """Say when the clock moves first what was born."""
    instants = (born.due_at, born.deadline_at, born.start_by)
    return min((at for at in instants if at is not None), default=0)


__all__ = ["ALIKE", "PART", "PUT_MANY", "START_MANY", "Births"]
