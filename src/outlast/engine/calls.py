"""What task code calls besides its steps: sleep, ask, wait_for, now, random, uuid4.

These are for ``async def`` tasks; :mod:`outlast.blocking` has the same for ``def`` ones.
"""

from __future__ import annotations

import asyncio
import random as random_module
import uuid
from collections.abc import Coroutine
from datetime import datetime
from typing import Any, Final, TypeVar, overload

import msgspec

from outlast.codec import codec_for, digest
from outlast.duration import Duration, instant, microseconds
from outlast.engine.current import StepInfo, current_step, the_scope
from outlast.engine.question import Question
from outlast.engine.scope import Scope
from outlast.errors import OutsideExecution, WaitTimeout, WrongColour
from outlast.naming import checked_name, checked_text

T = TypeVar("T")
_NOTHING: Final[Any] = object()


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


def question_call(
    scope: Any, title: str, form: Any, to: str | None, timeout: Duration | None
) -> tuple[Question, int]:
    """Make a question and the digest by which a replay recognises it."""
    checked_text(title, "question")
    if to is not None:
        checked_name(to, "recipient")
    until = None if timeout is None else scope.now() + microseconds(timeout)
    question = Question(title, to, codec_for(form), until)
    return question, digest(msgspec.json.encode([title, to, question.answer.json_schema()]))


@overload
def ask(
    title: str,
    form: type[T],
    *,
    to: str | None = None,
    timeout: Duration | None = None,
    default: T = ...,
) -> Coroutine[Any, Any, T]: ...
@overload
def ask(
    title: str,
    *,
    to: str | None = None,
    timeout: Duration | None = None,
    default: bool = ...,
) -> Coroutine[Any, Any, bool]: ...
def ask(
    title: str,
    form: Any = bool,
    *,
    to: str | None = None,
    timeout: Duration | None = None,
    default: Any = _NOTHING,
) -> Coroutine[Any, Any, Any]:
    """Ask a person or an outside system, and wait for the answer; await it.

    Args:
        title: the question.
        form: the type of the answer: bool, str, a dataclass, a pydantic model …
        to: who shall answer.
        timeout: how long to wait.
        default: what it gives when nobody answered in time.

    Raises:
        WaitTimeout: nobody answered in time, and there is no default.
        OutsideExecution: no execution runs here.
    """
    scope = _async_scope("ask")
    question, number = question_call(scope, title, form, to, timeout)
    call = scope.call("ask", "ask", number, question)
    return _answered(call, question, timeout, default)


async def _answered(call: Any, question: Question, timeout: Duration | None, default: Any) -> Any:
    if timeout is None:
        return question.answer.decode(await call)
    try:
        async with asyncio.timeout(microseconds(timeout) / 1e6) as limit:
            return question.answer.decode(await call)
    except TimeoutError:
        if not limit.expired():
            raise
        if default is not _NOTHING:
            return default
        raise unanswered(question, timeout) from None


def unanswered(question: Question, timeout: Duration) -> WaitTimeout:
    """Make the error of a question that nobody answered in time."""
    return WaitTimeout(f'nobody answered "{question.title}" within {timeout}', do="give a default")


@overload
def wait_for(
    name: str, form: type[T], *, timeout: Duration | None = None
) -> Coroutine[Any, Any, T]: ...
@overload
def wait_for(name: str, *, timeout: Duration | None = None) -> Coroutine[Any, Any, Any]: ...
def wait_for(
    name: str, form: Any = Any, *, timeout: Duration | None = None
) -> Coroutine[Any, Any, Any]:
    """Wait for a signal of this name, also one that came before; await it.

    Raises:
        WaitTimeout: none came in time.
        OutsideExecution: no execution runs here.
    """
    scope = _async_scope("wait_for")
    checked_name(name, "signal")
    call = scope.call("event", name, digest(name.encode()), None)
    return _signalled(call, name, form, timeout)


async def _signalled(call: Any, name: str, form: Any, timeout: Duration | None) -> Any:
    codec = codec_for(form)
    if timeout is None:
        return codec.decode(await call)
    try:
        async with asyncio.timeout(microseconds(timeout) / 1e6) as limit:
            return codec.decode(await call)
    except TimeoutError:
        if not limit.expired():
            raise
        raise WaitTimeout(f'no signal "{name}" came within {timeout}') from None


def now() -> datetime:
    """Give the time, the same in every replay: that of the last thing this execution learned.

    Raises:
        OutsideExecution: no execution runs here.
    """
    return instant(the_scope("now").now())


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
    tell = current_step.get()
    if tell is None:
        raise OutsideExecution("this_step was called outside a step's body")
    return tell()
