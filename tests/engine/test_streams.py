"""Streams and progress: handed out while code runs, exact under replays and crashes."""

from __future__ import annotations

import asyncio
import random as dice
from typing import Any

import pytest

from outlast import Engine, Fatal, ask, blocking, progress, sleep, step, stream, task, this_step
from outlast.engine.guest import Guest
from outlast.engine.write.emitter import WAITING_MAX, Emitter
from outlast.errors import PayloadTooLarge, UsageError, WrongColour
from outlast.lifecycle import State
from outlast.store.emitting import Ends, Parts, placed
from outlast.testing import VirtualEngine, crash_everywhere

from . import process_steps


def values(engine: VirtualEngine, id: str, name: str = "draft") -> list[Any]:
    return [item.value for item in engine.store.stream(id, name)]


@step
async def add(a: int, b: int) -> int:
    return a + b


@step(retries=2)
async def write(words: list[str], fail: bool = False) -> int:
    for word in words:
        await stream("draft", word)
    if fail and FAILURES:
        raise FAILURES.pop()
    return len(words)


@step
def write_in_thread(words: list[str]) -> int:
    for word in words:
        stream("draft", word)
        progress(words.index(word) + 1, len(words), word)
    return len(words)


FAILURES: list[Exception] = []


@task
async def counting(n: int) -> int:
    total = 0
    for i in range(n):
        await stream("draft", i)
        total = await add(total, i)
        await progress(i + 1, n, "counting")
    await stream("draft", "done")
    return total


def test_what_task_code_says_is_there_in_order(outlast_engine: VirtualEngine) -> None:
    handle = counting.start(3)
    assert handle.result() == 3
    assert [item.value for item in handle.stream("draft")] == [0, 1, 2, "done"]
    assert [item.number for item in handle.stream("draft", after=2)] == [3, 4]
    assert [(head.name, head.count) for head in handle.streams()] == [("draft", 4)]
    assert list(handle.stream("other")) == []
    said = handle.progress()
    assert said is not None and (said.done, said.total, said.text) == (3, 3, "counting")
    kinds = [str(row.kind) for row in handle.transitions()]
    assert kinds == ["create", "claim", "start", "step", "step", "step", "finish"]


def test_a_park_and_a_replay_say_nothing_twice(outlast_engine: VirtualEngine) -> None:
    @task
    async def slow() -> str:
        await stream("draft", "before")
        await sleep("1h")
        await stream("draft", "between")
        answer: bool = await ask("go on?")
        await stream("draft", answer)
        return "ok"

    handle = slow.start()
    outlast_engine.advance("2h")
    assert values(outlast_engine, handle.id) == ["before", "between"]
    outlast_engine.answer(handle, True)
    assert handle.result() == "ok"
    assert values(outlast_engine, handle.id) == ["before", "between", True]


def test_def_tasks_and_steps_in_threads_say_it_plainly(outlast_engine: VirtualEngine) -> None:
    @task
    def plain() -> int:
        blocking.stream("draft", "task")
        blocking.progress(1)
        return write_in_thread(["a", "b"])

    handle = plain.start()
    assert handle.result() == 2
    items = list(handle.stream("draft"))
    assert [(item.value, item.step, item.part) for item in items] == [
        ("task", "", 1), ("a", "write_in_thread#1", 1), ("b", "write_in_thread#1", 2),
    ]  # fmt: skip
    said = handle.progress()
    assert said is not None
    assert (said.done, said.total, said.text, said.step) == (2, 2, "b", "write_in_thread#1")


def test_another_attempt_is_told_apart(outlast_engine: VirtualEngine) -> None:
    @task
    async def again() -> int:
        return await write(["a", "b"], fail=True)

    FAILURES[:] = [RuntimeError("once")]
    handle = again.start()
    outlast_engine.advance("1m")
    assert handle.result() == 2
    items = list(handle.stream("draft"))
    assert [(item.value, item.attempt, item.is_anew) for item in items] == [
        ("a", 1, True), ("b", 1, False), ("a", 2, True), ("b", 2, False),
    ]  # fmt: skip


def test_another_try_of_the_task_is_told_apart(outlast_engine: VirtualEngine) -> None:
    @task(retries=1)
    async def again() -> str:
        await stream("draft", "a")
        if FAILURES:
            raise FAILURES.pop()
        return "ok"

    FAILURES[:] = [RuntimeError("once")]
    handle = again.start()
    outlast_engine.advance("1m")
    assert handle.result() == "ok"
    assert [(item.value, item.attempt) for item in handle.stream("draft")] == [("a", 1), ("a", 2)]


def test_what_a_failed_step_said_stays(outlast_engine: VirtualEngine) -> None:
    @task
    async def fails() -> int:
        return await write(["a"], fail=True)

    FAILURES[:] = [Fatal("no")]
    handle = fails.start()
    assert handle.wait() is State.FAILED
    assert values(outlast_engine, handle.id) == ["a"]


def test_what_cannot_be_said_is_refused(outlast_engine: VirtualEngine) -> None:
    @task
    async def large() -> None:
        with pytest.raises(PayloadTooLarge):
            await stream("draft", "x" * 300_000)
        with pytest.raises(UsageError):
            await stream("", 1)
        with pytest.raises(UsageError):
            await progress(float("nan"))
        with pytest.raises(WrongColour, match="async def"):
            blocking.stream("draft", 1)

    @task
    def plain() -> None:
        with pytest.raises(WrongColour, match=r"from outlast\.blocking import"):
            stream("draft", 1)

    large.start().result()
    plain.start().result()


def test_outside_an_execution_nothing_happens() -> None:
    async def main() -> int:
        await stream("draft", 1)
        await progress(1, 2)
        blocking.stream("draft", 1)
        return await write(["a"])

    assert asyncio.run(main()) == 1


@task
async def crashing() -> int:
    await stream("draft", "begun")
    await progress(0, 2)
    total = await write(["a", "b"])
    await stream("draft", f"wrote {total}")
    await sleep("1h")
    total += await write(["c"])
    await stream("draft", f"wrote {total}")
    await progress(2, 2)
    return total


def test_nothing_is_lost_or_doubled_wherever_it_crashes() -> None:
    def scenario(engine: VirtualEngine) -> Any:
        handle = crashing.start()
        engine.advance("2h")
        assert handle.result() == 3
        items = engine.store.stream(handle.id, "draft")
        assert [item.number for item in items] == list(range(1, len(items) + 1))
        last: dict[str, list[Any]] = {}
        for item in items:
            if item.step:
                said = last.setdefault(item.step, [])
                if item.is_anew:
                    said.clear()
                said.append(item.value)
        said_so = engine.store.progress([handle.id])[handle.id]
        by_task = [item.value for item in items if not item.step]
        return by_task, last, (said_so.done, said_so.total)

    report = crash_everywhere(scenario)
    assert len(report.points) > 5
    expected = {"write#1": ["a", "b"], "write#2": ["c"]}
    assert report.result == (["begun", "wrote 2", "wrote 3"], expected, (2, 2))


@task
async def random_program(seed: int) -> list[Any]:
    """Say random things, in branches that race, between steps and waits."""
    plan = dice.Random(seed)  # the same in every replay, as the input is
    told: list[Any] = []

    async def branch(number: int, moves: list[str]) -> None:
        for place, move in enumerate(moves):
            if move == "say":
                await stream(plan_names[number % 2], [number, place])
            elif move == "step":
                told.append(await add(number, place))
            elif move == "write":
                told.append(await write([f"{number}.{place}.{i}" for i in range(3)]))
            else:
                await sleep(f"{1 + number * 7 + place}m")

    branches = [
        [plan.choice(["say", "say", "step", "write", "sleep"]) for _ in range(plan.randrange(1, 5))]
        for _ in range(plan.randrange(1, 4))
    ]
    plan_names = ["draft", "other"]
    await asyncio.gather(*(branch(n, moves) for n, moves in enumerate(branches)))
    return told


@pytest.mark.parametrize("seed", range(8))
def test_random_programs_say_the_same_wherever_they_crash(seed: int) -> None:
    def scenario(engine: VirtualEngine) -> Any:
        handle = random_program.start(seed)
        engine.advance("5h")
        handle.result()
        told = {}
        for name in ("draft", "other"):
            items = engine.store.stream(handle.id, name)
            assert [item.number for item in items] == list(range(1, len(items) + 1))
            own = [item for item in items if not item.step]
            assert [item.part for item in own] == list(range(1, len(own) + 1))
            said: dict[str, list[Any]] = {}
            for item in items:
                if item.step:
                    if item.is_anew:
                        said[item.step] = []
                    assert item.part == len(said[item.step]) + 1
                    said[item.step].append(item.value)
            told[name] = [item.value for item in own], said
        return told

    assert crash_everywhere(scenario).points


class Disk:
    """Durable streams, and the writes that are on their way there, in order."""

    def __init__(self) -> None:
        self.ends: Ends = {}
        self.parts: Parts = {}
        self.items: list[Any] = []

    def write(self, emissions: Any) -> None:
        self.items += [item for _, item in placed([("ex_1", emissions)], self.ends, self.parts)]


@pytest.mark.parametrize("seed", range(200))
def test_what_was_said_before_a_durable_row_is_durable(seed: int) -> None:
    """Any write without rows may fail on its own, and a later row be stored all the same."""
    plan = dice.Random(seed)
    loop = asyncio.new_event_loop()
    emitter = Emitter(loop, lambda: 1, 1, 1, lambda: None)
    disk, said, alone = Disk(), 0, None
    rows = 0
    for _ in range(40):
        move = plan.choice(["say", "say", "alone", "alone ends", "row"])
        if move == "say":
            said += 1
            emitter.say("draft", str(said).encode())
        elif move == "alone" and alone is None:
            came = emitter.alone()
            alone = None if came is None else (came[0], plan.random() < 0.7)
        elif move == "alone ends" and alone is not None:
            items, is_stored = alone
            alone = None
            if not is_stored:
                break  # nobody knows what became of it: all in memory is dropped
            disk.write(items)
            emitter.went_alone()
        elif move == "row":
            riding, _ = emitter.ride()
            if alone is not None and alone[1]:
                disk.write(alone[0])
            disk.write(riding)
            rows += 1
            assert [item.payload for item in disk.items] == [
                str(n + 1).encode() for n in range(said)
            ]
    emitter.close()
    loop.close()


def test_who_says_too_much_waits_and_memory_is_bounded(url: str) -> None:
    most = 0

    @step
    async def flood(n: int) -> int:
        nonlocal most
        for i in range(n):
            await stream("draft", i)
            most = max(most, waiting_of(this_step().execution_id))
        return n

    @task
    async def flooding(n: int) -> int:
        return await flood(n)

    def waiting_of(id: str) -> int:
        return len(engine.worker.drivers[id].owner.open_emitter()._waiting)

    async def main() -> list[int]:
        nonlocal engine
        async with Engine(url, tasks=[flooding]) as engine:
            handle = await engine.astart(flooding, 3 * WAITING_MAX)
            return [item.number async for item in handle.stream("draft")]

    engine: Any = None
    assert asyncio.run(main()) == list(range(1, 3 * WAITING_MAX + 1))
    assert 0 < most <= WAITING_MAX


def test_a_reader_follows_an_execution_that_goes_on_as_a_new_one(url: str) -> None:
    """Also from another process, and over one that says nothing."""

    @task
    async def counts(n: int) -> int:
        if n != 2:
            await stream("draft", n)
        if n < 4:
            counts.continue_as_new(n + 1)
        return n

    async def main() -> None:
        async with Engine(url, tasks=[counts]) as engine:
            handle = await engine.astart(counts, 1)
            reader = handle.stream("draft")
            told = [(item.number, item.value) async for item in reader]
            assert told == [(1, 1), (1, 3), (1, 4)]
            assert reader.id != handle.id and reader.after == 1
            assert [item.value async for item in handle.stream("draft", after=1)] == [3, 4]

            def from_outside(**options: Any) -> list[Any]:
                with Guest(url) as guest:
                    parts = guest.stream(handle.id, "draft", **options)
                    return [item.value for _, items in parts for item in items]

            assert await asyncio.to_thread(from_outside) == [1, 3, 4]
            assert await asyncio.to_thread(from_outside, after=1, follow=True) == [3, 4]

    asyncio.run(main())


def test_a_stream_is_read_live_and_its_reader_is_woken(url: str) -> None:
    @task
    async def talks() -> str:
        await stream("draft", 1)
        await stream("draft", await ask("go on?", str))
        return "ok"

    async def main() -> list[Any]:
        async with Engine(url, tasks=[talks]) as engine:
            handle = await engine.astart(talks)
            told = []
            async for item in handle.stream("draft"):
                told.append(item.value)
                if item.number == 1:  # it was read before the end
                    await handle.aanswer("two")
            return told

    assert asyncio.run(main()) == [1, "two"]


def test_an_execution_that_says_nothing_pays_nothing(outlast_engine: VirtualEngine) -> None:
    @task
    async def quiet() -> int:
        return await add(1, await add(2, 3))

    made: list[Any] = []
    plain = outlast_engine.worker.journal.submit
    outlast_engine.worker.journal.submit = (  # type: ignore[method-assign]
        lambda item, who: (made.append(item), plain(item, who))[1]
    )
    assert quiet.start().result() == 6
    writes = [item for item in made if hasattr(item, "emits")]
    assert writes
    assert all(item.rows and item.emits == () and item.progress is None for item in writes)


def test_a_step_in_a_process_says_it_through_its_pipe(url: str) -> None:
    @task
    async def apart() -> int:
        return await process_steps.talk.aio(["a", "b"])

    async def main() -> tuple[list[Any], Any]:
        async with Engine(url, tasks=[apart]) as engine:
            handle = await engine.astart(apart)
            said = [(item.value, item.step, item.part) async for item in handle.stream("draft")]
            return said, await handle.aprogress()

    said, far = asyncio.run(main())
    assert said == [("a", "talk#1", 1), ("b", "talk#1", 2)]
    assert (far.done, far.total, far.step) == (2, 2, "talk#1")
