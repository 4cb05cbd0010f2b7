"""Mistakes in what is deleted, and in what others know of it."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from campaigns.simulation.plants.plant import Patch, Plant
from outlast.engine.control.pruner import Rules
from outlast.engine.engine import Engine
from outlast.store.memory.streams import MemoryStreams


def _deleted_too_soon() -> list[Patch]:
    is_due = (Rules, "is_due", lambda self, ended, now: True)
    return [is_due, (Rules, "shortest_us", property(lambda self: 0))]


def _words_left_behind() -> list[Patch]:
    return [(MemoryStreams, "purge", lambda self, id: None)]


def _deleted_while_awaited() -> list[Patch]:
    async def check_waiters(self: Any) -> None:
        ids = list(self._waiters)
        for record in await self.worker.read(lambda: self.store.get(ids)):
            if record is not None and record.is_final:
                self._ended(record.id)

    return [(Engine, "_check_waiters", check_waiters)]


def _deleted_told_as_lost() -> list[Patch]:
    failover: Any = import_module("outlast.engine.cluster.failover")
    return [(failover, "_is_past", lambda at, now: False)]


PLANTS: Final[dict[str, Plant]] = {
    "deleted_too_soon": Plant(
        "what has ended is deleted although it is to be kept longer",
        ("purges",), _deleted_too_soon,
    ),
    "words_left_behind": Plant(
        "an execution is deleted, and what it has said is not", ("purges",), _words_left_behind,
    ),
    "deleted_while_awaited": Plant(
        "who waits for an execution that was deleted waits for ever",
        ("answers",), _deleted_while_awaited, seeds=1_500,
    ),
    "deleted_told_as_lost": Plant(
        "after a failover what was deleted long before is told as lost",
        ("losses",), _deleted_told_as_lost, seeds=1_000,
    ),
}  # fmt: skip
