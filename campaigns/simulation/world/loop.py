"""The event loop of a process, whose ready callbacks go in an order that dice choose."""

from __future__ import annotations

import asyncio
import heapq
from asyncio import Handle, TimerHandle
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context
from random import Random
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from campaigns.simulation.world.clockwork import Process

_IN_ORDER: Final = 0.5
"""How often the oldest ready callback goes next; else any that may overtake it."""
_ROOT: Final = object()


class NumberedTask(asyncio.Task[Any]):
    """A task that hashes by number, so that sets of them are the same in every run."""

    __slots__ = ("number",)
    _log_destroy_pending: bool

    def __init__(self, coro: Any, loop: Any, number: int, context: Context | None) -> None:
        self.number = number
        super().__init__(coro, loop=loop, name=f"task-{number}", context=context)

    def __hash__(self) -> int:
        return self.number


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
