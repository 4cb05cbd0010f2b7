"""Steps in parallel, with plain asyncio; who finishes first is recorded, and replayed so.

outlast run examples/parallel.py:count_words
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from outlast import step, task


@step
def list_files(directory: str) -> list[str]:
    return sorted(str(path) for path in Path(directory).glob("*.py"))


@step
def count(path: str) -> int:
    return len(Path(path).read_text(encoding="utf-8").split())


@task
async def count_words(
    directory: str = str(Path(__file__).parent), at_once: int = 4
) -> dict[str, int]:
    files = await list_files.aio(directory)  # a def step runs in a thread; .aio awaits it
    gate = asyncio.Semaphore(at_once)

    async def counted(path: str) -> int:
        async with gate:
            return await count.key(path).aio(path)  # a key of its own: easy to find in the log

    numbers = await asyncio.gather(*map(counted, files))
    return {Path(path).name: number for path, number in zip(files, numbers, strict=True)}
