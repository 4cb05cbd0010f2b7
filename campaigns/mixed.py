"""A mixed load on a shared store, by real processes: workers that run it, clients that ask for it.

``python -m campaigns.mixed worker PLAN`` runs executions until SIGTERM. ``… client PLAN`` starts
executions, each under a key of its own, answers their questions, sends them signals and waits for
their results, until its standard input ends and all it has started has ended, too. Both are careful
users: what the store could not confirm is asked for again, under the same key or the same id.

The plan is JSON. Bodies write to the ledger (``ledger``), clients to a file of their own what was
acknowledged to them, after it was. At its end each says on its output, as JSON, what it has seen.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import stat
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

import outlast
from campaigns import ledger, plants
from outlast import Engine, State, step, task
from outlast.engine.control.handle import Execution
from outlast.engine.task.registry import Task
from outlast.engine.write.clock import WallClock
from outlast.errors import (
    AlreadyAnswered,
    NotFound,
    StoreBusy,
    StoreUnavailable,
    TransitionRefused,
)
from outlast.store.postgres.database import PostgresDatabase
from outlast.store.postgres.hints import PostgresHints
from outlast.store.protocol import Answer, Filter, Item

R = TypeVar("R")
AT_ONCE: Final = 4
"""Executions that a client starts together, so that they share a transaction."""
AGAIN_SECONDS: Final = 0.02
LOOK_SECONDS: Final = 0.06


class Plan(msgspec.Struct):
    """What a process is to do.

    Attributes:
        url: the address of the store.
        ledger: the file that bodies write to.
        name: of the client, in its keys.
        acks: where the client notes what was acknowledged to it.
        ahead: how many executions it has open at most.
        task: what the client starts.
        lease: the worker's.
        engines: how many engines a worker's process has.
        plants: planted bugs, see :data:`PLANTS`.
    """

    url: str
    ledger: str
    name: str = ""
    acks: str = ""
    ahead: int = 12
    task: str = "mixed"
    lease: str = "3s"
    slots: int = 200
    engines: int = 1
    plants: list[str] = []


# What is run


def _note() -> str:
    info = outlast.this_step()
    return ledger.began(info.execution_id, info.key, info.attempt, [f"t{time.time_ns() // 1000}"])


@step
async def work(number: int, part: int) -> str:
    """Note that it was done; gives the token of this one time."""
    token = _note()
    if part:
        await asyncio.sleep(0.002 * part)
    ledger.ended(token)
    return token


@step
def work_def(number: int) -> str:
    """The same, in a thread."""
    token = _note()
    ledger.ended(token)
    return token


@task
async def leaf(number: int) -> list[str]:
    """A child."""
    return [await work(number, 0)]


SHAPES: Final = 5


@task
async def mixed(number: int) -> list[str]:
    """Do steps, and one thing more; gives the tokens of all it has learned."""
    tokens = [await work(number, 0)]
    shape = number % SHAPES
    if shape == 1:
        one, other, child = await asyncio.gather(work(number, 1), work(number, 2), leaf(number))
        tokens += [one, other, *child]
    elif shape == 2:
        await outlast.sleep(0.25)  # longer than it lingers: it parks
    elif shape == 3:
        tokens.append(await outlast.ask("which", str))
    elif shape == 4:
        tokens.append(await outlast.wait_for("go", str))
        tokens.append(await work_def.aio(number))
    tokens.append(await work(number, 1))
    return tokens


@step
async def linger(number: int) -> str:
    """Take a while, some of them longer than a lease; notes when it is stopped."""
    token = _note()
    try:
        await asyncio.sleep(4 if number % 4 == 0 else 0.4)
    except asyncio.CancelledError:
        ledger.cut(time.time_ns() // 1000)
        raise
    ledger.ended(token)
    return token


@task
async def busy(number: int) -> list[str]:
    """Write to the log without a pause, and beside it do what takes a while."""
    lingering = asyncio.create_task(linger(number))
    tokens = [await work(number, part % 2) for part in range(30)]
    return [*tokens, await lingering]


TASKS: Final = {task.name: task for task in (mixed, leaf, busy)}


# Who runs it


async def serve(plan: Plan, tasks: Iterable[Task[Any, Any]] = ()) -> dict[str, Any]:
    """Be a worker until SIGTERM, of these tasks or of all here; gives what it has seen."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    known = tuple(tasks) or TASKS.values()
    refused: Counter[str] = Counter()
    engines: list[Engine] = []

    async def open_one() -> None:
        # By this machine's clock, as its rows are compared with what others here say of the time.
        engine = Engine(
            plan.url, tasks=known, lease=plan.lease, slots=plan.slots, clock=WallClock()
        )
        await insist(engine.open)
        watch(engine, refused)
        engines.append(engine)

    await asyncio.gather(*(open_one() for _ in range(plan.engines)))
    say(name=engines[0].name, pid=os.getpid())
    await stop.wait()
    seen: Counter[str] = Counter()
    for engine in engines:
        assert engine.fleet is not None
        seen["taken"] += engine.fleet.taken
        seen["losses"] += engine.fleet.losses
        seen["retries"] += engine.store.server.retries  # type: ignore[attr-defined]
    await asyncio.gather(*(engine.aclose() for engine in engines))
    return {"refused": refused, **seen}


def watch(engine: Engine, seen: Counter[str]) -> None:
    """Count what the engine's store refuses, and the commits of which it cannot tell."""
    server: PostgresDatabase = engine.store.server  # type: ignore[attr-defined]
    plain, transact = engine.store.commit, server._transact

    def commit(batch: Sequence[Item]) -> list[Answer]:
        answers = plain(batch)
        seen.update(one.refused for one in answers if one.refused is not None)
        return answers

    def transacted(act: Callable[[], R]) -> R:
        try:
            return transact(act)
        except StoreUnavailable:
            seen["unknown"] += 1
            raise

    engine.store.commit = commit  # type: ignore[method-assign]
    server._transact = transacted  # type: ignore[method-assign]


def count_listening(seen: Counter[str]) -> None:
    """Count the connections that heard what others say, and were lost."""
    plain = PostgresHints._serve

    def served(self: PostgresHints, connection: Any) -> None:
        try:
            plain(self, connection)
        except Exception:
            seen["listening_lost"] += self.is_listening
            raise

    PostgresHints._serve = served  # type: ignore[method-assign]


async def insist(act: Callable[[], Awaitable[R]]) -> R:
    """Do something until the store confirms it."""
    while True:
        try:
            return await act()
        except (StoreUnavailable, StoreBusy):
            await asyncio.sleep(AGAIN_SECONDS)


def say(**facts: Any) -> None:
    """Tell whoever started this process."""
    print(json.dumps(facts), flush=True)


# Who asks for it


class Client:
    """Starts executions, tends them, and notes what was acknowledged."""

    def __init__(self, plan: Plan, engine: Engine) -> None:
        self._plan = plan
        self._engine = engine
        self._dice = random.Random(plan.name)
        self._acks = os.open(plan.acks, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._open: dict[str, Execution[list[str]]] = {}
        self._number = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_over = False
        self.seen: Counter[str] = Counter()

    def acknowledged(self, what: str, *parts: object) -> None:
        """Note what the engine has acknowledged; one line, written whole."""
        self.seen[what] += 1
        os.write(self._acks, msgspec.json.encode([what, *parts]) + b"\n")

    async def run(self) -> None:
        """Start and tend, until it is over and all has ended."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tend())
            while not self.is_over:
                if len(self._open) + AT_ONCE > self._plan.ahead:
                    await asyncio.sleep(0.01)
                    continue
                numbers = range(self._number, self._number + AT_ONCE)
                self._number += AT_ONCE
                for handle in await asyncio.gather(*map(self._start, numbers)):
                    group.create_task(self._follow(handle))

    async def _start(self, number: int) -> Execution[list[str]]:
        key = f"{self._plan.name}-{number}"
        options = TASKS[self._plan.task].options(key=key)
        handle: Execution[list[str]] = await self._insist(lambda: options.astart(number))
        self.acknowledged("start", key, handle.id, number)
        self._open[handle.id] = handle
        if self._plan.task == "mixed" and number % SHAPES == 4:
            value = self._draw()
            with suppress(NotFound):
                await self._insist(lambda: handle.asignal("go", value, id="go-once"))
            self.acknowledged("signal", handle.id, "go-once", value)
        return handle

    async def _insist(self, act: Callable[[], Awaitable[R]]) -> R:
        while True:
            try:
                return await act()
            except StoreUnavailable:
                self.seen["unknown"] += 1
                await asyncio.sleep(AGAIN_SECONDS)

    def _draw(self) -> str:
        return f"T{self._dice.getrandbits(40):010x}"

    async def _follow(self, handle: Execution[list[str]]) -> None:
        try:
            value = await self._insist(handle.aresult)
        except NotFound:
            self.seen["gone"] += 1  # what was acknowledged is not there: the reckoning will say so
        else:
            self.acknowledged("result", handle.id, value)
        del self._open[handle.id]

    async def _tend(self) -> None:
        """Look again and again for who waits for us."""
        while self._open or not self.is_over:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._answer()
                await self._lift()
            except StoreUnavailable:
                self.seen["unknown"] += 1

    async def _answer(self) -> None:
        page = await self._engine.aquestions(limit=100)
        mine = [one for one in page.items if one.execution_id in self._open]
        for one in mine:
            value = self._draw()
            try:
                await self._open[one.execution_id].aanswer(value, key=one.key)
            except (AlreadyAnswered, NotFound):
                self.seen["answered before"] += 1  # an answer of ours that nobody confirmed
                continue
            self.acknowledged("answer", one.execution_id, one.key, value)

    async def _lift(self) -> None:
        """Resume what too many cuts in a row have suspended."""
        found = await self._engine.read_page(Filter(states=(State.SUSPENDED,), limit=50))
        for record in found:
            if (record.detail or {}).get("code") != "crash_loop":
                raise AssertionError(f"{record.id} is suspended: {record.detail}")
            if record.id in self._open or record.parent_id in self._open:
                try:
                    await self._engine.execution(record.id).aresume()
                except TransitionRefused:
                    continue
                self.seen["lifted"] += 1


async def ask(plan: Plan) -> dict[str, Any]:
    """Be a client until standard input ends; gives what it has seen."""
    engine = Engine(plan.url, tasks=TASKS.values(), slots=0)
    await insist(engine.open)
    client = Client(plan, engine)
    loop = asyncio.get_running_loop()

    def over() -> None:
        if not os.read(0, 100):
            loop.remove_reader(0)
            client.is_over = True

    loop.add_reader(0, over)
    say(pid=os.getpid())
    await client.run()
    await engine.aclose()
    return dict(client.seen)


# Planted bugs


def _unknown_is_stored() -> None:
    """Take a commit whose answer is missing for one that went through."""
    plain = PostgresDatabase._transact

    def transact(self: PostgresDatabase, act: Callable[[], R]) -> R:
        result: list[R] = []

        def kept() -> R:
            result.append(act())
            return result[-1]

        try:
            return plain(self, kept)
        except StoreUnavailable:
            return result[-1]

    PostgresDatabase._transact = transact  # type: ignore[method-assign]


def _key_is_forgotten() -> None:
    """Ask again without the key."""
    plain = Client._insist

    async def insist_otherwise(self: Client, act: Callable[[], Awaitable[R]]) -> R:
        try:
            return await act()
        except StoreUnavailable:
            await insist(lambda: mixed.astart(0))
            return await plain(self, act)

    Client._insist = insist_otherwise  # type: ignore[method-assign]


def _effects_again() -> None:
    """Do again, when an execution is replayed, what its recorded steps did."""
    from outlast.engine.drive.driver import Driver

    plain = Driver.replay

    def replay(self: Driver, rows: Any, unseen: Any) -> None:
        for row in rows:
            if row.kind == "step":
                ledger.began(self.record.id, str(row.key), 9, [f"t{time.time_ns() // 1000}"])
        plain(self, rows, unseen)

    Driver.replay = replay  # type: ignore[method-assign]


PLANTS: Final = {
    "effects_again": ("worker", _effects_again),
    "key_is_forgotten": ("client", _key_is_forgotten),
    "replay_forgets_last_step": ("worker", plants.PLANTS["replay_forgets_last_step"].put_in),
    "unknown_is_stored": ("client", _unknown_is_stored),
}
"""Planted bugs, and who has them."""


def _end_with_the_campaign() -> None:
    """Be there no longer than whoever started this process, whatever ends it."""
    while os.read(0, 100):
        pass
    os._exit(1)


def main(role: str, text: str) -> None:
    """Be a process of the load."""
    if role == "worker" and stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=_end_with_the_campaign, daemon=True).start()
    plan = msgspec.json.decode(text, type=Plan)
    Path(plan.ledger).parent.mkdir(parents=True, exist_ok=True)
    ledger.open_ledger(plan.ledger, os.getpid())
    for plant in plan.plants:
        whose, put_in = PLANTS[plant]
        if whose == role:
            put_in()
    listening: Counter[str] = Counter()
    count_listening(listening)
    seen = asyncio.run({"worker": serve, "client": ask}[role](plan))
    say(**seen, **listening)


if __name__ == "__main__":
    main(*sys.argv[1:])
