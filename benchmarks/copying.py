"""How fast a store moves: ``python -m benchmarks.copying``, from SQLite to PostgreSQL and back.

A store with finished executions of five steps is made by the engine, then copied by the library's
own call, there and back: rows over, digests of both sides compared, every log folded in the copy.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, time_ns

from benchmarks.checks import expect
from benchmarks.place import DEFAULT, fresh_directory, machine, remove
from benchmarks.tasks import chain
from benchmarks.w1 import timed
from outlast.store import copy_store
from servers.postgres import Server

STEPS = 5


def measure(source: str, target: str, executions: int) -> tuple[float, float, int]:
    """Copy a store; gives the seconds until the last row was over, those in all, and the rows.

    Raises:
        Unverified: the copy is not whole.
    """
    over = began = perf_counter()

    def tell(_table: str, _rows: int) -> None:
        nonlocal over
        over = perf_counter()

    made = copy_store(source, target, time_ns() // 1_000, tell)
    seconds = perf_counter() - began
    expect(not made.defects, f"the copy has defects: {made.defects[:3]}")
    expect(made.rows["execution"] == executions, f"{made.rows['execution']} executions are there")
    expect(made.rows["transition"] > (executions - 1) * (STEPS + 4), "rows of logs are missing")
    return over - began, seconds, sum(made.rows.values())


def main(argv: Sequence[str] | None = None) -> int:
    """Copy there and back in each round, and print the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.copying", description=__doc__)
    parser.add_argument("--executions", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=DEFAULT, help="a directory on a real disk")
    given = parser.parse_args(argv)
    count = given.executions + 1  # one that warms the engine up
    there: list[tuple[float, float, int]] = []
    back: list[tuple[float, float, int]] = []
    with fresh_directory(given.dir) as directory:
        directory.chmod(0o755)  # root's servers run as somebody else
        source, returned = directory / "source.db", directory / "back.db"
        asyncio.run(timed(f"sqlite:///{source}", chain, True, given.executions, STEPS))
        with Server(parent=directory) as server:
            for _ in range(given.rounds):
                url = server.database()
                there.append(measure(f"sqlite:///{source}", url, count))
                back.append(measure(url, f"sqlite:///{returned}", count))
                server.drop(url)
                remove(returned)
                print(".", end="", flush=True, file=sys.stderr)
        about = machine(directory)
    print(f"\n{count:,} executions of {STEPS} steps, {there[0][2]:,} rows; {about['cores']} cores")
    for name, rounds in (("to PostgreSQL", there), ("to SQLite", back)):
        over, seconds = (statistics.median(one[at] for one in rounds) for at in (0, 1))
        rows = rounds[0][2]
        print(
            f"{name:14} {rows / seconds:9,.0f} rows/s, {count / seconds:7,.0f} executions/s in all;"
            f" {rows / over:9,.0f} rows/s until the last row was over, then "
            f"{seconds - over:.1f} s to compare and to look through"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
