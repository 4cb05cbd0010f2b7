"""Pause, resume and cancel: nothing is lost by a hold, nothing comes after a cancel."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

import outlast
from outlast import Engine, State, step, task, testing
from outlast.errors import ExecutionCancelled, TransitionRefused
from outlast.lifecycle import Kind
from outlast.testing import VirtualEngine

RAN: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    RAN.clear()


@step
async def first() -> str:
    RAN.append("first")
    return "first"


@step
async def slow() -> str:
    RAN.append("slow")
    await asyncio.sleep(60)
    return "slow"


@step
async def last() -> str:
    RAN.append("last")
    return "last"


@task
async def works() -> list[Any]:
    return [await first(), await slow(), await last()]


@task
async def waits() -> list[Any]:
    return [await first(), await outlast.sleep("1h")]


@task
async def asks() -> list[Any]:
    return [await first(), await outlast.ask("well?"), await outlast.wait_for("go")]


@task(retries=outlast.Retry(1, base="1h", jitter=0))
async def fails_once() -> str:
    said = await first()
    if RAN.count("tried"):
        return said
    RAN.append("tried")
    raise ValueError("once")


def begin(engine: VirtualEngine, state: State) -> outlast.Execution[Any]:
    """Bring an execution into a state."""
    if state is State.SCHEDULED:
        return works.options(delay="1h").start()  # type: ignore[no-any-return]
    task: Any = {
        State.RUNNING: works,
        State.WAITING: waits,
        State.AWAITING_INPUT: asks,
        State.RETRY_WAIT: fails_once,
    }[state]
    handle: outlast.Execution[Any] = engine.start(task)
    assert handle.status() is state
    return handle


HELD = [
    State.SCHEDULED,
    State.RUNNING,
    State.WAITING,
    State.AWAITING_INPUT,
    State.RETRY_WAIT,
]


@pytest.mark.parametrize("state", HELD)
def test_a_hold_keeps_position_and_data_in_each_state(state: State) -> None:
    with testing.engine() as engine:
        handle = begin(engine, state)
        handle.pause("lunch", actor="ann")
        engine.advance("2m")  # the step under way ends first
        assert handle.status() is State.PAUSED
        reason = handle.reason()
        assert reason is not None and reason.text == "ann paused it: lunch"
        if state is State.AWAITING_INPUT:
            handle.answer(True)
            handle.signal("go", 7)
        engine.advance("30d")
        assert handle.status() is State.PAUSED
        before = list(RAN)
        handle.resume()
        engine.advance("2m")
        expected = {
            State.SCHEDULED: ["first", "slow", "last"],
            State.RUNNING: ["first", "slow", "last"],
            State.WAITING: ["first", None],
            State.AWAITING_INPUT: ["first", True, 7],
            State.RETRY_WAIT: "first",
        }
        assert handle.result() == expected[state]
        assert len(RAN) == len(set(RAN))  # nothing ran twice
        assert before == RAN[: len(before)]
        assert engine.store.verify().defects == []


@pytest.mark.parametrize("state", HELD)
def test_a_cancel_ends_what_is_held(state: State) -> None:
    with testing.engine() as engine:
        handle = begin(engine, state)
        handle.pause()
        engine.advance("2m")
        handle.cancel("no more", actor="ann")
        assert handle.status() is State.CANCELLED
        detail: Any = handle.record().detail
        assert (detail["by"], detail["why"]) == ("ann", "no more")
        for wish in (handle.pause, handle.resume):
            with pytest.raises(TransitionRefused, match="has ended"):
                wish()


def test_a_pause_of_one_that_is_starting_is_taken_at_the_next_safe_point() -> None:
    def scenario(engine: testing.CrashingEngine) -> Any:
        RAN.clear()
        handle = engine.start(waits)
        handle.pause()
        held = handle.status()
        engine.advance("2h")
        handle.resume()
        return held, handle.result()

    assert testing.crash_everywhere(scenario).points


RELEASE = threading.Event()


@step
def stuck_in_a_thread() -> str:
    RAN.append("thread")
    RELEASE.wait(100)
    RAN.append("came to its end")
    return "late"


@task
async def calls_a_thread() -> str:
    return await stuck_in_a_thread.aio()


def test_a_result_that_comes_after_the_cancel_is_refused(tmp_path: Path) -> None:
    RELEASE.clear()
    with Engine(f"sqlite:///{tmp_path}/outlast.db") as engine:
        handle = engine.start(calls_a_thread)
        while "thread" not in RAN:
            handle.record()
        handle.cancel("enough")
        with pytest.raises(ExecutionCancelled):
            handle.result(timeout="100s")
        log = handle.transitions()
        RELEASE.set()
        while "came to its end" not in RAN:
            handle.record()
        other = engine.start(waits)  # the loop has gone on since
        other.cancel()
        other.wait()
        assert handle.transitions() == log
        assert handle.status() is State.CANCELLED
        assert all(row.kind is not Kind.STEP for row in log)


def test_asking_to_cancel_twice_changes_nothing() -> None:
    with testing.engine() as engine:
        handle = engine.start(asks)
        handle.cancel("one")
        seq = handle.record().seq
        handle.cancel("two")
        assert handle.record().seq == seq


SEEN: list[str] = []


@step
async def gate(name: str) -> str:
    RAN.append(name)
    if RAN.count(name) == 1:
        await asyncio.Event().wait()
    return name


@task
async def through() -> str:
    try:
        return await gate("a")
    except asyncio.CancelledError:
        SEEN.append("cancelled")
        raise


def test_a_shutdown_is_no_cancel(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/outlast.db"
    with Engine(url, patience="0s") as engine:
        handle = engine.start(through)
        while "a" not in RAN:
            handle.record()
        id = handle.id
    with Engine(url) as engine:
        handle = engine.execution(id)
        assert handle.wait("100s") is State.SUCCEEDED
        assert handle.result() == "a"
        kinds = {row.kind for row in handle.transitions()}
        assert SEEN == []
        assert Kind.RELEASE in kinds
        assert not kinds & {Kind.CANCEL, Kind.CANCEL_REQUESTED}
