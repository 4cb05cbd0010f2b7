"""W5: put no-op executions into the store in batches, then let an engine drain them.

They are put in by a process that does not run them, so nothing is claimed meanwhile: by
``start_many`` of an engine that knows other tasks only. The ratio compares the rows of the logs a
second while draining (claim, start and finish of each) with raw commits of 1,000 like rows.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import perf_counter
from typing import Final

from benchmarks import checks
from benchmarks.bench import Bench, until_open, url
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
        for _, file in bench.files([""]):
            put, ids = asyncio.run(_put_in(file, executions))
            drained = asyncio.run(_drain(file))
            values = dict.fromkeys(ids, None)
            result.check(checks.verify(file, executions=executions, steps=0, results=values))
            result.add(
                enqueue_per_s=executions / put,
                drain_per_s=executions / drained,
                wall_s=put + drained,
                ratio=executions * ROWS / drained / result.limit("rows_1000_per_s"),
            )
    return result


async def _put_in(file: Path, executions: int) -> tuple[float, list[str]]:
    async with Engine(url(file), tasks=[chain]) as engine:
        began = perf_counter()
        handles = await engine.astart_many(nothing, [()] * executions)
        seconds = perf_counter() - began
    return seconds, [handle.id for handle in handles]


async def _drain(file: Path) -> float:
    """Give the time from an open engine's first look to the last end."""
    began = perf_counter()
    async with Engine(url(file), tasks=[nothing]) as engine:
        await until_open(engine, 0)
        return perf_counter() - began
