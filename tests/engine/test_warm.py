"""Warm copies: what rests in memory goes on exactly as a replay would, or not at all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from outlast import (
    Retry,
    State,
    ask,
    changed,
    now,
    random,
    sleep,
    step,
    stream,
    task,
    this_step,
    uuid4,
    wait_for,
)
from outlast.engine.drive.driver import Driver
from outlast.engine.drive.warm import BYTES_MAX, KEPT_US, ROWS_MIN, WarmCopies
from outlast.lifecycle import Kind, Transition
from outlast.testing import VirtualEngine, crash_everywhere

unwound: list[str] = []
bodies: list[str] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    unwound.clear()
    bodies.clear()


@pytest.fixture(params=[0, 1_000], ids=["replayed", "warm"])
def copies(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many copies the engines of a test keep."""
    monkeypatch.setattr(VirtualEngine, "warm_copies", request.param)
    count: int = request.param
    return count


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The executions that went on by a replay of rows, in this order."""
    monkeypatch.setattr(VirtualEngine, "warm_copies", 1_000)
    replayed: list[str] = []
    plain = Driver.replay

    def replay(self: Driver, rows: Any, unseen: Any) -> None:
        if rows:
            replayed.append(self.record.id)
        plain(self, rows, unseen)

    monkeypatch.setattr(Driver, "replay", replay)
    return replayed


@step
async def noted(name: str) -> str:
    bodies.append(name)
    return name


@step(retries=Retry(3, base="1h", cap="1d", jitter=0))
async def fails_once(name: str) -> str:
    bodies.append(name)
    if this_step().attempt == 1:
        raise ValueError(name)
    return name


@task
async def child(name: str) -> str:
    await sleep("2h")
    return await noted(name)


@task
async def everything() -> str:
    """Wait in every way there is, again and again."""
    heard: list[Any] = []

    async def listens(name: str) -> None:
        for _ in range(2):
            heard.append(await wait_for(name, int, match=lambda value: value > 1))
            await stream("said", f"{name} {heard[-1]}")

    await noted("begin")
    await sleep("1d")
    heard.append(f"{random().random()} {uuid4()} {now()}")
    if changed("edit"):
        await sleep("1h")
    both = [asyncio.create_task(listens(name)) for name in ("left", "right")]
    await asyncio.gather(*both)
    await asyncio.gather(child("one"), child("two"), sleep("30m"), fails_once("three"))
    try:
        async with asyncio.timeout(3_600):
            await wait_for("never")
    except TimeoutError:
        heard.append("none came")
    heard.append(await ask("May it?", bool))
    heard.append(await ask("May it still?", bool, timeout="1h", default=False))
    first, late = asyncio.create_task(sleep("1h")), asyncio.create_task(wait_for("late"))
    await asyncio.wait([first, late], return_when=asyncio.FIRST_COMPLETED)
    late.cancel()
    heard.append(f"{random().random()} {uuid4()} {now()}")
    return f"{heard} {await noted('end')}"


def plays(engine: VirtualEngine) -> Any:
    """Bring an execution of ``everything`` to its end, by signals, answers and time."""
    handle = engine.start(everything)
    engine.advance("1d")
    engine.advance("1h")
    for name, value in (("left", 1), ("right", 2), ("left", 3), ("left", 4), ("right", 5)):
        handle.signal(name, value)
        engine.advance("1s")
    engine.advance("1d")
    handle.answer(True)
    engine.advance("2h")
    engine.advance("2h")
    return handle.result()


def rows_of(engine: VirtualEngine, id: str) -> list[tuple[Any, ...]]:
    """Give a log but for what is drawn by dice: nonces, and names of workers."""
    return [_shown(row) for row in engine.store.log(id)]


def _shown(row: Transition) -> tuple[Any, ...]:
    data = {name: value for name, value in (row.data or {}).items() if name != "worker"}
    return (row.seq, row.kind, row.from_state, row.to_state, row.fence, row.actor, row.at,
            row.key, row.digest, data, row.payload)  # fmt: skip


def test_the_rows_are_the_same_with_copies_and_without(replays: list[str]) -> None:
    logs, replayed = [], []
    for copies in (0, 1_000, 1):
        VirtualEngine.warm_copies = copies
        bodies.clear()
        replays.clear()
        with VirtualEngine(tasks=[everything, child]) as engine:
            result = plays(engine)
            page = engine.executions()
            logs.append(([rows_of(engine, one.id) for one in page], result, list(bodies)))
            said = [item.value for item in page[0].stream("said")]
            assert sorted(said) == ["left 3", "left 4", "right 2", "right 5"]
            assert not engine.store.verify().defects
        replayed.append(len(replays))
    assert logs[0] == logs[1] == logs[2]
    assert len(logs[0][0][0]) > 60
    assert replayed[1] < replayed[0] // 2, "but for far timers and a step that is tried again"


def test_a_crash_anywhere_changes_nothing(copies: int) -> None:
    report = crash_everywhere(plays, tasks=[everything, child])
    assert len(report.points) > 60


@task
async def naps(count: int) -> int:
    try:
        for _ in range(count):
            await sleep("1s")
    finally:
        unwound.append("naps")
    return count


def test_a_thousand_waits_are_replayed_not_once(replays: list[str]) -> None:
    with VirtualEngine(tasks=[naps]) as engine:
        handle = engine.start(naps, 1_000)
        engine.advance("1001s")
        assert handle.result() == 1_000
        assert not engine.store.verify().defects
    assert replays == []
    assert unwound == ["naps"], "its code ran once, from its first line to its last"


@task
async def listens() -> list[int]:
    try:
        return [await wait_for("word", int) for _ in range(2)]
    finally:
        unwound.append("listens")


def test_what_is_done_to_it_from_outside_is_replayed(replays: list[str]) -> None:
    with VirtualEngine(tasks=[listens]) as engine:
        handle = engine.start(listens)
        engine.advance("1s")
        assert len(engine.worker.warm) == 1
        handle.pause()
        handle.resume()
        handle.signal("word", 1)
        engine.advance("1s")
        assert replays == [handle.id]
        assert unwound == ["listens"]
        handle.signal("word", 2)
        engine.advance("1s")
        assert handle.result() == [1, 2]
        assert replays == [handle.id], "it rests again where the replay has brought it"


def test_a_copy_is_none_once_somebody_else_has_held_it(replays: list[str]) -> None:
    with VirtualEngine(tasks=[listens]) as engine:
        handle = engine.start(listens)
        engine.advance("1s")
        worker = engine.worker
        (parked, _, _) = worker.warm._resting[handle.id]
        stale = parked.record.fence
        handle.signal("word", 1)
        engine.advance("1s")
        assert replays == []
        (again, _, _) = worker.warm._resting[handle.id]
        assert again is parked and again.record.fence == stale + 1
        again.owner.record.fence -= 1  # as if it had missed a lease
        handle.signal("word", 2)
        engine.advance("1s")
        assert handle.result() == [1, 2]
    assert replays == [handle.id]


def test_another_log_is_none_of_its(replays: list[str]) -> None:
    with VirtualEngine(tasks=[listens]) as engine:
        handle = engine.start(listens)
        engine.advance("1s")
        (parked, _, _) = engine.worker.warm._resting[handle.id]
        assert parked.parked is not None
        parked.parked = replace(parked.parked, nonce=b"of another history")
        handle.signal("word", 1)
        engine.advance("1s")
        handle.signal("word", 2)
        engine.advance("1s")
        assert handle.result() == [1, 2]
    assert replays == [handle.id]


def test_the_oldest_go_first_and_are_unwound() -> None:
    VirtualEngine.warm_copies = 2
    try:
        with VirtualEngine(tasks=[listens]) as engine:
            handles = [engine.start(listens) for _ in range(3)]
            engine.advance("1s")
            assert list(engine.worker.warm._resting) == [one.id for one in handles[1:]]
            assert unwound == ["listens"]
            engine.worker.warm.cool(engine.clock.now() + KEPT_US)
            assert len(engine.worker.warm) == engine.worker.warm._bytes == 0
            assert unwound == ["listens"] * 3
            assert all(one.status() is State.AWAITING_INPUT for one in handles)
    finally:
        VirtualEngine.warm_copies = 0


@task
async def holds(text: str) -> str:
    return text + await wait_for("word", str)


def test_the_bytes_of_the_users_values_count(replays: list[str]) -> None:
    with VirtualEngine(tasks=[holds]) as engine:
        handles = [engine.start(holds, "x" * (BYTES_MAX // 9)) for _ in range(5)]
        engine.advance("1s")
        assert 1 <= len(engine.worker.warm) <= 3
        assert engine.worker.warm._bytes <= BYTES_MAX
        for handle in handles:
            handle.signal("word", "!")
        engine.advance("1s")
        assert all(handle.result().endswith("x!") for handle in handles)
        assert engine.worker.warm._bytes == 0
    assert len(replays) >= 2


@task
async def oversleeps() -> None:
    await sleep("1h")


def test_what_only_a_far_time_wakes_is_not_kept(replays: list[str]) -> None:
    with VirtualEngine(tasks=[oversleeps]) as engine:
        handle = engine.start(oversleeps)
        engine.advance("1s")
        assert len(engine.worker.warm) == 0
        engine.advance("1h")
        handle.result()
    assert replays == [handle.id]


def test_nothing_that_is_open_or_ended_is_left_when_it_closes(replays: list[str]) -> None:
    with VirtualEngine(tasks=[listens]) as engine:
        engine.start(listens)
        engine.advance("1s")
        assert len(engine.worker.warm) == 1 and unwound == []
    assert unwound == ["listens"]


def test_a_store_that_failed_leaves_no_copy(replays: list[str]) -> None:
    with VirtualEngine(tasks=[listens]) as engine:
        handle = engine.start(listens)
        engine.advance("1s")
        engine.begin_anew()
        assert len(engine.worker.warm) == 0
        for word in (1, 2):
            handle.signal("word", word)
            engine.advance("1s")
        assert handle.result() == [1, 2]
    assert replays == [handle.id]


def test_short_logs_are_replayed(replays: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VirtualEngine, "_make_warm", lambda self: WarmCopies(9, self.clock))
    with VirtualEngine(tasks=[naps]) as engine:
        handle = engine.start(naps, 50)
        engine.advance("51s")
        assert handle.result() == 50
        log = engine.store.log(handle.id)
    first = next(row.seq for row in log if row.kind is Kind.WAIT and row.seq >= ROWS_MIN)
    assert len(replays) == sum(row.kind is Kind.WAIT and row.seq < first for row in log)
