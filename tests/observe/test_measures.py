"""What an execution took, by its log alone."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from outlast import Engine, Retry, ask, sleep, step, task
from outlast.engine.read.measures import LEAST_US, measures_of, told
from outlast.engine.task.registry import TASKS as KNOWN
from outlast.forms import measures_form
from outlast.lifecycle import State
from outlast.testing import engine as virtual

from . import awaited

TRIES: dict[str, int] = {}


@step
def computes(rounds: int) -> int:
    until = time.thread_time() + rounds / 1_000
    total = 0
    while time.thread_time() < until:
        total += 1
    return total


@step(on="process")
def grows(mib: int) -> int:
    return len(bytearray(mib * 1024 * 1024))


@step(retries=Retry(2, base="1ms"))
async def breaks_once() -> str:
    TRIES["breaks"] = TRIES.get("breaks", 0) + 1
    await asyncio.sleep(0.005)  # sleeps: so long the attempt is to take at least
    if TRIES["breaks"] == 1:
        raise LookupError("secret text")
    return "well"


@step
async def quick() -> int:
    return 1


@task
async def takes_all() -> str:
    await quick()
    await computes.aio(20)
    await grows.aio(30)
    return await breaks_once()


@task
async def rests() -> bool:
    await sleep("1h")
    return await ask("Go on?", bool)


for one in (takes_all, rests):
    KNOWN.pop(one.name)


@awaited
async def test_steps_say_what_they_took(tmp_path: Path) -> None:
    TRIES.clear()
    async with Engine(f"sqlite:///{tmp_path}/o.db", tasks=[takes_all]) as engine:
        handle = await engine.astart(takes_all)
        await handle.aresult()
        measures = await handle.ametrics()
        rows = await engine.read_log(handle.id)
    steps = {one.key: one for one in measures.steps}
    assert list(steps) == ["quick#1", "computes#1", "grows#1", "breaks_once#1"]
    (computed,) = steps["computes#1"].tries
    assert computed.cpu_us is not None and computed.cpu_us >= 19_000
    assert computed.ran_us >= computed.cpu_us - 1_000
    (grew,) = steps["grows#1"].tries
    assert grew.memory_bytes is not None and grew.memory_bytes > 30 * 1024 * 1024
    first, second = steps["breaks_once#1"].tries
    assert (first.attempt, first.error, second.attempt, second.error) == (1, "LookupError", 2, None)
    assert min(first.ran_us, second.ran_us) >= 4_000
    assert measures.errors == {"LookupError": 1}
    assert (measures.state, measures.attempts, measures.retries) == (State.SUCCEEDED, 1, 0)
    assert measures.duration_us == rows[-1].at - rows[0].at
    assert measures.queued_us + measures.run_us + measures.parked_us == measures.duration_us
    assert measures.cpu_us >= computed.cpu_us and measures.memory_bytes == grew.memory_bytes
    assert "secret" not in str(measures_form(measures))


def test_times_by_state_come_from_the_log() -> None:
    with virtual(tasks=[rests]) as engine:
        handle = engine.start(rests)
        while handle.record().state is not State.AWAITING_INPUT:
            engine.advance("10m")
        rows = handle.transitions()
        now = rows[-1].at + 5_000_000
        measures = measures_of(handle.id, rows, now)
        assert measures.by_state[State.WAITING] >= 3_600_000_000
        assert measures.by_state[State.AWAITING_INPUT] == 5_000_000
        assert sum(measures.by_state.values()) == measures.duration_us
        assert measures.ended_at is None and measures.parked_us >= 3_605_000_000
        assert measures.claims == 2


def test_what_is_short_is_not_said() -> None:
    assert told(LEAST_US - 1, LEAST_US - 1, LEAST_US - 1, None) == {}
    assert told(LEAST_US, LEAST_US, LEAST_US, 1) == {
        "ran_us": LEAST_US, "waited_us": LEAST_US, "cpu_us": LEAST_US, "memory_bytes": 1,
    }  # fmt: skip
