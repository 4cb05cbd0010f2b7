"""Crashes after every commit: right code passes, and each planted fault is found."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from outlast import Retry, ask, blocking, now, random, sleep, step, task, uuid4, wait_for
from outlast.engine.drive.playback import Playback
from outlast.errors import ExecutionCancelled
from outlast.lifecycle import Kind
from outlast.testing import VirtualEngine, crash_everywhere

bodies: list[Any] = []
counted: list[int] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    bodies.clear()
    counted.clear()


@step
async def double(value: int) -> int:
    bodies.append(value)
    return 2 * value


@step
def double_in_thread(value: int) -> int:
    bodies.append(value)
    return 2 * value


@step
async def never_ends() -> None:
    await asyncio.Event().wait()


@task
async def all_of_it() -> str:
    @step(retries=Retry(3, base="1h", cap="1d"))
    async def fails_once() -> int:
        bodies.append("fails")
        if bodies.count("fails") == 1:
            raise ValueError
        return 1

    both = await asyncio.gather(double(1), double_in_thread.aio(2), fails_once())
    await sleep("1d")
    async with asyncio.timeout(60):
        await asyncio.sleep(0.05)
    released = await ask("Release?", timeout="1d", default=False)
    cents = await wait_for("paid", int)
    drawn = f"{random().random()} {uuid4()} {now()}"
    return f"{both} {released} {cents + await double(5)} {drawn}"


def scenario(engine: VirtualEngine) -> Any:
    bodies.clear()
    h = engine.start(all_of_it)
    engine.advance("2d")
    engine.answer(h, True)
    h.signal("paid", 900)
    return h.result()


def test_right_code_comes_out_the_same_wherever_it_dies() -> None:
    report = crash_everywhere(scenario)
    assert report.result.startswith("[2, 4, 1] True 910 ")
    kinds = {point.kind for point in report.points}
    assert len(report.points) >= 24
    assert {Kind.START, Kind.STEP, Kind.WAIT, Kind.RESUME, Kind.CLAIM, Kind.TIMER_FIRED} <= kinds
    assert {Kind.ATTEMPT_FAILED, Kind.STEP_ANNOUNCED, Kind.FINISH} <= kinds
    assert [point.number for point in report.points] == list(range(1, len(report.points) + 1))


def test_the_engine_does_die() -> None:
    """Each run with a crash sees a dead worker taken over, but the last: there nothing was left."""
    lost = []

    def watched(engine: VirtualEngine) -> Any:
        result = scenario(engine)
        (h,) = engine.executions()
        log = h.transitions()
        names = {str(row.data["worker"]) for row in log if row.kind is Kind.CLAIM and row.data}
        lost.append((sum(row.kind is Kind.WORKER_LOST for row in log), len(names)))
        return result

    report = crash_everywhere(watched)
    assert len(lost) == len(report.points) + 1
    assert lost[0] == (0, 1) and max(lost) == (1, 2)
    assert sum(number for number, _ in lost) > len(report.points) / 3
    assert sum(names == 2 for _, names in lost) > len(report.points) * 0.9


def test_def_tasks_retried_tasks_cancels_and_many_at_once() -> None:
    @task
    def sequential(value: int) -> int:
        first = double_in_thread(value)
        blocking.sleep("1h")
        return first + double_in_thread(value + 1)

    @task(retries=Retry(2, base="1h", cap="1d"))
    async def tried_again() -> int:
        first = await double(3)
        await sleep("1m")
        if await double(now().hour) == 0:
            raise ValueError
        return first

    @task
    async def cleans_up() -> None:
        try:
            await never_ends()
        finally:
            await double(100)

    def mixed(engine: VirtualEngine) -> Any:
        handles = engine.start_many(sequential, [(n,) for n in range(3)])
        again, cancelled = engine.start(tried_again), engine.start(cleans_up)
        engine.advance("3h")
        cancelled.cancel("enough")
        with pytest.raises(ExecutionCancelled):
            cancelled.result()
        cleaned = [row.key for row in cancelled.transitions() if row.kind is Kind.STEP]
        return [h.result() for h in (*handles, again)], cleaned

    report = crash_everywhere(mixed)
    assert report.result == ([2, 6, 10, 6], ["double#1"])
    assert len(report.points) > 40


def test_async_scenarios() -> None:
    async def scenario_in_a_coroutine(engine: VirtualEngine) -> Any:
        bodies.clear()
        h = await engine.astart(all_of_it)
        await engine.aadvance("2d")
        await h.aanswer(True)
        await h.asignal("paid", 1)
        return (await h.aresult()).split()[3]

    report = crash_everywhere(scenario_in_a_coroutine)
    assert report.result == "True"


# Planted faults


def test_a_task_that_counts_in_a_global_is_found() -> None:
    @task
    async def counts() -> int:
        counted.append(1)
        await double(1)
        return len(counted)

    def fresh(engine: VirtualEngine) -> None:
        counted.clear()
        engine.start(counts).result()

    with pytest.raises(AssertionError) as caught:
        crash_everywhere(fresh)
    said = str(caught.value)
    assert "where: crash point 1: row 3 (start) of ex_" in said or "(step double#1)" in said
    assert "succeeded b'2' instead of" in said and "put it in a step" in said


def test_a_result_that_differs_is_found_even_if_the_executions_are_the_same() -> None:
    @task
    async def sends() -> None:
        counted.append(1)  # as if it were a mail
        await double(1)

    def fresh(engine: VirtualEngine) -> int:
        counted.clear()
        engine.start(sends).result()
        return len(counted)

    with pytest.raises(AssertionError, match="it gave 2 instead of 1"):
        crash_everywhere(fresh)


def test_arguments_that_differ_are_found() -> None:
    @task
    async def numbers() -> int:
        counted.append(1)
        return await double(len(counted)) + await double(0)

    def fresh(engine: VirtualEngine) -> Any:
        counted.clear()
        return engine.start(numbers).result()

    with pytest.raises(AssertionError, match="called with other arguments than recorded") as caught:
        crash_everywhere(fresh)
    assert caught.value.__cause__ is not None


def test_an_engine_that_runs_a_recorded_body_again_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @task
    async def calls() -> int:
        return await double(1) + await double(2)

    monkeypatch.setattr(Playback, "load", lambda self, *_: ([], []))  # it forgets its log
    with pytest.raises(AssertionError, match=r"a body ran again although .* double#1 of ex_"):
        crash_everywhere(lambda engine: engine.start(calls).result())


def test_a_body_that_runs_again_before_its_outcome_is_recorded_is_no_fault() -> None:
    @task
    async def calls() -> int:
        return await double(1)

    report = crash_everywhere(lambda engine: engine.start(calls).result())
    assert len(bodies) > len(report.points)


def test_nothing_to_try_is_a_failure() -> None:
    with pytest.raises(AssertionError, match="no crash point to try"):
        crash_everywhere(lambda engine: None)


def test_what_fails_without_a_crash_fails_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        crash_everywhere(lambda engine: 1 // 0)


def test_a_scenario_that_is_not_the_same_each_time_is_found() -> None:
    def other_each_time(engine: VirtualEngine) -> None:
        counted.append(1)
        if len(counted) == 1:
            engine.start(all_of_it)
        engine.advance("1h")

    with pytest.raises(AssertionError, match="did not come to this point"):
        crash_everywhere(other_each_time)


def test_nothing_stays_behind() -> None:
    from outlast.engine.steps.body import Body

    plain = Body.start
    with pytest.raises(ZeroDivisionError):
        crash_everywhere(lambda engine: 1 // 0)
    assert Body.start is plain
