"""One call for each of many items: at most so many at once, the results in the order of the items.

Identity is taken in the order of the items, in the branch that fans out, so it does not depend on
which of them is quicker. Each call is an ordinary one: recorded by itself, tried again by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, Literal, Protocol

from outlast.engine.task.current import AnyScope
from outlast.errors import UsageError

OnError = Literal["raise", "collect"]
"""What an error of one call does: ``raise`` gives the others up and raises it; ``collect`` lets all
come to their end and puts errors where their results would be."""
LIMIT: Final = 100
"""How many calls are under way at once, where nobody says."""

Request = tuple[str, str, int, Any]
"""What a scope needs to make a call: kind, name, digest, payload."""


class Fanning(Protocol):
    """The scope of a ``def`` task, which waits for many calls at once."""

    def fan_out(
        self, requests: Iterable[Request], limit: int, collect: bool
    ) -> list[tuple[Any, BaseException | None]]:
        """Make the calls and give their outcomes, in order."""


def check(limit: int, on_error: str) -> None:
    """Refuse what makes no sense.

    Raises:
        UsageError: a limit below 1, or another word.
    """
    if limit < 1:
        raise UsageError(f"at most {limit} at once is none at all", do="give a limit of 1 or more")
    if on_error not in ("raise", "collect"):
        raise UsageError(f'no such policy: "{on_error}"', do="raise, or collect")


def in_thread(scope: Fanning, requests: Iterable[Request], limit: int, on_error: OnError) -> Any:
    """Fan out in a ``def`` task."""
    check(limit, on_error)
    results = []
    for value, error in scope.fan_out(requests, limit, on_error == "collect"):
        if error is not None and on_error == "raise":
            raise error
        results.append(value if error is None else error)
    return results


async def on_loop(
    scope: AnyScope, requests: Iterable[Request], limit: int, on_error: OnError
) -> list[Any]:
    """Fan out in an ``async def`` task."""

    def make(request: Request) -> Coroutine[Any, Any, Any]:
        kind, name, digest, payload = request
        call: Coroutine[Any, Any, Any] = scope.call(kind, name, digest, payload)
        return call

    return await _bounded([*requests], make, limit, on_error)


async def plainly(
    fn: Callable[..., Any], items: Iterable[tuple[Any, ...]], limit: int, on_error: OnError
) -> list[Any]:
    """Fan out outside any execution."""
    return await _bounded([*items], lambda item: fn(*item), limit, on_error)


async def _bounded(
    items: list[Any],
    make: Callable[[Any], Coroutine[Any, Any, Any]],
    limit: int,
    on_error: OnError,
) -> list[Any]:
    check(limit, on_error)
    slots = asyncio.Semaphore(limit)
    ends: list[asyncio.Task[Any]] = []

    async def one(call: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await call
        except Exception as error:
            if on_error == "raise":
                raise
            return error
        finally:
            slots.release()

    try:
        async with asyncio.TaskGroup() as group:
            for item in items:
                await slots.acquire()
                ends.append(group.create_task(one(make(item))))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [end.result() for end in ends]
