"""W4: one parent with many concurrent steps by ``gather``.

The ratio is what two raw commits of one row and one batch of the steps' rows would take, to ours.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import perf_counter
from typing import Final

from benchmarks import checks
from benchmarks.bench import Bench, url
from benchmarks.report import Result
from benchmarks.tasks import fan
from outlast import Engine

FULL: Final = {"steps": 1_000}
QUICK: Final = {"steps": 1_000}


def run(bench: Bench, *, steps: int) -> Result:
    """Run the workload."""
    result = Result("W4", f"one parent with {steps:,} concurrent trivial steps by gather")
    result.notes.append("the half of W4 with 1,000 child executions comes with children (later)")
    for _ in bench.each_round(result):
        for _, file in bench.files([""]):
            seconds, values = asyncio.run(_timed(file, steps))
            result.check(checks.verify(file, executions=2, steps=steps + 1, results=values))
            least = 2 / result.limit("commits_per_s") + steps / result.limit("rows_1000_per_s")
            result.add(wall_s=seconds, steps_per_s=steps / seconds, ratio=least / seconds)
    return result


async def _timed(file: Path, steps: int) -> tuple[float, dict[str, object]]:
    async with Engine(url(file), tasks=[fan]):
        await (await fan.astart(1)).aresult()
        began = perf_counter()
        handle = await fan.astart(steps)
        value = await handle.aresult()
        seconds = perf_counter() - began
    checks.expect(value == sum(range(steps)), f"the result is wrong: {value}")
    return seconds, {handle.id: value}
