"""What survives: a stop, a crash, other code, and an engine that takes over."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from outlast import Engine, Retry, State, ask, sleep, step, task, wait_for
from outlast.engine.control.handle import Execution
from outlast.engine.drive.driver import Driver
from outlast.engine.task.registry import TASKS
from outlast.lifecycle import Kind

from .conftest import crash, in_state, run, until

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


def test_goes_on_from_the_last_finished_step_after_acrash(url: str) -> None:
    async def main() -> None:
        gate.append(asyncio.Event())
        engine = await Engine(url).open()
        handle = await engine.astart(two_steps)
        await until(lambda: _ran(2))
        await crash(engine)
        gate[0].set()
        async with Engine(url) as second:
            again = second.execution(handle.id)
            assert await again.aresult("100s") == 3
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
            assert await again.aresult("100s") == 3
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
            assert await second.execution(handle.id).aresult("100s") == 3

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
            assert await again.aresult("100s") == 5

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
        for _ in range(20):
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
                await again.aresult("100s")
                await engine.aclose()
                return
            await crash(engine)
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
            assert await again.aresult("100s") == 1

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
            assert await engine.execution(handle.id).aresult("100s") == 1

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
        assert await handle.aresult("100s") == 3
        assert engine.store.verify().defects == []

    run(main, url)


@pytest.mark.parametrize("is_stolen", [False, True])
def test_whoever_waits_for_what_has_just_ended_hears_of_it(url: str, is_stolen: bool) -> None:
    """Its last row is on its way: nothing is read, unless that row is refused."""

    async def main(engine: Engine) -> None:
        gate.append(asyncio.Event())
        handle = await engine.astart(two_steps)
        await until(lambda: _ran(2))
        reads: list[Sequence[str]] = []
        read = engine.store.get
        engine.store.get = lambda ids: reads.append(ids) or read(ids)  # type: ignore[method-assign]
        if is_stolen:
            await engine.journal.call(
                lambda: engine.store.recover({engine.name}, "somebody else", engine.clock.now(), 10)
            )
        held = threading.Event()
        holding = asyncio.create_task(engine.journal.call(partial(held.wait, 100)))
        gate[0].set()

        async def is_ending() -> bool:
            return handle.id not in engine.worker.drivers

        await until(is_ending)
        result = asyncio.create_task(handle.aresult("100s"))
        await asyncio.sleep(0)
        assert not result.done() and not reads
        held.set()
        engine.look()
        assert await result == 3
        assert bool(reads) is is_stolen
        assert await holding and not engine.worker.tells(handle.id)
        assert engine.store.verify().defects == []

    run(main, url)
    assert ran == ([1, 2, 2] if is_stolen else [1, 2])


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
        await (await engine.astart(many)).aresult("100s")

    run(main, url)
    assert seen == [(number, number) for number in range(20)]


def _everything() -> Any:
    from outlast.store.protocol import Filter

    return Filter()


def test_a_step_that_was_retried_leaves_nothing_to_wait_for(url: str) -> None:
    """Its back-off is history: a replay must not wake, again and again, for what has passed."""
    failures = [ValueError(), ValueError()]

    @step(retries=Retry(5, base="1ms", cap="2ms"))
    async def fails_twice() -> int:
        if failures:
            raise failures.pop()
        return 1

    @task
    async def tries() -> int:
        return await fails_twice() + await wait_for("one", int) + await wait_for("two", int)

    async def main() -> None:
        async with Engine(url) as first:
            handle = await first.astart(tries)
            await in_state(handle, State.AWAITING_INPUT)
            await handle.asignal("one", 2)
            await until(lambda: _waits_twice(handle))
            (wait,) = (await handle.atransitions())[-1].data["waits"]  # type: ignore[index]
            assert (wait["kind"], wait["key"]) == ("event", "two#1")
            assert (await handle.arecord()).due_at is None
            await handle.asignal("two", 3)
            assert await handle.aresult("100s") == 6

    asyncio.run(main())


async def _waits_twice(handle: Execution[Any]) -> bool:
    kinds = [row.kind for row in await handle.atransitions()]
    return kinds.count(Kind.WAIT) == 2 and kinds[-1] is Kind.WAIT


def no_offer() -> None:
    """Keep no slot for what a message wakes: it is claimed, and its log read, afterwards."""


def test_a_message_that_comes_while_it_is_brought_back_is_delivered(url: str) -> None:
    @task
    async def hears_two() -> int:
        first, second = await asyncio.gather(wait_for("one", int), wait_for("two", int))
        return int(first + second)

    async def main() -> None:
        async with Engine(url) as engine:
            handle = await engine.astart(hears_two)
            await in_state(handle, State.AWAITING_INPUT)
            engine.worker.offer = no_offer  # type: ignore[method-assign]
            plain_read, sent = engine.worker.read, []

            async def read(call: Any) -> Any:
                rows = await plain_read(call)
                if not sent and handle.id in engine.worker.drivers:  # its log was just read
                    sent.append(True)
                    await handle.asignal("two", 2)
                return rows

            engine.worker.read = read  # type: ignore[method-assign]
            await handle.asignal("one", 1)
            assert await handle.aresult("100s") == 3
            assert sent and engine.store.verify().defects == []

    asyncio.run(main())


def test_what_was_given_up_during_a_stop_is_no_outcome(url: str) -> None:
    """A body that cannot be stopped ends after its call was cancelled: no replay knows it."""

    @step
    async def stubborn() -> int:
        ran.append("stubborn")
        while not gate[0].is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await gate[0].wait()
        await asyncio.sleep(0)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        return 7

    @task
    async def race() -> int:
        one, other = asyncio.create_task(gated(1)), asyncio.create_task(stubborn())
        await asyncio.wait({one, other}, return_when=asyncio.FIRST_COMPLETED)
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)
        return one.result() + await quick(5)

    async def main() -> None:
        gate.append(asyncio.Event())
        engine = await Engine(url, patience="5s").open()
        handle = await engine.astart(race)
        await until(lambda: _ran(2))
        driver = engine.worker.drivers[handle.id]
        closing = asyncio.ensure_future(engine.aclose())
        await until(lambda: _is_stopping(driver))
        gate[0].set()
        await closing
        async with Engine(url) as second:
            assert await second.execution(handle.id).aresult("100s") == 6
            assert second.store.verify().defects == []

    asyncio.run(main())


async def _is_stopping(driver: Driver) -> bool:
    return driver._stopping


def test_an_execution_handed_back_while_its_log_is_read_stays_whole(url: str) -> None:
    async def main() -> None:
        gate.append(asyncio.Event())
        gate[0].set()
        async with Engine(url) as engine:
            complaints: list[Any] = []
            engine.loop.set_exception_handler(lambda _, context: complaints.append(context))
            handle = await engine.astart(waits_for_news)
            await in_state(handle, State.AWAITING_INPUT)
            engine.worker.offer = no_offer  # type: ignore[method-assign]
            plain_read, handed = engine.worker.read, []

            async def read(call: Any) -> Any:
                rows = await plain_read(call)
                driver = engine.worker.drivers.get(handle.id)
                if driver is not None and not handed:  # its log was just read
                    handed.append(driver)
                    engine.loop.call_soon(driver.hand_back)
                return rows

            engine.worker.read = read  # type: ignore[method-assign]
            await handle.asignal("news", 4)
            await until(lambda: _has(handed))
            engine.look()
            assert await handle.aresult("100s") == 4
            assert complaints == []

    asyncio.run(main())


async def _has(found: list[Any]) -> bool:
    return bool(found)


@task
async def waits_for_news() -> int:
    return int(await wait_for("news", int))


def test_a_back_off_that_ends_while_it_is_parked_leads_to_the_next_attempt(url: str) -> None:
    """It is due as soon as it is back, and must not park again before its start is stored."""
    failures = [ValueError("once")]

    @step(retries=Retry(3, base="250ms", jitter=0))
    async def fails_once() -> int:
        if failures:
            raise failures.pop()
        return 1

    @task
    async def both() -> int:
        done, answer = await asyncio.gather(fails_once(), ask("n?", int))
        return int(done + answer)

    async def main() -> None:
        async with Engine(url) as engine:
            handle = await engine.astart(both)
            await until(lambda: _has_step(handle))
            assert len(await handle.atransitions()) < 20
            await handle.aanswer(4)
            assert await handle.aresult("100s") == 5

    asyncio.run(main())


async def _has_step(handle: Execution[Any]) -> bool:
    return Kind.STEP in [row.kind for row in await handle.atransitions()]
