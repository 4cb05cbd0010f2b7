"""One attempt of a step's body: run on the loop, in a thread or in a process; reported once.

Theory of operation. A body is made, started and reported on the engine's loop; only ``begun`` and
the heartbeats come from elsewhere, and these are single assignments that the loop reads when it
looks. What a body comes to is reported once, by whoever is first: its end, or a limit. What a limit
does depends on where the body runs. A coroutine is cancelled and a process is stopped, and both are
reported when they are gone (a coroutine that will not go, after its grace). A thread cannot be
stopped: it is given up at once, its outcome is ignored, and another takes its place in the pool.

A body that waits for a thread or a process and the limit on that wait race for ``_gate``: who takes
it has won, so no body begins that was reported as not begun.
"""

from __future__ import annotations

import asyncio
import threading
from asyncio import _get_running_loop
from collections.abc import Callable, Mapping
from contextvars import Context
from time import thread_time_ns
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from outlast.engine.read.measures import told
from outlast.engine.replay import eager
from outlast.engine.replay.scope import Call, Scope
from outlast.engine.replay.thread_scope import ThreadScope
from outlast.engine.task.current import StepInfo, current_step
from outlast.engine.task.limits import Struck
from outlast.engine.task.loops import run_on
from outlast.engine.write.clock import Clock
from outlast.engine.write.emitter import Emitter, Said
from outlast.engine.write.purse import Purse, add
from outlast.engine.write.tally import Tally
from outlast.errors import StepDeadline

if TYPE_CHECKING:
    from outlast.engine.steps.processes import ProcessPool
    from outlast.engine.steps.remote import RemoteDesk


class Elsewhere(Protocol):
    """A body that runs in another process, here or on another machine.

    Attributes:
        future: gives its value, or the error it raised, on the engine's loop.
    """

    future: asyncio.Future[Any]

    def stop(self, grace_us: int) -> None:
        """Stop it, after the grace whether it has cleaned up or not."""


class Host(Protocol):
    """Where bodies run."""

    name: str
    loop: asyncio.AbstractEventLoop
    clock: Clock
    context: Context
    tally: Tally
    payload_bytes_max: int

    @property
    def processes(self) -> ProcessPool | None:
        """Where the bodies run that ask for a process; None runs them in threads."""

    @property
    def remote(self) -> RemoteDesk | None:
        """Where other machines take the bodies that are for them; None runs them here."""

    def may_begin(self) -> bool:
        """Tell whether bodies may start: nobody else can own what this worker holds."""

    def held_up(self) -> None:
        """Hear that a body could not start, as the lease is not certain."""

    def in_thread(
        self, function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> asyncio.Future[Any]:
        """Run a function in a thread."""

    def replace_thread(self, busy: asyncio.Future[Any]) -> None:
        """Let another thread do the work of one that is busy with what nobody awaits."""


class Keeper(Protocol):
    """Whose bodies they are."""

    @property
    def task(self) -> str:
        """The task whose execution it is."""

    def names(self) -> Mapping[str, object]:
        """Name what a line of their execution is about."""

    def body_done(self, body: Body, value: Any, error: BaseException | None) -> None:
        """Hear what a body came to."""

    def beaten(self, body: Body) -> None:
        """Hear of a heartbeat that was given on the loop."""

    def open_emitter(self) -> Emitter:
        """Give who takes what a body says of itself: streams and progress."""


class Body:
    """One attempt of a step's body.

    Args:
        call: the call of the step.
        attempt: the how-manieth try this is, from 1.
        execution_id: the execution that called.
        host: where it runs.
        scope: the code that called; that of a ``def`` task runs its bodies in its own thread,
            unless they have limits.
        keeper: hears what it says, and what it came to.
        last: what the last heartbeat of an earlier attempt said.
        identity: in whose name it speaks to services outside, where that is another execution.

    Attributes:
        begun_at: when the function was called; None while it waits for a thread or process.
        beat_at: when the last heartbeat came.
        details: what the last heartbeat that said something said.
        is_noted: whether that is written down; see :mod:`outlast.engine.steps.progress`.
        deadline_at: when all attempts of this step must be over.
        spent, reserved: what it has said it spent, by meter, and what it has set aside, by key.
        purse: what its execution may spend; None where no budget is charged.
        cpu_us: the processor time it took, in a thread or process; None where nobody measured it.
        memory_bytes: the peak of its process's memory; None where it has none of its own.
    """

    __slots__ = (
        "_alarm",
        "_entered_at",
        "_execution_id",
        "_gate",
        "_has_ended",
        "_host",
        "_identity",
        "_is_barred",
        "_is_unwanted",
        "_keeper",
        "_process",
        "_reservations",
        "_scope",
        "_struck",
        "_task",
        "attempt",
        "beat_at",
        "begun_at",
        "call",
        "cpu_us",
        "deadline_at",
        "details",
        "is_noted",
        "last",
        "memory_bytes",
        "purse",
        "reserved",
        "spent",
        "started_at",
        "step",
    )  # fmt: skip

    def __init__(
        self,
        call: Call,
        attempt: int,
        execution_id: str,
        host: Host,
        scope: Scope | ThreadScope | None,
        keeper: Keeper,
        last: bytes | None = None,
        identity: str | None = None,
    ) -> None:
        self.call = call
        self.attempt = attempt
        self.step = call.payload.step
        self.started_at = host.clock.now()
        self.begun_at: int | None = None
        self.beat_at: int | None = None
        self.details: bytes | None = None
        self.is_noted = True
        self.last = last
        self.deadline_at: int | None = call.payload.deadline_at
        self.spent: dict[str, int] | None = None
        self.reserved: dict[str, Mapping[str, int]] | None = None
        self.purse: Purse | None = None
        self.cpu_us: int | None = None
        self.memory_bytes: int | None = None
        self._entered_at: int | None = None
        self._execution_id = execution_id
        self._identity = identity
        self._host = host
        self._scope = scope
        self._keeper = keeper
        self._task: asyncio.Future[Any] | None = None
        self._process: Elsewhere | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._gate: threading.Lock | None = None
        self._struck: BaseException | None = None
        self._is_unwanted = self._is_barred = False
        self._has_ended = False
        self._reservations = 0

    def start(self) -> bool:
        """Start it; gives whether it has ended at once: then ask it to :meth:`finish`."""
        host, step = self._host, self.step
        if self.deadline_at is not None and self.deadline_at <= self.started_at:
            self._struck = self._error(StepDeadline)
            return True
        outside = self._outside()
        if outside is not None:
            self._gate = threading.Lock()
            self._process = outside.call(self, host.payload_bytes_max)
            self._task = self._process.future
        else:
            args, kwargs = self.call.payload.arguments()
            context = host.context.copy()
            context.run(current_step.set, self)
            if step.is_async:
                self.begun_at = self.started_at
                self._task = eager.start(step.fn(*args, **kwargs), host.loop, context)
                if self._task.done():
                    return True
            else:
                self._task = self._in_thread(lambda: self._measured(context, step.fn, args, kwargs))
        if step.limits is not None:
            self._watch()
        self._task.add_done_callback(self._done)
        return False

    def finish(self) -> None:
        """Report the end of a body that ended at once."""
        if self._task is None:
            self._end(None, self._struck)
        else:
            self._done(self._task)

    def stop(self, *, at_once: bool = False) -> bool:
        """Stop it where that is possible, as nobody awaits it; gives whether that takes a while.

        Then its end is reported as well. A thread runs on, and its outcome is ignored.

        Args:
            at_once: do not let a process clean up: somebody else is about to run this step.
        """
        self._is_unwanted = True
        if self._task is None or self._task.done():
            return False
        if self._process is None or self._is_held_back():
            self._give_up()
            return False
        self._process.stop(0 if at_once else self.step.grace_us)
        return True

    def info(self) -> StepInfo:
        """Tell the body about itself."""
        last = None if self.last is None else msgspec.json.decode(self.last)
        return StepInfo(self._execution_id, self.call.key, self.attempt, self._identity, last)

    def beat(self, details: bytes | None) -> None:
        """Take a sign of life, from whichever thread the body runs in.

        Raises:
            CancelledError: nobody awaits this attempt any more.
        """
        if self._is_unwanted or self._has_ended:
            raise asyncio.CancelledError("this attempt is over: nobody awaits it any more")
        self.take_beat(details)
        if _get_running_loop() is self._host.loop:
            self._keeper.beaten(self)

    def spend(self, amounts: Mapping[str, int]) -> None:
        """Count what was spent, from whichever thread the body runs in."""
        total = dict(self.spent or {})
        add(total, amounts)
        self.spent = total

    async def reserve(self, amounts: Mapping[str, int]) -> str:
        """Set amounts aside, on the loop; gives the key they are settled by.

        Raises:
            OverBudget: they do not fit.
        """
        self.reserved = self.reserved or {}
        self._reservations += 1
        key = f"{self.call.key}/reserve#{self._reservations}"
        if self.purse is not None:
            heard: asyncio.Future[BaseException | None] = self._host.loop.create_future()
            self.purse.ask_for(self, key, amounts, heard.set_result)
            error = await heard
            if error is not None:
                raise error
        self.reserved[key] = amounts
        return key

    def reserve_blocking(self, amounts: Mapping[str, int]) -> str:
        """Set amounts aside, as :meth:`reserve`, from the thread that the body runs in."""
        loop = self._host.loop
        return run_on(loop, self.reserve(amounts), loop.is_closed)

    def settle(self, key: str, amounts: Mapping[str, int]) -> None:
        """Count what was spent of what was set aside."""
        assert self.reserved is not None
        self.reserved.pop(key, None)
        self.spend(amounts)

    def run_us(self) -> int:
        """Give how long it has run, in microseconds."""
        if self.begun_at is None:
            return 0 if self._gate is not None else self._host.clock.now() - self.started_at
        return self._host.clock.now() - self.begun_at

    def emit(self, name: str, payload: bytes) -> Said:
        """Append to a stream, from whichever thread the body runs in.

        Raises:
            CancelledError: nobody awaits this attempt any more.
        """
        return self._speaker().say(name, payload, self.call.key, self.attempt)

    def jot(self, payload: bytes) -> None:
        """Take a line that the body logs; once nobody awaits it, it is nobody's."""
        if not (self._is_unwanted or self._has_ended):
            self._keeper.open_emitter().jot(payload, self.call.key, self.attempt)

    def names(self) -> dict[str, object]:
        """Name what a line of the body is about."""
        return {
            **self._keeper.names(),
            "step": self.call.key,
            "attempt": self.attempt,
            "worker": self._host.name,
        }

    def report(self, done: float, total: float | None, text: str | None) -> Said:
        """Say how far it is, from whichever thread the body runs in; it is a sign of life, too.

        Raises:
            CancelledError: nobody awaits this attempt any more.
        """
        speaker = self._speaker()
        self.take_beat(None)
        return speaker.report(done, total, text, self.call.key)

    def _speaker(self) -> Emitter:
        if self._is_unwanted or self._has_ended:
            raise asyncio.CancelledError("this attempt is over: nobody awaits it any more")
        return self._keeper.open_emitter()

    def take_beat(self, details: bytes | None) -> None:
        """Note a sign of life."""
        if details is not None:
            self.details, self.is_noted = details, False
        self.beat_at = self._host.clock.now()

    @property
    def task(self) -> str:
        """The task whose execution it belongs to."""
        return self._keeper.task

    @property
    def is_in_task_thread(self) -> bool:
        """Whether it runs in the very thread of the ``def`` task that called it."""
        return isinstance(self._scope, ThreadScope) and self._gate is None

    def begin(self) -> bool:
        """Say, in the thread that runs it, that it begins; False if it may not any more."""
        if self._gate is not None and not self._gate.acquire(blocking=False):
            return False
        self.begun_at = self._host.clock.now()
        return True

    def ran_us(self) -> int:
        """Give how long it ran, waiting for a thread or process not included."""
        since: int = self.begun_at or self._entered_at or self.started_at
        return self._host.clock.now() - since

    def took(self, ran_us: int) -> dict[str, object]:
        """Say what it took, for the row of its outcome."""
        since = self.begun_at or self._entered_at or self.started_at
        return told(ran_us, since - self.started_at, self.cpu_us, self.memory_bytes)

    # Inside

    def _outside(self) -> ProcessPool | RemoteDesk | None:
        """Give what runs it outside of this process, if anything does."""
        where = self.step.on
        if where == "auto":
            return None
        return self._host.processes if where == "process" else self._host.remote

    def _measured(self, context: Context, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call the function in its thread, and measure that thread."""
        self._entered_at = self._host.clock.now()
        before = thread_time_ns()
        try:
            return context.run(eager.guarded_call, fn, *args, **kwargs)
        finally:
            self.cpu_us = (thread_time_ns() - before) // 1_000

    def _in_thread(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        host, scope = self._host, self._scope
        apart = isinstance(scope, ThreadScope) and scope.fans_out
        if self.step.limits is None and not apart:
            if isinstance(scope, ThreadScope):
                return scope.run_body(self.call, call, host.loop)
            return host.in_thread(call)
        self._gate = threading.Lock()
        return host.in_thread(lambda: call() if self.begin() else None)

    def _watch(self) -> None:
        """Wait for the limit that strikes first, if nothing happens until then."""
        now, limits = self._host.clock.now(), self.step.limits
        at, struck = limits.first(
            now,
            queued_at=self.started_at,
            begun_at=self.begun_at,
            beat_at=self.beat_at,
            deadline_at=self.deadline_at,
        )
        if at > now or struck is None:
            self._alarm = self._host.loop.call_later(max(0, at - now) / 1e6, self._watch)
            return
        self._struck = self._error(struck)
        if self._process is not None and not self._is_held_back():
            self._process.stop(self.step.grace_us)
        elif self.step.is_async:
            assert self._task is not None
            self._task.cancel()
            self._alarm = self._host.loop.call_later(self.step.grace_us / 1e6, self._give_up)
        else:
            self._give_up()

    def _is_held_back(self) -> bool:
        """Keep a body from beginning that waits for a thread or process; False if it has begun."""
        if self.begun_at is None and not self._is_barred:
            assert self._gate is not None
            self._is_barred = self._gate.acquire(blocking=False)
        return self._is_barred

    def _error(self, struck: Struck) -> BaseException:
        error: BaseException = self.step.limits.error(
            struck, self.call.key, self.attempt, self._execution_id
        )
        return error

    def _give_up(self) -> None:
        """Wait no longer for what cannot be stopped, or will not be; it may go on, unheard."""
        task = self._task
        assert task is not None
        if self._gate is None or self._is_held_back():
            task.cancel()  # a coroutine, or a body that will not begin
            if self._process is not None:
                self._process.stop(0)  # it may be importing the step, and hang there
        else:
            self._host.replace_thread(task)
        if self._struck is not None:
            self._end(None, self._struck)

    def _done(self, task: asyncio.Future[Any]) -> None:
        if self._has_ended:
            if not task.cancelled():
                task.exception()  # late: it is nobody's, and no loop shall complain of it
            return
        if self._struck is not None:
            if not task.cancelled():
                task.exception()
            self._end(None, self._struck)
        elif task.cancelled():
            said = f"the body of step {self.call.key} cancelled itself"
            self._end(None, RuntimeError(said))
        else:
            error = task.exception()
            if isinstance(error, eager.Escaped):
                error = error.error
            self._end(None if error is not None else task.result(), error)

    def _end(self, value: Any, error: BaseException | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._has_ended = True
        self._task = None  # its context names this body: a cycle that only the collector would find
        self._keeper.body_done(self, value, error)


__all__ = ["Body", "Host"]
