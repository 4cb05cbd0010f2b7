"""The deterministic loop: order, time, branches, refusals."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextvars import copy_context
from typing import Any

import pytest

from outlast.engine.replay.loop import BranchTask, DeterministicLoop, _Parked
from outlast.engine.replay.scope import _leak
from outlast.errors import InternalError, NotDurable

START = 1_700_000_000_000_000
Main = Callable[[], Coroutine[Any, Any, Any]]
made: list[DeterministicLoop] = []


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Unwind what a test leaves suspended, as a scope does."""
    yield
    for loop in made:
        loop.close()
        for task in reversed(loop.live_tasks()):
            loop.unwind(task)
    made.clear()


def make(main: Main) -> tuple[DeterministicLoop, BranchTask]:
    loop: DeterministicLoop = DeterministicLoop()  # type: ignore[abstract]
    loop.now_us = START
    made.append(loop)
    return loop, loop.create_main(main(), copy_context())


def start(main: Main) -> tuple[DeterministicLoop, BranchTask]:
    loop, task = make(main)
    loop.run_until_quiet()
    return loop, task


def run(main: Main) -> Any:
    """Run a program to its end, firing its timers in order."""
    loop, task = start(main)
    while not task.done() and (timer := loop.next_timer()) is not None:
        loop.now_us = timer.deadline_at
        loop.fire(timer)
        loop.run_until_quiet()
    return task.result()


def here() -> str:
    task = asyncio.current_task()
    assert isinstance(task, BranchTask)
    return task.branch.path


# Order and time


def test_callbacks_run_in_the_order_they_came() -> None:
    seen: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for number in range(5):
            loop.call_soon(seen.append, number)
        loop.call_soon(seen.append, 9).cancel()

    start(main)
    assert seen == [0, 1, 2, 3, 4]


def test_time_is_what_was_set() -> None:
    async def main() -> float:
        await asyncio.sleep(2.5)
        return asyncio.get_running_loop().time()

    assert run(main) == (START + 2_500_000) / 1e6


def test_timers_are_numbered_as_they_are_made_and_due_by_deadline() -> None:
    seen: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(3, seen.append, "late")
        loop.call_later(1, seen.append, "early")
        loop.call_later(1, seen.append, "early too")
        loop.call_at(loop.time() + 2, seen.append, "middle")

    loop, _ = start(main)
    fired = []
    while (timer := loop.next_timer()) is not None:
        fired.append((timer.number, timer.deadline_at - START))
        loop.fire(timer)
        loop.run_until_quiet()
    assert seen == ["early", "early too", "middle", "late"]
    assert fired == [(2, 1_000_000), (3, 1_000_000), (4, 2_000_000), (1, 3_000_000)]


@pytest.mark.parametrize("delay", [0, -1, 1e-7])
def test_a_timer_whose_time_has_come_needs_no_row(delay: float) -> None:
    seen: list[int] = []

    async def main() -> None:
        asyncio.get_running_loop().call_later(delay, seen.append, 1)
        await asyncio.sleep(delay)

    loop, task = start(main)
    assert task.done()
    assert seen == [1]
    assert loop.next_timer() is None


def test_cancelled_timers_leave_no_trace() -> None:
    async def main() -> None:
        for _ in range(1_000):
            async with asyncio.timeout(60):
                pass
        await asyncio.sleep(1)

    loop, _ = start(main)
    timer = loop.next_timer()
    assert timer is not None
    assert timer.deadline_at == START + 1_000_000
    assert len(loop._timers) < 200
    assert len(loop._armed) == 1


def test_a_sleep_without_end_arms_nothing() -> None:
    async def main() -> None:
        await asyncio.sleep(math.inf)

    loop, task = start(main)
    assert loop.next_timer() is None
    assert not task.done()


@pytest.mark.parametrize("delay", [3e-6, 0.1, 0.3, 1.100001, 86_400.000007])
def test_call_later_and_timeout_agree_on_the_deadline(delay: float) -> None:
    async def main() -> tuple[int, int]:
        loop: Any = asyncio.get_running_loop()
        timer = loop.call_later(delay, print)
        async with asyncio.timeout(delay):
            (other,) = [t for n, t in loop._armed.items() if n != timer.number]
            return timer.deadline_at, other.deadline_at

    one, other = run(main)
    assert one == other == START + round(delay * 1e6)


# Branches


def test_branches_are_numbered_under_their_parent() -> None:
    async def leaf(depth: int) -> list[Any]:
        if not depth:
            return [here()]
        return [here(), *await asyncio.gather(leaf(depth - 1), leaf(depth - 1))]

    async def main() -> Any:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(leaf(0))
        return [await leaf(1), await leaf(1), await task]

    assert run(main) == [["", ["2"], ["3"]], ["", ["4"], ["5"]], ["1"]]

    async def nested() -> Any:
        return await asyncio.gather(leaf(1), leaf(0))

    assert run(nested) == [["1", ["1.1"], ["1.2"]], ["2"]]


def test_names_are_the_same_in_every_replay() -> None:
    async def name() -> str:
        task = asyncio.current_task()
        assert task is not None
        return task.get_name()

    async def main() -> Any:
        return await name(), *await asyncio.gather(name(), asyncio.create_task(name(), name="x"))

    assert run(main) == run(main) == ("main", "2", "x")


@pytest.mark.parametrize("timeout", [None, 0, -1, 5])
def test_wait_for_is_the_branch_of_its_caller(timeout: float | None) -> None:
    seen: list[str] = []

    async def inner() -> None:
        seen.append(here())
        await asyncio.wait_for(deeper(), timeout)

    async def deeper() -> None:
        seen.append(here())
        await asyncio.sleep(0)

    async def child() -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(inner(), timeout)
        seen.append((await asyncio.gather(path()))[0])

    async def path() -> str:
        return here()

    async def main() -> None:
        await asyncio.create_task(child())

    run(main)
    assert seen == (["1.1"] if timeout is not None and timeout <= 0 else ["1", "1", "1.1"])


async def _wait_for(seconds: float, inner: Coroutine[Any, Any, Any]) -> Any:
    return await asyncio.wait_for(inner, seconds)


async def _timeout(seconds: float, inner: Coroutine[Any, Any, Any]) -> Any:
    async with asyncio.timeout(seconds):  # what wait_for is from 3.12 on
        return await inner


@pytest.mark.parametrize("how", ["returns", "raises", "times out", "at once", "is cancelled"])
def test_wait_for_takes_no_more_turns_than_a_timeout(how: str) -> None:
    def order(limited: Callable[[float, Coroutine[Any, Any, Any]], Any]) -> list[Any]:
        seen: list[Any] = []

        async def inner() -> int:
            seen.append("in")
            try:
                if how == "times out":
                    await asyncio.sleep(9)
                elif how != "at once":
                    await asyncio.sleep(1)
                if how == "raises":
                    raise ValueError
            finally:
                seen.append("out")
                wake.set()
            return 1

        async def other(number: int) -> None:
            for turn in range(4):
                seen.append((number, turn))
                await asyncio.sleep(0)
            await wake.wait()
            for turn in range(6):
                seen.append((number, turn))
                await asyncio.sleep(0)

        async def caller() -> None:
            try:
                seen.append(await limited(3, inner()))
            except BaseException as error:
                seen.append(type(error).__name__)

        async def main() -> None:
            others = [asyncio.create_task(other(1))]
            task = asyncio.create_task(caller())
            others.append(asyncio.create_task(other(2)))
            if how == "is cancelled":
                await asyncio.sleep(0.5)
                task.cancel()
            await asyncio.gather(task, *others)

        wake = asyncio.Event()
        run(main)
        return seen

    assert order(_wait_for) == order(_timeout)


def test_tasks_that_nobody_holds_are_held() -> None:
    seen: list[int] = []

    async def child() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            seen.append(1)

    async def main() -> None:
        for _ in range(200):
            _ = asyncio.create_task(child())  # noqa: RUF006
        await asyncio.sleep(1)

    loop, _ = start(main)
    gc.collect()
    assert len(loop.live_tasks()) == 201
    assert seen == []


def test_tasks_that_have_ended_are_let_go() -> None:
    async def child() -> None:
        pass

    async def main() -> int:
        for _ in range(2_000):
            await asyncio.create_task(child())
        return len(loop._tasks)

    loop, task = make(main)
    loop.run_until_quiet()
    assert task.result() < 200


# What would depend on addresses


def test_sets_of_tasks_iterate_alike() -> None:
    keep: list[Any] = []

    def order() -> Any:
        async def leaf() -> None:
            await asyncio.sleep(0)

        async def main() -> Any:
            tasks = []
            for number in range(60):
                keep.append([bytearray(number * 7 % 640) for _ in range(number % 13)])
                tasks.append(asyncio.create_task(leaf(), name=str(number)))
            futures = {asyncio.get_running_loop().create_future(): n for n in range(60)}
            done, _ = await asyncio.wait(tasks)
            return [t.get_name() for t in done], [futures[f] for f in set(futures)]

        return run(main)

    first = order()
    assert all(order() == first for _ in range(5))


def test_as_completed_refuses_coroutines() -> None:
    async def leaf() -> None:
        pass

    async def main() -> None:
        for first in asyncio.as_completed([asyncio.create_task(leaf()), leaf()]):
            await first

    with pytest.raises(NotDurable, match="create_task"):
        run(main)


def test_as_completed_takes_tasks() -> None:
    async def leaf(seconds: int) -> int:
        await asyncio.sleep(seconds)
        return seconds

    async def main() -> list[int]:
        tasks = [asyncio.create_task(leaf(n)) for n in (3, 1, 2)]
        return [await first for first in asyncio.as_completed(tasks, timeout=5)]

    assert run(main) == [1, 2, 3]


def test_wait_refuses_a_set_of_gathers() -> None:
    async def leaf() -> None:
        await asyncio.sleep(1)

    async def main() -> None:
        futures = [asyncio.gather(leaf(), leaf()), asyncio.gather(leaf(), leaf())]
        await asyncio.wait(futures)

    with pytest.raises(NotDurable, match="create_task"):
        run(main)

    async def fine() -> int:
        return len((await asyncio.wait([asyncio.gather(leaf(), leaf())]))[0])

    assert run(fine) == 1


# The world


async def _to_thread() -> None:
    await asyncio.to_thread(print)


async def _connect() -> None:
    await asyncio.open_connection("localhost", 1)


async def _subprocess() -> None:
    await asyncio.create_subprocess_exec("true")


async def _signal() -> None:
    asyncio.get_running_loop().add_signal_handler(2, print)


async def _resolve() -> None:
    await asyncio.get_running_loop().getaddrinfo("localhost", 1)


async def _other_thread() -> None:
    asyncio.get_running_loop().call_soon_threadsafe(print)


async def _server() -> None:
    await asyncio.start_server(print, "localhost", 1)


async def _run_forever() -> None:
    asyncio.get_running_loop().run_forever()


@pytest.mark.parametrize(
    "main",
    [_to_thread, _connect, _subprocess, _signal, _resolve, _other_thread, _server, _run_forever],
)
def test_the_world_belongs_in_a_step(main: Main) -> None:
    with pytest.raises(NotDurable, match="put it in a step"):
        run(main)


def test_every_method_of_a_loop_is_there_or_refused() -> None:
    missing = [
        name
        for name in dir(asyncio.AbstractEventLoop)
        if not name.startswith("_") and name not in vars(DeterministicLoop)
    ]
    assert missing == []


def test_eager_tasks_are_refused() -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(lambda loop, coro: asyncio.Task(coro))

    with pytest.raises(NotDurable):
        run(main)


# Driving it


def test_it_runs_in_a_callback_of_another_loop_and_gives_the_thread_back() -> None:
    results: list[Any] = []

    async def inner() -> bool:
        await asyncio.sleep(0)
        return asyncio.get_running_loop() is loop and asyncio.current_task() is task

    def drive(done: asyncio.Future[None]) -> None:
        loop.run_until_quiet()
        results.append(asyncio.get_running_loop())
        done.set_result(None)

    async def outer() -> None:
        done = asyncio.get_running_loop().create_future()
        hooks = sys.get_asyncgen_hooks()
        asyncio.get_running_loop().call_soon(drive, done)
        await done
        assert sys.get_asyncgen_hooks() == hooks
        assert results == [asyncio.get_running_loop()]

    loop, task = make(inner)
    asyncio.run(outer())
    assert task.result() is True


def test_it_is_not_driven_from_inside_a_task() -> None:
    async def inner() -> None:
        pass

    async def outer() -> None:
        make_and_run = make(inner)[0]
        with pytest.raises(InternalError):
            make_and_run.run_until_quiet()

    asyncio.run(outer())


def test_code_that_spins_is_given_up() -> None:
    async def main() -> None:
        while True:
            await asyncio.sleep(0)

    loop, task = make(main)
    loop.callbacks_max = 1_000
    with pytest.raises(NotDurable, match="1000 turns") as caught:
        loop.run_until_quiet()
    assert "test_loop.py" in caught.value.where
    loop.close()
    loop.unwind(task)


def test_an_exit_ends_its_task_and_not_the_engine() -> None:
    async def main() -> None:
        sys.exit(3)

    _, task = start(main)
    assert isinstance(task.exception(), SystemExit)


def test_an_interrupt_comes_through() -> None:
    async def main() -> None:
        raise KeyboardInterrupt

    loop, task = make(main)
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_quiet()
    assert asyncio._get_running_loop() is None
    assert isinstance(task.exception(), KeyboardInterrupt)


def test_what_nobody_caught_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)

    start(main)
    assert "ZeroDivisionError" in caplog.text
    reported: list[Any] = []

    async def handled() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: reported.append(context["exception"]))
        loop.call_soon(lambda: 1 / 0)

    start(handled)
    assert [type(one) for one in reported] == [ZeroDivisionError]


def test_a_long_run_is_noticed() -> None:
    async def main() -> None:
        await asyncio.sleep(1)

    loop, _ = make(main)
    loop.held_seconds_max = -1
    loop.run_until_quiet()
    assert loop.longest_seconds > 0
    assert "test_loop.py" in loop.longest_site


def test_a_generator_left_half_way_never_runs_its_clean_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[str] = []

    async def numbers() -> Any:
        try:
            yield 1
            yield 2
        finally:
            seen.append("clean-up")

    async def main() -> None:
        async for _ in numbers():
            break
        await asyncio.sleep(1)

    caplog.set_level(logging.WARNING)
    run(main)
    gc.collect()
    assert seen == []
    assert "aclosing" in caplog.text


# Closed


def test_a_closed_loop_takes_nothing() -> None:
    async def main() -> None:
        await asyncio.sleep(5)

    loop, task = start(main)
    loop.close()
    assert loop.next_timer() is None
    assert loop.call_soon(print).cancelled()
    with pytest.raises(_Parked):
        loop.create_future()
    with pytest.raises(_Parked):
        loop.call_later(1, print)
    with pytest.raises(_Parked):
        loop.create_task(main())
    assert loop.unwind(task)
    loop.run_until_quiet()
    assert not task.done()


@pytest.mark.parametrize("what", ["sleep", "future", "task", "yield", "gather"])
def test_code_that_never_gives_up_is_frozen(what: str) -> None:
    turns: list[int] = []

    async def leaf() -> None:
        pass

    async def once() -> None:
        if what == "sleep":
            await asyncio.sleep(1)
        elif what == "future":
            await asyncio.get_running_loop().create_future()
        elif what == "task":
            await asyncio.create_task(leaf())
        elif what == "gather":
            await asyncio.gather(leaf(), leaf())
        else:
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.sleep(1)

    async def stubborn() -> None:
        while True:
            try:
                if turns:
                    await once()
                await main()
            except BaseException:
                turns.append(1)

    loop, task = start(stubborn)
    loop.close()
    assert not loop.unwind(task)
    assert 0 < len(turns) <= 210
    _leak(task)
