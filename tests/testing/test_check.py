"""The check before a deploy: what it says is what would happen, and it does nothing."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from outlast import Engine, State, ask, blocking, changed, sleep, step, task
from outlast.engine.task.registry import TASKS, Task
from outlast.errors import ReplayMismatch
from outlast.testing import VirtualEngine, assert_fits, check, save_history

ran: list[Any] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    ran.clear()


@step
async def charge(cents: int) -> int:
    ran.append(cents)
    return cents


@step
def weigh(order: str) -> int:
    ran.append(order)
    return len(order)


def code(which: str) -> list[Task[Any, Any]]:
    """Give one version of two tasks."""
    TASKS.pop("fulfil", None)
    TASKS.pop("pack", None)

    @task
    async def fulfil(order: str) -> str:
        if which == "marked" and changed("check"):
            await charge(1)
        if which == "broken":
            await charge(1)
        await charge(100)
        await sleep("1d")
        await charge(2)
        return str(await ask("Release?"))

    @task
    def pack(order: str) -> int:
        if which == "hangs":
            threading.Event().wait(20)
        weight = weigh(order if which != "broken" else "other")
        blocking.sleep("1d")
        return weight

    return [fulfil, pack]


@pytest.mark.parametrize(
    ("which", "verdicts"),
    [
        ("same", {"fulfil": "fits", "pack": "fits"}),
        ("marked", {"fulfil": "fits", "pack": "fits"}),
        ("broken", {"fulfil": "mismatch", "pack": "mismatch"}),
        ("hangs", {"fulfil": "fits", "pack": "hangs"}),
    ],
)
def test_open_executions_are_replayed_and_nothing_is_done(
    outlast_engine: VirtualEngine, which: str, verdicts: dict[str, str]
) -> None:
    fulfil, pack = code("old")
    handles = [outlast_engine.start(fulfil, "O-1"), outlast_engine.start(pack, "O-1")]
    before = [handle.transitions() for handle in handles], list(ran)
    code(which)
    found = check(outlast_engine, patience="500ms")
    assert {one.task: one.verdict for one in found} == verdicts
    assert all(one.state is State.WAITING for one in found)
    assert ([handle.transitions() for handle in handles], ran) == before
    if which == "broken":
        texts = {one.task: one.text for one in found}
        assert "does not ask" in texts["fulfil"] or "other arguments" in texts["fulfil"]
        assert "weigh#1 is called with other arguments" in texts["pack"]
        with pytest.raises(ReplayMismatch, match="2 of 2"):
            assert_fits(found)


def test_what_it_says_is_what_happens(outlast_engine: VirtualEngine) -> None:
    fulfil, _ = code("old")
    handle = outlast_engine.start(fulfil, "O-1")
    code("broken")
    (found,) = check(outlast_engine)
    handle.resume()
    detail = handle.record().detail
    assert detail is not None and detail["text"] == found.text
    assert detail["wanted"] == found.facts["wanted"]


def test_a_task_that_is_gone_is_told(outlast_engine: VirtualEngine) -> None:
    fulfil, pack = code("old")
    outlast_engine.start(fulfil, "O-1")
    (found,) = check(outlast_engine, tasks=[pack])
    assert (found.verdict, found.text) == ("no_task", "today's code has no task fulfil")
    assert check(outlast_engine, tasks=[pack], task="pack") == []


def test_histories_and_their_ends_are_compared(
    outlast_engine: VirtualEngine, tmp_path: Path
) -> None:
    _, pack = code("old")
    handle = outlast_engine.start(pack, "O-1")
    save_history(outlast_engine, handle, tmp_path / "open.jsonl")
    outlast_engine.advance("1d")
    save_history(outlast_engine, handle, tmp_path / "ended.jsonl")
    assert [one.verdict for one in check(tmp_path)] == ["fits", "fits"]
    code("broken")
    assert [one.verdict for one in check([tmp_path])] == ["mismatch", "mismatch"]
    TASKS.pop("pack")

    @task(name="pack")
    def other_end(order: str) -> int:
        weigh(order)
        blocking.sleep("1d")
        return 0

    ended, still_open = check(tmp_path)
    assert still_open.fits and "today it ends so: result 0" in ended.text


def test_a_file_is_read_beside_its_engine(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'outlast.db'}"
    fulfil, pack = code("old")
    with Engine(url) as engine:
        engine.start_many(fulfil, [(f"O-{n}",) for n in range(700)])  # more than a page
        engine.start(pack, "O-1")
        found = check(url)
        assert len(found) == 701 and {one.verdict for one in found} == {"fits"}
        assert len(check(url, limit=3)) == 3
        assert len(check(url, task="pack")) == 1
