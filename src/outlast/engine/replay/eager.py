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


def _escaped(error: BaseException) -> BaseException:
    """Give an error as a task can carry it; a Ctrl-C stays what it is."""
    if isinstance(error, SystemExit):
        return Escaped(error)
    if isinstance(error, KeyboardInterrupt) and not in_main_thread():
        return Escaped(error)
    return error


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

    async def _guarded(body: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await body
        except (SystemExit, KeyboardInterrupt) as error:
            raise _escaped(error) from None

    def start(
        body: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop, context: Context
    ) -> asyncio.Task[Any]:
        """Make a task of a body's coroutine and run it up to its first wait.

        Call it from a plain callback of the running loop, never from inside a task. The task fails
        as :class:`Escaped` where the body raises SystemExit, or a KeyboardInterrupt of its own.
        """
        return asyncio.Task(_guarded(body), loop=loop, context=context, eager_start=True)

else:
    _PyTask: Final[Any] = asyncio.tasks._PyTask  # type: ignore[attr-defined]
    _enter: Final = asyncio.tasks._enter_task
    _leave: Final = asyncio.tasks._leave_task

    class _Begun:
        """A body's coroutine that has taken its first step: what came of it is still to be told."""

        __slots__ = ("_body", "_error", "_is_told", "_waits_for")

        def __init__(
            self, body: Coroutine[Any, Any, Any], waits_for: Any, error: BaseException | None
        ) -> None:
            self._body = body
            self._waits_for = waits_for
            self._error = error
            self._is_told = False

        def send(self, value: Any) -> Any:
            """Go on, as a coroutine."""
            try:
                if self._is_told:
                    return self._body.send(value)
                self._is_told = True
                waits_for, error = self._waits_for, self._error
                self._waits_for = self._error = None
                if error is not None:
                    raise error
                return waits_for
            except (SystemExit, KeyboardInterrupt) as error:
                raise _escaped(error) from None

        def throw(self, error: BaseException) -> Any:
            """Raise an error where it waits, as a coroutine."""
            try:
                return self._body.throw(error)
            except (SystemExit, KeyboardInterrupt) as raised:
                raise _escaped(raised) from None

    class _EagerTask(_PyTask):  # type: ignore[misc]
        """A task whose first step its maker takes.

        A body that ends with that step, as most do, is done with it: the rest of a task's machinery
        is for those that wait.
        """

        _name = ""
        _num_cancels_requested = 0
        _must_cancel = False
        _fut_waiter = None

        def __init__(
            self,
            body: Coroutine[Any, Any, Any],
            loop: asyncio.AbstractEventLoop,
            context: Context,
        ) -> None:
            self._loop = loop
            self._callbacks: list[Any] = []
            self._coro: Any = body
            self._context = context

        def __del__(self) -> None:
            if self._exception is not None or self._state == "PENDING":
                super().__del__()

        def get_name(self) -> str:
            """Give its name; made when somebody asks."""
            return self._name or f"outlast-body-{id(self):x}"

        def begin(self) -> None:
            """Take the first step, in the task's context."""
            body, waits_for = self._coro, None
            error: BaseException | None = None
            _enter(self._loop, self)
            try:
                waits_for = body.send(None)
            except StopIteration as end:
                if not (self._must_cancel or self._callbacks):
                    self._result, self._state = end.value, "FINISHED"
                    return
                error = end
            except BaseException as raised:  # noqa: BLE001 - the task makes of it what it is to be
                error = raised
            finally:
                _leave(self._loop, self)
            self._coro = _Begun(body, waits_for, error)
            try:
                self._Task__step()
            finally:
                del error  # its traceback has this frame

    def start(
        body: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop, context: Context
    ) -> asyncio.Task[Any]:
        """Make a task of a body's coroutine and run it up to its first wait.

        Call it from a plain callback of the running loop, never from inside a task. The task fails
        as :class:`Escaped` where the body raises SystemExit, or a KeyboardInterrupt of its own.
        """
        task: Any = _EagerTask(body, loop, context)
        context.run(task.begin)
        if not task.done():
            asyncio.tasks._register_task(task)
        eager: asyncio.Task[Any] = task
        return eager
