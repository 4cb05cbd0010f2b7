"""Tasks made of actions by a seed, and what each may end as."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any, Final

from campaigns.simulation.tasks import edited, pinned
from campaigns.simulation.tasks.action import Action, Life, Need
from campaigns.simulation.tasks.catalogue import choices, draw_nap
from campaigns.simulation.tasks.leaves import Work
from campaigns.simulation.tasks.nodes import Chain
from campaigns.simulation.tasks.small import (
    apart,
    chain_needs,
    goes_on,
    little,
    little_needs,
    needy,
    no_needs,
)
from campaigns.simulation.tasks.steps import Came, other, pay, refuse, tidy
from outlast import Budget, Limit, Rate, Retry, task

TASK_RETRIES: Final = 4
DOOMED_RETRIES: Final = 2
BOUND: Final = 2
"""What :func:`bounded` may spend before somebody raises its budget, in usd."""


@lru_cache(maxsize=2_000)
def plan(seed: int, *, steady: bool = False, plain: bool = False) -> Action:
    """Make the program of a seed."""
    dice = Random(seed)
    leaves = choices(node=False, steady=steady, plain=plain)
    nodes = choices(node=True, steady=steady, plain=plain)
    numbers = iter(range(1, 1_000))

    def make(depth: int) -> Action:
        is_node = depth == 0 or (depth < 3 and dice.random() < 0.25)
        kinds = nodes if is_node else leaves
        kind = kinds[int(dice.random() * len(kinds))] if depth else Chain
        number, nap = next(numbers), draw_nap(dice)
        count = 1 + int(dice.random() * (4 if depth else 5)) if is_node else 0
        return kind(number, nap, tuple(make(depth + 1) for _ in range(count)))

    return make(0)


@task(name="sim_program")
async def program(seed: int) -> Came:
    """Run the program of a seed."""
    life = Life()
    return Came(await plan(seed).run(life), life.tokens)


@task(name="sim_tidied")
async def tidied(seed: int) -> Came:
    """Run the program of a seed, and clean up with a step whatever ends it."""
    life = Life()
    try:
        total = await plan(seed).run(life)
    finally:
        life.learned(await tidy(2_000, life.witness()))
    return Came(total, life.tokens)


@task(name="sim_plain")
def plain(seed: int) -> Came:
    """Run the plain program of a seed, in a thread."""
    life = Life()
    return Came(plan(seed, plain=True).run_def(life), life.tokens)


@task(name="sim_gated", limit=Limit(1))
async def gated(seed: int) -> Came:
    """Run the program of a seed, one at a time while its code runs."""
    life = Life()
    return Came(await plan(seed).run(life), life.tokens)


PACE_US: Final = 200_000


@task(name="sim_paced", rate=Rate(5, "1s"))
async def paced(seed: int) -> Came:
    """Run the program of a seed; beginnings are spaced."""
    life = Life()
    return Came(await plan(seed).run(life), life.tokens)


ATTEMPT_US: Final = 400_000
HURRIED_RETRIES: Final = 1


@task(
    name="sim_hurried",
    queue_timeout="150ms",
    attempt_timeout="400ms",
    retries=Retry(HURRIED_RETRIES, base="1ms", cap="100ms"),
)
async def hurried(seed: int) -> Came:
    """Run the steady program of a seed; begin soon, and do not take long."""
    life = Life(silent=True)
    return Came(await plan(seed, steady=True).run(life), life.tokens)


@task(name="sim_held", limit=Limit(1, hold=True))
async def held(seed: int) -> Came:
    """Run the program of a seed, one at a time from its start to its end."""
    life = Life()
    return Came(await plan(seed).run(life), life.tokens)


@task(name="sim_bounded", budget=Budget(usd=BOUND))
async def bounded(seed: int) -> Came:
    """Run the program of a seed, and pay for a few steps at once."""
    life = Life()
    total = await plan(seed).run(life)
    paid = await asyncio.gather(*(pay(2_000, life.witness()) for _ in range(BOUND + 1)))
    for token in paid:
        life.learned(token)
    return Came(total, life.tokens)


@task(name="sim_retried", retries=Retry(TASK_RETRIES, base="1ms", cap="1s", factor=10))
async def retried(seed: int) -> Came:
    """Run the steady program of a seed; fail a few times before it ends."""
    import outlast

    life = Life(silent=True)
    total = await plan(seed, steady=True).run(life)
    life.learned(await other(0, []))
    if Random(f"{seed}/{round(outlast.now().timestamp() * 1e6)}").random() < 0.6:
        raise ConnectionError("the task is to fail")
    return Came(total, life.tokens)


@task(name="sim_doomed", retries=Retry(DOOMED_RETRIES, base="1ms", cap="1s", factor=10))
async def doomed(seed: int) -> Came:
    """Run the steady program of a seed, and fail each time."""
    life = Life(silent=True)
    await plan(seed, steady=True).run(life)
    await refuse(0, [])
    raise AssertionError("refuse() has given a result")


@dataclass(frozen=True)
class Sort:
    """A sort of task: how its programs are made, and what it may end as.

    Attributes:
        weight: how often it is taken.
        retries: how often the whole task is tried again.
        ends: what it may end as, if nobody cancels it and it has no deadline.
        small: of a task that is made of no actions, what somebody must do for it, by its seed.
    """

    task: Any
    weight: int
    retries: int
    ends: frozenset[str]
    steady: bool = False
    plain: bool = False
    small: Callable[[int], tuple[Need, ...]] | None = None

    def plan(self, seed: int) -> Action:
        """Give the program of a seed."""
        if self.small is not None:
            return Work(seed, 0)
        return plan(seed, steady=self.steady, plain=self.plain)

    def needs(self, seed: int) -> list[Need]:
        """Give what somebody outside must do for an execution."""
        if self.small is not None:
            return list(self.small(seed))
        return [need for action in self.plan(seed).walk() for need in action.needs]


_DONE: Final = frozenset({"succeeded"})
SORTS: Final = {
    "sim_program": Sort(program, 6, 0, _DONE),
    "sim_tidied": Sort(tidied, 3, 0, _DONE),
    "sim_plain": Sort(plain, 2, 0, _DONE, plain=True),
    "sim_gated": Sort(gated, 2, 0, _DONE),
    "sim_held": Sort(held, 1, 0, _DONE),
    "sim_paced": Sort(paced, 2, 0, _DONE),
    "sim_hurried": Sort(
        hurried, 2, HURRIED_RETRIES, frozenset({"succeeded", "failed", "timed_out"}), steady=True
    ),
    "sim_edited": Sort(edited.VERSIONS["old"], 2, 0, _DONE, small=edited.needs),
    "sim_pinned": Sort(pinned.VERSIONS["1"], 2, 0, _DONE, small=no_needs),
    "sim_needy": Sort(needy, 2, 0, _DONE, small=no_needs),
    "sim_apart": Sort(apart, 1, 0, _DONE, small=no_needs),
    "sim_bounded": Sort(bounded, 2, 0, _DONE),
    "sim_retried": Sort(retried, 2, TASK_RETRIES, frozenset({"succeeded", "failed"}), steady=True),
    "sim_little": Sort(little, 0, 0, _DONE, small=little_needs),
    "sim_goes_on": Sort(goes_on, 2, 0, _DONE, small=chain_needs),
    "sim_doomed": Sort(doomed, 1, DOOMED_RETRIES, frozenset({"failed"}), steady=True),
}
"""The sorts of tasks by name."""


def tasks_of(version: str, *, is_first: bool) -> list[Any]:
    """Give the tasks that an engine knows with one version of the code; one only the first does."""
    apart_from = {edited.NAME, pinned.NAME} | (set() if is_first else {apart.name})
    others = [sort.task for name, sort in SORTS.items() if name not in apart_from]
    known = [pinned.VERSIONS[one] for one in pinned.KNOWN[version]]
    return [*others, edited.VERSIONS[version], *known]
