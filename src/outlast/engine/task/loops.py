"""What one thread asks of the event loop of another, which may end at any moment."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from concurrent.futures import wait
from typing import Any, Final, TypeVar

from outlast.errors import NoEngine

T = TypeVar("T")
_ENDED: Final = "the thread of this engine has ended"
_REOPEN: Final = "open another one"
LOOK_SECONDS: Final = 1.0
"""How often one who waits for a result looks whether the loop still runs."""


def run_on(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, T],
    has_ended: Callable[[], bool],
) -> T:
    """Run a coroutine on a loop of another thread and give its result here.

    Args:
        loop: it.
        coroutine: is closed where the loop never begins it.
        has_ended: tells that the loop will run nothing more.

    Raises:
        NoEngine: the loop has ended, whatever ended it.
    """
    try:
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    except RuntimeError:  # the loop is closed
        coroutine.close()
        raise NoEngine(_ENDED, do=_REOPEN) from None
    while not wait([future], LOOK_SECONDS).done:
        if has_ended() and not future.done():
            if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                coroutine.close()  # it came between the loop's last turn and its close
            raise NoEngine(_ENDED, do=_REOPEN)
    return future.result()


__all__ = ["run_on"]
