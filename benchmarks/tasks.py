"""The tasks that the workloads run. A trivial step returns a small dict."""

from __future__ import annotations

import asyncio
import os
from time import monotonic

from outlast import ask, step, task, this_step

LEDGER = "OUTLAST_BENCH_LEDGER"
"""Where the ledger of begun bodies is; :func:`benchmarks.place.spawn` sets it for a child."""
_ledger: list[int] = []


@step
async def note(number: int) -> dict[str, int]:
    """Return a small dict."""
    return {"number": number}


@step
def note_plainly(number: int) -> dict[str, int]:
    """Return a small dict, from a thread."""
    return {"number": number}


@task
async def chain(first: int, steps: int) -> int:
    """Call trivial steps one after the other; gives the sum of what they return."""
    total = 0
    for number in range(first, first + steps):
        total += (await note(number))["number"]
    return total


@task
async def chain_aio(first: int, steps: int) -> int:
    """Call ``def`` steps from an ``async def`` task."""
    total = 0
    for number in range(first, first + steps):
        total += (await note_plainly.aio(number))["number"]
    return total


@task
def chain_def(first: int, steps: int) -> int:
    """Call ``def`` steps from a ``def`` task."""
    total = 0
    for number in range(first, first + steps):
        total += note_plainly(number)["number"]
    return total


def chained(first: int, steps: int) -> int:
    """Say what a chain must give."""
    return sum(range(first, first + steps))


@task
async def fan(steps: int) -> int:
    """Call trivial steps at once; gives the sum of what they return."""
    return sum(one["number"] for one in await asyncio.gather(*map(note, range(steps))))


@task
async def nothing() -> None:
    """Do nothing at all."""


@task
async def asks(number: int) -> int:
    """Wait for somebody to agree."""
    await ask("Go on?")
    return number


@task
async def family(children: int) -> int:
    """Call children at once; gives the sum of what they return."""
    return sum(await asyncio.gather(*map(same, range(children))))


@task
async def same(number: int) -> int:
    """Give back what it is given."""
    return number


@step
async def slow(number: int, milliseconds: float) -> dict[str, int]:
    """Enter this body in the ledger, then take a while."""
    enter()
    await asyncio.sleep(milliseconds / 1e3)
    return {"number": number}


@task
async def slow_chain(first: int, steps: int, milliseconds: float) -> int:
    """Call steps that take a while, one after the other."""
    total = 0
    for number in range(first, first + steps):
        total += (await slow(number, milliseconds))["number"]
    return total


@step
async def noted(number: int) -> dict[str, int]:
    """Enter this body in the ledger, and return a small dict."""
    enter()
    return {"number": number}


@task
async def noted_chain(first: int, steps: int) -> int:
    """Call steps whose bodies are entered in the ledger, one after the other."""
    total = 0
    for number in range(first, first + steps):
        total += (await noted(number))["number"]
    return total


def enter() -> None:
    """Add a line to the ledger: execution, key, process, time.

    One ``write`` to a file opened for appending is in the system's cache when it returns, which a
    SIGKILL leaves alone; the parent calls ``fsync`` before it reads. An fsync of every body would
    load the very disk that is measured.
    """
    if not _ledger:
        _ledger.append(os.open(os.environ[LEDGER], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
    step = this_step()
    os.write(_ledger[0], f"{step.execution_id} {step.key} {os.getpid()} {monotonic()}\n".encode())


__all__ = [
    "LEDGER",
    "asks",
    "chain",
    "chain_aio",
    "chain_def",
    "chained",
    "family",
    "fan",
    "noted_chain",
    "nothing",
    "same",
    "slow_chain",
]
