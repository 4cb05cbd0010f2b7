"""Actions made of others: in a row, side by side, in turns, with clean-up."""

from __future__ import annotations

import asyncio
from typing import Final

from campaigns.simulation.tasks.action import Action, Life
from campaigns.simulation.tasks.steps import other, tidy, tidy_def


class Chain(Action):
    """One after the other."""

    weight = 3
    is_node = True
    adds = False

    async def run(self, life: Life) -> int:
        return sum([await part.run(life) for part in self.parts])

    def run_def(self, life: Life) -> int:
        return sum([part.run_def(life) for part in self.parts])


class Gather(Action):
    """Branches."""

    weight = 4
    is_node = True
    adds = False

    async def run(self, life: Life) -> int:
        return sum(await asyncio.gather(*(part.run(life) for part in self.parts)))


class Group(Action):
    """Branches in a ``TaskGroup``."""

    is_node = True
    adds = False

    async def run(self, life: Life) -> int:
        async with asyncio.TaskGroup() as group:
            branches = [group.create_task(part.run(life)) for part in self.parts]
        return sum(branch.result() for branch in branches)


class Each(Action):
    """Branches, and a step for each as it ends."""

    is_node = True
    is_steady = False
    adds = False

    async def run(self, life: Life) -> int:
        total = 0
        for branch in asyncio.as_completed(
            [asyncio.create_task(part.run(life)) for part in self.parts]
        ):
            total += await branch
            life.learned(await other(0, life.witness()))
        return total


class Locked(Action):
    """Branches that take turns."""

    is_node = True
    adds = False

    async def _one(self, part: Action, lock: asyncio.Lock, life: Life) -> int:
        async with lock:
            return await part.run(life)

    async def run(self, life: Life) -> int:
        lock = asyncio.Lock()
        return sum(await asyncio.gather(*(self._one(part, lock, life) for part in self.parts)))


class Tidies(Action):
    """Clean-up in a ``finally``, with a step: a park must not run it for real."""

    weight = 2
    is_node = True

    async def run(self, life: Life) -> int:
        try:
            return sum([await part.run(life) for part in self.parts]) + self.number
        finally:
            life.learned(await tidy(0, life.witness()))

    def run_def(self, life: Life) -> int:
        try:
            return sum([part.run_def(life) for part in self.parts]) + self.number
        finally:
            life.learned(tidy_def(life.witness()))


class Stubborn(Action):
    """Code that catches everything once: it does not know what a park is."""

    is_node = True
    adds = False

    async def run(self, life: Life) -> int:
        total = 0
        for part in self.parts:
            try:
                total += await part.run(life)
            except asyncio.CancelledError:
                raise
            except BaseException:  # noqa: BLE001 - that is the point
                total += await part.run(life)
        return total


NODES: Final[tuple[type[Action], ...]] = (Chain, Gather, Group, Each, Locked, Tidies, Stubborn)
"""All actions with parts."""

__all__ = ["NODES"]
