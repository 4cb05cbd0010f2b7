"""What partitions of logs cost, and what an execution takes: ``python -m benchmarks.partitions``.

The batches of ``benchmarks.guards`` (executions that each made a step, and births), guards on, go
into tables in one piece and in 8 and 32 partitions. Then a store of executions of five steps tells
how many bytes one takes, by table and by index, and how long it takes to purge it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter, time_ns
from typing import Final

import psycopg

from benchmarks.checks import expect
from benchmarks.drivers import Cost
from benchmarks.guards import WORK, filled, measure
from benchmarks.place import DEFAULT, fresh_directory
from benchmarks.tasks import chain
from benchmarks.w1 import timed
from outlast.store import open_store
from outlast.store.protocol import Filter
from servers.postgres import Server

PARTITIONS: Final = (1, 8, 32)
SIZES: Final = {10: 100, 100: 40, 500: 12}
STEPS: Final = 5
PURGED: Final = 2_000
_MADE: Final[dict[int, Callable[[str], None]]] = {
    count: partial(filled, partitions=count) for count in PARTITIONS
}
_SIZES: Final = """
SELECT c.relname, pg_relation_size(c.oid) + pg_relation_size(coalesce(c.reltoastrelid, 0)),
       pg_indexes_size(c.oid)
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = 'outlast' AND c.relkind = 'r' AND pg_total_relation_size(c.oid) > 100000
 ORDER BY pg_total_relation_size(c.oid) DESC
"""


def costs(server: Server, rounds: int) -> None:
    """Print what a row costs in each number of partitions."""
    found: dict[tuple[int, str, int], list[Cost]] = {}
    for _ in range(rounds):
        for partitions in PARTITIONS:
            for work in WORK:
                for size, count in SIZES.items():
                    cost = measure(server, "", work, size, count, _MADE[partitions])
                    found.setdefault((partitions, work, size), []).append(cost)
        print(".", end="", flush=True, file=sys.stderr)
    print("\nmicroseconds of the server's processor time a row (wall), by rows a batch")
    print(f"{'':24}" + "".join(f"{size:>14}" for size in SIZES))
    for work in WORK:
        for partitions in PARTITIONS:
            line = f"{f'{work}: {partitions} partitions':24}"
            for size in SIZES:
                some = found[partitions, work, size]
                theirs = statistics.median(one.server for one in some)
                wall = statistics.median(one.wall for one in some)
                line += f"{f'{theirs:.1f} ({wall:.0f})':>14}"
            print(line)


def sizes(server: Server, executions: int) -> None:
    """Print what an execution takes, and what it is to purge it."""
    url = server.database()
    asyncio.run(timed(url, chain, True, executions, STEPS))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
        print(f"\nbytes an execution of {STEPS} steps ({executions:,} of them): rows, indexes")
        total = 0
        for name, rows, indexes in connection.execute(_SIZES).fetchall():
            total += rows + indexes
            print(f"  {name:12} {rows / executions:8,.0f} {indexes / executions:8,.0f}")
        print(f"  {'all':12} {total / executions:8,.0f}")
    store = open_store(url, owner=None, now=time_ns() // 1_000)
    ids = [one.id for one in store.page(Filter(limit=PURGED))]
    began = perf_counter()
    purged = sum(store.purge(ids[at : at + 500]) for at in range(0, len(ids), 500))
    seconds = perf_counter() - began
    store.close()
    expect(purged == len(ids) > 0, f"{purged} of {len(ids)} were purged")
    with psycopg.connect(url, autocommit=True) as connection:
        began = perf_counter()
        connection.execute("VACUUM outlast.transition, outlast.execution, outlast.inbox")
        vacuum = perf_counter() - began
    print(f"purged {purged / seconds:,.0f} executions/s; vacuum after {purged:,}: {vacuum:.2f} s")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.partitions", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--executions", type=int, default=20_000)
    parser.add_argument("--dir", type=Path, default=DEFAULT, help="a directory on a real disk")
    given = parser.parse_args(argv)
    with fresh_directory(given.dir) as directory:
        directory.chmod(0o755)  # root's servers run as somebody else
        with Server(parent=directory) as server:
            costs(server, given.rounds)
            sizes(server, given.executions)
    return 0


if __name__ == "__main__":
    sys.exit(main())
