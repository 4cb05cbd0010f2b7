"""The replay machine of ``async def`` tasks: no I/O, no clock, no dice (``architecture.md`` 3a).

Theory of operation. A scope runs the code of one execution on a loop of its own and is driven by
three verbs. :meth:`Scope.begin` runs the code to its first rest; :meth:`Scope.deliver` gives it
exactly one outcome and lets it come to rest again; :meth:`Scope.close` unwinds it. In between the
code stands still, and what it waits for can be read: calls, timers, or nothing (a deadlock).

A call goes ``made`` → ``open`` → ``delivered`` or ``abandoned``. It is *made* where the code calls
a step: there it gets its identity, in the branch that makes it. It is *open* from the moment it is
first awaited, and only open calls are handed out to be started; one that is never awaited never
runs. It is *abandoned* when its waiter was cancelled (a timeout, a failed sibling): the body may be
stopped, and its outcome is not delivered any more.

Because the code is a function of the delivered outcomes, replay and life are the same verbs. In a
replay nobody takes the calls until the log is used up; then :meth:`Scope.take_calls` gives those
that are still open, and they start.

Answers and signals that come before anybody waits stay in a mailbox, itself a function of the log,
and resolve the later call without any further row.

Closing never shows the code a cancel: the scope becomes inert first, then ``_Parked`` is raised in
each branch, youngest first, in its own context. Code that catches everything and tries again is
frozen after 100 refusals and kept for good: the collector would run it, and so would the end of the
process, maybe for ever.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import random
import re
import uuid
from asyncio import _get_running_loop
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from contextvars import Context, copy_context
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar

from msgspec import Struct

from outlast.engine.replay.cleanup import has_clean_up
from outlast.engine.replay.loop import Branch, BranchTask, DeterministicLoop, _Parked, where
from outlast.engine.task.change import Changes
from outlast.engine.task.current import current_scope
from outlast.engine.task.note import Note
from outlast.errors import InternalError, NotDurable, UsageError
from outlast.naming import checked_name

__all__ = [
    "Call",
    "CallKind",
    "CallState",
    "DurableCall",
    "Mismatch",
    "Outcome",
    "Scope",
    "Timer",
    "_Parked",
    "current_scope",
]

T = TypeVar("T")

_current_task: Final = asyncio.current_task
_log: Final = logging.getLogger("outlast.engine")
_graveyard: Final[list[BranchTask]] = []
"""Frozen branches. It has no bound: letting go of one would run its code, which never gives up."""
_unclosed: Final[set[Scope]] = set()
"""Scopes whose code is suspended: a collected one would run its clean-up outside its context."""


class CallKind(StrEnum):
    """What a durable call asks for; the set is open, any word will do."""

    STEP = "step"
    ASK = "ask"
    EVENT = "event"
    CHILD = "child"
    START = "start"


class CallState(StrEnum):
    """Where a durable call is in its life."""

    MADE = "made"
    OPEN = "open"
    DELIVERED = "delivered"
    ABANDONED = "abandoned"


class Call:
    """One durable call, as the engine sees it.

    Attributes:
        key: its identity in the execution: ``charge#2``, in a branch ``1.2/charge#1``, with a key
            of the user's ``charge:order-7``.
        kind: what it asks for; see :class:`CallKind`.
        name: the step, the question or the event.
        digest: stands for its arguments; a replay with another one is a mismatch.
        payload: what the engine needs to do it. For an event it may have an attribute ``match``, a
            predicate on the value of a signal.
        state: see :class:`CallState`.
    """

    __slots__ = ("_taken", "digest", "key", "kind", "name", "payload", "state")

    def __init__(self, key: str, kind: str, name: str, digest: int, payload: Any = None) -> None:
        self.key = key
        self.kind = kind
        self.name = name
        self.digest = digest
        self.payload: Any = payload
        self.state = CallState.MADE
        self._taken = False

    def __repr__(self) -> str:
        return f"<{self.kind} {self.key} {self.state}>"

    def describe(self) -> dict[str, object]:
        """Give its identity as JSON."""
        return {"key": self.key, "kind": self.kind, "name": self.name, "digest": self.digest}


class DurableCall(Call, Coroutine[Any, Any, T]):
    """What task code gets for a durable call: await it once, or give it to a task."""

    __slots__ = ("_future", "_iterator", "_scope", "number")

    def __init__(
        self, key: str, kind: str, name: str, digest: int, payload: Any, scope: Scope, number: int
    ) -> None:
        self.key = key
        self.kind = kind
        self.name = name
        self.digest = digest
        self.payload = payload
        self.state = _MADE
        self._taken = False
        self._scope = scope
        self.number = number
        self._future: _CallFuture | None = None
        self._iterator: Generator[Any, Any, T] | None = None

    def __hash__(self) -> int:
        return self.number

    def __await__(self) -> Generator[Any, Any, T]:
        if self.state is not _MADE:
            raise UsageError(
                f"{self.key} was awaited twice",
                do="keep its result, or share asyncio.create_task(…) of it",
            )
        scope = self._scope
        if scope._closed:
            scope._loop.refuse()
            return _wait_for_ever()
        future = self._future = _CallFuture(loop=scope._loop)
        future.call = self
        self.state = _OPEN
        del scope._made[self.number]
        scope._open[self.key] = self
        if self.kind in _FROM_MAILBOX and scope._resolve_from_mailbox(self):
            return future.__await__()
        scope._fresh.append(self)
        return future.__await__()

    def send(self, value: Any) -> Any:
        """Go on, as a coroutine."""
        iterator = self._iterator
        if iterator is None:
            iterator = self._iterator = self.__await__()
        return iterator.send(value)

    def throw(self, *error: Any) -> Any:
        """Raise an error where the call waits, as a coroutine; nobody waits for it any more."""
        scope = self._scope
        iterator = self._iterator
        if self.state is _OPEN:
            scope._abandon(self)
        if iterator is None:
            self.close()
            iterator = _wait_for_ever()
        return iterator.throw(*error)

    def close(self) -> None:
        """End it, as a coroutine; nobody waits for it any more."""
        if self.state is _OPEN:
            self._scope._abandon(self)
        elif self.state is _MADE:
            self.state = _ABANDONED
            self._scope._made.pop(self.number, None)


class _CallFuture(asyncio.Future[Any]):
    """What the waiter of an open call waits for; cancelling it abandons the call."""

    __slots__ = ("call",)
    call: DurableCall[Any]

    def cancel(self, msg: Any = None) -> bool:
        if not super().cancel(msg):
            return False
        self.call._scope._abandon(self.call)
        return True


class Outcome(Struct):
    """One delivered row of the log.

    Attributes:
        seq: its place in the log.
        at: its time, in microseconds since 1970.
        kind: "start" (only sets the time), "timer", "input" (an answer, by the key of its call),
            "signal" (by the name of its event), "child" (the end of an execution, which its call
            reads), "cancel"; any other is the result of a call.
        key: what it is for.
        digest: the digest of the call's arguments, for a timer its deadline; None is not compared.
        value: what the call gives.
        error: what it raises instead.
    """

    seq: int
    at: int
    kind: str
    key: str | None = None
    digest: int | None = None
    value: Any = None
    error: BaseException | None = None


class Timer(NamedTuple):
    """An armed timer.

    Attributes:
        number: its place in the order of creation, from 1.
        deadline_at: when it shall fire, in microseconds since 1970.
    """

    number: int
    deadline_at: int

    @property
    def key(self) -> str:
        """Its identity in the log."""
        return f"timer#{self.number}"


class Mismatch(Exception):
    """The code did not ask for what the log has next. Nothing was delivered.

    Attributes:
        seq: the row of the log.
        recorded: the row's kind, key, name and digest.
        wanted: the same of everything that the code waits for.
        text: what is the matter, where the two do not say it.
        unfit: what a payload lacks that cannot be read; it may quote it.
    """

    def __init__(
        self,
        outcome: Outcome,
        wanted: Sequence[Call | Timer] | None,
        text: str = "",
        *,
        unfit: str = "",
    ) -> None:
        self.unfit = unfit
        name = re.split("[#:]", outcome.key.rpartition("/")[2])[0] if outcome.key else None
        self.seq = outcome.seq
        self.recorded: dict[str, object] = {
            "key": outcome.key,
            "kind": outcome.kind,
            "name": name,
            "digest": outcome.digest,
        }
        self.wanted = [_described(one) for one in wanted or ()]
        self.text = text
        super().__init__(
            text
            or f"row {self.seq} has {outcome.key}, the code wants "
            + (", ".join(str(one["key"]) for one in self.wanted) or "nothing")
        )


class Scope:
    """The code of one execution, and what it waits for.

    Drive it from a plain callback of the engine's loop, never from inside a task. Always
    :meth:`close` it: a scope that is merely dropped stays in memory.

    Attributes:
        is_quiet: whether the code rests.
        finished: whether the main branch has returned or raised; then the scope is closed, too.
    """

    is_async = True
    was_cancelled = False
    """Whether a body may be under way that the code does not wait for any more."""
    slot: int | None = None
    speaker: Any = None
    """Who takes what the code says of itself: streams and progress."""

    def __init__(self, main: Callable[[], Coroutine[Any, Any, Any]], *, seed: bytes) -> None:
        self._make_main = main
        self._seed = seed
        self._random: random.Random | None = None
        self._loop: DeterministicLoop = DeterministicLoop(prepare=self._enter)  # type: ignore[abstract]
        self._main: BranchTask | None = None
        self._closed = False
        self.is_quiet = True
        self.finished = False
        self._result: Any = None
        self._exception: BaseException | None = None
        self._call_count = 0
        self._made: dict[int, DurableCall[Any]] = {}
        self._open: dict[str, Call] = {}
        self._fresh: list[Call] = []
        self._abandoned: list[Call] = []
        self._explicit: set[str] = set()
        self._answers: dict[str, Outcome] = {}
        self._signals: dict[str, deque[Outcome]] = {}
        self._listeners: dict[str, dict[str, DurableCall[Any]]] = {}
        self.changes = Changes()
        self._child_ends: dict[str, Outcome] = {}
        self.dropped: set[str] = set()
        self.unread_signals: list[Outcome] = []
        self.notes: list[Note] = []
        self.never_awaited: list[str] = []

    # The engine's side

    def begin(self, at: int) -> None:
        """Run the code from its first line until it rests.

        Args:
            at: the time of the row that says so, in microseconds since 1970.
        """
        if self._main is not None or self._closed:
            raise InternalError("a scope was begun twice")
        self._loop.now_us = at
        context = copy_context()
        self._enter(context)
        self._main = self._loop.create_main(context.run(self._make_main), context)
        _unclosed.add(self)
        self._run()

    def deliver(self, outcome: Outcome) -> None:
        """Give the code its next outcome and run it until it rests.

        Raises:
            Mismatch: the code does not wait for it, or calls with other arguments; nothing changed.
        """
        kind, key = outcome.kind, outcome.key
        if kind in _SPECIAL:
            self._deliver_special(outcome)
        elif key is None:
            self._pass_time(outcome)
            return
        else:
            call = self._open.get(key)
            if call is None or (outcome.digest is not None and outcome.digest != call.digest):
                raise Mismatch(outcome, self.wanted())
            if outcome.at > self._loop.now_us:
                self._loop.now_us = outcome.at
            self._resolve(call, outcome.value, outcome.error)
        self._run()

    def take_calls(self) -> list[Call]:
        """Give the calls opened since the last time that are still open, in that order."""
        if not self._fresh:
            return []
        fresh, self._fresh = self._fresh, []
        taken = []
        for call in fresh:
            if call.state is _OPEN:
                call._taken = True
                taken.append(call)
        return taken

    def take_abandoned(self) -> list[Call]:
        """Give the calls that nobody awaits any more, since the last time.

        Of those that nobody has taken there are questions only: a replay has to close them, too.
        """
        if not self._abandoned:
            return []
        abandoned, self._abandoned = self._abandoned, []
        return abandoned

    @property
    def open_calls(self) -> Mapping[str, Call]:
        """The calls that wait for their outcome, by key, in the order of opening."""
        return MappingProxyType(self._open)

    def next_timer(self) -> Timer | None:
        """Give the armed timer that is due first; of equal ones, the first made."""
        if not self._loop._armed:
            return None
        timer = self._loop.next_timer()
        return None if timer is None else Timer(timer.number, timer.deadline_at)

    def due_timers(self, now: int) -> Iterator[Timer]:
        """Give the timers that are due, first things first.

        Deliver each before asking for the next, as it may cancel or arm others; the iteration ends
        at one that was not delivered.
        """
        before = None
        while (timer := self.next_timer()) is not None and timer != before:
            if timer.deadline_at > now:
                return
            yield timer
            before = timer

    def has_clean_up(self) -> bool:
        """Whether the code stands where a cancel would run some of it."""
        return any(has_clean_up(task.get_coro()) for task in self._loop.live_tasks())

    @property
    def is_closed(self) -> bool:
        """Whether the code is gone."""
        return self._closed

    @property
    def stuck(self) -> bool:
        """Whether nothing but a cancel or an early signal can ever wake the code."""
        return not (self.finished or self._closed or self._open) and self.next_timer() is None

    def stuck_description(self) -> str:
        """Say for each branch where it stands."""
        return self._loop.describe_branches()

    def wanted(self) -> list[Call | Timer]:
        """Give everything that the code waits for: its open calls and its next timer."""
        timer = self.next_timer()
        return [*self._open.values(), *([timer] if timer is not None else [])]

    def places(self) -> dict[str, str]:
        """Say for each open call where the code stands that waits for it, by key."""
        return {} if self._closed else self._loop.places()

    @property
    def result(self) -> Any:
        """What the main branch returned; None if it raised or has not ended."""
        return self._result

    @property
    def exception(self) -> BaseException | None:
        """What the main branch raised, maybe a CancelledError; None if it raised nothing so far."""
        return self._exception

    @property
    def longest_seconds(self) -> float:
        """How long the code has held the engine's loop at most."""
        return self._loop.longest_seconds

    @property
    def longest_site(self) -> str:
        """Where the code stood after it held the engine's loop too long, or ""."""
        return self._loop.longest_site

    def close(self) -> None:
        """Unwind the code inertly: nothing that it still does is recorded, started or delivered.

        A closed scope can still be asked how it finished. Closing it again does nothing.
        """
        if self._closed:
            return
        self._closed = True
        loop = self._loop
        loop.close()
        live = loop.live_tasks()
        interrupt: KeyboardInterrupt | None = None
        while live:
            task = live.pop()
            try:
                if not loop.unwind(task):
                    _bury(task)
            except KeyboardInterrupt as error:
                interrupt = error
        _unclosed.discard(self)
        self._main = None
        self.speaker = None
        self._make_main = _gone
        for call in self._open.values():
            call._future = None  # type: ignore[attr-defined]  # they hold each other
        for kept in (
            self._made, self._open, self._answers, self._signals, self._listeners, self._child_ends,
        ):  # fmt: skip
            kept.clear()
        self._fresh.clear()
        self._explicit.clear()
        if interrupt is not None:
            raise interrupt

    # The side of the task's code

    def call(
        self,
        kind: str,
        name: str,
        digest: int,
        payload: Any = None,
        *,
        explicit_key: str | None = None,
    ) -> DurableCall[Any]:
        """Make a durable call: its identity is taken here, it opens when it is awaited.

        Args:
            kind: what it asks for; see :class:`CallKind`.
            name: of the step, question or event.
            digest: of the arguments.
            payload: whatever the engine needs to do it.
            explicit_key: an identity of the user's, unique per branch and name.

        Raises:
            UsageError: the explicit key was used before.
            NotDurable: called from another thread, or in a task that this loop did not make.
        """
        loop = self._loop
        if self._closed:
            loop.refuse()
        if _get_running_loop() is not loop:
            raise NotDurable(
                "a durable call was made outside the execution's own code",
                why="another thread or event loop has inherited its context",
                do="make the call in the task itself",
            )
        task: Any = _current_task(loop)
        branch = task.branch if task.__class__ is BranchTask else self._branch_of(task)
        if explicit_key is None:
            counts = branch.counts
            count = counts[name] = counts.get(name, 0) + 1
            key = f"{branch.prefix}{name}#{count}"
        else:
            key = f"{branch.prefix}{name}:{checked_name(explicit_key, 'key')}"
            if key in self._explicit:
                raise UsageError(
                    f'the key "{explicit_key}" of {name} is used twice', do="use each key once"
                )
            self._explicit.add(key)
        number = self._call_count = self._call_count + 1
        call: DurableCall[Any] = DurableCall(key, kind, name, digest, payload, self, number)
        self._made[number] = call
        return call

    def announce(self, call: Call) -> None:
        """Hand an open call out once more: what is to be said of it has changed."""
        if call.state is _OPEN:
            self._fresh.append(call)

    def changed(self, name: str) -> bool:
        """Say whether this execution has the edit of this name; see :func:`outlast.changed`.

        Raises:
            NotDurable: called from another thread or event loop.
        """
        self._check_here("changed")
        return self.changes.ask(name)

    def emit(self, name: str, payload: bytes) -> Any:
        """Append to a stream of this execution; see :func:`outlast.stream`.

        Raises:
            NotDurable: called from another thread or event loop.
        """
        self._check_here("stream")
        return self.speaker.emit(name, payload)

    def jot(self, payload: bytes) -> None:
        """Take a line that its code logs; from elsewhere, and once it is over, it is nobody's."""
        if not self._closed and _get_running_loop() is self._loop:
            self.speaker.jot(payload)

    def is_past(self) -> bool:
        """Tell whether its code says again what it has said before, or is nobody's."""
        return self._closed or self.speaker is None or self.speaker.is_past

    def names(self) -> dict[str, object]:
        """Name what a line of its code is about."""
        return {} if self.speaker is None else self.speaker.names()

    def report(self, done: float, total: float | None, text: str | None) -> Any:
        """Say how far this execution is; see :func:`outlast.progress`.

        Raises:
            NotDurable: called from another thread or event loop.
        """
        self._check_here("progress")
        return self.speaker.report(done, total, text)

    def _check_here(self, what: str) -> None:
        if self._closed:
            self._loop.refuse()
        if _get_running_loop() is not self._loop:
            raise NotDurable(
                f"{what} was called outside the execution's own code",
                why="another thread or event loop has inherited its context",
                do="call it in the task itself",
            )

    def note(self, name: str, digest: int, data: dict[str, object], *, whole: bool = False) -> None:
        """Say something in passing, which is recorded once; ``spend`` does.

        Args:
            name: what it is known by, with its number in the branch; ``whole``: as it is.
            digest: stands for what it says.
            data: what it says.
            whole: the name is unique already.

        Raises:
            NotDurable: called from another thread or event loop.
        """
        loop = self._loop
        if self._closed:
            return  # the code is unwound: what it says now, it does not mean
        if _get_running_loop() is not loop:
            raise NotDurable(
                f"{name} was called outside the execution's own code",
                why="another thread or event loop has inherited its context",
                do="call it in the task itself",
            )
        key = name
        if not whole:
            branch = self._branch_of(_current_task(loop))
            count = branch.counts[name] = branch.counts.get(name, 0) + 1
            key = f"{branch.prefix}{name}#{count}"
        self.notes.append(Note(key, digest, data))

    def now(self) -> int:
        """Give the time of the last delivered row, in microseconds since 1970."""
        return self._loop.now_us

    @property
    def random(self) -> random.Random:
        """Random numbers, the same in every replay."""
        if self._random is None:
            self._random = random.Random(self._seed)
        return self._random

    def uuid4(self) -> uuid.UUID:
        """Draw a random UUID, the same in every replay."""
        return uuid.UUID(int=self.random.getrandbits(128), version=4)

    def reseed(self, seed: bytes) -> None:
        """Draw from another seed from here on (a fork, at its point)."""
        self._random = random.Random(seed)

    def pass_point(self, at: int, seed: bytes | None) -> int:
        """Go on at another time, with timers that keep what they have left; see ``script.py``.

        Args:
            at: the time it is now; never earlier than before.
            seed: what random numbers come from, from here on; None: from where they did.

        Returns:
            By how much the time was moved, in microseconds.
        """
        if seed is not None:
            self.reseed(seed)
        return self._loop.move_time(at)

    # Inside

    def _enter(self, context: Context) -> None:
        context.run(current_scope.set, self)

    def _branch_of(self, task: asyncio.Task[Any] | None) -> Branch:
        if isinstance(task, BranchTask):
            return task.branch
        if task is not None:
            raise NotDurable(
                "a durable call was made in a task that this execution did not make",
                do="make tasks by asyncio.create_task(…)",
            )
        return self._loop.root

    def _run(self) -> None:
        self.is_quiet = False
        try:
            self._loop.run_until_quiet()
        except NotDurable as error:  # it never came to rest, and will not in any replay
            self._exception = error
            self._end()
            return
        finally:
            self.is_quiet = True
        if self._main is not None and self._main.done():
            try:
                self._exception = self._main.exception()
            except asyncio.CancelledError as error:
                self._exception = error
            if self._exception is None:
                self._result = self._main.result()
            self._end()

    def _end(self) -> None:
        """Let go of what the main branch left behind: nobody waits for its open calls."""
        self.finished = True
        self.never_awaited = [call.key for call in self._made.values()]
        self.unread_signals = [one for signals in self._signals.values() for one in signals]
        for call in list(self._open.values()):
            call.state = _ABANDONED
            if call._taken:
                self._abandoned.append(call)
            if call.kind == "child":
                self.dropped.add(call.key)
        self.close()

    def _pass_time(self, outcome: Outcome) -> None:
        if self._main is None and not self._closed:
            raise InternalError("an outcome was delivered before the scope was begun")
        if self._closed and not self.finished:
            raise InternalError("an outcome was delivered to a closed scope")
        if outcome.at > self._loop.now_us:
            self._loop.now_us = outcome.at

    def _deliver_special(self, outcome: Outcome) -> None:
        kind, key = outcome.kind, outcome.key
        if kind == "timer":
            number = (key or "").removeprefix("timer#")
            timer = self._loop.armed_timer(int(number)) if number.isdecimal() else None
            if timer is None or outcome.digest not in (None, timer.deadline_at):
                raise Mismatch(outcome, self.wanted())
            self._pass_time(outcome)
            self._loop.fire(timer)
            return
        self._pass_time(outcome)
        if self.finished:
            if kind == "signal":
                self.unread_signals.append(outcome)  # for the execution as which it goes on
            return
        if kind == "cancel":
            assert self._main is not None
            self._main.cancel()
        elif kind == "input":
            assert key is not None
            call = self._open.get(key)
            if call is not None:
                self._resolve(call, outcome.value, outcome.error)
            else:
                self._answers.setdefault(key, outcome)
        elif kind == "child":
            assert key is not None
            self._deliver_child(key, outcome)
        elif kind == "signal":
            assert key is not None
            for listener in list(self._listeners.get(key, {}).values()):
                if self._offer(listener, outcome):
                    return
            self._signals.setdefault(key, deque()).append(outcome)

    def _deliver_child(self, key: str, outcome: Outcome) -> None:
        """Give a call what its child came to; one of an earlier try is kept until it is called."""
        call = self._open.get(key)
        if call is not None and outcome.digest in (None, call.digest):
            self._resolve(call, *call.payload.come_to(outcome.value))
        elif key in self.dropped:
            return
        elif outcome.digest is not None:
            raise Mismatch(outcome, self.wanted())
        else:
            self._child_ends.setdefault(key, outcome)

    def _resolve(self, call: Call, value: Any, error: BaseException | None) -> None:
        """Let an open call give a value or raise an error."""
        future: asyncio.Future[Any] = call._future  # type: ignore[attr-defined]
        del self._open[call.key]
        call._future = None  # type: ignore[attr-defined]
        call.state = _DELIVERED
        if call.kind == "event":
            self._unlisten(call)
        if error is None:
            future.set_result(value)
        elif isinstance(error, StopIteration):
            future.set_exception(RuntimeError(f"the call raised {error!r}"))
        else:
            future.set_exception(error)

    def _resolve_from_mailbox(self, call: DurableCall[Any]) -> bool:
        """Give a call that opens what came for it before, if anything did."""
        if call.kind == "ask":
            answer = self._answers.pop(call.key, None)
            if answer is not None:
                self._resolve(call, answer.value, answer.error)
            return answer is not None
        if call.kind == "child":
            end = self._child_ends.get(call.key)
            if end is None or end.value.digest != call.digest:
                return False
            del self._child_ends[call.key]
            self._resolve(call, *call.payload.come_to(end.value))
            return True
        self._listeners.setdefault(call.name, {})[call.key] = call
        signals = self._signals.get(call.name)
        for signal in list(signals or ()):
            if self._offer(call, signal):
                assert signals is not None
                signals.remove(signal)
                return True
            if call.state is not _OPEN:
                return True
        return False

    def _offer(self, call: DurableCall[Any], signal: Outcome) -> bool:
        """Offer a signal to a call that waits for its event; gives whether it is used up.

        A predicate that raises fails its call, and the signal goes on to the next one.
        """
        match = getattr(call.payload, "match", None)
        if callable(match):
            try:
                accepted = bool(match(signal.value))
            except Exception as error:  # noqa: BLE001 - user code
                self._resolve(call, None, error)
                return False
            if not accepted:
                return False
        self._resolve(call, signal.value, signal.error)
        return True

    def _unlisten(self, call: Call) -> None:
        listeners = self._listeners.get(call.name)
        if listeners is not None:
            listeners.pop(call.key, None)
            if not listeners:
                del self._listeners[call.name]

    def _abandon(self, call: DurableCall[Any]) -> None:
        """Note that nobody awaits an open call any more."""
        if self._closed or call.state is not _OPEN:
            return
        call.state = _ABANDONED
        call._future = None
        del self._open[call.key]
        if call.kind == "event":
            self._unlisten(call)
        elif call.kind == "child":
            self.dropped.add(call.key)
        if call._taken or call.kind == "ask":
            self._abandoned.append(call)


def _described(one: Call | Timer) -> dict[str, object]:
    if isinstance(one, Timer):
        return {"key": one.key, "kind": "timer", "name": "timer", "digest": one.deadline_at}
    return one.describe()


def _wait_for_ever() -> Generator[Any, Any, Any]:
    """Freeze the frame that waits for this."""
    loop = _get_running_loop()
    if loop is not None and not isinstance(loop, DeterministicLoop):
        yield from loop.create_future()  # a stray task of the engine's loop; it must not spin
    while True:
        yield


def _bury(task: BranchTask) -> None:
    """Keep a frozen branch for good."""
    _graveyard.append(task)
    _leak(task)
    _log.warning(
        "the code of a parked execution catches BaseException and goes on; its memory is kept: "
        "branch %s %s",
        task.get_name(),
        where(task.get_coro()),
    )


def _leak(task: BranchTask) -> None:
    """Keep a task even from the end of the process, which collects what modules hold."""
    import ctypes  # seldom needed, and slow to import

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(task))


@atexit.register
def _leak_the_unclosed() -> None:
    """Keep code that no engine has closed from running outside its execution at the very end."""
    for scope in list(_unclosed):
        for task in scope._loop.live_tasks():
            _leak(task)


def _gone() -> Coroutine[Any, Any, Any]:
    raise InternalError("a closed scope was begun")


_MADE: Final = CallState.MADE
_OPEN: Final = CallState.OPEN
_DELIVERED: Final = CallState.DELIVERED
_ABANDONED: Final = CallState.ABANDONED
_FROM_MAILBOX: Final = frozenset({"ask", "event", "child"})
_SPECIAL: Final = frozenset({"start", "timer", "input", "signal", "child", "cancel"})
