"""Engines for tests, on a file of their own; and how to wait for what a test expects."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from outlast import Engine, State
from outlast.engine.control.handle import Execution


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The address of a database that is not there yet."""
    return f"sqlite:///{tmp_path / 'outlast.db'}"


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 100.0) -> None:
    """Wait until a condition holds, asking again after each change of the loop's turn."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0)


async def in_state(handle: Execution[Any], state: State) -> None:
    """Wait until an execution is in a state."""

    async def is_there() -> bool:
        return await handle.astatus() is state

    await until(is_there)


def run(main: Callable[[Engine], Awaitable[Any]], url: str, **options: Any) -> Any:
    """Run a coroutine with an open engine."""

    async def with_engine() -> Any:
        async with Engine(url, **options) as engine:
            return await main(engine)

    return asyncio.run(with_engine())


async def crash(engine: Engine) -> None:
    """End an engine as SIGKILL would: nothing is handed back, nothing more is written."""
    for service in engine._services:
        service.cancel()
    engine.worker._open = False
    for driver in list(engine.worker.drivers.values()):
        driver.drop()
    engine.worker.warm.close()
    await engine.journal.close()
    engine.store.close()
