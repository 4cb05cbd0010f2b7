"""One attempt of a step's body: run on the engine's loop, or in a thread, and reported once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any, Protocol

from outlast.engine import eager
from outlast.engine.clock import Clock
from outlast.engine.current import StepInfo, current_step
from outlast.engine.scope import Call, Scope
from outlast.engine.thread_scope import ThreadScope
from outlast.errors import StepTimeout


class Host(Protocol):
    """Where bodies run."""

    loop: asyncio.AbstractEventLoop
    clock: Clock
    context: Context

    def in_thread(
        self, function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> asyncio.Future[Any]:
        """Run a function in a thread."""


class Body:
    """One attempt of a step's body.

    Args:
        call: the call of the step.
        attempt: the how-manieth try this is, from 1.
        execution_id: the execution that called.
        host: where it runs.
        scope: the code that called; that of a ``def`` task runs its bodies in its own thread.
        report: hears what it came to: the body, its value, its error.
        identity: in whose name it speaks to services outside, where that is another execution.
    """

    __slots__ = (
        "_alarm", "_execution_id", "_host", "_identity", "_report", "_scope", "_task", "attempt",
        "call", "started_at", "step",
    )  # fmt: skip

    def __init__(
        self,
        call: Call,
        attempt: int,
        execution_id: str,
        host: Host,
        scope: Scope | ThreadScope | None,
        report: Callable[[Body, Any, BaseException | None], None],
        identity: str | None = None,
    ) -> None:
        self.call = call
        self.attempt = attempt
        self.step = call.payload.step
        self.started_at = host.clock.now()
        self._execution_id = execution_id
        self._identity = identity
        self._host = host
        self._scope = scope
        self._report = report
        self._task: asyncio.Future[Any] | None = None
        self._alarm: asyncio.TimerHandle | None = None

    def start(self) -> bool:
        """Start it; gives whether it has ended at once: then ask it to :meth:`finish`."""
        host, step = self._host, self.step
        args, kwargs = self.call.payload.arguments()
        context = host.context.copy()
        context.run(current_step.set, self.info)
        if step.is_async:
            body = step.fn(*args, **kwargs)
            if step.timeout_us is not None:
                body = self._timed(body, step.timeout_us)
            self._task = eager.start(eager.guarded(body), host.loop, context)
            if self._task.done():
                return True
            self._task.add_done_callback(self._done)
            return False
        if isinstance(self._scope, ThreadScope):
            self._task = self._scope.run_body(
                self.call,
                lambda: context.run(eager.guarded_call, step.fn, *args, **kwargs),
                host.loop,
            )
        else:
            self._task = host.in_thread(context.run, eager.guarded_call, step.fn, *args, **kwargs)
        if step.timeout_us is not None:
            self._alarm = host.loop.call_later(step.timeout_us / 1e6, self._time_out)
        self._task.add_done_callback(self._done)
        return False

    def finish(self) -> None:
        """Report the end of a body that ended at once."""
        assert self._task is not None
        self._done(self._task)

    def stop(self) -> None:
        """Cancel it where that is possible; a thread runs on and its outcome is ignored."""
        if self._task is not None:
            self._task.cancel()

    def info(self) -> StepInfo:
        """Tell the body about itself."""
        return StepInfo(self._execution_id, self.call.key, self.attempt, self._identity)

    async def _timed(self, body: Any, timeout_us: int) -> Any:
        try:
            async with asyncio.timeout(timeout_us / 1e6) as limit:
                return await body
        except TimeoutError:
            if limit.expired():
                raise self._timeout() from None
            raise

    def _timeout(self) -> StepTimeout:
        return StepTimeout(
            f"attempt {self.attempt} of step {self.call.key} took longer than "
            f"{self.step.timeout_us / 1e6:g} s",
            where=self._execution_id,
        )

    def _time_out(self) -> None:
        """A thread cannot be stopped: its outcome is ignored from here on."""
        if self._task is not None and not self._task.done():
            self._report(self, None, self._timeout())

    def _done(self, task: asyncio.Future[Any]) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        if task.cancelled():
            said = f"the body of step {self.call.key} cancelled itself"
            self._report(self, None, RuntimeError(said))
            return
        error = task.exception()
        if isinstance(error, eager.Escaped):
            error = error.error
        self._report(self, None if error is not None else task.result(), error)


__all__ = ["Body", "Host"]
