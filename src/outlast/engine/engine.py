"""The engine: opens a store, owns it, runs executions, and gives handles to them.

``async with Engine(…)`` runs on the caller's loop, so that steps can use the application's own
connection pools; ``with Engine(…)`` runs the same coroutines on a loop in a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import sys
from collections import OrderedDict
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final, ParamSpec, Self, TypeVar

from outlast.codec import PAYLOAD_BYTES_MAX
from outlast.duration import Duration, microseconds
from outlast.engine.background import LoopThread
from outlast.engine.cluster.failover import Failover
from outlast.engine.cluster.fleet import KEPT_US as WORKERS_KEPT_US
from outlast.engine.cluster.fleet import Fleet
from outlast.engine.cluster.membership import LEASE, checked_lease
from outlast.engine.control import token as tokens
from outlast.engine.control.births import Births
from outlast.engine.control.budgets import Budgets, read_adjusted
from outlast.engine.control.bulk import Bulk, BulkReport, action_of
from outlast.engine.control.capacity import Limits, Queues, names_of
from outlast.engine.control.descent import Descent, descend
from outlast.engine.control.group import Group
from outlast.engine.control.handle import Execution
from outlast.engine.control.permitted import (
    answered,
    permitted_answer,
    permitted_question,
    token_for,
)
from outlast.engine.control.pruner import Pruner, Rules
from outlast.engine.control.scheduler import Scheduler
from outlast.engine.control.schedules import Schedules
from outlast.engine.control.tenants import Tenants
from outlast.engine.control.token import Permit
from outlast.engine.control.webhooks import Webhooks
from outlast.engine.drive.warm import WARM_COPIES, WarmCopies
from outlast.engine.drive.worker import Worker
from outlast.engine.read.feed import Events, Tail, filter_of, fitting, keep
from outlast.engine.read.inbox import QuestionPage, Wanted, read_page
from outlast.engine.read.logs import begin_capture, end_capture
from outlast.engine.read.questions import OpenQuestion
from outlast.engine.read.ruling import hear
from outlast.engine.read.standing import standing
from outlast.engine.steps.remote import REMOTE, RemoteDesk
from outlast.engine.task import current
from outlast.engine.task.current import closed, opened
from outlast.engine.task.registry import PLAIN, TASKS, VERSIONS, StartOptions, Task, by_name
from outlast.engine.write.clock import Clock, StoreClock, WallClock, clock_of
from outlast.engine.write.events import tell
from outlast.engine.write.identity import IdMaker, worker_name
from outlast.engine.write.journal import Journal
from outlast.engine.write.request import birth_event, read_birth, read_delivery, successor_of
from outlast.engine.write.tally import Tally
from outlast.errors import (
    AlreadyAnswered,
    NoEngine,
    NotFound,
    OutlastError,
    StoreBroken,
    UsageError,
)
from outlast.lifecycle import Execution as Record
from outlast.lifecycle import Message, MessageKind, Reason, State, Transition
from outlast.lifecycle.record import copy_of
from outlast.naming import tenant_of
from outlast.retention import DEFAULT, Retention, retention_of
from outlast.store import DEFAULT_URL, open_store, shown
from outlast.store.protocol import (
    Adjust,
    Answer,
    BudgetRow,
    Deliver,
    Filter,
    Heard,
    Part,
    ProgressRow,
    Service,
    Store,
    StreamHead,
    StreamItem,
    WorkerRow,
)

if TYPE_CHECKING:
    from outlast.engine.primitives.publishing import Published

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Ended = tuple[Record, Transition]
"""An execution that has ended: its row, and the last row of its log."""

WAKES: Final = frozenset({MessageKind.ANSWER, MessageKind.SIGNAL, MessageKind.RESUME})
"""The messages for which a slot is kept, as what they come to may be parked for them."""
SWEEP_MAX: Final = 1_000
WATCH_SECONDS: Final = 0.03
"""How often the engine looks whether another process has written: well under 100 ms."""
_GC_DEFAULT: Final = 700
GC_THRESHOLD: Final = 25_000
"""New objects before the collector looks for cycles, where nobody has set it: CPython's 700 was
made for small programs and cost a quarter of W1 (``docs/performance.md``)."""
_SWITCH_DEFAULT_SECONDS: Final = 0.005
SWITCH_SECONDS: Final = 0.000_5
"""How long a thread that computes keeps the interpreter's lock from one that waits for it, where
nobody has set it. The journal's thread gives the lock away at every statement, and at CPython's
5 ms it stood still while the loop computed (``docs/performance.md``)."""
RECENT_MAX: Final = 2_000
RECENT_BYTES_MAX: Final = 4_096
"""How many results of executions that ended here are kept in memory, and up to which size."""
PRUNE_SECONDS: Final = 600.0
"""How often the engine looks for what has been kept long enough."""
PROBE_SECONDS: Final = 0.5
"""How often it tries again after the store has failed."""
WATCH_AT_MOST_SECONDS: Final = 0.25
"""How often a watcher looks for itself: the net under the wake-ups."""
WATCHERS_AT_ONCE: Final = 250
"""With more of them, each looks more seldom: together they take no more than these."""


class Engine:
    """Runs executions on one store; at most one engine runs on a file at a time.

    Args:
        store: the address of the store, as ``sqlite:///outlast.db``; by default the environment's
            ``OUTLAST_STORE``, else ``sqlite:///outlast.db``.
        tenant: whose executions it runs, and no others; by default the environment's
            ``OUTLAST_TENANT``, else ``default``. In a file each tenant has one engine at most.
        tasks: the tasks it runs; by default every task defined in this process.
        slots: how many executions it holds at once.
        threads: how many ``def`` steps, and how many ``def`` tasks, run at once.
        processes: how many steps that run in a process run at once; by default as many as there
            are processors.
        queues: the queues it takes executions from; by default all.
        capabilities: what it offers to executions that need it, as ``("gpu",)``.
        patience: how long a graceful stop waits for steps under way.
        cancel_grace: how long a task's code may clean up after a cancel, before it is cut off.
        payload_bytes_max: the largest result or input that is stored.
        lease: on a store that several engines share: how long this one may be silent before
            another one takes its executions over.
        warm_copies: how many parked executions of long logs it keeps in memory at most, for a
            minute each, so that they go on without a replay; 0 for none.
        retention: how long executions are kept after their end, where their task says nothing:
            a duration, a :class:`~outlast.Retention` by state, or None to keep all.
        clock: where the time comes from; by default this machine's clock, and on a store that
            several engines share that of the database server, whatever this machine's says.

    Raises (when it is opened):
        StoreOwned: another engine owns this tenant of the file.
        UnknownTenant, TenantClosed: there is no such tenant, or it is closed.
        SchemaMismatch, StoreBroken, StoreReadOnly, CannotLoad: the store cannot be used.
    """

    tick_seconds_max: ClassVar[float] = 60.0
    """How long the clock is not looked at, at most: a machine that slept has jumped ahead."""

    def __init__(
        self,
        store: str | None = None,
        *,
        tenant: str | None = None,
        tasks: Iterable[Task[Any, Any]] | None = None,
        slots: int = 4_000,
        threads: int = 64,
        processes: int | None = None,
        queues: Iterable[str] | None = None,
        capabilities: Iterable[str] = (),
        patience: Duration = "5s",
        cancel_grace: Duration = "30s",
        payload_bytes_max: int = PAYLOAD_BYTES_MAX,
        lease: Duration = LEASE,
        warm_copies: int = WARM_COPIES,
        retention: Duration | Retention | None = DEFAULT,
        clock: Clock | None = None,
    ) -> None:
        self._address = store or os.environ.get("OUTLAST_STORE") or DEFAULT_URL
        self.url = shown(self._address)
        self.tenant = tenant_of(tenant)
        self.name = worker_name()
        self.clock = clock or WallClock()
        self._clock_is_given = clock is not None
        known = None if tasks is None else list(tasks)
        self._tasks = None if known is None else by_name(known)
        self._versions = (
            VERSIONS
            if known is None
            else {(task.name, task.version): task for task in known if task.version is not None}
        )
        self._slots, self._threads = slots, threads
        self._queues = None if queues is None else names_of(queues, "queue")
        self._capabilities = names_of(capabilities, "capability")
        self._offers_remote = False
        self._processes = processors() if processes is None else max(1, processes)
        self._warm_copies = max(0, warm_copies)
        self._patience_us = microseconds(patience)
        self._lease_us = checked_lease(lease)
        self.payload_bytes_max = payload_bytes_max
        self._cancel_grace_us = microseconds(cancel_grace)
        self._retention = retention_of(retention)
        self._ids = IdMaker()
        self.tally = Tally()
        self.hearers: list[Heard] = []
        self._store: Store | None = None
        self._waiters: dict[str, list[asyncio.Future[Ended | None]]] = {}
        self.recent: OrderedDict[str, Ended] = OrderedDict()
        self._services: list[asyncio.Task[None]] = []
        self._watchers: dict[str, list[asyncio.Future[None]]] = {}
        self._wanted: list[tuple[str, asyncio.Future[Record | None]]] = []
        self._readings: set[asyncio.Task[None]] = set()
        self._wake: asyncio.Event | None = None
        self._sleeps_until: int | None = None
        self._thread: LoopThread | None = None
        self.schedules = Schedules(self)
        self.queues, self.limits = Queues(self), Limits(self)
        self._due_at: int | None = None
        self.budgets = Budgets(self)
        self.tenants = Tenants(self)
        self.tail = Tail(self)
        self.webhooks = Webhooks(self)
        self.beside: list[Engine] = []
        self._attending: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {}
        self._secret: bytes | None = None
        self._doubts = self._settled = 0
        self._behind = False
        self.fleet: Fleet | None = None
        self.failover: Failover | None = None
        self.lost: OutlastError | None = None
        self.on_lost: Callable[[], None] | None = None
        self.is_open = False

    def offer_remote(self) -> None:
        """Offer steps with ``on="remote"`` to other machines; whoever calls this serves them.

        Before it is opened, it comes to offer the capability ``remote`` as well, so that
        ``@task(needs="remote")`` is run only where that is so.
        """
        if self.is_open and self.worker.remote is None:
            self.worker.remote = RemoteDesk(self.loop, has_others=self.store.is_shared)
        elif not self.is_open:
            self._offers_remote = True
            self._capabilities |= {REMOTE}

    def attend(self, name: str, service: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run something again and again while this engine is open; a name is attended once."""
        if name not in self._attending:
            self._attending[name] = service
            if self.is_open:
                self._services.append(self.loop.create_task(self._keep(service)))

    # Opening and closing

    async def open(self) -> Self:
        """Open the store, take back what earlier processes left, and begin to run."""
        if current.is_child:
            raise UsageError(
                "an engine was opened in a process that runs a step for another one",
                why="that process imports the file that defines the step",
                do='open the engine under: if __name__ == "__main__":',
            )
        self.loop = asyncio.get_running_loop()
        if gc.get_threshold()[0] == _GC_DEFAULT:
            gc.set_threshold(GC_THRESHOLD, *gc.get_threshold()[1:])
        if sys.getswitchinterval() == _SWITCH_DEFAULT_SECONDS:
            sys.setswitchinterval(SWITCH_SECONDS)
        now = self.clock.now()
        self._store = self._open_store(now)
        if not self._clock_is_given and isinstance(self.clock, WallClock | StoreClock):
            try:
                self.clock = clock_of(self._store)
            except BaseException:
                self._store.close()
                raise
        self.journal = self._make_journal(self._store)
        self.journal.on_failure = self._store_failed
        self.journal.tally = self.tally
        self._store.hear(self._heard_of)
        self.worker = Worker(
            self.name,
            self._store,
            self.journal,
            self.clock,
            self.tasks,
            ids=self._ids,
            slots=self._slots,
            threads=self._threads,
            processes=self._processes,
            queues=self._queues,
            tally=self.tally,
            warm=self._make_warm(),
            capabilities=self._capabilities,
            payload_bytes_max=self.payload_bytes_max,
            cancel_grace_us=self._cancel_grace_us,
            on_final=self._recorded,
            on_parked=self.look_at_clock,
            on_gone=self._ended,
            changed=self._changed,
        )
        self.worker.versions = self._versions
        self.worker.context.run(current.current_engine.set, self)
        if self._offers_remote:
            self.worker.remote = RemoteDesk(self.loop, has_others=self.store.is_shared)
        self._wake = asyncio.Event()
        self.scheduler = Scheduler(self)
        if self._store.is_shared:
            self.failover = Failover(self)
            self.fleet = self._make_fleet()
            self.worker.membership = self.fleet.membership
            self.worker.hint = self.fleet.hint
        try:
            await self._join()
            await self.scheduler.sync()
        except BaseException:
            if self.fleet is not None:
                self.fleet.let_go()
            self.journal.stop()
            self._store.close()  # or those that try again would fill a server by themselves
            raise
        self._wake.set()
        self._services = [
            self.loop.create_task(self._keep(service))
            for service in (*self._what_it_does(), *self._attending.values())
        ]
        self.is_open = True
        begin_capture()
        opened(self)
        self.worker.look()
        return self

    def _heard_of(self, rows: Sequence[Transition], ended: Sequence[Record]) -> None:
        """Hear, on the writing thread, of what was committed here."""
        self.tally.committed(rows, ended)
        tell(rows, ended)
        for hearer in self.hearers:
            hearer(rows, ended)

    def _what_it_does(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """Name its services; an engine on a shared store that runs nothing only listens."""
        if self.fleet is not None and self.fleet.membership is None:
            return [self.fleet.listen]
        services = [self._tick, self.scheduler.tick, self._announce, self._prune]
        if self.fleet is None:
            return [*services, self._watch]
        return [*services, self._watch, self.fleet.watch_lease, self.fleet.take_over]

    def _make_warm(self) -> WarmCopies:
        """Make what keeps parked executions in memory; tests and the simulation have their own."""
        return WarmCopies(self._warm_copies, self.clock)

    def _make_fleet(self) -> Fleet:
        """Make what it needs beside others; the simulation has its own."""
        return Fleet(self, self._lease_us, runs=self._slots > 0)

    def service(self) -> Service:
        """Say what it offers to executions."""
        return Service(
            tuple(sorted(self.tasks)),
            tuple(sorted(self._versions)),
            None if self._queues is None else tuple(sorted(self._queues)),
            tuple(sorted(self._capabilities)),
            self._slots,
        )

    def _open_store(self, now: int) -> Store:
        """Open the store; the test engine brings its own."""
        return open_store(self._address, owner=self.name, now=now, tenant=self.tenant)

    def _make_journal(self, store: Store) -> Journal:
        """Make the journal; that of the test engine writes in the loop's own thread."""
        return Journal(store, self.loop)

    async def aclose(self) -> int:
        """Stop gracefully; gives how many executions were handed back for the next engine."""
        if not self.is_open:
            return 0
        self.is_open = False
        end_capture()
        closed(self)
        for service in self._services:
            service.cancel()
        await asyncio.gather(*self._services, return_exceptions=True)
        if self.fleet is not None:
            await self.fleet.drain()
        handed = await self.worker.close(self._patience_us)
        with contextlib.suppress(OutlastError):  # else its lease runs out, or the lock is proof
            await self.journal.call(lambda: self.store.leave(self.name, self.clock.now()))
        if self.fleet is not None:
            self.fleet.hint("work")
            await self.fleet.leave()
        await self.journal.close()
        self.store.close()
        for waiters in self._waiters.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(
                        NoEngine("the engine was closed; the execution goes on later")
                    )
        self._waiters.clear()
        return handed

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        self._thread = LoopThread()
        try:
            self._thread.run(self.open())
        except BaseException:
            self._thread.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> int:
        """Stop gracefully an engine that was opened with ``with``."""
        if self._thread is None:
            return 0
        try:
            return self._thread.run(self.aclose())
        except NoEngine:
            self._let_go()
            return 0
        finally:
            self._thread.stop()
            self._thread = None

    def _let_go(self) -> None:
        """Give the file back although the loop has ended: what ran there is as good as killed."""
        if self.is_open:
            end_capture()
        self.is_open = False
        closed(self)
        if self.fleet is not None:
            self.fleet.let_go()
        self.journal.stop()
        self.store.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the engine's own loop, from another thread.

        Raises:
            UsageError: the engine runs on the caller's loop; await the coroutine instead.
            NoEngine: the engine is not open, or not any more.
        """
        if self._thread is None:
            coroutine.close()
            if not self.is_open:
                raise NoEngine(
                    "this engine is not open", do=f'with Engine("{self.url}") as engine: …'
                )
            raise UsageError(
                "this engine runs on an event loop of yours",
                do="use the method with an a: astart, aresult",
            )
        return self._thread.run(coroutine)

    @property
    def store(self) -> Store:
        """The open store.

        Raises:
            NoEngine: the engine is not open.
        """
        if self._store is None:
            raise NoEngine("this engine is not open", do="async with Engine(…) as engine: …")
        return self._store

    @property
    def tasks(self) -> Mapping[str, Task[Any, Any]]:
        """The tasks it runs, by name."""
        return TASKS if self._tasks is None else self._tasks

    async def _join(self) -> None:
        """Say who we are; having the file proves every earlier lease dead."""
        now = self.clock.now()
        lease_us = None if self.fleet is None else self._lease_us
        row = WorkerRow(
            self.name, socket.gethostname(), os.getpid(), now, now, lease_us, service=self.service()
        )
        if self.fleet is not None:
            await self.fleet.join(row)
        else:
            await self.journal.call(lambda: self.store.register(row))
            while await self.journal.call(
                lambda: self.store.recover(None, self.name, self.clock.now(), SWEEP_MAX)
            ):
                pass
        await self._learn_budgets()

    async def _learn_budgets(self) -> None:
        """Hear of the budgets that executions share."""
        self.worker.learn(await self.worker.read(self.store.budgets))

    # Services

    async def _keep(self, service: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a service again and again; a store that fails now does not end it.

        Services use ``asyncio.timeout``, never ``wait_for``: that of Python 3.11 swallows a cancel
        that comes in the moment in which what it waits for is there.
        """
        while self.is_open and self.lost is None:
            try:
                await service()
            except OutlastError:
                await asyncio.sleep(PROBE_SECONDS)

    async def _tick(self) -> None:
        """Move what the clock moves, then sleep until the next instant it moves something."""
        assert self._wake is not None
        self._wake.clear()
        self._sleeps_until = None
        now = self.clock.now()
        unsure = self._settled < self._doubts
        self._doubts += 1  # unless it says what it did
        doubts = self._doubts
        moved, due_at = await self.journal.call(lambda: self.store.sweep(now, SWEEP_MAX))
        due_before, self._due_at = self._due_at, due_at
        if moved or unsure:
            self.worker.drop_overdue(now if moved < SWEEP_MAX else 0)
            self.worker.look()
            self.scheduler.swept()
            self._changed(None)
            await self._check_waiters()
            await self._read_unread()
            self._settled = doubts
            if moved == SWEEP_MAX:
                return
        elif due_before is not None and due_before <= now:
            self.worker.look()  # a rate has opened, of which an earlier engine knew
            if self.fleet is not None:
                self.worker.drop_overdue(now)  # another engine has ended what was due
        self._settled = doubts
        self.worker.look_if_open(now)
        if self.worker.opens_at is not None:
            opens_at = self.worker.opens_at
            due_at = opens_at if due_at is None else min(opens_at, due_at)
        longest = self.tick_seconds_max
        now = self.clock.now()
        delay = longest if due_at is None else max(0.0, (due_at - now) / 1e6)
        if self.fleet is not None:
            delay += self.fleet.stagger()  # others will look at the same instant
        self._sleeps_until = now + int(min(delay, longest) * 1e6)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(delay, longest)):
                await self._wake.wait()

    async def _watch(self) -> None:
        """Act on what other processes wrote: new executions, and messages for ours."""
        if self.fleet is not None:
            await self.fleet.listen()
            return
        await asyncio.sleep(WATCH_SECONDS)
        try:
            has_changed = await self.journal.call(self.store.changed)
        except StoreBroken as error:
            self._lose(error)
            return
        if not has_changed and not self._behind:
            return
        self._behind = True
        await self._learn_budgets()
        self.look()
        self.scheduler.look()
        await self._read_unread()
        self._changed(None)
        await self._check_waiters()
        self._behind = False

    def _lose(self, error: OutlastError) -> None:
        """The store is not there any more, and will not come back: run nothing, and say so."""
        self.lost = error
        for service in self._services:
            if service is not asyncio.current_task():
                service.cancel()
        for driver in list(self.worker.drivers.values()):
            driver.drop()
        for waiter in [one for waiters in self._waiters.values() for one in waiters]:
            if not waiter.done():
                waiter.set_exception(error)
        self._changed(None)
        self.loop.call_exception_handler(
            {"message": "outlast has lost its store", "exception": error}
        )
        if self.on_lost is not None:
            self.on_lost()

    async def see_news(self, topics: Collection[str], *, thoroughly: bool = True) -> None:
        """See what other engines on this store have written, as far as these topics go.

        Hints may come by the dozen a second; what is rare is looked at ``thoroughly`` only.
        """
        if "work" in topics:
            if thoroughly:
                await self._learn_budgets()
                self.scheduler.look()
            self.look_at_clock()
            self.worker.look()
        if "inbox" in topics:
            await self._read_unread()
        if "ended" in topics:
            self._changed(None)
            await self._check_waiters()

    @property
    def is_awaiting_others(self) -> bool:
        """Whether somebody here waits for an execution that does not run here."""
        return any(not self.worker.tells(id) for id in self._waiters)

    def hint(self, topic: str) -> None:
        """Tell other engines on this store, if there can be any, that there is something to see."""
        if self.fleet is not None:
            self.fleet.hint(topic)

    async def _read_unread(self) -> None:
        """Bring the executions that run here what others have sent them."""
        if self.fleet is not None and not self.worker.drivers:
            return
        self.worker.read_inboxes(await self.worker.read(lambda: self.store.unread(self.name)))

    async def _prune(self) -> None:
        """Delete what has been kept long enough."""
        await asyncio.sleep(PRUNE_SECONDS)
        await self.prune()

    @property
    def rules(self) -> Rules:
        """How long what has ended is kept."""
        return Rules(self._retention, self.tasks)

    async def prune(self) -> int:
        """Delete now what has been kept long enough; gives how many executions.

        The engine does this by itself every ten minutes.
        """
        pruner = Pruner(self.store, self.rules, self.worker.read, self.journal.call)
        await self.scheduler.prune()
        before = self.clock.now() - WORKERS_KEPT_US
        await self.journal.call(lambda: self.store.forget_workers(before))
        await keep(self.store, self.journal.call, self.clock.now())
        return await pruner.run_once(self.clock.now())

    async def _announce(self) -> None:
        """Note the steps that take long, and forget what has rested for long."""
        await asyncio.sleep(0.5)
        now = self.clock.now()
        for driver in list(self.worker.drivers.values()):
            driver.attempts.announce(now)
        self.loop.call_soon(self.worker.warm.cool, now)  # it runs task code

    async def _check_waiters(self) -> None:
        """Tell those who wait for executions that ended elsewhere."""
        ids = list(self._waiters)
        if self.fleet is not None:  # who runs here tells by itself
            ids = [id for id in ids if not self.worker.tells(id)]
            if not self.fleet.may_ask_for(len(ids)):
                return
        if ids:
            found = await self.worker.read(lambda: self.store.get(ids))
            for id, record in zip(ids, found, strict=True):
                if record is None or record.is_final:  # what was deleted since had ended
                    self._ended(id)

    def _recorded(self, record: Record, row: Transition) -> None:
        """An execution has ended here: keep what it came to for a while, it is often asked for."""
        if row.payload is None or len(row.payload) <= RECENT_BYTES_MAX:
            self.recent[record.id] = (record, row)
            if len(self.recent) > RECENT_MAX:
                self.recent.popitem(last=False)
        self.scheduler.ended(record)
        self._ended(record.id, (record, row))
        if self.fleet is not None:
            self.fleet.hint("ended")

    def _ended(self, id: str, ended: Ended | None = None) -> None:
        """Wake who waits for an execution's end: it has come, or is somebody else's to tell."""
        for waiter in self._waiters.pop(id, ()):
            if not waiter.done():
                waiter.set_result(ended)

    def look(self) -> None:
        """See what there is to claim, and what the clock will move next."""
        self.look_at_clock()
        self.worker.look()
        if self.fleet is not None and self.worker.free <= 0:
            self.fleet.hint("work")

    def doubt(self) -> None:
        """A write failed that had to do with several executions: see all that it may have done.

        Those that it made are queued, and those that it told something have a message.
        """
        self._doubts += 1
        self.look_at_clock()
        self.scheduler.look()

    def look_at_clock(self) -> None:
        """See what the clock will move next."""
        if self._wake is not None:
            self._wake.set()

    def expect(self, due_at: int) -> None:
        """Know of an instant at which the clock will move something; a look costs a sweep."""
        if self._sleeps_until is None or due_at < self._sleeps_until:
            self.look_at_clock()

    def _changed(self, id: str | None) -> None:
        """Wake who watches this execution; None: any may have changed."""
        for name in [id] if id is not None else list(self._watchers):
            for watcher in self._watchers.pop(name, ()):
                if not watcher.done():
                    watcher.set_result(None)

    async def next_change(self, id: str) -> None:
        """Wait until something may have changed about an execution."""
        future: asyncio.Future[None] = self.loop.create_future()
        self._watchers.setdefault(id, []).append(future)
        self.worker.watched += 1
        at_most = WATCH_AT_MOST_SECONDS * (1 + self.worker.watched // WATCHERS_AT_ONCE)
        # All look in the same turn of the loop, in which what they read is read together.
        until = (self.loop.time() // at_most + 1) * at_most
        try:
            async with asyncio.timeout_at(until):
                await future
        except TimeoutError:
            pass
        finally:
            self.worker.watched -= 1

    def _store_failed(self, error: OutlastError) -> None:
        """A commit failed: what ran ahead of it is thrown away, and the store is read again.

        The leases of this incarnation are given up for dead, so that a write of it that did reach
        the file is as good as one of a killed process.
        """
        self.begin_anew(error)

    def begin_anew(self, error: OutlastError | None = None) -> None:
        """Drop what is in memory, and come back as a new incarnation once the store is there."""
        self.rename(error)
        self.worker.spawn(self._rejoin())

    def rename(self, error: OutlastError | None = None) -> None:
        """Be another incarnation from here on: what runs is dropped, what is claimed is the new's.

        Never one without the other: what the old one holds is anybody's as soon as it is forsaken.
        """
        if self.failover is not None:
            self.failover.dropping(error)
        for driver in list(self.worker.drivers.values()):
            driver.drop(at_once=True)
        if self.fleet is not None:
            self.fleet.forsake(self.name)
        self.name = worker_name()
        self.worker.reborn(self.name)

    async def _rejoin(self) -> None:
        """Take the old incarnation's leases back once the store can be written again."""
        while self.is_open:
            try:
                await self._join()
            except OutlastError:
                await asyncio.sleep(PROBE_SECONDS)
                continue
            self.look()
            if self.failover is not None:
                await self.failover.account()
            return

    async def request(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Make a request to the store on this engine's loop; the test engine has its own way."""
        return await make()

    def new_id(self) -> str:
        """Make an id for an execution."""
        return self._ids.make(self.clock.now())

    def new_ids(self, count: int) -> list[str]:
        """Make ids for executions that are made together."""
        return self._ids.make_many(self.clock.now(), count)

    # Starting

    async def astart(self, task: Task[P, R], *args: P.args, **kwargs: P.kwargs) -> Execution[R]:
        """Start an execution and give its handle, once it is durable.

        Raises:
            WrongArguments, BadPayload, PayloadTooLarge: nothing was written.
            StoreUnavailable: whether it was started is unknown.
        """
        return await self.astart_with(PLAIN, task, args, kwargs)

    def start(self, task: Task[P, R], *args: P.args, **kwargs: P.kwargs) -> Execution[R]:
        """Start an execution, as :meth:`astart`, from a thread."""
        return self.run(self.astart_with(PLAIN, task, args, kwargs))

    def start_with(
        self,
        options: StartOptions,
        task: Task[Any, R],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Execution[R]:
        """Start an execution with options, as :meth:`astart_with`, from a thread."""
        return self.run(self.astart_with(options, task, args, kwargs))

    async def astart_with(
        self,
        options: StartOptions,
        task: Task[Any, R],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Execution[R]:
        """Start an execution with options.

        Raises:
            KeyConflict: the key belongs to another task or input; nothing was written.
            WrongArguments, BadPayload, PayloadTooLarge, StoreUnavailable: as :meth:`astart`.
        """
        return Execution(self, (await self.astart_row(options, task, args, kwargs))[0].id, task)

    async def astart_row(
        self,
        options: StartOptions,
        task: Task[Any, Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> tuple[Record, bool]:
        """Start an execution, as :meth:`astart_with`; gives its row, and whether it is new."""
        payload = task.input.bind(args, kwargs, bytes_max=self.payload_bytes_max)
        now = self.clock.now()
        event = birth_event(task, payload, options, now)
        births = Births(self)
        await self.journal.room()
        births.submit(self._ids.make(now), event, now)
        await births.all()
        (answer,) = births.come()
        return read_birth(answer, options.key), answer.refused is None

    async def adescend(self, id: str, wish: Descent) -> Record:
        """Make another execution of one: a rerun, a fork, a recovery; gives its row.

        Raises:
            NotFound: there is no such execution.
            UnknownStep, NotRecoverable, UnknownTask, WrongArguments, BadPayload, PayloadTooLarge,
            KeyConflict: it cannot be made so; nothing was written.
            StoreUnavailable: whether it was made is unknown; with a key it is safe to repeat.
        """
        source, log = await self.read_one(id), await self.read_log(id)
        now = self.clock.now()
        made = self._ids.make(now)
        task = self.tasks.get(source.task)
        item = await self.worker.read(
            lambda: descend(source, log, wish, task, made, now, bytes_max=self.payload_bytes_max)
        )
        answer = await self.journal.commit(item)
        self.look()
        return read_birth(answer, wish.key)

    async def astart_many(
        self,
        task: Task[Any, R],
        inputs: Iterable[tuple[Any, ...]],
        options: StartOptions = PLAIN,
    ) -> list[Execution[R]]:
        """Start an execution for each tuple of arguments; they share their commits.

        Raises:
            WrongArguments, BadPayload, PayloadTooLarge: nothing at all was written.
            StoreUnavailable: which of them were started is unknown.
        """
        payloads = [task.input.bind(args, {}, bytes_max=self.payload_bytes_max) for args in inputs]
        handles: list[Execution[R]] = []
        births = Births(self)

        def take() -> None:
            handles.extend([Execution(self, id, task) for id in births.ids(options)])

        place = 0
        while place < len(payloads):
            await births.room()
            take()
            place = births.send(task, options, payloads, place)
        await births.all()
        take()
        return handles

    def start_many(
        self, task: Task[Any, R], inputs: Iterable[tuple[Any, ...]]
    ) -> list[Execution[R]]:
        """Start many executions, as :meth:`astart_many`, from a thread."""
        return self.run(self.astart_many(task, inputs))

    # Messages

    async def asend(
        self, id: str, message: Message, *, only_if: tuple[int, int] | None = None
    ) -> Record:
        """Deliver a message to an execution; gives its row after it.

        With ``only_if`` nothing is written unless the row's ``seq`` and ``inbox_count`` are these.

        Raises:
            Stale: they are others.
            NotFound: there is no such execution.
            AlreadyAnswered: the question has its answer.
            TransitionRefused: it has ended, or cannot take this now.
            StoreUnavailable: whether it was delivered is unknown; the same id may be sent again.
        """
        answer = await self._deliver(id, message, only_if)
        while (successor := successor_of(answer)) is not None:
            id = successor
            answer = await self._deliver(id, message)
        record = read_delivery(answer, id, message)
        if answer.claimed is not None:
            return record  # it was woken, and goes on here
        driver = self.worker.drivers.get(id)
        if record.is_final:
            self.scheduler.ended(record)
            self._ended(id)
        if driver is not None and record.is_leased and answer.entry is not None:
            # Its own owner takes it at once: before its sender goes on, and without reading.
            self.loop.call_soon(driver.take, [answer.entry])
        elif not record.is_leased:
            self.look()
        else:
            self.hint("inbox")
        if answer.told or answer.owes:
            self.worker.pass_on(answer)
        return record

    async def _deliver(
        self, id: str, message: Message, only_if: tuple[int, int] | None = None
    ) -> Answer:
        await self.journal.room()  # a slot that was offered must not wait for it
        offer = self.worker.offer() if message.kind in WAKES else None
        return await self.journal.commit(
            Deliver(id, message, self.clock.now(), only_if=only_if, offer=offer)
        )

    # People

    async def aquestions(
        self,
        to: str | None = None,
        *,
        oldest_first: bool = False,
        cursor: str | None = None,
        limit: int = 50,
    ) -> QuestionPage:
        """Give the questions of all executions that somebody can still answer, a page at a time.

        Args:
            to: only those that this recipient has to answer now.
            oldest_first: in the order in which their executions were started, else the newest
                first.
            cursor: ``next`` of the page before.
            limit: how many, at most 10,000.

        Raises:
            UsageError: there is no such page.
        """
        wanted = Wanted(to, oldest_first, cursor, limit)
        wanted.check()
        return await self.worker.read(lambda: read_page(self.store, wanted))

    def questions(
        self,
        to: str | None = None,
        *,
        oldest_first: bool = False,
        cursor: str | None = None,
        limit: int = 50,
    ) -> QuestionPage:
        """Give open questions, as :meth:`aquestions`."""
        return self.run(self.aquestions(to, oldest_first=oldest_first, cursor=cursor, limit=limit))

    async def aquestion_by_token(self, token: str) -> OpenQuestion:
        """Give the question that a token permits to answer.

        Raises:
            TokenInvalid, TokenForeign, TokenExpired: it permits nothing here.
            AlreadyAnswered: the question has its answer; TokenUsed: by this token.
            NotFound: the question is open no more.
        """
        return (await self._permitted(token))[1]

    def question_by_token(self, token: str) -> OpenQuestion:
        """Give the question of a token, as :meth:`aquestion_by_token`."""
        return self.run(self.aquestion_by_token(token))

    async def aanswer_by_token(self, token: str, value: Any) -> Execution[Any]:
        """Answer a question with a token; gives the handle of its execution.

        Raises:
            BadPayload: the answer does not have the form that is asked for; nothing was written,
                and the token is still good.
            TokenInvalid, TokenForeign, TokenExpired: it permits nothing here.
            AlreadyAnswered: the question has its answer; TokenUsed: by this token.
            NotFound: the question is open no more.
        """
        permit, question = await self._permitted(token)
        message = permitted_answer(permit, question, value)
        try:
            await hear(self, await self.asend(permit.execution_id, message), question.key)
        except AlreadyAnswered as error:
            raise answered(permit, await self.read_log(permit.execution_id), error) from None
        return Execution(self, permit.execution_id, None)

    def answer_by_token(self, token: str, value: Any) -> Execution[Any]:
        """Answer a question with a token, as :meth:`aanswer_by_token`."""
        return self.run(self.aanswer_by_token(token, value))

    async def _permitted(self, token: str) -> tuple[Permit, OpenQuestion]:
        permit = tokens.read(
            await self.read_secret(), token, self.clock.now(), self.worker.store.tenant
        )
        record = await self.read_one(permit.execution_id)
        return permit, permitted_question(permit, record, await self.read_log(record.id))

    async def read_standing(self, record: Record) -> Reason | None:
        """Say whose turn it is, and who holds what it needs; None for what waits for no worker."""
        desk = self.worker.remote
        if record.state is State.RUNNING and desk is not None and record.cancel_at is None:
            return desk.reason(record.id, record.state_at)
        if record.state not in (State.QUEUED, State.BLOCKED):
            return None
        read = partial(standing, self.store, record, self.name)
        return await self.request(lambda: self.worker.read(read))

    async def amake_token(self, question: OpenQuestion, actor: str, span_us: int) -> str:
        """Make a token for a question; see :meth:`outlast.Execution.aanswer_token`."""
        secret, tenant = await self.read_secret(), self.worker.store.tenant
        return token_for(secret, question, actor, span_us, self.clock.now(), tenant)

    async def read_secret(self) -> bytes:
        """Give the secret that signs the tokens of this store."""
        if self._secret is None:
            drawn = tokens.drawn()

            async def keep() -> bytes:
                return await self.journal.call(lambda: self.store.secret(tokens.SECRET_NAME, drawn))

            self._secret = await self.request(keep)
        return self._secret

    async def abulk(
        self,
        action: str,
        filter: Filter,
        *,
        why: str | None = None,
        actor: str = "user",
        dry_run: bool = False,
    ) -> BulkReport:
        """Do something to all executions that a filter fits; gives an account of it.

        One that was broken off is asked for again: what is done is not found again. What is asked
        of each is as durable as by its own handle.

        Args:
            action: ``cancel``, ``pause``, ``resume``, ``retry`` or ``rerun``.
            filter: which executions. Where it names no states, those that the action makes sense
                for; its limit does not count.
            why: kept in the log of each.
            actor: who wants it.
            dry_run: only tell how many there are, how old, and some of them.

        Raises:
            UsageError: there is no such action.
            StoreUnavailable: some of it may have been done; ask again.
        """
        bulk = Bulk(action_of(action), filter, why, actor)
        report, found = await self.worker.read(lambda: bulk.find(self.store))
        report.is_dry = dry_run
        if dry_run:
            return report
        parts = bulk.parts(self.store, report, found)
        while (part := await self.worker.read(lambda: next(parts, None))) is not None:
            come = [self._wished(id, wish, report) for id, wish in part]
            for one in await asyncio.gather(*come, return_exceptions=True):
                report.take(one)
        return report

    def bulk(
        self,
        action: str,
        filter: Filter,
        *,
        why: str | None = None,
        actor: str = "user",
        dry_run: bool = False,
    ) -> BulkReport:
        """Do something to all executions that a filter fits, as :meth:`abulk`."""
        return self.run(self.abulk(action, filter, why=why, actor=actor, dry_run=dry_run))

    async def _wished(self, id: str, wish: Message | Descent, report: BulkReport) -> Record:
        if isinstance(wish, Message):
            return await self.asend(id, wish)
        made = await self.adescend(id, wish)
        report.made.append(made.id)
        return made

    # Budgets

    async def aadjust(self, item: Adjust) -> list[BudgetRow]:
        """Change budgets; gives them as they are then.

        Raises:
            NotFound: one that shall be raised or reset is not there.
        """
        answer = await self.journal.commit(item)
        budgets = read_adjusted(answer, item)
        self.worker.learn(budgets)
        self.look()
        for record, entry in answer.told:
            driver = self.worker.drivers.get(record.id)
            if driver is not None and record.is_leased:
                self.loop.call_soon(driver.take, [entry])
        return budgets

    async def read_budgets(self, scopes: Collection[str] | None) -> list[BudgetRow]:
        """Read the budgets of these scopes; None: all shared ones."""
        return await self.worker.read(lambda: self.store.budgets(scopes))

    # Looking

    def execution(self, id: str) -> Execution[Any]:
        """Give the handle of an execution by its id; it is looked up at the first use."""
        return Execution(self, id, None)

    async def wait_final(self, id: str) -> Ended:
        """Wait until an execution has ended and give its row and the last row of its log.

        One that went on as another has ended when the other has.

        Raises:
            NotFound: there is no such execution.
        """
        while True:
            ended = await self._wait_one(id)
            successor = (ended[0].detail or {}).get("continued_as")
            if successor is None:
                return ended
            id = str(successor)

    async def _wait_one(self, id: str) -> Ended:
        while True:
            if self.lost is not None:
                raise self.lost
            recent = self.recent.get(id)
            if recent is not None:
                return recent
            future: asyncio.Future[Ended | None] = self.loop.create_future()
            waiters = self._waiters.setdefault(id, [])
            waiters.append(future)
            try:
                ended = None if self.worker.tells(id) else await self._read_ended(id)
                ended = ended or await future or await self._read_ended(id)
                if ended is not None:
                    return ended
            finally:
                if future in waiters:
                    waiters.remove(future)
                if not waiters and self._waiters.get(id) is waiters:
                    del self._waiters[id]

    async def _read_ended(self, id: str) -> Ended | None:
        record = await self.read_one(id)
        if not record.is_final:
            return None
        rows = await self.worker.read(lambda: self.store.log(id, record.seq - 1))
        return record, rows[-1]

    async def read_log(self, id: str, after_seq: int = 0) -> list[Transition]:
        """Read an execution's log from behind a row on."""
        return await self.worker.read(lambda: self.store.log(id, after_seq))

    async def apublish(
        self,
        name: str,
        value: Any = None,
        *,
        key: str | None = None,
        task: str | None = None,
        labels: Mapping[str, str] | None = None,
        actor: str = "user",
    ) -> Published:
        """Send an event to every execution that is open: each gets it as a signal of this name.

        It is taken by a wait that fits, now or later, as long as the execution has not ended; who
        is started later never gets it. It is sent by an execution of ours, which survives kills.

        Args:
            name: what code waits for, with ``wait_for``.
            value: anything that has a JSON form.
            key: published again under the same key, with the same name and value, it is sent once.
            task: only to executions of this task.
            labels: only to executions that have all these labels.
            actor: who sends it.

        Returns:
            It, with how many executions it has reached.

        Raises:
            KeyConflict: the key belongs to another event.
        """
        from outlast.engine.primitives.publishing import publish

        return await publish(self, name, value, key=key, task=task, labels=labels, actor=actor)

    def publish(self, name: str, value: Any = None, **more: Any) -> Published:
        """Send an event to every execution that is open, as :meth:`apublish`, from a thread."""
        return self.run(self.apublish(name, value, **more))

    def adopt(self, task: Task[Any, Any]) -> None:
        """Run a task of ours as well, where the tasks were given one by one."""
        if self._tasks is not None:
            self._tasks.setdefault(task.name, task)

    def events(
        self,
        *,
        after: str | None = None,
        task: str | None = None,
        prefix: str | None = None,
        states: Collection[str] = (),
        transitions: Collection[str] = (),
        labels: Mapping[str, str] | None = None,
        payload: bool = False,
    ) -> Events:
        """Give what happens to all executions, as it comes: ``for`` or ``async for``, without end.

        Each event once, those of one execution in the order of its log. Each has a ``cursor``:
        given as ``after``, one goes on behind it, in another process and after a restart as well.

        Args:
            after: the cursor; by default it begins now, and with ``"oldest"`` at what is kept.
            task: only executions of this task.
            prefix: only of tasks whose names begin so.
            states: only what led to one of these states.
            transitions: only these transitions, as ``claim``, ``wait`` or ``succeed``.
            labels: only executions that have all these labels.
            payload: whether inputs, results and answers come along.

        Raises:
            UsageError: it is no cursor, state or transition.
            FeedGap: at the first event: what came behind the cursor is not all kept any more, as
                nobody came for a day.
        """
        filter = filter_of(task, prefix, states, transitions, labels)
        return Events(
            lambda cursor: fitting(self.tail, filter, cursor, payload=payload), self.run, after
        )

    def group(self, name: str) -> Group:
        """Give the executions that are started under a name: wait for, count, cancel them as one.

        A group is the label ``group``; it needs no making, and outlives the engine.

        Raises:
            UsageError: the name is no proper label.
        """
        return Group(self, name)

    async def read_page(self, filter: Filter) -> list[Record]:
        """List executions, the newest first."""
        return await self.worker.read(lambda: self.store.page(filter))

    async def read_part(self, filter: Filter, rows_max: int) -> Part:
        """List executions, the newest first, looking at about so many rows at most."""
        return await self.worker.read(lambda: self.store.part(filter, rows_max))

    async def read_stream(self, id: str, name: str, after: int, limit: int) -> list[StreamItem]:
        """Read a stream of an execution from behind an item on."""
        return await self.worker.read(lambda: self.store.stream(id, name, after, limit))

    async def read_streams(self, id: str) -> list[StreamHead]:
        """Name the streams of an execution."""
        return await self.worker.read(lambda: self.store.streams(id))

    async def read_progress(self, id: str) -> ProgressRow | None:
        """Say how far an execution is, in its own words."""
        return (await self.worker.read(lambda: self.store.progress([id]))).get(id)

    async def read_one(self, id: str) -> Record:
        """Read an execution's row.

        Raises:
            NotFound: there is none.
        """
        future: asyncio.Future[Record | None] = self.loop.create_future()
        if not self._wanted:
            reading = self.loop.create_task(self._read_wanted())
            self._readings.add(reading)
            reading.add_done_callback(self._readings.discard)
        self._wanted.append((id, future))
        record = await future
        if record is None:
            raise NotFound(f"there is no execution {id}", where=self.url, do="outlast ls")
        return copy_of(record)

    async def _read_wanted(self) -> None:
        """Read together what one turn of the loop asks for: each call costs a thread's turn."""
        await asyncio.sleep(0)
        wanted, self._wanted = self._wanted, []
        ids = list(dict.fromkeys(id for id, _ in wanted))
        waiting = [future for _, future in wanted]
        try:
            records = await self.worker.read(lambda: self.store.get(ids))
        except asyncio.CancelledError:
            for future in waiting:
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - whoever asked hears of it
            for future in waiting:
                if not future.done():
                    future.set_exception(error)
            return
        found = dict(zip(ids, records, strict=True))
        for id, future in wanted:
            if not future.done():  # else nobody waits for it any more
                future.set_result(found[id])


def processors() -> int:
    """Say how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


__all__ = ["Engine"]
