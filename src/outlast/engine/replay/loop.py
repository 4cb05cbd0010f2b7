"""The deterministic event loop of one execution (``architecture.md`` 3a).

Theory of operation. Task code sees an ordinary asyncio loop; in truth it is a queue of ready
callbacks that is run empty, again and again, from a plain callback of the engine's own loop:
:meth:`DeterministicLoop.run_until_quiet`. Between two such runs nothing happens at all, so whatever
the code does is a function of what was delivered to it before each run. What would break that is
kept out:

- *Time* is an integer set from outside (the log's). A timer only enters a heap; somebody else
  records that it fired and calls :meth:`DeterministicLoop.fire`.
- *Sets.* ``asyncio.wait`` and ``TaskGroup`` iterate over sets of tasks. Tasks and futures of this
  loop hash by number, so equal histories give equal sets. What hashes by address (a bare coroutine
  in ``as_completed``, a ``gather`` in ``asyncio.wait``) is refused.
- *Branches.* Each task has a path: "" for the first, then "1", "2", "1.1" … in order of creation
  under the parent. ``wait_for`` makes a task on Python 3.11 and none later, so a task made by it
  shares its caller's branch and takes its first step at once; what it wakes jumps the queue. In
  this way the order of all steps, and with it every identity, is that of 3.12 and later.
- *The world.* Sockets, threads, subprocesses and signals are refused: they belong in a step.
- *Garbage.* An async generator that is dropped half-way is dropped for good: its clean-up would run
  whenever the collector pleases.

A closed loop is inert: it takes no callbacks, and whatever would make it wait raises ``_Parked``.
"""

from __future__ import annotations

import asyncio
import asyncio.tasks
import logging
import re
import sys
import warnings
import weakref
from asyncio import Handle, TimerHandle, _get_running_loop, _set_running_loop
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from functools import partial
from heapq import heapify, heappop, heappush
from time import perf_counter
from types import CodeType, FrameType
from typing import Any, Final, NoReturn, Self, TypeVar, TypeVarTuple, cast

from outlast.engine.replay.eager import in_main_thread
from outlast.errors import InternalError, NotDurable

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

CALLBACKS_MAX: Final = 5_000_000
"""How many callbacks one run may take; code that needs more is taken to spin for ever."""
_NEVER: Final = 2**62
"""The deadline of a timer that is not armed: ``asyncio.sleep(math.inf)``."""
REFUSALS_MAX: Final = 100
"""How often code that is being unwound is refused before it is frozen instead."""

_log: Final = logging.getLogger("outlast.engine")
_current_task: Final = asyncio.current_task
_init_task: Final = asyncio.Task.__init__
_cancel_future: Final = asyncio.Future.cancel


class _Parked(BaseException):
    """Unwinds the code of a parked execution; nothing that it does is recorded any more."""


class Branch:
    """The identity of a line of execution: where it stands in the tree, and what it has called.

    Attributes:
        path: "" for the main branch, else the numbers of creation from the root: "2.1".
        prefix: what the keys of its calls begin with.
        counts: how many calls of each name it has made.
    """

    __slots__ = ("_children", "counts", "path", "prefix")

    def __init__(self, path: str, prefix: str) -> None:
        self.path = path
        self.prefix = prefix
        self.counts: dict[str, int] = {}
        self._children = 0

    def fork(self) -> Branch:
        """Make the next branch under this one."""
        number = self._children = self._children + 1
        path = f"{self.path}.{number}" if self.path else str(number)
        return Branch(path, path + "/")


class BranchTask(asyncio.Task[Any]):
    """A task of a deterministic loop: it knows its branch and context, and hashes by number."""

    __slots__ = ("branch", "context", "number")
    _log_destroy_pending: bool

    def __init__(
        self,
        coro: Coroutine[Any, Any, Any],
        loop: DeterministicLoop,
        branch: Branch,
        number: int,
        name: str | None,
        context: Context,
    ) -> None:
        self.number = number
        self.branch = branch
        self.context = context
        _init_task(self, coro, loop=loop, name=name or branch.path or "main", context=context)

    def __hash__(self) -> int:
        return self.number


class BranchFuture(asyncio.Future[Any]):
    """A future of a deterministic loop: it hashes by number."""

    __slots__ = ("number",)

    def __init__(self, loop: DeterministicLoop, number: int) -> None:
        self.number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number


class BranchHandle(Handle):
    """A ready callback; cheaper to make than its base, and with fewer fields."""

    __slots__ = ()
    _loop = None
    _repr = None
    _source_traceback = None

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: Context
    ) -> None:
        self._callback: Any = callback
        self._args: Any = args
        self._context = context
        self._cancelled = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._callback!r}>"

    def cancel(self) -> None:
        """Keep the callback from being run."""
        self._cancelled = True
        self._callback = self._args = None


class BranchTimer(TimerHandle):
    """A timer; numbered in order of creation if it lies in the future, else numbered 0.

    Attributes:
        number: its identity in the log.
        deadline_at: when it shall fire, in microseconds since 1970.
    """

    __slots__ = ("deadline_at", "number")

    def __init__(
        self,
        deadline_at: int,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: DeterministicLoop,
        context: Context | None,
    ) -> None:
        super().__init__(deadline_at / 1e6, callback, args, loop, context)
        self.deadline_at = deadline_at
        self.number = 0


class DeterministicLoop(asyncio.AbstractEventLoop):
    """Run the code of one execution, as a function of nothing but what is delivered to it.

    Attributes:
        now_us: the time on this loop, in microseconds since 1970; set it before each run.
        root: the main branch; callbacks outside any task count as part of it.
        closed: whether the loop is inert.
        refusals: how often a closed loop refused the code being unwound.
        prepare: called with each context that the code brings for a task of its own.
        longest_seconds: how long the longest run has held the engine's loop.
        longest_site: where the code stood after that run.
        held_seconds_max: runs shorter than this are not looked at more closely.
        callbacks_max: how many callbacks one run may take.
    """

    def __init__(self, *, prepare: Callable[[Context], None] | None = None) -> None:
        self.now_us = 0
        self.root = Branch("", "")
        self.closed = False
        self.refusals = 0
        self.prepare = prepare
        self.longest_seconds = 0.0
        self.longest_site = ""
        self.held_seconds_max = 0.1
        self.callbacks_max = CALLBACKS_MAX
        self.foreign_call = ""
        self._ready: deque[Handle] = deque()
        self._timers: list[tuple[int, int]] = []
        self._armed: dict[int, BranchTimer] = {}
        self._timer_count = 0
        self._tasks: list[BranchTask] = []
        self._sweep_at = 64
        self._task_count = 0
        self._future_count = 0
        self._hidden_count = 0
        self._dropped_generator = False
        self._running = False
        self._handler: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None = None

    # Driven from outside

    def run_until_quiet(self) -> None:
        """Run ready callbacks until none is left.

        Call it from a plain callback of another loop, or from no loop at all.

        Raises:
            InternalError: called from inside a task or from within a run.
            NotDurable: the code never came to rest.
            KeyboardInterrupt: it hit the code; the execution's memory is void.
        """
        ready = self._ready
        if not ready or self.closed:
            return
        outer = _get_running_loop()
        if self._running or (outer is not None and _current_task(outer) is not None):
            raise InternalError("an execution's loop was driven from inside a task")
        popleft = ready.popleft
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, self._generator_dropped)
        _set_running_loop(self)
        self._running = True
        began = perf_counter()
        try:
            for _ in range(self.callbacks_max):
                if not ready:
                    break
                handle: Any = popleft()
                if handle._cancelled:
                    continue
                try:
                    handle._context.run(handle._callback, *handle._args)
                except SystemExit:
                    pass  # its task has ended with it; it must not end the engine
                except KeyboardInterrupt:
                    if in_main_thread():
                        raise
                except BaseException as error:  # noqa: BLE001 - a callback of user code raised
                    self._callback_failed(handle, error)
            else:
                self._never_quiet()
        finally:
            self._running = False
            _set_running_loop(outer)
            sys.set_asyncgen_hooks(*hooks)
            took = perf_counter() - began
            if took > self.longest_seconds:
                self.longest_seconds = took
                if took > self.held_seconds_max:
                    self.longest_site = self.describe_branches()

    def next_timer(self) -> BranchTimer | None:
        """Give the timer that is due first, of equal ones the first made."""
        timers = self._timers
        while timers:
            timer = self._armed.get(timers[0][1])
            if timer is not None:
                return timer
            heappop(timers)
        return None

    def armed_timer(self, number: int) -> BranchTimer | None:
        """Give the timer of this number, if it still waits."""
        return self._armed.get(number)

    def fire(self, timer: BranchTimer) -> None:
        """Make an armed timer's callback ready."""
        del self._armed[timer.number]
        self._ready.append(timer)

    def move_time(self, at: int) -> int:
        """Set the time, and all armed timers by as much; gives by how much."""
        moved_us = max(0, at - self.now_us)
        self.now_us += moved_us
        if moved_us:
            for timer in self._armed.values():
                timer.deadline_at += moved_us
            self._timers[:] = [(timer.deadline_at, n) for n, timer in self._armed.items()]
            heapify(self._timers)
        return moved_us

    def live_tasks(self) -> list[BranchTask]:
        """Give the list of the tasks that have not ended, oldest first."""
        self._tasks = [task for task in self._tasks if not task.done()]
        self._sweep_at = 2 * len(self._tasks) + 64
        return self._tasks

    def describe_branches(self) -> str:
        """Say for each branch that has not ended where its code stands."""
        lines: dict[str, str] = {}
        for task in self.live_tasks():  # an alias, being younger, stands for its caller
            branch = f"branch {task.branch.path}" if task.branch.path else "the main branch"
            call = getattr(getattr(task, "_fut_waiter", None), "call", None)
            key = f" for {call.key}" if call is not None else ""
            lines[branch] = f"{branch} waits {where(task.get_coro()).removesuffix(key)}{key}"
        if self.foreign_call:
            lines[""] = self.foreign_call
        return "; ".join(lines.values())

    def places(self) -> dict[str, str]:
        """Say for each durable call that is awaited where the code stands, by its key."""
        found: dict[str, str] = {}
        for task in self.live_tasks():
            call = getattr(getattr(task, "_fut_waiter", None), "call", None)
            if call is not None:
                found[call.key] = where(task.get_coro()).removesuffix(f" for {call.key}")
        return found

    def unwind(self, task: BranchTask) -> bool:
        """Raise ``_Parked`` in a task of this closed loop until its code has ended.

        Returns:
            Whether it has; if not it is frozen where it stands, and must never be collected.
        """
        assert self.closed
        task._log_destroy_pending = False
        coro: Any = task.get_coro()
        self.refusals = 0
        outer = _get_running_loop()
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, _ignore_generator)
        _set_running_loop(self)
        asyncio.tasks._enter_task(self, task)
        try:
            with _no_warning_of_unawaited():
                has_ended = self._unwind(coro, task.context)
            waiter: Any = task._fut_waiter  # type: ignore[attr-defined]
            if has_ended and waiter is not None:
                _cancel_future(waiter)  # they hold each other; its callback goes nowhere
            return has_ended
        finally:
            asyncio.tasks._leave_task(self, task)
            _set_running_loop(outer)
            sys.set_asyncgen_hooks(*hooks)

    def _unwind(self, coro: Any, context: Context) -> bool:
        for _ in range(REFUSALS_MAX):
            try:
                context.run(coro.throw, _Parked())
            except KeyboardInterrupt:
                raise
            except BaseException:  # noqa: BLE001 - whatever the code makes of it, it has ended
                return True
            if self.refusals > REFUSALS_MAX:
                break
        return False

    def close(self) -> None:
        """Become inert: forget all callbacks and timers, and take no more."""
        self.closed = True
        self.prepare = None
        self._ready.clear()
        self._timers.clear()
        self._armed.clear()

    def refuse(self) -> None:
        """Refuse something to code that is being unwound.

        Returns normally from the 101st time on: what is called then must wait for ever, which
        freezes code that catches everything and tries again.
        """
        self.refusals += 1
        if self.refusals <= REFUSALS_MAX:
            raise _Parked

    # What asyncio asks of a loop

    def time(self) -> float:
        """Give the time of the last delivered row, in seconds since 1970."""
        return self.now_us / 1e6

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> Handle:
        """Make a callback ready."""
        if context is None:
            context = copy_context()
        if callback.__class__ is partial and callback.func is _RELEASE_WAITER:
            handle = BranchHandle(self._jumping, (callback, args), context)
        else:
            handle = BranchHandle(callback, args, context)
        if self.closed:
            handle._cancelled = True
        else:
            self._ready.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> TimerHandle:
        """Arm a durable timer; if the delay is not positive, make the callback ready."""
        # Through seconds on purpose: timeout() and wait_for() take that way on some versions.
        return self.call_at(self.now_us / 1e6 + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> TimerHandle:
        """Arm a durable timer; if its time has come, make the callback ready."""
        deadline_at = round(when * 1e6) if when < _NEVER / 1e6 else _NEVER
        timer = BranchTimer(deadline_at, callback, args, self, context)
        if self.closed:
            self.refuse()
        elif deadline_at <= self.now_us:
            self._ready.append(timer)
        elif deadline_at != _NEVER:
            self._timer_count += 1
            timer.number = self._timer_count
            self._armed[timer.number] = timer
            heappush(self._timers, (deadline_at, timer.number))
        return timer

    def _timer_handle_cancelled(self, handle: TimerHandle) -> None:
        armed = self._armed
        if armed.pop(cast(BranchTimer, handle).number, None) is not None:
            timers = self._timers
            if len(timers) > 2 * len(armed) + 64:
                timers[:] = [entry for entry in timers if entry[1] in armed]
                heapify(timers)

    def create_future(self) -> asyncio.Future[Any]:
        """Make a future that hashes by number."""
        if self.closed:
            self.refuse()
        caller = sys._getframe(1).f_code
        if caller is _WAIT:
            _check_set(sys._getframe(1))
        elif caller is _WAIT_FOR or caller is _CANCEL_AND_WAIT:
            # Some versions make these and some do not; nobody gets to see one.
            self._hidden_count -= 1
            return BranchFuture(self, self._hidden_count)
        self._future_count += 1
        return BranchFuture(self, self._future_count)

    def new_number(self) -> int:
        """Give the number of a future that the caller makes itself."""
        self._future_count += 1
        return self._future_count

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
        eager_start: bool | None = None,
    ) -> asyncio.Task[T]:
        """Make a task: a new branch, or its caller's if ``wait_for`` asks for it.

        Raises:
            NotDurable: ``as_completed`` asks for it (its order is that of addresses), or an eager
                start is wanted.
        """
        frame: FrameType = sys._getframe(1)
        caller = frame.f_code
        if caller is _ENSURE_INNER:
            frame = cast(FrameType, frame.f_back)
            caller = frame.f_code
        if caller is _ENSURE:
            frame = cast(FrameType, frame.f_back)
            caller = frame.f_code
        if self.closed:
            return self._task_of_closed(coro)
        if eager_start:
            coro.close()
            raise NotDurable("task code asked for an eager task", do="leave eager_start out")
        if (caller is _AS_COMPLETED or caller is _AS_COMPLETED_INNER) and not hasattr(
            coro, "number"
        ):
            coro.close()
            raise NotDurable(
                "as_completed was given a coroutine",
                why="it would start coroutines in the order of their addresses, "
                "which no replay can repeat",
                do="give it tasks: asyncio.create_task(…)",
            )
        if context is None:
            context = copy_context()
        elif self.prepare is not None:
            self.prepare(context)
        current: Any = _current_task(self)
        branch = current.branch if isinstance(current, BranchTask) else self.root
        if caller is _WAIT_FOR:
            return self._create_alias(coro, branch, name, context, frame)
        number = self._task_count = self._task_count + 1
        own: Any = coro
        return self._keep(BranchTask(own, self, branch.fork(), number, name, context))

    def create_main(self, coro: Coroutine[Any, Any, Any], context: Context) -> BranchTask:
        """Make the task of the main branch."""
        return self._keep(BranchTask(coro, self, self.root, 0, None, context))

    def _keep(self, task: BranchTask) -> BranchTask:
        """Hold a task: one that nobody else holds would be collected, and its code with it."""
        self._tasks.append(task)
        if len(self._tasks) > self._sweep_at:
            self.live_tasks()
        return task

    # wait_for on Python 3.11

    def _create_alias(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        branch: Branch,
        name: str | None,
        context: Context,
        frame: FrameType,
    ) -> asyncio.Task[T]:
        """Make the task of a ``wait_for``: the branch of its caller under another name.

        With a positive timeout (3.11 only) it takes its first step here, and what happens around
        its end runs without a turn of the queue in between: 3.12 awaits in the caller itself.
        """
        self._hidden_count -= 1
        number = self._hidden_count
        if frame.f_locals.get("timeout_handle") is None:
            plain = BranchTask(
                cast(Coroutine[Any, Any, T], coro), self, branch, number, name, context
            )
            return self._keep(plain)
        inline = _Inline(cast(Coroutine[Any, Any, T], coro))
        task = _AliasTask(inline, self, branch, number, name, context)
        self._keep(task)
        first = self._ready.pop()
        caller = _current_task(self)
        assert caller is not None
        asyncio.tasks._leave_task(self, caller)
        try:
            first._run()
        finally:
            asyncio.tasks._enter_task(self, caller)
        inline.task = weakref.ref(task)
        return task

    def _jumping(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        """Run a callback; what it makes ready goes to the front of the queue."""
        self._collect(partial(callback, *args))

    def _collect(self, callback: Callable[[], T]) -> T:
        ready = self._ready
        before = len(ready)
        try:
            return callback()
        finally:
            ready.rotate(len(ready) - before)

    def _jump(self, count: int) -> None:
        """Let the next so many callbacks go to the front: those of an alias that ends now."""
        vars(self)["call_soon"] = partial(self._call_first, [count])

    def _call_first(
        self,
        left: list[int],
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> Handle:
        del vars(self)["call_soon"]
        handle = self.call_soon(callback, *args, context=context)
        if not self.closed:
            self._ready.rotate(1)
        left[0] -= 1
        if left[0]:
            vars(self)["call_soon"] = partial(self._call_first, left)
        return handle

    # Refusals and failures

    def _task_of_closed(
        self, coro: Generator[Any, None, T] | Coroutine[Any, Any, T]
    ) -> asyncio.Task[T]:
        """Refuse a task to code that is being unwound, or give it one that never runs."""
        coro.close()
        self.refuse()
        context = copy_context()
        task = BranchTask(cast(Coroutine[Any, Any, T], coro), self, self.root, 0, None, context)
        task._log_destroy_pending = False
        return task

    def _callback_failed(self, handle: Handle, error: BaseException) -> None:
        self.call_exception_handler(
            {"message": f"Exception in callback {handle!r}", "exception": error, "handle": handle}
        )

    def _never_quiet(self) -> NoReturn:
        """Give up on code that spins."""
        standing = self.describe_branches()
        self._ready.clear()
        raise NotDurable(
            f"task code made {self.callbacks_max} turns without waiting for anything",
            where=standing,
            do="wait for an asyncio.Event or a step instead of asyncio.sleep(0) in a loop",
        )

    def _generator_dropped(self, generator: AsyncGenerator[Any, Any]) -> None:
        if not (self._dropped_generator or self.closed):
            self._dropped_generator = True
            _log.warning(
                "async generator %s was left half-way; its clean-up does not run in task code: "
                "use contextlib.aclosing()",
                generator.__qualname__,  # type: ignore[attr-defined]
            )

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Report what nobody caught."""
        if self.closed:
            return
        if self._handler is not None:
            self._handler(self, context)
        else:
            self.default_exception_handler(context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Log what nobody caught."""
        _log.error("%s", context.get("message"), exc_info=context.get("exception"))

    def set_exception_handler(
        self, handler: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None
    ) -> None:
        """Let a function report what nobody caught."""
        self._handler = handler

    def get_exception_handler(
        self,
    ) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None:
        """Give the function that reports what nobody caught."""
        return self._handler

    def get_debug(self) -> bool:
        """Say no: debug mode would slow replays down and change nothing."""
        return False

    def set_debug(self, enabled: bool) -> None:
        """Do nothing."""

    def is_running(self) -> bool:
        """Say whether the code of this loop is running."""
        return _get_running_loop() is self

    def is_closed(self) -> bool:
        """Say whether the loop is inert."""
        return self.closed

    def get_task_factory(self) -> None:
        """Say that there is none."""
        return

    def set_task_factory(self, factory: object) -> None:
        """Refuse all but None: eager tasks would run in another order."""
        if factory is not None:
            raise NotDurable("task code set a task factory", do="leave the factory alone")

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> NoReturn:
        """Refuse: what another thread does is not in the log."""
        self.foreign_call = "another thread tried to wake it: put what it does in a step"
        raise _not_durable("call_soon_threadsafe")


class _Inline(Coroutine[Any, Any, T]):
    """The coroutine of an alias; its end lets the callbacks of its task jump the queue."""

    __slots__ = ("coro", "task")

    def __init__(self, coro: Coroutine[Any, Any, T]) -> None:
        self.coro = coro
        self.task: weakref.ref[_AliasTask] | None = None

    def __await__(self) -> Generator[Any, Any, T]:
        raise NotImplementedError

    def send(self, value: Any) -> Any:
        try:
            return self.coro.send(value)
        except BaseException:
            self._ending()
            raise

    def throw(self, *args: Any) -> Any:
        try:
            return self.coro.throw(*args)
        except BaseException:
            self._ending()
            raise

    def close(self) -> None:
        self.coro.close()

    def _ending(self) -> None:
        task = self.task() if self.task is not None else None
        if task is not None and task._callbacks:
            loop = cast(DeterministicLoop, task.get_loop())
            if not loop.closed:
                loop._jump(len(task._callbacks))


class _AliasTask(BranchTask):
    """The task of a ``wait_for`` on Python 3.11; cancelling it is cancelling its caller."""

    __slots__ = ()

    __hash__ = BranchTask.__hash__

    def cancel(self, msg: Any = None) -> bool:
        loop = cast(DeterministicLoop, self.get_loop())
        return loop._collect(partial(super().cancel, msg))

    def add_done_callback(
        self, fn: Callable[[Self], object], /, *, context: Context | None = None
    ) -> None:
        add = partial(super().add_done_callback, fn, context=context)
        if self.done():
            cast(DeterministicLoop, self.get_loop())._collect(add)
        else:
            add()


def where(coro: object) -> str:
    """Say where a suspended coroutine stands: its innermost line of user code, and for what."""
    place, tail = "", ""
    while coro is not None:
        if isinstance(coro, _Inline):
            coro = coro.coro
            continue
        name = getattr(coro, "__qualname__", "")
        for kind in ("cr", "gi", "ag"):
            frame = getattr(coro, f"{kind}_frame", None)
            if frame is not None:
                break
        if frame is None:
            key = getattr(coro, "key", None)
            tail = str(key) if key is not None else tail
            break
        if frame.f_code.co_filename.startswith(_ASYNCIO):
            tail = name
        elif not place or not frame.f_code.co_filename.startswith(_OURS):
            place, tail = f"in {name}, {frame.f_code.co_filename}:{frame.f_lineno}", ""
        coro = getattr(coro, "cr_await" if kind == "cr" else f"{kind}_yieldfrom", None)
    return f"{place} for {tail}" if place and tail else place or f"for {tail}"


def _ignore_generator(generator: object) -> None:
    """Do nothing when an async generator is dropped during unwinding."""


@contextmanager
def _no_warning_of_unawaited() -> Iterator[None]:
    """Keep Python from calling coroutines of unwound code forgotten.

    The list of filters is changed in place, because ``catch_warnings`` swaps it, which two threads
    can do in an order that leaves the wrong one.
    """
    filters: Any = warnings.filters
    filters.insert(0, _UNAWAITED)
    try:
        yield
    finally:
        filters.remove(_UNAWAITED)


def _check_set(frame: FrameType) -> None:
    """Refuse ``asyncio.wait`` a set that iterates by address."""
    members = frame.f_locals.get("fs", ())
    if len(members) > 1 and not all(isinstance(m, BranchTask | BranchFuture) for m in members):
        raise NotDurable(
            "asyncio.wait was given a future that is no task of this execution",
            why="a set of such futures has the order of their addresses, "
            "which no replay can repeat",
            do="give it tasks: asyncio.create_task(…)",
        )


def _not_durable(name: str) -> NotDurable:
    return NotDurable(
        f"task code used the event loop's {name}",
        why="sockets, threads, subprocesses and signals are not in the log, so a replay would "
        "repeat them",
        do="put it in a step",
    )


def _refusing(name: str) -> Callable[..., NoReturn]:
    def refused(self: DeterministicLoop, *args: object, **kwargs: object) -> NoReturn:
        for value in args:
            if asyncio.iscoroutine(value):
                value.close()
        raise _not_durable(name)

    refused.__name__ = name
    refused.__doc__ = "Refuse: it belongs in a step."
    return refused


def _refuse_the_rest() -> None:
    """Refuse every method of a loop that this one does not have."""
    for name in dir(asyncio.AbstractEventLoop):
        if not name.startswith("_") and name not in vars(DeterministicLoop):
            setattr(DeterministicLoop, name, _refusing(name))


def _codes_of_as_completed() -> tuple[CodeType, CodeType | None]:
    """Find the code that makes tasks for ``as_completed``, and its comprehension before 3.12."""
    iterator = getattr(asyncio.tasks, "_AsCompletedIterator", None)
    entry = iterator.__init__ if iterator is not None else asyncio.tasks.as_completed
    code: CodeType = entry.__code__
    inner = [c for c in code.co_consts if isinstance(c, CodeType) and c.co_name == "<setcomp>"]
    return code, inner[0] if inner else None


def _code(name: str) -> CodeType | None:
    function = getattr(asyncio.tasks, name, None)
    return getattr(function, "__code__", None)


_UNAWAITED: Final = (
    "ignore",
    re.compile("coroutine .* was never awaited"),
    RuntimeWarning,
    None,
    0,
)
_ASYNCIO: Final = asyncio.__path__[0]
_OURS: Final = __file__.removesuffix("replay/loop.py")
_ENSURE: Final = _code("ensure_future")
_ENSURE_INNER: Final = _code("_ensure_future")
_WAIT: Final = _code("_wait")
_WAIT_FOR: Final = _code("wait_for")
_CANCEL_AND_WAIT: Final = _code("_cancel_and_wait")
_RELEASE_WAITER: Final[Any] = getattr(asyncio.tasks, "_release_waiter", None)
_AS_COMPLETED, _AS_COMPLETED_INNER = _codes_of_as_completed()
_refuse_the_rest()
