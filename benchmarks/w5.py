"""W5: put no-op executions into the store in batches, then let an engine drain them.

They are put in by a process that does not run them, so nothing is claimed meanwhile: by
``start_many`` of an engine that knows other tasks only. The ratio compares the rows of the logs a
second while draining (claim, start and finish of each) with raw commits of 1,000 like rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic, perf_counter
from typing import Final

from benchmarks import checks, many
from benchmarks.bench import Bench, until_open
from benchmarks.report import Result
from benchmarks.tasks import chain, nothing
from outlast import Engine

FULL: Final = {"executions": 20_000}
QUICK: Final = {"executions": 2_000}
ROWS: Final = 3
"""What draining adds to the log of one: claim, start, finish."""


def run(bench: Bench, *, executions: int) -> Result:
    """Run the workload."""
    result = Result("W5", f"{executions:,} no-op executions: put in by batches, then drained")
    for _ in bench.each_round(result):
        for _, store in bench.stores([""]):
            put, ids = asyncio.run(_put_in(store, executions))
            if bench.processes == 1:
                drained = asyncio.run(_drain(store))
            else:
                took = many.together(_drained, [(store,)] * bench.processes)
                drained = max(one[1] for one in took) - min(one[0] for one in took)
            values = dict.fromkeys(ids, None)
            result.check(checks.verify(store, executions=executions, steps=0, results=values))
            result.add(
                enqueue_per_s=executions / put,
                drain_per_s=executions / drained,
                wall_s=put + drained,
                ratio=executions * ROWS / drained / result.limit("rows_1000_per_s"),
            )
    return result


async def _put_in(store: str, executions: int) -> tuple[float, list[str]]:
    async with Engine(store, tasks=[chain]) as engine:
        began = perf_counter()
        handles = await engine.astart_many(nothing, [()] * executions)
        seconds = perf_counter() - began
    return seconds, [handle.id for handle in handles]


def _drained(ready: Callable[[], object], store: str) -> tuple[float, float]:
    """Drain in one process of several; gives when it began and ended."""
    ready()
    seconds = asyncio.run(_drain(store))
    ended = monotonic()
    return ended - seconds, ended


async def _drain(store: str) -> float:
    """Give the time from an open engine's first look to the last end."""
    began = perf_counter()
    async with Engine(store, tasks=[nothing]) as engine:
        await until_open(engine, 0)
        return perf_counter() - began
