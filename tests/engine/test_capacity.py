"""Limits, rates, queues and capabilities as task code meets them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from outlast import Engine, Limit, Rate, ask, sleep, step, task
from outlast.engine.guest import Guest
from outlast.errors import NotFound, UsageError
from outlast.lifecycle import Kind, State
from outlast.lifecycle.gate import held_by
from outlast.store.protocol import Filter
from outlast.testing import crash_everywhere
from outlast.testing.virtual import VirtualEngine


@dataclass
class Order:
    customer: str
    number: int


@pytest.fixture
def engine() -> Iterator[VirtualEngine]:
    with VirtualEngine() as engine:
        yield engine


@step
async def work(seconds: int) -> int:
    await asyncio.sleep(seconds)
    return seconds


@task(name="cap_single", limit=Limit(1))
async def single(seconds: int) -> int:
    return await work(seconds)


@task(name="cap_fulfil", limit=Limit(2, per="order.customer"))
async def fulfil(order: Order) -> int:
    return await work(60)


@task(name="cap_keeper", limit=Limit(1, hold=True))
async def keeper(n: int) -> int:
    return int(await ask("go on?", int)) + n


@task(name="cap_sharer", limit=Limit(1))
async def sharer(n: int) -> int:
    await sleep("1h")
    return n


@task(name="cap_mail", rate=Rate(6, "1m"))
async def mail(n: int) -> int:
    return n


@task(name="cap_gpu", needs="gpu")
async def train(n: int) -> int:
    return n


@task(name="cap_free")
async def free(seconds: int) -> int:
    return await work(seconds)


def states(executions: list[Any]) -> list[str]:
    return [str(execution.status()) for execution in executions]


def test_one_at_a_time_one_after_the_other(engine: VirtualEngine) -> None:
    started = [engine.start(single, 60) for _ in range(4)]
    assert states(started) == ["running", "blocked", "blocked", "blocked"]
    engine.advance("61s")
    assert states(started) == ["succeeded", "running", "blocked", "blocked"]
    engine.advance("3m")
    assert states(started) == ["succeeded"] * 4
    kinds = [row.kind for row in engine.store.log(started[3].id)]
    assert kinds.count(Kind.BLOCK) == 1 and Kind.UNBLOCK not in kinds


def test_each_customer_has_a_limit_of_its_own(engine: VirtualEngine) -> None:
    names = ["ada", "ada", "ada", "bob", "bob"]
    started = [engine.start(fulfil, Order(name, n)) for n, name in enumerate(names)]
    assert states(started) == ["running", "running", "blocked", "running", "running"]
    reason = started[2].reason()
    assert reason is not None and reason.code == "limit_full"
    assert started[0].id in reason.text and "cap_fulfil:ada" in reason.text
    assert "number 1 in line" in reason.text


def test_the_key_has_to_be_in_the_input(engine: VirtualEngine) -> None:
    for path in ("order.client", "order.customer.name", "orders", "order"):
        with pytest.raises(UsageError, match=r"order|input"):
            fulfil.options(limit=Limit(1, per=path)).start(Order("ada", 1))
    numbered = fulfil.options(limit=Limit(1, per="order.number")).start(Order("ada", 7))
    (record,) = engine.store.get([numbered.id])
    assert record is not None and held_by(record) == ["cap_fulfil:7"]


def test_a_start_can_ask_for_something_else(engine: VirtualEngine) -> None:
    first = engine.start(single, 60)
    other = single.options(limit=[Limit(1, name="other"), Limit(5, name="pool")]).start(60)
    none = single.options(limit=()).start(60)
    assert states([first, other, none]) == ["running"] * 3


def test_what_waits_gives_its_place_back(engine: VirtualEngine) -> None:
    started = [engine.start(sharer, n) for n in range(3)]
    assert states(started) == ["waiting"] * 3, "each came in when the one before it parked"
    engine.advance("2h")
    assert [execution.result() for execution in started] == [0, 1, 2]


def test_what_holds_keeps_its_place_while_it_waits(engine: VirtualEngine) -> None:
    first, second = engine.start(keeper, 1), engine.start(keeper, 2)
    assert states([first, second]) == ["awaiting_input", "blocked"]
    engine.advance("9d")
    assert second.status() is State.BLOCKED
    first.answer(10)
    assert first.result() == 11 and second.status() is State.AWAITING_INPUT
    second.cancel()
    assert second.status() is State.CANCELLED


def test_a_rate_spaces_out_what_begins(engine: VirtualEngine) -> None:
    started = [engine.start(mail, n) for n in range(7)]
    ended = []
    for _ in range(70):
        ended.append(sum(execution.record().is_final for execution in started))
        engine.advance("1s")
    assert ended[0] == 1 and ended[9] == 1 and ended[10] == 2 and ended[59] == 6
    assert ended[61] == 7


def test_a_burst_is_let_through_at_once(engine: VirtualEngine) -> None:
    bursty = mail.options(rate=Rate(6, "1m", burst=3))
    started = [bursty.start(n) for n in range(5)]
    assert sum(execution.record().is_final for execution in started) == 3
    engine.advance("20s")
    assert all(execution.record().is_final for execution in started)


def test_what_needs_a_capability_waits_for_an_engine_that_has_it(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/outlast.db"
    with Engine(store, tasks=[train]) as engine:
        waiting = engine.start(train, 7)
        engine.run(until(engine, waiting.id, State.BLOCKED))
        reason = waiting.reason()
        assert reason is not None and reason.code == "capability_missing"
    with Engine(store, tasks=[train], capabilities=("gpu",)) as engine:
        assert engine.execution(waiting.id).result(timeout=100) == 7


async def until(engine: Engine, id: str, state: State) -> None:
    while (await engine.read_one(id)).state is not state:
        await engine.next_change(id)


def test_an_engine_takes_from_its_own_queues_only(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/outlast.db"
    with Engine(store, tasks=[free], queues=("near",)) as engine:
        far = free.options(queue="far").start(0)
        near = free.options(queue="near").start(0)
        assert near.result(timeout=100) == 0 and far.status() is State.QUEUED
    with Engine(store, tasks=[free]) as engine:
        assert engine.execution(far.id).result(timeout=100) == 0


def test_what_another_process_sets_counts_for_a_running_engine(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/outlast.db"
    with Engine(store, tasks=[keeper, free]) as engine:
        first, second = engine.start(keeper, 1), engine.start(keeper, 2)
        engine.run(until(engine, second.id, State.BLOCKED))
        with Guest(store) as guest:
            guest.office.pause("shut", "lunch")
            assert guest.office.limit_queue("shut", 5).paused_at is not None
            held = free.options(queue="shut").start(0)
            guest.office.set_limit("cap_keeper", 2)
        engine.run(until(engine, second.id, State.AWAITING_INPUT))
        first.answer(1)
        second.answer(1)
        assert (first.result(timeout=100), second.result(timeout=100)) == (2, 3)
        assert held.status() is State.QUEUED
        with Guest(store) as guest:
            guest.office.resume("shut")
        assert held.result(timeout=100) == 0


def test_a_rerun_with_another_input_has_that_ones_limit(engine: VirtualEngine) -> None:
    first = engine.start(fulfil, Order("ada", 1))
    engine.advance("2m")
    other = first.rerun(order=Order("bob", 1))
    (record,) = engine.store.get([other.id])
    assert record is not None and held_by(record) == ["cap_fulfil:bob"]


def test_a_child_waits_for_its_gate_like_anybody(engine: VirtualEngine) -> None:
    @task(name="cap_parent")
    async def parent() -> list[int]:
        return list(await asyncio.gather(*(single(60) for _ in range(3))))

    started = engine.start(parent)
    children = [row.state for row in engine.store.page(Filter(parent_id=started.id))]
    assert sorted(map(str, children)) == ["blocked", "blocked", "running"]
    engine.queues.limit("default", 1)
    engine.advance("5m")
    assert started.result() == [60, 60, 60]


def test_a_paused_queue_runs_nothing_new(engine: VirtualEngine) -> None:
    running = engine.start(free, 60)
    engine.queues.pause("default", "lunch", actor="ann")
    engine.queues.pause("default", "again")
    held = engine.start(free, 1)
    other = free.options(queue="other").start(0)
    engine.advance("2m")
    assert states([running, held, other]) == ["succeeded", "queued", "succeeded"]
    reason = held.reason()
    assert reason is not None and reason.code == "queue_paused" and "number 1" in reason.text
    (row,) = engine.queues.list()
    assert (row.setting.paused_by, row.setting.why, row.queued) == ("ann", "lunch", 1)
    engine.queues.resume("default")
    engine.advance("2s")
    assert held.status() is State.SUCCEEDED
    assert [row.kind for row in engine.store.log(held.id)][:3] == [
        Kind.CREATE, Kind.CLAIM, Kind.START,
    ]  # fmt: skip


def test_a_limited_queue_runs_so_many(engine: VirtualEngine) -> None:
    engine.queues.limit("default", 2)
    started = [engine.start(free, 60) for _ in range(5)]
    assert states(started) == ["running", "running", "queued", "queued", "queued"]
    engine.advance("61s")
    assert states(started) == ["succeeded", "succeeded", "running", "running", "queued"]
    engine.queues.limit("default", None)
    assert started[4].status() is State.RUNNING


def test_a_limit_is_set_for_a_family_or_for_one(engine: VirtualEngine) -> None:
    started = [engine.start(fulfil, Order("ada", n)) for n in range(6)]
    assert states(started).count("running") == 2
    engine.limits.set("cap_fulfil", 3)
    assert states(started).count("running") == 3
    engine.limits.set("cap_fulfil:ada", 5, actor="ann")
    assert states(started).count("running") == 5
    (exact,) = [row for row in engine.limits.list() if row.gate == "cap_fulfil:ada"]
    assert len(exact.holders) == 5 and exact.waiting == 1 and exact.next_id == started[5].id
    engine.limits.reset("cap_fulfil:ada")
    engine.advance("61s")
    assert states(started) == ["succeeded"] * 5 + ["running"]
    with pytest.raises(NotFound):
        engine.limits.reset("cap_fulfil:ada")


def test_a_rate_can_be_set_while_it_runs(engine: VirtualEngine) -> None:
    started = [engine.start(mail, n) for n in range(9)]
    engine.limits.set_rate("cap_mail", 1, "1s")
    engine.advance("12s")
    assert states(started) == ["succeeded"] * 9


def test_another_priority_moves_it_to_the_front(engine: VirtualEngine) -> None:
    started = [engine.start(single, 60) for _ in range(4)]
    started[3].prioritize(9)
    engine.advance("61s")
    assert states(started) == ["succeeded", "blocked", "blocked", "running"]


def test_the_operator_can_wait_in_coroutines() -> None:
    async def scenario() -> list[str]:
        async with VirtualEngine() as engine:
            await engine.queues.apause("default")
            held = await engine.astart(free, 0)
            await engine.queues.aresume("default")
            await engine.limits.aset("cap_single", 2)
            await engine.limits.aset_rate("cap_mail", 2, "1s")
            gates = [row.gate for row in await engine.limits.alist()]
            await engine.limits.areset("cap_single")
            await engine.queues.alimit("default", 9)
            rows = await engine.queues.alist()
            assert rows[0].setting.capacity == 9
            assert await held.aresult() == 0
            return gates

    assert asyncio.run(scenario()) == ["cap_single", "rate:cap_mail"]


WRONG = [
    lambda: Limit(0),
    lambda: Limit(True),
    lambda: Limit(1, name="a:b"),
    lambda: Limit(1, name="rate"),
    lambda: Limit(1, name=""),
    lambda: Rate(0, "1m"),
    lambda: Rate(1, "1m", burst=0),
    lambda: Rate(10**7, "1s"),
    lambda: task(limit=[Limit(1), Limit(2, per="n")])(_plain),
    lambda: task(limit=3)(_plain),  # type: ignore[arg-type]
    lambda: task(needs=("",))(_plain),
    lambda: Engine("memory:", queues="default"),
    lambda: free.options(priority=2**40).start(1),
    lambda: free.options(priority="high").start(1),  # type: ignore[arg-type]
]


async def _plain(n: int) -> int:
    return n


@pytest.mark.parametrize("make", WRONG, ids=range(len(WRONG)))
def test_what_makes_no_sense_is_refused(engine: VirtualEngine, make: Any) -> None:
    with pytest.raises(UsageError):
        make()


@pytest.mark.parametrize("hold", [False, True])
def test_a_crash_at_any_point_lets_no_two_in(hold: bool) -> None:
    inside = {"now": 0, "most": 0}

    @step
    async def enter(n: int) -> int:
        inside["now"] += 1
        inside["most"] = max(inside["most"], inside["now"])
        try:
            await asyncio.sleep(1)
        finally:
            inside["now"] -= 1
        return n

    @task(name="cap_crash", limit=Limit(1, hold=hold), rate=Rate(60, "1m"))
    async def critical(n: int) -> int:
        await enter(n)
        await sleep("5s")
        return await enter(n)

    def scenario(engine: VirtualEngine) -> list[int]:
        inside["now"] = 0
        started = [engine.start(critical, n) for n in range(3)]
        engine.advance("2m")
        return [execution.result() for execution in started]

    report = crash_everywhere(scenario, tasks=[critical])
    assert report.result == [0, 1, 2] and inside["most"] == 1
    assert Kind.BLOCK in {point.kind for point in report.points}
