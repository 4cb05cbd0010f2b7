"""W6: kill -9 half-way through many slow executions, start again, and count what was lost.

A first process starts the executions; it is killed when half of the steps are in the store. A
second one opens it and goes on. ``recover_s`` is the time from its start as a process until all are
done, less what the longest rest would take by itself. A ledger outside the store, to which each
body adds a line when it begins, shows what ran twice: ``repeated`` counts steps whose body began
twice, which is right for those under way at the kill; ``repeated_recorded`` those that had been
recorded, and must be 0.
"""

from __future__ import annotations

from collections import Counter
from time import monotonic
from typing import Final

from benchmarks import checks
from benchmarks.bench import Bench
from benchmarks.kill import killed_at, read_ledger, wait_for_line
from benchmarks.place import spawn
from benchmarks.report import Result
from benchmarks.tasks import chained

FULL: Final = {"executions": 200, "steps": 20, "milliseconds": 20.0}
QUICK: Final = {"executions": 200, "steps": 20, "milliseconds": 20.0}


def run(bench: Bench, *, executions: int, steps: int, milliseconds: float) -> Result:
    """Run, kill, restart, compare."""
    result = Result(
        "W6", f"{executions} executions of {steps} steps of {milliseconds:g} ms; SIGKILL half-way"
    )
    for _ in bench.each_round(result):
        for _, store in bench.stores([""]):
            result.add("", **_round(result, bench, store, executions, steps, milliseconds))
    return result


def _round(
    result: Result, bench: Bench, store: str, executions: int, steps: int, milliseconds: float
) -> dict[str, float]:
    ledger, acknowledged = bench.directory / "ledger", bench.directory / "acknowledged"
    arguments = (store, acknowledged, executions, steps, milliseconds)
    half = executions * steps // 2
    recorded = killed_at(store, half, "begin", *arguments, ledger=ledger)
    ids = acknowledged.read_text().split()
    done = Counter(id for id, _ in recorded)
    ideal = max(steps - done[id] for id in ids) * milliseconds / 1e3
    began = monotonic()
    child = spawn("again", store, acknowledged, ledger=ledger)
    ended = wait_for_line(child)
    entries = read_ledger(ledger)
    begun = Counter((entry.id, entry.key) for entry in entries)
    again = {(entry.id, entry.key) for entry in entries if entry.pid == child.pid}
    lost = [id for id in ids if ended["values"].get(id) is None]
    checks.expect(len(ids) == executions, f"only {len(ids)} starts were acknowledged in time")
    checks.expect(not lost, f"{len(lost)} acknowledged executions are lost, as {lost[:1]}")
    checks.expect(not again & recorded, f"{len(again & recorded)} recorded steps ran again")
    checks.expect(len(begun) == executions * steps, "a step was recorded that never ran")
    checks.expect(
        sorted(ended["values"].values())
        == sorted(chained(first, steps) for first in range(executions)),
        "results are wrong",
    )
    result.check(
        checks.verify(
            store, executions=executions, steps=executions * steps, results=ended["values"]
        )
    )
    result.check("none of the recorded steps ran again, no acknowledged execution was lost")
    ledger.unlink()
    acknowledged.unlink()
    return {
        "recover_s": ended["done"] - began - ideal,
        "wall_s": ended["done"] - began,
        "ideal_s": ideal,
        "opened_s": ended["opened"] - began,
        "repeated": sum(count > 1 for count in begun.values()),
        "repeated_recorded": len(again & recorded),
        "lost": len(lost),
    }
