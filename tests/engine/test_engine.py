"""What a user sees of the engine: tasks run, wait, ask, fail, are retried, stopped and resumed."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

import outlast
from outlast import Engine, Fatal, Retry, RetryAfter, State, ask, sleep, step, task, wait_for
from outlast.blocking import ask as ask_blocking
from outlast.blocking import sleep as sleep_blocking
from outlast.errors import (
    AlreadyAnswered,
    BadPayload,
    Deadlock,
    ExecutionCancelled,
    ExecutionTimedOut,
    KeyConflict,
    NoEngine,
    NotFound,
    StepTimeout,
    TransitionRefused,
    UsageError,
    WaitTimeout,
    WrongArguments,
    WrongColour,
)
from outlast.lifecycle import Kind

from .conftest import in_state, run, until

ran: list[Any] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    ran.clear()


@step
async def note(value: int) -> int:
    ran.append(value)
    return value * 2


@step
def note_def(value: int) -> int:
    ran.append(value)
    return value * 2


@task
async def links(count: int) -> int:
    total = 0
    for number in range(count):
        total += await note(number)
    return total


@task
def links_def(count: int) -> int:
    return sum(note_def(number) for number in range(count))


def test_async_task(url: str) -> None:
    async def main(engine: Engine) -> None:
        handle = await links.astart(3)
        assert await handle.aresult("100s") == 6
        kinds = [row.kind for row in await handle.atransitions()]
        assert kinds == [
            Kind.CREATE,
            Kind.CLAIM,
            Kind.START,
            Kind.STEP,
            Kind.STEP,
            Kind.STEP,
            Kind.FINISH,
        ]

    run(main, url)
    assert ran == [0, 1, 2]


def test_def_task_in_a_with_block(url: str) -> None:
    with Engine(url) as engine:
        handle = links_def.start(3)
        assert handle.result("100s") == 6
        assert handle.status() is State.SUCCEEDED
        assert handle.reason() is None
        assert engine.store.verify().defects == []


def test_outside_an_engine_they_are_functions() -> None:
    assert asyncio.run(note(2)) == 4
    assert note_def(2) == 4
    assert asyncio.run(note_def.aio(2)) == 4
    assert asyncio.run(links(2)) == 2
    with pytest.raises(NoEngine):
        links.start(1)


def test_wrong_colour_has_a_hint(url: str) -> None:
    @task
    async def calls_def() -> int:
        return note_def(1)

    @task
    def calls_async() -> Any:
        return note(1)

    async def main(engine: Engine) -> None:
        for wrong in (calls_def, calls_async):
            with pytest.raises(WrongColour) as caught:
                await (await engine.astart(wrong)).aresult("100s")
            assert caught.value.do

    run(main, url)


def test_def_step_in_async_task(url: str) -> None:
    @task
    async def mixed() -> int:
        return sum(await asyncio.gather(*(note_def.aio(n) for n in range(4))))

    async def main(engine: Engine) -> None:
        assert await (await mixed.astart()).aresult("100s") == 12

    run(main, url)


def test_wrong_arguments_write_nothing(url: str) -> None:
    async def main(engine: Engine) -> None:
        with pytest.raises(WrongArguments):
            await links.astart(1, 2)  # type: ignore[call-arg]
        with pytest.raises(BadPayload):
            await links.astart("three")  # type: ignore[arg-type]
        assert engine.store.counts() == {}

    run(main, url)


def test_key(url: str) -> None:
    async def main(engine: Engine) -> None:
        first = await links.options(key="k").astart(2)
        again = await links.options(key="k").astart(2)
        assert again.id == first.id
        with pytest.raises(KeyConflict):
            await links.options(key="k").astart(3)
        assert await again.aresult("100s") == 2

    run(main, url)
    assert ran == [0, 1]


def test_error_of_the_code_reaches_the_caller(url: str) -> None:
    @step
    async def refuse() -> None:
        raise KeyError("no such thing")

    @task
    async def fails() -> None:
        await refuse()

    async def main(engine: Engine) -> None:
        handle = await fails.astart()
        with pytest.raises(KeyError, match="no such thing"):
            await handle.aresult("100s")
        assert await handle.astatus() is State.FAILED

    run(main, url)


def test_step_retries(url: str) -> None:
    @step(retries=Retry(3, base="1ms"))
    async def flaky() -> int:
        ran.append(outlast.this_step().attempt)
        if len(ran) < 3:
            raise ConnectionError("again")
        return len(ran)

    @task
    async def retried() -> int:
        return await flaky()

    async def main(engine: Engine) -> None:
        handle = await retried.astart()
        assert await handle.aresult("100s") == 3
        kinds = [row.kind for row in await handle.atransitions()]
        assert kinds.count(Kind.ATTEMPT_FAILED) == 2

    run(main, url)
    assert ran == [1, 2, 3]


@pytest.mark.parametrize("error", [Fatal("no"), ValueError("not this one")])
def test_step_gives_up(url: str, error: Exception) -> None:
    @step(retries=Retry(3, base="1ms", give_up_on=[ValueError]))
    async def hopeless() -> None:
        ran.append(1)
        raise error

    @task
    async def gives_up() -> None:
        await hopeless()

    async def main(engine: Engine) -> None:
        with pytest.raises(type(error)):
            await (await gives_up.astart()).aresult("100s")

    run(main, url)
    assert ran == [1]


def test_retry_after_and_parked_back_off(url: str) -> None:
    @step(retries=Retry(1, base="1ms"))
    async def later() -> int:
        ran.append(1)
        if len(ran) == 1:
            raise RetryAfter(timedelta(milliseconds=400))
        return len(ran)

    @task
    async def patient() -> int:
        return await later()

    async def main(engine: Engine) -> None:
        handle = await patient.astart()
        await in_state(handle, State.WAITING)
        reason = await handle.areason()
        assert reason is not None and reason.code == "waiting_retry" and reason.until is not None
        assert await handle.aresult("100s") == 2

    run(main, url)


def test_step_timeout(url: str) -> None:
    @step(timeout="20ms")
    async def slow() -> None:
        await asyncio.Event().wait()

    @task
    async def too_slow() -> str:
        try:
            await slow()
        except StepTimeout as error:
            return error.code
        return "no"

    async def main(engine: Engine) -> None:
        assert await (await too_slow.astart()).aresult("100s") == "step_timeout"

    run(main, url)


def test_task_retries_keep_finished_steps(url: str) -> None:
    @task(retries=Retry(2, base="1ms"))
    async def stubborn() -> int:
        got = await note(1)
        if len(ran) < 3:
            ran.append("failed")
            raise ConnectionError("again")
        return got

    async def main(engine: Engine) -> None:
        handle = await stubborn.astart()
        assert await handle.aresult("100s") == 2
        record = await handle.arecord()
        assert (record.failures, record.attempt) == (2, 3)

    run(main, url)
    assert ran == [1, "failed", "failed"]


def test_sleep_parks(url: str) -> None:
    @task
    async def sleeper() -> int:
        await sleep("900ms")
        return await note(1)

    async def main(engine: Engine) -> None:
        handle = await sleeper.astart()
        await in_state(handle, State.WAITING)

        async def is_let_go() -> bool:
            return not engine.worker.drivers

        await until(is_let_go)
        assert await handle.aresult("100s") == 2

    run(main, url)


def test_ask_and_answer(url: str) -> None:
    @task
    async def asks() -> str:
        amount = await ask("How much?", int, to="role:ops")
        return f"{amount}"

    async def main(engine: Engine) -> None:
        handle = await asks.astart()
        await in_state(handle, State.AWAITING_INPUT)
        reason = await handle.areason()
        assert reason is not None and "How much?" in reason.text and "role:ops" in reason.text
        with pytest.raises(BadPayload):
            await handle.aanswer("many")
        await handle.aanswer(5)
        assert await handle.aresult("100s") == "5"
        with pytest.raises((NotFound, AlreadyAnswered)):
            await handle.aanswer(6)

    run(main, url)


def test_ask_times_out_to_its_default(url: str) -> None:
    @task
    async def asks() -> list[object]:
        first = await ask("A?", bool, timeout="10ms", default=True)
        try:
            await ask("B?", bool, timeout="250ms")
        except WaitTimeout as error:
            return [first, error.code]
        return []

    async def main(engine: Engine) -> None:
        assert await (await asks.astart()).aresult("100s") == [True, "wait_timeout"]

    run(main, url)


def test_ask_while_another_branch_works(url: str) -> None:
    release = asyncio.Event()

    @step
    async def works() -> int:
        await release.wait()
        return 1

    @task
    async def both() -> list[int]:
        return list(await asyncio.gather(works(), ask("n?", int)))

    async def main(engine: Engine) -> None:
        handle = await both.astart()

        async def asked() -> bool:
            return any(row.kind is Kind.STEP_ANNOUNCED for row in await handle.atransitions())

        await until(asked)
        await handle.aanswer(7)
        release.set()
        assert await handle.aresult("100s") == [1, 7]

    run(main, url)


def test_signals_before_and_while_waiting(url: str) -> None:
    @task
    async def listens() -> list[int]:
        await ask("go?", bool)
        first = await wait_for("paid", int)
        second = await wait_for("paid", int)
        return [first, second]

    async def main(engine: Engine) -> None:
        handle = await listens.astart()
        await in_state(handle, State.AWAITING_INPUT)
        await handle.asignal("paid", 1)
        await handle.aanswer(True)
        await until(lambda: _waits_for_event(handle))
        await handle.asignal("paid", 2)
        assert await handle.aresult("100s") == [1, 2]

    run(main, url)


async def _waits_for_event(handle: Any) -> bool:
    detail = (await handle.arecord()).detail or {}
    return any(wait.get("kind") == "event" for wait in detail.get("waits", []))


def test_blocking_ask_and_sleep(url: str) -> None:
    @task
    def asks() -> str:
        sleep_blocking("5ms")
        answer = ask_blocking("Name?", str)
        default = ask_blocking("Again?", str, timeout="10ms", default="none")
        return f"{answer} {default}"

    async def main(engine: Engine) -> None:
        handle = await asks.astart()
        await in_state(handle, State.AWAITING_INPUT)
        await handle.aanswer("Ada")
        assert await handle.aresult("100s") == "Ada none"

    run(main, url)


def test_cancel_running_code_cleans_up(url: str) -> None:
    @step
    async def hang() -> None:
        ran.append("hang")
        await asyncio.Event().wait()

    @task
    async def cleans() -> None:
        try:
            await hang()
        except asyncio.CancelledError:
            await note(9)
            raise

    async def main(engine: Engine) -> None:
        handle = await cleans.astart()
        await until(lambda: _true(bool(ran)))
        await handle.acancel("customer left", actor="ada")
        await handle.acancel("again")
        with pytest.raises(ExecutionCancelled, match="ada"):
            await handle.aresult("100s")
        assert ran == ["hang", 9]
        with pytest.raises(TransitionRefused):
            await handle.apause()

    run(main, url)


async def _true(value: bool) -> bool:
    return value


def test_cancel_parked(url: str) -> None:
    @task
    async def parked() -> None:
        await ask("?", bool)

    async def main(engine: Engine) -> None:
        handle = await parked.astart()
        await in_state(handle, State.AWAITING_INPUT)
        await handle.acancel("no longer needed")
        with pytest.raises(ExecutionCancelled, match="no longer needed"):
            await handle.aresult("100s")

    run(main, url)


def test_pause_and_resume(url: str) -> None:
    release = asyncio.Event()

    @step
    async def works() -> int:
        await release.wait()
        return 1

    @task
    async def paused() -> int:
        return await works() + await note(1)

    async def main(engine: Engine) -> None:
        handle = await paused.astart()
        await in_state(handle, State.RUNNING)
        await handle.apause("lunch", actor="ada")
        release.set()
        await in_state(handle, State.PAUSED)
        await handle.apause()
        assert ran == []
        await handle.aresume()
        assert await handle.aresult("100s") == 3

    run(main, url)


def test_answer_while_paused_is_kept(url: str) -> None:
    @task
    async def asks() -> int:
        return await ask("n?", int)

    async def main(engine: Engine) -> None:
        handle = await asks.astart()
        await in_state(handle, State.AWAITING_INPUT)
        await handle.apause()
        await handle.aanswer(4)
        assert await handle.astatus() is State.PAUSED
        await handle.aresume()
        assert await handle.aresult("100s") == 4

    run(main, url)


def test_deadline(url: str) -> None:
    @task
    async def endless() -> None:
        await ask("?", bool)

    @step
    async def hang() -> None:
        await asyncio.Event().wait()

    @task(timeout="50ms")
    async def busy() -> None:
        await hang()

    async def main(engine: Engine) -> None:
        for handle in (await endless.options(timeout="50ms").astart(), await busy.astart()):
            with pytest.raises(ExecutionTimedOut):
                await handle.aresult("100s")

    run(main, url)


def test_delay(url: str) -> None:
    async def main(engine: Engine) -> None:
        handle = await links.options(delay="60ms").astart(1)
        assert await handle.astatus() is State.SCHEDULED
        assert await handle.aresult("100s") == 0

    run(main, url)


def test_deadlock_is_an_error(url: str) -> None:
    @task
    async def stuck() -> None:
        await asyncio.Event().wait()

    async def main(engine: Engine) -> None:
        with pytest.raises(Deadlock):
            await (await stuck.astart()).aresult("100s")

    run(main, url)


def test_now_random_uuid_are_the_same_in_every_replay(url: str) -> None:
    @task
    async def dice() -> list[object]:
        before = [outlast.now(), outlast.random().random(), outlast.uuid4()]
        ran.append(before)
        await ask("?", bool)
        after = [outlast.now(), outlast.random().random(), outlast.uuid4()]
        return [str(value) for value in (*before, *after)]

    async def main(engine: Engine) -> None:
        handle = await dice.astart()
        await in_state(handle, State.AWAITING_INPUT)
        await handle.aanswer(True)
        result = await handle.aresult("100s")
        assert len(ran) == 2 and ran[0] == ran[1]
        assert [str(value) for value in ran[0]] == result[:3]
        assert len(set(map(str, result))) == 6

    run(main, url)


def test_wait_timeout_leaves_it_running(url: str) -> None:
    @task
    async def asks() -> int:
        return await ask("n?", int)

    async def main(engine: Engine) -> None:
        handle = await asks.astart()
        with pytest.raises(WaitTimeout):
            await handle.aresult("10ms")
        await in_state(handle, State.AWAITING_INPUT)
        await handle.aanswer(1)
        assert await handle.aresult("100s") == 1

    run(main, url)


def test_watch(url: str) -> None:
    async def main(engine: Engine) -> None:
        handle = await links.astart(2)
        kinds = [row.kind async for row in handle.awatch()]
        assert kinds[0] is Kind.CREATE and kinds[-1] is Kind.FINISH
        assert kinds.count(Kind.STEP) == 2

    run(main, url)


def test_unknown_execution(url: str) -> None:
    async def main(engine: Engine) -> None:
        ghost = engine.execution("ex_nobody")
        for call in (ghost.arecord, ghost.aresult, ghost.acancel):
            with pytest.raises(NotFound):
                await call()

    run(main, url)


def test_sync_methods_on_an_async_engine_are_refused(url: str) -> None:
    async def main(engine: Engine) -> None:
        handle = await links.astart(1)
        with pytest.raises(UsageError):
            handle.status()
        await handle.aresult("100s")

    run(main, url)


def test_more_executions_than_slots(url: str) -> None:
    async def main(engine: Engine) -> None:
        handles = await engine.astart_many(links, [(2,)] * 50)
        assert await asyncio.gather(*(handle.aresult("100s") for handle in handles)) == [2] * 50
        assert engine.store.verify().defects == []

    run(main, url, slots=3)


def test_a_retry_finds_the_answers_and_signals_of_earlier_tries(url: str) -> None:
    """The first answer wins for good, so nobody could answer the same question once more."""
    failures = [ValueError("once"), ValueError("twice")]

    @task(retries=Retry(5, base="1ms", cap="2ms"))
    async def asks_then_fails() -> list[int]:
        got = [await ask("n?", int), await wait_for("news", int)]
        if failures:
            raise failures.pop()
        return got

    async def main(engine: Engine) -> None:
        handle = await asks_then_fails.astart()
        await in_state(handle, State.AWAITING_INPUT)
        await handle.asignal("news", 5)
        await handle.aanswer(4)
        assert await handle.aresult("100s") == [4, 5]
        assert (await handle.arecord()).failures == 2
        assert engine.store.verify().defects == []

    run(main, url)


def test_a_cancelled_execution_is_cut_off_however_it_waits(url: str) -> None:
    @task
    async def asks_once_more() -> None:
        try:
            await ask("first?", bool)
        except asyncio.CancelledError:
            await ask("really?", bool)

    async def main(engine: Engine) -> None:
        handle = await asks_once_more.astart()
        await in_state(handle, State.AWAITING_INPUT)
        await handle.acancel("enough", actor="ada")
        assert await handle.await_("100s") is State.CANCELLED
        assert engine.store.verify().defects == []

    run(main, url, cancel_grace="60ms")


def test_a_deadline_wakes_an_engine_that_waits_for_nothing(url: str) -> None:
    stopped = asyncio.Event()

    @step
    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    @task
    async def hangs() -> None:
        await hang()

    async def main(engine: Engine) -> None:
        assert await (await links.astart(1)).aresult("100s") == 0
        handle = await hangs.options(timeout="50ms").astart()
        with pytest.raises(ExecutionTimedOut):
            await handle.aresult("100s")
        async with asyncio.timeout(100):
            await stopped.wait()
        assert handle.id not in engine.worker.drivers

    run(main, url)


def test_a_closed_engine_says_so() -> None:
    engine = Engine("memory:")
    with engine:
        handle = engine.start(links, 1)
    with pytest.raises(NoEngine, match="not open"):
        handle.status()


@step
async def blocks() -> int:
    count: int = links.start(1).result()
    return count


@task
async def blocking_body() -> int:
    return await blocks()


def test_what_blocks_is_refused_on_the_engines_own_loop() -> None:
    with Engine("memory:") as engine, pytest.raises(UsageError, match="astart"):
        engine.start(blocking_body).result(timeout="100s")


def test_an_engine_of_its_own_thread_works_beside_a_running_loop() -> None:
    async def notebook() -> int:
        with Engine("memory:") as engine:
            return engine.start(links, 2).result()

    assert asyncio.run(notebook()) == 2
