"""Executions made of others: rerun, fork, recover, retry."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import outlast
import outlast.errors
from outlast import State, sleep, step, task, testing
from outlast.engine.control.descent import steps_of
from outlast.errors import BadPayload, NotRecoverable, UnknownStep, WrongArguments
from outlast.store.protocol import Filter

CALLS: list[tuple[str, Any]] = []
BROKEN: set[str] = set()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    CALLS.clear()
    BROKEN.clear()


def _did(name: str, value: Any) -> None:
    CALLS.append((name, value))
    if name in BROKEN:
        raise ValueError(f"{name} is broken")


@step
async def reserve(order: int) -> int:
    _did("reserve", order)
    return order + 1


@step
async def charge(cents: int) -> str:
    _did("charge", cents)
    return f"paid {cents}"


@step
async def ship(receipt: str) -> str:
    _did("ship", outlast.this_step().idempotency_key)
    return f"shipped, {receipt}"


@task
async def order(number: int, cents: int = 500) -> str:
    reserved = await reserve(number)
    await sleep("3d")
    receipt = await charge(cents)
    dice = outlast.random().random()
    shipped = await ship(receipt)
    return f"{reserved} {shipped} {dice}"


def names() -> list[str]:
    return [name for name, _ in CALLS]


def test_a_rerun_begins_again_from_nothing() -> None:
    with testing.engine() as engine:
        first = engine.start(order, 1)
        engine.advance("4d")
        result = first.result()
        again = first.rerun()
        engine.advance("4d")
        assert again.id != first.id
        assert names() == ["reserve", "charge", "ship"] * 2
        assert again.result() != result  # other dice
        assert again.transitions()[0].data["from"] == {"id": first.id, "mode": "rerun"}


def test_an_edited_rerun_is_read_by_the_types_of_the_task() -> None:
    with testing.engine() as engine:
        first = engine.start(order, 1)
        engine.advance("4d")
        again = first.rerun(cents=7)
        engine.advance("4d")
        assert ("charge", 7) in CALLS
        assert again.result().startswith("2 shipped, paid 7")
        before = len(engine.executions())
        with pytest.raises(BadPayload):
            first.rerun(cents="seven")
        with pytest.raises(WrongArguments):
            first.rerun(dollars=7)
        assert len(engine.executions()) == before


def test_a_recovery_reuses_what_is_finished_and_waits_for_no_timer_again() -> None:
    BROKEN.add("ship")
    with testing.engine() as engine:
        first = engine.start(order, 1)
        engine.advance("4d")
        assert first.wait() is State.FAILED
        log = first.transitions()
        BROKEN.clear()
        CALLS.clear()
        again = first.recover(why="mended")
        assert again.result().startswith("2 shipped, paid 500")
        assert [("ship", f"{first.id}:ship#1")] == CALLS  # under the name that it had
        assert first.transitions() == log
        assert again.transitions()[0].data["from"]["why"] == "mended"
        with pytest.raises(NotRecoverable):
            again.recover()


def test_a_fork_goes_its_own_way_from_a_step() -> None:
    with testing.engine() as engine:
        first = engine.start(order, 1)
        engine.advance("4d")
        result = first.result()
        for named in ("charge#1", "charge", 2):
            CALLS.clear()
            fork = first.fork(from_step=named)
            assert fork.result().startswith("2 shipped, paid 500")
            assert fork.result() != result
            assert names() == ["charge", "ship"]
            assert fork.transitions()[0].data["from"]["step"] == "charge#1"
        CALLS.clear()
        edited = first.fork(from_step="charge", cents=9)
        assert edited.result().startswith("2 shipped, paid 9")
        assert names() == ["charge", "ship"]
        with pytest.raises(UnknownStep, match="no step pay") as error:
            first.fork(from_step="pay")
        assert "reserve#1, charge#1, ship#1" in error.value.why


def test_a_recovery_keeps_what_was_finished_before_a_try_that_never_began() -> None:
    @task(retries=outlast.Retry(1, base="1h", jitter=0))
    async def in_two_tries() -> str:
        receipt = await charge(300)
        return await ship(receipt)

    BROKEN.add("ship")
    with testing.engine(tasks=[in_two_tries]) as engine:
        first = in_two_tries.start()
        engine.advance("1m")
        assert first.status() is State.RETRY_WAIT
        first.cancel()
        assert first.status() is State.CANCELLED
        BROKEN.clear()
        again = first.recover()
        assert again.result() == "shipped, paid 300"
        assert [name for name, _ in CALLS] == ["charge", "ship", "ship"]
        assert engine.store.verify().defects == []


def test_retry_of_one_that_failed_recovers_it() -> None:
    BROKEN.add("charge")
    with testing.engine() as engine:
        first = engine.start(order, 1)
        engine.advance("4d")
        assert first.wait() is State.FAILED
        BROKEN.clear()
        assert first.retry().result().startswith("2 shipped")
        assert names() == ["reserve", "charge", "charge", "ship"]


def test_a_kill_at_any_moment_changes_nothing_of_a_fork_and_a_recovery() -> None:
    def scenario(engine: testing.CrashingEngine) -> Any:
        BROKEN.clear()
        first = engine.start(order, 1)
        engine.advance("4d")
        fork = first.fork(from_step="charge", cents=9)
        BROKEN.add("ship")
        second = engine.start(order, 2)
        engine.advance("4d")
        BROKEN.clear()
        again = second.recover()
        return [fork.result()[:20], again.result()[:20], second.status()]

    report = testing.crash_everywhere(scenario)
    assert report.points


@step(retries=3)
async def flaky(place: int) -> int:
    CALLS.append(("flaky", place))
    if outlast.this_step().attempt == 1:
        raise ValueError("once")
    return place


@task
async def many(count: int) -> int:
    total = 0
    for place in range(count):
        total += await reserve(place)
    return total + len(await charge(total))


def test_ten_thousand_steps_are_reused() -> None:
    BROKEN.add("charge")
    with testing.engine() as engine:
        first = engine.start(many, 10_000)
        assert first.wait() is State.FAILED
        BROKEN.clear()
        CALLS.clear()
        again = first.recover()
        assert again.result() > 10_000
        assert names() == ["charge"]
        assert len(steps_of(again.transitions())) == 10_001


@task(retries=outlast.Retry(1, base="1h", jitter=0))
async def stubborn() -> str:
    await reserve(1)
    said = await outlast.ask("sure?")
    return f"{said} {await charge(1)}"


def test_what_an_earlier_try_had_is_reused_too() -> None:
    BROKEN.add("charge")
    with testing.engine() as engine:
        first = engine.start(stubborn)
        first.answer(True)
        assert first.status() is State.RETRY_WAIT
        first.retry()
        assert first.wait() is State.FAILED
        again = first.recover()  # fails once more, and is tried again by itself
        assert again.status() is State.RETRY_WAIT
        BROKEN.clear()
        assert again.retry() is again
        assert again.result() == "True paid 1"
        assert names() == ["reserve", "charge", "charge", "charge", "charge"]
        assert engine.store.verify().defects == []


@task
async def patient() -> bool:
    return await outlast.ask("well?", timeout="1d")


def test_a_wait_that_was_in_vain_is_waited_again() -> None:
    with testing.engine() as engine:
        first = engine.start(patient)
        engine.advance("2d")
        assert first.wait() is State.FAILED
        again = first.recover()
        assert [question.title for question in engine.pending(again)] == ["well?"]
        again.answer(True)
        assert again.result() is True


@task
async def hurried() -> bool:
    await reserve(1)
    return await outlast.ask("well?", timeout="1d", default=False)


def test_a_wait_under_way_keeps_the_time_that_it_had_left() -> None:
    with testing.engine() as engine:
        first = engine.start(hurried)
        engine.advance("18h")
        first.cancel("no")
        engine.advance("30d")
        again = first.recover()
        (asked,) = engine.pending(again)
        assert asked.until == engine.clock.now() + 86_400_000_000  # it waited for nothing since
        engine.advance("23h")
        assert again.status() is State.AWAITING_INPUT
        engine.advance("1h")
        assert again.result() is False


def test_a_purge_of_the_source_does_no_harm() -> None:
    with testing.engine() as engine:
        first = engine.start(order, 1)
        engine.advance("4d")
        fork = first.fork(from_step="ship")
        engine.store.purge([first.id])
        twice = fork.fork(from_step="ship")
        assert fork.result().startswith("2 shipped")
        assert twice.result().startswith("2 shipped")
        assert names() == ["reserve", "charge", "ship", "ship", "ship"]


def test_what_a_fork_is_made_of_may_still_go_on() -> None:
    with testing.engine() as engine:
        first = engine.start(order, 1)
        engine.advance("1d")
        fork = first.fork(from_step="reserve")
        assert names() == ["reserve", "reserve"]
        engine.advance("4d")
        assert first.result().startswith("2 shipped")
        assert fork.result().startswith("2 shipped")


def test_an_answer_to_another_question_is_not_reused() -> None:
    @task
    async def asks(what: str) -> list[bool]:
        return [await outlast.ask(f"{what}?"), await outlast.ask("really?")]

    with testing.engine() as engine:
        first = engine.start(asks, "this")
        first.answer(True)
        first.answer(True)
        fork = first.fork(from_step="ask#2", what="that")
        assert [question.title for question in engine.pending(fork)] == ["that?"]
        fork.answer(False)
        assert [question.title for question in engine.pending(fork)] == ["really?"]


@task(labels={"team": "tea", "kind": "slow"})
async def labelled() -> None:
    await outlast.wait_for("end")


def test_labels_come_from_the_task_the_start_and_later() -> None:
    with testing.engine() as engine:
        plain = engine.start(labelled)
        other = labelled.options(labels={"team": "jam"}, priority=3).start()
        assert plain.record().labels == {"team": "tea", "kind": "slow"}
        assert other.record().labels == {"team": "jam", "kind": "slow"}
        plain.label(kind=None, owner="ann")
        assert plain.record().labels == {"team": "tea", "owner": "ann"}
        other.prioritize(-1)
        assert other.record().priority == -1
        again = plain.rerun()
        assert again.record().labels == {"team": "tea", "owner": "ann"}
        with pytest.raises(outlast.errors.UsageError):
            plain.label(team=7)  # type: ignore[arg-type]
        with pytest.raises(outlast.errors.UsageError):
            plain.prioritize(2**40)
        with pytest.raises(outlast.errors.UsageError):
            labelled.options(priority=2**40).start()
        with pytest.raises(outlast.errors.UsageError):
            labelled.options(labels={"": "x"}).start()
        found = engine.store.page(Filter(labels={"team": "tea", "owner": "ann"}))
        assert [record.id for record in found] == [again.id, plain.id]


@step
async def slow() -> str:
    await asyncio.sleep(10)
    return "done"


@task
async def slowly() -> str:
    return await slow()


def test_labels_and_priority_reach_one_that_runs() -> None:
    with testing.engine() as engine:
        running = engine.start(slowly)
        running.label(team="x")
        running.prioritize(5)
        assert (running.record().labels, running.record().priority) == ({"team": "x"}, 5)
        engine.advance("1m")
        assert running.result() == "done"
        assert engine.store.verify().defects == []


@task
async def part(number: int) -> int:
    _did("part", number)
    return await reserve(number)


@task
async def whole() -> str:
    first = await part(1)
    second = await part(2)
    return await charge(first + second)


def test_a_recovery_makes_no_child_again_that_succeeded() -> None:
    BROKEN.add("charge")
    with testing.engine() as engine:
        first = engine.start(whole)
        assert first.wait() is State.FAILED
        BROKEN.clear()
        CALLS.clear()
        again = first.recover()
        assert again.result() == "paid 5"
        assert names() == ["charge"]
        assert first.fork(from_step="part#2").result() == "paid 5"
        assert CALLS == [("charge", 5), ("part", 2), ("reserve", 2), ("charge", 5)]
        BROKEN.add("part")
        failing = engine.start(whole)
        assert failing.wait() is State.FAILED
        BROKEN.clear()
        assert failing.recover().result() == "paid 5"
        assert engine.store.verify().defects == []


def test_a_recovery_is_not_pinned_to_the_code_that_failed() -> None:
    async def pinned() -> str:
        return await charge(1)

    BROKEN.add("charge")
    old = task(name="pinned", version="1", pin=True)(pinned)
    with testing.engine() as engine:
        first = engine.start(old)
        assert first.wait() is State.FAILED
        BROKEN.clear()
        task(name="pinned", version="2", pin=True)(pinned)
        again = first.recover()
        assert again.result() == "paid 1"
        assert again.record().version == "2"
