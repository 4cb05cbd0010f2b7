"""Cut a worker off from PostgreSQL, silently: ``python -m campaigns.partition``.

Two workers have a proxy each, a client none. In each round one of them is cut off while it works;
no connection ends, and nothing comes through. Its watchdog has to stop its bodies before its lease
is over by the server's clock; the other worker takes over. Then the network is healed: what was
*held* back arrives late, in the middle of what the other one does, and has to be refused; what was
*swallowed* never comes. At the end all is reckoned up (``reckoning``).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg

from campaigns.ledger import Reader
from campaigns.load import Load, Tally, told, until
from campaigns.proxy import Proxy
from campaigns.reckoning import Reckoning
from servers.postgres import Server

LEASE_SECONDS: Final = 2.0
HOLDS_LEAST: Final = 4
"""Executions that a worker must have, to be worth cutting off."""


class Round(msgspec.Struct):
    """What one round came to.

    Attributes:
        how: ``held`` or ``swallowed``.
        in_flight: executions that the worker had when it was cut off.
        takeover_s: after how long all of them were the other one's.
        stopped_s: after how long the last body of it was stopped; None where none was.
        stopped: how many of its bodies were stopped.
        late_starts: bodies that it began between the takeover and the healing.
        late_bytes: what it had said, and came late or never.
    """

    how: str
    in_flight: int = 0
    takeover_s: float = 0.0
    stopped_s: float | None = None
    stopped: int = 0
    late_starts: int = 0
    late_bytes: int = 0


class Counts(Tally):
    """What a campaign did.

    Attributes:
        rounds: each time that a worker was cut off.
        older_fences: rows of logs behind one of a higher fence.
    """

    rounds: list[Round] = msgspec.field(default_factory=list)
    older_fences: int = 0

    def lines(self) -> str:
        """Write what matters most."""
        rounds = "\n".join(
            f"  {one.how}: {one.in_flight} executions in flight, {one.stopped} bodies stopped "
            f"after {one.stopped_s or 0:.2f} s, all taken over after {one.takeover_s:.2f} s "
            f"(promised: {LEASE_SECONDS + 1:g} s), {one.late_starts} bodies begun after that, "
            f"{one.late_bytes} bytes late"
            for one in self.rounds
        )
        return (
            f"{len(self.rounds)} times cut off, lease {LEASE_SECONDS:g} s\n{rounds}\n"
            f"  late writes: {self.met()}\n  {self.came_to()}"
        )


class Campaign:
    """One campaign, on a server that is there, in a directory that is there."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.counts = Counts()
        self.reckoning = Reckoning()
        self._server, self._folder = server, folder
        self._windows: list[tuple[Round, int, int, int]] = []

    async def run(self, hows: list[str]) -> None:
        """Cut off once for each of these, one worker after the other, and reckon up."""
        load = Load(self._server.database(), self._folder)
        async with contextlib.AsyncExitStack() as stack:
            proxies = [
                await stack.enter_async_context(Proxy("127.0.0.1", self._server.port))
                for _ in range(2)
            ]
            await stack.enter_async_context(load)
            lease = f"{LEASE_SECONDS:g}s"
            workers = [load.plan(proxy.url(load.direct), lease=lease) for proxy in proxies]
            await load.start(workers, [load.plan(load.direct, task="busy", ahead=24, name="p")])
            for place, how in enumerate(hows):
                pid = int(load.greetings[place % 2]["pid"])
                await self._round(load, proxies[place % 2], how, pid)
            await load.settle()
        self.reckoning = await load.reckon(self.counts)
        self._sum_up(load)

    async def _round(self, load: Load, proxy: Proxy, how: str, pid: int) -> None:
        async with await psycopg.AsyncConnection.connect(
            load.direct, autocommit=True
        ) as connection:
            found = await until(lambda: self._held(connection, pid))
            assert found is not None
            names, held = found
            one = Round(how, len(held))
            self.counts.rounds.append(one)
            before = proxy.counts.held + proxy.counts.swallowed
            began, began_us = time.monotonic(), time.time_ns() // 1000
            proxy.hold() if how == "held" else proxy.swallow()
            await until(lambda: self._taken(connection, names))
            one.takeover_s = round(time.monotonic() - began, 2)
            taken_us = time.time_ns() // 1000
            await until(lambda: self._has_spoken(proxy, before))
            await asyncio.sleep(0.3)  # let the other one write, before the late ones come
            one.late_bytes = proxy.counts.held + proxy.counts.swallowed - before
            self._windows.append((one, pid, taken_us, time.time_ns() // 1000))
            proxy.heal()
            self._see_stopped(load, one, pid, began_us)
            if how == "held":
                await until(lambda: self._held(connection, pid))  # it is back, and works

    async def _held(self, connection: Any, pid: int) -> tuple[list[str], list[str]] | None:
        """Give the names and the executions of a process, once it has some."""
        found = await (
            await connection.execute(
                "SELECT e.worker, e.id FROM outlast.execution AS e JOIN outlast.worker AS w"
                " ON w.id = e.worker WHERE w.pid = %s AND e.state = 'running'"
                " AND w.state = 'active'",
                [pid],
            )
        ).fetchall()
        if len(found) < HOLDS_LEAST:
            return None
        return sorted({row[0] for row in found}), [row[1] for row in found]

    async def _taken(self, connection: Any, names: list[str]) -> bool:
        found = await connection.execute(
            "SELECT count(*) FROM outlast.execution WHERE worker = ANY (%s)", [names]
        )
        (left,) = await found.fetchone()
        return not left

    async def _has_spoken(self, proxy: Proxy, before: int) -> bool:
        return proxy.counts.held + proxy.counts.swallowed > before

    def _see_stopped(self, load: Load, one: Round, pid: int, began_us: int) -> None:
        cuts = Path(f"{load.ledger}.cut")
        lines = cuts.read_text().splitlines() if cuts.exists() else []
        stopped = [
            int(at) for who, at in map(str.split, lines) if int(who) == pid and int(at) > began_us
        ]
        one.stopped = len(stopped)
        if stopped:
            one.stopped_s = round((max(stopped) - began_us) / 1e6, 2)

    def _sum_up(self, load: Load) -> None:
        starts, _ = Reader(load.ledger).more()
        for one, pid, begin, end in self._windows:
            times = [int(start.witness[0][1:]) for start in starts if start.life == pid]
            one.late_starts = sum(begin < at < end for at in times)
        with psycopg.connect(load.direct) as connection:
            row = connection.execute(
                "SELECT count(*) FROM outlast.transition AS a JOIN outlast.transition AS b"
                " ON b.execution_id = a.execution_id AND b.seq = a.seq + 1 WHERE b.fence < a.fence"
            ).fetchone()
        assert row is not None
        self.counts.older_fences = int(row[0])


def main(arguments: list[str] | None = None) -> int:
    """Run a campaign as a command; the exit code is 1 where a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m campaigns.partition", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often; the last is swallowed")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    hows = ["held"] * (given.rounds - 1) + ["swallowed"]
    with Server() as server, tempfile.TemporaryDirectory(prefix="outlast-partition-") as folder:
        campaign = Campaign(server, Path(folder))
        asyncio.run(campaign.run(hows))
    counts = campaign.counts
    return told(counts, counts.lines(), campaign.reckoning.broken, as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
