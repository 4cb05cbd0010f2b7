"""The engine for tests: the real one, on a store in memory and a virtual clock.

Everything that decides is the engine's own: driver, scopes, worker, lifecycle, store. Replaced are
the clock and the loop (:mod:`outlast.testing.loop`), the thread of the journal (which would make
the order of things a matter of luck), and what only other processes make necessary.
"""

from __future__ import annotations

import asyncio
import random
from asyncio import _get_running_loop
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, ClassVar, Final, Self, TypeVar

from outlast.duration import Duration, instant, microseconds, microseconds_of
from outlast.engine.control.bulk import BulkReport
from outlast.engine.control.descent import Descent
from outlast.engine.control.handle import Execution
from outlast.engine.drive.warm import WarmCopies
from outlast.engine.engine import Ended, Engine
from outlast.engine.read.questions import OpenQuestion, open_questions
from outlast.engine.task.registry import PLAIN, StartOptions, Task
from outlast.engine.write.identity import IdMaker, _base32
from outlast.engine.write.journal import Journal
from outlast.errors import InternalError, NoEngine, UsageError, WaitTimeout
from outlast.lifecycle import FINAL, Message
from outlast.lifecycle import Execution as Record
from outlast.store.memory import MemoryStore
from outlast.store.protocol import (
    Adjust,
    BudgetRow,
    Filter,
    Part,
    ProgressRow,
    Store,
    StreamHead,
    StreamItem,
)
from outlast.testing.loop import NumberedThreads, VirtualLoop
from outlast.testing.waiting import explained

R = TypeVar("R")
T = TypeVar("T")

_FAULTS: Final = ("outlast", "Exception in callback")
"""How the messages begin that somebody other than a test's author has to answer for."""
LOOKS_MAX: Final = 200
"""How often executions are parked at one instant before that is taken for a bug of ours."""
BEGINNING: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""When the virtual clock begins: always the same, so that every run of a test is the same."""


class VirtualEngine(Engine):
    """An engine on a store in memory, whose time passes only when it is told to.

    Use it with ``with``, or with ``async with`` in ``async def`` tests. All methods without an
    ``a`` work in both: they run the engine, in this very thread, until there is nothing left to
    run, and never wait for time. Between two calls the engine stands still.

    Args:
        tasks: the tasks it runs; by default every task defined in this process.
        start_at: when its time begins.
        patience: how long, in real time, threads and sockets of steps are waited for. What has not
            ended by then is taken to hang.
        cancel_grace: as for :class:`outlast.Engine`.
    """

    tick_seconds_max: ClassVar[float] = 10.0**9
    warm_copies: ClassVar[int] = 0
    """None: each time that an execution goes on, its replay is tried."""

    def __init__(
        self,
        *,
        tasks: Iterable[Task[Any, Any]] | None = None,
        start_at: datetime = BEGINNING,
        patience: Duration = "5s",
        cancel_grace: Duration = "30s",
    ) -> None:
        super().__init__("memory:", tasks=tasks, patience=0, cancel_grace=cancel_grace)
        self._start_us = microseconds_of(start_at)
        self._patience_seconds = microseconds(patience) / 1e6
        self._errors: list[BaseException] = []
        self._looks = self._looked_at = 0
        self._ids = Ids()
        self._memory = MemoryStore()
        self._dice: Any = None
        self._is_over = False

    # What the user calls

    def advance(self, duration: Duration) -> None:
        """Let time pass: every timer on the way fires, in order and at its instant.

        Sleeps, timeouts of questions and signals, back-offs, deadlines, delayed starts, and what
        bodies on the loop sleep; each is followed by all that it leads to, before the next.
        """
        self._check_idle()
        self._run(microseconds(duration))

    async def aadvance(self, duration: Duration) -> None:
        """Let time pass, as :meth:`advance`."""
        self.advance(duration)

    @property
    def now(self) -> datetime:
        """The virtual time, in UTC."""
        return instant(self.clock.now() if self.is_open else self._start_us)

    def pending(self, execution: Execution[Any] | None = None) -> list[OpenQuestion]:
        """Give the questions that wait for an answer, the oldest first."""
        self._check_idle()
        self._run()
        if execution is not None:
            return self._questions(execution.id)
        records = reversed(self.store.page(Filter(limit=1_000_000)))
        asked = [question for record in records for question in self._questions(record.id)]
        return sorted(asked, key=lambda question: question.asked_at)

    async def apending(self, execution: Execution[Any] | None = None) -> list[OpenQuestion]:
        """Give the questions that wait for an answer, as :meth:`pending`."""
        return self.pending(execution)

    def answer(self, execution: Execution[Any], value: Any, *, key: str | None = None) -> None:
        """Answer a question of an execution, as :meth:`outlast.Execution.answer`."""
        execution.answer(value, key=key)

    def executions(self) -> list[Execution[Any]]:
        """Give the handles of all executions, the oldest first."""
        self._check_open()
        page = self.store.page(Filter(limit=1_000_000))
        return [Execution(self, record.id, self.tasks.get(record.task)) for record in page[::-1]]

    def _questions(self, id: str) -> list[OpenQuestion]:
        (record,) = self.store.get([id])
        if record is None or record.state in FINAL:
            return []
        return open_questions(record, self.store.log(id))

    # Opening and closing

    def __enter__(self) -> Self:
        if self._is_over:
            raise UsageError("this engine was closed", do="make another: outlast.testing.engine()")
        self._virtual = self.clock = VirtualLoop(self._start_us, self._patience_seconds)
        self._virtual.tasks_in_threads = self._tasks_in_threads
        self._virtual.on_sockets = self._on_sockets
        self._virtual.set_exception_handler(self._went_wrong)
        self._dice = random.getstate()
        random.seed(0)  # the jitter of back-offs is drawn from it
        try:
            self._finish(super().open())
        except BaseException:
            self._end()
            raise
        return self

    def close(self) -> int:
        """Close it; what is under way is stopped, and its time never comes."""
        if self._is_over or self._dice is None:
            return 0  # it is closed, or was never opened
        try:
            return self._finish(super().aclose())
        finally:
            self._end()

    async def open(self) -> Self:
        """Open it, as ``with`` does."""
        return self.__enter__()

    async def aclose(self) -> int:
        """Close it, as :meth:`close`."""
        return self.close()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _end(self) -> None:
        """Let go of the loop and what still runs on it."""
        self._is_over = True
        loop = self._virtual
        loop.tasks_in_threads = loop.on_sockets = set
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_quiet()
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()
        random.setstate(self._dice)

    def _check_open(self) -> None:
        if self._is_over or not self.is_open:
            raise NoEngine("this engine is not open", do="with outlast.testing.engine() as engine:")

    # Running

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine, and then all that there is to run.

        Raises:
            WaitTimeout: it waits for something that only time or somebody outside can bring.
        """
        if self._is_over or not self.is_open or self._virtual.is_running():
            coroutine.close()
        self._check_idle()
        return self._finish(coroutine)

    def _check_idle(self) -> None:
        """See that nobody is just running this engine.

        Raises:
            NoEngine, UsageError: it is not open, or it is called from a step's body.
        """
        self._check_open()
        if self._virtual.is_running():
            raise UsageError(
                "the body of a step called a method that runs the engine which runs that body",
                do="use an async def step, and the method with an a: astart, aresult",
            )

    def _finish(self, coroutine: Coroutine[Any, Any, T]) -> T:
        task = self._virtual.create_task(coroutine)
        self._run()
        if not task.done():
            error = self._stands_still()
            task.cancel()
            self._virtual.run_until_quiet()
            raise error
        return task.result()

    def _run(self, pass_us: int | None = None) -> None:
        self._looks = 0
        self._virtual.run_until_quiet(pass_us)
        if self._errors:
            raise self._errors.pop(0)

    def _went_wrong(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What the engine would log for its operator ends a test."""
        error = context.get("exception")
        if error is not None and str(context.get("message")).startswith(_FAULTS):
            self._errors.append(error)
            self._virtual.stop()
        else:
            loop.default_exception_handler(context)

    def _stands_still(self) -> WaitTimeout:
        awaited = [record for record in self.store.get(list(self._waiters)) if record is not None]
        if not awaited:
            return WaitTimeout(
                "this waits for something that does not come by itself",
                why="nothing is ready to run, and time passes only in advance()",
                do='engine.advance("1h")',
            )
        record = awaited[0]
        driver = self.worker.drivers.get(record.id)
        names = [] if driver is None else list(driver.bodies)
        return explained(
            record,
            now=self._virtual.now(),
            questions=self._questions(record.id),
            bodies=names,
            is_hanging=bool(self._virtual.stuck),
            next_timer_at=self._virtual.next_timer_at,
            is_known=record.task in self.tasks,
        )

    def _tasks_in_threads(self) -> set[str]:
        """Name the ``def`` tasks whose own thread runs their code, or a step for them."""
        return {
            f"the code of {id} in its thread"
            for id, driver in (self.worker.drivers.items() if self.is_open else ())
            if driver.playback.scope is not None
            and not driver.playback.scope.is_async
            and (
                not driver.playback.scope.is_quiet
                or any(body.is_in_task_thread for body in driver.bodies.values())
            )
        }

    def _on_sockets(self) -> set[str]:
        """Name the bodies that may be waiting for a socket."""
        return {
            f"step {body.call.key} of {id}"
            for id, driver in (self.worker.drivers.items() if self.is_open else ())
            for body in driver.bodies.values()
            if body.step.is_async
        }

    # The engine's own methods, called from anywhere

    def _here(self, make: Callable[[], Coroutine[Any, Any, T]]) -> Coroutine[Any, Any, T]:
        """Run a coroutine on the engine's loop, whichever loop asks for it."""
        return make() if _get_running_loop() is self._virtual else self._there(make)

    async def _there(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return self.run(make())

    async def astart_with(
        self,
        options: StartOptions,
        task: Task[Any, R],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Execution[R]:
        """Start an execution with options; see :meth:`outlast.Engine.astart_with`."""
        plain = super().astart_with
        return await self._here(lambda: self._lasting(lambda: plain(options, task, args, kwargs)))

    async def astart_many(
        self,
        task: Task[Any, R],
        inputs: Iterable[tuple[Any, ...]],
        options: StartOptions = PLAIN,
    ) -> list[Execution[R]]:
        """Start many executions; see :meth:`outlast.Engine.astart_many`."""
        plain, rows = super().astart_many, list(inputs)
        return await self._here(lambda: self._lasting(lambda: plain(task, rows, options)))

    async def asend(
        self, id: str, message: Message, *, only_if: tuple[int, int] | None = None
    ) -> Record:
        """Deliver a message; see :meth:`outlast.Engine.asend`."""
        plain = super().asend
        return await self._here(lambda: self._lasting(lambda: plain(id, message, only_if=only_if)))

    async def aadjust(self, item: Adjust) -> list[BudgetRow]:
        """Change budgets, as :meth:`outlast.Engine.aadjust`."""
        plain = super().aadjust
        return await self._here(lambda: self._lasting(lambda: plain(item)))

    async def adescend(self, id: str, wish: Descent) -> Record:
        """Make another execution of one; see :meth:`outlast.Engine.adescend`."""
        plain = super().adescend
        return await self._here(lambda: self._lasting(lambda: plain(id, wish)))

    async def request(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Make a request to the store; see :meth:`outlast.Engine.request`."""
        return await self._here(lambda: self._lasting(make))

    async def abulk(self, action: str, filter: Filter, **options: Any) -> BulkReport:
        """Do something to many executions; see :meth:`outlast.Engine.abulk`."""
        plain = super().abulk
        return await self._here(lambda: plain(action, filter, **options))

    async def wait_final(self, id: str) -> Ended:
        """Wait for an end; see :meth:`outlast.Engine.wait_final`."""
        plain = super().wait_final
        return await self._here(lambda: plain(id))

    async def read_one(self, id: str) -> Record:
        """Read a row; see :meth:`outlast.Engine.read_one`."""
        plain = super().read_one
        return await self._here(lambda: plain(id))

    async def read_page(self, filter: Filter) -> list[Record]:
        """List executions; see :meth:`outlast.Engine.read_page`."""
        plain = super().read_page
        return await self._here(lambda: plain(filter))

    async def read_part(self, filter: Filter, rows_max: int) -> Part:
        """List executions; see :meth:`outlast.Engine.read_part`."""
        plain = super().read_part
        return await self._here(lambda: plain(filter, rows_max))

    async def read_stream(self, id: str, name: str, after: int, limit: int) -> list[StreamItem]:
        """Read a stream; see :meth:`outlast.Engine.read_stream`."""
        plain = super().read_stream
        return await self._here(lambda: plain(id, name, after, limit))

    async def read_streams(self, id: str) -> list[StreamHead]:
        """Name streams; see :meth:`outlast.Engine.read_streams`."""
        plain = super().read_streams
        return await self._here(lambda: plain(id))

    async def read_progress(self, id: str) -> ProgressRow | None:
        """Read how far an execution is; see :meth:`outlast.Engine.read_progress`."""
        plain = super().read_progress
        return await self._here(lambda: plain(id))

    async def next_change(self, id: str) -> None:
        """Wait for a change; see :meth:`outlast.Engine.next_change`."""
        plain = super().next_change
        return await self._here(lambda: plain(id))

    async def _lasting(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Make a request of the engine; one that can crash asks again after a crash."""
        return await make()

    def look_at_clock(self) -> None:
        """See what the clock will move next; executions that move for ever, at once, are a bug.

        Raises:
            InternalError: so it is. Without this, a test would hang.
        """
        instant_us = self.clock.now()
        self._looks = self._looks + 1 if instant_us == self._looked_at else 0
        self._looked_at = instant_us
        if self._looks > LOOKS_MAX and self._looks > 20 * len(self._memory._records):
            self._looks = 0
            raise InternalError(
                "executions park and go on again and again, and time does not pass",
                where=", ".join(list(self.worker.drivers)[:3]),
                do="report it, with the task's code",
            )
        super().look_at_clock()

    # Its parts

    def _make_warm(self) -> WarmCopies:
        return WarmCopies(self.warm_copies, self.clock, rows_min=0)

    def _open_store(self, now: int) -> Store:
        return self._memory

    def _make_journal(self, store: Store) -> Journal:
        return LoopJournal(store, self._virtual)

    async def _join(self) -> None:
        self.worker.processes_max = 0  # steps that ask for a process run in threads of the test's
        self.worker.read = _read_at_once  # type: ignore[method-assign]
        loop, threads = self._virtual, self._threads
        self.worker._step_threads = NumberedThreads(loop, threads, "outlast-step")
        self.worker.task_threads = self.worker._task_threads = NumberedThreads(
            loop, threads, "outlast-task", is_counted=False
        )
        await super()._join()

    async def _watch(self) -> None:
        """No other process writes to this store."""
        await self._virtual.create_future()

    async def _announce(self) -> None:
        """Nobody looks at this store while a step takes long."""
        await self._virtual.create_future()

    async def _prune(self) -> None:
        """A test wants to see what it did."""
        await self._virtual.create_future()


engine = VirtualEngine


class LoopJournal(Journal):
    """The journal, but in the loop's own thread: one post a turn, in the order they came."""

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop) -> None:
        self._posts: deque[Any] = deque()
        self._is_called = False
        super().__init__(store, loop)
        self._queue = self  # type: ignore[assignment]

    def put(self, post: Any) -> None:
        """Take what would be handed to the thread."""
        self._posts.append(post)
        if not self._is_called:
            self._is_called = True
            self._loop.call_soon(self._work)

    def _work(self) -> None:
        self._is_called = False
        posts, self._posts = self._posts, deque()
        for post in posts:
            self._one(post)

    def _one(self, post: Any) -> None:
        if isinstance(post, list):
            waiting = deque(post)
            while waiting:
                self._write_batch(waiting)
        elif post is not None:
            self._run(post)

    def _write(self) -> None:
        """The thread has nothing to do."""

    def _tell(self, callback: Callable[..., None], *args: Any) -> None:
        self._loop.call_soon(callback, *args)

    async def close(self) -> None:
        """Write what is queued."""
        await self.drain()
        self._closed = True
        self._thread.join()


async def _read_at_once(call: Callable[[], T]) -> T:
    return call()


class Ids(IdMaker):
    """Makes the same ids in every run: by time and number."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def make(self, now_us: int) -> str:
        """Make the next id."""
        self._count += 1
        return "ex_" + _base32((now_us // 1000 << 55) | self._count)
