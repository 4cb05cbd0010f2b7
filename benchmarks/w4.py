"""W4: one parent with many concurrent steps by ``gather``, and one with many children.

The ratio is what two raw commits of one row and one batch of the rows of the logs would take, to
ours. A child's log has four rows, and each adds two to its parent's: its birth, and its end.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any, Final

from benchmarks import checks
from benchmarks.bench import Bench, turned
from benchmarks.report import Result
from benchmarks.tasks import family, fan, same
from outlast import Engine

FULL: Final = {"calls": 1_000}
QUICK: Final = {"calls": 1_000}
STEPS: Final = "steps"
CHILDREN: Final = "children"
ROWS: Final = {STEPS: 1, CHILDREN: 6}
"""What each call adds to the logs."""


def run(bench: Bench, *, calls: int) -> Result:
    """Run the workload."""
    result = Result("W4", f"one parent with {calls:,} concurrent trivial steps, or children", STEPS)
    for number in bench.each_round(result):
        for variant, store in bench.stores(turned([STEPS, CHILDREN], number)):
            task: Any = fan if variant == STEPS else family
            seconds, values = asyncio.run(_timed(store, task, calls))
            steps, children = (calls + 1, 0) if variant == STEPS else (0, calls + 1)
            executions = 2 + children
            result.check(checks.verify(store, executions=executions, steps=steps, results=values))
            rows = calls * ROWS[variant]
            least = 2 / result.limit("commits_per_s") + rows / result.limit("rows_1000_per_s")
            result.add(variant, wall_s=seconds, calls_per_s=calls / seconds, ratio=least / seconds)
    return result


async def _timed(store: str, task: Any, calls: int) -> tuple[float, dict[str, object]]:
    async with Engine(store, tasks=[fan, family, same]):
        await (await task.astart(1)).aresult()
        began = perf_counter()
        handle = await task.astart(calls)
        value = await handle.aresult()
        seconds = perf_counter() - began
    checks.expect(value == sum(range(calls)), f"the result is wrong: {value}")
    return seconds, {handle.id: value}
