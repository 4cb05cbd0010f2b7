"""What every workload is given: rounds, fresh files, and the disk's limits before each round."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from benchmarks import limits, quiet
from benchmarks.place import remove
from benchmarks.report import Result
from outlast import Engine
from outlast.lifecycle import State
from servers.postgres import Server

T = TypeVar("T")


@dataclass
class Bench:
    """The run of one workload.

    Attributes:
        directory: fresh, on a real disk.
        rounds: how often each measurement is repeated.
        limit_scale: how much of the limits' full work is done; tests do a little.
        patience_seconds: how long a round waits for a machine that others leave alone.
        server: where the stores are, for those on PostgreSQL; None for files of SQLite.
        processes: how many processes run the executions, on PostgreSQL.
    """

    directory: Path
    rounds: int = 3
    limit_scale: float = 1.0
    patience_seconds: float = 0.0
    server: Server | None = None
    processes: int = 1

    def each_round(self, result: Result) -> Iterator[int]:
        """Count the rounds, measuring the disk's limits before each."""
        for number in range(self.rounds):
            quiet.wait(self.patience_seconds)
            result.add_limits(self.limits())
            gc.collect()
            others = quiet.Others()
            yield number
            result.busy.append(others.cores())

    def limits(self) -> dict[str, float]:
        """Measure what the disk, and SQLite or the server, allow now."""
        if self.server is None:
            return limits.measure(self.directory, scale=self.limit_scale)
        from benchmarks import server_limits

        return server_limits.measure(self.server, self.directory, scale=self.limit_scale)

    def stores(self, names: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Give the address of a fresh store for each variant, and take it away afterwards."""
        if self.server is None:
            for name, file in self.files(names):
                yield name, url(file)
            return
        for name in names:
            address = self.server.database()
            yield name, address
            self.server.drop(address)
            gc.collect()

    def files(self, names: Iterable[str]) -> Iterator[tuple[str, Path]]:
        """Give a fresh database file for each variant, and take it away afterwards."""
        for name in names:
            file = self.directory / f"{name or 'main'}.db"
            yield name, file
            remove(file)
            gc.collect()


def turned(items: Sequence[T], number: int) -> list[T]:
    """Begin with another item each round, so that none always has the same place."""
    start = number % len(items)
    return [*items[start:], *items[:start]]


def percentile(values: Iterable[float], share: float) -> float:
    """Give the value that this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


async def until_open(engine: Engine, count: int, *states: State) -> None:
    """Wait until so many executions are in these states, or open at all.

    To ask for each of them would cost more than what is measured; and where there are very many, to
    count them does, too. So the counting takes a twentieth of the time at most.
    """
    while True:
        began = perf_counter()
        counts = engine.store.counts()
        if sum(counts[state] for state in states or counts if state in counts) == count:
            return
        await asyncio.sleep(max(0.01, 20 * (perf_counter() - began)))


def url(file: Path) -> str:
    """Give the store's address of a file."""
    return f"sqlite:///{file}"
