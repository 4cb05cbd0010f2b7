"""Where code stands that a cancel would run: found in CPython's own tables, on every version."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from outlast.engine.replay.cleanup import has_clean_up

Code = Callable[[], Coroutine[Any, Any, Any]]


async def rest() -> None:
    await asyncio.get_running_loop().create_future()


async def plain() -> None:
    await rest()


async def in_a_loop() -> None:
    for _ in range(3):
        await rest()


async def behind_a_handler() -> None:
    with contextlib.suppress(ValueError):
        await asyncio.sleep(0)
    await rest()


async def library_wait() -> None:
    await asyncio.Event().wait()


async def library_limit() -> None:
    await asyncio.wait_for(rest(), 1_000)


async def in_finally_of() -> None:
    try:
        await rest()
    finally:
        print("clean")


async def in_except_of() -> None:
    try:
        await asyncio.Event().wait()
    except ValueError:
        print("clean")


async def in_a_manager() -> None:
    async with asyncio.Lock():
        await rest()


async def in_a_handler() -> None:
    try:
        raise ValueError
    except ValueError:
        await rest()


async def below_a_handler() -> None:
    try:
        await plain()
    finally:
        print("clean")


async def numbers() -> AsyncIterator[int]:
    try:
        await rest()
        yield 1
    finally:
        print("clean")


async def in_a_generator() -> None:
    async for _ in numbers():
        pass


WITHOUT: list[Code] = [plain, in_a_loop, behind_a_handler, library_wait, library_limit]
WITH: list[Code] = [
    in_finally_of, in_except_of, in_a_manager, in_a_handler, below_a_handler, in_a_generator,
]  # fmt: skip


def stands(code: Code) -> bool:
    async def main() -> bool:
        task = asyncio.create_task(code())
        for _ in range(5):
            await asyncio.sleep(0)
        found = has_clean_up(task.get_coro())
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return found

    return asyncio.run(main())


@pytest.mark.parametrize("code", WITHOUT, ids=lambda code: code.__name__)
def test_code_without_clean_up(code: Code) -> None:
    assert not stands(code)


@pytest.mark.parametrize("code", WITH, ids=lambda code: code.__name__)
def test_code_with_clean_up(code: Code) -> None:
    assert stands(code)
