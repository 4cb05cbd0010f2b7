"""The engine's loop in a thread of its own."""

from __future__ import annotations

import gc
import threading
import warnings
from typing import Any

import pytest

from outlast.engine.background import LoopThread
from outlast.errors import NoEngine


def test_what_came_between_the_last_turn_and_the_close_is_told_and_left_clean() -> None:
    """It is never begun, so nobody may be warned of a coroutine that was never awaited."""
    thread = LoopThread()
    loop = thread._loop
    close, call_soon = loop.close, loop.call_soon_threadsafe
    closing, came = threading.Event(), threading.Event()

    def close_late() -> None:
        closing.set()
        assert came.wait(100)
        close()

    def come(*args: Any, **kwargs: Any) -> Any:
        handle = call_soon(*args, **kwargs)
        came.set()
        return handle

    async def begun() -> None:
        raise AssertionError("the loop has ended")

    loop.close = close_late  # type: ignore[method-assign]
    call_soon(loop.stop)
    assert closing.wait(100)
    loop.call_soon_threadsafe = come  # type: ignore[assignment,method-assign]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(NoEngine):
            thread.run(begun())
        gc.collect()
    assert [str(one.message) for one in warned] == []
