"""What task code calls besides its steps: sleep, ask, wait_for, now, random, uuid4.

These are for ``async def`` tasks; :mod:`outlast.blocking` has the same for ``def`` ones.
"""

from __future__ import annotations

import asyncio
import random as random_module
import uuid
from collections.abc import Coroutine, Mapping
from datetime import datetime
from typing import Any, Final, Literal, TypeVar, overload

from outlast.codec import codec_for
from outlast.duration import Duration, in_words, instant, microseconds
from outlast.engine.replay.scope import Scope
from outlast.engine.task.current import StepInfo, current_scope, current_step, the_scope
from outlast.engine.task.question import Escalation, Question, question_of
from outlast.engine.task.signal import Match, Signal
from outlast.errors import BadPayload, OutsideExecution, WaitTimeout, WrongColour
from outlast.naming import checked_name

T = TypeVar("T")
_NOTHING: Final[Any] = object()
_ANYTHING: Final = codec_for(Any)
DETAILS_BYTES_MAX: Final = 64 * 1024
"""The largest details of a heartbeat."""


def _async_scope(what: str) -> Scope:
    scope = the_scope(what)
    if not isinstance(scope, Scope):
        raise WrongColour(
            f"{what} of async def tasks was called in a def task",
            do=f"from outlast.blocking import {what}",
        )
    return scope


async def sleep(duration: Duration) -> None:
    """Wait so long, surviving every restart; a long wait holds no thread and no memory.

    Raises:
        OutsideExecution: no execution runs here.
    """
    _async_scope("sleep")
    await asyncio.sleep(microseconds(duration) / 1e6)


@overload
def ask(
    title: str,
    form: type[T],
    *,
    to: str | None = None,
    timeout: Duration | None = None,
    default: T = ...,
    on_timeout: Literal["escalate"] | None = None,
    escalate_to: Escalation | None = None,
    key: str | None = None,
) -> Coroutine[Any, Any, T]: ...
@overload
def ask(
    title: str,
    *,
    to: str | None = None,
    timeout: Duration | None = None,
    default: bool = ...,
    on_timeout: Literal["escalate"] | None = None,
    escalate_to: Escalation | None = None,
    key: str | None = None,
) -> Coroutine[Any, Any, bool]: ...
@overload
def ask(
    title: str,
    form: Mapping[str, Any],
    *,
    to: str | None = None,
    timeout: Duration | None = None,
    default: Any = ...,
    on_timeout: Literal["escalate"] | None = None,
    escalate_to: Escalation | None = None,
    key: str | None = None,
) -> Coroutine[Any, Any, Any]: ...
def ask(
    title: str,
    form: Any = bool,
    *,
    to: str | None = None,
    timeout: Duration | None = None,
    default: Any = _NOTHING,
    on_timeout: Literal["escalate"] | None = None,
    escalate_to: Escalation | None = None,
    key: str | None = None,
) -> Coroutine[Any, Any, Any]:
    """Ask a person or an outside system, and wait for the answer; await it.

    Whoever answers first answers it, whomever it is put to. An answer is compared with the form
    before it is taken. One that fits the form's JSON Schema and that the form itself refuses all
    the same (a validator of yours) is kept in the log, and the question is asked anew, saying why.

    Args:
        title: the question.
        form: the type of the answer: bool, str, a dataclass, a pydantic model …; or a JSON Schema.
        to: who shall answer.
        timeout: how long to wait; where it escalates, how long it is up to each one in turn.
        default: what it gives when nobody answered in time.
        on_timeout: ``"escalate"``: put the same question to the next one when the time has passed.
        escalate_to: who that is; several in turn, and ``("role:boss", "1d")`` for one with a time
            of its own. By default everybody.
        key: its name, instead of its number in the branch; unique there.

    Raises:
        WaitTimeout: nobody answered in time, and there is no default.
        UsageError: the escalation makes no sense, or the key was used before.
        BadPayload: the form has no JSON Schema.
        OutsideExecution: no execution runs here.
    """
    scope = _async_scope("ask")
    question = question_of(title, form, to, timeout, on_timeout, escalate_to)
    call = scope.call("ask", "ask", question.digest, question, explicit_key=key)
    return _answered(scope, call, question, key, default)


async def _answered(
    scope: Scope, call: Any, question: Question, key: str | None, default: Any
) -> Any:
    patience = _Patience(scope, question)
    try:
        async with asyncio.timeout(None) as limit:
            patience.begin(call, limit)
            while True:
                try:
                    return question.answer.decode(await call, name="answer")
                except BadPayload as refused:
                    again = question.ask_anew(refused, key)
                call = scope.call("ask", "ask", question.digest, question, explicit_key=again)
                patience.call = call
    except TimeoutError:
        if not limit.expired():
            raise
        if default is not _NOTHING:
            return default
        raise unanswered(question) from None
    finally:
        patience.end()


class _Patience:
    """Puts a question to the next one each time that nobody has answered, and ends the wait."""

    def __init__(self, scope: Scope, question: Question) -> None:
        self._scope, self._question = scope, question
        self._timer: asyncio.TimerHandle | None = None
        self.call: Any = None

    def begin(self, call: Any, limit: asyncio.Timeout) -> None:
        self.call, self._limit = call, limit
        self._loop = asyncio.get_running_loop()
        self._arm(self._question.begin(self._scope.now()))

    def _arm(self, span_us: int | None) -> None:
        if span_us is None:
            return
        if self._question.is_last:
            self._limit.reschedule(self._loop.time() + span_us / 1e6)
        else:
            self._timer = self._loop.call_later(span_us / 1e6, self._next)

    def _next(self) -> None:
        self._timer = None
        self._arm(self._question.escalate(self._scope.now()))
        self._scope.announce(self.call)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def unanswered(question: Question) -> WaitTimeout:
    """Make the error of a question that nobody answered in time."""
    spans = (turn.patience_us or 0 for turn in question.turns)
    said = in_words(sum(spans))
    return WaitTimeout(f'nobody answered "{question.title}" within {said}', do="give a default")


@overload
def wait_for(
    name: str, form: type[T], *, match: Match | None = None, timeout: Duration | None = None
) -> Coroutine[Any, Any, T]: ...
@overload
def wait_for(
    name: str, *, match: Match | None = None, timeout: Duration | None = None
) -> Coroutine[Any, Any, Any]: ...
def wait_for(
    name: str, form: Any = Any, *, match: Match | None = None, timeout: Duration | None = None
) -> Coroutine[Any, Any, Any]:
    """Wait for a signal of this name, also one that came before; await it.

    The oldest signal that fits is taken. Others stay, for other waits.

    Args:
        name: of the signal.
        form: the type of its value.
        match: which signals it is for: a mapping that the value must contain (fields of objects,
            at any depth; all else must be equal), or a function of the value that says so. The
            function is called again in replays: it must depend on nothing but the value.
        timeout: how long to wait.

    Raises:
        WaitTimeout: none came in time.
        BadPayload: the signal that came does not have the form. It is taken: wait again for the
            next one. A function is only asked about values that have the form; others stay.
        OutsideExecution: no execution runs here.
    """
    scope = _async_scope("wait_for")
    signal = Signal(name, form, match)
    call = scope.call("event", name, signal.digest, signal)
    return _signalled(scope, call, signal, timeout)


async def _signalled(scope: Scope, call: Any, signal: Signal, timeout: Duration | None) -> Any:
    if timeout is None:
        return signal.read(await call)
    span_us = microseconds(timeout)
    signal.until = scope.now() + span_us
    try:
        async with asyncio.timeout(span_us / 1e6) as limit:
            return signal.read(await call)
    except TimeoutError:
        if not limit.expired():
            raise
        raise unsignalled(signal, timeout) from None


def unsignalled(signal: Signal, timeout: Duration) -> WaitTimeout:
    """Make the error of a signal that did not come in time."""
    return WaitTimeout(f'no signal "{signal.name}" came within {timeout}')


def changed(name: str) -> bool:
    """Tell whether this execution has an edit of the task's code; else it goes on as before.

    Put it around an edit of code that open executions may have passed: ``if changed("mailer"):``
    the new code, else the old. It is True for an execution that comes to the call first with the
    edit in it, and that is recorded; False for one whose history shows that it has passed the place
    without. For one execution and one name it is always the same: in loops, in all branches, in
    every replay. The call is the same in ``async def`` and ``def`` tasks and is not awaited.

    Args:
        name: of the edit; use it for one edit only. Once no open execution is from before the edit,
            the call and the old code can be taken out (``outlast check`` tells).

    Raises:
        OutsideExecution: no execution runs here.
        UsageError: the name is empty or too long.
    """
    return the_scope("changed").changed(checked_name(name, "name of the change"))


def now() -> datetime:
    """Give the time, the same in every replay: that of the last thing this execution learned.

    Raises:
        OutsideExecution: no execution runs here.
    """
    return instant(the_scope("now").now())


def slot() -> datetime | None:
    """Give the slot of the schedule that this execution was made for, in UTC; None: for none.

    It is the instant the schedule names, however late the execution was made: what it reports on.

    Raises:
        OutsideExecution: no execution runs here.
    """
    at = the_scope("slot").slot
    return None if at is None else instant(at)


def random() -> random_module.Random:
    """Give this execution's random numbers, the same in every replay.

    Raises:
        OutsideExecution: no execution runs here.
    """
    dice: random_module.Random = the_scope("random").random  # type: ignore[attr-defined]
    return dice


def uuid4() -> uuid.UUID:
    """Draw a random UUID, the same in every replay.

    Raises:
        OutsideExecution: no execution runs here.
    """
    drawn: uuid.UUID = the_scope("uuid4").uuid4()  # type: ignore[attr-defined]
    return drawn


def this_step() -> StepInfo:
    """Say which step's body is running: its execution, attempt and idempotency key.

    Raises:
        OutsideExecution: no step's body runs here.
    """
    body = current_step.get()
    if body is None:
        raise OutsideExecution("this_step was called outside a step's body")
    return body.info()


def heartbeat(details: object = None) -> None:
    """Say that this step's body is alive, and how far it is.

    What it says is shown to whoever looks at the execution, and given to the next attempt as
    ``this_step().last_heartbeat``, also after a crash; it is written down about once a second, so
    it may be called as often as you like. Outside an execution it does nothing.

    Args:
        details: anything JSON carries, at most 64 KiB; None leaves what was said before.

    Raises:
        OutsideExecution: it was called in a task's own code, not in a step.
        BadPayload, PayloadTooLarge: JSON cannot carry the details, or they are too large.
        CancelledError: nobody awaits this attempt any more; stop.
    """
    body = current_step.get()
    if body is None:
        if current_scope.get() is not None:
            raise OutsideExecution(
                "heartbeat was called in a task's own code", do="call it in the body of a step"
            )
        return
    body.beat(
        None
        if details is None
        else _ANYTHING.encode(details, bytes_max=DETAILS_BYTES_MAX, name="details")
    )
