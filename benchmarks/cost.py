"""What an operation costs in processor time, by thread; of this code, and of another checkout.

``python -m benchmarks.cost W5 --than ../before`` runs the workload in processes of their own, in
turns with the other checkout's package, and prints the least of several rounds. Wall time is not
looked at: processor time says what changed also where others use the machine, if the rounds are
many. So it runs in memory by default; what a disk costs, ``python -m benchmarks`` says.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.bench import until_open
from benchmarks.place import ROOT
from benchmarks.tasks import asks, chain, nothing
from outlast import Engine
from outlast.lifecycle import State

STEPS: Final = 5
"""Of an execution of W1."""
WARM_UP: Final = 50
TOGETHER: Final = 500
"""Answers that are given at the same time."""
PARTS: Final = ("loop", "journal", "others")


class Meter:
    """Takes the processor time of phases: of the loop's thread, the journal's, and all others."""

    def __init__(self) -> None:
        self.costs: dict[str, dict[str, float]] = {}

    @contextmanager
    def phase(self, name: str, engine: Engine, count: int) -> Iterator[None]:
        """Take what this block costs, in microseconds for each of so many operations."""
        gc.collect()
        before = _clocks(engine)
        yield
        whole, loop, journal = (
            (after - then) / count * 1e6
            for after, then in zip(_clocks(engine), before, strict=True)
        )
        others = max(0.0, whole - loop - journal)
        self.costs[name] = {"loop": loop, "journal": journal, "others": others}


def _clocks(engine: Engine) -> tuple[float, float, float]:
    ident = engine.journal._thread.ident
    assert ident is not None
    journal = time.clock_gettime(time.pthread_getcpuclockid(ident))
    return time.process_time(), time.thread_time(), journal


async def steps(store: str, count: int, meter: Meter) -> None:
    """W1: executions of five steps, started as fast as possible."""
    async with Engine(store, tasks=[chain]) as engine:
        await engine.astart_many(chain, [(0, STEPS)] * WARM_UP)
        await until_open(engine, 0)
        with meter.phase("W1 step", engine, count * STEPS):
            handles = await engine.astart_many(chain, [(0, STEPS)] * count)
            await asyncio.gather(*(handle.aresult() for handle in handles))


async def alone(store: str, count: int, meter: Meter) -> None:
    """W2: start an execution of one step and wait for its result, again and again."""
    async with Engine(store, tasks=[chain]) as engine:
        for number in range(WARM_UP):
            await (await chain.astart(number, 1)).aresult()
        with meter.phase("W2 start to result", engine, count):
            for number in range(count):
                await (await chain.astart(number, 1)).aresult()


async def queue(store: str, count: int, meter: Meter) -> None:
    """W5: put no-op executions in, then drain them."""
    async with Engine(store, tasks=[chain]) as engine:
        await engine.astart_many(nothing, [()] * WARM_UP)
        with meter.phase("W5 put in", engine, count):
            await engine.astart_many(nothing, [()] * count)
    async with Engine(store, tasks=[nothing]) as engine:
        with meter.phase("W5 drained", engine, count + WARM_UP):
            await until_open(engine, 0)


async def parked(store: str, count: int, meter: Meter) -> None:
    """W8: executions park on a question, then all are answered."""
    async with Engine(store, tasks=[asks], retention=None) as engine:
        with meter.phase("W8 parked", engine, count):
            handles = await engine.astart_many(asks, [(number,) for number in range(count)])
            await until_open(engine, count, State.AWAITING_INPUT)
        with meter.phase("W8 answered", engine, count):
            for place in range(0, count, TOGETHER):
                some = handles[place : place + TOGETHER]
                await asyncio.gather(*(handle.aanswer(True) for handle in some))
            await until_open(engine, 0)


WORKLOADS: Final = {
    "W1": (steps, 2_000),
    "W2": (alone, 500),
    "W5": (queue, 20_000),
    "W8": (parked, 5_000),
}
"""The workloads, and how many executions each has."""


def measured(workload: str, count: int, directory: Path) -> dict[str, dict[str, float]]:
    """Run a workload in this process, on a fresh file; gives what each phase costs."""
    meter = Meter()
    with tempfile.TemporaryDirectory(prefix="outlast-cost-", dir=directory) as place:
        asyncio.run(WORKLOADS[workload][0](f"sqlite:///{place}/outlast.db", count, meter))
    return meter.costs


def _measured_by(
    checkout: Path, workload: str, count: int, directory: Path
) -> dict[str, dict[str, float]]:
    """Run a workload on the package of a checkout, in a process of its own."""
    paths = os.pathsep.join([str(checkout / "src"), str(ROOT)])
    said = subprocess.run(
        [sys.executable, "-m", "benchmarks.cost", "--here", workload, str(count), str(directory)],
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
        cwd=ROOT,
    )
    costs: dict[str, dict[str, float]] = json.loads(said.stdout)
    return costs


def main() -> None:
    """Measure what the command line asks for, and print a line for each phase."""
    if sys.argv[1:2] == ["--here"]:
        name, size, directory = sys.argv[2:]
        print(json.dumps(measured(name, int(size), Path(directory))))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("workloads", nargs="*", choices=[*WORKLOADS, []], metavar="WORKLOAD")
    parser.add_argument("--than", type=Path, help="another checkout to compare with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm"))
    asked = parser.parse_args()
    checkouts = [ROOT] if asked.than is None else [asked.than.resolve(), ROOT]
    for workload in asked.workloads or WORKLOADS:
        found: list[dict[Path, dict[str, dict[str, float]]]] = []
        for number in range(asked.rounds):
            turn = checkouts if number % 2 == 0 else checkouts[::-1]
            count = WORKLOADS[workload][1]
            found.append({one: _measured_by(one, workload, count, asked.dir) for one in turn})
        for phase in found[0][ROOT]:
            least = [
                min((one[checkout][phase] for one in found), key=lambda cost: sum(cost.values()))
                for checkout in checkouts
            ]
            texts = [
                f"{sum(cost.values()):7.1f} µs ("
                + ", ".join(f"{part} {cost[part]:.1f}" for part in PARTS)
                + ")"
                for cost in least
            ]
            ratio = sum(least[-1].values()) / sum(least[0].values())
            print(phase.ljust(19), " -> ".join(texts), f"{ratio:.2f}" if len(least) > 1 else "")


if __name__ == "__main__":
    main()
