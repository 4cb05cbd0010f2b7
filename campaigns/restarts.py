"""Restart what others stand on, under load: ``python -m campaigns.restarts``.

Two workers and two clients are processes of their own; one of each comes to PostgreSQL through a
proxy that hears every message, the other through a pooler in transaction mode (PgBouncer where it
is there, else our own). In each round something ends while they work, and comes back:

``fast``       the server is told to stop (SIGINT): what is open is rolled back, sessions are ended
``immediate``  it is told to crash (SIGQUIT), and recovers from its log
``kill``       its postmaster is killed (SIGKILL); what it has left notices by itself
``workers``    all workers are killed at once, and as many are started at once: with ``--engines
               100`` two hundred

Nobody is told. Each round says how long it was until work went on; at the end everything has to
come to its end, and all is reckoned up (``reckoning``).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGQUIT, Signals
from typing import Any, Final

import msgspec
import psycopg

from campaigns.load import Helper, Load, Tally, deadlocks, told, until
from campaigns.mixed import Plan
from campaigns.pooler import Pooler, through
from campaigns.proxy import Proxy
from campaigns.reckoning import Reckoning
from servers.pgbouncer import Bouncer, pgbouncer, version_of
from servers.postgres import Server

HOWS: Final[dict[str, Signals]] = {"fast": SIGINT, "immediate": SIGQUIT, "kill": SIGKILL}
WORKERS: Final = "workers"
LEASE_SECONDS: Final = 3.0
HOLDS_LEAST: Final = 4
"""Executions that must be under way, for a restart to be worth anything."""
ROWS_BETWEEN: Final = 150
"""Rows that are written between two rounds."""
POOL: Final = 12
"""Connections that a pooler has to the server: fewer than it has clients."""


class Round(msgspec.Struct):
    """What one round came to.

    Attributes:
        how: what was done.
        in_flight: executions that somebody had a lease on.
        down_s: from the signal until the server took connections again, or the new workers were
            there.
        first_s: from then until the first row was written.
        all_s: from then until every worker's process had written one.
    """

    how: str
    in_flight: int = 0
    down_s: float = 0.0
    first_s: float = 0.0
    all_s: float = 0.0


class Counts(Tally):
    """What a campaign did.

    Attributes:
        rounds: one by one.
        engines: how many engines ran at once.
        pooler: which one was used.
        connections: that came through the proxy.
    """

    rounds: list[Round] = msgspec.field(default_factory=list)
    engines: int = 0
    pooler: str = ""
    connections: int = 0

    def lines(self) -> str:
        """Write what matters most."""
        rounds = "\n".join(
            f"  {one.how}: {one.in_flight} executions under way, back after {one.down_s:.2f} s, "
            f"the first row {one.first_s:.2f} s after that, all at work {one.all_s:.2f} s"
            for one in self.rounds
        )
        return (
            f"{len(self.rounds)} restarts under {self.engines} engines, half of them through "
            f"{self.pooler}, lease {LEASE_SECONDS:g} s\n{rounds}\n  {self.met()}; "
            f"{self.listening_lost} times nobody heard the hints of others\n  {self.came_to()}"
        )


class Campaign:
    """One campaign, on a server that is there, in a directory that is there."""

    def __init__(self, server: Server, folder: Path, engines: int) -> None:
        self.counts = Counts(engines=2 * engines)
        self.reckoning = Reckoning()
        self._server, self._folder, self._engines = server, folder, engines
        self._deadlocks = 0

    async def run(self, hows: Sequence[str], ahead: int) -> None:
        """Do these one after the other, and reckon up."""
        load = Load(self._server.database(), self._folder)
        async with AsyncExitStack() as stack:
            proxy = await stack.enter_async_context(Proxy("127.0.0.1", self._server.port))
            between, self.counts.pooler = await stack.enter_async_context(pooled(load.direct, POOL))
            await stack.enter_async_context(load)
            urls = [proxy.url(load.direct), between]
            lease = f"{LEASE_SECONDS:g}s"
            workers = [load.plan(url, lease=lease, engines=self._engines) for url in urls]
            clients = [
                load.plan(url, ahead=ahead, name=f"r{number}") for number, url in enumerate(urls)
            ]
            await load.start(workers, clients)
            for how in hows:
                await self._round(load, how, workers)
            self.counts.connections = proxy.counts.connections
            await load.settle()
        self.counts.deadlocks -= self._deadlocks
        self.reckoning = await load.reckon(self.counts)

    async def _round(self, load: Load, how: str, workers: Sequence[Plan]) -> None:
        async with await connected(load) as connection:
            written = await _rows(connection)

            async def is_busy() -> int:
                enough = await _rows(connection) >= written + ROWS_BETWEEN
                leased = await ask(
                    connection, "SELECT count(*) FROM execution WHERE nonce IS NOT NULL"
                )
                return leased if enough and leased >= HOLDS_LEAST else 0

            one = Round(how, await until(is_busy))
        self.counts.rounds.append(one)
        began = time.monotonic()
        if how == WORKERS:
            await self._replace(load, workers)
        else:
            await self._restart(load, HOWS[how])
        ready, ready_us = time.monotonic(), time.time_ns() // 1000
        one.down_s = round(ready - began, 2)
        async with await connected(load) as connection:
            written = await _rows(connection)

            async def is_on() -> bool:
                return await _rows(connection) > written

            await until(is_on)
            one.first_s = round(time.monotonic() - ready, 2)
            pids = sorted(int(said["pid"]) for said in load.greetings)

            async def are_all_on() -> bool:
                return bool(pids == await ask(connection, _AT_WORK, [ready_us]))

            await until(are_all_on)
            one.all_s = round(time.monotonic() - ready, 2)

    async def _restart(self, load: Load, how: Signals) -> None:
        """Restart the server; its statistics may be gone afterwards."""
        self.counts.deadlocks += await asyncio.to_thread(deadlocks, load.direct) - self._deadlocks
        await asyncio.to_thread(self._server.stop, how)
        await asyncio.to_thread(self._server.start)
        self._deadlocks = await asyncio.to_thread(deadlocks, load.direct)

    async def _replace(self, load: Load, workers: Sequence[Plan]) -> None:
        """Kill all workers at once, and start as many."""
        for one in load.workers:
            one.process.kill()
        for one in load.workers:
            await one.end()
        load.workers[:] = [await Helper.start("worker", plan) for plan in workers]
        load.greetings = [await one.heard() for one in load.workers]


_AT_WORK: Final = """
SELECT coalesce(array_agg(DISTINCT w.pid ORDER BY w.pid), '{}')
  FROM execution AS e JOIN worker AS w ON w.id = e.worker WHERE e.updated_at > %s
"""


async def connected(load: Load) -> psycopg.AsyncConnection[Any]:
    """Look at the store itself."""
    return await psycopg.AsyncConnection.connect(
        load.direct, autocommit=True, options="-c search_path=outlast"
    )


async def _rows(connection: psycopg.AsyncConnection[Any]) -> int:
    return int(await ask(connection, "SELECT count(*) FROM transition"))


async def ask(connection: psycopg.AsyncConnection[Any], text: Any, values: Any = ()) -> Any:
    """Ask for one value."""
    row = await (await connection.execute(text, values)).fetchone()
    assert row is not None
    return row[0]


@asynccontextmanager
async def pooled(direct: str, size: int) -> AsyncIterator[tuple[str, str]]:
    """Give the address through a pooler, and which one it is."""
    program = pgbouncer()
    if program is not None:
        with Bouncer(program, direct, size) as bouncer:
            yield through(direct, bouncer.port), f"PgBouncer {version_of(program)}"
        return
    pooler = await Pooler(direct, size).open()
    try:
        yield through(direct, pooler.port), "our own pooler"
    finally:
        await pooler.close()


def main(arguments: list[str] | None = None) -> int:
    """Run a campaign as a command; the exit code is 1 where a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m campaigns.restarts", description=__doc__)
    parser.add_argument("hows", nargs="*", help=f"{', '.join((*HOWS, WORKERS))}; each once if none")
    parser.add_argument("--times", type=int, default=1, help="how often all of them")
    parser.add_argument("--engines", type=int, default=1, help="engines of each of two processes")
    parser.add_argument("--ahead", type=int, default=24, help="open executions of each client")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    hows = (given.hows or [*HOWS, WORKERS]) * given.times
    unknown = [how for how in hows if how not in HOWS and how != WORKERS]
    if unknown:
        parser.error(f"nothing is restarted by {unknown[0]}")
    with (
        Server(settings={"max_connections": 200 + 8 * given.engines}) as server,
        tempfile.TemporaryDirectory(prefix="outlast-restarts-") as folder,
    ):
        campaign = Campaign(server, Path(folder), given.engines)
        asyncio.run(campaign.run(hows, given.ahead))
    counts = campaign.counts
    return told(counts, counts.lines(), campaign.reckoning.broken, as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
