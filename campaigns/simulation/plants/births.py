"""Mistakes in how many are born together."""

from __future__ import annotations

from typing import Any, Final

from msgspec.structs import replace

from campaigns.simulation.plants.plant import Patch, Plant
from outlast.engine.control.births import Births
from outlast.store.memory import MemoryStore


def _batch_torn() -> list[Patch]:
    plain = MemoryStore._create_many

    def create_many(self: Any, item: Any) -> Any:
        less = replace(item, ids=item.ids[:-1], payloads=item.payloads[:-1])
        return plain(self, replace(less, digests=item.digests[:-1]))

    return [(MemoryStore, "_create_many", create_many)]


def _answers_out_of_order() -> list[Patch]:
    plain = Births.ids

    def ids(self: Any, options: Any) -> list[str]:
        return sorted(plain(self, options), reverse=True)

    return [(Births, "ids", ids)]


PLANTS: Final[dict[str, Plant]] = {
    "batch_torn": Plant(
        "of births that are one item the last one is not written", ("batches",), _batch_torn,
    ),
    "answers_out_of_order": Plant(
        "who starts many is told their ids in another order than that of the inputs",
        ("batches",), _answers_out_of_order,
    ),
}  # fmt: skip
