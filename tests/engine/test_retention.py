"""What ended long ago is deleted: as the task says, else as the engine says, never what is open."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from outlast import Engine, Retention, State, ask, step, task
from outlast.engine.control.pruner import READ_MAX
from outlast.errors import UsageError
from outlast.store.protocol import Filter

from .conftest import in_state, run

DAY_US = 86_400_000_000


class Ahead:
    """A clock that can be put forward."""

    def __init__(self) -> None:
        self.ahead_us = 0

    def now(self) -> int:
        return 1_800_000_000_000_000 + self.ahead_us


@step
async def nothing() -> None:
    pass


@task
async def kept_plain() -> None:
    await nothing()


@task(retention="2d")
async def kept_short() -> None:
    await nothing()


@task(retention=Retention(None, failed="5d"))
async def kept_failing() -> None:
    raise ValueError


@task
async def kept_open() -> None:
    await ask("?", bool)


async def _tasks(engine: Engine) -> set[str]:
    return {record.task for record in engine.store.page(Filter())}


def test_each_is_kept_as_long_as_it_says(url: str) -> None:
    clock = Ahead()

    async def main(engine: Engine) -> None:
        for one in (kept_plain, kept_short, kept_failing):
            await (await engine.astart(one)).await_("100s")
        waiting = await engine.astart(kept_open)
        await in_state(waiting, State.AWAITING_INPUT)
        kept = []
        for days in (1, 3, 6, 20, 40):
            clock.ahead_us = days * DAY_US
            await engine.prune()
            kept.append((days, await _tasks(engine)))
        assert kept == [
            (1, {"kept_plain", "kept_short", "kept_failing", "kept_open"}),
            (3, {"kept_plain", "kept_failing", "kept_open"}),
            (6, {"kept_plain", "kept_open"}),
            (20, {"kept_plain", "kept_open"}),
            (40, {"kept_open"}),
        ]
        assert engine.store.verify().defects == []

    run(main, url, clock=clock)


def test_none_keeps_everything(url: str) -> None:
    clock = Ahead()

    async def main(engine: Engine) -> None:
        await (await engine.astart(kept_plain)).await_("100s")
        clock.ahead_us = 10_000 * DAY_US
        assert await engine.prune() == 0

    run(main, url, clock=clock, retention=None, tasks=[kept_plain])


def test_more_than_one_read(url: str) -> None:
    clock = Ahead()

    async def main(engine: Engine) -> None:
        handles = await engine.astart_many(kept_plain, [()] * (READ_MAX + 10))
        await asyncio.gather(*(handle.await_("100s") for handle in handles))
        clock.ahead_us = 31 * DAY_US
        assert await engine.prune() == READ_MAX + 10
        assert engine.store.page(Filter()) == []

    run(main, url, clock=clock)


@pytest.mark.parametrize("wrong", ["soon", -1, True])
def test_what_is_no_retention_is_refused(wrong: Any) -> None:
    with pytest.raises(UsageError):
        Engine("memory:", retention=wrong)
    with pytest.raises(UsageError):
        task(retention=wrong)(kept_plain.fn)
