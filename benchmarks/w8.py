"""W8: very many executions parked on a question; then all are answered.

Memory is that of the process that runs them, a fresh one for each size: parked with the engine
open, less that of the same engine before the first of them was started. What SQLite holds of it
(its caches, which grow to 8 MiB, and prepared statements) is told besides: the rest is the engine's
and that of the ids that are kept here. The ratio compares the rows of the logs a second from the
first answer to the last end with raw commits of 1,000 like rows.
"""

from __future__ import annotations

import asyncio
import gc
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Final

import apsw

from benchmarks import checks
from benchmarks.bench import Bench, until_open
from benchmarks.report import Result
from benchmarks.tasks import asks
from outlast import Engine
from outlast.lifecycle import State

FULL: Final = {"executions": (10_000, 100_000)}
QUICK: Final = {"executions": (1_000,)}
PARKED_ROWS: Final = 5
"""What the log of a parked one has: create, claim, start, the question, wait."""
PART: Final = 10_000
"""Executions that are started by one call: its arguments and handles are in memory, too."""
TOGETHER: Final = 500
"""Answers that are given at the same time."""


def run(bench: Bench, *, executions: tuple[int, ...]) -> Result:
    """Run the workload."""
    result = Result(
        "W8", "executions parked on a question, then all answered", f"{executions[0]:,}"
    )
    for _ in bench.each_round(result):
        for count in executions:
            for _, store in bench.stores([str(count)]):
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
                    figures, values = fresh.submit(_measured, store, count).result()
                result.check(checks.verify(store, executions=count, steps=0, results=values))
                limit = result.limit("rows_1000_per_s")
                result.add(f"{count:,}", **figures, ratio=figures["rows_per_s"] / limit)
    return result


def _measured(store: str, count: int) -> tuple[dict[str, float], dict[str, object]]:
    return asyncio.run(_timed(store, count))


async def _timed(store: str, count: int) -> tuple[dict[str, float], dict[str, object]]:
    async with Engine(store, tasks=[asks], retention=None) as engine:
        before = _rss_kib()
        began = perf_counter()
        ids: list[str] = []
        for place in range(0, count, PART):
            some = [(number,) for number in range(place, min(place + PART, count))]
            ids += [one.id for one in await engine.astart_many(asks, some)]
        await until_open(engine, count, State.AWAITING_INPUT)
        parked = perf_counter() - began
        gc.collect()
        kib_each = (_rss_kib() - before) / count
        sqlite_kib_each = apsw.memory_used() / 1024 / count
        began = perf_counter()
        for place in range(0, count, TOGETHER):
            together = ids[place : place + TOGETHER]
            await asyncio.gather(*(engine.execution(id).aanswer(True) for id in together))
        await until_open(engine, 0)
        finished = perf_counter() - began
    with checks.look(store) as look:
        rows = look.row_count() - count * PARKED_ROWS
    figures = {
        "kib_each": kib_each,
        "sqlite_kib_each": sqlite_kib_each,
        "park_per_s": count / parked,
        "finish_per_s": count / finished,
        "wall_s": parked + finished,
        "rows_per_s": rows / finished,
    }
    return figures, {id: number for number, id in enumerate(ids)}


def _rss_kib() -> float:
    status = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in status if line.startswith("VmRSS")))
