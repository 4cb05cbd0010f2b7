"""Budgets, from the code that spends to the execution that waits for more."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from outlast import Budget, Engine, Retry, State, ask, reserve, sleep, spend, step, task
from outlast.budget import charged_by, decimal_of, millionths, shown, spent_by
from outlast.engine.control.handle import Execution
from outlast.errors import NotFound, OverBudget, TransitionRefused, UsageError
from outlast.lifecycle import Kind
from outlast.testing import VirtualEngine, crash_everywhere
from outlast.testing import engine as virtual

CENT = Decimal("0.01")
ran: list[Any] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    ran.clear()


@step(cost={"usd": 0.05})
async def priced(name: str = "a") -> str:
    ran.append(name)
    return name


@step
async def metered(usd: float, tokens: int = 0) -> float:
    ran.append(usd)
    spend(usd=usd, tokens=tokens)
    return usd


@step
def metered_in_thread(usd: float) -> float:
    spend(usd=usd)
    return usd


@step
async def free() -> None:
    ran.append("free")


def spent(execution: Execution[Any], meter: str = "usd") -> Decimal:
    return execution.budget()[meter].spent


def sound(engine: VirtualEngine) -> None:
    """What budgets say is what the logs add up to."""
    assert engine.store.verify().defects == []
    for execution in engine.executions():
        log = execution.transitions()
        assert engine.store.spending(execution.id) == charged_by(log)


def suspended(execution: Execution[Any]) -> dict[str, Any]:
    record = execution.record()
    assert record.state is State.SUSPENDED, record
    assert record.detail is not None and record.detail["code"] == "budget"
    wanted: Any = record.detail["budget"]
    return dict(wanted)


# Spending


def test_what_bodies_and_task_code_spend_is_charged_once() -> None:
    @task(budget=Budget(usd=2.00, tokens=200_000))
    async def summarize() -> float:
        total = await metered(0.012, 830) + await metered_in_thread.aio(0.5)
        await sleep("1h")
        spend(usd="0.1")
        await sleep("1h")
        return total

    with virtual() as engine:
        run = summarize.start()
        engine.advance("3h")
        assert run.result() == 0.512
        assert spent(run) == Decimal("0.612")
        assert spent(run, "tokens") == 830
        assert spent_by(run.transitions()) == {"usd": 612_000, "tokens": 830_000_000}
        sound(engine)


def test_a_step_costs_what_it_says_unless_its_body_knows_better() -> None:
    @step(cost={"usd": 1})
    async def cheap() -> None:
        spend(usd=0.25)

    @step(cost={"usd": 1})
    async def gratis() -> None:
        spend(usd=0)

    @task(budget=Budget(usd=5))
    async def both() -> None:
        await priced()
        await cheap()
        await gratis()

    with virtual() as engine:
        run = both.start()
        run.result()
        assert spent(run) == Decimal("0.3")
        sound(engine)


def test_a_failed_attempt_has_spent_as_well() -> None:
    @step(retries=Retry(2, base="1s"), cost={"usd": 0.1})
    async def flaky() -> int:
        ran.append("flaky")
        if ran.count("flaky") < 3:
            raise ValueError
        return 1

    @task(budget=Budget(usd=1))
    async def stubborn() -> int:
        return await flaky()

    with virtual() as engine:
        run = stubborn.start()
        engine.advance("1h")
        assert run.result() == 1
        assert spent(run) == Decimal("0.3")
        sound(engine)


def test_another_try_of_the_task_reuses_and_does_not_pay_again() -> None:
    @task(retries=Retry(1, base="1s"), budget=Budget(usd=1))
    async def twice() -> None:
        await priced()
        spend(usd=0.01)
        async with reserve(usd=0.2) as held:
            held.settle(usd=0.1)
        if ran.count("once") == 0:
            ran.append("once")
            raise ValueError

    with virtual() as engine:
        run = twice.start()
        engine.advance("1h")
        run.result()
        # The step and the remark are of the first try; the reservation is a new one.
        assert spent(run) == Decimal("0.26")
        assert engine.store.reservations(run.id) == []
        sound(engine)


def test_without_a_budget_the_log_says_what_was_spent() -> None:
    @task
    async def loose() -> None:
        await priced()
        spend(tokens=5)

    with virtual() as engine:
        run = loose.start()
        run.result()
        assert run.budget() == {}
        assert spent_by(run.transitions()) == {"usd": 50_000, "tokens": 5_000_000}
        sound(engine)


def test_outside_an_execution_spending_does_nothing() -> None:
    spend(usd=1)
    assert asyncio.run(metered(3.0)) == 3.0
    with reserve(usd=1) as held:
        held.settle(usd=2)


# Limits


def test_an_exhausted_budget_suspends_and_a_raise_lets_it_go_on() -> None:
    @task(budget=Budget(usd=0.12))
    async def three() -> str:
        return await priced("a") + await priced("b") + await priced("c")

    with virtual() as engine:
        run = three.start()
        engine.advance("1s")
        wanted = suspended(run)
        assert ran == ["a", "b"]
        assert wanted["name"] == f"execution:{run.id}:usd"
        assert (wanted["need"], wanted["missing"]) == (50_000, 30_000)
        reason = run.reason()
        assert reason is not None and reason.code == "budget"
        assert "0.02 of 0.12 usd left; priced#3 needs 0.05" in reason.text
        assert reason.hint == f"outlast budget raise {run.id} usd=0.03"
        run.raise_budget(usd="0.03")
        assert run.result() == "abc"
        assert ran == ["a", "b", "c"]
        kinds = [row.kind for row in run.transitions()]
        assert kinds.count(Kind.SUSPEND) == 1 and Kind.BUDGET_CHANGED in kinds
        resumed = next(row for row in run.transitions() if row.kind is Kind.RESUME)
        assert resumed.data == {"cause": "budget"}
        sound(engine)


def test_too_small_a_raise_changes_nothing() -> None:
    @task(budget=Budget(usd=0.01))
    async def one() -> str:
        return await priced()

    with virtual() as engine:
        run = one.start()
        engine.advance("1s")
        run.raise_budget(usd="0.01")
        engine.advance("1s")
        suspended(run)
        run.raise_budget(usd="0.03")
        assert run.result() == "a"


def test_what_was_overspent_stops_the_next_body_whatever_it_costs() -> None:
    @task(budget=Budget(usd=1))
    async def over() -> None:
        await metered(3.0)
        await free()

    with virtual() as engine:
        run = over.start()
        engine.advance("1s")
        assert suspended(run)["missing"] == 2_000_000
        assert ran == [3.0]
        run.raise_budget(usd=2)
        run.result()
        sound(engine)


def test_what_is_spent_to_the_last_cent_lets_free_steps_run() -> None:
    @task(budget=Budget(usd=0.05))
    async def exact() -> None:
        await priced()
        await free()

    with virtual():
        exact.start().result()
        assert ran == ["a", "free"]


def test_what_task_code_spends_stops_the_very_next_body() -> None:
    """Also while the store has not heard of it yet, and whatever the body itself costs."""

    @task(budget=Budget(usd=1))
    async def spends() -> None:
        for _ in range(9):
            await free()
            spend(usd=0.3)

    with virtual() as engine:
        h = engine.start(spends)
        engine.advance("1s")
        wanted = suspended(h)
        assert (wanted["call"], spent(h), len(ran)) == ("free#5", Decimal("1.2"), 4)
        h.raise_budget(usd=9)
        h.result()
        assert (spent(h), len(ran)) == (Decimal("2.7"), 9)
        sound(engine)


def test_calls_side_by_side_wait_for_what_the_others_give_back() -> None:
    @step(cost={"usd": 0.6})
    async def guess(number: int) -> int:
        await asyncio.sleep(1)
        spend(usd=0.2)
        return number

    @task(budget=Budget(usd=1))
    async def side_by_side() -> list[int]:
        return await asyncio.gather(guess(1), guess(2), guess(3))

    with virtual() as engine:
        run = side_by_side.start()
        engine.advance("10s")
        assert run.result() == [1, 2, 3]
        assert Kind.SUSPEND not in [row.kind for row in run.transitions()]
        assert spent(run) == Decimal("0.6")
        sound(engine)


def test_two_executions_race_for_the_last_cent() -> None:
    @step(cost={"usd": 0.01})
    async def last_cent(id: int) -> int:
        ran.append(id)
        await asyncio.sleep(1)
        return id

    @task(name="racer")
    async def racer(id: int) -> int:
        return await last_cent(id)

    with virtual() as engine:
        engine.budgets.set("task:racer", usd=0.01)
        runs = [racer.start(id) for id in (1, 2)]
        engine.advance("5s")
        states = sorted(run.status() for run in runs)
        assert states == [State.SUCCEEDED, State.SUSPENDED]
        assert len(ran) == 1
        (budget,) = engine.budgets.list()
        assert (budget.spent, budget.reserved, budget.left) == (CENT, 0, 0)
        engine.budgets.raise_("task:racer", usd=0.01)
        engine.advance("5s")
        assert sorted(run.result() for run in runs) == [1, 2]
        sound(engine)


def test_what_an_other_execution_gives_back_lets_the_next_go_on() -> None:
    @step(cost={"usd": 1})
    async def careful() -> None:
        await asyncio.sleep(1)
        spend(usd=0.25)

    @task(name="thrifty")
    async def thrifty() -> None:
        await careful()

    with virtual() as engine:
        engine.budgets.set("tenant", usd=1.75)
        runs = [thrifty.start() for _ in range(4)]
        engine.advance("1m")
        assert [run.status() for run in runs] == [State.SUCCEEDED] * 4
        assert engine.budgets.get("tenant")["usd"].spent == 1
        sound(engine)


def test_a_reset_and_the_turn_of_a_period_let_go_on() -> None:
    @task(name="daily")
    async def daily(name: str) -> str:
        return await priced(name)

    with virtual() as engine:
        engine.budgets.set("task:daily", usd=0.06, period="1d")
        runs = [daily.start(name) for name in "abc"]
        engine.advance("1h")
        assert [run.status() for run in runs].count(State.SUSPENDED) == 2
        engine.budgets.reset("task:daily")
        engine.advance("1h")
        assert [run.status() for run in runs].count(State.SUSPENDED) == 1
        engine.advance("1d")
        assert sorted(run.result() for run in runs) == ["a", "b", "c"]
        sound(engine)


def test_a_shared_budget_set_meanwhile_counts_from_then_on() -> None:
    @task(name="late")
    async def late() -> None:
        await metered(1.0)
        await ask("Go on?")
        await metered(2.0)

    with virtual() as engine:
        run = late.start()
        engine.advance("1s")
        engine.budgets.set("task:late", usd=None)
        engine.answer(run, True)
        run.result()
        assert engine.budgets.get("task:late")["usd"].spent == 2
        sound(engine)


def test_what_has_not_begun_waits_at_the_gate() -> None:
    @task(name="gated")
    async def gated(name: str) -> str:
        return await priced(name)

    with virtual() as engine:
        engine.budgets.set("task:gated", usd=0.05, period="1d")
        assert gated.start("a").result() == "a"
        waiting = [gated.start(name) for name in "bc"]
        engine.advance("1h")
        assert [run.status() for run in waiting] == [State.BLOCKED] * 2
        reason = waiting[0].reason()
        assert reason is not None and reason.code == "budget_spent"
        assert reason.text.startswith("nothing is left of the budget task:gated:usd")
        engine.budgets.raise_("task:gated", usd=0.05)
        engine.advance("1h")
        assert sorted(run.status() for run in waiting) != [State.BLOCKED] * 2
        engine.advance("1d")
        assert sorted(run.result() for run in waiting) == ["b", "c"]
        sound(engine)


def test_the_gate_opens_on_a_file(tmp_path: Path) -> None:
    @task(name="filed")
    async def filed(name: str) -> str:
        return await priced(name)

    url = f"sqlite:///{tmp_path}/outlast.db"
    with Engine(url, tasks=[filed]) as engine:
        engine.budgets.set("task:filed", usd=0.05)
        assert engine.start(filed, "a").result("100s") == "a"
        run = engine.start(filed, "b")
        while run.status() is not State.BLOCKED:
            engine.run(engine.next_change(run.id))
        engine.budgets.raise_("task:filed", usd=0.05)
        assert run.result("100s") == "b"
        assert engine.store.verify().defects == []


def test_thresholds_are_recorded_once() -> None:
    @task(budget=Budget(usd=1, soft=0.5))
    async def crossing() -> None:
        for _ in range(4):
            await metered(0.3)

    with virtual() as engine:
        run = crossing.start()
        engine.advance("1s")
        told = [row.data for row in run.transitions() if row.kind is Kind.BUDGET_CHANGED]
        assert [data and data["what"] for data in told] == ["soft", "spent_up"]
        events = engine.store.budget_events(f"execution:{run.id}", "usd")
        assert [(event.what, event.spent) for event in events] == [
            ("soft", 600_000),
            ("spent_up", 1_200_000),
        ]


def test_a_clean_up_is_not_held_up() -> None:
    @task(budget=Budget(usd=0.05))
    async def tidy() -> None:
        try:
            await priced("a")
            await ask("Go on?")
        finally:
            await priced("undo")

    with virtual() as engine:
        run = tidy.start()
        engine.advance("1s")
        run.cancel()
        engine.advance("1s")
        assert run.status() is State.CANCELLED
        sound(engine)


def test_children_charge_the_tree_of_their_root() -> None:
    @task(name="leaf", budget=Budget(usd=1))
    async def leaf(name: str) -> str:
        return await priced(name)

    @task(name="branch")
    async def branch(name: str) -> str:
        return await leaf(name)

    @task(name="root", budget=Budget(usd=0.12, scope="tree"))
    async def root() -> list[str]:
        return [await branch("a"), await leaf("b"), await priced("c")]

    with virtual() as engine:
        run = root.start()
        engine.advance("1h")
        assert suspended(run)["name"] == f"tree:{run.id}:usd"
        assert spent(run) == Decimal("0.1")
        leaves = [one for one in engine.executions() if one.record().task == "leaf"]
        assert [spent_by(one.transitions()) for one in leaves] == [{"usd": 50_000}] * 2
        assert [set(engine.store.spending(one.id)) for one in leaves] == [
            {f"tree:{run.id}:usd", f"execution:{one.id}:usd"} for one in leaves
        ]
        run.raise_budget(usd=1)
        assert run.result() == ["a", "b", "c"]
        sound(engine)


# Seconds


def test_the_engine_charges_the_time_of_bodies() -> None:
    @step
    async def slow() -> None:
        await asyncio.sleep(40)

    @task(budget=Budget(seconds=60))
    async def long() -> None:
        await slow()
        await slow()
        await slow()

    with virtual() as engine:
        run = long.start()
        engine.advance("1h")
        assert spent(run, "seconds") == 80  # the body that was under way came to its end
        assert suspended(run)["name"].endswith(":seconds")
        run.raise_budget(seconds=60)
        engine.advance("1h")
        run.result()
        assert spent(run, "seconds") == 120
        sound(engine)


# Reservations


def test_a_parent_with_a_budget_hears_of_each_child_once() -> None:
    """Its outcomes wait until they are durable; what it called is not answered twice meanwhile."""

    @task
    async def child(n: int) -> int:
        await sleep("1h")
        spend(usd=0.1)
        return n

    @task(budget=Budget(usd=1, scope="tree"))
    async def parent() -> list[int]:
        together = await asyncio.gather(child(1), child(2))
        return [*together, await child(3), await child(4)]

    def scenario(engine: VirtualEngine) -> Any:
        run = parent.start()
        engine.advance("5h")
        sound(engine)
        return run.result(), spent(run)

    assert crash_everywhere(scenario).result == ([1, 2, 3, 4], Decimal("0.4"))


# Given later


@pytest.mark.parametrize("when", ["running", "parked", "paused", "queued"])
def test_an_open_execution_can_be_given_a_budget(when: str) -> None:
    @step
    async def long() -> None:
        await asyncio.sleep(600)

    @task
    async def unbounded() -> str:
        if when == "running":
            await long()
        else:
            await sleep("10m")
        await metered(0.4)
        await sleep("10m")
        await metered(0.4)
        await metered(0.4)
        return "done"

    def scenario(engine: VirtualEngine) -> Any:
        run = unbounded.options(delay="5m").start() if when == "queued" else unbounded.start()
        if when == "paused":
            engine.advance("1m")
            run.pause()
        assert run.budget() == {}
        run.set_budget(usd=0.5, soft=0.5)
        if when == "paused":
            run.resume()
        engine.advance("1h")
        wanted = suspended(run)
        assert wanted["name"] == f"execution:{run.id}:usd"
        assert engine.budgets.get(f"execution:{run.id}")["usd"].soft == Decimal("0.25")
        before = spent(run)
        run.set_budget(usd=2)
        engine.advance("1h")
        sound(engine)
        with pytest.raises(TransitionRefused, match="ended"):
            run.set_budget(usd=3)
        return before, spent(run), run.result()

    expected = (Decimal("0.8"), Decimal("1.2"), "done")
    assert crash_everywhere(scenario, tasks=[unbounded]).result == expected


def test_a_budget_for_nobody_is_refused() -> None:
    with virtual() as engine:
        with pytest.raises(NotFound):
            engine.budgets.set("execution:ex_1kdvdna0000000000009", usd=1)
        with pytest.raises(NotFound, match="no budget"):
            engine.budgets.set("tree:ex_1kdvdna0000000000009", usd=1)


def test_of_two_that_end_together_the_second_may_be_given_up() -> None:
    """The first outcome is not delivered before it is durable; the second waits for that."""

    @step(cost={"usd": 0})
    async def quick(n: int) -> int:
        ran.append(n)
        await asyncio.sleep(60)
        return n

    @task(budget=Budget(usd=1))
    async def race() -> int:
        runners = [asyncio.ensure_future(quick(n)) for n in range(3)]
        done, others = await asyncio.wait(runners, return_when=asyncio.FIRST_COMPLETED)
        for one in others:
            one.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await priced()
        return min(one.result() for one in done)

    def scenario(engine: VirtualEngine) -> Any:
        run = race.options(budget=Budget(usd=1, seconds=10_000)).start()
        engine.advance("1h")
        sound(engine)
        return run.result()

    assert crash_everywhere(scenario, tasks=[race]).result == 0


# What does not say what it costs


@step
async def unpriced(usd: float) -> float:
    ran.append(usd)
    await asyncio.sleep(60)
    spend(usd=usd)
    return usd


@task
async def spends_below(usd: float) -> float:
    return await unpriced(usd)


@pytest.mark.parametrize("scope", ["execution", "tree"])
def test_bodies_without_a_cost_do_not_overrun_side_by_side(scope: Any) -> None:
    """A hundred at once, of which a budget covers ten: the eleventh does not begin."""

    @task(budget=Budget(usd=1, scope=scope))
    async def many() -> float:
        call = spends_below if scope == "tree" else unpriced
        return sum(await asyncio.gather(*(call(0.1) for _ in range(100))))

    with virtual() as engine:
        run = many.start()
        engine.advance("1h")
        assert spent(run) == 1 and len(ran) == 10
        stopped = [one for one in engine.executions() if one.status() is State.SUSPENDED]
        assert {one.reason().code for one in stopped} == {"budget"}
        assert stopped[0].id == run.id or scope == "tree"
        run.raise_budget(usd=1)
        engine.advance("1h")
        assert spent(run) == 2 and len(ran) == 20
        run.raise_budget(usd=8)
        engine.advance("1h")
        assert run.result() == pytest.approx(10) and spent(run) == 10 and len(ran) == 100
        sound(engine)


def test_the_first_of_a_step_shows_what_the_others_will_spend() -> None:
    """One alone, then as many as are covered, then one after the other."""
    begun: list[int] = []

    @step
    async def timed(n: int) -> None:
        begun.append(n)
        await asyncio.sleep(60)
        spend(usd=0.3)

    @task(budget=Budget(usd=1))
    async def several() -> None:
        await asyncio.gather(*(timed(n) for n in range(5)), free(), free())

    with virtual() as engine:
        run = several.start()
        assert begun == [0] and ran == ["free", "free"]
        engine.advance("1m")
        assert begun == [0, 1, 2]  # 0.7 is left, which covers two
        engine.advance("1m")
        assert begun == [0, 1, 2, 3]  # 0.1 is left: one at a time, until nothing is
        engine.advance("1m")
        assert begun == [0, 1, 2, 3] and spent(run) == Decimal("1.2")
        assert suspended(run)["name"].endswith(":usd")


def test_who_says_that_a_step_costs_nothing_need_not_wait() -> None:
    @step(cost={"usd": 0})
    async def download() -> None:
        ran.append("download")
        await asyncio.sleep(60)

    @task(budget=Budget(usd=1))
    async def downloads() -> None:
        await asyncio.gather(*(download() for _ in range(20)))

    with virtual():
        downloads.start()
        assert len(ran) == 20


def test_a_body_that_is_given_up_makes_room_for_the_next() -> None:
    @task(budget=Budget(usd=1))
    async def hasty() -> list[Any]:
        async def brief() -> Any:
            try:
                async with asyncio.timeout(1):
                    return await unpriced(0.1)
            except TimeoutError:
                return "late"

        return [await brief(), await unpriced(0.2)]

    with virtual() as engine:
        run = hasty.start()
        engine.advance("2m")
        assert run.result() == ["late", 0.2]
        sound(engine)


def test_task_code_sets_aside_and_settles() -> None:
    @task(budget=Budget(usd=1))
    async def holds() -> str:
        async with reserve(usd=0.50) as held:
            await sleep("1d")
            held.settle(usd=0.31)
        return await priced()

    with virtual() as engine:
        run = holds.start()
        engine.advance("1h")
        budget = run.budget()["usd"]
        assert (budget.spent, budget.reserved) == (0, Decimal("0.5"))
        engine.advance("1d")
        assert run.result() == "a"
        budget = run.budget()["usd"]
        assert (budget.spent, budget.reserved) == (Decimal("0.36"), 0)
        sound(engine)


@pytest.mark.parametrize("budget", [None, Budget(usd=5)])
def test_what_a_granted_branch_gives_up_is_not_granted(budget: Budget | None) -> None:
    """Two are asked for at once; the first is granted, and its branch takes the other along."""

    async def breaks() -> None:
        async with reserve(usd=1) as held:
            held.settle()
            raise ValueError("enough")

    async def other() -> None:
        async with reserve(usd=2):
            await asyncio.Event().wait()

    @task(budget=budget)
    async def both() -> str:
        await metered(0.5)  # so that what it sets aside waits for a row to be durable
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(breaks())
                group.create_task(other())
        except ExceptionGroup:
            return await priced()
        return "went on"

    def scenario(engine: VirtualEngine) -> Any:
        run = both.start()
        engine.advance("2h")
        sound(engine)
        return run.result(), {meter: one.reserved for meter, one in run.budget().items()}

    expected = ("a", {} if budget is None else {"usd": Decimal(0)})
    assert crash_everywhere(scenario).result == expected


def test_task_code_waits_until_its_reservation_fits() -> None:
    @task(budget=Budget(usd=1))
    async def greedy() -> str:
        async with reserve(usd=1.5):
            return "done"

    with virtual() as engine:
        run = greedy.start()
        engine.advance("1h")
        assert suspended(run)["missing"] == 500_000
        run.raise_budget(usd=1)
        assert run.result() == "done"
        assert spent(run) == Decimal("1.5")  # what was not settled counts as spent
        sound(engine)


def test_a_def_task_reserves_and_spends() -> None:
    @step(cost={"usd": 0.2})
    def work() -> int:
        return 1

    @task(budget=Budget(usd=1))
    def plain() -> int:
        with reserve(usd=0.5) as held:
            held.settle(usd=0.1)
        spend(usd=0.05)
        return work()

    with virtual() as engine:
        run = plain.start()
        assert run.result() == 1
        assert spent(run) == Decimal("0.35")
        sound(engine)


def test_a_body_reserves_and_may_do_with_less() -> None:
    @step
    async def model() -> str:
        try:
            async with reserve(usd=5) as held:
                held.settle(usd=4)
                return "large"
        except OverBudget:
            async with reserve(usd=0.5) as held:
                held.settle(usd=0.1)
                return "small"

    @task(budget=Budget(usd=1))
    async def choose() -> str:
        return await model()

    with virtual() as engine:
        run = choose.start()
        assert run.result() == "small"
        budget = run.budget()["usd"]
        assert (budget.spent, budget.reserved) == (Decimal("0.1"), 0)
        sound(engine)


def test_a_body_that_lets_it_go_runs_again_when_there_is_room() -> None:
    @step
    async def needs() -> str:
        ran.append("needs")
        async with reserve(usd=5):
            return "done"

    @task(budget=Budget(usd=1))
    async def wants() -> str:
        return await needs()

    with virtual() as engine:
        run = wants.start()
        engine.advance("1h")
        assert suspended(run)["missing"] == 4_000_000
        run.raise_budget(usd=4)
        assert run.result() == "done"
        assert ran == ["needs", "needs"]
        assert spent(run) == 5
        sound(engine)


def test_a_body_in_a_thread_reserves(tmp_path: Path) -> None:
    @step
    def needs() -> str:
        try:
            with reserve(usd=5):
                return "large"
        except OverBudget:
            with reserve(usd=0.5) as held:
                held.settle(usd=0.1)
            return "small"

    @task(name="threaded", budget=Budget(usd=1))
    async def threaded() -> str:
        return await needs.aio()

    @task(name="plainly", budget=Budget(usd=1))
    def plainly() -> str:
        return needs()

    with Engine(f"sqlite:///{tmp_path}/outlast.db", tasks=[threaded, plainly]) as engine:
        for definition in (threaded, plainly):
            run = engine.start(definition)
            assert run.result("100s") == "small"
            assert spent(run) == Decimal("0.1")
        assert engine.store.verify().defects == []


# Crashes and replays


@task(name="paying", budget=Budget(usd=10, soft=0.1))
async def paying() -> str:
    first = await metered(0.5)
    spend(usd=0.25)
    async with reserve(usd=1) as held:
        await sleep("1h")
        held.settle(usd=0.75)
    both = await asyncio.gather(metered(1.0), metered_in_thread.aio(2.0))
    await sleep("1h")
    return f"{first} {both}"


def test_crashes_change_nothing_of_what_is_spent() -> None:
    def scenario(engine: VirtualEngine) -> Any:
        run = engine.start(paying)
        engine.advance("1d")
        result = run.result()
        sound(engine)
        budget = run.budget()["usd"]
        events = engine.store.budget_events(f"execution:{run.id}", "usd")
        return result, budget.spent, budget.reserved, [event.what for event in events]

    report = crash_everywhere(scenario, tasks=[paying])
    assert report.points


def test_a_crash_takes_what_was_set_aside_for_spent_and_no_more() -> None:
    @task(name="careful", budget=Budget(usd=1))
    async def careful() -> str:
        return await priced("a") + await priced("b")

    totals = set()

    def scenario(engine: VirtualEngine) -> Any:
        run = engine.start(careful)
        engine.advance("1d")
        sound(engine)
        budget = run.budget()["usd"]
        assert budget.reserved == 0
        totals.add(budget.spent)
        return run.result()

    crash_everywhere(scenario, tasks=[careful])
    assert totals <= {Decimal("0.10"), Decimal("0.15")} and Decimal("0.10") in totals


def test_crashes_while_it_waits_for_money() -> None:
    @task(name="poor", budget=Budget(usd=0.05))
    async def poor() -> str:
        return await metered_one() + await metered_one()

    @step
    async def metered_one() -> str:
        spend(usd=0.06)
        return "x"

    def scenario(engine: VirtualEngine) -> Any:
        run = engine.start(poor)
        engine.advance("1h")
        run.raise_budget(usd=1)
        engine.advance("1h")
        sound(engine)
        return run.result(), spent(run)

    crash_everywhere(scenario, tasks=[poor])


# On a file, with real time


def test_it_goes_on_in_the_next_process(tmp_path: Path) -> None:
    @task(name="kept", budget=Budget(usd=0.05))
    async def kept() -> str:
        return await priced("a") + await priced("b")

    url = f"sqlite:///{tmp_path}/outlast.db"
    with Engine(url, tasks=[kept]) as engine:
        run = kept.start()
        while run.status() is not State.SUSPENDED:
            engine.run(engine.next_change(run.id))
    with Engine(url, tasks=[kept]) as engine:
        again = engine.execution(run.id)
        again.raise_budget(usd=1)
        assert again.result("100s") == "ab"
        assert ran == ["a", "b"]
        assert engine.store.verify().defects == []


# Names and amounts


def test_amounts_are_exact() -> None:
    assert [str(decimal_of(millionths(one))) for one in ("50", "1200", "0.50", "0", "1e-6")] == [
        "50", "1200", "0.5", "0", "0.000001"
    ]  # fmt: skip
    assert millionths(0.1 + 0.2) == 300_000
    assert millionths("0.0000001") == 1  # what lies between two millionths is rounded up
    assert millionths(Decimal("2.5")) == millionths(2.5) == 2_500_000
    assert [shown(amount) for amount in (0, 50_000, 1_234_500_000, 1)] == [
        "0",
        "0.05",
        "1,234.50",
        "0.000001",
    ]


@pytest.mark.parametrize("amount", [-1, "x", float("nan"), float("inf"), True, None, 10**13])
def test_what_is_no_amount_is_refused(amount: Any) -> None:
    with pytest.raises(UsageError):
        spend(usd=amount)


def test_what_is_no_budget_is_refused() -> None:
    def unlimited() -> Budget:
        return Budget(soft=0.5)

    for wrong in (unlimited, lambda: Budget(scope="task", usd=1), lambda: Budget(USD=1),
                  lambda: Budget(usd=1, soft=2)):  # fmt: skip
        with pytest.raises(UsageError):
            wrong()
    with virtual() as engine:
        with pytest.raises(NotFound):
            engine.budgets.raise_("task:nobody", usd=1)
        with pytest.raises(UsageError):
            engine.budgets.set("nobody", usd=1)


# Forks and processes


def test_a_fork_pays_for_what_is_new_only() -> None:
    @task(name="forked", budget=Budget(usd=1))
    async def forked() -> str:
        first = await priced("a")
        spend(usd=0.2)
        return first + await priced("b")

    with virtual() as engine:
        run = forked.start()
        assert run.result() == "ab"
        again = run.fork(from_step="priced#2")
        assert again.result() == "ab"
        assert (spent(run), spent(again)) == (Decimal("0.3"), Decimal("0.05"))
        sound(engine)


@step(on="process")
def in_a_process() -> int:
    spend(usd=0.25, tokens=3)
    return 1


@task(name="processing", budget=Budget(usd=1))
async def processing() -> int:
    return await in_a_process.aio()


def test_a_step_in_a_process_says_what_it_spent(tmp_path: Path) -> None:
    with Engine(f"sqlite:///{tmp_path}/outlast.db", tasks=[processing]) as engine:
        run = engine.start(processing)
        assert run.result("100s") == 1
        assert spent(run) == Decimal("0.25")
        assert spent_by(run.transitions()) == {"usd": 250_000, "tokens": 3_000_000}
