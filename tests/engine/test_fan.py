"""One call for each of many items, in both colours of task, over steps and children."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from outlast import blocking as wait
from outlast import saga, sleep, step, task
from outlast.errors import UndoFailed, UsageError, WrongColour
from outlast.lifecycle import State
from outlast.testing import VirtualEngine, crash_everywhere

RAN: list[str] = []
UNDER_WAY: list[int] = [0, 0]


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    RAN.clear()
    UNDER_WAY[:] = [0, 0]


@step
async def square(n: int) -> int:
    UNDER_WAY[0] += 1
    UNDER_WAY[1] = max(UNDER_WAY)
    await asyncio.sleep(0.001 * (5 - n % 5))
    UNDER_WAY[0] -= 1
    if n == 13:
        raise LookupError("thirteen")
    return n * n


@step
def cube(n: int) -> int:
    if n == 13:
        raise LookupError("thirteen")
    return n**3


@task
async def child(n: int) -> int:
    await sleep(f"{10 - n % 10}m")
    return -n


# Many items


def test_results_come_in_the_order_of_the_items(outlast_engine: VirtualEngine) -> None:
    @task
    async def parent() -> list[int]:
        return await square.map(range(10), limit=3)

    handle = parent.start()
    outlast_engine.advance("1s")
    assert handle.result() == [n * n for n in range(10)]
    assert UNDER_WAY == [0, 3]


def test_children_and_def_steps_in_an_async_task(outlast_engine: VirtualEngine) -> None:
    @task
    async def parent() -> list[Any]:
        return [await child.map(range(4), limit=2), await cube.amap([1, 2, 3])]

    handle = parent.start()
    outlast_engine.advance("1h")
    assert handle.result() == [[0, -1, -2, -3], [1, 8, 27]]


def test_a_def_task_fans_out_over_steps_and_children(outlast_engine: VirtualEngine) -> None:
    @task
    def parent() -> list[Any]:
        return [cube.map(range(5), limit=2), child.map(range(3)), cube(2), cube.map([])]

    handle = parent.start()
    outlast_engine.advance("1h")
    assert handle.result() == [[0, 1, 8, 27, 64], [0, -1, -2], 8, []]


def test_def_steps_of_a_def_task_run_at_the_same_time(tmp_path: Any) -> None:
    from outlast import Engine

    both = threading.Barrier(2)

    @step
    def meet(n: int) -> int:
        both.wait(100)
        return n

    @task
    def parent() -> list[int]:
        return meet.map([1, 2])

    with Engine(f"sqlite:///{tmp_path}/outlast.db") as engine:
        assert engine.start(parent).result("100s") == [1, 2]


def test_an_error_is_raised_or_collected(outlast_engine: VirtualEngine) -> None:
    @task
    async def parent(policy: str) -> list[str]:
        ends = await square.map([1, 13, 3], on_error=policy)  # type: ignore[arg-type]
        return [str(end) for end in ends]

    @task
    def other(policy: str) -> list[str]:
        return [str(end) for end in cube.map([1, 13, 3], on_error=policy)]  # type: ignore[arg-type]

    handle = parent.start("collect")
    outlast_engine.advance("1s")
    assert handle.result() == ["1", "thirteen", "9"]
    assert other.start("collect").result() == ["1", "thirteen", "27"]
    for one in (parent, other):
        handle = one.start("raise")
        outlast_engine.advance("1s")
        with pytest.raises(LookupError, match="thirteen"):
            handle.result()


def test_the_first_error_gives_the_others_up(outlast_engine: VirtualEngine) -> None:
    @task
    async def fails(n: int) -> int:
        if n == 1:
            raise LookupError("one")
        await sleep("1d")
        return n

    @task
    def parent() -> str:
        try:
            fails.map([0, 1, 2])
        except LookupError as error:
            return str(error)
        return "none"

    handle = parent.start()
    assert handle.result() == "one"
    outlast_engine.advance("1s")
    states = sorted(one.status() for one in outlast_engine.executions() if one.id != handle.id)
    assert states == [State.CANCELLED, State.CANCELLED, State.FAILED]


@pytest.mark.parametrize("colour", ["async", "def"])
def test_a_crash_anywhere_changes_nothing(colour: str) -> None:
    @task
    async def coroutine() -> list[Any]:
        return [await square.map(range(4), limit=2), await child.map(range(3), limit=2)]

    @task
    def function() -> list[Any]:
        return [cube.map(range(4), limit=2), child.map(range(3), limit=2)]

    def story(engine: VirtualEngine) -> list[Any]:
        handle = engine.start(coroutine if colour == "async" else function)
        engine.advance("1h")
        return handle.result()

    powers = [n * n for n in range(4)] if colour == "async" else [n**3 for n in range(4)]
    assert crash_everywhere(story).result == [powers, [0, -1, -2]]


def test_outside_an_execution_it_is_a_loop() -> None:
    assert cube.map([1, 2]) == [1, 8]
    assert asyncio.run(square.map([3, 4], limit=1)) == [9, 16]


def test_nonsense_is_refused(outlast_engine: VirtualEngine) -> None:
    @task
    async def parent(limit: int) -> list[int]:
        return await square.map([1], limit=limit)

    @task
    async def wrong() -> list[int]:
        return cube.map([1])

    with pytest.raises(UsageError, match="at once"):
        parent.start(0).result()
    with pytest.raises(WrongColour, match="amap"):
        wrong.start().result()


# Undoing


@step
async def do(what: str) -> str:
    RAN.append(what)
    return what


@step
def do_plainly(what: str) -> None:
    RAN.append(what)


@step
async def undo_badly(what: str) -> None:
    raise OSError(f"cannot undo {what}")


@task
async def order(then: str) -> str:
    async with saga() as undo:
        paid = await do("pay")
        undo(do, f"refund {paid}")
        await do("reserve")
        undo(do_plainly, "release")
        if then == "fail":
            raise LookupError("no parcel")
        if then == "wait":
            await sleep("1d")
        await do("ship")
    return "shipped"


@pytest.mark.parametrize(
    ("then", "ran"),
    [("ship", ["pay", "reserve", "ship"]), ("fail", ["pay", "reserve", "release", "refund pay"])],
)
def test_what_was_done_is_undone_in_reverse(
    outlast_engine: VirtualEngine, then: str, ran: list[str]
) -> None:
    handle = order.start(then)
    if then == "fail":
        with pytest.raises(LookupError):
            handle.result()
    else:
        assert handle.result() == "shipped"
    assert ran == RAN


def test_a_cancel_undoes_also_where_it_is_parked() -> None:
    def story(engine: VirtualEngine) -> tuple[State, list[str]]:
        RAN.clear()
        handle = engine.start(order, "wait")
        engine.advance("1h")
        handle.cancel("changed my mind")
        state = handle.wait()
        return state, sorted(set(RAN))

    done = ["pay", "refund pay", "release", "reserve"]
    assert crash_everywhere(story).result == (State.CANCELLED, done)


def test_parking_undoes_nothing(outlast_engine: VirtualEngine) -> None:
    handle = order.start("wait")
    outlast_engine.advance("2d")
    assert handle.result() == "shipped"
    assert RAN == ["pay", "reserve", "ship"]


def test_one_that_cannot_be_undone_stops_no_other(outlast_engine: VirtualEngine) -> None:
    @task
    async def parent() -> None:
        async with saga() as undo:
            undo(do, "first")
            undo(undo_badly, "second")
            undo(do, "third")
            raise LookupError("so")

    with pytest.raises(UndoFailed, match="cannot undo second"):
        parent.start().result()
    assert RAN == ["third", "first"]


def test_a_def_task_undoes_as_well(outlast_engine: VirtualEngine) -> None:
    @task
    def parent() -> None:
        with wait.saga() as undo:
            do_plainly("pay")
            undo(do_plainly, "refund")
            raise LookupError("so")

    with pytest.raises(LookupError):
        parent.start().result()
    assert RAN == ["pay", "refund"]


def test_only_what_is_recorded_may_undo(outlast_engine: VirtualEngine) -> None:
    @task
    async def parent() -> None:
        async with saga() as undo:
            undo(print, "refund")

    with pytest.raises(WrongColour, match="no step"):
        parent.start().result()
