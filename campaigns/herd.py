"""Kill all engines of a store at once, and start as many at once: ``python -m campaigns.herd``.

Two hundred engines in twenty processes, each with a name, a lease and connections of its own, run
a mixed load (``mixed``) on one PostgreSQL. With work in flight all of their processes are killed
by SIGKILL, and as many are started in the same instant. Nobody is told. It says how long it takes
until the last engine is back and until nothing is held by the dead, how many connections there
were at most, and how many transactions it took; at the end everything has to come to its end, and
all is reckoned up (``reckoning``).

``--through pooler`` puts a pooler in transaction mode in between (PgBouncer where it is there),
whose connections are fewer than PostgreSQL allows by default.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Final

import psycopg

from campaigns.load import Helper, Load, Tally, told, until
from campaigns.mixed import Plan
from campaigns.reckoning import Reckoning
from campaigns.restarts import ask, connected, pooled
from servers.postgres import Server

LEASE_SECONDS: Final = 10.0
"""The default of the product."""
CONNECTIONS_EACH: Final = 6
"""What an engine has at most: one that writes, one that renews, one for hints, three that read."""
CONNECTIONS_MORE: Final = 20
"""For the clients, the campaign itself, and what PostgreSQL keeps back."""
POOLED: Final = 60
"""Connections of a pooler to the server."""
USUAL_MAX: Final = 100
"""PostgreSQL's ``max_connections`` by default."""
HELD_LEAST: Final = 0.5
"""Executions under way for each engine that there must be, for a kill to be worth anything."""
SLOTS: Final = 3
"""Few, so that many engines have some."""
AHEAD_EACH: Final = 2
"""Open executions for each engine."""
PATIENCE_SECONDS: Final = 240.0


class Counts(Tally):
    """What a campaign did.

    Attributes:
        engines, processes: how many.
        through: what is between them and the server.
        max_connections: of the server.
        in_flight: executions that the killed engines had leases on.
        holders: how many of the killed engines had some.
        last_s: from the kill until all new engines had their leases.
        free_s: from the kill until nothing was held by the dead any more.
        connections: of the server at most.
        transactions: of the server from the kill until nothing was held by the dead.
        claimed: executions that were claimed in that time.
        stale: rows that were stored under a lease that was over.
    """

    engines: int = 0
    processes: int = 0
    through: str = ""
    max_connections: int = 0
    in_flight: int = 0
    holders: int = 0
    last_s: float = 0.0
    free_s: float = 0.0
    connections: int = 0
    transactions: int = 0
    claimed: int = 0
    stale: int = 0

    def lines(self) -> str:
        """Write what matters most."""
        return (
            f"{self.engines} engines in {self.processes} processes, {self.through}, lease "
            f"{LEASE_SECONDS:g} s, max_connections {self.max_connections}\n"
            f"  all killed with {self.in_flight} executions under way on {self.holders} of them; "
            f"all back after {self.last_s:.1f} s, nothing held by the dead after {self.free_s:.1f} "
            f"s\n  {self.connections} connections at most, {self.transactions} transactions and "
            f"{self.claimed} claims meanwhile; {self.stale} stale rows stored\n  {self.met()}\n"
            f"  {self.came_to()}"
        )


_ALIVE: Final = """
SELECT count(*) FROM worker
 WHERE state = 'active' AND expires_at > outlast.instant() AND started_at > %s
"""
_HELD: Final = """
SELECT count(*), count(DISTINCT e.worker)
  FROM execution AS e JOIN worker AS w ON w.id = e.worker WHERE w.started_at <= %s
"""
_STALE: Final = """
SELECT count(*)
  FROM transition AS lost
  JOIN transition AS late ON late.execution_id = lost.execution_id AND late.seq > lost.seq
 WHERE lost.kind IN ('worker_lost', 'lease_expired') AND late.nonce IS NOT NULL
   AND EXISTS (SELECT 1 FROM transition AS before
                WHERE before.execution_id = lost.execution_id AND before.seq < lost.seq
                  AND before.nonce = late.nonce)
"""
_TRANSACTIONS: Final = """
SELECT sum(xact_commit + xact_rollback)::bigint FROM pg_stat_database
 WHERE datname = current_database()
"""
_CLAIMS: Final = "SELECT count(*) FROM transition WHERE kind = 'claim'"
_CONNECTIONS: Final = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND backend_type = 'client backend'
"""


class Campaign:
    """One campaign, on a server that is there, in a directory that is there."""

    def __init__(self, server: Server, folder: Path, counts: Counts) -> None:
        self.counts = counts
        self.reckoning = Reckoning()
        self._server, self._folder = server, folder

    async def run(self, *, by_pooler: bool) -> None:
        """Kill all, let them come back, and reckon up."""
        counts, load = self.counts, Load(self._server.database(), self._folder)
        async with AsyncExitStack() as stack:
            url = load.direct
            if by_pooler:
                url, which = await stack.enter_async_context(pooled(load.direct, POOLED))
                counts.through = f"through {which} with {POOLED} connections"
            await stack.enter_async_context(load)
            each = counts.engines // counts.processes
            lease = f"{LEASE_SECONDS:g}s"
            workers = [load.plan(url, lease=lease, engines=each, slots=SLOTS)] * counts.processes
            ahead = AHEAD_EACH * counts.engines // 2
            clients = [load.plan(url, ahead=ahead, name=f"h{number}") for number in range(2)]
            connection = await stack.enter_async_context(await connected(load))
            watching = asyncio.create_task(self._watch(load))
            try:
                await load.start(workers, clients)
                await self._round(load, connection, workers)
            finally:
                watching.cancel()
            await load.settle(PATIENCE_SECONDS)
            counts.stale = await ask(connection, _STALE)
        self.reckoning = await load.reckon(counts)

    async def _round(
        self, load: Load, connection: psycopg.AsyncConnection[Any], workers: list[Plan]
    ) -> None:
        counts, now = self.counts, time.time_ns() // 1000

        async def is_busy() -> bool:
            there = await ask(connection, _ALIVE, [0]) == counts.engines
            held = await ask(connection, _HELD, [time.time_ns() // 1000])
            return bool(there and held >= HELD_LEAST * counts.engines)

        await until(is_busy, PATIENCE_SECONDS)
        for one in load.workers:
            one.process.kill()
        began, now = time.monotonic(), time.time_ns() // 1000
        counts.in_flight, counts.holders = await _row(connection, _HELD, [now])
        before = await ask(connection, _TRANSACTIONS), await ask(connection, _CLAIMS)
        for one in load.workers:
            await one.end()
        load.workers[:] = await asyncio.gather(*(Helper.start("worker", one) for one in workers))

        async def are_back() -> bool:
            if not counts.last_s and await ask(connection, _ALIVE, [now]) == counts.engines:
                counts.last_s = round(time.monotonic() - began, 1)
            if not counts.free_s and await ask(connection, _HELD, [now]) == 0:
                counts.free_s = round(time.monotonic() - began, 1)
            return bool(counts.last_s and counts.free_s)

        await until(are_back, PATIENCE_SECONDS)
        after = await ask(connection, _TRANSACTIONS), await ask(connection, _CLAIMS)
        counts.transactions, counts.claimed = after[0] - before[0], after[1] - before[1]
        for one in load.workers:
            await one.heard()

    async def _watch(self, load: Load) -> None:
        """See how many connections there are at most."""
        async with await connected(load) as connection:
            while True:
                with suppress(psycopg.OperationalError):
                    found = await ask(connection, _CONNECTIONS)
                    self.counts.connections = max(self.counts.connections, found)
                await asyncio.sleep(0.1)


async def _row(connection: psycopg.AsyncConnection[Any], text: Any, values: Any) -> Any:
    return await (await connection.execute(text, values)).fetchone()


def main(arguments: list[str] | None = None) -> int:
    """Run a campaign as a command; the exit code is 1 where a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m campaigns.herd", description=__doc__)
    parser.add_argument("--processes", type=int, default=20)
    parser.add_argument("--each", type=int, default=10, help="engines of each process")
    parser.add_argument("--through", choices=("direct", "pooler"), default="direct")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    engines, by_pooler = given.processes * given.each, given.through == "pooler"
    most = USUAL_MAX if by_pooler else CONNECTIONS_EACH * engines + CONNECTIONS_MORE
    counts = Counts(
        engines=engines, processes=given.processes, through="directly", max_connections=most
    )
    with (
        Server(settings={"max_connections": most}) as server,
        tempfile.TemporaryDirectory(prefix="outlast-herd-") as folder,
    ):
        campaign = Campaign(server, Path(folder), counts)
        asyncio.run(campaign.run(by_pooler=by_pooler))
    if counts.stale:
        campaign.reckoning.broken.append(("stale", f"{counts.stale} rows of leases that were over"))
    return told(counts, counts.lines(), campaign.reckoning.broken, as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
