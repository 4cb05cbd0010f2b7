"""What production draws by chance or takes from the machine, taken from the dice of a seed."""

from __future__ import annotations

import logging
import sys
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from types import AsyncGeneratorType
from typing import Any, Final

from campaigns.simulation.world.threads import SimThreadScope
from outlast.engine import engine
from outlast.engine.drive import driver
from outlast.engine.write import identity
from outlast.engine.write.identity import IdMaker, _base32


class SimIds(IdMaker):
    """Makes ids by time, process and number."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number, self._count = number, 0

    def make(self, now_us: int) -> str:
        """Make the next id."""
        self._count += 1
        return "ex_" + _base32((now_us // 1000 << 55) | self._number << 20 | self._count)

    def make_many(self, now_us: int, count: int) -> list[str]:
        """Make the next ids."""
        return [self.make(now_us) for _ in range(count)]


_BLOCK: Final = 8
"""The bytes of a number; a claim draws hundreds of them at once."""


class SimDice:
    """Bytes that come from the seed, none of them twice."""

    def __init__(self, dice: Random) -> None:
        self._next = dice.getrandbits(62)

    def draw(self, count: int) -> bytes:
        """Draw bytes."""
        first = self._next + 1
        self._next += -(-count // _BLOCK)
        blocks = array("Q", range(first, self._next + 1))
        if sys.byteorder == "little":
            blocks.byteswap()
        return blocks.tobytes()[-count:]


def _not_of_the_dead(told: Any) -> None:
    """Pass over generators that a process left behind when it died: no loop ends them."""
    if not isinstance(told.object, AsyncGeneratorType):
        sys.__unraisablehook__(told)


@contextmanager
def deterministic(dice: Random) -> Iterator[None]:
    """Take nonces, names and threads from the dice while a simulation runs."""
    names = iter(range(1, 1_000_000))
    homes: list[tuple[Any, str, Any]] = [
        (identity, "_dice", SimDice(dice)),
        (engine, "worker_name", lambda: f"w{next(names)}"),
        (driver, "ThreadScope", SimThreadScope),
    ]
    before = [(home, name, getattr(home, name)) for home, name, _ in homes]
    for home, name, other in homes:
        setattr(home, name, other)
    warned, logging.root.manager.disable = logging.root.manager.disable, logging.CRITICAL
    hook, sys.unraisablehook = sys.unraisablehook, _not_of_the_dead
    try:
        yield
    finally:
        sys.unraisablehook = hook
        logging.root.manager.disable = warned
        for home, name, plain in before:
            setattr(home, name, plain)
