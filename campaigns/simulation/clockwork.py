"""Virtual time, and processes whose callbacks and threads run in an order that dice choose.

Theory of operation. Everything runs in one thread. A :class:`Process` has an event loop (a row of
ready callbacks and a heap of timers) and any number of :class:`Lane` s: what one thread does, and
what it tells its loop, each in its own order. :meth:`Clockwork.step` picks one thing among all that
could happen now in any process, and does it; where nothing can, time goes on to the next thing that
can. So a run is a function of the dice.

The threads of ``def`` tasks are real ones, but only ever one of them, or this one, goes on: whoever
lets one go waits until it rests again (:class:`Turn`).
"""

from __future__ import annotations

import asyncio
import heapq
import threading
from asyncio import Handle, TimerHandle, _set_running_loop
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from contextvars import Context
from random import Random
from typing import Any, Final

EPOCH_US: Final = 1_767_225_600_000_000
"""When every simulation begins: January 1st, 2026."""
_IN_ORDER: Final = 0.5
"""How often the oldest ready callback goes next; else any that may overtake it."""
_LATENCIES_US: Final = (0, 0, 0, 20, 100, 400, 3_000)
_LATE_US: Final = (0, 0, 0, 0, 1, 50, 2_000)
_ROOT: Final = object()


class Died(BaseException):
    """The process has died in the middle of what it did; nothing after it happens."""


class NumberedTask(asyncio.Task[Any]):
    """A task that hashes by number, so that sets of them are the same in every run."""

    __slots__ = ("number",)
    _log_destroy_pending: bool

    def __init__(self, coro: Any, loop: Any, number: int, context: Context | None) -> None:
        self.number = number
        super().__init__(coro, loop=loop, name=f"task-{number}", context=context)

    def __hash__(self) -> int:
        return self.number


class Lane:
    """Things that happen in one order, each at its instant or later."""

    __slots__ = ("name", "process", "queue")

    def __init__(self, process: Process, name: str) -> None:
        self.process = process
        self.name = name
        self.queue: deque[tuple[int, Callable[[], None]]] = deque()

    def add(self, delay_us: int, what: Callable[[], None]) -> None:
        """Let something happen, after all that was added before."""
        if not self.process.is_dead:
            if not self.queue:
                self.process.lanes.append(self)
            self.queue.append((self.process.clockwork.now_us + delay_us, what))

    def run(self) -> None:
        """Do what is next."""
        _, what = self.queue.popleft()
        if not self.queue:
            self.process.lanes.remove(self)
        what()


class ThreadOf:
    """A thread of a process: what it does, and what it tells the loop, which comes later."""

    __slots__ = ("tells", "works")

    def __init__(self, process: Process, name: str) -> None:
        self.works = Lane(process, name)
        self.tells = Lane(process, name + " tells")

    def do(self, what: Callable[[], None]) -> None:
        """Do something in this thread, some time."""
        self.works.add(self.works.process.clockwork.latency(), lambda: self.now(what))

    def now(self, what: Callable[[], None]) -> None:
        """Do something in this thread, at once."""
        process = self.works.process
        before, process.thread = process.thread, self
        loop = asyncio._get_running_loop()
        _set_running_loop(None)
        try:
            what()
        finally:
            process.thread = before
            _set_running_loop(loop)


class Process:
    """One incarnation of a worker: its loop, its threads; it can be frozen, and it can die.

    Attributes:
        number: which incarnation of all this is.
        skew_us: how far its clock is ahead of the true time.
        frozen_until: until when nothing of it runs.
        thread: the thread of it that just runs; None: its loop.
    """

    def __init__(self, clockwork: Clockwork, number: int, skew_us: int) -> None:
        self.clockwork = clockwork
        self.number = number
        self.skew_us = skew_us
        self.is_dead = False
        self.frozen_until = 0
        self.lanes: list[Lane] = []
        self.loop = NodeLoop(self)  # type: ignore[abstract]
        self.thread: ThreadOf | None = None
        self.threads_made = 0
        self.tasks: list[NumberedTask] = []

    def now(self) -> int:
        """Give the instant its clock shows: it is its engine's clock."""
        return EPOCH_US + self.clockwork.now_us + self.skew_us

    def new_thread(self, name: str) -> ThreadOf:
        """Make a thread."""
        self.threads_made += 1
        return ThreadOf(self, f"{name}{self.threads_made}")

    def freeze(self, span_us: int) -> None:
        """Stop it as by SIGSTOP; after the span it goes on where it was."""
        self.frozen_until = max(self.frozen_until, self.clockwork.now_us + span_us)

    def die(self) -> None:
        """Kill it: whatever it had in memory will never happen."""
        self.is_dead = True
        self.lanes.clear()
        self.loop.ready.clear()
        self.loop.turn.clear()
        self.loop.timers.clear()
        if self in self.clockwork.processes:
            self.clockwork.processes.remove(self)

    def bury(self) -> None:
        """Let go of its coroutines now, and not when the collector pleases."""
        for task in self.tasks:
            if not task.done():
                task._log_destroy_pending = False
                coroutine: Any = task.get_coro()
                try:
                    coroutine.close()
                except (RuntimeError, Exception):  # noqa: BLE001 - nobody is left to hear it
                    continue
        self.tasks.clear()


class NodeLoop(asyncio.AbstractEventLoop):
    """The event loop of a process."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.ready: list[Handle] = []
        self.turn: list[Handle] = []
        self.timers: list[tuple[int, int, TimerHandle]] = []
        self._made = 0
        self._task_count = 0
        self.on_error: Callable[[dict[str, Any]], None] | None = None

    def time(self) -> float:
        """Give the seconds since the beginning."""
        return self.process.clockwork.now_us / 1e6

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        """Make a callback ready."""
        handle = Handle(callback, args, self, context)
        if not self.process.is_dead:
            self.ready.append(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        """Make a callback ready; one that comes from another thread comes when it comes."""
        thread = self.process.thread
        if thread is None:
            return self.call_soon(callback, *args, context=context)
        handle = Handle(callback, args, self, context)
        thread.tells.add(self.process.clockwork.latency(), lambda: self.ready.append(handle))
        return handle

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> TimerHandle:
        """Arm a timer."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> TimerHandle:
        """Arm a timer; it fires then, or a little later."""
        handle = TimerHandle(when, callback, args, self, context)
        if not self.process.is_dead:
            clockwork = self.process.clockwork
            due = max(-(-round(when * 1e7) // 10), clockwork.now_us) + clockwork.lateness()
            self._made += 1
            heapq.heappush(self.timers, (due, self._made, handle))
        return handle

    def _timer_handle_cancelled(self, handle: TimerHandle) -> None:
        """It is passed over when its turn comes."""

    def wake(self, now_us: int) -> None:
        """Make ready what is due."""
        while self.timers and (self.timers[0][0] <= now_us or self.timers[0][2]._cancelled):
            handle = heapq.heappop(self.timers)[2]
            if not handle._cancelled:
                self.ready.append(handle)

    def pick(self, dice: Random) -> Handle:
        """Take a callback of this turn; one object's callbacks stay in order.

        As in asyncio, what becomes ready in a turn is run in the next one: nobody is overtaken for
        longer than that.
        """
        if not self.turn:
            self.turn, self.ready = self.ready, self.turn
        ready = self.turn
        place = 0
        if len(ready) > 1 and dice.random() >= _IN_ORDER:
            place = int(dice.random() * len(ready))
            whose = _whose(ready[place])
            place = next(n for n, handle in enumerate(ready) if _whose(handle) is whose)
        return ready.pop(place)

    def create_future(self) -> asyncio.Future[Any]:
        """Make a future."""
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Any = None
    ) -> asyncio.Task[Any]:
        """Make a task."""
        self._task_count += 1
        task = NumberedTask(coro, self, self._task_count, context)
        tasks = self.process.tasks
        tasks.append(task)
        if len(tasks) > 200:
            tasks[:] = [one for one in tasks if not one.done()]
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run a function in a thread of its own, some time."""
        future = self.create_future()
        thread = self.process.new_thread("read")

        def work() -> None:
            try:
                result = func(*args)
            except Exception as error:  # noqa: BLE001 - whoever asked gets it
                self.call_soon_threadsafe(_end, future, None, error)
            else:
                self.call_soon_threadsafe(_end, future, result, None)

        thread.do(work)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Tell the world: nothing may go wrong unheard."""
        if self.on_error is not None and not self.process.is_dead:
            self.on_error(context)

    def get_debug(self) -> bool:
        """Whether asyncio shall look twice: no."""
        return False

    def is_closed(self) -> bool:
        """Whether nobody runs it any more."""
        return self.process.is_dead

    def is_running(self) -> bool:
        """Whether it runs: as long as its process lives."""
        return not self.process.is_dead


def _whose(handle: Handle) -> object:
    callback = handle._callback  # type: ignore[attr-defined]
    return getattr(callback, "__self__", None) or _ROOT


def _end(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


class Clockwork:
    """Time, and everything that can happen next.

    Attributes:
        now_us: the microseconds since the beginning.
        steps: how many things have happened.
        current: the process that just does something.
    """

    def __init__(self, dice: Random) -> None:
        self.dice = dice
        self.now_us = 0
        self.steps = 0
        self.processes: list[Process] = []
        self.current: Process | None = None
        self.is_hasty = False
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._noted = 0

    def at(self, instant_us: int, what: Callable[[], None]) -> None:
        """Let something happen outside of all processes."""
        self._noted += 1
        heapq.heappush(self._agenda, (instant_us, self._noted, what))

    def latency(self) -> int:
        """Draw how long something takes between two threads."""
        roll = int(self.dice.random() * len(_LATENCIES_US))
        return _LATENCIES_US[roll]

    def lateness(self) -> int:
        """Draw how late a timer is."""
        return _LATE_US[int(self.dice.random() * len(_LATE_US))]

    def step(self, until_us: int) -> bool:
        """Do the next thing; gives False where nothing is left to be done until then."""
        while True:
            now = self.now_us
            while self._agenda and self._agenda[0][0] <= now:
                heapq.heappop(self._agenda)[2]()
                return True
            could: list[Any] = []
            upcoming = self._agenda[0][0] if self._agenda else until_us + 1
            for process in self.processes:
                if process.frozen_until > now:
                    upcoming = min(upcoming, process.frozen_until)
                    continue
                loop = process.loop
                if loop.timers:
                    loop.wake(now)
                    if loop.timers and loop.timers[0][0] < upcoming:
                        upcoming = loop.timers[0][0]
                if loop.ready or loop.turn:
                    could.append(loop)
                for lane in process.lanes:
                    at = lane.queue[0][0]
                    if at <= now:
                        could.append(lane)
                    elif at < upcoming:
                        upcoming = at
            if could:
                break
            if upcoming > until_us:
                self.now_us = max(now, until_us)
                return False
            self.now_us = upcoming
        one = could[0] if len(could) == 1 else could[int(self.dice.random() * len(could))]
        self.steps += 1
        self._do(one)
        return True

    def _do(self, one: Lane | NodeLoop) -> None:
        process = one.process
        self.current = process
        try:
            if isinstance(one, Lane):
                one.run()
                return
            _set_running_loop(one)
            handle = one.pick(self.dice)
            if not handle._cancelled:
                handle._run()
        except Died:
            pass
        finally:
            _set_running_loop(None)
            self.current = None


class Turn:
    """The semaphore of a ``def`` task's thread: who lets it go waits until it rests again."""

    def __init__(self, process: Process, thread: ThreadOf) -> None:
        self._process = process
        self._thread = thread
        self._go = threading.Semaphore(0)
        self._rests = threading.Semaphore(0)
        self._is_resting = False

    def start(self, run: Callable[[], None]) -> None:
        """Start the thread, and wait until it rests."""

        def main() -> None:
            try:
                run()
            finally:
                self._rests.release()

        self._thread.now(lambda: self._wait(threading.Thread(target=main, daemon=True).start))

    def acquire(self) -> None:
        """Rest (in the thread)."""
        self._is_resting = True
        self._rests.release()
        self._go.acquire()

    def release(self) -> None:
        """Let the thread go (from the loop), and wait until it rests."""
        if not self._is_resting:
            self._go.release()
            return
        self._is_resting = False
        self._thread.now(lambda: self._wait(self._go.release))

    def _wait(self, let_go: Callable[[], object]) -> None:
        let_go()
        if not self._rests.acquire(timeout=60):
            raise RuntimeError("a def task's thread neither rests nor ends")


class StepThreads(Executor):
    """The pool for bodies of ``def`` steps: each runs in one go, its outcome comes later."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function in a thread, some time."""
        future: Future[Any] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - whoever asked gets it
                future.set_exception(error)
            else:
                future.set_result(result)

        self._process.new_thread("step").do(work)
        return future

    _threads: frozenset[Any] = frozenset()
