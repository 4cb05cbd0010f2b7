"""Saved histories: replayed against the same code they fit, against other code they say how not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from outlast import Engine, Retry, State, ask, blocking, sleep, step, task, wait_for
from outlast.engine.task.registry import Task
from outlast.errors import CannotLoad, NotFound, ReplayMismatch
from outlast.lifecycle import Kind
from outlast.testing import VirtualEngine, engine, load_history, replay, save_history

ran: list[Any] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    ran.clear()


@step
async def charge(cents: int) -> int:
    ran.append(cents)
    return cents


@step
def ship(order: str) -> str:
    ran.append(order)
    return f"{order} shipped"


def orders(
    cents: int = 100, days: int = 2, tail: str = "", *, swapped: bool = False, more: bool = False
) -> Task[Any, Any]:
    """Give one version of the same task."""

    @task(name="fulfil")
    async def fulfil(order: str) -> str:
        if swapped:
            await ship.aio(order)
        paid = await charge(cents)
        await sleep(f"{days}d")
        await ask("Release?")
        if more:
            await charge(1)
        return f"{paid} {await ship.aio(order)}{tail}"

    return fulfil


@pytest.fixture
def histories(tmp_path: Path) -> Path:
    """Save an execution as it waits for a timer, for an answer, and as it has ended."""
    with engine() as mine:
        h = mine.start(orders(), "O-1")
        save_history(mine, h, tmp_path / "1-sleeps.jsonl")
        mine.advance("3d")
        save_history(mine, h, tmp_path / "2-asks.jsonl")
        mine.answer(h, True)
        assert h.result() == "100 O-1 shipped"
        save_history(mine.store, h.id, tmp_path / "3-ended.jsonl")
    ran.clear()
    return tmp_path


def test_the_same_code_fits_and_no_body_runs(histories: Path) -> None:
    found = replay(histories / "*.jsonl")
    assert [one.mismatch for one in found] == [None] * 3
    assert [one.outcomes for one in found] == [1, 2, 4]
    assert {one.task for one in found} == {"fulfil"}
    assert ran == []


def test_a_file_gives_back_the_log(outlast_engine: VirtualEngine, tmp_path: Path) -> None:
    h = outlast_engine.start(orders(), "Ö-1")
    outlast_engine.advance("3d")
    file = save_history(outlast_engine, h, tmp_path / "h[1].jsonl")
    assert load_history(file) == h.transitions()
    assert len(file.read_text("utf-8").splitlines()) == 1 + len(h.transitions())
    assert len(replay(file)) == 1  # a name with a bracket is a name


@pytest.mark.parametrize(
    ("version", "files", "said"),
    [
        (lambda: orders(cents=99), 3, "row 4: charge#1 is called with other arguments"),
        (lambda: orders(swapped=True), 3, "row 4: recorded is charge#1, the code wants ship#1"),
        (lambda: orders(days=3), 3, "timer#1 is due at another instant than recorded"),
        (lambda: orders(more=True), 1, "recorded is ship#1, the code wants charge#2"),
        (lambda: orders(tail="!"), 1, 'result "100 O-1 shipped"; now it ends so'),
    ],
    ids=["arguments", "order", "timer", "more", "result"],
)
def test_changed_code_is_reported(
    histories: Path, version: Callable[[], Task[Any, Any]], files: int, said: str
) -> None:
    with pytest.raises(ReplayMismatch) as caught:
        replay(histories / "*.jsonl", tasks=[version()])
    error = caught.value
    assert said in str(error)
    assert error.what.startswith(f"{files} of 3 histories")
    assert error.where.count(".jsonl") == files
    assert "3-ended.jsonl, task fulfil: row " in error.where
    assert error.why and error.do
    assert ran == []


def test_code_that_is_new_behind_the_end_of_an_open_history_fits(histories: Path) -> None:
    open_ones = [histories / "1-sleeps.jsonl", histories / "2-asks.jsonl"]
    assert len(replay(open_ones, tasks=[orders(more=True, tail="!")])) == 2
    assert ran == []


def test_code_that_goes_on_where_it_had_ended_is_reported(tmp_path: Path) -> None:
    def version(calls: int) -> Task[Any, Any]:
        @task(name="charges")
        def charges() -> int:
            return sum(len(ship(str(number))) for number in range(calls))

        return charges

    with engine() as mine:
        h = mine.start(version(2))
        h.result()
        file = save_history(mine, h, tmp_path / "h.jsonl")
    assert replay(file)[0].mismatch is None
    with pytest.raises(ReplayMismatch, match=r"is its end .* the code goes on and wants ship#3"):
        replay(file, tasks=[version(3)])
    with pytest.raises(ReplayMismatch, match=r"recorded is ship#2, the code wants nothing"):
        replay(file, tasks=[version(1)])


def test_errors_and_tries_are_compared(tmp_path: Path) -> None:
    def version(kind: type[Exception]) -> Task[Any, Any]:
        @task(name="fails", retries=Retry(1, base="1h"))
        async def fails() -> None:
            await charge(1)
            raise kind("out of stock")

        return fails

    with engine() as mine:
        h = mine.start(version(ValueError))
        first = save_history(mine, h, tmp_path / "first.jsonl")
        mine.advance("2h")
        with pytest.raises(ValueError, match="out of stock"):
            h.result()
        file = save_history(mine, h, tmp_path / "h.jsonl")
        assert [row.kind for row in h.transitions()].count(Kind.RETRY) == 1
    assert replay(file, tasks=[version(ValueError)])[0].mismatch is None
    assert replay(first, tasks=[version(ValueError)])[0].mismatch is None
    with pytest.raises(ReplayMismatch, match=r"ValueError.*to be tried again; now .*KeyError"):
        replay(first, tasks=[version(KeyError)])
    with pytest.raises(ReplayMismatch, match=r"builtins:ValueError: out of stock; now .*KeyError"):
        replay(file, tasks=[version(KeyError)])


def test_branches_signals_and_cancels_fit(tmp_path: Path) -> None:
    @task
    async def races() -> Any:
        async def one(number: int) -> int:
            await asyncio.sleep(number)
            return await charge(number)

        tasks = [asyncio.create_task(one(number)) for number in (3, 1, 2)]
        done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for late in rest:
            late.cancel()
        return [[one.result() for one in done], await wait_for("go", int)]

    @task
    def blocked() -> None:
        blocking.sleep("1d")
        blocking.ask("for ever?")

    with engine() as mine:
        raced, cancelled, paused = mine.start(races), mine.start(blocked), mine.start(blocked)
        later = blocked.options(delay="9d").start()
        mine.advance("2d")
        paused.pause()
        raced.signal("go", 4)
        assert raced.result() == [[1], 4]
        cancelled.cancel("enough")
        for number, h in enumerate((raced, cancelled, paused, later)):
            save_history(mine, h, tmp_path / f"{number}.jsonl")
    ran.clear()
    assert [one.mismatch for one in replay(tmp_path / "*.jsonl")] == [None] * 4
    assert ran == []


def test_histories_of_a_file_in_production(tmp_path: Path) -> None:
    """Recorded by another engine, on a disk: one that has ended, one whose engine was closed."""
    url = f"sqlite:///{tmp_path / 'outlast.db'}"

    @task
    async def asks() -> bool:
        await charge(5)
        return await ask("Release?")

    async def produce() -> str:
        async with Engine(url, tasks=[asks]) as real:
            ended, open_one = await real.astart(asks), await real.astart(asks)
            for h in (ended, open_one):
                async for row in h.awatch():
                    if row.to_state is State.AWAITING_INPUT:
                        break
            await ended.aanswer(True)
            assert await ended.aresult() is True
            save_history(real, ended, tmp_path / "ended.jsonl")
            return open_one.id

    save_history(url, asyncio.run(produce()), tmp_path / "open.jsonl")
    ran.clear()
    assert [one.mismatch for one in replay(tmp_path / "*.jsonl", tasks=[asks])] == [None, None]
    assert ran == []


def test_a_task_that_is_gone_is_reported(histories: Path) -> None:
    with pytest.raises(ReplayMismatch, match="no task of this name"):
        replay(histories / "*.jsonl", tasks=[])


def test_modules_are_imported(histories: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModuleNotFoundError):
        replay(histories / "*.jsonl", module="no_such_module_of_mine")


def test_what_is_no_history_is_refused(histories: Path, outlast_engine: VirtualEngine) -> None:
    with pytest.raises(CannotLoad, match="no history to replay"):
        replay(histories / "*.json")
    with pytest.raises(CannotLoad, match="no history can be read"):
        load_history(histories / "nothing.jsonl")
    with pytest.raises(NotFound):
        save_history(outlast_engine, "ex_nothing", histories / "x.jsonl")
    file = histories / "3-ended.jsonl"
    lines = file.read_text("utf-8").splitlines(keepends=True)
    broken = {
        "a row is missing": [*lines[:4], *lines[5:]],
        "no json": ["{"],
        "empty": [],
        "another format": [lines[0].replace('"outlast_history":1', '"outlast_history":2')],
        "no head": lines[1:],
        "a row was changed": [line.replace('"seq":5', '"seq":9') for line in lines],
    }
    for text in broken.values():
        file.write_text("".join(text), "utf-8")
        with pytest.raises(CannotLoad, match="is no history, or a broken one"):
            replay(file)
