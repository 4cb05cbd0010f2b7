"""Start a coroutine at once, up to its first wait, instead of at the loop's next turn.

Most step bodies of a busy engine are short, and a turn of asyncio's loop costs more than they do.
Python 3.12 has eager tasks; on 3.11 the same is made of the standard library's own Task written in
Python, whose first step is taken here.

What a future or a task cannot carry (``SystemExit`` would end the loop, ``StopIteration`` is taken
for a mistake) travels inside :class:`Escaped`. A ``KeyboardInterrupt`` in the main thread does end
the loop: it is a person's wish to stop the process, and no outcome of the step.
"""

from __future__ import annotations

import asyncio
import asyncio.tasks
import sys
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Final


def in_main_thread() -> bool:
    """Tell whether a KeyboardInterrupt here may be Ctrl-C: signals reach the main thread only."""
    return threading.get_ident() == threading.main_thread().ident


class Escaped(Exception):
    """Carries what a body raised and no future can."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


async def guarded(body: Coroutine[Any, Any, Any]) -> Any:
    """Run a body's coroutine.

    Raises:
        Escaped: it raised SystemExit, or a KeyboardInterrupt of its own.
    """
    try:
        return await body
    except SystemExit as error:
        raise Escaped(error) from None
    except KeyboardInterrupt as error:
        if in_main_thread():
            raise
        raise Escaped(error) from None


def guarded_call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a body in a thread.

    Raises:
        Escaped: it raised what no future carries.
    """
    try:
        return function(*args, **kwargs)
    except (StopIteration, SystemExit, KeyboardInterrupt) as error:
        raise Escaped(error) from None


if sys.version_info >= (3, 12):

    def start(
        coroutine: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop, context: Context
    ) -> asyncio.Task[Any]:
        """Make a task of a coroutine and run it up to its first wait.

        Call it from a plain callback of the running loop, never from inside a task.
        """
        return asyncio.Task(coroutine, loop=loop, context=context, eager_start=True)

else:
    _PyTask: Final[Any] = asyncio.tasks._PyTask  # type: ignore[attr-defined]
    _PyFuture: Final[Any] = asyncio.futures._PyFuture  # type: ignore[attr-defined]

    class _EagerTask(_PyTask):  # type: ignore[misc]
        """A task whose first step its maker takes."""

        def __init__(
            self,
            coroutine: Coroutine[Any, Any, Any],
            loop: asyncio.AbstractEventLoop,
            context: Context,
        ) -> None:
            _PyFuture.__init__(self, loop=loop)
            self._name = ""
            self._num_cancels_requested = 0
            self._must_cancel = False
            self._fut_waiter = None
            self._coro = coroutine
            self._context = context

        def get_name(self) -> str:
            """Give its name; made when somebody asks."""
            return self._name or f"outlast-body-{id(self):x}"

    def start(
        coroutine: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop, context: Context
    ) -> asyncio.Task[Any]:
        """Make a task of a coroutine and run it up to its first wait.

        Call it from a plain callback of the running loop, never from inside a task.
        """
        task: Any = _EagerTask(coroutine, loop, context)
        context.run(task._Task__step if hasattr(task, "_Task__step") else task._PyTask__step)
        if not task.done():
            asyncio.tasks._register_task(task)
        eager: asyncio.Task[Any] = task
        return eager
