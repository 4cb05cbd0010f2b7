"""What an execution leaves in memory: nothing that only the collector of cycles would find."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from outlast import Engine, ask, sleep, step, task
from outlast.engine.drive.driver import Driver
from outlast.engine.replay.scope import Scope
from outlast.engine.steps.body import Body

from .conftest import run, until


@step
async def at_once(value: int) -> int:
    return value


@step
async def with_a_wait(value: int) -> int:
    await asyncio.sleep(0)
    return value


@step
def in_a_thread(value: int) -> int:
    return value


@task
async def finishes(count: int) -> int:
    for number in range(count):
        await at_once(number)
        await with_a_wait(number)
        await in_a_thread.aio(number)
    await sleep("1ms")
    return count


@task
async def parks() -> None:
    await at_once(1)
    await ask("May it?")


@task
def finishes_plainly(count: int) -> int:
    return sum(in_a_thread(number) for number in range(count))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[weakref.ref[Any]]]:
    """What was made meanwhile of the parts of executions; no collector runs."""
    made: list[weakref.ref[Any]] = []

    def watch(kind: type) -> None:
        plain = kind.__init__

        class Watched(kind):
            __slots__ = ("__weakref__",) if "__weakref__" not in dir(kind) else ()

            def __init__(self, *args: Any, **more: Any) -> None:
                plain(self, *args, **more)
                made.append(weakref.ref(self))

        for module in ("worker", "driver", "attempts"):
            home = f"outlast.engine.drive.{module}.{kind.__name__}"
            monkeypatch.setattr(home, Watched, raising=False)

    for kind in (Driver, Scope, Body):
        watch(kind)
    gc.collect()
    gc.disable()
    try:
        yield made
    finally:
        gc.enable()


@pytest.mark.parametrize("code", [finishes, finishes_plainly])
def test_what_has_ended_is_freed_at_once(url: str, made: list[weakref.ref[Any]], code: Any) -> None:
    async def main(engine: Engine) -> None:
        assert await (await code.astart(3)).aresult() == 3
        await until(lambda: _are_gone(made))

    run(main, url)
    assert len(made) > 3


def test_what_has_parked_is_freed_at_once(url: str, made: list[weakref.ref[Any]]) -> None:
    async def main(engine: Engine) -> None:
        await parks.astart()
        await until(lambda: _are_gone(made))

    run(main, url)
    assert made


async def _are_gone(made: list[weakref.ref[Any]]) -> bool:
    return bool(made) and all(one() is None for one in made)
