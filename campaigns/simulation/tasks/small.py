"""Small tasks that others call, start or schedule, and one that goes on as another."""

from __future__ import annotations

from typing import Final

import outlast
from campaigns.simulation.tasks.action import Need
from campaigns.simulation.tasks.steps import Came, work
from outlast import task


def little_needs(seed: int) -> tuple[Need, ...]:
    """Give what somebody outside must do for a child."""
    return (Need("signal", "s0"),) if seed % 4 == 1 else ()


@task(name="sim_little")
async def little(seed: int) -> Came:
    """Do a little, as a child of another execution."""
    token = await work(0, [])
    if seed % 3 == 0:
        await outlast.sleep(0.3)
    for need in little_needs(seed):
        await outlast.wait_for(need.name, str)
    return Came(seed, [token])


def no_needs(seed: int) -> tuple[Need, ...]:
    """Give what somebody outside must do: nothing."""
    return ()


async def _a_little(seed: int) -> Came:
    token = await work(1_000 * (seed % 3), [])
    if seed % 5 == 0:
        await outlast.sleep(0.05)
    return Came(seed, [token])


@task(name="sim_apart")
async def apart(seed: int) -> Came:
    """Do a little, where this task is known."""
    return await _a_little(seed)


NEED: Final = "gpu"


@task(name="sim_needy", needs=NEED)
async def needy(seed: int) -> Came:
    """Do a little, where something is offered that not all have."""
    return await _a_little(seed)


CHAIN_MAX: Final = 2
"""How often :func:`goes_on` goes on as a new execution."""


def chain_needs(seed: int) -> tuple[Need, ...]:
    """Give what somebody outside must do for a chain; each of them waits for its own."""
    return tuple(Need("signal", f"s{left}") for left in range(CHAIN_MAX, -1, -1) if seed % 2 == 0)


@task(name="sim_goes_on")
async def goes_on(seed: int, left: int = CHAIN_MAX, tokens: tuple[str, ...] = ()) -> Came:
    """Do a little, and go on as a new execution."""
    token = await work(0, list(tokens))
    if seed % 2 == 0:
        came = await outlast.wait_for(f"s{left}", str)
        tokens = (*tokens, came)
    if seed % 3 == 0:
        await outlast.sleep(0.02)
    if left:
        goes_on.continue_as_new(seed, left - 1, (*tokens, token))
    return Came(seed, [*tokens, token])
