"""Random programs, forked and recovered at each of their steps, come to what they came to."""

from __future__ import annotations

import asyncio
import json
import random
from datetime import timedelta
from typing import Any

import pytest

from outlast import State, ask, blocking, now, sleep, step, task, testing, wait_for
from outlast.engine.control.descent import steps_of
from outlast.engine.control.handle import Execution
from outlast.lifecycle import Kind
from outlast.testing import VirtualEngine

RAN: list[str] = []
BROKEN: list[str] = []


@step
async def work(name: str) -> str:
    if name in BROKEN:
        raise ValueError(name)
    RAN.append(name)
    return name.upper()


@step(name="work")
def work_in_thread(name: str) -> str:
    if name in BROKEN:
        raise ValueError(name)
    RAN.append(name)
    return name.upper()


@task
async def plays(program: list[Any]) -> list[Any]:
    trace: list[Any] = []
    began = now()

    async def play(parts: list[Any]) -> None:
        for kind, *more in parts:
            if kind == "work":
                trace.append(await work(more[0]))
            elif kind == "timed":  # its arguments tell the time
                trace.append(await work(f"{more[0]} {(now() - began).total_seconds():.3f}"))
            elif kind == "sleep":
                await sleep(more[0])
                trace.append(f"slept {more[0]}")
            elif kind == "gather":
                await asyncio.gather(*(play(part) for part in more[0]))
            elif kind == "race":
                tasks = [asyncio.create_task(play(part)) for part in more[0]]
                first, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for other in others:
                    other.cancel()
                for one in tasks:
                    if one in first:
                        one.result()
                trace.append(f"{len(others)} lost")
            elif kind == "timeout":
                try:
                    async with asyncio.timeout(more[0]):
                        await play(more[1])
                except TimeoutError:
                    trace.append("too late")
            elif kind == "ask":
                trace.append(await ask(more[0]))
            elif kind == "event":
                trace.append(await wait_for(more[0]))

    await play(program)
    return trace


@task
def plays_in_thread(program: list[Any]) -> list[Any]:
    trace: list[Any] = []
    for kind, *more in program:
        if kind == "work":
            trace.append(work_in_thread(more[0]))
        elif kind == "sleep":
            blocking.sleep(more[0])
        elif kind == "ask":
            trace.append(blocking.ask(more[0]))
        elif kind == "event":
            trace.append(blocking.wait_for(more[0]))
    return trace


def program(r: random.Random, depth: int, names: list[int], leaves: str) -> list[Any]:
    parts: list[Any] = []
    for _ in range(r.randint(1, 4)):
        names[0] += 1
        name = f"w{names[0]}"
        kind = r.choice(leaves.split())
        if depth and r.random() < 0.4:
            kind = r.choice(("gather", "race", "timeout"))
        if kind in ("gather", "race"):
            inner = [program(r, depth - 1, names, leaves) for _ in range(r.randint(1, 3))]
            parts.append([kind, inner])
        elif kind == "timeout":
            parts.append([kind, r.choice((5, 4000)), program(r, depth - 1, names, leaves)])
        elif kind == "sleep":
            parts.append([kind, r.choice((1, 3, 3600, 7000))])
        else:
            parts.append([kind, name])
    return parts


LEAVES = "work work work timed sleep ask event"


def drive(engine: VirtualEngine, handle: Execution[Any]) -> State:
    """Bring it to its end: answer what it asks, signal what it waits for, else let time pass."""
    for _ in range(300):
        if handle.record().is_final:
            return handle.status()
        waits: Any = (handle.record().detail or {}).get("waits", ())
        asked = next((wait for wait in waits if wait["kind"] == "ask"), None)
        event = next((wait for wait in waits if wait["kind"] == "event"), None)
        if asked is not None:
            handle.answer(True, key=asked["key"])
        elif event is not None:
            handle.signal(event["title"], event["title"])
        else:
            due_at = handle.record().due_at
            assert due_at is not None
            engine.advance(timedelta(microseconds=due_at - engine.clock.now()))
    raise AssertionError(f"it does not come to its end: {handle.reason()}")


@pytest.mark.parametrize("seed", range(16))
def test_a_fork_from_any_step_comes_to_the_same(seed: int) -> None:
    r = random.Random(seed)
    in_thread = seed % 4 == 3
    wanted = program(
        r, 0 if in_thread else 3, [0], "work work sleep ask event" if in_thread else LEAVES
    )
    wanted.append(["work", "last"])
    with testing.engine() as engine:
        whole = engine.start(plays_in_thread if in_thread else plays, wanted)
        assert drive(engine, whole) is State.SUCCEEDED
        log = whole.transitions()
        rows = [row for row in log if row.kind in (Kind.STEP, Kind.INPUT_RECEIVED)]
        assert [row.key for row in rows] == steps_of(log)[: len(rows)]
        for place, key in enumerate(row.key for row in rows):
            RAN.clear()
            engine.advance("1d")
            fork = whole.fork(from_step=key)
            assert drive(engine, fork) is State.SUCCEEDED, fork.reason()
            assert untimed(fork.result()) == untimed(whole.result()), (seed, key)
            ran = {name.split()[0] for name in RAN}
            assert bodies(rows[place:]) <= ran
            assert not bodies(rows[:place]) & ran
            assert steps_of(fork.transitions())[: len(rows)] == [row.key for row in rows]
        assert engine.store.verify().defects == []


def bodies(rows: list[Any]) -> set[str]:
    """The steps that have an outcome, by what their bodies are called with."""
    done = [json.loads(row.payload) for row in rows if row.kind is Kind.STEP]
    return {str(value).split()[0].lower() for value in done}


def untimed(trace: list[Any]) -> list[Any]:
    """What was told of the time after the point differs."""
    return [str(one).split()[0] if str(one).startswith("W") else one for one in trace]


@pytest.mark.parametrize("seed", range(16))
def test_a_recovery_comes_to_what_it_would_have_come_to(seed: int) -> None:
    r = random.Random(1_000 + seed)
    in_thread = seed % 4 == 3
    wanted = program(
        r, 0 if in_thread else 3, [0], "work work sleep ask event" if in_thread else LEAVES
    )
    wanted.append(["work", "last"])
    with testing.engine() as engine:
        played = plays_in_thread if in_thread else plays
        whole = engine.start(played, wanted)
        assert drive(engine, whole) is State.SUCCEEDED
        names = [str(one).lower() for one in whole.result() if str(one).startswith(("W", "LAST"))]
        for name in names:
            BROKEN.append(name)
            broken = engine.start(played, wanted)
            ended = drive(engine, broken)
            BROKEN.clear()
            if ended is State.SUCCEEDED:
                continue  # it lost a race in the very moment in which it failed
            assert ended is State.FAILED
            RAN.clear()
            engine.advance("1d")
            again = broken.recover()
            assert drive(engine, again) is State.SUCCEEDED
            assert untimed(again.result()) == untimed(whole.result()), (seed, name)
            finished = {
                row.key
                for row in broken.transitions()
                if row.kind is Kind.STEP and not (row.data or {}).get("failed")
            }
            reused = {row.key for row in again.transitions() if "reused" in (row.data or {})}
            assert finished <= reused
        assert engine.store.verify().defects == []
