"""A task whose code is edited while its executions are open: three versions of it.

``new`` has a step more than ``old``, and marks the edit; ``bad`` has it too, and marks nothing.
"""

from __future__ import annotations

from typing import Any, Final

import outlast
from campaigns.simulation.tasks.action import Need
from campaigns.simulation.tasks.steps import Came, other, work
from outlast import task

NAME: Final = "sim_edited"
EDIT: Final = "edit"


def needs(seed: int) -> tuple[Need, ...]:
    """Give what somebody outside must do for it."""
    return (Need("signal", "s0"),)


async def _end(seed: int, tokens: list[str]) -> Came:
    if seed % 2:
        await outlast.sleep(0.2)
    tokens.append(await outlast.wait_for("s0", str))
    tokens.append(await work(0, list(tokens)))
    return Came(seed, tokens)


def _old() -> Any:
    @task(name=NAME)
    async def edited(seed: int) -> Came:
        """Do it as it was done before the edit."""
        return await _end(seed, [await work(2_000, [])])

    return edited


def _new() -> Any:
    @task(name=NAME)
    async def edited(seed: int) -> Came:
        """Do it with the edit, and by executions of before as before."""
        tokens = [await work(2_000, [])]
        if outlast.changed(EDIT):
            tokens.append(await other(2_000, list(tokens)))
        return await _end(seed, tokens)

    return edited


def _bad() -> Any:
    @task(name=NAME)
    async def edited(seed: int) -> Came:
        """Do it with the edit, whoever comes."""
        tokens = [await work(2_000, [])]
        tokens.append(await other(2_000, list(tokens)))
        return await _end(seed, tokens)

    return edited


VERSIONS: Final[dict[str, Any]] = {"old": _old(), "new": _new(), "bad": _bad()}
"""What it is in each version of the code."""
