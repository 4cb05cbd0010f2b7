"""Drive one leased execution: between its code, the bodies of its steps, and the journal.

Theory of operation. A driver lives on the engine's loop from a claim to the end of the lease. It
has the parts work together, each of which knows one side of the execution:

- the log (``owner.py``): what is decided, and what of it is durable;
- the code (``playback.py``): which outcomes it gets to see, and what it did before;
- the bodies of its steps (``attempts.py``): which wait, run, failed, and are tried again;
- the calls of the code (``dispatch.py``): which part answers which;
- what could wake it (``waiting.py``), what was asked of it (``wishes.py``), its children.

Outcomes get their place in the log in the order they come and are delivered to the code in that
order, at once: the code may run ahead of the disk. Effects may not: a step's body starts only when
every outcome delivered so far is durable. After anything that happened the driver is *pumped*: it
does whatever can be done now, until nothing can, and then waits, parks or ends.

A refused write means the lease is gone: the copy in memory is thrown away and nothing more is
written. Whatever the store holds then is the truth, and its new owner reads it.

Replay: the recorded rows are delivered first, one at a time, as they were; no body starts before
they are used up. What the code then asks for must be what is recorded, or it is suspended. One that
was made of another execution plays its script first (``script.py``).

One that has parked may *rest* (``warm.py``): then the next lease goes on with this driver where it
stands, and takes from the log what has come meanwhile, as the end of a replay would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, Final, Protocol

from outlast.engine.drive.attempts import Attempts
from outlast.engine.drive.children import Children, Midwife
from outlast.engine.drive.dispatch import Dispatch
from outlast.engine.drive.ending import end_by_error, end_of_code
from outlast.engine.drive.playback import Playback
from outlast.engine.drive.waiting import Waiting
from outlast.engine.drive.warm import fits
from outlast.engine.drive.wishes import Wishes
from outlast.engine.replay.scope import Call, CallState, Mismatch, Scope
from outlast.engine.replay.script import is_point, past_of
from outlast.engine.replay.thread_scope import ThreadScope
from outlast.engine.replay.trail import OUTCOMES, UNRUN, WITNESSES
from outlast.engine.steps.body import Body, Host
from outlast.engine.task.registry import Task
from outlast.engine.task.task_call import ContinueAsNew
from outlast.engine.write.ear import Ear, Listener
from outlast.engine.write.journal import Journal
from outlast.engine.write.owner import Owner
from outlast.engine.write.purse import Ledger, Purse, given_by, inherited, purse_of
from outlast.errors import (
    AttemptTimeout,
    Deadlock,
    OutlastError,
)
from outlast.lifecycle import (
    Event,
    Execution,
    Kind,
    MessageKind,
    State,
    Transition,
    note_of,
)
from outlast.store.protocol import Answer, InboxEntry, Write

_MISMATCH_HINT: Final = "bring back code that fits, then resume it"


class Home(Host, Midwife, Listener, Protocol):
    """What a driver needs of the worker that holds it."""

    journal: Journal
    ledger: Ledger
    task_threads: Executor
    payload_bytes_max: int
    cancel_grace_us: int

    def read_inbox(self, driver: Driver) -> None:
        """Bring it the messages that it has not taken yet, by :meth:`Driver.take`."""

    @property
    def free(self) -> int:
        """How many more executions fit."""

    def ends(self, id: str) -> None:
        """Hear that its last row is on its way to the store."""

    def stirred(self) -> None:
        """Hear that the store has something to sweep."""

    def lost(self, driver: Driver, answer: Answer) -> None:
        """Hear that its lease is gone."""

    def left(self, driver: Driver) -> None:
        """Hear that it does nothing any more."""

    def keep(self, driver: Driver) -> bool:
        """Let it rest, now that it has parked; False: nobody will come back to it."""


class Driver:
    """One execution on this worker; made by :class:`~outlast.engine.drive.worker.Worker`."""

    def __init__(
        self, worker: Home, task: Task[Any, Any], record: Execution, birth: Transition
    ) -> None:
        self.worker = worker
        self.task = task
        self.bodies: dict[str, Body] = {}
        self.owner = Owner(worker, record, birth, self.bodies, Ear(worker, self))
        self._birth = birth
        self._past = past_of(birth)
        self._missed = False
        self._has_run = False
        self._stopping = False
        self._then: Callable[[], None] | None = None
        self._late: list[Transition] = []
        self.parked: Transition | None = None
        self._pumping = False
        self.owner.purse = purse_of(self, worker.journal, worker.ledger, birth)
        self._children = Children(record, worker, self.owner.append, inherited(birth))
        self.playback = Playback(self.owner, self._children, worker.clock, birth, self._past)
        identity = None if self._past is None else self._past.identity
        self.attempts = Attempts(self, self.owner, self.playback, worker, self.bodies, identity)
        self._dispatch = Dispatch(
            self.owner, self.playback, self.attempts, self._children, worker.clock
        )
        self._waiting = self._new_waiting()
        self._wishes = Wishes()

    # Coming to life

    def begin(self, started: Transition) -> None:
        """Run a new execution, whose start is already in the log."""
        if self._make_scope():
            self.owner.is_live = self._has_run = True
            self._bound_attempt(started)
            self.playback.enter(started)
            self.pump()

    def replay(self, rows: Sequence[Transition], unseen: Sequence[InboxEntry]) -> None:
        """Bring a claimed execution back to where it was, then let it go on."""
        if self.owner.is_over or not self._make_scope():
            return  # handed back while its log was being read
        self.owner.is_catching_up = isinstance(self.playback.scope, ThreadScope)
        if not rows and self._past is None:
            self._live_on([], unseen, None)  # nothing is recorded
            return
        try:
            kept, history = self.playback.load(rows, self.task.code)
            waiting = self._deliver_recorded(kept, history)
        except Mismatch as mismatch:
            self.suspend_mismatch(mismatch)
            return
        first = next((row for row in history if row.kind is Kind.START), None)
        self._live_on(waiting, unseen, first)

    def _live_on(
        self, waiting: list[Transition], unseen: Sequence[InboxEntry], first: Transition | None
    ) -> None:
        """Start where the log ends.

        Args:
            waiting: the messages in the log that the code has not seen.
            unseen: those that the log has not taken in.
            first: the first start of this attempt of the task; None: this is it, or it is bounded.
        """
        self._waiting.saw_inbox()
        for entry in unseen:
            row = self._take(entry)
            if row is not None and row.kind in OUTCOMES:
                waiting.append(row)
        self.owner.is_live = self._has_run = True
        started = self.owner.append(Event(Kind.START, "engine", data=self.task.stamp))
        self._wishes.started(started)
        if self.owner.record.cancel_at is not None:
            self._bound_clean_up()
        if self._waiting.ends_at is None:
            self._bound_attempt(first or started)
        try:
            if self.owner.delivered:
                self.playback.deliver_row(started, started.at)
            else:
                self.playback.enter(started)
            for row in waiting:
                self.playback.deliver_row(row, started.at)
        except Mismatch as mismatch:
            self.suspend_mismatch(mismatch)
            return
        self.pump()

    # Between two leases

    @property
    def can_rest(self) -> bool:
        """Whether its parts, where it has parked, are just what a replay would make them."""
        owner, scope = self.owner, self.playback.scope
        return (
            owner.row.kind is Kind.WAIT
            and owner.record.cancel_at is None
            and owner.record.pause_at is None
            and owner.purse is None
            and self._past is None
            and self._then is None
            and isinstance(scope, Scope)
            and not scope.finished
            and self.attempts.are_idle
        )

    def rest(self) -> None:
        """Stand still, as it has parked; :meth:`go_back` or :meth:`forget` come next."""
        self.parked = self.owner.row
        self.owner.rest()
        self._waiting.close()
        self.worker.left(self)

    def go_back(self, record: Execution) -> bool:
        """Take up the next lease; its log is being read. False: it may not."""
        worker, ends_at = self.worker, self._waiting.ends_at
        if purse_of(self, worker.journal, worker.ledger, self._birth) is not None:
            return False
        self.owner.hold(record)
        self._has_run = self._missed = False
        self._waiting = self._new_waiting()
        if ends_at is not None:
            self._waiting.bound(ends_at)
        return True

    def go_on(self, rows: Sequence[Transition], unseen: Sequence[InboxEntry]) -> bool:
        """Go on from where it rested, given the log from there on.

        Returns:
            Whether that may be; if not, :meth:`anew` replays the whole log.
        """
        parked, self.parked = self.parked, None
        assert parked is not None
        if self.owner.purse is not None or not fits(parked, self.owner.record, rows):
            return False
        self.owner.payload_bytes += sum(len(row.payload or b"") for row in rows)
        if self._children.under_way:
            self.playback.child_at = self.worker.clock.now()  # as if it had just called them
        self._live_on(self._deliver_recorded([], list(rows[1:])), unseen, None)
        return True

    def anew(self) -> Driver:
        """Give another driver of the same lease, and forget what this one has."""
        fresh = Driver(self.worker, self.task, self.owner.record, self._birth)
        fresh._missed = self._missed
        self.forget()
        return fresh

    def forget(self) -> None:
        """Let go of what rests: its code is unwound."""
        self._leave()

    def _new_waiting(self) -> Waiting:
        return Waiting(
            self.worker, self.owner, self.attempts, self.playback, self._children, self.pump
        )

    # Its code

    def _make_scope(self) -> bool:
        try:
            args, kwargs = self.task.input.unbind(self._birth.payload or b"{}")
        except OutlastError as error:
            self._suspend(
                "code_mismatch",
                text="its input cannot be read by the task's parameters of today",
                unfit=error.why or error.what,  # it may quote the input
                hint=_MISMATCH_HINT,
                where=self.task.where,
                now=dict(self.task.stamp),
            )
            return False
        fn = self.task.fn
        seed = (self.owner.record.id if self._past is None else self._past.seed).encode()
        if self.task.is_async:
            scope: Scope | ThreadScope = Scope(lambda: fn(*args, **kwargs), seed=seed)
        else:
            scope = ThreadScope(
                lambda: fn(*args, **kwargs),
                seed=seed,
                threads=self.worker.task_threads,
                on_quiet=self._thread_is_quiet,
            )
        scope.speaker = self.playback
        scope.slot = (self._birth.data or {}).get("slot")  # type: ignore[assignment]
        self.playback.scope = scope
        return True

    def _bound_attempt(self, first: Transition) -> None:
        """See to it that an attempt of the task ends in time, counted from its first start.

        That is a row of the log, so neither a restart nor a park gives an attempt more time.
        """
        timeout_us = (self._birth.data or {}).get("attempt_timeout_us")
        if isinstance(timeout_us, int):
            self._waiting.bound(first.at + timeout_us)

    def _deliver_recorded(
        self, waiting: list[Transition], history: list[Transition]
    ) -> list[Transition]:
        """Deliver what is recorded; gives the messages that no start has delivered yet."""
        for row in history:
            kind = row.kind
            if kind is Kind.START:
                self._wishes.started(row)
                if self.owner.delivered:
                    self.playback.deliver_row(row, row.at)
                else:
                    self.playback.enter(row)
                for message in waiting:
                    self.playback.deliver_row(message, row.at)
                waiting = []
            elif kind in OUTCOMES:
                if kind is Kind.CANCEL_REQUESTED:
                    self._wishes.hear(row)
                elif kind is Kind.CHILD_FINISHED:
                    self._children.take(row)
                elif kind is Kind.STEP:
                    self.attempts.recall(row)
                if self.playback.script is not None:
                    self.playback.script.spend(row)
                if row.from_state is State.RUNNING:
                    self.playback.deliver_row(row, row.at)
                else:
                    waiting.append(row)
            elif kind in WITNESSES:
                self._dispatch.recall(row)
                self.playback.see(row)
            elif kind is Kind.PAUSE_REQUESTED:
                self._wishes.hear(row)
            elif self.playback.script is not None and is_point(row):
                self.playback.script.spend(row)
                self.playback.deliver_row(row, row.at)
        return waiting

    def _thread_is_quiet(self) -> None:
        """The thread of a ``def`` task has come to a call, or to its end."""
        assert self.playback.scope is not None
        if not self.owner.may_write:
            return  # suspended, and its thread has not heard of it yet
        if self.playback.scope.changes.fresh:
            self.playback.mark_changes()
        try:
            self.playback.drain()
        except Mismatch as mismatch:
            self.suspend_mismatch(mismatch)
            return
        self.pump()

    # Going on

    def pump(self) -> None:
        """Do whatever can be done now: start bodies, fire timers, park, or end."""
        if self._stopping:
            self._wind_down()
            return
        owner = self.owner
        if owner.is_over or owner.before_park is not None or not owner.is_live or self._pumping:
            return
        if self._waiting.ends_at is not None and self._waiting.is_attempt_over():
            self._end_attempt()
            return
        scope = self.playback.scope
        assert scope is not None
        if not scope.is_quiet:  # a def task's thread is busy; it will call again
            if isinstance(scope, ThreadScope):
                for call in scope.take_broken_off():
                    self._dispatch.abandon(call)
            return
        self._pumping = True
        try:
            self._pump(scope)
        except Mismatch as mismatch:
            self.suspend_mismatch(mismatch)
        finally:
            self._pumping = False
        self.attempts.report_ended()

    def _end_attempt(self) -> None:
        """Fail this attempt of the task, wherever its code stands; that is a counted failure."""
        for body in list(self.bodies.values()):
            self.attempts.abandon(body.call, why="attempt_timeout")
        if self.attempts.ending:
            return  # the last process that is being stopped calls again
        timeout_us = (self._birth.data or {})["attempt_timeout_us"]
        self._end_with(
            AttemptTimeout(
                f"attempt {self.owner.record.failures + 1} of the task took longer than "
                f"{int(str(timeout_us)) / 1e6:g} s",
                where=self.owner.record.id,
            )
        )

    def _wind_down(self) -> None:
        """Start nothing more; once no body is under way, give the lease back."""
        if not self.owner.may_write:
            return
        if self.playback.scope is not None and self.playback.scope.is_quiet:
            for call in self.playback.scope.take_abandoned():
                self._dispatch.abandon(call)
        if self.attempts.are_done:
            self.hand_back()

    def _pump(self, scope: Scope | ThreadScope) -> None:
        owner, attempts, playback = self.owner, self.attempts, self.playback
        dispatch, outcomes = self._dispatch, playback.outcomes
        while not owner.is_over and scope.is_quiet:
            answered = False
            if not outcomes and attempts.report_late():
                continue
            if scope.notes:
                playback.note()
            if not outcomes:  # else one that waits to be delivered may be what a call waits for
                for call in scope.take_calls():
                    answered = dispatch.admit(call) or answered
            for call in scope.take_abandoned():
                dispatch.abandon(call)
            if self._children.under_way and not scope.finished:
                dispatch.give_up_children(scope)
            if scope.finished and not outcomes:
                if not attempts.ending:  # else the last process that is being stopped calls again
                    self._finish(scope)
                return
            if answered or (
                not outcomes
                and (
                    (playback.script is not None and dispatch.play(scope))
                    or (playback.memo and attempts.reuse_next())
                    or self._fire_timers(scope)
                )
            ):
                continue
            break
        if owner.is_over or not scope.is_quiet:
            return  # a def task's thread will call again
        if self._missed and self._is_still:
            self._missed = False
            self._waiting.look()
            self.worker.read_inbox(self)
        if attempts.calls and owner.durable >= owner.delivered:
            attempts.start_calls()
            if attempts.has_granted:
                attempts.has_granted = False
                self._pump(scope)
                return
        if owner.purse is not None and owner.purse.is_asking:
            self._waiting.set_alarm(scope)  # the store's answer comes first
        elif self._waiting.is_looking:
            self._waiting.set_alarm(scope)  # what the inbox has comes first
        elif not self.bodies and not outcomes and scope.is_quiet:
            self._settle_down(scope)
        else:
            self._waiting.set_alarm(scope)

    def _fire_timers(self, scope: Scope | ThreadScope) -> bool:
        """Record and deliver the first timer that is due."""
        timer = scope.next_timer()
        if timer is None or timer.deadline_at > self.worker.clock.now():
            return False
        if self._missed or self._waiting.is_looking:
            return False  # a message came first, or may have
        if self._waiting.looks_first(timer, scope):
            self._missed = True
            return False
        row = self.owner.append(
            Event(Kind.TIMER_FIRED, "engine", key=f"timer#{timer.number}", digest=timer.deadline_at)
        )
        self.playback.deliver_row(row, row.at)
        return True

    # Budgets

    def wake(self) -> None:
        """See, a little later, whether something can go on now."""
        self.worker.loop.call_soon(self.pump)

    def again(self, call: Call) -> None:
        """Take a call back that has waited for the store's answer."""
        if call.state is not CallState.ABANDONED:
            self.attempts.calls.append(call)
        self.pump()

    def forsaken(self, answer: Answer) -> None:
        """Hear that the lease is gone, from somebody else's item."""
        self.worker.lost(self, answer)
        self._leave(at_once=True)

    def see_budgets(self) -> None:
        """See whether there are budgets now that it charges."""
        if self.owner.purse is None:
            self.owner.purse = purse_of(self, self.worker.journal, self.worker.ledger, self._birth)

    def adopt_budgets(self, names: Sequence[str]) -> None:
        """Charge budgets as well that it was given while it was open."""
        if self.owner.purse is not None:
            self.owner.purse.adopt(names)
        elif names:
            worker = self.worker
            self.owner.purse = purse_of(self, worker.journal, worker.ledger, self._birth, names)

    @property
    def own_budgets(self) -> tuple[str, ...]:
        """The budgets that it charges and that not everybody shares."""
        return () if self.owner.purse is None else self.owner.purse.own

    def _stop_short(self, purse: Purse) -> bool:
        """Suspend it where a call waits for a budget and nothing else is under way."""
        short = purse.short
        if short is None or self.owner.durable < self.owner.delivered:
            return False
        if all(call.key != short.key for call in self.attempts.calls):
            return False
        self._suspend("budget", text=short.text(), hint=short.hint(), budget=short.as_data())
        return True

    # Quiet

    def _settle_down(self, scope: Scope | ThreadScope) -> None:
        """No code can run and no body is in flight: wait a moment, park, or see a deadlock."""
        if self.owner.is_held:
            self._park(self._wishes.pause(_clean_up(scope)))
            return
        if self.owner.purse is not None and self._stop_short(self.owner.purse):
            return
        if self.attempts.is_any_due():
            self._waiting.set_alarm(scope)
            return  # bodies wait for outcomes to be durable, and nothing else
        now = self.worker.clock.now()
        waits, due_at = self._waiting.waits(scope)
        if not waits:
            self._end_with(
                Deadlock(
                    "nothing can ever wake this task again",
                    where=self.owner.record.id,
                    why=scope.stuck_description(),
                    do="set the event, fill the queue, or release the lock that it waits for",
                )
            )
            return
        if self.owner.record.cancel_at is not None:
            self._waiting.set_alarm(scope)
            return  # it cleans up; its grace ends it, and that runs here
        if self._waiting.stays(waits, due_at, now):
            self._waiting.set_alarm(scope)
            return
        data = {"waits": waits, "due_at": due_at, **_clean_up(scope)}
        self._park(Event(Kind.WAIT, "engine", data=data))

    def _park(self, event: Event) -> None:
        """Give the lease up; nothing happens until the store has said yes or no."""
        self._waiting.cancel_alarm()
        self.owner.give_up(event)

    # Ends

    def _finish(self, scope: Scope | ThreadScope) -> None:
        """The task's code has ended."""
        worker = self.worker
        end = end_of_code(
            self.task,
            self.owner.record,
            scope,
            worker.clock,
            worker.payload_bytes_max,
            self._wishes.cancel,
        )
        if isinstance(end, ContinueAsNew):
            self._continue(end)
        else:
            self._end(end)

    def _continue(self, error: ContinueAsNew) -> None:
        """End as a new execution that goes on with what this one has left: its unread signals."""
        assert self.playback.scope is not None
        left = [
            Event(Kind.SIGNAL_RECEIVED, "engine", key=outcome.key, payload=outcome.value)
            for outcome in self.playback.scope.unread_signals
        ]
        left += [Event(row.kind, row.actor, key=row.key, payload=row.payload) for row in self._late]
        item = self._children.continue_as(error.call, self._birth, left, self.worker.clock.now())
        self._then = lambda: self._continue(error)
        event = Event(Kind.FINISH, "engine", data={"continued_as": item.after.id}, payload=b"null")
        self.owner.give_up(event, births=[item])

    def _end_with(self, error: BaseException) -> None:
        """The task's code cannot go on: this is what it came to."""
        worker, cancelled = self.worker, self._wishes.cancel
        self._end(end_by_error(self.task, self.owner.record, error, worker.clock, cancelled))

    def _end(self, event: Event) -> None:
        if event.kind is Kind.RETRY:
            self.owner.give_up(event)
            return
        self.owner.append(event)
        self.worker.ends(self.owner.record.id)
        if not self._children.has_borne:
            self.owner.let_go()
        self._leave()

    def suspend_mismatch(self, mismatch: Mismatch) -> None:
        """Suspend it, as the code is not the one that was recorded."""
        if not self.owner.may_write:
            return
        facts = self.playback.told(mismatch, self.task.stamp)
        self._suspend("code_mismatch", hint=_MISMATCH_HINT, **facts)

    def _suspend(self, code: str, *, text: str, hint: str, **more: Any) -> None:
        """Park it where it is, visibly; a person decides what happens next."""
        said = {"code": code, "text": text, "hint": hint, **more}
        if code == "code_mismatch" or not self._has_run:
            said |= UNRUN
            self.owner.emitter = None  # what code says that is not where it was does not count
        self.owner.give_up(Event(Kind.SUSPEND, "engine", data=said))

    def _leave(self, *, at_once: bool = False) -> None:
        """Stop doing anything; what is under way is stopped or ignored.

        Args:
            at_once: somebody else owns it, and may be about to run the same steps.
        """
        self.owner.close()
        self._waiting.close()
        self.attempts.stop(at_once=at_once)
        if self.playback.scope is not None:
            self.playback.scope.close()
        self.worker.left(self)

    # The journal

    def settled(self, item: Write, answer: Answer) -> None:
        """Hear from the journal what became of a write."""
        self.owner.written(item, answer)
        if item.charge is not None and self.owner.purse is not None:
            self.worker.ledger.learn(answer.budgets)
            self.owner.purse.stored(item.charge)
        if item.births:
            self._children.settled(item.births, answer.refused is None, answer.unclaimed)
        if answer.refused is None:
            if self.owner.purse is not None:
                self._hear_of_budgets(answer)
            if self.worker.watched:
                self.worker.changed(item.id)
            if item.after is not None and not item.after.is_leased:
                self.worker.recorded(item, answer)
                if not self.owner.is_over and not self.worker.keep(self):
                    self._leave()
            elif self.attempts.calls and self.owner.durable >= self.owner.delivered:
                if self.owner.purse is None:
                    self._start_calls()
                else:
                    self.pump()  # what is short of a budget may be all there is left
        elif (
            answer.refused == "moved"
            and self.owner.before_park is not None
            and not self.owner.is_over
        ):
            self._unpark()
        elif not self.owner.is_over:
            self.worker.lost(self, answer)
            self._leave(at_once=True)
        else:
            self.worker.on_gone(item.id)  # its end, if that was it, is somebody else's to tell

    def _start_calls(self) -> None:
        """Start what has waited for rows to be durable, outside of a pump."""
        try:
            self.attempts.start_calls()
        except Mismatch as mismatch:  # what was granted is delivered at once
            self.suspend_mismatch(mismatch)
            return
        if not self._pumping:
            self.attempts.report_ended()
        if self.attempts.has_granted:
            self.pump()

    def _hear_of_budgets(self, answer: Answer) -> None:
        """Hear what a charge has made of budgets, and what this log is told of it."""
        self.worker.ledger.learn(answer.budgets)
        if answer.owes and answer.budgets:
            self.worker.stirred()
        told = [entry for record, entry in answer.told if record.id == self.owner.record.id]
        if told and not self.owner.is_over:
            self.take(told)
        if self.playback.outcomes and self.owner.is_live and self.owner.may_write:
            self._thread_is_quiet()  # what waited for this may be delivered now

    def _unpark(self) -> None:
        """A message came before the lease was given up: go on with it."""
        row = self.owner.keep()
        if self._stopping:
            self._wind_down()
            return
        if row.kind in (Kind.RETRY, Kind.SUSPEND):
            # That stays what it is: it only has to see the message first.
            again = Event(row.kind, row.actor, data=row.data, payload=row.payload)
            self._then = partial(self.owner.give_up, again)
        self.worker.read_inbox(self)

    # Messages

    def take_all(self, entries: Sequence[InboxEntry]) -> None:
        """Take all messages that the inbox has: a timer that has waited for them may fire."""
        self._waiting.saw_inbox()
        self.take(entries)

    def take(self, entries: Sequence[InboxEntry]) -> None:
        """Take messages out of the inbox, into the log and to the code.

        What is taken must be delivered in this very place of the log. So it takes none while it is
        being brought back, and reads them afterwards; none while it is being parked, as the store
        then refuses that with ``moved``, and it reads them then; and none when it is stopping, as
        the next owner gets them with its claim.
        """
        if not self.owner.is_live and self._then is None:
            self._missed = True
            return
        has_cancel = any(entry.message.kind is MessageKind.CANCEL for entry in entries)
        for entry in entries:
            if not self.owner.may_write:
                return
            if entry.message.kind is MessageKind.ANSWER and not (self._is_still or has_cancel):
                self._missed = True  # whether its question is open is not known before it rests
                break
            if entry.number <= self.owner.record.inbox_seen:
                continue  # taken before
            if entry.number > self.owner.record.inbox_seen + 1:
                self.worker.read_inbox(self)  # another process's message comes first
                break
            row = self._take(entry)
            if row is not None and row.kind is Kind.SIGNAL_RECEIVED and self._then is not None:
                self._late.append(row)
            if row is not None and row.kind in OUTCOMES and self._then is None:
                try:
                    self.playback.deliver_row(row, row.at)
                except Mismatch as mismatch:
                    self.suspend_mismatch(mismatch)
                    return
        if self._then is not None and not self.owner.is_over:
            again, self._then = self._then, None
            if self.owner.record.cancel_at is not None:
                self._end(self._wishes.cancel())  # what it was to go on to is cancelled
                return
            again()
            return
        self.pump()

    @property
    def _is_still(self) -> bool:
        """Whether the code rests, and has seen all that the log has for it."""
        scope = self.playback.scope
        return scope is not None and scope.is_quiet and not self.playback.outcomes

    def _take(self, entry: InboxEntry) -> Transition | None:
        """Write the note by which a message enters the log."""
        self.owner.count(entry.number)
        event = note_of(entry.message, entry.number)
        if event.kind is Kind.CANCEL_REQUESTED:
            event.data = {**(event.data or {}), "grace_us": self.worker.cancel_grace_us}
        if self.owner.try_append(event) is not None:
            # Asked twice: the second request changes nothing, and is kept as a remark.
            data = {**(event.data or {}), "again": str(event.kind)}
            self.owner.append(Event(Kind.ANNOTATION, event.actor, key=event.key, data=data))
            return None
        if event.kind is Kind.CANCEL_REQUESTED:
            self._wishes.hear(self.owner.row)
            self._bound_clean_up()
        elif event.kind is Kind.CHILD_FINISHED:
            self._children.take(self.owner.row)
        elif event.kind is Kind.PAUSE_REQUESTED:
            self._wishes.hear(self.owner.row)
        elif event.kind is Kind.BUDGET_CHANGED:
            self.adopt_budgets(given_by(self.owner.record.id, self.owner.row))
            if self.owner.purse is not None:
                self.owner.purse.hear(event.data or {})
        return self.owner.row

    def _bound_clean_up(self) -> None:
        """The code has a grace to clean up after a cancel; then it is cut off."""
        worker = self.worker
        left_us = self._wishes.grace_left_us(worker.clock.now(), worker.cancel_grace_us)
        if left_us is not None:
            worker.loop.call_later(left_us / 1e6, self.cut_off)

    # The worker's wishes

    def stop_at_safe_point(self) -> None:
        """Start nothing more (shutdown); what is under way may end."""
        self.owner.is_live, self._stopping = False, True
        self._waiting.cancel_alarm()
        self._wind_down()

    def hand_back(self) -> None:
        """Give the lease back at once (shutdown): the next owner goes on from the log."""
        if not self.owner.may_write:
            return
        self.attempts.note_beats()
        self.owner.append(
            Event(Kind.RELEASE, "engine", data=None if self._has_run else dict(UNRUN))
        )
        self._leave()  # what it stops is gone before this engine gives up the file

    def cut_off(self) -> None:
        """End a cancelled execution whose code did not stop in time, by force."""
        if not self.owner.may_write:
            return
        self._end(self._wishes.cancel())

    def drop(self, *, at_once: bool = False) -> None:
        """Forget it without a word: its time is over, or the store is gone.

        Args:
            at_once: somebody may be about to run the same steps.
        """
        if not self.owner.is_over:
            self._leave(at_once=at_once)
            self.worker.on_gone(self.owner.record.id)

    @property
    def record(self) -> Execution:
        """The execution as its last row has left it."""
        return self.owner.record

    @property
    def is_over(self) -> bool:
        """Whether it does nothing any more."""
        return self.owner.is_over


def _clean_up(scope: Scope | ThreadScope) -> dict[str, object]:
    """Say for the log that a cancel has to wake the code, where it stands in clean-up."""
    return {"cleanup": True} if scope.has_clean_up() else {}
