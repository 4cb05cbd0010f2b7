"""What task code can do in a simulation: one class each.

To add an action, write one class here: a frozen dataclass deriving from :class:`Action`, with
``run`` for ``async def`` tasks, ``run_def`` for ``def`` ones if there is such a thing, and
``needs`` if somebody outside must do something for it. It adds its number to the result, whichever
way time takes it: so the result of a program is known beforehand. Tokens show whose it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import ClassVar, Final

import outlast
from outlast import Retry, blocking, step, task
from outlast.errors import StepTimeout, WaitTimeout

TOKEN: Final = "T"
STREAM: Final = "said"
Witness = list[str]


class Refused(Exception):
    """What a body raises when it is to fail."""


class _Stage:
    """Who hears that a body begins; the simulation puts itself here."""

    began: Callable[[str, str, int, Witness], str]


stage: Final = _Stage()


def _begin(witness: Witness) -> str:
    info = outlast.this_step()
    return stage.began(info.execution_id, info.key, info.attempt, witness)


async def _nap(nap_us: int) -> None:
    if nap_us:
        await asyncio.sleep(nap_us / 1e6)


# Steps. Each gives, or raises, a token that only this one run of its body has.


@step(name="sim_work")
async def work(nap_us: int, witness: Witness) -> str:
    """Do something that takes a while."""
    token = _begin(witness)
    await _nap(nap_us)
    return token


PRICE: Final = 1
"""What :func:`pay` costs, in usd."""


@step(name="sim_pay", cost={"usd": PRICE})
async def pay(nap_us: int, witness: Witness) -> str:
    """Do something that costs something."""
    token = _begin(witness)
    await _nap(nap_us)
    return token


@step(name="sim_talk")
async def talk(words: int, witness: Witness) -> str:
    """Say something while it runs."""
    token = _begin(witness)
    for number in range(words):
        await outlast.stream(STREAM, [token, number + 1, words])
    return token


@step(name="sim_other")
async def other(nap_us: int, witness: Witness) -> str:
    """Do something else."""
    token = _begin(witness)
    await _nap(nap_us)
    return token


@step(name="sim_tidy")
async def tidy(nap_us: int, witness: Witness) -> str:
    """Clean up."""
    token = _begin(witness)
    await _nap(nap_us)
    return token


@step(name="sim_refuse")
async def refuse(nap_us: int, witness: Witness) -> str:
    """Fail."""
    token = _begin(witness)
    await _nap(nap_us)
    raise Refused(token)


FLAKY_RETRIES: Final = 3


@step(name="sim_flaky", retries=Retry(FLAKY_RETRIES, base="1ms", cap="2s", factor=20))
async def flaky(fails: int, nap_us: int, witness: Witness) -> str:
    """Fail the first attempts."""
    token = _begin(witness)
    await _nap(nap_us)
    if outlast.this_step().attempt <= fails:
        raise Refused(token)
    return token


@step(name="sim_hasty", timeout="20ms")
async def hasty(nap_us: int, witness: Witness) -> str:
    """Sometimes take too long."""
    token = _begin(witness)
    await _nap(nap_us)
    return token


@step(name="sim_work_def")
def work_def(witness: Witness) -> str:
    """Do something in a thread."""
    return _begin(witness)


@step(name="sim_tidy_def")
def tidy_def(witness: Witness) -> str:
    """Clean up in a thread."""
    return _begin(witness)


@step(name="sim_refuse_def")
def refuse_def(witness: Witness) -> str:
    """Fail in a thread."""
    raise Refused(_begin(witness))


@step(name="sim_flaky_def", retries=Retry(FLAKY_RETRIES, base="1ms", cap="2s", factor=20))
def flaky_def(fails: int, witness: Witness) -> str:
    """Fail the first attempts, in a thread."""
    token = _begin(witness)
    if outlast.this_step().attempt <= fails:
        raise Refused(token)
    return token


@dataclass
class Came:
    """What a program returns: what it adds up to, and every token it has learned."""

    total: int
    tokens: list[str] = field(default_factory=list)


def little_needs(seed: int) -> tuple[Need, ...]:
    """Give what somebody outside must do for a child."""
    return (Need("signal", "s0"),) if seed % 4 == 1 else ()


@task(name="sim_little")
async def little(seed: int) -> Came:
    """Do a little, as a child of another execution."""
    token = await work(0, [])
    if seed % 3 == 0:
        await outlast.sleep(0.3)
    for need in little_needs(seed):
        await outlast.wait_for(need.name, str)
    return Came(seed, [token])


CHAIN_MAX: Final = 2
"""How often :func:`goes_on` goes on as a new execution."""


def chain_needs(seed: int) -> tuple[Need, ...]:
    """Give what somebody outside must do for a chain; each of them waits for its own."""
    return tuple(Need("signal", f"s{left}") for left in range(CHAIN_MAX, -1, -1) if seed % 2 == 0)


@task(name="sim_goes_on")
async def goes_on(seed: int, left: int = CHAIN_MAX, tokens: tuple[str, ...] = ()) -> Came:
    """Do a little, and go on as a new execution."""
    token = await work(0, list(tokens))
    if seed % 2 == 0:
        came = await outlast.wait_for(f"s{left}", str)
        tokens = (*tokens, came)
    if seed % 3 == 0:
        await outlast.sleep(0.02)
    if left:
        goes_on.continue_as_new(seed, left - 1, (*tokens, token))
    return Came(seed, [*tokens, token])


STEP_RETRIES: Final = {"sim_flaky": FLAKY_RETRIES, "sim_flaky_def": FLAKY_RETRIES}
"""How often each step may be tried again."""


# The code of one execution


class Life:
    """What an execution has learned, shared by all its branches.

    In a task that is tried again the arguments of steps must stay the same, so that results are
    used again: it is ``silent``.
    """

    def __init__(self, *, silent: bool = False) -> None:
        self.silent = silent
        self.tokens: list[str] = []
        self.lock = asyncio.Lock()

    def learned(self, token: str) -> None:
        """Take in what a step gave."""
        self.tokens.append(token)

    def failed(self, error: BaseException) -> None:
        """Take in what a step raised."""
        if isinstance(error, Refused):
            self.tokens.append(str(error.args[0]))

    def witness(self) -> Witness:
        """Say what everything from here on may depend on."""
        if self.silent:
            return []
        at = round(outlast.now().timestamp() * 1e6)
        return [f"n{at}", f"r{outlast.random().getrandbits(20)}", *self.tokens[-6:]]


@dataclass(frozen=True)
class Need:
    """What somebody outside must do for an execution: ``signal`` by name, ``answer`` by title."""

    kind: str
    name: str


@dataclass(frozen=True)
class Action:
    """One thing that task code does.

    Attributes:
        number: its own, and what it adds to the result.
        nap_us: how long what it does takes.
        parts: the actions inside of it.
    """

    number: int
    nap_us: int
    parts: tuple[Action, ...] = ()

    weight: ClassVar[int] = 1
    is_node: ClassVar[bool] = False
    is_steady: ClassVar[bool] = True
    """Whether it makes the same calls however long things take."""
    adds: ClassVar[bool] = True

    async def run(self, life: Life) -> int:
        """Do it in an ``async def`` task; gives what it adds."""
        raise NotImplementedError

    def run_def(self, life: Life) -> int:
        """Do it in a ``def`` task."""
        raise NotImplementedError

    @property
    def needs(self) -> tuple[Need, ...]:
        """What somebody outside must do for it."""
        return ()

    @property
    def body_us(self) -> int:
        """How long a body takes: seconds at most."""
        return min(self.nap_us, 2_500_000)

    def total(self) -> int:
        """Give what it must add."""
        return (self.number if self.adds else 0) + sum(part.total() for part in self.parts)

    def walk(self) -> Iterator[Action]:
        """Give it and all inside of it."""
        yield self
        for part in self.parts:
            yield from part.walk()


class Work(Action):
    """A step."""

    weight = 4

    async def run(self, life: Life) -> int:
        life.learned(await work(self.body_us, life.witness()))
        return self.number

    def run_def(self, life: Life) -> int:
        life.learned(work_def(life.witness()))
        return self.number


class ThreadWork(Action):
    """A ``def`` step in an ``async def`` task."""

    weight = 2

    async def run(self, life: Life) -> int:
        life.learned(await work_def.aio(life.witness()))
        return self.number


class Keyed(Action):
    """A step with a key of its own."""

    async def run(self, life: Life) -> int:
        life.learned(await work.key(f"k{self.number}")(self.body_us, life.witness()))
        return self.number


class Flaky(Action):
    """A step that fails at first."""

    weight = 3

    async def run(self, life: Life) -> int:
        life.learned(await flaky(self.number % 3, self.body_us // 4, life.witness()))
        return self.number

    def run_def(self, life: Life) -> int:
        life.learned(flaky_def(self.number % 3, life.witness()))
        return self.number


class Hopeless(Action):
    """A step that fails more often than it may."""

    async def run(self, life: Life) -> int:
        try:
            await flaky(FLAKY_RETRIES + 1, 0, life.witness())
        except Refused as error:
            life.failed(error)
        return self.number


class Fails(Action):
    """A step that fails, and is caught."""

    async def run(self, life: Life) -> int:
        try:
            await refuse(self.body_us, life.witness())
        except Refused as error:
            life.failed(error)
        return self.number

    def run_def(self, life: Life) -> int:
        try:
            refuse_def(life.witness())
        except Refused as error:
            life.failed(error)
        return self.number


class Hasty(Action):
    """A step with a timeout of its own."""

    is_steady = False

    async def run(self, life: Life) -> int:
        try:
            life.learned(await hasty(self.body_us, life.witness()))
        except StepTimeout:
            life.learned(await other(0, life.witness()))
        return self.number


class Limited(Action):
    """A step within ``asyncio.timeout``."""

    weight = 2
    is_steady = False

    async def run(self, life: Life) -> int:
        try:
            async with asyncio.timeout(0.020):
                life.learned(await work(self.body_us, life.witness()))
        except TimeoutError:
            life.learned(await other(0, life.witness()))
        return self.number


class Sleeps(Action):
    """A durable timer."""

    weight = 3

    async def run(self, life: Life) -> int:
        await outlast.sleep(self.nap_us / 1e6)
        return self.number

    def run_def(self, life: Life) -> int:
        blocking.sleep(self.nap_us / 1e6)
        return self.number


class Asks(Action):
    """A question."""

    weight = 2

    async def run(self, life: Life) -> int:
        life.learned(await outlast.ask(f"q{self.number}", str))
        return self.number

    def run_def(self, life: Life) -> int:
        life.learned(blocking.ask(f"q{self.number}", str))
        return self.number

    @property
    def needs(self) -> tuple[Need, ...]:
        return (Need("answer", f"q{self.number}"),)


class AsksBriefly(Action):
    """A question with a default."""

    is_steady = False

    async def run(self, life: Life) -> int:
        token = await outlast.ask(f"q{self.number}", str, timeout="2s", default="")
        if token:
            life.learned(token)
            life.learned(await other(0, life.witness()))
        return self.number


class WaitsFor(Action):
    """A signal."""

    weight = 2

    async def run(self, life: Life) -> int:
        life.learned(await outlast.wait_for(f"s{self.number}", str))
        return self.number

    def run_def(self, life: Life) -> int:
        life.learned(blocking.wait_for(f"s{self.number}", str))
        return self.number

    @property
    def needs(self) -> tuple[Need, ...]:
        return (Need("signal", f"s{self.number}"),)


class WaitsBriefly(Action):
    """A signal that may come too late."""

    is_steady = False

    async def run(self, life: Life) -> int:
        try:
            life.learned(await outlast.wait_for(f"s{self.number}", str, timeout="1s"))
        except WaitTimeout:
            life.learned(await other(0, life.witness()))
        return self.number

    @property
    def needs(self) -> tuple[Need, ...]:
        return (Need("early", f"s{self.number}"),)


class Calls(Action):
    """A child execution."""

    weight = 3

    async def run(self, life: Life) -> int:
        came: Came = await little(self.number)
        life.learned(came.tokens[0])
        return came.total

    def run_def(self, life: Life) -> int:
        came: Came = little(self.number)
        life.learned(came.tokens[0])
        return came.total


class CallsBriefly(Action):
    """A child execution that may take too long; then it is cancelled."""

    is_steady = False

    async def run(self, life: Life) -> int:
        try:
            async with asyncio.timeout(0.2):
                came: Came = await little(self.number)
                life.learned(came.tokens[0])
        except TimeoutError:
            life.learned(await other(0, life.witness()))
        return self.number


class Starts(Action):
    """An execution that goes its own way."""

    async def run(self, life: Life) -> int:
        await little.astart(self.number)
        return self.number

    def run_def(self, life: Life) -> int:
        little.start(self.number)
        return self.number


class Pays(Action):
    """A step that says what it costs."""

    weight = 2

    async def run(self, life: Life) -> int:
        life.learned(await pay(self.body_us, life.witness()))
        return self.number


class Talks(Action):
    """A step that says something while it runs."""

    async def run(self, life: Life) -> int:
        life.learned(await talk(1 + self.number % 3, life.witness()))
        return self.number


class Says(Action):
    """Task code that says something."""

    weight = 2

    async def run(self, life: Life) -> int:
        await outlast.stream(STREAM, self.number)
        return self.number

    def run_def(self, life: Life) -> int:
        blocking.stream(STREAM, self.number)
        return self.number


class Chain(Action):
    """One after the other."""

    weight = 3
    is_node = True
    adds = False

    async def run(self, life: Life) -> int:
        return sum([await part.run(life) for part in self.parts])

    def run_def(self, life: Life) -> int:
        return sum([part.run_def(life) for part in self.parts])


class Gather(Action):
    """Branches."""

    weight = 4
    is_node = True
    adds = False

    async def run(self, life: Life) -> int:
        return sum(await asyncio.gather(*(part.run(life) for part in self.parts)))


class Group(Action):
    """Branches in a ``TaskGroup``."""

    is_node = True
    adds = False

    async def run(self, life: Life) -> int:
        async with asyncio.TaskGroup() as group:
            branches = [group.create_task(part.run(life)) for part in self.parts]
        return sum(branch.result() for branch in branches)


class Race(Action):
    """Two steps; who is first goes on, the other is cancelled."""

    weight = 2
    is_steady = False

    async def run(self, life: Life) -> int:
        one = asyncio.create_task(work(self.body_us, life.witness()))
        two = asyncio.create_task(other(5_000, life.witness()))
        done, pending = await asyncio.wait({one, two}, return_when=asyncio.FIRST_COMPLETED)
        for branch in pending:
            branch.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        life.learned((one if one in done else two).result())
        life.learned(await (other if one in done else work)(0, life.witness()))
        return self.number


class Each(Action):
    """Branches, and a step for each as it ends."""

    is_node = True
    is_steady = False
    adds = False

    async def run(self, life: Life) -> int:
        total = 0
        for branch in asyncio.as_completed(
            [asyncio.create_task(part.run(life)) for part in self.parts]
        ):
            total += await branch
            life.learned(await other(0, life.witness()))
        return total


class Locked(Action):
    """Branches that take turns."""

    is_node = True
    adds = False

    async def _one(self, part: Action, lock: asyncio.Lock, life: Life) -> int:
        async with lock:
            return await part.run(life)

    async def run(self, life: Life) -> int:
        lock = asyncio.Lock()
        return sum(await asyncio.gather(*(self._one(part, lock, life) for part in self.parts)))


class Tidies(Action):
    """Clean-up in a ``finally``, with a step: a park must not run it for real."""

    weight = 2
    is_node = True

    async def run(self, life: Life) -> int:
        try:
            return sum([await part.run(life) for part in self.parts]) + self.number
        finally:
            life.learned(await tidy(0, life.witness()))

    def run_def(self, life: Life) -> int:
        try:
            return sum([part.run_def(life) for part in self.parts]) + self.number
        finally:
            life.learned(tidy_def(life.witness()))


class Stubborn(Action):
    """Code that catches everything once: it does not know what a park is."""

    is_node = True
    adds = False

    async def run(self, life: Life) -> int:
        total = 0
        for part in self.parts:
            try:
                total += await part.run(life)
            except asyncio.CancelledError:
                raise
            except BaseException:  # noqa: BLE001 - that is the point
                total += await part.run(life)
        return total


ACTIONS: Final[tuple[type[Action], ...]] = (
    Work, ThreadWork, Keyed, Flaky, Hopeless, Fails, Hasty, Limited, Sleeps, Asks, AsksBriefly,
    WaitsFor, WaitsBriefly, Calls, CallsBriefly, Starts, Pays, Talks, Says, Race, Chain, Gather,
    Group, Each, Locked, Tidies, Stubborn,
)  # fmt: skip
"""All that a program can be made of."""


def choices(*, node: bool, steady: bool, plain: bool) -> list[type[Action]]:
    """Give the actions for a place in a program, each as often as it weighs.

    Args:
        node: those with parts, or those without.
        steady: only those that make the same calls however long things take.
        plain: only those that a ``def`` task can do.
    """
    return [
        action
        for action in ACTIONS
        if action.is_node is node
        and (action.is_steady or not steady)
        and (action.run_def is not Action.run_def or not plain)
        for _ in range(action.weight)
    ]


NAPS_US: Final = (0, 0, 0, 1_000, 5_000, 15_000, 40_000, 300_000, 2_500_000, 3_600_000_000)


def draw_nap(dice: Random) -> int:
    """Draw how long something takes; now and then an hour."""
    return NAPS_US[int(len(NAPS_US) * dice.random() ** 1.3)]


__all__ = ["ACTIONS", "Action", "Life", "Need", "Refused", "choices", "draw_nap", "stage"]
