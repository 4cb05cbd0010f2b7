"""The limits of a step, each with its own error; and what heartbeats say, kept over crashes."""

from __future__ import annotations

import asyncio
import threading
from time import monotonic
from typing import Any

import pytest

from outlast import Retry, State, blocking, heartbeat, sleep, step, task, this_step
from outlast.engine.steps.body import Body
from outlast.errors import (
    BadPayload,
    HeartbeatLost,
    OutsideExecution,
    PayloadTooLarge,
    StepDeadline,
    StepQueueTimeout,
    StepTimeout,
    UsageError,
)
from outlast.lifecycle import Kind
from outlast.testing import VirtualEngine, crash_everywhere, engine

ran: list[Any] = []
HOURLY = Retry(5, base="1h", cap="1h", jitter=0)


@pytest.fixture(autouse=True)
def _forget() -> None:
    ran.clear()


def fails_with(e: VirtualEngine, one: Any, spans: str, error: type[Exception]) -> list[Any]:
    """Run a step in a task, let time pass, and give the log."""

    @task
    async def calls() -> str:
        try:
            await one() if one.is_async else await one.aio()
        except error as caught:
            return f"{type(caught).__name__}: {caught}"  # type: ignore[attr-defined]
        return "nothing"

    h = e.start(calls)
    e.advance(spans)
    assert h.result().startswith(error.__name__)
    ran.append(h.result())
    assert e.store.verify().defects == []
    return h.transitions()


def come_back(e: VirtualEngine, h: Any) -> None:
    """Wait for a thread that the engine has taken to hang."""
    give_up_at = monotonic() + 100
    while not h.record().is_final and monotonic() < give_up_at:
        e.advance("1us")


# Attempts


def test_an_attempt_that_is_too_long_is_tried_again(outlast_engine: VirtualEngine) -> None:
    @step(timeout="10m", retries=Retry(1, base="1h", cap="1h", jitter=0))
    async def slow() -> None:
        ran.append(this_step().attempt)
        await asyncio.Event().wait()

    log = fails_with(outlast_engine, slow, "2h", StepTimeout)
    assert ran[:2] == [1, 2]
    assert "attempt 2 of step slow#1 took longer than 600 s" in ran[-1]
    (failed,) = (row for row in log if row.kind is Kind.ATTEMPT_FAILED)
    assert failed.data["retry_at"] - failed.at == 3_600_000_000


def test_a_body_that_cleans_up_is_waited_for_and_its_late_result_refused(
    outlast_engine: VirtualEngine,
) -> None:
    @step(timeout="10m", grace="5m")
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(240)  # sleeps: in a step, where time is virtual
            ran.append("clean")
        return "late"

    log = fails_with(outlast_engine, stubborn, "1h", StepTimeout)
    assert ran[0] == "clean"
    (ended,) = (row for row in log if row.kind is Kind.STEP)
    assert ended.at - log[0].at == 14 * 60_000_000


def test_a_body_that_will_not_stop_is_given_up_after_its_grace(
    outlast_engine: VirtualEngine,
) -> None:
    @step(timeout="10m", grace="5m")
    async def ignores() -> str:
        for _ in range(100):
            try:
                await asyncio.sleep(60)  # sleeps: in a step, where time is virtual
            except asyncio.CancelledError:
                ran.append("ignored")
        return "late"

    log = fails_with(outlast_engine, ignores, "3h", StepTimeout)
    assert ran[0] == "ignored"
    (ended,) = (row for row in log if row.kind is Kind.STEP)
    assert ended.at - log[0].at == 15 * 60_000_000


def test_time_in_a_queue_is_not_time_of_an_attempt() -> None:
    gate = threading.Event()

    @step
    def blocks() -> None:
        gate.wait()

    @step(timeout="10m")
    def quick() -> str:
        return "done"

    @task
    async def both() -> str:
        first = asyncio.create_task(blocks.aio())
        await asyncio.sleep(0)
        answer = await quick.aio()
        await first
        return answer

    with engine(tasks=[both], patience="20ms") as e:
        e.worker._step_threads._max_workers = 1
        h = e.start(both)
        e.advance("1h")  # six times as long as an attempt may take
        assert not h.record().is_final
        gate.set()
        come_back(e, h)
        assert h.result() == "done"


# Queues


def test_a_step_that_finds_no_thread_in_time_has_not_run() -> None:
    gate = threading.Event()

    @step
    def blocks() -> None:
        gate.wait()

    @step(queue_timeout="10m", retries=HOURLY)
    def never() -> None:
        ran.append("never")

    @task
    async def both() -> str:
        first = asyncio.create_task(blocks.aio())
        await asyncio.sleep(0)
        try:
            await never.aio()
        except StepQueueTimeout as error:
            return str(error)
        return str(await first)

    with engine(tasks=[both], patience="20ms") as e:
        e.worker._step_threads._max_workers = 1
        h = e.start(both)
        e.advance("10m")
        assert "step never#1 waited longer than 600 s to begin" in h.result()
        assert ran == []
        assert Kind.ATTEMPT_FAILED not in {row.kind for row in h.transitions()}
        gate.set()


def test_a_thread_that_hangs_does_not_use_up_the_pool() -> None:
    gate = threading.Event()

    @step(timeout="10m")
    def hangs(number: int) -> None:
        gate.wait()

    @step
    def quick() -> str:
        return "done"

    @task
    async def goes_on() -> str:
        for number in range(3):
            with pytest.raises(StepTimeout):
                await hangs.aio(number)
        return await quick.aio()

    with engine(tasks=[goes_on], patience="20ms") as e:
        e.worker._step_threads._max_workers = 1
        h = e.start(goes_on)
        e.advance("30m")
        assert h.result() == "done"
        assert e.worker._step_threads._max_workers == 4
        gate.set()


def test_a_def_task_goes_on_when_its_step_is_too_long() -> None:
    gate = threading.Event()

    @step(timeout="10m")
    def hangs() -> None:
        gate.wait()

    @task
    def goes_on() -> str:
        try:
            hangs()
        except StepTimeout:
            return "gave up"
        return "came back"

    with engine(tasks=[goes_on], patience="20ms") as e:
        h = e.start(goes_on)
        e.advance("10m")
        assert h.result() == "gave up"
        gate.set()


def test_a_cancel_reaches_a_def_task_whose_step_hangs() -> None:
    gate = threading.Event()

    @step(timeout="10h")
    def hangs() -> None:
        gate.wait()

    @task
    def calls() -> None:
        hangs()

    with engine(tasks=[calls], patience="20ms") as e:
        h = e.start(calls)
        e.advance("1m")
        h.cancel()
        assert h.status() is State.CANCELLED
        assert Kind.CALL_ABANDONED in {row.kind for row in h.transitions()}
        gate.set()
        assert e.store.verify().defects == []


def test_a_cancel_that_meets_a_body_in_its_tasks_own_thread() -> None:
    gate = threading.Event()

    @step
    def waits() -> str:
        gate.wait()
        return "late"

    @task
    def calls() -> str:
        return waits()

    with engine(tasks=[calls], patience="20ms") as e:
        h = e.start(calls)
        e.advance("1m")
        h.cancel()
        gate.set()
        come_back(e, h)
        assert h.status() is State.CANCELLED
        assert Kind.STEP not in {row.kind for row in h.transitions()}


# All attempts


def test_a_deadline_ends_an_attempt_under_way(outlast_engine: VirtualEngine) -> None:
    @step(deadline="90m", retries=HOURLY)
    async def fails_then_hangs() -> None:
        ran.append(this_step().attempt)
        if this_step().attempt == 1:
            raise ValueError
        await asyncio.Event().wait()

    log = fails_with(outlast_engine, fails_then_hangs, "2h", StepDeadline)
    assert ran[:2] == [1, 2]
    (ended,) = (row for row in log if row.kind is Kind.STEP)
    assert ended.at - log[0].at == 90 * 60_000_000


def test_no_attempt_is_waited_for_that_would_begin_after_the_deadline(
    outlast_engine: VirtualEngine,
) -> None:
    @step(deadline="30m", retries=HOURLY)
    async def fails() -> None:
        raise ValueError("the real cause")

    log = fails_with(outlast_engine, fails, "1s", StepDeadline)
    (ended,) = (row for row in log if row.kind is Kind.STEP)
    assert ended.at == log[0].at and b"the real cause" in ended.payload
    assert Kind.ATTEMPT_FAILED not in {row.kind for row in log}


def test_a_pause_does_not_lengthen_a_deadline(outlast_engine: VirtualEngine) -> None:
    @step(deadline="90m", retries=HOURLY)
    async def fails() -> None:
        ran.append("fails")
        raise ValueError

    @task
    async def calls() -> str:
        try:
            await fails()
        except StepDeadline:
            return "late"
        return ""

    h = outlast_engine.start(calls)
    h.pause()
    outlast_engine.advance("5h")
    assert h.status() is State.PAUSED
    h.resume()
    assert h.result() == "late"
    assert ran == ["fails"]


# Heartbeats


def test_silence_fails_an_attempt_and_the_next_gets_what_was_said(
    outlast_engine: VirtualEngine,
) -> None:
    @step(heartbeat="30s", retries=Retry(1, base="1m", jitter=0))
    async def counts() -> str:
        last = this_step().last_heartbeat
        ran.append(last)
        if last is not None:
            return f"went on at {last['page']}"
        for page in range(10):
            heartbeat({"page": page})
            await asyncio.sleep(20)  # sleeps: in a step, where time is virtual
        heartbeat()
        await asyncio.Event().wait()
        return ""

    @task
    async def calls() -> str:
        return await counts()

    h = outlast_engine.start(calls)
    outlast_engine.advance("1h")
    assert h.result() == "went on at 9"
    assert ran == [None, {"page": 9}]
    log = h.transitions()
    (failed,) = (row for row in log if row.kind is Kind.ATTEMPT_FAILED)
    assert failed.at - log[0].at == 230_000_000 and b"HeartbeatLost" in failed.payload
    notes = [row for row in log if row.kind is Kind.STEP_ANNOUNCED]
    assert [row.payload for row in notes] == [b'{"page":%d}' % page for page in range(10)]


def test_many_heartbeats_are_one_row_a_second(outlast_engine: VirtualEngine) -> None:
    @step(heartbeat="30s")
    async def counts() -> None:
        for n in range(1000):
            heartbeat(n)
            await asyncio.sleep(0.01)  # sleeps: in a step, where time is virtual

    @task
    async def calls() -> None:
        await counts()

    h = outlast_engine.start(calls)
    outlast_engine.advance("11s")
    assert h.status() is State.SUCCEEDED
    notes = [row for row in h.transitions() if row.kind is Kind.STEP_ANNOUNCED]
    assert [row.payload for row in notes][:3] == [b"0", b"99", b"199"]
    assert 9 <= len(notes) <= 11


def test_a_thread_that_is_silent_is_given_up_and_told_so() -> None:
    gate, heard = threading.Event(), threading.Event()

    @step(heartbeat="30s")
    def silent() -> str:
        heartbeat("alive")
        gate.wait()
        try:
            heartbeat("late")
        except asyncio.CancelledError:
            heard.set()
        return "late"

    @task
    async def calls() -> str:
        try:
            return await silent.aio()
        except HeartbeatLost as error:
            return error.code

    with engine(tasks=[calls], patience="20ms") as e:
        h = e.start(calls)
        e.advance("30s")
        assert h.result() == "heartbeat_lost"
        assert [r.payload for r in h.transitions() if r.kind is Kind.STEP_ANNOUNCED] == [b'"alive"']
        gate.set()
        assert heard.wait(100)


def test_heartbeats_are_no_part_of_a_tasks_code(outlast_engine: VirtualEngine) -> None:
    @task
    async def wrong() -> None:
        heartbeat()

    with pytest.raises(OutsideExecution):
        outlast_engine.start(wrong).result()
    heartbeat("outside an execution, steps are plain functions")


@pytest.mark.parametrize(
    ("details", "error"), [(object(), BadPayload), ("x" * 70_000, PayloadTooLarge)]
)
def test_what_json_does_not_carry_is_refused(
    outlast_engine: VirtualEngine, details: object, error: type[Exception]
) -> None:
    @step
    async def beats() -> None:
        heartbeat(details)

    @task
    async def calls() -> None:
        await beats()

    with pytest.raises(error):
        outlast_engine.start(calls).result()


def test_what_was_said_survives_the_crash_of_a_worker() -> None:
    """The body beats, is killed with its engine, and finds what it said, at least a second ago."""

    @step(heartbeat="10m")
    async def copies() -> int:
        ran.append(this_step().last_heartbeat)
        for page in range(this_step().last_heartbeat or 0, 5):
            heartbeat(page + 1)
            await asyncio.sleep(60)  # sleeps: in a step, where time is virtual
        return 5

    @task
    async def calls() -> int:
        await sleep("1m")
        return await copies()

    seen: list[list[Any]] = []

    def scenario(e: VirtualEngine) -> Any:
        ran.clear()
        h = e.start(calls)
        e.advance("2h")
        seen.append(list(ran))
        return h.result()

    report = crash_everywhere(scenario)
    assert report.result == 5
    assert {tuple(one) for one in seen if len(one) > 1} >= {(None, n) for n in range(1, 6)}


def test_limits_come_out_the_same_wherever_it_dies() -> None:
    @step(timeout="10m", deadline="3h", retries=HOURLY)
    async def hangs() -> None:
        await asyncio.Event().wait()

    @step(heartbeat="1m", timeout="5m")
    def computes(n: int) -> int:
        heartbeat(n)
        return n * n

    @task
    async def both() -> str:
        try:
            await hangs()
        except (StepDeadline, StepTimeout) as error:
            return f"{error.code} {await computes.aio(3)}"
        return ""

    @task
    def alone() -> int:
        blocking.sleep("1h")
        return computes(4)

    def scenario(e: VirtualEngine) -> Any:
        h, other = e.start(both), e.start(alone)
        e.advance("1d")
        return h.result(), other.result()

    report = crash_everywhere(scenario)
    assert report.result == ("step_deadline 9", 16)
    assert len(report.points) > 15


def test_a_step_without_limits_arms_nothing(
    outlast_engine: VirtualEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Body, "_watch", lambda self: ran.append("watched"))

    @step
    async def plain() -> None:
        await asyncio.sleep(0)

    @task
    async def calls() -> None:
        await plain()

    outlast_engine.start(calls).result()
    assert ran == []


def test_there_are_two_places_and_coroutines_have_theirs() -> None:
    with pytest.raises(UsageError, match='no step runs on "moon"'):
        step(on="moon")  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="cannot run in a process"):

        @step(on="process")
        async def wrong() -> None: ...
