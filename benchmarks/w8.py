"""W8: very many executions parked on a question; then all are answered.

Memory is that of the process that runs them: parked with the engine open, less that of the same
engine before the first of them was started. The ratio compares the rows of the logs a second from
the first answer to the last end with raw commits of 1,000 like rows.
"""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from time import perf_counter
from typing import Final

from benchmarks import checks
from benchmarks.bench import Bench, until_open, url
from benchmarks.report import Result
from benchmarks.tasks import asks
from outlast import Engine
from outlast.lifecycle import State

FULL: Final = {"executions": (10_000, 100_000)}
QUICK: Final = {"executions": (1_000,)}
PARKED_ROWS: Final = 5
"""What the log of a parked one has: create, claim, start, the question, wait."""
TOGETHER: Final = 500
"""Answers that are given at the same time."""


def run(bench: Bench, *, executions: tuple[int, ...]) -> Result:
    """Run the workload."""
    result = Result(
        "W8", "executions parked on a question, then all answered", f"{executions[0]:,}"
    )
    for _ in bench.each_round(result):
        for count in executions:
            for _, file in bench.files([str(count)]):
                figures, values = asyncio.run(_timed(result, file, count))
                result.check(checks.verify(file, executions=count, steps=0, results=values))
                result.add(f"{count:,}", **figures)
    return result


async def _timed(
    result: Result, file: Path, count: int
) -> tuple[dict[str, float], dict[str, object]]:
    async with Engine(url(file), tasks=[asks], retention=None) as engine:
        before = _rss_kib()
        began = perf_counter()
        handles = [one.id for one in await engine.astart_many(asks, [(n,) for n in range(count)])]
        await until_open(engine, count, State.AWAITING_INPUT)
        parked = perf_counter() - began
        gc.collect()
        kib_each = (_rss_kib() - before) / count
        began = perf_counter()
        for place in range(0, count, TOGETHER):
            some = handles[place : place + TOGETHER]
            await asyncio.gather(*(engine.execution(id).aanswer(True) for id in some))
        await until_open(engine, 0)
        finished = perf_counter() - began
    with checks.File(file) as look:
        rows = look.row_count() - count * PARKED_ROWS
    figures = {
        "kib_each": kib_each,
        "park_per_s": count / parked,
        "finish_per_s": count / finished,
        "wall_s": parked + finished,
        "ratio": rows / finished / result.limit("rows_1000_per_s"),
    }
    return figures, {id: number for number, id in enumerate(handles)}


def _rss_kib() -> float:
    status = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in status if line.startswith("VmRSS")))
