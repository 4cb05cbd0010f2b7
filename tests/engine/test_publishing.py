"""Events: sent to every open execution, once, whoever waits already and whoever will."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from outlast import Engine, sleep, step, task, wait_for
from outlast.engine.primitives import publishing
from outlast.errors import KeyConflict, UsageError
from outlast.testing import VirtualEngine, crash_everywhere


@step
async def noted(value: int) -> int:
    return value


@task
async def waiting(order: int) -> int:
    return await wait_for("paid", dict, match={"order": order}) and order


@task
async def late(span: str) -> str:
    await sleep(span)
    return await wait_for("go", str)


@task
async def busy() -> str:
    await noted(1)
    return await wait_for("go", str)


TASKS = [waiting, late, busy]


def run(story: Any, store: str = "memory:") -> None:
    async def main() -> None:
        async with Engine(store, tasks=TASKS) as engine, asyncio.timeout(100):
            await story(engine)

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["memory:", "sqlite"])
def test_everybody_who_is_there_gets_it_and_nobody_who_comes_later(
    kind: str, tmp_path: Path
) -> None:
    async def story(engine: Engine) -> None:
        waits = [await engine.astart(waiting, order) for order in (7, 7, 8)]
        sleeps = await engine.astart(late, "100ms")  # it waits only after the event
        works = await engine.astart(busy)
        ended = await engine.astart(waiting, 9)
        await ended.asignal("paid", {"order": 9})
        await ended.aresult()
        said = await engine.apublish("paid", {"order": 7})
        assert said.reached == 5
        assert said.is_new
        assert [await one.aresult() for one in waits[:2]] == [7, 7]
        assert await waits[2].astatus() in ("queued", "starting", "running", "awaiting_input")
        assert (await engine.apublish("go", "on")).reached == 3
        assert await sleeps.aresult() == await works.aresult() == "on"
        after = await engine.astart(busy)
        assert (await engine.apublish("paid", {"order": 8})).reached == 2
        assert await waits[2].aresult() == 8
        assert not [row for row in await after.atransitions() if row.key == "go"]
        await after.acancel()

    run(story, kind if kind == "memory:" else f"sqlite:///{tmp_path}/outlast.db")


def test_under_a_key_it_happens_once_and_says_the_same(tmp_path: Path) -> None:
    async def story(engine: Engine) -> None:
        first = await engine.astart(busy)
        said = await engine.apublish("other", {"n": 1}, key="k")
        assert (said.reached, said.is_new) == (1, True)
        second = await engine.astart(busy)
        again = await engine.apublish("other", {"n": 1}, key="k")
        assert (again.id, again.reached, again.is_new) == (said.id, 1, False)
        with pytest.raises(KeyConflict):
            await engine.apublish("other", {"n": 2}, key="k")
        with pytest.raises(UsageError):
            await engine.apublish("")
        assert (await engine.apublish("other", {"n": 1})).reached == 2
        for one in (first, second):
            await one.acancel()

    run(story)


def test_it_goes_only_to_those_that_are_meant() -> None:
    async def story(engine: Engine) -> None:
        one = await engine.astart(busy)
        two = await busy.options(labels={"team": "ops"}).astart()
        three = await engine.astart(late, "1h")
        assert (await engine.apublish("go", "a", task="late")).reached == 1
        assert (await engine.apublish("go", "b", labels={"team": "ops"})).reached == 1
        assert await two.aresult() == "b"
        for handle in (one, three):
            await handle.acancel()

    run(story)


def test_pages_reach_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "AT_ONCE", 3)

    async def story(engine: Engine) -> None:
        handles = [await engine.astart(busy) for _ in range(8)]
        assert (await engine.apublish("go", "on")).reached == 8
        assert [await one.aresult() for one in handles] == ["on"] * 8
        for one in handles:
            rows = await one.atransitions()
            assert len([row for row in rows if row.kind == "signal_received"]) == 1

    run(story)


def scenario(engine: VirtualEngine) -> Any:
    handles = [engine.start(late, "1h") for _ in range(3)]
    options, args = publishing.wish("go", "on", "once", None, None, "ada")
    said = engine.start_with(options, publishing.event, args, {})
    engine.advance("2h")
    return said.result(), [one.result() for one in handles]


def test_a_kill_at_any_commit_loses_no_event_and_sends_none_twice() -> None:
    report = crash_everywhere(scenario, tasks=[*TASKS, publishing.event])
    assert report.result == (3, ["on"] * 3)
    assert report.points
