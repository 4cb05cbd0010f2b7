"""Outlast inside a program of yours: in plain code, and in asyncio code.

python examples/embedded.py
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from outlast import Engine, step, task


@step
async def square(number: int) -> int:
    return number * number


@task
async def sum_of_squares(numbers: list[int]) -> int:
    return sum([await square(number) for number in numbers])


def plainly(store: str) -> int:
    """Use an engine from plain code: it runs in a thread of its own."""
    with Engine(store):
        execution = sum_of_squares.start([1, 2, 3])
        result: int = execution.result(timeout="10s")
        return result


async def in_asyncio(store: str) -> int:
    """Use an engine from asyncio code: it runs on this very loop, and so do async steps."""
    async with Engine(store):
        # The same key and input mean the same execution, however often this is called.
        execution = await sum_of_squares.options(key="squares-of-4-and-5").astart([4, 5])
        result: int = await execution.aresult(timeout="10s")
        return result


def main(directory: str) -> None:
    store = f"sqlite:///{Path(directory) / 'embedded.db'}"
    print(plainly(store), asyncio.run(in_asyncio(store)))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with TemporaryDirectory() as directory:
            main(directory)
