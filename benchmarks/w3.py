"""W3: one execution with many sequential steps, and how long it takes to come back after a kill.

Each step needs the one before it on the disk, so a step costs a commit: the ratio is to raw commits
of one row. ``flatness`` is the rate of the longest execution to that of the shortest.
"""

from __future__ import annotations

import asyncio
from time import monotonic, perf_counter
from typing import Any, Final

from benchmarks import checks
from benchmarks.bench import Bench
from benchmarks.kill import killed_at, read_ledger, wait_for_line
from benchmarks.place import spawn
from benchmarks.report import Result
from benchmarks.tasks import chain, chained
from outlast import Engine

FULL: Final[dict[str, Any]] = {"lengths": (2_000, 10_000, 100_000), "resumed": 10_000}
QUICK: Final[dict[str, Any]] = {"lengths": (2_000, 10_000), "resumed": 10_000}
REST: Final = 50
"""Steps that are left when the execution is killed; so the resume is all replay."""


def run(bench: Bench, *, lengths: tuple[int, ...], resumed: int) -> Result:
    """Run an execution of each length, then kill one near its end and resume it."""
    result = Result("W3", "one execution with many sequential trivial steps", _name(lengths[0]))
    for _ in bench.each_round(result):
        rates: list[float] = []
        for variant, store in bench.stores(map(_name, lengths)):
            steps = lengths[len(rates)]
            seconds, values = asyncio.run(_timed(store, steps))
            result.check(checks.verify(store, executions=2, steps=steps + 1, results=values))
            rates.append(steps / seconds)
            result.add(
                variant,
                steps_per_s=rates[-1],
                ratio=rates[-1] / result.limit("commits_per_s"),
            )
        result.add(_name(lengths[0]), flatness=rates[-1] / rates[0])
        for variant, store in bench.stores([f"resume at {resumed:,}"]):
            result.add(variant, **_resume(result, bench, store, resumed))
    return result


def _name(steps: int) -> str:
    return f"{steps:,} steps"


async def _timed(store: str, steps: int) -> tuple[float, dict[str, object]]:
    async with Engine(store, tasks=[chain]):
        await (await chain.astart(0, 1)).aresult()
        began = perf_counter()
        handle = await chain.astart(0, steps)
        value = await handle.aresult()
        seconds = perf_counter() - began
    checks.expect(value == chained(0, steps), f"the result is wrong: {value}")
    return seconds, {handle.id: value}


def _resume(result: Result, bench: Bench, store: str, recorded: int) -> dict[str, float]:
    """Kill an execution after so many steps; gives the time from the restart to its next body."""
    ledger = bench.directory / "ledger"
    steps = recorded + REST
    before = killed_at(store, recorded, "long", store, steps, ledger=ledger)
    began = monotonic()
    child = spawn("long", store, steps, ledger=ledger)
    ended = wait_for_line(child)
    lines = read_ledger(ledger)
    again = [line for line in lines if line.pid == child.pid]
    checks.expect(bool(again), "no body ran after the restart: the kill came too late")
    repeated = sum((line.id, line.key) in before for line in again)
    checks.expect(not repeated, f"{repeated} recorded steps ran again")
    checks.expect(ended["value"] == chained(0, steps), f"the result is wrong: {ended['value']}")
    result.check(checks.verify(store, executions=1, steps=steps))
    result.check("no recorded step ran again after the kill of the long execution")
    ledger.unlink()
    return {
        "resume_s": again[0].at - ended["opening"],
        "restart_to_first_body_s": again[0].at - began,
    }
