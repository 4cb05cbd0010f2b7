"""New code, put in the place of old while executions are open; now and then it does not fit."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from campaigns.simulation.world.world import World

SHARE: Final = 0.4
"""Of the worlds, those whose code changes."""
_PLANS: Final = (("new",), ("new", "old", "new"), ("bad", "new"), ("bad", "old"))


class Deploys:
    """Which version of the code processes begin with.

    Attributes:
        version: the newest.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.version = "old"

    def begin(self) -> None:
        """Plan the deploys of this seed."""
        world, dice = self._world, Random(f"{self._world.seed}/deploys")
        if dice.random() >= SHARE:
            return
        versions = _PLANS[int(dice.random() * len(_PLANS))]
        instants = sorted(int(world.horizon_us * dice.random()) for _ in versions)
        for at, version in zip(instants, versions, strict=True):
            world.later(at, lambda version=version: self._deploy(version))  # type: ignore[misc]
            rolled_out_us = 2_000_000 if dice.random() < 0.5 else world.horizon_us
            for _ in range(2 * world.plan.places):
                world.later(at + int(rolled_out_us * dice.random() ** 2), self.restart_one)

    def _deploy(self, version: str) -> None:
        if not self._world.is_calm:
            self.version = version
            self._world.counts["deploys"] += 1
            self._world.note("deploy", version)

    def restart_one(self) -> None:
        """Restart a process that has other code."""
        world = self._world
        for place in sorted(world.workers.open_places):
            if world.workers.engines[place].process.code != self.version and not world.is_calm:
                world.faults.stop(place)
                return

    def finish(self) -> None:
        """Have everybody run the newest code."""
        for engine in list(self._world.workers.engines.values()):
            if engine.process.code != self.version:
                self._world.workers.crash(engine.process, "for a deploy")
