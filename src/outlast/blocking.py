"""What ``def`` tasks call besides their steps; each call blocks until it has its answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeVar, overload

from outlast.duration import Duration, microseconds
from outlast.engine.primitives.calls import (
    changed,
    now,
    random,
    slot,
    unanswered,
    unsignalled,
    uuid4,
)
from outlast.engine.primitives.emit import progress_in_thread as progress
from outlast.engine.primitives.emit import stream_in_thread as stream
from outlast.engine.primitives.saga import BlockingSaga
from outlast.engine.replay.thread_scope import ThreadScope
from outlast.engine.task.current import the_scope
from outlast.engine.task.question import Escalation, question_of
from outlast.engine.task.signal import Match, Signal
from outlast.errors import BadPayload, WrongColour

__all__ = [
    "ask",
    "changed",
    "now",
    "progress",
    "random",
    "saga",
    "sleep",
    "slot",
    "stream",
    "uuid4",
    "wait_for",
]

T = TypeVar("T")
_NOTHING: Final[Any] = object()


def _thread_scope(what: str) -> ThreadScope:
    scope = the_scope(what)
    if not isinstance(scope, ThreadScope):
        raise WrongColour(
            f"{what} of def tasks was called in an async def task",
            do=f"from outlast import {what}, and await it",
        )
    return scope


def saga() -> BlockingSaga:
    """Begin a block that undoes what it did where it fails or is cancelled.

    Raises (when it is entered):
        OutsideExecution: no execution's code runs here.
    """
    return BlockingSaga()


def sleep(duration: Duration) -> None:
    """Wait so long, surviving every restart; a long wait holds no thread and no memory.

    Raises:
        OutsideExecution: no execution runs here.
    """
    _thread_scope("sleep").sleep(microseconds(duration))


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
) -> T: ...
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
) -> bool: ...
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
) -> Any: ...
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
) -> Any:
    """Ask a person or an outside system, and give the answer; see :func:`outlast.ask`.

    Raises:
        WaitTimeout: nobody answered in time, and there is no default.
        UsageError: the escalation makes no sense, or the key was used before.
        BadPayload: the form has no JSON Schema.
        OutsideExecution: no execution runs here.
    """
    scope = _thread_scope("ask")
    question = question_of(title, form, to, timeout, on_timeout, escalate_to)
    span_us = question.begin(scope.now())

    def escalate() -> int | None:
        return None if question.is_last else question.escalate(scope.now())

    again = key
    while True:
        try:
            payload = scope.call_until(
                "ask", "ask", question.digest, question, span_us, key=again, next_span=escalate
            )
        except TimeoutError:
            if default is not _NOTHING:
                return default
            raise unanswered(question) from None
        try:
            return question.answer.decode(payload, name="answer")
        except BadPayload as refused:
            again = question.ask_anew(refused, key)
        span_us = None if question.until is None else max(0, question.until - scope.now())


def wait_for(
    name: str, form: Any = Any, *, match: Match | None = None, timeout: Duration | None = None
) -> Any:
    """Wait for a signal of this name, also one that came before; see :func:`outlast.wait_for`.

    Raises:
        WaitTimeout: none came in time.
        BadPayload: the signal that came does not have the form; it is taken.
        OutsideExecution: no execution runs here.
    """
    scope = _thread_scope("wait_for")
    signal = Signal(name, form, match)
    if timeout is None:
        return signal.read(scope.call("event", name, signal.digest, signal))
    span_us = microseconds(timeout)
    signal.until = scope.now() + span_us
    try:
        return signal.read(scope.call_until("event", name, signal.digest, signal, span_us))
    except TimeoutError:
        raise unsignalled(signal, timeout) from None
