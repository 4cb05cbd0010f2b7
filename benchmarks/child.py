"""The programs of child processes: small, so that what is measured is the engine and little else.

Each prints JSON lines. Times are monotonic, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import sys
from time import monotonic
from typing import Any

from benchmarks.tasks import chain, noted_chain, slow_chain
from outlast import Engine


def say(**found: object) -> None:
    """Print a line for the parent."""
    print(json.dumps(found), flush=True)


async def cold(store: str) -> None:
    """Open an engine and run one execution of one step."""
    async with Engine(store, tasks=[chain]):
        say(value=await (await chain.astart(0, 1)).aresult())


async def idle(store: str, seconds: str) -> None:
    """Run one execution, then do nothing; says what that took of a core."""
    async with Engine(store, tasks=[chain]):
        value = await (await chain.astart(0, 1)).aresult()
        gc.collect()
        await asyncio.sleep(0.3)
        say(value=value)
        before = resource.getrusage(resource.RUSAGE_SELF)
        await asyncio.sleep(float(seconds))
        after = resource.getrusage(resource.RUSAGE_SELF)
        say(cpu=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


async def long(store: str, steps: str) -> None:
    """Run one long execution, or go on with it: the key makes it the same one."""
    opening = monotonic()
    async with Engine(store, tasks=[noted_chain]):
        handle = await noted_chain.options(key="the one").astart(0, int(steps))
        say(opening=opening, value=await handle.aresult())


async def begin(
    store: str, acknowledged: str, executions: str, steps: str, milliseconds: str
) -> None:
    """Start slow executions and note each acknowledgement; the kill comes while they run."""
    acks = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    async with Engine(store, tasks=[slow_chain]):

        async def one(first: int) -> None:
            handle = await slow_chain.astart(first, int(steps), float(milliseconds))
            os.write(acks, f"{handle.id}\n".encode())
            await handle.aresult()

        await asyncio.gather(*map(one, range(int(executions))))


async def again(store: str, acknowledged: str) -> None:
    """Open the store after the kill, and wait for everything that was acknowledged."""
    async with Engine(store, tasks=[slow_chain]) as engine:
        opened = monotonic()
        with open(acknowledged) as lines:  # noqa: ASYNC230 - nothing else waits here
            ids = lines.read().split()
        values = await asyncio.gather(*(engine.execution(id).aresult() for id in ids))
        say(opened=opened, done=monotonic(), values=dict(zip(ids, values, strict=True)))


if __name__ == "__main__":
    program: Any = {"cold": cold, "idle": idle, "long": long, "begin": begin, "again": again}
    asyncio.run(program[sys.argv[1]](*sys.argv[2:]))
