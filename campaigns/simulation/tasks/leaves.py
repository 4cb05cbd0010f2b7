"""Actions without parts: steps, waits, children, words."""

from __future__ import annotations

import asyncio
from typing import Final

import outlast
from campaigns.simulation.tasks.action import Action, Life, Need
from campaigns.simulation.tasks.small import little
from campaigns.simulation.tasks.steps import (
    FLAKY_RETRIES,
    STREAM,
    Came,
    Refused,
    beats,
    flaky,
    flaky_def,
    hasty,
    other,
    pay,
    refuse,
    refuse_def,
    talk,
    work,
    work_def,
)
from outlast import blocking
from outlast.errors import HeartbeatLost, StepTimeout, WaitTimeout


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


class Beats(Action):
    """A step that may be silent for too long."""

    weight = 2
    is_steady = False

    async def run(self, life: Life) -> int:
        try:
            life.learned(await beats(self.body_us, life.witness()))
        except HeartbeatLost:
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


LEAVES: Final[tuple[type[Action], ...]] = (
    Work, ThreadWork, Keyed, Flaky, Hopeless, Fails, Hasty, Beats, Limited, Sleeps, Asks,
    AsksBriefly, WaitsFor, WaitsBriefly, Calls, CallsBriefly, Starts, Pays, Talks, Says, Race,
)  # fmt: skip
"""All actions without parts."""

__all__ = ["LEAVES"]
