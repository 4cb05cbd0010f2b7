"""Tasks that the tests of the command line run in processes of their own."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from outlast import Retry, ask, sleep, step, task, wait_for


@dataclass
class Order:
    id: str
    cents: int = 0
    tags: list[str] = field(default_factory=list)


@dataclass
class Verdict:
    ok: bool
    note: str = ""


def begun(what: str) -> None:
    """Note, outside of Outlast, that a body has begun."""
    with open("bodies.txt", "a", encoding="utf-8") as file:
        file.write(f"{what} {os.getpid()}\n")


@step
async def note(what: str) -> str:
    begun(what)
    return what


@step
async def hold(what: str) -> str:
    """Be under way until somebody makes a file of this name."""
    begun(what)
    while not Path(what).exists():
        await asyncio.sleep(0.005)
    return what


@task
async def hello(name: str, loud: bool = False) -> str:
    said = f"Hello, {await note(name)}!"
    return said.upper() if loud else said


@task
async def typed(
    order: Order, price: Decimal, at: datetime | None = None, *rest: int, **more: Any
) -> dict[str, Any]:
    return {
        "order": order.id,
        "cents": order.cents,
        "tags": order.tags,
        "price": str(price),
        "at": at and at.isoformat(),
        "rest": list(rest),
        "more": more,
    }


@task
async def gated(name: str) -> str:
    """Two steps, a held one, and one more."""
    await note("first")
    await note("second")
    await hold("gate")
    await note("last")
    return f"{name} through"


@task
async def rounds(left: int) -> str:
    """A round after the other, each an execution of its own; the last one is held."""
    await note(f"round-{left}")
    if left > 0:
        rounds.continue_as_new(left - 1)
    await hold("gate")
    return "round and round"


@task
async def family(name: str, word: str = "no") -> str:
    """Two children, of which one fails."""
    said = await hello(name)
    try:
        await fails(word)
    except ValueError as error:
        return f"{said} {error}"
    return said


@task
async def approve(order: str) -> str:
    await note(order)
    verdict = await ask(f"Release {order}?", Verdict, to="ops")
    return f"{order} {'released' if verdict.ok else 'kept'}: {verdict.note}"


@task
async def confirm() -> bool:
    return await ask("Sure?")


@task
async def twice() -> list[bool]:
    return list(await asyncio.gather(ask("One?"), ask("Two?")))


@task
async def paid() -> Any:
    return await wait_for("paid")


@task
async def nap(duration: str = "1h") -> str:
    await note("before")
    await sleep(duration)
    return "awake"


@task
async def fails(text: str) -> None:
    await note("fine")
    await broken(text)


@step(retries=Retry(1, base="1ms"))
async def broken(text: str) -> None:
    raise ValueError(text)


@task(retries=Retry(3, base="1h"))
async def again() -> None:
    raise ConnectionError("nobody there")


@task
async def stuck() -> None:
    await asyncio.get_running_loop().create_future()


@task(timeout="50ms")
async def late() -> None:
    await sleep("1h")


@step(timeout="10ms")
async def slow() -> None:
    await asyncio.sleep(60)


@task
async def too_slow() -> None:
    await slow()


@task
async def unstorable() -> Any:
    return object()
