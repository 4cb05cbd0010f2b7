"""A step, a wait that survives a restart, and a question.

outlast run examples/hello.py:hello --name Ada
"""

from __future__ import annotations

from outlast import ask, sleep, step, task


@step(retries=4, timeout="20s")
async def greet(name: str) -> str:
    return f"Hello, {name}!"


@task
async def hello(name: str) -> str:
    text = await greet(name)  # a finished step is never repeated
    await sleep("5s")  # survives a restart, holds no thread
    if await ask("Shout it?", bool, timeout="1h", default=False):
        return text.upper()
    return text
