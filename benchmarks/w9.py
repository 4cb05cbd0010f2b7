"""W9: what a million finished executions in the file cost the next ones.

The file is filled through the store itself, guards on: each execution is decided by the lifecycle,
row by row (create, claim, start, one step, finish). Then W1, W2 and the first page of the list are
measured in it and in an empty file, in turns. A ratio above one means that the full file was
faster; ``ratio`` is the worst of the three medians.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final

from benchmarks import checks, w1, w2
from benchmarks.bench import Bench, percentile, turned, url
from benchmarks.place import remove
from benchmarks.report import Result
from benchmarks.tasks import chain
from outlast.codec import digest
from outlast.engine.write.identity import IdMaker
from outlast.lifecycle import Event, Kind, Refusal, Transition, apply, create, decide
from outlast.store import open_store
from outlast.store.protocol import DEFAULT_NUMBER, Create, Filter

FULL: Final = {"filled": 1_000_000, "executions": 2_000, "times": 200, "turns": 3}
QUICK: Final = {"filled": 100_000, "executions": 2_000, "times": 200, "turns": 3}
STEPS: Final = 5
PAGES: Final = 50
A_BATCH: Final = 400
BORN_AT: Final = 1_780_000_000_000_000
"""When the first one was made, in microseconds since 1970; long ago, as ids sort by time."""
_INPUT: Final = b'{"first":0,"steps":1}'


def run(bench: Bench, *, filled: int, executions: int, times: int, turns: int) -> Result:
    """Fill one file, then measure in it and in an empty one."""
    result = Result("W9", f"W1, W2 and a page with {filled:,} finished executions in the file")
    full = bench.directory / "filled.db"
    began = perf_counter()
    fill(full, filled)
    seconds = perf_counter() - began
    result.add(
        fill_s=seconds, filled_rows_per_s=5 * filled / seconds, file_mib=full.stat().st_size / 2**20
    )
    count, steps = filled, filled
    for number in bench.each_round(result):
        for turn in range(turns):
            found: dict[str, dict[str, float]] = {}
            for name, file in bench.files(turned(["empty", "other"], number + turn)):
                full_one = name == "other"
                found[name], values = _measure(full if full_one else file, executions, times)
                if full_one:
                    count += len(values) + 1  # the one that warms up in W1
                    steps += executions * STEPS + 1 + times + w2.WARM_UP
                else:
                    result.check(
                        checks.verify(
                            url(file),
                            executions=len(values) + 1,
                            steps=executions * STEPS + 1 + times + w2.WARM_UP,
                            results=values,
                        )
                    )
            _compare(result, found["empty"], found["other"])
    result.check(checks.verify(url(full), executions=count, steps=steps, results=values))
    remove(full)
    names = ("w1_ratio", "w2_ratio", "page_ratio")
    result.add(ratio=min(result.figures["", name].median for name in names))
    return result


def _compare(result: Result, empty: dict[str, float], full: dict[str, float]) -> None:
    result.add(
        w1_ratio=full["steps_per_s"] / empty["steps_per_s"],
        w2_ratio=empty["p50_ms"] / full["p50_ms"],
        page_ratio=empty["page_ms"] / full["page_ms"],
    )
    result.add("empty", **empty)
    result.add("filled", **full)


def _measure(file: Path, executions: int, times: int) -> tuple[dict[str, float], dict[str, object]]:
    """Run W1, W2 and the list in a file; gives the figures and all results."""
    seconds, values = asyncio.run(w1.timed(url(file), chain, True, executions, STEPS))
    took, more = asyncio.run(w2.on_loop(url(file), chain, times))
    figures = {
        "steps_per_s": executions * STEPS / seconds,
        "p50_ms": percentile(took, 0.5) * 1e3,
        "page_ms": _page(file) * 1e3,
    }
    return figures, {**values, **more}


def _page(file: Path) -> float:
    """Give the median time of reading the first page of the list."""
    store = open_store(url(file), owner=None, now=0)
    took = []
    try:
        for _ in range(PAGES):
            began = perf_counter()
            rows = store.page(Filter())
            took.append(perf_counter() - began)
            checks.expect(bool(rows), "the first page is empty")
    finally:
        store.close()
    return median(took)


def fill(file: Path, number: int) -> None:
    """Write so many finished executions of one step each."""
    store = open_store(url(file), owner="filler", now=BORN_AT)
    ids = IdMaker()
    try:
        for first in range(0, number, A_BATCH):
            some = range(first, min(first + A_BATCH, number))
            answers = store.commit([_finished(ids, BORN_AT + one * 10_000) for one in some])
            refused = [answer for answer in answers if answer.refused is not None]
            checks.expect(not refused, f"the store refused to be filled: {refused[:1]}")
    finally:
        store.close()


def _finished(ids: IdMaker, now: int) -> Create:
    """Decide one execution from its birth to its end."""
    nonce = os.urandom(16)
    data = {"task": chain.name, "input_digest": digest(_INPUT), "queue": "default", "priority": 0}
    record, row = create(
        DEFAULT_NUMBER, ids.make(now), Event(Kind.CREATE, "user", data=data, payload=_INPUT), now
    )
    rows: list[Transition] = [row]
    for place, event in enumerate(
        (
            Event(Kind.CLAIM, "engine", 0, nonce, data={"worker": "filler"}),
            Event(Kind.START, "engine", 1, nonce),
            Event(Kind.STEP, "engine", 1, nonce, "note#1", 1, payload=b'{"number":0}'),
            Event(Kind.FINISH, "engine", 1, nonce, payload=b"0"),
        )
    ):
        decision = decide(record, event, now + place * 500)
        assert not isinstance(decision, Refusal)
        apply(record, decision)
        rows.append(decision.transition)
    return Create(record, rows)
