"""The replay machine of ``def`` tasks: their code runs in a thread of its own and blocks at calls.

It is sequential: at any time there is at most one open call, but where it fans out (``fan.py``).
The engine's loop and the thread take turns: the thread makes a call and waits; the loop delivers an
outcome and the thread goes on. "Quiet" means the thread waits at a call, or has ended; every change
of turn is told to the loop.

Theory of operation. All state belongs to whoever's turn it is, so there is no lock but the
hand-over itself: ``_turn`` is a binary semaphore that the loop releases, and the thread tells the
loop by ``call_soon_threadsafe``. Parking raises a private BaseException out of the blocked call;
from then on every further call of that thread raises it again, records nothing and starts nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import random
import sys
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from outlast.engine.replay.cleanup import has_clean_up_above
from outlast.engine.replay.scope import Call, Mismatch, Outcome, Timer
from outlast.engine.task.change import Changes
from outlast.engine.task.current import current_scope
from outlast.engine.task.fan import Request
from outlast.engine.task.note import Note
from outlast.errors import UsageError
from outlast.naming import checked_name

_REFUSALS_MAX: Final = 100


class ParkedThread(BaseException):
    """Unwinds the thread of a parked execution; not for user code to catch."""


class _Fan(Struct):
    """Many calls that the thread waits for at once."""

    limit: int
    collects: bool
    waiting: deque[Call]
    ends: dict[str, tuple[Any, BaseException | None]]


class ThreadScope:
    """One execution's code in a thread, with the interface of ``replay.scope.Scope``."""

    is_async = False
    slot: int | None = None
    speaker: Any = None

    def __init__(
        self,
        main: Callable[[], Any],
        *,
        seed: bytes,
        threads: Executor,
        on_quiet: Callable[[], None],
    ) -> None:
        self._main = main
        self._threads = threads
        self._on_quiet = on_quiet
        self._loop = asyncio.get_running_loop()
        self._turn = threading.Semaphore(0)
        self._now = 0
        self._quiet = True
        self._closed = False
        self._refused = 0
        self._ended = False
        self._new: list[Call] = []
        self._open: dict[str, Call] = {}
        self._broken_off: list[Call] = []
        self._counts: dict[str, int] = {}
        self._keys: set[str] = set()
        self._timers = 1
        self._timer: Timer | None = None
        self._timed_out: Call | None = None
        self._abandoned: list[Call] = []
        self._answers: dict[str, Any] = {}
        self._signals: dict[str, deque[Any]] = {}
        self._cancelled = False
        self._child_ends: dict[str, Outcome] = {}
        self._fan: _Fan | None = None
        self._thread_number: int | None = None
        self.dropped: set[str] = set()
        self._value: Any = None
        self._error: BaseException | None = None
        self._body: Callable[[], Any] | None = None
        self._body_future: asyncio.Future[Any] | None = None
        self.was_cancelled = False
        self.changes = Changes()
        self.notes: list[Note] = []
        self.random = random.Random(seed)
        self.result: Any = None
        self.exception: BaseException | None = None

    # The loop's side

    def begin(self, at: int) -> None:
        """Start the code at this instant."""
        self._now = at
        self._quiet = False
        context = contextvars.copy_context()
        self._threads.submit(context.run, self._run)

    def deliver(self, outcome: Outcome) -> None:
        """Give the code its next outcome; it goes on in its thread if that is what it waits for."""
        self._now = max(self._now, outcome.at)
        kind, key = outcome.kind, outcome.key
        if self._ended and kind in ("step", "timer"):
            raise Mismatch(outcome, None)
        if kind == "cancel":
            self._cancelled = True
            self._break_off()
            self.was_cancelled = True
            if self._open or self._timer is not None:
                self._timer = None
                self._abandoned += [c for c in self._open.values() if c.kind == "ask"]
                self._drop_children()
                self._go_on(None, asyncio.CancelledError())
        elif kind == "input":
            assert key is not None
            call = self._open.get(key)
            if call is not None:
                self._go_on(outcome.value, None)
            else:
                self._answers.setdefault(key, outcome.value)
        elif kind == "signal":
            assert key is not None
            waiting = next(
                (c for c in self._open.values() if c.kind == "event" and c.name == key), None
            )
            if waiting is None or not self._offer(waiting, outcome.value):
                self._signals.setdefault(key, deque()).append(outcome.value)
        elif kind == "timer":
            timer = self._timer
            if (
                timer is None
                or key != f"timer#{timer.number}"
                or outcome.digest != timer.deadline_at
            ):
                raise Mismatch(outcome, self.wanted())
            self._timer = None
            self._timed_out = next(iter(self._open.values()), None)
            self._go_on(_TIMER, None)
        elif kind == "child":
            assert key is not None
            self._deliver_child(key, outcome)
        elif kind == "step":
            assert key is not None
            call = self._open.get(key)
            if call is None or call.digest != outcome.digest:
                raise Mismatch(outcome, self.wanted())
            self._settle(call, outcome.value, outcome.error)

    def _deliver_child(self, key: str, outcome: Outcome) -> None:
        """Give a call what its child came to; one of an earlier try is kept until it is called."""
        call = self._open.get(key)
        if call is not None and outcome.digest in (None, call.digest):
            self._settle(call, *call.payload.come_to(outcome.value))
        elif key in self.dropped or self._ended:
            return
        elif outcome.digest is not None:
            raise Mismatch(outcome, self.wanted())
        else:
            self._child_ends.setdefault(key, outcome)

    def _settle(self, call: Call, value: Any, error: BaseException | None) -> None:
        """Give a call its outcome; the thread goes on once all that it waits for is there."""
        fan = self._fan
        if fan is None:
            self._go_on(value, error)
            return
        del self._open[call.key]
        fan.ends[call.key] = (value, error)
        if error is not None and not fan.collects:
            self._break_off()
            self._drop_children()
            self._go_on(None, None)
        elif not self._open_more(fan):
            self._go_on(None, None)

    def _open_more(self, fan: _Fan) -> bool:
        """Open as many of the calls as may be under way; gives whether any is."""
        while fan.waiting and len(self._open) < fan.limit:
            call = fan.waiting.popleft()
            end = self._child_ends.get(call.key) if call.kind == "child" else None
            if end is not None and end.value.digest == call.digest:
                del self._child_ends[call.key]
                fan.ends[call.key] = call.payload.come_to(end.value)
            else:
                self._open[call.key] = call
                self._new.append(call)
        return bool(self._open)

    @property
    def fans_out(self) -> bool:
        """Whether the thread waits for many calls at once: then it cannot run their bodies."""
        return self._fan is not None

    def _break_off(self) -> None:
        self._broken_off += [
            call for call in self._open.values() if call.kind == "step" and call._taken
        ]

    def _drop_children(self) -> None:
        self.dropped |= {call.key for call in self._open.values() if call.kind == "child"}

    @property
    def unread_signals(self) -> list[Outcome]:
        """The signals that the code has not waited for."""
        return [
            Outcome(0, 0, "signal", name, value=value)
            for name, values in self._signals.items()
            for value in values
        ]

    def has_clean_up(self) -> bool:
        """Whether the code stands where a cancel would run some of it."""
        frame = sys._current_frames().get(self._thread_number or 0)
        return frame is None or has_clean_up_above(frame, self._run.__code__)

    def run_body(
        self, call: Call, body: Callable[[], Any], loop: asyncio.AbstractEventLoop
    ) -> asyncio.Future[Any]:
        """Run a step's body in this very thread, which waits at its call; gives its outcome."""
        future: asyncio.Future[Any] = loop.create_future()
        self._body, self._body_future = body, future
        self._turn.release()
        return future

    def take_calls(self) -> list[Call]:
        """Give the calls made since the last time."""
        made, self._new = self._new, []
        taken = [call for call in made if call.key in self._open]
        for call in taken:
            call._taken = True
        return taken

    def take_abandoned(self) -> list[Call]:
        """Give the calls that nobody awaits any more, since the last time."""
        abandoned, self._abandoned = self._abandoned, []
        return self.take_broken_off() + abandoned

    def take_broken_off(self) -> list[Call]:
        """Give the steps that a cancel broke off, since the last time; also while it is busy."""
        broken_off, self._broken_off = self._broken_off, []
        return broken_off

    @property
    def open_calls(self) -> Mapping[str, Call]:
        """The call that the thread waits at, if any."""
        return self._open

    def next_timer(self) -> Timer | None:
        """Give the timer that the thread waits for, if any."""
        return self._timer

    @property
    def is_quiet(self) -> bool:
        """Whether the thread waits at a call, or has ended."""
        return self._quiet

    @property
    def finished(self) -> bool:
        """Whether the code has returned or raised."""
        return self._ended

    def stuck_description(self) -> str:
        """Say where the code stands."""
        at = self._place()
        return "it waits at " + (", ".join(self._open) or "nothing") + (f" {at}" if at else "")

    def wanted(self) -> list[Call | Timer]:
        """Give everything that the code waits for."""
        return [*self._open.values(), *([self._timer] if self._timer is not None else [])]

    def places(self) -> dict[str, str]:
        """Say for the open call where the code stands that waits for it, by key."""
        place = self._place()
        return dict.fromkeys(self._open, place) if place else {}

    def _place(self) -> str:
        """Find the line of user code at which the thread called into this library."""
        frame = sys._current_frames().get(self._thread_number or 0)
        frames = []
        while frame is not None and not self._ended:
            frames.append(frame)
            frame = frame.f_back
        ours = [one.f_code.co_filename.startswith(_OURS) for one in frames]
        for place in range(len(frames) - 1, 0, -1):  # from the thread's first frame on
            if any(ours[place:]) and not ours[place] and ours[place - 1]:
                code = frames[place].f_code
                return f"in {code.co_qualname}, {code.co_filename}:{frames[place].f_lineno}"
        return ""

    def close(self) -> None:
        """Park: the blocked call raises, inertly; what the code does then is ignored."""
        if not self._closed:
            self._closed = True
            self._on_quiet = _nothing  # it holds what holds this
            self._turn.release()

    def _offer(self, call: Call, value: Any) -> bool:
        """Offer a signal to the call that waits for its event; gives whether it is used up.

        A test that raises fails its call, and the signal stays.
        """
        try:
            accepted = _is_for(value, call.payload)
        except Exception as error:  # noqa: BLE001 - user code
            self._go_on(None, error)
            return False
        if accepted:
            self._go_on(value, None)
        return accepted

    def pass_point(self, at: int, seed: bytes | None) -> int:
        """Go on at another time, as :meth:`outlast.engine.replay.scope.Scope.pass_point`."""
        if seed is not None:
            self.random = random.Random(seed)
        moved_us = max(0, at - self._now)
        self._now += moved_us
        if self._timer is not None:
            self._timer = Timer(self._timer.number, self._timer.deadline_at + moved_us)
        return moved_us

    def _go_on(self, value: Any, error: BaseException | None) -> None:
        self._value, self._error = value, error
        self._open.clear()
        self._quiet = False
        self._turn.release()

    # The thread's side

    def _run(self) -> None:
        current_scope.set(self)
        self._thread_number = threading.get_ident()
        try:
            try:
                self.result = self._main()
            except ParkedThread:
                return
            except BaseException as error:  # noqa: BLE001 - the border of user code
                self.exception = error
        finally:
            self._ended = True
            self._tell()

    def _tell(self) -> None:
        """Hand the turn to the loop."""
        if not self._closed:
            with contextlib.suppress(RuntimeError):  # the loop is closed: so is the engine
                self._loop.call_soon_threadsafe(self._became_quiet)

    def _became_quiet(self) -> None:
        if not self._closed:
            self._quiet = True
            self._on_quiet()

    def call(
        self, kind: str, name: str, digest: int, payload: Any, *, explicit_key: str | None = None
    ) -> Any:
        """Make a durable call and wait for its outcome."""
        self._refuse_if_closed()
        key = self._key(name, explicit_key)
        call = Call(key, kind, name, digest, payload)
        if kind == "ask" and key in self._answers:
            return self._answers.pop(key)
        if kind == "event":
            for place, value in enumerate(self._signals.get(name, ())):
                if _is_for(value, payload):
                    del self._signals[name][place]
                    return value
        if kind == "child" and key in self._child_ends:
            end = self._child_ends[key].value
            if end.digest == digest:
                del self._child_ends[key]
                value, error = payload.come_to(end)
                if error is not None:
                    raise error
                return value
        return self._open_call(call)

    def fan_out(
        self, requests: Iterable[Request], limit: int, collect: bool
    ) -> list[tuple[Any, BaseException | None]]:
        """Make many durable calls, at most ``limit`` at once, and wait for their outcomes.

        Args:
            requests: kind, name, digest and payload of each.
            limit: how many are under way at once.
            collect: wait for all; else the first error ends it, and comes alone.
        """
        self._refuse_if_closed()
        calls = [
            Call(self._key(name, None), kind, name, digest, payload)
            for kind, name, digest, payload in requests
        ]
        fan = self._fan = _Fan(limit, collect, deque(calls), {})
        try:
            if self._open_more(fan):
                self._wait()
        finally:
            self._fan = None
        failed = [end for end in fan.ends.values() if end[1] is not None]
        return failed[:1] if failed and not collect else [fan.ends[call.key] for call in calls]

    def _open_call(self, call: Call) -> Any:
        self._open[call.key] = call
        self._new.append(call)
        return self._wait()

    def sleep(self, span_us: int) -> None:
        """Wait for a timer."""
        self._arm(span_us)
        self._wait()

    def call_until(
        self,
        kind: str,
        name: str,
        digest: int,
        payload: Any,
        span_us: int | None,
        *,
        key: str | None = None,
        next_span: Callable[[], int | None] = lambda: None,
    ) -> Any:
        """Make a durable call and wait for its outcome at most so long.

        Args:
            kind: what it asks for.
            name: of the question or event.
            digest: of the arguments.
            payload: whatever the engine needs to do it.
            span_us: how long, in microseconds; None: for ever.
            key: an identity of the user's.
            next_span: called when the time is up; how much longer to wait, None: no longer. The
                call is handed out again, as what is to be said of it may have changed.

        Raises:
            TimeoutError: the timer fired first.
        """
        if span_us is not None:
            self._arm(span_us)
        try:
            value = self.call(kind, name, digest, payload, explicit_key=key)
            while value is _TIMER:
                call = self._timed_out
                assert call is not None
                span = next_span()
                if span is None:
                    if kind == "ask":
                        self._abandoned.append(call)
                    raise TimeoutError
                self._arm(span)
                value = self._open_call(call)
        finally:
            self._timer = None
        return value

    def changed(self, name: str) -> bool:
        """Say whether this execution has the edit of this name; see :func:`outlast.changed`."""
        self._refuse_if_closed()
        return self.changes.ask(name)

    def note(self, name: str, digest: int, data: dict[str, object], *, whole: bool = False) -> None:
        """Say something in passing, which is recorded once; as ``Scope.note``."""
        if not self._closed:
            key = name if whole else self._key(name, None)
            self.notes.append(Note(key, digest, data))

    def emit(self, name: str, payload: bytes) -> Any:
        """Append to a stream of this execution; see :func:`outlast.stream`."""
        self._refuse_if_closed()
        return self.speaker.emit(name, payload)

    def jot(self, payload: bytes) -> None:
        """Take a line that its code logs; from elsewhere, and once it is over, it is nobody's."""
        if not self._closed:
            self.speaker.jot(payload)

    def is_past(self) -> bool:
        """Tell whether its code says again what it has said before, or is nobody's."""
        return self._closed or self.speaker is None or self.speaker.is_past

    def names(self) -> dict[str, object]:
        """Name what a line of its code is about."""
        return {} if self.speaker is None else self.speaker.names()

    def report(self, done: float, total: float | None, text: str | None) -> Any:
        """Say how far this execution is; see :func:`outlast.progress`."""
        self._refuse_if_closed()
        return self.speaker.report(done, total, text)

    def now(self) -> int:
        """Give the time of the last thing delivered, in microseconds since 1970."""
        return self._now

    def uuid4(self) -> uuid.UUID:
        """Draw a random UUID, the same in every replay."""
        return uuid.UUID(int=self.random.getrandbits(128), version=4)

    def _arm(self, span_us: int) -> None:
        self._refuse_if_closed()
        self._timer = Timer(self._timers, self._now + span_us)
        self._timers += 1

    def _key(self, name: str, explicit_key: str | None) -> str:
        if explicit_key is not None:
            key = f"{name}:{checked_name(explicit_key, 'key')}"
            if key in self._keys:
                raise UsageError(
                    f'the key "{explicit_key}" of {name} is used twice', do="use each key once"
                )
            self._keys.add(key)
            return key
        self._counts[name] = self._counts.get(name, 0) + 1
        return f"{name}#{self._counts[name]}"

    def _wait(self) -> Any:
        """Let the loop have its turn, and run what it asks for, until it brings an outcome."""
        if self._cancelled:
            self._cancelled = False
            self._drop_children()
            self._open.clear()
            self._timer = None
            raise asyncio.CancelledError
        self._tell()
        while True:
            self._turn.acquire()
            self._refuse_if_closed()
            if self._body is None:
                break
            self._run_body()
        value, error = self._value, self._error
        self._value = self._error = None
        if error is not None:
            if isinstance(error, asyncio.CancelledError):
                self._cancelled = False
                self._timer = None
            raise error
        return value

    def _run_body(self) -> None:
        body, future = self._body, self._body_future
        assert body is not None and future is not None
        self._body = self._body_future = None
        try:
            value = body()
        except BaseException as error:  # noqa: BLE001 - the border of user code
            self._loop.call_soon_threadsafe(_set_error, future, error)
        else:
            self._loop.call_soon_threadsafe(_set_value, future, value)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            self._refused += 1
            if self._refused > _REFUSALS_MAX:
                threading.Event().wait()  # code that catches everything is frozen for good
            raise ParkedThread


def _is_for(value: Any, wait: Any) -> bool:
    """Tell whether a signal is for a wait."""
    match = getattr(wait, "match", None)
    return match is None or bool(match(value))


_TIMER: Final = object()
_OURS: Final = str(Path(__file__).parents[2])


def _set_value(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _nothing() -> None:
    """Tell nobody."""


def _set_error(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
