"""An event loop whose time stands still until it is told to pass (see :mod:`outlast.testing`).

Theory of operation. asyncio asks its selector to wait when no callback is ready; that is the one
place where time goes by, so that is what is replaced. There a :class:`VirtualLoop` does, in this
order:

1. While real work is under way (threads run steps, a body talks to a socket), it waits for that, in
   real time and without polling: whatever ends wakes the selector.
2. What threads bring is kept back until each of them has brought something, and then taken in the
   order in which their work was begun, which is here, too. So which thread was faster makes no
   difference.
3. Now everything is quiet. If time is to pass, it goes straight to the next timer, or to the end of
   the span; else :meth:`VirtualLoop.run_until_quiet` returns.

The real wait of 1 ends after ``patience_seconds``: what has not come by then is taken for something
that never comes (a thread that blocks, so that its timeout can fire), and is not waited for again.

It runs in the thread of whoever calls it, also from inside another loop's callback or task: that
one stands still meanwhile.
"""

from __future__ import annotations

import asyncio
import itertools
import selectors
import sys
import threading
from asyncio import _get_running_loop, _set_running_loop
from collections.abc import Callable, Sized
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextvars import Context
from functools import partial
from typing import Any, Final, TypeVar

T = TypeVar("T")

_RESOLUTION_SECONDS: Final = 5e-7
"""Timers are floats of seconds; two instants that differ by less are the same microsecond."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop on a virtual clock; it is also that clock.

    Args:
        start_us: the instant at which its time begins, in microseconds since 1970.
        patience_seconds: how long, in real time, threads and sockets are waited for.

    Attributes:
        tasks_in_threads: names the ``def`` tasks whose thread is busy; asked whenever nothing else
            is to be done.
        on_sockets: names what may be waiting for a socket, if any is open.
        to_begin: what threads shall begin when nothing is ready.
        running: the numbers of what they do that has brought nothing yet.
        stuck: what it has waited for in vain.
    """

    def __init__(self, start_us: int, patience_seconds: float) -> None:
        super().__init__(_Selector(self))
        self._clock_resolution = _RESOLUTION_SECONDS
        self._start_us = start_us
        self._passed_us = 0
        self._until_us: int | None = None
        self._elsewhere = 0
        self._brought: list[_Brought] = []
        self._lock = threading.Lock()
        self.patience_seconds = patience_seconds
        self.tasks_in_threads: Callable[[], set[str]] = set
        self.on_sockets: Callable[[], set[str]] = set
        self.running: set[int] = set()
        self.stuck: set[int | str] = set()
        self.to_begin: list[Callable[[], None]] = []
        self.set_default_executor(NumberedThreads(self, 8, "outlast-test"))

    def time(self) -> float:
        """Give the virtual seconds that have passed since the loop was made."""
        return self._passed_us / 1e6

    def now(self) -> int:
        """Give the instant, in microseconds since 1970: the engine's clock."""
        return self._start_us + self._passed_us

    @property
    def next_timer_at(self) -> int | None:
        """The instant of the timer that is due next, if there is one."""
        instants = [handle.when() for handle in self._timers() if not handle.cancelled()]
        return self._start_us + round(min(instants) * 1e6) if instants else None

    def run_until_quiet(self, pass_us: int | None = None) -> None:
        """Run all there is to run, let so much time pass, and run all that this led to."""
        if pass_us is not None:
            self._until_us = self._passed_us + pass_us
        outer = _get_running_loop()
        _set_running_loop(None)
        try:
            self.run_forever()
        finally:
            self._until_us = None
            _set_running_loop(outer)

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run a function in a thread, or in a pool of the caller's, which is waited for, too."""
        future = super().run_in_executor(executor, func, *args)
        if executor is not None:
            self._elsewhere += 1
            future.add_done_callback(self._came_back)
        return future

    def _came_back(self, future: asyncio.Future[Any]) -> None:
        self._elsewhere -= 1

    def _timers(self) -> list[asyncio.TimerHandle]:
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        return timers

    # What threads bring

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Take a callback from another thread; it is run when its turn has come."""
        if threading.get_ident() == self._thread_id:  # type: ignore[attr-defined]
            return super().call_soon_threadsafe(callback, *args, context=context)
        self._check_closed()  # type: ignore[attr-defined]
        handle = asyncio.Handle(callback, args, self, context)
        with self._lock:
            self._brought.append((getattr(_work, "number", sys.maxsize), handle))
        self._write_to_self()  # type: ignore[attr-defined]
        return handle

    def forget_threads(self) -> None:
        """Forget what threads do and bring: it is for an engine that is no more."""
        with self._lock:
            self._brought.clear()
        self.running.clear()
        self.to_begin.clear()

    def _all_have_come(self) -> bool:
        """Whether each thread that is waited for has brought something."""
        with self._lock:
            numbers = {number for number, _ in self._brought}
        others = self.tasks_in_threads() - self.stuck
        return self.running - self.stuck <= numbers and len(others) <= len(numbers - self.running)

    def _take_brought(self) -> set[int]:
        with self._lock:
            brought = sorted(self._brought, key=lambda one: one[0])
            self._brought.clear()
        self._ready.extend(handle for _, handle in brought)  # type: ignore[attr-defined]
        numbers = {number for number, _ in brought}
        self.running -= numbers
        return numbers

    def _at_work(self) -> set[int | str]:
        """Name all real work that is under way."""
        elsewhere = {f"function {n} in another pool" for n in range(self._elsewhere)}
        sockets = self.on_sockets() if len(self._sockets()) > 1 else set()  # one is the loop's own
        return {*self.running, *self.tasks_in_threads(), *elsewhere, *sockets}

    def _sockets(self) -> Sized:
        selector: _Selector = self._selector  # type: ignore[attr-defined]
        return selector.get_map()

    # Nothing is ready

    def idle(self, seconds: float | None) -> bool:
        """Nothing is ready, the next timer is so far away: do what comes next.

        Returns:
            Whether to wait for real work, at most for the patience.
        """
        to_begin, self.to_begin = self.to_begin, []
        for begin in to_begin:
            begin()
        self.stuck &= self._at_work()
        if self._brought and self._all_have_come() and self._take_brought():
            return False
        if self._at_work() - self.stuck:
            return True
        until = self._until_us
        if until is None:
            self.stop()
            return False
        due = None if seconds is None else round(self._timers()[0].when() * 1e6)
        if due is not None and due <= until:
            self._passed_us = max(due, self._passed_us)
        else:
            self._passed_us, self._until_us = until, None
        return False

    def gave_up(self) -> None:
        """The patience is over: take what has come, and do not wait for the rest any more."""
        if not self._take_brought() or self.running:
            self.stuck = self._at_work()


class _Selector(selectors.DefaultSelector):
    """Waits for sockets and threads, but never for time."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= _RESOLUTION_SECONDS):
            return events
        if not self._loop.idle(timeout):
            return []
        events = super().select(self._loop.patience_seconds)
        if not events:
            self._loop.gave_up()
        return events


class NumberedThreads(ThreadPoolExecutor):
    """A pool whose threads know the number of the work they do, and begin it when the loop is idle.

    Args:
        loop: the loop that waits for them.
        threads: how many there are at most.
        name: what their names begin with.
        is_counted: whether each function brings one thing, at its end; else its thread comes and
            goes, and somebody else tells whether it is busy.
    """

    def __init__(
        self, loop: VirtualLoop, threads: int, name: str, *, is_counted: bool = True
    ) -> None:
        super().__init__(threads, name)
        self._of = loop
        self._is_counted = is_counted

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run a function in a thread, once the loop is idle."""
        number, future = next(_numbers), Future[T]()
        if self._is_counted:
            self._of.running.add(number)
        self._of.to_begin.append(partial(self._begin, number, future, fn, args, kwargs))
        return future

    def _begin(self, number: int, future: Future[T], fn: Any, args: Any, kwargs: Any) -> None:
        if future.set_running_or_notify_cancel():
            super().submit(_do, number, future, fn, args, kwargs)
        else:
            self._of.running.discard(number)


def _do(number: int, future: Future[T], fn: Any, args: Any, kwargs: Any) -> None:
    """Run a function; whoever hears of its end hears it in this thread, under this number."""
    _work.number = number
    try:
        result = fn(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - whoever asked for it gets it
        future.set_exception(error)
    else:
        future.set_result(result)


_Brought = tuple[int, asyncio.Handle]
_work: Final = threading.local()
_numbers: Final = itertools.count()
