"""A task whose executions are left to the version that they were started with."""

from __future__ import annotations

from typing import Any, Final

import outlast
from campaigns.simulation.tasks.steps import Came, other, work
from outlast import task

NAME: Final = "sim_pinned"
KNOWN: Final = {"old": ("1",), "bad": ("1",), "new": ("1", "2")}
"""Which of its versions each version of the code has."""


def _first() -> Any:
    @task(name=NAME, version="1", pin=True)
    async def pinned(seed: int) -> Came:
        """Do it as the first version does."""
        token = await work(2_000, [])
        await outlast.sleep(0.2 * (seed % 3))
        return Came(seed, [token, await work(0, [token])])

    return pinned


def _second() -> Any:
    @task(name=NAME, version="2", pin=True)
    async def pinned(seed: int) -> Came:
        """Do it as the second version does."""
        token = await other(2_000, [])
        await outlast.sleep(0.2 * (seed % 3))
        return Came(seed, [token, await other(0, [token])])

    return pinned


VERSIONS: Final[dict[str, Any]] = {"1": _first(), "2": _second()}
STEP_OF: Final = {"1": "sim_work", "2": "sim_other"}
"""The step by which each is known."""
