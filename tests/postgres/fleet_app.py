"""The tasks, and the program, of the workers in the tests of fleets.

Each body writes to a ledger outside of the store that it began, and that it ended. As a program it
is a worker that says on its output what it is and what it has seen.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from outlast import Engine, step, task
from outlast.store.protocol import Answer, Item


def note(what: str, step: str, number: int) -> None:
    """Write a line to the ledger; short ones are written whole."""
    line = f"{what} {step} {number} {os.getpid()}\n"
    ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(ledger, line.encode())
    os.close(ledger)


@step
async def before(number: int) -> int:
    note("start", "before", number)
    note("end", "before", number)
    return number


@step
async def gated(number: int) -> int:
    """Wait for the gate: a file that the test makes."""
    note("start", "gated", number)
    while not Path(os.environ["GATE"]).exists():
        await asyncio.sleep(0.02)  # sleeps: a step's body, which waits for a file
    note("end", "gated", number)
    return number


@task
async def held(number: int) -> int:
    return await before(number) + await gated(number)


@task
async def quick(number: int) -> int:
    return await before(number)


async def main(url: str, lease: str) -> None:
    """Be a worker until SIGTERM."""
    refused: list[str] = []
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Engine(url, tasks=[held, quick], lease=lease, slots=200) as engine:
        plain = engine.store.commit

        def commit(batch: Sequence[Item]) -> list[Answer]:
            answers = plain(batch)
            refused.extend(one.refused for one in answers if one.refused is not None)
            return answers

        engine.store.commit = commit  # type: ignore[method-assign]
        say(name=engine.name, pid=os.getpid())
        waiting = asyncio.create_task(stop.wait())
        name = engine.name
        while not stop.is_set():
            await asyncio.wait([waiting], timeout=0.05)
            if engine.name != name:
                name = engine.name
                say(name=name, refused=refused)
        assert engine.fleet is not None
        taken, losses = engine.fleet.taken, engine.fleet.losses
    say(refused=refused, taken=taken, losses=losses)


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
