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
from asyncio import _set_running_loop
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Final

from campaigns.simulation.world.loop import NodeLoop, NumberedTask

EPOCH_US: Final = 1_767_225_600_000_000
"""When every simulation begins: January 1st, 2026."""
_LATENCIES_US: Final = (0, 0, 0, 20, 100, 400, 3_000)
_LATE_US: Final = (0, 0, 0, 0, 1, 50, 2_000)


class Died(BaseException):
    """The process has died in the middle of what it did; nothing after it happens."""


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
        code: which version of it it runs.
        is_first: whether it is at the first place, whose tasks and offers are the most.
        offers: the capabilities of its engine.
        skew_us: how far its clock is ahead of the true time.
        frozen_until: until when nothing of it runs.
        thread: the thread of it that just runs; None: its loop.
    """

    def __init__(self, clockwork: Clockwork, number: int, skew_us: int) -> None:
        self.clockwork = clockwork
        self.number = number
        self.skew_us = skew_us
        self.code = ""
        self.is_first = False
        self.offers: frozenset[str] = frozenset()
        self.is_dead = False
        self.frozen_until = 0
        self.lanes: list[Lane] = []
        self.loop = NodeLoop(self)  # type: ignore[abstract]
        self.thread: ThreadOf | None = None
        self.threads_made = 0
        self.tasks: list[NumberedTask] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> Process:
        return self  # what is known of it may be copied; there is one of it

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
                timers = loop.timers
                if timers:
                    due, _, handle = timers[0]
                    if due <= now or handle._cancelled:
                        loop.wake(now)
                        due = timers[0][0] if timers else until_us + 1
                    if due < upcoming:
                        upcoming = due
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
