"""Mistakes in what those are told who follow everything."""

from __future__ import annotations

from typing import Any, Final

from campaigns.simulation.plants.plant import Patch, Plant
from outlast.lifecycle import Kind
from outlast.store.memory.feed import MemoryFeed


def _claims_untold() -> list[Patch]:
    plain = MemoryFeed.take

    def take(self: Any, rows: Any) -> None:
        plain(self, [row for row in rows if row.kind is not Kind.CLAIM])

    return [(MemoryFeed, "take", take)]


def _told_twice() -> list[Patch]:
    plain = MemoryFeed.read

    def read(self: Any, after: int, limit: int, **more: Any) -> Any:
        return plain(self, max(after - 1, 0), limit, **more)

    return [(MemoryFeed, "read", read)]


def _cursors_survive_a_failover() -> list[Patch]:
    return [(MemoryFeed, "lose", lambda self: None)]


PLANTS: Final[dict[str, Plant]] = {
    "claims_untold": Plant(
        "who follows everything is not told of claims", ("feed",), _claims_untold,
    ),
    "told_twice": Plant(
        "who goes on behind a cursor is told the row before it once more", ("feed",), _told_twice,
    ),
    "cursors_survive_a_failover": Plant(
        "after a failover old cursors are good, and their positions are given out anew",
        ("feed",), _cursors_survive_a_failover, seeds=1_000,
    ),
}  # fmt: skip
