"""What ``def`` tasks call besides their steps; each call blocks until it has its answer."""

from __future__ import annotations

from typing import Any, Final, TypeVar, overload

from outlast.codec import codec_for, digest
from outlast.duration import Duration, microseconds
from outlast.engine.calls import now, question_call, random, unanswered, uuid4
from outlast.engine.current import the_scope
from outlast.engine.thread_scope import ThreadScope
from outlast.errors import WaitTimeout, WrongColour
from outlast.naming import checked_name

__all__ = ["ask", "now", "random", "sleep", "uuid4", "wait_for"]

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
) -> T: ...
@overload
def ask(
    title: str,
    *,
    to: str | None = None,
    timeout: Duration | None = None,
    default: bool = ...,
) -> bool: ...
def ask(
    title: str,
    form: Any = bool,
    *,
    to: str | None = None,
    timeout: Duration | None = None,
    default: Any = _NOTHING,
) -> Any:
    """Ask a person or an outside system, and give the answer; see :func:`outlast.ask`.

    Raises:
        WaitTimeout: nobody answered in time, and there is no default.
        OutsideExecution: no execution runs here.
    """
    scope = _thread_scope("ask")
    question, number = question_call(scope, title, form, to, timeout)
    if timeout is None:
        return question.answer.decode(scope.call("ask", "ask", number, question))
    try:
        return question.answer.decode(
            scope.call_until("ask", "ask", number, question, microseconds(timeout))
        )
    except TimeoutError:
        if default is not _NOTHING:
            return default
        raise unanswered(question, timeout) from None


def wait_for(name: str, form: Any = Any, *, timeout: Duration | None = None) -> Any:
    """Wait for a signal of this name, also one that came before; see :func:`outlast.wait_for`.

    Raises:
        WaitTimeout: none came in time.
        OutsideExecution: no execution runs here.
    """
    scope = _thread_scope("wait_for")
    number = digest(checked_name(name, "signal").encode())
    if timeout is None:
        return codec_for(form).decode(scope.call("event", name, number, None))
    try:
        return codec_for(form).decode(
            scope.call_until("event", name, number, None, microseconds(timeout))
        )
    except TimeoutError:
        raise WaitTimeout(f'no signal "{name}" came within {timeout}') from None
