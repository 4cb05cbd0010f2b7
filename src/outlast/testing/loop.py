"""An event loop whose time stands still until it is told to pass (see :mod:`outlast.testing`).

Theory of operation. asyncio asks its selector to wait when no callback is ready; that is the one
place where time goes by, so that is what is replaced. There a :class:`VirtualLoop` does, in this
order:

1. It takes what sockets and other threads have brought.
2. While real work is under way (a thread runs a step, a body talks to a socket), it waits for that,
   in real time and without polling: whatever ends wakes the selector.
3. Now everything is quiet. If time is to pass, it goes straight to the next timer, or to the end of
   the span; else :meth:`VirtualLoop.run_until_quiet` returns.

The real wait of 2 ends after ``patience_seconds``: what has not come by then is taken for something
that never comes (a thread that blocks, so that its timeout can fire), and is not waited for again.

It runs in the thread of whoever calls it, also from inside another loop's callback or task: that one
stands still meanwhile.
"""

from __future__ import annotations

import asyncio
import selectors
from asyncio import _get_running_loop, _set_running_loop
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Final

_RESOLUTION_SECONDS: Final = 5e-7
"""Timers are floats of seconds; two instants that differ by less are the same microsecond."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop on a virtual clock; it is also that clock.

    Args:
        start_us: the instant at which its time begins, in microseconds since 1970.
        patience_seconds: how long, in real time, threads and sockets are waited for.

    Attributes:
        real_work: names what is under way outside the loop; asked whenever nothing else is.
        stuck: what it has waited for in vain.
    """

    def __init__(self, start_us: int, patience_seconds: float) -> None:
        super().__init__(_Selector(self))
        self._clock_resolution = _RESOLUTION_SECONDS
        self._start_us = start_us
        self._passed_us = 0
        self._until_us: int | None = None
        self._in_executor = 0
        self._patience_seconds = patience_seconds
        self.real_work: Callable[[], set[object]] = set
        self.stuck: set[object] = set()

    def time(self) -> float:
        """Give the virtual seconds that have passed since the loop was made."""
        return self._passed_us / 1e6

    def now(self) -> int:
        """Give the instant, in microseconds since 1970: the engine's clock."""
        return self._start_us + self._passed_us

    @property
    def next_timer_at(self) -> int | None:
        """The instant of the timer that is due next, if there is one."""
        instants = [handle._when for handle in self._timers() if not handle._cancelled]
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
        """Run a function in a thread, which is waited for like every other."""
        future = super().run_in_executor(executor, func, *args)
        self._in_executor += 1
        future.add_done_callback(self._out_of_executor)
        return future

    def _out_of_executor(self, future: asyncio.Future[Any]) -> None:
        self._in_executor -= 1

    def _timers(self) -> list[asyncio.TimerHandle]:
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        return timers

    def idle(self, seconds: float | None) -> bool:
        """Nothing is ready, the next timer is so far away: do what comes next.

        Returns:
            Whether to wait for real work, at most for the patience.
        """
        working = self.real_work()
        if self._in_executor:
            working.add("a function in another thread")
        self.stuck &= working
        if working - self.stuck:
            return True
        until = self._until_us
        if until is None:
            self.stop()
            return False
        due = None if seconds is None else round(self._timers()[0]._when * 1e6)
        if due is not None and due <= until:
            self._passed_us = max(due, self._passed_us)
        else:
            self._passed_us, self._until_us = until, None
        return False

    def gave_up(self) -> None:
        """The patience is over: do not wait for what is under way any more."""
        self.stuck = self.real_work()
        if self._in_executor:
            self.stuck.add("a function in another thread")

    @property
    def patience_seconds(self) -> float:
        """How long, in real time, threads and sockets are waited for."""
        return self._patience_seconds

    @property
    def has_sockets(self) -> bool:
        """Whether a body may be waiting for a socket or a pipe."""
        selector: _Selector = self._selector  # type: ignore[attr-defined]
        return len(selector.get_map()) > 1  # one is the loop's own


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
