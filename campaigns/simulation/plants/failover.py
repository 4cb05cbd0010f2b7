"""Mistakes in what happens when the store goes back in time."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from campaigns.simulation.plants.plant import Patch, Plant
from outlast.engine.cluster.failover import Failover
from outlast.store.memory.epochs import MemoryEpochs


def _floor_forgotten() -> list[Patch]:
    epochs: Any = import_module("outlast.store.memory.epochs")
    return [(epochs, "floor_after", lambda last, now: 0)]


def _leases_survive_a_failover() -> list[Patch]:
    plain = MemoryEpochs.begin

    def begin(self: Any, cause: str, *more: Any) -> Any:
        self._store.recover = lambda *given: 0
        try:
            return plain(self, cause, *more)
        finally:
            del self._store.recover

    return [(MemoryEpochs, "begin", begin)]


def _losses_untold() -> list[Patch]:
    plain = Failover.dropping

    def dropping(self: Any, error: Any) -> None:
        self.recall.births.clear()
        plain(self, error)

    return [(Failover, "dropping", dropping)]


PLANTS: Final[dict[str, Plant]] = {
    "floor_forgotten": Plant(
        "after a failover fences go on where the standby was, and are given out twice",
        ("failover",), _floor_forgotten,
    ),
    "leases_survive_a_failover": Plant(
        "a promoted standby leaves the leases as they were",
        ("failover",), _leases_survive_a_failover,
    ),
    "losses_untold": Plant(
        "who lived through a failover does not look for what it had started",
        ("losses",), _losses_untold,
    ),
}  # fmt: skip
