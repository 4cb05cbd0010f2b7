"""Random programs whose results are known beforehand, whatever dies in between.

A program is a tree of operations made from its seed. :func:`expected` computes its result without
an engine; the tasks below run the same tree with one. Where the time decides what happens (who wins
a race, whether a timeout fires, whether an answer comes before its default), every way adds the
same to the result, but calls other steps: so a replay that goes another way than life did is seen.

Each step is told what its execution has learned so far (see :mod:`campaigns.ledger`), and each
result carries a token that only this one run of its body has.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import outlast
from campaigns import ledger
from campaigns.points import hit
from outlast import Retry, blocking, step, task
from outlast.errors import StepTimeout

_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_LEAVES: Final = (
    "step",
    "step",
    "step",
    "thread",
    "flaky",
    "refused",
    "hasty",
    "keyed",
    "sleep",
    "ask",
    "ask_default",
    "signal",
    "limit",
    "limit_step",
)
_NODES: Final = (
    "chain",
    "chain",
    "gather",
    "group",
    "race",
    "each",
    "finally",
    "manager",
    "stubborn",
    "lock",
    "queue",
    "undo",
)
_DEF_LEAVES: Final = (
    "step",
    "step",
    "step",
    "flaky",
    "refused",
    "sleep",
    "ask",
    "ask_default",
    "signal",
)
_DEF_NODES: Final = ("chain", "finally", "manager", "stubborn", "undo")
_STEADY_LEAVES: Final = (
    "step",
    "step",
    "step",
    "thread",
    "flaky",
    "refused",
    "keyed",
    "sleep",
    "ask",
    "signal",
)
_STEADY_NODES: Final = (
    "chain",
    "gather",
    "gather",
    "group",
    "finally",
    "manager",
    "stubborn",
    "undo",
)
_KINDS: Final = {
    "any": (_LEAVES, _NODES),
    "plain": (_DEF_LEAVES, _DEF_NODES),
    "steady": (_STEADY_LEAVES, _STEADY_NODES),
}
NAP_LONG_US: Final = 260_000
"""A sleep that parks its execution even where the engine would rather linger."""


@dataclass(slots=True)
class Op:
    """One operation of a program; ``number`` is its own and what it adds to the result."""

    kind: str
    number: int
    nap_us: int
    parts: list[Op] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Got:
    """What a body returns."""

    value: int
    token: str


def plan(seed: int, kind_of_plan: str = "any") -> Op:
    """Make the program of a seed.

    A plain one is for ``def`` tasks; a steady one makes the same calls however long things take,
    for tasks that are tried again.
    """
    leaves, nodes = _KINDS[kind_of_plan]
    dice = random.Random(seed)
    numbers = iter(range(1, 1_000))

    def make(depth: int) -> Op:
        node = depth < 3 and (depth == 0 or dice.random() < 0.35)
        kind = dice.choice(nodes if node else leaves)
        long = kind == "sleep" and dice.random() < 0.05
        nap = NAP_LONG_US if long else dice.choice((0, 0, 0, 500, 2_000, 8_000))
        op = Op(kind, next(numbers), nap)
        if node:
            op.parts = [make(depth + 1) for _ in range(dice.randint(2, 4 - min(depth, 1)))]
        return op

    return make(0)


def expected(op: Op) -> int:
    """Compute what a program returns."""
    total = op.number if op.kind in _ADDS else 0
    for part in op.parts:
        total += expected(part)
    return total


_ADDS: Final = frozenset(_LEAVES + _DEF_LEAVES) | {"finally", "undo", "race", "each", "queue"}


def answer_of(execution: str, key: str) -> dict[str, Any]:
    """Give the one answer to a question; the number is in its title."""
    return {"token": f"T{hash_of(execution + key):010x}"}


def signal_of(execution: str, number: int) -> tuple[str, str, dict[str, Any]]:
    """Give a signal's name, its id, and its value."""
    name = f"s{number}"
    return name, f"{name}-once", {"token": f"T{hash_of(execution + name):010x}"}


def hash_of(text: str) -> int:
    """Hash a text to 40 bits, the same in every process."""
    return random.Random(text).getrandbits(40)


def signals_in(op: Op) -> list[int]:
    """Give the numbers of the signals that a program waits for."""
    mine = [op.number] if op.kind == "signal" else []
    return mine + [number for part in op.parts for number in signals_in(part)]


# Bodies


def _begin(witness: list[str]) -> str:
    info = outlast.this_step()
    token = ledger.began(info.execution_id, info.key, info.attempt, witness)
    hit("body.began")
    return token


def _end(number: int, token: str) -> Got:
    ledger.ended(token)
    hit("body.ended")
    return Got(number, token)


async def _nap(nap_us: int) -> None:
    if nap_us:
        await asyncio.sleep(nap_us / 1e6)


class Refused(Exception):
    """What a body raises when it is to fail."""


@step
async def work(number: int, nap_us: int, witness: list[str]) -> Got:
    """Do nothing for a while."""
    token = _begin(witness)
    await _nap(nap_us)
    return _end(number, token)


left = step(name="left")(work.fn)
right = step(name="right")(work.fn)
tidy = step(name="tidy")(work.fn)


@step
def work_def(number: int, nap_us: int, witness: list[str]) -> Got:
    """Do nothing for a while, in a thread."""
    token = _begin(witness)
    if nap_us:
        time.sleep(nap_us / 1e6)
    return _end(number, token)


tidy_def = step(name="tidy_def")(work_def.fn)


@step(retries=Retry(3, base="1ms", cap="3ms"))
async def flaky(number: int, fails: int, witness: list[str]) -> Got:
    """Fail the first attempts."""
    token = _begin(witness)
    if outlast.this_step().attempt <= fails:
        raise Refused(token)
    return _end(number, token)


@step(retries=Retry(3, base="1ms", cap="3ms"))
def flaky_def(number: int, fails: int, witness: list[str]) -> Got:
    """Fail the first attempts."""
    token = _begin(witness)
    if outlast.this_step().attempt <= fails:
        raise Refused(token)
    return _end(number, token)


@step
async def refuse(number: int, nap_us: int, witness: list[str]) -> Got:
    """Fail."""
    token = _begin(witness)
    await _nap(nap_us)
    raise Refused(token)


@step
def refuse_def(number: int, nap_us: int, witness: list[str]) -> Got:
    """Fail, in a thread."""
    raise Refused(_begin(witness))


@step(timeout="4ms")
async def hasty(number: int, nap_us: int, witness: list[str]) -> Got:
    """Sometimes take too long."""
    token = _begin(witness)
    await _nap(nap_us)
    return _end(number, token)


@step
async def moody(number: int, nap_us: int, witness: list[str]) -> Got:
    """Fail at random: the whole task is tried again."""
    token = _begin(witness)
    await _nap(nap_us)
    if random.random() < 0.3:
        raise ConnectionError(token)
    return _end(number, token)


# The tree, run by an engine


class World:
    """What an execution has learned, shared by all its branches."""

    def __init__(self, *, silent: bool = False) -> None:
        self._silent = silent
        self._tokens: list[str] = []
        self.lock = asyncio.Lock()

    def learned(self, got: Got) -> int:
        """Take in a result."""
        self._tokens.append(got.token)
        return got.value

    def heard(self, message: dict[str, Any]) -> None:
        """Take in an answer or a signal."""
        self._tokens.append(message["token"])

    def failed(self, error: BaseException) -> None:
        """Take in an error."""
        if isinstance(error, Refused):
            self._tokens.append(str(error.args[0]))

    def witness(self) -> list[str]:
        """Say what everything from here on may depend on.

        In a task that is tried again arguments must stay the same, so that results are reused.
        """
        if self._silent:
            return []
        micros = (outlast.now() - _EPOCH) // timedelta(microseconds=1)
        dice = f"r{outlast.random().getrandbits(20)}"
        return [f"n{micros}", dice, *self._tokens[-8:]]


@asynccontextmanager
async def _managed(op: Op, world: World) -> AsyncIterator[None]:
    got = await work(op.number, op.nap_us, world.witness())
    world.learned(got)
    try:
        yield
    finally:
        world.learned(await tidy(op.number, 0, world.witness()))


async def run_op(op: Op, world: World) -> int:
    """Run one operation; gives what it adds."""
    kind, number, nap = op.kind, op.number, op.nap_us
    if kind in _SIMPLE:
        return await _run_leaf(op, world)
    if kind == "chain":
        return sum([await run_op(part, world) for part in op.parts])
    if kind == "gather":
        return sum(await asyncio.gather(*(run_op(part, world) for part in op.parts)))
    if kind == "group":
        async with asyncio.TaskGroup() as group:
            branches = [group.create_task(run_op(part, world)) for part in op.parts]
        return sum(branch.result() for branch in branches)
    if kind == "race":
        return await _race(op, world)
    if kind == "each":
        return await _each(op, world)
    if kind == "queue":
        return await _queue(op, world)
    if kind == "lock":
        return sum(await asyncio.gather(*(_locked(part, world) for part in op.parts)))
    if kind == "finally":
        try:
            return sum([await run_op(part, world) for part in op.parts]) + number
        finally:
            world.learned(await tidy(number, nap, world.witness()))
    if kind == "undo":
        try:
            return sum([await run_op(part, world) for part in op.parts]) + number
        except BaseException:
            world.learned(await tidy(number, 0, world.witness()))
            raise
    if kind == "manager":
        async with _managed(op, world):
            return sum([await run_op(part, world) for part in op.parts])
    assert kind == "stubborn", kind
    return sum([await _stubborn(part, world) for part in op.parts])


_SIMPLE: Final = frozenset(_LEAVES)


async def _run_leaf(op: Op, world: World) -> int:
    kind, number, nap = op.kind, op.number, op.nap_us
    if kind == "step":
        return world.learned(await work(number, nap, world.witness()))
    if kind == "thread":
        return world.learned(await work_def.aio(number, nap, world.witness()))
    if kind == "keyed":
        return world.learned(await work.key(f"k{number}")(number, nap, world.witness()))
    if kind == "flaky":
        return world.learned(await flaky(number, number % 3, world.witness()))
    if kind == "refused":
        try:
            await refuse(number, nap, world.witness())
        except Refused as error:
            world.failed(error)
    elif kind == "hasty":
        try:
            world.learned(await hasty(number, nap, world.witness()))
        except StepTimeout:
            world.learned(await left(number, 0, world.witness()))
    elif kind == "sleep":
        await outlast.sleep(nap / 1e6)
    elif kind == "ask":
        world.heard(await outlast.ask(f"q{number}", dict[str, str]))
    elif kind == "ask_default":
        got = await outlast.ask(f"q{number}", dict[str, str], timeout="15ms", default={"token": ""})
        if got["token"]:
            world.heard(got)
            world.learned(await right(number, 0, world.witness()))
    elif kind == "signal":
        world.heard(await outlast.wait_for(f"s{number}", dict[str, str]))
    elif kind == "limit":
        try:
            async with asyncio.timeout(0.004):
                await outlast.sleep(nap / 1e6)
        except TimeoutError:
            world.learned(await left(number, 0, world.witness()))
    elif kind == "limit_step":
        try:
            async with asyncio.timeout(0.004):
                world.learned(await work(number, nap, world.witness()))
        except TimeoutError:
            world.learned(await left(number, 0, world.witness()))
    return number


async def _race(op: Op, world: World) -> int:
    """Go on with whoever came first, and end the other."""
    total = sum([await run_op(part, world) for part in op.parts])
    one = asyncio.create_task(left(op.number, op.nap_us, world.witness()))
    other = asyncio.create_task(right(op.number, 1_000, world.witness()))
    done, pending = await asyncio.wait({one, other}, return_when=asyncio.FIRST_COMPLETED)
    for branch in pending:
        branch.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    winner = one if one in done else other
    world.learned(winner.result())
    again = left if winner is one else right
    return total + world.learned(await again(op.number, 0, world.witness()))


async def _each(op: Op, world: World) -> int:
    """Do a step for each branch in the order in which they end."""
    branches = [asyncio.create_task(run_op(part, world)) for part in op.parts]
    total = 0
    for branch in asyncio.as_completed(branches):
        value = await branch
        total += value
        world.learned(await work(value, 0, world.witness()))
    return total + op.number


async def _queue(op: Op, world: World) -> int:
    """One branch makes, another takes."""
    queue: asyncio.Queue[int | None] = asyncio.Queue(1)

    async def make() -> None:
        for part in op.parts:
            await queue.put(await run_op(part, world))
        await queue.put(None)

    async def take() -> int:
        total = 0
        while (value := await queue.get()) is not None:
            total += value
            world.learned(await work(value, 0, world.witness()))
        return total

    _, total = await asyncio.gather(make(), take())
    return total + op.number


async def _locked(op: Op, world: World) -> int:
    async with world.lock if op.kind in _SIMPLE else asyncio.Lock():
        return await run_op(op, world)


async def _stubborn(op: Op, world: World) -> int:
    """Catch everything a few times: clean-up code that does not know what a park is."""
    for _ in range(3):
        try:
            return await run_op(op, world)
        except BaseException as error:  # noqa: BLE001 - that is the point
            kept = error
    raise kept


@task
async def program(seed: int) -> int:
    """Run the program of a seed."""
    return await run_op(plan(seed), World())


@task(retries=Retry(200, base="1ms", cap="2ms"))
async def restless(seed: int) -> int:
    """Run the program of a seed; a step that fails at random has it tried again as a whole."""
    world = World(silent=True)
    total = await run_op(plan(seed, "steady"), world)
    world.learned(await moody(seed, 500, world.witness()))
    return total


@task
async def cancelled(seed: int) -> int:
    """Run the program of a seed, and clean up durably when it is cancelled."""
    world = World()
    try:
        return await run_op(plan(seed), world)
    except asyncio.CancelledError:
        world.learned(await tidy(seed, 1_000, world.witness()))
        raise


# The same for def tasks


@contextmanager
def _managed_def(op: Op, world: World) -> Iterator[None]:
    world.learned(work_def(op.number, op.nap_us, world.witness()))
    try:
        yield
    finally:
        world.learned(tidy_def(op.number, 0, world.witness()))


def run_op_def(op: Op, world: World) -> int:
    """Run one operation of a ``def`` task; gives what it adds."""
    kind, number = op.kind, op.number
    if kind in _SIMPLE:
        return _run_leaf_def(op, world)
    if kind == "chain":
        return sum([run_op_def(part, world) for part in op.parts])
    if kind == "finally":
        try:
            return sum([run_op_def(part, world) for part in op.parts]) + number
        finally:
            world.learned(tidy_def(number, op.nap_us, world.witness()))
    if kind == "undo":
        try:
            return sum([run_op_def(part, world) for part in op.parts]) + number
        except BaseException:
            world.learned(tidy_def(number, 0, world.witness()))
            raise
    if kind == "manager":
        with _managed_def(op, world):
            return sum([run_op_def(part, world) for part in op.parts])
    assert kind == "stubborn", kind
    return sum([_stubborn_def(part, world) for part in op.parts])


def _stubborn_def(op: Op, world: World) -> int:
    for _ in range(3):
        try:
            return run_op_def(op, world)
        except BaseException as error:  # noqa: BLE001 - that is the point
            kept = error
    raise kept


def _run_leaf_def(op: Op, world: World) -> int:
    kind, number, nap = op.kind, op.number, op.nap_us
    if kind == "step":
        return world.learned(work_def(number, nap, world.witness()))
    if kind == "flaky":
        return world.learned(flaky_def(number, number % 3, world.witness()))
    if kind == "refused":
        try:
            refuse_def(number, nap, world.witness())
        except Refused as error:
            world.failed(error)
    elif kind == "sleep":
        blocking.sleep(nap / 1e6)
    elif kind == "ask":
        world.heard(blocking.ask(f"q{number}", dict[str, str]))
    elif kind == "ask_default":
        got = blocking.ask(f"q{number}", dict[str, str], timeout="15ms", default={"token": ""})
        if got["token"]:
            world.heard(got)
            world.learned(tidy_def(number, 0, world.witness()))
    elif kind == "signal":
        world.heard(blocking.wait_for(f"s{number}", dict[str, str]))
    return number


@task
def program_def(seed: int) -> int:
    """Run the plain program of a seed."""
    return run_op_def(plan(seed, "plain"), World())


TASKS: Final = {
    "program": program,
    "restless": restless,
    "cancelled": cancelled,
    "program_def": program_def,
}
"""The tasks by name. ``cancelled`` is the only one that anybody cancels."""


def plan_of(task_name: str, seed: int) -> Op:
    """Give the program that an execution of a task runs."""
    return plan(seed, {"program_def": "plain", "restless": "steady"}.get(task_name, "any"))
