"""An event loop in a thread of its own, for programs that have none."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from outlast.engine.task.loops import run_on
from outlast.errors import UsageError

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="outlast-engine", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and give its result here.

        Raises:
            NoEngine: the thread has ended, whatever ended it.
            UsageError: it is called there, where waiting would stop everything for ever.
        """
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise UsageError(
                "a coroutine called what blocks, on the loop of the engine itself",
                why="an async def step runs there; waiting in it would stop the engine for ever",
                do="use the method with an a, and await it: astart, aresult; or make the step def",
            )
        return run_on(self._loop, coroutine, lambda: not self._thread.is_alive())

    def stop(self) -> None:
        """End the loop and its thread."""
        with contextlib.suppress(RuntimeError):  # its thread has ended, and closed it
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()  # again, where the thread was ended by an error


__all__ = ["LoopThread"]
