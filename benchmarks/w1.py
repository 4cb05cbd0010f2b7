"""W1: many executions of five sequential trivial steps, from the first submit to the last result.

The ratio compares the rows of the logs a second with raw commits of 1,000 like rows. An execution
of five steps has nine rows: create, claim, start, five steps, finish; besides them the engine
writes the executions' own rows, which the ratio does not credit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from benchmarks import checks, many
from benchmarks.bench import Bench, turned
from benchmarks.report import Result
from benchmarks.tasks import chain, chain_aio, chain_def, chained
from outlast import Engine, Execution

FULL: Final = {"executions": 2_000, "steps": 5}
QUICK: Final = {"executions": 500, "steps": 5}
VARIANTS: Final[dict[str, tuple[Any, bool]]] = {
    "astart_many": (chain, True),
    "gather(astart)": (chain, False),
    "def steps by aio": (chain_aio, True),
    "def task": (chain_def, True),
}
"""The task, and whether it is started by ``astart_many`` or by a gather of ``astart``."""


def run(bench: Bench, *, executions: int, steps: int) -> Result:
    """Run the workload in all its variants."""
    result = Result(
        "W1", f"{executions:,} executions of {steps} sequential trivial steps", "astart_many"
    )
    for number in bench.each_round(result):
        for variant, store in bench.stores(turned(list(VARIANTS), number)):
            seconds, rows = measure(result, bench, store, variant, executions, steps)
            result.add(
                variant,
                executions_per_s=executions / seconds,
                wall_s=seconds,
                steps_per_s=executions * steps / seconds,
                ratio=rows / seconds / result.limit("rows_1000_per_s"),
            )
    return result


def measure(
    result: Result, bench: Bench, store: str, variant: str, executions: int, steps: int
) -> tuple[float, int]:
    """Run one variant on one fresh store and check it; gives seconds and rows of logs."""
    task, together = VARIANTS[variant]
    parts = bench.processes
    if parts == 1:
        seconds, values = asyncio.run(timed(store, task, together, executions, steps))
    else:
        each = (store, variant, executions // parts, steps)
        found = many.together(_part, [each] * parts)
        seconds = max(one[1] for one in found) - min(one[0] for one in found)
        values = {id: value for one in found for id, value in one[2].items()}
        executions = executions // parts * parts
    result.check(
        checks.verify(
            store,
            executions=executions + parts,
            steps=executions * steps + parts,
            results=values,
        )
    )
    with checks.look(store) as look:
        return seconds, look.row_count()


def _part(
    ready: Callable[[], object], store: str, variant: str, executions: int, steps: int
) -> tuple[float, float, dict[str, object]]:
    """Do the part of one process; gives when it began and ended, and the results."""
    task, together = VARIANTS[variant]
    seconds, values, ended = asyncio.run(_timed(store, task, together, executions, steps, ready))
    return ended - seconds, ended, values


async def timed(
    store: str, task: Any, together: bool, executions: int, steps: int
) -> tuple[float, dict[str, object]]:
    """Run the executions in an engine that has run one before; gives the time and the results.

    Raises:
        Unverified: a result is wrong.
    """
    seconds, values, _ = await _timed(store, task, together, executions, steps)
    return seconds, values


async def _timed(
    store: str,
    task: Any,
    together: bool,
    executions: int,
    steps: int,
    ready: Callable[[], object] = bool,
) -> tuple[float, dict[str, object], float]:
    async with Engine(store, tasks=[task]) as engine:
        await (await task.astart(0, 1)).aresult()
        inputs = [(first, steps) for first in range(executions)]
        await asyncio.to_thread(ready)  # what others have put in may be this one's to run
        began = monotonic()
        if together:
            handles = await engine.astart_many(task, inputs)
            values = await asyncio.gather(*(handle.aresult() for handle in handles))
        else:
            pairs = await asyncio.gather(*(_start_and_wait(task, *given) for given in inputs))
            handles, values = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        ended = monotonic()
        seconds = ended - began
    wrong = sum(value != chained(*given) for value, given in zip(values, inputs, strict=True))
    checks.expect(not wrong, f"{wrong} results are wrong")
    results = {handle.id: value for handle, value in zip(handles, values, strict=True)}
    return seconds, results, ended


async def _start_and_wait(task: Any, first: int, steps: int) -> tuple[Execution[int], int]:
    handle = await task.astart(first, steps)
    return handle, await handle.aresult()
