"""The load of a campaign on a shared store: its processes, and what they and the database come to.

Workers and clients (``mixed``) are processes of their own. A campaign starts them, does to them and
to the server what it is for, lets everything come to its end, and has all reckoned up
(``reckoning``). What every such campaign counts is a :class:`Tally`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import msgspec
import psycopg

from campaigns.mixed import Plan
from campaigns.reckoning import Reckoning, read_acks, reckon
from outlast.store import open_store

T = TypeVar("T")
ROOT: Final = Path(__file__).resolve().parents[1]
PATIENCE_SECONDS: Final = 60.0
"""How long everything may take to end, once nothing is done to it any more."""


class Tally(msgspec.Struct):
    """What every campaign counts.

    Attributes:
        unknown: commits whose outcome the processes could not know.
        again: transactions that were run again, as nothing of them was done.
        taken: executions taken over from another incarnation.
        losses: leases that were lost.
        refused: items that the store refused, by why.
        lifted: executions that were resumed after too many faults in a row.
        listening_lost: connections that heard hints, and ended.
        rows: rows of the logs, by what happened.
        checked: how often each rule was applied.
    """

    unknown: int = 0
    again: int = 0
    taken: int = 0
    losses: int = 0
    refused: dict[str, int] = {}
    lifted: int = 0
    listening_lost: int = 0
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

    def hear(self, workers: Sequence[Helper], clients: Sequence[Helper]) -> None:
        """Take in what the processes have said at their end."""
        refused: Counter[str] = Counter()
        for one in workers:
            refused.update(one.said.get("refused", {}))
            self.taken += one.said.get("taken", 0)
            self.losses += one.said.get("losses", 0)
            self.again += one.said.get("retries", 0)
        self.unknown += refused.pop("unknown", 0)
        for one in clients:
            self.unknown += one.said.get("unknown", 0)
            self.lifted += one.said.get("lifted", 0)
        for one in (*workers, *clients):
            self.listening_lost += one.said.get("listening_lost", 0)
        self.refused = dict(refused)

    def take(self, found: Reckoning) -> None:
        """Take in what was found in the database."""
        self.acknowledged, self.executions = found.acknowledged, found.executions
        self.recorded, self.bodies = found.recorded, found.bodies
        self.lost = found.count("acked_start", "acked_message", "acked_result")
        self.doubled, self.repeated = found.count("doubled"), found.count("repeated")
        self.checked, self.rows = dict(found.checked), dict(found.kinds)

    def came_to(self) -> str:
        """Write what all of it came to."""
        return (
            f"{self.acknowledged} acknowledged writes, {self.lost} lost, {self.executions} "
            f"executions, {self.doubled} doubled, {self.recorded} recorded steps ({self.bodies} "
            f"bodies), {self.repeated} repeated, {self.deadlocks} deadlocks; {self.seconds:.1f} s"
        )

    def met(self) -> str:
        """Write what the processes met."""
        refused = ", ".join(f"{count} {why}" for why, count in sorted(self.refused.items()))
        return (
            f"{self.unknown} commits of unknown outcome, {self.again} transactions run again, "
            f"{self.losses} leases lost, {self.taken} executions taken back, refused: "
            f"{refused or 'none'}, {self.lifted} crash loops lifted"
        )


class Helper:
    """A process of the load."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.said: dict[str, Any] = {}

    @classmethod
    async def start(cls, role: str, plan: Plan) -> Self:
        """Start one; it is there when it has said something."""
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


class Load:
    """Workers and clients on a store of their own.

    Attributes:
        direct: the address of the store on the server itself.
        ledger: where bodies say that they have begun.
        workers, clients: the processes.
        greetings: what each worker said when it was there.
    """

    def __init__(self, direct: str, folder: Path) -> None:
        self.direct, self.folder, self.ledger = direct, folder, folder / "ledger"
        self.workers: list[Helper] = []
        self.clients: list[Helper] = []
        self.greetings: list[dict[str, Any]] = []
        self._began = time.monotonic()
        open_store(direct, owner="setup", now=time.time_ns() // 1000).close()

    def plan(self, url: str, **more: Any) -> Plan:
        """Say what a process is to do."""
        return Plan(url, str(self.ledger), **more)

    async def start(self, workers: Sequence[Plan], clients: Sequence[Plan]) -> None:
        """Start all, and wait until they are there."""
        for plan in workers:
            self.workers.append(await Helper.start("worker", plan))
        for plan in clients:
            acks = str(self.folder / f"acks-{plan.name}")
            asked = msgspec.structs.replace(plan, acks=acks)
            self.clients.append(await Helper.start("client", asked))
        self.greetings = [await one.heard() for one in self.workers]
        for one in self.clients:
            await one.heard()

    @property
    def helpers(self) -> list[Helper]:
        """All processes."""
        return [*self.workers, *self.clients]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for one in self.helpers:
            await one.end()

    async def settle(self, patience: float = PATIENCE_SECONDS) -> None:
        """Let everything come to its end; what does not is found by the reckoning."""
        await settle(self.workers, self.clients, patience)

    async def reckon(self, tally: Tally) -> Reckoning:
        """Reckon up, once all have ended; the tally gets what it all came to."""
        tally.hear(self.workers, self.clients)
        acks = read_acks(sorted(self.folder.glob("acks-*")))
        found = await asyncio.to_thread(reckon, self.direct, self.ledger, acks)
        for one in self.helpers:
            is_well = one.process.returncode == 0
            found.see("alive", is_well, "a process of the load has died; see above")
        tally.take(found)
        tally.deadlocks += deadlocks(self.direct)
        tally.seconds = round(time.monotonic() - self._began, 1)
        return found


async def settle(
    workers: Sequence[Helper], clients: Sequence[Helper], patience: float = PATIENCE_SECONDS
) -> None:
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


async def until(condition: Callable[[], Awaitable[T]], patience: float = PATIENCE_SECONDS) -> T:
    """Wait until a condition holds, and give what it gave."""
    async with asyncio.timeout(patience):
        while not (found := await condition()):
            await asyncio.sleep(0.01)
        return found


def deadlocks(url: str) -> int:
    """Ask the server how often transactions of a database have waited in a circle."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_stat_clear_snapshot()")
        row = connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
    assert row is not None
    return int(row[0])


def told(counts: Tally, text: str, broken: Sequence[tuple[str, str]], *, as_json: bool) -> int:
    """Print what a campaign came to; gives the exit code: 1 where a rule was broken."""
    if as_json:
        print(json.dumps({"counts": msgspec.to_builtins(counts), "broken": broken}))
    else:
        print(text)
        for rule, said in broken[:20]:
            print(f"BROKEN {rule}: {said}", file=sys.stderr)
    return 1 if broken else 0


__all__ = [
    "PATIENCE_SECONDS",
    "Helper",
    "Load",
    "Tally",
    "deadlocks",
    "settle",
    "told",
    "until",
]
