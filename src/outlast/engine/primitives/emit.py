"""What code calls to hand something out while it runs: ``stream`` and ``progress``.

The same two functions are for ``async def`` task code and for the bodies of all steps;
:mod:`outlast.blocking` has them for ``def`` task code.
"""

from __future__ import annotations

from typing import Any, Final

from outlast.codec import codec_for
from outlast.engine.task.current import AnyBody, current_scope, current_step
from outlast.engine.write.emitter import DONE, ITEM_BYTES_MAX, Said
from outlast.errors import UsageError, WrongColour
from outlast.naming import checked_name
from outlast.store.protocol import LOGS

_ANYTHING: Final = codec_for(Any)
TEXT_MAX: Final = 500
"""The longest text of a progress."""


def stream(name: str, value: object) -> Said:
    """Append a value to a stream of this execution; await it in ``async def`` code.

    Whoever has a handle reads it within moments, from any place on, and as long as the execution is
    kept. It is not part of the log. In task code the n-th value that is given to a stream is there
    once, whatever is replayed or crashes. A step's body may be tried again: then it says all of it
    again, under another attempt or lease, and readers can tell.

    Once anything that came later is recorded (the result of the step, the next step), it is on the
    disk; else after some milliseconds. In the body of a step it waits while too much is on its way:
    in a thread at once, on the loop where it is awaited. Outside an execution it does nothing.

    Args:
        name: of the stream; there is no need to declare it.
        value: anything JSON carries, at most 256 KiB.

    Raises:
        BadPayload, PayloadTooLarge: JSON cannot carry it, or it is too large.
        WrongColour: it was called in the code of a ``def`` task.
        CancelledError: nobody awaits this attempt of the step any more; stop.
    """
    place = _place("stream", is_async=True)
    payload = encoded(name, value)
    return DONE if place is None else _said(place.emit(name, payload))


def progress(done: float, total: float | None = None, text: str | None = None) -> Said:
    """Say how far this execution is: the latest that was said is shown; await it in task code.

    It may be called as often as you like: it writes nothing into the log, and at most some four
    times a second to the disk. Outside an execution it does nothing.

    Args:
        done: how much is done, in units of your choice.
        total: of how much; None: nobody knows.
        text: a remark; what is longer than 500 characters is cut.

    Raises:
        UsageError: a number is none, or infinite.
        WrongColour: it was called in the code of a ``def`` task.
        CancelledError: nobody awaits this attempt of the step any more; stop.
    """
    place = _place("progress", is_async=True)
    said = checked(done, total, text)
    return DONE if place is None else _said(place.report(*said))


def stream_in_thread(name: str, value: object) -> None:
    """Append a value to a stream, in ``def`` code; see :func:`outlast.stream`.

    It waits while too much is on its way.

    Raises:
        BadPayload, PayloadTooLarge, CancelledError: as there.
        WrongColour: it was called in the code of an ``async def`` task.
    """
    place = _place("stream", is_async=False)
    payload = encoded(name, value)
    if place is not None:
        place.emit(name, payload)


def progress_in_thread(done: float, total: float | None = None, text: str | None = None) -> None:
    """Say how far this execution is, in ``def`` code; see :func:`outlast.progress`.

    Raises:
        UsageError, CancelledError: as there.
        WrongColour: it was called in the code of an ``async def`` task.
    """
    place = _place("progress", is_async=False)
    said = checked(done, total, text)
    if place is not None:
        place.report(*said)


def _place(what: str, *, is_async: bool) -> Any:
    """Give the body or the task code that speaks; None outside an execution."""
    body: AnyBody | None = current_step.get()
    if body is not None:
        return body
    scope = current_scope.get()
    if scope is not None and scope.is_async is not is_async:
        home = "outlast.blocking" if is_async else "outlast"
        colours = ("async def", "def") if is_async else ("def", "async def")
        raise WrongColour(
            f"{what} of {colours[0]} tasks was called in {colours[1]} task code",
            do=f"from {home} import {what}",
        )
    return scope


def encoded(name: str, value: object) -> bytes:
    """Write an item as JSON.

    Raises:
        UsageError: the stream has no proper name.
        BadPayload, PayloadTooLarge: it cannot be written.
    """
    checked_name(name, "name of the stream")
    if name == LOGS:
        raise UsageError(f"no stream of yours can be called {LOGS}", do="give it another name")
    return _ANYTHING.encode(value, bytes_max=ITEM_BYTES_MAX, name="item")


def checked(
    done: float, total: float | None, text: str | None
) -> tuple[float, float | None, str | None]:
    """Give a progress that can be stored.

    Raises:
        UsageError: a number is none, or infinite.
    """
    for number in (done, 0 if total is None else total):
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise UsageError(f"progress is told in numbers, not in {number!r}")
        if not abs(number) < _INFINITE:
            raise UsageError(f"{number!r} is no number to tell progress in")
    return (
        float(done),
        None if total is None else float(total),
        None if text is None else str(text)[:TEXT_MAX],
    )


_INFINITE: Final = 1e300


def _said(said: Said | None) -> Said:
    return DONE if said is None else said


__all__ = ["progress", "progress_in_thread", "stream", "stream_in_thread"]
