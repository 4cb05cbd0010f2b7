"""Tasks and steps: the decorators, and what they make of a function.

Outside an execution both are just functions. Inside one, calling a step makes a durable call: its
recorded result is given back in every replay, and its body runs only where none is recorded.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import datetime
from typing import (
    Any,
    Final,
    Generic,
    Literal,
    NoReturn,
    ParamSpec,
    TypeVar,
    cast,
    get_args,
    overload,
)

from msgspec import Struct

from outlast.budget import Amount, Budget, amounts_of
from outlast.codec import Codec, InputCodec, digest, result_codec
from outlast.duration import Duration, microseconds, microseconds_of
from outlast.engine.task import fan
from outlast.engine.task.after import After, edges
from outlast.engine.task.current import AnyScope, current_scope, current_step, the_engine, the_scope
from outlast.engine.task.fingerprint import fingerprint
from outlast.engine.task.gate import FREE, Demand, Limited, Rated, demand_of
from outlast.engine.task.limits import GRACE_US, Limits, limits_of
from outlast.engine.task.task_call import ChildCall, ContinueAsNew, call_task, request_of
from outlast.errors import BadSchedule, Fatal, UsageError, WrongColour
from outlast.lifecycle import NO_RETRY, Execution, RetryPolicy
from outlast.naming import checked_labels
from outlast.retention import Retention, retention_of
from outlast.schedule.plan import Misfire, Overlap, Schedule

P = ParamSpec("P")
R = TypeVar("R")
Where = Literal["auto", "process", "remote"]


class Retry:
    """How a step or task is tried again after a failure.

    Args:
        max: how many retries follow the first attempt.
        base: the delay before the first retry.
        cap: the longest delay.
        factor: what each further delay is multiplied by; 1 keeps it fixed.
        jitter: the share of a delay that is random, from 0 to 1.
        give_up_on: errors that are final at once.
        only_on: if given, the only errors that are tried again.
    """

    def __init__(
        self,
        max: int,
        *,
        base: Duration = "1s",
        cap: Duration = "5m",
        factor: float = 2.0,
        jitter: float = 0.5,
        give_up_on: Iterable[type[BaseException]] = (),
        only_on: Iterable[type[BaseException]] = (),
    ) -> None:
        try:
            self.policy = RetryPolicy(
                retries=max,
                base_us=microseconds(base),
                cap_us=microseconds(cap),
                factor=factor,
                jitter=jitter,
                give_up_on=(Fatal, *give_up_on),
                only_on=tuple(only_on),
            )
        except ValueError as error:
            raise UsageError(f"no such retry policy: {error}") from None


def span(duration: Duration | None) -> int | None:
    """Give a duration in microseconds; None where there is none."""
    return None if duration is None else microseconds(duration)


def _policy(retries: int | Retry) -> RetryPolicy:
    if isinstance(retries, Retry):
        return retries.policy
    return Retry(retries).policy if retries else NO_RETRY


class _Function(Generic[P, R]):
    """What tasks and steps share: a function, its name, its codecs, its policy."""

    def __init__(
        self,
        fn: Callable[P, Any],
        name: str | None,
        retries: int | Retry,
        timeout: Duration | None,
    ) -> None:
        self.fn = fn
        self.name = name or fn.__name__
        self.policy = _policy(retries)
        self.timeout_us = span(timeout)
        self.is_async = inspect.iscoroutinefunction(fn)
        functools.update_wrapper(self, fn)  # type: ignore[arg-type]

    @functools.cached_property
    def input(self) -> InputCodec:
        """Writes and reads the arguments; made at first use, when all annotations resolve."""
        return InputCodec(self.fn, localns=locals_of(self.fn))

    @functools.cached_property
    def output(self) -> Codec[Any]:
        """Writes and reads the result."""
        return result_codec(self.fn, localns=locals_of(self.fn))

    @property
    def where(self) -> str:
        """The place the function was written at."""
        code = self.fn.__code__ if hasattr(self.fn, "__code__") else None
        return f"{code.co_filename}:{code.co_firstlineno}" if code else self.name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


def locals_of(fn: Callable[..., Any]) -> dict[str, Any]:
    """Give the names a nested function closes over, which its annotations may use."""
    try:
        return dict(inspect.getclosurevars(fn).nonlocals)
    except TypeError:
        return {}


class StepCall:
    """What is needed to run a step's body: its definition and its arguments.

    A body gets copies of its own: what it does to them must not be seen by the task's code, as no
    replay would see it. The first attempt takes those made at the call, later ones read the bytes.

    Attributes:
        deadline_at: when all attempts must be over. It counts from the time of the last thing the
            code had learned when it made the call, which is the same in every replay.
    """

    __slots__ = ("_args", "_kwargs", "deadline_at", "input", "step")

    def __init__(
        self,
        step: _Step[Any, Any],
        data: bytes,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        deadline_at: int | None = None,
    ) -> None:
        self.step = step
        self.input = data
        self.deadline_at = deadline_at
        self._args: tuple[Any, ...] | None = args
        self._kwargs = kwargs

    def read(self, data: bytes) -> Any:
        """Read the result of the step from its row."""
        return self.step.output.decode(data)

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give a copy of the arguments that nobody else has."""
        if self._args is None:
            return self.step.input.unbind(self.input)
        args, kwargs = self._args, self._kwargs
        self._args = None
        return args, kwargs


class _Step(_Function[P, R]):
    def __init__(
        self,
        fn: Callable[P, Any],
        name: str | None = None,
        retries: int | Retry = 0,
        limits: Limits | None = None,
        grace_us: int = GRACE_US,
        on: Where = "auto",
        cost: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(fn, name, retries, None)
        self.cost = cost
        self.limits, self.grace_us, self.on = limits, grace_us, on

    def _call(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], key: str | None = None
    ) -> Any:
        scope = current_scope.get()
        if scope is None:
            return self.fn(*args, **kwargs)
        return self._call_in(scope, args, kwargs, key)

    def _call_in(
        self, scope: AnyScope, args: tuple[Any, ...], kwargs: Mapping[str, Any], key: str | None
    ) -> Any:
        return scope.call(*self._request(scope, args, kwargs), explicit_key=key)

    def _request(
        self, scope: AnyScope, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> fan.Request:
        data, copies, named = self.input.round_trip(args, kwargs)
        deadline_at = None
        if self.limits is not None and self.limits.deadline_us is not None:
            deadline_at = scope.now() + self.limits.deadline_us
        call = StepCall(self, data, copies, named, deadline_at)
        return "step", self.name, digest(data), call

    def _map_on_loop(
        self, items: Iterable[Any], limit: int, on_error: fan.OnError
    ) -> Coroutine[Any, Any, list[Any]]:
        scope = current_scope.get()
        if scope is None:
            return fan.plainly(_as_coroutine(self.fn), ((one,) for one in items), limit, on_error)
        requests = (self._request(scope, (one,), {}) for one in items)
        return fan.on_loop(scope, requests, limit, on_error)


class AsyncStep(_Step[P, R]):
    """A step whose body is a coroutine; call it with ``await`` in an ``async def`` task."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Make the call; await it for its result.

        Raises:
            WrongArguments, BadPayload: at the call, before anything runs.
        """
        scope = current_scope.get()
        call: Coroutine[Any, Any, R]
        if scope is None:
            call = self.fn(*args, **kwargs)
        elif scope.is_async:
            call = self._call_in(scope, args, kwargs, None)
        else:
            raise WrongColour(
                f"{self.name} is an async def step, called in a def task",
                do="make the task async def, or the step def",
            )
        return call

    def map(
        self, items: Iterable[Any], *, limit: int = fan.LIMIT, on_error: fan.OnError = "raise"
    ) -> Coroutine[Any, Any, list[R]]:
        """Call it once for each item; await that for the results, in the order of the items.

        Args:
            items: what it is called with, one argument each.
            limit: how many calls are under way at once.
            on_error: ``raise`` the first error and give the others up, or ``collect`` errors where
                their results would be.

        Raises:
            UsageError: a limit below 1.
        """
        return self._map_on_loop(items, limit, on_error)

    def key(self, key: str) -> Callable[P, Coroutine[Any, Any, R]]:
        """Give the step with an identity of your own, for loops whose order depends on data."""
        return lambda *args, **kwargs: self._call(args, kwargs, key)


class DefStep(_Step[P, R]):
    """A step whose body is a plain function; it runs in a thread, or in a process of its own.

    Call it plainly in a ``def`` task, and as ``await step.aio(…)`` in an ``async def`` one.
    """

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the step and give its result, in a ``def`` task or outside any.

        Raises:
            WrongColour: in an ``async def`` task.
        """
        scope = current_scope.get()
        if scope is not None and scope.is_async:
            raise WrongColour(
                f"{self.name} is a def step, called plainly in an async def task",
                do=f"await {self.name}.aio(…)",
            )
        result: R = self._call(args, kwargs)
        return result

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Make the call in an ``async def`` task; await it for its result."""
        scope = current_scope.get()
        if scope is None:
            return _in_coroutine(self.fn, args, kwargs)
        call: Coroutine[Any, Any, R] = self._call(args, kwargs)
        return call

    def map(
        self, items: Iterable[Any], *, limit: int = fan.LIMIT, on_error: fan.OnError = "raise"
    ) -> list[R]:
        """Call it once for each item, in a ``def`` task; gives the results in their order.

        The bodies run in threads of their own, at most ``limit`` at once. See
        :meth:`AsyncStep.map`; in an ``async def`` task it is :meth:`amap`.
        """
        scope = current_scope.get()
        if scope is None:
            return asyncio.run(self._map_on_loop(items, limit, on_error))
        if scope.is_async:
            raise WrongColour(
                f"{self.name}.map was called in an async def task",
                do=f"await {self.name}.amap(…)",
            )
        requests = (self._request(scope, (one,), {}) for one in items)
        results: list[R] = fan.in_thread(cast(fan.Fanning, scope), requests, limit, on_error)
        return results

    def amap(
        self, items: Iterable[Any], *, limit: int = fan.LIMIT, on_error: fan.OnError = "raise"
    ) -> Coroutine[Any, Any, list[R]]:
        """Call it once for each item, as :meth:`AsyncStep.map`, in an ``async def`` task."""
        return self._map_on_loop(items, limit, on_error)

    def key(self, key: str) -> KeyedDefStep[P, R]:
        """Give the step with an identity of your own, for loops whose order depends on data."""
        return KeyedDefStep(self, key)


class KeyedDefStep(Generic[P, R]):
    """A ``def`` step with an identity of its caller's."""

    def __init__(self, step: DefStep[P, R], key: str) -> None:
        self._step, self._key = step, key

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the step, as :meth:`DefStep.__call__`."""
        result: R = self._step._call(args, kwargs, self._key)
        return result

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Make the call, as :meth:`DefStep.aio`."""
        if current_scope.get() is None:
            return _in_coroutine(self._step.fn, args, kwargs)
        call: Coroutine[Any, Any, R] = self._step._call(args, kwargs, self._key)
        return call


def _as_coroutine(fn: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def call(*args: Any) -> Any:
        made = fn(*args)
        return await made if inspect.isawaitable(made) else made

    return call


async def _in_coroutine(fn: Callable[..., R], args: Any, kwargs: Any) -> R:
    return fn(*args, **kwargs)


class StartOptions(Struct, frozen=True, kw_only=True):
    """How an execution is started.

    Attributes:
        key: the same key and input always mean the same execution; another input is refused.
        delay_us: how long it waits before it may run.
        start_at: the instant before which it may not run; one that has passed means now.
        deadline_us: how long it may take in all, from its creation.
        queue_timeout_us: how long it may wait to begin, from its creation or its start time.
        attempt_timeout_us: how long one attempt of the whole task may take.
        priority: higher runs first; each step of it is worth a minute of waiting.
        queue: the queue it waits in.
        actor: who starts it.
        origin: what started it.
        labels: names and values that it is found by, on top of its task's.
        after: what must have ended before it may begin.
        demand: what a claim must find open, where it differs from the task's.
        budget: what it may spend, instead of what its task says.
    """

    key: str | None = None
    delay_us: int | None = None
    start_at: int | None = None
    deadline_us: int | None = None
    queue_timeout_us: int | None = None
    attempt_timeout_us: int | None = None
    priority: int | None = None
    queue: str | None = None
    actor: str | None = None
    origin: str | None = None
    labels: Mapping[str, str] | None = None
    after: tuple[After, ...] = ()
    demand: Demand = FREE
    budget: Budget | None = None


PLAIN: Final = StartOptions()


class Task(_Function[P, R]):
    """A function whose executions outlive their process."""

    def __init__(
        self,
        fn: Callable[P, Any],
        name: str | None,
        retries: int | Retry,
        timeout: Duration | None,
        queue: str,
        priority: int,
        version: str | None,
        retention: Duration | Retention | None = None,
        queue_timeout: Duration | None = None,
        attempt_timeout: Duration | None = None,
        schedule: Schedule | None = None,
        labels: Mapping[str, str] | None = None,
        demand: Demand = FREE,
        budget: Budget | None = None,
    ) -> None:
        super().__init__(fn, name, retries, timeout)
        self.demand = demand
        self.form: Any = None
        self.budget = budget
        self.labels = checked_labels(labels or {})
        self.queue, self.priority, self.version = queue, priority, version
        self.pin = False
        self.queue_timeout_us = span(queue_timeout)
        self.attempt_timeout_us = span(attempt_timeout)
        self.retention = None if retention is None else retention_of(retention)
        self.schedule = schedule
        if schedule is not None:
            _check_runs_alone(self)

    @functools.cached_property
    def code(self) -> str:
        """A mark of the function's code (:func:`outlast.engine.task.fingerprint.fingerprint`)."""
        return fingerprint(self.fn)

    @functools.cached_property
    def stamp(self) -> dict[str, object]:
        """What each start of an execution's code notes about that code."""
        version = {} if self.version is None else {"version": self.version}
        return {"code": self.code, **version}

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call it: in a task's code as a child execution, outside any execution as a function.

        A child is awaited in an ``async def`` task and gives its result at once in a ``def`` one.
        It is cancelled when nobody waits for it any more, and when its parent ends.

        Raises:
            UsageError: in a step's body; start it there.
            WrongArguments, BadPayload: at the call, before anything runs.
        """
        return self._call(PLAIN, args, kwargs)

    def _call(self, options: StartOptions, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        scope = current_scope.get()
        if scope is not None:
            return call_task(scope, "child", self, options, args, kwargs)
        if current_step.get() is not None:
            raise UsageError(
                f"task {self.name} was called in a step's body",
                why="a child belongs to its parent's code, where its end is recorded",
                do=f"call it in the task, or {self.name}.start(…) it here and do not wait",
            )
        return self.fn(*args, **kwargs)

    def map(
        self, items: Iterable[Any], *, limit: int = fan.LIMIT, on_error: fan.OnError = "raise"
    ) -> Any:
        """Call it once for each item, as a child each; gives the results in their order.

        To be awaited in an ``async def`` task; a ``def`` one gets the list. The arguments are those
        of :meth:`AsyncStep.map`.
        """
        return self._map(PLAIN, items, limit, on_error)

    def _map(
        self, options: StartOptions, items: Iterable[Any], limit: int, on_error: fan.OnError
    ) -> Any:
        scope = current_scope.get()
        if scope is None:
            made = fan.plainly(_as_coroutine(self.fn), ((one,) for one in items), limit, on_error)
            return made if self.is_async else asyncio.run(made)
        requests = (request_of("child", self, options, (one,), {}) for one in items)
        if scope.is_async:
            return fan.on_loop(scope, requests, limit, on_error)
        return fan.in_thread(cast(fan.Fanning, scope), requests, limit, on_error)

    def start(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Start an execution on the open engine and give its handle, once it is durable.

        In a ``def`` task's code it is a durable call: the execution is started once, goes its own
        way, and :class:`Started` names it. An ``async def`` task awaits :meth:`astart` for that.

        Raises:
            NoEngine: no engine is open.
            WrongArguments, BadPayload: the task does not take these arguments.
            StoreUnavailable: whether it was started is unknown; with a key it is safe to repeat.
        """
        return self._start(PLAIN, args, kwargs)

    def _start(self, options: StartOptions, args: Any, kwargs: Any) -> Any:
        scope = current_scope.get()
        if scope is None:
            return the_engine().start_with(options, self, args, kwargs)
        if scope.is_async:
            raise WrongColour(
                f"{self.name}.start was called in an async def task",
                do=f"await {self.name}.astart(…)",
            )
        return call_task(scope, "start", self, options, args, kwargs)

    async def astart(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Start an execution, as :meth:`start`, from a coroutine."""
        return await self._astart(PLAIN, args, kwargs)

    def _astart(self, options: StartOptions, args: Any, kwargs: Any) -> Coroutine[Any, Any, Any]:
        scope = current_scope.get()
        if scope is None:
            made: Coroutine[Any, Any, Any] = the_engine().astart_with(options, self, args, kwargs)
            return made
        call: Coroutine[Any, Any, Any] = call_task(scope, "start", self, options, args, kwargs)
        return call

    def options(
        self,
        *,
        key: str | None = None,
        delay: Duration | None = None,
        start_at: datetime | None = None,
        timeout: Duration | None = None,
        queue_timeout: Duration | None = None,
        attempt_timeout: Duration | None = None,
        priority: int | None = None,
        queue: str | None = None,
        actor: str | None = None,
        origin: str | None = None,
        labels: Mapping[str, str] | None = None,
        after: Iterable[Any] = (),
        limit: Limited | None = None,
        rate: Rated | None = None,
        needs: str | Iterable[str] | None = None,
        budget: Budget | None = None,
        connection: Any = None,
    ) -> TaskWithOptions[P, R]:
        """Give the task with options for its next starts; see :class:`StartOptions`.

        With ``connection``, a ``psycopg.Connection`` to the engine's own PostgreSQL database (an
        ``AsyncConnection`` for ``astart``), a start is part of the caller's own transaction: the
        execution is there once that is committed, and never was if it is rolled back.

        Raises:
            UsageError: ``start_at`` has no time zone, or stands beside ``delay``.
        """
        if delay is not None and start_at is not None:
            raise UsageError("start_at and delay say the same thing", do="give one of them")
        return TaskWithOptions(
            self,
            StartOptions(
                key=key,
                delay_us=span(delay),
                start_at=None if start_at is None else microseconds_of(start_at),
                deadline_us=span(timeout),
                queue_timeout_us=span(queue_timeout),
                attempt_timeout_us=span(attempt_timeout),
                priority=priority,
                queue=queue,
                actor=actor,
                origin=origin,
                labels=labels,
                after=edges(after),
                demand=demand_of(limit, rate, needs, self.name),
                budget=budget,
            ),
            connection,
        )

    def continue_as_new(self, *args: P.args, **kwargs: P.kwargs) -> NoReturn:
        """End this execution and go on as a new one with these arguments; never returns.

        For tasks that go on for ever: the new one has an empty log. It has the same parent, and
        whoever waits for the result gets that of the last one. Signals that nobody has waited for
        go along; children still under way are cancelled, so wait for them first.

        Raises:
            OutsideExecution: no execution's code runs here.
            WrongArguments, BadPayload: the execution goes on.
        """
        the_scope("continue_as_new")
        payload = self.input.bind(args, kwargs)
        raise ContinueAsNew(ChildCall(self, PLAIN, payload))


class TaskWithOptions(Generic[P, R]):
    """A task, and how to start it."""

    def __init__(self, task: Task[P, R], options: StartOptions, connection: Any = None) -> None:
        self.task, self.options, self.connection = task, options, connection

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call it, as :meth:`Task.__call__`."""
        self._check_calls()
        return self.task._call(self.options, args, kwargs)

    def map(
        self, items: Iterable[Any], *, limit: int = fan.LIMIT, on_error: fan.OnError = "raise"
    ) -> Any:
        """Call it once for each item, as :meth:`Task.map`."""
        self._check_calls()
        return self.task._map(self.options, items, limit, on_error)

    def start(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Start an execution, as :meth:`Task.start`; with a connection, in its transaction.

        Raises:
            UsageError: with a connection: the store is not PostgreSQL, or it cannot be used.
        """
        if self.connection is None:
            return self.task._start(self.options, args, kwargs)
        from outlast.engine.control.within import start_within

        return start_within(the_engine(), self.connection, self.options, self.task, args, kwargs)

    async def astart(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Start an execution, as :meth:`start`, from a coroutine."""
        if self.connection is None:
            return await self.task._astart(self.options, args, kwargs)
        from outlast.engine.control.within import astart_within

        return await astart_within(
            the_engine(), self.connection, self.options, self.task, args, kwargs
        )

    def _check_calls(self) -> None:
        if self.connection is not None:
            raise UsageError(
                f"task {self.task.name} was called with connection=",
                why="only a start can be part of a caller's transaction",
                do=f"{self.task.name}.options(connection=…).start(…)",
            )


TASKS: Final[dict[str, Task[Any, Any]]] = {}
"""Every task defined in this process, by name; of several versions the newest."""
VERSIONS: Final[dict[tuple[str, str], Task[Any, Any]]] = {}
"""Every task that has a version, by its name and that."""
REMOTE_STEPS: Final[dict[str, _Step[Any, Any]]] = {}
"""Every step with ``on="remote"`` defined in this process, by name."""


def is_newer(version: str | None, other: str | None) -> bool:
    """Tell whether a version is at least as new as another: numbers in it count as numbers."""

    def order(text: str | None) -> list[tuple[int, int, str]]:
        parts = re.findall(r"\d+|\D+", text or "")
        return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]

    return order(version) >= order(other)


def by_name(tasks: Iterable[Task[Any, Any]]) -> dict[str, Task[Any, Any]]:
    """Give tasks by name, of several versions the newest."""
    found: dict[str, Task[Any, Any]] = {}
    for task in tasks:
        other = found.get(task.name)
        if other is None or is_newer(task.version, other.version):
            found[task.name] = task
    return found


def code_for(
    record: Execution,
    tasks: Mapping[str, Task[Any, Any]],
    versions: Mapping[tuple[str, str], Task[Any, Any]],
) -> Task[Any, Any] | None:
    """Give the code that runs an execution: of its own version, else, if not pinned, the newest."""
    if record.gates is None and not versions:
        return tasks.get(record.task)
    wanted = record.pin or record.version
    own = None if wanted is None else versions.get((record.task, wanted))
    return own if own is not None or record.pin is not None else tasks.get(record.task)


def _register(task: Task[Any, Any]) -> None:
    """Keep a task; the same function defined again (a reload, a test) takes its place.

    Raises:
        UsageError: another function has a task of this name.
    """
    newest = TASKS.get(task.name)
    other = newest if newest is None or newest.version == task.version else None
    if task.version is not None:
        other = VERSIONS.get((task.name, task.version), other)
    if (
        other is not None
        and _lasting(other)
        and _lasting(task)
        and other.where != task.where
        and _identity(other) != _identity(task)
    ):
        raise UsageError(
            f'two tasks are named "{task.name}"',
            where=f"{other.where} and {task.where}",
            do='give one another name: @task(name="…")',
        )
    if task.version is not None:
        VERSIONS[task.name, task.version] = task
    if newest is None or not _lasting(task) or is_newer(task.version, newest.version):
        TASKS[task.name] = task


def _check_runs_alone(task: Task[Any, Any]) -> None:
    """Refuse a schedule in code for a task that cannot run without arguments."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for name, parameter in inspect.signature(task.fn).parameters.items():
        if parameter.default is parameter.empty and parameter.kind not in kinds:
            raise BadSchedule(
                f"task {task.name} needs {name}, which no schedule in code gives it",
                where=task.where,
                do="give it a default, or use engine.schedules.create(…) with arguments",
            )


def _identity(task: Task[Any, Any]) -> tuple[str, str]:
    return task.fn.__module__, task.fn.__qualname__


def _lasting(task: Task[Any, Any]) -> bool:
    return "<locals>" not in task.fn.__qualname__


@overload
def task(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    retries: int | Retry = 0,
    timeout: Duration | None = None,
    queue_timeout: Duration | None = None,
    attempt_timeout: Duration | None = None,
    queue: str = "default",
    priority: int = 0,
    version: str | None = None,
    pin: bool = False,
    retention: Duration | Retention | None = None,
    schedule: Schedule | None = None,
    every: Duration | None = None,
    cron: str | None = None,
    tz: str = "UTC",
    jitter: Duration = 0,
    overlap: Overlap = "skip",
    misfire: Misfire = "last",
    labels: Mapping[str, str] | None = None,
    limit: Limited | None = None,
    rate: Rated | None = None,
    needs: str | Iterable[str] | None = None,
    budget: Budget | None = None,
) -> _TaskDecorator: ...
def task(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retries: int | Retry = 0,
    timeout: Duration | None = None,
    queue_timeout: Duration | None = None,
    attempt_timeout: Duration | None = None,
    queue: str = "default",
    priority: int = 0,
    version: str | None = None,
    pin: bool = False,
    retention: Duration | Retention | None = None,
    schedule: Schedule | None = None,
    every: Duration | None = None,
    cron: str | None = None,
    tz: str = "UTC",
    jitter: Duration = 0,
    overlap: Overlap = "skip",
    misfire: Misfire = "last",
    labels: Mapping[str, str] | None = None,
    limit: Limited | None = None,
    rate: Rated | None = None,
    needs: str | Iterable[str] | None = None,
    budget: Budget | None = None,
) -> Any:
    """Make a task of a function: each start of it is an execution that outlives the process.

    Args:
        fn: the function, where the decorator is used without parentheses.
        name: what it is called in the store; by default the function's name.
        retries: how often the whole task is tried again; finished steps are not repeated.
        timeout: how long one execution may take in all, from its creation.
        queue_timeout: how long one may wait until it begins, from its creation, or from its start
            time if that is later.
        attempt_timeout: how long one attempt of the whole task may take, its waits included.
        queue: the queue its executions wait in.
        priority: higher runs first; each step of it is worth a minute of waiting.
        version: a label of the code, kept with each execution. Of several versions in one process
            new starts by name take the newest ("10" is newer than "9"), and an execution goes on
            with its own, if it is there.
        pin: only code of this very version may ever run executions that are started now.
        retention: how long its executions are kept after their end; by default as the engine says.
        labels: names and values that its executions are found by.
        budget: what one execution of it, or one with all that it makes, may spend.
        schedule: when executions of it are made by themselves; see :class:`~outlast.Schedule`.
        every: instead of ``schedule``: the span between two of them.
        cron: instead of ``schedule``: a cron expression.
        tz: with ``cron``: its time zone.
        jitter: with ``every`` or ``cron``: up to so much later.
        overlap: with ``every`` or ``cron``: ``skip``, ``queue``, ``cancel_old`` or ``allow``.
        misfire: with ``every`` or ``cron``: ``skip``, ``last`` or ``all``.
        limit: at most so many at a time: a :class:`~outlast.Limit`, or several.
        rate: at most so many begin in a span of time: a :class:`~outlast.Rate`, or several.
        needs: what an engine must offer to run it, as in ``Engine(capabilities=("gpu",))``.

    Raises:
        UsageError: a limit or rate is none, or two have one name.
        BadSchedule: there is no such schedule, or the task needs arguments.
    """
    if every is not None or cron is not None:
        if schedule is not None:
            raise BadSchedule("schedule= and every= or cron= were given", do="leave one out")
        schedule = Schedule(
            every=every, cron=cron, tz=tz, jitter=jitter, overlap=overlap, misfire=misfire
        )

    def decorate(function: Callable[..., Any]) -> Task[Any, Any]:
        made: Task[Any, Any] = Task(
            function,
            name,
            retries,
            timeout,
            queue,
            priority,
            version,
            retention,
            queue_timeout,
            attempt_timeout,
            schedule,
            labels,
            demand_of(limit, rate, needs, name or function.__name__),
            budget,
        )
        made.pin = pin
        if pin and version is None:
            raise UsageError(
                f"task {made.name} is pinned, but has no version",
                where=made.where,
                do='@task(version="1", pin=True)',
            )
        _register(made)
        return made

    return decorate if fn is None else decorate(fn)


class _TaskDecorator:
    """The type of ``@task(…)``."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Task[P, R]: ...
    def __call__(self, fn: Any, /) -> Any:
        """Make a task of a function."""


@overload
def step(fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncStep[P, R]: ...  # type: ignore[overload-overlap]
@overload
def step(fn: Callable[P, R], /) -> DefStep[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    retries: int | Retry = 0,
    timeout: Duration | None = None,
    deadline: Duration | None = None,
    queue_timeout: Duration | None = None,
    heartbeat: Duration | None = None,
    on: Where = "auto",
    grace: Duration = "5s",
    cost: Mapping[str, Amount] | None = None,
) -> _StepDecorator: ...
def step(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retries: int | Retry = 0,
    timeout: Duration | None = None,
    deadline: Duration | None = None,
    queue_timeout: Duration | None = None,
    heartbeat: Duration | None = None,
    on: Where = "auto",
    grace: Duration = "5s",
    cost: Mapping[str, Amount] | None = None,
) -> Any:
    """Make a step of a function: once its result is recorded, it never runs again.

    Args:
        fn: the function, where the decorator is used without parentheses.
        name: its name in the log; by default the function's name.
        retries: how often it is tried again after a failure, a number or a :class:`Retry`.
        timeout: how long one attempt may take; then it fails as :class:`StepTimeout`.
        deadline: how long all attempts together may take, back-offs included, from the call on;
            then the step fails as :class:`StepDeadline`, whatever its retries.
        queue_timeout: how long it may wait for a thread or process; then it fails as
            :class:`StepQueueTimeout`, whatever its retries.
        heartbeat: how long the body may go without calling :func:`outlast.heartbeat`; then the
            attempt fails as :class:`HeartbeatLost`.
        on: where it runs. "auto" is the engine's process, a ``def`` step in a thread of it;
            "process" a process that can be stopped, for ``def`` steps; "remote" another machine,
            whose worker takes it from a server (where no server has the execution: as "auto").
        grace: how long a coroutine or process may take to clean up when it is stopped.
        cost: what an attempt costs, by meter, as ``{"usd": 0.05}``: set aside before it starts, and
            charged unless the body says otherwise by :func:`outlast.spend`.

    Raises:
        UsageError: an ``async def`` function cannot run in a process; there is no such place.
    """
    if on not in get_args(Where):
        raise UsageError(
            f'no step runs on "{on}"', do='write on="process" or on="remote", or leave it out'
        )
    costs = None if cost is None else amounts_of(cost, "cost")
    limits = limits_of(span(queue_timeout), span(timeout), span(heartbeat), span(deadline))

    def decorate(function: Callable[..., Any]) -> _Step[Any, Any]:
        kind = AsyncStep if inspect.iscoroutinefunction(function) else DefStep
        if kind is AsyncStep and on == "process":
            raise UsageError(
                f"{function.__qualname__} is async def and cannot run in a process",
                do="make it def: it has the process for itself, and may block",
            )
        made: _Step[Any, Any] = kind(
            function, name, retries, limits, microseconds(grace), on, costs
        )
        if on == "remote":
            REMOTE_STEPS[made.name] = made
        return made

    return decorate if fn is None else decorate(fn)


class _StepDecorator:
    """The type of ``@step(…)``."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # an async def is also a def that returns a coroutine
        self, fn: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncStep[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> DefStep[P, R]: ...
    def __call__(self, fn: Any, /) -> Any:
        """Make a step of a function."""


__all__ = [
    "REMOTE_STEPS",
    "TASKS",
    "AsyncStep",
    "DefStep",
    "Retry",
    "StartOptions",
    "StepCall",
    "Task",
    "TaskWithOptions",
    "step",
    "task",
]
