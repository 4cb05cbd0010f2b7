"""A slot that is offered with a message: what it wakes goes on without a claim of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from outlast import Engine, State, ask, sleep, step, task, wait_for
from outlast.lifecycle import Kind
from outlast.testing import VirtualEngine, crash_everywhere
from tests.engine.conftest import in_state, run, until

REPLAYED = [Kind.INPUT_RECEIVED, Kind.RESUME, Kind.CLAIM, Kind.START, Kind.FINISH]


@step
async def double(value: int) -> int:
    return 2 * value


@task
async def asks(number: int) -> list[Any]:
    return [number, await ask("Go on?"), await double(number)]


@task
def asks_plainly(number: int) -> list[Any]:
    from outlast import blocking

    return [number, blocking.ask("Go on?")]


@task
async def hears() -> Any:
    return await wait_for("news")


@task
async def rests() -> str:
    await sleep("1h")
    return "slept"


@task
async def long(count: int) -> Any:
    done = [await double(number) for number in range(count)]
    return [len(done), await ask("Go on?")]


async def all_free(engine: Engine) -> None:
    """Wait until no slot is taken, or kept for a claim."""

    async def is_so() -> bool:
        return engine.worker.free == engine.worker.slots

    await until(is_so)


def count_claims(engine: Engine) -> list[int]:
    """Count from here on what claims by themselves have given."""
    found: list[int] = []
    claim = engine.store.claim

    def counted(*args: Any) -> Any:
        claims = claim(*args)
        found.append(len(claims))
        return claims

    engine.store.claim = counted  # type: ignore[method-assign]
    return found


@pytest.mark.parametrize("code", [asks, asks_plainly], ids=["async", "def"])
def test_what_an_answer_wakes_needs_no_claim(url: str, code: Any) -> None:
    async def main(engine: Engine) -> None:
        handles = await engine.astart_many(code, [(number,) for number in range(30)])
        for handle in handles:
            await in_state(handle, State.AWAITING_INPUT)
        claims = count_claims(engine)
        await asyncio.gather(*(handle.aanswer(True) for handle in handles))
        results = [await handle.aresult() for handle in handles]
        assert [result[:2] for result in results] == [[number, True] for number in range(30)]
        assert sum(claims) == 0
        rows = await handles[0].atransitions()
        assert [row.kind for row in rows if row.kind in REPLAYED][2:] == REPLAYED
        await all_free(engine)
        assert engine.store.verify().defects == []

    run(main, url, tasks=[code])


def test_a_signal_and_a_resume_wake_so_too(url: str) -> None:
    async def main(engine: Engine) -> None:
        waiting, resting = await hears.astart(), await rests.astart()
        await in_state(waiting, State.AWAITING_INPUT)
        await in_state(resting, State.WAITING)
        claims = count_claims(engine)
        await waiting.asignal("news", 7)
        assert await waiting.aresult() == 7
        await resting.apause()
        await resting.aresume()
        await in_state(resting, State.WAITING)  # it looks again, and its time has not come
        assert sum(claims) == 0
        assert Kind.CLAIM in [row.kind for row in await resting.atransitions()][4:]
        await all_free(engine)

    run(main, url, tasks=[hears, rests])


def test_a_slot_comes_back_from_a_message_that_wakes_nobody(url: str) -> None:
    async def main(engine: Engine) -> None:
        handle = await hears.astart()
        await in_state(handle, State.AWAITING_INPUT)
        for number in range(3):
            await handle.asignal("other", number)
        await all_free(engine)
        await handle.asignal("news", 1)
        assert await handle.aresult() == 1
        await all_free(engine)

    run(main, url, tasks=[hears], slots=1)


def test_without_a_free_slot_it_waits_for_one(url: str) -> None:
    go = asyncio.Event()

    @step
    async def holds() -> None:
        await go.wait()

    @task
    async def busy() -> None:
        await holds()

    async def main(engine: Engine) -> None:
        asked = await asks.astart(1)
        await in_state(asked, State.AWAITING_INPUT)
        held = await busy.astart()
        await in_state(held, State.RUNNING)
        claims = count_claims(engine)
        await asked.aanswer(True)
        assert await asked.astatus() is State.QUEUED
        go.set()
        assert await asked.aresult() == [1, True, 2]
        assert sum(claims) == 1

    run(main, url, tasks=[asks, busy], slots=1)


def test_it_goes_on_although_its_sender_has_gone(url: str) -> None:
    async def main(engine: Engine) -> None:
        handle = await asks.astart(4)
        await in_state(handle, State.AWAITING_INPUT)
        commit, going = engine.store.commit, asyncio.Event()

        def told(batch: Any) -> Any:
            engine.loop.call_soon_threadsafe(going.set)
            return commit(batch)

        engine.store.commit = told  # type: ignore[method-assign]
        sender = asyncio.create_task(handle.aanswer(True))
        await going.wait()
        sender.cancel()
        await asyncio.wait([sender])
        assert await handle.aresult() == [4, True, 8]
        await all_free(engine)

    run(main, url, tasks=[asks])


def test_what_is_claimed_as_the_engine_closes_is_handed_back(url: str) -> None:
    async def first(engine: Engine) -> str:
        handle = await asks.astart(5)
        await in_state(handle, State.AWAITING_INPUT)
        sender = asyncio.create_task(handle.aanswer(True))
        while not engine.journal.backlog:  # the question is read first
            await asyncio.sleep(0)
        closing = asyncio.create_task(engine.aclose())
        await asyncio.wait([sender, closing])
        return handle.id

    async def second(engine: Engine) -> None:
        assert await engine.execution(id).aresult() == [5, True, 10]
        assert engine.store.verify().defects == []

    id = run(first, url, tasks=[asks])
    run(second, url, tasks=[asks])


def test_what_has_a_long_log_asks_for_a_claim(url: str) -> None:
    """Nobody who writes is to wait for it to be read."""

    async def main(engine: Engine) -> None:
        handle = await long.astart(40)
        await in_state(handle, State.AWAITING_INPUT)
        claims = count_claims(engine)
        await handle.aanswer(True)
        assert await handle.aresult() == [40, True]
        assert sum(claims) == 1

    run(main, url, tasks=[long], warm_copies=0)


def test_a_crash_at_each_row_changes_nothing() -> None:
    def scenario(engine: VirtualEngine) -> Any:
        first, second, third = engine.start(asks, 1), engine.start(hears), engine.start(asks, 3)
        first.answer(True)
        second.signal("news", "good")
        third.answer(False)
        return first.result(), second.result(), third.result()

    report = crash_everywhere(scenario, tasks=[asks, hears])
    assert report.result == ([1, True, 2], "good", [3, False, 6])
    kinds = [point.kind for point in report.points]
    assert kinds.count(Kind.CLAIM) == 3 and Kind.RESUME not in kinds  # in one commit
