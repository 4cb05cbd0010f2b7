"""Cut connections to PostgreSQL, message by message, under load: ``python -m campaigns.cuts``.

Two workers and two clients are processes of their own; all their connections go through a proxy
(``proxy``), which cuts one after the other: before a message, in its middle, after it. Every kind
of message gets its turn, and a share of the cuts falls where nobody can know: a ``COMMIT`` was
sent, and its answer has not come. At the end the network is fair again, everything has to come to
its end, and all is reckoned up (``reckoning``).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from pathlib import Path
from typing import Any, Final, Self

import msgspec
import psycopg

from campaigns.mixed import PLANTS, Plan
from campaigns.proxy import CONNECTING, Chooser, Place, Proxy
from campaigns.reckoning import Reckoning, read_acks, reckon
from outlast.store import open_store
from servers.postgres import Server

ROOT: Final = Path(__file__).resolve().parents[1]
WAIT_SECONDS: Final = 0.3
"""How long a cut waits for its message, before another one is tried."""
GAP_SECONDS: Final = 0.02
"""How long the load goes on between two cuts, on average."""
PATIENCE_SECONDS: Final = 60.0
"""How long everything may take to end, once the network is fair."""


class Counts(msgspec.Struct):
    """What a campaign did.

    Attributes:
        cuts: connections that were cut, by place.
        in_doubt: those at which the client had sent a ``COMMIT`` and had not got its answer.
        withheld: those of them at which the server had not got the ``COMMIT``.
        kinds: kinds of messages that came, as ``> Bind``; all were cut at.
        uncut: those that came and were not cut at.
        unknown: commits whose outcome the processes could not know.
        again: transactions that were run again, as nothing of them was done.
        taken: executions taken over from another incarnation.
        refused: items that the store refused, by why.
        lifted: executions that were resumed after too many cuts in a row.
        rows: rows of the logs, by what happened.
    """

    cuts: dict[str, int] = {}
    in_doubt: int = 0
    withheld: int = 0
    connections: int = 0
    messages: int = 0
    kinds: int = 0
    uncut: list[str] = []
    unknown: int = 0
    again: int = 0
    taken: int = 0
    refused: dict[str, int] = {}
    lifted: int = 0
    acknowledged: int = 0
    executions: int = 0
    recorded: int = 0
    bodies: int = 0
    lost: int = 0
    doubled: int = 0
    repeated: int = 0
    deadlocks: int = 0
    seconds: float = 0.0
    rows: dict[str, int] = {}
    checked: dict[str, int] = {}

    @property
    def total(self) -> int:
        """How many cuts there were."""
        return sum(self.cuts.values())

    def lines(self) -> str:
        """Write what matters most."""
        most = ", ".join(f"{count} {why}" for why, count in sorted(self.refused.items()))
        return (
            f"{self.total} cuts at {len(self.cuts)} places of {self.kinds} kinds of messages, "
            f"{self.in_doubt} between COMMIT and its answer ({self.withheld} before the server had "
            f"it); {self.connections} connections, "
            f"{self.messages} messages; {self.unknown} commits of unknown outcome, {self.again} "
            f"transactions run again, {self.taken} executions taken back, refused: {most or 0}, "
            f"{self.lifted} crash loops lifted\n"
            f"{self.acknowledged} acknowledged writes, {self.lost} lost, {self.executions} "
            f"executions, {self.doubled} doubled, {self.recorded} recorded steps ({self.bodies} "
            f"bodies), {self.repeated} repeated, {self.deadlocks} deadlocks; {self.seconds:.1f} s"
        )


class Helper:
    """A process of the load."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.said: dict[str, Any] = {}

    @classmethod
    async def start(cls, role: str, plan: Plan) -> Self:
        """Start one, and wait until it is there."""
        search = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "campaigns.mixed", role, msgspec.json.encode(plan).decode()),
            stdin=PIPE,
            stdout=PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": search},
        )
        return cls(process)

    async def heard(self) -> dict[str, Any]:
        """Give the next thing it says; nothing where it has died."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        return dict(json.loads(line)) if line else {}

    async def end(self) -> None:
        """End it, whatever it does."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
        await self.process.wait()


class Campaign:
    """One campaign, on a server that is there, in a directory that is there."""

    def __init__(self, server: Server, folder: Path, *, seed: int, plants: list[str]) -> None:
        self.counts = Counts()
        self.reckoning = Reckoning()
        self._server, self._folder = server, folder
        self._seed, self._plants = seed, plants
        self._made: Counter[Place] = Counter()

    async def run(self, cuts: int, share: float, ahead: int) -> None:
        """Cut so often, and reckon up."""
        began = time.monotonic()
        url = self._server.database()
        open_store(url, owner="setup", now=time.time_ns() // 1000).close()
        async with Proxy("127.0.0.1", self._server.port) as proxy:
            plan = Plan(
                proxy.url(url), str(self._folder / "ledger"), ahead=ahead, plants=self._plants
            )
            workers = [await Helper.start("worker", plan) for _ in range(2)]
            clients = [await Helper.start("client", self._of_client(plan, n)) for n in range(2)]
            try:
                for one in (*workers, *clients):
                    await one.heard()
                await self._cut(proxy, cuts, share, [*workers, *clients])
                await settle(workers, clients, PATIENCE_SECONDS)
            finally:
                for one in (*workers, *clients):
                    await one.end()
            self._count(proxy, workers, clients)
        ended = [one.process.returncode == 0 for one in (*workers, *clients)]
        acks = read_acks(sorted(self._folder.glob("acks-*")))
        self.reckoning = await asyncio.to_thread(reckon, url, self._folder / "ledger", acks)
        for is_well in ended:
            self.reckoning.see("alive", is_well, "a process of the load has died; see above")
        self._sum_up(url)
        self.counts.seconds = round(time.monotonic() - began, 1)

    def _of_client(self, plan: Plan, number: int) -> Plan:
        name = f"c{self._seed}-{number}"
        return msgspec.structs.replace(plan, name=name, acks=str(self._folder / f"acks-{name}"))

    async def _cut(self, proxy: Proxy, cuts: int, share: float, helpers: list[Helper]) -> None:
        chooser = Chooser(self._seed, share)
        tried: Counter[Place] = Counter()
        while proxy.counts.cuts.total() < cuts:
            if any(one.process.returncode is not None for one in helpers):
                return
            cut = chooser.next(proxy.kinds, tried)
            tried[cut.place] += 1
            if cut.place.kind not in CONNECTING:  # else it has to be there when one comes back
                await asyncio.sleep(chooser.gap(GAP_SECONDS))
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    await proxy.arm(cut)
            except TimeoutError:
                proxy.disarm()

    def _count(self, proxy: Proxy, workers: list[Helper], clients: list[Helper]) -> None:
        counts = self.counts
        counts.cuts = {str(place): n for place, n in sorted(proxy.counts.cuts.items(), key=str)}
        counts.in_doubt, counts.withheld = proxy.counts.in_doubt, proxy.counts.withheld
        counts.connections, counts.messages = proxy.counts.connections, proxy.counts.messages
        cut_at = {(place.to_server, place.kind) for place in proxy.counts.cuts}
        counts.kinds = len(cut_at)
        counts.uncut = [name for to, name in proxy.kinds if (to, name) not in cut_at]
        refused: Counter[str] = Counter()
        for one in workers:
            refused.update(one.said.get("refused", {}))
            counts.taken += one.said.get("taken", 0)
            counts.again += one.said.get("retries", 0)
        counts.unknown = refused.pop("unknown", 0)
        for one in clients:
            counts.unknown += one.said.get("unknown", 0)
            counts.lifted += one.said.get("lifted", 0)
        counts.refused = dict(refused)

    def _sum_up(self, url: str) -> None:
        counts, found = self.counts, self.reckoning
        counts.acknowledged, counts.executions = found.acknowledged, found.executions
        counts.recorded, counts.bodies = found.recorded, found.bodies
        counts.lost = found.count("acked_start", "acked_message", "acked_result")
        counts.doubled = found.count("doubled")
        counts.repeated = found.count("repeated")
        counts.checked, counts.rows = dict(found.checked), dict(found.kinds)
        counts.deadlocks = deadlocks(url)


async def settle(workers: list[Helper], clients: list[Helper], patience: float) -> None:
    """Let everything come to its end; what does not is found by the reckoning."""
    for one in clients:
        assert one.process.stdin is not None
        one.process.stdin.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience):
            for one in clients:
                one.said = await one.heard()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience):
            for one in workers:
                one.process.send_signal(signal.SIGTERM)
            for one in workers:
                one.said = await one.heard()
            for one in (*workers, *clients):
                await one.process.wait()


def deadlocks(url: str) -> int:
    """Ask the server how often transactions of a database have waited in a circle."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_stat_clear_snapshot()")
        row = connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
    assert row is not None
    return int(row[0])


def main(arguments: list[str] | None = None) -> int:
    """Run a campaign as a command; the exit code is 1 where a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m campaigns.cuts", description=__doc__)
    parser.add_argument("--cuts", type=int, default=500, help="how many cuts")
    parser.add_argument("--seed", type=int, default=1, help="of the places of the cuts")
    parser.add_argument("--share", type=float, default=0.45, help="between COMMIT and its answer")
    parser.add_argument("--ahead", type=int, default=12, help="open executions of each client")
    parser.add_argument("--plant", action="append", choices=sorted(PLANTS), help="a planted bug")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    with Server() as server, tempfile.TemporaryDirectory(prefix="outlast-cuts-") as folder:
        campaign = Campaign(server, Path(folder), seed=given.seed, plants=given.plant or [])
        asyncio.run(campaign.run(given.cuts, given.share, given.ahead))
    broken = campaign.reckoning.broken
    if given.json:
        said = {"counts": msgspec.to_builtins(campaign.counts), "broken": broken}
        print(json.dumps(said))
    else:
        print(campaign.counts.lines())
        for place, count in campaign.counts.cuts.items():
            print(f"  {count:4} {place}")
        for rule, text in broken[:20]:
            print(f"BROKEN {rule}: {text}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
