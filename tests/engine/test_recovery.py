"""What survives: a stop, a crash, other code, and an engine that takes over."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from outlast import Engine, State, ask, sleep, step, task
from outlast.engine.registry import TASKS
from outlast.lifecycle import Kind

from .conftest import in_state, run, until

ran: list[Any] = []
gate: list[asyncio.Event] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    ran.clear()
    gate.clear()


@step
async def quick(value: int) -> int:
    ran.append(value)
    return value


@step
async def gated(value: int) -> int:
    ran.append(value)
    await gate[0].wait()
    return value


@task
async def two_steps() -> int:
    return await quick(1) + await gated(2)


async def _crash(engine: Engine) -> None:
    """End an engine as SIGKILL would: nothing is handed back, nothing more is written."""
    for service in engine._services:
        service.cancel()
    engine.worker._open = False
    for driver in list(engine.worker.drivers.values()):
        driver.drop()
    await engine.journal.close()
    engine.store.close()


def test_goes_on_from_the_last_finished_step_after_a_crash(url: str) -> None:
    async def main() -> None:
        gate.append(asyncio.Event())
        engine = await Engine(url).open()
        handle = await engine.astart(two_steps)
        await until(lambda: _ran(2))
        await _crash(engine)
        gate[0].set()
        async with Engine(url) as second:
            again = second.execution(handle.id)
            assert await again.aresult("5s") == 3
            kinds = [row.kind for row in await again.atransitions()]
            assert Kind.WORKER_LOST in kinds
            assert second.store.verify().defects == []

    asyncio.run(main())
    assert ran == [1, 2, 2]


async def _ran(count: int) -> bool:
    return len(ran) >= count


def test_graceful_stop_hands_back_and_counts_nothing(url: str) -> None:
    async def main() -> None:
        gate.append(asyncio.Event())
        engine = await Engine(url, patience="10ms").open()
        handle = await engine.astart(two_steps)
        await until(lambda: _ran(2))
        assert await engine.aclose() == 1
        gate[0].set()
        async with Engine(url) as second:
            again = second.execution(handle.id)
            assert await again.aresult("5s") == 3
            record = await again.arecord()
            assert (record.failures, record.idle_claims) == (0, 0)
            assert Kind.RELEASE in [row.kind for row in await again.atransitions()]

    asyncio.run(main())
    assert ran == [1, 2, 2]


def test_graceful_stop_waits_for_steps_under_way(url: str) -> None:
    async def main() -> None:
        gate.append(asyncio.Event())
        engine = await Engine(url, patience="5s").open()
        handle = await engine.astart(two_steps)
        await until(lambda: _ran(2))
        closing = asyncio.ensure_future(engine.aclose())
        await asyncio.sleep(0)
        gate[0].set()
        await closing
        async with Engine(url) as second:
            assert await second.execution(handle.id).aresult("5s") == 3

    asyncio.run(main())
    assert ran == [1, 2]


def test_a_wait_outlives_its_engine(url: str) -> None:
    @task
    async def waits() -> int:
        await quick(1)
        await sleep("300ms")
        return await ask("n?", int)

    async def main() -> None:
        async with Engine(url) as engine:
            handle = await engine.astart(waits)
            await in_state(handle, State.WAITING)
        async with Engine(url) as engine:
            again = engine.execution(handle.id)
            await in_state(again, State.AWAITING_INPUT)
        async with Engine(url) as engine:
            again = engine.execution(handle.id)
            await again.aanswer(5)
            assert await again.aresult("5s") == 5

    asyncio.run(main())
    assert ran == [1]


def test_crash_loop_is_capped(url: str) -> None:
    @task
    async def poison() -> None:
        ran.append("claimed")
        await gated(1)

    async def main() -> None:
        gate.append(asyncio.Event())
        handle: Any = None
        for life in range(20):
            engine = await Engine(url).open()
            if handle is None:
                handle = await engine.astart(poison)
            again = engine.execution(handle.id)

            async def settled(before: int = ran.count("claimed"), again: Any = again) -> bool:
                suspended = await again.astatus() is State.SUSPENDED
                return suspended or ran.count("claimed") > before

            await until(settled)
            if await again.astatus() is State.SUSPENDED:
                reason = await again.areason()
                assert reason.code == "crash_loop"
                await again.aresume()
                gate[0].set()
                await again.aresult("5s")
                await engine.aclose()
                return
            await _crash(engine)
        raise AssertionError("the crash loop was never capped")

    asyncio.run(main())


def test_code_that_changed_is_suspended_with_the_difference(url: str) -> None:
    @task(name="deployed")
    async def before() -> int:
        first = await quick(1)
        await ask("go?", bool)
        return first

    async def main() -> None:
        async with Engine(url) as engine:
            handle = await engine.astart(before)
            await in_state(handle, State.AWAITING_INPUT)

        @task(name="deployed")
        async def after() -> int:
            await quick(7)
            return 0

        async with Engine(url) as engine:
            again = engine.execution(handle.id)
            await again.aanswer(True)
            await in_state(again, State.SUSPENDED)
            record = await again.arecord()
            reason = await again.areason()
            assert reason is not None and reason.code == "code_mismatch"
            assert record.detail is not None
            assert "quick#1" in str(record.detail["recorded"])
        TASKS["deployed"] = before
        async with Engine(url) as engine:
            again = engine.execution(handle.id)
            await again.aresume()
            assert await again.aresult("5s") == 1

    asyncio.run(main())
    assert ran == [1]


def test_unknown_tasks_wait_for_an_engine_that_knows_them(url: str) -> None:
    @task(name="only_here")
    async def only_here() -> int:
        return await quick(1)

    async def main() -> None:
        async with Engine(url, slots=0) as engine:
            handle = await engine.astart(only_here)
        async with Engine(url, tasks=[two_steps]) as engine:
            again = engine.execution(handle.id)
            reason = await again.areason()
            assert reason is not None and reason.code == "no_worker" and "only_here" in reason.hint
        async with Engine(url) as engine:
            assert await engine.execution(handle.id).aresult("5s") == 1

    asyncio.run(main())


def test_a_stale_owner_cannot_write(url: str) -> None:
    async def main(engine: Engine) -> None:
        gate.append(asyncio.Event())
        handle = await engine.astart(two_steps)
        await until(lambda: _ran(2))
        stale = engine.worker.drivers[handle.id]
        await engine.journal.call(
            lambda: engine.store.recover({engine.name}, "somebody else", engine.clock.now(), 10)
        )
        engine.look()

        async def taken_over() -> bool:
            return engine.worker.drivers.get(handle.id) not in (None, stale) or len(ran) > 2

        gate[0].set()
        await until(taken_over)
        assert await handle.aresult("5s") == 3
        assert engine.store.verify().defects == []

    run(main, url)


def test_a_body_starts_only_when_what_was_delivered_is_durable(url: str) -> None:
    """Output commit: the log already holds every earlier outcome when a body runs."""
    seen: list[tuple[int, int]] = []
    holder: list[Engine] = []

    @step
    async def looks(number: int) -> int:
        (open_execution,) = holder[0].store.page(_everything())
        rows = holder[0].store.log(open_execution.id)
        seen.append((number, sum(row.kind is Kind.STEP for row in rows)))
        return number

    @task
    async def many() -> None:
        for number in range(20):
            await looks(number)

    async def main(engine: Engine) -> None:
        holder.append(engine)
        await (await engine.astart(many)).aresult("5s")

    run(main, url)
    assert seen == [(number, number) for number in range(20)]


def _everything() -> Any:
    from outlast.store.protocol import Filter

    return Filter()
