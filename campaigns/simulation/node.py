"""An engine of production on a simulated loop, simulated threads, and a disk that fails."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import partial
from random import Random
from typing import Any, ClassVar, Final, Protocol, cast

from campaigns.simulation.clockwork import Process, StepThreads, ThreadOf, Turn
from campaigns.simulation.disk import Disk, Frozen
from campaigns.simulation.leases import SimFleet
from outlast.engine import driver, engine, identity
from outlast.engine.current import closed
from outlast.engine.engine import SWEEP_MAX, Engine
from outlast.engine.fleet import Fleet
from outlast.engine.identity import IdMaker, _base32
from outlast.engine.journal import Journal
from outlast.engine.thread_scope import ThreadScope
from outlast.errors import OutlastError
from outlast.store.protocol import Store, WorkerRow

WATCH_US: Final = 30_000


class Home(Protocol):
    """What an engine needs of its world."""

    is_shared: bool
    lease_us: int | None

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
        super().__init__("memory:", tasks=tasks, slots=slots, retention=None, clock=process)
        self.process = process
        self.home = home
        self._lease_us = home.lease_us or self._lease_us
        self._ids = SimIds(process.number)
        self._noticed: asyncio.Event | None = None

    def _open_store(self, now: int) -> Store:
        return cast(Store, self.home.open_disk(self.process, self.name))

    def _make_journal(self, store: Store) -> Journal:
        return SimJournal(store, self.process)

    def _make_fleet(self) -> Fleet:
        return SimFleet(self, self._lease_us, self.home.lease_dice(self.process))

    def rename(self) -> None:
        """Be another incarnation, as in production."""
        super().rename()
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

    async def _prune(self) -> None:
        """Nothing is old enough to be deleted."""
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


class TaskThreads(Executor):
    """Where the threads of ``def`` tasks come from: see :class:`SimThreadScope`."""

    def __init__(self, process: Process) -> None:
        self.process = process

    _threads: frozenset[Any] = frozenset()


class _OneThread(Executor):
    def __init__(self, thread: ThreadOf, turn: Turn) -> None:
        self._thread, self._turn = thread, turn

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self._thread.do(lambda: self._turn.start(partial(fn, *args, **kwargs)))
        return Future()


class SimThreadScope(ThreadScope):
    """The scope of a ``def`` task, whose thread goes on only while everything else waits."""

    def __init__(
        self,
        main: Callable[[], Any],
        *,
        seed: bytes,
        threads: Any,
        on_quiet: Callable[[], None],
    ) -> None:
        thread = threads.process.new_thread("task")
        turn = Turn(threads.process, thread)
        super().__init__(main, seed=seed, threads=_OneThread(thread, turn), on_quiet=on_quiet)
        self._turn = turn  # type: ignore[assignment]


class SimIds(IdMaker):
    """Makes ids by time, process and number."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number, self._count = number, 0

    def make(self, now_us: int) -> str:
        """Make the next id."""
        self._count += 1
        return "ex_" + _base32((now_us // 1000 << 55) | self._number << 20 | self._count)


class SimDice:
    """Bytes that come from the seed, none of them twice; a claim draws hundreds in advance."""

    def __init__(self, dice: Random) -> None:
        self._next = dice.getrandbits(63)

    def draw(self, count: int) -> bytes:
        """Draw bytes."""
        self._next += 1
        return self._next.to_bytes(count, "big")


@contextmanager
def deterministic(dice: Random) -> Iterator[None]:
    """Take nonces, names and threads from the dice while a simulation runs."""
    names = iter(range(1, 1_000_000))
    homes: list[tuple[Any, str, Any]] = [
        (identity, "_dice", SimDice(dice)),
        (engine, "worker_name", lambda: f"w{next(names)}"),
        (driver, "ThreadScope", SimThreadScope),
    ]
    before = [(home, name, getattr(home, name)) for home, name, _ in homes]
    for home, name, other in homes:
        setattr(home, name, other)
    try:
        yield
    finally:
        for home, name, plain in before:
            setattr(home, name, plain)


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


__all__: Sequence[str] = ("SimEngine", "deterministic", "request")
