"""An engine of production on a simulated loop, simulated threads, and a disk that fails."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from datetime import timedelta
from random import Random
from typing import Any, ClassVar, Final, Protocol, cast

from campaigns.simulation.world.chance import SimIds
from campaigns.simulation.world.clockwork import Process
from campaigns.simulation.world.disk import Disk, Frozen
from campaigns.simulation.world.fleet import SimFleet
from campaigns.simulation.world.threads import StepThreads, TaskThreads
from outlast.engine.cluster.fleet import Fleet
from outlast.engine.drive.warm import WarmCopies
from outlast.engine.engine import SWEEP_MAX, Engine
from outlast.engine.task.current import closed
from outlast.engine.write.journal import Journal
from outlast.errors import OutlastError
from outlast.store.protocol import Store, WorkerRow

WATCH_US: Final = 30_000


class Home(Protocol):
    """What an engine needs of its world."""

    is_shared: bool
    lease_us: int | None
    warm_copies: int
    kept_us: int | None

    def lease_dice(self, process: Process) -> Random:
        """Give the dice of what leases leave to luck in a process."""

    def open_disk(self, process: Process, name: str) -> Disk:
        """Open the store for a process."""

    def named(self, process: Process, name: str) -> None:
        """Hear under which name a process takes leases from now on."""

    def is_new(self, process: Process) -> bool:
        """Whether it has no name yet."""

    def known_dead(self, process: Process) -> set[str]:
        """Name the workers that the failure detector takes for dead."""


class SimEngine(Engine):
    """One incarnation of a worker.

    Args:
        process: where it runs.
        home: its world.
        tasks: what it runs.
        slots: how many executions it holds at once.
    """

    tick_seconds_max: ClassVar[float] = 10.0**8

    def __init__(self, process: Process, home: Home, tasks: Iterable[Any], slots: int) -> None:
        super().__init__(
            "memory:",
            tasks=tasks,
            slots=slots,
            capabilities=process.offers,
            retention=None if home.kept_us is None else timedelta(microseconds=home.kept_us),
            clock=process,
        )
        self.process = process
        self.home = home
        self._lease_us = home.lease_us or self._lease_us
        self._ids = SimIds(process.number)
        self._noticed: asyncio.Event | None = None

    def _open_store(self, now: int) -> Store:
        return cast(Store, self.home.open_disk(self.process, self.name))

    def _make_journal(self, store: Store) -> Journal:
        return SimJournal(store, self.process)

    def _make_warm(self) -> WarmCopies:
        return WarmCopies(self.home.warm_copies, self.clock, rows_min=0)

    def _make_fleet(self) -> Fleet:
        return SimFleet(self, self._lease_us, self.home.lease_dice(self.process))

    def rename(self, error: OutlastError | None = None) -> None:
        """Be another incarnation, as in production."""
        super().rename(error)
        self.home.named(self.process, self.name)

    async def _join(self) -> None:
        """Say who we are; only where one process owns the store does that prove others dead."""
        process, worker = self.process, self.worker
        loop = process.loop
        threads: object = worker._step_threads
        if not isinstance(threads, StepThreads):
            worker._step_threads = StepThreads(process)  # type: ignore[assignment]
            worker.task_threads = worker._task_threads = TaskThreads(process)  # type: ignore[assignment]
            self._noticed = asyncio.Event()
        assert loop is self.loop
        if self.home.is_new(process):
            self.home.named(process, self.name)
        if not self.home.is_shared or self.fleet is not None:
            await super()._join()
            return
        now = self.clock.now()
        row = WorkerRow(self.name, "simulated", process.number, now, now)
        await self.journal.call(lambda: self.store.register(row))
        await self.take_over(self.home.known_dead(process))

    async def take_over(self, dead: set[str]) -> None:
        """Take back the executions of workers that somebody takes for dead."""
        names = sorted(dead - {self.name})

        def recover() -> int:
            return self.store.recover(names, self.name, self.clock.now(), SWEEP_MAX)

        taken = len(names)
        while taken:
            taken = await self.journal.call(recover)
            if self.is_open:  # else its opening looks, once it is
                self.look()

    def notice(self) -> None:
        """Somebody else has written (from outside the process)."""
        if isinstance(self.fleet, SimFleet):
            self.fleet.notice()
        elif self._noticed is not None:
            self._noticed.set()

    async def _watch(self) -> None:
        """As in production, but asleep while nobody else writes."""
        if self.fleet is not None:
            await self.fleet.listen()
            return
        assert self._noticed is not None
        await self._noticed.wait()
        self._noticed.clear()
        try:
            await super()._watch()
        except OutlastError:
            self._noticed.set()  # it has not seen all: it comes back
            raise

    async def _announce(self) -> None:
        """The world does it now and then, by :meth:`announce`."""
        await self.loop.create_future()

    def announce(self) -> None:
        """Note the steps that take long."""
        for held in list(self.worker.drivers.values()):
            held.attempts.announce(self.clock.now())
        self.worker.warm.cool(self.clock.now())

    async def _prune(self) -> None:
        """Somebody outside asks for it, now and then."""
        await self.loop.create_future()

    def bury(self) -> None:
        """Let go of what a dead process had in memory."""
        closed(self)
        self.is_open = False
        if self.fleet is not None:
            self.fleet.let_go()
        worker = getattr(self, "worker", None)
        if worker is not None:
            worker._open = False
            for held in list(worker.drivers.values()):
                if held.playback.scope is not None:
                    held.playback.scope.close()
            worker.warm.close()
        self.process.bury()


class SimJournal(Journal):
    """The journal, whose thread is one of the process's simulated threads."""

    def __init__(self, store: Store, process: Process) -> None:
        self._simulated = process.new_thread("journal")
        self._posts: deque[Any] = deque()
        super().__init__(store, process.loop)
        self._queue = self  # type: ignore[assignment]

    def put(self, post: Any) -> None:
        """Take what is handed to the thread."""
        self._posts.append(post)
        self._simulated.do(self._work)

    def _work(self) -> None:
        """Take a batch of what has come, or a job."""
        if not self._posts:
            return
        post = self._posts.popleft()
        try:
            if isinstance(post, list):
                waiting = deque(post)
                while self._posts and isinstance(self._posts[0], list):
                    waiting.extend(self._posts.popleft())
                entries = list(waiting)
                while waiting:
                    self._write_batch(waiting)
                    entries = list(waiting)
            elif post is not None:
                self._run(post)
        except Frozen:
            # It was stopped before the call: what it was about to do is still to be done.
            self._posts.appendleft(entries if isinstance(post, list) else post)
            self._simulated.do(self._work)

    def _write(self) -> None:
        """There is no real thread."""

    async def close(self) -> None:
        """Write what is queued."""
        await self.drain()
        self._closed = True
        self._thread.join()


def request(
    engine: SimEngine,
    make: Callable[[], Coroutine[Any, Any, Any]],
    heard: Callable[[Any, BaseException | None], None],
) -> None:
    """Ask something of an engine; nothing is heard if its process dies first."""
    process = engine.process

    def begin() -> None:
        task = process.loop.create_task(make())
        task.add_done_callback(ended)

    def ended(task: asyncio.Task[Any]) -> None:
        if not process.is_dead and not task.cancelled():
            error = task.exception()
            heard(None if error is not None else task.result(), error)

    process.loop.call_soon(begin)
