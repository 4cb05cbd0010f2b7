"""Schedules on the engine: in virtual time, across restarts, declared in code, by hand."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import apsw
import pytest

from outlast import Engine, Schedule, ask, blocking, now, sleep, slot, step, task, testing
from outlast.duration import instant
from outlast.engine.task.registry import TASKS, Task
from outlast.errors import (
    BadSchedule,
    NotFound,
    OutsideExecution,
    ScheduleRefused,
    UsageError,
    WrongArguments,
)
from outlast.schedule import ScheduleKind, ScheduleState
from outlast.store.protocol import Filter

from .conftest import run


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def fired(engine: Engine, name: str) -> list[datetime]:
    """The slots that were fired, in the order of the log."""
    log = engine.store.schedules.log(name, limit=10_000)[::-1]
    return [
        instant(one.slot) for one in log if one.kind is ScheduleKind.FIRE and one.slot is not None
    ]


@step
async def send(what: str) -> str:
    return f"sent {what}"


@task
async def plain(what: str = "it") -> str:
    return await send(what)


@task
async def slow() -> str:
    await sleep("90m")
    return "done"


@task
async def asking() -> bool:
    return await ask("?", bool)


def test_a_week_fires_the_right_slots_in_order() -> None:
    seen: list[tuple[str, datetime]] = []

    @task(cron="0 7 * * 1-5", tz="Europe/Berlin")
    async def report() -> None:
        seen.append(("report", now()))

    @task(every="12h")
    async def sync() -> None:
        seen.append(("sync", now()))

    start = at("2026-03-25T00:00")  # Wednesday; summer time begins on Sunday, the 29th
    with testing.engine(tasks=[report, sync], start_at=start) as engine:
        engine.advance("7d")
        reports = [one for name, one in seen if name == "report"]
        days = ((25, 6), (26, 6), (27, 6), (30, 5), (31, 5))
        assert reports == [at(f"2026-03-{day}T0{hour}:00") for day, hour in days]
        assert [one for name, one in seen if name == "sync"] == [
            start + timedelta(hours=12 * number) for number in range(1, 15)
        ]
        assert [one for _, one in seen] == sorted(one for _, one in seen)
        assert fired(engine, "report") == reports


def test_jitter_fires_later_and_always_the_same() -> None:
    seen: list[datetime] = []

    @task(every="1h", jitter="10m")
    async def spread() -> None:
        seen.append(now())

    for _ in range(2):
        with testing.engine(tasks=[spread]) as engine:
            engine.advance("6h")
            engine.advance("10m")
            slots = fired(engine, "spread")
    assert len(seen) == 12 and seen[:6] == seen[6:]
    late = [one - slot for one, slot in zip(seen[:6], slots, strict=True)]
    assert all(timedelta(0) <= one <= timedelta(minutes=10) for one in late) and len(set(late)) == 6


@pytest.mark.parametrize(
    ("overlap", "slots", "states"),
    [
        ("skip", [1, 3, 5], ["succeeded", "succeeded", "waiting"]),
        # The first ends at 2:30, and the slot of 2:00 begins; it ends at 4:00, and that of 3:00
        # begins; that of 4:00 waits, as both came at once, and that of 5:00 is skipped.
        ("queue", [1, 2, 3], ["succeeded", "succeeded", "waiting"]),
        ("allow", [1, 2, 3, 4, 5], ["succeeded"] * 3 + ["waiting"] * 2),
        ("cancel_old", [1, 2, 3, 4, 5], ["cancelled"] * 4 + ["waiting"]),
    ],
)
def test_overlap(overlap: Any, slots: list[int], states: list[str]) -> None:
    """Each execution takes 90 minutes, and there is a slot every hour."""
    with testing.engine(tasks=[slow]) as engine:
        engine.schedules.create("s", slow, Schedule(every="1h", overlap=overlap))
        begin = engine.now
        engine.advance("5h10m")
        hours = [(slot - begin) // timedelta(hours=1) for slot in fired(engine, "s")]
        ended = [str(one.status()) for one in engine.executions()]
        assert (hours, ended) == (slots, states)


def test_a_slot_that_waits_begins_when_the_other_is_answered_or_cancelled() -> None:
    with testing.engine(tasks=[asking]) as engine:
        engine.schedules.create("s", asking, Schedule(every="1h", overlap="queue"))
        engine.advance("2h")
        (first,) = engine.executions()
        first.answer(True)
        assert first.result() is True
        _, second = engine.executions()
        engine.advance("1h")
        second.cancel()
        assert len(engine.executions()) == 3
        assert [one.hour for one in fired(engine, "s")] == [1, 2, 3]


def test_executions_have_what_their_task_says() -> None:
    @task(queue="reports", priority=7, version="v2", timeout="10m", every="1h")
    async def careful() -> None:
        await ask("?", bool)

    with testing.engine(tasks=[careful]) as engine:
        engine.advance("1h")
        (one,) = engine.executions()
        row = one.record()
        assert (row.queue, row.priority, row.version) == ("reports", 7, "v2")
        assert row.origin == "schedule:careful"
        assert row.key == "schedule:careful@2026-01-01T01:00:00Z"
        assert row.deadline_at == row.created_at + 600_000_000
        assert one.transitions()[0].data["slot"] == row.created_at  # type: ignore[index]
        engine.advance("10m")
        assert one.status() == "timed_out"


def test_a_newer_slot_cancels_what_runs_and_what_waits() -> None:
    cleaned: list[str] = []

    @step
    async def work() -> None:
        await asyncio.sleep(3 * 3600)

    @task
    async def busy() -> None:
        try:
            await work()
        except asyncio.CancelledError:
            cleaned.append(await send("cleaning"))
            raise

    with testing.engine(tasks=[busy, slow]) as engine:
        engine.schedules.create("b", busy, Schedule(every="1h", overlap="cancel_old"))
        engine.schedules.create("s", slow, Schedule(every="1h", overlap="cancel_old"))
        engine.advance("2h")
        states = {(one.record().task, str(one.status())) for one in engine.executions()}
        assert states == {
            *(("busy", "cancelled"), ("busy", "running")),
            *(("slow", "cancelled"), ("slow", "waiting")),
        }
        assert cleaned == ["sent cleaning"]
        old = engine.executions()[0]
        assert old.transitions()[-1].data["why"] == "schedule b has fired again"  # type: ignore[index]
        engine.schedules.pause("b")
        engine.schedules.pause("s")
        engine.advance("4h")


def test_task_code_sees_its_slot() -> None:
    seen: list[datetime | None] = []

    @task(every="1h", jitter="5m", retries=1)
    async def sees() -> str:
        seen.append(slot())
        await sleep("1m")
        seen.append(slot())
        return str(slot())

    @task
    def sees_too() -> str:
        return str(blocking.slot())

    with testing.engine(tasks=[sees, sees_too]) as engine:
        engine.advance("70m")
        (one,) = engine.executions()
        hour = at("2026-01-01T01:00")
        assert one.result() == str(hour) and set(seen) == {hour} and len(seen) > 2
        assert engine.schedules.trigger("sees").status() == "waiting" and seen[-1] is None
        again = one.rerun()
        engine.advance("1m")
        assert again.result() == str(hour), "made again, it is of the same slot"
        engine.schedules.create("too", sees_too, Schedule(cron="0 3 * * *"))
        engine.advance("2h")
        (too,) = (one for one in engine.executions() if one.record().task == "sees_too")
        assert too.result() == str(at("2026-01-01T03:00"))
        assert engine.start(sees_too).result() == "None"
    with pytest.raises(OutsideExecution):
        slot()


def test_one_that_goes_on_as_a_new_execution_is_still_of_its_slot() -> None:
    """And open: a later slot sees the overlap."""

    @task
    async def rolling(turn: int = 0) -> str:
        await sleep("50m")
        if turn < 2:
            rolling.continue_as_new(turn + 1)
        return str(slot())

    with testing.engine(tasks=[rolling]) as engine:
        engine.schedules.create("s", rolling, Schedule(every="1h"))
        engine.advance("3h40m")
        first = engine.executions()[0]
        assert first.result() == str(at("2026-01-01T01:00"))
        kinds = [str(one.kind) for one in engine.schedules.log("s")[::-1]]
        assert kinds == ["create", "fire", "skip", "skip"]


def test_a_timeout_lets_the_slot_go_that_waits() -> None:
    @task(timeout="90m")
    async def stuck() -> None:
        await ask("?", bool)

    with testing.engine(tasks=[stuck]) as engine:
        engine.schedules.create("s", stuck, Schedule(every="1h", overlap="queue", count=2))
        engine.advance("2h20m")
        assert [str(one.status()) for one in engine.executions()] == ["awaiting_input"]
        engine.advance("20m")
        states = [str(one.status()) for one in engine.executions()]
        assert states == ["timed_out", "awaiting_input"]
        assert engine.schedules.get("s").state is ScheduleState.EXHAUSTED


def test_by_hand() -> None:
    with testing.engine(tasks=[plain]) as engine:
        schedules = engine.schedules
        made = schedules.create("daily", plain, Schedule(cron="0 7 * * *"), "the report")
        assert made.state is ScheduleState.ACTIVE and schedules.get("daily") == made
        assert schedules.create("daily", plain, Schedule(cron="0 7 * * *"), "the report") == made
        assert [one.day for one in schedules.next("daily", 3)] == [1, 2, 3]
        engine.advance("12h")
        (first,) = engine.executions()
        assert first.result() == "sent the report"
        assert schedules.trigger("daily", "a customer asks").result() == "sent the report"
        assert schedules.pause("daily", "holidays").state is ScheduleState.PAUSED
        engine.advance("3d")
        assert len(engine.executions()) == 2
        assert "paused since 2026-01-01 12:00:00+0000: holidays" in schedules.why(
            "daily", at("2026-01-03T07:00")
        )
        schedules.resume("daily")
        assert schedules.why("daily", at("2026-01-03T07:00")) == (
            "3 slots, 2026-01-02 07:00:00+0000 to 2026-01-04 07:00:00+0000, missed: it was paused"
        )
        made_again = schedules.backfill("daily", at("2026-01-01T00:00"), at("2026-01-03T23:00"))
        assert [one.result() for one in made_again] == ["sent the report"] * 2
        assert "backfilled by user" in schedules.why("daily", at("2026-01-03T07:00"))
        assert not schedules.backfill("daily", at("2026-01-01T00:00"), at("2026-01-03T23:00"))
        updated = schedules.update("daily", plain, Schedule(cron="0 8 * * *"), "the news")
        assert updated.plan.cron == "0 8 * * *"
        assert [one.name for one in schedules.list()] == ["daily"]
        assert schedules.cancel("daily").state is ScheduleState.CANCELLED
        assert schedules.next("daily") == [] and schedules.list("active") == []
        engine.advance("3d")
        assert len(engine.executions()) == 4
        kinds = [str(one.kind) for one in schedules.log("daily")[::-1]]
        assert kinds == [
            *("create", "fire", "trigger", "pause", "resume", "miss"),
            *("backfill", "backfill", "update", "cancel"),
        ]
        assert engine.store.verify().defects == []


def test_the_async_twins() -> None:
    async def main() -> None:
        async with testing.engine(tasks=[plain]) as engine:
            schedules = engine.schedules
            await schedules.acreate("s", plain, Schedule(every="1h"))
            assert (await schedules.aget("s")).task == "plain"
            await schedules.apause("s")
            await schedules.aresume("s")
            assert await (await schedules.atrigger("s")).aresult() == "sent it"
            assert len(await schedules.anext("s")) == 5 and len(await schedules.alist()) == 1
            await schedules.aupdate("s", plain, Schedule(every="2h"))
            await engine.aadvance("2h")
            assert "fired" in await schedules.awhy("s", engine.now)
            assert not await schedules.abackfill("s", engine.now, engine.now)
            assert len(await schedules.alog("s")) == 6
            await schedules.acancel("s")

    asyncio.run(main())


def test_refusals_are_named() -> None:
    with testing.engine(tasks=[plain]) as engine:
        schedules = engine.schedules
        schedules.create("s", plain, Schedule(every="1h"))
        with pytest.raises(ScheduleRefused) as caught:
            schedules.create("s", plain, Schedule(every="2h"))
        assert caught.value.refusal == "already_exists" and caught.value.code == "schedule_refused"
        schedules.pause("s")
        with pytest.raises(ScheduleRefused) as caught:
            schedules.pause("s")
        assert caught.value.refusal == "already_paused"
        with pytest.raises(ScheduleRefused) as caught:
            schedules.create("gone", plain, Schedule(every="1h", end=at("2025-01-01T00:00")))
        assert caught.value.refusal == "no_slot"
        engine.advance("2d")
        schedules.create("often", plain, Schedule(every="1s"))
        schedules.pause("often")
        engine.advance("1h")
        with pytest.raises(ScheduleRefused) as caught:
            schedules.backfill("often", engine.now - timedelta(hours=1), engine.now)
        assert caught.value.refusal == "too_many"
        for call in (schedules.get, schedules.pause, schedules.trigger, schedules.next):
            with pytest.raises(NotFound):
                call("none")  # type: ignore[operator]
        with pytest.raises(WrongArguments):
            schedules.create("x", plain, Schedule(every="1h"), 1, 2, 3)
        for name in ("", "a" * 201, "a\nb", "\ud800"):
            with pytest.raises(UsageError):
                schedules.create(name, plain, Schedule(every="1h"))
        for count in (0, 1_001, -1):
            with pytest.raises(UsageError):
                schedules.next("s", count)
        with pytest.raises(UsageError, match="before its beginning"):
            schedules.backfill("s", engine.now, engine.now - timedelta(days=1))


def test_a_task_that_needs_arguments_cannot_be_declared() -> None:
    with pytest.raises(BadSchedule, match="needs what"):

        @task(every="5m")
        async def needy(what: str) -> None: ...

    with pytest.raises(BadSchedule):
        task(every="5m", schedule=Schedule(every="5m"))
    with pytest.raises(BadSchedule):
        task(every="5m", cron="* * * * *")


def test_code_whose_schedule_is_over_still_opens() -> None:
    @task(schedule=Schedule(every="1h", end=at("2025-01-01T00:00")))
    async def over() -> None: ...

    with testing.engine(tasks=[over]) as engine:
        assert engine.schedules.list() == []


def test_who_made_an_execution_is_in_its_log() -> None:
    with testing.engine(tasks=[plain]) as engine:
        engine.schedules.create("s", plain, Schedule(every="1h"))
        engine.advance("1h")
        engine.schedules.trigger("s", actor="ada")
        actors = [one.transitions()[0].actor for one in engine.executions()]
        assert actors == ["schedule:s", "ada"]


class Hands:
    """A clock that is put forward by hand."""

    def __init__(self) -> None:
        self.now_us = 1_800_000_000_000_000  # 2027-01-15 08:00:00

    def now(self) -> int:
        return self.now_us

    def forward(self, **span: float) -> None:
        self.now_us += round(timedelta(**span).total_seconds() * 1e6)


def declared(**options: Any) -> Task[Any, Any]:
    """A task as the code of one deployment has it."""
    TASKS.pop("nightly", None)

    @task(name="nightly", **options)
    async def nightly() -> str:
        return "done"

    return nightly  # type: ignore[no-any-return]


def test_declared_schedules_follow_the_code(url: str) -> None:
    clock = Hands()

    def deploy(act: Any = None, **options: Any) -> tuple[str, str | None]:
        async def main(engine: Engine) -> tuple[str, str | None]:
            if act is not None:
                await act(engine)
            row = await engine.schedules.aget("nightly")
            return str(row.state), row.plan.cron

        found: tuple[str, str | None] = run(main, url, tasks=[declared(**options)], clock=clock)
        clock.forward(minutes=1)
        return found

    assert deploy(cron="0 3 * * *") == ("active", "0 3 * * *")
    assert deploy(lambda engine: engine.schedules.apause("nightly"), cron="0 3 * * *")[0] == (
        "paused"
    )
    assert deploy(cron="0 3 * * *")[0] == "paused"
    assert deploy(cron="0 4 * * *") == ("paused", "0 4 * * *")
    assert deploy(lambda engine: engine.schedules.aresume("nightly"), cron="0 4 * * *")[0] == (
        "active"
    )
    assert deploy()[0] == "cancelled"
    assert deploy(cron="0 5 * * *") == ("active", "0 5 * * *")
    assert deploy(lambda engine: engine.schedules.acancel("nightly"), cron="0 5 * * *")[0] == (
        "cancelled"
    )
    assert deploy(cron="0 5 * * *")[0] == "cancelled"

    async def other(engine: Engine) -> str:
        return str((await engine.schedules.aget("nightly")).state)

    assert run(other, url, tasks=[plain], clock=clock) == "cancelled"


def test_an_engine_that_does_not_know_the_task_retires_nothing(url: str) -> None:
    async def nothing(engine: Engine) -> None:
        pass

    async def state(engine: Engine) -> str:
        return str((await engine.schedules.aget("nightly")).state)

    run(nothing, url, tasks=[declared(every="1h")], clock=Hands())
    assert run(state, url, tasks=[plain], clock=Hands()) == "active"


@pytest.mark.parametrize(
    ("misfire", "expected"), [("skip", []), ("last", [5]), ("all", [1, 2, 3, 4, 5])]
)
def test_what_no_engine_fired_is_late(url: str, misfire: Any, expected: list[int]) -> None:
    clock = Hands()
    begin = instant(clock.now())

    async def make(engine: Engine) -> None:
        schedule = Schedule(every="1h", misfire=misfire, overlap="allow")
        await engine.schedules.acreate("s", plain, schedule)

    async def look(engine: Engine) -> list[int]:
        async with asyncio.timeout(100):
            while (row := await engine.schedules.aget("s")).next_at is not None and (
                row.next_at <= clock.now()
            ):
                await asyncio.sleep(0)
        for record in engine.store.page(Filter()):
            await engine.execution(record.id).await_("100s")
        assert engine.store.verify().defects == []
        return [(one - begin) // timedelta(hours=1) for one in fired(engine, "s")]

    run(make, url, tasks=[plain], clock=clock)
    clock.forward(hours=5, minutes=10)
    assert run(look, url, tasks=[plain], clock=clock) == expected


def test_no_crash_loses_or_doubles_a_slot() -> None:
    def scenario(engine: testing.VirtualEngine) -> list[Any]:
        engine.schedules.create("s", plain, Schedule(every="1h", count=3), "it")
        engine.schedules.create("q", slow, Schedule(every="1h", count=3, overlap="queue"))
        engine.advance("90m")
        triggered = engine.schedules.trigger("s")
        engine.advance("12h")
        log = [
            (str(one.kind), one.slot)
            for name in ("s", "q")
            for one in engine.store.schedules.log(name)
        ]
        return [triggered.result(), [one.result() for one in engine.executions()], log]

    report = testing.crash_everywhere(scenario, tasks=[plain, slow])
    assert report.result[1].count("sent it") == 4 and report.result[1].count("done") == 3
    assert len(report.points) > 15


def test_another_process_may_make_and_trigger(url: str) -> None:
    from outlast.engine.control.schedules import by_hand
    from outlast.engine.guest import Guest
    from outlast.schedule import Wish

    async def main(engine: Engine) -> str:
        await engine.schedules.acreate("s", plain, Schedule(every="1h"))
        with Guest(url) as guest:
            book = guest.book
            answer = book.apply("s", by_hand(Wish.TRIGGER, "guest", None, guest.new_ids(1)))
        return str(await engine.execution(answer.made[0]).aresult("100s"))

    assert run(main, url, tasks=[plain]) == "sent it"


def test_a_broken_schedule_does_not_stop_the_others(url: str) -> None:
    """Its time zone is gone, say, as the zone database was changed."""
    clock = Hands()
    said: list[Any] = []

    async def main(engine: Engine) -> int:
        engine.loop.set_exception_handler(lambda loop, context: said.append(context["message"]))
        await engine.schedules.acreate("broken", plain, Schedule(cron="30 * * * *"))
        await engine.schedules.acreate("sound", plain, Schedule(every="1h"))
        shell = apsw.Connection(url.removeprefix("sqlite:///"))
        shell.set_busy_timeout(10_000)
        shell.execute("DROP TRIGGER schedule_changed")
        shell.execute(
            "UPDATE schedule SET plan = replace(plan, 'UTC', 'Mars/Base') WHERE name = 'broken'"
        )
        shell.close()
        clock.forward(hours=1)
        engine.scheduler.look()
        async with asyncio.timeout(100):
            while not (await engine.schedules.aget("sound")).fired:
                await asyncio.sleep(0)
        return (await engine.schedules.aget("broken")).fired

    assert run(main, url, tasks=[plain], clock=clock) == 0
    assert said == ["outlast cannot fire schedule broken"]


def test_many_schedules_at_one_instant(url: str) -> None:
    clock = Hands()

    async def main(engine: Engine) -> None:
        for number in range(250):
            await engine.schedules.acreate(f"s{number}", plain, Schedule(every="1h"))
        clock.forward(hours=1)
        engine.scheduler.look()
        async with asyncio.timeout(100):
            while not all(one.fired for one in await engine.schedules.alist()):
                await asyncio.sleep(0)
        assert len(engine.store.page(Filter(limit=1_000))) == 250

    run(main, url, tasks=[plain], clock=clock)


def test_old_entries_are_pruned(url: str) -> None:
    clock = Hands()

    async def main(engine: Engine) -> list[str]:
        await engine.schedules.acreate("s", plain, Schedule(every="365d"))
        for _ in range(3):
            await engine.schedules.apause("s")
            await engine.schedules.aresume("s")
        clock.forward(days=31)
        await engine.prune()
        return [str(one.kind) for one in await engine.schedules.alog("s")]

    assert run(main, url, tasks=[plain], clock=clock, retention=None)[-1] == "create"
    clock = Hands()
    assert run(main, url + "2", tasks=[plain], clock=clock) == ["resume"]
