"""The worker of this process: which executions it holds, and how it comes by more of them."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from concurrent.futures import thread as pool_module
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

from msgspec.structs import replace

from outlast.budget import limits_at_birth, parts_of
from outlast.engine.drive.driver import Driver
from outlast.engine.drive.warm import WarmCopies
from outlast.engine.task.current import current_scope
from outlast.engine.task.registry import Task, code_for
from outlast.engine.write.clock import Clock
from outlast.engine.write.identity import IdMaker, nonces
from outlast.engine.write.journal import Journal
from outlast.engine.write.purse import Ledger, given_later
from outlast.engine.write.tally import Tally
from outlast.errors import NoEngine, OutlastError, StoreBusy
from outlast.lifecycle import Event, Execution, Kind, Refusal, Transition, apply, create, decide
from outlast.lifecycle.gate import is_gated
from outlast.lifecycle.record import copy_of
from outlast.store.protocol import (
    SUSPECT,
    Answer,
    BudgetRow,
    Claimed,
    Claims,
    Create,
    Lease,
    Offer,
    Store,
    Write,
)

if TYPE_CHECKING:
    from outlast.engine.cluster.membership import Membership
    from outlast.engine.steps.processes import ProcessPool
    from outlast.engine.steps.remote import RemoteDesk

T = TypeVar("T")
READ_AGAIN_SECONDS: Final = 0.25
"""How often a driver's read is tried again after the store has failed."""
CLAIMS_MAX: Final = 1_000
"""Executions a claim takes at most, so that no transaction is long, and few are in memory that
have not begun."""
SHARED_CLAIMS_MAX: Final = 256
"""The same where others claim from the store, too, and wait for the rows that one has locked."""
TAKEN_MAX: Final = 128
"""Executions that are run in one turn of the loop, so that others have theirs."""
SUSPECT_US: Final = 5_000_000
"""How long it takes one that lives on to be no suspect any more, if it makes no progress."""
APART_SECONDS: Final = 0.05
"""How soon the next of them may be claimed: as soon as the one before has made some progress."""
LOG_ROWS_MAX: Final = 1_000
"""Rows of logs that are read together, so that the first of them need not wait for long."""
_BORN_AND_CLAIMED: Final = 2
"""The rows of one that nothing else has happened to; else a message may be among them."""


class Worker:
    """Holds the leases of this process; everything here runs on the engine's loop.

    Drivers run task code, so they are only ever called from plain callbacks of the loop, never from
    inside a task of it: asyncio knows one current task a loop, and the code's tasks are of another.
    """

    def __init__(
        self,
        name: str,
        store: Store,
        journal: Journal,
        clock: Clock,
        tasks: Mapping[str, Task[Any, Any]],
        *,
        ids: IdMaker,
        slots: int,
        threads: int,
        processes: int,
        queues: frozenset[str] | None,
        capabilities: frozenset[str],
        tally: Tally,
        warm: WarmCopies,
        payload_bytes_max: int,
        cancel_grace_us: int,
        on_final: Callable[[Execution, Transition], None],
        on_parked: Callable[[], None],
        on_gone: Callable[[str], None],
        changed: Callable[[str], None],
    ) -> None:
        self.name = name
        self.store = store
        self.journal = journal
        self.clock = clock
        self.tasks = tasks
        self.tally = tally
        self.versions: Mapping[tuple[str, str], Task[Any, Any]] = {}
        self.membership: Membership | None = None
        self._ids = ids
        self.loop = asyncio.get_running_loop()
        self.payload_bytes_max = payload_bytes_max
        self.cancel_grace_us = cancel_grace_us
        self.context = contextvars.copy_context()
        self.context.run(current_scope.set, None)
        self._task_threads = ThreadPoolExecutor(threads, "outlast-task")
        self.task_threads: Executor = self._task_threads
        self.drivers: dict[str, Driver] = {}
        self._ending: set[str] = set()
        self.ledger = Ledger()
        self._step_threads = ThreadPoolExecutor(threads, "outlast-step")
        self._read_threads = ThreadPoolExecutor(2, "outlast-read")
        self.processes_max = processes
        self._processes: ProcessPool | None = None
        self.remote: RemoteDesk | None = None
        self._slots = slots
        self._starting = 0
        self._to_replay: list[tuple[Driver, Claimed]] = []
        self._lease = Lease(name, queues=queues, capabilities=capabilities)
        self._claims_max = SHARED_CLAIMS_MAX if store.is_shared else CLAIMS_MAX
        self._on_final = on_final
        self._on_parked = on_parked
        self.hint: Callable[[str], None] = _say_nothing
        self._on_gone = on_gone
        self.changed = changed
        self.watched = 0
        self._claiming: asyncio.Task[None] | None = None
        self._more = False
        self._is_held_back = False
        self._suspect: Driver | None = None
        self.opens_at: int | None = None
        self._open = True
        self.warm = warm
        journal.on_offer = self._offered
        self._reads = True
        self._pending: set[asyncio.Task[Any]] = set()

    # Coming by executions

    @property
    def slots(self) -> int:
        """How many executions it holds at most."""
        return self._slots

    @property
    def free(self) -> int:
        """How many more executions fit; none while its own lease is not certain."""
        if not self._open or not self.may_begin():
            return 0
        return self._slots - len(self.drivers) - self._starting

    def may_begin(self) -> bool:
        """Tell whether bodies may start: nobody else can own what this worker holds."""
        return self.membership is None or self.membership.may_begin()

    def go_on(self) -> None:
        """Start what had to wait until the lease was certain again."""
        if self._was_held_up:
            self._was_held_up = False
            for driver in list(self.drivers.values()):
                self.loop.call_soon(driver.pump)
            self.look()

    def new_id(self, now: int) -> str:
        """Draw an id for a new execution."""
        return self._ids.make(now)

    def birth(
        self, id: str, event: Event, now: int, notes: Sequence[Event] = ()
    ) -> tuple[Create, Driver | None]:
        """Make the item that creates an execution.

        Where a slot is free and nobody waits for one, the claim and the start travel with it (the
        fast path), and the driver that will run it comes along. ``notes`` are what its log begins
        with, after its birth; what runs such a one reads them there.
        """
        record, row = create(self.store.tenant, id, event, now)
        if notes:
            return Create(record, [row, *self._append(record, notes, now)]), None
        task = self._code_at_once(record)
        if task is None:
            return Create(record, [row]), None
        (nonce,) = nonces(1)
        claim = Event(Kind.CLAIM, "engine", 0, nonce, data={"worker": self.name})
        start = Event(Kind.START, "engine", 1, nonce, data=task.stamp)
        rows = [row, *self._append(record, (claim, start), now)]
        self._starting += 1
        return Create(copy_of(record), rows), Driver(self, task, record, row)

    def runs_at_once(self, event: Event, now: int) -> bool:
        """Tell whether what is born by this event now takes the fast path."""
        return self._code_at_once(create(self.store.tenant, "", event, now)[0]) is not None

    def _code_at_once(self, record: Execution) -> Task[Any, Any] | None:
        """Give the code of a new execution that takes the fast path; None for any other."""
        task = code_for(record, self.tasks, self.versions)
        fast = (
            task is not None
            and self.free > 0
            and not self._more
            and record.state == "queued"
            and self._may_be_born_running(record)
        )
        return task if fast else None

    def _may_be_born_running(self, record: Execution) -> bool:
        """Tell whether no claim has to be asked for; of rules of its queue the store knows."""
        queues = self._lease.queues
        if self.ledger.is_spent_up(record.task):
            return False
        return not is_gated(record) and (queues is None or record.queue in queues)

    def _append(self, record: Execution, events: Iterable[Event], now: int) -> list[Transition]:
        """Decide what a new execution's log begins with."""
        rows = []
        for event in events:
            decision = decide(record, event, now)
            assert not isinstance(decision, Refusal)
            apply(record, decision)
            rows.append(decision.transition)
        return rows

    def born(self, driver: Driver, item: Create, stored: bool) -> None:
        """Run what the fast path has created, or forget it."""
        self._starting -= 1
        if driver.record.worker != self.name:
            return  # its incarnation is no more: what it has is being taken back
        if stored and self._open:
            self.drivers[driver.record.id] = driver
            if driver.own_budgets:
                self.ledger.learn(BudgetRow(*one) for one in limits_at_birth(item.rows[0]))
            driver.begin(item.rows[-1])
        elif stored:
            self.drivers[driver.record.id] = driver
            driver.hand_back()

    def offer(self) -> Offer | None:
        """Offer a slot to what a message may wake; None where there is none.

        It is kept until :meth:`_offered` hears what became of it.
        """
        if self.free <= 0:
            return None
        self._starting += 1
        (nonce,) = nonces(1)
        return Offer(self._lease, self.tasks.keys(), nonce)

    def _offered(self, answer: Answer) -> None:
        """Take what was claimed with a message, or have the slot back."""
        if answer.claimed is None:
            self._starting -= 1
        else:
            self.tally.claimed += 1
            self.loop.call_soon(self._take, answer.claimed)

    def look(self) -> None:
        """See whether there is something to claim; called whenever there may be."""
        self._more = True
        if self._claiming is None and self._open:
            self._claiming = self.loop.create_task(self._claim())
            self._claiming.add_done_callback(self._claimed)

    def _claimed(self, task: asyncio.Task[None]) -> None:
        self._claiming = None
        error = None if task.cancelled() else task.exception()
        if isinstance(error, StoreBusy):
            self._more = False  # it has claimed nothing for certain
            self.loop.call_later(READ_AGAIN_SECONDS, self.look)
        elif isinstance(error, OutlastError):
            if self._open and self.journal.on_failure is not None:
                self.journal.on_failure(error)  # what it has claimed, if anything, is unknown
        elif error is not None:
            raise error
        if self._more and self._open and self.free > 0:
            self.look()

    async def _claim(self) -> None:
        """Claim as long as there is room and something to claim."""
        while self._open and self.free > 0:
            self._more = False
            limit = min(self.free, self._claims_max)
            drawn = nonces(limit)
            self._starting += limit
            claimed = Claims()
            try:
                claimed = await self.journal.call(partial(self._claim_some, limit, drawn))
            finally:
                self._starting -= limit - len(claimed)
            if claimed:
                self.loop.call_soon(self._take_all, claimed[::-1])
            self._is_held_back = claimed.is_held_back
            if claimed.is_apart:
                self.loop.call_later(APART_SECONDS, self.look)
            if claimed.opens_at is not None:
                self.opens_at = min(claimed.opens_at, self.opens_at or claimed.opens_at)
                self._on_parked()
            if len(claimed) < limit and not claimed.is_unfinished:
                return
            self._more = True
        # No slot is free; whoever frees one looks again.

    def _claim_some(self, limit: int, drawn: Sequence[bytes]) -> Claims:
        names, now = self.tasks.keys(), self.clock.now()
        lease = self._lease
        if self._has_suspect(now):
            lease = replace(lease, has_suspect=True)
        begun = monotonic()
        claims = self.store.claim(lease, names, limit, now, drawn, list(self.versions))
        self.tally.took(monotonic() - begun, len(claims))
        return claims

    def _has_suspect(self, now: int) -> bool:
        """Tell whether one runs that may be what kills its workers: it has just begun, again."""
        suspect = self._suspect
        if suspect is None or self.drivers.get(suspect.record.id) is not suspect:
            return False
        record = suspect.record
        return record.idle_claims > SUSPECT and now - record.updated_at < SUSPECT_US

    def _take_all(self, claimed: list[Claimed]) -> None:
        """Run what was claimed together, the last first: a callback each would cost a context."""
        try:
            for _ in range(min(len(claimed), TAKEN_MAX)):
                try:
                    self._take(claimed.pop())
                except Exception as error:  # noqa: BLE001 - a bug of ours; the others must run
                    self.loop.call_exception_handler(
                        {"message": "outlast failed to run what it claimed", "exception": error}
                    )
        finally:
            if claimed:
                self.loop.call_soon(self._take_all, claimed)

    def _take(self, claimed: Claimed) -> None:
        record = claimed.execution
        task = code_for(record, self.tasks, self.versions)
        assert task is not None, "the store gives what was asked for"
        self._starting -= 1
        if record.worker != self.name:
            return  # its incarnation is no more: what it has is being taken back
        driver = self.warm.take(record, task) or Driver(self, task, record, claimed.birth)
        before = self.drivers.get(record.id)
        if before is not None:
            before.drop(at_once=True)  # somebody took its lease away, and it has not heard of it
        self.drivers[record.id] = driver
        if record.idle_claims > SUSPECT:
            self._suspect = driver
        if not self._open:
            driver.hand_back()
        elif (
            record.started_at is None and record.seq == _BORN_AND_CLAIMED and not driver.own_budgets
        ):
            driver.replay([], claimed.unseen)
        elif claimed.log is not None and self._knows_enough(driver, claimed.log):
            driver.replay(claimed.log, claimed.unseen)
        else:
            self._bring_back(driver, claimed)

    def _knows_enough(self, driver: Driver, log: Sequence[Transition]) -> bool:
        """Tell whether an execution can be replayed from a log that came with its claim.

        Else its budgets have to be read as well, or it has rested and needs but a part of the log.
        """
        if driver.parked is not None or driver.own_budgets:
            return False
        return not given_later(driver.record.id, log)

    def _bring_back(self, driver: Driver, claimed: Claimed) -> None:
        """Replay an execution, as soon as its log has been read with those of its neighbours."""
        if not self._to_replay:
            self.loop.call_soon(self._read_logs)
        self._to_replay.append((driver, claimed))

    def _read_logs(self) -> None:
        """Read the logs of what was claimed together by a few calls: each costs a thread's turn."""
        waiting, self._to_replay = self._to_replay, []
        some: list[tuple[Driver, Claimed]] = []
        rows = 0
        for one in waiting:
            rows += one[0].record.seq - _known_to(one[0])
            some.append(one)
            if rows >= LOG_ROWS_MAX:
                self.spawn(self._replay(some))
                some, rows = [], 0
        if some:
            self.spawn(self._replay(some))

    async def _replay(self, some: Sequence[tuple[Driver, Claimed]]) -> None:
        drivers = [driver for driver, _ in some]
        logs = await self._read_for(drivers, lambda: self._logs_of(drivers))
        for driver, rows in zip(drivers, logs or (), strict=False):
            if driver.record.inbox_seen:
                driver.adopt_budgets(given_later(driver.record.id, rows))
        scopes = {parts_of(name)[0] for driver in drivers for name in driver.own_budgets}
        if scopes and logs is not None:
            known = await self._read_for(drivers, lambda: self.store.budgets(scopes))
            self.ledger.learn(known or ())
        for (driver, claimed), rows in zip(some, logs or (), strict=False):
            if driver.parked is not None:
                self.loop.call_soon(self._go_on, driver, claimed, rows)
            else:
                self.loop.call_soon(driver.replay, rows, claimed.unseen)

    def _logs_of(self, drivers: Sequence[Driver]) -> list[list[Transition]]:
        """Read the logs of executions; of those that rest, from the row they parked with."""
        cold = [driver.record.id for driver in drivers if driver.parked is None]
        logs = dict(zip(cold, self.store.logs(cold), strict=True)) if cold else {}
        for driver in drivers:
            if driver.parked is not None:
                id = driver.record.id
                logs[id] = self.store.log(id, _known_to(driver))
        return [logs[driver.record.id] for driver in drivers]

    def _go_on(self, driver: Driver, claimed: Claimed, rows: Sequence[Transition]) -> None:
        """Let one go on that has rested; what does not fit its log is replayed after all."""
        if driver.is_over or driver.go_on(rows, claimed.unseen):
            return
        fresh = self.drivers[driver.record.id] = driver.anew()
        self._bring_back(fresh, claimed)

    def look_if_open(self, now: int) -> None:
        """Look whether there is something to claim if a rate has opened, which moves nothing."""
        if self.opens_at is not None and self.opens_at <= now:
            self.opens_at = None
            self.look()

    # What drivers tell

    def left(self, driver: Driver) -> None:
        """A driver is done: its slot is free."""
        id = driver.record.id
        if self.drivers.get(id) is driver:
            del self.drivers[id]
        if self._more and self._open:
            self.look()

    def keep(self, driver: Driver) -> bool:
        """A driver has parked: it may rest here, for the next claim."""
        return self._open and self.warm.keep(driver)

    def ends(self, id: str) -> None:
        """An execution has ended here, and the store is about to have it."""
        self._ending.add(id)

    def tells(self, id: str) -> bool:
        """Tell whether the end of an execution is heard of here first, so that it need not be read.

        It runs here, or has ended here and its last row is on its way.
        """
        return id in self.drivers or id in self._ending

    def on_gone(self, id: str) -> None:
        """Hear that the end of an execution is somebody else's to tell."""
        self._ending.discard(id)
        self._on_gone(id)

    def recorded(self, item: Write, answer: Answer) -> None:
        """An execution has ended, or given its lease up, and the store has it."""
        assert item.after is not None
        self._ending.discard(item.id)
        if answer.told or answer.owes:
            self.pass_on(answer)
        if self._is_held_back or is_gated(item.after):
            self.look()  # somebody may have waited for just this place
        if item.after.is_final:
            self._on_final(item.after, item.rows[-1])
        else:
            self._on_parked()

    def stirred(self) -> None:
        """The store has something to sweep."""
        self._on_parked()

    def learn(self, budgets: Sequence[BudgetRow]) -> None:
        """Hear of shared budgets; there may be some now that were not there before."""
        self.ledger.learn(budgets)
        if budgets:
            for driver in list(self.drivers.values()):
                driver.see_budgets()

    def lost(self, driver: Driver, answer: Answer) -> None:
        """A driver's lease is gone: what it ran ahead of the store is thrown away with it."""
        self.lost_count += 1
        self.on_gone(driver.record.id)
        if answer.refused == "internal_error" and answer.error is not None:
            self.loop.call_exception_handler(
                {"message": f"outlast dropped {driver.record.id}", "exception": answer.error}
            )

    lost_count = 0
    _was_held_up = False

    def held_up(self) -> None:
        """Hear that a body could not start, as the lease is not certain."""
        self._was_held_up = True

    def pass_on(self, answer: Answer) -> None:
        """See to what an item has led to elsewhere: messages to others, and errands."""
        for record, entry in answer.told:
            driver = self.drivers.get(record.id)
            if driver is not None and record.is_leased:
                self.loop.call_soon(driver.take, [entry])
            elif not record.is_leased:
                self.look()
            else:
                self.hint("inbox")
        if answer.owes:
            self._on_parked()

    def read_inboxes(self, ids: Iterable[str]) -> None:
        """Bring drivers the messages that they have not taken yet."""
        for id in ids:
            driver = self.drivers.get(id)
            if driver is not None:
                self.read_inbox(driver)

    def drop_overdue(self, now: int) -> None:
        """Forget the executions whose deadline has ended them: they are no longer ours."""
        for driver in list(self.drivers.values()):
            for at in (driver.record.deadline_at, driver.record.start_by):
                if at is not None and at <= now:
                    self.loop.call_soon(driver.drop)

    def reborn(self, name: str) -> None:
        """Go on as a new incarnation, after the store had failed."""
        self.name = name
        self.warm.close()
        self._lease = replace(self._lease, worker=name)

    def read_inbox(self, driver: Driver) -> None:
        """Bring a driver the messages that it has not taken yet."""
        self.spawn(self._read_inbox(driver))

    async def _read_inbox(self, driver: Driver) -> None:
        id, seen = driver.record.id, driver.record.inbox_seen
        entries = await self._read_for([driver], lambda: self.store.inbox(id, seen))
        if entries is not None:
            self.loop.call_soon(driver.take_all, entries)

    async def _read_for(self, drivers: Sequence[Driver], call: Callable[[], T]) -> T | None:
        """Read what drivers cannot go on without, however often the store fails.

        Returns:
            What was read; None where all of them have ended meanwhile.
        """
        while any(not driver.is_over for driver in drivers):
            try:
                return await self.read(call)
            except NoEngine:
                break
            except OutlastError:
                await asyncio.sleep(READ_AGAIN_SECONDS)
        return None

    # Threads

    def in_thread(
        self, function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> asyncio.Future[Any]:
        """Run a step's body in a thread."""
        return asyncio.wrap_future(
            self._step_threads.submit(function, *args, **kwargs), loop=self.loop
        )

    def replace_thread(self, busy: asyncio.Future[Any]) -> None:
        """Let another thread do the work of one whose body nobody awaits any more.

        So bodies that hang do not use up the pool. When that thread comes back, there is one more
        than there should be; no further one is made in its place.
        """
        pool = self._step_threads
        pool._max_workers += 1

        def came_back(_: asyncio.Future[Any]) -> None:
            pool._max_workers -= 1

        busy.add_done_callback(came_back)
        pool.submit(_nothing)

    @property
    def processes(self) -> ProcessPool | None:
        """Where the bodies run that ask for a process; made at the first use."""
        if self._processes is None and self.processes_max:
            from outlast.engine.steps.processes import ProcessPool

            self._processes = ProcessPool(self.loop, self.processes_max)
        return self._processes

    async def read(self, call: Callable[[], T]) -> T:
        """Read from the store beside the loop.

        Raises:
            NoEngine: the engine is closed.
        """
        if not self._reads:
            raise NoEngine("this engine is closed")
        return await self.loop.run_in_executor(self._read_threads, call)

    def spawn(self, coroutine: Any) -> None:
        """Run a coroutine of the engine in the background."""
        task = self.loop.create_task(coroutine)
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    # The end

    async def close(self, patience_us: int) -> int:
        """Stop claiming, wait for bodies in flight for a while, then hand everything back.

        Returns:
            How many executions were handed back.
        """
        self._open = False
        if self._claiming is not None:
            await asyncio.wait([self._claiming])
        for driver in list(self.drivers.values()):
            driver.stop_at_safe_point()
        until = self.loop.time() + patience_us / 1e6
        while self.drivers and self.loop.time() < until:
            await asyncio.sleep(0.01)
        handed = len(self.drivers)
        for driver in list(self.drivers.values()):
            driver.hand_back()
        self.warm.close()
        if self.remote is not None:
            self.remote.close()
        await self.journal.drain()
        for task in self._pending:
            task.cancel()
        await asyncio.gather(*self._pending, return_exceptions=True)
        self._reads = False
        if self._processes is not None:
            await self._processes.close()
        for pool in (self._read_threads, self._step_threads, self._task_threads):
            pool.shutdown(wait=False, cancel_futures=True)
        _forget_threads(self._step_threads, self._task_threads)
        return handed


def _known_to(driver: Driver) -> int:
    """Give the row of its log up to which a driver needs none."""
    return 0 if driver.parked is None else driver.parked.seq - 1


def _say_nothing(topic: str) -> None:
    """Nobody else is there."""


def _nothing() -> None:
    """Do nothing: work that makes a pool look whether it lacks a thread."""


def _forget_threads(*pools: ThreadPoolExecutor) -> None:
    """Let the interpreter exit although a step's thread still runs: its outcome is nobody's."""
    for pool in pools:
        for thread in pool._threads:  # the standard library offers no other way
            pool_module._threads_queues.pop(thread, None)  # type: ignore[attr-defined]
