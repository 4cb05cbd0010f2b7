"""The replay machine: identity, delivery, mailbox, timers, cancel, parking."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import random
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from outlast.engine.replay import scope as scope_module
from outlast.engine.replay.loop import _Parked
from outlast.engine.replay.scope import (
    Call,
    CallState,
    DurableCall,
    Mismatch,
    Outcome,
    Scope,
    Timer,
)
from outlast.engine.task.current import current_scope
from outlast.errors import InternalError, NotDurable, UsageError

START = 1_700_000_000_000_000
SECOND = 1_000_000
Main = Callable[[], Coroutine[Any, Any, Any]]


def the_scope() -> Scope:
    scope = current_scope.get()
    assert isinstance(scope, Scope)
    return scope


def step(name: str = "step", digest: int = 0, key: str | None = None) -> DurableCall[Any]:
    return the_scope().call("step", name, digest, None, explicit_key=key)


def ask(title: str = "ask") -> DurableCall[Any]:
    return the_scope().call("ask", title, 0)


class Match:
    def __init__(self, match: Callable[[Any], bool]) -> None:
        self.match = match


def event(name: str, match: Callable[[Any], bool] | None = None) -> DurableCall[Any]:
    return the_scope().call("event", name, 0, None if match is None else Match(match))


class Engine:
    """Drives a scope by hand."""

    def __init__(self, main: Main) -> None:
        self.scope = Scope(main, seed=b"seed")
        self.seq = 1
        self.scope.begin(START)

    def deliver(self, kind: str, key: str | None = None, value: Any = None, **more: Any) -> None:
        self.seq += 1
        at = more.pop("at", self.scope.now())
        self.scope.deliver(Outcome(self.seq, at, kind, key, value=value, **more))

    def finish(self, key: str, value: Any = None, **more: Any) -> None:
        self.deliver("step", key, value, **more)

    def fire(self) -> Timer:
        timer = self.scope.next_timer()
        assert timer is not None
        self.deliver("timer", timer.key, digest=timer.deadline_at, at=timer.deadline_at)
        return timer

    def taken(self) -> list[str]:
        return [call.key for call in self.scope.take_calls()]

    def abandoned(self) -> list[str]:
        return [call.key for call in self.scope.take_abandoned()]

    def open(self) -> list[str]:
        return list(self.scope.open_calls)

    def run(self) -> Any:
        """Give every call its own key as result, every timer its time, to the end."""
        while not self.scope.finished:
            if self.open():
                self.finish(self.open()[0], self.open()[0])
            else:
                self.fire()
        if self.scope.exception is not None:
            raise self.scope.exception
        return self.scope.result


def run(main: Main) -> Any:
    return Engine(main).run()


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """No scope stays open, no frozen code stays for the next test, and Python has no complaint."""
    complaints: list[str] = []
    before = sys.unraisablehook
    sys.unraisablehook = lambda args: complaints.append(f"{args.object!r}: {args.exc_value!r}")
    try:
        yield
        for scope in list(scope_module._unclosed):
            scope.close()
        gc.collect()
    finally:
        sys.unraisablehook = before
    assert complaints == []
    assert not scope_module._unclosed


# Identity


def test_a_call_is_its_name_and_occurrence_in_its_branch() -> None:
    async def child(name: str) -> list[Any]:
        return [await step(name), await step(name), await asyncio.create_task(grandchild())]

    async def grandchild() -> Any:
        return await step("a")

    async def main() -> Any:
        return [
            await step("a"),
            await step("b"),
            await step("a"),
            *await asyncio.gather(child("a"), child("b")),
        ]

    assert run(main) == [
        "a#1",
        "b#1",
        "a#2",
        ["1/a#1", "1/a#2", "1.1/a#1"],
        ["2/b#1", "2/b#2", "2.1/a#1"],
    ]


def test_identity_is_taken_where_the_call_is_made() -> None:
    async def main() -> Any:
        first, second = step(), step()
        tasks = [asyncio.create_task(second), asyncio.create_task(first)]
        return [await task for task in tasks]

    assert run(main) == ["step#2", "step#1"]


def test_a_key_of_ones_own() -> None:
    async def child() -> Any:
        return await step(key="x")

    async def main() -> Any:
        return [await step(key="x"), await asyncio.create_task(child()), await step()]

    assert run(main) == ["step:x", "1/step:x", "step#1"]


def test_a_key_is_used_once() -> None:
    async def main() -> None:
        await step(key="x")
        await step(key="x")

    with pytest.raises(UsageError, match="twice"):
        run(main)


@pytest.mark.parametrize("timeout", [None, 5])
def test_wait_for_counts_as_its_caller(timeout: float | None) -> None:
    async def inner() -> Any:
        return [await step(), await asyncio.wait_for(step(), timeout)]

    async def main() -> Any:
        return [
            await step(),
            await asyncio.wait_for(inner(), timeout),
            await step(),
            await asyncio.create_task(step("t")),
        ]

    assert run(main) == ["step#1", ["step#2", "step#3"], "step#4", "t#1"]


# Opening


def test_a_call_opens_when_it_is_awaited() -> None:
    async def main() -> None:
        later = step("later")
        await step("now")
        await later

    engine = Engine(main)
    assert engine.taken() == engine.open() == ["now#1"]
    engine.finish("now#1")
    assert engine.taken() == engine.open() == ["later#1"]


def test_a_call_never_awaited_never_runs() -> None:
    async def main() -> None:
        step("forgotten")
        await step()

    engine = Engine(main)
    assert engine.open() == ["step#1"]
    engine.run()
    assert engine.scope.never_awaited == ["forgotten#1"]


def test_a_call_is_awaited_once() -> None:
    async def main() -> None:
        call = step()
        await call
        await call

    with pytest.raises(UsageError, match="twice"):
        run(main)


def test_a_call_passes_for_a_coroutine() -> None:
    async def main() -> Any:
        got = [await step("plain"), await asyncio.create_task(step("task"))]
        got += await asyncio.gather(step("g"), step("g"))
        got.append(await asyncio.wait_for(step("w"), 5))
        got.append(await asyncio.shield(step("s")))
        async with asyncio.TaskGroup() as group:
            grouped = group.create_task(step("tg"))
        got.append(grouped.result())
        got += sorted([await first for first in asyncio.as_completed([step("c"), step("c")])])
        done, _ = await asyncio.wait([asyncio.ensure_future(step("e"))])
        got += [task.result() for task in done]
        assert asyncio.iscoroutine(step("x"))
        return got

    names = ["plain#1", "task#1", "g#1", "g#2", "w#1", "s#1", "tg#1", "c#1", "c#2", "e#1"]
    assert run(main) == names


def test_calls_hash_by_number() -> None:
    async def main() -> Any:
        calls = {step() for _ in range(50)}
        return [call.key for call in calls]

    assert run(main) == run(main)


# Outcomes


def test_values_and_errors_come_out_where_they_are_awaited() -> None:
    async def main() -> Any:
        try:
            await step()
        except ValueError as error:
            return await step(), str(error)

    engine = Engine(main)
    engine.finish("step#1", error=ValueError("no"))
    engine.finish("step#2", 7)
    assert engine.scope.result == (7, "no")


def test_an_error_that_no_future_takes_is_wrapped() -> None:
    async def main() -> None:
        await step()

    engine = Engine(main)
    engine.finish("step#1", error=StopIteration(1))
    assert isinstance(engine.scope.exception, RuntimeError)


def test_one_outcome_at_a_time() -> None:
    async def main() -> Any:
        tasks = [asyncio.create_task(step()) for _ in range(3)]
        done, pending = await asyncio.wait(tasks, return_when="FIRST_COMPLETED")
        return len(done), len(pending), done.pop().result()

    engine = Engine(main)
    engine.finish("step#2", "b")
    assert engine.scope.result == (1, 2, "b")


@pytest.mark.parametrize(
    ("key", "digest"), [("other#1", 5), ("step#2", 5), ("step#1", 6), ("1/step#1", 5)]
)
def test_another_call_than_recorded_is_a_mismatch(key: str, digest: int) -> None:
    async def main() -> None:
        await step(digest=5)

    engine = Engine(main)
    with pytest.raises(Mismatch) as caught:
        engine.finish(key, digest=digest, at=START + 9)
    assert caught.value.seq == 2
    assert caught.value.recorded == {
        "key": key,
        "kind": "step",
        "name": key.rpartition("/")[2].split("#")[0],
        "digest": digest,
    }
    assert caught.value.wanted == [{"key": "step#1", "kind": "step", "name": "step", "digest": 5}]
    assert engine.scope.now() == START
    engine.finish("step#1", digest=5)
    assert engine.scope.finished


def test_more_than_the_code_wants_is_a_mismatch() -> None:
    async def main() -> None:
        pass

    engine = Engine(main)
    assert engine.scope.finished
    with pytest.raises(Mismatch, match="the code wants nothing"):
        engine.finish("step#1")


def test_a_timer_of_another_deadline_is_a_mismatch() -> None:
    async def main() -> None:
        await asyncio.sleep(5)

    engine = Engine(main)
    for key, deadline in (("timer#1", 4), ("timer#2", 5), ("timer#x", 5)):
        with pytest.raises(Mismatch) as caught:
            engine.deliver("timer", key, digest=START + deadline * SECOND)
        assert caught.value.wanted[0]["key"] == "timer#1"
    engine.fire()
    assert engine.scope.finished


def test_nothing_starts_before_the_log_is_used_up() -> None:
    async def main() -> None:
        await asyncio.gather(step("a"), step("b"))
        await step("c")

    engine = Engine(main)
    engine.finish("b#1")
    engine.finish("a#1")
    assert engine.taken() == ["c#1"]
    assert engine.taken() == []
    assert engine.open() == ["c#1"]


# Timers and time


def test_time_is_that_of_the_last_row() -> None:
    async def main() -> Any:
        times = [the_scope().now()]
        await step()
        times.append(the_scope().now())
        await asyncio.sleep(2)
        times.append(the_scope().now())
        return times, asyncio.get_running_loop().time()

    engine = Engine(main)
    engine.deliver("start", at=START + 1)
    engine.deliver("start", at=START + 2)
    engine.finish("step#1", at=START + 1)  # a clock that was set back
    assert engine.scope.next_timer() == Timer(1, START + 2 + 2 * SECOND)
    engine.fire()
    late = START + 2 + 2 * SECOND
    assert engine.scope.result == ([START, START + 2, late], late / 1e6)


def test_due_timers_are_delivered_one_by_one() -> None:
    seen: list[int] = []

    async def sleeper(seconds: int) -> None:
        await asyncio.sleep(seconds)
        seen.append(seconds)
        if seconds == 1:
            others[1].cancel()

    others: list[asyncio.Task[None]] = []

    async def main() -> None:
        others.extend(asyncio.create_task(sleeper(n)) for n in (1, 2, 3, 9))
        await asyncio.gather(*others, return_exceptions=True)

    engine = Engine(main)
    now = START + 5 * SECOND
    assert [timer.number for timer in engine.scope.due_timers(now)] == [1]
    numbers = []
    for timer in engine.scope.due_timers(now):
        numbers.append(timer.number)
        engine.deliver("timer", timer.key, digest=timer.deadline_at, at=now)
    assert numbers == [1, 3]
    assert seen == [1, 3]


def test_dice_are_the_same_in_every_replay() -> None:
    async def main() -> Any:
        scope = the_scope()
        rolled = scope.random.random(), str(scope.uuid4())
        scope.reseed(b"fork")
        return *rolled, scope.random.random()

    first = run(main)
    assert run(main) == first
    assert first[0] == random.Random(b"seed").random()
    assert first[2] == random.Random(b"fork").random()


# Abandoned calls


def test_a_timeout_abandons_its_call() -> None:
    async def main() -> Any:
        try:
            async with asyncio.timeout(5):
                await step("slow")
        except TimeoutError:
            return await step("after")

    engine = Engine(main)
    call = engine.scope.take_calls()[0]
    engine.fire()
    assert call.state is CallState.ABANDONED
    assert engine.abandoned() == ["slow#1"]
    assert engine.abandoned() == []
    assert engine.taken() == engine.open() == ["after#1"]
    with pytest.raises(Mismatch):
        engine.finish("slow#1")


@pytest.mark.parametrize("how", ["group", "wait_for", "cancel"])
def test_a_cancelled_waiter_abandons_its_call(how: str) -> None:
    async def fails() -> None:
        await step("bad")
        raise ValueError

    async def main() -> None:
        try:
            if how == "group":
                async with asyncio.TaskGroup() as group:
                    group.create_task(step("sibling"))
                    group.create_task(fails())
            elif how == "wait_for":
                await asyncio.wait_for(asyncio.gather(step("sibling"), step("bad")), 3)
            else:
                task = asyncio.create_task(step("sibling"))
                await step("bad")
                task.cancel()
                await task
        except BaseException:
            await step("end")

    engine = Engine(main)
    assert engine.taken() == engine.open()
    bad = next(key for key in engine.open() if "bad" in key)
    if how == "wait_for":
        engine.fire()
    else:
        engine.finish(bad)
    assert "sibling#1" in engine.abandoned()
    assert engine.open() == ["end#1"]


def test_what_a_replay_abandons_was_never_started() -> None:
    async def main() -> None:
        try:
            await asyncio.wait_for(step("slow"), 5)
        except TimeoutError:
            await step("after")

    engine = Engine(main)
    engine.fire()
    assert engine.taken() == ["after#1"]
    assert engine.abandoned() == []


def test_a_call_cancelled_before_its_first_turn_never_opens() -> None:
    async def main() -> None:
        task = asyncio.create_task(step("never"))
        task.cancel()
        await step("other")
        assert task.cancelled()

    engine = Engine(main)
    assert engine.taken() == engine.open() == ["other#1"]
    engine.run()
    assert engine.scope.never_awaited == []


# The mailbox


def test_an_early_answer_resolves_its_call_at_once() -> None:
    async def main() -> Any:
        await step()
        return await ask()

    engine = Engine(main)
    engine.deliver("input", "ask#1", "first")
    engine.deliver("input", "ask#1", "second")
    engine.taken()
    engine.finish("step#1")
    assert engine.scope.result == "first"
    assert engine.taken() == []


def test_an_answer_resolves_the_call_that_waits() -> None:
    async def main() -> Any:
        return await asyncio.gather(ask(), ask())

    engine = Engine(main)
    assert engine.taken() == ["ask#1", "ask#2"]
    engine.deliver("input", "ask#2", "b")
    engine.deliver("input", "ask#2", "too late")
    engine.deliver("input", "ask#1", "a")
    assert engine.scope.result == ["a", "b"]


def test_signals_queue_and_are_used_once() -> None:
    async def main() -> Any:
        await step()
        return [await event("e"), await event("e"), await event("f"), await event("e")]

    engine = Engine(main)
    for value in (1, 2, 3):
        engine.deliver("signal", "e", value)
    engine.finish("step#1")
    assert engine.open() == ["f#1"]
    engine.deliver("signal", "f", 9)
    assert engine.scope.result == [1, 2, 9, 3]


def test_a_signal_goes_to_the_first_that_waits_for_it() -> None:
    async def main() -> Any:
        return await asyncio.gather(
            event("e", lambda value: value > 5), event("e"), event("e", lambda value: value > 5)
        )

    engine = Engine(main)
    for value in (1, 2, 9, 8):
        engine.deliver("signal", "e", value)
    assert engine.scope.result == [9, 1, 8]


def test_a_predicate_picks_its_signal_out_of_the_mailbox() -> None:
    async def main() -> Any:
        await step()
        return [await event("e", lambda value: value == 2), await event("e")]

    engine = Engine(main)
    engine.deliver("signal", "e", 1)
    engine.deliver("signal", "e", 2)
    engine.finish("step#1")
    assert engine.scope.result == [2, 1]


@pytest.mark.parametrize("early", [True, False])
def test_a_predicate_that_raises_fails_its_call_and_keeps_the_signal(early: bool) -> None:
    async def main() -> Any:
        if early:
            await step()
        try:
            await event("e", lambda value: bool(1 // value))
        except ZeroDivisionError:
            return await event("e")

    engine = Engine(main)
    engine.deliver("signal", "e", 0)
    if early:
        engine.finish("step#1")
    assert engine.scope.result == 0


def test_a_waiter_that_gave_up_takes_no_signal() -> None:
    async def main() -> Any:
        try:
            await asyncio.wait_for(event("e"), 5)
        except TimeoutError:
            await step()
        return await event("e")

    engine = Engine(main)
    engine.fire()
    engine.deliver("signal", "e", 1)
    engine.finish("step#1")
    assert engine.scope.result == 1


# Cancel


def test_cancel_is_seen_at_a_recorded_place_and_clean_up_may_call() -> None:
    async def main() -> None:
        try:
            await step("work")
        finally:
            await step("undo")

    engine = Engine(main)
    engine.taken()
    engine.deliver("cancel")
    assert engine.abandoned() == ["work#1"]
    assert engine.taken() == ["undo#1"]
    engine.finish("undo#1")
    assert isinstance(engine.scope.exception, asyncio.CancelledError)
    engine.deliver("cancel")


def test_cancel_reaches_the_branches_that_are_awaited() -> None:
    async def child(number: int) -> None:
        try:
            await step("work")
        except asyncio.CancelledError:
            await step("undo", number)
            raise

    async def main() -> str:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(child(1))
                group.create_task(child(2))
        except asyncio.CancelledError:
            return "kept"
        return ""

    engine = Engine(main)
    engine.deliver("cancel")
    assert engine.open() == ["1/undo#1", "2/undo#1"]
    engine.run()
    assert engine.scope.result == "kept"


# The end


def test_the_end_lets_go_of_what_is_left() -> None:
    seen: list[str] = []

    async def child() -> None:
        try:
            await step("left")
        finally:
            seen.append("unwound")
            await step("never")

    async def main() -> str:
        _ = asyncio.create_task(child())  # noqa: RUF006
        await step("main")
        return "done"

    engine = Engine(main)
    engine.taken()
    engine.finish("main#1")
    assert engine.scope.finished
    assert engine.scope.result == "done"
    assert engine.abandoned() == ["1/left#1"]
    assert engine.taken() == engine.open() == []
    assert seen == ["unwound"]
    assert engine.scope.is_closed


def test_nothing_that_could_wake_it_is_a_deadlock() -> None:
    async def child(lock: asyncio.Lock) -> None:
        async with lock:
            pass

    async def main() -> None:
        lock = asyncio.Lock()
        async with lock:
            await asyncio.create_task(child(lock))

    engine = Engine(main)
    assert engine.scope.stuck
    assert engine.scope.is_quiet
    text = engine.scope.stuck_description()
    assert "the main branch waits in" in text
    assert "branch 1 waits in" in text
    assert "for Lock.acquire" in text
    assert text.count("test_scope.py") == 2


def test_what_is_waited_for_is_no_deadlock() -> None:
    async def called() -> None:
        await step()

    async def asked() -> None:
        await ask()

    async def slept() -> None:
        await asyncio.sleep(1)

    async def ended() -> None:
        pass

    for main in (called, asked, slept, ended):
        assert not Engine(main).scope.stuck
    assert "for step#1" in Engine(called).scope.stuck_description()


def test_code_that_spins_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        while True:
            await asyncio.sleep(0)

    scope = Scope(main, seed=b"")
    scope._loop.callbacks_max = 500
    scope.begin(START)
    assert scope.finished
    assert isinstance(scope.exception, NotDurable)


# Contexts


def test_the_code_has_a_context_of_its_own() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    async def main() -> int:
        inherited = variable.get()
        variable.set(5)
        await step()
        return inherited + variable.get()

    variable.set(1)
    assert run(main) == 6
    assert variable.get() == 1
    assert current_scope.get() is None


def test_a_task_with_an_empty_context_still_knows_its_scope() -> None:
    async def child() -> Any:
        return await step()

    async def main() -> Any:
        return await asyncio.create_task(child(), context=contextvars.Context())

    assert run(main) == "1/step#1"


def test_calls_from_elsewhere_are_refused() -> None:
    errors: list[BaseException] = []

    def elsewhere() -> None:
        try:
            step()
        except BaseException as error:
            errors.append(error)

    async def main() -> None:
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(elsewhere,))
        thread.start()
        thread.join()
        task = asyncio.Task(foreign(), loop=asyncio.get_running_loop())
        await task

    async def foreign() -> None:
        elsewhere()

    run(main)
    assert [type(error) for error in errors] == [NotDurable, NotDurable]


def test_a_scope_is_begun_once_and_not_after_its_close() -> None:
    async def main() -> None:
        await step()

    engine = Engine(main)
    with pytest.raises(InternalError):
        engine.scope.begin(START)
    engine.scope.close()
    engine.scope.close()
    with pytest.raises(InternalError):
        engine.deliver("start")
    with pytest.raises(InternalError):
        engine.scope.begin(START)
    unborn = Scope(main, seed=b"")
    with pytest.raises(InternalError):
        unborn.deliver(Outcome(1, START, "start"))
    unborn.close()


# Parking

seen: list[Any] = []


@contextmanager
def holding(name: str) -> Iterator[None]:
    try:
        yield
    finally:
        seen.append(name)


@asynccontextmanager
async def saga() -> AsyncIterator[None]:
    try:
        yield
    except BaseException as error:
        seen.append(type(error).__name__)
        await step("undo")
        raise


async def in_finally() -> None:
    try:
        await step()
    finally:
        with holding("finally"):
            await step("never")


async def in_except() -> None:
    try:
        await step()
    except BaseException as error:
        seen.append(type(error).__name__)
        await asyncio.gather(step("never"), step("never"))


async def in_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(in_finally())
        group.create_task(in_except())
        await step()


async def in_saga() -> None:
    async with saga(), asyncio.timeout(5):
        await step()


async def in_locks() -> None:
    lock, semaphore, condition = asyncio.Lock(), asyncio.Semaphore(), asyncio.Condition()

    async def child() -> None:
        async with lock, semaphore, condition:
            await step()

    await asyncio.gather(child(), child())


async def in_generator() -> None:
    async def numbers() -> AsyncIterator[int]:
        try:
            await step()
            yield 1
        finally:
            seen.append("generator")
            await step("never")

    async for _ in numbers():
        pass


async def between_generator_items() -> None:
    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            seen.append("never")
            await step("never")

    async for _ in numbers():
        await step()


async def waiting_for() -> None:
    try:
        await asyncio.wait_for(in_finally(), 5)
    except TimeoutError:
        seen.append("never")


async def with_unawaited() -> None:
    coroutines = [in_finally(), in_finally()]
    await step()
    for coroutine in coroutines:
        await coroutine


async def with_unstarted() -> None:
    async def limited(coroutine: Any) -> None:
        async with asyncio.Semaphore(1):
            await step()
            await coroutine

    await asyncio.gather(limited(in_finally()), limited(in_except()))


async def retrying_for_ever() -> None:
    while True:
        try:
            await step()
        except BaseException:
            seen.append("again")


async def retrying_below() -> None:
    try:
        await retrying_for_ever()
    except Exception:
        seen.append("never")


async def retrying_in_clean_up() -> None:
    try:
        await step()
    finally:
        await retrying_for_ever()


async def with_dangling() -> None:
    _ = asyncio.create_task(in_finally()), asyncio.create_task(retrying_for_ever())
    await asyncio.Event().wait()


async def sleeping_in_clean_up() -> None:
    try:
        await step()
    finally:
        try:
            await asyncio.sleep(1)
        finally:
            await asyncio.sleep(0)
            await asyncio.get_running_loop().create_future()


async def shielding() -> None:
    try:
        await asyncio.shield(in_finally())
    finally:
        await asyncio.shield(step("never"))


PARKED: list[Main] = [
    in_finally,
    in_except,
    in_group,
    in_saga,
    in_locks,
    in_generator,
    between_generator_items,
    waiting_for,
    with_unawaited,
    with_unstarted,
    retrying_for_ever,
    retrying_below,
    retrying_in_clean_up,
    with_dangling,
    sleeping_in_clean_up,
    shielding,
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("main", PARKED, ids=lambda main: main.__name__)
def test_parking_is_inert(main: Main, caplog: pytest.LogCaptureFixture) -> None:
    seen.clear()
    engine = Engine(main)
    calls = engine.scope.take_calls()
    before = [call.state for call in calls]
    engine.scope.close()
    assert [call.state for call in calls] == before
    assert engine.taken() == engine.abandoned() == engine.open() == []
    assert engine.scope.next_timer() is None
    assert not engine.scope.finished
    assert "CancelledError" not in seen
    assert "never" not in seen
    assert seen.count("again") <= 202
    after = list(seen)
    del engine, calls
    gc.collect()
    assert seen == after
    frozen = [record.message for record in caplog.records]
    assert all("BaseException" in message for message in frozen)
    assert bool(frozen) == ("retrying" in main.__name__ or main is with_dangling)


@pytest.mark.parametrize("rows", range(4))
def test_parking_at_every_step_of_a_clean_up(rows: int) -> None:
    async def main() -> None:
        try:
            await step("a")
            await step("b")
        except BaseException as error:
            seen.append(type(error).__name__)
            await step("undo b")
            await step("undo a")
            raise

    seen.clear()
    engine = Engine(main)
    for kind, key in [("step", "a#1"), ("cancel", None), ("step", "undo b#1")][:rows]:
        engine.deliver(str(kind), key)
    before = list(seen)
    engine.scope.close()
    assert before == ["CancelledError"][: max(0, rows - 1)]
    assert seen == (before or ["_Parked"])


def test_branches_are_unwound_youngest_first_in_their_own_contexts() -> None:
    async def child(number: int) -> None:
        variable.set(number)
        try:
            await step()
        except _Parked:
            ended.append((variable.get(), current_scope.get(), asyncio.current_task()))
            raise

    async def main() -> None:
        variable.set(0)
        tasks = [asyncio.create_task(child(number)) for number in (1, 2, 3)]
        try:
            await asyncio.gather(*tasks)
        finally:
            ended.append((variable.get(), current_scope.get(), asyncio.current_task()))

    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=-1)
    ended: list[Any] = []
    engine = Engine(main)
    engine.scope.close()
    assert [one[0] for one in ended] == [3, 2, 1, 0]
    assert all(one[1] is engine.scope for one in ended)
    assert [one[2].branch.path for one in ended] == ["3", "2", "1", ""]


def test_frozen_code_is_kept_from_the_collector() -> None:
    before = len(scope_module._graveyard)
    engine = Engine(retrying_for_ever)
    engine.scope.close()
    turns = len(seen)
    del engine
    gc.collect()
    assert len(scope_module._graveyard) == before + 1
    del scope_module._graveyard[:]
    gc.collect()
    assert len(seen) == turns


@pytest.mark.parametrize("closed", [True, False])
def test_the_end_of_the_process_runs_no_code(closed: bool, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import asyncio\n"
        "from outlast.engine.replay.scope import Scope\n"
        "async def main():\n"
        "    while True:\n"
        "        try: await asyncio.sleep(1)\n"
        "        except BaseException: turns.append(print(len(turns)))\n"
        "turns = []\n"
        "scope = Scope(main, seed=b'')\n"
        "scope.begin(0)\n"
        f"if {closed}: scope.close()\n"
        "print('end')\n"
    )
    ran = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert ran.returncode == 0
    assert ran.stdout.splitlines()[-1] == "end"


def test_a_parked_scope_frees_its_memory() -> None:
    class Big:
        pass

    references: list[weakref.ref[Any]] = []

    async def child() -> None:
        big = Big()
        references.append(weakref.ref(big))
        try:
            await step(digest=1)
        finally:
            del big

    async def main() -> None:
        big = Big()
        references.append(weakref.ref(big))
        await asyncio.wait_for(asyncio.gather(child(), child(), in_generator()), 50)
        del big

    engine = Engine(main)
    references.append(weakref.ref(engine.scope))
    engine.scope.close()
    del engine
    gc.collect()
    assert [reference() for reference in references] == [None] * 4


def test_a_scope_that_is_dropped_unclosed_runs_nothing() -> None:
    seen.clear()
    engine = Engine(in_finally)
    del engine
    gc.collect()
    assert seen == []
    (left,) = scope_module._unclosed
    left.close()
    assert seen == ["finally"]


def test_the_engine_itself_may_be_inside_a_task_when_it_parks() -> None:
    async def outer() -> None:
        engine = Engine.__new__(Engine)
        engine.scope, engine.seq = Scope(in_group, seed=b""), 1
        begun = asyncio.get_running_loop().create_future()

        def begin() -> None:
            engine.scope.begin(START)
            begun.set_result(None)

        asyncio.get_running_loop().call_soon(begin)
        await begun
        me = asyncio.current_task()
        engine.scope.close()
        assert asyncio.current_task() is me

    asyncio.run(outer())


def test_a_call_is_described() -> None:
    call = Call("1/a#1", "step", "a", 5, None)
    assert repr(call) == "<step 1/a#1 made>"
    assert call.describe() == {"key": "1/a#1", "kind": "step", "name": "a", "digest": 5}
