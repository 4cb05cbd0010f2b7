"""The steps of simulated tasks. Each gives, or raises, a token that only this one run of it has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import outlast
from outlast import Retry, step

TOKEN: Final = "T"
STREAM: Final = "said"
Witness = list[str]


class Refused(Exception):
    """What a body raises when it is to fail."""


class _Stage:
    """Who hears that a body begins; the simulation puts itself here."""

    began: Callable[[str, str, int, Witness], str]
    beaten: Callable[[str, str, int], None]


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


HASTY_US: Final = 20_000


@step(name="sim_hasty", timeout="20ms")
async def hasty(nap_us: int, witness: Witness) -> str:
    """Sometimes take too long."""
    token = _begin(witness)
    await _nap(nap_us)
    return token


SILENCE_US: Final = 30_000
BEATS: Final = 3


@step(name="sim_beats", heartbeat="30ms", retries=Retry(2, base="1ms", cap="50ms"))
async def beats(nap_us: int, witness: Witness) -> str:
    """Say a few times that it is alive, and be silent for a while then; go on where it was."""
    token = _begin(witness)
    info = outlast.this_step()
    for number in range(int(str(info.last_heartbeat or 0)), BEATS):
        await asyncio.sleep(0.01)
        stage.beaten(info.execution_id, info.key, number + 1)
        outlast.heartbeat(number + 1)
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


STEP_RETRIES: Final = {"sim_flaky": FLAKY_RETRIES, "sim_flaky_def": FLAKY_RETRIES, "sim_beats": 2}
"""How often each step may be tried again."""
