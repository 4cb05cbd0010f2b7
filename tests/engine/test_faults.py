"""What the simulation has found, each by itself: see "What was found by it" in reliability.md."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

import outlast
from outlast import Engine, Retry, State, blocking, step, task, this_step
from outlast.engine.drive.waiting import Waiting
from outlast.engine.write.request import new_message
from outlast.errors import StoreUnavailable
from outlast.lifecycle import Kind, Message, MessageKind
from outlast.store.protocol import Deliver, Store
from outlast.testing import VirtualEngine, engine


class FailsOnce:
    """A store one of whose verbs fails once: before it has done anything, or after."""

    def __init__(self, store: Store, verb: str, *, after: bool) -> None:
        self._store, self._verb, self._after = store, verb, after
        self.failed = 0
        self.is_armed = False

    def __getattr__(self, name: str) -> Any:
        plain = getattr(self._store, name)
        if name != self._verb:
            return plain

        def verb(*args: Any) -> Any:
            if not self.is_armed:
                return plain(*args)
            self.is_armed = False
            self.failed += 1
            if self._after:
                plain(*args)
            raise StoreUnavailable(f"{name} failed")

        return verb


class FlakyEngine(VirtualEngine):
    """A virtual engine on such a store."""

    def __init__(self, verb: str, *, after: bool, **more: Any) -> None:
        super().__init__(**more)
        self.flaky = FailsOnce(self._memory, verb, after=after)

    def _open_store(self, now: int) -> Store:
        return cast(Store, self.flaky)


@pytest.mark.parametrize("after", [False, True], ids=["not applied", "applied"])
@pytest.mark.parametrize("verb", ["logs", "claim", "sweep", "commit"])
def test_a_verb_that_fails_once_leaves_nothing_behind(verb: str, after: bool) -> None:
    @task
    async def asks() -> str:
        await outlast.sleep("1h")
        return await outlast.ask("name?", str)

    with FlakyEngine(verb, after=after, tasks=[asks]) as e:
        h = e.start(asks)
        e.flaky.is_armed = True
        e.advance("1h")
        e.advance("1m")
        e.answer(h, "ann")
        e.advance("1m")
        assert h.result() == "ann"
        assert e.flaky.failed == 1
        assert e._memory.verify().defects == []


class FlakySchedules(FlakyEngine):
    """A virtual engine on a store that says once that it could not change schedules, and did."""

    def _open_store(self, now: int) -> Store:
        self.schedules_flaky = FailsOnce(
            cast(Store, self._memory.schedules), self.flaky._verb, after=True
        )
        cast(Any, self.flaky).schedules = self.schedules_flaky
        return super()._open_store(now)


def test_what_a_slot_has_made_runs_although_nobody_was_told_that_it_was_made() -> None:
    @task
    async def daily() -> str:
        return "done"

    with FlakySchedules("apply_all", after=True, tasks=[daily]) as e:
        e.schedules.create("daily", daily, outlast.Schedule(every="1d", count=1))
        e.schedules_flaky.is_armed = True
        e.advance("1d")
        assert e.schedules_flaky.failed == 1
        e.advance("1m")
        (made,) = e.executions()
        assert made.status() is State.SUCCEEDED


def test_what_somebody_triggers_runs_although_he_was_not_told() -> None:
    @task
    async def daily() -> str:
        return "done"

    with FlakySchedules("apply", after=True, tasks=[daily]) as e:
        e.schedules.create("daily", daily, outlast.Schedule(every="1d"))
        e.schedules_flaky.is_armed = True
        with pytest.raises(StoreUnavailable):
            e.schedules.trigger("daily")
        e.advance("1m")
        (made,) = e.executions()
        assert made.status() is State.SUCCEEDED


def test_a_message_whose_reading_fails_is_read_again() -> None:
    @step
    async def betray() -> None:
        deliver(e, new_message(MessageKind.SIGNAL, "x", key="go", payload=b'"now"', id="m1"))
        e.flaky.is_armed = True

    @task
    async def hears() -> str:
        await betray()
        return await outlast.wait_for("go", str)

    with FlakyEngine("inbox", after=False, tasks=[hears]) as e:
        h = e.start(hears)
        e.advance("10s")
        assert h.result() == "now"
        assert e.flaky.failed == 1


def test_a_cancel_breaks_off_the_body_of_a_def_task(tmp_path: Any) -> None:
    began, go_on = threading.Event(), threading.Event()

    @step
    def slow() -> int:
        began.set()
        assert go_on.wait(100)
        return 1

    @task
    def works() -> int:
        return slow()

    async def main() -> None:
        async with Engine(f"sqlite:///{tmp_path}/t.db", tasks=[works]) as e:
            h = await e.astart(works)
            await asyncio.to_thread(began.wait, 100)
            await h.acancel()
            go_on.set()
            assert await h.await_("100s") is State.CANCELLED
            kinds = [row.kind for row in await h.atransitions()]
            assert Kind.CALL_ABANDONED in kinds and Kind.STEP not in kinds

    asyncio.run(main())


def test_a_cancel_wakes_a_def_task_that_sleeps() -> None:
    seen: list[str] = []

    @step
    def tidy() -> None:
        seen.append("tidied")

    @task
    def naps() -> None:
        try:
            blocking.sleep(
                timedelta(milliseconds=150)
            )  # sleeps: too short to park, so it is leased
        finally:
            tidy()

    with engine(tasks=[naps]) as e:
        h = e.start(naps)
        h.cancel()
        assert h.wait() is State.CANCELLED
        assert seen == ["tidied"]
        assert Kind.TIMER_FIRED not in [row.kind for row in h.transitions()]


def test_a_cancel_that_meets_a_failing_try_is_the_end() -> None:
    @step
    async def cancel_it() -> None:
        deliver(e, new_message(MessageKind.CANCEL, "x", id="m1"))

    @task(retries=Retry(3, base="1s"))
    async def fails() -> None:
        await cancel_it()
        raise ConnectionError

    with engine(tasks=[fails]) as e:
        h = e.start(fails)
        e.advance("1m")
        assert h.wait() is State.CANCELLED
        assert [row.kind for row in h.transitions()].count(Kind.RETRY) == 0


def test_an_attempt_begins_when_the_failure_before_it_is_durable() -> None:
    recorded: list[int] = []

    @step(retries=Retry(2, base="0s"))
    async def fails() -> None:
        rows = e._memory.log(this_step().execution_id)
        recorded.append(sum(row.kind is Kind.ATTEMPT_FAILED for row in rows))
        if len(recorded) < 3:
            raise ConnectionError

    @task
    async def tries() -> None:
        await fails()

    with engine(tasks=[tries]) as e:
        e.start(tries)
        e.advance("1s")
    assert recorded == [0, 1, 2]


def test_what_is_held_back_by_a_pause_wakes_nobody() -> None:
    @step(retries=Retry(2, base="1s", jitter=0))
    async def flaky() -> None:
        if this_step().attempt == 1:
            raise ConnectionError

    @step
    async def slow() -> None:
        await asyncio.sleep(10)  # sleeps: virtual time

    @task
    async def both() -> None:
        await asyncio.gather(flaky(), slow())

    with engine(tasks=[both]) as e:
        h = e.start(both)
        e.advance("500ms")
        h.pause()
        pumps = _count(e, "pump")
        e.advance("5s")
        assert pumps() < 5
        e.advance("10s")
        assert h.status() is State.PAUSED
        h.resume()
        assert h.wait() is State.SUCCEEDED


def test_a_timer_that_is_due_does_not_spin_while_an_outcome_waits_for_its_commit() -> None:
    """Where a budget is charged, the code hears of an outcome once it is durable; that pumps."""
    alarms: list[float] = []
    slots: Any = SimpleNamespace(
        clock=SimpleNamespace(now=lambda: 10),
        loop=SimpleNamespace(call_later=lambda delay, wake: alarms.append(delay)),
    )
    owner: Any = SimpleNamespace(durable=1, delivered=2, is_held=False)
    attempts: Any = SimpleNamespace(back_offs={}, backing_off=list)
    playback: Any = SimpleNamespace(outcomes=["an outcome"])
    children: Any = SimpleNamespace(under_way=())
    scope: Any = SimpleNamespace(next_timer=lambda: SimpleNamespace(deadline_at=5, key="timer#1"))
    waiting = Waiting(slots, owner, attempts, playback, children, lambda: None)
    waiting.set_alarm(scope)
    assert alarms == []
    playback.outcomes.clear()
    waiting.set_alarm(scope)
    assert alarms == [0.0]


def deliver(e: VirtualEngine, message: Message) -> None:
    """Send a message to the execution whose step this is, as another process does."""
    e._memory.commit([Deliver(this_step().execution_id, message, e.clock.now())])


def _count(e: VirtualEngine, name: str) -> Callable[[], int]:
    """Count how often the one driver's method is called."""
    (driver,) = e.worker.drivers.values()
    plain, calls = getattr(driver, name), [0]

    def counted() -> None:
        calls[0] += 1
        if calls[0] > 1_000:
            raise AssertionError("it spins")
        plain()

    setattr(driver, name, counted)
    return lambda: calls[0]
