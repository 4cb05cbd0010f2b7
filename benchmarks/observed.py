"""What looking on costs: processor time of W1's steps, with and without, in turns.

``python -m benchmarks.observed`` runs W1 in processes of their own: without anything that looks on,
with the capture of what steps log (which is always on), with metrics that are scraped each second,
and with traces. It prints the least of some rounds, a step; as in ``benchmarks.cost``, wall time is
not looked at.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final

from benchmarks.bench import until_open
from benchmarks.cost import STEPS, WARM_UP, Meter
from benchmarks.place import ROOT
from benchmarks.tasks import chain
from outlast import Engine
from outlast.engine.read.logs import begin_capture, end_capture

COUNT: Final = 4_000
"""Executions of five steps."""
SCRAPE_SECONDS: Final = 1.0
"""Prometheus asks each 15 seconds or more seldom, unless it is told otherwise."""


@contextlib.asynccontextmanager
async def _nothing(engine: Engine) -> AsyncIterator[None]:
    end_capture()
    try:
        yield
    finally:
        begin_capture()


@contextlib.asynccontextmanager
async def _logs(engine: Engine) -> AsyncIterator[None]:
    yield


@contextlib.asynccontextmanager
async def _metrics(engine: Engine) -> AsyncIterator[None]:
    from outlast.observe.metrics import Metrics

    metrics, until = Metrics(engine), threading.Event()

    def scrape() -> None:
        while not until.wait(SCRAPE_SECONDS):
            assert b"outlast_transitions" in metrics.text()

    scraping = threading.Thread(target=scrape)
    scraping.start()
    try:
        yield
    finally:
        until.set()
        await asyncio.to_thread(scraping.join)


@contextlib.asynccontextmanager
async def _traces(engine: Engine) -> AsyncIterator[None]:
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    from outlast.observe.otel import Telemetry

    class Nowhere(SpanExporter):
        def export(self, spans: Sequence[Any]) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    async with Telemetry(engine, exporter=Nowhere(), reader=False, records=False) as telemetry:
        yield
        while telemetry.exported < COUNT:  # each execution has a span, and what it did is in it
            await asyncio.sleep(0.01)


WAYS: Final = {"nothing": _nothing, "logs": _logs, "metrics": _metrics, "traces": _traces}
"""What looks on. ``nothing`` is without the capture of logs, all others are with it."""


async def _steps(store: str, looking: str, meter: Meter) -> None:
    async with Engine(store, tasks=[chain]) as engine:
        await engine.astart_many(chain, [(0, STEPS)] * WARM_UP)
        await until_open(engine, 0)
        with meter.phase("W1 step", engine, COUNT * STEPS):
            on: AbstractAsyncContextManager[None] = WAYS[looking](engine)
            async with on:
                handles = await engine.astart_many(chain, [(0, STEPS)] * COUNT)
                await asyncio.gather(*(handle.aresult() for handle in handles))


def measured(looking: str, directory: Path) -> float:
    """Run W1 in this process; gives microseconds of processor time a step."""
    meter = Meter()
    with tempfile.TemporaryDirectory(prefix="outlast-observed-", dir=directory) as place:
        asyncio.run(_steps(f"sqlite:///{place}/outlast.db", looking, meter))
    return sum(meter.costs["W1 step"].values())


def main() -> None:
    """Measure all ways in turns, and print a line for each."""
    if sys.argv[1:2] == ["--here"]:
        print(json.dumps(measured(sys.argv[2], Path(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm"))
    asked = parser.parse_args()
    costs: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(asked.rounds):
        for way in list(WAYS)[:: 1 if number % 2 == 0 else -1]:
            line = [sys.executable, "-m", "benchmarks.observed", "--here", way, str(asked.dir)]
            done = subprocess.run(line, capture_output=True, check=True, text=True, cwd=ROOT)
            costs[way].append(float(json.loads(done.stdout)))
    least = {way: min(found) for way, found in costs.items()}
    for way, cost in least.items():
        print(f"{way:8} {cost:7.1f} µs a step  {100 * (cost / least['nothing'] - 1):+.1f} %")


if __name__ == "__main__":
    main()
