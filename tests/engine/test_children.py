"""Tasks called in tasks: born with their parent's row, heard of once, cancelled with it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from outlast import After, Engine, Retry, Started, ask, sleep, step, task, wait_for
from outlast import blocking as wait
from outlast.errors import (
    ExecutionCancelled,
    ExecutionTimedOut,
    NotFound,
    OutsideExecution,
    UsageError,
)
from outlast.lifecycle import Kind, State
from outlast.testing import VirtualEngine, crash_everywhere

RAN: list[str] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    RAN.clear()


@step
async def note(text: str) -> str:
    RAN.append(text)
    return text


@task
async def double(n: int) -> int:
    await note(f"double {n}")
    return n * 2


@task
def triple(n: int) -> int:
    return n * 3


@task
async def broken(n: int) -> int:
    raise LookupError(f"no {n}")


@task
async def slow(n: int) -> int:
    await sleep("1h")
    await note(f"slow {n}")
    return n


def kinds(engine: VirtualEngine, id: str) -> list[str]:
    return [str(row.kind) for row in engine.store.log(id)]


def children(engine: VirtualEngine, id: str) -> list[Any]:
    from outlast.store.protocol import Filter

    return list(reversed(engine.store.page(Filter(parent_id=id))))


# Calls


def test_a_task_called_in_a_task_is_a_child(outlast_engine: VirtualEngine) -> None:
    @task
    async def parent() -> list[int]:
        first = await double(1)
        both = await asyncio.gather(double(first), triple(first))
        return [first, *both]

    handle = parent.start()
    assert handle.result() == [2, 4, 6]
    made = children(outlast_engine, handle.id)
    assert [(row.task, row.parent_key, row.state) for row in made] == [
        ("double", "double#1", State.SUCCEEDED),
        ("double", "double#2", State.SUCCEEDED),
        ("triple", "triple#1", State.SUCCEEDED),
    ]
    assert {row.root_id for row in made} == {handle.id}
    assert handle.record().children == 3
    assert outlast_engine.store.verify().defects == []


def test_a_def_task_calls_children_as_well(outlast_engine: VirtualEngine) -> None:
    @task
    def parent() -> int:
        return double(1) + triple(2)

    assert parent.start().result() == 8


def test_grandchildren_know_their_root(outlast_engine: VirtualEngine) -> None:
    @task
    async def middle(n: int) -> int:
        return await double(n) + 1

    @task
    async def top() -> int:
        return await middle(4)

    handle = top.start()
    assert handle.result() == 9
    (between,) = children(outlast_engine, handle.id)
    (below,) = children(outlast_engine, between.id)
    assert (below.parent_id, below.root_id) == (between.id, handle.id)


def test_what_a_child_raises_is_raised_where_it_is_awaited(outlast_engine: VirtualEngine) -> None:
    @task
    async def parent() -> str:
        try:
            await broken(7)
        except LookupError as error:
            return str(error)
        return "nothing"

    assert "no 7" in parent.start().result()


def test_a_child_that_is_cancelled_or_late_raises_that(outlast_engine: VirtualEngine) -> None:
    @task
    async def parent() -> list[str]:
        first = asyncio.create_task(slow(1))
        second = asyncio.create_task(slow.options(timeout="10s")(2))
        ends = await asyncio.gather(first, second, return_exceptions=True)
        return [type(end).__name__ for end in ends]

    handle = parent.start()
    outlast_engine.advance("20s")
    child = children(outlast_engine, handle.id)[0]
    outlast_engine.execution(child.id).cancel("enough")
    assert handle.result() == [ExecutionCancelled.__name__, ExecutionTimedOut.__name__]


def test_a_parent_parks_while_its_children_take_their_time(outlast_engine: VirtualEngine) -> None:
    @task
    async def parent() -> int:
        return sum(await asyncio.gather(*(slow(n) for n in range(20))))

    handle = parent.start()
    outlast_engine.advance("10s")
    assert handle.status() is State.WAITING
    reason = handle.reason()
    assert reason is not None and reason.code == "waiting_child"
    assert "12 more children" in reason.text
    outlast_engine.advance("1h")
    assert handle.result() == 190


def test_one_slot_is_enough_for_a_tree(tmp_path: Path) -> None:
    @task
    async def middle(n: int) -> int:
        return await double(n) + await triple(n)

    @task
    async def top() -> int:
        return await middle(1) + await middle(2)

    with Engine(f"sqlite:///{tmp_path}/outlast.db", slots=1) as engine:
        assert engine.start(top).result() == 15


def test_a_child_called_in_a_step_is_refused(outlast_engine: VirtualEngine) -> None:
    @step
    async def bad() -> int:
        return int(await double(1))

    @task
    async def parent() -> int:
        return await bad()

    with pytest.raises(UsageError, match="step's body"):
        parent.start().result()


def test_a_child_has_no_key_of_its_own(outlast_engine: VirtualEngine) -> None:
    @task
    async def parent() -> int:
        return int(await double.options(key="k")(1))

    with pytest.raises(UsageError, match="key"):
        parent.start().result()


def test_outside_an_execution_a_task_is_a_function() -> None:
    assert triple(2) == 6
    assert asyncio.run(double(2)) == 4
    with pytest.raises(OutsideExecution):
        double.continue_as_new(1)


# Crashes


def test_a_crash_anywhere_changes_nothing() -> None:
    @task
    async def parent() -> list[int]:
        first = await double(1)
        try:
            await broken(1)
        except LookupError:
            first += 10
        return [first, *await asyncio.gather(double(2), slow(3))]

    def story(engine: VirtualEngine) -> list[int]:
        handle = engine.start(parent)
        engine.advance("2h")
        return handle.result()

    assert crash_everywhere(story).result == [12, 4, 3]


def test_a_crash_in_a_def_task_changes_nothing() -> None:
    @task
    def parent() -> int:
        return double(1) + slow(3)

    def story(engine: VirtualEngine) -> int:
        handle = engine.start(parent)
        engine.advance("2h")
        return handle.result()

    assert crash_everywhere(story).result == 5


def test_a_retry_takes_over_the_children_of_the_try_before(outlast_engine: VirtualEngine) -> None:
    tries: list[int] = []

    @step
    async def flaky() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("once")

    @task(retries=Retry(2, base="1s"))
    async def parent() -> int:
        done = await double(1)
        under_way = asyncio.create_task(slow(5))
        await sleep("1s")
        await flaky()
        return done + await under_way

    handle = parent.start()
    outlast_engine.advance("3h")
    assert handle.result() == 7
    assert RAN == ["double 1", "slow 5"]
    assert handle.record().children == 2
    assert len(children(outlast_engine, handle.id)) == 2


# Cancel


def test_cancel_takes_the_whole_tree(outlast_engine: VirtualEngine) -> None:
    @task
    async def middle() -> int:
        return await slow(1)

    @task
    async def top() -> int:
        return sum(await asyncio.gather(middle(), middle()))

    handle = top.start()
    outlast_engine.advance("10s")
    handle.cancel("enough")
    outlast_engine.advance("1s")
    assert handle.status() is State.CANCELLED
    states = [row.state for row in outlast_engine.store.page(_all())]
    assert states == [State.CANCELLED] * 5
    outlast_engine.advance("2h")
    assert RAN == []


def _all() -> Any:
    from outlast.store.protocol import Filter

    return Filter()


def test_a_child_nobody_waits_for_any_more_is_cancelled(outlast_engine: VirtualEngine) -> None:
    @task
    async def parent() -> str:
        try:
            async with asyncio.timeout(5):
                await slow(1)
        except TimeoutError:
            await sleep("10s")
            return "in time"
        return "late"

    handle = parent.start()
    outlast_engine.advance("6s")
    (child,) = children(outlast_engine, handle.id)
    assert (child.state, child.detail["by"]) == (State.CANCELLED, "parent")
    assert handle.status() is State.WAITING
    outlast_engine.advance("10s")
    assert handle.result() == "in time"


def test_giving_a_child_up_survives_a_crash_anywhere() -> None:
    @task
    async def parent() -> str:
        done, _ = await asyncio.wait(
            {asyncio.create_task(slow(1)), asyncio.create_task(double(2))},
            return_when=asyncio.FIRST_COMPLETED,
        )
        return str(done.pop().result())

    def story(engine: VirtualEngine) -> tuple[str, list[State]]:
        handle = engine.start(parent)
        result = handle.result()
        engine.advance("1s")
        return result, sorted(row.state for row in children(engine, handle.id))

    assert crash_everywhere(story).result == ("4", [State.CANCELLED, State.SUCCEEDED])


def test_the_end_of_a_parent_ends_what_it_left(outlast_engine: VirtualEngine) -> None:
    @task
    async def parent() -> str:
        asyncio.create_task(slow(1))  # noqa: RUF006 - left behind on purpose
        await sleep("1s")
        return "gone"

    handle = parent.start()
    outlast_engine.advance("2s")
    assert handle.result() == "gone"
    assert [row.state for row in children(outlast_engine, handle.id)] == [State.CANCELLED]


def test_a_parked_cancel_runs_the_codes_own_clean_up(outlast_engine: VirtualEngine) -> None:
    @task
    async def careful() -> None:
        try:
            await sleep("1d")
        except asyncio.CancelledError:
            await note("refunded")
            raise

    handle = careful.start()
    outlast_engine.advance("1s")
    assert handle.status() is State.WAITING
    handle.cancel("changed my mind")
    assert handle.wait() is State.CANCELLED
    assert RAN == ["refunded"]
    assert (handle.record().detail or {})["why"] == "changed my mind"


def test_a_paused_cancel_runs_it_as_well(outlast_engine: VirtualEngine) -> None:
    @task
    async def careful() -> None:
        try:
            await ask("Go on?")
        finally:
            await note("closed")

    handle = careful.start()
    outlast_engine.advance("1s")
    handle.pause()
    handle.cancel()
    assert handle.wait() is State.CANCELLED
    assert RAN == ["closed"]


def test_a_def_tasks_clean_up_runs_too(outlast_engine: VirtualEngine) -> None:
    @step
    def record(text: str) -> None:
        RAN.append(text)

    @task
    def careful() -> None:
        try:
            wait.sleep("1d")
        finally:
            record("closed")

    handle = careful.start()
    outlast_engine.advance("1s")
    handle.cancel()
    assert handle.wait() is State.CANCELLED
    assert RAN == ["closed"]


def test_code_without_clean_up_is_ended_at_once(outlast_engine: VirtualEngine) -> None:
    handle = slow.start(1)
    outlast_engine.advance("1s")
    handle.cancel()
    assert kinds(outlast_engine, handle.id)[-1] == Kind.CANCEL
    assert Kind.CANCEL_REQUESTED not in kinds(outlast_engine, handle.id)


def test_clean_up_after_a_parked_cancel_survives_a_crash_anywhere() -> None:
    @task
    async def careful() -> None:
        try:
            await wait_for("go")
        except asyncio.CancelledError:
            await note("one")
            await sleep("5s")
            await note("two")
            raise

    def story(engine: VirtualEngine) -> tuple[State, Any]:
        handle = engine.start(careful)
        engine.advance("1s")
        handle.cancel("so")
        engine.advance("10s")
        return handle.wait(), (handle.record().detail or {})["why"]

    assert crash_everywhere(story).result == (State.CANCELLED, "so")


# Starting without waiting


def test_a_started_execution_goes_its_own_way(outlast_engine: VirtualEngine) -> None:
    @task
    async def parent() -> str:
        started = await slow.astart(1)
        assert isinstance(started, Started)
        return started.id

    handle = parent.start()
    id = handle.result()
    outlast_engine.advance("2h")
    assert outlast_engine.execution(id).result() == 1
    (child,) = children(outlast_engine, handle.id)
    assert (child.id, child.parent_key) == (id, None)


def test_a_start_is_made_once_whatever_crashes() -> None:
    @task
    async def parent() -> int:
        await double.astart(1)
        await sleep("1s")
        await double.options(priority=3).astart(2)
        return 1

    def story(engine: VirtualEngine) -> int:
        handle = engine.start(parent)
        engine.advance("5s")
        assert handle.result() == 1
        return len(children(engine, handle.id))

    assert crash_everywhere(story).result == 2


def test_a_def_task_starts_as_well(outlast_engine: VirtualEngine) -> None:
    @task
    def parent() -> str:
        return str(double.start(4).id)

    id = parent.start().result()
    assert outlast_engine.execution(id).result() == 8


# Going on as a new execution


@task
async def count(n: int, until: int) -> int:
    await note(f"round {n}")
    if n < until:
        count.continue_as_new(n + 1, until)
    return n


def test_a_task_goes_on_as_a_new_execution(outlast_engine: VirtualEngine) -> None:
    handle = count.start(1, 4)
    assert handle.result() == 4
    assert RAN == ["round 1", "round 2", "round 3", "round 4"]
    assert len(outlast_engine.store.page(_all())) == 4
    assert len(outlast_engine.store.log(handle.id)) <= 6


def test_a_parent_waits_for_the_last_one(outlast_engine: VirtualEngine) -> None:
    @task
    async def parent() -> int:
        return await count(1, 3) + 10

    assert parent.start().result() == 13


def test_going_on_survives_a_crash_anywhere() -> None:
    @task
    async def parent() -> int:
        return await count(1, 3)

    assert crash_everywhere(lambda engine: engine.start(parent).result()).result == 3


def test_unread_signals_go_along() -> None:
    @task
    async def collect(so_far: list[int]) -> list[int]:
        got = await wait_for("number", int)
        if len(so_far) < 2:
            collect.continue_as_new([*so_far, got])
        return [*so_far, got]

    def story(engine: VirtualEngine) -> list[int]:
        handle = engine.start(collect, [])
        for n in range(3):
            handle.signal("number", n, id=f"m{n}")
        return handle.result()

    assert crash_everywhere(story).result == [0, 1, 2]


def test_signals_that_came_while_it_was_held_go_along(outlast_engine: VirtualEngine) -> None:
    """They stand in its log when its code goes on, and the code ends with the first of them."""

    @task
    async def gather(so_far: list[int]) -> list[int]:
        got = await wait_for("number", int)
        if len(so_far) < 2:
            gather.continue_as_new([*so_far, got])
        return [*so_far, got]

    handle = gather.start([])
    outlast_engine.advance("1m")
    handle.pause()
    for n in range(3):
        handle.signal("number", n)
    handle.resume()
    assert handle.result() == [0, 1, 2]


# Dependencies


def test_executions_start_after_those_they_depend_on(outlast_engine: VirtualEngine) -> None:
    first = slow.start(1)
    second = double.options(after=first).start(2)
    third = double.options(after=[first, second]).start(3)
    reason = second.reason()
    assert reason is not None and (reason.code, first.id in reason.text) == ("dependency", True)
    outlast_engine.advance("2h")
    assert (second.result(), third.result()) == (4, 6)
    assert RAN == ["slow 1", "double 2", "double 3"]


def test_a_failure_upstream_cancels_or_holds_or_lets_go(outlast_engine: VirtualEngine) -> None:
    first = broken.options(delay="1m").start(1)
    cancelled = double.options(after=first).start(1)
    held = double.options(after=After(first, or_else="hold")).start(2)
    lets_go = double.options(after=After(first, need="end")).start(3)
    outlast_engine.advance("2m")
    assert lets_go.result() == 6
    with pytest.raises(ExecutionCancelled, match="upstream"):
        cancelled.result()
    reason = held.reason()
    assert reason is not None and reason.code == "dependency_failed"
    held.resume()
    assert held.result() == 4


def test_a_dependency_must_be_there(outlast_engine: VirtualEngine) -> None:
    with pytest.raises(NotFound, match="shall start after"):
        double.options(after="ex_nothing").start(1)
    with pytest.raises(UsageError):
        double.options(after=After("ex_1", need="luck")).start(1)  # type: ignore[arg-type]


def test_a_graph_survives_a_crash_anywhere() -> None:
    def story(engine: VirtualEngine) -> list[int]:
        first = slow.start(1)
        left, right = (double.options(after=first).start(n) for n in (1, 2))
        last = triple.options(after=[left, right]).start(5)
        engine.advance("2h")
        return [one.result() for one in (first, left, right, last)]

    assert crash_everywhere(story).result == [1, 2, 4, 15]
