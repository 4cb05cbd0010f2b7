"""What people do with schedules: :class:`Book` on a store, :class:`Schedules` on an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from outlast.codec import digest
from outlast.duration import microseconds_of
from outlast.engine.control.asking import Asking
from outlast.engine.control.handle import Execution
from outlast.engine.task.registry import StartOptions, Task
from outlast.engine.write.acting import deed
from outlast.engine.write.request import birth_event
from outlast.errors import NotFound, ScheduleRefused, UsageError
from outlast.naming import checked_name, checked_text
from outlast.schedule import (
    REFUSALS,
    Entry,
    Request,
    Schedule,
    ScheduleKind,
    ScheduleRecord,
    ScheduleState,
    Wish,
    slots_after,
)
from outlast.schedule.decide import BACKFILL_MAX
from outlast.schedule.plan import wall
from outlast.store.protocol import DEFAULT_NUMBER, ScheduleAnswer, Store

if TYPE_CHECKING:
    from outlast.engine.engine import Engine

SCHEDULE_NAME_LENGTH_MAX: Final = 200
NEXT_MAX: Final = 1_000
"""Slots that are shown at once."""
_DO: Final = {
    "already_exists": "engine.schedules.update(…), or choose another name",
    "schedule_ended": "create it anew",
    "declared": "change @task(…), or make a schedule of another name",
    "too_many": f"part the span: one call makes {BACKFILL_MAX:,}",
    "no_slot": "look at its start, end and count",
}


class Book:
    """The schedules of a store, for one thread; a guest and an engine share it.

    Args:
        store: the open store.
        now: gives the time.
    """

    def __init__(self, store: Store, now: Callable[[], int]) -> None:
        self._schedules, self._now = store.schedules, now

    def sync(self, tasks: Mapping[str, Task[Any, Any]]) -> None:
        """Make, plan anew and retire what tasks declare; an operator's word stays.

        Only schedules of tasks that are known here are touched.
        """
        for name, task in tasks.items():
            if task.schedule is not None:
                draft = drafted(name, task, task.schedule, (), {})
                request = Request(wish=Wish.DECLARE, actor="code", draft=draft)
                answer = self._schedules.apply(name, request, self._now())
                assert answer.refused in (None, "no_slot")  # its end may have passed
        for record in self.every((ScheduleState.ACTIVE, ScheduleState.PAUSED)):
            known = tasks.get(record.name) if record.is_declared else None
            if known is not None and known.schedule is None:
                self.apply(record.name, Request(wish=Wish.RETIRE, actor="code"))

    def apply(self, name: str, request: Request) -> ScheduleAnswer:
        """Make a request.

        Raises:
            NotFound: there is no such schedule.
            ScheduleRefused: it cannot take this now.
        """
        answer = self._schedules.apply(name, request, self._now(), deed())
        code = answer.refused
        if code == "no_schedule":
            raise no_schedule(name)
        if code is not None:
            state = "" if answer.record is None else f", {answer.record.state}"
            raise ScheduleRefused(
                f"{request.wish} is not possible: {REFUSALS[code]}",
                refusal=code,
                where=f"schedule {name}{state}",
                do=_DO.get(code, ""),
            )
        return answer

    def get(self, name: str) -> ScheduleRecord:
        """Read a schedule.

        Raises:
            NotFound: there is none.
        """
        record = self._schedules.get(checked_schedule_name(name))
        if record is None:
            raise no_schedule(name)
        return record

    def every(self, states: Sequence[ScheduleState] = ()) -> list[ScheduleRecord]:
        """List all schedules by name."""
        found: list[ScheduleRecord] = []
        while part := self._schedules.page(states, found[-1].name if found else ""):
            found += part
        return found

    def next(self, name: str, count: int = 5) -> list[datetime]:
        """Give its next slots, in its time zone; a paused one's as if it were resumed now."""
        record = self.get(name)
        return [wall(slot, record.plan.tz) for slot in upcoming(record, self._now(), count)]

    def log(self, name: str, before: int | None = None, limit: int = 100) -> list[Entry]:
        """Read a schedule's log, the newest entry first."""
        self.get(name)
        return self._schedules.log(name, before, limit)

    def fate(self, name: str, at: datetime) -> str:
        """Say what became of a slot, or why there is none."""
        from outlast.engine.read.fate import fate_of

        record, slot = self.get(name), microseconds_of(at)
        return fate_of(record, self._schedules.fate(name, slot), slot, self._now())


def drafted(
    name: str,
    task: Task[Any, Any],
    schedule: Schedule,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> ScheduleRecord:
    """Make the row of a schedule that shall be.

    Raises:
        UsageError: its name is none.
        WrongArguments, BadPayload, PayloadTooLarge: the task does not take these arguments.
    """
    payload = task.input.bind(args, kwargs)
    born = dict(birth_event(task, payload, StartOptions(), now=0).data or {})
    del born["task"], born["input_digest"]
    return ScheduleRecord(
        DEFAULT_NUMBER,  # the store that takes it puts its own
        checked_schedule_name(name),
        task.name,
        schedule.plan,
        ScheduleState.ACTIVE,
        input=payload,
        input_digest=digest(payload),
        options=born,
    )


def checked_schedule_name(name: str) -> str:
    """Give a name back, having seen that it can be a schedule's.

    Raises:
        UsageError: it is empty, too long, no text, or holds what cannot be printed.
    """
    checked_name(name, "schedule's name")
    if len(name) > SCHEDULE_NAME_LENGTH_MAX or not name.isprintable():
        raise UsageError(
            f"{name[:80]!a} cannot name a schedule",
            why=f"a name is printable and has at most {SCHEDULE_NAME_LENGTH_MAX} characters",
        )
    return name


def no_schedule(name: str) -> NotFound:
    """Say that there is no such schedule."""
    return NotFound(f"there is no schedule {name[:200]}", do="outlast schedule ls")


def upcoming(record: ScheduleRecord, now: int, count: int) -> list[int]:
    """Give the next slots of a schedule; none of one that has ended."""
    if record.has_ended:
        return []
    if not 1 <= count <= NEXT_MAX:
        raise UsageError(f"{count} slots cannot be shown", why=f"it is 1 to {NEXT_MAX:,}")
    after = now
    if record.state is ScheduleState.ACTIVE:
        if record.next_slot is None:
            return []
        after = record.next_slot - 1
    if record.plan.count_max is not None:
        taken = record.fired + (record.waiting_slot is not None)
        count = min(count, record.plan.count_max - taken)
    return list(islice(slots_after(record.plan, after), count))


class Schedules(Asking[Book]):
    """The schedules of an engine's store. Every method has an async twin, with an ``a`` before it.

    All raise ``NotFound`` where there is no such schedule, and ``ScheduleRefused`` where it cannot
    take what is asked of it; nothing was written then.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, Book)

    async def acreate(
        self,
        name: str,
        task: Task[Any, Any],
        schedule: Schedule,
        /,
        *args: Any,
        **kwargs: Any,
    ) -> ScheduleRecord:
        """Make a schedule; its executions get these arguments. The same again changes nothing.

        Raises:
            ScheduleRefused: another schedule has this name, or this one would never fire.
            WrongArguments, BadPayload, PayloadTooLarge: the task does not take these arguments.
        """
        draft = drafted(name, task, schedule, args, kwargs)
        return await self._decide(name, Request(wish=Wish.CREATE, draft=draft))

    def create(
        self,
        name: str,
        task: Task[Any, Any],
        schedule: Schedule,
        /,
        *args: Any,
        **kwargs: Any,
    ) -> ScheduleRecord:
        """Make a schedule, as :meth:`acreate`."""
        return self._engine.run(self.acreate(name, task, schedule, *args, **kwargs))

    async def aupdate(
        self,
        name: str,
        task: Task[Any, Any],
        schedule: Schedule,
        /,
        *args: Any,
        **kwargs: Any,
    ) -> ScheduleRecord:
        """Plan a schedule anew; its log goes on, a pause stays.

        What is late stays due where the slots are the same; else it begins after now.
        """
        draft = drafted(name, task, schedule, args, kwargs)
        return await self._decide(name, Request(wish=Wish.UPDATE, draft=draft))

    def update(
        self,
        name: str,
        task: Task[Any, Any],
        schedule: Schedule,
        /,
        *args: Any,
        **kwargs: Any,
    ) -> ScheduleRecord:
        """Plan a schedule anew, as :meth:`aupdate`."""
        return self._engine.run(self.aupdate(name, task, schedule, *args, **kwargs))

    async def aget(self, name: str) -> ScheduleRecord:
        """Read a schedule's row."""
        return await self._read(lambda book: book.get(name))

    def get(self, name: str) -> ScheduleRecord:
        """Read a schedule's row, as :meth:`aget`."""
        return self._engine.run(self.aget(name))

    async def alist(self, *states: ScheduleState | str) -> Sequence[ScheduleRecord]:
        """List the schedules in these states, by default all, by name."""
        wanted = [ScheduleState(state) for state in states]
        return await self._read(lambda book: book.every(wanted))

    def list(self, *states: ScheduleState | str) -> Sequence[ScheduleRecord]:
        """List the schedules, as :meth:`alist`."""
        return self._engine.run(self.alist(*states))

    async def anext(self, name: str, count: int = 5) -> Sequence[datetime]:
        """Give its next slots, in its time zone; a paused one's as if it were resumed now."""
        return await self._read(lambda book: book.next(name, count))

    def next(self, name: str, count: int = 5) -> Sequence[datetime]:
        """Give its next slots, as :meth:`anext`."""
        return self._engine.run(self.anext(name, count))

    async def alog(self, name: str, limit: int = 100) -> Sequence[Entry]:
        """Read its log, the newest entry first: what became of each slot, what people did."""
        return await self._read(lambda book: book.log(name, None, limit))

    def log(self, name: str, limit: int = 100) -> Sequence[Entry]:
        """Read its log, as :meth:`alog`."""
        return self._engine.run(self.alog(name, limit))

    async def awhy(self, name: str, at: datetime) -> str:
        """Say what became of the slot at an instant, or why there is none."""
        return await self._read(lambda book: book.fate(name, at))

    def why(self, name: str, at: datetime) -> str:
        """Say what became of a slot, as :meth:`awhy`."""
        return self._engine.run(self.awhy(name, at))

    async def apause(
        self, name: str, why: str | None = None, *, actor: str = "user"
    ) -> ScheduleRecord:
        """Hold it: no slot is fired until it is resumed. Open executions go on."""
        return await self._decide(name, by_hand(Wish.PAUSE, actor, why))

    def pause(self, name: str, why: str | None = None, *, actor: str = "user") -> ScheduleRecord:
        """Hold it, as :meth:`apause`."""
        return self._engine.run(self.apause(name, why, actor=actor))

    async def aresume(
        self, name: str, why: str | None = None, *, actor: str = "user"
    ) -> ScheduleRecord:
        """Let it go on, with the next slot; those of the pause are missed (see ``backfill``)."""
        return await self._decide(name, by_hand(Wish.RESUME, actor, why))

    def resume(self, name: str, why: str | None = None, *, actor: str = "user") -> ScheduleRecord:
        """Let it go on, as :meth:`aresume`."""
        return self._engine.run(self.aresume(name, why, actor=actor))

    async def acancel(
        self, name: str, why: str | None = None, *, actor: str = "user"
    ) -> ScheduleRecord:
        """End it for good; open executions go on. A redeploy does not bring it back."""
        return await self._decide(name, by_hand(Wish.CANCEL, actor, why))

    def cancel(self, name: str, why: str | None = None, *, actor: str = "user") -> ScheduleRecord:
        """End it for good, as :meth:`acancel`."""
        return self._engine.run(self.acancel(name, why, actor=actor))

    async def atrigger(
        self, name: str, why: str | None = None, *, actor: str = "user"
    ) -> Execution[Any]:
        """Make an execution at once, whatever is open; its slots and its count stay as they are."""

        async def make() -> Execution[Any]:
            id = self._engine.new_id()
            await self._apply(asked(name, by_hand(Wish.TRIGGER, actor, why, ids=(id,))))
            return self._engine.execution(id)

        return await self._engine.request(make)

    def trigger(self, name: str, why: str | None = None, *, actor: str = "user") -> Execution[Any]:
        """Make an execution at once, as :meth:`atrigger`."""
        return self._engine.run(self.atrigger(name, why, actor=actor))

    async def abackfill(
        self, name: str, since: datetime, until: datetime, *, actor: str = "user"
    ) -> Sequence[Execution[Any]]:
        """Make the executions of past slots, both ends included, that have none.

        All at once, whatever is open. At most 1,000 slots a call; slots that are still to be
        decided about are left alone.
        """
        bounds = microseconds_of(since), microseconds_of(until)

        async def make() -> Sequence[Execution[Any]]:
            ids = tuple(self._engine.new_id() for _ in range(BACKFILL_MAX))
            answer = await self._apply(asked(name, backfilling(*bounds, actor, ids)))
            return [self._engine.execution(id) for id in answer.made]

        return await self._engine.request(make)

    def backfill(
        self, name: str, since: datetime, until: datetime, *, actor: str = "user"
    ) -> Sequence[Execution[Any]]:
        """Make the executions of past slots, as :meth:`abackfill`."""
        return self._engine.run(self.abackfill(name, since, until, actor=actor))

    async def _decide(self, name: str, request: Request) -> ScheduleRecord:
        record = (await self._change(asked(name, request))).record
        assert record is not None
        return record

    def _changed(self, done: ScheduleAnswer) -> None:
        self._engine.scheduler.look()
        if done.made:
            self._engine.look()


def asked(name: str, request: Request) -> Callable[[Book], ScheduleAnswer]:
    """Make the call of a book for a request.

    Raises:
        UsageError: that is no name of a schedule.
    """
    checked_schedule_name(name)
    return lambda book: book.apply(name, request)


def by_hand(wish: Wish, actor: str, why: str | None, ids: tuple[str, ...] = ()) -> Request:
    """Make the request of a person.

    Raises:
        UsageError: the reason is no text, or the sender no name.
    """
    checked_name(actor, "sender")
    if why is not None:
        checked_text(why, "reason")
    return Request(wish=wish, actor=actor, why=why, ids=ids)


def backfilling(since: int, until: int, actor: str, ids: tuple[str, ...]) -> Request:
    """Make the request for past slots.

    Raises:
        UsageError: the end lies before the beginning.
    """
    checked_name(actor, "sender")
    if until < since:
        raise UsageError("the end of the backfill lies before its beginning")
    return Request(wish=Wish.BACKFILL, actor=actor, since=since, until=until, ids=ids)


__all__ = ["Book", "ScheduleKind", "Schedules"]
