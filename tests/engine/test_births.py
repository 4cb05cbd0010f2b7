"""Executions that are put in together: in order, in parts, and with their refusals told."""

from __future__ import annotations

import asyncio

import pytest

from outlast import Engine, task
from outlast.engine.control import births
from outlast.engine.task.registry import StartOptions
from outlast.errors import KeyConflict, StoreUnavailable
from outlast.store.protocol import Answer


@task
async def echoed(number: int) -> int:
    return number


@task
async def weighed(text: str) -> int:
    return len(text)


@task
async def unused() -> None:
    """Something else that an engine may know."""


def test_more_than_may_be_on_their_way(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine that puts them in does not know the task; the next one runs them all."""
    monkeypatch.setattr(births, "PUT_MANY", 256)

    async def put_in() -> list[str]:
        async with Engine(url, tasks=[unused]) as engine:
            handles = await engine.astart_many(echoed, [(n,) for n in range(1_000)])
            return [handle.id for handle in handles]

    async def run(ids: list[str]) -> list[int]:
        async with Engine(url, tasks=[echoed]) as engine:
            handles = [engine.execution(id) for id in ids]
            return await asyncio.gather(*(handle.aresult() for handle in handles))

    ids = asyncio.run(put_in())
    assert ids == sorted(set(ids))
    assert asyncio.run(run(ids)) == list(range(1_000))


def test_what_waits_and_is_alike_goes_out_as_few_items(url: str) -> None:
    """However the inputs weigh; and an input that is huge takes no others with it."""

    async def main() -> tuple[int, list[str]]:
        async with Engine(url, tasks=[unused]) as engine:
            handles = await engine.astart_many(echoed, [(n,) for n in range(2_500)])
            small = engine.journal.items
            texts = ["x" * 600_000] * 5
            heavy = await engine.astart_many(weighed, [(text,) for text in texts])
            assert small == 3 and engine.journal.items == small + 3
            (late,) = await engine.astart_many(echoed, [(1,)], StartOptions(deadline_us=10**9))
            row = await late.arecord()
            assert row.deadline_at == row.created_at + 10**9
            for number, handle in enumerate(handles[:3]):
                birth = engine.store.log(handle.id)[0]
                assert str(number).encode() in (birth.payload or b"")
            return engine.tally.started["echoed"], [handle.id for handle in (*handles, *heavy)]

    started, ids = asyncio.run(main())
    assert started == 2_501 and len(set(ids)) == 2_505


def test_those_that_run_at_once_come_in_parts(url: str) -> None:
    async def main() -> list[int]:
        async with Engine(url, tasks=[echoed]) as engine:
            handles = await engine.astart_many(echoed, [(n,) for n in range(300)])
            return [await handle.aresult() for handle in handles]

    assert asyncio.run(main()) == list(range(300))


def test_what_begins_later_than_the_clock_is_looked_at_costs_no_sweep(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> tuple[int, int]:
        async with Engine(url, tasks=[echoed]) as engine:
            swept = 0
            sweep = engine.store.sweep
            asleep = asyncio.Event()

            def counted(now: int, limit: int) -> tuple[int, int | None]:
                nonlocal swept
                swept += 1
                engine.loop.call_soon_threadsafe(asleep.set)
                return sweep(now, limit)

            monkeypatch.setattr(engine.store, "sweep", counted)
            engine.look_at_clock()
            await asleep.wait()
            first = StartOptions(delay_us=600_000_000)
            await engine.astart_with(first, echoed, (1,), {})
            while engine._sleeps_until is None:
                await asyncio.sleep(0)  # sleeps: one turn, until the clock's keeper has its own
            before = swept
            for number in range(20):
                options = StartOptions(delay_us=700_000_000 + number)
                await engine.astart_with(options, echoed, (number,), {})
            later = swept - before
            soon = await engine.astart_with(StartOptions(delay_us=1), echoed, (7,), {})
            return later, await soon.aresult()

    assert asyncio.run(main()) == (0, 7)


def test_what_waits_for_what_has_ended_begins_at_once(url: str) -> None:
    """Its birth has queued it: it is claimed, with nothing for the clock to move."""
    with Engine(url, tasks=[echoed]) as engine:
        first = engine.start(echoed, 1)
        assert first.result("100s") == 1
        assert echoed.options(after=first).start(2).result("100s") == 2


def test_a_key_that_is_taken_is_told(url: str) -> None:
    async def main() -> None:
        async with Engine(url, tasks=[echoed]) as engine:
            (one,) = await engine.astart_many(echoed, [(1,)], StartOptions(key="k"))
            (same,) = await engine.astart_many(echoed, [(1,)], StartOptions(key="k"))
            assert one.id == same.id
            with pytest.raises(KeyConflict):
                await engine.astart_many(echoed, [(2,)], StartOptions(key="k"))

    asyncio.run(main())


def test_a_commit_that_fails_is_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with Engine(url, tasks=[unused]) as engine:
            lost = StoreUnavailable("the disk is gone")

            def commit(batch: list[object]) -> list[Answer]:
                raise lost

            monkeypatch.setattr(engine.store, "commit", commit)
            with pytest.raises(StoreUnavailable):
                await engine.astart_many(echoed, [(n,) for n in range(300)])
            monkeypatch.undo()

    asyncio.run(main())
