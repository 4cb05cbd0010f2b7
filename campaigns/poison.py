"""Tasks that kill their workers, among good ones: ``python -m campaigns.poison``.

Several workers are kept alive as a supervisor does: who dies is started again. Poisonous executions
end the process that runs them, in every way there is, as soon as they have begun. Each has to be
suspended as ``crash_loop``; the good ones beside them, which lose their worker again and again,
have to come to their end, and none of their recorded steps runs twice.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg

from campaigns import ledger
from campaigns.mixed import Plan, serve, work
from campaigns.reckoning import Reckoning, reckon
from outlast import Engine, step, task
from outlast.store import open_store
from servers.postgres import Server

BOUND: Final = 5
"""Claims without progress that are allowed in a row."""
LEASE: Final = "1s"
PATIENCE_SECONDS: Final = 90.0
_MEMORY_BYTES: Final = 256 * 1024 * 1024


def _devour() -> None:
    """Take all the memory there is (of what it may have), and die as by the kernel's hand."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY_BYTES, used + _MEMORY_BYTES))
    kept = []
    try:
        while True:
            kept.append(bytearray(16 * 1024 * 1024))
    except MemoryError:
        os.kill(os.getpid(), signal.SIGKILL)


POISONS: Final[dict[str, Callable[[], Any]]] = {
    "exit": lambda: os._exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "abort": os.abort,
    "segfault": lambda: ctypes.string_at(0),
    "memory": _devour,
}


@step
async def swallow(kind: str) -> None:
    """Die."""
    await work.fn(0, 0)
    POISONS[kind]()


@task
async def poisonous(kind: str) -> None:
    """Do one good step, and then the one that kills."""
    await work(0, 0)
    await swallow(kind)


@task
async def good(number: int) -> list[str]:
    """Do a few steps of some ten milliseconds, one after the other."""
    return [await work(number, 8) for _ in range(8)]


class Counts(msgspec.Struct):
    """What a campaign did.

    Attributes:
        deaths: workers that died, by how.
        suspended: poisonous executions that were suspended as ``crash_loop``.
        deaths_each: how often each of them killed somebody.
        interrupted: good executions that lost a worker at least once.
        blamed: good executions that were suspended.
    """

    poisonous: int = 0
    good: int = 0
    deaths: dict[str, int] = {}
    suspended: int = 0
    deaths_each: list[int] = []
    ended: int = 0
    interrupted: int = 0
    blamed: int = 0
    repeated: int = 0
    doubled: int = 0
    recorded: int = 0
    seconds: float = 0.0

    def lines(self) -> str:
        """Write what matters most."""
        how = ", ".join(f"{count} by {name}" for name, count in sorted(self.deaths.items()))
        return (
            f"{self.poisonous} poisonous executions killed {sum(self.deaths.values())} workers "
            f"({how}), {sorted(set(self.deaths_each))} each; {self.suspended} suspended as "
            f"crash_loop\n{self.good} good ones beside them: {self.ended} ended well, "
            f"{self.interrupted} lost a worker on the way, {self.blamed} were suspended; "
            f"{self.recorded} recorded steps, {self.repeated} repeated, {self.doubled} doubled; "
            f"{self.seconds:.1f} s"
        )


class Campaign:
    """One campaign. Its process has no threads, as it forks."""

    def __init__(self, server: Server, folder: Path, *, workers: int) -> None:
        self.counts = Counts()
        self.reckoning = Reckoning()
        self._ledger = folder / "ledger"
        self._url = server.database()
        self._workers = workers
        self._alive: set[int] = set()
        self._deaths: Counter[str] = Counter()
        open_store(self._url, owner="setup", now=time.time_ns() // 1000).close()

    def run(self, each: int, goods: int) -> None:
        """Start them all, and see to the workers until nothing moves any more."""
        began = time.monotonic()
        self.counts.poisonous, self.counts.good = each * len(POISONS), goods
        starter = self._fork(lambda: asyncio.run(self._start(each, goods)))
        assert os.waitstatus_to_exitcode(os.waitpid(starter, 0)[1]) == 0
        with psycopg.connect(self._url, autocommit=True) as connection:
            while time.monotonic() < began + PATIENCE_SECONDS and not self._is_over(connection):
                self._tend()
                time.sleep(0.02)
        for pid in self._alive:
            os.kill(pid, signal.SIGTERM)
        for pid in self._alive:
            os.waitpid(pid, 0)
        self.reckoning = reckon(self._url, self._ledger, [])
        self._sum_up()
        self.counts.seconds = round(time.monotonic() - began, 1)

    def _tend(self) -> None:
        """Note who has died, and start others in their place."""
        for pid in list(self._alive):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                self._alive.discard(pid)
                code = os.waitstatus_to_exitcode(status)
                self._deaths[f"exit {code}" if code >= 0 else signal.Signals(-code).name] += 1
        plan = Plan(self._url, str(self._ledger), lease=LEASE, slots=20)
        while len(self._alive) < self._workers:
            self._alive.add(self._fork(lambda: asyncio.run(serve(plan, [poisonous, good]))))

    def _fork(self, act: Callable[[], object]) -> int:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                ledger.open_ledger(str(self._ledger), os.getpid())
                act()
                code = 0
            except BaseException as error:  # noqa: BLE001 - the parent sees the code
                sys.stderr.write(f"a worker failed: {error!r}\n")
            finally:
                os._exit(code)
        return pid

    async def _start(self, each: int, goods: int) -> None:
        async with Engine(self._url, tasks=[poisonous, good], slots=0) as engine:
            for number in range(max(each * len(POISONS), goods)):
                if number < goods:
                    await engine.astart(good, number)
                if number < each * len(POISONS):
                    await engine.astart(poisonous, list(POISONS)[number % len(POISONS)])

    def _is_over(self, connection: psycopg.Connection[Any]) -> bool:
        row = connection.execute(
            "SELECT count(*) FROM outlast.execution"
            " WHERE state NOT IN ('succeeded', 'failed', 'suspended')"
        ).fetchone()
        return row == (0,)

    def _sum_up(self) -> None:
        counts = self.counts
        with psycopg.connect(self._url) as connection:
            rows = connection.execute(
                "SELECT e.task, e.state, e.detail, e.id, (SELECT count(*) FROM outlast.transition"
                " AS t WHERE t.execution_id = e.id AND t.kind IN ('lease_expired', 'worker_lost'))"
                " FROM outlast.execution AS e"
            ).fetchall()
        starts = Counter((one.execution, one.key) for one in ledger.Reader(self._ledger).more()[0])
        for name, state, detail, id, losses in rows:
            code = msgspec.json.decode(detail or "{}").get("code")
            if name == "poisonous":
                counts.suspended += state == "suspended" and code == "crash_loop"
                counts.deaths_each.append(starts[id, "swallow#1"])
            else:
                counts.ended += state == "succeeded"
                counts.interrupted += losses > 0
                counts.blamed += state == "suspended"
        counts.deaths = dict(self._deaths)
        counts.recorded = self.reckoning.recorded
        counts.repeated = self.reckoning.count("repeated")
        counts.doubled = sum("results" in text for _, text in self.reckoning.broken)


def main(arguments: list[str] | None = None) -> int:
    """Run a campaign as a command; the exit code is 1 where something was not as it must be."""
    parser = argparse.ArgumentParser(prog="python -m campaigns.poison", description=__doc__)
    parser.add_argument("--each", type=int, default=2, help="poisonous executions of each kind")
    parser.add_argument("--good", type=int, default=60, help="good ones")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    with Server() as server, tempfile.TemporaryDirectory(prefix="outlast-poison-") as folder:
        campaign = Campaign(server, Path(folder), workers=given.workers)
        campaign.run(given.each, given.good)
    counts = campaign.counts
    print(json.dumps(msgspec.to_builtins(counts)) if given.json else counts.lines())
    whole = counts.suspended == counts.poisonous and counts.ended == counts.good
    return 0 if whole and not counts.repeated and not counts.doubled else 1


if __name__ == "__main__":
    sys.exit(main())
