"""Crash an engine after every committed transition in turn, and see that nothing comes of it.

A scenario is run once undisturbed, and then once for every commit of that run. In run *n* the
engine dies with its *n*-th commit, as by SIGKILL: what was committed is in the store, but nobody
has heard of it, nothing more is written, nothing is handed back. A new engine opens the same store
and takes the executions back; the scenario goes on without noticing. (What it asked of the dead
engine is asked again of the new one, under the same ids, as a careful caller does.) Every run must
come out as the first one, and no body of a step whose outcome was recorded may run again.

One thing a test cannot do as SIGKILL does: a body that is under way gets a ``CancelledError``, and
a thread runs to its end before the new engine begins.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self, TypeVar

from outlast.duration import Duration
from outlast.engine.engine import Engine
from outlast.engine.steps.body import Body
from outlast.engine.task.current import closed
from outlast.engine.task.registry import Task
from outlast.engine.write.identity import worker_name
from outlast.engine.write.journal import Journal
from outlast.lifecycle import Kind, State
from outlast.store.memory import MemoryStore
from outlast.store.protocol import Store
from outlast.testing.virtual import BEGINNING, Ids, LoopJournal, VirtualEngine

T = TypeVar("T")
Outcomes = dict[str, tuple[str, State, object]]


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """Where an engine died: right after this row of a log was committed.

    Attributes:
        number: which commit it was, from 1.
        execution_id: whose row it was.
        seq: the row's number in its log.
        kind: what happened.
        key: to which call, if to one.
    """

    number: int
    execution_id: str
    seq: int
    kind: Kind
    key: str | None

    def __str__(self) -> str:
        what = f"{self.kind} {self.key}" if self.key else str(self.kind)
        return f"crash point {self.number}: row {self.seq} ({what}) of {self.execution_id}"


@dataclass(frozen=True, slots=True)
class CrashReport:
    """What was tried.

    Attributes:
        points: where the engine died, one run each.
        result: what the scenario gave, each time.
    """

    points: tuple[CrashPoint, ...]
    result: Any


def crash_everywhere(
    scenario: Callable[[CrashingEngine], Any],
    *,
    tasks: Iterable[Task[Any, Any]] | None = None,
    start_at: datetime = BEGINNING,
    patience: Duration = "5s",
) -> CrashReport:
    """Run a scenario again and again, with a crash after every committed transition in turn.

    Args:
        scenario: a function (``def`` or ``async def``) that is given an engine; it must begin
            afresh each time, and end by itself.
        tasks: as for :func:`outlast.testing.engine`.
        start_at: as there.
        patience: as there.

    Raises:
        AssertionError: a crash changed what came out, or a recorded body ran again; or the scenario
            has committed nothing, so that nothing was tried.
        Exception: what the scenario raises without any crash.
    """
    known = None if tasks is None else list(tasks)

    def once(crash_after: int | None) -> tuple[Any, CrashingEngine]:
        engine = CrashingEngine(crash_after, tasks=known, start_at=start_at, patience=patience)
        with engine:
            result = scenario(engine)
            if inspect.iscoroutine(result):
                result = asyncio.run(result)
        return result, engine

    expected, undisturbed = once(None)
    check_some(undisturbed)
    points = []
    for number in range(1, undisturbed.commits + 1):
        engine: CrashingEngine | None = None
        try:
            result, engine = once(number)
        except Exception as error:
            raise AssertionError(
                differs(number, undisturbed, f"it raised {type(error).__name__}: {error}")
            ) from error
        if result != expected:
            why = f"it gave {result!r} instead of {expected!r}"
            raise AssertionError(differs(number, undisturbed, why))
        said = compared(engine, undisturbed)
        if said is not None:
            raise AssertionError(differs(number, undisturbed, said))
        assert engine.crash is not None
        points.append(engine.crash)
    return CrashReport(tuple(points), expected)


def check_some(undisturbed: CrashingEngine) -> None:
    """See that there is something to try.

    Raises:
        AssertionError: nothing was committed.
    """
    if not undisturbed.commits:
        raise AssertionError(
            "there was no crash point to try; "
            "why: the scenario has committed no transition; "
            "do: start an execution on the engine that the scenario is given"
        )


def differs(number: int, undisturbed: CrashingEngine, why: str) -> str:
    """Say in four parts what a crash has changed."""
    return (
        "a crash changed what comes out; "
        f"where: {undisturbed.points[number - 1]} (of {undisturbed.commits}); "
        f"why: {why}; "
        "do: what task code counts, sends or reads by itself happens again in a replay: "
        "put it in a step, and let steps bear being tried twice (this_step().idempotency_key)"
    )


def compared(crashed: CrashingEngine, undisturbed: CrashingEngine) -> str | None:
    """Say how a run with a crash differs from the undisturbed run; None: not at all."""
    if crashed.repeated:
        return f"a body ran again although its outcome was recorded: {', '.join(crashed.repeated)}"
    if crashed.crash is None:
        return "it took another way: it did not come to this point"
    if crashed.crash != undisturbed.points[crashed.crash.number - 1]:
        return f"it took another way before the crash, to {crashed.crash}"
    if crashed.defects:
        return f"the store is broken: {crashed.defects[0]}"
    mine, other = crashed.outcomes, undisturbed.outcomes
    for id in sorted(mine.keys() | other.keys()):
        if mine.get(id) != other.get(id):
            return f"{id} came to {_shown(mine.get(id))} instead of {_shown(other.get(id))}"
    return None


def _shown(outcome: tuple[str, State, object] | None) -> str:
    if outcome is None:
        return "nothing (it was never started)"
    task, state, value = outcome
    return f"{task} {state} {value!r}"


class CrashingEngine(VirtualEngine):
    """A virtual engine that dies once, with a given commit, and comes back on the same store.

    Attributes:
        commits: how many commits with new rows there were.
        points: each of them.
        crash: where it died, or None.
        repeated: the bodies that were run although their outcome was recorded.
        outcomes: once it is closed: what each execution came to.
        defects: once it is closed: what is wrong with its store.
    """

    def __init__(
        self,
        crash_after: int | None,
        *,
        tasks: Iterable[Task[Any, Any]] | None = None,
        start_at: datetime = BEGINNING,
        patience: Duration = "5s",
    ) -> None:
        super().__init__(tasks=tasks, start_at=start_at, patience=patience)
        self._ids = _TapedIds()
        self._crash_after = crash_after
        self._lengths: dict[str, int] = {}
        self._plain_start: Callable[[Body], bool] = Body.start
        self.points: list[CrashPoint] = []
        self.crash: CrashPoint | None = None
        self.repeated: list[str] = []
        self.outcomes: Outcomes = {}
        self.defects: list[str] = []

    @property
    def commits(self) -> int:
        """How many commits with new rows there were."""
        return len(self.points)

    def __enter__(self) -> Self:
        plain, about_to_run = Body.start, self._about_to_run

        def start(body: Body) -> bool:
            about_to_run(body)
            return plain(body)

        self._plain_start = plain
        Body.start = start  # type: ignore[method-assign, assignment]
        super().__enter__()
        self._fallen: asyncio.Future[None] = self._virtual.create_future()
        self._risen: asyncio.Future[None] = self._virtual.create_future()
        return self

    def close(self) -> int:
        """Close it, having noted what everything came to."""
        if not self._is_over:
            self.outcomes = _outcomes(self._memory)
            self.defects = self._memory.verify().defects
            if self.crash is None and self._crash_after is not None:
                self._crash_after = None  # what closing writes is no part of the scenario
        return super().close()

    def _end(self) -> None:
        Body.start = self._plain_start  # type: ignore[method-assign, assignment]
        super()._end()

    def _about_to_run(self, body: Body) -> None:
        """Note a body whose outcome is in the log, in this try of its task or an earlier one."""
        id, call = body.info().execution_id, body.call
        driver = self.worker.drivers.get(id)
        if driver is None or driver.bodies.get(call.key) is not body:
            return  # it is another engine's
        this_try = True
        for row in reversed(self._memory.log(id)):
            this_try = this_try and row.kind is not Kind.RETRY
            if row.kind is Kind.STEP and row.key == call.key:
                failed = bool(row.data and row.data.get("failed"))
                if this_try or (row.digest == call.digest and not failed):
                    self.repeated.append(f"{call.key} of {id}")
                    return

    # Falling and rising

    def _make_journal(self, store: Store) -> Journal:
        return _CrashingJournal(store, self._virtual, self._committed)

    def _committed(self) -> bool:
        """A verb of the store has run; gives whether that was the last thing this engine did."""
        if not self.is_open:
            return False  # it is just coming back
        newest = None
        for id, log in self._memory._logs.items():
            if len(log) != self._lengths.get(id, 0):
                self._lengths[id] = len(log)
                newest = log[-1]
        if newest is None:
            return False
        number = self.commits + 1
        point = CrashPoint(number, newest.execution_id, newest.seq, newest.kind, newest.key)
        self.points.append(point)
        if number != self._crash_after:
            return False
        self.crash = point
        self._fall()
        return True

    def _fall(self) -> None:
        """Die: everything is forgotten but the store."""
        self.is_open = False
        closed(self)
        worker = self.worker
        worker._open = False
        claiming = [worker._claiming] if worker._claiming is not None else []
        for task in [*self._services, *claiming, *worker._pending]:
            task.cancel()
        for driver in list(worker.drivers.values()):
            driver.drop()
        worker.warm.close()
        for pool in (worker._step_threads, worker._task_threads, worker._read_threads):
            pool.shutdown(wait=False, cancel_futures=True)
            for thread in pool._threads:
                thread.join(self._virtual.patience_seconds)
        self._virtual.forget_threads()
        self._virtual.call_soon(self._rise)

    def _rise(self) -> None:
        self._back = self._virtual.create_task(self._come_back())

    async def _come_back(self) -> None:
        self.name = worker_name()
        self.recent.clear()
        await Engine.open(self)
        for id in list(self._waiters):
            self._ended(id)  # they look again
        self._fallen.set_result(None)
        self._risen.set_result(None)

    async def _lasting(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Ask again, under the same ids, if the engine dies before it has answered."""
        tape = _Tape()
        _tape.set(tape)
        if self._risen.done():
            return await make()
        attempt = self._virtual.create_task(make())
        either: set[asyncio.Future[Any]] = {attempt, self._fallen}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not attempt.done():
            attempt.cancel()
            await self._risen
            tape.place = 0
            attempt = self._virtual.create_task(make())
        return await attempt


class _CrashingJournal(LoopJournal):
    """A journal that writes item by item, and can die with any of them."""

    def __init__(
        self, store: Store, loop: asyncio.AbstractEventLoop, committed: Callable[[], bool]
    ) -> None:
        self._committed = committed
        self._is_dead = False
        super().__init__(store, loop)

    def submit(self, item: Any, submitter: Any) -> None:
        if not self._is_dead:
            super().submit(item, submitter)

    def put(self, post: Any) -> None:
        if not self._is_dead:
            super().put(post)

    def _one(self, post: Any) -> None:
        for one in [[entry] for entry in post] if isinstance(post, list) else [post]:
            if not self._is_dead:
                super()._one(one)

    def _tell(self, callback: Callable[..., None], *args: Any) -> None:
        """The store has just done something; the next thing would be that somebody hears of it."""
        self._is_dead = self._is_dead or self._committed()
        if not self._is_dead:
            super()._tell(callback, *args)


class _Tape:
    """The ids that a request has drawn, to be drawn again when it is made again."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.place = 0


_tape: ContextVar[_Tape | None] = ContextVar("outlast_testing_tape", default=None)


class _TapedIds(Ids):
    def make(self, now_us: int) -> str:
        tape = _tape.get()
        if tape is None:
            return super().make(now_us)
        if tape.place == len(tape.ids):
            tape.ids.append(super().make(now_us))
        tape.place += 1
        return tape.ids[tape.place - 1]


def _outcomes(store: MemoryStore) -> Outcomes:
    """Give what each execution has come to so far."""
    found: Outcomes = {}
    for id, log in store._logs.items():
        record, last = store._records[id], log[-1]
        value: object = None
        if record.is_final:
            error = (last.data or {}).get("error")
            value = error if error is not None else last.payload
        found[_name(store, id)] = (record.task, record.state, value)
    return found


def _name(store: MemoryStore, id: str) -> str:
    """Name an execution alike in every run: a child by its call, as its id is drawn by a life."""
    record, birth = store._records[id], store._logs[id][0]
    source = (birth.data or {}).get("continued_from")
    if isinstance(source, str) and source in store._records:
        return f"{_name(store, source)}, continued"
    if record.parent_id is None:
        return id
    parent = _name(store, record.parent_id) if record.parent_id in store._records else "?"
    if record.parent_key is not None:
        again = [
            other
            for other in store._children[record.parent_id]
            if store._records[other].parent_key == record.parent_key
        ].index(id)
        return f"{parent} / {record.parent_key}" + (f" again {again}" if again else "")
    started = [
        other
        for other in store._children[record.parent_id]
        if store._records[other].parent_key is None
    ]
    return f"{parent} / started {started.index(id)}"
