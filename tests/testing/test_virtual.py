"""The engine for tests: time that stands still, passes in order, and hangs nobody."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from outlast import Retry, State, ask, blocking, now, sleep, step, task, uuid4, wait_for
from outlast.errors import (
    ExecutionTimedOut,
    InternalError,
    NoEngine,
    StepTimeout,
    UsageError,
    WaitTimeout,
)
from outlast.lifecycle import Kind
from outlast.testing import VirtualEngine, engine

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
ran: list[Any] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    ran.clear()


@step
async def note(value: Any) -> Any:
    ran.append(value)
    return value


@step
def note_in_thread(value: int) -> int:
    ran.append(value)
    return value


@task
async def fulfil(order: str) -> str:
    paid = await note_in_thread.aio(1)
    await sleep("3d")
    released = await ask("Release parcel?", timeout="2d", default=False)
    return f"{order} {paid} {released}"


def test_days_pass_in_milliseconds(outlast_engine: VirtualEngine) -> None:
    h = outlast_engine.start(fulfil, "O-1")
    assert (ran, h.status()) == ([1], State.WAITING)
    begun = time.perf_counter()
    outlast_engine.advance("3d")
    assert [q.title for q in outlast_engine.pending(h)] == ["Release parcel?"]
    outlast_engine.answer(h, True)
    assert h.result() == "O-1 1 True"
    assert time.perf_counter() - begun < 3_600  # of three days
    assert outlast_engine.now == BEGINNING + timedelta(days=3)
    assert outlast_engine.store.verify().defects == []


def test_a_question_times_out_at_its_instant_and_is_pending_no_more(
    outlast_engine: VirtualEngine,
) -> None:
    h = outlast_engine.start(fulfil, "O-1")
    outlast_engine.advance("4d23h59m59s")
    assert len(outlast_engine.pending()) == 1
    outlast_engine.advance("1s")
    assert outlast_engine.pending() == []
    assert h.result() == "O-1 1 False"
    assert h.record().updated_at == outlast_engine.clock.now()


def test_a_question_that_timed_out_is_not_pending_beside_the_next(
    outlast_engine: VirtualEngine,
) -> None:
    @task
    async def asks_twice() -> bool:
        await ask("first?", timeout="1h", default=False)
        return await ask("second?")

    h = outlast_engine.start(asks_twice)
    outlast_engine.advance("2h")
    assert [q.title for q in outlast_engine.pending(h)] == ["second?"]


def test_timers_fire_in_order_and_at_their_instants(outlast_engine: VirtualEngine) -> None:
    @task
    async def naps(name: str, days: int) -> None:
        for _ in range(3):
            await sleep(timedelta(days=days))
            await note(f"{name} {(now() - BEGINNING).days}")

    for name, days in (("a", 4), ("b", 1), ("c", 3)):
        outlast_engine.start(naps, name, days)
    outlast_engine.advance("365d")
    assert ran == ["b 1", "b 2", "b 3", "c 3", "a 4", "c 6", "a 8", "c 9", "a 12"]


def test_many_branches_and_short_sleeps(outlast_engine: VirtualEngine) -> None:
    """Waits of less than 200 ms keep their worker: the driver has the timers, not the store."""

    @task
    async def races() -> list[int]:
        async def one(number: int) -> int:
            await asyncio.sleep(number / 100)
            return int(await note(number))

        tasks = [asyncio.create_task(one(number)) for number in (9, 3, 7, 1)]
        return [await first for first in asyncio.as_completed(tasks)]

    h = outlast_engine.start(races)
    assert h.status() is State.RUNNING and ran == []
    with pytest.raises(WaitTimeout, match=r"engine.advance\(\"10ms\"\)"):
        h.result()
    outlast_engine.advance("50ms")
    assert ran == [1, 3]
    outlast_engine.advance("50ms")
    assert h.result() == [1, 3, 7, 9]


def test_retries_back_off_in_virtual_time(outlast_engine: VirtualEngine) -> None:
    @step(retries=Retry(5, base="1h", cap="1h", jitter=0))
    async def fails_thrice() -> int:
        ran.append(1)
        if len(ran) < 4:
            raise ValueError
        return len(ran)

    @task(retries=Retry(1, base="10h", cap="1d", jitter=0))
    async def tries() -> int:
        tried = await fails_thrice()
        if await note("again") and ran.count("again") == 1 and now() < BEGINNING + timedelta(1 / 4):
            raise ValueError
        return tried

    h = outlast_engine.start(tries)
    for hours in (1, 2, 3):
        assert len(ran) == hours
        outlast_engine.advance("1h")
    assert ran == [1, 1, 1, 1, "again"]
    assert h.status() is State.RETRY_WAIT
    with pytest.raises(WaitTimeout, match="advance"):
        h.result()
    outlast_engine.advance("10h")
    assert h.result() == 4
    assert ran == [1, 1, 1, 1, "again"]


def test_deadlines_and_delayed_starts(outlast_engine: VirtualEngine) -> None:
    @task(timeout="2d")
    async def for_ever() -> None:
        await ask("never?")

    h = outlast_engine.start(for_ever)
    later = note_task.options(delay="12h").start("late")
    outlast_engine.advance("11h")
    assert later.status() is State.SCHEDULED and ran == []
    with pytest.raises(WaitTimeout, match=r"start time lies ahead.*advance\(\"1h\"\)"):
        later.result()
    outlast_engine.advance("1h")
    assert ran == ["late"]
    outlast_engine.advance("36h")
    with pytest.raises(ExecutionTimedOut):
        h.result()


@task
async def note_task(value: str) -> str:
    return str(await note(value))


def test_a_result_that_needs_an_answer_says_so(outlast_engine: VirtualEngine) -> None:
    h = outlast_engine.start(fulfil, "O-1")
    outlast_engine.advance("3d")
    with pytest.raises(WaitTimeout) as caught:
        h.result()
    error = caught.value
    assert h.id in error.what and "awaiting_input" in error.where
    assert 'somebody must answer "Release parcel?"' in error.why
    assert error.do == 'engine.answer(h, …), or engine.advance("2d")'
    outlast_engine.answer(h, False)  # and it is not broken by the question
    assert h.result() == "O-1 1 False"


def test_a_result_that_needs_a_signal_says_so(outlast_engine: VirtualEngine) -> None:
    @task
    async def hears() -> Any:
        return await wait_for("paid", int)

    h = outlast_engine.start(hears)
    with pytest.raises(WaitTimeout, match=r'h.signal\("paid", …\)'):
        h.result()
    with pytest.raises(WaitTimeout):
        h.wait(timeout="1m")
    h.signal("paid", 7)
    assert h.result() == 7


def test_a_result_of_what_is_paused_or_unknown_says_so(outlast_engine: VirtualEngine) -> None:
    h = outlast_engine.start(fulfil, "O-1")
    h.pause()
    with pytest.raises(WaitTimeout, match=r"paused it.*h.resume\(\)"):
        h.result()
    with engine(tasks=[note_task]) as other:
        stranger = other.start(fulfil, "O-2")
        with pytest.raises(WaitTimeout, match="does not run task fulfil"):
            stranger.result()


def test_a_body_on_the_loop_sleeps_in_virtual_time(outlast_engine: VirtualEngine) -> None:
    @step(timeout="1h")
    async def slow(seconds: float) -> str:
        ran.append("begun")
        await asyncio.sleep(seconds)  # sleeps: in a step, where time is virtual
        return "done"

    @task
    async def calls(seconds: float) -> str:
        return await slow(seconds)

    quick, late = (outlast_engine.start(calls, seconds) for seconds in (60.0, 4000.0))
    assert ran == ["begun", "begun"]
    with pytest.raises(WaitTimeout, match=r"slow#1 waits by itself.*advance\(\"1m\"\)"):
        quick.result()
    outlast_engine.advance("1h")
    assert quick.result() == "done"
    with pytest.raises(StepTimeout):
        late.result()


def test_threads_are_waited_for(outlast_engine: VirtualEngine) -> None:
    @step
    def computes(value: int) -> int:
        return sum(range(value))

    @task
    async def fans_out() -> list[int]:
        return list(await asyncio.gather(*[computes.aio(n * 10_000) for n in range(20)]))

    @task
    def sequential(n: int) -> int:
        blocking.sleep("5d")
        return computes(n) + int(blocking.ask("how many?", int))

    h, d = outlast_engine.start(fans_out), outlast_engine.start(sequential, 10)
    assert h.result() == [sum(range(n * 10_000)) for n in range(20)]
    assert d.status() is State.WAITING
    outlast_engine.advance("5d")
    outlast_engine.answer(d, 5)
    assert d.result() == 50


def test_to_thread_in_a_body_is_waited_for(outlast_engine: VirtualEngine) -> None:
    @step
    async def leaves() -> int:
        return await asyncio.to_thread(sum, range(100_000))

    @task
    async def calls() -> int:
        return await leaves()

    assert outlast_engine.start(calls).result() == sum(range(100_000))


def test_sockets_are_waited_for(outlast_engine: VirtualEngine) -> None:
    @step(timeout="10s")
    async def talks() -> str:
        mine, other = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=mine)
        go = threading.Event()
        answers = threading.Thread(target=lambda: (go.wait(), other.sendall(b"hello\n")))
        answers.start()
        go.set()
        line = await reader.readline()
        writer.close()
        answers.join()
        other.close()
        return line.decode().strip()

    @task
    async def calls() -> str:
        return await talks()

    h = outlast_engine.start(calls)
    assert h.result() == "hello"


def test_time_passes_by_a_thread_that_hangs() -> None:
    gate = threading.Event()

    @step(timeout="1h")
    def hangs() -> None:
        gate.wait()

    @task
    async def calls() -> str:
        try:
            await hangs.aio()
        except StepTimeout:
            return "gave up"
        return "came back"

    with engine(patience="20ms") as mine:
        h = mine.start(calls)
        with pytest.raises(WaitTimeout, match=r"hangs#1 .*did not end in the real time"):
            h.result()
        mine.advance("59m")
        assert not h.record().is_final
        mine.advance("1m")
        assert h.result() == "gave up"
        gate.set()


def test_every_run_is_the_same() -> None:
    @step(retries=Retry(3, base="1h", cap="1d", jitter=1))
    async def unlucky() -> None:
        raise ValueError

    @task
    async def tries() -> str:
        drawn = str(uuid4())
        try:
            await unlucky()
        except ValueError:
            return f"{drawn} {now()}"
        return ""

    def once() -> tuple[str, str]:
        with engine() as mine:
            h = mine.start(tries)
            mine.advance("10h")
            return h.id, str(h.result())

    first = once()
    random.seed(7)
    before = random.getstate()
    assert once() == first
    assert random.getstate() == before


def test_other_ways_to_start_and_ask(outlast_engine: VirtualEngine) -> None:
    one = note_task.start("one")
    many = outlast_engine.start_many(note_task, [("two",), ("three",)])
    keyed = note_task.options(key="k").start("four")
    assert note_task.options(key="k").start("four").id == keyed.id
    assert [h.result() for h in (one, *many, keyed)] == ["one", "two", "three", "four"]
    assert [h.id for h in outlast_engine.executions()] == [one.id, *(h.id for h in many), keyed.id]
    cancelled = outlast_engine.start(fulfil, "x")
    cancelled.cancel("changed my mind")
    assert cancelled.status() is State.CANCELLED


def test_from_async_code() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with engine() as mine:
            h = await mine.astart(fulfil, "O-1")
            with pytest.raises(WaitTimeout):
                await h.aresult()
            await mine.aadvance("3d")
            assert [q.title for q in await mine.apending(h)] == ["Release parcel?"]
            await h.aanswer(True)
            assert (await h.aresult(), h.result()) == ("O-1 1 True", "O-1 1 True")
            assert (await h.atransitions())[-1].kind is Kind.FINISH
            kinds = [row.kind async for row in h.awatch()]
            assert kinds[0] is Kind.CREATE and kinds[-1] is Kind.FINISH
            several = [mine.astart(note_task, str(n)) for n in range(3)]
            handles = await asyncio.gather(*several)
            assert await asyncio.gather(*[one.aresult() for one in handles]) == ["0", "1", "2"]
        assert asyncio.get_running_loop() is loop

    asyncio.run(main())


def test_a_body_may_start_other_executions(outlast_engine: VirtualEngine) -> None:
    @step
    async def starts() -> str:
        return await (await note_task.astart("child")).aresult()

    @step
    async def starts_wrongly() -> str:
        return note_task.start("child").result()

    @task
    async def parent(right: bool) -> str:
        return await (starts() if right else starts_wrongly())

    assert outlast_engine.start(parent, True).result() == "child"
    with pytest.raises(UsageError, match="astart"):
        outlast_engine.start(parent, False).result()


def test_a_closed_engine_says_so() -> None:
    with engine() as mine:
        h = mine.start(fulfil, "O-1")
    for call in (h.result, lambda: mine.advance("1s"), mine.pending, mine.executions):
        with pytest.raises(NoEngine):
            call()
    with pytest.raises(UsageError, match="make another"), mine:
        pass
    assert mine.close() == 0


def test_what_is_under_way_ends_with_the_engine() -> None:
    @step
    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ran.append("stopped")

    @task
    async def calls() -> None:
        await waits()

    with engine() as mine:
        mine.start(calls)
        threads = threading.active_count()
    assert ran == ["stopped"]
    assert threading.active_count() <= threads


def test_a_fault_of_the_engine_ends_the_test(
    outlast_engine: VirtualEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from outlast.engine.drive.driver import Driver

    def broken(*args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Driver, "begin", broken)
    with pytest.raises(ZeroDivisionError):
        outlast_engine.start(note_task, "x")


def test_an_engine_that_goes_round_in_circles_hangs_nobody(
    outlast_engine: VirtualEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from outlast.engine.drive.waiting import Waiting

    @task
    async def asks() -> bool:
        return await ask("go?")

    plain = Waiting.waits
    monkeypatch.setattr(
        Waiting, "waits", lambda self, scope: (plain(self, scope)[0], self._slots.clock.now())
    )
    with pytest.raises(InternalError, match="time does not pass"):
        outlast_engine.start(asks)


def test_it_is_quick() -> None:
    """A plain test with an engine of its own: 50 ms are promised, some 5 are what it takes.

    A busy machine may hold up a hundred of them, but not each.
    """

    def once() -> float:
        begun = time.process_time()  # a busy machine takes the processor away, and gives it back
        with engine() as mine:
            h = mine.start(fulfil, "O-1")
            mine.advance("3d")
            mine.answer(h, True)
            assert h.result() == "O-1 1 True"
        return time.process_time() - begun

    assert any(once() < 0.05 for _ in range(100))


def test_threads_come_back_in_the_order_in_which_they_were_begun(
    outlast_engine: VirtualEngine,
) -> None:
    """Whichever was faster: here the first cannot end before the last has."""
    last_has_ended = threading.Event()

    @step
    def ends(number: int) -> int:
        if number == 0:
            assert last_has_ended.wait(100)
        elif number == 3:
            last_has_ended.set()
        return number

    @task
    async def fans_out() -> list[int]:
        tasks = [asyncio.create_task(ends.aio(number)) for number in range(4)]
        return [await first for first in asyncio.as_completed(tasks)]

    assert outlast_engine.start(fans_out).result() == [0, 1, 2, 3]
