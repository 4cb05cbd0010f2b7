"""Trees and groups, with a crash after every row of any of their members."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from outlast import State, ask, blocking, sleep, step, task
from outlast.lifecycle import OPEN
from outlast.store.protocol import Filter
from outlast.testing import VirtualEngine, crash_everywhere


@step
async def double(n: int) -> int:
    return 2 * n


@task
async def leaf(n: int) -> int:
    if n == 2:
        await sleep("1h")
    if n == 3:
        raise ValueError("three")
    return await double(n)


@task
def middle(n: int) -> int:
    first = leaf(n)
    blocking.sleep("10m")
    return first + leaf(n + 4)


@task
async def root() -> list[Any]:
    sums = await asyncio.gather(middle(1), middle(2))
    ends = await leaf.map([3, 4], on_error="collect", limit=1)
    return [*sums, *map(str, ends)]


@task
async def patient(n: int) -> int:
    try:
        if n:
            return sum(await patient.map(range(n)))
        return int(await ask("Go on?", int))
    finally:
        await double(n)


def tree(engine: VirtualEngine) -> dict[str, list[str]]:
    """Give what each task's executions came to; see that no one is left, and the logs are whole."""
    records = engine.store.page(Filter(limit=1_000))
    assert not [record for record in records if record.state in OPEN]
    assert engine.store.verify().defects == []
    found: dict[str, list[str]] = {}
    for record in records:
        found.setdefault(record.task, []).append(str(record.state))
    return {name: sorted(states) for name, states in found.items()}


def test_a_tree_of_three_levels() -> None:
    def story(engine: VirtualEngine) -> Any:
        h = engine.start(root)
        engine.advance("3h")
        return h.result(), tree(engine)

    report = crash_everywhere(story, tasks=[root, middle, leaf])
    result, ends = report.result
    assert result == [12, 16, "three", "8"]
    assert ends == {
        "root": ["succeeded"],
        "middle": ["succeeded"] * 2,
        "leaf": ["failed", *["succeeded"] * 5],
    }
    assert len({point.execution_id for point in report.points}) == 9, "each member was cut"


def test_a_tree_that_is_cancelled() -> None:
    """Each member cleans up with a step, once, wherever the engine dies."""

    def story(engine: VirtualEngine) -> Any:
        h = engine.start(patient, 3)
        engine.advance("1m")
        h.cancel("enough")
        engine.advance("1h")
        return h.status(), tree(engine)

    report = crash_everywhere(story, tasks=[patient])
    state, ends = report.result
    assert state is State.CANCELLED
    assert set(ends["patient"]) == {"cancelled"} and len(ends["patient"]) == 8


@pytest.mark.parametrize("end", ["answered", "cancelled"])
def test_a_group(end: str) -> None:
    """Its members are found by their label, also by an engine that has not started them."""

    def story(engine: VirtualEngine) -> Any:
        group = engine.group("july")
        group.start_many(patient, [(0,), (0,)])
        group.start(leaf, 4)
        engine.advance("1m")
        if end == "cancelled":
            assert group.cancel("not needed").done == 2
        else:
            for number, question in enumerate(engine.questions(oldest_first=True)):
                engine.execution(question.execution_id).answer(number)
        engine.advance("1m")
        results = [repr(one) for one in group.results(on_error="collect")]
        return results, group.wait_all(), tree(engine)

    results, counts, _ = crash_everywhere(story, tasks=[patient, leaf]).result
    assert len(results) == 3 and results[2] == "8"
    if end == "answered":
        assert (results, counts) == (["0", "1", "8"], {State.SUCCEEDED: 3})
    else:
        assert counts == {State.CANCELLED: 2, State.SUCCEEDED: 1}
