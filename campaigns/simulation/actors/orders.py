"""Executions that somebody wants: drawn beforehand, by a seed."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from campaigns.simulation.tasks.programs import SORTS, Sort
from outlast.lifecycle import MessageKind

_SENDS: Final = (MessageKind.CANCEL, MessageKind.PAUSE, MessageKind.RESUME, MessageKind.NOTE)


@dataclass(frozen=True)
class Order:
    """An execution that somebody wants.

    Attributes:
        number: the how-manieth.
        key: under which key it is started; None: without one.
        deadline_us: how long it may take; None: as long as it likes.
        delay_us: how long it waits before it may run.
        ops: what is sent to it, and how long after its start.
        after: what it waits for: the number of an earlier order, what that must come to, and what
            happens where it does not.
        priority: how much sooner it is to run than others.
    """

    number: int
    sort: Sort
    seed: int
    at_us: int
    key: str | None
    deadline_us: int | None
    delay_us: int | None
    ops: tuple[tuple[int, MessageKind], ...]
    after: tuple[tuple[int, str, str], ...] = ()
    priority: int | None = None


def draw_order(number: int, dice: Random, horizon_us: int) -> Order:
    """Draw an order."""
    sorts = [sort for sort in SORTS.values() for _ in range(sort.weight)]
    sort = sorts[int(dice.random() * len(sorts))]
    ops = []
    if dice.random() < 0.35:
        for _ in range(1 + int(dice.random() * 3)):
            kind = (
                _SENDS[int(len(_SENDS) * dice.random() ** 0.7)]
                if dice.random() < 0.8
                else (MessageKind.CANCEL)
            )
            ops.append((int(horizon_us * dice.random() ** 2), kind))
    after = []
    if number and dice.random() < 0.3:
        for _ in range(1 + int(dice.random() * 2)):
            need = "success" if dice.random() < 0.7 else "end"
            or_else = "cancel" if dice.random() < 0.5 else "hold"
            after.append((int(dice.random() * number), need, or_else))
    return Order(
        number,
        sort,
        int(dice.random() * 1_000_000),
        int(horizon_us * 0.5 * dice.random() ** 2),
        f"key-{number}" if dice.random() < 0.8 else None,
        int(10 ** (4 + 5 * dice.random())) if dice.random() < 0.12 else None,
        int(2_000_000 * dice.random()) if dice.random() < 0.1 else None,
        tuple(ops),
        tuple(after),
        int(12 * dice.random()) - 3 if dice.random() < 0.3 else None,
    )
