"""Planted bugs: known mistakes, which the rules have to catch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from campaigns.simulation.plants import (
    births,
    capacity,
    deleting,
    engine,
    failover,
    feed,
    leases,
    replay,
    waiting,
)
from campaigns.simulation.plants.plant import Plant

PLANTS: Final[dict[str, Plant]] = {
    **leases.PLANTS,
    **failover.PLANTS,
    **engine.PLANTS,
    **replay.PLANTS,
    **waiting.PLANTS,
    **capacity.PLANTS,
    **births.PLANTS,
    **deleting.PLANTS,
    **feed.PLANTS,
}
"""The planted bugs by name."""


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Put a planted bug in; None: none."""
    if name is None:
        yield
        return
    patches = PLANTS[name].patches()
    before = [(home, attribute, home.__dict__[attribute]) for home, attribute, _ in patches]
    for home, attribute, faulty in patches:
        setattr(home, attribute, faulty)
    try:
        yield
    finally:
        for home, attribute, right in before:
            setattr(home, attribute, right)


__all__ = ["PLANTS", "Plant", "planted"]
