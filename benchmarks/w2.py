"""W2: start one execution of one step and wait for its result, again and again.

It cannot take less than two commits: the start must be durable before the step's body may have an
effect, and the result before anybody may see it. The ratio is two raw commits of one row to the
median.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any, Final

from benchmarks import checks
from benchmarks.bench import Bench, percentile, turned
from benchmarks.report import Result
from benchmarks.tasks import chain, chain_def, chained
from outlast import Engine

FULL: Final = {"times": 200}
QUICK: Final = {"times": 200}
WARM_UP: Final = 20
VARIANTS: Final[dict[str, tuple[Any, bool]]] = {
    "async handle": (chain, False),
    "sync handle": (chain, True),
    "sync handle, def task": (chain_def, True),
}
"""The task, and whether it is started from a thread by the sync handle."""


def run(bench: Bench, *, times: int) -> Result:
    """Run the workload with the async handle and with the sync one."""
    result = Result("W2", f"one execution of one step, {times} times in a row", "async handle")
    for number in bench.each_round(result):
        for variant, store in bench.stores(turned(list(VARIANTS), number)):
            task, from_thread = VARIANTS[variant]
            took = (
                in_thread(store, task, times)
                if from_thread
                else asyncio.run(on_loop(store, task, times))
            )
            both = times + WARM_UP
            result.check(checks.verify(store, executions=both, steps=both, results=took[1]))
            p50 = percentile(took[0], 0.5)
            result.add(
                variant,
                p50_ms=p50 * 1e3,
                p99_ms=percentile(took[0], 0.99) * 1e3,
                ratio=2 / result.limit("commits_per_s") / p50,
            )
    return result


async def on_loop(store: str, task: Any, times: int) -> tuple[list[float], dict[str, object]]:
    """Time each start and result with the async handle."""
    took: list[float] = []
    values: dict[str, object] = {}
    async with Engine(store, tasks=[task]):
        for number in range(-WARM_UP, times):
            began = perf_counter()
            handle = await task.astart(number, 1)
            value = await handle.aresult()
            took.append(perf_counter() - began)
            _keep(values, handle.id, value, number)
    return took[WARM_UP:], values


def in_thread(store: str, task: Any, times: int) -> tuple[list[float], dict[str, object]]:
    """Time each start and result with the sync handle, from a thread beside the engine's loop."""
    took: list[float] = []
    values: dict[str, object] = {}
    with Engine(store, tasks=[task]):
        for number in range(-WARM_UP, times):
            began = perf_counter()
            handle = task.start(number, 1)
            value = handle.result()
            took.append(perf_counter() - began)
            _keep(values, handle.id, value, number)
    return took[WARM_UP:], values


def _keep(values: dict[str, object], id: str, value: object, number: int) -> None:
    checks.expect(value == chained(number, 1), f"the result of {id} is wrong: {value}")
    values[id] = value
