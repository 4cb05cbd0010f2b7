"""Groups, children by page, and who depends on whom."""

from __future__ import annotations

import pytest

from outlast import After, State, sleep, task
from outlast.errors import UsageError, WaitTimeout
from outlast.lifecycle import OPEN
from outlast.store.protocol import Filter
from outlast.testing import VirtualEngine


@task
async def half(n: int) -> int:
    if n % 2:
        raise ValueError(f"{n} is odd")
    return n // 2


@task
async def nap(n: int) -> int:
    await sleep("1h")
    return n


@task
async def parent(n: int) -> int:
    return sum(await nap.map(range(n)))


def test_a_group_is_waited_for_and_counted_as_one(outlast_engine: VirtualEngine) -> None:
    group = outlast_engine.group("july")
    group.start_many(half, [(4,), (6,)])
    odd = group.start(half, 3)
    outlast_engine.start(half, 8)
    assert group.wait_all() == {State.SUCCEEDED: 2, State.FAILED: 1}
    assert group.members()[-1].id == odd.id
    results = group.results(on_error="collect")
    assert results[:2] == [2, 3] and isinstance(results[2], ValueError)
    with pytest.raises(ValueError, match="3 is odd"):
        group.results()
    with pytest.raises(UsageError, match="no such policy"):
        group.results(on_error="luck")  # type: ignore[arg-type]
    assert outlast_engine.group("august").counts() == {}


def test_a_group_is_cancelled_as_one(outlast_engine: VirtualEngine) -> None:
    group = outlast_engine.group("july")
    group.start_many(nap, [(1,), (2,)])
    other = outlast_engine.start(nap, 3)
    with pytest.raises(WaitTimeout):
        group.wait_all()
    assert group.cancel("not needed").done == 2
    assert group.wait_all() == {State.CANCELLED: 2}
    assert other.status() is State.WAITING


def test_children_are_paged_and_roots_have_no_parent(outlast_engine: VirtualEngine) -> None:
    handle = parent.start(3)
    newest = handle.children(limit=2)
    rest = handle.children(before=newest[-1].id)
    assert len(newest) == 2 and len(rest) == 1
    roots = outlast_engine.store.page(Filter(roots=True))
    assert [record.id for record in roots] == [handle.id]
    assert outlast_engine.store.page(Filter(roots=True, states=tuple(OPEN))) == roots
    outlast_engine.advance("2h")
    assert handle.result() == 3


def test_who_waits_for_an_execution_is_named(outlast_engine: VirtualEngine) -> None:
    first = nap.start(1)
    waiting = sorted(half.options(after=After(first)).start(n).id for n in (2, 4))
    assert outlast_engine.store.dependents(first.id, 10) == waiting
    assert outlast_engine.store.dependents(first.id, 1) == waiting[:1]
    assert outlast_engine.store.dependents(waiting[0], 10) == []
