"""The timeouts of an execution: to begin, for an attempt, and in all; and when it may begin."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from outlast import Retry, State, ask, blocking, now, sleep, step, task
from outlast.errors import (
    AttemptTimeout,
    ExecutionNotStarted,
    ExecutionTimedOut,
    UsageError,
)
from outlast.lifecycle import Kind
from outlast.testing import VirtualEngine, crash_everywhere, engine

ran: list[Any] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    ran.clear()


@step
async def note(what: str) -> str:
    ran.append(what)
    return what


@step
async def hangs() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ran.append("stopped")


@task
async def quick() -> str:
    return await note("quick")


@task(attempt_timeout="1h", retries=Retry(2, base="1m", jitter=0))
async def too_long(spans: list[str]) -> str:
    await note("begun")
    await sleep(spans[min(len(ran) - 1, len(spans) - 1)])
    return str(now())


# The start


def test_an_execution_that_does_not_begin_in_time_times_out_and_says_so() -> None:
    with engine(tasks=[quick]) as e:
        stranger = task(name="nobody_knows_it")(quick.fn)
        h = e.start_with(stranger.options(queue_timeout="10m").options, stranger, (), {})
        assert h.record().start_by is not None
        e.advance("9m")
        assert h.status() is State.QUEUED
        e.advance("1m")
        assert h.status() is State.TIMED_OUT
        with pytest.raises(ExecutionNotStarted, match="had not begun in time") as caught:
            h.result()
        assert caught.value.code == "execution_not_started"
        assert isinstance(caught.value, ExecutionTimedOut)
        assert h.transitions()[-1].data == {"why": "not_started"}
        assert e.store.verify().defects == []


def test_what_begins_in_time_is_not_bound_by_it(outlast_engine: VirtualEngine) -> None:
    @task(queue_timeout="10m")
    async def waits() -> str:
        await sleep("1d")
        return "done"

    h = outlast_engine.start(waits)
    assert h.record().start_by is None
    outlast_engine.advance("1d")
    assert h.result() == "done"


def test_a_delayed_one_may_wait_from_its_start_time_on() -> None:
    with engine(tasks=[quick]) as e:
        stranger = task(name="nobody_knows_it", queue_timeout="10m")(quick.fn)
        h = e.start_with(stranger.options(delay="1h").options, stranger, (), {})
        e.advance("1h")
        assert h.status() is State.QUEUED
        e.advance("10m")
        assert h.status() is State.TIMED_OUT


def test_the_deadline_is_told_from_a_start_that_did_not_come() -> None:
    with engine(tasks=[quick]) as e:
        stranger = task(name="nobody_knows_it", queue_timeout="10m")(quick.fn)
        h = e.start_with(stranger.options(timeout="5m").options, stranger, (), {})
        e.advance("10m")
        with pytest.raises(ExecutionTimedOut, match="did not end before its deadline") as caught:
            h.result()
        assert not isinstance(caught.value, ExecutionNotStarted)
        assert caught.value.code == "execution_timed_out"


def test_start_at_waits_for_the_instant_and_says_so(outlast_engine: VirtualEngine) -> None:
    at = outlast_engine.now + timedelta(hours=3)
    h = quick.options(start_at=at).start()
    reason = h.reason()
    assert h.status() is State.SCHEDULED and reason is not None
    assert reason.text == "its start time lies ahead: 2026-01-01 03:00:00 UTC"
    outlast_engine.advance("2h59m")
    assert ran == []
    outlast_engine.advance("1m")
    assert h.result() == "quick"


@pytest.mark.parametrize("past", [timedelta(0), timedelta(seconds=1), timedelta(days=400)])
def test_a_start_time_that_has_passed_means_now(
    outlast_engine: VirtualEngine, past: timedelta
) -> None:
    h = quick.options(start_at=outlast_engine.now - past).start()
    assert h.result() == "quick"
    assert h.record().due_at is None
    assert State.SCHEDULED not in {row.to_state for row in h.transitions()}


def test_a_delay_of_nothing_is_none(outlast_engine: VirtualEngine) -> None:
    assert quick.options(delay=0).start().result() == "quick"


def test_a_start_time_without_a_zone_is_refused(outlast_engine: VirtualEngine) -> None:
    with pytest.raises(UsageError, match="has no time zone"):
        quick.options(start_at=datetime(2030, 1, 1))  # noqa: DTZ001 - that is the point
    with pytest.raises(UsageError, match="the same thing"):
        quick.options(start_at=datetime(2030, 1, 1, tzinfo=UTC), delay="1h")


# Attempts


def test_an_attempt_that_takes_too_long_is_a_counted_failure(
    outlast_engine: VirtualEngine,
) -> None:
    h = outlast_engine.start(too_long, ["2h", "2h", "30m"])
    outlast_engine.advance("1h")
    assert h.status() is State.RETRY_WAIT and h.record().failures == 1
    outlast_engine.advance("1m")
    assert h.status() is State.WAITING
    outlast_engine.advance("1d")
    with pytest.raises(AttemptTimeout, match="attempt 3 of the task took longer than 3600 s"):
        h.result()  # note("begun") is reused: each try sleeps the same two hours
    assert ran == ["begun"]
    assert h.record().failures == 2
    assert outlast_engine.store.verify().defects == []


def test_an_attempt_that_is_quick_enough_succeeds(outlast_engine: VirtualEngine) -> None:
    h = outlast_engine.start(too_long, ["59m"])
    outlast_engine.advance("1h")
    assert h.result() == "2026-01-01 00:59:00+00:00"


def test_parking_gives_an_attempt_no_more_time(outlast_engine: VirtualEngine) -> None:
    @task(attempt_timeout="1h")
    async def asks() -> str:
        for n in range(3):
            await ask(f"go on {n}?", bool)
        return "done"

    h = outlast_engine.start(asks)
    outlast_engine.advance("40m")
    outlast_engine.answer(h, True)
    assert h.status() is State.AWAITING_INPUT
    outlast_engine.advance("20m")
    assert h.status() is State.FAILED
    with pytest.raises(AttemptTimeout):
        h.result()


def test_a_pause_holds_it_and_it_fails_when_it_goes_on(outlast_engine: VirtualEngine) -> None:
    h = outlast_engine.start(too_long, ["50m"])
    h.pause()
    outlast_engine.advance("2h")
    assert h.status() is State.PAUSED
    h.resume()
    assert h.record().failures == 1


def test_options_set_the_attempt_timeout_of_one_start(outlast_engine: VirtualEngine) -> None:
    h = too_long.options(attempt_timeout="3h").start(["2h"])
    outlast_engine.advance("2h")
    assert h.result() == "2026-01-01 02:00:00+00:00"


def test_def_tasks_and_bodies_under_way_are_ended_as_well(outlast_engine: VirtualEngine) -> None:
    @task(attempt_timeout="1h")
    async def calls() -> None:
        await hangs()

    @task(attempt_timeout="1h")
    def sequential() -> None:
        blocking.sleep("2h")

    a, b = outlast_engine.start(calls), outlast_engine.start(sequential)
    outlast_engine.advance("1h")
    for h in (a, b):
        with pytest.raises(AttemptTimeout):
            h.result()
    assert ran == ["stopped"]
    assert Kind.CALL_ABANDONED in {row.kind for row in a.transitions()}


def test_a_cancel_ends_it_before_its_attempt_does(outlast_engine: VirtualEngine) -> None:
    @task(attempt_timeout="1h")
    async def cleans_up() -> None:
        try:
            await hangs()
        finally:
            await sleep("10s")

    h = outlast_engine.start(cleans_up)
    outlast_engine.advance("59m55s")
    h.cancel()
    outlast_engine.advance("1m")
    assert h.status() is State.CANCELLED


def test_the_grace_of_a_cancel_is_the_engines_to_say() -> None:
    @task
    async def cleans_up() -> None:
        try:
            await hangs()
        finally:
            await sleep("1h")
            ran.append("clean")

    with engine(tasks=[cleans_up], cancel_grace="2h") as e:
        h = e.start(cleans_up)
        h.cancel()
        e.advance("61m")
        assert (h.status(), ran) == (State.CANCELLED, ["stopped", "clean"])


def test_timeouts_are_the_same_wherever_it_dies() -> None:
    def scenario(e: VirtualEngine) -> Any:
        ran.clear()
        h = too_long.options(start_at=e.now + timedelta(hours=1)).start(["2h"])
        e.advance("1d")
        with pytest.raises(AttemptTimeout):
            h.result()
        return h.record().failures

    report = crash_everywhere(scenario)
    assert report.result == 2
    assert len(report.points) > 12
